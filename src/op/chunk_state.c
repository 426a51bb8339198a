/* chunk_state and its backward and decoding forms: attention whose memory is one matrix, S_t = a_t S_{t-1} + k_t^T v_t,
 * o_t = scale q_t S_t. Without a decay: linear attention; a number per head: RetNet, Lightning attention; a number per
 * token: simple GLA, Mamba-2; a vector per token: GLA. Kernels work by chunks, the references token by token. */
#include "op/gate_kinds.h"
#ifndef REAL

enum { CT_Q, CT_K, CT_V, CT_G, CT_DOC, CT_FROM };
enum { CB_DO, CB_DSTATE, CB_Q, CB_G = 5, CB_DOC, CB_FROM };
enum { STATE_HEAD = 1024, STATE_WIDE = 4096 };

static int64_t state_columns(const struct chunk_state_attr *a, const tl_desc *v) {
    return tl_desc_last(v) + (a->ones ? 1 : 0);
}

/* (H), or a number or s numbers for every row of heads. */
static tl_status state_check_decay(const shape_rule *h, int i, int q) {
    const tl_desc *d = h->s->in[q];
    const int rows = d->ndim - 1;
    if (!shape_has(h, i)) return TL_OK;
    TRY(shape_sum(h, i, q));
    const tl_desc *g = h->s->in[i];
    if (g->ndim == 1) return shape_dim(h, i, 0, d->dim[rows - 1], "heads of q");
    if (g->ndim != rows) TRY(shape_ndim(h, i, d->ndim));
    for (int k = 0; k < g->ndim; k++) TRY(shape_dim(h, i, k, d->dim[k], "of q"));
    return TL_OK;
}

static tl_status state_check(const shape_rule *h, int q, int ndim, const struct chunk_state_attr *a) {
    TRY(shape_float(h, q));
    TRY(shape_ndim(h, q, ndim));
    const int64_t s = tl_desc_last(h->s->in[q]);
    TRY(gate_check_rows(h, q + 1, q, s));
    TRY(gate_check_rows(h, q + 2, q, -1));
    const int64_t e = tl_desc_last(h->s->in[q + 2]);
    if (s < 1 || s > STATE_HEAD || e < 1 || e > STATE_WIDE)
        return shape_refuse(h, q, TL_SHAPE, "heads are 1 to %d wide, values 1 to %d", STATE_HEAD, STATE_WIDE);
    if (a->scale - a->scale != 0 || !(a->tau >= 0))
        return shape_bad_attr(h, "scale %g, tau %g", (double)a->scale, (double)a->tau);
    TRY(state_check_decay(h, q + 3, q));
    if (!a->causal && shape_has(h, q + 3))
        return shape_refuse(h, q + 3, TL_ARG, "what sees both sides has no order to decay in");
    return TL_OK;
}

static tl_desc state_of(const tl_desc *q, int64_t e) {
    const int64_t dim[] = {q->dim[0], q->dim[2], q->dim[3], e};
    return tl_desc_make(tensor_sum_dtype(q->dtype), 4, dim);
}
static tl_status state_check_carried(const shape_rule *h, int i, int q, int64_t e, bool causal) {
    if (!shape_has(h, i)) return TL_OK;
    if (!causal) return shape_refuse(h, i, TL_ARG, "only what is causal can carry a state");
    const tl_desc d = state_of(h->s->in[q], e);
    TRY(shape_sum(h, i, q));
    TRY(shape_ndim(h, i, 4));
    for (int k = 0; k < 4; k++) TRY(shape_dim(h, i, k, d.dim[k], "of the state"));
    return TL_OK;
}

tl_status chunk_state_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_state", "q", "k", "v", "g", "doc", "from");
    const struct chunk_state_attr *a = s->attr;
    TRY(state_check(&h, CT_Q, 4, a));
    const int64_t e = state_columns(a, s->in[CT_V]);
    TRY(gate_check_doc(&h, CT_DOC, CT_Q));
    TRY(state_check_carried(&h, CT_FROM, CT_Q, e, a->causal));
    shape_out_last(&h, 0, CT_V, e, s->in[0]->dtype);
    if (a->causal) s->out[1] = state_of(s->in[0], e);
    return TL_OK;
}

void chunk_state_grad(tl_grad *g) {
    struct chunk_state_bwd_attr a = {*(const struct chunk_state_attr *)tl_grad_attr(g)};
    tl_tensor *dy = tl_grad_dy(g, 0);
    if (!dy) { /* only the state reaches the loss */
        struct scale_attr none = {0};
        tl_tensor *o = tl_grad_out(g, 0);
        dy = tl_grad_temp(g, OP_DEF(scale), &none, &o, 1);
    }
    tl_tensor *in[8] = {dy, tl_grad_dy(g, 1)};
    for (int i = 0; i < 6; i++) in[2 + i] = tl_grad_in(g, i);
    int to[] = {grad_to(g, CT_Q), grad_to(g, CT_K), grad_to(g, CT_V), grad_to(g, CT_G), grad_to(g, CT_FROM)};
    tl_grad_emit(g, OP_DEF(chunk_state_bwd), &a, in, 8, to, 5);
}

/* Decays of one pass over the tokens: exponentials, and logsigmoids before them. */
static void state_cost_decay(tl_cost *cost, const struct chunk_state_attr *a, const tl_desc *q, const tl_desc *g) {
    if (g->dtype == TL_NONE) return;
    double n = (double)tl_desc_rows(q) * (g->ndim == q->ndim ? (double)tl_desc_last(q) : 1);
    cost->flops += a->tau > 0 ? 2 * n : 0;
    cost->special += a->tau > 0 ? 4 * n : n;
}

void chunk_state_cost(const tl_op_call *c, tl_cost *cost) {
    const struct chunk_state_attr *a = ATTR(c, chunk_state);
    const tl_desc *q = &c->in[CT_Q].d, *g = &c->in[CT_G].d;
    double rows = (double)tl_desc_rows(q), s = (double)tl_desc_last(q), e = (double)state_columns(a, &c->in[CT_V].d);
    cost_begin(c, cost);
    cost->flops += rows * e * (s * (cost_in(c, CT_G) ? 5 : 4) + 1);
    state_cost_decay(cost, a, q, g);
}

tl_status chunk_state_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_state_bwd", "do", "dstate", "q", "k", "v", "g", "doc", "from");
    const struct chunk_state_attr *a = &((const struct chunk_state_bwd_attr *)s->attr)->f;
    TRY(state_check(&h, CB_Q, 4, a));
    const int64_t e = state_columns(a, s->in[CB_Q + 2]);
    TRY(gate_check_doc(&h, CB_DOC, CB_Q));
    TRY(gate_check_rows(&h, CB_DO, CB_Q, e));
    TRY(state_check_carried(&h, CB_DSTATE, CB_Q, e, a->causal));
    TRY(state_check_carried(&h, CB_FROM, CB_Q, e, a->causal));
    for (int i = 0; i < 3; i++) shape_out_like(&h, i, CB_Q + i, s->in[CB_Q]->dtype);
    if (shape_has(&h, CB_G)) shape_out_like(&h, 3, CB_G, s->in[CB_G]->dtype);
    if (shape_has(&h, CB_FROM)) shape_out_like(&h, 4, CB_FROM, s->in[CB_FROM]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(chunk_state_bwd)

/* Both walks are needed whatever is wanted: S forward, its adjoint in reverse. */
void chunk_state_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const struct chunk_state_attr *a = &ATTR(c, chunk_state_bwd)->f;
    const tl_desc *q = &c->in[CB_Q].d, *g = &c->in[CB_G].d;
    const bool decay = cost_in(c, CB_G);
    double rows = (double)tl_desc_rows(q), s = (double)tl_desc_last(q),
           e = (double)state_columns(a, &c->in[CB_Q + 2].d);
    cost_begin(c, cost);
    cost->flops += rows * s * (e * (decay ? 10 : 8) + 2);
    state_cost_decay(cost, a, q, g);
    state_cost_decay(cost, a, q, g);
    if (cost_out(c, 2)) cost->flops += rows * 2 * s * (double)tl_desc_last(&c->in[CB_Q + 2].d);
    if (cost_out(c, 3)) {
        double n = rows * (g->ndim == q->ndim ? s : 1);
        cost->flops += rows * s * (2 * e + (g->ndim == q->ndim ? 1 : 2)) + (a->tau > 0 ? 3 * n : 0);
        cost->special += a->tau > 0 ? 3 * n : 0;
    }
    if (cost_out(c, 4)) cost->flops += decay ? (double)tl_desc_count(&c->out[4].d) : 0;
}

tl_status chunk_state_step_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_state_step", "q", "k", "v", "g", "slot", "pos");
    const struct chunk_state_attr *a = &((const struct chunk_state_step_attr *)s->attr)->f;
    TRY(state_check(&h, CT_Q, 3, a));
    const tl_desc *q = s->in[0], *S = &s->out[1];
    for (int i = 4; i <= 5; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, q->dim[0], "rows of q"));
    }
    if (!a->causal) return shape_bad_attr(&h, "only what is causal can be decoded");
    const int64_t e = state_columns(a, s->in[CT_V]);
    if (S->dtype != tensor_sum_dtype(q->dtype) || S->ndim != 4 || S->dim[1] != q->dim[1] || S->dim[2] != q->dim[2] ||
        S->dim[3] != e)
        return shape_bad_attr(&h, "S (slots,H,s,%lld) must be bound through acc", (long long)e);
    shape_out_last(&h, 0, CT_V, e, q->dtype);
    return TL_OK;
}

NO_GRAD(chunk_state_step, "a state is for decoding; train with chunk_state")

/* Positions are data: counted as if every row were busy and none the first of its slot. */
void chunk_state_step_cost(const tl_op_call *c, tl_cost *cost) {
    const struct chunk_state_attr *a = &ATTR(c, chunk_state_step)->f;
    const tl_desc *q = &c->in[CT_Q].d, *g = &c->in[CT_G].d, *S = &c->out[1].d;
    double rows = (double)tl_desc_rows(q), s = (double)tl_desc_last(q), e = (double)tl_desc_last(S);
    double used = (double)(S->dim[0] < q->dim[0] ? S->dim[0] : q->dim[0]) / (double)S->dim[0];
    *cost = (tl_cost){0};
    for (int i = 0; i < 6; i++) cost->bytes_read += cost_bytes(&c->in[i].d);
    cost->bytes_written = cost_bytes(&c->out[0].d) + used * cost_bytes(S);
    cost->bytes_read += used * cost_bytes(S);
    cost->flops += rows * e * (s * (cost_in(c, CT_G) ? 5 : 4) + 1);
    state_cost_decay(cost, a, q, g);
}

#else

enum { STATE_PART = 8, STATE_S = 1024, STATE_E = 4097 };

typedef struct state_view {
    const struct chunk_state_attr *a;
    const tl_arg *q, *k, *v, *g, *doc, *from;
    int64_t B, T, H, s, e, columns; /* B: sequences times heads; columns: e and perhaps one of ones */
    REAL scale;
} state_view;

static state_view state_open(const struct chunk_state_attr *a, const tl_arg *in) {
    state_view w;
    w.a = a;
    w.q = &in[0], w.k = &in[1], w.v = &in[2], w.g = &in[3], w.doc = &in[4], w.from = &in[5];
    w.H = w.q->d.dim[w.q->d.ndim - 2];
    w.B = w.q->d.dim[0] * w.H, w.T = w.q->d.dim[1];
    w.s = tl_desc_last(&w.q->d), w.e = tl_desc_last(&w.v->d), w.columns = w.e + (a->ones ? 1 : 0);
    w.scale = a->scale != 0 ? (REAL)a->scale : (REAL)1;
    return w;
}

static int64_t state_row(const state_view *w, int64_t b, int64_t t) {
    return (b / w->H * w->T + t) * w->H + b % w->H;
}
static REAL state_v(const state_view *w, int64_t row, int64_t d) {
    return d < w->e ? GET(w->v, ROW(w->v, row) + d) : (REAL)1;
}

/* What log a is made of, for a row of heads and number k. */
static REAL state_logit(const state_view *w, int64_t row, int64_t k) {
    if (w->g->d.ndim == 1) return GET(w->g, row % w->H);
    if (w->g->d.ndim == w->q->d.ndim) return GET(w->g, ROW(w->g, row) + k);
    return GET(w->g, ROW(w->g, row / w->H) + row % w->H);
}
static REAL state_decay(const state_view *w, int64_t row, int64_t k) {
    REAL x = state_logit(w, row, k);
    if (w->a->tau > 0) { /* log sigmoid(x) / tau */
        REAL low = x < (REAL)0 ? x : (REAL)0;
        x = (low - real_log((REAL)1 + real_exp(-real_abs(x)))) / (REAL)w->a->tau;
    }
    return real_exp(x);
}

/* The decay of token t and number k, counted once: with the first columns, a number of a head with its first k. */
static REAL state_decay_once(const state_view *w, int64_t row, int64_t k, bool tally) {
    REAL a = (REAL)1;
    if (!w->g->data) return a;
    if (tally && (k == 0 || w->g->d.ndim == w->q->d.ndim))
        a = state_decay(w, row, k);
    else
        UNCOUNTED(a = state_decay(w, row, k));
    return a;
}

/* Is t the first of its documents' run? hidden: padding. */
static bool state_first(const state_view *w, int64_t b, int64_t t, bool *hidden) {
    int64_t first, end;
    gate_run(w->doc, w->T, b / w->H, t, &first, &end);
    *hidden = first == end;
    return t == first;
}

/* Number k, columns [d0, d0 + n) of S before the run of token t, and what token t makes of it. */
static void state_begin(const state_view *w, int64_t b, int64_t k, int64_t d0, int64_t n, bool carried, REAL *S) {
    for (int64_t d = 0; d < n; d++) S[d] = carried ? GET(w->from, ROW(w->from, b * w->s + k) + d0 + d) : (REAL)0;
}
static void state_add(const state_view *w, int64_t row, int64_t k, int64_t d0, int64_t n, bool tally, REAL *S) {
    REAL a = state_decay_once(w, row, k, tally && d0 == 0), x = GET(w->k, ROW(w->k, row) + k);
    for (int64_t d = 0; d < n; d++) {
        if (w->g->data) S[d] = a * S[d];
        S[d] = S[d] + x * state_v(w, row, d0 + d);
    }
}

/* ---- forward ---- */

static void state_columns_of(const state_view *w, const tl_op_call *c, int64_t b, int64_t d0, int64_t n) {
    REAL S[STATE_S][STATE_PART];
    bool hidden = false;
    for (int64_t k = 0; k < w->s; k++) state_begin(w, b, k, d0, n, w->from->data != NULL, S[k]);
    for (int64_t t = 0; t < w->T; t++) {
        const int64_t row = state_row(w, b, t), to = ROW(&c->out[0], row) + d0;
        const bool first = state_first(w, b, t, &hidden);
        if (hidden) {
            for (int64_t d = 0; d < n; d++) PUT(c, 0, to + d, (REAL)0);
            continue;
        }
        if (first) {
            int64_t begin, end;
            for (int64_t k = 0; k < w->s; k++) state_begin(w, b, k, d0, n, t == 0 && w->from->data, S[k]);
            gate_run(w->doc, w->T, b / w->H, t, &begin, &end);
            for (int64_t j = begin; j < end && !w->a->causal; j++)
                for (int64_t k = 0; k < w->s; k++) state_add(w, state_row(w, b, j), k, d0, n, true, S[k]);
        }
        for (int64_t k = 0; k < w->s && w->a->causal; k++) state_add(w, row, k, d0, n, true, S[k]);
        for (int64_t d = 0; d < n; d++) {
            REAL sum = (REAL)0;
            for (int64_t k = 0; k < w->s; k++) sum = sum + GET(w->q, ROW(w->q, row) + k) * S[k][d];
            PUT(c, 0, to + d, sum * w->scale);
        }
    }
    for (int64_t k = 0; k < w->s && WANTS(c, 1); k++)
        for (int64_t d = 0; d < n; d++) PUT(c, 1, ROW(&c->out[1], b * w->s + k) + d0 + d, S[k][d]);
}

void REF(chunk_state)(const tl_op_call *c) {
    state_view w = state_open(ATTR(c, chunk_state), &c->in[0]);
    for (int64_t b = 0; b < w.B; b++)
        for (int64_t d0 = 0; d0 < w.columns; d0 += STATE_PART)
            state_columns_of(&w, c, b, d0, w.columns - d0 < STATE_PART ? w.columns - d0 : STATE_PART);
}

/* ---- backward ---- */

/* Row k of S behind token t (-1: before the first). */
static void state_until(const state_view *w, int64_t b, int64_t k, int64_t t, bool tally, REAL *S) {
    int64_t begin = 0, end = w->T;
    if (t >= 0) gate_run(w->doc, w->T, b / w->H, t, &begin, &end);
    state_begin(w, b, k, 0, w->columns, begin == 0 && w->from->data, S);
    for (int64_t j = begin; j <= t; j++) state_add(w, state_row(w, b, j), k, 0, w->columns, tally, S);
}

/* dq of number k: S walked forward. */
static void state_bwd_q(const state_view *w, const tl_op_call *c, int64_t b, int64_t k) {
    REAL S[STATE_E];
    bool hidden = false;
    for (int64_t t = 0; t < w->T; t++) {
        const int64_t row = state_row(w, b, t);
        const bool first = state_first(w, b, t, &hidden);
        REAL sum = (REAL)0;
        if (!hidden && first) {
            int64_t begin, end;
            gate_run(w->doc, w->T, b / w->H, t, &begin, &end);
            if (w->a->causal)
                state_begin(w, b, k, 0, w->columns, t == 0 && w->from->data, S);
            else
                state_begin(w, b, k, 0, w->columns, false, S);
            for (int64_t j = begin; j < end && !w->a->causal; j++)
                state_add(w, state_row(w, b, j), k, 0, w->columns, true, S);
        }
        if (!hidden && w->a->causal) state_add(w, row, k, 0, w->columns, true, S);
        for (int64_t d = 0; d < w->columns && !hidden; d++) sum = sum + GET(&c->in[0], ROW(&c->in[0], row) + d) * S[d];
        if (!hidden) sum = sum * w->scale;
        PUT(c, 0, ROW(&c->out[0], row) + k, sum);
    }
}

/* The last token that is not padding, -1: there is none. */
static int64_t state_last(const state_view *w, int64_t b) {
    bool hidden = true;
    for (int64_t t = w->T; t-- > 0;) {
        state_first(w, b, t, &hidden);
        if (!hidden) return t;
    }
    return -1;
}

/* Row k of R at token t of its run: the gradient of S behind it; every token from the run's end to t. */
static void state_behind(const state_view *w, const tl_op_call *c, int64_t b, int64_t k, int64_t t, REAL *R) {
    const tl_arg *dy = &c->in[0], *ds = &c->in[1];
    int64_t begin, end;
    gate_run(w->doc, w->T, b / w->H, t, &begin, &end);
    const bool last = ds->data && state_last(w, b) == end - 1;
    for (int64_t d = 0; d < w->columns; d++) R[d] = last ? GET(ds, ROW(ds, b * w->s + k) + d) : (REAL)0;
    for (int64_t i = end - 1; i >= t; i--) {
        const int64_t row = state_row(w, b, i);
        if (w->g->data && i < end - 1) {
            REAL a = state_decay(w, state_row(w, b, i + 1), k);
            for (int64_t d = 0; d < w->columns; d++) R[d] = a * R[d];
        }
        REAL x = GET(w->q, ROW(w->q, row) + k) * w->scale;
        for (int64_t d = 0; d < w->columns; d++) R[d] = R[d] + x * GET(dy, ROW(dy, row) + d);
    }
}

/* One token more: the same, counted; token t + 1's decay, or t's own at the run's end, where it would come later. */
static void state_behind_step(const state_view *w, const tl_op_call *c, int64_t b, int64_t k, int64_t t, int64_t end,
                              REAL *R) {
    const tl_arg *dy = &c->in[0], *ds = &c->in[1];
    const int64_t row = state_row(w, b, t);
    const bool last = t == end - 1;
    REAL a = state_decay_once(w, last ? row : state_row(w, b, t + 1), k, true);
    REAL x = GET(w->q, ROW(w->q, row) + k) * w->scale;
    const bool from = last && ds->data && state_last(w, b) == t;
    for (int64_t d = 0; d < w->columns; d++) {
        REAL r = last ? (REAL)0 : R[d];
        if (w->g->data) r = a * r;
        if (last) r = from ? GET(ds, ROW(ds, b * w->s + k) + d) : (REAL)0;
        R[d] = r + x * GET(dy, ROW(dy, row) + d);
    }
}

/* dk of number k, and of the state that came in: R in reverse. */
static void state_bwd_k(const state_view *w, const tl_op_call *c, int64_t b, int64_t k) {
    REAL R[STATE_E];
    int64_t begin = 0, end = 0;
    for (int64_t t = w->T; t-- > 0;) {
        const int64_t row = state_row(w, b, t);
        REAL sum = (REAL)0;
        gate_run(w->doc, w->T, b / w->H, t, &begin, &end);
        if (begin < end && (w->a->causal || t == end - 1))
            for (int64_t j = t; j >= (w->a->causal ? t : begin); j--) state_behind_step(w, c, b, k, j, end, R);
        for (int64_t d = 0; d < w->columns && begin < end; d++) sum = sum + state_v(w, row, d) * R[d];
        PUT(c, 1, ROW(&c->out[1], row) + k, sum);
    }
    if (!WANTS(c, 4)) return;
    const tl_arg *ds = &c->in[1];
    REAL a = (REAL)1;
    const bool through = state_last(w, b) < 0; /* nothing but padding: the state went through */
    if (w->g->data) UNCOUNTED(a = state_decay(w, state_row(w, b, 0), k));
    for (int64_t d = 0; d < w->columns; d++) {
        REAL r = (REAL)0;
        if (begin < end) r = w->g->data ? a * R[d] : R[d];
        if (through && ds->data) r = GET(ds, ROW(ds, b * w->s + k) + d);
        PUT(c, 4, ROW(&c->out[4], b * w->s + k) + d, r);
    }
}

static void state_bwd_v(const state_view *w, const tl_op_call *c, int64_t b, int64_t t) {
    REAL R[STATE_E];
    const int64_t row = state_row(w, b, t), to = ROW(&c->out[2], row);
    int64_t begin, end;
    gate_run(w->doc, w->T, b / w->H, t, &begin, &end);
    for (int64_t d0 = 0; d0 < w->e; d0 += STATE_PART) {
        REAL sum[STATE_PART];
        const int64_t n = w->e - d0 < STATE_PART ? w->e - d0 : STATE_PART;
        for (int64_t d = 0; d < n; d++) sum[d] = (REAL)0;
        for (int64_t k = 0; k < w->s && begin < end; k++) {
            UNCOUNTED(state_behind(w, c, b, k, w->a->causal ? t : begin, R));
            for (int64_t d = 0; d < n; d++) sum[d] = sum[d] + GET(w->k, ROW(w->k, row) + k) * R[d0 + d];
        }
        for (int64_t d = 0; d < n; d++) PUT(c, 2, to + d0 + d, sum[d]);
    }
}

/* d loss / d log a of token t and number k: a <R_t, S_{t-1}>. */
static REAL state_slope(const state_view *w, const tl_op_call *c, int64_t b, int64_t t, int64_t k) {
    REAL R[STATE_E], S[STATE_E], a = (REAL)0, sum = (REAL)0;
    int64_t begin, end;
    gate_run(w->doc, w->T, b / w->H, t, &begin, &end);
    if (begin == end) return (REAL)0;
    UNCOUNTED(state_behind(w, c, b, k, t, R));
    if (t > begin)
        UNCOUNTED(state_until(w, b, k, t - 1, false, S));
    else
        state_begin(w, b, k, 0, w->columns, t == 0 && w->from->data, S);
    UNCOUNTED(a = state_decay(w, state_row(w, b, t), k));
    for (int64_t d = 0; d < w->columns; d++) sum = sum + R[d] * S[d];
    return a * sum;
}

/* To what log a was made of. */
static REAL state_chain(const state_view *w, int64_t row, int64_t k, REAL x) {
    if (!(w->a->tau > 0)) return x;
    REAL z = (REAL)1 / ((REAL)1 + real_exp(-state_logit(w, row, k)));
    return x * (((REAL)1 - z) / (REAL)w->a->tau);
}

static void state_bwd_g(const state_view *w, const tl_op_call *c) {
    const bool wide = w->g->d.ndim == w->q->d.ndim, head = w->g->d.ndim == 1;
    for (int64_t h = 0; h < w->H; h++) {
        REAL all = (REAL)0;
        for (int64_t b = h; b < w->B; b += w->H)
            for (int64_t t = 0; t < w->T; t++) {
                const int64_t row = state_row(w, b, t);
                REAL sum = (REAL)0;
                for (int64_t k = 0; k < w->s; k++) {
                    REAL x = state_slope(w, c, b, t, k);
                    if (wide)
                        PUT(c, 3, ROW(&c->out[3], row) + k, state_chain(w, row, k, x));
                    else
                        sum = sum + x;
                }
                if (wide) continue;
                sum = state_chain(w, row, 0, sum);
                if (head) UNCOUNTED(all = all + sum);
                if (!head) PUT(c, 3, ROW(&c->out[3], row / w->H) + h, sum);
            }
        if (head) PUT(c, 3, h, all);
    }
}

void REF(chunk_state_bwd)(const tl_op_call *c) {
    state_view w = state_open(&ATTR(c, chunk_state_bwd)->f, &c->in[2]);
    for (int64_t b = 0; b < w.B; b++)
        for (int64_t k = 0; k < w.s; k++) {
            state_bwd_q(&w, c, b, k);
            state_bwd_k(&w, c, b, k);
        }
    for (int64_t b = 0; b < w.B && WANTS(c, 2); b++)
        for (int64_t t = 0; t < w.T; t++) state_bwd_v(&w, c, b, t);
    if (WANTS(c, 3)) state_bwd_g(&w, c);
}

/* ---- decoding ---- */

void REF(chunk_state_step)(const tl_op_call *c) {
    const tl_arg none = c->in[TL_OP_INS - 1], *slot = &c->in[4], *pos = &c->in[5], *S = &c->out[1];
    state_view w = state_open(&ATTR(c, chunk_state_step)->f, &c->in[0]);
    w.doc = w.from = &none;
    for (int64_t row = 0; row < w.q->d.dim[0] * w.H; row++) {
        const int64_t q = GETI(slot, row / w.H), p = GETI(pos, row / w.H), h = row % w.H;
        const bool busy = q >= 0 && q < S->d.dim[0] && p >= 0;
        for (int64_t d0 = 0; d0 < w.columns; d0 += STATE_PART) {
            REAL out[STATE_PART];
            const int64_t n = w.columns - d0 < STATE_PART ? w.columns - d0 : STATE_PART;
            for (int64_t d = 0; d < n; d++) out[d] = (REAL)0;
            for (int64_t k = 0; k < w.s && busy; k++) {
                REAL x[STATE_PART];
                const int64_t at = ROW(S, (q * w.H + h) * w.s + k) + d0;
                for (int64_t d = 0; d < n; d++) x[d] = p > 0 ? GET(S, at + d) : (REAL)0;
                state_add(&w, row, k, d0, n, true, x);
                for (int64_t d = 0; d < n; d++) {
                    STORE(S, at + d, x[d]);
                    out[d] = out[d] + GET(w.q, ROW(w.q, row) + k) * x[d];
                }
            }
            for (int64_t d = 0; d < n; d++) PUT(c, 0, ROW(&c->out[0], row) + d0 + d, out[d] * w.scale);
        }
    }
}

#endif
