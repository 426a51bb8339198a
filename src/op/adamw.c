/* adamw: the optimizer's whole update in one pass over flat memory: clip, moments, bias correction, decoupled decay,
 * gradient cleared, 16-bit copy of the parameters written. Everything lies in the caller's memory. With a norm that is
 * not finite the gradient is cleared and nothing else changes, so that a step can be queued whole before anybody has
 * seen its loss. */
#ifndef REAL

#include "op/rules.h"

enum { ADAMW_P, ADAMW_M, ADAMW_V, ADAMW_G, ADAMW_P16 };

tl_status adamw_shape(tl_op_infer *s) {
    static const char *const name[] = {"p", "m", "v", "g", "p16"};
    SHAPE(h, s, "adamw", "hyper", "norm");
    TRY(shape_present(&h, 0));
    const tl_desc *p = &s->out[ADAMW_P];
    if (p->dtype != TL_F32 && p->dtype != TL_F64)
        return shape_bad_attr(&h, "p must be bound through acc, f32 or f64; it is %s", tl_dtype_name(p->dtype));
    TRY(shape_dtype(&h, 0, p->dtype));
    TRY(shape_ndim(&h, 0, 1));
    TRY(shape_dim(&h, 0, 0, HYPER_COUNT, "HYPER_COUNT"));
    if (shape_has(&h, 1)) TRY(shape_vector(&h, 1, 1, 0, "one norm"));
    for (int k = 0; k <= ADAMW_P16; k++) {
        const tl_desc *d = &s->out[k];
        tl_dtype want = k == ADAMW_P16 ? TL_BF16 : p->dtype;
        if (k == ADAMW_P16 && d->dtype == TL_NONE) continue;
        char is[120], be[120];
        if (d->dtype != want || d->ndim != 1 || d->dim[0] != p->dim[0] || !tl_desc_contiguous(d))
            return shape_bad_attr(&h,
                                  "%s is %s; it must be flat, of p's length and %s, and bound through acc (p is %s)",
                                  name[k], d->dtype == TL_NONE ? "absent" : tensor_print(d, is, sizeof is),
                                  tl_dtype_name(want), tensor_print(p, be, sizeof be));
    }
    return TL_OK;
}

NO_GRAD(adamw, "an update of parameters is not part of a model")

/* acc means "in place" here, so its additions do not count; hyper[CLIP] is data: counted as if it clipped. */
void adamw_cost(const tl_op_call *c, tl_cost *cost) {
    tl_op_call once = *c;
    once.acc = 0;
    cost_begin(&once, cost);
    for (int k = 0; k <= ADAMW_G; k++) cost->bytes_read += cost_bytes(&c->out[k].d);
    cost_add(cost, tl_desc_count(&c->out[ADAMW_P].d), ATTR(c, adamw)->decay ? 13 : 11, 4);
    cost_add(cost, 1, cost_in(c, 1) ? 3 : 2, cost_in(c, 1) ? 1 : 0);
}

#else

void REF(adamw)(const tl_op_call *c) {
    const tl_arg *hyper = &c->in[0], *norm = &c->in[1];
    const tl_arg *p = &c->out[0], *m = &c->out[1], *v = &c->out[2], *g = &c->out[3], *p16 = &c->out[4];
    REAL lr = GET(hyper, HYPER_LR), b1 = GET(hyper, HYPER_BETA1), b2 = GET(hyper, HYPER_BETA2);
    REAL eps = GET(hyper, HYPER_EPS), decay = GET(hyper, HYPER_DECAY), clip = GET(hyper, HYPER_CLIP);
    REAL bc1 = GET(hyper, HYPER_BC1), bc2 = GET(hyper, HYPER_BC2), gscale = GET(hyper, HYPER_GSCALE);
    REAL a1 = (REAL)1 - b1, a2 = (REAL)1 - b2;
    if (norm->data && !(GET(norm, 0) <= (REAL)3.402823466e38)) {
        for (int64_t i = 0; i < p->d.dim[0]; i++) STORE(g, i, (REAL)0);
        return;
    }
    if (norm->data && clip > (REAL)0) {
        REAL shrink = clip / GET(norm, 0);
        gscale = gscale * (shrink < (REAL)1 ? shrink : (REAL)1);
    }
    for (int64_t i = 0; i < p->d.dim[0]; i++) {
        REAL gi = GET(g, i) * gscale, pi = GET(p, i);
        REAL mi = b1 * GET(m, i) + a1 * gi;
        REAL vi = b2 * GET(v, i) + a2 * gi * gi;
        REAL step = mi / bc1 / (real_sqrt(vi / bc2) + eps);
        if (ATTR(c, adamw)->decay) step = step + decay * pi;
        pi = pi - lr * step;
        STORE(p, i, pi);
        STORE(m, i, mi);
        STORE(v, i, vi);
        STORE(g, i, (REAL)0);
        if (WANTS(c, 4)) STORE(p16, i, pi);
    }
}

#endif
