#include "support/testing.h"

#include "train/schedule.h"

static void warmup_grows_in_a_line(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        schedule s = {(tl_schedule)k, 1.0, 0.1, 10, 100};
        for (int64_t i = 0; i < 10; i++) assert_near(schedule_lr(&s, i), (double)(i + 1) / 11, 1e-15);
        assert_near(schedule_lr(&s, 10), 1.0, 1e-15);
    }
}

static void cosine(void **state) {
    (void)state;
    schedule s = {TL_SCHEDULE_COSINE, 1e-3, 1e-4, 100, 2000};
    assert_near(schedule_lr(&s, 100), 1e-3, 1e-18);
    assert_near(schedule_lr(&s, 1050), 5.5e-4, 1e-15);
    assert_near(schedule_lr(&s, 575), 1e-4 + 9e-4 * 0.85355339059327378, 1e-15); /* (1 + cos(pi/4)) / 2 */
    assert_near(schedule_lr(&s, 2000), 1e-4, 1e-18);
    assert_near(schedule_lr(&s, 5000), 1e-4, 1e-18);
}

static void linear_and_constant(void **state) {
    (void)state;
    schedule s = {TL_SCHEDULE_LINEAR, 2, 1, 0, 10};
    for (int64_t i = 0; i < 12; i++) assert_near(schedule_lr(&s, i), i < 10 ? 2 - 0.1 * (double)i : 1, 1e-12);
    s.kind = TL_SCHEDULE_CONSTANT;
    for (int64_t i = 0; i < 20; i++) assert_near(schedule_lr(&s, i), 2, 0);
}

static void wsd_is_stable_then_falls(void **state) {
    (void)state;
    schedule s = {TL_SCHEDULE_WSD, 1, 0, 5, 100};
    for (int64_t i = 5; i <= 80; i++) assert_near(schedule_lr(&s, i), 1, 0);
    assert_near(schedule_lr(&s, 85), 0.5, 1e-12); /* 1 - sqrt(1/4) */
    assert_near(schedule_lr(&s, 100), 0, 1e-12);
    for (int64_t i = 80; i < 100; i++) assert_true(schedule_lr(&s, i + 1) < schedule_lr(&s, i));
}

static void without_an_end_it_stays(void **state) {
    (void)state;
    schedule s = {TL_SCHEDULE_COSINE, 1, 0, 5, 0};
    assert_near(schedule_lr(&s, 1000000), 1, 0);
}

static void names(void **state) {
    (void)state;
    tl_schedule k;
    for (int i = 0; i < 4; i++) {
        assert_true(schedule_parse(schedule_name((tl_schedule)i), &k));
        assert_int_equal(k, i);
    }
    assert_false(schedule_parse("Cosine", &k));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(warmup_grows_in_a_line),  cmocka_unit_test(cosine),
        cmocka_unit_test(linear_and_constant),     cmocka_unit_test(wsd_is_stable_then_falls),
        cmocka_unit_test(without_an_end_it_stays), cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
