/* References of embedding, rope_table and rope: against PyTorch, against 50 digits, and by their properties. */
#include "support/testing.h"

#include "op/op.h"
#include "op/vectors_a.h"

#include <math.h>

static tl_arg arg(void *data, tl_dtype t, int ndim, int64_t a, int64_t b, int64_t c) {
    return (tl_arg){data, tl_desc_make(t, ndim, (int64_t[]){a, b, c})};
}

static void fill(double *x, int n, double seed) {
    for (int i = 0; i < n; i++) x[i] = sin(1.3 * i + seed);
}

static void assert_close(const double *x, const double *want, int n, double tol, const char *what) {
    for (int i = 0; i < n; i++)
        if (!(fabs(x[i] - want[i]) <= tol)) {
            print_message("%s[%d]: %.17g, not %.17g\n", what, i, x[i], want[i]);
            fail();
        }
}

/* pos (n), freq (half) -> table (n, 2 half) */
static void make_table(const int32_t *pos, int n, const double *freq, int half, float mscale, tl_dtype t, void *table) {
    struct rope_table_attr a = {.mscale = mscale, .dtype = t};
    tl_op_call c = {.attr = &a};
    c.in[0] = arg((void *)(uintptr_t)pos, TL_I32, 1, n, 0, 0);
    c.in[1] = arg((void *)(uintptr_t)freq, TL_F64, 1, half, 0, 0);
    c.out[0] = arg(table, t, 2, n, 2 * half, 0);
    (t == TL_F64 ? OP_DEF(rope_table)->ref_f64 : OP_DEF(rope_table)->ref_f32)(&c);
}

static void rotate(const double *x, int n, int heads, int width, const double *table, int r, struct rope_attr a,
                   double *y) {
    tl_op_call c = {.attr = &a};
    c.in[0] = arg((void *)(uintptr_t)x, TL_F64, 3, n, heads, width);
    c.in[1] = arg((void *)(uintptr_t)table, TL_F64, 2, n, r, 0);
    c.out[0] = arg(y, TL_F64, 3, n, heads, width);
    OP_DEF(rope)->ref_f64(&c);
}

/* At position 1,000,000, in f32 as well: right to the last bit of f32, not to the 0.03 of an angle in f32. */
static void far_positions_are_right(void **state) {
    (void)state;
    int32_t pos = 1000000;
    double table[64];
    float single[64];
    make_table(&pos, 1, rope_far_freq, 32, 0, TL_F64, table);
    assert_close(table, rope_far_cos, 32, 1e-9, "cos");
    assert_close(table + 32, rope_far_sin, 32, 1e-9, "sin");
    make_table(&pos, 1, rope_far_freq, 32, 0, TL_F32, single);
    for (int k = 0; k < 64; k++) table[k] = (double)single[k];
    assert_close(table, rope_far_cos, 32, 6e-8, "cos");
    assert_close(table + 32, rope_far_sin, 32, 6e-8, "sin");
}

static void tables_scale_and_start_at_one(void **state) {
    (void)state;
    int32_t pos[2] = {0, 5};
    double freq[2] = {1, 0.5}, plain[8], scaled[8];
    make_table(pos, 2, freq, 2, 0, TL_F64, plain);
    make_table(pos, 2, freq, 2, 1.25f, TL_F64, scaled);
    for (int k = 0; k < 8; k++) assert_true(scaled[k] == 1.25 * plain[k]);
    assert_close(plain, (double[]){1, 1, 0, 0, cos(5), cos(2.5), sin(5), sin(2.5)}, 8, 0, "table");
}

static void rope_equals_torch(void **state) {
    (void)state;
    int32_t pos[3] = {0, 3, 1000};
    double freq[2] = {1, 0.01}, table[12], x[36], y[36];
    make_table(pos, 3, freq, 2, 1, TL_F64, table);
    fill(x, 36, 0.1);
    rotate(x, 3, 2, 6, table, 4, (struct rope_attr){ROPE_HALF, 0}, y);
    assert_close(y, rope_half, 36, 1e-15, "half");
    rotate(x, 3, 2, 6, table, 4, (struct rope_attr){ROPE_INTERLEAVED, 0}, y);
    assert_close(y, rope_pairs, 36, 1e-15, "pairs");
}

static void rope_is_a_rotation(void **state) {
    (void)state;
    enum { T = 40, R = 8 };
    int32_t pos[T];
    double freq[R / 2], table[T * R], x[T * R], y[T * R], z[T * R];
    for (int t = 0; t < T; t++) pos[t] = t;
    for (int k = 0; k < R / 2; k++) freq[k] = pow(10000, -2.0 * k / R);
    make_table(pos, T, freq, R / 2, 0, TL_F64, table);
    for (int style = 0; style < 2; style++) {
        fill(x, T * R, 0.4);
        rotate(x, T, 1, R, table, R, (struct rope_attr){style, 0}, y);
        for (int t = 0; t < T; t++) {
            double before = 0, after = 0;
            for (int d = 0; d < R; d++) before += x[t * R + d] * x[t * R + d], after += y[t * R + d] * y[t * R + d];
            assert_close(&after, &before, 1, 1e-14, "length");
        }
        assert_close(y, x, R, 0, "position 0");
        rotate(y, T, 1, R, table, R, (struct rope_attr){style, 1}, z);
        assert_close(z, x, T * R, 1e-15, "inverse");
        rotate(y, T, 1, R, table, R, (struct rope_attr){style, 1}, y); /* in place */
        assert_memory_equal(y, z, sizeof z);
        /* the inverse is the adjoint: <Rx, u> = <x, R'u> */
        double u[T * R], left = 0, right = 0;
        fill(u, T * R, 0.9);
        rotate(x, T, 1, R, table, R, (struct rope_attr){style, 0}, y);
        rotate(u, T, 1, R, table, R, (struct rope_attr){style, 1}, z);
        for (int i = 0; i < T * R; i++) left += y[i] * u[i], right += x[i] * z[i];
        assert_close(&left, &right, 1, 1e-12, "adjoint");
        /* <R_i q, R_j k> depends on i - j alone */
        for (int t = 1; t < T; t++) memcpy(x + t * R, x, R * sizeof *x), memcpy(u + t * R, u, R * sizeof *u);
        rotate(x, T, 1, R, table, R, (struct rope_attr){style, 0}, y);
        rotate(u, T, 1, R, table, R, (struct rope_attr){style, 0}, z);
        for (int t = 7; t < T; t++) {
            double here = 0, there = 0;
            for (int d = 0; d < R; d++) here += y[t * R + d] * z[(t - 7) * R + d], there += y[7 * R + d] * z[d];
            assert_close(&here, &there, 1, 1e-13, "distance");
        }
    }
}

/* The two styles are one under the permutation of pairs (2k, 2k+1) -> (k, k + R/2). */
static void styles_are_permutations(void **state) {
    (void)state;
    int32_t pos[2] = {1, 9};
    double freq[3] = {1, 0.3, 0.05}, table[12], x[12], px[12], y[12], py[12];
    make_table(pos, 2, freq, 3, 0, TL_F64, table);
    fill(x, 12, 0.2);
    for (int t = 0; t < 2; t++)
        for (int k = 0; k < 3; k++) px[t * 6 + k] = x[t * 6 + 2 * k], px[t * 6 + k + 3] = x[t * 6 + 2 * k + 1];
    rotate(x, 2, 1, 6, table, 6, (struct rope_attr){ROPE_INTERLEAVED, 0}, y);
    rotate(px, 2, 1, 6, table, 6, (struct rope_attr){ROPE_HALF, 0}, py);
    for (int t = 0; t < 2; t++)
        for (int k = 0; k < 3; k++) {
            assert_true(py[t * 6 + k] == y[t * 6 + 2 * k]);
            assert_true(py[t * 6 + k + 3] == y[t * 6 + 2 * k + 1]);
        }
}

/* Rows by number, zeros for numbers that are none; the gradient is the adjoint, rows that meet add up. */
static void embedding_gathers(void **state) {
    (void)state;
    enum { N = 6, V = 4, D = 3 };
    int32_t ids[N] = {2, 0, 2, -1, 3, V};
    double table[V * D], y[N * D], dy[N * D], dtable[V * D], left = 0, right = 0;
    fill(table, V * D, 0.1);
    fill(dy, N * D, 0.7);
    struct embedding_attr a = {0.5f, TL_NONE};
    tl_op_call c = {.attr = &a};
    c.in[0] = arg(ids, TL_I32, 1, N, 0, 0);
    c.in[1] = arg(table, TL_F64, 2, V, D, 0);
    c.out[0] = arg(y, TL_F64, 2, N, D, 0);
    OP_DEF(embedding)->ref_f64(&c);
    for (int n = 0; n < N; n++)
        for (int d = 0; d < D; d++) {
            bool none = ids[n] < 0 || ids[n] >= V;
            assert_true(y[n * D + d] == (none ? 0 : 0.5 * table[ids[n] * D + d]));
        }
    struct embedding_bwd_attr b = {0.5f, 0, V};
    tl_op_call g = {.attr = &b};
    g.in[0] = c.in[0];
    g.in[1] = arg(dy, TL_F64, 2, N, D, 0);
    g.out[0] = arg(dtable, TL_F64, 2, V, D, 0);
    OP_DEF(embedding_bwd)->ref_f64(&g);
    for (int i = 0; i < N * D; i++) left += y[i] * dy[i];
    for (int i = 0; i < V * D; i++) right += table[i] * dtable[i];
    assert_close(&left, &right, 1, 1e-14, "adjoint");
    assert_true(dtable[D] == 0 && dtable[2 * D] == 0.5 * dy[0] + 0.5 * dy[2 * D]);
    g.acc = 1;
    OP_DEF(embedding_bwd)->ref_f64(&g);
    assert_true(dtable[2 * D] == 2 * (0.5 * dy[0] + 0.5 * dy[2 * D]));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(far_positions_are_right), cmocka_unit_test(tables_scale_and_start_at_one),
        cmocka_unit_test(rope_equals_torch),       cmocka_unit_test(rope_is_a_rotation),
        cmocka_unit_test(styles_are_permutations), cmocka_unit_test(embedding_gathers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
