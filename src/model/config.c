#include "model/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- names of the parts ------------------------------------------------------------------------ */

static const char *const norm_names[] = {"layernorm", "rmsnorm", "scalenorm", "none", "batchnorm", NULL};
static const char *const place_names[] = {"pre", "post", "sandwich", NULL};
static const char *const position_names[] = {"learned", "sinusoidal", "rope", "alibi", "none", NULL};
static const char *const init_names[] = {"gpt2", "fan", "xavier", "zero-out", "he", NULL};
static const char *const rel_names[] = {"none", "table", "toeplitz", "t5", NULL};
static const char *const act_names[] = {"relu",    "gelu", "gelu_tanh", "silu", "relu2",
                                        "sigmoid", "tanh", "identity",  NULL};
static const char *const mixer_names[] = {"attention",  "gau",        "flash",     "mixed_chunk",    "retention",
                                          "simple_gla", "gla",        "deltanet",  "gated_deltanet", "performer",
                                          "cosformer",  "longformer", "linformer", "nystromformer",  NULL};

const char *config_mixer_name(model_mixer m) {
    return mixer_names[m];
}
static const char *const score_names[] = {"relu2",    "laplace", "softplus2", "smooth2",   "smooth1",
                                          "identity", "softmax", "l2",        "relu2_sum", NULL};
static const char *const count_names[] = {"none", "visible", "fixed", "length", NULL};
static const char *const scale_names[] = {"ns", "paper", "lucid_gau", "lucid_flash", NULL};
static const char *const chunk_norm_names[] = {"visible", "constant", NULL};
static const char *const chunk_part_names[] = {"both", "local", "global", NULL};
const char *const config_scaling_names[] = {"default", "linear", "ntk", "dynamic", "yarn", "llama3", "longrope", NULL};

/* ---- the parts by table: keys of the "tilia" object -------------------------------------------------- */

enum part_kind {
    PART_CHOICE,
    PART_SWITCH,
    PART_BOOL,
    PART_REAL,
    PART_INT
}; /* SWITCH: false and true are names 0 and 1 */

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
    {"no_residual", PART_BOOL, AT(no_residual), NULL, 0, 0},
    {"qk_norm", PART_BOOL, AT(qk_norm), NULL, 0, 0},
    {"act", PART_CHOICE, AT(act), act_names, 0, 0},
    {"act_beta", PART_REAL, AT(act_beta), NULL, 0, 100},
    {"act_beta_learned", PART_BOOL, AT(act_beta_learned), NULL, 0, 0},
    {"act_both", PART_BOOL, AT(act_both), NULL, 0, 0},
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
    {"landmarks", PART_INT, AT(landmarks), NULL, 1, 1024},
    {"global_tokens", PART_INT, AT(global_tokens), NULL, 0, MODEL_MAX_CONTEXT},
    {"experts", PART_INT, AT(experts), NULL, 0, MODEL_MAX_EXPERTS},
    {"experts_used", PART_INT, AT(experts_used), NULL, 0, ROUTE_MOST},
    {"expert_mlp", PART_INT, AT(expert_mlp), NULL, 0, 16 * MODEL_MAX_WIDTH},
    {"expert_norm", PART_BOOL, AT(expert_norm), NULL, 0, 0},
    {"router_aux", PART_REAL, AT(router_aux), NULL, 0, 1e3},
    {"init", PART_CHOICE, AT(init), init_names, 0, 0},
    {"kv_heads", PART_INT, AT(kv_heads), NULL, 1, 65536},
    {"head_dim", PART_INT, AT(head_dim), NULL, 1, 65536},
    {"begin_document", PART_BOOL, AT(begin_document), NULL, 0, 0},
    {"mixer", PART_CHOICE, AT(mixer), mixer_names, 0, 0},
    {"score", PART_CHOICE, AT(score), score_names, 0, 0},
    {"score_count", PART_CHOICE, AT(score_count), count_names, 0, 0},
    {"score_scale", PART_CHOICE, AT(score_scale), scale_names, 0, 0},
    {"score_fixed", PART_REAL, AT(score_fixed), NULL, 0, MODEL_MAX_CONTEXT},
    {"score_kappa", PART_BOOL, AT(score_kappa), NULL, 0, 0},
    {"chunk_norm", PART_CHOICE, AT(chunk_norm), chunk_norm_names, 0, 0},
    {"chunk_parts", PART_CHOICE, AT(chunk_parts), chunk_part_names, 0, 0},
    {"grid_rows", PART_INT, AT(grid_rows), NULL, 0, MODEL_MAX_CONTEXT},
    {"grid_cols", PART_INT, AT(grid_cols), NULL, 0, MODEL_MAX_CONTEXT},
    {"grid_window", PART_INT, AT(grid_window), NULL, 1, MODEL_MAX_CONTEXT},
    {"chunk_overlap", PART_BOOL, AT(chunk_overlap), NULL, 0, 0},
    {"chunk_outer", PART_INT, AT(chunk_outer), NULL, 0, MODEL_MAX_CONTEXT},
    {"chunk_landmarks", PART_INT, AT(chunk_landmarks), NULL, 0, REACH_MOST},
    {"chunk_size", PART_INT, AT(chunk), NULL, 1, MODEL_MAX_CONTEXT},
    {"shared_size", PART_INT, AT(shared), NULL, 1, 1024},
    {"expansion", PART_INT, AT(expand), NULL, 1, 8192},
    {"gate_fall", PART_REAL, AT(gate_fall), NULL, 0, 1e3},
    {"gate_heads", PART_INT, AT(gate_heads), NULL, 1, 1024},
    {"heads", PART_INT, AT(heads), NULL, 1, 65536},
    {"mlp", PART_INT, AT(mlp), NULL, 1, 16 * (int64_t)MODEL_MAX_WIDTH},
    {"objective", PART_CHOICE, AT(objective), objective_names, 0, 0},
    {"encoder_layers", PART_INT, AT(encoder), NULL, 0, MODEL_MAX_LAYERS},
    {"source_context", PART_INT, AT(source), NULL, 0, MODEL_MAX_CONTEXT},
    {"attn_rel_bias", PART_SWITCH, AT(attn_rel_bias), rel_names, 0, 0},
    {"rel_buckets", PART_INT, AT(rel_buckets), NULL, 2, 1024},
    {"rel_distance", PART_INT, AT(rel_distance), NULL, 2, MODEL_MAX_CONTEXT},
    {"scaled_sin", PART_BOOL, AT(scaled_sin), NULL, 0, 0},
    {"rel_bias", PART_SWITCH, AT(rel_bias), rel_names, 0, 0},
    {"temperature", PART_BOOL, AT(temperature), NULL, 0, 0},
    {"sink", PART_BOOL, AT(sink), NULL, 0, 0},
    {"norm_gain", PART_BOOL, AT(norm_gain), NULL, 0, 0},
    {"gate_offset", PART_BOOL, AT(gate_offset), NULL, 0, 0},
    {"token_shift", PART_BOOL, AT(token_shift), NULL, 0, 0},
    {"drop_embed", PART_REAL, AT(drop_embed), NULL, 0, 0.99},
    {"drop_resid", PART_REAL, AT(drop_resid), NULL, 0, 0.99},
    {"drop_attn", PART_REAL, AT(drop_attn), NULL, 0, 0.99},
};
#undef AT
enum { PARTS = sizeof parts / sizeof *parts };

int config_choice(const char *const *names, const char *s) {
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], s) == 0) return i;
    return -1;
}

tl_status config_choice_error(const char *key, const char *value, const char *const *names, tl_error *e) {
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
    const json_t *v = json_object_get(o, r->key);
    if (r->kind == PART_SWITCH && json_is_boolean(v)) {
        *(int *)at = json_is_true(v);
        return TL_OK;
    }
    TRY(json_get_str(o, r->key, &s, e));
    if (!s) return TL_OK;
    int i = config_choice(r->names, s);
    if (i < 0) return config_choice_error(r->key, s, r->names, e);
    *(int *)at = i;
    return TL_OK;
}

/* ---- recipes ---------------------------------------------------------------------------------------- */

static const recipe_row recipes[] = {
#define RECIPE(type, ...) {#type, __VA_ARGS__},
#include "model/recipe.def"
#undef RECIPE
};
enum { RECIPES = sizeof recipes / sizeof *recipes };

const recipe_row *recipe_at(size_t i) {
    return i < RECIPES ? &recipes[i] : NULL;
}

const recipe_row *recipe_find_gguf(const char *s, size_t n) {
    for (size_t i = 0; i < RECIPES; i++)
        if (recipes[i].gguf[0] && strlen(recipes[i].gguf) == n && memcmp(recipes[i].gguf, s, n) == 0)
            return &recipes[i];
    return NULL;
}

const recipe_row *recipe_find(const char *type) {
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
    c->place = r->place;
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
    c->bos = c->eos = c->mask = -1;
    c->mixer = r->mixer;
    c->score = GATE_RELU2;
    c->score_count = GATE_COUNT_VISIBLE;
    c->score_scale = SCALE_NS;
    c->gate_heads = 1;
    c->norm_gain = c->gate_offset = true;
    c->rel_buckets = 32;
    c->rel_distance = 128;
    if (r->keys == KEYS_GATED) config_gated_recipe(c);
    return TL_OK;
}

/* ---- parts in and out --------------------------------------------------------------------------------- */

/* Layer l of the encoder is as layer l of the decoder. */
static int64_t twin(const model_config *c, int64_t l) {
    return l >= c->layers ? l - c->layers : l;
}

bool config_full(const model_config *c, int64_t l) {
    l = twin(c, l);
    return !c->window || (c->full[l / 8] >> (l % 8) & 1);
}

void config_set_full(model_config *c, int64_t l, bool full) {
    uint8_t bit = (uint8_t)(1u << (l % 8));
    c->full[l / 8] = (uint8_t)(full ? c->full[l / 8] | bit : c->full[l / 8] & ~bit);
}

int64_t config_window(const model_config *c, int64_t l) {
    return config_mixer(c, l) == MIXER_LONGFORMER ? c->window : config_full(c, l) ? 0 : c->window;
}

bool config_attends(const model_config *c, int64_t l) {
    return config_mixer(c, l) == MIXER_ATTENTION || config_mixer(c, l) == MIXER_LONGFORMER;
}

bool config_has_attention(const model_config *c) {
    return config_has(c, MIXER_ATTENTION) || config_has(c, MIXER_LONGFORMER);
}

bool config_parts_know(const char *key) {
    for (size_t i = 0; i < PARTS; i++)
        if (strcmp(parts[i].key, key) == 0) return true;
    return strcmp(key, "full_layers") == 0 || strcmp(key, "mixers") == 0 || strcmp(key, "mask_token_id") == 0;
}

/* ---- layers ----------------------------------------------------------------------------------------------- */

model_mixer config_mixer(const model_config *c, int64_t l) {
    l = twin(c, l);
    return c->pattern > 0 ? (model_mixer)c->mixers[l % c->pattern] : c->mixer;
}

bool config_gated(const model_config *c, int64_t l) {
    model_mixer m = config_mixer(c, l);
    return m == MIXER_GAU || m == MIXER_FLASH;
}

int64_t config_gate_heads(const model_config *c, int64_t l) {
    l = twin(c, l);
    int64_t h = (int64_t)ceil((double)c->gate_heads / (1 + c->gate_fall * (double)l));
    while (h > 1 && c->expand % h) h--;
    return h;
}

bool config_stateful(const model_config *c, int64_t l) {
    const model_mixer m = config_mixer(c, l);
    return m >= MIXER_RETENTION && m <= MIXER_COSFORMER;
}

bool config_has(const model_config *c, model_mixer m) {
    for (int64_t l = 0; l < config_layers(c); l++)
        if (config_mixer(c, l) == m) return true;
    return false;
}

bool config_has_gated(const model_config *c) {
    return config_has(c, MIXER_GAU) || config_has(c, MIXER_FLASH);
}

bool config_all_gated(const model_config *c) {
    for (int64_t l = 0; l < config_layers(c); l++)
        if (!config_gated(c, l)) return false;
    return true;
}

int64_t config_gate_parts(const model_config *c, int64_t l) {
    const model_mixer m = config_mixer(c, l);
    if (m != MIXER_FLASH && m != MIXER_CHUNK) return 2;
    return c->chunk_outer ? 6 : c->chunk_parts == CHUNK_BOTH ? 4 : 2;
}

/* "mixers": names of the layers' mixers; a shorter list repeats. */
static tl_status mixers_read(const json_t *list, model_config *c, tl_error *e) {
    size_t n = json_array_size(list);
    if (!json_is_array(list) || !n || (int64_t)n > c->layers)
        return error_set(e, TL_CONFIG, "key \"mixers\" is not a list of 1 to %lld names", (long long)c->layers);
    for (size_t i = 0; i < n; i++) {
        const char *name = json_string_value(json_array_get(list, i));
        int k = name ? config_choice(mixer_names, name) : -1;
        if (k < 0) return config_choice_error("mixers", name ? name : "no text", mixer_names, e);
        c->mixers[i] = (uint8_t)k;
    }
    c->pattern = (int32_t)n;
    return TL_OK;
}

tl_status config_parts_read(const json_t *own, model_config *c, tl_error *e) {
    for (size_t i = 0; i < PARTS; i++) TRY(part_read(&parts[i], own, c, e));
    int64_t mask = c->mask;
    TRY(json_get_int(own, "mask_token_id", 0, INT32_MAX, &mask, e));
    c->mask = (int32_t)mask;
    const json_t *mixers = json_object_get(own, "mixers"), *full = json_object_get(own, "full_layers");
    if (mixers) TRY(mixers_read(mixers, c, e));
    if (!full) return TL_OK;
    if (!json_is_array(full)) return error_set(e, TL_CONFIG, "key \"full_layers\" is not a list of layers");
    memset(c->full, 0, sizeof c->full);
    for (size_t i = 0; i < json_array_size(full); i++) {
        const json_t *l = json_array_get(full, i);
        if (!json_is_integer(l) || json_integer_value(l) < 0 || json_integer_value(l) >= c->layers)
            return error_set(e, TL_CONFIG, "key \"full_layers\" names a layer that is not there");
        config_set_full(c, json_integer_value(l), true);
    }
    return TL_OK;
}

static bool part_same(const part_row *r, const model_config *a, const model_config *b) {
    static const size_t size[] = {sizeof(int), sizeof(int), sizeof(bool), sizeof(double), sizeof(int64_t)};
    return memcmp((const char *)a + r->at, (const char *)b + r->at, size[r->kind]) == 0;
}

void config_parts_write(json_t *own, const model_config *c, const model_config *d) {
    for (size_t i = 0; i < PARTS; i++) {
        const part_row *r = &parts[i];
        const void *x = (const char *)c + r->at;
        if (part_same(r, c, d)) continue;
        json_t *v = r->kind == PART_BOOL                            ? json_boolean(*(const bool *)x)
                    : r->kind == PART_INT                           ? json_integer(*(const int64_t *)x)
                    : r->kind == PART_REAL                          ? json_real(*(const double *)x)
                    : r->kind == PART_SWITCH && *(const int *)x < 2 ? json_boolean(*(const int *)x)
                                                                    : json_string(r->names[*(const int *)x]);
        json_object_set_new(own, r->key, v);
    }
    if (c->mask >= 0) json_object_set_new(own, "mask_token_id", json_integer(c->mask));
    if (c->pattern > 0) {
        json_t *list = json_array();
        for (int32_t i = 0; i < c->pattern; i++) json_array_append_new(list, json_string(mixer_names[c->mixers[i]]));
        json_object_set_new(own, "mixers", list);
    }
    if (memcmp(c->full, d->full, sizeof c->full) == 0) return;
    json_t *full = json_array();
    for (int64_t l = 0; l < c->layers; l++)
        if (c->window && config_full(c, l)) json_array_append_new(full, json_integer(l));
    json_object_set_new(own, "full_layers", full);
}

void config_complete(model_config *c) {
    if (c->grid_rows || c->grid_cols) { /* a window is a chunk */
        if (!c->grid_window) c->grid_window = 16;
        if (config_grid_high(c) > 0 && config_grid_wide(c) > 0) c->chunk = config_grid_high(c) * config_grid_wide(c);
    }
    if (c->encoder) c->objective = OBJECTIVE_SEQ2SEQ;
    if (c->objective == OBJECTIVE_SEQ2SEQ && !c->encoder) c->encoder = c->layers;
    bool chunks = config_has(c, MIXER_FLASH) || config_has(c, MIXER_CHUNK);
    if (chunks && !c->chunk) c->chunk = 256;
    if (config_has_gated(c) && !c->shared) c->shared = 128;
    if (config_has_gated(c) && !c->expand) c->expand = 2 * c->width;
    if (c->layers && config_all_gated(c)) { /* no other layer: what counts heads and widths sees the gated ones' */
        c->heads = c->kv_heads = 1;
        c->head_dim = c->shared;
        c->mlp = c->expand;
    } else if (recipe_find(c->type)->keys == KEYS_GATED) {
        if (!c->heads) c->heads = c->width % 64 == 0 && c->width >= 128 ? c->width / 64 : 1;
        if (!c->mlp) c->mlp = c->gated ? (8 * c->width / 3 + 31) / 32 * 32 : 4 * c->width;
    }
    if (!c->kv_heads) c->kv_heads = c->heads;
    if (!c->head_dim && c->heads) c->head_dim = c->width / c->heads;
    if ((config_has(c, MIXER_LINFORMER) || config_has(c, MIXER_NYSTROM)) && !c->landmarks) c->landmarks = 64;
    bool any = false;
    for (int64_t l = 0; l < c->layers && !any; l++) any = !config_full(c, l) || config_mixer(c, l) == MIXER_LONGFORMER;
    if (!any) c->window = 0;
    if (!c->window) memset(c->full, 0, sizeof c->full);
}

tl_status config_scale(model_config *c, const char *text, tl_error *e) {
    static const struct {
        const char *name;
        model_scaling kind;
    } kinds[] = {
        {"linear:", SCALING_LINEAR}, {"ntk:", SCALING_NTK}, {"dynamic:", SCALING_DYNAMIC}, {"yarn:", SCALING_YARN}};
    if (c->positions != POS_ROPE) return error_set(e, TL_CONFIG, "this model's positions are not rotary");
    if (c->scaling != SCALING_NONE)
        return error_set(e, TL_CONFIG, "the model has a rope scaling already: %s", config_scaling_names[c->scaling]);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        size_t n = strlen(kinds[i].name);
        if (strncmp(text, kinds[i].name, n) != 0) continue;
        char *end;
        double factor = strtod(text + n, &end);
        if (end == text + n || *end || !(factor >= 1 && factor <= 1024) ||
            (double)c->context * factor > (double)MODEL_MAX_CONTEXT)
            return error_set(e, TL_ARG, "\"%s\" has no factor from 1 to 1024 that the context could grow by", text);
        c->scaling = kinds[i].kind;
        c->scaling_factor = factor;
        c->scaling_context = c->context;
        c->context = (int64_t)((double)c->context * factor);
        return TL_OK;
    }
    return error_set(e, TL_ARG, "\"%s\" is no rope scaling; it can be linear:N, ntk:N, dynamic:N or yarn:N", text);
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

/* ---- changing keys -------------------------------------------------------------------------------------- */

/* What every family has, by its own names; NULL: in the "tilia" object. By enum recipe_keys. */
static const struct {
    const char *key, *family[3];
} common_keys[] = {{"layers", {"n_layer", "num_hidden_layers", "num_hidden_layers"}},
                   {"width", {"n_embd", "hidden_size", "hidden_size"}},
                   {"heads", {"n_head", "num_attention_heads", NULL}},
                   {"kv_heads", {NULL, "num_key_value_heads", NULL}},
                   {"mlp", {"n_inner", "intermediate_size", NULL}},
                   {"context", {"n_positions", "max_position_embeddings", "max_position_embeddings"}},
                   {"norm_eps", {"layer_norm_epsilon", "rms_norm_eps", "norm_eps"}}};

static const char *family_key(const recipe_row *r, const char *key) {
    for (size_t i = 0; i < sizeof common_keys / sizeof *common_keys; i++)
        if (strcmp(common_keys[i].key, key) == 0 && common_keys[i].family[r->keys])
            return common_keys[i].family[r->keys];
    return key;
}

static json_t *own_object(json_t *o) {
    json_t *own = json_object_get(o, "tilia");
    if (own) return own;
    json_object_set_new(o, "tilia", json_object());
    return json_object_get(o, "tilia");
}

static tl_status set_one(json_t *o, const model_config *c, const char *text, tl_error *e) {
    char name[48];
    const char *eq = strchr(text, '=');
    size_t n = eq ? (size_t)(eq - text) : 0;
    if (!n || n >= sizeof name) return error_set(e, TL_CONFIG, "\"%s\" is not KEY=VALUE", text);
    memcpy(name, text, n);
    name[n] = 0;
    const char *key = family_key(recipe_find(c->type), name);
    json_t *v = NULL;
    tl_error none;
    if (json_parse(eq + 1, strlen(eq + 1), NULL, &v, &none) != TL_OK) v = json_string(eq + 1);
    if (strcmp(name, "heads") == 0 || strcmp(name, "width") == 0) { /* derived again unless they were chosen */
        json_t *own = own_object(o);
        if (c->head_dim * c->heads == c->width) json_object_del(o, "head_dim"), json_object_del(own, "head_dim");
        if (c->kv_heads == c->heads) json_object_del(o, "num_key_value_heads"), json_object_del(own, "kv_heads");
    }
    const bool outer = json_object_get(o, key) || key != name || !config_parts_know(key);
    json_object_set_new(outer ? o : own_object(o), key, v);
    return TL_OK;
}

/* By way of config.json's text, so that a key means here what it means there. */
tl_status config_set(model_config *c, const char *const *set, size_t n, tl_error *e) {
    char unknown[64];
    if (!n) return TL_OK;
    json_t *o = config_write(c);
    if (!o) return error_set(e, TL_NOMEM, "no memory for a configuration");
    tl_status s = TL_OK;
    for (size_t i = 0; i < n && s == TL_OK; i++) s = set_one(o, c, set[i], e);
    if (s == TL_OK) s = config_read(o, c, unknown, sizeof unknown, e);
    if (s == TL_OK && unknown[0]) s = error_set(e, TL_CONFIG, "there is no key \"%s\"", unknown);
    json_decref(o);
    return s;
}

tl_status config_writer(const model_config *c, tl_error *e) {
    if (c->norm == NORM_BATCH)
        return error_set(e, TL_UNSUPPORTED,
                         "batchnorm takes its statistics from whole batches: such a model cannot write one token after "
                         "the other");
    if (!config_causal(c))
        return error_set(e, TL_UNSUPPORTED,
                         "the model sees what follows a token (objective %s), so it cannot write one after the other",
                         objective_names[c->objective]);
    return TL_OK;
}

tl_status config_objective(model_config *c, int objective, bool may_grow, tl_error *e) {
    if (c->encoder && objective != OBJECTIVE_SEQ2SEQ)
        return error_set(e, TL_CONFIG, "a model with an encoder learns targets from sources: --objective seq2seq");
    if (objective == OBJECTIVE_SEQ2SEQ && !c->encoder) {
        if (!may_grow)
            return error_set(e, TL_CONFIG, "the objective seq2seq needs an encoder: the model has no encoder_layers");
        c->encoder = c->layers;
    }
    c->objective = objective;
    if (objective == OBJECTIVE_MLM && c->mask < 0) {
        if (!may_grow)
            return error_set(e, TL_CONFIG,
                             "the objective mlm needs a token that hides others: the model has no mask_token_id");
        c->mask = (int32_t)c->vocab++;
    }
    return config_check(c, e);
}

/* ---- checks ------------------------------------------------------------------------------------------- */

static tl_status state_check(const model_config *c, tl_error *e) {
    for (int64_t l = 0; l < c->layers; l++) {
        const model_mixer m = config_mixer(c, l);
        if (config_prefix(c) && m != MIXER_ATTENTION && m != MIXER_GAU)
            return error_set(e, TL_CONFIG,
                             "the objective prefix is for \"attention\" and \"gau\": \"%s\" knows what came before by "
                             "a running sum, in which no token of a prompt finds the prompt's end",
                             mixer_names[m]);
        if (!config_stateful(c, l)) continue;
        if (c->kv_heads != c->heads)
            return error_set(e, TL_CONFIG, "\"%s\" gives every head its own keys and values: kv_heads must be %lld",
                             mixer_names[m], (long long)c->heads);
        if (m < MIXER_PERFORMER && !config_causal(c))
            return error_set(e, TL_CONFIG, "\"%s\" decays from token to token: it has no form that sees both sides",
                             mixer_names[m]);
        if (m == MIXER_RETENTION && c->positions == POS_ALIBI)
            return error_set(e, TL_CONFIG, "\"retention\" has decays of its own in the place of ALiBi's slopes");
    }
    return TL_OK;
}

/* An encoder and what it asks of the parts. */
static tl_status encoder_check(const model_config *c, tl_error *e) {
    if ((c->objective == OBJECTIVE_SEQ2SEQ) != (c->encoder > 0))
        return error_set(e, TL_CONFIG, "the objective seq2seq and encoder_layers go together");
    if (!c->encoder) return TL_OK;
    if (c->encoder > MODEL_MAX_LAYERS || config_source(c) > MODEL_MAX_CONTEXT)
        return error_set(e, TL_CONFIG, "an encoder of %lld layers for %lld tokens is too large", (long long)c->encoder,
                         (long long)config_source(c));
    if (c->parallel || c->place == PLACE_SANDWICH || c->experts)
        return error_set(e, TL_CONFIG,
                         "beside an encoder blocks are serial, without experts, their norm is pre or post");
    if (c->positions == POS_LEARNED && config_source(c) > c->context)
        return error_set(e, TL_CONFIG, "source_context %lld, but the model has learned positions for %lld only",
                         (long long)config_source(c), (long long)c->context);
    for (int64_t l = c->layers; l < config_layers(c); l++) {
        const model_mixer m = config_mixer(c, l);
        if (config_stateful(c, l) && m < MIXER_PERFORMER)
            return error_set(e, TL_CONFIG,
                             "\"%s\" decays from token to token: an encoder, which sees both sides, cannot "
                             "have it",
                             mixer_names[m]);
        if ((config_attends(c, l) && c->attn_rel_bias) || (m == MIXER_GAU && c->rel_bias))
            if (config_source(c) > c->context)
                return error_set(e, TL_CONFIG, "a table of relative positions is for source_context up to the context");
    }
    return TL_OK;
}

static tl_status rel_check(const model_config *c, const char *key, int kind, int64_t width, tl_error *e) {
    if (kind == REL_TOEPLITZ && (width % 2 || width > 1024))
        return error_set(e, TL_CONFIG, "\"%s\": \"toeplitz\" rotates pairs of a width up to 1024, not of %lld", key,
                         (long long)width);
    const int64_t ways = config_one_way(c) && !c->encoder ? 1 : 2;
    if (kind == REL_T5 &&
        (c->rel_buckets % ways || c->rel_buckets < 2 * ways || c->rel_distance <= c->rel_buckets / ways / 2))
        return error_set(
            e, TL_CONFIG,
            "\"%s\": \"t5\" needs buckets in equal parts, two or more to a side, and a rel_distance above half "
            "of them, not %lld and %lld",
            key, (long long)c->rel_buckets, (long long)c->rel_distance);
    return TL_OK;
}

/* Options of parts that another part must be there for. */
static tl_status parts_check(const model_config *c, tl_error *e) {
    const bool gau = config_has(c, MIXER_GAU), chunks = config_has(c, MIXER_FLASH) || config_has(c, MIXER_CHUNK);
    TRY(rel_check(c, "attn_rel_bias", c->attn_rel_bias, c->head_dim, e));
    if (config_has_gated(c)) TRY(rel_check(c, "rel_bias", c->rel_bias, c->shared, e));
    if (config_has(c, MIXER_CHUNK)) TRY(rel_check(c, "rel_bias", c->rel_bias, c->head_dim, e));
    if (!c->norm_gain && c->norm == NORM_SCALE)
        return error_set(e, TL_CONFIG, "\"norm\": \"scalenorm\" is a gain and no more: \"norm_gain\" cannot be false");
    if (c->temperature && !gau && !chunks)
        return error_set(e, TL_CONFIG, "\"temperature\" belongs to layers of gau, flash or mixed_chunk");
    if (c->temperature && c->score >= GATE_SOFTMAX)
        return error_set(e, TL_CONFIG,
                         "\"temperature\" belongs to a score that adds up, not to one that is normalised");
    if (c->temperature && c->chunk_parts == CHUNK_FAR)
        return error_set(e, TL_CONFIG, "\"chunk_parts\": \"global\" has no scores for a \"temperature\"");
    const bool longformer = config_has(c, MIXER_LONGFORMER), linformer = config_has(c, MIXER_LINFORMER);
    if (linformer && c->objective != OBJECTIVE_MLM)
        return error_set(
            e, TL_CONFIG,
            "\"linformer\" projects the keys of the whole text before any query reads them, so every token sees "
            "what follows it: it has no causal form; \"objective\" must be mlm");
    const bool nystrom = config_has(c, MIXER_NYSTROM);
    if (nystrom && c->objective != OBJECTIVE_MLM)
        return error_set(e, TL_CONFIG,
                         "\"nystromformer\" takes means of the whole text before any row reads them, so every token "
                         "sees what follows it: it has no causal form; \"objective\" must be mlm");
    if (nystrom && (c->kv_heads != c->heads || c->attn_softcap > 0))
        return error_set(e, TL_CONFIG,
                         "\"nystromformer\" gives every head its own keys and knows no soft cap: kv_heads must be %lld",
                         (long long)c->heads);
    if (c->landmarks && !linformer && !nystrom)
        return error_set(e, TL_CONFIG, "\"landmarks\" belongs to layers of linformer or nystromformer");
    if (longformer && !c->window)
        return error_set(e, TL_CONFIG,
                         "\"longformer\" needs a \"window\": tokens that its layers see, itself included");
    if (c->global_tokens && !longformer)
        return error_set(e, TL_CONFIG, "\"global_tokens\" belongs to layers of longformer");
    if (c->sink && !config_has_attention(c) && !gau)
        return error_set(e, TL_CONFIG, "\"sink\" belongs to layers of softmax attention or of gau");
    if (c->sink && gau && c->score != GATE_SOFTMAX)
        return error_set(e, TL_CONFIG, "\"sink\" of a gated layer belongs to \"score\": \"softmax\"");
    if (c->act_beta_learned && c->act_beta == 0)
        return error_set(e, TL_CONFIG, "\"act_beta_learned\" needs an \"act_beta\" to start from");
    if (c->act_beta > 0 && c->act != ACT_SILU)
        return error_set(e, TL_CONFIG, "\"act_beta\" is the slope of \"act\": \"silu\"");
    if (c->act_both && (!c->gated || config_all_gated(c)))
        return error_set(e, TL_CONFIG, "\"act_both\" belongs to a gated mlp");
    if (c->experts && (c->act_beta > 0 || c->act_both))
        return error_set(e, TL_CONFIG, "experts know neither \"act_beta\" nor \"act_both\"");
    return TL_OK;
}

int64_t config_grid_table(const model_config *c) {
    return (2 * config_grid_high(c) - 1) * (2 * config_grid_wide(c) - 1);
}

/* Tokens of two dimensions. */
static tl_status grid_check(const model_config *c, tl_error *e) {
    const long long rows = c->grid_rows, cols = c->grid_cols;
    if (!rows && !cols) return TL_OK;
    const int64_t high = config_grid_high(c), wide = config_grid_wide(c);
    if (rows < 1 || cols < 1 || high < 1 || wide < 1)
        return error_set(e, TL_CONFIG, "a grid of %lld x %lld in windows of %lld x %lld", rows, cols, (long long)high,
                         (long long)wide);
    if (rows * cols != c->context)
        return error_set(e, TL_CONFIG, "a grid of %lld x %lld, but a context of %lld", rows, cols,
                         (long long)c->context);
    if (config_causal(c))
        return error_set(e, TL_CONFIG,
                         "a grid has no order in which one token follows another: it needs the objective mlm");
    if (c->attn_rel_bias || c->token_shift || c->positions == POS_ALIBI || c->window)
        return error_set(e, TL_CONFIG,
                         "in a grid there is no distance along a line: no attn_rel_bias, token shift, ALiBi, window");
    if (c->rel_bias && (c->rel_bias != REL_TABLE || config_has(c, MIXER_GAU)))
        return error_set(e, TL_CONFIG,
                         "in a grid \"rel_bias\" is a table of lines and columns within a window: \"table\", and for "
                         "layers of flash and mixed_chunk, which have windows");
    if (c->positions == POS_ROPE &&
        (int64_t)((double)(config_has_gated(c) ? c->shared : c->head_dim) * c->rope_partial) % 4)
        return error_set(e, TL_CONFIG,
                         "a grid's RoPE rotates a half of the numbers by lines, a half by columns: 4 must divide them");
    return TL_OK;
}

tl_status config_check(const model_config *c, tl_error *e) {
    const struct {
        const char *key;
        int64_t v;
    } needed[] = {{"vocab_size", c->vocab}, {"width", c->width},       {"layers", c->layers},  {"heads", c->heads},
                  {"mlp width", c->mlp},    {"head_dim", c->head_dim}, {"context", c->context}};
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (needed[i].v < 1) return error_set(e, TL_CONFIG, "%s is missing or not positive", needed[i].key);
    if (c->layers > MODEL_MAX_LAYERS || c->width > MODEL_MAX_WIDTH || c->vocab > MODEL_MAX_VOCAB)
        return error_set(e, TL_CONFIG, "too large: %lld layers, width %lld, vocabulary %lld", (long long)c->layers,
                         (long long)c->width, (long long)c->vocab);
    if (c->head_dim * c->heads > 16 * (int64_t)MODEL_MAX_WIDTH)
        return error_set(e, TL_CONFIG, "%lld heads of %lld are too wide", (long long)c->heads, (long long)c->head_dim);
    if (c->kv_heads < 1 || c->heads % c->kv_heads)
        return error_set(e, TL_CONFIG, "%lld heads cannot share %lld key-value heads evenly", (long long)c->heads,
                         (long long)c->kv_heads);
    if (c->positions == POS_ROPE) {
        const int64_t width[] = {c->head_dim, config_has_gated(c) ? c->shared : c->head_dim};
        for (int i = 0; i < 2; i++) {
            int64_t r = (int64_t)((double)width[i] * c->rope_partial);
            if (r < 2 || r % 2)
                return error_set(e, TL_CONFIG, "RoPE rotates pairs, but %lld of %lld of a head are to be rotated",
                                 (long long)r, (long long)width[i]);
        }
        if (!(c->rope_theta > 1)) return error_set(e, TL_CONFIG, "rope_theta is %g; it must be above 1", c->rope_theta);
        if (!(c->scaling_factor >= 1)) return error_set(e, TL_CONFIG, "rope scaling factor is %g", c->scaling_factor);
    }
    if (c->scaling == SCALING_LONGROPE) {
        if (c->positions != POS_ROPE ||
            2 * (int64_t)c->scaling_factors != (int64_t)((double)c->head_dim * c->rope_partial))
            return error_set(e, TL_CONFIG, "longrope needs %lld numbers in each list of factors and has %d",
                             (long long)((double)c->head_dim * c->rope_partial / 2), c->scaling_factors);
        for (int32_t k = 0; k < c->scaling_factors; k++)
            if (!(c->scaling_short[k] > 0 && c->scaling_short[k] < 1e9f && c->scaling_long[k] > 0 &&
                  c->scaling_long[k] < 1e9f))
                return error_set(e, TL_CONFIG, "number %d of a list of longrope factors is not positive", k);
    }
    if (config_sinusoids(c) && c->width % 2)
        return error_set(e, TL_CONFIG, "sinusoidal positions need an even width, not %lld", (long long)c->width);
    if (c->parallel && c->no_residual)
        return error_set(e, TL_CONFIG, "a parallel block is a sum: it cannot go with \"no_residual\"");
    if (c->parallel && c->place != PLACE_PRE)
        return error_set(e, TL_CONFIG, "a parallel block needs \"norm_place\": \"pre\"");
    TRY(parts_check(c, e));
    TRY(config_gated_check(c, e));
    TRY(state_check(c, e));
    TRY(encoder_check(c, e));
    TRY(grid_check(c, e));
    if (c->mask >= c->vocab)
        return error_set(e, TL_CONFIG, "mask_token_id %d is outside the vocabulary of %lld", c->mask,
                         (long long)c->vocab);
    TRY(config_experts_check(c, e));
    if (!(c->norm_eps >= 0 && c->norm_eps < 1)) return error_set(e, TL_CONFIG, "norm epsilon is %g", c->norm_eps);
    if (!(c->drop_embed >= 0 && c->drop_embed < 1) || !(c->drop_resid >= 0 && c->drop_resid < 1) ||
        !(c->drop_attn >= 0 && c->drop_attn < 1))
        return error_set(e, TL_CONFIG, "dropout must be at least 0 and below 1");
    if (!(c->init_std >= 0 && c->init_std < 100))
        return error_set(e, TL_CONFIG, "initializer_range is %g", c->init_std);
    if (c->bos >= c->vocab || c->eos >= c->vocab)
        return error_set(e, TL_CONFIG, "bos or eos token id is outside the vocabulary of %lld", (long long)c->vocab);
    return TL_OK;
}
