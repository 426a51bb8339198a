/* tilia tokenizer encode and decode: streams; a text of any size passes through a window. */
#include "cli/tokenizer_cli.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CODE_WINDOW = 1 << 20 };

typedef struct code_out {
    const tokenizer_cli *o;
    uint64_t count, bytes;
    str text; /* printed ids wait here */
    str spans;
} code_out;

static void code_number(str *s, int64_t v) {
    char buf[24];
    size_t i = sizeof buf;
    do buf[--i] = (char)('0' + v % 10);
    while (v /= 10);
    str_add(s, buf + i, sizeof buf - i);
}

/* Ids to stdout, which must not grow with the text. */
static void code_print(code_out *w, token_list *l) {
    const char *comma = w->o->common.json ? ", " : " ";
    for (size_t i = 0; i < l->n; i++) {
        if (w->count++) str_adds(&w->text, comma);
        code_number(&w->text, l->id[i]);
        if (w->o->spans && w->o->common.json)
            str_addf(&w->spans, "%s[%zu, %zu]", w->spans.len ? ", " : "", l->span[i].begin, l->span[i].end);
    }
    fwrite(w->text.data, 1, w->text.len, stdout);
    str_clear(&w->text);
    l->n = 0;
}

/* Text from the arguments, joined by blanks, or from stdin, to the encoder. */
static tl_status code_feed(code_out *w, token_encoder *x, token_list *l, tl_error *e) {
    const tokenizer_cli *o = w->o;
    bool input = o->args_n == 0 || (o->args_n == 1 && !strcmp(o->args[0], "-"));
    for (int i = 0; !input && i < o->args_n; i++) {
        if (i) TRY(token_encoder_push(x, " ", 1, l, e));
        TRY(token_encoder_push(x, o->args[i], strlen(o->args[i]), l, e));
        w->bytes += strlen(o->args[i]) + (i > 0);
    }
    char *buf = input ? malloc(CODE_WINDOW) : NULL;
    if (input && !buf) return error_set(e, TL_NOMEM, "no memory for the text");
    tl_status s = TL_OK;
    while (input && s == TL_OK) {
        ssize_t n = read(STDIN_FILENO, buf, CODE_WINDOW);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) s = error_errno(e, "reading standard input failed");
        if (n <= 0) break;
        w->bytes += (uint64_t)n;
        s = token_encoder_push(x, buf, (size_t)n, l, e);
        if (s == TL_OK) code_print(w, l);
        if (ferror(stdout)) break; /* nobody reads any more */
    }
    free(buf);
    if (s == TL_OK) s = token_encoder_finish(x, l, e);
    if (s == TL_OK) code_print(w, l);
    return s;
}

int tokenizer_cli_encode(tokenizer_cli *o) {
    tokenizer *t;
    int code = tokenizer_cli_open(o, NULL, &t);
    if (code) return code;
    unsigned flags = (o->no_special ? 0u : TOKENIZER_PARSE) | (o->add ? TOKENIZER_ADD : 0u);
    code_out w = {.o = o};
    token_list l;
    token_encoder *x = NULL;
    tl_error e = {0};
    str_init(&w.text, &mem_default);
    str_init(&w.spans, &mem_default);
    token_list_init(&l, &mem_default);
    l.want_spans = o->spans && o->common.json;
    if (o->common.json) printf("{\"ids\": [");
    tl_status s = token_encoder_open(t, flags, tokenizer_cli_threads(o), &x, &e);
    if (s == TL_OK) s = code_feed(&w, x, &l, &e);
    if (s == TL_OK && o->common.json) {
        printf("]");
        if (o->spans) printf(", \"spans\": [%s]", w.spans.data ? w.spans.data : "");
        printf(", \"count\": %llu, \"bytes\": %llu}\n", (unsigned long long)w.count, (unsigned long long)w.bytes);
    } else if (s == TL_OK) {
        putchar('\n');
    }
    token_encoder_close(x);
    token_list_fini(&l);
    str_fini(&w.text);
    str_fini(&w.spans);
    tokenizer_close(t);
    return s == TL_OK ? EXIT_DONE : cli_fail(&e);
}

/* ---- decode ---------------------------------------------------------------------------------- */

typedef struct code_in { /* whole numbers from arguments or stdin */
    const tokenizer_cli *o;
    int arg;
    bool input;
    str word;
} code_in;

/* The next number's text in in->word; false: none. */
static bool code_word(code_in *in) {
    str_clear(&in->word);
    if (!in->input) {
        if (in->arg == in->o->args_n) return false;
        str_adds(&in->word, in->o->args[in->arg++]);
        return true;
    }
    int c;
    while ((c = getchar_unlocked()) != EOF) {
        bool gap = isspace(c) || c == ',' || c == '[' || c == ']';
        if (gap && in->word.len) return true;
        if (!gap) str_addc(&in->word, (char)c);
    }
    return in->word.len > 0;
}

static tl_status code_decode(code_in *in, token_decoder *d, str *out, bool json, tl_error *e) {
    while (code_word(in)) {
        if (in->word.failed) return error_set(e, TL_NOMEM, "no memory for the ids");
        char *end;
        errno = 0;
        long long v = strtoll(in->word.data, &end, 10);
        if (*end || end == in->word.data || errno || v < 0 || v > INT32_MAX)
            return error_set(e, TL_ARG, "\"%.40s\" is not an id", in->word.data);
        TRY(token_decoder_push(d, (int32_t)v, out, e));
        if (json || !in->input) continue; /* ids of the command line: all of their text or none */
        fwrite(out->data, 1, out->len, stdout);
        str_clear(out);
    }
    TRY(token_decoder_finish(d, out, e));
    if (!json) fwrite(out->data, 1, out->len, stdout);
    return TL_OK;
}

int tokenizer_cli_decode(tokenizer_cli *o) {
    tokenizer *t;
    int code = tokenizer_cli_open(o, NULL, &t);
    if (code) return code;
    code_in in = {.o = o, .input = o->args_n == 0 || (o->args_n == 1 && !strcmp(o->args[0], "-"))};
    token_decoder d;
    str out, quoted;
    tl_error e = {0};
    str_init(&in.word, &mem_default);
    str_init(&out, &mem_default);
    str_init(&quoted, &mem_default);
    token_decoder_init(&d, t, o->skip ? TOKENIZER_SKIP : 0);
    tl_status s = code_decode(&in, &d, &out, o->common.json, &e);
    if (s == TL_OK && o->common.json) {
        str_add_json(&quoted, out.data ? out.data : "", out.len);
        printf("{\"text\": %s}\n", quoted.data ? quoted.data : "\"\"");
    }
    if (s != TL_OK) {
        str spill; /* frees what the decoder holds */
        tl_error ignored;
        str_init(&spill, &mem_default);
        (void)token_decoder_finish(&d, &spill, &ignored);
        str_fini(&spill);
    }
    str_fini(&in.word);
    str_fini(&out);
    str_fini(&quoted);
    tokenizer_close(t);
    return s == TL_OK ? EXIT_DONE : cli_fail(&e);
}
