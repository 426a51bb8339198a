/* Training of byte-level BPE in two stages: count distinct pieces (train_count.c into train_map.c), then merge the most
 * frequent pair again and again over the distinct pieces alone (train_merge.c over train_index.c). Memory is that of
 * the distinct pieces, kept as small as it goes: a corpus that fits no machine has pieces that fit many. */
#ifndef TOKENIZER_TRAIN_H
#define TOKENIZER_TRAIN_H

#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/regex.h"
#include "tokenizer/split.h"
#include "tokenizer/tokenizer.h"

/* Distinct pieces and how often each was seen: records one behind the other in segments of a megabyte, so that growing
 * copies nothing and leaves no slack, and a table of where they are. */
typedef struct train_map {
    const tl_allocator *alloc;
    char **seg; /* (segs) the k-th megabyte; a record longer than that has several in one block, NULL but the first */
    size_t segs, seg_cap;
    uint64_t used;  /* in units of 8 bytes, from the first segment on */
    uint32_t *slot; /* (slots) unit of the record + 1 */
    size_t slots, n;
    uint64_t bytes, pieces; /* of distinct ones, and of all: how many were seen */
} train_map;

typedef struct train_piece {
    const char *text;
    size_t n;
    uint64_t count;
} train_piece;

void train_map_init(train_map *m, const tl_allocator *a);
void train_map_fini(train_map *m);
bool train_map_add(train_map *m, const char *text, size_t n, uint64_t count); /* false: no memory */
void train_map_seal(train_map *m); /* gives the table back: nothing can be added any more */
/* The record at *at, which begins as 0 and moves on; false: no more. */
bool train_map_next(const train_map *m, uint64_t *at, train_piece *p);

/* Learns merges from the pieces into *b and *v, which hold the 256 bytes; the pieces are given back as soon as they are
 * read. limit: entries v may have. */
tl_status train_merge(train_map *m, const tokenizer_train_options *o, vocab *v, bpe *b, size_t limit, uint64_t *merges,
                      tl_error *e);

#endif
