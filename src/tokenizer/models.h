/* The models that are not BPE: Unigram (Kudo 2018), WordPiece, WordLevel. Each turns one piece into ids. */
#ifndef TOKENIZER_MODELS_H
#define TOKENIZER_MODELS_H

#include "tokenizer/bpe.h"

/* Best path through the pieces of a vocabulary with log-probabilities, found over a byte trie. */
typedef struct unigram unigram;
unigram *unigram_new(const tl_allocator *a);
void unigram_free(unigram *m);
/* score[id] for every id of v; unk_id -1: none. */
tl_status unigram_ready(unigram *m, const vocab *v, const double *score, int32_t unk, bool byte_fallback, tl_error *e);
tl_status unigram_piece(const unigram *m, bpe_scratch *s, const uint8_t *p, size_t len, size_t *n, tl_error *e);
/* Before unigram_ready, to do as SentencePiece does: add scores in single precision, so that near ties fall its way,
 * and never read the spelling of a byte's piece (<0x41>) in the text as that piece. */
void unigram_narrow(unigram *m);
/* Text never becomes this piece. */
void unigram_hide(unigram *m, const char *text, size_t n);
double unigram_score(const unigram *m, int32_t id);

typedef struct wordpiece {
    char *prefix; /* of continuations */
    size_t max_chars;
    int32_t unk;
} wordpiece;
tl_status wordpiece_piece(const wordpiece *m, const vocab *v, bpe_scratch *s, const uint8_t *p, size_t len, size_t *n,
                          tl_error *e);

#endif
