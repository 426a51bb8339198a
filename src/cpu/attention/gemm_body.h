/* Micro-kernels: C (m x 16 nv or 8 nv) = or += A B in registers, over units of four bytes. A is broadcast, element
 * (row, k) at a[row ars + k aks]; B is read by vectors, row k at b + k ldb. Heights divide ATTN_STEP, so that blocks
 * that end with the mask lose nothing; accumulators cover the latency of a multiply-add. */
#ifndef ATTN_GEMM_BODY_H
#define ATTN_GEMM_BODY_H

#include "cpu/attention/attention.h"
#include "cpu/simd.h"

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#define INLINE static inline __attribute__((always_inline))

#if defined(ATTN_BF16)
enum { UNIT = 2 };
#else
enum { UNIT = 1 };
#endif
#if SIMD_W == 16
enum { VW = 16, PANEL = 4, KBLOCK = 96 };
#else
enum { VW = 8, PANEL = 2, KBLOCK = 192 };
#endif

enum { GEMM_SET, GEMM_ADD, GEMM_SCALE };

/* acc += a b */
INLINE vf unit_fma(vf acc, const uint32_t *a, vf b) {
#if defined(ATTN_BF16)
    return _mm512_dpbf16_ps(acc, (__m512bh)_mm512_set1_epi32((int)*a), (__m512bh)b);
#else
    float x;
    memcpy(&x, a, sizeof x);
    return vf_fma(vf_set(x), b, acc);
#endif
}

/* Memory that is needed next, fetched into L2 while products keep the core busy: rows of heads lie far apart, often on
 * pages of their own, where no hardware prefetcher follows. */
typedef struct fetch_rows {
    const char *p;
    int64_t stride, rows, lines; /* bytes; of 64 bytes */
} fetch_rows;
/* FETCH_LEAST: bytes of a head from which on it pays; what is smaller still lies in L2. */
enum { FETCH_MOST = 12, FETCH_RATE = 3, FETCH_LEAST = 32768 };
typedef struct fetch {
    fetch_rows list[FETCH_MOST];
    int64_t count, at, line, rate; /* rate: lines for each call of a micro-kernel */
} fetch;

static void fetch_add(fetch *f, const char *p, int64_t stride, int64_t rows, int64_t bytes) {
    if (f->count < FETCH_MOST && rows > 0) f->list[f->count++] = (fetch_rows){p, stride, rows, (bytes + 63) / 64};
}

static void fetch_some(fetch *f) {
    for (int64_t i = 0; i < f->rate && f->at < f->count; i++) {
        fetch_rows *r = &f->list[f->at];
        _mm_prefetch(r->p + f->line * 64, _MM_HINT_T1);
        if (++f->line < r->lines) continue;
        f->line = 0;
        r->p += r->stride;
        if (--r->rows == 0) f->at++;
    }
}

typedef struct gemm_args {
    const uint32_t *a;
    int64_t ars, aks;
    const uint32_t *b;
    int64_t ldb, kn;
    float *c;
    int64_t ldc;
    const float *rowscale;
    int mode;
    fetch *ahead; /* what to fetch meanwhile */
} gemm_args;

INLINE void micro(const int mr, const int nv, const int by_column, const gemm_args *g) {
    vf acc[16][PANEL]; /* only [mr][nv] of it exists once the loops are unrolled */
    const uint32_t *a = g->a, *b = g->b;
    const int64_t ars = by_column ? 1 : g->ars, aks = by_column ? g->aks : 1, ldb = g->ldb, ldc = g->ldc;
    float *c = g->c;
    UNROLL for (int r = 0; r < mr; r++) {
        UNROLL for (int n = 0; n < nv; n++) acc[r][n] = vf_zero();
    }
    for (int64_t k = 0; k < g->kn; k++, a += aks, b += ldb) {
        vf bv[PANEL];
        UNROLL for (int n = 0; n < nv; n++) bv[n] = vf_load((const float *)(const void *)(b + n * VW));
        UNROLL for (int r = 0; r < mr; r++) {
            UNROLL for (int n = 0; n < nv; n++) acc[r][n] = unit_fma(acc[r][n], a + r * ars, bv[n]);
        }
    }
    /* C joins last: its loads wait for nothing, so they are under way long before they are needed. */
    if (g->mode == GEMM_SET) {
        UNROLL for (int r = 0; r < mr; r++, c += ldc) {
            UNROLL for (int n = 0; n < nv; n++) vf_store(c + n * VW, acc[r][n]);
        }
    } else if (g->mode == GEMM_ADD) {
        UNROLL for (int r = 0; r < mr; r++, c += ldc) {
            UNROLL for (int n = 0; n < nv; n++) vf_store(c + n * VW, vf_add(acc[r][n], vf_load(c + n * VW)));
        }
    } else {
        UNROLL for (int r = 0; r < mr; r++, c += ldc) {
            const vf s = vf_set(g->rowscale[r]);
            UNROLL for (int n = 0; n < nv; n++) vf_store(c + n * VW, vf_fma(s, vf_load(c + n * VW), acc[r][n]));
        }
    }
}

#define MICRO(mr, nv)                                                                                                  \
    static void micro_r##nv(const gemm_args *g) {                                                                      \
        micro(mr, nv, 0, g);                                                                                           \
    }                                                                                                                  \
    static void micro_c##nv(const gemm_args *g) {                                                                      \
        micro(mr, nv, 1, g);                                                                                           \
    }
#if SIMD_W == 16
MICRO(16, 1)
MICRO(8, 2)
MICRO(8, 3)
MICRO(4, 4)
static const struct {
    int rows;
    void (*fn[2])(const gemm_args *);
} micro_table[PANEL + 1] = {{0, {0, 0}},
                            {16, {micro_r1, micro_c1}},
                            {8, {micro_r2, micro_c2}},
                            {8, {micro_r3, micro_c3}},
                            {4, {micro_r4, micro_c4}}};
#else
MICRO(8, 1)
MICRO(4, 2)
static const struct {
    int rows;
    void (*fn[2])(const gemm_args *);
} micro_table[PANEL + 1] = {{0, {0, 0}}, {8, {micro_r1, micro_c1}}, {4, {micro_r2, micro_c2}}};
#endif
#undef MICRO

/* One column panel of nv vectors: all rows, a multiple of the micro-kernel's height, against a block of k. */
static void gemm_panel(int64_t m, int nv, gemm_args g) {
    const int step = micro_table[nv].rows, by_column = g.ars == 1;
    void (*const fn)(const gemm_args *) = micro_table[nv].fn[by_column];
    for (int64_t i = 0; i < m; i += step) {
        fn(&g);
        if (g.ahead) fetch_some(g.ahead);
        g.a += step * g.ars;
        g.c += step * g.ldc;
        if (g.mode == GEMM_SCALE) g.rowscale += step;
    }
}

/* All columns: nv vectors in panels; k in equal blocks of at most KBLOCK units. */
static void gemm(int64_t m, int64_t nv, gemm_args g) {
    const int64_t blocks = attn_max(1, (g.kn + KBLOCK - 1) / KBLOCK), each = (g.kn + blocks - 1) / blocks;
    for (int64_t k0 = 0; k0 == 0 || k0 < g.kn; k0 += attn_max(each, 1)) {
        gemm_args p = g;
        p.kn = attn_min(each, g.kn - k0);
        p.a = g.a + k0 * g.aks;
        p.b = g.b + k0 * g.ldb;
        if (k0) p.mode = GEMM_ADD;
        for (int64_t v = 0; v < nv; v += PANEL) {
            gemm_args q = p;
            q.b = p.b + v * VW;
            q.c = p.c + v * VW;
            gemm_panel(m, (int)attn_min(PANEL, nv - v), q);
        }
    }
}

#endif
