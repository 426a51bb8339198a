/* cpu/row: operators whose work is rows: norms, activations, softmax, sums, lookups, the optimizer. A leaf does one
 * row; launchers (row.c by signature, the other files by hand) find the rows of strided arguments and cut them into
 * tiles. f32, bf16 and f16 in any mixture, f32 sums; f64 is refused. Sums over rows go through partial sums of fixed
 * chunks, so that they do not depend on threads. This header is included by leaf files: plain types only. */
#ifndef CPU_ROW_ROW_H
#define CPU_ROW_ROW_H

#include <stdbool.h>
#include <stdint.h>

enum { ROW_F32, ROW_BF16, ROW_F16 };

typedef struct row_job {
    int64_t d;         /* elements of this row */
    const void *in[6]; /* this row of each argument; NULL: absent */
    void *out[5];      /* NULL: unwanted */
    int32_t tin[6], tout[5];
    uint32_t acc;    /* bit k: add into out[k] */
    int32_t kind;    /* of act, glu, rope, reduce */
    float f[8];      /* attributes */
    uint32_t key[2]; /* dropout */
    uint64_t row;    /* global row, for dropout */
} row_job;

typedef void row_leaf(const row_job *j);

#define ROW_LEAVES(X)                                                                                                  \
    X(layernorm)                                                                                                       \
    X(layernorm_bwd)                                                                                                   \
    X(rmsnorm)                                                                                                         \
    X(rmsnorm_bwd)                                                                                                     \
    X(scalenorm)                                                                                                       \
    X(scalenorm_bwd)                                                                                                   \
    X(rope)                                                                                                            \
    X(act)                                                                                                             \
    X(act_bwd)                                                                                                         \
    X(glu)                                                                                                             \
    X(glu_bwd)                                                                                                         \
    X(add)                                                                                                             \
    X(mul)                                                                                                             \
    X(scale)                                                                                                           \
    X(dropout)                                                                                                         \
    X(softmax)                                                                                                         \
    X(softmax_bwd)                                                                                                     \
    X(softcap)                                                                                                         \
    X(softcap_bwd)                                                                                                     \
    X(embedding)                                                                                                       \
    X(embedding_bwd)                                                                                                   \
    X(cast)                                                                                                            \
    X(concat)                                                                                                          \
    X(reduce)                                                                                                          \
    X(broadcast)                                                                                                       \
    X(global_norm)                                                                                                     \
    X(adamw)                                                                                                           \
    X(kv_write)                                                                                                        \
    X(rope_table)
#define ROW_DECLARE(name) row_leaf row_##name##__avx2, row_##name##__avx512;
ROW_LEAVES(ROW_DECLARE)
#undef ROW_DECLARE

/* Norms of columns: rows `stride` bytes apart. A leaf does columns [lo, hi), at most ROW_COLUMNS. */
enum { ROW_COLUMNS = 64 };
typedef struct row_columns {
    int64_t rows, d;
    const char *in[5]; /* batchnorm: x, w, b; backward: dy, x, w, mean, rstd. Absent: NULL */
    char *out[3];
    int64_t stride_in[5], stride_out;
    int32_t tin[5], tout;
    uint32_t acc;
    float eps;
} row_columns;
typedef void row_columns_leaf(const row_columns *j, int64_t lo, int64_t hi);
row_columns_leaf row_batchnorm__avx2, row_batchnorm__avx512, row_batchnorm_bwd__avx2, row_batchnorm_bwd__avx512;

/* y[i] = f(x[i]) of the vector vocabulary, for tests of its error bounds: 0 exp, 1 exp_soft, 2 tanh, 3 erf, 4 sigmoid
 */
typedef void row_function(int which, const float *x, float *y, int64_t n);
row_function row_function__avx2, row_function__avx512;

#endif
