/* cpu/quant: weights in blocks. Few rows of x: products straight from the blocks, each turned to floats in registers,
 * so that a weight is read once from memory. More rows: tiles of the weight are turned to f32 and multiplied by
 * product.h. Both give what multiplying the decoded numbers in f32 gives. With dot products of bytes (VNNI) few rows of
 * x are first rounded to blocks of int8 themselves, as the field's programs do: half a percent of a block's largest
 * number is lost at most, and a weight takes a third of the work, so that memory is the limit. Refuses gradients,
 * activations other than f32. This header is the leaf's contract: plain types. */
#ifndef CPU_QUANT_QUANT_H
#define CPU_QUANT_QUANT_H

#include <stdbool.h>
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
    struct quant_ints *ints;      /* x in whole numbers, for leaves that multiply those */
    const uint8_t *begin, *until; /* of the rows of w that this worker will read: what is fetched ahead; or NULL */
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

/* Q8_0 and Q4_0 are read as they lie, 64 bytes at a time, scales and all: a lane of 4 bytes never holds weights of two
 * blocks, and x has zeros where the scales are. */
static inline bool quant_streams(int type) {
    return type == QUANT_Q8_0 || type == QUANT_Q4_0;
}
static inline int64_t quant_block_bytes(int type) { /* of 32 weights, of those two */
    return type == QUANT_Q8_0 ? 34 : 18;
}
static inline int64_t quant_stream(int type, int64_t k) { /* bytes of a row, in whole vectors */
    return (k / 32 * quant_block_bytes(type) + 63) / 64 * 64;
}

/* x as the blocks of whole numbers it is multiplied as, row after row: 32 int8 to a scale. k stands for
 * quant_padded(k), s for quant_stream(k). */
typedef struct quant_ints {
    int8_t *q;      /* (m, k); where weights stream (m, s / 64, 2 or 3, 64): q, of Q4_0 for low and for high nibbles,
                     * then shift as below */
    float *scale;   /* (m, k / 32), a multiple of 32 of them where weights stream */
    float *sum;     /* (m, k / 32): scale times the sum of q; not where weights stream */
    int32_t *shift; /* (m, k / 4): sums of 4 q times what unsigned levels are too high by, negated; not .. stream */
    uint16_t *half; /* (2, 4, 32), where weights stream: scales of 32 blocks of 4 rows of w, and of the next */
    int64_t q_row, scale_row;
} quant_ints;

/* Where these lie in memory aligned to 64 bytes (NULL: nowhere yet), and how much of it they take. */
static inline size_t quant_ints_place(int type, int64_t m, int64_t k, void *memory, quant_ints *o) {
    const int64_t blocks = (k / 32 + 31) / 32 * 32, pad = quant_padded(k);
    const bool streams = quant_streams(type);
    o->q_row = streams ? quant_stream(type, k) * (type == QUANT_Q4_0 ? 3 : 2) : pad;
    o->scale_row = streams ? blocks : pad / 32;
    const int64_t q = m * o->q_row, shift = streams ? 0 : m * pad, scale = 4 * m * o->scale_row;
    const int64_t half = streams ? 2 * 4 * 32 * 2 : scale; /* or the sums */
    char *at = memory;
    if (at) {
        o->q = (int8_t *)at;
        o->shift = (int32_t *)(void *)(at + q);
        o->scale = (float *)(void *)(at + q + shift);
        o->sum = (float *)(void *)(at + q + shift + scale);
        o->half = (uint16_t *)(void *)(at + q + shift + scale);
    }
    return (size_t)(q + shift + scale + half + 63) / 64 * 64;
}

enum { QUANT_DOT, QUANT_DECODE, QUANT_INTS };
typedef void quant_leaf(int what, const quant_job *j, int64_t n0, int64_t n1);
quant_leaf quant_linear__avx2, quant_linear__avx512, quant_tiled__avx2, quant_tiled__avx512;
quant_leaf quant_embedding__avx2, quant_embedding__avx512, quant_dx__avx2, quant_dx__avx512;
/* QUANT_INTS: rows [n0, n1) of x into ints. QUANT_DOT from those. */
quant_leaf quant_ints__avx512vnni, quant_stream__avx512vnni;

#endif
