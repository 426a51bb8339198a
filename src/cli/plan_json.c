#include "cli/plan_cli.h"

#include <math.h>
#include <string.h>

static void parts(const plan_options *o, const plan_result *r, const cost_report *c) {
    printf("[");
    for (int i = 0; i < COST_PARTS; i++) {
        const cost_part *p = &c->part[i];
        printf("%s{\"name\": \"%s\", \"forward\": %.0f, \"backward\": %.0f, \"flops\": %.0f, \"products\": %.0f, "
               "\"bytes\": %.0f",
               i ? ", " : "", p->name, p->forward, p->backward, cost_flops(p, o->convention), p->products, p->bytes);
        if (r->has_machine) printf(", \"seconds\": %.9g, \"limit_seconds\": %.9g", p->seconds, p->limit);
        printf("}");
    }
    printf("]");
}

static void number(const char *key, double x) {
    if (isfinite(x))
        printf("\"%s\": %.9g", key, x);
    else
        printf("\"%s\": null", key);
}

static void times(const plan_options *o, const plan_result *r) {
    const cost_machine *m = &r->machine;
    printf(", \"hardware\": {\"name\": \"%s\", \"title\": ", m->name);
    cli_json_text(stdout, m->title, strlen(m->title));
    printf(", \"source\": ");
    cli_json_text(stdout, m->source, strlen(m->source));
    printf(", \"peak_flops\": %.6g, \"bytes_per_second\": %.6g, \"measured\": %s}", machine_peak(m, o->dtype),
           m->bandwidth, m->n ? "true" : "false");
    printf(", \"seconds\": %.9g, \"limit_seconds\": %.9g", r->pass.seconds, r->pass.limit);
    if (o->train) {
        printf(", \"tokens_per_second\": %.6g, \"mfu\": %.5f", (double)r->pass.tokens / r->pass.seconds,
               (r->pass.total.forward_flops + r->pass.total.backward_flops) / r->pass.seconds /
                   machine_peak(m, o->dtype));
        return;
    }
    printf(", \"prefill\": {\"tokens\": %lld, \"seconds\": %.9g, \"tokens_per_second\": %.6g, \"flops\": %.0f}",
           (long long)r->prefill.tokens, r->prefill.seconds, (double)r->prefill.tokens / r->prefill.seconds,
           r->prefill.total.forward_flops);
    printf(", \"decode\": {\"batch\": %lld, \"seconds\": %.9g, \"tokens_per_second\": %.6g, \"flops\": %.0f, "
           "\"bytes\": %.0f, \"weight_bytes\": %.0f, ",
           (long long)o->batch, r->decode.seconds, (double)o->batch / r->decode.seconds, r->decode.total.forward_flops,
           r->decode.bytes, r->decode.weight_bytes);
    number("compute_bound_batch_weights_only", r->crossing.weights_only);
    printf(", ");
    number("compute_bound_batch", r->crossing.with_cache);
    printf("}");
}

static void money(const plan_options *o, const plan_result *r) {
    if (!r->has_machine || !o->train) return;
    double hours = r->tokens / (double)r->pass.tokens * r->pass.seconds / 3600;
    double watts = o->watts > 0 ? o->watts : r->machine.watts, kwh = hours * watts / 1000;
    printf(", \"training\": {\"tokens\": %.0f, \"hours\": %.6g", r->tokens, hours);
    if (watts > 0) printf(", \"watts\": %.6g, \"kwh\": %.6g", watts, kwh);
    if (o->price_hour > 0) printf(", \"price_hours\": %.6g", hours * o->price_hour);
    if (o->price_kwh > 0 && watts > 0) printf(", \"price_energy\": %.6g", kwh * o->price_kwh);
    printf("}");
}

void plan_json(const plan_options *o, const plan_result *r) {
    const tl_model_costs *t = &r->pass.total;
    double tokens = (double)r->pass.tokens, n = (double)(t->params_no_embedding - (t->params - t->params_active));
    printf("{\"model_type\": \"%s\", \"params\": %lld, \"params_no_embedding\": %lld, \"params_by_part\": {",
           r->config.type, (long long)t->params, (long long)t->params_no_embedding);
    for (int i = 0; i < PLAN_PARAMS; i++)
        printf("%s\"%s\": %lld", i ? ", " : "", r->part[i].name, (long long)r->part[i].count);
    printf("}, \"rows\": %lld, \"context\": %lld, \"dtype\": \"%s\", \"train\": %s, \"recompute\": \"%s\", ",
           (long long)o->batch, (long long)o->context, tl_dtype_name(o->dtype), o->train ? "true" : "false",
           tl_recompute_name(o->recompute));
    printf("\"flops_forward\": %.0f, \"flops_backward\": %.0f, \"flops_recomputed\": %.0f, \"flops_optimizer\": %.0f, ",
           t->forward_flops, t->backward_flops, r->recomputed,
           r->pass.part[COST_OPTIMIZER].forward + r->pass.part[COST_OPTIMIZER].backward);
    printf("\"rule_2nd\": %.0f, \"rule_4nd\": %.0f, \"rule_6nd\": %.0f, \"attention_average\": %.0f, "
           "\"attention_full\": %.0f, ",
           2 * n * tokens, 4 * n * tokens, 6 * n * tokens, r->pass.attention_average, r->pass.attention_full);
    printf("\"trained_params\": %lld, \"mapped_bytes\": %zu, ", (long long)r->pass.trained, r->pass.mapped);
    printf("\"weights_bytes\": %zu, \"gradients_bytes\": %zu, \"optimizer_bytes\": %zu, \"activations_bytes\": %zu, "
           "\"batch_bytes\": %zu, \"memory_bytes\": %zu, \"cache_bytes_per_token\": %zu, \"state_bytes_fixed\": %zu, "
           "\"stored\": \"%s\", \"stored_bytes\": %zu, \"parts\": ",
           t->weights, t->gradients, t->optimizer, t->activations, r->pass.batch, r->pass.memory, t->cache_per_token,
           r->pass.state_fixed, r->type, r->stored);
    parts(o, r, &r->pass);
    if (r->has_machine) times(o, r);
    money(o, r);
    if (o->memory > 0)
        printf(", \"fits\": {\"bytes\": %.0f, \"rows\": %lld, \"context\": %lld}", o->memory, (long long)r->fit_rows,
               (long long)r->fit_context);
    if (r->variants) printf(", \"savings\": [");
    for (size_t i = 0; i < r->variants; i++) {
        const plan_variant *v = &r->variant[i];
        printf("%s{\"name\": \"%s\", \"memory_bytes\": %.0f, \"params\": %lld", i ? ", " : "", v->name, v->memory,
               (long long)v->params);
        if (r->has_machine) printf(", \"seconds\": %.9g", v->seconds);
        printf("}");
    }
    printf("%s}\n", r->variants ? "]" : "");
}
