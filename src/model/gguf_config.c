/* The keys of GGUF as a configuration, and back. */
#include "model/gguf.h"
#include "model/recipe.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading ------------------------------------------------------------------------------------------ */

typedef struct reader {
    const gguf *g;
    const gguf_parts *p;
    char arch[48], key[128];
    model_config *c;
    tl_error *e;
} reader;

static const char *key_of(reader *r, const char *tail) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->arch, tail);
    return r->key;
}

static tl_status get_int(reader *r, const char *tail, int64_t max, int64_t *out) {
    return gguf_get_int(r->g, key_of(r, tail), 1, max, out, r->e);
}

static tl_status get_real(reader *r, const char *tail, double *out) {
    TRY(gguf_get_real(r->g, key_of(r, tail), out, r->e));
    if (isfinite(*out)) return TL_OK;
    return error_set(r->e, TL_CONFIG, "%s is not a finite number", r->key);
}

static tl_status need_int(reader *r, const char *tail, int64_t max, int64_t *out) {
    if (!gguf_find(r->g, key_of(r, tail))) return error_set(r->e, TL_CONFIG, "the key %s is missing", r->key);
    return get_int(r, tail, max, out);
}

static bool has(const reader *r, const char *tensor) {
    return gguf_parts_find(r->p, tensor) != NULL;
}

static tl_status read_sizes(reader *r) {
    model_config *c = r->c;
    int64_t value = 0, rope = 0;
    TRY(need_int(r, "block_count", MODEL_MAX_LAYERS, &c->layers));
    TRY(need_int(r, "context_length", MODEL_MAX_CONTEXT, &c->context));
    TRY(need_int(r, "embedding_length", MODEL_MAX_WIDTH, &c->width));
    TRY(need_int(r, "feed_forward_length", 16 * (int64_t)MODEL_MAX_WIDTH, &c->mlp));
    TRY(need_int(r, "attention.head_count", 65536, &c->heads));
    TRY(gguf_get_int(r->g, key_of(r, "expert_count"), 0, MODEL_MAX_EXPERTS, &c->experts, r->e));
    if (c->experts) {
        TRY(need_int(r, "expert_used_count", ROUTE_MOST, &c->experts_used));
        c->expert_mlp = c->mlp;
        c->expert_norm = true; /* what readers do where no key says otherwise */
        TRY(gguf_get_bool(r->g, key_of(r, "expert_weights_norm"), &c->expert_norm, r->e));
        c->router_aux = 0.001;
        TRY(get_int(r, "expert_feed_forward_length", 16 * (int64_t)MODEL_MAX_WIDTH, &c->expert_mlp));
    }
    c->kv_heads = c->heads;
    TRY(get_int(r, "attention.head_count_kv", 65536, &c->kv_heads));
    c->head_dim = c->width / c->heads;
    TRY(get_int(r, "attention.key_length", 65536, &c->head_dim));
    value = c->head_dim;
    TRY(get_int(r, "attention.value_length", 65536, &value));
    if (value != c->head_dim)
        return error_set(r->e, TL_UNSUPPORTED, "values of %lld beside keys of %lld numbers a head are not supported",
                         (long long)value, (long long)c->head_dim);
    rope = c->head_dim;
    TRY(get_int(r, "rope.dimension_count", 65536, &rope));
    if (rope > c->head_dim)
        return error_set(r->e, TL_CONFIG, "%s is %lld, more than a head has", r->key, (long long)rope);
    if (c->positions == POS_ROPE) c->rope_partial = c->head_dim ? (double)rope / (double)c->head_dim : 1;
    TRY(get_real(r, c->norm == NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
                 &c->norm_eps));
    TRY(get_real(r, "rope.freq_base", &c->rope_theta));
    const gguf_tensor *embed = gguf_parts_find(r->p, "token_embd.weight");
    if (!embed) return error_set(r->e, TL_NOTFOUND, "the file has no tensor token_embd.weight: a vocabulary alone?");
    c->vocab = embed->ne[1];
    return TL_OK;
}

static tl_status read_special(reader *r) {
    int64_t bos = -1, eos = -1;
    TRY(gguf_get_int(r->g, "tokenizer.ggml.bos_token_id", 0, UINT32_MAX, &bos, r->e));
    TRY(gguf_get_int(r->g, "tokenizer.ggml.eos_token_id", 0, UINT32_MAX, &eos, r->e));
    TRY(gguf_get_bool(r->g, "tilia.begin_document", &r->c->begin_document, r->e));
    r->c->bos = bos < r->c->vocab ? (int32_t)bos : -1; /* files write 2^32-1 for none */
    r->c->eos = eos < r->c->vocab ? (int32_t)eos : -1;
    static const char *const more[] = {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"};
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) { /* of a turn, of a message: texts end there too */
        int64_t id = -1;
        TRY(gguf_get_int(r->g, more[i], 0, UINT32_MAX, &id, r->e));
        config_add_end(r->c, id);
    }
    return TL_OK;
}

/* Windows: a size, and for some architectures which layers it counts for. */
static tl_status read_window(reader *r, const recipe_row *row) {
    model_config *c = r->c;
    int64_t w = 0;
    TRY(gguf_get_int(r->g, key_of(r, "attention.sliding_window"), 0, UINT32_MAX, &w, r->e));
    c->window = w < c->context ? w : 0; /* one that nothing reaches is none */
    for (int64_t l = 0; l < c->layers; l++) config_set_full(c, l, row->window == WINDOW_EVEN && l % 2 == 1);
    const gguf_value *v = gguf_find(r->g, key_of(r, "attention.sliding_window_pattern"));
    if (!v || !v->array) return TL_OK;
    TRY(gguf_get_array(r->g, r->key, GGUF_BOOL, &v, r->e));
    if ((int64_t)v->count != c->layers)
        return error_set(r->e, TL_CONFIG, "%s has %zu values for %lld layers", r->key, v->count, (long long)c->layers);
    for (int64_t l = 0; l < c->layers; l++) config_set_full(c, l, !v->data[l]);
    return TL_OK;
}

/* A tensor of factors that frequencies are divided by: f32, one for each pair. */
static tl_status read_factors(reader *r, const char *name, float *out, int32_t *n) {
    const gguf_tensor *t = gguf_parts_find(r->p, name);
    if (!t) return TL_OK;
    if (t->type != GGUF_T_F32 || t->dims != 1 || t->ne[0] < 1 || t->ne[0] > MODEL_MAX_FACTORS ||
        (*n && t->ne[0] != *n)) {
        tl_status s = error_set(r->e, TL_SHAPE, "not a vector of f32, one number for each of at most %d pairs",
                                MODEL_MAX_FACTORS);
        error_at_tensor(r->e, name);
        return s;
    }
    *n = (int32_t)t->ne[0];
    memcpy(out, t->data, (size_t)*n * sizeof *out);
    return TL_OK;
}

/* Are the factors what llama3's rule gives? Then the rule is kept, which other files can say. */
static bool looks_like_llama3(reader *r, const float *x, int32_t n) {
    model_config t = *r->c;
    double f[MODEL_MAX_FACTORS], base, m;
    for (int32_t i = 0; i < n; i++)
        if ((double)x[i] > t.scaling_factor) t.scaling_factor = (double)x[i];
    t.scaling = SCALING_LLAMA3;
    if (!t.scaling_context) t.scaling_context = 8192;
    if (build_rope_dims(&t) != 2 * n) return false;
    build_rope_freq(&t, 0, f, &m);
    for (int32_t i = 0; i < n; i++) {
        base = pow(t.rope_theta, -(double)i / (double)n);
        if (!(fabs(base / f[i] - (double)x[i]) < 1e-5 * (double)x[i])) return false;
    }
    *r->c = t;
    return true;
}

static tl_status read_scaling(reader *r) {
    model_config *c = r->c;
    gguf_str type = {0};
    TRY(get_int(r, "rope.scaling.original_context_length", MODEL_MAX_CONTEXT, &c->scaling_context));
    TRY(get_real(r, "rope.scaling.low_freq_factor", &c->scaling_low));
    TRY(get_real(r, "rope.scaling.high_freq_factor", &c->scaling_high));
    TRY(gguf_get_str(r->g, key_of(r, "rope.scaling.type"), &type, r->e));
    int32_t n = 0;
    if (has(r, "rope_freqs.weight")) {
        TRY(read_factors(r, "rope_freqs.weight", c->scaling_long, &n));
        if (looks_like_llama3(r, c->scaling_long, n)) {
            memset(c->scaling_long, 0, sizeof c->scaling_long);
            return TL_OK;
        }
        memcpy(c->scaling_short, c->scaling_long, sizeof c->scaling_long);
        c->scaling = SCALING_LONGROPE;
        c->scaling_factors = n;
        c->scaling_attention = 1;
        return TL_OK;
    }
    if (has(r, "rope_factors_long.weight") && has(r, "rope_factors_short.weight")) {
        TRY(read_factors(r, "rope_factors_long.weight", c->scaling_long, &n));
        TRY(read_factors(r, "rope_factors_short.weight", c->scaling_short, &n));
        c->scaling = SCALING_LONGROPE;
        c->scaling_factors = n;
        c->scaling_factor = c->scaling_context ? fmax(1, (double)c->context / (double)c->scaling_context) : 1;
        double attention = 0, rule;
        TRY(get_real(r, "rope.scaling.attn_factor", &attention));
        build_rope_freq(c, 0, NULL, &rule);
        c->scaling_attention = attention <= 0 || fabs(attention / rule - 1) < 1e-6 ? 0 : attention;
        return TL_OK;
    }
    if (!type.n || (type.n == 4 && !memcmp(type.s, "none", 4))) {
        c->scaling_context = 0;
        return TL_OK;
    }
    bool linear = type.n == 6 && !memcmp(type.s, "linear", 6), yarn = type.n == 4 && !memcmp(type.s, "yarn", 4);
    if (!linear && !yarn)
        return error_set(r->e, TL_UNSUPPORTED, "%s is \"%.*s\"; none, linear and yarn are supported", r->key,
                         (int)(type.n < 40 ? type.n : 40), type.s);
    c->scaling = linear ? SCALING_LINEAR : SCALING_YARN;
    double attention = 1;
    TRY(get_real(r, "rope.scaling.factor", &c->scaling_factor));
    TRY(get_real(r, "rope.scaling.yarn_beta_fast", &c->scaling_beta_fast));
    TRY(get_real(r, "rope.scaling.yarn_beta_slow", &c->scaling_beta_slow));
    TRY(get_real(r, "rope.scaling.attn_factor", &attention)); /* on top of yarn's own */
    if (yarn && attention != 1) c->scaling_attention = attention * (1 + 0.1 * log(c->scaling_factor));
    return TL_OK;
}

static tl_status read_gemma(reader *r) {
    model_config *c = r->c;
    c->embed_scale = sqrt((double)c->width);
    c->attn_softcap = 50;
    c->final_softcap = 30;
    TRY(get_real(r, "attn_logit_softcapping", &c->attn_softcap));
    TRY(get_real(r, "final_logit_softcapping", &c->final_softcap));
    if (c->layers == 46 && c->heads == 32) /* the 27B, whose scale no key tells */
        c->attn_scale = 1 / sqrt((double)c->width / (double)c->heads);
    TRY(get_real(r, "attention.scale", &c->attn_scale));
    return TL_OK;
}

static bool same_tensor(const gguf_tensor *a, const gguf_tensor *b) {
    return a && b && a->type == b->type && a->size == b->size && memcmp(a->data, b->data, a->size) == 0;
}

/* What only the tensors tell. */
static void read_presence(reader *r) {
    model_config *c = r->c;
    c->bias_qkv = has(r, "blk.0.attn_qkv.bias") || has(r, "blk.0.attn_q.bias");
    c->bias_out = has(r, "blk.0.attn_output.bias");
    c->bias_mlp = has(r, "blk.0.ffn_up.bias");
    c->bias_norm = has(r, "blk.0.attn_norm.bias");
    c->bias_head = has(r, "output.bias");
    const gguf_tensor *head = gguf_parts_find(r->p, "output.weight");
    c->tied = !head || same_tensor(head, gguf_parts_find(r->p, "token_embd.weight"));
}

static tl_status find_row(reader *r, const recipe_row **row) {
    gguf_str arch = {0};
    TRY(gguf_get_str(r->g, "general.architecture", &arch, r->e));
    if (!arch.n) return error_set(r->e, TL_CONFIG, "the key general.architecture is missing");
    *row = recipe_find_gguf(arch.s, arch.n);
    if (*row) {
        snprintf(r->arch, sizeof r->arch, "%s", (*row)->gguf);
        return TL_OK;
    }
    char list[200] = "";
    size_t n = 0;
    for (size_t i = 0; recipe_at(i) && n < sizeof list; i++)
        if (recipe_find_gguf(recipe_at(i)->gguf, strlen(recipe_at(i)->gguf)) == recipe_at(i))
            n += (size_t)snprintf(list + n, sizeof list - n, "%s%s", n ? ", " : "", recipe_at(i)->gguf);
    return error_set(r->e, TL_UNSUPPORTED, "general.architecture \"%.*s\" is not known; known are %s",
                     (int)(arch.n < 40 ? arch.n : 40), arch.s, list);
}

/* Architectures of our own, for which GGUF has no keys: config.json as a whole is one. */
static const char own_arch[] = "tilia", own_key[] = "tilia.config";

static bool is_own(reader *r) {
    gguf_str arch = {0};
    return gguf_get_str(r->g, "general.architecture", &arch, NULL) == TL_OK && arch.n == strlen(own_arch) &&
           memcmp(arch.s, own_arch, arch.n) == 0;
}

static tl_status read_own(reader *r) {
    gguf_str text = {0};
    json_t *o;
    TRY(gguf_get_str(r->g, own_key, &text, r->e));
    if (!text.n) return error_set(r->e, TL_CONFIG, "the key %s is missing", own_key);
    TRY(json_parse(text.s, text.n, NULL, &o, r->e));
    tl_status s = config_read(o, r->c, NULL, 0, r->e);
    json_decref(o);
    return s;
}

tl_status config_read_gguf(const gguf_parts *p, model_config *c, tl_error *e) {
    reader r = {.g = &p->part[0], .p = p, .c = c, .e = e};
    const recipe_row *row;
    if (is_own(&r)) return read_own(&r);
    TRY(find_row(&r, &row));
    TRY(config_recipe(row->type, c, e));
    TRY(read_sizes(&r));
    TRY(read_special(&r));
    TRY(read_window(&r, row));
    if (c->experts && strcmp(row->type, "llama") == 0)
        snprintf(c->type, sizeof c->type, "mixtral");
    else if (c->window && strcmp(row->type, "llama") == 0)
        snprintf(c->type, sizeof c->type, "mistral");
    if (c->positions == POS_ROPE) TRY(read_scaling(&r));
    if (strcmp(row->type, "gemma2") == 0) TRY(read_gemma(&r));
    read_presence(&r);
    config_complete(c);
    return config_check(c, e);
}

/* ---- writing ------------------------------------------------------------------------------------------------ */

typedef struct keys {
    gguf_writer *w;
    char arch[48], key[128];
} keys;

static const char *name_of(keys *k, const char *tail) {
    snprintf(k->key, sizeof k->key, "%s.%s", k->arch, tail);
    return k->key;
}

static void put_int(keys *k, const char *tail, int64_t v) {
    gguf_put_u32(k->w, name_of(k, tail), (uint32_t)v);
}

static void put_real(keys *k, const char *tail, double v) {
    gguf_put_f32(k->w, name_of(k, tail), (float)v);
}

static void write_window(keys *k, const model_config *c, const recipe_row *row) {
    if (!c->window) return;
    put_int(k, "attention.sliding_window", c->window);
    if (row->window != WINDOW_LATE) return;
    gguf_put_array(k->w, name_of(k, "attention.sliding_window_pattern"), GGUF_BOOL, (size_t)c->layers);
    for (int64_t l = 0; l < c->layers; l++) gguf_add(k->w, &(uint8_t){!config_full(c, l)}, 1);
}

static tl_status write_scaling(keys *k, const model_config *c, tl_error *e) {
    double rule;
    build_rope_freq(c, 0, NULL, &rule);
    switch (c->scaling) {
    case SCALING_NONE: return TL_OK;
    case SCALING_LINEAR:
        gguf_put_str(k->w, name_of(k, "rope.scaling.type"), "linear", 6);
        put_real(k, "rope.scaling.factor", c->scaling_factor);
        return TL_OK;
    case SCALING_YARN:
        gguf_put_str(k->w, name_of(k, "rope.scaling.type"), "yarn", 4);
        put_real(k, "rope.scaling.factor", c->scaling_factor);
        put_int(k, "rope.scaling.original_context_length", c->scaling_context ? c->scaling_context : c->context);
        put_real(k, "rope.scaling.yarn_beta_fast", c->scaling_beta_fast);
        put_real(k, "rope.scaling.yarn_beta_slow", c->scaling_beta_slow);
        if (c->scaling_attention > 0)
            put_real(k, "rope.scaling.attn_factor", c->scaling_attention / (1 + 0.1 * log(c->scaling_factor)));
        return TL_OK;
    case SCALING_LLAMA3: /* a tensor of factors; these keys are for readers that want the rule back */
        put_int(k, "rope.scaling.original_context_length", c->scaling_context ? c->scaling_context : c->context);
        put_real(k, "rope.scaling.low_freq_factor", c->scaling_low);
        put_real(k, "rope.scaling.high_freq_factor", c->scaling_high);
        return TL_OK;
    case SCALING_LONGROPE:
        if (c->scaling_context) put_int(k, "rope.scaling.original_context_length", c->scaling_context);
        put_real(k, "rope.scaling.attn_factor", rule);
        return TL_OK;
    default:
        return error_set(e, TL_UNSUPPORTED,
                         "GGUF has no word for this rope scaling; linear, yarn, llama3 and longrope "
                         "can be written");
    }
}

/* Parts that only our own configuration can name, but that GGUF's tensors and keys carry all the same. */
static bool carried(const recipe_row *row, const char *part) {
    if (strcmp(part, "rope_interleaved") == 0) return strcmp(row->gguf, "llama") == 0;
    return false;
}

int gguf_factors_of(const model_config *c, gguf_factors out[2]) {
    int64_t n = build_rope_dims(c) / 2;
    if (n > MODEL_MAX_FACTORS) return 0;
    if (c->scaling == SCALING_LLAMA3) {
        double f[MODEL_MAX_FACTORS], m;
        build_rope_freq(c, 0, f, &m);
        out[0].name = "rope_freqs.weight";
        out[0].n = n;
        for (int64_t i = 0; i < n; i++) out[0].x[i] = (float)(pow(c->rope_theta, -(double)i / (double)n) / f[i]);
        return 1;
    }
    if (c->scaling != SCALING_LONGROPE) return 0;
    out[0] = (gguf_factors){.name = "rope_factors_long.weight", .n = c->scaling_factors};
    out[1] = (gguf_factors){.name = "rope_factors_short.weight", .n = c->scaling_factors};
    memcpy(out[0].x, c->scaling_long, sizeof out[0].x);
    memcpy(out[1].x, c->scaling_short, sizeof out[1].x);
    return 2;
}

static tl_status write_own(const model_config *c, gguf_writer *w, tl_error *e) {
    json_t *o = config_write(c);
    char *text = o ? json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(o);
    if (!text) return error_set(e, TL_NOMEM, "no memory for a configuration");
    gguf_put_str(w, "general.architecture", own_arch, strlen(own_arch));
    gguf_put_str(w, "general.type", "model", 5);
    gguf_put_str(w, own_key, text, strlen(text));
    free(text);
    return TL_OK;
}

tl_status config_write_gguf(const model_config *c, gguf_writer *w, tl_error *e) {
    char part[40];
    const recipe_row *row = recipe_find(c->type);
    keys k = {.w = w};
    if (!row->gguf[0]) return write_own(c, w, e);
    if (config_foreign(c, part, sizeof part) && !carried(row, part))
        return error_set(e, TL_UNSUPPORTED, "GGUF has no word for this model's \"%s\"; keep it as a directory", part);
    if (c->experts && config_expert_layers(c) < c->layers)
        return error_set(e, TL_UNSUPPORTED, "GGUF has no word for layers without experts; keep it as a directory");
    bool mixtral = strcmp(c->type, "mixtral") == 0;
    snprintf(k.arch, sizeof k.arch, "%s", row->gguf);
    gguf_put_str(w, "general.architecture", k.arch, strlen(k.arch));
    gguf_put_str(w, "general.type", "model", 5);
    put_int(&k, "block_count", c->layers);
    put_int(&k, "context_length", c->context);
    put_int(&k, "embedding_length", c->width);
    put_int(&k, "feed_forward_length", c->mlp);
    put_int(&k, "attention.head_count", c->heads);
    put_int(&k, "attention.head_count_kv", c->kv_heads);
    put_real(&k, c->norm == NORM_LAYER ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon",
             c->norm_eps);
    put_int(&k, "vocab_size", c->vocab);
    if (c->experts) {
        put_int(&k, "expert_count", c->experts);
        put_int(&k, "expert_used_count", c->experts_used);
        if (!mixtral) put_int(&k, "expert_feed_forward_length", c->expert_mlp);
        if (!c->expert_norm) gguf_put_bool(w, name_of(&k, "expert_weights_norm"), false);
    }
    if (c->begin_document) gguf_put_bool(w, "tilia.begin_document", true);
    if (c->positions != POS_ROPE) return TL_OK;
    put_int(&k, "attention.key_length", c->head_dim);
    put_int(&k, "attention.value_length", c->head_dim);
    put_int(&k, "rope.dimension_count", build_rope_dims(c));
    put_real(&k, "rope.freq_base", c->rope_theta);
    write_window(&k, c, row);
    if (strcmp(c->type, "gemma2") == 0) {
        put_real(&k, "attn_logit_softcapping", c->attn_softcap);
        put_real(&k, "final_logit_softcapping", c->final_softcap);
        if (c->attn_scale > 0) put_real(&k, "attention.scale", c->attn_scale);
    }
    return write_scaling(&k, c, e);
}
