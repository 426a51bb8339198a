#include "cli/profile_cli.h"

#include "infer/decoder.h"
#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, int64_t n) {
    qsort(x, (size_t)n, sizeof *x, by_size);
    return n % 2 ? x[n / 2] : (x[n / 2 - 1] + x[n / 2]) / 2;
}

enum { MOST = 400 };

/* At least so many tries, and for short ones as many as a second holds: other work on the machine disturbs now and
 * then, and the best of many is what it can do. */
static bool more(const profile_options *o, int64_t done, double from) {
    return done < o->steps || (done < MOST && now() - from < 1);
}

static void finish(profile_run *r, double *took, int64_t n, double of) {
    r->whole = median(took, n);
    r->least = took[0]; /* sorted now */
    r->tokens = of;
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

/* Adds the steps of a plan that ran with clocks, or, over rows that are there already, keeps the least times. */
static void gather(profile_run *r, const tl_plan *p, double seen, double footprint, size_t *at) {
    for (size_t i = 0; i < p->n_steps && *at < PROFILE_ROWS; i++, (*at)++) {
        profile_row *row = &r->row[*at];
        if (*at < r->n) {
            row->seconds = fmin(row->seconds, p->steps[i].seconds);
            continue;
        }
        cost_step s;
        walk_step(p, i, seen, footprint, &s);
        *row = (profile_row){.op = s.step->op->name,
                             .kernel = s.step->exec.name,
                             .name = s.step->name,
                             .part = s.part,
                             .backward = s.backward,
                             .seconds = s.step->seconds,
                             .predicted = walk_seconds(&r->machine, &s),
                             .limit = walk_limit(&r->machine, &s, NULL),
                             .flops = s.cost.flops,
                             .bytes = s.cost.bytes_read + s.cost.bytes_written,
                             .calls = 1};
        r->n = *at + 1;
    }
}

/* ---- training -------------------------------------------------------------------------------------------------- */

static tl_status train_steps(const profile_options *o, profile_run *r, const int32_t *ids, double *took,
                             tl_error *err) {
    trainer *t = r->trainer;
    tl_plan *const plans[] = {t->fwd.plan, t->norm.plan, t->update.plan};
    tl_metrics metrics;
    double footprint = 0;
    for (int k = 0; k < 3; k++) footprint = fmax(footprint, walk_footprint(plans[k]));
    TRY(trainer_step_ids(t, ids, &metrics, err));
    int64_t i = 0;
    for (double from = now(); more(o, i, from); i++) {
        TRY(trainer_step_ids(t, ids, &metrics, err));
        took[i] = metrics.seconds;
        size_t at = 0;
        for (int k = 0; k < 3; k++) {
            tl_status s = tl_plan_run_profiled(plans[k]);
            if (s != TL_OK) return error_set(err, s, "the plan did not run");
            gather(r, plans[k], 1, footprint, &at);
        }
    }
    finish(r, took, i, (double)metrics.tokens);
    return TL_OK;
}

static tl_status train(const profile_options *o, profile_run *r, double *took, tl_error *err) {
    tl_model *m = r->model;
    trainer_settings s = {.schedule = {.kind = TL_SCHEDULE_CONSTANT, .lr = 1e-4, .min_lr = 1e-4},
                          .rows = o->batch,
                          .micro = o->batch,
                          .context = o->context ? o->context : m->config.context,
                          .dtype = o->dtype,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .decay = 0.1,
                          .clip = 1,
                          .recompute = o->recompute};
    TRY(trainer_create(m, &s, &r->trainer, err));
    size_t count = (size_t)(s.rows * (s.context + 1));
    int32_t *ids = mem_new(m->alloc, count, sizeof *ids);
    if (!ids) return error_set(err, TL_NOMEM, "no memory for a batch");
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)((i * 7919 + i * i) % (size_t)m->config.vocab);
    tl_status st = train_steps(o, r, ids, took, err);
    mem_free(m->alloc, ids);
    return st;
}

/* ---- generation ------------------------------------------------------------------------------------------------- */

/* Tokens [from, to) of one sequence, at once. */
static tl_status feed(decoder *d, int64_t from, int64_t to, tl_error *err) {
    int64_t n = to - from;
    int32_t *ids = mem_new(d->model->alloc, 3 * (size_t)n, sizeof *ids), last = (int32_t)n - 1;
    if (!ids) return error_set(err, TL_NOMEM, "no memory for a prompt");
    for (int64_t i = 0; i < n; i++) {
        ids[i] = (int32_t)((from + i) * 7919 % d->model->config.vocab);
        ids[n + i] = (int32_t)(from + i);
    }
    const float *logits;
    tl_status s = decoder_run(d, n, ids, ids + n, ids + 2 * n, 1, &last, &logits, err);
    mem_free(d->model->alloc, ids);
    return s;
}

static tl_plan *plan_of(const decoder *d, int64_t rows) {
    for (int k = 0; k < DECODER_BUCKETS; k++)
        if (d->plan[k].plan && d->plan[k].rows == rows) return d->plan[k].plan;
    return NULL;
}

/* A prompt of n tokens by its pieces; each piece's plan is run once more with clocks, in place. */
static tl_status prefill(const profile_options *o, profile_run *r, int64_t n, double *took, tl_error *err) {
    decoder *d = r->decoder;
    const int64_t most = build_bucket_rows[BUILD_BUCKETS - 1];
    TRY(feed(d, 0, n, err));
    int64_t i = 0;
    for (double start = now(); more(o, i, start); i++) {
        double from = now();
        TRY(feed(d, 0, n, err));
        took[i] = now() - from;
        size_t at = 0;
        for (int64_t first = 0; first < n; first += most) {
            int64_t part = n - first < most ? n - first : most, rows = build_bucket(part);
            TRY(feed(d, first, first + part, err)); /* fills in ids and positions */
            tl_plan *p = plan_of(d, rows);
            tl_status s = tl_plan_run_profiled(p);
            if (s != TL_OK) return error_set(err, s, "the plan did not run");
            double seen = ((double)first + 0.5 * (double)(part + 1)) / (double)d->capacity;
            gather(r, p, seen < 1 ? seen : 1, walk_footprint(p), &at);
        }
    }
    finish(r, took, i, (double)n);
    return TL_OK;
}

static tl_status decode(const profile_options *o, profile_run *r, int64_t n, double *took, tl_error *err) {
    decoder *d = r->decoder;
    TRY(feed(d, 0, n, err));
    TRY(feed(d, n, n + 1, err));
    tl_plan *p = plan_of(d, 1);
    int64_t i = 0;
    for (double start = now(); more(o, i, start); i++) { /* the same position again: the token behind n others */
        double from = now();
        TRY(feed(d, n, n + 1, err));
        took[i] = now() - from;
        tl_status s = tl_plan_run_profiled(p);
        if (s != TL_OK) return error_set(err, s, "the plan did not run");
        size_t at = 0;
        gather(r, p, (double)(n + 1) / (double)d->capacity, walk_footprint(p), &at);
    }
    finish(r, took, i, 1);
    return TL_OK;
}

static tl_status generate(const profile_options *o, profile_run *r, double *took, tl_error *err) {
    r->decoder = calloc(1, sizeof *r->decoder);
    if (!r->decoder) return error_set(err, TL_NOMEM, "no memory for a decoder");
    int64_t n = o->context ? o->context : r->model->config.context;
    if (n < 2) return error_set(err, TL_ARG, "a prompt of %lld tokens is too short", (long long)n);
    TRY(decoder_init(r->decoder, r->model, 1, n, o->dtype, TL_F32, err));
    if (o->what == PROFILE_PREFILL) return prefill(o, r, n, took, err);
    return decode(o, r, n - 1, took, err);
}

/* ---- all of it --------------------------------------------------------------------------------------------------- */

static tl_status open_model(const profile_options *o, tl_engine *e, tl_model **m, tl_error *err) {
    char text[64];
    model_config c;
    if (o->model && o->what != PROFILE_TRAIN) return model_open_mapped(e, o->model, m, err);
    if (o->model) return model_open(e, o->model, m, err);
    snprintf(text, sizeof text, "%s:%s", o->depth ? "depth" : "preset",
             o->depth    ? o->depth
             : o->preset ? o->preset
                         : "char-cpu");
    TRY(config_parse(text, &c, NULL, 0, err));
    if (c.context < o->context) c.context = o->context;
    return model_create(e, &c, NULL, 1, m, err);
}

tl_status profile_do(const profile_options *o, tl_engine *e, profile_run *r, tl_error *err) {
    memset(r, 0, sizeof *r);
    r->row = calloc(PROFILE_ROWS, sizeof *r->row);
    double *took = calloc((size_t)(o->steps > MOST ? o->steps : MOST), sizeof *took);
    tl_status s = r->row && took ? TL_OK : error_set(err, TL_NOMEM, "no memory for a profile");
    if (s == TL_OK) s = machine_now(e, &r->machine, err);
    r->measured = r->machine.n > 0;
    if (s == TL_OK) s = open_model(o, e, &r->model, err);
    if (s == TL_OK) s = o->what == PROFILE_TRAIN ? train(o, r, took, err) : generate(o, r, took, err);
    free(took);
    if (s != TL_OK) profile_close(r);
    return s;
}

void profile_close(profile_run *r) {
    trainer_destroy(r->trainer);
    if (r->decoder) decoder_fini(r->decoder);
    free(r->decoder);
    if (r->model) model_close(r->model);
    machine_fini(&r->machine);
    free(r->row);
    memset(r, 0, sizeof *r);
}
