/* Ids of short pieces seen before: direct-mapped, a cache line each. Frequent words stay, rare ones come and go;
 * what it answers is what the model would. */
#ifndef TOKENIZER_PIECE_CACHE_H
#define TOKENIZER_PIECE_CACHE_H

#include "base/mem.h"
#include <string.h>

enum { PIECE_CACHE_KEY = 15, PIECE_CACHE_IDS = 11, PIECE_CACHE_BITS = 16 };

typedef struct piece_key {
    uint64_t low, high; /* the bytes, zeros behind, the length in the last */
} piece_key;

typedef struct piece_entry {
    piece_key key; /* length 0: empty */
    int32_t id[PIECE_CACHE_IDS];
    uint32_t n;
} piece_entry;

typedef struct piece_cache {
    piece_entry entry[1 << PIECE_CACHE_BITS];
} piece_cache;

static inline piece_cache *piece_cache_new(const tl_allocator *a) {
    return mem_new(a, 1, sizeof(piece_cache));
}

static inline void piece_cache_free(const tl_allocator *a, piece_cache *c) {
    mem_free(a, c);
}

/* wide: 16 bytes may be read at p. */
static inline piece_key piece_key_of(const uint8_t *p, size_t len, bool wide) {
    piece_key k = {0, 0};
    if (wide) {
        memcpy(&k, p, 16);
        if (len < 8) {
            k.low &= ((uint64_t)1 << (8 * len)) - 1;
            k.high = 0;
        } else {
            k.high &= ((uint64_t)1 << (8 * (len - 8))) - 1;
        }
    } else {
        memcpy(&k, p, len);
    }
    k.high |= (uint64_t)len << 56;
    return k;
}

static inline piece_entry *piece_cache_at(const piece_cache *c, piece_key k) {
    uint64_t h = (k.low ^ k.high * 0xff51afd7ed558ccdu) * 0x9e3779b97f4a7c15u;
    return (piece_entry *)(uintptr_t)&c->entry[(h ^ h >> 29) * 0xc4ceb9fe1a85ec53u >> (64 - PIECE_CACHE_BITS)];
}

static inline bool piece_entry_is(const piece_entry *x, piece_key k) {
    return x->key.low == k.low && x->key.high == k.high;
}

static inline void piece_entry_set(piece_entry *x, piece_key k, const int32_t *id, size_t n) {
    x->key = k;
    if (n) memcpy(x->id, id, n * sizeof *id);
    x->n = (uint32_t)n;
}

#endif
