/* tilia profile: where the time of a training step, a prompt or a token goes, operator by operator: measured,
 * predicted, and as a share of the machine's limit. */
#include "cli/profile_cli.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEY_PRESET = 1,
    KEY_DEPTH,
    KEY_CONTEXT,
    KEY_DTYPE,
    KEY_STEPS,
    KEY_RECOMPUTE,
    KEY_ALL,
    KEY_WHAT,
    KEY_TRACE,
    KEY_FLOOR
};

static const struct argp_option table[] = {
    {"preset", KEY_PRESET, "NAME", 0, "a model with random weights (default char-cpu)", 0},
    {"depth", KEY_DEPTH, "N", 0, "a model derived from its depth", 0},
    {"what", KEY_WHAT, "train|prefill|decode", 0,
     "a training step (default), a prompt that fills the context, or the last token of it", 0},
    {"batch", 'b', "ROWS", 0, "sequences a training step (default 8)", 0},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default: the model's)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default f32)", 0},
    {"steps", KEY_STEPS, "N", 0, "steps measured at least, after one to warm up (default 3); the best of them counts",
     0},
    {"recompute", KEY_RECOMPUTE, "LEVEL", OPTION_ARG_OPTIONAL,
     "none (default), light, wide or full, as tilia train has it", 0},
    {"all", KEY_ALL, 0, 0, "every step of the plan by itself, not summed by kernel", 0},
    {"floor", KEY_FLOOR, 0, 0,
     "beside a training step the time that its products and attention take each by itself, with all other operators' "
     "bytes over the bandwidth",
     0},
    {"trace", KEY_TRACE, "FILE", 0, "every step as a Chrome trace (JSON), for chrome://tracing or Perfetto", 0},
    {0}};

static profile_what parse_what(struct argp_state *st, const char *arg) {
    static const char *const names[] = {"train", "prefill", "decode"};
    for (int i = 0; i < 3; i++)
        if (strcmp(arg, names[i]) == 0) return (profile_what)i;
    argp_error(st, "--what is \"%s\"; it can be train, prefill or decode", arg);
    return PROFILE_TRAIN;
}

static error_t parse(int key, char *arg, struct argp_state *st) {
    profile_options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_PRESET: o->preset = arg; return 0;
    case KEY_DEPTH: o->depth = arg; return 0;
    case KEY_WHAT: o->what = parse_what(st, arg); return 0;
    case 'b': o->batch = cli_int(st, "--batch", arg, 1, 1 << 20); return 0;
    case KEY_CONTEXT: o->context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_STEPS: o->steps = cli_int(st, "--steps", arg, 1, 1000); return 0;
    case KEY_RECOMPUTE: o->recompute = cli_recompute(st, arg); return 0;
    case KEY_ALL: o->all = true; return 0;
    case KEY_FLOOR: o->floor = true; return 0;
    case KEY_TRACE: o->trace = arg; return 0;
    case KEY_DTYPE:
        o->dtype = tl_dtype_parse(arg);
        if (o->dtype != TL_F32 && o->dtype != TL_BF16) argp_error(st, "--dtype is \"%s\"; it can be f32 or bf16", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (o->model) argp_error(st, "more than one model");
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!!o->model + !!o->preset + !!o->depth > 1) argp_error(st, "give one of MODEL, --preset and --depth");
        if (o->floor && o->what != PROFILE_TRAIN) argp_error(st, "--floor is of a training step");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "[MODEL]",
    "Runs training steps on random tokens, or a prompt, or one token, with a clock around every operator: time, "
    "FLOP/s and bytes/s by kernel, the share of the machine's limit, and the time that was predicted for it. "
    "Predictions come from what tilia devices --measure has found.",
    children,
    NULL,
    NULL};

static int by_time(const void *a, const void *b) {
    double x = ((const profile_row *)a)->seconds, y = ((const profile_row *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* Sums of rows with one operator and kernel, largest first. */
static size_t by_kernel(const profile_run *r, bool all, profile_row *out) {
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        const profile_row *s = &r->row[i];
        size_t k = 0;
        while (k < n && (all || strcmp(out[k].op, s->op) != 0 || strcmp(out[k].kernel, s->kernel) != 0)) k++;
        if (k == n) {
            out[n++] = *s;
            continue;
        }
        out[k].seconds += s->seconds;
        out[k].predicted += s->predicted;
        out[k].limit += s->limit;
        out[k].alone += s->alone;
        out[k].flops += s->flops;
        out[k].bytes += s->bytes;
        out[k].calls++;
    }
    qsort(out, n, sizeof *out, by_time);
    return n;
}

static void print_json(const profile_options *o, const profile_run *r, const profile_row *row, size_t n,
                       const profile_row *sum, const profile_floor *f) {
    static const char *const names[] = {"train", "prefill", "decode"};
    printf("{\"what\": \"%s\", \"tokens\": %.0f, \"seconds\": %.9g, \"least_seconds\": %.9g, \"seconds_with_clocks\": "
           "%.9g, ",
           names[o->what], r->tokens, r->whole, r->least, sum->seconds);
    if (r->measured)
        printf("\"predicted\": %.9g, \"predicted_by_measured\": %.4f, ", sum->predicted, sum->predicted / r->least);
    if (f->sum > 0)
        printf("\"floor\": %.9g, \"floor_products\": %.9g, \"floor_mixers\": %.9g, \"floor_others\": %.9g, ", f->sum,
               f->products, f->mixers, f->others);
    printf("\"limit\": %.9g, \"flops\": %.0f, \"bytes\": %.0f, \"mfu\": %.5f, \"rows\": [", sum->limit, sum->flops,
           sum->bytes, sum->flops / r->least / machine_peak(&r->machine, o->dtype));
    for (size_t i = 0; i < n; i++) {
        printf("%s{\"op\": \"%s\", \"kernel\": \"%s\", \"name\": ", i ? ", " : "", row[i].op, row[i].kernel);
        cli_json_text(stdout, o->all ? row[i].name : "", o->all ? strlen(row[i].name) : 0);
        printf(", \"part\": \"%s\", \"calls\": %lld, \"seconds\": %.9g, ", cost_part_name[row[i].part],
               (long long)row[i].calls, row[i].seconds);
        if (r->measured) printf("\"predicted\": %.9g, ", row[i].predicted);
        if (o->floor) printf("\"floor\": %.9g, ", row[i].alone);
        printf("\"limit\": %.9g, \"flops\": %.0f, \"bytes\": %.0f}", row[i].limit, row[i].flops, row[i].bytes);
    }
    printf("]}\n");
}

static void print_line(const profile_options *o, const profile_run *r, const profile_row *s, double total) {
    char predicted[32] = "-";
    if (o->floor)
        snprintf(predicted, sizeof predicted, "%.3f", 1e3 * s->alone);
    else if (r->measured)
        snprintf(predicted, sizeof predicted, "%.3f", 1e3 * s->predicted);
    printf("%-18s %-34s %6lld %10.3f %10s %6.1f%% %9.1f %8.1f %6.0f%% %s\n", s->op, s->kernel, (long long)s->calls,
           1e3 * s->seconds, predicted, 100 * s->seconds / total, 1e-9 * s->flops / s->seconds,
           1e-9 * s->bytes / s->seconds, 100 * s->limit / s->seconds, o->all ? s->name : "");
}

static void print_tables(const profile_options *o, const profile_run *r, const profile_row *row, size_t n,
                         const profile_row *sum, const profile_floor *f) {
    static const char *const whole[] = {"a training step", "the prompt", "a token"};
    printf("%-18s %-34s %6s %10s %10s %7s %9s %8s %7s\n", "operator", "kernel", "calls", "ms",
           o->floor ? "floor" : "predicted", "share", "GFLOP/s", "GB/s", "limit");
    for (size_t i = 0; i < n; i++) print_line(o, r, &row[i], sum->seconds);
    printf("%-18s %-34s %6s %10.3f\n\n", "sum", "", "", 1e3 * sum->seconds);
    printf("%s without clocks: %.3f ms at best, %.3f in the middle; %.1f tokens/s, MFU %.1f%%, %.1f GB/s\n",
           whole[o->what], 1e3 * r->least, 1e3 * r->whole, r->tokens / r->least,
           100 * sum->flops / r->least / machine_peak(&r->machine, o->dtype), 1e-9 * sum->bytes / r->least);
    if (f->sum > 0)
        printf("floor: products by themselves %.3f ms, attention %.3f ms, all else %.1f MB at %.1f GB/s %.3f ms: %.3f "
               "ms;\n"
               "       the best step took %.2f times that, the middle one %.2f\n",
               1e3 * f->products, 1e3 * f->mixers, 1e-6 * f->bytes, 1e-9 * f->bandwidth, 1e3 * f->others, 1e3 * f->sum,
               r->least / f->sum, r->whole / f->sum);
    printf("limit: what %s allows (%s)\n", r->machine.title, r->machine.source);
    if (r->measured)
        printf("predicted: %.3f ms, %.2f of the best measured\n", 1e3 * sum->predicted, sum->predicted / r->least);
    else
        printf("nothing is predicted: run tilia devices --measure once\n");
}

int cmd_profile(int argc, char **argv) {
    profile_options o = {.batch = 8, .steps = 3, .dtype = TL_F32};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    tl_engine *engine;
    profile_floor floor = {0};
    tl_error e = {0};
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    profile_run r;
    int code = EXIT_DONE;
    profile_row *row = calloc(PROFILE_ROWS, sizeof *row);
    if (!row) error_set(&e, TL_NOMEM, "no memory for a profile");
    if (!row || profile_do(&o, engine, &r, &e) != TL_OK) {
        free(row);
        tl_engine_destroy(engine);
        return cli_fail(&e);
    }
    bool failed = o.floor && profile_floor_of(engine, &r, &floor, &e) != TL_OK;
    size_t n = by_kernel(&r, o.all, row);
    profile_row sum = {0};
    for (size_t i = 0; i < n; i++) {
        sum.seconds += row[i].seconds;
        sum.predicted += row[i].predicted;
        sum.limit += row[i].limit;
        sum.flops += row[i].flops;
        sum.bytes += row[i].bytes;
    }
    if (o.trace && profile_trace(&o, &r, &e) != TL_OK) code = cli_fail(&e);
    if (failed)
        code = cli_fail(&e);
    else if (o.common.json)
        print_json(&o, &r, row, n, &sum, &floor);
    else
        print_tables(&o, &r, row, n, &sum, &floor);
    profile_close(&r);
    free(row);
    tl_engine_destroy(engine);
    return cli_finish(code);
}
