#include "tokenizer/encode_cut.h"
#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/normalize.h"
#include <string.h>

/* Only a mark in front and marks for blanks: both leave every place where it is. */
static bool cut_normal(const normalizer *z) {
    bool blanks = false;
    for (size_t i = 0; z && i < z->n; i++) {
        const normalize_step *s = &z->step[i];
        if (s->content_n != 3 || !cut_is_mark(s->content)) return false;
        if (s->kind == NORMALIZE_REPLACE && !s->pattern && s->text_n == 1 && s->text[0] == ' ')
            blanks = true;
        else if (s->kind != NORMALIZE_PREPEND)
            return false;
    }
    return blanks;
}

static bool cut_word_inside(const char *s, size_t n) {
    for (size_t i = 1; i + 3 <= n; i++)
        if (cut_is_mark(s + i) && !(i >= 3 && cut_is_mark(s + i - 3))) return true;
    return false;
}

void cut_learn(tokenizer *t) {
    const bpe *b = t->bpe;
    t->cut_words = t->cut_lines = false;
    if (t->model != MODEL_BPE || t->byte_level || t->pre || b->prefix || b->suffix || b->ignore_merges) return;
    if (!cut_normal(t->normalizer) || (t->added && (t->added->count[1] || t->added->blanks))) return;
    /* a known token on one side of the border, so that unknown characters are not joined across it */
    t->cut_words = vocab_find(&t->voc, CUT_MARK, 3) >= 0;
    t->cut_lines = vocab_find(&t->voc, "\n", 1) >= 0 || (b->byte_fallback && b->hex_id['\n'] >= 0);
    for (size_t i = 0; i < b->n && (t->cut_words || t->cut_lines); i++) {
        size_t n;
        const char *s = vocab_text(&t->voc, b->merge[i].id, &n);
        if (!s || cut_word_inside(s, n)) t->cut_words = false;
        if (!s || memchr(s, '\n', n)) t->cut_lines = false;
    }
}
