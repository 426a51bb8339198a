/* What would save memory or time: the same question asked of variants. */
#include "cli/plan_cli.h"

#include "cost/advice.h"
#include "study/convert.h"

#include <string.h>

enum { SEGMENT = 4096 };

static tl_dtype by_mix(void *user, const model_config *c, const model_param *p, const param_piece *piece) {
    return convert_dtype(user, c, p, piece);
}

size_t plan_stored(const plan_result *r, const char *type) {
    char name[32];
    snprintf(name, sizeof name, "%s", type);
    return cost_weight_bytes(&r->config, &r->params, TL_NONE, by_mix, name);
}

typedef struct variant {
    const char *name;
    model_config config;
    cost_request request;
    size_t weights; /* 0: as the plan says */
} variant;

static tl_status reckon(tl_engine *e, plan_result *r, const variant *v, tl_error *err) {
    cost_report c;
    plan_variant *out = &r->variant[r->variants];
    tl_status s = cost_sum(e, &v->config, &v->request, r->has_machine ? &r->machine : NULL, &c, err);
    if (s == TL_NOMEM) return s;
    if (s != TL_OK) return TL_OK; /* this model has no such variant */
    size_t memory = c.memory;
    if (v->weights) memory = memory - c.total.weights + v->weights;
    *out = (plan_variant){.memory = (double)memory, .seconds = c.seconds, .params = c.total.params};
    snprintf(out->name, sizeof out->name, "%s", v->name);
    r->variants++;
    return TL_OK;
}

static void fewer_heads(model_config *c) {
    int64_t k = c->kv_heads / 4;
    while (k > 1 && c->heads % k) k--;
    c->kv_heads = k > 0 ? k : 1;
}

static void windows(model_config *c, int64_t width) {
    c->window = width;
    for (int64_t l = 0; l < c->layers; l++) config_set_full(c, l, false);
}

tl_status plan_savings(const plan_options *o, tl_engine *e, plan_result *r, tl_error *err) {
    char name[64];
    cost_request q = {.mode = COST_TRAIN,
                      .rows = o->batch,
                      .context = o->context,
                      .dtype = o->dtype,
                      .recompute = o->recompute,
                      .segment = o->segment};
    if (!o->train)
        q = (cost_request){.mode = COST_DECODE,
                           .rows = build_bucket(o->batch),
                           .slots = o->batch,
                           .context = o->context,
                           .dtype = o->dtype,
                           .cache = o->cache,
                           .mapped = r->mapped.piece ? &r->mapped : NULL};
    variant base = {.name = "as it is", .config = r->config, .request = q, .weights = o->train ? 0 : r->stored};
    TRY(reckon(e, r, &base, err));
    variant v = base;
    static const char *const again[] = {[TL_RECOMPUTE_LIGHT] = "recomputation, light",
                                        [TL_RECOMPUTE_WIDE] = "recomputation, wide",
                                        [TL_RECOMPUTE_FULL] = "recomputation of whole blocks"};
    for (int i = (int)o->recompute + 1; o->train && i < TL_RECOMPUTE_LEVELS; i++) {
        v.name = again[i];
        v.request.recompute = (tl_recompute)i;
        TRY(reckon(e, r, &v, err));
    }
    char why[160];
    if (o->train && !o->segment && o->context >= 2 * SEGMENT &&
        !build_segment_refusal(&r->config, SEGMENT, why, sizeof why)) {
        v = base;
        v.name = "segments of 4096 tokens";
        v.request.segment = SEGMENT;
        TRY(reckon(e, r, &v, err));
    }
    v = base;
    if (o->dtype != TL_BF16 && !r->mapped.piece) {
        v.name = "bf16";
        v.request.dtype = TL_BF16;
        if (!o->train) v.request.cache = TL_BF16;
        v.weights = o->train ? 0 : plan_stored(r, "bf16");
        TRY(reckon(e, r, &v, err));
    }
    static const struct {
        const char *name;
        tl_dtype blocks;
    } mixes[] = {{"q8_0", TL_Q8_0}, {"q4_k_m", TL_Q4_K}};
    for (int i = 0; i < 2 && !o->train; i++) {
        v = base;
        v.name = mixes[i].name;
        v.request.mapped = NULL;
        v.request.dtype = TL_F32; /* what products of blocks take */
        v.request.blocks = mixes[i].blocks;
        v.weights = plan_stored(r, mixes[i].name);
        TRY(reckon(e, r, &v, err));
    }
    if (!o->train && o->cache != TL_BF16) {
        v = base;
        v.name = "a cache in bf16";
        v.request.cache = TL_BF16;
        TRY(reckon(e, r, &v, err));
    }
    v = base;
    v.request.mapped = NULL;
    if (config_has(&r->config, MIXER_ATTENTION)) {
        if (r->config.kv_heads > 1) {
            v.config = r->config;
            fewer_heads(&v.config);
            snprintf(name, sizeof name, "%lld kv heads, not %lld", (long long)v.config.kv_heads,
                     (long long)r->config.kv_heads);
            v.name = name;
            TRY(reckon(e, r, &v, err));
        }
        v.config = r->config;
        windows(&v.config, o->context / 4 > 0 ? o->context / 4 : 1);
        snprintf(name, sizeof name, "windows of %lld", (long long)v.config.window);
        v.name = name;
        TRY(reckon(e, r, &v, err));
        v.name = "FLASH instead of attention";
        if (advice_flash(&r->config, &v.config, NULL) == TL_OK) {
            v.config.context = o->context > v.config.context ? o->context : v.config.context;
            v.weights = 0;
            TRY(reckon(e, r, &v, err));
        }
    }
    return TL_OK;
}
