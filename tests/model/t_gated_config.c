/* The gated family's configurations: parameters of the presets, what survives writing, what is refused, files of a
 * model, and the state of a sequence by its formula. */
#include "model/gguf.h"
#include "model/model.h"
#include "support/testing.h"

#include "base/file.h"

#include <math.h>
#include <stdlib.h>
#include <unistd.h>

static int64_t count_of(const model_config *c) {
    model_params p;
    tl_error e;
    assert_ok(params_init(&p, &mem_default, c, &e), &e);
    int64_t n = p.count;
    params_fini(&p, &mem_default);
    return n;
}

/* Presets have as many parameters as those they are compared with: 2 %. */
static void presets_match(void **state) {
    (void)state;
    static const char *const types[] = {"gau", "flash-quad", "flash"}, *const sizes[] = {"char", "char-cpu", "gpt2"};
    tl_error e;
    for (int t = 0; t < 3; t++)
        for (int s = 0; s < 3; s++) {
            model_config plain, gated;
            char name[40];
            snprintf(name, sizeof name, "%s-%s", types[t], sizes[s]);
            assert_ok(config_preset(sizes[s], &plain, &e), &e);
            assert_ok(config_preset(name, &gated, &e), &e);
            assert_string_equal(gated.type, types[t]);
            double ratio = (double)count_of(&gated) / (double)count_of(&plain);
            if (ratio < 0.98 || ratio > 1.02) fail_msg("%s has %g of the parameters of %s", name, ratio, sizes[s]);
        }
    model_config c;
    assert_ok(config_preset("gau-alpha-char", &c, &e), &e);
    assert_true(c.score == GATE_SOFTMAX && c.score_kappa && c.rope_interleaved && c.place == PLACE_POST);
    /* embeddings, and matrices and scales of 12 layers: no gain, no offset, no bias */
    assert_int_equal(count_of(&c), 65 * 384 + 12 * (384 * (3 * 720 + 128) + 2 * 128));
    assert_fails(TL_CONFIG, config_preset("flash-nothing", &c, &e), &e);
    assert_non_null(strstr(e.text, "flash-gpt2"));
    size_t n = 0;
    while (config_preset_name(n, NULL)) n++;
    assert_true(n >= 18);
}

static const char flash[] = "{\"model_type\":\"flash\",\"hidden_size\":32,\"num_hidden_layers\":2,\"expansion\":48,"
                            "\"shared_size\":8,\"chunk_size\":16,\"max_position_embeddings\":64,\"vocab_size\":61%s}";

static void parse(const char *own, model_config *c) {
    char text[500], unknown[100];
    tl_error e;
    snprintf(text, sizeof text, flash, own);
    assert_ok(config_parse(text, c, unknown, sizeof unknown, &e), &e);
    assert_string_equal(unknown, "");
}

static void they_survive_writing(void **state) {
    (void)state;
    static const char *const own[] = {
        "",
        ",\"norm_eps\":1e-4,\"resid_pdrop\":0.1",
        ",\"tilia\":{\"score\":\"laplace\",\"score_count\":\"fixed\",\"score_fixed\":77,\"chunk_norm\":\"constant\","
        "\"token_shift\":true,\"rel_bias\":false,\"norm\":\"rmsnorm\",\"norm_place\":\"post\",\"act\":\"gelu\"}",
        ",\"tilia\":{\"score_scale\":\"lucid_flash\",\"rope_interleaved\":true,\"rope_partial\":0.5,\"init\":"
        "\"xavier\"}",
        ",\"tilia\":{\"rel_bias\":\"toeplitz\",\"temperature\":true,\"gate_offset\":false,\"init\":\"he\"}",
        ",\"tilia\":{\"rel_bias\":\"t5\",\"rel_buckets\":8,\"rel_distance\":20,\"act_beta\":1.5,"
        "\"act_beta_learned\":true}",
        ",\"tilia\":{\"mixers\":[\"gau\",\"attention\"],\"score\":\"softmax\",\"sink\":true,\"norm\":\"rmsnorm\","
        "\"norm_gain\":false,\"attn_rel_bias\":\"t5\",\"rel_bias\":\"table\",\"gated\":true,\"act_both\":true}",
        ",\"tilia\":{\"mixers\":[\"deltanet\",\"gated_deltanet\"],\"heads\":2,\"mlp\":40}"};
    for (size_t i = 0; i < sizeof own / sizeof *own; i++) {
        model_config a, b;
        tl_error e;
        parse(own[i], &a);
        json_t *o = config_write(&a);
        assert_ok(config_read(o, &b, NULL, 0, &e), &e);
        assert_memory_equal(&a, &b, sizeof a);
        json_decref(o);
    }
}

static void wrong_ones_are_refused(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {",\"tilia\":{\"score_count\":\"length\"}", "length of the text"},
        {",\"tilia\":{\"score\":\"softmax\"}", "adds up"},
        {",\"tilia\":{\"score\":\"relu3\"}", "softplus2"},
        {",\"tilia\":{\"norm_place\":\"sandwich\"}", "sandwich"},
        {",\"tilia\":{\"window\":9}", "window"},
        {",\"tilia\":{\"mixers\":[\"flash\",\"conv\"]}", "mixed_chunk"},
        {",\"tilia\":{\"mixers\":[\"gau\"],\"chunk_overlap\":true}", "layers of flash"},
        {",\"tilia\":{\"chunk_outer\":24}", "several chunks of 16"},
        {",\"tilia\":{\"chunk_landmarks\":17}", "0..16"},
        {",\"tilia\":{\"chunk_landmarks\":2,\"chunk_outer\":32}", "of one level"},
        {",\"tilia\":{\"chunk_landmarks\":2,\"objective\":\"mlm\",\"mask_token_id\":3}", "causal chunks"},
        {",\"tilia\":{\"chunk_outer\":32,\"chunk_parts\":\"local\"}", "chunk_parts"},
        {",\"tilia\":{\"chunk_overlap\":true,\"objective\":\"mlm\",\"mask_token_id\":1}", "causal chunks"},
        {",\"tilia\":{\"mixers\":[]}", "list of 1 to"},
        {",\"tilia\":{\"gate_heads\":5}", "split between"},
        {",\"tilia\":{\"positions\":\"alibi\"}", "rel_bias"},
        {",\"tilia\":{\"score_kappa\":true}", "softmax"},
        {",\"tilia\":{\"rel_bias\":\"t6\"}", "toeplitz"},
        {",\"tilia\":{\"rel_bias\":3}", "rel_bias"},
        {",\"tilia\":{\"shared_size\":7,\"rel_bias\":\"toeplitz\",\"positions\":\"none\"}", "rotates pairs"},
        {",\"tilia\":{\"rel_bias\":\"t5\",\"rel_distance\":9}", "rel_distance above half"},
        {",\"tilia\":{\"rel_bias\":\"t5\",\"rel_buckets\":9,\"objective\":\"mlm\"}", "equal parts"},
        {",\"tilia\":{\"temperature\":true,\"mixers\":[\"gau\"],\"score\":\"softmax\"}", "adds up"},
        {",\"tilia\":{\"temperature\":true,\"mixers\":[\"deltanet\"]}", "gau, flash or mixed_chunk"},
        {",\"tilia\":{\"temperature\":true,\"chunk_parts\":\"global\",\"rel_bias\":false}", "no scores"},
        {",\"tilia\":{\"sink\":true}", "softmax attention or of gau"},
        {",\"tilia\":{\"sink\":true,\"mixers\":[\"gau\"]}", "score"},
        {",\"tilia\":{\"norm_gain\":false}", "scalenorm"},
        {",\"tilia\":{\"mixers\":[\"longformer\"],\"heads\":2,\"mlp\":32}", "needs a"},
        {",\"tilia\":{\"global_tokens\":2}", "longformer"},
        {",\"tilia\":{\"mixers\":[\"linformer\"],\"heads\":2,\"mlp\":32}", "no causal form"},
        {",\"tilia\":{\"landmarks\":8}", "linformer"},
        {",\"tilia\":{\"mixers\":[\"nystromformer\"],\"heads\":2,\"mlp\":32}", "means of the whole text"},
        {",\"tilia\":{\"mixers\":[\"nystromformer\"],\"heads\":2,\"kv_heads\":1,\"mlp\":32,\"objective\":\"mlm\"}",
         "its own keys"},
        {",\"tilia\":{\"act_beta\":2,\"act\":\"gelu\"}", "slope"},
        {",\"tilia\":{\"act_beta_learned\":true}", "start from"},
        {",\"tilia\":{\"act_beta\":-1}", "0 to 100"},
        {",\"tilia\":{\"act_both\":true}", "gated mlp"},
        {",\"tilia\":{\"mixers\":[\"deltanet\"],\"objective\":\"mlm\",\"mask_token_id\":3}", "sees both sides"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[500];
        model_config c;
        tl_error e;
        snprintf(text, sizeof text, flash, rows[i][0]);
        tl_status s = config_parse(text, &c, NULL, 0, &e);
        if (s != TL_CONFIG || !strstr(e.text, rows[i][1]))
            fail_msg("%s: %s", rows[i][0], s == TL_OK ? "taken" : e.text);
    }
}

/* h(l) = ceil(4 / (1 + l / 2)) is 4 3 2 2 2 2 1: of a width of 40, where three heads are none, 4 2 2 2 2 2 1. */
static void heads_by_depth(void **state) {
    (void)state;
    static const int64_t want[] = {4, 2, 2, 2, 2, 2, 1};
    model_config c;
    tl_error e;
    assert_ok(config_preset("gau-char", &c, &e), &e);
    c.expand = 40, c.gate_heads = 4, c.gate_fall = 0.5;
    for (int l = 0; l < 7; l++) assert_int_equal(config_gate_heads(&c, l), want[l]);
    c.expand = 48;
    assert_int_equal(config_gate_heads(&c, 1), 3);
    c.gate_fall = 0;
    assert_int_equal(config_gate_heads(&c, 6), 4);
}

/* s e + c (2 s + e) numbers a layer, whatever the length; at the paper's sizes 655,360. */
static void state_by_formula(void **state) {
    (void)state;
    model_config c;
    tl_error e;
    assert_ok(config_preset("flash-gpt2", &c, &e), &e);
    assert_int_equal(build_state_fixed(&c, TL_F32), 24 * 655360 * sizeof(float));
    assert_int_equal(build_state_per_token(&c, TL_F32), 0);
    assert_true(build_endless(&c));
    assert_ok(config_preset("gau-gpt2", &c, &e), &e);
    assert_int_equal(build_state_fixed(&c, TL_F32), 0);
    assert_int_equal(build_state_per_token(&c, TL_F32), 24 * (1536 + 128) * sizeof(float));
    assert_false(build_endless(&c));
    assert_ok(config_preset("gpt2", &c, &e), &e);
    assert_int_equal(build_state_per_token(&c, TL_F32), 12 * 2 * 768 * sizeof(float));
    /* where a sequence can go back to */
    parse("", &c);
    assert_int_equal(build_rewind(&c, 33, 40), 33);
    assert_int_equal(build_rewind(&c, 33, 32), 0); /* token 32 has sent the chunk before into M */
    assert_int_equal(build_rewind(&c, 34, 33), 33);
    assert_int_equal(build_rewind(&c, 32, 17), 17); /* a full chunk is not folded before the next one begins */
    c.token_shift = true;
    assert_int_equal(build_rewind(&c, 32, 31), 31);
    assert_int_equal(build_rewind(&c, 32, 30), 0);
}

/* Each rule's deviation on the matrix of a layer, (2e+s, D) = (104, 32); the last matrix of zero-out begins at zero. */
static void initial_weights(void **state) {
    (void)state;
    static const struct {
        const char *name;
        double in, out;
    } rows[] = {{"gpt2", 0.02, 0.01},
                {"fan", 0.8796 / 5.6569, 0.8796 / 6.9282}, /* a normal cut off at two deviations */
                {"xavier", 0.1213, 0.1581},
                {"he", 0.25, 0.2041},
                {"zero-out", 0.8796 / 5.6569, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_config c;
        model_params p;
        tl_error e;
        char own[60];
        snprintf(own, sizeof own, ",\"tilia\":{\"init\":\"%s\"}", rows[i].name);
        parse(own, &c);
        assert_ok(params_init(&p, &mem_default, &c, &e), &e);
        float *flat = calloc((size_t)p.total, sizeof *flat);
        params_initialize(&p, &c, 3, flat);
        for (int k = 0; k < 2; k++) {
            const model_param *m = &p.list[params_find(&p, k ? ROLE_ATTN_OUT : ROLE_GAU_IN, 0, 0)];
            double sum = 0, want = k ? rows[i].out : rows[i].in;
            for (int64_t n = 0; n < m->rows * m->cols; n++)
                sum += (double)flat[m->offset + n] * (double)flat[m->offset + n];
            assert_near(sqrt(sum / (double)(m->rows * m->cols)), want, 0.06 * want);
        }
        free(flat);
        params_fini(&p, &mem_default);
    }
}

static void files_hold_them(void **state) {
    (void)state;
    tl_engine *engine;
    tl_error e;
    char dir[200];
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    for (int k = 0; k < 3; k++) {
        model_config c;
        tl_model *a, *b;
        parse(k == 2
                  ? ",\"tilia\":{\"temperature\":true,\"rel_bias\":\"t5\",\"act_beta\":1.5,\"act_beta_learned\":true}"
              : k ? ",\"tie_word_embeddings\":false,\"tilia\":{\"norm\":\"layernorm\",\"bias_norm\":true}"
                  : "",
              &c);
        assert_ok(model_create(engine, &c, NULL, 9, &a, &e), &e);
        snprintf(dir, sizeof dir, "/tmp/tilia-gated-%ld-%d", (long)getpid(), k);
        assert_ok(model_save(a, dir, &e), &e);
        assert_ok(model_open(engine, dir, &b, &e), &e);
        assert_int_equal(a->params.total, b->params.total);
        assert_memory_equal(a->flat, b->flat, (size_t)a->params.total * sizeof *a->flat);
        model_close(b);
        snprintf(dir + strlen(dir), 8, ".gguf"); /* under an architecture of our own */
        assert_ok(model_write_gguf(a, dir, NULL, &e), &e);
        assert_ok(model_open(engine, dir, &b, &e), &e);
        assert_memory_equal(&a->config, &b->config, sizeof a->config);
        assert_memory_equal(a->flat, b->flat, (size_t)a->params.total * sizeof *a->flat);
        assert_int_equal(remove(dir), 0);
        dir[strlen(dir) - 5] = 0;
        model_close(a);
        model_close(b);
        assert_ok(file_remove_tree(&mem_default, dir, &e), &e);
    }
    tl_engine_destroy(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(presets_match),          cmocka_unit_test(they_survive_writing),
                                       cmocka_unit_test(wrong_ones_are_refused), cmocka_unit_test(state_by_formula),
                                       cmocka_unit_test(heads_by_depth),         cmocka_unit_test(files_hold_them),
                                       cmocka_unit_test(initial_weights)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
