/* dropout: zeros elements and scales the others up. The mask is a function of seed, step, operator, row and element
 * and is nowhere stored, so the gradient is the operator itself on dy. */
#ifndef REAL

#include "op/rules.h"

tl_status dropout_shape(tl_op_infer *s) {
    const struct dropout_attr *a = s->attr;
    SHAPE(h, s, "dropout", "x");
    TRY(shape_float(&h, 0));
    if (!(a->p >= 0 && a->p < 1)) return shape_bad_attr(&h, "p is %g; it must be in [0, 1)", (double)a->p);
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

void dropout_grad(tl_grad *g) {
    tl_tensor *in[] = {tl_grad_dy(g, 0)};
    int to[] = {grad_to(g, 0)};
    tl_grad_emit(g, OP_DEF(dropout), tl_grad_attr(g), in, 1, to, 1);
}

void dropout_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[0].d), 1, 0);
}

#else

#include "base/rng.h"

void REF(dropout)(const tl_op_call *c) {
    const struct dropout_attr *a = ATTR(c, dropout);
    const tl_arg *x = &c->in[0], *y = &c->out[0];
    int64_t rows = tl_desc_rows(&x->d), width = tl_desc_last(&x->d), row0 = c->run ? c->run->row0 : 0;
    rng_key key = rng_key_make(c->run ? c->run->seed : 0, c->run ? c->run->step : 0, (uint64_t)a->op);
    REAL up = (REAL)(1.0 / (1.0 - (double)a->p));
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t e = 0; e < width; e++) {
            bool keep = rng_uniform(key, (uint64_t)(row0 + r), (uint64_t)e) >= a->p;
            REAL v = GET(x, ROW(x, r) + e) * up;
            PUT(c, 0, ROW(y, r) + e, keep ? v : (REAL)0);
        }
    }
}

#endif
