/* Readers of tokenizer files, one a format; each makes a tokenizer or says what is wrong and where. */
#ifndef TOKENIZER_LOAD_H
#define TOKENIZER_LOAD_H

#include "base/json.h"
#include "tokenizer/bpe.h"
#include "tokenizer/internal.h"

enum { LOAD_MAX_BYTES = 512 << 20 }; /* no tokenizer file of the ecosystem comes near */

/* tokenizer.json of version 1.0. */
tl_status load_json(const tl_allocator *a, const json_t *root, tokenizer **out, tl_error *e);
/* GPT-2's pair of files. */
tl_status load_gpt2(const tl_allocator *a, const char *vocab_path, const char *merges_path, tokenizer **out,
                    tl_error *e);
typedef struct load_gpt2_text { /* one of the two, in memory; path is named in errors, and may be NULL */
    const char *path, *text;
    size_t n;
} load_gpt2_text;
tl_status load_gpt2_texts(const tl_allocator *a, const load_gpt2_text *v, const load_gpt2_text *m, tokenizer **out,
                          tl_error *e);
/* tiktoken's ranks: a line each, base64 and number. path tells which encoding it is, if its name does. */
tl_status load_tiktoken(const tl_allocator *a, const char *text, size_t n, const char *path, tokenizer **out,
                        tl_error *e);
bool load_is_tiktoken(const char *text, size_t n);
/* SentencePiece's protobuf. */
tl_status load_sentencepiece(const tl_allocator *a, const uint8_t *data, size_t n, tokenizer **out, tl_error *e);
bool load_is_sentencepiece(const uint8_t *data, size_t n);
/* The tokenizer keys of a GGUF file. */
tl_status load_gguf(const tl_allocator *a, const char *path, tokenizer **out, tl_error *e);
struct gguf;
tl_status load_gguf_keys(const tl_allocator *a, const struct gguf *g, tokenizer **out, tl_error *e);

/* Parts that several readers share: load_parts.c. ---------------------------------------------- */

/* Normalizer, pre-tokenizer, post-processor and decoder from their JSON; any may be NULL or null. Their text is kept
 * for saving. The vocabulary must be there already: post-processors name tokens. */
tl_status load_parts(tokenizer *t, const json_t *normal, const json_t *pre, const json_t *post, const json_t *decoder,
                     tl_error *e);
tl_status load_post_only(tokenizer *t, const json_t *post, tl_error *e);
/* The same from JSON texts (NULL: none). */
tl_status load_parts_text(tokenizer *t, const char *normal, const char *pre, const char *post, const char *decoder,
                          tl_error *e);
tl_status load_added_token(tokenizer *t, int64_t id, const char *text, size_t n, unsigned added_flags, tl_error *e);
/* When all is in: special tokens leave the search by bytes, so that text cannot become one; roles not yet known are
 * told by the names that families use. */
tl_status load_finish(tokenizer *t, tl_error *e);
/* bos_token, eos_token ... and the chat template of tokenizer_config.json beside path, where there is one. */
tl_status load_config(tokenizer *t, const char *path, tl_error *e);
/* A merge by the texts of its two parts. */
tl_status load_merge(tokenizer *t, const char *left, size_t ln, const char *right, size_t rn, size_t index,
                     tl_error *e);
/* Does a pre-tokenizer or normalizer work on bytes? */
bool load_is_byte_level(const json_t *v, int depth);
/* The JSON of the byte-level decoder, with the fields the library insists on. */
extern const char load_byte_decoder[];
/* The JSON of a byte-level pre-tokenizer with one of our scanners, into s. */
void load_pre_text(str *s, const char *pattern);

#endif
