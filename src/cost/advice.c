#include "cost/advice.h"

#include "model/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* The i-th row that applies. */
bool advice_get(const model_config *c, const model_params *p, double tokens, size_t i, advice *out) {
    double D = (double)c->width, L = (double)c->layers, H = (double)c->heads, K = (double)c->kv_heads;
    double W = (double)c->head_dim, F = (double)c->mlp, V = (double)c->vocab, N = (double)p->count, T = tokens;
    double E = (double)(p->count - p->count_no_embedding);
    bool attention = !config_all_gated(c), gated = c->gated;
    size_t at = 0;
#define ADVICE(id, applies, ratio, least, most, says, from)                                                            \
    if ((applies) && at++ == i) {                                                                                      \
        double v = (ratio);                                                                                            \
        *out = (advice){.name = #id, .text = says, .source = from, .value = v, .low = least, .high = most};            \
        out->outside = v < out->low || v > out->high;                                                                  \
        return true;                                                                                                   \
    }
#include "cost/advice.def"
#undef ADVICE
    return false;
}

static int64_t multiple(double x, int64_t of) {
    int64_t n = (int64_t)(x / (double)of + 0.5);
    return (n > 0 ? n : 1) * of;
}

/* N goes with L D^2: width doubled and depth times 2.5 make ten, and the aspect ratio hardly moves. */
tl_status advice_grow(const model_config *c, model_config *out, tl_error *err) {
    *out = *c;
    out->layers = (int64_t)(2.5 * (double)c->layers + 0.5);
    for (int64_t l = 0; l < out->layers && l < MODEL_MAX_LAYERS; l++)
        config_set_full(out, l, config_full(c, l % c->layers));
    if (config_has_gated(c)) out->expand = 2 * c->expand;
    if (config_all_gated(c)) {
        out->width = 2 * c->width;
        out->mlp = out->expand;
        return config_check(out, err);
    }
    out->width = 2 * c->width;
    if (c->head_dim < 64 || (c->head_dim == 64 && out->width > 1024)) /* wider heads before more of them */
        out->head_dim = 2 * c->head_dim;
    else
        out->heads = 2 * c->heads, out->kv_heads = 2 * c->kv_heads;
    out->mlp = multiple((double)c->mlp * (double)out->width / (double)c->width, 64);
    return config_check(out, err);
}

tl_status advice_longer(const model_config *c, int64_t factor, model_config *out, const char **how, const char **source,
                        tl_error *err) {
    char text[32];
    *out = *c;
    out->context = c->context * factor;
    *how = "positions need nothing";
    *source = "Press et al. 2022, 'Train Short, Test Long' (ALiBi), or no positions at all";
    if (c->positions == POS_LEARNED) {
        *how = "learned positions end at the context: the table must be trained anew for more, or replaced by RoPE";
        *source = "Radford et al. 2019; Su et al. 2021, 'RoFormer'";
    } else if (c->positions == POS_SINUSOIDAL) {
        *how = "sinusoids go on for ever, but models trained on short texts do not read them further";
        *source = "Press et al. 2022, figure 1";
    } else if (c->positions == POS_ROPE && c->scaling == SCALING_NONE) {
        *how = "RoPE stretched by YaRN, and a short training on long texts (about 0.1 % of the pre-training)";
        *source = "Peng et al. 2023, 'YaRN', section 4; before it Chen et al. 2023, 'Position Interpolation'";
        snprintf(text, sizeof text, "yarn:%lld", (long long)factor);
        *out = *c; /* config_scale lengthens the context itself */
        return config_scale(out, text, err);
    } else if (c->positions == POS_ROPE) {
        *how = "RoPE is scaled already: raise the factor, and train on long texts";
        *source = "Xiong et al. 2023, 'Effective Long-Context Scaling of Foundation Models'";
    }
    return config_check(out, err);
}

tl_status advice_flash(const model_config *c, model_config *out, tl_error *err) {
    TRY(config_recipe("flash", out, err));
    out->width = c->width;
    out->layers = 2 * c->layers;
    out->mlp = out->expand = 2 * c->width;
    out->vocab = c->vocab;
    out->context = c->context;
    out->tied = c->tied;
    out->drop_embed = c->drop_embed;
    out->drop_resid = c->drop_resid;
    if (out->chunk > c->context) out->chunk = c->context;
    config_complete(out);
    return config_check(out, err);
}
