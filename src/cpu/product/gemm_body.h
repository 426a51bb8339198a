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

/* Packs `rows` (at most `width`) rows of k contiguous elements, distance `stride`, as [k][width], zeros past rows. */
static inline void gemm_pack_across(int type, const void *p, int64_t stride, int64_t rows, int64_t k, int64_t width,
                                    float *out) {
    const size_t size = type == GEMM_F32 ? 4 : 2;
    for (int64_t r0 = 0; r0 < width; r0 += SIMD_W) {
        const int64_t lanes = width - r0 < SIMD_W ? width - r0 : SIMD_W;
        for (int64_t k0 = 0; k0 < k; k0 += SIMD_W) {
            const int64_t ks = k - k0 < SIMD_W ? k - k0 : SIMD_W;
            vf v[SIMD_W];
            GEMM_UNROLL for (int64_t i = 0; i < SIMD_W; i++) {
                const char *q = (const char *)p + size * (size_t)((r0 + i) * stride + k0);
                v[i] = r0 + i >= rows ? vf_zero() : ks == SIMD_W ? gemm_load_all(type, q) : gemm_load(type, q, ks);
            }
            gemm_transpose(v);
            GEMM_UNROLL for (int64_t i = 0; i < SIMD_W; i++) {
                if (i >= ks) break;
                if (lanes == SIMD_W)
                    vf_store(out + (k0 + i) * width + r0, v[i]);
                else
                    vf_store_n(out + (k0 + i) * width + r0, v[i], lanes);
            }
        }
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

static void gemm_pack_a(const gemm_job *j, int64_t lo, int64_t hi) {
    const bool across = j->a.col == 1 && (j->a.row != 1 || j->k > 1);
    for (int64_t s = lo; s < hi; s++) {
        float *out = j->pack_a + s * GEMM_MR * j->k;
        const int64_t have = j->m - s * GEMM_MR < GEMM_MR ? j->m - s * GEMM_MR : GEMM_MR;
        gemm_pack(across, j->a.type, gemm_at(&j->a, s * GEMM_MR, 0), across ? j->a.row : j->a.col, have, j->k, GEMM_MR,
                  out);
        if (!j->row_sum) continue;
        float sum[GEMM_MR] = {0}; /* in blocks, so that the error grows with the block */
        for (int64_t k0 = 0; k0 < j->k; k0 += 64) {
            float part[GEMM_MR] = {0};
            for (int64_t k = k0; k < j->k && k < k0 + 64; k++)
                for (int i = 0; i < GEMM_MR; i++) part[i] += out[k * GEMM_MR + i];
            for (int i = 0; i < GEMM_MR; i++) sum[i] += part[i];
        }
        for (int64_t i = 0; i < have; i++) {
            float *d = &j->row_sum[s * GEMM_MR + i];
            *d = j->row_sum_add ? *d + sum[i] : sum[i];
        }
    }
}

/* What becomes of a block's sum. */
typedef struct gemm_end {
    const float *from; /* partial sum of the blocks before, or NULL */
    float *to;         /* where the partial sum goes, or NULL: this was the last block */
    void *c;
    int type;
    bool add;
    const float *bias;
    int64_t c_row, rows, cols;
} gemm_end;

static inline void gemm_finish(const gemm_end *e, int64_t i, int64_t v, vf sum) {
    const int64_t at = v * SIMD_W, n = e->cols - at;
    if (n <= 0) return;
    if (e->from) sum = vf_add(vf_load(e->from + i * GEMM_NC + at), sum);
    if (e->to) {
        vf_store(e->to + i * GEMM_NC + at, sum);
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

/* One block of sums: GEMM_MR rows (in two halves where registers are few) by nv vectors over k. */
#if SIMD_W == 16
enum { GEMM_HALF = GEMM_MR };
#else
enum { GEMM_HALF = GEMM_MR / 2 };
#endif
#define GEMM_MICRO(name, nv)                                                                                           \
    static void name(int64_t k, const float *a, const float *b, const gemm_end *e) {                                   \
        for (int h = 0; h < GEMM_MR; h += GEMM_HALF) {                                                                 \
            if (h >= e->rows) break;                                                                                   \
            vf s[GEMM_HALF][nv];                                                                                       \
            GEMM_UNROLL for (int i = 0; i < GEMM_HALF; i++) {                                                          \
                GEMM_UNROLL for (int v = 0; v < nv; v++) s[i][v] = vf_zero();                                          \
            }                                                                                                          \
            const float *pa = a + h, *pb = b;                                                                          \
            for (int64_t q = 0; q < k; q++, pa += GEMM_MR, pb += NR) {                                                 \
                _mm_prefetch((const char *)(pb + 8 * NR), _MM_HINT_T0);                                                \
                if (SIMD_W == 16) {                                                                                    \
                    _mm_prefetch((const char *)(pb + 8 * NR + 16), _MM_HINT_T0);                                       \
                    _mm_prefetch((const char *)(pb + 8 * NR + 32), _MM_HINT_T0);                                       \
                }                                                                                                      \
                vf y[nv];                                                                                              \
                GEMM_UNROLL for (int v = 0; v < nv; v++) y[v] = vf_load(pb + v * SIMD_W);                              \
                GEMM_UNROLL for (int i = 0; i < GEMM_HALF; i++) {                                                      \
                    const vf x = vf_set(pa[i]);                                                                        \
                    GEMM_UNROLL for (int v = 0; v < nv; v++) s[i][v] = vf_fma(x, y[v], s[i][v]);                       \
                }                                                                                                      \
            }                                                                                                          \
            GEMM_UNROLL for (int i = 0; i < GEMM_HALF; i++) {                                                          \
                if (h + i >= e->rows) break;                                                                           \
                GEMM_UNROLL for (int v = 0; v < nv; v++) gemm_finish(e, h + i, v, s[i][v]);                            \
            }                                                                                                          \
        }                                                                                                              \
    }
GEMM_MICRO(gemm_micro1, 1)
GEMM_MICRO(gemm_micro2, 2)
GEMM_MICRO(gemm_micro3, 3)

static void gemm_tile(const gemm_job *j, int64_t lo, int64_t hi, int64_t col0, int64_t col1) {
    const bool across = j->b.row == 1 && (j->b.col != 1 || j->n > 1);
    for (int64_t k0 = 0; k0 < j->k; k0 += GEMM_KC) {
        const int64_t kc = j->k - k0 < GEMM_KC ? j->k - k0 : GEMM_KC;
        for (int64_t c = col0; c < col1; c += NR) {
            const int64_t have = col1 - c < NR ? col1 - c : NR;
            gemm_pack(across, j->b.type, gemm_at(&j->b, k0, c), across ? j->b.col : j->b.row, have, kc, NR,
                      j->pack_b + (c - col0) * kc);
        }
        for (int64_t s = lo; s < hi; s++) {
            const float *a = j->pack_a + s * GEMM_MR * j->k + k0 * GEMM_MR;
            for (int64_t c = col0; c < col1; c += NR) {
                float *temp = j->temp ? j->temp + (s - lo) * GEMM_MR * GEMM_NC + (c - col0) : 0;
                gemm_end e = {k0 ? temp : 0, k0 + kc < j->k ? temp : 0, 0,        j->c.type,
                              j->add,        j->bias ? j->bias + c : 0, j->c.row, j->m - s * GEMM_MR,
                              col1 - c};
                e.c = (char *)j->c.p + (j->c.type == GEMM_F32 ? 4 : 2) * (s * GEMM_MR * j->c.row + c);
                const float *b = j->pack_b + (c - col0) * kc;
                if (e.cols > 2 * SIMD_W)
                    gemm_micro3(kc, a, b, &e);
                else if (e.cols > SIMD_W)
                    gemm_micro2(kc, a, b, &e);
                else
                    gemm_micro1(kc, a, b, &e);
            }
        }
    }
}

/* One body under the names of three rows: devices and profiles then say which operator it served. */
#define GEMM_LEAF(name)                                                                                                \
    void SIMD_NAME(name)(int what, const gemm_job *j, int64_t lo, int64_t hi, int64_t col0, int64_t col1) {            \
        if (what == GEMM_PACK)                                                                                         \
            gemm_pack_a(j, lo, hi);                                                                                    \
        else                                                                                                           \
            gemm_tile(j, lo, hi, col0, col1);                                                                          \
    }
GEMM_LEAF(gemm_linear)
GEMM_LEAF(gemm_linear_dx)
GEMM_LEAF(gemm_linear_dw)
