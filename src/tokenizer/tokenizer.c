#include "tokenizer/added.h"
#include "tokenizer/bpe.h"
#include "tokenizer/encode.h"
#include "tokenizer/internal.h"
#include "tokenizer/models.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pretoken.h"
#include "tokenizer/split.h"
#include "tokenizer/unpack.h"
#include <string.h>

/* ---- lists ----------------------------------------------------------------------------------- */

void token_list_init(token_list *l, const tl_allocator *a) {
    memset(l, 0, sizeof *l);
    l->alloc = a;
}

void token_list_fini(token_list *l) {
    mem_free(l->alloc, l->id);
    mem_free(l->alloc, l->span);
    token_list_init(l, l->alloc);
}

bool token_list_reserve(token_list *l, size_t extra) {
    size_t need;
    if (add_overflows(l->n, extra, &need)) return false;
    if (need > l->cap && !mem_reserve(l->alloc, &l->id, &l->cap, need)) return false;
    return !l->want_spans || need <= l->span_cap || mem_reserve(l->alloc, &l->span, &l->span_cap, need);
}

bool token_list_add(token_list *l, int32_t id, size_t begin, size_t end) {
    if ((l->n == l->cap || l->want_spans) && !token_list_reserve(l, 1)) return false;
    if (l->want_spans) l->span[l->n] = (token_span){begin, end};
    l->id[l->n++] = id;
    return true;
}

/* ---- life ------------------------------------------------------------------------------------ */

tl_status tokenizer_new(const tl_allocator *a, tokenizer_model model, tokenizer **out, tl_error *e) {
    tokenizer *t = mem_new(a, 1, sizeof *t);
    if (!t) return error_set(e, TL_NOMEM, "no memory for a tokenizer");
    t->alloc = a;
    t->model = model;
    t->unk = -1;
    vocab_init(&t->voc, a);
    for (int i = 0; i < TOKENIZER_ROLES; i++) t->role[i] = -1;
    t->lock_made = pthread_mutex_init(&t->lock, NULL) == 0;
    t->uni = unicode_new(a);
    if (!t->uni || !t->lock_made) {
        tokenizer_close(t);
        return error_set(e, TL_NOMEM, "no memory for a tokenizer");
    }
    *out = t;
    return TL_OK;
}

void tokenizer_close(tokenizer *t) {
    if (!t) return;
    encoder_drop_pool(t);
    if (t->lock_made) pthread_mutex_destroy(&t->lock);
    const tl_allocator *a = t->alloc;
    vocab_fini(&t->voc);
    added_free(t->added);
    unpack_free(t->unpack);
    normalizer_free(t->normalizer);
    pretokenizer_free(t->pre);
    bpe_free(t->bpe);
    unigram_free(t->unigram);
    if (t->wordpiece) mem_free(a, t->wordpiece->prefix);
    mem_free(a, t->wordpiece);
    mem_free(a, t->uni);
    mem_free(a, t->chars);
    mem_free(a, t->prefix);
    mem_free(a, t->suffix);
    mem_free(a, t->spec.normalizer);
    mem_free(a, t->spec.pre_tokenizer);
    mem_free(a, t->spec.post_processor);
    mem_free(a, t->spec.decoder);
    mem_free(a, t->chat_template);
    mem_free(a, t);
}

tl_status tokenizer_add_special(tokenizer *t, int64_t id, const char *text, size_t n, tl_error *e) {
    TRY(vocab_put(&t->voc, id, text, n, VOCAB_ADDED | VOCAB_SPECIAL | VOCAB_HIDDEN, e));
    if (!t->added && !(t->added = added_new(t->alloc))) return error_set(e, TL_NOMEM, "no memory for added tokens");
    return added_put(t->added, (int32_t)id, text, n, ADDED_SPECIAL, e);
}

/* ---- ask ------------------------------------------------------------------------------------- */

int64_t tokenizer_vocab(const tokenizer *t) {
    return (int64_t)t->voc.n;
}

int32_t tokenizer_role_id(const tokenizer *t, tokenizer_role role) {
    return (unsigned)role < TOKENIZER_ROLES ? t->role[role] : -1;
}

const char *tokenizer_text(const tokenizer *t, int32_t id, size_t *n) {
    return vocab_text(&t->voc, id, n);
}

bool tokenizer_is_special(const tokenizer *t, int32_t id) {
    return id >= 0 && (size_t)id < t->voc.n && (t->voc.entry[id].flags & VOCAB_SPECIAL);
}

int32_t tokenizer_find(const tokenizer *t, const char *text, size_t n) {
    int32_t i = t->added ? added_find(t->added, text, n) : -1;
    return i >= 0 ? t->added->token[i].id : vocab_find(&t->voc, text, n);
}

const char *tokenizer_kind(const tokenizer *t) {
    static const char *const name[] = {"bytes", "chars", "bpe", "unigram", "wordpiece", "wordlevel"};
    return name[t->model];
}

const char *tokenizer_split(const tokenizer *t) {
    if (t->pre && t->pre->fast) return split_name(t->pre->scanner);
    return t->spec.pre_tokenizer;
}

size_t tokenizer_merges(const tokenizer *t) {
    return t->bpe ? t->bpe->n : 0;
}

bool tokenizer_byte_level(const tokenizer *t) {
    return t->byte_level || t->model == MODEL_BYTES;
}

const char *tokenizer_chat_template(const tokenizer *t) {
    return t->chat_template;
}
