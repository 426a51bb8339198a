/* Each pre-tokenizer copies the text of its pieces to a new buffer, cutting them on the way. */
#include "tokenizer/pretoken.h"
#include <string.h>

typedef struct pretoken_cut { /* collects pieces of b while delimiters and the rest go by in order */
    pretoken_behavior behavior;
    const text_buf *a;
    text_buf *b;
    size_t begin; /* of the open piece in b */
    bool last_delim, any;
} pretoken_cut;

static void pretoken_close(pretoken_cut *c) {
    text_piece(c->b, c->begin, c->b->n);
    c->begin = c->b->n;
}

/* The next part of a: a match of the delimiter or what lies between two. */
static void pretoken_part(pretoken_cut *c, size_t begin, size_t end, bool delim) {
    if (begin == end) return;
    if (c->behavior == PRETOKEN_REMOVED && delim) {
        pretoken_close(c);
        return;
    }
    bool join = false;
    if (c->any) switch (c->behavior) {
        case PRETOKEN_WITH_PREVIOUS: join = delim && !c->last_delim; break;
        case PRETOKEN_WITH_NEXT: join = !delim && c->last_delim; break;
        case PRETOKEN_CONTIGUOUS: join = delim == c->last_delim; break;
        case PRETOKEN_REMOVED:
        case PRETOKEN_ISOLATED: break;
        }
    if (!join) pretoken_close(c);
    text_copy(c->b, c->a, begin, end);
    c->last_delim = delim;
    c->any = true;
}

typedef bool (*pretoken_test)(const unicode_table *u, const pretoken_step *s, uint32_t cp);

/* Delimiters are single characters. */
static void pretoken_by_char(pretoken_cut *c, const unicode_table *u, const pretoken_step *s, pretoken_test test,
                             size_t begin, size_t end) {
    const uint8_t *p = (const uint8_t *)c->a->s;
    size_t from = begin;
    for (size_t i = begin; i < end;) {
        uint32_t cp;
        size_t len = unicode_decode(p + i, p + end, &cp, NULL);
        if (test(u, s, cp)) {
            pretoken_part(c, from, i, false);
            pretoken_part(c, i, i + len, true);
            from = i + len;
        }
        i += len;
    }
    pretoken_part(c, from, end, false);
}

static bool pretoken_is_space(const unicode_table *u, const pretoken_step *s, uint32_t cp) {
    (void)s;
    return unicode_of(u, cp) == UNICODE_SPACE;
}

static bool pretoken_is_punct(const unicode_table *u, const pretoken_step *s, uint32_t cp) {
    (void)s;
    return (cp >= 33 && cp <= 47) || (cp >= 58 && cp <= 64) || (cp >= 91 && cp <= 96) || (cp >= 123 && cp <= 126) ||
           unicode_of(u, cp) == UNICODE_P;
}

static bool pretoken_is_digit(const unicode_table *u, const pretoken_step *s, uint32_t cp) {
    (void)s;
    return unicode_of(u, cp) == UNICODE_N;
}

static void pretoken_by_string(pretoken_cut *c, const pretoken_step *s, size_t begin, size_t end) {
    size_t at = begin;
    while (at < end) {
        const char *hit = memmem(c->a->s + at, end - at, s->text, s->text_n);
        size_t to = hit ? (size_t)(hit - c->a->s) : end;
        pretoken_part(c, at, to, s->invert);
        if (!hit) return;
        at = to + s->text_n;
        pretoken_part(c, to, at, !s->invert);
    }
}

static tl_status pretoken_by_pattern(pretoken_cut *c, const pretoken_step *s, size_t begin, size_t end, tl_error *e) {
    const char *text = c->a->s + begin;
    size_t n = end - begin, at = 0, look = 0;
    while (look < n) {
        bool found;
        size_t x, y;
        TRY(regex_next(s->pattern, text, n, look, false, &found, &x, &y, NULL, e));
        if (!found) break;
        if (y == x) { /* an empty match cuts nothing we could show */
            look = y + 1;
            while (look < n && ((uint8_t)text[look] & 0xc0) == 0x80) look++;
            continue;
        }
        pretoken_part(c, begin + at, begin + x, s->invert);
        pretoken_part(c, begin + x, begin + y, !s->invert);
        at = look = y;
    }
    pretoken_part(c, begin + at, end, s->invert);
    return TL_OK;
}

static void pretoken_by_scanner(pretoken_cut *c, const unicode_table *u, split_kind kind, size_t begin, size_t end) {
    split_fn fn = split_of(kind);
    const uint8_t *s = (const uint8_t *)c->a->s, *p = s + begin;
    bool hit = false;
    while (p < s + end) {
        const uint8_t *q = fn ? fn(u, p, s + end, &hit) : s + end;
        pretoken_part(c, (size_t)(p - s), (size_t)(q - s), true);
        p = q;
    }
}

/* Blanks become the replacement, one is put in front, and pieces begin at each. */
static void pretoken_metaspace(pretoken_cut *c, const pretoken_step *s, bool first, size_t begin, size_t end) {
    const char *p = c->a->s;
    bool has = end - begin >= s->text_n && !memcmp(p + begin, s->text, s->text_n);
    pretoken_close(c);
    if (begin < end && !has && p[begin] != ' ' && (s->prepend == 2 || (s->prepend == 1 && first)))
        text_put(c->b, s->text, s->text_n, text_from(c->a, begin, begin));
    for (size_t i = begin; i < end;) {
        bool blank = p[i] == ' ', mark = end - i >= s->text_n && !memcmp(p + i, s->text, s->text_n);
        size_t len = mark ? s->text_n : 1;
        if (s->split && (blank || mark)) pretoken_close(c);
        if (blank)
            text_put(c->b, s->text, s->text_n, text_from(c->a, i, i + 1));
        else
            text_copy(c->b, c->a, i, i + len);
        i += len;
    }
}

static void pretoken_fixed(pretoken_cut *c, const pretoken_step *s, size_t begin, size_t end) {
    const uint8_t *p = (const uint8_t *)c->a->s;
    size_t from = begin, count = 0;
    for (size_t i = begin; i < end;) {
        uint32_t cp;
        i += unicode_decode(p + i, p + end, &cp, NULL);
        if (++count == s->length || i == end) {
            pretoken_part(c, from, i, true);
            from = i;
            count = 0;
        }
    }
}

/* \w+|[^\w\s]+, the rest goes. */
static void pretoken_words(pretoken_cut *c, const unicode_table *u, size_t begin, size_t end) {
    const uint8_t *p = (const uint8_t *)c->a->s;
    size_t from = begin;
    int last = 0; /* 1: in a word, 2: in something else, 0: in white space */
    for (size_t i = begin; i < end;) {
        uint32_t cp;
        size_t len = unicode_decode(p + i, p + end, &cp, NULL);
        int kind = unicode_is_word(u, cp) ? 1 : unicode_of(u, cp) == UNICODE_SPACE ? 0 : 2;
        if (kind != last) {
            if (last) pretoken_part(c, from, i, false);
            from = i;
            last = kind;
        }
        i += len;
    }
    if (last) pretoken_part(c, from, end, false);
}

/* White space goes, punctuation stands alone. */
static void pretoken_bert(pretoken_cut *c, const unicode_table *u, size_t begin, size_t end) {
    const uint8_t *p = (const uint8_t *)c->a->s;
    size_t from = begin;
    for (size_t i = begin; i < end;) {
        uint32_t cp;
        size_t len = unicode_decode(p + i, p + end, &cp, NULL);
        bool space = unicode_of(u, cp) == UNICODE_SPACE;
        if (space || pretoken_is_punct(u, NULL, cp)) {
            pretoken_part(c, from, i, false);
            if (!space) pretoken_part(c, i, i + len, false);
            from = i + len;
        }
        i += len;
    }
    pretoken_part(c, from, end, false);
}

/* A piece begins where the script changes; characters of none go along with what is before them, and at the beginning
 * go altogether, as they do in the other library. */
static void pretoken_scripts(pretoken_cut *c, size_t begin, size_t end) {
    const uint8_t *p = (const uint8_t *)c->a->s;
    size_t from = end;
    unsigned last = 0;
    for (size_t i = begin; i < end;) {
        uint32_t cp;
        size_t len = unicode_decode(p + i, p + end, &cp, NULL);
        unsigned script = unicode_script(cp);
        if (script && script != last) {
            if (last) pretoken_part(c, from, i, true);
            from = i;
            last = script;
        }
        i += len;
    }
    pretoken_part(c, from, end, true);
}

tl_status pretoken_apply(const pretoken_step *s, const unicode_table *u, bool first, const text_buf *a, text_buf *b,
                         tl_error *e) {
    for (size_t i = 0; i < a->pieces; i++) {
        size_t begin = a->piece[i].begin, end = a->piece[i].end;
        pretoken_cut c = {.behavior = s->behavior, .a = a, .b = b, .begin = b->n};
        switch (s->kind) {
        case PRETOKEN_BYTE_LEVEL:
            if (s->prefix_space && a->s[begin] != ' ') {
                /* the blank belongs to the piece, so a scanner must see both */
                text_buf joined;
                text_init(&joined, a->alloc);
                text_reset(&joined, a->spans);
                text_put(&joined, " ", 1, text_from(a, begin, begin));
                text_copy(&joined, a, begin, end);
                c.a = &joined;
                c.behavior = PRETOKEN_ISOLATED;
                if (!joined.failed) pretoken_by_scanner(&c, u, s->scanner, 0, joined.n);
                pretoken_close(&c);
                b->failed |= joined.failed;
                text_fini(&joined);
                continue;
            }
            c.behavior = PRETOKEN_ISOLATED;
            pretoken_by_scanner(&c, u, s->scanner, begin, end);
            break;
        case PRETOKEN_BERT:
            c.behavior = PRETOKEN_ISOLATED;
            pretoken_bert(&c, u, begin, end);
            break;
        case PRETOKEN_METASPACE: pretoken_metaspace(&c, s, first && i == 0, begin, end); break;
        case PRETOKEN_WHITESPACE_SPLIT:
            c.behavior = PRETOKEN_REMOVED;
            pretoken_by_char(&c, u, s, pretoken_is_space, begin, end);
            break;
        case PRETOKEN_WHITESPACE:
            c.behavior = PRETOKEN_ISOLATED;
            pretoken_words(&c, u, begin, end);
            break;
        case PRETOKEN_SPLIT:
            if (s->scanner != SPLIT_KINDS) {
                c.behavior = PRETOKEN_ISOLATED; /* our patterns match everywhere */
                pretoken_by_scanner(&c, u, s->scanner, begin, end);
            } else if (s->pattern)
                TRY(pretoken_by_pattern(&c, s, begin, end, e));
            else
                pretoken_by_string(&c, s, begin, end);
            break;
        case PRETOKEN_PUNCTUATION: pretoken_by_char(&c, u, s, pretoken_is_punct, begin, end); break;
        case PRETOKEN_DIGITS:
            c.behavior = s->individual ? PRETOKEN_ISOLATED : PRETOKEN_CONTIGUOUS;
            pretoken_by_char(&c, u, s, pretoken_is_digit, begin, end);
            break;
        case PRETOKEN_FIXED:
            c.behavior = PRETOKEN_ISOLATED;
            pretoken_fixed(&c, s, begin, end);
            break;
        case PRETOKEN_SCRIPTS:
            c.behavior = PRETOKEN_ISOLATED;
            pretoken_scripts(&c, begin, end);
            break;
        }
        pretoken_close(&c);
    }
    return TL_OK;
}
