/* delta_rule and its backward and decoding forms (Schlag et al. 2021; Yang et al. 2024, with a decay 2025): a state of
 * one matrix that corrects what it says of a key instead of adding to it,
 *     S_t = a_t (I - b_t k_t^T k_t) S_{t-1} + b_t k_t^T v_t = A + k_t^T u_t,  A = a_t S_{t-1},  u_t = b_t (v_t - k_t
 * A), o_t = scale q_t S_t. Kernels work by chunks, the references token by token and column by column: columns of S do
 * not know of each other. */
#include "op/gate_kinds.h"
#ifndef REAL

enum { DR_Q, DR_K, DR_V, DR_G, DR_DOC, DR_FROM, DR_BETA };
enum { DB_DO, DB_DSTATE, DB_Q };
enum { DELTA_HEAD = 1024, DELTA_WIDE = 4096 };

/* q, k, v at q; decays and betas, a number for every row of heads, at g and beta. */
static tl_status delta_check(const shape_rule *h, int q, int ndim, int g, int beta, float scale, float tau) {
    TRY(shape_float(h, q));
    TRY(shape_ndim(h, q, ndim));
    const tl_desc *d = h->s->in[q];
    const int64_t s = tl_desc_last(d);
    TRY(gate_check_rows(h, q + 1, q, s));
    TRY(gate_check_rows(h, q + 2, q, -1));
    const int64_t e = tl_desc_last(h->s->in[q + 2]);
    if (s < 1 || s > DELTA_HEAD || e < 1 || e > DELTA_WIDE)
        return shape_refuse(h, q, TL_SHAPE, "heads are 1 to %d wide, values 1 to %d", DELTA_HEAD, DELTA_WIDE);
    if (scale - scale != 0 || !(tau >= 0)) return shape_bad_attr(h, "scale %g, tau %g", (double)scale, (double)tau);
    const int each[] = {beta, g};
    for (int i = 0; i < 2; i++) {
        if (each[i] == g && !shape_has(h, g)) continue;
        TRY(shape_sum(h, each[i], q));
        TRY(shape_ndim(h, each[i], ndim - 1));
        for (int k = 0; k < ndim - 1; k++) TRY(shape_dim(h, each[i], k, d->dim[k], "of q"));
    }
    return TL_OK;
}

static tl_desc delta_state(const tl_desc *q, const tl_desc *v) {
    const int64_t dim[] = {q->dim[0], q->dim[2], q->dim[3], tl_desc_last(v)};
    return tl_desc_make(tensor_sum_dtype(q->dtype), 4, dim);
}
static tl_status delta_check_carried(const shape_rule *h, int i, int q) {
    if (!shape_has(h, i)) return TL_OK;
    const tl_desc d = delta_state(h->s->in[q], h->s->in[q + 2]);
    TRY(shape_sum(h, i, q));
    TRY(shape_ndim(h, i, 4));
    for (int k = 0; k < 4; k++) TRY(shape_dim(h, i, k, d.dim[k], "of the state"));
    return TL_OK;
}

tl_status delta_rule_shape(tl_op_infer *s) {
    SHAPE(h, s, "delta_rule", "q", "k", "v", "g", "doc", "from", "beta");
    const struct delta_rule_attr *a = s->attr;
    TRY(delta_check(&h, DR_Q, 4, DR_G, DR_BETA, a->scale, a->tau));
    TRY(gate_check_doc(&h, DR_DOC, DR_Q));
    TRY(delta_check_carried(&h, DR_FROM, DR_Q));
    shape_out_like(&h, 0, DR_V, s->in[0]->dtype);
    s->out[1] = delta_state(s->in[DR_Q], s->in[DR_V]);
    return TL_OK;
}

void delta_rule_grad(tl_grad *g) {
    struct delta_rule_bwd_attr a = {*(const struct delta_rule_attr *)tl_grad_attr(g)};
    tl_tensor *dy = tl_grad_dy(g, 0);
    if (!dy) { /* only the state reaches the loss */
        struct scale_attr none = {0};
        tl_tensor *o = tl_grad_out(g, 0);
        dy = tl_grad_temp(g, OP_DEF(scale), &none, &o, 1);
    }
    tl_tensor *in[9] = {dy, tl_grad_dy(g, 1)};
    for (int i = 0; i < 7; i++) in[DB_Q + i] = tl_grad_in(g, i);
    int to[] = {grad_to(g, DR_Q), grad_to(g, DR_K),    grad_to(g, DR_V),
                grad_to(g, DR_G), grad_to(g, DR_FROM), grad_to(g, DR_BETA)};
    tl_grad_emit(g, OP_DEF(delta_rule_bwd), &a, in, 9, to, 6);
}

static void delta_cost_decay(tl_cost *cost, float tau, const tl_desc *g) {
    const int64_t n = g->dtype == TL_NONE ? 0 : tl_desc_count(g);
    cost_add(cost, n, tau > 0 ? 2 : 0, tau > 0 ? 4 : 1);
}

/* Of a row of q and a column of v. */
static double delta_flops(const tl_op_call *c) {
    return (double)tl_desc_last(&c->in[DR_Q].d) * (cost_in(c, DR_G) ? 7 : 6) + 3;
}

void delta_rule_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[DR_V].d), delta_flops(c), 0);
    delta_cost_decay(cost, ATTR(c, delta_rule)->tau, &c->in[DR_G].d);
}

tl_status delta_rule_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "delta_rule_bwd", "do", "dstate", "q", "k", "v", "g", "doc", "from", "beta");
    const struct delta_rule_attr *a = &((const struct delta_rule_bwd_attr *)s->attr)->f;
    TRY(delta_check(&h, DB_Q, 4, DB_Q + DR_G, DB_Q + DR_BETA, a->scale, a->tau));
    TRY(gate_check_doc(&h, DB_Q + DR_DOC, DB_Q));
    TRY(gate_check_rows(&h, DB_DO, DB_Q, tl_desc_last(s->in[DB_Q + DR_V])));
    TRY(delta_check_carried(&h, DB_DSTATE, DB_Q));
    TRY(delta_check_carried(&h, DB_Q + DR_FROM, DB_Q));
    const int like[] = {DR_Q, DR_K, DR_V, DR_G, DR_FROM, DR_BETA};
    for (int k = 0; k < 6; k++)
        if (shape_has(&h, DB_Q + like[k])) shape_out_like(&h, k, DB_Q + like[k], s->in[DB_Q + like[k]]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(delta_rule_bwd)

/* Both walks are needed whatever is wanted: S forward, its adjoint in reverse. */
void delta_rule_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const tl_desc *q = &c->in[DB_Q].d, *v = &c->in[DB_Q + DR_V].d, *g = &c->in[DB_Q + DR_G].d;
    const float tau = ATTR(c, delta_rule_bwd)->f.tau;
    const int per = 16 + (g->dtype == TL_NONE ? 0 : 2) + (cost_out(c, 3) ? 2 : 0);
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(v), (double)tl_desc_last(q) * per + 6, 0);
    delta_cost_decay(cost, tau, g);
    if (cost_out(c, 3) && tau > 0) cost_add(cost, tl_desc_count(g), 3, 3);
}

tl_status delta_rule_step_shape(tl_op_infer *s) {
    SHAPE(h, s, "delta_rule_step", "q", "k", "v", "g", "slot", "pos", "beta");
    const struct delta_rule_attr *a = &((const struct delta_rule_step_attr *)s->attr)->f;
    TRY(delta_check(&h, DR_Q, 3, DR_G, DR_BETA, a->scale, a->tau));
    const tl_desc *q = s->in[0], *S = &s->out[1];
    for (int i = 4; i <= 5; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, q->dim[0], "rows of q"));
    }
    const int64_t e = tl_desc_last(s->in[DR_V]);
    if (S->dtype != tensor_sum_dtype(q->dtype) || S->ndim != 4 || S->dim[1] != q->dim[1] || S->dim[2] != q->dim[2] ||
        S->dim[3] != e)
        return shape_bad_attr(&h, "S (slots,H,s,%lld) must be bound through acc", (long long)e);
    shape_out_like(&h, 0, DR_V, q->dtype);
    return TL_OK;
}

NO_GRAD(delta_rule_step, "a state is for decoding; train with delta_rule")

/* Positions are data: counted as if every row were busy and none the first of its slot. */
void delta_rule_step_cost(const tl_op_call *c, tl_cost *cost) {
    const tl_desc *q = &c->in[DR_Q].d, *S = &c->out[1].d;
    double used = (double)(S->dim[0] < q->dim[0] ? S->dim[0] : q->dim[0]) / (double)S->dim[0];
    *cost = (tl_cost){0};
    for (int i = 0; i < 7; i++) cost->bytes_read += cost_bytes(&c->in[i].d);
    cost->bytes_written = cost_bytes(&c->out[0].d) + used * cost_bytes(S);
    cost->bytes_read += used * cost_bytes(S);
    cost_add(cost, tl_desc_count(&c->in[DR_V].d), delta_flops(c), 0);
    delta_cost_decay(cost, ATTR(c, delta_rule_step)->f.tau, &c->in[DR_G].d);
}

#else

typedef struct delta_view {
    struct chunk_state_attr a;
    state_view w; /* rows, decays and runs are those of chunk_state */
    const tl_arg *beta;
} delta_view;

static void delta_open(delta_view *v, const struct delta_rule_attr *a, const tl_arg *in) {
    memset(&v->a, 0, sizeof v->a);
    v->a.scale = a->scale, v->a.tau = a->tau, v->a.causal = 1;
    v->w = state_open(&v->a, in);
    v->beta = &in[6];
}

static REAL delta_beta(const delta_view *v, int64_t row) {
    return GET(v->beta, ROW(v->beta, row / v->w.H) + row % v->w.H);
}

/* Column d of S before the run that begins at token t. */
static void delta_begin(const delta_view *v, int64_t b, int64_t t, int64_t d, REAL *S) {
    const tl_arg *from = v->w.from;
    for (int64_t k = 0; k < v->w.s; k++)
        S[k] = t == 0 && from->data ? GET(from, ROW(from, b * v->w.s + k) + d) : (REAL)0;
}

/* Column d of S goes on by a token: faded, then corrected. miss: what it said wrongly. */
static REAL delta_add(const delta_view *v, int64_t row, int64_t d, bool tally, REAL *S, REAL *faded, REAL *miss) {
    const tl_arg *key = v->w.k;
    const int64_t at = ROW(key, row);
    REAL a = state_decay_once(&v->w, row, 0, tally && d == 0), sum = (REAL)0;
    for (int64_t k = 0; k < v->w.s; k++) {
        faded[k] = v->w.g->data ? a * S[k] : S[k];
        sum = sum + GET(key, at + k) * faded[k];
    }
    *miss = GET(v->w.v, ROW(v->w.v, row) + d) - sum;
    REAL u = delta_beta(v, row) * *miss;
    for (int64_t k = 0; k < v->w.s; k++) S[k] = faded[k] + GET(key, at + k) * u;
    return u;
}

/* scale q S of one column */
static REAL delta_read(const delta_view *v, int64_t row, const REAL *S) {
    REAL sum = (REAL)0;
    for (int64_t k = 0; k < v->w.s; k++) sum = sum + GET(v->w.q, ROW(v->w.q, row) + k) * S[k];
    return sum * v->w.scale;
}

void REF(delta_rule)(const tl_op_call *c) {
    delta_view v;
    delta_open(&v, ATTR(c, delta_rule), &c->in[0]);
    for (int64_t b = 0; b < v.w.B; b++)
        for (int64_t d = 0; d < v.w.e; d++) {
            REAL S[STATE_S], miss;
            bool hidden = false;
            delta_begin(&v, b, 0, d, S);
            for (int64_t t = 0; t < v.w.T; t++) {
                const int64_t row = state_row(&v.w, b, t);
                const bool first = state_first(&v.w, b, t, &hidden);
                if (first && !hidden) delta_begin(&v, b, t, d, S);
                if (!hidden) delta_add(&v, row, d, true, S, S, &miss);
                PUT(c, 0, ROW(&c->out[0], row) + d, hidden ? (REAL)0 : delta_read(&v, row, S));
            }
            for (int64_t k = 0; k < v.w.s && WANTS(c, 1); k++) PUT(c, 1, ROW(&c->out[1], b * v.w.s + k) + d, S[k]);
        }
}

/* Column d of S before token t. */
static void delta_until(const delta_view *v, int64_t b, int64_t t, int64_t d, REAL *S) {
    int64_t begin, end;
    REAL miss;
    gate_run(v->w.doc, v->w.T, b / v->w.H, t, &begin, &end);
    delta_begin(v, b, begin, d, S);
    for (int64_t j = begin; j < t; j++) delta_add(v, state_row(&v->w, b, j), d, false, S, S, &miss);
}

/* Token t's own part of R, its column d: what its output says, and what its correction does to A. Returns du. */
static REAL delta_reverse(const delta_view *v, const tl_op_call *c, int64_t row, int64_t d, REAL *R, REAL *y) {
    const tl_arg *dy = &c->in[0], *q = v->w.q, *key = v->w.k;
    REAL du = (REAL)0;
    *y = GET(dy, ROW(dy, row) + d) * v->w.scale;
    for (int64_t k = 0; k < v->w.s; k++) {
        R[k] = R[k] + GET(q, ROW(q, row) + k) * *y;
        du = du + GET(key, ROW(key, row) + k) * R[k];
    }
    return du;
}

/* Column d of R, the gradient of S behind token t, without t's own output. */
static void delta_behind(const delta_view *v, const tl_op_call *c, int64_t b, int64_t t, int64_t d, REAL *R) {
    const tl_arg *ds = &c->in[1], *key = v->w.k;
    int64_t begin, end;
    gate_run(v->w.doc, v->w.T, b / v->w.H, t, &begin, &end);
    const bool last = ds->data && state_last(&v->w, b) == end - 1;
    for (int64_t k = 0; k < v->w.s; k++) R[k] = last ? GET(ds, ROW(ds, b * v->w.s + k) + d) : (REAL)0;
    for (int64_t i = end - 1; i > t; i--) {
        const int64_t row = state_row(&v->w, b, i);
        REAL y, a = v->w.g->data ? state_decay(&v->w, row, 0) : (REAL)1;
        REAL dv = delta_beta(v, row) * delta_reverse(v, c, row, d, R, &y);
        for (int64_t k = 0; k < v->w.s; k++) R[k] = a * (R[k] - GET(key, ROW(key, row) + k) * dv);
    }
}

typedef struct delta_sums {
    REAL q[STATE_S], k[STATE_S], beta, decay;
} delta_sums;

/* What column d adds to the gradients of a token; R becomes the gradient of S before it. */
static void delta_bwd_column(const delta_view *v, const tl_op_call *c, int64_t b, int64_t t, int64_t d, REAL *R,
                             delta_sums *x) {
    REAL S[STATE_S], A[STATE_S], miss, y, a = (REAL)1;
    const int64_t row = state_row(&v->w, b, t);
    const tl_arg *key = v->w.k;
    UNCOUNTED(delta_until(v, b, t, d, S));
    UNCOUNTED(delta_behind(v, c, b, t, d, R));
    if (v->w.g->data) UNCOUNTED(a = state_decay(&v->w, row, 0));
    REAL u = delta_add(v, row, d, true, S, A, &miss), du = delta_reverse(v, c, row, d, R, &y);
    REAL dv = delta_beta(v, row) * du;
    PUT(c, 2, ROW(&c->out[2], row) + d, dv);
    x->beta = x->beta + du * miss;
    for (int64_t k = 0; k < v->w.s; k++) {
        x->q[k] = x->q[k] + S[k] * y;
        x->k[k] = x->k[k] + (R[k] * u - A[k] * dv);
        R[k] = R[k] - GET(key, ROW(key, row) + k) * dv;
        if (WANTS(c, 3)) x->decay = x->decay + R[k] * A[k];
        if (v->w.g->data) R[k] = a * R[k];
    }
}

static void delta_bwd_token(const delta_view *v, const tl_op_call *c, int64_t b, int64_t t) {
    const int64_t row = state_row(&v->w, b, t), own = row / v->w.H, h = row % v->w.H;
    bool hidden;
    delta_sums x;
    REAL R[STATE_S];
    state_first(&v->w, b, t, &hidden);
    for (int64_t k = 0; k < v->w.s; k++) x.q[k] = x.k[k] = (REAL)0;
    x.beta = x.decay = (REAL)0;
    for (int64_t d = 0; d < v->w.e; d++) {
        if (hidden)
            PUT(c, 2, ROW(&c->out[2], row) + d, (REAL)0);
        else
            delta_bwd_column(v, c, b, t, d, R, &x);
        for (int64_t k = 0; k < v->w.s && t == 0 && WANTS(c, 4); k++) {
            const tl_arg *ds = &c->in[1];
            REAL r = hidden ? (REAL)0 : R[k];
            if (ds->data && state_last(&v->w, b) < 0) /* nothing but padding: the state went through */
                r = GET(ds, ROW(ds, b * v->w.s + k) + d);
            PUT(c, 4, ROW(&c->out[4], b * v->w.s + k) + d, r);
        }
    }
    for (int64_t k = 0; k < v->w.s; k++) {
        PUT(c, 0, ROW(&c->out[0], row) + k, x.q[k]);
        PUT(c, 1, ROW(&c->out[1], row) + k, x.k[k]);
    }
    if (WANTS(c, 5)) PUT(c, 5, ROW(&c->out[5], own) + h, x.beta);
    if (WANTS(c, 3)) PUT(c, 3, ROW(&c->out[3], own) + h, hidden ? (REAL)0 : state_chain(&v->w, row, 0, x.decay));
}

void REF(delta_rule_bwd)(const tl_op_call *c) {
    delta_view v;
    delta_open(&v, &ATTR(c, delta_rule_bwd)->f, &c->in[2]);
    for (int64_t b = 0; b < v.w.B; b++)
        for (int64_t t = 0; t < v.w.T; t++) delta_bwd_token(&v, c, b, t);
}

void REF(delta_rule_step)(const tl_op_call *c) {
    const tl_arg none = c->in[TL_OP_INS - 1], *slot = &c->in[4], *pos = &c->in[5], *state = &c->out[1];
    delta_view v;
    delta_open(&v, &ATTR(c, delta_rule_step)->f, &c->in[0]);
    v.w.doc = v.w.from = &none;
    for (int64_t row = 0; row < v.w.q->d.dim[0] * v.w.H; row++) {
        const int64_t q = GETI(slot, row / v.w.H), p = GETI(pos, row / v.w.H), h = row % v.w.H;
        const bool busy = q >= 0 && q < state->d.dim[0] && p >= 0;
        for (int64_t d = 0; d < v.w.e; d++) {
            REAL S[STATE_S], miss;
            const int64_t first = busy ? (q * v.w.H + h) * v.w.s : 0;
            for (int64_t k = 0; k < v.w.s; k++) S[k] = busy && p > 0 ? GET(state, ROW(state, first + k) + d) : (REAL)0;
            if (busy) delta_add(&v, row, d, true, S, S, &miss);
            for (int64_t k = 0; k < v.w.s && busy; k++) STORE(state, ROW(state, first + k) + d, S[k]);
            PUT(c, 0, ROW(&c->out[0], row) + d, busy ? delta_read(&v, row, S) : (REAL)0);
        }
    }
}

#endif
