/* concat: tensors side by side along the last dimension. Its gradient is split: windows of dy. */
#ifndef REAL
#include "op/rules.h"

tl_status concat_shape(tl_op_infer *s) {
    SHAPE(h, s, "concat", "x0", "x1", "x2", "x3", "x4", "x5");
    int n = ATTR(s, concat)->n;
    if (n < 1 || n > 6) return shape_bad_attr(&h, "%d parts given, not 1 to 6", n);
    int64_t width = 0;
    for (int k = 0; k < n; k++) {
        TRY(shape_present(&h, k));
        TRY(shape_min_ndim(&h, k, 1));
        TRY(shape_same_dtype(&h, k, 0));
        TRY(shape_leading(&h, k, 0));
        if (__builtin_add_overflow(width, tl_desc_last(s->in[k]), &width))
            return shape_refuse(&h, k, TL_SHAPE, "the widths together overflow");
    }
    for (int k = n; k < 6; k++)
        if (shape_has(&h, k)) return shape_refuse(&h, k, TL_ARG, "only %d parts were announced", n);
    shape_out_last(&h, 0, 0, width, s->in[0]->dtype);
    return TL_OK;
}

void concat_grad(tl_grad *g) {
    const struct concat_attr *f = tl_grad_attr(g);
    struct split_attr a = {f->n, 0, {0}};
    int to[TL_OP_OUTS];
    for (int k = 0; k < f->n; k++) {
        a.width[k] = tl_desc_last(tl_tensor_desc(tl_grad_in(g, k)));
        to[k] = grad_to(g, k);
    }
    tl_grad_emit(g, OP_DEF(split), &a, (tl_tensor *[1]){tl_grad_dy(g, 0)}, 1, to, f->n);
}

void concat_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
}

#else

void REF(concat)(const tl_op_call *c) {
    const tl_arg *y = &c->out[0];
    int64_t rows = tl_desc_rows(&y->d), to = 0;
    for (int k = 0; k < ATTR(c, concat)->n; k++) {
        const tl_arg *x = &c->in[k];
        int64_t width = tl_desc_last(&x->d);
        for (int64_t r = 0; r < rows; r++) ref_move(y, ROW(y, r) + to, x, ROW(x, r), width);
        to += width;
    }
}

#endif
