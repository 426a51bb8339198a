/* linear with a weight in blocks over many rows, in whole numbers: the launcher of quant_tile.h. */
#include "cpu/quant/quant_tile.h"
#include "cpu/launchers.h"
#include "cpu/quant/quant_view.h"

enum { TILE_ROUND = 8 /* rows of x */, TILE_MOST = 64 /* columns: two panels, 360 KiB for k of 5632 */ };

/* Where things lie in the scratch memory. */
typedef struct tile_layout {
    size_t q, scale, sum, shift, shared;   /* ends: q begins at 0, scale at q ... */
    size_t level, step, least, per_worker; /* the same for one worker's */
} tile_layout;

static size_t tile_up(size_t n) {
    return (n + 63) / 64 * 64;
}

static tile_layout tile_layout_of(const linear_view *v, int type) {
    const size_t m = (size_t)v->m, k = (size_t)quant_padded(v->k), group = (size_t)quant_tile_group(type);
    const bool minima = type == QUANT_Q4_K;
    tile_layout t;
    t.q = tile_up(m * k);
    t.scale = t.q + tile_up(m * (k / 32) * 4);
    t.sum = t.scale + (minima ? tile_up(m * (k / 32) * 4) : 0);
    t.shift = t.sum + tile_up(m * (k / group) * 4);
    t.shared = t.shift;
    t.level = (size_t)TILE_MOST * k;
    t.step = t.level + (size_t)TILE_MOST * (k / group) * 4;
    t.least = t.step + (minima ? (size_t)TILE_MOST * (k / 32) * 4 : 0);
    t.per_worker = t.least;
    return t;
}

const char *quant_tile_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    linear_view v;
    const char *why = quant_view_of(c, &v);
    (void)dry, (void)alloc;
    if (why) return why;
    if (v.k % QUANT_CHUNK && v.k < QUANT_SHORT) return "short rows that are no multiple of 256";
    const tile_layout t = tile_layout_of(&v, quant_type_of(v.b));
    x->phases = 2;
    x->tiles[0] = (v.m + TILE_ROUND - 1) / TILE_ROUND;
    x->tiles[1] = (v.n + TILE_MOST - 1) / TILE_MOST;
    x->scratch = t.shared + (size_t)threads * t.per_worker;
    return NULL;
}

void quant_tile_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    linear_view v;
    quant_view_of(c, &v);
    quant_tile_job j = {.w = c->in[1].data,
                        .w_bytes = quant_row_bytes(&v),
                        .type = quant_type_of(v.b),
                        .m = v.m,
                        .n = v.n,
                        .k = v.k,
                        .x = c->in[0].data,
                        .x_row = v.a_row,
                        .c = c->out[0].data,
                        .c_row = v.c_row,
                        .bias = v.bias ? c->in[2].data : NULL,
                        .add = v.add};
    const tile_layout l = tile_layout_of(&v, j.type);
    char *all = t->scratch, *mine = all + l.shared + (size_t)worker * l.per_worker;
    j.q = (int8_t *)all;
    j.scale = (float *)(void *)(all + l.q);
    j.sum = l.sum > l.scale ? (float *)(void *)(all + l.scale) : NULL;
    j.shift = (int32_t *)(void *)(all + l.sum);
    j.level = (uint8_t *)mine;
    j.step = (float *)(void *)(mine + l.level);
    j.least = (float *)(void *)(mine + l.step);
    quant_tile_leaf *leaf = (quant_tile_leaf *)t->exec->leaf;
    if (phase == 0) {
        hi = hi * TILE_ROUND < v.m ? hi * TILE_ROUND : v.m;
        leaf(QUANT_TILE_ROUND, &j, lo * TILE_ROUND, hi);
        return;
    }
    for (int64_t tile = lo; tile < hi; tile++) {
        const int64_t n = tile * TILE_MOST;
        leaf(QUANT_TILE_PRODUCT, &j, n, n + TILE_MOST < v.n ? n + TILE_MOST : v.n);
    }
}
