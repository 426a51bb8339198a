/* time_mix, time_mix_bwd: rows made of a sequence's tokens, y[b,r] = sum over t of w[r,t] x[b,t]: Linformer's
 * projection of keys and values (Wang et al. 2020). Every row reads every token: there is no causal form, and packed
 * documents would mix. */
#ifndef REAL
#include "op/rules.h"

enum { TM_W, TM_X };
enum { TB_DY, TB_W, TB_X };

/* x (B,T,H,e), w (R,P) with P >= T */
static tl_status time_check(const shape_rule *h, int w, int x) {
    TRY(shape_float(h, x));
    TRY(shape_ndim(h, x, 4));
    const int64_t T = h->s->in[x]->dim[1];
    TRY(shape_float(h, w));
    TRY(shape_mix(h, w, x));
    TRY(shape_ndim(h, w, 2));
    if (h->s->in[w]->dim[1] < T || h->s->in[w]->dim[0] < 1)
        return shape_refuse(h, w, TL_SHAPE, "it must be (rows, at least %lld)", (long long)T);
    return TL_OK;
}

tl_status time_mix_shape(tl_op_infer *s) {
    SHAPE(h, s, "time_mix", "w", "x");
    TRY(time_check(&h, TM_W, TM_X));
    const tl_desc *x = s->in[TM_X];
    shape_out(&h, 0, x->dtype, 4, (int64_t[]){x->dim[0], s->in[TM_W]->dim[0], x->dim[2], x->dim[3]});
    return TL_OK;
}

void time_mix_grad(tl_grad *g) {
    struct time_mix_bwd_attr a = {0};
    tl_tensor *in[] = {tl_grad_dy(g, 0), tl_grad_in(g, TM_W), tl_grad_in(g, TM_X)};
    tl_grad_emit(g, OP_DEF(time_mix_bwd), &a, in, 3, (int[2]){grad_to(g, TM_X), grad_to(g, TM_W)}, 2);
}

void time_mix_cost(const tl_op_call *c, tl_cost *cost) {
    const tl_desc *x = &c->in[TM_X].d;
    const int64_t rows = c->out[0].d.dim[1], n = tl_desc_count(x);
    cost_begin(c, cost);
    cost_add(cost, n * rows, 2, 0);
}

tl_status time_mix_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "time_mix_bwd", "dy", "w", "x");
    TRY(time_check(&h, TB_W, TB_X));
    TRY(shape_float(&h, TB_DY));
    TRY(shape_same_dtype(&h, TB_DY, TB_X));
    TRY(shape_ndim(&h, TB_DY, 4));
    const tl_desc *x = s->in[TB_X];
    for (int k = 0; k < 4; k++)
        TRY(shape_dim(&h, TB_DY, k, k == 1 ? s->in[TB_W]->dim[0] : x->dim[k], k == 1 ? "rows" : "of x"));
    shape_out_like(&h, 0, TB_X, x->dtype);
    shape_out_like(&h, 1, TB_W, tensor_sum_dtype(x->dtype));
    return TL_OK;
}

NO_SECOND_GRAD(time_mix_bwd)

void time_mix_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const int64_t n = tl_desc_count(&c->in[TB_X].d), rows = c->in[TB_DY].d.dim[1];
    cost_begin(c, cost);
    if (cost_out(c, 0)) cost_add(cost, n * rows, 2, 0);
    if (cost_out(c, 1)) cost_add(cost, n * rows, 2, 0);
}

#else

static int64_t time_row(const tl_desc *d, int64_t b, int64_t t, int64_t h) {
    return tl_desc_row(d, (b * d->dim[1] + t) * d->dim[2] + h);
}

void REF(time_mix)(const tl_op_call *c) {
    const tl_arg *w = &c->in[0], *x = &c->in[1], *y = &c->out[0];
    for (int64_t b = 0; b < x->d.dim[0]; b++)
        for (int64_t r = 0; r < y->d.dim[1]; r++)
            for (int64_t h = 0; h < x->d.dim[2]; h++)
                for (int64_t d = 0; d < x->d.dim[3]; d++) {
                    REAL sum = (REAL)0;
                    for (int64_t t = 0; t < x->d.dim[1]; t++)
                        sum = sum + GET(w, ROW(w, r) + t) * GET(x, time_row(&x->d, b, t, h) + d);
                    PUT(c, 0, time_row(&y->d, b, r, h) + d, sum);
                }
}

static void time_bwd_x(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *w = &c->in[1], *x = &c->in[2];
    for (int64_t b = 0; b < x->d.dim[0]; b++)
        for (int64_t t = 0; t < x->d.dim[1]; t++)
            for (int64_t h = 0; h < x->d.dim[2]; h++)
                for (int64_t d = 0; d < x->d.dim[3]; d++) {
                    REAL sum = (REAL)0;
                    for (int64_t r = 0; r < dy->d.dim[1]; r++)
                        sum = sum + GET(w, ROW(w, r) + t) * GET(dy, time_row(&dy->d, b, r, h) + d);
                    PUT(c, 0, time_row(&c->out[0].d, b, t, h) + d, sum);
                }
}

void REF(time_mix_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *w = &c->in[1], *x = &c->in[2];
    if (WANTS(c, 0)) time_bwd_x(c);
    for (int64_t r = 0; r < dy->d.dim[1] && WANTS(c, 1); r++)
        for (int64_t t = 0; t < w->d.dim[1]; t++) {
            REAL sum = (REAL)0;
            for (int64_t b = 0; b < x->d.dim[0] && t < x->d.dim[1]; b++)
                for (int64_t h = 0; h < x->d.dim[2]; h++)
                    for (int64_t d = 0; d < x->d.dim[3]; d++)
                        sum = sum + GET(dy, time_row(&dy->d, b, r, h) + d) * GET(x, time_row(&x->d, b, t, h) + d);
            PUT(c, 1, ROW(&c->out[1], r) + t, sum);
        }
}

#endif
