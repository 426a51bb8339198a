/* Small tokenizers made by Hugging Face's library (make_vectors.py), and what it answers: the same ids and texts. */
#include "support/testing.h"

#include "base/json.h"
#include "tokenizer/tokenizer.h"

static const char *const names[] = {
    "bytelevel",
    "bytelevel_prefix",
    "nfc",
    "nfkc_lower",
    "llama2",
    "metaspace",
    "metaspace_first",
    "affixes",
    "ignore_merges",
    "bert",
    "bert_cased",
    "words",
    "unigram",
    "unigram_bytes",
    "split_removed",
    "split_merged_with_previous",
    "split_merged_with_next",
    "split_contiguous",
    "split_misc",
    "scripts",
    "added",
};

static int bad;

/* Where the library gives other spans than the bytes a token stands for: it takes the blank off (trim_offsets), counts
 * only the first of characters that normalize to one, or only the last of blanks that become one. */
static const char *const other_spans[] = {"added", "bytelevel_prefix", "nfc", "nfkc_lower", "unigram", "unigram_bytes"};

static bool spans_agree(const char *name) {
    for (size_t i = 0; i < sizeof other_spans / sizeof *other_spans; i++)
        if (!strcmp(name, other_spans[i])) return false;
    return true;
}

static void same_ids(const char *name, size_t i, const char *what, const char *text, const token_list *l,
                     const json_t *want) {
    bool same = l->n == json_array_size(want);
    for (size_t k = 0; same && k < l->n; k++) same = l->id[k] == json_integer_value(json_array_get(want, k));
    if (same) return;
    bad++;
    print_error("%s case %zu (%s): \"%s\"\n  got ", name, i, what, text);
    for (size_t k = 0; k < l->n && k < 40; k++) print_error(" %d", l->id[k]);
    print_error("\n  want");
    for (size_t k = 0; k < json_array_size(want) && k < 40; k++)
        print_error(" %d", (int)json_integer_value(json_array_get(want, k)));
    print_error("\n");
}

/* Spans of bytes, grown to whole characters as the library's are; those of tokens that stand for no text may differ. */
static void same_spans(const char *name, size_t i, const char *text, size_t n, const token_list *l,
                       const json_t *want) {
    if (!spans_agree(name) || l->n != json_array_size(want)) return;
    for (size_t k = 0; k < l->n; k++) {
        size_t b = l->span[k].begin, e = l->span[k].end;
        const json_t *w = json_array_get(want, k);
        const json_int_t wb = json_integer_value(json_array_get(w, 0)), we = json_integer_value(json_array_get(w, 1));
        if (b == e || we == 0) continue;
        while (b && ((uint8_t)text[b] & 0xc0) == 0x80) b--;
        while (e < n && ((uint8_t)text[e] & 0xc0) == 0x80) e++;
        if ((json_int_t)b == wb && (json_int_t)e == we) continue;
        bad++;
        print_error("%s case %zu: \"%s\": token %zu is %zu..%zu, want %d..%d\n", name, i, text, k, b, e, (int)wb,
                    (int)we);
    }
}

static void same_text(const char *name, size_t i, const char *what, const str *s, const json_t *want) {
    const char *w = json_string_value(want);
    if (s->len == json_string_length(want) && (!s->len || !memcmp(s->data, w, s->len))) return;
    bad++;
    print_error("%s case %zu (%s):\n  got  \"%s\"\n  want \"%s\"\n", name, i, what, s->data ? s->data : "", w);
}

static void stream_text(const char *name, size_t i, const tokenizer *t, const token_list *l, const json_t *want) {
    token_decoder d;
    str s;
    tl_error e = {0};
    str_init(&s, &mem_default);
    token_decoder_init(&d, t, 0);
    for (size_t k = 0; k < l->n; k++) assert_ok(token_decoder_push(&d, l->id[k], &s, &e), &e);
    assert_ok(token_decoder_finish(&d, &s, &e), &e);
    same_text(name, i, "streamed", &s, want);
    str_fini(&s);
}

static void run_case(const char *name, size_t i, const tokenizer *t, const json_t *c) {
    const json_t *text = json_array_get(c, 0);
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    token_list l;
    str out;
    tl_error e = {0};
    token_list_init(&l, &mem_default);
    str_init(&out, &mem_default);
    assert_ok(tokenizer_encode(t, s, n, TOKENIZER_PARSE, &l, &e), &e);
    same_ids(name, i, "plain", s, &l, json_array_get(c, 2));
    l.n = 0;
    l.want_spans = true;
    assert_ok(tokenizer_encode(t, s, n, TOKENIZER_PARSE | TOKENIZER_ADD, &l, &e), &e);
    same_ids(name, i, "with specials", s, &l, json_array_get(c, 1));
    same_spans(name, i, s, n, &l, json_array_get(c, 5));
    assert_ok(tokenizer_decode(t, l.id, l.n, TOKENIZER_REPLACE, &out, &e), &e);
    same_text(name, i, "decoded", &out, json_array_get(c, 3));
    stream_text(name, i, t, &l, json_array_get(c, 3));
    str_clear(&out);
    assert_ok(tokenizer_decode(t, l.id, l.n, TOKENIZER_REPLACE | TOKENIZER_SKIP, &out, &e), &e);
    same_text(name, i, "decoded without specials", &out, json_array_get(c, 4));
    token_list_fini(&l);
    str_fini(&out);
}

static void run_all(const char *name, const tokenizer *t) {
    char path[600];
    json_t *cases;
    tl_error e = {0};
    snprintf(path, sizeof path, "%s/tests/tokenizer/vectors/%s.cases.json", TILIA_SOURCE_DIR, name);
    assert_ok(json_read_file(&mem_default, path, 64 << 20, &cases, &e), &e);
    assert_true(json_array_size(cases) > 50);
    for (size_t i = 0; i < json_array_size(cases); i++) run_case(name, i, t, json_array_get(cases, i));
    json_decref(cases);
}

static void answers_as_the_library_does(void **state) {
    (void)state;
    bad = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[600];
        tokenizer *t;
        tl_error e = {0};
        snprintf(path, sizeof path, "%s/tests/tokenizer/vectors/%s.json", TILIA_SOURCE_DIR, names[i]);
        assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
        run_all(names[i], t);
        tokenizer_close(t);
    }
    assert_int_equal(bad, 0);
}

/* The same vocabulary as GGUF keeps it. */
static void words_of_gguf(void **state) {
    (void)state;
    char path[600];
    tokenizer *t;
    tl_error e = {0};
    snprintf(path, sizeof path, "%s/tests/tokenizer/vectors/bert.gguf", TILIA_SOURCE_DIR);
    assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
    bad = 0;
    run_all("bert", t);
    assert_int_equal(bad, 0);
    tokenizer_close(t);
}

/* Fuzzed strings and what other libraries make of them (bench/tokenizer_oracle.py has thousands more). */
static void run_fuzzed(const char *name, const char *path, unsigned flags) {
    char file[600];
    json_t *rows;
    tokenizer *t;
    tl_error e = {0};
    bad = 0;
    assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
    snprintf(file, sizeof file, "%s/tests/tokenizer/vectors/fuzzed_%s.cases.json", TILIA_SOURCE_DIR, name);
    assert_ok(json_read_file(&mem_default, file, 64 << 20, &rows, &e), &e);
    assert_true(json_array_size(rows) >= 200);
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *text = json_array_get(json_array_get(rows, i), 0);
        token_list l;
        token_list_init(&l, &mem_default);
        assert_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), flags, &l, &e), &e);
        same_ids(name, i, "fuzzed", json_string_value(text), &l, json_array_get(json_array_get(rows, i), 1));
        token_list_fini(&l);
    }
    json_decref(rows);
    tokenizer_close(t);
    assert_int_equal(bad, 0);
}

static void fuzzed_gpt2(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "gpt2/vocab.json");
    run_fuzzed("gpt2", path, TOKENIZER_PARSE);
}

static void fuzzed_llama(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "vocab/ggml-vocab-llama-spm.gguf");
    run_fuzzed("llama", path, 0);
}

/* Small SentencePiece models (the fuzzers' seeds) and what that library answers. */
static void pieces_of_sentencepiece(void **state) {
    (void)state;
    char path[600];
    json_t *all;
    tl_error e = {0};
    snprintf(path, sizeof path, "%s/tests/tokenizer/vectors/pieces.cases.json", TILIA_SOURCE_DIR);
    assert_ok(json_read_file(&mem_default, path, 64 << 20, &all, &e), &e);
    bad = 0;
    for (void *it = json_object_iter(all); it; it = json_object_iter_next(all, it)) {
        const char *name = json_object_iter_key(it);
        const json_t *rows = json_object_iter_value(it);
        tokenizer *t;
        snprintf(path, sizeof path, "%s/tests/fuzz/seeds/f_sentencepiece/%s", TILIA_SOURCE_DIR, name);
        assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
        assert_true(json_array_size(rows) > 20);
        for (size_t i = 0; i < json_array_size(rows); i++) {
            const json_t *text = json_array_get(json_array_get(rows, i), 0);
            token_list l;
            token_list_init(&l, &mem_default);
            assert_ok(tokenizer_encode(t, json_string_value(text), json_string_length(text), 0, &l, &e), &e);
            same_ids(name, i, "pieces", json_string_value(text), &l, json_array_get(json_array_get(rows, i), 1));
            token_list_fini(&l);
        }
        tokenizer_close(t);
    }
    json_decref(all);
    assert_int_equal(bad, 0);
}

/* The other library reads the spelling of a byte's piece as that piece. */
static void bytes_spelt_out(void **state) {
    (void)state;
    char path[600];
    tokenizer *t;
    token_list l;
    tl_error e = {0};
    snprintf(path, sizeof path, "%s/tests/tokenizer/vectors/unigram_bytes.json", TILIA_SOURCE_DIR);
    assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
    token_list_init(&l, &mem_default);
    assert_ok(tokenizer_encode(t, "<0x41>", 6, 0, &l, &e), &e);
    assert_int_equal(l.n, 2);
    assert_int_equal(l.id[1], tokenizer_find(t, "<0x41>", 6));
    token_list_fini(&l);
    tokenizer_close(t);
}

static void survives_saving(void **state) {
    (void)state;
    char dir[256];
    test_tempdir(dir, sizeof dir);
    bad = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[600], copy[600];
        tokenizer *t;
        tl_error e = {0};
        snprintf(path, sizeof path, "%s/tests/tokenizer/vectors/%s.json", TILIA_SOURCE_DIR, names[i]);
        snprintf(copy, sizeof copy, "%s/%s.json", dir, names[i]);
        assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
        assert_ok(tokenizer_save(t, copy, &e), &e);
        tokenizer_close(t);
        assert_ok(tokenizer_open(&mem_default, copy, &t, &e), &e);
        run_all(names[i], t);
        tokenizer_close(t);
    }
    test_tempdir_remove(dir);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_as_the_library_does),
        cmocka_unit_test(words_of_gguf),
        cmocka_unit_test(fuzzed_gpt2),
        cmocka_unit_test(fuzzed_llama),
        cmocka_unit_test(pieces_of_sentencepiece),
        cmocka_unit_test(bytes_spelt_out),
        cmocka_unit_test(survives_saving),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
