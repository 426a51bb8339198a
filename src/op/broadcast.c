/* broadcast: spreads y over the dimensions attr.dim, the adjoint of reduce; a mean divides by the count. */
#ifndef REAL
#include "op/rules.h"

tl_status broadcast_shape(tl_op_infer *s) {
    SHAPE(h, s, "broadcast", "y");
    struct broadcast_attr *a = s->attr;
    TRY(shape_float(&h, 0));
    TRY(shape_attr_kind(&h, a->kind, 3));
    if (a->ndim < 1 || a->ndim > TL_DIMS) return shape_bad_attr(&h, "dimensions wanted: %d, not 1 to 4", (int)a->ndim);
    if (a->dtype == TL_NONE) a->dtype = s->in[0]->dtype;
    TRY(shape_attr_dtype(&h, a->dtype, 0));
    tl_desc x = tl_desc_make(a->dtype, a->ndim, a->dim), y = tl_desc_make(a->dtype, 1, (int64_t[1]){1});
    if (!tensor_valid(&x)) return shape_bad_attr(&h, "no tensor can have the shape wanted");
    if (a->kind == REDUCE_ROWS) y.dim[0] = tl_desc_last(&x);
    if (a->kind == REDUCE_LAST && x.ndim > 1) y = tl_desc_make(a->dtype, x.ndim - 1, x.dim);
    char want[120];
    if (!tl_desc_same_shape(s->in[0], &y))
        return shape_refuse(&h, 0, TL_SHAPE, "its shape must be that of %s", tensor_print(&y, want, sizeof want));
    shape_out(&h, 0, a->dtype, a->ndim, a->dim);
    return TL_OK;
}

void broadcast_grad(tl_grad *g) {
    const struct broadcast_attr *f = tl_grad_attr(g);
    struct reduce_attr a = {f->kind, f->mean};
    tl_grad_emit(g, OP_DEF(reduce), &a, (tl_tensor *[1]){tl_grad_dy(g, 0)}, 1, (int[1]){0}, 1);
}

void broadcast_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    if (ATTR(c, broadcast)->mean) cost_add(cost, tl_desc_count(&c->in[0].d), 0, 1);
}

#else

static inline REAL REF(broadcast_value)(const tl_op_call *c, int64_t i, int64_t n) {
    const tl_arg *y = &c->in[0];
    int64_t last = tl_desc_last(&y->d);
    REAL v = GET(y, ROW(y, i / last) + i % last);
    return ATTR(c, broadcast)->mean ? v / (REAL)n : v;
}

void REF(broadcast)(const tl_op_call *c) {
    const tl_arg *x = &c->out[0];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    if (!rows || !D) return;
    switch (ATTR(c, broadcast)->kind) {
    case REDUCE_ALL: {
        REAL v = REF(broadcast_value)(c, 0, rows * D);
        for (int64_t r = 0; r < rows; r++)
            for (int64_t d = 0; d < D; d++) PUT(c, 0, ROW(x, r) + d, v);
        break;
    }
    case REDUCE_ROWS:
        for (int64_t d = 0; d < D; d++) {
            REAL v = REF(broadcast_value)(c, d, rows);
            for (int64_t r = 0; r < rows; r++) PUT(c, 0, ROW(x, r) + d, v);
        }
        break;
    default:
        for (int64_t r = 0; r < rows; r++) {
            REAL v = REF(broadcast_value)(c, r, D);
            for (int64_t d = 0; d < D; d++) PUT(c, 0, ROW(x, r) + d, v);
        }
    }
}

#endif
