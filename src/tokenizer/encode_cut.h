/* Vocabularies without a pre-tokenizer (Llama 2, Mistral) merge a whole document as one piece. But almost all of theirs
 * have no token that goes on behind a word's end: where that is so, documents fall into words with the same ids, and
 * can be streamed. */
#ifndef TOKENIZER_ENCODE_CUT_H
#define TOKENIZER_ENCODE_CUT_H

#include "tokenizer/internal.h"
#include <string.h>

#define CUT_MARK "\xe2\x96\x81" /* U+2581, what a blank becomes */

/* Sets t->cut_words and t->cut_lines. */
void cut_learn(tokenizer *t);

static inline bool cut_is_mark(const char *s) {
    return !memcmp(s, CUT_MARK, 3);
}

/* Is s + i (0 < i < n) a sure border of pieces? raw: blanks are not marks yet. */
static inline bool cut_here(const tokenizer *t, const char *s, size_t n, size_t i, bool raw) {
    if (t->cut_lines && s[i - 1] == '\n') return true;
    if (!t->cut_words) return false;
    if (raw ? s[i] != ' ' : (n - i < 3 || !cut_is_mark(s + i))) return false;
    return s[i - 1] != ' ' && !(i >= 3 && cut_is_mark(s + i - 3));
}

#endif
