/* Tables of relative positions (H,2P-1) made from fewer numbers, and their backward forms. Number P-1 + d of a row is
 * the bias of a key d places behind the query (negative: before it). rel_buckets (Raffel et al. 2020): near distances
 * have a number each, farther ones share numbers by the logarithm. rel_toeplitz (Hua et al. 2022): <R_i a, R_j b> of
 * two rotated vectors, which depends on j - i alone: B(d) = sum over k of (a1 b1 + a2 b2)_k cos(d w_k) + (a2 b1 - a1
 * b2)_k sin(d w_k),  w_k = base^(-k/(s/2)). */
#ifndef REAL
#include "op/rules.h"

enum { REL_MOST = 1 << 25, REL_BUCKETS = 1024, REL_WIDE = 1024 };

static tl_status rel_check(const shape_rule *h, int i, int64_t heads, int64_t reach) {
    if (reach < 1 || reach > REL_MOST) return shape_bad_attr(h, "a table for %lld places", (long long)reach);
    TRY(shape_float(h, i));
    TRY(shape_sum(h, i, i));
    TRY(shape_ndim(h, i, 2));
    return shape_dim(h, i, 1, 2 * reach - 1, heads ? "distances" : "2P-1");
}
static tl_status rel_check_buckets(const shape_rule *h, const struct rel_buckets_attr *a) {
    const int32_t ways = a->causal ? 1 : 2;
    if (a->buckets < 2 * ways || a->buckets % ways || a->buckets > REL_BUCKETS || a->distance <= a->buckets / ways / 2)
        return shape_bad_attr(h, "%d buckets for distances up to %d", (int)a->buckets, (int)a->distance);
    if (a->scale - a->scale != 0) return shape_bad_attr(h, "scale %g", (double)a->scale);
    return TL_OK;
}
/* w (H,n) S -> (H,2P-1) */
static tl_status rel_table(const shape_rule *h, int64_t width, int64_t reach) {
    TRY(shape_float(h, 0));
    TRY(shape_sum(h, 0, 0));
    TRY(shape_ndim(h, 0, 2));
    TRY(shape_dim(h, 0, 1, width, "numbers of a head"));
    if (reach < 1 || reach > REL_MOST) return shape_bad_attr(h, "a table for %lld places", (long long)reach);
    shape_out_last(h, 0, 0, 2 * reach - 1, h->s->in[0]->dtype);
    return TL_OK;
}

tl_status rel_buckets_shape(tl_op_infer *s) {
    SHAPE(h, s, "rel_buckets", "w");
    const struct rel_buckets_attr *a = s->attr;
    TRY(rel_check_buckets(&h, a));
    return rel_table(&h, a->buckets, a->reach);
}
void rel_buckets_grad(tl_grad *g) {
    struct rel_buckets_bwd_attr a = {*(const struct rel_buckets_attr *)tl_grad_attr(g)};
    tl_tensor *dy = tl_grad_dy(g, 0);
    tl_grad_emit(g, OP_DEF(rel_buckets_bwd), &a, &dy, 1, (int[1]){grad_to(g, 0)}, 1);
}
void rel_buckets_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->out[0].d), 1, 0);
}

tl_status rel_buckets_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "rel_buckets_bwd", "dy");
    const struct rel_buckets_attr *a = &((const struct rel_buckets_bwd_attr *)s->attr)->f;
    TRY(rel_check_buckets(&h, a));
    TRY(rel_check(&h, 0, 0, a->reach));
    shape_out_last(&h, 0, 0, a->buckets, s->in[0]->dtype);
    return TL_OK;
}
NO_SECOND_GRAD(rel_buckets_bwd)
void rel_buckets_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 1, 0);
    cost_add(cost, tl_desc_count(&c->out[0].d), 1, 0);
}

static int64_t rel_blocks(int64_t P) {
    return (P + 63) / 64;
}
static tl_status rel_check_toeplitz(const shape_rule *h, int64_t width, float base) {
    if (width < 4 || width % 4 || width / 2 > REL_WIDE)
        return shape_bad_attr(h, "two vectors of an even width to %d are needed, not %lld numbers", REL_WIDE,
                              (long long)width);
    return base == 0 || base > 1 ? TL_OK : shape_bad_attr(h, "base %g", (double)base);
}
tl_status rel_toeplitz_shape(tl_op_infer *s) {
    SHAPE(h, s, "rel_toeplitz", "ab");
    const struct rel_toeplitz_attr *a = s->attr;
    TRY(shape_present(&h, 0));
    TRY(rel_check_toeplitz(&h, tl_desc_last(s->in[0]), a->base));
    return rel_table(&h, tl_desc_last(s->in[0]), a->reach);
}
void rel_toeplitz_grad(tl_grad *g) {
    struct rel_toeplitz_bwd_attr a = {*(const struct rel_toeplitz_attr *)tl_grad_attr(g)};
    tl_tensor *in[] = {tl_grad_dy(g, 0), tl_grad_in(g, 0)};
    tl_grad_emit(g, OP_DEF(rel_toeplitz_bwd), &a, in, 2, (int[1]){grad_to(g, 0)}, 1);
}
void rel_toeplitz_cost(const tl_op_call *c, tl_cost *cost) {
    const int64_t n = tl_desc_count(&c->in[0].d) / 4; /* pairs of numbers of all heads */
    const int64_t P = ATTR(c, rel_toeplitz)->reach;
    cost_begin(c, cost);
    cost_add(cost, n * P, 12, 0);
    cost_add(cost, n * rel_blocks(P), 7, 4);
}
tl_status rel_toeplitz_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "rel_toeplitz_bwd", "dy", "ab");
    const struct rel_toeplitz_attr *a = &((const struct rel_toeplitz_bwd_attr *)s->attr)->f;
    TRY(rel_check(&h, 0, 0, a->reach));
    TRY(shape_float(&h, 1));
    TRY(shape_sum(&h, 1, 0));
    TRY(shape_ndim(&h, 1, 2));
    TRY(shape_dim(&h, 1, 0, s->in[0]->dim[0], "heads of dy"));
    TRY(rel_check_toeplitz(&h, tl_desc_last(s->in[1]), a->base));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    return TL_OK;
}
NO_SECOND_GRAD(rel_toeplitz_bwd)
void rel_toeplitz_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const int64_t n = tl_desc_count(&c->in[1].d) / 4, P = ATTR(c, rel_toeplitz_bwd)->f.reach;
    cost_begin(c, cost);
    cost_add(cost, n * P, 12, 0);
    cost_add(cost, n * rel_blocks(P), 1, 4);
    cost_add(cost, n, 12, 0);
}

#else

#include "op/rel_bucket.h"

enum { REL_BLOCK = 64 };

void REF(rel_buckets)(const tl_op_call *c) {
    const struct rel_buckets_attr *a = ATTR(c, rel_buckets);
    const tl_arg *w = &c->in[0];
    const REAL scale = a->scale != 0 ? (REAL)a->scale : (REAL)1;
    for (int64_t h = 0; h < w->d.dim[0]; h++)
        for (int64_t i = 0; i < 2 * a->reach - 1; i++)
            PUT(c, 0, ROW(&c->out[0], h) + i, scale * GET(w, ROW(w, h) + rel_bucket(a, i - (a->reach - 1))));
}

void REF(rel_buckets_bwd)(const tl_op_call *c) {
    const struct rel_buckets_attr *a = &ATTR(c, rel_buckets_bwd)->f;
    const tl_arg *dy = &c->in[0];
    const REAL scale = a->scale != 0 ? (REAL)a->scale : (REAL)1;
    REAL sum[1024];
    for (int64_t h = 0; h < dy->d.dim[0]; h++) {
        for (int64_t k = 0; k < a->buckets; k++) sum[k] = (REAL)0;
        for (int64_t i = 0; i < 2 * a->reach - 1; i++) {
            const int64_t k = rel_bucket(a, i - (a->reach - 1));
            sum[k] = sum[k] + GET(dy, ROW(dy, h) + i);
        }
        for (int64_t k = 0; k < a->buckets; k++) PUT(c, 0, ROW(&c->out[0], h) + k, scale * sum[k]);
    }
}

/* Number k of a and b, in both halves. */
typedef struct rel_pair {
    REAL a1, a2, b1, b2;
} rel_pair;
static rel_pair rel_pair_of(const tl_arg *ab, int64_t row, int64_t half, int64_t k) {
    rel_pair p;
    p.a1 = GET(ab, row + k), p.a2 = GET(ab, row + half + k);
    p.b1 = GET(ab, row + 2 * half + k), p.b2 = GET(ab, row + 3 * half + k);
    return p;
}

/* Angles go by blocks: exact where one begins, turned by w from there on, all in double. */
typedef struct rel_turn {
    WIDE c, s, by_c, by_s;
} rel_turn;
static rel_turn rel_turn_at(const struct rel_toeplitz_attr *a, int64_t half, int64_t k, int64_t d) {
    const double w = pow(a->base > 0 ? (double)a->base : 10000.0, -(double)k / (double)half);
    const WIDE angle = (WIDE)(double)d * (WIDE)w;
    rel_turn t;
    t.c = WIDE_MATH(cos)(angle), t.s = WIDE_MATH(sin)(angle);
    t.by_c = WIDE_MATH(cos)((WIDE)w), t.by_s = WIDE_MATH(sin)((WIDE)w);
    return t;
}
static void rel_turn_on(rel_turn *t) {
    const WIDE c = t->c * t->by_c - t->s * t->by_s;
    t->s = t->s * t->by_c + t->c * t->by_s;
    t->c = c;
}

void REF(rel_toeplitz)(const tl_op_call *c) {
    const struct rel_toeplitz_attr *a = ATTR(c, rel_toeplitz);
    const tl_arg *ab = &c->in[0];
    const int64_t half = tl_desc_last(&ab->d) / 4, P = a->reach;
    for (int64_t h = 0; h < ab->d.dim[0]; h++)
        for (int64_t d0 = 0; d0 < P; d0 += REL_BLOCK) {
            REAL ahead[REL_BLOCK], back[REL_BLOCK];
            const int64_t n = P - d0 < REL_BLOCK ? P - d0 : REL_BLOCK, to = ROW(&c->out[0], h) + P - 1;
            for (int64_t d = 0; d < n; d++) ahead[d] = back[d] = (REAL)0;
            for (int64_t k = 0; k < half; k++) {
                const rel_pair p = rel_pair_of(ab, ROW(ab, h), half, k);
                const REAL even = p.a1 * p.b1 + p.a2 * p.b2, odd = p.a2 * p.b1 - p.a1 * p.b2;
                rel_turn t = rel_turn_at(a, half, k, d0);
                for (int64_t d = 0; d < n; d++) {
                    const REAL x = (REAL)t.c * even, y = (REAL)t.s * odd;
                    ahead[d] = ahead[d] + (x + y);
                    back[d] = back[d] + (x - y);
                    rel_turn_on(&t);
                }
            }
            for (int64_t d = 0; d < n; d++) {
                PUT(c, 0, to + d0 + d, ahead[d]);
                if (d0 + d > 0) PUT(c, 0, to - d0 - d, back[d]);
            }
        }
}

void REF(rel_toeplitz_bwd)(const tl_op_call *c) {
    const struct rel_toeplitz_attr *a = &ATTR(c, rel_toeplitz_bwd)->f;
    const tl_arg *dy = &c->in[0], *ab = &c->in[1];
    const int64_t half = tl_desc_last(&ab->d) / 4, P = a->reach;
    for (int64_t h = 0; h < ab->d.dim[0]; h++)
        for (int64_t k = 0; k < half; k++) {
            const int64_t mid = ROW(dy, h) + P - 1, to = ROW(&c->out[0], h) + k;
            REAL even = (REAL)0, odd = (REAL)0;
            for (int64_t d0 = 0; d0 < P; d0 += REL_BLOCK) {
                rel_turn t = rel_turn_at(a, half, k, d0);
                for (int64_t d = d0; d < P && d < d0 + REL_BLOCK; d++) {
                    const REAL ahead = GET(dy, mid + d), back = d > 0 ? GET(dy, mid - d) : (REAL)0;
                    even = even + (REAL)t.c * (ahead + back);
                    odd = odd + (REAL)t.s * (ahead - back);
                    rel_turn_on(&t);
                }
            }
            const rel_pair p = rel_pair_of(ab, ROW(ab, h), half, k);
            PUT(c, 0, to, even * p.b1 - odd * p.b2);
            PUT(c, 0, to + half, even * p.b2 + odd * p.b1);
            PUT(c, 0, to + 2 * half, even * p.a1 + odd * p.a2);
            PUT(c, 0, to + 3 * half, even * p.a2 - odd * p.a1);
        }
}

#endif
