/* tilia tokenizer train | encode | decode | info | convert. */
#include "cli/cli.h"
#include "cli/tokenizer_cli.h"

#include <string.h>
#include <unistd.h>

enum {
    KEY_VOCAB = 1,
    KEY_OUT,
    KEY_PATTERN,
    KEY_SPECIAL,
    KEY_MIN,
    KEY_TOKENIZER,
    KEY_NO_SPECIAL,
    KEY_ADD,
    KEY_SPANS,
    KEY_SKIP
};

static const struct argp_option options[] = {
    {"tokenizer", KEY_TOKENIZER, "FILE", 0, "tokenizer file, folder, or \"bytes\" (encode, decode, info)", 1},
    {"no-special", KEY_NO_SPECIAL, 0, 0, "special tokens written in the text are plain text (encode)", 1},
    {"add", KEY_ADD, 0, 0, "add what the tokenizer puts around a text, such as BOS (encode)", 1},
    {"spans", KEY_SPANS, 0, 0, "with --json: the bytes each id stands for (encode)", 1},
    {"skip-special", KEY_SKIP, 0, 0, "leave special tokens out (decode)", 1},
    {"vocab", KEY_VOCAB, "N", 0, "size of the vocabulary (train)", 2},
    {"out", KEY_OUT, "FILE", 0, "where to write tokenizer.json (train)", 2},
    {"pattern", KEY_PATTERN, "NAME|REGEX", 0,
     "gpt2 (default), cl100k, o200k, llama3, qwen2, none, or a pattern (train)", 2},
    {"special", KEY_SPECIAL, "TOKEN", 0,
     "a special token and border of documents; again for more (train; default <|endoftext|>)", 2},
    {"min-count", KEY_MIN, "N", 0, "pairs seen less often are not merged (train)", 2},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    tokenizer_cli *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_VOCAB: o->vocab = (size_t)cli_int(st, "--vocab", arg, 256, 1 << 21); return 0;
    case KEY_MIN: o->min_count = (uint64_t)cli_int(st, "--min-count", arg, 1, INT64_MAX); return 0;
    case KEY_OUT: o->out = arg; return 0;
    case KEY_PATTERN: o->pattern = arg; return 0;
    case KEY_TOKENIZER: o->tokenizer = arg; return 0;
    case KEY_NO_SPECIAL: o->no_special = true; return 0;
    case KEY_ADD: o->add = true; return 0;
    case KEY_SPANS: o->spans = true; return 0;
    case KEY_SKIP: o->skip = true; return 0;
    case KEY_SPECIAL:
        if (o->special_n == TOKENIZER_CLI_SPECIALS)
            argp_error(st, "more than %d special tokens", TOKENIZER_CLI_SPECIALS);
        o->special[o->special_n++] = arg;
        return 0;
    case ARGP_KEY_ARGS:
        o->args = st->argv + st->next;
        o->args_n = st->argc - st->next;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {options,
                                 parse,
                                 "train FILE... --vocab N --out FILE\n"
                                 "encode --tokenizer FILE [TEXT|-]\n"
                                 "decode --tokenizer FILE [ID...|-]\n"
                                 "info FILE\n"
                                 "convert SRC DST",
                                 "Trains tokenizers, turns text into ids and back, tells what a tokenizer file holds, "
                                 "writes any of them as tokenizer.json.",
                                 children,
                                 NULL,
                                 NULL};

int tokenizer_cli_open(const tokenizer_cli *o, const char *path, tokenizer **t) {
    tl_error e = {0};
    if (!path) path = o->tokenizer;
    if (!path) return cli_usage("which tokenizer? give --tokenizer FILE");
    return tokenizer_open(&mem_default, path, t, &e) == TL_OK ? EXIT_DONE : cli_fail(&e);
}

size_t tokenizer_cli_threads(const tokenizer_cli *o) {
    long n = o->common.threads ? o->common.threads : sysconf(_SC_NPROCESSORS_ONLN);
    return n < 1 ? 1 : (size_t)n;
}

int cmd_tokenizer(int argc, char **argv) {
    static const struct {
        const char *name;
        int (*run)(tokenizer_cli *o);
    } action[] = {{"train", tokenizer_cli_train},
                  {"encode", tokenizer_cli_encode},
                  {"decode", tokenizer_cli_decode},
                  {"info", tokenizer_cli_info},
                  {"convert", tokenizer_cli_convert}};
    tokenizer_cli o = {0};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    if (!o.args_n) return cli_usage("tokenizer: train, encode, decode, info or convert?");
    const char *name = o.args[0];
    o.args++;
    o.args_n--;
    for (size_t i = 0; i < sizeof action / sizeof *action; i++)
        if (!strcmp(name, action[i].name)) return cli_finish(action[i].run(&o));
    return cli_usage("tokenizer: \"%s\" is none of train, encode, decode, info, convert", name);
}
