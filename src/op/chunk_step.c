/* chunk_step: causal mixed chunks one token after the other, with a state whose size does not depend on how many there
 * were: M, and heads and values of the chunk at hand. The chunk's number and fill follow from the position. */
#include "op/gate_kinds.h"
#ifndef REAL

enum { CS_QQ, CS_V = 4, CS_SLOT, CS_POS, CS_BIAS, CS_THETA };

tl_status chunk_step_shape(tl_op_infer *s) {
    SHAPE(h, s, "chunk_step", "qq", "kq", "ql", "kl", "v", "slot", "pos", "bias", "theta");
    struct mixed_chunk_attr *a = &((struct chunk_step_attr *)s->attr)->f;
    TRY(shape_float(&h, CS_QQ));
    TRY(shape_ndim(&h, CS_QQ, 2));
    const tl_desc *q = s->in[CS_QQ];
    for (int i = 1; i < 4; i++) TRY(gate_check_rows(&h, i, CS_QQ, q->dim[1]));
    TRY(gate_check_rows(&h, CS_V, CS_QQ, -1));
    for (int i = CS_SLOT; i <= CS_POS; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, q->dim[0], "rows of qq"));
    }
    int64_t e = s->in[CS_V]->dim[1], slots = s->out[1].dim[0], c = s->out[2].dim[1];
    tl_dtype sum = tensor_sum_dtype(q->dtype);
    for (int k = 1; k <= 4; k++) {
        const tl_desc *d = &s->out[k];
        if (d->dtype == TL_NONE) return shape_bad_attr(&h, "M and the buffers of the chunk must be bound through acc");
        bool fits = d->ndim == 3 && d->dim[0] == slots && d->dim[1] == (k == 1 ? q->dim[1] : c) &&
                    d->dim[2] == (k == 1 || k == 4 ? e : q->dim[1]);
        bool type = k == 1 ? d->dtype == sum : tensor_is_float(d->dtype) && (d->dtype == TL_F64) == (sum == TL_F64);
        if (!fits || !type || slots < 1 || c < 1)
            return shape_bad_attr(&h,
                                  "the state must be M (slots,s,e), kqs (slots,c,s), kls (slots,c,s), vs (slots,c,e)");
    }
    if (a->chunk && a->chunk != c)
        return shape_bad_attr(&h, "chunks of %lld in buffers of %lld", (long long)a->chunk, (long long)c);
    a->chunk = c;
    if (q->dim[1] > 1024 || e > 8192) return shape_bad_attr(&h, "heads are up to 1024 wide, values up to 8192");
    TRY(gate_check(&h, &a->f, GATE_SOFTMAX));
    if (!a->f.causal || a->f.count == GATE_COUNT_LENGTH)
        return shape_bad_attr(&h, "only what is causal and does not know the length can be decoded");
    TRY(shape_attr_kind(&h, a->norm, CHUNK_NORMS));
    TRY(gate_check_bias(&h, CS_BIAS, CS_QQ, c));
    TRY(gate_check_one(&h, CS_THETA, CS_QQ, true, ""));
    shape_out_like(&h, 0, CS_V, q->dtype);
    return TL_OK;
}

NO_GRAD(chunk_step, "a state is for decoding; train with mixed_chunk")

/* Positions are data: counted as if every row were busy, ended its chunk and folded one. */
void chunk_step_cost(const tl_op_call *c, tl_cost *cost) {
    const struct mixed_chunk_attr *a = &ATTR(c, chunk_step)->f;
    int64_t rows = c->in[0].d.dim[0], s = c->in[0].d.dim[1], chunk = c->out[2].d.dim[1], slots = c->out[1].d.dim[0];
    double e = (double)c->in[CS_V].d.dim[1], S = (double)s, used = (double)(slots < rows ? slots : rows);
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
    gate_view w; /* queries of the rows, keys and values of the buffers */
    int64_t c, s, e;
} chunk_step_view;

/* A full chunk into M, which the first one overwrites. */
static void chunk_step_fold(const chunk_step_view *x, const tl_op_call *c, int64_t slot, bool add) {
    const tl_arg *M = &c->out[1], *kl = &c->out[3], *v = &c->out[4];
    for (int64_t k = 0; k < x->s; k++)
        for (int64_t d = 0; d < x->e; d++) {
            int64_t at = ROW(M, slot * x->s + k) + d;
            REAL sum = add ? GET(M, at) : (REAL)0;
            for (int64_t j = 0; j < x->c; j++)
                sum = sum + GET(kl, ROW(kl, slot * x->c + j) + k) * GET(v, ROW(v, slot * x->c + j) + d);
            STORE(M, at, sum);
        }
}

static void chunk_step_row(const chunk_step_view *x, const tl_op_call *c, int64_t r, int64_t slot, int64_t pos) {
    enum { PART = 64 };
    const tl_arg *M = &c->out[1], *ql = &c->in[2], *v = &c->out[4];
    int64_t fill = pos % x->c, before = pos - fill;
    if (before > 0 && fill == 0) chunk_step_fold(x, c, slot, before > x->c);
    for (int k = 2; k <= 4; k++) { /* kq, kl, v into the buffers */
        const tl_arg *from = &c->in[k == 2 ? 1 : k == 3 ? 3 : 4], *to = &c->out[k];
        for (int64_t d = 0; d < tl_desc_last(&from->d); d++)
            STORE(to, ROW(to, slot * x->c + fill) + d, GET(from, ROW(from, r) + d));
    }
    REAL norm = gate_norm(&x->w, fill + 1), p = (REAL)0;
    REAL linear = (REAL)(1.0 / (double)(x->a->norm == CHUNK_CONST ? x->c : before > 0 ? before : 1));
    for (int64_t d0 = 0; d0 < x->e; d0 += PART) {
        REAL out[PART];
        int64_t n = x->e - d0 < PART ? x->e - d0 : PART;
        for (int64_t d = 0; d < n; d++) out[d] = (REAL)0;
        for (int64_t j = 0; j <= fill; j++) {
            int64_t kj = ROW(x->w.k, slot * x->c + j);
            if (d0 == 0)
                p = gate_value(&x->a->f, gate_score(&x->w, ROW(x->w.q, r), kj, j - fill, (REAL)x->w.alpha));
            else
                UNCOUNTED(p = gate_value(&x->a->f, gate_score(&x->w, ROW(x->w.q, r), kj, j - fill, (REAL)x->w.alpha)));
            for (int64_t d = 0; d < n; d++) out[d] = out[d] + p * GET(v, ROW(v, slot * x->c + j) + d0 + d);
        }
        for (int64_t d = 0; d < n; d++) {
            REAL y = out[d] * norm, sum = (REAL)0;
            for (int64_t k = 0; k < x->s && before > 0; k++)
                sum = sum + GET(ql, ROW(ql, r) + k) * GET(M, ROW(M, slot * x->s + k) + d0 + d);
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
    x.c = c->out[2].d.dim[1], x.s = x.w.s, x.e = x.w.e;
    for (int64_t r = 0; r < c->in[0].d.dim[0]; r++) {
        int64_t q = GETI(slot, r), p = GETI(pos, r);
        bool busy = q >= 0 && q < c->out[1].d.dim[0] && p >= 0;
        if (busy) chunk_step_row(&x, c, r, q, p);
        for (int64_t d = 0; d < x.e && !busy; d++) PUT(c, 0, ROW(&c->out[0], r) + d, (REAL)0);
    }
}

#endif
