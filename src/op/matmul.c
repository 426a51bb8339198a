/* matmul: products of activations, for every sequence and head: y = alpha op(a) op(b) + beta c + diag I, op a
 * transposition if it is asked for. Its gradients are products of the same kind. */
#ifndef REAL
#include "op/rules.h"

enum { MM_A, MM_B, MM_C };

tl_status matmul_shape(tl_op_infer *s) {
    SHAPE(h, s, "matmul", "a", "b", "c");
    const struct matmul_attr *t = s->attr;
    for (int i = 0; i < 2; i++) {
        TRY(shape_float(&h, i));
        TRY(shape_same_dtype(&h, i, 0));
        TRY(shape_ndim(&h, i, 4));
    }
    const tl_desc *a = s->in[0], *b = s->in[1];
    const int64_t m = a->dim[t->ta ? 3 : 1], k = a->dim[t->ta ? 1 : 3], n = b->dim[t->tb ? 1 : 3];
    TRY(shape_dim(&h, 1, 0, a->dim[0], "sequences of a"));
    TRY(shape_dim(&h, 1, 2, a->dim[2], "heads of a"));
    TRY(shape_dim(&h, 1, t->tb ? 3 : 1, k, "columns of a"));
    const float all = t->alpha + t->beta + t->diag;
    if (all - all != 0)
        return shape_bad_attr(&h, "alpha %g, beta %g, diag %g", (double)t->alpha, (double)t->beta, (double)t->diag);
    shape_out(&h, 0, a->dtype, 4, (int64_t[]){a->dim[0], m, a->dim[2], n});
    if (!shape_has(&h, MM_C)) return TL_OK;
    TRY(shape_float(&h, MM_C));
    TRY(shape_same_dtype(&h, MM_C, 0));
    TRY(shape_ndim(&h, MM_C, 4));
    for (int i = 0; i < 4; i++) TRY(shape_dim(&h, MM_C, i, s->out[0].dim[i], "of the product"));
    return TL_OK;
}

/* da = alpha dy op(b)^T, db = alpha op(a)^T dy, each turned over where its argument was. */
void matmul_grad(tl_grad *g) {
    const struct matmul_attr *f = tl_grad_attr(g);
    tl_tensor *dy = tl_grad_dy(g, 0), *a = tl_grad_in(g, MM_A), *b = tl_grad_in(g, MM_B);
    struct matmul_attr t = {.alpha = f->alpha};
    if (tl_grad_needs(g, MM_A)) {
        tl_tensor *in[] = {f->ta ? b : dy, f->ta ? dy : b};
        t.ta = f->ta && f->tb, t.tb = f->ta || !f->tb;
        tl_grad_emit(g, OP_DEF(matmul), &t, in, 2, (int[1]){MM_A}, 1);
    }
    if (tl_grad_needs(g, MM_B)) {
        tl_tensor *in[] = {f->tb ? dy : a, f->tb ? a : dy};
        t.ta = f->tb || !f->ta, t.tb = f->tb && f->ta;
        tl_grad_emit(g, OP_DEF(matmul), &t, in, 2, (int[1]){MM_B}, 1);
    }
    const struct scale_attr by = {f->beta};
    if (grad_to(g, MM_C) >= 0) tl_grad_emit(g, OP_DEF(scale), &by, &dy, 1, (int[1]){MM_C}, 1);
}

void matmul_cost(const tl_op_call *c, tl_cost *cost) {
    const struct matmul_attr *a = ATTR(c, matmul);
    const tl_desc *y = &c->out[0].d;
    const int64_t k = c->in[MM_A].d.dim[a->ta ? 1 : 3], m = y->dim[1], n = y->dim[3];
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(y), 2 * (double)k + 1 + (cost_in(c, MM_C) ? 2 : 0), 0);
    if (a->diag != 0) cost_add(cost, y->dim[0] * y->dim[2] * (m < n ? m : n), 1, 0);
}

#else

/* Where element (i, j) of op(x) lies, of head h of sequence b. */
static int64_t matmul_at(const tl_desc *d, bool turned, int64_t b, int64_t h, int64_t i, int64_t j) {
    return tl_desc_row(d, (b * d->dim[1] + (turned ? j : i)) * d->dim[2] + h) + (turned ? i : j);
}

void REF(matmul)(const tl_op_call *c) {
    const struct matmul_attr *t = ATTR(c, matmul);
    const tl_arg *a = &c->in[0], *b = &c->in[1], *add = &c->in[2];
    const tl_desc *y = &c->out[0].d;
    const int64_t k = a->d.dim[t->ta ? 1 : 3];
    const REAL alpha = (REAL)(t->alpha != 0 ? t->alpha : 1.0f), beta = (REAL)t->beta, diag = (REAL)t->diag;
    for (int64_t s = 0; s < y->dim[0]; s++)
        for (int64_t h = 0; h < y->dim[2]; h++)
            for (int64_t i = 0; i < y->dim[1]; i++)
                for (int64_t j = 0; j < y->dim[3]; j++) {
                    REAL sum = (REAL)0;
                    for (int64_t l = 0; l < k; l++)
                        sum = sum + GET(a, matmul_at(&a->d, t->ta != 0, s, h, i, l)) *
                                        GET(b, matmul_at(&b->d, t->tb != 0, s, h, l, j));
                    sum = sum * alpha;
                    if (add->data) sum = sum + beta * GET(add, matmul_at(&add->d, false, s, h, i, j));
                    if (i == j && t->diag != 0) sum = sum + diag;
                    PUT(c, 0, matmul_at(y, false, s, h, i, j), sum);
                }
}

#endif
