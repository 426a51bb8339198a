/* Presets, and the rules that derive a model from its depth. */
#include "model/recipe.h"

#include <math.h>
#include <string.h>

typedef struct preset_row {
    const char *name, *type, *about;
    int64_t vocab, width, layers, heads, kv_heads, mlp, context;
    double dropout;
    int act;
    bool bias, tied;
} preset_row;

/* char and char-cpu are nanoGPT's train_shakespeare_char: GPT-2 without biases, exact GELU. The gpt2 rows are the
 * published models. stories is the 15M shape of the TinyStories Llamas. */
static const preset_row presets[] = {
    {"tiny", "llama", "0.1M, for tests and first steps", 257, 64, 2, 4, 2, 192, 128, 0, ACT_SILU, false, true},
    {"demo", "llama", "what tilia demo trains", 257, 128, 3, 4, 4, 352, 256, 0, ACT_SILU, false, true},
    {"char", "gpt2", "10.7M, nanoGPT's shakespeare_char", 65, 384, 6, 6, 6, 1536, 256, 0.2, ACT_GELU, false, true},
    {"char-cpu", "gpt2", "0.8M, nanoGPT's shakespeare_char for CPUs", 65, 128, 4, 4, 4, 512, 64, 0, ACT_GELU, false,
     true},
    {"char-moe", "qwen3_moe", "2.4M, 0.8M of them active: 2 of 8 experts", 65, 128, 4, 4, 4, 176, 128, 0, ACT_SILU,
     false, true},
    {"stories", "llama", "15M, the TinyStories shape", 32000, 288, 6, 6, 6, 768, 256, 0, ACT_SILU, false, true},
    {"gpt2", "gpt2", "124M", 50257, 768, 12, 12, 12, 3072, 1024, 0, ACT_GELU_TANH, true, true},
    {"gpt2-medium", "gpt2", "355M", 50257, 1024, 24, 16, 16, 4096, 1024, 0, ACT_GELU_TANH, true, true},
    {"gpt2-large", "gpt2", "774M", 50257, 1280, 36, 20, 20, 5120, 1024, 0, ACT_GELU_TANH, true, true},
    {"gpt2-xl", "gpt2", "1.6B", 50257, 1600, 48, 25, 25, 6400, 1024, 0, ACT_GELU_TANH, true, true},
};
enum { PRESETS = sizeof presets / sizeof *presets };

const char *config_preset_name(size_t i, const char **about) {
    if (i >= PRESETS) return config_gated_preset_name(i - PRESETS, about);
    if (about) *about = presets[i].about;
    return presets[i].name;
}

tl_status config_preset(const char *name, model_config *c, tl_error *e) {
    const preset_row *p = NULL;
    for (size_t i = 0; i < PRESETS; i++)
        if (strcmp(presets[i].name, name) == 0) p = &presets[i];
    if (!p && config_gated_preset(name, c)) return config_check(c, e);
    if (!p) {
        char list[400] = "";
        for (size_t i = 0; config_preset_name(i, NULL); i++) {
            if (i) strncat(list, ", ", sizeof list - strlen(list) - 1);
            strncat(list, config_preset_name(i, NULL), sizeof list - strlen(list) - 1);
        }
        return error_set(e, TL_CONFIG, "no preset \"%s\"; there are %s", name, list);
    }
    TRY(config_recipe(p->type, c, e));
    c->vocab = p->vocab;
    c->width = p->width;
    c->layers = p->layers;
    c->heads = p->heads;
    c->kv_heads = p->kv_heads;
    c->head_dim = p->width / p->heads;
    c->mlp = p->mlp;
    c->context = p->context;
    c->drop_embed = c->drop_resid = c->drop_attn = p->dropout;
    c->act = p->act;
    c->tied = p->tied;
    if (recipe_find(p->type)->experts) { /* 2 of 8, of width mlp; the coefficient is the Switch Transformer's */
        c->experts = 8;
        c->experts_used = 2;
        c->expert_mlp = p->mlp;
        c->expert_norm = true;
        c->router_aux = 0.01;
    }
    if (!p->bias) c->bias_qkv = c->bias_out = c->bias_mlp = c->bias_norm = false;
    return config_check(c, e);
}

/* One number decides. Width 128 x depth: an aspect ratio of about 100 to 128 is where loss is flat (Kaplan et al. 2020,
 * figure 5: within 1 % from 50 to 300). Heads 64 wide up to width 1024, then 128, as in GPT-3's table 2.1 and Llama.
 * SwiGLU of 8/3 width, rounded up to 64 (Shazeer 2020; Touvron et al. 2023). Learning rate
 * 0.003239 - 0.0001395 ln N (Kaplan et al., equation D.1, N without embeddings). Tokens 20 N (Hoffmann et al. 2022). */
tl_status config_depth(int64_t depth, int64_t vocab, model_config *c, config_depth_plan *plan, tl_error *e) {
    if (depth < 1 || depth > 256) return error_set(e, TL_CONFIG, "depth is %lld; it can be 1 to 256", (long long)depth);
    TRY(config_recipe("llama", c, e));
    c->layers = depth;
    c->width = 128 * depth;
    c->head_dim = c->width <= 1024 ? 64 : 128;
    c->heads = c->kv_heads = c->width / c->head_dim;
    c->mlp = (8 * c->width / 3 + 63) / 64 * 64;
    c->vocab = vocab ? vocab : 257;
    c->context = depth <= 4 ? 256 : depth <= 8 ? 512 : 1024;
    c->tied = true;
    if (plan) {
        double n =
            (double)depth * (4.0 * (double)c->width * (double)c->width + 3.0 * (double)c->width * (double)c->mlp);
        plan->lr = fmax(0.003239 - 0.0001395 * log(n), 1e-5);
        plan->tokens = (int64_t)(20 * (n + (double)c->vocab * (double)c->width));
    }
    return config_check(c, e);
}
