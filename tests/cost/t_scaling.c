/* The scaling fit recovers the exponents that synthetic runs were made with, inside its intervals, and refuses runs
 * that cannot determine them. */
#include "cost/scaling.h"
#include "support/testing.h"

#include <math.h>

enum { MOST = 200 };

static double noise(uint64_t *s) { /* about normal: twelve uniforms less six */
    double x = -6;
    for (int i = 0; i < 12; i++) {
        *s = *s * 6364136223846793005u + 1442695040888963407u;
        x += (double)(*s >> 11) * 0x1p-53;
    }
    return x;
}

/* Budgets times sizes around the best one. */
static size_t make_runs(double E, double A, double B, double a, double b, double sigma, uint64_t seed, scaling_run *r) {
    size_t n = 0;
    double G = pow(a * A / (b * B), 1 / (a + b));
    for (double C = 1e15; C < 2e18; C *= 4)
        for (int k = -4; k <= 4; k++) {
            double N = G * pow(C / 6, b / (a + b)) * pow(1.6, k), D = C / 6 / N;
            r[n++] = (scaling_run){N, D, (E + A / pow(N, a) + B / pow(D, b)) * exp(sigma * noise(&seed)), 0};
        }
    return n;
}

static void exact_runs_give_the_law_back(void **state) {
    (void)state;
    static const double laws[][5] = {{1.69, 406.4, 410.7, 0.34, 0.28}, {1.8172, 482.01, 2085.43, 0.3478, 0.3658}};
    scaling_run r[MOST];
    scaling_law l;
    tl_error e;
    for (size_t i = 0; i < 2; i++) {
        const double *w = laws[i];
        size_t n = make_runs(w[0], w[1], w[2], w[3], w[4], 0, 1, r);
        assert_ok(scaling_fit(&mem_default, r, n, 20, 1, &l, &e), &e);
        assert_near(l.alpha.value, w[3], 1e-3);
        assert_near(l.beta.value, w[4], 1e-3);
        assert_near(l.E.value, w[0], 5e-3);
        assert_near(l.A.value / w[1], 1, 0.02);
        assert_near(l.B.value / w[2], 1, 0.02);
        double N, D, L;
        scaling_best(&l, 5.76e23, &N, &D, &L);
        assert_near(6 * N * D / 5.76e23, 1, 1e-9);
        for (double f = 0.8; f < 1.3; f += 0.4) assert_true(scaling_loss(&l, f * N, D / f) > L);
    }
}

/* 80 % intervals hold the truth about four times in five: over twelve noisy sets of runs at least seven times for each
 * exponent, and the exponent of N_opt is near every time. */
static void noisy_runs_give_intervals_with_the_truth(void **state) {
    (void)state;
    scaling_run r[MOST];
    scaling_law l;
    tl_error e;
    int alpha = 0, beta = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        size_t n = make_runs(1.69, 406.4, 410.7, 0.34, 0.28, 0.004, seed, r);
        assert_ok(scaling_fit(&mem_default, r, n, 60, seed, &l, &e), &e);
        alpha += l.alpha.low <= 0.34 && 0.34 <= l.alpha.high;
        beta += l.beta.low <= 0.28 && 0.28 <= l.beta.high;
        assert_near(l.n_exponent, 0.28 / 0.62, 0.08);
    }
    print_message("          intervals with the truth: alpha %d, beta %d of 12\n", alpha, beta);
    assert_true(alpha >= 7 && beta >= 7);
}

static void outliers_do_not_pull(void **state) {
    (void)state;
    scaling_run r[MOST];
    scaling_law l;
    tl_error e;
    size_t n = make_runs(1.69, 406.4, 410.7, 0.34, 0.28, 0, 3, r);
    r[5].loss *= 1.4; /* two runs that broke */
    r[22].loss *= 1.3;
    assert_ok(scaling_fit(&mem_default, r, n, 40, 1, &l, &e), &e);
    assert_near(l.alpha.value, 0.34, 0.02);
    assert_near(l.beta.value, 0.28, 0.02);
}

static void isoflops(void **state) {
    (void)state;
    scaling_run r[MOST];
    scaling_isoflops s;
    tl_error e;
    int held = 0;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        size_t n = make_runs(1.69, 406.4, 410.7, 0.34, 0.28, 0.004, seed, r);
        assert_ok(scaling_isoflops_fit(&mem_default, r, n, 200, seed, &s, &e), &e);
        assert_int_equal(s.n, 6);
        assert_int_equal(s.bottoms, 6);
        assert_true(s.lines);
        held += s.n_exponent.low <= 0.28 / 0.62 && 0.28 / 0.62 <= s.n_exponent.high;
        assert_near(s.n_exponent.value, 0.28 / 0.62, 0.03);
        assert_near(s.n_exponent.value + s.d_exponent.value, 1, 1e-12);
        for (size_t i = 0; i < s.n; i++) {
            double G = pow(0.34 * 406.4 / (0.28 * 410.7), 1 / 0.62), best = G * pow(s.budget[i].flops / 6, 0.28 / 0.62);
            assert_true(s.budget[i].params > best / 1.5 && s.budget[i].params < best * 1.5);
            assert_true(s.budget[i].lowest_params > best / 4 && s.budget[i].lowest_params < best * 4);
        }
        scaling_isoflops_free(&s);
    }
    print_message("          intervals with the truth: %d of 12\n", held);
    assert_true(held >= 7);
}

static void refused(const scaling_run *r, size_t n, const char *why) {
    scaling_law l;
    tl_error e;
    assert_fails(TL_ARG, scaling_fit(&mem_default, r, n, 60, 1, &l, &e), &e);
    if (!strstr(e.text, why)) print_error("\"%s\" does not say \"%s\"\n", e.text, why);
    assert_non_null(strstr(e.text, why));
}

static void data_that_cannot_tell_are_refused(void **state) {
    (void)state;
    scaling_run r[MOST];
    scaling_isoflops s;
    tl_error e;
    uint64_t seed = 7;
    size_t n = make_runs(1.69, 406.4, 410.7, 0.34, 0.28, 0, 1, r);
    refused(r, 7, "at least 8");
    for (size_t i = 0; i < n; i++) r[i].params = 1e7;
    refused(r, n, "different sizes");
    n = make_runs(1.69, 406.4, 410.7, 0.34, 0.28, 0, 1, r);
    for (size_t i = 0; i < n; i++) r[i].tokens = i % 2 ? 1e9 : 2e9;
    refused(r, n, "numbers of tokens");
    for (size_t i = 0; i < 12; i++) { /* always twenty tokens a parameter */
        double N = 1e6 * pow(2, (double)i);
        r[i] = (scaling_run){N, 20 * N, 1.69 + 406.4 / pow(N, 0.34) + 410.7 / pow(20 * N, 0.28), 0};
    }
    refused(r, 12, "rise together");
    n = make_runs(1.69, 406.4, 410.7, 0.34, 0.28, 0, 1, r);
    for (size_t i = 0; i < n; i++) r[i].loss = 3 * exp(0.05 * noise(&seed)); /* nothing but noise */
    refused(r, n, "");
    r[3].loss = -1;
    refused(r, n, "run 4");
    for (size_t i = 0; i < 9; i++) { /* one budget, all sizes on one side of the best: no bottom */
        double N = 1e9 * pow(1.5, (double)i), D = 1e17 / 6 / N;
        r[i] = (scaling_run){N, D, 1.69 + 406.4 / pow(N, 0.34) + 410.7 / pow(D, 0.28), 0};
    }
    assert_fails(TL_ARG, scaling_isoflops_fit(&mem_default, r, 9, 50, 1, &s, &e), &e);
}

static tl_status fit_with(const tl_allocator *a, void *user) {
    scaling_run r[MOST];
    scaling_law l;
    scaling_isoflops s;
    size_t n = make_runs(1.69, 406.4, 410.7, 0.34, 0.28, 0, 1, r);
    (void)user;
    TRY(scaling_fit(a, r, n, 2, 1, &l, NULL));
    TRY(scaling_isoflops_fit(a, r, n, 20, 1, &s, NULL));
    scaling_isoflops_free(&s);
    return TL_OK;
}

static void no_memory(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(fit_with, NULL) >= 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(exact_runs_give_the_law_back),
                                       cmocka_unit_test(noisy_runs_give_intervals_with_the_truth),
                                       cmocka_unit_test(outliers_do_not_pull),
                                       cmocka_unit_test(isoflops),
                                       cmocka_unit_test(data_that_cannot_tell_are_refused),
                                       cmocka_unit_test(no_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
