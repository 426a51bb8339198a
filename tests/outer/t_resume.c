/* Training inside a program that ends and begins again: tl_trainer_save and tl_trainer_resume. */
#include "support/testing.h"

#include <sys/stat.h>
#include <tilia.h>
#include <unistd.h>

static const char text[] = "the low, the lower, the lowest; a widest, a newest, the slow and the slower one. ";
static const char small[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 257, \"hidden_size\": 16, \"intermediate_size\": 16, "
    "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"max_position_embeddings\": 16, \"rms_norm_eps\": 1e-6}";
enum { STEPS = 6, SPLIT = 2 };

typedef struct life {
    tl_engine *engine;
    tl_tokenizer *bytes;
    tl_model *model;
    tl_trainer *trainer;
} life;

static void life_end(life *l) {
    tl_trainer_destroy(l->trainer);
    tl_model_close(l->model);
    tl_tokenizer_close(l->bytes);
    tl_engine_destroy(l->engine);
    memset(l, 0, sizeof *l);
}

static tl_status life_engine(life *l, const tl_allocator *a, int threads, tl_error *e) {
    tl_engine_options o = {.allocator = a, .threads = threads};
    memset(l, 0, sizeof *l);
    return tl_engine_create(&o, &l->engine, e);
}

static tl_status life_begin(life *l, const tl_allocator *a, tl_error *e) {
    tl_trainer_options o = {.steps = STEPS, .batch_rows = 2, .context = 8, .lr = 1e-2f, .warmup = 1, .seed = 3};
    tl_status s = life_engine(l, a, 1, e);
    if (s == TL_OK) s = tl_tokenizer_bytes(l->engine, &l->bytes, e);
    if (s == TL_OK) s = tl_model_create(l->engine, small, l->bytes, 1, &l->model, e);
    if (s == TL_OK) s = tl_trainer_create(l->model, &o, &l->trainer, e);
    if (s == TL_OK) s = tl_trainer_add_text(l->trainer, text, sizeof text - 1, e);
    return s;
}

static tl_status life_again(life *l, const char *run, const tl_allocator *a, int threads, tl_error *e) {
    tl_status s = life_engine(l, a, threads, e);
    if (s == TL_OK) s = tl_trainer_resume(l->engine, run, NULL, &l->model, &l->trainer, e);
    if (s == TL_OK) s = tl_trainer_add_text(l->trainer, text, sizeof text - 1, e);
    return s;
}

static void a_second_life_has_the_same_bits(void **state) {
    (void)state;
    char run[512];
    double loss[STEPS];
    int64_t tokens = 0;
    life l;
    tl_metrics m;
    tl_error e = {0};
    tl_trainer_info info;
    test_tempdir(run, sizeof run);
    assert_ok(life_begin(&l, NULL, &e), &e);
    for (int i = 0; i < STEPS; i++) {
        assert_ok(tl_trainer_step(l.trainer, &m, &e), &e);
        loss[i] = m.loss;
        if (i < SPLIT) tokens += m.tokens;
        if (i + 1 <= SPLIT) assert_ok(tl_trainer_save(l.trainer, run, 1, &e), &e);
    }
    life_end(&l);

    assert_ok(life_again(&l, run, NULL, 2, &e), &e);
    tl_trainer_info_get(l.trainer, &info);
    assert_int_equal(info.step, SPLIT);
    assert_int_equal(info.steps, STEPS);
    assert_int_equal(info.batch_rows, 2);
    assert_int_equal(info.context, 8);
    assert_true(info.tokens == tokens);
    for (int i = SPLIT; i < STEPS; i++) {
        assert_ok(tl_trainer_step(l.trainer, &m, &e), &e);
        assert_true(m.loss == loss[i]);
        assert_int_equal(m.step, i + 1);
    }
    life_end(&l);

    char path[600];
    struct stat st;
    snprintf(path, sizeof path, "%s/ckpt-00000001", run);
    assert_int_equal(stat(path, &st), -1); /* one was to be kept */
    test_tempdir_remove(run);
}

static void a_run_without_a_checkpoint_is_refused(void **state) {
    (void)state;
    char run[512], inside[600];
    life l;
    tl_error e = {0};
    test_tempdir(run, sizeof run);
    assert_fails(TL_NOTFOUND, life_again(&l, run, NULL, 1, &e), &e);
    assert_null(l.model);
    assert_null(l.trainer);
    life_end(&l);
    assert_ok(life_begin(&l, NULL, &e), &e);
    assert_fails(TL_ARG, tl_trainer_save(l.trainer, run, -1, &e), &e);
    snprintf(inside, sizeof inside, "%s/file", run);
    fclose(fopen(inside, "w"));
    assert_fails(TL_IO, tl_trainer_save(l.trainer, inside, 0, &e), &e); /* a file stands where the run should */
    life_end(&l);
    test_tempdir_remove(run);
}

static tl_status resume_and_step(const tl_allocator *a, void *user) {
    life l;
    tl_error e = {0};
    tl_status s = life_again(&l, user, a, 1, &e);
    if (s == TL_OK) s = tl_trainer_step(l.trainer, NULL, &e);
    life_end(&l);
    return s;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    char run[512];
    life l;
    tl_error e = {0};
    test_tempdir(run, sizeof run);
    assert_ok(life_begin(&l, NULL, &e), &e);
    assert_ok(tl_trainer_save(l.trainer, run, 0, &e), &e);
    life_end(&l);
    assert_true(test_alloc_sweep(resume_and_step, run) > 50);
    test_tempdir_remove(run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_second_life_has_the_same_bits),
        cmocka_unit_test(a_run_without_a_checkpoint_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
