/* linear, linear_dx and linear_dw as one thing: C = A B over arguments of a call. Shared by the launchers. */
#ifndef CPU_PRODUCT_LINEAR_H
#define CPU_PRODUCT_LINEAR_H

#include "cpu/launchers.h"
#include "cpu/product/gemm.h"
#include "cpu/product/product.h"
#include "tensor/tensor.h"

typedef struct linear_view {
    int64_t m, n, k;
    tl_dtype a, b, c;
    int64_t a_row, a_col, b_row, b_col, c_row;
    bool bias, add; /* bias: in[2] of linear */
    bool dw, db;    /* which outputs of linear_dw are there; dw also true for the other two */
    bool db_add;
    int64_t rows; /* of x */
} linear_view;

/* NULL, or why a product of plain matrices cannot serve this call. */
const char *linear_view_of(const tl_op_call *c, int op, linear_view *v);

/* Largest count of equal parts, at most `most`, in which no part is under `least`. */
static inline int64_t linear_parts(int64_t n, int64_t least, int64_t most) {
    int64_t parts = n / least;
    return parts < 1 ? 1 : parts > most ? most : parts;
}
static inline int64_t linear_up(int64_t n, int64_t to) {
    return (n + to - 1) / to * to;
}

/* The rows of oneDNN without the question whether they are the faster ones here: for tests. */
const char *onednn_anywhere_linear_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,
                                           kernel_exec *x);
const char *onednn_anywhere_linear_dx_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,
                                              kernel_exec *x);
const char *onednn_anywhere_linear_dw_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *a,
                                              kernel_exec *x);

int gemm_type(tl_dtype t); /* GEMM_F32 .. or -1 */
/* Has this processor a 512-bit bf16 dot product slower than two f32 multiply-adds? (Intel's, up to what is known.) */
bool product_slow_bf16(void);

#endif
