/* What a plan says is what the process grows by: resident memory after the engine was made, while a GPT-2 and a Llama
 * train and evaluate, within 10 % or 32 MB of the planned bytes. */
#include "eval/eval.h"
#include "support/testing.h"
#include "train/trainer.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MB = 1 << 20 };

/* Resident bytes now ("VmRSS") or at most so far ("VmHWM"). */
static size_t resident(const char *what) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    size_t kb = 0;
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, what, strlen(what)) == 0) kb = strtoull(strchr(line, ':') + 1, NULL, 10);
    if (f) fclose(f);
    return kb * 1024;
}

/* In a process of its own, so that nothing that was freed before is taken again. */
static bool measured(const char *config, tl_dtype dtype, bool recompute) {
    tl_engine *engine;
    tl_model *m;
    tl_error e;
    model_config c;
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, &e), &e);
    assert_ok(config_parse(config, &c, NULL, 0, &e), &e);
    size_t before = resident("VmRSS");
    assert_ok(model_create(engine, &c, NULL, 1, &m, &e), &e);
    trainer_settings s = {.schedule = {.kind = TL_SCHEDULE_CONSTANT, .lr = 1e-4, .min_lr = 1e-4},
                          .rows = 4,
                          .micro = 4,
                          .context = c.context,
                          .dtype = dtype,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .recompute = recompute};
    trainer *t;
    assert_ok(trainer_create(m, &s, &t, &e), &e);
    int32_t *ids = calloc((size_t)(4 * (c.context + 1)), sizeof *ids);
    for (int i = 0; i < 2; i++) {
        tl_metrics metrics;
        assert_ok(trainer_step_ids(t, ids, &metrics, &e), &e);
    }
    size_t planned = t->bytes.total, grown = resident("VmHWM") - before;
    size_t slack = planned / 10 > 32 * MB ? planned / 10 : 32 * MB;
    print_message("          %s %s: planned %zu MB, the process grew by %zu MB\n", tl_dtype_name(dtype),
                  recompute ? "recomputed" : "kept", planned / MB, grown / MB);
    free(ids);
    trainer_destroy(t);
    model_close(m);
    tl_engine_destroy(engine);
    return planned > 60 * MB && grown < planned + slack && grown + slack > planned; /* enough to be seen, and near */
}

static void grows_as_planned(const char *config, tl_dtype dtype, bool recompute) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool near = measured(config, dtype, recompute);
        fflush(NULL);
        _exit(near ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

#define GPT2                                                                                                           \
    "{\"model_type\":\"gpt2\",\"n_embd\":256,\"n_layer\":3,\"n_head\":4,\"n_positions\":256,\"vocab_size\":4000}"
#define LLAMA                                                                                                          \
    "{\"model_type\":\"llama\",\"hidden_size\":320,\"intermediate_size\":864,\"num_hidden_layers\":3,"                 \
    "\"num_attention_heads\":5,\"vocab_size\":6000,\"max_position_embeddings\":256}"

static void gpt2_recomputed(void **state) {
    (void)state, grows_as_planned(GPT2, TL_F32, true);
}
static void gpt2_grows_as_planned(void **state) {
    (void)state, grows_as_planned(GPT2, TL_F32, false);
}
static void llama_grows_as_planned(void **state) {
    (void)state, grows_as_planned(LLAMA, TL_F32, false);
}
static void llama_in_bf16(void **state) {
    (void)state, grows_as_planned(LLAMA, TL_BF16, false);
}

int main(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 77; /* sanitizers keep memory of their own */
#endif
    const struct CMUnitTest tests[] = {cmocka_unit_test(gpt2_recomputed), cmocka_unit_test(gpt2_grows_as_planned),
                                       cmocka_unit_test(llama_in_bf16), cmocka_unit_test(llama_grows_as_planned)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
