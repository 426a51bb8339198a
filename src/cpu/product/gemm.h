/* Our own product over packed panels: sums in f32 whatever the storage. It serves where oneDNN has nothing good:
 * bf16 on processors without a bf16 dot product, or with a slow one (Intel's 512-bit vdpbf16ps has a quarter of the
 * rate of two f32 multiply-adds: 84 against 175 GFLOP/s measured on a core of Sapphire Rapids).
 *
 *     C (m,n) = [C +] A (m,k) B (k,n) [+ bias]
 *
 * A is packed once, in slivers of GEMM_MR rows: [sliver][k][row], zeros past m; or not at all; or, where its columns
 * are contiguous, a line of cache's worth of rows at a time by each tile. A column tile packs its part of B in blocks
 * of GEMM_KC rows that stay in L2 ([panel][k][column], panels three vectors wide) and streams all slivers over it; the
 * sum of a block lives in registers. Included by leaf files: plain types only. */
#ifndef CPU_PRODUCT_GEMM_H
#define CPU_PRODUCT_GEMM_H

#include <stdbool.h>
#include <stdint.h>

enum { GEMM_MR = 8, GEMM_KC = 1024, GEMM_NC = 192, GEMM_FLY = 4 };
enum { GEMM_F32, GEMM_BF16, GEMM_F16 };

typedef struct gemm_matrix {
    void *p;
    int type;         /* GEMM_F32 .. */
    int64_t row, col; /* strides in elements; one of them is 1 */
} gemm_matrix;

/* What will be read next: `rows` pieces of `bytes`, `step` bytes apart. */
typedef struct gemm_next {
    const char *p;
    int64_t rows, bytes, step;
} gemm_next;

typedef struct gemm_job {
    gemm_matrix a, b, c; /* c.col is 1 */
    int64_t m, n, k;
    bool add;
    const float *bias; /* (n) or NULL */
    float *pack_a;     /* gemm_pack_floats(m, k); NULL: A is f32 with rows of contiguous k and is read where it lies */
    float *pack_b;     /* per worker: GEMM_KC * GEMM_NC */
    float *panels;     /* B packed before by GEMM_PANELS, for products that share it; NULL: tiles pack what they need */
    int64_t depth;     /* rows that a panel has room for; this B begins at row `first` of them */
    int64_t first;
    float *temp;    /* per worker, if k > GEMM_KC: (rows of the tile) * GEMM_NC */
    bool fly;       /* pack_a is the worker's, for GEMM_FLY slivers of GEMM_KC; A has contiguous rows, C is f32 */
    float *row_sum; /* (m) or NULL: packing A also yields the sums of its rows */
    bool row_sum_add;
    bool direct_b;  /* B is f32 with rows of contiguous columns, n a multiple of 16, and is read where it lies */
    gemm_next next; /* fetched into L2 while a tile is computed; rows 0: nothing */
} gemm_job;

static inline int64_t gemm_slivers(int64_t m) {
    return (m + GEMM_MR - 1) / GEMM_MR;
}
/* An even number of slivers: two are written at once. */
static inline int64_t gemm_pack_floats(int64_t m, int64_t k) {
    return (gemm_slivers(m) + 1) / 2 * 2 * GEMM_MR * k;
}

/* Room for columns of B packed before, whatever the width of a panel. */
static inline int64_t gemm_panel_floats(int64_t n, int64_t depth) {
    return (n + 47) / 48 * 48 * depth;
}

/* k is cut into equal blocks that are no longer than GEMM_KC. */
static inline int64_t gemm_block(int64_t k) {
    const int64_t blocks = (k + GEMM_KC - 1) / GEMM_KC;
    return ((k + blocks - 1) / blocks + 15) / 16 * 16;
}

/* Columns [col0, col1) of the block of k from k0 on in B's memory; no columns: nothing. */
static inline gemm_next gemm_next_b(const gemm_job *j, int64_t k0, int64_t col0, int64_t col1) {
    const int64_t size = j->b.type == GEMM_F32 ? 4 : 2, block = gemm_block(j->k), cols = col1 - col0;
    const int64_t k = j->k - k0 < block ? j->k - k0 : block;
    gemm_next next = {0, 0, 0, 0};
    if (cols <= 0 || k <= 0) return next;
    next.p = (const char *)j->b.p + size * (k0 * j->b.row + col0 * j->b.col);
    next.rows = j->b.col == 1 ? k : cols;
    next.bytes = size * (j->b.col == 1 ? cols : k);
    next.step = size * (j->b.col == 1 ? j->b.row : j->b.col);
    return next;
}

enum { GEMM_PACK, GEMM_TILE, GEMM_PANELS };
/* With fly the tile of the first columns yields the sums of the rows. */
/* GEMM_PACK: slivers [lo, hi) of A. GEMM_TILE: columns [col0, col1), at most GEMM_NC, of rows of slivers [lo, hi).
 * GEMM_PANELS: columns [col0, col1) of all k rows of B. */
typedef void gemm_leaf(int what, const gemm_job *j, int64_t lo, int64_t hi, int64_t col0, int64_t col1);
gemm_leaf gemm_linear__avx2, gemm_linear_dx__avx2, gemm_linear_dw__avx2, gemm_heads__avx2;
gemm_leaf gemm_linear__avx512, gemm_linear_dx__avx512, gemm_linear_dw__avx512, gemm_heads__avx512;

/* Sums of the columns of dy (rows,cols), for db: the leaf of the oneDNN rows. */
typedef void product_sum_leaf(const void *dy, int type, int64_t stride, int64_t rows, int64_t cols, float *sum,
                              bool add);

#endif
