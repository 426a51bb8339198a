/* Launchers of decoding: gau_attention_kv over a cache that grows, chunk_step over a state that does not. */
#include "cpu/gated/launch.h"

enum { STEP_KEYS = 512, STEP_COLUMNS = 128, STEP_SCORES = 1 << 20, STEP_ROWS = 64, STEP_RUN = 8 };

static int32_t step_int(const tl_arg *a, int64_t r) {
    return ((const int32_t *)a->data)[r * a->d.stride[0]];
}
/* Row r of head h. */
static char *step_row(const gated_mat *m, int64_t r, int64_t h) {
    return gated_at(m, r, h);
}

/* ---- over a cache ------------------------------------------------------------------------------------------ */

typedef struct step_kv {
    gated_mat q, k, v, o; /* caches: batch is the slot, row the position */
    gated_gate gate;
    const tl_arg *slot, *pos, *ends;
    const float *sink;
    int64_t R, H, Q, C, s, e, group, key_blocks, columns; /* R: rows times heads; group: of these at a time */
} step_kv;

static const char *step_kv_open(const tl_op_call *c, step_kv *j) {
    const char *why = gated_dtypes(c, 9, 1);
    *j = (step_kv){.slot = &c->in[3], .pos = &c->in[4], .ends = &c->in[8], .sink = c->in[7].data};
    if (why) return why;
    j->q = gated_take_rows(&c->in[0]), j->k = gated_take(&c->in[1]), j->v = gated_take(&c->in[2]);
    j->o = gated_take_rows(&c->out[0]);
    j->H = c->in[1].d.dim[2];
    j->R = c->in[0].d.dim[0] * j->H, j->Q = c->in[1].d.dim[0], j->C = c->in[1].d.dim[1], j->s = j->q.width,
    j->e = j->v.width;
    j->gate = gated_gate_of(&ATTR(c, gau_attention_kv)->f, j->s, &c->in[5], &c->in[6]);
    j->group = gated_max(1, gated_min(j->R, STEP_SCORES / j->C));
    j->key_blocks = gated_ceil(j->C, STEP_KEYS);
    j->columns = gated_ceil(j->e, STEP_COLUMNS);
    return j->R < 1 ? "nothing to do" : NULL;
}

/* Scratch of one worker: a slice of columns, and room for products of a run of rows. */
static int64_t step_kv_worker(const step_kv *j) {
    return linear_up(STEP_COLUMNS + gated_space_floats(STEP_ROWS, STEP_ROWS * j->s, gated_max(j->C, j->s)), 16);
}

const char *gated_gau_kv_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                 kernel_exec *x) {
    step_kv j;
    (void)dry, (void)alloc;
    const char *why = step_kv_open(c, &j);
    if (why) return why;
    const int64_t blocks = gated_ceil(j.group, STEP_ROWS);
    x->phases = 3;
    x->tiles[0] = blocks * j.key_blocks;
    x->tiles[1] = j.group;
    x->tiles[2] = blocks * j.columns;
    x->repeats = gated_ceil(j.R, j.group);
    x->scratch = sizeof(float) * (size_t)(j.group * linear_up(j.C, 16) + threads * step_kv_worker(&j));
    return NULL;
}

/* A row of one head: its position, and the positions [lo, hi) that it sees. */
typedef struct step_kv_at {
    int64_t slot, pos, lo, hi;
} step_kv_at;

/* false: it is idle. */
static bool step_kv_row(const step_kv *j, int64_t r, step_kv_at *at) {
    at->slot = step_int(j->slot, r / j->H), at->pos = step_int(j->pos, r / j->H);
    at->hi = at->pos + 1;
    if (gated_has(j->ends)) {
        at->hi = step_int(j->ends, r / j->H);
        if (j->gate.bias) at->hi = gated_min(at->hi, at->pos + 1 + j->gate.reach);
    }
    at->lo = gated_max(0, at->hi - j->C);
    if (j->gate.bias) at->lo = gated_max(at->lo, at->pos - j->gate.reach);
    return at->slot >= 0 && at->slot < j->Q && at->pos >= 0 && at->hi > at->lo;
}

/* How many rows from r on are a prompt's: of one slot, at positions that follow one another and have not gone round. */
static int64_t step_kv_run(const step_kv *j, int64_t r, int64_t end) {
    step_kv_at at, next;
    int64_t m = 1, hi;
    if (j->H > 1 || !step_kv_row(j, r, &at) || at.lo > 0) return 1;
    for (hi = at.hi; r + m < end && step_kv_row(j, r + m, &next); m++) {
        if (next.slot != at.slot || next.pos != at.pos + m || next.lo > 0 || next.hi < hi) break;
        hi = next.hi;
    }
    return m < STEP_RUN ? 1 : m;
}

/* The end of what the last of m rows from r on sees. */
static int64_t step_kv_end(const step_kv *j, int64_t r, int64_t m) {
    step_kv_at at;
    (void)step_kv_row(j, r + m - 1, &at);
    return at.hi;
}

/* Columns of a row's scores that are to be written: a run's rows go as far as its last. */
static int64_t step_kv_reach(const step_kv *j, int64_t r, int64_t n) {
    const int64_t first = r / j->group * j->group, block = first + (r - first) / STEP_ROWS * STEP_ROWS;
    const int64_t end = gated_min(gated_min(block + STEP_ROWS, first + j->group), j->R);
    for (int64_t i = block, m; i <= r; i += m) {
        m = step_kv_run(j, i, end);
        if (r < i + m && m > 1) return step_kv_end(j, i, m);
    }
    return n;
}

static void step_kv_weigh(const step_kv *j, const gated_leaf *f, float *s, int64_t row, const step_kv_at *at) {
    const int64_t n = at->hi - at->lo;
    gated_row r = gated_row_of(&j->gate, at->lo - at->pos);
    r.factor = gated_factor(&j->gate, n);
    if (j->gate.a->kind < GATE_SOFTMAX) {
        r.norm = gated_norm(&j->gate, n, n);
    } else {
        float top = j->sink ? *j->sink : -INFINITY, sum = j->sink ? 1 : 0;
        f->more(&r, s, 0, n, &top, &sum);
        if (j->gate.a->kind == GATE_RELU2_SUM)
            r.stat = sum == 0 ? 0 : 1 / sum;
        else
            r.stat = top + (j->gate.a->kind == GATE_L2 ? 0.5f : 1.0f) * logf(sum);
    }
    f->weigh(&r, s, 0, n, step_kv_reach(j, row, n));
}

/* Scores of m rows from r on with the part-th block of the keys they see; s: of the first row, ld apart. */
static void step_kv_scores(const step_kv *j, const gated_leaf *f, const gated_space *sp, int64_t r, int64_t m,
                           int64_t part, float *s, int64_t ld) {
    step_kv_at at;
    if (!step_kv_row(j, r, &at)) return;
    const int64_t from = at.lo + part * STEP_KEYS, end = gated_min(step_kv_end(j, r, m), from + STEP_KEYS);
    if (m > 1 && from < end)
        gated_product(f, sp, m, end - from, j->s, gated_rows(step_row(&j->q, r, 0), j->q.type, j->q.batch),
                      gated_turned(gated_at(&j->k, at.slot, from), j->k.type, j->k.row), s + from, ld, false);
    for (int64_t p = from; p < end && m == 1; p++)
        s[p - at.lo] = f->dot(step_row(&j->q, r / j->H, r % j->H), j->q.type,
                              gated_at(&j->k, at.slot * j->H + r % j->H, p % j->C), j->k.type, j->s);
}

/* Weights times values, columns [d0, d0 + n). */
static void step_kv_values(const step_kv *j, const gated_leaf *f, const gated_space *sp, int64_t r, int64_t m,
                           int64_t d0, int64_t n, const float *s, int64_t ld, float *sum) {
    step_kv_at at;
    const bool busy = step_kv_row(j, r, &at);
    if (m > 1) {
        gated_product_to(f, sp, m, n, step_kv_end(j, r, m), gated_rows(s, GEMM_F32, ld),
                         gated_rows(gated_at(&j->v, at.slot, 0) + j->v.size * d0, j->v.type, j->v.row),
                         step_row(&j->o, r, 0) + j->o.size * d0, j->o.type, j->o.batch, false);
        return;
    }
    memset(sum, 0, (size_t)n * sizeof *sum);
    for (int64_t p = at.lo; p < at.hi && busy; p++)
        f->axpy(s[p - at.lo], gated_at(&j->v, at.slot * j->H + r % j->H, p % j->C) + j->v.size * d0, j->v.type, sum, n);
    f->put(sum, step_row(&j->o, r / j->H, r % j->H) + j->o.size * d0, j->o.type, n, false);
}

void gated_gau_kv_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    step_kv j;
    (void)step_kv_open(t->call, &j);
    const gated_leaf *f = gated_leaf_of(t->exec);
    const int64_t ld = linear_up(j.C, 16), per = phase == 0 ? j.key_blocks : j.columns, begin = t->repeat * j.group;
    const int64_t all = gated_min(begin + j.group, j.R);
    float *scores = t->scratch, *sum = scores + j.group * ld + worker * step_kv_worker(&j);
    const gated_space sp = gated_space_at(sum + STEP_COLUMNS, STEP_ROWS, STEP_ROWS * j.s, gated_max(j.C, j.s));
    for (int64_t tile = lo; tile < hi && phase == 1; tile++) {
        step_kv_at at;
        if (begin + tile < all && step_kv_row(&j, begin + tile, &at))
            step_kv_weigh(&j, f, scores + tile * ld, begin + tile, &at);
    }
    for (int64_t tile = lo; tile < hi && phase != 1; tile++) {
        const int64_t r0 = begin + tile / per * STEP_ROWS, end = gated_min(r0 + STEP_ROWS, all), part = tile % per;
        const int64_t d0 = part * STEP_COLUMNS;
        for (int64_t r = r0, m; r < end; r += m) {
            float *s = scores + (r - begin) * ld;
            m = step_kv_run(&j, r, end);
            if (phase == 0)
                step_kv_scores(&j, f, &sp, r, m, part, s, ld);
            else
                step_kv_values(&j, f, &sp, r, m, d0, gated_min(STEP_COLUMNS, j.e - d0), s, ld, sum);
        }
    }
}

/* ---- chunks --------------------------------------------------------------------------------------------------
 * Rows read the tokens of their chunk from the call itself or, further back, from the buffers, which are written last:
 * so every row's scores can be worked out at the same time. A slice of columns then walks the rows in order with its
 * slice of M. */

typedef struct step_chunk {
    gated_mat in[5], M, buffer[3]; /* qq kq ql kl v; kq kl v of the chunk */
    gated_mat o;
    gated_gate gate;
    const struct mixed_chunk_attr *a;
    const tl_arg *slot, *pos;
    int64_t R, H, Q, c, s, e, columns, pack; /* c: places of a buffer */
    int64_t chunk, back, period;             /* tokens of a chunk, and before it, that a row sees exactly */
    bool near, far;
    int64_t links, weights, worker, per_worker, total; /* scratch, in floats */
} step_chunk;

enum { LINK_BEFORE, LINK_LAST, LINKS }; /* the row before of the same slot or -1; its last position in this call */

static const char *step_chunk_open(const tl_op_call *c, int workers, step_chunk *j) {
    const char *why = gated_dtypes(c, 9, 5);
    *j = (step_chunk){.slot = &c->in[5], .pos = &c->in[6], .a = &ATTR(c, chunk_step)->f};
    if (why) return why;
    for (int i = 0; i < 5; i++) j->in[i] = gated_take_rows(&c->in[i]);
    j->M = gated_take_state(&c->out[1]);
    for (int k = 0; k < 3; k++) j->buffer[k] = gated_take(&c->out[2 + k]);
    j->o = gated_take_rows(&c->out[0]);
    j->H = c->in[0].d.ndim == 3 ? c->in[0].d.dim[1] : 1;
    j->near = j->a->parts != CHUNK_FAR, j->far = j->a->parts != CHUNK_LOCAL;
    j->R = c->in[0].d.dim[0], j->Q = c->out[1].d.dim[0], j->c = c->out[2].d.dim[1], j->s = j->in[0].width;
    j->e = j->in[4].width;
    j->chunk = j->c / (j->a->reach + 1), j->back = j->c - j->chunk, j->period = j->a->period;
    j->gate = gated_gate_of(&j->a->f, j->s, &c->in[7], &c->in[8]);
    j->columns = gated_ceil(j->e, STEP_COLUMNS);
    j->pack = linear_up(j->s, 16) * j->c;
    j->links = 0;
    j->weights = linear_up(LINKS * j->R, 16);
    j->worker = j->weights + linear_up(j->R * j->H * j->c, 16);
    j->per_worker =
        linear_up(j->c * (j->s + STEP_COLUMNS) + STEP_COLUMNS, 16) + gated_space_floats(j->s, j->pack, j->c);
    j->total = j->worker + workers * j->per_worker;
    return j->R < 1 ? "nothing to do" : NULL;
}

const char *gated_chunk_step_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                     kernel_exec *x) {
    step_chunk j;
    (void)dry, (void)alloc;
    const char *why = step_chunk_open(c, threads, &j);
    if (why) return why;
    x->phases = 4;
    x->tiles[0] = 1;
    x->tiles[1] = x->tiles[3] = j.R * j.H;
    x->tiles[2] = j.columns * j.H;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

static bool step_chunk_row(const step_chunk *j, int64_t r, int64_t *slot, int64_t *pos) {
    *slot = step_int(j->slot, r), *pos = step_int(j->pos, r);
    return *slot >= 0 && *slot < j->Q && *pos >= 0;
}

/* A position within its period; the first one that its row sees exactly. */
static int64_t step_chunk_at(const step_chunk *j, int64_t pos, int64_t *keys) {
    if (j->period) pos %= j->period;
    *keys = gated_max(0, pos - pos % j->chunk - j->back);
    return pos;
}

static void step_chunk_links(const step_chunk *j, int32_t *link) {
    for (int64_t r = 0; r < j->R; r++) {
        int64_t slot, pos;
        link[r * LINKS + LINK_BEFORE] = link[r * LINKS + LINK_LAST] = -1;
        if (!step_chunk_row(j, r, &slot, &pos)) continue;
        int64_t p = r - 1;
        while (p >= 0 && step_int(j->slot, p) != slot) p--;
        link[r * LINKS + LINK_BEFORE] = (int32_t)p;
        link[r * LINKS + LINK_LAST] = (int32_t)pos;
    }
    for (int64_t r = j->R - 1; r >= 0; r--)
        if (link[r * LINKS + LINK_BEFORE] >= 0)
            link[link[r * LINKS + LINK_BEFORE] * LINKS + LINK_LAST] = link[r * LINKS + LINK_LAST];
}

/* Row of argument `of` (1 kq, 3 kl, 4 v) at position i, in the buffers: from row *at of the call if there is one left,
 * which moves on to the one before. */
static const char *step_chunk_source(const step_chunk *j, const int32_t *link, int of, int64_t slot, int64_t h,
                                     int64_t i, int64_t *at, int *type) {
    const gated_mat *buffer = &j->buffer[of == 1 ? 0 : of == 3 ? 1 : 2];
    if (*at < 0) {
        *type = buffer->type;
        return gated_at(buffer, slot * j->H + h, i % j->c);
    }
    const char *row = step_row(&j->in[of], *at, h);
    *type = j->in[of].type;
    *at = link[*at * LINKS + LINK_BEFORE];
    return row;
}

static void step_chunk_weigh(const step_chunk *j, const gated_leaf *f, const int32_t *link, float *w, int64_t tile) {
    const int64_t r = tile / j->H, h = tile % j->H;
    int64_t slot, pos, at = r;
    int type;
    if (!j->near || !step_chunk_row(j, r, &slot, &pos)) return;
    int64_t keys;
    pos = step_chunk_at(j, pos, &keys);
    for (int64_t i = pos; i >= keys; i--) {
        const char *k = step_chunk_source(j, link, 1, slot, h, i, &at, &type);
        w[i - keys] = f->dot(step_row(&j->in[0], r, h), j->in[0].type, k, type, j->s);
    }
    const int64_t seen = pos + 1 - keys;
    gated_row row = gated_row_of(&j->gate, keys - pos);
    row.norm = gated_norm(&j->gate, seen, 0);
    f->weigh(&row, w, 0, seen, seen);
}

/* The chunk from position `from` on, which row r, at the beginning of another, no longer sees exactly, into columns
 * [d0, d0 + n) of M. */
static void step_chunk_fold(const step_chunk *j, const gated_leaf *f, const int32_t *link, float *mine, int64_t r,
                            int64_t slot, int64_t h, int64_t from, int64_t d0, int64_t n) {
    float *kl = mine, *v = kl + j->c * j->s;
    const gated_space sp =
        gated_space_at(mine + linear_up(j->c * (j->s + STEP_COLUMNS) + STEP_COLUMNS, 16), j->s, j->pack, j->c);
    int64_t at = link[r * LINKS + LINK_BEFORE], too;
    int type;
    for (int64_t i = 0; i < j->back && at >= 0; i++) at = link[at * LINKS + LINK_BEFORE]; /* what it still sees */
    too = at;
    for (int64_t i = j->chunk - 1; i >= 0; i--) {
        const char *k = step_chunk_source(j, link, 3, slot, h, from + i, &at, &type);
        f->scaled(1, k, type, kl + i * j->s, j->s);
        const char *x = step_chunk_source(j, link, 4, slot, h, from + i, &too, &type);
        f->scaled(1, x + (type == GEMM_F32 ? 4 : 2) * d0, type, v + i * STEP_COLUMNS, n);
    }
    gated_product(f, &sp, j->s, n, j->chunk, gated_turned(kl, GEMM_F32, j->s), gated_rows(v, GEMM_F32, STEP_COLUMNS),
                  (float *)(void *)gated_at(&j->M, slot * j->H + h, 0) + d0, j->M.row, from > 0);
}

static void step_chunk_columns(const step_chunk *j, const gated_leaf *f, const int32_t *link, const float *weights,
                               float *mine, int64_t tile) {
    const int64_t h = tile / j->columns, d0 = tile % j->columns * STEP_COLUMNS, n = gated_min(STEP_COLUMNS, j->e - d0);
    float *sum = mine + j->c * (j->s + STEP_COLUMNS), ql[1024];
    for (int64_t r = 0; r < j->R; r++) {
        int64_t slot, pos, at = r;
        int type;
        memset(sum, 0, (size_t)n * sizeof *sum);
        if (step_chunk_row(j, r, &slot, &pos)) {
            int64_t keys;
            pos = step_chunk_at(j, pos, &keys);
            const int64_t before = j->far ? keys : 0;
            if (before > 0 && pos % j->chunk == 0)
                step_chunk_fold(j, f, link, mine, r, slot, h, keys - j->chunk, d0, n);
            for (int64_t i = pos; i >= keys && j->near; i--) {
                const char *v = step_chunk_source(j, link, 4, slot, h, i, &at, &type);
                f->axpy(weights[(r * j->H + h) * j->c + i - keys], v + (type == GEMM_F32 ? 4 : 2) * d0, type, sum, n);
            }
            const float by = 1 / (float)(j->a->norm == CHUNK_CONST ? j->chunk : before > 0 ? before : 1);
            f->scaled(by, step_row(&j->in[2], r, h), j->in[2].type, ql, j->s);
            for (int64_t k = 0; k < j->s && before > 0; k++)
                f->axpy(ql[k], gated_at(&j->M, slot * j->H + h, k) + 4 * d0, GEMM_F32, sum, n);
        }
        f->put(sum, step_row(&j->o, r, h) + j->o.size * d0, j->o.type, n, false);
    }
}

/* What the next call will find: each slot's last c rows, each in its place. */
static void step_chunk_keep(const step_chunk *j, const gated_leaf *f, const int32_t *link, float *mine, int64_t tile) {
    const int64_t r = tile / j->H, h = tile % j->H;
    int64_t slot, pos;
    if (!step_chunk_row(j, r, &slot, &pos) || link[r * LINKS + LINK_LAST] - pos >= j->c) return;
    static const int of[3] = {1, 3, 4};
    for (int k = 0; k < 3; k++) {
        const gated_mat *from = &j->in[of[k]], *to = &j->buffer[k];
        for (int64_t d = 0; d < from->width; d += STEP_COLUMNS) {
            const int64_t n = gated_min(STEP_COLUMNS, from->width - d);
            f->scaled(1, step_row(from, r, h) + from->size * d, from->type, mine, n);
            f->put(mine, gated_at(to, slot * j->H + h, pos % j->c) + to->size * d, to->type, n, false);
        }
    }
}

void gated_chunk_step_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    step_chunk j;
    (void)step_chunk_open(t->call, t->workers, &j);
    const gated_leaf *f = gated_leaf_of(t->exec);
    float *scratch = t->scratch, *mine = scratch + j.worker + worker * j.per_worker;
    int32_t *link = (int32_t *)t->scratch;
    for (int64_t i = lo; i < hi; i++) {
        if (phase == 0)
            step_chunk_links(&j, link);
        else if (phase == 1)
            step_chunk_weigh(&j, f, link, scratch + j.weights + i * j.c, i);
        else if (phase == 2)
            step_chunk_columns(&j, f, link, scratch + j.weights, mine, i);
        else
            step_chunk_keep(&j, f, link, mine, i);
    }
}
