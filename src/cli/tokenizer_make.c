/* tilia tokenizer train, info and convert. */
#include "cli/tokenizer_cli.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

typedef struct make_progress {
    bool bar, quiet;
    const char *phase;
    time_t last;
} make_progress;

static bool make_show(void *user, const char *phase, uint64_t done, uint64_t total) {
    make_progress *p = user;
    time_t now = time(NULL);
    bool fresh = p->phase != phase;
    if (cli_signal()) return false;
    if (p->quiet || (!fresh && now - p->last < (p->bar ? 0 : 5))) return true;
    p->phase = phase;
    p->last = now;
    double part = total ? (double)done / (double)total : 0;
    int n = (int)(part * 40);
    if (p->bar)
        fprintf(stderr, "\r%-6s [%-*.*s] %5.1f%%", phase, 40, n > 40 ? 40 : n,
                "########################################", 100 * part);
    else
        fprintf(stderr, "tilia: %s %.1f%%\n", phase, 100 * part);
    return true;
}

/* Bytes and ids of a file under the new tokenizer. A window at a time: a map of the file would look like memory. */
static tl_status make_measure(const tokenizer *t, const char *path, size_t threads, uint64_t *bytes, uint64_t *ids,
                              tl_error *e) {
    enum { WINDOW = 1 << 20 };
    token_encoder *x;
    token_list l;
    FILE *f = fopen(path, "rb");
    char *buf = f ? malloc(WINDOW) : NULL;
    tl_status s = !f     ? error_errno(e, "cannot be opened")
                  : !buf ? error_set(e, TL_NOMEM, "no memory for the text")
                         : token_encoder_open(t, TOKENIZER_PARSE, threads, &x, e);
    token_list_init(&l, &mem_default);
    *bytes = *ids = 0;
    if (s == TL_OK) {
        for (size_t n; s == TL_OK && (n = fread(buf, 1, WINDOW, f)) > 0; *ids += l.n, l.n = 0, *bytes += n)
            s = token_encoder_push(x, buf, n, &l, e);
        if (s == TL_OK && ferror(f)) s = error_errno(e, "reading failed");
        if (s == TL_OK) s = token_encoder_finish(x, &l, e);
        *ids += l.n;
        token_encoder_close(x);
    }
    if (s != TL_OK) error_at_file(e, path);
    token_list_fini(&l);
    free(buf);
    if (f) fclose(f);
    return s;
}

static tl_status make_report(const tokenizer_cli *o, const tokenizer *t, const tokenizer_train_report *r, tl_error *e) {
    str s;
    str_init(&s, &mem_default);
    if (o->common.json) {
        str_add_json(&s, o->out, strlen(o->out));
        printf("{\"out\": %s, \"vocab\": %lld, \"merges\": %llu, \"bytes\": %llu, \"pieces\": %llu, \"distinct\": "
               "%llu, \"files\": [",
               s.data ? s.data : "\"\"", (long long)tokenizer_vocab(t), (unsigned long long)r->merges,
               (unsigned long long)r->bytes, (unsigned long long)r->pieces, (unsigned long long)r->distinct);
    } else {
        printf("%s: vocabulary %lld, %llu merges from %llu distinct pieces\n", o->out, (long long)tokenizer_vocab(t),
               (unsigned long long)r->merges, (unsigned long long)r->distinct);
    }
    tl_status st = TL_OK;
    for (int i = 0; i < o->args_n && st == TL_OK; i++) {
        uint64_t bytes = 0, ids = 0;
        st = make_measure(t, o->args[i], tokenizer_cli_threads(o), &bytes, &ids, e);
        double ratio = ids ? (double)bytes / (double)ids : 0;
        str_clear(&s);
        str_add_json(&s, o->args[i], strlen(o->args[i]));
        if (o->common.json)
            printf("%s{\"file\": %s, \"bytes\": %llu, \"ids\": %llu, \"bytes_per_token\": %.4f}", i ? ", " : "",
                   s.data ? s.data : "\"\"", (unsigned long long)bytes, (unsigned long long)ids, ratio);
        else
            printf("%s: %llu bytes, %llu ids, %.3f bytes per token\n", o->args[i], (unsigned long long)bytes,
                   (unsigned long long)ids, ratio);
    }
    if (o->common.json) printf("]}\n");
    str_fini(&s);
    return st;
}

/* Can the folder of out be written to? Better known before a corpus is read than behind. */
static int make_out_ok(const char *out) {
    const char *slash = strrchr(out, '/');
    char *dir = slash ? strndup(out, (size_t)(slash - out) + 1) : strdup(".");
    const bool ok = dir && access(dir, W_OK) == 0;
    const int why = errno;
    free(dir);
    if (ok) return EXIT_DONE;
    fprintf(stderr, "tilia: %s: cannot be written: %s\n", out, strerror(why));
    return EXIT_FAILED;
}

int tokenizer_cli_train(tokenizer_cli *o) {
    if (!o->args_n) return cli_usage("tokenizer train: which files?");
    if (!o->vocab) return cli_usage("tokenizer train: how large a vocabulary? give --vocab N");
    if (!o->out) return cli_usage("tokenizer train: where to? give --out FILE");
    const int writable = make_out_ok(o->out);
    if (writable != EXIT_DONE) return writable;
    if (!o->special_n) o->special[o->special_n++] = "<|endoftext|>";
    make_progress p = {.bar = isatty(STDERR_FILENO) != 0, .quiet = o->common.quiet};
    tokenizer_train_options t = {.vocab = o->vocab,
                                 .min_count = o->min_count,
                                 .split = o->pattern,
                                 .special = o->special,
                                 .special_n = o->special_n,
                                 .threads = tokenizer_cli_threads(o),
                                 .progress = make_show,
                                 .user = &p};
    token_trainer *r = NULL;
    tokenizer *made = NULL;
    tokenizer_train_report report;
    tl_error e = {0};
    cli_catch_signals();
    tl_status s = token_trainer_open(&mem_default, &t, &r, &e);
    for (int i = 0; i < o->args_n && s == TL_OK; i++) s = token_trainer_file(r, o->args[i], &e);
    if (s == TL_OK) s = token_trainer_finish(r, &made, &report, &e);
    if (p.bar && p.phase && !p.quiet) fprintf(stderr, "\n");
    token_trainer_close(r);
    if (s == TL_OK) s = tokenizer_save(made, o->out, &e);
    if (s == TL_OK) s = make_report(o, made, &report, &e);
    tokenizer_close(made);
    if (s == TL_CANCELLED && cli_signal()) return cli_signal_code();
    return s == TL_OK ? EXIT_DONE : cli_fail(&e);
}

int tokenizer_cli_convert(tokenizer_cli *o) {
    tokenizer *t;
    tl_error e = {0};
    if (o->args_n != 2) return cli_usage("tokenizer convert: give SRC and DST");
    int code = tokenizer_cli_open(o, o->args[0], &t);
    if (code) return code;
    tl_status s = tokenizer_save_hf(t, o->args[1], &e);
    if (s == TL_OK && o->common.json)
        printf("{\"vocab\": %lld}\n", (long long)tokenizer_vocab(t));
    else if (s == TL_OK)
        printf("%s: %s, vocabulary %lld\n", o->args[1], tokenizer_kind(t), (long long)tokenizer_vocab(t));
    tokenizer_close(t);
    return s == TL_OK ? EXIT_DONE : cli_fail(&e);
}

/* ---- info ------------------------------------------------------------------------------------ */

enum { INFO_SPECIALS = 12 }; /* shown to people; --json has all */

static const char *const info_role[TOKENIZER_ROLES] = {"bos", "eos", "eot", "eod", "pad", "unk"};

/* Text of an id as a JSON string, in s. */
static const char *info_text(const tokenizer *t, int32_t id, str *s) {
    size_t n;
    const char *text = tokenizer_text(t, id, &n);
    str_clear(s);
    str_add_json(s, text ? text : "", text ? n : 0);
    return s->data ? s->data : "\"\"";
}

static const char *info_family(const tokenizer *t) {
    const char *family = tokenizer_chat_family(t);
    return family ? family : tokenizer_chat_template(t) ? "unknown" : "none";
}

static void info_json(const tokenizer *t, str *s) {
    const char *split = tokenizer_split(t);
    str_clear(s);
    str_add_json(s, split ? split : "", split ? strlen(split) : 0);
    printf("{\"kind\": \"%s\", \"vocab\": %lld, \"merges\": %zu, \"byte_level\": %s, \"split\": %s, \"chat\": \"%s\", "
           "\"roles\": {",
           tokenizer_kind(t), (long long)tokenizer_vocab(t), tokenizer_merges(t),
           tokenizer_byte_level(t) ? "true" : "false", split ? s->data : "null", info_family(t));
    const char *comma = "";
    for (int i = 0; i < TOKENIZER_ROLES; i++) {
        int32_t id = tokenizer_role_id(t, (tokenizer_role)i);
        if (id < 0) continue;
        printf("%s\"%s\": {\"id\": %d, \"text\": %s}", comma, info_role[i], id, info_text(t, id, s));
        comma = ", ";
    }
    printf("}, \"special\": [");
    comma = "";
    for (int32_t id = 0; id < tokenizer_vocab(t); id++) {
        if (!tokenizer_is_special(t, id)) continue;
        printf("%s{\"id\": %d, \"text\": %s}", comma, id, info_text(t, id, s));
        comma = ", ";
    }
    printf("]}\n");
}

static void info_people(const tokenizer *t, str *s) {
    const char *split = tokenizer_split(t);
    printf("kind    %s%s", tokenizer_kind(t), tokenizer_byte_level(t) ? ", on bytes" : "");
    if (tokenizer_merges(t)) printf(", %zu merges", tokenizer_merges(t));
    printf("\nvocab   %lld\nsplit   %s\nchat    %s\n", (long long)tokenizer_vocab(t), split ? split : "none",
           info_family(t));
    for (int i = 0; i < TOKENIZER_ROLES; i++) {
        int32_t id = tokenizer_role_id(t, (tokenizer_role)i);
        if (id >= 0) printf("%-7s %d %s\n", info_role[i], id, info_text(t, id, s));
    }
    size_t n = 0;
    for (int32_t id = 0; id < tokenizer_vocab(t); id++) {
        if (!tokenizer_is_special(t, id)) continue;
        if (n++ < INFO_SPECIALS) printf("%s %d %s\n", n == 1 ? "special" : "       ", id, info_text(t, id, s));
    }
    if (n > INFO_SPECIALS) printf("        and %zu more; --json lists all\n", n - INFO_SPECIALS);
}

int tokenizer_cli_info(tokenizer_cli *o) {
    tokenizer *t;
    if (o->args_n > 1) return cli_usage("tokenizer info: one file, please");
    int code = tokenizer_cli_open(o, o->args_n ? o->args[0] : NULL, &t);
    if (code) return code;
    str s;
    str_init(&s, &mem_default);
    if (o->common.json)
        info_json(t, &s);
    else
        info_people(t, &s);
    str_fini(&s);
    tokenizer_close(t);
    return EXIT_DONE;
}
