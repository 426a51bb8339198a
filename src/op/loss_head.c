/* loss_head, loss_head_bwd: the last product, the softmax over the vocabulary and the cross entropy as one operator, so
 * that logits of all rows never exist. When it is the loss itself it computes the gradients in the same sweep. */
#ifndef REAL

#include "op/rules.h"

enum { HEAD_H, HEAD_W, HEAD_TARGETS, HEAD_DENOM, HEAD_B };                       /* inputs of loss_head */
enum { HEAD_LOSS, HEAD_LSE, HEAD_LOSSES, HEAD_DH, HEAD_DW, HEAD_DB };            /* and outputs */
enum { BACK_DLOSS, BACK_H, BACK_W, BACK_TARGETS, BACK_DENOM, BACK_LSE, BACK_B }; /* inputs of loss_head_bwd */

static tl_status loss_head_check(const shape_rule *h, int ih, int iw, int it, int id, int ib,
                                 const struct loss_head_attr *a) {
    TRY(shape_float(h, ih));
    TRY(shape_min_ndim(h, ih, 2));
    TRY(shape_weight(h, iw));
    TRY(shape_ndim(h, iw, 2));
    TRY(shape_dim(h, iw, 1, tl_desc_last(h->s->in[ih]), "width of h"));
    TRY(shape_mix(h, iw, ih));
    TRY(shape_dtype(h, it, TL_I32));
    TRY(shape_ndim(h, it, h->s->in[ih]->ndim - 1));
    for (int k = 0; k + 1 < h->s->in[ih]->ndim; k++) TRY(shape_dim(h, it, k, h->s->in[ih]->dim[k], "as h"));
    TRY(shape_vector(h, id, 1, ih, "the labels of the whole step"));
    if (h->s->in[iw]->dim[0] < 1) return shape_refuse(h, iw, TL_SHAPE, "a vocabulary needs words");
    if (shape_has(h, ib)) TRY(shape_vector(h, ib, h->s->in[iw]->dim[0], ih, "rows of w"));
    if (!(a->smoothing >= 0 && a->smoothing < 1) || !(a->zloss >= 0) || !(a->softcap >= 0))
        return shape_bad_attr(h, "smoothing %g must be in [0,1), zloss %g and softcap %g not negative",
                              (double)a->smoothing, (double)a->zloss, (double)a->softcap);
    return TL_OK;
}

static void loss_head_out_grads(const shape_rule *h, int k, int ih, int iw, int ib) {
    const tl_desc *x = h->s->in[ih];
    shape_out_like(h, k, ih, x->dtype);
    shape_out_like(h, k + 1, iw, tensor_sum_dtype(x->dtype));
    if (shape_has(h, ib)) shape_out_like(h, k + 2, ib, tensor_sum_dtype(x->dtype));
}

tl_status loss_head_shape(tl_op_infer *s) {
    SHAPE(h, s, "loss_head", "h", "w", "targets", "denom", "b");
    TRY(loss_head_check(&h, HEAD_H, HEAD_W, HEAD_TARGETS, HEAD_DENOM, HEAD_B, s->attr));
    tl_dtype sum = tensor_sum_dtype(s->in[HEAD_H]->dtype);
    shape_out_vector(&h, HEAD_LOSS, 1, sum);
    shape_out_vector(&h, HEAD_LSE, tl_desc_rows(s->in[HEAD_H]), sum);
    shape_out_vector(&h, HEAD_LOSSES, tl_desc_rows(s->in[HEAD_H]), sum);
    loss_head_out_grads(&h, HEAD_DH, HEAD_H, HEAD_W, HEAD_B);
    return TL_OK;
}

void loss_head_grad(tl_grad *g) {
    static const int input[] = {HEAD_H, HEAD_W, HEAD_B};
    if (grad_aux(g, HEAD_LSE, HEAD_DB + 1, "loss_head: only the loss carries a gradient, not lse or losses")) return;
    if (tl_grad_needs(g, HEAD_W) && tensor_is_quantized(tl_tensor_desc(tl_grad_in(g, HEAD_W))->dtype)) {
        tl_grad_refuse(g, "loss_head: a quantized weight has no gradient; train a low-rank addition instead");
        return;
    }
    if (tl_grad_needs(g, HEAD_DENOM)) {
        tl_grad_refuse(g, "loss_head: the number of labels is a constant");
        return;
    }
    if (tl_grad_dy_is_one(g, 0)) {
        for (int k = 0; k < 3; k++)
            if (grad_to(g, input[k]) >= 0) tl_grad_claim(g, input[k], HEAD_DH + k);
        return;
    }
    struct loss_head_bwd_attr a = {*(const struct loss_head_attr *)tl_grad_attr(g)};
    tl_tensor *in[] = {
        tl_grad_dy(g, 0),          tl_grad_in(g, HEAD_H),    tl_grad_in(g, HEAD_W), tl_grad_in(g, HEAD_TARGETS),
        tl_grad_in(g, HEAD_DENOM), tl_grad_out(g, HEAD_LSE), tl_grad_in(g, HEAD_B)};
    int to[] = {grad_to(g, HEAD_H), grad_to(g, HEAD_W), grad_to(g, HEAD_B)};
    tl_grad_emit(g, OP_DEF(loss_head_bwd), &a, in, 7, to, 3);
}

/* One logit, times. */
static void loss_head_cost_logits(tl_cost *cost, const struct loss_head_attr *a, int64_t D, bool bias, int64_t times) {
    cost_add(cost, times, 2 * (double)D + (bias ? 1 : 0), 0);
    if (a->softcap > 0) cost_add(cost, times, 1, 2);
}

/* Gradients of rows x V logits, and what is made of them. */
static void loss_head_cost_grads(tl_cost *cost, const struct loss_head_attr *a, int64_t rows, int64_t V, int64_t D,
                                 bool dh, bool dw, bool db) {
    if (!dh && !dw && !db) return;
    double zloss = a->zloss > 0 ? 3 : 0;
    cost_add(cost, rows, 1, 0);
    cost_add(cost, rows * V, 2 + zloss + (a->smoothing > 0 ? 1 : 0) + (a->softcap > 0 ? 3 : 0), 1);
    cost_add(cost, rows * V, 2 * (double)D * ((dh ? 1 : 0) + (dw ? 1 : 0)) + (db ? 1 : 0), 0);
}

/* Which targets count is data: as if all did. */
void loss_head_cost(const tl_op_call *c, tl_cost *cost) {
    const struct loss_head_attr *a = ATTR(c, loss_head);
    int64_t rows = tl_desc_rows(&c->in[HEAD_H].d), D = tl_desc_last(&c->in[HEAD_H].d), V = c->in[HEAD_W].d.dim[0];
    bool smooth = a->smoothing > 0;
    bool dh = cost_out(c, HEAD_DH), dw = cost_out(c, HEAD_DW), db = cost_out(c, HEAD_DB);
    cost_begin(c, cost);
    loss_head_cost_logits(cost, a, D, cost_in(c, HEAD_B), rows * V);
    cost_add(cost, rows * V, 2 + (smooth ? 1 : 0), 1);
    cost_add(cost, rows, 4 + (smooth ? 2 : 0) + (a->zloss > 0 ? 3 : 0), 1);
    cost_add(cost, 1, 0, dh || dw || db ? 2 : 1);
    loss_head_cost_grads(cost, a, rows, V, D, dh, dw, db);
}

tl_status loss_head_bwd_shape(tl_op_infer *s) {
    SHAPE(h, s, "loss_head_bwd", "dloss", "h", "w", "targets", "denom", "lse", "b");
    const struct loss_head_bwd_attr *a = s->attr;
    TRY(loss_head_check(&h, BACK_H, BACK_W, BACK_TARGETS, BACK_DENOM, BACK_B, &a->f));
    TRY(shape_vector(&h, BACK_DLOSS, 1, BACK_H, "one loss"));
    TRY(shape_vector(&h, BACK_LSE, tl_desc_rows(s->in[BACK_H]), BACK_H, "rows of h"));
    loss_head_out_grads(&h, 0, BACK_H, BACK_W, BACK_B);
    return TL_OK;
}

NO_SECOND_GRAD(loss_head_bwd)

void loss_head_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    const struct loss_head_attr *a = &ATTR(c, loss_head_bwd)->f;
    int64_t rows = tl_desc_rows(&c->in[BACK_H].d), D = tl_desc_last(&c->in[BACK_H].d), V = c->in[BACK_W].d.dim[0];
    cost_begin(c, cost);
    cost_add(cost, 1, 1, 1);
    loss_head_cost_logits(cost, a, D, cost_in(c, BACK_B), rows * V);
    loss_head_cost_grads(cost, a, rows, V, D, cost_out(c, 0), cost_out(c, 1), cost_out(c, 2));
}

#else

enum { LOSS_HEAD_ROWS = 256, LOSS_HEAD_CHUNK = 64 };

typedef struct loss_head_view {
    const struct loss_head_attr *a;
    const tl_arg *h, *w, *targets, *b;
    int64_t rows, D, V;
    REAL hit, each;           /* 1 - smoothing, smoothing / V */
    REAL cap, zloss, zloss2;  /* zloss2: twice zloss */
    REAL by;                  /* gradient of the loss with respect to one row's */
    REAL lse[LOSS_HEAD_ROWS]; /* of the rows at hand */
} loss_head_view;

static void loss_head_open(loss_head_view *w, const struct loss_head_attr *a, const tl_arg *in, const tl_arg *b) {
    w->a = a;
    w->h = &in[0], w->w = &in[1], w->targets = &in[2], w->b = b;
    w->rows = tl_desc_rows(&w->h->d), w->D = tl_desc_last(&w->h->d), w->V = w->w->d.dim[0];
    w->hit = (REAL)(1.0 - (double)a->smoothing), w->each = (REAL)((double)a->smoothing / (double)w->V);
    w->cap = (REAL)a->softcap, w->zloss = (REAL)a->zloss;
    w->zloss2 = (REAL)(2.0 * (double)a->zloss);
}

/* The target of row n, -1 if it is not counted. */
static int64_t loss_head_target(const loss_head_view *w, int64_t n) {
    int64_t t = GETI(w->targets, AT(w->targets, n));
    return t >= 0 && t < w->V ? t : -1;
}

/* z_nv; *th gets tanh of the capped logit */
static REAL loss_head_logit(const loss_head_view *w, int64_t n, int64_t v, REAL *th) {
    int64_t x = ROW(w->h, n), y = ROW(w->w, v);
    REAL z = (REAL)0;
    for (int64_t d = 0; d < w->D; d++) z = z + GET(w->h, x + d) * GET(w->w, y + d);
    if (w->b->data) z = z + GET(w->b, v);
    *th = (REAL)0;
    if (w->a->softcap > 0) {
        *th = real_tanh(z / w->cap);
        z = w->cap * *th;
    }
    return z;
}

/* Loss of row n without and with (*whole) the z term; *lse its logsumexp. */
static REAL loss_head_row(const loss_head_view *w, int64_t n, int64_t target, REAL *lse, REAL *whole) {
    const REAL none = (REAL)-INFINITY;
    REAL th, z = none, top = none, sum = (REAL)0, all = (REAL)0, of_target = (REAL)0;
    for (int64_t v = 0; v < w->V; v++) {
        UNCOUNTED(z = loss_head_logit(w, n, v, &th));
        if (z > top) top = z;
    }
    if (top == none) top = (REAL)0;
    for (int64_t v = 0; v < w->V; v++) {
        z = loss_head_logit(w, n, v, &th);
        sum = sum + real_exp(z - top);
        if (w->a->smoothing > 0) all = all + z;
        if (v == target) of_target = z;
    }
    *lse = top + real_log(sum);
    REAL loss = *lse - w->hit * of_target;
    if (w->a->smoothing > 0) loss = loss - w->each * all;
    *whole = loss;
    if (w->a->zloss > 0) *whole = loss + w->zloss * *lse * *lse;
    return loss;
}

/* Gradient of the loss with respect to z_nv before the cap. */
static REAL loss_head_dz(const loss_head_view *w, int64_t v, int64_t target, REAL lse, REAL z, REAL th) {
    REAL dz = real_exp(z - lse);
    if (w->a->zloss > 0) dz = dz * ((REAL)1 + w->zloss2 * lse);
    if (w->a->smoothing > 0) dz = dz - w->each;
    if (v == target) dz = dz - w->hit;
    dz = dz * w->by;
    if (w->a->softcap > 0) dz = dz * ((REAL)1 - th * th);
    return dz;
}

/* dz of row n recomputed whole */
static REAL loss_head_dz_again(const loss_head_view *w, int64_t n, int64_t n0, int64_t v, int64_t target) {
    REAL th, z = loss_head_logit(w, n, v, &th);
    return loss_head_dz(w, v, target, w->lse[n - n0], z, th);
}

/* Walks the logits' gradients of one row (counted here, whatever is wanted) into output k, dh. */
static void loss_head_dh(const loss_head_view *w, const tl_op_call *c, int k, int64_t n, int64_t n0,
                         bool count_logits) {
    int64_t target = loss_head_target(w, n), to = WANTS(c, k) ? ROW(&c->out[k], n) : 0;
    for (int64_t d0 = 0; d0 < w->D; d0 += LOSS_HEAD_CHUNK) {
        REAL dh[LOSS_HEAD_CHUNK], th, z = (REAL)0, dz = (REAL)0;
        int64_t width = w->D - d0 < LOSS_HEAD_CHUNK ? w->D - d0 : LOSS_HEAD_CHUNK;
        for (int64_t d = 0; d < width; d++) dh[d] = (REAL)0;
        for (int64_t v = 0; v < w->V && target >= 0; v++) {
            if (d0) {
                UNCOUNTED(dz = loss_head_dz_again(w, n, n0, v, target));
            } else {
                if (count_logits)
                    z = loss_head_logit(w, n, v, &th);
                else
                    UNCOUNTED(z = loss_head_logit(w, n, v, &th));
                dz = loss_head_dz(w, v, target, w->lse[n - n0], z, th);
            }
            for (int64_t d = 0; d < width && WANTS(c, k); d++) dh[d] = dh[d] + dz * GET(w->w, ROW(w->w, v) + d0 + d);
        }
        for (int64_t d = 0; d < width && WANTS(c, k); d++) PUT(c, k, to + d0 + d, dh[d]);
    }
}

/* Adds rows [n0,n1) to an element: the first rows as the call says, later ones to what they left. */
static void loss_head_add(const tl_op_call *c, int k, int64_t at, int64_t n0, REAL v) {
    if (n0 == 0)
        PUT(c, k, at, v);
    else
        UNCOUNTED(STORE(&c->out[k], at, GET(&c->out[k], at) + v));
}

/* dw and db of word v from rows [n0,n1). */
static void loss_head_dw(const loss_head_view *w, const tl_op_call *c, int k, int64_t v, int64_t n0, int64_t n1) {
    REAL db = (REAL)0, dz = (REAL)0;
    for (int64_t d0 = 0; d0 < w->D; d0 += LOSS_HEAD_CHUNK) {
        REAL dw[LOSS_HEAD_CHUNK];
        int64_t width = w->D - d0 < LOSS_HEAD_CHUNK ? w->D - d0 : LOSS_HEAD_CHUNK;
        for (int64_t d = 0; d < width; d++) dw[d] = (REAL)0;
        for (int64_t n = n0; n < n1; n++) {
            int64_t target = loss_head_target(w, n);
            if (target < 0) continue;
            UNCOUNTED(dz = loss_head_dz_again(w, n, n0, v, target));
            if (d0 == 0 && WANTS(c, k + 1)) db = db + dz;
            for (int64_t d = 0; d < width && WANTS(c, k); d++) dw[d] = dw[d] + dz * GET(w->h, ROW(w->h, n) + d0 + d);
        }
        for (int64_t d = 0; d < width && WANTS(c, k); d++) loss_head_add(c, k, ROW(&c->out[k], v) + d0 + d, n0, dw[d]);
    }
    if (WANTS(c, k + 1)) loss_head_add(c, k + 1, v, n0, db);
}

/* Gradients from rows [n0,n1), whose logsumexps are in w->lse, into outputs k, k + 1, k + 2. */
static void loss_head_grads(const loss_head_view *w, const tl_op_call *c, int k, int64_t n0, int64_t n1, bool count) {
    if (!WANTS(c, k) && !WANTS(c, k + 1) && !WANTS(c, k + 2)) return;
    for (int64_t n = n0; n < n1; n++) loss_head_dh(w, c, k, n, n0, count);
    for (int64_t v = 0; v < w->V && (WANTS(c, k + 1) || WANTS(c, k + 2)); v++) loss_head_dw(w, c, k + 1, v, n0, n1);
}

void REF(loss_head)(const tl_op_call *c) {
    loss_head_view w;
    REAL total = (REAL)0, denom = GET(&c->in[3], 0);
    bool grads = WANTS(c, 3) || WANTS(c, 4) || WANTS(c, 5);
    loss_head_open(&w, ATTR(c, loss_head), &c->in[0], &c->in[4]);
    w.by = (REAL)0;
    if (grads && denom != (REAL)0) w.by = (REAL)1 / denom;
    for (int64_t n0 = 0; n0 == 0 || n0 < w.rows; n0 += LOSS_HEAD_ROWS) {
        int64_t n1 = n0 + LOSS_HEAD_ROWS < w.rows ? n0 + LOSS_HEAD_ROWS : w.rows;
        for (int64_t n = n0; n < n1; n++) {
            int64_t target = loss_head_target(&w, n);
            REAL loss = (REAL)0, whole = (REAL)0;
            w.lse[n - n0] = (REAL)0;
            if (target >= 0) {
                loss = loss_head_row(&w, n, target, &w.lse[n - n0], &whole);
                total = total + whole;
            }
            PUT(c, 1, n, w.lse[n - n0]);
            PUT(c, 2, n, loss);
        }
        loss_head_grads(&w, c, 3, n0, n1, false);
    }
    PUT(c, 0, 0, denom == (REAL)0 ? (REAL)0 : total / denom);
}

void REF(loss_head_bwd)(const tl_op_call *c) {
    loss_head_view w;
    REAL denom = GET(&c->in[4], 0);
    loss_head_open(&w, &ATTR(c, loss_head_bwd)->f, &c->in[1], &c->in[6]);
    w.by = denom == (REAL)0 ? (REAL)0 : GET(&c->in[0], 0) * ((REAL)1 / denom);
    for (int64_t n0 = 0; n0 == 0 || n0 < w.rows; n0 += LOSS_HEAD_ROWS) {
        int64_t n1 = n0 + LOSS_HEAD_ROWS < w.rows ? n0 + LOSS_HEAD_ROWS : w.rows;
        for (int64_t n = n0; n < n1; n++) w.lse[n - n0] = GET(&c->in[5], n);
        loss_head_grads(&w, c, 0, n0, n1, true);
    }
}

#endif
