/* Encoding: published vectors, scanners against their patterns, streams, spans, special tokens. */
#include "support/testing.h"

#include "tokenizer/internal.h"
#include "tokenizer/regex.h"
#include "tokenizer/split.h"
#include "tokenizer/tokenizer.h"
#include <stdlib.h>

static uint32_t seed = 1;
static uint32_t any(uint32_t n) {
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 8) % n;
}

/* Text of characters that every version of Unicode in use classes alike, full of what patterns look at. */
static size_t make_text(char *out, size_t n) {
    static const char *const bits[] = {" ",
                                       " ",
                                       "  ",
                                       "\n",
                                       "\r\n",
                                       "\t",
                                       "\xc2\xa0",
                                       "\xe3\x80\x80",
                                       "\xe2\x80\xa8",
                                       "'s",
                                       "'LL",
                                       "'re",
                                       "'\xc5\xbf",
                                       "'x",
                                       "a",
                                       "bc",
                                       "B",
                                       "CDe",
                                       "\xc3\xa9",
                                       "e\xcc\x81",
                                       "\xcc\x81",
                                       "\xce\xa9",
                                       "\xd0\xb6",
                                       "\xc7\x85",
                                       "\xca\xb0",
                                       "\xe4\xb8\xad",
                                       "\xe6\x96\x87",
                                       "\xe3\x81\x82",
                                       "\xed\x95\x9c",
                                       "\xd9\xa3",
                                       "1",
                                       "23",
                                       "456",
                                       "\xc2\xbd",
                                       "\xe2\x85\xa7",
                                       ".",
                                       "/",
                                       "//",
                                       "-",
                                       "\xe3\x80\x82",
                                       "\xf0\x9f\x99\x82",
                                       "<",
                                       "|",
                                       "\xe2\x82\xac",
                                       "\xe0\xb9\x80",
                                       "\xe0\xa4\xbf",
                                       "_",
                                       "\"",
                                       "'"};
    size_t k = 0;
    while (k + 8 < n) {
        const char *s = bits[any(sizeof bits / sizeof *bits)];
        memcpy(out + k, s, strlen(s));
        k += strlen(s);
    }
    return k;
}

static void scanners_are_their_patterns(void **state) {
    (void)state;
    enum { N = 4000 };
    static char text[N];
    unicode_table *u = unicode_new(&mem_default);
    tl_error e = {0};
    for (int kind = SPLIT_GPT2; kind < SPLIT_CL100K_RUBY; kind++) { /* the last one is no pattern of PCRE2's */
        const char *pattern = split_pattern((split_kind)kind);
        regex *r;
        assert_ok(regex_new(&mem_default, pattern, strlen(pattern), &r, &e), &e);
        for (int round = 0; round < 60; round++) {
            size_t n = make_text(text, round < 30 ? 40 : N), at = 0;
            const uint8_t *s = (const uint8_t *)text;
            while (at < n) {
                bool found, hit = false;
                size_t begin, end;
                assert_ok(regex_next(r, text, n, at, false, &found, &begin, &end, NULL, &e), &e);
                size_t mine = (size_t)(split_of((split_kind)kind)(u, s + at, s + n, &hit) - s);
                if (!found || begin != at || end != mine)
                    fail_msg("kind %d at %zu of %zu: scanner %zu, pattern %zu..%zu: \"%.20s\"", kind, at, n, mine,
                             begin, end, text + at);
                at = end;
            }
        }
        regex_free(r);
    }
    mem_free(&mem_default, u);
}

/* The table, page by page, is the list of runs it was made from. */
static void classes_are_their_runs(void **state) {
    (void)state;
    static const uint32_t runs[] = {
#include "tokenizer/unicode_runs.inc"
    };
    unicode_table *u = unicode_new(&mem_default);
    size_t run = 0, n = sizeof runs / sizeof *runs, other = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        while (run + 1 < n && runs[run + 1] >> 4 <= c) run++;
        other += unicode_of(u, c) != (runs[run] & 15);
    }
    assert_int_equal(other, 0);
    mem_free(&mem_default, u);
}

static void known_by_name_and_pattern(void **state) {
    (void)state;
    assert_int_equal(split_by_name("llama3"), SPLIT_CL100K);
    assert_int_equal(split_by_name("none"), SPLIT_NONE);
    assert_int_equal(split_by_name("nobody"), SPLIT_KINDS);
    for (int k = SPLIT_GPT2; k < SPLIT_KINDS; k++)
        assert_int_equal(split_by_pattern(split_pattern((split_kind)k), strlen(split_pattern((split_kind)k))), k);
    assert_int_equal(split_by_pattern("\\w+", 3), SPLIT_KINDS);
}

/* A tokenizer trained on generated text; small, but with real merges. */
static tokenizer *trained(const char *split) {
    static char text[60000];
    static const char *const special[] = {"<|end|>", "<|endless|>"};
    seed = 7;
    size_t n = make_text(text, sizeof text);
    tokenizer_train_options o = {.vocab = 600, .split = split, .special = special, .special_n = 2, .threads = 1};
    token_trainer *r;
    tokenizer *t;
    tl_error e = {0};
    assert_ok(token_trainer_open(&mem_default, &o, &r, &e), &e);
    assert_ok(token_trainer_text(r, text, n, &e), &e);
    assert_ok(token_trainer_finish(r, &t, NULL, &e), &e);
    token_trainer_close(r);
    return t;
}

static void want_same(const token_list *a, const token_list *b) {
    assert_int_equal(a->n, b->n);
    if (a->n) assert_memory_equal(a->id, b->id, a->n * sizeof *a->id);
    if (a->want_spans && a->n) assert_memory_equal(a->span, b->span, a->n * sizeof *a->span);
}

static void streams_give_the_same(void **state) {
    (void)state;
    static const char *const splits[] = {
        "gpt2", "cl100k", "o200k", "qwen2", "\\p{Lu}?\\p{Ll}+|\\s+(?!\\S)|\\s|\\p{N}{1,2}|.", "none"};
    enum { N = 30000 };
    static char text[N + 64];
    for (size_t k = 0; k < sizeof splits / sizeof *splits; k++) {
        tokenizer *t = trained(splits[k]);
        for (int round = 0; round < 12; round++) {
            size_t n = make_text(text, round < 8 ? 300 : N);
            for (size_t i = 0; i < n / 100; i++) { /* special tokens, their halves, and bytes that are no text */
                static const char *const bits[] = {"<|end|>", "<|endless|>", "<|end",    "|>",
                                                   "\xff",    "\xe4\xb8",    "\xf0\x9f", "<|endless"};
                const char *b = bits[any(8)];
                memcpy(text + any((uint32_t)n), b, strlen(b));
            }
            for (unsigned flags = 0; flags <= TOKENIZER_PARSE; flags++) {
                token_list whole, part;
                token_encoder *x;
                tl_error e = {0};
                token_list_init(&whole, &mem_default);
                token_list_init(&part, &mem_default);
                whole.want_spans = part.want_spans = round & 1;
                assert_ok(tokenizer_encode(t, text, n, flags, &whole, &e), &e);
                assert_ok(token_encoder_open(t, flags, 1 + (size_t)(round % 3), &x, &e), &e);
                for (int again = 0; again < 2; again++) { /* finish makes it ready for a new text */
                    part.n = 0;
                    for (size_t at = 0; at < n;) {
                        size_t m = 1 + any(round < 4 ? 3 : round < 8 ? 50 : 9000);
                        if (m > n - at) m = n - at;
                        assert_ok(token_encoder_push(x, text + at, m, &part, &e), &e);
                        at += m;
                    }
                    assert_ok(token_encoder_finish(x, &part, &e), &e);
                    want_same(&whole, &part);
                }
                token_encoder_close(x);
                token_list_fini(&whole);
                token_list_fini(&part);
            }
        }
        tokenizer_close(t);
    }
}

/* Big enough for several threads to share a push; lines and blanks are where they cut. */
static void threads_give_the_same(void **state) {
    (void)state;
    enum { N = 3 << 20 };
    char *text = malloc(N);
    static const char *const splits[] = {"gpt2", "cl100k", "o200k"};
    for (size_t k = 0; k < 3; k++) {
        tokenizer *t = trained(splits[k]);
        size_t n = make_text(text, N);
        token_list one, many;
        token_encoder *x;
        tl_error e = {0};
        token_list_init(&one, &mem_default);
        token_list_init(&many, &mem_default);
        assert_ok(tokenizer_encode(t, text, n, TOKENIZER_PARSE, &one, &e), &e);
        assert_ok(token_encoder_open(t, TOKENIZER_PARSE, 4, &x, &e), &e);
        assert_ok(token_encoder_push(x, text, n, &many, &e), &e);
        assert_true(many.n > one.n / 2); /* most was decided at once */
        assert_ok(token_encoder_finish(x, &many, &e), &e);
        want_same(&one, &many);
        token_encoder_close(x);
        token_list_fini(&one);
        token_list_fini(&many);
        tokenizer_close(t);
    }
    free(text);
}

/* Vocabularies without a pre-tokenizer: words cut at sure borders, streams and threads give what merging the whole
 * document at once gives. */
static void same_without_cuts(tokenizer *t, const char *const *bits, uint32_t n_bits, int rounds) {
    enum { N = 900000 };
    static char text[N + 64];
    assert_true(t->cut_words);
    for (int round = 0; round < rounds; round++) {
        const size_t most = round + 1 == rounds ? N : round % 4 ? 60 : 4000;
        size_t n = 0;
        while (n < most) {
            const char *b = bits[any(n_bits)];
            memcpy(text + n, b, strlen(b));
            n += strlen(b);
        }
        token_list want, cut, part;
        token_encoder *x;
        tl_error e = {0};
        token_list_init(&want, &mem_default);
        token_list_init(&cut, &mem_default);
        token_list_init(&part, &mem_default);
        want.want_spans = cut.want_spans = part.want_spans = round & 1;
        const unsigned flags = round & 2 ? TOKENIZER_PARSE : 0;
        const bool words = t->cut_words, lines = t->cut_lines;
        t->cut_words = t->cut_lines = false;
        assert_ok(tokenizer_encode(t, text, n, flags, &want, &e), &e);
        t->cut_words = words, t->cut_lines = lines;
        assert_ok(tokenizer_encode(t, text, n, flags, &cut, &e), &e);
        want_same(&want, &cut);
        assert_ok(token_encoder_open(t, flags, 1 + (size_t)(round % 3), &x, &e), &e);
        for (int again = 0; again < 2; again++) {
            part.n = 0;
            for (size_t at = 0, m; at < n; at += m) {
                m = 1 + any(most == N ? 700000 : round % 4 ? 5 : 900);
                if (m > n - at) m = n - at;
                assert_ok(token_encoder_push(x, text + at, m, &part, &e), &e);
                assert_true(most < N || token_encoder_held(x) < 10000);
            }
            assert_ok(token_encoder_finish(x, &part, &e), &e);
            want_same(&want, &part);
        }
        token_encoder_close(x);
        token_list_fini(&want);
        token_list_fini(&cut);
        token_list_fini(&part);
    }
}

static void documents_fall_into_words(void **state) {
    (void)state;
    static const char *const bits[] = {" ",  " ",    "a",    "b",        "ab",           "ba",  "c",   "  ",
                                       "\n", "é",    "\xff", "\xe4\xb8", "\xe2\x96\x81", "<s>", "</s", "\xe4\xb8\xad",
                                       "a ", " ab b"};
    static const char json[] =
        "{\"version\":\"1.0\",\"added_tokens\":[{\"id\":1,\"content\":\"<s>\",\"special\":true}],"
        "\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\",\"prepend\":\"▁\"},"
        "{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"▁\"}]},\"pre_tokenizer\":null,"
        "\"post_processor\":null,\"decoder\":null,\"model\":{\"type\":\"BPE\",\"unk_token\":\"<unk>\",\"fuse_unk\":"
        "true,"
        "\"vocab\":{\"<unk>\":0,\"<s>\":1,\"▁\":2,\"a\":3,\"b\":4,\"\\n\":5,\"ab\":6,\"▁a\":7,\"▁▁\":8,\"▁ab\":9,"
        "\"bb\":10,"
        "\"▁▁▁▁\":11,\"aab\":12},"
        "\"merges\":[\"a b\",\"▁ ▁\",\"▁ a\",\"▁ ab\",\"b b\",\"▁▁ ▁▁\",\"a ab\"]}}";
    tokenizer *t;
    tl_error e = {0};
    assert_ok(tokenizer_from_json(&mem_default, json, sizeof json - 1, &t, &e), &e);
    assert_true(t->cut_lines);
    same_without_cuts(t, bits, sizeof bits / sizeof *bits, 120);
    tokenizer_close(t);
    TEST_DATA_OR_SKIP(path, "vocab/ggml-vocab-llama-spm.gguf");
    assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
    static const char *const words[] = {
        " the", " of", "tion", " \xe4\xb8\xad", "\xe6\x96\x87", "\n",           "\n\n", "  ",   "    ", "x", "1",
        ".",    ",",   "'s",   "<s>",           "</s>",         "\xe2\x96\x81", "\t",   "\r\n", "é"};
    same_without_cuts(t, words, sizeof words / sizeof *words, 60);
    tokenizer_close(t);
}

static void many_documents(void **state) {
    (void)state;
    enum { DOCS = 40 };
    static char text[DOCS][400];
    const char *p[DOCS];
    size_t n[DOCS];
    token_list out[DOCS];
    tl_error e = {0};
    tokenizer *t = trained("gpt2");
    for (int i = 0; i < DOCS; i++) {
        n[i] = make_text(text[i], 50 + any(340));
        p[i] = text[i];
        token_list_init(&out[i], &mem_default);
    }
    assert_ok(tokenizer_encode_many(t, p, n, DOCS, 0, 4, out, &e), &e);
    for (int i = 0; i < DOCS; i++) {
        token_list one;
        token_list_init(&one, &mem_default);
        assert_ok(tokenizer_encode(t, p[i], n[i], 0, &one, &e), &e);
        want_same(&one, &out[i]);
        token_list_fini(&one);
        token_list_fini(&out[i]);
    }
    tokenizer_close(t);
}

static void bytes_come_back(void **state) {
    (void)state;
    static char text[20000];
    tl_error e = {0};
    static const char *const splits[] = {"gpt2", "cl100k", "o200k", "qwen2", "none"};
    for (size_t k = 0; k < sizeof splits / sizeof *splits; k++) {
        tokenizer *t = trained(splits[k]);
        for (size_t i = 0; i < sizeof text; i++) text[i] = (char)any(256);
        token_list l;
        str s;
        token_list_init(&l, &mem_default);
        l.want_spans = true;
        str_init(&s, &mem_default);
        assert_ok(tokenizer_encode(t, text, sizeof text, 0, &l, &e), &e);
        assert_ok(tokenizer_decode(t, l.id, l.n, 0, &s, &e), &e);
        assert_int_equal(s.len, sizeof text);
        assert_memory_equal(s.data, text, sizeof text);
        size_t at = 0; /* spans tile the text */
        for (size_t i = 0; i < l.n; i++) {
            size_t n;
            const char *b = tokenizer_text(t, l.id[i], &n);
            assert_int_equal(l.span[i].begin, at);
            assert_int_equal(l.span[i].end - at, n);
            assert_memory_equal(b, text + at, n);
            at += n;
        }
        assert_int_equal(at, sizeof text);
        str_fini(&s);
        token_list_fini(&l);
        tokenizer_close(t);
    }
}

static void special_tokens_only_when_asked(void **state) {
    (void)state;
    tl_error e = {0};
    tokenizer *t = trained("gpt2");
    int32_t end = tokenizer_find(t, "<|end|>", 7);
    assert_true(end >= 0);
    token_list l;
    token_list_init(&l, &mem_default);
    assert_ok(tokenizer_encode(t, "a<|end|>b", 9, 0, &l, &e), &e);
    for (size_t i = 0; i < l.n; i++) assert_false(tokenizer_is_special(t, l.id[i]));
    l.n = 0;
    l.want_spans = true;
    assert_ok(tokenizer_encode(t, "a<|end|>b", 9, TOKENIZER_PARSE, &l, &e), &e);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.id[1], end);
    assert_int_equal(l.span[1].begin, 1);
    assert_int_equal(l.span[1].end, 8);
    token_list_fini(&l);
    tokenizer_close(t);
}

static void long_pieces(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    tl_error e = {0};
    tokenizer *t = trained("gpt2");
    char *text = malloc(N);
    for (size_t i = 0; i < N; i++) text[i] = "abcdeBCD"[any(8)];
    token_list l;
    str s;
    token_list_init(&l, &mem_default);
    str_init(&s, &mem_default);
    assert_ok(tokenizer_encode(t, text, N, 0, &l, &e), &e);
    assert_ok(tokenizer_decode(t, l.id, l.n, 0, &s, &e), &e);
    assert_int_equal(s.len, N);
    assert_memory_equal(s.data, text, N);
    str_fini(&s);
    token_list_fini(&l);
    tokenizer_close(t);
    free(text);
}

/* The test strings beside each vocabulary, and the ids expected for each. */
static void published(const char *name) {
    char file[256];
    TEST_DATA_OR_SKIP(path, name);
    tokenizer *t;
    tl_error e = {0};
    assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
    size_t in_n, out_n;
    char buf[1024];
    snprintf(file, sizeof file, "%s.inp", name);
    char *in = test_slurp(test_data(file, buf, sizeof buf), &in_n);
    snprintf(file, sizeof file, "%s.out", name);
    char *out = test_slurp(test_data(file, buf, sizeof buf), &out_n);
    static const char mark[] = "\n__ggml_vocab_test__\n";
    char *p = in, *q = out;
    size_t cases = 0;
    while (p) {
        char *end = strstr(p, mark), *line = strchr(q, '\n');
        size_t n = end ? (size_t)(end - p) : strlen(p);
        token_list l;
        token_list_init(&l, &mem_default);
        assert_ok(tokenizer_encode(t, p, n, 0, &l, &e), &e);
        if (line) *line = 0;
        size_t i = 0;
        for (char *d = q, *next; (void)strtol(d, &next, 10), next != d; d = next, i++) {
            assert_true(i < l.n);
            assert_int_equal(l.id[i], strtol(d, NULL, 10));
        }
        assert_int_equal(i, l.n);
        token_list_fini(&l);
        cases++;
        p = end ? end + sizeof mark - 1 : NULL;
        q = line ? line + 1 : q + strlen(q);
    }
    assert_int_equal(cases, 47);
    free(in);
    free(out);
    tokenizer_close(t);
}

static void published_gpt2(void **state) {
    (void)state;
    published("vocab/ggml-vocab-gpt-2.gguf");
}

static void published_llama(void **state) {
    (void)state;
    published("vocab/ggml-vocab-llama-spm.gguf");
}

static void gpt2_files(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "gpt2/vocab.json");
    TEST_DATA_OR_SKIP(text_path, "tinyshakespeare.txt");
    tokenizer *t;
    tl_error e = {0};
    assert_ok(tokenizer_open(&mem_default, path, &t, &e), &e);
    assert_int_equal(tokenizer_vocab(t), 50257);
    assert_int_equal(tokenizer_role_id(t, TOKENIZER_EOS), 50256);
    size_t n;
    char *text = test_slurp(text_path, &n);
    token_list l;
    token_list_init(&l, &mem_default);
    assert_ok(tokenizer_encode(t, text, n, 0, &l, &e), &e);
    assert_int_equal(l.n, 338025); /* as everybody counts it */
    token_list_fini(&l);
    free(text);
    tokenizer_close(t);
}

static tl_status use_with(const tl_allocator *a, void *user) {
    tokenizer *t;
    token_list l;
    str s;
    tl_error e;
    TRY(tokenizer_open(a, user, &t, &e));
    token_list_init(&l, a);
    str_init(&s, a);
    static const char text[] = "The caf\xc3\xa9 <s>a</s>  12 \xe4\xb8\xad\xe6\x96\x87 don't";
    tl_status st = tokenizer_encode(t, text, sizeof text - 1, TOKENIZER_PARSE | TOKENIZER_ADD, &l, &e);
    if (st == TL_OK) st = tokenizer_decode(t, l.id, l.n, TOKENIZER_REPLACE, &s, &e);
    token_decoder d;
    token_decoder_init(&d, t, 0);
    for (size_t i = 0; i < l.n && st == TL_OK; i++) st = token_decoder_push(&d, l.id[i], &s, &e);
    tl_status end = token_decoder_finish(&d, &s, &e);
    str_fini(&s);
    token_list_fini(&l);
    tokenizer_close(t);
    return st == TL_OK ? end : st;
}

static void survives_want_of_memory(void **state) {
    (void)state;
    static const char *const names[] = {"bert", "unigram_bytes", "split_misc"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[600];
        snprintf(path, sizeof path, "%s/tests/tokenizer/vectors/%s.json", TILIA_SOURCE_DIR, names[i]);
        assert_true(test_alloc_sweep(use_with, path) > 10);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_are_their_runs),
        cmocka_unit_test(scanners_are_their_patterns),
        cmocka_unit_test(known_by_name_and_pattern),
        cmocka_unit_test(streams_give_the_same),
        cmocka_unit_test(threads_give_the_same),
        cmocka_unit_test(documents_fall_into_words),
        cmocka_unit_test(many_documents),
        cmocka_unit_test(bytes_come_back),
        cmocka_unit_test(special_tokens_only_when_asked),
        cmocka_unit_test(long_pieces),
        cmocka_unit_test(published_gpt2),
        cmocka_unit_test(published_llama),
        cmocka_unit_test(gpt2_files),
        cmocka_unit_test(survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
