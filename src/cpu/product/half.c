/* linear with a weight of half floats over many rows: the launcher of half.h. */
#include "cpu/product/half.h"
#include "cpu/product/linear.h"

enum { SCALE_ROWS = 8, LEAST_ROWS = 12 /* fewer do not pay for packing the weight */, LEAST_K = 128 };

static size_t half_shared(const linear_view *v) {
    return (size_t)linear_up(v->m * v->k * 4, 64) + (size_t)linear_up(v->m * 4, 64);
}
static const size_t half_own = sizeof(uint16_t) * HALF_PANELS * HALF_KC * HALF_COLS;

const char *half_linear_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    (void)dry, (void)alloc;
    linear_view v;
    const char *why = linear_view_of(c, OP_linear, &v);
    if (why) return why;
    if (v.a != TL_F32 || (v.b != TL_F16 && v.b != TL_BF16) || v.c != TL_F32)
        return "not x and y in f32 with a weight in f16 or bf16";
    if (v.m < LEAST_ROWS || v.k < LEAST_K) return "too small to be packed";
    if (v.k % HALF_CHAIN) return "rows that are no multiple of 16";
    x->phases = 2;
    x->tiles[0] = (v.m + SCALE_ROWS - 1) / SCALE_ROWS;
    x->tiles[1] = (v.n + HALF_PANELS * HALF_COLS - 1) / (HALF_PANELS * HALF_COLS);
    x->scratch = half_shared(&v) + (size_t)threads * half_own;
    return NULL;
}

void half_linear_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    linear_view v;
    linear_view_of(c, OP_linear, &v);
    char *all = t->scratch;
    half_job j = {.w = c->in[1].data,
                  .bf16 = v.b == TL_BF16,
                  .w_row = v.b_col,
                  .x = c->in[0].data,
                  .x_row = v.a_row,
                  .m = v.m,
                  .n = v.n,
                  .k = v.k,
                  .half = (uint32_t *)(void *)all,
                  .back = (float *)(void *)(all + linear_up(v.m * v.k * 4, 64)),
                  .panel = (uint16_t *)(void *)(all + half_shared(&v) + (size_t)worker * half_own),
                  .c = c->out[0].data,
                  .c_row = v.c_row,
                  .bias = v.bias ? c->in[2].data : NULL,
                  .add = v.add};
    half_leaf *leaf = (half_leaf *)t->exec->leaf;
    const int64_t step = phase == 0 ? SCALE_ROWS : HALF_PANELS * HALF_COLS, end = phase == 0 ? v.m : v.n;
    for (int64_t i = lo; i < hi; i++)
        leaf(phase == 0 ? HALF_SCALE : HALF_PRODUCT, &j, i * step, (i + 1) * step < end ? (i + 1) * step : end);
}
