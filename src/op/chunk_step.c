/* chunk_step: causal mixed chunks one token after the other, with a state whose size does not depend on how many there
 * were: M, and heads and values of the chunk at hand. The chunk's number and fill follow from the position. */
#include "op/gate_kinds.h"
#ifndef REAL

enum { CS_QQ, CS_V = 4, CS_SLOT, CS_POS, CS_BIAS, CS_THETA };

tl_status chunk_step_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_step", "qq", "kq", "ql", "kl", "v", "slot", "pos", "bias", "theta");
    struct mixed_chunk_attr *a = &((struct chunk_step_attr *)s->attr)->f;
    TRY(shape_float(&h, CS_QQ));
    const tl_desc *q = s->in[CS_QQ];
    if (q->ndim != 3) TRY(shape_ndim(&h, CS_QQ, 2));
    const int64_t wide = tl_desc_last(q), H = q->ndim == 3 ? q->dim[1] : 0;
    for (int i = 1; i < 4; i++) TRY(gate_check_rows(&h, i, CS_QQ, wide));
    TRY(gate_check_rows(&h, CS_V, CS_QQ, -1));
    for (int i = CS_SLOT; i <= CS_POS; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, q->dim[0], "rows of qq"));
    }
    int64_t e = tl_desc_last(s->in[CS_V]), slots = s->out[1].dim[0], c = s->out[2].dim[1];
    tl_dtype sum = tensor_sum_dtype(q->dtype);
    for (int k = 1; k <= 4; k++) {
        const tl_desc *d = &s->out[k];
        if (d->dtype == TL_NONE) return shape_bad_attr(&h, "M and the buffers of the chunk must be bound through acc");
        bool fits = d->ndim == (H ? 4 : 3) && d->dim[0] == slots && tl_desc_last(d) == (k == 1 || k == 4 ? e : wide) &&
                    d->dim[k == 1 && H ? 2 : 1] == (k == 1 ? wide : c) && (!H || d->dim[k == 1 ? 1 : 2] == H);
        bool type = k == 1 ? d->dtype == sum : tensor_is_float(d->dtype) && (d->dtype == TL_F64) == (sum == TL_F64);
        if (!fits || !type || slots < 1 || c < 1)
            return shape_bad_attr(
                &h, "the state must be M (slots,[H,]s,e), kqs and kls (slots,c,[H,]s), vs (slots,c,[H,]e)");
    }
    if (a->reach < 0 || a->reach >= c || c % (a->reach + 1) || (a->chunk && a->chunk != c / (a->reach + 1)))
        return shape_bad_attr(&h, "chunks of %lld, reach %lld in buffers of %lld", (long long)a->chunk,
                              (long long)a->reach, (long long)c);
    if (a->period < 0 || a->period % c)
        return shape_bad_attr(&h, "a period of %lld in buffers of %lld", (long long)a->period, (long long)c);
    a->chunk = c / (a->reach + 1);
    if (wide > 1024 || e > 8192) return shape_bad_attr(&h, "heads are up to 1024 wide, values up to 8192");
    TRY(gate_check(&h, &a->f, GATE_SOFTMAX));
    if (!a->f.causal || a->f.count == GATE_COUNT_LENGTH)
        return shape_bad_attr(&h, "only what is causal and does not know the length can be decoded");
    if (a->rows || a->cols || a->high || a->wide) return shape_bad_attr(&h, "a grid is not causal");
    TRY(shape_attr_kind(&h, a->norm, CHUNK_NORMS));
    TRY(shape_attr_kind(&h, a->parts, CHUNK_PARTS));
    TRY(gate_check_bias(&h, CS_BIAS, CS_QQ, c));
    TRY(gate_check_one(&h, CS_THETA, CS_QQ, true, ""));
    shape_out_like(&h, 0, CS_V, q->dtype);
    return TL_OK;
}

NO_GRAD(chunk_step, "a state is for decoding; train with mixed_chunk")

/* Positions are data: counted as if every row were busy, ended its chunk and folded one. */
void chunk_step_cost(const tl_op_call *c, tl_cost *cost) {
    const struct mixed_chunk_attr *a = &ATTR(c, chunk_step)->f;
    const int64_t all = c->in[0].d.dim[0], H = c->in[0].d.ndim == 3 ? c->in[0].d.dim[1] : 1;
    int64_t rows = all * H, s = tl_desc_last(&c->in[0].d), chunk = c->out[2].d.dim[1], slots = c->out[1].d.dim[0];
    double e = (double)tl_desc_last(&c->in[CS_V].d), S = (double)s, used = (double)(slots < all ? slots : all);
    gate_count v = gate_value_count(a->f.kind);
    *cost = (tl_cost){0};
    for (int i = 0; i < 9; i++) cost->bytes_read += cost_bytes(&c->in[i].d);
    cost->bytes_written = cost_bytes(&c->out[0].d);
    for (int k = 1; k <= 4; k++) cost->bytes_read += cost_bytes(&c->out[k].d) * used / (double)slots;
    for (int k = 1; k <= 4; k++) cost->bytes_written += cost_bytes(&c->out[k].d) * used / (double)slots / (double)chunk;
    cost_add(cost, rows * chunk, gate_score_flops(s, cost_in(c, CS_BIAS)) + v.flops + 2 * e + 2 * S * e, v.special);
    cost_add(cost, rows, e * (2 * S + 3) + 1, 0);
    if (cost_in(c, CS_THETA)) cost_add(cost, 1, 0, 1);
}

#else

typedef struct chunk_step_view {
    const struct mixed_chunk_attr *a;
    gate_view w;              /* queries of the rows, keys and values of the buffers */
    int64_t c, room, s, e, H; /* room: places of a buffer */
} chunk_step_view;

/* Row of position i in a buffer, of number k in M; of head h. */
static int64_t chunk_step_at(const chunk_step_view *x, const tl_arg *buffer, int64_t slot, int64_t i, int64_t h) {
    return ROW(buffer, (slot * x->room + i % x->room) * x->H + h);
}
static int64_t chunk_step_m(const chunk_step_view *x, const tl_arg *M, int64_t slot, int64_t k, int64_t h) {
    return ROW(M, (slot * x->H + h) * x->s + k);
}

/* The chunk from position `from` on into M, which the first one overwrites. */
static void chunk_step_fold(const chunk_step_view *x, const tl_op_call *c, int64_t slot, int64_t h, int64_t from) {
    const tl_arg *M = &c->out[1], *kl = &c->out[3], *v = &c->out[4];
    for (int64_t k = 0; k < x->s; k++)
        for (int64_t d = 0; d < x->e; d++) {
            int64_t at = chunk_step_m(x, M, slot, k, h) + d;
            REAL sum = from > 0 ? GET(M, at) : (REAL)0;
            for (int64_t j = from; j < from + x->c; j++)
                sum = sum + GET(kl, chunk_step_at(x, kl, slot, j, h) + k) * GET(v, chunk_step_at(x, v, slot, j, h) + d);
            STORE(M, at, sum);
        }
}

/* r: of rows times heads */
static void chunk_step_row(const chunk_step_view *x, const tl_op_call *c, int64_t r, int64_t slot, int64_t pos) {
    enum { PART = 64 };
    const tl_arg *M = &c->out[1], *ql = &c->in[2], *v = &c->out[4];
    if (x->a->period) pos %= x->a->period;
    const int64_t h = r % x->H, fill = pos % x->c, back = x->a->reach * x->c;
    const int64_t keys = pos - fill > back ? pos - fill - back : 0, before = x->a->parts == CHUNK_LOCAL ? 0 : keys;
    const bool near = x->a->parts != CHUNK_FAR;
    if (before > 0 && fill == 0) chunk_step_fold(x, c, slot, h, before - x->c);
    for (int k = 2; k <= 4; k++) { /* kq, kl, v into the buffers */
        const tl_arg *from = &c->in[k == 2 ? 1 : k == 3 ? 3 : 4], *to = &c->out[k];
        for (int64_t d = 0; d < tl_desc_last(&from->d); d++)
            STORE(to, chunk_step_at(x, to, slot, pos, h) + d, GET(from, ROW(from, r) + d));
    }
    REAL norm = near ? gate_norm(&x->w, pos + 1 - keys) : (REAL)0, p = (REAL)0;
    REAL linear = (REAL)(1.0 / (double)(x->a->norm == CHUNK_CONST ? x->c : before > 0 ? before : 1));
    for (int64_t d0 = 0; d0 < x->e; d0 += PART) {
        REAL out[PART];
        int64_t n = x->e - d0 < PART ? x->e - d0 : PART;
        for (int64_t d = 0; d < n; d++) out[d] = (REAL)0;
        for (int64_t j = keys; j <= pos && near; j++) {
            int64_t kj = chunk_step_at(x, x->w.k, slot, j, h);
            if (d0 == 0)
                p = gate_value(&x->a->f, gate_score(&x->w, ROW(x->w.q, r), kj, j - pos, (REAL)x->w.alpha));
            else
                UNCOUNTED(p = gate_value(&x->a->f, gate_score(&x->w, ROW(x->w.q, r), kj, j - pos, (REAL)x->w.alpha)));
            for (int64_t d = 0; d < n; d++) out[d] = out[d] + p * GET(v, chunk_step_at(x, v, slot, j, h) + d0 + d);
        }
        for (int64_t d = 0; d < n; d++) {
            REAL y = out[d] * norm, sum = (REAL)0;
            for (int64_t k = 0; k < x->s && before > 0; k++)
                sum = sum + GET(ql, ROW(ql, r) + k) * GET(M, chunk_step_m(x, M, slot, k, h) + d0 + d);
            if (before > 0) y = y + sum * linear;
            PUT(c, 0, ROW(&c->out[0], r) + d0 + d, y);
        }
    }
}

void REF(chunk_step)(const tl_op_call *c) {
    const tl_arg *slot = &c->in[5], *pos = &c->in[6];
    chunk_step_view x;
    x.a = &ATTR(c, chunk_step)->f;
    x.w = gate_open(&x.a->f, &c->in[0], &c->out[2], &c->out[4], &c->in[TL_OP_INS - 1], &c->in[7], &c->in[8]);
    x.room = c->out[2].d.dim[1], x.c = x.room / (x.a->reach + 1), x.s = x.w.s, x.e = x.w.e,
    x.H = c->in[0].d.ndim == 3 ? c->in[0].d.dim[1] : 1;
    for (int64_t r = 0; r < c->in[0].d.dim[0] * x.H; r++) {
        int64_t q = GETI(slot, r / x.H), p = GETI(pos, r / x.H);
        bool busy = q >= 0 && q < c->out[1].d.dim[0] && p >= 0;
        if (busy) chunk_step_row(&x, c, r, q, p);
        for (int64_t d = 0; d < x.e && !busy; d++) PUT(c, 0, ROW(&c->out[0], r) + d, (REAL)0);
    }
}

#endif
