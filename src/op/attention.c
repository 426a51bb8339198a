/* attention, attention_bwd: exact softmax attention. Here in two passes over each row of scores, none of them stored;
 * kernels go through it in tiles. */
#ifndef REAL

#include "op/attention_mask.h"
#include "op/rules.h"

/* Places of the arguments that both operators have. */
enum { AT_Q, AT_K, AT_V, AT_DOC, AT_SINKS, AT_SLOPES, AT_BIAS, AT_SPAN, AT_COUNT };
static const int attention_at[AT_COUNT] = {0, 1, 2, 3, 4, 5, 6, 7};
static const int attention_bwd_at[AT_COUNT] = {1, 2, 3, 6, 7, 8, 9, 10};

static tl_status attention_check_attr(const shape_rule *h, const struct attention_attr *a) {
    const int64_t far = (int64_t)1 << 40;
    if (!(a->scale >= 0) || a->scale - a->scale != 0) return shape_bad_attr(h, "scale is %g", (double)a->scale);
    if (!(a->softcap >= 0) || a->softcap - a->softcap != 0)
        return shape_bad_attr(h, "softcap is %g", (double)a->softcap);
    if (!(a->drop >= 0 && a->drop < 1)) return shape_bad_attr(h, "drop is %g; it must be in [0, 1)", (double)a->drop);
    if (a->window < 0 || a->window > far) return shape_bad_attr(h, "window is %lld", (long long)a->window);
    if (a->global < 0 || (a->global && (!a->window || a->q_offset)))
        return shape_bad_attr(h, "global is %d; it is for a window over the tokens of one text", (int)a->global);
    if (a->q_offset < -far || a->q_offset > far) return shape_bad_attr(h, "q_offset is %lld", (long long)a->q_offset);
    return TL_OK;
}

/* Of every pair that can be seen, j - i - q_offset + P - 1 must lie in the table. */
static tl_status attention_check_bias(const shape_rule *h, const int *at, const struct attention_attr *a, int64_t T,
                                      int64_t S, int64_t H) {
    int b = at[AT_BIAS];
    TRY(shape_sum(h, b, at[AT_Q]));
    TRY(shape_ndim(h, b, 2));
    TRY(shape_dim(h, b, 0, H, "heads of q"));
    int64_t width = h->s->in[b]->dim[1], P = (width + 1) / 2;
    int64_t back = T - 1 + a->q_offset, ahead = a->causal ? 0 : S - 1 - a->q_offset;
    if (width % 2 == 0 || P < back + 1 || P < ahead + 1)
        return shape_refuse(h, b, TL_SHAPE, "it must have 2P-1 columns with P >= %lld",
                            (long long)((back > ahead ? back : ahead) + 1));
    return TL_OK;
}

static tl_status attention_check(const shape_rule *h, const int *at, const struct attention_attr *a) {
    int iq = at[AT_Q], ik = at[AT_K], iv = at[AT_V];
    for (int i = 0; i < 3; i++) {
        TRY(shape_float(h, at[i]));
        TRY(shape_ndim(h, at[i], 4));
        TRY(shape_same_dtype(h, at[i], iq));
    }
    const tl_desc *q = h->s->in[iq], *k = h->s->in[ik];
    int64_t B = q->dim[0], T = q->dim[1], H = q->dim[2], S = k->dim[1];
    TRY(shape_dim(h, ik, 0, B, "B of q"));
    TRY(shape_dim(h, ik, 3, q->dim[3], "head width of q"));
    TRY(shape_dim(h, iv, 0, B, "B of q"));
    TRY(shape_dim(h, iv, 1, S, "tokens of k"));
    TRY(shape_dim(h, iv, 2, k->dim[2], "heads of k"));
    if (q->dim[3] < 1 || h->s->in[iv]->dim[3] < 1) return shape_refuse(h, iq, TL_SHAPE, "heads need a width");
    if (k->dim[2] < 1 || H % k->dim[2])
        return shape_refuse(h, ik, TL_SHAPE, "the %lld heads of q are no multiple of its heads", (long long)H);
    TRY(attention_check_attr(h, a));
    if (shape_has(h, at[AT_DOC])) {
        TRY(shape_dtype(h, at[AT_DOC], TL_I32));
        TRY(shape_ndim(h, at[AT_DOC], 2));
        TRY(shape_dim(h, at[AT_DOC], 0, B, "B of q"));
        TRY(shape_dim(h, at[AT_DOC], 1, S, "tokens of k"));
        if (T != S || a->q_offset)
            return shape_refuse(h, at[AT_DOC], TL_SHAPE, "documents need queries and keys of the same tokens");
    }
    if (shape_has(h, at[AT_SINKS])) TRY(shape_vector(h, at[AT_SINKS], H, iq, "heads of q"));
    if (shape_has(h, at[AT_SLOPES])) TRY(shape_vector(h, at[AT_SLOPES], H, iq, "heads of q"));
    if (shape_has(h, at[AT_BIAS])) TRY(attention_check_bias(h, at, a, T, S, H));
    if (a->global && (T != S || shape_has(h, at[AT_SPAN])))
        return shape_refuse(h, ik, TL_SHAPE, "global tokens are those of the queries themselves, without spans");
    if (shape_has(h, at[AT_SPAN])) TRY(shape_span(h, at[AT_SPAN], B, T));
    return TL_OK;
}

tl_status attention_shape(tl_op_infer *s) {
    SHAPE(h, s, "attention", "q", "k", "v", "doc", "sinks", "slopes", "bias", "span");
    TRY(attention_check(&h, attention_at, s->attr));
    const tl_desc *q = s->in[0];
    int64_t rows[] = {q->dim[0], q->dim[2], q->dim[1]};
    shape_out_last(&h, 0, 0, s->in[2]->dim[3], q->dtype);
    shape_out(&h, 1, tensor_sum_dtype(q->dtype), 3, rows);
    return TL_OK;
}

void attention_grad(tl_grad *g) {
    struct attention_bwd_attr a = {*(const struct attention_attr *)tl_grad_attr(g)};
    if (grad_aux(g, 1, 2, "attention: the logsumexp carries no gradient")) return;
    if (tl_grad_in(g, AT_SLOPES) && tl_grad_needs(g, AT_SLOPES)) {
        tl_grad_refuse(g, "attention: ALiBi slopes are constants; a learned slope is a bias table");
        return;
    }
    tl_tensor *in[] = {tl_grad_dy(g, 0),         tl_grad_in(g, AT_Q),    tl_grad_in(g, AT_K),   tl_grad_in(g, AT_V),
                       tl_grad_out(g, 0),        tl_grad_out(g, 1),      tl_grad_in(g, AT_DOC), tl_grad_in(g, AT_SINKS),
                       tl_grad_in(g, AT_SLOPES), tl_grad_in(g, AT_BIAS), tl_grad_in(g, AT_SPAN)};
    int to[] = {grad_to(g, AT_Q), grad_to(g, AT_K), grad_to(g, AT_V), grad_to(g, AT_SINKS), grad_to(g, AT_BIAS)};
    tl_grad_emit(g, OP_DEF(attention_bwd), &a, in, 11, to, 5);
}

/* Pairs that can be seen, and rows that see any, of one head of one sequence; documents and spans are data, so unknown
 * here. */
static void attention_pairs(const struct attention_attr *a, int64_t T, int64_t S, int64_t *pairs, int64_t *rows) {
    *pairs = *rows = 0;
    for (int64_t i = 0; i < T; i++) {
        int64_t first, end, from, to;
        bool all;
        attention_range(a, i, S, &first, &end);
        attention_globals(a, i, 0, &from, &to, &all);
        *pairs += all ? S : end - first + to - from;
        *rows += end > first;
    }
}

/* One score T_ij. */
static void attention_cost_score(const tl_op_call *c, const int *at, const struct attention_attr *a, tl_cost *cost,
                                 int64_t times) {
    double width = (double)tl_desc_last(&c->in[at[AT_Q]].d);
    cost_add(cost, times, 2 * width + 1, 0);
    if (a->softcap > 0) cost_add(cost, times, 1, 2);
    if (cost_in(c, at[AT_SLOPES])) cost_add(cost, times, 2, 0);
    if (cost_in(c, at[AT_BIAS])) cost_add(cost, times, 1, 0);
}

/* Each visible pair's score and exponential once, however often the reference works them out. */
void attention_cost(const tl_op_call *c, tl_cost *cost) {
    const struct attention_attr *a = ATTR(c, attention);
    const tl_desc *q = &c->in[0].d, *k = &c->in[1].d, *v = &c->in[2].d;
    int64_t heads = q->dim[0] * q->dim[2], T = q->dim[1], pairs, rows;
    bool sinks = cost_in(c, AT_SINKS);
    cost_begin(c, cost);
    attention_pairs(a, T, k->dim[1], &pairs, &rows);
    if (sinks) rows = T;
    attention_cost_score(c, attention_at, a, cost, heads * pairs);
    cost_add(cost, heads * pairs, 2 + 2 * (double)v->dim[3], 1);
    if (sinks) cost_add(cost, heads * T, 1, 1);
    cost_add(cost, heads * rows, a->drop > 0 ? (double)v->dim[3] : 0, (double)v->dim[3]);
    if (cost_out(c, 1)) cost_add(cost, heads * rows, 1, 1);
}

tl_status attention_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "attention_bwd", "do", "q", "k", "v", "o", "lse", "doc", "sinks", "slopes", "bias", "span");
    const struct attention_bwd_attr *a = s->attr;
    TRY(attention_check(&h, attention_bwd_at, &a->f));
    const tl_desc *q = s->in[1];
    for (int i = 0; i <= 4; i += 4) {
        TRY(shape_float(&h, i));
        TRY(shape_same_dtype(&h, i, 1));
        TRY(shape_leading(&h, i, 1));
        TRY(shape_dim(&h, i, 3, s->in[3]->dim[3], "head width of v"));
    }
    TRY(shape_sum(&h, 5, 1));
    TRY(shape_ndim(&h, 5, 3));
    TRY(shape_dim(&h, 5, 0, q->dim[0], "B of q"));
    TRY(shape_dim(&h, 5, 1, q->dim[2], "heads of q"));
    TRY(shape_dim(&h, 5, 2, q->dim[1], "tokens of q"));
    for (int i = 0; i < 3; i++) shape_out_like(&h, i, i + 1, q->dtype);
    if (shape_has(&h, 7)) shape_out_like(&h, 3, 7, s->in[7]->dtype);
    if (shape_has(&h, 9)) shape_out_like(&h, 4, 9, s->in[9]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(attention_bwd)

void attention_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const struct attention_attr *a = &ATTR(c, attention_bwd)->f;
    const tl_desc *q = &c->in[1].d;
    int64_t heads = q->dim[0] * q->dim[2], T = q->dim[1], pairs, rows;
    double Dh = (double)q->dim[3], Dv = (double)c->in[3].d.dim[3];
    cost_begin(c, cost);
    attention_pairs(a, T, c->in[2].d.dim[1], &pairs, &rows);
    pairs *= heads;
    attention_cost_score(c, attention_bwd_at, a, cost, pairs);
    cost_add(cost, pairs, 1 + 2 * Dv + 2 + (a->softcap > 0 ? 3 : 0) + 1 + (a->drop > 0 ? 2 : 0), 1); /* p, dp, dT, dS */
    if (cost_out(c, 0)) cost_add(cost, pairs, 2 * Dh, 0);
    if (cost_out(c, 1)) cost_add(cost, pairs, 2 * Dh, 0);
    if (cost_out(c, 2)) cost_add(cost, pairs, 2 * Dv, 0);
    if (cost_out(c, 4)) cost_add(cost, pairs, 1, 0);
    cost_add(cost, heads * T, 2 * Dv, 0);
    if (cost_out(c, 3)) cost_add(cost, heads * T, 3, 1);
}

#else

#include "base/rng.h"
#include "op/attention_mask.h"

enum { ATTENTION_CHUNK = 64 }; /* columns summed at a time, so that a reference needs no memory */

typedef struct attention_view {
    const struct attention_attr *a;
    const tl_arg *q, *k, *v, *doc, *sinks, *slopes, *bias, *span; /* absent: no data */
    int64_t B, T, S, H, Hk, Dh, Dv;
    REAL scale, cap, up; /* up: what dropout multiplies the weights it keeps with */
    rng_key key;
    int64_t row0;
} attention_view;

static attention_view attention_open(const struct attention_attr *a, const tl_run_info *run, const tl_arg *qkv,
                                     const tl_arg *options) {
    attention_view w;
    w.a = a;
    w.q = &qkv[0], w.k = &qkv[1], w.v = &qkv[2];
    w.doc = &options[0], w.sinks = &options[1], w.slopes = &options[2], w.bias = &options[3];
    w.span = &options[4];
    w.B = w.q->d.dim[0], w.T = w.q->d.dim[1], w.H = w.q->d.dim[2], w.Dh = w.q->d.dim[3];
    w.S = w.k->d.dim[1], w.Hk = w.k->d.dim[2], w.Dv = w.v->d.dim[3];
    w.scale = a->scale > 0 ? (REAL)a->scale : (REAL)(1.0 / sqrt((double)w.Dh));
    w.cap = (REAL)a->softcap;
    w.up = (REAL)(1.0 / (1.0 - (double)a->drop));
    w.key = rng_key_make(run ? run->seed : 0, run ? run->step : 0, (uint64_t)a->op);
    w.row0 = run ? run->row0 : 0;
    return w;
}

/* Offsets of rows: query or output (b,i,h); key or value of token j for query head h. */
static int64_t attention_q_row(const attention_view *w, const tl_arg *q, int64_t b, int64_t i, int64_t h) {
    return ROW(q, (b * w->T + i) * w->H + h);
}
static int64_t attention_k_row(const attention_view *w, const tl_arg *k, int64_t b, int64_t j, int64_t h) {
    return ROW(k, (b * w->S + j) * w->Hk + h / (w->H / w->Hk));
}

/* Row i's interval of keys. */
static void attention_interval(const attention_view *w, int64_t b, int64_t i, int64_t *first, int64_t *end) {
    attention_range(w->a, i, w->S, first, end);
    if (w->a->global) *first = 0, *end = w->S; /* attention_sees knows which */
    if (!w->span->data) return;
    int64_t lo = GETI(w->span, ROW(w->span, b * w->T + i)), hi = GETI(w->span, ROW(w->span, b * w->T + i) + 1);
    if (*end > hi) *end = hi < *first ? *first : hi;
    if (*first < lo) *first = lo > *end ? *end : lo;
}

/* By global tokens alone: j is one before i's window, or i is one. */
static bool attention_sees_global(const attention_view *w, int64_t b, int64_t i, int64_t j) {
    int64_t begin = 0, first, end;
    bool all;
    if (w->doc->data)
        for (begin = i; begin > 0 && GETI(w->doc, ROW(w->doc, b) + begin - 1) == GETI(w->doc, ROW(w->doc, b) + i);)
            begin--;
    attention_globals(w->a, i, begin, &first, &end, &all);
    return all || (j >= first && j < end);
}

static bool attention_sees(const attention_view *w, int64_t b, int64_t i, int64_t j) {
    int64_t first, end;
    attention_interval(w, b, i, &first, &end);
    if (w->a->global && !attention_sees_global(w, b, i, j)) attention_range(w->a, i, w->S, &first, &end);
    if (j < first || j >= end) return false;
    return !w->doc->data || GETI(w->doc, ROW(w->doc, b) + i) == GETI(w->doc, ROW(w->doc, b) + j);
}

/* Is the weight of a pair kept? A function of its place alone, so the backward pass asks again. */
static bool attention_kept(const attention_view *w, int64_t b, int64_t h, int64_t i, int64_t j) {
    if (w->a->drop == 0) return true;
    uint64_t row = (uint64_t)(w->row0 + b * w->T + i), element = (uint64_t)h << 32 | (uint64_t)j;
    return rng_uniform(w->key, row, element) >= w->a->drop;
}

static REAL attention_dot(const tl_arg *x, int64_t i, const tl_arg *y, int64_t j, int64_t width) {
    REAL sum = (REAL)0;
    for (int64_t d = 0; d < width; d++) sum = sum + GET(x, i + d) * GET(y, j + d);
    return sum;
}

/* T_ij; *th gets tanh of the capped score, for the backward pass */
static REAL attention_score(const attention_view *w, int64_t b, int64_t h, int64_t i, int64_t j, REAL *th) {
    REAL t = attention_dot(w->q, attention_q_row(w, w->q, b, i, h), w->k, attention_k_row(w, w->k, b, j, h), w->Dh);
    int64_t ahead = j - i - w->a->q_offset;
    t = t * w->scale;
    *th = (REAL)0;
    if (w->a->softcap > 0) {
        *th = real_tanh(t / w->cap);
        t = w->cap * *th;
    }
    if (w->slopes->data) t = t - GET(w->slopes, h) * (REAL)(double)(ahead < 0 ? -ahead : ahead);
    if (w->bias->data) t = t + GET(w->bias, ROW(w->bias, h) + ahead + (w->bias->d.dim[1] - 1) / 2);
    return t;
}

/* One row: output and logsumexp. A largest score of -inf is the same as seeing nothing. */
static void attention_row(const attention_view *w, const tl_op_call *c, int64_t b, int64_t h, int64_t i) {
    const REAL none = (REAL)-INFINITY;
    REAL th, t = none, sum = (REAL)0, top = w->sinks->data ? GET(w->sinks, h) : none;
    int64_t first, end, to = attention_q_row(w, &c->out[0], b, i, h);
    attention_interval(w, b, i, &first, &end);
    for (int64_t j = first; j < end; j++) {
        if (!attention_sees(w, b, i, j)) continue;
        UNCOUNTED(t = attention_score(w, b, h, i, j, &th));
        if (t > top) top = t;
    }
    if (top == none) top = (REAL)0;
    if (w->sinks->data) sum = real_exp(GET(w->sinks, h) - top);
    for (int64_t j = first; j < end; j++)
        if (attention_sees(w, b, i, j)) sum = sum + real_exp(attention_score(w, b, h, i, j, &th) - top);
    bool empty = sum == (REAL)0;
    for (int64_t d0 = 0; d0 < w->Dv; d0 += ATTENTION_CHUNK) {
        REAL out[ATTENTION_CHUNK], p = (REAL)0;
        int64_t width = w->Dv - d0 < ATTENTION_CHUNK ? w->Dv - d0 : ATTENTION_CHUNK;
        for (int64_t d = 0; d < width; d++) out[d] = (REAL)0;
        for (int64_t j = first; j < end; j++) {
            if (!attention_sees(w, b, i, j)) continue;
            int64_t from = attention_k_row(w, w->v, b, j, h) + d0;
            UNCOUNTED(p = real_exp(attention_score(w, b, h, i, j, &th) - top));
            if (!attention_kept(w, b, h, i, j)) p = (REAL)0;
            for (int64_t d = 0; d < width; d++) out[d] = out[d] + p * GET(w->v, from + d);
        }
        for (int64_t d = 0; d < width && w->a->drop > 0 && !empty; d++) out[d] = out[d] * w->up;
        for (int64_t d = 0; d < width; d++) PUT(c, 0, to + d0 + d, empty ? (REAL)0 : out[d] / sum);
    }
    if (WANTS(c, 1)) PUT(c, 1, ROW(&c->out[1], b * w->H + h) + i, empty ? (REAL)INFINITY : top + real_log(sum));
}

void REF(attention)(const tl_op_call *c) {
    attention_view w = attention_open(ATTR(c, attention), c->run, &c->in[0], &c->in[3]);
    for (int64_t b = 0; b < w.B; b++)
        for (int64_t h = 0; h < w.H; h++)
            for (int64_t i = 0; i < w.T; i++) attention_row(&w, c, b, h, i);
}

typedef struct attention_pair {
    REAL p, dt, ds; /* probability as it met v; gradients of T_ij and of q.k */
} attention_pair;

/* D_i = sum over the row of dO O */
static REAL attention_delta(const attention_view *w, const tl_op_call *c, int64_t b, int64_t h, int64_t i) {
    const tl_arg *dy = &c->in[0], *o = &c->in[4];
    return attention_dot(dy, attention_q_row(w, dy, b, i, h), o, attention_q_row(w, o, b, i, h), w->Dv);
}

static attention_pair attention_pair_grad(const attention_view *w, const tl_op_call *c, int64_t b, int64_t h, int64_t i,
                                          int64_t j, REAL delta) {
    const tl_arg *dy = &c->in[0], *lse = &c->in[5];
    attention_pair r;
    REAL th, t = attention_score(w, b, h, i, j, &th);
    r.p = real_exp(t - GET(lse, ROW(lse, b * w->H + h) + i));
    REAL dp = attention_dot(dy, attention_q_row(w, dy, b, i, h), w->v, attention_k_row(w, w->v, b, j, h), w->Dv);
    if (w->a->drop > 0) {
        REAL keep = attention_kept(w, b, h, i, j) ? w->up : (REAL)0;
        dp = dp * keep;
        r.dt = r.p * (dp - delta);
        r.p = r.p * keep;
    } else {
        r.dt = r.p * (dp - delta);
    }
    r.ds = r.dt;
    if (w->a->softcap > 0) r.ds = r.ds * ((REAL)1 - th * th);
    r.ds = r.ds * w->scale;
    return r;
}

/* Every pair's gradient is worked out (and counted) here; later walks repeat it. */
static void attention_bwd_q(const attention_view *w, const tl_op_call *c) {
    for (int64_t h = 0; h < w->H; h++) {
        REAL dsink = (REAL)0;
        for (int64_t b = 0; b < w->B; b++)
            for (int64_t i = 0; i < w->T; i++) {
                REAL delta = attention_delta(w, c, b, h, i);
                const tl_arg *lse = &c->in[5];
                if (WANTS(c, 3))
                    dsink = dsink - real_exp(GET(w->sinks, h) - GET(lse, ROW(lse, b * w->H + h) + i)) * delta;
                for (int64_t d0 = 0; d0 < w->Dh; d0 += ATTENTION_CHUNK) {
                    REAL dq[ATTENTION_CHUNK];
                    int64_t width = w->Dh - d0 < ATTENTION_CHUNK ? w->Dh - d0 : ATTENTION_CHUNK;
                    for (int64_t d = 0; d < width; d++) dq[d] = (REAL)0;
                    for (int64_t j = 0; j < w->S; j++) {
                        attention_pair g;
                        if (!attention_sees(w, b, i, j)) continue;
                        if (d0 == 0)
                            g = attention_pair_grad(w, c, b, h, i, j, delta);
                        else
                            UNCOUNTED(g = attention_pair_grad(w, c, b, h, i, j, delta));
                        int64_t from = attention_k_row(w, w->k, b, j, h) + d0;
                        for (int64_t d = 0; d < width && WANTS(c, 0); d++) dq[d] = dq[d] + g.ds * GET(w->k, from + d);
                    }
                    for (int64_t d = 0; d < width && WANTS(c, 0); d++)
                        PUT(c, 0, attention_q_row(w, &c->out[0], b, i, h) + d0 + d, dq[d]);
                }
            }
        if (WANTS(c, 3)) PUT(c, 3, h, dsink);
    }
}

/* dk (ds against q) or dv (p against dO) of one key head's token, summed over the query heads that share it. */
static void attention_bwd_token(const attention_view *w, const tl_op_call *c, int k, int64_t b, int64_t hk, int64_t j) {
    const tl_arg *with = k == 1 ? w->q : &c->in[0];
    int64_t group = w->H / w->Hk, all = k == 1 ? w->Dh : w->Dv;
    for (int64_t d0 = 0; d0 < all; d0 += ATTENTION_CHUNK) {
        REAL sum[ATTENTION_CHUNK];
        int64_t width = all - d0 < ATTENTION_CHUNK ? all - d0 : ATTENTION_CHUNK;
        for (int64_t d = 0; d < width; d++) sum[d] = (REAL)0;
        for (int64_t h = hk * group; h < (hk + 1) * group; h++)
            for (int64_t i = 0; i < w->T; i++) {
                attention_pair g;
                if (!attention_sees(w, b, i, j)) continue;
                UNCOUNTED(g = attention_pair_grad(w, c, b, h, i, j, attention_delta(w, c, b, h, i)));
                REAL by = k == 1 ? g.ds : g.p;
                int64_t from = attention_q_row(w, with, b, i, h) + d0;
                for (int64_t d = 0; d < width; d++) sum[d] = sum[d] + by * GET(with, from + d);
            }
        for (int64_t d = 0; d < width; d++)
            PUT(c, k, attention_k_row(w, &c->out[k], b, j, hk * group) + d0 + d, sum[d]);
    }
}

/* Element e of head h's table: all pairs at that distance. */
static void attention_bwd_bias(const attention_view *w, const tl_op_call *c, int64_t h, int64_t e) {
    int64_t ahead = e - (w->bias->d.dim[1] - 1) / 2;
    REAL sum = (REAL)0;
    for (int64_t b = 0; b < w->B; b++)
        for (int64_t i = 0; i < w->T; i++) {
            int64_t j = i + w->a->q_offset + ahead;
            attention_pair g;
            if (!attention_sees(w, b, i, j)) continue;
            UNCOUNTED(g = attention_pair_grad(w, c, b, h, i, j, attention_delta(w, c, b, h, i)));
            sum = sum + g.dt;
        }
    PUT(c, 4, ROW(&c->out[4], h) + e, sum);
}

void REF(attention_bwd)(const tl_op_call *c) {
    attention_view w = attention_open(&ATTR(c, attention_bwd)->f, c->run, &c->in[1], &c->in[6]);
    attention_bwd_q(&w, c);
    for (int k = 1; k <= 2; k++)
        for (int64_t b = 0; b < w.B && WANTS(c, k); b++)
            for (int64_t hk = 0; hk < w.Hk; hk++)
                for (int64_t j = 0; j < w.S; j++) attention_bwd_token(&w, c, k, b, hk, j);
    for (int64_t h = 0; h < w.H && WANTS(c, 4); h++)
        for (int64_t e = 0; e < w.bias->d.dim[1]; e++) attention_bwd_bias(&w, c, h, e);
}

#endif
