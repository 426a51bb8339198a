#include "tokenizer/train.h"
#include <string.h>

enum { MERGE_CHUNK = 6, MERGE_NONE = 0 };

typedef struct merge_pair {
    int32_t left, right;
    int64_t count;
    uint32_t first, first_n; /* words it was in at the beginning: where[first .. first + first_n) */
    uint32_t more;           /* chunk of words that came later, + 1 */
    uint32_t stamp;          /* the step that touched it last */
} merge_pair;

typedef struct merge_chunk {
    uint32_t next, n, word[MERGE_CHUNK];
} merge_chunk;

typedef struct merge_entry { /* of the queue; stale when count is not the pair's any more */
    int64_t count;
    uint32_t pair;
} merge_entry;

typedef struct merge_state {
    const tl_allocator *alloc;
    const train_map *m;
    vocab *v;
    int32_t *symbol; /* all words' symbols; word i: [begin[i], begin[i] + len[i]) */
    uint64_t *begin;
    uint32_t *len, *where;
    merge_pair *pair;
    size_t pairs, pair_cap;
    uint32_t *slot; /* pair + 1 */
    size_t slots;
    merge_chunk *chunk;
    size_t chunks, chunk_cap;
    uint32_t free_chunk;
    merge_entry *heap;
    size_t heap_n, heap_cap;
    uint32_t *touched; /* pairs that grew in this step */
    size_t touched_n, touched_cap;
    uint32_t step;
    bool failed;
} merge_state;

/* ---- pairs ----------------------------------------------------------------------------------- */

static size_t merge_hash(const merge_state *s, int32_t l, int32_t r) {
    uint64_t h = ((uint64_t)(uint32_t)l << 32 | (uint32_t)r) * 0x9e3779b97f4a7c15u;
    return (size_t)(h >> 32) & (s->slots - 1);
}

static bool merge_grow(merge_state *s) {
    size_t slots = s->slots ? 2 * s->slots : 65536;
    uint32_t *slot = mem_new(s->alloc, slots, sizeof *slot);
    if (!slot) return false;
    mem_free(s->alloc, s->slot);
    s->slot = slot;
    s->slots = slots;
    for (size_t i = 0; i < s->pairs; i++) {
        size_t k = merge_hash(s, s->pair[i].left, s->pair[i].right);
        while (slot[k]) k = (k + 1) & (slots - 1);
        slot[k] = (uint32_t)i + 1;
    }
    return true;
}

/* The pair's index, made if absent; UINT32_MAX: no memory. */
static uint32_t merge_find(merge_state *s, int32_t l, int32_t r) {
    if (2 * (s->pairs + 1) > s->slots && !merge_grow(s)) return UINT32_MAX;
    size_t k = merge_hash(s, l, r);
    for (; s->slot[k]; k = (k + 1) & (s->slots - 1)) {
        const merge_pair *p = &s->pair[s->slot[k] - 1];
        if (p->left == l && p->right == r) return s->slot[k] - 1;
    }
    if (s->pairs >= UINT32_MAX - 1 || !mem_reserve(s->alloc, &s->pair, &s->pair_cap, s->pairs + 1)) return UINT32_MAX;
    s->pair[s->pairs] = (merge_pair){.left = l, .right = r};
    s->slot[k] = (uint32_t)s->pairs + 1;
    return (uint32_t)s->pairs++;
}

/* Remembers that word holds the pair. */
static bool merge_note(merge_state *s, uint32_t pair, uint32_t word) {
    merge_pair *p = &s->pair[pair];
    if (p->more) {
        merge_chunk *c = &s->chunk[p->more - 1];
        if (c->word[c->n - 1] == word) return true; /* twice in one word */
        if (c->n < MERGE_CHUNK) {
            c->word[c->n++] = word;
            return true;
        }
    }
    uint32_t k = s->free_chunk;
    if (k)
        s->free_chunk = s->chunk[k - 1].next;
    else {
        if (s->chunks >= UINT32_MAX - 1 || !mem_reserve(s->alloc, &s->chunk, &s->chunk_cap, s->chunks + 1))
            return false;
        k = (uint32_t)++s->chunks;
    }
    s->chunk[k - 1] = (merge_chunk){.next = p->more, .n = 1, .word = {word}};
    p->more = k;
    return true;
}

/* ---- queue: highest count first, ties to the greater pair of byte strings --------------------- */

static int merge_bytes(const vocab *v, int32_t a, int32_t b) {
    size_t an, bn;
    const char *x = vocab_text(v, a, &an), *y = vocab_text(v, b, &bn);
    int c = memcmp(x, y, an < bn ? an : bn);
    return c ? c : (an > bn) - (an < bn);
}

static bool merge_before(const merge_state *s, merge_entry a, merge_entry b) {
    if (a.count != b.count) return a.count > b.count;
    if (a.pair == b.pair) return false;
    const merge_pair *x = &s->pair[a.pair], *y = &s->pair[b.pair];
    int c = x->left == y->left ? 0 : merge_bytes(s->v, x->left, y->left);
    if (!c) c = merge_bytes(s->v, x->right, y->right);
    return c > 0;
}

static void merge_push(merge_state *s, merge_entry x) {
    if (!mem_reserve(s->alloc, &s->heap, &s->heap_cap, s->heap_n + 1)) {
        s->failed = true;
        return;
    }
    size_t i = s->heap_n++;
    for (; i && merge_before(s, x, s->heap[(i - 1) / 2]); i = (i - 1) / 2) s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = x;
}

static merge_entry merge_pop(merge_state *s) {
    merge_entry top = s->heap[0], x = s->heap[--s->heap_n];
    size_t i = 0;
    for (size_t k; (k = 2 * i + 1) < s->heap_n; i = k) {
        if (k + 1 < s->heap_n && merge_before(s, s->heap[k + 1], s->heap[k])) k++;
        if (!merge_before(s, s->heap[k], x)) break;
        s->heap[i] = s->heap[k];
    }
    if (s->heap_n) s->heap[i] = x;
    return top;
}

/* ---- one step -------------------------------------------------------------------------------- */

static void merge_less(merge_state *s, int32_t l, int32_t r, int64_t n) {
    uint32_t k = merge_find(s, l, r);
    if (k == UINT32_MAX)
        s->failed = true;
    else
        s->pair[k].count -= n;
}

static void merge_more(merge_state *s, int32_t l, int32_t r, int64_t n, uint32_t word) {
    uint32_t k = merge_find(s, l, r);
    if (k == UINT32_MAX || !merge_note(s, k, word)) {
        s->failed = true;
        return;
    }
    s->pair[k].count += n;
    if (s->pair[k].stamp == s->step) return;
    s->pair[k].stamp = s->step;
    if (!mem_reserve(s->alloc, &s->touched, &s->touched_cap, s->touched_n + 1))
        s->failed = true;
    else
        s->touched[s->touched_n++] = k;
}

/* Replaces left right by id in one word and keeps the counts of the pairs around. */
static void merge_word(merge_state *s, uint32_t word, int32_t left, int32_t right, int32_t id) {
    int32_t *w = s->symbol + s->begin[word];
    size_t n = s->len[word], out = 0;
    int64_t count = (int64_t)s->m->piece[word].count;
    for (size_t i = 0; i < n; i++) {
        if (i + 1 == n || w[i] != left || w[i + 1] != right) {
            w[out++] = w[i];
            continue;
        }
        if (out) {
            merge_less(s, w[out - 1], left, count);
            merge_more(s, w[out - 1], id, count, word);
        }
        if (i + 2 < n) {
            merge_less(s, right, w[i + 2], count);
            merge_more(s, id, w[i + 2], count, word);
        }
        w[out++] = id;
        i++;
    }
    s->len[word] = (uint32_t)out;
}

static void merge_step(merge_state *s, uint32_t index, int32_t id) {
    merge_pair p = s->pair[index];
    s->step++;
    s->touched_n = 0;
    for (size_t i = 0; i < p.first_n && !s->failed; i++) merge_word(s, s->where[p.first + i], p.left, p.right, id);
    for (uint32_t c = p.more; c && !s->failed;) {
        merge_chunk k = s->chunk[c - 1]; /* a copy: the pool may move */
        for (uint32_t i = 0; i < k.n; i++) merge_word(s, k.word[i], p.left, p.right, id);
        s->chunk[c - 1].next = s->free_chunk;
        s->free_chunk = c;
        c = k.next;
    }
    s->pair[index].count = 0;
    s->pair[index].first_n = 0;
    s->pair[index].more = 0;
    for (size_t i = 0; i < s->touched_n && !s->failed; i++) {
        const merge_pair *t = &s->pair[s->touched[i]];
        if (t->count > 0) merge_push(s, (merge_entry){t->count, s->touched[i]});
    }
}

/* ---- beginning ------------------------------------------------------------------------------- */

static bool merge_words(merge_state *s) {
    const train_map *m = s->m;
    s->symbol = mem_new(s->alloc, m->blob_n, sizeof *s->symbol);
    s->begin = mem_new(s->alloc, m->n, sizeof *s->begin);
    s->len = mem_new(s->alloc, m->n, sizeof *s->len);
    if (!s->symbol || !s->begin || !s->len) return false;
    for (size_t i = 0; i < m->n; i++) {
        s->begin[i] = m->piece[i].off;
        s->len[i] = m->piece[i].len;
    }
    for (size_t i = 0; i < m->blob_n; i++) s->symbol[i] = (uint8_t)m->blob[i];
    return true;
}

/* Counts all pairs of bytes and lists the words of each, in two passes, with exact room. */
static bool merge_pairs(merge_state *s) {
    const train_map *m = s->m;
    uint64_t total = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < m->n; i++) {
            const int32_t *w = s->symbol + s->begin[i];
            for (size_t k = 0; k + 1 < s->len[i]; k++) {
                uint32_t x = merge_find(s, w[k], w[k + 1]);
                if (x == UINT32_MAX) return false;
                merge_pair *p = &s->pair[x];
                if (pass == 0) p->count += (int64_t)m->piece[i].count;
                if (p->stamp == (uint32_t)i + 1) continue; /* this word is listed */
                p->stamp = (uint32_t)i + 1;
                if (pass) s->where[p->first + p->first_n] = (uint32_t)i;
                p->first_n++;
            }
        }
        if (pass) break;
        for (size_t i = 0; i < s->pairs; i++) {
            if (total > UINT32_MAX) return false;
            s->pair[i].first = (uint32_t)total;
            total += s->pair[i].first_n;
            s->pair[i].first_n = 0;
            s->pair[i].stamp = 0;
        }
        s->where = mem_new(s->alloc, (size_t)total, sizeof *s->where);
        if (!s->where) return false;
    }
    for (size_t i = 0; i < s->pairs; i++) {
        s->pair[i].stamp = 0;
        merge_push(s, (merge_entry){s->pair[i].count, (uint32_t)i});
    }
    return !s->failed;
}

/* The pair with the highest count, out of the queue; UINT32_MAX: none is left that occurs least times. */
static uint32_t merge_best(merge_state *s, int64_t least) {
    while (s->heap_n) {
        merge_entry x = merge_pop(s);
        int64_t now = s->pair[x.pair].count;
        if (now < least) continue;
        if (now == x.count) return x.pair;
        if (now < x.count) merge_push(s, (merge_entry){now, x.pair}); /* an entry too low has a better one above it */
    }
    return UINT32_MAX;
}

static tl_status merge_run(merge_state *s, const tokenizer_train_options *o, bpe *b, size_t limit, uint64_t *merges,
                           tl_error *e) {
    int64_t least = o->min_count > 1 ? (int64_t)(o->min_count & INT64_MAX) : 1;
    str joined;
    str_init(&joined, s->alloc);
    tl_status st = TL_OK;
    while (s->v->n < limit && st == TL_OK && !s->failed) {
        uint32_t k = merge_best(s, least);
        if (k == UINT32_MAX) break;
        merge_pair p = s->pair[k];
        size_t ln, rn;
        const char *l = vocab_text(s->v, p.left, &ln), *r = vocab_text(s->v, p.right, &rn);
        str_clear(&joined);
        str_add(&joined, l, ln);
        str_add(&joined, r, rn);
        if (joined.failed) break;
        /* two pairs may spell the same bytes: one token, two merges */
        int32_t id = vocab_find(s->v, joined.data, joined.len);
        if (id < 0) {
            id = (int32_t)s->v->n;
            st = vocab_put(s->v, id, joined.data, joined.len, 0, e);
        }
        /* a pair that was merged and came back by another spelling keeps its first rank */
        bool known = b->slots && bpe_rank(b, p.left, p.right) != BPE_NONE;
        if (st == TL_OK && !known) st = bpe_put(b, p.left, p.right, id, e);
        if (st == TL_OK) merge_step(s, k, id);
        ++*merges;
        if (st == TL_OK && o->progress && *merges % 64 == 0 &&
            !o->progress(o->user, "merge", s->v->n - 256, limit - 256))
            st = error_set(e, TL_CANCELLED, "training was cancelled");
    }
    if (st == TL_OK && (s->failed || joined.failed)) st = error_set(e, TL_NOMEM, "no memory for merges");
    str_fini(&joined);
    return st;
}

tl_status train_merge(const train_map *m, const tokenizer_train_options *o, vocab *v, bpe *b, size_t limit,
                      uint64_t *merges, tl_error *e) {
    merge_state s = {.alloc = b->alloc, .m = m, .v = v};
    tl_status st = merge_words(&s) && merge_pairs(&s) ? merge_run(&s, o, b, limit, merges, e)
                                                      : error_set(e, TL_NOMEM, "no memory for merges");
    mem_free(s.alloc, s.symbol);
    mem_free(s.alloc, s.begin);
    mem_free(s.alloc, s.len);
    mem_free(s.alloc, s.where);
    mem_free(s.alloc, s.pair);
    mem_free(s.alloc, s.slot);
    mem_free(s.alloc, s.chunk);
    mem_free(s.alloc, s.heap);
    mem_free(s.alloc, s.touched);
    return st;
}
