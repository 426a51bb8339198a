/* The body of experts_avx2.c and experts_avx512.c. */
#include "cpu/experts/experts.h"
#include "cpu/simd.h"

#define ALWAYS static inline __attribute__((always_inline))

/* By insertion; a token's k are few. The comparison is false for what is not a number: then the first k stay. */
void SIMD_NAME(experts_route)(const float *p, int64_t experts, int64_t k, int32_t *id) {
    int64_t n = 0;
    for (int64_t e = 0; e < experts; e++) {
        const float v = p[e];
        int64_t j = n;
        if (n < k) {
            n++;
        } else {
            if (!(p[id[k - 1]] < v)) continue;
            j = k - 1;
        }
        for (; j > 0 && p[id[j - 1]] < v; j--) id[j] = id[j - 1];
        id[j] = (int32_t)e;
    }
}

void SIMD_NAME(experts_route_bwd)(const float *p, const int32_t *id, const float *dw, int64_t k, int norm, float *dp) {
    float sum = 0, inner = 0;
    for (int64_t j = 0; norm && j < k; j++) {
        sum += p[id[j]];
        inner += dw[j] * p[id[j]];
    }
    inner = norm ? inner / sum : 0;
    for (int64_t j = 0; j < k; j++) dp[id[j]] += norm ? (dw[j] - inner) / sum : dw[j];
}

ALWAYS vf experts_get(const int type, const void *p, int64_t i, int64_t n) {
    if (type == GEMM_F32) return n >= SIMD_W ? vf_load((const float *)p + i) : vf_load_n((const float *)p + i, n);
    const uint16_t *h = (const uint16_t *)p + i;
    if (type == GEMM_BF16) return n >= SIMD_W ? vf_load_bf16(h) : vf_load_bf16_n(h, n);
    return n >= SIMD_W ? vf_load_f16(h) : vf_load_f16_n(h, n);
}

ALWAYS void experts_put(const int type, void *p, int64_t i, int64_t n, vf v) {
    n = n < SIMD_W ? n : SIMD_W;
    if (type == GEMM_F32)
        vf_store_n((float *)p + i, v, n);
    else if (type == GEMM_BF16)
        vf_store_bf16_n((uint16_t *)p + i, v, n);
    else
        vf_store_f16_n((uint16_t *)p + i, v, n);
}

ALWAYS void experts_add(experts_sum_job *j, const int type) {
    for (int64_t i = 0; i < j->d; i += SIMD_W) {
        const int64_t n = j->d - i;
        vf sum = vf_zero();
        for (int64_t k = 0; k < j->n; k++)
            if (j->x[k]) sum = vf_fma(vf_set(j->w[k]), experts_get(type, j->x[k], i, n), sum);
        if (j->add) sum = vf_add(experts_get(type, j->y, i, n), sum);
        experts_put(type, j->y, i, n, sum);
    }
}

void SIMD_NAME(experts_sum)(experts_sum_job *j) {
    if (j->type == GEMM_F32)
        experts_add(j, GEMM_F32);
    else if (j->type == GEMM_BF16)
        experts_add(j, GEMM_BF16);
    else
        experts_add(j, GEMM_F16);
}

ALWAYS void experts_back(experts_sum_job *j, const int type) {
    for (int64_t k = 0; k < j->n; k++) {
        vf dot = vf_zero();
        const vf w = vf_set(j->w[k]);
        for (int64_t i = 0; j->x[k] && i < j->d; i += SIMD_W) {
            const int64_t n = j->d - i;
            const vf g = experts_get(j->dy_type, j->dy, i, n);
            if (j->dx[k]) experts_put(type, j->dx[k], i, n, vf_mul(w, g));
            if (j->wants_dw) dot = vf_fma(g, experts_get(type, j->x[k], i, n), dot);
        }
        j->dw[k] = vf_sum(dot);
    }
}

void SIMD_NAME(experts_sum_bwd)(experts_sum_job *j) {
    if (j->type == GEMM_F32)
        experts_back(j, GEMM_F32);
    else if (j->type == GEMM_BF16)
        experts_back(j, GEMM_BF16);
    else
        experts_back(j, GEMM_F16);
}

/* The products of this instruction set, under the names of three rows. */
#define EXPERTS_LEAVES(name, gemm_leaf_name)                                                                           \
    void SIMD_NAME(name)(experts_leaves * out) {                                                                       \
        *out = (experts_leaves){.gemm = SIMD_NAME(gemm_leaf_name),                                                     \
                                .matvec = SIMD_NAME(matvec_linear),                                                    \
                                .dot = SIMD_NAME(quant_linear),                                                        \
                                .decode = SIMD_NAME(quant_tiled)};                                                     \
    }
EXPERTS_LEAVES(experts_linear, gemm_linear)
EXPERTS_LEAVES(experts_linear_dx, gemm_linear_dx)
EXPERTS_LEAVES(experts_linear_dw, gemm_linear_dw)

#if SIMD_W == 16
void experts_linear__avx512vnni(experts_leaves *out) {
    experts_linear__avx512(out);
    out->dot = quant_ints__avx512vnni;
    out->ints = true;
}
#endif
