/* batchnorm: mean and rstd = 1 / sqrt(variance + eps) of every channel over all rows, y = (x - mean) rstd w + b
 * (Ioffe, Szegedy 2015; variance with 1/rows). Every row depends on all others, those behind it too: a model with it
 * cannot write one token after the other. With h = (x - mean) rstd, means over rows:
 * dx = w rstd (dy - mean(dy) - h mean(dy h)),  dw = sum of dy h,  db = sum of dy. */
#ifndef REAL
#include "op/rules.h"

tl_status batchnorm_shape(tl_op_infer *s) {
    SHAPE(h, s, "batchnorm", "x", "w", "b");
    TRY(shape_float(&h, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    const int64_t D = tl_desc_last(s->in[0]);
    if (shape_has(&h, 1)) TRY(shape_vector(&h, 1, D, 0, "D of x"));
    if (shape_has(&h, 2)) TRY(shape_vector(&h, 2, D, 0, "D of x"));
    tl_dtype sum = tensor_sum_dtype(s->in[0]->dtype);
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    shape_out_vector(&h, 1, D, sum);
    shape_out_vector(&h, 2, D, sum);
    return TL_OK;
}

void batchnorm_grad(tl_grad *g) {
    if (grad_aux(g, 1, 3, "batchnorm: mean and rstd are saved statistics without a gradient")) return;
    tl_tensor *in[5] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1), tl_grad_out(g, 1), tl_grad_out(g, 2)};
    const struct batchnorm_attr *f = tl_grad_attr(g);
    struct batchnorm_bwd_attr a = {f->eps};
    int to[3] = {grad_to(g, 0), grad_to(g, 1), grad_to(g, 2)};
    tl_grad_emit(g, OP_DEF(batchnorm_bwd), &a, in, 5, to, 3);
}

void batchnorm_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t D = tl_desc_last(&c->in[0].d), count = tl_desc_count(&c->in[0].d);
    cost_begin(c, cost);
    cost_add(cost, count, 1 + 3, 0); /* sum, sum of squares of x - mean */
    cost_add(cost, D, 1, 4);         /* two / rows, + eps, sqrt, 1 / */
    cost_add(cost, count, 2 + cost_in(c, 1) + cost_in(c, 2), 0);
}

tl_status batchnorm_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "batchnorm_bwd", "dy", "x", "w", "mean", "rstd");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_min_ndim(&h, 1, 1));
    TRY(shape_same(&h, 0, 1));
    const int64_t D = tl_desc_last(s->in[1]);
    if (shape_has(&h, 2)) TRY(shape_vector(&h, 2, D, 1, "D of x"));
    TRY(shape_vector(&h, 3, D, 1, "D of x"));
    TRY(shape_vector(&h, 4, D, 1, "D of x"));
    tl_dtype sum = tensor_sum_dtype(s->in[1]->dtype);
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    if (shape_has(&h, 2)) shape_out_vector(&h, 1, D, sum);
    shape_out_vector(&h, 2, D, sum);
    return TL_OK;
}

NO_SECOND_GRAD(batchnorm_bwd)

void batchnorm_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    int64_t D = tl_desc_last(&c->in[1].d), count = tl_desc_count(&c->in[1].d);
    cost_begin(c, cost);
    cost_add(cost, count, 2 + 3, 0); /* h; sums of dy and dy h */
    if (!cost_out(c, 0)) return;
    cost_add(cost, D, cost_in(c, 2), 2); /* rstd w, two / rows */
    cost_add(cost, count, 6, 0);         /* h, scale (dy - mean - h mean) */
}

#else

void REF(batchnorm)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *w = &c->in[1], *b = &c->in[2];
    REAL eps = (REAL)ATTR(c, batchnorm)->eps;
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t d = 0; d < D; d++) {
        REAL sum = (REAL)0, square = (REAL)0;
        for (int64_t r = 0; r < rows; r++) sum = sum + GET(x, ROW(x, r) + d);
        REAL mean = sum / (REAL)rows;
        for (int64_t r = 0; r < rows; r++) {
            REAL z = GET(x, ROW(x, r) + d) - mean;
            square = square + z * z;
        }
        REAL rstd = (REAL)1 / real_sqrt(square / (REAL)rows + eps);
        PUT(c, 1, d, mean);
        PUT(c, 2, d, rstd);
        for (int64_t r = 0; r < rows; r++) {
            REAL y = (GET(x, ROW(x, r) + d) - mean) * rstd;
            if (w->data) y = y * GET(w, d);
            if (b->data) y = y + GET(b, d);
            PUT(c, 0, ROW(&c->out[0], r) + d, y);
        }
    }
}

void REF(batchnorm_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1], *w = &c->in[2], *mean = &c->in[3], *rstd = &c->in[4];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t d = 0; d < D; d++) {
        REAL sum = (REAL)0, sum_h = (REAL)0, m = GET(mean, d), s = GET(rstd, d);
        for (int64_t r = 0; r < rows; r++) {
            REAL h = (GET(x, ROW(x, r) + d) - m) * s, g = GET(dy, ROW(dy, r) + d);
            sum = sum + g;
            sum_h = sum_h + g * h;
        }
        if (WANTS(c, 1)) PUT(c, 1, d, sum_h);
        if (WANTS(c, 2)) PUT(c, 2, d, sum);
        if (!WANTS(c, 0)) continue;
        REAL by = w->data ? s * GET(w, d) : s, all = sum / (REAL)rows, all_h = sum_h / (REAL)rows;
        for (int64_t r = 0; r < rows; r++) {
            REAL h = (GET(x, ROW(x, r) + d) - m) * s;
            PUT(c, 0, ROW(&c->out[0], r) + d, by * (GET(dy, ROW(dy, r) + d) - all - h * all_h));
        }
    }
}

#endif
