/* rmsnorm: rstd = 1 / sqrt(mean(x^2) + eps), y = x rstd (offset + w), over the last dimension (Zhang, Sennrich 2019).
 * With h = x rstd and g = dy (offset + w):  dx = rstd (g - h mean(g h)),  dw = sum over rows of dy h. */
#ifndef REAL
#include "op/rules.h"

tl_status rmsnorm_shape(tl_op_infer *s) {
    SHAPE(h, s, "rmsnorm", "x", "w");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    if (shape_has(&h, 1)) TRY(shape_vector(&h, 1, tl_desc_last(s->in[0]), 0, "D of x"));
    tl_dtype sum = tensor_sum_dtype(s->in[0]->dtype);
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    shape_out_vector(&h, 1, tl_desc_rows(s->in[0]), sum);
    return TL_OK;
}

void rmsnorm_grad(tl_grad *g) {
    if (grad_aux(g, 1, 2, "rmsnorm: rstd is a saved statistic without a gradient")) return;
    tl_tensor *in[4] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1), tl_grad_out(g, 1)};
    const struct rmsnorm_attr *f = tl_grad_attr(g);
    struct rmsnorm_bwd_attr a = {f->eps, f->offset};
    tl_grad_emit(g, OP_DEF(rmsnorm_bwd), &a, in, 4, (int[2]){grad_to(g, 0), grad_to(g, 1)}, 2);
}

void rmsnorm_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[0].d), count = tl_desc_count(&c->in[0].d);
    cost_begin(c, cost);
    cost_add(cost, count, 2, 0); /* sum of squares */
    cost_add(cost, rows, 1, 3);  /* / D, + eps, sqrt, 1 / */
    cost_add(cost, count, cost_in(c, 1) ? 3 : 1, 0);
}

tl_status rmsnorm_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "rmsnorm_bwd", "dy", "x", "w", "rstd");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_min_ndim(&h, 1, 1));
    TRY(shape_same(&h, 0, 1));
    if (shape_has(&h, 2)) TRY(shape_vector(&h, 2, tl_desc_last(s->in[1]), 1, "D of x"));
    TRY(shape_vector(&h, 3, tl_desc_rows(s->in[1]), 1, "rows of x"));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    if (shape_has(&h, 2)) shape_out_like(&h, 1, 2, s->in[2]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(rmsnorm_bwd)

void rmsnorm_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[1].d), count = tl_desc_count(&c->in[1].d);
    double gain = cost_in(c, 2) ? 2 : 0; /* dy (offset + w) */
    cost_begin(c, cost);
    if (cost_out(c, 0)) {
        cost_add(cost, count, gain + 3, 0); /* g, h, sum of g h */
        cost_add(cost, rows, 0, 1);
        cost_add(cost, count, gain + 4, 0); /* g, h, rstd (g - h mean) */
    }
    if (cost_out(c, 1)) cost_add(cost, count, 3, 0);
}

#else

void REF(rmsnorm)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *w = &c->in[1];
    REAL eps = (REAL)ATTR(c, rmsnorm)->eps, offset = (REAL)ATTR(c, rmsnorm)->offset;
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        REAL sum = (REAL)0;
        for (int64_t d = 0; d < D; d++) sum = sum + GET(x, at + d) * GET(x, at + d);
        REAL rstd = (REAL)1 / real_sqrt(sum / (REAL)D + eps);
        PUT(c, 1, r, rstd);
        for (int64_t d = 0; d < D; d++) {
            REAL y = GET(x, at + d) * rstd;
            PUT(c, 0, to + d, w->data ? y * (offset + GET(w, d)) : y);
        }
    }
}

/* dy (offset + w) */
static inline REAL REF(rmsnorm_g)(const tl_op_call *c, int64_t at, int64_t d) {
    REAL dy = GET(&c->in[0], at + d);
    return c->in[2].data ? dy * ((REAL)ATTR(c, rmsnorm_bwd)->offset + GET(&c->in[2], d)) : dy;
}

void REF(rmsnorm_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1], *rstd = &c->in[3];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; WANTS(c, 0) && r < rows; r++) {
        int64_t at = ROW(x, r), dy_at = ROW(dy, r), to = ROW(&c->out[0], r);
        REAL sum = (REAL)0;
        for (int64_t d = 0; d < D; d++) sum = sum + REF(rmsnorm_g)(c, dy_at, d) * (GET(x, at + d) * GET(rstd, r));
        REAL mean = sum / (REAL)D;
        for (int64_t d = 0; d < D; d++) {
            REAL h = GET(x, at + d) * GET(rstd, r);
            PUT(c, 0, to + d, GET(rstd, r) * (REF(rmsnorm_g)(c, dy_at, d) - h * mean));
        }
    }
    for (int64_t d = 0; WANTS(c, 1) && d < D; d++) {
        REAL sum = (REAL)0;
        for (int64_t r = 0; r < rows; r++) sum = sum + GET(dy, ROW(dy, r) + d) * (GET(x, ROW(x, r) + d) * GET(rstd, r));
        PUT(c, 1, d, sum);
    }
}

#endif
