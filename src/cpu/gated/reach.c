/* Launchers of chunk_reach, its backward pass and its decoding form. A tile is one head of one sequence. Rows of a
 * chunk that have chosen the same far chunk are gathered, so that scores, sums and gradients of all of them are
 * products. */
#include "cpu/gated/launch.h"

typedef struct reach_job {
    const struct chunk_reach_attr *a;
    gated_mat q, k, v, o, dy, dq, dk, dv;
    gated_gate gate;
    const tl_arg *pick, *doc;
    int64_t B, H, T, s, e, c;
    int64_t w_marks, w_all, most, pack, deepest, per_worker;
} reach_job;

typedef struct reach_space {
    float *marks, *q, *dy, *p, *dp, *to, *acc; /* acc: o of a chunk, or dq, dk, dv of all tokens */
    float score[REACH_MOST];
    int32_t *picks, *rows; /* chosen chunks of the rows of a chunk, -1: none; rows that chose the one at hand */
    gated_space sp;
} reach_space;

static const char *reach_open(const tl_op_call *c, bool backward, reach_job *j) {
    const int at = backward ? 1 : 0;
    const char *why = gated_dtypes(c, backward ? 7 : 5, backward ? 4 : 1);
    *j = (reach_job){.a = backward ? &ATTR(c, chunk_reach_bwd)->f : ATTR(c, chunk_reach)};
    if (why) return why;
    j->q = gated_take(&c->in[at]), j->k = gated_take(&c->in[at + 1]), j->v = gated_take(&c->in[at + 2]);
    j->pick = backward ? &c->in[4] : &c->out[1];
    j->doc = &c->in[backward ? 5 : 3];
    j->H = gated_heads(&c->in[at].d), j->B = c->in[at].d.dim[0] * j->H, j->T = c->in[at].d.dim[1];
    j->s = j->q.width, j->e = j->v.width;
    if (j->B * j->T < 1) return "nothing to do";
    if (gated_has(j->doc) && j->doc->d.stride[1] != 1) return "documents with holes between them";
    j->c = gated_min(j->a->chunk, j->T);
    j->gate = gated_gate_of(&j->a->f, j->s, &c->in[TL_OP_INS - 1], &c->in[backward ? 6 : 4]);
    if (backward) {
        j->dy = gated_take(&c->in[0]);
        j->dq = gated_take(&c->out[0]), j->dk = gated_take(&c->out[1]), j->dv = gated_take(&c->out[2]);
    } else {
        j->o = gated_take(&c->out[0]);
    }
    j->w_marks = linear_up((j->T / j->c + 1) * j->s, 16);
    j->w_all = backward ? j->T * (2 * j->s + j->e) : j->c * j->e;
    j->most = linear_up(j->c, 16), j->deepest = gated_max(j->c, gated_max(j->s, j->e));
    j->pack = j->most * j->deepest;
    j->per_worker = linear_up(j->w_marks + j->w_all + j->c * (j->s + 2 * j->c + 2 * j->e + REACH_MOST + 1 + j->s) +
                                  gated_space_floats(j->most, j->pack, j->deepest),
                              16);
    return NULL;
}

static reach_space reach_space_at(const reach_job *j, float *scratch, int worker) {
    float *at = scratch + worker * j->per_worker;
    reach_space w = {.marks = at};
    w.acc = at + j->w_marks;
    w.q = w.acc + j->w_all;
    w.dy = w.q + j->c * j->s;
    w.p = w.dy + j->c * j->e;
    w.dp = w.p + j->c * j->c;
    w.to = w.dp + j->c * j->c;
    w.picks = (int32_t *)(void *)(w.to + j->c * gated_max(j->e, j->s));
    w.rows = w.picks + j->c * REACH_MOST;
    w.sp = gated_space_at((float *)(void *)(w.rows + j->c), j->most, j->pack, j->deepest);
    return w;
}

/* The largest scores in falling order, the first of equal ones; id: of the score that comes. */
static int64_t reach_take(float *score, int32_t *pick, int64_t n, int64_t most, int32_t id, float x) {
    int64_t at = n;
    while (at > 0 && score[at - 1] < x) at--;
    if (at >= most) return n;
    if (n < most) n++;
    for (int64_t i = n - 1; i > at; i--) score[i] = score[i - 1], pick[i] = pick[i - 1];
    score[at] = x, pick[at] = id;
    return n;
}
/* In the order of the text; behind them -1. */
static void reach_sort(int32_t *pick, int64_t n, int64_t most) {
    for (int64_t i = 1; i < n; i++)
        for (int64_t l = i; l > 0 && pick[l - 1] > pick[l]; l--) {
            const int32_t other = pick[l];
            pick[l] = pick[l - 1], pick[l - 1] = other;
        }
    for (int64_t i = n; i < most; i++) pick[i] = -1;
}
static int64_t reach_count(const int32_t *pick, int64_t most) {
    int64_t n = 0;
    while (n < most && pick[n] >= 0) n++;
    return n;
}

static void reach_mark(const reach_job *j, const gated_leaf *f, int64_t b, int64_t lo, float *mark) {
    memset(mark, 0, (size_t)j->s * sizeof *mark);
    for (int64_t i = 0; i < j->c; i++) f->axpy(1, gated_at(&j->k, b, lo + i), j->k.type, mark, j->s);
    f->scaled((float)(1.0 / (double)j->c), mark, GEMM_F32, mark, j->s);
}

/* What a row chose, as the call has it: first tokens of chunks. */
static int32_t *reach_pick(const reach_job *j, int64_t b, int64_t i) {
    const tl_desc *d = &j->pick->d;
    int64_t at = b / j->H * d->stride[0] + i * d->stride[1];
    if (d->ndim == 4) at += b % j->H * d->stride[2];
    return (int32_t *)j->pick->data + at;
}

/* Rows of a chunk that chose chunk h, with their queries side by side. */
static int64_t reach_gather(const reach_job *j, const gated_leaf *f, reach_space *w, int64_t b, int64_t lo,
                            int64_t rows, int32_t h) {
    int64_t n = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t l = 0; l < j->a->top; l++)
            if (w->picks[i * REACH_MOST + l] == h) {
                f->scaled(1, gated_at(&j->q, b, lo + i), j->q.type, w->q + n * j->s, j->s);
                if (j->dy.p) f->scaled(1, gated_at(&j->dy, b, lo + i), j->dy.type, w->dy + n * j->e, j->e);
                w->rows[n++] = (int32_t)i;
            }
    return n;
}

static gated_row reach_row(const reach_job *j, const reach_space *w, int64_t i) {
    gated_row r = gated_row_of(&j->gate, 0);
    const int64_t keys = reach_count(w->picks + i * REACH_MOST, j->a->top) * j->c;
    r.norm = gated_norm(&j->gate, keys, j->T);
    return r;
}

/* products of the gathered rows with a chunk's keys or values */
static void reach_scores(const reach_job *j, const gated_leaf *f, const reach_space *w, int64_t n, const float *x,
                         const gated_mat *y, int64_t b, int64_t lo, float *to) {
    gated_product(f, &w->sp, n, j->c, y->width, gated_rows(x, GEMM_F32, y->width),
                  gated_turned(gated_at(y, b, lo), y->type, y->row), to, j->c, false);
}

/* ---- forward ---- */

static void reach_chunk(const reach_job *j, const gated_leaf *f, reach_space *w, int64_t b, int64_t first, int64_t lo,
                        int64_t rows, int64_t there) {
    const int64_t top = j->a->top;
    memset(w->acc, 0, (size_t)(rows * j->e) * sizeof *w->acc);
    if (there > 0) reach_mark(j, f, b, first + (there - 1) * j->c, w->marks + (there - 1) * j->s);
    for (int64_t i = 0; i < rows; i++) {
        int32_t *pick = w->picks + i * REACH_MOST, *out = j->pick->data ? reach_pick(j, b, lo + i) : NULL;
        int64_t n = 0;
        for (int64_t h = 0; h < there; h++) {
            const float x = f->dot(gated_at(&j->q, b, lo + i), j->q.type, w->marks + h * j->s, GEMM_F32, j->s);
            n = reach_take(w->score, pick, n, top, (int32_t)h, x);
        }
        reach_sort(pick, n, top);
        for (int64_t l = 0; l < top && out; l++) out[l] = pick[l] < 0 ? -1 : (int32_t)(first + pick[l] * j->c);
    }
    for (int64_t h = 0; h < there; h++) {
        const int64_t n = reach_gather(j, f, w, b, lo, rows, (int32_t)h), at = first + h * j->c;
        if (!n) continue;
        reach_scores(j, f, w, n, w->q, &j->k, b, at, w->p);
        for (int64_t i = 0; i < n; i++) {
            const gated_row r = reach_row(j, w, w->rows[i]);
            f->weigh(&r, w->p + i * j->c, 0, j->c, j->c);
        }
        gated_product(f, &w->sp, n, j->e, j->c, gated_rows(w->p, GEMM_F32, j->c),
                      gated_rows(gated_at(&j->v, b, at), j->v.type, j->v.row), w->to, j->e, false);
        for (int64_t i = 0; i < n; i++) f->axpy(1, w->to + i * j->e, GEMM_F32, w->acc + w->rows[i] * j->e, j->e);
    }
    for (int64_t i = 0; i < rows; i++) f->put(w->acc + i * j->e, gated_at(&j->o, b, lo + i), j->o.type, j->e, false);
}

static void reach_forward(const reach_job *j, const gated_leaf *f, reach_space *w, int64_t b) {
    int64_t first, last;
    for (int64_t t = 0; t < j->T; t = gated_max(last, t + 1)) {
        gated_run(gated_doc(j->doc, b / j->H), j->T, t, &first, &last);
        if (first == last) {
            memset(gated_at(&j->o, b, t), 0, (size_t)(j->e * j->o.size));
            for (int64_t l = 0; l < j->a->top && j->pick->data; l++) reach_pick(j, b, t)[l] = -1;
            continue;
        }
        for (int64_t lo = first, g = 0; lo < last; lo += j->c, g++)
            reach_chunk(j, f, w, b, first, lo, gated_min(j->c, last - lo), gated_max(0, g - j->a->skip));
    }
}

const char *gated_reach_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    reach_job j;
    (void)dry, (void)alloc;
    const char *why = reach_open(c, false, &j);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = j.B;
    x->scratch = sizeof(float) * (size_t)(threads * j.per_worker);
    return NULL;
}

void gated_reach_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    reach_job j;
    (void)phase;
    (void)reach_open(t->call, false, &j);
    reach_space w = reach_space_at(&j, t->scratch, worker);
    for (int64_t b = lo; b < hi; b++) reach_forward(&j, gated_leaf_of(t->exec), &w, b);
}

/* ---- backward ---- */

/* Returns the sum of weight times gradient. */
static double reach_back_chunk(const reach_job *j, const gated_leaf *f, reach_space *w, int64_t b, int64_t first,
                               int64_t lo, int64_t rows, int64_t there) {
    const int64_t s = j->s, e = j->e, c = j->c;
    float *dq = w->acc, *dk = dq + j->T * s, *dv = dk + j->T * s;
    double sum = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t l = 0; l < j->a->top; l++) {
            const int32_t at = reach_pick(j, b, lo + i)[l];
            w->picks[i * REACH_MOST + l] = at < 0 ? -1 : (int32_t)((at - first) / c);
        }
    for (int64_t h = 0; h < there; h++) {
        const int64_t n = reach_gather(j, f, w, b, lo, rows, (int32_t)h), at = first + h * c;
        if (!n) continue;
        reach_scores(j, f, w, n, w->q, &j->k, b, at, w->p);
        reach_scores(j, f, w, n, w->dy, &j->v, b, at, w->dp);
        for (int64_t i = 0; i < n; i++) {
            const gated_row r = reach_row(j, w, w->rows[i]);
            sum += (double)f->back(&r, w->p + i * c, w->dp + i * c, 0, c, c);
        }
        gated_product(f, &w->sp, n, s, c, gated_rows(w->dp, GEMM_F32, c),
                      gated_rows(gated_at(&j->k, b, at), j->k.type, j->k.row), w->to, s, false);
        for (int64_t i = 0; i < n; i++) f->axpy(1, w->to + i * s, GEMM_F32, dq + (lo + w->rows[i]) * s, s);
        gated_product(f, &w->sp, c, s, n, gated_turned(w->dp, GEMM_F32, c), gated_rows(w->q, GEMM_F32, s), dk + at * s,
                      s, true);
        gated_product(f, &w->sp, c, e, n, gated_turned(w->p, GEMM_F32, c), gated_rows(w->dy, GEMM_F32, e), dv + at * e,
                      e, true);
    }
    return sum;
}

static double reach_backward(const reach_job *j, const gated_leaf *f, reach_space *w, int64_t b) {
    const gated_mat *out[] = {&j->dq, &j->dk, &j->dv};
    int64_t first, last;
    double sum = 0;
    memset(w->acc, 0, (size_t)j->w_all * sizeof *w->acc);
    for (int64_t t = 0; t < j->T; t = gated_max(last, t + 1)) {
        gated_run(gated_doc(j->doc, b / j->H), j->T, t, &first, &last);
        for (int64_t lo = first, g = 0; lo < last; lo += j->c, g++)
            sum += reach_back_chunk(j, f, w, b, first, lo, gated_min(j->c, last - lo), gated_max(0, g - j->a->skip));
    }
    const float *from = w->acc;
    for (int k = 0; k < 3; k++) {
        const int64_t width = k < 2 ? j->s : j->e;
        for (int64_t t = 0; t < j->T && out[k]->p; t++)
            f->put(from + t * width, gated_at(out[k], b, t), out[k]->type, width, false);
        from += j->T * width;
    }
    return sum;
}

const char *gated_reach_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                    kernel_exec *x) {
    reach_job j;
    (void)dry, (void)alloc;
    const char *why = reach_open(c, true, &j);
    if (why) return why;
    x->phases = 2;
    x->tiles[0] = j.B;
    x->tiles[1] = gated_has(&c->out[3]) ? 1 : 0;
    x->scratch = sizeof(float) * (size_t)(threads * j.per_worker + linear_up(j.B, 16));
    return NULL;
}

void gated_reach_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    reach_job j;
    (void)reach_open(t->call, true, &j);
    float *sums = t->scratch, all = 0;
    if (phase == 0) {
        reach_space w = reach_space_at(&j, sums + linear_up(j.B, 16), worker);
        for (int64_t b = lo; b < hi; b++) sums[b] = (float)reach_backward(&j, gated_leaf_of(t->exec), &w, b);
        return;
    }
    for (int64_t b = 0; b < j.B && lo < hi; b++) all -= sums[b];
    float *to = t->call->out[3].data;
    if (lo < hi) *to = t->call->acc >> 3 & 1 ? *to + all : all;
}

/* ---- over a cache ---- */

static int64_t reach_kv_floats(const tl_op_call *c) {
    const int64_t chunk = gated_min(ATTR(c, chunk_reach_kv)->f.chunk, c->in[1].d.dim[1]);
    return linear_up(tl_desc_last(&c->in[0].d) + c->in[2].d.dim[3] + chunk, 16);
}

const char *gated_reach_kv_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                   kernel_exec *x) {
    (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 6, 1);
    if (why) return why;
    if (c->in[0].d.dim[0] < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = c->in[0].d.dim[0] * c->in[1].d.dim[2];
    x->scratch = sizeof(float) * (size_t)(threads * reach_kv_floats(c));
    return NULL;
}

typedef struct reach_kv {
    const struct chunk_reach_attr *a;
    gated_mat q, k, v; /* caches: batch is the slot, row the position */
    gated_gate gate;
    int64_t H, C;
} reach_kv;

static const char *reach_kv_key(const reach_kv *j, const gated_mat *m, int64_t slot, int64_t h, int64_t pos) {
    return gated_at(m, slot * j->H + h, pos % j->C);
}

static void reach_kv_row(const reach_kv *j, const gated_leaf *f, int64_t r, int64_t h, int64_t slot, int64_t pos,
                         float *work) {
    const int64_t chunk = j->a->chunk, s = j->q.width, e = j->v.width;
    float *mark = work, *out = mark + s, *p = out + e, score[REACH_MOST];
    int32_t pick[REACH_MOST];
    int64_t n = 0;
    const void *q = gated_at(&j->q, r, h);
    for (int64_t g = pos + 1 > j->C ? (pos - j->C + chunk) / chunk : 0; g < pos / chunk - j->a->skip; g++) {
        memset(mark, 0, (size_t)s * sizeof *mark);
        for (int64_t i = 0; i < chunk; i++)
            f->axpy(1, reach_kv_key(j, &j->k, slot, h, g * chunk + i), j->k.type, mark, s);
        f->scaled((float)(1.0 / (double)chunk), mark, GEMM_F32, mark, s);
        n = reach_take(score, pick, n, j->a->top, (int32_t)g, f->dot(q, j->q.type, mark, GEMM_F32, s));
    }
    reach_sort(pick, n, j->a->top);
    memset(out, 0, (size_t)e * sizeof *out);
    gated_row row = gated_row_of(&j->gate, 0);
    row.norm = gated_norm(&j->gate, n * chunk, 0);
    for (int64_t l = 0; l < n; l++) {
        for (int64_t i = 0; i < chunk; i++)
            p[i] = f->dot(q, j->q.type, reach_kv_key(j, &j->k, slot, h, pick[l] * chunk + i), j->k.type, s);
        f->weigh(&row, p, 0, chunk, chunk);
        for (int64_t i = 0; i < chunk; i++)
            f->axpy(p[i], reach_kv_key(j, &j->v, slot, h, pick[l] * chunk + i), j->v.type, out, e);
    }
}

void gated_reach_kv_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const gated_mat o = gated_take_rows(&c->out[0]);
    reach_kv j = {.a = &ATTR(c, chunk_reach_kv)->f, .q = gated_take_rows(&c->in[0])};
    j.k = gated_take(&c->in[1]), j.v = gated_take(&c->in[2]);
    j.H = c->in[1].d.dim[2], j.C = c->in[1].d.dim[1];
    j.gate = gated_gate_of(&j.a->f, j.q.width, &c->in[TL_OP_INS - 1], &c->in[5]);
    float *work = (float *)t->scratch + worker * reach_kv_floats(c);
    (void)phase;
    for (int64_t i = lo; i < hi; i++) {
        const int64_t r = i / j.H, h = i % j.H;
        const int32_t slot = ((const int32_t *)c->in[3].data)[r * c->in[3].d.stride[0]];
        const int32_t pos = ((const int32_t *)c->in[4].data)[r * c->in[4].d.stride[0]];
        if (slot >= 0 && slot < c->in[1].d.dim[0] && pos >= 0)
            reach_kv_row(&j, f, r, h, slot, pos, work);
        else
            memset(work + j.q.width, 0, (size_t)j.v.width * sizeof *work);
        f->put(work + j.q.width, gated_at(&o, r, h), o.type, j.v.width, false);
    }
}
