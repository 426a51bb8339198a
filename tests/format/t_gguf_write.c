/* The GGUF writer: what it writes its own strict reader reads back; what nobody could read is refused. */
#include "format/gguf_write.h"
#include "support/testing.h"

#include <stdlib.h>

static tl_status fill(void *user, size_t i, void *buf, tl_error *e) {
    const gguf_writer *w = user;
    (void)e;
    memset(buf, (int)i + 1, w->tensor[i].bytes);
    return TL_OK;
}

static tl_status fill_fails(void *user, size_t i, void *buf, tl_error *e) {
    (void)user, (void)buf;
    return i ? error_set(e, TL_NUMERIC, "no") : TL_OK;
}

static void some_keys(gguf_writer *w) {
    gguf_put_str(w, "general.architecture", "llama", 5);
    gguf_put_u32(w, "llama.block_count", 7);
    gguf_put_f32(w, "llama.eps", 0.5f);
    gguf_put_bool(w, "yes", true);
    gguf_put_array(w, "words", GGUF_STRING, 2);
    gguf_add_str(w, "a", 1);
    gguf_add_str(w, "", 0);
    gguf_put_array(w, "scores", GGUF_F32, 2);
    gguf_add(w, (float[]){1, 2}, 8);
    gguf_put_tensor(w, "x", 2, (int64_t[]){5, 3}, GGUF_T_F32);
    gguf_put_tensor(w, "q", 2, (int64_t[]){64, 3}, GGUF_T_Q4_0);
    gguf_put_tensor(w, "v", 1, (int64_t[]){1}, GGUF_T_F16);
}

static void what_is_written_is_read_back(void **state) {
    (void)state;
    char dir[200], path[256];
    gguf_writer w;
    gguf g;
    tl_error e;
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/x.gguf", dir);
    gguf_writer_init(&w, &mem_default);
    some_keys(&w);
    assert_ok(gguf_write(&w, path, fill, &w, &e), &e);
    gguf_writer_fini(&w);
    assert_ok(gguf_open(&mem_default, path, &g, &e), &e);
    int64_t n = 0;
    double eps = 0;
    bool yes = false;
    gguf_str s;
    const gguf_value *words;
    size_t at = 0;
    assert_int_equal(g.version, 3);
    assert_ok(gguf_get_int(&g, "llama.block_count", 0, 10, &n, &e), &e);
    assert_ok(gguf_get_real(&g, "llama.eps", &eps, &e), &e);
    assert_ok(gguf_get_bool(&g, "yes", &yes, &e), &e);
    assert_ok(gguf_get_array(&g, "words", GGUF_STRING, &words, &e), &e);
    assert_int_equal(n, 7);
    assert_true(eps == 0.5 && yes);
    assert_true(gguf_next_str(words, &at, &s) && s.n == 1 && s.s[0] == 'a');
    assert_true(gguf_next_str(words, &at, &s) && s.n == 0);
    assert_false(gguf_next_str(words, &at, &s));
    static const char *const names[] = {"x", "q", "v"};
    static const size_t bytes[] = {60, 108, 2};
    for (size_t i = 0; i < 3; i++) {
        const gguf_tensor *t = gguf_find_tensor(&g, names[i]);
        assert_non_null(t);
        assert_int_equal(t->size, bytes[i]);
        assert_int_equal(t->offset % 32, 0);
        for (size_t k = 0; k < t->size; k++) assert_int_equal(t->data[k], i + 1);
    }
    gguf_close(&g);
    test_tempdir_remove(dir);
}

static void mistakes_are_not_written(void **state) {
    (void)state;
    char dir[200], path[256], lng[80];
    tl_error e;
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/x.gguf", dir);
    memset(lng, 'n', sizeof lng);
    lng[79] = 0;
    for (int k = 0; k < 8; k++) {
        gguf_writer w;
        gguf_writer_init(&w, &mem_default);
        some_keys(&w);
        switch (k) {
        case 0: gguf_put_u32(&w, "yes", 1); break;                              /* a key twice */
        case 1: gguf_put_u32(&w, "", 1); break;                                 /* no key */
        case 2: gguf_put_u32(&w, "a b", 1); break;                              /* a blank in it */
        case 3: gguf_put_tensor(&w, "x", 1, (int64_t[]){1}, GGUF_T_F32); break; /* a tensor twice */
        case 4: gguf_put_tensor(&w, lng, 1, (int64_t[]){1}, GGUF_T_F32); break;
        case 5: gguf_put_tensor(&w, "b", 1, (int64_t[]){33}, GGUF_T_Q8_0); break; /* no whole blocks */
        case 6: gguf_put_tensor(&w, "b", 2, (int64_t[]){1, 0}, GGUF_T_F32); break;
        case 7: gguf_put_array(&w, "few", GGUF_F32, 3); break; /* elements missing */
        }
        tl_status s = gguf_write(&w, path, fill, &w, &e);
        assert_true(s == TL_ARG || s == TL_FORMAT);
        assert_true(e.text[0] != 0);
        FILE *f = fopen(path, "rb");
        assert_null(f);
        gguf_writer_fini(&w);
    }
    gguf_writer w; /* a tensor that cannot be made leaves nothing either */
    gguf_writer_init(&w, &mem_default);
    some_keys(&w);
    assert_fails(TL_NUMERIC, gguf_write(&w, path, fill_fails, &w, &e), &e);
    gguf_writer_fini(&w);
    assert_false(file_exists(path));
    test_tempdir_remove(dir);
}

static tl_status write_all(const tl_allocator *a, void *path) {
    gguf_writer w;
    gguf_writer_init(&w, a);
    some_keys(&w);
    tl_status s = gguf_write(&w, path, fill, &w, NULL);
    gguf_writer_fini(&w);
    return s;
}

static void allocations_may_fail(void **state) {
    (void)state;
    char dir[200], path[256];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/x.gguf", dir);
    assert_true(test_alloc_sweep(write_all, path) > 5);
    test_tempdir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_is_written_is_read_back),
                                       cmocka_unit_test(mistakes_are_not_written),
                                       cmocka_unit_test(allocations_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
