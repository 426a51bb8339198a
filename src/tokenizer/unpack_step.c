/* The decoders one by one, over a list of tokens. */
#include "tokenizer/unpack.h"
#include <string.h>

static const token_span unpack_nowhere = {0, 0};

/* Ends a token of b that began at begin; empty tokens count here. */
static void unpack_end(text_buf *b, size_t begin) {
    if (b->failed) return;
    if (!mem_reserve(b->alloc, &b->piece, &b->piece_cap, b->pieces + 1))
        b->failed = true;
    else
        b->piece[b->pieces++] = (token_span){begin, b->n};
}

static void unpack_put_replaced(text_buf *b, const char *s, size_t n, const char *from, const char *to) {
    size_t fn = strlen(from), tn = strlen(to), at = 0;
    while (at < n) {
        const char *hit = memmem(s + at, n - at, from, fn);
        size_t k = hit ? (size_t)(hit - s) : n;
        text_put(b, s + at, k - at, unpack_nowhere);
        if (!hit) return;
        text_put(b, to, tn, unpack_nowhere);
        at = k + fn;
    }
}

static int unpack_hex(const char *s, size_t n) {
    static const char digit[] = "0123456789ABCDEF0123456789abcdef";
    if (n != 6 || memcmp(s, "<0x", 3) || s[5] != '>' || !s[3] || !s[4]) return -1;
    const char *a = strchr(digit, s[3]), *b = strchr(digit, s[4]);
    return a && b ? (int)(((a - digit) & 15) << 4 | ((b - digit) & 15)) : -1;
}

static tl_status unpack_pattern(const unpack_step *s, const char *text, size_t n, text_buf *b, tl_error *e) {
    size_t at = 0, look = 0;
    while (look <= n) {
        bool found;
        size_t x, y;
        TRY(regex_next(s->pattern, text, n, look, false, &found, &x, &y, NULL, e));
        if (!found) break;
        look = y > x ? y : y + 1;
        if (y == x) continue;
        text_put(b, text + at, x - at, unpack_nowhere);
        text_put(b, s->content, strlen(s->content), unpack_nowhere);
        at = y;
    }
    text_put(b, text + at, n - at, unpack_nowhere);
    return TL_OK;
}

static void unpack_strip(const unpack_step *s, const char *p, size_t n, text_buf *b) {
    size_t k = strlen(s->text), begin = 0, end = n;
    for (size_t i = 0; i < s->start && end - begin >= k && !memcmp(p + begin, s->text, k); i++) begin += k;
    for (size_t i = 0; i < s->stop && end - begin >= k && !memcmp(p + end - k, s->text, k); i++) end -= k;
    text_put(b, p + begin, end - begin, unpack_nowhere);
}

/* The blanks English does not write before marks and short forms. */
static void unpack_cleanup(text_buf *b, size_t begin) {
    static const char *const pair[][2] = {{" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
                                          {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
                                          {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    text_buf t;
    text_init(&t, b->alloc);
    for (size_t i = 0; i < sizeof pair / sizeof *pair && !b->failed; i++) {
        text_reset(&t, false);
        text_put(&t, b->s + begin, b->n - begin, unpack_nowhere);
        b->n = begin;
        unpack_put_replaced(b, t.s, t.n, pair[i][0], pair[i][1]);
        b->failed |= t.failed;
    }
    text_fini(&t);
}

static void unpack_wordpiece(const unpack_step *s, const char *p, size_t n, bool first, text_buf *b) {
    size_t k = strlen(s->text), begin = b->n;
    bool joins = n >= k && !memcmp(p, s->text, k);
    if (!first && !joins) text_put(b, " ", 1, unpack_nowhere);
    if (!first && joins) p += k, n -= k;
    text_put(b, p, n, unpack_nowhere);
    if (s->cleanup) unpack_cleanup(b, begin);
}

static bool unpack_same(const text_buf *t, size_t i, size_t k) {
    token_span a = t->piece[i], b = t->piece[k];
    return a.end - a.begin == b.end - b.begin && !memcmp(t->s + a.begin, t->s + b.begin, a.end - a.begin);
}

static tl_status unpack_apply(const unpack_step *s, const text_buf *t, text_buf *b, tl_error *e) {
    for (size_t i = 0; i < t->pieces; i++) {
        const char *p = t->s ? t->s + t->piece[i].begin : "";
        size_t n = t->piece[i].end - t->piece[i].begin, begin = b->n;
        bool first = i == 0, last = i + 1 == t->pieces, joins = false;
        int byte;
        switch (s->kind) {
        case UNPACK_BYTE_LEVEL:
        case UNPACK_FUSE:
            text_put(b, p, n, unpack_nowhere);
            joins = !last;
            break;
        case UNPACK_BYTE_FALLBACK:
            byte = unpack_hex(p, n);
            if (byte >= 0)
                text_put(b, &(char){(char)byte}, 1, unpack_nowhere);
            else
                text_put(b, p, n, unpack_nowhere);
            break;
        case UNPACK_STRIP: unpack_strip(s, p, n, b); break;
        case UNPACK_REPLACE:
            if (s->pattern)
                TRY(unpack_pattern(s, p, n, b, e));
            else
                unpack_put_replaced(b, p, n, s->text, s->content);
            break;
        case UNPACK_METASPACE: unpack_put_replaced(b, p, n, s->text, first && s->prefix ? "" : " "); break;
        case UNPACK_WORDPIECE: unpack_wordpiece(s, p, n, first, b); break;
        case UNPACK_BPE: unpack_put_replaced(b, p, n, s->text, last ? "" : " "); break;
        case UNPACK_CTC:
            joins = (i && unpack_same(t, i, i - 1)) || (n == strlen(s->text) && !memcmp(p, s->text, n));
            if (joins) break;
            text_put(b, p, n, unpack_nowhere);
            if (!s->cleanup) break;
            unpack_cleanup(b, begin);
            if (b->n - begin == strlen(s->content) && !memcmp(b->s + begin, s->content, b->n - begin)) {
                b->n = begin;
                text_put(b, " ", 1, unpack_nowhere);
            }
            break;
        }
        if (!joins)
            unpack_end(b, b->pieces && s->kind != UNPACK_CTC ? b->piece[b->pieces - 1].end
                          : s->kind == UNPACK_CTC            ? begin
                                                             : 0);
    }
    return TL_OK;
}

tl_status unpack_run(const unpacker *u, text_buf *t, text_buf *b, tl_error *e) {
    for (size_t i = 0; i < u->n; i++) {
        text_reset(b, false);
        TRY(unpack_apply(&u->step[i], t, b, e));
        if (b->failed) return error_set(e, TL_NOMEM, "no memory for the text");
        text_buf swap = *t;
        *t = *b;
        *b = swap;
    }
    return TL_OK;
}
