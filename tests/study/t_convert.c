/* Fewer key-value heads: averages of groups, exact where a group's heads are equal. */
#include "support/testing.h"

#include "infer/decoder.h"
#include "model/model.h"
#include "study/convert.h"

enum { V = 64, N = 20, KV = 4, HEADS = 8, DH = 8, D = 32 };

static tl_model *make(tl_engine *engine, const char *more) {
    char text[512];
    model_config c;
    tl_model *m;
    tl_error e;
    snprintf(text, sizeof text,
             "{\"model_type\":\"qwen2\",\"vocab_size\":%d,\"hidden_size\":%d,\"num_hidden_layers\":2,"
             "\"num_attention_heads\":%d,\"num_key_value_heads\":%d,\"head_dim\":%d,\"intermediate_size\":48,"
             "\"max_position_embeddings\":%d%s}",
             V, D, HEADS, KV, DH, N, more);
    assert_ok(config_parse(text, &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 3, &m, &e), &e);
    return m;
}

/* Rows of head h of keys (part 0) or values (part 1); biases have rows of one number. */
static float *head_of(const tl_model *m, const model_param *p, int part, int64_t h) {
    const int64_t row = p->rows ? p->cols : 1, kv = m->config.kv_heads;
    return m->flat + p->offset + (HEADS + part * kv + h) * DH * row;
}
static size_t head_size(const model_param *p) {
    return (size_t)(DH * (p->rows ? p->cols : 1));
}
static bool has_heads(const model_param *p) {
    return p->role == ROLE_QKV || p->role == ROLE_QKV_BIAS;
}

static void logits(tl_model *m, float *z) {
    decoder d;
    tl_error e;
    assert_ok(decoder_init(&d, m, 1, N, TL_F32, TL_F32, &e), &e);
    for (int32_t i = 0; i < N; i++) {
        const float *row;
        assert_ok(decoder_run(&d, 1, &(int32_t){i * 7 % V}, &i, &(int32_t){0}, 1, &(int32_t){0}, &row, &e), &e);
        memcpy(z + i * V, row, V * sizeof *z);
    }
    decoder_fini(&d);
}

static void equal_heads_lose_nothing(void **state) {
    (void)state;
    static float before[N * V], after[N * V];
    tl_engine *engine;
    tl_error e;
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    tl_model *m = make(engine, "");
    for (size_t i = 0; i < m->params.n; i++) {
        const model_param *p = &m->params.list[i];
        for (int part = 0; has_heads(p) && part < 2; part++)
            for (int64_t h = 1; h < KV; h += 2)
                memcpy(head_of(m, p, part, h), head_of(m, p, part, h - 1), head_size(p) * sizeof(float));
    }
    logits(m, before);
    const int64_t params = m->params.count;
    assert_ok(convert_kv_heads(m, KV / 2, &e), &e);
    assert_int_equal(m->config.kv_heads, KV / 2);
    assert_true(m->params.count < params);
    logits(m, after);
    for (int i = 0; i < N * V; i++) assert_near(before[i], after[i], 1e-5);
    model_close(m);
    tl_engine_destroy(engine);
}

static void groups_become_averages(void **state) {
    (void)state;
    tl_engine *engine;
    tl_error e;
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    tl_model *m = make(engine, ""), *was = make(engine, "");
    for (size_t i = 0; i < m->params.n; i++) /* biases begin at zero */
        for (int64_t k = 0; k < m->params.list[i].cols && m->params.list[i].role == ROLE_QKV_BIAS; k++)
            m->flat[m->params.list[i].offset + k] = was->flat[was->params.list[i].offset + k] = 0.01f * (float)k;
    assert_ok(convert_kv_heads(m, 1, &e), &e);
    int compared = 0;
    for (size_t i = 0; i < m->params.n; i++) {
        const model_param *a = &was->params.list[i], *b = &m->params.list[i];
        assert_string_equal(a->name, b->name);
        if (!has_heads(a)) {
            const size_t n = (size_t)(a->rows ? a->rows * a->cols : a->cols);
            assert_memory_equal(was->flat + a->offset, m->flat + b->offset, n * sizeof(float));
            continue;
        }
        compared++;
        assert_memory_equal(was->flat + a->offset, m->flat + b->offset, HEADS * head_size(a) * sizeof(float));
        for (int part = 0; part < 2; part++)
            for (size_t k = 0; k < head_size(a); k++) {
                double sum = 0;
                for (int64_t h = 0; h < KV; h++) sum += (double)head_of(was, a, part, h)[k];
                assert_near(head_of(m, b, part, 0)[k], sum / KV, 1e-7);
            }
    }
    assert_int_equal(compared, 4);
    model_close(m);
    model_close(was);
    tl_engine_destroy(engine);
}

static void what_does_not_divide_is_refused(void **state) {
    (void)state;
    tl_engine *engine;
    tl_error e;
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    tl_model *m = make(engine, "");
    static const int64_t wrong[] = {3, 0, -1, 8};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(convert_kv_heads(m, wrong[i], &e), TL_ARG);
        assert_non_null(strstr(e.text, "evenly"));
        assert_int_equal(m->config.kv_heads, KV);
    }
    model_close(m);
    tl_engine_destroy(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(equal_heads_lose_nothing),
                                       cmocka_unit_test(groups_become_averages),
                                       cmocka_unit_test(what_does_not_divide_is_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
