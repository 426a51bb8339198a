#include "model/generation.h"

#include <math.h>

void generation_init(model_generation *g) {
    *g = (model_generation){-1, -1, -1, -1, -1, -1};
}

/* A number of [min, max]; null and absent leave it as it is. */
static tl_status read_real(const json_t *o, const char *key, double min, double max, double *out, tl_error *e) {
    double v = *out;
    TRY(json_get_real(o, key, &v, e));
    const json_t *x = json_object_get(o, key);
    if (!x || json_is_null(x)) return TL_OK;
    if (!(v >= min && v <= max))
        return error_set(e, TL_CONFIG, "key \"%s\" is %g; it can be %g to %g", key, v, min, max);
    *out = v;
    return TL_OK;
}

tl_status generation_read(const json_t *o, model_generation *g, model_config *c, tl_error *e) {
    bool sample = true;
    generation_init(g);
    if (!json_is_object(o)) return error_set(e, TL_CONFIG, "generation_config.json is not an object");
    TRY(json_get_bool(o, "do_sample", &sample, e));
    TRY(read_real(o, "temperature", 0, 1e6, &g->temperature, e));
    TRY(read_real(o, "top_p", 0, 1, &g->top_p, e));
    TRY(read_real(o, "min_p", 0, 1, &g->min_p, e));
    TRY(read_real(o, "repetition_penalty", 1e-3, 1e3, &g->repeat_penalty, e));
    TRY(json_get_int(o, "top_k", 0, INT32_MAX, &g->top_k, e));
    TRY(json_get_int(o, "max_new_tokens", 1, INT32_MAX, &g->max_tokens, e));
    if (!sample) g->temperature = 0;
    return config_read_ends(o, c, e);
}

static void put_real(json_t *o, const char *key, double v) {
    if (v >= 0) json_object_set_new(o, key, json_real(v));
}

json_t *generation_write(const model_generation *g, const model_config *c) {
    json_t *o = json_object();
    if (!o) return NULL;
    if (c->bos >= 0) json_object_set_new(o, "bos_token_id", json_integer(c->bos));
    if (c->eos >= 0) json_object_set_new(o, "eos_token_id", config_write_ends(c));
    if (g->temperature >= 0) json_object_set_new(o, "do_sample", json_boolean(g->temperature > 0));
    put_real(o, "temperature", g->temperature > 0 ? g->temperature : -1); /* other readers refuse 0 */
    put_real(o, "top_p", g->top_p);
    put_real(o, "min_p", g->min_p);
    put_real(o, "repetition_penalty", g->repeat_penalty);
    if (g->top_k >= 0) json_object_set_new(o, "top_k", json_integer(g->top_k));
    if (g->max_tokens >= 0) json_object_set_new(o, "max_new_tokens", json_integer(g->max_tokens));
    return o;
}

void generation_unset(tl_session_options *o) {
    o->temperature = o->top_p = o->min_p = o->repeat_penalty = -1;
    o->top_k = -1;
    o->max_tokens = -1;
}

static float choose(float asked, double file, double ours) {
    return asked >= 0 ? asked : (float)(file >= 0 ? file : ours);
}

void generation_fill(const model_generation *g, tl_session_options *o) {
    o->temperature = choose(o->temperature, g->temperature, 0.8);
    o->top_p = choose(o->top_p, g->top_p, 0.95);
    o->min_p = choose(o->min_p, g->min_p, 0);
    o->repeat_penalty = choose(o->repeat_penalty, g->repeat_penalty, 0);
    if (o->top_k < 0) o->top_k = g->top_k >= 0 ? (int32_t)g->top_k : 0;
    if (o->max_tokens < 0) o->max_tokens = g->max_tokens >= 0 ? g->max_tokens : 256;
}
