/* tilia bench: the machine's limits, and how near to them Tilia comes on it. */
#include "cli/bench_cli.h"

#include "cpu/kernel.h"
#include "cpu/product/peak.h"

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
             {"predict", bench_predict}};
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
        if (!o->what) argp_error(st, "measure what? gemm, attention, train, generate, kv-cache, tokenizer or predict");
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
    "gemm|attention|train|generate|kv-cache|tokenizer|predict",
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

enum { ROUNDS = 2000000, READ_STEP = 4096 };
static const size_t READ_BYTES = (size_t)128 << 20; /* by all threads together, where nobody asks for more or less */

static void peak_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase, (void)worker;
    for (; lo < hi; lo++) ((peak_leaf *)t->exec->leaf)(ROUNDS);
}

typedef struct read_job {
    tl_op_call none; /* what a task carries; here its address leads to the rest */
    const char *memory;
    size_t each;
} read_job;

static void read_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const read_job *j = (const read_job *)(const void *)t->call;
    (void)phase, (void)worker;
    for (; lo < hi; lo++) ((peak_read_leaf *)t->exec->leaf)(j->memory + j->each * (size_t)lo, j->each);
}

static double limit(const bench_options *o, kernel_run_fn run, void (*leaf)(void), const tl_op_call *c) {
    device *dev = o->engine->host.dev;
    kernel_exec x = {.run = run, .leaf = leaf, .phases = 1, .tiles = {dev->threads}};
    kernel_task t = {.call = c, .exec = &x, .workers = dev->threads};
    double least = 1e9;
    for (int i = 0; i < 5; i++) {
        const double from = bench_now(o);
        dev->launch(dev, &t);
        const double took = bench_now(o) - from;
        if (took < least) least = took;
    }
    return o->clock == CLOCK_PROCESS_CPUTIME_ID ? least / dev->threads : least;
}

double bench_reads(const bench_options *o, size_t bytes) {
    const uint32_t isa = o->engine->isa;
    if (!(isa & (ISA_AVX2 | ISA_AVX512))) return 0;
    peak_read_leaf *r = isa & ISA_AVX512 ? peak_read__avx512 : peak_read__avx2;
    const size_t threads = (size_t)o->engine->host.dev->threads;
    read_job j = {.each = (bytes / threads + READ_STEP - 1) / READ_STEP * READ_STEP};
    void *memory = aligned_alloc(READ_STEP, j.each * threads);
    if (!memory) return 0;
    j.memory = memset(memory, 1, j.each * threads);
    const double seconds = limit(o, read_run, (void (*)(void))r, &j.none);
    free(memory);
    return (double)(j.each * threads) / seconds;
}

void bench_limits(bench_options *o) {
    const uint32_t isa = o->engine->isa;
    const int threads = o->engine->host.dev->threads;
    if (!(isa & (ISA_AVX2 | ISA_AVX512))) return;
    const bool wide = isa & ISA_AVX512;
    peak_leaf *f = wide ? peak_f32__avx512 : peak_f32__avx2;
    const tl_op_call none = {0};
    o->flops = (double)threads * ROUNDS * 12 * 2 * (wide ? 16 : 8) / limit(o, peak_run, (void (*)(void))f, &none);
    o->bytes = bench_reads(o, READ_BYTES);
    if (!o->common.quiet)
        fprintf(stderr, "%d threads: %.0f GFLOP/s of f32 multiply-adds, %.1f GB/s of reads\n", threads, 1e-9 * o->flops,
                1e-9 * o->bytes);
}

int cmd_bench(int argc, char **argv) {
    bench_options o = {.clock = CLOCK_MONOTONIC, .prompt = -1};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    for (int i = 0; i < PARTS; i++) {
        if (strcmp(o.what, parts[i].name) != 0) continue;
        tl_error e = {0};
        if (cli_engine(&o.common, &o.engine, &e) != TL_OK) return cli_fail(&e);
        if (parts[i].run != bench_tokenizer) bench_limits(&o);
        tl_status s = parts[i].run(&o, &e);
        tl_engine_destroy(o.engine);
        return s == TL_OK ? EXIT_DONE : cli_fail(&e);
    }
    return cli_usage("nothing to measure is called \"%s\"; there are gemm, attention, train, generate, kv-cache, "
                     "tokenizer and predict",
                     o.what);
}
