/* data/objective: what a batch asks to be predicted. The loader gives every token as the target of the place before it;
 * here that becomes what an objective wants. Random numbers depend on (seed, step, place) alone. */
#ifndef DATA_OBJECTIVE_H
#define DATA_OBJECTIVE_H

#include <stdbool.h>
#include <stdint.h>

struct loader_batch;

/* causal: the next token. mlm: hidden tokens of the text itself (Devlin et al. 2018). prefix: the next token behind a
 * prompt whose tokens all see each other (Dong et al. 2019, UniLM). seq2seq: a target from its source, by a decoder
 * that looks at what an encoder made of it. */
enum { OBJECTIVE_CAUSAL, OBJECTIVE_MLM, OBJECTIVE_PREFIX, OBJECTIVE_SEQ2SEQ, OBJECTIVES };
extern const char *const objective_names[]; /* NULL behind the last */

typedef struct objective_rule {
    int kind;
    int32_t mask;  /* id of a hidden token */
    int32_t vocab; /* replacements are below it, and not the mask */
    int32_t keep;  /* an id that is never hidden (the end of a document), or -1 */
    uint64_t seed;
    bool examples; /* prompts with answers: the targets that are there tell where a prompt ends */
} objective_rule;

/* Rewrites rows [0, rows) of T tokens in place and recounts b->labels. mlm: the place of token i holds it itself; 15 %
 * are to be predicted, of which 80 % show the mask, 10 % another token, 10 % themselves. row0: the first row's number
 * in the step, so that parts of a step are as the whole. prefix: of n tokens of a document in a row the first p are its
 * prompt, p uniform in 1 .. n, or of examples what stands before the first answer; nothing within it is a target, and
 * b->span says what each place sees. [allocates: no] */
void objective_apply(const objective_rule *o, struct loader_batch *b, int64_t rows, int64_t T, uint64_t step,
                     int64_t row0);

/* Numbers that a batch of `rows` rows has for this objective: input, target, pos, doc_start of T places; with prefix
 * and seq2seq a span of each; with seq2seq source, source_pos, source_doc of S places. */
int64_t objective_numbers(int kind, int64_t rows, int64_t T, int64_t S);
/* b's arrays one behind the other in a block of so many. */
void objective_lay(int kind, int64_t rows, int64_t T, int64_t S, int32_t *block, struct loader_batch *b);
/* span (rows, T, 2) of places that see their document up to themselves. doc_start (rows, T), NULL: rows are documents.
 */
void objective_causal_span(const int32_t *doc_start, int64_t rows, int64_t T, int32_t *span);

#endif
