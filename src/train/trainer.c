#include "train/trainer.h"

#include "graph/plan.h"

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
static tl_status check_ids(const trainer *t, const loader_batch *b, tl_error *err) {
    int64_t n = t->set.rows * t->set.context, V = t->model->config.vocab;
    for (int64_t i = 0; i < n; i++) {
        int32_t bad = b->input[i] < 0 || b->input[i] >= V ? b->input[i] : b->target[i];
        if (b->input[i] >= 0 && b->input[i] < V && b->target[i] < V) continue;
        return error_set(err, TL_ARG, "row %lld has the id %d at position %lld; the vocabulary has %lld",
                         (long long)(i / t->set.context), bad, (long long)(i % t->set.context), (long long)V);
    }
    for (int64_t i = 0; i < t->set.rows * config_source(&t->model->config); i++)
        if (b->source[i] < 0 || b->source[i] >= V)
            return error_set(err, TL_ARG, "a source has the id %d; the vocabulary has %lld", b->source[i],
                             (long long)V);
    return TL_OK;
}

static tl_status bind_in(tl_plan *p, const trainer_slot *s, const tl_tensor *x, const void *host) {
    return x ? plan_bind_device(p, x, device_twin_at(&s->in, host)) : TL_OK;
}

tl_status trainer_bind_slot(trainer *t, trainer_slot *s) {
    TRY(bind_in(t->fwd.plan, s, t->build.denom, s->denom));
    if (t->ahead.plan) TRY(bind_in(t->ahead.plan, s, t->ahead_build.denom, s->denom));
    TRY(bind_in(t->update.plan, s, t->bound.hyper, s->hyper));
    if (!t->sticky) {
        TRY(plan_bind_device(t->norm.plan, t->guard.norm, s->norm));
        return plan_bind_device(t->update.plan, t->bound.norm, s->norm);
    }
    TRY(plan_bind_device(t->norm.plan, t->guard.norm, s->out.at));
    return plan_bind_device(t->norm.plan, t->guard.losses, s->out.at + 16 * sizeof(float));
}

static tl_status bind_batch(trainer *t, const trainer_slot *s, int64_t first) {
    const loader_batch *b = &s->batch;
    const build_result *r = &t->build;
    tl_plan *p = t->fwd.plan;
    size_t at = (size_t)(first * t->set.context), from = (size_t)(first * config_source(&t->model->config));
    TRY(bind_in(p, s, r->ids, b->input + at));
    TRY(bind_in(p, s, r->targets, b->target + at));
    TRY(bind_in(p, s, r->pos, b->pos + at));
    if (r->span) TRY(bind_in(p, s, r->span, b->span + 2 * at));
    if (r->cross) {
        TRY(bind_in(p, s, r->cross, b->span + 2 * at));
        TRY(bind_in(p, s, r->source, b->source + from));
        TRY(bind_in(p, s, r->source_pos, b->source_pos + from));
        TRY(bind_in(p, s, r->source_doc, b->source_doc + from));
    }
    return bind_in(p, s, r->doc, b->doc_start + at);
}

/* Random numbers count rows of activations, that is tokens: before is how many the micro-batch had already. */
static tl_status run_plan(trainer *t, tl_plan *p, int64_t step, int64_t first, int64_t before) {
    const tl_run_info info = {t->set.seed, (uint64_t)step, first * t->set.context + before};
    tl_plan_run_info(p, &info);
    return tl_plan_run(p);
}

static void add_loss(const trainer *t, tl_metrics *m) {
    m->loss += (double)*(const float *)plan_data_device(t->fwd.plan, t->build.loss);
    if (t->build.balance) m->balance += (double)*(const float *)plan_data_device(t->fwd.plan, t->build.balance);
}

/* Forward over the segments of the rows, keeping what each was handed, then back over them, the last first. */
static tl_status run_segments(trainer *t, trainer_slot *slot, int64_t first, int64_t step) {
    segments *s = &t->seg;
    const int64_t n = s->count, each = s->rows * s->length;
    for (int64_t k = 0; k + 1 < n; k++) {
        segments_cut(s, &slot->batch, first, k);
        TRY(segments_bind(s, t->ahead.plan, &t->ahead_build, k, k + 1));
        TRY(run_plan(t, t->ahead.plan, step, first, k * each));
    }
    segments_clear(s, n + (n - 1) % 2);
    for (int64_t k = n - 1; k >= 0; k--) {
        segments_cut(s, &slot->batch, first, k);
        TRY(segments_bind(s, t->fwd.plan, &t->build, k, -1));
        TRY(segments_bind_back(s, t->fwd.plan, &t->build, n + k % 2, n + (k + 1) % 2));
        TRY(run_plan(t, t->fwd.plan, step, first, k * each));
        add_loss(t, &slot->m);
    }
    return TL_OK;
}

/* Micro-batch k; the number of a step is that of the update to come. */
static tl_status run_micro(trainer *t, trainer_slot *s, int64_t k, int64_t step) {
    const int64_t first = k * t->set.micro;
    if (t->set.segment) return run_segments(t, s, first, step);
    TRY(bind_batch(t, s, first));
    if (t->sticky) { /* where the host reads them later */
        float *at = (float *)(void *)s->out.at + 16 + 2 * k;
        TRY(plan_bind_device(t->fwd.plan, t->build.loss, at));
        if (t->build.balance) TRY(plan_bind_device(t->fwd.plan, t->build.balance, at + 1));
    }
    TRY(run_plan(t, t->fwd.plan, step, first, 0));
    if (!t->sticky) add_loss(t, &s->m);
    return TL_OK;
}

/* ---- the step ------------------------------------------------------------------------------------------------- */

static void set_hyper(const trainer *t, float *hyper, int64_t step, double lr) {
    const trainer_settings *s = &t->set;
    double n = (double)(step - t->skipped + 1); /* updates with this one: bias correction counts those alone */
    memset(hyper, 0, HYPER_COUNT * sizeof *hyper);
    hyper[HYPER_LR] = (float)lr;
    hyper[HYPER_BETA1] = (float)s->beta1;
    hyper[HYPER_BETA2] = (float)s->beta2;
    hyper[HYPER_EPS] = (float)s->eps;
    hyper[HYPER_DECAY] = (float)s->decay;
    hyper[HYPER_CLIP] = (float)s->clip;
    hyper[HYPER_BC1] = (float)(1 - pow(s->beta1, n));
    hyper[HYPER_BC2] = (float)(1 - pow(s->beta2, n));
    hyper[HYPER_GSCALE] = 1;
}

static void clear_gradients(trainer *t) {
    device_clear(t->dev, t->grad, (size_t)t->params->total * sizeof *t->grad);
}

/* What was begun behind a step that failed has been queued in vain: the device's guard let nothing of it through. */
static void forget_begun(trainer *t) {
    if (t->sticky) {
        (void)device_wait(t->dev, 0, NULL);
        device_clear(t->dev, t->sticky, sizeof *t->sticky);
    }
    clear_gradients(t);
    t->begun = 0;
}

static tl_status not_finite(trainer *t, const tl_metrics *m, tl_error *err) {
    forget_begun(t);
    bool loss = !isfinite(m->loss);
    return error_set(err, TL_NUMERIC, "step %lld: the %s is %g", (long long)t->step + 1,
                     loss ? "loss" : "norm of the gradient", loss ? m->loss : m->norm);
}

/* What the model's objective asks of the batch that the loader filled. */
static void apply_objective(trainer *t, loader_batch *b, int64_t step, bool examples) {
    const model_config *c = &t->model->config;
    const objective_rule o = {c->objective, c->mask, (int32_t)c->vocab, c->eos, t->set.seed, examples};
    objective_apply(&o, b, t->set.rows, t->set.context, (uint64_t)(step + t->data_shift), 0);
}

/* Forward and backward of every micro-batch, then the norm. */
static tl_status run_gradients(trainer *t, trainer_slot *s, int64_t step) {
    if (t->slots > 1) TRY(trainer_bind_slot(t, s));
    for (int64_t k = 0; k < t->padded / t->set.micro; k++) TRY(run_micro(t, s, k, step));
    return tl_plan_run(t->norm.plan);
}

/* The slot of the next step, free for a batch. */
static trainer_slot *next_slot(trainer *t) {
    return &t->slot[(t->step + t->begun) % t->slots];
}

/* The slot's batch is filled: everything that a step is, as far as it needs no look at the results. */
static tl_status step_begin(trainer *t, bool examples, tl_error *err) {
    trainer_slot *s = next_slot(t);
    const int64_t step = t->step + t->begun;
    apply_objective(t, &s->batch, step, examples);
    const double lr = schedule_lr(&t->set.schedule, step);
    s->m = (tl_metrics){.step = step + 1, .lr = lr, .tokens = s->batch.labels, .flops = t->flops, .seconds = now()};
    TRY(check_ids(t, &s->batch, err));
    *s->denom = (float)s->batch.labels;
    set_hyper(t, s->hyper, step, lr);
    t->begun++;
    if (!t->sticky) return TL_OK; /* nothing goes on without this thread: end does the work */
    device_twin_push(t->dev, &s->in, s->in.host, s->in.bytes);
    tl_status st = run_gradients(t, s, step);
    if (st == TL_OK) st = tl_plan_run(t->update.plan);
    if (st != TL_OK) {
        forget_begun(t);
        return error_set(err, st, "a step did not run");
    }
    device_twin_pull(t->dev, &s->out, s->out.host, s->out.bytes);
    s->mark = device_mark(t->dev);
    model_changed(t->model);
    return TL_OK;
}

/* Waits for a step that was queued whole. */
static tl_status hear(trainer *t, trainer_slot *s, tl_error *err) {
    const float *got = (const float *)(const void *)s->out.host + 16;
    tl_status st = device_wait(t->dev, s->mark, err);
    if (st != TL_OK) {
        t->begun = 0;
        return st;
    }
    for (int64_t k = 0; k < t->padded / t->set.micro; k++) {
        s->m.loss += (double)got[2 * k];
        if (t->build.balance) s->m.balance += (double)got[2 * k + 1];
    }
    return TL_OK;
}

static tl_status step_end(trainer *t, tl_metrics *m, tl_error *err) {
    trainer_slot *s = &t->slot[t->step % t->slots];
    tl_status st = t->sticky ? hear(t, s, err) : run_gradients(t, s, t->step);
    if (st != TL_OK && !t->sticky) {
        forget_begun(t);
        return error_set(err, st, "a step did not run");
    }
    TRY(st);
    *m = s->m;
    m->norm = (double)*s->norm;
    if (!isfinite(m->loss) || !isfinite(m->norm)) return not_finite(t, m, err);
    t->begun--;
    if (!t->sticky) st = tl_plan_run(t->update.plan);
    if (st != TL_OK) return error_set(err, st, "an update did not run");
    t->step++;
    t->tokens += m->tokens;
    const double end = now(); /* of steps that overlap the later one begins with the end of the former */
    m->seconds = end - (m->seconds > t->heard ? m->seconds : t->heard);
    t->heard = end;
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

static tl_status check_begin(const trainer *t, int most, tl_error *err) {
    if (t->begun < most) return TL_OK;
    return error_set(err, TL_STATE, "%d steps are begun and none of them has ended", t->begun);
}

tl_status trainer_begin(trainer *t, const loader *l, tl_error *err) {
    TRY(check_begin(t, t->slots, err));
    TRY(check_pairs(t, loader_source(l), err));
    loader_get_rows(l, t->step + t->begun + t->data_shift, 0, t->set.rows, &next_slot(t)->batch);
    return step_begin(t, loader_examples(l), err);
}

tl_status trainer_end(trainer *t, tl_metrics *m, tl_error *err) {
    if (!t->begun) return error_set(err, TL_STATE, "no step is begun");
    return step_end(t, m, err);
}

tl_status trainer_step(trainer *t, const loader *l, tl_metrics *m, tl_error *err) {
    TRY(check_begin(t, 1, err));
    TRY(trainer_begin(t, l, err));
    return step_end(t, m, err);
}

tl_status trainer_step_ids(trainer *t, const int32_t *ids, tl_metrics *m, tl_error *err) {
    int64_t T = t->set.context;
    TRY(check_begin(t, 1, err));
    TRY(check_pairs(t, 0, err));
    loader_batch *b = &next_slot(t)->batch;
    b->labels = 0;
    for (int64_t r = 0; r < t->set.rows; r++)
        for (int64_t i = 0; i < T; i++) {
            int64_t to = r * T + i, from = r * (T + 1) + i;
            b->input[to] = ids[from];
            b->target[to] = ids[from + 1];
            b->pos[to] = (int32_t)i;
            b->doc_start[to] = 0;
            b->labels += ids[from + 1] >= 0;
        }
    TRY(step_begin(t, false, err));
    return step_end(t, m, err);
}

void trainer_pass_over(trainer *t) {
    t->step++;
    t->skipped++;
}

/* Forward and backward of the loader's next batch; the gradients stay. */
static tl_status probe(trainer *t, const loader *l, tl_error *err) {
    TRY(check_begin(t, 1, err));
    TRY(check_pairs(t, loader_source(l), err));
    trainer_slot *s = next_slot(t);
    loader_get_rows(l, t->step + t->data_shift, 0, t->set.rows, &s->batch);
    apply_objective(t, &s->batch, t->step, loader_examples(l));
    TRY(check_ids(t, &s->batch, err));
    *s->denom = (float)s->batch.labels;
    device_twin_push(t->dev, &s->in, s->in.host, s->in.bytes);
    tl_status st = run_gradients(t, s, t->step);
    if (st != TL_OK) return error_set(err, st, "a step did not run");
    st = device_wait(t->dev, 0, err);
    if (t->sticky) device_clear(t->dev, t->sticky, sizeof *t->sticky); /* no step has failed, whatever came out */
    return st;
}

tl_status trainer_probe(trainer *t, const loader *l, double *seconds, tl_error *err) {
    double begin = now();
    tl_status s = probe(t, l, err);
    clear_gradients(t);
    *seconds = now() - begin;
    return s;
}

static void add_norms(const trainer *t, const float *grad, double *norm) {
    const model_params *p = &t->model->params;
    const int64_t layers = t->model->config.layers;
    for (int64_t i = 0; i <= layers; i++) norm[i] = 0;
    for (size_t i = 0; i < p->n; i++) {
        const model_param *q = &p->list[i];
        const int64_t n = q->rows ? q->rows * q->cols : q->cols;
        double *sum = &norm[q->layer < 0 ? layers : q->layer];
        for (int64_t k = 0; k < n; k++) *sum += (double)grad[q->offset + k] * (double)grad[q->offset + k];
    }
    for (int64_t i = 0; i <= layers; i++) norm[i] = sqrt(norm[i]);
}

tl_status trainer_gradients(trainer *t, const loader *l, double *norm, tl_error *err) {
    const size_t bytes = (size_t)t->params->total * sizeof *t->grad;
    tl_status s = probe(t, l, err);
    float *copy = t->dev->memory ? mem_take(t->alloc, bytes) : NULL; /* else they are at hand */
    if (s == TL_OK && t->dev->memory)
        s = copy ? device_fetch(t->dev, copy, t->grad, bytes, err)
                 : error_set(err, TL_NOMEM, "no memory for gradients");
    if (!t->dev->memory || s == TL_OK) add_norms(t, t->dev->memory ? copy : t->grad, norm);
    if (copy) mem_give(t->alloc, copy, bytes);
    clear_gradients(t);
    return s;
}
