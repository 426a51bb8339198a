#include "cpu/quant/quant_levels_body.h"
#include "cpu/quant/quant_tile.h"

enum { NC = QUANT_TILE_COLS, MR = QUANT_TILE_ROWS, AHEAD = 1024 /* bytes of a row fetched before they are read */ };

/* ---- x -------------------------------------------------------------------------------------------------------------
 */

static void round_row(const quant_tile_job *j, int64_t m) {
    const __m256i minus = _mm256_set1_epi32(-levels_high(j->type));
    const int64_t k = quant_padded(j->k);
    for (int64_t c = 0; c < k / 256; c++) {
        int32_t fours[64];
        float room[QUANT_CHUNK];
        const __m256 scale = levels_round(levels_x(j->x + m * j->x_row, j->k, c, room), j->q + m * k + 256 * c, fours);
        const int64_t at = m * (k / 32) + 8 * c;
        _mm256_storeu_ps(j->scale + at, scale);
        if (j->type == QUANT_Q6_K) {
            for (int i = 0; i < 16; i++)
                j->shift[2 * at + i] = -32 * (fours[4 * i] + fours[4 * i + 1] + fours[4 * i + 2] + fours[4 * i + 3]);
            continue;
        }
        const __m256i sum = sums_of_32(fours);
        _mm256_storeu_si256((void *)(j->shift + at), _mm256_mullo_epi32(sum, minus));
        if (j->sum) _mm256_storeu_ps(j->sum + at, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sum)));
    }
}

/* ---- panels ---------------------------------------------------------------------------------------------------------
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

/* Eight numbers of each of 16 rows, rows i and i + 8 in the halves of v[i], as [number][row], NC apart. */
INLINE void put_eights(__m512 v[8], float *to) {
    const __m512i low = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13),
                  high = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    __m512d t[8];
    UNROLL for (int i = 0; i < 8; i += 4) {
        const __m512d a = _mm512_castps_pd(_mm512_unpacklo_ps(v[i], v[i + 1]));
        const __m512d b = _mm512_castps_pd(_mm512_unpackhi_ps(v[i], v[i + 1]));
        const __m512d c = _mm512_castps_pd(_mm512_unpacklo_ps(v[i + 2], v[i + 3]));
        const __m512d d = _mm512_castps_pd(_mm512_unpackhi_ps(v[i + 2], v[i + 3]));
        t[i] = _mm512_unpacklo_pd(a, c), t[i + 1] = _mm512_unpackhi_pd(a, c);
        t[i + 2] = _mm512_unpacklo_pd(b, d), t[i + 3] = _mm512_unpackhi_pd(b, d);
    }
    UNROLL for (int i = 0; i < 4; i++) {
        _mm512_storeu_pd(to + i * NC, _mm512_permutex2var_pd(t[i], low, t[i + 4]));
        _mm512_storeu_pd(to + (i + 4) * NC, _mm512_permutex2var_pd(t[i], high, t[i + 4]));
    }
}

INLINE __m512 two_rows(__m256 a, __m256 b) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(a), b, 1);
}

/* Scales (and minima) of 256 weights of 16 rows. */
INLINE void put_scales(int type, const uint8_t *const row[16], float *step, float *least) {
    if (type == QUANT_Q6_K) { /* twice as many: by themselves */
        for (int r = 0; r < 16; r++) {
            float s[16];
            const __m128i bytes = _mm_loadu_si128((const void *)(row[r] + 192));
            _mm512_storeu_ps(
                s, _mm512_mul_ps(_mm512_set1_ps(f16(row[r] + 208)), _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes))));
            UNROLL for (int i = 0; i < 16; i++) step[i * NC + r] = s[i];
        }
        return;
    }
    __m512 v[8], w[8];
    UNROLL for (int i = 0; i < 8; i++) {
        const uint8_t *a = row[i], *b = row[i + 8];
        if (type == QUANT_Q4_K) {
            __m256 x, y, s, t;
            scales_q4_k(a, &x, &y);
            scales_q4_k(b, &s, &t);
            v[i] = two_rows(x, s), w[i] = two_rows(y, t);
        } else {
            v[i] = type == QUANT_Q8_0 ? two_rows(scales_q8_0(a), scales_q8_0(b))
                                      : two_rows(scales_q4_0(a), scales_q4_0(b));
        }
    }
    put_eights(v, step);
    if (type == QUANT_Q4_K) put_eights(w, least);
}

/* Columns past the last are the last again. */
INLINE void pack(int type, const quant_tile_job *j, int64_t n0, uint8_t *level, float *step, float *least) {
    const int64_t group = quant_tile_group(type);
    for (int64_t half = 0; half < NC; half += 16) {
        const uint8_t *row[16];
        for (int64_t i = 0; i < 16; i++) {
            const int64_t n = n0 + half + i < j->n ? n0 + half + i : j->n - 1;
            row[i] = j->w + (size_t)n * j->w_bytes;
        }
        for (int64_t c = 0; c < quant_chunks(j->k); c++) {
            uint8_t room[16][LEVELS_BYTES];
            if (256 * (c + 1) > j->k)
                for (int i = 0; i < 16; i++) row[i] = levels_rest(type, row[i], j->k, room[i]);
            UNROLL for (int p = 0; p < 4; p++) {
                __m512i v[16];
                for (int i = 0; i < 16; i++) {
                    v[i] = levels_of(type, row[i], p);
                    if (64 * p < levels_bytes(type)) _mm_prefetch((const char *)row[i] + AHEAD + 64 * p, _MM_HINT_T0);
                }
                transpose(v);
                uint8_t *to = level + ((c * 4 + p) * 16 * NC + half) * 4;
                UNROLL for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * 4 * NC, v[i]);
            }
            put_scales(type, row, step + c * (256 / group) * NC + half, least + c * 8 * NC + half);
            for (int i = 0; i < 16; i++) row[i] += levels_bytes(type);
        }
    }
}

/* ---- products -------------------------------------------------------------------------------------------------------
 */

INLINE void finish(const quant_tile_job *j, int64_t m, int64_t n, __m512 v) {
    const int64_t left = j->n - n;
    const __mmask16 k = (__mmask16)(left >= 16 ? 0xffff : left > 0 ? (1 << left) - 1 : 0);
    float *c = j->c + m * j->c_row + n;
    if (j->bias) v = _mm512_add_ps(v, _mm512_maskz_loadu_ps(k, j->bias + n));
    if (j->add) v = _mm512_add_ps(_mm512_maskz_loadu_ps(k, c), v);
    _mm512_mask_storeu_ps(c, k, v);
}

/* R rows of x from m on with one panel, columns from n on. */
INLINE void micro(int type, const quant_tile_job *j, int64_t m, int64_t n, const uint8_t *level, const float *step,
                  const float *least, int R) {
    const int G = type == QUANT_Q6_K ? 16 : 32;
    const int64_t k = quant_padded(j->k), groups = k / 32, shifts = k / G;
    const int8_t *q = j->q + m * k;
    const float *sx = j->scale + m * groups, *sum = j->sum + m * groups;
    const int32_t *shift = j->shift + m * shifts;
    __m512 f[MR][2];
    UNROLL for (int r = 0; r < R; r++) f[r][0] = f[r][1] = _mm512_setzero_ps();
    for (int64_t g = 0; g < shifts; g++) {
        __m512i s[MR][2];
        UNROLL for (int r = 0; r < R; r++) s[r][0] = s[r][1] = _mm512_set1_epi32(shift[r * shifts + g]);
        UNROLL for (int i = 0; i < G / 4; i++) {
            const __m512i a = _mm512_load_si512(level), b = _mm512_load_si512(level + 64);
            level += 128;
            UNROLL for (int r = 0; r < R; r++) {
                int32_t four;
                memcpy(&four, q + r * k + g * G + 4 * i, 4);
                const __m512i x = _mm512_set1_epi32(four);
                s[r][0] = _mm512_dpbusd_epi32(s[r][0], a, x);
                s[r][1] = _mm512_dpbusd_epi32(s[r][1], b, x);
            }
        }
        const __m512 a = _mm512_load_ps(step + g * NC), b = _mm512_load_ps(step + g * NC + 16);
        UNROLL for (int r = 0; r < R; r++) {
            const __m512 x = _mm512_set1_ps(sx[r * groups + g * G / 32]);
            f[r][0] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[r][0]), _mm512_mul_ps(a, x), f[r][0]);
            f[r][1] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(s[r][1]), _mm512_mul_ps(b, x), f[r][1]);
        }
        if (type != QUANT_Q4_K) continue;
        const __m512 c = _mm512_load_ps(least + g * NC), d = _mm512_load_ps(least + g * NC + 16);
        UNROLL for (int r = 0; r < R; r++) {
            const __m512 x = _mm512_set1_ps(sum[r * groups + g]);
            f[r][0] = _mm512_fnmadd_ps(c, x, f[r][0]);
            f[r][1] = _mm512_fnmadd_ps(d, x, f[r][1]);
        }
    }
    UNROLL for (int r = 0; r < R; r++) {
        finish(j, m + r, n, f[r][0]);
        finish(j, m + r, n + 16, f[r][1]);
    }
}

#define MICROS(type, name)                                                                                             \
    static void name##_pack(const quant_tile_job *j, int64_t n0, uint8_t *level, float *step, float *least) {          \
        pack(type, j, n0, level, step, least);                                                                         \
    }                                                                                                                  \
    static void name##_micro(const quant_tile_job *j, int64_t m, int64_t n, const uint8_t *level, const float *step,   \
                             const float *least, int64_t rows) {                                                       \
        switch (rows) {                                                                                                \
        case 1: micro(type, j, m, n, level, step, least, 1); return;                                                   \
        case 2: micro(type, j, m, n, level, step, least, 2); return;                                                   \
        case 3: micro(type, j, m, n, level, step, least, 3); return;                                                   \
        case 4: micro(type, j, m, n, level, step, least, 4); return;                                                   \
        case 5: micro(type, j, m, n, level, step, least, 5); return;                                                   \
        default: micro(type, j, m, n, level, step, least, 6); return;                                                  \
        }                                                                                                              \
    }
MICROS(QUANT_Q8_0, q8_0)
MICROS(QUANT_Q4_0, q4_0)
MICROS(QUANT_Q4_K, q4_k)
MICROS(QUANT_Q6_K, q6_k)

static const struct {
    void (*pack)(const quant_tile_job *j, int64_t n0, uint8_t *level, float *step, float *least);
    void (*micro)(const quant_tile_job *j, int64_t m, int64_t n, const uint8_t *level, const float *step,
                  const float *least, int64_t rows);
} kinds[] = {[QUANT_Q8_0] = {q8_0_pack, q8_0_micro},
             [QUANT_Q4_0] = {q4_0_pack, q4_0_micro},
             [QUANT_Q4_K] = {q4_k_pack, q4_k_micro},
             [QUANT_Q6_K] = {q6_k_pack, q6_k_micro}};

void quant_tile__avx512vnni(int what, const quant_tile_job *j, int64_t lo, int64_t hi) {
    if (what == QUANT_TILE_ROUND) {
        for (; lo < hi; lo++) round_row(j, lo);
        return;
    }
    const int64_t k = quant_padded(j->k);
    const int64_t level = NC * k, step = NC * (k / quant_tile_group(j->type)), least = NC * (k / 32);
    for (int64_t n = lo; n < hi; n += NC) {
        const int64_t p = (n - lo) / NC;
        kinds[j->type].pack(j, n, j->level + p * level, j->step + p * step, j->least + p * least);
    }
    /* The panels stay in L2, some rows of x in L1 while they pass all panels. */
    for (int64_t m = 0; m < j->m; m += MR)
        for (int64_t n = lo; n < hi; n += NC) {
            const int64_t p = (n - lo) / NC;
            kinds[j->type].micro(j, m, n, j->level + p * level, j->step + p * step, j->least + p * least,
                                 j->m - m < MR ? j->m - m : MR);
        }
}
