#include "tokenizer/train_index.h"
#include <string.h>

/* ---- pools ----------------------------------------------------------------------------------- */

static void pool_clear(const tl_allocator *a, index_pool *p) {
    for (size_t i = 0; i < p->segs; i++) mem_give(a, p->seg[i], INDEX_SEGMENT * p->size);
    mem_free(a, p->seg);
    *p = (index_pool){.size = p->size};
}

/* One element more, not cleared; its number, or INDEX_NONE. */
static uint32_t pool_add(const tl_allocator *a, index_pool *p) {
    if (p->n == p->segs * INDEX_SEGMENT) {
        if (p->n >= INDEX_NONE - INDEX_SEGMENT || !mem_reserve(a, &p->seg, &p->seg_cap, p->segs + 1)) return INDEX_NONE;
        p->seg[p->segs] = mem_take(a, INDEX_SEGMENT * p->size);
        if (!p->seg[p->segs]) return INDEX_NONE;
        p->segs++;
    }
    return (uint32_t)p->n++;
}

/* Gives back what lies behind the first n. */
static void pool_cut(const tl_allocator *a, index_pool *p, size_t n) {
    p->n = n;
    while (p->segs && (p->segs - 1) * INDEX_SEGMENT >= n) mem_give(a, p->seg[--p->segs], INDEX_SEGMENT * p->size);
}

/* ---- pairs ----------------------------------------------------------------------------------- */

static size_t index_hash(const train_index *x, uint32_t l, uint32_t r) {
    return (size_t)(((uint64_t)l << 32 | r) * 0x9e3779b97f4a7c15u >> 32) & (x->slots - 1);
}

/* A table of pairs anew, at most 7/8 full with so many more. */
static bool index_rehash(train_index *x, size_t more) {
    size_t slots = 65536;
    while (8 * (x->pair.n + more) > 7 * slots) slots *= 2;
    mem_free(x->alloc, x->slot);
    x->slots = 0;
    x->slot = mem_new(x->alloc, slots, sizeof *x->slot);
    if (!x->slot) return false;
    x->slots = slots;
    for (size_t i = 0; i < x->pair.n; i++) {
        const index_pair *p = index_at(&x->pair, i);
        size_t k = index_hash(x, p->left, p->right);
        while (x->slot[k]) k = (k + 1) & (slots - 1);
        x->slot[k] = (uint32_t)i + 1;
    }
    return true;
}

/* The pair, made if absent; NULL: no memory. */
static index_pair *index_find(train_index *x, uint32_t l, uint32_t r, uint32_t *number) {
    if (8 * (x->pair.n + 1) > 7 * x->slots && !index_rehash(x, 1)) return NULL;
    size_t k = index_hash(x, l, r);
    for (; x->slot[k]; k = (k + 1) & (x->slots - 1)) {
        index_pair *p = index_pair_at(x, x->slot[k] - 1);
        *number = x->slot[k] - 1;
        if (p->left == l && p->right == r) return p;
    }
    *number = pool_add(x->alloc, &x->pair);
    if (*number == INDEX_NONE) return NULL;
    x->slot[k] = *number + 1;
    index_pair *p = index_pair_at(x, *number);
    *p = (index_pair){.left = l, .right = r};
    return p;
}

/* ---- lists ----------------------------------------------------------------------------------- */

static uint32_t index_new_list(train_index *x) {
    uint32_t k = x->free_list;
    if (k)
        x->free_list = ((index_list *)index_at(&x->list, k - 1))->more;
    else if ((k = pool_add(x->alloc, &x->list)) == INDEX_NONE)
        return 0;
    else
        k++;
    *(index_list *)index_at(&x->list, k - 1) = (index_list){0};
    return k;
}

static void index_drop_chunk(train_index *x, uint32_t k) {
    ((index_chunk *)index_at(&x->chunk, k - 1))->next = x->free_chunk;
    x->free_chunk = k;
}

static void index_drop_list(train_index *x, index_pair *p) {
    if (!p->list) return;
    index_list *l = index_at(&x->list, p->list - 1);
    for (uint32_t k = l->more, next; k; k = next) {
        next = ((index_chunk *)index_at(&x->chunk, k - 1))->next;
        index_drop_chunk(x, k);
    }
    l->more = x->free_list;
    x->free_list = p->list;
    p->list = 0;
}

/* Remembers that word holds the pair of the list. */
static bool index_note(train_index *x, uint32_t list, uint32_t word) {
    index_list *l = index_at(&x->list, list - 1);
    if (l->more) {
        index_chunk *c = index_at(&x->chunk, l->more - 1);
        if (c->word[c->n - 1] == word) return true; /* twice in one word */
        if (c->n < INDEX_CHUNK) {
            c->word[c->n++] = word;
            return true;
        }
    }
    uint32_t k = x->free_chunk;
    if (k)
        x->free_chunk = ((index_chunk *)index_at(&x->chunk, k - 1))->next;
    else if ((k = pool_add(x->alloc, &x->chunk)) == INDEX_NONE)
        return false;
    else
        k++;
    *(index_chunk *)index_at(&x->chunk, k - 1) = (index_chunk){.next = l->more, .n = 1, .word = {word}};
    l->more = k;
    return true;
}

/* ---- words ----------------------------------------------------------------------------------- */

static inline uint32_t index_symbol(const train_index *x, uint64_t i) {
    return x->wide ? ((const uint32_t *)x->symbol)[i] : ((const uint16_t *)x->symbol)[i];
}

static inline void index_set(train_index *x, uint64_t i, uint32_t id) {
    if (x->wide)
        ((uint32_t *)x->symbol)[i] = id;
    else
        ((uint16_t *)x->symbol)[i] = (uint16_t)id;
}

static size_t index_symbol_size(const train_index *x) {
    return x->wide ? sizeof(uint32_t) : sizeof(uint16_t);
}

/* Words without neighbours need no more attention; the others close up. */
static void index_close_up(train_index *x) {
    uint64_t at = 0;
    size_t kept = 0, size = index_symbol_size(x);
    for (size_t i = 0; i < x->words; i++) {
        index_word w = x->word[i];
        if (w.len < 2) continue;
        memmove((char *)x->symbol + at * size, (char *)x->symbol + w.begin * size, w.len * size);
        w.begin = at;
        at += w.len;
        x->word[kept++] = w;
    }
    x->words = kept;
}

static bool index_words(train_index *x, train_map *m) {
    train_piece p;
    uint64_t at = 0, next = 0;
    train_map_seal(m);
    if (m->n >= INDEX_NONE) return false;
    x->symbol = mem_new(x->alloc, (size_t)m->bytes, index_symbol_size(x));
    x->word = mem_new(x->alloc, m->n, sizeof *x->word);
    if (!x->symbol || !x->word) return false;
    while (train_map_next(m, &next, &p)) {
        x->word[x->words++] = (index_word){at, p.count, (uint32_t)p.n};
        for (size_t i = 0; i < p.n; i++) index_set(x, at++, (uint8_t)p.text[i]);
    }
    train_map_fini(m);
    return true;
}

static bool index_count(train_index *x) {
    for (size_t i = 0; i < x->words; i++) {
        const index_word *w = &x->word[i];
        for (uint32_t k = 0; k + 1 < w->len; k++) {
            uint32_t number;
            index_pair *p = index_find(x, index_symbol(x, w->begin + k), index_symbol(x, w->begin + k + 1), &number);
            if (!p) return false;
            p->count += (int64_t)w->count;
        }
    }
    return true;
}

tl_status index_init(train_index *x, const tl_allocator *a, train_map *m, size_t limit, tl_error *e) {
    memset(x, 0, sizeof *x);
    x->alloc = a;
    x->wide = limit > UINT16_MAX + 1;
    x->pair.size = sizeof(index_pair);
    x->list.size = sizeof(index_list);
    x->chunk.size = sizeof(index_chunk);
    return index_words(x, m) && index_count(x) ? TL_OK : error_set(e, TL_NOMEM, "no memory for merges");
}

void index_fini(train_index *x) {
    mem_free(x->alloc, x->symbol);
    mem_free(x->alloc, x->word);
    pool_clear(x->alloc, &x->pair);
    pool_clear(x->alloc, &x->list);
    pool_clear(x->alloc, &x->chunk);
    mem_free(x->alloc, x->slot);
    mem_give(x->alloc, x->where, x->where_n * sizeof *x->where);
    mem_free(x->alloc, x->touched);
}

/* ---- building -------------------------------------------------------------------------------- */

int64_t index_highest(const train_index *x) {
    int64_t most = 0;
    for (size_t i = 0; i < x->pair.n; i++) {
        const index_pair *p = index_at(&x->pair, i);
        if (p->count > most) most = p->count;
    }
    return most;
}

/* Pairs that occur, at the front and with a list each if hot. */
static bool index_sift(train_index *x) {
    size_t kept = 0;
    for (size_t i = 0; i < x->pair.n; i++) {
        index_pair p = *(index_pair *)index_at(&x->pair, i);
        if (p.count <= 0) continue;
        p.stamp = p.list = 0;
        if (p.count >= x->hot && !(p.list = index_new_list(x))) return false;
        *(index_pair *)index_at(&x->pair, kept++) = p;
    }
    pool_cut(x->alloc, &x->pair, kept);
    return index_rehash(x, 0);
}

/* Either counts the words of each hot pair (where NULL) or writes them down. */
static void index_list_words(train_index *x, uint32_t *where) {
    for (size_t i = 0; i < x->words; i++) {
        const index_word *w = &x->word[i];
        for (uint32_t k = 0; k + 1 < w->len; k++) {
            uint32_t number;
            index_pair *p = index_find(x, index_symbol(x, w->begin + k), index_symbol(x, w->begin + k + 1), &number);
            if (!p || !p->list || p->stamp == (uint32_t)i + 1) continue; /* all pairs are there: none is made */
            p->stamp = (uint32_t)i + 1;
            index_list *l = index_at(&x->list, p->list - 1);
            if (where) where[l->first + l->first_n] = (uint32_t)i;
            l->first_n++;
        }
    }
    for (size_t i = 0; i < x->pair.n; i++) ((index_pair *)index_at(&x->pair, i))->stamp = 0;
}

bool index_build(train_index *x, int64_t hot) {
    pool_cut(x->alloc, &x->list, 0);
    pool_cut(x->alloc, &x->chunk, 0);
    mem_give(x->alloc, x->where, x->where_n * sizeof *x->where);
    x->where = NULL;
    x->where_n = x->free_list = x->free_chunk = 0;
    x->hot = hot;
    x->step = 0;
    index_close_up(x);
    if (!index_sift(x)) return false;
    index_list_words(x, NULL);
    uint64_t total = 0;
    for (size_t i = 0; i < x->list.n; i++) {
        index_list *l = index_at(&x->list, i);
        l->first = (uint32_t)total;
        total += l->first_n;
        l->first_n = 0;
        if (total >= INDEX_NONE) return false;
    }
    x->where = mem_take(x->alloc, (total ? total : 1) * sizeof *x->where);
    if (!x->where) return false;
    x->where_n = total ? total : 1;
    index_list_words(x, x->where);
    return true;
}

/* ---- one step -------------------------------------------------------------------------------- */

static void index_less(train_index *x, uint32_t l, uint32_t r, uint64_t n) {
    uint32_t number;
    index_pair *p = index_find(x, l, r, &number);
    if (p)
        p->count -= (int64_t)n;
    else
        x->failed = true;
}

static void index_more(train_index *x, uint32_t l, uint32_t r, uint64_t n, uint32_t word) {
    uint32_t number;
    index_pair *p = index_find(x, l, r, &number);
    /* a pair that occurs nowhere yet gets a list to begin with: only at the end of the step is it known if it is hot */
    if (p && !p->list && p->count == 0) p->list = index_new_list(x);
    if (!p || (p->count == 0 && !p->list) || (p->list && !index_note(x, p->list, word))) {
        x->failed = true;
        return;
    }
    p->count += (int64_t)n;
    if (p->stamp == x->step) return;
    p->stamp = x->step;
    if (!mem_reserve(x->alloc, &x->touched, &x->touched_cap, x->touched_n + 1))
        x->failed = true;
    else
        x->touched[x->touched_n++] = number;
}

/* Replaces left right by id in one word and keeps the counts of the pairs around. */
static void index_merge_word(train_index *x, uint32_t word, uint32_t left, uint32_t right, uint32_t id) {
    index_word *w = &x->word[word];
    uint64_t b = w->begin;
    uint32_t n = w->len, out = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t s = index_symbol(x, b + i);
        if (i + 1 == n || s != left || index_symbol(x, b + i + 1) != right) {
            index_set(x, b + out++, s);
            continue;
        }
        if (out) {
            uint32_t before = index_symbol(x, b + out - 1);
            index_less(x, before, left, w->count);
            index_more(x, before, id, w->count, word);
        }
        if (i + 2 < n) {
            uint32_t behind = index_symbol(x, b + i + 2);
            index_less(x, right, behind, w->count);
            index_more(x, id, behind, w->count, word);
        }
        index_set(x, b + out++, id);
        i++;
    }
    w->len = out;
}

void index_merge(train_index *x, uint32_t pair, uint32_t id, bool *stale) {
    index_pair p = *index_pair_at(x, pair);
    index_list l = *(index_list *)index_at(&x->list, p.list - 1);
    x->step++;
    x->touched_n = 0;
    for (size_t i = 0; i < l.first_n && !x->failed; i++)
        index_merge_word(x, x->where[l.first + i], p.left, p.right, id);
    for (uint32_t k = l.more; k && !x->failed;) {
        index_chunk c = *(index_chunk *)index_at(&x->chunk, k - 1); /* a copy: free ones are used again meanwhile */
        for (uint32_t i = 0; i < c.n; i++) index_merge_word(x, c.word[i], p.left, p.right, id);
        k = c.next;
    }
    index_pair *done = index_pair_at(x, pair);
    index_drop_list(x, done);
    done->count = 0;
    for (size_t i = 0; i < x->touched_n; i++) {
        index_pair *t = index_pair_at(x, x->touched[i]);
        if (t->count < x->hot)
            index_drop_list(x, t);
        else if (!t->list)
            *stale = true;
    }
}
