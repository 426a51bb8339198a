/* Answers that are known from elsewhere: parameters of published models, operations of a two-layer linear model, where
 * decoding becomes bound by computing, and that a plan of a large model is made from names and shapes alone. */
#include "cost/advice.h"
#include "cost/cost.h"
#include "support/testing.h"

#include <math.h>

static tl_engine *engine;
static test_alloc heap;

static int setup(void **state) {
    (void)state;
    test_alloc_init(&heap);
    return tl_engine_create(&(tl_engine_options){.threads = 2, .allocator = &heap.base}, &engine, NULL) != TL_OK;
}

static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    test_alloc_done(&heap);
    return 0;
}

#define LLAMA2_7B                                                                                                      \
    "{\"model_type\":\"llama\",\"hidden_size\":4096,\"num_hidden_layers\":32,\"num_attention_heads\":32,"              \
    "\"intermediate_size\":11008,\"vocab_size\":32000,\"max_position_embeddings\":4096,\"tie_word_embeddings\":false}"
#define LLAMA2_70B                                                                                                     \
    "{\"model_type\":\"llama\",\"hidden_size\":8192,\"num_hidden_layers\":80,\"num_attention_heads\":64,"              \
    "\"num_key_value_heads\":8,\"intermediate_size\":28672,\"vocab_size\":32000,\"max_position_embeddings\":4096,"     \
    "\"tie_word_embeddings\":false}"

static void config_of(const char *text, model_config *c) {
    tl_error e;
    assert_ok(config_parse(text, c, NULL, 0, &e), &e);
}

static void parameters_of_published_models(void **state) {
    (void)state;
    static const struct {
        const char *config;
        int64_t params;
    } rows[] = {{"preset:gpt2", 124439808},     {"preset:gpt2-medium", 354823168}, {"preset:gpt2-large", 774030080},
                {"preset:gpt2-xl", 1557611200}, {LLAMA2_7B, 6738415616},           {LLAMA2_70B, 68976648192}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        tl_error e;
        model_config c;
        model_params p;
        config_of(rows[i].config, &c);
        assert_ok(params_init(&p, &heap.base, &c, &e), &e);
        assert_int_equal(p.count, rows[i].params);
        if (c.tied) assert_int_equal(p.count - p.count_no_embedding, (c.vocab + c.context) * c.width);
        params_fini(&p, &heap.base);
    }
}

/* x (B,D) through W1 (D,D) and W2 (K,D): forward 2BDD + 2BDK; backward twice that less 2BDD, the gradient of the input,
 * which nobody asks for. */
static void two_linear_layers(void **state) {
    (void)state;
    enum { B = 16, D = 32, K = 8 };
    tl_graph *g;
    tl_plan *p;
    tl_error e;
    assert_int_equal(tl_graph_create(engine, &g), TL_OK);
    tl_tensor *x = tl_input(g, "x", TL_F32, 2, (int64_t[]){B, D});
    tl_tensor *h = tl_linear(g, x, tl_param(g, "w1", TL_F32, 2, (int64_t[]){D, D}), NULL, TL_NONE);
    tl_tensor *y = tl_linear(g, h, tl_param(g, "w2", TL_F32, 2, (int64_t[]){K, D}), NULL, TL_NONE);
    tl_tensor *loss = tl_reduce(g, y, 0, false);
    tl_output(g, loss, "loss");
    tl_graph_backward(g, loss, NULL, 0, NULL, false);
    assert_ok(tl_plan_create(g, true, &p, &e), &e);
    double forward = 0, backward = 0;
    for (size_t i = 0; i < tl_plan_steps(p); i++) {
        cost_step s;
        walk_step(p, i, 1, 0, &s);
        *(s.backward ? &backward : &forward) += s.products;
        if (s.products > 0) { /* the other conventions */
            cost_part part = {.forward = s.products, .products = s.products, .dots = s.dots};
            assert_near(cost_flops(&part, 1), s.products / 2, 0);
            assert_near(cost_flops(&part, -1), s.products - s.dots, 0);
        }
    }
    assert_near(forward, 2 * B * D * D + 2 * B * D * K, 0);
    assert_near(backward, 4 * B * D * D + 4 * B * D * K - 2 * B * D * D, 0);
    tl_plan_destroy(p);
    tl_graph_destroy(g);
}

/* A step of Llama 2 7B in 16 bits on 312 TFLOP/s and 2.0 TB/s: two operations for two bytes of weight, so 156 sequences
 * balance both if nothing but weights moves. With 64 positions in the cache more are needed; behind 160 or so no batch
 * will do, because every sequence brings more bytes of its own than computing it takes time. */
static void decoding_on_an_a100(void **state) {
    (void)state;
    model_config c;
    tl_error e;
    cost_crossing x;
    cost_machine m = {.f32 = 19.5e12, .half = 312e12, .int8 = 624e12, .bandwidth = 2e12};
    cost_request q = {.rows = 1, .context = 64, .dtype = TL_BF16, .cache = TL_BF16};
    config_of(LLAMA2_7B, &c);
    assert_ok(cost_crossover(engine, &c, &q, &m, &x, &e), &e);
    assert_near(x.weights_only, 156, 1);
    assert_true(x.with_cache > 200 && x.with_cache < 400);
    assert_true(x.context > 130 && x.context < 170);
    q.context = 4096;
    assert_ok(cost_crossover(engine, &c, &q, &m, &x, &e), &e);
    assert_near(x.weights_only, 156, 1);
    assert_true(isinf(x.with_cache));
    double context = x.context;
    c.kv_heads = 8; /* heads in groups of four: a context four times as long */
    assert_ok(cost_crossover(engine, &c, &q, &m, &x, &e), &e);
    assert_true(x.context > 3 * context && x.context < 5 * context);
    /* one sequence: 13.2 GB of matrices at 2 TB/s */
    cost_report r;
    q = (cost_request){.mode = COST_DECODE, .rows = 1, .context = 1, .dtype = TL_BF16, .cache = TL_BF16};
    config_of(LLAMA2_7B, &c);
    assert_ok(cost_sum(engine, &c, &q, &m, &r, &e), &e);
    assert_near(r.weight_bytes, 2.0 * (6738415616 - 131072000 - 266240), 1);
    assert_near(r.seconds, r.weight_bytes / 2e12, 2e-4);
}

static void every_machine_has_its_figures(void **state) {
    (void)state;
    tl_error e;
    cost_machine m;
    size_t n = 0;
    for (; machine_name(n); n++) {
        assert_ok(machine_find(machine_name(n), &m, &e), &e);
        assert_true(m.f32 > 1e11 && m.half >= m.f32 && m.bandwidth > 1e10 && m.memory > 1e9 && m.watts > 0);
        assert_true(strlen(m.source) > 20 && strlen(m.title) > 4);
    }
    assert_true(n >= 8);
    assert_ok(machine_find("a100", &m, &e), &e);
    assert_near(machine_peak(&m, TL_BF16), 312e12, 1);
    assert_near(machine_peak(&m, TL_F32), 19.5e12, 1);
    assert_fails(TL_ARG, machine_find("b9000", &m, &e), &e);
    assert_non_null(strstr(e.text, "rtx4090"));
}

/* 69 billion parameters: the plan takes a few megabytes and a number of allocations that goes with the operators. */
static void a_large_plan_is_small(void **state) {
    (void)state;
    model_config c;
    tl_error e;
    cost_report r;
    config_of(LLAMA2_70B, &c);
    size_t before = heap.live_bytes;
    long calls = heap.calls;
    heap.peak_bytes = heap.live_bytes;
    assert_ok(cost_of(engine, &c, NULL, NULL, 1, 4096, TL_BF16, true, false, &r, &e), &e);
    assert_true(r.total.activations > (size_t)1 << 33);
    assert_true(heap.peak_bytes - before < (size_t)32 << 20);
    assert_true(heap.calls - calls < 20000);
    assert_int_equal(heap.live_bytes, before);
}

/* What others count for attention; here pairs that are seen: T (T+1) / 2 each head. */
static void conventions_of_attention(void **state) {
    (void)state;
    model_config c;
    tl_error e;
    cost_report r;
    config_of("preset:gpt2", &c);
    assert_ok(cost_of(engine, &c, NULL, NULL, 1, 1024, TL_F32, false, false, &r, &e), &e);
    double pairs = 12.0 * 12 * 1024 * 1025 / 2;
    assert_near(r.attention_full, 4.0 * 12 * 768 * 1024 * 1024, 0); /* nanochat: 12 h q T a layer and token, a third */
    assert_near(r.attention_average, 2.0 * 12 * 768 * 1024 * 1024, 0); /* llm.c: 6 L C T a token, a third */
    assert_true(r.part[COST_ATTENTION].forward > pairs * 4 * 64);
    assert_true(r.part[COST_ATTENTION].forward < pairs * 4 * 64 * 1.04);
}

static void growing_and_lengthening(void **state) {
    (void)state;
    static const char *const models[] = {"preset:gpt2", "preset:stories", "preset:flash-gpt2", LLAMA2_7B};
    for (size_t i = 0; i < sizeof models / sizeof *models; i++) {
        model_config c, big, longer;
        model_params p, q;
        tl_error e;
        const char *how, *source;
        config_of(models[i], &c);
        assert_ok(advice_grow(&c, &big, &e), &e);
        assert_ok(params_init(&p, &heap.base, &c, &e), &e);
        assert_ok(params_init(&q, &heap.base, &big, &e), &e);
        double times = (double)q.count_no_embedding / (double)p.count_no_embedding;
        assert_true(times > 8.5 && times < 11.5);
        params_fini(&p, &heap.base);
        params_fini(&q, &heap.base);
        assert_ok(advice_longer(&c, 4, &longer, &how, &source, &e), &e);
        assert_int_equal(longer.context, 4 * c.context);
        assert_true(strlen(how) > 10 && strlen(source) > 10);
    }
}

static void rules_speak_up(void **state) {
    (void)state;
    model_config c;
    model_params p;
    tl_error e;
    advice a;
    config_of("preset:gpt2", &c);
    c.mlp = 64 * 768; /* far too wide */
    assert_ok(params_init(&p, &heap.base, &c, &e), &e);
    bool said = false;
    size_t n = 0;
    for (; advice_get(&c, &p, 1, n, &a); n++) {
        assert_true(strlen(a.source) > 10);
        if (strcmp(a.name, "mlp ratio") == 0) said = a.outside && a.value == 64;
    }
    assert_true(said && n >= 6);
    params_fini(&p, &heap.base);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parameters_of_published_models),
                                       cmocka_unit_test(two_linear_layers),
                                       cmocka_unit_test(decoding_on_an_a100),
                                       cmocka_unit_test(every_machine_has_its_figures),
                                       cmocka_unit_test(a_large_plan_is_small),
                                       cmocka_unit_test(conventions_of_attention),
                                       cmocka_unit_test(growing_and_lengthening),
                                       cmocka_unit_test(rules_speak_up)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
