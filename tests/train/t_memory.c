/* What a plan says is what the process grows by: resident memory after the engine was made, while a GPT-2 and a Llama
 * train, and while they generate from f32, bf16 and blocks, within 10 % or 32 MB of the planned bytes; and what the
 * allocator hands out at most, which beside tensors holds only the tables of graphs and plans. */
#include "cost/cost.h"
#include "eval/eval.h"
#include "infer/decoder.h"
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
static bool measured(const char *config, tl_dtype dtype, tl_recompute recompute) {
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
    cost_report told;
    cost_request q = {.mode = COST_TRAIN, .rows = 4, .context = c.context, .dtype = dtype, .recompute = recompute};
    assert_ok(cost_sum(engine, &c, &q, NULL, &told, &e), &e);
    assert_int_equal(told.total.activations, t->bytes.activations); /* tilia plan and the trainer say the same */
    assert_int_equal(told.total.weights, t->bytes.weights + t->bytes.weights16);
    assert_int_equal(told.total.gradients + told.total.optimizer, t->bytes.gradients + t->bytes.moments);
    size_t planned = t->bytes.total, grown = resident("VmHWM") - before;
    size_t slack = planned / 10 > 32 * MB ? planned / 10 : 32 * MB;
    print_message("          %s %s: planned %zu MB, the process grew by %zu MB\n", tl_dtype_name(dtype),
                  tl_recompute_name(recompute), planned / MB, grown / MB);
    free(ids);
    trainer_destroy(t);
    model_close(m);
    tl_engine_destroy(engine);
    return planned > 60 * MB && grown < planned + slack && grown + slack > planned; /* enough to be seen, and near */
}

static void grows_as_planned(const char *config, tl_dtype dtype, tl_recompute recompute) {
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

/* ---- generation ------------------------------------------------------------------------------------------------ */

enum { PROMPT = 200, CAPACITY = 1024 };

static tl_dtype all_q8(void *user, const model_config *c, const model_param *p, const param_piece *piece) {
    (void)user, (void)c, (void)p;
    return piece->cols % 32 ? TL_F16 : TL_Q8_0;
}

/* Bytes that decoding a prompt and more tokens after it holds, by the plans: state and activations. */
static size_t planned_decoder(tl_engine *engine, const model_config *c, tl_dtype dtype, tl_dtype blocks) {
    cost_report r;
    tl_error e;
    size_t sum = 0;
    for (int i = 0; i < 2; i++) {
        cost_request q = {.mode = COST_DECODE,
                          .rows = i ? 256 : 1,
                          .slots = 1,
                          .context = CAPACITY,
                          .dtype = dtype,
                          .blocks = blocks};
        assert_ok(cost_sum(engine, c, &q, NULL, &r, &e), &e);
        sum += r.total.activations;
    }
    return sum + r.state_fixed + r.total.cache_per_token * CAPACITY;
}

static void decode(tl_model *m, tl_dtype dtype) {
    decoder d;
    tl_error e;
    int32_t ids[PROMPT], pos[PROMPT], slot[PROMPT] = {0}, last = PROMPT - 1;
    const float *logits;
    for (int32_t i = 0; i < PROMPT; i++) ids[i] = i, pos[i] = i;
    assert_ok(decoder_init(&d, m, 1, CAPACITY, dtype, TL_F32, &e), &e);
    assert_ok(decoder_run(&d, PROMPT, ids, pos, slot, 1, &last, &logits, &e), &e);
    for (int32_t i = PROMPT; i < CAPACITY; i++) { /* every page of the cache */
        int32_t zero = 0;
        assert_ok(decoder_run(&d, 1, &zero, &i, &zero, 1, &zero, &logits, &e), &e);
    }
    decoder_fini(&d);
}

static bool generated(tl_dtype dtype, bool blocks, const char *dir) {
    char path[300];
    tl_engine *engine;
    tl_model *m;
    tl_error e;
    model_config c;
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, &e), &e);
    snprintf(path, sizeof path, "%s/blocks.gguf", dir);
    const char *text =
        "{\"model_type\":\"llama\",\"hidden_size\":512,\"intermediate_size\":1408,\"num_hidden_layers\":6,"
        "\"num_attention_heads\":8,\"vocab_size\":12000,\"max_position_embeddings\":1024}";
    assert_ok(config_parse(text, &c, NULL, 0, &e), &e);
    size_t before = resident("VmRSS"), weights;
    if (blocks)
        assert_ok(model_open_mapped(engine, path, &m, &e), &e);
    else
        assert_ok(model_create(engine, &c, NULL, 1, &m, &e), &e);
    weights = (size_t)m->params.total * 4 + (dtype == TL_BF16 ? (size_t)m->params.decayed * 2 : 0);
    if (blocks) weights = cost_weight_bytes(&c, &m->params, TL_Q8_0, all_q8, NULL);
    decode(m, dtype);
    size_t planned = weights + planned_decoder(engine, &c, dtype, blocks ? TL_Q8_0 : TL_NONE),
           grown = resident("VmHWM") - before;
    size_t slack = planned / 10 > 32 * MB ? planned / 10 : 32 * MB;
    print_message("          generating, %s: planned %zu MB, the process grew by %zu MB\n",
                  blocks ? "q8_0" : tl_dtype_name(dtype), planned / MB, grown / MB);
    model_close(m);
    tl_engine_destroy(engine);
    return planned > 40 * MB && grown < planned + slack && grown + slack > planned;
}

static bool write_blocks(const char *dir) {
    char path[300];
    tl_engine *engine;
    tl_model *m;
    tl_error e;
    model_config c;
    snprintf(path, sizeof path, "%s/blocks.gguf", dir);
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    const char *text =
        "{\"model_type\":\"llama\",\"hidden_size\":512,\"intermediate_size\":1408,\"num_hidden_layers\":6,"
        "\"num_attention_heads\":8,\"vocab_size\":12000,\"max_position_embeddings\":1024}";
    assert_ok(config_parse(text, &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 1, &m, &e), &e);
    gguf_save_options so = {.dtype = all_q8};
    tl_status s = model_write_gguf(m, path, &so, &e);
    model_close(m);
    tl_engine_destroy(engine);
    return s == TL_OK;
}

static bool in_a_process(bool (*fn)(tl_dtype, bool, const char *), tl_dtype dtype, bool blocks, const char *dir) {
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bool good = fn(dtype, blocks, dir);
        fflush(NULL);
        _exit(good ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static bool prepare(tl_dtype dtype, bool blocks, const char *dir) {
    (void)dtype, (void)blocks;
    return write_blocks(dir);
}

static void generation_grows_as_planned(void **state) {
    char dir[256];
    (void)state;
    test_tempdir(dir, sizeof dir);
    bool made = in_a_process(prepare, TL_F32, true, dir);
    bool good = in_a_process(generated, TL_F32, false, dir) && in_a_process(generated, TL_BF16, false, dir) &&
                in_a_process(generated, TL_F32, true, dir);
    test_tempdir_remove(dir);
    assert_true(made);
    assert_true(good);
}

/* ---- the allocator ------------------------------------------------------------------------------------------------
 */

/* Planned bytes against the most that was ever handed out: not less, and 3 % or 3 MB more, for names, steps, lifetimes.
 */
static void the_allocator_hands_out_what_was_planned(void **state) {
    (void)state;
    static const char *const more[] = {"}", ",\"tilia\":{\"encoder_layers\":2,\"source_context\":96}}",
                                       ",\"tilia\":{\"objective\":\"prefix\"}}"};
    for (int k = 0; k < 2 * TL_RECOMPUTE_LEVELS + 2; k++) {
        const int kind = k < 2 * TL_RECOMPUTE_LEVELS ? 0 : k - 2 * TL_RECOMPUTE_LEVELS + 1;
        char text[400];
        test_alloc heap;
        tl_engine *engine;
        tl_model *m;
        trainer *t;
        tl_error e;
        model_config c;
        test_alloc_init(&heap);
        assert_ok(tl_engine_create(&(tl_engine_options){.threads = 2, .allocator = &heap.base}, &engine, &e), &e);
        snprintf(text, sizeof text,
                 "{\"model_type\":\"llama\",\"hidden_size\":256,\"intermediate_size\":704,\"num_hidden_layers\":3,"
                 "\"num_attention_heads\":4,\"vocab_size\":4000,\"max_position_embeddings\":128%s",
                 more[kind]);
        assert_ok(config_parse(text, &c, NULL, 0, &e), &e);
        size_t before = heap.live_bytes;
        assert_ok(model_create(engine, &c, NULL, 1, &m, &e), &e);
        trainer_settings s = {.schedule = {.kind = TL_SCHEDULE_CONSTANT, .lr = 1e-4, .min_lr = 1e-4},
                              .rows = 4,
                              .micro = 4,
                              .context = 128,
                              .dtype = k & 1 ? TL_BF16 : TL_F32,
                              .beta1 = 0.9,
                              .beta2 = 0.95,
                              .eps = 1e-8,
                              .recompute = kind ? TL_RECOMPUTE_NONE : (tl_recompute)(k / 2)};
        assert_ok(trainer_create(m, &s, &t, &e), &e);
        cost_report told;
        cost_request q = {.mode = COST_TRAIN, .rows = 4, .context = 128, .dtype = s.dtype, .recompute = s.recompute};
        assert_ok(cost_sum(engine, &c, &q, NULL, &told, &e), &e);
        assert_int_equal(told.total.activations, t->bytes.activations);
        size_t planned = t->bytes.total, taken = heap.peak_bytes - before,
               slack = planned / 33 > 3 * MB ? planned / 33 : 3 * MB;
        print_message("          %s, recomputation %s: planned %zu kB, the allocator gave %zu kB\n",
                      tl_dtype_name(s.dtype), tl_recompute_name(s.recompute), planned >> 10, taken >> 10);
        assert_true(taken >= planned && taken <= planned + slack);
        trainer_destroy(t);
        model_close(m);
        tl_engine_destroy(engine);
        test_alloc_done(&heap);
    }
}

#define GPT2                                                                                                           \
    "{\"model_type\":\"gpt2\",\"n_embd\":256,\"n_layer\":3,\"n_head\":4,\"n_positions\":256,\"vocab_size\":4000}"
#define LLAMA                                                                                                          \
    "{\"model_type\":\"llama\",\"hidden_size\":320,\"intermediate_size\":864,\"num_hidden_layers\":3,"                 \
    "\"num_attention_heads\":5,\"vocab_size\":6000,\"max_position_embeddings\":256}"

static void gpt2_recomputed(void **state) {
    (void)state, grows_as_planned(GPT2, TL_F32, TL_RECOMPUTE_FULL);
}
static void gpt2_grows_as_planned(void **state) {
    (void)state, grows_as_planned(GPT2, TL_F32, TL_RECOMPUTE_NONE);
}
static void llama_grows_as_planned(void **state) {
    (void)state, grows_as_planned(LLAMA, TL_F32, TL_RECOMPUTE_NONE);
}
static void llama_in_bf16(void **state) {
    (void)state, grows_as_planned(LLAMA, TL_BF16, TL_RECOMPUTE_NONE);
}
static void llama_in_bf16_recomputed(void **state) {
    (void)state, grows_as_planned(LLAMA, TL_BF16, TL_RECOMPUTE_WIDE);
}

int main(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    return 77; /* sanitizers keep memory of their own */
#endif
    const struct CMUnitTest tests[] = {cmocka_unit_test(gpt2_recomputed),
                                       cmocka_unit_test(gpt2_grows_as_planned),
                                       cmocka_unit_test(llama_in_bf16),
                                       cmocka_unit_test(llama_grows_as_planned),
                                       cmocka_unit_test(llama_in_bf16_recomputed),
                                       cmocka_unit_test(generation_grows_as_planned),
                                       cmocka_unit_test(the_allocator_hands_out_what_was_planned)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
