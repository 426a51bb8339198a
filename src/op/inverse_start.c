/* inverse_start, inverse_start_bwd: where the iteration for a pseudo-inverse begins, A^T / (|A|_1 |A|_inf) (Ben-Israel
 * and Cohen 1966; Razavi et al. 2014). The rows of A are not negative and sum to one, as softmax makes them: |A|_inf
 * is 1, and |A|_1 the largest sum of a column. The gradient knows that sum through its column. */
#ifndef REAL
#include "op/rules.h"

static tl_status inverse_check(const shape_rule *h, int i) {
    TRY(shape_float(h, i));
    TRY(shape_ndim(h, i, 4));
    return shape_dim(h, i, 3, h->s->in[i]->dim[1], "rows: the matrix is square");
}

tl_status inverse_start_shape(tl_op_infer *s) {
    SHAPE(h, s, "inverse_start", "x");
    TRY(inverse_check(&h, 0));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void inverse_start_grad(tl_grad *g) {
    const struct inverse_start_bwd_attr none = {0};
    tl_tensor *in[] = {tl_grad_dy(g, 0), tl_grad_in(g, 0)};
    if (tl_grad_needs(g, 0)) tl_grad_emit(g, OP_DEF(inverse_start_bwd), &none, in, 2, (int[1]){0}, 1);
}

static void inverse_cost(const tl_op_call *c, tl_cost *cost, double each, double row, double once) {
    const tl_desc *x = &c->in[0].d;
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(x), each, 0);
    cost_add(cost, tl_desc_rows(x), row, 0);
    cost_add(cost, x->dim[0] * x->dim[2], once, 1);
}
void inverse_start_cost(const tl_op_call *c, tl_cost *cost) {
    inverse_cost(c, cost, 2, 0, 0);
}

tl_status inverse_start_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "inverse_start_bwd", "dz", "x");
    TRY(inverse_check(&h, 0));
    TRY(inverse_check(&h, 1));
    TRY(shape_same_dtype(&h, 1, 0));
    TRY(shape_same(&h, 1, 0));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(inverse_start_bwd)

void inverse_start_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    inverse_cost(c, cost, 4, 1, 2);
}

#else

static int64_t inverse_at(const tl_desc *d, int64_t b, int64_t h, int64_t i, int64_t j) {
    return tl_desc_row(d, (b * d->dim[1] + i) * d->dim[2] + h) + j;
}

/* The column with the largest sum, the first of equal ones, and 1 / that sum. */
static int64_t inverse_column(const tl_arg *x, int64_t b, int64_t h, REAL *by) {
    const int64_t m = x->d.dim[1];
    int64_t best = 0;
    REAL top = (REAL)0;
    for (int64_t j = 0; j < m; j++) {
        REAL sum = (REAL)0;
        for (int64_t i = 0; i < m; i++) sum = sum + GET(x, inverse_at(&x->d, b, h, i, j));
        if (j == 0 || top < sum) top = sum, best = j;
    }
    *by = (REAL)1 / top;
    return best;
}

void REF(inverse_start)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    const int64_t m = x->d.dim[1];
    for (int64_t b = 0; b < x->d.dim[0]; b++)
        for (int64_t h = 0; h < x->d.dim[2]; h++) {
            REAL by;
            inverse_column(x, b, h, &by);
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < m; j++)
                    PUT(c, 0, inverse_at(&c->out[0].d, b, h, i, j), GET(x, inverse_at(&x->d, b, h, j, i)) * by);
        }
}

void REF(inverse_start_bwd)(const tl_op_call *c) {
    const tl_arg *dz = &c->in[0], *x = &c->in[1];
    const int64_t m = x->d.dim[1];
    for (int64_t b = 0; b < x->d.dim[0]; b++)
        for (int64_t h = 0; h < x->d.dim[2]; h++) {
            REAL by, sum = (REAL)0;
            const int64_t best = inverse_column(x, b, h, &by);
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < m; j++)
                    sum = sum + GET(dz, inverse_at(&dz->d, b, h, i, j)) * GET(x, inverse_at(&x->d, b, h, j, i));
            sum = sum * by * by;
            for (int64_t i = 0; i < m; i++)
                for (int64_t j = 0; j < m; j++) {
                    REAL d = GET(dz, inverse_at(&dz->d, b, h, j, i)) * by;
                    if (j == best) d = d - sum;
                    PUT(c, 0, inverse_at(&c->out[0].d, b, h, i, j), d);
                }
        }
}

#endif
