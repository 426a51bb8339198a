/* What happens to one row of scores between the products: options, mask, online softmax. */
#ifndef ATTN_ROW_BODY_H
#define ATTN_ROW_BODY_H

#include <math.h>

#include "cpu/attention/pack_body.h"
#include "cpu/philox_body.h"

#define ATTN_LOG2E 1.44269504088896340736f
#define ATTN_LN2   0.69314718055994530942f

enum { CHUNKS = ATTN_BR / ATTN_CHUNK, ROWS = ATTN_BR + ATTN_PAD };

/* Rows of a tile. */
typedef struct tile_rows {
    int64_t n, b;               /* how many there are; of which sequence */
    int64_t lo[ROWS], hi[ROWS]; /* visible keys */
    int64_t g0[ROWS], g1[ROWS]; /* and, before them, of global tokens */
    int64_t at[ROWS];           /* position among the keys */
    int64_t query[ROWS];        /* query (or row of a cached call) and head that the row stands for */
    int64_t head[ROWS];
    int32_t doc[ROWS];
    float m[ROWS], l[ROWS], alpha[ROWS]; /* running maximum in units of log 2, sum, factor of the step */
    int64_t begin;                       /* of the last row's document, where there are global tokens */
    int64_t first, reach;                /* smallest lo and largest hi of all rows */
    int64_t clo[CHUNKS], chi[CHUNKS];    /* of a chunk of rows */
    int64_t c0[CHUNKS], c1[CHUNKS];      /* the columns of the present tile that a chunk needs, whole vectors */
} tile_rows;

_Static_assert(sizeof(tile_rows) <= ATTN_ROWS_BYTES, "launchers reserve this much");

static void rows_chunks(tile_rows *t) {
    t->first = INT64_MAX;
    t->reach = 0;
    for (int64_t c = 0; c < CHUNKS; c++) {
        t->clo[c] = INT64_MAX;
        t->chi[c] = 0;
        for (int64_t r = c * ATTN_CHUNK; r < attn_min(t->n, (c + 1) * ATTN_CHUNK); r++) {
            if (t->lo[r] >= t->hi[r]) continue;
            t->clo[c] = attn_min(t->clo[c], t->lo[r]);
            t->chi[c] = attn_max(t->chi[c], t->hi[r]);
        }
        t->first = attn_min(t->first, t->clo[c]);
        t->reach = attn_max(t->reach, t->chi[c]);
    }
}

/* The other of a row's two intervals in the place of the first. */
static void rows_turn(tile_rows *t) {
    for (int64_t r = 0; r < t->n; r++) {
        const int64_t lo = t->lo[r], hi = t->hi[r];
        t->lo[r] = t->g0[r], t->hi[r] = t->g1[r];
        t->g0[r] = lo, t->g1[r] = hi;
    }
    rows_chunks(t);
}

/* Columns of the tile [k0, k0 + kn) that each chunk of rows needs; false: none at all. */
static bool rows_span(tile_rows *t, int64_t k0, int64_t kn) {
    bool any = false;
    for (int64_t c = 0; c < CHUNKS; c++) {
        const int64_t lo = attn_max(t->clo[c], k0), hi = attn_min(t->chi[c], k0 + kn);
        t->c0[c] = t->c1[c] = 0;
        if (lo >= hi) continue;
        t->c0[c] = (lo - k0) / VW * VW;
        t->c1[c] = attn_up(hi - k0, VW);
        any = true;
    }
    return any;
}

/* Chunks from c on that need the same columns, up to ATTN_GROUP rows: where they end. */
static int64_t rows_group(const tile_rows *t, int64_t c) {
    int64_t end = c + 1;
    while (end < CHUNKS && (end - c) * ATTN_CHUNK < ATTN_GROUP && t->c0[end] == t->c0[c] && t->c1[end] == t->c1[c])
        end++;
    return end;
}

/* Documents of a key tile against those of the rows: 0 no key is visible, 1 all are, 2 compare one by one. */
static int rows_docs(const tile_rows *t, const int32_t *kd, int64_t kn) {
    int32_t klo = kd[0], khi = kd[0], qlo = t->doc[0], qhi = t->doc[0];
    for (int64_t j = 1; j < kn; j++) {
        klo = kd[j] < klo ? kd[j] : klo;
        khi = kd[j] > khi ? kd[j] : khi;
    }
    for (int64_t r = 1; r < t->n; r++) {
        qlo = t->doc[r] < qlo ? t->doc[r] : qlo;
        qhi = t->doc[r] > qhi ? t->doc[r] : qhi;
    }
    if (khi < qlo || klo > qhi) return 0;
    return klo == khi && qlo == qhi ? 1 : 2;
}

/* Everything but the scale: soft cap, ALiBi, bias; from scores S = q k to T log2(e). k0: key of column 0. f, unless
 * NULL, gets dT/dS over scale: 1 - (tanh)^2. hi: end of the row's keys, so of what the bias table must hold. */
static void row_options(const attn_job *j, float *s, float *f, int64_t c0, int64_t c1, int64_t k0, int64_t position,
                        int64_t head, int64_t hi) {
    const vf scale = vf_set(j->softcap > 0 ? j->scale / j->softcap : j->scale), cap = vf_set(j->softcap);
    const vf log2e = vf_set(ATTN_LOG2E), one = vf_set(1.0f);
    const float slope = j->slopes ? j->slopes[head] : 0.0f;
    const float *bias = j->bias ? j->bias + head * j->bias_sh + (j->P - 1 - position) : NULL;
    for (int64_t c = c0; c < c1; c += VW) {
        vf x = vf_mul(vf_load(s + c), scale);
        if (j->softcap > 0) {
            x = vf_tanh(x);
            if (f) vf_store(f + c, vf_fnma(x, x, one));
            x = vf_mul(x, cap);
        }
        if (j->slopes) {
            const vf d = vf_abs(vi_float(vi_add(vi_iota(), vi_set((int32_t)(k0 + c - position)))));
            x = vf_fnma(vf_set(slope), d, x);
        }
        if (bias) x = vf_add(x, vf_load_n(bias + k0 + c, hi - (k0 + c)));
        vf_store(s + c, vf_mul(x, log2e));
    }
}

/* What the mask hides within columns [c0, c1) becomes -inf. lo, hi: visible columns; kd: documents of the keys or
 * NULL, left of them in memory. */
static void row_mask(float *s, int64_t c0, int64_t c1, int64_t lo, int64_t hi, const int32_t *kd, int32_t doc,
                     int64_t left) {
    const vf minus_inf = vf_set(-INFINITY);
    for (int64_t c = c0; c < c1; c += VW) {
        if (c >= lo && c + VW <= hi && !kd) continue;
        vm m = vm_and(vm_first(hi - c), vm_not(vm_first(lo - c)));
        if (kd) m = vm_and(m, vi_eq(vi_load_n(kd + c, left - c), vi_set(doc)));
        vf_store(s + c, vf_select(m, vf_load(s + c), minus_inf));
    }
}

/* keep[c0, c1) of row r gets what dropout multiplies its weights with: 0 or 1/(1-drop). Whole groups of counters are
 * filled, within the tile. */
static void row_keep(const attn_job *j, const tile_rows *t, int64_t r, int64_t k0, int64_t c0, int64_t c1,
                     float *keep) {
    const uint64_t row = (uint64_t)(j->row0 + t->b * j->T + t->query[r]), head = (uint64_t)t->head[r] << 30;
    const vf up = vf_set((float)(1.0 / (1.0 - (double)j->drop)));
    for (int64_t c = c0 / (4 * VW) * (4 * VW); c < c1; c += 4 * VW) {
        uint32_t w[4 * VW];
        philox_words(j->key, row, head | (uint64_t)(k0 + c) / 4, w);
        for (int64_t i = 0; i < 4 * VW; i += VW) {
            const vf u = vf_mul(vi_float(vi_shr(vi_load(w + i), 8)), vf_set(0x1p-24f));
            vf_store(keep + c + i, vf_keep(vf_ge(u, vf_set(j->drop)), up));
        }
    }
}

static void row_times(float *s, const float *by, int64_t c0, int64_t c1) {
    for (int64_t c = c0; c < c1; c += VW) vf_store(s + c, vf_mul(vf_load(s + c), vf_load(by + c)));
}

/* One step of the online softmax: s[c0, c1) becomes exp2(c s - m), as f32 or as bf16 from the row's start on; l, the
 * sum of every lane, grows by it. m is a maximum that lags: only a row that outgrows it by a factor of 2^LAG moves it,
 * so that hardly any step rescales what was summed before. True if this one must, by *alpha. */
enum { LAG = 8 };
INLINE bool row_softmax(float *s, int64_t c0, int64_t c1, float c, float *m, float *l, float *alpha) {
    vf x0 = vf_set(-INFINITY), x1 = x0;
    int64_t i = c0;
    for (; i + 2 * VW <= c1; i += 2 * VW) {
        x0 = vf_max(x0, vf_load(s + i));
        x1 = vf_max(x1, vf_load(s + i + VW));
    }
    if (i < c1) x0 = vf_max(x0, vf_load(s + i));
    const vf vc = vf_set(c), x = vf_max(x0, x1);
    const bool moves = vm_any(vf_gt(vf_mul(vc, x), vf_set(*m + LAG)));
    vf before = vf_load(l);
    *alpha = 1.0f;
    if (moves) {
        const float top = c * vf_hmax(x), old = *m;
        float a[VW];
        vf_store(a, exp2_soft(vf_set(old - top)));
        before = vf_mul(before, vf_set(a[0]));
        *alpha = a[0];
        *m = top;
    }
    const vf vb = vf_set(*m == -INFINITY ? 0.0f : *m);
    vf sum0 = before, sum1 = vf_zero();
#if defined(ATTN_BF16)
    uint16_t *h = (uint16_t *)(void *)s;
    for (i = c0; i + 32 <= c1; i += 32) {
        const vf a = exp2_soft(vf_fms(vf_load(s + i), vc, vb)), b = exp2_soft(vf_fms(vf_load(s + i + 16), vc, vb));
        sum0 = vf_add(sum0, a);
        sum1 = vf_add(sum1, b);
        _mm512_storeu_si512(h + i, (__m512i)_mm512_cvtne2ps_pbh(b, a));
    }
    if (i < c1) {
        const vf a = exp2_soft(vf_fms(vf_load(s + i), vc, vb));
        sum0 = vf_add(sum0, a);
        _mm256_storeu_si256((__m256i *)(void *)(h + i), (__m256i)_mm512_cvtneps_pbh(a));
    }
#else
    for (i = c0; i + 2 * VW <= c1; i += 2 * VW) {
        const vf a = exp2_soft(vf_fms(vf_load(s + i), vc, vb)), b = exp2_soft(vf_fms(vf_load(s + i + VW), vc, vb));
        sum0 = vf_add(sum0, a);
        sum1 = vf_add(sum1, b);
        vf_store(s + i, a);
        vf_store(s + i + VW, b);
    }
    if (i < c1) {
        const vf a = exp2_soft(vf_fms(vf_load(s + i), vc, vb));
        sum0 = vf_add(sum0, a);
        vf_store(s + i, a);
    }
#endif
    vf_store(l, vf_add(sum0, sum1));
    return moves;
}

#endif
