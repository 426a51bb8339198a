/* chunk_reach, chunk_reach_bwd and chunk_reach_kv: far chunks that are reached exactly. The mean of a chunk's keys is
 * its landmark; a row takes the chunks whose landmarks have the largest product with its query and sees their tokens
 * exactly (block means as in MoBA, Lu et al. 2025; landmarks after Mohtashami and Jaggi 2023). The choice has no
 * derivative: queries and keys learn by the scores of what was chosen. */
#include "op/gate_kinds.h"
#ifndef REAL

enum { CR_Q, CR_K, CR_V, CR_DOC, CR_THETA };
enum { CB_DO, CB_Q, CB_K, CB_V, CB_PICK, CB_DOC, CB_THETA };
enum { CK_Q, CK_K, CK_V, CK_SLOT, CK_POS, CK_THETA };

static tl_status reach_check_attr(const shape_rule *h, const struct chunk_reach_attr *a) {
    TRY(gate_check(h, &a->f, GATE_SOFTMAX));
    if (!a->f.causal) return shape_bad_attr(h, "only what is causal has chunks that lie behind a row");
    if (a->chunk < 1 || a->chunk > (int64_t)1 << 40 || a->skip < 0 || a->skip > 1 << 20)
        return shape_bad_attr(h, "chunks of %lld, %lld passed over", (long long)a->chunk, (long long)a->skip);
    if (a->top < 1 || a->top > REACH_MOST)
        return shape_bad_attr(h, "%d chunks; a row reaches 1 to %d", (int)a->top, REACH_MOST);
    return TL_OK;
}

static tl_status reach_check(const shape_rule *h, int first, int doc, const struct chunk_reach_attr *a) {
    TRY(shape_float(h, first));
    TRY(gate_check_heads(h, first));
    TRY(gate_check_rows(h, first + 1, first, tl_desc_last(h->s->in[first])));
    TRY(gate_check_rows(h, first + 2, first, -1));
    if (tl_desc_last(h->s->in[first]) < 1 || tl_desc_last(h->s->in[first + 2]) < 1)
        return shape_refuse(h, first, TL_SHAPE, "heads need a width");
    TRY(reach_check_attr(h, a));
    TRY(gate_check_doc(h, doc, first));
    return gate_check_one(h, doc + 1, first, true, "");
}

tl_status chunk_reach_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_reach", "q", "k", "v", "doc", "theta");
    const struct chunk_reach_attr *a = s->attr;
    TRY(reach_check(&h, CR_Q, CR_DOC, a));
    shape_out_like(&h, 0, CR_V, s->in[0]->dtype);
    shape_out_last(&h, 1, CR_Q, a->top, TL_I32);
    return TL_OK;
}

void chunk_reach_grad(tl_grad *g) {
    const struct chunk_reach_bwd_attr a = {*(const struct chunk_reach_attr *)tl_grad_attr(g)};
    tl_tensor *in[] = {tl_grad_dy(g, 0),  tl_grad_in(g, CR_Q),   tl_grad_in(g, CR_K),    tl_grad_in(g, CR_V),
                       tl_grad_out(g, 1), tl_grad_in(g, CR_DOC), tl_grad_in(g, CR_THETA)};
    const int to[] = {grad_to(g, CR_Q), grad_to(g, CR_K), grad_to(g, CR_V), grad_to(g, CR_THETA)};
    if (in[0]) tl_grad_emit(g, OP_DEF(chunk_reach_bwd), &a, in, 7, to, 4);
}

/* Of one sequence without documents: pairs of rows and keys, of rows and landmarks, chunks with a landmark, rows that
 * reach anything. */
typedef struct reach_count {
    double pairs, marks, chunks, rows;
} reach_count;

static reach_count reach_counts(const struct chunk_reach_attr *a, int64_t T) {
    reach_count n = {0, 0, 0, 0};
    for (int64_t lo = 0, g = 0; lo < T; lo += a->chunk, g++) {
        const int64_t there = g - a->skip, rows = lo + a->chunk < T ? a->chunk : T - lo;
        if (there < 1) continue;
        n.chunks += 1, n.rows += (double)rows, n.marks += (double)rows * (double)there;
        n.pairs += (double)rows * (double)(there < a->top ? there : a->top) * (double)a->chunk;
    }
    return n;
}

void chunk_reach_cost(const tl_op_call *c, tl_cost *cost) {
    const struct chunk_reach_attr *a = ATTR(c, chunk_reach);
    const tl_desc *q = &c->in[CR_Q].d;
    const double B = (double)(q->dim[0] * gate_heads(q)), s = (double)tl_desc_last(q);
    const double e = (double)tl_desc_last(&c->in[CR_V].d);
    const reach_count n = reach_counts(a, q->dim[1]);
    const gate_count v = gate_value_count(a->f.kind);
    cost_begin(c, cost);
    cost->flops += B * (n.pairs * (gate_score_flops(tl_desc_last(q), false) + v.flops + 2 * e) + n.marks * 2 * s +
                        n.chunks * s * (double)(a->chunk + 1) + n.rows * (e + (cost_in(c, CR_THETA) ? 1 : 0)));
    cost->special += B * n.pairs * v.special + (cost_in(c, CR_THETA) ? 1 : 0);
}

tl_status chunk_reach_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_reach_bwd", "do", "q", "k", "v", "pick", "doc", "theta");
    const struct chunk_reach_attr *a = &((const struct chunk_reach_bwd_attr *)s->attr)->f;
    TRY(reach_check(&h, CB_Q, CB_DOC, a));
    TRY(gate_check_rows(&h, CB_DO, CB_Q, tl_desc_last(s->in[CB_V])));
    TRY(shape_dtype(&h, CB_PICK, TL_I32));
    TRY(shape_leading(&h, CB_PICK, CB_Q));
    TRY(shape_dim(&h, CB_PICK, s->in[CB_Q]->ndim - 1, a->top, "chunks of a row"));
    for (int i = 0; i < 3; i++) shape_out_like(&h, i, CB_Q + i, s->in[CB_Q]->dtype);
    if (shape_has(&h, CB_THETA)) shape_out_like(&h, 3, CB_THETA, s->in[CB_THETA]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(chunk_reach_bwd)

void chunk_reach_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const struct chunk_reach_attr *a = &ATTR(c, chunk_reach_bwd)->f;
    const tl_desc *q = &c->in[CB_Q].d;
    const double B = (double)(q->dim[0] * gate_heads(q)), s = (double)tl_desc_last(q);
    const double e = (double)tl_desc_last(&c->in[CB_V].d);
    const reach_count n = reach_counts(a, q->dim[1]);
    const gate_count v = gate_value_count(a->f.kind), d = gate_slope_count(a->f.kind);
    double pair = gate_score_flops(tl_desc_last(q), false) + 2 * e + v.flops + d.flops + 4;
    for (int i = 0; i < 2; i++) pair += cost_out(c, i) ? 2 * s : 0;
    pair += (cost_out(c, 2) ? 2 * e : 0) + (cost_out(c, 3) ? 2 : 0);
    cost_begin(c, cost);
    cost->flops += B * (n.pairs * pair + (cost_in(c, CB_THETA) ? n.rows : 0));
    cost->special += B * n.pairs * (v.special + d.special) + (cost_in(c, CB_THETA) ? 1 : 0);
}

tl_status chunk_reach_kv_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_reach_kv", "q", "kcache", "vcache", "slot", "pos", "theta");
    const struct chunk_reach_attr *a = &((const struct chunk_reach_kv_attr *)s->attr)->f;
    TRY(shape_float(&h, CK_Q));
    if (s->in[CK_Q]->ndim != 3) TRY(shape_ndim(&h, CK_Q, 2));
    const tl_desc *q = s->in[CK_Q];
    for (int i = CK_K; i <= CK_V; i++) {
        TRY(shape_float(&h, i));
        TRY(shape_ndim(&h, i, 4));
        TRY(shape_mix(&h, i, CK_Q));
        TRY(shape_dim(&h, i, 2, q->ndim == 3 ? q->dim[1] : 1, "heads of q"));
        TRY(shape_dim(&h, i, 0, s->in[CK_K]->dim[0], "slots of kcache"));
        TRY(shape_dim(&h, i, 1, s->in[CK_K]->dim[1], "capacity of kcache"));
    }
    TRY(shape_dim(&h, CK_K, 3, tl_desc_last(q), "width of q"));
    if (s->in[CK_K]->dim[1] < 1 || tl_desc_last(q) < 1) return shape_refuse(&h, CK_K, TL_SHAPE, "a cache needs room");
    for (int i = CK_SLOT; i <= CK_POS; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, q->dim[0], "rows of q"));
    }
    TRY(reach_check_attr(&h, a));
    TRY(gate_check_one(&h, CK_THETA, CK_Q, true, ""));
    shape_out_last(&h, 0, CK_Q, s->in[CK_V]->dim[3], q->dtype);
    return TL_OK;
}

NO_GRAD(chunk_reach_kv, "a cache is for decoding; train with chunk_reach")

/* Positions are data: counted as if every row were busy at the end of a full cache. */
void chunk_reach_kv_cost(const tl_op_call *c, tl_cost *cost) {
    const struct chunk_reach_attr *a = &ATTR(c, chunk_reach_kv)->f;
    const tl_desc *q = &c->in[CK_Q].d, *k = &c->in[CK_K].d;
    const double rows = (double)(q->dim[0] * k->dim[2]), s = (double)tl_desc_last(q);
    const double e = (double)c->in[CK_V].d.dim[3];
    const int64_t there = k->dim[1] / a->chunk;
    const double keys = (double)(there < a->top ? there : a->top) * (double)a->chunk;
    const gate_count v = gate_value_count(a->f.kind);
    cost_begin(c, cost);
    const double used = (double)(k->dim[0] < q->dim[0] ? k->dim[0] : q->dim[0]) / (double)k->dim[0];
    cost->bytes_read += (used - 1) * (cost_bytes(k) + cost_bytes(&c->in[CK_V].d));
    cost->flops += rows * ((double)there * s * (double)(a->chunk + 3) + e + 1 +
                           keys * (gate_score_flops(tl_desc_last(q), false) + v.flops + 2 * e));
    cost->special += rows * keys * v.special + (cost_in(c, CK_THETA) ? 1 : 0);
}

#else

enum { REACH_PART = 64 };

typedef struct reach_view {
    gate_view w;
    const struct chunk_reach_attr *a;
} reach_view;

/* The run of a row, and how many of its chunks lie behind it. */
typedef struct reach_row {
    int64_t first, last, there;
} reach_row;

static reach_row reach_of(const reach_view *x, int64_t b, int64_t i) {
    reach_row r;
    gate_run(x->w.doc, x->w.T, b / x->w.H, i, &r.first, &r.last);
    r.there = r.first < r.last ? (i - r.first) / x->a->chunk - x->a->skip : 0;
    if (r.there < 0) r.there = 0;
    return r;
}

/* The chunks with the largest scores, the first of equal ones, in order: their numbers among `there` whose scores come
 * one by one. */
typedef struct reach_best {
    int64_t id[REACH_MOST];
    REAL score[REACH_MOST];
    int64_t n;
} reach_best;

static void reach_take(reach_best *t, int64_t most, int64_t id, REAL score) {
    int64_t at = t->n;
    while (at > 0 && t->score[at - 1] < score) at--;
    if (at >= most) return;
    if (t->n < most) t->n++;
    for (int64_t k = t->n - 1; k > at; k--) t->id[k] = t->id[k - 1], t->score[k] = t->score[k - 1];
    t->id[at] = id, t->score[at] = score;
}
static void reach_sort(reach_best *t) {
    for (int64_t i = 1; i < t->n; i++)
        for (int64_t k = i; k > 0 && t->id[k - 1] > t->id[k]; k--) {
            const int64_t other = t->id[k];
            t->id[k] = t->id[k - 1], t->id[k - 1] = other;
        }
}

/* Number d of the landmark of the chunk that begins at token lo. */
static REAL reach_mark(const reach_view *x, int64_t b, int64_t lo, int64_t d) {
    REAL sum = (REAL)0;
    for (int64_t j = lo; j < lo + x->a->chunk; j++) sum = sum + GET(x->w.k, ROW(x->w.k, gate_at(&x->w, b, j)) + d);
    return sum * (REAL)(1.0 / (double)x->a->chunk);
}

static void reach_choose(const reach_view *x, int64_t b, int64_t i, const reach_row *r, reach_best *t) {
    const bool fresh = (i - r->first) % x->a->chunk == 0; /* the first row that has the last of these landmarks */
    t->n = 0;
    for (int64_t h = 0; h < r->there; h++) {
        REAL score = (REAL)0;
        for (int64_t d = 0; d < x->w.s; d++) {
            REAL mark;
            if (fresh && h == r->there - 1)
                mark = reach_mark(x, b, r->first + h * x->a->chunk, d);
            else
                UNCOUNTED(mark = reach_mark(x, b, r->first + h * x->a->chunk, d));
            score = score + GET(x->w.q, ROW(x->w.q, gate_at(&x->w, b, i)) + d) * mark;
        }
        reach_take(t, x->a->top, h, score);
    }
    reach_sort(t);
}

static REAL reach_weight(const reach_view *x, int64_t qi, int64_t kj) {
    return gate_value(&x->a->f, gate_score(&x->w, qi, kj, 0, (REAL)x->w.alpha));
}

void REF(chunk_reach)(const tl_op_call *c) {
    const tl_arg none = c->in[TL_OP_INS - 1];
    reach_view x;
    x.a = ATTR(c, chunk_reach);
    x.w = gate_open(&x.a->f, &c->in[0], &c->in[1], &c->in[2], &c->in[3], &none, &c->in[4]);
    for (int64_t b = 0; b < x.w.B; b++)
        for (int64_t i = 0; i < x.w.T; i++) {
            const reach_row r = reach_of(&x, b, i);
            const int64_t at = gate_at(&x.w, b, i), qi = ROW(x.w.q, at);
            reach_best t;
            reach_choose(&x, b, i, &r, &t);
            for (int64_t n = 0; n < x.a->top && WANTS(c, 1); n++)
                ((int32_t *)c->out[1].data)[ROW(&c->out[1], at) + n] =
                    n < t.n ? (int32_t)(r.first + t.id[n] * x.a->chunk) : -1;
            REAL norm = (REAL)0, p = (REAL)0;
            if (t.n) norm = gate_norm(&x.w, t.n * x.a->chunk);
            for (int64_t d0 = 0; d0 < x.w.e; d0 += REACH_PART) {
                REAL out[REACH_PART];
                const int64_t width = x.w.e - d0 < REACH_PART ? x.w.e - d0 : REACH_PART;
                for (int64_t d = 0; d < width; d++) out[d] = (REAL)0;
                for (int64_t n = 0; n < t.n * x.a->chunk; n++) {
                    const int64_t j = r.first + t.id[n / x.a->chunk] * x.a->chunk + n % x.a->chunk;
                    const int64_t key = gate_at(&x.w, b, j);
                    if (d0 == 0)
                        p = reach_weight(&x, qi, ROW(x.w.k, key));
                    else
                        UNCOUNTED(p = reach_weight(&x, qi, ROW(x.w.k, key)));
                    for (int64_t d = 0; d < width; d++) out[d] = out[d] + p * GET(x.w.v, ROW(x.w.v, key) + d0 + d);
                }
                for (int64_t d = 0; d < width; d++) {
                    REAL y = (REAL)0;
                    if (t.n) y = out[d] * norm;
                    PUT(c, 0, ROW(&c->out[0], at) + d0 + d, y);
                }
            }
        }
}

typedef struct reach_pair {
    REAL p, dp, ds;
} reach_pair;

static reach_pair reach_open_pair(const reach_view *x, const tl_op_call *c, int64_t row, int64_t key, REAL norm) {
    const tl_arg *dy = &c->in[0];
    const REAL t = gate_score(&x->w, ROW(x->w.q, row), ROW(x->w.k, key), 0, (REAL)x->w.alpha);
    reach_pair g;
    g.p = gate_value(&x->a->f, t) * norm;
    g.dp = gate_dot(dy, ROW(dy, row), x->w.v, ROW(x->w.v, key), x->w.e);
    g.ds = gate_slope(&x->a->f, t) * norm * g.dp * (REAL)x->w.alpha;
    return g;
}

/* Tokens of the chunks that row `at` has chosen; the n-th of them. */
static int64_t reach_picks(const tl_arg *pick, int64_t at) {
    int64_t n = 0;
    while (n < tl_desc_last(&pick->d) && GETI(pick, ROW(pick, at) + n) >= 0) n++;
    return n;
}

/* dq of a row, dtheta; here every pair's gradient is counted. */
static void reach_bwd_row(const reach_view *x, const tl_op_call *c, int64_t b, int64_t i, REAL *dtheta) {
    const tl_arg *pick = &c->in[4];
    const int64_t at = gate_at(&x->w, b, i), n = reach_picks(pick, at), keys = n * x->a->chunk;
    REAL norm = (REAL)0;
    if (n) norm = gate_norm(&x->w, keys);
    for (int64_t d0 = 0; d0 < x->w.s; d0 += REACH_PART) {
        REAL dq[REACH_PART];
        const int64_t width = x->w.s - d0 < REACH_PART ? x->w.s - d0 : REACH_PART;
        for (int64_t d = 0; d < width; d++) dq[d] = (REAL)0;
        for (int64_t l = 0; l < keys; l++) {
            const int64_t lo = GETI(pick, ROW(pick, at) + l / x->a->chunk);
            const int64_t key = gate_at(&x->w, b, lo + l % x->a->chunk);
            reach_pair g;
            if (d0 == 0) {
                g = reach_open_pair(x, c, at, key, norm);
                if (WANTS(c, 3)) *dtheta = *dtheta - g.p * g.dp;
            } else {
                UNCOUNTED(g = reach_open_pair(x, c, at, key, norm));
            }
            for (int64_t d = 0; d < width && WANTS(c, 0); d++)
                dq[d] = dq[d] + g.ds * GET(x->w.k, ROW(x->w.k, key) + d0 + d);
        }
        for (int64_t d = 0; d < width && WANTS(c, 0); d++) PUT(c, 0, ROW(&c->out[0], at) + d0 + d, dq[d]);
    }
}

/* Has row i chosen the chunk that begins at lo? */
static bool reach_chose(const tl_arg *pick, int64_t at, int64_t lo) {
    for (int64_t n = 0; n < tl_desc_last(&pick->d); n++)
        if (GETI(pick, ROW(pick, at) + n) == lo) return true;
    return false;
}

/* dk and dv of a key: columns [d0, d0 + width) of the one or the other. */
static void reach_bwd_key(const reach_view *x, const tl_op_call *c, int64_t b, int64_t j, int out, int64_t width) {
    const tl_arg *pick = &c->in[4], *dy = &c->in[0];
    const reach_row r = reach_of(x, b, j);
    const int64_t key = gate_at(&x->w, b, j);
    const int64_t lo = r.first < r.last ? r.first + (j - r.first) / x->a->chunk * x->a->chunk : j;
    for (int64_t d0 = 0; d0 < width; d0 += REACH_PART) {
        REAL sum[REACH_PART];
        const int64_t n = width - d0 < REACH_PART ? width - d0 : REACH_PART;
        for (int64_t d = 0; d < n; d++) sum[d] = (REAL)0;
        for (int64_t i = lo + x->a->chunk; i < r.last; i++) {
            const int64_t at = gate_at(&x->w, b, i);
            reach_pair g;
            if (!reach_chose(pick, at, lo)) continue;
            UNCOUNTED(g = reach_open_pair(x, c, at, key, gate_norm(&x->w, reach_picks(pick, at) * x->a->chunk)));
            for (int64_t d = 0; d < n; d++)
                sum[d] = out == 1 ? sum[d] + g.ds * GET(x->w.q, ROW(x->w.q, at) + d0 + d)
                                  : sum[d] + g.p * GET(dy, ROW(dy, at) + d0 + d);
        }
        for (int64_t d = 0; d < n; d++) PUT(c, out, ROW(&c->out[out], key) + d0 + d, sum[d]);
    }
}

void REF(chunk_reach_bwd)(const tl_op_call *c) {
    const tl_arg none = c->in[TL_OP_INS - 1];
    REAL dtheta = (REAL)0;
    reach_view x;
    x.a = &ATTR(c, chunk_reach_bwd)->f;
    x.w = gate_open(&x.a->f, &c->in[1], &c->in[2], &c->in[3], &c->in[5], &none, &c->in[6]);
    for (int64_t b = 0; b < x.w.B; b++)
        for (int64_t i = 0; i < x.w.T; i++) {
            reach_bwd_row(&x, c, b, i, &dtheta);
            if (WANTS(c, 1)) reach_bwd_key(&x, c, b, i, 1, x.w.s);
            if (WANTS(c, 2)) reach_bwd_key(&x, c, b, i, 2, x.w.e);
        }
    PUT(c, 3, 0, dtheta);
}

/* ---- over a cache ---- */

static int64_t reach_kv_at(const tl_arg *cache, int64_t r, int64_t slot, int64_t j) {
    const int64_t C = cache->d.dim[1], H = cache->d.dim[2];
    return ROW(cache, (slot * C + j % C) * H + r % H);
}

static void reach_kv_row(const reach_view *x, const tl_op_call *c, int64_t r, int64_t slot, int64_t pos) {
    const int64_t chunk = x->a->chunk, C = x->w.k->d.dim[1];
    const int64_t lost = pos + 1 > C ? (pos - C + chunk) / chunk : 0; /* chunks that the cache no longer holds whole */
    reach_best t;
    t.n = 0;
    for (int64_t h = lost; h < pos / chunk - x->a->skip; h++) {
        REAL score = (REAL)0;
        for (int64_t d = 0; d < x->w.s; d++) {
            REAL sum = (REAL)0;
            for (int64_t j = h * chunk; j < (h + 1) * chunk; j++)
                sum = sum + GET(x->w.k, reach_kv_at(x->w.k, r, slot, j) + d);
            score = score + GET(x->w.q, ROW(x->w.q, r) + d) * (sum * (REAL)(1.0 / (double)chunk));
        }
        reach_take(&t, x->a->top, h, score);
    }
    reach_sort(&t);
    REAL norm = (REAL)0, p = (REAL)0;
    if (t.n) norm = gate_norm(&x->w, t.n * chunk);
    for (int64_t d0 = 0; d0 < x->w.e; d0 += REACH_PART) {
        REAL out[REACH_PART];
        const int64_t width = x->w.e - d0 < REACH_PART ? x->w.e - d0 : REACH_PART;
        for (int64_t d = 0; d < width; d++) out[d] = (REAL)0;
        for (int64_t n = 0; n < t.n * chunk; n++) {
            const int64_t j = t.id[n / chunk] * chunk + n % chunk;
            const int64_t kj = reach_kv_at(x->w.k, r, slot, j), vj = reach_kv_at(x->w.v, r, slot, j) + d0;
            if (d0 == 0)
                p = reach_weight(x, ROW(x->w.q, r), kj);
            else
                UNCOUNTED(p = reach_weight(x, ROW(x->w.q, r), kj));
            for (int64_t d = 0; d < width; d++) out[d] = out[d] + p * GET(x->w.v, vj + d);
        }
        for (int64_t d = 0; d < width; d++) PUT(c, 0, ROW(&c->out[0], r) + d0 + d, out[d] * norm);
    }
}

void REF(chunk_reach_kv)(const tl_op_call *c) {
    const tl_arg none = c->in[TL_OP_INS - 1], *slot = &c->in[3], *pos = &c->in[4];
    reach_view x;
    x.a = &ATTR(c, chunk_reach_kv)->f;
    x.w = gate_open(&x.a->f, &c->in[0], &c->in[1], &c->in[2], &none, &none, &c->in[5]);
    const int64_t H = x.w.k->d.dim[2];
    for (int64_t r = 0; r < x.w.q->d.dim[0] * H; r++) {
        const int64_t q = GETI(slot, r / H), p = GETI(pos, r / H);
        if (q >= 0 && q < x.w.k->d.dim[0] && p >= 0)
            reach_kv_row(&x, c, r, q, p);
        else
            for (int64_t d = 0; d < x.w.e; d++) PUT(c, 0, ROW(&c->out[0], r) + d, (REAL)0);
    }
}

#endif
