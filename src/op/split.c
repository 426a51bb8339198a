/* split: windows of widths attr.width along the last dimension, in order: output k begins where output k - 1 ends.
 * The gradient is concat of the dys; where one does not reach the loss zeros stand for it (scale by 0, which reads
 * nothing). */
#ifndef REAL
#include "op/rules.h"

#include <inttypes.h>

tl_status split_shape(tl_op_infer *s) {
    SHAPE(h, s, "split", "x");
    const struct split_attr *a = s->attr;
    TRY(shape_present(&h, 0));
    TRY(shape_min_ndim(&h, 0, 1));
    if (a->n < 1 || a->n > 6) return shape_bad_attr(&h, "%d parts wanted, not 1 to 6", (int)a->n);
    int64_t left = tl_desc_last(s->in[0]), block = tl_dtype_block(s->in[0]->dtype);
    for (int k = 0; k < a->n; k++) {
        if (a->width[k] < 0 || a->width[k] > left || a->width[k] % block)
            return shape_refuse(&h, 0, TL_SHAPE, "part %d of width %" PRId64 " does not fit", k, a->width[k]);
        left -= a->width[k];
        s->out[k] = tensor_window(s->in[0], a->width[k]);
    }
    if (left) return shape_refuse(&h, 0, TL_SHAPE, "the parts leave %" PRId64 " of its last dimension", left);
    return TL_OK;
}

void split_grad(tl_grad *g) {
    const struct split_attr *f = tl_grad_attr(g);
    struct concat_attr a = {f->n};
    struct scale_attr zero = {0};
    tl_tensor *in[TL_OP_OUTS];
    for (int k = 0; k < f->n; k++) {
        tl_tensor *y = tl_grad_out(g, k);
        in[k] = tl_grad_dy(g, k);
        if (!in[k]) in[k] = tl_grad_temp(g, OP_DEF(scale), &zero, &y, 1);
    }
    tl_grad_emit(g, OP_DEF(concat), &a, in, f->n, (int[1]){0}, 1);
}

void split_cost(const tl_op_call *c, tl_cost *cost) {
    (void)c;
    *cost = (tl_cost){0};
}

#else

/* Outputs are windows already where a plan runs; where they have memory of their own they are copied. */
void REF(split)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0];
    int64_t rows = tl_desc_rows(&x->d), at = 0;
    for (int k = 0; k < ATTR(c, split)->n; k++) {
        const tl_arg *y = &c->out[k];
        int64_t width = ATTR(c, split)->width[k];
        for (int64_t r = 0; WANTS(c, k) && r < rows; r++) ref_move(y, ROW(y, r), x, ROW(x, r) + at, width);
        at += width;
    }
}

#endif
