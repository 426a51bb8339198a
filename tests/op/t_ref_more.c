/* References of reductions, views, casts, scaling and quantized products on numbers that can be checked by eye, and
 * what becomes of NaN and infinities. */
#include "support/testing.h"

#include "op/examples.h"
#include "tensor/block.h"

/* Runs op over f32 memory of the caller; outputs contiguous as inferred. */
static void run(const char *name, const void *attr, size_t size, tl_arg *in, int n_in, tl_arg *out, int n_out) {
    const tl_op_def *op = tl_op_find(name);
    static int64_t copy[TL_ATTR_MAX / 8];
    tl_error err = {0};
    tl_op_infer s = {.attr = copy, .err = &err};
    tl_op_call c = {.attr = copy};
    memset(copy, 0, sizeof copy);
    memcpy(copy, attr, size);
    for (int i = 0; i < n_in; i++) c.in[i] = in[i], s.in[i] = &c.in[i].d;
    if (op->shape(&s) != TL_OK) fail_msg("%s", err.text);
    for (int k = 0; k < n_out; k++) {
        out[k].d = s.out[k];
        c.out[k] = out[k];
    }
    op->ref_f32(&c);
}
#define RUN(op, in, n_in, out, n_out, ...)                                                                             \
    run(#op, &(struct op##_attr){__VA_ARGS__}, sizeof(struct op##_attr), in, n_in, out, n_out)

#define SAME(got, ...)                                                                                                 \
    do {                                                                                                               \
        const float want_[] = {__VA_ARGS__};                                                                           \
        for (size_t i_ = 0; i_ < sizeof want_ / sizeof want_[0]; i_++)                                                 \
            if (!((got)[i_] == want_[i_])) fail_msg("[%zu] %g, not %g", i_, (double)(got)[i_], (double)want_[i_]);     \
    } while (0)

static void reductions(void **state) {
    (void)state;
    float x[8] = {1, 2, 3, -99, 4, 5, 6, -99}, y[8];
    tl_arg in = {x, example_view(D2(TL_F32, 2, 3), 1)}, out = {y, {0}};
    RUN(reduce, &in, 1, &out, 1, REDUCE_ALL, 0);
    SAME(y, 21);
    RUN(reduce, &in, 1, &out, 1, REDUCE_ALL, 1);
    SAME(y, 3.5f);
    RUN(reduce, &in, 1, &out, 1, REDUCE_ROWS, 0);
    SAME(y, 5, 7, 9);
    RUN(reduce, &in, 1, &out, 1, REDUCE_ROWS, 1);
    SAME(y, 2.5f, 3.5f, 4.5f);
    RUN(reduce, &in, 1, &out, 1, REDUCE_LAST, 0);
    SAME(y, 6, 15);
    RUN(reduce, &in, 1, &out, 1, REDUCE_LAST, 1);
    SAME(y, 2, 5);
}

static void broadcasts(void **state) {
    (void)state;
    float x[3] = {6, 12, 18}, y[6];
    tl_arg one = {x, D1(TL_F32, 1)}, rows = {x, D1(TL_F32, 3)}, last = {x, D1(TL_F32, 2)}, out = {y, {0}};
    RUN(broadcast, &one, 1, &out, 1, REDUCE_ALL, 0, 2, TL_F32, {2, 3});
    SAME(y, 6, 6, 6, 6, 6, 6);
    RUN(broadcast, &one, 1, &out, 1, REDUCE_ALL, 1, 2, TL_F32, {2, 3});
    SAME(y, 1, 1, 1, 1, 1, 1);
    RUN(broadcast, &rows, 1, &out, 1, REDUCE_ROWS, 0, 2, TL_F32, {2, 3});
    SAME(y, 6, 12, 18, 6, 12, 18);
    RUN(broadcast, &last, 1, &out, 1, REDUCE_LAST, 1, 2, TL_F32, {2, 3});
    SAME(y, 2, 2, 2, 4, 4, 4);
}

static void views(void **state) {
    (void)state;
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, a[8], b[8], y[8];
    /* split gives outputs in the strides of x; where they lie elsewhere the windows are copied there */
    tl_arg in = {x, D2(TL_F32, 2, 4)}, out[2] = {{a, {0}}, {b, {0}}};
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    RUN(split, &in, 1, out, 2, 2, 0, {1, 3});
    SAME(a, 1, 0, 0, 0, 5);
    SAME(b, 2, 3, 4, 0, 6, 7, 8);
    tl_arg parts[2] = {{a, out[0].d}, {b, out[1].d}}, joined = {y, {0}};
    RUN(concat, parts, 2, &joined, 1, 2);
    SAME(y, 1, 2, 3, 4, 5, 6, 7, 8);
    tl_arg narrow = {b, out[1].d}, flat = {y, {0}};
    memset(y, 0, sizeof y);
    RUN(reshape, &narrow, 1, &flat, 1, 3, 0, {2, 3, 1});
    assert_int_equal(flat.d.stride[0], 4);
    SAME(y, 2, 3, 4, 0, 6, 7, 8);
}

/* One rounding from the sum to the storage: 1 + 2^-8 + 2^-30 lies above the tie between two bf16 numbers, but f32 would
 * drop the last bit and make it a tie. */
static void casts_round_once(void **state) {
    (void)state;
    double x[6] = {1 + 0x1p-8 + 0x1p-30, 1 + 0x1p-8, -(1 + 0x1p-8 + 0x1p-30), 1 + 3 * 0x1p-8, 1e300, (double)NAN};
    uint16_t y[6];
    tl_op_call c = {.attr = &(struct cast_attr){TL_BF16}};
    c.in[0] = (tl_arg){x, D1(TL_F64, 6)};
    c.out[0] = (tl_arg){y, D1(TL_BF16, 6)};
    tl_op_find("cast")->ref_f64(&c);
    assert_int_equal(y[0], 0x3f81);
    assert_int_equal(y[1], 0x3f80);
    assert_int_equal(y[2], 0xbf81);
    assert_int_equal(y[3], 0x3f82);
    assert_int_equal(y[4], 0x7f80);
    assert_true((y[5] & 0x7fff) > 0x7f80);
    double z[4] = {1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-11, 65519.999, 65520};
    c.in[0] = (tl_arg){z, D1(TL_F64, 4)};
    c.out[0] = (tl_arg){y, D1(TL_F16, 4)};
    tl_op_find("cast")->ref_f64(&c);
    assert_int_equal(y[0], 0x3c01);
    assert_int_equal(y[1], 0x3c00);
    assert_int_equal(y[2], 0x7bff);
    assert_int_equal(y[3], 0x7c00);
}

static void special_values(void **state) {
    (void)state;
    float x[4] = {NAN, INFINITY, -INFINITY, -0.0f}, y[4];
    tl_arg in = {x, D1(TL_F32, 4)}, out = {y, {0}};
    for (int32_t kind = 0; kind < ACT_KINDS; kind++) {
        RUN(act, &in, 1, &out, 1, kind);
        assert_true(isnan(y[0]));
        bool bounded = kind == ACT_SIGMOID || kind == ACT_TANH;
        assert_true(y[1] == (bounded ? 1.0f : INFINITY));
    }
    RUN(act, &in, 1, &out, 1, ACT_RELU);
    assert_true(y[2] == 0 && y[3] == 0);
    RUN(scale, &in, 1, &out, 1, 0);
    SAME(y, 0, 0, 0, 0);
    RUN(scale, &in, 1, &out, 1, 2);
    assert_true(isnan(y[0]) && y[1] == INFINITY && y[2] == -INFINITY);
    float big[4] = {1000, 1001, -INFINITY, 1001};
    tl_arg logits = {big, D1(TL_F32, 4)};
    RUN(softmax, &logits, 1, &out, 1, 0);
    assert_true(fabsf(y[1] - 0.42231880f) < 1e-6f && y[2] == 0 && y[1] == y[3]);
    RUN(softcap, &logits, 1, &out, 1, 30);
    assert_true(y[0] == 30 && y[2] == -30);
    RUN(softmax, &in, 1, &out, 1, 0);
    assert_true(isnan(y[3]));
}

/* A quantized weight gives what its elements, taken out first, give. */
static void quantized_products(void **state) {
    (void)state;
    static const tl_dtype kinds[4] = {TL_Q8_0, TL_Q4_0, TL_Q4_K, TL_Q6_K};
    for (int t = 0; t < 4; t++) {
        op_example e = {.op = "linear"};
        example_in(&e, 0, D2(TL_F32, 3, 512), FILL_NORMAL);
        example_in(&e, 1, D2(kinds[t], 4, 512), FILL_NORMAL);
        example_call x;
        assert_true(example_open(&e, 3, &x));
        float *w = malloc(4 * 512 * sizeof *w), want[12];
        tl_arg in[2] = {x.call.in[0], {w, D2(TL_F32, 4, 512)}}, out = {want, {0}};
        for (int64_t i = 0; i < 4 * 512; i++) w[i] = block_get(kinds[t], x.call.in[1].data, i);
        RUN(linear, in, 2, &out, 1, 0);
        x.op->ref_f32(&x.call);
        assert_memory_equal(x.call.out[0].data, want, sizeof want);
        assert_true(want[0] != 0);
        free(w);
        example_close(&x);
    }
}

static void empty_tensors(void **state) {
    (void)state;
    float y[4] = {7, 7, 7, 7};
    tl_arg in[2] = {{y, D2(TL_F32, 0, 4)}, {y, D2(TL_F32, 2, 4)}}, out[3] = {{y, {0}}, {y, {0}}, {y, {0}}};
    RUN(linear, in, 2, out, 1, 0);
    RUN(rmsnorm, in, 1, out, 1, 1e-5f, 0);
    RUN(softmax, in, 1, out, 1, 0);
    RUN(concat, in, 1, out, 1, 1);
    RUN(reshape, in, 1, out, 1, 2, 0, {4, 0});
    SAME(y, 7, 7, 7, 7);
    RUN(reduce, in, 1, out, 1, REDUCE_ALL, 0);
    SAME(y, 0, 7, 7, 7);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reductions),       cmocka_unit_test(broadcasts),     cmocka_unit_test(views),
        cmocka_unit_test(casts_round_once), cmocka_unit_test(special_values), cmocka_unit_test(quantized_products),
        cmocka_unit_test(empty_tensors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
