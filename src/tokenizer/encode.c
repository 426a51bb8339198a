#include "tokenizer/encode.h"
#include "tokenizer/added.h"
#include "tokenizer/encode_cut.h"
#include "tokenizer/models.h"
#include "tokenizer/normalize.h"
#include "tokenizer/piece_cache.h"
#include "tokenizer/pretoken.h"
#include <string.h>

struct encoder {
    const tokenizer *t;
    encoder *next; /* in the pool */
    bpe_scratch scratch;
    piece_cache *cache;
    text_buf a, b;
    bool inside; /* a stream goes on between two added tokens: what the normalizer puts in front is there already */
};

static void encoder_free(encoder *x) {
    const tl_allocator *al = x->t->alloc;
    bpe_scratch_fini(&x->scratch);
    piece_cache_free(al, x->cache);
    text_fini(&x->a);
    text_fini(&x->b);
    mem_free(al, x);
}

static tl_status encoder_new(const tokenizer *t, encoder **out, tl_error *e) {
    encoder *x = mem_new(t->alloc, 1, sizeof *x);
    if (!x) return error_set(e, TL_NOMEM, "no memory for an encoder");
    x->t = t;
    x->scratch.alloc = t->alloc;
    text_init(&x->a, t->alloc);
    text_init(&x->b, t->alloc);
    if (t->model == MODEL_BPE && !(x->cache = piece_cache_new(t->alloc))) {
        encoder_free(x);
        return error_set(e, TL_NOMEM, "no memory for an encoder");
    }
    *out = x;
    return TL_OK;
}

tl_status encoder_take(const tokenizer *t, encoder **out, tl_error *e) {
    tokenizer *w = (tokenizer *)(uintptr_t)t; /* the pool is the one thing that changes, under its lock */
    pthread_mutex_lock(&w->lock);
    encoder *x = w->pool;
    if (x) w->pool = x->next;
    pthread_mutex_unlock(&w->lock);
    if (!x) return encoder_new(t, out, e);
    *out = x;
    return TL_OK;
}

void encoder_give(encoder *x) {
    if (!x) return;
    tokenizer *w = (tokenizer *)(uintptr_t)x->t;
    x->inside = false;
    pthread_mutex_lock(&w->lock);
    x->next = w->pool;
    w->pool = x;
    pthread_mutex_unlock(&w->lock);
}

void encoder_drop_pool(tokenizer *t) {
    while (t->pool) {
        encoder *x = t->pool;
        t->pool = x->next;
        encoder_free(x);
    }
}

/* Byte-level with one of our scanners, and nothing that rewrites the text. */
static bool encoder_fast(const tokenizer *t) {
    return t->model == MODEL_BPE && t->byte_level && (!t->normalizer || t->normalizer->byte_level) && t->pre &&
           t->pre->fast && !t->bpe->prefix && !t->bpe->suffix;
}

static bool encoder_cuts(const tokenizer *t) {
    return t->cut_words || t->cut_lines;
}

bool encoder_inside(const encoder *x) {
    return x->inside;
}

void encoder_set_inside(encoder *x, bool inside) {
    x->inside = inside;
}

bool encoder_streams(const tokenizer *t) {
    if (encoder_cuts(t)) return true;
    return t->model == MODEL_BYTES || t->model == MODEL_CHARS || (encoder_fast(t) && t->pre->scanner != SPLIT_NONE) ||
           (t->model == MODEL_BPE && t->byte_level && !t->normalizer && t->pre && t->pre->stream);
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static tl_status encode_model(encoder *x, const uint8_t *p, size_t len, size_t *n, tl_error *e) {
    const tokenizer *t = x->t;
    switch (t->model) {
    case MODEL_BPE: return bpe_piece(t->bpe, &t->voc, &x->scratch, p, len, n, e);
    case MODEL_UNIGRAM: return unigram_piece(t->unigram, &x->scratch, p, len, n, e);
    case MODEL_WORDPIECE: return wordpiece_piece(t->wordpiece, &t->voc, &x->scratch, p, len, n, e);
    default: break;
    }
    int32_t id = vocab_find(&t->voc, (const char *)p, len);
    if (id < 0) id = t->unk;
    if (!bpe_scratch_room(&x->scratch, 1)) return error_set(e, TL_NOMEM, "no memory for a piece");
    x->scratch.id[0] = id;
    *n = id >= 0;
    return id >= 0 ? TL_OK : error_set(e, TL_CONFIG, "a word is not in the vocabulary and there is no unknown token");
}

/* What token number i of a piece spells: without the mark of a continuation. */
static const char *encode_spelling(const tokenizer *t, int32_t id, size_t i, size_t *k) {
    const char *prefix = t->wordpiece ? t->wordpiece->prefix : t->bpe ? t->bpe->prefix : NULL;
    const char *text = vocab_text(&t->voc, id, k);
    size_t skip = prefix && i ? strlen(prefix) : 0;
    if (!skip || *k < skip || memcmp(text, prefix, skip) != 0) return text;
    *k -= skip;
    return text + skip;
}

/* Bytes of piece p[0..len) that token number i of ids stands for. An unknown token is a character, or, where unknown
 * ones are joined, stretches to the next known one. */
static size_t encode_extent(const encoder *x, const int32_t *id, size_t n, size_t i, const uint8_t *p, size_t len) {
    const tokenizer *t = x->t;
    size_t k;
    if (i + 1 == n) return len;
    if (t->voc.entry[id[i]].flags & VOCAB_BYTE) return len ? 1 : 0;
    const char *text = encode_spelling(t, id[i], i, &k);
    if (id[i] != t->unk && k <= len && !memcmp(text, p, k)) return k;
    uint32_t cp;
    size_t at = len ? unicode_decode(p, p + len, &cp, NULL) : 0;
    if (t->bpe && !t->bpe->fuse_unk) return at;
    text = encode_spelling(t, id[i + 1], i + 1, &k);
    while (at < len && (k > len - at || memcmp(text, p + at, k))) at += unicode_decode(p + at, p + len, &cp, NULL);
    return at;
}

/* Appends n ids of the scratch. from: where the piece's bytes came from (spans only). */
static tl_status encode_append(encoder *x, const uint8_t *p, size_t len, const text_buf *a, size_t begin, size_t base,
                               size_t n, token_list *out, tl_error *e) {
    const int32_t *id = x->scratch.id;
    if (!token_list_reserve(out, n)) return error_set(e, TL_NOMEM, "no memory for ids");
    if (n) memcpy(out->id + out->n, id, n * sizeof *id);
    for (size_t i = 0, at = 0; out->want_spans && i < n; i++) {
        size_t k = encode_extent(x, id, n, i, p + at, len - at);
        out->span[out->n + i] = a ? text_from(a, begin + at, begin + at + k) : (token_span){base + at, base + at + k};
        at += k;
    }
    out->n += n;
    return TL_OK;
}

static tl_status encode_piece(encoder *x, const uint8_t *p, size_t len, const text_buf *a, size_t begin, size_t base,
                              token_list *out, tl_error *e) {
    size_t n = 0;
    bool cached = x->cache && len <= PIECE_CACHE_KEY;
    piece_entry *c = NULL;
    if (cached) {
        piece_key key = piece_key_of(p, len, false);
        c = piece_cache_at(x->cache, key);
        if (piece_entry_is(c, key)) {
            if (!bpe_scratch_room(&x->scratch, PIECE_CACHE_IDS)) return error_set(e, TL_NOMEM, "no memory for a piece");
            memcpy(x->scratch.id, c->id, sizeof c->id);
            return encode_append(x, p, len, a, begin, base, c->n, out, e);
        }
        TRY(encode_model(x, p, len, &n, e));
        if (n <= PIECE_CACHE_IDS) piece_entry_set(c, key, x->scratch.id, n);
    } else {
        TRY(encode_model(x, p, len, &n, e));
    }
    return encode_append(x, p, len, a, begin, base, n, out, e);
}

enum { ENCODE_BATCH = 16 };

typedef struct encode_ahead { /* a piece found, its cache entry on the way from memory */
    const uint8_t *p;
    size_t len;
    piece_key key;
    const piece_entry *entry;
} encode_ahead;

/* Finds the next pieces; true: the last one must wait for more text. */
static inline size_t encode_look(const encoder *x, split_fn split, const uint8_t **p, const uint8_t *end, bool final,
                                 encode_ahead *out, bool *wait) {
    const unicode_table *u = x->t->uni;
    size_t n = 0;
    while (n < ENCODE_BATCH && *p < end) {
        bool hit = false;
        const uint8_t *q = split ? split(u, *p, end, &hit) : end;
        if (hit && !final) {
            *wait = true;
            break;
        }
        encode_ahead *a = &out[n++];
        a->p = *p;
        a->len = (size_t)(q - *p);
        if (a->len <= PIECE_CACHE_KEY) {
            a->key = piece_key_of(*p, a->len, end - *p >= 16);
            a->entry = piece_cache_at(x->cache, a->key);
            __builtin_prefetch(a->entry);
        }
        *p = q;
    }
    return n;
}

/* The loop everything is fast for: scanner, cache, copy. */
static tl_status encode_fast(encoder *x, const uint8_t *s, size_t n, size_t base, bool final, size_t *used,
                             token_list *out, tl_error *e) {
    split_fn split = split_of(x->t->pre->scanner);
    const uint8_t *p = s, *end = s + n;
    encode_ahead ahead[ENCODE_BATCH];
    bool wait = false;
    while (p < end && !wait) {
        size_t k = encode_look(x, split, &p, end, final, ahead, &wait);
        if (out->cap - out->n < ENCODE_BATCH * PIECE_CACHE_IDS &&
            !token_list_reserve(out, ENCODE_BATCH * PIECE_CACHE_IDS))
            return error_set(e, TL_NOMEM, "no memory for ids");
        for (size_t i = 0; i < k; i++) {
            const encode_ahead *a = &ahead[i];
            if (a->len <= PIECE_CACHE_KEY && !out->want_spans && out->cap - out->n >= PIECE_CACHE_IDS &&
                piece_entry_is(a->entry, a->key)) {
                int32_t *to = out->id + out->n;
                memcpy(to, a->entry->id, 4 * sizeof *to);
                if (a->entry->n > 4) memcpy(to + 4, a->entry->id + 4, (PIECE_CACHE_IDS - 4) * sizeof *to);
                out->n += a->entry->n;
                continue;
            }
            TRY(encode_piece(x, a->p, a->len, NULL, 0, base + (size_t)(a->p - s), out, e));
        }
    }
    *used = (size_t)(p - s);
    return TL_OK;
}

/* Byte-level with a foreign pattern that isolates its matches; the text between matches is pieces too. */
static tl_status encode_pattern(encoder *x, const uint8_t *s, size_t n, size_t base, bool final, size_t *used,
                                token_list *out, tl_error *e) {
    size_t at = 0, cut = 0;
    for (size_t k = 1; !final && k < 4 && k <= n; k++)
        if (unicode_unfinished(s + n - k, s + n)) cut = k;
    n -= cut; /* half a character must not look like a broken one */
    while (at < n) {
        bool found = false, open = false;
        size_t begin = n, end = n, look = at;
        do { /* empty matches cut nothing */
            TRY(regex_next(x->t->pre->stream, (const char *)s, n, look, !final, &found, &begin, &end, &open, e));
            for (look = end + 1; look < n && (s[look] & 0xc0) == 0x80;) look++;
        } while (found && begin == end && look < n);
        if (found && begin == end) found = false;
        if (!final && (open || !found)) break;
        if (!found) begin = end = n;
        if (begin > at) TRY(encode_piece(x, s + at, begin - at, NULL, 0, base + at, out, e));
        if (end > begin) TRY(encode_piece(x, s + begin, end - begin, NULL, 0, base + begin, out, e));
        at = end;
    }
    *used = at;
    return TL_OK;
}

/* ---- the general way ------------------------------------------------------------------------- */

/* Normalized text x->a[begin..end) between added tokens, cut and encoded. */
static tl_status encode_normal(encoder *x, const text_buf *a, size_t begin, size_t end, bool first, token_list *out,
                               tl_error *e) {
    text_buf part, spare;
    text_init(&part, a->alloc);
    text_init(&spare, a->alloc);
    text_reset(&part, a->spans);
    text_copy(&part, a, begin, end);
    text_piece(&part, 0, part.n);
    tl_status s = part.failed ? error_set(e, TL_NOMEM, "no memory for the text") : TL_OK;
    if (s == TL_OK && x->t->pre) s = pretokenizer_run(x->t->pre, x->t->uni, first, &part, &spare, e);
    for (size_t i = 0; i < part.pieces && s == TL_OK; i++) {
        token_span c = part.piece[i];
        s = encode_piece(x, (const uint8_t *)part.s + c.begin, c.end - c.begin, &part, c.begin, 0, out, e);
    }
    text_fini(&part);
    text_fini(&spare);
    return s;
}

/* The same piece by piece, where borders are sure. */
static tl_status encode_words(encoder *x, const text_buf *a, size_t begin, size_t end, token_list *out, tl_error *e) {
    const char *s = a->s + begin;
    size_t n = end - begin;
    for (size_t at = 0, to; at < n; at = to) {
        to = at + 1;
        while (to < n && !cut_here(x->t, s, n, to, false)) to++;
        TRY(encode_piece(x, (const uint8_t *)s + at, to - at, a, begin + at, 0, out, e));
    }
    return TL_OK;
}

static tl_status encode_general(encoder *x, const char *text, size_t n, size_t base, bool special, token_list *out,
                                tl_error *e) {
    const tokenizer *t = x->t;
    text_buf *a = &x->a;
    text_reset(a, out->want_spans);
    text_put(a, text, n, (token_span){0, 0});
    for (size_t i = 0; a->spans && !a->failed && i < n; i++) a->from[i] = (token_span){base + i, base + i + 1};
    if (a->failed) return error_set(e, TL_NOMEM, "no memory for the text");
    if (t->normalizer) TRY(normalizer_run(t->normalizer, t->uni, x->inside, a, &x->b, e));
    for (size_t at = 0; at < a->n;) {
        added_match m;
        bool found = added_next(t->added, t->uni, 1, special, a->s, at, a->n, &m);
        size_t end = found ? m.begin : a->n;
        if (end > at && encoder_cuts(t))
            TRY(encode_words(x, a, at, end, out, e));
        else if (end > at)
            TRY(encode_normal(x, a, at, end, base == 0 && at == 0, out, e));
        if (!found) break;
        token_span from = text_from(a, m.begin, m.end);
        if (!token_list_add(out, m.token->id, from.begin, from.end)) return error_set(e, TL_NOMEM, "no memory for ids");
        at = m.end;
    }
    return TL_OK;
}

/* Text between added tokens. */
static tl_status encode_plain(encoder *x, const char *text, size_t n, size_t base, unsigned flags, bool final,
                              size_t *used, token_list *out, tl_error *e) {
    const tokenizer *t = x->t;
    const uint8_t *s = (const uint8_t *)text;
    *used = n;
    if (t->model == MODEL_BYTES || t->model == MODEL_CHARS) {
        if (t->model == MODEL_CHARS && !final)
            for (size_t k = 1; k < 4 && k <= n; k++)
                if (unicode_unfinished(s + n - k, s + n)) *used = n - k;
        return chars_encode(t, s, *used, base, out, e);
    }
    bool special = flags & TOKENIZER_PARSE, normal = false;
    if (t->added && (special ? t->added->count[1] : t->added->plain[1])) normal = true; /* looked for after it */
    bool bytes = t->model == MODEL_BPE && t->byte_level && !normal;
    bool same = !t->normalizer || t->normalizer->byte_level || (t->normalizer->only_nfc && normalize_is_nfc(s, n));
    if (bytes && t->pre && t->pre->fast && same && !t->bpe->prefix && !t->bpe->suffix)
        return encode_fast(x, s, n, base, final, used, out, e);
    if (bytes && t->pre && t->pre->stream && !t->normalizer) return encode_pattern(x, s, n, base, final, used, out, e);
    if (!final) {
        size_t cut = encoder_cuts(t) && n ? n - 1 : 0;
        while (cut && !cut_here(t, text, n, cut, true)) cut--;
        *used = cut;
        if (!cut) return TL_OK;
    }
    tl_status st = encode_general(x, text, *used, base, special, out, e);
    x->inside = true;
    return st;
}

tl_status encoder_run(encoder *x, const char *text, size_t n, size_t base, unsigned flags, bool final, size_t *used,
                      token_list *out, tl_error *e) {
    const added *d = x->t->added;
    bool special = flags & TOKENIZER_PARSE;
    size_t longest = d && (special ? d->count[0] : d->plain[0]) ? d->longest[0] : 0;
    *used = 0;
    if (!final && !encoder_streams(x->t)) return TL_OK;
    for (;;) {
        added_match m;
        size_t from = *used, part;
        bool found = added_next(d, x->t->uni, 0, special, text, from, n, &m);
        /* no longer token may begin at its place, no white space that belongs to it may follow */
        bool sure = found && (final || m.end + longest <= n);
        size_t end = found ? m.begin : n;
        if (!found && !final && longest > 1) /* a token may begin in the last bytes */
            end = n >= from + longest - 1 ? n - (longest - 1) : from;
        if (end > from) {
            TRY(encode_plain(x, text + from, end - from, base + from, flags, sure || (!found && final), &part, out, e));
            *used += part;
            if (part < end - from) return TL_OK;
        }
        if (!sure) {
            if (final) x->inside = false;
            return TL_OK;
        }
        if (!token_list_add(out, m.token->id, base + m.begin, base + m.end))
            return error_set(e, TL_NOMEM, "no memory for ids");
        *used = m.end;
        x->inside = false;
    }
}

static tl_status encode_extra(const int32_t *id, size_t n, size_t at, token_list *out, tl_error *e) {
    for (size_t i = 0; i < n; i++)
        if (!token_list_add(out, id[i], at, at)) return error_set(e, TL_NOMEM, "no memory for ids");
    return TL_OK;
}

tl_status tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, token_list *out,
                           tl_error *e) {
    encoder *x;
    size_t used, old = out->n;
    TRY(encoder_take(t, &x, e));
    tl_status s = TL_OK;
    if (flags & TOKENIZER_ADD) s = encode_extra(t->prefix, t->prefix_n, 0, out, e);
    if (s == TL_OK) s = encoder_run(x, text, n, 0, flags, true, &used, out, e);
    if (s == TL_OK && (flags & TOKENIZER_ADD)) s = encode_extra(t->suffix, t->suffix_n, n, out, e);
    encoder_give(x);
    if (s != TL_OK) out->n = old;
    return s;
}
