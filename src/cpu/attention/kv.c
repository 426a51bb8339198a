/* Launcher of attention over a cache. */
#include <math.h>

#include "cpu/attention/attention.h"

/* Parts of the keys, so that a single row of few heads feeds every core; by shapes alone. What lies in a part depends
 * on the positions at run time, so that a cache that is hardly filled is balanced too. */
static int64_t kv_splits(const attn_job *j) {
    enum { ENOUGH = 32, FEWEST = 256 };
    const int64_t tiles = j->Hk * ((j->R + ATTN_BR - 1) / ATTN_BR);
    return attn_max(1, attn_min((j->C + FEWEST - 1) / FEWEST, (ENOUGH + tiles - 1) / tiles));
}

void attn_kv_lay(const attn_job *j, attn_isa isa, attn_kv_layout *l) {
    l->Dhq = attn_up(j->Dh, isa.lanes);
    l->Dvp = attn_up(j->Dv, isa.lanes);
    l->blocks = (j->R + ATTN_BR - 1) / ATTN_BR;
    l->part_row = attn_up((l->Dvp + 2) * 4, 64);
    l->part = j->splits > 1 ? 0 : -1;
    l->worker = j->splits > 1 ? j->Hk * j->R * j->splits * l->part_row : 0;
    int64_t at = 0;
#define PLACE(name, bytes) l->w_##name = at, at += attn_up((bytes), 64)
    PLACE(q, ATTN_BR * l->Dhq * 4);
    PLACE(s, ATTN_BC * 2 * isa.lanes * 4);
    PLACE(o, ATTN_BR * l->Dvp * 4);
    PLACE(row, ATTN_ROWS_BYTES);
    PLACE(k, ATTN_BC * l->Dhq * 4);
    PLACE(v, ATTN_BC * l->Dvp * 4);
#undef PLACE
    l->w_bytes = attn_up(at, 4096) + 256;
    l->total = l->worker + j->workers * l->w_bytes;
}

static const char *kv_job(const tl_op_call *c, attn_job *j) {
    const struct attention_kv_attr *attr = ATTR(c, attention_kv);
    const tl_desc *q = &c->in[0].d, *k = &c->in[1].d;
    *j = (attn_job){.B = 1,
                    .T = q->dim[0],
                    .H = q->dim[1],
                    .Dh = q->dim[2],
                    .Q = k->dim[0],
                    .C = k->dim[1],
                    .Hk = k->dim[2],
                    .Dv = c->in[2].d.dim[3],
                    .softcap = attr->softcap,
                    .window = attr->window,
                    .global = attr->global};
    if (j->T <= 0 || j->H <= 0 || j->Hk <= 0 || j->Dh <= 0 || j->Dv <= 0 || j->Q <= 0 || j->C <= 0) return "empty";
    if (k->dtype != c->in[2].d.dtype) return "keys and values differ in dtype";
    j->r = j->H / j->Hk;
    j->R = j->T * j->r;
    j->scale = attr->scale > 0.0f ? attr->scale : (float)(1.0 / sqrt((double)j->Dh));
    j->q = attn_take(&c->in[0]);
    j->k = attn_take(&c->in[1]);
    j->v = attn_take(&c->in[2]);
    j->o = attn_take(&c->out[0]);
    j->slot = c->in[3].data;
    j->pos = c->in[4].data;
    if (c->in[8].d.dtype != TL_NONE) j->ends = c->in[8].data;
    for (int i = 5; i < 8; i++)
        if (c->in[i].d.dtype != TL_NONE && c->in[i].d.dtype != TL_F32) return "auxiliary inputs must be f32";
    if (c->in[5].d.dtype != TL_NONE) j->sinks = c->in[5].data;
    if (c->in[6].d.dtype != TL_NONE) j->slopes = c->in[6].data;
    if (c->in[7].d.dtype != TL_NONE) {
        j->bias = c->in[7].data;
        j->bias_sh = c->in[7].d.stride[0];
        j->P = (c->in[7].d.dim[1] + 1) / 2;
    }
    j->plain = j->softcap <= 0.0f && c->in[6].d.dtype == TL_NONE && c->in[7].d.dtype == TL_NONE;
    j->splits = kv_splits(j);
    return NULL;
}

static const char *kv_prepare(const tl_op_call *c, int threads, attn_isa isa, kernel_exec *x) {
    attn_job j;
    attn_kv_layout l;
    const bool blocks = c->in[1].d.dtype == TL_Q8_0 && c->in[2].d.dtype == TL_Q8_0;
    const char *why = attn_dtypes(c, isa, 0, blocks ? 1 : 3);
    if (!why) why = kv_job(c, &j);
    if (why) return why;
    j.workers = threads;
    attn_kv_lay(&j, isa, &l);
    x->tiles[0] = j.Hk * l.blocks * j.splits;
    x->tiles[1] = j.Hk * j.R;
    x->phases = j.splits > 1 ? 2 : 1;
    x->scratch = (size_t)l.total;
    return NULL;
}

#define PREPARE(isa)                                                                                                   \
    const char *attn_kv_prepare_##isa(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,               \
                                      kernel_exec *x) {                                                                \
        (void)dry, (void)a;                                                                                            \
        return kv_prepare(c, threads, attn_isa_##isa, x);                                                              \
    }
PREPARE(avx2)
PREPARE(avx512)
#undef PREPARE

void attn_kv_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    attn_job j;
    (void)kv_job(t->call, &j);
    j.scratch = t->scratch;
    j.workers = t->workers;
    ((attn_leaf_fn)t->exec->leaf)(&j, phase, lo, hi, worker);
}
