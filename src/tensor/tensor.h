/* tensor: descriptors and views, layouts of quantized blocks. Never owns memory. */
#ifndef TENSOR_TENSOR_H
#define TENSOR_TENSOR_H

#include "base/error.h"
#include "tilia/op.h"

bool tensor_is_float(tl_dtype t);     /* f32 f64 bf16 f16 */
bool tensor_is_quantized(tl_dtype t); /* block formats */
tl_dtype tensor_sum_dtype(tl_dtype t); /* f64 for f64, else f32 */
/* Bytes of a contiguous tensor; false if the product overflows or the last dim is not whole blocks. */
bool tensor_bytes(const tl_desc *d, size_t *bytes);
/* Checks ndim, dims >= 0, products: false when nonsense. */
bool tensor_valid(const tl_desc *d);
/* If rows (all dims but the last) lie at one constant distance, that distance in elements; else -1. */
int64_t tensor_row_stride(const tl_desc *d);
/* "(2,3,4) bf16" into buf; returns buf. */
const char *tensor_print(const tl_desc *d, char *buf, size_t size);
/* Window [at, at+width) of the last dim. */
tl_desc tensor_window(const tl_desc *d, int64_t width);
/* The same elements under other dimensions, without a copy; false if the layout (or the count) does not allow it. */
bool tensor_reshape(const tl_desc *d, int ndim, const int64_t *dim, tl_desc *out);

#endif
