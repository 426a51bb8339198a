/* mul: y = a b, element by element;  da = dy b,  db = dy a. */
#ifndef REAL
#include "op/rules.h"

tl_status mul_shape(tl_op_infer *s) {
    SHAPE(h, s, "mul", "a", "b");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_same_dtype(&h, 1, 0));
    TRY(shape_same(&h, 1, 0));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void mul_grad(tl_grad *g) {
    struct mul_attr a = {0};
    for (int i = 0; i < 2; i++)
        if (tl_grad_needs(g, i))
            tl_grad_emit(g, OP_DEF(mul), &a, (tl_tensor *[2]){tl_grad_dy(g, 0), tl_grad_in(g, 1 - i)}, 2, &i, 1);
}

void mul_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 1, 0);
}

#else

void REF(mul)(const tl_op_call *c) {
    const tl_arg *a = &c->in[0], *b = &c->in[1];
    int64_t rows = tl_desc_rows(&a->d), D = tl_desc_last(&a->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(a, r), b_at = ROW(b, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, GET(a, at + d) * GET(b, b_at + d));
    }
}

#endif
