/* The bodies of matvec_avx2.c and matvec_avx512.c. Four rows of the weight at a time, their products with up to four
 * rows of x in registers; the sums are the same whatever the tile, and for one row as for several. */
#include "cpu/product/matvec.h"
#include "cpu/simd.h"

#define ALWAYS static inline __attribute__((always_inline))
enum { WR = 4 /* weight rows */, AHEAD = 2048, FAR = 16384 /* bytes of prefetch */ };

/* How far ahead of its place in a row to fetch: as far as the same place in the next rows, since a distance that is not
 * a multiple of the block falls on a row that is being read already; but not past what L1 keeps until then. */
ALWAYS int64_t matvec_ahead(const matvec_job *j, const int size, const int rows) {
    const int64_t block = rows * j->w_row * size;
    return block >= AHEAD && block <= FAR ? block : AHEAD;
}

ALWAYS vf matvec_load(const int type, const void *p, int64_t i, int64_t n) {
    if (type == GEMM_F32) return n >= SIMD_W ? vf_load((const float *)p + i) : vf_load_n((const float *)p + i, n);
    const uint16_t *h = (const uint16_t *)p + i;
    if (type == GEMM_BF16) return n >= SIMD_W ? vf_load_bf16(h) : vf_load_bf16_n(h, n);
    return n >= SIMD_W ? vf_load_f16(h) : vf_load_f16_n(h, n);
}

static void matvec_store(const matvec_job *j, int64_t m, int64_t n, float v) {
    const int64_t at = m * j->y_row + n;
    if (j->bias) v += j->bias[n];
    if (j->y_type == GEMM_F32) {
        float *y = (float *)j->y + at;
        *y = j->add ? *y + v : v;
        return;
    }
    uint16_t *y = (uint16_t *)j->y + at;
    vf s = vf_set(v);
    if (j->y_type == GEMM_BF16) {
        if (j->add) s = vf_add(vf_load_bf16_n(y, 1), s);
        vf_store_bf16_n(y, s, 1);
    } else {
        if (j->add) s = vf_add(vf_load_f16_n(y, 1), s);
        vf_store_f16_n(y, s, 1);
    }
}

/* rows weight rows from n on, ms rows of x from m on; two chains of sums each where registers allow */
ALWAYS void matvec_block(const matvec_job *j, const int type, int64_t n, int64_t m, const int rows, const int ms) {
    const int size = type == GEMM_F32 ? 4 : 2;
    const char *w[WR];
    vf s[WR][4], t[WR][4];
    for (int r = 0; r < rows; r++) {
        w[r] = (const char *)j->w + (n + r) * j->w_row * size;
        for (int i = 0; i < ms; i++) s[r][i] = t[r][i] = vf_zero();
    }
    const int64_t ahead = matvec_ahead(j, size, rows);
    int64_t k = 0;
    for (; k + 2 * SIMD_W <= j->k; k += 2 * SIMD_W) {
        for (int r = 0; r < rows; r++) {
            _mm_prefetch(w[r] + k * size + ahead, _MM_HINT_T0);
            if (size == 4 && SIMD_W == 16) _mm_prefetch(w[r] + k * size + ahead + 64, _MM_HINT_T0);
            const vf a = matvec_load(type, w[r], k, SIMD_W), b = matvec_load(type, w[r], k + SIMD_W, SIMD_W);
            for (int i = 0; i < ms; i++) {
                const float *x = j->x32 + (m + i) * j->k_pad + k;
                s[r][i] = vf_fma(a, vf_load(x), s[r][i]);
                t[r][i] = vf_fma(b, vf_load(x + SIMD_W), t[r][i]);
            }
        }
    }
    for (; k < j->k; k += SIMD_W)
        for (int r = 0; r < rows; r++) {
            const vf a = matvec_load(type, w[r], k, j->k - k);
            for (int i = 0; i < ms; i++) s[r][i] = vf_fma(a, vf_load(j->x32 + (m + i) * j->k_pad + k), s[r][i]);
        }
    for (int r = 0; r < rows; r++)
        for (int i = 0; i < ms; i++) matvec_store(j, m + i, n + r, vf_sum(vf_add(s[r][i], t[r][i])));
}

ALWAYS void matvec_type(const matvec_job *j, const int type) {
    int64_t n = j->n0;
    for (; n + WR <= j->n1; n += WR) {
        int64_t m = 0;
        for (; m + 4 <= j->m; m += 4) {
            matvec_block(j, type, n, m, 2, 4);
            matvec_block(j, type, n + 2, m, 2, 4);
        }
        for (; m + 2 <= j->m; m += 2) matvec_block(j, type, n, m, WR, 2);
        if (m < j->m) matvec_block(j, type, n, m, WR, 1);
    }
    for (; n < j->n1; n++)
        for (int64_t m = 0; m < j->m; m++) matvec_block(j, type, n, m, 1, 1);
}

void SIMD_NAME(matvec_linear)(const matvec_job *j) {
    for (int64_t m = 0; m < j->m; m++)
        for (int64_t k = 0; k < j->k_pad; k += SIMD_W) {
            const char *x = (const char *)j->x + m * j->x_row * (j->x_type == GEMM_F32 ? 4 : 2);
            vf_store_n(j->x32 + m * j->k_pad + k, matvec_load(j->x_type, x, k, j->k - k), j->k_pad - k);
        }
    if (j->w_type == GEMM_F32)
        matvec_type(j, GEMM_F32);
    else if (j->w_type == GEMM_BF16)
        matvec_type(j, GEMM_BF16);
    else
        matvec_type(j, GEMM_F16);
}
