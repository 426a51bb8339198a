/* linear, linear_dx, linear_dw over our own packed product (gemm.h): any mixture of f32, bf16 and f16 in, f32 sums.
 * Tiles are groups of rows times a panel of columns; how they are dealt out changes no sum. A worker's tiles of as many
 * whole panels as its cache holds are one piece of work, so B is packed once for all of them. Where A has to be packed
 * beforehand (rows of bf16 and f16) that is a phase of its own, and repeats are chunks of A that keep its packed form
 * within 16 MiB. */
#include "cpu/product/linear.h"

enum { PACK_FLOATS = 4 << 20, SLIVERS = 16 /* a tile of packing */, PIECE = 64 /* slivers, where sums lie beside C */ };
enum { DIRECT_FLOATS = 3 << 17 /* of a B that L2 keeps whole though its rows are long */ };
enum { ALONE = 1 << 18 /* multiply-adds that wake nobody */, OWN_ROWS = 128, OWN_FLOATS = 1 << 18, PANEL = 48 };

typedef struct gemm_cut {
    bool direct; /* A is read where it lies, or packed by each tile: no phase of packing, one repeat */
    bool fly;    /* the latter */
    bool own;    /* a worker has rows of its own and all columns: it packs its A itself, and finds what it wrote before
                    as well as what it will read next in its own cache */
    int64_t m_chunk, k_chunk, m_chunks, k_chunks; /* repeats */
    int64_t panels, slivers, row_tiles;           /* of the product phase, per repeat */
    int64_t pack_a, per_worker;                   /* floats */
} gemm_cut;

static gemm_cut linear_gemm_cut(const linear_view *v, bool dw, int workers) {
    gemm_cut t = {.fly = dw && v->n <= GEMM_NC}; /* more columns would pack the same too often */
    t.direct = t.fly || (!dw && v->a == TL_F32 && v->a_col == 1);
    t.own = t.fly || (!dw && v->m / workers >= OWN_ROWS && v->n * v->k <= OWN_FLOATS);
    t.k_chunk = v->k;
    if (dw && !t.fly && v->k > GEMM_KC) { /* equal chunks that need no partial sums but the result itself */
        const int64_t chunks = (v->k + GEMM_KC - 1) / GEMM_KC;
        t.k_chunk = linear_up((v->k + chunks - 1) / chunks, 16);
    }
    t.k_chunks = (v->k + t.k_chunk - 1) / t.k_chunk;
    int64_t fit = PACK_FLOATS / t.k_chunk / 128 * 128;
    t.m_chunk = t.direct ? v->m : fit < 128 ? 128 : fit;
    if (t.m_chunk > v->m) t.m_chunk = linear_up(v->m, GEMM_MR);
    t.m_chunks = (v->m + t.m_chunk - 1) / t.m_chunk;
    t.panels = v->dw ? (v->n + PANEL - 1) / PANEL : 1; /* sums need no columns */
    const int64_t slivers = gemm_slivers(t.m_chunk);
    t.slivers = v->m * v->n * v->k < ALONE ? slivers : GEMM_FLY; /* what is packed together belongs to one tile */
    t.row_tiles = (slivers + t.slivers - 1) / t.slivers;
    t.pack_a = t.direct ? 0 : linear_up(gemm_pack_floats(t.m_chunk, t.k_chunk), 16);
    t.per_worker = GEMM_KC * GEMM_NC;
    if (t.fly)
        t.per_worker += GEMM_FLY * GEMM_MR * GEMM_KC;
    else if (t.k_chunk > GEMM_KC)
        t.per_worker += (slivers < PIECE ? slivers : PIECE) * GEMM_MR * GEMM_NC;
    return t;
}

static const char *linear_gemm_prepare(const tl_op_call *c, int op, int threads, kernel_exec *x) {
    linear_view v;
    const char *why = linear_view_of(c, op, &v);
    if (why) return why;
    if (gemm_type(v.a) < 0 || gemm_type(v.b) < 0 || gemm_type(v.c) < 0) return "not f32, bf16 or f16";
    const gemm_cut t = linear_gemm_cut(&v, op == OP_linear_dw, threads);
    const bool packing = !t.direct && !t.own;
    x->phases = packing ? 2 : 1;
    x->tiles[0] = (gemm_slivers(t.m_chunk) + SLIVERS - 1) / SLIVERS;
    x->tiles[packing] = t.own ? t.row_tiles : t.panels * t.row_tiles;
    x->repeats = t.m_chunks * t.k_chunks;
    x->scratch = sizeof(float) * (size_t)(t.pack_a + t.per_worker * threads);
    return NULL;
}

/* The job of one repeat. */
static gemm_job linear_gemm_job(const kernel_task *t, int op, const linear_view *v, const gemm_cut *cut, int worker) {
    const tl_op_call *c = t->call;
    const int64_t m0 = t->repeat / cut->k_chunks * cut->m_chunk, k0 = t->repeat % cut->k_chunks * cut->k_chunk;
    gemm_job j = {.m = v->m - m0 < cut->m_chunk ? v->m - m0 : cut->m_chunk,
                  .n = v->n,
                  .k = v->k - k0 < cut->k_chunk ? v->k - k0 : cut->k_chunk,
                  .add = v->add || k0 > 0};
    const size_t a_size = tl_dtype_bytes(v->a), b_size = tl_dtype_bytes(v->b), c_size = tl_dtype_bytes(v->c);
    j.a = (gemm_matrix){(char *)c->in[0].data + a_size * (size_t)(m0 * v->a_row + k0 * v->a_col), gemm_type(v->a),
                        v->a_row, v->a_col};
    j.b = (gemm_matrix){(char *)c->in[1].data + b_size * (size_t)(k0 * v->b_row), gemm_type(v->b), v->b_row, v->b_col};
    if (c->out[0].data)
        j.c = (gemm_matrix){(char *)c->out[0].data + c_size * (size_t)(m0 * v->c_row), gemm_type(v->c), v->c_row, 1};
    if (op == OP_linear && v->bias) j.bias = c->in[2].data;
    j.direct_b = v->b == TL_F32 && v->b_col == 1 && v->n % 16 == 0 && cut->k_chunk * v->b_row <= DIRECT_FLOATS;
    j.pack_a = cut->direct ? NULL : t->scratch;
    j.pack_b = (float *)t->scratch + cut->pack_a + worker * cut->per_worker;
    if (cut->k_chunk > GEMM_KC && !cut->fly) j.temp = j.pack_b + GEMM_KC * GEMM_NC;
    if (cut->fly) j.fly = true, j.pack_a = j.pack_b + GEMM_KC * GEMM_NC;
    if (op == OP_linear_dw && v->db && c->out[1].data) {
        j.row_sum = (float *)c->out[1].data + m0;
        j.row_sum_add = v->db_add || k0 > 0;
    }
    return j;
}

/* Slivers [s0, s1) by columns from c0 on; in pieces where the sums of blocks of k have to be kept beside C. */
static void linear_gemm_part(const gemm_job *j, gemm_leaf *leaf, int64_t s0, int64_t s1, int64_t c0, int64_t cols) {
    const int64_t piece = j->temp ? PIECE : s1 - s0, c1 = c0 + cols < j->n ? c0 + cols : j->n;
    for (; s0 < s1; s0 += piece) leaf(GEMM_TILE, j, s0, s1 - s0 < piece ? s1 : s0 + piece, c0, c1);
}

/* Tiles [lo, hi), panel after panel: whole ones together, parts of one alone. */
static void linear_gemm_panels(const gemm_cut *cut, const gemm_job *j, gemm_leaf *leaf, int64_t lo, int64_t hi) {
    const int64_t slivers = gemm_slivers(j->m);
    while (lo < hi) {
        const int64_t row = lo % cut->row_tiles, whole = row ? 0 : (hi - lo) / cut->row_tiles;
        const int64_t panels = whole > GEMM_NC / PANEL ? GEMM_NC / PANEL : whole;
        const int64_t left = cut->row_tiles - row < hi - lo ? cut->row_tiles - row : hi - lo;
        const int64_t s0 = row * cut->slivers, s1 = panels ? slivers : s0 + left * cut->slivers;
        linear_gemm_part(j, leaf, s0, s1 < slivers ? s1 : slivers, lo / cut->row_tiles * PANEL,
                         (panels ? panels : 1) * PANEL);
        lo += panels ? panels * cut->row_tiles : left;
    }
}

static void linear_gemm_run(const kernel_task *t, int op, int phase, int64_t lo, int64_t hi, int worker) {
    linear_view v;
    linear_view_of(t->call, op, &v);
    const gemm_cut cut = linear_gemm_cut(&v, op == OP_linear_dw, t->workers);
    const gemm_job j = linear_gemm_job(t, op, &v, &cut, worker);
    gemm_leaf *leaf = (gemm_leaf *)t->exec->leaf;
    const int64_t slivers = gemm_slivers(j.m);
    if (cut.own) {
        const int64_t s0 = lo * cut.slivers, s1 = hi * cut.slivers < slivers ? hi * cut.slivers : slivers;
        if (s0 < s1 && !cut.direct) leaf(GEMM_PACK, &j, s0, s1, 0, 0);
        for (int64_t c = 0; c == 0 || c < v.n; c += GEMM_NC) linear_gemm_part(&j, leaf, s0, s1, c, GEMM_NC);
    } else if (phase == 0 && !cut.direct) {
        hi = hi * SLIVERS < slivers ? hi * SLIVERS : slivers;
        if (lo * SLIVERS < hi) leaf(GEMM_PACK, &j, lo * SLIVERS, hi, 0, 0);
    } else
        linear_gemm_panels(&cut, &j, leaf, lo, hi);
}

#define LINEAR_GEMM(op)                                                                                                \
    const char *gemm_##op##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,             \
                                    kernel_exec *x) {                                                                  \
        (void)dry, (void)alloc;                                                                                        \
        return linear_gemm_prepare(c, OP_##op, threads, x);                                                            \
    }                                                                                                                  \
    void gemm_##op##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {                        \
        linear_gemm_run(t, OP_##op, phase, lo, hi, worker);                                                            \
    }
LINEAR_GEMM(linear)
LINEAR_GEMM(linear_dx)
LINEAR_GEMM(linear_dw)
