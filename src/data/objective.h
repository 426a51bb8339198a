/* data/objective: what a batch asks to be predicted. The loader gives every token as the target of the place before it;
 * here that becomes what an objective wants. Random numbers depend on (seed, step, place) alone. */
#ifndef DATA_OBJECTIVE_H
#define DATA_OBJECTIVE_H

#include <stdint.h>

struct loader_batch;

/* causal: the next token. mlm: hidden tokens of the text itself (Devlin et al. 2018). */
enum { OBJECTIVE_CAUSAL, OBJECTIVE_MLM, OBJECTIVES };
extern const char *const objective_names[]; /* NULL behind the last */

typedef struct objective_rule {
    int kind;
    int32_t mask;  /* id of a hidden token */
    int32_t vocab; /* replacements are below it, and not the mask */
    int32_t keep;  /* an id that is never hidden (the end of a document), or -1 */
    uint64_t seed;
} objective_rule;

/* Rewrites rows [0, rows) of T tokens in place and recounts b->labels. mlm: the place of token i holds it itself; 15 %
 * are to be predicted, of which 80 % show the mask, 10 % another token, 10 % themselves. row0: the first row's number
 * in the step, so that parts of a step are as the whole. [allocates: no] */
void objective_apply(const objective_rule *o, struct loader_batch *b, int64_t rows, int64_t T, uint64_t step,
                     int64_t row0);

#endif
