/* The rows of recipe.def as a table, for the files of this folder. */
#ifndef MODEL_RECIPE_H
#define MODEL_RECIPE_H

#include "model/config.h"

enum recipe_keys { KEYS_GPT2, KEYS_LLAMA, KEYS_GATED }; /* how config.json calls the sizes */
enum recipe_names {
    NAMES_GPT2,
    NAMES_LLAMA,
    NAMES_GEMMA2,
    NAMES_PHI3,
    NAMES_MIXTRAL,
    NAMES_GATED
}; /* how files call the tensors: names.c */
enum recipe_window {
    WINDOW_NEVER,
    WINDOW_ALL,
    WINDOW_LATE,
    WINDOW_EVEN
}; /* which layers a window counts for:
none, all, those from max_window_layers on, the first and every other */

typedef struct recipe_row {
    const char *type, *architecture, *gguf;
    enum recipe_keys keys;
    enum recipe_names names;
    model_norm norm;
    model_place place;
    double eps, offset;
    int act;
    bool gated;
    model_positions positions;
    bool bias_qkv, bias_out, bias_mlp, bias_norm, tied, qk_norm, embed_sqrt;
    enum recipe_window window;
    model_mixer mixer;
    bool experts; /* its mlp is a mixture of experts, and its keys say so */
} recipe_row;

const recipe_row *recipe_find(const char *type);             /* NULL: not known */
const recipe_row *recipe_find_gguf(const char *s, size_t n); /* the first row of a GGUF architecture */
const recipe_row *recipe_at(size_t i);                       /* NULL behind the last */

extern const char *const config_scaling_names[];            /* by model_scaling, as config.json calls them */
int config_choice(const char *const *names, const char *s); /* -1: none of them */
tl_status config_choice_error(const char *key, const char *value, const char *const *names, tl_error *e);
/* Reads, and writes where they differ from what the family's keys imply, the keys of the "tilia" object. */
tl_status config_parts_read(const json_t *own, model_config *c, tl_error *e);
void config_parts_write(json_t *own, const model_config *c, const model_config *implied);
bool config_parts_know(const char *key);
/* The gated family: config_gated.c. */
extern const char *const config_gated_keys[];
void config_gated_recipe(model_config *c);
tl_status config_gated_read(const json_t *o, model_config *c, tl_error *e);
void config_gated_write(const model_config *c, json_t *o);
void config_gated_implied(const model_config *c, model_config *d);
tl_status config_gated_check(const model_config *c, tl_error *e);
const char *config_gated_preset_name(size_t i, const char **about);
bool config_gated_preset(const char *name, model_config *c); /* false: there is none of that name */
/* Mixtures of experts: config_experts.c. */
tl_status config_experts_read(const json_t *o, model_config *c, tl_error *e);
void config_experts_write(const model_config *c, json_t *o);
void config_experts_implied(const model_config *c, model_config *d);
tl_status config_experts_check(const model_config *c, tl_error *e);
/* What is left to derive when all keys are read: head_dim, windows that no layer has, scales by width. */
void config_complete(model_config *c);
/* A part that differs from the recipe and that the family's own keys cannot say, or NULL: what a foreign program would
 * not understand. */
const char *config_foreign(const model_config *c, char *buf, size_t size);

#endif
