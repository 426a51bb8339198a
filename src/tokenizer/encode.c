#include "tokenizer/encode.h"
#include "tokenizer/added.h"
#include <string.h>

struct encoder {
    const tokenizer *t;
    encoder *next; /* in the pool */
};

static tl_status encoder_new(const tokenizer *t, encoder **out, tl_error *e) {
    encoder *x = mem_new(t->alloc, 1, sizeof *x);
    if (!x) return error_set(e, TL_NOMEM, "no memory for an encoder");
    x->t = t;
    *out = x;
    return TL_OK;
}

static void encoder_free(encoder *x) {
    mem_free(x->t->alloc, x);
}

tl_status encoder_take(const tokenizer *t, encoder **out, tl_error *e) {
    tokenizer *w = (tokenizer *)(uintptr_t)t; /* the pool is the one thing that changes, under its lock */
    pthread_mutex_lock(&w->lock);
    encoder *x = w->pool;
    if (x) w->pool = x->next;
    pthread_mutex_unlock(&w->lock);
    if (!x) return encoder_new(t, out, e);
    *out = x;
    return TL_OK;
}

void encoder_give(encoder *x) {
    if (!x) return;
    tokenizer *w = (tokenizer *)(uintptr_t)x->t;
    pthread_mutex_lock(&w->lock);
    x->next = w->pool;
    w->pool = x;
    pthread_mutex_unlock(&w->lock);
}

void encoder_drop_pool(tokenizer *t) {
    while (t->pool) {
        encoder *x = t->pool;
        t->pool = x->next;
        encoder_free(x);
    }
}

bool encoder_streams(const tokenizer *t) {
    return t->model == MODEL_BYTES || t->model == MODEL_CHARS;
}

/* Text between added tokens. */
static tl_status encode_plain(encoder *x, const char *text, size_t n, size_t base, bool final, size_t *used,
                              token_list *out, tl_error *e) {
    const tokenizer *t = x->t;
    const uint8_t *s = (const uint8_t *)text;
    *used = n;
    if (t->model == MODEL_CHARS && !final)
        for (size_t k = 1; k < 4 && k <= n; k++)
            if (unicode_unfinished(s + n - k, s + n)) *used = n - k;
    return chars_encode(t, s, *used, base, out, e);
}

tl_status encoder_run(encoder *x, const char *text, size_t n, size_t base, unsigned flags, bool final, size_t *used,
                      token_list *out, tl_error *e) {
    const added *d = x->t->added;
    bool special = flags & TOKENIZER_PARSE;
    size_t longest = d && (special ? d->count[0] : d->plain[0]) ? d->longest[0] : 0;
    *used = 0;
    if (!final && !encoder_streams(x->t)) return TL_OK;
    for (;;) {
        added_match m;
        size_t from = *used, part;
        bool found = added_next(d, x->t->uni, 0, special, text, from, n, &m);
        bool sure = found && (final || m.end + longest <= n); /* no longer token may begin at its place */
        size_t end = found ? m.begin : n;
        if (!found && !final && longest > 1) { /* a token may begin in the last bytes */
            end = n >= from + longest - 1 ? n - (longest - 1) : from;
        }
        if (end > from) {
            TRY(encode_plain(x, text + from, end - from, base + from, sure || (!found && final), &part, out, e));
            *used += part;
            if (part < end - from) return TL_OK;
        }
        if (!sure) return TL_OK;
        if (!token_list_add(out, m.token->id, base + m.begin, base + m.end))
            return error_set(e, TL_NOMEM, "no memory for ids");
        *used = m.end;
    }
}

static tl_status encode_extra(const int32_t *id, size_t n, size_t at, token_list *out, tl_error *e) {
    for (size_t i = 0; i < n; i++)
        if (!token_list_add(out, id[i], at, at)) return error_set(e, TL_NOMEM, "no memory for ids");
    return TL_OK;
}

tl_status tokenizer_encode(const tokenizer *t, const char *text, size_t n, unsigned flags, token_list *out,
                           tl_error *e) {
    encoder *x;
    size_t used, old = out->n;
    TRY(encoder_take(t, &x, e));
    tl_status s = TL_OK;
    if (flags & TOKENIZER_ADD) s = encode_extra(t->prefix, t->prefix_n, 0, out, e);
    if (s == TL_OK) s = encoder_run(x, text, n, 0, flags, true, &used, out, e);
    if (s == TL_OK && (flags & TOKENIZER_ADD)) s = encode_extra(t->suffix, t->suffix_n, n, out, e);
    encoder_give(x);
    if (s != TL_OK) out->n = old;
    return s;
}
