/* The laboratory. A CLAIM IS A ROW of claims.def; a study is a row of studies.def and a short file that says which
 * models are trained on what (factors and a setup for each cell of their grid), what is measured and how it is shown.
 * The frame does the rest: it runs the cells one by one, over seeds, keeps every finished one in a file of lines, goes
 * on after a kill in the middle of a cell, judges the claims by effect against spread, and writes a report.
 *
 * Files of a study under OUT: NAME.jsonl (one line a finished cell and seed: values, curves, date, machine), NAME.md
 * and NAME.zh-CN.md, NAME-*.svg; NAME.work/ holds checkpoints of cells that are not finished. */
#ifndef STUDY_STUDY_H
#define STUDY_STUDY_H

#include "base/json.h"
#include "base/log.h"
#include "train/trainer.h"

enum {
    STUDY_FACTORS = 4,
    STUDY_LEVELS = 20, /* of a factor, with the NULL behind the last */
    STUDY_CELLS = 512, /* of a study */
    STUDY_KEY = 160,
    STUDY_NAME = 48,
    STUDY_TRANSFER = 8,
    STUDY_SEEDS = 64
};

typedef struct study study;
typedef struct study_text {
    const char *en, *zh;
} study_text;

typedef struct study_factor {
    const char *name;                /* as selectors have it: "mixer" */
    study_text label;                /* heading of its column */
    const char *level[STUDY_LEVELS]; /* NULL behind the last */
} study_factor;

/* One point of the grid. */
typedef struct study_cell {
    const study *of;
    const char *level[STUDY_FACTORS];
    bool quick;
} study_cell;
/* The level of a factor by name; "" if the study has no such factor. */
const char *study_level(const study_cell *c, const char *factor);
bool study_level_is(const study_cell *c, const char *factor, const char *level);
int64_t study_level_int(const study_cell *c, const char *factor);
/* Which of n rows of `size` bytes, whose first member is a name, has the name of the cell's level. [fails: UNSUPPORTED]
 */
tl_status study_row(const study_cell *c, const char *factor, const void *rows, size_t n, size_t size, size_t *at,
                    tl_error *e);
/* "mixer=flash context=256" */
void study_cell_key(const study_cell *c, char key[STUDY_KEY]);
/* All cells of the grid, last factor fastest; their number. */
size_t study_cells(const study *s, bool quick, study_cell cell[STUDY_CELLS]);
/* Does a selector "factor=level|level ..." fit the cell? Factors it does not name may have any level. */
bool study_selects(const char *selector, const study_cell *c);
/* A selector names only what the study has. [fails: ARG] */
tl_status study_selector_check(const study *s, const char *selector, tl_error *e);

/* ---- what a cell is -------------------------------------------------------------------------- */

typedef enum study_corpus_kind {
    CORPUS_NONE,    /* nothing is read: study.run */
    CORPUS_STORIES, /* the built-in grammar, bytes; its entropy is known */
    CORPUS_CHARS    /* a text of the user's, characters; its last tenth is held out */
} study_corpus_kind;

/* Filled by study.setup for a cell. config.vocab is there already, train has sensible values: see train_cell.c. */
typedef struct study_setup {
    model_config config;
    trainer_settings train;           /* rows, context, schedule.steps ... */
    int64_t transfer[STUDY_TRANSFER]; /* held-out loss at further context lengths too, as values "loss@T"; 0 ends */
    bool by_position;                 /* curve "position": held-out loss by position in the context */
    bool by_depth;                    /* curve "depth": norm of the gradient by layer at the start and at the end */
    bool on_training;                 /* value "train_eval": loss of the trained-on text, as long as the held-out one */
} study_setup;

/* Steps of `rows` windows of `context` tokens, a cosine from lr down to a tenth after `warm` steps; quick cells take 20
 * and warm up for 2 (0 stays 0). */
void study_steps(study_setup *s, const study_cell *c, int64_t context, int64_t rows, double lr, int64_t warm,
                 int64_t steps);
/* Held-out loss in windows of these lengths too, up to the 0; quick cells leave those above 512 out. */
void study_lengths(study_setup *s, const study_cell *c, const int64_t *lengths);

/* ---- how it is shown ------------------------------------------------------------------------- */

typedef struct study_metric {
    const char *name; /* in results */
    study_text label;
    double scale; /* printed is value * scale */
    int digits;
    bool exact; /* not measured but counted: the same for every seed */
} study_metric;
/* A metric by name: the study's own, else one of those that every training cell has; NULL: none. */
const study_metric *study_metric_find(const study *s, const char *name);

enum { STUDY_COLUMNS = 12 };
/* Rows are the levels of `row`. Columns: the metrics; or, with `col`, the levels of that factor, of metric[0]. where: a
 * selector, NULL: all cells; what is left open is averaged over. */
typedef struct study_table {
    study_text title;
    const char *row, *col, *where;
    const char *metric[STUDY_COLUMNS];
} study_table;

/* A picture OUT/NAME-file.svg, one line for each level of `by`. x: a factor with numbers as levels (y a metric); a
 * metric (y another one: a point for each level); or NULL (y a curve of the results). */
typedef struct study_plot {
    const char *file, *title, *xlabel, *ylabel;
    const char *x, *y, *by, *where;
    bool log_x, log_y;
    double y_min, y_max; /* taken when y_min < y_max */
    bool floor;          /* the corpus's entropy across, where it is known */
} study_plot;

/* ---- a study --------------------------------------------------------------------------------- */

struct study_lab;
struct study_measured;

struct study {
    const char *name;
    study_text title, about; /* markdown */
    study_corpus_kind corpus;
    study_factor factor[STUDY_FACTORS]; /* name NULL behind the last */
    /* TL_UNSUPPORTED or TL_CONFIG: there is no such cell; the reason is told when it would have run. */
    tl_status (*setup)(struct study_lab *l, const study_cell *c, study_setup *s, tl_error *e);
    /* Instead of training a cell: fills the values itself. */
    tl_status (*run)(struct study_lab *l, const study_cell *c, uint64_t seed, struct study_measured *m, tl_error *e);
    /* After training: more values. May be NULL. */
    tl_status (*measure)(struct study_lab *l, const study_cell *c, trainer *t, struct study_measured *m, tl_error *e);
    const study_metric *metric; /* own ones, name NULL behind the last; may be NULL */
    const study_table *table;   /* title.en NULL behind the last */
    const study_plot *plot;     /* file NULL behind the last; may be NULL */
    int seeds;                  /* of the normal scale; quick takes one */
};

const study *study_find(const char *name); /* NULL: none */
const study *study_at(size_t i);           /* NULL behind the last */

/* ---- results --------------------------------------------------------------------------------- */

/* What one cell and seed gave: OUT/NAME.jsonl has one a line. Numbers that are not finite are null there. */
typedef struct study_measured {
    json_t *o; /* {"cell", "seed", "hash", "date", "machine", "version", "seconds", "values": {}, "curves": {}} */
} study_measured;
void study_value(study_measured *m, const char *name, double v);
/* n points; points that are not finite are left out. */
void study_curve(study_measured *m, const char *name, size_t n, const double *x, const double *y);

typedef struct study_results {
    const tl_allocator *alloc;
    json_t **line; /* newest of each cell and seed */
    size_t n, cap;
    size_t broken; /* lines that cannot be read or belong to no cell: passed over */
} study_results;
/* A file that is not there is empty. Lines that are broken (a kill, a mistake) are counted and passed over.
 * [fails: IO, NOMEM] */
tl_status study_results_read(const tl_allocator *a, const char *path, study_results *r, tl_error *e);
void study_results_free(study_results *r);
/* The line of a cell and seed; NULL: none. */
const json_t *study_results_find(const study_results *r, const char *key, uint64_t seed);
/* Adds a line, durable before it returns; several processes may do so at once. */
tl_status study_results_append(const tl_allocator *a, const char *path, const json_t *line, tl_error *e);
/* A value of a line; NaN: it has none. */
double study_line_value(const json_t *line, const char *metric);
/* The name of a file of a study: OUT/NAME[-quick]TAIL. */
tl_status study_path(const char *out, const study *s, bool quick, const char *tail, char *path, size_t size,
                     tl_error *e);

/* ---- claims and verdicts --------------------------------------------------------------------- */

typedef enum claim_test {
    DIFF_BELOW,  /* a - b < bound */
    DIFF_ABOVE,  /* a - b > bound */
    DIFF_WITHIN, /* |a - b| < bound */
    RATIO_BELOW, /* a / b < bound */
    RATIO_ABOVE  /* a / b > bound */
} claim_test;

typedef struct claim {
    const char *id, *study, *metric;
    const char *a, *b; /* selectors; b "": a alone is compared with the bound */
    claim_test test;
    double bound;
    study_text says;
    const char *source;
} claim;
const claim *claim_at(size_t i);         /* NULL behind the last */
const claim *claim_find(const char *id); /* NULL: none */

typedef enum claim_verdict { CLAIM_OPEN, CLAIM_UNDECIDED, CLAIM_SUPPORTED, CLAIM_CONTRADICTED } claim_verdict;
const char *claim_verdict_name(claim_verdict v, bool zh);

/* effect: mean over seeds of a - b (or a / b), pairs of equal seeds; half: half the width of its 95 % interval by
 * Student's t; the verdict is supported if all of the interval keeps the bound, contradicted if none does. A number
 * that was counted needs no spread. */
typedef struct claim_result {
    claim_verdict verdict;
    double effect, half, sd, a, b; /* a, b: means */
    int seeds;
    const char *why; /* of OPEN and UNDECIDED; static text */
} claim_result;
void claim_judge(const claim *c, const study *s, const study_results *r, bool quick, claim_result *out);
/* The same on numbers: n differences or ratios. exact: no spread is asked for. */
void claim_judge_values(claim_test test, double bound, const double *x, int n, bool exact, claim_result *out);
/* 97.5 % quantile of Student's t. */
double claim_t975(int df);

/* ---- running --------------------------------------------------------------------------------- */

typedef struct study_corpus {
    study_corpus_kind kind;
    tokenizer *tokenizer;
    token_store store;
    tokens train, held; /* views of the store */
    double floor;       /* nats a token of the held-out part; NaN: not known */
    uint64_t hash;      /* of what was read or drawn */
} study_corpus;

/* What cells run in. Zero it, fill the first part. */
typedef struct study_lab {
    tl_engine *engine;
    const char *out;
    const char *text; /* of CORPUS_CHARS; NULL: none was given */
    const char *machine, *date;
    bool quick;
    double save_seconds;      /* between checkpoints of a cell; 0: 15 */
    bool (*stop)(void *user); /* asked often; true: leave with CANCELLED, a checkpoint written */
    /* A line for people: "mixer=flash context=256 seed 2: step 100 of 500, loss 2.31". May be NULL. */
    void (*say)(void *user, const char *line);
    void *user;
    /* the frame's own */
    study_corpus *corpus;
} study_lab;

typedef struct study_run_options {
    int seeds;         /* 0: the study's */
    const char *where; /* only cells that this selector fits; NULL: all */
} study_run_options;
typedef struct study_run_report {
    int done, kept, left_out, elsewhere, failed; /* cells and seeds; elsewhere: another process has them at hand */
} study_run_report;
/* Runs what is not finished yet, seed by seed. A cell that fails is told and passed over, the rest goes on.
 * [fails: IO, NOMEM, CANCELLED, ARG] */
tl_status study_run(study_lab *l, const study *s, const study_run_options *o, study_run_report *r, tl_error *e);
void study_lab_fini(study_lab *l);

/* One training cell, from its checkpoint in work if there is one. */
tl_status study_train(study_lab *l, const study_cell *c, uint64_t seed, const study_setup *s, const char *work,
                      study_measured *m, tl_error *e);
/* The corpus of a study, its size fixed by the scale. Kept until another one is asked for.
 * [fails: ARG a text is needed and none was given; NOTFOUND, IO, LIMIT, NOMEM] */
tl_status study_corpus_open(study_lab *l, study_corpus_kind kind, tl_error *e);
/* Held-out nats by position in windows of T: sums and counts, (T) each. */
tl_status study_by_position(study_lab *l, tl_model *m, int64_t T, double *nats, int64_t *count, tl_error *e);
/* A number that changes with everything a cell's result depends on. [fails: NOMEM] */
tl_status study_fingerprint(const study_lab *l, const study_cell *c, const study_setup *s, uint64_t *hash, tl_error *e);

/* ---- helpers of setups ----------------------------------------------------------------------- */

/* Changes the mlp's (gated: expanded) width by steps of `multiple` to come as near to `params` parameters as it goes.
 * [fails: CONFIG it is out of reach by more than 5 %] */
tl_status study_match(study_lab *l, model_config *c, int64_t params, int64_t multiple, tl_error *e);
/* The corpus's vocabulary, and with the objective mlm an id more, which hides others. [fails: CONFIG] */
tl_status study_fit(const study_lab *l, model_config *c, tl_error *e);
/* config_parse of a text made like printf's: the keys of config.json behind its opening brace; the vocabulary is the
 * corpus's. */
tl_status study_config(const study_lab *l, model_config *c, tl_error *e, const char *fmt, ...) TL_PRINTF(4, 5);

/* ---- ranks ----------------------------------------------------------------------------------- */

/* How many directions a matrix (n,w) has: singular values above a thousandth of the largest; exp of the entropy of the
 * singular values' shares (Roy and Vetterli 2007); |x|^2 / |x|_2^2. */
typedef struct study_rank {
    double numerical, effective, stable;
} study_rank;
tl_status study_rank_of(const tl_allocator *a, const float *x, int64_t n, int64_t w, study_rank *out, tl_error *e);
/* Of what a layer's mixer hands to its output projection, on 256 held-out tokens; of a gated unit also before the gate
 * (else the same). [fails: UNSUPPORTED, NOMEM] */
tl_status study_mixer_rank(study_lab *l, tl_model *m, int64_t layer, study_rank *mixed, study_rank *values,
                           tl_error *e);

/* ---- report ---------------------------------------------------------------------------------- */

/* Writes NAME.md, NAME.zh-CN.md and the pictures from the results that are there. [fails: NOTFOUND none are] */
tl_status study_report(const tl_allocator *a, const study *s, const char *out, bool quick, tl_error *e);
/* README.md and README.zh-CN.md: every claim with its verdict, study by study. */
tl_status study_index(const tl_allocator *a, const char *out, bool quick, tl_error *e);

#endif
