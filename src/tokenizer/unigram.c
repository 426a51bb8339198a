#include "tokenizer/models.h"
#include "tokenizer/unicode.h"
#include <string.h>

enum { UNIGRAM_MAX_NODES = 1 << 24 };

/* The trie's edges live in one open-addressing table: node 24 bits, byte 8, child 24. */
struct unigram {
    const tl_allocator *alloc;
    uint64_t *edge;
    size_t slots, edges;
    int32_t *token; /* (nodes) id that ends here, -1 */
    size_t nodes, node_cap;
    double *score; /* (ids) */
    size_t ids;
    double unk_score;
    int32_t unk, hex[256];
    bool narrow;
};

unigram *unigram_new(const tl_allocator *a) {
    unigram *m = mem_new(a, 1, sizeof *m);
    if (m) m->alloc = a;
    return m;
}

void unigram_free(unigram *m) {
    if (!m) return;
    mem_free(m->alloc, m->edge);
    mem_free(m->alloc, m->token);
    mem_free(m->alloc, m->score);
    mem_free(m->alloc, m);
}

double unigram_score(const unigram *m, int32_t id) {
    return id >= 0 && (size_t)id < m->ids ? m->score[id] : 0;
}

static size_t unigram_slot(const unigram *m, uint32_t node, uint8_t byte) {
    uint64_t key = (uint64_t)node << 8 | byte;
    size_t i = (size_t)(key * 0x9e3779b97f4a7c15u >> 20) & (m->slots - 1);
    while (m->edge[i] && m->edge[i] >> 24 != key) i = (i + 1) & (m->slots - 1);
    return i;
}

/* Child 0 is no child: the root is nobody's. */
static inline uint32_t unigram_child(const unigram *m, uint32_t node, uint8_t byte) {
    return (uint32_t)(m->edge[unigram_slot(m, node, byte)] & 0xffffff);
}

static bool unigram_grow(unigram *m) {
    size_t slots = m->slots ? 2 * m->slots : 1024, n = m->slots;
    uint64_t *old = m->edge, *edge = mem_new(m->alloc, slots, sizeof *edge);
    if (!edge) return false;
    m->edge = edge;
    m->slots = slots;
    for (size_t i = 0; i < n; i++)
        if (old[i]) edge[unigram_slot(m, (uint32_t)(old[i] >> 32), (uint8_t)(old[i] >> 24))] = old[i];
    mem_free(m->alloc, old);
    return true;
}

static tl_status unigram_insert(unigram *m, const char *text, size_t n, int32_t id, tl_error *e) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++) {
        if (2 * (m->edges + 1) > m->slots && !unigram_grow(m)) return error_set(e, TL_NOMEM, "no memory for pieces");
        size_t k = unigram_slot(m, node, (uint8_t)text[i]);
        if (!m->edge[k]) {
            if (m->nodes >= UNIGRAM_MAX_NODES) return error_set(e, TL_LIMIT, "the vocabulary's pieces are too long");
            if (!mem_reserve(m->alloc, &m->token, &m->node_cap, m->nodes + 1))
                return error_set(e, TL_NOMEM, "no memory for pieces");
            m->token[m->nodes] = -1;
            m->edge[k] = ((uint64_t)node << 8 | (uint8_t)text[i]) << 24 | m->nodes++;
            m->edges++;
        }
        node = (uint32_t)(m->edge[k] & 0xffffff);
    }
    m->token[node] = id;
    return TL_OK;
}

void unigram_narrow(unigram *m) {
    m->narrow = true;
}

void unigram_hide(unigram *m, const char *text, size_t n) {
    uint32_t node = 0;
    for (size_t i = 0; i < n; i++)
        if ((node = unigram_child(m, node, (uint8_t)text[i])) == 0) return;
    m->token[node] = -1;
}

tl_status unigram_ready(unigram *m, const vocab *v, const double *score, int32_t unk, bool byte_fallback, tl_error *e) {
    m->ids = v->n;
    m->unk = unk;
    m->score = mem_new(m->alloc, v->n, sizeof *m->score);
    if (!m->score || !mem_reserve(m->alloc, &m->token, &m->node_cap, 1) || !unigram_grow(m))
        return error_set(e, TL_NOMEM, "no memory for pieces");
    m->token[0] = -1;
    m->nodes = 1;
    memcpy(m->score, score, v->n * sizeof *score);
    double least = 0;
    bool any = false;
    for (size_t i = 0; i < v->n; i++) {
        const vocab_entry *x = &v->entry[i];
        if (!(x->flags & VOCAB_PRESENT) || (x->flags & VOCAB_HIDDEN)) continue;
        if (!any || score[i] < least) least = score[i];
        any = true;
        if (x->len && !(m->narrow && (x->flags & VOCAB_BYTE)))
            TRY(unigram_insert(m, v->blob + x->off, x->len, (int32_t)i, e));
    }
    m->unk_score = least - 10.0;
    for (int i = 0; i < 256; i++) {
        char hex[8] = "<0x00>";
        hex[3] = "0123456789ABCDEF"[i >> 4];
        hex[4] = "0123456789ABCDEF"[i & 15];
        m->hex[i] = byte_fallback ? vocab_find(v, hex, 6) : -1;
    }
    return TL_OK;
}

/* Best way to each byte: its score, where its last piece began, that piece's id (-1: unknown). */
typedef struct unigram_path {
    uint64_t *score; /* bits of a double; the heap array lends them room */
    uint32_t *begin;
    int32_t *id;
} unigram_path;

static void unigram_offer(unigram_path *x, size_t at, double score, size_t begin, int32_t id) {
    double have;
    memcpy(&have, &x->score[at], sizeof have);
    if (x->begin[at] != UINT32_MAX && !(score > have)) return;
    memcpy(&x->score[at], &score, sizeof score);
    x->begin[at] = (uint32_t)begin;
    x->id[at] = id;
}

static void unigram_search(const unigram *m, unigram_path *x, const uint8_t *p, size_t len) {
    double zero = 0;
    for (size_t i = 0; i <= len; i++) x->begin[i] = UINT32_MAX;
    memcpy(&x->score[0], &zero, sizeof zero);
    for (size_t i = 0; i < len;) {
        uint32_t cp, node = 0;
        size_t one = unicode_decode(p + i, p + len, &cp, NULL);
        double here;
        memcpy(&here, &x->score[i], sizeof here);
        bool single = false;
        for (size_t k = i; k < len && (node = unigram_child(m, node, p[k])) != 0; k++) {
            int32_t id = m->token[node];
            if (id < 0) continue;
            double sum = here + m->score[id];
            unigram_offer(x, k + 1, m->narrow ? (double)(float)sum : sum, i, id);
            single |= k + 1 - i == one;
        }
        double sum = here + m->unk_score;
        if (!single) unigram_offer(x, i + one, m->narrow ? (double)(float)sum : sum, i, -1);
        i += one;
    }
}

/* Ids from the end to the beginning; s->prev is free to hold them. */
tl_status unigram_piece(const unigram *m, bpe_scratch *s, const uint8_t *p, size_t len, size_t *n, tl_error *e) {
    *n = 0;
    if (!len) return TL_OK;
    if (len >= UINT32_MAX / 4) return error_set(e, TL_LIMIT, "a piece of %zu bytes", len);
    if (!bpe_scratch_room(s, len + 1) || !mem_reserve(s->alloc, &s->heap, &s->heap_cap, len + 1))
        return error_set(e, TL_NOMEM, "no memory for a piece of %zu bytes", len);
    unigram_path x = {s->heap, s->prev, (int32_t *)s->next};
    unigram_search(m, &x, p, len);
    size_t k = len + 1; /* fill s->rank from the back */
    for (size_t at = len; at > 0;) {
        size_t begin = x.begin[at];
        if (x.id[at] >= 0) {
            s->rank[--k] = (uint32_t)x.id[at];
            at = begin;
            continue;
        }
        while (begin > 0 && x.id[begin] < 0) begin = x.begin[begin]; /* neighbouring unknowns are one */
        bool bytes = true;
        for (size_t i = begin; i < at; i++) bytes = bytes && m->hex[p[i]] >= 0;
        if (bytes)
            for (size_t i = at; i-- > begin;) s->rank[--k] = (uint32_t)m->hex[p[i]];
        else if (m->unk >= 0)
            s->rank[--k] = (uint32_t)m->unk;
        else
            return error_set(e, TL_CONFIG, "the text has an unknown character and the vocabulary no unknown token");
        at = begin;
    }
    *n = len + 1 - k;
    memcpy(s->id, s->rank + k, *n * sizeof *s->id);
    return TL_OK;
}
