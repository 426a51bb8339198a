/* Merges for vocabularies that list tokens by preference and no pairs (tiktoken's ranks, SentencePiece's scores).
 * Inside the bytes of a token no merge depends on what stands around it, so the split a token is made by is always
 * the one it is made by when it stands alone: one pair a token says everything. */
#include "tokenizer/bpe.h"
#include "tokenizer/unicode.h"
#include <string.h>

enum { DERIVE_MAX_UNITS = 2048 }; /* longer tokens cannot be reached in sensible time; nobody has them */

typedef struct derive {
    bpe *b;
    const vocab *v;
    const uint32_t *rank; /* by id; BPE_NONE: no merge may make it */
    uint32_t begin[DERIVE_MAX_UNITS + 1], pair[DERIVE_MAX_UNITS];
} derive;

static uint32_t derive_rank(const derive *d, const char *text, size_t i, size_t k) {
    int32_t id = vocab_find(d->v, text + d->begin[i], d->begin[k] - d->begin[i]);
    return id < 0 ? BPE_NONE : d->rank[id];
}

static size_t derive_units(derive *d, const char *text, size_t len, bool chars) {
    size_t n = 0;
    const uint8_t *p = (const uint8_t *)text;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        if (n == DERIVE_MAX_UNITS) return 0;
        d->begin[n++] = (uint32_t)i;
        i += chars ? unicode_decode(p + i, p + len, &cp, NULL) : 1;
    }
    d->begin[n] = (uint32_t)len;
    return n;
}

/* The symbol of text: a token, or a character beyond them. */
static tl_status derive_symbol(derive *d, const char *text, size_t len, int32_t *id, tl_error *e) {
    *id = vocab_find(d->v, text, len);
    if (*id >= 0) return TL_OK;
    *id = vocab_find(&d->b->beyond, text, len);
    if (*id < 0) {
        *id = (int32_t)d->b->beyond.n;
        TRY(vocab_put(&d->b->beyond, *id, text, len, 0, e));
    }
    *id += d->b->outside;
    return *id < VOCAB_MAX_IDS ? TL_OK : error_set(e, TL_LIMIT, "too many characters");
}

static tl_status derive_token(derive *d, int32_t id, bool chars, tl_error *e) {
    size_t len, n;
    const char *text = vocab_text(d->v, id, &len);
    if (!text || (n = derive_units(d, text, len, chars)) < 2) return TL_OK;
    for (size_t i = 0; i + 1 < n; i++) d->pair[i] = derive_rank(d, text, i, i + 2);
    for (; n > 2; n--) {
        size_t at = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (d->pair[i] < d->pair[at]) at = i;
        if (d->pair[at] == BPE_NONE) return TL_OK; /* never made by merging */
        memmove(&d->begin[at + 1], &d->begin[at + 2], (n - at - 1) * sizeof *d->begin);
        memmove(&d->pair[at], &d->pair[at + 1], (n - at - 2) * sizeof *d->pair);
        if (at + 2 < n) d->pair[at] = derive_rank(d, text, at, at + 2);
        if (at > 0) d->pair[at - 1] = derive_rank(d, text, at - 1, at + 1);
    }
    int32_t left, right;
    TRY(derive_symbol(d, text, d->begin[1], &left, e));
    TRY(derive_symbol(d, text + d->begin[1], len - d->begin[1], &right, e));
    return bpe_put(d->b, left, right, id, e);
}

tl_status bpe_derive(bpe *b, const vocab *v, const int32_t *order, size_t n, bool chars, tl_error *e) {
    b->outside = (int32_t)v->n;
    derive *d = mem_new(b->alloc, 1, sizeof *d);
    uint32_t *rank = mem_new(b->alloc, v->n, sizeof *rank);
    tl_status s = d && rank ? TL_OK : error_set(e, TL_NOMEM, "no memory for merges");
    if (s == TL_OK) {
        d->b = b;
        d->v = v;
        d->rank = rank;
        memset(rank, 0xff, v->n * sizeof *rank);
        for (size_t i = 0; i < n; i++) rank[order[i]] = (uint32_t)i;
    }
    for (size_t i = 0; i < n && s == TL_OK; i++) s = derive_token(d, order[i], chars, e);
    mem_free(b->alloc, d);
    mem_free(b->alloc, rank);
    return s;
}
