/* Philox4x32-10 as in base/rng.h, SIMD_W counters at once; for leaf files. */
#ifndef CPU_PHILOX_BODY_H
#define CPU_PHILOX_BODY_H

#include "cpu/simd.h"

#define PHILOX_INLINE static inline __attribute__((always_inline))

/* 32 x 32 -> high and low words */
PHILOX_INLINE void philox_wide(vi a, uint32_t m, vi *hi, vi *lo) {
#if SIMD_W == 16
    const vi k = _mm512_set1_epi64((long long)m), even = _mm512_mul_epu32(a, k);
    const vi odd = _mm512_mul_epu32(_mm512_srli_epi64(a, 32), k);
    *hi = _mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *lo = _mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#else
    const vi k = _mm256_set1_epi64x((long long)m), even = _mm256_mul_epu32(a, k);
    const vi odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), k);
    *hi = _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *lo = _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#endif
}

/* c[0..3], a counter in every lane, become its four words. */
PHILOX_INLINE void philox_rounds(const uint32_t key[2], vi c[4]) {
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        vi hi0, lo0, hi1, lo1;
        philox_wide(c[0], 0xd2511f53u, &hi0, &lo0);
        philox_wide(c[2], 0xcd9e8d57u, &hi1, &lo1);
        c[0] = vi_xor(vi_xor(hi1, c[1]), vi_set((int32_t)k0)), c[1] = lo1;
        c[2] = vi_xor(vi_xor(hi0, c[3]), vi_set((int32_t)k1)), c[3] = lo0;
        k0 += 0x9e3779b9u, k1 += 0xbb67ae85u;
    }
}

/* words of counters (row, group + 0 .. SIMD_W - 1), in the order of elements, into w[4 * SIMD_W] */
PHILOX_INLINE void philox_words(const uint32_t key[2], uint64_t row, uint64_t group, uint32_t *w) {
    vi x[4] = {vi_add(vi_set((int32_t)(uint32_t)group), vi_iota()), vi_set((int32_t)(uint32_t)(group >> 32)),
               vi_set((int32_t)(uint32_t)row), vi_set((int32_t)(uint32_t)(row >> 32))};
    philox_rounds(key, x);
    const vi c0 = x[0], c1 = x[1], c2 = x[2], c3 = x[3];
#if SIMD_W == 16 /* 4 x 16 transposed: pairs of words, then pairs of pairs */
    const vi near = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const vi far = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    const vi near2 = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11), far2 = _mm512_setr_epi64(4, 12, 5, 13, 6, 14, 7, 15);
    const vi a = _mm512_permutex2var_epi32(c0, near, c1), b = _mm512_permutex2var_epi32(c2, near, c3);
    const vi c = _mm512_permutex2var_epi32(c0, far, c1), d = _mm512_permutex2var_epi32(c2, far, c3);
    vi_store(w, _mm512_permutex2var_epi64(a, near2, b));
    vi_store(w + SIMD_W, _mm512_permutex2var_epi64(a, far2, b));
    vi_store(w + 2 * SIMD_W, _mm512_permutex2var_epi64(c, near2, d));
    vi_store(w + 3 * SIMD_W, _mm512_permutex2var_epi64(c, far2, d));
#else
    uint32_t words[4][SIMD_W];
    vi_store(words[0], c0), vi_store(words[1], c1), vi_store(words[2], c2), vi_store(words[3], c3);
    for (int i = 0; i < SIMD_W; i++)
        for (int k = 0; k < 4; k++) w[4 * i + k] = words[k][i];
#endif
}

#endif
