/* reduce, broadcast, global_norm, adamw. */
#include "cpu/row/launch.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { TILE = 16384, BLOCK = 4096, TILE_BLOCKS = 16, MOST_CHUNKS = 32, GATHER = 256 };

#define PREPARE(name)                                                                                                  \
    const char *row_##name##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,            \
                                     kernel_exec *x)
#define RUN(name) void row_##name##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker)

static int64_t reduce_chunk(const tl_op_call *c, int64_t rows, int64_t D) {
    const int64_t tile = TILE / D < 1 ? 1 : TILE / D, share = row_parts(rows, MOST_CHUNKS);
    return ATTR(c, reduce)->kind == REDUCE_ROWS && tile < share ? share : tile;
}

PREPARE(reduce) {
    (void)threads, (void)dry, (void)alloc;
    const int64_t rows = tl_desc_rows(&c->in[0].d), D = tl_desc_last(&c->in[0].d);
    if (row_type(c->in[0].d.dtype) < 0) return "not f32, bf16 or f16";
    if (c->out[0].d.dtype != TL_F32 || !tl_desc_contiguous(&c->out[0].d)) return "result not contiguous f32";
    if (rows < 1 || D < 1) return "nothing to do";
    const int64_t chunks = row_parts(rows, reduce_chunk(c, rows, D));
    x->phases = ATTR(c, reduce)->kind == REDUCE_LAST ? 1 : 2;
    x->tiles[0] = chunks;
    x->tiles[1] = ATTR(c, reduce)->kind == REDUCE_ROWS ? row_parts(D, GATHER) : 1;
    if (x->phases == 2) x->scratch = sizeof(float) * (size_t)(ATTR(c, reduce)->kind == REDUCE_ROWS ? chunks * D : rows);
    return NULL;
}

static void reduce_finish(const kernel_task *t, int64_t rows, int64_t D, int64_t lo, int64_t hi) {
    const tl_op_call *c = t->call;
    float *partial = t->scratch, *out = c->out[0].data;
    if (ATTR(c, reduce)->kind == REDUCE_ALL) {
        double all = 0;
        for (int64_t r = 0; r < rows; r++) all += (double)partial[r];
        const float v = (float)(ATTR(c, reduce)->mean ? all / (double)(rows * D) : all);
        out[0] = c->acc & 1 ? out[0] + v : v;
        return;
    }
    const int64_t chunks = row_parts(rows, reduce_chunk(c, rows, D));
    for (int64_t d0 = lo * GATHER; d0 < row_least(hi * GATHER, D); d0++) {
        float sum = 0;
        for (int64_t k = 0; k < chunks; k++) sum += partial[k * D + d0];
        if (ATTR(c, reduce)->mean) sum /= (float)rows;
        out[d0] = c->acc & 1 ? out[d0] + sum : sum;
    }
}

RUN(reduce) {
    (void)worker;
    const tl_op_call *c = t->call;
    const row_view x = row_view_of(&c->in[0]);
    const int64_t rows = tl_desc_rows(&c->in[0].d), D = tl_desc_last(&c->in[0].d), chunk = reduce_chunk(c, rows, D);
    const int kind = ATTR(c, reduce)->kind;
    float *out = c->out[0].data, *partial = t->scratch;
    if (phase == 1) {
        reduce_finish(t, rows, D, lo, hi);
        return;
    }
    row_job j = {.d = D, .tin = {x.type}, .kind = kind};
    for (int64_t k = lo; k < hi; k++) {
        if (kind == REDUCE_ROWS) memset(partial + k * D, 0, sizeof(float) * (size_t)D);
        for (int64_t r = k * chunk; r < row_least((k + 1) * chunk, rows); r++) {
            float sum;
            j.in[0] = row_view_at(&x, r);
            j.out[0] = kind == REDUCE_ROWS ? partial + k * D : kind == REDUCE_ALL ? partial + r : &sum;
            ((row_leaf *)t->exec->leaf)(&j);
            if (kind != REDUCE_LAST) continue;
            if (ATTR(c, reduce)->mean) sum /= (float)D;
            out[r] = c->acc & 1 ? out[r] + sum : sum;
        }
    }
}

PREPARE(broadcast) {
    (void)threads, (void)dry, (void)alloc;
    const tl_desc *y = &c->out[0].d;
    if (row_type(y->dtype) < 0 || row_type(c->in[0].d.dtype) < 0) return "not f32, bf16 or f16";
    if (!tl_desc_contiguous(&c->in[0].d)) return "a strided argument";
    if (ATTR(c, broadcast)->kind != REDUCE_ROWS && c->in[0].d.dtype != TL_F32) return "not f32";
    if (tl_desc_count(y) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = row_parts(tl_desc_rows(y), TILE / tl_desc_last(y) < 1 ? 1 : TILE / tl_desc_last(y));
    return NULL;
}

RUN(broadcast) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const row_view y = row_view_of(&c->out[0]);
    const int64_t rows = tl_desc_rows(&c->out[0].d), D = tl_desc_last(&c->out[0].d), tile = TILE / D < 1 ? 1 : TILE / D;
    const int kind = ATTR(c, broadcast)->kind;
    const bool mean = ATTR(c, broadcast)->mean;
    const float *in = c->in[0].data;
    row_job j = {.d = D, .tin = {row_type(c->in[0].d.dtype)}, .tout = {y.type}, .acc = c->acc};
    for (int64_t r = lo * tile; r < row_least(hi * tile, rows); r++) {
        if (kind == REDUCE_ROWS)
            j.in[0] = in, j.f[0] = mean ? (float)rows : 1.0f;
        else if (kind == REDUCE_ALL)
            j.f[0] = mean ? in[0] / (float)(rows * D) : in[0];
        else
            j.f[0] = mean ? in[r] / (float)D : in[r];
        j.out[0] = row_view_at(&y, r);
        ((row_leaf *)t->exec->leaf)(&j);
    }
}

PREPARE(global_norm) {
    (void)threads, (void)dry, (void)alloc;
    if (c->in[0].d.dtype != TL_F32 || c->out[0].d.dtype != TL_F32) return "not f32";
    const int64_t n = tl_desc_count(&c->in[0].d);
    if (n < 1 || !tl_desc_contiguous(&c->in[0].d)) return "nothing to do, or not contiguous";
    x->phases = 2;
    x->tiles[0] = row_parts(n, BLOCK * TILE_BLOCKS);
    x->tiles[1] = 1;
    x->scratch = sizeof(float) * (size_t)row_parts(n, BLOCK);
    return NULL;
}

RUN(global_norm) {
    (void)worker;
    const tl_op_call *c = t->call;
    const int64_t n = tl_desc_count(&c->in[0].d), blocks = row_parts(n, BLOCK);
    float *partial = t->scratch;
    if (phase == 1) {
        double total = 0;
        for (int64_t b = 0; b < blocks; b++) total += (double)partial[b];
        *(float *)c->out[0].data = (float)sqrt(total);
        return;
    }
    row_job j = {0};
    for (int64_t b = lo * TILE_BLOCKS; b < row_least(hi * TILE_BLOCKS, blocks); b++) {
        j.in[0] = (const float *)c->in[0].data + b * BLOCK;
        j.d = row_least(BLOCK, n - b * BLOCK);
        j.out[0] = partial + b;
        ((row_leaf *)t->exec->leaf)(&j);
    }
}

PREPARE(adamw) {
    (void)threads, (void)dry, (void)alloc;
    for (int i = 0; i < 4; i++)
        if (c->out[i].d.dtype != TL_F32 || !tl_desc_contiguous(&c->out[i].d)) return "not contiguous f32";
    if (c->in[0].d.dtype != TL_F32 || (row_has(&c->in[1]) && c->in[1].d.dtype != TL_F32)) return "not f32";
    if (row_has(&c->out[4]) && c->out[4].d.dtype != TL_BF16) return "copy not bf16";
    if (tl_desc_count(&c->out[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = row_parts(tl_desc_count(&c->out[0].d), BLOCK * TILE_BLOCKS);
    return NULL;
}

RUN(adamw) {
    (void)phase, (void)worker;
    const tl_op_call *c = t->call;
    const float *hyper = c->in[0].data, *norm = row_has(&c->in[1]) ? c->in[1].data : NULL;
    const int64_t n = tl_desc_count(&c->out[0].d), at = lo * BLOCK * TILE_BLOCKS;
    row_job j = {.d = row_least(hi * BLOCK * TILE_BLOCKS, n) - at, .in = {hyper}, .kind = ATTR(c, adamw)->decay};
    j.f[0] = hyper[HYPER_GSCALE];
    if (norm && !(norm[0] <= FLT_MAX)) { /* the gradient is no use */
        memset((float *)c->out[3].data + at, 0, (size_t)j.d * sizeof(float));
        return;
    }
    if (norm && hyper[HYPER_CLIP] > 0) {
        const float shrink = hyper[HYPER_CLIP] / norm[0];
        j.f[0] *= shrink < 1 ? shrink : 1;
    }
    for (int i = 0; i < 4; i++) j.out[i] = (float *)c->out[i].data + at;
    if (row_has(&c->out[4]) && c->out[4].data) j.out[4] = (uint16_t *)c->out[4].data + at;
    ((row_leaf *)t->exec->leaf)(&j);
}
