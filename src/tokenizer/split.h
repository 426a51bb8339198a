/* split: where a text falls into pieces that merging never crosses. Hand-written scanners for the patterns most
 * vocabularies use; anything else runs under PCRE2 with limits (split_regex.h). */
#ifndef TOKENIZER_SPLIT_H
#define TOKENIZER_SPLIT_H

#include "tokenizer/unicode.h"

typedef enum split_kind {
    SPLIT_NONE, /* the text is one piece */
    SPLIT_GPT2,
    SPLIT_CL100K,          /* also Llama 3 */
    SPLIT_CL100K_TIKTOKEN, /* tiktoken's rewritten pattern: white space up to the end of the text is one piece */
    SPLIT_O200K,
    SPLIT_QWEN2,       /* cl100k with single digits */
    SPLIT_CL100K_RUBY, /* tiktoken's pattern as Oniguruma reads it: {1,3}+ is a repetition, not possessive */
    SPLIT_KINDS
} split_kind;

/* One piece from p < end; its end is returned, past p. *hit is set (never cleared) if the answer looked at end, so
 * that more text behind it could change it. */
typedef const uint8_t *(*split_fn)(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool *hit);

split_fn split_of(split_kind kind);         /* NULL for SPLIT_NONE */
const char *split_pattern(split_kind kind); /* the pattern it implements, as written in tokenizer.json */
split_kind split_by_pattern(const char *pattern, size_t n); /* SPLIT_KINDS: not one of ours */
split_kind split_by_name(const char *name); /* "gpt2", "cl100k", "llama3", "o200k", "qwen2", "none"; SPLIT_KINDS */
const char *split_name(split_kind kind);    /* the other way; "" for SPLIT_KINDS */
/* Is the cut between a[-1] and a[0] a border for every scanner, whatever else the text holds? */
bool split_is_border(const uint8_t *begin, const uint8_t *a, const uint8_t *end);

#endif
