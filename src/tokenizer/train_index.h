/* What merging works on: the distinct pieces as words of symbols, the pairs of neighbouring symbols with their counts,
 * and for the frequent ones where they occur.
 *
 * Most pairs are rare and never merge. So only pairs seen at least `hot` times have a list of their words; when the
 * queue runs out of those, the bound falls and the lists are made anew, in one packed array, by a pass over the words.
 * All counts stay exact all the time. */
#ifndef TOKENIZER_TRAIN_INDEX_H
#define TOKENIZER_TRAIN_INDEX_H

#include "tokenizer/train.h"

enum { INDEX_CHUNK = 6, INDEX_SEGMENT = 1 << 14, INDEX_NONE = UINT32_MAX };

/* A growing array in segments: no copy while it grows, no slack behind it. */
typedef struct index_pool {
    char **seg;
    size_t segs, seg_cap, n, size;
} index_pool;

typedef struct index_word {
    uint64_t begin, count; /* symbols [begin, begin + len); how often the piece was seen */
    uint32_t len;
} index_word;

typedef struct index_pair {
    uint32_t left, right;
    int64_t count;
    uint32_t list;  /* + 1; 0: cold */
    uint32_t stamp; /* the last step, or word, that touched it */
} index_pair;

typedef struct index_list {
    uint32_t first, first_n; /* where[first .. first + first_n) */
    uint32_t more;           /* chunk of words that came later + 1; of a free list, the next free one */
} index_list;

typedef struct index_chunk {
    uint32_t next, n, word[INDEX_CHUNK];
} index_chunk;

typedef struct train_index {
    const tl_allocator *alloc;
    bool wide;    /* symbols take 32 bits: the vocabulary may pass 65536 */
    void *symbol; /* all words' symbols, 16 or 32 bits each */
    index_word *word;
    size_t words;
    index_pool pair, list, chunk; /* of index_pair, index_list, index_chunk */
    uint32_t free_list, free_chunk;
    uint32_t *slot; /* pair + 1 */
    size_t slots;
    uint32_t *where; /* words of pairs, list by list */
    size_t where_n;
    int64_t hot;
    uint32_t *touched; /* pairs that grew in this step */
    size_t touched_n, touched_cap;
    uint32_t step;
    bool failed;
} train_index;

static inline void *index_at(const index_pool *p, size_t i) {
    return p->seg[i / INDEX_SEGMENT] + i % INDEX_SEGMENT * p->size;
}
static inline index_pair *index_pair_at(const train_index *x, uint32_t i) {
    return index_at(&x->pair, i);
}

/* Takes the pieces over and counts pairs; m is empty afterwards. limit: of ids. */
tl_status index_init(train_index *x, const tl_allocator *a, train_map *m, size_t limit, tl_error *e);
void index_fini(train_index *x);
/* Lists for all pairs seen at least hot times; pairs no longer there are dropped, so all pair numbers change. */
bool index_build(train_index *x, int64_t hot);
int64_t index_highest(const train_index *x); /* the highest count of a pair */
/* Replaces the pair by id wherever it occurs; x->touched has the pairs that came or grew. Cold pairs that the step made
 * hot have no list: *stale. */
void index_merge(train_index *x, uint32_t pair, uint32_t id, bool *stale);

#endif
