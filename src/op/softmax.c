/* softmax over the last dimension: y = exp(x - max) / sum of exp(x - max);  dx = y (dy - sum(y dy)). */
#ifndef REAL
#include "op/rules.h"

tl_status softmax_shape(tl_op_infer *s) {
    SHAPE(h, s, "softmax", "x");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void softmax_grad(tl_grad *g) {
    struct softmax_bwd_attr a = {0};
    tl_grad_emit(g, OP_DEF(softmax_bwd), &a, (tl_tensor *[2]){tl_grad_dy(g, 0), tl_grad_out(g, 0)}, 2, (int[1]){0}, 1);
}

void softmax_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    /* the exponential is taken twice: once for the sum, once for the result */
    cost_add(cost, tl_desc_count(&c->in[0].d), 3, 3);
}

tl_status softmax_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "softmax_bwd", "dy", "y");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_min_ndim(&h, 1, 1));
    TRY(shape_same(&h, 0, 1));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(softmax_bwd)

void softmax_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 4, 0);
}

#else

void REF(softmax)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; D && r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        REAL max = GET(x, at), sum = (REAL)0;
        for (int64_t d = 1; d < D; d++) max = real_max(max, GET(x, at + d));
        for (int64_t d = 0; d < D; d++) sum = sum + real_exp(GET(x, at + d) - max);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, real_exp(GET(x, at + d) - max) / sum);
    }
}

void REF(softmax_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *y = &c->in[1];
    int64_t rows = tl_desc_rows(&y->d), D = tl_desc_last(&y->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t dy_at = ROW(dy, r), at = ROW(y, r), to = ROW(&c->out[0], r);
        REAL sum = (REAL)0;
        for (int64_t d = 0; d < D; d++) sum = sum + GET(y, at + d) * GET(dy, dy_at + d);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, GET(y, at + d) * (GET(dy, dy_at + d) - sum));
    }
}

#endif
