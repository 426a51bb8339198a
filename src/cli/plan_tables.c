/* A plan as tables. */
#include "cli/plan_cli.h"

#include "model/segments.h"

#include "cost/advice.h"
#include "study/convert.h"

#include <math.h>
#include <string.h>

typedef struct cells { /* room for what cli_count and friends write */
    char a[8][32];
} cells;

static const char *count(double x, cells *c, int i) {
    return cli_count(x, c->a[i], sizeof c->a[i]);
}
static const char *bytes(double x, cells *c, int i) {
    return cli_bytes(x, c->a[i], sizeof c->a[i]);
}

static const char *duration(double s, cells *c, int i) {
    if (s < 1e-3)
        snprintf(c->a[i], sizeof c->a[i], "%.1f us", 1e6 * s);
    else if (s < 1)
        snprintf(c->a[i], sizeof c->a[i], "%.2f ms", 1e3 * s);
    else if (s < 180)
        snprintf(c->a[i], sizeof c->a[i], "%.2f s", s);
    else if (s < 3 * 3600)
        snprintf(c->a[i], sizeof c->a[i], "%.1f min", s / 60);
    else if (s < 3 * 86400)
        snprintf(c->a[i], sizeof c->a[i], "%.1f h", s / 3600);
    else if (s < 2 * 365.25 * 86400)
        snprintf(c->a[i], sizeof c->a[i], "%.1f days", s / 86400);
    else
        snprintf(c->a[i], sizeof c->a[i], "%.3g years", s / 86400 / 365.25);
    return c->a[i];
}

/* ---- parameters ---------------------------------------------------------------------------------------------- */

static void print_params(const plan_result *r) {
    const model_config *c = &r->config;
    cells k;
    printf("%s: %lld layers, width %lld, %lld heads of %lld (%lld kv), mlp %lld, vocabulary %lld\n", c->type,
           (long long)c->layers, (long long)c->width, (long long)c->heads, (long long)c->head_dim,
           (long long)c->kv_heads, (long long)c->mlp, (long long)c->vocab);
    if (c->encoder)
        printf("and an encoder of %lld layers for sources of up to %lld tokens\n", (long long)c->encoder,
               (long long)config_source(c));
    printf("%lld parameters (%s), %s without embeddings\n", (long long)r->params.count,
           count((double)r->params.count, &k, 0), count((double)r->params.count_no_embedding, &k, 1));
    if (c->experts)
        printf("%s active in a token: %lld of %lld experts of width %lld in %lld layers\n",
               count((double)r->params.count_active, &k, 0), (long long)c->experts_used, (long long)c->experts,
               (long long)c->expert_mlp, (long long)config_expert_layers(c));
    for (int i = 0; i < PLAN_PARAMS; i++) {
        const plan_params *p = &r->part[i];
        if (p->count == 0 && !(i == 4 && c->tied)) continue;
        printf("  %-12s %14lld %6.1f%%%s\n", p->name, (long long)p->count,
               100 * (double)p->count / (double)r->params.count,
               i == 4 && c->tied ? "  the embedding serves as head, counted once" : "");
    }
}

/* ---- operations -------------------------------------------------------------------------------------------------- */

static const char *convention_name(int convention) {
    return convention == 1    ? "a multiply-add as 1"
           : convention == -1 ? "a dot product of length n as 2n-1"
                              : "a multiply-add as 2";
}

static void print_part(const plan_options *o, const plan_result *r, const cost_part *p, double all) {
    cells k;
    double flops = cost_flops(p, o->convention), both = p->forward + p->backward;
    if (both <= 0 && p->bytes <= 0) return;
    double share = both > 0 ? flops / both : 1; /* forward and backward alike */
    printf("  %-12s %9s %9s %8s %6.1f%% %9s %9.1f", p->name, count(share * p->forward, &k, 0),
           count(share * p->backward, &k, 1), count(flops / (double)r->pass.tokens, &k, 2),
           all > 0 ? 100 * flops / all : 0, bytes(p->bytes, &k, 3), p->bytes > 0 ? both / p->bytes : 0);
    if (r->has_machine)
        printf("  %-9s %10s", p->compute > p->limit / 2 ? "compute" : "bandwidth", duration(p->seconds, &k, 4));
    printf("\n");
}

static void print_flops(const plan_options *o, const plan_result *r) {
    static const char *const levels[] = {"", ", passes over memory again", ", wide tensors again", ", blocks again"};
    const char *level = levels[o->train ? o->recompute : 0];
    cells k;
    double all = 0, forward = 0, backward = 0;
    for (int i = 0; i < COST_PARTS; i++) all += cost_flops(&r->pass.part[i], o->convention);
    printf("\n%s of %lld x %lld tokens in %s%s; FLOPs count %s\n", o->train ? "training step" : "forward pass",
           (long long)o->batch, (long long)o->context, tl_dtype_name(o->dtype), level, convention_name(o->convention));
    printf("  %-12s %9s %9s %8s %7s %9s %9s", "", "forward", "backward", "a token", "share", "moved", "FLOP/byte");
    printf(r->has_machine ? "  %-9s %10s\n" : "\n", "bound by", r->machine.n ? "expected" : "at least");
    for (int i = 0; i < COST_PARTS; i++) {
        const cost_part *p = &r->pass.part[i];
        double both = p->forward + p->backward, share = both > 0 ? cost_flops(p, o->convention) / both : 1;
        print_part(o, r, p, all);
        forward += share * p->forward;
        backward += share * p->backward;
    }
    printf("  %-12s %9s %9s %8s %7s %9s %9.1f", "total", count(forward, &k, 0), count(backward, &k, 1),
           count(all / (double)r->pass.tokens, &k, 2), "", bytes(r->pass.bytes, &k, 3),
           (forward + backward) / r->pass.bytes);
    if (r->has_machine) printf("  %-9s %10s", "", duration(r->pass.seconds, &k, 4));
    printf("\n");
    if (o->train && r->pass.part[COST_HEAD].backward <= 0)
        printf("  the head's gradients are computed in the forward sweep, while a chunk's logits are in cache\n");
}

static void print_rule(const char *name, double rule, double exact, cells *k) {
    printf("  %-34s %9s  exact %9s  %+.1f%%\n", name, count(rule, k, 0), count(exact, k, 1), 100 * (exact / rule - 1));
}

/* 2ND, 4ND, 6ND beside what is done, and where the difference lies. Heads that compute their gradients on the way
 * forward are moved to where the rules expect them: a third forward, two thirds backward. */
static void print_rules(const plan_options *o, const plan_result *r) {
    cells k;
    const cost_part *p = r->pass.part, *head = &p[COST_HEAD];
    double n = (double)(r->params.count_no_embedding - (r->params.count - r->params.count_active)),
           D = (double)r->pass.tokens, nd = n * D;
    double forward = r->pass.total.forward_flops, backward = r->pass.total.backward_flops, all = forward + backward;
    double early = o->train && head->backward <= 0 ? head->forward * 2 / 3 : 0;
    printf("\nrules of thumb, N = %s parameters without embeddings%s, D = %s tokens\n", count(n, &k, 0),
           r->config.experts ? ", those active in a token" : "", count(D, &k, 1));
    print_rule("forward 2 N D", 2 * nd, forward - early, &k);
    if (o->train) {
        print_rule("backward 4 N D", 4 * nd, backward + early - r->recomputed, &k);
        print_rule("both 6 N D", 6 * nd, all - r->recomputed, &k);
        if (o->recompute == TL_RECOMPUTE_FULL) print_rule("with recomputation 8 N D", 8 * nd, all, &k);
    }
    double rule = (o->train ? 6 : 2) * nd, matrices = p[COST_PROJECTION].products + p[COST_MLP].products;
    double attention = p[COST_ATTENTION].forward + p[COST_ATTENTION].backward, heads = head->forward + head->backward;
    printf(
        "  the difference: the head multiplies though N leaves it out %+.1f%%, attention's scores and sums %+.1f%%,\n"
        "  matrices themselves %+.1f%%%s, all else (norms, activations, softmax) %+.1f%%\n",
        100 * heads / rule, 100 * attention / rule, 100 * (matrices / rule - 1),
        o->train && (o->recompute || o->segment) ? " (what is done twice in it)"
                                                 : " (biases and gains are in N, and multiply nothing)",
        100 * (all - heads - attention - matrices) / rule);
    if (r->pass.attention_full <= 0) return;
    double times = o->train ? 3 : 1;
    printf("attention counted: %s here, %s; others, forward%s: llm.c %s, the causal\n"
           "  average (T/2 pairs a token); nanochat %s, the full square (T pairs a token), twice as much\n",
           count(attention, &k, 0),
           o->train ? "exact pairs, scores once more in the backward pass (7 products in all)" : "pairs that are seen",
           o->train ? " and backward as 3 times that" : "", count(times * r->pass.attention_average, &k, 1),
           count(times * r->pass.attention_full, &k, 2));
}

/* ---- memory
 * ---------------------------------------------------------------------------------------------------------- */

static void line(const char *name, double b, const char *note) {
    cells k;
    printf("  %-16s %10s%s%s\n", name, bytes(b, &k, 0), *note ? "  " : "", note);
}

static void print_types(const plan_options *o, const plan_result *r) {
    cells k;
    if (o->train) return;
    printf("  weights by type ");
    for (size_t i = 0; convert_type_name(i, NULL); i++)
        printf("%s %s %s", i ? "," : "", convert_type_name(i, NULL),
               bytes((double)plan_stored(r, convert_type_name(i, NULL)), &k, 0));
    printf("\n");
}

static void print_memory(const plan_options *o, const plan_result *r) {
    cells k;
    char note[64];
    const tl_model_costs *t = &r->pass.total;
    printf("\nmemory\n");
    if (o->train) {
        if (r->pass.trained != r->params.count)
            printf("  %lld parameters are trained, rank %lld\n", (long long)r->pass.trained, (long long)o->lora.rank);
        if (r->pass.mapped) line("in the file", (double)r->pass.mapped, "mapped, not part of the total");
        line("weights", (double)t->weights, o->dtype == TL_BF16 ? "f32 masters and a bf16 copy of the matrices" : "");
        line("gradients", (double)t->gradients, "");
        line("optimizer", (double)t->optimizer, "two moments, f32");
        line("activations", (double)t->activations, "exactly what the plan allocates");
        if (o->segment) {
            snprintf(note, sizeof note, "sums before and behind each of %lld segments",
                     (long long)segments_count(o->context, o->segment));
            line("handed on", (double)r->pass.handed, note);
        }
        line("batch", (double)r->pass.batch, "");
        line("total", (double)r->pass.memory, "");
        return;
    }
    const cost_report *d = &r->decode;
    double state = (double)d->state_fixed + (double)d->total.cache_per_token * (double)o->context;
    double arenas = (double)d->total.activations + (double)r->prefill.total.activations;
    line("weights", (double)r->stored, r->type);
    if (d->total.cache_per_token)
        printf("  %-16s %10s  a token, %s at context %lld, in %s\n", "keys and values",
               bytes((double)d->total.cache_per_token, &k, 0), bytes(state - (double)d->state_fixed, &k, 1),
               (long long)o->context, tl_dtype_name(o->cache));
    if (d->state_fixed) line("recurrent state", (double)d->state_fixed, "a sequence, however long");
    printf("  %-16s %10s  for %lld sequence%s\n", "state", bytes(state * (double)o->batch, &k, 0), (long long)o->batch,
           o->batch > 1 ? "s" : "");
    line("activations", arenas, "exactly what the plans of decoding and of the prompt allocate");
    line("total", (double)r->stored + state * (double)o->batch + arenas, "");
    print_types(o, r);
}

static void print_fit(const plan_options *o, const plan_result *r) {
    cells k;
    if (o->memory <= 0) return;
    printf("in %s fit: %lld sequences of %lld tokens at a time, or one of %lld tokens\n", bytes(o->memory, &k, 0),
           (long long)r->fit_rows, (long long)o->context, (long long)r->fit_context);
}

/* ---- time
 * --------------------------------------------------------------------------------------------------------------- */

static void print_machine(const plan_options *o, const plan_result *r) {
    const cost_machine *m = &r->machine;
    cells k;
    printf("\ntime on %s: %s of %s products, %s/s, balanced at %.0f FLOP/byte\n", m->title,
           cli_rate(machine_peak(m, o->dtype), "FLOP/s", k.a[0], sizeof k.a[0]), tl_dtype_name(o->dtype),
           bytes(m->bandwidth, &k, 1), machine_peak(m, o->dtype) / m->bandwidth);
    printf("  %s\n", m->source);
    if (!m->n) printf("  a bound: real programs reach a third to two thirds of the limit when they compute\n");
    if (config_prefix(&r->config))
        printf("  a bound: how long prompts are is data, so attention counts every pair of tokens; a prompt that is a "
               "part\n"
               "  p of its document leaves (1 + p^2)/2 of them, splits of texts two thirds on average\n");
}

static void print_money(const plan_options *o, const plan_result *r) {
    cells k;
    double seconds = r->tokens / (double)r->pass.tokens * r->pass.seconds, hours = seconds / 3600;
    double watts = o->watts > 0 ? o->watts : r->machine.watts, kwh = hours * watts / 1000;
    printf("  %s tokens%s: %s", count(r->tokens, &k, 0), o->tokens > 0 ? "" : " (20 a parameter)",
           duration(seconds, &k, 1));
    if (o->price_hour > 0) printf(", %.2f at %g an hour", hours * o->price_hour, o->price_hour);
    if (watts > 0) printf(", %s kWh at %g W", count(kwh, &k, 2), watts);
    if (watts > 0 && o->price_kwh > 0) printf(", %.2f at %g a kWh", kwh * o->price_kwh, o->price_kwh);
    printf("\n");
}

static const char *batch_text(double b, cells *k, int i) {
    if (!isfinite(b)) return "at no batch";
    snprintf(k->a[i], sizeof k->a[i], "from batch %.0f on", ceil(b - 1e-6));
    return k->a[i];
}

/* A thousand tokens out, in money and energy. */
static void print_served(const plan_options *o, const plan_result *r) {
    double hours = 1e6 / ((double)o->batch / r->decode.seconds) / 3600;
    double watts = o->watts > 0 ? o->watts : r->machine.watts;
    if (o->price_hour <= 0 && watts <= 0) return;
    printf("  a million tokens decoded:");
    if (o->price_hour > 0) printf(" %.4g at %g an hour", hours * o->price_hour, o->price_hour);
    if (watts > 0) printf("%s %.3g kWh at %g W", o->price_hour > 0 ? "," : "", hours * watts / 1000, watts);
    if (watts > 0 && o->price_kwh > 0) printf(", %.4g at %g a kWh", hours * watts / 1000 * o->price_kwh, o->price_kwh);
    printf("\n");
}

static void print_time(const plan_options *o, const plan_result *r) {
    cells k;
    if (!r->has_machine) {
        printf("\ntime: %s; or name --hardware\n", r->no_machine);
        return;
    }
    print_machine(o, r);
    const char *how = r->machine.n ? "expected" : "at least";
    if (o->train) {
        double flops = r->pass.total.forward_flops + r->pass.total.backward_flops;
        printf("  training  %s %s a step, %s tokens/s, MFU %.0f%%\n", how, duration(r->pass.seconds, &k, 0),
               count((double)r->pass.tokens / r->pass.seconds, &k, 1),
               100 * flops / r->pass.seconds / machine_peak(&r->machine, o->dtype));
        print_money(o, r);
        return;
    }
    printf("  prefill   %s %s for %lld tokens, %s tokens/s\n", how, duration(r->prefill.seconds, &k, 0),
           (long long)o->context, count((double)o->context / r->prefill.seconds, &k, 1));
    printf(
        "  decode    %s %s a step of %lld sequence%s at context %lld, %s tokens/s; %s moved, %s FLOPs, bound by %s\n",
        how, duration(r->decode.seconds, &k, 0), (long long)o->batch, o->batch > 1 ? "s" : "", (long long)o->context,
        count((double)o->batch / r->decode.seconds, &k, 1), bytes(r->decode.bytes, &k, 2),
        count(r->decode.total.forward_flops, &k, 3),
        r->decode.total.forward_flops / machine_peak(&r->machine, o->dtype) > r->decode.bytes / r->machine.bandwidth
            ? "compute"
            : "bandwidth");
    printf("  decoding is bound by computing %s if only weights are counted, %s with the cache at this context\n",
           batch_text(r->crossing.weights_only, &k, 0), batch_text(r->crossing.with_cache, &k, 1));
    if (!isfinite(r->crossing.with_cache))
        printf("  (each sequence's own cache takes longer to read than its token to compute behind %.0f tokens)\n",
               r->crossing.context);
    print_served(o, r);
}

/* ---- savings and advice
 * -------------------------------------------------------------------------------------------------- */

static void print_savings(const plan_options *o, const plan_result *r) {
    cells k;
    if (!r->variants) return;
    const plan_variant *base = &r->variant[0];
    printf("\nwhat would save, %s\n  %-30s %10s %8s", o->train ? "a training step" : "decoding", "", "memory", "");
    printf(r->has_machine ? " %10s %8s\n" : "\n", o->train ? "a step" : "a token", "");
    for (size_t i = 0; i < r->variants; i++) {
        const plan_variant *v = &r->variant[i];
        printf("  %-30s %10s %+7.1f%%", v->name, bytes(v->memory, &k, 0), 100 * (v->memory / base->memory - 1));
        if (r->has_machine)
            printf(" %10s %+7.1f%%", duration(v->seconds, &k, 1), 100 * (v->seconds / base->seconds - 1));
        printf("\n");
    }
}

static void print_growth(const plan_result *r) {
    model_config c;
    model_params p;
    cells k;
    if (advice_grow(&r->config, &c, NULL) != TL_OK || params_init(&p, &mem_default, &c, NULL) != TL_OK) return;
    printf("  ten times larger: width x 2, depth x 2.5: %lld layers, width %lld, %lld heads of %lld, mlp %lld: %s "
           "parameters\n"
           "    (N goes with depth times width squared; Kaplan et al. 2020, figure 5: the loss is flat around one "
           "aspect ratio)\n",
           (long long)c.layers, (long long)c.width, (long long)c.heads, (long long)c.head_dim, (long long)c.mlp,
           count((double)p.count, &k, 0));
    params_fini(&p, &mem_default);
}

static void print_longer(const plan_options *o, tl_engine *e, const plan_result *r) {
    model_config c, f;
    const char *how, *source;
    cells k;
    model_config now = r->config;
    if (o->context > now.context && now.positions != POS_LEARNED) now.context = o->context;
    if (advice_longer(&now, 4, &c, &how, &source, NULL) != TL_OK) return;
    double per = (double)build_state_per_token(&c, o->cache), fixed = (double)build_state_fixed(&c, o->cache);
    printf("  context %lld to %lld: %s (%s)\n", (long long)now.context, (long long)c.context, how, source);
    printf("    a sequence's state %s to %s", bytes(fixed + per * (double)now.context, &k, 0),
           bytes(fixed + per * (double)c.context, &k, 1));
    if (config_has(&c, MIXER_ATTENTION) && advice_flash(&c, &f, NULL) == TL_OK) {
        double kept =
            (double)build_state_fixed(&f, o->cache) + (double)build_state_per_token(&f, o->cache) * (double)c.context;
        printf("; windows of %lld in all layers but every fourth %s, FLASH %s", (long long)now.context / 2,
               bytes(per * (0.25 * (double)c.context + 0.75 * (double)now.context / 2), &k, 2), bytes(kept, &k, 3));
        printf("\n    attention's share of a forward pass grows with the context; FLASH's stays as it is");
    }
    printf("\n");
    (void)e;
}

static void print_advice(const plan_options *o, tl_engine *e, const plan_result *r) {
    cells k;
    advice a;
    printf("\nadvice\n");
    size_t said = 0;
    for (size_t i = 0; advice_get(&r->config, &r->params, o->train ? r->tokens : 0, i, &a); i++) {
        if (!a.outside) continue;
        printf("  %s %.3g, usual %g to %g: %s\n    (%s)\n", a.name, a.value, a.low, a.high, a.text, a.source);
        said++;
    }
    if (!said) printf("  width, depth, heads, mlp and vocabulary are in the usual ranges\n");
    printf("  compute-optimal: %s tokens, 20 a parameter (Hoffmann et al. 2022, table 3; Besiroglu et al. 2024 confirm "
           "it)\n",
           count(20 * (double)r->params.count, &k, 0));
    print_growth(r);
    print_longer(o, e, r);
}

void plan_print(const plan_options *o, tl_engine *e, const plan_result *r) {
    print_params(r);
    print_flops(o, r);
    print_rules(o, r);
    print_memory(o, r);
    print_fit(o, r);
    print_time(o, r);
    print_savings(o, r);
    print_advice(o, e, r);
}
