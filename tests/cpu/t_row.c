/* Row kernels against the reference: the examples that the operators' own tests use, then larger ones. */
#include "rows.h"

#include "base/rng.h"
#include "cpu/row/row.h"

#include <math.h>

static const char *const mine[] = {
#define X(name) #name,
    ROW_LEAVES(X)
#undef X
};

static bool is_mine(const char *op) {
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++)
        if (!strcmp(mine[i], op)) return true;
    return false;
}

static void test_examples(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    examples_all(&l);
    int taken = 0;
    for (size_t i = 0; i < l.n; i++)
        if (is_mine(l.e[i].op)) taken += rows_check(&l.e[i], 300); /* sums cancel */
    if (isa_probe() & ISA_AVX2) assert_true(taken > 100);
    examples_free(&l);
}

static const int64_t widths[] = {1, 15, 16, 17, 50, 64, 100, 1000};

static void norms(op_examples *l, tl_dtype t, int64_t rows, int64_t D, int64_t pad, uint32_t acc) {
    struct layernorm_attr ln = {1e-5f};
    struct layernorm_bwd_attr lb = {1e-5f};
    struct rmsnorm_attr rn = {1e-5f, 1.0f};
    struct rmsnorm_bwd_attr rb = {1e-5f, 1.0f};
    struct scalenorm_attr sn = {1e-5f};
    struct scalenorm_bwd_attr sb = {1e-5f};
    const tl_desc x = example_view(D2(t, rows, D), pad), v = D1(TL_F32, D), one = D1(TL_F32, 1), s = D1(TL_F32, rows);
    const size_t from = l->n;
    op_example *e = example_add(l, "layernorm", &ln, sizeof ln, "");
    example_in(e, 0, x, FILL_NORMAL), example_in(e, 1, v, FILL_NORMAL), example_in(e, 2, v, FILL_NORMAL);
    e = example_add(l, "layernorm_bwd", &lb, sizeof lb, "");
    example_in(e, 0, x, FILL_NORMAL), example_in(e, 1, x, FILL_NORMAL), example_in(e, 2, v, FILL_NORMAL);
    example_in(e, 3, s, FILL_NORMAL), example_in(e, 4, s, FILL_POSITIVE);
    e->acc = acc & 7;
    e = example_add(l, "rmsnorm", &rn, sizeof rn, "");
    example_in(e, 0, x, FILL_NORMAL), example_in(e, 1, v, FILL_NORMAL);
    e = example_add(l, "rmsnorm_bwd", &rb, sizeof rb, "");
    example_in(e, 0, x, FILL_NORMAL), example_in(e, 1, x, FILL_NORMAL), example_in(e, 2, v, FILL_NORMAL);
    example_in(e, 3, s, FILL_POSITIVE);
    e->acc = acc & 3;
    e = example_add(l, "scalenorm", &sn, sizeof sn, "");
    example_in(e, 0, x, FILL_NORMAL), example_in(e, 1, one, FILL_NORMAL);
    e = example_add(l, "scalenorm_bwd", &sb, sizeof sb, "");
    example_in(e, 0, x, FILL_NORMAL), example_in(e, 1, x, FILL_NORMAL), example_in(e, 2, one, FILL_NORMAL);
    example_in(e, 3, s, FILL_POSITIVE);
    e->acc = acc & 3;
    for (size_t i = from; i < l->n; i++) {
        l->e[i].out_pad = i % 2 ? pad : 0;
        snprintf(l->e[i].label, sizeof l->e[i].label, "%s %dx%d pad%d acc%d", tl_dtype_name(t), (int)rows, (int)D,
                 (int)pad, (int)acc);
    }
}

static void test_norms(void **state) {
    (void)state;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int i = 0; i < 4; i++) {
            op_examples l = {NULL, 0, 0};
            const int64_t D = widths[w], rows = D > 100 ? 70 : 333;
            norms(&l, i & 1 ? TL_BF16 : TL_F32, rows, D, i & 2 ? 3 : 0, i & 2 ? 7 : 0);
            for (size_t k = 0; k < l.n; k++) rows_check(&l.e[k], 300);
            examples_free(&l);
        }
}

static void one(op_examples *l, const char *op, const void *attr, size_t size, int n_in, tl_desc x, uint32_t acc) {
    op_example *e = example_add(l, op, attr, size, tl_dtype_name(x.dtype));
    for (int i = 0; i < n_in; i++) example_in(e, i, x, FILL_NORMAL);
    e->acc = acc;
}

static void test_maps(void **state) {
    (void)state;
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int i = 0; i < 4; i++) {
            op_examples l = {NULL, 0, 0};
            const tl_desc x = example_view(D2(i & 1 ? TL_BF16 : TL_F32, 11, widths[w]), i & 2 ? 1 : 0);
            for (int32_t kind = 0; kind < ACT_KINDS; kind++) {
                one(&l, "act", &kind, sizeof kind, 1, x, 0);
                one(&l, "act_bwd", &kind, sizeof kind, 2, x, i & 2 ? 1 : 0);
                one(&l, "glu", &kind, sizeof kind, 2, x, 0);
                one(&l, "glu_bwd", &kind, sizeof kind, 3, x, 0);
            }
            const float cap = 1.5f;
            one(&l, "add", NULL, 0, 2, x, 0);
            one(&l, "mul", NULL, 0, 2, x, i & 2 ? 1 : 0);
            one(&l, "scale", &cap, sizeof cap, 1, x, i & 2 ? 1 : 0);
            one(&l, "softmax", NULL, 0, 1, x, 0);
            one(&l, "softmax_bwd", NULL, 0, 2, x, i & 2 ? 1 : 0);
            one(&l, "softcap", &cap, sizeof cap, 1, x, 0);
            one(&l, "softcap_bwd", &cap, sizeof cap, 2, x, i & 2 ? 1 : 0);
            const struct dropout_attr drop = {0.3f, 12};
            one(&l, "dropout", &drop, sizeof drop, 1, x, i & 2 ? 1 : 0);
            for (size_t k = 0; k < l.n; k++) assert_true(rows_check(&l.e[k], 40) || !(isa_probe() & ISA_AVX2));
            examples_free(&l);
        }
}

/* The bounds that cpu/simd.h states, in units of the last place, over every exponent and both signs. */
static double ulps(float got, double want) {
    const float nearest = (float)want;
    if (isnan(want)) return isnan(got) ? 0 : INFINITY;
    if (isinf(nearest)) return got == nearest ? 0 : INFINITY;
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1, (e < -125 ? -125 : e) - 24);
}
static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static void check_function(row_function *f, int which, double (*exact)(double), double lo, double hi, double bound) {
    enum { N = 1024 };
    for (uint64_t at = 0; at < (uint64_t)1 << 32; at += 6007 * N) {
        float x[N], y[N];
        for (uint64_t i = 0; i < N; i++) {
            const uint32_t u = (uint32_t)(at + i * 6007);
            memcpy(&x[i], &u, sizeof u);
        }
        f(which, x, y, N);
        for (int i = 0; i < N; i++) {
            if (!isnan(x[i]) && !((double)x[i] >= lo && (double)x[i] <= hi)) continue;
            if (!(ulps(y[i], exact((double)x[i])) <= bound))
                fail_msg("function %d at %a: %a, not %a", which, (double)x[i], (double)y[i], exact((double)x[i]));
        }
    }
}

static void test_functions(void **state) {
    (void)state;
    const uint32_t isa = isa_probe();
    for (int i = 0; i < 2; i++) {
        if (!(isa & (i ? ISA_AVX512 : ISA_AVX2))) continue;
        row_function *f = i ? row_function__avx512 : row_function__avx2;
        check_function(f, 0, exp, -INFINITY, INFINITY, 2);
        check_function(f, 1, exp, -86.9, 88, 2);
        check_function(f, 2, tanh, -INFINITY, INFINITY, 3);
        check_function(f, 3, erf, -INFINITY, INFINITY, 3);
        check_function(f, 4, sigmoid, -88, INFINITY, 3);
        float x[] = {-INFINITY, INFINITY, 0, -0.0f, 89, -104}, y[6];
        f(0, x, y, 6);
        assert_true(y[0] == 0 && isinf(y[1]) && y[2] == 1 && y[3] == 1 && isinf(y[4]) && y[5] == 0);
        f(2, x, y, 4);
        assert_true(y[0] == -1 && y[1] == 1 && y[2] == 0 && signbit(y[3]));
        f(3, x, y, 4);
        assert_true(y[0] == -1 && y[1] == 1 && y[2] == 0 && signbit(y[3]));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_functions), cmocka_unit_test(test_examples),
                                       cmocka_unit_test(test_norms), cmocka_unit_test(test_maps)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
