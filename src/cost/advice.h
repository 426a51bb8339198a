/* cost/advice: what the field knows about shapes, each rule with its source; a rule is a row of advice.def. */
#ifndef COST_ADVICE_H
#define COST_ADVICE_H

#include "model/params.h"

typedef struct advice {
    const char *name, *text, *source;
    double value, low, high; /* the ratio and its usual range */
    bool outside;
} advice;

/* The i-th rule that says something about this model; false behind the last. tokens: of training, 0: not known. */
bool advice_get(const model_config *c, const model_params *p, double tokens, size_t i, advice *out);

/* A model about ten times as large. [fails: CONFIG] */
tl_status advice_grow(const model_config *c, model_config *out, tl_error *err);
/* The same model for `factor` times its context: positions stretched as its kind allows; how: in words. */
tl_status advice_longer(const model_config *c, int64_t factor, model_config *out, const char **how, const char **source,
                        tl_error *err);
/* The FLASH model of the same width and about the same parameters: two gated layers for each. */
tl_status advice_flash(const model_config *c, model_config *out, tl_error *err);

#endif
