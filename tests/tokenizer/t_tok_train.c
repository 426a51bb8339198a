/* Training of byte-level BPE: the worked example, and a slow obvious implementation. */
#include "support/testing.h"

#include "tokenizer/bpe.h"
#include "tokenizer/internal.h"
#include "tokenizer/split.h"
#include <stdlib.h>

static tokenizer *train(const char *split, size_t size, const char *const *special, size_t special_n, size_t threads,
                        const char *text, size_t n) {
    tokenizer_train_options o = {
        .vocab = size, .split = split, .special = special, .special_n = special_n, .threads = threads};
    token_trainer *r;
    tokenizer *t;
    tl_error e = {0};
    assert_ok(token_trainer_open(&mem_default, &o, &r, &e), &e);
    assert_ok(token_trainer_text(r, text, n, &e), &e);
    assert_ok(token_trainer_finish(r, &t, NULL, &e), &e);
    token_trainer_close(r);
    return t;
}

static void want_merge(const tokenizer *t, size_t i, const char *left, const char *right) {
    size_t n;
    assert_true(i < t->bpe->n);
    assert_string_equal(vocab_text(&t->voc, t->bpe->merge[i].left, &n), left);
    assert_string_equal(vocab_text(&t->voc, t->bpe->merge[i].right, &n), right);
}

static void worked_example(void **state) {
    (void)state;
    static const char text[] = "low low low low low\nlower lower\nwidest widest widest\n"
                               "newest newest newest newest newest newest";
    static const char *const want[][2] = {{"s", "t"},   {"e", "st"},    {"o", "w"},     {"l", "ow"},
                                          {"w", "est"}, {"n", "e"},     {"ne", "west"}, {"w", "i"},
                                          {"wi", "d"},  {"wid", "est"}, {"low", "e"},   {"lowe", "r"}};
    tokenizer *t = train("\\S+", 256 + 12, NULL, 0, 1, text, strlen(text));
    assert_int_equal(t->bpe->n, 12);
    for (size_t i = 0; i < 12; i++) want_merge(t, i, want[i][0], want[i][1]);
    token_list l;
    tl_error e = {0};
    token_list_init(&l, &mem_default);
    assert_ok(tokenizer_encode(t, "newest", 6, 0, &l, &e), &e);
    assert_int_equal(l.n, 1);
    assert_int_equal(l.id[0], 256 + 6);
    token_list_fini(&l);
    tokenizer_close(t);
}

static void specials_are_borders(void **state) {
    (void)state;
    static const char *const special[] = {"<|end|>"};
    static const char text[] = "ab<|end|>ab<|end|>ab<|end|>b<|end|>aab";
    tokenizer *t = train("none", 256 + 4 + 1, special, 1, 1, text, strlen(text));
    want_merge(t, 0, "a", "b");
    for (size_t i = 0; i < t->bpe->n; i++) {
        size_t n;
        const char *s = vocab_text(&t->voc, t->bpe->merge[i].id, &n);
        assert_null(memchr(s, '<', n));
        assert_null(memchr(s, '|', n));
    }
    assert_true(tokenizer_is_special(t, (int32_t)tokenizer_vocab(t) - 1)); /* the last id */
    tokenizer_close(t);
}

static void limits(void **state) {
    (void)state;
    tl_error e = {0};
    token_trainer *r;
    static const char *const twice[] = {"<a>", "<a>"};
    tokenizer_train_options o = {.vocab = 255, .split = "gpt2"};
    assert_fails(TL_ARG, token_trainer_open(&mem_default, &o, &r, &e), &e);
    o.vocab = 300, o.special = twice, o.special_n = 2;
    assert_fails(TL_ARG, token_trainer_open(&mem_default, &o, &r, &e), &e);
    o.special_n = 0, o.split = "(unclosed";
    assert_fails(TL_FORMAT, token_trainer_open(&mem_default, &o, &r, &e), &e);
    tokenizer *t = train("gpt2", 1000, NULL, 0, 1, "", 0); /* nothing to learn from */
    assert_int_equal(tokenizer_vocab(t), 256);
    tokenizer_close(t);
    o.split = "gpt2", o.vocab = 400, o.min_count = 3;
    assert_ok(token_trainer_open(&mem_default, &o, &r, &e), &e);
    assert_ok(token_trainer_text(r, "aa bb aa bb aa", 14, &e), &e);
    assert_ok(token_trainer_finish(r, &t, NULL, &e), &e);
    assert_int_equal(t->bpe->n, 1); /* only a a occurs three times */
    tokenizer_close(t);
    token_trainer_close(r);
}

/* ---- the slow obvious implementation ----------------------------------------------------------- */

enum { SLOW_IDS = 2048 };

typedef struct slow {
    int32_t *symbol;
    size_t *begin, *len, words;
    int64_t *count, *pair; /* pair: SLOW_IDS x SLOW_IDS */
    int32_t *touched;
    str text[SLOW_IDS];
    size_t ids;
} slow;

static int slow_order(const str *a, const str *b) {
    int c = memcmp(a->data, b->data, a->len < b->len ? a->len : b->len);
    return c ? c : (a->len > b->len) - (a->len < b->len);
}

/* Counts all pairs of all words anew, takes the best, replaces it everywhere. */
static bool slow_step(slow *s, int32_t *left, int32_t *right) {
    size_t touched = 0;
    for (size_t w = 0; w < s->words; w++)
        for (size_t i = 0; i + 1 < s->len[w]; i++) {
            int32_t k = s->symbol[s->begin[w] + i] * SLOW_IDS + s->symbol[s->begin[w] + i + 1];
            if (!s->pair[k]) s->touched[touched++] = k;
            s->pair[k] += s->count[w];
        }
    int32_t best = -1;
    for (size_t i = 0; i < touched; i++) {
        int32_t k = s->touched[i];
        if (best >= 0 && s->pair[k] < s->pair[best]) continue;
        if (best >= 0 && s->pair[k] == s->pair[best]) {
            int c = slow_order(&s->text[k / SLOW_IDS], &s->text[best / SLOW_IDS]);
            if (!c) c = slow_order(&s->text[k % SLOW_IDS], &s->text[best % SLOW_IDS]);
            if (c <= 0) continue;
        }
        best = k;
    }
    for (size_t i = 0; i < touched; i++) s->pair[s->touched[i]] = 0;
    if (best < 0) return false;
    *left = best / SLOW_IDS, *right = best % SLOW_IDS;
    str_init(&s->text[s->ids], &mem_default);
    str_add(&s->text[s->ids], s->text[*left].data, s->text[*left].len);
    str_add(&s->text[s->ids], s->text[*right].data, s->text[*right].len);
    for (size_t w = 0; w < s->words; w++) {
        int32_t *p = s->symbol + s->begin[w];
        size_t out = 0;
        for (size_t i = 0; i < s->len[w]; i++) {
            bool hit = i + 1 < s->len[w] && p[i] == *left && p[i + 1] == *right;
            p[out++] = hit ? (int32_t)s->ids : p[i];
            i += hit;
        }
        s->len[w] = out;
    }
    s->ids++;
    return true;
}

typedef struct word {
    const uint8_t *p;
    size_t n;
} word;

static int word_order(const void *a, const void *b) {
    const word *x = a, *y = b;
    int c = memcmp(x->p, y->p, x->n < y->n ? x->n : y->n);
    return c ? c : (x->n > y->n) - (x->n < y->n);
}

static void slow_begin(slow *s, const uint8_t *text, size_t n) {
    unicode_table *u = unicode_new(&mem_default);
    word *list = calloc(n, sizeof *list);
    size_t k = 0;
    bool hit;
    for (const uint8_t *p = text, *q; p < text + n; p = q) {
        q = split_of(SPLIT_GPT2)(u, p, text + n, &hit);
        list[k++] = (word){p, (size_t)(q - p)};
    }
    qsort(list, k, sizeof *list, word_order);
    memset(s, 0, sizeof *s);
    s->symbol = calloc(n, sizeof *s->symbol);
    s->begin = calloc(k, sizeof *s->begin);
    s->len = calloc(k, sizeof *s->len);
    s->count = calloc(k, sizeof *s->count);
    s->pair = calloc((size_t)SLOW_IDS * SLOW_IDS, sizeof *s->pair);
    s->touched = calloc((size_t)SLOW_IDS * SLOW_IDS, sizeof *s->touched);
    size_t at = 0;
    for (size_t i = 0; i < k; i++) {
        if (i && !word_order(&list[i], &list[i - 1])) {
            s->count[s->words - 1]++;
            continue;
        }
        s->begin[s->words] = at;
        s->len[s->words] = list[i].n;
        s->count[s->words++] = 1;
        for (size_t b = 0; b < list[i].n; b++) s->symbol[at++] = list[i].p[b];
    }
    for (; s->ids < 256; s->ids++) {
        str_init(&s->text[s->ids], &mem_default);
        str_addc(&s->text[s->ids], (char)s->ids);
    }
    free(list);
    mem_free(&mem_default, u);
}

static void slow_end(slow *s) {
    for (size_t i = 0; i < s->ids; i++) str_fini(&s->text[i]);
    free(s->symbol), free(s->begin), free(s->len), free(s->count), free(s->pair), free(s->touched);
}

static void compare(const char *text, size_t n, size_t size) {
    static slow s;
    slow_begin(&s, (const uint8_t *)text, n);
    tokenizer *t = train("gpt2", size, NULL, 0, 2, text, n);
    int32_t left, right;
    size_t i = 0;
    for (; s.ids < size && slow_step(&s, &left, &right); i++) {
        assert_true(i < t->bpe->n);
        if (t->bpe->merge[i].left != left || t->bpe->merge[i].right != right) fail_msg("merge %zu differs", i);
    }
    assert_int_equal(i, t->bpe->n);
    slow_end(&s);
    tokenizer_close(t);
}

static void equals_the_slow_way(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "tinyshakespeare.txt");
    size_t n;
    char *text = test_slurp(path, &n);
    compare(text, n, 2000);
    free(text);
}

/* Runs of one letter and short periods: overlapping pairs, ties everywhere. */
static void equals_the_slow_way_on_runs(void **state) {
    (void)state;
    char text[6000];
    uint32_t r = 1;
    for (size_t i = 0; i < sizeof text; i++) {
        r = r * 1664525u + 1013904223u;
        text[i] = "aaaab b\xe4\xb8\xad"[(r >> 20) % 10];
    }
    compare(text, sizeof text, 700);
}

/* A window border anywhere must not change what is counted. */
static void files_and_threads_change_nothing(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "wikitext2-valid.txt");
    size_t n;
    char *text = test_slurp(path, &n);
    tokenizer *a = train("cl100k", 1000, NULL, 0, 1, text, n), *b = train("cl100k", 1000, NULL, 0, 3, text, n);
    tokenizer_train_options o = {.vocab = 1000, .split = "cl100k", .threads = 2};
    token_trainer *r;
    tokenizer *c;
    tokenizer_train_report report;
    tl_error e = {0};
    assert_ok(token_trainer_open(&mem_default, &o, &r, &e), &e);
    assert_ok(token_trainer_file(r, path, &e), &e);
    assert_ok(token_trainer_finish(r, &c, &report, &e), &e);
    assert_int_equal(report.bytes, n);
    assert_int_equal(report.merges, 1000 - 256);
    assert_int_equal(a->bpe->n, b->bpe->n);
    assert_int_equal(a->bpe->n, c->bpe->n);
    assert_memory_equal(a->bpe->merge, b->bpe->merge, a->bpe->n * sizeof *a->bpe->merge);
    assert_memory_equal(a->bpe->merge, c->bpe->merge, a->bpe->n * sizeof *a->bpe->merge);
    assert_fails(TL_NOTFOUND, token_trainer_file(r, "/nonexistent/text", &e), &e);
    token_trainer_close(r);
    tokenizer_close(a), tokenizer_close(b), tokenizer_close(c);
    free(text);
}

static tl_status train_with(const tl_allocator *a, void *user) {
    const char *text = user;
    static const char *const special[] = {"<x>"};
    tokenizer_train_options o = {.vocab = 300, .split = "gpt2", .special = special, .special_n = 1, .threads = 1};
    token_trainer *r;
    tokenizer *t;
    TRY(token_trainer_open(a, &o, &r, NULL));
    tl_status s = token_trainer_text(r, text, strlen(text), NULL);
    if (s == TL_OK) s = token_trainer_finish(r, &t, NULL, NULL);
    if (s == TL_OK) tokenizer_close(t);
    token_trainer_close(r);
    return s;
}

static void survives_want_of_memory(void **state) {
    (void)state;
    char text[] = "the cat sat on the mat<x>the hat";
    assert_true(test_alloc_sweep(train_with, text) > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(worked_example),
        cmocka_unit_test(specials_are_borders),
        cmocka_unit_test(limits),
        cmocka_unit_test(equals_the_slow_way),
        cmocka_unit_test(equals_the_slow_way_on_runs),
        cmocka_unit_test(files_and_threads_change_nothing),
        cmocka_unit_test(survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
