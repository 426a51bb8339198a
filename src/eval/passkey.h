/* eval/passkey: does a model still find a number that was hidden in a long text? A text of the wanted length says the
 * number once at the wanted depth, among sentences that say nothing, and ends by asking for it (the idea is that of
 * Mohtashami and Jaggi 2023; the sentences are ours). */
#ifndef EVAL_PASSKEY_H
#define EVAL_PASSKEY_H

#include "infer/session.h"

typedef struct passkey_options {
    const int64_t *length; /* tokens of the whole text, at most; ascending or not */
    size_t lengths;
    const double *depth; /* where the number stands: 0 first, 1 last */
    size_t depths;
    int64_t trials; /* numbers tried for each */
    uint64_t seed;
    tl_dtype cache_dtype;
} passkey_options;

typedef struct passkey_cell {
    int64_t length, tokens; /* asked for; of the texts, the mean of the trials */
    double depth;
    double found;   /* share of the trials in which the likeliest text is the number */
    double logprob; /* of a token of the number, nats, mean */
} passkey_cell;

/* Fills cell[i * depths + k] for length i and depth k. told (may be NULL) hears of every cell; false ends it:
 * CANCELLED. [fails: STATE no tokenizer; ARG a length too short for question and number; NOMEM] */
tl_status passkey_run(tl_model *m, const passkey_options *o, passkey_cell *cell,
                      bool (*told)(void *user, const passkey_cell *c), void *user, tl_error *err);

#endif
