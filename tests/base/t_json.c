#include "base/file.h"
#include "base/json.h"
#include "support/testing.h"

#include <math.h>

static void mistakes_have_a_place(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t line;
        const char *says;
    } rows[] = {
        {"", 1, ""},
        {"{\"a\": 1,\n \"b\": 2,\n \"a\": 3}", 3, "duplicate"},
        {"{\"a\": 1,\n \"b\" 2}", 2, "':'"},
        {"{\"a\": [1, 2}\n", 1, ""},
        {"{\"a\": 1} x", 1, "end of file"},
        {"{\"a\": 01}", 1, ""},
        {"{\"a\": NaN}", 1, ""},
        {"{\"a\": 1e999}", 1, "overflow"},
        {"{\"a\": \"\xff\"}", 1, ""},
        {"{\"a\": 123456789012345678901234567890}", 1, "too big"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        json_t *v = (json_t *)1;
        tl_error e;
        assert_fails(TL_FORMAT, json_parse(rows[i].text, strlen(rows[i].text), "c.json", &v, &e), &e);
        assert_null(v);
        assert_string_equal(e.file, "c.json");
        assert_int_equal(e.line, rows[i].line);
        assert_non_null(strstr(e.text, rows[i].says));
    }
    assert_int_equal(json_parse("[", 1, NULL, &(json_t *){0}, NULL), TL_FORMAT);
}

static void depth_is_bounded(void **state) {
    (void)state;
    static char deep[200001];
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    json_t *v;
    tl_error e;
    assert_fails(TL_LIMIT, json_parse(deep, 200000, NULL, &v, &e), &e);
}

static json_t *object(const char *text) {
    json_t *v;
    tl_error e;
    assert_ok(json_parse(text, strlen(text), NULL, &v, &e), &e);
    return v;
}

static void getters_check_types_and_ranges(void **state) {
    (void)state;
    json_t *o =
        object("\xef\xbb\xbf{\"i\": 5, \"r\": 2.5, \"ir\": 7.0, \"s\": \"x\", \"t\": true, \"n\": null, \"big\": 1e30,"
               " \"l\": [1]}");
    tl_error e;
    int64_t i = -1;
    double r = -1;
    bool b = false;
    const char *s = "kept";
    assert_ok(json_get_int(o, "absent", 0, 9, &i, &e), &e);
    assert_ok(json_get_int(o, "n", 0, 9, &i, &e), &e);
    assert_int_equal(i, -1); /* absent and null leave the default alone */
    assert_ok(json_get_int(o, "i", 0, 9, &i, &e), &e);
    assert_int_equal(i, 5);
    assert_ok(json_get_int(o, "ir", 7, 7, &i, &e), &e);
    assert_int_equal(i, 7);
    assert_fails(TL_CONFIG, json_get_int(o, "i", 6, 9, &i, &e), &e);
    assert_string_equal(e.tensor, "i");
    assert_fails(TL_CONFIG, json_get_int(o, "i", 0, 4, &i, &e), &e);
    assert_non_null(strstr(e.text, "0..4"));
    assert_fails(TL_CONFIG, json_get_int(o, "r", 0, 9, &i, &e), &e);
    assert_fails(TL_CONFIG, json_get_int(o, "big", INT64_MIN, INT64_MAX, &i, &e), &e);
    assert_fails(TL_CONFIG, json_get_int(o, "s", 0, 9, &i, &e), &e);
    assert_non_null(strstr(e.text, "\"s\" must be an integer and is a string"));
    assert_fails(TL_CONFIG, json_get_int(o, "t", 0, 9, &i, &e), &e);
    assert_int_equal(i, 7); /* a failure leaves it alone too */
    assert_ok(json_get_real(o, "i", &r, &e), &e);
    assert_true(r == 5.0);
    assert_ok(json_get_real(o, "r", &r, &e), &e);
    assert_true(r == 2.5);
    assert_fails(TL_CONFIG, json_get_real(o, "s", &r, &e), &e);
    assert_ok(json_get_bool(o, "t", &b, &e), &e);
    assert_true(b);
    assert_fails(TL_CONFIG, json_get_bool(o, "i", &b, &e), &e);
    assert_ok(json_get_str(o, "n", &s, &e), &e);
    assert_string_equal(s, "kept");
    assert_ok(json_get_str(o, "s", &s, &e), &e);
    assert_string_equal(s, "x");
    assert_fails(TL_CONFIG, json_get_str(o, "l", &s, &e), &e);
    assert_fails(TL_CONFIG, json_get_str(json_object_get(o, "l"), "k", &s, &e), &e); /* not an object */
    assert_fails(TL_CONFIG, json_get_str(NULL, "k", &s, &e), &e);
    json_decref(o);
}

typedef struct paths {
    char dir[512], file[600];
} paths;

static tl_status there_and_back(const tl_allocator *a, void *user) {
    const paths *p = user;
    json_t *o = json_pack("{s:f, s:I, s:s, s:[f,f]}", "third", 1.0 / 3, "huge", INT64_MAX, "name",
                          "linden \xe6\xa4\xb4", "list", 0.1, 5e-324);
    json_t *back = NULL;
    tl_status s = json_write_file(a, p->file, o, NULL);
    if (!s) s = json_read_file(a, p->file, 10000, &back, NULL);
    if (!s) assert_true(json_equal(o, back));                                           /* every bit of every number */
    if (!s) assert_string_equal(json_object_iter_key(json_object_iter(back)), "third"); /* in insertion order */
    json_decref(back);
    json_decref(o);
    return s;
}

static void files_keep_every_digit(void **state) {
    (void)state;
    paths p;
    test_tempdir(p.dir, sizeof p.dir);
    snprintf(p.file, sizeof p.file, "%s/x.json", p.dir);
    test_alloc_sweep(there_and_back, &p);
    json_t *v;
    tl_error e;
    assert_fails(TL_LIMIT, json_read_file(&mem_default, p.file, 10, &v, &e), &e);
    assert_ok(file_write(&mem_default, p.file, "{\n\"a\": }", 8, &e), &e);
    assert_fails(TL_FORMAT, json_read_file(&mem_default, p.file, 100, &v, &e), &e);
    assert_true(!strcmp(e.file, p.file) && e.line == 2);
    test_tempdir_remove(p.dir);
    assert_fails(TL_NOTFOUND, json_read_file(&mem_default, p.file, 100, &v, &e), &e);
    assert_null(v);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_have_a_place),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(getters_check_types_and_ranges),
        cmocka_unit_test(files_keep_every_digit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
