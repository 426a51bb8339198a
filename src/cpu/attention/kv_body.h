/* Attention over a cache. A tile is a block of rows of one kv head and one part of the keys. Consecutive rows of one
 * slot go through the tiles of the forward pass, packing keys as they come; few rows, as in decoding, read the cache
 * once, row by row, without packing. With several parts phase 1 merges them in their order. */
#ifndef ATTN_KV_BODY_H
#define ATTN_KV_BODY_H

#include "cpu/attention/fwd_body.h"

enum {
    KV_FEW = 4,     /* fewer rows than this are not worth packing */
    KV_SPLIT = 256, /* fewest keys of a part */
    KV_STEP = 64,   /* keys packed at a time for a single vector of rows: they stay in L1 until they are used */
    KV_RATE = 8     /* lines to fetch at every micro-kernel: few rows make few of them */
};

typedef struct kv_space {
    const attn_kv_layout *l;
    tile_space w;
    lane_rows *t;
    uint32_t *k, *v;
    fetch *ahead;
    int64_t hk, split;
} kv_space;

/* Few rows: q (KV_FEW, Dhq) as it lies, scores (KV_FEW, ATTN_BC) by rows. Scores of row r with keys [k0, k0 + kn). */
INLINE void kv_scores(const kv_space *s, const key_rows *keys, tl_dtype dtype, int64_t r, int64_t k0, int64_t kn) {
    const float *q = (const float *)(const void *)(s->w.q + r * s->w.ldk);
    const int64_t bytes = key_bytes(keys);
    for (int64_t c = 0; c < kn; c += VW) {
        vf x[VW];
        UNROLL for (int i = 0; i < VW; i++) x[i] = vf_zero();
        for (int64_t i = 0; i < attn_min(VW, kn - c); i++) {
            const char *row = key_row(keys, k0 + c + i);
            if (r == 0 && c + i + VW < kn) row_prefetch(key_row(keys, k0 + c + i + VW), bytes);
            vf sum = vf_zero();
            for (int64_t d = 0; d < keys->n; d += VW)
                sum = vf_fma(row_load(row, dtype, d, keys->n), vf_load(q + d), sum);
            x[i] = sum;
        }
        vf_store(s->w.s + r * ATTN_BC + c, sum_block(x));
    }
}

/* O of row r = alpha O + P V, four vectors of its width at a time. */
INLINE void kv_values(const kv_space *s, const key_rows *values, tl_dtype dtype, int64_t r, int64_t k0, int64_t c0,
                      int64_t c1) {
    float *o = s->w.o + r * s->w.ldo;
    const float *p = s->w.s + r * ATTN_BC;
    const vf alpha = vf_set(s->t->alpha[r]);
    for (int64_t d = 0; d < values->n; d += 4 * VW) {
        vf acc[4];
        const int64_t n = attn_min(4, (values->n - d + VW - 1) / VW);
        for (int64_t i = 0; i < 4; i++) acc[i] = i < n ? vf_mul(alpha, vf_load(o + d + i * VW)) : vf_zero();
        for (int64_t c = c0; c < c1; c++) {
            const char *row = key_row(values, k0 + c);
            if (r == 0 && d == 0 && c + VW < c1) row_prefetch(key_row(values, k0 + c + VW), key_bytes(values));
            const vf x = vf_set(p[c]);
            UNROLL for (int i = 0; i < 4; i++) acc[i] = vf_fma(x, row_load(row, dtype, d + i * VW, values->n), acc[i]);
        }
        for (int64_t i = 0; i < n; i++) vf_store(o + d + i * VW, acc[i]);
    }
}

/* From scores of one row to T log2(e): as lane_options, with keys along the lanes. */
static void kv_options(const attn_job *j, const lane_rows *t, int64_t r, float *s, int64_t n, int64_t k0) {
    const vf scale = vf_set(j->softcap > 0 ? j->scale / j->softcap : j->scale), cap = vf_set(j->softcap);
    const int32_t position = t->at[r];
    const vf slope = vf_set(j->slopes ? j->slopes[t->head[r]] : 0.0f), log2e = vf_set(ATTN_LOG2E);
    const float *bias = j->bias ? j->bias + t->head[r] * j->bias_sh + (j->P - 1 - position) : NULL;
    for (int64_t c = 0; c < n; c += VW) {
        vf x = vf_mul(vf_load(s + c), scale);
        if (j->softcap > 0) x = vf_mul(vf_tanh(x), cap);
        if (j->slopes) x = vf_fnma(slope, vf_abs(vi_float(vi_add(vi_iota(), vi_set((int32_t)(k0 + c) - position)))), x);
        if (bias) x = vf_add(x, vf_load_n(bias + k0 + c, t->hi[r] - (k0 + c)));
        vf_store(s + c, vf_mul(x, log2e));
    }
}

/* lane_softmax for one row, keys [lo, hi) along the lanes. */
static void kv_softmax(float *s, int64_t n, int64_t lo, int64_t hi, float c, lane_rows *t, int64_t r) {
    vf top = vf_set(-INFINITY);
    for (int64_t i = 0; i < n; i += VW) {
        const vm seen = vm_and(vm_first(hi - i), vm_not(vm_first(lo - i)));
        const vf x = vf_select(seen, vf_load(s + i), vf_set(-INFINITY));
        vf_store(s + i, x);
        top = vf_max(top, x);
    }
    const float m = t->m[r], most = c * vf_hmax(top);
    t->alpha[r] = 1.0f;
    if (most > m + LAG) {
        t->alpha[r] = exp2f(m - most);
        t->m[r] = most;
    }
    const vf vb = vf_set(t->m[r] == -INFINITY ? 0.0f : t->m[r]), vc = vf_set(c);
    vf sum = vf_zero();
    for (int64_t i = 0; i < n; i += VW) {
        const vf p = exp2_soft(vf_fms(vf_load(s + i), vc, vb));
        sum = vf_add(sum, p);
        vf_store(s + i, p);
    }
    t->l[r] = t->l[r] * t->alpha[r] + vf_sum(sum);
}

INLINE void kv_few_as(const attn_job *j, const kv_space *s, const key_rows *keys, const key_rows *values,
                      tl_dtype dtype, int64_t k0, int64_t kn) {
    const int64_t c1 = attn_up(kn, VW);
    for (int64_t r = 0; r < s->t->n; r++) {
        lane_rows *t = s->t;
        float *x = s->w.s + r * ATTN_BC;
        const int64_t lo = attn_max(0, t->lo[r] - k0), hi = attn_min(kn, t->hi[r] - k0);
        if (hi <= lo) continue;
        kv_scores(s, keys, dtype, r, k0, kn);
        if (!j->plain) kv_options(j, t, r, x, c1, k0);
        kv_softmax(x, c1, lo, hi, j->plain ? j->scale * ATTN_LOG2E : 1.0f, t, r);
        kv_values(s, values, dtype, r, k0, lo, hi);
    }
}

static void kv_few(const attn_job *j, const kv_space *s, const key_rows *keys, const key_rows *values, int64_t k0,
                   int64_t kn) {
    if (keys->dtype == TL_F32)
        kv_few_as(j, s, keys, values, TL_F32, k0, kn);
    else if (keys->dtype == TL_BF16)
        kv_few_as(j, s, keys, values, TL_BF16, k0, kn);
    else if (keys->dtype == TL_Q8_0)
        kv_few_as(j, s, keys, values, TL_Q8_0, k0, kn);
    else
        kv_few_as(j, s, keys, values, TL_F16, k0, kn);
}

/* The end of a row's keys where rows name it: within the window, both ways, and the bias table. */
static int64_t kv_end(const attn_job *j, int64_t i, int64_t pos) {
    int64_t end = attn_max(0, j->ends[i]);
    if (j->window > 0) end = attn_min(end, pos + j->window);
    return j->bias ? attn_min(end, pos + j->P) : end;
}

/* Keys [k0, k0 + kn) are fetched meanwhile, unless they go round the end of the cache. */
static void kv_ahead(fetch *f, const key_rows *k, int64_t k0, int64_t kn) {
    if (kn > 0 && k0 % k->ring + kn <= k->ring) fetch_add(f, key_row(k, k0), k->stride, kn, key_bytes(k));
}

/* The rows of the tile with keys [first, end). */
static void kv_keys(const attn_job *j, const kv_space *s, const key_rows *keys, const key_rows *values, int64_t first,
                    int64_t end) {
    lane_rows *t = s->t;
    const int64_t step = t->n >= KV_FEW && t->n <= VW ? KV_STEP : ATTN_BC;
    for (int64_t k0 = first; k0 < end; k0 += step) {
        const int64_t kn = attn_min(step, end - k0), up = attn_up(kn, ATTN_STEP);
        if (t->n < KV_FEW) {
            kv_few(j, s, keys, values, k0, kn);
            continue;
        }
        s->ahead->count = s->ahead->at = s->ahead->line = 0;
        kv_ahead(s->ahead, keys, k0 + kn, attn_min(step, end - k0 - kn));
        kv_ahead(s->ahead, values, k0 + kn, attn_min(step, end - k0 - kn));
        pack_rows(s->k, s->w.ldk, keys, k0, k0 + up, end);
        pack_keys(s->v, s->w.ldo, values, k0, k0 + up, end);
        tile_forward(j, t, &s->w, k0, kn, s->k, s->v, NULL);
    }
}

/* The keys that a row may see: those the cache still has of its own, within the window; and global tokens before. */
static void kv_limits(const attn_job *j, lane_rows *t, int64_t r, int64_t slot, int64_t i) {
    const int64_t pos = j->pos[i];
    const bool busy = slot >= 0 && slot < j->Q && pos >= 0 && (!j->bias || pos < j->P);
    int64_t hi = busy ? pos + 1 : 0;
    if (busy && j->ends) hi = kv_end(j, i, pos);
    const int64_t kept = attn_max(0, hi - j->C);
    int64_t lo = kept;
    if (j->window > 0) lo = attn_min(hi, attn_max(lo, pos + 1 - j->window));
    t->lo[r] = (int32_t)lo, t->hi[r] = (int32_t)hi;
    t->g0[r] = (int32_t)kept, t->g1[r] = (int32_t)attn_max(kept, attn_min(j->global, lo));
}

/* Rows [m0, m0 + n) of the kv head, all of one slot; false: no key of this part is theirs. */
static bool kv_group(const attn_job *j, const kv_space *s, int64_t m0, int64_t n) {
    lane_rows *t = s->t;
    const int64_t slot = j->slot[m0 / j->r];
    int64_t first = INT64_MAX, end = 0;
    const bool few = n < KV_FEW;
    const char *row[LANES];
    t->n = n, t->b = 0;
    for (int64_t r = 0; r < n; r++) {
        const int64_t i = (m0 + r) / j->r;
        kv_limits(j, t, r, slot, i);
        t->query[r] = (int32_t)i, t->head[r] = (int32_t)(s->hk * j->r + (m0 + r) % j->r), t->at[r] = j->pos[i];
        first = attn_min(first, t->hi[r] > t->lo[r] ? t->lo[r] : INT64_MAX);
        end = attn_max(end, t->hi[r] > t->lo[r] ? t->hi[r] : 0);
    }
    tile_begin(t);
    if (end && j->splits > 1) {
        const int64_t each = attn_max(KV_SPLIT, attn_up((end - first + j->splits - 1) / j->splits, VW));
        first += s->split * each;
        end = attn_min(end, first + each);
    }
    const bool globals = j->global && s->split == 0;
    if (first >= end && !globals) return false;
    for (int64_t r = 0; r < rows_up(t); r++) {
        row[r % LANES] = r < n ? at(&j->q, 0, t->query[r], t->head[r]) : NULL;
        if (few && r < n) pack_row(s->w.q + r * s->w.ldk, s->w.ldk, row[r], j->q.dtype, j->Dh);
        if (!few && r % LANES == LANES - 1)
            pack_panel(s->w.q + (r / LANES) * LANES * s->w.units, row, LANES, j->q.dtype, j->Dh, s->w.units);
    }
    if (few) {
        memset(s->w.o, 0, (size_t)(n * s->w.ldo) * sizeof(float));
        t->fresh[0] = false; /* these are sums already */
    }
    const key_rows keys = {at(&j->k, slot, 0, s->hk), j->k.st * j->k.size, j->C, j->k.dtype, j->Dh};
    const key_rows values = {at(&j->v, slot, 0, s->hk), j->v.st * j->v.size, j->C, j->v.dtype, j->Dv};
    if (globals) { /* global tokens, which come before the first part */
        rows_turn(t);
        kv_keys(j, s, &keys, &values, t->first, t->reach);
        rows_turn(t);
    }
    kv_keys(j, s, &keys, &values, first, end);
    return true;
}

static float *kv_part(const attn_job *j, const attn_kv_layout *l, int64_t hk, int64_t m, int64_t split) {
    return (float *)(void *)(j->scratch + l->part + ((hk * j->R + m) * j->splits + split) * l->part_row);
}

static void kv_tile(const attn_job *j, const attn_kv_layout *l, int64_t tile, char *mine) {
    const int64_t block = tile / j->splits % l->blocks, m0 = block * ATTN_BR, m1 = attn_min(m0 + ATTN_BR, j->R);
    fetch ahead = {.rate = KV_RATE};
    kv_space s = {.l = l, .hk = tile / j->splits / l->blocks, .split = tile % j->splits};
    s.w = (tile_space){(uint32_t *)(void *)(mine + l->w_q),
                       (float *)(void *)(mine + l->w_s),
                       (float *)(void *)(mine + l->w_o),
                       l->Dhq,
                       l->Dvp,
                       j->Dh,
                       &ahead};
    s.ahead = &ahead;
    s.t = (lane_rows *)(void *)(mine + l->w_row);
    s.k = (uint32_t *)(void *)(mine + l->w_k), s.v = (uint32_t *)(void *)(mine + l->w_v);
    for (int64_t a = m0, b; a < m1; a = b) {
        for (b = a; b < m1 && j->slot[b / j->r] == j->slot[a / j->r];) b = attn_min(m1, (b / j->r + 1) * j->r);
        const bool any = kv_group(j, &s, a, b - a);
        if (any || l->part < 0) tile_end(s.t, &s.w);
        if (l->part < 0) {
            fwd_store(j, s.t, &s.w);
            continue;
        }
        for (int64_t r = 0; r < b - a; r++) {
            float *part = kv_part(j, l, s.hk, a + r, s.split);
            if (any) memcpy(part, s.w.o + r * s.w.ldo, (size_t)l->Dvp * sizeof(float));
            part[l->Dvp] = s.t->m[r];
            part[l->Dvp + 1] = s.t->l[r];
        }
    }
}

/* One row: the parts under their common maximum. */
static void kv_merge(const attn_job *j, const attn_kv_layout *l, int64_t tile) {
    const int64_t hk = tile / j->R, m = tile % j->R, head = hk * j->r + m % j->r;
    float top = -INFINITY, sum = 0.0f;
    float *o = kv_part(j, l, hk, m, 0);
    for (int64_t s = 0; s < j->splits; s++) {
        const float x = kv_part(j, l, hk, m, s)[l->Dvp];
        top = x > top ? x : top;
    }
    bool first = true; /* parts without keys hold nothing */
    for (int64_t s = 0; s < j->splits; s++) {
        const float *part = kv_part(j, l, hk, m, s);
        if (part[l->Dvp + 1] == 0.0f) continue;
        const float by = exp2f(part[l->Dvp] - top);
        sum += by * part[l->Dvp + 1];
        for (int64_t d = 0; d < l->Dvp; d += VW) {
            const vf x = vf_mul(vf_set(by), vf_load(part + d));
            vf_store(o + d, first ? x : vf_add(vf_load(o + d), x));
        }
        first = false;
    }
    if (first) memset(o, 0, (size_t)l->Dvp * sizeof(float));
    int32_t heads[VW];
    float by[VW];
    vf lse;
    for (int i = 0; i < VW; i++) heads[i] = (int32_t)head;
    vf_store(by, rows_finish(j, heads, vf_set(top), vf_set(sum), &lse));
    tile_store_row(at_out(&j->o, 0, m / j->r, head), j->o.dtype, o, j->Dv, by[0]);
}

static void kv_leaf(const attn_job *j, int phase, int64_t lo, int64_t hi, int worker) {
    attn_kv_layout l;
    attn_kv_lay(j, (attn_isa){VW, UNIT}, &l);
    for (int64_t tile = lo; tile < hi; tile++) {
        if (phase == 0)
            kv_tile(j, &l, tile, j->scratch + l.worker + worker * l.w_bytes);
        else
            kv_merge(j, &l, tile);
    }
}

#endif
