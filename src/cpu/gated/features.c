/* Launchers of favor and row_divide and of their backward passes: what linear attention does to rows before and after
 * the state. Rows by rows, a call of the leaf or two for each. */
#include "cpu/gated/launch.h"

enum { FEATURE_ROWS = 64 };

/* One argument by rows; `wide` elements of each. */
typedef struct feature_rows {
    char *p;
    const tl_desc *d;
    int type;
    int64_t size, wide;
} feature_rows;

static feature_rows feature_take(const tl_arg *a) {
    feature_rows r = {.p = a->data, .d = &a->d, .type = -1};
    if (!gated_has(a)) return r;
    r.type = gemm_type(a->d.dtype);
    r.size = (int64_t)tl_dtype_bytes(a->d.dtype);
    r.wide = tl_desc_last(&a->d);
    return r;
}

static void *feature_at(const feature_rows *a, int64_t r) {
    return a->p ? a->p + a->size * tl_desc_row(a->d, r) : NULL;
}

static const char *feature_prepare(const tl_op_call *c, int ins, int outs, kernel_exec *x) {
    const char *why = gated_dtypes(c, ins, outs);
    if (why) return why;
    if (tl_desc_rows(&c->in[0].d) < 1 || tl_desc_last(&c->in[0].d) < 1) return "nothing to do";
    x->phases = 1;
    x->tiles[0] = gated_ceil(tl_desc_rows(&c->in[0].d), FEATURE_ROWS);
    return NULL;
}

#define PREPARE(name, ins, outs)                                                                                       \
    const char *name(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x) {          \
        (void)threads, (void)dry, (void)alloc;                                                                         \
        return feature_prepare(c, ins, outs, x);                                                                       \
    }
PREPARE(gated_divide_prepare, 2, 1)
PREPARE(gated_divide_bwd_prepare, 3, 2)
PREPARE(gated_favor_prepare, 2, 1)
PREPARE(gated_favor_bwd_prepare, 3, 2)
#undef PREPARE

/* 1 / d of row r, and whether d was below its least; `put` of one number is how a leaf reads any type. */
static float feature_inverse(const gated_leaf *f, const feature_rows *d, int64_t r, float eps, bool *least) {
    float x;
    f->scaled(1, feature_at(d, r), d->type, &x, 1);
    *least = x < eps;
    return 1 / (*least ? eps : x);
}

void gated_divide_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const feature_rows x = feature_take(&c->in[0]), d = feature_take(&c->in[1]), y = feature_take(&c->out[0]);
    const float eps = ATTR(c, row_divide)->eps;
    const int64_t end = gated_min(hi * FEATURE_ROWS, tl_desc_rows(x.d));
    (void)phase, (void)worker;
    for (int64_t r = lo * FEATURE_ROWS; r < end; r++) {
        bool least;
        const float by = feature_inverse(f, &d, r, eps, &least);
        f->times(by, feature_at(&x, r), x.type, feature_at(&y, r), y.type, x.wide, c->acc & 1);
    }
}

/* dx = dy / d; dd = -sum(dy y) / d, nothing where d was too small to count. */
void gated_divide_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const feature_rows dy = feature_take(&c->in[0]), d = feature_take(&c->in[1]), y = feature_take(&c->in[2]);
    const feature_rows dx = feature_take(&c->out[0]), dd = feature_take(&c->out[1]);
    const float eps = ATTR(c, row_divide_bwd)->eps;
    const int64_t end = gated_min(hi * FEATURE_ROWS, tl_desc_rows(dy.d));
    (void)phase, (void)worker;
    for (int64_t r = lo * FEATURE_ROWS; r < end; r++) {
        bool least;
        const float by = feature_inverse(f, &d, r, eps, &least);
        if (dd.p) { /* before dx, which may lie where dy does */
            float sum = f->dot(feature_at(&dy, r), dy.type, feature_at(&y, r), y.type, dy.wide);
            sum = least ? 0 : -sum * by;
            f->put(&sum, feature_at(&dd, r), dd.type, 1, c->acc >> 1 & 1);
        }
        if (dx.p) f->times(by, feature_at(&dy, r), dy.type, feature_at(&dx, r), dx.type, dy.wide, c->acc & 1);
    }
}

void gated_favor_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const feature_rows p = feature_take(&c->in[0]), x = feature_take(&c->in[1]), y = feature_take(&c->out[0]);
    const float norm = (float)(1.0 / sqrt((double)p.wide));
    const int64_t end = gated_min(hi * FEATURE_ROWS, tl_desc_rows(p.d));
    (void)phase, (void)worker;
    for (int64_t r = lo * FEATURE_ROWS; r < end; r++) {
        const void *v = feature_at(&x, r);
        const float half = 0.5f * f->dot(v, x.type, v, x.type, x.wide);
        f->feature(norm, half, feature_at(&p, r), p.type, feature_at(&y, r), y.type, p.wide, c->acc & 1);
    }
}

/* dp = dy y; dx = -x sum(dp) */
void gated_favor_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const gated_leaf *f = gated_leaf_of(t->exec);
    const feature_rows dy = feature_take(&c->in[0]), x = feature_take(&c->in[1]), y = feature_take(&c->in[2]);
    const feature_rows dp = feature_take(&c->out[0]), dx = feature_take(&c->out[1]);
    const int64_t end = gated_min(hi * FEATURE_ROWS, tl_desc_rows(y.d));
    (void)phase, (void)worker;
    for (int64_t r = lo * FEATURE_ROWS; r < end; r++) {
        const void *g = feature_at(&dy, r), *v = feature_at(&y, r);
        if (dx.p)
            f->times(-f->dot(g, dy.type, v, y.type, y.wide), feature_at(&x, r), x.type, feature_at(&dx, r), dx.type,
                     x.wide, c->acc >> 1 & 1);
        if (dp.p) f->multiply(g, dy.type, v, y.type, feature_at(&dp, r), dp.type, y.wide, c->acc & 1);
    }
}
