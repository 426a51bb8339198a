/* Tables of relative positions: the closed form of two rotated vectors, T5's buckets, and that a longer table has a
 * shorter one in its middle. Numbers in brackets are those of docs/attention.md. */
#include "op/calls.h"

#include <math.h>

/* [17] B[j - i] is the product of a rotated by i and b rotated by j, wherever i and j are. */
static void toeplitz_is_a_product_of_rotations(void **state) {
    (void)state;
    enum { H = 2, S = 6, P = 70, HALF = S / 2 };
    double *ab = normals((int64_t)H * 2 * S, 3), table[H * (2 * P - 1)];
    struct rel_toeplitz_attr a = {.reach = P};
    tl_arg in = {ab, D2(TL_F64, H, 2 * S)}, out = {table, D2(TL_F64, H, 2 * P - 1)};
    call(OP_rel_toeplitz, &a, &in, 1, &out, 1, 0);
    for (int h = 0; h < H; h++)
        for (int i = 0; i < P; i += 23)
            for (int j = 0; j < P; j++) {
                const double *x = ab + h * 2 * S, *y = x + S;
                double want = 0;
                for (int k = 0; k < HALF; k++) {
                    const double w = pow(10000, -(double)k / HALF);
                    const double x1 = x[k] * cos(i * w) - x[k + HALF] * sin(i * w);
                    const double x2 = x[k + HALF] * cos(i * w) + x[k] * sin(i * w);
                    const double y1 = y[k] * cos(j * w) - y[k + HALF] * sin(j * w);
                    const double y2 = y[k + HALF] * cos(j * w) + y[k] * sin(j * w);
                    want += x1 * y1 + x2 * y2;
                }
                assert_near(table[h * (2 * P - 1) + P - 1 + j - i], want, 1e-12);
            }
    free(ab);
}

/* The numbers of one head by distance: w[b] = b, so that the table shows the buckets. */
static void buckets(int32_t n, int32_t distance, int32_t causal, int64_t reach, double *table) {
    double *w = constant(n, 0);
    for (int i = 0; i < n; i++) w[i] = i;
    struct rel_buckets_attr a = {.reach = reach, .buckets = n, .distance = distance, .causal = causal};
    tl_arg in = {w, D2(TL_F64, 1, n)}, out = {table, D2(TL_F64, 1, 2 * reach - 1)};
    call(OP_rel_buckets, &a, &in, 1, &out, 1, 0);
    free(w);
}

/* First distances of T5's buckets, printed by transformers' T5Attention._relative_position_bucket. */
static void buckets_are_those_of_t5(void **state) {
    (void)state;
    enum { P = 300 };
    static const struct {
        int32_t n, distance, causal, starts[32];
    } rows[] = {
        {32, 128, 1, {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                      16, 19, 21, 24, 27, 31, 35, 40, 46, 52, 59, 67, 77, 87, 99, 113}},
        {16, 40, 1, {0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 18, 22, 27, 33}},
        {32, 128, 0, {0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91}},
        {16, 40, 0, {0, 1, 2, 3, 4, 8, 13, 23}},
    };
    static double table[2 * P - 1];
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        const int32_t side = rows[r].causal ? rows[r].n : rows[r].n / 2;
        buckets(rows[r].n, rows[r].distance, rows[r].causal, P, table);
        for (int32_t d = 0, b = 0; d < P; d++) {
            while (b + 1 < side && rows[r].starts[b + 1] <= d) b++;
            assert_int_equal((int)table[P - 1 - d], b); /* before the query */
            if (d > 0) assert_int_equal((int)table[P - 1 + d], rows[r].causal ? 0 : b + side);
        }
    }
}

/* [18] Distance is what counts, not the length: the middle of a longer table is the shorter one. */
static void longer_tables_have_the_shorter_in_their_middle(void **state) {
    (void)state;
    enum { SHORT = 9, LONG = 130, S = 4 };
    double *ab = normals(2 * S, 5), less[2 * SHORT - 1], more[2 * LONG - 1];
    for (int kind = 0; kind < 2; kind++) {
        for (int k = 0; k < 2; k++) {
            const int64_t reach = k ? LONG : SHORT;
            double *to = k ? more : less;
            struct rel_toeplitz_attr a = {.reach = reach};
            tl_arg in = {ab, D2(TL_F64, 1, 2 * S)}, out = {to, D2(TL_F64, 1, 2 * reach - 1)};
            if (kind == 0)
                call(OP_rel_toeplitz, &a, &in, 1, &out, 1, 0);
            else
                buckets(8, 20, 0, reach, to);
        }
        for (int i = 0; i < 2 * SHORT - 1; i++) assert_near(less[i], more[LONG - SHORT + i], 1e-13);
    }
    free(ab);
}

static void wrong_attributes_are_refused(void **state) {
    (void)state;
    tl_error e;
    tl_desc w = D2(TL_F64, 2, 8);
    static const struct rel_buckets_attr rows[] = {
        {0, 8, 20, 1, 0}, {9, 9, 20, 0, 0}, {9, 8, 4, 1, 0}, {9, 2, 20, 0, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tl_op_infer s = {.attr = (void *)(uintptr_t)&rows[i], .in = {&w}, .err = &e};
        assert_int_not_equal(op_table[OP_rel_buckets].shape(&s), TL_OK);
    }
    struct rel_toeplitz_attr a = {.reach = 5};
    w = D2(TL_F64, 2, 6);
    tl_op_infer s = {.attr = &a, .in = {&w}, .err = &e};
    assert_int_not_equal(op_table[OP_rel_toeplitz].shape(&s), TL_OK);
    assert_non_null(strstr(e.text, "even width"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(toeplitz_is_a_product_of_rotations),
        cmocka_unit_test(buckets_are_those_of_t5),
        cmocka_unit_test(longer_tables_have_the_shorter_in_their_middle),
        cmocka_unit_test(wrong_attributes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
