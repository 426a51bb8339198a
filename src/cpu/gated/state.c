/* Launchers of chunk_state, its backward pass and its decoding form. A tile is one head of one sequence. A number per
 * head or token decays by chunks of 64: with b_i the sum of log a from the chunk's beginning to i,
 *     o_i = sum over j <= i of e^(b_i - b_j) (q_i.k_j) v_j + e^(b_i) q_i S,   S' = e^(b_n) S + sum of e^(b_n - b_j)
 * k_j^T v_j, all exponents at most 0. A vector per token walks token by token: its factors e^(-b_j) would overflow.
 * Backward: S forward for dq, its adjoint R in reverse for dk and dv. d loss / d b_i = q_i.dq_i - k_i.dk_i, and log a_t
 * is in every b_i from t on: summed in reverse. */
#include "cpu/gated/launch.h"

enum { STATE_CHUNK = 64 };
enum { DECAY_NONE, DECAY_HEAD, DECAY_TOKEN, DECAY_WIDE };

typedef struct state_job {
    const struct chunk_state_attr *a;
    gated_mat q, k, v, o, dy, dq, dk, dv, from, to, dstate; /* dy: of o; to: state, or the gradient of from */
    const tl_arg *g, *doc;
    float *dg;
    int64_t B, H, T, s, e, n; /* B: sequences times heads; n: columns of S */
    int decay;
    float scale;
    bool causal;
    int64_t worker, per_worker, total, slope, heads; /* slope: q dq - k dk of every token; heads: sums of dg */
    int64_t w_S, w_q, w_k, w_v, w_o, w_a, w_p, w_x, w_b, w_space, most, pack, deepest;
} state_job;

typedef struct state_space {
    float *S, *q, *k, *v, *o, *a, *p, *x, *b; /* x: (64, max(s, n)); b: 64 sums and their last */
    gated_space sp;
} state_space;

static gated_mat state_take(const tl_arg *a) {
    return a->data || a->d.dtype != TL_NONE ? gated_take(a) : (gated_mat){0};
}

static const char *state_open(const tl_op_call *c, bool backward, int workers, state_job *j) {
    const int at = backward ? 2 : 0;
    const char *why = gated_dtypes(c, backward ? 8 : 6, backward ? 5 : 2);
    *j = (state_job){.a = backward ? &ATTR(c, chunk_state_bwd)->f : ATTR(c, chunk_state)};
    if (why) return why;
    j->q = gated_take(&c->in[at]), j->k = gated_take(&c->in[at + 1]), j->v = gated_take(&c->in[at + 2]);
    j->g = &c->in[at + 3], j->doc = &c->in[at + 4];
    j->from = gated_take_state(&c->in[at + 5]);
    j->to = gated_take_state(&c->out[backward ? 4 : 1]);
    if (backward) {
        j->dy = gated_take(&c->in[0]), j->dstate = gated_take_state(&c->in[1]);
        j->dq = state_take(&c->out[0]), j->dk = state_take(&c->out[1]), j->dv = state_take(&c->out[2]);
        j->dg = c->out[3].data;
    } else {
        j->o = gated_take(&c->out[0]);
    }
    j->H = c->in[at].d.dim[2], j->B = c->in[at].d.dim[0] * j->H, j->T = c->in[at].d.dim[1];
    j->s = j->q.width, j->e = j->v.width, j->n = j->e + (j->a->ones ? 1 : 0);
    if (j->B * j->T < 1) return "nothing to do";
    if (gated_has(j->doc) && j->doc->d.stride[1] != 1) return "documents with holes between them";
    j->decay = !gated_has(j->g)    ? DECAY_NONE
               : j->g->d.ndim == 1 ? DECAY_HEAD
               : j->g->d.ndim == 3 ? DECAY_TOKEN
                                   : DECAY_WIDE;
    j->scale = j->a->scale != 0 ? j->a->scale : 1;
    j->causal = j->a->causal;
    int64_t w = 0, at_f = 0;
    const int64_t wide = gated_max(j->s, j->n), C = STATE_CHUNK;
    if (backward && gated_has(j->g)) {
        j->slope = at_f, at_f += linear_up(j->B * j->T * (j->decay == DECAY_WIDE ? j->s : 1), 16);
        j->heads = at_f, at_f += linear_up(j->B, 16);
    }
    j->w_S = w, w += linear_up(j->s * j->n, 16);
    j->w_q = w, w += linear_up(C * j->s, 16);
    j->w_k = w, w += linear_up(C * j->s, 16);
    j->w_v = w, w += linear_up(C * j->n, 16);
    j->w_o = w, w += linear_up(C * j->n, 16);
    j->w_a = w, w += C * C;
    j->w_p = w, w += C * C;
    j->w_x = w, w += linear_up(C * wide, 16);
    j->w_b = w, w += gated_max(2 * C, linear_up(j->s, 16)) + 16;
    j->most = gated_max(C, linear_up(j->s, 16));
    j->deepest = gated_max(wide, C);
    j->pack = j->most * j->deepest;
    j->w_space = w, w += gated_space_floats(j->most, j->pack, j->deepest);
    j->per_worker = linear_up(w, 16);
    j->worker = at_f;
    j->total = at_f + workers * j->per_worker;
    return NULL;
}

static state_space state_space_at(const state_job *j, float *scratch, int worker) {
    float *w = scratch + j->worker + worker * j->per_worker;
    return (state_space){
        w + j->w_S, w + j->w_q, w + j->w_k, w + j->w_v, w + j->w_o,
        w + j->w_a, w + j->w_p, w + j->w_x, w + j->w_b, gated_space_at(w + j->w_space, j->most, j->pack, j->deepest)};
}

/* ---- pieces ---- */

static float state_log(const state_job *j, float x) {
    return j->a->tau > 0 ? (fminf(x, 0) - log1pf(expf(-fabsf(x)))) / j->a->tau : x;
}
static float state_slope_of(const state_job *j, float x) {
    return j->a->tau > 0 ? 1 / (1 + expf(x)) / j->a->tau : 1;
}
/* The number (wide: s of them) that log a of token t is made of. */
static const float *state_logit(const state_job *j, int64_t b, int64_t t) {
    const tl_arg *g = j->g;
    const float *x = g->data;
    const int64_t h = b % j->H;
    if (j->decay == DECAY_HEAD) return x + h * g->d.stride[0];
    return x + b / j->H * g->d.stride[0] + t * g->d.stride[1] + h * g->d.stride[2];
}

/* Rows [t, t + m) in f32, n apart. */
static void state_load(const gated_leaf *f, const gated_mat *x, int64_t b, int64_t t, int64_t m, float *to, int64_t n) {
    for (int64_t i = 0; i < m; i++) {
        f->scaled(1, gated_at(x, b, t + i), x->type, to + i * n, x->width);
        if (n > x->width) to[i * n + n - 1] = 1; /* the column of ones */
    }
}
static void state_store(const gated_leaf *f, const float *from, int64_t n, const gated_mat *x, int64_t b, int64_t t,
                        int64_t m) {
    for (int64_t i = 0; i < m && x->p; i++) f->put(from + i * n, gated_at(x, b, t + i), x->type, x->width, false);
}

/* S before the first token of a run. */
static void state_begin(const state_job *j, const gated_mat *from, bool carried, int64_t b, float *S) {
    for (int64_t k = 0; k < j->s; k++)
        if (carried && from->p)
            memcpy(S + k * j->n, gated_at(from, b, k), (size_t)j->n * sizeof *S);
        else
            memset(S + k * j->n, 0, (size_t)j->n * sizeof *S);
}

/* b_i of a chunk's tokens: w->b[i]. */
static void state_sums(const state_job *j, int64_t b, int64_t t, int64_t m, float *sum) {
    double all = 0;
    for (int64_t i = 0; i < m; i++) {
        if (j->decay) all += (double)state_log(j, *state_logit(j, b, t + i));
        sum[i] = (float)all;
    }
}

/* a_ij = scale e^(b_i - b_j) a_ij, zero for j > i. */
static void state_mask(const state_job *j, const float *sum, int64_t m, float *a) {
    float power[STATE_CHUNK];
    if (j->decay == DECAY_HEAD)
        for (int64_t i = 0; i < m; i++) power[i] = expf(sum[i] - sum[0]);
    for (int64_t i = 0; i < m; i++) {
        float *row = a + i * STATE_CHUNK;
        for (int64_t l = 0; l <= i; l++) {
            float by = j->scale;
            if (j->decay == DECAY_HEAD) by *= power[i - l];
            if (j->decay == DECAY_TOKEN) by *= expf(sum[i] - sum[l]);
            row[l] *= by;
        }
        memset(row + i + 1, 0, (size_t)(m - i - 1) * sizeof *row);
    }
}

/* x_i = by e^(sign) rows: up: e^(b_i); else e^(b_m - b_i) */
static void state_fade(const gated_leaf *f, const float *sum, int64_t m, bool up, float by, const float *x, int64_t n,
                       float *to) {
    for (int64_t i = 0; i < m; i++)
        f->scaled(by * expf(up ? sum[i] : sum[m - 1] - sum[i]), x + i * n, GEMM_F32, to + i * n, n);
}

/* S = e^(b_m) S + x^T y of m rows */
static void state_fold(const state_job *j, const gated_leaf *f, const state_space *w, int64_t m, const float *x,
                       const float *y, float decay, float *S) {
    if (decay != 1) f->scaled(decay, S, GEMM_F32, S, j->s * j->n);
    gated_product(f, &w->sp, j->s, j->n, m, gated_turned(x, GEMM_F32, j->s), gated_rows(y, GEMM_F32, j->n), S, j->n,
                  true);
}

/* ---- forward ---- */

static void state_forward_chunk(const state_job *j, const gated_leaf *f, const state_space *w, int64_t b, int64_t t,
                                int64_t m) {
    state_load(f, &j->q, b, t, m, w->q, j->s);
    state_load(f, &j->k, b, t, m, w->k, j->s);
    state_load(f, &j->v, b, t, m, w->v, j->n);
    if (j->decay == DECAY_WIDE) {
        for (int64_t i = 0; i < m; i++) {
            const float *g = state_logit(j, b, t + i);
            float *o = w->o + i * j->n;
            memset(o, 0, (size_t)j->n * sizeof *o);
            for (int64_t k = 0; k < j->s; k++) {
                float *S = w->S + k * j->n;
                f->scaled(expf(state_log(j, g[k])), S, GEMM_F32, S, j->n);
                f->axpy(w->k[i * j->s + k], w->v + i * j->n, GEMM_F32, S, j->n);
                f->axpy(j->scale * w->q[i * j->s + k], S, GEMM_F32, o, j->n);
            }
        }
        state_store(f, w->o, j->n, &j->o, b, t, m);
        return;
    }
    state_sums(j, b, t, m, w->b);
    gated_product(f, &w->sp, m, m, j->s, gated_rows(w->q, GEMM_F32, j->s), gated_turned(w->k, GEMM_F32, j->s), w->a,
                  STATE_CHUNK, false);
    state_mask(j, w->b, m, w->a);
    gated_product(f, &w->sp, m, j->n, m, gated_rows(w->a, GEMM_F32, STATE_CHUNK), gated_rows(w->v, GEMM_F32, j->n),
                  w->o, j->n, false);
    state_fade(f, w->b, m, true, j->scale, w->q, j->s, w->x);
    gated_product(f, &w->sp, m, j->n, j->s, gated_rows(w->x, GEMM_F32, j->s), gated_rows(w->S, GEMM_F32, j->n), w->o,
                  j->n, true);
    state_store(f, w->o, j->n, &j->o, b, t, m);
    state_fade(f, w->b, m, false, 1, w->k, j->s, w->x);
    state_fold(j, f, w, m, w->x, w->v, expf(w->b[m - 1]), w->S);
}

/* o = scale x S, or dq = scale dO S^T: rows of a run that sees both sides. */
static void state_both_ways(const state_job *j, const gated_leaf *f, const state_space *w, int64_t b, int64_t first,
                            int64_t last) {
    state_begin(j, NULL, false, b, w->S);
    for (int64_t t = first; t < last; t += STATE_CHUNK) {
        const int64_t m = gated_min(STATE_CHUNK, last - t);
        state_load(f, &j->k, b, t, m, w->k, j->s);
        state_load(f, &j->v, b, t, m, w->v, j->n);
        state_fold(j, f, w, m, w->k, w->v, 1, w->S);
    }
    for (int64_t t = first; t < last; t += STATE_CHUNK) {
        const int64_t m = gated_min(STATE_CHUNK, last - t);
        if (j->o.p) {
            state_load(f, &j->q, b, t, m, w->q, j->s);
            f->scaled(j->scale, w->q, GEMM_F32, w->q, m * j->s);
            gated_product(f, &w->sp, m, j->n, j->s, gated_rows(w->q, GEMM_F32, j->s), gated_rows(w->S, GEMM_F32, j->n),
                          w->o, j->n, false);
            state_store(f, w->o, j->n, &j->o, b, t, m);
            continue;
        }
        state_load(f, &j->dy, b, t, m, w->o, j->n);
        gated_product(f, &w->sp, m, j->s, j->n, gated_rows(w->o, GEMM_F32, j->n), gated_turned(w->S, GEMM_F32, j->n),
                      w->x, j->s, false);
        f->scaled(j->scale, w->x, GEMM_F32, w->x, m * j->s);
        state_store(f, w->x, j->s, &j->dq, b, t, m);
    }
    if (j->o.p) return;
    state_begin(j, NULL, false, b, w->S); /* now R */
    for (int64_t t = first; t < last; t += STATE_CHUNK) {
        const int64_t m = gated_min(STATE_CHUNK, last - t);
        state_load(f, &j->q, b, t, m, w->q, j->s);
        f->scaled(j->scale, w->q, GEMM_F32, w->q, m * j->s);
        state_load(f, &j->dy, b, t, m, w->o, j->n);
        state_fold(j, f, w, m, w->q, w->o, 1, w->S);
    }
    for (int64_t t = first; t < last; t += STATE_CHUNK) {
        const int64_t m = gated_min(STATE_CHUNK, last - t);
        state_load(f, &j->k, b, t, m, w->k, j->s);
        state_load(f, &j->v, b, t, m, w->v, j->n);
        gated_product(f, &w->sp, m, j->s, j->n, gated_rows(w->v, GEMM_F32, j->n), gated_turned(w->S, GEMM_F32, j->n),
                      w->x, j->s, false);
        state_store(f, w->x, j->s, &j->dk, b, t, m);
        gated_product(f, &w->sp, m, j->n, j->s, gated_rows(w->k, GEMM_F32, j->s), gated_rows(w->S, GEMM_F32, j->n),
                      w->o, j->n, false);
        state_store(f, w->o, j->n, &j->dv, b, t, m);
    }
}

static void state_zero(const gated_mat *x, int64_t b, int64_t t) {
    if (x->p) memset(gated_at(x, b, t), 0, (size_t)(x->width * x->size));
}

static void state_forward(const state_job *j, const gated_leaf *f, const state_space *w, int64_t b) {
    int64_t first, last;
    state_begin(j, &j->from, true, b, w->S);
    for (int64_t t = 0; t < j->T; t = gated_max(last, t + 1)) {
        gated_run(gated_doc(j->doc, b / j->H), j->T, t, &first, &last);
        if (first == last) state_zero(&j->o, b, t);
        if (first == last) continue;
        if (!j->causal) {
            state_both_ways(j, f, w, b, first, last);
            continue;
        }
        state_begin(j, &j->from, first == 0, b, w->S);
        for (int64_t i = first; i < last; i += STATE_CHUNK)
            state_forward_chunk(j, f, w, b, i, gated_min(STATE_CHUNK, last - i));
    }
    for (int64_t k = 0; k < j->s && j->to.p; k++)
        memcpy(gated_at(&j->to, b, k), w->S + k * j->n, (size_t)j->n * sizeof *w->S);
}

const char *gated_state_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    state_job j;
    (void)dry, (void)alloc;
    const char *why = state_open(c, false, threads, &j);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = j.B;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

void gated_state_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    state_job j;
    (void)phase;
    (void)state_open(t->call, false, t->workers, &j);
    const state_space w = state_space_at(&j, t->scratch, worker);
    for (int64_t b = lo; b < hi; b++) state_forward(&j, gated_leaf_of(t->exec), &w, b);
}

/* ---- backward ---- */

/* Products of a chunk's tokens: a (with its factors) of q.k, p of dO.v. */
static void state_pairs(const state_job *j, const gated_leaf *f, const state_space *w, int64_t m) {
    gated_product(f, &w->sp, m, m, j->n, gated_rows(w->o, GEMM_F32, j->n), gated_turned(w->v, GEMM_F32, j->n), w->p,
                  STATE_CHUNK, false);
    state_mask(j, w->b, m, w->p);
}

static void state_load_all(const state_job *j, const gated_leaf *f, const state_space *w, int64_t b, int64_t t,
                           int64_t m) {
    state_load(f, &j->q, b, t, m, w->q, j->s);
    state_load(f, &j->k, b, t, m, w->k, j->s);
    state_load(f, &j->v, b, t, m, w->v, j->n);
    state_load(f, &j->dy, b, t, m, w->o, j->n);
    if (j->decay != DECAY_WIDE) state_sums(j, b, t, m, w->b);
}

/* slope[t] [+ or -]= x.dx of m rows; wide: number by number */
static void state_slope_add(const state_job *j, const gated_leaf *f, float *slope, int64_t m, const float *x,
                            const float *dx, bool second) {
    if (!slope) return;
    for (int64_t i = 0; i < m * j->s && j->decay == DECAY_WIDE; i++)
        slope[i] = second ? slope[i] - x[i] * dx[i] : x[i] * dx[i];
    for (int64_t i = 0; i < m && j->decay != DECAY_WIDE; i++) {
        const float sum = f->dot(x + i * j->s, GEMM_F32, dx + i * j->s, GEMM_F32, j->s);
        slope[i] = second ? slope[i] - sum : sum;
    }
}

/* dq of a chunk; S moves on. */
static void state_first_chunk(const state_job *j, const gated_leaf *f, const state_space *w, int64_t b, int64_t t,
                              int64_t m, float *slope) {
    state_load_all(j, f, w, b, t, m);
    if (j->decay == DECAY_WIDE) {
        for (int64_t i = 0; i < m; i++) {
            const float *g = state_logit(j, b, t + i);
            for (int64_t k = 0; k < j->s; k++) {
                float *S = w->S + k * j->n;
                f->scaled(expf(state_log(j, g[k])), S, GEMM_F32, S, j->n);
                f->axpy(w->k[i * j->s + k], w->v + i * j->n, GEMM_F32, S, j->n);
                w->x[i * j->s + k] = j->scale * f->dot(S, GEMM_F32, w->o + i * j->n, GEMM_F32, j->n);
            }
        }
    } else {
        gated_product(f, &w->sp, m, j->s, j->n, gated_rows(w->o, GEMM_F32, j->n), gated_turned(w->S, GEMM_F32, j->n),
                      w->x, j->s, false);
        state_fade(f, w->b, m, true, j->scale, w->x, j->s, w->x);
        state_pairs(j, f, w, m);
        gated_product(f, &w->sp, m, j->s, m, gated_rows(w->p, GEMM_F32, STATE_CHUNK), gated_rows(w->k, GEMM_F32, j->s),
                      w->x, j->s, true);
    }
    state_store(f, w->x, j->s, &j->dq, b, t, m);
    state_slope_add(j, f, slope, m, w->q, w->x, false);
    if (j->decay == DECAY_WIDE) return;
    state_fade(f, w->b, m, false, 1, w->k, j->s, w->k);
    state_fold(j, f, w, m, w->k, w->v, expf(w->b[m - 1]), w->S);
}

/* dk and dv of a chunk, token by token; dv goes where q was. */
static void state_second_tokens(const state_job *j, const gated_leaf *f, const state_space *w, int64_t b, int64_t t,
                                int64_t m) {
    float *R = w->S, *dv = w->b;
    for (int64_t i = m - 1; i >= 0; i--) {
        const float *g = state_logit(j, b, t + i);
        for (int64_t k = 0; k < j->s; k++) {
            f->axpy(j->scale * w->q[i * j->s + k], w->o + i * j->n, GEMM_F32, R + k * j->n, j->n);
            w->x[i * j->s + k] = f->dot(R + k * j->n, GEMM_F32, w->v + i * j->n, GEMM_F32, j->n);
        }
        for (int64_t d0 = 0; d0 < j->e && j->dv.p; d0 += STATE_CHUNK) {
            const int64_t n = gated_min(STATE_CHUNK, j->e - d0);
            memset(dv, 0, (size_t)n * sizeof *dv);
            for (int64_t k = 0; k < j->s; k++) f->axpy(w->k[i * j->s + k], R + k * j->n + d0, GEMM_F32, dv, n);
            f->put(dv, gated_at(&j->dv, b, t + i) + j->dv.size * d0, j->dv.type, n, false);
        }
        for (int64_t k = 0; k < j->s; k++)
            f->scaled(expf(state_log(j, g[k])), R + k * j->n, GEMM_F32, R + k * j->n, j->n);
    }
}

static void state_second_chunk(const state_job *j, const gated_leaf *f, const state_space *w, int64_t b, int64_t t,
                               int64_t m, float *slope) {
    state_load_all(j, f, w, b, t, m);
    if (j->decay == DECAY_WIDE) {
        state_second_tokens(j, f, w, b, t, m);
        state_store(f, w->x, j->s, &j->dk, b, t, m);
        state_slope_add(j, f, slope, m, w->k, w->x, true);
        return;
    }
    gated_product(f, &w->sp, m, j->s, j->n, gated_rows(w->v, GEMM_F32, j->n), gated_turned(w->S, GEMM_F32, j->n), w->x,
                  j->s, false);
    state_fade(f, w->b, m, false, 1, w->x, j->s, w->x);
    state_pairs(j, f, w, m);
    gated_product(f, &w->sp, m, j->s, m, gated_turned(w->p, GEMM_F32, STATE_CHUNK), gated_rows(w->q, GEMM_F32, j->s),
                  w->x, j->s, true);
    state_store(f, w->x, j->s, &j->dk, b, t, m);
    state_slope_add(j, f, slope, m, w->k, w->x, true);
    gated_product(f, &w->sp, m, m, j->s, gated_rows(w->q, GEMM_F32, j->s), gated_turned(w->k, GEMM_F32, j->s), w->a,
                  STATE_CHUNK, false);
    state_mask(j, w->b, m, w->a);
    state_fade(f, w->b, m, true, j->scale, w->q, j->s, w->x); /* for R, before q and k are overwritten */
    state_fade(f, w->b, m, false, 1, w->k, j->s, w->k);
    gated_product(f, &w->sp, m, j->n, m, gated_turned(w->a, GEMM_F32, STATE_CHUNK), gated_rows(w->o, GEMM_F32, j->n),
                  w->v, j->n, false);
    gated_product(f, &w->sp, m, j->n, j->s, gated_rows(w->k, GEMM_F32, j->s), gated_rows(w->S, GEMM_F32, j->n), w->v,
                  j->n, true);
    state_store(f, w->v, j->n, &j->dv, b, t, m);
    state_fold(j, f, w, m, w->x, w->o, expf(w->b[m - 1]), w->S);
}

/* Sums of the slopes from the run's end: what every log a changes. acc: what the state at the end gives already. */
static float state_gradient(const state_job *j, int64_t b, int64_t first, int64_t last, const float *slope,
                            float *acc) {
    const int64_t n = j->decay == DECAY_WIDE ? j->s : 1;
    double all = 0;
    for (int64_t t = last - 1; t >= first; t--)
        for (int64_t k = 0; k < n; k++) {
            acc[k] += slope[t * n + k];
            const float x = acc[k] * state_slope_of(j, state_logit(j, b, t)[k]);
            all += (double)x;
            if (j->decay != DECAY_HEAD) j->dg[((b / j->H * j->T + t) * j->H + b % j->H) * n + k] = x;
        }
    return (float)all;
}

static void state_hidden(const state_job *j, int64_t b, int64_t t) {
    const int64_t n = j->decay == DECAY_WIDE ? j->s : 1;
    state_zero(&j->dq, b, t), state_zero(&j->dk, b, t), state_zero(&j->dv, b, t);
    for (int64_t k = 0; k < n && j->dg && j->decay > DECAY_HEAD; k++)
        j->dg[((b / j->H * j->T + t) * j->H + b % j->H) * n + k] = 0;
}

static void state_backward_run(const state_job *j, const gated_leaf *f, const state_space *w, float *scratch, int64_t b,
                               int64_t first, int64_t last, bool end) {
    const int64_t n = j->decay == DECAY_WIDE ? j->s : 1, C = STATE_CHUNK;
    float *slope = j->dg ? scratch + j->slope + b * j->T * n : NULL, acc[1024];
    state_begin(j, &j->from, first == 0, b, w->S);
    for (int64_t t = first; t < last; t += C)
        state_first_chunk(j, f, w, b, t, gated_min(C, last - t), slope ? slope + t * n : NULL);
    for (int64_t k = 0; k < n && slope; k++) acc[k] = 0;
    for (int64_t k = 0; k < j->s && slope && end && j->dstate.p; k++)
        acc[n > 1 ? k : 0] += f->dot(w->S + k * j->n, GEMM_F32, gated_at(&j->dstate, b, k), GEMM_F32, j->n);
    state_begin(j, &j->dstate, end, b, w->S); /* now R */
    for (int64_t t = first + (last - 1 - first) / C * C; t >= first; t -= C)
        state_second_chunk(j, f, w, b, t, gated_min(C, last - t), slope ? slope + t * n : NULL);
    if (slope) scratch[j->heads + b] += state_gradient(j, b, first, last, slope, acc);
}

static void state_backward(const state_job *j, const gated_leaf *f, const state_space *w, float *scratch, int64_t b) {
    const int32_t *doc = gated_doc(j->doc, b / j->H);
    int64_t first = 0, last = 0, end = j->T;
    while (doc && end > 0 && doc[end - 1] < 0) end--;
    if (j->dg) scratch[j->heads + b] = 0;
    /* runs from the end, so that what is left in S at last is the gradient of what came in */
    state_begin(j, &j->dstate, end == 0, b, w->S);
    for (int64_t t = j->T - 1; t >= 0; t = first == last ? t - 1 : first - 1) {
        gated_run(doc, j->T, t, &first, &last);
        if (first == last)
            state_hidden(j, b, t);
        else if (j->causal)
            state_backward_run(j, f, w, scratch, b, first, last, last == end);
        else
            state_both_ways(j, f, w, b, first, last);
    }
    if (!j->to.p) return;
    if (end > 0 && doc && doc[0] < 0) state_begin(j, NULL, false, b, w->S);
    for (int64_t k = 0; k < j->s; k++) memcpy(gated_at(&j->to, b, k), w->S + k * j->n, (size_t)j->n * sizeof *w->S);
}

const char *gated_state_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                    kernel_exec *x) {
    state_job j;
    (void)dry, (void)alloc;
    const char *why = state_open(c, true, threads, &j);
    if (why) return why;
    if (c->out[3].data && !tl_desc_contiguous(&c->out[3].d)) return "a gradient of decays with holes";
    x->phases = 2;
    x->tiles[0] = j.B;
    x->tiles[1] = c->out[3].d.dtype != TL_NONE && j.decay == DECAY_HEAD ? 1 : 0;
    x->scratch = sizeof(float) * (size_t)j.total;
    return NULL;
}

void gated_state_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    state_job j;
    (void)state_open(t->call, true, t->workers, &j);
    float *scratch = t->scratch;
    const state_space w = state_space_at(&j, scratch, worker);
    for (int64_t b = lo; b < hi && phase == 0; b++) state_backward(&j, gated_leaf_of(t->exec), &w, scratch, b);
    for (int64_t h = 0; h < j.H && phase == 1 && j.dg; h++) {
        float sum = 0;
        for (int64_t b = h; b < j.B; b += j.H) sum += scratch[j.heads + b];
        j.dg[h] = sum;
    }
}

/* ---- decoding ---- */

const char *gated_state_step_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                     kernel_exec *x) {
    (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 6, 2);
    if (why) return why;
    if (c->in[0].d.dim[0] < 1) return "nothing to do";
    if (gated_has(&c->in[3]) && c->in[3].d.stride[c->in[3].d.ndim - 1] != 1) return "decays with holes";
    x->phases = 1;
    x->tiles[0] = c->in[0].d.dim[1];
    x->scratch = sizeof(float) * (size_t)threads * (size_t)linear_up(2 * tl_desc_last(&c->out[1].d), 16);
    return NULL;
}

/* One head: its rows in order. */
void gated_state_step_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const gated_mat q = gated_take(&c->in[0]), k = gated_take(&c->in[1]), v = gated_take(&c->in[2]);
    const gated_mat o = gated_take(&c->out[0]), S = gated_take_state(&c->out[1]);
    const tl_arg *g = &c->in[3];
    const int64_t H = c->in[0].d.dim[1], s = q.width, n = tl_desc_last(&c->out[1].d);
    state_job j = {.a = &ATTR(c, chunk_state_step)->f};
    float *row = (float *)t->scratch + worker * linear_up(2 * n, 16), *sum = row + n, x[2 * 1024];
    const float scale = j.a->scale != 0 ? j.a->scale : 1;
    (void)phase;
    for (int64_t h = lo; h < hi; h++)
        for (int64_t r = 0; r < c->in[0].d.dim[0]; r++) {
            const int32_t slot = ((const int32_t *)c->in[4].data)[r * c->in[4].d.stride[0]];
            const int32_t pos = ((const int32_t *)c->in[5].data)[r * c->in[5].d.stride[0]];
            const bool busy = slot >= 0 && slot < c->out[1].d.dim[0] && pos >= 0;
            memset(sum, 0, (size_t)n * sizeof *sum);
            if (busy) {
                const float *at = g->data;
                if (at) at += g->d.ndim == 1 ? h : r * g->d.stride[0] + h * g->d.stride[1];
                state_load(f, &v, r, h, 1, row, n);
                f->scaled(scale, gated_at(&q, r, h), q.type, x, s);
                f->scaled(1, gated_at(&k, r, h), k.type, x + s, s);
                for (int64_t i = 0; i < s; i++) {
                    float *M = (float *)(void *)gated_at(&S, slot * H + h, i);
                    if (pos == 0)
                        memset(M, 0, (size_t)n * sizeof *M);
                    else if (at)
                        f->scaled(expf(state_log(&j, at[g->d.ndim == 3 ? i : 0])), M, GEMM_F32, M, n);
                    f->axpy(x[s + i], row, GEMM_F32, M, n);
                    f->axpy(x[i], M, GEMM_F32, sum, n);
                }
            }
            f->put(sum, gated_at(&o, r, h), o.type, n, false);
        }
}
