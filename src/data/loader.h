/* data/loader: which tokens a training step sees. A batch is a function of (seed, step) alone: no state to save, any
 * step can be had at once, and every epoch sees everything once.
 *
 * Inputs and targets. Before a document stands, as input, the end of another: the model reads the end-of-document id
 * and predicts the first token. So every token of every document is a target exactly once, its end too, and in a row
 * the position whose input is the end-of-document id begins the next document (doc_start and pos change there).
 *
 * Pairs (examples, with a source) have source and target in rows of their own: the target reads an end-of-document id
 * and then itself. They are packed in the order of the text, each into the first of the last rows that has room for
 * both parts; in a row sources and targets come in the same order.
 *
 * Examples (tokens with marks) are always packed whole. Nothing stands before their first id, which is read and never
 * predicted, as when a model answers; targets are the marked ids. */
#ifndef DATA_LOADER_H
#define DATA_LOADER_H

#include "data/tokens.h"

typedef enum loader_mode {
    LOADER_WINDOWS, /* the stream of all documents cut every T targets; windows in keyed order */
    LOADER_PACKED,  /* whole documents, best fit into rows of T; longer ones cut; rows in keyed order */
    LOADER_RANDOM,  /* a window at an offset drawn for each row anew: what nanoGPT does; no epochs */
} loader_mode;

typedef struct loader_options {
    loader_mode mode;
    int64_t B, T;
    uint64_t seed;
    int64_t source; /* S: examples are pairs, their first part the source, of as many ids; 0: they are not */
    bool in_order;  /* rows as they come, no permutation: for evaluation */
    bool across;    /* windows: attention and positions run across documents (always so for LOADER_RANDOM) */
} loader_options;

/* Arrays of one batch, owned by the caller; any but input and target may be NULL. */
typedef struct loader_batch {
    int32_t *input;     /* (B,T) */
    int32_t *target;    /* (B,T), -1 where there is nothing to predict (padding) */
    int32_t *pos;       /* (B,T) position in the document, from 0 */
    int32_t *doc_start; /* (B,T) index in the row where the position's document starts */
    int32_t *span; /* (B,T,2) the keys that a position sees, where an objective says so: objective_apply fills it; of
                      pairs the source of the position's target */
    int32_t *source, *source_pos, *source_doc; /* (B,S) of pairs: ids, positions, the pair's number in its row or -1 */
    int64_t labels;                            /* out: targets that are not -1 */
} loader_batch;

typedef struct loader loader;

/* t and what it points to must outlive the loader. [owns: caller] [fails: ARG, NOMEM; LIMIT the text is shorter than
 * one context] [allocates: packed mode only, 16 bytes a document] */
tl_status loader_open(const tl_allocator *a, const tokens *t, const loader_options *o, loader **out, tl_error *e);
void loader_close(loader *l); /* NULL is fine */

/* Rows of an epoch; 0 for LOADER_RANDOM. */
int64_t loader_rows(const loader *l);
/* Batches that cover everything once: ceil(rows / B). */
int64_t loader_steps(const loader *l);
/* Share of the positions of an epoch that carry a target, 0..1. */
double loader_use(const loader *l);
/* Of examples (tokens with marks): those longer than a row, which are cut at its end, and those of them without a
 * target before it, which are left out. */
void loader_cuts(const loader *l, int64_t *cut, int64_t *left_out, int64_t *longest);
/* Ids of a source in a row, 0: it does not give pairs. */
int64_t loader_source(const loader *l);
/* Does it give examples? */
bool loader_examples(const loader *l);
/* Targets of an epoch: all ids of the text. */
int64_t loader_targets(const loader *l);

/* Batch number `step`, from 0. After an epoch the next one follows in another order, without a gap: rows of two epochs
 * may share a batch. [threads: any, on one loader] [allocates: no] */
void loader_get(const loader *l, int64_t step, loader_batch *b);
/* The same for rows first..first+rows of a batch of the whole step: micro-batches and data-parallel ranks. b holds
 * `rows` rows. */
void loader_get_rows(const loader *l, int64_t step, int64_t first, int64_t rows, loader_batch *b);
/* Batch `i` of exactly one epoch in order, 0 <= i < loader_steps: rows beyond the end are all padding. */
void loader_get_once(const loader *l, int64_t i, loader_batch *b);

#endif
