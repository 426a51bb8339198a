/* UTF-8 and the general categories the ecosystem's patterns ask for, of Unicode 16: the version that tiktoken and
 * Hugging Face's library share today (utf8proc and PCRE2 of the distribution are older). */
#ifndef TOKENIZER_UNICODE_H
#define TOKENIZER_UNICODE_H

#include "base/mem.h"

typedef enum unicode_class {
    UNICODE_OTHER,
    UNICODE_SPACE, /* White_Space */
    UNICODE_N,
    UNICODE_LU,
    UNICODE_LT,
    UNICODE_LL,
    UNICODE_LM,
    UNICODE_LO,
    UNICODE_M,
    UNICODE_P
} unicode_class;

/* Sets of classes, as bits 1 << class. */
enum {
    UNICODE_IS_SPACE = 1 << UNICODE_SPACE,
    UNICODE_IS_N = 1 << UNICODE_N,
    UNICODE_IS_L = 1 << UNICODE_LU | 1 << UNICODE_LT | 1 << UNICODE_LL | 1 << UNICODE_LM | 1 << UNICODE_LO,
    UNICODE_IS_SYM = 1 << UNICODE_OTHER | 1 << UNICODE_M | 1 << UNICODE_P, /* [^\s\p{L}\p{N}] */
    UNICODE_IS_UPPER = 1 << UNICODE_LU | 1 << UNICODE_LT | 1 << UNICODE_LM | 1 << UNICODE_LO | 1 << UNICODE_M,
    UNICODE_IS_LOWER = 1 << UNICODE_LL | 1 << UNICODE_LM | 1 << UNICODE_LO | 1 << UNICODE_M,
};

/* Expanded from runs at creation: two stages of 256. */
typedef struct unicode_table {
    uint8_t ascii[128];
    uint16_t page[0x1100];
    uint8_t cls[][256];
} unicode_table;

unicode_table *unicode_new(const tl_allocator *a); /* NULL: no memory; mem_free */

static inline unicode_class unicode_of(const unicode_table *u, uint32_t cp) {
    return (unicode_class)u->cls[u->page[cp >> 8]][cp & 255];
}

/* \w of the ecosystem: alphabetic, mark, decimal number, connecting punctuation, joiner. */
bool unicode_is_word(const unicode_table *u, uint32_t cp);

/* A number for the script of a character as the UnicodeScripts pre-tokenizer tells them apart (Hiragana and Katakana
 * count as Han); 0: none, such as a blank's. */
unsigned unicode_script(uint32_t cp);

enum { UNICODE_BAD = 0xFFFD };

/* Decodes one character at p < end. Bytes that are not UTF-8 give UNICODE_BAD and the length of the maximal bad
 * subpart (at least 1); *bad, if not NULL, tells it from a real U+FFFD. */
unsigned unicode_decode(const uint8_t *p, const uint8_t *end, uint32_t *cp, bool *bad);
/* Is p..end the beginning of a character that more bytes could complete? */
bool unicode_unfinished(const uint8_t *p, const uint8_t *end);
unsigned unicode_encode(uint32_t cp, char out[4]); /* bytes written */

#endif
