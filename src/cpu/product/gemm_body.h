/* The body of gemm_avx2.c and gemm_avx512.c. */
#include "cpu/product/gemm.h"
#include "cpu/simd.h"

enum { NV = 3, NR = NV * SIMD_W };
#define GEMM_UNROLL _Pragma("GCC unroll 16")

static inline const void *gemm_at(const gemm_matrix *x, int64_t i, int64_t j) {
    const int64_t at = i * x->row + j * x->col;
    return (const char *)x->p + (x->type == GEMM_F32 ? 4 : 2) * at;
}

static inline vf gemm_load(int type, const void *p, int64_t n) {
    return type == GEMM_F32 ? vf_load_n(p, n) : type == GEMM_BF16 ? vf_load_bf16_n(p, n) : vf_load_f16_n(p, n);
}
static inline vf gemm_load_all(int type, const void *p) {
    return type == GEMM_F32 ? vf_load(p) : type == GEMM_BF16 ? vf_load_bf16(p) : vf_load_f16(p);
}

#if SIMD_W == 16
static inline void gemm_transpose(vf r[16]) {
    vf t[16];
    GEMM_UNROLL for (int i = 0; i < 16; i += 4) {
        const vf a = _mm512_unpacklo_ps(r[i], r[i + 1]), b = _mm512_unpackhi_ps(r[i], r[i + 1]);
        const vf c = _mm512_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm512_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm512_shuffle_ps(a, c, 0x44), t[i + 1] = _mm512_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm512_shuffle_ps(b, d, 0x44), t[i + 3] = _mm512_shuffle_ps(b, d, 0xee);
    }
    GEMM_UNROLL for (int i = 0; i < 4; i++) {
        const vf a = _mm512_shuffle_f32x4(t[i], t[i + 4], 0x88), b = _mm512_shuffle_f32x4(t[i], t[i + 4], 0xdd);
        const vf c = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0x88),
                 d = _mm512_shuffle_f32x4(t[i + 8], t[i + 12], 0xdd);
        r[i] = _mm512_shuffle_f32x4(a, c, 0x88), r[i + 8] = _mm512_shuffle_f32x4(a, c, 0xdd);
        r[i + 4] = _mm512_shuffle_f32x4(b, d, 0x88), r[i + 12] = _mm512_shuffle_f32x4(b, d, 0xdd);
    }
}
#else
static inline void gemm_transpose(vf r[8]) {
    vf t[8];
    GEMM_UNROLL for (int i = 0; i < 8; i += 4) {
        const vf a = _mm256_unpacklo_ps(r[i], r[i + 1]), b = _mm256_unpackhi_ps(r[i], r[i + 1]);
        const vf c = _mm256_unpacklo_ps(r[i + 2], r[i + 3]), d = _mm256_unpackhi_ps(r[i + 2], r[i + 3]);
        t[i] = _mm256_shuffle_ps(a, c, 0x44), t[i + 1] = _mm256_shuffle_ps(a, c, 0xee);
        t[i + 2] = _mm256_shuffle_ps(b, d, 0x44), t[i + 3] = _mm256_shuffle_ps(b, d, 0xee);
    }
    GEMM_UNROLL for (int i = 0; i < 4; i++) {
        r[i] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x20);
        r[i + 4] = _mm256_permute2f128_ps(t[i], t[i + 4], 0x31);
    }
}
#endif

/* Packs up to SIMD_W rows of up to SIMD_W contiguous elements as columns; all: neither is short. */
static inline __attribute__((always_inline)) void gemm_pack_square(const int type, const char *p, int64_t stride,
                                                                   int64_t rows, int64_t k, int64_t lanes,
                                                                   int64_t width, float *out, const bool all) {
    vf v[SIMD_W];
    GEMM_UNROLL for (int64_t i = 0; i < SIMD_W; i++, p += stride) v[i] = all         ? gemm_load_all(type, p)
                                                                         : i >= rows ? vf_zero()
                                                                                     : gemm_load(type, p, k);
    gemm_transpose(v);
    GEMM_UNROLL for (int64_t i = 0; i < SIMD_W; i++, out += width) {
        if (all)
            vf_store(out, v[i]);
        else if (i < k)
            vf_store_n(out, v[i], lanes);
    }
}

/* Packs `rows` (at most `width`) rows of k contiguous elements, distance `stride`, as [k][width], zeros past rows. */
static inline void gemm_pack_across(const int type, const void *p, int64_t stride, int64_t rows, int64_t k,
                                    int64_t width, float *out) {
    const int64_t size = type == GEMM_F32 ? 4 : 2;
    for (int64_t r0 = 0; r0 < width; r0 += SIMD_W) {
        const char *q = (const char *)p + size * r0 * stride;
        const int64_t lanes = width - r0, have = rows - r0;
        int64_t k0 = 0;
        for (; have >= SIMD_W && lanes >= SIMD_W && k0 + SIMD_W <= k; k0 += SIMD_W)
            gemm_pack_square(type, q + size * k0, size * stride, SIMD_W, SIMD_W, SIMD_W, width, out + k0 * width + r0,
                             true);
        for (; k0 < k; k0 += SIMD_W)
            gemm_pack_square(type, q + size * k0, size * stride, have, k - k0, lanes, width, out + k0 * width + r0,
                             false);
    }
}

/* Packs k rows of `cols` (at most `width`) contiguous elements as [k][width], zeros past cols. */
static inline void gemm_pack_along(int type, const void *p, int64_t stride, int64_t cols, int64_t k, int64_t width,
                                   float *out) {
    const size_t size = type == GEMM_F32 ? 4 : 2;
    for (int64_t i = 0; i < k; i++) {
        const char *row = (const char *)p + size * (size_t)(i * stride);
        for (int64_t c = 0; c < width; c += SIMD_W) {
            const vf v = cols - c >= SIMD_W ? gemm_load_all(type, row + size * (size_t)c)
                         : cols > c         ? gemm_load(type, row + size * (size_t)c, cols - c)
                                            : vf_zero();
            if (width - c >= SIMD_W)
                vf_store(out + i * width + c, v);
            else
                vf_store_n(out + i * width + c, v, width - c);
        }
    }
}

static inline void gemm_pack(bool across, int type, const void *p, int64_t stride, int64_t have, int64_t k,
                             int64_t width, float *out) {
    /* Constant types let the compiler lift the choice out of the loops. */
    if (across) {
        if (type == GEMM_F32)
            gemm_pack_across(GEMM_F32, p, stride, have, k, width, out);
        else if (type == GEMM_BF16)
            gemm_pack_across(GEMM_BF16, p, stride, have, k, width, out);
        else
            gemm_pack_across(GEMM_F16, p, stride, have, k, width, out);
    } else {
        if (type == GEMM_F32)
            gemm_pack_along(GEMM_F32, p, stride, have, k, width, out);
        else if (type == GEMM_BF16)
            gemm_pack_along(GEMM_BF16, p, stride, have, k, width, out);
        else
            gemm_pack_along(GEMM_F16, p, stride, have, k, width, out);
    }
}

#if SIMD_W == 16
static inline void gemm_put(float *out, int64_t sliver, vf v) { /* sixteen rows of two slivers */
    _mm256_storeu_ps(out, _mm512_castps512_ps256(v));
    _mm256_storeu_ps(out + sliver, _mm512_extractf32x8_ps(v, 1));
}
#else
static inline void gemm_put(float *out, int64_t sliver, vf v) {
    (void)sliver;
    vf_store(out, v);
}
#endif

/* Slivers of rows i0 .. of k values from k0 on, as many as a line of A's memory holds; their sums too, in blocks of k
 * so that the error grows with the block. */
static inline void gemm_pack_line(const gemm_job *j, const int type, int64_t i0, int64_t k0, int64_t k, float *to,
                                  float *sum) {
    enum { MOST = 32 / SIMD_W };
    const int64_t have = j->m - i0, sliver = GEMM_MR * k, whole = (type == GEMM_F32 ? 16 : 32) / SIMD_W;
    const int n = (int)(have < whole * SIMD_W ? (have + SIMD_W - 1) / SIMD_W : whole);
    vf part[MOST], all[MOST];
    for (int v = 0; v < n; v++) part[v] = all[v] = vf_zero();
    for (int64_t q = 0; q < k; q++) {
        const char *row = gemm_at(&j->a, i0, k0 + q);
        for (int v = 0; v < n; v++) {
            const char *p = row + v * SIMD_W * (type == GEMM_F32 ? 4 : 2);
            const int64_t rest = have - v * SIMD_W;
            const vf x = rest >= SIMD_W ? gemm_load_all(type, p) : rest > 0 ? gemm_load(type, p, rest) : vf_zero();
            gemm_put(to + v * (SIMD_W / GEMM_MR) * sliver + q * GEMM_MR, sliver, x);
            part[v] = vf_add(part[v], x);
        }
        if (q % 64 != 63 && q + 1 < k) continue;
        for (int v = 0; v < n; v++) all[v] = vf_add(all[v], part[v]), part[v] = vf_zero();
    }
    for (int v = 0; v < n; v++) vf_store(sum + v * SIMD_W, all[v]);
}

static void gemm_pack_lines(const gemm_job *j, int64_t s, int64_t k0, int64_t k, float *to, bool sums) {
    float sum[32];
    const int64_t i0 = s * GEMM_MR, rows = j->a.type == GEMM_F32 ? 16 : 32;
    if (j->a.type == GEMM_F32)
        gemm_pack_line(j, GEMM_F32, i0, k0, k, to, sum);
    else if (j->a.type == GEMM_BF16)
        gemm_pack_line(j, GEMM_BF16, i0, k0, k, to, sum);
    else
        gemm_pack_line(j, GEMM_F16, i0, k0, k, to, sum);
    for (int64_t i = 0; sums && j->row_sum && i < rows && i0 + i < j->m; i++)
        j->row_sum[i0 + i] = j->row_sum_add || k0 > 0 ? j->row_sum[i0 + i] + sum[i] : sum[i];
}

/* lo is a multiple of GEMM_FLY; sums belong to an A whose rows lie side by side. */
static void gemm_pack_a(const gemm_job *j, int64_t lo, int64_t hi) {
    const bool across = j->a.col == 1 && !j->row_sum;
    const int64_t step = across ? 1 : j->a.type == GEMM_F32 ? 2 : 4;
    for (int64_t s = lo; s < hi; s += step) {
        float *out = j->pack_a + s * GEMM_MR * j->k;
        if (!across) {
            gemm_pack_lines(j, s, 0, j->k, out, true);
            continue;
        }
        const int64_t have = j->m - s * GEMM_MR < GEMM_MR ? j->m - s * GEMM_MR : GEMM_MR;
        gemm_pack(true, j->a.type, gemm_at(&j->a, s * GEMM_MR, 0), j->a.row, have, j->k, GEMM_MR, out);
    }
}

/* What becomes of a block's sum. */
typedef struct gemm_end {
    const float *from; /* partial sum of the blocks before, or NULL */
    float *to;         /* where the partial sum goes, or NULL: this was the last block */
    int64_t part_row;  /* from one row of partial sums to the next */
    void *c;
    int type;
    bool add;
    const float *bias;
    int64_t c_row, rows, cols;
} gemm_end;

static inline void gemm_finish(const gemm_end *e, int64_t i, int64_t v, vf sum) {
    const int64_t at = v * SIMD_W, n = e->cols - at;
    if (n <= 0) return;
    if (e->from) sum = vf_add(vf_load_n(e->from + i * e->part_row + at, n), sum);
    if (e->to) {
        vf_store_n(e->to + i * e->part_row + at, sum, n);
        return;
    }
    if (e->bias) sum = vf_add(sum, vf_load_n(e->bias + at, n));
    if (e->type == GEMM_F32) {
        float *c = (float *)e->c + i * e->c_row + at;
        if (e->add) sum = vf_add(vf_load_n(c, n), sum);
        vf_store_n(c, sum, n);
    } else if (e->type == GEMM_BF16) {
        uint16_t *c = (uint16_t *)e->c + i * e->c_row + at;
        if (e->add) sum = vf_add(vf_load_bf16_n(c, n), sum);
        vf_store_bf16_n(c, sum, n);
    } else {
        uint16_t *c = (uint16_t *)e->c + i * e->c_row + at;
        if (e->add) sum = vf_add(vf_load_f16_n(c, n), sum);
        vf_store_f16_n(c, sum, n);
    }
}

/* A's sliver as the sums read it: packed ([k][row]), or where it lies (rows of contiguous k). */
typedef struct gemm_sliver {
    const float *p;    /* its first element */
    int64_t row;       /* distance of rows where it lies */
    const char *ahead; /* what will be read next, fetched into L2 on the way, since A as a whole does not stay there:
                           a line for every 8 k, `step` bytes apart; where it lies, of two rows in turn */
    int64_t step;
} gemm_sliver;

/* Lines of memory on their way into L2: so many for each block of sums. */
typedef struct gemm_walk {
    const char *p;
    int64_t left, line, jump; /* lines of this piece; of each; bytes from behind one to the next */
    int64_t rest, each;       /* lines in all; for a block of sums */
} gemm_walk;

static inline gemm_walk gemm_walk_of(const gemm_next *n, int64_t calls, int64_t kc) {
    gemm_walk w = {.p = n->p, .line = (n->bytes + 63) / 64};
    w.left = w.line;
    w.jump = n->step - 64 * w.line;
    w.rest = w.line * n->rows;
    w.each = (w.rest + calls - 1) / calls;
    if (w.each > kc / 8) w.each = kc / 8;
    return w;
}

/* One block of sums: GEMM_MR rows (in two halves where registers are few) by nv vectors over k. What they will be added
 * to is fetched while they are made, a line now and then (where A is packed: weight gradients, which always add). Rows
 * past the end of an A that is read where it lies are its last row again. */
#if SIMD_W == 16
enum { GEMM_HALF = GEMM_MR };
#else
enum { GEMM_HALF = GEMM_MR / 2 };
#endif
enum { MICRO_PLAIN, MICRO_WALK, MICRO_RIGHT }; /* with a walk; with B where it lies */
#define GEMM_MICRO(name, nv, packed, mode)                                                                             \
    static void name(int64_t k, const gemm_sliver *a, const float *b, int64_t b_next, const gemm_end *e,               \
                     gemm_walk *walk) {                                                                                \
        const int64_t b_row = mode == MICRO_RIGHT ? b_next : NR, soon = 8 * b_row;                                     \
        gemm_walk w = {0};                                                                                             \
        int64_t lines = 0;                                                                                             \
        if (mode == MICRO_WALK) w = *walk, lines = w.each < w.rest ? w.each : w.rest, w.rest -= lines;                 \
        for (int h = 0; h < GEMM_MR; h += GEMM_HALF) {                                                                 \
            if (h >= e->rows) break;                                                                                   \
            vf s[GEMM_HALF][nv];                                                                                       \
            const float *pa = a->p + h, *pb = b, *row[GEMM_HALF];                                                      \
            const char *const fetch = e->from ? (const char *)e->from : e->add ? (const char *)e->c : 0;               \
            const int64_t fetch_row = e->from ? 4 * e->part_row : (e->type == GEMM_F32 ? 4 : 2) * e->c_row;            \
            const int64_t far = packed ? 0 : 4 * (a->row - 8);                                                         \
            GEMM_UNROLL for (int i = 0; i < GEMM_HALF; i++) {                                                          \
                GEMM_UNROLL for (int v = 0; v < nv; v++) s[i][v] = vf_zero();                                          \
                row[i] = packed ? 0 : a->p + (h + i < e->rows ? h + i : e->rows - 1) * a->row;                         \
            }                                                                                                          \
            for (int64_t q = 0; q < k; q++, pa += GEMM_MR, pb += b_row) {                                              \
                if (q % 8 == 0) {                                                                                      \
                    _mm_prefetch(a->ahead + (packed ? (q >> 3) * a->step : 4 * q + (q & 8 ? far : 0)), _MM_HINT_T1);   \
                    if (mode == MICRO_WALK && lines > 0) {                                                             \
                        _mm_prefetch(w.p, _MM_HINT_T1);                                                                \
                        lines--;                                                                                       \
                        w.p += 64;                                                                                     \
                        if (--w.left == 0) w.p += w.jump, w.left = w.line;                                             \
                    }                                                                                                  \
                }                                                                                                      \
                if (packed && fetch && q % 8 == 4 && q < 64 * nv)                                                      \
                    _mm_prefetch(fetch + (q >> 3 & 7) * fetch_row + (q >> 6) * 64, _MM_HINT_T0);                       \
                _mm_prefetch((const char *)(pb + soon), _MM_HINT_T0);                                                  \
                if (SIMD_W == 16) {                                                                                    \
                    _mm_prefetch((const char *)(pb + soon + 16), _MM_HINT_T0);                                         \
                    _mm_prefetch((const char *)(pb + soon + 32), _MM_HINT_T0);                                         \
                }                                                                                                      \
                vf y[nv];                                                                                              \
                GEMM_UNROLL for (int v = 0; v < nv; v++) y[v] = vf_load(pb + v * SIMD_W);                              \
                GEMM_UNROLL for (int i = 0; i < GEMM_HALF; i++) {                                                      \
                    const vf x = vf_set(packed ? pa[i] : row[i][q]);                                                   \
                    GEMM_UNROLL for (int v = 0; v < nv; v++) s[i][v] = vf_fma(x, y[v], s[i][v]);                       \
                }                                                                                                      \
            }                                                                                                          \
            GEMM_UNROLL for (int i = 0; i < GEMM_HALF; i++) {                                                          \
                if (h + i >= e->rows) break;                                                                           \
                GEMM_UNROLL for (int v = 0; v < nv; v++) gemm_finish(e, h + i, v, s[i][v]);                            \
            }                                                                                                          \
        }                                                                                                              \
        if (mode == MICRO_WALK) *walk = w;                                                                             \
    }
#define GEMM_MICROS(nv)                                                                                                \
    GEMM_MICRO(gemm_direct##nv, nv, false, MICRO_PLAIN)                                                                \
    GEMM_MICRO(gemm_direct_walk##nv, nv, false, MICRO_WALK)                                                            \
    GEMM_MICRO(gemm_direct_right##nv, nv, false, MICRO_RIGHT)                                                          \
    GEMM_MICRO(gemm_packed##nv, nv, true, MICRO_PLAIN)                                                                 \
    GEMM_MICRO(gemm_packed_walk##nv, nv, true, MICRO_WALK)                                                             \
    GEMM_MICRO(gemm_packed_right##nv, nv, true, MICRO_RIGHT)
GEMM_MICROS(1)
GEMM_MICROS(2)
GEMM_MICROS(3)

typedef void gemm_micro(int64_t k, const gemm_sliver *a, const float *b, int64_t b_row, const gemm_end *e,
                        gemm_walk *walk);
#define GEMM_WIDTHS(name)                                                                                              \
    { name##1, name##2, name##3 }
static gemm_micro *const gemm_micros[2][3][3] = {
    {GEMM_WIDTHS(gemm_direct), GEMM_WIDTHS(gemm_direct_walk), GEMM_WIDTHS(gemm_direct_right)},
    {GEMM_WIDTHS(gemm_packed), GEMM_WIDTHS(gemm_packed_walk), GEMM_WIDTHS(gemm_packed_right)}};

static void gemm_pack_b(const gemm_job *j, int64_t k0, int64_t k, int64_t col0, int64_t col1, float *to,
                        int64_t depth) {
    const bool across = j->b.row == 1 && (j->b.col != 1 || j->n > 1);
    for (int64_t c = col0; c < col1; c += NR, to += NR * depth) {
        const int64_t have = col1 - c < NR ? col1 - c : NR;
        gemm_pack(across, j->b.type, gemm_at(&j->b, k0, c), across ? j->b.col : j->b.row, have, k, NR, to);
    }
}

static void gemm_tile(const gemm_job *j, int64_t lo, int64_t hi, int64_t col0, int64_t col1) {
    const int64_t block = gemm_block(j->k), panels = (col1 - col0 + NR - 1) / NR;
    for (int64_t k0 = 0; k0 < j->k; k0 += block) {
        const int64_t kc = j->k - k0 < block ? j->k - k0 : block;
        const int64_t depth = j->panels ? j->depth : kc, b_row = j->direct_b ? j->b.row : NR;
        const float *packed = j->panels ? j->panels + col0 * depth + (j->first + k0) * NR : j->pack_b;
        if (j->c.p && !j->panels && !j->direct_b) gemm_pack_b(j, k0, kc, col0, col1, j->pack_b, kc);
        const gemm_next next = k0 + kc < j->k && j->next.rows > 0 ? gemm_next_b(j, k0 + kc, col0, col1) : j->next;
        const int mode = j->direct_b ? MICRO_RIGHT : next.rows > 0 ? MICRO_WALK : MICRO_PLAIN;
        gemm_micro *const *micro = gemm_micros[j->pack_a != 0][mode];
        gemm_walk walk = gemm_walk_of(&next, (hi - lo) * panels, kc);
        /* Sums of blocks meet in C where that rounds nothing, else beside it. */
        const bool in_c = j->c.type == GEMM_F32 && !j->add && !j->fly;
        const bool first = k0 == 0 || j->fly, last = k0 + kc == j->k || j->fly;
        const int64_t group = j->a.type == GEMM_F32 ? 2 : 4, size = j->a.type == GEMM_F32 ? 4 : 2;
        for (int64_t s = lo; s < hi; s++) {
            const int64_t member = (s - lo) % group;
            if (j->fly && member == 0) gemm_pack_lines(j, s, k0, kc, j->pack_a, col0 == 0);
            if (!j->c.p) continue;
            gemm_sliver a = {.row = j->a.row};
            a.p = j->fly      ? j->pack_a + member * GEMM_MR * kc
                  : j->pack_a ? j->pack_a + s * GEMM_MR * j->k + k0 * GEMM_MR
                              : (const float *)gemm_at(&j->a, s * GEMM_MR, k0);
            /* Of what comes next each panel fetches a part. */
            int64_t part_ahead;
            if (j->fly) {
                const int64_t done = member * panels * (kc / 8);
                const bool more = s - member + group < hi && done < kc;
                a.ahead = more ? gemm_at(&j->a, (s - member + group) * GEMM_MR, k0 + done) : (const char *)a.p;
                a.step = more ? j->a.col * size : 0;
                part_ahead = kc / 8 * a.step;
            } else if (j->pack_a) {
                a.ahead = (const char *)(a.p + GEMM_MR * j->k);
                a.step = 64;
                part_ahead = 8 * kc;
            } else {
                a.ahead = (const char *)(a.p + GEMM_MR * (s + 1 < hi ? j->a.row : 0));
                part_ahead = 8 * j->a.row;
            }
            for (int64_t c = col0; c < col1; c += NR, a.ahead += part_ahead) {
                void *to = (char *)j->c.p + (j->c.type == GEMM_F32 ? 4 : 2) * (s * GEMM_MR * j->c.row + c);
                float *part = in_c ? to : j->temp ? j->temp + (s - lo) * GEMM_MR * GEMM_NC + (c - col0) : 0;
                const gemm_end e = {.from = first ? 0 : part,
                                    .to = last ? 0 : part,
                                    .part_row = in_c ? j->c.row : GEMM_NC,
                                    .c = to,
                                    .type = j->c.type,
                                    .add = j->add || (j->fly && k0 > 0),
                                    .bias = j->bias ? j->bias + c : 0,
                                    .c_row = j->c.row,
                                    .rows = j->m - s * GEMM_MR,
                                    .cols = col1 - c};
                const float *b = j->direct_b ? gemm_at(&j->b, k0, c) : packed + (c - col0) * depth;
                const int nv = e.cols > 2 * SIMD_W ? 3 : e.cols > SIMD_W ? 2 : 1;
                micro[nv - 1](kc, &a, b, b_row, &e, &walk);
            }
        }
    }
}

/* One body under the names of three rows: devices and profiles then say which operator it served. */
#define GEMM_LEAF(name)                                                                                                \
    void SIMD_NAME(name)(int what, const gemm_job *j, int64_t lo, int64_t hi, int64_t col0, int64_t col1) {            \
        if (what == GEMM_PACK)                                                                                         \
            gemm_pack_a(j, lo, hi);                                                                                    \
        else if (what == GEMM_PANELS)                                                                                  \
            gemm_pack_b(j, 0, j->k, col0, col1, j->panels + j->first * NR, j->depth);                                  \
        else                                                                                                           \
            gemm_tile(j, lo, hi, col0, col1);                                                                          \
    }
GEMM_LEAF(gemm_linear)
GEMM_LEAF(gemm_linear_dx)
GEMM_LEAF(gemm_linear_dw)
GEMM_LEAF(gemm_heads)
