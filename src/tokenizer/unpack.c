#include "tokenizer/unpack.h"
#include <string.h>

static tl_status unpack_id(const tokenizer *t, int32_t id, const char **text, size_t *n, tl_error *e) {
    *text = vocab_text(&t->voc, id, n);
    return *text ? TL_OK : error_set(e, TL_ARG, "id %d is not in the vocabulary of %lld", id, (long long)t->voc.n);
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

static bool unpack_flows(const tokenizer *t) {
    if (t->unpack) return t->unpack->flows;
    return t->model != MODEL_WORDLEVEL && t->model != MODEL_WORDPIECE && t->model != MODEL_UNIGRAM &&
           (t->model != MODEL_BPE || t->byte_level);
}

/* One token of a flowing chain, appended to out. *strip: blanks still to take from the text's beginning. */
static void unpack_one(const tokenizer *t, int32_t id, const char *s, size_t n, bool first, size_t *strip, str *out) {
    const unpacker *u = t->unpack;
    size_t begin = out->len;
    if (u && u->fallback && (t->voc.entry[id].flags & VOCAB_BYTE)) {
        char hex[3] = {s[3], s[4], 0};
        unsigned byte = 0;
        for (int i = 0; i < 2; i++)
            byte = byte << 4 | (unsigned)(hex[i] <= '9' ? hex[i] - '0' : (hex[i] | 32) - 'a' + 10);
        str_addc(out, (char)byte);
    } else if (u && u->mark) {
        size_t k = strlen(u->mark), at = 0;
        while (at < n) {
            const char *hit = memmem(s + at, n - at, u->mark, k);
            size_t to = hit ? (size_t)(hit - s) : n;
            str_add(out, s + at, to - at);
            if (hit && !(first && u->drop_mark)) str_addc(out, ' ');
            at = hit ? to + k : n;
        }
    } else {
        str_add(out, s, n);
    }
    while (*strip && out->len > begin && out->data[begin] == ' ') {
        memmove(out->data + begin, out->data + begin + 1, out->len - begin); /* the zero too */
        out->len--;
        --*strip;
    }
    if (out->len > begin) *strip = 0; /* something else has begun the text */
}

static tl_status unpack_chain(const tokenizer *t, const int32_t *id, size_t n, unsigned flags, str *out, tl_error *e) {
    text_buf a, b;
    text_init(&a, t->alloc);
    text_init(&b, t->alloc);
    tl_status s = TL_OK;
    for (size_t i = 0; i < n && s == TL_OK; i++) {
        const char *text;
        size_t len, begin = a.n;
        s = unpack_id(t, id[i], &text, &len, e);
        if (s != TL_OK || ((flags & TOKENIZER_SKIP) && tokenizer_is_special(t, id[i]))) continue;
        if (!t->unpack && a.pieces) text_put(&a, " ", 1, (token_span){0, 0}); /* without a decoder: words */
        text_put(&a, text, len, (token_span){0, 0});
        if (!mem_reserve(t->alloc, &a.piece, &a.piece_cap, a.pieces + 1))
            a.failed = true;
        else
            a.piece[a.pieces++] = (token_span){begin, a.n};
    }
    if (s == TL_OK && a.failed) s = error_set(e, TL_NOMEM, "no memory for the text");
    if (s == TL_OK && t->unpack) s = unpack_run(t->unpack, &a, &b, e);
    if (s == TL_OK) str_add(out, a.s, a.n);
    text_fini(&a);
    text_fini(&b);
    return s;
}

static tl_status unpack_raw(const tokenizer *t, const int32_t *id, size_t n, unsigned flags, str *out, tl_error *e) {
    if (!unpack_flows(t)) return unpack_chain(t, id, n, flags, out, e);
    size_t strip = t->unpack ? t->unpack->strip : 0;
    bool first = true;
    for (size_t i = 0; i < n; i++) {
        const char *text;
        size_t len;
        TRY(unpack_id(t, id[i], &text, &len, e));
        if ((flags & TOKENIZER_SKIP) && tokenizer_is_special(t, id[i])) continue;
        unpack_one(t, id[i], text, len, first, &strip, out);
        first = false;
    }
    return TL_OK;
}

tl_status tokenizer_decode(const tokenizer *t, const int32_t *id, size_t n, unsigned flags, str *out, tl_error *e) {
    str raw;
    str_init(&raw, t->alloc);
    tl_status s = unpack_raw(t, id, n, flags, &raw, e);
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

/* ---- incremental ----------------------------------------------------------------------------- */

void token_decoder_init(token_decoder *d, const tokenizer *t, unsigned flags) {
    memset(d, 0, sizeof *d);
    d->t = t;
    d->flags = flags;
    d->strip = t->unpack ? t->unpack->strip : 0;
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

/* Chains that look around: decode anew, give what is new. The last token may still change (the last one of a word
 * ends differently), so all but it is given. */
static tl_status unpack_again(token_decoder *d, bool end, str *raw, tl_error *e) {
    str all;
    str_init(&all, d->t->alloc);
    tl_status s = unpack_chain(d->t, d->id, d->id_n, d->flags, &all, e);
    size_t upto = all.len;
    if (s == TL_OK && !end && d->id_n) {
        str less;
        str_init(&less, d->t->alloc);
        s = unpack_chain(d->t, d->id, d->id_n - 1, d->flags, &less, e);
        upto = 0; /* what both have in common is certain */
        while (upto < less.len && upto < all.len && less.data[upto] == all.data[upto]) upto++;
        if (less.failed) s = error_set(e, TL_NOMEM, "no memory for the text");
        str_fini(&less);
    }
    if (s == TL_OK && all.failed) s = error_set(e, TL_NOMEM, "no memory for the text");
    if (s == TL_OK && upto > d->sent) {
        str_add(raw, all.data + d->sent, upto - d->sent);
        d->sent = upto;
    }
    str_fini(&all);
    return s;
}

tl_status token_decoder_push(token_decoder *d, int32_t id, str *out, tl_error *e) {
    str raw;
    const char *text;
    size_t n;
    TRY(unpack_id(d->t, id, &text, &n, e));
    if ((d->flags & TOKENIZER_SKIP) && tokenizer_is_special(d->t, id)) return TL_OK;
    str_init(&raw, d->t->alloc);
    tl_status s = TL_OK;
    if (unpack_flows(d->t)) {
        unpack_one(d->t, id, text, n, !d->started, &d->strip, &raw);
        d->started = true;
    } else if (!mem_reserve(d->t->alloc, &d->id, &d->id_cap, d->id_n + 1)) {
        s = error_set(e, TL_NOMEM, "no memory for the text");
    } else {
        d->id[d->id_n++] = id;
        s = unpack_again(d, false, &raw, e);
    }
    if (s == TL_OK) unpack_flow(d, (const uint8_t *)raw.data, raw.len, out);
    if (s == TL_OK && (raw.failed || out->failed)) s = error_set(e, TL_NOMEM, "no memory for the text");
    str_fini(&raw);
    return s;
}

tl_status token_decoder_finish(token_decoder *d, str *out, tl_error *e) {
    str raw;
    str_init(&raw, d->t->alloc);
    tl_status s = d->id_n ? unpack_again(d, true, &raw, e) : TL_OK;
    unpack_flow(d, (const uint8_t *)raw.data, raw.len, out);
    unpack_replace(d->held, d->held_n, out);
    if (s == TL_OK && (raw.failed || out->failed)) s = error_set(e, TL_NOMEM, "no memory for the text");
    str_fini(&raw);
    mem_free(d->t->alloc, d->id);
    token_decoder_init(d, d->t, d->flags);
    return s;
}
