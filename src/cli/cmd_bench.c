/* tilia bench: the machine's limits, and how near to them Tilia comes on it. */
#include "cli/bench_cli.h"

#include "cost/measure.h"

#include <stdlib.h>
#include <string.h>

enum {
    KEY_PRESET = 1,
    KEY_CONTEXT,
    KEY_DTYPE,
    KEY_STEPS,
    KEY_CLOCK,
    KEY_MODEL,
    KEY_PROMPT,
    KEY_ROUNDS,
    KEY_TEXT,
    KEY_TOKENIZER,
    KEY_VOCAB
};

static const struct argp_option table[] = {
    {"preset", KEY_PRESET, "NAME", 0, "the model of train, generate and kv-cache (default char-cpu; gpt2 to generate)",
     0},
    {"model", KEY_MODEL, "MODEL", 0, "generate: a model's weights where they lie in its file, instead of a preset", 0},
    {"prompt", KEY_PROMPT, "N", 0, "generate: tokens of a prompt to compute, too (default 512 with --model, else none)",
     0},
    {"rounds", KEY_ROUNDS, "N", 0, "generate: how often prompt and tokens are measured (default 3)", 0},
    {"batch", 'b', "ROWS", 0, "sequences a training step (default 12); generate: sequences side by side (default 1)",
     0},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default: the model's)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default: one after the other)", 0},
    {"steps", KEY_STEPS, "N", 0, "steps, or tokens, measured (default 10; 64 tokens)", 0},
    {"clock", KEY_CLOCK, "wall|cpu", 0,
     "cpu: processor time of the process; with one thread, other work on the machine "
     "disturbs it less (default wall)",
     0},
    {"text", KEY_TEXT, "FILE", 0, "what the tokenizer reads (default: stories made here, English and Chinese)", 0},
    {"tokenizer", KEY_TOKENIZER, "FILE", 0, "the tokenizer (default: one trained on the text)", 0},
    {"vocab", KEY_VOCAB, "N", 0, "size of the vocabulary trained (default 8000)", 0},
    {0}};

static const struct {
    const char *name;
    tl_status (*run)(bench_options *o, tl_error *e);
} parts[] = {{"gemm", bench_gemm},         {"attention", bench_attention}, {"train", bench_train},
             {"generate", bench_generate}, {"kv-cache", bench_kv_cache},   {"tokenizer", bench_tokenizer},
             {"predict", bench_predict},   {"overhead", bench_overhead}};
enum { PARTS = sizeof parts / sizeof *parts };

static error_t parse(int key, char *arg, struct argp_state *st) {
    bench_options *o = st->input;
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
    case ARGP_KEY_END:
        if (!o->what)
            argp_error(st, "measure what? gemm, attention, train, generate, kv-cache, tokenizer, predict or overhead");
        if (o->model && strcmp(o->what, "generate") != 0) argp_error(st, "--model goes with generate alone");
        if (o->model && (o->preset || o->dtype)) argp_error(st, "--model has its own shape and number types");
        return 0;
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
    TRY(measure_limits(o->engine, o->clock, &m, e));
    o->flops = m.f32;
    o->bytes = m.bandwidth;
    if (!o->common.quiet)
        fprintf(stderr, "%d threads: %.0f GFLOP/s of f32 multiply-adds, %.1f GB/s of reads\n", m.threads, 1e-9 * m.f32,
                1e-9 * m.bandwidth);
    machine_fini(&m);
    return TL_OK;
}

int cmd_bench(int argc, char **argv) {
    bench_options o = {.clock = CLOCK_MONOTONIC, .prompt = -1};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    for (int i = 0; i < PARTS; i++) {
        if (strcmp(o.what, parts[i].name) != 0) continue;
        tl_error e = {0};
        if (cli_engine(&o.common, &o.engine, &e) != TL_OK) return cli_fail(&e);
        tl_status s = parts[i].run == bench_tokenizer || parts[i].run == bench_overhead ? TL_OK : bench_limits(&o, &e);
        if (s == TL_OK) s = parts[i].run(&o, &e);
        tl_engine_destroy(o.engine);
        return s == TL_OK ? EXIT_DONE : cli_fail(&e);
    }
    return cli_usage("nothing to measure is called \"%s\"; there are gemm, attention, train, generate, kv-cache, "
                     "tokenizer, predict and overhead",
                     o.what);
}
