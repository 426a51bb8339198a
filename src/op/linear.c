/* linear: y = x w^T + b, and its two products backward, dx = dy w and dw = dy^T x (db = column sums of dy).
 * The weight may be stored in quantized blocks; then it has no gradient. */
#ifndef REAL
#include "op/rules.h"

tl_status linear_shape(tl_op_infer *s) {
    SHAPE(h, s, "linear", "x", "w", "b");
    TRY(shape_float(&h, 0));
    TRY(shape_weight(&h, 1));
    TRY(shape_mix(&h, 1, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    TRY(shape_ndim(&h, 1, 2));
    TRY(shape_dim(&h, 1, 1, tl_desc_last(s->in[0]), "K of x"));
    if (shape_has(&h, 2)) TRY(shape_vector(&h, 2, s->in[1]->dim[0], 0, "N of w"));
    struct linear_attr *a = s->attr;
    if (a->dtype == TL_NONE) a->dtype = s->in[0]->dtype;
    TRY(shape_attr_dtype(&h, a->dtype, 0));
    shape_out_last(&h, 0, 0, s->in[1]->dim[0], a->dtype);
    return TL_OK;
}

void linear_grad(tl_grad *g) {
    tl_tensor *dy = tl_grad_dy(g, 0), *x = tl_grad_in(g, 0), *w = tl_grad_in(g, 1);
    if (tl_grad_needs(g, 0)) {
        struct linear_dx_attr a = {tl_tensor_desc(x)->dtype};
        tl_grad_emit(g, OP_DEF(linear_dx), &a, (tl_tensor *[2]){dy, w}, 2, (int[1]){0}, 1);
    }
    if (tl_grad_needs(g, 1) && tensor_is_quantized(tl_tensor_desc(w)->dtype)) {
        tl_grad_refuse(g, "linear: a quantized weight has no gradient; train a low-rank addition instead");
        return;
    }
    struct linear_dw_attr a = {0};
    int to[2] = {grad_to(g, 1), grad_to(g, 2)};
    if (to[0] >= 0 || to[1] >= 0) tl_grad_emit(g, OP_DEF(linear_dw), &a, (tl_tensor *[2]){dy, x}, 2, to, 2);
}

void linear_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[0].d), K = tl_desc_last(&c->in[0].d), N = c->in[1].d.dim[0];
    cost_begin(c, cost);
    cost_add(cost, rows * N, 2 * (double)K + (cost_in(c, 2) ? 1 : 0), 0);
}

tl_status linear_dx_shape(tl_op_infer *s) {
    SHAPE(h, s, "linear_dx", "dy", "w");
    TRY(shape_float(&h, 0));
    TRY(shape_weight(&h, 1));
    TRY(shape_mix(&h, 1, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    TRY(shape_ndim(&h, 1, 2));
    TRY(shape_dim(&h, 1, 0, tl_desc_last(s->in[0]), "N of dy"));
    struct linear_dx_attr *a = s->attr;
    if (a->dtype == TL_NONE) a->dtype = s->in[0]->dtype;
    TRY(shape_attr_dtype(&h, a->dtype, 0));
    shape_out_last(&h, 0, 0, s->in[1]->dim[1], a->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(linear_dx)

void linear_dx_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[0].d), N = c->in[1].d.dim[0], K = c->in[1].d.dim[1];
    cost_begin(c, cost);
    cost_add(cost, rows * K, 2 * (double)N, 0);
}

tl_status linear_dw_shape(tl_op_infer *s) {
    SHAPE(h, s, "linear_dw", "dy", "x");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 1, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    TRY(shape_leading(&h, 1, 0));
    int64_t N = tl_desc_last(s->in[0]), K = tl_desc_last(s->in[1]);
    tl_dtype sum = tensor_sum_dtype(s->in[0]->dtype);
    shape_out(&h, 0, sum, 2, (int64_t[2]){N, K});
    shape_out_vector(&h, 1, N, sum);
    return TL_OK;
}

NO_SECOND_GRAD(linear_dw)

void linear_dw_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[0].d), N = tl_desc_last(&c->in[0].d), K = tl_desc_last(&c->in[1].d);
    cost_begin(c, cost);
    if (cost_out(c, 0)) cost_add(cost, rows * N, 2 * (double)K, 0);
    if (cost_out(c, 1)) cost_add(cost, rows * N, 1, 0);
}

#else

void REF(linear)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    int64_t rows = tl_desc_rows(&x->d), K = tl_desc_last(&x->d), N = w->d.dim[0];
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        for (int64_t n = 0; n < N; n++) {
            int64_t w_at = ROW(w, n);
            REAL sum = (REAL)0;
            for (int64_t k = 0; k < K; k++) sum = sum + GET(x, at + k) * GET(w, w_at + k);
            PUT(c, 0, to + n, b->data ? sum + GET(b, n) : sum);
        }
    }
}

void REF(linear_dx)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *w = &c->in[1];
    int64_t rows = tl_desc_rows(&dy->d), N = w->d.dim[0], K = w->d.dim[1];
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(dy, r), to = ROW(&c->out[0], r);
        for (int64_t k = 0; k < K; k++) {
            REAL sum = (REAL)0;
            for (int64_t n = 0; n < N; n++) sum = sum + GET(dy, at + n) * GET(w, ROW(w, n) + k);
            PUT(c, 0, to + k, sum);
        }
    }
}

void REF(linear_dw)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1];
    int64_t rows = tl_desc_rows(&dy->d), N = tl_desc_last(&dy->d), K = tl_desc_last(&x->d);
    for (int64_t n = 0; WANTS(c, 0) && n < N; n++)
        for (int64_t k = 0; k < K; k++) {
            REAL sum = (REAL)0;
            for (int64_t r = 0; r < rows; r++) sum = sum + GET(dy, ROW(dy, r) + n) * GET(x, ROW(x, r) + k);
            PUT(c, 0, ROW(&c->out[0], n) + k, sum);
        }
    for (int64_t n = 0; WANTS(c, 1) && n < N; n++) {
        REAL sum = (REAL)0;
        for (int64_t r = 0; r < rows; r++) sum = sum + GET(dy, ROW(dy, r) + n);
        PUT(c, 1, n, sum);
    }
}

#endif
