#include "cpu/product/half.h"

#include <immintrin.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 16")
enum { NC = HALF_COLS, MR = HALF_ROWS };

/* ---- x ------------------------------------------------------------------------------------------------------------
 */

static void scale_row(const half_job *j, int64_t m) {
    const float *x = j->x + m * j->x_row;
    uint32_t *to = j->half + m * j->k;
    __m512 most = _mm512_setzero_ps();
    for (int64_t k = 0; k < j->k; k += 16) most = _mm512_max_ps(most, _mm512_abs_ps(_mm512_loadu_ps(x + k)));
    const float top = _mm512_reduce_max_ps(most);
    const bool usual = top > 1e-30f && top < 1e30f;
    uint32_t bits;
    memcpy(&bits, &top, sizeof bits);
    bits = usual ? (254u - (bits >> 23)) << 23 : 127u << 23; /* 2^-exponent of top */
    float inverse;
    memcpy(&inverse, &bits, sizeof inverse);
    const float by = usual ? inverse * (HALF_TOP / 2) : 1;
    j->back[m] = (usual ? 1 / by : 1) / (j->bf16 ? HALF_RAISE : 1);
    for (int64_t k = 0; k < j->k; k += 16) {
        const __m512 v = _mm512_mul_ps(_mm512_loadu_ps(x + k), _mm512_set1_ps(by));
        const __m512i h = _mm512_cvtepu16_epi32(_mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
        _mm512_storeu_si512(to + k, _mm512_or_si512(h, _mm512_slli_epi32(h, 16)));
    }
}

/* ---- panels --------------------------------------------------------------------------------------------------------
 */

INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
    UNROLL for (int i = 0; i < 16; i += 4) {
        const __m512i a = _mm512_unpacklo_epi32(r[i], r[i + 1]), b = _mm512_unpackhi_epi32(r[i], r[i + 1]);
        const __m512i c = _mm512_unpacklo_epi32(r[i + 2], r[i + 3]), d = _mm512_unpackhi_epi32(r[i + 2], r[i + 3]);
        t[i] = _mm512_unpacklo_epi64(a, c), t[i + 1] = _mm512_unpackhi_epi64(a, c);
        t[i + 2] = _mm512_unpacklo_epi64(b, d), t[i + 3] = _mm512_unpackhi_epi64(b, d);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        const __m512i a = _mm512_shuffle_i32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_i32x4(t[i], t[i + 4], 0xdd);
        const __m512i c = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0x88),
                      d = _mm512_shuffle_i32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_i32x4(a, c, 0x88), r[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        r[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88), r[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
}

/* 32 numbers of bf16 as half floats, HALF_RAISE times as large. */
INLINE __m512i raised(__m512i v) {
    const __m512 by = _mm512_set1_ps(HALF_RAISE);
    const __m512 even = _mm512_mul_ps(by, _mm512_castsi512_ps(_mm512_slli_epi32(v, 16)));
    const __m512 odd = _mm512_mul_ps(by, _mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32((int)0xffff0000u))));
    const __m256i a = _mm512_cvtps_ph(even, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m256i b = _mm512_cvtps_ph(odd, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

/* k of [k0, k0 + kc) of 64 columns from n on as [k][column], where columns i and 16 + i of each 32 are neighbours:
 * pairs of k are transposed as 32 bits and then parted. Columns past the last are the last again. */
INLINE void pack_as(const half_job *j, bool bf16, int64_t n, int64_t k0, int64_t kc, uint16_t *to) {
    for (int64_t h = 0; h < NC; h += 32) {
        const uint16_t *row[32];
        for (int64_t i = 0; i < 32; i++) row[i] = j->w + (n + h + i < j->n ? n + h + i : j->n - 1) * j->w_row + k0;
        for (int64_t k = 0; k < kc; k += 32) {
            const __mmask16 some = (__mmask16)(kc - k >= 32 ? 0xffff : 0x00ff); /* kc is a multiple of 16 */
            __m512i a[16], b[16];
            UNROLL for (int i = 0; i < 16; i++) {
                a[i] = _mm512_maskz_loadu_epi32(some, row[i] + k);
                if (bf16) a[i] = raised(a[i]);
                _mm_prefetch((const char *)(row[i] + k) + 512, _MM_HINT_T0);
            }
            transpose(a);
            UNROLL for (int i = 0; i < 16; i++) {
                b[i] = _mm512_maskz_loadu_epi32(some, row[16 + i] + k);
                if (bf16) b[i] = raised(b[i]);
                _mm_prefetch((const char *)(row[16 + i] + k) + 512, _MM_HINT_T0);
            }
            transpose(b);
            UNROLL for (int i = 0; i < 16; i++) {
                if (k + 2 * i >= kc) break;
                uint16_t *at = to + (k + 2 * i) * NC + h;
                const __m512i even = _mm512_mask_blend_epi16(0xaaaaaaaau, a[i], _mm512_slli_epi32(b[i], 16));
                const __m512i odd = _mm512_mask_blend_epi16(0xaaaaaaaau, _mm512_srli_epi32(a[i], 16), b[i]);
                _mm512_storeu_si512(at, even);
                _mm512_storeu_si512(at + NC, odd);
            }
        }
    }
}

static void pack(const half_job *j, int64_t n, int64_t k0, int64_t kc, uint16_t *to) {
    if (j->bf16)
        pack_as(j, true, n, k0, kc, to);
    else
        pack_as(j, false, n, k0, kc, to);
}

/* ---- products ------------------------------------------------------------------------------------------------------
 */

/* A part of the sum over k: where it goes and how. */
typedef struct half_end {
    bool first, last; /* of the parts */
    int64_t m, n;
} half_end;

/* 16 columns from n on of row m. */
INLINE void finish(const half_job *j, const half_end *e, int64_t m, int64_t n, __m512 v) {
    const int64_t left = j->n - n;
    const __mmask16 k = (__mmask16)(left >= 16 ? 0xffff : left > 0 ? (1 << left) - 1 : 0);
    float *c = j->c + m * j->c_row + n;
    if (j->add || !e->first) v = _mm512_add_ps(_mm512_maskz_loadu_ps(k, c), v);
    if (e->last && j->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(k, j->bias + n));
    _mm512_mask_storeu_ps(c, k, v);
}

/* The two neighbours of a pair apart. */
INLINE void part(__m512 *a, __m512 *b) {
    const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512 x = _mm512_permutex2var_ps(*a, even, *b);
    *b = _mm512_permutex2var_ps(*a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), *b);
    *a = x;
}

/* One row and 32 columns in f32. */
static void exact(const half_job *j, const half_end *e, int64_t m, int64_t n, int64_t k0, int64_t kc,
                  const uint16_t *panel) {
    __m512 s = _mm512_setzero_ps(), t = s;
    for (int64_t k = 0; k < kc; k++) {
        const __m512 x = _mm512_set1_ps(j->x[m * j->x_row + k0 + k]);
        const uint16_t *w = panel + k * NC;
        s = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)w)), x, s);
        t = _mm512_fmadd_ps(_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(w + 16))), x, t);
    }
    part(&s, &t);
    finish(j, e, m, n, s);
    finish(j, e, m, n + 16, t);
}

/* The same over bf16, from where it lies: raised, a number may have left the range of half floats. */
static void exact_bf16(const half_job *j, const half_end *e, int64_t m, int64_t n, int64_t k0, int64_t kc) {
    const float *x = j->x + m * j->x_row + k0;
    float sum[32];
    for (int64_t i = 0; i < 32; i++) {
        const uint16_t *w = j->w + (n + i < j->n ? n + i : j->n - 1) * j->w_row + k0;
        __m512 s = _mm512_setzero_ps();
        for (int64_t k = 0; k < kc; k += 16) {
            const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(w + k)));
            s = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(bits, 16)), _mm512_loadu_ps(x + k), s);
        }
        sum[i] = _mm512_reduce_add_ps(s);
    }
    finish(j, e, m, n, _mm512_loadu_ps(sum));
    finish(j, e, m, n + 16, _mm512_loadu_ps(sum + 16));
}

INLINE __m512h widen(const uint32_t *x) { /* a pair of the same, everywhere */
    return _mm512_castsi512_ph(_mm512_set1_epi32((int)*x));
}
INLINE __m512 lower(__m512h v) {
    return _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_castph_si512(v)));
}
INLINE __m512 upper(__m512h v) {
    return _mm512_cvtph_ps(_mm512_extracti64x4_epi64(_mm512_castph_si512(v), 1));
}

/* R rows of x from e->m on with one panel, columns from e->n on. */
INLINE void micro(const half_job *j, const half_end *e, int64_t k0, int64_t kc, const uint16_t *panel, int R) {
    _Alignas(64) float sum[MR][4][16];
    const uint32_t *x = j->half + e->m * j->k + k0;
    const uint16_t *w = panel;
    memset(sum, 0, (size_t)R * sizeof sum[0]);
    for (int64_t k = 0; k < kc;) {
        __m512h all[MR][2];
        const int64_t end = k + HALF_CHAIN * HALF_CHAINS < kc ? k + HALF_CHAIN * HALF_CHAINS : kc;
        UNROLL for (int r = 0; r < R; r++) all[r][0] = all[r][1] = _mm512_setzero_ph();
        for (; k < end; k += HALF_CHAIN) {
            __m512h s[MR][2];
            UNROLL for (int i = 0; i < HALF_CHAIN; i++, w += NC) {
                const __m512h a = _mm512_loadu_ph(w), b = _mm512_loadu_ph(w + 32);
                UNROLL for (int r = 0; r < R; r++) {
                    const __m512h v = widen(x + r * j->k + k + i);
                    s[r][0] = i ? _mm512_fmadd_ph(a, v, s[r][0]) : _mm512_mul_ph(a, v);
                    s[r][1] = i ? _mm512_fmadd_ph(b, v, s[r][1]) : _mm512_mul_ph(b, v);
                }
            }
            UNROLL for (int r = 0; r < R; r++) {
                all[r][0] = _mm512_add_ph(all[r][0], s[r][0]);
                all[r][1] = _mm512_add_ph(all[r][1], s[r][1]);
            }
        }
        UNROLL for (int r = 0; r < R; r++) UNROLL for (int v = 0; v < 2; v++) {
            const __m512 a = lower(all[r][v]), b = upper(all[r][v]);
            float *to = sum[r][2 * v];
            _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), a));
            _mm512_store_ps(to + 16, _mm512_add_ps(_mm512_load_ps(to + 16), b));
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        const __m512 back = _mm512_set1_ps(j->back[e->m + r]);
        for (int v = 0; v < 2; v++) {
            __m512 a = _mm512_mul_ps(_mm512_load_ps(sum[r][2 * v]), back);
            __m512 b = _mm512_mul_ps(_mm512_load_ps(sum[r][2 * v + 1]), back);
            const __m512 zero =
                _mm512_mul_ps(_mm512_add_ps(a, b), _mm512_setzero_ps()); /* NaN where one is not finite */
            if (_mm512_cmp_ps_mask(zero, zero, _CMP_UNORD_Q)) {
                if (j->bf16)
                    exact_bf16(j, e, e->m + r, e->n + 32 * v, k0, kc);
                else
                    exact(j, e, e->m + r, e->n + 32 * v, k0, kc, panel + 32 * v);
                continue;
            }
            part(&a, &b);
            finish(j, e, e->m + r, e->n + 32 * v, a);
            finish(j, e, e->m + r, e->n + 32 * v + 16, b);
        }
    }
}

static void rows(const half_job *j, const half_end *e, int64_t k0, int64_t kc, const uint16_t *panel, int64_t n) {
    switch (n) {
    case 1: micro(j, e, k0, kc, panel, 1); return;
    case 2: micro(j, e, k0, kc, panel, 2); return;
    case 3: micro(j, e, k0, kc, panel, 3); return;
    case 4: micro(j, e, k0, kc, panel, 4); return;
    case 5: micro(j, e, k0, kc, panel, 5); return;
    default: micro(j, e, k0, kc, panel, 6); return;
    }
}

void half_linear__avx512fp16(int what, const half_job *j, int64_t lo, int64_t hi) {
    if (what == HALF_SCALE) {
        for (; lo < hi; lo++) scale_row(j, lo);
        return;
    }
    const int64_t parts = (j->k + HALF_KC - 1) / HALF_KC;
    const int64_t most = ((j->k + parts - 1) / parts + HALF_CHAIN - 1) / HALF_CHAIN * HALF_CHAIN;
    for (int64_t k0 = 0; k0 < j->k; k0 += most) {
        const int64_t kc = j->k - k0 < most ? j->k - k0 : most;
        for (int64_t n = lo; n < hi; n += NC) pack(j, n, k0, kc, j->panel + (n - lo) * HALF_KC);
        for (int64_t m = 0; m < j->m; m += MR)
            for (int64_t n = lo; n < hi; n += NC) {
                const half_end e = {.first = k0 == 0, .last = k0 + kc == j->k, .m = m, .n = n};
                rows(j, &e, k0, kc, j->panel + (n - lo) * HALF_KC, j->m - m < MR ? j->m - m : MR);
            }
    }
}
