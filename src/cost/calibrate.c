/* The ladder of small models whose operators are timed. */
#include "cost/graphs.h"
#include "cost/measure.h"
#include "model/recipe.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct ladder_row {
    const char *type;
    int64_t layers, width, heads, mlp, vocab, rows, tokens;
} ladder_row;

#define CALIBRATE(type, layers, width, heads, mlp, vocab, rows, tokens)                                                \
    {#type, layers, width, heads, mlp, vocab, rows, tokens},
static const ladder_row ladder[] = {
#include "cost/calibrate.def"
};
#undef CALIBRATE
enum { LADDER = sizeof ladder / sizeof *ladder };

typedef struct calibration {
    tl_engine *engine;
    cost_machine *m;
    struct calibration_call {
        cost_step step; /* what its limit is reckoned from: its work, not its place in a plan */
        double count;   /* calls that the point is the mean of */
    } * call;           /* by point */
    size_t cap;
} calibration;

static tl_status config_of(const ladder_row *r, model_config *c, tl_error *err) {
    TRY(config_recipe(r->type, c, err));
    c->layers = r->layers;
    c->width = r->width;
    c->mlp = r->mlp;
    c->vocab = r->vocab;
    c->context = r->tokens;
    c->tied = true;
    if (!config_all_gated(c)) {
        c->heads = c->kv_heads = r->heads;
        c->head_dim = r->width / r->heads;
        c->act = c->gated ? ACT_SILU : r->layers % 2 ? ACT_GELU_TANH : ACT_GELU;
    } else {
        c->shared = r->width < 256 ? 64 : 128;
        c->expand = r->mlp;
    }
    if (c->chunk) c->chunk = r->tokens < 256 ? 32 : 128;
    c->drop_embed = c->drop_resid = r->width < 500 && c->norm == NORM_LAYER ? 0.1 : 0;
    config_complete(c);
    return config_check(c, err);
}

/* ---- points ---------------------------------------------------------------------------------------------------- */

static bool same_call(const cost_point *p, const cost_step *s) {
    if (strcmp(p->op, s->step->op->name) != 0 || p->data != (int32_t)s->data || p->weight != (int32_t)s->weight)
        return false;
    for (int k = 0; k < COST_FEATURES; k++)
        if (fabs(p->feature[k] - s->feature[k]) > 1e-3) return false;
    return true;
}

static tl_status add_point(calibration *k, const cost_step *s, tl_error *err) {
    cost_machine *m = k->m;
    double seconds = s->step->seconds - m->launch * s->phases, least = 0.1 * s->step->seconds;
    if (seconds < least) seconds = least;
    if (seconds < 1e-9) seconds = 1e-9;
    for (size_t i = 0; i < m->n; i++) {
        if (!same_call(&m->point[i], s)) continue;
        m->point[i].seconds = (m->point[i].seconds * k->call[i].count + seconds) / (k->call[i].count + 1);
        k->call[i].count++;
        return TL_OK;
    }
    if (!mem_reserve(m->alloc, &m->point, &m->cap, m->n + 1) || !mem_reserve(m->alloc, &k->call, &k->cap, m->n + 1))
        return error_set(err, TL_NOMEM, "no memory for what was measured");
    cost_point *p = &m->point[m->n];
    k->call[m->n] = (struct calibration_call){.step = *s, .count = 1};
    k->call[m->n++].step.step = NULL; /* its plan ends before the ladder does */
    *p = (cost_point){.data = (int32_t)s->data, .weight = (int32_t)s->weight, .seconds = seconds};
    snprintf(p->op, sizeof p->op, "%s", s->step->op->name);
    memcpy(p->feature, s->feature, sizeof p->feature);
    return TL_OK;
}

static tl_status time_graph(calibration *k, cost_graph *g, const measure_run *r, double seen, double footprint,
                            tl_error *err) {
    tl_status s = measure_plan(k->engine, g->graph, g->plan, r, err);
    for (size_t i = 0; i < g->plan->n_steps && s == TL_OK; i++) {
        cost_step step;
        walk_step(g->plan, i, seen, footprint, &step);
        s = add_point(k, &step, err);
    }
    return s;
}

/* ---- one model --------------------------------------------------------------------------------------------------- */

static double budget_of(const cost_graph *g, const cost_machine *m) {
    double step = 3 * g->plan->info.cost.flops / m->f32;
    return step * 6 < 0.12 ? 0.12 : step * 6 > 1.5 ? 1.5 : step * 6;
}

static tl_status time_training(calibration *k, const model_config *c, const model_params *mp, const ladder_row *r,
                               tl_dtype dtype, tl_error *err) {
    cost_graph g[COST_GRAPHS];
    cost_request q = {.mode = COST_TRAIN, .rows = r->rows, .context = r->tokens, .dtype = dtype};
    TRY(graphs_make(k->engine, c, mp, &q, false, g, err));
    double footprint = graphs_footprint(g, 3);
    measure_run run = {.vocab = c->vocab, .context = r->tokens};
    tl_status s = TL_OK;
    for (int i = 0; i < 3 && s == TL_OK; i++) {
        run.budget = i ? 0.05 : budget_of(&g[0], k->m);
        s = time_graph(k, &g[i], &run, 1, footprint, err);
    }
    graphs_free(k->engine, g, COST_GRAPHS);
    return s;
}

/* rows 1: a token of one sequence; 16: a token each of sixteen; 256: a piece of one sequence. */
static tl_status time_decoding(calibration *k, const model_config *c, const model_params *mp, const ladder_row *r,
                               tl_dtype dtype, tl_dtype blocks, int64_t rows, tl_error *err) {
    bool batch = rows > 1 && rows < 64;
    int64_t capacity = rows > r->tokens ? rows : r->tokens;
    cost_request q = {.mode = COST_DECODE,
                      .rows = rows,
                      .slots = batch ? rows : 1,
                      .context = capacity,
                      .dtype = dtype,
                      .cache = TL_F32,
                      .blocks = blocks};
    cost_graph g[COST_GRAPHS];
    TRY(graphs_make(k->engine, c, mp, &q, false, g, err));
    measure_run run = {.vocab = c->vocab,
                       .context = capacity,
                       .slots = q.slots,
                       .first = batch ? capacity - 1 : capacity - rows,
                       .budget = rows > 64 ? 0.15 : 0.06};
    double seen = batch ? 1 : ((double)capacity - 0.5 * (double)(rows - 1)) / (double)capacity;
    tl_status s = time_graph(k, &g[0], &run, seen, walk_footprint(g[0].plan), err);
    graphs_free(k->engine, g, COST_GRAPHS);
    return s;
}

static tl_status time_row(calibration *k, const ladder_row *r, tl_error *err) {
    static const int64_t rows[] = {1, 16, 256};
    static const tl_dtype blocks[] = {TL_Q8_0, TL_Q4_0, TL_Q4_K, TL_Q6_K};
    model_config c;
    model_params mp;
    TRY(config_of(r, &c, err));
    TRY(params_init(&mp, tl_engine_allocator(k->engine), &c, err));
    tl_status s = TL_OK;
    for (tl_dtype t = TL_F32; t <= TL_BF16 && s == TL_OK; t = t == TL_F32 ? TL_BF16 : TL_DTYPE_COUNT) {
        s = time_training(k, &c, &mp, r, t, err);
        for (int i = 0; i < 3 && s == TL_OK; i++) s = time_decoding(k, &c, &mp, r, t, TL_NONE, rows[i], err);
    }
    bool wide = !config_all_gated(&c) && c.gated && c.width % 256 == 0;
    for (int b = 0; b < 4 && wide && s == TL_OK; b++)
        for (int i = 0; i < 3 && s == TL_OK; i++) s = time_decoding(k, &c, &mp, r, TL_F32, blocks[b], rows[i], err);
    params_fini(&mp, tl_engine_allocator(k->engine));
    return s;
}

/* The best rate of causal attention over a long sequence. */
static double attention_rate(const cost_machine *m) {
    double best = 0;
    for (size_t i = 0; i < m->n; i++) {
        const cost_point *p = &m->point[i];
        if (strcmp(p->op, "attention") != 0 || p->data != TL_F32) continue;
        double rate = m->f32 * p->limit / p->seconds;
        if (rate > best) best = rate;
    }
    return best;
}

/* A limit that a product was seen to pass was measured in a slower moment; short calls, less their launch, say little.
 */
static void raise_limit(const calibration *k) {
    static const double LONG_ENOUGH = 1e-4;
    cost_machine *m = k->m;
    for (size_t i = 0; i < m->n; i++)
        if (m->point[i].data == TL_F32 && m->point[i].weight == TL_F32 && m->point[i].seconds > LONG_ENOUGH)
            m->f32 = fmax(m->f32, k->call[i].step.products / m->point[i].seconds);
}

tl_status measure_machine(tl_engine *e, cost_machine *m, measure_progress progress, void *user, tl_error *err) {
    TRY(measure_limits(e, CLOCK_MONOTONIC, m, err));
    calibration k = {.engine = e, .m = m};
    tl_status s = TL_OK;
    for (size_t i = 0; i < LADDER && s == TL_OK; i++) {
        char what[64];
        snprintf(what, sizeof what, "%s, width %lld", ladder[i].type, (long long)ladder[i].width);
        if (progress && !progress(user, what, i, LADDER))
            s = error_set(err, TL_CANCELLED, "interrupted before anything was kept");
        if (s == TL_OK) s = time_row(&k, &ladder[i], err);
    }
    /* The limits once more: another moment may have been quieter. */
    cost_machine again;
    if (s == TL_OK && measure_limits(e, CLOCK_MONOTONIC, &again, err) == TL_OK) {
        m->bandwidth = fmax(m->bandwidth, again.bandwidth);
        m->bandwidth_one = fmax(m->bandwidth_one, again.bandwidth_one);
        m->f32 = fmax(m->f32, again.f32), m->half = fmax(m->half, again.half), m->int8 = fmax(m->int8, again.int8);
    }
    raise_limit(&k);
    /* By the limits that are kept, and only now that they stand: a prediction multiplies with them again. */
    for (size_t i = 0; i < m->n; i++) m->point[i].limit = walk_limit(m, &k.call[i].step, NULL);
    m->attention = attention_rate(m);
    mem_free(m->alloc, k.call);
    if (s != TL_OK) machine_fini(m);
    return s;
}
