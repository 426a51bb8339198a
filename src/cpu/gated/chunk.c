/* Launcher of mixed_chunk. */
#include "cpu/gated/chunk.h"

/* Rows [i0, i0 + m) of a piece: weights times values inside it, the state times ql from before. */
static void chunk_forward_rows(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t b,
                               const chunk_piece *p, int64_t i0, int64_t m) {
    const gated_space sp = chunk_space(j, worker);
    const int64_t end = j->causal ? i0 + m : p->hi, ld = gated_min(CHUNK_KEYS, linear_up(j->c, 16));
    float *s = worker + j->w_s, *o = worker + j->w_o, *q = worker + j->w_q;
    int64_t o_row = j->e;
    if (j->o.type == GEMM_F32) {
        o = (float *)(void *)gated_at(&j->o, b, i0);
        o_row = j->o.row;
    }
    for (int64_t i = 0; i < m && !j->near; i++) memset(o + i * o_row, 0, (size_t)j->e * sizeof *o);
    for (int64_t k0 = p->keys; k0 < end && j->near; k0 += ld) {
        const int64_t n = gated_min(ld, end - k0);
        gated_product(f, &sp, m, n, j->s, gated_rows(gated_at(&j->in[0], b, i0), j->in[0].type, j->in[0].row),
                      gated_turned(gated_at(&j->in[1], b, k0), j->in[1].type, j->in[1].row), s, ld, false);
        for (int64_t i = 0; i < m; i++) {
            gated_row r = chunk_row(j, worker, i0 + i, k0, n, NULL);
            const int64_t seen = j->causal ? i0 + i + 1 : p->hi;
            r.norm = gated_norm(&j->gate, seen - p->keys, j->T);
            f->weigh(&r, s + i * ld, 0, gated_min(seen - k0, n), n);
        }
        gated_product(f, &sp, m, j->e, n, gated_rows(s, GEMM_F32, ld),
                      gated_rows(gated_at(&j->in[4], b, k0), j->in[4].type, j->in[4].row), o, o_row, k0 > p->keys);
    }
    if (p->copy >= 0) {
        for (int64_t i = 0; i < m; i++)
            f->scaled(p->norm, gated_at(&j->in[2], b, i0 + i), j->in[2].type, q + i * j->s, j->s);
        gated_product(f, &sp, m, j->e, j->s, gated_rows(q, GEMM_F32, j->s),
                      gated_rows(chunk_copy(j, scratch, b, p->copy), GEMM_F32, j->e), o, o_row, true);
    }
    for (int64_t i = 0; i < m && j->o.type != GEMM_F32; i++)
        f->put(o + i * j->e, gated_at(&j->o, b, i0 + i), j->o.type, j->e, false);
}

static void chunk_forward_tile(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile,
                               int64_t window) {
    const int64_t b = tile / j->group, t0 = window * j->window + tile % j->group * j->c;
    const chunk_list l = chunk_pieces(j, scratch, b);
    chunk_zero(j, &j->o, b, t0, t0 + j->c);
    for (int64_t i = 0; i < l.n; i++) {
        const chunk_piece *p = &l.p[i];
        if (p->lo < t0 || p->lo >= t0 + j->c) continue;
        for (int64_t i0 = p->lo; i0 < p->hi; i0 += CHUNK_ROWS)
            chunk_forward_rows(j, f, scratch, worker, b, p, i0, gated_min(CHUNK_ROWS, p->hi - i0));
    }
}

/* The state behind the last token: M and the chunk at the end. */
static void chunk_state_out(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile) {
    const int64_t b = tile / j->slices, d0 = tile % j->slices * CHUNK_SLICE, n = gated_min(CHUNK_SLICE, j->e - d0);
    const int64_t end = chunk_end(j, b);
    float *M = chunk_run(j, scratch, b);
    const gated_mat to = gated_take_state(j->to);
    int64_t first, last;
    if (end > 0) {
        gated_run(gated_doc(j->doc, b / j->H), j->T, end - 1, &first, &last);
        const int64_t lo = first + (end - 1 - first) / j->c * j->c;
        chunk_gather(j, f, worker, &j->in[3], &j->in[4], b, lo, end, d0, n, 1, M + d0, true);
    }
    for (int64_t k = 0; k < j->s; k++)
        memcpy((float *)(void *)gated_at(&to, b, k) + d0, M + k * j->e + d0, (size_t)n * sizeof *M);
}

/* Not causal: the sum over every run, and what its rows read of it, added to the output. */
static void chunk_linear_tile(const chunk_job *j, const gated_leaf *f, float *scratch, float *worker, int64_t tile) {
    const int64_t b = tile / j->slices, d0 = tile % j->slices * CHUNK_SLICE, n = gated_min(CHUNK_SLICE, j->e - d0);
    const gated_space sp = chunk_space(j, worker);
    float *M = chunk_run(j, scratch, b) + d0, *q = worker + j->w_q;
    int64_t first, last;
    for (int64_t i = 0; i<j->T; i = last> i ? last : i + 1) {
        gated_run(gated_doc(j->doc, b / j->H), j->T, i, &first, &last);
        if (first == last) continue;
        const float norm = (float)(1.0 / (double)(j->a->norm == CHUNK_CONST ? j->T : last - first));
        chunk_gather(j, f, worker, &j->in[3], &j->in[4], b, first, last, d0, n, 1, M, false);
        for (int64_t i0 = first; i0 < last; i0 += CHUNK_ROWS) {
            const int64_t m = gated_min(CHUNK_ROWS, last - i0);
            for (int64_t r = 0; r < m; r++)
                f->scaled(norm, gated_at(&j->in[2], b, i0 + r), j->in[2].type, q + r * j->s, j->s);
            gated_product_to(f, &sp, m, n, j->s, gated_rows(q, GEMM_F32, j->s), gated_rows(M, GEMM_F32, j->e),
                             gated_at(&j->o, b, i0) + j->o.size * d0, j->o.type, j->o.row, true);
        }
    }
}

const char *gated_chunk_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    chunk_job j;
    (void)dry, (void)alloc;
    const char *why = chunk_open(c, false, threads, &j);
    if (why) return why;
    x->phases = 4;
    x->tiles[0] = j.B;
    x->tiles[1] = j.B * j.slices;
    x->tiles[2] = j.B * j.group;
    x->tiles[3] = !j.far || (j.causal && !gated_has(j.to)) ? 0 : j.B * j.slices;
    x->repeats = j.windows;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

void gated_chunk_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    chunk_job j;
    (void)chunk_open(t->call, false, t->workers, &j);
    const gated_leaf *f = gated_leaf_of(t->exec);
    float *scratch = t->scratch, *mine = scratch + j.worker + worker * j.per_worker;
    for (int64_t i = lo; i < hi; i++) {
        if (phase == 0)
            chunk_list_window(&j, scratch, i, t->repeat, false);
        else if (phase == 1 && j.causal)
            chunk_sweep(&j, f, scratch, mine, i, t->repeat == 0);
        else if (phase == 2)
            chunk_forward_tile(&j, f, scratch, mine, i, t->repeat);
        else if (phase == 3 && t->repeat + 1 == j.windows && j.causal)
            chunk_state_out(&j, f, scratch, mine, i);
        else if (phase == 3 && t->repeat + 1 == j.windows)
            chunk_linear_tile(&j, f, scratch, mine, i);
    }
}
