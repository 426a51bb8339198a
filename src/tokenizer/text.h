/* A text on its way through normalizers and pre-tokenizers: bytes, for each the bytes of the input it came from
 * (only when spans are wanted), and pieces. */
#ifndef TOKENIZER_TEXT_H
#define TOKENIZER_TEXT_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"

typedef struct text_buf {
    const tl_allocator *alloc;
    char *s;
    size_t n, cap;
    token_span *from; /* (n) or NULL */
    size_t from_cap;
    token_span *piece; /* (pieces) parts of s */
    size_t pieces, piece_cap;
    bool spans, failed;
} text_buf;

void text_init(text_buf *t, const tl_allocator *a);
void text_fini(text_buf *t);
void text_reset(text_buf *t, bool spans);
void text_put(text_buf *t, const char *s, size_t n, token_span from); /* all n bytes came from `from` */
void text_copy(text_buf *t, const text_buf *src, size_t begin, size_t end);
void text_piece(text_buf *t, size_t begin, size_t end); /* empty pieces are left out */
/* Where src[begin..end) came from; an empty range gives the place. */
token_span text_from(const text_buf *t, size_t begin, size_t end);

#endif
