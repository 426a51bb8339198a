/* Decoding: a prefill equals single steps, a batch equals its sequences, the cache equals recomputing, and all of them
 * equal the training graph's probabilities, for every kind of part a model can have. */
#include "infer/session.h"
#include "support/testing.h"

#include <math.h>
#include <stdlib.h>

#define LLAMA(own)                                                                                                     \
    "{\"model_type\":\"llama\",\"hidden_size\":48,\"intermediate_size\":80,\"num_hidden_layers\":2,"                   \
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":61,\"max_position_embeddings\":40,"            \
    "\"initializer_range\":0.3,\"tilia\":{" own "}}"
#define GPT2(own)                                                                                                      \
    "{\"model_type\":\"gpt2\",\"n_embd\":32,\"n_layer\":2,\"n_head\":4,\"n_positions\":40,\"vocab_size\":61,"          \
    "\"initializer_range\":0.3,\"tilia\":{" own "}}"
#define GATED(type, own)                                                                                               \
    "{\"model_type\":\"" type "\",\"hidden_size\":32,\"num_hidden_layers\":2,\"expansion\":40,\"shared_size\":12,"     \
    "\"max_position_embeddings\":40,\"vocab_size\":61,\"initializer_range\":0.3" own "}"

/* every part that a configuration can choose, at least once */
static const char *const configs[] = {
    LLAMA(""),
    GPT2(""),
    LLAMA("\"qk_norm\":true,\"norm_place\":\"sandwich\",\"attn_softcap\":5,\"final_softcap\":7"),
    LLAMA("\"window\":7,\"rope_interleaved\":true,\"rope_partial\":0.5"),
    LLAMA("\"positions\":\"alibi\",\"norm\":\"scalenorm\",\"gated\":false,\"act\":\"relu2\""),
    GPT2("\"parallel\":true,\"positions\":\"sinusoidal\",\"act\":\"sigmoid\",\"gated\":true,\"bias_head\":true"),
    GPT2("\"norm_place\":\"post\",\"positions\":\"none\",\"act\":\"relu\",\"norm\":\"none\""),
    GATED("gau", ""),
    GATED("flash-quad", ",\"tilia\":{\"score\":\"softmax\",\"score_kappa\":true,\"token_shift\":true}"),
    GATED(
        "gau",
        ",\"tilia\":{\"score_scale\":\"lucid_gau\",\"norm\":\"layernorm\",\"norm_place\":\"post\",\"rel_bias\":true}"),
    GATED("flash", ",\"chunk_size\":5"),
    GATED("flash",
          ",\"chunk_size\":7,\"tilia\":{\"token_shift\":true,\"score_scale\":\"paper\",\"chunk_norm\":\"constant\"}"),
    GATED("flash", ",\"chunk_size\":1,\"tilia\":{\"score\":\"softplus2\",\"norm\":\"rmsnorm\",\"bias_qkv\":false}"),
    GATED("flash", ",\"chunk_size\":64,\"tilia\":{\"score_count\":\"fixed\",\"positions\":\"none\"}"),
    GATED("flash", ",\"chunk_size\":6,\"tilia\":{\"mixers\":[\"flash\",\"attention\"],\"heads\":4,\"mlp\":40,"
                   "\"attn_rel_bias\":true,\"scaled_sin\":true,\"token_shift\":true}"),
    GPT2("\"mixers\":[\"attention\",\"gau\"],\"shared_size\":10,\"expansion\":24,\"attn_rel_bias\":true"),
    GPT2("\"mixer\":\"mixed_chunk\",\"chunk_size\":5,\"positions\":\"rope\",\"rel_bias\":true"),
    LLAMA("\"mixers\":[\"mixed_chunk\",\"attention\"],\"kv_heads\":4,\"chunk_size\":7,\"chunk_parts\":\"local\""),
    GPT2("\"mixer\":\"mixed_chunk\",\"chunk_size\":3,\"positions\":\"rope\",\"chunk_parts\":\"global\",\"heads\":1"),
    GPT2("\"mixers\":[\"retention\",\"simple_gla\"],\"positions\":\"rope\""),
    GPT2("\"mixers\":[\"gla\",\"performer\"]"),
    GPT2("\"mixers\":[\"deltanet\",\"gated_deltanet\"],\"positions\":\"rope\""),
    GPT2("\"mixers\":[\"cosformer\",\"attention\"],\"positions\":\"none\""),
    GATED("gau", ",\"tilia\":{\"gate_heads\":4,\"gate_fall\":1}"),
    GATED("gau", ",\"tilia\":{\"norm\":\"rmsnorm\",\"norm_gain\":false,\"norm_place\":\"post\",\"gate_offset\":false,"
                 "\"bias_qkv\":false,\"bias_out\":false,\"score\":\"softmax\",\"score_kappa\":true,\"sink\":true,"
                 "\"rope_interleaved\":true,\"rel_bias\":\"toeplitz\"}"),
    GATED("gau", ",\"tilia\":{\"temperature\":true,\"rel_bias\":\"t5\",\"rel_buckets\":6,\"rel_distance\":17,"
                 "\"act_beta\":1.7,\"score_scale\":\"lucid_gau\"}"),
    GATED("flash", ",\"chunk_size\":6,\"tilia\":{\"temperature\":true,\"rel_bias\":\"toeplitz\",\"gate_offset\":false,"
                   "\"act_beta\":0.6,\"act_beta_learned\":true}"),
    GPT2("\"mixers\":[\"attention\",\"mixed_chunk\"],\"chunk_size\":5,\"positions\":\"rope\",\"rel_bias\":\"t5\","
         "\"temperature\":true,\"gate_offset\":false,\"attn_rel_bias\":\"toeplitz\",\"sink\":true"),
    LLAMA("\"mixers\":[\"longformer\",\"attention\"],\"window\":5,\"global_tokens\":3,\"full_layers\":[1]"),
    GPT2("\"mixer\":\"longformer\",\"window\":4,\"global_tokens\":1,\"attn_rel_bias\":\"table\",\"sink\":true"),
    LLAMA("\"sink\":true,\"attn_rel_bias\":\"t5\",\"act_both\":true,\"act_beta\":2,\"norm_gain\":false"),
    GATED("flash", ",\"chunk_size\":6,\"tilia\":{\"gate_heads\":2,\"token_shift\":true}"),
    GATED("flash", ",\"chunk_size\":6,\"tilia\":{\"chunk_parts\":\"local\"}"),
    GATED("flash", ",\"chunk_size\":6,\"tilia\":{\"chunk_overlap\":true}"),
    GATED("flash", ",\"chunk_size\":3,\"tilia\":{\"chunk_landmarks\":2,\"gate_heads\":2,\"temperature\":true}"),
    GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"chunk_landmarks\":1,\"chunk_overlap\":true}"),
    GPT2("\"mixer\":\"mixed_chunk\",\"chunk_size\":4,\"positions\":\"rope\",\"chunk_landmarks\":3"),
    GATED("flash", ",\"chunk_size\":3,\"tilia\":{\"chunk_outer\":9,\"gate_heads\":2,\"rel_bias\":false}"),
    GPT2("\"mixer\":\"mixed_chunk\",\"chunk_size\":4,\"positions\":\"rope\",\"chunk_overlap\":true,\"chunk_outer\":8"),
    GPT2("\"norm_place\":\"post\",\"kv_heads\":1,\"norm_offset\":1,\"norm\":\"rmsnorm\",\"embed_scale\":5.65"),
    LLAMA("\"no_residual\":true"),
};
enum { CONFIGS = sizeof configs / sizeof *configs, N = 33, V = 61 };

static tl_engine *engine;

static int setup(void **state) {
    (void)state;
    return tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, NULL) != TL_OK;
}

static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

static tl_model *model_of(const char *config) {
    model_config c;
    tl_model *m;
    tl_error e;
    assert_ok(config_parse(config, &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 5, &m, &e), &e);
    return m;
}

static void ids_of(int32_t *ids, int n, int seed) {
    for (int i = 0; i < n; i++) ids[i] = (i * i * 7 + i * 13 + seed * 29) % V;
}

/* logits (N,V) of ids by single steps in one slot of a decoder */
static void single_steps(tl_model *m, const int32_t *ids, int n, float *out) {
    decoder d;
    tl_error e;
    assert_ok(decoder_init(&d, m, 1, 40, TL_F32, TL_F32, &e), &e);
    for (int32_t i = 0; i < n; i++) {
        const float *z;
        assert_ok(decoder_run(&d, 1, &ids[i], &i, &(int32_t){0}, 1, &(int32_t){0}, &z, &e), &e);
        memcpy(out + i * V, z, V * sizeof *z);
    }
    decoder_fini(&d);
}

static double largest(const float *a, int n) {
    double m = 0;
    for (int i = 0; i < n; i++) m = fmax(m, fabs((double)a[i]));
    return m;
}

static void assert_close(const float *a, const float *b, int n, double share) {
    double scale = largest(b, n);
    for (int i = 0; i < n; i++) assert_near(a[i], b[i], share * scale);
}

static void a_prefill_equals_single_steps(void **state) {
    (void)state;
    for (int k = 0; k < CONFIGS; k++) {
        tl_model *m = model_of(configs[k]);
        int32_t ids[N], pos[N], slot[N] = {0};
        float want[N * V];
        ids_of(ids, N, k);
        single_steps(m, ids, N, want);
        for (int32_t i = 0; i < N; i++) pos[i] = i;
        static const int lengths[] = {1, 2, 5, 16, 17, N};
        for (size_t l = 0; l < sizeof lengths / sizeof *lengths; l++) {
            decoder d;
            tl_error e;
            const float *z;
            int32_t last = lengths[l] - 1;
            assert_ok(decoder_init(&d, m, 1, 40, TL_F32, TL_F32, &e), &e);
            assert_ok(decoder_run(&d, lengths[l], ids, pos, slot, 1, &last, &z, &e), &e);
            assert_close(z, want + last * V, V, 2e-5);
            decoder_fini(&d);
        }
        model_close(m);
    }
}

static void a_batch_equals_its_sequences(void **state) {
    (void)state;
    for (int k = 0; k < CONFIGS; k++) {
        tl_model *m = model_of(configs[k]);
        float want[3][N * V];
        int32_t ids[3][N];
        for (int s = 0; s < 3; s++) {
            ids_of(ids[s], N, 10 * k + s);
            single_steps(m, ids[s], N, want[s]);
        }
        decoder d;
        tl_error e;
        const float *z;
        assert_ok(decoder_init(&d, m, 3, 40, TL_F32, TL_F32, &e), &e);
        /* sequence s begins s * 4 steps late: every step mixes different positions */
        for (int32_t t = 0; t < N + 8; t++) {
            int32_t id[3], pos[3], slot[3], select[3], n = 0;
            for (int32_t s = 0; s < 3; s++) {
                if (t < 4 * s || t - 4 * s >= N) continue;
                id[n] = ids[s][t - 4 * s];
                pos[n] = t - 4 * s;
                slot[n] = s;
                select[n] = n;
                n++;
            }
            assert_ok(decoder_run(&d, n, id, pos, slot, n, select, &z, &e), &e);
            for (int i = 0; i < n; i++) assert_close(z + i * V, want[slot[i]] + pos[i] * V, V, 2e-5);
        }
        decoder_fini(&d);
        model_close(m);
    }
}

/* loss per token of the training graph against log-softmax of the decoder's logits */
static void decoding_equals_the_training_graph(void **state) {
    (void)state;
    for (int k = 0; k < CONFIGS; k++) {
        tl_model *m = model_of(configs[k]);
        int32_t ids[N + 1], pos[N];
        float want[N * V], denom = N;
        ids_of(ids, N + 1, k);
        single_steps(m, ids, N, want);
        for (int32_t i = 0; i < N; i++) pos[i] = i;
        tl_graph *g;
        tl_plan *p;
        tl_error e;
        build_result r;
        build_options o = {.mode = BUILD_EVAL, .rows = 1, .context = N, .dtype = TL_F32};
        assert_ok(tl_graph_create(engine, &g), NULL);
        assert_ok(build_model(g, m->alloc, &m->config, &m->params, &o, &r, &e), &e);
        assert_ok(tl_plan_create(g, false, &p, &e), &e);
        double freq[64], mscale;
        float slopes[8], *sinusoid = malloc((size_t)(m->config.context * m->config.width) * sizeof(float));
        build_rope_freq(&m->config, N, freq, &mscale);
        (void)build_head_constants(&m->config, slopes);
        build_sinusoid(m->config.context, m->config.width, sinusoid);
        for (size_t i = 0; i < m->params.n; i++)
            assert_ok(tl_plan_bind(p, r.params[i], m->flat + m->params.list[i].offset), NULL);
        assert_ok(tl_plan_bind(p, r.ids, ids), NULL);
        assert_ok(tl_plan_bind(p, r.targets, ids + 1), NULL);
        assert_ok(tl_plan_bind(p, r.pos, pos), NULL);
        assert_ok(tl_plan_bind(p, r.denom, &denom), NULL);
        if (r.freq) assert_ok(tl_plan_bind(p, r.freq, freq), NULL);
        if (r.slopes) assert_ok(tl_plan_bind(p, r.slopes, slopes), NULL);
        if (r.sinusoid) assert_ok(tl_plan_bind(p, r.sinusoid, sinusoid), NULL);
        assert_ok(tl_plan_run(p), NULL);
        const float *losses = tl_plan_data(p, r.losses), *loss = tl_plan_data(p, r.loss);
        double mean = 0;
        for (int i = 0; i < N; i++) {
            double max = -INFINITY, sum = 0;
            for (int v = 0; v < V; v++) max = fmax(max, (double)want[i * V + v]);
            for (int v = 0; v < V; v++) sum += exp((double)want[i * V + v] - max);
            double l = max + log(sum) - (double)want[i * V + ids[i + 1]];
            mean += l / N;
            assert_near(losses[i], l, 1e-4 * fmax(1, l));
        }
        assert_near(loss[0], mean, 2e-5 * mean);
        free(sinusoid);
        tl_plan_destroy(p);
        build_fini(&r, m->alloc);
        tl_graph_destroy(g);
        model_close(m);
    }
}

static void bad_tokens_are_refused(void **state) {
    (void)state;
    tl_model *m = model_of(configs[0]);
    decoder d;
    tl_error e;
    const float *z;
    int32_t zero = 0;
    assert_ok(decoder_init(&d, m, 1, 40, TL_F32, TL_F32, &e), &e);
    assert_fails(TL_ARG, decoder_run(&d, 1, &(int32_t){V}, &zero, &zero, 1, &zero, &z, &e), &e);
    assert_fails(TL_ARG, decoder_run(&d, 1, &(int32_t){-1}, &zero, &zero, 1, &zero, &z, &e), &e);
    assert_fails(TL_ARG, decoder_run(&d, 1, &zero, &(int32_t){40}, &zero, 1, &zero, &z, &e), &e);
    assert_fails(TL_ARG, decoder_run(&d, 1, &zero, &zero, &(int32_t){1}, 1, &zero, &z, &e), &e);
    decoder_fini(&d);
    assert_fails(TL_ARG, decoder_init(&d, m, 0, 40, TL_F32, TL_F32, &e), &e);
    model_close(m);
    m = model_of(configs[1]);
    assert_fails(TL_ARG, decoder_init(&d, m, 1, 41, TL_F32, TL_F32, &e), &e); /* learned positions end */
    model_close(m);
}

static tl_status decode_all(const tl_allocator *a, void *user) {
    tl_engine *eng;
    tl_model *m = NULL;
    decoder d;
    tl_error e;
    model_config c;
    TRY(tl_engine_create(&(tl_engine_options){.threads = 1, .allocator = a, .isa = user}, &eng, &e));
    tl_status s = config_parse(configs[0], &c, NULL, 0, &e);
    if (s == TL_OK) s = model_create(eng, &c, NULL, 1, &m, &e);
    if (s == TL_OK) s = decoder_init(&d, m, 1, 8, TL_F32, TL_F32, &e);
    if (s == TL_OK) {
        const float *z;
        int32_t zero = 0;
        s = decoder_run(&d, 1, &zero, &zero, &zero, 1, &zero, &z, &e);
        decoder_fini(&d);
    }
    model_close(m);
    tl_engine_destroy(eng);
    return s;
}

static void allocations_may_fail(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(decode_all, NULL) > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_prefill_equals_single_steps),
        cmocka_unit_test(a_batch_equals_its_sequences),
        cmocka_unit_test(decoding_equals_the_training_graph),
        cmocka_unit_test(bad_tokens_are_refused),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
