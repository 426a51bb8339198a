/* bpe: byte-pair encoding with learnt merges. The pair with the lowest rank merges first, the leftmost of equals,
 * until none is left: a linear scan for short pieces, a heap over a linked list for long ones. */
#ifndef TOKENIZER_BPE_H
#define TOKENIZER_BPE_H

#include "tokenizer/vocab.h"

enum { BPE_MAX_MERGES = (1 << 22) - 1, BPE_SHORT = 120 }; /* symbols up to which the scan wins; at most 128 */
enum { BPE_FILTER_BITS = 20 };
#define BPE_NONE UINT32_MAX

typedef struct bpe_merge {
    int32_t left, right, id;
} bpe_merge;

/* Symbols are vocabulary ids, or, from `outside` up, characters that are parts of tokens but no tokens themselves. */
typedef struct bpe {
    const tl_allocator *alloc;
    bpe_merge *merge; /* (n) by rank */
    size_t n, cap;
    int32_t *made;  /* (n) the ids alone: merging reads nothing else of them */
    uint64_t *slot; /* open addressing: left 21 bits, right 21, rank 22; all ones: empty */
    size_t slots;
    unsigned shift;
    uint64_t *filter;     /* a bit for each hash that occurs: most pairs do not merge, and end here, in near memory */
    int32_t byte_id[256]; /* byte-level: the symbol of a byte, -1: none */
    int32_t hex_id[256];  /* byte fallback: <0xNN> */
    uint32_t *byte_pair;  /* (65536) rank of two bytes' merge; NULL unless byte-level */
    int32_t outside;
    vocab beyond; /* those characters: index + outside */
    bool ignore_merges, fuse_unk, byte_fallback, byte_level;
    char *prefix, *suffix; /* continuing_subword_prefix, end_of_word_suffix; NULL: none */
    int32_t unk;
    double dropout;
} bpe;

typedef struct bpe_scratch { /* of one thread */
    const tl_allocator *alloc;
    int32_t *id;
    uint32_t *rank, *prev, *next;
    uint64_t *heap;
    size_t cap, heap_cap;
    char *buf;
    size_t buf_cap;
} bpe_scratch;

bpe *bpe_new(const tl_allocator *a);
void bpe_free(bpe *b);
/* Appends a merge, its rank the number of merges before it; a pair given twice has the later rank, as in
 * the ecosystem. */
tl_status bpe_put(bpe *b, int32_t left, int32_t right, int32_t id, tl_error *e);
/* Fills byte_id and byte_pair (byte-level) or hex_id from the vocabulary, once all merges are in. */
tl_status bpe_ready(bpe *b, const vocab *v, tl_error *e);
/* Merges of a vocabulary known only by order: for each token of order[0..n), best first, the one split that the
 * process itself arrives at. chars: units are characters, not bytes. */
tl_status bpe_derive(bpe *b, const vocab *v, const int32_t *order, size_t n, bool chars, tl_error *e);

static inline uint32_t bpe_rank(const bpe *b, int32_t left, int32_t right) {
    uint64_t key = (uint64_t)(uint32_t)left << 21 | (uint32_t)right;
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    if (!(b->filter[h >> (64 - BPE_FILTER_BITS + 6)] >> (h >> (64 - BPE_FILTER_BITS) & 63) & 1)) return BPE_NONE;
    size_t i = (size_t)(h >> b->shift), mask = b->slots - 1;
    for (;; i = (i + 1) & mask) {
        uint64_t s = b->slot[i];
        if (s >> 22 == key) return (uint32_t)(s & ((1u << 22) - 1));
        if (s == UINT64_MAX) return BPE_NONE;
    }
}

/* Merges symbols id[0..n) in place; returns how many are left. 1 < n <= BPE_SHORT. bytes: those the symbols stand for
 * one by one, or NULL. */
size_t bpe_merge_short(const bpe *b, int32_t *id, size_t n, const uint8_t *bytes);
tl_status bpe_merge_long(const bpe *b, bpe_scratch *s, int32_t *id, size_t *n, tl_error *e);

/* The ids of one piece into s->id; *n: how many. Byte-level or by characters, as the model says. */
tl_status bpe_piece(const bpe *b, const vocab *v, bpe_scratch *s, const uint8_t *p, size_t len, size_t *n, tl_error *e);
bool bpe_scratch_room(bpe_scratch *s, size_t n); /* what was in it is lost if it grows */
void bpe_scratch_fini(bpe_scratch *s);

#endif
