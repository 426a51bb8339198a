/* layernorm: mean and rstd = 1 / sqrt(variance + eps) over the last dimension, y = (x - mean) rstd w + b
 * (Ba, Kiros, Hinton 2016; variance with 1/D).  With h = (x - mean) rstd and g = dy w:
 * dx = rstd (g - mean(g) - h mean(g h)),  dw = sum over rows of dy h,  db = sum over rows of dy. */
#ifndef REAL
#include "op/rules.h"

tl_status layernorm_shape(tl_op_infer *s) {
    SHAPE(h, s, "layernorm", "x", "w", "b");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    if (shape_has(&h, 1)) TRY(shape_vector(&h, 1, tl_desc_last(s->in[0]), 0, "D of x"));
    if (shape_has(&h, 2)) TRY(shape_vector(&h, 2, tl_desc_last(s->in[0]), 0, "D of x"));
    tl_dtype sum = tensor_sum_dtype(s->in[0]->dtype);
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    shape_out_vector(&h, 1, tl_desc_rows(s->in[0]), sum);
    shape_out_vector(&h, 2, tl_desc_rows(s->in[0]), sum);
    return TL_OK;
}

void layernorm_grad(tl_grad *g) {
    if (grad_aux(g, 1, 3, "layernorm: mean and rstd are saved statistics without a gradient")) return;
    tl_tensor *in[5] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1), tl_grad_out(g, 1), tl_grad_out(g, 2)};
    const struct layernorm_attr *f = tl_grad_attr(g);
    struct layernorm_bwd_attr a = {f->eps};
    int to[3] = {grad_to(g, 0), grad_to(g, 1), grad_to(g, 2)};
    tl_grad_emit(g, OP_DEF(layernorm_bwd), &a, in, 5, to, 3);
}

void layernorm_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[0].d), count = tl_desc_count(&c->in[0].d);
    cost_begin(c, cost);
    cost_add(cost, count, 1 + 3, 0); /* sum, sum of squares of x - mean */
    cost_add(cost, rows, 1, 4);      /* two / D, + eps, sqrt, 1 / */
    cost_add(cost, count, 2 + cost_in(c, 1) + cost_in(c, 2), 0);
}

tl_status layernorm_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "layernorm_bwd", "dy", "x", "w", "mean", "rstd");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_min_ndim(&h, 1, 1));
    TRY(shape_same(&h, 0, 1));
    int64_t D = tl_desc_last(s->in[1]), rows = tl_desc_rows(s->in[1]);
    if (shape_has(&h, 2)) TRY(shape_vector(&h, 2, D, 1, "D of x"));
    TRY(shape_vector(&h, 3, rows, 1, "rows of x"));
    TRY(shape_vector(&h, 4, rows, 1, "rows of x"));
    tl_dtype sum = tensor_sum_dtype(s->in[1]->dtype);
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    if (shape_has(&h, 2)) shape_out_vector(&h, 1, D, sum);
    shape_out_vector(&h, 2, D, sum);
    return TL_OK;
}

NO_SECOND_GRAD(layernorm_bwd)

void layernorm_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t rows = tl_desc_rows(&c->in[1].d), count = tl_desc_count(&c->in[1].d);
    double gain = cost_in(c, 2); /* dy w */
    cost_begin(c, cost);
    if (cost_out(c, 0)) {
        cost_add(cost, count, gain + 5, 0); /* g, its sum; h, sum of g h */
        cost_add(cost, rows, 0, 2);
        cost_add(cost, count, gain + 6, 0); /* g, h, rstd (g - mean - h mean) */
    }
    if (cost_out(c, 1)) cost_add(cost, count, 4, 0);
    if (cost_out(c, 2)) cost_add(cost, count, 1, 0);
}

#else

void REF(layernorm)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    REAL eps = (REAL)ATTR(c, layernorm)->eps;
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        REAL sum = (REAL)0, square = (REAL)0;
        for (int64_t d = 0; d < D; d++) sum = sum + GET(x, at + d);
        REAL mean = sum / (REAL)D;
        for (int64_t d = 0; d < D; d++) {
            REAL z = GET(x, at + d) - mean;
            square = square + z * z;
        }
        REAL rstd = (REAL)1 / real_sqrt(square / (REAL)D + eps);
        PUT(c, 1, r, mean);
        PUT(c, 2, r, rstd);
        for (int64_t d = 0; d < D; d++) {
            REAL y = (GET(x, at + d) - mean) * rstd;
            if (w->data) y = y * GET(w, d);
            if (b->data) y = y + GET(b, d);
            PUT(c, 0, to + d, y);
        }
    }
}

/* dy w, and (x - mean) rstd */
static inline REAL REF(layernorm_g)(const tl_op_call *c, int64_t r, int64_t d) {
    REAL dy = GET(&c->in[0], ROW(&c->in[0], r) + d);
    return c->in[2].data ? dy * GET(&c->in[2], d) : dy;
}
static inline REAL REF(layernorm_h)(const tl_op_call *c, int64_t r, int64_t d) {
    return (GET(&c->in[1], ROW(&c->in[1], r) + d) - GET(&c->in[3], r)) * GET(&c->in[4], r);
}

void REF(layernorm_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *rstd = &c->in[4];
    int64_t rows = tl_desc_rows(&dy->d), D = tl_desc_last(&dy->d);
    for (int64_t r = 0; WANTS(c, 0) && r < rows; r++) {
        REAL sum = (REAL)0, sum_h = (REAL)0;
        for (int64_t d = 0; d < D; d++) {
            REAL g = REF(layernorm_g)(c, r, d);
            sum = sum + g;
            sum_h = sum_h + g * REF(layernorm_h)(c, r, d);
        }
        REAL mean = sum / (REAL)D, mean_h = sum_h / (REAL)D;
        for (int64_t d = 0; d < D; d++) {
            REAL dx = REF(layernorm_g)(c, r, d) - mean - REF(layernorm_h)(c, r, d) * mean_h;
            PUT(c, 0, ROW(&c->out[0], r) + d, GET(rstd, r) * dx);
        }
    }
    for (int64_t d = 0; WANTS(c, 1) && d < D; d++) {
        REAL sum = (REAL)0;
        for (int64_t r = 0; r < rows; r++) sum = sum + GET(dy, ROW(dy, r) + d) * REF(layernorm_h)(c, r, d);
        PUT(c, 1, d, sum);
    }
    for (int64_t d = 0; WANTS(c, 2) && d < D; d++) {
        REAL sum = (REAL)0;
        for (int64_t r = 0; r < rows; r++) sum = sum + GET(dy, ROW(dy, r) + d);
        PUT(c, 2, d, sum);
    }
}

#endif
