/* Forward: phase 0 packs keys and values of every kv head once, phase 1 runs the tiles of rows over them. Many short
 * heads need no phase of their own: who runs a head packs it, and finds it in its cache. */
#ifndef ATTN_FWD_BODY_H
#define ATTN_FWD_BODY_H

#include "cpu/attention/lane_body.h"

/* Memory of a worker for one tile of rows. */
typedef struct tile_space {
    uint32_t *q;             /* groups of (units, LANES) */
    float *s;                /* (ATTN_BC, LANES) */
    float *o;                /* (ROWS, ldo) */
    int64_t ldk, ldo, units; /* units between two keys; of a query row */
    fetch *ahead;            /* what the products fetch meanwhile, or NULL */
} tile_space;

/* s (keys, ld) = keys (., ldk) times panel (units, LANES), for vectors v, v + 1 of the panel. What a vector needs is
 * [c0, c1); both are done at once where both need it. */
static void tile_scores(const int64_t c0[2], const int64_t c1[2], const uint32_t *keys, int64_t ldk,
                        const uint32_t *panel, int64_t units, float *s, int64_t ld, fetch *ahead) {
    int64_t both0 = attn_max(c0[0], c0[1]), both1 = attn_min(c1[0], c1[1]);
    if (both1 <= both0) both0 = both1 = c1[0];
    gemm_args g = {.a = keys + both0 * ldk,
                   .ars = ldk,
                   .aks = 1,
                   .b = panel,
                   .ldb = LANES,
                   .kn = units,
                   .mode = GEMM_SET,
                   .ahead = ahead};
    g.c = s + both0 * ld;
    g.ldc = ld;
    gemm_panel(both1 - both0, 2, g);
    for (int v = 0; v < 2; v++) {
        const int64_t part[2][2] = {{c0[v], attn_min(c1[v], both0)}, {attn_max(c0[v], both1), c1[v]}};
        g.b = panel + v * VW;
        for (int i = 0; i < 2; i++) {
            g.a = keys + part[i][0] * ldk;
            g.c = s + part[i][0] * ld + v * VW;
            gemm_panel(part[i][1] - part[i][0], 1, g);
        }
    }
}

/* O of a group's rows [r0, r0 + n) of the tile = by O + P V over keys [c0, c1). */
static void tile_values(const tile_space *w, lane_rows *t, int64_t r0, int64_t n, int64_t c0, int64_t c1,
                        const uint32_t *values, bool moves) {
    const float *s = w->s + r0 % LANES + c0 / UNIT * LANES;
    const bool fresh = t->fresh[r0 / VW];
    const gemm_args g = {.a = (const uint32_t *)(const void *)s,
                         .ars = 1,
                         .aks = LANES,
                         .b = values + c0 / UNIT * w->ldo,
                         .ldb = w->ldo,
                         .kn = (c1 - c0) / UNIT,
                         .c = w->o + r0 * w->ldo,
                         .ldc = w->ldo,
                         .rowscale = t->alpha + r0,
                         .mode = fresh   ? GEMM_SET
                                 : moves ? GEMM_SCALE
                                         : GEMM_ADD};
    gemm(n, w->ldo / VW, g);
}

/* One group of rows, vectors v and v + 1. */
static void tile_group(const attn_job *j, lane_rows *t, const tile_space *w, int64_t v, int64_t k0, int64_t kn,
                       const uint32_t *keys, const uint32_t *values, const int32_t *kd) {
    float keep[ATTN_BC * VW];
    bool moves[2] = {false, false};
    tile_scores(t->c0 + v, t->c1 + v, keys, w->ldk, w->q + v * VW * w->units, w->units, w->s, LANES, w->ahead);
    for (int64_t i = 0; i < 2; i++) {
        const lane_tile x = lane_begin(j, t, v + i, k0, kn, kd, LANES);
        float *s = w->s + i * VW;
        if (x.a >= x.b) continue;
        if (!j->plain) lane_options(&x, s, NULL);
        lane_mask(&x, s);
        moves[i] = lane_softmax(&x, t, s, j->plain ? j->scale * ATTN_LOG2E : 1.0f);
        if (j->drop > 0) { /* the sum is that of all weights */
            lane_keep(&x, keep);
            lane_times(&x, s, keep);
        }
    }
    if (t->c0[v] == t->c0[v + 1] && t->c1[v] == t->c1[v + 1] && t->fresh[v] == t->fresh[v + 1]) {
        for (int64_t r = v * VW; moves[0] != moves[1] && r < (v + 2) * VW; r++)
            if (!moves[r / VW - v]) t->alpha[r] = 1.0f;
        tile_values(w, t, v * VW, attn_min(LANES, t->n - v * VW), t->c0[v], t->c1[v], values, moves[0] || moves[1]);
    } else
        for (int64_t i = v; i < v + 2; i++)
            if (t->c0[i] < t->c1[i])
                tile_values(w, t, i * VW, attn_min(VW, t->n - i * VW), t->c0[i], t->c1[i], values, moves[i - v]);
    for (int64_t i = v; i < v + 2; i++)
        if (t->c0[i] < t->c1[i]) t->fresh[i] = false;
}

/* Keys [k0, k0 + kn) against all rows of the tile. keys: as A operand, values: as B operand, both from k0 on; kd:
 * documents from k0 on, or NULL. */
static void tile_forward(const attn_job *j, lane_rows *t, const tile_space *w, int64_t k0, int64_t kn,
                         const uint32_t *keys, const uint32_t *values, const int32_t *kd) {
    if (!rows_span(t, k0, kn)) return;
    if (kd) {
        const int docs = rows_docs(t, kd, kn);
        if (!docs) return;
        if (docs == 1) kd = NULL;
    }
    for (int64_t v = 0; v < rows_up(t) / VW; v += 2)
        if (t->c0[v] < t->c1[v] || t->c0[v + 1] < t->c1[v + 1]) tile_group(j, t, w, v, k0, kn, keys, values, kd);
}

/* Before the first key tile; the limits of the rows are set. */
static void tile_begin(lane_rows *t) {
    for (int64_t v = 0; v < rows_up(t) / VW; v++) {
        vf_store(t->m + v * VW, vf_set(-INFINITY));
        vf_store(t->l + v * VW, vf_zero());
        t->fresh[v] = true;
    }
    rows_fill(t);
}

/* After the last: rows that saw no key have a sum of nothing. */
static void tile_end(lane_rows *t, const tile_space *w) {
    for (int64_t v = 0; v < rows_up(t) / VW; v++)
        if (t->fresh[v]) memset(w->o + v * VW * w->ldo, 0, (size_t)(VW * w->ldo) * sizeof(float));
}

/* Softmax of a vector of rows is complete, *m their maximum in units of log 2, *l their sum: what O must be multiplied
 * with; *lse gets the logarithm of the sum. A sink joins the sum here, under the larger of both maxima. */
INLINE vf rows_finish(const attn_job *j, const int32_t *head, vf m, vf l, vf *lse) {
    vf a = vf_set(1.0f);
    if (j->sinks) {
        float sinks[VW];
        for (int i = 0; i < VW; i++) sinks[i] = j->sinks[head[i]] * ATTN_LOG2E;
        const vf sink = vf_load(sinks), top = vf_max(m, sink);
        const vm larger = vf_gt(sink, m);
        a = vf_select(larger, exp2_soft(vf_sub(m, sink)), a);
        l = vf_fma(l, a, exp2_soft(vf_sub(sink, top)));
        m = top;
    }
    const vm none = vf_eq(l, vf_zero());
    *lse = vf_select(none, vf_set(INFINITY), vf_fma(m, vf_set(ATTN_LN2), vf_log(l)));
    return vf_select(none, vf_zero(), vf_div(a, l));
}

static void tile_store_row(char *dst, tl_dtype dtype, const float *o, int64_t n, float by) {
    const vf s = vf_set(by);
    for (int64_t d = 0; d < n; d += VW) row_store(dst, dtype, d, n, by == 0.0f ? vf_zero() : vf_mul(s, vf_load(o + d)));
}

static void fwd_pack(const attn_job *j, const attn_fwd_layout *l, int64_t bh, int64_t j0, int64_t j1, uint32_t *k,
                     uint32_t *v) {
    const int64_t b = bh / j->Hk, h = bh % j->Hk;
    const key_rows keys = {at(&j->k, b, 0, h), j->k.st * j->k.size, 0, j->k.dtype, j->Dh};
    const key_rows values = {at(&j->v, b, 0, h), j->v.st * j->v.size, 0, j->v.dtype, j->Dv};
    pack_rows(k + j0 * l->Dhq, l->Dhq, &keys, j0, j1, j->S);
    pack_keys(v + j0 / UNIT * l->Dvp, l->Dvp, &values, j0, j1, j->S);
}

/* Limits and packed queries of rows [m0, m0 + n) of kv head hk of sequence b. */
static void fwd_rows(const attn_job *j, const attn_fwd_layout *l, lane_rows *t, int64_t b, int64_t hk, int64_t m0,
                     uint32_t *q) {
    const int32_t *doc = j->doc ? j->doc + b * j->doc_sb : NULL;
    const char *row[LANES];
    int64_t begin = 0, r = 0;
    t->n = attn_min(ATTN_BR, j->R - m0);
    t->b = b;
    for (int64_t i = m0 / j->r, g = m0 % j->r; r < rows_up(t); r++) {
        const int64_t h = hk * j->r + g;
        row[r % LANES] = r < t->n ? at(&j->q, b, i, h) : NULL;
        if (r < t->n) {
            int64_t lo, hi, g0 = 0, g1 = 0;
            attn_interval(j, b, i, &lo, &hi);
            if (j->global) {
                begin = attn_begin(doc, i, r > 0 ? t->query[r - 1] : -1, begin);
                attn_globals(j, i, begin, &lo, &hi, &g0, &g1);
            }
            t->query[r] = (int32_t)i, t->head[r] = (int32_t)h, t->at[r] = (int32_t)(i + j->q_offset);
            t->lo[r] = (int32_t)lo, t->hi[r] = (int32_t)hi, t->g0[r] = (int32_t)g0, t->g1[r] = (int32_t)g1;
            t->doc[r] = doc ? doc[i] : 0;
            if (i + LANES < j->T) row_prefetch(at(&j->q, b, i + LANES, h), j->Dh * j->q.size);
        }
        if (r % LANES == LANES - 1) pack_panel(q + (r / LANES) * LANES * l->Dhu, row, LANES, j->q.dtype, j->Dh, l->Dhu);
        if (++g == j->r) g = 0, i++;
    }
}

static void fwd_store(const attn_job *j, const lane_rows *t, const tile_space *w) {
    for (int64_t v = 0; v * VW < t->n; v++) {
        float lse[VW], by[VW];
        vf log;
        vf_store(by, rows_finish(j, t->head + v * VW, vf_load(t->m + v * VW), vf_load(t->l + v * VW), &log));
        vf_store(lse, log);
        for (int64_t r = v * VW, i = 0; r < attn_min(t->n, (v + 1) * VW); r++, i++) {
            const int64_t query = t->query[r], head = t->head[r];
            tile_store_row(at_out(&j->o, t->b, query, head), j->o.dtype, w->o + r * w->ldo, j->Dv, by[i]);
            if (j->lse) j->lse[t->b * j->lse_sb + head * j->lse_sh + query] = lse[i];
        }
    }
}

/* What the products of head bh may fetch: its output and, before `end`, the next head's input. */
static fetch fwd_ahead(const attn_job *j, int64_t bh, int64_t end) {
    fetch f = {.rate = FETCH_RATE};
    if (j->S * j->Dh * j->k.size < FETCH_LEAST) return f;
    for (int64_t next = bh; next < attn_min(bh + 2, end); next++) {
        const int64_t b = next / j->Hk, h = next % j->Hk;
        if (next > bh) {
            fetch_add(&f, at(&j->k, b, 0, h), j->k.st * j->k.size, j->S, j->Dh * j->k.size);
            fetch_add(&f, at(&j->v, b, 0, h), j->v.st * j->v.size, j->S, j->Dv * j->v.size);
        }
        const attn_tensor *x = next > bh ? &j->q : &j->o;
        for (int64_t g = 0; g < j->r; g++)
            fetch_add(&f, at(x, b, 0, h * j->r + g), x->st * x->size, j->T, (next > bh ? j->Dh : j->Dv) * x->size);
    }
    return f;
}

/* One block of rows of kv head bh, against its packed keys. */
static void fwd_tile(const attn_job *j, const attn_fwd_layout *l, int64_t bh, int64_t block, char *mine,
                     const uint32_t *keys, const uint32_t *values, fetch *ahead) {
    const int64_t b = bh / j->Hk;
    const int32_t *doc = j->doc ? j->doc + b * j->doc_sb : NULL;
    const tile_space w = {(uint32_t *)(void *)(mine + l->w_q),
                          (float *)(void *)(mine + l->w_s),
                          (float *)(void *)(mine + l->w_o),
                          l->Dhq,
                          l->Dvp,
                          l->Dhu,
                          ahead};
    lane_rows *t = (lane_rows *)(void *)(mine + l->w_row);
    fwd_rows(j, l, t, b, bh % j->Hk, block * ATTN_BR, w.q);
    tile_begin(t);
    for (int pass = j->global ? 0 : 1; pass < 2; pass++) { /* the keys of global tokens before those of the window */
        if (j->global) rows_turn(t);
        for (int64_t k0 = t->first / ATTN_BC * ATTN_BC; k0 < t->reach; k0 += ATTN_BC) {
            const uint32_t *k = keys + k0 * l->Dhq, *v = values + k0 / UNIT * l->Dvp;
            if (!l->whole) { /* the next tile */
                const int64_t left = attn_min(ATTN_BC, l->Sp - k0 - ATTN_BC);
                ahead->rate =
                    1 + left * (l->Dhq + l->Dvp / UNIT) / 16 / ATTN_BR; /* a tile makes more calls than this */
                ahead->count = ahead->at = ahead->line = 0;
                fetch_add(ahead, (const char *)(k + ATTN_BC * l->Dhq), left * l->Dhq * 4, left > 0, left * l->Dhq * 4);
                fetch_add(ahead, (const char *)(v + ATTN_BC / UNIT * l->Dvp), left * l->Dvp * 4 / UNIT, left > 0,
                          left * l->Dvp * 4 / UNIT);
            }
            tile_forward(j, t, &w, k0, attn_min(ATTN_BC, j->S - k0), k, v, doc ? doc + k0 : NULL);
        }
    }
    tile_end(t, &w);
    fwd_store(j, t, &w);
}

static void fwd_leaf(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    attn_fwd_layout l;
    attn_fwd_lay(j, (attn_isa){VW, UNIT}, &l);
    char *mine = j->scratch + l.worker + worker * l.w_bytes;
    for (int64_t tile = lo; tile < hi; tile++) {
        const int64_t per = l.whole ? 1 : phase == 0 ? l.key_chunks : l.row_blocks, bh = tile / per;
        uint32_t *k = (uint32_t *)(void *)(l.whole ? mine + l.w_k : j->scratch + l.k + bh * l.k_head);
        uint32_t *v = (uint32_t *)(void *)(l.whole ? mine + l.w_v : j->scratch + l.v + bh * l.v_head);
        if (l.whole) {
            fetch ahead = fwd_ahead(j, bh, hi);
            fwd_pack(j, &l, bh, 0, l.Sp, k, v);
            for (int64_t block = 0; block < l.row_blocks; block++) fwd_tile(j, &l, bh, block, mine, k, v, &ahead);
        } else if (phase == 0) {
            const int64_t j0 = tile % per * ATTN_BC;
            fwd_pack(j, &l, bh, j0, attn_min(j0 + ATTN_BC, l.Sp), k, v);
        } else {
            fetch ahead = {.rate = FETCH_RATE};
            fwd_tile(j, &l, bh, attn_balance(tile % per, per), mine, k, v, &ahead);
        }
    }
}

#endif
