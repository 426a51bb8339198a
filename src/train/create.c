/* How a trainer comes to be: settings, memory, graphs, plans. */
#include "train/trainer.h"

#include "graph/plan.h"

#include <math.h>
#include <string.h>

/* ---- settings -------------------------------------------------------------------------------------------------- */

static double or_default(float x, double otherwise) {
    return x > 0 ? (double)x : x < 0 ? 0 : otherwise;
}

/* A float that was written as 0.9 means 0.9: shortest decimal, not its binary neighbour, so that both faces of the
 * trainer (float options, text options) give the same settings. */
static double tidy(double x) {
    if (x == 0 || !isfinite(x)) return x;
    double scale = pow(10, 7 - ceil(log10(fabs(x))));
    double y = round(x * scale) / scale;
    return (float)y == (float)x ? y : x;
}

static tl_status check_settings(const model_config *c, const trainer_settings *s, tl_error *err) {
    if (s->rows < 1 || s->rows > INT32_MAX)
        return error_set(err, TL_ARG, "a step needs at least one row; asked for %lld", (long long)s->rows);
    if (s->micro < 1 || s->micro > s->rows)
        return error_set(err, TL_ARG, "a micro-batch of %lld rows, but a step has %lld", (long long)s->micro,
                         (long long)s->rows);
    if (s->context < 1) return error_set(err, TL_ARG, "a context of %lld tokens", (long long)s->context);
    if (s->segment < 0 || s->segment > s->context)
        return error_set(err, TL_ARG, "segments of %lld tokens in rows of %lld", (long long)s->segment,
                         (long long)s->context);
    if (s->context > c->context && c->positions == POS_LEARNED)
        return error_set(err, TL_CONFIG, "a context of %lld, but the model's positions end at %lld",
                         (long long)s->context, (long long)c->context);
    if (s->dtype != TL_F32 && s->dtype != TL_BF16)
        return error_set(err, TL_ARG, "training computes in f32 or bf16, not %s", tl_dtype_name(s->dtype));
    if (!(s->schedule.lr > 0) || !isfinite(s->schedule.lr))
        return error_set(err, TL_ARG, "the learning rate is %g", s->schedule.lr);
    if (!(s->schedule.min_lr >= 0) || s->schedule.min_lr > s->schedule.lr)
        return error_set(err, TL_ARG, "the lowest learning rate is %g, the highest %g", s->schedule.min_lr,
                         s->schedule.lr);
    if (s->schedule.warmup < 0 || s->schedule.steps < 0)
        return error_set(err, TL_ARG, "negative steps: %lld, warm-up %lld", (long long)s->schedule.steps,
                         (long long)s->schedule.warmup);
    if (s->schedule.steps && s->schedule.warmup >= s->schedule.steps)
        return error_set(err, TL_ARG, "warm-up takes %lld steps of only %lld", (long long)s->schedule.warmup,
                         (long long)s->schedule.steps);
    if (!tl_recompute_name(s->recompute))
        return error_set(err, TL_ARG, "no level of recomputation %d", (int)s->recompute);
    if (s->beta1 >= 1 || s->beta2 >= 1)
        return error_set(err, TL_ARG, "beta1 and beta2 must lie in [0,1); they are %g and %g", s->beta1, s->beta2);
    return TL_OK;
}

tl_status trainer_resolve(const model_config *c, const tl_trainer_options *o, trainer_settings *s, tl_error *err) {
    memset(s, 0, sizeof *s);
    s->schedule = (schedule){o->schedule, tidy(or_default(o->lr, 1e-3)), tidy((double)o->min_lr), o->warmup, o->steps};
    if ((unsigned)o->schedule > TL_SCHEDULE_WSD) return error_set(err, TL_ARG, "no schedule number %d", o->schedule);
    s->rows = o->batch_rows;
    s->micro = o->micro_rows ? o->micro_rows : o->batch_rows;
    s->context = o->context ? o->context : c->context;
    s->segment = o->segment;
    s->dtype = o->dtype ? o->dtype : TL_F32;
    s->beta1 = tidy(or_default(o->beta1, 0.9));
    s->beta2 = tidy(or_default(o->beta2, 0.95));
    s->eps = tidy(or_default(o->eps, 1e-8));
    s->decay = tidy(or_default(o->decay, 0.1));
    s->clip = tidy(or_default(o->clip, 1.0));
    s->recompute = o->recompute;
    s->packed = o->packed;
    s->seed = o->seed;
    return check_settings(c, s, err);
}

/* ---- graphs ------------------------------------------------------------------------------------------------------ */

static trainer_shape shape_of(const tl_model *m) {
    return (trainer_shape){&m->config, &m->params, m->lora, m->flat ? NULL : &m->mapped};
}

/* The parameters that get gradients. */
static const model_params *trained(const trainer_shape *w) {
    return w->lora ? &w->lora->params : w->params;
}

/* One step's forward and backward pass, of whole rows or of a segment; ahead: the forward pass alone that finds what
 * the next segment is handed. */
static tl_status plan_forward(tl_engine *e, const tl_allocator *a, const trainer_shape *w, const trainer_settings *s,
                              bool dry, trainer_plan *out, build_result *r, bool ahead, tl_error *err) {
    build_options o = {.mode = BUILD_TRAIN,
                       .rows = s->micro,
                       .context = s->context,
                       .segment = s->segment,
                       .advance = ahead,
                       .dtype = s->dtype,
                       .packed = s->packed,
                       .trainable = true,
                       .mapped = w->mapped,
                       .lora = w->lora};
    tl_status st = tl_graph_create(e, &out->graph);
    if (st != TL_OK) return error_set(err, st, "no memory for a graph");
    TRY(build_model(out->graph, a, w->config, w->params, &o, r, err));
    if (!s->segment)
        tl_graph_backward(out->graph, r->loss, NULL, 0, NULL, s->recompute);
    else if (!ahead)
        TRY(build_segment_backward(out->graph, a, r, s->recompute, err));
    return tl_plan_create(out->graph, dry, &out->plan, err);
}

/* micro 0: the norm alone. Else what a device needs that updates by itself: the losses of so many micro-batches. */
static tl_status plan_norm(tl_engine *e, const model_params *p, int64_t micro, bool dry, trainer_plan *out,
                           update_guard *u, tl_error *err) {
    tl_status st = tl_graph_create(e, &out->graph);
    if (st != TL_OK) return error_set(err, st, "no memory for a graph");
    if (micro)
        update_guarded(out->graph, p, 2 * micro, u);
    else
        update_norm(out->graph, p, &u->grads, &u->norm);
    return tl_plan_create(out->graph, dry, &out->plan, err);
}

static tl_status plan_update(tl_engine *e, const model_params *p, bool bf16, bool dry, trainer_plan *out,
                             update_inputs *u, tl_error *err) {
    tl_status st = tl_graph_create(e, &out->graph);
    if (st != TL_OK) return error_set(err, st, "no memory for a graph");
    update_adamw(out->graph, p, bf16, u);
    return tl_plan_create(out->graph, dry, &out->plan, err);
}

static void plan_fini(trainer_plan *p) {
    tl_plan_destroy(p->plan);
    tl_graph_destroy(p->graph);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

static int64_t padded_rows(const trainer_settings *s) {
    return (s->rows + s->micro - 1) / s->micro * s->micro;
}

static size_t batch_numbers(const model_config *c, const trainer_settings *s) {
    return (size_t)objective_numbers(c->objective, padded_rows(s), s->context, config_source(c));
}

static size_t small_floats(const model_config *c, int64_t context) {
    size_t n = ((size_t)c->heads + 15) / 16 * 16;
    return n + (size_t)build_sinusoid_rows(c, context) * (size_t)c->width;
}

enum { SLOT_HEAD = (HYPER_COUNT + 16 + 16) * sizeof(float) }; /* hyper, norm, denominator: a cache line each */

static size_t slot_bytes(const model_config *c, const trainer_settings *s) {
    return SLOT_HEAD + batch_numbers(c, s) * sizeof(int32_t);
}

/* A cache line for the norm. */
static size_t results_bytes(const trainer_settings *s) {
    return (16 + 2 * (size_t)(padded_rows(s) / s->micro)) * sizeof(float);
}

static size_t freq_doubles(const model_config *c) {
    int64_t n = build_rope_dims(c) / 2;
    return n > 0 ? (size_t)n : 1;
}

/* Of the base: a flat buffer of f32, or of vectors alone. */
static int64_t own_numbers(const trainer_shape *w) {
    return w->mapped ? w->params->total - w->params->decayed + 16 : w->params->total;
}

static void count_bytes(const trainer_shape *w, const trainer_settings *s, size_t arenas, trainer_bytes *b) {
    const model_config *c = w->config;
    const model_params *p = trained(w);
    size_t flat = (size_t)p->total * sizeof(float);
    int64_t halves = w->mapped ? 0 : w->params->decayed;
    if (w->lora) halves += p->decayed;
    b->weights = (size_t)own_numbers(w) * sizeof(float) + (w->lora ? flat : 0);
    b->weights16 = s->dtype == TL_BF16 ? (size_t)halves * sizeof(uint16_t) : 0;
    b->gradients = flat;
    b->moments = 2 * flat;
    b->activations = arenas;
    b->mapped = build_mapped_bytes(w->mapped);
    b->batch = slot_bytes(c, s) + small_floats(c, s->context) * sizeof(float) + freq_doubles(c) * sizeof(double);
    b->total = b->weights + b->weights16 + b->gradients + b->moments + b->activations + b->batch;
}

static size_t arena_bytes(const tl_plan *p) {
    tl_plan_info info;
    tl_plan_info_get(p, &info);
    return info.arena_bytes;
}

static void add_cost(tl_cost *to, const tl_plan *p, double times) {
    tl_plan_info info;
    tl_plan_info_get(p, &info);
    to->flops += times * info.cost.flops;
    to->special += times * info.cost.special;
    to->bytes_read += times * info.cost.bytes_read;
    to->bytes_written += times * info.cost.bytes_written;
}

/* Segments of a row; 1: it is computed whole. */
static int64_t segments_of(const trainer_settings *s) {
    return s->segment ? segments_count(s->context, s->segment) : 1;
}

/* What each segment of a row was handed is kept, and beside it two gradients of such. */
static int64_t segment_places(const trainer_settings *s) {
    return segments_of(s) + 2;
}

static size_t carried_bytes(const trainer_settings *s, const build_result *r) {
    return segments_bytes(r, s->micro, s->segment, segment_places(s));
}

static tl_cost cost_of_step(const trainer_settings *s, const trainer_plan *fwd, const trainer_plan *ahead,
                            const trainer_plan *norm, const trainer_plan *update) {
    const double micros = (double)(padded_rows(s) / s->micro), n = (double)segments_of(s);
    tl_cost cost = {0};
    add_cost(&cost, fwd->plan, micros * n);
    if (ahead->plan) add_cost(&cost, ahead->plan, micros * (n - 1));
    add_cost(&cost, norm->plan, 1);
    add_cost(&cost, update->plan, 1);
    return cost;
}

tl_status trainer_measure(tl_engine *e, const trainer_shape *w, const trainer_settings *s, trainer_bytes *bytes,
                          tl_cost *cost, tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    trainer_plan fwd = {0}, norm = {0}, update = {0}, ahead = {0};
    build_result r = {0}, next = {0};
    update_inputs u;
    update_guard guard;
    tl_status st = check_settings(w->config, s, err);
    if (st == TL_OK) st = plan_forward(e, a, w, s, true, &fwd, &r, false, err);
    if (st == TL_OK && s->segment) st = plan_forward(e, a, w, s, true, &ahead, &next, true, err);
    if (st == TL_OK) st = plan_norm(e, trained(w), 0, true, &norm, &guard, err);
    if (st == TL_OK) st = plan_update(e, trained(w), s->dtype == TL_BF16, true, &update, &u, err);
    if (st == TL_OK) {
        size_t arenas = arena_bytes(fwd.plan) + arena_bytes(norm.plan) + arena_bytes(update.plan);
        if (s->segment) arenas += arena_bytes(ahead.plan) + carried_bytes(s, &r);
        count_bytes(w, s, arenas, bytes);
        if (cost) *cost = cost_of_step(s, &fwd, &ahead, &norm, &update);
    }
    build_fini(&r, a);
    build_fini(&next, a);
    plan_fini(&ahead);
    plan_fini(&fwd);
    plan_fini(&norm);
    plan_fini(&update);
    return st;
}

/* ---- create ------------------------------------------------------------------------------------------------------ */

static bool take_slot(trainer *t, trainer_slot *s) {
    const model_config *c = &t->model->config;
    const int64_t T = t->set.context;
    if (!device_twin_take(t->dev, slot_bytes(c, &t->set), &s->in)) return false;
    if (t->dev->memory && !device_twin_take(t->dev, results_bytes(&t->set), &s->out)) return false;
    s->hyper = (float *)(void *)s->in.host;
    s->norm = s->hyper + HYPER_COUNT;
    s->denom = s->norm + 16;
    if (t->dev->memory) s->norm = (float *)(void *)s->out.host;
    objective_lay(c->objective, t->padded, T, config_source(c), (int32_t *)(void *)(s->in.host + SLOT_HEAD), &s->batch);
    if (config_prefix(c)) objective_causal_span(NULL, t->padded, T, s->batch.span);
    for (size_t i = 0; i < (size_t)(t->padded * T); i++) { /* rows behind the step's last one stay padding for good */
        s->batch.input[i] = 0;
        s->batch.target[i] = -1;
        s->batch.pos[i] = (int32_t)(i % (size_t)T);
        s->batch.doc_start[i] = 0;
    }
    return true;
}

static bool take_flat(trainer *t, float **to) {
    size_t bytes = (size_t)t->params->total * sizeof **to;
    *to = t->dev->alloc_bytes(t->dev, bytes);
    if (*to) device_clear(t->dev, *to, bytes);
    return *to != NULL;
}

enum { STICKY = 2 * 16 * sizeof(float) };

static tl_status take_memory(trainer *t, tl_error *err) {
    const model_config *c = &t->model->config;
    t->slots = t->dev->memory ? TRAINER_SLOTS : 1;
    bool ok = take_flat(t, &t->grad) && take_flat(t, &t->m) && take_flat(t, &t->v) &&
              device_twin_take(t->dev, small_floats(c, t->set.context) * sizeof(float), &t->small) &&
              device_twin_take(t->dev, freq_doubles(c) * sizeof(double), &t->freq);
    for (int i = 0; ok && i < t->slots; i++) ok = take_slot(t, &t->slot[i]);
    if (ok && t->dev->memory) {
        t->sticky = t->dev->alloc_bytes(t->dev, STICKY);
        if (t->sticky) device_clear(t->dev, t->sticky, STICKY);
        ok = t->sticky != NULL;
    }
    return ok ? TL_OK : error_set(err, TL_NOMEM, "no memory to train %lld parameters", (long long)t->params->count);
}

static float *sinusoid_of(const trainer *t, bool host) {
    float *slopes = (float *)(void *)(host ? t->small.host : t->small.at);
    return slopes + ((size_t)t->model->config.heads + 15) / 16 * 16;
}

static void fill_constants(trainer *t) {
    const model_config *c = &t->model->config;
    double mscale;
    build_rope_freq(c, t->set.context, (double *)(void *)t->freq.host, &mscale);
    (void)build_head_constants(c, (float *)(void *)t->small.host);
    build_sinusoid(build_sinusoid_rows(c, t->set.context), c->width, sinusoid_of(t, true));
    device_twin_push(t->dev, &t->freq, t->freq.host, t->freq.bytes);
    device_twin_push(t->dev, &t->small, t->small.host, t->small.bytes);
}

static tl_status bind(tl_plan *p, const tl_tensor *x, void *at) {
    return x ? plan_bind_device(p, x, at) : TL_OK;
}

static tl_status bind_constants(trainer *t, tl_plan *p, build_result *r) {
    TRY(model_bind(t->model, p, r, t->set.dtype));
    TRY(bind(p, r->freq, t->freq.at));
    TRY(bind(p, r->slopes, t->small.at));
    return bind(p, r->sinusoid, sinusoid_of(t, false));
}

static tl_status bind_forward(trainer *t) {
    tl_tensor **trained = t->model->lora ? t->build.lora : t->build.params;
    for (size_t i = 0; i < t->params->n; i++)
        TRY(bind(t->fwd.plan, tl_param_grad(t->fwd.graph, trained[i]), t->grad + t->params->list[i].offset));
    if (t->set.segment) TRY(bind_constants(t, t->ahead.plan, &t->ahead_build));
    return bind_constants(t, t->fwd.plan, &t->build);
}

static tl_status bind_update(trainer *t) {
    for (int k = 0; k < 2; k++) {
        const update_range *r = &t->bound.range[k];
        TRY(bind(t->update.plan, r->p, model_trained(t->model) + r->at));
        TRY(bind(t->update.plan, r->m, t->m + r->at));
        TRY(bind(t->update.plan, r->v, t->v + r->at));
        TRY(bind(t->update.plan, r->g, t->grad + r->at));
        TRY(bind(t->update.plan, r->p16, model_trained16(t->model)));
    }
    return TL_OK;
}

/* What does not change from step to step; a slot's parts are bound when it is used, if there is more than one. */
static tl_status bind_all(trainer *t) {
    TRY(bind_forward(t));
    TRY(bind(t->norm.plan, t->guard.grads, t->grad));
    TRY(bind_update(t));
    if (t->sticky) {
        TRY(bind(t->norm.plan, t->guard.before, t->sticky));
        TRY(bind(t->norm.plan, t->guard.after, t->sticky));
        TRY(bind(t->norm.plan, t->guard.guard, t->sticky + 16));
        TRY(bind(t->update.plan, t->bound.norm, t->sticky + 16));
    }
    return trainer_bind_slot(t, &t->slot[0]);
}

static tl_status make_plans(trainer *t, tl_error *err) {
    tl_model *m = t->model;
    const trainer_shape w = shape_of(m);
    const int64_t micro = t->dev->memory ? t->padded / t->set.micro : 0;
    TRY(plan_forward(m->engine, t->alloc, &w, &t->set, false, &t->fwd, &t->build, false, err));
    if (t->set.segment) {
        TRY(plan_forward(m->engine, t->alloc, &w, &t->set, false, &t->ahead, &t->ahead_build, true, err));
        TRY(segments_open(&t->seg, t->alloc, &t->build, t->set.micro, t->set.context, t->set.segment,
                          segment_places(&t->set), err));
    }
    TRY(plan_norm(m->engine, t->params, micro, false, &t->norm, &t->guard, err));
    TRY(plan_update(m->engine, t->params, t->set.dtype == TL_BF16, false, &t->update, &t->bound, err));
    tl_status s = bind_all(t);
    if (s != TL_OK) return error_set(err, s, "a training plan could not be bound");
    const tl_cost cost = cost_of_step(&t->set, &t->fwd, &t->ahead, &t->norm, &t->update);
    t->flops = cost.flops;
    t->moved = cost.bytes_read + cost.bytes_written;
    size_t arenas = arena_bytes(t->fwd.plan) + arena_bytes(t->norm.plan) + arena_bytes(t->update.plan);
    if (t->set.segment) arenas += arena_bytes(t->ahead.plan) + carried_bytes(&t->set, &t->build);
    count_bytes(&w, &t->set, arenas, &t->bytes);
    return TL_OK;
}

tl_status trainer_create(tl_model *m, const trainer_settings *s, trainer **out, tl_error *err) {
    *out = NULL;
    TRY(check_settings(&m->config, s, err));
    if (!m->flat && !m->lora)
        return error_set(err, TL_STATE, "weights that stay in their file cannot be trained; adapters beside them can");
    trainer *t = mem_new(m->alloc, 1, sizeof *t);
    if (!t) return error_set(err, TL_NOMEM, "no memory for a trainer");
    t->model = m;
    t->alloc = m->alloc;
    t->dev = ((graph_host *)(void *)m->engine)->dev;
    t->params = m->lora ? &m->lora->params : &m->params;
    t->set = *s;
    t->padded = padded_rows(s);
    tl_status st = s->segment ? segments_device(t->dev, err) : TL_OK;
    if (st == TL_OK) st = model_bring(m, err);
    if (st == TL_OK && s->dtype == TL_BF16) st = model_bf16(m, err);
    if (st == TL_OK) st = take_memory(t, err);
    if (st == TL_OK) {
        fill_constants(t);
        st = make_plans(t, err);
    }
    if (st != TL_OK) {
        trainer_destroy(t);
        return st;
    }
    *out = t;
    return TL_OK;
}

static void give(const trainer *t, void *p, size_t bytes) {
    if (p) t->dev->free_bytes(t->dev, p, bytes);
}

void trainer_destroy(trainer *t) {
    if (!t) return;
    size_t flat = (size_t)t->params->total * sizeof(float);
    plan_fini(&t->fwd);
    plan_fini(&t->ahead);
    plan_fini(&t->norm);
    plan_fini(&t->update);
    build_fini(&t->build, t->alloc);
    build_fini(&t->ahead_build, t->alloc);
    segments_close(&t->seg, t->alloc);
    give(t, t->grad, flat);
    give(t, t->m, flat);
    give(t, t->v, flat);
    give(t, t->sticky, STICKY);
    device_twin_give(t->dev, &t->small);
    device_twin_give(t->dev, &t->freq);
    for (int i = 0; i < TRAINER_SLOTS; i++) {
        device_twin_give(t->dev, &t->slot[i].in);
        device_twin_give(t->dev, &t->slot[i].out);
    }
    mem_free(t->alloc, t);
}
