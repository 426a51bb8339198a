/* A session's twin. */
#include "infer/session.h"

#include <string.h>

/* The decoder of text holds parts of characters; pushing the generated tokens again brings a new one to the same place,
 * and what of the text was not shown is copied. */
static tl_status fork_text(const struct tl_session *s, struct tl_session *t, tl_error *err) {
    if (s->text_open) {
        size_t first = s->seen.n > (size_t)s->generated ? s->seen.n - (size_t)s->generated : 0;
        t->text_open = true;
        TRY(session_decoder_init(t->model, first ? s->seen.id[first - 1] : -1, &t->text, &t->out, err));
        for (size_t i = first; i < s->seen.n; i++) TRY(token_decoder_push(&t->text, s->seen.id[i], &t->out, err));
    }
    str_clear(&t->out);
    if (s->out.len > s->given) str_add(&t->out, s->out.data + s->given, s->out.len - s->given);
    return t->out.failed ? error_set(err, TL_NOMEM, "no memory for a session") : TL_OK;
}

tl_status session_fork(const struct tl_session *s, struct tl_session **out, tl_error *err) {
    struct tl_session *t;
    tl_session_options o = s->o;
    o.stop = (const char *const *)s->stop;
    *out = NULL;
    TRY(session_create(s->model, &o, &t, err));
    if (!token_list_reserve(&t->seen, s->seen.n) || !token_list_reserve(&t->source, s->source.n)) {
        session_destroy(t);
        return error_set(err, TL_NOMEM, "no memory for a session");
    }
    if (s->seen.n) memcpy(t->seen.id, s->seen.id, s->seen.n * sizeof *s->seen.id);
    t->seen.n = s->seen.n;
    if (s->source.n) memcpy(t->source.id, s->source.id, s->source.n * sizeof *s->source.id);
    t->source.n = s->source.n;
    t->encoded = s->encoded;
    if (s->dec.source) t->dec.source[0] = s->dec.source[0];
    t->generated = s->generated;
    t->dropped = s->dropped;
    t->finished = s->finished;
    /* One token less than s: its logits lie in plans that t does not share, so t computes the last token again. */
    t->computed = s->computed;
    if (s->computed > 0 && s->computed == (int64_t)s->seen.n)
        t->computed = build_rewind(&s->model->config, s->computed, s->computed - 1);
    t->prefix = s->prefix;
    if (t->computed < t->prefix) t->computed = 0;
    device_copy(t->dec.dev, t->dec.cache, s->dec.cache, s->dec.cache_bytes);
    tl_status st = fork_text(s, t, err);
    if (st != TL_OK) {
        session_destroy(t);
        return st;
    }
    *out = t;
    return TL_OK;
}
