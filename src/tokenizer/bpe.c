#include "tokenizer/bpe.h"
#include "tokenizer/unicode.h"
#include <string.h>

bpe *bpe_new(const tl_allocator *a) {
    bpe *b = mem_new(a, 1, sizeof *b);
    if (!b) return NULL;
    b->alloc = a;
    b->unk = -1;
    memset(b->byte_id, 0xff, sizeof b->byte_id);
    memset(b->hex_id, 0xff, sizeof b->hex_id);
    vocab_init(&b->beyond, a);
    return b;
}

void bpe_free(bpe *b) {
    if (!b) return;
    mem_free(b->alloc, b->merge);
    mem_free(b->alloc, b->slot);
    mem_free(b->alloc, b->byte_pair);
    mem_free(b->alloc, b->made);
    mem_free(b->alloc, b->filter);
    mem_free(b->alloc, b->prefix);
    mem_free(b->alloc, b->suffix);
    vocab_fini(&b->beyond);
    mem_free(b->alloc, b);
}

/* ---- the table of pairs ---------------------------------------------------------------------- */

static void bpe_insert(bpe *b, size_t rank) {
    uint64_t key = (uint64_t)(uint32_t)b->merge[rank].left << 21 | (uint32_t)b->merge[rank].right;
    uint64_t h = key * 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h >> b->shift);
    b->filter[h >> (64 - BPE_FILTER_BITS + 6)] |= (uint64_t)1 << (h >> (64 - BPE_FILTER_BITS) & 63);
    while (b->slot[i] != UINT64_MAX && b->slot[i] >> 22 != key) i = (i + 1) & (b->slots - 1); /* the later one wins */
    b->slot[i] = key << 22 | rank;
}

static bool bpe_grow(bpe *b) {
    size_t slots = b->slots ? 2 * b->slots : 256;
    uint64_t *slot = mem_new(b->alloc, slots, sizeof *slot);
    if (!slot) return false;
    if (!b->filter && !(b->filter = mem_new(b->alloc, 1 << (BPE_FILTER_BITS - 6), sizeof *b->filter))) {
        mem_free(b->alloc, slot);
        return false;
    }
    memset(slot, 0xff, slots * sizeof *slot);
    mem_free(b->alloc, b->slot);
    b->slot = slot;
    b->slots = slots;
    b->shift = 64 - (unsigned)__builtin_ctzll(slots);
    for (size_t r = 0; r < b->n; r++) bpe_insert(b, r);
    return true;
}

tl_status bpe_put(bpe *b, int32_t left, int32_t right, int32_t id, tl_error *e) {
    if (b->n >= BPE_MAX_MERGES) return error_set(e, TL_LIMIT, "more than %d merges", BPE_MAX_MERGES);
    if (2 * (b->n + 1) > b->slots && !bpe_grow(b)) return error_set(e, TL_NOMEM, "no memory for merges");
    if (!mem_reserve(b->alloc, &b->merge, &b->cap, b->n + 1)) return error_set(e, TL_NOMEM, "no memory for merges");
    b->merge[b->n] = (bpe_merge){left, right, id};
    bpe_insert(b, b->n++);
    return TL_OK;
}

tl_status bpe_ready(bpe *b, const vocab *v, tl_error *e) {
    if (!b->slots && !bpe_grow(b)) return error_set(e, TL_NOMEM, "no memory for merges");
    b->made = mem_new(b->alloc, b->n, sizeof *b->made);
    if (!b->made) return error_set(e, TL_NOMEM, "no memory for merges");
    for (size_t r = 0; r < b->n; r++) b->made[r] = b->merge[r].id;
    if (!b->outside) b->outside = (int32_t)v->n;
    for (int i = 0; i < 256; i++) {
        char hex[8] = "<0x00>", c = (char)i;
        hex[3] = "0123456789ABCDEF"[i >> 4];
        hex[4] = "0123456789ABCDEF"[i & 15];
        if (b->byte_level) b->byte_id[i] = vocab_find(v, &c, 1);
        if (b->byte_fallback && b->hex_id[i] < 0) b->hex_id[i] = vocab_find(v, hex, 6);
    }
    if (!b->byte_level) return TL_OK;
    b->byte_pair = mem_new(b->alloc, 65536, sizeof *b->byte_pair);
    if (!b->byte_pair) return error_set(e, TL_NOMEM, "no memory for merges");
    for (int i = 0; i < 65536; i++) {
        int32_t l = b->byte_id[i >> 8], r = b->byte_id[i & 255];
        b->byte_pair[i] = l >= 0 && r >= 0 ? bpe_rank(b, l, r) : BPE_NONE;
    }
    return TL_OK;
}

/* ---- merging --------------------------------------------------------------------------------- */

/* Four ranks at once, by the compiler's own vectors: a scan over all places is cheaper than to close the gaps. */
typedef int32_t bpe_four __attribute__((vector_size(16)));

/* The least key of the first n, in steps of eight. */
static inline int32_t bpe_least(const bpe_four *key, size_t n) {
    bpe_four a = key[0], b = key[1];
    for (size_t i = 2; 4 * i < n; i += 2) {
        bpe_four x = key[i], y = key[i + 1], m = x < a, k = y < b;
        a = (x & m) | (a & ~m);
        b = (y & k) | (b & ~k);
    }
    bpe_four m = a < b;
    a = (a & m) | (b & ~m);
    int32_t x = a[0] < a[1] ? a[0] : a[1], y = a[2] < a[3] ? a[2] : a[3];
    return x < y ? x : y;
}

static inline int32_t bpe_key(const bpe *b, int32_t left, int32_t right, size_t at) {
    uint32_t rank = bpe_rank(b, left, right);
    return rank == BPE_NONE ? INT32_MAX : (int32_t)(rank << 7 | (uint32_t)at);
}

/* Places keep their numbers; a key is the rank of the pair that begins there and, in the low 7 bits, the place, so
 * the least key is the lowest rank at the leftmost place. */
size_t bpe_merge_short(const bpe *b, int32_t *id, size_t n, const uint8_t *bytes) {
    union {
        bpe_four four[BPE_SHORT / 4 + 2];
        int32_t one[BPE_SHORT + 8];
    } key;
    uint8_t prev[BPE_SHORT + 1], next[BPE_SHORT + 1];
    for (size_t i = 0; i < n; i++) {
        prev[i] = (uint8_t)(i - 1);
        next[i] = (uint8_t)(i + 1);
        key.one[i] = INT32_MAX;
        if (i + 1 == n) break;
        if (bytes) {
            uint32_t rank = b->byte_pair[bytes[i] << 8 | bytes[i + 1]];
            if (rank != BPE_NONE) key.one[i] = (int32_t)(rank << 7 | (uint32_t)i);
        } else {
            key.one[i] = bpe_key(b, id[i], id[i + 1], i);
        }
    }
    for (size_t i = n; i < n + 8; i++) key.one[i] = INT32_MAX;
    for (;;) {
        int32_t best = bpe_least(key.four, n);
        if (best == INT32_MAX) break;
        size_t at = (size_t)best & 127, gone = next[at], after = next[gone];
        id[at] = b->made[best >> 7];
        next[at] = (uint8_t)after;
        key.one[gone] = key.one[at] = INT32_MAX;
        if (after < n) {
            prev[after] = (uint8_t)at;
            key.one[at] = bpe_key(b, id[at], id[after], at);
        }
        if (at) key.one[prev[at]] = bpe_key(b, id[prev[at]], id[at], prev[at]);
    }
    size_t k = 0;
    for (size_t i = 0; i < n; i = next[i]) id[k++] = id[i];
    return k;
}

static void bpe_sift(uint64_t *heap, size_t n, size_t i) {
    uint64_t x = heap[i];
    for (size_t k; (k = 2 * i + 1) < n; i = k) {
        if (k + 1 < n && heap[k + 1] < heap[k]) k++;
        if (heap[k] >= x) break;
        heap[i] = heap[k];
    }
    heap[i] = x;
}

/* A merge adds at most two entries and removes one, so n + merges <= 2 n entries are ever there. */
static void bpe_heap_put(uint64_t *heap, size_t *n, uint64_t x) {
    size_t i = (*n)++;
    while (i && heap[(i - 1) / 2] > x) {
        heap[i] = heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    heap[i] = x;
}

tl_status bpe_merge_long(const bpe *b, bpe_scratch *s, int32_t *id, size_t *count, tl_error *e) {
    size_t n = *count, heap_n = 0;
    if (n > UINT32_MAX / 2) return error_set(e, TL_LIMIT, "a piece of %zu symbols", n);
    if (!bpe_scratch_room(s, n) || !mem_reserve(s->alloc, &s->heap, &s->heap_cap, 2 * n + 2))
        return error_set(e, TL_NOMEM, "no memory for a piece of %zu symbols", n);
    uint32_t *rank = s->rank, *prev = s->prev, *next = s->next;
    uint64_t *heap = s->heap;
    for (size_t i = 0; i < n; i++) {
        prev[i] = (uint32_t)i - 1;
        next[i] = (uint32_t)i + 1;
        rank[i] = i + 1 < n ? bpe_rank(b, id[i], id[i + 1]) : BPE_NONE;
        if (rank[i] != BPE_NONE) heap[heap_n++] = (uint64_t)rank[i] << 32 | i;
    }
    for (size_t i = heap_n / 2; i-- > 0;) bpe_sift(heap, heap_n, i);
    while (heap_n) {
        uint32_t at = (uint32_t)heap[0], r = (uint32_t)(heap[0] >> 32);
        heap[0] = heap[--heap_n];
        if (heap_n) bpe_sift(heap, heap_n, 0);
        if (rank[at] != r) continue; /* the pair is gone */
        uint32_t gone = next[at], after = next[gone];
        id[at] = b->merge[r].id;
        rank[gone] = BPE_NONE;
        id[gone] = -1;
        next[at] = after;
        rank[at] = BPE_NONE;
        if (after < n) {
            prev[after] = at;
            rank[at] = bpe_rank(b, id[at], id[after]);
            if (rank[at] != BPE_NONE) bpe_heap_put(heap, &heap_n, (uint64_t)rank[at] << 32 | at);
        }
        if (at > 0) {
            uint32_t before = prev[at];
            rank[before] = bpe_rank(b, id[before], id[at]);
            if (rank[before] != BPE_NONE) bpe_heap_put(heap, &heap_n, (uint64_t)rank[before] << 32 | before);
        }
    }
    size_t k = 0;
    for (size_t i = 0; i < n; i = next[i]) id[k++] = id[i];
    *count = k;
    return TL_OK;
}

bool bpe_scratch_room(bpe_scratch *s, size_t n) {
    if (n <= s->cap) return true;
    size_t cap = n < 1024 ? 1024 : n + n / 2;
    mem_free(s->alloc, s->id);
    mem_free(s->alloc, s->rank);
    mem_free(s->alloc, s->prev);
    mem_free(s->alloc, s->next);
    s->id = mem_new(s->alloc, cap, sizeof *s->id);
    s->rank = mem_new(s->alloc, cap, sizeof *s->rank);
    s->prev = mem_new(s->alloc, cap, sizeof *s->prev);
    s->next = mem_new(s->alloc, cap, sizeof *s->next);
    s->cap = s->id && s->rank && s->prev && s->next ? cap : 0;
    return s->cap != 0;
}

void bpe_scratch_fini(bpe_scratch *s) {
    mem_free(s->alloc, s->id);
    mem_free(s->alloc, s->rank);
    mem_free(s->alloc, s->prev);
    mem_free(s->alloc, s->next);
    mem_free(s->alloc, s->heap);
    mem_free(s->alloc, s->buf);
}
