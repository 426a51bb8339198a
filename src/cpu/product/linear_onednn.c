/* linear, linear_dx, linear_dw through oneDNN: a grid of tiles fixed by the shape, one primitive for each of the (at
 * most four) different tile shapes. linear_dw's column sums are further tiles of the same phase. */
#include "cpu/product/linear.h"

enum { SUM_COLS = 128 };

typedef struct grid {
    product_spec whole;
    int64_t tm, tn, nm, nn;
    product *part[2][2]; /* [last row of tiles and shorter][last column and narrower] */
} grid;

/* A power of two, so that the usual numbers of threads have equal shares. */
static int64_t grid_parts(int64_t n, int64_t least, int64_t most) {
    int64_t parts = 1;
    while (2 * parts * least <= n && 2 * parts <= most) parts *= 2;
    return parts;
}

/* About eight tiles where the product is large enough, each wide enough to keep its share of the limit: rows of a
 * weight gradient before columns, columns of the others before rows (measured, see bench/gemm.c). */
static void grid_cut(grid *g, const linear_view *v, bool dw) {
    const int64_t m_least = dw ? 128 : 256, n_least = dw ? 384 : 192;
    if (dw) {
        g->nm = grid_parts(v->m, m_least, 8);
        g->nn = grid_parts(v->n, n_least, 8 / g->nm);
        if (g->nm * g->nn == 1) g->nn = grid_parts(v->n, n_least / 2, 2);
    } else {
        g->nn = grid_parts(v->n, n_least, 8);
        g->nm = grid_parts(v->m, m_least, 8 / g->nn);
    }
    if (v->n / g->nn > 1536) g->nn = (v->n + 1535) / 1536; /* wide tiles of large products fall to half speed */
    g->tm = linear_up((v->m + g->nm - 1) / g->nm, 16);
    g->tn = linear_up((v->n + g->nn - 1) / g->nn, 64);
    if (g->tm > v->m) g->tm = v->m;
    if (g->tn > v->n) g->tn = v->n;
    g->nm = (v->m + g->tm - 1) / g->tm;
    g->nn = (v->n + g->tn - 1) / g->tn;
    g->whole =
        (product_spec){v->m, v->n, v->k, v->a, v->c, v->a_row, v->a_col, v->b_row, v->b_col, v->c_row, v->add, v->bias};
}

static product_spec grid_spec(const grid *g, bool last_m, bool last_n) {
    product_spec s = g->whole;
    s.m = last_m ? g->whole.m - (g->nm - 1) * g->tm : g->tm;
    s.n = last_n ? g->whole.n - (g->nn - 1) * g->tn : g->tn;
    return s;
}

static void grid_free(void *state, const tl_allocator *a) {
    grid *g = state;
    for (int i = 0; i < 4; i++) product_destroy(g->part[i / 2][i % 2], a);
    mem_free(a, g);
}

/* Which of the four variants occur: full tiles need two along a side unless the only one is full. */
static bool grid_needs(const grid *g, bool last_m, bool last_n) {
    const bool short_m = g->whole.m % g->tm, short_n = g->whole.n % g->tn;
    return (last_m ? short_m : g->nm > 1 || !short_m) && (last_n ? short_n : g->nn > 1 || !short_n);
}

static const char *grid_scratch(const grid *g, size_t *most) {
    *most = 0;
    for (int i = 0; i < 4; i++) {
        if (!grid_needs(g, i / 2, i % 2)) continue;
        product_spec s = grid_spec(g, i / 2, i % 2);
        size_t bytes;
        if (!product_scratch(&s, &bytes)) return "oneDNN has no such product";
        if (bytes > *most) *most = bytes;
    }
    return NULL;
}

static const char *grid_create(const grid *like, int threads, const tl_allocator *a, grid **out) {
    grid *g = mem_new(a, 1, sizeof *g);
    if (!g) return kernel_no_memory;
    *g = *like;
    for (int i = 0; i < 4; i++) {
        if (!grid_needs(g, i / 2, i % 2)) continue;
        product_spec s = grid_spec(g, i / 2, i % 2);
        tl_status status = product_create(&s, threads, a, &g->part[i / 2][i % 2]);
        if (status != TL_OK) {
            grid_free(g, a);
            return status == TL_NOMEM ? kernel_no_memory : "oneDNN could not make it";
        }
    }
    *out = g;
    return NULL;
}

static int64_t onednn_sum_tiles(const linear_view *v) {
    return v->db ? (v->m + SUM_COLS - 1) / SUM_COLS : 0;
}

/* On Sapphire Rapids (2 MiB of L2 a core, 13 GB/s from beyond it) a training step of four layers of 128 takes 20.9 ms
 * with our own products and 24.1 with oneDNN's, f32, two threads; one thread 35.0 and 34.1; and the first step 34 ms
 * instead of 83, since oneDNN writes its kernels then. Where L3 is near (Zen 4) oneDNN has 88 to 97 % of the limit and
 * nothing is to be won. BF16: Intel's dot product of pairs is slower than f32. */
enum { ONEDNN_F32 = 1, ONEDNN_ANYWHERE = 2 };

static const char *onednn_prepare(const tl_op_call *c, int op, int how, int threads, bool dry, const tl_allocator *a,
                                  kernel_exec *x) {
    linear_view v;
    grid g = {0}, *state = NULL;
    size_t scratch;
    if (!(how & ONEDNN_ANYWHERE) && product_slow_bf16()) return "our own product is faster on this processor";
    const char *why = linear_view_of(c, op, &v);
    if (why) return why;
    if (v.a != v.b || (v.a != TL_F32 && v.a != TL_BF16)) return "not f32 or bf16 on both sides";
    if (v.c != TL_F32 && v.c != v.a) return "a result of another number type";
    if (how & ONEDNN_F32 && v.a != TL_F32) return "not f32";
    if (!v.dw) return "only sums wanted";
    if ((double)v.m * (double)v.n * (double)v.k < 32768) return "too small to be worth a primitive";
    grid_cut(&g, &v, op == OP_linear_dw);
    if ((why = grid_scratch(&g, &scratch))) return why;
    if (!dry && (why = grid_create(&g, threads, a, &state))) return why;
    x->phases = 1;
    x->tiles[0] = g.nm * g.nn + onednn_sum_tiles(&v);
    x->scratch = scratch * (size_t)threads;
    x->state = state;
    x->state_free = grid_free;
    return NULL;
}

static void onednn_sum(const kernel_task *t, const linear_view *v, int64_t tile) {
    const tl_arg *dy = &t->call->in[0];
    float *db = t->call->out[1].data;
    if (!db) return;
    const int64_t c0 = tile * SUM_COLS, cols = v->m - c0 < SUM_COLS ? v->m - c0 : SUM_COLS;
    const char *from = (const char *)dy->data + tl_dtype_bytes(v->a) * (size_t)c0;
    ((product_sum_leaf *)t->exec->leaf)(from, gemm_type(v->a), v->a_col, v->k, cols, db + c0, v->db_add);
}

static void onednn_run(const kernel_task *t, int op, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const grid *g = t->exec->state;
    const product_spec *s = &g->whole;
    const size_t ab = tl_dtype_bytes(s->ab), cs = tl_dtype_bytes(s->c);
    const size_t per_worker = t->exec->scratch / (size_t)t->workers;
    linear_view v;
    linear_view_of(c, op, &v);
    const int before = product_enter();
    for (int64_t tile = lo; tile < hi; tile++) {
        if (tile >= g->nm * g->nn) {
            onednn_sum(t, &v, tile - g->nm * g->nn);
            continue;
        }
        if (!c->out[0].data) continue;
        const int64_t i = tile % g->nm, j = tile / g->nm;
        product *p = g->part[(i + 1) * g->tm > s->m][(j + 1) * g->tn > s->n];
        const float *bias = op == OP_linear && s->bias ? (const float *)c->in[2].data + j * g->tn : NULL;
        product_run(p, worker, (const char *)c->in[0].data + ab * (size_t)(i * g->tm * s->a_row),
                    (const char *)c->in[1].data + ab * (size_t)(j * g->tn * s->b_col),
                    (char *)c->out[0].data + cs * (size_t)(i * g->tm * s->c_row + j * g->tn), bias,
                    (char *)t->scratch + per_worker / 64 * 64 * (size_t)worker);
    }
    product_leave(before);
}

#define LINEAR_ONEDNN(op)                                                                                              \
    const char *onednn_##op##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,           \
                                      kernel_exec *x) {                                                                \
        return onednn_prepare(c, OP_##op, 0, threads, dry, alloc, x);                                                  \
    }                                                                                                                  \
    const char *onednn_f32_##op##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,       \
                                          kernel_exec *x) {                                                            \
        return onednn_prepare(c, OP_##op, ONEDNN_F32, threads, dry, alloc, x);                                         \
    }                                                                                                                  \
    const char *onednn_anywhere_##op##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,  \
                                               kernel_exec *x) {                                                       \
        return onednn_prepare(c, OP_##op, ONEDNN_ANYWHERE, threads, dry, alloc, x);                                    \
    }                                                                                                                  \
    void onednn_##op##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {                      \
        (void)phase;                                                                                                   \
        onednn_run(t, OP_##op, lo, hi, worker);                                                                        \
    }
LINEAR_ONEDNN(linear)
LINEAR_ONEDNN(linear_dx)
LINEAR_ONEDNN(linear_dw)
