/* cpu/quant: weights in blocks. Few rows of x: products straight from the blocks, each turned to floats in registers,
 * so that a weight is read once from memory. More rows: tiles of the weight are turned to f32 and multiplied by
 * product.h. Both give what multiplying the decoded numbers in f32 gives. With dot products of bytes (VNNI) few rows of
 * x are first rounded to blocks of int8 themselves, as the field's programs do: half a percent of a block's largest
 * number is lost at most, and a weight takes a third of the work, so that memory is the limit. Refuses gradients,
 * activations other than f32. This header is the leaf's contract: plain types. */
#ifndef CPU_QUANT_QUANT_H
#define CPU_QUANT_QUANT_H

#include <stddef.h>
#include <stdint.h>

enum quant_type { QUANT_Q8_0, QUANT_Q4_0, QUANT_Q4_K, QUANT_Q6_K, QUANT_TYPES };
enum { QUANT_ROWS = 8 }; /* of x, up to which the direct products win */

typedef struct quant_job {
    const uint8_t *w; /* row n begins at w + n * w_bytes */
    size_t w_bytes;
    int type;
    int64_t k; /* a multiple of 32 */
    const float *x;
    int64_t m, x_row;
    float *out; /* QUANT_DOT: (m, out_row) sums, column 0 is row n0; QUANT_DECODE: (n1 - n0, k) */
    int64_t out_row;
    struct quant_ints *ints; /* x in whole numbers, for leaves that multiply those */
} quant_job;

/* Whole numbers come 256 at a time. Longer rows may end within such a chunk (of Q8_0 and Q4_0): the rest of it counts
 * as zeros. For short rows that would be much work for nothing. */
enum { QUANT_CHUNK = 256, QUANT_SHORT = 512 };
static inline int64_t quant_chunks(int64_t k) {
    return (k + QUANT_CHUNK - 1) / QUANT_CHUNK;
}
static inline int64_t quant_padded(int64_t k) {
    return quant_chunks(k) * QUANT_CHUNK;
}

/* x as the blocks of whole numbers it is multiplied as, (m, ...) row after row: 32 int8 to a scale. Here k stands
 * for quant_padded(k); rows take k, k/8, k/8 and k bytes. */
typedef struct quant_ints {
    int8_t *q;      /* (m, k) */
    float *scale;   /* (m, k / 32) */
    float *sum;     /* (m, k / 32): scale times the sum of q */
    int32_t *shift; /* (m, k / 4): sums of 4 q times what the type's unsigned levels are too high by, negated */
} quant_ints;

enum { QUANT_DOT, QUANT_DECODE, QUANT_INTS };
typedef void quant_leaf(int what, const quant_job *j, int64_t n0, int64_t n1);
quant_leaf quant_linear__avx2, quant_linear__avx512, quant_tiled__avx2, quant_tiled__avx512;
quant_leaf quant_embedding__avx2, quant_embedding__avx512, quant_dx__avx2, quant_dx__avx512;
/* QUANT_INTS: rows [n0, n1) of x into ints. QUANT_DOT from those. */
quant_leaf quant_ints__avx512vnni;

#endif
