#include "cost/graphs.h"

#include "model/update.h"

#include <string.h>

/* Every matrix in the pieces of a GGUF file, as numbers of one type; where a block does not divide a row, as f16 like
 * those who write such files. */
static tl_status matrices_of(const model_config *c, const model_params *p, tl_dtype type, const tl_allocator *a,
                             build_matrices *m) {
    m->n = p->n * PARAM_PIECES;
    m->piece = mem_new(a, m->n, sizeof *m->piece);
    if (!m->piece) return TL_NOMEM;
    for (size_t i = 0; i < p->n; i++) {
        param_piece piece[PARAM_PIECES];
        if (!p->list[i].decay) continue;
        int n = params_pieces(c, &p->list[i], FORMAT_GGUF, piece);
        for (int k = 0; k < n; k++)
            m->piece[i * PARAM_PIECES + (size_t)k] =
                (build_matrix){.dtype = piece[k].cols % tl_dtype_block(type) ? TL_F16 : type,
                               .rows = piece[k].rows,
                               .cols = piece[k].cols};
    }
    return TL_OK;
}

static tl_status model_graph(tl_engine *e, const model_config *c, const model_params *p, const cost_request *q,
                             const build_matrices *mapped, bool dry, bool ahead, cost_graph *g, tl_error *err) {
    static const build_mode modes[] = {BUILD_TRAIN, BUILD_EVAL, BUILD_DECODE};
    build_options o = {.mode = modes[q->mode],
                       .rows = q->rows,
                       .context = q->context,
                       .segment = q->segment,
                       .advance = ahead,
                       .slots = q->slots > 0 ? q->slots : 1,
                       .dtype = q->dtype ? q->dtype : TL_F32,
                       .cache = q->cache ? q->cache : TL_F32,
                       .trainable = q->mode == COST_TRAIN,
                       .lora = q->lora,
                       .mapped = mapped};
    o.outputs = o.rows < o.slots ? o.rows : o.slots;
    TRY(build_model(g->graph, tl_engine_allocator(e), c, p, &o, &g->build, err));
    if (q->mode == COST_TRAIN && !q->segment)
        tl_graph_backward(g->graph, g->build.loss, NULL, 0, NULL, q->recompute);
    else if (q->mode == COST_TRAIN && !ahead)
        TRY(build_segment_backward(g->graph, tl_engine_allocator(e), &g->build, q->recompute, err));
    return tl_plan_create(g->graph, dry, &g->plan, err);
}

static tl_status make(tl_engine *e, const model_config *c, const model_params *p, const cost_request *q,
                      const build_matrices *mapped, bool dry, cost_graph *g, tl_error *err) {
    int n = q->mode != COST_TRAIN ? 1 : q->segment ? 4 : 3;
    for (int i = 0; i < n; i++)
        if (tl_graph_create(e, &g[i].graph) != TL_OK) return error_set(err, TL_NOMEM, "no memory for a graph");
    TRY(model_graph(e, c, p, q, mapped, dry, false, &g[0], err));
    if (n == 1) return TL_OK;
    if (n > 3) TRY(model_graph(e, c, p, q, mapped, dry, true, &g[3], err));
    if (q->lora) p = &q->lora->params; /* what has gradients */
    tl_tensor *x, *norm;
    update_inputs u;
    update_norm(g[1].graph, p, &x, &norm);
    TRY(tl_plan_create(g[1].graph, dry, &g[1].plan, err));
    update_adamw(g[2].graph, p, q->dtype == TL_BF16, &u);
    return tl_plan_create(g[2].graph, dry, &g[2].plan, err);
}

tl_status graphs_make(tl_engine *e, const model_config *c, const model_params *p, const cost_request *q, bool dry,
                      cost_graph g[COST_GRAPHS], tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    build_matrices own = {0};
    const build_matrices *mapped = q->mode == COST_DECODE || q->lora ? q->mapped : NULL;
    memset(g, 0, COST_GRAPHS * sizeof *g);
    if (q->mode == COST_DECODE && !mapped && q->blocks) {
        if (matrices_of(c, p, q->blocks, a, &own) != TL_OK) return error_set(err, TL_NOMEM, "no memory for a plan");
        mapped = &own;
    }
    tl_status s = make(e, c, p, q, mapped, dry, g, err);
    if (s != TL_OK) graphs_free(e, g, COST_GRAPHS);
    mem_free(a, own.piece);
    return s;
}

void graphs_free(tl_engine *e, cost_graph *g, int n) {
    for (int i = 0; i < n; i++) {
        tl_plan_destroy(g[i].plan);
        build_fini(&g[i].build, tl_engine_allocator(e));
        tl_graph_destroy(g[i].graph);
        memset(&g[i], 0, sizeof g[i]);
    }
}

double graphs_footprint(const cost_graph *g, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (g[i].plan && (double)(g[i].plan->info.arena_bytes + g[i].plan->info.bound_bytes) > sum)
            sum = (double)g[i].plan->info.arena_bytes + (double)g[i].plan->info.bound_bytes;
    return sum;
}
