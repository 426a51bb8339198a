/* The leaf of loss_head and loss_head_bwd: plain types, included by leaf files. */
#ifndef CPU_PRODUCT_HEAD_H
#define CPU_PRODUCT_HEAD_H

#include "cpu/product/gemm.h"
#include "cpu/quant/quant.h"

/* One row's part of a vocabulary tile. */
typedef struct head_row {
    float *z; /* logits of words [0,n) of the tile; in the end their gradients */
    int64_t n;
    int64_t target;                   /* its place among them, or one outside [0,n) */
    float cap;                        /* 0: none */
    bool keep;                        /* stats() leaves exp(z - max) in z, so that grad() takes none; not under a cap */
    float max, sum, all, of_target;   /* stats() gives: greatest logit, sums of exp(z - max) and of z, the target's */
    float hit, each, zloss2, by, lse; /* grad() wants: as in op/loss_head.c, and max if stats() kept exponentials */
    const float *next;                /* what will be asked for next, n elements, or NULL */
} head_row;

typedef struct head_table {
    gemm_leaf *gemm;
    void (*stats)(head_row *r); /* caps z in place */
    void (*grad)(const head_row *r);
    void (*sum)(const float *part, int64_t parts, int64_t stride, int64_t n, void *out, int type, bool add);
    quant_leaf *blocks; /* rows of a weight in blocks as f32 */
} head_table;

typedef const head_table *head_leaf(void);
head_leaf loss_head__avx2, loss_head__avx512, loss_head_bwd__avx2, loss_head_bwd__avx512;

#endif
