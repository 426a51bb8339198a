/* softcap: y = cap tanh(x / cap);  dx = dy (1 - (y / cap)^2). */
#ifndef REAL
#include "op/rules.h"

static tl_status softcap_check(const shape_rule *h, float cap) {
    return cap > 0 ? TL_OK : shape_bad_attr(h, "cap is %g; it must be positive", (double)cap);
}

tl_status softcap_shape(tl_op_infer *s) {
    SHAPE(h, s, "softcap", "x");
    TRY(shape_float(&h, 0));
    TRY(softcap_check(&h, ATTR(s, softcap)->cap));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void softcap_grad(tl_grad *g) {
    const struct softcap_attr *f = tl_grad_attr(g);
    struct softcap_bwd_attr a = {f->cap};
    tl_grad_emit(g, OP_DEF(softcap_bwd), &a, (tl_tensor *[2]){tl_grad_dy(g, 0), tl_grad_out(g, 0)}, 2, (int[1]){0}, 1);
}

void softcap_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 1, 2);
}

tl_status softcap_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "softcap_bwd", "dy", "y");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_same(&h, 0, 1));
    TRY(softcap_check(&h, ATTR(s, softcap_bwd)->cap));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(softcap_bwd)

void softcap_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 3, 1);
}

#else

void REF(softcap)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    REAL cap = (REAL)ATTR(c, softcap)->cap;
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, cap * real_tanh(GET(x, at + d) / cap));
    }
}

void REF(softcap_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *y = &c->in[1];
    REAL cap = (REAL)ATTR(c, softcap_bwd)->cap;
    int64_t rows = tl_desc_rows(&y->d), D = tl_desc_last(&y->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t dy_at = ROW(dy, r), at = ROW(y, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++) {
            REAL t = GET(y, at + d) / cap;
            PUT(c, 0, to + d, GET(dy, dy_at + d) * ((REAL)1 - t * t));
        }
    }
}

#endif
