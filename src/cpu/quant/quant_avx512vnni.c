/* Products of blocks with blocks: 64 weights as unsigned bytes times 64 signed ones at a time, sums of 4 in a lane. A
 * chunk is 256 numbers: 8 scales of x, four steps. */
#include "cpu/quant/quant.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

INLINE float f16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

INLINE int half_bits(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

/* Shuffles across lanes share one port of the processor, loads have two of their own: where bytes have to be spread,
 * loads do it. */

/* Lanes 0-7 take s[0], lanes 8-15 s[1]: the scales of the two groups of a step. */
INLINE __m512 pair_scales(const float *s) {
    return _mm512_mask_broadcastss_ps(_mm512_set1_ps(s[0]), 0xff00, _mm_load_ss(s + 1));
}

/* [x, x >> 4, y, y >> 4] of 16 bytes each, and of 32 bytes [x, x >> 4], 4 bits of every byte. */
INLINE __m512i nibbles16(const uint8_t *x, const uint8_t *y) {
    const __m512i xx = _mm512_broadcast_i32x4(_mm_loadu_si128((const void *)x));
    const __m512i v = _mm512_mask_broadcast_i32x4(xx, 0xff00, _mm_loadu_si128((const void *)y));
    const __m512i by = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
    return _mm512_and_si512(_mm512_srlv_epi64(v, by), _mm512_set1_epi8(15));
}
INLINE __m512i nibbles32(const uint8_t *x) {
    const __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)x));
    const __m512i by = _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4);
    return _mm512_and_si512(_mm512_srlv_epi64(v, by), _mm512_set1_epi8(15));
}

/* ---- chunks of the four types: unsigned levels of step p, and scales of the 8 groups ------------------------------
 */

/* 8 half floats, `stride` bytes apart. */
INLINE __m256 half_scales(const uint8_t *b, int stride) {
    __m128i h = _mm_cvtsi32_si128(half_bits(b));
    h = _mm_insert_epi16(h, half_bits(b + stride), 1);
    h = _mm_insert_epi16(h, half_bits(b + 2 * stride), 2);
    h = _mm_insert_epi16(h, half_bits(b + 3 * stride), 3);
    h = _mm_insert_epi16(h, half_bits(b + 4 * stride), 4);
    h = _mm_insert_epi16(h, half_bits(b + 5 * stride), 5);
    h = _mm_insert_epi16(h, half_bits(b + 6 * stride), 6);
    h = _mm_insert_epi16(h, half_bits(b + 7 * stride), 7);
    return _mm256_cvtph_ps(h);
}

INLINE __m512i levels_q8_0(const uint8_t *b, int p) { /* 128 too high */
    const __m512i low = _mm512_castsi256_si512(_mm256_loadu_si256((const void *)(b + 68 * p + 2)));
    const __m512i both = _mm512_mask_loadu_epi32(low, 0xff00, b + 68 * p + 36 - 32); /* reads the upper 32 alone */
    return _mm512_xor_si512(both, _mm512_set1_epi8(-128));
}

INLINE __m512i levels_q4_0(const uint8_t *b, int p) { /* 8 too high */
    return nibbles16(b + 36 * p + 2, b + 36 * p + 20);
}

INLINE __m512i levels_q4_k(const uint8_t *b, int p) {
    return nibbles32(b + 16 + 32 * p);
}

INLINE __m512i levels_q6_k(const uint8_t *b, int p) { /* 32 too high */
    __m512i low = _mm512_loadu_si512(b + p / 2 * 64);
    if (p % 2) low = _mm512_srli_epi16(low, 4);
    const __m512i h = _mm512_broadcast_i64x4(_mm256_loadu_si256((const void *)(b + 128 + p / 2 * 32)));
    const __m512i by =
        _mm512_inserti64x4(_mm512_set1_epi16((short)(p % 2 * 4)), _mm256_set1_epi16((short)(p % 2 * 4 + 2)), 1);
    const __m512i high = _mm512_slli_epi16(_mm512_and_si512(_mm512_srlv_epi16(h, by), _mm512_set1_epi8(3)), 4);
    return _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), high);
}

/* The 8 scales and 8 minima of 6 bits as bytes. */
INLINE void scales_q4_k(const uint8_t *b, __m256 *scale, __m256 *min) {
    uint32_t a, c, d;
    memcpy(&a, b + 4, 4);
    memcpy(&c, b + 8, 4);
    memcpy(&d, b + 12, 4);
    const uint64_t s = (uint64_t)(a & 0x3f3f3f3f) | (uint64_t)((d & 0x0f0f0f0f) | (a >> 2 & 0x30303030)) << 32;
    const uint64_t m = (uint64_t)(c & 0x3f3f3f3f) | (uint64_t)((d >> 4 & 0x0f0f0f0f) | (c >> 2 & 0x30303030)) << 32;
    *scale =
        _mm256_mul_ps(_mm256_set1_ps(f16(b)), _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)s))));
    *min = _mm256_mul_ps(_mm256_set1_ps(f16(b + 2)),
                         _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)m))));
}

/* A scale for each 16: lanes 0-3, 4-7 ... of step p. */
INLINE __m512 sixteenth_scales(const uint8_t *b, int p) {
    int32_t four;
    memcpy(&four, b + 192 + 4 * p, 4);
    const __m512 s = _mm512_castps128_ps512(_mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(four))));
    return _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3), s);
}

/* ---- products
 * --------------------------------------------------------------------------------------------------------- */

/* Row n of w with M rows of x from m on. */
INLINE void dot(int type, const quant_job *j, int64_t n, int64_t n0, int64_t m, int M) {
    static const int bytes[] = {[QUANT_Q8_0] = 8 * 34, [QUANT_Q4_0] = 8 * 18, [QUANT_Q4_K] = 144, [QUANT_Q6_K] = 210};
    const int64_t k = j->k;
    const quant_ints *x = j->ints;
    const uint8_t *b = j->w + (size_t)n * j->w_bytes;
    __m512 sum[4];
    __m256 off[4];
    UNROLL for (int i = 0; i < M; i++) sum[i] = _mm512_setzero_ps(), off[i] = _mm256_setzero_ps();
    for (int64_t c = 0; c < k / 256; c++, b += bytes[type]) {
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
            const __m512i u = type == QUANT_Q8_0   ? levels_q8_0(b, p)
                              : type == QUANT_Q4_0 ? levels_q4_0(b, p)
                              : type == QUANT_Q4_K ? levels_q4_k(b, p)
                                                   : levels_q6_k(b, p);
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
    static const int too_high[] = {[QUANT_Q8_0] = 128, [QUANT_Q4_0] = 8, [QUANT_Q4_K] = 0, [QUANT_Q6_K] = 32};
    const float *x = j->x + m * j->x_row;
    const quant_ints *o = j->ints;
    const __m512i minus = _mm512_set1_epi32(-too_high[j->type]);
    for (int64_t g = 0; g < j->k / 32; g++) {
        const __m512 a = _mm512_loadu_ps(x + 32 * g), b = _mm512_loadu_ps(x + 32 * g + 16);
        const float most = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b)));
        const float d = most / 127, inverse = d > 1e-37f ? 1 / d : 0;
        const __m128i p = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(a, _mm512_set1_ps(inverse))));
        const __m128i q = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_mul_ps(b, _mm512_set1_ps(inverse))));
        const __m256i both = _mm256_set_m128i(q, p);
        _mm256_storeu_si256((void *)(o->q + m * j->k + 32 * g), both);
        /* sums of 4: ones are the unsigned side */
        const __m256i fours = _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), both);
        _mm256_storeu_si256((void *)(o->shift + m * (j->k / 4) + 8 * g),
                            _mm256_mullo_epi32(fours, _mm512_castsi512_si256(minus)));
        const int64_t at = m * (j->k / 32) + g;
        o->scale[at] = most <= 3e38f ? d : most; /* infinities and NaN go on */
        o->sum[at] = o->scale[at] * (float)_mm512_reduce_add_epi32(_mm512_zextsi256_si512(fours));
        if (!(most <= 3e38f) || _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q) || _mm512_cmp_ps_mask(b, b, _CMP_UNORD_Q))
            o->scale[at] = o->sum[at] = __builtin_nanf("");
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
