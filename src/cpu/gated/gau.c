/* Launchers of gau_attention and its backward pass.
 *
 * Forward: a tile is a block of queries; it walks the keys it sees in blocks: scores, weights, weights times values.
 * Normalised kinds walk twice, first for the row's statistic: the second product is e wide and the first s, so looking
 * twice costs little and nothing is ever rescaled. Blocks of keys and values, which all queries share, are packed for
 * their products once (GAU_SHARED).
 * Backward: a tile is a segment of keys; it walks its keys in blocks and for each the queries that see it. dK and dV
 * are its own, and its keys are packed once; so are blocks of dO, which all segments share. dQ, which is only s wide,
 * is kept in one part per segment and added up in order. */
#include "cpu/gated/launch.h"

/* GAU_SHARED: floats at most of what is packed for all tiles. */
enum { GAU_SHARED = 1 << 26 };
enum { GAU_KEYS = 256, GAU_BACK = 512, GAU_EDGE = 64, GAU_PREP = 256, GAU_SUM = 64, GAU_SEGMENTS = 12 };

/* What a row needs, for all rows. */
typedef struct gau_row_info {
    int32_t lo, hi;
    float factor, norm, stat, delta;
} gau_row_info;

typedef struct gau_job {
    gated_mat q, k, v, o, dy, dq, dk, dv;
    const tl_arg *doc, *span;
    gated_gate gate;
    const float *sink;
    float *stat; /* (B,T), rows stat_row apart */
    int64_t stat_row;
    int64_t B, H, T, S, s, e, rows, keys; /* B: sequences times heads; S: keys; rows and keys of a block */
    bool normal, backward;
    /* forward, scratch in floats */
    int64_t info, worker, per_worker, total, pack, most;
    int64_t w_s, w_o, w_t, w_space;
    bool shared; /* packed once: forward keys and values, in blocks of keys; backward dO, in blocks of rows */
    int64_t share, k_size, share_size; /* where, and floats of a block: of keys alone, of all */
    /* backward */
    int64_t segments, seg_keys, blocks, w_p, w_dk, w_dv, w_vt, w_kt, w_k;
    int64_t dq_part, bias_part, bias_n, sums; /* parts of dQ, of dbias; theta and sink by tile */
} gau_job;

static bool gau_direct(const gated_mat *m) {
    return m->type == GEMM_F32;
}

/* From one row of heads' statistics to the next; -1: they do not follow one another. */
static int64_t gau_stat_row(const tl_desc *d) {
    if (d->dtype == TL_NONE) return 0;
    if (d->ndim < 3) return d->stride[0];
    return d->stride[0] == d->dim[1] * d->stride[1] ? d->stride[1] : -1;
}

static const char *gau_open(const tl_op_call *c, bool backward, gau_job *j) {
    *j = (gau_job){.backward = backward};
    const int at = backward ? 1 : 0, more = backward ? 6 : 3;
    const struct gate_attr *a = backward ? &ATTR(c, gau_attention_bwd)->f : &ATTR(c, gau_attention)->f;
    const char *why = gated_dtypes(c, backward ? 11 : 8, backward ? 6 : 2);
    if (why) return why;
    j->q = gated_take(&c->in[at]), j->k = gated_take(&c->in[at + 1]), j->v = gated_take(&c->in[at + 2]);
    j->H = gated_heads(&c->in[at].d);
    j->B = c->in[at].d.dim[0] * j->H, j->T = c->in[at].d.dim[1], j->s = j->q.width, j->e = j->v.width;
    if (j->B * j->T < 1) return "nothing to do";
    j->S = c->in[at + 1].d.dim[1];
    if (j->S < 1) return "nothing to do";
    if (j->T > INT32_MAX / 2 || j->S > INT32_MAX / 2) return "more tokens than an int32 counts";
    j->doc = &c->in[more];
    if (gated_has(j->doc) && j->doc->d.stride[1] != 1) return "documents with holes between them";
    j->span = &c->in[more + 4];
    if (gated_has(j->span) && j->span->d.stride[2] != 1) return "spans must be pairs";
    j->gate = gated_gate_of(a, j->s, &c->in[more + 1], &c->in[more + 2]);
    j->sink = c->in[more + 3].data;
    j->normal = a->kind >= GATE_SOFTMAX;
    if (backward) {
        j->dy = gated_take(&c->in[0]), j->o = gated_take(&c->in[4]);
        j->dq = gated_take(&c->out[0]), j->dk = gated_take(&c->out[1]), j->dv = gated_take(&c->out[2]);
        j->stat = c->in[5].data;
        j->stat_row = gau_stat_row(&c->in[5].d);
    } else {
        j->o = gated_take(&c->out[0]);
        j->stat = c->out[1].data;
        j->stat_row = gau_stat_row(&c->out[1].d);
    }
    if (j->stat_row < 0) return "statistics with holes between them";
    j->rows = j->T <= 256 ? 64 : j->T <= 1024 ? 128 : j->T < 2048 ? 256 : 512;
    j->keys = gated_min(backward ? gated_min(GAU_BACK, gated_max(j->rows, 256)) : GAU_KEYS, linear_up(j->S, 16));
    return NULL;
}

/* Blocks of a sequence that are packed once. */
static int64_t gau_shares(const gau_job *j) {
    return j->backward ? j->blocks : gated_ceil(j->S, j->keys);
}

/* Offsets of the scratch. */
static void gau_lay(const tl_op_call *c, gau_job *j, int workers) {
    const int64_t keys = j->keys;
    const int64_t wide = gated_max(j->s, j->e), k = gated_max(wide, keys);
    int64_t at = linear_up(j->B * j->T * (int64_t)(sizeof(gau_row_info) / sizeof(float)), 16), w = 0;
    j->info = 0;
    j->most = gated_max(gated_max(j->rows, GAU_EDGE), keys);
    j->blocks = gated_ceil(j->T, j->rows);
    j->pack = linear_up(j->most, 16) * gated_max(k, gated_max(j->rows, GAU_EDGE));
    if (j->backward) {
        j->segments = gated_min(gated_ceil(j->S, j->keys), gated_max(1, gated_ceil(GAU_SEGMENTS, j->B)));
        j->seg_keys = linear_up(gated_ceil(j->S, j->segments), 16);
        j->segments = gated_ceil(j->S, j->seg_keys);
        j->dq_part = at;
        at += gated_has(&c->out[0]) ? j->B * j->segments * j->T * j->s : 0;
        j->bias_part = at;
        j->bias_n = gated_has(&c->out[3]) ? c->out[3].d.dim[0] : 0;
        at += linear_up(j->B * j->segments * j->bias_n, 16);
        j->sums = at;
        at += linear_up(j->B * (j->segments + j->blocks), 16);
    }
    at = linear_up(at, 16);
    j->share = at;
    j->k_size = j->backward ? 0 : gemm_panel_floats(keys, j->s);
    j->share_size = j->k_size + gemm_panel_floats(j->e, j->backward ? j->rows : keys);
    const int64_t blocks = gau_shares(j);
    j->shared = (j->backward ? gated_ceil(j->S, keys) : j->blocks) > 2 && j->B * blocks * j->share_size <= GAU_SHARED;
    if (j->shared) at += j->B * blocks * j->share_size;
    j->worker = at;
    j->w_s = w, w += linear_up(gated_max(j->rows, GAU_EDGE) * keys, 16);
    if (j->backward) {
        j->w_p = w, w += linear_up(gated_max(j->rows, GAU_EDGE) * keys, 16);
        j->w_dk = w, w += linear_up(keys * j->s, 16);
        j->w_dv = w, w += linear_up(keys * j->e, 16);
        j->w_vt = w, w += gemm_panel_floats(keys, j->e);
        j->w_kt = w, w += gemm_panel_floats(keys, j->s);
        j->w_k = w, w += gemm_panel_floats(j->s, keys);
    } else {
        j->w_o = w, w += gau_direct(&j->o) ? 0 : linear_up(j->rows * j->e, 16);
        j->w_t = w, w += linear_up(2 * j->rows, 16);
    }
    j->w_space = w, w += gated_space_floats(j->most, j->pack, k);
    j->per_worker = linear_up(w, 16);
    j->total = at + workers * j->per_worker;
}

static gated_space gau_space(const gau_job *j, float *worker) {
    return gated_space_at(worker + j->w_space, j->most, j->pack, gated_max(gated_max(j->s, j->e), j->keys));
}

/* Intervals, factors, norms; backward also the statistics and the row sums of dO O. */
static void gau_prepare_rows(const gau_job *j, const gated_leaf *f, float *scratch, int64_t tile) {
    const int64_t per = gated_ceil(j->T, GAU_PREP), b = tile / per, i0 = tile % per * GAU_PREP;
    gau_row_info *info = (gau_row_info *)(void *)scratch + b * j->T;
    const int32_t *doc = gated_doc(j->doc, b / j->H);
    int64_t first = 0, end = 0;
    for (int64_t i = i0; i < gated_min(i0 + GAU_PREP, j->T); i++) {
        gau_row_info *r = &info[i];
        if (i == i0 || i >= end || (doc && doc[i] < 0)) gated_run(doc, j->S, i, &first, &end);
        int64_t from = first, hi = j->gate.a->causal ? gated_min(end, i + 1) : end;
        if (gated_has(j->span)) {
            const int32_t *x = (const int32_t *)j->span->data + tl_desc_row(&j->span->d, b / j->H * j->T + i);
            from = gated_max(from, x[0]), hi = gated_min(hi, x[1]);
        }
        const int64_t seen = hi > from ? hi - from : 0;
        *r = (gau_row_info){.lo = (int32_t)from, .hi = (int32_t)(seen ? hi : from)};
        r->factor = gated_factor(&j->gate, seen);
        r->norm = j->normal ? 1 : gated_norm(&j->gate, seen, j->S);
        if (!j->backward || !j->normal) continue;
        const float stat = j->stat[b * j->stat_row + i];
        r->stat = j->gate.a->kind == GATE_RELU2_SUM ? 1 / stat : stat;
        r->delta = f->dot(gated_at(&j->dy, b, i), j->dy.type, gated_at(&j->o, b, i), j->o.type, j->e);
    }
}

static gated_row gau_row(const gau_job *j, const gau_row_info *i, int64_t ahead) {
    gated_row r = gated_row_of(&j->gate, ahead);
    r.factor = i->factor, r.norm = i->norm, r.stat = i->stat, r.delta = i->delta;
    return r;
}

/* ---- forward ---------------------------------------------------------------------------------------------- */

/* What is packed once of block `block` of sequence b. */
static float *gau_share_at(const gau_job *j, float *scratch, int64_t b, int64_t block) {
    return j->shared ? scratch + j->share + (b * gau_shares(j) + block) * j->share_size : NULL;
}
/* Keys and values from k0 on as operands. A panel begins at the block's first key, which not every step does. */
static gated_shared gau_keys_of(const gau_job *j, float *scratch, int64_t b, int64_t k0) {
    gated_shared x = {.b = gated_turned(gated_at(&j->k, b, k0), j->k.type, j->k.row), .depth = j->s};
    const int64_t in = k0 % j->keys;
    if (j->shared && in % 48 == 0) x.panels = gau_share_at(j, scratch, b, k0 / j->keys) + in * j->s;
    return x;
}
static gated_shared gau_values_of(const gau_job *j, float *scratch, int64_t b, int64_t k0) {
    gated_shared x = {.b = gated_rows(gated_at(&j->v, b, k0), j->v.type, j->v.row), .depth = j->keys};
    x.first = k0 % j->keys;
    if (j->shared) x.panels = gau_share_at(j, scratch, b, k0 / j->keys) + j->k_size;
    return x;
}
/* dO of rows from i0 on */
static gated_shared gau_outer_of(const gau_job *j, float *scratch, int64_t b, int64_t i0) {
    gated_shared x = {.b = gated_rows(gated_at(&j->dy, b, i0), j->dy.type, j->dy.row), .depth = j->rows};
    x.first = i0 % j->rows;
    x.panels = gau_share_at(j, scratch, b, i0 / j->rows);
    return x;
}

static void gau_pack(const gau_job *j, const gated_leaf *f, float *scratch, int64_t tile) {
    const int64_t n = gau_shares(j), b = tile / n, per = j->backward ? j->rows : j->keys, at = tile % n * per;
    const int64_t rows = gated_min(per, (j->backward ? j->T : j->S) - at);
    if (j->backward) {
        const gated_shared x = gau_outer_of(j, scratch, b, at);
        gated_share(f, &x, j->e, rows);
        return;
    }
    const gated_shared k = gau_keys_of(j, scratch, b, at), v = gau_values_of(j, scratch, b, at);
    gated_share(f, &k, rows, j->s);
    gated_share(f, &v, j->e, rows);
}

/* Products q.k of rows [i0, i0 + m) and n keys. */
static void gau_scores(const gau_job *j, const gated_leaf *f, const gated_space *sp, int64_t b, int64_t i0, int64_t m,
                       const gated_shared *keys, int64_t n, int64_t ld, float *s) {
    gated_product_by(f, sp, m, n, j->s, gated_rows(gated_at(&j->q, b, i0), j->q.type, j->q.row), keys, s, ld, false);
}

/* How many rows at the beginning of a block see nothing of keys that begin `ahead` of it; whole slivers. */
static int64_t gau_blind(const gau_job *j, int64_t ahead) {
    return j->gate.a->causal && ahead > 0 ? ahead / GEMM_MR * GEMM_MR : 0;
}

/* Keys of the step at k0 for rows from i0 on: at the diagonal fewer, for half of what is computed there is hidden. */
static int64_t gau_step(const gau_job *j, int64_t i0, int64_t k0, int64_t hi) {
    int64_t most = j->keys;
    if (j->gate.a->causal) most = k0 >= i0 ? GAU_EDGE : gated_min(most, i0 - k0);
    if (j->shared) most = gated_min(most, j->keys - k0 % j->keys);
    return gated_min(gated_min(most, j->keys), hi - k0);
}

static void gau_statistics(const gau_job *j, const gated_leaf *f, const gated_space *sp, float *scratch,
                           gau_row_info *info, int64_t b, int64_t i0, int64_t m, int64_t lo, int64_t hi, float *s,
                           float *top) {
    const int kind = j->gate.a->kind;
    const int64_t ld = j->keys;
    float *sum = top + j->rows;
    for (int64_t i = 0; i < m; i++) {
        top[i] = j->sink ? *j->sink : -INFINITY;
        sum[i] = j->sink ? 1 : 0;
    }
    for (int64_t k0 = lo, n; k0 < hi; k0 += n) {
        n = gau_step(j, i0, k0, hi);
        const int64_t skip = gau_blind(j, k0 - i0);
        const gated_shared keys = gau_keys_of(j, scratch, b, k0);
        gau_scores(j, f, sp, b, i0 + skip, m - skip, &keys, n, ld, s + skip * ld);
        for (int64_t i = skip; i < m; i++) {
            const gated_row r = gau_row(j, &info[i], k0 - i0 - i);
            f->more(&r, s + i * ld, gated_max(info[i].lo - k0, 0), gated_min(info[i].hi - k0, n), &top[i], &sum[i]);
        }
    }
    for (int64_t i = 0; i < m; i++) {
        float stat = INFINITY;
        if (info[i].hi > info[i].lo) {
            if (kind == GATE_RELU2_SUM)
                stat = sum[i] == 0 ? INFINITY : sum[i];
            else
                stat = top[i] + (kind == GATE_L2 ? 0.5f : 1.0f) * logf(sum[i]);
        }
        if (j->stat) j->stat[b * j->stat_row + i0 + i] = stat;
        info[i].stat = kind == GATE_RELU2_SUM ? 1 / stat : stat;
    }
}

static void gau_forward_tile(const gau_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile) {
    const int64_t b = tile / j->blocks, block = gated_balance(tile % j->blocks, j->blocks), i0 = block * j->rows;
    const int64_t m = gated_min(j->rows, j->T - i0), ld = j->keys;
    gau_row_info *info = (gau_row_info *)(void *)scratch + b * j->T + i0;
    const gated_space sp = gau_space(j, worker);
    float *s = worker + j->w_s, *o = worker + j->w_o;
    int64_t lo = INT64_MAX, hi = 0, o_row = j->e;
    if (gau_direct(&j->o)) {
        o = (float *)(void *)gated_at(&j->o, b, i0);
        o_row = j->o.row;
    }
    for (int64_t i = 0; i < m; i++) {
        if (info[i].lo >= info[i].hi) continue;
        lo = gated_min(lo, info[i].lo), hi = gated_max(hi, info[i].hi);
    }
    if (lo >= hi) lo = hi = 0;
    if (j->normal) gau_statistics(j, f, &sp, scratch, info, b, i0, m, lo, hi, s, worker + j->w_t);
    for (int64_t i = 0; i < m && lo == hi; i++) memset(o + i * o_row, 0, (size_t)j->e * sizeof *o);
    for (int64_t k0 = lo, n; k0 < hi; k0 += n) {
        n = gau_step(j, i0, k0, hi);
        const int64_t skip = gau_blind(j, k0 - i0);
        const gated_shared keys = gau_keys_of(j, scratch, b, k0), values = gau_values_of(j, scratch, b, k0);
        gau_scores(j, f, &sp, b, i0 + skip, m - skip, &keys, n, ld, s + skip * ld);
        for (int64_t i = skip; i < m; i++) {
            const gated_row r = gau_row(j, &info[i], k0 - i0 - i);
            f->weigh(&r, s + i * ld, gated_max(info[i].lo - k0, 0), gated_min(info[i].hi - k0, n), n);
        }
        gated_product_by(f, &sp, m - skip, j->e, n, gated_rows(s + skip * ld, GEMM_F32, ld), &values, o + skip * o_row,
                         o_row, k0 > lo);
    }
    for (int64_t i = 0; i < m && !gau_direct(&j->o); i++)
        f->put(o + i * j->e, gated_at(&j->o, b, i0 + i), j->o.type, j->e, false);
}

const char *gated_gau_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    gau_job j;
    (void)dry, (void)alloc;
    const char *why = gau_open(c, false, &j);
    if (why) return why;
    gau_lay(c, &j, threads);
    x->phases = 3;
    x->tiles[0] = j.B * gated_ceil(j.T, GAU_PREP);
    x->tiles[1] = j.shared ? j.B * gau_shares(&j) : 0;
    x->tiles[2] = j.B * j.blocks;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

void gated_gau_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    gau_job j;
    (void)gau_open(t->call, false, &j);
    gau_lay(t->call, &j, t->workers);
    const gated_leaf *f = gated_leaf_of(t->exec);
    float *scratch = t->scratch;
    for (int64_t i = lo; i < hi; i++) {
        if (phase == 0)
            gau_prepare_rows(&j, f, scratch, i);
        else if (phase == 1)
            gau_pack(&j, f, scratch, i);
        else
            gau_forward_tile(&j, f, scratch, scratch + j.worker + worker * j.per_worker, i);
    }
}

/* ---- backward --------------------------------------------------------------------------------------------- */

/* A block of keys [k0, k0 + n) of segment g: all queries that see it. */
static float gau_backward_keys(const gau_job *j, const tl_op_call *c, const gated_leaf *f, float *scratch,
                               float *worker, int64_t b, int64_t g, int64_t k0, int64_t n) {
    const int64_t ld = j->keys;
    const gated_space sp = gau_space(j, worker);
    float *s = worker + j->w_s, *p = worker + j->w_p, *dk = worker + j->w_dk, *dv = worker + j->w_dv, total = 0;
    float *dq = scratch + j->dq_part + (b * j->segments + g) * j->T * j->s;
    float *bias = j->bias_n ? scratch + j->bias_part + (b * j->segments + g) * j->bias_n + (j->bias_n - 1) / 2 : NULL;
    gau_row_info *info = (gau_row_info *)(void *)scratch + b * j->T;
    const bool causal = j->gate.a->causal;
    const gated_shared kt = {gated_turned(gated_at(&j->k, b, k0), j->k.type, j->k.row), worker + j->w_kt, j->s, 0};
    const gated_shared vt = {gated_turned(gated_at(&j->v, b, k0), j->v.type, j->v.row), worker + j->w_vt, j->e, 0};
    const gated_shared keys = {gated_rows(gated_at(&j->k, b, k0), j->k.type, j->k.row), worker + j->w_k, n, 0};
    int64_t m = 0;
    gated_share(f, &kt, n, j->s);
    gated_share(f, &vt, n, j->e);
    gated_share(f, &keys, j->s, n);
    memset(dk, 0, (size_t)(n * j->s) * sizeof *dk);
    memset(dv, 0, (size_t)(n * j->e) * sizeof *dv);
    for (int64_t i0 = causal ? k0 : 0; i0 < j->T; i0 += m) { /* at the edge in smaller steps: half of it is hidden */
        m = gated_min(causal && i0 < k0 + n ? GAU_EDGE : j->rows, j->T - i0);
        if (j->shared) m = gated_min(m, j->rows - i0 % j->rows);
        const gated_shared outer = gau_outer_of(j, scratch, b, i0);
        const int64_t see = causal ? gated_min(n, i0 + m - k0) : n;
        bool sees = false;
        for (int64_t i = i0; i < i0 + m && !sees; i++) sees = info[i].lo < k0 + n && info[i].hi > k0;
        if (!sees) continue;
        gau_scores(j, f, &sp, b, i0, m, &kt, see, ld, s);
        gated_product_by(f, &sp, m, see, j->e, gated_rows(gated_at(&j->dy, b, i0), j->dy.type, j->dy.row), &vt, p, ld,
                         false);
        for (int64_t i = 0; i < m; i++) {
            gated_row r = gau_row(j, &info[i0 + i], k0 - i0 - i);
            if (bias) r.dbias = bias + (k0 - i0 - i);
            total += f->back(&r, s + i * ld, p + i * ld, gated_max(info[i0 + i].lo - k0, 0),
                             gated_min(info[i0 + i].hi - k0, see), see);
        }
        if (gated_has(&c->out[2]))
            gated_product_by(f, &sp, see, j->e, m, gated_turned(s, GEMM_F32, ld), &outer, dv, j->e, true);
        if (gated_has(&c->out[1]))
            gated_product(f, &sp, see, j->s, m, gated_turned(p, GEMM_F32, ld),
                          gated_rows(gated_at(&j->q, b, i0), j->q.type, j->q.row), dk, j->s, true);
        if (gated_has(&c->out[0]))
            gated_product_by(f, &sp, m, j->s, see, gated_rows(p, GEMM_F32, ld), &keys, dq + i0 * j->s, j->s, true);
    }
    for (int64_t i = 0; i < n && gated_has(&c->out[1]); i++)
        f->put(dk + i * j->s, gated_at(&j->dk, b, k0 + i), j->dk.type, j->s, false);
    for (int64_t i = 0; i < n && gated_has(&c->out[2]); i++)
        f->put(dv + i * j->e, gated_at(&j->dv, b, k0 + i), j->dv.type, j->e, false);
    return total;
}

static void gau_backward_tile(const gau_job *j, const tl_op_call *c, const gated_leaf *f, float *scratch, float *worker,
                              int64_t tile) {
    const int64_t b = tile / j->segments, g = gated_balance(tile % j->segments, j->segments);
    const int64_t lo = g * j->seg_keys, hi = gated_min(lo + j->seg_keys, j->S), part = b * j->segments + g;
    float sum = 0;
    if (gated_has(&c->out[0])) memset(scratch + j->dq_part + part * j->T * j->s, 0, (size_t)(j->T * j->s) * sizeof sum);
    if (j->bias_n) memset(scratch + j->bias_part + part * j->bias_n, 0, (size_t)j->bias_n * sizeof sum);
    for (int64_t k0 = lo; k0 < hi; k0 += j->keys)
        sum += gau_backward_keys(j, c, f, scratch, worker, b, g, k0, gated_min(j->keys, hi - k0));
    scratch[j->sums + part] = sum;
}

/* dQ: the parts of the segments, in order. */
static void gau_sum_dq(const gau_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile) {
    const int64_t per = gated_ceil(j->T, GAU_SUM), b = tile / per, i0 = tile % per * GAU_SUM;
    float *sum = worker + j->w_s;
    for (int64_t i = i0; i < gated_min(i0 + GAU_SUM, j->T); i++)
        for (int64_t d0 = 0; d0 < j->s; d0 += 1024) {
            const int64_t n = gated_min(1024, j->s - d0);
            for (int64_t g = 0; g < j->segments; g++) {
                const float *part = scratch + j->dq_part + ((b * j->segments + g) * j->T + i) * j->s + d0;
                if (g)
                    f->axpy(1, part, GEMM_F32, sum, n);
                else
                    memcpy(sum, part, (size_t)n * sizeof *sum);
            }
            f->put(sum, gated_at(&j->dq, b, i) + j->dq.size * d0, j->dq.type, n, false);
        }
}

/* The small gradients: bias, temperature, sink. */
static void gau_sum_rest(const gau_job *j, const tl_op_call *c, const gated_leaf *f, float *scratch) {
    const int64_t parts = j->B * j->segments;
    for (int64_t g = 1; g < parts && j->bias_n; g++)
        f->axpy(1, scratch + j->bias_part + g * j->bias_n, GEMM_F32, scratch + j->bias_part, j->bias_n);
    if (j->bias_n) f->put(scratch + j->bias_part, c->out[3].data, GEMM_F32, j->bias_n, c->acc >> 3 & 1);
    if (gated_has(&c->out[4])) {
        float sum = 0, *to = c->out[4].data;
        for (int64_t g = 0; g < parts; g++) sum -= scratch[j->sums + g];
        *to = c->acc >> 4 & 1 ? *to + sum : sum;
    }
    if (!gated_has(&c->out[5])) return;
    const gau_row_info *info = (const gau_row_info *)(const void *)scratch;
    float total = 0, *to = c->out[5].data;
    for (int64_t i0 = 0; i0 < j->B * j->T; i0 += GAU_PREP) {
        float sum = 0;
        for (int64_t i = i0; i < gated_min(i0 + GAU_PREP, j->B * j->T); i++)
            if (info[i].lo < info[i].hi) sum -= expf(*j->sink - info[i].stat) * info[i].delta;
        total += sum;
    }
    *to = c->acc >> 5 & 1 ? *to + total : total;
}

const char *gated_gau_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                  kernel_exec *x) {
    gau_job j;
    (void)dry, (void)alloc;
    const char *why = gau_open(c, true, &j);
    if (why) return why;
    gau_lay(c, &j, threads);
    x->phases = 4;
    x->tiles[0] = j.B * gated_ceil(j.T, GAU_PREP);
    x->tiles[1] = j.shared ? j.B * gau_shares(&j) : 0;
    x->tiles[2] = j.B * j.segments;
    x->tiles[3] = j.B * gated_ceil(j.T, GAU_SUM) + 1;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

void gated_gau_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    gau_job j;
    (void)gau_open(t->call, true, &j);
    gau_lay(t->call, &j, t->workers);
    const gated_leaf *f = gated_leaf_of(t->exec);
    float *scratch = t->scratch, *mine = scratch + j.worker + worker * j.per_worker;
    const int64_t last = j.B * gated_ceil(j.T, GAU_SUM);
    for (int64_t i = lo; i < hi; i++) {
        if (phase == 0)
            gau_prepare_rows(&j, f, scratch, i);
        else if (phase == 1)
            gau_pack(&j, f, scratch, i);
        else if (phase == 2)
            gau_backward_tile(&j, t->call, f, scratch, mine, i);
        else if (i == last)
            gau_sum_rest(&j, t->call, f, scratch);
        else if (gated_has(&t->call->out[0]))
            gau_sum_dq(&j, f, scratch, mine, i);
    }
}
