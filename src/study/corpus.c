/* The texts that studies train on: stories of the built-in grammar as bytes, or a text of the user's as characters. */
#include "base/hash.h"
#include "data/tokenize.h"
#include "study/study.h"

#include <math.h>
#include <string.h>

enum {
    STORIES = 4 << 20, /* bytes to train on: more than a cell of normal scale sees */
    STORIES_QUICK = 1 << 18,
    HELD = 120, /* stories held out, about 45 kB */
    HELD_QUICK = 24,
    BLOCK = 256, /* stories drawn at a time */
    TRAIN_SEED = 1000,
    HELD_SEED = 1001,
    TEXT_MAX = 1 << 30
};

static tl_status stories(study_lab *l, study_corpus *c, tl_error *e) {
    const tl_allocator *a = tl_engine_allocator(l->engine);
    TRY(tokenizer_from_bytes(a, &c->tokenizer, e));
    token_store_init(&c->store, a, tokenizer_vocab(c->tokenizer), tokenizer_role_id(c->tokenizer, TOKENIZER_EOD));
    token_sink sink = token_sink_store(&c->store);
    int64_t want = l->quick ? STORIES_QUICK : STORIES;
    for (uint64_t first = 0; c->store.view.n < want; first += BLOCK)
        TRY(tokenize_stories(a, STORY_EN, TRAIN_SEED, first, BLOCK, c->tokenizer, &sink, NULL, e));
    int64_t n = c->store.view.n;
    double nats = 0;
    TRY(tokenize_stories(a, STORY_EN, HELD_SEED, 0, l->quick ? HELD_QUICK : HELD, c->tokenizer, &sink, &nats, e));
    c->train = tokens_slice(&c->store.view, 0, n);
    c->held = tokens_slice(&c->store.view, n, c->store.view.n);
    c->floor = nats / (double)c->held.n;
    return TL_OK;
}

static tl_status read_text(const tl_allocator *a, const char *path, str *text, tl_error *e) {
    corpus *c;
    bool more = true;
    TRY(corpus_open(a, &path, 1, NULL, &c, e));
    tl_status s = TL_OK;
    while (s == TL_OK && more) s = corpus_document(c, TEXT_MAX, text, NULL, &more, e);
    corpus_close(c);
    return s == TL_OK && text->failed ? error_set(e, TL_NOMEM, "no memory for the text") : s;
}

static tl_status characters(study_lab *l, study_corpus *c, tl_error *e) {
    const tl_allocator *a = tl_engine_allocator(l->engine);
    if (!l->text)
        return error_set(e, TL_ARG,
                         "this study reads a text: give --text FILE (the committed results used "
                         "tinyshakespeare)");
    str text;
    str_init(&text, a);
    tl_status s = read_text(a, l->text, &text, e);
    const char *data = text.data ? text.data : "";
    if (s == TL_OK) s = tokenizer_from_chars(a, data, text.len, &c->tokenizer, e);
    if (s == TL_OK) {
        token_store_init(&c->store, a, tokenizer_vocab(c->tokenizer), tokenizer_role_id(c->tokenizer, TOKENIZER_EOD));
        token_sink sink = token_sink_store(&c->store);
        s = tokenize_text(a, data, text.len, c->tokenizer, &sink, e);
    }
    if (s == TL_OK) s = tokens_split(&c->store.view, 0.1, &c->train, &c->held, e);
    if (s != TL_OK) error_at_file(e, l->text);
    str_fini(&text);
    c->floor = (double)NAN;
    return s;
}

static void corpus_fini(study_lab *l) {
    study_corpus *c = l->corpus;
    if (!c) return;
    if (c->store.alloc) token_store_fini(&c->store);
    tokenizer_close(c->tokenizer);
    mem_free(tl_engine_allocator(l->engine), c);
    l->corpus = NULL;
}

void study_lab_fini(study_lab *l) {
    corpus_fini(l);
}

tl_status study_corpus_open(study_lab *l, study_corpus_kind kind, tl_error *e) {
    if (kind == CORPUS_NONE || (l->corpus && l->corpus->kind == kind)) return TL_OK;
    corpus_fini(l);
    study_corpus *c = l->corpus = mem_new(tl_engine_allocator(l->engine), 1, sizeof *c);
    if (!c) return error_set(e, TL_NOMEM, "no memory for a corpus");
    tl_status s = kind == CORPUS_STORIES ? stories(l, c, e) : characters(l, c, e);
    if (s != TL_OK) {
        corpus_fini(l);
        return s;
    }
    c->kind = kind;
    c->hash = hash_bytes(c->store.view.id, (size_t)c->store.view.n * (size_t)c->store.view.width);
    return TL_OK;
}
