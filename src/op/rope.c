/* rope: rotary positions. Its gradient is the rotation the other way. */
#ifndef REAL

#include "op/rules.h"

tl_status rope_shape(tl_op_infer *s) {
    const struct rope_attr *a = s->attr;
    SHAPE(h, s, "rope", "x", "table");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 2));
    TRY(shape_sum(&h, 1, 0));
    TRY(shape_min_ndim(&h, 1, 2));
    const tl_desc *x = s->in[0], *table = s->in[1];
    int64_t heads = x->dim[x->ndim - 2];
    if (tl_desc_rows(table) * heads != tl_desc_rows(x))
        return shape_refuse(&h, 1, TL_SHAPE, "it must have one row for every %lld heads of x, %lld rows",
                            (long long)heads, (long long)(heads ? tl_desc_rows(x) / heads : 0));
    if (tl_desc_last(table) % 2 || tl_desc_last(table) > tl_desc_last(x))
        return shape_refuse(&h, 1, TL_SHAPE, "its rows must be even and no wider than a head, %lld",
                            (long long)tl_desc_last(x));
    if (a->style != ROPE_HALF && a->style != ROPE_INTERLEAVED) return shape_bad_attr(&h, "no style %d", a->style);
    shape_out_like(&h, 0, 0, x->dtype);
    return TL_OK;
}

void rope_grad(tl_grad *g) {
    struct rope_attr back = *(const struct rope_attr *)tl_grad_attr(g);
    if (tl_grad_needs(g, 1)) {
        tl_grad_refuse(g, "rope: the table is a constant");
        return;
    }
    back.inverse = !back.inverse;
    tl_tensor *in[] = {tl_grad_dy(g, 0), tl_grad_in(g, 1)};
    int to[] = {grad_to(g, 0)};
    tl_grad_emit(g, OP_DEF(rope), &back, in, 2, to, 1);
}

void rope_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_rows(&c->in[0].d), 3 * (double)tl_desc_last(&c->in[1].d), 0);
}

#else

void REF(rope)(const tl_op_call *c) {
    const struct rope_attr *a = ATTR(c, rope);
    const tl_arg *x = &c->in[0], *table = &c->in[1], *y = &c->out[0];
    int64_t rows = tl_desc_rows(&x->d), heads = x->d.dim[x->d.ndim - 2], width = tl_desc_last(&x->d);
    int64_t half = tl_desc_last(&table->d) / 2;
    for (int64_t r = 0; r < rows; r++) {
        int64_t angles = ROW(table, r / heads), from = ROW(x, r), to = ROW(y, r);
        for (int64_t k = 0; k < half; k++) {
            int64_t i = a->style == ROPE_HALF ? k : 2 * k, j = a->style == ROPE_HALF ? k + half : 2 * k + 1;
            REAL x1 = GET(x, from + i), x2 = GET(x, from + j);
            REAL co = GET(table, angles + k), si = GET(table, angles + half + k);
            if (a->inverse) si = -si;
            PUT(c, 0, to + i, x1 * co - x2 * si);
            PUT(c, 0, to + j, x2 * co + x1 * si);
        }
        for (int64_t d = 2 * half; d < width; d++) PUT(c, 0, to + d, GET(x, from + d));
    }
}

#endif
