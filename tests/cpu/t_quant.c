/* linear with weights in blocks: every kernel against the reference, for few rows and many, around the tiles. */
#include "rows.h"

#include <math.h>

static const tl_dtype types[] = {TL_Q8_0, TL_Q4_0, TL_Q4_K, TL_Q6_K};

/* x whose blocks of 32 are whole numbers times 1/32, the largest of them 127: rounding them to int8 loses nothing, so
 * kernels that do are held to the same bound. */
static void whole_numbers(example_call *c) {
    tl_arg *x = &c->call.in[0];
    for (int64_t r = 0; r < tl_desc_rows(&x->d); r++) {
        float *row = (float *)x->data + tl_desc_row(&x->d, r);
        for (int64_t i = 0; i < tl_desc_last(&x->d); i++) {
            double v = nearbyint((double)row[i] * 30);
            row[i] = i % 32 == r % 32 ? 127.0f / 32 : (float)(v < -127 ? -127 : v > 127 ? 127 : v) / 32;
        }
    }
}

static void add_case(op_examples *l, tl_dtype w, int64_t M, int64_t N, int64_t K, int64_t pad, bool acc) {
    struct linear_attr a = {TL_F32};
    op_example *e = example_add(l, "linear", &a, sizeof a, "");
    example_in(e, 0, example_view(D2(TL_F32, M, K), pad), FILL_NORMAL);
    example_in(e, 1, D2(w, N, K), FILL_NORMAL);
    if (!acc) example_in(e, 2, D1(TL_F32, N), FILL_NORMAL);
    e->acc = acc, e->out_pad = pad, e->prepare = whole_numbers;
    snprintf(e->label, sizeof e->label, "%s M%d N%d K%d pad%d acc%d", tl_dtype_name(w), (int)M, (int)N, (int)K,
             (int)pad, acc);
}

static void every_type_and_size(void **state) {
    (void)state;
    static const int64_t size[][3] = {{1, 1, 256},   {1, 65, 256},   {2, 64, 512},   {3, 7, 256},
                                      {4, 129, 768}, {5, 66, 256},   {8, 63, 1024},  {9, 64, 256},
                                      {16, 33, 512}, {33, 257, 256}, {17, 300, 2304}};
    op_examples l = {NULL, 0, 0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t i = 0; i < sizeof size / sizeof *size; i++)
            add_case(&l, types[t], size[i][0], size[i][1], size[i][2], i % 2 * 3, i % 3 == 2);
    for (size_t t = 0; t < 2; t++) { /* rows of a single block */
        add_case(&l, types[t], 1, 10, 32, 0, false);
        add_case(&l, types[t], 12, 10, 96, 1, true);
        add_case(&l, types[t], 1, 70, 576, 0, false); /* rows that end within a chunk */
        add_case(&l, types[t], 5, 35, 960, 2, true);
        add_case(&l, types[t], 14, 67, 544, 0, false);
        add_case(&l, types[t], 21, 40, 736, 1, true);
    }
    int taken = 0;
    for (size_t i = 0; i < l.n; i++) {
        int n = rows_check(&l.e[i], 60);
        if (!n) print_message("          nobody takes %s\n", l.e[i].label);
        taken += n;
    }
    assert_true(taken >= (int)l.n || !(isa_probe() & ISA_AVX2));
    examples_free(&l);
}

/* Any x: rounded to int8 it is off by half a percent of its blocks at most, sums by less. */
static void rounding_stays_small(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) add_case(&l, types[t], 3, 70, 1024, 0, false);
    for (size_t i = 0; i < l.n; i++) {
        l.e[i].prepare = NULL;
        assert_true(rows_check(&l.e[i], 0.01 * 0x1p24) > 0 || !(isa_probe() & ISA_AVX2));
    }
    examples_free(&l);
}

static void tables_in_blocks(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int k = 0; k < 3; k++) {
            struct embedding_attr a = {k == 1 ? 1.5f : 1, TL_F32};
            op_example *e = example_add(&l, "embedding", &a, sizeof a, tl_dtype_name(types[t]));
            example_in(e, 0, D1(TL_I32, k == 2 ? 1 : 21), FILL_IDS), example_range(e, 0, -1, 12);
            example_in(e, 1, D2(types[t], 9, 512), FILL_NORMAL);
            e->out_pad = k;
        }
    for (size_t i = 0; i < l.n; i++) assert_true(rows_check(&l.e[i], 60) > 0 || !(isa_probe() & ISA_AVX2));
    examples_free(&l);
}

/* dx = dy w, around the tiles of 512 columns and 256 rows. */
static void gradients_to_the_input(void **state) {
    (void)state;
    static const int64_t size[][3] = {{1, 3, 256}, {5, 257, 512}, {33, 70, 768}, {9, 600, 1280}, {2, 1, 256}};
    op_examples l = {NULL, 0, 0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (size_t i = 0; i < sizeof size / sizeof *size; i++) {
            struct linear_dx_attr a = {TL_F32};
            op_example *e = example_add(&l, "linear_dx", &a, sizeof a, tl_dtype_name(types[t]));
            int64_t pad = (int64_t)(i % 2) * 3;
            example_in(e, 0, example_view(D2(TL_F32, size[i][0], size[i][1]), pad), FILL_NORMAL);
            example_in(e, 1, D2(types[t], size[i][1], size[i][2]), FILL_NORMAL);
            e->acc = i % 3 == 2, e->out_pad = pad;
        }
    for (size_t i = 0; i < l.n; i++) assert_true(rows_check(&l.e[i], 60) > 0 || !(isa_probe() & ISA_AVX2));
    examples_free(&l);
}

/* The loss head over a vocabulary in blocks: the loss and the gradient to what goes in. */
static void heads_in_blocks(void **state) {
    (void)state;
    op_examples l = {NULL, 0, 0};
    for (size_t t = 0; t < sizeof types / sizeof *types; t++)
        for (int k = 0; k < 2; k++) {
            struct loss_head_attr a = {0, 0, k ? 5.0f : 0, 0};
            int64_t V = k ? 1000 : 33;
            op_example *e = example_add(&l, "loss_head", &a, sizeof a, tl_dtype_name(types[t]));
            example_in(e, 0, D2(TL_F32, 21, 256), FILL_NORMAL);
            example_in(e, 1, D2(types[t], V, 256), FILL_NORMAL);
            example_in(e, 2, D1(TL_I32, 21), FILL_IDS), example_range(e, 2, 0, V);
            example_in(e, 3, D1(TL_F32, 1), FILL_CONST), e->value[3] = 21;
            e->unwanted = 16 | 32; /* dw, db */
        }
    for (size_t i = 0; i < l.n; i++) assert_true(rows_check(&l.e[i], 300) > 0 || !(isa_probe() & ISA_AVX2));
    examples_free(&l);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_type_and_size), cmocka_unit_test(rounding_stays_small),
                                       cmocka_unit_test(tables_in_blocks), cmocka_unit_test(gradients_to_the_input),
                                       cmocka_unit_test(heads_in_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
