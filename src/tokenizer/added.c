#include "tokenizer/added.h"
#include <string.h>

added *added_new(const tl_allocator *a) {
    added *d = mem_new(a, 1, sizeof *d);
    if (!d) return NULL;
    d->alloc = a;
    memset(d->root, 0xff, sizeof d->root);
    return d;
}

void added_free(added *d) {
    if (!d) return;
    mem_free(d->alloc, d->token);
    mem_free(d->alloc, d->node);
    mem_free(d->alloc, d);
}

/* The node for byte below *link, made if absent; -1: no memory. */
static int32_t added_child(added *d, int32_t parent, int32_t *root, uint8_t byte) {
    int32_t i = parent < 0 ? root[byte] : d->node[parent].child;
    if (parent >= 0)
        while (i >= 0 && d->node[i].byte != byte) i = d->node[i].next;
    if (i >= 0) return i;
    if (d->node_n >= INT32_MAX || !mem_reserve(d->alloc, &d->node, &d->node_cap, d->node_n + 1)) return -1;
    i = (int32_t)d->node_n++;
    d->node[i] = (added_node){-1, parent < 0 ? -1 : d->node[parent].child, -1, byte};
    if (parent < 0)
        root[byte] = i;
    else
        d->node[parent].child = i;
    return i;
}

tl_status added_put(added *d, int32_t id, const char *text, size_t n, unsigned flags, tl_error *e) {
    if (n == 0) return TL_OK; /* matches nothing */
    if (n > 4096) return error_set(e, TL_LIMIT, "an added token of %zu bytes (limit 4096)", n);
    int which = flags & ADDED_NORMALIZED ? 1 : 0;
    int32_t at = -1;
    for (size_t i = 0; i < n; i++) {
        at = added_child(d, at, d->root[which], (uint8_t)text[i]);
        if (at < 0) return error_set(e, TL_NOMEM, "no memory for added tokens");
    }
    if (d->node[at].token >= 0) { /* the later definition wins */
        d->token[d->node[at].token].id = id;
        d->token[d->node[at].token].flags = flags;
        return TL_OK;
    }
    if (!mem_reserve(d->alloc, &d->token, &d->cap, d->n + 1))
        return error_set(e, TL_NOMEM, "no memory for added tokens");
    d->node[at].token = (int32_t)d->n;
    d->token[d->n++] = (added_token){id, flags, (uint32_t)n};
    if (n > d->longest[which]) d->longest[which] = n;
    d->count[which]++;
    if (flags & (ADDED_LSTRIP | ADDED_RSTRIP)) d->blanks = true;
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)text[i] <= ' ') d->blanks = true;
    if (!(flags & ADDED_SPECIAL)) d->plain[which]++;
    return TL_OK;
}

/* Longest token that begins at text[at]; -1: none. */
static int32_t added_at(const added *d, int which, const char *text, size_t at, size_t n) {
    int32_t i = d->root[which][(uint8_t)text[at]], best = -1;
    while (i >= 0) {
        if (d->node[i].token >= 0) best = d->node[i].token;
        if (++at >= n) break;
        i = d->node[i].child;
        while (i >= 0 && d->node[i].byte != (uint8_t)text[at]) i = d->node[i].next;
    }
    return best;
}

int32_t added_find(const added *d, const char *text, size_t n) {
    for (int which = 0; d && n && which < 2; which++) {
        int32_t i = added_at(d, which, text, 0, n);
        if (i >= 0 && d->token[i].len == n) return i;
    }
    return -1;
}

/* The character that ends at p > begin. */
static const uint8_t *added_before(const uint8_t *begin, const uint8_t *p, uint32_t *cp) {
    const uint8_t *q = p - 1;
    while (q > begin && p - q < 4 && (*q & 0xc0) == 0x80) q--;
    if (q + unicode_decode(q, p, cp, NULL) != p) {
        *cp = UNICODE_BAD;
        return p - 1;
    }
    return q;
}

static bool added_word_ok(const unicode_table *u, const uint8_t *text, size_t begin, size_t end, size_t n) {
    uint32_t cp;
    if (begin > 0) {
        added_before(text, text + begin, &cp);
        if (unicode_is_word(u, cp)) return false;
    }
    if (end < n) {
        unicode_decode(text + end, text + n, &cp, NULL);
        if (unicode_is_word(u, cp)) return false;
    }
    return true;
}

bool added_next(const added *d, const unicode_table *u, int which, bool special, const char *text, size_t from,
                size_t n, added_match *m) {
    if (!d || (special ? d->count[which] : d->plain[which]) == 0) return false;
    const uint8_t *s = (const uint8_t *)text;
    const int32_t *root = d->root[which];
    for (size_t i = from; i < n; i++) {
        if (root[s[i]] < 0) continue;
        int32_t k = added_at(d, which, text, i, n);
        if (k < 0) continue;
        const added_token *x = &d->token[k];
        size_t end = i + x->len, begin = i;
        if ((!special && (x->flags & ADDED_SPECIAL)) || ((x->flags & ADDED_WORD) && !added_word_ok(u, s, i, end, n))) {
            i = end - 1; /* matches never overlap, those that do not count included */
            continue;
        }
        uint32_t cp;
        while ((x->flags & ADDED_LSTRIP) && begin > from) {
            const uint8_t *q = added_before(s + from, s + begin, &cp);
            if (unicode_of(u, cp) != UNICODE_SPACE) break;
            begin = (size_t)(q - s);
        }
        while ((x->flags & ADDED_RSTRIP) && end < n) {
            unsigned len = unicode_decode(s + end, s + n, &cp, NULL);
            if (unicode_of(u, cp) != UNICODE_SPACE) break;
            end += len;
        }
        *m = (added_match){x, begin, end, i};
        return true;
    }
    return false;
}
