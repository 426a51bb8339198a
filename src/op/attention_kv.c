/* attention_kv: attention of new tokens over a cache of keys and values, one row per token, each with its own slot and
 * position. A cache of C places is a ring: position p lies at p mod C, so the last C positions can be seen. */
#ifndef REAL

#include "op/rules.h"

enum { KV_Q, KV_K, KV_V, KV_SLOT, KV_POS, KV_SINKS, KV_SLOPES, KV_BIAS, KV_ENDS };

tl_status attention_kv_shape(tl_op_infer *s) {
    const struct attention_kv_attr *a = s->attr;
    SHAPE(h, s, "attention_kv", "q", "kcache", "vcache", "slot", "pos", "sinks", "slopes", "bias", "ends");
    TRY(shape_float(&h, KV_Q));
    TRY(shape_ndim(&h, KV_Q, 3));
    for (int i = KV_K; i <= KV_V; i++) {
        TRY(shape_weight(&h, i));
        if (tensor_is_quantized(s->in[i]->dtype) && s->in[i]->dtype != TL_Q8_0)
            return shape_refuse(&h, i, TL_DTYPE, "a cache is in floats or q8_0");
        TRY(shape_ndim(&h, i, 4));
        TRY(shape_same_dtype(&h, i, KV_K));
        TRY(shape_mix(&h, i, KV_Q));
    }
    const tl_desc *q = s->in[KV_Q], *k = s->in[KV_K];
    TRY(shape_dim(&h, KV_K, 3, q->dim[2], "head width of q"));
    for (int i = 0; i < 3; i++) TRY(shape_dim(&h, KV_V, i, k->dim[i], "as kcache"));
    if (k->dim[2] < 1 || q->dim[1] % k->dim[2])
        return shape_refuse(&h, KV_K, TL_SHAPE, "the %lld heads of q are no multiple of its heads",
                            (long long)q->dim[1]);
    if (k->dim[1] < 1) return shape_refuse(&h, KV_K, TL_SHAPE, "a cache needs room");
    for (int i = KV_SLOT; i <= KV_POS; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, q->dim[0], "rows of q"));
    }
    if (shape_has(&h, KV_SINKS)) TRY(shape_vector(&h, KV_SINKS, q->dim[1], KV_Q, "heads of q"));
    if (shape_has(&h, KV_SLOPES)) TRY(shape_vector(&h, KV_SLOPES, q->dim[1], KV_Q, "heads of q"));
    if (shape_has(&h, KV_BIAS)) {
        TRY(shape_sum(&h, KV_BIAS, KV_Q));
        TRY(shape_ndim(&h, KV_BIAS, 2));
        TRY(shape_dim(&h, KV_BIAS, 0, q->dim[1], "heads of q"));
        if (s->in[KV_BIAS]->dim[1] % 2 == 0) return shape_refuse(&h, KV_BIAS, TL_SHAPE, "it must have 2P-1 columns");
    }
    if (shape_has(&h, KV_ENDS)) {
        TRY(shape_dtype(&h, KV_ENDS, TL_I32));
        TRY(shape_ndim(&h, KV_ENDS, 1));
        TRY(shape_dim(&h, KV_ENDS, 0, q->dim[0], "rows of q"));
    }
    if (a->global < 0 || (a->global && (!a->window || shape_has(&h, KV_ENDS))))
        return shape_bad_attr(&h, "global is %lld; it is for a window of what came before", (long long)a->global);
    if (a->window < 0 || !(a->scale >= 0) || !(a->softcap >= 0))
        return shape_bad_attr(&h, "scale %g, softcap %g, window %lld", (double)a->scale, (double)a->softcap,
                              (long long)a->window);
    shape_out_last(&h, 0, KV_Q, s->in[KV_V]->dim[3], q->dtype);
    return TL_OK;
}

NO_GRAD(attention_kv, "a cache is for decoding; train with attention")

/* Positions are data: counted as if every row were busy and saw a full cache, or window. A slot's cache is read once.
 */
void attention_kv_cost(const tl_op_call *c, tl_cost *cost) {
    const struct attention_kv_attr *a = ATTR(c, attention_kv);
    const tl_desc *q = &c->in[KV_Q].d, *k = &c->in[KV_K].d;
    int64_t rows = q->dim[0] * q->dim[1], keys = k->dim[1], slots = k->dim[0];
    double Dv = (double)c->in[KV_V].d.dim[3], used;
    cost_begin(c, cost);
    const int64_t wide = cost_in(c, KV_ENDS) ? 2 * a->window - 1 : a->window; /* to one side, or both */
    if (a->window > 0 && keys > wide + a->global) keys = wide + a->global;
    used = (double)(slots < q->dim[0] ? slots : q->dim[0]) * (double)keys / ((double)slots * (double)k->dim[1]);
    cost->bytes_read += (used - 1) * (cost_bytes(k) + cost_bytes(&c->in[KV_V].d));
    cost_add(cost, rows * keys, 2 * (double)q->dim[2] + 1 + 2 + 2 * Dv, 1);
    if (a->softcap > 0) cost_add(cost, rows * keys, 1, 2);
    if (cost_in(c, KV_SLOPES)) cost_add(cost, rows * keys, 2, 0);
    if (cost_in(c, KV_BIAS)) cost_add(cost, rows * keys, 1, 0);
    if (cost_in(c, KV_SINKS)) cost_add(cost, rows, 1, 1);
    cost_add(cost, rows, 0, Dv);
}

#else

typedef struct attention_kv_view {
    const struct attention_kv_attr *a;
    const tl_arg *q, *k, *v, *sinks, *slopes, *bias;
    int64_t H, Hk, C, Dh, Dv, P;
    int64_t slot, pos, from, to, first, end; /* of the row at hand: sees [from, to) and, behind them, [first, end) */
    REAL scale, cap;
} attention_kv_view;

static int64_t attention_kv_row(const attention_kv_view *w, const tl_arg *cache, int64_t j, int64_t h) {
    return ROW(cache, (w->slot * w->C + j % w->C) * w->Hk + h / (w->H / w->Hk));
}

static REAL attention_kv_score(const attention_kv_view *w, int64_t r, int64_t h, int64_t j) {
    int64_t qi = ROW(w->q, r * w->H + h), kj = attention_kv_row(w, w->k, j, h);
    REAL t = (REAL)0;
    for (int64_t d = 0; d < w->Dh; d++) t = t + GET(w->q, qi + d) * GET(w->k, kj + d);
    t = t * w->scale;
    if (w->a->softcap > 0) t = w->cap * real_tanh(t / w->cap);
    if (w->slopes->data) t = t - GET(w->slopes, h) * (REAL)(double)(j < w->pos ? w->pos - j : j - w->pos);
    if (w->bias->data) t = t + GET(w->bias, ROW(w->bias, h) + j - w->pos + w->P - 1);
    return t;
}

static int64_t attention_kv_next(const attention_kv_view *w, int64_t j) {
    return j + 1 >= w->to && j + 1 < w->first ? w->first : j + 1;
}

static void attention_kv_head(const attention_kv_view *w, const tl_op_call *c, int64_t r, int64_t h) {
    enum { CHUNK = 64 };
    const REAL none = (REAL)-INFINITY;
    REAL t = none, sum = (REAL)0, top = w->sinks->data ? GET(w->sinks, h) : none;
    for (int64_t j = w->from; j < w->end; j = attention_kv_next(w, j)) {
        UNCOUNTED(t = attention_kv_score(w, r, h, j));
        if (t > top) top = t;
    }
    if (top == none) top = (REAL)0;
    if (w->sinks->data) sum = real_exp(GET(w->sinks, h) - top);
    for (int64_t j = w->from; j < w->end; j = attention_kv_next(w, j))
        sum = sum + real_exp(attention_kv_score(w, r, h, j) - top);
    for (int64_t d0 = 0; d0 < w->Dv; d0 += CHUNK) {
        REAL out[CHUNK], p = (REAL)0;
        int64_t width = w->Dv - d0 < CHUNK ? w->Dv - d0 : CHUNK, to = ROW(&c->out[0], r * w->H + h) + d0;
        for (int64_t d = 0; d < width; d++) out[d] = (REAL)0;
        for (int64_t j = w->from; j < w->end; j = attention_kv_next(w, j)) {
            int64_t from = attention_kv_row(w, w->v, j, h) + d0;
            UNCOUNTED(p = real_exp(attention_kv_score(w, r, h, j) - top));
            for (int64_t d = 0; d < width; d++) out[d] = out[d] + p * GET(w->v, from + d);
        }
        for (int64_t d = 0; d < width; d++) PUT(c, 0, to + d, sum == (REAL)0 ? (REAL)0 : out[d] / sum);
    }
}

/* What the row at hand sees: by its own number of keys, or up to its position. */
static void attention_kv_span(attention_kv_view *w, const tl_arg *ends, int64_t r) {
    const int64_t window = w->a->window;
    w->end = w->pos + 1;
    if (ends->data) {
        w->end = GETI(ends, r);
        if (window > 0 && w->end > w->pos + window) w->end = w->pos + window;
        if (w->bias->data && w->end > w->pos + w->P) w->end = w->pos + w->P;
    }
    w->first = w->end > w->C ? w->end - w->C : 0;
    w->from = w->first;
    if (window > 0 && w->first < w->pos + 1 - window) w->first = w->pos + 1 - window;
    w->to = w->a->global < w->first ? w->a->global : w->first;
    if (w->to <= w->from) w->from = w->to = w->first;
}

void REF(attention_kv)(const tl_op_call *c) {
    const tl_arg *slot = &c->in[3], *pos = &c->in[4];
    attention_kv_view w;
    w.a = ATTR(c, attention_kv);
    w.q = &c->in[0], w.k = &c->in[1], w.v = &c->in[2], w.sinks = &c->in[5], w.slopes = &c->in[6], w.bias = &c->in[7];
    w.P = w.bias->data ? (w.bias->d.dim[1] + 1) / 2 : INT64_MAX;
    w.H = w.q->d.dim[1], w.Dh = w.q->d.dim[2];
    w.C = w.k->d.dim[1], w.Hk = w.k->d.dim[2], w.Dv = w.v->d.dim[3];
    w.scale = w.a->scale > 0 ? (REAL)w.a->scale : (REAL)(1.0 / sqrt((double)w.Dh));
    w.cap = (REAL)w.a->softcap;
    for (int64_t r = 0; r < w.q->d.dim[0]; r++) {
        w.slot = GETI(slot, r), w.pos = GETI(pos, r);
        bool idle = w.slot < 0 || w.slot >= w.k->d.dim[0] || w.pos < 0 || w.pos >= w.P;
        attention_kv_span(&w, &c->in[8], r);
        for (int64_t h = 0; h < w.H; h++) {
            if (!idle) attention_kv_head(&w, c, r, h);
            for (int64_t d = 0; d < w.Dv && idle; d++) PUT(c, 0, ROW(&c->out[0], r * w.H + h) + d, (REAL)0);
        }
    }
}

#endif
