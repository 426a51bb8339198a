/* linear with a weight in blocks: direct products for few rows, tiles turned to f32 for many. */
#include "cpu/quant/quant.h"
#include "cpu/launchers.h"
#include "cpu/quant/quant_view.h"

enum { DIRECT_COLS = 64, TILE_FLOATS = 1 << 18, TILE_MOST = 256 };

int quant_type_of(tl_dtype t) {
    switch (t) {
    case TL_Q8_0: return QUANT_Q8_0;
    case TL_Q4_0: return QUANT_Q4_0;
    case TL_Q4_K: return QUANT_Q4_K;
    case TL_Q6_K: return QUANT_Q6_K;
    default: return -1;
    }
}

const char *quant_view_of(const tl_op_call *c, linear_view *v) {
    const char *why = linear_view_of(c, OP_linear, v);
    if (why) return why;
    if (quant_type_of(v->b) < 0) return "the weight is not in blocks";
    if (v->a != TL_F32 || v->c != TL_F32) return "x or y is not f32";
    if (v->b_col % tl_dtype_block(v->b)) return "rows of the weight that are no whole blocks";
    return NULL;
}

size_t quant_row_bytes(const linear_view *v) {
    return (size_t)(v->b_col / tl_dtype_block(v->b)) * tl_dtype_bytes(v->b);
}

static quant_job quant_job_of(const tl_op_call *c, const linear_view *v) {
    return (quant_job){.w = c->in[1].data,
                       .w_bytes = quant_row_bytes(v),
                       .type = quant_type_of(v->b),
                       .k = v->k,
                       .x = c->in[0].data,
                       .m = v->m,
                       .x_row = v->a_row};
}

/* ---- few rows ---------------------------------------------------------------------------------------------- */

const char *quant_linear_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                 kernel_exec *x) {
    linear_view v;
    const char *why = quant_view_of(c, &v);
    (void)threads, (void)dry, (void)alloc;
    if (why) return why;
    if (v.m > QUANT_ROWS) return "more than eight rows";
    x->phases = 1;
    x->tiles[0] = (v.n + DIRECT_COLS - 1) / DIRECT_COLS;
    return NULL;
}

/* [y +] sums [+ bias] */
static void quant_finish(const tl_op_call *c, const linear_view *v, const float *sum, int64_t n0, int64_t n1) {
    const float *bias = v->bias ? c->in[2].data : NULL;
    for (int64_t m = 0; m < v->m; m++) {
        float *y = (float *)c->out[0].data + m * v->c_row;
        for (int64_t n = n0; n < n1; n++) {
            float s = sum[m * DIRECT_COLS + n - n0];
            if (bias) s += bias[n];
            y[n] = v->add ? y[n] + s : s;
        }
    }
}

void quant_linear_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    linear_view v;
    float sum[QUANT_ROWS * DIRECT_COLS];
    (void)phase, (void)worker;
    quant_view_of(t->call, &v);
    quant_job j = quant_job_of(t->call, &v);
    j.out = sum;
    j.out_row = DIRECT_COLS;
    for (int64_t tile = lo; tile < hi; tile++) {
        int64_t n0 = tile * DIRECT_COLS, n1 = n0 + DIRECT_COLS < v.n ? n0 + DIRECT_COLS : v.n;
        ((quant_leaf *)t->exec->leaf)(QUANT_DOT, &j, n0, n1);
        quant_finish(t->call, &v, sum, n0, n1);
    }
}

/* The same over whole numbers. Every worker rounds x for itself: cheaper than waiting for one that does. */
static size_t quant_ints_bytes(const linear_view *v) {
    quant_ints none;
    return quant_ints_place(quant_type_of(v->b), v->m, v->k, NULL, &none);
}

const char *quant_ints_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    linear_view v;
    const char *why = quant_linear_prepare(c, threads, dry, alloc, x);
    if (why) return why;
    quant_view_of(c, &v);
    if (v.k % QUANT_CHUNK && v.k < QUANT_SHORT) return "short rows that are no multiple of 256";
    x->scratch = (size_t)threads * quant_ints_bytes(&v);
    return NULL;
}

void quant_ints_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    linear_view v;
    float sum[QUANT_ROWS * DIRECT_COLS];
    (void)phase;
    if (lo >= hi) return;
    quant_view_of(t->call, &v);
    quant_job j = quant_job_of(t->call, &v);
    quant_ints ints;
    quant_ints_place(j.type, v.m, v.k, (char *)t->scratch + (size_t)worker * quant_ints_bytes(&v), &ints);
    j.ints = &ints;
    j.begin = j.w + (size_t)(lo * DIRECT_COLS) * j.w_bytes;
    j.until = j.w + (size_t)(hi * DIRECT_COLS < v.n ? hi * DIRECT_COLS : v.n) * j.w_bytes;
    j.out = sum;
    j.out_row = DIRECT_COLS;
    ((quant_leaf *)t->exec->leaf)(QUANT_INTS, &j, 0, v.m);
    for (int64_t tile = lo; tile < hi; tile++) {
        int64_t n0 = tile * DIRECT_COLS, n1 = n0 + DIRECT_COLS < v.n ? n0 + DIRECT_COLS : v.n;
        ((quant_leaf *)t->exec->leaf)(QUANT_DOT, &j, n0, n1);
        quant_finish(t->call, &v, sum, n0, n1);
    }
}

/* ---- many rows ------------------------------------------------------------------------------------------------- */

typedef struct quant_tiles {
    int64_t cols, n;      /* rows of w in a tile; tiles */
    product *full, *rest; /* rest: NULL if the last tile is full */
    size_t scratch;       /* of a product, a worker */
} quant_tiles;

static product_spec quant_spec(const linear_view *v, int64_t cols) {
    return (product_spec){.m = v->m,
                          .n = cols,
                          .k = v->k,
                          .ab = TL_F32,
                          .c = TL_F32,
                          .a_row = v->a_row,
                          .a_col = 1,
                          .b_row = 1,
                          .b_col = v->k,
                          .c_row = v->c_row,
                          .add = v->add,
                          .bias = v->bias};
}

static void quant_tiles_free(void *state, const tl_allocator *a) {
    quant_tiles *q = state;
    product_destroy(q->full, a);
    product_destroy(q->rest, a);
    mem_free(a, q);
}

static int64_t quant_tile_cols(const linear_view *v) {
    int64_t cols = TILE_FLOATS / v->k / 16 * 16;
    cols = cols < 32 ? 32 : cols > TILE_MOST ? TILE_MOST : cols;
    return cols < v->n ? cols : v->n;
}

static const char *quant_scratch(const linear_view *v, quant_tiles *q) {
    product_spec full = quant_spec(v, q->cols), rest = quant_spec(v, v->n - (q->n - 1) * q->cols);
    size_t a, b;
    if (!product_scratch(&full, &a) || !product_scratch(&rest, &b)) return "oneDNN has no such product";
    q->scratch = a > b ? a : b;
    return NULL;
}

static const char *quant_create(const linear_view *v, const quant_tiles *like, int threads, const tl_allocator *a,
                                void **out) {
    quant_tiles *q = mem_new(a, 1, sizeof *q);
    if (!q) return kernel_no_memory;
    *q = *like;
    int64_t last = v->n - (q->n - 1) * q->cols;
    product_spec full = quant_spec(v, q->cols), rest = quant_spec(v, last);
    tl_status s = product_create(&full, threads, a, &q->full);
    if (s == TL_OK && last < q->cols) s = product_create(&rest, threads, a, &q->rest);
    if (s == TL_OK) {
        *out = q;
        return NULL;
    }
    quant_tiles_free(q, a);
    return s == TL_NOMEM ? kernel_no_memory : "oneDNN could not make it";
}

const char *quant_tiled_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    linear_view v;
    const char *why = quant_view_of(c, &v);
    if (why) return why;
    quant_tiles q = {.cols = quant_tile_cols(&v)};
    q.n = (v.n + q.cols - 1) / q.cols;
    if ((why = quant_scratch(&v, &q))) return why;
    if (!dry && (why = quant_create(&v, &q, threads, alloc, &x->state))) return why;
    x->phases = 1;
    x->tiles[0] = q.n;
    x->scratch = (size_t)threads * (q.scratch + sizeof(float) * (size_t)linear_up(q.cols * v.k, 16));
    x->state_free = quant_tiles_free;
    return NULL;
}

void quant_tiled_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const quant_tiles *q = t->exec->state;
    linear_view v;
    (void)phase;
    quant_view_of(c, &v);
    quant_job j = quant_job_of(c, &v);
    size_t floats = (size_t)linear_up(q->cols * v.k, 16);
    char *mine = (char *)t->scratch + (size_t)worker * (q->scratch + sizeof(float) * floats);
    j.out = (float *)(void *)mine;
    const int before = product_enter();
    for (int64_t tile = lo; tile < hi; tile++) {
        int64_t n0 = tile * q->cols, n1 = n0 + q->cols < v.n ? n0 + q->cols : v.n;
        ((quant_leaf *)t->exec->leaf)(QUANT_DECODE, &j, n0, n1);
        product_run(n1 - n0 < q->cols ? q->rest : q->full, worker, j.x, j.out, (float *)c->out[0].data + n0,
                    v.bias ? (const float *)c->in[2].data + n0 : NULL, mine + sizeof(float) * floats);
    }
    product_leave(before);
}
