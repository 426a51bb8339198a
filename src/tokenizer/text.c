#include "tokenizer/text.h"
#include <string.h>

void text_init(text_buf *t, const tl_allocator *a) {
    memset(t, 0, sizeof *t);
    t->alloc = a;
}

void text_fini(text_buf *t) {
    mem_free(t->alloc, t->s);
    mem_free(t->alloc, t->from);
    mem_free(t->alloc, t->piece);
    text_init(t, t->alloc);
}

void text_reset(text_buf *t, bool spans) {
    t->n = t->pieces = 0;
    t->spans = spans;
    t->failed = false;
}

void text_put(text_buf *t, const char *s, size_t n, token_span from) {
    if (t->failed || n == 0) return;
    if (!mem_reserve(t->alloc, &t->s, &t->cap, t->n + n + 1) ||
        (t->spans && !mem_reserve(t->alloc, &t->from, &t->from_cap, t->n + n))) {
        t->failed = true;
        return;
    }
    memcpy(t->s + t->n, s, n);
    for (size_t i = 0; t->spans && i < n; i++) t->from[t->n + i] = from;
    t->n += n;
}

void text_copy(text_buf *t, const text_buf *src, size_t begin, size_t end) {
    size_t n = end - begin, at = t->n;
    if (n == 0) return;
    text_put(t, src->s + begin, n, (token_span){0, 0});
    if (!t->failed && t->spans) memcpy(t->from + at, src->from + begin, n * sizeof *t->from);
}

void text_piece(text_buf *t, size_t begin, size_t end) {
    if (t->failed || end <= begin) return;
    if (!mem_reserve(t->alloc, &t->piece, &t->piece_cap, t->pieces + 1))
        t->failed = true;
    else
        t->piece[t->pieces++] = (token_span){begin, end};
}

token_span text_from(const text_buf *t, size_t begin, size_t end) {
    if (!t->spans || t->n == 0) return (token_span){0, 0};
    if (begin >= end) {
        size_t at = begin < t->n ? t->from[begin].begin : t->from[t->n - 1].end;
        return (token_span){at, at};
    }
    return (token_span){t->from[begin].begin, t->from[end - 1].end};
}
