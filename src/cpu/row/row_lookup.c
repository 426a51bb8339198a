/* embedding and its gradient, kv_write, concat, rope_table. */
#include "cpu/row/launch.h"

#include <math.h>
#include <string.h>

enum { TILE = 16384 };

static int64_t row_tile(int64_t width) {
    return TILE / width < 1 ? 1 : TILE / width;
}

static float row_scale_of(float scale) {
    return scale == 0 ? 1.0f : scale;
}

#define PREPARE(name)                                                                                                  \
    const char *row_##name##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,            \
                                     kernel_exec *x)
#define RUN(name) void row_##name##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker)

PREPARE(embedding) {
    (void)threads, (void)dry, (void)alloc;
    if (row_type(c->in[1].d.dtype) < 0 || row_type(c->out[0].d.dtype) < 0) return "not f32, bf16 or f16";
    if (c->in[0].d.dtype != TL_I32 || !tl_desc_contiguous(&c->in[0].d)) return "ids not contiguous i32";
    if (tl_desc_count(&c->out[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = row_parts(tl_desc_count(&c->in[0].d), row_tile(tl_desc_last(&c->out[0].d)));
    return NULL;
}

RUN(embedding) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const int32_t *ids = c->in[0].data;
    const row_view table = row_view_of(&c->in[1]), y = row_view_of(&c->out[0]);
    const int64_t count = tl_desc_count(&c->in[0].d), V = c->in[1].d.dim[0], D = c->in[1].d.dim[1], tile = row_tile(D);
    row_job j = {.d = D, .tin = {table.type}, .tout = {y.type}, .acc = c->acc};
    j.f[0] = row_scale_of(ATTR(c, embedding)->scale);
    for (int64_t n = lo * tile; n < row_least(hi * tile, count); n++) {
        j.in[0] = ids[n] >= 0 && ids[n] < V ? row_view_at(&table, ids[n]) : NULL;
        j.out[0] = row_view_at(&y, n);
        ((row_leaf *)t->exec->leaf)(&j);
    }
}

/* Phase 0 clears the table's gradient where it is not added to; phase 1 gives each tile a range of columns and lets
 * it walk all tokens in their order, so that nothing is shared and the order of additions is the rows'. */
static int64_t row_embedding_cols(int64_t D) {
    return D >= 512 ? 64 : 32;
}

PREPARE(embedding_bwd) {
    (void)threads, (void)dry, (void)alloc;
    if (row_type(c->in[1].d.dtype) < 0 || c->out[0].d.dtype != TL_F32)
        return "not f32, bf16 or f16, or gradient not f32";
    if (c->in[0].d.dtype != TL_I32 || !tl_desc_contiguous(&c->in[0].d)) return "ids not contiguous i32";
    const int64_t V = c->out[0].d.dim[0], D = c->out[0].d.dim[1];
    if (V < 1 || D < 1) return "nothing to do";
    x->phases = 2;
    x->tiles[0] = c->acc & 1 ? 0 : row_parts(V, row_tile(D));
    x->tiles[1] = row_parts(D, row_embedding_cols(D));
    return NULL;
}

RUN(embedding_bwd) {
    (void)worker;
    const tl_op_call *c = t->call;
    const int32_t *ids = c->in[0].data;
    const row_view dy = row_view_of(&c->in[1]), table = row_view_of(&c->out[0]);
    const int64_t count = tl_desc_count(&c->in[0].d), V = c->out[0].d.dim[0], D = c->out[0].d.dim[1];
    if (phase == 0) {
        for (int64_t v = lo * row_tile(D); v < row_least(hi * row_tile(D), V); v++)
            memset(row_view_at(&table, v), 0, sizeof(float) * (size_t)D);
        return;
    }
    const int64_t cols = row_embedding_cols(D), c0 = lo * cols, c1 = row_least(hi * cols, D);
    row_job j = {.d = c1 - c0, .tin = {dy.type}, .f = {row_scale_of(ATTR(c, embedding_bwd)->scale)}};
    for (int64_t n = 0; n < count; n++) {
        if (ids[n] < 0 || ids[n] >= V) continue;
        j.in[0] = (char *)row_view_at(&dy, n) + c0 * dy.size;
        j.out[0] = (float *)row_view_at(&table, ids[n]) + c0;
        ((row_leaf *)t->exec->leaf)(&j);
    }
}

PREPARE(kv_write) {
    (void)threads, (void)dry, (void)alloc;
    if (row_type(c->in[0].d.dtype) < 0 || row_type(c->out[0].d.dtype) < 0) return "not f32, bf16 or f16";
    for (int i = 1; i <= 2; i++)
        if (c->in[i].d.dtype != TL_I32 || !tl_desc_contiguous(&c->in[i].d))
            return "slots and positions not contiguous i32";
    x->phases = 1;
    x->tiles[0] = c->in[0].d.dim[1]; /* heads: two rows of x may name one place, and the later one must win */
    return NULL;
}

RUN(kv_write) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const int32_t *slot = c->in[1].data, *pos = c->in[2].data;
    const row_view x = row_view_of(&c->in[0]), cache = row_view_of(&c->out[0]);
    const int64_t slots = c->out[0].d.dim[0], capacity = c->out[0].d.dim[1], heads = c->in[0].d.dim[1];
    row_job j = {.d = c->in[0].d.dim[2], .tin = {x.type}, .tout = {cache.type}};
    for (int64_t r = 0; r < c->in[0].d.dim[0]; r++) {
        if (slot[r] < 0 || slot[r] >= slots || pos[r] < 0) continue;
        for (int64_t h = lo; h < hi; h++) {
            j.in[0] = row_view_at(&x, r * heads + h);
            j.out[0] = row_view_at(&cache, (slot[r] * capacity + pos[r] % capacity) * heads + h);
            ((row_leaf *)t->exec->leaf)(&j);
        }
    }
}

PREPARE(concat) {
    (void)threads, (void)dry, (void)alloc;
    if (tl_dtype_block(c->out[0].d.dtype) != 1) return "quantized blocks";
    if (tl_desc_count(&c->out[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = row_parts(tl_desc_rows(&c->out[0].d), row_tile(tl_desc_last(&c->out[0].d)));
    return NULL;
}

RUN(concat) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const row_view y = row_view_of(&c->out[0]);
    const int64_t rows = tl_desc_rows(&c->out[0].d), tile = row_tile(tl_desc_last(&c->out[0].d));
    int64_t at = 0;
    for (int k = 0; k < ATTR(c, concat)->n; k++) {
        const row_view x = row_view_of(&c->in[k]);
        const int64_t width = tl_desc_last(&c->in[k].d);
        for (int64_t r = lo * tile; r < row_least(hi * tile, rows); r++) {
            void *to = (char *)row_view_at(&y, r) + at * y.size, *from = row_view_at(&x, r);
            if (to != from) memmove(to, from, (size_t)(width * x.size));
        }
        at += width;
    }
}

PREPARE(rope_table) {
    (void)threads, (void)dry, (void)alloc;
    if (c->out[0].d.dtype != TL_F32) return "not f32";
    if (c->in[0].d.dtype != TL_I32 || !tl_desc_contiguous(&c->in[0].d)) return "positions not contiguous i32";
    if (tl_desc_count(&c->out[0].d) < 1 || !tl_desc_contiguous(&c->in[1].d))
        return "nothing to do, or strided frequencies";
    x->phases = 1;
    x->tiles[0] = row_parts(tl_desc_count(&c->in[0].d), 16);
    return NULL;
}

/* Angles in double: at position 1,000,000 one in float would be wrong by 0.03. */
RUN(rope_table) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const int32_t *pos = c->in[0].data;
    const double *freq = c->in[1].data, mscale = (double)row_scale_of(ATTR(c, rope_table)->mscale);
    const row_view table = row_view_of(&c->out[0]);
    const int64_t half = c->in[1].d.dim[0], cols = ATTR(c, rope_table)->cols;
    const bool column = ATTR(c, rope_table)->column;
    for (int64_t n = lo * 16; n < row_least(hi * 16, tl_desc_count(&c->in[0].d)); n++) {
        float *row = row_view_at(&table, n);
        const int64_t p = cols < 1 ? pos[n] : column ? pos[n] % cols : pos[n] / cols;
        for (int64_t k = 0; k < half; k++) {
            double si, co;
            sincos((double)p * freq[k], &si, &co);
            row[k] = (float)(co * mscale);
            row[half + k] = (float)(si * mscale);
        }
    }
}
