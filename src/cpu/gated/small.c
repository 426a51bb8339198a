/* Launchers of offset_scale, its backward pass, shift and shift_step. */
#include "cpu/gated/launch.h"
#include "cpu/row/launch.h"

enum { SMALL_ROWS = 64, SMALL_CHUNKS = 32, SMALL_GATHER = 256, SMALL_COLUMNS = 256 };

static void *small_row(const tl_arg *a, int64_t r) {
    return (char *)a->data + (int64_t)tl_dtype_bytes(a->d.dtype) * tl_desc_row(&a->d, r);
}

/* ---- offset_scale ---------------------------------------------------------------------------------------- */

const char *gated_offset_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                 kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 3, 1);
    if (why) return why;
    if (tl_desc_rows(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = gated_ceil(tl_desc_rows(&c->in[0].d), SMALL_ROWS);
    return NULL;
}

void gated_offset_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const tl_arg *z = &c->in[0], *y = &c->out[0];
    const float *gamma = c->in[1].data, *beta = c->in[2].data;
    const int64_t s = tl_desc_last(&z->d), n = c->in[1].d.dim[0], rows = tl_desc_rows(&z->d);
    const int64_t size = (int64_t)tl_dtype_bytes(y->d.dtype);
    (void)phase, (void)worker;
    for (int64_t r = lo * SMALL_ROWS; r < gated_min(hi * SMALL_ROWS, rows); r++)
        for (int64_t h = 0; h < n; h += s)
            f->affine(small_row(z, r), gemm_type(z->d.dtype), gamma + h, beta ? beta + h : NULL,
                      (char *)small_row(y, r) + size * h, gemm_type(y->d.dtype), s);
}

typedef struct offset_cut {
    int64_t rows, s, n, per, chunks; /* per: rows of a chunk */
} offset_cut;

static offset_cut offset_cut_of(const tl_op_call *c) {
    offset_cut k = {.rows = tl_desc_rows(&c->in[1].d), .s = tl_desc_last(&c->in[1].d), .n = c->in[2].d.dim[0]};
    k.per = gated_max(SMALL_ROWS, gated_ceil(k.rows, SMALL_CHUNKS));
    k.chunks = gated_ceil(k.rows, k.per);
    return k;
}

const char *gated_offset_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                     kernel_exec *x) {
    (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 3, 3);
    if (why) return why;
    const offset_cut k = offset_cut_of(c);
    if (k.rows < 1) return "nothing to do";
    x->phases = 2;
    x->tiles[0] = k.chunks;
    x->tiles[1] = gated_ceil(k.n, SMALL_GATHER);
    x->scratch = sizeof(float) * (size_t)(2 * k.chunks * k.n + threads * linear_up(k.s, 16));
    return NULL;
}

void gated_offset_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const offset_cut k = offset_cut_of(c);
    const tl_arg *dy = &c->in[0], *z = &c->in[1], *dz = &c->out[0];
    const int ty = gemm_type(dy->d.dtype), tz = gemm_type(z->d.dtype);
    const int64_t size = (int64_t)tl_dtype_bytes(dy->d.dtype);
    const float *gamma = c->in[2].data;
    float *parts = t->scratch, *more = parts + k.chunks * k.n,
          *sum = more + k.chunks * k.n + worker * linear_up(k.s, 16);
    if (phase == 1) {
        for (int i = 1; i <= 2; i++)
            if (gated_has(&c->out[i]))
                row_gather(i == 1 ? parts : more, k.chunks, k.n, lo * SMALL_GATHER, gated_min(hi * SMALL_GATHER, k.n),
                           c->out[i].data, c->acc >> i & 1);
        return;
    }
    for (int64_t q = lo; q < hi; q++) {
        float *dgamma = parts + q * k.n, *dbeta = more + q * k.n;
        memset(dgamma, 0, (size_t)k.n * sizeof *dgamma);
        memset(dbeta, 0, (size_t)k.n * sizeof *dbeta);
        for (int64_t r = q * k.per; r < gated_min((q + 1) * k.per, k.rows); r++) {
            memset(sum, 0, (size_t)k.s * sizeof *sum);
            for (int64_t h = 0; h < k.n; h += k.s) {
                const char *g = (const char *)small_row(dy, r) + size * h;
                if (gated_has(dz)) f->product(g, ty, gamma + h, GEMM_F32, sum, k.s);
                if (gated_has(&c->out[1])) f->product(g, ty, small_row(z, r), tz, dgamma + h, k.s);
                if (gated_has(&c->out[2])) f->axpy(1, g, ty, dbeta + h, k.s);
            }
            if (gated_has(dz)) f->put(sum, small_row(dz, r), gemm_type(dz->d.dtype), k.s, c->acc & 1);
        }
    }
}

/* ---- shift ------------------------------------------------------------------------------------------------- */

const char *gated_shift_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 1, 1);
    if (why) return why;
    if (gated_has(&c->in[1]) && c->in[1].d.stride[1] != 1) return "documents with holes between them";
    if ((gated_has(&c->in[2]) && c->in[2].d.stride[1] != 1) || (gated_has(&c->out[1]) && c->out[1].d.stride[1] != 1))
        return "edges with holes between them";
    if (tl_desc_rows(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = gated_ceil(tl_desc_rows(&c->in[0].d), SMALL_ROWS);
    return NULL;
}

void gated_shift_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const struct shift_attr *a = ATTR(c, shift);
    const tl_arg *x = &c->in[0], *y = &c->out[0];
    const int64_t T = x->d.dim[1], rows = tl_desc_rows(&x->d), size = (int64_t)tl_dtype_bytes(x->d.dtype);
    const size_t head = (size_t)(a->channels * size), rest = (size_t)(x->d.dim[2] * size) - head;
    (void)phase, (void)worker;
    for (int64_t r = lo * SMALL_ROWS; r < gated_min(hi * SMALL_ROWS, rows); r++) {
        const int64_t b = r / T, i = r % T, later = a->inverse ? i + 1 : i, from = a->inverse ? r + 1 : r - 1;
        const int32_t *doc = gated_doc(&c->in[1], b);
        const bool there = later > 0 && later < T && (!doc || doc[later] == doc[later - 1]);
        const bool edge = i == (a->inverse ? 0 : T - 1), beyond = i == (a->inverse ? T - 1 : 0);
        char *to = small_row(y, r);
        if (there)
            memcpy(to, small_row(x, from), head);
        else if (beyond && gated_has(&c->in[2]))
            memcpy(to, small_row(&c->in[2], b), head);
        else
            memset(to, 0, head);
        memcpy(to + head, (const char *)small_row(x, r) + head, rest);
        if (edge && gated_has(&c->out[1])) memcpy(small_row(&c->out[1], b), small_row(x, r), head);
    }
}

const char *gated_shift_step_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                     kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 1, 2);
    if (why) return why;
    if (tl_desc_count(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = gated_ceil(c->in[0].d.dim[1], SMALL_COLUMNS);
    return NULL;
}

/* A tile is a slice of columns: rows of a slot follow one another. */
void gated_shift_step_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const tl_arg *x = &c->in[0], *y = &c->out[0], *state = &c->out[1];
    const int32_t *slot = c->in[1].data, *pos = c->in[2].data;
    const int tx = gemm_type(x->d.dtype), ts = gemm_type(state->d.dtype);
    const int64_t sx = (int64_t)tl_dtype_bytes(x->d.dtype), ss = (int64_t)tl_dtype_bytes(state->d.dtype);
    float before[SMALL_COLUMNS], now[SMALL_COLUMNS];
    (void)phase, (void)worker;
    for (int64_t r = 0; r < x->d.dim[0]; r++) {
        const int64_t q = slot[r * c->in[1].d.stride[0]], p = pos[r * c->in[2].d.stride[0]];
        const bool busy = q >= 0 && q < state->d.dim[0] && p >= 0;
        for (int64_t tile = lo; tile < hi; tile++) {
            const int64_t d0 = tile * SMALL_COLUMNS, d1 = gated_min(d0 + SMALL_COLUMNS, x->d.dim[1]);
            const int64_t shifted = gated_max(0, gated_min(d1, state->d.dim[2]) - d0);
            const int64_t kept = state->d.dim[1];
            char *s = busy ? (char *)small_row(state, q * kept + p % kept) + ss * d0 : NULL;
            f->scaled(1, (char *)small_row(x, r) + sx * d0, tx, now, d1 - d0);
            memcpy(before, now, sizeof before);
            memset(before, 0, (size_t)shifted * sizeof *before);
            if (busy && p > 0)
                f->scaled(1, (char *)small_row(state, q * kept + (p - 1) % kept) + ss * d0, ts, before, shifted);
            if (busy) f->put(now, s, ts, shifted, false);
            f->put(before, (char *)small_row(y, r) + sx * d0, tx, d1 - d0, false);
        }
    }
}
