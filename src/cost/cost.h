/* cost: what a model will need, before anything is allocated. Everything here is a sum over dry plans (graphs without
 * memory) or over the parameter table; there is no second formula anywhere. Knows models and machines; nothing of
 * training loops, files of runs, or the command line.
 *
 * walk.h tells a plan's steps apart, machine.h says what machines can do, measure.h measures this one, scaling.h fits
 * scaling laws. */
#ifndef COST_COST_H
#define COST_COST_H

#include "cost/graphs.h"
#include "cost/walk.h"
#include "model/gguf.h"
#include "tilia.h"

typedef struct cost_part {
    const char *name;         /* "attention", "mlp", "head" ... */
    double forward, backward; /* operations, a multiply-add as two */
    double products, dots;    /* of these, both directions: dot products' own, and how many dot products */
    double bytes;             /* read and written */
    double limit, seconds;    /* on the machine asked for: what its limits allow, what is expected; 0 without one */
    double compute;           /* of limit: the share of steps that computing binds, not bandwidth */
} cost_part;

typedef struct cost_report {
    tl_model_costs total;
    cost_part part[COST_PARTS];
    int64_t tokens;           /* of the batch */
    double attention_full;    /* forward operations of attention's products over the full square, all layers */
    double attention_average; /* and over half of it, the causal average that others count */
    double limit, seconds, bytes;
    double weight_bytes; /* of matrices that a pass streams */
    size_t state_fixed;  /* bytes of a sequence's state whatever its length */
    size_t handed;       /* bytes that segments of a sequence hand on */
    size_t batch;        /* bytes of ids and small inputs of a training step */
    int64_t trained;     /* parameters with gradients */
    size_t mapped;       /* bytes of weights that stay in their file, not part of the memory */
    size_t memory;       /* everything that is held */
} cost_report;

/* Sums up the plans of q. m: machine for the times, or NULL. [allocates: graphs, no weights] */
tl_status cost_sum(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m, cost_report *out,
                   tl_error *err);
/* rows sequences of context tokens; train: forward, backward and optimizer state, else one forward pass.
 * lora: adapters, which alone are trained then; mapped: matrices as a file has them; both may be NULL. */
tl_status cost_of(tl_engine *e, const model_config *c, const model_lora *lora, const build_matrices *mapped,
                  int64_t rows, int64_t context, tl_dtype dtype, bool train, tl_recompute recompute, cost_report *out,
                  tl_error *err);
/* A prompt of q->context tokens through one sequence's cache, by the pieces in which a decoder takes it. */
tl_status cost_prefill(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m, cost_report *out,
                       tl_error *err);

/* Operations by convention: 2: a multiply-add is two; 1: it is one; -1: a dot product of length n is 2n-1. */
double cost_flops(const cost_part *p, int convention);

/* ---- memory ---- */

/* Bytes of all weights if matrices are stored as fn says (NULL: as dtype), vectors as f32. */
size_t cost_weight_bytes(const model_config *c, const model_params *p, tl_dtype dtype, model_dtype_fn fn, void *user);

/* The most sequences (TRAIN, FORWARD: q->rows; DECODE: q->slots) of q->context tokens, and the longest context of one
 * sequence, that fit into bytes. 0: not even one. weights: bytes of the weights, 0: as the plan has them. */
tl_status cost_fit(tl_engine *e, const model_config *c, const cost_request *q, size_t weights, size_t bytes,
                   int64_t *rows, int64_t *context, tl_error *err);

/* Bytes in use at every step of the first plan of q. kept: what was made in the forward pass and is still needed;
 * passing: the rest of the arena; scratch: the kernels'. Arrays of n are the caller's to free with e's allocator. */
typedef struct cost_timeline {
    size_t n;
    double *kept, *passing, *scratch, *seconds; /* seconds: when the step ends, by the machine; else its number */
    size_t arena;                               /* what the plan allocates: at least the largest sum */
    size_t turn;                                /* first step of the backward pass; n: none */
} cost_timeline;
tl_status cost_memory(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m, cost_timeline *out,
                      tl_error *err);
void cost_timeline_free(tl_engine *e, cost_timeline *t);

/* ---- decoding ---- */

/* From how many sequences at a time on a decode step is bound by computing. weights_only: as if nothing but weights
 * were moved and multiplied; with_cache: as it is with `context` positions in the cache; infinite: never. context: the
 * longest for which some batch is; infinite: any. */
typedef struct cost_crossing {
    double weights_only, with_cache, context;
} cost_crossing;
tl_status cost_crossover(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m,
                         cost_crossing *out, tl_error *err);

#endif
