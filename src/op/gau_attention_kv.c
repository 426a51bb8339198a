/* gau_attention_kv: gau_attention over a cache of keys and values, one row per token. Earlier rows are final, so what
 * depends on the row's count (1/N_i, kappa_i) belongs to the new row alone and the cache stays exact. */
#include "op/gate_kinds.h"
#ifndef REAL

enum { GKV_Q, GKV_K, GKV_V, GKV_SLOT, GKV_POS, GKV_BIAS, GKV_THETA, GKV_SINK, GKV_ENDS };

tl_status gau_attention_kv_shape(tl_op_infer *s) {
    SHAPE(h, s, "gau_attention_kv", "q", "kcache", "vcache", "slot", "pos", "bias", "theta", "sink", "ends");
    const struct gate_attr *a = &((const struct gau_attention_kv_attr *)s->attr)->f;
    TRY(shape_float(&h, GKV_Q));
    if (s->in[GKV_Q]->ndim != 3) TRY(shape_ndim(&h, GKV_Q, 2));
    const tl_desc *q = s->in[GKV_Q], *k;
    for (int i = GKV_K; i <= GKV_V; i++) {
        TRY(shape_float(&h, i));
        TRY(shape_ndim(&h, i, 4));
        TRY(shape_mix(&h, i, GKV_Q));
        TRY(shape_dim(&h, i, 2, q->ndim == 3 ? q->dim[1] : 1, "heads of q"));
        TRY(shape_dim(&h, i, 0, s->in[GKV_K]->dim[0], "slots of kcache"));
        TRY(shape_dim(&h, i, 1, s->in[GKV_K]->dim[1], "capacity of kcache"));
    }
    k = s->in[GKV_K];
    TRY(shape_dim(&h, GKV_K, 3, tl_desc_last(q), "width of q"));
    if (k->dim[1] < 1 || tl_desc_last(q) < 1) return shape_refuse(&h, GKV_K, TL_SHAPE, "a cache needs room");
    for (int i = GKV_SLOT; i <= GKV_POS; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, q->dim[0], "rows of q"));
    }
    TRY(gate_check(&h, a, GATE_KINDS));
    if (a->count == GATE_COUNT_LENGTH)
        return shape_bad_attr(&h, "while a text grows its length is not known: no decoding form exists");
    TRY(gate_check_bias(&h, GKV_BIAS, GKV_Q, k->dim[1]));
    TRY(gate_check_one(&h, GKV_THETA, GKV_Q, !gate_normalised(a->kind),
                       "a temperature is for kinds that are not normalised"));
    TRY(gate_check_one(&h, GKV_SINK, GKV_Q, a->kind == GATE_SOFTMAX, "a sink is for softmax"));
    if (shape_has(&h, GKV_ENDS)) {
        TRY(shape_dtype(&h, GKV_ENDS, TL_I32));
        TRY(shape_ndim(&h, GKV_ENDS, 1));
        TRY(shape_dim(&h, GKV_ENDS, 0, q->dim[0], "rows of q"));
    }
    shape_out_last(&h, 0, GKV_Q, s->in[GKV_V]->dim[3], q->dtype);
    return TL_OK;
}

NO_GRAD(gau_attention_kv, "a cache is for decoding; train with gau_attention")

/* Positions are data: counted as if every row were busy and saw a full cache. */
void gau_attention_kv_cost(const tl_op_call *c, tl_cost *cost) {
    const struct gate_attr *a = &ATTR(c, gau_attention_kv)->f;
    const tl_desc *q = &c->in[GKV_Q].d, *k = &c->in[GKV_K].d;
    int64_t rows = q->dim[0] * k->dim[2], pairs = rows * k->dim[1];
    double e = (double)c->in[GKV_V].d.dim[3], used;
    gate_count n = {2, 1};
    if (a->kind == GATE_L2) n.flops = 3;
    if (a->kind == GATE_RELU2_SUM) n = (gate_count){2, 0};
    if (!gate_normalised(a->kind)) n = gate_value_count(a->kind);
    cost_begin(c, cost);
    used = (double)(k->dim[0] < q->dim[0] ? k->dim[0] : q->dim[0]) / (double)k->dim[0];
    cost->bytes_read += (used - 1) * (cost_bytes(k) + cost_bytes(&c->in[GKV_V].d));
    cost_add(cost, pairs, gate_score_flops(tl_desc_last(q), cost_in(c, GKV_BIAS)) + n.flops + 2 * e, n.special);
    cost_add(cost, rows, e, 2);
    if (cost_in(c, GKV_THETA)) cost_add(cost, 1, (double)rows, 1);
    if (cost_in(c, GKV_SINK)) cost_add(cost, rows, 1, 1);
}

#else

/* Row of position j in a cache, for row r of all heads. */
static int64_t gau_kv_at(const tl_arg *cache, int64_t r, int64_t slot, int64_t j) {
    int64_t C = cache->d.dim[1], H = cache->d.dim[2];
    return ROW(cache, (slot * C + j % C) * H + r % H);
}
static REAL gau_kv_t(const gate_view *w, int64_t r, int64_t slot, int64_t j, int64_t pos, REAL factor) {
    return gate_score(w, ROW(w->q, r), gau_kv_at(w->k, r, slot, j), j - pos, factor);
}

/* The first position that a row sees: what the cache still holds and the table of positions reaches. */
static int64_t gau_kv_first(const gate_view *w, int64_t pos, int64_t end) {
    int64_t C = w->k->d.dim[1], lo = end > C ? end - C : 0;
    return w->bias->data && lo < pos - w->centre ? pos - w->centre : lo;
}

static void gau_kv_row(const gate_view *w, const tl_op_call *c, int64_t r, int64_t slot, int64_t pos, int64_t end) {
    enum { CHUNK = 64 };
    const bool normal = w->a->kind >= GATE_SOFTMAX, ratio = w->a->kind == GATE_RELU2_SUM;
    const tl_arg *sink = &c->in[7];
    int64_t lo = gau_kv_first(w, pos, end), n = end - lo;
    REAL factor = gate_factor(w, n), t = (REAL)0, p = (REAL)0, sum = (REAL)0, norm = (REAL)0;
    REAL top = sink->data ? GET(sink, 0) : (REAL)-INFINITY;
    for (int64_t j = lo; normal && j < end; j++) {
        UNCOUNTED(t = gau_kv_t(w, r, slot, j, pos, factor));
        if (t > top) top = t;
    }
    if (sink->data) sum = real_exp(GET(sink, 0) - top);
    for (int64_t j = lo; normal && j < end; j++) {
        t = gau_kv_t(w, r, slot, j, pos, factor);
        p = ratio ? gate_value(w->a, t) : real_exp(t - top);
        sum = w->a->kind == GATE_L2 ? sum + p * p : sum + p;
    }
    if (normal) {
        norm = (REAL)1 / (w->a->kind == GATE_L2 ? real_sqrt(sum) : sum);
        if (ratio && sum == (REAL)0) norm = (REAL)0;
    } else {
        norm = gate_norm(w, n);
    }
    for (int64_t d0 = 0; d0 < w->e; d0 += CHUNK) {
        REAL out[CHUNK];
        int64_t width = w->e - d0 < CHUNK ? w->e - d0 : CHUNK;
        for (int64_t d = 0; d < width; d++) out[d] = (REAL)0;
        for (int64_t j = lo; j < end; j++) {
            if (!normal && d0 == 0)
                p = gate_value(w->a, gau_kv_t(w, r, slot, j, pos, factor));
            else if (!normal || ratio)
                UNCOUNTED(p = gate_value(w->a, gau_kv_t(w, r, slot, j, pos, factor)));
            else
                UNCOUNTED(p = real_exp(gau_kv_t(w, r, slot, j, pos, factor) - top));
            int64_t from = gau_kv_at(w->v, r, slot, j) + d0;
            for (int64_t d = 0; d < width; d++) out[d] = out[d] + p * GET(w->v, from + d);
        }
        for (int64_t d = 0; d < width; d++) PUT(c, 0, ROW(&c->out[0], r) + d0 + d, out[d] * norm);
    }
}

void REF(gau_attention_kv)(const tl_op_call *c) {
    const tl_arg *slot = &c->in[3], *pos = &c->in[4], *ends = &c->in[8], none = c->in[TL_OP_INS - 1];
    gate_view w =
        gate_open(&ATTR(c, gau_attention_kv)->f, &c->in[0], &c->in[1], &c->in[2], &none, &c->in[5], &c->in[6]);
    const int64_t H = w.k->d.dim[2];
    for (int64_t r = 0; r < w.q->d.dim[0] * H; r++) {
        int64_t q = GETI(slot, r / H), p = GETI(pos, r / H);
        int64_t end = ends->data ? GETI(ends, r / H) : p + 1;
        if (w.bias->data && end > p + w.centre + 1) end = p + w.centre + 1;
        bool busy = q >= 0 && q < w.k->d.dim[0] && p >= 0 && end > gau_kv_first(&w, p, end);
        if (busy) gau_kv_row(&w, c, r, q, p, end);
        for (int64_t d = 0; d < w.e && !busy; d++) PUT(c, 0, ROW(&c->out[0], r) + d, (REAL)0);
    }
}

#endif
