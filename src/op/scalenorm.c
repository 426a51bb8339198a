/* scalenorm: rmsnorm with one gain for all: rstd = 1 / sqrt(mean(x^2) + eps), y = g x rstd (Nguyen, Salazar 2019, with
 * the factor sqrt(D) taken out of g).  With h = x rstd:  dx = rstd (g dy - h mean(g dy h)),  dg = sum of dy h. */
#ifndef REAL
#include "op/rules.h"

tl_status scalenorm_shape(tl_op_infer *s) {
    SHAPE(h, s, "scalenorm", "x", "g");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    TRY(shape_vector(&h, 1, 1, 0, "one gain"));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    shape_out_vector(&h, 1, tl_desc_rows(s->in[0]), s->in[1]->dtype);
    return TL_OK;
}

void scalenorm_grad(tl_grad *g) {
    if (grad_aux(g, 1, 2, "scalenorm: rstd is a saved statistic without a gradient")) return;
    tl_tensor *in[4] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1), tl_grad_out(g, 1)};
    const struct scalenorm_attr *f = tl_grad_attr(g);
    struct scalenorm_bwd_attr a = {f->eps};
    tl_grad_emit(g, OP_DEF(scalenorm_bwd), &a, in, 4, (int[2]){grad_to(g, 0), grad_to(g, 1)}, 2);
}

void scalenorm_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[0].d), count = tl_desc_count(&c->in[0].d);
    cost_begin(c, cost);
    cost_add(cost, count, 2, 0); /* sum of squares */
    cost_add(cost, rows, 1, 3);  /* / D, + eps, sqrt, 1 / */
    cost_add(cost, count, 2, 0);
}

tl_status scalenorm_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "scalenorm_bwd", "dy", "x", "g", "rstd");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_min_ndim(&h, 1, 1));
    TRY(shape_same(&h, 0, 1));
    TRY(shape_vector(&h, 2, 1, 1, "one gain"));
    TRY(shape_vector(&h, 3, tl_desc_rows(s->in[1]), 1, "rows of x"));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    shape_out_vector(&h, 1, 1, s->in[2]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(scalenorm_bwd)

void scalenorm_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[1].d), count = tl_desc_count(&c->in[1].d);
    cost_begin(c, cost);
    if (cost_out(c, 0)) {
        cost_add(cost, count, 4, 0); /* g dy, h, sum of g dy h */
        cost_add(cost, rows, 0, 1);
        cost_add(cost, count, 5, 0); /* g dy, h, rstd (g dy - h mean) */
    }
    if (cost_out(c, 1)) cost_add(cost, count, 3, 0);
}

#else

void REF(scalenorm)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *g = &c->in[1];
    REAL eps = (REAL)ATTR(c, scalenorm)->eps;
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        REAL sum = (REAL)0;
        for (int64_t d = 0; d < D; d++) sum = sum + GET(x, at + d) * GET(x, at + d);
        REAL rstd = (REAL)1 / real_sqrt(sum / (REAL)D + eps);
        PUT(c, 1, r, rstd);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, GET(x, at + d) * rstd * GET(g, 0));
    }
}

void REF(scalenorm_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1], *g = &c->in[2], *rstd = &c->in[3];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; WANTS(c, 0) && r < rows; r++) {
        int64_t at = ROW(x, r), dy_at = ROW(dy, r), to = ROW(&c->out[0], r);
        REAL sum = (REAL)0;
        for (int64_t d = 0; d < D; d++) sum = sum + (GET(g, 0) * GET(dy, dy_at + d)) * (GET(x, at + d) * GET(rstd, r));
        REAL mean = sum / (REAL)D;
        for (int64_t d = 0; d < D; d++) {
            REAL h = GET(x, at + d) * GET(rstd, r);
            PUT(c, 0, to + d, GET(rstd, r) * (GET(g, 0) * GET(dy, dy_at + d) - h * mean));
        }
    }
    REAL sum = (REAL)0;
    for (int64_t r = 0; WANTS(c, 1) && r < rows; r++)
        for (int64_t d = 0; d < D; d++) sum = sum + GET(dy, ROW(dy, r) + d) * (GET(x, ROW(x, r) + d) * GET(rstd, r));
    PUT(c, 1, 0, sum);
}

#endif
