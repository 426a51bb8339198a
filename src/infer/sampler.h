/* Choosing the next token. Random numbers: Philox key (seed, sequence), counter position, so that a sequence does not
 * depend on its neighbours in a batch. */
#ifndef INFER_SAMPLER_H
#define INFER_SAMPLER_H

#include "base/mem.h"

typedef struct sampler_options {
    float temperature;    /* 0: the largest logit, the lowest id among equals */
    int32_t top_k;        /* 0: all */
    float top_p;          /* 0 or 1: all */
    float min_p;          /* 0: all */
    float repeat_penalty; /* 0 or 1: none */
    uint64_t seed, sequence;
} sampler_options;

typedef struct sampler_candidate {
    float logit;
    int32_t id;
} sampler_candidate;

typedef struct sampler {
    sampler_options o;
    sampler_candidate *c; /* (V) */
    uint8_t *seen;        /* (V) scratch of the repetition penalty */
    int64_t vocab;
    const tl_allocator *alloc;
} sampler;

tl_status sampler_init(sampler *s, const tl_allocator *a, const sampler_options *o, int64_t vocab, tl_error *e);
void sampler_fini(sampler *s);
/* logits (V); recent: the tokens that the repetition penalty looks at. Order: penalty (Keskar et al. 2019: positive
 * logits divided, negative multiplied), temperature, top-k, top-p, min-p. logprob: of the chosen token under the
 * untouched logits. NUMERIC if no logit is finite. [allocates: no] */
tl_status sampler_pick(sampler *s, const float *logits, const int32_t *recent, size_t n_recent, uint64_t position,
                       int32_t *id, float *logprob, tl_error *e);

#endif
