/* global_norm: the length of all gradients together, summed in fixed blocks so that it does not depend on threads. */
#ifndef REAL

#include "op/rules.h"

enum { GLOBAL_NORM_BLOCK = 4096 };

tl_status global_norm_shape(tl_op_infer *s) {
    SHAPE(h, s, "global_norm", "x");
    TRY(shape_float(&h, 0));
    if (tensor_sum_dtype(s->in[0]->dtype) != s->in[0]->dtype)
        return shape_refuse(&h, 0, TL_DTYPE, "it must be f32 or f64");
    shape_out_vector(&h, 0, 1, s->in[0]->dtype);
    return TL_OK;
}

NO_GRAD(global_norm, "it belongs to the optimizer, not to the model")

void global_norm_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t n = tl_desc_count(&c->in[0].d);
    cost_begin(c, cost);
    cost_add(cost, n, 2, 0);
    cost_add(cost, (n + GLOBAL_NORM_BLOCK - 1) / GLOBAL_NORM_BLOCK, 1, 0);
    cost_add(cost, 1, 0, 1);
}

#else

void REF(global_norm)(const tl_op_call *c) {
    enum { BLOCK = 4096 };
    const tl_arg *x = &c->in[0];
    int64_t count = tl_desc_count(&x->d);
    REAL total = (REAL)0;
    for (int64_t at = 0; at < count; at += BLOCK) {
        REAL sum = (REAL)0;
        for (int64_t i = at; i < count && i < at + BLOCK; i++) {
            REAL v = GET(x, AT(x, i));
            sum = sum + v * v;
        }
        total = total + sum;
    }
    PUT(c, 0, 0, real_sqrt(total));
}

#endif
