/* runlog/runs: run directories (run.json, metrics.jsonl) summed up, one by one or all under a root through an SQLite
 * index. The index only saves time: it is brought up to date whenever it is opened, rebuilt when it is damaged, and
 * done without where it cannot be written. */
#ifndef RUNLOG_RUNS_H
#define RUNLOG_RUNS_H

#include "base/arena.h"

typedef struct run_metric {
    const char *name;
    double last, min, sum;
    int64_t min_step, count;
} run_metric;

typedef struct run_option { /* run.json flattened: "optimizer.lr" and its value as text */
    const char *key, *value;
} run_option;

typedef struct run_row {
    const char *name, *path;
    int64_t changed; /* seconds since 1970 of the newest of its files */
    int64_t steps;   /* of the last line; 0: none */
    const run_metric *metric;
    size_t metrics;
    const run_option *option;
    size_t options;
    const char *problem; /* why its files cannot be read; NULL: they can */
} run_row;

const run_metric *run_find_metric(const run_row *r, const char *name); /* NULL: none */
const char *run_find_option(const run_row *r, const char *key);        /* NULL: none */

/* One run from its files; strings live in the arena. A file that is there but broken is an error.
 * [fails: NOTFOUND neither run.json nor metrics.jsonl is there; FORMAT, IO, NOMEM] */
tl_status run_read(arena *a, const char *path, run_row *out, tl_error *e);

typedef struct runs {
    arena mem;
    run_row *row; /* newest first */
    size_t n;
    size_t read; /* runs whose files had to be read this time */
    bool stored; /* an index file is kept */
} runs;

/* All runs directly under root (links are not followed, so `latest` is not a second run). index: path of the SQLite
 * file; NULL keeps none. [owns: caller, runs_close] [fails: NOTFOUND no root; IO, NOMEM] */
tl_status runs_open(const tl_allocator *a, const char *root, const char *index, runs *out, tl_error *e);
void runs_close(runs *r);

#endif
