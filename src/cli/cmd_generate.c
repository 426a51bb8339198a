/* tilia generate MODEL [PROMPT]: stdout gets the text alone. */
#include "cli/cli.h"

#include "infer/session.h"

#include <string.h>
#include <time.h>

enum {
    MAX_STOPS = 16,
    KEY_TOP_K = 1,
    KEY_TOP_P,
    KEY_MIN_P,
    KEY_PENALTY,
    KEY_STOP,
    KEY_NO_CACHE,
    KEY_CONTEXT,
    KEY_IGNORE_EOS,
    KEY_CACHE,
    KEY_SPECIAL,
    KEY_SCALING
};

typedef struct options {
    cli_common common;
    const char *model, *prompt, *scaling;
    tl_session_options s;
    const char *stop[MAX_STOPS];
    bool special;
} options;

static const struct argp_option table[] = {
    {"tokens", 'n', "N", 0, "tokens to write at most (default 256)", 0},
    {"temperature", 't', "X", 0, "0 is greedy (default 0.8)", 0},
    {"top-k", KEY_TOP_K, "K", 0, "only the K likeliest tokens (default 0: all)", 0},
    {"top-p", KEY_TOP_P, "P", 0, "only the likeliest tokens that together reach P (default 0.95)", 0},
    {"min-p", KEY_MIN_P, "P", 0, "only tokens at least P times as likely as the likeliest", 0},
    {"repeat-penalty", KEY_PENALTY, "X", 0, "above 1: recent tokens become less likely", 0},
    {"stop", KEY_STOP, "TEXT", 0, "end before this text (up to 16 times)", 0},
    {"context", KEY_CONTEXT, "N", 0, "positions to keep (default: the model's, or 4096 if more are not needed)", 0},
    {"ignore-eos", KEY_IGNORE_EOS, 0, 0, "write on behind the end of a document", 0},
    {"special", KEY_SPECIAL, 0, 0, "special tokens written in the prompt count as such", 0},
    {"rope-scaling", KEY_SCALING, "KIND:N", 0,
     "stretch positions N times: linear:N, ntk:N, dynamic:N or yarn:N (the context grows with them)", 0},
    {"cache-type", KEY_CACHE, "f32|bf16|f16", 0, "type of the cached keys and values (default f32)", 0},
    {"no-cache", KEY_NO_CACHE, 0, 0, "compute the whole text again for every token, for comparison", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case 'n': o->s.max_tokens = cli_int(st, "-n", arg, 1, 1 << 30); return 0;
    case 't': o->s.temperature = (float)cli_real(st, "--temperature", arg, 0, 1e6); return 0;
    case KEY_TOP_K: o->s.top_k = (int32_t)cli_int(st, "--top-k", arg, 0, 1 << 30); return 0;
    case KEY_TOP_P: o->s.top_p = (float)cli_real(st, "--top-p", arg, 0, 1); return 0;
    case KEY_MIN_P: o->s.min_p = (float)cli_real(st, "--min-p", arg, 0, 1); return 0;
    case KEY_PENALTY: o->s.repeat_penalty = (float)cli_real(st, "--repeat-penalty", arg, 0, 1e3); return 0;
    case KEY_CONTEXT: o->s.context = cli_int(st, "--context", arg, 1, 1 << 30); return 0;
    case KEY_IGNORE_EOS: o->s.ignore_eos = true; return 0;
    case KEY_SPECIAL: o->special = true; return 0;
    case KEY_NO_CACHE: o->s.no_cache = true; return 0;
    case KEY_STOP:
        if (o->s.n_stop == MAX_STOPS) argp_error(st, "at most %d stop texts", MAX_STOPS);
        if (!*arg) argp_error(st, "--stop takes a text that is not empty");
        o->stop[o->s.n_stop++] = arg;
        return 0;
    case KEY_SCALING: o->scaling = arg; return 0;
    case KEY_CACHE:
        o->s.cache_dtype = tl_dtype_parse(arg);
        if (o->s.cache_dtype != TL_F32 && o->s.cache_dtype != TL_BF16 && o->s.cache_dtype != TL_F16)
            argp_error(st, "--cache-type is \"%s\"; it can be f32, bf16 or f16", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (!o->model)
            o->model = arg;
        else if (!o->prompt)
            o->prompt = arg;
        else
            argp_error(st, "more than a model and a prompt; put the prompt in quotes");
        return 0;
    case ARGP_KEY_END:
        if (!o->model) argp_error(st, "which model? Give a run directory, a Hugging Face directory or a GGUF file");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
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
               (unsigned long long)o->s.seed, (long long)m->step);
        return EXIT_DONE;
    }
    printf("\n");
    if (!o->common.quiet)
        fprintf(stderr, "[%lld tokens in %.2f s, %.0f tokens/s, ended by %s]\n", (long long)tokens, seconds,
                seconds > 0 ? (double)tokens / seconds : 0, finish_name(last->finish));
    return EXIT_DONE;
}

/* Positions worth keeping when nobody says: what prompt and answer can need, not all that a model was made for, whose
 * cache may be larger than memory. A token stands for at least a byte. */
static int64_t context_for(const options *o, const model_config *c) {
    int64_t need = o->s.max_tokens + (int64_t)(o->prompt ? strlen(o->prompt) : 0) + 16;
    if (need < 4096) need = 4096;
    return need < c->context ? need : c->context;
}

static int generate(options *o, tl_engine *engine) {
    tl_error e = {0};
    tl_model *m;
    tl_session *s = NULL;
    if (model_open_mapped(engine, o->model, &m, &e) != TL_OK) return cli_fail(&e);
    tl_status st = o->scaling ? config_scale(&m->config, o->scaling, &e) : TL_OK;
    generation_fill(&m->generation, &o->s);
    if (!o->s.context) o->s.context = context_for(o, &m->config);
    if (st == TL_OK) st = session_create(m, &o->s, &s, &e);
    if (st == TL_OK && o->prompt && *o->prompt) st = session_text(s, o->prompt, strlen(o->prompt), o->special, &e);
    int code = EXIT_DONE;
    if (st == TL_OK) {
        size_t prompt = s->seen.n;
        str text;
        tl_piece last = {0};
        int64_t tokens = 0;
        double start = now();
        str_init(&text, tl_engine_allocator(engine));
        if (!o->common.json && o->prompt) fputs(o->prompt, stdout);
        st = write_all(o, s, &text, &last, &tokens, &e);
        if (st == TL_OK) code = report(o, m, &text, &last, tokens, prompt, now() - start);
        str_fini(&text);
    }
    if (st != TL_OK) code = cli_fail(&e);
    session_destroy(s);
    model_close(m);
    return cli_signal() ? cli_signal_code() : code;
}

int cmd_generate(int argc, char **argv) {
    options o = {0};
    generation_unset(&o.s); /* what the user does not choose the model's files may */
    o.s.stop = o.stop; /* the array lives as long as o */
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    o.s.seed = o.common.has_seed ? o.common.seed : (uint64_t)time(NULL);
    tl_engine *engine;
    tl_error e = {0};
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    cli_catch_signals();
    int code = generate(&o, engine);
    tl_engine_destroy(engine);
    return code;
}
