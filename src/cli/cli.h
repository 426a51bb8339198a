/* cli: the program. One file per command; stdout carries the result and nothing else, progress and errors go to stderr.
 * Exit codes: 0 done, 1 failed, 2 wrong usage, 130/143 interrupted after a clean checkpoint. May include every room. */
#ifndef CLI_CLI_H
#define CLI_CLI_H

#include "tilia.h"

#include <argp.h>
#include <stdio.h>

enum { EXIT_DONE = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

#define COMMAND(name, function, help) int function(int argc, char **argv);
#include "cli/commands.def"
#undef COMMAND

/* Options that every command takes. Put CLI_CHILD into the command's argp children and hand &common to it as input
 * number 0 (cli_begin does both halves of the work). */
typedef struct cli_common {
    int threads;
    uint64_t seed;
    bool has_seed;
    const char *device;
    bool quiet, json;
} cli_common;
extern const struct argp cli_common_argp;

/* Parses arguments; argp's own errors exit with 2. argv[0] becomes "tilia COMMAND". */
int cli_parse(const struct argp *a, int argc, char **argv, void *input);
/* Prints "tilia: file: text" to stderr and returns the exit code: 2 for ARG, else 1. */
int cli_fail(const tl_error *e);
/* The same for a mistake in the arguments: returns 2. */
int cli_usage(const char *fmt, ...) TL_PRINTF(1, 2);
/* An engine with the common options; log lines go to stderr (warnings only when quiet). */
tl_status cli_engine(const cli_common *c, tl_engine **out, tl_error *e);
/* Flushes stdout; a full disk or a closed pipe there is a failure. */
int cli_finish(int code);

/* "12.3k", "4.56M", "1.2 GB"; into buf, which is returned. */
const char *cli_count(double n, char *buf, size_t size);
/* "356 GFLOP/s": a count, a space, its letter with the unit. */
const char *cli_rate(double n, const char *unit, char *buf, size_t size);
const char *cli_bytes(double n, char *buf, size_t size);
/* Text as a JSON string on f. */
void cli_json_text(FILE *f, const char *text, size_t n);
/* Parses a whole number or real within bounds; argp_error names the option when it is not one. */
int64_t cli_int(struct argp_state *s, const char *option, const char *arg, int64_t min, int64_t max);
double cli_real(struct argp_state *s, const char *option, const char *arg, double min, double max);

/* How text is written, and with which model: a child of argp, with its own input. */
typedef struct cli_generation {
    const char *scaling, *adapter;
    int64_t sinks; /* -1: not said */
    tl_session_options s;
} cli_generation;
extern const struct argp cli_generation_argp;
/* The argument of --kv-dtype. */
tl_recompute cli_recompute(struct argp_state *st, const char *arg); /* NULL: the option without a level, full */
tl_dtype cli_cache_type(struct argp_state *st, const char *arg);
/* Nothing chosen yet, or tokens, of an answer at most. */
void cli_generation_init(cli_generation *g, int64_t tokens);
/* The model of that path with what the options add to it; what the user did not choose is filled in from its files. */
tl_status cli_generation_open(cli_generation *g, tl_engine *engine, const char *path, tl_model **m, tl_error *e);

/* f32 or bf16; argp_error names the option otherwise. */
tl_dtype cli_dtype(struct argp_state *s, const char *option, const char *arg);
void cli_lora_targets(struct argp_state *s, const char *arg, unsigned *out);
/* ARGP_KEY_ARG and ARGP_KEY_END of commands that take a model first: false if an argument is one behind it. */
bool cli_model_arg(struct argp_state *s, const char **model, int key, char *arg);
/* The same of commands that take a source and a destination. */
void cli_pair_arg(struct argp_state *s, const char **src, const char **dst, int key, char *arg, const char *usage);

/* Set by SIGINT and SIGTERM after cli_catch_signals; a second signal ends the process at once. 0: none yet. */
void cli_catch_signals(void);
int cli_signal(void);
/* 130 or 143 for the signal caught. */
int cli_signal_code(void);

#endif
