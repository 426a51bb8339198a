/* References against PyTorch (vectors_b.h): values, and gradients through the operators that gradient rules emit; over
 * double to the last digits, over float with f32 and bf16 storage within their rounding. */
#include "support/testing.h"

#include "op/examples.h"
#include "op/vectors_b.h"

enum { MOST = 64 };

/* The same numbers as data() of tools/vectors/op_rows.py. */
static double vector_data(int seed, int64_t i) {
    return (double)((i * 7919 + (int64_t)seed * 104729) % 2039 - 1019) / 512;
}

/* A call over memory of its own, all floats of one dtype. */
typedef struct bench {
    const tl_op_def *op;
    int64_t attr[TL_ATTR_MAX / 8];
    tl_op_call c;
    double memory[TL_OP_INS + TL_OP_OUTS][MOST];
    tl_dtype dtype;
} bench;

static tl_desc bench_desc(tl_dtype t, int64_t rows, int64_t last) {
    return rows ? D2(t, rows, last) : D1(t, last);
}

static void bench_open(bench *b, tl_dtype t, const char *op, const void *attr, size_t attr_size) {
    memset(b, 0, sizeof *b);
    b->op = tl_op_find(op);
    b->dtype = t;
    assert_non_null(b->op);
    memcpy(b->attr, attr, attr_size);
    b->c.attr = b->attr;
}
/* rows 0: a vector, which has the dtype of sums */
static void bench_in(bench *b, int i, int64_t rows, int64_t last, int seed) {
    b->c.in[i].d = bench_desc(rows ? b->dtype : example_sum(b->dtype), rows, last);
    b->c.in[i].data = b->memory[i];
    assert_true(tl_desc_count(&b->c.in[i].d) <= MOST);
    for (int64_t k = 0; k < tl_desc_count(&b->c.in[i].d); k++) example_store(&b->c.in[i], k, vector_data(seed, k));
}
/* Runs the reference of the dtype; outputs as inferred. */
static void bench_run(bench *b) {
    tl_error err = {0};
    tl_op_infer s = {.attr = b->attr, .err = &err};
    for (int i = 0; i < TL_OP_INS; i++)
        if (b->c.in[i].data) s.in[i] = &b->c.in[i].d;
    if (b->op->shape(&s) != TL_OK) print_message("%s\n", err.text);
    assert_int_equal(err.code, TL_OK);
    for (int k = 0; k < TL_OP_OUTS; k++) {
        b->c.out[k].d = s.out[k];
        if (s.out[k].dtype != TL_NONE) b->c.out[k].data = b->memory[TL_OP_INS + k];
    }
    if (b->dtype == TL_F64)
        b->op->ref_f64(&b->c);
    else
        b->op->ref_f32(&b->c);
}
static void bench_is(const bench *b, int k, const double *want, size_t n) {
    const tl_arg *y = &b->c.out[k];
    double tol = b->dtype == TL_F64 ? 1e-12 : b->dtype == TL_F32 ? 2e-5 : 0.06;
    assert_int_equal(tl_desc_count(&y->d), n);
    for (size_t i = 0; i < n; i++) {
        double got = example_load(y, (int64_t)i);
        bool good = fabs(got - want[i]) <= tol * fmax(1, fabs(want[i]));
        if (!good)
            print_message("%s %s: out %d [%zu] = %.17g, not %.17g\n", b->op->name, tl_dtype_name(b->dtype), k, i, got,
                          want[i]);
        assert_true(good);
    }
}
#define IS(b, k, want) bench_is(b, k, want, sizeof(want) / sizeof(want)[0])
/* Output k of one call as input i of the next, of the same element type. */
static void bench_carry(bench *to, int i, const bench *from, int k) {
    to->c.in[i].d = from->c.out[k].d;
    to->c.in[i].data = to->memory[i];
    memcpy(to->memory[i], from->memory[TL_OP_INS + k], sizeof to->memory[i]);
}
#define OPEN(b, t, op)                                                                                                 \
    struct op##_attr op = {0};                                                                                         \
    bench_open(b, t, #op, &op, sizeof op)
#define ATTR_SET(b, a) memcpy((b)->attr, &(a), sizeof(a))

static const tl_dtype tested[3] = {TL_F64, TL_F32, TL_BF16};

static void test_linear(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        bench f, x, w;
        OPEN(&f, tested[t], linear);
        bench_in(&f, 0, 3, 5, 1);
        bench_in(&f, 1, 4, 5, 2);
        bench_in(&f, 2, 0, 4, 3);
        bench_run(&f);
        IS(&f, 0, linear_y);
        OPEN(&x, tested[t], linear_dx);
        bench_in(&x, 0, 3, 4, 99);
        bench_in(&x, 1, 4, 5, 2);
        bench_run(&x);
        IS(&x, 0, linear_d0);
        OPEN(&w, tested[t], linear_dw);
        bench_in(&w, 0, 3, 4, 99);
        bench_in(&w, 1, 3, 5, 1);
        bench_run(&w);
        IS(&w, 0, linear_d1);
        IS(&w, 1, linear_d2);
    }
}

static void test_layernorm(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        bench f, b;
        OPEN(&f, tested[t], layernorm);
        layernorm.eps = 1e-5f;
        ATTR_SET(&f, layernorm);
        bench_in(&f, 0, 3, 6, 1);
        bench_in(&f, 1, 0, 6, 2);
        bench_in(&f, 2, 0, 6, 3);
        bench_run(&f);
        IS(&f, 0, layernorm_y);
        OPEN(&b, tested[t], layernorm_bwd);
        bench_in(&b, 0, 3, 6, 99);
        bench_in(&b, 1, 3, 6, 1);
        bench_in(&b, 2, 0, 6, 2);
        bench_carry(&b, 3, &f, 1);
        bench_carry(&b, 4, &f, 2);
        bench_run(&b);
        IS(&b, 0, layernorm_d0);
        IS(&b, 1, layernorm_d1);
        IS(&b, 2, layernorm_d2);
    }
}

static void rmsnorm_case(tl_dtype t, float offset, const double *y, const double *d0, const double *d1) {
    bench f, b;
    OPEN(&f, t, rmsnorm);
    rmsnorm.eps = 1e-6f;
    rmsnorm.offset = offset;
    ATTR_SET(&f, rmsnorm);
    bench_in(&f, 0, 3, 6, 1);
    bench_in(&f, 1, 0, 6, 2);
    bench_run(&f);
    bench_is(&f, 0, y, 18);
    OPEN(&b, t, rmsnorm_bwd);
    rmsnorm_bwd.eps = 1e-6f;
    rmsnorm_bwd.offset = offset;
    ATTR_SET(&b, rmsnorm_bwd);
    bench_in(&b, 0, 3, 6, 99);
    bench_in(&b, 1, 3, 6, 1);
    bench_in(&b, 2, 0, 6, 2);
    bench_carry(&b, 3, &f, 1);
    bench_run(&b);
    bench_is(&b, 0, d0, 18);
    bench_is(&b, 1, d1, 6);
}

static void test_rmsnorm(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        rmsnorm_case(tested[t], 0, rmsnorm_y, rmsnorm_d0, rmsnorm_d1);
        rmsnorm_case(tested[t], 1, rmsnorm1_y, rmsnorm1_d0, rmsnorm1_d1);
    }
}

static void test_scalenorm(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        bench f, b;
        OPEN(&f, tested[t], scalenorm);
        bench_in(&f, 0, 3, 6, 1);
        bench_in(&f, 1, 0, 1, 2);
        bench_run(&f);
        IS(&f, 0, scalenorm_y);
        OPEN(&b, tested[t], scalenorm_bwd);
        bench_in(&b, 0, 3, 6, 99);
        bench_in(&b, 1, 3, 6, 1);
        bench_in(&b, 2, 0, 1, 2);
        bench_carry(&b, 3, &f, 1);
        bench_run(&b);
        IS(&b, 0, scalenorm_d0);
        IS(&b, 1, scalenorm_d1);
    }
}

static void test_act(void **state) {
    (void)state;
    static const struct {
        int32_t kind;
        const double *y, *d0;
    } rows[] = {{ACT_RELU, act_relu_y, act_relu_d0},
                {ACT_GELU, act_gelu_y, act_gelu_d0},
                {ACT_GELU_TANH, act_gelu_tanh_y, act_gelu_tanh_d0},
                {ACT_SILU, act_silu_y, act_silu_d0},
                {ACT_RELU2, act_relu2_y, act_relu2_d0},
                {ACT_SIGMOID, act_sigmoid_y, act_sigmoid_d0},
                {ACT_TANH, act_tanh_y, act_tanh_d0}};
    for (int t = 0; t < 3; t++)
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            bench f, b;
            OPEN(&f, tested[t], act);
            act.kind = rows[i].kind;
            ATTR_SET(&f, act);
            bench_in(&f, 0, 1, 8, 4);
            bench_run(&f);
            bench_is(&f, 0, rows[i].y, 8);
            OPEN(&b, tested[t], act_bwd);
            act_bwd.kind = rows[i].kind;
            ATTR_SET(&b, act_bwd);
            bench_in(&b, 0, 1, 8, 99);
            bench_in(&b, 1, 1, 8, 4);
            bench_run(&b);
            bench_is(&b, 0, rows[i].d0, 8);
        }
}

static void glu_case(tl_dtype t, int32_t kind, const double *y, const double *d0, const double *d1) {
    bench f, b;
    OPEN(&f, t, glu);
    glu.kind = kind;
    ATTR_SET(&f, glu);
    bench_in(&f, 0, 2, 3, 4);
    bench_in(&f, 1, 2, 3, 5);
    bench_run(&f);
    bench_is(&f, 0, y, 6);
    OPEN(&b, t, glu_bwd);
    glu_bwd.kind = kind;
    ATTR_SET(&b, glu_bwd);
    bench_in(&b, 0, 2, 3, 99);
    bench_in(&b, 1, 2, 3, 4);
    bench_in(&b, 2, 2, 3, 5);
    bench_run(&b);
    bench_is(&b, 0, d0, 6);
    bench_is(&b, 1, d1, 6);
}

static void test_glu(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        glu_case(tested[t], ACT_SILU, swiglu_y, swiglu_d0, swiglu_d1);
        glu_case(tested[t], ACT_GELU_TANH, geglu_y, geglu_d0, geglu_d1);
    }
}

static void test_softmax_and_softcap(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        bench f, b;
        OPEN(&f, tested[t], softmax);
        bench_in(&f, 0, 2, 5, 6);
        bench_run(&f);
        IS(&f, 0, softmax_y);
        OPEN(&b, tested[t], softmax_bwd);
        bench_in(&b, 0, 2, 5, 99);
        bench_carry(&b, 1, &f, 0);
        bench_run(&b);
        IS(&b, 0, softmax_d0);
        OPEN(&f, tested[t], softcap);
        softcap.cap = 1.5f;
        ATTR_SET(&f, softcap);
        bench_in(&f, 0, 2, 5, 6);
        bench_run(&f);
        IS(&f, 0, softcap_y);
        OPEN(&b, tested[t], softcap_bwd);
        softcap_bwd.cap = 1.5f;
        ATTR_SET(&b, softcap_bwd);
        bench_in(&b, 0, 2, 5, 99);
        bench_carry(&b, 1, &f, 0);
        bench_run(&b);
        IS(&b, 0, softcap_d0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),
        cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_rmsnorm),
        cmocka_unit_test(test_scalenorm),
        cmocka_unit_test(test_act),
        cmocka_unit_test(test_glu),
        cmocka_unit_test(test_softmax_and_softcap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
