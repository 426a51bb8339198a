/* tilia chat MODEL: a conversation. The cache keeps what has been said; only what is new is computed. */
#include "cli/cli.h"

#include "infer/session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEY_SYSTEM = 1, KEY_FAMILY };

typedef struct options {
    cli_common common;
    cli_generation gen;
    const char *model, *system, *family;
} options;

static const struct argp_option table[] = {
    {"system", KEY_SYSTEM, "TEXT", 0, "what the model is told before the conversation", 0},
    {"template", KEY_FAMILY, "NAME", 0,
     "chatml, llama2, llama3, mistral, gemma, phi3, zephyr or plain (default: what the model's own template is)", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->gen, st->child_inputs[1] = &o->common; return 0;
    case KEY_SYSTEM: o->system = arg; return 0;
    case KEY_FAMILY: o->family = arg; return 0;
    case ARGP_KEY_ARG:
    case ARGP_KEY_END:
        if (!cli_model_arg(st, &o->model, key, arg)) argp_error(st, "more than one model");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_generation_argp, 0, NULL, 0}, {&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {table,
                                 parse,
                                 "MODEL",
                                 "A conversation, a line at a time. /reset begins anew, /system TEXT sets what the "
                                 "model is told first, /undo takes the last exchange back, /again has the answer given "
                                 "anew, /help lists all; /quit (or the end of the input) ends it. Ctrl-C stops an "
                                 "answer, and while you write the program.",
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

static tl_status chat_ids(const chat *c, token_list *l, tl_error *e) {
    return tokenizer_chat(c->m->tokenizer, c->family ? c->family : "plain", c->said, c->n, true, l, NULL, e);
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

/* The last answer is forgotten, and with it, if both, what it answered. False: there is none. */
static bool chat_undo(chat *c, bool both) {
    if (!c->n || strcmp(c->said[c->n - 1].role, "assistant") != 0) return false;
    chat_forget(c, c->n - 1);
    if (both && c->n && strcmp(c->said[c->n - 1].role, "user") == 0) chat_forget(c, c->n - 1);
    return true;
}

/* Tokens that are in the cache, and its room. */
static void chat_stats(const chat *c) {
    fprintf(stderr, "%zu messages, %lld of %lld positions in the cache\n", c->n, (long long)c->s->computed,
            (long long)c->s->dec.capacity);
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
    } else if (strcmp(line, "/undo") == 0) {
        if (!chat_undo(c, true)) fprintf(stderr, "tilia: there is nothing to take back\n");
    } else if (strcmp(line, "/again") == 0) {
        if (chat_undo(c, false)) return chat_answer(c, e);
        fprintf(stderr, "tilia: there is no answer to give again\n");
    } else if (strcmp(line, "/stats") == 0) {
        chat_stats(c);
    } else {
        if (strcmp(line, "/help") != 0) fprintf(stderr, "tilia: no command %s\n", line);
        fprintf(stderr, "/reset begins anew      /system TEXT begins anew and tells the model TEXT first\n"
                        "/undo takes back the last exchange      /again has the last answer given anew\n"
                        "/stats says how full the cache is       /quit ends\n");
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
    TRY(cli_generation_open(&o->gen, engine, o->model, &c.m, e));
    tl_status s = TL_OK;
    if (c.m->config.encoder)
        s = error_set(e, TL_UNSUPPORTED, "a model with an encoder answers one source: tilia generate");
    if (!o->gen.s.context) o->gen.s.context = c.m->config.context < 4096 ? c.m->config.context : 4096;
    if (s == TL_OK) s = choose_family(&c, e);
    if (s == TL_OK && !c.family) o->gen.s.stop = stops, o->gen.s.n_stop = 1;
    if (s == TL_OK) s = session_create(c.m, &o->gen.s, &c.s, e);
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
    cli_generation_init(&o.gen, 512);
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    o.gen.s.seed = o.common.has_seed ? o.common.seed : (uint64_t)time(NULL);
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    catch_interrupts();
    int code = talk(engine, &o, &e) == TL_OK ? EXIT_DONE : cli_fail(&e);
    tl_engine_destroy(engine);
    return interrupted && code == EXIT_DONE ? 128 + interrupted : code;
}
