/* A few rows times a weight: limited by how fast the weight streams from memory. Leaf's contract, plain types. */
#ifndef CPU_PRODUCT_MATVEC_H
#define CPU_PRODUCT_MATVEC_H

#include "cpu/product/gemm.h"

enum { MATVEC_ROWS = 8 };

/* y[m][n] = [y +] sum over k of x[m][k] w[n][k] [+ bias[n]] for n in [n0, n1) */
typedef struct matvec_job {
    const void *x, *w;
    void *y;
    int x_type, w_type, y_type;
    int64_t m, k, x_row, w_row, y_row, n0, n1;
    const float *bias;
    bool add;
    float *x32; /* m * k_pad floats: x in f32, rows k_pad apart */
    int64_t k_pad;
} matvec_job;

typedef void matvec_leaf(const matvec_job *j);
matvec_leaf matvec_linear__avx2, matvec_linear__avx512;

#endif
