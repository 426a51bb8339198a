/* tilia chat MODEL: a conversation. The cache keeps what has been said; only what is new is computed. */
#include "cli/cli.h"

#include "infer/session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEY_TOP_K = 1, KEY_TOP_P, KEY_MIN_P, KEY_PENALTY, KEY_CONTEXT, KEY_CACHE, KEY_SYSTEM, KEY_FAMILY, KEY_SCALING };

typedef struct options {
    cli_common common;
    const char *model, *system, *family, *scaling;
    tl_session_options s;
} options;

static const struct argp_option table[] = {
    {"tokens", 'n', "N", 0, "tokens of an answer at most (default 512)", 0},
    {"temperature", 't', "X", 0, "0 is greedy (default 0.8)", 0},
    {"top-k", KEY_TOP_K, "K", 0, "only the K likeliest tokens (default 0: all)", 0},
    {"top-p", KEY_TOP_P, "P", 0, "only the likeliest tokens that together reach P (default 0.95)", 0},
    {"min-p", KEY_MIN_P, "P", 0, "only tokens at least P times as likely as the likeliest", 0},
    {"repeat-penalty", KEY_PENALTY, "X", 0, "above 1: recent tokens become less likely", 0},
    {"system", KEY_SYSTEM, "TEXT", 0, "what the model is told before the conversation", 0},
    {"template", KEY_FAMILY, "NAME", 0,
     "chatml, llama2, llama3, mistral, gemma, phi3, zephyr or plain (default: what the model's own template is)", 0},
    {"context", KEY_CONTEXT, "N", 0, "positions to keep (default: the model's, at most 4096)", 0},
    {"rope-scaling", KEY_SCALING, "KIND:N", 0,
     "stretch positions N times: linear:N, ntk:N, dynamic:N or yarn:N (the context grows with them)", 0},
    {"cache-type", KEY_CACHE, "f32|bf16|f16", 0, "type of the cached keys and values (default f32)", 0},
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
    case KEY_CONTEXT: o->s.context = cli_int(st, "--context", arg, 16, 1 << 30); return 0;
    case KEY_SYSTEM: o->system = arg; return 0;
    case KEY_FAMILY: o->family = arg; return 0;
    case KEY_SCALING: o->scaling = arg; return 0;
    case KEY_CACHE:
        o->s.cache_dtype = tl_dtype_parse(arg);
        if (o->s.cache_dtype != TL_F32 && o->s.cache_dtype != TL_BF16 && o->s.cache_dtype != TL_F16)
            argp_error(st, "--cache-type is \"%s\"; it can be f32, bf16 or f16", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (o->model) argp_error(st, "more than one model");
        o->model = arg;
        return 0;
    case ARGP_KEY_END:
        if (!o->model) argp_error(st, "which model? Give a run directory, a Hugging Face directory or a GGUF file");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {table,
                                 parse,
                                 "MODEL",
                                 "A conversation, a line at a time. /reset begins anew, /system TEXT sets what the "
                                 "model is told first, /quit (or the "
                                 "end of the input) ends it. Ctrl-C stops an answer.",
                                 children,
                                 NULL,
                                 NULL};

/* ---- interruption ------------------------------------------------------------------------------------------ */

static volatile sig_atomic_t interrupted;

static void on_interrupt(int number) {
    interrupted = number;
}

static void catch_interrupts(void) {
    struct sigaction a = {.sa_handler = on_interrupt}; /* no restart: reading a line ends too */
    sigemptyset(&a.sa_mask);
    sigaction(SIGINT, &a, NULL);
    sigaction(SIGTERM, &a, NULL);
}

/* ---- the conversation ------------------------------------------------------------------------------------------- */

typedef struct chat {
    const options *o;
    tl_model *m;
    tl_session *s;
    const char *family; /* NULL: plain text */
    chat_message *said; /* texts are owned */
    size_t n, cap;
    bool tty;
} chat;

static tl_status chat_say(chat *c, const char *role, const char *text, size_t n, tl_error *e) {
    char *copy = mem_strndup(c->m->alloc, text, n);
    if (!copy || !mem_reserve(c->m->alloc, &c->said, &c->cap, c->n + 1)) {
        mem_free(c->m->alloc, copy);
        return error_set(e, TL_NOMEM, "no memory for the conversation");
    }
    c->said[c->n++] = (chat_message){role, copy};
    return TL_OK;
}

static void chat_forget(chat *c, size_t at) {
    mem_free(c->m->alloc, (void *)(uintptr_t)c->said[at].text);
    memmove(&c->said[at], &c->said[at + 1], (--c->n - at) * sizeof *c->said);
}

static void chat_reset(chat *c) {
    while (c->n) chat_forget(c, c->n - 1);
}

/* Without a template: lines with who speaks. */
static tl_status plain_ids(const chat *c, token_list *l, tl_error *e) {
    str text;
    str_init(&text, c->m->alloc);
    for (size_t i = 0; i < c->n; i++) {
        bool user = strcmp(c->said[i].role, "user") == 0, system = strcmp(c->said[i].role, "system") == 0;
        str_addf(&text, "%s%s\n", system ? "" : user ? "User: " : "Assistant: ", c->said[i].text);
    }
    str_adds(&text, "Assistant:");
    tl_status s = text.failed ? error_set(e, TL_NOMEM, "no memory for the conversation")
                              : tokenizer_encode(c->m->tokenizer, text.data, text.len, TOKENIZER_ADD, l, e);
    str_fini(&text);
    return s;
}

static tl_status chat_ids(const chat *c, token_list *l, tl_error *e) {
    return c->family ? tokenizer_chat(c->m->tokenizer, c->family, c->said, c->n, true, l, NULL, e) : plain_ids(c, l, e);
}

/* Brings the session to the conversation so far: back to where both agree, then what is new. The oldest turns are
 * forgotten when they no longer fit beside an answer. */
static tl_status chat_bring(chat *c, tl_error *e) {
    tl_status s;
    token_list l;
    for (;;) {
        token_list_init(&l, c->m->alloc);
        s = chat_ids(c, &l, e);
        size_t first = c->n && strcmp(c->said[0].role, "system") == 0;
        if (s != TL_OK || (int64_t)l.n + 32 <= c->s->dec.capacity || c->n - first < 3) break;
        chat_forget(c, first);
        chat_forget(c, first);
        token_list_fini(&l);
    }
    if (s == TL_OK) {
        size_t same = 0;
        while (same < l.n && same < c->s->seen.n && c->s->seen.id[same] == l.id[same]) same++;
        session_rewind(c->s, (int64_t)same);
        s = session_ids(c->s, l.id + same, l.n - same, e);
    }
    token_list_fini(&l);
    return s;
}

/* One answer, shown as it comes. */
static tl_status chat_answer(chat *c, tl_error *e) {
    str text;
    tl_piece p;
    tl_status s = chat_bring(c, e);
    str_init(&text, c->m->alloc);
    interrupted = 0;
    bool begun = false;
    while (s == TL_OK && !interrupted && (s = session_next(c->s, &p, e)) == TL_OK) {
        const char *t = p.text;
        size_t n = p.size;
        while (!begun && n && (*t == ' ' || *t == '\n')) t++, n--; /* what stands between the turn and the answer */
        begun |= n > 0;
        str_add(&text, t, n);
        if (!c->o->common.json) fwrite(t, 1, n, stdout);
        fflush(stdout);
        if (p.done || (p.id >= 0 && tokenizer_is_special(c->m->tokenizer, p.id))) break;
    }
    if (s == TL_OK) s = chat_say(c, "assistant", text.data ? text.data : "", text.len, e);
    if (s == TL_OK && c->o->common.json) {
        printf("{\"answer\": ");
        cli_json_text(stdout, text.data ? text.data : "", text.len);
        printf(", \"interrupted\": %s, \"tokens\": %lld}", interrupted ? "true" : "false", (long long)c->s->generated);
    }
    if (s == TL_OK) printf("\n");
    fflush(stdout);
    str_fini(&text);
    return s;
}

static tl_status chat_begin(chat *c, tl_error *e) {
    chat_reset(c);
    return c->o->system ? chat_say(c, "system", c->o->system, strlen(c->o->system), e) : TL_OK;
}

/* A line that begins with a slash. *quit: the conversation is over. */
static tl_status chat_command(chat *c, const char *line, bool *quit, tl_error *e) {
    if (strcmp(line, "/quit") == 0 || strcmp(line, "/exit") == 0) {
        *quit = true;
    } else if (strcmp(line, "/reset") == 0) {
        return chat_begin(c, e);
    } else if (strncmp(line, "/system ", 8) == 0) {
        chat_reset(c);
        return chat_say(c, "system", line + 8, strlen(line + 8), e);
    } else {
        fprintf(stderr, "tilia: /reset begins anew, /system TEXT sets what the model is told first, /quit ends\n");
    }
    return TL_OK;
}

static tl_status chat_loop(chat *c, tl_error *e) {
    char *line = NULL;
    size_t cap = 0;
    bool quit = false;
    tl_status s = chat_begin(c, e);
    while (s == TL_OK && !quit) {
        if (c->tty) fprintf(stderr, "> ");
        interrupted = 0;
        ssize_t n = getline(&line, &cap, stdin);
        if (n < 0 || interrupted) break;
        while (n && (line[n - 1] == '\n' || line[n - 1] == '\r')) line[--n] = 0;
        if (!n) continue;
        if (line[0] == '/') {
            s = chat_command(c, line, &quit, e);
            continue;
        }
        s = chat_say(c, "user", line, (size_t)n, e);
        if (s == TL_OK) s = chat_answer(c, e);
        if (interrupted == SIGTERM) break;
    }
    if (c->tty) fprintf(stderr, "\n");
    free(line);
    return s;
}

static tl_status choose_family(chat *c, tl_error *e) {
    const tl_tokenizer *t = c->m->tokenizer;
    if (!t) return error_set(e, TL_STATE, "the model has no tokenizer");
    c->family = c->o->family ? c->o->family : tokenizer_chat_family(t);
    if (c->family && strcmp(c->family, "plain") == 0) c->family = NULL;
    if (!c->family && !c->o->family && !c->o->common.quiet)
        fprintf(stderr, "tilia: %s: the conversation goes on as plain text (--template NAME chooses)\n",
                tokenizer_chat_template(t) ? "the model's chat template is not known"
                                           : "the model has no chat template");
    return TL_OK;
}

static tl_status talk(tl_engine *engine, options *o, tl_error *e) {
    static const char *const stops[] = {"\nUser:"};
    chat c = {.o = o, .tty = isatty(0) && !o->common.quiet};
    TRY(model_open_mapped(engine, o->model, &c.m, e));
    tl_status s = o->scaling ? config_scale(&c.m->config, o->scaling, e) : TL_OK;
    generation_fill(&c.m->generation, &o->s);
    if (!o->s.context) o->s.context = c.m->config.context < 4096 ? c.m->config.context : 4096;
    if (s == TL_OK) s = choose_family(&c, e);
    if (s == TL_OK && !c.family) o->s.stop = stops, o->s.n_stop = 1;
    if (s == TL_OK) s = session_create(c.m, &o->s, &c.s, e);
    if (s == TL_OK) s = chat_loop(&c, e);
    chat_reset(&c);
    mem_free(c.m->alloc, c.said);
    session_destroy(c.s);
    model_close(c.m);
    return s;
}

int cmd_chat(int argc, char **argv) {
    options o = {0};
    tl_engine *engine;
    tl_error e = {0};
    generation_unset(&o.s);
    o.s.max_tokens = 512;
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    o.s.seed = o.common.has_seed ? o.common.seed : (uint64_t)time(NULL);
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    catch_interrupts();
    int code = talk(engine, &o, &e) == TL_OK ? EXIT_DONE : cli_fail(&e);
    tl_engine_destroy(engine);
    return interrupted && code == EXIT_DONE ? 128 + interrupted : code;
}
