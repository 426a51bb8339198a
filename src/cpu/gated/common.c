#include "cpu/gated/launch.h"

gated_mat gated_take(const tl_arg *a) {
    gated_mat m = {
        .p = a->data, .type = gemm_type(a->d.dtype), .size = (int64_t)tl_dtype_bytes(a->d.dtype), .heads = 1};
    if (a->d.dtype == TL_NONE) return m;
    m.width = tl_desc_last(&a->d);
    if (a->d.ndim == 4) {
        m.batch = a->d.stride[0];
        m.row = a->d.stride[1];
        m.head = a->d.stride[2];
        m.heads = a->d.dim[2];
    } else if (a->d.ndim == 3) {
        m.batch = a->d.stride[0];
        m.row = a->d.stride[1];
    } else if (a->d.ndim == 2) {
        m.row = a->d.stride[0];
    }
    return m;
}

gated_mat gated_take_rows(const tl_arg *a) {
    gated_mat m = gated_take(a);
    if (a->d.ndim == 2) m.batch = a->d.stride[0], m.row = 0;
    return m;
}

gated_mat gated_take_state(const tl_arg *a) {
    gated_mat m = gated_take(a);
    if (a->d.dtype == TL_NONE || a->d.ndim != 4) return m;
    m.head = a->d.stride[1];
    m.row = a->d.stride[2];
    m.heads = a->d.dim[1];
    return m;
}

int64_t gated_space_floats(int64_t m, int64_t pack, int64_t k) {
    const int64_t temp = k > GEMM_KC ? linear_up(m, GEMM_MR) * GEMM_NC : 0;
    return linear_up(pack, 16) + GEMM_KC * GEMM_NC + temp;
}

gated_space gated_space_at(float *at, int64_t m, int64_t pack, int64_t k) {
    (void)m;
    gated_space w = {at, at + linear_up(pack, 16), NULL};
    if (k > GEMM_KC) w.t = w.b + GEMM_KC * GEMM_NC;
    return w;
}

static void gated_multiply(const gated_leaf *f, const gated_space *w, gemm_job *j) {
    if (j->m < 1 || j->n < 1 || j->k < 1) return;
    const bool there = j->a.type == GEMM_F32 && j->a.col == 1; /* A is read where it lies */
    j->pack_a = there ? NULL : w->a, j->pack_b = w->b, j->temp = w->t;
    const int64_t slivers = gemm_slivers(j->m);
    if (!there) f->gemm(GEMM_PACK, j, 0, slivers, 0, 0);
    for (int64_t col = 0; col < j->n; col += GEMM_NC)
        f->gemm(GEMM_TILE, j, 0, slivers, col, gated_min(col + GEMM_NC, j->n));
}

void gated_product_to(const gated_leaf *f, const gated_space *w, int64_t m, int64_t n, int64_t k, gemm_matrix a,
                      gemm_matrix b, void *c, int type, int64_t c_row, bool add) {
    gemm_job j = {.a = a, .b = b, .c = {c, type, c_row, 1}, .m = m, .n = n, .k = k, .add = add};
    gated_multiply(f, w, &j);
}

void gated_product(const gated_leaf *f, const gated_space *w, int64_t m, int64_t n, int64_t k, gemm_matrix a,
                   gemm_matrix b, float *c, int64_t c_row, bool add) {
    gated_product_to(f, w, m, n, k, a, b, c, GEMM_F32, c_row, add);
}

void gated_share(const gated_leaf *f, const gated_shared *b, int64_t n, int64_t k) {
    const gemm_job j = {.b = b->b, .n = n, .k = k, .panels = b->panels, .depth = b->depth};
    f->gemm(GEMM_PANELS, &j, 0, 0, 0, n);
}

void gated_product_by(const gated_leaf *f, const gated_space *w, int64_t m, int64_t n, int64_t k, gemm_matrix a,
                      const gated_shared *b, float *c, int64_t c_row, bool add) {
    gemm_job j = {.a = a, .b = b->b, .c = {c, GEMM_F32, c_row, 1}, .m = m, .n = n, .k = k, .add = add};
    j.panels = b->panels, j.depth = b->depth, j.first = b->first;
    gated_multiply(f, w, &j);
}

const char *gated_dtypes(const tl_op_call *c, int ins, int outs) {
    for (int i = 0; i < ins + outs; i++) {
        const tl_desc *d = i < ins ? &c->in[i].d : &c->out[i - ins].d;
        if (d->dtype == TL_NONE || d->dtype == TL_I32) continue;
        if (gemm_type(d->dtype) < 0) return "not f32, bf16 or f16";
    }
    return NULL;
}

gated_gate gated_gate_of(const struct gate_attr *a, int64_t s, const tl_arg *bias, const tl_arg *theta) {
    gated_gate g = {.a = a, .cool = 1};
    g.alpha = a->alpha != 0 ? a->alpha : (float)(1.0 / sqrt((double)s));
    g.bias_scale = a->bias_scale != 0 ? a->bias_scale : 1.0f;
    if (bias->data) {
        g.reach = (bias->d.dim[0] - 1) / 2;
        g.bias = (const float *)bias->data + g.reach;
    }
    if (theta->data) g.cool = expf(-*(const float *)theta->data);
    return g;
}

float gated_factor(const gated_gate *g, int64_t visible) {
    if (!g->a->kappa) return g->alpha;
    return (float)((double)g->alpha * log((double)(visible > 16 ? visible : 16)) / log(512.0));
}

float gated_norm(const gated_gate *g, int64_t visible, int64_t length) {
    double n = 1;
    if (g->a->count == GATE_COUNT_VISIBLE) n = (double)visible;
    if (g->a->count == GATE_COUNT_FIXED) n = (double)g->a->fixed;
    if (g->a->count == GATE_COUNT_LENGTH) n = (double)length;
    return visible > 0 ? (float)(1.0 / n) * g->cool : 0;
}

gated_row gated_row_of(const gated_gate *g, int64_t ahead) {
    gated_row r = {.kind = g->a->kind, .eps = g->a->eps, .factor = g->alpha, .bias_scale = g->bias_scale};
    if (g->bias) r.bias = g->bias + ahead;
    return r;
}

void gated_run(const int32_t *doc, int64_t T, int64_t i, int64_t *first, int64_t *end) {
    *first = 0, *end = T;
    if (!doc) return;
    *first = *end = i;
    if (doc[i] < 0) return;
    while (*first > 0 && doc[*first - 1] == doc[i]) --*first;
    while (*end < T && doc[*end] == doc[i]) ++*end;
}
