/* cpu/experts: mixtures of experts. Rows sorted by expert go through the products of cpu/product and cpu/quant, segment
 * by segment: up to eight rows of an expert straight from its matrix, more over packed panels. Tiles are rows times
 * columns of the result whoever the rows belong to, so every worker has the same to do however the tokens fall. Refuses
 * f64, and gradients through weights in blocks. Included by leaf files: plain types only. */
#ifndef CPU_EXPERTS_EXPERTS_H
#define CPU_EXPERTS_EXPERTS_H

#include "cpu/product/gemm.h"
#include "cpu/product/matvec.h"
#include "cpu/quant/quant.h"

/* What an instruction set has for products. */
typedef struct experts_leaves {
    gemm_leaf *gemm;
    matvec_leaf *matvec;
    quant_leaf *dot, *decode; /* few rows from blocks; blocks to f32 */
    bool ints;                /* dot takes x in whole numbers */
} experts_leaves;
typedef void experts_leaves_of(experts_leaves *out);
experts_leaves_of experts_linear__avx2, experts_linear__avx512, experts_linear__avx512vnni;
experts_leaves_of experts_linear_dx__avx2, experts_linear_dx__avx512, experts_linear_dw__avx2,
    experts_linear_dw__avx512;

/* The k largest of p (E), the largest first. */
typedef void experts_choose(const float *p, int64_t experts, int64_t k, int32_t *id);
experts_choose experts_route__avx2, experts_route__avx512;

/* What the weights of the chosen give their probabilities, added to dp (E). */
typedef void experts_unchoose(const float *p, const int32_t *id, const float *dw, int64_t k, int norm, float *dp);
experts_unchoose experts_route_bwd__avx2, experts_route_bwd__avx512;

enum { EXPERTS_MOST = 64 };
typedef struct experts_sum_job {
    int64_t n, d;                /* entries of a token, width */
    const void *x[EXPERTS_MOST]; /* rows of d; NULL: an entry without expert */
    float w[EXPERTS_MOST];
    int type; /* of x, y, dy, dx: GEMM_F32 .. */
    void *y;
    bool add;
    const void *dy; /* backward: dx[j] = w[j] dy (NULL: unwanted), dw[j] = dy . x[j] (if wanted) */
    void *dx[EXPERTS_MOST];
    float dw[EXPERTS_MOST];
    bool wants_dw;
    int dy_type;
} experts_sum_job;
typedef void experts_sum_leaf(experts_sum_job *j);
experts_sum_leaf experts_sum__avx2, experts_sum__avx512, experts_sum_bwd__avx2, experts_sum_bwd__avx512;

#endif
