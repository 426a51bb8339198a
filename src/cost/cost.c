#include "cost/cost.h"

#include <string.h>

static const char *const part_names[COST_PARTS] = {"embedding", "norms", "projections", "attention",
                                                   "mlp",       "head",  "other"};

static bool has(const char *s, const char *part) {
    return s && strstr(s, part) != NULL;
}

/* The component a step belongs to, from its operator; products by the parameter they are named after. */
static int part_of(const tl_step_info *s) {
    if (has(s->op, "loss_head")) return COST_HEAD;
    if (has(s->op, "attention") || has(s->op, "chunk")) return COST_ATTENTION;
    if (has(s->op, "offset_scale")) return COST_PROJECTION;
    if (has(s->op, "embedding")) return COST_EMBED;
    if (has(s->op, "norm") && !has(s->op, "global")) return COST_NORM;
    if (has(s->op, "expert") || has(s->op, "route") || has(s->op, "balance")) return COST_MLP;
    if (has(s->op, "act") || has(s->op, "glu")) return COST_MLP;
    if (has(s->op, "linear"))
        return has(s->name, ".up") || has(s->name, ".down") || has(s->name, ".router") ? COST_MLP : COST_PROJECTION;
    return COST_OTHER;
}

static void sum_steps(const tl_plan *p, cost_report *r) {
    for (int i = 0; i < COST_PARTS; i++) r->part[i].name = part_names[i];
    for (size_t i = 0; i < tl_plan_steps(p); i++) {
        tl_step_info s;
        tl_plan_step(p, i, &s);
        cost_part *t = &r->part[part_of(&s)];
        double flops = s.cost.flops + s.cost.special;
        *(s.backward ? &t->backward : &t->forward) += flops;
        t->bytes += s.cost.bytes_read + s.cost.bytes_written;
        *(s.backward ? &r->total.backward_flops : &r->total.forward_flops) += flops;
    }
}

static tl_status plan_of(tl_engine *e, const model_config *c, const model_params *mp, const build_options *o,
                         bool train, bool recompute, cost_report *r, tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    build_result b;
    tl_graph *g;
    tl_plan *p = NULL;
    TRY(tl_graph_create(e, &g));
    tl_status s = build_model(g, a, c, mp, o, &b, err);
    if (s == TL_OK) {
        if (train) tl_graph_backward(g, b.loss, NULL, 0, NULL, recompute);
        s = tl_plan_create(g, true, &p, err);
        if (s == TL_OK) {
            tl_plan_info info;
            tl_plan_info_get(p, &info);
            r->total.activations = info.arena_bytes;
            sum_steps(p, r);
        }
        tl_plan_destroy(p);
        build_fini(&b, a);
    }
    tl_graph_destroy(g);
    return s;
}

tl_status cost_of(tl_engine *e, const model_config *c, const model_lora *lora, const build_matrices *mapped,
                  int64_t rows, int64_t context, tl_dtype dtype, bool train, bool recompute, cost_report *r,
                  tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    model_params mp;
    memset(r, 0, sizeof *r);
    TRY(params_init(&mp, a, c, err));
    build_options o = {.mode = train ? BUILD_TRAIN : BUILD_EVAL,
                       .rows = rows,
                       .context = context,
                       .dtype = dtype ? dtype : TL_F32,
                       .trainable = train,
                       .lora = lora,
                       .mapped = mapped};
    tl_status s = plan_of(e, c, &mp, &o, train, recompute, r, err);
    size_t base = (size_t)(mapped ? mp.total - mp.decayed + 16 : mp.total) * sizeof(float), flat = base;
    size_t halves = mapped ? 0 : (size_t)mp.decayed;
    tl_model_costs *t = &r->total;
    t->params = mp.count;
    t->params_no_embedding = mp.count_no_embedding;
    t->params_active = mp.count_active;
    r->trained = mp.count;
    if (lora) {
        flat = (size_t)lora->params.total * sizeof(float);
        halves += (size_t)lora->params.total;
        r->trained = lora->params.count;
    }
    t->weights = base + (lora ? flat : 0) + (dtype == TL_BF16 ? 2 * halves : 0);
    r->mapped = build_mapped_bytes(mapped);
    t->gradients = train ? flat : 0;
    t->optimizer = train ? 2 * flat : 0;
    t->cache_per_token = build_state_per_token(c, dtype == TL_BF16 ? TL_BF16 : TL_F32);
    r->tokens = rows * context;
    r->attention_full = 4.0 * (double)(rows * context) * (double)context * (double)(c->layers * c->heads * c->head_dim);
    params_fini(&mp, a);
    return s;
}
