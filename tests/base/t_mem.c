#include "base/arena.h"
#include "base/str.h"
#include "support/testing.h"

#include <stdlib.h>

static bool all(const void *p, size_t n, int value) {
    for (size_t i = 0; i < n; i++)
        if (((const unsigned char *)p)[i] != value) return false;
    return true;
}

static void new_is_zeroed_and_aligned(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    for (size_t n = 0; n < 200; n += 7) {
        void *p = mem_new(&t.base, n, 3);
        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        assert_true(all(p, 3 * n, 0));
        mem_free(&t.base, p);
    }
    mem_free(&t.base, NULL);
    test_alloc_done(&t);
}

static void sizes_that_overflow_are_refused(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    assert_null(mem_new(&t.base, SIZE_MAX / 2, 3));
    assert_null(mem_new(&t.base, SIZE_MAX, 1)); /* the header does not fit */
    assert_null(mem_new(&t.base, SIZE_MAX - 63, 1));
    char *array = NULL;
    size_t cap = 0;
    assert_false(mem_reserve(&t.base, &array, &cap, SIZE_MAX - 10));
    assert_null(array);
    assert_int_equal(cap, 0);
    assert_int_equal(t.calls, 0); /* the allocator was never bothered */
    assert_null(mem_default.alloc(mem_default.user, SIZE_MAX - 3));
    arena a;
    arena_init(&a, &t.base);
    assert_null(arena_new(&a, SIZE_MAX / 4, 8));
    assert_null(arena_new(&a, SIZE_MAX - 4, 1));
    assert_null(arena_new(&a, SIZE_MAX - 32, 1));
    arena_fini(&a);
    test_alloc_done(&t);
}

static void resize_keeps_and_zeroes(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    char *p = mem_new(&t.base, 10, 1);
    memset(p, 7, 10);
    p = mem_resize(&t.base, p, 1000, 1);
    assert_true(all(p, 10, 7) && all(p + 10, 990, 0));
    p = mem_resize(&t.base, p, 5, 1);
    assert_true(all(p, 5, 7));
    t.fail_at = t.calls + 1;
    assert_null(mem_resize(&t.base, p, 50, 1));
    assert_true(all(p, 5, 7)); /* untouched by the failure */
    mem_free(&t.base, p);
    p = mem_resize(&t.base, NULL, 4, 4);
    assert_true(all(p, 16, 0));
    mem_free(&t.base, p);
    test_alloc_done(&t);
}

static void big_buffers_have_no_header(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    void *p = mem_take(&t.base, 12345);
    assert_int_equal(t.live_bytes, 12345);
    mem_give(&t.base, p, 12345);
    mem_give(&t.base, NULL, 1);
    test_alloc_done(&t);
}

static tl_status grow(const tl_allocator *a, void *user) {
    (void)user;
    int64_t *v = NULL;
    size_t n = 0, cap = 0;
    bool ok = true;
    for (; ok && n < 1000; n++)
        if ((ok = mem_reserve(a, &v, &cap, n + 1))) v[n] = (int64_t)n;
    for (size_t i = 0; ok && i < n; i++) assert_int_equal(v[i], i);
    mem_free(a, v);
    return ok ? TL_OK : TL_NOMEM;
}

static void reserve_grows_by_parts(void **state) {
    (void)state;
    long calls = test_alloc_sweep(grow, NULL);
    assert_in_range(calls, 3, 20); /* amortised: not one call an element */
}

static void strings_are_copied(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    char *a = mem_strdup(&t.base, "linden"), *b = mem_strndup(&t.base, "linden", 3), *c = mem_strndup(&t.base, "ab", 9);
    assert_string_equal(a, "linden");
    assert_string_equal(b, "lin");
    assert_string_equal(c, "ab");
    mem_free(&t.base, a), mem_free(&t.base, b), mem_free(&t.base, c);
    test_alloc_done(&t);
}

static tl_status fill_arena(const tl_allocator *alloc, void *user) {
    (void)user;
    arena a;
    arena_init(&a, alloc);
    tl_status s = TL_OK;
    char *kept[300];
    for (size_t i = 0; i < 300 && !s; i++) {
        size_t n = i % 50 == 49 ? 100000 : i;
        kept[i] = arena_new(&a, n, 1);
        if (!kept[i]) {
            s = TL_NOMEM;
            break;
        }
        assert_int_equal((uintptr_t)kept[i] % 16, 0);
        assert_true(all(kept[i], n, 0));
        memset(kept[i], (int)(i % 251), n);
    }
    for (size_t i = 0; !s && i < 300; i++) assert_true(all(kept[i], i % 50 == 49 ? 100000 : i, (int)(i % 251)));
    if (!s) {
        assert_true(a.total >= a.used && a.used > 600000);
        const char *x = arena_strdup(&a, "root"), *y = arena_strndup(&a, "rooted", 4),
                   *z = arena_printf(&a, "%d-%s", 7, "x");
        if (!x || !y || !z)
            s = TL_NOMEM;
        else
            assert_true(!strcmp(x, "root") && !strcmp(y, "root") && !strcmp(z, "7-x"));
    }
    arena_fini(&a);
    return s;
}

static void arena_objects_stay_apart(void **state) {
    (void)state;
    long calls = test_alloc_sweep(fill_arena, NULL);
    assert_in_range(calls, 3, 30);
}

static tl_status write_string(const tl_allocator *a, void *user) {
    (void)user;
    str s;
    str_init(&s, a);
    for (int i = 0; i < 500; i++) str_addf(&s, "%d,", i);
    str_adds(&s, "end");
    str_addc(&s, '.');
    str_add(&s, "", 0);
    tl_status status = s.failed ? TL_NOMEM : TL_OK;
    if (!status) {
        assert_int_equal(s.len, 10 * 2 + 90 * 3 + 400 * 4 + 4);
        assert_int_equal(strlen(s.data), s.len);
        assert_memory_equal(s.data, "0,1,2,3,", 8);
        assert_string_equal(s.data + s.len - 8, "499,end.");
        str_clear(&s);
        assert_string_equal(s.data, "");
    }
    str_fini(&s);
    assert_null(s.data);
    return status;
}

static void strings_grow_and_fail_late(void **state) {
    (void)state;
    test_alloc_sweep(write_string, NULL);
}

static void json_strings_are_escaped(void **state) {
    (void)state;
    static const struct {
        const char *in, *out;
    } rows[] = {
        {"", "\"\""},
        {"a\"b\\c/", "\"a\\\"b\\\\c/\""},
        {"\n\t\r\x01\x1f\x7f", "\"\\n\\t\\r\\u0001\\u001f\\u007f\""},
        {"\xe6\xa4\xb4 \xf0\x9f\x8c\xb3 \xc3\xa9", "\"\xe6\xa4\xb4 \xf0\x9f\x8c\xb3 \xc3\xa9\""},
        {"a\xff"
         "b",
         "\"a\xef\xbf\xbd"
         "b\""},
        {"\xc0\xaf", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                                 /* overlong */
        {"\xed\xa0\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},                 /* a surrogate */
        {"\xe6\xa4", "\"\xef\xbf\xbd\xef\xbf\xbd\""},                                 /* cut short */
        {"\xf4\x90\x80\x80", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""}, /* beyond U+10FFFF */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        str s;
        str_init(&s, &mem_default);
        str_add_json(&s, rows[i].in, strlen(rows[i].in));
        assert_string_equal(s.data, rows[i].out);
        str_fini(&s);
    }
    str s;
    str_init(&s, &mem_default);
    str_add_json(&s, "a\0b", 3);
    assert_string_equal(s.data, "\"a\\u0000b\"");
    str_fini(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(new_is_zeroed_and_aligned), cmocka_unit_test(sizes_that_overflow_are_refused),
        cmocka_unit_test(resize_keeps_and_zeroes),   cmocka_unit_test(big_buffers_have_no_header),
        cmocka_unit_test(reserve_grows_by_parts),    cmocka_unit_test(strings_are_copied),
        cmocka_unit_test(arena_objects_stay_apart),  cmocka_unit_test(strings_grow_and_fail_late),
        cmocka_unit_test(json_strings_are_escaped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
