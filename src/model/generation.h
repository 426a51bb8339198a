/* generation_config.json: how a model's makers want it to be sampled from. What a user asks for goes before it. */
#ifndef MODEL_GENERATION_H
#define MODEL_GENERATION_H

#include "base/json.h"
#include "model/config.h"
#include "tilia.h"

/* A negative number: the file does not say. */
typedef struct model_generation {
    double temperature, top_p, min_p, repeat_penalty;
    int64_t top_k, max_tokens;
} model_generation;

void generation_init(model_generation *g);
/* From the parsed file; its end tokens are added to c's. Wrong types and impossible values are CONFIG errors naming the
 * key; keys that mean nothing here are left alone. */
tl_status generation_read(const json_t *o, model_generation *g, model_config *c, tl_error *e);
/* As generation_config.json. NULL: out of memory. */
json_t *generation_write(const model_generation *g, const model_config *c);

/* Marks everything a user can choose as not chosen, and fills in what still is not: from g, then ours. */
void generation_unset(tl_session_options *o);
void generation_fill(const model_generation *g, tl_session_options *o);

#endif
