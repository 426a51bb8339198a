/* Gradients of small composites against central differences; recomputation against keeping. */
#include "graph/host.h"

typedef struct model {
    tl_graph *g;
    tl_tensor *loss;
    int64_t ids[12];
} model;

/* Builds a scalar in f64 over parameters; every builder gets a graph of its own. */
typedef tl_tensor *(*build_fn)(tl_graph *g);

/* x used three times, once doubly by one operator */
static tl_tensor *build_shared(tl_graph *g) {
    tl_tensor *x = tl_param(g, "x", TL_F64, DIMS(3, 4)), *w = tl_param(g, "w", TL_F64, DIMS(4, 4));
    tl_tensor *a = tl_mul(g, x, x);
    tl_tensor *b = tl_add(g, a, tl_linear(g, x, w, NULL, TL_NONE));
    tl_tensor *c = tl_add(g, b, b);
    tl_tensor *d = tl_linear_add(g, c, tl_act(g, b, TL_ACT_TANH), w, NULL);
    return tl_reduce(g, tl_mul(g, d, tl_act(g, c, TL_ACT_SIGMOID)), 0, true);
}

/* a transformer block's shape of sharing: residuals, split, rope, attention, views of views, glu, tied weights */
static tl_tensor *build_block(tl_graph *g) {
    enum { B = 1, T = 4, H = 2, DH = 4, D = 8, F = 6 };
    tl_tensor *x = tl_param(g, "x", TL_F64, DIMS(B, T, D)), *gain = tl_param(g, "gain", TL_F64, DIMS(D));
    tl_tensor *wqkv = tl_param(g, "wqkv", TL_F64, DIMS(3 * D, D)), *wo = tl_param(g, "wo", TL_F64, DIMS(D, D));
    tl_tensor *wi = tl_param(g, "wi", TL_F64, DIMS(2 * F, D)), *wd = tl_param(g, "wd", TL_F64, DIMS(D, F));
    tl_tensor *table = tl_input(g, "table", TL_F64, DIMS(B, T, DH));
    tl_tensor *qkv[3], *gu[2];
    tl_tensor *h = tl_rmsnorm(g, x, gain, 1e-5f, 0);
    tl_split(g, tl_linear(g, h, wqkv, NULL, TL_NONE), 3, (int64_t[]){D, D, D}, qkv);
    for (int i = 0; i < 3; i++) qkv[i] = tl_reshape(g, qkv[i], DIMS(B, T, H, DH));
    tl_tensor *q = tl_rope(g, qkv[0], table, false), *k = tl_rope(g, qkv[1], table, false);
    tl_tensor *o = tl_attention(g, q, k, qkv[2], &(tl_attention_options){.causal = true}, NULL);
    tl_tensor *y = tl_linear_add(g, x, tl_reshape(g, o, DIMS(B, T, D)), wo, NULL);
    tl_tensor *z = tl_rmsnorm(g, y, gain, 1e-5f, 1);
    tl_split(g, tl_linear(g, z, wi, NULL, TL_NONE), 2, (int64_t[]){F, F}, gu);
    y = tl_linear_add(g, y, tl_glu(g, gu[0], gu[1], TL_ACT_SILU), wd, NULL);
    return tl_reduce(g, tl_mul(g, y, tl_act(g, y, TL_ACT_GELU)), 0, false);
}

/* parts of a tensor of which one is not used, put together again in another order */
static tl_tensor *build_parts(tl_graph *g) {
    tl_tensor *x = tl_param(g, "x", TL_F64, DIMS(2, 3, 9)), *part[3];
    tl_split(g, x, 3, (int64_t[]){2, 4, 3}, part);
    tl_tensor *a = tl_act(g, part[0], TL_ACT_TANH);
    tl_tensor *y = tl_concat(g, (tl_tensor *[]){tl_scale(g, part[2], 3), a, tl_mul(g, a, part[0])}, 3);
    tl_tensor *flat = tl_reshape(g, y, DIMS(6, 7));
    tl_tensor *s = tl_softmax(g, flat), *parts[2];
    tl_split(g, s, 2, (int64_t[]){3, 4}, parts);
    return tl_reduce(g, tl_softcap(g, tl_reshape(g, parts[1], DIMS(24)), 2), 0, false);
}

/* the loss head's own gradients, with a tied table that is used as an embedding too */
static tl_tensor *build_head(tl_graph *g) {
    tl_tensor *table = tl_param(g, "table", TL_F64, DIMS(7, 4)), *ids = tl_input(g, "ids", TL_I32, DIMS(2, 3));
    tl_tensor *targets = tl_input(g, "targets", TL_I32, DIMS(2, 3)), *denom = tl_const(g, "denom", TL_F64, DIMS(1));
    tl_tensor *h = tl_embedding(g, ids, table, 2, TL_NONE, NULL);
    h = tl_layernorm(g, tl_embedding(g, targets, table, 1, TL_NONE, h), NULL, NULL, 1e-5f);
    return tl_loss_head(g, h, table, targets, denom, &(tl_loss_options){.smoothing = 0.1f, .zloss = 0.01f}, NULL);
}

/* the same as a part of a larger loss: its gradient is not one */
static tl_tensor *build_head_inside(tl_graph *g) {
    tl_tensor *loss = build_head(g);
    return tl_reduce(g, tl_mul(g, loss, tl_act(g, loss, TL_ACT_TANH)), 0, false);
}

static void fill_special(tl_graph *g, test_memory *m) {
    for (size_t i = 0; i < g->n_tensors; i++) {
        const tl_tensor *t = g->tensors[i];
        void *data = test_data_of(m, t);
        if (!data) continue;
        for (int64_t k = 0; t->d.dtype == TL_I32 && k < tl_desc_count(&t->d); k++)
            ((int32_t *)data)[k] = (int32_t)(((uint64_t)k * 5 + i) % 7);
        if (!strcmp(tl_tensor_name(t), "denom")) *(double *)data = 4;
    }
}

static double value_of(tl_plan *p, tl_tensor *loss) {
    assert_int_equal(tl_plan_run(p), TL_OK);
    return *(double *)tl_plan_data(p, loss);
}

static void check_differences(build_fn build) {
    test_host h;
    tl_engine *e = test_host_init(&h, &mem_default);
    tl_graph *g, *f;
    tl_plan *p, *q;
    tl_error err;
    assert_int_equal(tl_graph_create(e, &g), TL_OK);
    assert_int_equal(tl_graph_create(e, &f), TL_OK);
    tl_tensor *loss = build(g), *value = build(f);
    tl_graph_backward(g, loss, NULL, 0, NULL, false);
    tl_output(f, value, "loss");
    assert_ok(tl_plan_create(g, false, &p, &err), &err);
    assert_ok(tl_plan_create(f, false, &q, &err), &err);
    test_memory m = {.n = 0}, n = {.n = 0};
    test_bind_all(g, p, &m);
    test_bind_all(f, q, &n);
    fill_special(g, &m);
    fill_special(f, &n);
    for (int i = 0; i < n.n; i++) memcpy(m.b[i].data, n.b[i].data, n.b[i].bytes); /* the same inputs, in this order */
    assert_int_equal(tl_plan_run(p), TL_OK);
    int params = 0;
    for (int i = 0; i < n.n; i++) {
        const tl_tensor *t = m.b[i].t;
        assert_string_equal(tl_tensor_name(t), tl_tensor_name(n.b[i].t));
        if (t->kind != TENSOR_PARAM) continue;
        params++;
        assert_non_null(tl_param_grad(g, t));
        const double *d = test_data_of(&m, tl_param_grad(g, t));
        double *x = n.b[i].data, scale = 1;
        for (int64_t k = 0; k < tl_desc_count(&t->d); k++) scale = fmax(scale, fabs(d[k]));
        for (int64_t k = 0; k < tl_desc_count(&t->d); k++) {
            double was = x[k], step = 1e-5;
            x[k] = was + step;
            double up = value_of(q, value);
            x[k] = was - step;
            double down = value_of(q, value);
            x[k] = was;
            assert_near(d[k], (up - down) / (2 * step), 1e-7 * scale);
        }
    }
    assert_true(params > 0);
    tl_plan_destroy(p), tl_plan_destroy(q);
    tl_graph_destroy(g), tl_graph_destroy(f);
    test_memory_free(&m), test_memory_free(&n);
    test_host_fini(&h);
}

static void shared_tensors(void **state) {
    (void)state;
    check_differences(build_shared);
}

static void a_transformer_block(void **state) {
    (void)state;
    check_differences(build_block);
}

static void parts_and_views(void **state) {
    (void)state;
    check_differences(build_parts);
}

static void fused_loss_head(void **state) {
    (void)state;
    check_differences(build_head);
}

static void loss_head_inside(void **state) {
    (void)state;
    check_differences(build_head_inside);
}

/* Blocks run again: the same bits, less memory. */
static tl_tensor *build_deep(tl_graph *g, int layers) {
    enum { R = 16, D = 12 };
    tl_tensor *x = tl_input(g, "x", TL_F32, DIMS(R, D));
    char name[16];
    for (int i = 0; i < layers; i++) {
        tl_block_begin(g);
        snprintf(name, sizeof name, "w%d", i);
        tl_tensor *w = tl_param(g, name, TL_F32, DIMS(4 * D, D));
        snprintf(name, sizeof name, "v%d", i);
        tl_tensor *v = tl_param(g, name, TL_F32, DIMS(D, 2 * D));
        tl_tensor *gu[2];
        tl_split(g, tl_linear(g, tl_rmsnorm(g, x, NULL, 1e-6f, 1), w, NULL, TL_NONE), 2, (int64_t[]){2 * D, 2 * D}, gu);
        tl_tensor *h = tl_dropout(g, tl_glu(g, gu[0], gu[1], TL_ACT_SILU), 0.25f);
        x = tl_linear_add(g, x, h, v, NULL);
        tl_block_end(g);
    }
    return tl_reduce(g, tl_mul(g, x, x), 0, true);
}

/* What is bound under one name holds the same bits; gradients are not all zero. */
static void same_memory(const test_memory *a, const test_memory *b, int gradients) {
    int compared = 0;
    for (int k = 0; k < a->n; k++) {
        const tl_tensor *t = a->b[k].t;
        for (int j = 0; j < b->n; j++) {
            if (strcmp(tl_tensor_name(t), tl_tensor_name(b->b[j].t)) != 0) continue;
            assert_memory_equal(a->b[k].data, b->b[j].data, a->b[k].bytes);
            float most = 0;
            for (int64_t i = 0; t->kind == TENSOR_GRAD && i < tl_desc_count(&t->d); i++)
                most = fmaxf(most, fabsf(((float *)a->b[k].data)[i]));
            if (t->kind == TENSOR_GRAD) compared++, assert_true(most > 0);
        }
    }
    assert_int_equal(compared, gradients);
}

static void recompute_same_bits(void **state) {
    (void)state;
    enum { LAYERS = 6, LEVELS = TL_RECOMPUTE_LEVELS };
    test_host h;
    tl_engine *e = test_host_init(&h, &mem_default);
    test_memory m[LEVELS];
    tl_graph *g[LEVELS];
    tl_plan *p[LEVELS];
    tl_error err;
    tl_plan_info info[LEVELS];
    memset(m, 0, sizeof m);
    for (int i = 0; i < LEVELS; i++) {
        assert_int_equal(tl_graph_create(e, &g[i]), TL_OK);
        tl_tensor *loss = build_deep(g[i], LAYERS);
        tl_graph_backward(g[i], loss, NULL, 0, NULL, (tl_recompute)i);
        tl_output(g[i], loss, "loss");
        assert_ok(tl_plan_create(g[i], false, &p[i], &err), &err);
        test_bind_all(g[i], p[i], &m[i]);
        for (int k = 0; k < m[i].n; k++)
            test_fill(m[i].b[k].t, m[i].b[k].data,
                      strlen(tl_tensor_name(m[i].b[k].t)) + (uint64_t)tl_tensor_name(m[i].b[k].t)[1]);
        tl_plan_run_info(p[i], &(tl_run_info){.seed = 7, .step = 3});
        assert_int_equal(tl_plan_run(p[i]), TL_OK);
        tl_plan_info_get(p[i], &info[i]);
    }
    for (int i = 1; i < LEVELS; i++) { /* less memory for more work; without a mixer of tokens full is what wide is */
        const bool more = i < TL_RECOMPUTE_FULL;
        assert_true(more ? info[i].arena_bytes < info[i - 1].arena_bytes
                         : info[i].arena_bytes == info[i - 1].arena_bytes);
        assert_true(more ? info[i].cost.flops > info[i - 1].cost.flops : info[i].cost.flops == info[i - 1].cost.flops);
        assert_true(info[i].steps > info[0].steps);
        same_memory(&m[0], &m[i], 2 * LAYERS);
    }
    for (int i = 0; i < LEVELS; i++) tl_plan_destroy(p[i]), tl_graph_destroy(g[i]), test_memory_free(&m[i]);
    test_host_fini(&h);
}

/* dwrt of inputs and of values in the middle; what the result does not depend on has none */
static void with_respect_to(void **state) {
    (void)state;
    test_host h;
    tl_engine *e = test_host_init(&h, &mem_default);
    tl_graph *g;
    assert_int_equal(tl_graph_create(e, &g), TL_OK);
    tl_tensor *x = tl_input(g, "x", TL_F64, DIMS(4)), *z = tl_input(g, "z", TL_F64, DIMS(4)),
              *dy = tl_input(g, "dy", TL_F64, DIMS(4));
    tl_tensor *a = tl_scale(g, x, 3), *y = tl_add(g, tl_mul(g, a, a), a);
    tl_tensor *d[3];
    tl_graph_vjp(g, y, dy, (tl_tensor *[]){x, z, a}, 3, d);
    assert_non_null(d[0]);
    assert_null(d[1]);
    assert_non_null(d[2]);
    tl_output(g, d[0], "dx"), tl_output(g, d[2], "da");
    tl_error err;
    tl_plan *p;
    assert_ok(tl_plan_create(g, false, &p, &err), &err);
    test_memory m = {.n = 0};
    test_bind_all(g, p, &m);
    double before[4];
    memcpy(before, test_data_of(&m, dy), sizeof before);
    assert_int_equal(tl_plan_run(p), TL_OK);
    const double *xs = test_data_of(&m, x), *dys = test_data_of(&m, dy);
    assert_memory_equal(before, dys, sizeof before); /* the caller's input is not added into */
    for (int i = 0; i < 4; i++) {
        double da = dys[i] * (2 * 3 * xs[i] + 1);
        assert_near(((double *)tl_plan_data(p, d[2]))[i], da, 1e-12);
        assert_near(((double *)tl_plan_data(p, d[0]))[i], 3 * da, 1e-12);
    }
    tl_plan_destroy(p), tl_graph_destroy(g), test_memory_free(&m), test_host_fini(&h);
}

/* Parameters in bf16 have f32 gradients, even where the operator gives bf16. */
static void wide_gradients(void **state) {
    (void)state;
    test_host h;
    tl_engine *e = test_host_init(&h, &mem_default);
    tl_graph *g;
    assert_int_equal(tl_graph_create(e, &g), TL_OK);
    tl_tensor *p = tl_param(g, "p", TL_BF16, DIMS(8)), *x = tl_input(g, "x", TL_BF16, DIMS(8));
    tl_graph_backward(g, tl_reduce(g, tl_mul(g, p, x), 0, false), NULL, 0, NULL, false);
    tl_error err;
    tl_plan *plan;
    assert_ok(tl_plan_create(g, false, &plan, &err), &err);
    assert_int_equal(tl_tensor_desc(tl_param_grad(g, p))->dtype, TL_F32);
    uint16_t one[8], xs[8];
    float grad[8];
    for (int i = 0; i < 8; i++) one[i] = 0x3f80, xs[i] = 0x4000, grad[i] = 0.25f;
    tl_plan_bind(plan, p, one), tl_plan_bind(plan, x, xs), tl_plan_bind(plan, tl_param_grad(g, p), grad);
    assert_int_equal(tl_plan_run(plan), TL_OK);
    for (int i = 0; i < 8; i++) assert_true(grad[i] == 2.25f);
    tl_plan_destroy(plan), tl_graph_destroy(g), test_host_fini(&h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shared_tensors),  cmocka_unit_test(a_transformer_block), cmocka_unit_test(parts_and_views),
        cmocka_unit_test(fused_loss_head), cmocka_unit_test(loss_head_inside),    cmocka_unit_test(recompute_same_bits),
        cmocka_unit_test(with_respect_to), cmocka_unit_test(wide_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
