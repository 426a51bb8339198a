/* cpu/gated: gated attention units and mixed chunks. Launchers (gau.c, chunk.c, step.c, small.c, features.c, tables.c)
 * cut a call into tiles by its shape alone and do the dense work with the packed product of cpu/product/gemm.h; the
 * leaves (gated_avx2.c, gated_avx512.c, one body) do what happens to a row of scores and the small row work. Nothing of
 * size n x n is ever stored; the memory of chunks does not depend on n. f32, bf16 and f16, sums in f32; f64 is refused.
 * Tiles are computed by one worker in one order, so results have the same bits for any number of threads.
 *
 * This header is included by leaf files: plain types only. */
#ifndef CPU_GATED_GATED_H
#define CPU_GATED_GATED_H

#include "cpu/product/gemm.h"

enum { GATED_TURNS = 64 }; /* distances of a block of a table */

/* One row of scores of a tile. Column c is visible for lo <= c < hi. */
typedef struct gated_row {
    int32_t kind; /* GATE_RELU2 .. */
    float eps, factor, norm;
    float stat, delta; /* of normalised kinds: L or 1/Z; row sum of dO O */
    const float *bias; /* of column 0, or NULL */
    float bias_scale;
    float *dbias; /* gradients of T are added to it, or NULL */
} gated_row;

/* The instruction set's functions. */
typedef struct gated_leaf {
    gemm_leaf *gemm;
    /* s: products q.k, becomes weights; zero outside [lo, hi) */
    void (*weigh)(const gated_row *r, float *s, int64_t lo, int64_t hi, int64_t n);
    /* more keys of a normalised row: largest T so far, sum beside it (relu2_sum: the sum alone) */
    void (*more)(const gated_row *r, const float *s, int64_t lo, int64_t hi, float *top, float *sum);
    /* s: products, becomes weights; dp: gradients of the weights, becomes gradients of the products. Returns the sum of
     * weight times gradient. */
    float (*back)(const gated_row *r, float *s, float *dp, int64_t lo, int64_t hi, int64_t n);
    float (*dot)(const void *x, int tx, const void *y, int ty, int64_t n);
    void (*axpy)(float a, const void *x, int tx, float *y, int64_t n);                                 /* y += a x */
    void (*scaled)(float a, const void *x, int tx, float *y, int64_t n);                               /* y = a x */
    void (*put)(const float *x, void *y, int ty, int64_t n, bool add);                                 /* y = [y +] x */
    void (*affine)(const void *z, int tz, const float *g, const float *b, void *y, int ty, int64_t n); /* z g [+ b] */
    void (*product)(const void *x, int tx, const void *y, int ty, float *to, int64_t n);               /* to += x y */
    /* the same into any type, y = [y +] ..: a x; x z; a exp(x - sub). x and y may be one. */
    void (*times)(float a, const void *x, int tx, void *y, int ty, int64_t n, bool add);
    void (*multiply)(const void *x, int tx, const void *z, int tz, void *y, int ty, int64_t n, bool add);
    void (*feature)(float a, float sub, const void *x, int tx, void *y, int ty, int64_t n, bool add);
    /* tables of relative positions, which f32 alone holds */
    float (*sum)(const float *x, int64_t n);
    /* ahead[l] = sum over k < n of p[k] cos[k,l] + q[k] sin[k,l] and back[l] of r and t, l < GATED_TURNS; rows of cos
     * and sin GATED_TURNS apart. by: p, q, r, t, n numbers each */
    void (*turn)(const float *cos, const float *sin, const float *by, int64_t n, float *ahead, float *back);
    /* to: four rows of n: sums over l < GATED_TURNS of cos[l,k] even[l], sin[l,k] even[l], cos[l,k] odd[l], sin[l,k]
     * odd[l]
     */
    void (*unturn)(const float *cos, const float *sin, const float *even, const float *odd, int64_t n, float *to);
} gated_leaf;

typedef const gated_leaf *gated_leaf_fn(void);

#endif
