/* Many rows of x times a weight of half floats, multiplied and first added as half floats where the processor does that
 * twice as fast as with floats. Sixteen products are added in one number, eight such sums in another, those in f32: a
 * result is off by about 6e-4 of what rounding errors of random signs leave (bf16 inputs cost more). Each row of x is
 * scaled by a power of two so that its largest number lies below HALF_TOP. Where a sum of half floats overflows all the
 * same, or x holds infinities or NaN, those columns are computed again in f32. Weights of bf16 have no more digits than
 * half floats; raised to eight times they lose none from 1e-6 on, and below are off by 4e-9 at most. The leaf's
 * contract: plain types. */
#ifndef CPU_PRODUCT_HALF_H
#define CPU_PRODUCT_HALF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A panel of columns; panels a tile; rows at a time; the longest k at a time; products in one sum, sums in one. */
enum {
    HALF_COLS = 64,
    HALF_PANELS = 2,
    HALF_ROWS = 6,
    HALF_KC = 2048,
    HALF_CHAIN = 16,
    HALF_CHAINS = 8,
    HALF_TOP = 64,
    HALF_RAISE = 8
};

typedef struct half_job {
    const uint16_t *w; /* (n,k), rows w_row apart */
    bool bf16;         /* w is bf16: times HALF_RAISE it becomes half floats in the panels */
    int64_t w_row;
    const float *x;         /* (m,k), rows x_row apart */
    int64_t x_row, m, n, k; /* k: a multiple of HALF_CHAIN */
    uint32_t *half;         /* (m,k): scaled x as half floats, each twice */
    float *back;            /* (m): by what results are multiplied for it */
    uint16_t *panel;        /* a worker's: HALF_PANELS of [HALF_KC][HALF_COLS] */
    float *c;
    int64_t c_row;
    const float *bias; /* (n) or NULL */
    bool add;
} half_job;

enum { HALF_SCALE, HALF_PRODUCT };
/* HALF_SCALE: rows [lo, hi) of x. HALF_PRODUCT: columns [lo, hi), at most HALF_PANELS HALF_COLS. */
typedef void half_leaf(int what, const half_job *j, int64_t lo, int64_t hi);
half_leaf half_linear__avx512fp16;

#endif
