/* Added and special tokens: which of them begin where in a text. A byte trie; the longest match at the leftmost
 * place wins, as in the Aho-Corasick automata of the ecosystem. */
#ifndef TOKENIZER_ADDED_H
#define TOKENIZER_ADDED_H

#include "tokenizer/unicode.h"
#include "tokenizer/vocab.h"

enum {
    ADDED_SPECIAL = 1,
    ADDED_LSTRIP = 2,      /* takes the white space before it */
    ADDED_RSTRIP = 4,      /* and after it */
    ADDED_WORD = 8,        /* only where no word character touches it */
    ADDED_NORMALIZED = 16, /* looked for in the normalized text */
};

typedef struct added_token {
    int32_t id;
    unsigned flags;
    uint32_t len; /* bytes of the content looked for */
} added_token;

typedef struct added_node {
    int32_t child, next, token; /* -1: none */
    uint8_t byte;
} added_node;

typedef struct added {
    const tl_allocator *alloc;
    added_token *token;
    size_t n, cap;
    added_node *node;
    size_t node_n, node_cap;
    int32_t root[2][256];                  /* [0]: looked for in the raw text, [1]: in the normalized one */
    size_t longest[2], count[2], plain[2]; /* plain: those that are not special */
    bool blanks; /* some token holds or takes white space, so it may lie across any border of words */
} added;

added *added_new(const tl_allocator *a);
void added_free(added *d);
tl_status added_put(added *d, int32_t id, const char *text, size_t n, unsigned flags, tl_error *e);
int32_t added_find(const added *d, const char *text, size_t n); /* index in token[] by content; -1 */

typedef struct added_match {
    const added_token *token;
    size_t begin, end; /* with stripped white space */
    size_t content;    /* where the content begins */
} added_match;

/* The first match in text[from..n) that counts. special: special tokens count too. false: none. */
bool added_next(const added *d, const unicode_table *u, int which, bool special, const char *text, size_t from,
                size_t n, added_match *m);

#endif
