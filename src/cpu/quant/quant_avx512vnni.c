/* Products of blocks with blocks: 64 weights as unsigned bytes times 64 signed ones at a time, sums of 4 in a lane.
 * Here the types of 256 weights to a block, eight scales of x, four steps; Q8_0 and Q4_0 in quant_stream_avx512vnni.c.
 */
#include "cpu/quant/quant_levels_body.h"

/* ---- products
 * --------------------------------------------------------------------------------------------------------- */

#ifndef ROWS
enum { ROWS = 4 /* of w at a time with a single row of x */ };
#endif
enum { AHEAD = 32 << 10 }; /* into L2: far enough that the latency of memory does not count */

/* What a lane of step p is multiplied by: groups 2 p and 2 p + 1 of 8; sixteenths of Q6_K. */
INLINE __m512 spread(int type, __m512 scales, int p) {
    const __m512i by = type == QUANT_Q6_K ? _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3)
                                          : _mm512_setr_epi32(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1);
    return _mm512_permutexvar_ps(_mm512_add_epi32(by, _mm512_set1_epi32(type == QUANT_Q6_K ? 4 * p : 2 * p)), scales);
}

/* Scales of a chunk: lanes 0-7, of Q6_K without d all 16. */
INLINE __m512 chunk_scales(int type, const uint8_t *b, __m256 *min) {
    if (type == QUANT_Q6_K)
        return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(b + 192)))),
                             _mm512_set1_ps(f16(b + 208)));
    __m256 s;
    scales_q4_k(b, &s, min);
    return _mm512_castps256_ps512(s);
}

/* R rows of w from n on with M rows of x from m on; R M <= 4. */
INLINE void dot(int type, const quant_job *j, int64_t n, int64_t n0, int64_t m, int R, int M) {
    const int64_t k = quant_padded(j->k);
    const quant_ints *x = j->ints;
    const uint8_t *b[4];
    __m512 sum[4][2];
    __m256 off[4];
    UNROLL for (int i = 0; i < R * M; i++) sum[i][0] = sum[i][1] = _mm512_setzero_ps(), off[i] = _mm256_setzero_ps();
    UNROLL for (int r = 0; r < R; r++) b[r] = j->w + (size_t)(n + r) * j->w_bytes;
    const int64_t ahead = !j->until || b[0] + (size_t)R * j->w_bytes + AHEAD <= j->until ? AHEAD : 0;
    for (int64_t c = 0; c < k / 256; c++) {
        __m512 s[4];
        UNROLL for (int r = 0; r < R; r++) {
            __m256 min;
            UNROLL for (int i = 0; i < (levels_bytes(type) + 63) / 64; i++)
                _mm_prefetch((const char *)b[r] + ahead + 64 * i, _MM_HINT_T1);
            const __m512 own = chunk_scales(type, b[r], &min);
            UNROLL for (int i = 0; i < M; i++) {
                const int64_t g = (m + i) * (k / 32) + 8 * c;
                __m512 xs = _mm512_castps256_ps512(_mm256_loadu_ps(x->scale + g));
                if (type == QUANT_Q6_K) /* each for two sixteenths */
                    xs = _mm512_permutexvar_ps(_mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7), xs);
                s[r * M + i] = _mm512_mul_ps(own, xs);
                if (type == QUANT_Q4_K)
                    off[r * M + i] = _mm256_fmadd_ps(min, _mm256_loadu_ps(x->sum + g), off[r * M + i]);
            }
        }
        UNROLL for (int p = 0; p < 4; p++) UNROLL for (int r = 0; r < R; r++) {
            const __m512i u = levels_of(type, b[r], p);
            UNROLL for (int i = 0; i < M; i++) {
                const int64_t at = (m + i) * k + 256 * c + 64 * p;
                const __m512i from =
                    type == QUANT_Q4_K ? _mm512_setzero_si512() : _mm512_loadu_si512(x->shift + at / 4);
                const __m512i d = _mm512_dpbusd_epi32(from, u, _mm512_loadu_si512(x->q + at));
                __m512 *to = &sum[r * M + i][p % 2];
                *to = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d), spread(type, s[r * M + i], p), *to);
            }
        }
        UNROLL for (int r = 0; r < R; r++) b[r] += levels_bytes(type);
    }
    UNROLL for (int r = 0; r < R; r++) UNROLL for (int i = 0; i < M; i++) {
        float y = _mm512_reduce_add_ps(_mm512_add_ps(sum[r * M + i][0], sum[r * M + i][1]));
        if (type == QUANT_Q4_K) y -= _mm512_reduce_add_ps(_mm512_zextps256_ps512(off[r * M + i]));
        j->out[(m + i) * j->out_row + n + r - n0] = y;
    }
}

INLINE void dots(int type, const quant_job *j, int64_t n0, int64_t n1) {
    int64_t m = 0;
    for (; m + 4 <= j->m; m += 4)
        for (int64_t n = n0; n < n1; n++) dot(type, j, n, n0, m, 1, 4);
    for (; m < j->m; m++) {
        int64_t n = n0;
        for (; n + ROWS <= n1; n += ROWS) dot(type, j, n, n0, m, ROWS, 1);
        for (; n < n1; n++) dot(type, j, n, n0, m, 1, 1);
    }
}

/* ---- x
 * ------------------------------------------------------------------------------------------------------------------ */

static void ints_of(const quant_job *j, int64_t m) {
    const int type = j->type;
    const quant_ints *o = j->ints;
    const __m512i minus = _mm512_set1_epi32(-levels_high(j->type));
    const int64_t k = quant_padded(j->k);
    for (int64_t c = 0; c < k / 256; c++) {
        int32_t fours[64];
        float room[QUANT_CHUNK];
        const __m256 scale = levels_round(levels_x(j->x + m * j->x_row, j->k, c, room), o->q + m * k + 256 * c, fours);
        const int64_t at = m * (k / 32) + 8 * c;
        _mm256_storeu_ps(o->scale + at, scale);
        if (type == QUANT_Q4_K)
            _mm256_storeu_ps(o->sum + at, _mm256_mul_ps(scale, _mm256_cvtepi32_ps(sums_of_32(fours))));
        else
            UNROLL for (int i = 0; i < 4; i++)
                _mm512_storeu_si512(o->shift + m * (k / 4) + 64 * c + 16 * i,
                                    _mm512_mullo_epi32(_mm512_loadu_si512(fours + 16 * i), minus));
    }
}

void quant_ints__avx512vnni(int what, const quant_job *j, int64_t n0, int64_t n1) {
    if (quant_streams(j->type)) {
        quant_stream__avx512vnni(what, j, n0, n1);
        return;
    }
    if (what == QUANT_INTS) {
        for (int64_t m = n0; m < n1; m++) ints_of(j, m);
        return;
    }
    if (j->type == QUANT_Q4_K)
        dots(QUANT_Q4_K, j, n0, n1);
    else
        dots(QUANT_Q6_K, j, n0, n1);
}
