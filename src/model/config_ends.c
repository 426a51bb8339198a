/* The tokens that end a text: several, in the configuration's key and in generation_config.json's. */
#include "model/config.h"

void config_add_end(model_config *c, int64_t id) {
    if (id < 0 || id > INT32_MAX || (c->vocab && id >= c->vocab)) return;
    if (c->eos < 0) {
        c->eos = (int32_t)id;
        return;
    }
    if (!config_is_end(c, (int32_t)id) && c->n_ends < MODEL_ENDS - 1) c->ends[c->n_ends++] = (int32_t)id;
}

bool config_is_end(const model_config *c, int32_t id) {
    bool yes = id == c->eos && id >= 0;
    for (int32_t i = 0; i < c->n_ends; i++) yes |= c->ends[i] == id;
    return yes;
}

tl_status config_read_ends(const json_t *o, model_config *c, tl_error *e) {
    const json_t *v = json_object_get(o, "eos_token_id");
    if (!v || json_is_null(v)) return TL_OK;
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    if (n > MODEL_ENDS) return error_set(e, TL_CONFIG, "key \"eos_token_id\" has more than %d ids", MODEL_ENDS);
    for (size_t i = 0; i < n; i++) {
        const json_t *x = json_is_array(v) ? json_array_get(v, i) : v;
        int64_t id = json_is_integer(x) ? json_integer_value(x) : -1;
        if (id < 0 || id > INT32_MAX || (c->vocab && id >= c->vocab))
            return error_set(e, TL_CONFIG,
                             "key \"eos_token_id\" has no token id, or one outside the vocabulary of %lld",
                             (long long)c->vocab);
        config_add_end(c, id);
    }
    return TL_OK;
}

json_t *config_write_ends(const model_config *c) {
    if (c->eos < 0) return json_null();
    if (!c->n_ends) return json_integer(c->eos);
    json_t *list = json_array();
    json_array_append_new(list, json_integer(c->eos));
    for (int32_t i = 0; i < c->n_ends; i++) json_array_append_new(list, json_integer(c->ends[i]));
    return list;
}
