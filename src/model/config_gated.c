/* The gated family's configurations: keys of config.json, presets, checks. hidden_size D, num_hidden_layers,
 * expansion e (2 D), shared_size s (128), chunk_size c (256, flash alone), max_position_embeddings, norm_eps; every
 * other part is a key of the "tilia" object. */
#include "model/recipe.h"

#include <string.h>

const char *const config_gated_keys[] = {
    "hidden_size", "num_hidden_layers", "expansion",   "shared_size", "chunk_size", "max_position_embeddings",
    "norm_eps",    "rope_theta",        "resid_pdrop", "embd_pdrop",  NULL};

void config_gated_recipe(model_config *c) {
    c->shared = 128;
    c->chunk = c->mixer == MIXER_FLASH ? 256 : 0;
    c->rel_bias = strcmp(c->type, "gau") != 0;
    c->init = INIT_FAN;
}

tl_status config_gated_read(const json_t *o, model_config *c, tl_error *e) {
    TRY(json_get_int(o, "hidden_size", 1, MODEL_MAX_WIDTH, &c->width, e));
    TRY(json_get_int(o, "num_hidden_layers", 1, MODEL_MAX_LAYERS, &c->layers, e));
    c->expand = 2 * c->width;
    TRY(json_get_int(o, "expansion", 1, 8192, &c->expand, e));
    TRY(json_get_int(o, "shared_size", 1, 1024, &c->shared, e));
    if (c->mixer == MIXER_FLASH) TRY(json_get_int(o, "chunk_size", 1, MODEL_MAX_CONTEXT, &c->chunk, e));
    TRY(json_get_int(o, "max_position_embeddings", 1, MODEL_MAX_CONTEXT, &c->context, e));
    TRY(json_get_real(o, "norm_eps", &c->norm_eps, e));
    TRY(json_get_real(o, "rope_theta", &c->rope_theta, e));
    TRY(json_get_real(o, "resid_pdrop", &c->drop_resid, e));
    return json_get_real(o, "embd_pdrop", &c->drop_embed, e);
}

void config_gated_write(const model_config *c, json_t *o) {
    json_object_set_new(o, "hidden_size", json_integer(c->width));
    json_object_set_new(o, "num_hidden_layers", json_integer(c->layers));
    json_object_set_new(o, "expansion", json_integer(c->expand));
    json_object_set_new(o, "shared_size", json_integer(c->shared));
    if (c->mixer == MIXER_FLASH) json_object_set_new(o, "chunk_size", json_integer(c->chunk));
    json_object_set_new(o, "max_position_embeddings", json_integer(c->context));
    json_object_set_new(o, "norm_eps", json_real(c->norm_eps));
    json_object_set_new(o, "rope_theta", json_real(c->rope_theta));
    json_object_set_new(o, "resid_pdrop", json_real(c->drop_resid));
    json_object_set_new(o, "embd_pdrop", json_real(c->drop_embed));
}

void config_gated_implied(const model_config *c, model_config *d) {
    d->act = ACT_SILU; /* no key of its own */
    d->shared = c->shared;
    d->expand = c->expand;
    if (c->mixer == MIXER_FLASH) d->chunk = c->chunk;
    d->kv_heads = c->kv_heads; /* by config_complete */
    d->head_dim = c->head_dim;
    if (config_all_gated(c)) {
        d->heads = c->heads;
        d->mlp = c->mlp;
    }
    d->drop_embed = c->drop_embed;
    d->drop_resid = c->drop_resid;
}

tl_status config_gated_check(const model_config *c, tl_error *e) {
    bool gated = config_has_gated(c), chunks = config_has(c, MIXER_FLASH) || config_has(c, MIXER_CHUNK);
    if (!chunks && (c->chunk_overlap || c->chunk_outer))
        return error_set(e, TL_CONFIG, "\"%s\" belongs to layers of flash or mixed_chunk",
                         c->chunk_overlap ? "chunk_overlap" : "chunk_outer");
    if (!gated && !chunks) return TL_OK;
    if (gated && (c->shared < 1 || c->shared > 1024 || c->expand < 1 || c->expand > 8192))
        return error_set(e, TL_CONFIG, "shared_size %lld, expansion %lld; they can be up to 1024 and 8192",
                         (long long)c->shared, (long long)c->expand);
    if (gated && (c->gate_heads < 1 || c->expand % c->gate_heads))
        return error_set(e, TL_CONFIG, "expansion %lld cannot be split between %lld heads", (long long)c->expand,
                         (long long)c->gate_heads);
    if (config_has(c, MIXER_CHUNK) && c->kv_heads != c->heads)
        return error_set(e, TL_CONFIG, "mixed chunks give every head its own keys and values: kv_heads must be %lld",
                         (long long)c->heads);
    if (gated && (c->place == PLACE_SANDWICH || c->parallel))
        return error_set(e, TL_CONFIG, "a gated layer knows no sandwich norm and no parallel block");
    if (config_all_gated(c) && (c->window || c->qk_norm || c->attn_softcap > 0 || c->attn_rel_bias))
        return error_set(e, TL_CONFIG, "a gated layer knows no window, qk-norm or soft cap; its bias is \"rel_bias\"");
    if (gated && c->positions == POS_ALIBI)
        return error_set(e, TL_CONFIG, "a gated layer's bias is a table: \"rel_bias\"");
    if (chunks && (c->chunk < 1 || c->score >= GATE_SOFTMAX))
        return error_set(e, TL_CONFIG, "chunks need a length and a score that adds up, not one that is normalised");
    if ((c->chunk_overlap || c->chunk_outer) && (!chunks || !config_causal(c) || c->encoder))
        return error_set(e, TL_CONFIG,
                         "\"%s\" belongs to causal chunks: both ways the linear part sees everything anyway",
                         c->chunk_overlap ? "chunk_overlap" : "chunk_outer");
    if (c->chunk_overlap && (c->chunk % 2 || c->chunk < 2))
        return error_set(e, TL_CONFIG, "chunks of %lld have no halves that could overlap", (long long)c->chunk);
    if (c->chunk_outer && (c->chunk_outer % c->chunk || c->chunk_outer <= c->chunk))
        return error_set(e, TL_CONFIG, "chunk_outer %lld is not made of several chunks of %lld",
                         (long long)c->chunk_outer, (long long)c->chunk);
    if (c->chunk_outer && c->chunk_parts != CHUNK_BOTH)
        return error_set(e, TL_CONFIG, "levels of chunks have all their parts: leave \"chunk_parts\" at both");
    if (c->chunk_landmarks && (!chunks || !config_causal(c) || c->encoder || c->chunk_outer || c->chunk_parts))
        return error_set(e, TL_CONFIG,
                         "\"chunk_landmarks\" belongs to causal chunks of one level with all their parts: it reaches "
                         "chunks that lie behind");
    if (chunks && c->chunk_parts == CHUNK_FAR && c->rel_bias)
        return error_set(e, TL_CONFIG, "\"chunk_parts\": \"global\" has no scores for a \"rel_bias\"");
    if (c->score_count == GATE_COUNT_LENGTH && config_causal(c))
        return error_set(
            e, TL_CONFIG,
            "\"score_count\": \"length\" divides a row by the length of the text, which a causal row cannot "
            "know; use visible or fixed");
    if (c->score >= GATE_SOFTMAX && c->score_scale != SCALE_NS)
        return error_set(e, TL_CONFIG, "scales by length belong to scores that add up");
    if (c->score_kappa && c->score != GATE_SOFTMAX)
        return error_set(e, TL_CONFIG, "\"score_kappa\" belongs to \"score\": \"softmax\"");
    return TL_OK;
}

/* ---- presets -------------------------------------------------------------------------------------------- */

/* Two gated layers stand for one Transformer layer. gpt2: the paper's e = 2 D, 1.3 % more parameters than GPT-2. char
 * and char-cpu: e such that the parameters are those of nanoGPT's two models, within 2 %. */
typedef struct gated_preset {
    const char *name, *about;
    int64_t vocab, width, layers, e, s, chunk, context;
    double dropout;
} gated_preset;

static const char *const gated_types[] = {"gau", "gau", "flash-quad", "flash"};
static const gated_preset gated_presets[] = {
    {"char", "10.6M, like char", 65, 384, 12, 720, 128, 64, 256, 0.2},
    {"char-cpu", "0.8M, like char-cpu", 65, 128, 8, 232, 64, 32, 64, 0},
    {"gpt2", "126M, like gpt2", 50257, 768, 24, 1536, 128, 256, 1024, 0},
    {"stories", "15M, like stories", 32000, 288, 12, 544, 128, 128, 256, 0},
};
enum { GATED = sizeof gated_presets / sizeof *gated_presets };
static const char *const gated_names[] = {"gau-char",
                                          "gau-char-cpu",
                                          "gau-gpt2",
                                          "gau-stories",
                                          "gau-alpha-char",
                                          "gau-alpha-char-cpu",
                                          "gau-alpha-gpt2",
                                          "gau-alpha-stories",
                                          "flash-quad-char",
                                          "flash-quad-char-cpu",
                                          "flash-quad-gpt2",
                                          "flash-quad-stories",
                                          "flash-char",
                                          "flash-char-cpu",
                                          "flash-gpt2",
                                          "flash-stories",
                                          NULL};

const char *config_gated_preset_name(size_t i, const char **about) {
    if (i >= sizeof gated_names / sizeof *gated_names) return NULL;
    if (about) *about = gated_names[i] ? gated_presets[i % GATED].about : NULL;
    return gated_names[i];
}

/* GAU-alpha (Su 2022): softmax whose scale grows with the logarithm of what a row sees, RMS norm without a gain behind
 * the residual, no bias and no offset anywhere, RoPE of neighbours. */
static void gated_alpha(model_config *c) {
    c->score = GATE_SOFTMAX;
    c->score_kappa = true;
    c->norm = NORM_RMS;
    c->place = PLACE_POST;
    c->norm_gain = c->gate_offset = c->bias_qkv = c->bias_out = false;
    c->rope_interleaved = true;
}

bool config_gated_preset(const char *name, model_config *c) {
    int i = config_choice(gated_names, name);
    if (i < 0) return false;
    const gated_preset *p = &gated_presets[i % GATED];
    if (config_recipe(gated_types[i / GATED], c, NULL) != TL_OK) return false;
    c->vocab = p->vocab;
    c->width = p->width;
    c->layers = p->layers;
    c->expand = p->e;
    c->shared = p->s;
    if (c->mixer == MIXER_FLASH) c->chunk = p->chunk;
    c->context = p->context;
    c->drop_embed = c->drop_resid = p->dropout;
    if (strncmp(name, "gau-alpha", 9) == 0) gated_alpha(c);
    config_complete(c);
    return true;
}
