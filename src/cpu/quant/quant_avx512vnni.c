/* Products of blocks with blocks: 64 weights as unsigned bytes times 64 signed ones at a time, sums of 4 in a lane. A
 * chunk is 256 numbers: 8 scales of x, four steps. */
#include "cpu/quant/quant_levels.h"

/* ---- products
 * --------------------------------------------------------------------------------------------------------- */

/* Row n of w with M rows of x from m on. */
INLINE void dot(int type, const quant_job *j, int64_t n, int64_t n0, int64_t m, int M) {
    const int64_t k = j->k;
    const quant_ints *x = j->ints;
    const uint8_t *b = j->w + (size_t)n * j->w_bytes;
    __m512 sum[4];
    __m256 off[4];
    UNROLL for (int i = 0; i < M; i++) sum[i] = _mm512_setzero_ps(), off[i] = _mm256_setzero_ps();
    for (int64_t c = 0; c < k / 256; c++, b += levels_bytes(type)) {
        __m256 s, min;
        _Alignas(32) float sx[4][8];
        if (type == QUANT_Q8_0) s = half_scales(b, 34);
        if (type == QUANT_Q4_0) s = half_scales(b, 18);
        if (type == QUANT_Q4_K) scales_q4_k(b, &s, &min);
        if (type == QUANT_Q6_K) s = _mm256_set1_ps(f16(b + 208));
        UNROLL for (int i = 0; i < M; i++) {
            const int64_t g = (m + i) * (k / 32) + 8 * c;
            _mm256_store_ps(sx[i], _mm256_mul_ps(s, _mm256_loadu_ps(x->scale + g)));
            if (type == QUANT_Q4_K) off[i] = _mm256_fmadd_ps(min, _mm256_loadu_ps(x->sum + g), off[i]);
        }
        UNROLL for (int p = 0; p < 4; p++) {
            const __m512i u = levels_of(type, b, p);
            UNROLL for (int i = 0; i < M; i++) {
                const int64_t at = (m + i) * k + 256 * c + 64 * p;
                const __m512i from =
                    type == QUANT_Q4_K ? _mm512_setzero_si512() : _mm512_loadu_si512(x->shift + at / 4);
                const __m512i d = _mm512_dpbusd_epi32(from, u, _mm512_loadu_si512(x->q + at));
                __m512 scale = pair_scales(sx[i] + 2 * p);
                if (type == QUANT_Q6_K) scale = _mm512_mul_ps(scale, sixteenth_scales(b, p));
                sum[i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d), scale, sum[i]);
            }
        }
    }
    UNROLL for (int i = 0; i < M; i++) {
        float y = _mm512_reduce_add_ps(sum[i]);
        if (type == QUANT_Q4_K) y -= _mm512_reduce_add_ps(_mm512_zextps256_ps512(off[i]));
        j->out[(m + i) * j->out_row + n - n0] = y;
    }
}

INLINE void dots(int type, const quant_job *j, int64_t n0, int64_t n1) {
    int64_t m = 0;
    for (; m + 4 <= j->m; m += 4)
        for (int64_t n = n0; n < n1; n++) dot(type, j, n, n0, m, 4);
    for (; m < j->m; m++)
        for (int64_t n = n0; n < n1; n++) dot(type, j, n, n0, m, 1);
}

/* ---- x
 * ------------------------------------------------------------------------------------------------------------------ */

static void ints_of(const quant_job *j, int64_t m) {
    const quant_ints *o = j->ints;
    const __m512i minus = _mm512_set1_epi32(-levels_high(j->type));
    for (int64_t c = 0; c < j->k / 256; c++) {
        int32_t fours[64];
        const __m256 scale = levels_round(j->x + m * j->x_row + 256 * c, o->q + m * j->k + 256 * c, fours);
        const int64_t at = m * (j->k / 32) + 8 * c;
        _mm256_storeu_ps(o->scale + at, scale);
        if (j->type == QUANT_Q4_K)
            _mm256_storeu_ps(o->sum + at, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums_of_32(fours))));
        else
            UNROLL for (int i = 0; i < 4; i++)
                _mm512_storeu_si512(o->shift + m * (j->k / 4) + 64 * c + 16 * i,
                                    _mm512_mullo_epi32(_mm512_loadu_si512(fours + 16 * i), minus));
    }
}

void quant_ints__avx512vnni(int what, const quant_job *j, int64_t n0, int64_t n1) {
    if (what == QUANT_INTS) {
        for (int64_t m = n0; m < n1; m++) ints_of(j, m);
        return;
    }
    switch (j->type) {
    case QUANT_Q8_0: dots(QUANT_Q8_0, j, n0, n1); return;
    case QUANT_Q4_0: dots(QUANT_Q4_0, j, n0, n1); return;
    case QUANT_Q4_K: dots(QUANT_Q4_K, j, n0, n1); return;
    default: dots(QUANT_Q6_K, j, n0, n1); return;
    }
}
