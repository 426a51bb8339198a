#include "eval/eval.h"

#include "graph/plan.h"
#include "model/segments.h"

#include <math.h>
#include <string.h>

enum { EVAL_TOKENS = 4096 };

struct evaluator {
    tl_model *model;
    const tl_allocator *alloc;
    eval_options o;
    tl_graph *graph;
    tl_plan *plan;
    build_result build;
    device *dev;
    loader_batch batch; /* (rows, context), in block */
    segments seg;       /* two places, in turn what comes in and what goes out */
    device_twin block;
    device_twin freq;   /* doubles */
    device_twin small;  /* denominator, slopes, sinusoid */
    device_twin losses; /* (rows, context); of a device with memory of its own, elsewhere the plan has them */
};

/* ---- open ------------------------------------------------------------------------------------------------------- */

static size_t pad16(size_t n) {
    return (n + 15) / 16 * 16;
}

static size_t cells(const evaluator *e) {
    return (size_t)(e->o.rows * e->o.context);
}

static size_t block_bytes(const evaluator *e) {
    const model_config *c = &e->model->config;
    return (size_t)objective_numbers(c->objective, e->o.rows, e->o.context, config_source(c)) * sizeof(int32_t);
}

static tl_status take_memory(evaluator *e, tl_error *err) {
    const model_config *c = &e->model->config;
    int64_t table = build_sinusoid_rows(c, e->o.context);
    size_t small = (16 + pad16((size_t)c->heads) + (size_t)(table * c->width)) * sizeof(float);
    bool ok = device_twin_take(e->dev, block_bytes(e), &e->block) && device_twin_take(e->dev, small, &e->small) &&
              device_twin_take(e->dev, ((size_t)build_rope_dims(c) / 2 + 1) * sizeof(double), &e->freq);
    if (ok && e->dev->memory) ok = device_twin_take(e->dev, cells(e) * sizeof(float), &e->losses);
    if (!ok) return error_set(err, TL_NOMEM, "no memory to evaluate");
    objective_lay(c->objective, e->o.rows, e->o.context, config_source(c), (int32_t *)(void *)e->block.host, &e->batch);
    float *f = (float *)(void *)e->small.host;
    f[0] = 1; /* losses are wanted one by one; the graph's own mean is not used */
    double mscale;
    build_rope_freq(c, e->o.context, (double *)(void *)e->freq.host, &mscale);
    (void)build_head_constants(c, f + 16);
    build_sinusoid(table, c->width, f + 16 + pad16((size_t)c->heads));
    device_twin_push(e->dev, &e->small, e->small.host, e->small.bytes);
    device_twin_push(e->dev, &e->freq, e->freq.host, e->freq.bytes);
    return TL_OK;
}

static tl_status bind(evaluator *e, const tl_tensor *t, const device_twin *in, const void *host) {
    return t ? plan_bind_device(e->plan, t, device_twin_at(in, host)) : TL_OK;
}

static tl_status bind_all(evaluator *e) {
    tl_model *m = e->model;
    build_result *r = &e->build;
    const loader_batch *b = &e->batch;
    const float *small = (const float *)(const void *)e->small.host;
    TRY(model_bind(m, e->plan, r, e->o.dtype));
    if (!e->o.segment) { /* else they are bound segment by segment */
        TRY(bind(e, r->ids, &e->block, b->input));
        TRY(bind(e, r->targets, &e->block, b->target));
        TRY(bind(e, r->pos, &e->block, b->pos));
    }
    TRY(bind(e, r->doc, &e->block, b->doc_start));
    TRY(bind(e, r->span, &e->block, b->span));
    TRY(bind(e, r->cross, &e->block, b->span));
    TRY(bind(e, r->source, &e->block, b->source));
    TRY(bind(e, r->source_pos, &e->block, b->source_pos));
    TRY(bind(e, r->source_doc, &e->block, b->source_doc));
    TRY(bind(e, r->freq, &e->freq, e->freq.host));
    TRY(bind(e, r->slopes, &e->small, small + 16));
    TRY(bind(e, r->sinusoid, &e->small, small + 16 + pad16((size_t)m->config.heads)));
    if (e->losses.at) TRY(bind(e, r->losses, &e->losses, e->losses.host));
    return bind(e, r->denom, &e->small, small);
}

static tl_status make_plan(evaluator *e, tl_error *err) {
    build_options o = {.mode = BUILD_EVAL,
                       .rows = e->o.rows,
                       .context = e->o.context,
                       .segment = e->o.segment,
                       .dtype = e->o.dtype,
                       .packed = e->o.packed};
    tl_model *m = e->model;
    model_options(m, &o);
    tl_status s = tl_graph_create(m->engine, &e->graph);
    if (s != TL_OK) return error_set(err, s, "no memory for a graph");
    TRY(build_model(e->graph, e->alloc, &m->config, &m->params, &o, &e->build, err));
    TRY(tl_plan_create(e->graph, false, &e->plan, err));
    if (o.segment) TRY(segments_open(&e->seg, e->alloc, &e->build, o.rows, o.context, o.segment, 2, err));
    s = bind_all(e);
    return s == TL_OK ? TL_OK : error_set(err, s, "an evaluation plan could not be bound");
}

static tl_status resolve(const model_config *c, eval_options *o, tl_error *err) {
    if (!o->context) o->context = c->context;
    if (o->segment < 0) return error_set(err, TL_ARG, "segments of %lld tokens", (long long)o->segment);
    if (o->segment >= o->context) o->segment = 0; /* the row is one */
    if (o->context < 1 || o->rows < 0) return error_set(err, TL_ARG, "no rows or no context to evaluate with");
    if (!o->rows) o->rows = o->context < EVAL_TOKENS ? EVAL_TOKENS / o->context : 1;
    if (!o->dtype) o->dtype = TL_F32;
    if (o->stride < 0 || o->stride > o->context || (o->stride && o->packed))
        return error_set(err, TL_ARG, "a stride of %lld tokens%s", (long long)o->stride,
                         o->packed ? ", but documents are packed whole" : "; it can be 1 to the context");
    if (o->dtype != TL_F32 && o->dtype != TL_BF16)
        return error_set(err, TL_ARG, "evaluation computes in f32 or bf16, not %s", tl_dtype_name(o->dtype));
    return TL_OK;
}

tl_status evaluator_open(tl_model *m, const eval_options *o, evaluator **out, tl_error *err) {
    *out = NULL;
    evaluator *e = mem_new(m->alloc, 1, sizeof *e);
    if (!e) return error_set(err, TL_NOMEM, "no memory to evaluate");
    e->model = m;
    e->alloc = m->alloc;
    e->dev = ((graph_host *)(void *)m->engine)->dev;
    e->o = *o;
    tl_status s = resolve(&m->config, &e->o, err);
    if (s == TL_OK && e->o.segment) s = segments_device(e->dev, err);
    if (s == TL_OK) s = model_bring(m, err);
    if (s == TL_OK && e->o.dtype == TL_BF16) s = model_bf16(m, err);
    if (s == TL_OK) s = take_memory(e, err);
    if (s == TL_OK) s = make_plan(e, err);
    if (s != TL_OK) {
        evaluator_close(e);
        return s;
    }
    *out = e;
    return TL_OK;
}

void evaluator_close(evaluator *e) {
    if (!e) return;
    tl_plan_destroy(e->plan);
    segments_close(&e->seg, e->alloc);
    build_fini(&e->build, e->alloc);
    tl_graph_destroy(e->graph);
    device_twin_give(e->dev, &e->block);
    device_twin_give(e->dev, &e->small);
    device_twin_give(e->dev, &e->freq);
    device_twin_give(e->dev, &e->losses);
    mem_free(e->alloc, e);
}

size_t evaluator_bytes(const evaluator *e) {
    tl_plan_info info;
    tl_plan_info_get(e->plan, &info);
    size_t handed = e->o.segment ? segments_bytes(&e->build, e->o.rows, e->o.segment, 2) : 0;
    return info.arena_bytes + handed + e->block.bytes + e->small.bytes + e->freq.bytes + e->losses.bytes;
}

/* ---- run --------------------------------------------------------------------------------------------------------- */

static tl_status check_ids(const evaluator *e, tl_error *err) {
    int64_t V = e->model->config.vocab;
    for (size_t i = 0; i < cells(e); i++)
        if (e->batch.input[i] < 0 || e->batch.input[i] >= V || e->batch.target[i] >= V)
            return error_set(err, TL_CONFIG, "the text has the id %d, the model a vocabulary of %lld",
                             e->batch.input[i] < 0 || e->batch.input[i] >= V ? e->batch.input[i] : e->batch.target[i],
                             (long long)V);
    for (int64_t i = 0; i < e->o.rows * config_source(&e->model->config); i++)
        if (e->batch.source[i] < 0 || e->batch.source[i] >= V)
            return error_set(err, TL_CONFIG, "a source has the id %d, the model a vocabulary of %lld",
                             e->batch.source[i], (long long)V);
    return TL_OK;
}

/* Losses of rows of `length` places, the first at place `begin` of its row. */
static void add_losses(const evaluator *e, const int32_t *target, int64_t length, int64_t begin, eval_result *r) {
    const float *losses =
        e->losses.at ? (const float *)(const void *)e->losses.host : plan_data_device(e->plan, e->build.losses);
    for (int64_t i = 0; i < e->o.rows * length; i++) {
        if (target[i] < 0) continue;
        r->nats += (double)losses[i];
        r->tokens++;
        if (e->o.by_position) {
            e->o.by_position[begin + i % length] += (double)losses[i];
            e->o.at_position[begin + i % length]++;
        }
        size_t n = 0;
        const tokenizer *t = e->model->tokenizer;
        if (t && !tokenizer_is_special(t, target[i]) && tokenizer_text(t, target[i], &n)) r->bytes += (int64_t)n;
    }
}

static tl_status run_segments(evaluator *e, eval_result *out) {
    segments *s = &e->seg;
    segments_clear(s, 0);
    for (int64_t k = 0; k < s->count; k++) {
        segments_cut(s, &e->batch, 0, k);
        TRY(segments_bind(s, e->plan, &e->build, k % 2, (k + 1) % 2));
        TRY(tl_plan_run(e->plan));
        add_losses(e, s->targets, s->length, k * s->length, out);
    }
    return TL_OK;
}

static tl_status run_batch(evaluator *e, eval_result *out, tl_error *err) {
    TRY(check_ids(e, err));
    device_twin_push(e->dev, &e->block, e->block.host, e->block.bytes);
    tl_status s = e->o.segment ? run_segments(e, out) : tl_plan_run(e->plan);
    if (s != TL_OK) return error_set(err, s, "an evaluation did not run");
    device_twin_pull(e->dev, &e->losses, e->losses.host, e->losses.bytes);
    TRY(device_wait(e->dev, 0, err));
    if (!e->o.segment) add_losses(e, e->batch.target, e->o.context, 0, out);
    return TL_OK;
}

static tl_status finish(eval_result *out, tl_error *err) {
    if (!out->tokens) return error_set(err, TL_LIMIT, "the text has no token to predict");
    out->loss = out->nats / (double)out->tokens;
    return isfinite(out->loss) ? TL_OK : error_set(err, TL_NUMERIC, "the loss is %g", out->loss);
}

/* ---- windows that overlap ---------------------------------------------------------------------------------------- */

/* Row k: targets [w stride, w stride + context) of the text, of which those count that no window before had. */
static void fill_window(evaluator *e, const tokens *t, int64_t w, int64_t k) {
    const int64_t T = e->o.context, S = e->o.stride, begin = w * S, had = w ? begin + T - S : 0;
    loader_batch *b = &e->batch;
    for (int64_t c = 0; c < T; c++) {
        const int64_t i = begin + c, at = k * T + c;
        const bool there = w >= 0 && i < t->n;
        const int32_t before = there ? (i ? tokens_at(t, i - 1) : t->eod) : -1;
        b->input[at] = before >= 0 ? before : there ? tokens_at(t, i) : 0;
        b->target[at] = there && before >= 0 && i >= had ? tokens_at(t, i) : -1;
        b->pos[at] = (int32_t)c;
        b->doc_start[at] = 0;
    }
}

/* What a window has from the one before counts nothing and is the prompt of what follows: up to the token that predicts
 * the first one counted, all see each other. */
static void prompt_window(evaluator *e, int64_t k) {
    const int64_t T = e->o.context, prompt = T - e->o.stride + 1;
    for (int64_t c = 0; c < prompt && c < T; c++)
        e->batch.span[2 * (k * T + c) + 1] = (int32_t)(prompt < T ? prompt : T);
}

static tl_status run_strides(evaluator *e, const tokens *t, eval_result *out, bool (*cancel)(void *), void *user,
                             tl_error *err) {
    const int64_t T = e->o.context, S = e->o.stride, windows = t->n <= T ? 1 : 1 + (t->n - T + S - 1) / S;
    memset(out, 0, sizeof *out);
    for (int64_t w = 0; w < windows; w += e->o.rows) {
        if (cancel && cancel(user)) return error_set(err, TL_CANCELLED, "evaluation was cancelled");
        for (int64_t k = 0; k < e->o.rows; k++) fill_window(e, t, w + k < windows ? w + k : -1, k);
        if (config_prefix(&e->model->config)) {
            objective_causal_span(NULL, e->o.rows, T, e->batch.span);
            for (int64_t k = w ? 0 : 1; k < e->o.rows; k++) prompt_window(e, k);
        }
        TRY(run_batch(e, out, err));
    }
    return finish(out, err);
}

static tl_status run_loader(evaluator *e, const loader *l, eval_result *out, bool (*cancel)(void *), void *user,
                            tl_error *err) {
    const model_config *c = &e->model->config;
    const objective_rule o = {
        c->objective,      c->mask, (int32_t)c->vocab, c->eos, 0, /* the same tokens hidden every time */
        loader_examples(l)};
    memset(out, 0, sizeof *out);
    for (int64_t i = 0; i < loader_steps(l); i++) {
        if (cancel && cancel(user)) return error_set(err, TL_CANCELLED, "evaluation was cancelled");
        loader_get_once(l, i, &e->batch);
        objective_apply(&o, &e->batch, e->o.rows, e->o.context, 0, i * e->o.rows);
        TRY(run_batch(e, out, err));
    }
    return finish(out, err);
}

tl_status evaluator_run(evaluator *e, const tokens *t, eval_result *out, bool (*cancel)(void *user), void *user,
                        tl_error *err) {
    if (e->o.stride && e->model->config.encoder)
        return error_set(err, TL_ARG, "pairs are evaluated whole: leave the stride out");
    if (e->o.stride && t->mark) return error_set(err, TL_ARG, "examples are evaluated whole: leave the stride out");
    if (e->o.stride) {
        tl_status st = e->o.dtype == TL_BF16 ? model_bf16(e->model, err) : TL_OK;
        return st == TL_OK ? run_strides(e, t, out, cancel, user, err) : st;
    }
    loader_options lo = {.mode = e->o.packed ? LOADER_PACKED
                                             : LOADER_WINDOWS, /* packed: whole documents, none cut by a window's end */
                         .B = e->o.rows,
                         .T = e->o.context,
                         .source = config_source(&e->model->config),
                         .in_order = true,
                         .across = !e->o.packed};
    loader *l;
    TRY(loader_open(e->alloc, t, &lo, &l, err));
    /* The bf16 copy belongs to whoever changed the weights last: a trainer keeps it current, nobody else does. */
    tl_status s = e->o.dtype == TL_BF16 ? model_bf16(e->model, err) : TL_OK;
    if (s == TL_OK) s = run_loader(e, l, out, cancel, user, err);
    loader_close(l);
    return s;
}

double eval_perplexity(const eval_result *r) {
    return exp(r->loss);
}

double eval_bits_per_byte(const eval_result *r) {
    return r->bytes ? r->nats / log(2) / (double)r->bytes : 0;
}

tl_status eval_text(tl_model *m, const eval_options *o, const char *text, size_t n, eval_result *out, tl_error *err) {
    if (!m->tokenizer) return error_set(err, TL_STATE, "the model has no tokenizer; evaluate ids instead");
    token_list ids;
    token_store store;
    evaluator *e = NULL;
    token_list_init(&ids, m->alloc);
    token_store_init(&store, m->alloc, m->config.vocab, tokenizer_role_id(m->tokenizer, TOKENIZER_EOD));
    tl_status s = tokenizer_encode(m->tokenizer, text, n, 0, &ids, err);
    if (s == TL_OK) s = token_store_add(&store, ids.id, ids.n, err);
    if (s == TL_OK) s = token_store_end(&store, err);
    if (s == TL_OK) s = evaluator_open(m, o, &e, err);
    if (s == TL_OK) s = evaluator_run(e, &store.view, out, NULL, NULL, err);
    evaluator_close(e);
    token_store_fini(&store);
    token_list_fini(&ids);
    return s;
}
