/* Gated attention and mixed chunks at sizes with several tiles, windows, slices and segments: kernels against the
 * references in double, the same bits for any number of threads; and properties of the mathematics that hold between
 * operators (docs/attention.md lists them). */
#include "engine/engine.h"
#include "op/examples.h"
#include "support/testing.h"

typedef struct rig {
    tl_engine *one, *three;
} rig;

static int setup(void **state) {
    static rig r;
    tl_error e;
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &r.one, &e), &e);
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 3}, &r.three, &e), &e);
    *state = &r;
    return 0;
}
static int teardown(void **state) {
    rig *r = *state;
    tl_engine_destroy(r->one);
    tl_engine_destroy(r->three);
    return 0;
}

static void run(tl_engine *e, const example_call *x) {
    tl_error err;
    tl_arg out[TL_OP_OUTS];
    memcpy(out, x->call.out, sizeof out);
    assert_ok(tl_eval(e, x->op, x->example->attr, x->call.in, x->op->n_in, out, x->op->n_out, x->call.acc, &err), &err);
}

static double largest(const tl_arg *a) {
    double most = 0;
    int64_t last = tl_desc_last(&a->d);
    for (int64_t i = 0; i < tl_desc_count(&a->d); i++)
        if (isfinite(example_load(a, tl_desc_row(&a->d, i / last) + i % last)))
            most = fmax(most, fabs(example_load(a, tl_desc_row(&a->d, i / last) + i % last)));
    return most;
}

static double apart(const tl_arg *a, const tl_arg *b) {
    double worst = 0;
    int64_t last = tl_desc_last(&a->d);
    assert_true(tl_desc_same_shape(&a->d, &b->d));
    for (int64_t i = 0; i < tl_desc_count(&a->d); i++) {
        double u = example_load(a, tl_desc_row(&a->d, i / last) + i % last);
        double v = example_load(b, tl_desc_row(&b->d, i / last) + i % last), d = u == v ? 0 : fabs(u - v);
        if (!(d <= worst)) worst = d;
    }
    return worst;
}

/* ---- kernels at larger sizes ------------------------------------------------------------------------------- */

static void check_example(rig *r, const op_example *e) {
    example_call ref, x, y;
    tl_error err;
    if (!example_open_err(e, 3, &ref, &err)) fail_msg("%s: %s", e->op, err.text);
    assert_true(example_open(e, 3, &x) && example_open(e, 3, &y));
    ref.op->ref_f64(&ref.call);
    run(r->one, &x);
    run(r->three, &y);
    for (int k = 0; k < TL_OP_OUTS; k++) {
        if (!x.call.out[k].data) continue;
        assert_memory_equal(x.call.out[k].data, y.call.out[k].data, x.out_bytes[k]);
        double top = largest(&ref.call.out[k]), d = apart(&ref.call.out[k], &x.call.out[k]);
        double tol = e->in[0].dtype == TL_F32 ? 3e-5 : 1.6e-2;
        if (!(d <= tol * top + 1e-7)) fail_msg("%s, %s: output %d is off by %g of %g", e->op, e->label, k, d, top);
    }
    example_close(&ref);
    example_close(&x);
    example_close(&y);
}

static void large_attention(void **state) {
    static const int64_t some[] = {2, 140, 12, 200}, deep[] = {1, 262, 8, 400};
    op_examples list = {NULL, 0, 0};
    examples_gau_one(&list, TL_F32, some, example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0),
                     GAU_WITH_BIAS | GAU_WITH_THETA, "a");
    examples_gau_one(&list, TL_F32, some, example_gate(GATE_SOFTMAX, 0, 1, 0), GAU_WITH_DOC | GAU_WITH_SINK,
                     "padded b");
    examples_gau_one(&list, TL_F32, deep, example_gate(GATE_SOFTMAX, 0, 0, 0), 0, "c");
    examples_gau_one(&list, TL_BF16, deep, example_gate(GATE_L2, 0, 1, 0), 0, "d");
    examples_gau_one(&list, TL_F32, some, example_gate(GATE_RELU2_SUM, 0, 0, 0), GAU_WITH_BIAS, "e");
    for (size_t i = 0; i < list.n; i++) check_example(*state, &list.e[i]);
    examples_free(&list);
}

static void large_chunks(void **state) {
    static const int64_t many[] = {1, 1100, 4, 24, 20}, wide[] = {1, 100, 8, 780, 24}, long_[] = {1, 400, 8, 24, 300};
    struct gate_attr f = example_gate(GATE_RELU2, GATE_COUNT_VISIBLE, 1, 0);
    op_examples list = {NULL, 0, 0};
    examples_chunk_one(&list, TL_F32, many, f, 0, GAU_WITH_STATE | GAU_WITH_DSTATE, "windows");
    examples_chunk_one(&list, TL_F32, many, f, 0, GAU_WITH_DOC | GAU_WITH_BIAS, "padded documents");
    examples_chunk_one(&list, TL_F32, wide, f, CHUNK_CONST, GAU_WITH_BIAS | GAU_WITH_THETA, "slices");
    examples_chunk_one(&list, TL_BF16, wide, f, 0, 0, "slices");
    examples_chunk_one(&list, TL_F32, long_, f, 0, GAU_WITH_DSTATE, "long chunks");
    f.causal = 0;
    examples_chunk_one(&list, TL_F32, long_, f, 0, GAU_WITH_BIAS, "both ways");
    examples_chunk_one(&list, TL_F32, many, f, 0, GAU_WITH_DOC, "both ways, padded documents");
    examples_chunk_one(&list, TL_F32, wide, f, CHUNK_CONST, 0, "both ways");
    for (size_t i = 0; i < list.n; i++) check_example(*state, &list.e[i]);
    examples_free(&list);
}

static void large_features(void **state) {
    op_examples list = {NULL, 0, 0};
    examples_gau_features(&list, TL_F32, 101, 65, 130, 33);
    examples_gau_features(&list, TL_BF16, 64, 48, 32, 16);
    for (size_t i = 0; i < list.n; i++) check_example(*state, &list.e[i]);
    examples_free(&list);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(large_attention), cmocka_unit_test(large_chunks),
                                       cmocka_unit_test(large_features)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
