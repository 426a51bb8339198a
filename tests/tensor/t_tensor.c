#include "support/testing.h"

#include "base/half.h"
#include "op/vectors_b.h" /* numbers only */
#include "tensor/block.h"
#include "tensor/tensor.h"

#include <math.h>

static tl_desc make(tl_dtype t, int ndim, int64_t a, int64_t b, int64_t c, int64_t d) {
    return tl_desc_make(t, ndim, (int64_t[4]){a, b, c, d});
}

static void counts_and_offsets(void **state) {
    (void)state;
    tl_desc d = make(TL_F32, 3, 2, 3, 4, 0);
    assert_int_equal(tl_desc_count(&d), 24);
    assert_int_equal(tl_desc_rows(&d), 6);
    assert_int_equal(tl_desc_last(&d), 4);
    assert_int_equal(tl_desc_row(&d, 5), 20);
    assert_int_equal(tensor_row_stride(&d), 4);
    d.stride[1] = 10, d.stride[0] = 30;
    assert_int_equal(tl_desc_row(&d, 4), 40);
    assert_int_equal(tensor_row_stride(&d), 10);
    assert_false(tl_desc_contiguous(&d));
    d.stride[0] = 50;
    assert_int_equal(tl_desc_row(&d, 4), 60);
    assert_int_equal(tensor_row_stride(&d), -1);
    d = make(TL_F32, 1, 5, 0, 0, 0);
    assert_int_equal(tl_desc_rows(&d), 1);
    assert_int_equal(tl_desc_row(&d, 0), 0);
    d = make(TL_F32, 0, 0, 0, 0, 0);
    assert_int_equal(tl_desc_count(&d), 1);
    assert_int_equal(tl_desc_rows(&d), 1);
    d = make(TL_F32, 3, 4, 0, 3, 0);
    assert_int_equal(tl_desc_count(&d), 0);
    assert_true(tl_desc_contiguous(&d));
}

static void dimensions_of_one_have_no_stride(void **state) {
    (void)state;
    tl_desc d = make(TL_F32, 4, 2, 1, 3, 4);
    d.stride[1] = 999;
    assert_true(tl_desc_contiguous(&d));
    assert_int_equal(tensor_row_stride(&d), 4);
    tl_desc e = make(TL_BF16, 4, 2, 1, 3, 4);
    assert_true(tl_desc_same_shape(&d, &e));
    e = make(TL_F32, 3, 2, 3, 4, 0);
    assert_false(tl_desc_same_shape(&d, &e));
}

static void bytes_are_checked(void **state) {
    (void)state;
    size_t bytes;
    tl_desc d = make(TL_BF16, 2, 3, 5, 0, 0);
    assert_true(tensor_bytes(&d, &bytes) && bytes == 30);
    d = make(TL_Q8_0, 2, 3, 64, 0, 0);
    assert_true(tensor_bytes(&d, &bytes) && bytes == 3 * 2 * 34);
    d = make(TL_Q8_0, 2, 3, 65, 0, 0);
    assert_false(tensor_bytes(&d, &bytes));
    d = make(TL_F32, 2, INT64_C(1) << 40, INT64_C(1) << 30, 0, 0);
    assert_false(tensor_valid(&d));
    d = make(TL_F64, 2, INT64_C(1) << 40, INT64_C(1) << 21, 0, 0); /* fits as a count, not in bytes */
    assert_false(tensor_bytes(&d, &bytes));
    d = make(TL_F64, 3, INT64_C(1) << 62, 0, INT64_C(1) << 62, 0);
    assert_false(tensor_valid(&d)); /* nonsense even when empty */
    d = make(TL_F64, 3, 7, 0, 9, 0);
    assert_true(tensor_bytes(&d, &bytes) && bytes == 0);
    d = make(TL_F32, 2, 3, -1, 0, 0);
    assert_false(tensor_valid(&d));
    d = make(TL_F32, 2, 3, 4, 0, 0);
    d.ndim = 5;
    assert_false(tensor_valid(&d));
    d.ndim = -1;
    assert_false(tensor_valid(&d));
    d.ndim = 2;
    d.dtype = TL_DTYPE_COUNT;
    assert_false(tensor_valid(&d));
    d.dtype = TL_NONE;
    assert_false(tensor_valid(&d));
}

static void prints(void **state) {
    (void)state;
    char buf[64], tiny[6];
    tl_desc d = make(TL_BF16, 3, 2, 3, 4, 0);
    assert_string_equal(tensor_print(&d, buf, sizeof buf), "(2,3,4) bf16");
    assert_string_equal(tensor_print(&d, tiny, sizeof tiny), "(2,3,");
    d = make(TL_I32, 0, 0, 0, 0, 0);
    assert_string_equal(tensor_print(&d, buf, sizeof buf), "() i32");
}

static void kinds(void **state) {
    (void)state;
    assert_true(tensor_is_float(TL_F16) && tensor_is_float(TL_F64) && !tensor_is_float(TL_I32));
    assert_true(tensor_is_quantized(TL_Q6_K) && !tensor_is_quantized(TL_F8_E4M3) && !tensor_is_quantized(TL_NONE));
    assert_int_equal(tensor_sum_dtype(TL_F64), TL_F64);
    assert_int_equal(tensor_sum_dtype(TL_BF16), TL_F32);
}

/* A reshape that is allowed puts every element where it was. */
static bool same_elements(const tl_desc *a, const tl_desc *b) {
    for (int64_t i = 0; i < tl_desc_count(a); i++) {
        int64_t p = tl_desc_last(a), q = tl_desc_last(b);
        if (tl_desc_row(a, i / p) + i % p != tl_desc_row(b, i / q) + i % q) return false;
    }
    return true;
}

static void reshapes_views(void **state) {
    (void)state;
    static const int64_t shapes[][5] = {/* ndim, dims of 24 elements */
                                        {1, 24},         {2, 4, 6},    {2, 6, 4},       {2, 8, 3},
                                        {3, 2, 3, 4},    {3, 4, 2, 3}, {3, 4, 1, 6},    {4, 2, 2, 2, 3},
                                        {4, 1, 4, 6, 1}, {3, 4, 6, 1}, {4, 4, 3, 1, 2}, {3, 1, 1, 24},
                                        {2, 24, 1},      {2, 1, 24},   {4, 2, 3, 2, 2}};
    size_t n = sizeof shapes / sizeof shapes[0], done = 0, views = 0;
    for (size_t from = 0; from < n; from++)
        for (size_t to = 0; to < n; to++)
            for (int pad = 0; pad < 3; pad++) {
                tl_desc d = tl_desc_make(TL_F32, (int)shapes[from][0], &shapes[from][1]), y;
                /* pad 1: wider rows; pad 2: wider blocks of rows too */
                for (int i = d.ndim - 2, last = d.ndim - 2; pad && i >= 0; i--)
                    d.stride[i] = i == last ? d.dim[i + 1] + 5 : d.stride[i + 1] * d.dim[i + 1] + (pad > 1 ? 7 : 0);
                if (!tensor_reshape(&d, (int)shapes[to][0], &shapes[to][1], &y)) {
                    assert_false(tl_desc_contiguous(&d));
                    assert_false(from == to && tl_desc_last(&d) > 1);
                    continue;
                }
                done++, views += !tl_desc_contiguous(&d);
                assert_int_equal(y.ndim, shapes[to][0]);
                assert_int_equal(y.stride[y.ndim - 1], 1);
                assert_true(same_elements(&d, &y));
            }
    assert_true(done >= n * n && views >= n);
    /* what attention needs: heads out of a window of wider rows, and rows of (B,T) merged */
    tl_desc window = make(TL_F32, 3, 2, 5, 12, 0), y;
    window.stride[1] = 36, window.stride[0] = 5 * 36;
    assert_true(tensor_reshape(&window, 4, (int64_t[4]){2, 5, 3, 4}, &y));
    assert_int_equal(y.stride[1], 36);
    assert_int_equal(y.stride[2], 4);
    assert_true(tensor_reshape(&window, 2, (int64_t[2]){10, 12}, &y));
    assert_int_equal(y.stride[0], 36);
    assert_false(tensor_reshape(&window, 2, (int64_t[2]){2, 60}, &y));
    assert_false(tensor_reshape(&window, 2, (int64_t[2]){2, 61}, &y));
    assert_false(tensor_reshape(&window, 5, (int64_t[5]){2, 5, 3, 2, 2}, &y));
}

static void windows(void **state) {
    (void)state;
    tl_desc d = make(TL_F32, 2, 3, 10, 0, 0), w = tensor_window(&d, 4);
    assert_int_equal(w.dim[1], 4);
    assert_int_equal(w.stride[0], 10);
    assert_int_equal(tl_desc_row(&w, 2), 20);
}

/* Two blocks of the bytes that tools/vectors/op_rows.py makes, every element. */
static void blocks_of(tl_dtype t, const double *want) {
    int64_t n = tl_dtype_block(t);
    size_t size = tl_dtype_bytes(t);
    uint8_t raw[2 * 210];
    for (size_t i = 0; i < 2 * size; i++) raw[i] = (uint8_t)((i * i * 31 + i * 7 + 5) % 251);
    for (size_t b = 0; b < 2; b++) {
        uint16_t half[2] = {half_f32_to_f16(0.0625f * (float)(b + 1)), half_f32_to_f16(0.125f)};
        memcpy(raw + b * size + (t == TL_Q6_K ? 208 : 0), half, t == TL_Q4_K ? 4 : 2);
    }
    for (int64_t i = 0; i < 2 * n; i++)
        if (fabs((double)block_get(t, raw, i) - want[i]) > 1e-6 * fabs(want[i]))
            fail_msg("%s [%d]: %g, not %g", tl_dtype_name(t), (int)i, (double)block_get(t, raw, i), want[i]);
}

static void blocks(void **state) {
    (void)state;
    blocks_of(TL_Q8_0, blocks_q8_0);
    blocks_of(TL_Q4_0, blocks_q4_0);
    blocks_of(TL_Q4_K, blocks_q4_k);
    blocks_of(TL_Q6_K, blocks_q6_k);
    assert_true(block_get(TL_F32, "    ", 0) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts_and_offsets),
        cmocka_unit_test(dimensions_of_one_have_no_stride),
        cmocka_unit_test(bytes_are_checked),
        cmocka_unit_test(prints),
        cmocka_unit_test(kinds),
        cmocka_unit_test(reshapes_views),
        cmocka_unit_test(windows),
        cmocka_unit_test(blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
