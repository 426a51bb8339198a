/* The leaf of the oneDNN rows: column sums for db, in blocks of 64 rows so that the error grows with the block. */
#include "cpu/product/gemm.h"
#include "cpu/simd.h"

static inline void product_sum(const void *dy, const int type, int64_t stride, int64_t rows, int64_t cols, float *sum,
                               bool add) {
    for (int64_t c = 0; c < cols; c += SIMD_W) {
        const int64_t n = cols - c;
        vf total = vf_zero();
        for (int64_t r0 = 0; r0 < rows; r0 += 64) {
            vf part = vf_zero();
            for (int64_t r = r0; r < rows && r < r0 + 64; r++)
                part = vf_add(part, type == GEMM_F32 ? vf_load_n((const float *)dy + r * stride + c, n)
                                                     : vf_load_bf16_n((const uint16_t *)dy + r * stride + c, n));
            total = vf_add(total, part);
        }
        if (add) total = vf_add(vf_load_n(sum + c, n), total);
        vf_store_n(sum + c, total, n);
    }
}

#define PRODUCT_SUM_LEAF(op)                                                                                           \
    product_sum_leaf PRODUCT_SUM(op);                                                                                  \
    void PRODUCT_SUM(op)(const void *dy, int type, int64_t stride, int64_t rows, int64_t cols, float *sum, bool add) { \
        if (type == GEMM_F32)                                                                                          \
            product_sum(dy, GEMM_F32, stride, rows, cols, sum, add);                                                   \
        else                                                                                                           \
            product_sum(dy, GEMM_BF16, stride, rows, cols, sum, add);                                                  \
    }
PRODUCT_SUM_LEAF(linear)
PRODUCT_SUM_LEAF(linear_dx)
PRODUCT_SUM_LEAF(linear_dw)
