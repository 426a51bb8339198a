/* gau_attention, gau_attention_bwd: one head of any weighting (Hua 2022; softmax form of GAU-alpha; l2 and relu^2 over
 * its sum from the same author's notes). The sum kinds add over keys without maximum or logsumexp, so the backward pass
 * needs the inputs alone; the normalised kinds save one number per row. */
#include "op/gate_kinds.h"
#ifndef REAL

/* Places of the arguments. */
enum { GAU_Q, GAU_K, GAU_V, GAU_DOC, GAU_BIAS, GAU_THETA, GAU_SINK, GAU_SPAN };
enum { GB_DO, GB_Q, GB_K, GB_V, GB_O, GB_STAT, GB_DOC, GB_BIAS, GB_THETA, GB_SINK, GB_SPAN };

/* k and v: the keys may be those of another text, of another length, where nothing counts how far they are. */
static tl_status gau_check_keys(const shape_rule *h, int q, int more, const struct gate_attr *a) {
    const tl_desc *d = h->s->in[q];
    for (int i = q + 1; i <= q + 2; i++) {
        TRY(shape_float(h, i));
        TRY(shape_same_dtype(h, i, q));
        TRY(shape_ndim(h, i, d->ndim));
        TRY(shape_dim(h, i, 0, d->dim[0], "B of q"));
        if (d->ndim == 4) TRY(shape_dim(h, i, 2, d->dim[2], "heads of q"));
    }
    const int64_t S = h->s->in[q + 1]->dim[1];
    TRY(shape_dim(h, q + 2, 1, S, "tokens of k"));
    if (S == d->dim[1]) return TL_OK;
    if (a->causal || shape_has(h, more) || shape_has(h, more + 1))
        return shape_refuse(h, q + 1, TL_SHAPE, "keys of another text know no causality, documents or bias");
    return TL_OK;
}

static tl_status gau_check(const shape_rule *h, int first, int more, const struct gate_attr *a) {
    TRY(shape_float(h, first));
    TRY(gate_check_heads(h, first));
    const tl_desc *q = h->s->in[first];
    TRY(gau_check_keys(h, first, more, a));
    TRY(shape_dim(h, first + 1, q->ndim - 1, tl_desc_last(q), "width"));
    if (tl_desc_last(q) < 1 || tl_desc_last(h->s->in[first + 2]) < 1)
        return shape_refuse(h, first, TL_SHAPE, "heads need a width");
    TRY(gate_check(h, a, GATE_KINDS));
    TRY(gate_check_doc(h, more, first));
    TRY(gate_check_bias(h, more + 1, first, q->dim[1]));
    TRY(gate_check_one(h, more + 2, first, !gate_normalised(a->kind),
                       "a temperature is for kinds that are not normalised"));
    if (shape_has(h, more + 4)) TRY(shape_span(h, more + 4, q->dim[0], q->dim[1]));
    return gate_check_one(h, more + 3, first, a->kind == GATE_SOFTMAX, "a sink is for softmax");
}

/* (B,T), or (B,H,T) */
static void gau_stat(const shape_rule *h, int q, tl_desc *stat) {
    const tl_desc *d = h->s->in[q];
    int64_t dim[] = {d->dim[0], d->ndim == 4 ? d->dim[2] : d->dim[1], d->dim[1]};
    *stat = tl_desc_make(tensor_sum_dtype(d->dtype), d->ndim - 1, dim);
}

tl_status gau_attention_shape(tl_op_infer *s) {
    SHAPE(h, s, "gau_attention", "q", "k", "v", "doc", "bias", "theta", "sink", "span");
    const struct gate_attr *a = &((const struct gau_attention_attr *)s->attr)->f;
    TRY(gau_check(&h, GAU_Q, GAU_DOC, a));
    shape_out_last(&h, 0, GAU_Q, tl_desc_last(s->in[GAU_V]), s->in[0]->dtype);
    if (gate_normalised(a->kind)) gau_stat(&h, GAU_Q, &s->out[1]);
    return TL_OK;
}

void gau_attention_grad(tl_grad *g) {
    struct gau_attention_bwd_attr a = {((const struct gau_attention_attr *)tl_grad_attr(g))->f};
    if (grad_aux(g, 1, 2, "gau_attention: the statistic carries no gradient")) return;
    bool saved = gate_normalised(a.f.kind);
    tl_tensor *in[] = {tl_grad_dy(g, 0),
                       tl_grad_in(g, GAU_Q),
                       tl_grad_in(g, GAU_K),
                       tl_grad_in(g, GAU_V),
                       saved ? tl_grad_out(g, 0) : NULL,
                       saved ? tl_grad_out(g, 1) : NULL,
                       tl_grad_in(g, GAU_DOC),
                       tl_grad_in(g, GAU_BIAS),
                       tl_grad_in(g, GAU_THETA),
                       tl_grad_in(g, GAU_SINK),
                       tl_grad_in(g, GAU_SPAN)};
    int to[] = {grad_to(g, GAU_Q),    grad_to(g, GAU_K),     grad_to(g, GAU_V),
                grad_to(g, GAU_BIAS), grad_to(g, GAU_THETA), grad_to(g, GAU_SINK)};
    tl_grad_emit(g, OP_DEF(gau_attention_bwd), &a, in, 11, to, 6);
}

/* Pairs of one sequence without documents and spans, which are data. */
static double gau_pairs(const struct gate_attr *a, int64_t T, int64_t S) {
    return a->causal ? (double)T * (double)(T + 1) / 2 : (double)T * (double)S;
}
static void gau_cost_add(tl_cost *cost, double times, double flops, double special) {
    cost->flops += times * flops;
    cost->special += times * special;
}

void gau_attention_cost(const tl_op_call *c, tl_cost *cost) {
    const struct gate_attr *a = &ATTR(c, gau_attention)->f;
    const tl_desc *q = &c->in[GAU_Q].d;
    int64_t T = q->dim[1], B = q->dim[0] * gate_heads(q), rows = B * T;
    double e = (double)tl_desc_last(&c->in[GAU_V].d), pairs = (double)B * gau_pairs(a, T, c->in[GAU_K].d.dim[1]);
    cost_begin(c, cost);
    gau_cost_add(cost, pairs, gate_score_flops(tl_desc_last(q), cost_in(c, GAU_BIAS)) + 2 * e, 0);
    cost_add(cost, rows, e, 0);
    if (cost_in(c, GAU_THETA)) cost_add(cost, 1, (double)rows, 1);
    if (!gate_normalised(a->kind)) {
        gate_count n = gate_value_count(a->kind);
        gau_cost_add(cost, pairs, n.flops, n.special);
        return;
    }
    if (a->kind == GATE_RELU2_SUM) {
        gau_cost_add(cost, pairs, 2, 0);
        cost_add(cost, rows, 0, 1);
        return;
    }
    bool l2 = a->kind == GATE_L2;
    gau_cost_add(cost, pairs, l2 ? 3 : 2, 1);
    cost_add(cost, rows, 0, l2 ? 2 : 1);
    if (cost_in(c, GAU_SINK)) cost_add(cost, rows, 1, 1);
    if (cost_out(c, 1)) cost_add(cost, rows, l2 ? 2 : 1, 1);
}

tl_status gau_attention_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "gau_attention_bwd", "do", "q", "k", "v", "o", "stat", "doc", "bias", "theta", "sink", "span");
    const struct gate_attr *a = &((const struct gau_attention_bwd_attr *)s->attr)->f;
    TRY(gau_check(&h, GB_Q, GB_DOC, a));
    TRY(gate_check_rows(&h, GB_DO, GB_Q, tl_desc_last(s->in[GB_V])));
    if (gate_normalised(a->kind)) {
        tl_desc stat;
        gau_stat(&h, GB_Q, &stat);
        TRY(gate_check_rows(&h, GB_O, GB_Q, tl_desc_last(s->in[GB_V])));
        TRY(shape_sum(&h, GB_STAT, GB_Q));
        TRY(shape_ndim(&h, GB_STAT, stat.ndim));
        for (int i = 0; i < stat.ndim; i++) TRY(shape_dim(&h, GB_STAT, i, stat.dim[i], "of q"));
    }
    for (int i = 0; i < 3; i++) shape_out_like(&h, i, GB_Q + i, s->in[GB_Q]->dtype);
    for (int i = 0; i < 3; i++)
        if (shape_has(&h, GB_BIAS + i)) shape_out_like(&h, 3 + i, GB_BIAS + i, s->in[GB_BIAS + i]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(gau_attention_bwd)

void gau_attention_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const struct gate_attr *a = &ATTR(c, gau_attention_bwd)->f;
    const tl_desc *q = &c->in[GB_Q].d;
    int64_t T = q->dim[1], B = q->dim[0] * gate_heads(q), rows = B * T;
    double s = (double)tl_desc_last(q), e = (double)tl_desc_last(&c->in[GB_V].d);
    double pairs = (double)B * gau_pairs(a, T, c->in[GB_K].d.dim[1]);
    cost_begin(c, cost);
    gau_cost_add(cost, pairs, gate_score_flops(tl_desc_last(q), cost_in(c, GB_BIAS)) + 2 * e + 1, 0);
    if (a->kind == GATE_SOFTMAX) gau_cost_add(cost, pairs, 3, 1);
    if (a->kind == GATE_L2) gau_cost_add(cost, pairs, 4, 1);
    if (a->kind == GATE_RELU2_SUM) gau_cost_add(cost, pairs, 4, 1);
    if (gate_normalised(a->kind)) {
        cost_add(cost, rows, 2 * e, 0);
    } else {
        gate_count v = gate_value_count(a->kind), d = gate_slope_count(a->kind);
        gau_cost_add(cost, pairs, v.flops + d.flops + 3, v.special + d.special);
    }
    if (cost_in(c, GB_THETA)) cost_add(cost, 1, (double)rows, 1);
    if (cost_out(c, 0)) gau_cost_add(cost, pairs, 2 * s, 0);
    if (cost_out(c, 1)) gau_cost_add(cost, pairs, 2 * s, 0);
    if (cost_out(c, 2)) gau_cost_add(cost, pairs, 2 * e, 0);
    if (cost_out(c, 3)) gau_cost_add(cost, pairs, 1, 0);
    if (cost_out(c, 3)) cost_add(cost, tl_desc_count(&c->out[3].d), 1, 0);
    if (cost_out(c, 4)) gau_cost_add(cost, pairs, 2, 0);
    if (cost_out(c, 5)) cost_add(cost, rows, 3, 1);
}

#else

enum { GAU_CHUNK = 64 }; /* columns summed at a time, so that a reference needs no memory */

static void gau_range(const gate_view *w, const tl_arg *span, int64_t b, int64_t i, int64_t *lo, int64_t *hi) {
    gate_run(w->doc, w->S, b / w->H, i, lo, hi);
    if (w->a->causal && *hi > i + 1) *hi = i + 1;
    if (!span->data) return;
    const int64_t at = ROW(span, b / w->H * w->T + i), first = GETI(span, at), end = GETI(span, at + 1);
    if (*hi > end) *hi = end < *lo ? *lo : end;
    if (*lo < first) *lo = first > *hi ? *hi : first;
}

static REAL gau_t(const gate_view *w, int64_t b, int64_t i, int64_t j, REAL factor) {
    return gate_score(w, ROW(w->q, gate_at(w, b, i)), ROW(w->k, gate_key_at(w, b, j)), j - i, factor);
}

/* Sum, factor and statistic of a normalised row; *top is taken off the exponents. */
static REAL gau_sum(const gate_view *w, const tl_arg *sink, int64_t b, int64_t i, int64_t lo, int64_t hi, REAL factor,
                    REAL *top) {
    REAL t = (REAL)0, sum = (REAL)0;
    *top = sink->data ? GET(sink, 0) : (REAL)-INFINITY;
    for (int64_t j = lo; j < hi; j++) {
        UNCOUNTED(t = gau_t(w, b, i, j, factor));
        if (t > *top) *top = t;
    }
    if (sink->data) sum = real_exp(GET(sink, 0) - *top);
    for (int64_t j = lo; j < hi; j++) {
        t = gau_t(w, b, i, j, factor);
        if (w->a->kind == GATE_RELU2_SUM) {
            sum = sum + gate_value(w->a, t);
        } else {
            REAL x = real_exp(t - *top);
            sum = w->a->kind == GATE_L2 ? sum + x * x : sum + x;
        }
    }
    return sum;
}

static void gau_row(const gate_view *w, const tl_op_call *c, int64_t b, int64_t i) {
    const bool normal = w->a->kind >= GATE_SOFTMAX, ratio = w->a->kind == GATE_RELU2_SUM;
    int64_t lo, hi, to = ROW(&c->out[0], gate_at(w, b, i));
    gau_range(w, &c->in[7], b, i, &lo, &hi);
    REAL factor = gate_factor(w, hi - lo), norm = (REAL)0, top = (REAL)0, p = (REAL)0;
    if (lo < hi && normal) {
        REAL sum = gau_sum(w, &c->in[6], b, i, lo, hi, factor, &top);
        REAL down = w->a->kind == GATE_L2 ? real_sqrt(sum) : sum;
        norm = (REAL)1 / down;
        if (ratio && sum == (REAL)0) norm = (REAL)0;
        if (WANTS(c, 1)) {
            REAL stat = ratio ? (sum == (REAL)0 ? (REAL)INFINITY : sum) : (REAL)0;
            if (w->a->kind == GATE_SOFTMAX) stat = top + real_log(sum);
            if (w->a->kind == GATE_L2) stat = top + (REAL)0.5 * real_log(sum);
            PUT(c, 1, ROW(&c->out[1], b) + i, stat);
        }
    } else if (lo < hi) {
        norm = gate_norm(w, hi - lo);
    } else if (WANTS(c, 1)) {
        PUT(c, 1, ROW(&c->out[1], b) + i, (REAL)INFINITY);
    }
    for (int64_t d0 = 0; d0 < w->e; d0 += GAU_CHUNK) {
        REAL out[GAU_CHUNK];
        int64_t width = w->e - d0 < GAU_CHUNK ? w->e - d0 : GAU_CHUNK;
        for (int64_t d = 0; d < width; d++) out[d] = (REAL)0;
        for (int64_t j = lo; j < hi; j++) {
            if (!normal && d0 == 0)
                p = gate_value(w->a, gau_t(w, b, i, j, factor));
            else if (!normal || ratio)
                UNCOUNTED(p = gate_value(w->a, gau_t(w, b, i, j, factor)));
            else
                UNCOUNTED(p = real_exp(gau_t(w, b, i, j, factor) - top));
            int64_t from = ROW(w->v, gate_key_at(w, b, j)) + d0;
            for (int64_t d = 0; d < width; d++) out[d] = out[d] + p * GET(w->v, from + d);
        }
        for (int64_t d = 0; d < width; d++) PUT(c, 0, to + d0 + d, lo < hi ? out[d] * norm : (REAL)0);
    }
}

void REF(gau_attention)(const tl_op_call *c) {
    gate_view w =
        gate_open(&ATTR(c, gau_attention)->f, &c->in[0], &c->in[1], &c->in[2], &c->in[3], &c->in[4], &c->in[5]);
    for (int64_t b = 0; b < w.B; b++)
        for (int64_t i = 0; i < w.T; i++) gau_row(&w, c, b, i);
}

/* ---- backward ------------------------------------------------------------------------------------------- */

typedef struct gau_back_row {
    int64_t lo, hi;
    REAL factor, norm, stat, delta;
} gau_back_row;
typedef struct gau_back_pair {
    REAL p, dp, dt, ds; /* weight; gradients of weight, T, q.k */
} gau_back_pair;

static gau_back_row gau_open_row(const gate_view *w, const tl_op_call *c, int64_t b, int64_t i) {
    gau_back_row r;
    gau_range(w, &c->in[10], b, i, &r.lo, &r.hi);
    r.factor = gate_factor(w, r.hi - r.lo);
    r.norm = r.stat = r.delta = (REAL)0;
    if (w->a->kind < GATE_SOFTMAX) {
        if (r.lo < r.hi) r.norm = gate_norm(w, r.hi - r.lo);
        return r;
    }
    const tl_arg *dy = &c->in[0], *o = &c->in[4], *stat = &c->in[5];
    r.stat = GET(stat, ROW(stat, b) + i);
    r.delta = gate_dot(dy, ROW(dy, gate_at(w, b, i)), o, ROW(o, gate_at(w, b, i)), w->e);
    return r;
}

static gau_back_pair gau_open_pair(const gate_view *w, const tl_op_call *c, const gau_back_row *r, int64_t b, int64_t i,
                                   int64_t j) {
    const tl_arg *dy = &c->in[0];
    gau_back_pair g;
    REAL t = gau_t(w, b, i, j, r->factor);
    g.dp = gate_dot(dy, ROW(dy, gate_at(w, b, i)), w->v, ROW(w->v, gate_key_at(w, b, j)), w->e);
    if (w->a->kind == GATE_SOFTMAX) {
        g.p = real_exp(t - r->stat);
        g.dt = g.p * (g.dp - r->delta);
    } else if (w->a->kind == GATE_L2) {
        g.p = real_exp(t - r->stat);
        g.dt = g.p * (g.dp - g.p * r->delta);
    } else if (w->a->kind == GATE_RELU2_SUM) {
        REAL x = t <= (REAL)0 ? (REAL)0 : t, part = x / r->stat;
        g.p = x * part;
        g.dt = (REAL)2 * part * (g.dp - r->delta);
    } else {
        g.p = gate_value(w->a, t) * r->norm;
        g.dt = gate_slope(w->a, t) * r->norm * g.dp;
    }
    g.ds = g.dt * r->factor;
    return g;
}

/* dq of all rows, and what is summed over pairs; here every pair's gradient is counted. */
static void gau_bwd_q(const gate_view *w, const tl_op_call *c) {
    REAL dtheta = (REAL)0, dsink = (REAL)0;
    for (int64_t b = 0; b < w->B; b++)
        for (int64_t i = 0; i < w->T; i++) {
            gau_back_row r = gau_open_row(w, c, b, i);
            gau_back_pair g;
            if (WANTS(c, 5) && r.lo < r.hi) dsink = dsink - real_exp(GET(&c->in[9], 0) - r.stat) * r.delta;
            for (int64_t d0 = 0; d0 < w->s; d0 += GAU_CHUNK) {
                REAL dq[GAU_CHUNK];
                int64_t width = w->s - d0 < GAU_CHUNK ? w->s - d0 : GAU_CHUNK;
                for (int64_t d = 0; d < width; d++) dq[d] = (REAL)0;
                for (int64_t j = r.lo; j < r.hi; j++) {
                    if (d0 == 0) {
                        g = gau_open_pair(w, c, &r, b, i, j);
                        if (WANTS(c, 4)) dtheta = dtheta - g.p * g.dp;
                    } else {
                        UNCOUNTED(g = gau_open_pair(w, c, &r, b, i, j));
                    }
                    int64_t from = ROW(w->k, gate_key_at(w, b, j)) + d0;
                    for (int64_t d = 0; d < width && WANTS(c, 0); d++) dq[d] = dq[d] + g.ds * GET(w->k, from + d);
                }
                for (int64_t d = 0; d < width && WANTS(c, 0); d++)
                    PUT(c, 0, ROW(&c->out[0], gate_at(w, b, i)) + d0 + d, dq[d]);
            }
        }
    PUT(c, 4, 0, dtheta);
    PUT(c, 5, 0, dsink);
}

/* dk (ds against q) or dv (p against do) of token j */
static void gau_bwd_token(const gate_view *w, const tl_op_call *c, int k, int64_t b, int64_t j) {
    const tl_arg *with = k == 1 ? w->q : &c->in[0];
    int64_t all = k == 1 ? w->s : w->e;
    for (int64_t d0 = 0; d0 < all; d0 += GAU_CHUNK) {
        REAL sum[GAU_CHUNK];
        int64_t width = all - d0 < GAU_CHUNK ? all - d0 : GAU_CHUNK;
        for (int64_t d = 0; d < width; d++) sum[d] = (REAL)0;
        for (int64_t i = 0; i < w->T; i++) {
            gau_back_row r;
            gau_back_pair g;
            UNCOUNTED(r = gau_open_row(w, c, b, i));
            if (j < r.lo || j >= r.hi) continue;
            UNCOUNTED(g = gau_open_pair(w, c, &r, b, i, j));
            REAL by = k == 1 ? g.ds : g.p;
            int64_t from = ROW(with, gate_at(w, b, i)) + d0;
            for (int64_t d = 0; d < width; d++) sum[d] = sum[d] + by * GET(with, from + d);
        }
        for (int64_t d = 0; d < width; d++) PUT(c, k, ROW(&c->out[k], gate_key_at(w, b, j)) + d0 + d, sum[d]);
    }
}

/* Number n of the table: all pairs at that distance. */
static void gau_bwd_bias(const gate_view *w, const tl_op_call *c, int64_t n) {
    REAL sum = (REAL)0;
    for (int64_t b = 0; b < w->B; b++)
        for (int64_t i = 0; i < w->T; i++) {
            int64_t j = i + n - w->centre;
            if (j < 0 || j >= w->S) continue;
            gau_back_row r;
            gau_back_pair g;
            UNCOUNTED(r = gau_open_row(w, c, b, i));
            if (j < r.lo || j >= r.hi) continue;
            UNCOUNTED(g = gau_open_pair(w, c, &r, b, i, j));
            sum = sum + g.dt;
        }
    PUT(c, 3, n, w->bias_scale * sum);
}

void REF(gau_attention_bwd)(const tl_op_call *c) {
    gate_view w =
        gate_open(&ATTR(c, gau_attention_bwd)->f, &c->in[1], &c->in[2], &c->in[3], &c->in[6], &c->in[7], &c->in[8]);
    gau_bwd_q(&w, c);
    for (int k = 1; k <= 2; k++)
        for (int64_t b = 0; b < w.B && WANTS(c, k); b++)
            for (int64_t j = 0; j < w.S; j++) gau_bwd_token(&w, c, k, b, j);
    for (int64_t n = 0; WANTS(c, 3) && n < w.bias->d.dim[0]; n++) gau_bwd_bias(&w, c, n);
}

#endif
