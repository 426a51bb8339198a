/* tilia scaling in parts: runs and what is told of them (cmd_scaling.c), the ladder of models (scaling_sweep.c). */
#ifndef CLI_SCALING_CLI_H
#define CLI_SCALING_CLI_H

#include "cli/cli.h"
#include "cost/scaling.h"

enum { SCALING_FILES = 256, SCALING_RUNS = 4096, SCALING_BUDGETS = 16 };

typedef struct scaling_options {
    cli_common common;
    const char *action, *runs, *plot, *out, *tokenizer, *val;
    const char *file[SCALING_FILES];
    size_t files;
    bool no_embedding, only_plan;
    double budget[SCALING_BUDGETS]; /* fit: predicted for; sweep: trained with */
    size_t budgets;
    int64_t bootstraps, sizes, batch, context;
} scaling_options;

/* Runs under a directory: parameters and options from run.json, the last losses from metrics.jsonl. */
tl_status scaling_read_runs(const scaling_options *o, const char *root, scaling_run *run, size_t *n, tl_error *err);
/* Trains what of the ladder is not trained yet, each model in a process of its own. Answers the exit code; 0: all of
 * them are under o->out. */
int scaling_sweep(const scaling_options *o);

#endif
