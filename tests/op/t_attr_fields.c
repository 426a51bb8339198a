/* The described attributes are the structs: every operator has its fields, in order, without overlap or a hole larger
 * than alignment asks for. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "op/op.h"

static size_t size_of(char type) {
    return type == 'l' ? sizeof(int64_t) : sizeof(int32_t);
}

static void test_fields_cover_every_struct(void **state) {
    (void)state;
    for (size_t i = 0; tl_op_at(i); i++) {
        const tl_op_def *op = tl_op_at(i);
        size_t n, end = 0;
        const tl_attr_field *f = tl_op_attr_fields(op, &n);
        if (!f) fail_msg("%s: its attributes are not described in attr_fields.c", op->name);
        for (size_t k = 0; k < n; k++) {
            size_t align = size_of(f[k].type), begin = (end + align - 1) / align * align;
            if ((size_t)f[k].offset != begin) fail_msg("%s: a field is missing before %s", op->name, f[k].name);
            end = begin + align * (size_t)f[k].count;
        }
        if (op->attr_size < end || op->attr_size - end >= 8) fail_msg("%s: a field is missing at the end", op->name);
    }
}

static void test_known_layouts(void **state) {
    (void)state;
    size_t n;
    const tl_attr_field *f = tl_op_attr_fields(tl_op_find("attention"), &n);
    assert_int_equal(n, 8);
    assert_string_equal(f[4].name, "window");
    assert_int_equal(f[4].type, 'l');
    assert_int_equal(f[4].offset, offsetof(struct attention_attr, window));
    f = tl_op_attr_fields(tl_op_find("split"), &n);
    assert_int_equal(n, 3);
    assert_int_equal(f[2].count, 6);
    f = tl_op_attr_fields(tl_op_find("cast"), &n);
    assert_int_equal(n, 1);
    assert_int_equal(f[0].type, 'd');
}

static void test_foreign_operators_have_none(void **state) {
    (void)state;
    size_t n = 7;
    tl_op_def own = {.name = "linear", .id = -1};
    assert_null(tl_op_attr_fields(&own, &n));
    assert_int_equal(n, 0);
    assert_null(tl_op_attr_fields(NULL, &n));
    assert_null(tl_op_at(OP_COUNT));
    assert_ptr_equal(tl_op_at(0), tl_op_find("embedding"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_cover_every_struct),
        cmocka_unit_test(test_known_layouts),
        cmocka_unit_test(test_foreign_operators_have_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
