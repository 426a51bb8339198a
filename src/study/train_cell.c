/* A training cell: a model of the cell's configuration is trained on the study's corpus, going on from its checkpoint
 * if there is one, and measured. The same cell and seed give the same numbers, bit for bit, however often they were
 * interrupted; only processor times are as they are. */
#include "base/file.h"
#include "base/hash.h"
#include "eval/eval.h"
#include "study/study.h"
#include "train/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { POINTS = 100, DEPTHS = 257, TIMES = 1 << 14, FRAME_VERSION = 1 };

typedef struct session {
    study_lab *lab;
    const study_cell *cell;
    const study_setup *set;
    study_measured *m;
    const char *work;
    char key[STUDY_KEY];
    uint64_t seed;
    tl_model *model;
    trainer *trainer;
    loader *loader;
    double loss[POINTS]; /* sums of the steps of each hundredth of training */
    int64_t steps[POINTS];
    double norm_max;
    double depth[DEPTHS]; /* norms of the gradient by layer before the first step */
    double *cpu;          /* seconds of a step, of this process's steps */
    size_t n_cpu;
    bool diverged;
} session;

static double now(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- fingerprint ----------------------------------------------------------------------------- */

tl_status study_fingerprint(const study_lab *l, const study_cell *c, const study_setup *s, uint64_t *hash,
                            tl_error *e) {
    char key[STUDY_KEY], text[STUDY_KEY + 160];
    study_cell_key(c, key);
    json_t *config = config_write(&s->config), *train = checkpoint_settings_json(&s->train);
    if (train) json_object_set_new(train, "recompute", json_false()); /* no part of a cell: it changes no bit */
    char *a = config ? json_dumps(config, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    char *b = train ? json_dumps(train, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(config);
    json_decref(train);
    uint64_t part[4] = {a ? hash_bytes(a, strlen(a)) : 0, b ? hash_bytes(b, strlen(b)) : 0,
                        l->corpus ? l->corpus->hash : 0, 0};
    int n =
        snprintf(text, sizeof text, "%d %s %d%d%d", FRAME_VERSION, key, s->by_position, s->by_depth, s->on_training);
    for (int i = 0; i < STUDY_TRANSFER && s->transfer[i] && n < (int)sizeof text; i++)
        n += snprintf(text + n, sizeof text - (size_t)n, " %lld", (long long)s->transfer[i]);
    part[3] = hash_bytes(text, strlen(text));
    *hash = hash_bytes(part, sizeof part);
    tl_status st = a && b ? TL_OK : error_set(e, TL_NOMEM, "no memory to tell cells apart");
    free(a);
    free(b);
    return st;
}

/* ---- checkpoints ----------------------------------------------------------------------------- */

static json_t *reals(const double *x, size_t n) {
    json_t *a = json_array();
    for (size_t i = 0; i < n; i++) json_array_append_new(a, json_real(x[i]));
    return a;
}

static void read_reals(const json_t *a, double *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = json_number_value(json_array_get(a, i));
}

static const char *hash_of(const session *s) {
    return json_string_value(json_object_get(s->m->o, "hash"));
}

static tl_status save(session *s, tl_error *e) {
    json_t *steps = json_array();
    for (int i = 0; i < POINTS; i++) json_array_append_new(steps, json_integer(s->steps[i]));
    json_t *extra =
        json_pack("{s:s, s:o, s:o, s:f, s:o}", "hash", hash_of(s), "loss", reals(s->loss, POINTS), "steps", steps,
                  "norm_max", s->norm_max, "depth", reals(s->depth, (size_t)s->model->config.layers + 1));
    if (!extra) return error_set(e, TL_NOMEM, "no memory for a checkpoint");
    tl_status st = checkpoint_save(s->trainer, s->work, extra, e);
    json_decref(extra);
    if (st == TL_OK) st = checkpoint_prune(s->model->alloc, s->work, 1, e);
    return st;
}

static tl_status load(session *s, const char *dir, const json_t *manifest, tl_error *e) {
    const json_t *extra = checkpoint_extra(manifest), *steps = json_object_get(extra, "steps");
    const char *hash = json_string_value(json_object_get(extra, "hash"));
    if (!hash || strcmp(hash, hash_of(s)) != 0) return error_set(e, TL_CONFIG, "its cell was another one");
    TRY(model_read_weights(s->model, dir, e));
    if (s->set->train.dtype == TL_BF16) TRY(model_bf16(s->model, e));
    TRY(checkpoint_restore(s->trainer, dir, manifest, e));
    read_reals(json_object_get(extra, "loss"), s->loss, POINTS);
    read_reals(json_object_get(extra, "depth"), s->depth, (size_t)s->model->config.layers + 1);
    for (size_t i = 0; i < POINTS; i++) s->steps[i] = json_integer_value(json_array_get(steps, i));
    s->norm_max = json_number_value(json_object_get(extra, "norm_max"));
    return TL_OK;
}

/* Where an earlier process stopped; a checkpoint that cannot be used is as good as none. */
static tl_status resume(session *s, bool *found, tl_error *e) {
    char dir[1024];
    json_t *manifest;
    tl_error why = {0};
    *found = false;
    if (!file_is_dir(s->work)) return TL_OK;
    tl_status st = checkpoint_find(s->model->alloc, s->work, &s->model->log, dir, sizeof dir, &manifest, &why);
    if (st != TL_OK) return st == TL_NOMEM ? error_set(e, st, "no memory to resume") : TL_OK;
    st = load(s, dir, manifest, &why);
    json_decref(manifest);
    *found = st == TL_OK;
    if (*found || st == TL_CONFIG || st == TL_SHAPE || st == TL_FORMAT || st == TL_CHECKSUM) return TL_OK;
    if (e) *e = why;
    return st;
}

/* ---- training -------------------------------------------------------------------------------- */

static void say(const session *s, const char *what, double loss) {
    char line[STUDY_KEY + 200];
    if (!s->lab->say) return;
    snprintf(line, sizeof line, "%s %s seed %llu: %s %lld of %lld, loss %.3f", s->cell->of->name, s->key,
             (unsigned long long)s->seed, what, (long long)s->trainer->step, (long long)s->set->train.schedule.steps,
             loss);
    s->lab->say(s->lab->user, line);
}

static tl_status steps(session *s, tl_error *e) {
    const int64_t n = s->set->train.schedule.steps;
    double saved = now(CLOCK_MONOTONIC), told = saved, every = s->lab->save_seconds;
    while (s->trainer->step < n) {
        if (s->lab->stop && s->lab->stop(s->lab->user)) {
            TRY(save(s, e));
            return error_set(e, TL_CANCELLED, "stopped at step %lld of %lld", (long long)s->trainer->step,
                             (long long)n);
        }
        tl_metrics m;
        double begin = now(CLOCK_PROCESS_CPUTIME_ID);
        tl_error why = {0};
        tl_status st = trainer_step(s->trainer, s->loader, &m, &why);
        if (st == TL_NUMERIC) {
            s->diverged = true;
            return TL_OK;
        }
        if (st != TL_OK) {
            if (e) *e = why;
            return st;
        }
        if (s->n_cpu < TIMES) s->cpu[s->n_cpu++] = now(CLOCK_PROCESS_CPUTIME_ID) - begin;
        int64_t at = (m.step - 1) * POINTS / n;
        s->loss[at] += m.loss;
        s->steps[at]++;
        s->norm_max = fmax(s->norm_max, m.norm);
        double t = now(CLOCK_MONOTONIC);
        if (t - told > 5) say(s, "step", m.loss), told = t;
        if (t - saved > (every > 0 ? every : 15) && m.step < n) {
            TRY(save(s, e));
            saved = now(CLOCK_MONOTONIC);
        }
    }
    return TL_OK;
}

/* ---- measuring ------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

/* Of a step, the median: a step that another process disturbed does not count. The first steps warm the caches. */
static double cpu_seconds(session *s) {
    if (!s->n_cpu) return (double)NAN;
    qsort(s->cpu, s->n_cpu, sizeof *s->cpu, by_size);
    return s->cpu[s->n_cpu / 2];
}

static void training_values(session *s) {
    const trainer *t = s->trainer;
    const model_config *c = &s->model->config;
    const double step = (double)(t->set.rows * t->set.context);
    double x[POINTS], y[POINTS], last = 0;
    int64_t n = 0, done = 0;
    for (int i = 0; i < POINTS; i++) {
        done += s->steps[i];
        x[i] = (double)done * step / 1e3;
        y[i] = s->steps[i] ? s->loss[i] / (double)s->steps[i] : (double)NAN;
        if (i < POINTS - 5) continue;
        last += s->loss[i];
        n += s->steps[i];
    }
    study_curve(s->m, "loss", POINTS, x, y);
    study_value(s->m, "train_loss", n ? last / (double)n : (double)NAN);
    study_value(s->m, "norm_max", s->norm_max);
    study_value(s->m, "diverged", s->diverged);
    study_value(s->m, "params", (double)s->model->params.count);
    study_value(s->m, "tokens", (double)t->tokens);
    study_value(s->m, "mflop", t->flops / step / 1e6);
    study_value(s->m, "cpu_us", cpu_seconds(s) / step * 1e6);
    study_value(s->m, "train_mb", (double)t->bytes.total / 1e6);
    size_t state = build_state_fixed(c, TL_F32) + build_state_per_token(c, TL_F32) * (size_t)t->set.context;
    study_value(s->m, "state_kb", (double)state / 1e3);
}

static tl_status held_out(session *s, int64_t T, const tokens *text, eval_result *r, tl_error *e) {
    evaluator *v;
    TRY(evaluator_open(s->model, &(eval_options){.context = T, .dtype = s->set->train.dtype}, &v, e));
    tl_error why = {0};
    tl_status st = evaluator_run(v, text, r, s->lab->stop, s->lab->user, &why);
    evaluator_close(v);
    if (st == TL_NUMERIC) { /* a result, not a failure */
        *r = (eval_result){.nats = (double)NAN, .loss = (double)NAN, .tokens = 1, .bytes = 1};
        return TL_OK;
    }
    if (st != TL_OK && e) *e = why;
    return st;
}

tl_status study_by_position(study_lab *l, tl_model *m, int64_t T, double *nats, int64_t *count, tl_error *e) {
    evaluator *v;
    eval_result r;
    memset(nats, 0, (size_t)T * sizeof *nats);
    memset(count, 0, (size_t)T * sizeof *count);
    TRY(evaluator_open(m, &(eval_options){.context = T, .by_position = nats, .at_position = count}, &v, e));
    tl_status st = evaluator_run(v, &l->corpus->held, &r, l->stop, l->user, e);
    evaluator_close(v);
    return st;
}

/* Buckets that grow with the position, each with at least one: fine where contexts are short. */
static void position_curve(study_measured *m, int64_t T, const double *nats, const int64_t *count) {
    double x[128], y[128];
    size_t n = 0;
    for (int64_t at = 0, end; at < T && n < 128; at = end) {
        double sum = 0;
        int64_t seen = 0;
        end = at + 1 + at / 8;
        if (end > T) end = T;
        for (int64_t i = at; i < end; i++) sum += nats[i], seen += count[i];
        x[n] = 0.5 * (double)(at + end + 1);
        y[n++] = seen ? sum / (double)seen : (double)NAN;
    }
    study_curve(m, "position", n, x, y);
}

static tl_status positions(session *s, int64_t T, tl_error *e) {
    double *nats = mem_new(s->model->alloc, (size_t)T, sizeof *nats);
    int64_t *count = mem_new(s->model->alloc, (size_t)T, sizeof *count);
    tl_status st = nats && count ? study_by_position(s->lab, s->model, T, nats, count, e)
                                 : error_set(e, TL_NOMEM, "no memory for losses by position");
    if (st == TL_OK) position_curve(s->m, T, nats, count);
    mem_free(s->model->alloc, nats);
    mem_free(s->model->alloc, count);
    return st;
}

static tl_status transfer(session *s, tl_error *e) {
    double x[STUDY_TRANSFER], y[STUDY_TRANSFER];
    size_t n = 0;
    int64_t longest = s->set->train.context;
    for (; n < STUDY_TRANSFER && s->set->transfer[n]; n++) {
        eval_result r;
        char name[32];
        TRY(held_out(s, s->set->transfer[n], &s->lab->corpus->held, &r, e));
        snprintf(name, sizeof name, "loss@%lld", (long long)s->set->transfer[n]);
        study_value(s->m, name, r.loss);
        x[n] = (double)s->set->transfer[n];
        y[n] = r.loss;
        if (s->set->transfer[n] > longest) longest = s->set->transfer[n];
    }
    if (n) study_curve(s->m, "transfer", n, x, y);
    return s->set->by_position ? positions(s, longest, e) : TL_OK;
}

static tl_status depth_curves(session *s, tl_error *e) {
    double x[DEPTHS], end[DEPTHS];
    const int64_t layers = s->model->config.layers;
    TRY(trainer_gradients(s->trainer, s->loader, end, e));
    for (int64_t i = 0; i < layers; i++) x[i] = (double)(i + 1);
    study_curve(s->m, "depth", (size_t)layers, x, s->depth);
    study_curve(s->m, "depth_end", (size_t)layers, x, end);
    study_value(s->m, "depth_ratio", s->depth[0] / s->depth[layers - 1]);
    study_value(s->m, "depth_first", s->depth[0]);
    study_value(s->m, "depth_last", s->depth[layers - 1]);
    return TL_OK;
}

static tl_status losses(session *s, tl_error *e) {
    const study_corpus *c = s->lab->corpus;
    eval_result r = {.loss = (double)NAN, .nats = (double)NAN, .bytes = 1}, seen;
    if (!s->diverged) TRY(held_out(s, s->set->train.context, &c->held, &r, e));
    study_value(s->m, "val_loss", r.loss);
    study_value(s->m, "bits_per_byte", eval_bits_per_byte(&r));
    if (isfinite(c->floor)) study_value(s->m, "above_floor", r.loss - c->floor);
    if (s->set->on_training && !s->diverged) {
        tokens same = tokens_slice(&c->train, 0, c->held.n < c->train.n ? c->held.n : c->train.n);
        TRY(held_out(s, s->set->train.context, &same, &seen, e));
        study_value(s->m, "train_eval", seen.loss);
        study_value(s->m, "gap", r.loss - seen.loss);
    }
    if (s->set->by_depth && !s->diverged) TRY(depth_curves(s, e));
    return s->diverged ? TL_OK : transfer(s, e);
}

/* ---- a cell ---------------------------------------------------------------------------------- */

static tl_status begin(session *s, tl_error *e) {
    study_lab *l = s->lab;
    const study_setup *set = s->set;
    if (set->config.layers >= DEPTHS) return error_set(e, TL_CONFIG, "%lld layers", (long long)set->config.layers);
    TRY(model_create(l->engine, &set->config, l->corpus->tokenizer, s->seed, &s->model, e));
    TRY(trainer_create(s->model, &set->train, &s->trainer, e));
    s->cpu = mem_new(s->model->alloc, TIMES, sizeof *s->cpu);
    if (!s->cpu) return error_set(e, TL_NOMEM, "no memory for times");
    loader_options o = {
        .mode = LOADER_WINDOWS, .B = set->train.rows, .T = set->train.context, .seed = s->seed, .across = true};
    return loader_open(s->model->alloc, &l->corpus->train, &o, &s->loader, e);
}

static tl_status whole(session *s, tl_error *e) {
    bool found;
    TRY(begin(s, e));
    TRY(resume(s, &found, e));
    if (!found && s->set->by_depth) TRY(trainer_gradients(s->trainer, s->loader, s->depth, e));
    if (found) say(s, "going on from step", s->loss[0]);
    TRY(steps(s, e));
    training_values(s);
    TRY(losses(s, e));
    const study *of = s->cell->of;
    return of->measure && !s->diverged ? of->measure(s->lab, s->cell, s->trainer, s->m, e) : TL_OK;
}

tl_status study_train(study_lab *l, const study_cell *c, uint64_t seed, const study_setup *set, const char *work,
                      study_measured *m, tl_error *e) {
    const tl_allocator *a = tl_engine_allocator(l->engine);
    session *s = mem_new(a, 1, sizeof *s);
    if (!s) return error_set(e, TL_NOMEM, "no memory for a cell");
    s->lab = l;
    s->cell = c;
    s->set = set;
    s->m = m;
    s->work = work;
    s->seed = seed;
    study_cell_key(c, s->key);
    tl_status st = whole(s, e);
    loader_close(s->loader);
    trainer_destroy(s->trainer);
    model_close(s->model);
    mem_free(a, s->cpu);
    mem_free(a, s);
    return st;
}
