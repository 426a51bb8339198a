/* What the parts of tilia tokenizer share. */
#ifndef CLI_TOKENIZER_CLI_H
#define CLI_TOKENIZER_CLI_H

#include "cli/cli.h"

#include "tokenizer/tokenizer.h"

enum { TOKENIZER_CLI_SPECIALS = 256 };

typedef struct tokenizer_cli {
    cli_common common;
    const char *tokenizer, *out, *pattern;
    const char *special[TOKENIZER_CLI_SPECIALS];
    size_t special_n, vocab;
    uint64_t min_count;
    bool no_special, add, spans, skip;
    char **args; /* behind the action */
    int args_n;
} tokenizer_cli;

int tokenizer_cli_train(tokenizer_cli *o);
int tokenizer_cli_encode(tokenizer_cli *o);
int tokenizer_cli_decode(tokenizer_cli *o);
int tokenizer_cli_info(tokenizer_cli *o);
int tokenizer_cli_convert(tokenizer_cli *o);

/* Opens path, or --tokenizer if it is NULL; EXIT_DONE, or the code to leave with. */
int tokenizer_cli_open(const tokenizer_cli *o, const char *path, tokenizer **t);
size_t tokenizer_cli_threads(const tokenizer_cli *o);

#endif
