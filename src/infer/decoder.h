/* infer: generation. The decoder runs tokens of several sequences over one cache by plans in row buckets; the sampler
 * picks the next id; the session turns text into text. Knows models and tokenizers, no HTTP, no command line. */
#ifndef INFER_DECODER_H
#define INFER_DECODER_H

#include "model/model.h"

enum { DECODER_BUCKETS = BUILD_BUCKETS + 16 }; /* beyond build's: whole prompts, each twice the one before */

typedef struct decoder_plan {
    int64_t rows;
    tl_plan *plan;
    build_result build; /* handles live in the graph */
    tl_graph *graph;
} decoder_plan;

/* A cache of keys and values for `slots` sequences of at most `capacity` positions, and the plans that work on it.
 * Plans are made when a bucket is first needed and share the cache and the input buffers. */
typedef struct decoder {
    tl_model *model;
    device *dev;
    int64_t slots, capacity, limit; /* limit: positions beyond the capacity that a state of fixed size allows */
    tl_dtype cache_dtype, dtype;
    void *cache;                        /* the device's: what build_state says of every layer, one after the other */
    size_t cache_bytes;                 /* all of it */
    int64_t most;                       /* rows of the largest bucket */
    device_twin in;                     /* what a run reads, laid out for the plan at hand: */
    int32_t *ids, *pos, *slot, *select; /* of its rows */
    int32_t *ends;                      /* where a prompt sees both ways: how far each row sees; else NULL */
    int32_t *prefix;          /* (slots) then: tokens of a sequence's prompt, 0 at first. The caller's to set */
    double *freq;             /* in freqs, the host's */
    device_twin freqs, small; /* small: slopes, then the sinusoid */
    device_twin logits;       /* of a device with memory of its own */
    uint64_t sent;            /* until then `in` is being read */
    int32_t *cross;           /* beside an encoder: tokens of each row's source, and those of every slot; else */
    int32_t *source;          /* NULL */
    decoder_plan plan[DECODER_BUCKETS], encode[DECODER_BUCKETS]; /* encode: the encoder's */
} decoder;

/* [allocates: the cache at once, plans when first needed] [fails: NOMEM, CONFIG] */
tl_status decoder_init(decoder *d, tl_model *m, int64_t slots, int64_t capacity, tl_dtype dtype, tl_dtype cache_dtype,
                       tl_error *err);
void decoder_fini(decoder *d);

/* Bytes of cache for one token of one sequence. */
size_t decoder_cache_per_token(const model_config *c, tl_dtype cache_dtype);

/* Computes n tokens: token i is ids[i] at position pos[i] of sequence slot[i], written into the cache. Positions of a
 * slot must come in order. Logits (n_select, V) f32 of rows select[] land in *logits, which stays valid until the next
 * call; n_select at most min(slots, n). More tokens than the largest bucket are split. Of a sequence with a prefix the
 * first so many tokens see each other, so they come in one call. */
tl_status decoder_run(decoder *d, int64_t n, const int32_t *ids, const int32_t *pos, const int32_t *slot,
                      int64_t n_select, const int32_t *select, const float **logits, tl_error *err);

/* Can a cache of this model forget its oldest positions? [fails: UNSUPPORTED with the reason] */
tl_status decoder_can_shift(const model_config *c, tl_error *err);
/* Of a slot that holds `length` positions forgets `drop` of them behind the first `keep`. Later ones move down, and
 * their keys turn to the new positions: what is kept counts its positions within the cache. Logits given out before
 * stay. */
tl_status decoder_shift(decoder *d, int64_t slot, int64_t keep, int64_t drop, int64_t length, tl_error *err);

/* Of a model with an encoder: reads a sequence's source, n ids, and keeps what its tokens will look at. Without it a
 * sequence has an empty source. [fails: LIMIT, ARG] */
tl_status decoder_encode(decoder *d, int64_t slot, int64_t n, const int32_t *ids, tl_error *err);

/* For shift.c: the options that tell the cache's layout; bytes of one state in it. */
build_options decoder_options(const decoder *d);
size_t decoder_state_bytes(const tl_desc *d);

#endif
