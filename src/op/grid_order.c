/* grid_order: tokens of a grid from line by line to window by window, and back. In that order a window is a chunk, so
 * that what works on chunks works on two dimensions. */
#ifndef REAL

#include "op/rules.h"

tl_status grid_order_shape(tl_op_infer *s) {
    SHAPE(h, s, "grid_order", "x");
    const struct grid_order_attr *a = s->attr;
    TRY(shape_float(&h, 0));
    TRY(shape_ndim(&h, 0, 3));
    const int64_t most = 1 << 24;
    if (a->rows < 1 || a->cols < 1 || a->high < 1 || a->wide < 1 || a->rows > most || a->cols > most ||
        a->high > a->rows || a->wide > a->cols)
        return shape_bad_attr(&h, "windows of %lld x %lld in a grid of %lld x %lld", (long long)a->high,
                              (long long)a->wide, (long long)a->rows, (long long)a->cols);
    TRY(shape_dim(&h, 0, 1, a->rows * a->cols, "places of the grid"));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void grid_order_grad(tl_grad *g) {
    struct grid_order_attr a = *(const struct grid_order_attr *)tl_grad_attr(g);
    tl_tensor *in[1] = {tl_grad_dy(g, 0)};
    a.inverse = !a.inverse;
    tl_grad_emit(g, OP_DEF(grid_order), &a, in, 1, (int[1]){grad_to(g, 0)}, 1);
}

void grid_order_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
}

#else

#include "op/grid.h"

void REF(grid_order)(const tl_op_call *c) {
    const struct grid_order_attr *a = ATTR(c, grid_order);
    const tl_arg *x = &c->in[0];
    const int64_t B = x->d.dim[0], T = x->d.dim[1], W = x->d.dim[2];
    for (int64_t b = 0; b < B; b++)
        for (int64_t i = 0; i < T; i++) {
            const int64_t j = grid_place(a->rows, a->cols, a->high, a->wide, i), from = a->inverse ? i : j,
                          to = a->inverse ? j : i;
            for (int64_t d = 0; d < W; d++)
                PUT(c, 0, ROW(&c->out[0], b * T + to) + d, GET(x, ROW(x, b * T + from) + d));
        }
}

#endif
