/* cpu/quant: weights in blocks. Few rows of x: products straight from the blocks, each turned to floats in registers,
 * so that a weight is read once from memory. More rows: tiles of the weight are turned to f32 and multiplied by
 * product.h. Both give what multiplying the decoded numbers in f32 gives. Refuses gradients, activations other than
 * f32. This header is the leaf's contract: plain types. */
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
} quant_job;

enum { QUANT_DOT, QUANT_DECODE };
typedef void quant_leaf(int what, const quant_job *j, int64_t n0, int64_t n1);
quant_leaf quant_linear__avx2, quant_linear__avx512, quant_tiled__avx2, quant_tiled__avx512;

#endif
