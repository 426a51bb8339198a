/* config.json of Hugging Face: its keys in and out, family by family. */
#include "model/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

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
                                         "hidden_activation",
                                         "max_position_embeddings",
                                         "original_max_position_embeddings",
                                         "rms_norm_eps",
                                         "rope_theta",
                                         "rope_scaling",
                                         "rope_parameters",
                                         "partial_rotary_factor",
                                         "attention_bias",
                                         "mlp_bias",
                                         "sliding_window",
                                         "use_sliding_window",
                                         "max_window_layers",
                                         "layer_types",
                                         "query_pre_attn_scalar",
                                         "attn_logit_softcapping",
                                         "final_logit_softcapping",
                                         "use_bidirectional_attention",
                                         "cache_implementation",
                                         "resid_pdrop",
                                         "embd_pdrop",
                                         "num_experts",
                                         "num_local_experts",
                                         "num_experts_per_tok",
                                         "moe_intermediate_size",
                                         "norm_topk_prob",
                                         "decoder_sparse_step",
                                         "mlp_only_layers",
                                         "router_aux_loss_coef",
                                         "router_jitter_noise",
                                         "output_router_logits",
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
    if (!json_is_integer(v) || json_integer_value(v) < 0 || json_integer_value(v) > INT32_MAX)
        return error_set(e, TL_CONFIG, "key \"%s\" is not a token id", key);
    *out = (int32_t)json_integer_value(v);
    return TL_OK;
}

/* A list of longrope's factors; *n is their number in both lists. */
static tl_status read_factors(const json_t *s, const char *key, float *out, int32_t *n, tl_error *e) {
    const json_t *v = json_object_get(s, key);
    size_t count = json_array_size(v);
    if (!json_is_array(v) || !count || count > MODEL_MAX_FACTORS || (*n && (size_t)*n != count))
        return error_set(e, TL_CONFIG, "key \"%s\" is not a list of at most %d numbers, one for each pair", key,
                         MODEL_MAX_FACTORS);
    for (size_t i = 0; i < count; i++) {
        if (!json_is_number(json_array_get(v, i)))
            return error_set(e, TL_CONFIG, "key \"%s\" has an element that is not a number", key);
        out[i] = (float)json_number_value(json_array_get(v, i));
    }
    *n = (int32_t)count;
    return TL_OK;
}

/* Two keys that stand for a factor, and one that would leave the ramp's ends where they fall. */
static tl_status read_yarn(const json_t *s, model_config *c, tl_error *e) {
    double mscale = 0, all = 0, f = c->scaling_factor;
    bool truncate = true;
    TRY(json_get_real(s, "mscale", &mscale, e));
    TRY(json_get_real(s, "mscale_all_dim", &all, e));
    TRY(json_get_bool(s, "truncate", &truncate, e));
    if (!truncate) return error_set(e, TL_UNSUPPORTED, "rope scaling yarn with \"truncate\": false is not supported");
    if (c->scaling_attention == 0 && mscale != 0 && all != 0 && f > 1)
        c->scaling_attention = (0.1 * mscale * log(f) + 1) / (0.1 * all * log(f) + 1);
    return TL_OK;
}

static tl_status read_scaling(const json_t *s, const char *key, model_config *c, tl_error *e) {
    if (!s || json_is_null(s)) return TL_OK;
    if (!json_is_object(s)) return error_set(e, TL_CONFIG, "key \"%s\" is not an object", key);
    const char *type = NULL;
    TRY(json_get_str(s, "rope_type", &type, e));
    if (!type) TRY(json_get_str(s, "type", &type, e));
    TRY(json_get_real(s, "rope_theta", &c->rope_theta, e));
    TRY(json_get_real(s, "partial_rotary_factor", &c->rope_partial, e));
    if (!type) return TL_OK;
    /* phi3's first releases called their longrope by these names */
    if (strcmp(c->type, "phi3") == 0 && (strcmp(type, "su") == 0 || strcmp(type, "yarn") == 0)) type = "longrope";
    int k = config_choice(config_scaling_names, type);
    if (k < 0) return config_choice_error("rope_type", type, config_scaling_names, e);
    c->scaling = (model_scaling)k;
    if (c->scaling == SCALING_LONGROPE) {
        TRY(read_factors(s, "short_factor", c->scaling_short, &c->scaling_factors, e));
        TRY(read_factors(s, "long_factor", c->scaling_long, &c->scaling_factors, e));
        c->scaling_factor = 0; /* by the ratio of the two contexts */
    }
    const json_t *factor = json_object_get(s, "factor");
    if (c->scaling != SCALING_NONE && c->scaling != SCALING_LONGROPE && (!factor || json_is_null(factor)))
        return error_set(e, TL_CONFIG, "\"%s\" of type %s has no \"factor\"", key, type);
    TRY(json_get_real(s, "factor", &c->scaling_factor, e));
    TRY(json_get_real(s, "attention_factor", &c->scaling_attention, e));
    if (c->scaling == SCALING_YARN) TRY(read_yarn(s, c, e));
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
    TRY(json_get_real(o, "attn_pdrop", &c->drop_attn, e));
    bool scaled = true, by_layer = false;
    TRY(json_get_bool(o, "scale_attn_weights", &scaled, e));
    TRY(json_get_bool(o, "scale_attn_by_inverse_layer_idx", &by_layer, e));
    if (!scaled || by_layer)
        return error_set(
            e, TL_UNSUPPORTED,
            "\"scale_attn_weights\": false and \"scale_attn_by_inverse_layer_idx\": true are not supported");
    return TL_OK;
}

/* Which layers see only a window. Families differ in what an absent key means: their rows say. */
static tl_status read_window(const json_t *o, model_config *c, const recipe_row *r, tl_error *e) {
    if (r->window == WINDOW_NEVER) return TL_OK;
    const json_t *v = json_object_get(o, "sliding_window");
    bool use = r->window != WINDOW_LATE && strcmp(c->type, "qwen3_moe") != 0;
    int64_t from = 28;
    TRY(json_get_bool(o, "use_sliding_window", &use, e));
    TRY(json_get_int(o, "max_window_layers", 0, INT32_MAX, &from, e));
    c->window = strcmp(c->type, "phi3") == 0 || strcmp(c->type, "mixtral") == 0 ? 0 : 4096;
    if (json_is_null(v) || !use) c->window = 0;
    if (use) TRY(json_get_int(o, "sliding_window", 1, MODEL_MAX_CONTEXT, &c->window, e));
    for (int64_t l = 0; l < c->layers; l++)
        config_set_full(c, l, (r->window == WINDOW_LATE && l < from) || (r->window == WINDOW_EVEN && l % 2 == 1));
    const json_t *types = json_object_get(o, "layer_types");
    if (!types || json_is_null(types)) return TL_OK;
    if (!json_is_array(types) || (int64_t)json_array_size(types) != c->layers)
        return error_set(e, TL_CONFIG, "key \"layer_types\" is not a list of %lld names", (long long)c->layers);
    for (int64_t l = 0; l < c->layers; l++) {
        const char *t = json_string_value(json_array_get(types, (size_t)l));
        bool full = t && strcmp(t, "full_attention") == 0;
        if (!full && !(t && strcmp(t, "sliding_attention") == 0))
            return error_set(e, TL_UNSUPPORTED,
                             "layer_types[%lld] is \"%s\"; full_attention and sliding_attention are supported",
                             (long long)l, t ? t : "no text");
        config_set_full(c, l, full);
    }
    return TL_OK;
}

static tl_status read_gemma(const json_t *o, model_config *c, tl_error *e) {
    double scalar = 256;
    c->attn_softcap = 50;
    c->final_softcap = 30;
    if (json_is_null(json_object_get(o, "attn_logit_softcapping"))) c->attn_softcap = 0;
    if (json_is_null(json_object_get(o, "final_logit_softcapping"))) c->final_softcap = 0;
    TRY(json_get_real(o, "attn_logit_softcapping", &c->attn_softcap, e));
    TRY(json_get_real(o, "final_logit_softcapping", &c->final_softcap, e));
    TRY(json_get_real(o, "query_pre_attn_scalar", &scalar, e));
    if (!(scalar > 0)) return error_set(e, TL_CONFIG, "key \"query_pre_attn_scalar\" is %g", scalar);
    c->attn_scale = scalar == (double)c->head_dim ? 0 : 1 / sqrt(scalar);
    bool both = false;
    TRY(json_get_bool(o, "use_bidirectional_attention", &both, e));
    if (both) return error_set(e, TL_UNSUPPORTED, "\"use_bidirectional_attention\": true is not supported");
    return TL_OK;
}

static tl_status read_llama(const json_t *o, model_config *c, const recipe_row *r, tl_error *e) {
    bool gemma = strcmp(c->type, "gemma2") == 0;
    TRY(json_get_int(o, "hidden_size", 1, MODEL_MAX_WIDTH, &c->width, e));
    TRY(json_get_int(o, "num_hidden_layers", 1, MODEL_MAX_LAYERS, &c->layers, e));
    TRY(json_get_int(o, "num_attention_heads", 1, 65536, &c->heads, e));
    TRY(json_get_int(o, "num_key_value_heads", 1, 65536, &c->kv_heads, e));
    if (gemma) c->head_dim = 256;
    if (strcmp(c->type, "qwen3") == 0) c->head_dim = 128;
    if (strcmp(c->type, "mixtral") == 0) c->rope_theta = 1e6;
    TRY(json_get_int(o, "head_dim", 1, 65536, &c->head_dim, e));
    TRY(json_get_int(o, "intermediate_size", 1, 16 * (int64_t)MODEL_MAX_WIDTH, &c->mlp, e));
    TRY(json_get_int(o, "max_position_embeddings", 1, MODEL_MAX_CONTEXT, &c->context, e));
    TRY(read_act(o, "hidden_act", c, e));
    TRY(read_act(o, "hidden_activation", c, e));
    TRY(json_get_real(o, "rms_norm_eps", &c->norm_eps, e));
    TRY(json_get_real(o, "rope_theta", &c->rope_theta, e));
    TRY(json_get_real(o, "partial_rotary_factor", &c->rope_partial, e));
    TRY(read_scaling(json_object_get(o, "rope_scaling"), "rope_scaling", c, e));
    TRY(read_scaling(json_object_get(o, "rope_parameters"), "rope_parameters", c, e));
    if (c->scaling != SCALING_NONE) /* phi3 keeps it outside */
        TRY(json_get_int(o, "original_max_position_embeddings", 1, MODEL_MAX_CONTEXT, &c->scaling_context, e));
    if (c->scaling == SCALING_LONGROPE && c->scaling_factor == 0)
        c->scaling_factor = c->scaling_context ? fmax(1, (double)c->context / (double)c->scaling_context) : 1;
    if (json_object_get(o, "attention_bias")) {
        TRY(json_get_bool(o, "attention_bias", &c->bias_qkv, e));
        c->bias_out = c->bias_qkv;
    }
    TRY(json_get_bool(o, "mlp_bias", &c->bias_mlp, e));
    TRY(json_get_real(o, "attention_dropout", &c->drop_attn, e));
    if (strcmp(c->type, "phi3") == 0) {
        TRY(json_get_real(o, "resid_pdrop", &c->drop_resid, e));
        TRY(json_get_real(o, "embd_pdrop", &c->drop_embed, e));
    }
    if (r->embed_sqrt) c->embed_scale = sqrt((double)c->width);
    if (!c->head_dim && c->heads) c->head_dim = c->width / c->heads;
    TRY(read_window(o, c, r, e));
    if (r->experts) TRY(config_experts_read(o, c, e));
    return gemma ? read_gemma(o, c, e) : TL_OK;
}

static void note_unknown(const json_t *o, const char *const *keys, char *unknown, size_t size) {
    if (!unknown || !size) return;
    unknown[0] = 0;
    size_t n = 0;
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, k, v) {
        if (key_known(quiet_keys, k) || key_known(keys, k)) continue;
        if (n < size) n += (size_t)snprintf(unknown + n, size - n, "%s%s", n ? ", " : "", k);
    }
}

/* The keys of this object are all ours: one that is not known would be a part that the model silently lacks. */
static tl_status read_own(const json_t *own, model_config *c, tl_error *e) {
    const char *k;
    json_t *v;
    if (!own) return TL_OK;
    if (!json_is_object(own)) return error_set(e, TL_CONFIG, "key \"tilia\" is not an object");
    json_object_foreach((json_t *)(uintptr_t)own, k, v) {
        if (!config_parts_know(k)) return error_set(e, TL_CONFIG, "there is no key \"%s\" in \"tilia\"", k);
    }
    return config_parts_read(own, c, e);
}

tl_status config_read(const json_t *o, model_config *c, char *unknown, size_t unknown_size, tl_error *e) {
    if (!json_is_object(o)) return error_set(e, TL_CONFIG, "config.json is not an object");
    const char *type = NULL;
    TRY(json_get_str(o, "model_type", &type, e));
    if (!type) return error_set(e, TL_CONFIG, "key \"model_type\" is missing");
    TRY(config_recipe(type, c, e));
    const recipe_row *r = recipe_find(type);
    bool gpt2 = r->keys == KEYS_GPT2;
    if (r->keys == KEYS_GATED)
        TRY(config_gated_read(o, c, e));
    else
        TRY(gpt2 ? read_gpt2(o, c, e) : read_llama(o, c, r, e));
    TRY(json_get_int(o, "vocab_size", 1, MODEL_MAX_VOCAB, &c->vocab, e));
    TRY(json_get_bool(o, "tie_word_embeddings", &c->tied, e));
    TRY(json_get_real(o, "initializer_range", &c->init_std, e));
    TRY(read_id(o, "bos_token_id", &c->bos, e));
    TRY(config_read_ends(o, c, e));
    TRY(read_own(json_object_get(o, "tilia"), c, e));
    config_complete(c);
    note_unknown(o, gpt2 ? gpt2_keys : r->keys == KEYS_GATED ? config_gated_keys : llama_keys, unknown, unknown_size);
    return config_check(c, e);
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

/* null says that there is none: without the key some families would take ids of their first models */
static void put_id(json_t *o, const char *k, int32_t id) {
    json_object_set_new(o, k, id >= 0 ? json_integer(id) : json_null());
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
    put_real(o, "attn_pdrop", c->drop_attn);
}

static json_t *factor_list(const float *x, int32_t n) {
    json_t *a = json_array();
    for (int32_t i = 0; i < n; i++) json_array_append_new(a, json_real((double)x[i]));
    return a;
}

static void write_scaling(const model_config *c, json_t *o) {
    if (c->scaling == SCALING_NONE) return;
    json_t *s = json_object();
    put_str(s, "rope_type", config_scaling_names[c->scaling]);
    bool ratio = c->scaling == SCALING_LONGROPE && c->scaling_context &&
                 c->scaling_factor == fmax(1, (double)c->context / (double)c->scaling_context);
    if (!ratio) put_real(s, "factor", c->scaling_factor);
    if (c->scaling == SCALING_LLAMA3) {
        put_real(s, "low_freq_factor", c->scaling_low);
        put_real(s, "high_freq_factor", c->scaling_high);
    }
    if (c->scaling == SCALING_YARN) {
        put_real(s, "beta_fast", c->scaling_beta_fast);
        put_real(s, "beta_slow", c->scaling_beta_slow);
    }
    if (c->scaling == SCALING_LONGROPE) {
        json_object_set_new(s, "short_factor", factor_list(c->scaling_short, c->scaling_factors));
        json_object_set_new(s, "long_factor", factor_list(c->scaling_long, c->scaling_factors));
    }
    if (c->scaling_attention > 0) put_real(s, "attention_factor", c->scaling_attention);
    if (c->scaling_context) put_int(s, "original_max_position_embeddings", c->scaling_context);
    if (c->scaling_context && strcmp(c->type, "phi3") == 0)
        put_int(o, "original_max_position_embeddings", c->scaling_context);
    json_object_set_new(o, "rope_scaling", s);
}

static void write_window(const model_config *c, const recipe_row *r, json_t *o) {
    if (r->window == WINDOW_NEVER) return;
    if (r->window == WINDOW_LATE || strcmp(c->type, "qwen3_moe") == 0) put_bool(o, "use_sliding_window", c->window > 0);
    json_object_set_new(o, "sliding_window", c->window ? json_integer(c->window) : json_null());
    if (r->window == WINDOW_ALL) return;
    int64_t from = 0;
    while (from < c->layers && config_full(c, from)) from++;
    if (r->window == WINDOW_LATE) put_int(o, "max_window_layers", from);
    json_t *types = json_array();
    for (int64_t l = 0; l < c->layers; l++)
        json_array_append_new(types, json_string(config_full(c, l) ? "full_attention" : "sliding_attention"));
    json_object_set_new(o, "layer_types", types);
}

static void put_cap(json_t *o, const char *k, double v) {
    json_object_set_new(o, k, v > 0 ? json_real(v) : json_null());
}

static void write_llama(const model_config *c, const recipe_row *r, json_t *o) {
    bool gemma = strcmp(c->type, "gemma2") == 0;
    put_int(o, "hidden_size", c->width);
    put_int(o, "intermediate_size", c->mlp);
    put_int(o, "num_hidden_layers", c->layers);
    put_int(o, "num_attention_heads", c->heads);
    put_int(o, "num_key_value_heads", c->kv_heads);
    put_int(o, "head_dim", c->head_dim);
    put_str(o, "hidden_act", act_hf_name(c->act, false));
    if (gemma) put_str(o, "hidden_activation", act_hf_name(c->act, false));
    put_int(o, "max_position_embeddings", c->context);
    put_real(o, "rms_norm_eps", c->norm_eps);
    put_real(o, "rope_theta", c->rope_theta);
    if (strcmp(c->type, "phi3") == 0) put_real(o, "partial_rotary_factor", c->rope_partial);
    if (!r->bias_qkv) put_bool(o, "attention_bias", c->bias_qkv);
    put_bool(o, "mlp_bias", c->bias_mlp);
    if (c->drop_attn > 0) put_real(o, "attention_dropout", c->drop_attn);
    if (gemma) {
        double q = c->attn_scale > 0 ? 1 / (c->attn_scale * c->attn_scale) : (double)c->head_dim;
        if (fabs(q - round(q)) < 1e-6 * q) /* GGUF keeps the scale in f32 */
            put_int(o, "query_pre_attn_scalar", (int64_t)round(q));
        else
            put_real(o, "query_pre_attn_scalar", q);
        put_cap(o, "attn_logit_softcapping", c->attn_softcap);
        put_cap(o, "final_logit_softcapping", c->final_softcap);
    }
    if (r->experts) config_experts_write(c, o);
    write_window(c, r, o);
    write_scaling(c, o);
}

/* What the family's own keys say by themselves: the recipe plus those keys. Parts that differ need the "tilia" object.
 */
static void implied(const model_config *c, const recipe_row *r, model_config *d) {
    config_recipe(c->type, d, NULL);
    d->act = c->act;
    if (r->keys != KEYS_GATED) {
        d->heads = c->heads;
        d->mlp = c->mlp;
    }
    if (r->keys == KEYS_GPT2) {
        d->kv_heads = c->heads;
        d->head_dim = c->width / c->heads;
        d->drop_embed = c->drop_embed;
        d->drop_resid = c->drop_resid;
        d->drop_attn = c->drop_attn;
        return;
    }
    if (r->keys == KEYS_GATED) {
        config_gated_implied(c, d);
        return;
    }
    d->kv_heads = c->kv_heads;
    d->head_dim = c->head_dim;
    if (r->experts) config_experts_implied(c, d);
    if (!r->bias_qkv) d->bias_qkv = d->bias_out = c->bias_qkv;
    d->bias_mlp = c->bias_mlp;
    d->drop_attn = c->drop_attn;
    if (r->embed_sqrt) d->embed_scale = sqrt((double)c->width);
    if (r->window != WINDOW_NEVER) d->window = c->window;
    if (r->window == WINDOW_LATE || r->window == WINDOW_EVEN) memcpy(d->full, c->full, sizeof d->full);
    if (strcmp(c->type, "phi3") == 0) d->rope_partial = c->rope_partial;
    if (strcmp(c->type, "gemma2") == 0) {
        d->attn_scale = c->attn_scale;
        d->attn_softcap = c->attn_softcap;
        d->final_softcap = c->final_softcap;
    }
}

static json_t *own_parts(const model_config *c) {
    model_config d;
    implied(c, recipe_find(c->type), &d);
    json_t *own = json_object();
    config_parts_write(own, c, &d);
    return own;
}

const char *config_foreign(const model_config *c, char *buf, size_t size) {
    static const char *const ours[] = {"init", "begin_document", "drop_embed", "drop_resid", "drop_attn"};
    json_t *own = own_parts(c);
    const char *k, *found = NULL;
    json_t *v;
    json_object_foreach(own, k, v) {
        bool harmless = false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++) harmless |= strcmp(k, ours[i]) == 0;
        if (harmless || found) continue;
        snprintf(buf, size, "%s", k);
        found = buf;
    }
    json_decref(own);
    return found;
}

json_t *config_write(const model_config *c) {
    json_t *o = json_object();
    if (!o) return NULL;
    const recipe_row *r = recipe_find(c->type);
    json_t *archs = json_array();
    json_array_append_new(archs, json_string(r->architecture));
    json_object_set_new(o, "architectures", archs);
    put_str(o, "model_type", c->type);
    put_int(o, "vocab_size", c->vocab);
    if (r->keys == KEYS_GPT2)
        write_gpt2(c, o);
    else if (r->keys == KEYS_GATED)
        config_gated_write(c, o);
    else
        write_llama(c, r, o);
    put_bool(o, "tie_word_embeddings", c->tied);
    put_real(o, "initializer_range", c->init_std);
    put_id(o, "bos_token_id", c->bos);
    json_object_set_new(o, "eos_token_id", config_write_ends(c));
    put_id(o, "pad_token_id", -1);
    put_str(o, "torch_dtype", "float32");
    json_t *own = own_parts(c);
    if (json_object_size(own))
        json_object_set_new(o, "tilia", own);
    else
        json_decref(own);
    return o;
}
