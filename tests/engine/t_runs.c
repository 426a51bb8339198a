/* A small transformer on the real engine: the same bits with any number of threads, whatever instruction sets are
 * allowed the same results but for rounding, and a run that takes no memory. */
#include "base/mem.h"
#include "engine/engine.h"
#include "support/testing.h"

#include <math.h>
#include <stdlib.h>

enum { B = 2, T = 70, D = 64, H = 4, HK = 2, DH = 16, F = 96, V = 101, LAYERS = 2, BOUND = 64 };
#define DIMS(...)                                                                                                      \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) {                                           \
        __VA_ARGS__                                                                                                    \
    }

typedef struct model {
    tl_graph *g;
    tl_plan *p;
    tl_tensor *loss, *bound[BOUND];
    void *data[BOUND];
    size_t bytes[BOUND];
    int n, params;
} model;

static uint32_t noise(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 9;
}

/* Bound memory: parameters and inputs in a reproducible mess, gradients zero. */
static tl_tensor *bind_later(model *m, tl_tensor *t, float scale, uint32_t below) {
    if (!t) return NULL;
    const tl_desc *d = tl_tensor_desc(t);
    size_t n = (size_t)tl_desc_count(d), size = tl_dtype_bytes(d->dtype);
    uint32_t state = (uint32_t)m->n * 977u + 1;
    unsigned char *data = aligned_alloc(64, (n * size + 63) / 64 * 64);
    for (size_t i = 0; i < n; i++) {
        float f = scale * ((float)noise(&state) / (float)(1 << 22) - 1);
        double f64 = pow(10000, -(double)i / (double)n);
        int32_t id = below ? (int32_t)(noise(&state) % below) : (int32_t)(i % T);
        uint32_t bits;
        memcpy(&bits, &f, sizeof bits);
        uint16_t half = (uint16_t)(bits >> 16);
        const void *from = d->dtype == TL_F32    ? (void *)&f
                           : d->dtype == TL_F64  ? (void *)&f64
                           : d->dtype == TL_BF16 ? (void *)&half
                                                 : (void *)&id;
        memcpy(data + i * size, from, size);
    }
    m->bound[m->n] = t;
    m->bytes[m->n] = n * size;
    m->data[m->n++] = data;
    return t;
}

static tl_tensor *weight(model *m, const char *name, int layer, tl_dtype dtype, int ndim, const int64_t *dim) {
    char full[32];
    snprintf(full, sizeof full, "%s%d", name, layer);
    tl_tensor *t = tl_param(m->g, full, dtype, ndim, dim);
    return bind_later(m, t, ndim == 1 ? 1 : 0.2f, 0);
}

static tl_tensor *layer(model *m, tl_tensor *x, tl_tensor *table, tl_dtype w, int i) {
    tl_graph *g = m->g;
    tl_tensor *part[3];
    tl_block_begin(g);
    tl_tensor *h = tl_rmsnorm(g, x, weight(m, "n", i, TL_F32, DIMS(D)), 1e-5f, 1);
    tl_tensor *qkv = tl_linear(g, h, weight(m, "qkv", i, w, DIMS((H + 2 * HK) * DH, D)), NULL, TL_NONE);
    tl_split(g, qkv, 3, (int64_t[]){H * DH, HK * DH, HK * DH}, part);
    tl_tensor *q = tl_rope(g, tl_reshape(g, part[0], DIMS(B, T, H, DH)), table, false);
    tl_tensor *k = tl_rope(g, tl_reshape(g, part[1], DIMS(B, T, HK, DH)), table, false);
    tl_tensor *o = tl_attention(g, q, k, tl_reshape(g, part[2], DIMS(B, T, HK, DH)),
                                &(tl_attention_options){.causal = true}, NULL);
    x = tl_linear_add(g, x, tl_reshape(g, o, DIMS(B, T, H * DH)), weight(m, "o", i, w, DIMS(D, H * DH)), NULL);
    h = tl_rmsnorm(g, x, weight(m, "m", i, TL_F32, DIMS(D)), 1e-5f, 1);
    tl_split(g, tl_linear(g, h, weight(m, "in", i, w, DIMS(2 * F, D)), NULL, TL_NONE), 2, (int64_t[]){F, F}, part);
    h = tl_dropout(g, tl_glu(g, part[0], part[1], TL_ACT_SILU), 0.1f);
    x = tl_linear_add(g, x, h, weight(m, "out", i, w, DIMS(D, F)), NULL);
    tl_block_end(g);
    return x;
}

static void model_make(model *m, tl_engine *e, tl_dtype w, tl_recompute recompute) {
    *m = (model){0};
    tl_error err;
    assert_int_equal(tl_graph_create(e, &m->g), TL_OK);
    tl_graph *g = m->g;
    tl_tensor *ids = bind_later(m, tl_input(g, "ids", TL_I32, DIMS(B, T)), 0, V);
    tl_tensor *targets = bind_later(m, tl_input(g, "targets", TL_I32, DIMS(B, T)), 0, V);
    tl_tensor *pos = bind_later(m, tl_input(g, "pos", TL_I32, DIMS(B, T)), 0, 0);
    tl_tensor *freq = bind_later(m, tl_const(g, "freq", TL_F64, DIMS(DH / 2)), 0, 0);
    tl_tensor *denom = tl_const(g, "denom", TL_F32, DIMS(1));
    bind_later(m, denom, 1, 0);
    *(float *)m->data[m->n - 1] = B * T;
    tl_tensor *emb = weight(m, "emb", 0, w, DIMS(V, D)), *table = tl_rope_table(g, pos, freq, 1);
    tl_tensor *x = tl_embedding(g, ids, emb, 1, TL_NONE, NULL);
    for (int i = 0; i < LAYERS; i++) x = layer(m, x, table, w, i);
    m->loss = tl_loss_head(g, tl_rmsnorm(g, x, NULL, 1e-5f, 1), emb, targets, denom, NULL, NULL);
    tl_output(g, m->loss, "loss");
    m->params = m->n;
    tl_graph_backward(g, m->loss, NULL, 0, NULL, recompute);
    for (int i = 0; i < m->params; i++) bind_later(m, tl_param_grad(g, m->bound[i]), 0, 0);
    assert_ok(tl_plan_create(g, false, &m->p, &err), &err);
    for (int i = 0; i < m->n; i++) assert_int_equal(tl_plan_bind(m->p, m->bound[i], m->data[i]), TL_OK);
    tl_plan_run_info(m->p, &(tl_run_info){.seed = 1, .step = 2});
}

static void model_free(model *m) {
    tl_plan_destroy(m->p);
    tl_graph_destroy(m->g);
    for (int i = 0; i < m->n; i++) free(m->data[i]);
}

static tl_engine *engine_of(int threads, const char *isa, const tl_allocator *a) {
    tl_engine *e;
    tl_error err;
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = threads, .isa = isa, .allocator = a}, &e, &err), &err);
    return e;
}

static void same_bits(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 8};
    static const tl_dtype dtypes[] = {TL_F32, TL_BF16};
    for (int t = 0; t < 2; t++) {
        model first;
        tl_engine *one = engine_of(1, NULL, NULL);
        model_make(&first, one, dtypes[t], TL_RECOMPUTE_NONE);
        assert_int_equal(tl_plan_run(first.p), TL_OK);
        float loss = *(float *)tl_plan_data(first.p, first.loss);
        assert_true(loss > 2 && loss < 12);
        for (int i = 0; i < 7; i++) { /* the last three: parts of blocks run again, and blocks */
            tl_engine *e = engine_of(threads[i % 4], NULL, NULL);
            model m;
            model_make(&m, e, dtypes[t], i < 4 ? TL_RECOMPUTE_NONE : (tl_recompute)(i - 3));
            assert_int_equal(tl_plan_run(m.p), TL_OK);
            assert_int_equal(m.n, first.n);
            assert_true(*(float *)tl_plan_data(m.p, m.loss) == loss);
            for (int k = 0; k < m.n; k++) assert_memory_equal(m.data[k], first.data[k], m.bytes[k]);
            model_free(&m);
            tl_engine_destroy(e);
        }
        model_free(&first);
        tl_engine_destroy(one);
    }
}

static void every_cap(void **state) {
    (void)state;
    static const char *const caps[] = {"ref", "avx2", "avx512", "avx512bf16"};
    model base;
    tl_engine *one = engine_of(2, "ref", NULL);
    model_make(&base, one, TL_F32, TL_RECOMPUTE_NONE);
    assert_int_equal(tl_plan_run(base.p), TL_OK);
    for (int c = 1; c < 4; c++) {
        tl_engine *e = engine_of(2, caps[c], NULL);
        model m;
        model_make(&m, e, TL_F32, TL_RECOMPUTE_NONE);
        assert_int_equal(tl_plan_run(m.p), TL_OK);
        assert_near(*(float *)tl_plan_data(m.p, m.loss), *(float *)tl_plan_data(base.p, base.loss), 1e-4);
        for (int k = m.params; k < m.n; k++) {
            const float *x = m.data[k], *y = base.data[k];
            double off = 0, size = 0;
            for (size_t i = 0; i < m.bytes[k] / sizeof *x; i++)
                off = fmax(off, fabs((double)x[i] - (double)y[i])), size = fmax(size, fabs((double)y[i]));
            assert_true(size > 0);
            assert_near(off / size, 0, 1e-3);
        }
        model_free(&m);
        tl_engine_destroy(e);
    }
    model_free(&base);
    tl_engine_destroy(one);
}

/* oneDNN makes small mallocs of its own (docs/KERNELS.md): those are seen with its kernels out of the way. */
static void runs_take_no_memory(void **state) {
    (void)state;
    test_alloc a;
    test_alloc_init(&a);
    for (int pass = 0; pass < 2; pass++) {
        tl_engine *e = engine_of(2, pass ? NULL : "ref", &a.base);
        model m;
        model_make(&m, e, TL_F32, TL_RECOMPUTE_FULL);
        tl_plan_info info;
        tl_plan_info_get(m.p, &info);
        size_t bound = 0;
        for (int i = 0; i < m.n; i++) bound += m.bytes[i];
        assert_int_equal(info.bound_bytes, bound);
        assert_int_equal(tl_plan_run(m.p), TL_OK);
        long ours = a.calls, theirs = test_malloc_calls();
        for (int i = 0; i < 3; i++) assert_int_equal(tl_plan_run(m.p), TL_OK);
        assert_int_equal(tl_plan_run_profiled(m.p), TL_OK);
        assert_int_equal(a.calls, ours);
        if (pass == 0) assert_int_equal(test_malloc_calls(), theirs);
        double seconds = 0;
        tl_step_info s;
        for (size_t i = 0; i < tl_plan_steps(m.p); i++) {
            tl_plan_step(m.p, i, &s);
            assert_true(s.kernel[0] && s.op[0] && s.name[0]);
            seconds += s.seconds;
        }
        assert_true(seconds > 0);
        model_free(&m);
        tl_engine_destroy(e);
    }
    test_alloc_done(&a);
}

static tl_status plan_once(const tl_allocator *a, void *user) {
    (void)user;
    tl_engine *e;
    tl_graph *g = NULL;
    tl_plan *p = NULL;
    tl_engine_options o = {.allocator = a, .threads = 1};
    TRY(tl_engine_create(&o, &e, NULL));
    tl_status s = tl_graph_create(e, &g);
    if (s == TL_OK) {
        tl_tensor *x = tl_input(g, "x", TL_F32, DIMS(70, 64)), *w = tl_param(g, "w", TL_F32, DIMS(64, 64));
        tl_tensor *loss = tl_reduce(g, tl_softmax(g, tl_linear(g, x, w, NULL, TL_NONE)), 0, false);
        tl_graph_backward(g, loss, NULL, 0, NULL, false);
        s = tl_plan_create(g, false, &p, NULL);
    }
    tl_plan_destroy(p);
    tl_graph_destroy(g);
    tl_engine_destroy(e);
    return s;
}

static void failing_allocations(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(plan_once, NULL) > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bits),
        cmocka_unit_test(every_cap),
        cmocka_unit_test(runs_take_no_memory),
        cmocka_unit_test(failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
