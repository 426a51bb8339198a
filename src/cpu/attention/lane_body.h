/* Tiles of scores with keys down and rows along the lanes: limits, options, mask, dropout, online softmax. */
#ifndef ATTN_LANE_BODY_H
#define ATTN_LANE_BODY_H

#include <math.h>

#include "cpu/attention/pack_body.h"
#include "cpu/philox_body.h"

#define ATTN_LOG2E 1.44269504088896340736f
#define ATTN_LN2   0.69314718055994530942f

enum { ROWS = ATTN_BR, LANES = 2 * VW, VECTORS = ROWS / VW };

/* Rows of a tile. Those that fill up the last group repeat the last one's limits. */
typedef struct lane_rows {
    int64_t n, b;                        /* how many there are; of which sequence */
    int32_t lo[ROWS], hi[ROWS];          /* visible keys */
    int32_t g0[ROWS], g1[ROWS];          /* and, before them, of global tokens */
    int32_t at[ROWS];                    /* position among the keys */
    int32_t query[ROWS], head[ROWS];     /* query (or row of a cached call) and head that the row stands for */
    int32_t doc[ROWS];                   /* its document */
    float m[ROWS], l[ROWS], alpha[ROWS]; /* running maximum in units of log 2, sum, factor of the step */
    int64_t begin;                       /* of the last row's document, where there are global tokens */
    int64_t first, reach;                /* smallest lo and largest hi of all rows */
    int64_t v0[VECTORS], v1[VECTORS];    /* keys that any row of a vector sees */
    int64_t f0[VECTORS], f1[VECTORS];    /* that all of them see */
    int64_t c0[VECTORS], c1[VECTORS];    /* keys of the present tile that a vector needs, whole steps */
    bool fresh[VECTORS];                 /* nothing has been summed yet */
} lane_rows;

_Static_assert(sizeof(lane_rows) <= ATTN_ROWS_BYTES, "launchers reserve this much");

static int64_t rows_up(const lane_rows *t) {
    return attn_up(t->n, LANES);
}

static void rows_vectors(lane_rows *t) {
    t->first = INT64_MAX;
    t->reach = 0;
    for (int64_t v = 0; v < VECTORS; v++) {
        int32_t v0 = INT32_MAX, v1 = 0, f0 = 0, f1 = INT32_MAX;
        for (int64_t r = v * VW; r < (v + 1) * VW && v * VW < t->n; r++) {
            const int32_t lo = t->lo[r], hi = t->hi[r];
            f0 = lo > f0 ? lo : f0;
            f1 = hi < f1 ? hi : f1;
            v0 = lo < hi && lo < v0 ? lo : v0;
            v1 = lo < hi && hi > v1 ? hi : v1;
        }
        t->v0[v] = v0, t->v1[v] = v1;
        t->f0[v] = f0, t->f1[v] = f1;
        t->first = attn_min(t->first, v0);
        t->reach = attn_max(t->reach, v1);
    }
}

/* Rows from n on, up to a whole group, repeat the last one. */
static void rows_fill(lane_rows *t) {
    const int64_t last = t->n - 1, up = rows_up(t);
    for (int64_t r = t->n; r < up; r++) {
        t->lo[r] = t->lo[last], t->hi[r] = t->hi[last];
        t->g0[r] = t->g0[last], t->g1[r] = t->g1[last];
        t->at[r] = t->at[last], t->doc[r] = t->doc[last];
        t->query[r] = t->query[last], t->head[r] = t->head[last];
    }
    rows_vectors(t);
}

/* The other of a row's two intervals in the place of the first. */
static void rows_turn(lane_rows *t) {
    for (int64_t r = 0; r < rows_up(t); r++) {
        const int32_t lo = t->lo[r], hi = t->hi[r];
        t->lo[r] = t->g0[r], t->hi[r] = t->g1[r];
        t->g0[r] = lo, t->g1[r] = hi;
    }
    rows_vectors(t);
}

/* Keys of the tile [k0, k0 + kn) that each vector of rows needs; false: none at all. */
static bool rows_span(lane_rows *t, int64_t k0, int64_t kn) {
    bool any = false;
    for (int64_t v = 0; v < VECTORS; v++) {
        const int64_t lo = attn_max(t->v0[v], k0), hi = attn_min(t->v1[v], k0 + kn);
        t->c0[v] = t->c1[v] = 0;
        if (lo >= hi) continue;
        t->c0[v] = (lo - k0) / ATTN_STEP * ATTN_STEP;
        t->c1[v] = attn_up(hi - k0, ATTN_STEP);
        any = true;
    }
    return any;
}

/* Documents of a key tile against those of the rows: 0 no key is visible, 1 all are, 2 compare one by one. */
static int rows_docs(const lane_rows *t, const int32_t *kd, int64_t kn) {
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

/* ---- one vector of rows against the keys [k0 + a, k0 + b) of a tile ---------------------------------- */

typedef struct lane_tile {
    const attn_job *j;
    const lane_rows *t;
    int64_t v, k0, a, b, f0, f1; /* vector; keys; those that need no mask, all from k0 on */
    const int32_t *kd;           /* documents of the keys from k0 on, kn of them, or NULL */
    int64_t kn, ld;              /* ld: floats between two keys */
    vi lo, hi, doc;
} lane_tile;

INLINE lane_tile lane_begin(const attn_job *j, const lane_rows *t, int64_t v, int64_t k0, int64_t kn, const int32_t *kd,
                            int64_t ld) {
    lane_tile x = {j, t, v, k0, t->c0[v], t->c1[v], 0, 0, kd, kn, ld, .lo = vi_load(t->lo + v * VW)};
    x.hi = vi_load(t->hi + v * VW);
    x.f0 = attn_min(x.b, attn_max(x.a, t->f0[v] - k0));
    x.f1 = attn_max(x.f0, attn_min(x.b, t->f1[v] - k0));
    if (kd) {
        x.doc = vi_load(t->doc + v * VW);
        x.f0 = x.f1 = x.b;
    } else
        x.doc = x.lo;
    return x;
}

/* Rows that see key i of the tile. */
INLINE vm lane_sees(const lane_tile *x, int64_t i) {
    const vi key = vi_set((int32_t)(x->k0 + i));
    vm m = vm_and(vi_gt(x->hi, key), vm_not(vi_gt(x->lo, key)));
    if (x->kd) m = vm_and(m, vi_eq(x->doc, vi_set(x->kd[attn_min(i, x->kn - 1)])));
    return m;
}

/* Where a row's bias for key 0 lies. */
INLINE vi lane_bias(const lane_tile *x) {
    int32_t at[VW];
    for (int64_t i = 0, r = x->v * VW; i < VW; i++, r++)
        at[i] = (int32_t)(x->t->head[r] * x->j->bias_sh + x->j->P - 1 - x->t->at[r]);
    return vi_load(at);
}

/* Everything but the scale: soft cap, ALiBi, bias; from scores S = q k to T log2(e). f, unless NULL, gets dT/dS over
 * scale: 1 - (tanh)^2. */
static void lane_options(const lane_tile *x, float *s, float *f) {
    const attn_job *j = x->j;
    const vf scale = vf_set(j->softcap > 0 ? j->scale / j->softcap : j->scale), cap = vf_set(j->softcap);
    const vf log2e = vf_set(ATTN_LOG2E), one = vf_set(1.0f);
    const vi position = vi_load(x->t->at + x->v * VW);
    float slope[VW] = {0};
    for (int64_t i = 0; i < VW && j->slopes; i++) slope[i] = j->slopes[x->t->head[x->v * VW + i]];
    const vf slopes = vf_load(slope);
    const vi bias = j->bias ? lane_bias(x) : position;
    for (int64_t i = x->a; i < x->b; i++) {
        vf y = vf_mul(vf_load(s + i * x->ld), scale);
        if (j->softcap > 0) {
            y = vf_tanh(y);
            if (f) vf_store(f + i * x->ld, vf_fnma(y, y, one));
            y = vf_mul(y, cap);
        }
        const vi key = vi_set((int32_t)(x->k0 + i));
        if (j->slopes) y = vf_fnma(slopes, vf_abs(vi_float(vi_sub(key, position))), y);
        if (j->bias) y = vf_add(y, vf_gather(j->bias, vi_add(bias, key), lane_sees(x, i)));
        vf_store(s + i * x->ld, vf_mul(y, log2e));
    }
}

/* What the mask hides becomes -inf. */
INLINE void lane_mask(const lane_tile *x, float *s) {
    const vf minus_inf = vf_set(-INFINITY);
    for (int64_t i = x->a; i < x->b; i++) {
        if (i == x->f0) i = x->f1;
        if (i < x->b) vf_store(s + i * x->ld, vf_select(lane_sees(x, i), vf_load(s + i * x->ld), minus_inf));
    }
}

/* keep[b - a][VW] gets what dropout multiplies weights with: 0 or 1/(1-drop). */
static void lane_keep(const lane_tile *x, float *keep) {
    const attn_job *j = x->j;
    uint32_t low[VW], high[VW], head[VW], over[VW];
    for (int64_t i = 0, r = x->v * VW; i < VW; i++, r++) {
        const uint64_t row = (uint64_t)(j->row0 + x->t->b * j->T + x->t->query[r]);
        low[i] = (uint32_t)row, high[i] = (uint32_t)(row >> 32);
        head[i] = (uint32_t)x->t->head[r] << 30, over[i] = (uint32_t)x->t->head[r] >> 2;
    }
    const vf up = vf_set((float)(1.0 / (1.0 - (double)j->drop)));
    for (int64_t i = x->a; i < x->b; i += 4) {
        vi c[4] = {vi_or(vi_load(head), vi_set((int32_t)((x->k0 + i) / 4))), vi_load(over), vi_load(low),
                   vi_load(high)};
        philox_rounds(j->key, c);
        for (int64_t e = 0; e < 4; e++) {
            const vf u = vf_mul(vi_float(vi_shr(c[e], 8)), vf_set(0x1p-24f));
            vf_store(keep + (i - x->a + e) * VW, vf_keep(vf_ge(u, vf_set(j->drop)), up));
        }
    }
}

INLINE void lane_times(const lane_tile *x, float *s, const float *by) {
    for (int64_t i = x->a; i < x->b; i++)
        vf_store(s + i * x->ld, vf_mul(vf_load(s + i * x->ld), vf_load(by + (i - x->a) * VW)));
}

/* One step of the online softmax: s becomes exp2(c s - m), as f32 or as bf16 in pairs of keys, and the sums grow by it.
 * m is a maximum that lags: only a row that outgrows it by a factor of 2^LAG moves it, so that hardly any step rescales
 * what was summed before. True if this one must, by alpha. */
enum { LAG = 8 };
static bool lane_softmax(const lane_tile *x, lane_rows *t, float *s, float c) {
    const int64_t ld = x->ld, r = x->v * VW;
    vf x0 = vf_set(-INFINITY), x1 = x0, x2 = x0, x3 = x0;
    for (int64_t i = x->a; i < x->b; i += 4) {
        x0 = vf_max(x0, vf_load(s + i * ld));
        x1 = vf_max(x1, vf_load(s + (i + 1) * ld));
        x2 = vf_max(x2, vf_load(s + (i + 2) * ld));
        x3 = vf_max(x3, vf_load(s + (i + 3) * ld));
    }
    const vf vc = vf_set(c), top = vf_mul(vc, vf_max(vf_max(x0, x1), vf_max(x2, x3)));
    vf m = vf_load(t->m + r), l = vf_load(t->l + r);
    const vm outgrown = vf_gt(top, vf_add(m, vf_set(LAG)));
    const bool moves = vm_any(outgrown);
    if (moves) {
        const vf alpha = vf_select(outgrown, exp2_soft(vf_sub(m, top)), vf_set(1.0f));
        m = vf_select(outgrown, top, m);
        l = vf_mul(l, alpha);
        vf_store(t->alpha + r, alpha);
        vf_store(t->m + r, m);
    }
    const vf vb = vf_select(vf_eq(m, vf_set(-INFINITY)), vf_zero(), m);
    vf sum0 = l, sum1 = vf_zero();
    for (int64_t i = x->a; i < x->b; i += 2) {
        const vf p = exp2_soft(vf_fms(vf_load(s + i * ld), vc, vb));
        const vf q = exp2_soft(vf_fms(vf_load(s + (i + 1) * ld), vc, vb));
        sum0 = vf_add(sum0, p);
        sum1 = vf_add(sum1, q);
#if defined(ATTN_BF16)
        vi_store(s + i / 2 * ld, unit_pair(p, q));
#else
        vf_store(s + i * ld, p);
        vf_store(s + (i + 1) * ld, q);
#endif
    }
    vf_store(t->l + r, vf_add(sum0, sum1));
    return moves;
}

#endif
