/* Launcher of mixed_chunk_bwd: windows forward with M for dqq, dkq and dql, then in reverse with R for dkl and dv; not
 * causal, the linear part of every sequence follows in one more turn. */
#include "cpu/gated/chunk.h"

static const gated_mat *chunk_q(const chunk_job *j, int of) {
    return &j->in[of];
}

/* Weights (and, with p, their gradients) of rows [i0, i0 + m) and keys [k0, k0 + n) of a piece. */
static float chunk_pair(const chunk_job *j, const gated_leaf *f, float *worker, int64_t b, const chunk_piece *x,
                        int64_t i0, int64_t m, int64_t k0, int64_t n, int64_t ld, float *s, float *p, float *bias) {
    const gated_space space = chunk_space(j, worker), *sp = &space;
    const gated_mat *q = chunk_q(j, 0), *k = chunk_q(j, 1), *v = chunk_q(j, 4);
    float sum = 0;
    gated_product(f, sp, m, n, j->s, gated_rows(gated_at(q, b, i0), q->type, q->row),
                  gated_turned(gated_at(k, b, k0), k->type, k->row), s, ld, false);
    if (p)
        gated_product(f, sp, m, n, j->e, gated_rows(gated_at(&j->dy, b, i0), j->dy.type, j->dy.row),
                      gated_turned(gated_at(v, b, k0), v->type, v->row), p, ld, false);
    for (int64_t i = 0; i < m; i++) {
        gated_row r = chunk_row(j, worker, i0 + i, k0, n, bias);
        const int64_t seen = j->causal ? i0 + i + 1 : x->hi, hi = gated_min(seen - k0, n);
        r.norm = gated_norm(&j->gate, seen - x->keys, j->T);
        if (p)
            sum += f->back(&r, s + i * ld, p + i * ld, 0, hi, n), chunk_unlay(j, &r, i0 + i, k0, n, bias);
        else
            f->weigh(&r, s + i * ld, 0, hi, n);
    }
    return sum;
}

static void chunk_put(const gated_leaf *f, const float *from, int64_t ld, const gated_mat *to, int64_t b, int64_t lo,
                      int64_t n) {
    for (int64_t i = 0; i < n && to->p; i++) f->put(from + i * ld, gated_at(to, b, lo + i), to->type, to->width, false);
}

/* Gradients of heads that are not read. */
static void chunk_clear(const chunk_job *j, int first, int64_t b, int64_t lo, int64_t hi) {
    for (int k = first; k < first + 2; k++)
        for (int64_t i = lo; i < hi && j->out[k].p; i++)
            memset(gated_at(&j->out[k], b, i), 0, (size_t)(j->out[k].width * j->out[k].size));
}

/* dqq and dkq of a piece whose rows see chunks before it: its rows with all their keys, then its keys with all rows
 * that see them. */
static void chunk_first_reach(const chunk_job *j, const gated_leaf *f, float *worker, int64_t b, const chunk_piece *x,
                              float *bias, float *sum) {
    const gated_space sp = chunk_space(j, worker);
    const int64_t ld = gated_min(CHUNK_KEYS, linear_up(j->c, 16));
    float *s = worker + j->w_s, *p = worker + j->w_p, *dq = worker + j->w_dq, *dk = worker + j->w_dk;
    for (int64_t i0 = x->lo; i0 < x->hi; i0 += CHUNK_ROWS) {
        const int64_t m = gated_min(CHUNK_ROWS, x->hi - i0);
        for (int64_t k0 = x->keys; k0 < i0 + m; k0 += ld) {
            const int64_t n = gated_min(ld, i0 + m - k0);
            *sum += chunk_pair(j, f, worker, b, x, i0, m, k0, n, ld, s, p, bias);
            gated_product(f, &sp, m, j->s, n, gated_rows(p, GEMM_F32, ld),
                          gated_rows(gated_at(chunk_q(j, 1), b, k0), j->in[1].type, j->in[1].row), dq, j->s,
                          k0 > x->keys);
        }
        chunk_put(f, dq, j->s, &j->out[0], b, i0, m);
    }
    for (int64_t k0 = x->lo; k0 < x->hi && j->out[1].p; k0 += ld) {
        const int64_t n = gated_min(ld, x->hi - k0);
        memset(dk, 0, (size_t)(n * j->s) * sizeof *dk);
        for (int64_t lo = x->lo; lo <= x->lo + j->back && lo < x->last; lo += j->c) {
            const chunk_piece y = chunk_piece_at(j, b, lo, x->first, x->last);
            for (int64_t i0 = y.lo; i0 < y.hi; i0 += CHUNK_ROWS) {
                const int64_t m = gated_min(CHUNK_ROWS, y.hi - i0), see = gated_min(n, i0 + m - k0);
                if (see <= 0) continue;
                (void)chunk_pair(j, f, worker, b, &y, i0, m, k0, see, ld, s, p, NULL);
                gated_product(f, &sp, see, j->s, m, gated_turned(p, GEMM_F32, ld),
                              gated_rows(gated_at(chunk_q(j, 0), b, i0), j->in[0].type, j->in[0].row), dk, j->s, true);
            }
        }
        chunk_put(f, dk, j->s, &j->out[1], b, k0, n);
    }
}

/* dv of keys [k0, k0 + n) of such a piece, from all rows that see them. */
static void chunk_values_reach(const chunk_job *j, const gated_leaf *f, float *worker, int64_t b, const chunk_piece *x,
                               int64_t k0, int64_t n, int64_t ld) {
    const gated_space sp = chunk_space(j, worker);
    float *s = worker + j->w_s, *dv = worker + j->w_dv;
    memset(dv, 0, (size_t)(n * j->e) * sizeof *dv);
    for (int64_t lo = x->lo; lo <= x->lo + j->back && lo < x->last; lo += j->c) {
        const chunk_piece y = chunk_piece_at(j, b, lo, x->first, x->last);
        for (int64_t i0 = y.lo; i0 < y.hi; i0 += CHUNK_ROWS) {
            const int64_t m = gated_min(CHUNK_ROWS, y.hi - i0), see = gated_min(n, i0 + m - k0);
            if (see <= 0) continue;
            (void)chunk_pair(j, f, worker, b, &y, i0, m, k0, see, ld, s, NULL, NULL);
            gated_product(f, &sp, see, j->e, m, gated_turned(s, GEMM_F32, ld),
                          gated_rows(gated_at(&j->dy, b, i0), j->dy.type, j->dy.row), dv, j->e, true);
        }
    }
}

/* dqq, dkq, dql of a piece, the bias's and the temperature's share. */
static void chunk_first_piece(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t b,
                              const chunk_piece *x, float *bias, float *sum) {
    const gated_space sp = chunk_space(j, worker);
    const int64_t ld = gated_min(CHUNK_KEYS, linear_up(j->c, 16));
    float *s = worker + j->w_s, *p = worker + j->w_p, *dq = worker + j->w_dq, *dk = worker + j->w_dk;
    if (!j->near) chunk_clear(j, 0, b, x->lo, x->hi);
    if (!j->far) chunk_clear(j, 2, b, x->lo, x->hi);
    if (j->near && j->reach) chunk_first_reach(j, f, worker, b, x, bias, sum);
    for (int64_t k0 = x->lo; k0 < x->hi && j->near && !j->reach; k0 += ld) {
        const int64_t n = gated_min(ld, x->hi - k0);
        bool any = false;
        for (int64_t i0 = x->lo; i0 < x->hi; i0 += CHUNK_ROWS) {
            const int64_t m = gated_min(CHUNK_ROWS, x->hi - i0), see = j->causal ? gated_min(n, i0 + m - k0) : n;
            if (see <= 0) continue;
            *sum += chunk_pair(j, f, worker, b, x, i0, m, k0, see, ld, s, p, bias);
            if (see < n && !any) memset(dk, 0, (size_t)(n * j->s) * sizeof *dk);
            gated_product(f, &sp, see, j->s, m, gated_turned(p, GEMM_F32, ld),
                          gated_rows(gated_at(chunk_q(j, 0), b, i0), j->in[0].type, j->in[0].row), dk, j->s,
                          any || see < n);
            gated_product(f, &sp, m, j->s, see, gated_rows(p, GEMM_F32, ld),
                          gated_rows(gated_at(chunk_q(j, 1), b, k0), j->in[1].type, j->in[1].row),
                          dq + (i0 - x->lo) * j->s, j->s, k0 > x->lo);
            any = true;
        }
        chunk_put(f, dk, j->s, &j->out[1], b, k0, n);
    }
    if (j->near && !j->reach) chunk_put(f, dq, j->s, &j->out[0], b, x->lo, x->hi - x->lo);
    if (!j->out[2].p || !j->causal || !j->far) return;
    for (int64_t i0 = x->lo; i0 < x->hi; i0 += CHUNK_ROWS) {
        const int64_t m = gated_min(CHUNK_ROWS, x->hi - i0);
        if (x->copy >= 0)
            gated_product(f, &sp, m, j->s, j->e, gated_rows(gated_at(&j->dy, b, i0), j->dy.type, j->dy.row),
                          gated_turned(chunk_copy(j, scratch, b, x->copy), GEMM_F32, j->e), dq, j->s, false);
        else
            memset(dq, 0, (size_t)(m * j->s) * sizeof *dq);
        f->scaled(x->copy >= 0 ? x->norm : 0, dq, GEMM_F32, dq, m * j->s);
        chunk_put(f, dq, j->s, &j->out[2], b, i0, m);
    }
}

/* dkl and dv of a piece. */
static void chunk_second_piece(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t b,
                               const chunk_piece *x) {
    const gated_space sp = chunk_space(j, worker);
    const int64_t ld = gated_min(CHUNK_KEYS, linear_up(j->c, 16));
    float *s = worker + j->w_s, *dk = worker + j->w_dk, *dv = worker + j->w_dv;
    const float *R = x->copy >= 0 ? chunk_copy(j, scratch, b, x->copy) : NULL;
    for (int64_t k0 = x->lo; k0 < x->hi; k0 += ld) {
        const int64_t n = gated_min(ld, x->hi - k0);
        bool any = false;
        if (!j->near) memset(dv, 0, (size_t)(n * j->e) * sizeof *dv);
        if (j->near && j->reach && j->out[4].p) chunk_values_reach(j, f, worker, b, x, k0, n, ld);
        for (int64_t i0 = x->lo; i0 < x->hi && j->out[4].p && j->near && !j->reach; i0 += CHUNK_ROWS) {
            const int64_t m = gated_min(CHUNK_ROWS, x->hi - i0), see = j->causal ? gated_min(n, i0 + m - k0) : n;
            if (see <= 0) continue;
            (void)chunk_pair(j, f, worker, b, x, i0, m, k0, see, ld, s, NULL, NULL);
            if (see < n && !any) memset(dv, 0, (size_t)(n * j->e) * sizeof *dv);
            gated_product(f, &sp, see, j->e, m, gated_turned(s, GEMM_F32, ld),
                          gated_rows(gated_at(&j->dy, b, i0), j->dy.type, j->dy.row), dv, j->e, any || see < n);
            any = true;
        }
        if (j->out[4].p && R)
            gated_product(f, &sp, n, j->e, j->s,
                          gated_rows(gated_at(chunk_q(j, 3), b, k0), j->in[3].type, j->in[3].row),
                          gated_rows(R, GEMM_F32, j->e), dv, j->e, true);
        chunk_put(f, dv, j->e, &j->out[4], b, k0, n);
        if (!j->out[3].p || !j->causal || !j->far) continue;
        if (R)
            gated_product(f, &sp, n, j->s, j->e,
                          gated_rows(gated_at(chunk_q(j, 4), b, k0), j->in[4].type, j->in[4].row),
                          gated_turned(R, GEMM_F32, j->e), dk, j->s, false);
        else
            memset(dk, 0, (size_t)(n * j->s) * sizeof *dk);
        chunk_put(f, dk, j->s, &j->out[3], b, k0, n);
    }
}

static void chunk_tile(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile,
                       int64_t window, bool second, bool fresh) {
    const int64_t b = tile / j->group, t0 = window * j->window + tile % j->group * j->c;
    const chunk_list l = chunk_pieces(j, scratch, b);
    float *bias = j->bias_n ? scratch + j->bias_part + tile * j->bias_n : NULL, *sum = scratch + j->sums + tile;
    for (int k = 0; k < 5 && !second; k++) chunk_zero(j, &j->out[k], b, t0, t0 + j->c);
    if (fresh) {
        *sum = 0;
        if (bias) memset(bias, 0, (size_t)j->bias_n * sizeof *bias);
    }
    for (int64_t i = 0; i < l.n; i++) {
        const chunk_piece *p = &l.p[i];
        if (p->lo < t0 || p->lo >= t0 + j->c) continue;
        if (second)
            chunk_second_piece(j, f, scratch, worker, b, p);
        else
            chunk_first_piece(j, f, scratch, worker, b, p, bias ? bias + (j->bias_n - 1) / 2 : NULL, sum);
    }
}

/* A slice of R carried over the window's pieces in reverse. */
static void chunk_sweep_back(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile) {
    const int64_t b = tile / j->slices, d0 = tile % j->slices * CHUNK_SLICE, n = gated_min(CHUNK_SLICE, j->e - d0);
    const chunk_list l = chunk_pieces(j, scratch, b);
    const int64_t end = chunk_end(j, b);
    float *R = chunk_run(j, scratch, b);
    if (!j->far) return;
    for (int64_t i = l.n - 1; i >= 0; i--) {
        const chunk_piece *p = &l.p[i];
        for (int64_t k = 0; k < j->s && p->hi == p->last; k++) {
            float *to = R + k * j->e + d0;
            if (gated_has(j->dstate) && p->last == end) {
                const gated_mat m = gated_take_state(j->dstate);
                memcpy(to, (const float *)(const void *)gated_at(&m, b, k) + d0, (size_t)n * sizeof *to);
            } else {
                memset(to, 0, (size_t)n * sizeof *to);
            }
        }
        const int64_t behind = p->hi + j->back; /* the first chunk whose M holds this one */
        if (j->reach && behind < p->last) {
            const chunk_piece y = chunk_piece_at(j, b, behind, p->first, p->last);
            chunk_gather(j, f, worker, &j->in[2], &j->dy, b, y.lo, y.hi, d0, n, chunk_norm(j, &y, b), R + d0, true);
        }
        for (int64_t k = 0; k < j->s && p->copy >= 0; k++)
            memcpy(chunk_copy(j, scratch, b, p->copy) + k * j->e + d0, R + k * j->e + d0, (size_t)n * sizeof *R);
        if (!j->reach && (p->lo > p->first || chunk_carried(j, p)))
            chunk_gather(j, f, worker, &j->in[2], &j->dy, b, p->lo, p->hi, d0, n, p->norm, R + d0, true);
    }
}

/* Not causal: the linear part of one sequence, run by run. */
static void chunk_linear_back(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t b) {
    const gated_space sp = chunk_space(j, worker);
    float *M = chunk_run(j, scratch, b), *R = chunk_copy(j, scratch, b, 0), *d = worker + j->w_dk;
    const gated_mat *ql = &j->in[2], *kl = &j->in[3], *v = &j->in[4];
    int64_t first, last;
    (void)ql;
    for (int64_t i = 0; i<j->T; i = last> i ? last : i + 1) {
        gated_run(gated_doc(j->doc, b / j->H), j->T, i, &first, &last);
        if (first == last) continue;
        const float norm = (float)(1.0 / (double)(j->a->norm == CHUNK_CONST ? j->T : last - first));
        chunk_gather(j, f, worker, kl, v, b, first, last, 0, j->e, 1, M, false);
        chunk_gather(j, f, worker, ql, &j->dy, b, first, last, 0, j->e, norm, R, false);
        for (int64_t i0 = first; i0 < last; i0 += CHUNK_ROWS) {
            const int64_t m = gated_min(CHUNK_ROWS, last - i0);
            if (j->out[2].p) {
                gated_product(f, &sp, m, j->s, j->e, gated_rows(gated_at(&j->dy, b, i0), j->dy.type, j->dy.row),
                              gated_turned(M, GEMM_F32, j->e), d, j->s, false);
                f->scaled(norm, d, GEMM_F32, d, m * j->s);
                chunk_put(f, d, j->s, &j->out[2], b, i0, m);
            }
            if (j->out[3].p) {
                gated_product(f, &sp, m, j->s, j->e, gated_rows(gated_at(v, b, i0), v->type, v->row),
                              gated_turned(R, GEMM_F32, j->e), d, j->s, false);
                chunk_put(f, d, j->s, &j->out[3], b, i0, m);
            }
            if (j->out[4].p)
                gated_product_to(f, &sp, m, j->e, j->s, gated_rows(gated_at(kl, b, i0), kl->type, kl->row),
                                 gated_rows(R, GEMM_F32, j->e), gated_at(&j->out[4], b, i0), j->out[4].type,
                                 j->out[4].row, true);
        }
    }
}

/* The small gradients, and that of the state which came in. */
static void chunk_finish(const chunk_job *j, const tl_op_call *c, const gated_leaf *f, float *scratch) {
    const int64_t parts = j->B * j->group;
    float *bias = scratch + j->bias_part, sum = 0, *theta = c->out[6].data;
    for (int64_t i = 1; i < parts && j->bias_n; i++) f->axpy(1, bias + i * j->bias_n, GEMM_F32, bias, j->bias_n);
    if (j->bias_n) f->put(bias, c->out[5].data, GEMM_F32, j->bias_n, c->acc >> 5 & 1);
    for (int64_t i = 0; i < parts; i++) sum -= scratch[j->sums + i];
    if (theta) *theta = c->acc >> 6 & 1 ? *theta + sum : sum;
    if (!gated_has(j->to)) return;
    const gated_mat to = gated_take_state(j->to), ds = gated_take_state(j->dstate);
    for (int64_t b = 0; b < j->B; b++) {
        const int32_t *doc = gated_doc(j->doc, b / j->H);
        const bool none = chunk_end(j, b) == 0, through = none && gated_has(j->dstate);
        float *R = chunk_run(j, scratch, b);
        for (int64_t k = 0; k < j->s; k++) {
            if (through) memcpy(R + k * j->e, gated_at(&ds, b, k), (size_t)j->e * sizeof *R);
            if (!through && (none || (doc && doc[0] < 0))) memset(R + k * j->e, 0, (size_t)j->e * sizeof *R);
            f->put(R + k * j->e, gated_at(&to, b, k), GEMM_F32, j->e, c->acc >> 7 & 1);
        }
    }
}

const char *gated_chunk_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                    kernel_exec *x) {
    chunk_job j;
    (void)dry, (void)alloc;
    const char *why = chunk_open(c, true, threads, &j);
    if (why) return why;
    x->phases = 4;
    x->tiles[0] = j.B;
    x->tiles[1] = j.B * j.slices;
    x->tiles[2] = j.B * j.group;
    x->tiles[3] = j.B + 1;
    x->repeats = 2 * j.windows;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

void gated_chunk_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    chunk_job j;
    (void)chunk_open(t->call, true, t->workers, &j);
    const gated_leaf *f = gated_leaf_of(t->exec);
    float *scratch = t->scratch, *mine = scratch + j.worker + worker * j.per_worker;
    const bool second = t->repeat >= j.windows, end = t->repeat + 1 == 2 * j.windows;
    const int64_t window = second ? 2 * j.windows - 1 - t->repeat : t->repeat;
    for (int64_t i = lo; i < hi; i++) {
        if (phase == 0)
            chunk_list_window(&j, scratch, i, window, second);
        else if (phase == 1 && j.causal && second)
            chunk_sweep_back(&j, f, scratch, mine, i);
        else if (phase == 1 && j.causal)
            chunk_sweep(&j, f, scratch, mine, i, t->repeat == 0);
        else if (phase == 2)
            chunk_tile(&j, f, scratch, mine, i, window, second, t->repeat == 0);
        else if (phase == 3 && end && i == j.B)
            chunk_finish(&j, t->call, f, scratch);
        else if (phase == 3 && end && !j.causal && j.far)
            chunk_linear_back(&j, f, scratch, mine, i);
    }
}
