/* cost/graphs: the plans that a way of using a model runs, made dry to be counted or whole to be timed. */
#ifndef COST_GRAPHS_H
#define COST_GRAPHS_H

#include "engine/engine.h"
#include "graph/plan.h"
#include "model/build.h"

/* TRAIN: one step, forward, backward, norm, optimizer. FORWARD: the loss of a batch. DECODE: rows tokens over caches of
 * `context` positions for `slots` sequences. */
typedef enum cost_mode { COST_TRAIN, COST_FORWARD, COST_DECODE } cost_mode;

typedef struct cost_request {
    cost_mode mode;
    int64_t rows; /* TRAIN, FORWARD: sequences at a time; DECODE: tokens at a time */
    int64_t context, slots;
    tl_dtype dtype, cache;        /* TL_NONE: f32 */
    tl_dtype blocks;              /* DECODE: number type of every matrix; TL_NONE: dtype */
    const build_matrices *mapped; /* matrices as a file has them; NULL: as parameters, or DECODE by blocks */
    const model_lora *lora;       /* TRAIN: adapters, which alone are trained then; NULL: none */
    tl_recompute recompute;
    int64_t segment; /* TRAIN, FORWARD: tokens of a sequence computed at a time; 0: all */
} cost_request;

typedef struct cost_graph {
    tl_graph *graph;
    tl_plan *plan;
    build_result build;
} cost_graph;

enum { COST_GRAPHS = 4 };
/* TRAIN fills g[0] forward and backward, g[1] norm, g[2] update, and by segments g[3], forward alone; the others g[0]
 * alone. dry: counted, not run. */
tl_status graphs_make(tl_engine *e, const model_config *c, const model_params *p, const cost_request *q, bool dry,
                      cost_graph g[COST_GRAPHS], tl_error *err);
void graphs_free(tl_engine *e, cost_graph *g, int n);
/* Bytes that one run of all of them passes through. */
double graphs_footprint(const cost_graph *g, int n);

#endif
