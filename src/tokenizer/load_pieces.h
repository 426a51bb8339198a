/* What SentencePiece models and GGUF's "llama" and "t5" vocabularies have in common: scored pieces with types. */
#ifndef TOKENIZER_LOAD_PIECES_H
#define TOKENIZER_LOAD_PIECES_H

#include "tokenizer/load.h"

enum { PIECE_NORMAL = 1, PIECE_UNKNOWN, PIECE_CONTROL, PIECE_USER, PIECE_UNUSED, PIECE_BYTE };

typedef struct load_piece {
    const char *text;
    size_t n;
    double score;
    int type;
} load_piece;

typedef struct load_pieces {
    load_piece *piece; /* (n) by id */
    size_t n;
    bool unigram; /* else BPE */
    bool dummy_prefix, squeeze, escape, byte_fallback;
    const uint8_t *charsmap;
    size_t charsmap_n;
    int64_t unk, bos, eos; /* -1: none */
    bool add_bos, add_eos;
} load_pieces;

/* Vocabulary, model, normalizer, decoder and post-processor from p. */
tl_status load_pieces_into(tokenizer *t, const load_pieces *p, tl_error *e);
/* A TemplateProcessing that puts bos and eos around (ids -1: not), into s; nothing if neither. */
void load_template_text(const tokenizer *t, int64_t bos, int64_t eos, str *s);

#endif
