/* Launchers of the operators that a signature describes: one letter an argument.
 *   r  rows (N..,D), any float dtype, the same number of rows for all
 *   v  a vector (D) f32 that all rows share      1  one f32 that all rows share
 *   s  one f32 for each row                      t  rows that `heads` consecutive rows share (RoPE's table)
 *   p  a result (D) f32 summed over rows         q  a result (1) f32 summed over rows and elements
 * Rows of element-wise operators are cut anew where everything is contiguous. */
#include "cpu/row/launch.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

enum { FLAT = 1, PIECE = 4096, TILE = 16384, MOST_CHUNKS = 32, GATHER = 256 };

typedef struct row_sign {
    const char *in, *out;
    int flags;
} row_sign;

/* How a call is cut. */
typedef struct row_cut {
    int64_t rows, d;
    bool flat;
    int64_t count; /* elements, if flat */
    int64_t tile;  /* rows */
    int partials;  /* results of kind p and q */
    int64_t chunks;
} row_cut;

static const char *row_check(const tl_arg *a, char kind) {
    if (kind == 'r') return row_type(a->d.dtype) < 0 ? "not f32, bf16 or f16" : NULL;
    if (a->d.dtype != TL_F32) return "a vector, table or statistic not in f32";
    if (kind != 't' && a->d.ndim > 0 && a->d.dim[a->d.ndim - 1] > 1 && a->d.stride[a->d.ndim - 1] != 1)
        return "a strided vector";
    return kind == 's' && !tl_desc_contiguous(&a->d) ? "strided statistics" : NULL;
}

static const char *row_cut_of(const tl_op_call *c, const row_sign *s, row_cut *k) {
    memset(k, 0, sizeof *k);
    const tl_arg *first = NULL;
    k->flat = s->flags & FLAT;
    for (int side = 0; side < 2; side++) {
        const char *kinds = side ? s->out : s->in;
        for (int i = 0; kinds[i]; i++) {
            const tl_arg *a = side ? &c->out[i] : &c->in[i];
            if (!row_has(a)) continue;
            const char *why = row_check(a, kinds[i]);
            if (why) return why;
            if (kinds[i] == 'r' && !first) first = a;
            if (kinds[i] == 'r' && !tl_desc_contiguous(&a->d)) k->flat = false;
            k->partials += kinds[i] == 'p' || kinds[i] == 'q';
        }
    }
    k->rows = tl_desc_rows(&first->d), k->d = tl_desc_last(&first->d);
    k->count = k->rows * k->d;
    if (k->count < 1) return "nothing to do";
    if (k->flat) k->rows = row_parts(k->count, PIECE), k->d = PIECE;
    k->tile = TILE / k->d < 1 ? 1 : TILE / k->d;
    if (k->partials) {
        const int64_t share = row_parts(k->rows, MOST_CHUNKS);
        if (k->tile < share) k->tile = share;
    }
    k->chunks = row_parts(k->rows, k->tile);
    return NULL;
}

static const char *row_prepare(const tl_op_call *c, const row_sign *s, kernel_exec *x) {
    row_cut k;
    const char *why = row_cut_of(c, s, &k);
    if (why) return why;
    x->phases = k.partials ? 2 : 1;
    x->tiles[0] = k.chunks;
    if (k.partials) {
        x->tiles[1] = row_parts(k.d, GATHER);
        for (int i = 0; s->out[i]; i++)
            if (s->out[i] == 'q') x->tiles[1] = 1;
        x->scratch = sizeof(float) * (size_t)(k.chunks * k.d * k.partials);
    }
    return NULL;
}

static void row_gather_all(const kernel_task *t, const row_sign *s, const row_cut *k, int64_t lo, int64_t hi) {
    const float *partial = t->scratch;
    for (int i = 0; s->out[i]; i++) {
        const tl_arg *a = &t->call->out[i];
        if ((s->out[i] != 'p' && s->out[i] != 'q') || !row_has(a)) continue;
        const bool add = t->call->acc >> i & 1;
        if (a->data && s->out[i] == 'p')
            row_gather(partial, k->chunks, k->d, lo * GATHER, row_least(hi * GATHER, k->d), a->data, add);
        if (a->data && s->out[i] == 'q') {
            float total = 0;
            for (int64_t q = 0; q < k->chunks; q++) {
                float sum = 0;
                for (int64_t e = 0; e < k->d; e++) sum += partial[q * k->d + e];
                total += sum;
            }
            *(float *)a->data = add ? *(float *)a->data + total : total;
        }
        partial += k->chunks * k->d;
    }
}

/* One call's arguments, and the leaf's job with all that does not change from row to row. */
typedef struct row_args {
    row_view in[6], out[5];
    int64_t step_in[6], step_out[5]; /* bytes to the next row of one run */
    int n_in, n_out;
    int64_t heads, run; /* rows in a run: their places differ by steps, which spares divisions to find each */
} row_args;

static void row_bind(const kernel_task *t, const row_sign *s, row_args *a, row_job *j) {
    for (a->n_in = 0; s->in[a->n_in]; a->n_in++) {
        a->in[a->n_in] = row_view_of(&t->call->in[a->n_in]);
        j->tin[a->n_in] = a->in[a->n_in].type;
        j->in[a->n_in] = a->in[a->n_in].data;
    }
    for (a->n_out = 0; s->out[a->n_out]; a->n_out++) {
        a->out[a->n_out] = row_view_of(&t->call->out[a->n_out]);
        j->tout[a->n_out] = a->out[a->n_out].type;
    }
    j->acc = t->call->acc;
}

static int64_t row_step(const row_view *v, char kind, const row_cut *k, int64_t heads, int64_t *run) {
    if (!v->data || (kind != 'r' && kind != 's' && kind != 't')) return 0;
    if (kind == 's') return sizeof(float);
    if (kind == 'r' && k->flat) return k->d * v->size;
    if (kind == 'r' && v->stride >= 0) return v->stride;
    const int inner =
        v->d->ndim - 2; /* rows do not lie at one distance: then there are at least two dimensions of them */
    const int64_t n = kind == 't' ? heads : v->d->dim[inner];
    *run = *run == INT64_MAX || *run == n ? n : 1;
    return kind == 't' ? 0 : v->d->stride[inner] * v->size;
}

static void row_steps(const row_sign *s, const row_cut *k, row_args *a) {
    a->run = INT64_MAX;
    for (int i = 0; i < a->n_in; i++) a->step_in[i] = row_step(&a->in[i], s->in[i], k, a->heads, &a->run);
    for (int i = 0; i < a->n_out; i++) a->step_out[i] = row_step(&a->out[i], s->out[i], k, a->heads, &a->run);
}

static void row_advance(const row_args *a, row_job *j) {
    for (int i = 0; i < a->n_in; i++)
        if (j->in[i]) j->in[i] = (const char *)j->in[i] + a->step_in[i];
    for (int i = 0; i < a->n_out; i++)
        if (j->out[i]) j->out[i] = (char *)j->out[i] + a->step_out[i];
}

static void row_point(const row_sign *s, const row_cut *k, const row_args *a, int64_t r, float *const *partial,
                      row_job *j) {
    for (int i = 0; i < a->n_in; i++) {
        const row_view *v = &a->in[i];
        if (s->in[i] == 'r')
            j->in[i] = k->flat && v->data ? v->data + r * k->d * v->size : row_view_at(v, r);
        else if (s->in[i] == 's')
            j->in[i] = v->data + r * (int64_t)sizeof(float);
        else if (s->in[i] == 't')
            j->in[i] = row_view_at(v, r / a->heads);
    }
    for (int i = 0; i < a->n_out; i++) {
        const row_view *v = &a->out[i];
        if (s->out[i] == 'r')
            j->out[i] = k->flat && v->data ? v->data + r * k->d * v->size : row_view_at(v, r);
        else if (s->out[i] == 's')
            j->out[i] = v->data ? v->data + r * (int64_t)sizeof(float) : NULL;
        else
            j->out[i] = v->data ? partial[i] : NULL;
    }
    j->d = k->flat ? row_least(k->d, k->count - r * k->d) : k->d;
}

static void row_run(const kernel_task *t, const row_sign *s, int phase, int64_t lo, int64_t hi, row_job *j,
                    int64_t heads) {
    row_cut k;
    row_args a;
    if (row_cut_of(t->call, s, &k)) return;
    if (phase == 1) {
        row_gather_all(t, s, &k, lo, hi);
        return;
    }
    row_leaf *leaf = (row_leaf *)t->exec->leaf;
    const uint64_t row0 = j->row;
    row_bind(t, s, &a, j);
    a.heads = heads;
    row_steps(s, &k, &a);
    for (int64_t chunk = lo; chunk < hi; chunk++) {
        float *partial[5] = {NULL}, *next = t->scratch;
        for (int i = 0; i < a.n_out; i++) {
            if ((s->out[i] != 'p' && s->out[i] != 'q') || !row_has(&t->call->out[i])) continue;
            partial[i] = next + chunk * k.d;
            memset(partial[i], 0, sizeof(float) * (size_t)k.d);
            next += k.chunks * k.d;
        }
        const int64_t first = chunk * k.tile;
        for (int64_t r = first, left = 0; r < row_least(first + k.tile, k.rows); r++, left--) {
            if (left > 0) {
                row_advance(&a, j);
                if (k.flat) j->d = row_least(k.d, k.count - r * k.d);
            } else {
                row_point(s, &k, &a, r, partial, j);
                left = a.run - r % a.run;
            }
            j->row = row0 + (uint64_t)r;
            leaf(j);
        }
    }
}

/* A row of the table: the signature, and what of the attributes the leaf wants. */
#define ROW_OP(name, ins, outs, flags, fill)                                                                           \
    static const row_sign row_sign_##name = {ins, outs, flags};                                                        \
    const char *row_##name##_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,            \
                                     kernel_exec *x) {                                                                 \
        (void)threads, (void)dry, (void)alloc;                                                                         \
        return row_prepare(c, &row_sign_##name, x);                                                                    \
    }                                                                                                                  \
    void row_##name##_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {                       \
        const tl_op_call *c = t->call;                                                                                 \
        row_job j = {0};                                                                                               \
        int64_t heads = 1;                                                                                             \
        (void)worker, (void)c;                                                                                         \
        fill;                                                                                                          \
        row_run(t, &row_sign_##name, phase, lo, hi, &j, heads);                                                        \
    }

ROW_OP(layernorm, "rvv", "rss", 0, j.f[0] = ATTR(c, layernorm)->eps)
ROW_OP(layernorm_bwd, "rrvss", "rpp", 0, )
ROW_OP(rmsnorm, "rv", "rs", 0, (j.f[0] = ATTR(c, rmsnorm)->eps, j.f[1] = ATTR(c, rmsnorm)->offset))
ROW_OP(rmsnorm_bwd, "rrvs", "rp", 0, j.f[1] = ATTR(c, rmsnorm_bwd)->offset)
ROW_OP(scalenorm, "r1", "rs", 0, j.f[0] = ATTR(c, scalenorm)->eps)
ROW_OP(scalenorm_bwd, "rr1s", "rq", 0, )
ROW_OP(act, "r", "r", FLAT, j.kind = ATTR(c, act)->kind)
ROW_OP(act_bwd, "rr", "r", FLAT, j.kind = ATTR(c, act_bwd)->kind)
ROW_OP(glu, "rr", "r", FLAT, j.kind = ATTR(c, glu)->kind)
ROW_OP(glu_bwd, "rrr", "rr", FLAT, j.kind = ATTR(c, glu_bwd)->kind)
ROW_OP(add, "rr", "r", FLAT, )
ROW_OP(mul, "rr", "r", FLAT, )
ROW_OP(scale, "r", "r", FLAT, j.f[0] = ATTR(c, scale)->by)
ROW_OP(cast, "r", "r", FLAT, )
ROW_OP(softmax, "r", "r", 0, )
ROW_OP(softmax_bwd, "rr", "r", 0, )
ROW_OP(softcap, "r", "r", FLAT, j.f[0] = ATTR(c, softcap)->cap)
ROW_OP(softcap_bwd, "rr", "r", FLAT, j.f[0] = ATTR(c, softcap_bwd)->cap)

static void row_dropout_fill(const tl_op_call *c, row_job *j) {
    const struct dropout_attr *a = ATTR(c, dropout);
    const rng_key key = rng_key_make(c->run ? c->run->seed : 0, c->run ? c->run->step : 0, (uint64_t)a->op);
    j->key[0] = key.k[0], j->key[1] = key.k[1];
    j->row = (uint64_t)(c->run ? c->run->row0 : 0);
    j->f[0] = a->p, j->f[1] = (float)(1.0 / (1.0 - (double)a->p));
}
ROW_OP(dropout, "r", "r", 0, row_dropout_fill(c, &j))

static int64_t row_rope_fill(const tl_op_call *c, row_job *j) {
    j->kind = ATTR(c, rope)->style;
    j->f[0] = (float)(tl_desc_last(&c->in[1].d) / 2);
    j->f[1] = ATTR(c, rope)->inverse ? -1.0f : 1.0f;
    return c->in[0].d.dim[c->in[0].d.ndim - 2];
}
ROW_OP(rope, "rt", "r", 0, heads = row_rope_fill(c, &j))
