/* tilia bench: the machine's limits, and how near to them Tilia comes on it. */
#include "cli/bench_cli.h"

#include "cost/measure.h"

#include <stdlib.h>
#include <string.h>

/* One bit of bench_options.given each; argp's keys are the same numbers, but for -b. */
enum {
    KEY_BATCH,
    KEY_PRESET,
    KEY_CONTEXT,
    KEY_DTYPE,
    KEY_STEPS,
    KEY_CLOCK,
    KEY_MODEL,
    KEY_PROMPT,
    KEY_ROUNDS,
    KEY_TEXT,
    KEY_TOKENIZER,
    KEY_VOCAB,
    KEYS
};
static const char *const option_names[KEYS] = {
    [KEY_BATCH] = "--batch",   [KEY_PRESET] = "--preset", [KEY_CONTEXT] = "--context", [KEY_DTYPE] = "--dtype",
    [KEY_STEPS] = "--steps",   [KEY_CLOCK] = "--clock",   [KEY_MODEL] = "--model",     [KEY_PROMPT] = "--prompt",
    [KEY_ROUNDS] = "--rounds", [KEY_TEXT] = "--text",     [KEY_VOCAB] = "--vocab",     [KEY_TOKENIZER] = "--tokenizer"};

static const struct argp_option table[] = {
    {"preset", KEY_PRESET, "NAME", 0,
     "the model (default: char-cpu to train, gpt2 to generate, char for kv-cache; predict: six models)", 0},
    {"model", KEY_MODEL, "MODEL", 0, "generate: a model's weights where they lie in its file, instead of a preset", 0},
    {"prompt", KEY_PROMPT, "N", 0, "generate: tokens of a prompt to compute, too (default 512 with --model, else none)",
     0},
    {"rounds", KEY_ROUNDS, "N", 0, "generate: how often prompt and tokens are measured (default 3)", 0},
    {"batch", 'b', "ROWS", 0, "sequences a training step (default 12); generate: sequences side by side (default 1)",
     0},
    {"context", KEY_CONTEXT, "T", 0,
     "tokens a sequence (default: the model's); attention: this length alone (default 256, 1024, 4096)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default: one after the other; predict: f32)", 0},
    {"steps", KEY_STEPS, "N", 0, "steps, or tokens, measured (default 10 steps, 64 tokens; predict: 3)", 0},
    {"clock", KEY_CLOCK, "wall|cpu", 0,
     "cpu: processor time of the process; with one thread, other work on the machine "
     "disturbs it less (default wall)",
     0},
    {"text", KEY_TEXT, "FILE", 0, "what the tokenizer reads (default: stories made here, English and Chinese)", 0},
    {"tokenizer", KEY_TOKENIZER, "FILE", 0, "the tokenizer (default: one trained on the text)", 0},
    {"vocab", KEY_VOCAB, "N", 0, "size of the vocabulary trained (default 8000)", 0},
    {0}};

#define BIT(key) (1u << KEY_##key)
static const struct {
    const char *name;
    tl_status (*run)(bench_options *o, tl_error *e);
    unsigned reads; /* the options that mean something to it; --clock does to all */
    bool limits;    /* the machine's are measured beside it */
} parts[] = {
    {"gemm", bench_gemm, BIT(DTYPE), true},
    {"attention", bench_attention, BIT(DTYPE) | BIT(CONTEXT), true},
    {"train", bench_train, BIT(DTYPE) | BIT(CONTEXT) | BIT(PRESET) | BIT(BATCH) | BIT(STEPS), true},
    {"generate", bench_generate,
     BIT(DTYPE) | BIT(CONTEXT) | BIT(PRESET) | BIT(BATCH) | BIT(STEPS) | BIT(MODEL) | BIT(PROMPT) | BIT(ROUNDS), true},
    {"kv-cache", bench_kv_cache, BIT(CONTEXT) | BIT(PRESET), true},
    {"tokenizer", bench_tokenizer, BIT(TEXT) | BIT(TOKENIZER) | BIT(VOCAB), false},
    {"predict", bench_predict, BIT(DTYPE) | BIT(CONTEXT) | BIT(PRESET) | BIT(BATCH) | BIT(STEPS), true},
    {"overhead", bench_overhead, 0, false}};
enum { PARTS = sizeof parts / sizeof *parts };

/* The names of the parts that read an option, of all where it is KEYS: "train, generate and predict". */
static void name_parts(int key, char *out, size_t size) {
    int n = 0, all = 0;
    for (int i = 0; i < PARTS; i++) all += key == KEYS || parts[i].reads >> key & 1;
    out[0] = 0;
    for (int i = 0; i < PARTS; i++) {
        if (key != KEYS && !(parts[i].reads >> key & 1)) continue;
        const size_t at = strlen(out);
        snprintf(out + at, size - at, "%s%s", n == 0 ? "" : n == all - 1 ? " and " : ", ", parts[i].name);
        n++;
    }
}

/* An option that the measurement would pass over is a mistake. */
static void check_given(struct argp_state *st, const bench_options *o) {
    char names[128];
    int part = 0;
    if (!o->what) {
        name_parts(KEYS, names, sizeof names);
        argp_error(st, "measure what? There are %s", names);
        return;
    }
    while (part < PARTS && strcmp(parts[part].name, o->what) != 0) part++;
    if (part == PARTS) {
        name_parts(KEYS, names, sizeof names);
        argp_error(st, "nothing to measure is called \"%s\"; there are %s", o->what, names);
        return;
    }
    for (int key = 0; key < KEYS; key++)
        if (o->given >> key & 1 && key != KEY_CLOCK && !(parts[part].reads >> key & 1)) {
            name_parts(key, names, sizeof names);
            argp_error(st, "%s goes with %s, not with %s", option_names[key], names, o->what);
        }
    if (o->model && (o->preset || o->dtype)) argp_error(st, "--model has its own shape and number types");
}

static error_t parse(int key, char *arg, struct argp_state *st) {
    bench_options *o = st->input;
    if (key == 'b' || (key > 0 && key < KEYS)) o->given |= 1u << (key == 'b' ? KEY_BATCH : key);
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_PRESET: o->preset = arg; return 0;
    case KEY_MODEL: o->model = arg; return 0;
    case KEY_PROMPT: o->prompt = cli_int(st, "--prompt", arg, 0, 1 << 20); return 0;
    case KEY_ROUNDS: o->rounds = cli_int(st, "--rounds", arg, 1, 64); return 0;
    case KEY_TEXT: o->text = arg; return 0;
    case KEY_TOKENIZER: o->tokenizer = arg; return 0;
    case KEY_VOCAB: o->vocab = cli_int(st, "--vocab", arg, 257, 1 << 21); return 0;
    case 'b': o->batch = cli_int(st, "--batch", arg, 1, 1 << 20); return 0;
    case KEY_CONTEXT: o->context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_STEPS: o->steps = cli_int(st, "--steps", arg, 1, 4096); return 0;
    case KEY_DTYPE:
        o->dtype = tl_dtype_parse(arg);
        if (o->dtype != TL_F32 && o->dtype != TL_BF16) argp_error(st, "--dtype is \"%s\"; it can be f32 or bf16", arg);
        return 0;
    case KEY_CLOCK:
        if (strcmp(arg, "wall") != 0 && strcmp(arg, "cpu") != 0)
            argp_error(st, "--clock is \"%s\"; it can be wall or cpu", arg);
        o->clock = arg[0] == 'c' ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC;
        return 0;
    case ARGP_KEY_ARG:
        if (o->what) argp_error(st, "one measurement at a time");
        o->what = arg;
        return 0;
    case ARGP_KEY_END: check_given(st, o); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "gemm|attention|train|generate|kv-cache|tokenizer|predict|overhead",
    "Measures kernels, whole models and tokenizers on this machine, beside the machine's own limits in the "
    "same run: multiply-adds a second, bytes read a second.",
    children,
    NULL,
    NULL};

double bench_now(const bench_options *o) {
    struct timespec t;
    clock_gettime(o->clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *x, int n) {
    qsort(x, (size_t)n, sizeof *x, by_size);
    return x[n / 2];
}

void bench_print_seconds(const char *name, const double *x, int n) {
    printf("\"%s\": [", name);
    for (int i = 0; i < n; i++) printf("%s%.9g", i ? ", " : "", x[i]);
    printf("]");
}

/* ---- limits ------------------------------------------------------------------------------------------------- */

/* Ordinary memory, as files are mapped: in pages of 4 KB where nobody asks for larger ones. */
double bench_reads(const bench_options *o, size_t bytes) {
    enum { PAGE = 4096 };
    size_t size = (bytes + PAGE - 1) / PAGE * PAGE;
    void *memory = aligned_alloc(PAGE, size);
    if (!memory) return 0;
    const double rate = measure_reads(o->engine, o->clock, memset(memory, 1, size), size);
    free(memory);
    return rate;
}

static tl_status bench_limits(bench_options *o, tl_error *e) {
    cost_machine m;
    char rate[32];
    TRY(measure_limits(o->engine, o->clock, &m, e));
    o->flops = m.f32;
    o->flops16 = machine_peak(&m, TL_BF16);
    o->bytes = m.bandwidth;
    if (!o->common.quiet)
        fprintf(stderr, "%d threads: %s of f32 multiply-adds, %.1f GB/s of reads\n", m.threads,
                cli_rate(m.f32, "FLOP/s", rate, sizeof rate), 1e-9 * m.bandwidth);
    machine_fini(&m);
    return TL_OK;
}

double bench_peak(const bench_options *o, tl_dtype t) {
    return t == TL_BF16 ? o->flops16 : o->flops;
}

/* ---- JSON: one document, a result a line --------------------------------------------------------------------- */

static void json_open(const bench_options *o) {
    char processor[96];
    machine_processor(processor, sizeof processor);
    printf("{\"bench\": \"%s\", \"version\": \"%s\", \"processor\": ", o->what, tl_version());
    cli_json_text(stdout, processor, strlen(processor));
    printf(", \"isa\": \"%s\", \"threads\": %d, \"clock\": \"%s\", ", tl_engine_isa(o->engine),
           tl_engine_threads(o->engine), o->clock == CLOCK_MONOTONIC ? "wall" : "cpu");
    if (o->bytes > 0)
        printf("\"limit_flops\": %.6g, \"limit_flops_bf16\": %.6g, \"limit_bytes\": %.6g, ", o->flops, o->flops16,
               o->bytes);
    printf("\"results\": [");
}

/* The document begins with its first result, so that a failure before leaves nothing on stdout. */
void bench_json_row(bench_options *o) {
    if (!o->rows) json_open(o);
    printf(o->rows++ ? ",\n" : "\n");
}

static tl_status run_part(bench_options *o, int i, tl_error *e) {
    TRY(cli_engine(&o->common, &o->engine, e));
    tl_status s = TL_OK;
    if (o->engine->host.dev->memory)
        s = error_set(e, TL_UNSUPPORTED, "tilia bench measures the processor; there are no figures of %s yet",
                      o->engine->host.dev->name);
    if (s == TL_OK && parts[i].limits) s = bench_limits(o, e);
    if (s == TL_OK) {
        s = parts[i].run(o, e);
        if (o->rows) printf("\n]}\n");
    }
    tl_engine_destroy(o->engine);
    return s;
}

int cmd_bench(int argc, char **argv) {
    bench_options o = {.clock = CLOCK_MONOTONIC, .prompt = -1};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    tl_error e = {0};
    for (int i = 0; i < PARTS; i++)
        if (strcmp(o.what, parts[i].name) == 0 && run_part(&o, i, &e) != TL_OK) return cli_fail(&e);
    return EXIT_DONE;
}
