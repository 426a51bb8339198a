/* segment_mean: the means of equal segments of a sequence, Nystromformer's landmarks (Xiong et al. 2021), and its
 * adjoint, which spreads a row's share over its segment: each is the other's gradient. Segment r of R has the tokens
 * from r T / R to (r + 1) T / R, both rounded down. Packed documents would mix, and no row is causal. */
#ifndef REAL
#include "op/rules.h"

tl_status segment_mean_shape(tl_op_infer *s) {
    SHAPE(h, s, "segment_mean", "x");
    const struct segment_mean_attr *a = s->attr;
    TRY(shape_float(&h, 0));
    TRY(shape_ndim(&h, 0, 4));
    const tl_desc *x = s->in[0];
    const int64_t T = a->spread ? a->rows : x->dim[1], R = a->spread ? x->dim[1] : a->rows;
    if (R < 1 || R > T || T > (int64_t)1 << 40)
        return shape_bad_attr(&h, "%lld segments of %lld tokens", (long long)R, (long long)T);
    shape_out(&h, 0, x->dtype, 4, (int64_t[]){x->dim[0], a->rows, x->dim[2], x->dim[3]});
    return TL_OK;
}

void segment_mean_grad(tl_grad *g) {
    const struct segment_mean_attr *f = tl_grad_attr(g);
    const struct segment_mean_attr a = {.rows = tl_tensor_desc(tl_grad_in(g, 0))->dim[1], .spread = !f->spread};
    tl_tensor *dy = tl_grad_dy(g, 0);
    if (tl_grad_needs(g, 0)) tl_grad_emit(g, OP_DEF(segment_mean), &a, &dy, 1, (int[1]){0}, 1);
}

void segment_mean_cost(const tl_op_call *c, tl_cost *cost) {
    const int64_t n = tl_desc_count(&c->in[0].d), to = tl_desc_count(&c->out[0].d);
    cost_begin(c, cost);
    cost_add(cost, ATTR(c, segment_mean)->spread ? to : n + to, 1, 0);
}

#else

/* The segment [lo, hi) of row r. */
static void segment_of(int64_t r, int64_t R, int64_t T, int64_t *lo, int64_t *hi) {
    *lo = r * T / R, *hi = (r + 1) * T / R;
}

static int64_t segment_row(const tl_desc *d, int64_t b, int64_t t, int64_t h) {
    return tl_desc_row(d, (b * d->dim[1] + t) * d->dim[2] + h);
}

void REF(segment_mean)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *y = &c->out[0];
    const bool spread = ATTR(c, segment_mean)->spread != 0;
    const int64_t T = (spread ? y : x)->d.dim[1], R = (spread ? x : y)->d.dim[1];
    for (int64_t b = 0; b < x->d.dim[0]; b++)
        for (int64_t r = 0; r < R; r++)
            for (int64_t h = 0; h < x->d.dim[2]; h++)
                for (int64_t d = 0; d < x->d.dim[3]; d++) {
                    int64_t lo, hi;
                    segment_of(r, R, T, &lo, &hi);
                    const REAL by = (REAL)(1.0 / (double)(hi - lo));
                    REAL sum = (REAL)0;
                    for (int64_t t = lo; t < hi && !spread; t++) sum = sum + GET(x, segment_row(&x->d, b, t, h) + d);
                    if (!spread) PUT(c, 0, segment_row(&y->d, b, r, h) + d, sum * by);
                    for (int64_t t = lo; t < hi && spread; t++)
                        PUT(c, 0, segment_row(&y->d, b, t, h) + d, GET(x, segment_row(&x->d, b, r, h) + d) * by);
                }
}

#endif
