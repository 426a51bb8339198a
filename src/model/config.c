#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- names of the parts ------------------------------------------------------------------------ */

static const char *const norm_names[] = {"layernorm", "rmsnorm", "scalenorm", "none", NULL};
static const char *const place_names[] = {"pre", "post", "sandwich", NULL};
static const char *const position_names[] = {"learned", "sinusoidal", "rope", "alibi", "none", NULL};
static const char *const init_names[] = {"gpt2", "fan", "xavier", "zero-out", NULL};
static const char *const act_names[] = {"relu",    "gelu", "gelu_tanh", "silu", "relu2",
                                        "sigmoid", "tanh", "identity",  NULL};
static const char *const scaling_names[] = {"default", "linear", "ntk", "dynamic", "yarn", "llama3", NULL};

/* Hugging Face's names of activations, as ACT_* */
static const struct {
    const char *name;
    int act;
} hf_acts[] = {{"gelu_new", ACT_GELU_TANH},  {"gelu_pytorch_tanh", ACT_GELU_TANH},
               {"gelu_tanh", ACT_GELU_TANH}, {"gelu_fast", ACT_GELU_TANH},
               {"gelu", ACT_GELU},           {"relu", ACT_RELU},
               {"silu", ACT_SILU},           {"swish", ACT_SILU},
               {"relu2", ACT_RELU2},         {"relu_squared", ACT_RELU2},
               {"sigmoid", ACT_SIGMOID},     {"tanh", ACT_TANH}};

/* ---- the parts by table: keys of the "tilia" object -------------------------------------------------- */

enum part_kind { PART_CHOICE, PART_BOOL, PART_REAL, PART_INT };

typedef struct part_row {
    const char *key;
    enum part_kind kind;
    size_t at; /* offset in model_config */
    const char *const *names;
    double min, max;
} part_row;

#define AT(field) offsetof(model_config, field)
static const part_row parts[] = {
    {"norm", PART_CHOICE, AT(norm), norm_names, 0, 0},
    {"norm_place", PART_CHOICE, AT(place), place_names, 0, 0},
    {"norm_offset", PART_REAL, AT(norm_offset), NULL, 0, 1},
    {"parallel", PART_BOOL, AT(parallel), NULL, 0, 0},
    {"qk_norm", PART_BOOL, AT(qk_norm), NULL, 0, 0},
    {"act", PART_CHOICE, AT(act), act_names, 0, 0},
    {"gated", PART_BOOL, AT(gated), NULL, 0, 0},
    {"positions", PART_CHOICE, AT(positions), position_names, 0, 0},
    {"rope_partial", PART_REAL, AT(rope_partial), NULL, 0, 1},
    {"rope_interleaved", PART_BOOL, AT(rope_interleaved), NULL, 0, 0},
    {"bias_qkv", PART_BOOL, AT(bias_qkv), NULL, 0, 0},
    {"bias_out", PART_BOOL, AT(bias_out), NULL, 0, 0},
    {"bias_mlp", PART_BOOL, AT(bias_mlp), NULL, 0, 0},
    {"bias_norm", PART_BOOL, AT(bias_norm), NULL, 0, 0},
    {"bias_head", PART_BOOL, AT(bias_head), NULL, 0, 0},
    {"attn_scale", PART_REAL, AT(attn_scale), NULL, 0, 1e6},
    {"attn_softcap", PART_REAL, AT(attn_softcap), NULL, 0, 1e6},
    {"final_softcap", PART_REAL, AT(final_softcap), NULL, 0, 1e6},
    {"embed_scale", PART_REAL, AT(embed_scale), NULL, 1e-6, 1e6},
    {"window", PART_INT, AT(window), NULL, 0, MODEL_MAX_CONTEXT},
    {"init", PART_CHOICE, AT(init), init_names, 0, 0},
    {"kv_heads", PART_INT, AT(kv_heads), NULL, 1, 65536},
    {"head_dim", PART_INT, AT(head_dim), NULL, 1, 65536},
    {"begin_document", PART_BOOL, AT(begin_document), NULL, 0, 0},
    {"drop_embed", PART_REAL, AT(drop_embed), NULL, 0, 0.99},
    {"drop_resid", PART_REAL, AT(drop_resid), NULL, 0, 0.99},
};
#undef AT
enum { PARTS = sizeof parts / sizeof *parts };

static int choice_find(const char *const *names, const char *s) {
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], s) == 0) return i;
    return -1;
}

static tl_status choice_error(const char *key, const char *value, const char *const *names, tl_error *e) {
    char list[200] = "";
    size_t n = 0;
    for (int i = 0; names[i] && n < sizeof list; i++)
        n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", names[i]);
    return error_set(e, TL_CONFIG, "key \"%s\" is \"%s\"; it can be %s", key, value, list);
}

static tl_status part_read(const part_row *r, const json_t *o, model_config *c, tl_error *e) {
    void *at = (char *)c + r->at;
    if (r->kind == PART_BOOL) return json_get_bool(o, r->key, at, e);
    if (r->kind == PART_INT) return json_get_int(o, r->key, (int64_t)r->min, (int64_t)r->max, at, e);
    if (r->kind == PART_REAL) {
        double *v = at;
        TRY(json_get_real(o, r->key, v, e));
        if (*v < r->min || *v > r->max || isnan(*v))
            return error_set(e, TL_CONFIG, "key \"%s\" is %g; it can be %g to %g", r->key, *v, r->min, r->max);
        return TL_OK;
    }
    const char *s = NULL;
    TRY(json_get_str(o, r->key, &s, e));
    if (!s) return TL_OK;
    int i = choice_find(r->names, s);
    if (i < 0) return choice_error(r->key, s, r->names, e);
    *(int *)at = i;
    return TL_OK;
}

/* ---- recipes ---------------------------------------------------------------------------------------- */

typedef struct recipe_row {
    const char *type, *architecture;
    model_norm norm;
    double eps, offset;
    int act;
    bool gated;
    model_positions positions;
    bool bias_qkv, bias_out, bias_mlp, bias_norm, tied, qk_norm, embed_sqrt;
} recipe_row;

static const recipe_row recipes[] = {
#define RECIPE(type, arch, norm, eps, offset, act, gated, pos, bq, bo, bm, bn, tied, qk, es, names)                    \
    {#type, arch, norm, eps, offset, act, gated, pos, bq, bo, bm, bn, tied, qk, es},
#include "model/recipe.def"
#undef RECIPE
};
enum { RECIPES = sizeof recipes / sizeof *recipes };

static const recipe_row *recipe_find(const char *type) {
    for (size_t i = 0; i < RECIPES; i++)
        if (strcmp(recipes[i].type, type) == 0) return &recipes[i];
    return NULL;
}

tl_status config_recipe(const char *type, model_config *c, tl_error *e) {
    const recipe_row *r = recipe_find(type);
    if (!r) {
        char list[200] = "";
        size_t n = 0;
        for (size_t i = 0; i < RECIPES && n < sizeof list; i++)
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", i ? ", " : "", recipes[i].type);
        return error_set(e, TL_UNSUPPORTED, "model_type \"%s\" is not known; known are %s", type, list);
    }
    memset(c, 0, sizeof *c);
    snprintf(c->type, sizeof c->type, "%s", type);
    c->norm = r->norm;
    c->norm_eps = r->eps;
    c->norm_offset = r->offset;
    c->act = r->act;
    c->gated = r->gated;
    c->positions = r->positions;
    c->bias_qkv = r->bias_qkv;
    c->bias_out = r->bias_out;
    c->bias_mlp = r->bias_mlp;
    c->bias_norm = r->bias_norm;
    c->tied = r->tied;
    c->qk_norm = r->qk_norm;
    c->rope_theta = 10000;
    c->rope_partial = 1;
    c->scaling_factor = c->scaling_low = 1;
    c->scaling_high = 4;
    c->scaling_beta_fast = 32;
    c->scaling_beta_slow = 1;
    c->embed_scale = 1;
    c->init_std = 0.02;
    c->bos = c->eos = -1;
    return TL_OK;
}

/* ---- reading ----------------------------------------------------------------------------------------- */

/* Keys that carry nothing for us, or that other functions read. */
static const char *const quiet_keys[] = {"model_type",
                                         "architectures",
                                         "transformers_version",
                                         "torch_dtype",
                                         "dtype",
                                         "use_cache",
                                         "tilia",
                                         "_name_or_path",
                                         "summary_type",
                                         "summary_use_proj",
                                         "summary_activation",
                                         "summary_proj_to_labels",
                                         "summary_first_dropout",
                                         "task_specific_params",
                                         "pretraining_tp",
                                         "n_ctx",
                                         "reorder_and_upcast_attn",
                                         "scale_attn_weights",
                                         "scale_attn_by_inverse_layer_idx",
                                         "attn_pdrop",
                                         "attention_dropout",
                                         "bos_token_id",
                                         "eos_token_id",
                                         "pad_token_id",
                                         "initializer_range",
                                         "tie_word_embeddings",
                                         "vocab_size",
                                         "add_cross_attention",
                                         "gradient_checkpointing",
                                         NULL};
static const char *const gpt2_keys[] = {
    "n_embd",      "n_layer",    "n_head", "n_positions", "n_inner", "activation_function", "layer_norm_epsilon",
    "resid_pdrop", "embd_pdrop", NULL};
static const char *const llama_keys[] = {"hidden_size",
                                         "intermediate_size",
                                         "num_hidden_layers",
                                         "num_attention_heads",
                                         "num_key_value_heads",
                                         "head_dim",
                                         "hidden_act",
                                         "max_position_embeddings",
                                         "rms_norm_eps",
                                         "rope_theta",
                                         "rope_scaling",
                                         "rope_parameters",
                                         "attention_bias",
                                         "mlp_bias",
                                         NULL};

static bool key_known(const char *const *keys, const char *k) {
    for (; *keys; keys++)
        if (strcmp(*keys, k) == 0) return true;
    return false;
}

static tl_status read_act(const json_t *o, const char *key, model_config *c, tl_error *e) {
    const char *s = NULL;
    TRY(json_get_str(o, key, &s, e));
    if (!s) return TL_OK;
    for (size_t i = 0; i < sizeof hf_acts / sizeof *hf_acts; i++)
        if (strcmp(hf_acts[i].name, s) == 0) {
            c->act = hf_acts[i].act;
            return TL_OK;
        }
    return error_set(e, TL_CONFIG, "key \"%s\" is \"%s\", an activation that is not known", key, s);
}

static tl_status read_id(const json_t *o, const char *key, int32_t *out, tl_error *e) {
    const json_t *v = json_object_get(o, key);
    if (!v || json_is_null(v)) return TL_OK;
    if (json_is_array(v)) v = json_array_get(v, 0); /* several end tokens: the first */
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
        return error_set(e, TL_CONFIG, "key \"%s\" is not a token id", key);
    *out = (int32_t)json_integer_value(v);
    return TL_OK;
}

static tl_status read_scaling(const json_t *s, model_config *c, tl_error *e) {
    if (!s || json_is_null(s)) return TL_OK;
    if (!json_is_object(s)) return error_set(e, TL_CONFIG, "key \"rope_scaling\" is not an object");
    const char *type = NULL;
    TRY(json_get_str(s, "rope_type", &type, e));
    if (!type) TRY(json_get_str(s, "type", &type, e));
    TRY(json_get_real(s, "rope_theta", &c->rope_theta, e));
    if (!type) return TL_OK;
    int k = choice_find(scaling_names, type);
    if (k < 0) return choice_error("rope_type", type, scaling_names, e);
    c->scaling = (model_scaling)k;
    TRY(json_get_real(s, "factor", &c->scaling_factor, e));
    TRY(json_get_real(s, "low_freq_factor", &c->scaling_low, e));
    TRY(json_get_real(s, "high_freq_factor", &c->scaling_high, e));
    TRY(json_get_real(s, "beta_fast", &c->scaling_beta_fast, e));
    TRY(json_get_real(s, "beta_slow", &c->scaling_beta_slow, e));
    return json_get_int(s, "original_max_position_embeddings", 1, MODEL_MAX_CONTEXT, &c->scaling_context, e);
}

static tl_status read_gpt2(const json_t *o, model_config *c, tl_error *e) {
    TRY(json_get_int(o, "n_embd", 1, MODEL_MAX_WIDTH, &c->width, e));
    TRY(json_get_int(o, "n_layer", 1, MODEL_MAX_LAYERS, &c->layers, e));
    TRY(json_get_int(o, "n_head", 1, 65536, &c->heads, e));
    TRY(json_get_int(o, "n_positions", 1, MODEL_MAX_CONTEXT, &c->context, e));
    TRY(json_get_int(o, "n_inner", 1, 16 * (int64_t)MODEL_MAX_WIDTH, &c->mlp, e));
    if (!c->mlp) c->mlp = 4 * c->width;
    TRY(read_act(o, "activation_function", c, e));
    TRY(json_get_real(o, "layer_norm_epsilon", &c->norm_eps, e));
    TRY(json_get_real(o, "resid_pdrop", &c->drop_resid, e));
    TRY(json_get_real(o, "embd_pdrop", &c->drop_embed, e));
    bool scaled = true, by_layer = false;
    TRY(json_get_bool(o, "scale_attn_weights", &scaled, e));
    TRY(json_get_bool(o, "scale_attn_by_inverse_layer_idx", &by_layer, e));
    if (!scaled || by_layer)
        return error_set(
            e, TL_UNSUPPORTED,
            "\"scale_attn_weights\": false and \"scale_attn_by_inverse_layer_idx\": true are not supported");
    return TL_OK;
}

static tl_status read_llama(const json_t *o, model_config *c, tl_error *e) {
    TRY(json_get_int(o, "hidden_size", 1, MODEL_MAX_WIDTH, &c->width, e));
    TRY(json_get_int(o, "num_hidden_layers", 1, MODEL_MAX_LAYERS, &c->layers, e));
    TRY(json_get_int(o, "num_attention_heads", 1, 65536, &c->heads, e));
    TRY(json_get_int(o, "num_key_value_heads", 1, 65536, &c->kv_heads, e));
    TRY(json_get_int(o, "head_dim", 1, 65536, &c->head_dim, e));
    TRY(json_get_int(o, "intermediate_size", 1, 16 * (int64_t)MODEL_MAX_WIDTH, &c->mlp, e));
    TRY(json_get_int(o, "max_position_embeddings", 1, MODEL_MAX_CONTEXT, &c->context, e));
    TRY(read_act(o, "hidden_act", c, e));
    TRY(json_get_real(o, "rms_norm_eps", &c->norm_eps, e));
    TRY(json_get_real(o, "rope_theta", &c->rope_theta, e));
    TRY(read_scaling(json_object_get(o, "rope_scaling"), c, e));
    TRY(read_scaling(json_object_get(o, "rope_parameters"), c, e));
    TRY(json_get_bool(o, "attention_bias", &c->bias_qkv, e));
    c->bias_out = c->bias_qkv;
    return json_get_bool(o, "mlp_bias", &c->bias_mlp, e);
}

static void note_unknown(const json_t *o, bool gpt2, char *unknown, size_t size) {
    if (!unknown || !size) return;
    unknown[0] = 0;
    size_t n = 0;
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, k, v) {
        if (key_known(quiet_keys, k) || key_known(gpt2 ? gpt2_keys : llama_keys, k)) continue;
        if (n < size) n += (size_t)snprintf(unknown + n, size - n, "%s%s", n ? ", " : "", k);
    }
    const json_t *own = json_object_get(o, "tilia");
    json_object_foreach((json_t *)(uintptr_t)own, k, v) {
        bool known = false;
        for (size_t i = 0; i < PARTS && !known; i++) known = strcmp(parts[i].key, k) == 0;
        if (!known && n < size) n += (size_t)snprintf(unknown + n, size - n, "%stilia.%s", n ? ", " : "", k);
    }
}

tl_status config_read(const json_t *o, model_config *c, char *unknown, size_t unknown_size, tl_error *e) {
    if (!json_is_object(o)) return error_set(e, TL_CONFIG, "config.json is not an object");
    const char *type = NULL;
    TRY(json_get_str(o, "model_type", &type, e));
    if (!type) return error_set(e, TL_CONFIG, "key \"model_type\" is missing");
    TRY(config_recipe(type, c, e));
    bool gpt2 = strcmp(type, "gpt2") == 0;
    TRY(gpt2 ? read_gpt2(o, c, e) : read_llama(o, c, e));
    TRY(json_get_int(o, "vocab_size", 1, MODEL_MAX_VOCAB, &c->vocab, e));
    TRY(json_get_bool(o, "tie_word_embeddings", &c->tied, e));
    TRY(json_get_real(o, "initializer_range", &c->init_std, e));
    TRY(read_id(o, "bos_token_id", &c->bos, e));
    TRY(read_id(o, "eos_token_id", &c->eos, e));
    const json_t *own = json_object_get(o, "tilia");
    if (own && !json_is_object(own)) return error_set(e, TL_CONFIG, "key \"tilia\" is not an object");
    for (size_t i = 0; own && i < PARTS; i++) TRY(part_read(&parts[i], own, c, e));
    if (!c->kv_heads) c->kv_heads = c->heads;
    if (!c->head_dim && c->heads) c->head_dim = c->width / c->heads;
    note_unknown(o, gpt2, unknown, unknown_size);
    return config_check(c, e);
}

tl_status config_parse(const char *text, model_config *c, char *unknown, size_t unknown_size, tl_error *e) {
    if (unknown && unknown_size) unknown[0] = 0;
    if (strncmp(text, "preset:", 7) == 0) return config_preset(text + 7, c, e);
    if (strncmp(text, "depth:", 6) == 0) {
        char *end;
        long n = strtol(text + 6, &end, 10);
        if (*end || end == text + 6) return error_set(e, TL_CONFIG, "\"%s\" is not depth:N", text);
        return config_depth(n, 0, c, NULL, e);
    }
    json_t *o;
    TRY(json_parse(text, strlen(text), NULL, &o, e));
    tl_status s = config_read(o, c, unknown, unknown_size, e);
    json_decref(o);
    return s;
}

/* ---- checks ------------------------------------------------------------------------------------------- */

tl_status config_check(const model_config *c, tl_error *e) {
    const struct {
        const char *key;
        int64_t v;
    } needed[] = {{"vocab_size", c->vocab}, {"width", c->width},       {"layers", c->layers},  {"heads", c->heads},
                  {"mlp width", c->mlp},    {"head_dim", c->head_dim}, {"context", c->context}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (needed[i].v < 1) return error_set(e, TL_CONFIG, "%s is missing or not positive", needed[i].key);
    if (c->head_dim * c->heads > 16 * (int64_t)MODEL_MAX_WIDTH)
        return error_set(e, TL_CONFIG, "%lld heads of %lld are too wide", (long long)c->heads, (long long)c->head_dim);
    if (c->kv_heads < 1 || c->heads % c->kv_heads)
        return error_set(e, TL_CONFIG, "%lld heads cannot share %lld key-value heads evenly", (long long)c->heads,
                         (long long)c->kv_heads);
    if (c->positions == POS_ROPE) {
        int64_t r = (int64_t)((double)c->head_dim * c->rope_partial);
        if (r < 2 || r % 2)
            return error_set(e, TL_CONFIG, "RoPE rotates pairs, but %lld of head_dim %lld are to be rotated",
                             (long long)r, (long long)c->head_dim);
        if (!(c->rope_theta > 1)) return error_set(e, TL_CONFIG, "rope_theta is %g; it must be above 1", c->rope_theta);
        if (!(c->scaling_factor >= 1)) return error_set(e, TL_CONFIG, "rope scaling factor is %g", c->scaling_factor);
    }
    if (c->positions == POS_SINUSOIDAL && c->width % 2)
        return error_set(e, TL_CONFIG, "sinusoidal positions need an even width, not %lld", (long long)c->width);
    if (c->parallel && c->place != PLACE_PRE)
        return error_set(e, TL_CONFIG, "a parallel block needs \"norm_place\": \"pre\"");
    if (!(c->norm_eps >= 0 && c->norm_eps < 1)) return error_set(e, TL_CONFIG, "norm epsilon is %g", c->norm_eps);
    if (!(c->drop_embed >= 0 && c->drop_embed < 1) || !(c->drop_resid >= 0 && c->drop_resid < 1))
        return error_set(e, TL_CONFIG, "dropout must be at least 0 and below 1");
    if (!(c->init_std >= 0 && c->init_std < 100))
        return error_set(e, TL_CONFIG, "initializer_range is %g", c->init_std);
    if (c->bos >= c->vocab || c->eos >= c->vocab)
        return error_set(e, TL_CONFIG, "bos or eos token id is outside the vocabulary of %lld", (long long)c->vocab);
    return TL_OK;
}

/* ---- writing ------------------------------------------------------------------------------------------- */

static const char *act_hf_name(int act, bool gpt2) {
    if (act == ACT_GELU_TANH) return gpt2 ? "gelu_new" : "gelu_pytorch_tanh";
    for (size_t i = 0; i < sizeof hf_acts / sizeof *hf_acts; i++)
        if (hf_acts[i].act == act) return hf_acts[i].name;
    return "identity";
}

static void put_int(json_t *o, const char *k, int64_t v) {
    json_object_set_new(o, k, json_integer(v));
}
static void put_real(json_t *o, const char *k, double v) {
    json_object_set_new(o, k, json_real(v));
}
static void put_str(json_t *o, const char *k, const char *v) {
    json_object_set_new(o, k, json_string(v));
}
static void put_bool(json_t *o, const char *k, bool v) {
    json_object_set_new(o, k, json_boolean(v));
}

static void write_gpt2(const model_config *c, json_t *o) {
    put_int(o, "n_embd", c->width);
    put_int(o, "n_layer", c->layers);
    put_int(o, "n_head", c->heads);
    put_int(o, "n_positions", c->context);
    put_int(o, "n_ctx", c->context);
    put_int(o, "n_inner", c->mlp);
    put_str(o, "activation_function", act_hf_name(c->act, true));
    put_real(o, "layer_norm_epsilon", c->norm_eps);
    put_real(o, "resid_pdrop", c->drop_resid);
    put_real(o, "embd_pdrop", c->drop_embed);
    put_real(o, "attn_pdrop", 0);
}

static void write_llama(const model_config *c, json_t *o) {
    put_int(o, "hidden_size", c->width);
    put_int(o, "intermediate_size", c->mlp);
    put_int(o, "num_hidden_layers", c->layers);
    put_int(o, "num_attention_heads", c->heads);
    put_int(o, "num_key_value_heads", c->kv_heads);
    put_int(o, "head_dim", c->head_dim);
    put_str(o, "hidden_act", act_hf_name(c->act, false));
    put_int(o, "max_position_embeddings", c->context);
    put_real(o, "rms_norm_eps", c->norm_eps);
    put_real(o, "rope_theta", c->rope_theta);
    put_bool(o, "attention_bias", c->bias_qkv);
    put_bool(o, "mlp_bias", c->bias_mlp);
    if (c->scaling == SCALING_NONE) return;
    json_t *s = json_object();
    put_str(s, "rope_type", scaling_names[c->scaling]);
    put_real(s, "factor", c->scaling_factor);
    if (c->scaling == SCALING_LLAMA3) {
        put_real(s, "low_freq_factor", c->scaling_low);
        put_real(s, "high_freq_factor", c->scaling_high);
    }
    if (c->scaling == SCALING_YARN) {
        put_real(s, "beta_fast", c->scaling_beta_fast);
        put_real(s, "beta_slow", c->scaling_beta_slow);
    }
    if (c->scaling_context) put_int(s, "original_max_position_embeddings", c->scaling_context);
    json_object_set_new(o, "rope_scaling", s);
}

/* What the family's own keys say by themselves: the recipe plus those keys. Parts that differ need the "tilia" object.
 */
static void implied(const model_config *c, bool gpt2, model_config *d) {
    config_recipe(c->type, d, NULL);
    d->act = c->act;
    d->kv_heads = gpt2 ? c->heads : c->kv_heads;
    d->head_dim = gpt2 ? c->width / c->heads : c->head_dim;
    if (gpt2) {
        d->drop_embed = c->drop_embed;
        d->drop_resid = c->drop_resid;
    } else {
        d->bias_qkv = d->bias_out = c->bias_qkv;
        d->bias_mlp = c->bias_mlp;
    }
}

json_t *config_write(const model_config *c) {
    json_t *o = json_object();
    if (!o) return NULL;
    bool gpt2 = strcmp(c->type, "gpt2") == 0;
    json_t *archs = json_array();
    json_array_append_new(archs, json_string(recipe_find(c->type)->architecture));
    json_object_set_new(o, "architectures", archs);
    put_str(o, "model_type", c->type);
    put_int(o, "vocab_size", c->vocab);
    if (gpt2)
        write_gpt2(c, o);
    else
        write_llama(c, o);
    put_bool(o, "tie_word_embeddings", c->tied);
    put_real(o, "initializer_range", c->init_std);
    if (c->bos >= 0) put_int(o, "bos_token_id", c->bos);
    if (c->eos >= 0) put_int(o, "eos_token_id", c->eos);
    put_str(o, "torch_dtype", "float32");

    model_config d;
    implied(c, gpt2, &d);
    json_t *own = json_object();
    for (size_t i = 0; i < PARTS; i++) {
        const part_row *r = &parts[i];
        const void *x = (const char *)c + r->at, *y = (const char *)&d + r->at;
        if (r->kind == PART_BOOL && *(const bool *)x != *(const bool *)y) put_bool(own, r->key, *(const bool *)x);
        if (r->kind == PART_INT && *(const int64_t *)x != *(const int64_t *)y)
            put_int(own, r->key, *(const int64_t *)x);
        if (r->kind == PART_REAL && memcmp(x, y, sizeof(double)) != 0) put_real(own, r->key, *(const double *)x);
        if (r->kind == PART_CHOICE && *(const int *)x != *(const int *)y)
            put_str(own, r->key, r->names[*(const int *)x]);
    }
    if (json_object_size(own))
        json_object_set_new(o, "tilia", own);
    else
        json_decref(own);
    return o;
}
