/* expert_linear, expert_linear_dx, expert_linear_dw. */
#include "cpu/experts/experts.h"
#include "cpu/launchers.h"
#include "cpu/product/linear.h"
#include "tensor/tensor.h"

#include <string.h>

/* rows: of a tile; FEW: rows of all experts up to which one tile has them all. */
enum { FEW = 64, ROWS = 256, COLS = GEMM_NC, FEW_COLS = 48, BLOCK_COLS = 96, DW_ROWS = 64, DW_FEW = 32 };

typedef struct experts_view {
    int64_t E, P, K, N; /* K, N of the forward product's matrix (N, K) */
    int64_t out, in;    /* columns of the result, length of a sum (dw: N, K) */
    int64_t a_row, b_row, c_row;
    tl_dtype a, b, c;
    int quant; /* type of blocks or -1 */
    int64_t rows, cols, row_tiles, col_tiles;
    int64_t pack_a, temp, decoded, few, per_worker; /* floats a worker */
} experts_view;

static bool experts_rows(const tl_desc *d, int64_t *stride) {
    *stride = d->dim[0] <= 1 ? d->dim[1] : d->stride[0];
    return *stride >= d->dim[1];
}

static void experts_tiles(experts_view *v, int op) {
    if (op == OP_expert_linear_dw) {
        v->rows = v->N * v->K < 1 << 16 ? DW_FEW : DW_ROWS;
        v->cols = COLS;
        v->row_tiles = (v->N + v->rows - 1) / v->rows;
        v->col_tiles = (v->K + v->cols - 1) / v->cols;
        v->pack_a = GEMM_FLY * GEMM_MR * GEMM_KC;
    } else {
        bool few = v->P <= FEW;
        v->rows = few ? v->P : ROWS;
        v->cols = few ? FEW_COLS : v->quant >= 0 ? BLOCK_COLS : COLS;
        v->row_tiles = (v->P + v->rows - 1) / v->rows;
        v->col_tiles = (v->out + v->cols - 1) / v->cols;
        if (v->a != TL_F32) v->pack_a = linear_up(gemm_pack_floats(v->rows, v->in), 16);
        if (v->in > GEMM_KC) v->temp = (v->rows + GEMM_MR) * GEMM_NC;
        if (v->quant >= 0) v->decoded = linear_up(v->cols * v->in, 16);
        /* x of up to eight rows: in f32, or in whole numbers with their scales */
        v->few = linear_up(MATVEC_ROWS * linear_up(v->in, 16), 16);
        if (v->quant >= 0) {
            quant_ints none;
            const size_t ints = quant_ints_place(v->quant, QUANT_ROWS, v->in, NULL, &none) / sizeof(float);
            if (v->few < (int64_t)ints) v->few = (int64_t)ints;
        }
    }
    v->per_worker = GEMM_KC * GEMM_NC + v->pack_a + v->temp + v->decoded + v->few;
}

static int experts_quant(tl_dtype t) {
    switch (t) {
    case TL_Q8_0: return QUANT_Q8_0;
    case TL_Q4_0: return QUANT_Q4_0;
    case TL_Q4_K: return QUANT_Q4_K;
    case TL_Q6_K: return QUANT_Q6_K;
    default: return -1;
    }
}

static const char *experts_view_of(const tl_op_call *c, int op, experts_view *v) {
    const tl_desc *a = &c->in[0].d, *b = &c->in[1].d, *y = &c->out[0].d;
    bool dw = op == OP_expert_linear_dw;
    memset(v, 0, sizeof *v);
    if (!experts_rows(a, &v->a_row) || !experts_rows(b, &v->b_row) || !experts_rows(y, &v->c_row))
        return "rows do not lie at one distance";
    v->E = c->in[2].d.dim[0] - 1;
    v->P = a->dim[0];
    v->N = dw ? a->dim[1] : b->dim[0] / v->E;
    v->K = b->dim[1];
    v->out = op == OP_expert_linear ? v->N : v->K;
    v->in = op == OP_expert_linear ? v->K : v->N;
    v->a = a->dtype, v->b = b->dtype, v->c = y->dtype;
    v->quant = experts_quant(v->b);
    if (v->P < 1 || v->N < 1 || v->K < 1) return "an empty matrix";
    if (gemm_type(v->a) < 0 || gemm_type(v->c) < 0 || (v->quant < 0 && gemm_type(v->b) < 0))
        return "not f32, bf16, f16 or blocks";
    if (v->quant >= 0) {
        if (op != OP_expert_linear || v->a != TL_F32 || v->c != TL_F32) return "blocks, and not f32 beside them";
        if (v->b_row % tl_dtype_block(v->b)) return "rows of the weight that are no whole blocks";
    }
    if (dw && v->c != TL_F32) return "gradient not f32";
    experts_tiles(v, op);
    return NULL;
}

static const char *experts_prepare(const tl_op_call *c, int op, int threads, kernel_exec *x) {
    experts_view v;
    const char *why = experts_view_of(c, op, &v);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = v.row_tiles * v.col_tiles;
    x->scratch = sizeof(float) * (size_t)(v.per_worker * threads);
    return NULL;
}

/* One worker's memory. */
typedef struct experts_room {
    float *pack_b, *pack_a, *temp, *decoded, *few;
} experts_room;

static experts_room experts_room_of(const kernel_task *t, const experts_view *v, int worker) {
    experts_room r = {.pack_b = (float *)t->scratch + worker * v->per_worker};
    r.pack_a = r.pack_b + GEMM_KC * GEMM_NC;
    r.temp = r.pack_a + v->pack_a;
    r.decoded = r.temp + v->temp;
    r.few = r.decoded + v->decoded;
    return r;
}

static void *experts_at(const tl_arg *a, tl_dtype t, int64_t elements) {
    return (char *)a->data + (size_t)(elements / tl_dtype_block(t)) * tl_dtype_bytes(t);
}

/* ---- forward and dx: rows [lo, hi) of expert e, columns [c0, c1) ----------------------------------------------------
 */

typedef struct experts_part {
    const tl_op_call *c;
    const experts_view *v;
    const experts_leaves *leaf;
    const experts_room *room;
    int op;
    int64_t e, lo, hi, c0, c1;
} experts_part;

static void experts_few(const experts_part *p) {
    const experts_view *v = p->v;
    matvec_job j = {.x = experts_at(&p->c->in[0], v->a, p->lo * v->a_row),
                    .w = experts_at(&p->c->in[1], v->b, p->e * v->N * v->b_row),
                    .y = experts_at(&p->c->out[0], v->c, p->lo * v->c_row),
                    .x_type = gemm_type(v->a),
                    .w_type = gemm_type(v->b),
                    .y_type = gemm_type(v->c),
                    .m = p->hi - p->lo,
                    .k = v->in,
                    .x_row = v->a_row,
                    .w_row = v->b_row,
                    .y_row = v->c_row,
                    .n0 = p->c0,
                    .n1 = p->c1,
                    .x32 = p->room->few,
                    .k_pad = linear_up(v->in, 16)};
    p->leaf->matvec(&j);
}

static void experts_gemm(const experts_part *p, const gemm_matrix *b, int64_t c0, int64_t col0, int64_t col1) {
    const experts_view *v = p->v;
    gemm_job j = {.b = *b,
                  .m = p->hi - p->lo,
                  .n = v->out,
                  .k = v->in,
                  .pack_a = v->a == TL_F32 ? NULL : p->room->pack_a,
                  .pack_b = p->room->pack_b,
                  .temp = v->temp ? p->room->temp : NULL};
    j.a = (gemm_matrix){experts_at(&p->c->in[0], v->a, p->lo * v->a_row), gemm_type(v->a), v->a_row, 1};
    j.c = (gemm_matrix){experts_at(&p->c->out[0], v->c, p->lo * v->c_row + c0), gemm_type(v->c), v->c_row, 1};
    const int64_t slivers = gemm_slivers(j.m);
    if (j.pack_a) p->leaf->gemm(GEMM_PACK, &j, 0, slivers, 0, 0);
    p->leaf->gemm(GEMM_TILE, &j, 0, slivers, col0, col1);
}

static void experts_ints(const experts_part *p, quant_job *j) {
    quant_ints ints;
    quant_ints_place(j->type, j->m, j->k, p->room->few, &ints);
    j->ints = &ints;
    p->leaf->dot(QUANT_INTS, j, 0, j->m);
    p->leaf->dot(QUANT_DOT, j, p->c0, p->c1);
    j->ints = NULL;
}

static void experts_blocks(const experts_part *p) {
    const experts_view *v = p->v;
    float sum[QUANT_ROWS * BLOCK_COLS];
    int64_t m = p->hi - p->lo, n = p->c1 - p->c0;
    quant_job j = {.w = experts_at(&p->c->in[1], v->b, p->e * v->N * v->b_row),
                   .w_bytes = (size_t)(v->b_row / tl_dtype_block(v->b)) * tl_dtype_bytes(v->b),
                   .type = v->quant,
                   .k = v->K,
                   .x = experts_at(&p->c->in[0], v->a, p->lo * v->a_row),
                   .m = m,
                   .x_row = v->a_row,
                   .out = sum,
                   .out_row = BLOCK_COLS};
    if (m > QUANT_ROWS) {
        j.out = p->room->decoded;
        p->leaf->decode(QUANT_DECODE, &j, p->c0, p->c1);
        gemm_matrix b = {p->room->decoded, GEMM_F32, 1, v->K};
        experts_gemm(p, &b, p->c0, 0, n);
        return;
    }
    if (p->leaf->ints)
        experts_ints(p, &j);
    else
        p->leaf->dot(QUANT_DOT, &j, p->c0, p->c1);
    for (int64_t i = 0; i < m; i++)
        memcpy((float *)p->c->out[0].data + (p->lo + i) * v->c_row + p->c0, sum + i * BLOCK_COLS,
               (size_t)n * sizeof *sum);
}

static void experts_segment(const experts_part *p) {
    const experts_view *v = p->v;
    void *w = experts_at(&p->c->in[1], v->b, p->e * v->N * v->b_row);
    gemm_matrix b = {w, gemm_type(v->b), 1, v->b_row};
    if (p->op == OP_expert_linear_dx) b.row = v->b_row, b.col = 1;
    if (v->quant >= 0)
        experts_blocks(p);
    else if (p->op == OP_expert_linear && p->hi - p->lo <= MATVEC_ROWS)
        experts_few(p);
    else
        experts_gemm(p, &b, 0, p->c0, p->c1);
}

static void experts_product(const kernel_task *t, int op, int64_t lo, int64_t hi, int worker) {
    experts_view v;
    experts_leaves leaf;
    if (experts_view_of(t->call, op, &v)) return;
    ((experts_leaves_of *)t->exec->leaf)(&leaf);
    const experts_room room = experts_room_of(t, &v, worker);
    const int32_t *begin = t->call->in[2].data;
    for (int64_t tile = lo; tile < hi; tile++) {
        experts_part p = {.c = t->call, .v = &v, .leaf = &leaf, .room = &room, .op = op};
        int64_t r0 = tile / v.col_tiles * v.rows, r1 = r0 + v.rows < v.P ? r0 + v.rows : v.P;
        p.c0 = tile % v.col_tiles * v.cols;
        p.c1 = p.c0 + v.cols < v.out ? p.c0 + v.cols : v.out;
        for (p.e = 0; p.e < v.E; p.e++) {
            p.lo = begin[p.e] > r0 ? begin[p.e] : r0;
            p.hi = begin[p.e + 1] < r1 ? begin[p.e + 1] : r1;
            if (p.lo < p.hi) experts_segment(&p);
        }
        size_t size = tl_dtype_bytes(v.c);
        for (int64_t r = begin[v.E] > r0 ? begin[v.E] : r0; r < r1; r++)
            memset((char *)t->call->out[0].data + size * (size_t)(r * v.c_row + p.c0), 0, size * (size_t)(p.c1 - p.c0));
    }
}

/* ---- dw ---------------------------------------------------------------------------------------------------------- */

static void experts_clear(const experts_view *v, float *dw, int64_t n0, int64_t n1, int64_t c0, int64_t c1) {
    for (int64_t n = n0; n < n1; n++) memset(dw + n * v->c_row + c0, 0, (size_t)(c1 - c0) * sizeof *dw);
}

/* A tile has its rows and columns of every expert: equal work again. */
static void experts_dw(const kernel_task *t, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    experts_view v;
    experts_leaves leaf;
    if (experts_view_of(c, OP_expert_linear_dw, &v)) return;
    ((experts_leaves_of *)t->exec->leaf)(&leaf);
    const experts_room room = experts_room_of(t, &v, worker);
    const int32_t *begin = c->in[2].data;
    const bool add = c->acc & 1;
    for (int64_t tile = lo; tile < hi; tile++) {
        int64_t n0 = tile / v.col_tiles * v.rows, n1 = n0 + v.rows < v.N ? n0 + v.rows : v.N;
        int64_t c0 = tile % v.col_tiles * v.cols, c1 = c0 + v.cols < v.K ? c0 + v.cols : v.K;
        for (int64_t e = 0; e < v.E; e++) {
            int64_t first = begin[e] > 0 ? begin[e] : 0, end = begin[e + 1] < v.P ? begin[e + 1] : v.P;
            float *dw = (float *)c->out[0].data + e * v.N * v.c_row;
            if (first >= end) {
                if (!add) experts_clear(&v, dw, n0, n1, c0, c1);
                continue;
            }
            gemm_job j = {.m = v.N,
                          .n = v.K,
                          .k = end - first,
                          .add = add,
                          .fly = true,
                          .pack_a = room.pack_a,
                          .pack_b = room.pack_b};
            j.a = (gemm_matrix){experts_at(&c->in[0], v.a, first * v.a_row), gemm_type(v.a), 1, v.a_row};
            j.b = (gemm_matrix){experts_at(&c->in[1], v.b, first * v.b_row), gemm_type(v.b), v.b_row, 1};
            j.c = (gemm_matrix){dw, GEMM_F32, v.c_row, 1};
            leaf.gemm(GEMM_TILE, &j, n0 / GEMM_MR, gemm_slivers(n1), c0, c1);
        }
    }
}

#define EXPERTS(name, op, run_body)                                                                                    \
    const char *experts_##name##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,        \
                                         kernel_exec *x) {                                                             \
        (void)dry, (void)alloc;                                                                                        \
        return experts_prepare(c, op, threads, x);                                                                     \
    }                                                                                                                  \
    void experts_##name##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {                   \
        (void)phase;                                                                                                   \
        run_body;                                                                                                      \
    }
EXPERTS(linear, OP_expert_linear, experts_product(t, OP_expert_linear, lo, hi, worker))
EXPERTS(linear_dx, OP_expert_linear_dx, experts_product(t, OP_expert_linear_dx, lo, hi, worker))
EXPERTS(linear_dw, OP_expert_linear_dw, experts_dw(t, lo, hi, worker))

const char *experts_ints_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                 kernel_exec *x) {
    experts_view v;
    const char *why = experts_linear_prepare(c, threads, dry, alloc, x);
    if (why) return why;
    experts_view_of(c, OP_expert_linear, &v);
    if (v.quant < 0) return "the weight is not in blocks";
    if (v.K % 256) return "rows that are no multiple of 256";
    if (v.P > FEW * v.E) return "many rows to an expert"; /* their blocks become f32 anyway */
    return NULL;
}
void experts_ints_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    experts_linear_run(t, phase, lo, hi, worker);
}
