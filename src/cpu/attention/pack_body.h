/* Reading rows of any stored dtype, packing them as operands of the micro-kernels, writing rows back. */
#ifndef ATTN_PACK_BODY_H
#define ATTN_PACK_BODY_H

#include "cpu/attention/gemm_body.h"

/* 2^x. Error below 3e-7 relative (4e-6 in the bf16 leaf, whose results are rounded to 8 bits anyway); 0 (AVX2)
 * or a denormal where the result is below 2^-125, 0 at -inf; NaN stays NaN. Meant for x <= 127. */
INLINE vf exp2_soft(vf x) {
#if SIMD_W == 16
    /* x = floor(x) + f; vscalefps takes the floor by itself. f is 0 at -inf. */
    const vf f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
#if defined(ATTN_BF16)
    vf p = vf_set(0x1.bb7cd4p-7f);
    p = vf_fma(p, f, vf_set(0x1.aa13f0p-5f));
    p = vf_fma(p, f, vf_set(0x1.ee798ap-3f));
    p = vf_fma(p, f, vf_set(0x1.62d166p-1f));
#else
    vf p = vf_set(0x1.ec320ap-10f);
    p = vf_fma(p, f, vf_set(0x1.26900cp-7f));
    p = vf_fma(p, f, vf_set(0x1.c95446p-5f));
    p = vf_fma(p, f, vf_set(0x1.ebd5a8p-3f));
    p = vf_fma(p, f, vf_set(0x1.62e4f6p-1f));
#endif
    return _mm512_scalef_ps(vf_fma(p, f, vf_set(1.0f)), x);
#else
    const vf magic = vf_set(0x1.8p23f), t = vf_add(x, magic), f = vf_sub(x, vf_sub(t, magic));
    vf p = vf_set(0x1.5c08e6p-10f);
    p = vf_fma(p, f, vf_set(0x1.3d0c52p-7f));
    p = vf_fma(p, f, vf_set(0x1.c6b6e4p-5f));
    p = vf_fma(p, f, vf_set(0x1.ebf918p-3f));
    p = vf_fma(p, f, vf_set(0x1.62e428p-1f));
    p = vf_fma(p, f, vf_set(1.0f));
    const vi r = vi_add(vf_bits(p), vi_shl(vf_bits(t), 23));
    return _mm256_and_ps(_mm256_cmp_ps(x, vf_set(-125.0f), _CMP_NLT_UQ), vi_as_float(r));
#endif
}

/* Of a row in blocks of 32: a scale in f16, then as many bytes. */
INLINE vf row_blocks(const char *row, int64_t d) {
    const char *b = row + d / 32 * 34;
    uint16_t half;
    memcpy(&half, b, sizeof half);
    const vf scale = vf_set(_mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(half))));
#if SIMD_W == 16
    const vi q = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(b + 2 + d % 32)));
#else
    const vi q = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(b + 2 + d % 32)));
#endif
    return vf_mul(scale, vi_float(q));
}

/* Elements [d, d + VW) of a row of n, zeros past its end. */
INLINE vf row_load(const char *row, tl_dtype dtype, int64_t d, int64_t n) {
    const int64_t left = n - d;
    if (left <= 0) return vf_zero();
    if (dtype == TL_F32) {
        const float *p = (const float *)(const void *)row + d;
        return left >= VW ? vf_load(p) : vf_load_n(p, left);
    }
    if (dtype == TL_Q8_0) return row_blocks(row, d);
    const uint16_t *p = (const uint16_t *)(const void *)row + d;
    if (dtype == TL_BF16) return left >= VW ? vf_load_bf16(p) : vf_load_bf16_n(p, left);
    return left >= VW ? vf_load_f16(p) : vf_load_f16_n(p, left);
}

INLINE void row_store(char *row, tl_dtype dtype, int64_t d, int64_t n, vf x) {
    const int64_t left = n - d;
    if (left <= 0) return;
    if (dtype == TL_F32) {
        float *p = (float *)(void *)row + d;
        if (left >= VW)
            vf_store(p, x);
        else
            vf_store_n(p, x, left);
        return;
    }
    uint16_t *p = (uint16_t *)(void *)row + d;
    if (dtype == TL_BF16) {
        if (left >= VW)
            vf_store_bf16(p, x);
        else
            vf_store_bf16_n(p, x, left);
    } else if (left >= VW)
        vf_store_f16(p, x);
    else
        vf_store_f16_n(p, x, left);
}

/* VW units beginning at unit u of a row of n elements. */
INLINE vf unit_load(const char *row, tl_dtype dtype, int64_t u, int64_t n) {
#if defined(ATTN_BF16)
    const uint16_t *p = (const uint16_t *)(const void *)row + 2 * u;
    const int64_t left = n - 2 * u;
    (void)dtype;
    if (left >= 32) return vi_as_float(_mm512_loadu_si512(p));
    return vi_as_float(_mm512_maskz_loadu_epi16(left <= 0 ? 0 : (__mmask32)((1u << left) - 1u), p));
#else
    return row_load(row, dtype, u, n);
#endif
}

#if defined(ATTN_BF16)
/* Units of x and y: x below, y above. */
INLINE vi unit_pair(vf x, vf y) {
    const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_permutexvar_epi16(pairs, (__m512i)_mm512_cvtne2ps_pbh(y, x));
}
#endif

INLINE const char *at(const attn_tensor *t, int64_t b, int64_t i, int64_t h) {
    return t->p + (b * t->sb + i * t->st + h * t->sh) * t->size;
}
INLINE char *at_out(const attn_tensor *t, int64_t b, int64_t i, int64_t h) {
    return t->p + (b * t->sb + i * t->st + h * t->sh) * t->size;
}

/* Rows as A operand: units in order, zeros up to ldq. row NULL: zeros. */
INLINE void pack_row(uint32_t *dst, int64_t ldq, const char *row, tl_dtype dtype, int64_t n) {
    for (int64_t u = 0; u < ldq; u += VW)
        vf_store((float *)(void *)(dst + u), row ? unit_load(row, dtype, u, n) : vf_zero());
}

/* Rows k, k + 1.. of B: without pairs one row of f32; with pairs two rows interleaved. ldb units wide. */
INLINE void pack_natural(uint32_t *dst, int64_t ldb, const char *row0, const char *row1, tl_dtype dtype, int64_t n) {
#if defined(ATTN_BF16)
    (void)dtype;
    for (int64_t d = 0; d < ldb; d += VW) {
        const vm m = vm_first(n - d);
        const uint16_t *p = (const uint16_t *)(const void *)row0 + d, *q = (const uint16_t *)(const void *)row1 + d;
        const vi x = row0 ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, p)) : _mm512_setzero_si512();
        const vi y = row1 ? _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, q)) : _mm512_setzero_si512();
        vi_store(dst + d, vi_or(x, vi_shl(y, 16)));
    }
#else
    (void)row1;
    for (int64_t d = 0; d < ldb; d += VW)
        vf_store((float *)(void *)(dst + d), row0 ? row_load(row0, dtype, d, n) : vf_zero());
#endif
}

/* x[i][j] <-> x[j][i] of a VW x VW block of units. */
#if SIMD_W == 16
INLINE void transpose_block(vf *x) {
    __m512 t[16];
    UNROLL for (int i = 0; i < 8; i++) {
        t[2 * i] = _mm512_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm512_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        UNROLL for (int h = 0; h < 2; h++) {
            const __m512d a = _mm512_castps_pd(t[4 * i + h]), b = _mm512_castps_pd(t[4 * i + 2 + h]);
            x[4 * i + 2 * h] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
            x[4 * i + 2 * h + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
        }
    }
    /* x[4 i + c]: columns c, c+4, c+8, c+12 of rows 4i..4i+3 */
    UNROLL for (int c = 0; c < 4; c++) {
        t[c] = _mm512_shuffle_f32x4(x[c], x[4 + c], 0x88);
        t[4 + c] = _mm512_shuffle_f32x4(x[8 + c], x[12 + c], 0x88);
        t[8 + c] = _mm512_shuffle_f32x4(x[c], x[4 + c], 0xdd);
        t[12 + c] = _mm512_shuffle_f32x4(x[8 + c], x[12 + c], 0xdd);
    }
    UNROLL for (int c = 0; c < 4; c++) {
        x[c] = _mm512_shuffle_f32x4(t[c], t[4 + c], 0x88);
        x[8 + c] = _mm512_shuffle_f32x4(t[c], t[4 + c], 0xdd);
        x[4 + c] = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0x88);
        x[12 + c] = _mm512_shuffle_f32x4(t[8 + c], t[12 + c], 0xdd);
    }
}
#else
INLINE void transpose_block(vf *x) {
    __m256 t[8];
    UNROLL for (int i = 0; i < 4; i++) {
        t[2 * i] = _mm256_unpacklo_ps(x[2 * i], x[2 * i + 1]);
        t[2 * i + 1] = _mm256_unpackhi_ps(x[2 * i], x[2 * i + 1]);
    }
    UNROLL for (int i = 0; i < 2; i++) {
        UNROLL for (int h = 0; h < 2; h++) {
            x[4 * i + 2 * h] = _mm256_shuffle_ps(t[4 * i + h], t[4 * i + 2 + h], 0x44);
            x[4 * i + 2 * h + 1] = _mm256_shuffle_ps(t[4 * i + h], t[4 * i + 2 + h], 0xee);
        }
    }
    UNROLL for (int c = 0; c < 4; c++) {
        t[c] = _mm256_permute2f128_ps(x[c], x[4 + c], 0x20);
        t[4 + c] = _mm256_permute2f128_ps(x[c], x[4 + c], 0x31);
    }
    UNROLL for (int i = 0; i < 8; i++) x[i] = t[i];
}
#endif

/* lane i: the sum of x[i] */
INLINE vf sum_block(vf *x) {
    transpose_block(x);
    UNROLL for (int h = VW / 2; h > 0; h /= 2) {
        UNROLL for (int i = 0; i < h; i++) x[i] = vf_add(x[i], x[i + h]);
    }
    return x[0];
}

/* Where the row of key j lies: plainly, or at j mod ring of a cache. */
typedef struct key_rows {
    const char *base;
    int64_t stride, ring; /* bytes; 0: no ring */
    tl_dtype dtype;
    int64_t n; /* elements of a row */
} key_rows;

INLINE int64_t key_bytes(const key_rows *k) {
    return k->dtype == TL_Q8_0 ? (k->n + 31) / 32 * 34 : k->n * (k->dtype == TL_F32 ? 4 : 2);
}

INLINE const char *key_row(const key_rows *k, int64_t j) {
    return k->base + (k->ring ? j % k->ring : j) * k->stride;
}

/* Rows of one head lie far apart, often on pages of their own, where no hardware prefetcher follows. */
INLINE void row_prefetch(const char *row, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) _mm_prefetch(row + i, _MM_HINT_T0);
}

/* Rows side by side: dst [units][count], where a row of NULL is zeros. count: whole vectors. */
static void pack_panel(uint32_t *dst, const char *const *rows, int64_t count, tl_dtype dtype, int64_t n,
                       int64_t units) {
    for (int64_t c = 0; c < count; c += VW) {
        for (int64_t u = 0; u < units; u += VW) {
            vf x[VW];
            UNROLL for (int i = 0; i < VW; i++) x[i] = rows[c + i] ? unit_load(rows[c + i], dtype, u, n) : vf_zero();
            transpose_block(x);
            const int64_t left = attn_min(VW, units - u);
            if (left == VW) {
                UNROLL for (int i = 0; i < VW; i++) vf_store((float *)(void *)(dst + (u + i) * count + c), x[i]);
            } else
                for (int i = 0; i < left; i++) vf_store((float *)(void *)(dst + (u + i) * count + c), x[i]);
        }
    }
}

/* Keys [j0, j1) as A operand: rows of ldk units, zeros from key end on. */
static void pack_rows(uint32_t *dst, int64_t ldk, const key_rows *k, int64_t j0, int64_t j1, int64_t end) {
    const int64_t bytes = key_bytes(k);
    for (int64_t j = j0; j < j1; j++, dst += ldk) {
        if (j + 16 < end) row_prefetch(key_row(k, j + 16), bytes);
        pack_row(dst, ldk, j < end ? key_row(k, j) : NULL, k->dtype, k->n);
    }
}

/* Keys [j0, j1) as B operand with keys along k: dst [(j1 - j0) / UNIT][ldb], zeros from key end on. */
static void pack_keys(uint32_t *dst, int64_t ldb, const key_rows *k, int64_t j0, int64_t j1, int64_t end) {
    const int64_t bytes = key_bytes(k);
    for (int64_t j = j0; j < j1; j += UNIT, dst += ldb) {
        for (int i = 0; i < UNIT; i++)
            if (j + 16 + i < end) row_prefetch(key_row(k, j + 16 + i), bytes);
        pack_natural(dst, ldb, j < end ? key_row(k, j) : NULL, j + 1 < end ? key_row(k, j + 1) : NULL, k->dtype, k->n);
    }
}

#endif
