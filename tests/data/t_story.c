#include "data/story.h"
#include "data/story_grammar.h"
#include "support/testing.h"
#include <math.h>
#include <stdlib.h>

enum { STORIES = 10000, SEED = 11 };

/* Generator and parser agree on 10,000 stories: one derivation each, and the same -log p to the last bit. */
static void judge_all(story_lang lang) {
    str s;
    str_init(&s, &mem_default);
    double bits = 0;
    size_t bytes = 0, longest = 0;
    for (uint64_t i = 0; i < STORIES; i++) {
        double want, got = -1;
        str_clear(&s);
        assert_int_equal(story_generate(lang, SEED, i, &s, &want), TL_OK);
        assert_true(story_score(lang, s.data, s.len, &got, NULL));
        assert_true(want == got);
        assert_int_equal(story_derivations(lang, s.data, s.len), 1);
        bits += want / log(2);
        bytes += s.len;
        if (s.len > longest) longest = s.len;
    }
    print_message("          %s: %.4f bits a byte, %.1f bytes a story, longest %zu, %zu words\n",
                  lang == STORY_EN ? "en" : "zh", bits / (double)(bytes + STORIES), (double)bytes / STORIES, longest,
                  story_word_count(lang));
    assert_true(bits / (double)(bytes + STORIES) >= 0.5); /* the end counts as a symbol, as it does for a model */
    assert_true(longest < 512 && longest <= story_max_bytes(lang));
    assert_true(story_word_count(lang) >= 500);
    str_fini(&s);
}

static void english_is_unambiguous_and_exact(void **state) {
    (void)state;
    judge_all(STORY_EN);
}

static void chinese_is_unambiguous_and_exact(void **state) {
    (void)state;
    judge_all(STORY_ZH);
}

/* Every rule a slot names exists, no class has a word twice, remembered letters are set before they are used in at
 * least the stories drawn (a zero rule would print the whole-story rule's text). */
static void tables_are_sound(void **state) {
    (void)state;
    const story_grammar *g[] = {&story_grammar_en, &story_grammar_zh};
    for (size_t l = 0; l < 2; l++)
        for (size_t i = 0; i < g[l]->n; i++) {
            const story_rule *r = &g[l]->rule[i];
            for (size_t k = 0; k < r->n; k++) {
                for (size_t j = 0; j < k; j++) assert_string_not_equal(r->alt[k], r->alt[j]);
                for (const char *p = strchr(r->alt[k], '{'); p; p = strchr(p + 1, '{')) {
                    const char *q = p + 1 + strspn(p + 1, "-~^");
                    if (*q >= 'A' && *q <= 'Z') q += q[1] == '=' ? 2 : 1;
                    size_t n = strspn(q, "abcdefghijklmnopqrstuvwxyz_"), found = n == 0;
                    for (size_t m = 0; m < g[l]->n; m++)
                        found |= strlen(g[l]->rule[m].name) == n && !memcmp(g[l]->rule[m].name, q, n);
                    if (!found) fail_msg("no rule %.*s", (int)n, q);
                }
            }
        }
}

static void any_story_by_its_number(void **state) {
    (void)state;
    str a, b;
    str_init(&a, &mem_default);
    str_init(&b, &mem_default);
    assert_int_equal(story_generate(STORY_EN, 1, 77, &a, NULL), TL_OK);
    for (uint64_t i = 60; i < 78; i++) {
        str_clear(&b);
        assert_int_equal(story_generate(STORY_EN, 1, i, &b, NULL), TL_OK);
    }
    assert_string_equal(a.data, b.data);
    str_clear(&b);
    assert_int_equal(story_generate(STORY_EN, 2, 77, &b, NULL), TL_OK);
    assert_string_not_equal(a.data, b.data);
    assert_int_equal(story_generate(STORY_EN, 2, 77, &b, NULL), TL_OK); /* it appends */
    assert_memory_equal(b.data, b.data + b.len / 2, b.len / 2);
    str_fini(&a);
    str_fini(&b);
}

/* The last place where `word` stands as a word; NULL if it is nowhere. */
static char *last_word(char *text, const char *word) {
    char *best = NULL;
    size_t n = strlen(word);
    for (char *p = strstr(text, word); p; p = strstr(p + 1, word))
        if ((p == text || strchr(" \"", p[-1])) && strchr(" .,!", p[n])) best = p;
    return best;
}

/* A name said at the start decides names and pronouns more than 100 bytes later: exchanging any of them there makes
 * the parser stop inside that very word. */
static void agreement_reaches_far(void **state) {
    (void)state;
    static const char *const swap[][2] = {{"He", "She"},  {"She", "He"},    {"Anna", "Clara"},
                                          {"Tom", "Sam"}, {"kite", "drum"}, {"otter", "panda"}};
    size_t far[sizeof swap / sizeof *swap] = {0};
    str s, bad;
    str_init(&s, &mem_default);
    str_init(&bad, &mem_default);
    for (uint64_t i = 0; i < 6000; i++) {
        str_clear(&s);
        assert_int_equal(story_generate(STORY_EN, SEED, i, &s, NULL), TL_OK);
        for (size_t k = 0; k < sizeof swap / sizeof *swap; k++) {
            char *p = last_word(s.data, swap[k][0]), *first = strstr(s.data, swap[k][0]);
            bool noun = k >= 2;
            if (noun && strstr(s.data, swap[k][1])) continue; /* it may be the one meant here */
            if (!p || p - s.data < 120 || (noun && p - first < 100)) continue;
            if (k >= 4 && strncmp(p - 4, "the ", 4)) continue;
            size_t at = (size_t)(p - s.data), where = 0;
            str_clear(&bad);
            str_add(&bad, s.data, at);
            str_adds(&bad, swap[k][1]);
            str_adds(&bad, p + strlen(swap[k][0]));
            assert_false(story_score(STORY_EN, bad.data, bad.len, NULL, &where));
            assert_in_range(where, at, at + strlen(swap[k][1]));
            far[k]++;
        }
    }
    for (size_t k = 0; k < sizeof swap / sizeof *swap; k++)
        if (!far[k]) fail_msg("no story shows %s again", swap[k][0]);
    str_fini(&s);
    str_fini(&bad);
}

static void prefixes_are_recognised(void **state) {
    (void)state;
    str s;
    str_init(&s, &mem_default);
    for (int lang = STORY_EN; lang <= STORY_ZH; lang++)
        for (uint64_t i = 0; i < 20; i++) {
            str_clear(&s);
            assert_int_equal(story_generate((story_lang)lang, 5, i, &s, NULL), TL_OK);
            for (size_t n = 0; n <= s.len; n++) {
                size_t where = 9999;
                assert_true(story_prefix_ok((story_lang)lang, s.data, n));
                bool whole = story_score((story_lang)lang, s.data, n, NULL, &where);
                assert_int_equal(whole, n == s.len);
                if (!whole) assert_int_equal(where, n);
                if (n == s.len) continue;
                char keep = s.data[n];
                s.data[n] = '\x01';
                assert_false(story_prefix_ok((story_lang)lang, s.data, n + 1));
                s.data[n] = keep;
            }
            str_addc(&s, ' ');
            assert_false(story_prefix_ok((story_lang)lang, s.data, s.len));
        }
    assert_false(story_prefix_ok(STORY_EN, "It rained", 9));
    str_fini(&s);
}

/* Alternatives are drawn evenly: girls and boys, and kinds of weather, by four standard deviations. */
static void choices_are_even(void **state) {
    (void)state;
    static const char *const word[] = {" girl, ", " boy, ", "foggy ", "misty ", "snowy "};
    size_t count[5] = {0};
    str s;
    str_init(&s, &mem_default);
    for (uint64_t i = 0; i < 12000; i++) {
        str_clear(&s);
        assert_int_equal(story_generate(STORY_EN, 3, i, &s, NULL), TL_OK);
        for (size_t k = 0; k < 5; k++) count[k] += strstr(s.data, word[k]) != NULL;
    }
    for (size_t k = 0; k < 5; k++) {
        double want = (double)(k < 2 ? count[0] + count[1] : count[2] + count[3] + count[4]) / (k < 2 ? 2 : 3);
        assert_true(want > 100 && fabs((double)count[k] - want) < 4 * sqrt(want));
    }
    str_fini(&s);
}

/* What every byte costs the best possible model: it never falls, the bytes that may follow share all probability, and
 * the whole text costs what its derivation costs. */
static void every_prefix_has_its_price(void **state) {
    (void)state;
    str s;
    str_init(&s, &mem_default);
    for (int lang = STORY_EN; lang <= STORY_ZH; lang++)
        for (uint64_t i = 0; i < 3; i++) {
            double whole, last = 0;
            str_clear(&s);
            assert_int_equal(story_generate((story_lang)lang, 9, i, &s, &whole), TL_OK);
            for (size_t n = 1; n <= s.len; n++) {
                double now = story_prefix_nats((story_lang)lang, s.data, n);
                assert_true(now >= last - 1e-9);
                last = now;
                if (n % 16 != 1) continue;
                double sum = 0;
                char keep = s.data[n - 1], *end = &s.data[n - 1];
                double before = n > 1 ? story_prefix_nats((story_lang)lang, s.data, n - 1) : 0;
                for (int byte = 1; byte < 256; byte++) {
                    *end = (char)byte;
                    sum += exp(before - story_prefix_nats((story_lang)lang, s.data, n));
                }
                *end = keep;
                assert_true(fabs(sum - 1) < 1e-9);
            }
            assert_true(fabs(last - whole) < 1e-9 || last < whole);
        }
    assert_true(isinf(story_prefix_nats(STORY_EN, "It rained", 9)));
    str_fini(&s);
}

static void languages_by_name(void **state) {
    (void)state;
    story_lang l;
    assert_true(story_lang_parse("zh", &l) && l == STORY_ZH);
    assert_true(story_lang_parse("en", &l) && l == STORY_EN);
    assert_false(story_lang_parse("de", &l));
}

static void no_memory_is_said(void **state) {
    (void)state;
    test_alloc t;
    test_alloc_init(&t);
    t.fail_at = 1;
    t.sticky = true;
    str s;
    str_init(&s, &t.base);
    assert_int_equal(story_generate(STORY_EN, 1, 1, &s, NULL), TL_NOMEM);
    str_fini(&s);
    test_alloc_done(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(english_is_unambiguous_and_exact),
        cmocka_unit_test(chinese_is_unambiguous_and_exact),
        cmocka_unit_test(tables_are_sound),
        cmocka_unit_test(any_story_by_its_number),
        cmocka_unit_test(agreement_reaches_far),
        cmocka_unit_test(prefixes_are_recognised),
        cmocka_unit_test(choices_are_even),
        cmocka_unit_test(every_prefix_has_its_price),
        cmocka_unit_test(languages_by_name),
        cmocka_unit_test(no_memory_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
