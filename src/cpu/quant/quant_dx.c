/* linear_dx with a weight in blocks: dx (M,K) = dy (M,N) w (N,K). A tile is a range of columns of w for all its rows,
 * so that a tile's sums are one worker's; rows of w are turned to f32 a few hundred at a time and multiplied in order.
 * What low-rank training over a quantized base spends its backward pass on. */
#include "cpu/launchers.h"
#include "cpu/product/linear.h"
#include "cpu/quant/blocks.h"

#include <string.h>

enum { DX_COLS = 512, DX_FLOATS = 1 << 17 };

/* Which of the four products: [rows of w: a full step, the last one][columns: a full tile, the last one]. */
typedef struct quant_dx {
    int64_t cols, tiles, rows, steps;
    product *p[2][2];
    size_t scratch; /* of a product, a worker */
} quant_dx;

static const char *dx_view(const tl_op_call *c, linear_view *v) {
    const char *why = linear_view_of(c, OP_linear_dx, v);
    if (why) return why;
    if (quant_type_of(v->b) < 0) return "the weight is not in blocks";
    if (v->a != TL_F32 || v->c != TL_F32) return "dy or dx is not f32";
    if (v->b_row % tl_dtype_block(v->b) || v->n % tl_dtype_block(v->b))
        return "rows of the weight that are no whole blocks";
    return NULL;
}

static quant_dx dx_cut(const linear_view *v) {
    quant_dx q = {.cols = v->n < DX_COLS ? v->n : DX_COLS};
    q.tiles = (v->n + q.cols - 1) / q.cols;
    q.rows = DX_FLOATS / q.cols;
    if (q.rows > v->k) q.rows = v->k;
    q.steps = (v->k + q.rows - 1) / q.rows;
    return q;
}

static int64_t dx_last_rows(const linear_view *v, const quant_dx *q) {
    return v->k - (q->steps - 1) * q->rows;
}
static int64_t dx_last_cols(const linear_view *v, const quant_dx *q) {
    return v->n - (q->tiles - 1) * q->cols;
}

static product_spec dx_spec(const linear_view *v, const quant_dx *q, int last_row, int last_col) {
    const int64_t cols = last_col ? dx_last_cols(v, q) : q->cols;
    return (product_spec){.m = v->m,
                          .n = cols,
                          .k = last_row ? dx_last_rows(v, q) : q->rows,
                          .ab = TL_F32,
                          .c = TL_F32,
                          .a_row = v->a_row,
                          .a_col = 1,
                          .b_row = cols,
                          .b_col = 1,
                          .c_row = v->c_row,
                          .add = true};
}

static void dx_free(void *state, const tl_allocator *a) {
    quant_dx *q = state;
    for (int i = 0; i < 4; i++) product_destroy(q->p[i / 2][i % 2], a);
    mem_free(a, q);
}

static const char *dx_create(const linear_view *v, const quant_dx *like, int threads, const tl_allocator *a,
                             void **out) {
    quant_dx *q = mem_new(a, 1, sizeof *q);
    if (!q) return kernel_no_memory;
    *q = *like;
    tl_status s = TL_OK;
    for (int i = 0; i < 4 && s == TL_OK; i++) {
        const product_spec p = dx_spec(v, q, i / 2, i % 2);
        s = product_create(&p, threads, a, &q->p[i / 2][i % 2]);
    }
    if (s == TL_OK) {
        *out = q;
        return NULL;
    }
    dx_free(q, a);
    return s == TL_NOMEM ? kernel_no_memory : "oneDNN could not make it";
}

const char *quant_dx_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    linear_view v;
    const char *why = dx_view(c, &v);
    if (why) return why;
    quant_dx q = dx_cut(&v);
    for (int i = 0; i < 4; i++) {
        const product_spec p = dx_spec(&v, &q, i / 2, i % 2);
        size_t n;
        if (!product_scratch(&p, &n)) return "oneDNN has no such product";
        if (n > q.scratch) q.scratch = n;
    }
    if (!dry && (why = dx_create(&v, &q, threads, alloc, &x->state))) return why;
    x->phases = 1;
    x->tiles[0] = q.tiles;
    x->scratch = (size_t)threads * (q.scratch + sizeof(float) * (size_t)linear_up(q.rows * q.cols, 16));
    x->state_free = dx_free;
    return NULL;
}

void quant_dx_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const quant_dx *q = t->exec->state;
    linear_view v;
    (void)phase;
    if (dx_view(c, &v) || lo >= hi) return;
    const size_t floats = (size_t)linear_up(q->rows * q->cols, 16);
    char *mine = (char *)t->scratch + (size_t)worker * (q->scratch + sizeof(float) * floats);
    const int before = product_enter();
    for (int64_t tile = lo; tile < hi; tile++) {
        const int last = tile == q->tiles - 1;
        const int64_t k0 = tile * q->cols, cols = last ? dx_last_cols(&v, q) : q->cols;
        quant_job j = blocks_job(c->in[1].data, v.b, v.b_row, k0, cols);
        float *dx = (float *)c->out[0].data + k0;
        j.out = (float *)(void *)mine;
        for (int64_t m = 0; m < v.m && !v.add; m++) memset(dx + m * v.c_row, 0, (size_t)cols * sizeof *dx);
        for (int64_t n0 = 0; n0 < v.k; n0 += q->rows) {
            const int end = n0 + q->rows >= v.k;
            ((quant_leaf *)t->exec->leaf)(QUANT_DECODE, &j, n0, end ? v.k : n0 + q->rows);
            product_run(q->p[end][last], worker, (const float *)c->in[0].data + n0, j.out, dx, NULL,
                        mine + sizeof(float) * floats);
        }
    }
    product_leave(before);
}
