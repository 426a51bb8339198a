/* tilia eval MODEL --text FILE: how well a model predicts a text. */
#include "cli/eval_cli.h"

#include "data/chats.h"
#include "data/tokenize.h"
#include "eval/eval.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    KEY_TEXT = 1,
    KEY_ADAPTER,
    KEY_STRIDE,
    KEY_TASK,
    KEY_LENGTH,
    KEY_DEPTH,
    KEY_TRIALS,
    KEY_SCALING,
    KEY_CONTEXT,
    KEY_DTYPE,
    KEY_SEPARATOR,
    KEY_FIELD,
    KEY_SEGMENT,
    MAX_FILES = 256
};

typedef struct options {
    cli_common common;
    eval_task task;
    const char *scaling;
    const char *model, *adapter, *file[MAX_FILES], *separator, *field;
    size_t files;
    eval_options eval;
} options;

static const struct argp_option table[] = {
    {"text", KEY_TEXT, "FILE", 0, "text, JSON lines, .gz, .zst, a folder, - for standard input (may be given again)",
     0},
    {"text-field", KEY_FIELD, "NAME", 0, "field of JSON lines (default text)", 0},
    {"separator", KEY_SEPARATOR, "TEXT", 0,
     "what stands between the documents of a text file (default: one document a file)", 0},
    {"adapter", KEY_ADAPTER, "DIR", 0, "a LoRA adapter in PEFT's form, or a run that made one", 0},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default: the model's)", 0},
    {"segment", KEY_SEGMENT, "TOKENS", 0,
     "of a sequence computed at a time: memory for so many tokens however long the context (flash and the mixers with "
     "a "
     "state; default: all)",
     0},
    {"stride", KEY_STRIDE, "N", 0,
     "windows begin N tokens apart and count what no window before had (default: the context, each begins anew)", 0},
    {"task", KEY_TASK, "NAME", 0, "passkey: a number hidden in a long text (--task help lists them)", 0},
    {"length", KEY_LENGTH, "LIST", 0,
     "of the texts of a task, in tokens (default: a quarter, a half, all of the context)", 0},
    {"depth", KEY_DEPTH, "LIST", 0, "where the number stands, in percent (default: 0,25,50,75,100)", 0},
    {"trials", KEY_TRIALS, "N", 0, "of each length and depth (default: 4)", 0},
    {"rope-scaling", KEY_SCALING, "KIND:N", 0, "stretch positions: linear:N, ntk:N, dynamic:N or yarn:N", 0},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default f32)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_TEXT:
        if (o->files == MAX_FILES) argp_error(st, "at most %d files; a folder may hold more", MAX_FILES);
        o->file[o->files++] = arg;
        return 0;
    case KEY_ADAPTER: o->adapter = arg; return 0;
    case KEY_FIELD: o->field = arg; return 0;
    case KEY_SEPARATOR: o->separator = arg; return 0;
    case KEY_STRIDE: o->eval.stride = cli_int(st, "--stride", arg, 1, 1 << 24); return 0;
    case KEY_TASK:
        if (strcmp(arg, "help") == 0) {
            eval_task_list();
            exit(cli_finish(EXIT_DONE));
        }
        if (!eval_task_known(arg)) argp_error(st, "no task \"%s\"; --task help lists them", arg);
        o->task.name = arg;
        return 0;
    case KEY_LENGTH:
        o->task.lengths = eval_task_numbers(st, "--length", arg, 1, 1 << 24, o->task.length, EVAL_NUMBERS);
        return 0;
    case KEY_DEPTH:
        o->task.depths = eval_task_numbers(st, "--depth", arg, 0, 100, o->task.depth, EVAL_NUMBERS);
        return 0;
    case KEY_TRIALS: o->task.trials = cli_int(st, "--trials", arg, 1, 1 << 20); return 0;
    case KEY_SCALING: o->scaling = arg; return 0;
    case KEY_CONTEXT: o->eval.context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_SEGMENT: o->eval.segment = cli_int(st, "--segment", arg, 1, 1 << 24); return 0;
    case KEY_DTYPE: o->eval.dtype = cli_dtype(st, "--dtype", arg); return 0;
    case ARGP_KEY_ARG:
        if (o->model) argp_error(st, "more than one model; texts are given with --text");
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->model) argp_error(st, "which model?");
        if (!o->files && !o->task.name) argp_error(st, "which text? Give --text FILE, or --task NAME");
        if (o->files && o->task.name) argp_error(st, "--text and --task exclude each other");
        if (o->eval.stride && o->eval.context && o->eval.stride > o->eval.context)
            argp_error(st, "--stride is above --context");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "MODEL --text FILE\nMODEL --task NAME",
    "Loss in nats per token, perplexity and bits per byte of a text. Every token is counted once; "
    "each sequence of the context's length begins anew.",
    children,
    NULL,
    NULL};

static bool cancelled(void *user) {
    (void)user;
    return cli_signal() != 0;
}

static tl_status read_text(const options *o, const tl_model *m, token_store *s, tl_error *e) {
    corpus *c;
    corpus_options co = {.text_field = o->field, .separator = o->separator};
    tokenize_options to = {.threads = (size_t)tl_engine_threads(m->engine)};
    token_sink sink = token_sink_store(s);
    TRY(corpus_open(m->alloc, o->file, o->files, &co, &c, e));
    tl_status st = tokenize_corpus(m->alloc, c, m->tokenizer, &to, &sink, NULL, e);
    corpus_close(c);
    return st;
}

/* Examples have marks, which live in a file of shards: one that goes away again. */
static tl_status examples(const options *o, tl_model *m, const char *path, eval_result *r, tl_error *e) {
    eval_options eo = o->eval;
    evaluator *ev = NULL;
    shard_writer w;
    shard s = {0};
    chats_report told;
    TRY(shard_writer_open(&w, m->alloc, path, m->config.vocab, tokenizer_role_id(m->tokenizer, TOKENIZER_EOD), 0, e));
    tl_status st = chats_write(m->alloc, o->file, (size_t)o->files, m->tokenizer, NULL, &w, NULL, NULL, &told, e);
    if (st == TL_OK)
        st = shard_writer_commit(&w, e);
    else
        shard_writer_abort(&w);
    if (st == TL_OK) st = shard_open(path, false, &s, e);
    eo.packed = true;
    if (st == TL_OK) st = evaluator_open(m, &eo, &ev, e);
    if (st == TL_OK) st = evaluator_run(ev, &s.view, r, cancelled, NULL, e);
    evaluator_close(ev);
    if (s.view.id) shard_close(&s);
    return st;
}

static tl_status evaluate_examples(const options *o, tl_model *m, eval_result *r, tl_error *e) {
    char dir[600], path[640];
    const char *tmp = getenv("TMPDIR");
    if (!m->tokenizer) return error_set(e, TL_CONFIG, "the model's directory has no tokenizer");
    snprintf(dir, sizeof dir, "%s/tilia-eval-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    if (!mkdtemp(dir)) return error_errno(e, "no place for the examples");
    snprintf(path, sizeof path, "%s/data.tokens", dir);
    tl_status s = examples(o, m, path, r, e);
    unlink(path);
    rmdir(dir);
    return s;
}

static tl_status evaluate(const options *o, tl_model *m, eval_result *r, tl_error *e) {
    evaluator *ev = NULL;
    token_store s;
    if (!o->field && chats_are(m->alloc, o->file, (size_t)o->files)) return evaluate_examples(o, m, r, e);
    if (!m->tokenizer) return error_set(e, TL_CONFIG, "the model's directory has no tokenizer");
    token_store_init(&s, m->alloc, m->config.vocab, m->config.eos);
    tl_status st = read_text(o, m, &s, e);
    if (st == TL_OK) st = evaluator_open(m, &o->eval, &ev, e);
    if (st == TL_OK) st = evaluator_run(ev, &s.view, r, cancelled, NULL, e);
    evaluator_close(ev);
    token_store_fini(&s);
    return st;
}

static void print_result(const options *o, const eval_result *r) {
    double bits = eval_bits_per_byte(r);
    if (o->common.json) {
        printf("{\"loss\": %.17g, \"perplexity\": %.17g, \"tokens\": %lld, \"bytes\": %lld", r->loss,
               eval_perplexity(r), (long long)r->tokens, (long long)r->bytes);
        if (r->bytes) printf(", \"bits_per_byte\": %.17g", bits);
        printf("}\n");
        return;
    }
    printf("loss           %.4f nats per token\nperplexity     %.4f\n", r->loss, eval_perplexity(r));
    if (r->bytes) printf("bits per byte  %.4f\n", bits);
    printf("tokens         %lld\n", (long long)r->tokens);
}

int cmd_eval(int argc, char **argv) {
    options o = {.task.trials = 4};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    tl_engine *engine;
    tl_model *m = NULL;
    tl_error e = {0};
    eval_result r;
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    cli_catch_signals();
    /* Blocks are computed with as they are, in f32; bf16 wants copies. */
    tl_status s = (o.eval.dtype == TL_BF16 ? model_open : model_open_mapped)(engine, o.model, &m, &e);
    if (s == TL_OK && o.adapter) s = lora_open(m, o.adapter, true, &e);
    if (s == TL_OK && o.scaling) s = config_scale(&m->config, o.scaling, &e);
    o.task.common = &o.common;
    if (s == TL_OK) s = o.task.name ? eval_task_run(&o.task, m, &e) : evaluate(&o, m, &r, &e);
    int code = s == TL_OK ? EXIT_DONE : cli_fail(&e);
    if (s == TL_OK && !o.task.name) print_result(&o, &r);
    model_close(m);
    tl_engine_destroy(engine);
    return cli_signal() ? cli_signal_code() : code;
}
