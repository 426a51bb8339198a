/* unpack: ids back to text: the decoder chains of tokenizer.json, whole and incremental. */
#ifndef TOKENIZER_UNPACK_H
#define TOKENIZER_UNPACK_H

#include "base/json.h"
#include "tokenizer/internal.h"
#include "tokenizer/regex.h"
#include "tokenizer/text.h"

typedef enum unpack_kind {
    UNPACK_BYTE_LEVEL,
    UNPACK_BYTE_FALLBACK,
    UNPACK_FUSE,
    UNPACK_STRIP,
    UNPACK_REPLACE,
    UNPACK_METASPACE,
    UNPACK_WORDPIECE,
    UNPACK_BPE,
    UNPACK_CTC
} unpack_kind;

typedef struct unpack_step {
    unpack_kind kind;
    char *text, *content; /* what is looked for (Replace, Metaspace, prefix, suffix, pad), what it becomes */
    regex *pattern;
    size_t start, stop;   /* Strip */
    bool cleanup, prefix; /* WordPiece and CTC; Metaspace: the first one stands for no blank */
} unpack_step;

typedef struct unpacker {
    const tl_allocator *alloc;
    unpack_step *step;
    size_t n, cap;
    /* A chain that treats tokens one by one, but for blanks at the very beginning, can be followed as they come. */
    bool flows, fallback;
    size_t strip;     /* blanks to take from the beginning of the text */
    const char *mark; /* what stands for a blank; NULL: nothing */
    bool drop_mark;   /* in the first token it stands for nothing */
} unpacker;

tl_status unpack_load(const tl_allocator *a, const json_t *v, unpacker **out, tl_error *e); /* null: NULL */
void unpack_free(unpacker *u);
/* Tokens, one a piece, through the chain; the text is all of t->s then. b: scratch. */
tl_status unpack_run(const unpacker *u, text_buf *t, text_buf *b, tl_error *e);

#endif
