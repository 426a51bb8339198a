/* Launcher of the forward pass. */
#include "cpu/attention/attention.h"

void attn_fwd_lay(const attn_job *j, attn_isa isa, attn_fwd_layout *l) {
    const int64_t heads = j->B * j->Hk;
    l->Dhu = (j->Dh + isa.unit - 1) / isa.unit;
    l->Dhq = attn_up(l->Dhu, isa.lanes);
    l->Dvp = attn_up(j->Dv, isa.lanes);
    l->Sp = attn_up(j->S, ATTN_STEP);
    l->row_blocks = (j->R + ATTN_BR - 1) / ATTN_BR;
    l->key_chunks = (j->S + ATTN_BC - 1) / ATTN_BC;
    l->k_head = attn_up(l->Sp * l->Dhq * 4, 64);
    l->v_head = attn_up(l->Sp / isa.unit * l->Dvp * 4, 64);
    l->whole = heads >= ATTN_HEADS && j->S <= ATTN_SHORT;
    l->k = l->whole ? -1 : 0;
    l->v = l->k + heads * l->k_head;
    l->worker = l->whole ? 0 : l->v + heads * l->v_head;
    int64_t at = 0;
#define PLACE(name, bytes) l->w_##name = at, at += attn_up((bytes), 64)
    PLACE(k, l->whole ? l->k_head : 0);
    PLACE(v, l->whole ? l->v_head : 0);
    PLACE(q, ATTN_BR * l->Dhu * 4);
    PLACE(s, ATTN_BC * 2 * isa.lanes * 4);
    PLACE(o, ATTN_BR * l->Dvp * 4);
    PLACE(row, ATTN_ROWS_BYTES);
#undef PLACE
    l->w_bytes = attn_up(at, 4096) + 256;
    l->total = l->worker + j->workers * l->w_bytes;
}

static const char *fwd_job(const tl_op_call *c, attn_job *j) {
    const char *why = attn_job_forward(c, 0, ATTR(c, attention), j);
    if (why) return why;
    j->o = attn_take(&c->out[0]);
    if (c->out[1].d.dtype != TL_NONE) {
        j->lse = c->out[1].data;
        j->lse_sb = c->out[1].d.stride[0];
        j->lse_sh = c->out[1].d.stride[1];
        if (c->out[1].d.dtype != TL_F32) return "log-sum-exp must be f32";
    }
    return NULL;
}

static const char *fwd_prepare(const tl_op_call *c, int threads, attn_isa isa, kernel_exec *x) {
    attn_job j;
    attn_fwd_layout l;
    const char *why = attn_dtypes(c, isa, 0, 3);
    if (!why) why = fwd_job(c, &j);
    if (!why && isa.unit == 2 && j.drop > 0) why = "dropout: left to the kernels in f32";
    if (why) return why;
    j.workers = threads;
    attn_fwd_lay(&j, isa, &l);
    x->phases = l.whole ? 1 : 2;
    x->tiles[0] = j.B * j.Hk * (l.whole ? 1 : l.key_chunks);
    x->tiles[1] = j.B * j.Hk * l.row_blocks;
    x->scratch = (size_t)l.total;
    return NULL;
}

#define PREPARE(isa)                                                                                                   \
    const char *attn_fwd_prepare_##isa(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,              \
                                       kernel_exec *x) {                                                               \
        (void)dry, (void)a;                                                                                            \
        return fwd_prepare(c, threads, attn_isa_##isa, x);                                                             \
    }
PREPARE(avx2)
PREPARE(avx512)
PREPARE(pairs)
#undef PREPARE

const char *attn_fwd_prepare_avx512bf16(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,
                                        kernel_exec *x) {
    const char *why = attn_pairs_slow();
    return why ? why : attn_fwd_prepare_pairs(c, threads, dry, a, x);
}

void attn_fwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    attn_job j;
    (void)fwd_job(t->call, &j);
    j.scratch = t->scratch;
    j.workers = t->workers;
    ((attn_leaf_fn)t->exec->leaf)(&j, phase, lo, hi, worker);
}
