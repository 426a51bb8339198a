/* A real model: stories260K as GGUF writes the published text, by every way of computing it and after every form. */
#include "infer/batch.h"
#include "model/gguf.h"
#include "support/testing.h"

#include <math.h>
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

/* In one prefill, then in a second one behind a cache: the next token is always the one of the text. */
static void a_prefill_of_the_text_goes_on_with_it(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    TEST_DATA_OR_SKIP(text, "stories260K/greedy-200.txt");
    size_t n;
    char *want = test_slurp(text, &n);
    tl_model *m;
    tl_error e;
    token_list l;
    assert_ok(model_open(engine, path, &m, &e), &e);
    token_list_init(&l, &mem_default);
    while (n && want[n - 1] == '\n') want[--n] = 0;
    assert_ok(tokenizer_encode(m->tokenizer, want, n, TOKENIZER_ADD, &l, &e), &e);
    assert_int_equal(l.id[0], 1);
    for (size_t first = 1; first < l.n; first += 1 + first / 3) {
        size_t second = first + (l.n - first) / 2;
        tl_session *s;
        tl_piece p;
        assert_ok(session_create(m, &(tl_session_options){0}, &s, &e), &e);
        assert_ok(session_ids(s, l.id, first, &e), &e);
        assert_ok(session_next(s, &p, &e), &e);
        assert_int_equal(p.id, l.id[first]);
        if (second > first + 1 && second < l.n) {
            assert_ok(session_ids(s, l.id + first + 1, second - first - 1, &e), &e);
            assert_ok(session_next(s, &p, &e), &e);
            assert_int_equal(p.id, l.id[second]);
        }
        session_destroy(s);
    }
    token_list_fini(&l);
    free(want);
    model_close(m);
}

static bool same_text(void *user, const batch_text *t) {
    const char *want = user;
    assert_int_equal(t->size, strlen(want));
    assert_memory_equal(t->text, want, t->size);
    return true;
}

/* The blank before the first word is the text's own where a prompt stands before it: in a session, in its twin, among
 * other prompts. */
static void a_blank_behind_the_prompt_is_kept(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    const char *prompts[] = {"Once upon", "Once upon"}, want[] = " a time,";
    tl_session_options o = {.max_tokens = 3};
    tl_model *m;
    tl_session *s, *twin;
    tl_error e;
    tl_piece p;
    str text;
    assert_ok(model_open(engine, path, &m, &e), &e);
    assert_ok(session_create(m, &o, &s, &e), &e);
    assert_ok(session_text(s, prompts[0], strlen(prompts[0]), false, &e), &e);
    str_init(&text, &mem_default);
    assert_ok(session_next(s, &p, &e), &e);
    str_add(&text, p.text, p.size);
    assert_ok(session_fork(s, &twin, &e), &e);
    for (int i = 0; i < 3; i++) {
        assert_ok(session_next(twin, &p, &e), &e);
        str_add(&text, p.text, p.size);
    }
    assert_true(p.done);
    assert_int_equal(text.len, strlen(want));
    assert_memory_equal(text.data, want, text.len);
    str_fini(&text);
    session_destroy(twin);
    session_destroy(s);
    char user[sizeof want];
    memcpy(user, want, sizeof want);
    assert_ok(batch_run(m, &o, 2, prompts, 2, false, same_text, user, &e), &e);
    model_close(m);
}

static tl_model *reopened(const char *path, const char *want) {
    tl_model *m;
    tl_error e;
    assert_ok(model_open(engine, path, &m, &e), &e);
    char *got = greedy(m, &(tl_session_options){0});
    assert_published(got, want);
    mem_free(&mem_default, got);
    return m;
}

static tl_dtype half(void *user, const model_config *c, const model_param *p, const param_piece *piece) {
    (void)c, (void)p, (void)piece;
    return *(const tl_dtype *)user;
}

/* GGUF, directory, GGUF, directory: the same numbers to the bit, the same text. */
static void the_text_survives_every_form(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    TEST_DATA_OR_SKIP(text, "stories260K/greedy-200.txt");
    char *want = test_slurp(text, NULL), dir[200], hf[256], gg[256], hf2[256];
    tl_error e;
    test_tempdir(dir, sizeof dir);
    snprintf(hf, sizeof hf, "%s/hf", dir);
    snprintf(gg, sizeof gg, "%s/x.gguf", dir);
    snprintf(hf2, sizeof hf2, "%s/hf2", dir);
    tl_model *a, *b, *c, *d;
    assert_ok(model_open(engine, path, &a, &e), &e);
    assert_ok(model_save(a, hf, &e), &e);
    b = reopened(hf, want);
    assert_ok(model_write_gguf(b, gg, NULL, &e), &e);
    c = reopened(gg, want);
    assert_ok(model_save(c, hf2, &e), &e);
    d = reopened(hf2, want);
    assert_memory_equal(a->flat, b->flat, (size_t)a->params.total * sizeof *a->flat);
    assert_memory_equal(a->flat, c->flat, (size_t)a->params.total * sizeof *a->flat);
    assert_memory_equal(a->flat, d->flat, (size_t)a->params.total * sizeof *a->flat);
    assert_memory_equal(&b->config, &d->config, sizeof b->config);
    model_close(a);
    model_close(b);
    model_close(c);
    model_close(d);
    /* half floats keep the greedy text of this model */
    assert_ok(model_open(engine, gg, &a, &e), &e);
    for (int k = 0; k < 2; k++) {
        tl_dtype t = k ? TL_BF16 : TL_F16;
        assert_ok(model_write_gguf(a, gg, &(gguf_save_options){.dtype = half, .user = &t, .file_type = 1}, &e), &e);
        assert_ok(model_open(engine, gg, &b, &e), &e);
        for (int64_t i = 0; i < a->params.total; i++)
            assert_near(a->flat[i], b->flat[i], (k ? 0.004 : 0.0005) * fabs((double)a->flat[i]) + 1e-7);
        model_close(b);
    }
    model_close(a);
    free(want);
    test_tempdir_remove(dir);
}

static tl_dtype blocks(void *user, const model_config *c, const model_param *p, const param_piece *piece) {
    tl_dtype t = *(const tl_dtype *)user;
    (void)c, (void)p;
    return piece->cols % tl_dtype_block(t) ? TL_F32 : t;
}

/* Weights used in their blocks give what the same weights decoded give: the logits, in parts of every size. */
static void blocks_in_place_equal_decoded_ones(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    char dir[200], gg[256];
    tl_error e;
    test_tempdir(dir, sizeof dir);
    snprintf(gg, sizeof gg, "%s/x.gguf", dir);
    static const tl_dtype types[] = {TL_Q8_0, TL_Q4_0, TL_F16, TL_BF16};
    tl_model *m, *a, *b;
    assert_ok(model_open(engine, path, &m, &e), &e);
    for (size_t t = 0; t < sizeof types / sizeof *types; t++) {
        assert_ok(
            model_write_gguf(
                m, gg, &(gguf_save_options){.dtype = blocks, .user = (void *)(uintptr_t)&types[t], .file_type = 7}, &e),
            &e);
        assert_ok(model_open(engine, gg, &a, &e), &e);
        assert_ok(model_open_mapped(engine, gg, &b, &e), &e);
        assert_null(b->flat);
        tl_session *x, *y;
        int32_t ids[60];
        for (int i = 0; i < 60; i++) ids[i] = i ? 260 + i * i * 7 % 250 : 1;
        assert_ok(session_create(a, &(tl_session_options){.context = 64}, &x, &e), &e);
        assert_ok(session_create(b, &(tl_session_options){.context = 64}, &y, &e), &e);
        for (int at = 0, part = 1; at<60; at += part, part = part * 2> 60 - at - part ? 1 : part * 2) {
            const float *p, *q;
            int n = part < 60 - at ? part : 60 - at;
            assert_ok(session_ids(x, ids + at, (size_t)n, &e), &e);
            assert_ok(session_ids(y, ids + at, (size_t)n, &e), &e);
            assert_ok(session_logits(x, &p, &e), &e);
            assert_ok(session_logits(y, &q, &e), &e);
            for (int v = 0; v < 512; v++) assert_near(p[v], q[v], 2e-4);
        }
        session_destroy(x);
        session_destroy(y);
        model_close(a);
        model_close(b);
    }
    model_close(m);
    test_tempdir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_text),
        cmocka_unit_test(a_prefill_of_the_text_goes_on_with_it),
        cmocka_unit_test(a_blank_behind_the_prompt_is_kept),
        cmocka_unit_test(the_text_survives_every_form),
        cmocka_unit_test(blocks_in_place_equal_decoded_ones),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
