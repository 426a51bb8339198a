/* Training of byte-level BPE in two stages: count distinct pieces (train_count.c), then merge the most frequent pair
 * again and again over the distinct pieces alone (train_merge.c). */
#ifndef TOKENIZER_TRAIN_H
#define TOKENIZER_TRAIN_H

#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/regex.h"
#include "tokenizer/split.h"
#include "tokenizer/tokenizer.h"

/* Distinct pieces and how often each was seen. */
typedef struct train_piece {
    uint64_t off; /* in blob */
    uint32_t len, hash;
    uint64_t count;
} train_piece;

typedef struct train_map {
    const tl_allocator *alloc;
    train_piece *piece;
    size_t n, cap;
    uint32_t *slot; /* index + 1 */
    size_t slots;
    char *blob;
    size_t blob_n, blob_cap;
} train_map;

void train_map_init(train_map *m, const tl_allocator *a);
void train_map_fini(train_map *m);
bool train_map_add(train_map *m, const char *text, size_t n, uint64_t count); /* false: no memory */

/* Learns merges from the pieces into *b and *v, which hold the 256 bytes. limit: entries v may have. */
tl_status train_merge(const train_map *m, const tokenizer_train_options *o, vocab *v, bpe *b, size_t limit,
                      uint64_t *merges, tl_error *e);

#endif
