#include "train/trainer.h"

#include <math.h>
#include <string.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- batches ------------------------------------------------------------------------------------------------ */

/* Ids that are no row of the table would read zeros in silence. */
static tl_status check_ids(const trainer *t, tl_error *err) {
    int64_t n = t->set.rows * t->set.context, V = t->model->config.vocab;
    for (int64_t i = 0; i < n; i++) {
        int32_t bad = t->batch.input[i] < 0 || t->batch.input[i] >= V ? t->batch.input[i] : t->batch.target[i];
        if (t->batch.input[i] >= 0 && t->batch.input[i] < V && t->batch.target[i] < V) continue;
        return error_set(err, TL_ARG, "row %lld has the id %d at position %lld; the vocabulary has %lld",
                         (long long)(i / t->set.context), bad, (long long)(i % t->set.context), (long long)V);
    }
    for (int64_t i = 0; i < t->set.rows * config_source(&t->model->config); i++)
        if (t->batch.source[i] < 0 || t->batch.source[i] >= V)
            return error_set(err, TL_ARG, "a source has the id %d; the vocabulary has %lld", t->batch.source[i],
                             (long long)V);
    return TL_OK;
}

static tl_status bind_batch(trainer *t, int64_t first) {
    size_t at = (size_t)(first * t->set.context);
    TRY(tl_plan_bind(t->fwd.plan, t->build.ids, t->batch.input + at));
    TRY(tl_plan_bind(t->fwd.plan, t->build.targets, t->batch.target + at));
    if (t->build.pos) TRY(tl_plan_bind(t->fwd.plan, t->build.pos, t->batch.pos + at));
    if (t->build.span) TRY(tl_plan_bind(t->fwd.plan, t->build.span, t->batch.span + 2 * at));
    if (t->build.cross) {
        size_t from = (size_t)(first * config_source(&t->model->config));
        TRY(tl_plan_bind(t->fwd.plan, t->build.cross, t->batch.span + 2 * at));
        TRY(tl_plan_bind(t->fwd.plan, t->build.source, t->batch.source + from));
        TRY(tl_plan_bind(t->fwd.plan, t->build.source_pos, t->batch.source_pos + from));
        TRY(tl_plan_bind(t->fwd.plan, t->build.source_doc, t->batch.source_doc + from));
    }
    return t->build.doc ? tl_plan_bind(t->fwd.plan, t->build.doc, t->batch.doc_start + at) : TL_OK;
}

/* Random numbers count rows of activations, that is tokens: before is how many the micro-batch had already. */
static tl_status run_plan(trainer *t, tl_plan *p, int64_t first, int64_t before) {
    const tl_run_info info = {t->set.seed, (uint64_t)t->step, first * t->set.context + before};
    tl_plan_run_info(p, &info);
    return tl_plan_run(p);
}

static void add_loss(const trainer *t, double *loss, double *balance) {
    *loss += (double)*(const float *)tl_plan_data(t->fwd.plan, t->build.loss);
    if (t->build.balance) *balance += (double)*(const float *)tl_plan_data(t->fwd.plan, t->build.balance);
}

/* Forward over the segments of the rows, keeping what each was handed, then back over them, the last first. */
static tl_status run_segments(trainer *t, int64_t first, double *loss, double *balance) {
    segments *s = &t->seg;
    const int64_t n = s->count, each = s->rows * s->length;
    for (int64_t k = 0; k + 1 < n; k++) {
        segments_cut(s, &t->batch, first, k);
        TRY(segments_bind(s, t->ahead.plan, &t->ahead_build, k, k + 1));
        TRY(run_plan(t, t->ahead.plan, first, k * each));
    }
    segments_clear(s, n + (n - 1) % 2);
    for (int64_t k = n - 1; k >= 0; k--) {
        segments_cut(s, &t->batch, first, k);
        TRY(segments_bind(s, t->fwd.plan, &t->build, k, -1));
        TRY(segments_bind_back(s, t->fwd.plan, &t->build, n + k % 2, n + (k + 1) % 2));
        TRY(run_plan(t, t->fwd.plan, first, k * each));
        add_loss(t, loss, balance);
    }
    return TL_OK;
}

static tl_status run_micro(trainer *t, int64_t first, double *loss, double *balance) {
    if (t->set.segment) return run_segments(t, first, loss, balance);
    TRY(bind_batch(t, first));
    TRY(run_plan(t, t->fwd.plan, first, 0));
    add_loss(t, loss, balance);
    return TL_OK;
}

/* ---- the step ------------------------------------------------------------------------------------------------- */

static void set_hyper(trainer *t, double lr) {
    const trainer_settings *s = &t->set;
    double n = (double)(t->step - t->skipped + 1); /* updates with this one: bias correction counts those alone */
    memset(t->hyper, 0, HYPER_COUNT * sizeof *t->hyper);
    t->hyper[HYPER_LR] = (float)lr;
    t->hyper[HYPER_BETA1] = (float)s->beta1;
    t->hyper[HYPER_BETA2] = (float)s->beta2;
    t->hyper[HYPER_EPS] = (float)s->eps;
    t->hyper[HYPER_DECAY] = (float)s->decay;
    t->hyper[HYPER_CLIP] = (float)s->clip;
    t->hyper[HYPER_BC1] = (float)(1 - pow(s->beta1, n));
    t->hyper[HYPER_BC2] = (float)(1 - pow(s->beta2, n));
    t->hyper[HYPER_GSCALE] = 1;
}

static void clear_gradients(trainer *t) {
    memset(t->grad, 0, (size_t)t->params->total * sizeof *t->grad);
}

static tl_status not_finite(trainer *t, const tl_metrics *m, tl_error *err) {
    clear_gradients(t);
    bool loss = !isfinite(m->loss);
    return error_set(err, TL_NUMERIC, "step %lld: the %s is %g", (long long)t->step + 1,
                     loss ? "loss" : "norm of the gradient", loss ? m->loss : m->norm);
}

/* What the model's objective asks of the batch that the loader filled. */
static void apply_objective(trainer *t, bool examples) {
    const model_config *c = &t->model->config;
    const objective_rule o = {c->objective, c->mask, (int32_t)c->vocab, c->eos, t->set.seed, examples};
    objective_apply(&o, &t->batch, t->set.rows, t->set.context, (uint64_t)(t->step + t->data_shift), 0);
}

/* The batch buffers are filled. */
static tl_status step_batch(trainer *t, bool examples, tl_metrics *m, tl_error *err) {
    apply_objective(t, examples);
    double begin = now(), lr = schedule_lr(&t->set.schedule, t->step);
    *m = (tl_metrics){.step = t->step + 1, .lr = lr, .tokens = t->batch.labels, .flops = t->flops};
    TRY(check_ids(t, err));
    *t->denom = (float)t->batch.labels;
    tl_status s = TL_OK;
    for (int64_t first = 0; first < t->padded && s == TL_OK; first += t->set.micro)
        s = run_micro(t, first, &m->loss, &m->balance);
    if (s == TL_OK) s = tl_plan_run(t->norm.plan);
    if (s != TL_OK) {
        clear_gradients(t);
        return error_set(err, s, "a step did not run");
    }
    m->norm = (double)*t->norm_value;
    if (!isfinite(m->loss) || !isfinite(m->norm)) return not_finite(t, m, err);
    set_hyper(t, lr);
    s = tl_plan_run(t->update.plan);
    if (s != TL_OK) return error_set(err, s, "an update did not run");
    t->step++;
    t->tokens += m->tokens;
    m->seconds = now() - begin;
    return TL_OK;
}

/* A model with an encoder gets pairs, any other none. */
static tl_status check_pairs(const trainer *t, int64_t source, tl_error *err) {
    int64_t want = config_source(&t->model->config);
    if (source == want) return TL_OK;
    if (!want) return error_set(err, TL_ARG, "pairs are for a model with an encoder");
    return error_set(err, TL_ARG, "a model with an encoder is trained on pairs with sources of %lld tokens",
                     (long long)want);
}

tl_status trainer_step(trainer *t, const loader *l, tl_metrics *m, tl_error *err) {
    TRY(check_pairs(t, loader_source(l), err));
    loader_get_rows(l, t->step + t->data_shift, 0, t->set.rows, &t->batch);
    return step_batch(t, loader_examples(l), m, err);
}

tl_status trainer_step_ids(trainer *t, const int32_t *ids, tl_metrics *m, tl_error *err) {
    int64_t T = t->set.context;
    TRY(check_pairs(t, 0, err));
    t->batch.labels = 0;
    for (int64_t r = 0; r < t->set.rows; r++)
        for (int64_t i = 0; i < T; i++) {
            int64_t to = r * T + i, from = r * (T + 1) + i;
            t->batch.input[to] = ids[from];
            t->batch.target[to] = ids[from + 1];
            t->batch.pos[to] = (int32_t)i;
            t->batch.doc_start[to] = 0;
            t->batch.labels += ids[from + 1] >= 0;
        }
    return step_batch(t, false, m, err);
}

void trainer_pass_over(trainer *t) {
    t->step++;
    t->skipped++;
}

/* Forward and backward of the loader's next batch; the gradients stay. */
static tl_status probe(trainer *t, const loader *l, tl_error *err) {
    TRY(check_pairs(t, loader_source(l), err));
    loader_get_rows(l, t->step + t->data_shift, 0, t->set.rows, &t->batch);
    apply_objective(t, loader_examples(l));
    TRY(check_ids(t, err));
    *t->denom = (float)t->batch.labels;
    double loss = 0, balance = 0;
    tl_status s = TL_OK;
    for (int64_t first = 0; first < t->padded && s == TL_OK; first += t->set.micro)
        s = run_micro(t, first, &loss, &balance);
    if (s == TL_OK) s = tl_plan_run(t->norm.plan);
    return s == TL_OK ? TL_OK : error_set(err, s, "a step did not run");
}

tl_status trainer_probe(trainer *t, const loader *l, double *seconds, tl_error *err) {
    double begin = now();
    tl_status s = probe(t, l, err);
    clear_gradients(t);
    *seconds = now() - begin;
    return s;
}

tl_status trainer_gradients(trainer *t, const loader *l, double *norm, tl_error *err) {
    const model_params *p = &t->model->params;
    const int64_t layers = t->model->config.layers;
    tl_status s = probe(t, l, err);
    for (int64_t i = 0; i <= layers; i++) norm[i] = 0;
    for (size_t i = 0; i < p->n; i++) {
        const model_param *q = &p->list[i];
        const int64_t n = q->rows ? q->rows * q->cols : q->cols;
        double *sum = &norm[q->layer < 0 ? layers : q->layer];
        for (int64_t k = 0; k < n; k++) *sum += (double)t->grad[q->offset + k] * (double)t->grad[q->offset + k];
    }
    for (int64_t i = 0; i <= layers; i++) norm[i] = sqrt(norm[i]);
    clear_gradients(t);
    return s;
}
