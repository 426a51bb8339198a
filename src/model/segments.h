/* model/segments: rows computed a segment of tokens at a time, so that activations are those of one segment whatever
 * the context. Between segments the mixers hand on their sums (build_carry); this holds them and cuts batches. Training
 * keeps what every segment was handed, and goes back over the segments with the gradients of it: the gradients are
 * those of the whole row, nothing is cut off. */
#ifndef MODEL_SEGMENTS_H
#define MODEL_SEGMENTS_H

#include "graph/device.h"
#include "model/build.h"

struct loader_batch;

typedef struct segments {
    int64_t rows, context, length, count; /* count: segments of a row, the last one padded to length */
    int64_t places;                       /* how many times all of what is handed on can be held */
    size_t n, bytes;                      /* carries; bytes of one place */
    size_t *at;                           /* (n + 1) where in a place */
    char *block;                          /* (places, bytes) */
    int32_t *ids, *targets, *pos, *seen;  /* (rows, length) three times, (rows) */
    void *cells;
} segments;

int64_t segments_count(int64_t context, int64_t length);
/* What all places and the cut batch take. */
size_t segments_bytes(const build_result *r, int64_t rows, int64_t length, int64_t places);
/* r: a graph with carries. All places are zero. [owns: caller] [fails: NOMEM] */
tl_status segments_open(segments *s, const tl_allocator *a, const build_result *r, int64_t rows, int64_t context,
                        int64_t length, int64_t places, tl_error *err);
void segments_close(segments *s, const tl_allocator *a); /* of zeros too */

/* Segment k of rows first.. of a batch whose rows are `context` long: padding behind the end. */
void segments_cut(segments *s, const struct loader_batch *b, int64_t first, int64_t k);
/* Binds what was cut, and what a graph takes and hands on: the place of each. to < 0: nothing is handed on. */
tl_status segments_bind(const segments *s, tl_plan *p, const build_result *r, int64_t from, int64_t to);
/* The same for gradients: of what the graph hands on, and of what it was handed. */
tl_status segments_bind_back(const segments *s, tl_plan *p, const build_result *r, int64_t dout, int64_t din);
void segments_clear(segments *s, int64_t place);
/* What is handed on lies in the host's memory. [fails: UNSUPPORTED on a device that has its own] */
tl_status segments_device(const device *d, tl_error *err);

#endif
