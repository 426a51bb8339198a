/* reduce: sums or means: over everything, over the rows, or over the last dimension. Its adjoint is broadcast. */
#ifndef REAL
#include "op/rules.h"

tl_status reduce_shape(tl_op_infer *s) {
    SHAPE(h, s, "reduce", "x");
    const tl_desc *x = s->in[0];
    TRY(shape_float(&h, 0));
    TRY(shape_attr_kind(&h, ATTR(s, reduce)->kind, 3));
    TRY(shape_min_ndim(&h, 0, 1));
    switch (ATTR(s, reduce)->kind) {
    case REDUCE_ALL: shape_out_vector(&h, 0, 1, tensor_sum_dtype(x->dtype)); break;
    case REDUCE_ROWS: shape_out_vector(&h, 0, tl_desc_last(x), tensor_sum_dtype(x->dtype)); break;
    default:
        if (x->ndim == 1)
            shape_out_vector(&h, 0, 1, x->dtype);
        else
            shape_out(&h, 0, x->dtype, x->ndim - 1, x->dim);
    }
    return TL_OK;
}

void reduce_grad(tl_grad *g) {
    const struct reduce_attr *f = tl_grad_attr(g);
    const tl_desc *x = tl_tensor_desc(tl_grad_in(g, 0));
    struct broadcast_attr a = {f->kind, f->mean, x->ndim, x->dtype, {0}};
    for (int i = 0; i < x->ndim; i++) a.dim[i] = x->dim[i];
    tl_grad_emit(g, OP_DEF(broadcast), &a, (tl_tensor *[1]){tl_grad_dy(g, 0)}, 1, (int[1]){0}, 1);
}

void reduce_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 1, 0);
    if (ATTR(c, reduce)->mean) cost_add(cost, tl_desc_count(&c->out[0].d), 0, 1);
}

#else

static inline void REF(reduce_put)(const tl_op_call *c, int64_t i, REAL sum, int64_t n) {
    PUT(c, 0, i, ATTR(c, reduce)->mean ? sum / (REAL)n : sum);
}

/* Offset of element i, counted over all dimensions, in an output that may be strided. */
static inline int64_t REF(reduce_at)(const tl_arg *y, int64_t i) {
    int64_t last = tl_desc_last(&y->d);
    return ROW(y, i / last) + i % last;
}

void REF(reduce)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    REAL all = (REAL)0;
    switch (ATTR(c, reduce)->kind) {
    case REDUCE_ALL:
        for (int64_t r = 0; r < rows; r++)
            for (int64_t d = 0; d < D; d++) all = all + GET(x, ROW(x, r) + d);
        REF(reduce_put)(c, 0, all, rows * D);
        break;
    case REDUCE_ROWS:
        for (int64_t d = 0; d < D; d++) {
            REAL sum = (REAL)0;
            for (int64_t r = 0; r < rows; r++) sum = sum + GET(x, ROW(x, r) + d);
            REF(reduce_put)(c, d, sum, rows);
        }
        break;
    default:
        for (int64_t r = 0; r < rows; r++) {
            REAL sum = (REAL)0;
            for (int64_t d = 0; d < D; d++) sum = sum + GET(x, ROW(x, r) + d);
            REF(reduce_put)(c, REF(reduce_at)(&c->out[0], r), sum, D);
        }
    }
}

#endif
