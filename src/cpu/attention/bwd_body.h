/* Backward. Phase 1: a tile is one segment of the keys of one kv head. Its rows are packed before, by phase 0 where
 * several segments share them. It walks key blocks outside and row blocks inside, so dK and dV of a block are sums in
 * one order, over the heads of the group too; dQ adds up in memory of the worker or, with several segments, in the
 * segment's own part. Phase 2 adds the parts in the order of segments, and the sums over everything: sinks and bias. */
#ifndef ATTN_BWD_BODY_H
#define ATTN_BWD_BODY_H

#include "cpu/attention/fwd_body.h"

typedef struct bwd_space {
    const attn_bwd_layout *l;
    int64_t b, hk, s0, s1, mlo, mhi; /* keys of the segment; rows that see any of them, whole chunks */
    uint32_t *qa, *qb, *ga, *gb;     /* rows as A (R, Dhq) and as B (R / UNIT, Dhp) operands; g: dO */
    float *dq;                       /* (R, Dhp) */
    tile_rows *rows;                 /* one per block of rows; m: log-sum-exp in units of log 2, l: D */
    tile_rows *now;                  /* the worker's copy of one: others may be at the same rows */
    uint32_t *kt, *vt, *kb;          /* the key block: transposed panels, and as B operand */
    float *dk, *dv, *s, *p, *f;      /* p: dP, then dS */
    uint32_t *a;                     /* dS by rows, where pairs need it in both orders */
    float *bias;                     /* dbias of the segment, or NULL */
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
        *mlo = 0, *mhi = attn_up(j->R, ATTN_CHUNK);
        return;
    }
    *mlo = bwd_first_row(j, b, segment * l->seg_keys, true) / ATTN_CHUNK * ATTN_CHUNK;
    *mhi = attn_up(bwd_first_row(j, b, (segment + 1) * l->seg_keys, false), ATTN_CHUNK);
}

static float bwd_dot(const char *x, const char *y, tl_dtype dtype, int64_t n) {
    vf sum = vf_zero();
    for (int64_t d = 0; d < n; d += VW) sum = vf_fma(row_load(x, dtype, d, n), row_load(y, dtype, d, n), sum);
    return vf_sum(sum);
}

static void bwd_pack_row(const attn_job *j, bwd_space *w, int64_t m) {
    const attn_bwd_layout *l = w->l;
    tile_rows *t = &w->rows[m / ATTN_BR];
    const int64_t r = m % ATTN_BR, i = m / j->r, h = w->hk * j->r + m % j->r;
    const bool there = m < j->R;
    const char *q = there ? at(&j->q, w->b, i, h) : NULL, *g = there ? at(&j->g, w->b, i, h) : NULL;
    if (i + 16 < j->T) {
        row_prefetch(at(&j->q, w->b, i + 16, h), j->Dh * j->q.size);
        row_prefetch(at(&j->g, w->b, i + 16, h), j->Dv * j->g.size);
        row_prefetch(at(&j->o, w->b, i + 16, h), j->Dv * j->o.size);
    }
    pack_row(w->qa + m * l->Dhq, l->Dhq, q, j->q.dtype, j->Dh);
    pack_row(w->ga + m * l->Dvq, l->Dvq, g, j->g.dtype, j->Dv);
    if (UNIT == 2 && m % 2 == 0) {
        const int64_t i1 = (m + 1) / j->r, h1 = w->hk * j->r + (m + 1) % j->r;
        const bool both = m + 1 < j->R;
        pack_natural(w->qb + m / 2 * l->Dhp, l->Dhp, q, both ? at(&j->q, w->b, i1, h1) : NULL, j->q.dtype, j->Dh);
        pack_natural(w->gb + m / 2 * l->Dvp, l->Dvp, g, both ? at(&j->g, w->b, i1, h1) : NULL, j->g.dtype, j->Dv);
    }
    if (!there) return;
    t->n = attn_max(t->n, r + 1);
    t->at[r] = i + j->q_offset;
    t->head[r] = h;
    t->query[r] = i;
    if (j->doc) t->doc[r] = j->doc[w->b * j->doc_sb + i];
    attn_interval(j, w->b, i, &t->lo[r], &t->hi[r]);
    if (j->global) {
        const int64_t begin =
            attn_begin(j->doc ? j->doc + w->b * j->doc_sb : NULL, i, r > 0 ? t->query[r - 1] : -1, t->begin);
        t->begin = begin;
        attn_globals(j, i, begin, &t->lo[r], &t->hi[r], &t->g0[r], &t->g1[r]);
    }
    t->m[r] = j->lse[w->b * j->lse_sb + h * j->lse_sh + i] * ATTN_LOG2E;
    t->l[r] = bwd_dot(g, at(&j->o, w->b, i, h), j->o.dtype, j->Dv);
}

static void bwd_pack(const attn_job *j, bwd_space *w, int64_t blk) {
    tile_rows *t = &w->rows[blk];
    t->n = 0;
    t->b = w->b;
    for (int64_t r = 0; r < ATTN_BR; r++) t->lo[r] = t->hi[r] = 0;
    for (int64_t r = 0; r < ATTN_BR; r++)
        t->doc[r] = j->doc ? j->doc[w->b * j->doc_sb + attn_min(blk * ATTN_BR + r, j->R - 1) / j->r] : 0;
    const int64_t end = attn_min(attn_up(j->R, ATTN_CHUNK), (blk + 1) * ATTN_BR);
    for (int64_t m = blk * ATTN_BR; m < end; m++) bwd_pack_row(j, w, m);
    rows_chunks(t);
}

static void bwd_zero(float *p, int64_t c0, int64_t c1) {
    for (int64_t c = c0; c < c1; c += VW) vf_store(p + c, vf_zero());
}

/* P and dS of columns [c, c + VW) of one row. */
typedef struct bwd_row {
    float *s, *p, *f, *bias;
    vf factor, lse, delta;
    int64_t hi; /* columns from here on are hidden */
} bwd_row;

INLINE void bwd_cell(const bwd_row *r, int64_t c, vf *prob, vf *ds) {
    *prob = exp2_soft(vf_fms(vf_load(r->s + c), r->factor, r->lse));
    vf d = vf_mul(*prob, vf_sub(vf_load(r->p + c), r->delta));
    if (r->bias) vf_store_n(r->bias + c, vf_add(vf_load_n(r->bias + c, r->hi - c), d), r->hi - c);
    if (r->f) d = vf_mul(d, vf_load(r->f + c));
    *ds = d;
}

/* Options and mask of row r; what bwd_cell then needs. */
static bwd_row bwd_row_begin(const attn_job *j, const bwd_space *w, const tile_rows *t, int64_t r, int64_t c0,
                             int64_t c1, int64_t k0, const int32_t *kd) {
    const int64_t lo = t->lo[r] - k0, hi = t->hi[r] - k0;
    bwd_row x = {.s = w->s + r * ATTN_BC, .p = w->p + r * ATTN_BC, .hi = hi};
    if (j->softcap > 0) {
        x.f = w->f + r * ATTN_BC;
        if (hi <= lo) bwd_zero(x.f, c0, c1);
    }
    if (!j->plain && hi > lo) row_options(j, x.s, x.f, c0, c1, k0, t->at[r], t->head[r], t->hi[r]);
    if (lo > c0 || hi < c1 || kd) row_mask(x.s, c0, c1, lo, hi, kd, t->doc[r], j->S - k0);
    if (w->bias && hi > lo) x.bias = w->bias + t->head[r] % j->r * (w->l->bias_head / 4) + (j->P - 1 - t->at[r]) + k0;
    x.factor = vf_set(j->plain ? j->scale * ATTN_LOG2E : 1.0f);
    x.lse = vf_set(t->m[r]);
    x.delta = vf_set(t->l[r]);
    return x;
}

/* Scores and dP of a chunk of rows become P and dS; zeros out to whole blocks of ATTN_JCHUNK keys. */
static void bwd_chunk(const attn_job *j, const bwd_space *w, const tile_rows *t, int64_t chunk, int64_t k0,
                      const int32_t *kd) {
    const int64_t c0 = t->c0[chunk], c1 = t->c1[chunk], r0 = chunk * ATTN_CHUNK;
    const int64_t z0 = c0 / ATTN_JCHUNK * ATTN_JCHUNK, z1 = attn_up(c1, ATTN_JCHUNK);
    for (int64_t r = r0; r < r0 + ATTN_CHUNK; r += UNIT) {
        float *s = w->s + r * ATTN_BC, *p = w->p + r * ATTN_BC;
        if (r >= t->n) {
            bwd_zero(s, z0, z1);
            bwd_zero(p, z0, z1);
            continue;
        }
        const bwd_row x = bwd_row_begin(j, w, t, r, c0, c1, k0, kd);
#if defined(ATTN_BF16)
        bwd_row y = x;
        if (r + 1 < t->n) y = bwd_row_begin(j, w, t, r + 1, c0, c1, k0, kd);
        const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22,
                                               6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
        uint16_t *a = (uint16_t *)(void *)(w->a + r * (ATTN_BC / 2));
        for (int64_t c = c0; c < c1; c += VW) {
            vf px, dx, py = vf_zero(), dy = vf_zero();
            bwd_cell(&x, c, &px, &dx);
            if (r + 1 < t->n) bwd_cell(&y, c, &py, &dy);
            const __m512i hp = (__m512i)_mm512_cvtne2ps_pbh(py, px), hd = (__m512i)_mm512_cvtne2ps_pbh(dy, dx);
            vi_store(s + c, _mm512_permutexvar_epi16(pairs, hp));
            vi_store(p + c, _mm512_permutexvar_epi16(pairs, hd));
            _mm256_storeu_si256((__m256i *)(void *)(a + c), _mm512_castsi512_si256(hd));
            _mm256_storeu_si256((__m256i *)(void *)(a + ATTN_BC + c), _mm512_extracti64x4_epi64(hd, 1));
        }
#else
        float keep[ATTN_BC]; /* dP and, for dV, P as the forward pass had them behind dropout */
        if (j->drop > 0) {
            row_keep(j, t, r, k0, c0, c1, keep);
            row_times(p, keep, c0, c1);
        }
        for (int64_t c = c0; c < c1; c += VW) {
            vf prob, ds;
            bwd_cell(&x, c, &prob, &ds);
            vf_store(s + c, prob);
            vf_store(p + c, ds);
        }
        if (j->drop > 0) row_times(s, keep, c0, c1);
#endif
        bwd_zero(s, z0, c0), bwd_zero(s, c1, z1);
        bwd_zero(p, z0, c0), bwd_zero(p, c1, z1);
    }
}

static bool bwd_meets(const tile_rows *t, int64_t c, int64_t j0) {
    return t->c0[c] < t->c1[c] && t->c0[c] < j0 + ATTN_JCHUNK && attn_up(t->c1[c], ATTN_JCHUNK) > j0;
}

/* to = to + x^T b, by keys, over the rows of the tile: dV = P^T dO, dK = dS^T Q. */
static void bwd_keys(const tile_rows *t, int64_t kn, const float *x, const uint32_t *b, int64_t ldb, float *to) {
    for (int64_t j0 = 0; j0 < kn; j0 += ATTN_JCHUNK) {
        for (int64_t first = 0, end; first < CHUNKS; first = end + 1) { /* runs of chunks that see any of these keys */
            while (first < CHUNKS && !bwd_meets(t, first, j0)) first++;
            for (end = first; end < CHUNKS && bwd_meets(t, end, j0);) end++;
            if (first >= end) break;
            const int64_t r0 = first * ATTN_CHUNK, rows = (end - first) * ATTN_CHUNK;
            const gemm_args g = {.a = (const uint32_t *)(const void *)(x + r0 * ATTN_BC + j0),
                                 .ars = 1,
                                 .aks = UNIT * ATTN_BC,
                                 .b = b + r0 / UNIT * ldb,
                                 .ldb = ldb,
                                 .kn = rows / UNIT,
                                 .c = to + j0 * ldb,
                                 .ldc = ldb,
                                 .mode = GEMM_ADD};
            gemm(attn_min(ATTN_JCHUNK, kn - j0), ldb / VW, g);
        }
    }
}

/* Keys [k0, k0 + kn), packed, against one block of rows and their first interval. */
static void bwd_pass(const attn_job *j, const bwd_space *w, tile_rows *t, int64_t blk, int64_t k0, int64_t kn) {
    const attn_bwd_layout *l = w->l;
    const int64_t m0 = blk * ATTN_BR;
    const int32_t *kd = j->doc ? j->doc + w->b * j->doc_sb + k0 : NULL;
    if (!rows_span(t, k0, kn)) return;
    if (kd) {
        const int docs = rows_docs(t, kd, kn);
        if (!docs) return;
        if (docs == 1) kd = NULL;
    }
    for (int64_t c = 0, after; c < CHUNKS; c = after) {
        after = rows_group(t, c);
        const int64_t c0 = t->c0[c], c1 = t->c1[c], r0 = c * ATTN_CHUNK, n = attn_min(after * ATTN_CHUNK, t->n) - r0;
        if (c0 >= c1) continue;
        tile_products(n, c0, c1, w->qa + (m0 + r0) * l->Dhq, l->Dhq, l->Dhu, w->kt, w->s + r0 * ATTN_BC);
        tile_products(n, c0, c1, w->ga + (m0 + r0) * l->Dvq, l->Dvq, l->Dvu, w->vt, w->p + r0 * ATTN_BC);
        for (; c < after; c++) bwd_chunk(j, w, t, c, k0, kd);
    }
    if (j->dv.p) bwd_keys(t, kn, w->s, w->gb + m0 / UNIT * l->Dvp, l->Dvp, w->dv);
    if (j->dk.p) bwd_keys(t, kn, w->p, w->qb + m0 / UNIT * l->Dhp, l->Dhp, w->dk);
    const uint32_t *ds = UNIT == 2 ? w->a : (const uint32_t *)(const void *)w->p;
    for (int64_t c = 0, after; c < CHUNKS && j->dq.p; c = after) {
        after = rows_group(t, c);
        const int64_t r0 = c * ATTN_CHUNK;
        if (t->c0[c] < t->c1[c])
            tile_sums(attn_min(after * ATTN_CHUNK, t->n) - r0, t->c0[c], t->c1[c], ds + r0 * (ATTN_BC / UNIT),
                      ATTN_BC / UNIT, w->kb, l->Dhp, w->dq + (m0 + r0) * l->Dhp, NULL);
    }
}

static void bwd_tile(const attn_job *j, const bwd_space *w, int64_t blk, int64_t k0, int64_t kn) {
    const tile_rows *shared = &w->rows[blk];
    tile_rows *t = w->l->head < 0 ? &w->rows[blk] : w->now;
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
    const int64_t kn = attn_min(ATTN_BC, j->S - k0), up = attn_up(kn, NR);
    const int64_t used = attn_up(kn, ATTN_JCHUNK);
    memset(w->dk, 0, (size_t)(used * l->Dhp) * sizeof(float));
    memset(w->dv, 0, (size_t)(used * l->Dvp) * sizeof(float));
    for (int64_t n = 0; n < up; n += NR) {
        pack_transposed(w->kt + n * l->Dhu, &w->keys, k0 + n, j->S, l->Dhu);
        pack_transposed(w->vt + n * l->Dvu, &w->values, k0 + n, j->S, l->Dvu);
    }
    pack_keys(w->kb, l->Dhp, &w->keys, k0, k0 + up, j->S);
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
    w.qa = (uint32_t *)(void *)(p + l->h_qa), w.qb = (uint32_t *)(void *)(p + l->h_qb);
    w.ga = (uint32_t *)(void *)(p + l->h_ga), w.gb = (uint32_t *)(void *)(p + l->h_gb);
    w.rows = (tile_rows *)(void *)(p + l->h_rows);
    return w;
}

static void bwd_segment(const attn_job *j, const attn_bwd_layout *l, int64_t tile, char *mine) {
    const int64_t bh = tile / j->segments, segment = attn_balance(tile % j->segments, j->segments);
    bwd_space w = bwd_head(j, l, bh, mine);
    w.s0 = segment * l->seg_keys;
    w.s1 = attn_min(w.s0 + l->seg_keys, j->S);
    bwd_rows_of(j, l, w.b, segment, &w.mlo, &w.mhi);
    w.now = (tile_rows *)(void *)(mine + l->w_rows);
    w.kt = (uint32_t *)(void *)(mine + l->w_kt), w.vt = (uint32_t *)(void *)(mine + l->w_vt);
    w.kb = (uint32_t *)(void *)(mine + l->w_kb), w.a = (uint32_t *)(void *)(mine + l->w_a);
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
                                bwd_dot(at(&j->g, b, i, h), at(&j->o, b, i, h), j->o.dtype, j->Dv));
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
    attn_bwd_lay(j, (attn_isa){VW, PANEL, UNIT}, &l);
    const int64_t sums = l.dq_part >= 0 && j->dq.p ? j->B * j->Hk * l.row_blocks : 0;
    char *mine = j->scratch + l.worker + worker * l.w_bytes;
    for (int64_t tile = lo; tile < hi; tile++) {
        if (phase == 0) {
            bwd_space w = bwd_head(j, &l, tile / l.row_blocks, mine);
            bwd_pack(j, &w, tile % l.row_blocks);
        } else if (phase == 1)
            bwd_segment(j, &l, tile, mine);
        else if (tile < sums)
            bwd_sum_dq(j, &l, tile);
        else
            bwd_sum_head(j, &l, tile - sums);
    }
}

#endif
