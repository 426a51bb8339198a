/* pretoken: the pre-tokenizers of tokenizer.json: normalized text to pieces. The common case, one of our split
 * scanners and bytes, is marked `fast` and never comes through here. */
#ifndef TOKENIZER_PRETOKEN_H
#define TOKENIZER_PRETOKEN_H

#include "base/json.h"
#include "tokenizer/regex.h"
#include "tokenizer/split.h"
#include "tokenizer/text.h"

typedef enum pretoken_kind {
    PRETOKEN_BYTE_LEVEL,
    PRETOKEN_BERT,
    PRETOKEN_METASPACE,
    PRETOKEN_WHITESPACE,
    PRETOKEN_WHITESPACE_SPLIT,
    PRETOKEN_SPLIT, /* a string, a pattern or one of our scanners */
    PRETOKEN_PUNCTUATION,
    PRETOKEN_DIGITS,
    PRETOKEN_SCRIPTS,
    PRETOKEN_FIXED
} pretoken_kind;

typedef enum pretoken_behavior { /* what becomes of a delimiter */
                                 PRETOKEN_REMOVED,
                                 PRETOKEN_ISOLATED,
                                 PRETOKEN_WITH_PREVIOUS,
                                 PRETOKEN_WITH_NEXT,
                                 PRETOKEN_CONTIGUOUS
} pretoken_behavior;

typedef struct pretoken_step {
    pretoken_kind kind;
    pretoken_behavior behavior;
    bool prefix_space;       /* ByteLevel */
    int prepend;             /* Metaspace: 0 never, 1 first, 2 always */
    bool split;              /* Metaspace: cut too */
    bool invert, individual; /* Split; Digits */
    char *text;              /* Split by a string, Metaspace's replacement */
    size_t text_n, length;   /* length: FixedLength */
    split_kind scanner;      /* SPLIT_KINDS: none */
    regex *pattern;
} pretoken_step;

typedef struct pretokenizer {
    const tl_allocator *alloc;
    pretoken_step *step;
    size_t n, cap;
    bool byte_level;
    bool fast;           /* only a scanner (or nothing) and bytes */
    split_kind scanner;  /* of fast */
    const regex *stream; /* only an isolating pattern and bytes: can be streamed */
} pretokenizer;

tl_status pretokenizer_load(const tl_allocator *a, const json_t *v, pretokenizer **out, tl_error *e);
void pretokenizer_free(pretokenizer *z);
/* a->piece[] to pieces; *b is scratch. first: this is the beginning of the text. */
tl_status pretokenizer_run(const pretokenizer *z, const unicode_table *u, bool first, text_buf *a, text_buf *b,
                           tl_error *e);
tl_status pretoken_apply(const pretoken_step *s, const unicode_table *u, bool first, const text_buf *a, text_buf *b,
                         tl_error *e);

#endif
