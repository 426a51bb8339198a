#include "cpu/gated/chunk.h"
#include "op/grid.h"

const char *chunk_open(const tl_op_call *c, bool backward, int workers, chunk_job *j) {
    const int at = backward ? 2 : 0;
    const char *why = gated_dtypes(c, backward ? 12 : 10, backward ? 8 : 2);
    *j = (chunk_job){.backward = backward};
    if (why) return why;
    j->a = backward ? &ATTR(c, mixed_chunk_bwd)->f : ATTR(c, mixed_chunk);
    for (int i = 0; i < 5; i++) j->in[i] = gated_take(&c->in[at + i]);
    for (int i = 0; i < 5 && backward; i++) j->out[i] = gated_take(&c->out[i]);
    if (backward)
        j->dy = gated_take(&c->in[0]);
    else
        j->o = gated_take(&c->out[0]);
    j->doc = &c->in[at + 5], j->state = &c->in[at + 8], j->seen = &c->in[at + 9];
    j->dstate = backward ? &c->in[1] : NULL;
    j->to = &c->out[backward ? 7 : 1];
    j->H = gated_heads(&c->in[at].d);
    j->B = c->in[at].d.dim[0] * j->H, j->T = c->in[at].d.dim[1], j->s = j->in[0].width, j->e = j->in[4].width;
    if (j->B * j->T < 1) return "nothing to do";
    if (j->T > INT32_MAX / 2) return "more tokens than an int32 counts";
    if (gated_has(j->doc) && j->doc->d.stride[1] != 1) return "documents with holes between them";
    j->gate = gated_gate_of(&j->a->f, j->s, &c->in[at + 6], &c->in[at + 7]);
    j->causal = j->a->f.causal;
    j->near = j->a->parts != CHUNK_FAR, j->far = j->a->parts != CHUNK_LOCAL;
    j->c = gated_min(j->a->chunk, j->T);
    j->reach = j->a->reach, j->period = j->a->period, j->back = j->reach * j->c;
    j->group = gated_max(gated_ceil(16, j->B), gated_ceil(CHUNK_TOKENS, j->c));
    j->group = gated_min(gated_min(j->group, CHUNK_WINDOW), gated_ceil(j->T, j->c));
    j->window = j->group * j->c;
    j->windows = gated_ceil(j->T, j->window);
    j->slices = gated_ceil(j->e, CHUNK_SLICE);
    j->copies = j->causal ? j->group + 2 : 1;
    /* scratch */
    const int64_t words = (int64_t)(sizeof(chunk_piece) / sizeof(float)), size = linear_up(j->s * j->e, 16);
    int64_t n = 0, w = 0;
    j->piece_room = linear_up(((gated_has(j->doc) || j->a->rows ? j->window : j->group) + 1) * words + 16, 16);
    j->pieces = n, n += j->B * j->piece_room;
    j->run = n, n += j->B * size;
    j->copy = n, n += j->B * j->copies * size;
    j->bias_n = backward && gated_has(&c->out[5]) ? c->out[5].d.dim[0] : 0;
    j->bias_part = n, n += linear_up(j->B * j->group * j->bias_n, 16);
    j->sums = n, n += linear_up(j->B * j->group, 16);
    const int64_t rows = gated_min(CHUNK_ROWS, linear_up(j->c, 8)), keys = gated_min(CHUNK_KEYS, linear_up(j->c, 16));
    j->w_s = w, w += rows * keys;
    j->w_p = w, w += backward ? rows * keys : 0;
    j->w_o = w, w += backward ? 0 : linear_up(CHUNK_ROWS * j->e, 16);
    j->w_q = w, w += linear_up(CHUNK_TOKENS * j->s, 16);
    j->w_dq = w, w += backward ? linear_up(j->c * j->s, 16) : 0;
    j->w_dk = w, w += backward ? linear_up(CHUNK_KEYS * j->s, 16) : 0;
    j->w_dv = w, w += backward ? linear_up(CHUNK_KEYS * j->e, 16) : 0;
    j->deepest = gated_max(gated_max(j->s, j->e), CHUNK_TOKENS);
    j->most = gated_max(CHUNK_KEYS, linear_up(j->s, 16));
    j->pack = j->most * j->deepest;
    j->w_bias = w, w += j->a->rows ? 2 * CHUNK_KEYS : 0;
    j->w_space = w, w += gated_space_floats(j->most, j->pack, j->deepest);
    j->per_worker = linear_up(w, 16);
    j->worker = n;
    j->total = n + workers * j->per_worker;
    return NULL;
}

gated_space chunk_space(const chunk_job *j, float *worker) {
    return gated_space_at(worker + j->w_space, j->most, j->pack, j->deepest);
}

chunk_list chunk_pieces(const chunk_job *j, float *scratch, int64_t b) {
    float *at = scratch + j->pieces + b * j->piece_room;
    chunk_list l = {0, (chunk_piece *)(void *)(at + 16)};
    memcpy(&l.n, at, sizeof l.n);
    return l;
}

bool chunk_carried(const chunk_job *j, const chunk_piece *p) {
    return p->first == 0 && gated_has(j->state);
}

int64_t chunk_end(const chunk_job *j, int64_t b) {
    const int32_t *doc = gated_doc(j->doc, b / j->H);
    int64_t end = j->T;
    while (doc && end > 0 && doc[end - 1] < 0) end--;
    return end;
}

static grid_window chunk_window(const chunk_job *j, int64_t i) {
    return grid_window_at(j->a->rows, j->a->cols, j->a->high, j->a->wide, i);
}

/* The numbers of row i and keys [k0, k0 + n) between the table and a line: runs of one line of the window each. */
static void chunk_lines(const chunk_job *j, int64_t i, int64_t k0, int64_t n, float *table, float *line, bool back) {
    const grid_window w = chunk_window(j, i);
    const int64_t row = (i - w.first) / w.wide, col = (i - w.first) % w.wide;
    for (int64_t k = k0, run; k < k0 + n; k += run) {
        const int64_t at = (k - w.first) % w.wide;
        run = gated_min(w.wide - at, k0 + n - k);
        float *of = table + ((k - w.first) / w.wide - row) * (2 * j->a->wide - 1) + at - col, *to = line + (k - k0);
        if (!back) memcpy(to, of, (size_t)run * sizeof *to);
        for (int64_t x = 0; x < run && back; x++) of[x] += to[x];
    }
}

gated_row chunk_row(const chunk_job *j, float *worker, int64_t i, int64_t k0, int64_t n, float *dbias) {
    gated_row r = gated_row_of(&j->gate, k0 - i);
    if (!j->a->rows) {
        if (dbias) r.dbias = dbias + (k0 - i);
        return r;
    }
    float *line = worker + j->w_bias;
    if (j->gate.bias) {
        chunk_lines(j, i, k0, n, (float *)(uintptr_t)j->gate.bias, line, false);
        r.bias = line;
    }
    if (dbias) {
        r.dbias = line + CHUNK_KEYS;
        memset(r.dbias, 0, (size_t)n * sizeof *r.dbias);
    }
    return r;
}

void chunk_unlay(const chunk_job *j, const gated_row *r, int64_t i, int64_t k0, int64_t n, float *dbias) {
    if (j->a->rows && dbias) chunk_lines(j, i, k0, n, dbias, r->dbias, true);
}

chunk_piece chunk_piece_at(const chunk_job *j, int64_t b, int64_t lo, int64_t first, int64_t last) {
    (void)b;
    chunk_piece p = {.lo = (int32_t)lo, .first = (int32_t)first, .last = (int32_t)last, .copy = -1};
    p.hi = (int32_t)gated_min(lo + j->c, last);
    if (j->a->rows) p.hi = (int32_t)(lo + chunk_window(j, lo).cells);
    p.keys = (int32_t)gated_max(first, lo - j->back);
    return p;
}

/* The run of one document and period around token i. */
static void chunk_run_around(const chunk_job *j, const int32_t *doc, int64_t i, int64_t *first, int64_t *last) {
    gated_run(doc, j->T, i, first, last);
    if (!j->period || *first == *last) return;
    *first += (i - *first) / j->period * j->period;
    *last = gated_min(*last, *first + j->period);
}

float chunk_norm(const chunk_job *j, const chunk_piece *p, int64_t b) {
    int64_t n = j->causal ? p->keys - p->first : p->last - p->first;
    if (j->causal && chunk_carried(j, p)) n += ((const int32_t *)j->seen->data)[b / j->H * j->seen->d.stride[0]];
    if (j->a->norm == CHUNK_CONST) n = j->causal ? j->a->chunk : j->T;
    return n > 0 ? (float)(1.0 / (double)n) : 0;
}

void chunk_list_window(const chunk_job *j, float *scratch, int64_t b, int64_t window, bool reverse) {
    const int32_t *doc = gated_doc(j->doc, b / j->H);
    const int64_t w0 = window * j->window, w1 = gated_min(w0 + j->window, j->T), end = chunk_end(j, b);
    chunk_list l = chunk_pieces(j, scratch, b);
    int64_t first = 0, last = 0;
    int32_t copies = 0;
    l.n = 0;
    for (int64_t i = w0; i < w1;) {
        if (i == w0 || i >= last) chunk_run_around(j, doc, i, &first, &last);
        if (first == last) {
            i++;
            continue;
        }
        int64_t lo = first + gated_ceil(i - first, j->c) * j->c;
        if (j->a->rows) {
            const grid_window w = chunk_window(j, i);
            lo = w.first < i ? w.first + w.cells : i;
        }
        if (lo >= last || lo >= w1) {
            i = gated_min(last, w1);
            continue;
        }
        chunk_piece p = chunk_piece_at(j, b, lo, first, last);
        p.norm = chunk_norm(j, &p, b);
        const bool uses = reverse ? p.hi + j->back < last || (gated_has(j->dstate) && last == end)
                                  : p.keys > first || chunk_carried(j, &p);
        if (j->causal && j->far && uses) p.copy = copies++;
        l.p[l.n++] = p;
        i = p.hi;
    }
    memcpy(scratch + j->pieces + b * j->piece_room, &l.n, sizeof l.n);
}

float *chunk_run(const chunk_job *j, float *scratch, int64_t b) {
    return scratch + j->run + b * linear_up(j->s * j->e, 16);
}
float *chunk_copy(const chunk_job *j, float *scratch, int64_t b, int64_t copy) {
    return scratch + j->copy + (b * j->copies + copy) * linear_up(j->s * j->e, 16);
}

void chunk_gather(const chunk_job *j, const gated_leaf *f, float *worker, const gated_mat *x, const gated_mat *y,
                  int64_t b, int64_t lo, int64_t hi, int64_t d0, int64_t n, float by, float *to, bool add) {
    const gated_space sp = chunk_space(j, worker);
    float *q = worker + j->w_q;
    for (int64_t t = lo; t < hi; t += CHUNK_TOKENS) {
        const int64_t k = gated_min(CHUNK_TOKENS, hi - t);
        gemm_matrix a = gated_turned(gated_at(x, b, t), x->type, x->row);
        if (by != 1) {
            for (int64_t i = 0; i < k; i++) f->scaled(by, gated_at(x, b, t + i), x->type, q + i * j->s, j->s);
            a = gated_turned(q, GEMM_F32, j->s);
        }
        gated_product(f, &sp, j->s, n, k, a, gated_rows(gated_at(y, b, t) + y->size * d0, y->type, y->row), to, j->e,
                      add || t > lo);
    }
}

static void chunk_slice_copy(const chunk_job *j, float *to, const float *from, int64_t d0, int64_t n) {
    for (int64_t k = 0; k < j->s; k++)
        if (from)
            memcpy(to + k * j->e + d0, from + k * j->e + d0, (size_t)n * sizeof *to);
        else
            memset(to + k * j->e + d0, 0, (size_t)n * sizeof *to);
}

/* A slice from the state that came in, or zeros. */
static void chunk_slice_start(const chunk_job *j, float *to, int64_t b, int64_t d0, int64_t n, bool carried) {
    if (!carried) {
        chunk_slice_copy(j, to, NULL, d0, n);
        return;
    }
    const gated_mat m = gated_take_state(j->state);
    for (int64_t k = 0; k < j->s; k++)
        memcpy(to + k * j->e + d0, (const float *)(const void *)gated_at(&m, b, k) + d0, (size_t)n * sizeof *to);
}

void chunk_sweep(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile, bool first) {
    const int64_t b = tile / j->slices, d0 = tile % j->slices * CHUNK_SLICE, n = gated_min(CHUNK_SLICE, j->e - d0);
    const chunk_list l = chunk_pieces(j, scratch, b);
    float *M = chunk_run(j, scratch, b);
    if (!j->far) return;
    if (first) chunk_slice_start(j, M, b, d0, n, gated_has(j->state));
    for (int64_t i = 0; i < l.n; i++) {
        const chunk_piece *p = &l.p[i];
        if (p->lo == p->first)
            chunk_slice_start(j, M, b, d0, n, chunk_carried(j, p));
        else if (p->keys > p->first)
            chunk_gather(j, f, worker, &j->in[3], &j->in[4], b, p->keys - j->c, p->keys, d0, n, 1, M + d0, true);
        if (p->copy >= 0) chunk_slice_copy(j, chunk_copy(j, scratch, b, p->copy), M, d0, n);
    }
}

void chunk_zero(const chunk_job *j, const gated_mat *m, int64_t b, int64_t lo, int64_t hi) {
    const int32_t *doc = gated_doc(j->doc, b / j->H);
    if (!doc || !m->p) return;
    for (int64_t i = lo; i < gated_min(hi, j->T); i++)
        if (doc[i] < 0) memset(gated_at(m, b, i), 0, (size_t)(m->width * m->size));
}
