/* Configurations in and out, presets, parameter counts and names. */
#include "format/safetensors.h"
#include "model/model.h"
#include "support/testing.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static int64_t count_of(const model_config *c) {
    model_params p;
    tl_error e;
    assert_ok(params_init(&p, &mem_default, c, &e), &e);
    int64_t n = p.count;
    params_fini(&p, &mem_default);
    return n;
}

/* Published counts: GPT-2's four sizes, Llama-2 7B, nanoGPT's character models. */
static void parameter_counts_are_the_published_ones(void **state) {
    (void)state;
    static const struct {
        const char *preset;
        int64_t params;
    } rows[] = {{"gpt2", 124439808}, {"gpt2-medium", 354823168}, {"gpt2-large", 774030080}, {"gpt2-xl", 1557611200}};
    tl_error e;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_config c;
        assert_ok(config_preset(rows[i].preset, &c, &e), &e);
        assert_int_equal(count_of(&c), rows[i].params);
    }
    static const char llama7b[] = "{\"model_type\":\"llama\",\"hidden_size\":4096,\"intermediate_size\":11008,"
                                  "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"vocab_size\":32000,"
                                  "\"max_position_embeddings\":4096,\"tie_word_embeddings\":false}";
    model_config c;
    char unknown[200];
    assert_ok(config_parse(llama7b, &c, unknown, sizeof unknown, &e), &e);
    assert_string_equal(unknown, "");
    assert_int_equal(count_of(&c), 6738415616);
}

static void configurations_survive_writing(void **state) {
    (void)state;
    const char *const texts[] = {
        "preset:gpt2",
        "preset:char",
        "preset:tiny",
        "preset:stories",
        "depth:5",
        "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
        "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"vocab_size\":100,\"max_position_embeddings\":32,"
        "\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":16},"
        "\"bos_token_id\":1,\"eos_token_id\":[2,3],"
        "\"tilia\":{\"norm\":\"scalenorm\",\"norm_place\":\"sandwich\",\"qk_norm\":true,\"act\":\"sigmoid\",\"window\":"
        "8,"
        "\"attn_softcap\":50,\"final_softcap\":30.5,\"positions\":\"alibi\",\"init\":\"xavier\",\"drop_resid\":0.25}}",
        "{\"model_type\":\"gpt2\",\"n_embd\":32,\"n_layer\":1,\"n_head\":4,\"n_positions\":16,\"vocab_size\":9,"
        "\"n_inner\":null,\"tilia\":{\"parallel\":true,\"positions\":\"sinusoidal\",\"kv_heads\":1,\"head_dim\":16,"
        "\"gated\":true,\"act\":\"relu2\",\"bias_head\":true}}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        model_config a, b;
        tl_error e;
        assert_ok(config_parse(texts[i], &a, NULL, 0, &e), &e);
        json_t *o = config_write(&a);
        assert_non_null(o);
        char *text = json_dumps(o, 0), unknown[200];
        assert_ok(config_parse(text, &b, unknown, sizeof unknown, &e), &e);
        assert_string_equal(unknown, "");
        assert_int_equal(count_of(&a), count_of(&b));
        assert_memory_equal(&a, &b, sizeof a);
        free(text);
        json_decref(o);
    }
}

static void mistakes_name_the_key(void **state) {
    (void)state;
#define LLAMA(more)                                                                                                    \
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"                   \
    "\"num_attention_heads\":4,\"vocab_size\":100,\"max_position_embeddings\":32" more "}"
    static const struct {
        const char *text;
        tl_status code;
        const char *says;
    } rows[] = {
        {"[]", TL_CONFIG, "not an object"},
        {"{}", TL_CONFIG, "model_type"},
        {"{\"model_type\":7}", TL_CONFIG, "model_type"},
        {"{\"model_type\":\"mamba\"}", TL_UNSUPPORTED, "gpt2, llama"},
        {"{\"model_type\":\"llama\"}", TL_CONFIG, "vocab_size"},
        {"{\"model_type\":\"llama\",\"hidden_size\":\"64\"}", TL_CONFIG, "hidden_size"},
        {"{\"model_type\":\"llama\",\"hidden_size\":-4}", TL_CONFIG, "hidden_size"},
        {"{\"model_type\":\"llama\",\"hidden_size\":4.5}", TL_CONFIG, "hidden_size"},
        {"{\"model_type\":\"llama\",\"hidden_size\":9e18}", TL_CONFIG, "hidden_size"},
        {LLAMA(",\"num_key_value_heads\":3"), TL_CONFIG, "evenly"},
        {LLAMA(",\"hidden_act\":\"mish\""), TL_CONFIG, "hidden_act"},
        {LLAMA(",\"tie_word_embeddings\":1"), TL_CONFIG, "tie_word_embeddings"},
        {LLAMA(",\"rope_theta\":0"), TL_CONFIG, "rope_theta"},
        {LLAMA(",\"rope_scaling\":[]"), TL_CONFIG, "rope_scaling"},
        {LLAMA(",\"rope_scaling\":{\"type\":\"magic\"}"), TL_CONFIG, "magic"},
        {LLAMA(",\"head_dim\":7"), TL_CONFIG, "RoPE"},
        {LLAMA(",\"eos_token_id\":100"), TL_CONFIG, "vocabulary"},
        {LLAMA(",\"tilia\":{\"norm\":\"batch\"}"), TL_CONFIG, "layernorm, rmsnorm"},
        {LLAMA(",\"tilia\":{\"parallel\":true,\"norm_place\":\"post\"}"), TL_CONFIG, "parallel"},
        {LLAMA(",\"tilia\":{\"parallel\":true,\"no_residual\":true}"), TL_CONFIG, "no_residual"},
        {LLAMA(",\"tilia\":{\"drop_resid\":1.5}"), TL_CONFIG, "drop_resid"},
        {LLAMA(",\"tilia\":3"), TL_CONFIG, "tilia"},
        {LLAMA(",\"rms_norm_eps\":\"small\""), TL_CONFIG, "rms_norm_eps"},
        {"preset:huge", TL_CONFIG, "char-cpu"},
        {"depth:x", TL_CONFIG, "depth:N"},
        {"depth:0", TL_CONFIG, "1 to 256"},
        {"{\"model_type\":", TL_FORMAT, ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_config c;
        tl_error e = {0};
        tl_status s = config_parse(rows[i].text, &c, NULL, 0, &e);
        if (s != rows[i].code || !strstr(e.text, rows[i].says)) print_error("row %zu: %d %s\n", i, s, e.text);
        assert_int_equal(s, rows[i].code);
        assert_non_null(strstr(e.text, rows[i].says));
    }
    char unknown[200];
    model_config c;
    tl_error e;
    assert_ok(config_parse(LLAMA(",\"colour\":1,\"shape\":2"), &c, unknown, sizeof unknown, &e), &e);
    assert_string_equal(unknown, "colour, shape");
}

static void names_are_hugging_faces(void **state) {
    (void)state;
    model_config c;
    model_params p;
    param_piece q[PARAM_PIECES];
    tl_error e;
    assert_ok(config_preset("gpt2", &c, &e), &e);
    assert_ok(params_init(&p, &mem_default, &c, &e), &e);
    assert_int_equal(params_pieces(&c, &p.list[params_find(&p, ROLE_QKV, 3, 0)], FORMAT_HF, q), 1);
    assert_string_equal(q[0].name, "transformer.h.3.attn.c_attn.weight");
    assert_true(q[0].transposed);
    params_pieces(&c, &p.list[params_find(&p, ROLE_NORM_BIAS, 11, 1)], FORMAT_HF, q);
    assert_string_equal(q[0].name, "transformer.h.11.ln_2.bias");
    params_pieces(&c, &p.list[params_find(&p, ROLE_EMBED, -1, 0)], FORMAT_HF, q);
    assert_string_equal(q[0].name, "transformer.wte.weight");
    assert_false(q[0].transposed);
    assert_int_equal(params_find(&p, ROLE_HEAD, -1, 0), -1);
    params_fini(&p, &mem_default);

    assert_ok(config_preset("tiny", &c, &e), &e);
    assert_ok(params_init(&p, &mem_default, &c, &e), &e);
    const model_param *qkv = &p.list[params_find(&p, ROLE_QKV, 1, 0)];
    assert_int_equal(params_pieces(&c, qkv, FORMAT_HF, q), 3);
    assert_string_equal(q[1].name, "model.layers.1.self_attn.k_proj.weight");
    assert_int_equal(q[0].rows + q[1].rows + q[2].rows, qkv->rows);
    assert_int_equal(q[2].row, q[0].rows + q[1].rows);
    assert_int_equal(params_pieces(&c, &p.list[params_find(&p, ROLE_UP, 0, 0)], FORMAT_HF, q), 2);
    assert_string_equal(q[0].name, "model.layers.0.mlp.gate_proj.weight");
    assert_int_equal(q[1].row, c.mlp);
    params_pieces(&c, &p.list[params_find(&p, ROLE_NORM_GAIN, -1, 0)], FORMAT_HF, q);
    assert_string_equal(q[0].name, "model.norm.weight");
    /* matrices first: one range for decay and bf16 copies, no overlap anywhere */
    for (size_t i = 0; i < p.n; i++) {
        assert_int_equal(p.list[i].offset % 16, 0);
        assert_true(p.list[i].decay == (p.list[i].offset < p.decayed));
    }
    params_fini(&p, &mem_default);
}

static double deviation(const float *w, int64_t n) {
    double s = 0, q = 0;
    for (int64_t i = 0; i < n; i++) s += (double)w[i], q += (double)w[i] * (double)w[i];
    return sqrt(q / (double)n - s / (double)n * s / (double)n);
}

static void initial_weights_follow_their_rule(void **state) {
    (void)state;
    static const struct {
        const char *init;
        double up, out;                          /* deviation of the up and of the attention output projection */
    } rows[] = {{"gpt2", 0.02, 0.02 / 2},        /* 1/sqrt(2L), L = 2 */
                {"fan", 0.8796 / 8, 0.8796 / 8}, /* truncated at 2: 0.8796 of 1/sqrt(64) */
                {"xavier", 0, 0.125},            /* sqrt(2/(64+64)) */
                {"zero-out", 0.8796 / 8, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char text[200];
        model_config c;
        model_params p;
        tl_error e;
        assert_ok(config_parse("preset:tiny", &c, NULL, 0, &e), &e);
        c.init = (model_init)i;
        (void)text;
        assert_ok(params_init(&p, &mem_default, &c, &e), &e);
        float *w = malloc((size_t)p.total * sizeof *w), *v = malloc((size_t)p.total * sizeof *v);
        params_initialize(&p, &c, 7, w);
        params_initialize(&p, &c, 7, v);
        assert_memory_equal(w, v, (size_t)p.total * sizeof *w);
        const model_param *up = &p.list[params_find(&p, ROLE_UP, 0, 0)],
                          *out = &p.list[params_find(&p, ROLE_ATTN_OUT, 1, 0)];
        double want = i == 2 ? sqrt(2.0 / (double)(up->rows + up->cols)) : rows[i].up;
        assert_near(deviation(w + up->offset, up->rows * up->cols), want, 0.03 * want);
        assert_near(deviation(w + out->offset, out->rows * out->cols), rows[i].out, 0.04 * rows[i].out + 1e-12);
        const model_param *gain = &p.list[params_find(&p, ROLE_NORM_GAIN, 0, 0)];
        for (int64_t k = 0; k < gain->cols; k++) assert_true(w[gain->offset + k] == 1);
        params_initialize(&p, &c, 8, v);
        assert_memory_not_equal(w, v, (size_t)p.total * sizeof *w);
        free(w);
        free(v);
        params_fini(&p, &mem_default);
    }
}

/* Golden numbers of transformers' rotary embeddings. */
static void rope_frequencies_are_the_published_ones(void **state) {
    (void)state;
    model_config c;
    tl_error e;
    double f[64], m;
    assert_ok(config_recipe("llama", &c, &e), &e);
    c.head_dim = 128;
    c.heads = 1;
    c.rope_theta = 5e5;
    c.scaling = SCALING_LLAMA3;
    c.scaling_factor = 8;
    c.scaling_context = 8192;
    build_rope_freq(&c, 0, f, &m);
    static const struct {
        int k;
        double want;
    } llama3[] = {{0, 1},
                  {9, 1.579728099e-01},
                  {27, 3.942276030e-03},
                  {36, 7.784655274e-05},
                  {45, 1.229763868e-05},
                  {63, 3.068925989e-07}},
      yarn[] = {{18, 7.498942093e-02},
                {27, 1.638870935e-02},
                {36, 3.027991751e-03},
                {45, 4.294025890e-04},
                {63, 2.886954962e-05}};
    for (size_t i = 0; i < 6; i++) assert_near(f[llama3[i].k], llama3[i].want, 2e-7 * llama3[i].want);
    c.rope_theta = 1e4;
    c.scaling = SCALING_YARN;
    c.scaling_factor = 4;
    c.scaling_context = 4096;
    build_rope_freq(&c, 0, f, &m);
    assert_near(m, 1.138629436, 1e-9);
    for (size_t i = 0; i < 5; i++) assert_near(f[yarn[i].k], yarn[i].want, 2e-7 * yarn[i].want);
    c.scaling = SCALING_NTK;
    build_rope_freq(&c, 0, f, &m);
    assert_near(pow(f[1], -64.0), 40889.942432, 1e-4);
    c.scaling = SCALING_DYNAMIC;
    c.scaling_factor = 2;
    build_rope_freq(&c, 8192, f, &m);
    assert_near(pow(f[1], -64.0), 30527.736749, 1e-4);
    build_rope_freq(&c, 4096, f, &m);
    assert_near(pow(f[1], -64.0), 10000, 1e-6);
}

static void positions_are_stretched_by_hand(void **state) {
    (void)state;
    model_config c;
    tl_error e;
    static const char *const wrong[] = {"", "linear", "linear:", "linear:0.5", "yarn:x", "cubic:2", "yarn:1e9"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_ok(config_preset("tiny", &c, &e), &e);
        assert_fails(TL_ARG, config_scale(&c, wrong[i], &e), &e);
    }
    assert_ok(config_scale(&c, "yarn:4", &e), &e);
    assert_int_equal(c.context, 512);
    assert_int_equal(c.scaling_context, 128);
    assert_int_equal(c.scaling, SCALING_YARN);
    assert_fails(TL_CONFIG, config_scale(&c, "yarn:4", &e), &e); /* once */
    assert_ok(config_preset("char", &c, &e), &e);
    assert_fails(TL_CONFIG, config_scale(&c, "linear:2", &e), &e); /* learned positions */
}

/* tools/vectors/rope.py: every scaling of transformers, from a file's keys and by hand. */
static void scalings_are_those_of_transformers(void **state) {
    (void)state;
#define SCALED(more)                                                                                                   \
    "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":1,"                   \
    "\"num_attention_heads\":4,\"vocab_size\":100,\"max_position_embeddings\":512,\"rope_scaling\":{" more "}}"
#define OLD   "\"original_max_position_embeddings\":128"
#define LISTS "\"short_factor\":[1,1.1,1.2,1.3,1.4,1.5,1.6,1.7],\"long_factor\":[1,1.75,2.5,3.25,4,4.75,5.5,6.25]"
    static const struct {
        const char *name, *text; /* a scaling by hand of the preset tiny, or a config.json */
        int64_t seen;
    } rows[] = {
        {"linear", "linear:4", 512},
        {"ntk", "ntk:4", 512},
        {"dynamic", "dynamic:4", 512},
        {"dynamic_short", "dynamic:4", 100},
        {"yarn", "yarn:4", 512},
        {"linear", SCALED("\"type\":\"linear\",\"factor\":4"), 512},
        {"yarn", SCALED("\"rope_type\":\"yarn\",\"factor\":4," OLD), 512},
        {"yarn_factor", SCALED("\"rope_type\":\"yarn\",\"factor\":4,\"attention_factor\":1.25," OLD), 512},
        {"yarn_mscale",
         SCALED("\"rope_type\":\"yarn\",\"factor\":4,\"mscale\":0.707,\"mscale_all_dim\":0.5,\"beta_fast\":16,"
                "\"beta_slow\":2," OLD),
         512},
        {"llama3", SCALED("\"rope_type\":\"llama3\",\"factor\":4,\"low_freq_factor\":1,\"high_freq_factor\":4," OLD),
         512},
        {"longrope", SCALED("\"rope_type\":\"longrope\"," LISTS "," OLD), 512},
        {"longrope_short", SCALED("\"rope_type\":\"longrope\"," LISTS "," OLD), 128},
    };
    safetensors v;
    tl_error e;
    assert_ok(safetensors_open(&mem_default, TILIA_SOURCE_DIR "/tests/vectors/rope.safetensors", &v, &e), &e);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_config c;
        double f[8], m, want;
        char name[64];
        bool hand = rows[i].text[0] != '{';
        assert_ok(config_parse(hand ? "preset:tiny" : rows[i].text, &c, NULL, 0, &e), &e);
        if (hand) assert_ok(config_scale(&c, rows[i].text, &e), &e);
        assert_int_equal(c.context, 512);
        build_rope_freq(&c, rows[i].seen, f, &m);
        const safetensors_entry *t = safetensors_find(&v, rows[i].name);
        for (int k = 0; k < 8; k++) {
            memcpy(&want, t->data + 8 * k, 8); /* f32 there */
            if (!(fabs(f[k] - want) < 3e-7 * want)) fail_msg("%s, %d: %.9g, must be %.9g", rows[i].name, k, f[k], want);
        }
        snprintf(name, sizeof name, "%s.factor", rows[i].name);
        memcpy(&want, safetensors_find(&v, name)->data, 8);
        assert_near(m, want, 1e-9);
    }
    safetensors_close(&v);
}

static tl_status make_table(const tl_allocator *a, void *user) {
    model_params p;
    tl_error e;
    TRY(params_init(&p, a, user, &e));
    params_fini(&p, a);
    return TL_OK;
}

static void allocations_may_fail(void **state) {
    (void)state;
    model_config c;
    assert_ok(config_preset("tiny", &c, NULL), NULL);
    test_alloc_sweep(make_table, &c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parameter_counts_are_the_published_ones),
        cmocka_unit_test(configurations_survive_writing),
        cmocka_unit_test(mistakes_name_the_key),
        cmocka_unit_test(names_are_hugging_faces),
        cmocka_unit_test(initial_weights_follow_their_rule),
        cmocka_unit_test(rope_frequencies_are_the_published_ones),
        cmocka_unit_test(positions_are_stretched_by_hand),
        cmocka_unit_test(scalings_are_those_of_transformers),
        cmocka_unit_test(allocations_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
