#include "support/testing.h"

#include "eval/eval.h"

#include <math.h>

static const char config[] =
    "{\"model_type\":\"llama\",\"vocab_size\":257,\"hidden_size\":16,\"intermediate_size\":24,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":16}";
static const char text[] = "It was the best of times, it was the worst of times, it was the age of wisdom.";

typedef struct setup {
    tl_engine *engine;
    tl_tokenizer *tokenizer;
    tl_model *model;
} setup;

static tl_status setup_open(setup *s, const tl_allocator *a, int threads, tl_error *e) {
    model_config c;
    tl_engine_options o = {.allocator = a, .threads = threads};
    memset(s, 0, sizeof *s);
    TRY(tl_engine_create(&o, &s->engine, e));
    TRY(tokenizer_from_bytes(tl_engine_allocator(s->engine), &s->tokenizer, e));
    TRY(config_parse(config, &c, NULL, 0, e));
    return model_create(s->engine, &c, s->tokenizer, 5, &s->model, e);
}

static void setup_close(setup *s) {
    model_close(s->model);
    tokenizer_close(s->tokenizer);
    tl_engine_destroy(s->engine);
}

/* A head of zeros gives every id the same chance. */
static void a_model_that_knows_nothing(void **state) {
    (void)state;
    setup s;
    tl_error e = {0};
    eval_result r;
    assert_ok(setup_open(&s, NULL, 1, &e), &e);
    memset(s.model->flat, 0, (size_t)s.model->params.total * sizeof(float));
    assert_ok(eval_text(s.model, &(eval_options){0}, text, strlen(text), &r, &e), &e);
    assert_int_equal(r.tokens, strlen(text) + 1); /* its end is predicted too */
    assert_int_equal(r.bytes, strlen(text));
    assert_near(r.loss, log(257), 1e-6);
    assert_near(eval_perplexity(&r), 257, 1e-3);
    assert_near(eval_bits_per_byte(&r), log(257) / log(2) * (double)r.tokens / (double)r.bytes, 1e-5);
    setup_close(&s);
}

/* However the text is cut into batches, every token counts once; the last, unfinished batch too. */
static void every_token_once(void **state) {
    (void)state;
    setup s;
    tl_error e = {0};
    eval_result one, r;
    assert_ok(setup_open(&s, NULL, 1, &e), &e);
    assert_ok(eval_text(s.model, &(eval_options){.rows = 1}, text, strlen(text), &one, &e), &e);
    for (int64_t rows = 2; rows < 9; rows++) {
        assert_ok(eval_text(s.model, &(eval_options){.rows = rows}, text, strlen(text), &r, &e), &e);
        assert_int_equal(r.tokens, one.tokens);
        assert_near(r.nats, one.nats, 1e-4);
    }
    setup_close(&s);
}

static void threads_change_no_bit(void **state) {
    (void)state;
    eval_result r[4];
    for (int i = 0; i < 4; i++) {
        setup s;
        tl_error e = {0};
        assert_ok(setup_open(&s, NULL, 1 + i, &e), &e);
        assert_ok(eval_text(s.model, &(eval_options){.rows = 3, .dtype = TL_BF16}, text, strlen(text), &r[i], &e), &e);
        assert_memory_equal(&r[i], &r[0], sizeof r[0]);
        setup_close(&s);
    }
}

/* With borders, a document's loss does not depend on what stands before it. */
static void documents_are_told_apart(void **state) {
    (void)state;
    setup s;
    tl_error e = {0};
    eval_result r[2][2];
    static const int32_t ids[2][12] = {{'x', 'y', 256, 'a', 'b', 'c', 256}, {'q', 'q', 256, 'a', 'b', 'c', 256}};
    assert_ok(setup_open(&s, NULL, 1, &e), &e);
    for (int packed = 0; packed < 2; packed++) {
        double nats[2];
        for (int i = 0; i < 2; i++) {
            token_store t;
            evaluator *ev;
            eval_options o = {.rows = 1, .packed = packed};
            token_store_init(&t, &mem_default, 257, 256);
            assert_ok(token_store_add(&t, ids[i], 7, &e), &e);
            assert_ok(evaluator_open(s.model, &o, &ev, &e), &e);
            assert_ok(evaluator_run(ev, &t.view, &r[packed][i], NULL, NULL, &e), &e);
            eval_result first;
            tokens head = tokens_slice(&t.view, 0, 3);
            assert_ok(evaluator_run(ev, &head, &first, NULL, NULL, &e), &e);
            nats[i] = r[packed][i].nats - first.nats; /* of "abc" and its end */
            evaluator_close(ev);
            token_store_fini(&t);
        }
        if (packed)
            assert_near(nats[0], nats[1], 2e-6);
        else
            assert_true(fabs(nats[0] - nats[1]) > 1e-4);
    }
    setup_close(&s);
}

static bool always(void *user) {
    (void)user;
    return true;
}

static void refusals(void **state) {
    (void)state;
    setup s;
    tl_error e = {0};
    eval_result r;
    evaluator *ev;
    token_store t;
    int32_t id = 299;
    assert_ok(setup_open(&s, NULL, 1, &e), &e);
    assert_fails(TL_ARG, evaluator_open(s.model, &(eval_options){.dtype = TL_F16}, &ev, &e), &e);
    assert_ok(evaluator_open(s.model, &(eval_options){0}, &ev, &e), &e);
    token_store_init(&t, &mem_default, 300, 256);
    assert_fails(TL_LIMIT, evaluator_run(ev, &t.view, &r, NULL, NULL, &e), &e);
    assert_ok(token_store_add(&t, &id, 1, &e), &e);
    assert_fails(TL_CONFIG, evaluator_run(ev, &t.view, &r, NULL, NULL, &e), &e);
    assert_fails(TL_CANCELLED, evaluator_run(ev, &t.view, &r, always, NULL, &e), &e);
    token_store_fini(&t);
    evaluator_close(ev);
    s.model->flat[0] = NAN;
    for (int64_t i = 0; i < s.model->params.total; i++) s.model->flat[i] = NAN;
    assert_fails(TL_NUMERIC, eval_text(s.model, &(eval_options){0}, "abc", 3, &r, &e), &e);
    setup_close(&s);
}

static tl_status whole(const tl_allocator *a, void *user) {
    setup s;
    eval_result r;
    (void)user;
    tl_status st = setup_open(&s, a, 1, NULL);
    if (st == TL_OK) st = eval_text(s.model, &(eval_options){.rows = 2}, "abc", 3, &r, NULL);
    setup_close(&s);
    return st;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(whole, NULL) > 15);
}

/* Losses by position are the same losses: a first token in each window, and fewer behind the last window's end. */
static void positions_sum_to_the_whole(void **state) {
    (void)state;
    setup s;
    tl_error e = {0};
    eval_result r;
    double nats[16] = {0}, sum = 0;
    int64_t count[16] = {0}, n = 0;
    assert_ok(setup_open(&s, NULL, 1, &e), &e);
    eval_options o = {.rows = 3, .by_position = nats, .at_position = count};
    assert_ok(eval_text(s.model, &o, text, strlen(text), &r, &e), &e);
    for (int i = 0; i < 16; i++) {
        sum += nats[i];
        n += count[i];
        assert_true(i == 0 || count[i] <= count[i - 1]);
    }
    assert_int_equal(n, r.tokens);
    assert_int_equal(count[0], (r.tokens + 15) / 16);
    assert_near(sum, r.nats, 1e-9 * r.nats);
    setup_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_model_that_knows_nothing), cmocka_unit_test(positions_sum_to_the_whole),
        cmocka_unit_test(every_token_once),           cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(documents_are_told_apart),   cmocka_unit_test(refusals),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
