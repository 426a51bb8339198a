/* mixed_chunk, mixed_chunk_bwd: FLASH's attention (Hua 2022): exact weights inside a chunk, a linear sum over the
 * chunks before (or, not causal, over the document). The chunk's length is part of the model, not a tile: both halves
 * have their own heads and weights. Backward in two sweeps: M forward for dql, its adjoint R in reverse for dkl and dv,
 * so no prefix is kept. dql_i = dH_i M^T / N,  dkl_j = v_j R^T,  dv_j += kl_j R,  R += ql_i^T dH_i / N of the chunks
 * behind. */
#include "op/gate_kinds.h"
#include "op/grid.h"
#ifndef REAL

enum { MC_QQ, MC_KQ, MC_QL, MC_KL, MC_V, MC_DOC, MC_BIAS, MC_THETA, MC_STATE, MC_SEEN };
enum { MB_DO, MB_DSTATE, MB_QQ, MB_DOC = 7, MB_BIAS, MB_THETA, MB_STATE, MB_SEEN };

enum { MIXED_HEAD = 1024, MIXED_WIDE = 8192 }; /* widest s and e: what the reference keeps of M at a time */

/* (B,s,e), or (B,H,s,e) */
static tl_desc mixed_state(const tl_desc *q, int64_t s, int64_t e) {
    int64_t dim[] = {q->dim[0], q->ndim == 4 ? q->dim[2] : s, q->ndim == 4 ? s : e, e};
    return tl_desc_make(tensor_sum_dtype(q->dtype), q->ndim, dim);
}
static tl_status mixed_check_state(const shape_rule *h, int i, int q, int64_t s, int64_t e) {
    const tl_desc d = mixed_state(h->s->in[q], s, e);
    TRY(shape_sum(h, i, q));
    TRY(shape_ndim(h, i, d.ndim));
    for (int k = 0; k < d.ndim; k++) TRY(shape_dim(h, i, k, d.dim[k], "of the state"));
    return TL_OK;
}

static tl_status mixed_check_reach(const shape_rule *h, const struct mixed_chunk_attr *a) {
    const int64_t most = (int64_t)1 << 40;
    if (a->reach < 0 || a->period < 0 || a->reach > 1 << 20 || a->chunk > most || a->period > most)
        return shape_bad_attr(h, "reach %lld, period %lld", (long long)a->reach, (long long)a->period);
    if ((a->reach || a->period) && !a->f.causal)
        return shape_bad_attr(
            h, "reach and period belong to what is causal: the other form's linear part sees everything");
    if (a->period % (a->chunk * (a->reach + 1)))
        return shape_bad_attr(h, "a period of %lld is not made of chunks of %lld", (long long)a->period,
                              (long long)(a->chunk * (a->reach + 1)));
    return TL_OK;
}

static bool mixed_plane(const struct mixed_chunk_attr *a) {
    return a->rows || a->cols || a->high || a->wide;
}

static tl_status mixed_check_grid(const shape_rule *h, const struct mixed_chunk_attr *a, int first, int doc) {
    const int64_t most = 1 << 24;
    if (!mixed_plane(a)) return TL_OK;
    if (a->rows < 1 || a->cols < 1 || a->high < 1 || a->wide < 1 || a->rows > most || a->cols > most ||
        a->high > a->rows || a->wide > a->cols || a->chunk != a->high * a->wide)
        return shape_bad_attr(h, "windows of %lld x %lld, chunks of %lld in a grid of %lld x %lld", (long long)a->high,
                              (long long)a->wide, (long long)a->chunk, (long long)a->rows, (long long)a->cols);
    if (a->f.causal) return shape_bad_attr(h, "a grid has no order in which one token follows another");
    if (shape_has(h, doc)) return shape_refuse(h, doc, TL_ARG, "a grid is one document");
    TRY(shape_dim(h, first, 1, a->rows * a->cols, "places of the grid"));
    if (!shape_has(h, doc + 1)) return TL_OK;
    return shape_vector(h, doc + 1, (2 * a->high - 1) * (2 * a->wide - 1), first, "lines and columns of a window");
}

static tl_status mixed_check(const shape_rule *h, int first, int doc, const struct mixed_chunk_attr *a) {
    TRY(shape_float(h, first));
    TRY(gate_check_heads(h, first));
    const tl_desc *q = h->s->in[first];
    for (int i = 1; i < 4; i++) TRY(gate_check_rows(h, first + i, first, tl_desc_last(q)));
    TRY(gate_check_rows(h, first + 4, first, -1));
    int64_t e = tl_desc_last(h->s->in[first + 4]), s = tl_desc_last(q);
    if (s < 1 || s > MIXED_HEAD || e < 1 || e > MIXED_WIDE)
        return shape_refuse(h, first, TL_SHAPE, "heads are 1 to %d wide, values 1 to %d", MIXED_HEAD, MIXED_WIDE);
    TRY(gate_check(h, &a->f, GATE_SOFTMAX));
    TRY(shape_attr_kind(h, a->norm, CHUNK_NORMS));
    TRY(shape_attr_kind(h, a->parts, CHUNK_PARTS));
    if (a->parts == CHUNK_FAR && (shape_has(h, doc + 1) || shape_has(h, doc + 2)))
        return shape_refuse(h, doc + 1, TL_ARG, "the linear part alone has no scores");
    if (a->parts == CHUNK_LOCAL && shape_has(h, doc + 3))
        return shape_refuse(h, doc + 3, TL_ARG, "chunks by themselves carry no state");
    if (a->chunk < 1) return shape_bad_attr(h, "chunks of %lld tokens", (long long)a->chunk);
    TRY(mixed_check_reach(h, a));
    if ((a->reach || a->period) && shape_has(h, doc + 3))
        return shape_refuse(h, doc + 3, TL_ARG, "with reach or period no state is carried");
    TRY(gate_check_doc(h, doc, first));
    int64_t reach = (a->reach + 1) * a->chunk;
    TRY(mixed_check_grid(h, a, first, doc));
    if (!mixed_plane(a)) TRY(gate_check_bias(h, doc + 1, first, reach < q->dim[1] ? reach : q->dim[1]));
    TRY(gate_check_one(h, doc + 2, first, true, ""));
    if (shape_has(h, doc + 3) != shape_has(h, doc + 4))
        return shape_refuse(h, doc + 3, TL_ARG, "a state comes with the number of tokens seen");
    if (!shape_has(h, doc + 3)) return TL_OK;
    if (!a->f.causal) return shape_refuse(h, doc + 3, TL_ARG, "only what is causal can carry a state");
    TRY(mixed_check_state(h, doc + 3, first, s, e));
    TRY(shape_dtype(h, doc + 4, TL_I32));
    TRY(shape_ndim(h, doc + 4, 1));
    return shape_dim(h, doc + 4, 0, q->dim[0], "B of qq");
}

tl_status mixed_chunk_shape(tl_op_infer *s) {
    SHAPE(h, s, "mixed_chunk", "qq", "kq", "ql", "kl", "v", "doc", "bias", "theta", "state", "seen");
    const struct mixed_chunk_attr *a = s->attr;
    TRY(mixed_check(&h, MC_QQ, MC_DOC, a));
    const tl_desc *q = s->in[0];
    shape_out_like(&h, 0, MC_V, q->dtype);
    if (a->f.causal && a->parts != CHUNK_LOCAL && !a->reach && !a->period)
        s->out[1] = mixed_state(q, tl_desc_last(q), tl_desc_last(s->in[MC_V]));
    return TL_OK;
}

void mixed_chunk_grad(tl_grad *g) {
    struct mixed_chunk_bwd_attr a = {*(const struct mixed_chunk_attr *)tl_grad_attr(g)};
    tl_tensor *dy = tl_grad_dy(g, 0);
    if (!dy) { /* only the state reaches the loss: the output's gradient is zero */
        struct scale_attr none = {0};
        tl_tensor *v = tl_grad_in(g, MC_V);
        dy = tl_grad_temp(g, OP_DEF(scale), &none, &v, 1);
    }
    tl_tensor *in[12] = {dy, tl_grad_dy(g, 1)};
    for (int i = 0; i < 10; i++) in[2 + i] = tl_grad_in(g, i);
    int to[8];
    for (int i = 0; i < 5; i++) to[i] = grad_to(g, i);
    if (a.f.parts == CHUNK_LOCAL) to[MC_QL] = to[MC_KL] = -1; /* not read: no gradient */
    if (a.f.parts == CHUNK_FAR) to[MC_QQ] = to[MC_KQ] = -1;
    for (int i = 0; i < 3; i++) to[5 + i] = grad_to(g, MC_BIAS + i);
    tl_grad_emit(g, OP_DEF(mixed_chunk_bwd), &a, in, 12, to, 8);
}

/* Of one sequence without documents: pairs inside chunks, rows with a linear part, tokens that go into M. */
typedef struct mixed_count {
    double pairs, linear, folded;
} mixed_count;

static mixed_count mixed_counts_far(const struct mixed_chunk_attr *a, int64_t T) {
    mixed_count n = {0, 0, 0};
    const int64_t c = a->chunk;
    for (int64_t lo = 0, first = 0; lo < T; lo += c) {
        if (a->period && lo == first + a->period) first = lo;
        const int64_t rows = lo + c < T ? c : T - lo, back = lo - first < a->reach * c ? lo - first : a->reach * c;
        n.pairs += (double)rows * (double)(rows + 1) / 2 + (double)rows * (double)back;
        if (lo - back == first) continue;
        n.linear += (double)rows;
        n.folded += (double)c;
    }
    if (a->parts == CHUNK_FAR) n.pairs = 0;
    if (a->parts == CHUNK_LOCAL) n.linear = n.folded = 0;
    return n;
}

static mixed_count mixed_counts(const struct mixed_chunk_attr *a, int64_t T, bool from, bool out) {
    int64_t c = a->chunk < T ? a->chunk : T, whole = c ? T / c : 0, rest = c ? T % c : 0;
    mixed_count n = {0, 0, 0};
    if (a->reach || a->period) return mixed_counts_far(a, T);
    if (mixed_plane(a)) {
        for (int64_t i = 0; i < T;) {
            const grid_window w = grid_window_at(a->rows, a->cols, a->high, a->wide, i);
            n.pairs += (double)w.cells * (double)w.cells;
            i += w.cells;
        }
        n.linear = n.folded = (double)T;
        if (a->parts == CHUNK_FAR) n.pairs = 0;
        if (a->parts == CHUNK_LOCAL) n.linear = n.folded = 0;
        return n;
    }
    double full = a->f.causal ? (double)c * (double)(c + 1) / 2 : (double)c * (double)c;
    n.pairs =
        (double)whole * full + (a->f.causal ? (double)rest * (double)(rest + 1) / 2 : (double)rest * (double)rest);
    if (a->parts == CHUNK_FAR) n.pairs = 0;
    n.linear = (double)(!a->f.causal || from ? T : T - c);
    n.folded = (double)(!a->f.causal || out ? T : T - (rest ? rest : c));
    if (a->parts == CHUNK_LOCAL) n.linear = n.folded = 0;
    return n;
}

void mixed_chunk_cost(const tl_op_call *c, tl_cost *cost) {
    const struct mixed_chunk_attr *a = ATTR(c, mixed_chunk);
    const tl_desc *q = &c->in[0].d;
    int64_t B = q->dim[0] * gate_heads(q), T = q->dim[1];
    double s = (double)tl_desc_last(q), e = (double)tl_desc_last(&c->in[MC_V].d);
    mixed_count n = mixed_counts(a, T, cost_in(c, MC_STATE), cost_out(c, 1));
    gate_count v = gate_value_count(a->f.kind);
    cost_begin(c, cost);
    cost->flops += (double)B * n.pairs * (gate_score_flops(tl_desc_last(q), cost_in(c, MC_BIAS)) + v.flops + 2 * e);
    cost->special += (double)B * n.pairs * v.special;
    cost->flops +=
        (double)B * ((a->parts == CHUNK_FAR ? 0 : (double)T * e) + n.linear * e * (2 * s + 2) + n.folded * 2 * s * e);
    if (cost_in(c, MC_THETA)) cost_add(cost, 1, (double)(B * T), 1);
}

tl_status mixed_chunk_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "mixed_chunk_bwd", "do", "dstate", "qq", "kq", "ql", "kl", "v", "doc", "bias", "theta", "state",
          "seen");
    const struct mixed_chunk_attr *a = s->attr;
    TRY(mixed_check(&h, MB_QQ, MB_DOC, a));
    const tl_desc *q = s->in[MB_QQ], *v = s->in[MB_QQ + 4];
    TRY(gate_check_rows(&h, MB_DO, MB_QQ, tl_desc_last(v)));
    if (shape_has(&h, MB_DSTATE)) TRY(mixed_check_state(&h, MB_DSTATE, MB_QQ, tl_desc_last(q), tl_desc_last(v)));
    for (int i = 0; i < 5; i++) shape_out_like(&h, i, MB_QQ + i, q->dtype);
    for (int i = 0; i < 3; i++)
        if (shape_has(&h, MB_BIAS + i)) shape_out_like(&h, 5 + i, MB_BIAS + i, s->in[MB_BIAS + i]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(mixed_chunk_bwd)

void mixed_chunk_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const struct mixed_chunk_attr *a = &ATTR(c, mixed_chunk_bwd)->f;
    const tl_desc *q = &c->in[MB_QQ].d;
    int64_t B = q->dim[0] * gate_heads(q), T = q->dim[1];
    double s = (double)tl_desc_last(q), e = (double)tl_desc_last(&c->in[MB_QQ + 4].d), pair, all;
    mixed_count n = mixed_counts(a, T, cost_in(c, MB_STATE), false);
    mixed_count m = mixed_counts(a, T, cost_in(c, MB_STATE), cost_in(c, MB_DSTATE));
    gate_count v = gate_value_count(a->f.kind), d = gate_slope_count(a->f.kind);
    cost_begin(c, cost);
    pair = gate_score_flops(tl_desc_last(q), cost_in(c, MB_BIAS)) + 2 * e + v.flops + d.flops + 4;
    if (cost_out(c, 0)) pair += 2 * s;
    if (cost_out(c, 1)) pair += 2 * s;
    if (cost_out(c, 4)) pair += 2 * e;
    if (cost_out(c, 5)) pair += 1;
    if (cost_out(c, 6)) pair += 2;
    all = n.pairs * pair;
    if (cost_out(c, 2)) all += n.linear * s * (2 * e + 1) + n.folded * 2 * s * e;
    if (cost_out(c, 3)) all += m.folded * 2 * s * e;
    if (cost_out(c, 4)) all += m.folded * 2 * s * e;
    if (cost_out(c, 3) || cost_out(c, 4) || cost_out(c, 7)) all += n.linear * s * (1 + 2 * e);
    cost->flops += (double)B * all;
    cost->special += (double)B * n.pairs * (v.special + d.special);
    if (cost_out(c, 5)) cost_add(cost, tl_desc_count(&c->out[5].d), 1, 0);
    if (cost_in(c, MB_THETA)) cost_add(cost, 1, (double)(B * T), 1);
}

#else

enum { MIXED_COLUMNS = 8, MIXED_S = 1024, MIXED_E = 8192, MIXED_PART = 64 };

typedef struct mixed_view {
    gate_view w; /* of the quadratic heads */
    const tl_arg *ql, *kl, *state, *seen;
    const struct mixed_chunk_attr *a;
    int64_t B, T, s, e;
} mixed_view;

/* The chunk of a token: its run, itself, the first key it sees, the tokens in M; has: is there a linear part at all? */
typedef struct mixed_piece {
    int64_t first, last, lo, hi, keys, before;
    bool has;
} mixed_piece;

static mixed_view mixed_open(const struct mixed_chunk_attr *a, const tl_arg *in, const tl_arg *options) {
    mixed_view m;
    m.a = a;
    m.w = gate_open(&a->f, &in[0], &in[1], &in[4], &options[0], &options[1], &options[2]);
    m.ql = &in[2], m.kl = &in[3], m.state = &options[3], m.seen = &options[4];
    m.B = m.w.B, m.T = m.w.T, m.s = m.w.s, m.e = m.w.e;
    return m;
}

/* Tokens before its chunk that a row sees exactly. */
static int64_t mixed_back_of(const mixed_view *m) {
    return m->a->reach * m->a->chunk;
}

static mixed_piece mixed_piece_of(const mixed_view *m, int64_t b, int64_t i) {
    mixed_piece p;
    gate_run(m->w.doc, m->T, b / m->w.H, i, &p.first, &p.last);
    if (p.first == p.last) { /* padding: a piece of one token that nobody sees */
        p.lo = p.hi = p.keys = i;
        p.before = 0;
        p.has = false;
        return p;
    }
    if (m->a->period) {
        p.first += (i - p.first) / m->a->period * m->a->period;
        if (p.last > p.first + m->a->period) p.last = p.first + m->a->period;
    }
    p.lo = p.first + (i - p.first) / m->a->chunk * m->a->chunk;
    p.hi = p.lo + m->a->chunk < p.last ? p.lo + m->a->chunk : p.last;
    if (m->a->rows) {
        const grid_window w = grid_window_at(m->a->rows, m->a->cols, m->a->high, m->a->wide, i);
        p.lo = w.first, p.hi = w.first + w.cells;
    }
    p.keys = p.lo - p.first > mixed_back_of(m) ? p.lo - mixed_back_of(m) : p.first;
    bool carried = p.first == 0 && m->state->data;
    p.before = m->a->f.causal ? p.keys - p.first + (carried ? GETI(m->seen, b / m->w.H) : 0) : p.last - p.first;
    p.has = m->a->parts != CHUNK_LOCAL && (!m->a->f.causal || carried || p.keys > p.first);
    return p;
}

/* 1 / Nl */
static REAL mixed_norm(const mixed_view *m, const mixed_piece *p) {
    double n = (double)p->before;
    if (m->a->norm == CHUNK_CONST) n = m->a->f.causal ? (double)m->a->chunk : (double)m->T;
    return n > 0 ? (REAL)(1.0 / n) : (REAL)0;
}

static int64_t mixed_end(const mixed_view *m, const mixed_piece *p, int64_t i) {
    if (m->a->parts == CHUNK_FAR) return p->keys; /* no scores */
    return m->a->f.causal ? i + 1 : p->hi;
}

/* Place of the bias of a pair, from the middle of the table. */
static int64_t mixed_ahead(const mixed_view *m, int64_t i, int64_t j) {
    return m->a->rows ? grid_ahead(m->a->rows, m->a->cols, m->a->high, m->a->wide, i, j) : j - i;
}

static REAL mixed_t(const mixed_view *m, int64_t b, int64_t i, int64_t j) {
    return gate_score(&m->w, ROW(m->w.q, gate_at(&m->w, b, i)), ROW(m->w.k, gate_at(&m->w, b, j)), mixed_ahead(m, i, j),
                      (REAL)m->w.alpha);
}

/* ---- forward: some columns of M at a time ------------------------------------------------------------------- */

static void mixed_fold(const mixed_view *m, int64_t b, int64_t lo, int64_t hi, int64_t d0, int64_t n,
                       REAL (*M)[MIXED_S]) {
    for (int64_t j = lo; j < hi && m->a->parts != CHUNK_LOCAL; j++)
        for (int64_t d = 0; d < n; d++) {
            REAL v = GET(m->w.v, ROW(m->w.v, gate_at(&m->w, b, j)) + d0 + d);
            for (int64_t k = 0; k < m->s; k++) M[d][k] = M[d][k] + GET(m->kl, ROW(m->kl, gate_at(&m->w, b, j)) + k) * v;
        }
}

static void mixed_start(const mixed_view *m, int64_t b, int64_t d0, int64_t n, bool carried, REAL (*M)[MIXED_S]) {
    for (int64_t d = 0; d < n; d++)
        for (int64_t k = 0; k < m->s; k++)
            M[d][k] = carried ? GET(m->state, ROW(m->state, b * m->s + k) + d0 + d) : (REAL)0;
}

static void mixed_row(const mixed_view *m, const tl_op_call *c, const mixed_piece *p, int64_t b, int64_t i, int64_t d0,
                      int64_t n, REAL (*M)[MIXED_S]) {
    const bool far = m->a->parts == CHUNK_FAR;
    REAL out[MIXED_COLUMNS], x = (REAL)0, norm = (REAL)1, linear = mixed_norm(m, p);
    int64_t end = mixed_end(m, p, i), to = ROW(&c->out[0], gate_at(&m->w, b, i)) + d0;
    for (int64_t d = 0; d < n; d++) out[d] = (REAL)0;
    for (int64_t j = p->keys; j < end; j++) {
        if (d0 == 0)
            x = gate_value(&m->a->f, mixed_t(m, b, i, j));
        else
            UNCOUNTED(x = gate_value(&m->a->f, mixed_t(m, b, i, j)));
        for (int64_t d = 0; d < n; d++) out[d] = out[d] + x * GET(m->w.v, ROW(m->w.v, gate_at(&m->w, b, j)) + d0 + d);
    }
    if (d0 == 0 && !far)
        norm = gate_norm(&m->w, end - p->keys);
    else if (!far)
        UNCOUNTED(norm = gate_norm(&m->w, end - p->keys));
    for (int64_t d = 0; d < n; d++) {
        REAL y = far ? (REAL)0 : out[d] * norm, sum = (REAL)0;
        for (int64_t k = 0; k < m->s && p->has; k++)
            sum = sum + GET(m->ql, ROW(m->ql, gate_at(&m->w, b, i)) + k) * M[d][k];
        if (p->has) y = y + sum * linear;
        PUT(c, 0, to + d, y);
    }
}

static void mixed_columns(const mixed_view *m, const tl_op_call *c, int64_t b, int64_t d0, int64_t n) {
    REAL M[MIXED_COLUMNS][MIXED_S];
    mixed_piece p;
    mixed_start(m, b, d0, n, m->state->data != NULL, M);
    for (int64_t i = 0; i<m->T; i = p.hi> i ? p.hi : i + 1) {
        p = mixed_piece_of(m, b, i);
        if (p.lo == p.hi)
            for (int64_t d = 0; d < n; d++) PUT(c, 0, ROW(&c->out[0], gate_at(&m->w, b, i)) + d0 + d, (REAL)0);
        if (p.lo == p.hi) continue;
        if (i == p.first) {
            mixed_start(m, b, d0, n, i == 0 && m->state->data, M);
            if (!m->a->f.causal) mixed_fold(m, b, p.first, p.last, d0, n, M);
        } else if (m->a->f.causal && p.keys > p.first) {
            mixed_fold(m, b, p.keys - m->a->chunk, p.keys, d0, n, M);
        }
        for (int64_t r = p.lo; r < p.hi; r++) mixed_row(m, c, &p, b, r, d0, n, M);
        if (p.hi == p.last && WANTS(c, 1)) mixed_fold(m, b, p.lo, p.hi, d0, n, M);
    }
    for (int64_t k = 0; k < m->s && WANTS(c, 1); k++)
        for (int64_t d = 0; d < n; d++) PUT(c, 1, ROW(&c->out[1], b * m->s + k) + d0 + d, M[d][k]);
}

void REF(mixed_chunk)(const tl_op_call *c) {
    mixed_view m = mixed_open(ATTR(c, mixed_chunk), &c->in[0], &c->in[5]);
    for (int64_t b = 0; b < m.B; b++)
        for (int64_t d0 = 0; d0 < m.e; d0 += MIXED_COLUMNS)
            mixed_columns(&m, c, b, d0, m.e - d0 < MIXED_COLUMNS ? m.e - d0 : MIXED_COLUMNS);
}

/* ---- backward, quadratic part --------------------------------------------------------------------------------- */

typedef struct mixed_pair {
    REAL p, dp, dt, ds;
} mixed_pair;

static mixed_pair mixed_open_pair(const mixed_view *m, const tl_op_call *c, int64_t b, int64_t i, int64_t j,
                                  REAL norm) {
    const tl_arg *dy = &c->in[0], *v = m->w.v;
    mixed_pair g;
    REAL t = mixed_t(m, b, i, j);
    g.p = gate_value(&m->a->f, t) * norm;
    g.dp = gate_dot(dy, ROW(dy, gate_at(&m->w, b, i)), v, ROW(v, gate_at(&m->w, b, j)), m->e);
    g.dt = gate_slope(&m->a->f, t) * norm * g.dp;
    g.ds = g.dt * (REAL)m->w.alpha;
    return g;
}

/* dqq of a row, dtheta; here every pair's gradient is counted. */
static void mixed_bwd_q(const mixed_view *m, const tl_op_call *c, int64_t b, int64_t i, REAL *dtheta) {
    mixed_piece p = mixed_piece_of(m, b, i);
    int64_t end = p.lo < p.hi ? mixed_end(m, &p, i) : p.keys;
    REAL norm = (REAL)0;
    if (p.lo < p.hi) norm = gate_norm(&m->w, end - p.keys);
    for (int64_t d0 = 0; d0 < m->s; d0 += MIXED_PART) {
        REAL dq[MIXED_PART];
        int64_t n = m->s - d0 < MIXED_PART ? m->s - d0 : MIXED_PART;
        for (int64_t d = 0; d < n; d++) dq[d] = (REAL)0;
        for (int64_t j = p.keys; j < end; j++) {
            mixed_pair g;
            if (d0 == 0) {
                g = mixed_open_pair(m, c, b, i, j, norm);
                if (WANTS(c, 6)) *dtheta = *dtheta - g.p * g.dp;
            } else {
                UNCOUNTED(g = mixed_open_pair(m, c, b, i, j, norm));
            }
            for (int64_t d = 0; d < n && WANTS(c, 0); d++)
                dq[d] = dq[d] + g.ds * GET(m->w.k, ROW(m->w.k, gate_at(&m->w, b, j)) + d0 + d);
        }
        for (int64_t d = 0; d < n && WANTS(c, 0); d++) PUT(c, 0, ROW(&c->out[0], gate_at(&m->w, b, i)) + d0 + d, dq[d]);
    }
}

/* The pair (i, j), p the chunk of i, not counted; false: i does not see j. */
static bool mixed_repeat(const mixed_view *m, const tl_op_call *c, const mixed_piece *p, int64_t b, int64_t i,
                         int64_t j, mixed_pair *g) {
    int64_t end = mixed_end(m, p, i);
    if (j < p->keys || j >= end) return false;
    UNCOUNTED(*g = mixed_open_pair(m, c, b, i, j, gate_norm(&m->w, end - p->keys)));
    return true;
}

/* Behind the last row that may see exactly what is in chunk p. */
static int64_t mixed_seen_until(const mixed_view *m, const mixed_piece *p) {
    const int64_t end = p->hi + (p->lo < p->hi ? mixed_back_of(m) : 0);
    return end < p->last ? end : p->lo < p->hi ? p->last : p->hi;
}

static void mixed_bwd_k(const mixed_view *m, const tl_op_call *c, int64_t b, int64_t j) {
    mixed_piece p = mixed_piece_of(m, b, j);
    for (int64_t d0 = 0; d0 < m->s; d0 += MIXED_PART) {
        REAL dk[MIXED_PART];
        mixed_pair g;
        int64_t n = m->s - d0 < MIXED_PART ? m->s - d0 : MIXED_PART;
        for (int64_t d = 0; d < n; d++) dk[d] = (REAL)0;
        for (int64_t i = p.lo, end = mixed_seen_until(m, &p); i < end; i++) {
            const mixed_piece q = mixed_piece_of(m, b, i);
            if (mixed_repeat(m, c, &q, b, i, j, &g))
                for (int64_t d = 0; d < n; d++)
                    dk[d] = dk[d] + g.ds * GET(m->w.q, ROW(m->w.q, gate_at(&m->w, b, i)) + d0 + d);
        }
        for (int64_t d = 0; d < n; d++) PUT(c, 1, ROW(&c->out[1], gate_at(&m->w, b, j)) + d0 + d, dk[d]);
    }
}

static void mixed_bwd_bias(const mixed_view *m, const tl_op_call *c, int64_t n) {
    REAL sum = (REAL)0;
    for (int64_t b = 0; b < m->B; b++)
        for (int64_t i = 0; i < m->T; i++) {
            mixed_piece p = mixed_piece_of(m, b, i);
            mixed_pair g;
            const int64_t ahead = n - m->w.centre;
            for (int64_t j = m->a->rows ? p.lo : i + ahead; j < (m->a->rows ? p.hi : i + ahead + 1); j++)
                if (p.lo < p.hi && mixed_ahead(m, i, j) == ahead && mixed_repeat(m, c, &p, b, i, j, &g))
                    sum = sum + g.dt;
        }
    PUT(c, 5, n, m->w.bias_scale * sum);
}

/* ---- backward, linear part ------------------------------------------------------------------------------------ */

/* Column k of dql: row k of M, walked forward. */
static void mixed_bwd_ql(const mixed_view *m, const tl_op_call *c, int64_t b, int64_t k) {
    const tl_arg *dy = &c->in[0];
    REAL M[MIXED_E];
    mixed_piece p;
    for (int64_t i = 0; i<m->T; i = p.hi> i ? p.hi : i + 1) {
        p = mixed_piece_of(m, b, i);
        if (p.lo == p.hi) PUT(c, 2, ROW(&c->out[2], gate_at(&m->w, b, i)) + k, (REAL)0);
        int64_t from = p.keys > p.first ? p.keys - m->a->chunk : p.keys, to = p.keys;
        if (i == p.first) {
            bool carried = i == 0 && m->state->data;
            for (int64_t d = 0; d < m->e; d++)
                M[d] = carried ? GET(m->state, ROW(m->state, b * m->s + k) + d) : (REAL)0;
            from = p.first, to = m->a->f.causal ? p.first : p.last;
        } else if (!m->a->f.causal || p.lo == p.hi) {
            from = to;
        }
        for (int64_t j = from; j < to && m->a->parts != CHUNK_LOCAL; j++)
            for (int64_t d = 0; d < m->e; d++)
                M[d] = M[d] + GET(m->kl, ROW(m->kl, gate_at(&m->w, b, j)) + k) *
                                  GET(m->w.v, ROW(m->w.v, gate_at(&m->w, b, j)) + d);
        for (int64_t r = p.lo; r < p.hi; r++) {
            REAL sum = (REAL)0;
            for (int64_t d = 0; d < m->e && p.has; d++) sum = sum + GET(dy, ROW(dy, gate_at(&m->w, b, r)) + d) * M[d];
            if (p.has) sum = sum * mixed_norm(m, &p);
            PUT(c, 2, ROW(&c->out[2], gate_at(&m->w, b, r)) + k, sum);
        }
    }
}

/* R of the last run begins with the gradient of the state that it ended in; then the chunks in reverse. `use` gets each
 * chunk with R of what lies behind it, `more` adds the chunk to R. */
typedef struct mixed_back {
    const mixed_view *m;
    const tl_op_call *c;
    int64_t b, k, d0, n; /* row k of R; or columns [d0, d0 + n) */
    bool counted;
    REAL R[MIXED_E]; /* [e], or [n][s] */
} mixed_back;

/* dkl of column k */
static void mixed_use_row(mixed_back *x, const mixed_piece *p, bool any) {
    const mixed_view *m = x->m;
    for (int64_t j = p->lo; j < p->hi; j++) {
        REAL sum = (REAL)0;
        for (int64_t d = 0; d < m->e && any; d++)
            sum = sum + GET(m->w.v, ROW(m->w.v, gate_at(&m->w, x->b, j)) + d) * x->R[d];
        PUT(x->c, 3, ROW(&x->c->out[3], gate_at(&m->w, x->b, j)) + x->k, sum);
    }
}
static void mixed_more_row(mixed_back *x, const mixed_piece *p) {
    const mixed_view *m = x->m;
    const tl_arg *dy = &x->c->in[0];
    for (int64_t i = p->lo; i < p->hi && p->has; i++) {
        REAL q = GET(m->ql, ROW(m->ql, gate_at(&m->w, x->b, i)) + x->k) * mixed_norm(m, p);
        for (int64_t d = 0; d < m->e; d++) x->R[d] = x->R[d] + q * GET(dy, ROW(dy, gate_at(&m->w, x->b, i)) + d);
    }
}

/* columns of dv, both parts */
static void mixed_use_columns(mixed_back *x, const mixed_piece *p, bool any) {
    const mixed_view *m = x->m;
    const tl_arg *dy = &x->c->in[0];
    for (int64_t j = p->lo; j < p->hi && WANTS(x->c, 4); j++) {
        REAL sum[MIXED_COLUMNS];
        mixed_pair g;
        for (int64_t d = 0; d < x->n; d++) sum[d] = (REAL)0;
        for (int64_t i = p->lo, end = mixed_seen_until(m, p); i < end; i++) {
            const mixed_piece q = mixed_piece_of(m, x->b, i);
            if (mixed_repeat(m, x->c, &q, x->b, i, j, &g))
                for (int64_t d = 0; d < x->n; d++)
                    sum[d] = sum[d] + g.p * GET(dy, ROW(dy, gate_at(&m->w, x->b, i)) + x->d0 + d);
        }
        for (int64_t d = 0; d < x->n && any; d++)
            for (int64_t k = 0; k < m->s; k++)
                sum[d] = sum[d] + GET(m->kl, ROW(m->kl, gate_at(&m->w, x->b, j)) + k) * x->R[d * m->s + k];
        for (int64_t d = 0; d < x->n; d++)
            PUT(x->c, 4, ROW(&x->c->out[4], gate_at(&m->w, x->b, j)) + x->d0 + d, sum[d]);
    }
}
static void mixed_more_columns(mixed_back *x, const mixed_piece *p) {
    const mixed_view *m = x->m;
    const tl_arg *dy = &x->c->in[0];
    for (int64_t i = p->lo; i < p->hi && p->has; i++)
        for (int64_t k = 0; k < m->s; k++) {
            REAL q = (REAL)0;
            const REAL from = GET(m->ql, ROW(m->ql, gate_at(&m->w, x->b, i)) + k);
            if (x->counted && x->d0 == 0)
                q = from * mixed_norm(m, p);
            else
                UNCOUNTED(q = from * mixed_norm(m, p));
            for (int64_t d = 0; d < x->n; d++)
                x->R[d * m->s + k] = x->R[d * m->s + k] + q * GET(dy, ROW(dy, gate_at(&m->w, x->b, i)) + x->d0 + d);
        }
}

static void mixed_more(mixed_back *x, const mixed_piece *p, bool rows) {
    if (rows)
        mixed_more_row(x, p);
    else if (x->counted)
        mixed_more_columns(x, p);
    else
        UNCOUNTED(mixed_more_columns(x, p));
}

/* The reverse walk. A run's last chunk has nothing behind it but the state's gradient. */
static void mixed_walk(mixed_back *x, bool rows) {
    const mixed_view *m = x->m;
    const tl_arg *ds = &x->c->in[1];
    const int64_t size = rows ? m->e : x->n * m->s;
    const mixed_piece none = {0, 0, 0, 0, 0, 0, false};
    mixed_piece p = none;
    bool last = true; /* no run has been met */
    for (int64_t i = 0; i < size; i++) x->R[i] = (REAL)0;
    for (int64_t end = m->T; end > 0; end = p.lo < p.hi ? p.lo : end - 1) {
        p = mixed_piece_of(m, x->b, end - 1);
        if (p.lo == p.hi) {
            for (int64_t d = 0; d < x->n && !rows && WANTS(x->c, 4); d++)
                PUT(x->c, 4, ROW(&x->c->out[4], gate_at(&m->w, x->b, end - 1)) + x->d0 + d, (REAL)0);
            if (rows) PUT(x->c, 3, ROW(&x->c->out[3], gate_at(&m->w, x->b, end - 1)) + x->k, (REAL)0);
            continue;
        }
        bool from = ds->data && last;
        if (p.hi == p.last) {
            for (int64_t i = 0; i < size; i++) {
                int64_t k = rows ? x->k : i % m->s, d = rows ? i : x->d0 + i / m->s;
                x->R[i] = from ? GET(ds, ROW(ds, x->b * m->s + k) + d) : (REAL)0;
            }
            if (!m->a->f.causal) {
                mixed_piece q = p;
                q.lo = p.first, q.hi = p.last;
                mixed_more(x, &q, rows);
            }
        }
        const int64_t behind = p.hi + mixed_back_of(m); /* the first row whose M holds this chunk */
        bool any = m->a->parts != CHUNK_LOCAL && (!m->a->f.causal || behind < p.last || from);
        if (m->a->reach && behind < p.last) {
            const mixed_piece q = mixed_piece_of(m, x->b, behind);
            mixed_more(x, &q, rows);
        }
        if (rows)
            mixed_use_row(x, &p, any);
        else
            mixed_use_columns(x, &p, any);
        if (m->a->f.causal && !m->a->reach) mixed_more(x, &p, rows);
        if (p.lo == p.first) last = false;
    }
    /* what reached the beginning is the gradient of the state that came in; the first run alone has one */
    if (rows || !WANTS(x->c, 7)) return;
    bool begins = m->T > 0 && p.lo < p.hi;
    if (last && m->T > 0) { /* padding alone: the state went through */
        for (int64_t i = 0; i < size; i++)
            x->R[i] = ds->data ? GET(ds, ROW(ds, x->b * m->s + i % m->s) + x->d0 + i / m->s) : (REAL)0;
        begins = true;
    }
    for (int64_t d = 0; d < x->n; d++)
        for (int64_t k = 0; k < m->s; k++)
            PUT(x->c, 7, ROW(&x->c->out[7], x->b * m->s + k) + x->d0 + d, begins ? x->R[d * m->s + k] : (REAL)0);
}

void REF(mixed_chunk_bwd)(const tl_op_call *c) {
    mixed_view m = mixed_open(&ATTR(c, mixed_chunk_bwd)->f, &c->in[2], &c->in[7]);
    REAL dtheta = (REAL)0;
    mixed_back x;
    for (int64_t b = 0; b < m.B; b++)
        for (int64_t i = 0; i < m.T; i++) mixed_bwd_q(&m, c, b, i, &dtheta);
    PUT(c, 6, 0, dtheta);
    for (int64_t n = 0; WANTS(c, 5) && n < m.w.bias->d.dim[0]; n++) mixed_bwd_bias(&m, c, n);
    x.m = &m, x.c = c;
    for (int64_t b = 0; b < m.B; b++) {
        x.b = b;
        for (int64_t j = 0; j < m.T && WANTS(c, 1); j++) mixed_bwd_k(&m, c, b, j);
        for (int64_t k = 0; k < m.s && WANTS(c, 2); k++) mixed_bwd_ql(&m, c, b, k);
        x.d0 = x.n = 0;
        for (x.k = 0; x.k < m.s && WANTS(c, 3); x.k++) mixed_walk(&x, true);
        x.counted = !WANTS(c, 3);
        for (x.d0 = 0; x.d0 < m.e && (WANTS(c, 4) || WANTS(c, 7)); x.d0 += MIXED_COLUMNS) {
            x.n = m.e - x.d0 < MIXED_COLUMNS ? m.e - x.d0 : MIXED_COLUMNS;
            mixed_walk(&x, false);
        }
    }
}

#endif
