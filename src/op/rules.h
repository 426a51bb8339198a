/* Rules of operators: what a file src/op/<name>.c includes in its first section.
 *
 * Such a file has two sections. `#ifndef REAL`: shape, gradient and cost rules, plain C, compiled once. `#else`: the
 * scalar reference, written once over REAL in the common subset of C and C++ and compiled by ref_f32.c, ref_f64.c and
 * the test that counts its operations (op/ref.h). */
#ifndef OP_RULES_H
#define OP_RULES_H

#include "op/op.h"
#include "op/opcost.h"
#include "op/opshape.h"

#define OP(name, in, out, save, acc, flags)                                                                            \
    tl_status name##_shape(tl_op_infer *s);                                                                            \
    void name##_grad(tl_grad *g);                                                                                      \
    void name##_cost(const tl_op_call *c, tl_cost *cost);
#include "op/ops.def"
#undef OP

/* The gradient rule of an operator that has none. */
#define NO_GRAD(name, reason)                                                                                          \
    void name##_grad(tl_grad *g) {                                                                                     \
        tl_grad_refuse(g, #name ": " reason);                                                                          \
    }
#define NO_SECOND_GRAD(name) NO_GRAD(name, "part of a backward pass; there are no second derivatives")

/* Gradient rules: input i of the forward operator as target of an output, -1 if it is absent or not wanted. */
static inline int grad_to(const tl_grad *g, int i) {
    return tl_grad_in(g, i) && tl_grad_needs(g, i) ? i : -1;
}
/* Refuses if an auxiliary output (a saved statistic) itself reaches the loss; true if it did. */
static inline bool grad_aux(tl_grad *g, int from, int n_out, const char *reason) {
    for (int k = from; k < n_out; k++)
        if (tl_grad_dy(g, k)) {
            tl_grad_refuse(g, reason);
            return true;
        }
    return false;
}

#endif
