/* normalize: the normalizers of tokenizer.json, applied in order to one stretch of text. */
#ifndef TOKENIZER_NORMALIZE_H
#define TOKENIZER_NORMALIZE_H

#include "base/json.h"
#include "tokenizer/regex.h"
#include "tokenizer/text.h"

typedef enum normalize_kind {
    NORMALIZE_NFC,
    NORMALIZE_NFD,
    NORMALIZE_NFKC,
    NORMALIZE_NFKD,
    NORMALIZE_LOWERCASE,
    NORMALIZE_STRIP,
    NORMALIZE_STRIP_ACCENTS,
    NORMALIZE_BERT,
    NORMALIZE_NMT,
    NORMALIZE_REPLACE,
    NORMALIZE_PREPEND,
    NORMALIZE_PRECOMPILED,
    NORMALIZE_BYTE_LEVEL
} normalize_kind;

typedef struct normalize_step {
    normalize_kind kind;
    bool left, right;                    /* Strip */
    bool clean, chinese, accents, lower; /* Bert */
    char *text, *content;                /* Replace (a string), Prepend; sizes because content may hold anything */
    size_t text_n, content_n;
    regex *pattern;       /* Replace (a pattern) */
    struct charsmap *map; /* Precompiled */
    bool longest;         /* of a map: the longest entry at each place, as SentencePiece; else Hugging Face's way */
} normalize_step;

typedef struct normalizer {
    const tl_allocator *alloc;
    normalize_step *step;
    size_t n, cap;
    bool byte_level;
    bool only_nfc; /* one step, NFC: most text passes unchanged */
} normalizer;

tl_status normalizer_load(const tl_allocator *a, const json_t *v, normalizer **out, tl_error *e); /* null: NULL */
void normalizer_free(normalizer *z);
/* Normalizes *a; the result is in *a again, *b is scratch. inside: *a goes on where a text was cut, so nothing is put
 * in front of it. */
tl_status normalizer_run(const normalizer *z, const unicode_table *u, bool inside, text_buf *a, text_buf *b,
                         tl_error *e);
/* True if text is in NFC beyond doubt (false: it may be or not). */
bool normalize_is_nfc(const uint8_t *p, size_t n);

/* The double-array trie of Precompiled: charsmap.c */
typedef struct charsmap charsmap;
tl_status charsmap_new(const tl_allocator *a, const uint8_t *blob, size_t n, charsmap **out, tl_error *e);
void charsmap_free(charsmap *m);
/* Replacement for what s[0..n) begins with, or NULL. *rn: its bytes; *used: bytes it stands for. The longest entry, or
 * the shortest: Hugging Face's library takes that one, and for the whole grapheme. */
const char *charsmap_find(const charsmap *m, const char *s, size_t n, bool longest, size_t *rn, size_t *used);

#endif
