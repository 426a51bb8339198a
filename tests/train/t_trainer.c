#include "fixture.h"

#include <math.h>

enum { B = 4, T = 16 };

/* n steps; their losses and norms; a copy of the weights (malloc'ed) where weights is not NULL. */
static void train(int threads, const char *config, int64_t micro, tl_dtype dtype, bool packed, tl_recompute recompute,
                  int n, double *loss, float **weights) {
    fixture f;
    trainer *t;
    tl_error e = {0};
    assert_ok(fixture_open(&f, NULL, threads, config, B, T, packed, &e), &e);
    trainer_settings s = fixture_settings(B, micro, T, dtype);
    s.packed = packed;
    s.recompute = recompute;
    assert_ok(trainer_create(f.model, &s, &t, &e), &e);
    for (int i = 0; i < n; i++) {
        tl_metrics m;
        assert_ok(trainer_step(t, f.loader, &m, &e), &e);
        assert_int_equal(m.step, i + 1);
        assert_true(m.tokens > 0 && m.flops > 0 && m.norm > 0);
        loss[i] = m.loss;
    }
    if (weights) {
        size_t bytes = (size_t)f.model->params.total * sizeof(float);
        *weights = malloc(bytes);
        memcpy(*weights, f.model->flat, bytes);
    }
    trainer_destroy(t);
    fixture_close(&f);
}

static void it_learns(void **state) {
    (void)state;
    double loss[40];
    train(1, fixture_llama, B, TL_F32, false, false, 40, loss, NULL);
    assert_near(loss[0], log(257), 0.3);
    assert_true(loss[39] < 2.5);
    train(1, fixture_gpt2, B, TL_F32, true, false, 40, loss, NULL);
    assert_true(loss[39] < loss[0] - 2);
}

static void threads_change_no_bit(void **state) {
    (void)state;
    double one[6], more[6];
    for (int k = 0; k < 4; k++) {
        const char *config = k & 1 ? fixture_gpt2 : fixture_llama;
        tl_dtype dtype = k & 2 ? TL_BF16 : TL_F32;
        train(1, config, B, dtype, k & 1, false, 6, one, NULL);
        for (int threads = 2; threads <= 5; threads += 3) {
            train(threads, config, B, dtype, k & 1, false, 6, more, NULL);
            assert_memory_equal(one, more, sizeof one);
        }
    }
}

static void micro_batches_differ_by_rounding_only(void **state) {
    (void)state;
    double whole[6], parts[6];
    for (int64_t micro = 1; micro <= 3; micro++) {                      /* 3 does not divide 4: the rest is padding */
        train(1, fixture_gpt2, B, TL_F32, true, false, 6, whole, NULL); /* with dropout: the same elements fall out */
        train(1, fixture_gpt2, micro, TL_F32, true, false, 6, parts, NULL);
        for (int i = 0; i < 6; i++) assert_near(whole[i], parts[i], 2e-4 * whole[i]);
        assert_near(whole[0], parts[0], 1e-6 * whole[0]);
    }
}

static void recomputation_changes_no_bit(void **state) {
    (void)state;
    double kept[6], again[6];
    float *a, *b;
    train(1, fixture_gpt2, B, TL_F32, false, false, 6, kept, &a);
    for (tl_recompute level = TL_RECOMPUTE_LIGHT; level < TL_RECOMPUTE_LEVELS; level++) {
        train(1, fixture_gpt2, B, TL_F32, false, level, 6, again, &b);
        assert_memory_equal(kept, again, sizeof kept);
        assert_memory_equal(a, b, 1000 * sizeof(float));
        free(b);
    }
    free(a);
}

static void planned_bytes_are_the_bytes_taken(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        test_alloc a;
        test_alloc_init(&a);
        fixture f;
        trainer *t;
        trainer_bytes plan;
        tl_cost cost;
        tl_error e = {0};
        assert_ok(fixture_open(&f, &a.base, 2, k & 1 ? fixture_gpt2 : fixture_llama, B, T, false, &e), &e);
        trainer_settings s = fixture_settings(B, 2, T, k & 2 ? TL_BF16 : TL_F32);
        size_t before = a.live_bytes;
        trainer_shape w = {.config = &f.model->config, .params = &f.model->params};
        assert_ok(trainer_measure(f.engine, &w, &s, &plan, &cost, &e), &e);
        assert_int_equal(a.live_bytes, before);
        assert_ok(trainer_create(f.model, &s, &t, &e), &e);
        assert_memory_equal(&plan, &t->bytes, sizeof plan);
        assert_near(cost.flops, t->flops, 0);
        /* Big buffers are counted to the byte; what else lives are graphs: descriptors, not data. */
        size_t taken = a.live_bytes - before + plan.weights;
        assert_true(taken >= plan.total);
        long calls = a.calls;
        tl_metrics m;
        for (int i = 0; i < 3; i++) assert_ok(trainer_step(t, f.loader, &m, &e), &e);
        assert_int_equal(a.calls, calls); /* a step takes nothing */
        trainer_destroy(t);
        fixture_close(&f);
        test_alloc_done(&a);
    }
}

static void a_number_that_is_not_finite_changes_nothing(void **state) {
    (void)state;
    fixture f;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    assert_ok(fixture_open(&f, NULL, 1, fixture_llama, B, T, false, &e), &e);
    trainer_settings s = fixture_settings(B, 2, T, TL_F32);
    assert_ok(trainer_create(f.model, &s, &t, &e), &e);
    assert_ok(trainer_step(t, f.loader, &m, &e), &e);
    size_t n = (size_t)f.model->params.total;
    float *weights = malloc(n * sizeof *weights), *moments = malloc(n * sizeof *moments), keep = f.model->flat[5];
    f.model->flat[5 + 'a' * 16] = NAN;
    memcpy(weights, f.model->flat, n * sizeof *weights);
    memcpy(moments, t->m, n * sizeof *moments);
    assert_fails(TL_NUMERIC, trainer_step(t, f.loader, &m, &e), &e);
    assert_non_null(strstr(e.text, "step 2"));
    assert_memory_equal(weights, f.model->flat, n * sizeof *weights);
    assert_memory_equal(moments, t->m, n * sizeof *moments);
    assert_int_equal(t->step, 1);
    for (size_t i = 0; i < n; i++) assert_true(t->grad[i] == 0);
    f.model->flat[5 + 'a' * 16] = keep;
    trainer_pass_over(t);
    assert_ok(trainer_step(t, f.loader, &m, &e), &e);
    assert_int_equal(m.step, 3);
    free(weights);
    free(moments);
    trainer_destroy(t);
    fixture_close(&f);
}

static void ids_of_the_caller(void **state) {
    (void)state;
    fixture f;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    int32_t ids[B * (T + 1)];
    for (int i = 0; i < B * (T + 1); i++) ids[i] = 'a' + i % 7;
    assert_ok(fixture_open(&f, NULL, 1, fixture_llama, B, T, false, &e), &e);
    trainer_settings s = fixture_settings(B, B, T, TL_F32);
    assert_ok(trainer_create(f.model, &s, &t, &e), &e);
    assert_ok(trainer_step_ids(t, ids, &m, &e), &e);
    assert_int_equal(m.tokens, B * T);
    ids[3] = 257;
    assert_fails(TL_ARG, trainer_step_ids(t, ids, &m, &e), &e);
    assert_int_equal(t->step, 1);
    trainer_destroy(t);
    fixture_close(&f);
}

static void settings_are_checked(void **state) {
    (void)state;
    static const tl_trainer_options bad[] = {
        {.batch_rows = 0},
        {.batch_rows = 4, .micro_rows = 5},
        {.batch_rows = 4, .lr = -1},
        {.batch_rows = 4, .lr = 1e-3f, .min_lr = 1e-2f},
        {.batch_rows = 4, .steps = 10, .warmup = 10},
        {.batch_rows = 4, .warmup = -1},
        {.batch_rows = 4, .beta1 = 1},
        {.batch_rows = 4, .dtype = TL_F16},
        {.batch_rows = 4, .schedule = (tl_schedule)9},
    };
    model_config c;
    tl_error e = {0};
    trainer_settings s;
    assert_ok(config_parse(fixture_gpt2, &c, NULL, 0, &e), &e);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(TL_ARG, trainer_resolve(&c, &bad[i], &s, &e), &e);
    tl_trainer_options o = {.batch_rows = 4, .context = 64};
    assert_fails(TL_CONFIG, trainer_resolve(&c, &o, &s, &e), &e);
    o.context = 0;
    o.decay = -1;
    assert_ok(trainer_resolve(&c, &o, &s, &e), &e);
    assert_int_equal(s.context, 32);
    assert_int_equal(s.micro, 4);
    assert_near(s.decay, 0, 0);
    assert_near(s.beta2, 0.95, 0);
    assert_near(s.schedule.lr, 1e-3, 0);
}

static tl_status one_step(const tl_allocator *a, void *user) {
    fixture f;
    trainer *t = NULL;
    tl_metrics m;
    tl_status s = fixture_open(&f, a, 2, user, 2, 8, false, NULL);
    trainer_settings set = fixture_settings(2, 1, 8, TL_BF16);
    if (s == TL_OK) s = trainer_create(f.model, &set, &t, NULL);
    if (s == TL_OK) s = trainer_step(t, f.loader, &m, NULL);
    trainer_destroy(t);
    fixture_close(&f);
    return s;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(one_step, (void *)(uintptr_t)fixture_llama) > 20);
}

/* Norms by layer are parts of the norm that a step reports, and looking at them changes nothing. */
static void gradients_by_layer_are_the_gradient(void **state) {
    (void)state;
    fixture f;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    double plain[3], norm[3], sum = 0;
    train(1, fixture_llama, B, TL_F32, false, false, 3, plain, NULL);
    assert_ok(fixture_open(&f, NULL, 1, fixture_llama, B, T, false, &e), &e);
    trainer_settings s = fixture_settings(B, B, T, TL_F32);
    assert_ok(trainer_create(f.model, &s, &t, &e), &e);
    for (int i = 0; i < 3; i++) {
        sum = 0;
        assert_ok(trainer_gradients(t, f.loader, norm, &e), &e);
        for (int k = 0; k < 3; k++) {
            assert_true(norm[k] > 0);
            sum += norm[k] * norm[k];
        }
        assert_ok(trainer_step(t, f.loader, &m, &e), &e);
        assert_near(sqrt(sum), m.norm, 1e-5 * m.norm);
        assert_true(m.loss == plain[i]);
    }
    trainer_destroy(t);
    fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_by_layer_are_the_gradient),
        cmocka_unit_test(it_learns),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(micro_batches_differ_by_rounding_only),
        cmocka_unit_test(recomputation_changes_no_bit),
        cmocka_unit_test(planned_bytes_are_the_bytes_taken),
        cmocka_unit_test(a_number_that_is_not_finite_changes_nothing),
        cmocka_unit_test(ids_of_the_caller),
        cmocka_unit_test(settings_are_checked),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
