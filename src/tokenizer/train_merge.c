/* Merging: the most frequent pair of neighbouring symbols becomes one, again and again. */
#include "tokenizer/train_index.h"
#include <string.h>

enum { MERGE_STEP = 4 }; /* by what the bound of frequent pairs falls each time */

typedef struct merge_entry { /* of the queue; stale when count is not the pair's any more */
    int64_t count;
    uint32_t pair;
} merge_entry;

typedef struct merge_state {
    train_index x;
    vocab *v;
    merge_entry *heap;
    size_t heap_n, heap_cap;
} merge_state;

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
    const index_pair *x = index_pair_at(&s->x, a.pair), *y = index_pair_at(&s->x, b.pair);
    int c = x->left == y->left ? 0 : merge_bytes(s->v, (int32_t)x->left, (int32_t)y->left);
    if (!c) c = merge_bytes(s->v, (int32_t)x->right, (int32_t)y->right);
    return c > 0;
}

static void merge_push(merge_state *s, merge_entry x) {
    if (!mem_reserve(s->x.alloc, &s->heap, &s->heap_cap, s->heap_n + 1)) {
        s->x.failed = true;
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

/* The bound of frequent pairs falls to `hot`: new lists, a new queue. */
static void merge_rebuild(merge_state *s, int64_t hot) {
    s->heap_n = 0;
    if (!index_build(&s->x, hot)) {
        s->x.failed = true;
        return;
    }
    for (size_t i = 0; i < s->x.pair.n; i++) {
        const index_pair *p = index_at(&s->x.pair, i);
        if (p->list) merge_push(s, (merge_entry){p->count, (uint32_t)i});
    }
}

/* The pair with the highest count, out of the queue; INDEX_NONE: none is left that occurs least times. */
static uint32_t merge_best(merge_state *s, int64_t least) {
    while (!s->x.failed) {
        while (s->heap_n) {
            merge_entry top = merge_pop(s);
            int64_t now = index_pair_at(&s->x, top.pair)->count;
            if (now < s->x.hot) continue;
            if (now == top.count) return top.pair;
            if (now < top.count) merge_push(s, (merge_entry){now, top.pair}); /* too low: a better one is above it */
        }
        int64_t most = index_highest(&s->x);
        if (most < least) break;
        merge_rebuild(s, most / MERGE_STEP > least ? most / MERGE_STEP : least);
    }
    return INDEX_NONE;
}

/* The pair's token: its bytes may be one already, spelt otherwise. */
static tl_status merge_token(merge_state *s, const index_pair *p, str *joined, bpe *b, int32_t *id, tl_error *e) {
    size_t ln, rn;
    const char *l = vocab_text(s->v, (int32_t)p->left, &ln), *r = vocab_text(s->v, (int32_t)p->right, &rn);
    str_clear(joined);
    str_add(joined, l, ln);
    str_add(joined, r, rn);
    if (joined->failed) return error_set(e, TL_NOMEM, "no memory for merges");
    *id = vocab_find(s->v, joined->data, joined->len);
    if (*id < 0) {
        *id = (int32_t)s->v->n;
        TRY(vocab_put(s->v, *id, joined->data, joined->len, 0, e));
    }
    /* a pair that was merged and came back by another spelling keeps its first rank */
    bool known = b->slots && bpe_rank(b, (int32_t)p->left, (int32_t)p->right) != BPE_NONE;
    return known ? TL_OK : bpe_put(b, (int32_t)p->left, (int32_t)p->right, *id, e);
}

static void merge_step(merge_state *s, uint32_t pair, int32_t id) {
    bool stale = false;
    index_merge(&s->x, pair, (uint32_t)id, &stale);
    if (stale) { /* a rare pair became frequent: only tokens spelt in two ways do that */
        merge_rebuild(s, s->x.hot);
        return;
    }
    for (size_t i = 0; i < s->x.touched_n && !s->x.failed; i++) {
        const index_pair *t = index_pair_at(&s->x, s->x.touched[i]);
        if (t->list) merge_push(s, (merge_entry){t->count, s->x.touched[i]});
    }
}

static tl_status merge_run(merge_state *s, const tokenizer_train_options *o, bpe *b, size_t limit, uint64_t *merges,
                           tl_error *e) {
    int64_t least = o->min_count > 1 ? (int64_t)(o->min_count & INT64_MAX) : 1;
    str joined;
    str_init(&joined, s->x.alloc);
    tl_status st = TL_OK;
    while (s->v->n < limit && st == TL_OK) {
        uint32_t k = merge_best(s, least);
        if (k == INDEX_NONE) break;
        index_pair p = *index_pair_at(&s->x, k);
        int32_t id = 0;
        st = merge_token(s, &p, &joined, b, &id, e);
        if (st == TL_OK) merge_step(s, k, id);
        ++*merges;
        if (st == TL_OK && o->progress && *merges % 64 == 0 &&
            !o->progress(o->user, "merge", s->v->n - 256, limit - 256))
            st = error_set(e, TL_CANCELLED, "training was cancelled");
    }
    if (st == TL_OK && s->x.failed) st = error_set(e, TL_NOMEM, "no memory for merges");
    if (st == TL_OK && o->progress && !o->progress(o->user, "merge", limit - 256, limit - 256))
        st = error_set(e, TL_CANCELLED, "training was cancelled");
    str_fini(&joined);
    return st;
}

tl_status train_merge(train_map *m, const tokenizer_train_options *o, vocab *v, bpe *b, size_t limit, uint64_t *merges,
                      tl_error *e) {
    merge_state s = {.v = v};
    tl_status st = index_init(&s.x, b->alloc, m, limit, e);
    if (st == TL_OK) st = merge_run(&s, o, b, limit, merges, e);
    mem_free(s.x.alloc, s.heap);
    index_fini(&s.x);
    return st;
}
