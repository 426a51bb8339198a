/* tilia generate MODEL [PROMPT]: stdout gets the text alone. */
#include "cli/cli.h"

#include "base/file.h"
#include "infer/batch.h"

#include <string.h>
#include <time.h>

enum { MAX_STOPS = 16, KEY_STOP = 1, KEY_NO_CACHE, KEY_IGNORE_EOS, KEY_SPECIAL, KEY_PROMPTS, KEY_PARALLEL };

typedef struct options {
    cli_common common;
    cli_generation gen;
    const char *model, *prompt, *prompts;
    int64_t parallel;
    const char *stop[MAX_STOPS];
    bool special;
} options;

static const struct argp_option table[] = {
    {"stop", KEY_STOP, "TEXT", 0, "end before this text (up to 16 times)", 0},
    {"ignore-eos", KEY_IGNORE_EOS, 0, 0, "write on behind the end of a document", 0},
    {"special", KEY_SPECIAL, 0, 0, "special tokens written in the prompt count as such", 0},
    {"prompts", KEY_PROMPTS, "FILE", 0, "many prompts, one a line, written together; results in their order", 0},
    {"parallel", KEY_PARALLEL, "N", 0, "of --prompts, how many at a time (default 8)", 0},
    {"no-cache", KEY_NO_CACHE, 0, 0, "compute the whole text again for every token, for comparison", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->gen, st->child_inputs[1] = &o->common; return 0;
    case KEY_IGNORE_EOS: o->gen.s.ignore_eos = true; return 0;
    case KEY_PROMPTS: o->prompts = arg; return 0;
    case KEY_PARALLEL: o->parallel = cli_int(st, "--parallel", arg, 1, 512); return 0;
    case KEY_SPECIAL: o->special = true; return 0;
    case KEY_NO_CACHE: o->gen.s.no_cache = true; return 0;
    case KEY_STOP:
        if (o->gen.s.n_stop == MAX_STOPS) argp_error(st, "at most %d stop texts", MAX_STOPS);
        if (!*arg) argp_error(st, "--stop takes a text that is not empty");
        o->stop[o->gen.s.n_stop++] = arg;
        return 0;
    case ARGP_KEY_ARG:
    case ARGP_KEY_END:
        if (cli_model_arg(st, &o->model, key, arg)) {
            if (key == ARGP_KEY_END && o->prompts && o->prompt)
                argp_error(st, "a prompt and --prompts exclude each other");
            if (key == ARGP_KEY_END && o->parallel && !o->prompts) argp_error(st, "--parallel needs --prompts FILE");
            return 0;
        }
        if (o->prompt) argp_error(st, "more than a model and a prompt; put the prompt in quotes");
        o->prompt = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_generation_argp, 0, NULL, 0}, {&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "MODEL [PROMPT]",
    "Writes text with a model. MODEL is a run directory (its latest checkpoint), a checkpoint or a "
    "Hugging Face directory, or a GGUF file. Without a prompt the model begins a text of its own.",
    children,
    NULL,
    NULL};

static const char *finish_name(tl_finish f) {
    static const char *const names[] = {"none", "eos", "stop", "length", "context"};
    return names[f];
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Runs the session to its end; text goes to stdout at once, or into a buffer for --json. */
static tl_status write_all(const options *o, tl_session *s, str *text, tl_piece *last, int64_t *tokens, tl_error *e) {
    for (;;) {
        TRY(session_next(s, last, e));
        if (o->common.json)
            str_add(text, last->text, last->size);
        else
            fwrite(last->text, 1, last->size, stdout);
        if (!o->common.json && last->size) fflush(stdout);
        if (last->id >= 0) ++*tokens;
        if (last->done || cli_signal() || ferror(stdout)) return TL_OK;
    }
}

static int report(const options *o, const tl_model *m, const str *text, const tl_piece *last, int64_t tokens,
                  size_t prompt, double seconds) {
    if (o->common.json) {
        printf("{\"prompt\": ");
        cli_json_text(stdout, o->prompt ? o->prompt : "", o->prompt ? strlen(o->prompt) : 0);
        printf(", \"text\": ");
        cli_json_text(stdout, text->data ? text->data : "", text->len);
        printf(", \"finish\": \"%s\", \"prompt_tokens\": %zu, \"tokens\": %lld, \"seconds\": %.6f, \"seed\": %llu, "
               "\"step\": %lld}\n",
               cli_signal() ? "interrupted" : finish_name(last->finish), prompt, (long long)tokens, seconds,
               (unsigned long long)o->gen.s.seed, (long long)m->step);
        return EXIT_DONE;
    }
    printf("\n");
    if (!o->common.quiet)
        fprintf(stderr, "[%lld tokens in %.2f s, %.0f tokens/s, ended by %s]\n", (long long)tokens, seconds,
                seconds > 0 ? (double)tokens / seconds : 0, cli_signal() ? "a signal" : finish_name(last->finish));
    return EXIT_DONE;
}

/* Positions worth keeping when nobody says: what prompt and answer can need, not all that a model was made for, whose
 * cache may be larger than memory. A token stands for at least a byte. */
static int64_t context_for(const options *o, const model_config *c) {
    int64_t need = o->gen.s.max_tokens + (int64_t)(o->prompt ? strlen(o->prompt) : 0) + 16;
    if (need < 4096) need = 4096;
    return need < c->context ? need : c->context;
}

static int generate(options *o, tl_engine *engine) {
    tl_error e = {0};
    tl_model *m;
    tl_session *s = NULL;
    if (cli_generation_open(&o->gen, engine, o->model, &m, &e) != TL_OK) return cli_fail(&e);
    tl_status st = TL_OK;
    if (!o->gen.s.context) o->gen.s.context = context_for(o, &m->config);
    if (st == TL_OK) st = session_create(m, &o->gen.s, &s, &e);
    if (st == TL_OK && o->prompt && *o->prompt) st = session_text(s, o->prompt, strlen(o->prompt), o->special, &e);
    int code = EXIT_DONE;
    if (st == TL_OK) {
        size_t prompt = m->config.encoder ? s->source.n : s->seen.n;
        str text;
        tl_piece last = {0};
        int64_t tokens = 0;
        double start = now();
        str_init(&text, tl_engine_allocator(engine));
        if (!o->common.json && o->prompt && !m->config.encoder) fputs(o->prompt, stdout);
        st = write_all(o, s, &text, &last, &tokens, &e);
        if (st == TL_OK) code = report(o, m, &text, &last, tokens, prompt, now() - start);
        str_fini(&text);
    }
    if (st != TL_OK) code = cli_fail(&e);
    session_destroy(s);
    model_close(m);
    return cli_signal() ? cli_signal_code() : code;
}

/* ---- many prompts ----------------------------------------------------------------------------------------------- */

typedef struct many {
    const options *o;
    char *text, **line;
    size_t n, done;
    struct {
        char *text;
        size_t size;
        int64_t prompt, tokens;
        tl_finish finish;
    } * result;
    const tl_allocator *alloc;
    bool failed;
} many;

static tl_status read_lines(many *w, const char *path, tl_error *e) {
    size_t size, n = 0;
    TRY(file_read(w->alloc, strcmp(path, "-") ? path : "/dev/stdin", 1u << 30, &w->text, &size, e));
    for (size_t i = 0; i < size; i++) n += w->text[i] == '\n';
    w->line = mem_new(w->alloc, n + 1, sizeof *w->line);
    w->result = mem_new(w->alloc, n + 1, sizeof *w->result);
    if (!w->line || !w->result) return error_set(e, TL_NOMEM, "no memory for %zu prompts", n);
    for (char *at = w->text; at && *at;) {
        char *end = strchr(at, '\n');
        if (end) *end = 0;
        w->line[w->n++] = at;
        at = end ? end + 1 : NULL;
    }
    if (w->n) return TL_OK;
    tl_status s = error_set(e, TL_FORMAT, "has no prompts");
    error_at_file(e, path);
    return s;
}

static bool keep(void *user, const batch_text *t) {
    many *w = user;
    char *text = mem_new(w->alloc, t->size + 1, 1); /* zeros may stand in it */
    w->failed |= !text;
    if (text) memcpy(text, t->text, t->size);
    w->result[t->index].text = text;
    w->result[t->index].size = t->size;
    w->result[t->index].prompt = t->prompt;
    w->result[t->index].tokens = t->tokens;
    w->result[t->index].finish = t->finish;
    w->done++;
    return !w->failed && cli_signal() == 0;
}

static void print_many(const many *w, double seconds) {
    int64_t tokens = 0;
    if (w->o->common.json) printf("{\"texts\": [");
    for (size_t i = 0; i < w->n; i++) {
        tokens += w->result[i].tokens;
        if (!w->o->common.json) {
            printf("%s", w->line[i]);
            fwrite(w->result[i].text, 1, w->result[i].size, stdout);
            printf("\n");
            continue;
        }
        printf("%s{\"prompt\": ", i ? ", " : "");
        cli_json_text(stdout, w->line[i], strlen(w->line[i]));
        printf(", \"text\": ");
        cli_json_text(stdout, w->result[i].text, w->result[i].size);
        printf(", \"finish\": \"%s\", \"prompt_tokens\": %lld, \"tokens\": %lld}", finish_name(w->result[i].finish),
               (long long)w->result[i].prompt, (long long)w->result[i].tokens);
    }
    if (w->o->common.json)
        printf("], \"tokens\": %lld, \"seconds\": %.6f}\n", (long long)tokens, seconds);
    else if (!w->o->common.quiet)
        fprintf(stderr, "[%lld tokens of %zu texts in %.2f s, %.0f tokens/s]\n", (long long)tokens, w->n, seconds,
                seconds > 0 ? (double)tokens / seconds : 0);
}

static int generate_many(options *o, tl_engine *engine) {
    tl_error e = {0};
    tl_model *m = NULL;
    many w = {.o = o, .alloc = tl_engine_allocator(engine)};
    tl_status s = read_lines(&w, o->prompts, &e);
    if (s == TL_OK) s = cli_generation_open(&o->gen, engine, o->model, &m, &e);
    if (s == TL_OK && !o->gen.s.context) o->gen.s.context = context_for(o, &m->config);
    double start = now();
    size_t slots = o->parallel ? (size_t)o->parallel : 8;
    if (slots > w.n) slots = w.n;
    if (s == TL_OK)
        s = batch_run(m, &o->gen.s, (int64_t)slots, (const char *const *)w.line, w.n, o->special, keep, &w, &e);
    if (s == TL_CANCELLED && w.failed) s = error_set(&e, TL_NOMEM, "no memory for the texts");
    if (s == TL_OK) print_many(&w, now() - start);
    int code = s == TL_OK ? EXIT_DONE : cli_signal() ? cli_signal_code() : cli_fail(&e);
    for (size_t i = 0; i < w.n; i++) mem_free(w.alloc, w.result[i].text);
    mem_free(w.alloc, w.result);
    mem_free(w.alloc, w.line);
    mem_free(w.alloc, w.text);
    model_close(m);
    return code;
}

int cmd_generate(int argc, char **argv) {
    options o = {0};
    cli_generation_init(&o.gen, 0);
    o.gen.s.stop = o.stop; /* the array lives as long as o */
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    o.gen.s.seed = o.common.has_seed ? o.common.seed : (uint64_t)time(NULL);
    tl_engine *engine;
    tl_error e = {0};
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    cli_catch_signals();
    int code = o.prompts ? generate_many(&o, engine) : generate(&o, engine);
    tl_engine_destroy(engine);
    return code;
}
