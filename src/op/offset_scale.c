/* offset_scale: the cheap heads of a gated attention unit: y_h = z gamma_h + beta_h for all h from one z (Hua 2022).
 *   dz = sum over h of dy_h gamma_h,  dgamma_h = sum over rows of dy_h z,  dbeta_h = sum over rows of dy_h. */
#ifndef REAL
#include "op/rules.h"

static tl_status offset_scale_check(const shape_rule *h, int z, int gamma) {
    TRY(shape_float(h, z));
    TRY(shape_min_ndim(h, z, 1));
    TRY(shape_sum(h, gamma, z));
    TRY(shape_ndim(h, gamma, 1));
    int64_t s = tl_desc_last(h->s->in[z]), n = h->s->in[gamma]->dim[0];
    if (s < 1 || n < s || n % s)
        return shape_refuse(h, gamma, TL_SHAPE, "it must be whole heads of %lld", (long long)s);
    return TL_OK;
}

tl_status offset_scale_shape(tl_op_infer *s) {
    SHAPE(h, s, "offset_scale", "z", "gamma", "beta");
    TRY(offset_scale_check(&h, 0, 1));
    if (shape_has(&h, 2)) TRY(shape_vector(&h, 2, s->in[1]->dim[0], 0, "numbers of gamma"));
    shape_out_last(&h, 0, 0, s->in[1]->dim[0], s->in[0]->dtype);
    return TL_OK;
}

void offset_scale_grad(tl_grad *g) {
    tl_tensor *in[3] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1)};
    struct offset_scale_bwd_attr a = {tl_grad_in(g, 2) != NULL};
    tl_grad_emit(g, OP_DEF(offset_scale_bwd), &a, in, 3, (int[3]){grad_to(g, 0), grad_to(g, 1), grad_to(g, 2)}, 3);
}

void offset_scale_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->out[0].d), cost_in(c, 2) ? 2 : 1, 0);
}

tl_status offset_scale_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "offset_scale_bwd", "dy", "z", "gamma");
    TRY(offset_scale_check(&h, 1, 2));
    TRY(shape_float(&h, 0));
    TRY(shape_same_dtype(&h, 0, 1));
    TRY(shape_leading(&h, 0, 1));
    TRY(shape_dim(&h, 0, -1, s->in[2]->dim[0], "numbers of gamma"));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    shape_out_like(&h, 1, 2, s->in[2]->dtype);
    if (((struct offset_scale_bwd_attr *)s->attr)->beta) shape_out_like(&h, 2, 2, s->in[2]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(offset_scale_bwd)

void offset_scale_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t n = tl_desc_count(&c->in[0].d);
    cost_begin(c, cost);
    cost_add(cost, n, (cost_out(c, 0) ? 2 : 0) + (cost_out(c, 1) ? 2 : 0) + (cost_out(c, 2) ? 1 : 0), 0);
}

#else

void REF(offset_scale)(const tl_op_call *c) {
    const tl_arg *z = &c->in[0], *gamma = &c->in[1], *beta = &c->in[2];
    int64_t rows = tl_desc_rows(&z->d), s = tl_desc_last(&z->d), n = gamma->d.dim[0];
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < n; i++) {
            REAL y = GET(z, ROW(z, r) + i % s) * GET(gamma, i);
            if (beta->data) y = y + GET(beta, i);
            PUT(c, 0, ROW(&c->out[0], r) + i, y);
        }
}

void REF(offset_scale_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *z = &c->in[1], *gamma = &c->in[2];
    int64_t rows = tl_desc_rows(&z->d), s = tl_desc_last(&z->d), n = gamma->d.dim[0];
    for (int64_t r = 0; r < rows && WANTS(c, 0); r++)
        for (int64_t d = 0; d < s; d++) {
            REAL sum = (REAL)0;
            for (int64_t i = d; i < n; i += s) sum = sum + GET(dy, ROW(dy, r) + i) * GET(gamma, i);
            PUT(c, 0, ROW(&c->out[0], r) + d, sum);
        }
    for (int64_t i = 0; i < n; i++) {
        REAL dgamma = (REAL)0, dbeta = (REAL)0;
        for (int64_t r = 0; r < rows && WANTS(c, 1); r++)
            dgamma = dgamma + GET(dy, ROW(dy, r) + i) * GET(z, ROW(z, r) + i % s);
        for (int64_t r = 0; r < rows && WANTS(c, 2); r++) dbeta = dbeta + GET(dy, ROW(dy, r) + i);
        PUT(c, 1, i, dgamma);
        PUT(c, 2, i, dbeta);
    }
}

#endif
