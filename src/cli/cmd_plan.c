/* tilia plan: what a model costs, before it is made. */
#include "cli/cli.h"

#include "base/file.h"
#include "cost/cost.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

enum { KEY_PRESET = 1, KEY_DEPTH, KEY_CONFIG, KEY_SET, KEY_CONTEXT, KEY_DTYPE, KEY_TRAIN, KEY_RECOMPUTE, KEY_LORA, KEY_TARGETS };

enum { SETS = 64 };

typedef struct options {
    cli_common common;
    const char *model, *preset, *depth, *config, *set[SETS];
    size_t n_set;
    int64_t batch, context;
    tl_dtype dtype;
    bool train, recompute;
    lora_options lora; /* rank 0: none */
} options;

static const struct argp_option table[] = {
    {"preset", KEY_PRESET, "NAME", 0, "a preset (--preset help lists them)", 0},
    {"depth", KEY_DEPTH, "N", 0, "a model derived from its depth", 0},
    {"config", KEY_CONFIG, "FILE", 0, "a config.json", 0},
    {"set", KEY_SET, "KEY=VALUE", 0, "change a key of the config.json", 0},
    {"batch", 'b', "ROWS", 0, "sequences at a time (default 1)", 0},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default: the model's)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default f32)", 0},
    {"train", KEY_TRAIN, 0, 0, "a training step: forward, backward, optimizer", 0},
    {"recompute", KEY_RECOMPUTE, 0, 0, "with --train: blocks run again in the backward pass", 0},
    {"lora", KEY_LORA, "RANK", 0, "a training step of low-rank additions alone; a MODEL stays in its file", 0},
    {"lora-targets", KEY_TARGETS, "LIST", 0, "of q,k,v,o,gate,up,down (default: all)", 0},
    {0}};

static void list_presets(struct argp_state *st) {
    const char *about;
    for (size_t i = 0; config_preset_name(i, &about); i++) printf("%-12s %s\n", config_preset_name(i, NULL), about);
    (void)st;
    exit(cli_finish(EXIT_DONE));
}

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_PRESET:
        if (strcmp(arg, "help") == 0) list_presets(st);
        o->preset = arg;
        return 0;
    case KEY_DEPTH: o->depth = arg; return 0;
    case KEY_CONFIG: o->config = arg; return 0;
    case KEY_SET:
        if (o->n_set == SETS) argp_error(st, "more than %d keys to --set; write a config.json", SETS);
        o->set[o->n_set++] = arg;
        return 0;
    case 'b': o->batch = cli_int(st, "--batch", arg, 1, 1 << 20); return 0;
    case KEY_CONTEXT: o->context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_DTYPE: o->dtype = cli_dtype(st, "--dtype", arg); return 0;
    case KEY_TRAIN: o->train = true; return 0;
    case KEY_RECOMPUTE: o->recompute = true; return 0;
    case KEY_LORA:
        o->lora.rank = cli_int(st, "--lora", arg, 1, 65536);
        o->train = true;
        return 0;
    case KEY_TARGETS: cli_lora_targets(st, arg, &o->lora.targets); return 0;
    case ARGP_KEY_ARG:
        if (o->model) argp_error(st, "more than one model");
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!!o->model + !!o->preset + !!o->depth + !!o->config != 1)
            argp_error(st, "give one of MODEL, --preset, --depth and --config");
        if (o->lora.targets && !o->lora.rank) argp_error(st, "--lora-targets needs --lora RANK");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "[MODEL]",
    "Parameters, FLOPs and memory of a model, from the same plans that training and generation run; no "
    "weights are read or allocated. Attention is counted causal-exact: only pairs that are computed.",
    children,
    NULL,
    NULL};

static tl_status read_base(const options *o, model_config *c, tl_error *e) {
    char text[64], dir[4096], file[4200];
    const char *path = o->config;
    if (o->preset || o->depth) {
        snprintf(text, sizeof text, "%s:%s", o->preset ? "preset" : "depth", o->preset ? o->preset : o->depth);
        return config_parse(text, c, NULL, 0, e);
    }
    if (!path) {
        TRY(model_find_dir(&mem_default, o->model, dir, sizeof dir, e));
        TRY(file_join(file, sizeof file, dir, "config.json", e));
        path = file;
    }
    json_t *v;
    TRY(json_read_file(&mem_default, path, 16u << 20, &v, e));
    tl_status s = config_read(v, c, NULL, 0, e);
    json_decref(v);
    if (s != TL_OK) error_at_file(e, path);
    return s;
}

static tl_status read_config(const options *o, model_config *c, tl_error *e) {
    TRY(read_base(o, c, e));
    return config_set(c, o->set, o->n_set, e);
}

static void print_json(const options *o, const model_config *c, const cost_report *r) {
    const tl_model_costs *t = &r->total;
    printf("{\"model_type\": \"%s\", \"params\": %lld, \"params_no_embedding\": %lld, \"params_active\": %lld, "
           "\"rows\": %lld, \"context\": %lld, "
           "\"dtype\": \"%s\", \"train\": %s, \"recompute\": %s, \"flops_forward\": %.0f, \"flops_backward\": %.0f, "
           "\"trained_params\": %lld, \"mapped_bytes\": %zu, \"weights_bytes\": %zu, \"gradients_bytes\": %zu, \"optimizer_bytes\": %zu, \"activations_bytes\": %zu, "
           "\"cache_bytes_per_token\": %zu, \"parts\": [",
           c->type, (long long)t->params, (long long)t->params_no_embedding, (long long)t->params_active,
           (long long)o->batch, (long long)o->context, tl_dtype_name(o->dtype), o->train ? "true" : "false",
           o->recompute ? "true" : "false", t->forward_flops, t->backward_flops, (long long)r->trained, r->mapped, t->weights, t->gradients, t->optimizer,
           t->activations, t->cache_per_token);
    for (int i = 0; i < COST_PARTS; i++)
        printf("%s{\"name\": \"%s\", \"forward\": %.0f, \"backward\": %.0f, \"bytes\": %.0f}", i ? ", " : "",
               r->part[i].name, r->part[i].forward, r->part[i].backward, r->part[i].bytes);
    printf("]}\n");
}

static void print_tables(const options *o, const model_config *c, const cost_report *r) {
    const tl_model_costs *t = &r->total;
    char a[32], b[32], d[32];
    double all = t->forward_flops + t->backward_flops, tokens = (double)r->tokens;
    printf("%s: %lld layers, width %lld, %lld heads of %lld (%lld kv), mlp %lld, vocabulary %lld\n", c->type,
           (long long)c->layers, (long long)c->width, (long long)c->heads, (long long)c->head_dim,
           (long long)c->kv_heads, (long long)c->mlp, (long long)c->vocab);
    if (r->trained != t->params)
        printf("%s parameters are trained, rank %lld\n", cli_count((double)r->trained, a, sizeof a),
               (long long)o->lora.rank);
    printf("%s parameters, %s without embeddings\n", cli_count((double)t->params, a, sizeof a),
           cli_count((double)t->params_no_embedding, b, sizeof b));
    if (c->experts)
        printf("%s active in a token: %lld of %lld experts of width %lld in %lld layers\n",
               cli_count((double)t->params_active, a, sizeof a), (long long)c->experts_used, (long long)c->experts,
               (long long)c->expert_mlp, (long long)config_expert_layers(c));
    printf("\n");
    printf("%s of %lld x %lld tokens in %s%s\n", o->train ? "training step" : "forward pass", (long long)o->batch,
           (long long)o->context, tl_dtype_name(o->dtype), o->recompute ? ", blocks recomputed" : "");
    printf("  %-12s %12s %12s %8s\n", "", "forward", "backward", "share");
    for (int i = 0; i < COST_PARTS; i++)
        printf("  %-12s %12s %12s %7.1f%%\n", r->part[i].name, cli_count(r->part[i].forward, a, sizeof a),
               cli_count(r->part[i].backward, b, sizeof b),
               all > 0 ? 100 * (r->part[i].forward + r->part[i].backward) / all : 0);
    printf("  %-12s %12s %12s\n", "total FLOPs", cli_count(t->forward_flops, a, sizeof a),
           cli_count(t->backward_flops, b, sizeof b));
    printf("  per token %s; the rule %s N gives %s without attention and embeddings\n",
           cli_count(all / tokens, a, sizeof a), o->train ? "6" : "2",
           cli_count((o->train ? 6.0 : 2.0) * (double)(t->params_no_embedding - (t->params - t->params_active)), b,
                     sizeof b));
    printf("  attention's products forward would be %s if the full square were counted\n\n",
           cli_count(r->attention_full, a, sizeof a));
    printf("memory\n  %-12s %12s\n", "weights", cli_bytes((double)t->weights, a, sizeof a));
    if (r->mapped)
        printf("  %-12s %12s  (mapped from the file, not part of the total)\n", "in the file",
               cli_bytes((double)r->mapped, a, sizeof a));
    if (o->train) {
        printf("  %-12s %12s\n", "gradients", cli_bytes((double)t->gradients, a, sizeof a));
        printf("  %-12s %12s\n", "optimizer", cli_bytes((double)t->optimizer, a, sizeof a));
    }
    printf("  %-12s %12s  (exactly what the plan allocates)\n", "activations",
           cli_bytes((double)t->activations, a, sizeof a));
    printf("  %-12s %12s\n", "total",
           cli_bytes((double)(t->weights + t->gradients + t->optimizer + t->activations), a, sizeof a));
    printf("  %-12s %12s a token, %s at context %lld\n", "key-values",
           cli_bytes((double)t->cache_per_token, a, sizeof a),
           cli_bytes((double)t->cache_per_token * (double)o->context, d, sizeof d), (long long)o->context);
}

/* Of a file the plan is made as it would run: matrices where they are. */
static tl_status plan(options *o, tl_engine *engine, model_config *c, cost_report *r, tl_error *e) {
    tl_model *m = NULL;
    model_params p = {0};
    model_lora l = {0};
    if (o->model && (o->lora.rank || !file_is_dir(o->model))) {
        TRY(model_open_mapped(engine, o->model, &m, e));
        *c = m->config;
    } else {
        TRY(read_config(o, c, e));
    }
    if (!o->context) o->context = c->context;
    bool mapped = m && !m->flat && (o->lora.rank || !o->train);
    tl_status s = o->lora.rank ? params_init(&p, &mem_default, c, e) : TL_OK;
    if (s == TL_OK && o->lora.rank) s = lora_init(&l, &mem_default, c, &p, &o->lora, e);
    if (s == TL_OK)
        s = cost_of(engine, c, o->lora.rank ? &l : NULL, mapped ? &m->mapped : NULL, o->batch, o->context, o->dtype,
                    o->train, o->recompute, r, e);
    lora_fini(&l, &mem_default);
    params_fini(&p, &mem_default);
    model_close(m);
    return s;
}

int cmd_plan(int argc, char **argv) {
    options o = {.batch = 1, .dtype = TL_F32};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    static model_config c; /* large: lists of position factors */
    cost_report r;
    tl_engine *engine;
    tl_error e = {0};
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    int code = EXIT_DONE;
    if (plan(&o, engine, &c, &r, &e) != TL_OK)
        code = cli_fail(&e);
    else if (o.common.json)
        print_json(&o, &c, &r);
    else
        print_tables(&o, &c, &r);
    tl_engine_destroy(engine);
    return code;
}
