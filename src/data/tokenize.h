/* data/tokenize: documents to ids, into memory or into shards, with a part of them held out. */
#ifndef DATA_TOKENIZE_H
#define DATA_TOKENIZE_H

#include "data/corpus.h"
#include "data/story.h"
#include "data/tokens.h"
#include "tokenizer/tokenizer.h"

/* Where ids go. */
typedef struct token_sink {
    tl_status (*add)(void *user, const int32_t *id, size_t n, tl_error *e);
    tl_status (*end)(void *user, tl_error *e);
    void *user;
} token_sink;
token_sink token_sink_store(token_store *s);
token_sink token_sink_shard(shard_writer *w);

typedef struct tokenize_options {
    size_t threads;
    double held;   /* share of the documents that goes to the second sink, chosen by their number; 0: none */
    uint64_t seed; /* of that choice */
    /* Called after every part with documents and bytes so far; may be NULL. False cancels. */
    bool (*progress)(void *user, int64_t documents, int64_t bytes);
    void *user;
} tokenize_options;

/* Every document of c to `train`, or to `val` where the choice falls on it (val may be NULL if held is 0). Special
 * tokens written in the text stay text. The choice depends on (seed, document number) alone.
 * [fails: what corpus_next, tokenizer and sinks fail with; CANCELLED] */
tl_status tokenize_corpus(const tl_allocator *a, corpus *c, const tokenizer *t, const tokenize_options *o,
                          const token_sink *train, const token_sink *val, tl_error *e);
/* One text as one document. */
tl_status tokenize_text(const tl_allocator *a, const char *text, size_t n, const tokenizer *t, const token_sink *sink,
                        tl_error *e);
/* Stories number first..first+count of a seed, each a document. *nats (may be NULL) gets the sum of their exact -log p:
 * divided by the ids written it is the floor of the loss, whatever the tokenizer. */
tl_status tokenize_stories(const tl_allocator *a, story_lang lang, uint64_t seed, uint64_t first, uint64_t count,
                           const tokenizer *t, const token_sink *sink, double *nats, tl_error *e);

#endif
