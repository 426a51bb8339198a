/* tilia eval MODEL --text FILE: how well a model predicts a text. */
#include "cli/cli.h"

#include "data/tokenize.h"
#include "eval/eval.h"

#include <math.h>

enum { KEY_TEXT = 1, KEY_CONTEXT, KEY_DTYPE, KEY_SEPARATOR, KEY_FIELD, MAX_FILES = 256 };

typedef struct options {
    cli_common common;
    const char *model, *file[MAX_FILES], *separator, *field;
    size_t files;
    eval_options eval;
} options;

static const struct argp_option table[] = {
    {"text", KEY_TEXT, "FILE", 0, "text, JSON lines, .gz, .zst, a folder, - for standard input (may be given again)",
     0},
    {"text-field", KEY_FIELD, "NAME", 0, "field of JSON lines (default text)", 0},
    {"separator", KEY_SEPARATOR, "TEXT", 0,
     "what stands between the documents of a text file (default: one document a file)", 0},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default: the model's)", 0},
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
    case KEY_FIELD: o->field = arg; return 0;
    case KEY_SEPARATOR: o->separator = arg; return 0;
    case KEY_CONTEXT: o->eval.context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_DTYPE:
        o->eval.dtype = tl_dtype_parse(arg);
        if (o->eval.dtype != TL_F32 && o->eval.dtype != TL_BF16)
            argp_error(st, "--dtype is \"%s\"; it can be f32 or bf16", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (o->model) argp_error(st, "more than one model; texts are given with --text");
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->model) argp_error(st, "which model?");
        if (!o->files) argp_error(st, "which text? Give --text FILE");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "MODEL --text FILE",
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

static tl_status evaluate(const options *o, tl_model *m, eval_result *r, tl_error *e) {
    evaluator *ev = NULL;
    token_store s;
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
    options o = {0};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    tl_engine *engine;
    tl_model *m = NULL;
    tl_error e = {0};
    eval_result r;
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    cli_catch_signals();
    tl_status s = model_open(engine, o.model, &m, &e);
    if (s == TL_OK) s = evaluate(&o, m, &r, &e);
    int code = s == TL_OK ? EXIT_DONE : cli_fail(&e);
    if (s == TL_OK) print_result(&o, &r);
    model_close(m);
    tl_engine_destroy(engine);
    return cli_signal() ? cli_signal_code() : code;
}
