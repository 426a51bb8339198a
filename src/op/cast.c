/* cast: y = x in another float dtype, rounded to nearest even; to the same dtype it is a contiguous copy. Quantized
 * blocks can be read, not written. */
#ifndef REAL
#include "op/rules.h"

tl_status cast_shape(tl_op_infer *s) {
    SHAPE(h, s, "cast", "x");
    struct cast_attr *a = s->attr;
    TRY(shape_weight(&h, 0));
    if (a->dtype == TL_NONE && !tensor_is_quantized(s->in[0]->dtype)) a->dtype = s->in[0]->dtype;
    if (!tensor_is_float(a->dtype))
        return shape_bad_attr(&h, "to %s; it must be f32, f64, bf16 or f16", tl_dtype_name(a->dtype));
    shape_out_like(&h, 0, 0, a->dtype);
    return TL_OK;
}

void cast_grad(tl_grad *g) {
    struct cast_attr a = {tl_tensor_desc(tl_grad_in(g, 0))->dtype};
    if (tensor_is_quantized(a.dtype)) {
        tl_grad_refuse(g, "cast: quantized blocks have no gradient");
        return;
    }
    tl_grad_emit(g, OP_DEF(cast), &a, (tl_tensor *[1]){tl_grad_dy(g, 0)}, 1, (int[1]){0}, 1);
}

void cast_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
}

#else

void REF(cast)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, GET(x, at + d));
    }
}

#endif
