/* Generation on a device with memory of its own (support/apart.h): the processor's logits to the bit, whatever keeps
 * the state; a token goes there, its logits come back, and that is all. */
#include "support/apart.h"
#include "support/testing.h"

#include "infer/session.h"

#include <stdlib.h>

typedef struct pair {
    tl_engine *e[2];
} pair;

static int setup(void **state) {
    static pair p;
    const tl_engine_options o = {.threads = 2};
    *state = &p;
    if (tl_engine_create(&o, &p.e[0], NULL) != TL_OK) return -1;
    return apart_engine(&o, &p.e[1], NULL) == TL_OK ? 0 : -1;
}

static int teardown(void **state) {
    pair *p = *state;
    for (int i = 0; i < 2; i++) tl_engine_destroy(p->e[i]);
    return 0;
}

#define HEAD(type)                                                                                                     \
    "{\"model_type\":\"" type "\",\"vocab_size\":67,\"hidden_size\":64,\"num_hidden_layers\":2,"                       \
    "\"num_attention_heads\":2,\"max_position_embeddings\":96,\"intermediate_size\":48"
static const char *const configs[] = {
    HEAD("llama") ",\"num_key_value_heads\":1,\"tie_word_embeddings\":false}",
    "{\"model_type\":\"gpt2\",\"vocab_size\":67,\"n_embd\":32,\"n_layer\":2,\"n_head\":2,\"n_positions\":96}",
    HEAD("mixtral") ",\"num_local_experts\":4,\"num_experts_per_tok\":2,\"num_key_value_heads\":2}",
    "{\"model_type\":\"flash\",\"vocab_size\":67,\"hidden_size\":32,\"num_hidden_layers\":2,\"intermediate_size\":64,"
    "\"max_position_embeddings\":96,\"tilia\":{\"chunk_size\":16}}",
    "{\"model_type\":\"gau\",\"vocab_size\":67,\"hidden_size\":32,\"num_hidden_layers\":2,\"intermediate_size\":64,"
    "\"max_position_embeddings\":96}",
};
enum { CONFIGS = sizeof configs / sizeof *configs, V = 67 };

static tl_model *make(tl_engine *e, const char *config) {
    model_config c;
    tl_model *m;
    tl_error err;
    assert_ok(config_parse(config, &c, NULL, 0, &err), &err);
    assert_ok(model_create(e, &c, NULL, 5, &m, &err), &err);
    return m;
}

static void prompt(int32_t *ids, int n) {
    for (int i = 0; i < n; i++) ids[i] = (i * 7 + 3) % V;
}

/* Logits behind a prompt and after each of n tokens, the largest first; out (n + 1, V). */
static void run(struct tl_session *s, int n, float *out) {
    tl_error e;
    const float *z;
    for (int i = 0; i <= n; i++) {
        assert_ok(session_logits(s, &z, &e), &e);
        memcpy(out + i * V, z, V * sizeof *out);
        int32_t best = 0;
        for (int32_t k = 1; k < V; k++)
            if (z[k] > z[best]) best = k;
        if (i < n) assert_ok(session_ids(s, &best, 1, &e), &e);
    }
}

static void same_logits(tl_engine *const e[2], const char *config, const tl_session_options *o, int length, int n) {
    float *z[2];
    int32_t ids[1100];
    tl_error err;
    prompt(ids, length);
    for (int k = 0; k < 2; k++) {
        tl_model *m = make(e[k], config);
        struct tl_session *s, *twin;
        z[k] = calloc((size_t)(2 * (n + 1) * V), sizeof **z);
        assert_ok(session_create(m, o, &s, &err), &err);
        assert_ok(session_ids(s, ids, (size_t)length, &err), &err);
        run(s, n, z[k]);
        assert_ok(session_fork(s, &twin, &err), &err);
        session_destroy(s);
        run(twin, n, z[k] + (n + 1) * V);
        session_destroy(twin);
        model_close(m);
    }
    assert_memory_equal(z[0], z[1], (size_t)(2 * (n + 1) * V) * sizeof(float));
    for (int k = 0; k < 2; k++) free(z[k]);
}

static void families(void **state) {
    const pair *p = *state;
    for (int i = 0; i < CONFIGS; i++) same_logits(p->e, configs[i], NULL, 20, 8);
}

static void caches(void **state) {
    const pair *p = *state;
    static const tl_dtype kinds[] = {TL_BF16, TL_F16, TL_Q8_0};
    for (int i = 0; i < 3; i++) same_logits(p->e, configs[0], &(tl_session_options){.cache_dtype = kinds[i]}, 9, 4);
}

/* The cache forgets its oldest positions and turns the others' keys. */
static void window(void **state) {
    const pair *p = *state;
    same_logits(p->e, configs[0], &(tl_session_options){.cache_window = 12, .cache_first = 2}, 30, 12);
    same_logits(p->e, configs[0], &(tl_session_options){.cache_window = 12, .cache_first = 2, .cache_dtype = TL_Q8_0},
                30, 12);
}

/* A prompt of several runs: what the next one reads is filled when the one before has been sent. */
static void long_prompt(void **state) {
    const pair *p = *state;
    same_logits(p->e,
                "{\"model_type\":\"llama\",\"vocab_size\":67,\"hidden_size\":32,\"num_hidden_layers\":2,"
                "\"num_attention_heads\":2,\"max_position_embeddings\":1200,\"intermediate_size\":48}",
                NULL, 1100, 2);
}

/* Three sequences at once, each with a source that an encoder has read. */
static void slots_and_sources(void **state) {
    const pair *p = *state;
    enum { SLOTS = 3, STEPS = 4 };
    static float z[2][STEPS][SLOTS * V];
    tl_error e;
    for (int k = 0; k < 2; k++) {
        tl_model *m = make(p->e[k], HEAD("llama") ",\"eos_token_id\":1,\"num_key_value_heads\":2,"
                                                  "\"tilia\":{\"encoder_layers\":2,\"source_context\":26}}");
        decoder d;
        assert_ok(decoder_init(&d, m, SLOTS, 40, TL_F32, TL_F32, &e), &e);
        for (int32_t slot = 0; slot < SLOTS; slot++) {
            int32_t ids[26];
            prompt(ids, 26);
            assert_ok(decoder_encode(&d, slot, 26 - 9 * slot, ids + slot, &e), &e);
        }
        for (int32_t i = 0; i < STEPS; i++) {
            const int32_t ids[SLOTS] = {i, i + 7, 2 * i}, pos[SLOTS] = {i, i, i}, slot[SLOTS] = {0, 1, 2};
            const float *got;
            assert_ok(decoder_run(&d, SLOTS, ids, pos, slot, SLOTS, slot, &got, &e), &e);
            memcpy(z[k][i], got, sizeof z[k][i]);
        }
        decoder_fini(&d);
        model_close(m);
    }
    assert_memory_equal(z[0], z[1], sizeof z[0]);
}

/* A token's way there and its logits' way back. */
static void traffic(void **state) {
    const pair *p = *state;
    tl_model *m = make(p->e[1], configs[0]);
    apart_counts *n = apart_counted(p->e[1]), before;
    struct tl_session *s;
    tl_error e;
    int32_t ids[20];
    float z[4 * V];
    prompt(ids, 20);
    assert_ok(session_create(m, NULL, &s, &e), &e);
    assert_ok(session_ids(s, ids, 20, &e), &e);
    run(s, 2, z); /* the plan of one row is there now */
    before = *n;
    assert_ok(session_ids(s, ids, 1, &e), &e);
    run(s, 3, z);
    assert_int_equal(n->uploads - before.uploads, 4);
    assert_int_equal(n->upload_bytes - before.upload_bytes, 4 * 4 * 64); /* id, position, slot, choice: a line each */
    assert_int_equal(n->downloads - before.downloads, 4);
    assert_int_equal(n->download_bytes - before.download_bytes, 4 * V * sizeof(float));
    assert_int_equal(n->waits - before.waits, 4);
    assert_int_equal(n->copies + n->clears - before.copies - before.clears, 0);
    assert_int_equal(n->blocks, before.blocks);
    session_destroy(s);
    model_close(m);
    assert_int_equal(n->blocks, 0);
}

/* Matrices in blocks in their file go there as they are. */
static void mapped(void **state) {
    const pair *p = *state;
    char dir[256], path[300];
    tl_error e;
    float z[2][3 * V];
    test_tempdir(dir, sizeof dir);
    tl_model *m = make(p->e[0], configs[0]);
    snprintf(path, sizeof path, "%s/m", dir);
    assert_ok(model_save_as(m, path, TL_BF16, &e), &e);
    model_close(m);
    for (int k = 0; k < 2; k++) {
        struct tl_session *s;
        int32_t ids[5];
        prompt(ids, 5);
        assert_ok(model_open_mapped(p->e[k], path, &m, &e), &e);
        assert_null(m->flat);
        assert_ok(session_create(m, NULL, &s, &e), &e);
        assert_ok(session_ids(s, ids, 5, &e), &e);
        run(s, 2, z[k]);
        session_destroy(s);
        model_close(m);
    }
    assert_memory_equal(z[0], z[1], sizeof z[0]);
    test_tempdir_remove(dir);
}

/* Memory runs out at each allocation in turn, and the device breaks: an error, and nothing left behind. */
static void failures(void **state) {
    const pair *p = *state;
    apart_counts *n = apart_counted(p->e[1]);
    tl_error e;
    int32_t ids[5];
    prompt(ids, 5);
    for (long fail = 1, done = 0; !done; fail++) {
        tl_model *m = make(p->e[1], configs[0]);
        struct tl_session *s = NULL;
        const float *z;
        apart_fail_at(p->e[1], fail);
        tl_status st = session_create(m, NULL, &s, &e);
        if (st == TL_OK) st = session_ids(s, ids, 5, &e);
        if (st == TL_OK) st = session_logits(s, &z, &e);
        assert_true(st == TL_OK || st == TL_NOMEM);
        done = st == TL_OK;
        assert_true(fail < 100);
        apart_fail_at(p->e[1], 0);
        apart_break(p->e[1], true);
        if (done) {
            assert_ok(session_ids(s, ids, 1, &e), &e);
            assert_int_equal(session_logits(s, &z, &e), TL_DEVICE);
        }
        apart_break(p->e[1], false);
        session_destroy(s);
        model_close(m);
        assert_int_equal(n->blocks, 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(families),
                                       cmocka_unit_test(caches),
                                       cmocka_unit_test(window),
                                       cmocka_unit_test(long_prompt),
                                       cmocka_unit_test(slots_and_sources),
                                       cmocka_unit_test(traffic),
                                       cmocka_unit_test(mapped),
                                       cmocka_unit_test(failures)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
