/* data: text corpora become documents, documents become token ids, ids become batches; and the story grammar.
 * Owns the shard format and the order in which data is seen. Refuses: models, graphs, devices.
 *
 * This file: views of token ids, ids in memory, and shards (ids in a memory-mapped file). Every document ends with the
 * end-of-document id, where the tokenizer has one. */
#ifndef DATA_TOKENS_H
#define DATA_TOKENS_H

#include "base/file.h"
#include "base/mem.h"
#include "base/str.h"

/* A borrowed run of ids, two or four bytes each. */
typedef struct tokens {
    const void *id;    /* (n) uint16_t or uint32_t */
    int32_t width;     /* 2 or 4 */
    int32_t vocab;     /* ids are in [0, vocab) */
    int32_t eod;       /* end-of-document id, -1: none */
    int64_t n;         /* ids, ends of documents included */
    int64_t documents; /* ends of documents among them; 0 without eod */
    const uint8_t
        *mark; /* (n) TOKENS_ bits, or NULL: text, whose every id is learned and whose documents end with eod */
} tokens;

/* Of examples: documents with parts that are learned (answers) and parts that are only read. */
enum { TOKENS_LEARNED = 1, TOKENS_LAST = 2 /* of its document */ };

static inline int32_t tokens_at(const tokens *t, int64_t i) {
    return t->width == 2 ? (int32_t)((const uint16_t *)t->id)[i] : (int32_t)((const uint32_t *)t->id)[i];
}

static inline bool tokens_ends(const tokens *t, int64_t i) {
    return t->mark ? t->mark[i] & TOKENS_LAST : tokens_at(t, i) == t->eod;
}

/* A part of a view, its documents counted. */
tokens tokens_slice(const tokens *t, int64_t begin, int64_t end);
/* The last `fraction` of the documents to *val, the rest to *train; of the ids where there are fewer than two
 * documents. Both get something. [fails: ARG fraction not in (0,1); LIMIT too little text to divide] */
tl_status tokens_split(const tokens *t, double fraction, tokens *train, tokens *val, tl_error *e);

/* ---- in memory ------------------------------------------------------------------------------- */

typedef struct token_store {
    const tl_allocator *alloc;
    void *id;
    size_t cap;
    tokens view; /* view.id follows id */
} token_store;
/* eod -1: documents are not separated. */
void token_store_init(token_store *s, const tl_allocator *a, int64_t vocab, int32_t eod);
void token_store_fini(token_store *s);
tl_status token_store_add(token_store *s, const int32_t *id, size_t n, tl_error *e); /* part of a document */
tl_status token_store_end(token_store *s, tl_error *e);                              /* its end */

/* ---- shards ---------------------------------------------------------------------------------- */

/* The file: 64 bytes of header, little-endian, then the ids.
 *   0  "TLSHARD\1"          8  u32 version (1)       12  u32 bytes an id (2 or 4)
 *  16  u32 vocabulary       20  i32 end-of-document   24  u64 hash of the tokenizer
 *  32  u64 ids              40  u64 documents         48  u64 XXH3 of the rest    56  u64 XXH3 of bytes 0..56
 * Version 2 has a byte of marks for each id behind them: examples. */
enum { SHARD_HEADER = 64, SHARD_VERSION = 1, SHARD_MARKED = 2 };

typedef struct shard_writer {
    file_writer file;
    struct hash_state *hash;
    tokens count; /* vocab, eod, width, n, documents so far */
    str marks;    /* of examples: they go behind the ids */
    uint64_t tokenizer_hash;
} shard_writer;
tl_status shard_writer_open(shard_writer *w, const tl_allocator *a, const char *path, int64_t vocab, int32_t eod,
                            uint64_t tokenizer_hash, tl_error *e);
tl_status shard_writer_add(shard_writer *w, const int32_t *id, size_t n, tl_error *e);
tl_status shard_writer_end(shard_writer *w, tl_error *e);
/* A whole example: learned[i] is 1 where id i is to be learned. All documents of a file are examples, or none. */
tl_status shard_writer_example(shard_writer *w, const int32_t *id, const char *learned, size_t n, tl_error *e);
/* Durable and at its place, or an error and nothing there. [fails: FORMAT nothing was written; IO, NOSPACE] */
tl_status shard_writer_commit(shard_writer *w, tl_error *e);
void shard_writer_abort(shard_writer *w); /* safe on a closed writer */

typedef struct shard {
    file_map map;
    tokens view;
    uint64_t tokenizer_hash;
} shard;
/* Checks header, size and header checksum; with verify also the checksum of the ids, every id's range, the number of
 * documents and that the last one ends. [fails: IO, NOTFOUND, FORMAT, CHECKSUM] */
tl_status shard_open(const char *path, bool verify, shard *s, tl_error *e);
void shard_close(shard *s);

#endif
