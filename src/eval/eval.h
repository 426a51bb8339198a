/* eval: how good a model is. Loss, perplexity and bits per byte of a text, every token counted exactly once. Owns its
 * evaluation plan; refuses gradients (train/), files of text (data/, cli/). */
#ifndef EVAL_EVAL_H
#define EVAL_EVAL_H

#include "data/loader.h"
#include "model/model.h"

typedef struct eval_options {
    int64_t rows;    /* sequences at a time; 0: as many as make about 4096 tokens */
    int64_t context; /* tokens a sequence; 0: the model's */
    int64_t segment; /* of a sequence computed at a time, as in training: model/segments.h; 0: all */
    tl_dtype dtype;  /* F32 (or NONE) or BF16 */
    bool packed;     /* whole documents packed into rows, each seeing itself alone; else windows over the whole text */
    int64_t stride;  /* windows: how far the next one begins behind the one before, 1..context; its first context -
                        stride  tokens are read and not counted again. 0: the context, each window begins anew */
    double *by_position;  /* (context) nats are added here too, by the token's place in its row; NULL: not wanted */
    int64_t *at_position; /* (context) tokens added there */
} eval_options;

typedef struct eval_result {
    double nats;    /* sum over all tokens */
    double loss;    /* nats per token */
    int64_t tokens; /* counted */
    int64_t bytes;  /* of text that the counted tokens stand for; 0: unknown (no tokenizer) */
} eval_result;

typedef struct evaluator evaluator;

/* m and its weights must outlive it; they may change between runs. [owns: caller] [fails: ARG, CONFIG, NOMEM] */
tl_status evaluator_open(tl_model *m, const eval_options *o, evaluator **out, tl_error *err);
void evaluator_close(evaluator *e); /* NULL is fine */
/* All of t, in order, once. Its sum is taken in double in the order of the text: the same bits for any number of
 * threads. A loss that is not finite is NUMERIC. cancel (may be NULL) is asked between batches; true: CANCELLED. */
tl_status evaluator_run(evaluator *e, const tokens *t, eval_result *out, bool (*cancel)(void *user), void *user,
                        tl_error *err);
/* Bytes that an evaluator holds beside the weights. */
size_t evaluator_bytes(const evaluator *e);

/* exp(loss); nats over bytes in bits, 0 if bytes are unknown. */
double eval_perplexity(const eval_result *r);
double eval_bits_per_byte(const eval_result *r);

/* A text as one document: encoded, its end added. For short texts and for the public face. */
tl_status eval_text(tl_model *m, const eval_options *o, const char *text, size_t n, eval_result *out, tl_error *err);

#endif
