/* Mixtures of experts in a configuration: keys of config.json, checks. */
#include "model/recipe.h"

#include <string.h>

static bool is_mixtral(const model_config *c) {
    return strcmp(c->type, "mixtral") == 0;
}

int64_t config_experts(const model_config *c, int64_t l) {
    return c->dense[l / 8] >> (l % 8) & 1 ? 0 : c->experts;
}

int64_t config_expert_layers(const model_config *c) {
    int64_t n = 0;
    for (int64_t l = 0; c->experts && l < c->layers; l++) n += config_experts(c, l) > 0;
    return n;
}

void config_set_dense(model_config *c, int64_t l) {
    c->dense[l / 8] = (uint8_t)(c->dense[l / 8] | 1u << (l % 8));
}

/* qwen3_moe says which layers have experts: every n-th, but not those of a list. */
static tl_status read_dense(const json_t *o, model_config *c, tl_error *e) {
    int64_t step = 1;
    TRY(json_get_int(o, "decoder_sparse_step", 1, MODEL_MAX_LAYERS, &step, e));
    for (int64_t l = 0; l < c->layers; l++)
        if ((l + 1) % step) config_set_dense(c, l);
    const json_t *list = json_object_get(o, "mlp_only_layers");
    if (!list || json_is_null(list)) return TL_OK;
    if (!json_is_array(list)) return error_set(e, TL_CONFIG, "key \"mlp_only_layers\" is not a list of layers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *l = json_array_get(list, i);
        if (!json_is_integer(l) || json_integer_value(l) < 0 || json_integer_value(l) >= c->layers)
            return error_set(e, TL_CONFIG, "key \"mlp_only_layers\" names a layer that is not there");
        config_set_dense(c, json_integer_value(l));
    }
    return TL_OK;
}

tl_status config_experts_read(const json_t *o, model_config *c, tl_error *e) {
    bool mixtral = is_mixtral(c);
    c->experts = mixtral ? 8 : 128;
    c->experts_used = mixtral ? 2 : 8;
    c->expert_mlp = mixtral ? c->mlp : 768;
    c->expert_norm = mixtral;
    c->router_aux = 0.001;
    TRY(json_get_int(o, "num_experts", 1, MODEL_MAX_EXPERTS, &c->experts, e));
    TRY(json_get_int(o, "num_local_experts", 1, MODEL_MAX_EXPERTS, &c->experts, e));
    TRY(json_get_int(o, "num_experts_per_tok", 1, ROUTE_MOST, &c->experts_used, e));
    TRY(json_get_real(o, "router_aux_loss_coef", &c->router_aux, e));
    if (mixtral) return TL_OK;
    TRY(json_get_int(o, "moe_intermediate_size", 1, 16 * (int64_t)MODEL_MAX_WIDTH, &c->expert_mlp, e));
    TRY(json_get_bool(o, "norm_topk_prob", &c->expert_norm, e));
    return read_dense(o, c, e);
}

void config_experts_write(const model_config *c, json_t *o) {
    json_object_set_new(o, is_mixtral(c) ? "num_local_experts" : "num_experts", json_integer(c->experts));
    json_object_set_new(o, "num_experts_per_tok", json_integer(c->experts_used));
    json_object_set_new(o, "router_aux_loss_coef", json_real(c->router_aux));
    json_object_set_new(o, "output_router_logits", json_false());
    if (is_mixtral(c)) return;
    json_object_set_new(o, "moe_intermediate_size", json_integer(c->expert_mlp));
    json_object_set_new(o, "norm_topk_prob", json_boolean(c->expert_norm));
    json_object_set_new(o, "decoder_sparse_step", json_integer(1));
    json_t *list = json_array();
    for (int64_t l = 0; l < c->layers; l++)
        if (!config_experts(c, l)) json_array_append_new(list, json_integer(l));
    json_object_set_new(o, "mlp_only_layers", list);
}

void config_experts_implied(const model_config *c, model_config *d) {
    d->experts = c->experts;
    d->experts_used = c->experts_used;
    d->router_aux = c->router_aux;
    d->expert_mlp = is_mixtral(c) ? c->mlp : c->expert_mlp;
    d->expert_norm = is_mixtral(c) || c->expert_norm;
}

tl_status config_experts_check(const model_config *c, tl_error *e) {
    if (!c->experts) return TL_OK;
    if (c->experts < 1 || c->experts > MODEL_MAX_EXPERTS || c->experts_used < 1 || c->experts_used > c->experts ||
        c->experts_used > ROUTE_MOST)
        return error_set(e, TL_CONFIG, "%lld of %lld experts a token; at most %d of %d", (long long)c->experts_used,
                         (long long)c->experts, ROUTE_MOST, MODEL_MAX_EXPERTS);
    if (c->expert_mlp < 1 || c->expert_mlp > 16 * (int64_t)MODEL_MAX_WIDTH)
        return error_set(e, TL_CONFIG, "experts of width %lld", (long long)c->expert_mlp);
    if (!(c->router_aux >= 0 && c->router_aux <= 1e3))
        return error_set(e, TL_CONFIG, "router_aux_loss_coef is %g; it can be 0 to 1000", c->router_aux);
    if (config_has_gated(c) || !c->gated || c->bias_mlp)
        return error_set(e, TL_CONFIG, "experts are gated mlps without biases beside attention");
    return TL_OK;
}
