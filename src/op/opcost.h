/* What cost rules are made of. A rule counts the operations of its reference kernel, exactly: cost_begin, then
 * cost_add per loop. tests/op/t_op_cost.cpp runs the reference over a counting type and compares. */
#ifndef OP_OPCOST_H
#define OP_OPCOST_H

#include "tilia/op.h"

/* Does the call have this argument? Decided by the descriptor: at planning there are no data yet. */
static inline bool cost_in(const tl_op_call *c, int i) {
    return c->in[i].d.dtype != TL_NONE;
}
static inline bool cost_out(const tl_op_call *c, int k) {
    return c->out[k].d.dtype != TL_NONE;
}
/* Bytes of the argument's elements (a window counts its own alone). */
double cost_bytes(const tl_desc *d);
/* Each argument once; outputs that are added into are read too, and cost one addition per element. */
void cost_begin(const tl_op_call *c, tl_cost *cost);
/* times * (flops additions, subtractions and multiplications; special functions) */
static inline void cost_add(tl_cost *cost, int64_t times, double flops, double special) {
    cost->flops += (double)times * flops;
    cost->special += (double)times * special;
}

#endif
