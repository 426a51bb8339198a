/* regex: patterns from tokenizer files, under PCRE2 with limits: such a pattern is hostile until proven otherwise. */
#ifndef TOKENIZER_REGEX_H
#define TOKENIZER_REGEX_H

#include "base/mem.h"

typedef struct regex regex;
/* Compiles with UTF and Unicode properties. FORMAT: the pattern is wrong (offset in it); LIMIT: too large. */
tl_status regex_new(const tl_allocator *a, const char *pattern, size_t n, regex **out, tl_error *e);
void regex_free(regex *r);
/* The next match in text[from..n). *found false: none. more: text may go on behind n; then *open is set if the
 * answer depends on it. LIMIT: the pattern does too much work on this text. Any thread may call it at any time. */
tl_status regex_next(const regex *r, const char *text, size_t n, size_t from, bool more, bool *found, size_t *begin,
                     size_t *end, bool *open, tl_error *e);

#endif
