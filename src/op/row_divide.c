/* row_divide: rows over a number of their own, which is kept from zero: what normalises attention by a sum of weights.
 */
#ifndef REAL
#include "op/rules.h"

static tl_status divide_check(const shape_rule *h, int x, int d) {
    TRY(shape_float(h, x));
    TRY(shape_min_ndim(h, x, 1));
    TRY(shape_float(h, d));
    TRY(shape_same_dtype(h, d, x));
    TRY(shape_leading(h, d, x));
    return shape_dim(h, d, -1, 1, "one number a row");
}

tl_status row_divide_shape(tl_op_infer *s) {
    SHAPE(h, s, "row_divide", "x", "d");
    TRY(divide_check(&h, 0, 1));
    if (!(((const struct row_divide_attr *)s->attr)->eps > 0)) return shape_bad_attr(&h, "eps must be above 0");
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void row_divide_grad(tl_grad *g) {
    struct row_divide_bwd_attr a = {((const struct row_divide_attr *)tl_grad_attr(g))->eps};
    tl_tensor *in[] = {tl_grad_dy(g, 0), tl_grad_in(g, 1), tl_grad_out(g, 0)};
    tl_grad_emit(g, OP_DEF(row_divide_bwd), &a, in, 3, (int[2]){grad_to(g, 0), grad_to(g, 1)}, 2);
}

void row_divide_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 1, 0);
    cost_add(cost, tl_desc_rows(&c->in[0].d), 0, 1);
}

tl_status row_divide_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "row_divide_bwd", "dy", "d", "y");
    TRY(divide_check(&h, 0, 1));
    TRY(shape_float(&h, 2));
    TRY(shape_same(&h, 2, 0));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    shape_out_like(&h, 1, 1, s->in[1]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(row_divide_bwd)

void row_divide_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const double n = (double)tl_desc_count(&c->in[0].d), rows = (double)tl_desc_rows(&c->in[0].d);
    cost_begin(c, cost);
    cost->special += rows;
    if (cost_out(c, 0)) cost->flops += n;
    if (cost_out(c, 1)) cost->flops += 2 * n + rows;
}

#else

static REAL divide_by(const tl_arg *d, int64_t r, float eps) {
    REAL x = GET(d, ROW(d, r));
    return (REAL)1 / (x < (REAL)eps ? (REAL)eps : x);
}

void REF(row_divide)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        REAL by = divide_by(&c->in[1], r, ATTR(c, row_divide)->eps);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, ROW(&c->out[0], r) + d, GET(x, ROW(x, r) + d) * by);
    }
}

void REF(row_divide_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *y = &c->in[2];
    const float eps = ATTR(c, row_divide_bwd)->eps;
    int64_t rows = tl_desc_rows(&dy->d), D = tl_desc_last(&dy->d);
    for (int64_t r = 0; r < rows; r++) {
        REAL by = divide_by(&c->in[1], r, eps), sum = (REAL)0;
        for (int64_t d = 0; d < D && WANTS(c, 0); d++) PUT(c, 0, ROW(&c->out[0], r) + d, GET(dy, ROW(dy, r) + d) * by);
        if (!WANTS(c, 1)) continue;
        for (int64_t d = 0; d < D; d++) sum = sum + GET(dy, ROW(dy, r) + d) * GET(y, ROW(y, r) + d);
        sum = -sum * by;
        PUT(c, 1, ROW(&c->out[1], r), GET(&c->in[1], ROW(&c->in[1], r)) < (REAL)eps ? (REAL)0 : sum);
    }
}

#endif
