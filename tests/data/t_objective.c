/* Objectives: what of a batch is hidden, shown and asked for. */
#include "data/loader.h"
#include "data/objective.h"
#include "support/testing.h"

#include <math.h>

enum { ROWS = 64, T = 200, N = ROWS * T, V = 300, MASK = 299, EOD = 7 };

static int32_t input[N], target[N], text[N];

static loader_batch fill(void) {
    for (int i = 0; i < N; i++) {
        text[i] = target[i] = i % 97 == 96 ? EOD : i % 101 == 100 ? -1 : (i * 31 + i / 13) % (V - 1);
        input[i] = 12;
    }
    return (loader_batch){.input = input, .target = target, .labels = N};
}

static objective_rule rule(uint64_t seed) {
    return (objective_rule){OBJECTIVE_MLM, MASK, V, EOD, seed, false};
}

/* 15 % hidden, of these 80, 10 and 10 %: within five standard deviations. */
static void shares(void **state) {
    (void)state;
    loader_batch b = fill();
    const objective_rule o = rule(3);
    int64_t asked = 0, shown[3] = {0}, real = 0;
    objective_apply(&o, &b, ROWS, T, 5, 0);
    for (int i = 0; i < N; i++) {
        if (text[i] < 0) {
            assert_int_equal(input[i], 12);
            assert_int_equal(target[i], -1);
            continue;
        }
        real += text[i] != EOD;
        if (target[i] < 0) {
            assert_int_equal(input[i], text[i]);
            continue;
        }
        assert_int_equal(target[i], text[i]);
        assert_int_not_equal(text[i], EOD);
        assert_in_range(input[i], 0, V - 1);
        asked++;
        shown[input[i] == MASK ? 0 : input[i] == text[i] ? 2 : 1]++;
    }
    assert_int_equal(asked, b.labels);
    assert_near((double)asked / (double)real, 0.15, 0.016);
    assert_near((double)shown[0] / (double)asked, 0.8, 0.05);
    assert_near((double)shown[1] / (double)asked, 0.1, 0.035);
    assert_near((double)shown[2] / (double)asked, 0.1, 0.035);
}

/* A row of a step hides the same whether it comes alone or with others; another step or seed hides something else. */
static void parts_are_as_the_whole(void **state) {
    (void)state;
    static int32_t whole[N];
    loader_batch b = fill();
    objective_rule o = rule(3);
    objective_apply(&o, &b, ROWS, T, 5, 0);
    memcpy(whole, input, sizeof whole);
    (void)fill();
    for (int64_t r = 0; r < ROWS; r++) {
        loader_batch row = {.input = input + r * T, .target = target + r * T};
        objective_apply(&o, &row, 1, T, 5, r);
    }
    assert_memory_equal(whole, input, sizeof whole);
    b = fill();
    objective_apply(&o, &b, ROWS, T, 6, 0);
    assert_true(memcmp(whole, input, sizeof whole) != 0);
    o = rule(4);
    b = fill();
    objective_apply(&o, &b, ROWS, T, 5, 0);
    assert_true(memcmp(whole, input, sizeof whole) != 0);
}

static void causal_is_the_loader_s(void **state) {
    (void)state;
    loader_batch b = fill();
    const objective_rule o = {.kind = OBJECTIVE_CAUSAL};
    objective_apply(&o, &b, ROWS, T, 5, 0);
    assert_memory_equal(target, text, sizeof text);
    assert_int_equal(b.labels, N);
}

/* Three documents to a row, the last of padding. */
static void documents(int32_t *start) {
    for (int i = 0; i < N; i++) start[i] = i % T < 70 ? 0 : i % T < 71 ? 70 : i % T < 190 ? 71 : 190;
}

/* Every length of prompt from 1 to the whole is as likely; within it nothing is asked; a row is the same in any batch.
 */
static void prompts(void **state) {
    (void)state;
    static int32_t start[N], span[2 * N], whole[2 * N];
    loader_batch b = fill();
    b.doc_start = start, b.span = span;
    documents(start);
    const objective_rule o = {.kind = OBJECTIVE_PREFIX, .seed = 3};
    int64_t asked = 0;
    double mean = 0;
    int shortest = T, longest = 0;
    objective_apply(&o, &b, ROWS, T, 5, 0);
    for (int i = 0; i < N; i++) {
        const int place = i % T, row = i - place, first = start[i], prompt = span[2 * (row + first) + 1];
        const int end = first == 0 ? 70 : first == 70 ? 71 : first == 71 ? 190 : T;
        assert_int_equal(span[2 * i], first);
        assert_int_equal(span[2 * i + 1], place < prompt ? prompt : place + 1);
        assert_in_range(prompt, first + 1, end);
        if (place < prompt - 1)
            assert_int_equal(target[i], -1);
        else
            assert_int_equal(target[i], text[i]);
        asked += target[i] >= 0;
        if (place != 71) continue;
        mean += (double)(prompt - 71) / ROWS;
        shortest = prompt - 71 < shortest ? prompt - 71 : shortest;
        longest = prompt - 71 > longest ? prompt - 71 : longest;
    }
    assert_int_equal(asked, b.labels);
    assert_near(mean, 60, 5 * 119 / sqrt(12.0 * ROWS));
    assert_true(shortest < 20 && longest > 100);
    memcpy(whole, span, sizeof whole);
    (void)fill();
    for (int64_t r = 0; r < ROWS; r++) {
        loader_batch one = {
            .input = input + r * T, .target = target + r * T, .doc_start = start + r * T, .span = span + 2 * r * T};
        objective_apply(&o, &one, 1, T, 5, r);
    }
    assert_memory_equal(whole, span, sizeof whole);
}

/* Of examples the prompt is what stands before the first answer. */
static void answers(void **state) {
    (void)state;
    static int32_t start[N], span[2 * N];
    loader_batch b = fill();
    b.doc_start = start, b.span = span;
    documents(start);
    for (int i = 0; i < N; i++) {
        const int at = i % T - start[i];
        target[i] = at < 9 || (at > 20 && at < 30) || start[i] == 190 ? -1 : 5; /* a second question between them */
    }
    const objective_rule o = {.kind = OBJECTIVE_PREFIX, .seed = 3, .examples = true};
    objective_apply(&o, &b, ROWS, T, 5, 0);
    for (int i = 0; i < N; i++) {
        const int first = start[i], at = i % T - first,
                  all = first == 0    ? 70
                        : first == 70 ? 1
                        : first == 71 ? 119
                                      : 10;
        const int prompt = all < 10 || first == 190 ? all : 10;
        assert_int_equal(span[2 * i + 1], at < prompt ? first + prompt : first + at + 1);
        assert_int_equal(target[i], at < 9 || (at > 20 && at < 30) || first == 190 ? -1 : 5);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares), cmocka_unit_test(parts_are_as_the_whole),
                                       cmocka_unit_test(causal_is_the_loader_s), cmocka_unit_test(prompts),
                                       cmocka_unit_test(answers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
