/* act: y = act(x); dx = dy act'(x). The kinds are in op/act_kinds.h. */
#include "op/act_kinds.h"
#ifndef REAL
#include "op/rules.h"

tl_status act_shape(tl_op_infer *s) {
    SHAPE(h, s, "act", "x");
    TRY(shape_float(&h, 0));
    TRY(shape_attr_kind(&h, ATTR(s, act)->kind, ACT_KINDS));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void act_grad(tl_grad *g) {
    const struct act_attr *f = tl_grad_attr(g);
    struct act_bwd_attr a = {f->kind};
    tl_grad_emit(g, OP_DEF(act_bwd), &a, (tl_tensor *[2]){tl_grad_dy(g, 0), tl_grad_in(g, 0)}, 2, (int[1]){0}, 1);
}

void act_cost(const tl_op_call *c, tl_cost *cost) {
    act_count n = act_value_count(ATTR(c, act)->kind);
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), n.flops, n.special);
}

tl_status act_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "act_bwd", "dy", "x");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_same(&h, 0, 1));
    TRY(shape_attr_kind(&h, ATTR(s, act_bwd)->kind, ACT_KINDS));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(act_bwd)

void act_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    act_count n = act_slope_count(ATTR(c, act_bwd)->kind);
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), n.flops + 1, n.special);
}

#else

void REF(act)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++) PUT(c, 0, to + d, REF(act_value)(ATTR(c, act)->kind, GET(x, at + d)));
    }
}

void REF(act_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *x = &c->in[1];
    int64_t rows = tl_desc_rows(&x->d), D = tl_desc_last(&x->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(x, r), dy_at = ROW(dy, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++)
            PUT(c, 0, to + d, GET(dy, dy_at + d) * REF(act_slope)(ATTR(c, act_bwd)->kind, GET(x, at + d)));
    }
}

#endif
