/* Backward. Phase 1: a tile is one segment of the keys of one kv head. Its rows are packed before, by phase 0 where
 * several segments share them. It walks key blocks outside and row blocks inside, so dK and dV of a block are sums in
 * one order, over the heads of the group too; dQ adds up in memory of the worker or, with several segments, in the
 * segment's own part. Phase 2 adds the parts in the order of segments, and the sums over everything: sinks and bias. */
#ifndef ATTN_BWD_BODY_H
#define ATTN_BWD_BODY_H

#include "cpu/attention/fwd_body.h"

typedef struct bwd_space {
    const attn_bwd_layout *l;
    int64_t b, hk, s0, s1, mlo, mhi; /* keys of the segment; rows that see any of them, whole vectors */
    uint32_t *qt, *gt, *qb, *gb;     /* rows by groups (units, LANES), and as B operands (R / UNIT, Dhp); g: dO */
    float *dq;                       /* (R, Dhp) */
    lane_rows *rows;                 /* one per block of rows; m: log-sum-exp in units of log 2, l: D */
    lane_rows *now;                  /* the worker's copy of one: others may be at the same rows */
    uint32_t *k, *v, *kb;            /* the key block: as A operands, and keys as B operand */
    float *dk, *dv, *s, *p, *f;      /* s, p, f (ATTN_BC, ROWS): p is dP, then dS */
    uint32_t *a;                     /* dS in pairs of keys, where pairs need it in both orders */
    float *bias;                     /* dbias of the segment, or NULL */
    fetch *ahead;                    /* what the products fetch meanwhile */
    key_rows keys, values;
} bwd_space;

/* First row whose visible keys end after key s0 (ends), or begin at s1 or later (!ends): both grow with the row. */
static int64_t bwd_first_row(const attn_job *j, int64_t b, int64_t key, bool ends) {
    int64_t lo = 0, hi = j->R;
    while (lo < hi) {
        const int64_t mid = lo + (hi - lo) / 2;
        int64_t first, end;
        attn_interval(j, b, mid / j->r, &first, &end);
        if (ends ? end > key : first >= key)
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

static void bwd_rows_of(const attn_job *j, const attn_bwd_layout *l, int64_t b, int64_t segment, int64_t *mlo,
                        int64_t *mhi) {
    if (j->global) { /* no order: any row may see the first keys, and some see all */
        *mlo = 0, *mhi = attn_up(j->R, VW);
        return;
    }
    *mlo = bwd_first_row(j, b, segment * l->seg_keys, true) / VW * VW;
    *mhi = attn_up(bwd_first_row(j, b, (segment + 1) * l->seg_keys, false), VW);
}

/* Lanes of it add up to the product of two rows. */
INLINE vf bwd_dot(const char *x, const char *y, tl_dtype dtype, int64_t n) {
    vf sum = vf_zero();
    for (int64_t d = 0; d < n; d += VW) sum = vf_fma(row_load(x, dtype, d, n), row_load(y, dtype, d, n), sum);
    return sum;
}

/* Limits of row r of a block, which stands for row m of the kv head. */
static void bwd_limits(const attn_job *j, const bwd_space *w, lane_rows *t, int64_t r, int64_t m) {
    const int64_t i = m / j->r, h = w->hk * j->r + m % j->r;
    const int32_t *doc = j->doc ? j->doc + w->b * j->doc_sb : NULL;
    int64_t lo, hi, g0 = 0, g1 = 0;
    attn_interval(j, w->b, i, &lo, &hi);
    if (j->global) {
        t->begin = attn_begin(doc, i, r > 0 ? t->query[r - 1] : -1, t->begin);
        attn_globals(j, i, t->begin, &lo, &hi, &g0, &g1);
    }
    t->query[r] = (int32_t)i, t->head[r] = (int32_t)h, t->at[r] = (int32_t)(i + j->q_offset);
    t->lo[r] = (int32_t)lo, t->hi[r] = (int32_t)hi, t->g0[r] = (int32_t)g0, t->g1[r] = (int32_t)g1;
    t->doc[r] = doc ? doc[i] : 0;
    t->m[r] = j->lse[w->b * j->lse_sb + h * j->lse_sh + i] * ATTN_LOG2E;
}

/* A vector of rows, from row r of the block on: as operands; D. Rows past the end are zeros, and have no weights. */
static void bwd_pack_vector(const attn_job *j, bwd_space *w, lane_rows *t, int64_t m0, int64_t r, const char **q,
                            const char **g) {
    const attn_bwd_layout *l = w->l;
    vf dots[VW];
    for (int64_t e = 0; e < VW; e++) {
        const int64_t m = m0 + r + e, i = m / j->r, h = w->hk * j->r + m % j->r;
        const bool there = m < j->R;
        q[e] = there ? at(&j->q, w->b, i, h) : NULL;
        g[e] = there ? at(&j->g, w->b, i, h) : NULL;
        if (i + VW < j->T) {
            row_prefetch(at(&j->q, w->b, i + VW, h), j->Dh * j->q.size);
            row_prefetch(at(&j->g, w->b, i + VW, h), j->Dv * j->g.size);
            row_prefetch(at(&j->o, w->b, i + VW, h), j->Dv * j->o.size);
        }
        dots[e] = there ? bwd_dot(g[e], at(&j->o, w->b, i, h), j->o.dtype, j->Dv) : vf_zero();
        if (there)
            bwd_limits(j, w, t, r + e, m);
        else
            t->m[r + e] = INFINITY;
    }
    vf_store(t->l + r, sum_block(dots));
    for (int64_t e = 0; e < VW; e += UNIT) {
        const int64_t at = (m0 + r + e) / UNIT;
        pack_natural(w->qb + at * l->Dhp, l->Dhp, q[e], UNIT == 2 ? q[e + 1] : NULL, j->q.dtype, j->Dh);
        pack_natural(w->gb + at * l->Dvp, l->Dvp, g[e], UNIT == 2 ? g[e + 1] : NULL, j->g.dtype, j->Dv);
    }
}

static void bwd_pack(const attn_job *j, bwd_space *w, int64_t blk) {
    const attn_bwd_layout *l = w->l;
    const int64_t m0 = blk * ATTN_BR;
    lane_rows *t = &w->rows[blk];
    const char *q[LANES], *g[LANES];
    t->n = attn_min(ATTN_BR, j->R - m0);
    t->b = w->b;
    for (int64_t r = 0; r < rows_up(t); r += LANES) {
        bwd_pack_vector(j, w, t, m0, r, q, g);
        bwd_pack_vector(j, w, t, m0, r + VW, q + VW, g + VW);
        pack_panel(w->qt + (m0 + r) * l->Dhu, q, LANES, j->q.dtype, j->Dh, l->Dhu);
        pack_panel(w->gt + (m0 + r) * l->Dvu, g, LANES, j->g.dtype, j->Dv, l->Dvu);
    }
    rows_fill(t);
}

/* P and dS of a vector of rows and one key. */
typedef struct bwd_cells {
    const float *s, *p, *f;
    vf factor, lse, delta;
} bwd_cells;

INLINE void bwd_cell(const bwd_cells *c, int64_t at, vf *prob, vf *ds) {
    *prob = exp2_soft(vf_fms(vf_load(c->s + at), c->factor, c->lse));
    *ds = vf_mul(*prob, vf_sub(vf_load(c->p + at), c->delta));
}

/* What the mask hides gets no weight and no gradient, whatever was computed of it. */
INLINE void bwd_hide(const lane_tile *x, int64_t i, vf *prob, vf *ds) {
    if (i >= x->f0 && i < x->f1) return;
    const vm sees = lane_sees(x, i);
    *prob = vf_keep(sees, *prob);
    *ds = vf_keep(sees, *ds);
}

/* The bias table's gradient: the rows of a vector are different places of it, or of different heads'. */
static void bwd_bias(const lane_tile *x, const bwd_space *w, int64_t i, vf ds) {
    float d[VW];
    vf_store(d, ds);
    for (int64_t e = 0, r = x->v * VW; e < VW && r < x->t->n; e++, r++) {
        float *to = w->bias + x->t->head[r] % x->j->r * (w->l->bias_head / 4) + x->j->P - 1 - x->t->at[r];
        if (d[e] != 0.0f) to[x->k0 + i] += d[e];
    }
}

/* Scores and dP of a vector of rows become P and dS. */
static void bwd_vector(const attn_job *j, const bwd_space *w, const lane_rows *t, int64_t v, int64_t k0, int64_t kn,
                       const int32_t *kd) {
    const lane_tile x = lane_begin(j, t, v, k0, kn, kd, ROWS);
    float *s = w->s + v * VW, *p = w->p + v * VW, keep[ATTN_BC * VW];
    if (x.a >= x.b) return;
    const bwd_cells c = {.s = s,
                         .p = p,
                         .f = j->softcap > 0 ? w->f + v * VW : NULL,
                         .factor = vf_set(j->plain ? j->scale * ATTN_LOG2E : 1.0f),
                         .lse = vf_load(t->m + v * VW),
                         .delta = vf_load(t->l + v * VW)};
    if (!j->plain) lane_options(&x, s, j->softcap > 0 ? w->f + v * VW : NULL);
    if (j->drop > 0) { /* dP and, for dV, P as the forward pass had them behind dropout */
        lane_keep(&x, keep);
        lane_times(&x, p, keep);
    }
    for (int64_t i = x.a; i < x.b; i += 2) {
        vf prob[2], ds[2];
        UNROLL for (int e = 0; e < 2; e++) {
            bwd_cell(&c, (i + e) * ROWS, &prob[e], &ds[e]);
            bwd_hide(&x, i + e, &prob[e], &ds[e]);
            if (w->bias) bwd_bias(&x, w, i + e, ds[e]);
            if (c.f) ds[e] = vf_mul(ds[e], vf_load(c.f + (i + e) * ROWS));
        }
#if defined(ATTN_BF16)
        /* By rows of keys, half as wide: what lies there has been read, for vectors come in order. */
        UNROLL for (int e = 0; e < 2; e++) {
            vf_store_bf16((uint16_t *)(void *)(w->s + (i + e) * ROWS) + v * VW, prob[e]);
            vf_store_bf16((uint16_t *)(void *)(w->p + (i + e) * ROWS) + v * VW, ds[e]);
        }
        vi_store(w->a + i / 2 * ROWS + v * VW, unit_pair(ds[0], ds[1]));
#else
        UNROLL for (int e = 0; e < 2; e++) {
            vf_store(s + (i + e) * ROWS, prob[e]);
            vf_store(p + (i + e) * ROWS, ds[e]);
        }
#endif
    }
    if (j->drop > 0) lane_times(&x, s, keep);
}

static bool bwd_meets(const lane_rows *t, int64_t v, int64_t step) {
    return t->c0[v] <= step && step < t->c1[v];
}

/* to (keys, ldb) += x (keys, ROWS) b (rows, ldb): dV = P^T dO, dK = dS^T Q. Steps of keys that the same run of vectors
 * sees are one product. */
static void bwd_keys(const lane_rows *t, int64_t kn, const float *x, const uint32_t *b, int64_t ldb, float *to,
                     fetch *ahead) {
    for (int64_t v0 = 0; v0 < VECTORS; v0++) {
        for (int64_t step = 0, up; step < kn; step = up) { /* runs that begin with vector v0 */
            int64_t v1 = v0;
            up = step + ATTN_STEP;
            if (!bwd_meets(t, v0, step) || (v0 && bwd_meets(t, v0 - 1, step))) continue;
            while (v1 < VECTORS && bwd_meets(t, v1, step)) v1++;
            for (; up < kn; up += ATTN_STEP) {
                if (v0 && bwd_meets(t, v0 - 1, up)) break;
                int64_t v = v0;
                while (v < v1 && bwd_meets(t, v, up)) v++;
                if (v < v1 || (v1 < VECTORS && bwd_meets(t, v1, up))) break;
            }
            const gemm_args g = {.a = (const uint32_t *)(const void *)(x + step * ROWS) + v0 * VW / UNIT,
                                 .ars = ROWS,
                                 .aks = 1,
                                 .b = b + v0 * VW / UNIT * ldb,
                                 .ldb = ldb,
                                 .kn = (v1 - v0) * VW / UNIT,
                                 .c = to + step * ldb,
                                 .ldc = ldb,
                                 .mode = GEMM_ADD,
                                 .ahead = ahead};
            gemm(up - step, ldb / VW, g);
        }
    }
}

/* dQ += dS K, over the keys that each vector of rows sees. */
static void bwd_queries(const lane_rows *t, const uint32_t *ds, const uint32_t *kb, int64_t ldb, float *to,
                        fetch *ahead) {
    for (int64_t v = 0, end; v < VECTORS; v = end) {
        end = v + 1;
        const int64_t c0 = t->c0[v], c1 = t->c1[v];
        if (c0 >= c1) continue;
        while (end < VECTORS && t->c0[end] == c0 && t->c1[end] == c1) end++;
        const gemm_args g = {.a = ds + c0 / UNIT * ROWS + v * VW,
                             .ars = 1,
                             .aks = ROWS,
                             .b = kb + c0 / UNIT * ldb,
                             .ldb = ldb,
                             .kn = (c1 - c0) / UNIT,
                             .c = to + v * VW * ldb,
                             .ldc = ldb,
                             .mode = GEMM_ADD,
                             .ahead = ahead};
        gemm((end - v) * VW, ldb / VW, g);
    }
}

/* Keys [k0, k0 + kn), packed, against one block of rows and their first interval. */
static void bwd_pass(const attn_job *j, const bwd_space *w, lane_rows *t, int64_t blk, int64_t k0, int64_t kn) {
    const attn_bwd_layout *l = w->l;
    const int64_t m0 = blk * ATTN_BR;
    const int32_t *kd = j->doc ? j->doc + w->b * j->doc_sb + k0 : NULL;
    if (!rows_span(t, k0, kn)) return;
    if (kd) {
        const int docs = rows_docs(t, kd, kn);
        if (!docs) return;
        if (docs == 1) kd = NULL;
    }
    for (int64_t v = 0; v < VECTORS; v += 2) {
        const int64_t r = v * VW;
        if (t->c0[v] >= t->c1[v] && t->c0[v + 1] >= t->c1[v + 1]) continue;
        tile_scores(t->c0 + v, t->c1 + v, w->k, l->Dhq, w->qt + (m0 + r) * l->Dhu, l->Dhu, w->s + r, ROWS, w->ahead);
        tile_scores(t->c0 + v, t->c1 + v, w->v, l->Dvq, w->gt + (m0 + r) * l->Dvu, l->Dvu, w->p + r, ROWS, w->ahead);
        for (int64_t i = v; i < v + 2; i++) bwd_vector(j, w, t, i, k0, kn, kd);
    }
    if (j->dv.p) bwd_keys(t, kn, w->s, w->gb + m0 / UNIT * l->Dvp, l->Dvp, w->dv, w->ahead);
    if (j->dk.p) bwd_keys(t, kn, w->p, w->qb + m0 / UNIT * l->Dhp, l->Dhp, w->dk, w->ahead);
    if (j->dq.p)
        bwd_queries(t, UNIT == 2 ? w->a : (const uint32_t *)(const void *)w->p, w->kb, l->Dhp, w->dq + m0 * l->Dhp,
                    w->ahead);
}

static void bwd_tile(const attn_job *j, const bwd_space *w, int64_t blk, int64_t k0, int64_t kn) {
    const lane_rows *shared = &w->rows[blk];
    lane_rows *t = w->l->head < 0 ? &w->rows[blk] : w->now;
    if (j->global) { /* both intervals, in a copy whose second one comes first */
        memcpy(w->now, shared, sizeof *t);
        bwd_pass(j, w, w->now, blk, k0, kn);
        rows_turn(w->now);
        bwd_pass(j, w, w->now, blk, k0, kn);
        return;
    }
    if (shared->reach <= k0 || shared->first >= k0 + kn) return;
    if (t != shared) memcpy(t, shared, sizeof *t);
    bwd_pass(j, w, t, blk, k0, kn);
}

static void bwd_store(char *dst, tl_dtype dtype, const float *x, int64_t n, float by) {
    for (int64_t d = 0; d < n; d += VW) row_store(dst, dtype, d, n, vf_mul(vf_set(by), vf_load(x + d)));
}

/* One block of keys against all rows that see the segment. */
static void bwd_block(const attn_job *j, const bwd_space *w, int64_t k0) {
    const attn_bwd_layout *l = w->l;
    const int64_t kn = attn_min(ATTN_BC, j->S - k0), used = attn_up(kn, ATTN_STEP);
    memset(w->dk, 0, (size_t)(used * l->Dhp) * sizeof(float));
    memset(w->dv, 0, (size_t)(used * l->Dvp) * sizeof(float));
    pack_rows(w->k, l->Dhq, &w->keys, k0, k0 + used, j->S);
    pack_rows(w->v, l->Dvq, &w->values, k0, k0 + used, j->S);
    if (UNIT == 2) pack_keys(w->kb, l->Dhp, &w->keys, k0, k0 + used, j->S);
    for (int64_t blk = w->mlo / ATTN_BR; blk * ATTN_BR < w->mhi; blk++) bwd_tile(j, w, blk, k0, kn);
    for (int64_t n = 0; n < kn; n++) {
        if (j->dk.p) bwd_store(at_out(&j->dk, w->b, k0 + n, w->hk), j->dk.dtype, w->dk + n * l->Dhp, j->Dh, j->scale);
        if (j->dv.p) bwd_store(at_out(&j->dv, w->b, k0 + n, w->hk), j->dv.dtype, w->dv + n * l->Dvp, j->Dv, 1.0f);
    }
}

/* Where the packed rows of kv head bh lie. */
static bwd_space bwd_head(const attn_job *j, const attn_bwd_layout *l, int64_t bh, char *mine) {
    bwd_space w = {.l = l, .b = bh / j->Hk, .hk = bh % j->Hk};
    char *p = l->head >= 0 ? j->scratch + l->head + bh * l->head_bytes : mine + l->w_head;
    w.qt = (uint32_t *)(void *)(p + l->h_qt), w.qb = (uint32_t *)(void *)(p + l->h_qb);
    w.gt = (uint32_t *)(void *)(p + l->h_gt), w.gb = (uint32_t *)(void *)(p + l->h_gb);
    w.rows = (lane_rows *)(void *)(p + l->h_rows);
    return w;
}

/* What the products of head bh may fetch: its output and, before `end`, the next head's input. */
static fetch bwd_ahead(const attn_job *j, int64_t bh, int64_t end) {
    fetch f = {.rate = FETCH_RATE};
    if (j->S * j->Dh * j->k.size < FETCH_LEAST) return f;
    const int64_t b = bh / j->Hk, h = bh % j->Hk, nb = (bh + 1) / j->Hk, nh = (bh + 1) % j->Hk;
    if (j->dv.p) fetch_add(&f, at(&j->dv, b, 0, h), j->dv.st * j->dv.size, j->S, j->Dv * j->dv.size);
    if (j->dk.p) fetch_add(&f, at(&j->dk, b, 0, h), j->dk.st * j->dk.size, j->S, j->Dh * j->dk.size);
    for (int64_t g = 0; j->dq.p && g < attn_min(j->r, 2); g++)
        fetch_add(&f, at(&j->dq, b, 0, h * j->r + g), j->dq.st * j->dq.size, j->T, j->Dh * j->dq.size);
    if (bh + 1 >= end) return f;
    for (int64_t g = 0; g < attn_min(j->r, 2); g++) {
        fetch_add(&f, at(&j->q, nb, 0, nh * j->r + g), j->q.st * j->q.size, j->T, j->Dh * j->q.size);
        fetch_add(&f, at(&j->g, nb, 0, nh * j->r + g), j->g.st * j->g.size, j->T, j->Dv * j->g.size);
        fetch_add(&f, at(&j->o, nb, 0, nh * j->r + g), j->o.st * j->o.size, j->T, j->Dv * j->o.size);
    }
    fetch_add(&f, at(&j->k, nb, 0, nh), j->k.st * j->k.size, j->S, j->Dh * j->k.size);
    fetch_add(&f, at(&j->v, nb, 0, nh), j->v.st * j->v.size, j->S, j->Dv * j->v.size);
    return f;
}

static void bwd_segment(const attn_job *j, const attn_bwd_layout *l, int64_t tile, int64_t end, char *mine) {
    fetch ahead = {.rate = FETCH_RATE};
    const int64_t bh = tile / j->segments, segment = attn_balance(tile % j->segments, j->segments);
    bwd_space w = bwd_head(j, l, bh, mine);
    if (j->segments == 1 && j->S <= ATTN_SHORT) ahead = bwd_ahead(j, bh, end);
    w.ahead = &ahead;
    w.s0 = segment * l->seg_keys;
    w.s1 = attn_min(w.s0 + l->seg_keys, j->S);
    bwd_rows_of(j, l, w.b, segment, &w.mlo, &w.mhi);
    w.now = (lane_rows *)(void *)(mine + l->w_rows);
    w.k = (uint32_t *)(void *)(mine + l->w_k), w.v = (uint32_t *)(void *)(mine + l->w_v);
    w.kb = UNIT == 2 ? (uint32_t *)(void *)(mine + l->w_kb) : w.k, w.a = (uint32_t *)(void *)(mine + l->w_a);
    w.dk = (float *)(void *)(mine + l->w_dk), w.dv = (float *)(void *)(mine + l->w_dv);
    w.s = (float *)(void *)(mine + l->w_s), w.p = (float *)(void *)(mine + l->w_p);
    w.f = (float *)(void *)(mine + l->w_f);
    w.dq = (float *)(void *)(l->dq_part >= 0 ? j->scratch + l->dq_part + (bh * j->segments + segment) * l->dq_head
                                             : mine + l->w_dq);
    if (j->want_dbias) {
        w.bias = (float *)(void *)(j->scratch + l->bias_part + (bh * j->segments + segment) * j->r * l->bias_head);
        memset(w.bias, 0, (size_t)(j->r * l->bias_head));
    }
    w.keys = (key_rows){at(&j->k, w.b, 0, w.hk), j->k.st * j->k.size, 0, j->k.dtype, j->Dh};
    w.values = (key_rows){at(&j->v, w.b, 0, w.hk), j->v.st * j->v.size, 0, j->v.dtype, j->Dv};
    for (int64_t blk = w.mlo / ATTN_BR; l->head < 0 && blk * ATTN_BR < w.mhi; blk++) bwd_pack(j, &w, blk);
    if (w.mhi > w.mlo) memset(w.dq + w.mlo * l->Dhp, 0, (size_t)((w.mhi - w.mlo) * l->Dhp) * sizeof(float));
    for (int64_t k0 = w.s0; k0 < w.s1; k0 += ATTN_BC) bwd_block(j, &w, k0);
    if (l->dq_part >= 0 || !j->dq.p) return;
    for (int64_t m = 0; m < j->R; m++) {
        char *dst = at_out(&j->dq, w.b, m / j->r, w.hk * j->r + m % j->r);
        if (m >= w.mlo && m < w.mhi)
            bwd_store(dst, j->dq.dtype, w.dq + m * l->Dhp, j->Dh, j->scale);
        else
            for (int64_t d = 0; d < j->Dh; d += VW) row_store(dst, j->dq.dtype, d, j->Dh, vf_zero());
    }
}

/* dQ of a block of rows: the segments' parts in their order. */
static void bwd_sum_dq(const attn_job *j, const attn_bwd_layout *l, int64_t tile) {
    const int64_t bh = tile / l->row_blocks, m0 = tile % l->row_blocks * ATTN_BR;
    for (int64_t m = m0; m < attn_min(m0 + ATTN_BR, j->R); m++) {
        char *dst = at_out(&j->dq, bh / j->Hk, m / j->r, bh % j->Hk * j->r + m % j->r);
        int64_t lo, hi;
        attn_interval(j, bh / j->Hk, m / j->r, &lo, &hi);
        if (j->global) lo = 0, hi = j->S;
        for (int64_t d = 0; d < j->Dh; d += VW) {
            vf sum = vf_zero();
            for (int64_t s = lo / l->seg_keys; s * l->seg_keys < hi; s++) {
                const float *part =
                    (const float *)(const void *)(j->scratch + l->dq_part + (bh * j->segments + s) * l->dq_head);
                sum = vf_add(sum, vf_load(part + m * l->Dhp + d));
            }
            row_store(dst, j->dq.dtype, d, j->Dh, vf_mul(sum, vf_set(j->scale)));
        }
    }
}

/* Sums over all rows of one query head: dsink = -sum exp(sink - lse) D, and dbias from the segments' parts. */
static void bwd_sum_head(const attn_job *j, const attn_bwd_layout *l, int64_t h) {
    if (j->want_dsinks) {
        double sum = 0;
        for (int64_t b = 0; b < j->B; b++)
            for (int64_t i = 0; i < j->T; i++)
                sum -= (double)(expf(j->sinks[h] - j->lse[b * j->lse_sb + h * j->lse_sh + i]) *
                                vf_sum(bwd_dot(at(&j->g, b, i, h), at(&j->o, b, i, h), j->o.dtype, j->Dv)));
        j->dsinks[h] = (float)sum + (j->acc_dsinks ? j->dsinks[h] : 0.0f);
    }
    if (!j->want_dbias) return;
    float *to = j->dbias + h * j->dbias_sh;
    for (int64_t e = 0; e < 2 * j->P - 1; e += VW) {
        vf sum = j->acc_dbias ? vf_load_n(to + e, 2 * j->P - 1 - e) : vf_zero();
        for (int64_t b = 0; b < j->B; b++)
            for (int64_t s = 0; s < j->segments; s++) {
                const int64_t part = ((b * j->Hk + h / j->r) * j->segments + s) * j->r + h % j->r;
                const float *x = (const float *)(const void *)(j->scratch + l->bias_part + part * l->bias_head);
                sum = vf_add(sum, vf_load(x + e));
            }
        vf_store_n(to + e, sum, 2 * j->P - 1 - e);
    }
}

static void bwd_leaf(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    attn_bwd_layout l;
    attn_bwd_lay(j, (attn_isa){VW, UNIT}, &l);
    const int64_t sums = l.dq_part >= 0 && j->dq.p ? j->B * j->Hk * l.row_blocks : 0;
    char *mine = j->scratch + l.worker + worker * l.w_bytes;
    for (int64_t tile = lo; tile < hi; tile++) {
        if (phase == 0) {
            bwd_space w = bwd_head(j, &l, tile / l.row_blocks, mine);
            bwd_pack(j, &w, tile % l.row_blocks);
        } else if (phase == 1)
            bwd_segment(j, &l, tile, hi, mine);
        else if (tile < sums)
            bwd_sum_dq(j, &l, tile);
        else
            bwd_sum_head(j, &l, tile - sums);
    }
}

#endif
