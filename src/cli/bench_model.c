/* tilia bench train, kv-cache: whole models with random weights. */
#include "cli/bench_cli.h"

#include "infer/session.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <string.h>

enum { MOST = 4096 };

tl_status bench_random_model(const bench_options *o, const char *otherwise, tl_model **m, tl_error *e) {
    char text[64];
    model_config c;
    snprintf(text, sizeof text, "preset:%s", o->preset ? o->preset : otherwise);
    TRY(config_parse(text, &c, NULL, 0, e));
    if (c.context < o->context) c.context = o->context;
    return model_create(o->engine, &c, NULL, 1, m, e);
}

/* ---- train ---------------------------------------------------------------------------------------------------- */

/* first: of the very first step, which meets memory that nobody has touched. */
static tl_status train_steps(const bench_options *o, trainer *t, double *took, int n, double *first, tl_error *e) {
    const int64_t vocab = t->model->config.vocab, count = t->set.rows * (t->set.context + 1);
    int32_t *ids = calloc((size_t)count, sizeof *ids);
    if (!ids) return error_set(e, TL_NOMEM, "no memory for a batch");
    for (int64_t i = 0; i < count; i++) ids[i] = (int32_t)((i * 7919 + i * i) % vocab);
    tl_metrics m;
    tl_status s = TL_OK;
    for (int i = -2; i < n && s == TL_OK; i++) {
        const double from = bench_now(o);
        s = trainer_step_ids(t, ids, &m, e);
        *(i < -1 ? first : took + (i < 0 ? 0 : i)) = bench_now(o) - from;
    }
    free(ids);
    return s;
}

static tl_status train_one(bench_options *o, tl_model *m, tl_dtype dtype, tl_error *e) {
    trainer_settings s = {.schedule = {.kind = TL_SCHEDULE_CONSTANT, .lr = 1e-4, .min_lr = 1e-4},
                          .rows = o->batch ? o->batch : 12,
                          .micro = o->batch ? o->batch : 12,
                          .context = o->context ? o->context : m->config.context,
                          .dtype = dtype,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .decay = 0.1,
                          .clip = 1};
    static double took[MOST];
    double first = 0;
    const int n = o->steps ? (int)o->steps : 10;
    trainer *t;
    TRY(trainer_create(m, &s, &t, e));
    tl_status st = train_steps(o, t, took, n, &first, e);
    const double labels = (double)(s.rows * s.context), flops = t->flops;
    const size_t activations = t->bytes.activations;
    trainer_destroy(t);
    if (st != TL_OK) return st;
    const double limit = bench_peak(o, dtype);
    if (o->common.json) {
        bench_json_row(o);
        printf(
            "{\"dtype\": \"%s\", \"tokens\": %.0f, \"flops\": %.0f, \"activation_bytes\": %zu, \"limit_flops\": %.4g, "
            "\"first_seconds\": %.6g, ",
            tl_dtype_name(dtype), labels, flops, activations, limit, first);
        bench_print_seconds("seconds", took, n);
        printf("}");
        return TL_OK;
    }
    const double mid = bench_median(took, n);
    printf("%-5s %8.2f ms a step (%.2f to %.2f)  %9.0f tokens/s  %6.1f GFLOP/s, %.0f %% of the limit; the first step "
           "%.2f ms\n",
           tl_dtype_name(dtype), 1e3 * mid, 1e3 * took[0], 1e3 * took[n - 1], labels / mid, 1e-9 * flops / mid,
           limit > 0 ? 100 * flops / mid / limit : 0, 1e3 * first);
    return TL_OK;
}

tl_status bench_train(bench_options *o, tl_error *e) {
    tl_model *m;
    TRY(bench_random_model(o, "char-cpu", &m, e));
    tl_status s = TL_OK;
    if (o->dtype != TL_BF16) s = train_one(o, m, TL_F32, e);
    if (s == TL_OK && o->dtype != TL_F32) s = train_one(o, m, TL_BF16, e);
    model_close(m);
    return s;
}

/* ---- kv-cache -----------------------------------------------------------------------------------------------------
 */

/* Median seconds for one more token behind n others. */
static tl_status one_more(const bench_options *o, tl_model *m, int64_t n, bool no_cache, double *seconds, tl_error *e) {
    tl_session_options so = {.ignore_eos = true, .no_cache = no_cache, .context = m->config.context};
    double took[5];
    struct tl_session *s;
    int32_t *ids = calloc((size_t)n, sizeof *ids);
    if (!ids) return error_set(e, TL_NOMEM, "no memory for a prompt");
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)(i * 7919 % m->config.vocab);
    tl_status st = session_create(m, &so, &s, e);
    if (st == TL_OK) st = session_ids(s, ids, (size_t)n, e);
    tl_piece piece;
    for (int i = -2; i < 5 && st == TL_OK;
         i++) { /* the first computes the prompt, the next makes the plan for one row */
        const double from = bench_now(o);
        st = session_next(s, &piece, e);
        if (i >= 0) took[i] = bench_now(o) - from;
    }
    session_destroy(s);
    free(ids);
    if (st == TL_OK) *seconds = bench_median(took, 5);
    return st;
}

tl_status bench_kv_cache(bench_options *o, tl_error *e) {
    tl_model *m;
    TRY(bench_random_model(o, "char", &m, e));
    tl_status s = TL_OK;
    if (!o->common.json) printf("%8s %16s %16s %8s\n", "tokens", "ms with cache", "ms without", "ratio");
    for (int64_t n = 16; n + 8 <= m->config.context && s == TL_OK; n *= 2) {
        double with, without;
        s = one_more(o, m, n, false, &with, e);
        if (s == TL_OK) s = one_more(o, m, n, true, &without, e);
        if (s != TL_OK) break;
        if (o->common.json) {
            bench_json_row(o);
            printf("{\"tokens\": %lld, \"seconds\": %.9g, \"seconds_without\": %.9g}", (long long)n, with, without);
        } else
            printf("%8lld %16.3f %16.3f %8.1f\n", (long long)n, 1e3 * with, 1e3 * without, without / with);
    }
    model_close(m);
    return s;
}
