/* include/tilia/module.h: a plan forward, and another with its backward pass when that is first asked for. */
#include "tilia/module.h"
#include "api/api.h"

#include <string.h>

typedef struct module_plan {
    tl_graph *graph;
    tl_plan *plan;
    build_result build;
    tl_tensor *in, *y, *dy, *dx;
} module_plan;

struct tl_module {
    tl_model *model;
    const tl_allocator *alloc;
    tl_module_options o;
    module_plan forward, both;
    size_t cells;
    int32_t *pos, *doc, *span; /* one buffer */
    double *freq;
    float *slopes, *sinusoid; /* one buffer */
    float *grad;              /* (params.total), NULL before the first backward pass */
    bool has_grad;
};

/* ---- create -------------------------------------------------------------------------------------------------- */

static tl_status take_memory(tl_module *f, tl_error *err) {
    const model_config *c = &f->model->config;
    int64_t table = build_sinusoid_rows(c, f->o.context);
    size_t heads = ((size_t)c->heads + 15) / 16 * 16;
    f->cells = (size_t)(f->o.rows * f->o.context);
    f->pos = mem_new(f->alloc, 4 * f->cells, sizeof *f->pos);
    f->freq = mem_new(f->alloc, (size_t)build_rope_dims(c) / 2 + 1, sizeof *f->freq);
    f->slopes = mem_new(f->alloc, heads + (size_t)(table * c->width), sizeof *f->slopes);
    if (!f->pos || !f->freq || !f->slopes) return error_set(err, TL_NOMEM, "no memory for a module");
    f->doc = f->pos + f->cells;
    f->span = f->doc + f->cells;
    objective_causal_span(NULL, f->o.rows, f->o.context, f->span);
    f->sinusoid = f->slopes + heads;
    for (size_t i = 0; i < f->cells; i++) f->pos[i] = (int32_t)(i % (size_t)f->o.context);
    double mscale;
    build_rope_freq(c, f->o.context, f->freq, &mscale);
    (void)build_head_constants(c, f->slopes);
    build_sinusoid(table, c->width, f->sinusoid);
    return TL_OK;
}

static tl_status bind(const module_plan *p, const tl_tensor *t, void *data) {
    return t ? tl_plan_bind(p->plan, t, data) : TL_OK;
}

static tl_status bind_all(tl_module *f, module_plan *p) {
    tl_model *m = f->model;
    build_result *r = &p->build;
    for (size_t i = 0; i < m->params.n; i++) {
        const model_param *q = &m->params.list[i];
        TRY(bind(p, r->params[i], m->flat + q->offset));
        if (p->dy) TRY(bind(p, tl_param_grad(p->graph, r->params[i]), f->grad + q->offset));
    }
    TRY(bind(p, r->pos, f->pos));
    TRY(bind(p, r->doc, f->doc));
    TRY(bind(p, r->span, f->span));
    TRY(bind(p, r->freq, f->freq));
    TRY(bind(p, r->slopes, f->slopes));
    return bind(p, r->sinusoid, f->sinusoid);
}

static void add_backward(module_plan *p) {
    const tl_desc *d = tl_tensor_desc(p->y);
    p->dy = tl_input(p->graph, "dy", TL_F32, d->ndim, d->dim);
    tl_graph_vjp(p->graph, p->y, p->dy, &p->build.x, p->build.x ? 1 : 0, &p->dx);
    if (p->dx) tl_output(p->graph, p->dx, "dx");
}

static tl_status make_plan(tl_module *f, module_plan *p, bool backward, tl_error *err) {
    tl_model *m = f->model;
    build_options o = {.mode = f->o.blocks ? BUILD_BLOCKS : BUILD_LOGITS,
                       .rows = f->o.rows,
                       .context = f->o.context,
                       .dtype = TL_F32,
                       .packed = f->o.packed,
                       .trainable = backward,
                       .first = f->o.first,
                       .blocks = f->o.blocks};
    tl_status s = tl_graph_create(m->engine, &p->graph);
    if (s != TL_OK) return error_set(err, s, "no memory for a graph");
    TRY(build_model(p->graph, f->alloc, &m->config, &m->params, &o, &p->build, err));
    p->in = f->o.blocks ? p->build.x : p->build.ids;
    p->y = f->o.blocks ? p->build.y : p->build.logits;
    if (backward) add_backward(p);
    TRY(tl_plan_create(p->graph, false, &p->plan, err));
    s = bind_all(f, p);
    return s == TL_OK ? TL_OK : error_set(err, s, "a module's plan could not be bound");
}

static void drop_plan(tl_module *f, module_plan *p) {
    tl_plan_destroy(p->plan);
    build_fini(&p->build, f->alloc);
    tl_graph_destroy(p->graph);
    memset(p, 0, sizeof *p);
}

tl_status tl_module_create(tl_model *m, const tl_module_options *o, tl_module **out, tl_error *err) {
    *out = NULL;
    if (!m->flat) return error_set(err, TL_STATE, "the model's weights are not in memory as numbers");
    if (!o || o->rows < 1 || o->context < 0 || o->blocks < 0)
        return error_set(err, TL_ARG, "rows must be positive, context and blocks not negative");
    if (m->config.encoder)
        return error_set(err, TL_UNSUPPORTED, "a model with an encoder reads a source too: it is no function of ids");
    int64_t context = o->context ? o->context : m->config.context;
    if (o->rows > (int64_t)1 << 31 || context > (int64_t)1 << 31)
        return error_set(err, TL_ARG, "rows or context are too large");
    tl_module *f = mem_new(m->alloc, 1, sizeof *f);
    if (!f) return error_set(err, TL_NOMEM, "no memory for a module");
    f->model = m;
    f->alloc = m->alloc;
    f->o = *o;
    f->o.context = context;
    tl_status s = take_memory(f, err);
    if (s == TL_OK) s = make_plan(f, &f->forward, false, err);
    if (s != TL_OK) {
        tl_module_destroy(f);
        return s;
    }
    *out = f;
    return TL_OK;
}

void tl_module_destroy(tl_module *f) {
    if (!f) return;
    drop_plan(f, &f->forward);
    drop_plan(f, &f->both);
    if (f->grad) mem_give(f->alloc, f->grad, (size_t)f->model->params.total * sizeof(float));
    mem_free(f->alloc, f->pos);
    mem_free(f->alloc, f->freq);
    mem_free(f->alloc, f->slopes);
    mem_free(f->alloc, f);
}

tl_status tl_module_documents(tl_module *f, const int32_t *pos, const int32_t *doc_start, tl_error *err) {
    const model_config *c = &f->model->config;
    if (doc_start && !f->o.packed) return error_set(err, TL_STATE, "the module was made without documents");
    int64_t table = c->positions == POS_LEARNED ? c->context : build_sinusoid_rows(c, f->o.context);
    for (size_t i = 0; pos && i < f->cells; i++)
        if (pos[i] < 0 || (table && pos[i] >= table))
            return error_set(err, TL_ARG, "position %d is outside the model's %lld", pos[i], (long long)table);
    if (pos) memcpy(f->pos, pos, f->cells * sizeof *pos);
    if (doc_start) memcpy(f->doc, doc_start, f->cells * sizeof *doc_start);
    if (doc_start) objective_causal_span(doc_start, f->o.rows, f->o.context, f->span);
    return TL_OK;
}

/* ---- run ------------------------------------------------------------------------------------------------------ */

static tl_status check_ids(const tl_module *f, const int32_t *ids, tl_error *err) {
    for (size_t i = 0; !f->o.blocks && i < f->cells; i++)
        if (ids[i] < 0 || ids[i] >= f->model->config.vocab)
            return error_set(err, TL_ARG, "token id %d is outside the vocabulary of %lld", ids[i],
                             (long long)f->model->config.vocab);
    return TL_OK;
}

/* Inputs are only read: the plan binds them as it binds everything. */
static void *readable(const void *p) {
    return (void *)(uintptr_t)p;
}

static tl_status run_plan(const tl_module *f, const module_plan *p, const void *in, float *out, tl_error *err) {
    TRY(check_ids(f, in, err));
    TRY(model_pull(f->model, err)); /* the plan is bound to the host's numbers */
    tl_status s = bind(p, p->in, readable(in));
    if (s == TL_OK) s = bind(p, p->y, out);
    if (s == TL_OK) s = tl_plan_run(p->plan);
    return s == TL_OK ? TL_OK : error_set(err, s, "a module did not run");
}

tl_status tl_module_run(tl_module *f, const void *in, float *out, tl_error *err) {
    return run_plan(f, &f->forward, in, out, err);
}

tl_status tl_module_vjp(tl_module *f, const void *in, const float *dout, float *out, float *dx, tl_error *err) {
    size_t bytes = (size_t)f->model->params.total * sizeof(float);
    if (!f->grad) f->grad = mem_take(f->alloc, bytes);
    if (!f->grad) return error_set(err, TL_NOMEM, "no memory for gradients");
    if (!f->both.plan) {
        tl_status s = make_plan(f, &f->both, true, err);
        if (s != TL_OK) {
            drop_plan(f, &f->both);
            return s;
        }
    }
    memset(f->grad, 0, bytes);
    tl_status s = bind(&f->both, f->both.dy, readable(dout));
    if (s != TL_OK) return error_set(err, s, "a gradient could not be bound");
    TRY(run_plan(f, &f->both, in, out, err));
    f->has_grad = true;
    if (dx && f->both.dx)
        memcpy(dx, tl_plan_data(f->both.plan, f->both.dx),
               (size_t)tl_desc_count(tl_tensor_desc(f->both.dx)) * sizeof *dx);
    return TL_OK;
}

tl_status tl_module_grad(const tl_module *f, size_t i, float *to, tl_error *err) {
    tensor_place at;
    if (!f->has_grad) return error_set(err, TL_STATE, "no backward pass has run");
    TRY(tensor_need(f->model, i, &at, err));
    param_piece plain = at.piece;
    plain.add = 0; /* what the file adds is a constant */
    params_piece_out(&plain, at.param, f->grad + at.param->offset, to);
    return TL_OK;
}
