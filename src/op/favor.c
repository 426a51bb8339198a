/* favor, favor_bwd: positive random features of the softmax kernel (Choromanski et al. 2020), from the projections
 * p = w x: y = exp(p - |x|^2 / 2) / sqrt(m), so that the mean of y(q) y(k) over w is exp(q.k). */
#ifndef REAL
#include "op/rules.h"

static tl_status favor_check(const shape_rule *h, int p, int x) {
    TRY(shape_float(h, p));
    TRY(shape_min_ndim(h, p, 1));
    TRY(shape_float(h, x));
    TRY(shape_same_dtype(h, x, p));
    return shape_leading(h, x, p);
}

tl_status favor_shape(tl_op_infer *s) {
    SHAPE(h, s, "favor", "p", "x");
    TRY(favor_check(&h, 0, 1));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void favor_grad(tl_grad *g) {
    struct favor_bwd_attr a = {0};
    tl_tensor *in[] = {tl_grad_dy(g, 0), tl_grad_in(g, 1), tl_grad_out(g, 0)};
    tl_grad_emit(g, OP_DEF(favor_bwd), &a, in, 3, (int[2]){grad_to(g, 0), grad_to(g, 1)}, 2);
}

void favor_cost(const tl_op_call *c, tl_cost *cost) {
    const double m = (double)tl_desc_last(&c->in[0].d), d = (double)tl_desc_last(&c->in[1].d);
    cost_begin(c, cost);
    cost_add(cost, tl_desc_rows(&c->in[0].d), 2 * d + 1 + 2 * m, m);
}

tl_status favor_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "favor_bwd", "dy", "x", "y");
    TRY(favor_check(&h, 0, 1));
    TRY(shape_float(&h, 2));
    TRY(shape_same(&h, 2, 0));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    shape_out_like(&h, 1, 1, s->in[1]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(favor_bwd)

void favor_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const double m = (double)tl_desc_last(&c->in[0].d), d = (double)tl_desc_last(&c->in[1].d);
    cost_begin(c, cost);
    cost_add(cost, tl_desc_rows(&c->in[0].d), 2 * m + (cost_out(c, 1) ? d : 0), 0);
}

#else

void REF(favor)(const tl_op_call *c) {
    const tl_arg *p = &c->in[0], *x = &c->in[1];
    int64_t rows = tl_desc_rows(&p->d), m = tl_desc_last(&p->d), d = tl_desc_last(&x->d);
    const REAL norm = (REAL)(1.0 / sqrt((double)(m > 0 ? m : 1)));
    for (int64_t r = 0; r < rows; r++) {
        REAL sum = (REAL)0;
        for (int64_t i = 0; i < d; i++) sum = sum + GET(x, ROW(x, r) + i) * GET(x, ROW(x, r) + i);
        sum = sum * (REAL)0.5;
        for (int64_t i = 0; i < m; i++) PUT(c, 0, ROW(&c->out[0], r) + i, real_exp(GET(p, ROW(p, r) + i) - sum) * norm);
    }
}

/* dp = dy y;  dx = -x sum(dp) */
void REF(favor_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1], *y = &c->in[2];
    int64_t rows = tl_desc_rows(&y->d), m = tl_desc_last(&y->d), d = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        REAL sum = (REAL)0;
        for (int64_t i = 0; i < m; i++) {
            REAL dp = GET(dy, ROW(dy, r) + i) * GET(y, ROW(y, r) + i);
            sum = sum + dp;
            PUT(c, 0, ROW(&c->out[0], r) + i, dp);
        }
        for (int64_t i = 0; i < d && WANTS(c, 1); i++) PUT(c, 1, ROW(&c->out[1], r) + i, GET(x, ROW(x, r) + i) * -sum);
    }
}

#endif
