/* A real model: stories260K as GGUF writes the published text, by every way of computing it and after every form. */
#include "infer/session.h"
#include "model/gguf.h"
#include "support/testing.h"

#include <stdlib.h>

static tl_engine *engine;

static int setup(void **state) {
    (void)state;
    return tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, NULL) != TL_OK;
}

static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

/* The text of 200 greedy steps from BOS, the first of which takes the first token from BOS: 200 tokens seen. */
static char *greedy(tl_model *m, const tl_session_options *o) {
    tl_session_options so = *o;
    tl_session *s;
    tl_error e;
    tl_piece p;
    str out;
    str_init(&out, &mem_default);
    so.max_tokens = 200;
    so.context = 256;
    assert_ok(session_create(m, &so, &s, &e), &e);
    do {
        assert_ok(session_next(s, &p, &e), &e);
        str_add(&out, p.text, p.size);
    } while (!p.done);
    session_destroy(s);
    str_addc(&out, 0);
    return out.data;
}

static void assert_published(const char *text, const char *want) {
    size_t n = strlen(want);
    while (n && want[n - 1] == '\n') n--;
    if (strncmp(text, want, n) != 0) print_message("%s\n", text);
    assert_true(strncmp(text, want, n) == 0);
}

static void the_published_text(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    TEST_DATA_OR_SKIP(text, "stories260K/greedy-200.txt");
    char *want = test_slurp(text, NULL);
    tl_model *m;
    tl_error e;
    assert_ok(model_open(engine, path, &m, &e), &e);
    assert_int_equal(m->config.layers, 5);
    assert_int_equal(m->config.kv_heads, 4);
    assert_int_equal(m->config.bos, 1);
    static const tl_session_options ways[] = {{0}, {.no_cache = true}, {.cache_dtype = TL_F16}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char *got = greedy(m, &ways[i]);
        assert_published(got, want);
        mem_free(&mem_default, got);
    }
    free(want);
    model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_text),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
