/* Runs of numbers into quantized blocks and back, as the field's reference does it, bit for bit. Scalar; kernels have
 * their own fast forms. */
#ifndef TENSOR_QUANTIZE_H
#define TENSOR_QUANTIZE_H

#include "tilia/base.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Can numbers be turned into dtype t (f32, f16, bf16, q8_0, q4_0, q4_k, q6_k)? */
bool quantize_can(tl_dtype t);
/* x (n) f32 to n elements of t at out; n is a multiple of the block. */
void quantize_encode(tl_dtype t, const float *x, int64_t n, void *out);
/* And back. from may lie anywhere (files align nothing). */
void quantize_decode(tl_dtype t, const void *from, int64_t n, float *out);

#ifdef __cplusplus
}
#endif
#endif
