/* reshape: the same elements under other dimensions, without a copy. A strided view is taken where its dimensions can
 * be split or merged as they lie; otherwise it is refused, and a cast to its own dtype makes the copy that can. One
 * dimension may be -1: what is left. */
#ifndef REAL
#include "op/rules.h"

/* Puts the number that is left for -1. */
static tl_status reshape_complete(const shape_rule *h, struct reshape_attr *a) {
    if (a->ndim < 0 || a->ndim > TL_DIMS) return shape_bad_attr(h, "dimensions wanted: %d, not 0 to 4", (int)a->ndim);
    int64_t known = 1, count = tl_desc_count(h->s->in[0]);
    int open = -1;
    for (int i = 0; i < a->ndim; i++) {
        if (a->dim[i] == -1 && open < 0)
            open = i;
        else if (a->dim[i] < 0)
            return shape_bad_attr(h, "dimension %d is negative", i);
        else if (__builtin_mul_overflow(known, a->dim[i], &known))
            return shape_bad_attr(h, "the dimensions overflow");
    }
    if (open < 0) return TL_OK;
    if (!known || count % known)
        return shape_refuse(h, 0, TL_SHAPE, "its elements do not divide by the dimensions wanted");
    a->dim[open] = count / known;
    return TL_OK;
}

tl_status reshape_shape(tl_op_infer *s) {
    SHAPE(h, s, "reshape", "x");
    struct reshape_attr *a = s->attr;
    TRY(shape_present(&h, 0));
    TRY(reshape_complete(&h, a));
    tl_desc want = tl_desc_make(s->in[0]->dtype, a->ndim, a->dim);
    char text[120];
    if (!tensor_valid(&want) || tl_desc_count(&want) != tl_desc_count(s->in[0]))
        return shape_refuse(&h, 0, TL_SHAPE, "that does not make %s", tensor_print(&want, text, sizeof text));
    if (!tensor_reshape(s->in[0], a->ndim, a->dim, &s->out[0]))
        return shape_refuse(&h, 0, TL_SHAPE, "a view of wider rows that becomes %s only by a copy (cast it first)",
                            tensor_print(&want, text, sizeof text));
    return TL_OK;
}

void reshape_grad(tl_grad *g) {
    const tl_desc *x = tl_tensor_desc(tl_grad_in(g, 0));
    tl_tensor *dy = tl_grad_dy(g, 0);
    struct reshape_attr a = {x->ndim, 0, {0}};
    for (int i = 0; i < x->ndim; i++) a.dim[i] = x->dim[i];
    tl_desc as_view;
    if (dy && tl_tensor_desc(dy) && !tensor_reshape(tl_tensor_desc(dy), a.ndim, a.dim, &as_view)) {
        struct cast_attr copy = {tl_tensor_desc(dy)->dtype};
        dy = tl_grad_temp(g, OP_DEF(cast), &copy, &dy, 1);
    }
    tl_grad_emit(g, OP_DEF(reshape), &a, &dy, 1, (int[1]){0}, 1);
}

void reshape_cost(const tl_op_call *c, tl_cost *cost) {
    (void)c;
    *cost = (tl_cost){0};
}

#else

/* A view already where a plan runs; where the output has memory of its own it is copied, element by element because
 * rows differ. */
void REF(reshape)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *y = &c->out[0];
    int64_t count = tl_desc_count(&x->d), block = tl_dtype_block(x->d.dtype);
    int64_t from = tl_desc_last(&x->d), to = tl_desc_last(&y->d);
    if (x->data == y->data) return;
    for (int64_t i = 0; i < count; i += block)
        ref_move(y, ROW(y, i / to) + i % to, x, ROW(x, i / from) + i % from, block);
}

#endif
