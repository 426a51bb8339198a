/* linear where rows of x do not lie at one distance: heads that were split from a wider row, (..,H,D). The rows of one
 * head do, so a tile is a block of rows of one head, and a plain product. */
#include <string.h>

#include "cpu/product/linear.h"

enum { BLOCK = 128 };

typedef struct heads_view {
    int64_t heads, rows, n, k;                   /* rows of a head */
    int64_t x_head, x_row, y_head, y_row, w_row; /* distances in elements */
    int64_t blocks, pack_a, per_worker;          /* floats */
} heads_view;

/* Rows of one index of the last dimension but one: at one distance? */
static bool heads_rows(const tl_desc *d, int64_t *head, int64_t *row) {
    *head = d->stride[d->ndim - 2];
    *row = d->stride[d->ndim - 3];
    for (int i = d->ndim - 4; i >= 0; i--)
        if (d->dim[i] > 1 && d->stride[i] != d->stride[i + 1] * d->dim[i + 1]) return false;
    return d->stride[d->ndim - 1] == 1 && *head > 0 && *row > 0;
}

static const char *heads_view_of(const tl_op_call *c, int threads, heads_view *v) {
    const tl_desc *x = &c->in[0].d, *w = &c->in[1].d, *y = &c->out[0].d;
    memset(v, 0, sizeof *v);
    if (x->ndim < 3 || y->ndim != x->ndim) return "no heads";
    if (gemm_type(x->dtype) < 0 || gemm_type(w->dtype) < 0 || gemm_type(y->dtype) < 0) return "not f32, bf16 or f16";
    if (c->in[2].d.dtype != TL_NONE && c->in[2].d.dtype != TL_F32) return "bias not f32";
    v->n = w->dim[0], v->k = w->dim[1], v->heads = x->dim[x->ndim - 2];
    if (tl_desc_count(x) < 1 || v->n < 1) return "an empty matrix";
    v->rows = tl_desc_rows(x) / v->heads;
    v->w_row = w->dim[0] > 1 ? w->stride[0] : v->k;
    if (!heads_rows(x, &v->x_head, &v->x_row) || !heads_rows(y, &v->y_head, &v->y_row) || w->stride[1] != 1)
        return "rows of a head do not lie at one distance";
    if (v->k > GEMM_KC) return "rows too wide";
    v->blocks = (v->rows + BLOCK - 1) / BLOCK;
    v->pack_a = x->dtype == TL_F32 ? 0 : linear_up(gemm_pack_floats(BLOCK, v->k), 16);
    v->per_worker = v->pack_a + GEMM_KC * GEMM_NC;
    (void)threads;
    return NULL;
}

const char *heads_linear_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                 kernel_exec *x) {
    heads_view v;
    (void)dry, (void)alloc;
    const char *why = heads_view_of(c, threads, &v);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = v.heads * v.blocks;
    x->scratch = sizeof(float) * (size_t)(v.per_worker * threads);
    return NULL;
}

void heads_linear_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    gemm_leaf *leaf = (gemm_leaf *)t->exec->leaf;
    heads_view v;
    (void)phase, (void)heads_view_of(c, t->workers, &v);
    float *mine = (float *)t->scratch + worker * v.per_worker;
    const int64_t sx = (int64_t)tl_dtype_bytes(c->in[0].d.dtype), sy = (int64_t)tl_dtype_bytes(c->out[0].d.dtype);
    for (int64_t tile = lo; tile < hi; tile++) {
        const int64_t h = tile / v.blocks, r = tile % v.blocks * BLOCK;
        gemm_job j = {.m = v.rows - r < BLOCK ? v.rows - r : BLOCK, .n = v.n, .k = v.k, .add = c->acc & 1};
        j.a = (gemm_matrix){(char *)c->in[0].data + sx * (h * v.x_head + r * v.x_row), gemm_type(c->in[0].d.dtype),
                            v.x_row, 1};
        j.b = (gemm_matrix){c->in[1].data, gemm_type(c->in[1].d.dtype), 1, v.w_row};
        j.c = (gemm_matrix){(char *)c->out[0].data + sy * (h * v.y_head + r * v.y_row), gemm_type(c->out[0].d.dtype),
                            v.y_row, 1};
        j.bias = c->in[2].data;
        j.pack_a = v.pack_a ? mine : NULL;
        j.pack_b = mine + v.pack_a;
        const int64_t slivers = gemm_slivers(j.m);
        if (j.pack_a) leaf(GEMM_PACK, &j, 0, slivers, 0, 0);
        for (int64_t n = 0; n < v.n; n += GEMM_NC)
            leaf(GEMM_TILE, &j, 0, slivers, n, n + GEMM_NC < v.n ? n + GEMM_NC : v.n);
    }
}
