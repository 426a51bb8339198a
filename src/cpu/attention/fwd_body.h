/* Forward: phase 0 packs keys and values of every kv head once, phase 1 runs the tiles of rows over them. */
#ifndef ATTN_FWD_BODY_H
#define ATTN_FWD_BODY_H

#include "cpu/attention/row_body.h"

/* Memory of a worker for one tile of rows. */
typedef struct tile_space {
    uint32_t *q;             /* (ROWS, ldq) units */
    float *s;                /* (ATTN_GROUP + ATTN_PAD, ATTN_BC) */
    float *o;                /* (ROWS, ldo) */
    float *l;                /* (ROWS, VW): sums of weights by lanes */
    int64_t ldq, ldo, units; /* units of a query row */
} tile_space;

/* s = a b over the width of the operands, for n rows and columns [c0, c1) of the panels: scores, and dP. */
static void tile_products(int64_t n, int64_t c0, int64_t c1, const uint32_t *a, int64_t lda, int64_t units,
                          const uint32_t *panels, float *s) {
    for (int64_t p = c0 / NR * NR; p < c1; p += NR) {
        const int64_t v0 = attn_max(0, c0 - p) / VW, v1 = attn_min(NR, c1 - p) / VW;
        const gemm_args g = {.a = a,
                             .ars = lda,
                             .aks = 1,
                             .b = panels + p * units + v0 * VW,
                             .ldb = NR,
                             .kn = units,
                             .c = s + p + v0 * VW,
                             .ldc = ATTN_BC,
                             .mode = GEMM_SET};
        gemm(n, v1 - v0, g);
    }
}

/* to = scale to + x b for n rows, over columns [c0, c1) of x (n, ldx); scale: factors of the rows, or NULL. */
static void tile_sums(int64_t n, int64_t c0, int64_t c1, const uint32_t *x, int64_t ldx, const uint32_t *b, int64_t ldb,
                      float *to, const float *scale) {
    const int64_t k0 = c0 / UNIT, k1 = c1 / UNIT;
    const gemm_args g = {.a = x + k0,
                         .ars = ldx,
                         .aks = 1,
                         .b = b + k0 * ldb,
                         .ldb = ldb,
                         .kn = k1 - k0,
                         .c = to,
                         .ldc = ldb,
                         .rowscale = scale,
                         .mode = scale ? GEMM_SCALE : GEMM_ADD};
    gemm(n, ldb / VW, g);
}

static void row_drop(const attn_job *j, const tile_rows *t, int64_t r, int64_t k0, int64_t c0, int64_t c1, float *s) {
    float keep[ATTN_BC];
    row_keep(j, t, r, k0, c0, c1, keep);
    row_times(s, keep, c0, c1);
}

/* Keys [k0, k0 + kn) against all rows of the tile. kt: panels of NR keys, v: keys as B operand, both from k0 on; kd:
 * documents from k0 on, or NULL; end: keys there are in all. */
static void tile_forward(const attn_job *j, tile_rows *t, const tile_space *w, int64_t k0, int64_t kn,
                         const uint32_t *kt, const uint32_t *v, const int32_t *kd, int64_t end) {
    if (!rows_span(t, k0, kn)) return;
    if (kd) {
        const int docs = rows_docs(t, kd, kn);
        if (!docs) return;
        if (docs == 1) kd = NULL;
    }
    const char *next = (const char *)(kt + ATTN_BC * w->units), *nextv = (const char *)(v + ATTN_BC / UNIT * w->ldo);
    const int64_t ahead = j->C ? 0 : ATTN_BC * w->units / 16 / ATTN_BR;
    const float factor = j->plain ? j->scale * ATTN_LOG2E : 1.0f;
    for (int64_t c = 0, after; c < CHUNKS; c = after) {
        after = rows_group(t, c);
        const int64_t c0 = t->c0[c], c1 = t->c1[c], r0 = c * ATTN_CHUNK, n = attn_min(after * ATTN_CHUNK, t->n) - r0;
        if (c0 >= c1) continue;
        tile_products(n, c0, c1, w->q + r0 * w->ldq, w->ldq, w->units, kt, w->s);
        bool moves = false;
        for (int64_t r = r0; r < r0 + n; r++) {
            float *s = w->s + (r - r0) * ATTN_BC;
            const int64_t lo = t->lo[r] - k0, hi = t->hi[r] - k0;
            if (!j->plain && hi > lo) row_options(j, s, NULL, c0, c1, k0, t->at[r], t->head[r], t->hi[r]);
            if (lo > c0 || hi < c1 || kd) row_mask(s, c0, c1, lo, hi, kd, t->doc[r], end - k0);
            moves |= row_softmax(s, c0, c1, factor, &t->m[r], w->l + r * VW, &t->alpha[r]);
            if (j->drop > 0) row_drop(j, t, r, k0, c0, c1, s); /* the sum is that of all weights */
            for (int64_t i = 0; i < ahead; i++) {
                _mm_prefetch(next + i * 64, _MM_HINT_T1);
                _mm_prefetch(nextv + i * 64, _MM_HINT_T1);
            }
            next += ahead * 64, nextv += ahead * 64;
        }
        tile_sums(n, c0, c1, (const uint32_t *)(const void *)w->s, ATTN_BC, v, w->ldo, w->o + r0 * w->ldo,
                  moves ? t->alpha + r0 : NULL);
    }
}

/* Before the first key tile. */
static void tile_begin(tile_rows *t, const tile_space *w) {
    for (int64_t r = 0; r < ROWS; r++) {
        t->m[r] = -INFINITY;
        t->alpha[r] = 1.0f;
        vf_store(w->l + r * VW, vf_zero());
    }
    const int64_t up = attn_min(ROWS, attn_up(t->n, ATTN_CHUNK));
    for (int64_t r = t->n; r < up; r++) pack_row(w->q + r * w->ldq, w->ldq, NULL, TL_F32, 0);
    memset(w->o, 0, (size_t)(up * w->ldo) * sizeof(float));
    rows_chunks(t);
}

/* After the last. */
static void tile_end(tile_rows *t, const tile_space *w) {
    for (int64_t r = 0; r < t->n; r++) t->l[r] = vf_sum(vf_load(w->l + r * VW));
}

/* Softmax of a row is complete, m its maximum in units of log 2, l its sum: what O must be multiplied with; *lse gets
 * the logarithm of the sum. A sink joins the sum here, under the larger of both maxima. */
static float row_finish(const attn_job *j, int64_t head, float m, float l, float *lse) {
    float a = 1.0f;
    *lse = INFINITY;
    if (l == 0.0f && !j->sinks) return 0.0f;
    if (j->sinks) {
        const float sink = j->sinks[head] * ATTN_LOG2E;
        if (sink > m) {
            a = exp2f(m - sink);
            l = l * a + 1.0f;
            m = sink;
        } else
            l += exp2f(sink - m);
    }
    *lse = m * ATTN_LN2 + logf(l);
    return a / l;
}

static void tile_store_row(char *dst, tl_dtype dtype, const float *o, int64_t n, float by) {
    const vf s = vf_set(by);
    for (int64_t d = 0; d < n; d += VW) row_store(dst, dtype, d, n, by == 0.0f ? vf_zero() : vf_mul(s, vf_load(o + d)));
}

static void fwd_pack(const attn_job *j, const attn_fwd_layout *l, int64_t tile) {
    const int64_t bh = tile / l->key_chunks, j0 = tile % l->key_chunks * ATTN_BC, b = bh / j->Hk, h = bh % j->Hk;
    const int64_t j1 = attn_min(j0 + ATTN_BC, attn_up(j->S, NR));
    uint32_t *kt = (uint32_t *)(void *)(j->scratch + l->kt + bh * l->kt_head);
    uint32_t *v = (uint32_t *)(void *)(j->scratch + l->v + bh * l->v_head);
    const key_rows keys = {at(&j->k, b, 0, h), j->k.st * j->k.size, 0, j->k.dtype, j->Dh};
    const key_rows values = {at(&j->v, b, 0, h), j->v.st * j->v.size, 0, j->v.dtype, j->Dv};
    for (int64_t p = j0; p < j1; p += NR) pack_transposed(kt + p * l->Dhu, &keys, p, j->S, l->Dhu);
    pack_keys(v + j0 / UNIT * l->Dvp, l->Dvp, &values, j0, j1, j->S);
}

static void fwd_tile(const attn_job *j, const attn_fwd_layout *l, int64_t tile, char *mine) {
    const int64_t bh = tile / l->row_blocks, b = bh / j->Hk, hk = bh % j->Hk;
    const int64_t m0 = attn_balance(tile % l->row_blocks, l->row_blocks) * ATTN_BR;
    const tile_space w = {(uint32_t *)(void *)(mine + l->w_q),
                          (float *)(void *)(mine + l->w_s),
                          (float *)(void *)(mine + l->w_o),
                          (float *)(void *)(mine + l->w_l),
                          l->Dhq,
                          l->Dvp,
                          l->Dhu};
    tile_rows *t = (tile_rows *)(void *)(mine + l->w_row);
    t->n = attn_min(ATTN_BR, j->R - m0);
    t->b = b;
    const int32_t *doc = j->doc ? j->doc + b * j->doc_sb : NULL;
    int64_t begin = 0;
    for (int64_t r = 0, i = m0 / j->r, g = m0 % j->r; r < t->n; r++) {
        const int64_t h = hk * j->r + g;
        t->query[r] = i;
        t->head[r] = h;
        t->at[r] = i + j->q_offset;
        if (doc) t->doc[r] = doc[i];
        attn_interval(j, b, i, &t->lo[r], &t->hi[r]);
        if (j->global) {
            begin = attn_begin(doc, i, r > 0 ? t->query[r - 1] : -1, begin);
            attn_globals(j, i, begin, &t->lo[r], &t->hi[r], &t->g0[r], &t->g1[r]);
        }
        if (i + 16 < j->T) row_prefetch(at(&j->q, b, i + 16, h), j->Dh * j->q.size);
        pack_row(w.q + r * w.ldq, w.ldq, at(&j->q, b, i, h), j->q.dtype, j->Dh);
        if (++g == j->r) g = 0, i++;
    }
    tile_begin(t, &w);
    const uint32_t *kt = (const uint32_t *)(const void *)(j->scratch + l->kt + bh * l->kt_head);
    const uint32_t *v = (const uint32_t *)(const void *)(j->scratch + l->v + bh * l->v_head);
    for (int pass = j->global ? 0 : 1; pass < 2; pass++) { /* the keys of global tokens before those of the window */
        if (j->global) rows_turn(t);
        for (int64_t k0 = t->first / ATTN_BC * ATTN_BC; k0 < t->reach; k0 += ATTN_BC)
            tile_forward(j, t, &w, k0, attn_min(ATTN_BC, j->S - k0), kt + k0 * l->Dhu, v + k0 / UNIT * l->Dvp,
                         doc ? doc + k0 : NULL, j->S);
    }
    tile_end(t, &w);
    for (int64_t r = 0; r < t->n; r++) {
        float lse;
        const float by = row_finish(j, t->head[r], t->m[r], t->l[r], &lse);
        tile_store_row(at_out(&j->o, b, t->query[r], t->head[r]), j->o.dtype, w.o + r * w.ldo, j->Dv, by);
        if (j->lse) j->lse[b * j->lse_sb + t->head[r] * j->lse_sh + t->query[r]] = lse;
    }
}

static void fwd_leaf(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    attn_fwd_layout l;
    attn_fwd_lay(j, (attn_isa){VW, PANEL, UNIT}, &l);
    for (int64_t tile = lo; tile < hi; tile++) {
        if (phase == 0)
            fwd_pack(j, &l, tile);
        else
            fwd_tile(j, &l, tile, j->scratch + l.worker + worker * l.w_bytes);
    }
}

#endif
