/* scale: y = by x. By 0 it gives zeros and does not read x, whatever x holds: the zero tensor of gradient rules. */
#ifndef REAL
#include "op/rules.h"

tl_status scale_shape(tl_op_infer *s) {
    SHAPE(h, s, "scale", "x");
    TRY(shape_float(&h, 0));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void scale_grad(tl_grad *g) {
    tl_grad_emit(g, OP_DEF(scale), tl_grad_attr(g), (tl_tensor *[1]){tl_grad_dy(g, 0)}, 1, (int[1]){0}, 1);
}

void scale_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    if (ATTR(c, scale)->by == 0)
        cost->bytes_read -= cost_bytes(&c->in[0].d);
    else
        cost_add(cost, tl_desc_count(&c->in[0].d), 1, 0);
}

#else

void REF(scale)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    REAL by = (REAL)ATTR(c, scale)->by, zero = (REAL)0;
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, by == zero ? zero : by * GET(x, at + d));
    }
}

#endif
