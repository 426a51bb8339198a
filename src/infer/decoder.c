#include "infer/decoder.h"

#include "graph/plan.h"

#include <string.h>

static const int64_t *const bucket_rows = build_bucket_rows;
enum { LARGEST = 512, CACHE_ALIGN = 64 };

size_t decoder_cache_per_token(const model_config *c, tl_dtype t) {
    return build_state_per_token(c, t);
}

static size_t pad16(int64_t n) {
    return ((size_t)n + 15) / 16 * 16;
}

enum { SECTIONS = 6 }; /* ids, pos, slot, select, and where there are such: ends, cross */

/* Points to the sections of a plan of so many rows; returns how many numbers they are. Plans of few rows have little to
 * send, so their sections lie close together. */
static size_t lay_out(decoder *d, int64_t rows) {
    const model_config *c = &d->model->config;
    const size_t each = pad16(rows);
    int32_t *at = d->ids = (int32_t *)(void *)d->in.host;
    d->pos = at += each;
    d->slot = at += each;
    d->select = at += each;
    if (config_prefix(c)) d->ends = at += each;
    if (c->encoder) d->cross = at += each;
    return (size_t)(at - d->ids) + each;
}

static float *sinusoid_of(const decoder *d, void *small) {
    return (float *)small + pad16(d->model->config.heads);
}

static tl_status take_memory(decoder *d, tl_error *err) {
    const model_config *c = &d->model->config;
    const tl_allocator *a = d->model->alloc;
    size_t per_slot = build_state_fixed(c, d->cache_dtype), positions;
    size_t rounding = (size_t)c->layers * BUILD_STATES * CACHE_ALIGN;
    int64_t table = build_sinusoid_rows(c, d->capacity);
    if (mul_overflows((size_t)d->capacity, decoder_cache_per_token(c, d->cache_dtype), &positions) ||
        mul_overflows((size_t)d->slots, per_slot + positions, &d->cache_bytes) || d->cache_bytes > SIZE_MAX - rounding)
        return error_set(err, TL_LIMIT, "a cache of %lld x %lld positions is too large", (long long)d->slots,
                         (long long)d->capacity);
    d->cache_bytes += rounding;
    d->most = LARGEST;
    while (config_prefix(c) && d->most < d->capacity) d->most *= 2;
    while (c->encoder && d->most < config_source(c)) d->most *= 2;
    if (c->encoder) d->source = mem_new(a, (size_t)d->slots, sizeof *d->source);
    if (config_prefix(c)) d->prefix = mem_new(a, (size_t)d->slots, sizeof *d->prefix);
    d->cache = d->dev->alloc_bytes(d->dev, d->cache_bytes);
    bool ok = d->cache && (!config_prefix(c) || d->prefix) && (!c->encoder || d->source) &&
              device_twin_take(d->dev, SECTIONS * pad16(d->most) * sizeof(int32_t), &d->in) &&
              device_twin_take(d->dev, ((size_t)build_rope_dims(c) / 2 + 1) * sizeof(double), &d->freqs) &&
              device_twin_take(d->dev, (pad16(c->heads) + (size_t)(table * c->width)) * sizeof(float), &d->small);
    if (ok && d->dev->memory) ok = device_twin_take(d->dev, (size_t)(d->slots * c->vocab) * sizeof(float), &d->logits);
    if (!ok) return error_set(err, TL_NOMEM, "no memory for a cache of %zu bytes", d->cache_bytes);
    double mscale;
    d->freq = (double *)(void *)d->freqs.host;
    build_rope_freq(c, d->capacity, d->freq, &mscale);
    (void)build_head_constants(c, (float *)(void *)d->small.host);
    build_sinusoid(table, c->width, sinusoid_of(d, d->small.host));
    device_twin_push(d->dev, &d->freqs, d->freqs.host, d->freqs.bytes);
    device_twin_push(d->dev, &d->small, d->small.host, d->small.bytes);
    return TL_OK;
}

tl_status decoder_init(decoder *d, tl_model *m, int64_t slots, int64_t capacity, tl_dtype dtype, tl_dtype cache_dtype,
                       tl_error *err) {
    memset(d, 0, sizeof *d);
    d->model = m;
    d->dev = ((graph_host *)(void *)m->engine)->dev;
    d->slots = slots;
    d->capacity = capacity;
    d->limit = build_endless(&m->config) ? INT32_MAX : capacity;
    d->dtype = dtype ? dtype : TL_F32;
    d->cache_dtype = cache_dtype ? cache_dtype : TL_F32;
    if (slots < 1 || capacity < 1)
        return error_set(err, TL_ARG, "a cache needs at least one sequence and one position");
    if (m->config.positions == POS_LEARNED && capacity > m->config.context)
        return error_set(err, TL_ARG, "%lld positions, but the model has learned %lld", (long long)capacity,
                         (long long)m->config.context);
    if (d->cache_dtype == TL_Q8_0 && (m->config.head_dim % tl_dtype_block(TL_Q8_0) || config_has_gated(&m->config)))
        return error_set(err, TL_UNSUPPORTED,
                         "a cache in q8_0 needs attention heads of whole blocks of 32; they have %lld",
                         (long long)m->config.head_dim);
    tl_status s = model_bring(m, err);
    if (s == TL_OK && d->dtype == TL_BF16) s = model_bf16(m, err);
    if (s == TL_OK) s = take_memory(d, err);
    if (s != TL_OK) decoder_fini(d);
    return s;
}

void decoder_fini(decoder *d) {
    if (!d->model) return;
    const tl_allocator *a = d->model->alloc;
    for (int i = 0; i < 2 * DECODER_BUCKETS; i++) {
        decoder_plan *p = i < DECODER_BUCKETS ? &d->plan[i] : &d->encode[i - DECODER_BUCKETS];
        tl_plan_destroy(p->plan);
        build_fini(&p->build, a);
        tl_graph_destroy(p->graph);
    }
    if (d->cache) d->dev->free_bytes(d->dev, d->cache, d->cache_bytes);
    device_twin_give(d->dev, &d->in);
    device_twin_give(d->dev, &d->freqs);
    device_twin_give(d->dev, &d->small);
    device_twin_give(d->dev, &d->logits);
    mem_free(a, d->prefix);
    mem_free(a, d->source);
    memset(d, 0, sizeof *d);
}

/* ---- plans ------------------------------------------------------------------------------------------- */

static tl_status bind(tl_plan *p, const tl_tensor *t, void *at) {
    return t ? plan_bind_device(p, t, at) : TL_OK;
}

/* A section of what is sent. */
static tl_status bind_in(const decoder *d, tl_plan *p, const tl_tensor *t, const int32_t *host) {
    return t ? plan_bind_device(p, t, device_twin_at(&d->in, host)) : TL_OK;
}

build_options decoder_options(const decoder *d) {
    return (build_options){
        .mode = BUILD_DECODE, .context = d->capacity, .slots = d->slots, .dtype = d->dtype, .cache = d->cache_dtype};
}

size_t decoder_state_bytes(const tl_desc *d) {
    size_t bytes = (size_t)(tl_desc_count(d) / tl_dtype_block(d->dtype)) * tl_dtype_bytes(d->dtype);
    return (bytes + CACHE_ALIGN - 1) / CACHE_ALIGN * CACHE_ALIGN;
}

/* Binds what all plans share: weights, constants, cache, input buffers. */
static tl_status bind_all(decoder *d, decoder_plan *b) {
    tl_model *m = d->model;
    const model_config *c = &m->config;
    build_result *r = &b->build;
    TRY(model_bind(m, b->plan, r, d->dtype));
    build_options o = decoder_options(d);
    char *at = d->cache;
    for (int64_t i = 0; i < c->layers * BUILD_STATES; i++) {
        tl_desc desc;
        if (!build_state(c, &o, i / BUILD_STATES, (int)(i % BUILD_STATES), &desc)) continue;
        if (r->state[i]) TRY(bind(b->plan, r->state[i], at));
        at += decoder_state_bytes(&desc);
    }
    lay_out(d, b->rows);
    TRY(bind(b->plan, r->freq, d->freqs.at));
    TRY(bind(b->plan, r->slopes, d->small.at));
    TRY(bind(b->plan, r->sinusoid, sinusoid_of(d, d->small.at)));
    TRY(bind_in(d, b->plan, r->ids, d->ids));
    TRY(bind_in(d, b->plan, r->pos, d->pos));
    TRY(bind_in(d, b->plan, r->slot, d->slot));
    TRY(bind_in(d, b->plan, r->span, d->ends));
    TRY(bind_in(d, b->plan, r->cross, d->cross));
    TRY(bind_in(d, b->plan, r->source, d->ids));
    TRY(bind_in(d, b->plan, r->source_pos, d->pos));
    TRY(bind_in(d, b->plan, r->source_doc, d->cross));
    if (d->logits.at) TRY(bind(b->plan, r->logits, d->logits.at));
    return bind_in(d, b->plan, r->select, d->select);
}

/* Rows of bucket k. */
static int64_t rows_of(int k) {
    return k < BUILD_BUCKETS ? bucket_rows[k] : (int64_t)LARGEST << (k - BUILD_BUCKETS + 1);
}

static tl_status plan_make(decoder *d, int k, bool encode, tl_error *err) {
    decoder_plan *b = encode ? &d->encode[k] : &d->plan[k];
    tl_model *m = d->model;
    if (b->plan) return TL_OK;
    b->rows = rows_of(k);
    if (encode && b->rows > config_source(&m->config)) b->rows = config_source(&m->config);
    build_options o = {.mode = encode ? BUILD_ENCODE : BUILD_DECODE,
                       .rows = b->rows,
                       .context = d->capacity,
                       .slots = d->slots,
                       .outputs = b->rows < d->slots ? b->rows : d->slots,
                       .dtype = d->dtype,
                       .cache = d->cache_dtype};
    model_options(m, &o);
    tl_status s = tl_graph_create(m->engine, &b->graph);
    if (s != TL_OK) return error_set(err, s, "no memory for a graph");
    s = build_model(b->graph, m->alloc, &m->config, &m->params, &o, &b->build, err);
    if (s == TL_OK) s = tl_plan_create(b->graph, false, &b->plan, err);
    if (s == TL_OK && (s = bind_all(d, b)) != TL_OK) error_set(err, s, "a decode plan could not be bound");
    if (s == TL_OK) return TL_OK;
    tl_plan_destroy(b->plan);
    build_fini(&b->build, m->alloc);
    tl_graph_destroy(b->graph);
    memset(b, 0, sizeof *b);
    return s;
}

/* What a run reads is filled for a plan of so many rows; the block may be filled again when it was sent. */
static tl_status fill_begin(decoder *d, int64_t rows, size_t *numbers, tl_error *err) {
    TRY(device_wait(d->dev, d->sent ? d->sent : 1, err));
    *numbers = lay_out(d, rows);
    return TL_OK;
}

static tl_status send_and_run(decoder *d, const decoder_plan *b, size_t numbers) {
    device_twin_push(d->dev, &d->in, d->in.host, numbers * sizeof(int32_t));
    d->sent = device_mark(d->dev);
    return tl_plan_run(b->plan);
}

/* ---- run --------------------------------------------------------------------------------------------------- */

/* One bucket's worth of tokens; chosen rows beyond the graph's number of outputs repeat row 0. */
static tl_status run_some(decoder *d, int64_t n, const int32_t *ids, const int32_t *pos, const int32_t *slot,
                          int64_t n_select, const int32_t *select, const float **logits, tl_error *err) {
    int k = 0;
    while (rows_of(k) < n) k++;
    TRY(plan_make(d, k, false, err));
    decoder_plan *b = &d->plan[k];
    size_t numbers;
    TRY(fill_begin(d, b->rows, &numbers, err));
    memcpy(d->ids, ids, (size_t)n * sizeof *ids);
    memcpy(d->pos, pos, (size_t)n * sizeof *pos);
    memcpy(d->slot, slot, (size_t)n * sizeof *slot);
    for (int64_t i = n; i < b->rows; i++) {
        d->ids[i] = d->pos[i] = 0;
        d->slot[i] = -1;
    }
    for (int64_t i = 0; d->ends && i < b->rows; i++) {
        const int32_t prompt = i < n ? d->prefix[slot[i]] : 0;
        d->ends[i] = d->pos[i] < prompt ? prompt : d->pos[i] + 1;
    }
    for (int64_t i = 0; d->cross && i < b->rows; i++) d->cross[i] = i < n ? d->source[slot[i]] : 0;
    int64_t outputs = b->rows < d->slots ? b->rows : d->slots;
    for (int64_t i = 0; i < outputs; i++) d->select[i] = i < n_select ? select[i] : 0;
    tl_status s = send_and_run(d, b, numbers);
    if (s != TL_OK) return error_set(err, s, "a decode plan did not run");
    if (!d->logits.at) {
        *logits = plan_data_device(b->plan, b->build.logits);
        return TL_OK;
    }
    *logits = (const float *)(const void *)d->logits.host;
    if (!n_select) return TL_OK;
    device_twin_pull(d->dev, &d->logits, d->logits.host, (size_t)(n_select * d->model->config.vocab) * sizeof **logits);
    return device_wait(d->dev, 0, err);
}

tl_status decoder_encode(decoder *d, int64_t slot, int64_t n, const int32_t *ids, tl_error *err) {
    const model_config *c = &d->model->config;
    if (!c->encoder || slot < 0 || slot >= d->slots)
        return error_set(err, TL_ARG, "there is no encoder, or no such sequence");
    if (n > config_source(c))
        return error_set(err, TL_LIMIT, "a source of %lld tokens does not fit the encoder's %lld", (long long)n,
                         (long long)config_source(c));
    for (int64_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= c->vocab)
            return error_set(err, TL_ARG, "token id %d is outside the vocabulary of %lld", ids[i], (long long)c->vocab);
    d->source[slot] = (int32_t)n;
    if (n < 1) return TL_OK;
    int k = 0;
    while (rows_of(k) < n) k++;
    TRY(plan_make(d, k, true, err));
    const decoder_plan *b = &d->encode[k];
    size_t numbers;
    TRY(fill_begin(d, b->rows, &numbers, err));
    for (int64_t i = 0; i < b->rows; i++) {
        const bool there = i < n;
        d->ids[i] = there ? ids[i] : 0;
        d->pos[i] = (int32_t)i;
        d->cross[i] = there ? 0 : -1; /* padding is another document */
        d->slot[i] = there ? (int32_t)slot : -1;
    }
    tl_status s = send_and_run(d, b, numbers);
    return s == TL_OK ? TL_OK : error_set(err, s, "an encoder's plan did not run");
}

/* Tokens that see ahead must all be there. */
static tl_status check_prompts(const decoder *d, int64_t n, const int32_t *pos, const int32_t *slot, tl_error *err) {
    for (int64_t i = 0, end; d->prefix && i < n; i = end) {
        const int32_t prompt = d->prefix[slot[i]];
        for (end = i + 1; end < n && slot[end] == slot[i] && pos[end] == pos[end - 1] + 1;) end++;
        if (pos[i] >= prompt || (pos[i] == 0 && end - i >= prompt)) continue;
        return error_set(err, TL_STATE,
                         "a prompt of %d tokens that see each other is computed at once, not from %d to %lld", prompt,
                         pos[i], (long long)(pos[i] + end - i));
    }
    return TL_OK;
}

tl_status decoder_run(decoder *d, int64_t n, const int32_t *ids, const int32_t *pos, const int32_t *slot,
                      int64_t n_select, const int32_t *select, const float **logits, tl_error *err) {
    for (int64_t i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= d->model->config.vocab)
            return error_set(err, TL_ARG, "token id %d is outside the vocabulary of %lld", ids[i],
                             (long long)d->model->config.vocab);
        if (pos[i] < 0 || pos[i] >= d->limit || slot[i] >= d->slots || slot[i] < 0)
            return error_set(err, TL_ARG, "position %d of sequence %d is outside the cache", pos[i], slot[i]);
    }
    if (n_select > d->slots || n_select > n) return error_set(err, TL_ARG, "too many rows of logits asked for");
    TRY(check_prompts(d, n, pos, slot, err));
    int32_t local[LARGEST];
    int64_t done = 0, first = n;
    for (int64_t i = 0; i < n_select; i++)
        if (select[i] < first) first = select[i];
    if (d->prefix && n > d->most) return error_set(err, TL_ARG, "%lld tokens at once", (long long)n);
    if (d->prefix) return run_some(d, n, ids, pos, slot, n_select, select, logits, err);
    if (n_select > LARGEST || n - first > LARGEST) return error_set(err, TL_ARG, "chosen rows lie too far apart");
    while (n - done > LARGEST) { /* the last part must hold every chosen row */
        int64_t part = first - done < LARGEST ? first - done : LARGEST;
        TRY(run_some(d, part, ids + done, pos + done, slot + done, 0, NULL, logits, err));
        done += part;
    }
    for (int64_t i = 0; i < n_select; i++) local[i] = (int32_t)(select[i] - done);
    return run_some(d, n - done, ids + done, pos + done, slot + done, n_select, local, logits, err);
}
