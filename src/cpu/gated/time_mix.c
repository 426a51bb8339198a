/* Launchers of time_mix and its backward pass with weights: one product a sequence, y = w x and dx = w^T dy, cut by
 * columns; dw = sum over sequences of dy x^T, cut by tokens. */
#include "cpu/gated/launch.h"

enum { TIME_COLUMNS = 256, TIME_TOKENS = 128 };

typedef struct time_job {
    gated_mat x, y, dx, dy; /* batch and row strides; width: all heads */
    const tl_arg *w;
    float *dw;
    int64_t dw_row, B, T, P, R, C, columns, tokens, per_worker, most, pack, deepest;
} time_job;

/* (B,T,H,e) whose heads lie side by side, as (B,T,H e). */
static bool time_take(const tl_arg *a, gated_mat *m) {
    *m = (gated_mat){
        .p = a->data, .type = gemm_type(a->d.dtype), .size = (int64_t)tl_dtype_bytes(a->d.dtype), .heads = 1};
    if (!gated_has(a)) return true;
    m->batch = a->d.stride[0], m->row = a->d.stride[1], m->width = a->d.dim[2] * a->d.dim[3];
    return a->d.dim[2] == 1 || a->d.stride[2] == a->d.dim[3];
}

static const char *time_open(const tl_op_call *c, bool backward, time_job *j) {
    *j = (time_job){.w = &c->in[backward ? 1 : 0]};
    const char *why = gated_dtypes(c, backward ? 3 : 2, backward ? 2 : 1);
    if (why) return why;
    bool side = time_take(&c->in[backward ? 2 : 1], &j->x);
    if (backward) {
        side = side && time_take(&c->in[0], &j->dy) && time_take(&c->out[0], &j->dx);
        j->dw = c->out[1].data;
        if (gated_has(&c->out[1])) j->dw_row = c->out[1].d.stride[0];
    } else {
        side = side && time_take(&c->out[0], &j->y);
    }
    if (!side) return "heads with holes between them";
    const tl_desc *x = &c->in[backward ? 2 : 1].d;
    j->B = x->dim[0], j->T = x->dim[1], j->C = j->x.width, j->R = j->w->d.dim[0], j->P = j->w->d.dim[1];
    if (j->B * j->T * j->C < 1) return "nothing to do";
    j->columns = gated_ceil(j->C, TIME_COLUMNS), j->tokens = gated_ceil(j->T, TIME_TOKENS);
    j->most = linear_up(gated_max(j->R, TIME_TOKENS), 16);
    j->deepest = gated_max(gated_max(j->T, j->R), j->C);
    j->pack = j->most * j->deepest;
    j->per_worker = linear_up(gated_space_floats(j->most, j->pack, j->deepest), 16);
    return NULL;
}

static gemm_matrix time_columns(const gated_mat *m, int64_t b, int64_t t, int64_t col) {
    return gated_rows(gated_at(m, b, t) + m->size * col, m->type, m->row);
}

const char *gated_time_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {
    time_job j;
    (void)dry, (void)alloc;
    const char *why = time_open(c, false, &j);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = j.B * j.columns;
    x->scratch = sizeof(float) * (size_t)(threads * j.per_worker);
    return NULL;
}

void gated_time_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    time_job j;
    (void)phase;
    (void)time_open(t->call, false, &j);
    const gated_space sp = gated_space_at((float *)t->scratch + worker * j.per_worker, j.most, j.pack, j.deepest);
    const gemm_matrix w = gated_rows(j.w->data, gemm_type(j.w->d.dtype), j.w->d.stride[0]);
    for (int64_t i = lo; i < hi; i++) {
        const int64_t b = i / j.columns, col = i % j.columns * TIME_COLUMNS, n = gated_min(TIME_COLUMNS, j.C - col);
        gated_product_to(gated_leaf_of(t->exec), &sp, j.R, n, j.T, w, time_columns(&j.x, b, 0, col),
                         gated_at(&j.y, b, 0) + j.y.size * col, j.y.type, j.y.row, false);
    }
}

const char *gated_time_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                   kernel_exec *x) {
    time_job j;
    (void)dry, (void)alloc;
    const char *why = time_open(c, true, &j);
    if (why) return why;
    x->phases = 2;
    x->tiles[0] = gated_has(&c->out[0]) ? j.B * j.columns * j.tokens : 0;
    x->tiles[1] = gated_has(&c->out[1]) ? gated_ceil(j.P, TIME_TOKENS) : 0;
    x->scratch = sizeof(float) * (size_t)(threads * j.per_worker);
    return NULL;
}

/* dw of tokens [t0, t0 + n) */
static void time_weights(const time_job *j, const gated_leaf *f, const gated_space *sp, int64_t t0, int64_t n,
                         bool add) {
    const int64_t there = gated_max(0, gated_min(n, j->T - t0));
    for (int64_t b = 0; b < j->B && there > 0; b++)
        gated_product(f, sp, j->R, there, j->C, time_columns(&j->dy, b, 0, 0),
                      gated_turned(gated_at(&j->x, b, t0), j->x.type, j->x.row), j->dw + t0, j->dw_row, add || b > 0);
    for (int64_t r = 0; r < j->R && !add; r++)
        memset(j->dw + r * j->dw_row + t0 + there, 0, (size_t)(n - there) * sizeof *j->dw);
}

void gated_time_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    time_job j;
    (void)time_open(t->call, true, &j);
    const gated_leaf *f = gated_leaf_of(t->exec);
    const gated_space sp = gated_space_at((float *)t->scratch + worker * j.per_worker, j.most, j.pack, j.deepest);
    for (int64_t i = lo; i < hi && phase == 1; i++)
        time_weights(&j, f, &sp, i * TIME_TOKENS, gated_min(TIME_TOKENS, j.P - i * TIME_TOKENS), t->call->acc >> 1 & 1);
    const int64_t size = (int64_t)tl_dtype_bytes(j.w->d.dtype);
    for (int64_t i = lo; i < hi && phase == 0; i++) {
        const int64_t b = i / (j.columns * j.tokens), col = i / j.tokens % j.columns * TIME_COLUMNS;
        const int64_t t0 = i % j.tokens * TIME_TOKENS, n = gated_min(TIME_COLUMNS, j.C - col);
        const gemm_matrix w =
            gated_turned((const char *)j.w->data + size * t0, gemm_type(j.w->d.dtype), j.w->d.stride[0]);
        gated_product_to(f, &sp, gated_min(TIME_TOKENS, j.T - t0), n, j.R, w, time_columns(&j.dy, b, 0, col),
                         gated_at(&j.dx, b, t0) + j.dx.size * col, j.dx.type, j.dx.row, false);
    }
}
