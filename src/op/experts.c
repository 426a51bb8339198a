/* expert_sort, expert_linear and its two products backward, expert_sum: tokens to experts and back. What goes to one
 * expert lies together, so that a product reads each matrix once, and none that nobody chose. */
#ifndef REAL
#include "op/rules.h"

tl_status expert_sort_shape(tl_op_infer *s) {
    int64_t E = ATTR(s, expert_sort)->experts;
    SHAPE(h, s, "expert_sort", "id");
    TRY(shape_dtype(&h, 0, TL_I32));
    TRY(shape_min_ndim(&h, 0, 2));
    if (E < 1 || E > INT32_MAX - 1) return shape_bad_attr(&h, "%lld experts", (long long)E);
    if (tl_desc_count(s->in[0]) > INT32_MAX) return shape_refuse(&h, 0, TL_LIMIT, "too many entries");
    shape_out_vector(&h, 0, tl_desc_count(s->in[0]), TL_I32);
    shape_out_like(&h, 1, 0, TL_I32);
    shape_out_vector(&h, 2, E + 1, TL_I32);
    return TL_OK;
}

NO_GRAD(expert_sort, "an order has no derivative")

void expert_sort_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
}

/* begin (E+1), and a matrix of as many equal parts */
static tl_status experts_begin(const shape_rule *h, int begin, int w, int64_t *rows) {
    TRY(shape_dtype(h, begin, TL_I32));
    TRY(shape_ndim(h, begin, 1));
    int64_t E = h->s->in[begin]->dim[0] - 1, all = w >= 0 ? h->s->in[w]->dim[0] : 0;
    if (E < 1) return shape_refuse(h, begin, TL_SHAPE, "it has a number more than there are experts");
    if (w >= 0 && all % E) return shape_refuse(h, w, TL_SHAPE, "%lld experts cannot share its rows", (long long)E);
    *rows = all / E;
    return TL_OK;
}

static tl_status experts_product(tl_op_infer *s, const shape_rule *h, bool back) {
    int64_t N;
    TRY(shape_float(h, 0));
    TRY(shape_ndim(h, 0, 2));
    TRY(shape_weight(h, 1));
    TRY(shape_ndim(h, 1, 2));
    TRY(shape_mix(h, 1, 0));
    TRY(experts_begin(h, 2, 1, &N));
    TRY(shape_dim(h, 0, 1, back ? N : s->in[1]->dim[1], back ? "N of w" : "K of w"));
    shape_out_last(h, 0, 0, back ? s->in[1]->dim[1] : N, s->in[0]->dtype);
    return TL_OK;
}

tl_status expert_linear_shape(tl_op_infer *s) {
    SHAPE(h, s, "expert_linear", "x", "w", "begin");
    return experts_product(s, &h, false);
}

void expert_linear_grad(tl_grad *g) {
    tl_tensor *dy = tl_grad_dy(g, 0), *x = tl_grad_in(g, 0), *w = tl_grad_in(g, 1), *begin = tl_grad_in(g, 2);
    struct expert_linear_dx_attr a = {0};
    struct expert_linear_dw_attr b = {0};
    if (tl_grad_needs(g, 0))
        tl_grad_emit(g, OP_DEF(expert_linear_dx), &a, (tl_tensor *[]){dy, w, begin}, 3, (int[]){0}, 1);
    if (!tl_grad_needs(g, 1)) return;
    if (tensor_is_quantized(tl_tensor_desc(w)->dtype))
        tl_grad_refuse(g, "expert_linear: quantized experts have no gradient");
    else
        tl_grad_emit(g, OP_DEF(expert_linear_dw), &b, (tl_tensor *[]){dy, x, begin}, 3, (int[]){1}, 1);
}

/* Of the matrices at most one for each row is read. */
static void experts_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = c->in[0].d.dim[0], E = c->in[2].d.dim[0] - 1;
    cost_begin(c, cost);
    if (rows < E) cost->bytes_read -= cost_bytes(&c->in[1].d) * (double)(E - rows) / (double)E;
    cost_add(cost, tl_desc_count(&c->in[0].d) * tl_desc_last(&c->out[0].d), 2, 0);
}

void expert_linear_cost(const tl_op_call *c, tl_cost *cost) {
    experts_cost(c, cost);
}

tl_status expert_linear_dx_shape(tl_op_infer *s) {
    SHAPE(h, s, "expert_linear_dx", "dy", "w", "begin");
    return experts_product(s, &h, true);
}

NO_SECOND_GRAD(expert_linear_dx)

void expert_linear_dx_cost(const tl_op_call *c, tl_cost *cost) {
    experts_cost(c, cost);
}

tl_status expert_linear_dw_shape(tl_op_infer *s) {
    SHAPE(h, s, "expert_linear_dw", "dy", "x", "begin");
    int64_t none;
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 1, 0));
    TRY(shape_ndim(&h, 0, 2));
    TRY(shape_ndim(&h, 1, 2));
    TRY(shape_leading(&h, 1, 0));
    TRY(experts_begin(&h, 2, -1, &none));
    int64_t dim[2] = {(s->in[2]->dim[0] - 1) * s->in[0]->dim[1], s->in[1]->dim[1]};
    shape_out(&h, 0, tensor_sum_dtype(s->in[0]->dtype), 2, dim);
    return TL_OK;
}

NO_SECOND_GRAD(expert_linear_dw)

void expert_linear_dw_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d) * c->in[1].d.dim[1], 2, 0);
}

tl_status expert_sum_shape(tl_op_infer *s) {
    SHAPE(h, s, "expert_sum", "x", "w", "place");
    TRY(shape_float(&h, 0));
    TRY(shape_ndim(&h, 0, 2));
    TRY(shape_float(&h, 1));
    TRY(shape_sum(&h, 1, 0));
    TRY(shape_min_ndim(&h, 1, 2));
    TRY(shape_dtype(&h, 2, TL_I32));
    TRY(shape_same(&h, 2, 1));
    TRY(shape_dim(&h, 0, 0, tl_desc_count(s->in[1]), "the entries of w"));
    shape_out_last(&h, 0, 1, s->in[0]->dim[1], s->in[0]->dtype);
    return TL_OK;
}

void expert_sum_grad(tl_grad *g) {
    struct expert_sum_bwd_attr a = {0};
    tl_tensor *in[4] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1), tl_grad_in(g, 2)};
    tl_grad_emit(g, OP_DEF(expert_sum_bwd), &a, in, 4, (int[]){grad_to(g, 0), grad_to(g, 1)}, 2);
}

void expert_sum_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 2, 0);
}

tl_status expert_sum_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "expert_sum_bwd", "dy", "x", "w", "place");
    TRY(shape_float(&h, 1));
    TRY(shape_ndim(&h, 1, 2));
    TRY(shape_float(&h, 2));
    TRY(shape_sum(&h, 2, 1));
    TRY(shape_min_ndim(&h, 2, 2));
    TRY(shape_dtype(&h, 3, TL_I32));
    TRY(shape_same(&h, 3, 2));
    TRY(shape_dim(&h, 1, 0, tl_desc_count(s->in[2]), "the entries of w"));
    TRY(shape_float(&h, 0));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_leading(&h, 0, 2));
    TRY(shape_dim(&h, 0, -1, s->in[1]->dim[1], "D of x"));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    shape_out_like(&h, 1, 2, s->in[2]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(expert_sum_bwd)

void expert_sum_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t count = tl_desc_count(&c->in[1].d);
    cost_begin(c, cost);
    if (cost_out(c, 0)) cost_add(cost, count, 1, 0);
    if (cost_out(c, 1)) cost_add(cost, count, 2, 0);
}

#else

/* Counting sort: entries of one expert in the order of their tokens. */
void REF(expert_sort)(const tl_op_call *c) {
    const tl_arg *id = &c->in[0];
    int64_t P = tl_desc_count(&id->d), k = tl_desc_last(&id->d), E = ATTR(c, expert_sort)->experts;
    int32_t *token = (int32_t *)c->out[0].data, *place = (int32_t *)c->out[1].data, *begin = (int32_t *)c->out[2].data;
    if (begin) /* counts of experts before, one place ahead; then where the next of each goes */
        for (int64_t e = 0; e <= E; e++) begin[e] = 0;
    for (int64_t p = 0; token && p < P; p++) token[p] = -1;
    for (int64_t p = 0; place && p < P; p++) place[AT(&c->out[1], p)] = -1;
    if (!begin) return;
    for (int64_t p = 0; p < P; p++) {
        int64_t e = GETI(id, AT(id, p));
        if (e >= 0 && e < E) begin[e + 1]++;
    }
    for (int64_t e = 0; e < E; e++) begin[e + 1] += begin[e];
    for (int64_t p = 0; p < P; p++) {
        int64_t e = GETI(id, AT(id, p));
        if (e < 0 || e >= E) continue;
        int32_t at = begin[e]++;
        if (token) token[at] = (int32_t)(p / k);
        if (place) place[AT(&c->out[1], p)] = at;
    }
    for (int64_t e = E; e > 0; e--) begin[e] = begin[e - 1];
    begin[0] = 0;
}

void REF(expert_linear)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *w = &c->in[1], *begin = &c->in[2];
    int64_t E = begin->d.dim[0] - 1, K = w->d.dim[1], N = w->d.dim[0] / E, P = x->d.dim[0], p = 0;
    for (int64_t e = 0; e < E; e++)
        for (; p < P && p < GETI(begin, e + 1); p++)
            for (int64_t n = 0; n < N; n++) {
                int64_t at = ROW(x, p), w_at = ROW(w, e * N + n);
                REAL sum = (REAL)0;
                for (int64_t k = 0; k < K; k++) sum = sum + GET(x, at + k) * GET(w, w_at + k);
                PUT(c, 0, ROW(&c->out[0], p) + n, sum);
            }
    for (; p < P; p++)
        for (int64_t n = 0; n < N; n++) PUT(c, 0, ROW(&c->out[0], p) + n, (REAL)0);
}

void REF(expert_linear_dx)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *w = &c->in[1], *begin = &c->in[2];
    int64_t E = begin->d.dim[0] - 1, K = w->d.dim[1], N = w->d.dim[0] / E, P = dy->d.dim[0], p = 0;
    for (int64_t e = 0; e < E; e++)
        for (; p < P && p < GETI(begin, e + 1); p++)
            for (int64_t k = 0; k < K; k++) {
                int64_t at = ROW(dy, p);
                REAL sum = (REAL)0;
                for (int64_t n = 0; n < N; n++) sum = sum + GET(dy, at + n) * GET(w, ROW(w, e * N + n) + k);
                PUT(c, 0, ROW(&c->out[0], p) + k, sum);
            }
    for (; p < P; p++)
        for (int64_t k = 0; k < K; k++) PUT(c, 0, ROW(&c->out[0], p) + k, (REAL)0);
}

void REF(expert_linear_dw)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1], *begin = &c->in[2];
    int64_t E = begin->d.dim[0] - 1, K = x->d.dim[1], N = dy->d.dim[1], P = x->d.dim[0];
    for (int64_t e = 0; e < E; e++)
        for (int64_t n = 0; n < N; n++)
            for (int64_t k = 0; k < K; k++) {
                REAL sum = (REAL)0;
                for (int64_t p = GETI(begin, e) > 0 ? GETI(begin, e) : 0; p < P && p < GETI(begin, e + 1); p++)
                    sum = sum + GET(dy, ROW(dy, p) + n) * GET(x, ROW(x, p) + k);
                PUT(c, 0, ROW(&c->out[0], e * N + n) + k, sum);
            }
}

void REF(expert_sum)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *w = &c->in[1], *place = &c->in[2];
    int64_t rows = tl_desc_rows(&w->d), k = tl_desc_last(&w->d), D = x->d.dim[1];
    for (int64_t n = 0; n < rows; n++)
        for (int64_t d = 0; d < D; d++) {
            REAL sum = (REAL)0;
            for (int64_t j = 0; j < k; j++) {
                int64_t p = GETI(place, ROW(place, n) + j);
                if (p >= 0 && p < x->d.dim[0]) sum = sum + GET(w, ROW(w, n) + j) * GET(x, ROW(x, p) + d);
            }
            PUT(c, 0, ROW(&c->out[0], n) + d, sum);
        }
}

void REF(expert_sum_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1], *w = &c->in[2], *place = &c->in[3], *dx = &c->out[0];
    int64_t rows = tl_desc_rows(&w->d), k = tl_desc_last(&w->d), D = x->d.dim[1], used = 0;
    for (int64_t n = 0; n < rows; n++)
        for (int64_t j = 0; j < k; j++) {
            int64_t p = GETI(place, ROW(place, n) + j);
            REAL weight = GET(w, ROW(w, n) + j), sum = (REAL)0;
            bool has = p >= 0 && p < x->d.dim[0];
            used += has;
            for (int64_t d = 0; has && d < D; d++) {
                REAL g = GET(dy, ROW(dy, n) + d);
                if (WANTS(c, 0)) PUT(c, 0, ROW(dx, p) + d, weight * g);
                if (WANTS(c, 1)) sum = sum + g * GET(x, ROW(x, p) + d);
            }
            PUT(c, 1, ROW(&c->out[1], n) + j, sum);
        }
    for (; used < x->d.dim[0]; used++) /* sorted entries fill the front */
        for (int64_t d = 0; WANTS(c, 0) && d < D; d++) PUT(c, 0, ROW(dx, used) + d, (REAL)0);
}

#endif
