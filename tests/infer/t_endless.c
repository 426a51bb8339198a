/* Text without end in a cache of fixed size: the oldest tokens are forgotten, the others count their positions within
 * the cache. With one layer, keys and values are functions of their own token, so what is cached must be what computing
 * the kept tokens anew gives. */
#include "support/testing.h"

#include "infer/session.h"

#include <math.h>
#include <stdlib.h>

static tl_engine *engine;

static int setup(void **state) {
    (void)state;
    return tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, NULL);
}
static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

#define COMMON                                                                                                         \
    "\"vocab_size\":97,\"hidden_size\":32,\"intermediate_size\":48,\"num_attention_heads\":4,"                         \
    "\"num_key_value_heads\":2,\"max_position_embeddings\":64,\"tie_word_embeddings\":false,\"initializer_range\":0."  \
    "4,"
static const char half[] = "{\"model_type\":\"llama\"," COMMON "\"num_hidden_layers\":1}";
static const char two[] = "{\"model_type\":\"llama\"," COMMON "\"num_hidden_layers\":2}";
static const char pairs[] =
    "{\"model_type\":\"llama\"," COMMON "\"num_hidden_layers\":1,\"tilia\":{\"rope_interleaved\":true}}";
static const char partial[] =
    "{\"model_type\":\"phi3\"," COMMON "\"num_hidden_layers\":1,\"partial_rotary_factor\":0.5,\"pad_token_id\":0}";
static const char wide[] = "{\"model_type\":\"llama\"," COMMON "\"head_dim\":32,\"num_hidden_layers\":1}";
static const char alibi[] =
    "{\"model_type\":\"llama\"," COMMON "\"num_hidden_layers\":1,\"tilia\":{\"positions\":\"alibi\"}}";

static tl_model *model_of(const char *config) {
    model_config c;
    tl_model *m;
    tl_error e = {0};
    assert_ok(config_parse(config, &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 5, &m, &e), &e);
    return m;
}

static tl_session *session_of(tl_model *m, tl_dtype cache, int64_t window, int64_t first, bool anew) {
    tl_session *s;
    tl_error e = {0};
    tl_session_options o = {
        .ignore_eos = true, .no_cache = anew, .cache_dtype = cache, .cache_window = window, .cache_first = first};
    assert_ok(session_create(m, &o, &s, &e), &e);
    return s;
}

static void prompt(tl_session *s, size_t n) {
    int32_t ids[512];
    tl_error e = {0};
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)(i * i * 7 + 3) % 97;
    assert_ok(session_ids(s, ids, n, &e), &e);
}

/* Both write; the logits of every step are compared, and the same token goes on. */
static void same_as_anew(const char *config, tl_dtype cache, int64_t window, int64_t first, size_t n, double allowed) {
    tl_model *m = model_of(config);
    tl_session *a = session_of(m, cache, window, first, false), *b = session_of(m, cache, window, first, true);
    double worst = 0, largest = 0;
    tl_error e = {0};
    prompt(a, n), prompt(b, n);
    for (int step = 0; step < 60; step++) {
        const float *x, *y;
        int32_t best = 0;
        assert_ok(session_logits(a, &x, &e), &e);
        assert_ok(session_logits(b, &y, &e), &e);
        assert_int_equal(a->seen.n, b->seen.n);
        assert_true((int64_t)a->seen.n <= window + first); /* constant memory */
        for (int32_t i = 0; i < 97; i++) {
            worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
            largest = fmax(largest, fabs((double)y[i]));
            if (y[i] > y[best]) best = i;
        }
        assert_ok(session_ids(a, &best, 1, &e), &e);
        assert_ok(session_ids(b, &best, 1, &e), &e);
    }
    assert_true(a->dropped > 0);
    assert_int_equal(a->dropped + (int64_t)a->seen.n, (int64_t)n + 60);
    for (int64_t i = 0; i < first; i++) assert_int_equal(a->seen.id[i], (i * i * 7 + 3) % 97); /* the first stay */
    if (!(worst <= allowed * largest)) fail_msg("off by %g of %g, allowed %g", worst, largest, allowed);
    session_destroy(a);
    session_destroy(b);
    model_close(m);
}

static void kept_tokens_computed_anew(void **state) {
    (void)state;
    same_as_anew(half, TL_F32, 16, 4, 5, 2e-5);
    same_as_anew(half, TL_F32, 16, 0, 1, 2e-5);
    same_as_anew(half, TL_F32, 5, 1, 3, 2e-5);
    same_as_anew(half, TL_F32, 4, 2, 100, 2e-5); /* a prompt of many windows */
    same_as_anew(pairs, TL_F32, 16, 4, 30, 2e-5);
    same_as_anew(partial, TL_F32, 16, 4, 30, 2e-5);
    same_as_anew(alibi, TL_F32, 16, 4, 30, 2e-5);
    same_as_anew(half, TL_BF16, 16, 4, 30, 0.05);
    same_as_anew(half, TL_F16, 16, 4, 30, 0.01);
    same_as_anew(wide, TL_Q8_0, 16, 4, 30, 0.05);
}

/* Long after the model's context, in the memory of the beginning, and no two draws with one random number. */
static void a_thousand_tokens(void **state) {
    (void)state;
    tl_model *m = model_of(two);
    tl_session_options o = {.ignore_eos = true, .temperature = 1, .seed = 9, .cache_window = 24, .cache_first = 4};
    tl_session *s;
    tl_error e = {0};
    tl_piece p;
    assert_ok(session_create(m, &o, &s, &e), &e);
    prompt(s, 3);
    size_t bytes = s->dec.cache_bytes;
    int seen[97] = {0}, kinds = 0;
    for (int i = 0; i < 1000; i++) {
        assert_ok(session_next(s, &p, &e), &e);
        assert_false(p.done);
        assert_true(isfinite(p.logprob));
        kinds += seen[p.id]++ == 0;
    }
    assert_int_equal(s->dec.cache_bytes, bytes);
    assert_true(s->seen.n <= 28 && s->seen.cap < 200);
    assert_int_equal(s->dropped + (int64_t)s->seen.n, 1003);
    assert_true(kinds > 5);
    session_reset(s);
    assert_int_equal(s->dropped, 0);
    session_destroy(s);
    model_close(m);
}

/* A cache in blocks: near the one in floats, in less than a third of its bytes. */
static void cache_in_blocks(void **state) {
    (void)state;
    tl_model *m = model_of(wide);
    tl_session *a = session_of(m, TL_F32, 0, 0, false), *b = session_of(m, TL_Q8_0, 0, 0, false);
    double worst = 0, largest = 0;
    tl_error e = {0};
    assert_true(b->dec.cache_bytes * 3 < a->dec.cache_bytes);
    prompt(a, 40), prompt(b, 40);
    for (int step = 0; step < 10; step++) {
        const float *x, *y;
        assert_ok(session_logits(a, &x, &e), &e);
        assert_ok(session_logits(b, &y, &e), &e);
        for (int32_t i = 0; i < 97; i++) {
            worst = fmax(worst, fabs((double)x[i] - (double)y[i]));
            largest = fmax(largest, fabs((double)x[i]));
        }
        prompt(a, 1), prompt(b, 1);
    }
    assert_true(worst > 0);
    if (!(worst < 0.02 * largest)) fail_msg("off by %g of %g", worst, largest);
    session_destroy(a);
    session_destroy(b);
    model_close(m);
}

static void refusals(void **state) {
    (void)state;
    static const char learned[] =
        "{\"model_type\":\"gpt2\",\"vocab_size\":97,\"n_embd\":16,\"n_layer\":1,\"n_head\":2,\"n_positions\":32}";
    tl_model *m = model_of(learned);
    tl_session *s;
    tl_error e = {0};
    decoder d;
    assert_fails(TL_UNSUPPORTED, session_create(m, &(tl_session_options){.cache_window = 8}, &s, &e), &e);
    model_close(m);
    m = model_of(half);
    assert_fails(TL_UNSUPPORTED, session_create(m, &(tl_session_options){.cache_dtype = TL_Q8_0}, &s, &e), &e);
    assert_fails(TL_ARG, session_create(m, &(tl_session_options){.cache_window = 8, .cache_first = -1}, &s, &e), &e);
    assert_ok(decoder_init(&d, m, 1, 8, TL_F32, TL_F32, &e), &e);
    assert_fails(TL_ARG, decoder_shift(&d, 0, 4, 5, 8, &e), &e);
    assert_fails(TL_ARG, decoder_shift(&d, 1, 0, 1, 8, &e), &e);
    assert_fails(TL_ARG, decoder_shift(&d, 0, 0, 1, 9, &e), &e);
    assert_fails(TL_ARG, decoder_shift(&d, 0, 0, 0, 8, &e), &e);
    decoder_fini(&d);
    model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept_tokens_computed_anew), cmocka_unit_test(a_thousand_tokens),
                                       cmocka_unit_test(cache_in_blocks), cmocka_unit_test(refusals)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
