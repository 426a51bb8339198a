#include "tokenizer/unpack.h"
#include <string.h>

void unpack_free(unpacker *u) {
    (void)u;
}

static tl_status unpack_bytes(const tokenizer *t, int32_t id, unsigned flags, str *out, tl_error *e) {
    size_t n;
    const char *text = vocab_text(&t->voc, id, &n);
    if (!text) return error_set(e, TL_ARG, "id %d is not in the vocabulary of %lld", id, (long long)t->voc.n);
    if ((flags & TOKENIZER_SKIP) && tokenizer_is_special(t, id)) return TL_OK;
    str_add(out, text, n);
    return TL_OK;
}

/* Appends s[0..n) with every bad byte sequence replaced. */
static void unpack_replace(const uint8_t *s, size_t n, str *out) {
    for (size_t i = 0; i < n;) {
        size_t good = i;
        uint32_t cp;
        bool bad = false;
        unsigned len = 0;
        while (good < n && (len = unicode_decode(s + good, s + n, &cp, &bad), !bad)) good += len;
        str_add(out, s + i, good - i);
        if (good < n) {
            str_add(out, "\xef\xbf\xbd", 3);
            good += len;
        }
        i = good;
    }
}

tl_status tokenizer_decode(const tokenizer *t, const int32_t *id, size_t n, unsigned flags, str *out, tl_error *e) {
    str raw;
    str_init(&raw, t->alloc);
    tl_status s = TL_OK;
    for (size_t i = 0; i < n && s == TL_OK; i++) s = unpack_bytes(t, id[i], flags, &raw, e);
    if (s == TL_OK && raw.failed) s = error_set(e, TL_NOMEM, "no memory for the text");
    if (s == TL_OK) {
        if (flags & TOKENIZER_REPLACE)
            unpack_replace((const uint8_t *)raw.data, raw.len, out);
        else
            str_add(out, raw.data, raw.len);
        if (out->failed) s = error_set(e, TL_NOMEM, "no memory for the text");
    }
    str_fini(&raw);
    return s;
}

void token_decoder_init(token_decoder *d, const tokenizer *t, unsigned flags) {
    memset(d, 0, sizeof *d);
    d->t = t;
    d->flags = flags;
}

/* Passes whole characters on, keeps the unfinished one. */
static void unpack_flow(token_decoder *d, const uint8_t *s, size_t n, str *out) {
    uint8_t join[16];
    while (d->held_n && n) { /* finish the held character byte by byte: it needs at most three */
        memcpy(join, d->held, d->held_n);
        join[d->held_n] = *s;
        uint32_t cp;
        bool bad;
        unsigned len = unicode_decode(join, join + d->held_n + 1, &cp, &bad);
        if (bad && unicode_unfinished(join, join + d->held_n + 1)) {
            d->held[d->held_n++] = *s++;
            n--;
            continue;
        }
        if (bad) { /* the held bytes were a broken character; this byte begins anew */
            unpack_replace(d->held, d->held_n, out);
        } else {
            str_add(out, join, len);
            s++, n--;
        }
        d->held_n = 0;
    }
    size_t keep = 0;
    for (size_t k = 1; k < 4 && k <= n; k++)
        if (unicode_unfinished(s + n - k, s + n)) keep = k;
    unpack_replace(s, n - keep, out);
    if (keep) memcpy(d->held, s + n - keep, keep);
    if (keep) d->held_n = keep;
}

tl_status token_decoder_push(token_decoder *d, int32_t id, str *out, tl_error *e) {
    str raw;
    str_init(&raw, d->t->alloc);
    tl_status s = unpack_bytes(d->t, id, d->flags, &raw, e);
    if (s == TL_OK) unpack_flow(d, (const uint8_t *)raw.data, raw.len, out);
    if (s == TL_OK && (raw.failed || out->failed)) s = error_set(e, TL_NOMEM, "no memory for the text");
    str_fini(&raw);
    return s;
}

tl_status token_decoder_finish(token_decoder *d, str *out, tl_error *e) {
    unpack_replace(d->held, d->held_n, out);
    mem_free(d->t->alloc, d->id);
    token_decoder_init(d, d->t, d->flags);
    return out->failed ? error_set(e, TL_NOMEM, "no memory for the text") : TL_OK;
}
