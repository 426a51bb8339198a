/* Shape rules: what they infer, and what they say when they refuse. First by hand for products, norms, elementwise
 * operators, reductions and views; then every example of every operator is damaged in every argument. */
#include "support/testing.h"

#include "op/examples.h"

/* Attributes are written as far as they matter; the rest is zero. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

/* Up to six inputs, in order; TL_NONE for an absent one. */
#define IN(...) ((const tl_desc[6]){__VA_ARGS__})
#define NONE    ((tl_desc){0})

static tl_status infer(const char *op, const void *attr, size_t size, const tl_desc in[6], tl_desc *out,
                       tl_error *err) {
    static int64_t copy[TL_ATTR_MAX / 8];
    tl_op_infer s = {.attr = copy, .err = err};
    memset(copy, 0, sizeof copy);
    memcpy(copy, attr, size);
    for (int i = 0; i < 6; i++)
        if (in[i].dtype != TL_NONE) s.in[i] = &in[i];
    tl_status code = tl_op_find(op)->shape(&s);
    memcpy(out, s.out, sizeof s.out);
    return code;
}

static void expect_bad(const char *op, const void *attr, size_t size, const tl_desc in[6], tl_status code,
                       const char *text) {
    tl_error err = {0};
    tl_desc out[TL_OP_OUTS];
    tl_status got = infer(op, attr, size, in, out, &err);
    if (got != code || strcmp(err.text, text)) print_message("%s: %d %s\n  not %d %s\n", op, got, err.text, code, text);
    assert_int_equal(got, code);
    assert_string_equal(err.text, text);
    assert_int_equal(infer(op, attr, size, in, out, NULL), code); /* without anyone listening, too */
}
static void expect_good(const char *op, const void *attr, size_t size, const tl_desc in[6], const char *text) {
    tl_error err = {0};
    tl_desc out[TL_OP_OUTS];
    char all[400] = "";
    tl_status got = infer(op, attr, size, in, out, &err);
    if (got != TL_OK) print_message("%s\n", err.text);
    assert_int_equal(got, TL_OK);
    for (int k = 0; k < TL_OP_OUTS; k++) {
        char one[64];
        if (out[k].dtype == TL_NONE) continue;
        snprintf(all + strlen(all), sizeof all - strlen(all), "%s%s", *all ? " " : "",
                 tensor_print(&out[k], one, sizeof one));
    }
    assert_string_equal(all, text);
}
#define GOOD(op, in, text, ...) expect_good(#op, &(struct op##_attr){__VA_ARGS__}, sizeof(struct op##_attr), in, text)
#define BAD(op, in, code, text, ...)                                                                                   \
    expect_bad(#op, &(struct op##_attr){__VA_ARGS__}, sizeof(struct op##_attr), in, code, text)

static void products(void **state) {
    (void)state;
    tl_desc x = D3(TL_BF16, 2, 3, 8), w = D2(TL_BF16, 5, 8), b = D1(TL_F32, 5), dy = D3(TL_BF16, 2, 3, 5);
    GOOD(linear, IN(x, w, b), "(2,3,5) bf16", 0);
    GOOD(linear, IN(x, w), "(2,3,5) f32", TL_F32);
    GOOD(linear, IN(D1(TL_F32, 64), D2(TL_Q4_0, 3, 64)), "(3) f32", 0);
    GOOD(linear_dx, IN(dy, w), "(2,3,8) f32", TL_F32);
    GOOD(linear_dw, IN(dy, x), "(5,8) f32 (5) f32", 0);
    GOOD(linear_dw, IN(D2(TL_F64, 2, 5), D2(TL_F64, 2, 8)), "(5,8) f64 (5) f64", 0);
    BAD(linear, IN(NONE, w), TL_ARG, "linear: x is absent; the operator needs it", 0);
    BAD(linear, IN(x, D2(TL_BF16, 5, 7)), TL_SHAPE, "linear: w is (5,7) bf16; dimension 1 must be 8 (K of x)", 0);
    BAD(linear, IN(x, x), TL_SHAPE, "linear: w is (2,3,8) bf16; it must have 2 dimensions", 0);
    BAD(linear, IN(x, w, D1(TL_F32, 4)), TL_SHAPE, "linear: b is (4) f32; dimension 0 must be 5 (N of w)", 0);
    BAD(linear, IN(x, w, D1(TL_BF16, 5)), TL_DTYPE, "linear: b is (5) bf16; it must be f32, the sum type of x", 0);
    BAD(linear, IN(D2(TL_I32, 2, 8), w), TL_DTYPE, "linear: x is (2,8) i32; it must be f32, f64, bf16 or f16", 0);
    BAD(linear, IN(x, D2(TL_F64, 5, 8)), TL_DTYPE,
        "linear: w is (5,8) f64; x is bf16, and f64 does not mix with narrower types", 0);
    BAD(linear, IN(x, w), TL_ARG, "linear: a result in f64 from x in bf16", TL_F64);
    BAD(linear, IN(x, w), TL_ARG, "linear: a result in i32 from x in bf16", TL_I32);
    BAD(linear, IN(D1(TL_F32, 33), D2(TL_Q4_0, 3, 33)), TL_SHAPE,
        "linear: w is (3,33) q4_0; no tensor can have this shape", 0);
    BAD(linear, IN(D1(TL_F32, 32), example_view(D2(TL_Q4_0, 3, 32), 8)), TL_SHAPE,
        "linear: w is (3,32) q4_0; its rows must be whole blocks of 32", 0);
    BAD(linear_dx, IN(dy, D2(TL_BF16, 4, 8)), TL_SHAPE, "linear_dx: w is (4,8) bf16; dimension 0 must be 5 (N of dy)",
        0);
    BAD(linear_dw, IN(dy, D3(TL_BF16, 3, 2, 8)), TL_SHAPE,
        "linear_dw: x is (3,2,8) bf16; all dimensions but the last must be those of dy, which is (2,3,5) bf16", 0);
}

static void norms(void **state) {
    (void)state;
    tl_desc x = D3(TL_BF16, 2, 3, 8), w = D1(TL_F32, 8), r = D1(TL_F32, 6);
    GOOD(layernorm, IN(x, w, w), "(2,3,8) bf16 (6) f32 (6) f32", 1e-5f);
    GOOD(layernorm, IN(x), "(2,3,8) bf16 (6) f32 (6) f32", 1e-5f);
    GOOD(layernorm_bwd, IN(x, x, w, r, r), "(2,3,8) bf16 (8) f32 (8) f32", 1e-5f);
    GOOD(rmsnorm, IN(D2(TL_F64, 4, 8)), "(4,8) f64 (4) f64", 1e-5f);
    GOOD(rmsnorm_bwd, IN(x, x, w, r), "(2,3,8) bf16 (8) f32", 1e-5f);
    GOOD(rmsnorm_bwd, IN(x, x, NONE, r), "(2,3,8) bf16", 1e-5f);
    GOOD(scalenorm, IN(x, D1(TL_F32, 1)), "(2,3,8) bf16 (6) f32", 1e-5f);
    GOOD(scalenorm_bwd, IN(x, x, D1(TL_F32, 1), r), "(2,3,8) bf16 (1) f32", 1e-5f);
    BAD(rmsnorm, IN(x, D1(TL_F32, 7)), TL_SHAPE, "rmsnorm: w is (7) f32; dimension 0 must be 8 (D of x)", 0);
    BAD(rmsnorm, IN(x, D2(TL_F32, 1, 8)), TL_SHAPE, "rmsnorm: w is (1,8) f32; it must have 1 dimension", 0);
    BAD(rmsnorm, IN(D2(TL_F64, 2, 8), w), TL_DTYPE, "rmsnorm: w is (8) f32; it must be f64, the sum type of x", 0);
    BAD(layernorm, IN(x, w, D1(TL_F32, 9)), TL_SHAPE, "layernorm: b is (9) f32; dimension 0 must be 8 (D of x)", 0);
    BAD(layernorm_bwd, IN(x, x, w, D1(TL_F32, 5), r), TL_SHAPE,
        "layernorm_bwd: mean is (5) f32; dimension 0 must be 6 (rows of x)", 0);
    BAD(rmsnorm_bwd, IN(D2(TL_BF16, 6, 8), x, w, r), TL_SHAPE,
        "rmsnorm_bwd: dy is (6,8) bf16; it must have the shape of x, which is (2,3,8) bf16", 0);
    BAD(scalenorm, IN(x), TL_ARG, "scalenorm: g is absent; the operator needs it", 0);
    BAD(scalenorm_bwd, IN(x, x, D1(TL_F32, 1)), TL_ARG, "scalenorm_bwd: rstd is absent; the operator needs it", 0);
}

static void elementwise(void **state) {
    (void)state;
    tl_desc x = D2(TL_F32, 2, 3), bad = x;
    bad.stride[1] = 2;
    GOOD(act, IN(x), "(2,3) f32", ACT_TANH);
    GOOD(glu, IN(x, x), "(2,3) f32", ACT_SILU);
    GOOD(glu_bwd, IN(x, x, x), "(2,3) f32 (2,3) f32", ACT_SILU);
    GOOD(add, IN(x, example_view(x, 3)), "(2,3) f32", 0);
    GOOD(mul, IN(x, x), "(2,3) f32", 0);
    GOOD(scale, IN(D2(TL_F16, 2, 3)), "(2,3) f16", 2);
    GOOD(softmax, IN(x), "(2,3) f32", 0);
    GOOD(softcap_bwd, IN(x, x), "(2,3) f32", 30);
    BAD(act, IN(x), TL_ARG, "act: kind 8 is not one of 0 to 7", ACT_KINDS);
    BAD(glu, IN(x, x), TL_ARG, "glu: kind -1 is not one of 0 to 7", -1);
    BAD(act, IN(bad), TL_SHAPE, "act: x is (2,3) f32; its last dimension must be contiguous", 0);
    BAD(act_bwd, IN(D2(TL_F32, 3, 2), x), TL_SHAPE,
        "act_bwd: dy is (3,2) f32; it must have the shape of x, which is (2,3) f32", 0);
    BAD(glu, IN(x, D2(TL_F32, 2, 4)), TL_SHAPE,
        "glu: up is (2,4) f32; it must have the shape of gate, which is (2,3) f32", 0);
    BAD(add, IN(x, D2(TL_BF16, 2, 3)), TL_DTYPE, "add: b is (2,3) bf16; it must be f32 like a", 0);
    BAD(add, IN(x, D1(TL_F32, 3)), TL_SHAPE, "add: b is (3) f32; it must have the shape of a, which is (2,3) f32", 0);
    BAD(mul, IN(x), TL_ARG, "mul: b is absent; the operator needs it", 0);
    BAD(scale, IN(D2(TL_Q8_0, 2, 32)), TL_DTYPE, "scale: x is (2,32) q8_0; it must be f32, f64, bf16 or f16", 0);
    BAD(softmax, IN(D2(TL_F32, 2, -3)), TL_SHAPE, "softmax: x is (2,-3) f32; no tensor can have this shape", 0);
    BAD(softcap, IN(x), TL_ARG, "softcap: cap is -1; it must be positive", -1);
    BAD(softcap_bwd, IN(x, x), TL_ARG, "softcap_bwd: cap is 0; it must be positive", 0);
}

static void reductions_and_casts(void **state) {
    (void)state;
    tl_desc x = D3(TL_BF16, 2, 3, 8);
    GOOD(reduce, IN(x), "(1) f32", REDUCE_ALL);
    GOOD(reduce, IN(x), "(8) f32", REDUCE_ROWS);
    GOOD(reduce, IN(x), "(2,3) bf16", REDUCE_LAST);
    GOOD(reduce, IN(D1(TL_F64, 5)), "(1) f64", REDUCE_LAST);
    GOOD(broadcast, IN(D1(TL_F32, 8)), "(2,3,8) bf16", REDUCE_ROWS, 0, 3, TL_BF16, {2, 3, 8});
    GOOD(broadcast, IN(D2(TL_F32, 2, 3)), "(2,3,8) f32", REDUCE_LAST, 0, 3, 0, {2, 3, 8});
    GOOD(cast, IN(x), "(2,3,8) f16", TL_F16);
    GOOD(cast, IN(x), "(2,3,8) bf16", 0);
    GOOD(cast, IN(D2(TL_Q4_K, 2, 256)), "(2,256) f32", TL_F32);
    BAD(reduce, IN(x), TL_ARG, "reduce: kind 3 is not one of 0 to 2", 3);
    BAD(broadcast, IN(D1(TL_F32, 7)), TL_SHAPE, "broadcast: y is (7) f32; its shape must be that of (8) f32",
        REDUCE_ROWS, 0, 3, 0, {2, 3, 8});
    BAD(broadcast, IN(D1(TL_F32, 1)), TL_ARG, "broadcast: dimensions wanted: 5, not 1 to 4", REDUCE_ALL, 0, 5, 0, {1});
    BAD(broadcast, IN(D1(TL_F32, 1)), TL_ARG, "broadcast: no tensor can have the shape wanted", REDUCE_ALL, 0, 2, 0,
        {4, -4});
    BAD(cast, IN(x), TL_ARG, "cast: to i32; it must be f32, f64, bf16 or f16", TL_I32);
    BAD(cast, IN(D2(TL_Q8_0, 2, 32)), TL_ARG, "cast: to none; it must be f32, f64, bf16 or f16", 0);
    BAD(cast, IN(D2(TL_I32, 2, 32)), TL_DTYPE, "cast: x is (2,32) i32; it must be f32, f64, bf16 or f16", TL_F32);
}

static void views(void **state) {
    (void)state;
    tl_desc x = D3(TL_BF16, 2, 3, 8), v = example_view(D2(TL_F32, 4, 6), 2);
    GOOD(split, IN(x), "(2,3,5) bf16 (2,3,1) bf16 (2,3,2) bf16", 3, 0, {5, 1, 2});
    GOOD(concat, IN(x, D3(TL_BF16, 2, 3, 1)), "(2,3,9) bf16", 2);
    GOOD(reshape, IN(x), "(6,2,4) bf16", 3, 0, {6, 2, 4});
    GOOD(reshape, IN(x), "(6,8) bf16", 2, 0, {-1, 8});
    GOOD(reshape, IN(v), "(2,2,3,2) f32", 4, 0, {2, 2, 3, 2});
    tl_desc out[TL_OP_OUTS];
    struct split_attr s = {2, 0, {4, 4}};
    assert_int_equal(infer("split", &s, sizeof s, IN(x), out, NULL), TL_OK);
    assert_int_equal(out[1].stride[1], 8); /* windows keep the rows they lie in */
    BAD(split, IN(x), TL_SHAPE, "split: x is (2,3,8) bf16; part 1 of width 4 does not fit", 2, 0, {5, 4});
    BAD(split, IN(x), TL_SHAPE, "split: x is (2,3,8) bf16; part 0 of width -1 does not fit", 2, 0, {-1, 9});
    BAD(split, IN(x), TL_SHAPE, "split: x is (2,3,8) bf16; the parts leave 2 of its last dimension", 2, 0, {5, 1});
    BAD(split, IN(x), TL_ARG, "split: 7 parts wanted, not 1 to 6", 7, 0, {8});
    BAD(split, IN(D2(TL_Q8_0, 2, 64)), TL_SHAPE, "split: x is (2,64) q8_0; part 0 of width 40 does not fit", 2, 0,
        {40, 24});
    BAD(concat, IN(x, D2(TL_BF16, 6, 8)), TL_SHAPE,
        "concat: x1 is (6,8) bf16; all dimensions but the last must be those of x0, which is (2,3,8) bf16", 2);
    BAD(concat, IN(x), TL_ARG, "concat: x1 is absent; the operator needs it", 2);
    BAD(concat, IN(x, x), TL_ARG, "concat: x1 is (2,3,8) bf16; only 1 parts were announced", 1);
    BAD(concat, IN(x, D3(TL_F32, 2, 3, 8)), TL_DTYPE, "concat: x1 is (2,3,8) f32; it must be bf16 like x0", 2);
    BAD(concat, IN(x), TL_ARG, "concat: 0 parts given, not 1 to 6", 0);
    BAD(reshape, IN(x), TL_SHAPE, "reshape: x is (2,3,8) bf16; that does not make (7,7) bf16", 2, 0, {7, 7});
    BAD(reshape, IN(x), TL_SHAPE, "reshape: x is (2,3,8) bf16; its elements do not divide by the dimensions wanted", 2,
        0, {-1, 7});
    BAD(reshape, IN(x), TL_ARG, "reshape: dimension 1 is negative", 2, 0, {-1, -1});
    BAD(reshape, IN(x), TL_ARG, "reshape: dimensions wanted: 5, not 0 to 4", 5);
    BAD(reshape, IN(v), TL_SHAPE,
        "reshape: x is (4,6) f32; a view of wider rows that becomes (24) f32 only by a copy (cast it first)", 1, 0,
        {24});
}

/* ---- every operator, every argument damaged ----------------------------------------------------------- */

static tl_status open_status(const op_example *e, tl_error *err) {
    int64_t copy[TL_ATTR_MAX / 8];
    memcpy(copy, e->attr, sizeof copy);
    tl_op_infer s = {.attr = copy, .err = err};
    for (int i = 0; i < TL_OP_INS; i++) s.in[i] = e->fill[i] == FILL_ABSENT ? NULL : &e->in[i];
    return tl_op_find(e->op)->shape(&s);
}

static int refused(const op_example *good, int i, const op_example *damaged, const char *how) {
    tl_error err = {0};
    size_t n = strlen(good->op);
    tl_status code = open_status(damaged, &err);
    if (code != TL_OK && code == err.code && !strncmp(err.text, good->op, n) && err.text[n] == ':') return 0;
    print_message("%s, %s: argument %d %s: %d %s\n", good->op, good->label, i, how, code, err.text);
    return 1;
}

static void damaged_arguments_are_refused(void **state) {
    (void)state;
    op_examples list = {0};
    int bad = 0;
    examples_all(&list);
    for (size_t n = 0; n < list.n && bad < 40; n++)
        for (int i = 0; i < TL_OP_INS; i++) {
            const op_example *e = &list.e[n];
            if (e->fill[i] == FILL_ABSENT) continue;
            op_example x = *e;
            x.in[i].dtype = TL_DTYPE_COUNT;
            bad += refused(e, i, &x, "without a dtype");
            x = *e, x.in[i].dtype = TL_F8_E5M2;
            bool any = !strcmp(e->op, "split") || !strcmp(e->op, "reshape") ||
                       (!strcmp(e->op, "concat") && e->fill[1] == FILL_ABSENT);
            if (!any) bad += refused(e, i, &x, "in f8_e5m2");
            x = *e, x.in[i].ndim = TL_DIMS + 1;
            bad += refused(e, i, &x, "with five dimensions");
            for (int k = 0; k < e->in[i].ndim; k++) {
                x = *e, x.in[i].dim[k] = -1;
                bad += refused(e, i, &x, "with a negative dimension");
                x = *e, x.in[i].dim[k] = INT64_MAX;
                bool one = x.in[i].dim[0] == INT64_MAX && x.in[i].ndim == 1 && tl_dtype_bytes(x.in[i].dtype) == 1;
                if (!one) bad += refused(e, i, &x, "too large");
            }
            if (!e->in[i].ndim || tl_desc_last(&e->in[i]) < 2) continue;
            x = *e, x.in[i].stride[e->in[i].ndim - 1] = 2;
            bad += refused(e, i, &x, "with a gap in its last dimension");
        }
    examples_free(&list);
    assert_int_equal(bad, 0);
}

/* An argument is either optional (ops.def marks it "?") and may be left out, or the refusal names it. */
static void absent_arguments(void **state) {
    (void)state;
    op_examples list = {0};
    int bad = 0;
    examples_all(&list);
    for (size_t n = 0; n < list.n && bad < 40; n++)
        for (int i = 0; i < TL_OP_INS; i++) {
            op_example x = list.e[n];
            tl_error err = {0};
            if (x.fill[i] == FILL_ABSENT) continue;
            x.fill[i] = FILL_ABSENT;
            if (open_status(&x, &err) == TL_OK)
                bad += i == 0;
            else
                bad += refused(&list.e[n], i, &x, "left out");
        }
    examples_free(&list);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),
        cmocka_unit_test(norms),
        cmocka_unit_test(elementwise),
        cmocka_unit_test(reductions_and_casts),
        cmocka_unit_test(views),
        cmocka_unit_test(damaged_arguments_are_refused),
        cmocka_unit_test(absent_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
