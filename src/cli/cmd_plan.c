/* tilia plan: what a model costs, before it is made. */
#include "cli/plan_cli.h"

#include "base/file.h"
#include "base/json.h"
#include "model/gguf.h"
#include "study/convert.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEY_PRESET = 1,
    KEY_DEPTH,
    KEY_CONFIG,
    KEY_SET,
    KEY_CONTEXT,
    KEY_DTYPE,
    KEY_TRAIN,
    KEY_RECOMPUTE,
    KEY_HARDWARE,
    KEY_FLOPS,
    KEY_WEIGHTS,
    KEY_CACHE,
    KEY_MEMORY,
    KEY_TOKENS,
    KEY_PRICE_HOUR,
    KEY_PRICE_KWH,
    KEY_WATTS,
    KEY_BANDWIDTH,
    KEY_PEAK,
    KEY_SAVINGS,
    KEY_PLOT,
    KEY_LORA,
    KEY_TARGETS,
    KEY_SEGMENT
};

static const struct argp_option table[] = {
    {0, 0, 0, 0, "What is planned:", 1},
    {"preset", KEY_PRESET, "NAME", 0, "a preset (--preset help lists them)", 1},
    {"depth", KEY_DEPTH, "N", 0, "a model derived from its depth", 1},
    {"config", KEY_CONFIG, "FILE", 0, "a config.json", 1},
    {"set", KEY_SET, "KEY=VALUE", 0, "change a key of the config.json", 1},
    {"train", KEY_TRAIN, 0, 0, "a training step: forward, backward, optimizer", 1},
    {"batch", 'b', "ROWS", 0, "sequences at a time (default 1)", 1},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default: the model's)", 1},
    {"segment", KEY_SEGMENT, "TOKENS", 0,
     "with --train: of a sequence computed at a time (default: all), as tilia train has it", 1},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default f32)", 1},
    {"recompute", KEY_RECOMPUTE, "LEVEL", OPTION_ARG_OPTIONAL,
     "with --train: none (default), light, wide or full, as tilia train has it", 1},
    {"lora", KEY_LORA, "RANK", 0, "a training step of low-rank additions alone; a MODEL stays in its file", 1},
    {"lora-targets", KEY_TARGETS, "LIST", 0, "of q,k,v,o,gate,up,down (default: all)", 1},
    {"weights", KEY_WEIGHTS, "TYPE", 0,
     "number type of the matrices when the model is run: q8_0, q4_k_m ... (default: the file's, or --dtype)", 1},
    {"kv-dtype", KEY_CACHE, "f32|bf16|f16|q8_0", 0, "type of the cached keys and values (default f32)", 1},
    {0, 0, 0, 0, "How it is told:", 2},
    {"flops", KEY_FLOPS, "2n|2n-1|1", 0,
     "what a dot product of length n counts: 2n operations (default), 2n-1, or each multiply-add as 1", 2},
    {"savings", KEY_SAVINGS, 0, 0, "what recomputation, fewer bits, grouped heads, windows or FLASH would save", 2},
    {"plot", KEY_PLOT, "FILE", 0, "the roofline as FILE (.svg or .png), and memory over a step beside it", 2},
    {0, 0, 0, 0, "On what:", 3},
    {"hardware", KEY_HARDWARE, "NAME", 0,
     "this (default, once measured) or a row of the hardware table (help lists it)", 3},
    {"peak", KEY_PEAK, "FLOPS", 0, "operations a second instead of the hardware's: 312T", 3},
    {"bandwidth", KEY_BANDWIDTH, "BYTES", 0, "bytes a second instead of the hardware's: 2T", 3},
    {"memory", KEY_MEMORY, "BYTES", 0, "the largest batch and context that fit: 24G", 3},
    {"tokens", KEY_TOKENS, "N", 0, "with --train: tokens of the whole training: 10B (default: 20 a parameter)", 3},
    {"price-hour", KEY_PRICE_HOUR, "X", 0, "price of an hour of the machine", 3},
    {"watts", KEY_WATTS, "X", 0, "power drawn (default: the hardware's)", 3},
    {"price-kwh", KEY_PRICE_KWH, "X", 0, "price of a kilowatt-hour", 3},
    {0}};

/* "24G", "312T", "1.5e9": powers of a thousand. */
static double quantity(struct argp_state *st, const char *option, const char *arg) {
    static const char units[] = "kMGTP";
    char *end;
    double v = strtod(arg, &end);
    const char *unit = *end == 'K' ? units : *end == 'B' && !end[1] ? units + 2 : *end ? strchr(units, *end) : NULL;
    for (const char *u = units; unit && u <= unit; u++) v *= 1000;
    if (end == arg || (*end && !unit) || (unit && end[1] && strcmp(end + 1, "B") != 0) || !(v > 0 && v < 1e30))
        argp_error(st, "%s is \"%s\"; it takes a positive number, like 24G or 1.5e9", option, arg);
    return v;
}

static tl_dtype half_or_float(struct argp_state *st, const char *option, const char *arg) {
    tl_dtype t = tl_dtype_parse(arg);
    if (t != TL_F32 && t != TL_BF16) argp_error(st, "%s is \"%s\"; it can be f32 or bf16", option, arg);
    return t;
}

static void list_presets(void) {
    const char *about;
    for (size_t i = 0; config_preset_name(i, &about); i++) printf("%-20s %s\n", config_preset_name(i, NULL), about);
    exit(cli_finish(EXIT_DONE));
}

static void list_hardware(void) {
    cost_machine m;
    char a[32], b[32], c[32], d[32], room[32];
    printf("%-10s %-28s %9s %9s %9s %10s %8s %6s\n", "name", "", "f32", "16 bits", "int8", "bytes/s", "memory",
           "watts");
    for (size_t i = 0; machine_name(i); i++) {
        machine_find(machine_name(i), &m, NULL);
        printf("%-10s %-28s %9s %9s %9s %10s %8s %6.0f\n           %s\n", m.name, m.title,
               cli_count(m.f32, a, sizeof a), cli_count(m.half, b, sizeof b), cli_count(m.int8, c, sizeof c),
               cli_bytes(m.bandwidth, d, sizeof d), cli_bytes(m.memory, room, sizeof room), m.watts, m.source);
    }
    printf("%-10s what tilia devices --measure found on this machine\n", "this");
    exit(cli_finish(EXIT_DONE));
}

static int convention_of(struct argp_state *st, const char *arg) {
    if (strcmp(arg, "2n") == 0 || strcmp(arg, "2") == 0) return 2;
    if (strcmp(arg, "2n-1") == 0) return -1;
    if (strcmp(arg, "1") != 0 && strcmp(arg, "n") != 0)
        argp_error(st, "--flops is \"%s\"; it can be 2n, 2n-1 or 1", arg);
    return 1;
}

static error_t parse(int key, char *arg, struct argp_state *st) {
    plan_options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_PRESET:
        if (strcmp(arg, "help") == 0) list_presets();
        o->preset = arg;
        return 0;
    case KEY_DEPTH: o->depth = arg; return 0;
    case KEY_CONFIG: o->config = arg; return 0;
    case KEY_SET:
        if (o->n_set == PLAN_SETS) argp_error(st, "more than %d keys to --set; write a config.json", PLAN_SETS);
        o->set[o->n_set++] = arg;
        return 0;
    case 'b': o->batch = cli_int(st, "--batch", arg, 1, 1 << 20); return 0;
    case KEY_CONTEXT: o->context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_DTYPE: o->dtype = half_or_float(st, "--dtype", arg); return 0;
    case KEY_CACHE: o->cache = cli_cache_type(st, arg); return 0;
    case KEY_SEGMENT: o->segment = cli_int(st, "--segment", arg, 1, 1 << 24); return 0;
    case KEY_TRAIN: o->train = true; return 0;
    case KEY_RECOMPUTE: o->recompute = cli_recompute(st, arg); return 0;
    case KEY_HARDWARE:
        if (strcmp(arg, "help") == 0) list_hardware();
        o->hardware = arg;
        return 0;
    case KEY_FLOPS: o->convention = convention_of(st, arg); return 0;
    case KEY_WEIGHTS: o->weights = arg; return 0;
    case KEY_MEMORY: o->memory = quantity(st, "--memory", arg); return 0;
    case KEY_TOKENS: o->tokens = quantity(st, "--tokens", arg); return 0;
    case KEY_PRICE_HOUR: o->price_hour = cli_real(st, "--price-hour", arg, 0, 1e9); return 0;
    case KEY_PRICE_KWH: o->price_kwh = cli_real(st, "--price-kwh", arg, 0, 1e6); return 0;
    case KEY_WATTS: o->watts = cli_real(st, "--watts", arg, 0, 1e9); return 0;
    case KEY_BANDWIDTH: o->bandwidth = quantity(st, "--bandwidth", arg); return 0;
    case KEY_PEAK: o->peak = quantity(st, "--peak", arg); return 0;
    case KEY_LORA:
        o->lora.rank = cli_int(st, "--lora", arg, 1, 65536);
        o->train = true;
        return 0;
    case KEY_TARGETS: cli_lora_targets(st, arg, &o->lora.targets); return 0;
    case KEY_SAVINGS: o->savings = true; return 0;
    case KEY_PLOT: o->plot = arg; return 0;
    case ARGP_KEY_ARG:
        if (o->model) argp_error(st, "more than one model");
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!!o->model + !!o->preset + !!o->depth + !!o->config != 1)
            argp_error(st, "give one of MODEL, --preset, --depth and --config");
        if (o->lora.targets && !o->lora.rank) argp_error(st, "--lora-targets needs --lora RANK");
        if (o->segment && !o->train) argp_error(st, "--segment is for --train");
        if (o->train && o->weights) argp_error(st, "--weights is for running a model; training keeps f32 masters");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "[MODEL]",
    "Parameters, FLOPs, memory and time of a model, from the same plans that training and generation run; no "
    "weights are read or allocated. MODEL is a run, a Hugging Face directory, a .safetensors or a .gguf file. "
    "Attention is counted causal-exact: only pairs that are computed.",
    children,
    NULL,
    NULL};

/* ---- the configuration ------------------------------------------------------------------------------------------ */

static tl_status read_json(const char *path, model_config *c, tl_error *e) {
    char unknown[400] = "";
    json_t *v;
    TRY(json_read_file(&mem_default, path, 16u << 20, &v, e));
    tl_status s = config_read(v, c, unknown, sizeof unknown, e);
    json_decref(v);
    if (s != TL_OK) error_at_file(e, path);
    if (s == TL_OK && unknown[0]) fprintf(stderr, "tilia: warning: %s: keys not known: %s\n", path, unknown);
    return s;
}

/* Number types of a GGUF file's matrices, by the names of its tensors: nothing but its header is read. */
static tl_status read_types(const gguf_parts *g, plan_result *r, tl_error *e) {
    r->mapped.n = r->params.n * PARAM_PIECES;
    r->mapped.piece = mem_new(&mem_default, r->mapped.n, sizeof *r->mapped.piece);
    if (!r->mapped.piece) return error_set(e, TL_NOMEM, "no memory for a table of tensors");
    for (size_t i = 0; i < r->params.n; i++) {
        param_piece piece[PARAM_PIECES];
        if (!r->params.list[i].decay) continue;
        int n = params_pieces(&r->config, &r->params.list[i], FORMAT_GGUF, piece);
        for (int k = 0; k < n; k++) {
            const gguf_tensor *t = gguf_parts_find(g, piece[k].name);
            tl_dtype type = t ? gguf_dtype(t->type) : TL_NONE;
            if (!type)
                return error_set(e, TL_UNSUPPORTED, "tensor %s is missing or of a type that is not computed with",
                                 piece[k].name);
            r->mapped.piece[i * PARAM_PIECES + (size_t)k] =
                (build_matrix){.dtype = type, .rows = piece[k].rows, .cols = piece[k].cols};
        }
    }
    return TL_OK;
}

static size_t mapped_bytes(const plan_result *r) {
    size_t sum = 0;
    for (size_t i = 0; i < r->mapped.n; i++) {
        const build_matrix *m = &r->mapped.piece[i];
        if (m->dtype) sum += (size_t)(m->rows * m->cols / tl_dtype_block(m->dtype)) * tl_dtype_bytes(m->dtype);
    }
    return sum + (size_t)(r->params.total - r->params.decayed) * sizeof(float);
}

static tl_status read_gguf(const plan_options *o, plan_result *r, tl_error *e) {
    gguf_parts g;
    TRY(gguf_parts_open(&mem_default, o->model, &g, e));
    tl_status s = config_read_gguf(&g, &r->config, e);
    if (s == TL_OK) s = params_init(&r->params, &mem_default, &r->config, e);
    if (s == TL_OK && !o->train && !o->weights) s = read_types(&g, r, e);
    gguf_parts_close(&g);
    if (s != TL_OK) error_at_file(e, o->model);
    return s;
}

static tl_status read_model(const plan_options *o, plan_result *r, tl_error *e) {
    char text[64], dir[4096], file[4200];
    if (o->preset || o->depth) {
        snprintf(text, sizeof text, "%s:%s", o->preset ? "preset" : "depth", o->preset ? o->preset : o->depth);
        TRY(config_parse(text, &r->config, NULL, 0, e));
    } else if (o->config) {
        TRY(read_json(o->config, &r->config, e));
    } else if (convert_is_gguf(o->model)) {
        return read_gguf(o, r, e);
    } else {
        size_t n = strlen(o->model);
        const char *slash = strrchr(o->model, '/');
        if (n > 12 && strcmp(o->model + n - 12, ".safetensors") == 0)
            snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - o->model) : 1, slash ? o->model : ".");
        else
            TRY(model_find_dir(&mem_default, o->model, dir, sizeof dir, e));
        TRY(file_join(file, sizeof file, dir, "config.json", e));
        TRY(read_json(file, &r->config, e));
    }
    TRY(config_set(&r->config, o->set, o->n_set, e));
    return params_init(&r->params, &mem_default, &r->config, e);
}

/* ---- reckoning ----------------------------------------------------------------------------------------------------
 */

static void pick_machine(const plan_options *o, tl_engine *e, plan_result *r) {
    tl_error err = {0};
    r->has_machine = machine_get(e, o->hardware ? o->hardware : "this", &r->machine, &err) == TL_OK;
    if (!r->has_machine) {
        tl_error_text(&err, r->no_machine, sizeof r->no_machine);
        if (!(o->peak > 0 && o->bandwidth > 0)) return;
        r->has_machine = true;
        r->machine = (cost_machine){.name = "given", .title = "limits as given"};
    }
    cost_machine *m = &r->machine;
    if (o->peak > 0) m->f32 = m->half = m->int8 = o->peak;
    if (o->bandwidth > 0) m->bandwidth = o->bandwidth;
    if (o->peak <= 0 && o->bandwidth <= 0) return;
    m->n = 0; /* measured calls say nothing about another machine */
    snprintf(m->source, sizeof m->source, "--peak and --bandwidth");
}

/* Where a parameter belongs; names decide, so that roles unknown here find a place too. */
static int part_of_param(const model_param *m) {
    if (m->role == ROLE_EMBED || m->role == ROLE_POS) return 0;
    if (m->role == ROLE_HEAD || m->role == ROLE_HEAD_BIAS) return 4;
    if (m->role == ROLE_NORM_GAIN || m->role == ROLE_NORM_BIAS) return 3;
    static const char *const mlp[] = {".up", ".down", ".gate", "expert", "router", "mlp"};
    for (size_t i = 0; i < sizeof mlp / sizeof *mlp; i++)
        if (strstr(m->name, mlp[i])) return 2;
    return m->layer >= 0 ? 1 : 5;
}

static void sum_params(plan_result *r) {
    static const char *const names[PLAN_PARAMS] = {"embedding", "mixer", "mlp", "norms", "head", "other"};
    for (int i = 0; i < PLAN_PARAMS; i++) r->part[i] = (plan_params){.name = names[i]};
    r->part[1].name = config_all_gated(&r->config) ? "gated units" : "attention";
    for (size_t i = 0; i < r->params.n; i++) {
        const model_param *m = &r->params.list[i];
        plan_params *p = &r->part[part_of_param(m)];
        int64_t n = (m->rows ? m->rows : 1) * m->cols;
        p->count += n;
        if (m->rows && m->role != ROLE_EMBED && m->role != ROLE_POS) p->flops += 2 * (double)n;
        if (m->role == ROLE_EMBED && r->config.tied) r->part[4].flops += 2 * (double)n;
    }
}

static tl_status reckon_inference(const plan_options *o, tl_engine *e, plan_result *r, cost_machine *m, tl_error *err) {
    tl_dtype blocks = TL_NONE;
    if (!config_writes(&r->config))
        return error_set(err, TL_ARG, "the model cannot write one token after the other; --train plans its training");
    if (o->weights) {
        tl_dtype t = tl_dtype_parse(o->weights);
        blocks = t ? t : TL_Q4_K; /* a mix by its main type: its bytes are counted exactly below */
        bool known = false;
        for (size_t i = 0; convert_type_name(i, NULL); i++)
            known |= strcmp(convert_type_name(i, NULL), o->weights) == 0;
        if (!known)
            return error_set(err, TL_ARG, "no weights of type \"%s\"; tilia quantize --help lists them", o->weights);
    }
    cost_request q = {.mode = COST_DECODE,
                      .rows = build_bucket(o->batch),
                      .slots = o->batch,
                      .context = o->context,
                      .dtype = blocks && tl_dtype_block(blocks) > 1 ? TL_F32 : o->dtype,
                      .cache = o->cache,
                      .blocks = blocks,
                      .mapped = r->mapped.piece ? &r->mapped : NULL};
    TRY(cost_sum(e, &r->config, &q, m, &r->decode, err));
    if (m) TRY(cost_crossover(e, &r->config, &q, m, &r->crossing, err));
    q.rows = q.slots = 1;
    TRY(cost_prefill(e, &r->config, &q, m, &r->prefill, err));
    r->type = o->weights ? o->weights : r->mapped.piece ? "as in the file" : tl_dtype_name(o->dtype);
    r->stored = r->mapped.piece ? mapped_bytes(r) : plan_stored(r, r->type);
    q.slots = o->batch, q.rows = build_bucket(o->batch);
    if (o->memory > 0)
        TRY(cost_fit(e, &r->config, &q, r->stored, (size_t)o->memory, &r->fit_rows, &r->fit_context, err));
    return TL_OK;
}

static tl_status reckon(const plan_options *o, tl_engine *e, plan_result *r, tl_error *err) {
    cost_machine *m = r->has_machine ? &r->machine : NULL;
    cost_request q = {.mode = o->train ? COST_TRAIN : COST_FORWARD,
                      .rows = o->batch,
                      .context = o->context,
                      .dtype = o->dtype,
                      .lora = o->lora.rank ? &r->lora : NULL,
                      .mapped = r->opened && !r->opened->flat ? &r->opened->mapped : NULL,
                      .recompute = o->recompute,
                      .segment = o->segment};
    sum_params(r);
    TRY(cost_sum(e, &r->config, &q, m, &r->pass, err));
    r->type = tl_dtype_name(o->dtype);
    r->stored = plan_stored(r, r->type);
    if (o->train && (o->recompute || o->segment)) {
        cost_report kept;
        cost_request once = q;
        once.recompute = TL_RECOMPUTE_NONE;
        once.segment = 0;
        TRY(cost_sum(e, &r->config, &once, NULL, &kept, err));
        r->recomputed = r->pass.total.backward_flops - kept.total.backward_flops;
    }
    r->tokens = o->tokens > 0 ? o->tokens : 20 * (double)r->params.count;
    if (!o->train) return reckon_inference(o, e, r, m, err);
    if (o->memory > 0) return cost_fit(e, &r->config, &q, 0, (size_t)o->memory, &r->fit_rows, &r->fit_context, err);
    return TL_OK;
}

/* Adapters; of a file the matrices stay where they are. */
static tl_status add_lora(const plan_options *o, tl_engine *e, plan_result *r, tl_error *err) {
    if (o->model) TRY(model_open_mapped(e, o->model, &r->opened, err));
    return lora_init(&r->lora, &mem_default, &r->config, &r->params, &o->lora, err);
}

int cmd_plan(int argc, char **argv) {
    plan_options o = {.batch = 1, .dtype = TL_F32, .cache = TL_F32, .convention = 2};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    plan_result *r = calloc(1, sizeof *r);
    tl_engine *engine = NULL;
    tl_error e = {0};
    tl_status s = r ? TL_OK : error_set(&e, TL_NOMEM, "no memory for a plan");
    if (s == TL_OK && o.hardware && strcmp(o.hardware, "this") != 0) s = machine_find(o.hardware, &r->machine, &e);
    if (s == TL_OK) s = read_model(&o, r, &e);
    if (s == TL_OK && !o.context) o.context = r->config.context;
    if (o.segment >= o.context) o.segment = 0;
    if (s == TL_OK) s = cli_engine(&o.common, &engine, &e);
    if (s == TL_OK && o.lora.rank) s = add_lora(&o, engine, r, &e);
    if (s == TL_OK) pick_machine(&o, engine, r);
    if (s == TL_OK && o.hardware && !r->has_machine) {
        cost_machine unused;
        s = machine_get(engine, o.hardware, &unused, &e); /* asked for by name: an error */
    }
    if (s == TL_OK) s = reckon(&o, engine, r, &e);
    if (s == TL_OK && o.savings) s = plan_savings(&o, engine, r, &e);
    if (s == TL_OK && o.plot) s = plan_plot(&o, engine, r, &e);
    if (s == TL_OK && o.common.json) plan_json(&o, r);
    if (s == TL_OK && !o.common.json) plan_print(&o, engine, r);
    if (r) {
        lora_fini(&r->lora, &mem_default);
        if (r->opened) model_close(r->opened);
        params_fini(&r->params, &mem_default);
        mem_free(&mem_default, r->mapped.piece);
        machine_fini(&r->machine);
    }
    free(r);
    tl_engine_destroy(engine);
    return s == TL_OK ? cli_finish(EXIT_DONE) : cli_fail(&e);
}
