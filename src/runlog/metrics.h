/* runlog: what runs leave behind. Files are the truth (metrics.jsonl, run.json); the SQLite index beside them can be
 * thrown away and rebuilt; plots read the files. Refuses: models, training, anything that computes a metric.
 *
 * This file: metrics.jsonl. One object a line with "step" and numbers, printed so that they read back bit for bit.
 * A number that is not finite is written as null and read as NaN. */
#ifndef RUNLOG_METRICS_H
#define RUNLOG_METRICS_H

#include "base/str.h"

typedef struct metrics_writer {
    const tl_allocator *alloc;
    int fd;
    char path[1024];
    str line;
} metrics_writer;

/* Opens path for appending, made if absent. Lines of steps above keep_step, and a last line that a killed process
 * left unfinished, are cut off first: a resumed run writes them anew. keep_step < 0 starts an empty file. */
tl_status metrics_writer_open(metrics_writer *w, const tl_allocator *a, const char *path, int64_t keep_step,
                              tl_error *e);
void metrics_begin(metrics_writer *w, int64_t step);
void metrics_f32(metrics_writer *w, const char *name, float value);   /* 9 digits */
void metrics_real(metrics_writer *w, const char *name, double value); /* 17 digits */
void metrics_int(metrics_writer *w, const char *name, int64_t value);
void metrics_text(metrics_writer *w, const char *name, const char *value);
/* Writes the line in one piece; sync also waits for the disk. [fails: IO, NOSPACE, NOMEM] */
tl_status metrics_end(metrics_writer *w, bool sync, tl_error *e);
void metrics_writer_close(metrics_writer *w); /* safe on a closed writer */

/* A whole file as columns. Column 0 is "step". */
typedef struct metrics_column {
    char *name;
    double *value; /* (rows), NaN where a line has no such number */
    size_t cap;
} metrics_column;
typedef struct metrics {
    const tl_allocator *alloc;
    size_t rows, columns, column_cap;
    metrics_column *column;
} metrics;

/* [fails: NOTFOUND, IO, NOMEM; FORMAT with file and line] A last line without its end is left out. */
tl_status metrics_read(const tl_allocator *a, const char *path, metrics *m, tl_error *e);
void metrics_free(metrics *m);
/* Values of a column, NULL if there is none. */
const double *metrics_find(const metrics *m, const char *name);
/* Points (x, y) where both columns have a number, in new arrays to mem_free; *n 0 if there are none. */
tl_status metrics_points(const metrics *m, const char *x, const char *y, double **px, double **py, size_t *n,
                         tl_error *e);

#endif
