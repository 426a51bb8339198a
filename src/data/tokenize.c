#include "data/tokenize.h"
#include "base/rng.h"

enum { TOKENIZE_HELD = 0x48454c44 }; /* operator number of the random key */

static tl_status tokenize_store_add(void *user, const int32_t *id, size_t n, tl_error *e) {
    return token_store_add(user, id, n, e);
}

static tl_status tokenize_store_end(void *user, tl_error *e) {
    return token_store_end(user, e);
}

static tl_status tokenize_shard_add(void *user, const int32_t *id, size_t n, tl_error *e) {
    return shard_writer_add(user, id, n, e);
}

static tl_status tokenize_shard_end(void *user, tl_error *e) {
    return shard_writer_end(user, e);
}

token_sink token_sink_store(token_store *s) {
    return (token_sink){tokenize_store_add, tokenize_store_end, s};
}

token_sink token_sink_shard(shard_writer *w) {
    return (token_sink){tokenize_shard_add, tokenize_shard_end, w};
}

/* ids leave the encoder as soon as they are certain and go straight to the sink. */
static tl_status tokenize_push(token_encoder *enc, const char *text, size_t n, bool last, token_list *ids,
                               const token_sink *sink, tl_error *e) {
    ids->n = 0;
    TRY(token_encoder_push(enc, text, n, ids, e));
    if (last) TRY(token_encoder_finish(enc, ids, e));
    TRY(sink->add(sink->user, ids->id, ids->n, e));
    return last ? sink->end(sink->user, e) : TL_OK;
}

static bool tokenize_is_held(const tokenize_options *o, int64_t document) {
    return o->held > 0 && rng_uniform(rng_key_make(o->seed, 0, TOKENIZE_HELD), 0, (uint64_t)document) < (float)o->held;
}

static tl_status tokenize_all(corpus *c, const tokenize_options *o, token_encoder *enc, token_list *ids,
                              const token_sink *train, const token_sink *val, tl_error *e) {
    for (;;) {
        corpus_part part;
        bool more;
        TRY(corpus_next(c, &part, &more, e));
        if (!more) return TL_OK;
        int64_t document = corpus_documents(c) - part.last; /* its number, from 0 */
        const token_sink *sink = tokenize_is_held(o, document) ? val : train;
        TRY(tokenize_push(enc, part.text, part.n, part.last, ids, sink, e));
        if (o->progress && !o->progress(o->user, corpus_documents(c), corpus_bytes(c)))
            return error_set(e, TL_CANCELLED, "cancelled while reading text");
    }
}

tl_status tokenize_corpus(const tl_allocator *a, corpus *c, const tokenizer *t, const tokenize_options *o,
                          const token_sink *train, const token_sink *val, tl_error *e) {
    if (!(o->held >= 0 && o->held < 1) || (o->held > 0 && !val))
        return error_set(e, TL_ARG, "the held-out share must lie between 0 and 1, not %g", o->held);
    token_encoder *enc;
    token_list ids;
    TRY(token_encoder_open(t, 0, o->threads ? o->threads : 1, &enc, e));
    token_list_init(&ids, a);
    tl_status s = tokenize_all(c, o, enc, &ids, train, val, e);
    token_list_fini(&ids);
    token_encoder_close(enc);
    return s;
}

tl_status tokenize_text(const tl_allocator *a, const char *text, size_t n, const tokenizer *t, const token_sink *sink,
                        tl_error *e) {
    token_list ids;
    token_list_init(&ids, a);
    tl_status s = tokenizer_encode(t, text, n, 0, &ids, e);
    if (!s) s = sink->add(sink->user, ids.id, ids.n, e);
    if (!s) s = sink->end(sink->user, e);
    token_list_fini(&ids);
    return s;
}

tl_status tokenize_stories(const tl_allocator *a, story_lang lang, uint64_t seed, uint64_t first, uint64_t count,
                           const tokenizer *t, const token_sink *sink, double *nats, tl_error *e) {
    str text;
    double sum = 0, one;
    str_init(&text, a);
    tl_status s = TL_OK;
    for (uint64_t i = first; i < first + count && !s; i++) {
        str_clear(&text);
        if (story_generate(lang, seed, i, &text, &one)) s = error_set(e, TL_NOMEM, "no memory for a story");
        if (!s) s = tokenize_text(a, text.data, text.len, t, sink, e);
        sum += one;
    }
    str_fini(&text);
    if (nats) *nats = sum;
    return s;
}
