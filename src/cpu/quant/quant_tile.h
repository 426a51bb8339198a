/* Many rows of x times weights in blocks, as products of whole numbers: x is rounded to blocks of int8 once; a tile of
 * the weight is turned into panels of QUANT_TILE_COLS columns, [k/4][column][4] unsigned levels with [group][column]
 * scales, and multiplied QUANT_TILE_ROWS rows at a time. The sums of a group are exact; those of the groups run over k
 * in one order. The leaf's contract: plain types. */
#ifndef CPU_QUANT_QUANT_TILE_H
#define CPU_QUANT_QUANT_TILE_H

#include "cpu/quant/quant.h"

#include <stdbool.h>

enum { QUANT_TILE_COLS = 32, QUANT_TILE_ROWS = 6 };

typedef struct quant_tile_job {
    const uint8_t *w; /* (n,k); row i begins at w + i * w_bytes */
    size_t w_bytes;
    int type;
    int64_t m, n, k; /* below, k stands for quant_padded(k) */
    const float *x;
    int64_t x_row;
    /* x in whole numbers */
    int8_t *q;      /* (m, k) */
    float *scale;   /* (m, k / 32) */
    float *sum;     /* (m, k / 32): scale times the sum of q; of Q4_K alone */
    int32_t *shift; /* (m, k / group): minus what the levels are too high by, times the sums of q */
    /* one worker's panels, side by side */
    uint8_t *level;      /* k * QUANT_TILE_COLS each */
    float *step, *least; /* k / group * QUANT_TILE_COLS; k / 32 * QUANT_TILE_COLS, of Q4_K alone */
    float *c;
    int64_t c_row;
    const float *bias; /* (n) or NULL */
    bool add;
} quant_tile_job;

/* Weights that share a scale. */
static inline int64_t quant_tile_group(int type) {
    return type == QUANT_Q6_K ? 16 : 32;
}

enum { QUANT_TILE_ROUND, QUANT_TILE_PRODUCT };
/* QUANT_TILE_ROUND: rows [lo, hi) of x. QUANT_TILE_PRODUCT: columns [lo, hi), lo a multiple of QUANT_TILE_COLS. */
typedef void quant_tile_leaf(int what, const quant_tile_job *j, int64_t lo, int64_t hi);
quant_tile_leaf quant_tile__avx512vnni;

#endif
