/* model: what a model is. Its configuration (config.json in Hugging Face's keys), the recipes that turn a model_type
 * into parts, parameter tables and names, initial weights, the one builder that makes training, evaluation and decode
 * graphs. Knows operators and graphs; knows no device, no training loop, no HTTP. */
#ifndef MODEL_CONFIG_H
#define MODEL_CONFIG_H

#include "base/json.h"
#include "data/objective.h"
#include "op/attrs.h"

typedef enum model_norm { NORM_LAYER, NORM_RMS, NORM_SCALE, NORM_NONE, NORM_BATCH, NORM_KINDS } model_norm;
typedef enum model_place { PLACE_PRE, PLACE_POST, PLACE_SANDWICH, PLACE_KINDS } model_place;
typedef enum model_positions { POS_LEARNED, POS_SINUSOIDAL, POS_ROPE, POS_ALIBI, POS_NONE, POS_KINDS } model_positions;
typedef enum model_init { INIT_GPT2, INIT_FAN, INIT_XAVIER, INIT_ZERO_OUT, INIT_HE, INIT_KINDS } model_init;
/* What mixes the tokens of a layer. gau and flash are whole layers; the others sit in a block with an mlp. */
typedef enum model_mixer {
    MIXER_ATTENTION,
    MIXER_GAU,
    MIXER_FLASH,
    MIXER_CHUNK,
    MIXER_RETENTION,
    MIXER_SIMPLE_GLA,
    MIXER_GLA,
    MIXER_DELTANET,
    MIXER_GATED_DELTANET,
    MIXER_PERFORMER,
    MIXER_COSFORMER,
    MIXER_LONGFORMER,
    MIXER_LINFORMER,
    MIXER_NYSTROM,
    MIXER_KINDS
} model_mixer;
typedef enum model_scaling {
    SCALING_NONE,
    SCALING_LINEAR,
    SCALING_NTK,
    SCALING_DYNAMIC,
    SCALING_YARN,
    SCALING_LLAMA3,
    SCALING_LONGROPE,
    SCALING_KINDS
} model_scaling;

/* What a bias of relative positions is made of: a number for every distance; two rotated vectors; T5's buckets. */
enum { REL_NONE, REL_TABLE, REL_TOEPLITZ, REL_T5, REL_KINDS };

/* How scores of gated attention are scaled, as the published codes do it; docs/attention.md. */
enum { SCALE_NS, SCALE_PAPER, SCALE_LUCID_GAU, SCALE_LUCID_FLASH, SCALE_KINDS };

enum {
    MODEL_MAX_LAYERS = 1024,
    MODEL_MAX_WIDTH = 1 << 20,
    MODEL_MAX_VOCAB = 1 << 24,
    MODEL_MAX_CONTEXT = 1 << 24,
    MODEL_MAX_FACTORS = 256,
    MODEL_MAX_EXPERTS = 4096,
    MODEL_ENDS = 8 /* tokens that end a text, eos included */
};

/* Everything that decides a model's graph. Filled by a recipe row first, then by the keys of config.json, then by the
 * keys of its "tilia" object, which can select every part by itself. */
typedef struct model_config {
    char type[32]; /* model_type: the recipe's name */
    int64_t vocab, width, layers, heads, kv_heads, head_dim, mlp, context;
    model_norm norm;
    model_place place;
    double norm_eps;
    double norm_offset;    /* gain is offset + w */
    bool parallel;         /* x + attn(norm x) + mlp(norm x) */
    bool no_residual;      /* f(x) instead of x + f(x) everywhere, to see what the sum is for */
    bool qk_norm;          /* RMSNorm over each head of q and k, before RoPE */
    int act;               /* ACT_* */
    double act_beta;       /* silu: x sigmoid(beta x), Swish; 0: 1 */
    bool act_beta_learned; /* a beta of every layer, that starts there */
    bool act_both;         /* mlp is act(gate) * act(up) */
    bool gated;            /* mlp is act(gate) * up */
    model_positions positions;
    double rope_theta, rope_partial; /* partial: rotated fraction of head_dim */
    bool rope_interleaved;
    model_scaling scaling;
    double scaling_factor, scaling_low, scaling_high, scaling_beta_fast, scaling_beta_slow;
    int64_t scaling_context;  /* original_max_position_embeddings */
    double scaling_attention; /* factor on cos and sin; 0: by the scaling's own rule */
    int32_t scaling_factors;  /* longrope: numbers in each list, half of the rotated dims */
    float scaling_short[MODEL_MAX_FACTORS], scaling_long[MODEL_MAX_FACTORS];
    bool bias_qkv, bias_out, bias_mlp, bias_norm, bias_head;
    bool tied;
    double attn_scale; /* 0: 1/sqrt(head_dim) */
    double attn_softcap, final_softcap;
    double embed_scale;                  /* 1 */
    int64_t experts;                     /* mixture of experts: how many a layer has; 0: a plain mlp */
    int64_t experts_used;                /* of a token */
    int64_t expert_mlp;                  /* their width */
    bool expert_norm;                    /* the weights of a token's experts sum to one */
    double router_aux;                   /* of the load-balancing loss, in training */
    uint8_t dense[MODEL_MAX_LAYERS / 8]; /* bit l: layer l has a plain mlp all the same (config_experts) */
    int64_t window;                      /* 0: none; a token sees so many, itself included */
    int64_t landmarks;     /* linformer: rows that keys and values are projected to; nystromformer: means of segments */
    int64_t global_tokens; /* longformer: first tokens of a document that its layers see beside the window */
    uint8_t full[MODEL_MAX_LAYERS / 8]; /* bit l: layer l has no window (config_full) */
    model_mixer mixer;                  /* of every layer, unless there is a pattern */
    int32_t pattern; /* > 0: mixers of the first so many layers, repeated behind them (config_mixer) */
    uint8_t mixers[MODEL_MAX_LAYERS];
    int objective;     /* OBJECTIVE_CAUSAL ..: what the model is trained for, and so what a token may see */
    int64_t encoder;   /* layers of an encoder beside `layers` of a decoder, 0: there is none. They are numbered behind
                          the decoder's */
    int64_t source;    /* tokens of a source, 0: the context */
    int32_t mask;      /* id that stands for a hidden token, -1: none */
    int attn_rel_bias; /* ordinary attention: REL_NONE .., for every head */
    int64_t rel_buckets, rel_distance; /* of REL_T5: numbers of a head, the farthest distance that is told apart */
    bool scaled_sin; /* sinusoids times a learned number, added to the embeddings beside the other positions */
    int64_t shared, expand, gate_heads; /* gated layers: s, e, heads that share Z and split V. A model of gated layers
                                           alone has heads 1, head_dim s, mlp e */
    double gate_fall;                   /* 0: every layer has gate_heads */
    int64_t chunk;                      /* flash, mixed_chunk: tokens of a chunk */
    int chunk_parts;                    /* CHUNK_BOTH, CHUNK_LOCAL, CHUNK_FAR: which halves there are */
    bool chunk_overlap;                 /* by halves of a chunk: a token sees its own and the one before exactly */
    int64_t chunk_landmarks;            /* far chunks that a token reaches exactly, by the means of their keys */
    int64_t grid_rows, grid_cols, grid_window; /* tokens are a grid, line by line, seen in windows of so many lines and
                                                  columns (fewer where there are fewer); 0: they are a text */
    int64_t chunk_outer;    /* tokens of a level above: chunks begin anew in it, before it lies a sum of its own */
    int score, score_count; /* GATE_RELU2 ..; GATE_COUNT_NONE .. */
    int score_scale;        /* SCALE_NS .. */
    double score_fixed;     /* of the fixed count and of scales by length: tokens; 0: the context */
    bool score_kappa;       /* softmax: log-length factor */
    int chunk_norm;         /* CHUNK_VISIBLE, CHUNK_CONST */
    int rel_bias;           /* REL_NONE .. */
    bool token_shift;
    bool temperature;                         /* scores that add up are divided by exp(theta), learned */
    bool sink;                                /* softmax, of attention and of gau: a learned logit in the sum alone */
    bool norm_gain;                           /* norms have a gain, else they scale to length alone */
    bool gate_offset;                         /* heads made by scale and offset have the offset */
    double drop_embed, drop_resid, drop_attn; /* in training: of embeddings, residual branches, attention weights */
    model_init init;
    double init_std;
    int32_t bos, eos;         /* -1: none */
    int32_t ends[MODEL_ENDS]; /* more tokens that end a text, up to MODEL_ENDS - 1 */
    int32_t n_ends;
    bool begin_document; /* a text begins behind an end-of-document id: how Tilia trains where there is no BOS */
} model_config;

/* The recipe's defaults for a model_type; UNSUPPORTED names the known ones. */
tl_status config_recipe(const char *type, model_config *c, tl_error *e);
/* From the parsed config.json. Wrong types, impossible values and unknown keys of "tilia" are CONFIG errors naming the
 * key; other unknown keys are listed, comma separated, in unknown (may be NULL), for a warning. */
tl_status config_read(const json_t *o, model_config *c, char *unknown, size_t unknown_size, tl_error *e);
/* config.json text "{...}", "preset:NAME" or "depth:N". */
tl_status config_parse(const char *text, model_config *c, char *unknown, size_t unknown_size, tl_error *e);
/* As config.json; parts that differ from the recipe go to the "tilia" object. NULL: out of memory. */
json_t *config_write(const model_config *c);
/* One more token that ends a text, unless it is known; what does not fit the vocabulary (if that is known) or the list
 * is dropped. The key "eos_token_id", a number or a list: the first is eos, unless there is one. And as such a value.
 */
void config_add_end(model_config *c, int64_t id);
bool config_is_end(const model_config *c, int32_t id);
tl_status config_read_ends(const json_t *o, model_config *c, tl_error *e);
json_t *config_write_ends(const model_config *c);
/* All checks of a finished configuration: divisibility, ranges, parts that do not go together. */
tl_status config_check(const model_config *c, tl_error *e);

/* Stretches positions by hand: "linear:4", "ntk:4", "dynamic:4" or "yarn:4"; the context grows by the factor. The
 * configuration must be without a scaling of its own. [fails: ARG no such scaling; CONFIG not for this model] */
tl_status config_scale(model_config *c, const char *text, tl_error *e);

/* Layers of which parameters there are: the decoder's (or all there are), then the encoder's. */
static inline int64_t config_layers(const model_config *c) {
    return c->layers + c->encoder;
}
/* The mixer of a layer; is it a whole gated layer; does the model have a layer of that mixer, any gated layer? */
model_mixer config_mixer(const model_config *c, int64_t l);
bool config_gated(const model_config *c, int64_t l);
bool config_has(const model_config *c, model_mixer m);
const char *config_mixer_name(model_mixer m);
bool config_has_gated(const model_config *c);
bool config_all_gated(const model_config *c);
/* Heads of a gated layer: gate_heads, falling with depth as gate_heads / (1 + gate_fall l), rounded up, then down to a
 * divisor of the expansion. */
int64_t config_gate_heads(const model_config *c, int64_t l);
/* Is the memory of a layer one matrix a head (ops chunk_state, delta_rule)? */
bool config_stateful(const model_config *c, int64_t l);
/* Heads that each of a layer's gate_heads (in a block: heads) makes by scale and offset: q, k; in chunks 4, or 2 of
 * one half alone, 6 with a level above. */
int64_t config_gate_parts(const model_config *c, int64_t l);
/* Is a token written without sight of what follows it? With prefix a prompt's tokens see all of the prompt. */
static inline bool config_causal(const model_config *c) {
    return c->objective != OBJECTIVE_MLM;
}
/* Can it write one token after the other? */
static inline bool config_writes(const model_config *c) {
    return config_causal(c) && c->norm != NORM_BATCH;
}
/* The same with the reason: [fails: UNSUPPORTED] */
tl_status config_writer(const model_config *c, tl_error *e);
/* Tokens of a source that the encoder of a model reads at most; 0: it has none. */
static inline int64_t config_source(const model_config *c) {
    return !c->encoder ? 0 : c->source ? c->source : c->context;
}
/* Lines and columns of a window of the grid; those at its right and lower edge hold what is there. */
static inline int64_t config_grid_high(const model_config *c) {
    return c->grid_window < c->grid_rows ? c->grid_window : c->grid_rows;
}
/* Numbers of a window's table of relative positions. */
int64_t config_grid_table(const model_config *c);
static inline int64_t config_grid_wide(const model_config *c) {
    return c->grid_window < c->grid_cols ? c->grid_window : c->grid_cols;
}
static inline bool config_prefix(const model_config *c) {
    return c->objective == OBJECTIVE_PREFIX;
}
/* Does no token of a target ever see what follows it? Not so in a prompt of the objective prefix. */
static inline bool config_one_way(const model_config *c) {
    return c->objective == OBJECTIVE_CAUSAL || c->objective == OBJECTIVE_SEQ2SEQ;
}
/* Does the model read a fixed table of sinusoids, (context, D)? */
static inline bool config_sinusoids(const model_config *c) {
    return c->positions == POS_SINUSOIDAL || c->scaled_sin;
}
/* Changes keys of config.json: n texts KEY=VALUE, the value JSON or a word. layers, width, heads, kv_heads, mlp,
 * context and norm_eps are known in every family, beside its own keys and those of the "tilia" object; heads stay as
 * wide as the width divides. [fails: CONFIG, naming the key] */
tl_status config_set(model_config *c, const char *const *set, size_t n, tl_error *e);
/* A model for this objective: its attention, and room for the token that hides others. [fails: CONFIG] */
tl_status config_objective(model_config *c, int objective, bool may_grow, tl_error *e);

/* Is it softmax attention over keys and values that are kept: attention, longformer? */
bool config_attends(const model_config *c, int64_t l);
bool config_has_attention(const model_config *c);
/* Does layer l see everything? The window of a layer: 0 if so. */
bool config_full(const model_config *c, int64_t l);
void config_set_full(model_config *c, int64_t l, bool full);
int64_t config_window(const model_config *c, int64_t l);
/* Experts of layer l, 0: a plain mlp; layers that have some; marks a layer as plain. */
int64_t config_experts(const model_config *c, int64_t l);
int64_t config_expert_layers(const model_config *c);
void config_set_dense(model_config *c, int64_t l);

/* Presets: tiny, char, char-cpu, gpt2, gpt2-medium, stories... vocab 0 keeps the preset's. */
tl_status config_preset(const char *name, model_config *c, tl_error *e);
/* Name of the i-th preset and what it is, NULL behind the last. */
const char *config_preset_name(size_t i, const char **about);

/* Width, heads, mlp, learning rate and token budget from one number; rules and sources in preset.c. */
typedef struct config_depth_plan {
    double lr;
    int64_t tokens; /* compute-optimal training tokens, 20 a parameter */
} config_depth_plan;
tl_status config_depth(int64_t depth, int64_t vocab, model_config *c, config_depth_plan *plan, tl_error *e);

#endif
