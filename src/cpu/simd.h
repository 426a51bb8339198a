/* cpu/simd.h: the vector vocabulary of leaf files. Everything is static inline and chosen by the flags of the file
 * that includes it, so one body compiles for AVX2 (8 lanes) and for AVX-512 (16); files without such flags must not
 * include it. vf: SIMD_W floats; vi: as many int32; vm: a mask of lanes. Loads and stores are unaligned; those ending
 * in _n touch only the first n lanes (0 <= n; n >= SIMD_W means all) and load zeros elsewhere.
 *
 * Error bounds, against the correctly rounded value, checked over every exponent by test_functions of t_row.c:
 *   vf_exp 2 ulp (results below 2^-126 to 1 unit of 2^-149; 0 at -inf, inf at inf and above ln of the largest float)
 *   vf_tanh 3 ulp, vf_erf 3 ulp, vf_sigmoid 3 ulp (down to 2^-126; it ends at 0 below -88.7)
 * NaN in gives NaN out everywhere. Sums across lanes use one fixed tree. */
#ifndef CPU_SIMD_H
#define CPU_SIMD_H

#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#define SIMD_W            16
#define SIMD_NAME(name)   SIMD_NAME_(name, __avx512)
#define SIMD_NAME_(n, i)  SIMD_NAME__(n, i)
#define SIMD_NAME__(n, i) n##i
typedef __m512 vf;
typedef __m512i vi;
typedef __mmask16 vm;
#elif defined(__AVX2__)
#define SIMD_W            8
#define SIMD_NAME(name)   SIMD_NAME_(name, __avx2)
#define SIMD_NAME_(n, i)  SIMD_NAME__(n, i)
#define SIMD_NAME__(n, i) n##i
typedef __m256 vf;
typedef __m256i vi;
typedef __m256i vm;
#else
#error "cpu/simd.h is for leaf files (_avx2.c, _avx512.c, _avx512bf16.c)"
#endif

#if defined(__AVX512F__)

/* ---- lanes, masks ------------------------------------------------------------------------------ */

static inline vm vm_first(int64_t n) {
    const unsigned first = n >= 16 ? 0xffffu : (1u << (n < 0 ? 0 : n)) - 1u;
    return (vm)first;
}
static inline vm vm_and(vm a, vm b) {
    return (vm)(a & b);
}
static inline vm vm_or(vm a, vm b) {
    return (vm)(a | b);
}
static inline vm vm_not(vm a) {
    return (vm)~a;
}
static inline int vm_any(vm a) {
    return a != 0;
}
static inline int vm_all(vm a) {
    return a == 0xffff;
}

/* ---- floats ------------------------------------------------------------------------------------ */

static inline vf vf_zero(void) {
    return _mm512_setzero_ps();
}
static inline vf vf_set(float x) {
    return _mm512_set1_ps(x);
}
static inline vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v) {
    _mm512_storeu_ps(p, v);
}
static inline vf vf_load_n(const float *p, int64_t n) {
    return _mm512_maskz_loadu_ps(vm_first(n), p);
}
static inline void vf_store_n(float *p, vf v, int64_t n) {
    _mm512_mask_storeu_ps(p, vm_first(n), v);
}
/* Past the caches: p aligned to the vector. Follow with vf_fence(). */
static inline void vf_stream(float *p, vf v) {
    _mm512_stream_ps(p, v);
}

static inline vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
static inline vf vf_sqrt(vf a) {
    return _mm512_sqrt_ps(a);
}
/* a b + c;  c - a b */
static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c) {
    return _mm512_fnmadd_ps(a, b, c);
}
static inline vf vf_fms(vf a, vf b, vf c) {
    return _mm512_fmsub_ps(a, b, c);
} /* a b - c */
/* If either is NaN the second operand is the result. */
static inline vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
static inline vf vf_abs(vf a) {
    return _mm512_abs_ps(a);
}
static inline vf vf_neg(vf a) {
    return _mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(a), _mm512_set1_epi32((int)0x80000000u)));
}
/* magnitude of a, sign of b */
static inline vf vf_copysign(vf a, vf b) {
    const __m512i s = _mm512_set1_epi32((int)0x80000000u);
    return _mm512_castsi512_ps(_mm512_ternarylogic_epi32(s, _mm512_castps_si512(b), _mm512_castps_si512(a), 0xca));
}
static inline vf vf_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

/* Ordered comparisons: false where an operand is NaN; vf_isnan is the exception. */
static inline vm vf_lt(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline vm vf_le(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}
static inline vm vf_gt(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ);
}
static inline vm vf_ge(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ);
}
static inline vm vf_eq(vf a, vf b) {
    return _mm512_cmp_ps_mask(a, b, _CMP_EQ_OQ);
}
static inline vm vf_isnan(vf a) {
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
/* lane of yes where m is set, of no elsewhere */
static inline vf vf_select(vm m, vf yes, vf no) {
    return _mm512_mask_blend_ps(m, no, yes);
}
/* v where m is set, 0 elsewhere */
/* p[i] in the lanes of m, 0 elsewhere, where nothing is read */
static inline vf vf_gather(const float *p, vi i, vm m) {
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), m, i, p, 4);
}
static inline vf vf_keep(vm m, vf v) {
    return _mm512_maskz_mov_ps(m, v);
}
/* 1/a to 1 ulp, for numbers whose reciprocals are normal; a division takes four times as long */
static inline vf vf_recip(vf a) {
    const vf r = _mm512_rcp14_ps(a);
    return _mm512_fmadd_ps(_mm512_fnmadd_ps(a, r, _mm512_set1_ps(1.0f)), r, r);
}

static inline float vf_sum(vf v) {
    __m256 a = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float vf_hmax(vf v) {
    __m256 a = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

/* ---- int32 ------------------------------------------------------------------------------------- */

static inline vi vi_set(int32_t x) {
    return _mm512_set1_epi32(x);
}
static inline vi vi_iota(void) {
    return _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
static inline vi vi_load(const void *p) {
    return _mm512_loadu_si512(p);
}
static inline vi vi_load_n(const int32_t *p, int64_t n) {
    return _mm512_maskz_loadu_epi32(vm_first(n), p);
}
static inline void vi_store(void *p, vi v) {
    _mm512_storeu_si512(p, v);
}
static inline vi vi_add(vi a, vi b) {
    return _mm512_add_epi32(a, b);
}
static inline vi vi_sub(vi a, vi b) {
    return _mm512_sub_epi32(a, b);
}
static inline vi vi_and(vi a, vi b) {
    return _mm512_and_si512(a, b);
}
static inline vi vi_or(vi a, vi b) {
    return _mm512_or_si512(a, b);
}
static inline vi vi_xor(vi a, vi b) {
    return _mm512_xor_si512(a, b);
}
#define vi_shl(a, n) _mm512_slli_epi32((a), (n))
#define vi_shr(a, n) _mm512_srli_epi32((a), (n)) /* logical */
static inline vm vi_eq(vi a, vi b) {
    return _mm512_cmpeq_epi32_mask(a, b);
}
static inline vm vi_gt(vi a, vi b) {
    return _mm512_cmpgt_epi32_mask(a, b);
} /* signed */
static inline vf vi_float(vi a) {
    return _mm512_cvtepi32_ps(a);
}
static inline vi vf_int(vf a) {
    return _mm512_cvtps_epi32(a);
} /* to nearest */
static inline vf vi_as_float(vi a) {
    return _mm512_castsi512_ps(a);
}
static inline vi vf_bits(vf a) {
    return _mm512_castps_si512(a);
}

/* ---- half floats ------------------------------------------------------------------------------- */

static inline vf vf_from_bf16(__m256i h) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
/* Round to nearest even, NaN made quiet: the bits of half_f32_to_bf16. (vcvtneps2bf16 would flush denormals.) */
static inline __m256i vf_to_bf16(vf v) {
    const __m512i u = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    __m512i r = _mm512_srli_epi32(_mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))), 16);
    r = _mm512_mask_or_epi32(r, vf_isnan(v), _mm512_srli_epi32(u, 16), _mm512_set1_epi32(0x40));
    return _mm512_cvtepi32_epi16(r);
}
static inline vf vf_load_bf16(const uint16_t *p) {
    return vf_from_bf16(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vf vf_load_bf16_n(const uint16_t *p, int64_t n) {
    return vf_from_bf16(_mm256_maskz_loadu_epi16(vm_first(n), p));
}
static inline void vf_store_bf16(uint16_t *p, vf v) {
    _mm256_storeu_si256((__m256i *)(void *)p, vf_to_bf16(v));
}
static inline void vf_store_bf16_n(uint16_t *p, vf v, int64_t n) {
    _mm256_mask_storeu_epi16(p, vm_first(n), vf_to_bf16(v));
}
static inline vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
static inline vf vf_load_f16_n(const uint16_t *p, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(vm_first(n), p));
}
static inline void vf_store_f16(uint16_t *p, vf v) {
    _mm256_storeu_si256((__m256i *)(void *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void vf_store_f16_n(uint16_t *p, vf v, int64_t n) {
    _mm256_mask_storeu_epi16(p, vm_first(n), _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}

/* v 2^n for integral n in [-300, 300], denormal results rounded once */
static inline vf vf_scale2(vf v, vf n) {
    return _mm512_scalef_ps(v, n);
}

#else /* AVX2 */

static inline vm vm_first(int64_t n) {
    const int32_t k = n > 8 ? 8 : n < 0 ? 0 : (int32_t)n;
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(k), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline vm vm_and(vm a, vm b) {
    return _mm256_and_si256(a, b);
}
static inline vm vm_or(vm a, vm b) {
    return _mm256_or_si256(a, b);
}
static inline vm vm_not(vm a) {
    return _mm256_xor_si256(a, _mm256_set1_epi32(-1));
}
static inline int vm_any(vm a) {
    return _mm256_movemask_epi8(a) != 0;
}
static inline int vm_all(vm a) {
    return _mm256_movemask_epi8(a) == -1;
}

static inline vf vf_zero(void) {
    return _mm256_setzero_ps();
}
static inline vf vf_set(float x) {
    return _mm256_set1_ps(x);
}
static inline vf vf_load(const float *p) {
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf v) {
    _mm256_storeu_ps(p, v);
}
static inline vf vf_load_n(const float *p, int64_t n) {
    return _mm256_maskload_ps(p, vm_first(n));
}
static inline void vf_store_n(float *p, vf v, int64_t n) {
    _mm256_maskstore_ps(p, vm_first(n), v);
}
static inline void vf_stream(float *p, vf v) {
    _mm256_stream_ps(p, v);
}

static inline vf vf_add(vf a, vf b) {
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b) {
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b) {
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b) {
    return _mm256_div_ps(a, b);
}
static inline vf vf_sqrt(vf a) {
    return _mm256_sqrt_ps(a);
}
static inline vf vf_fma(vf a, vf b, vf c) {
    return _mm256_fmadd_ps(a, b, c);
}
static inline vf vf_fnma(vf a, vf b, vf c) {
    return _mm256_fnmadd_ps(a, b, c);
}
static inline vf vf_fms(vf a, vf b, vf c) {
    return _mm256_fmsub_ps(a, b, c);
}
static inline vf vf_max(vf a, vf b) {
    return _mm256_max_ps(a, b);
}
static inline vf vf_min(vf a, vf b) {
    return _mm256_min_ps(a, b);
}
static inline vf vf_abs(vf a) {
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_neg(vf a) {
    return _mm256_xor_ps(_mm256_set1_ps(-0.0f), a);
}
static inline vf vf_copysign(vf a, vf b) {
    const __m256 s = _mm256_set1_ps(-0.0f);
    return _mm256_or_ps(_mm256_andnot_ps(s, a), _mm256_and_ps(s, b));
}
static inline vf vf_round(vf a) {
    return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}

static inline vm vf_lt(vf a, vf b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
static inline vm vf_le(vf a, vf b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LE_OQ));
}
static inline vm vf_gt(vf a, vf b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
static inline vm vf_ge(vf a, vf b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}
static inline vm vf_eq(vf a, vf b) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_EQ_OQ));
}
static inline vm vf_isnan(vf a) {
    return _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
static inline vf vf_select(vm m, vf yes, vf no) {
    return _mm256_blendv_ps(no, yes, _mm256_castsi256_ps(m));
}
static inline vf vf_gather(const float *p, vi i, vm m) {
    return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), p, i, _mm256_castsi256_ps(m), 4);
}
static inline vf vf_keep(vm m, vf v) {
    return _mm256_and_ps(_mm256_castsi256_ps(m), v);
}
static inline vf vf_recip(vf a) {
    return _mm256_div_ps(_mm256_set1_ps(1.0f), a);
}

static inline float vf_sum(vf v) {
    __m128 b = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    b = _mm_add_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_add_ss(b, _mm_movehdup_ps(b)));
}
static inline float vf_hmax(vf v) {
    __m128 b = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    b = _mm_max_ps(b, _mm_movehl_ps(b, b));
    return _mm_cvtss_f32(_mm_max_ss(b, _mm_movehdup_ps(b)));
}

static inline vi vi_set(int32_t x) {
    return _mm256_set1_epi32(x);
}
static inline vi vi_iota(void) {
    return _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
}
static inline vi vi_load(const void *p) {
    return _mm256_loadu_si256(p);
}
static inline vi vi_load_n(const int32_t *p, int64_t n) {
    return _mm256_maskload_epi32(p, vm_first(n));
}
static inline void vi_store(void *p, vi v) {
    _mm256_storeu_si256(p, v);
}
static inline vi vi_add(vi a, vi b) {
    return _mm256_add_epi32(a, b);
}
static inline vi vi_sub(vi a, vi b) {
    return _mm256_sub_epi32(a, b);
}
static inline vi vi_and(vi a, vi b) {
    return _mm256_and_si256(a, b);
}
static inline vi vi_or(vi a, vi b) {
    return _mm256_or_si256(a, b);
}
static inline vi vi_xor(vi a, vi b) {
    return _mm256_xor_si256(a, b);
}
#define vi_shl(a, n) _mm256_slli_epi32((a), (n))
#define vi_shr(a, n) _mm256_srli_epi32((a), (n))
static inline vm vi_eq(vi a, vi b) {
    return _mm256_cmpeq_epi32(a, b);
}
static inline vm vi_gt(vi a, vi b) {
    return _mm256_cmpgt_epi32(a, b);
}
static inline vf vi_float(vi a) {
    return _mm256_cvtepi32_ps(a);
}
static inline vi vf_int(vf a) {
    return _mm256_cvtps_epi32(a);
}
static inline vf vi_as_float(vi a) {
    return _mm256_castsi256_ps(a);
}
static inline vi vf_bits(vf a) {
    return _mm256_castps_si256(a);
}

static inline __m128i simd_halves_(const uint16_t *p, int64_t n) {
    uint16_t h[8] = {0};
    memcpy(h, p, 2 * (size_t)(n > 8 ? 8 : n < 0 ? 0 : n));
    return _mm_loadu_si128((const __m128i *)(const void *)h);
}
static inline void simd_put_halves_(uint16_t *p, __m128i v, int64_t n) {
    uint16_t h[8];
    _mm_storeu_si128((__m128i *)(void *)h, v);
    memcpy(p, h, 2 * (size_t)(n > 8 ? 8 : n < 0 ? 0 : n));
}
static inline vf vf_from_bf16(__m128i h) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
static inline __m128i vf_to_bf16(vf v) {
    const __m256i u = _mm256_castps_si256(v), odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    __m256i r = _mm256_srli_epi32(_mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))), 16);
    r = _mm256_blendv_epi8(r, _mm256_or_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(0x40)), vf_isnan(v));
    return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
static inline vf vf_load_bf16(const uint16_t *p) {
    return vf_from_bf16(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vf vf_load_bf16_n(const uint16_t *p, int64_t n) {
    return vf_from_bf16(simd_halves_(p, n));
}
static inline void vf_store_bf16(uint16_t *p, vf v) {
    _mm_storeu_si128((__m128i *)(void *)p, vf_to_bf16(v));
}
static inline void vf_store_bf16_n(uint16_t *p, vf v, int64_t n) {
    simd_put_halves_(p, vf_to_bf16(v), n);
}
static inline vf vf_load_f16(const uint16_t *p) {
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p));
}
static inline vf vf_load_f16_n(const uint16_t *p, int64_t n) {
    return _mm256_cvtph_ps(simd_halves_(p, n));
}
static inline void vf_store_f16(uint16_t *p, vf v) {
    _mm_storeu_si128((__m128i *)(void *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
static inline void vf_store_f16_n(uint16_t *p, vf v, int64_t n) {
    simd_put_halves_(p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), n);
}

/* In two factors, since 2^n alone would leave the normal range; only the second can round. */
static inline vf vf_scale2(vf v, vf n) {
    const __m256i e = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(e, 1), rest = _mm256_sub_epi32(e, half);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256 a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
    return _mm256_mul_ps(_mm256_mul_ps(v, a), b);
}

#endif

static inline void vf_fence(void) {
    _mm_sfence();
}

/* ---- functions --------------------------------------------------------------------------------- */

/* exp(r) - 1 = r + r^2 P(r) for |r| <= ln(2)/2, minimax in the relative error of the result (1.4e-8). */
static inline vf simd_expm1_small_(vf r) {
    vf p = vf_set(0x1.6bebf2p-10f);
    p = vf_fma(p, r, vf_set(0x1.1227f6p-7f));
    p = vf_fma(p, r, vf_set(0x1.555674p-5f));
    p = vf_fma(p, r, vf_set(0x1.5554b0p-3f));
    p = vf_fma(p, r, vf_set(0x1.fffffep-2f));
    return vf_fma(vf_mul(r, r), p, r);
}

/* x = n ln 2 + r with integral n; ln 2 in two parts, the first short enough for exact products. */
static inline vf simd_reduce_(vf x, vf *r) {
    const vf n = vf_round(vf_mul(x, vf_set(0x1.715476p+0f)));
    *r = vf_fnma(n, vf_set(-0x1.05c610p-29f), vf_fnma(n, vf_set(0x1.62e430p-1f), x));
    return n;
}

static inline vf vf_exp(vf x) {
    /* Clamped where the result has long been 0 or infinite; the operand order keeps NaN. */
    x = vf_min(vf_set(90.0f), vf_max(vf_set(-105.0f), x));
    vf r;
    const vf n = simd_reduce_(x, &r);
    return vf_scale2(vf_add(simd_expm1_small_(r), vf_set(1.0f)), n);
}

/* exp for x in [-87, 88] or below (-inf included), where it may give any value under 2^-125 instead: for softmax,
 * whose arguments are differences from a maximum. NaN stays NaN. */
static inline vf vf_exp_soft(vf x) {
#if SIMD_W == 16
    vf r;
    x = vf_max(vf_set(-105.0f), x);
    const vf n = simd_reduce_(x, &r);
    return vf_scale2(vf_add(simd_expm1_small_(r), vf_set(1.0f)), n);
#else
    x = vf_max(vf_set(-87.0f), x);
    vf r;
    const vf n = simd_reduce_(x, &r);
    const vf two_n = vi_as_float(vi_shl(vi_add(vf_int(n), vi_set(127)), 23));
    return vf_mul(vf_add(simd_expm1_small_(r), vf_set(1.0f)), two_n);
#endif
}

/* Of normal positive numbers, error below 1e-7 relative or absolute; +inf and NaN stay, 0 gives some large negative
 * number. x = 2^n y with y within [sqrt(1/2), sqrt(2)]; log y = 2 atanh((y - 1) / (y + 1)). */
static inline vf vf_log(vf x) {
    const vi over = vi_sub(vf_bits(x), vi_set(0x3f3504f3)); /* of sqrt(1/2): its exponent is n */
    const vf e = vi_float(vi_sub(vi_shr(vi_add(over, vi_set(0x40000000)), 23), vi_set(0x80)));
    const vf y = vi_as_float(vi_sub(vf_bits(x), vi_shl(vi_shr(over, 23), 23)));
    const vf s = vf_div(vf_sub(y, vf_set(1.0f)), vf_add(y, vf_set(1.0f))), q = vf_mul(s, s);
    vf p = vf_set(2.0f / 9);
    p = vf_fma(p, q, vf_set(2.0f / 7));
    p = vf_fma(p, q, vf_set(2.0f / 5));
    p = vf_fma(p, q, vf_set(2.0f / 3));
    p = vf_fma(p, q, vf_set(2.0f));
    return vf_select(vf_lt(x, vf_set(INFINITY)), vf_fma(e, vf_set(0x1.62e430p-1f), vf_mul(p, s)), x);
}

/* tanh|x| = e/(e + 2) with e = exp(2|x|) - 1 = 2^n (exp(r) - 1) + (2^n - 1): accurate near 0 too. */
static inline vf vf_tanh(vf x) {
    vf r;
    const vf a = vf_min(vf_set(10.0f), vf_abs(x));
    const vf n = simd_reduce_(vf_add(a, a), &r), p = simd_expm1_small_(r);
    const vf two_n = vi_as_float(vi_shl(vi_add(vf_int(n), vi_set(127)), 23));
    const vf e = vf_fma(two_n, p, vf_sub(two_n, vf_set(1.0f)));
    const vf t = vf_copysign(vf_div(e, vf_add(e, vf_set(2.0f))), x);
    return vf_select(vf_isnan(x), x, t);
}

static inline vf vf_sigmoid(vf x) {
    return vf_div(vf_set(1.0f), vf_add(vf_set(1.0f), vf_exp(vf_neg(x))));
}

/* Below 1 an odd polynomial; above, 1 - exp(q(|x|)) with q the minimax polynomial of log erfc on [1, 4]. */
static inline vf vf_erf(vf x) {
    const vf a = vf_abs(x), s = vf_mul(x, x), one = vf_set(1.0f);
    vf p = vf_set(0x1.496a3ap-14f);
    p = vf_fma(p, s, vf_set(-0x1.a3f702p-11f));
    p = vf_fma(p, s, vf_set(0x1.5405b2p-8f));
    p = vf_fma(p, s, vf_set(-0x1.b7f90ep-6f));
    p = vf_fma(p, s, vf_set(0x1.ce2cf8p-4f));
    p = vf_fma(p, s, vf_set(-0x1.81273ep-2f));
    p = vf_fma(p, s, vf_set(0x1.06eba8p-3f)); /* 2/sqrt(pi) - 1 */
    const vf near = vf_fma(p, x, x);
    const vf t = vf_sub(vf_min(vf_set(4.0f), a), one);
    vf q = vf_set(0x1.852d4ap-13f);
    q = vf_fma(q, t, vf_set(-0x1.deb7bep-10f));
    q = vf_fma(q, t, vf_set(0x1.441ad0p-7f));
    q = vf_fma(q, t, vf_set(-0x1.53f940p-5f));
    q = vf_fma(q, t, vf_set(-0x1.afad34p-1f));
    q = vf_fma(q, t, vf_set(-0x1.51c9aap+1f));
    q = vf_fma(q, t, vf_set(-0x1.d97fc0p+0f));
    const vf far = vf_copysign(vf_sub(one, vf_exp_soft(q)), x);
    return vf_select(vf_gt(a, one), far, near); /* NaN takes near, which keeps it */
}

#endif
