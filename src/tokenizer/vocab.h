/* A vocabulary: id to bytes and bytes to id. Ids may have holes. */
#ifndef TOKENIZER_VOCAB_H
#define TOKENIZER_VOCAB_H

#include "base/mem.h"

enum { VOCAB_MAX_IDS = 1 << 21 }; /* pairs of ids and a rank share 64 bits in the merge table */

enum {
    VOCAB_PRESENT = 1, /* no hole */
    VOCAB_ADDED = 2,   /* from added_tokens */
    VOCAB_SPECIAL = 4, /* control token: never from plain text unless asked for */
    VOCAB_LITERAL = 8, /* byte-level vocabulary, but the entry is not written in its alphabet: kept as it is */
    VOCAB_BYTE = 16,   /* <0xNN>: text is the one byte */
    VOCAB_HIDDEN = 32, /* not to be found by bytes (added tokens that are no model entries) */
};

typedef struct vocab_entry {
    uint32_t off, len, flags;
} vocab_entry;

typedef struct vocab {
    const tl_allocator *alloc;
    vocab_entry *entry; /* (n) by id */
    size_t n, entry_cap;
    char *blob;
    size_t blob_n, blob_cap;
    uint32_t *slot; /* (slots), id + 1 or 0 */
    size_t slots, used;
} vocab;

void vocab_init(vocab *v, const tl_allocator *a);
void vocab_fini(vocab *v);
/* Sets id's bytes. LIMIT: id or bytes out of range; FORMAT: id is there already or the bytes are (unless hidden). */
tl_status vocab_put(vocab *v, int64_t id, const char *text, size_t n, unsigned flags, tl_error *e);
/* Gives id, there or not, other bytes and flags, and takes it out of the search by bytes. */
tl_status vocab_replace(vocab *v, int64_t id, const char *text, size_t n, unsigned flags, tl_error *e);
/* Builds the search anew, without the hidden entries: after flags were changed. */
tl_status vocab_reindex(vocab *v, tl_error *e);
int32_t vocab_find(const vocab *v, const char *text, size_t n); /* -1: none */
static inline const char *vocab_text(const vocab *v, int32_t id, size_t *n) {
    if (id < 0 || (size_t)id >= v->n || !(v->entry[id].flags & VOCAB_PRESENT)) {
        *n = 0;
        return NULL;
    }
    *n = v->entry[id].len;
    return v->blob + v->entry[id].off;
}

#endif
