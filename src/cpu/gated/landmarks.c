/* Launchers of what landmarks need (Nystromformer): segment_mean, matmul, inverse_start and its backward pass. A tile
 * is one head of one sequence. */
#include "cpu/gated/launch.h"

static int64_t landmark_tiles(const tl_desc *d) {
    return d->dim[0] * d->dim[2];
}

/* ---- means of segments ---- */

const char *gated_segment_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                  kernel_exec *x) {
    (void)dry, (void)alloc;
    const char *why = gated_dtypes(c, 1, 1);
    if (why) return why;
    if (tl_desc_count(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = landmark_tiles(&c->in[0].d);
    x->scratch = sizeof(float) * (size_t)(threads * linear_up(c->in[0].d.dim[3], 16));
    return NULL;
}

void gated_segment_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const gated_mat x = gated_take(&c->in[0]), y = gated_take(&c->out[0]);
    const bool spread = ATTR(c, segment_mean)->spread != 0, add = c->acc & 1;
    const int64_t T = (spread ? &c->out[0] : &c->in[0])->d.dim[1], R = (spread ? &c->in[0] : &c->out[0])->d.dim[1];
    float *sum = (float *)t->scratch + worker * linear_up(x.width, 16);
    (void)phase;
    for (int64_t b = lo; b < hi; b++)
        for (int64_t r = 0; r < R; r++) {
            const int64_t first = r * T / R, end = (r + 1) * T / R;
            const float by = (float)(1.0 / (double)(end - first));
            for (int64_t i = first; i < end && spread; i++)
                f->times(by, gated_at(&x, b, r), x.type, gated_at(&y, b, i), y.type, x.width, add);
            if (spread) continue;
            memset(sum, 0, (size_t)x.width * sizeof *sum);
            for (int64_t i = first; i < end; i++) f->axpy(1, gated_at(&x, b, i), x.type, sum, x.width);
            f->times(by, sum, GEMM_F32, gated_at(&y, b, r), y.type, x.width, add);
        }
}

/* ---- products ---- */

typedef struct matmul_job {
    const struct matmul_attr *t;
    gated_mat a, b, c, y;
    int64_t m, n, k, most, deepest, pack, per_worker;
} matmul_job;

static const char *matmul_open(const tl_op_call *c, matmul_job *j) {
    *j = (matmul_job){.t = ATTR(c, matmul)};
    const char *why = gated_dtypes(c, 3, 1);
    if (why) return why;
    j->a = gated_take(&c->in[0]), j->b = gated_take(&c->in[1]), j->c = gated_take(&c->in[2]);
    j->y = gated_take(&c->out[0]);
    j->m = c->out[0].d.dim[1], j->n = c->out[0].d.dim[3], j->k = c->in[0].d.dim[j->t->ta ? 1 : 3];
    if (tl_desc_count(&c->out[0].d) < 1 || j->k < 1) return "nothing to do";
    j->most = linear_up(j->m, 16), j->deepest = gated_max(j->k, j->n);
    j->pack = j->most * j->deepest;
    j->per_worker = linear_up(j->m * j->n + gated_space_floats(j->most, j->pack, j->deepest), 16);
    return NULL;
}

const char *gated_matmul_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                 kernel_exec *x) {
    matmul_job j;
    (void)dry, (void)alloc;
    const char *why = matmul_open(c, &j);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = landmark_tiles(&c->out[0].d);
    x->scratch = sizeof(float) * (size_t)(threads * j.per_worker);
    return NULL;
}

static gemm_matrix matmul_operand(const gated_mat *x, int64_t b, bool turned) {
    return turned ? gated_turned(gated_at(x, b, 0), x->type, x->row) : gated_rows(gated_at(x, b, 0), x->type, x->row);
}

void gated_matmul_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    matmul_job j;
    (void)phase;
    (void)matmul_open(t->call, &j);
    const gated_leaf *f = gated_leaf_of(t->exec);
    const float alpha = j.t->alpha != 0 ? j.t->alpha : 1;
    float *to = (float *)t->scratch + worker * j.per_worker;
    const gated_space sp = gated_space_at(to + j.m * j.n, j.most, j.pack, j.deepest);
    for (int64_t b = lo; b < hi; b++) {
        gated_product(f, &sp, j.m, j.n, j.k, matmul_operand(&j.a, b, j.t->ta), matmul_operand(&j.b, b, j.t->tb), to,
                      j.n, false);
        for (int64_t i = 0; i < j.m; i++) {
            float *row = to + i * j.n;
            if (alpha != 1) f->scaled(alpha, row, GEMM_F32, row, j.n);
            if (j.c.p) f->axpy(j.t->beta, gated_at(&j.c, b, i), j.c.type, row, j.n);
            if (i < j.n) row[i] += j.t->diag;
            f->put(row, gated_at(&j.y, b, i), j.y.type, j.n, t->call->acc & 1);
        }
    }
}

/* ---- the start of an inverse ---- */

static const char *inverse_prepare(const tl_op_call *c, int ins, int threads, kernel_exec *x) {
    for (int i = 0; i < ins; i++)
        if (c->in[i].d.dtype != TL_F32) return "not f32";
    if (tl_desc_count(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = landmark_tiles(&c->in[0].d);
    x->scratch = sizeof(float) * (size_t)(threads * linear_up(c->in[0].d.dim[1], 16));
    return NULL;
}

const char *gated_inverse_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                  kernel_exec *x) {
    (void)dry, (void)alloc;
    return inverse_prepare(c, 1, threads, x);
}
const char *gated_inverse_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                      kernel_exec *x) {
    (void)dry, (void)alloc;
    return inverse_prepare(c, 2, threads, x);
}

/* The column with the largest sum, and 1 / that sum. */
static int64_t inverse_most(const gated_leaf *f, const gated_mat *x, int64_t b, float *sum, float *by) {
    int64_t best = 0;
    memset(sum, 0, (size_t)x->width * sizeof *sum);
    for (int64_t i = 0; i < x->width; i++) f->axpy(1, gated_at(x, b, i), x->type, sum, x->width);
    for (int64_t j = 1; j < x->width; j++)
        if (sum[j] > sum[best]) best = j;
    *by = 1 / sum[best];
    return best;
}

void gated_inverse_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const gated_mat x = gated_take(&t->call->in[0]), z = gated_take(&t->call->out[0]);
    float *row = (float *)t->scratch + worker * linear_up(x.width, 16), by;
    const gated_leaf *f = gated_leaf_of(t->exec);
    (void)phase;
    for (int64_t b = lo; b < hi; b++) {
        inverse_most(f, &x, b, row, &by);
        for (int64_t i = 0; i < x.width; i++) {
            for (int64_t j = 0; j < x.width; j++) row[j] = ((const float *)(const void *)gated_at(&x, b, j))[i];
            f->times(by, row, GEMM_F32, gated_at(&z, b, i), z.type, x.width, t->call->acc & 1);
        }
    }
}

void gated_inverse_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const gated_mat dz = gated_take(&t->call->in[0]), x = gated_take(&t->call->in[1]),
                    dx = gated_take(&t->call->out[0]);
    float *row = (float *)t->scratch + worker * linear_up(x.width, 16), by;
    const gated_leaf *f = gated_leaf_of(t->exec);
    (void)phase;
    for (int64_t b = lo; b < hi; b++) {
        double all = 0;
        const int64_t best = inverse_most(f, &x, b, row, &by);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = 0; i < x.width; i++) {
                for (int64_t j = 0; j < x.width; j++) row[j] = ((const float *)(const void *)gated_at(&dz, b, j))[i];
                if (pass == 0) {
                    all += (double)f->dot(row, GEMM_F32, gated_at(&x, b, i), x.type, x.width);
                    continue;
                }
                f->scaled(by, row, GEMM_F32, row, x.width);
                row[best] -= (float)(all * (double)by * (double)by);
                f->put(row, gated_at(&dx, b, i), dx.type, x.width, t->call->acc & 1);
            }
    }
}
