/* For the leaf files with VNNI: blocks as unsigned levels, 64 at a time, and their scales; x as blocks of whole
 * numbers. */
#ifndef CPU_QUANT_QUANT_LEVELS_BODY_H
#define CPU_QUANT_QUANT_LEVELS_BODY_H

#include "cpu/quant/quant.h"

#include "cpu/simd.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

INLINE float f16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(h)));
}

/* Shuffles across lanes share one port of the processor, loads have two of their own: where bytes have to be spread,
 * loads do it. */

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

INLINE int half_bits(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

/* The half floats that 8 blocks of Q8_0 begin with. */
INLINE __m256 scales_q8_0(const uint8_t *b) {
    __m128i h = _mm_cvtsi32_si128(half_bits(b));
    h = _mm_insert_epi16(h, half_bits(b + 34), 1);
    h = _mm_insert_epi16(h, half_bits(b + 68), 2);
    h = _mm_insert_epi16(h, half_bits(b + 102), 3);
    h = _mm_insert_epi16(h, half_bits(b + 136), 4);
    h = _mm_insert_epi16(h, half_bits(b + 170), 5);
    h = _mm_insert_epi16(h, half_bits(b + 204), 6);
    h = _mm_insert_epi16(h, half_bits(b + 238), 7);
    return _mm256_cvtph_ps(h);
}

/* Those of Q4_0: all within two vectors. */
INLINE __m256 scales_q4_0(const uint8_t *b) {
    const __m512i at = _mm512_castsi256_si512(_mm256_setr_epi32(0, 4, 9, 13, 18, 22, 27, 31)); /* bytes 0, 18, 36 .. */
    const __m512i v = _mm512_permutex2var_epi32(_mm512_loadu_si512(b), at, _mm512_loadu_si512(b + 64));
    const __m256i odd = _mm256_setr_epi32(0, 16, 0, 16, 0, 16, 0, 16);
    return _mm256_cvtph_ps(_mm256_cvtepi32_epi16(_mm256_srlv_epi32(_mm512_castsi512_si256(v), odd)));
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

INLINE __m512i levels_of(int type, const uint8_t *b, int p) {
    return type == QUANT_Q8_0   ? levels_q8_0(b, p)
           : type == QUANT_Q4_0 ? levels_q4_0(b, p)
           : type == QUANT_Q4_K ? levels_q4_k(b, p)
                                : levels_q6_k(b, p);
}

/* Bytes of 256 weights, and how much too high their levels are. */
INLINE int levels_bytes(int type) {
    return type == QUANT_Q8_0 ? 8 * 34 : type == QUANT_Q4_0 ? 8 * 18 : type == QUANT_Q4_K ? 144 : 210;
}
INLINE int levels_high(int type) {
    return type == QUANT_Q8_0 ? 128 : type == QUANT_Q4_0 ? 8 : type == QUANT_Q4_K ? 0 : 32;
}

/* Of each of 8 vectors the largest number, the vectors' order kept. */
INLINE __m256 most_of(const __m512 v[8]) {
    __m512 t[4], u[2];
    UNROLL for (int i = 0; i < 4; i++) t[i] =
        _mm512_max_ps(_mm512_shuffle_f32x4(v[i], v[i + 4], 0x88), _mm512_shuffle_f32x4(v[i], v[i + 4], 0xdd));
    UNROLL for (int i = 0; i < 2; i++) /* 128 bits each: v[i] twice, v[i + 4] twice; here v[i], v[i + 2] by pairs */
        u[i] = _mm512_max_ps(_mm512_unpacklo_ps(t[i], t[i + 2]), _mm512_unpackhi_ps(t[i], t[i + 2]));
    const __m512 w = _mm512_max_ps(_mm512_unpacklo_ps(u[0], u[1]), _mm512_unpackhi_ps(u[0], u[1]));
    /* v0 v1 v2 v3 of a quarter of the lanes, the same again of another, then v4 .. v7 twice */
    const __m512 both = _mm512_max_ps(w, _mm512_shuffle_f32x4(w, w, 0xb1));
    return _mm512_castps512_ps256(_mm512_shuffle_f32x4(both, both, 0x08));
}

/* 256 numbers as int8, 32 to a scale; fours: the sums of 4 in order. Infinities and NaN go on as NaN of the scale. */
INLINE __m256 levels_round(const float *x, int8_t *q, int32_t fours[64]) {
    __m512 v[8];
    __mmask8 odd = 0;
    UNROLL for (int g = 0; g < 8; g++) {
        const __m512 a = _mm512_loadu_ps(x + 32 * g), b = _mm512_loadu_ps(x + 32 * g + 16);
        v[g] = _mm512_max_ps(_mm512_abs_ps(a), _mm512_abs_ps(b));
        if (_mm512_cmp_ps_mask(a, b, _CMP_UNORD_Q)) odd |= (__mmask8)(1 << g);
    }
    const __m256 most = most_of(v), d = _mm256_div_ps(most, _mm256_set1_ps(127));
    const __mmask8 some = _mm256_cmp_ps_mask(d, _mm256_set1_ps(1e-37f), _CMP_GT_OQ);
    _Alignas(32) float inverse[8];
    _mm256_store_ps(inverse, _mm256_maskz_div_ps(some, _mm256_set1_ps(1), d));
    UNROLL for (int g = 0; g < 8; g++) {
        const __m512 by = _mm512_set1_ps(inverse[g]);
        const __m512i a = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 32 * g), by));
        const __m512i b = _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x + 32 * g + 16), by));
        const __m256i both = _mm256_set_m128i(_mm512_cvtepi32_epi8(b), _mm512_cvtepi32_epi8(a));
        _mm256_storeu_si256((void *)(q + 32 * g), both);
        const __m256i sums =
            _mm256_dpbusd_epi32(_mm256_setzero_si256(), _mm256_set1_epi8(1), both); /* ones: unsigned */
        _mm256_storeu_si256((void *)(fours + 8 * g), sums);
    }
    odd |= _mm256_cmp_ps_mask(most, _mm256_set1_ps(3e38f), _CMP_NLE_UQ);
    return _mm256_mask_blend_ps(odd, d, _mm256_set1_ps(__builtin_nanf("")));
}

/* Chunk c of a row of k numbers; the last one may have to be filled up with zeros, in `room`. */
INLINE const float *levels_x(const float *x, int64_t k, int64_t c, float room[QUANT_CHUNK]) {
    const int64_t left = k - QUANT_CHUNK * c;
    if (left >= QUANT_CHUNK) return x + QUANT_CHUNK * c;
    memset(room, 0, QUANT_CHUNK * sizeof *room);
    return memcpy(room, x + QUANT_CHUNK * c, (size_t)left * sizeof *x);
}

/* The same of a weight, which b points at: its last blocks and others of zeros. */
enum { LEVELS_BYTES = 272 };
INLINE const uint8_t *levels_rest(int type, const uint8_t *b, int64_t k, uint8_t room[LEVELS_BYTES]) {
    memset(room, 0, LEVELS_BYTES);
    return memcpy(room, b, (size_t)(k % QUANT_CHUNK / 32 * (levels_bytes(type) / 8)));
}

/* Of 64 sums of 4 those of 32. */
INLINE __m256i sums_of_32(const int32_t fours[64]) {
    __m256i t[4];
    UNROLL for (int i = 0; i < 4; i++) t[i] = _mm256_hadd_epi32(_mm256_loadu_si256((const void *)(fours + 16 * i)),
                                                                _mm256_loadu_si256((const void *)(fours + 16 * i + 8)));
    const __m256i a = _mm256_hadd_epi32(t[0], t[1]), b = _mm256_hadd_epi32(t[2], t[3]);
    return _mm256_add_epi32(_mm256_permute2x128_si256(a, b, 0x20), _mm256_permute2x128_si256(a, b, 0x31));
}

#endif
