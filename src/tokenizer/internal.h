/* What a tokenizer is made of. Only files of this folder include it. */
#ifndef TOKENIZER_INTERNAL_H
#define TOKENIZER_INTERNAL_H

#include "tokenizer/tokenizer.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocab.h"
#include <pthread.h>

typedef enum tokenizer_model {
    MODEL_BYTES,
    MODEL_CHARS,
    MODEL_BPE,
    MODEL_UNIGRAM,
    MODEL_WORDPIECE,
    MODEL_WORDLEVEL
} tokenizer_model;

struct bpe;
struct unigram;
struct wordpiece;
struct added;
struct normalizer;
struct pretokenizer;
struct unpacker;
struct encoder;

/* Parts of a tokenizer.json that are kept as text, so that saving gives back what was read. */
typedef struct tokenizer_spec {
    char *normalizer, *pre_tokenizer, *post_processor, *decoder; /* JSON or NULL */
} tokenizer_spec;

struct tl_tokenizer {
    const tl_allocator *alloc;
    tokenizer_model model;
    bool byte_level; /* vocabulary entries are raw bytes, written in GPT-2's alphabet in files */
    vocab voc;
    unicode_table *uni;
    uint32_t *chars; /* (chars_n) sorted code points; id = index (MODEL_CHARS) */
    size_t chars_n;

    struct bpe *bpe;
    struct unigram *unigram;
    struct wordpiece *wordpiece;
    int32_t unk; /* of the model; -1: none */

    struct added *added;           /* added and special tokens; NULL: none */
    struct normalizer *normalizer; /* NULL: none */
    struct pretokenizer *pre;      /* NULL: none */
    struct unpacker *unpack;       /* decoder chain; NULL: joined as they are */
    bool cut_words, cut_lines;     /* no token crosses the beginning of a word, the end of a line: encode_cut.h */
    int32_t *prefix, *suffix;      /* what the post-processor puts around one text */
    size_t prefix_n, suffix_n;
    tokenizer_spec spec;

    int32_t role[TOKENIZER_ROLES];
    char *chat_template;

    pthread_mutex_t lock; /* of pool */
    bool lock_made;
    struct encoder *pool; /* idle encoders */
};

/* An empty tokenizer with vocabulary, Unicode table and roles at -1. */
tl_status tokenizer_new(const tl_allocator *a, tokenizer_model model, tokenizer **out, tl_error *e);
/* Adds a token outside the model: a vocabulary entry and a matching rule. */
tl_status tokenizer_add_special(tokenizer *t, int64_t id, const char *text, size_t n, tl_error *e);

bool token_list_add(token_list *l, int32_t id, size_t begin, size_t end);

/* chars.c */
tl_status chars_encode(const tokenizer *t, const uint8_t *text, size_t n, size_t base, token_list *out, tl_error *e);

tl_status chars_from_points(const tl_allocator *a, const uint32_t *cp, size_t n, tokenizer **out, tl_error *e);

#endif
