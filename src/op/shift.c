/* shift: the first channels of a row come from the token before (RWKV's token shift); shift_step: the same while
 * decoding, with the channels of the last tokens as state: position p lies at p mod their number, so that with two of
 * them one token can be taken back. */
#ifndef REAL
#include "op/rules.h"

tl_status shift_shape(tl_op_infer *s) {
    SHAPE(h, s, "shift", "x", "doc", "from");
    const struct shift_attr *a = s->attr;
    TRY(shape_float(&h, 0));
    TRY(shape_ndim(&h, 0, 3));
    if (a->channels < 0 || a->channels > s->in[0]->dim[2])
        return shape_bad_attr(&h, "%lld channels of %lld", (long long)a->channels, (long long)s->in[0]->dim[2]);
    if (shape_has(&h, 1)) {
        TRY(shape_dtype(&h, 1, TL_I32));
        TRY(shape_ndim(&h, 1, 2));
        TRY(shape_dim(&h, 1, 0, s->in[0]->dim[0], "B of x"));
        TRY(shape_dim(&h, 1, 1, s->in[0]->dim[1], "T of x"));
    }
    if (shape_has(&h, 2)) {
        TRY(shape_dtype(&h, 2, s->in[0]->dtype));
        TRY(shape_ndim(&h, 2, 2));
        TRY(shape_dim(&h, 2, 0, s->in[0]->dim[0], "B of x"));
        TRY(shape_dim(&h, 2, 1, a->channels, "channels"));
    }
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    if (a->channels) s->out[1] = tl_desc_make(s->in[0]->dtype, 2, (int64_t[]){s->in[0]->dim[0], a->channels});
    return TL_OK;
}

/* The adjoint is the shift the other way: what came in at one end goes out at it. */
void shift_grad(tl_grad *g) {
    struct shift_attr a = *(const struct shift_attr *)tl_grad_attr(g);
    tl_tensor *dy = tl_grad_dy(g, 0);
    if (!dy) { /* only the edge reaches the loss */
        struct scale_attr none = {0};
        tl_tensor *x = tl_grad_in(g, 0);
        dy = tl_grad_temp(g, OP_DEF(scale), &none, &x, 1);
    }
    tl_tensor *in[3] = {dy, tl_grad_in(g, 1), tl_grad_dy(g, 1)};
    a.inverse = !a.inverse;
    tl_grad_emit(g, OP_DEF(shift), &a, in, 3, (int[2]){grad_to(g, 0), grad_to(g, 2)}, 2);
}

void shift_cost(const tl_op_call *c, tl_cost *cost) {
    cost_begin(c, cost);
}

tl_status shift_step_shape(tl_op_infer *s) {
    SHAPE(h, s, "shift_step", "x", "slot", "pos");
    const tl_desc *state = &s->out[1];
    TRY(shape_float(&h, 0));
    TRY(shape_ndim(&h, 0, 2));
    for (int i = 1; i <= 2; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, s->in[0]->dim[0], "rows of x"));
    }
    char is[120];
    if (state->dtype == TL_NONE) return shape_bad_attr(&h, "the state must be bound through acc");
    if (!tensor_is_float(state->dtype) || state->ndim != 3 || state->dim[1] < 1 || state->dim[2] > s->in[0]->dim[1] ||
        (state->dtype == TL_F64) != (s->in[0]->dtype == TL_F64))
        return shape_refuse(&h, 0, TL_SHAPE, "the state is %s; it must be (slots,tokens,channels)",
                            tensor_print(state, is, sizeof is));
    shape_out_like(&h, 0, 0, s->in[0]->dtype);
    return TL_OK;
}

NO_GRAD(shift_step, "a state is for decoding; train with shift")

/* As many rows of state as there are rows; acc means "in place" here. */
void shift_step_cost(const tl_op_call *c, tl_cost *cost) {
    *cost = (tl_cost){0};
    for (int i = 0; i < 3; i++) cost->bytes_read += cost_bytes(&c->in[i].d);
    cost->bytes_written = cost_bytes(&c->out[0].d);
    cost->bytes_written += cost_bytes(&c->out[1].d);
    cost->bytes_read += cost_bytes(&c->out[1].d);
}

#else

/* Does token t take from the one before, t - 1? */
static bool shift_follows(const tl_arg *doc, int64_t b, int64_t t) {
    return t > 0 && (!doc->data || GETI(doc, ROW(doc, b) + t) == GETI(doc, ROW(doc, b) + t - 1));
}

void REF(shift)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *doc = &c->in[1], *outside = &c->in[2];
    const struct shift_attr *a = ATTR(c, shift);
    int64_t B = x->d.dim[0], T = x->d.dim[1], D = x->d.dim[2];
    for (int64_t b = 0; b < B; b++) {
        for (int64_t t = 0; t < T; t++) {
            int64_t from = a->inverse ? t + 1 : t - 1;
            bool there = a->inverse ? t + 1 < T && shift_follows(doc, b, t + 1) : shift_follows(doc, b, t);
            bool beyond = outside->data && (from < 0 || from == T);
            for (int64_t d = 0; d < D; d++) {
                int64_t row = d < a->channels ? from : t;
                REAL v = row != t && beyond  ? GET(outside, ROW(outside, b) + d)
                         : row == t || there ? GET(x, ROW(x, b * T + row) + d)
                                             : (REAL)0;
                PUT(c, 0, ROW(&c->out[0], b * T + t) + d, v);
            }
        }
        for (int64_t d = 0; d < a->channels && c->out[1].data && T; d++)
            PUT(c, 1, ROW(&c->out[1], b) + d, GET(x, ROW(x, b * T + (a->inverse ? 0 : T - 1)) + d));
    }
}

void REF(shift_step)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *slot = &c->in[1], *pos = &c->in[2], *state = &c->out[1];
    int64_t D = x->d.dim[1], kept = state->d.dim[1], channels = state->d.dim[2];
    for (int64_t r = 0; r < x->d.dim[0]; r++) {
        int64_t q = GETI(slot, r), p = GETI(pos, r);
        bool busy = q >= 0 && q < state->d.dim[0] && p >= 0;
        for (int64_t d = 0; d < D; d++) {
            REAL v = GET(x, ROW(x, r) + d), before = v;
            if (d < channels) before = busy && p > 0 ? GET(state, ROW(state, q * kept + (p - 1) % kept) + d) : (REAL)0;
            PUT(c, 0, ROW(&c->out[0], r) + d, before);
            if (d < channels && busy) STORE(state, ROW(state, q * kept + p % kept) + d, v);
        }
    }
}

#endif
