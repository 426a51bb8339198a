/* cost: what a model will need, before anything is allocated. Everything here is a sum over a dry plan (graphs without
 * memory) or over the parameter table; there is no second formula anywhere. */
#ifndef COST_COST_H
#define COST_COST_H

#include "model/build.h"
#include "tilia.h"

typedef struct cost_part {
    const char *name;         /* "attention", "mlp", "head" ... */
    double forward, backward; /* flops */
    double bytes;
} cost_part;

enum { COST_EMBED, COST_NORM, COST_PROJECTION, COST_ATTENTION, COST_MLP, COST_HEAD, COST_OTHER, COST_PARTS };

typedef struct cost_report {
    tl_model_costs total;
    cost_part part[COST_PARTS];
    int64_t tokens;        /* of the batch */
    int64_t trained;       /* parameters with gradients */
    size_t mapped;         /* bytes of weights that stay in their file */
    double attention_full; /* flops forward of attention if the full square were counted, as some conventions do */
} cost_report;

/* rows sequences of context tokens; train: forward, backward and optimizer state, else one forward pass.
 * lora: adapters, which alone are trained then; mapped: matrices as a file has them; both may be NULL.
 * [allocates: the graph, no weights] */
tl_status cost_of(tl_engine *e, const model_config *c, const model_lora *lora, const build_matrices *mapped,
                  int64_t rows, int64_t context, tl_dtype dtype, bool train, bool recompute, cost_report *out,
                  tl_error *err);

#endif
