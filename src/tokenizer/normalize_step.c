#include "tokenizer/normalize_step.h"
#include <string.h>

typedef struct normalize_char {
    uint32_t cp;
    size_t at, n;
    bool bad;
} normalize_char;

static bool normalize_next(const text_buf *a, size_t *at, normalize_char *c) {
    if (*at >= a->n) return false;
    const uint8_t *p = (const uint8_t *)a->s;
    c->at = *at;
    c->n = unicode_decode(p + *at, p + a->n, &c->cp, &c->bad);
    *at += c->n;
    return true;
}

static void normalize_strip(const normalize_step *s, const unicode_table *u, const text_buf *a, text_buf *b) {
    size_t at = 0, begin = a->n, end = 0;
    normalize_char c;
    while (normalize_next(a, &at, &c))
        if (unicode_of(u, c.cp) != UNICODE_SPACE) {
            if (begin == a->n) begin = c.at;
            end = at;
        }
    if (begin == a->n) end = a->n; /* all white: gone if either side is stripped */
    if (begin == a->n && (s->left || s->right)) return;
    text_copy(b, a, s->left ? begin : 0, s->right ? end : a->n);
}

static bool normalize_is_chinese(uint32_t c) {
    return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B73F) || (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) ||
           (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* clean_text: control characters go, white space becomes a blank. handle_chinese_chars: blanks around each. */
static void normalize_bert_clean(const normalize_step *s, const unicode_table *u, const text_buf *a, text_buf *b) {
    size_t at = 0;
    normalize_char c;
    while (normalize_next(a, &at, &c)) {
        token_span from = text_from(a, c.at, at);
        bool white = c.cp == '\t' || c.cp == '\n' || c.cp == '\r' || unicode_of(u, c.cp) == UNICODE_SPACE;
        if (s->clean && (c.cp == 0 || c.cp == 0xfffd || (!white && normalize_is_control(c.cp)))) continue;
        if (s->clean && white)
            text_put(b, " ", 1, from);
        else if (s->chinese && normalize_is_chinese(c.cp)) {
            text_put(b, " ", 1, from);
            text_copy(b, a, c.at, at);
            text_put(b, " ", 1, from);
        } else {
            text_copy(b, a, c.at, at);
        }
    }
}

static void normalize_drop_marks(const text_buf *a, text_buf *b, bool only_mn) {
    size_t at = 0;
    normalize_char c;
    while (normalize_next(a, &at, &c))
        if (!(only_mn ? normalize_is_mn(c.cp) : normalize_is_mark(c.cp))) text_copy(b, a, c.at, at);
}

static void normalize_swap(text_buf *a, text_buf *b) {
    text_buf t = *a;
    *a = *b;
    *b = t;
    text_reset(b, a->spans);
}

static tl_status normalize_bert(const normalize_step *s, const unicode_table *u, const text_buf *in, text_buf *out,
                                tl_error *e) {
    text_buf a, b;
    text_init(&a, in->alloc);
    text_init(&b, in->alloc);
    text_reset(&a, in->spans);
    text_reset(&b, in->spans);
    tl_status st = TL_OK;
    if (s->clean || s->chinese)
        normalize_bert_clean(s, u, in, &a);
    else
        text_copy(&a, in, 0, in->n);
    if (s->accents) {
        st = normalize_form(NORMALIZE_NFD, &a, &b, e);
        normalize_swap(&a, &b);
        normalize_drop_marks(&a, &b, true);
        normalize_swap(&a, &b);
    }
    if (st == TL_OK && s->lower) {
        normalize_lower(&a, &b);
        normalize_swap(&a, &b);
    }
    text_copy(out, &a, 0, a.n);
    if (a.failed || b.failed) out->failed = true;
    text_fini(&a);
    text_fini(&b);
    return st;
}

static void normalize_nmt(const text_buf *a, text_buf *b) {
    size_t at = 0;
    normalize_char c;
    while (normalize_next(a, &at, &c)) {
        uint32_t x = c.cp;
        if ((x >= 1 && x <= 8) || x == 0xb || (x >= 0xe && x <= 0x1f) || x == 0x7f || x == 0x8f || x == 0x9f) continue;
        if (x == 9 || x == 0xa || x == 0xc || x == 0xd || x == 0x1680 || (x >= 0x200b && x <= 0x200f) || x == 0x2028 ||
            x == 0x2029 || x == 0x2581 || x == 0xfeff || x == 0xfffd)
            text_put(b, " ", 1, text_from(a, c.at, at));
        else
            text_copy(b, a, c.at, at);
    }
}

static void normalize_replace_string(const normalize_step *s, const text_buf *a, text_buf *b) {
    size_t at = 0;
    while (at < a->n) {
        const char *hit = memmem(a->s + at, a->n - at, s->text, s->text_n);
        size_t to = hit ? (size_t)(hit - a->s) : a->n;
        text_copy(b, a, at, to);
        if (!hit) return;
        at = to + s->text_n;
        text_put(b, s->content, s->content_n, text_from(a, to, at));
    }
}

static tl_status normalize_replace_pattern(const normalize_step *s, const text_buf *a, text_buf *b, tl_error *e) {
    size_t at = 0, look = 0;
    while (look <= a->n) {
        bool found;
        size_t begin, end;
        TRY(regex_next(s->pattern, a->n ? a->s : "", a->n, look, false, &found, &begin, &end, NULL, e));
        if (!found) break;
        if (end == begin) { /* an empty match replaces nothing, as in the ecosystem */
            look = end + 1;
            continue;
        }
        text_copy(b, a, at, begin);
        text_put(b, s->content, s->content_n, text_from(a, begin, end));
        at = look = end;
    }
    text_copy(b, a, at, a->n);
    return TL_OK;
}

tl_status normalize_apply(const normalize_step *s, const unicode_table *u, const text_buf *a, text_buf *b,
                          tl_error *e) {
    switch (s->kind) {
    case NORMALIZE_NFC:
    case NORMALIZE_NFD:
    case NORMALIZE_NFKC:
    case NORMALIZE_NFKD: return normalize_form(s->kind, a, b, e);
    case NORMALIZE_LOWERCASE: normalize_lower(a, b); return TL_OK;
    case NORMALIZE_STRIP: normalize_strip(s, u, a, b); return TL_OK;
    case NORMALIZE_STRIP_ACCENTS: normalize_drop_marks(a, b, false); return TL_OK;
    case NORMALIZE_BERT: return normalize_bert(s, u, a, b, e);
    case NORMALIZE_NMT: normalize_nmt(a, b); return TL_OK;
    case NORMALIZE_REPLACE:
        if (s->pattern) return normalize_replace_pattern(s, a, b, e);
        normalize_replace_string(s, a, b);
        return TL_OK;
    case NORMALIZE_PREPEND:
        if (a->n) text_put(b, s->content, s->content_n, text_from(a, 0, 0));
        text_copy(b, a, 0, a->n);
        return TL_OK;
    case NORMALIZE_PRECOMPILED: normalize_precompiled(s, a, b); return TL_OK;
    case NORMALIZE_BYTE_LEVEL: break;
    }
    text_copy(b, a, 0, a->n);
    return TL_OK;
}
