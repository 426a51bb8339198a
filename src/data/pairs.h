/* data/pairs: examples as sources and targets, packed into rows of both. For the loader. */
#ifndef DATA_PAIRS_H
#define DATA_PAIRS_H

#include "data/loader.h"

typedef struct pairs pairs;

/* What does not fit a row is cut at its end; pairs without a target are left out. [fails: ARG, LIMIT, NOMEM] */
tl_status pairs_open(const tl_allocator *a, const tokens *t, int64_t T, int64_t S, pairs **out, tl_error *e);
void pairs_close(pairs *p);
int64_t pairs_rows(const pairs *p);
/* Targets of all rows; pairs that were cut, that were left out; ids of the longest source or target. */
int64_t pairs_targets(const pairs *p);
void pairs_cuts(const pairs *p, int64_t *cut, int64_t *left_out, int64_t *longest);
/* Row `row` (none: all padding) into row k of a batch; returns its targets. */
int64_t pairs_fill(const pairs *p, int64_t row, int64_t k, loader_batch *b);

#endif
