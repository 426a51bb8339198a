/* glu: y = act(gate) up, the gated units of Shazeer 2020;  dgate = dy up act'(gate),  dup = dy act(gate). */
#include "op/act_kinds.h"
#ifndef REAL
#include "op/rules.h"

tl_status glu_shape(tl_op_infer *s) {
    SHAPE(h, s, "glu", "gate", "up");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_same_dtype(&h, 1, 0));
    TRY(shape_same(&h, 1, 0));
    TRY(shape_attr_kind(&h, ATTR(s, glu)->kind, ACT_KINDS));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void glu_grad(tl_grad *g) {
    tl_tensor *in[3] = {tl_grad_dy(g, 0), tl_grad_in(g, 0), tl_grad_in(g, 1)};
    const struct glu_attr *f = tl_grad_attr(g);
    struct glu_bwd_attr a = {f->kind};
    tl_grad_emit(g, OP_DEF(glu_bwd), &a, in, 3, (int[2]){grad_to(g, 0), grad_to(g, 1)}, 2);
}

void glu_cost(const tl_op_call *c, tl_cost *cost) {
    act_count n = act_value_count(ATTR(c, glu)->kind);
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), n.flops + 1, n.special);
}

tl_status glu_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "glu_bwd", "dy", "gate", "up");
    TRY(shape_float(&h, 0));
    TRY(shape_float(&h, 1));
    TRY(shape_float(&h, 2));
    TRY(shape_mix(&h, 0, 1));
    TRY(shape_same_dtype(&h, 2, 1));
    TRY(shape_same(&h, 0, 1));
    TRY(shape_same(&h, 2, 1));
    TRY(shape_attr_kind(&h, ATTR(s, glu_bwd)->kind, ACT_KINDS));
    shape_out_like(&h, 0, 1, s->in[1]->dtype);
    shape_out_like(&h, 1, 2, s->in[2]->dtype);
    return TL_OK;
}

NO_SECOND_GRAD(glu_bwd)

void glu_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    act_count value = act_value_count(ATTR(c, glu_bwd)->kind), slope = act_slope_count(ATTR(c, glu_bwd)->kind);
    int64_t count = tl_desc_count(&c->in[0].d);
    cost_begin(c, cost);
    if (cost_out(c, 0)) cost_add(cost, count, slope.flops + 2, slope.special);
    if (cost_out(c, 1)) cost_add(cost, count, value.flops + 1, value.special);
}

#else

void REF(glu)(const tl_op_call *c) {
    const tl_arg *gate = &c->in[0], *up = &c->in[1];
    int64_t rows = tl_desc_rows(&gate->d), D = tl_desc_last(&gate->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t at = ROW(gate, r), up_at = ROW(up, r), to = ROW(&c->out[0], r);
        for (int64_t d = 0; d < D; d++)
            PUT(c, 0, to + d, REF(act_value)(ATTR(c, glu)->kind, GET(gate, at + d)) * GET(up, up_at + d));
    }
}

void REF(glu_bwd)(const tl_op_call *c) {
    const tl_arg *dy = &c->in[0], *gate = &c->in[1], *up = &c->in[2];
    int32_t kind = ATTR(c, glu_bwd)->kind;
    int64_t rows = tl_desc_rows(&dy->d), D = tl_desc_last(&dy->d);
    for (int64_t r = 0; r < rows; r++) {
        int64_t dy_at = ROW(dy, r), at = ROW(gate, r), up_at = ROW(up, r);
        for (int64_t d = 0; d < D; d++) {
            REAL y = GET(dy, dy_at + d), x = GET(gate, at + d), u = GET(up, up_at + d);
            if (WANTS(c, 0)) PUT(c, 0, ROW(&c->out[0], r) + d, y * u * REF(act_slope)(kind, x));
            if (WANTS(c, 1)) PUT(c, 1, ROW(&c->out[1], r) + d, y * REF(act_value)(kind, x));
        }
    }
}

#endif
