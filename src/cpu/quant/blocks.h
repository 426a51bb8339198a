/* Rows of a matrix in blocks as a job for the leaves that decode. */
#ifndef CPU_QUANT_BLOCKS_H
#define CPU_QUANT_BLOCKS_H

#include "cpu/quant/quant_view.h"
#include "tensor/tensor.h"

/* Columns [k0, k0 + k) of every row of w, whole blocks, rows `stride` numbers apart. */
static inline quant_job blocks_job(const void *w, tl_dtype t, int64_t stride, int64_t k0, int64_t k) {
    const int64_t block = tl_dtype_block(t);
    const size_t size = tl_dtype_bytes(t);
    return (quant_job){.w = (const uint8_t *)w + (size_t)(k0 / block) * size,
                       .w_bytes = (size_t)(stride / block) * size,
                       .type = quant_type_of(t),
                       .k = k};
}

#endif
