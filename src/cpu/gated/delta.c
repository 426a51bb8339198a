/* Launchers of delta_rule, its backward pass and its decoding form. A tile is one head of one sequence, by chunks
 * of 64. With c_i the sum of log a from the chunk's beginning to i, G_ij = e^(c_i - c_j) and S the state before the
 * chunk, the corrections u of its tokens are the solution of a unit lower triangular system, row after row: err_i = v_i
 * - e^(c_i) k_i S - sum over j < i of G_ij (k_i.k_j) u_j,   u_i = b_i err_i, o_i = scale (e^(c_i) q_i S + sum over j <=
 * i of G_ij (q_i.k_j) u_j),  S' = e^(c_m) S + sum of e^(c_m - c_j) k_j^T u_j. All exponents are at most 0. Backward: S
 * before every chunk is kept (s e numbers for 64 tokens); the adjoint of the system is solved from the last row up, the
 * adjoint R of S goes from the end to the beginning. */
#include "cpu/gated/launch.h"

enum { DELTA_CHUNK = 64, DELTA_BLOCK = 16 };

typedef struct delta_job {
    const struct delta_rule_attr *a;
    gated_mat q, k, v, o, dy, dq, dk, dv, from, to, dstate; /* to: state, or the gradient of from */
    const tl_arg *g, *beta, *doc;
    float *dg, *dbeta;
    int64_t B, H, T, s, e; /* B: sequences times heads */
    float scale;
    int64_t per_worker, w_S, w_kept, w_rows, wide, most, deepest;
} delta_job;

/* Rows of a chunk: each (64, wide) but S (s,e) and the squares (64,64). */
typedef struct delta_space {
    float *S, *kept, *q, *k, *v, *u, *o, *du, *x, *xk; /* v: err; kept: S before every chunk and behind the last */
    float *decay, *kk, *p, *w; /* squares: G, -G k.k below the diagonal, scale G q.k, their gradients */
    float c[DELTA_CHUNK], beta[DELTA_CHUNK], up[DELTA_CHUNK], down[DELTA_CHUNK]; /* up: e^(c_i), down: e^(c_m - c_i) */
    gated_space sp;
} delta_space;

static const char *delta_open(const tl_op_call *c, bool backward, delta_job *j) {
    const int at = backward ? 2 : 0;
    const char *why = gated_dtypes(c, backward ? 9 : 7, backward ? 6 : 2);
    *j = (delta_job){.a = backward ? &ATTR(c, delta_rule_bwd)->f : ATTR(c, delta_rule)};
    if (why) return why;
    j->q = gated_take(&c->in[at]), j->k = gated_take(&c->in[at + 1]), j->v = gated_take(&c->in[at + 2]);
    j->g = &c->in[at + 3], j->doc = &c->in[at + 4], j->beta = &c->in[at + 6];
    j->from = gated_take_state(&c->in[at + 5]);
    j->to = gated_take_state(&c->out[backward ? 4 : 1]);
    if (backward) {
        j->dy = gated_take(&c->in[0]), j->dstate = gated_take_state(&c->in[1]);
        j->dq = gated_take(&c->out[0]), j->dk = gated_take(&c->out[1]), j->dv = gated_take(&c->out[2]);
        j->dg = c->out[3].data, j->dbeta = c->out[5].data;
        for (int k = 3; k < 6; k += 2)
            if (gated_has(&c->out[k]) && !tl_desc_contiguous(&c->out[k].d)) return "gradients of decays with holes";
    } else {
        j->o = gated_take(&c->out[0]);
    }
    j->H = c->in[at].d.dim[2], j->B = c->in[at].d.dim[0] * j->H, j->T = c->in[at].d.dim[1];
    j->s = j->q.width, j->e = j->v.width;
    if (j->B * j->T < 1) return "nothing to do";
    if (gated_has(j->doc) && j->doc->d.stride[1] != 1) return "documents with holes between them";
    j->scale = j->a->scale != 0 ? j->a->scale : 1;
    const int64_t chunks = backward ? gated_ceil(j->T, DELTA_CHUNK) + 1 : 0;
    j->wide = linear_up(gated_max(j->s, j->e), 16);
    j->most = gated_max(DELTA_CHUNK, linear_up(j->s, 16));
    j->deepest = gated_max(j->wide, DELTA_CHUNK);
    j->w_S = linear_up(j->s * j->e, 16);
    j->w_kept = chunks * j->w_S;
    j->w_rows = 8 * DELTA_CHUNK * j->wide + 4 * DELTA_CHUNK * DELTA_CHUNK;
    j->per_worker =
        linear_up(j->w_S + j->w_kept + j->w_rows + gated_space_floats(j->most, j->most * j->deepest, j->deepest), 16);
    return NULL;
}

static delta_space delta_space_at(const delta_job *j, float *scratch, int worker) {
    const int64_t rows = DELTA_CHUNK * j->wide, square = DELTA_CHUNK * DELTA_CHUNK;
    float *w = scratch + worker * j->per_worker, *r = w + j->w_S + j->w_kept, *m = r + 8 * rows;
    return (delta_space){.S = w,
                         .kept = w + j->w_S,
                         .q = r,
                         .k = r + rows,
                         .v = r + 2 * rows,
                         .u = r + 3 * rows,
                         .o = r + 4 * rows,
                         .du = r + 5 * rows,
                         .x = r + 6 * rows,
                         .xk = r + 7 * rows,
                         .decay = m,
                         .kk = m + square,
                         .p = m + 2 * square,
                         .w = m + 3 * square,
                         .sp = gated_space_at(m + 4 * square, j->most, j->most * j->deepest, j->deepest)};
}

/* ---- pieces ---- */

static float delta_log(const struct delta_rule_attr *a, float x) {
    return a->tau > 0 ? (fminf(x, 0) - log1pf(expf(-fabsf(x)))) / a->tau : x;
}
static float delta_slope(const struct delta_rule_attr *a, float x) {
    return a->tau > 0 ? 1 / (1 + expf(x)) / a->tau : 1;
}
/* A number of token t of head b: of g or beta, (B,T,H). */
static float delta_number(const delta_job *j, const tl_arg *x, int64_t b, int64_t t) {
    return ((const float *)x->data)[b / j->H * x->d.stride[0] + t * x->d.stride[1] + b % j->H * x->d.stride[2]];
}
static int64_t delta_at(const delta_job *j, int64_t b, int64_t t) {
    return (b / j->H * j->T + t) * j->H + b % j->H;
}

static void delta_load(const gated_leaf *f, const gated_mat *x, int64_t b, int64_t t, int64_t m, float *to) {
    for (int64_t i = 0; i < m; i++) f->scaled(1, gated_at(x, b, t + i), x->type, to + i * x->width, x->width);
}
static void delta_store(const gated_leaf *f, const float *from, const gated_mat *x, int64_t b, int64_t t, int64_t m) {
    for (int64_t i = 0; i < m && x->p; i++)
        f->put(from + i * x->width, gated_at(x, b, t + i), x->type, x->width, false);
}
static void delta_zero(const gated_mat *x, int64_t b, int64_t t) {
    if (x->p) memset(gated_at(x, b, t), 0, (size_t)(x->width * x->size));
}
/* S from a state of the call, or zeros. */
static void delta_begin(const delta_job *j, const gated_mat *from, int64_t b, float *S) {
    for (int64_t k = 0; k < j->s; k++)
        if (from && from->p)
            memcpy(S + k * j->e, gated_at(from, b, k), (size_t)j->e * sizeof *S);
        else
            memset(S + k * j->e, 0, (size_t)j->e * sizeof *S);
}
static void delta_end(const delta_job *j, int64_t b, const float *S) {
    for (int64_t k = 0; k < j->s && j->to.p; k++)
        memcpy(gated_at(&j->to, b, k), S + k * j->e, (size_t)j->e * sizeof *S);
}

/* to_i = by_i x_i of m rows of n */
static void delta_fade(const gated_leaf *f, const float *by, float sign, int64_t m, const float *x, int64_t n,
                       float *to) {
    for (int64_t i = 0; i < m; i++) f->scaled(sign * by[i], x + i * n, GEMM_F32, to + i * n, n);
}

/* q, k, v, dO of a chunk; its betas and decays. */
static void delta_open_chunk(const delta_job *j, const gated_leaf *f, delta_space *w, int64_t b, int64_t t, int64_t m) {
    double all = 0;
    delta_load(f, &j->q, b, t, m, w->q);
    delta_load(f, &j->k, b, t, m, w->k);
    delta_load(f, &j->v, b, t, m, w->v);
    if (j->dy.p) delta_load(f, &j->dy, b, t, m, w->o);
    for (int64_t i = 0; i < m; i++) {
        if (gated_has(j->g)) all += (double)delta_log(j->a, delta_number(j, j->g, b, t + i));
        w->c[i] = (float)all;
        w->beta[i] = delta_number(j, j->beta, b, t + i);
    }
    for (int64_t i = 0; i < m; i++) {
        w->up[i] = expf(w->c[i]), w->down[i] = expf(w->c[m - 1] - w->c[i]);
        for (int64_t l = 0; l <= i && gated_has(j->g); l++) w->decay[i * DELTA_CHUNK + l] = expf(w->c[i] - w->c[l]);
    }
}

/* x (64,64) = by G x on and below the diagonal (strict: below alone), zero elsewhere. */
static void delta_mask(const delta_job *j, const delta_space *w, int64_t m, float by, bool strict, float *x) {
    for (int64_t i = 0; i < m; i++) {
        float *row = x + i * DELTA_CHUNK;
        const int64_t n = strict ? i : i + 1;
        for (int64_t l = 0; l < n; l++) row[l] *= gated_has(j->g) ? by * w->decay[i * DELTA_CHUNK + l] : by;
        memset(row + n, 0, (size_t)(m - n) * sizeof *row);
    }
}

static void delta_square(const gated_leaf *f, const delta_space *w, int64_t m, const float *x, const float *y,
                         int64_t width, float *to) {
    gated_product(f, &w->sp, m, m, width, gated_rows(x, GEMM_F32, width), gated_turned(y, GEMM_F32, width), to,
                  DELTA_CHUNK, false);
}

/* err (in v) and u of a chunk: forward substitution by blocks of rows. */
static void delta_solve(const delta_job *j, const gated_leaf *f, const delta_space *w, int64_t m) {
    const int64_t e = j->e, s = j->s;
    delta_square(f, w, m, w->k, w->k, s, w->kk);
    delta_mask(j, w, m, -1, true, w->kk);
    delta_fade(f, w->up, -1, m, w->k, s, w->xk);
    gated_product(f, &w->sp, m, e, s, gated_rows(w->xk, GEMM_F32, s), gated_rows(w->S, GEMM_F32, e), w->v, e, true);
    for (int64_t r = 0; r < m; r += DELTA_BLOCK) {
        const int64_t n = gated_min(DELTA_BLOCK, m - r);
        gated_product(f, &w->sp, n, e, r, gated_rows(w->kk + r * DELTA_CHUNK, GEMM_F32, DELTA_CHUNK),
                      gated_rows(w->u, GEMM_F32, e), w->v + r * e, e, true);
        for (int64_t i = r; i < r + n; i++) {
            for (int64_t l = r; l < i; l++)
                f->axpy(w->kk[i * DELTA_CHUNK + l], w->u + l * e, GEMM_F32, w->v + i * e, e);
            f->scaled(w->beta[i], w->v + i * e, GEMM_F32, w->u + i * e, e);
        }
    }
}

/* S = e^(c_m) S + sum of e^(c_m - c_j) k_j^T u_j */
static void delta_fold(const delta_job *j, const gated_leaf *f, const delta_space *w, int64_t m) {
    delta_fade(f, w->down, 1, m, w->k, j->s, w->xk);
    if (gated_has(j->g)) f->scaled(w->up[m - 1], w->S, GEMM_F32, w->S, j->s * j->e);
    gated_product(f, &w->sp, j->s, j->e, m, gated_turned(w->xk, GEMM_F32, j->s), gated_rows(w->u, GEMM_F32, j->e), w->S,
                  j->e, true);
}

/* ---- forward ---- */

static void delta_forward_chunk(const delta_job *j, const gated_leaf *f, delta_space *w, int64_t b, int64_t t,
                                int64_t m) {
    const int64_t e = j->e, s = j->s;
    delta_open_chunk(j, f, w, b, t, m);
    delta_solve(j, f, w, m);
    delta_square(f, w, m, w->q, w->k, s, w->p);
    delta_mask(j, w, m, j->scale, false, w->p);
    gated_product(f, &w->sp, m, e, m, gated_rows(w->p, GEMM_F32, DELTA_CHUNK), gated_rows(w->u, GEMM_F32, e), w->o, e,
                  false);
    delta_fade(f, w->up, j->scale, m, w->q, s, w->x);
    gated_product(f, &w->sp, m, e, s, gated_rows(w->x, GEMM_F32, s), gated_rows(w->S, GEMM_F32, e), w->o, e, true);
    delta_store(f, w->o, &j->o, b, t, m);
    delta_fold(j, f, w, m);
}

static void delta_forward(const delta_job *j, const gated_leaf *f, delta_space *w, int64_t b) {
    int64_t first, last;
    delta_begin(j, &j->from, b, w->S);
    for (int64_t t = 0; t < j->T; t = gated_max(last, t + 1)) {
        gated_run(gated_doc(j->doc, b / j->H), j->T, t, &first, &last);
        if (first == last) delta_zero(&j->o, b, t);
        if (first == last) continue;
        if (first > 0) delta_begin(j, NULL, b, w->S);
        for (int64_t i = first; i < last; i += DELTA_CHUNK)
            delta_forward_chunk(j, f, w, b, i, gated_min(DELTA_CHUNK, last - i));
    }
    delta_end(j, b, w->S);
}

const char *gated_delta_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    delta_job j;
    (void)dry, (void)alloc;
    const char *why = delta_open(c, false, &j);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = j.B;
    x->scratch = sizeof(float) * (size_t)(threads * j.per_worker);
    return NULL;
}

void gated_delta_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    delta_job j;
    (void)phase;
    (void)delta_open(t->call, false, &j);
    delta_space w = delta_space_at(&j, t->scratch, worker);
    for (int64_t b = lo; b < hi; b++) delta_forward(&j, gated_leaf_of(t->exec), &w, b);
}

/* ---- backward ---- */

/* du becomes the gradient of err, which is that of v: backward substitution. dbeta_i = du_i.err_i */
static void delta_solve_back(const delta_job *j, const gated_leaf *f, const delta_space *w, int64_t b, int64_t t,
                             int64_t m) {
    const int64_t e = j->e;
    for (int64_t r = (m - 1) / DELTA_BLOCK * DELTA_BLOCK; r >= 0; r -= DELTA_BLOCK) {
        const int64_t end = gated_min(r + DELTA_BLOCK, m);
        gated_product(f, &w->sp, end - r, e, m - end,
                      gated_turned(w->kk + end * DELTA_CHUNK + r, GEMM_F32, DELTA_CHUNK),
                      gated_rows(w->du + end * e, GEMM_F32, e), w->du + r * e, e, true);
        for (int64_t i = end - 1; i >= r; i--) {
            float *row = w->du + i * e;
            for (int64_t l = i + 1; l < end; l++) f->axpy(w->kk[l * DELTA_CHUNK + i], w->du + l * e, GEMM_F32, row, e);
            if (j->dbeta) j->dbeta[delta_at(j, b, t + i)] = f->dot(row, GEMM_F32, w->v + i * e, GEMM_F32, e);
            f->scaled(w->beta[i], row, GEMM_F32, row, e);
        }
    }
}

/* Decays of a chunk: c_i is in every log a up to i; all is what the state behind gives. */
static void delta_decays(const delta_job *j, int64_t b, int64_t t, int64_t m, double all, const float *slope) {
    for (int64_t i = m - 1; i >= 0 && j->dg; i--) {
        all += (double)slope[i];
        j->dg[delta_at(j, b, t + i)] = (float)all * delta_slope(j->a, delta_number(j, j->g, b, t + i));
    }
}

/* Gradients of a chunk: w->S is R, the gradient of the state behind it, and becomes that before it. before, behind: S.
 */
static void delta_backward_chunk(const delta_job *j, const gated_leaf *f, delta_space *w, int64_t b, int64_t t,
                                 int64_t m, const float *before, const float *behind) {
    const int64_t e = j->e, s = j->s, C = DELTA_CHUNK;
    float *R = w->S, slope[DELTA_CHUNK];
    delta_open_chunk(j, f, w, b, t, m);
    w->S = (float *)(uintptr_t)before;
    delta_solve(j, f, w, m);
    w->S = R;
    const double all = j->dg ? (double)f->dot(R, GEMM_F32, behind, GEMM_F32, s * e) : 0;
    delta_square(f, w, m, w->q, w->k, s, w->p);
    delta_mask(j, w, m, j->scale, false, w->p);
    /* du = P^T dO + e^(c_m - c) k R, then the system's adjoint */
    gated_product(f, &w->sp, m, e, m, gated_turned(w->p, GEMM_F32, C), gated_rows(w->o, GEMM_F32, e), w->du, e, false);
    delta_fade(f, w->down, 1, m, w->k, s, w->xk);
    gated_product(f, &w->sp, m, e, s, gated_rows(w->xk, GEMM_F32, s), gated_rows(R, GEMM_F32, e), w->du, e, true);
    delta_solve_back(j, f, w, b, t, m);
    delta_store(f, w->du, &j->dv, b, t, m);
    /* dq: through S and through the pairs, whose gradients are in p */
    delta_square(f, w, m, w->o, w->u, e, w->p);
    delta_mask(j, w, m, j->scale, false, w->p);
    gated_product(f, &w->sp, m, s, e, gated_rows(w->o, GEMM_F32, e), gated_turned(before, GEMM_F32, e), w->x, s, false);
    delta_fade(f, w->up, j->scale, m, w->x, s, w->x);
    gated_product(f, &w->sp, m, s, m, gated_rows(w->p, GEMM_F32, C), gated_rows(w->k, GEMM_F32, s), w->x, s, true);
    delta_store(f, w->x, &j->dq, b, t, m);
    for (int64_t i = 0; i < m; i++) slope[i] = f->dot(w->q + i * s, GEMM_F32, w->x + i * s, GEMM_F32, s);
    /* dk as the row of a pair: what a token reads */
    delta_square(f, w, m, w->du, w->u, e, w->w);
    delta_mask(j, w, m, -1, true, w->w);
    gated_product(f, &w->sp, m, s, e, gated_rows(w->du, GEMM_F32, e), gated_turned(before, GEMM_F32, e), w->x, s,
                  false);
    delta_fade(f, w->up, -1, m, w->x, s, w->x);
    gated_product(f, &w->sp, m, s, m, gated_rows(w->w, GEMM_F32, C), gated_rows(w->k, GEMM_F32, s), w->x, s, true);
    for (int64_t i = 0; i < m; i++) slope[i] += f->dot(w->k + i * s, GEMM_F32, w->x + i * s, GEMM_F32, s);
    /* and as its column: what it writes */
    gated_product(f, &w->sp, m, s, e, gated_rows(w->u, GEMM_F32, e), gated_turned(R, GEMM_F32, e), w->xk, s, false);
    delta_fade(f, w->down, 1, m, w->xk, s, w->xk);
    gated_product(f, &w->sp, m, s, m, gated_turned(w->w, GEMM_F32, C), gated_rows(w->k, GEMM_F32, s), w->xk, s, true);
    gated_product(f, &w->sp, m, s, m, gated_turned(w->p, GEMM_F32, C), gated_rows(w->q, GEMM_F32, s), w->xk, s, true);
    for (int64_t i = 0; i < m; i++) {
        slope[i] -= f->dot(w->k + i * s, GEMM_F32, w->xk + i * s, GEMM_F32, s);
        f->axpy(1, w->xk + i * s, GEMM_F32, w->x + i * s, s);
    }
    delta_store(f, w->x, &j->dk, b, t, m);
    delta_decays(j, b, t, m, all, slope);
    /* R = e^(c_m) R + scale (e^c q)^T dO - (e^c k)^T dv */
    if (gated_has(j->g)) f->scaled(w->up[m - 1], R, GEMM_F32, R, s * e);
    delta_fade(f, w->up, j->scale, m, w->q, s, w->q);
    gated_product(f, &w->sp, s, e, m, gated_turned(w->q, GEMM_F32, s), gated_rows(w->o, GEMM_F32, e), R, e, true);
    delta_fade(f, w->up, -1, m, w->k, s, w->k);
    gated_product(f, &w->sp, s, e, m, gated_turned(w->k, GEMM_F32, s), gated_rows(w->du, GEMM_F32, e), R, e, true);
}

static void delta_backward_run(const delta_job *j, const gated_leaf *f, delta_space *w, int64_t b, int64_t first,
                               int64_t last, bool end) {
    const int64_t C = DELTA_CHUNK, chunks = gated_ceil(last - first, C);
    const size_t bytes = (size_t)(j->s * j->e) * sizeof *w->S;
    delta_begin(j, first == 0 ? &j->from : NULL, b, w->S);
    for (int64_t n = 0; n < chunks; n++) {
        const int64_t t = first + n * C, m = gated_min(C, last - t);
        memcpy(w->kept + n * j->w_S, w->S, bytes);
        delta_open_chunk(j, f, w, b, t, m);
        delta_solve(j, f, w, m);
        delta_fold(j, f, w, m);
    }
    memcpy(w->kept + chunks * j->w_S, w->S, bytes);
    delta_begin(j, end ? &j->dstate : NULL, b, w->S); /* now R */
    for (int64_t n = chunks - 1; n >= 0; n--) {
        const int64_t t = first + n * C;
        delta_backward_chunk(j, f, w, b, t, gated_min(C, last - t), w->kept + n * j->w_S, w->kept + (n + 1) * j->w_S);
    }
}

static void delta_hidden(const delta_job *j, int64_t b, int64_t t) {
    delta_zero(&j->dq, b, t), delta_zero(&j->dk, b, t), delta_zero(&j->dv, b, t);
    if (j->dg) j->dg[delta_at(j, b, t)] = 0;
    if (j->dbeta) j->dbeta[delta_at(j, b, t)] = 0;
}

static void delta_backward(const delta_job *j, const gated_leaf *f, delta_space *w, int64_t b) {
    const int32_t *doc = gated_doc(j->doc, b / j->H);
    int64_t first = 0, last = 0, end = j->T;
    while (doc && end > 0 && doc[end - 1] < 0) end--;
    delta_begin(j, end == 0 ? &j->dstate : NULL, b, w->S);
    for (int64_t t = j->T - 1; t >= 0; t = first == last ? t - 1 : first - 1) {
        gated_run(doc, j->T, t, &first, &last);
        if (first == last)
            delta_hidden(j, b, t);
        else
            delta_backward_run(j, f, w, b, first, last, last == end);
    }
    if (end > 0 && doc && doc[0] < 0) delta_begin(j, NULL, b, w->S); /* the first run began behind padding */
    delta_end(j, b, w->S);
}

const char *gated_delta_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                    kernel_exec *x) {
    delta_job j;
    (void)dry, (void)alloc;
    const char *why = delta_open(c, true, &j);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = j.B;
    x->scratch = sizeof(float) * (size_t)(threads * j.per_worker);
    return NULL;
}

void gated_delta_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    delta_job j;
    (void)phase;
    (void)delta_open(t->call, true, &j);
    delta_space w = delta_space_at(&j, t->scratch, worker);
    for (int64_t b = lo; b < hi; b++) delta_backward(&j, gated_leaf_of(t->exec), &w, b);
}

/* ---- decoding ---- */

const char *gated_delta_step_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                     kernel_exec *x) {
    (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 7, 2);
    if (why) return why;
    if (c->in[0].d.dim[0] < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = c->in[0].d.dim[1];
    x->scratch = sizeof(float) * (size_t)threads * (size_t)linear_up(2 * tl_desc_last(&c->out[1].d), 16);
    return NULL;
}

/* One token of one head: what S says of k, faded; the correction; what it says of q. row, sum: e numbers each. */
static void delta_step_row(const delta_job *j, const gated_leaf *f, int64_t r, int64_t h, float a, float beta,
                           const gated_mat *S, int64_t slot, bool fresh, float *row, float *sum) {
    const int64_t s = j->s, e = j->e;
    float x[2 * 1024];
    f->scaled(j->scale, gated_at(&j->q, r, h), j->q.type, x, s);
    f->scaled(1, gated_at(&j->k, r, h), j->k.type, x + s, s);
    memset(sum, 0, (size_t)e * sizeof *sum);
    for (int64_t i = 0; i < s; i++) {
        float *M = (float *)(void *)gated_at(S, slot * j->H + h, i);
        if (fresh)
            memset(M, 0, (size_t)e * sizeof *M);
        else if (a != 1)
            f->scaled(a, M, GEMM_F32, M, e);
        f->axpy(x[s + i], M, GEMM_F32, sum, e);
    }
    f->scaled(1, gated_at(&j->v, r, h), j->v.type, row, e);
    f->axpy(-1, sum, GEMM_F32, row, e);
    f->scaled(beta, row, GEMM_F32, row, e);
    memset(sum, 0, (size_t)e * sizeof *sum);
    for (int64_t i = 0; i < s; i++) {
        float *M = (float *)(void *)gated_at(S, slot * j->H + h, i);
        f->axpy(x[s + i], row, GEMM_F32, M, e);
        f->axpy(x[i], M, GEMM_F32, sum, e);
    }
}

/* One head: its rows in order. */
void gated_delta_step_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const gated_mat o = gated_take(&c->out[0]), S = gated_take_state(&c->out[1]);
    delta_job j = {.a = &ATTR(c, delta_rule_step)->f, .H = c->in[0].d.dim[1]};
    j.q = gated_take(&c->in[0]), j.k = gated_take(&c->in[1]), j.v = gated_take(&c->in[2]);
    j.s = j.q.width, j.e = j.v.width, j.scale = j.a->scale != 0 ? j.a->scale : 1;
    const tl_arg *g = &c->in[3], *beta = &c->in[6];
    float *row = (float *)t->scratch + worker * linear_up(2 * j.e, 16), *sum = row + j.e;
    (void)phase;
    for (int64_t h = lo; h < hi; h++)
        for (int64_t r = 0; r < c->in[0].d.dim[0]; r++) {
            const int32_t slot = ((const int32_t *)c->in[4].data)[r * c->in[4].d.stride[0]];
            const int32_t pos = ((const int32_t *)c->in[5].data)[r * c->in[5].d.stride[0]];
            if (slot >= 0 && slot < c->out[1].d.dim[0] && pos >= 0) {
                float a = 1, by = ((const float *)beta->data)[r * beta->d.stride[0] + h * beta->d.stride[1]];
                if (gated_has(g))
                    a = expf(delta_log(j.a, ((const float *)g->data)[r * g->d.stride[0] + h * g->d.stride[1]]));
                delta_step_row(&j, f, r, h, a, by, &S, slot, pos == 0, row, sum);
            } else {
                memset(sum, 0, (size_t)j.e * sizeof *sum);
            }
            f->put(sum, gated_at(&o, r, h), o.type, j.e, false);
        }
}
