#include "data/tokens.h"

#include <string.h>

tokens tokens_slice(const tokens *t, int64_t begin, int64_t end) {
    tokens s = *t;
    s.id = (const uint8_t *)t->id + begin * t->width;
    s.n = end - begin;
    s.documents = 0;
    if (t->mark) s.mark = t->mark + begin;
    for (int64_t i = 0; (t->mark || t->eod >= 0) && i < s.n; i++) s.documents += tokens_ends(&s, i);
    return s;
}

/* Index behind the k-th end of a document, k from 1. */
static int64_t tokens_after_document(const tokens *t, int64_t k) {
    for (int64_t i = 0; i < t->n; i++)
        if (tokens_ends(t, i) && --k == 0) return i + 1;
    return t->n;
}

tl_status tokens_split(const tokens *t, double fraction, tokens *train, tokens *val, tl_error *e) {
    if (!(fraction > 0 && fraction < 1))
        return error_set(e, TL_ARG, "the held-out fraction must lie between 0 and 1, not %g", fraction);
    bool whole = t->documents >= 2;
    int64_t all = whole ? t->documents : t->n, held = (int64_t)((double)all * fraction + 0.5);
    if (t->mark && !whole)
        return error_set(e, TL_LIMIT, "one example cannot be divided: take more, or a validation file of its own");
    if (all < 2) return error_set(e, TL_LIMIT, "a text of %lld tokens cannot be divided", (long long)t->n);
    if (held < 1) held = 1;
    if (held > all - 1) held = all - 1;
    int64_t cut = whole ? tokens_after_document(t, all - held) : all - held;
    *train = tokens_slice(t, 0, cut);
    *val = tokens_slice(t, cut, t->n);
    return TL_OK;
}

void token_store_init(token_store *s, const tl_allocator *a, int64_t vocab, int32_t eod) {
    *s = (token_store){.alloc = a};
    s->view = (tokens){.width = vocab <= 65536 ? 2 : 4, .vocab = (int32_t)vocab, .eod = eod};
}

void token_store_fini(token_store *s) {
    mem_free(s->alloc, s->id);
    s->id = NULL;
    s->cap = 0;
    s->view.id = NULL;
    s->view.n = s->view.documents = 0;
}

static bool token_store_reserve(token_store *s, size_t extra) {
    size_t need;
    if (add_overflows((size_t)s->view.n, extra, &need)) return false;
    bool ok = s->view.width == 2 ? mem_reserve(s->alloc, (uint16_t **)&s->id, &s->cap, need)
                                 : mem_reserve(s->alloc, (uint32_t **)&s->id, &s->cap, need);
    s->view.id = s->id;
    return ok;
}

tl_status token_store_add(token_store *s, const int32_t *id, size_t n, tl_error *e) {
    if (!token_store_reserve(s, n)) return error_set(e, TL_NOMEM, "no memory for %zu more tokens", n);
    for (size_t i = 0; i < n; i++) {
        if (id[i] < 0 || id[i] >= s->view.vocab)
            return error_set(e, TL_ARG, "token %d is outside the vocabulary of %d", id[i], s->view.vocab);
        if (s->view.width == 2)
            ((uint16_t *)s->id)[s->view.n++] = (uint16_t)id[i];
        else
            ((uint32_t *)s->id)[s->view.n++] = (uint32_t)id[i];
    }
    return TL_OK;
}

tl_status token_store_end(token_store *s, tl_error *e) {
    if (s->view.eod < 0) return TL_OK;
    TRY(token_store_add(s, &s->view.eod, 1, e));
    s->view.documents++;
    return TL_OK;
}
