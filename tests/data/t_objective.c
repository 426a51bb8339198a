/* Objectives: what of a batch is hidden, shown and asked for. */
#include "data/loader.h"
#include "data/objective.h"
#include "support/testing.h"

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
    return (objective_rule){OBJECTIVE_MLM, MASK, V, EOD, seed};
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shares), cmocka_unit_test(parts_are_as_the_whole),
                                       cmocka_unit_test(causal_is_the_loader_s)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
