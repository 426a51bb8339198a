/* The body of quant_avx2.c and quant_avx512.c. A group is 32 neighbours of a row: QUANT_NV vectors. */
#include "cpu/quant/quant.h"
#include "cpu/simd.h"

#define QUANT_INLINE static inline __attribute__((always_inline))
#define QUANT_UNROLL _Pragma("GCC unroll 16")
enum { QUANT_NV = 32 / SIMD_W };

QUANT_INLINE float quant_f16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

/* SIMD_W bytes as integers, without and with sign. */
QUANT_INLINE vi quant_bytes(const uint8_t *p) {
#if SIMD_W == 16
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
#endif
}
QUANT_INLINE vi quant_signed(const uint8_t *p) {
#if SIMD_W == 16
    return _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p));
#else
    return _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)p));
#endif
}
QUANT_INLINE vi quant_right(vi v, int bits) {
#if SIMD_W == 16
    return _mm512_srl_epi32(v, _mm_cvtsi32_si128(bits));
#else
    return _mm256_srl_epi32(v, _mm_cvtsi32_si128(bits));
#endif
}
QUANT_INLINE vi quant_left4(vi v) {
#if SIMD_W == 16
    return _mm512_slli_epi32(v, 4);
#else
    return _mm256_slli_epi32(v, 4);
#endif
}

/* ---- one group of a row as floats ------------------------------------------------------------------------- */

typedef void quant_decode_fn(const uint8_t *row, int64_t g, vf w[QUANT_NV]);

QUANT_INLINE void quant_q8_0(const uint8_t *row, int64_t g, vf w[QUANT_NV]) {
    const uint8_t *b = row + 34 * g;
    const vf d = vf_set(quant_f16(b));
    QUANT_UNROLL for (int v = 0; v < QUANT_NV; v++) w[v] = vf_mul(d, vi_float(quant_signed(b + 2 + v * SIMD_W)));
}

QUANT_INLINE void quant_q4_0(const uint8_t *row, int64_t g, vf w[QUANT_NV]) {
    const uint8_t *b = row + 18 * g;
    const vf d = vf_set(quant_f16(b));
    QUANT_UNROLL for (int v = 0; v < QUANT_NV / 2; v++) {
        const vi byte = quant_bytes(b + 2 + v * SIMD_W);
#if SIMD_W == 16 /* a table's index counts by its low 4 bits alone */
        const vf level = _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7);
        w[v] = vf_mul(d, _mm512_permutexvar_ps(byte, level));
        w[v + QUANT_NV / 2] = vf_mul(d, _mm512_permutexvar_ps(_mm512_srli_epi32(byte, 4), level));
#else
        const vi low = vi_and(byte, vi_set(15)), high = quant_right(byte, 4);
        w[v] = vf_mul(d, vi_float(vi_sub(low, vi_set(8))));
        w[v + QUANT_NV / 2] = vf_mul(d, vi_float(vi_sub(high, vi_set(8))));
#endif
    }
}

QUANT_INLINE void quant_q4_k(const uint8_t *row, int64_t g, vf w[QUANT_NV]) {
    const uint8_t *b = row + 144 * (g / 8), *s = b + 4;
    const int j = (int)(g % 8);
    const int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    const int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | (s[j] >> 6) << 4;
    const vf step = vf_set(quant_f16(b) * (float)scale), off = vf_set(quant_f16(b + 2) * (float)min);
    QUANT_UNROLL for (int v = 0; v < QUANT_NV; v++) {
        const vi byte = quant_right(quant_bytes(b + 16 + j / 2 * 32 + v * SIMD_W), j % 2 * 4);
        w[v] = vf_fms(step, vi_float(vi_and(byte, vi_set(15))), off);
    }
}

QUANT_INLINE void quant_q6_k(const uint8_t *row, int64_t g, vf w[QUANT_NV]) {
    const uint8_t *b = row + 210 * (g / 8);
    const int j = (int)(g % 8), half = j / 4, run = j % 4;
    const float d = quant_f16(b + 208);
    QUANT_UNROLL for (int v = 0; v < QUANT_NV; v++) {
        const vi low = quant_right(quant_bytes(b + half * 64 + run % 2 * 32 + v * SIMD_W), run < 2 ? 0 : 4);
        const vi high = quant_right(quant_bytes(b + 128 + half * 32 + v * SIMD_W), 2 * run);
        const vi q = vi_or(vi_and(low, vi_set(15)), quant_left4(vi_and(high, vi_set(3))));
        const float scale = d * (float)(int8_t)b[192 + 2 * j + v * SIMD_W / 16];
        w[v] = vf_mul(vf_set(scale), vi_float(vi_sub(q, vi_set(32))));
    }
}

/* ---- products ------------------------------------------------------------------------------------------------- */

/* R rows of w from n on, M rows of x from m on. Two running sums each, added at the end: the same for every way of
 * cutting the work. */
QUANT_INLINE void quant_dot(quant_decode_fn *decode, const quant_job *j, int64_t n, int64_t n0, int64_t m, int R,
                            int M) {
    vf sum[2][4][2];
    QUANT_UNROLL for (int r = 0; r < R; r++) {
        QUANT_UNROLL for (int i = 0; i < M; i++) sum[r][i][0] = sum[r][i][1] = vf_zero();
    }
    const uint8_t *row[2] = {j->w + (size_t)n * j->w_bytes, j->w + (size_t)(n + R - 1) * j->w_bytes};
    const float *x = j->x + m * j->x_row;
    for (int64_t g = 0; g < j->k / 32; g++) {
        QUANT_UNROLL for (int r = 0; r < R; r++) {
            vf w[QUANT_NV];
            decode(row[r], g, w);
            QUANT_UNROLL for (int i = 0; i < M; i++) {
                QUANT_UNROLL for (int v = 0; v < QUANT_NV; v++) {
                    const vf y = vf_load(x + i * j->x_row + 32 * g + v * SIMD_W);
                    sum[r][i][v & 1] = vf_fma(w[v], y, sum[r][i][v & 1]);
                }
            }
        }
    }
    QUANT_UNROLL for (int r = 0; r < R; r++) {
        QUANT_UNROLL for (int i = 0; i < M; i++) j->out[(m + i) * j->out_row + n + r - n0] =
            vf_sum(vf_add(sum[r][i][0], sum[r][i][1]));
    }
}

QUANT_INLINE void quant_all(quant_decode_fn *decode, int what, const quant_job *j, int64_t n0, int64_t n1) {
    if (what == QUANT_DECODE) {
        for (int64_t n = n0; n < n1; n++)
            for (int64_t g = 0; g < j->k / 32; g++) {
                vf w[QUANT_NV];
                decode(j->w + (size_t)n * j->w_bytes, g, w);
                QUANT_UNROLL for (int v = 0; v < QUANT_NV; v++)
                    vf_store(j->out + (n - n0) * j->k + 32 * g + v * SIMD_W, w[v]);
            }
        return;
    }
    int64_t m = 0;
    for (; m + 4 <= j->m; m += 4)
        for (int64_t n = n0; n < n1; n++) quant_dot(decode, j, n, n0, m, 1, 4);
    for (; m < j->m; m++) {
        int64_t n = n0;
        for (; n + 2 <= n1; n += 2) quant_dot(decode, j, n, n0, m, 2, 1);
        for (; n < n1; n++) quant_dot(decode, j, n, n0, m, 1, 1);
    }
}

void SIMD_NAME(quant_linear)(int what, const quant_job *j, int64_t n0, int64_t n1) {
    switch (j->type) {
    case QUANT_Q8_0: quant_all(quant_q8_0, what, j, n0, n1); return;
    case QUANT_Q4_0: quant_all(quant_q4_0, what, j, n0, n1); return;
    case QUANT_Q4_K: quant_all(quant_q4_k, what, j, n0, n1); return;
    default: quant_all(quant_q6_k, what, j, n0, n1); return;
    }
}

/* Other names for other rows of kernels.def. */
void SIMD_NAME(quant_tiled)(int what, const quant_job *j, int64_t n0, int64_t n1) {
    SIMD_NAME(quant_linear)(what, j, n0, n1);
}
void SIMD_NAME(quant_dx)(int what, const quant_job *j, int64_t n0, int64_t n1) {
    SIMD_NAME(quant_linear)(what, j, n0, n1);
}
void SIMD_NAME(quant_embedding)(int what, const quant_job *j, int64_t n0, int64_t n1) {
    SIMD_NAME(quant_linear)(what, j, n0, n1);
}
