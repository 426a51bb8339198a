#include "cost/cost.h"

#include "model/segments.h"
#include "op/opcost.h"

#include <math.h>
#include <string.h>

/* ---- sums -------------------------------------------------------------------------------------------------------- */

/* again: what is done a second time, whose operations count with the backward pass. */
static void sum_step(const cost_step *s, cost_machine *m, double times, bool again, cost_report *r) {
    cost_part *t = &r->part[s->part];
    const bool backward = s->backward || again;
    double flops = times * (s->cost.flops + s->cost.special);
    *(backward ? &t->backward : &t->forward) += flops;
    if (s->part != COST_OPTIMIZER) *(backward ? &r->total.backward_flops : &r->total.forward_flops) += flops;
    double bytes = times * (s->cost.bytes_read + s->cost.bytes_written);
    t->bytes += bytes;
    r->bytes += bytes;
    t->products += times * s->products;
    t->dots += times * s->dots;
    if (s->weight) r->weight_bytes += times * cost_bytes(&s->step->call.in[1].d);
    if (!m) return;
    bool compute;
    double limit = times * walk_limit(m, s, &compute), seconds = times * walk_seconds(m, s);
    t->limit += limit;
    t->seconds += seconds;
    if (compute) t->compute += limit;
    r->limit += limit;
    r->seconds += seconds;
}

static void sum_plan(const tl_plan *p, cost_machine *m, double seen, double times, bool again, double footprint,
                     cost_report *r) {
    for (size_t i = 0; p && i < p->n_steps; i++) {
        cost_step s;
        walk_step(p, i, seen, footprint, &s);
        sum_step(&s, m, times, again, r);
    }
}

/* Weights as they lie in memory: f32 masters and a bf16 copy of the matrices, or only what the decoder maps. */
static void sum_memory(const model_config *c, const model_params *p, const cost_request *q, cost_report *r) {
    const build_matrices *mapped = q->lora || q->mode == COST_DECODE ? q->mapped : NULL;
    size_t base = (size_t)(mapped ? p->total - p->decayed + 16 : p->total) * sizeof(float), flat = base;
    size_t halves = mapped ? 0 : (size_t)p->decayed;
    bool train = q->mode == COST_TRAIN, half = q->dtype == TL_BF16;
    tl_dtype cache = q->mode == COST_DECODE && q->cache ? q->cache : half ? TL_BF16 : TL_F32;
    tl_model_costs *t = &r->total;
    t->params = r->trained = p->count;
    t->params_no_embedding = p->count_no_embedding;
    t->params_active = p->count_active;
    if (q->lora) {
        flat = (size_t)q->lora->params.total * sizeof(float);
        halves += (size_t)q->lora->params.total;
        r->trained = q->lora->params.count;
    }
    t->weights = base + (q->lora ? flat : 0) + (half ? 2 * halves : 0);
    if (q->blocks) t->weights = cost_weight_bytes(c, p, q->blocks, NULL, NULL);
    r->mapped = build_mapped_bytes(mapped);
    t->gradients = train ? flat : 0;
    t->optimizer = train ? 2 * flat : 0;
    t->cache_per_token = build_state_per_token(c, cache);
    r->state_fixed = build_state_fixed(c, cache);
    if (train) r->batch = 4 * (size_t)(q->rows * q->context) * sizeof(int32_t);
    r->memory = t->weights + t->gradients + t->optimizer + t->activations + r->handed + r->batch;
    if (q->mode == COST_DECODE)
        r->memory += (size_t)(q->slots > 0 ? q->slots : 1) * (r->state_fixed + t->cache_per_token * (size_t)q->context);
}

static void begin(cost_report *r) {
    memset(r, 0, sizeof *r);
    for (int i = 0; i < COST_PARTS; i++) r->part[i].name = cost_part_name[i];
}

/* What others count for attention's two products, forward; windows are none of their business. */
static void others_count(const model_config *c, cost_report *r, double tokens, double context) {
    double layers = 0;
    for (int64_t l = 0; l < c->layers; l++) layers += config_mixer(c, l) == MIXER_ATTENTION;
    r->attention_full = 4 * tokens * context * layers * (double)(c->heads * c->head_dim);
    r->attention_average = r->attention_full / 2;
}

/* Training keeps what every segment was handed, and two gradients of it; evaluation what comes in and what goes out. */
static size_t handed_on(const cost_request *q, const build_result *b) {
    const int64_t places = q->mode == COST_TRAIN ? segments_count(q->context, q->segment) + 2 : 2;
    return segments_bytes(b, q->rows, q->segment, places);
}

tl_status cost_sum(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m, cost_report *r,
                   tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    model_params mp;
    cost_graph g[COST_GRAPHS];
    begin(r);
    if (q->rows < 1 || q->context < 1) return error_set(err, TL_ARG, "rows and context must be positive");
    TRY(params_init(&mp, a, c, err));
    tl_status s = graphs_make(e, c, &mp, q, true, g, err);
    if (s == TL_OK) {
        double footprint = graphs_footprint(g, COST_GRAPHS);
        for (int i = 0; i < COST_GRAPHS && g[i].plan; i++) {
            const double n = q->segment ? (double)segments_count(q->context, q->segment) : 1;
            sum_plan(g[i].plan, m, 1, i == 3 ? n - 1 : i ? 1 : n, i == 3, footprint, r);
            r->total.activations += g[i].plan->info.arena_bytes;
        }
        if (q->segment) r->handed = handed_on(q, &g[0].build);
        r->tokens = q->mode == COST_DECODE ? q->rows : q->rows * q->context;
        sum_memory(c, &mp, q, r);
        others_count(c, r, (double)r->tokens, (double)q->context);
        graphs_free(e, g, COST_GRAPHS);
    }
    params_fini(&mp, a);
    return s;
}

tl_status cost_of(tl_engine *e, const model_config *c, const model_lora *lora, const build_matrices *mapped,
                  int64_t rows, int64_t context, tl_dtype dtype, bool train, tl_recompute recompute, cost_report *r,
                  tl_error *err) {
    cost_request q = {.mode = train ? COST_TRAIN : COST_FORWARD,
                      .rows = rows,
                      .context = context,
                      .dtype = dtype,
                      .lora = lora,
                      .mapped = mapped,
                      .recompute = recompute};
    return cost_sum(e, c, &q, NULL, r, err);
}

/* One piece of `rows` tokens, of which the first stands behind `first` others. */
static tl_status prefill_piece(tl_engine *e, const model_config *c, const model_params *mp, const cost_request *q,
                               cost_machine *m, int64_t rows, const int64_t *first, size_t n, cost_report *r,
                               tl_error *err) {
    cost_graph g[COST_GRAPHS];
    cost_request one = *q;
    one.mode = COST_DECODE;
    one.rows = rows;
    one.slots = 1;
    TRY(graphs_make(e, c, mp, &one, true, g, err));
    double footprint = graphs_footprint(g, 1);
    for (size_t i = 0; i < n; i++) {
        double seen = ((double)first[i] + 0.5 * (double)(rows + 1)) / (double)q->context;
        sum_plan(g[0].plan, m, seen < 1 ? seen : 1, 1, false, footprint, r);
    }
    r->total.activations += g[0].plan->info.arena_bytes;
    graphs_free(e, g, COST_GRAPHS);
    return TL_OK;
}

tl_status cost_prefill(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m, cost_report *r,
                       tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    const int64_t most = build_bucket_rows[BUILD_BUCKETS - 1];
    model_params mp;
    begin(r);
    size_t whole = (size_t)(q->context / most);
    int64_t rest = q->context % most, *first = mem_new(a, whole + 1, sizeof *first);
    if (!first) return error_set(err, TL_NOMEM, "no memory for a plan");
    for (size_t i = 0; i < whole; i++) first[i] = (int64_t)i * most;
    tl_status s = params_init(&mp, a, c, err);
    if (s == TL_OK) {
        if (whole) s = prefill_piece(e, c, &mp, q, m, most, first, whole, r, err);
        int64_t last = q->context - rest;
        if (s == TL_OK && rest) s = prefill_piece(e, c, &mp, q, m, build_bucket(rest), &last, 1, r, err);
        r->tokens = q->context;
        cost_request as = *q;
        as.mode = COST_DECODE;
        as.slots = 1;
        sum_memory(c, &mp, &as, r);
        others_count(c, r, (double)q->context, (double)q->context);
        params_fini(&mp, a);
    }
    mem_free(a, first);
    return s;
}

double cost_flops(const cost_part *p, int convention) {
    double all = p->forward + p->backward;
    if (convention == 1) return all - p->products / 2;
    return convention == -1 ? all - p->dots : all;
}

/* ---- decoding ------------------------------------------------------------------------------------------------------
 */

/* What a sequence adds to a step: seconds of computing less seconds of moving its own bytes. */
static double gain_of(const cost_report *r, double peak, double bandwidth) {
    double flops = 0;
    for (int i = 0; i < COST_PARTS; i++) flops += r->part[i].forward;
    return flops / peak - (r->bytes - r->weight_bytes) / bandwidth;
}

tl_status cost_crossover(tl_engine *e, const model_config *c, const cost_request *q, cost_machine *m,
                         cost_crossing *out, tl_error *err) {
    cost_request one = *q;
    one.mode = COST_DECODE;
    one.rows = one.slots = 1;
    cost_report r, start;
    TRY(cost_sum(e, c, &one, NULL, &r, err));
    one.context = 1;
    TRY(cost_sum(e, c, &one, NULL, &start, err));
    double products = 0, peak = machine_peak(m, q->blocks ? q->blocks : q->dtype ? q->dtype : TL_F32);
    for (int i = 0; i < COST_PARTS; i++)
        if (i != COST_ATTENTION) products += r.part[i].products;
    double weights = r.weight_bytes / m->bandwidth;
    out->weights_only = weights / (products / peak);
    /* b sequences: computing takes b flops / peak, moving (weights + b rest) / bandwidth */
    double gain = gain_of(&r, peak, m->bandwidth), most = gain_of(&start, peak, m->bandwidth);
    out->with_cache = gain > 0 ? weights / gain : HUGE_VAL;
    double loss = q->context > 1 ? (most - gain) / (double)(q->context - 1) : 0; /* by one more token in the cache */
    out->context = most <= 0 ? 0 : loss > 0 ? 1 + most / loss : HUGE_VAL;
    return TL_OK;
}
