/* Launcher of the backward pass. */
#include "cpu/attention/attention.h"

/* Segments give every core work when there are few heads; their number depends on shapes alone. More of them cost a
 * partial dQ each. */
static int64_t bwd_segments(const attn_job *j) {
    enum { ENOUGH = 12 };
    const int64_t heads = j->B * j->Hk, blocks = (j->S + ATTN_BC - 1) / ATTN_BC;
    return attn_max(1, attn_min(blocks, (ENOUGH + heads - 1) / heads));
}

void attn_bwd_lay(const attn_job *j, attn_isa isa, attn_bwd_layout *l) {
    const int64_t heads = j->B * j->Hk, rows = ATTN_BR, keys = ATTN_BC;
    l->Dhu = (j->Dh + isa.unit - 1) / isa.unit;
    l->Dvu = (j->Dv + isa.unit - 1) / isa.unit;
    l->Dhq = attn_up(l->Dhu, isa.lanes);
    l->Dvq = attn_up(l->Dvu, isa.lanes);
    l->Dhp = attn_up(j->Dh, isa.lanes);
    l->Dvp = attn_up(j->Dv, isa.lanes);
    l->Rp = attn_up(j->R, 2 * isa.lanes);
    l->seg_keys = attn_up((j->S + j->segments - 1) / j->segments, ATTN_BC);
    l->dq_head = attn_up(l->Rp * l->Dhp * 4, 64);
    l->bias_head = attn_up((2 * j->P + 16) * 4, 64);
    l->row_blocks = (j->R + ATTN_BR - 1) / ATTN_BR;
    int64_t at = 0;
#define PLACE(name, bytes) l->name = at, at += attn_up((bytes), 64)
    PLACE(h_qt, l->Rp * l->Dhu * 4);
    PLACE(h_gt, l->Rp * l->Dvu * 4);
    PLACE(h_qb, l->Rp / isa.unit * l->Dhp * 4);
    PLACE(h_gb, l->Rp / isa.unit * l->Dvp * 4);
    PLACE(h_rows, l->row_blocks * ATTN_ROWS_BYTES);
    l->head_bytes = at;
    at = 0;
    l->dq_part = l->head = -1;
    if (j->segments > 1) {
        l->dq_part = at;
        at += heads * j->segments * l->dq_head;
        l->head = at;
        at += heads * l->head_bytes;
    }
    l->bias_part = at;
    if (j->want_dbias) at += heads * j->segments * j->r * l->bias_head;
    l->worker = at;
    at = 0;
    PLACE(w_head, j->segments > 1 ? 0 : l->head_bytes);
    PLACE(w_dq, j->segments > 1 ? 0 : l->dq_head);
    PLACE(w_rows, ATTN_ROWS_BYTES);
    PLACE(w_k, keys * l->Dhq * 4);
    PLACE(w_v, keys * l->Dvq * 4);
    PLACE(w_kb, isa.unit == 2 ? keys / 2 * l->Dhp * 4 : 0); /* else the same keys serve as both operands */
    PLACE(w_dk, keys * l->Dhp * 4);
    PLACE(w_dv, keys * l->Dvp * 4);
    PLACE(w_s, rows * ATTN_BC * 4);
    PLACE(w_p, rows * ATTN_BC * 4);
    PLACE(w_f, j->softcap > 0 ? rows * ATTN_BC * 4 : 0);
    PLACE(w_a, isa.unit == 2 ? rows * ATTN_BC / 2 * 4 : 0);
#undef PLACE
    l->w_bytes = attn_up(at, 4096) + 256;
    l->total = l->worker + j->workers * l->w_bytes;
}

static const char *bwd_job(const tl_op_call *c, attn_job *j) {
    const char *why = attn_job_forward(c, 1, &ATTR(c, attention_bwd)->f, j);
    if (why) return why;
    j->g = attn_take(&c->in[0]);
    j->o = attn_take(&c->in[4]);
    if (c->in[5].d.dtype != TL_F32) return "log-sum-exp must be f32";
    j->lse = c->in[5].data;
    j->lse_sb = c->in[5].d.stride[0];
    j->lse_sh = c->in[5].d.stride[1];
    j->dq = attn_take(&c->out[0]);
    j->dk = attn_take(&c->out[1]);
    j->dv = attn_take(&c->out[2]);
    j->want_dsinks = c->out[3].d.dtype != TL_NONE && c->in[7].d.dtype != TL_NONE;
    j->want_dbias = c->out[4].d.dtype != TL_NONE && c->in[9].d.dtype != TL_NONE;
    if (j->want_dsinks) j->dsinks = c->out[3].data;
    if (j->want_dbias) {
        j->dbias = c->out[4].data;
        j->dbias_sh = c->out[4].d.stride[0];
    }
    j->acc_dsinks = (c->acc & 8u) != 0;
    j->acc_dbias = (c->acc & 16u) != 0;
    j->segments = bwd_segments(j);
    return NULL;
}

static const char *bwd_prepare(const tl_op_call *c, int threads, attn_isa isa, kernel_exec *x) {
    attn_job j;
    attn_bwd_layout l;
    const char *why = attn_dtypes(c, isa, 0, 5);
    if (!why) why = bwd_job(c, &j);
    if (!why && isa.unit == 2 && j.drop > 0) why = "dropout: left to the kernels in f32";
    if (why) return why;
    j.workers = threads;
    attn_bwd_lay(&j, isa, &l);
    const int64_t blocks = l.head >= 0 ? j.B * j.Hk * l.row_blocks : 0;
    x->tiles[0] = blocks;
    x->tiles[1] = j.B * j.Hk * j.segments;
    x->tiles[2] = (c->out[0].d.dtype != TL_NONE ? blocks : 0) + (j.want_dsinks || j.want_dbias ? j.H : 0);
    x->phases = x->tiles[2] ? 3 : 2;
    x->scratch = (size_t)l.total;
    return NULL;
}

#define PREPARE(isa)                                                                                                   \
    const char *attn_bwd_prepare_##isa(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,              \
                                       kernel_exec *x) {                                                               \
        (void)dry, (void)a;                                                                                            \
        return bwd_prepare(c, threads, attn_isa_##isa, x);                                                             \
    }
PREPARE(avx2)
PREPARE(avx512)
PREPARE(pairs)
#undef PREPARE

const char *attn_bwd_prepare_avx512bf16(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,
                                        kernel_exec *x) {
    const char *why = attn_pairs_slow();
    return why ? why : attn_bwd_prepare_pairs(c, threads, dry, a, x);
}

void attn_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    attn_job j;
    (void)bwd_job(t->call, &j);
    j.scratch = t->scratch;
    j.workers = t->workers;
    ((attn_leaf_fn)t->exec->leaf)(&j, phase, lo, hi, worker);
}
