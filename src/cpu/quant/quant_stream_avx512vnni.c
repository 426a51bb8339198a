/* Products of Q8_0 and Q4_0 with x in whole numbers, from rows as they lie. Blocks of 34 and 18 bytes begin anywhere in
 * a vector of 64, and taking each apart costs more than multiplying it. So a row is read as a stream: since a block has
 * two bytes of scale and 34 and 18 are 2 mod 4, no lane of 4 bytes holds weights of two blocks, and where x is laid out
 * like the row, with zeros in place of scales, a dot product of bytes gives every lane the sum of 4 weights of one
 * block. After 32 blocks (17 and 9 vectors) the pattern begins anew: a table says which block's scale a lane takes. The
 * scales of the rows that come next are collected meanwhile by scalar moves, for which the processor has room left. */
#include "cpu/quant/quant_levels_body.h"

/* Far enough that memory, not the latency of it, is the limit; into L2, since L1 does not keep as much as four rows
 * need until then, and so that the few buffers between L1 and L2 stay free. */
enum { AHEAD = 64 << 10 };

enum { GROUP = 32 /* blocks */, ROWS = 4 /* of w at a time */, HALVES = ROWS * GROUP /* scales of a group */ };

#define VECTORS(type) ((type) == QUANT_Q8_0 ? 17 : 9)    /* of a group */
#define X_BYTES(type) ((type) == QUANT_Q8_0 ? 128 : 192) /* of x beside a vector */
#define EACH(type)    (GROUP / (VECTORS(type) - 1))      /* scales collected beside a vector, but the last */

/* Byte 64 v + 4 l of a group lies in block (64 v + 4 l) / bytes. */
#define LANES_OF(n, bytes)                                                                                             \
    {                                                                                                                  \
        ((n) + 0) / (bytes), ((n) + 4) / (bytes), ((n) + 8) / (bytes), ((n) + 12) / (bytes), ((n) + 16) / (bytes),     \
            ((n) + 20) / (bytes), ((n) + 24) / (bytes), ((n) + 28) / (bytes), ((n) + 32) / (bytes),                    \
            ((n) + 36) / (bytes), ((n) + 40) / (bytes), ((n) + 44) / (bytes), ((n) + 48) / (bytes),                    \
            ((n) + 52) / (bytes), ((n) + 56) / (bytes), ((n) + 60) / (bytes)                                           \
    }
static const _Alignas(64) int32_t lanes_q8_0[17][16] = {
    LANES_OF(0, 34),   LANES_OF(64, 34),  LANES_OF(128, 34), LANES_OF(192, 34), LANES_OF(256, 34), LANES_OF(320, 34),
    LANES_OF(384, 34), LANES_OF(448, 34), LANES_OF(512, 34), LANES_OF(576, 34), LANES_OF(640, 34), LANES_OF(704, 34),
    LANES_OF(768, 34), LANES_OF(832, 34), LANES_OF(896, 34), LANES_OF(960, 34), LANES_OF(1024, 34)};
static const _Alignas(64) int32_t lanes_q4_0[9][16] = {LANES_OF(0, 18),   LANES_OF(64, 18),  LANES_OF(128, 18),
                                                       LANES_OF(192, 18), LANES_OF(256, 18), LANES_OF(320, 18),
                                                       LANES_OF(384, 18), LANES_OF(448, 18), LANES_OF(512, 18)};

/* ---- products -----------------------------------------------------------------------------------------------------
 */

INLINE uint16_t half_at(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return h;
}

/* Scales of the next EACH blocks. */
INLINE void collect(int type, const uint8_t *from, uint16_t *to) {
    const int64_t size = quant_block_bytes(type);
    to[0] = half_at(from);
    to[1] = half_at(from + size);
    if (EACH(type) < 4) return;
    to[2] = half_at(from + 2 * size);
    to[3] = half_at(from + 3 * size);
}

/* Scales of `n` blocks of R rows as [row][block]. */
INLINE void collect_some(int type, const uint8_t *const w[ROWS], int64_t from, int64_t got, int64_t n, int R,
                         uint16_t *to) {
    for (; got < n; got++) {
        UNROLL for (int r = 0; r < R; r++) to[r * GROUP + got] = half_at(w[r] + from + got * quant_block_bytes(type));
    }
}

INLINE int64_t blocks_of(const quant_job *j, int64_t g) {
    const int64_t left = j->k / 32 - g * GROUP;
    return left < GROUP ? left : GROUP;
}

/* One piece of work after the other: R rows of w with M rows of x from m on, R M <= 4. */
typedef struct stream_rows {
    const quant_job *j;
    const uint8_t *w;
    int64_t m;
    int64_t next;          /* to the rows that follow */
    int64_t ahead;         /* to what is fetched */
    uint16_t *half, *then; /* scales of this group of blocks, of the next */
} stream_rows;

/* The sums of one vector of each row, `some` of its bytes. x: what is multiplied with the first of M. */
INLINE void vector_dot(int type, const int8_t *x, int64_t x_row, const uint8_t *const w[ROWS], int64_t at,
                       const int32_t *lanes, const __m512 scale[4][2], __mmask64 some, int R, int M, __m512 sum[4]) {
    const __m512i fifteen = _mm512_set1_epi8(15), lane = _mm512_load_si512(lanes);
    UNROLL for (int r = 0; r < R; r++) {
        __m512i u = ~some ? _mm512_maskz_loadu_epi8(some, w[r] + at) : _mm512_loadu_si512(w[r] + at), high = u;
        __asm__("" : "+v"(u)); /* one load of what crosses cache lines, not one for each use */
        if (type == QUANT_Q8_0) {
            u = _mm512_xor_si512(u, _mm512_set1_epi8(-128));
        } else {
            high = _mm512_and_si512(_mm512_srli_epi16(u, 4), fifteen);
            u = _mm512_and_si512(u, fifteen);
        }
        UNROLL for (int i = 0; i < M; i++) {
            const int8_t *q = x + i * x_row;
            __m512i d = _mm512_load_si512(q + X_BYTES(type) - 64);
            d = _mm512_dpbusd_epi32(d, u, _mm512_load_si512(q));
            if (type == QUANT_Q4_0) d = _mm512_dpbusd_epi32(d, high, _mm512_load_si512(q + 64));
            const __m512 s = _mm512_permutex2var_ps(scale[r * M + i][0], lane, scale[r * M + i][1]);
            sum[r * M + i] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(d), s, sum[r * M + i]);
        }
    }
}

/* What the sums of group g are multiplied by: scales of R rows times those of M, none behind the last block. */
INLINE void group_scales(const quant_ints *x, int64_t m, const uint16_t *half, int64_t g, int64_t blocks, int R, int M,
                         __m512 scale[4][2]) {
    UNROLL for (int h = 0; h < 2; h++) {
        const int64_t n = blocks - 16 * h;
        const __mmask16 some = (__mmask16)(n >= 16 ? 0xffff : n > 0 ? (1 << n) - 1 : 0);
        UNROLL for (int r = 0; r < R; r++) {
            const __m256i bits = _mm256_loadu_si256((const void *)(half + r * GROUP + 16 * h));
            const __m512 own = _mm512_maskz_cvtph_ps(some, bits);
            UNROLL for (int i = 0; i < M; i++) scale[r * M + i][h] =
                _mm512_mul_ps(own, _mm512_loadu_ps(x->scale + (m + i) * x->scale_row + g * GROUP + 16 * h));
        }
    }
}

INLINE void stream_dot(int type, stream_rows *p, int R, int M, float *out, int64_t out_row) {
    const quant_job *j = p->j;
    const quant_ints x = *j->ints;
    const int64_t size = quant_block_bytes(type), row = j->k / 32 * size, m = p->m;
    const int64_t groups = (j->k / 32 + GROUP - 1) / GROUP;
    const int8_t *q = x.q + m * x.q_row;
    const uint8_t *w[ROWS];
    uint16_t *half = p->half, *then = p->then;
    __m512 sum[4], scale[4][2];
    UNROLL for (int r = 0; r < R; r++) w[r] = p->w + (size_t)r * j->w_bytes;
    UNROLL for (int i = 0; i < R * M; i++) sum[i] = _mm512_setzero_ps();
    int64_t at = 0, fetch = p->ahead;
    for (int64_t g = 0; g < groups; g++) {
        const bool last = g + 1 == groups;
        const int64_t end = last ? row : at + 64 * VECTORS(type);
        const int64_t first = last ? p->next : end, wanted = blocks_of(j, last ? 0 : g + 1);
        const int32_t(*lanes)[16] = type == QUANT_Q8_0 ? lanes_q8_0 : lanes_q4_0;
        int64_t from = first, got = 0;
        group_scales(&x, m, half, g, blocks_of(j, g), R, M, scale);
        for (; at + 64 <= end; at += 64, fetch += 64, q += X_BYTES(type)) {
            UNROLL for (int r = 0; r < R; r++) _mm_prefetch((const char *)w[r] + fetch, _MM_HINT_T1);
            vector_dot(type, q, x.q_row, w, at, *lanes++, scale, ~(__mmask64)0, R, M, sum);
            if (got + EACH(type) > wanted) continue;
            UNROLL for (int r = 0; r < R; r++) collect(type, w[r] + from, then + r * GROUP + got);
            from += EACH(type) * size, got += EACH(type);
        }
        if (at < end) {
            UNROLL for (int r = 0; r < R; r++) _mm_prefetch((const char *)w[r] + fetch, _MM_HINT_T1);
            vector_dot(type, q, x.q_row, w, at, *lanes, scale, ((__mmask64)1 << (end - at)) - 1, R, M, sum);
        }
        collect_some(type, w, first, got, wanted, R, then);
        uint16_t *const mine = half;
        half = then, then = mine;
    }
    p->half = half, p->then = then;
    UNROLL for (int r = 0; r < R; r++) {
        UNROLL for (int i = 0; i < M; i++) out[i * out_row + r] = _mm512_reduce_add_ps(sum[r * M + i]);
    }
}

/* As many times R rows of w from n on as there are before n1, with M rows of x from m on: the row behind them. */
INLINE int64_t stream_some(int type, const quant_job *j, int64_t n, int64_t n1, int64_t m, int R, int M, float *out) {
    const size_t step = (size_t)R * j->w_bytes;
    stream_rows p = {.j = j, .m = m, .half = j->ints->half, .then = j->ints->half + HALVES};
    p.w = j->w + (size_t)n * j->w_bytes;
    if (n + R <= n1) {
        const uint8_t *w[ROWS];
        UNROLL for (int r = 0; r < R; r++) w[r] = p.w + (size_t)r * j->w_bytes;
        collect_some(type, w, 0, 0, blocks_of(j, 0), R, p.half);
    }
    for (; n + R <= n1; n += R, p.w += step) {
        p.next = n + 2 * R <= n1 ? (int64_t)step : 0;
        p.ahead = !j->until || p.w + step + AHEAD <= j->until ? AHEAD : 0;
        stream_dot(type, &p, R, M, out + n, j->out_row);
    }
    return n;
}

/* Rows [n0, n1) of w with M rows of x from m on. */
INLINE void stream_rows_of(int type, const quant_job *j, int64_t n0, int64_t n1, int64_t m, int R, int M) {
    float *out = j->out + m * j->out_row - n0;
    const int64_t n = stream_some(type, j, n0, n1, m, R, M, out);
    if (R > 1) stream_some(type, j, n, n1, m, 1, M, out);
}

INLINE void stream_all(int type, const quant_job *j, int64_t n0, int64_t n1) {
    int64_t m = 0;
    for (; m + 4 <= j->m; m += 4) stream_rows_of(type, j, n0, n1, m, 1, 4);
    for (; m + 2 <= j->m; m += 2) stream_rows_of(type, j, n0, n1, m, 2, 2);
    if (m < j->m) stream_rows_of(type, j, n0, n1, m, ROWS, 1);
}

/* ---- x ------------------------------------------------------------------------------------------------------------
 */

static void stream_round(const quant_job *j, int64_t m) {
    const quant_ints *o = j->ints;
    const bool nibbles = j->type == QUANT_Q4_0;
    const int64_t blocks = j->k / 32, size = quant_block_bytes(j->type), step = X_BYTES(j->type);
    int8_t *to = o->q + m * o->q_row;
    float *scale = o->scale + m * o->scale_row;
    memset(to, 0, (size_t)o->q_row);
    memset(scale + blocks, 0, (size_t)(o->scale_row - blocks) * sizeof *scale);
    for (int64_t c = 0; c < quant_chunks(j->k); c++) {
        int32_t fours[64];
        float room[QUANT_CHUNK], eight[8];
        int8_t q[QUANT_CHUNK];
        const int64_t n = blocks - 8 * c < 8 ? blocks - 8 * c : 8;
        _mm256_storeu_ps(eight, levels_round(levels_x(j->x + m * j->x_row, j->k, c, room), q, fours));
        memcpy(scale + 8 * c, eight, (size_t)n * sizeof *eight);
        for (int64_t i = 0; i < 32 * n; i += 16) { /* 16 bytes reach into a second vector at most */
            const int64_t block = 8 * c + i / 32, byte = block * size + 2 + (nibbles ? 0 : i % 32);
            const int64_t at = byte / 64 * step + byte % 64 + (nibbles && i % 32 ? 64 : 0);
            const int64_t first = 64 - byte % 64 < 16 ? 64 - byte % 64 : 16;
            memcpy(to + at, q + i, (size_t)first);
            memcpy(to + at + first + step - 64, q + i + first, (size_t)(16 - first));
        }
    }
    const __m512i ones = _mm512_set1_epi8(1);
    for (int8_t *end = to + o->q_row; to < end; to += step) {
        __m512i s = _mm512_dpbusd_epi32(_mm512_setzero_si512(), ones, _mm512_load_si512(to));
        if (nibbles) s = _mm512_dpbusd_epi32(s, ones, _mm512_load_si512(to + 64));
        s = _mm512_mullo_epi32(s, _mm512_set1_epi32(-levels_high(j->type)));
        _mm512_store_si512(to + step - 64, s);
    }
}

/* What the first rows' products would wait for arrives while x is rounded. */
static void stream_begin(const quant_job *j) {
    const uint8_t *end = j->begin + AHEAD < j->until ? j->begin + AHEAD : j->until;
    for (const uint8_t *w = j->begin; w < end; w += 64) _mm_prefetch((const char *)w, _MM_HINT_T1);
}

void quant_stream__avx512vnni(int what, const quant_job *j, int64_t n0, int64_t n1) {
    if (what == QUANT_INTS) {
        if (j->begin) stream_begin(j);
        for (int64_t m = n0; m < n1; m++) stream_round(j, m);
    } else if (j->type == QUANT_Q8_0) {
        stream_all(QUANT_Q8_0, j, n0, n1);
    } else {
        stream_all(QUANT_Q4_0, j, n0, n1);
    }
}
