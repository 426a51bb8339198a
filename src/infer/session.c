#include "infer/session.h"

#include <string.h>

/* ---- create ------------------------------------------------------------------------------------------ */

static tl_status copy_stops(struct tl_session *s, tl_error *err) {
    const tl_allocator *a = s->model->alloc;
    s->stop = mem_new(a, s->o.n_stop, sizeof *s->stop);
    s->stop_len = mem_new(a, s->o.n_stop, sizeof *s->stop_len);
    if (!s->stop || !s->stop_len) return error_set(err, TL_NOMEM, "no memory for a session");
    for (size_t i = 0; i < s->o.n_stop; i++) {
        s->stop[i] = mem_strdup(a, s->o.stop[i]);
        if (!s->stop[i]) return error_set(err, TL_NOMEM, "no memory for a session");
        s->stop_len[i] = strlen(s->stop[i]);
        if (!s->stop_len[i]) return error_set(err, TL_ARG, "a stop text must not be empty");
    }
    return TL_OK;
}

tl_status session_create(tl_model *m, const tl_session_options *o, struct tl_session **out, tl_error *err) {
    static const tl_session_options none;
    *out = NULL;
    TRY(config_writer(&m->config, err));
    struct tl_session *s = mem_new(m->alloc, 1, sizeof *s);
    if (!s) return error_set(err, TL_NOMEM, "no memory for a session");
    s->model = m;
    s->o = o ? *o : none;
    token_list_init(&s->seen, m->alloc);
    token_list_init(&s->source, m->alloc);
    str_init(&s->out, m->alloc);
    sampler_options so = {.temperature = s->o.temperature,
                          .top_k = s->o.top_k,
                          .top_p = s->o.top_p,
                          .min_p = s->o.min_p,
                          .repeat_penalty = s->o.repeat_penalty,
                          .seed = s->o.seed};
    if (s->o.repeat_last == 0) s->o.repeat_last = 64;
    int64_t context = s->o.context > 0 ? s->o.context : m->config.context;
    tl_status st = TL_OK;
    if (s->o.cache_window > 0) {
        st = decoder_can_shift(&m->config, err);
        context = s->o.cache_window + s->o.cache_first;
    }
    if (st == TL_OK && (s->o.cache_window < 0 || s->o.cache_first < 0 || context > INT32_MAX / 2))
        st = error_set(err, TL_ARG, "a window of %lld tokens behind the first %lld", (long long)s->o.cache_window,
                       (long long)s->o.cache_first);
    if (s->o.max_tokens < 0 || s->o.context < 0 || s->o.repeat_last < 0)
        st = error_set(err, TL_ARG, "a length must not be negative");
    if (st == TL_OK) st = copy_stops(s, err);
    if (st == TL_OK) st = sampler_init(&s->pick, m->alloc, &so, m->config.vocab, err);
    if (st == TL_OK) st = decoder_init(&s->dec, m, 1, context, TL_F32, s->o.cache_dtype, err);
    if (st != TL_OK) {
        session_destroy(s);
        return st;
    }
    *out = s;
    return TL_OK;
}

static void text_close(struct tl_session *s) {
    str rest;
    if (!s->text_open) return;
    str_init(&rest, s->model->alloc);
    token_decoder_finish(&s->text, &rest, NULL); /* frees */
    str_fini(&rest);
    s->text_open = false;
}

void session_destroy(struct tl_session *s) {
    if (!s) return;
    const tl_allocator *a = s->model->alloc;
    text_close(s);
    decoder_fini(&s->dec);
    sampler_fini(&s->pick);
    token_list_fini(&s->seen);
    token_list_fini(&s->source);
    str_fini(&s->out);
    for (size_t i = 0; s->stop && i < s->o.n_stop; i++) mem_free(a, s->stop[i]);
    mem_free(a, s->stop);
    mem_free(a, s->stop_len);
    mem_free(a, s->scratch);
    mem_free(a, s);
}

/* ---- what has been seen ---------------------------------------------------------------------------------- */

/* Where a prompt goes. Behind an answer another source begins. */
static token_list *said(struct tl_session *s) {
    if (!s->model->config.encoder) return &s->seen;
    if (s->seen.n) session_reset(s);
    s->encoded = false;
    return &s->source;
}

tl_status session_ids(struct tl_session *s, const int32_t *ids, size_t n, tl_error *err) {
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= s->model->config.vocab)
            return error_set(err, TL_ARG, "token id %d is outside the vocabulary of %lld", ids[i],
                             (long long)s->model->config.vocab);
    token_list *to = said(s);
    if (!token_list_reserve(to, n)) return error_set(err, TL_NOMEM, "no memory for the prompt");
    if (n) memcpy(to->id + to->n, ids, n * sizeof *ids);
    to->n += n;
    s->finished = false;
    s->generated = 0;
    return TL_OK;
}

static int32_t bos_of(const struct tl_session *s) {
    if (s->model->config.bos >= 0) return s->model->config.bos;
    return s->model->tokenizer ? tokenizer_role_id(s->model->tokenizer, TOKENIZER_BOS) : -1;
}

int32_t session_end_of(const tl_model *m) {
    if (m->config.eos >= 0) return m->config.eos;
    return m->tokenizer ? tokenizer_role_id(m->tokenizer, TOKENIZER_EOD) : -1;
}

bool session_is_end(const tl_model *m, int32_t id) {
    return id == session_end_of(m) || config_is_end(&m->config, id);
}

static int32_t eos_of(const struct tl_session *s) {
    return session_end_of(s->model);
}

tl_status session_prompt_ids(const tl_model *m, const char *text, size_t n, bool special, token_list *l,
                             tl_error *err) {
    const size_t had = l->n;
    if (!had && m->config.begin_document && !m->config.encoder) {
        if (!token_list_reserve(l, 1)) return error_set(err, TL_NOMEM, "no memory for the prompt");
        l->id[l->n++] = session_end_of(m);
    }
    const size_t begun = l->n;
    unsigned flags = (begun ? 0 : TOKENIZER_ADD) | (special ? TOKENIZER_PARSE : 0);
    TRY(tokenizer_encode(m->tokenizer, text, n, flags, l, err));
    while (m->config.encoder && l->n > begun && l->id[l->n - 1] == tokenizer_role_id(m->tokenizer, TOKENIZER_EOS))
        l->n--;
    for (size_t i = begun; i < l->n; i++)
        if (l->id[i] >= m->config.vocab) {
            int32_t id = l->id[i];
            l->n = had;
            return error_set(err, TL_CONFIG, "the tokenizer gives id %d, the model's vocabulary is %lld", id,
                             (long long)m->config.vocab);
        }
    return TL_OK;
}

tl_status session_text(struct tl_session *s, const char *text, size_t n, bool special, tl_error *err) {
    if (!s->model->tokenizer) return error_set(err, TL_STATE, "the model has no tokenizer; give it token ids");
    TRY(session_prompt_ids(s->model, text, n, special, said(s), err));
    s->finished = false;
    s->generated = 0;
    return TL_OK;
}

/* An empty session starts from BOS; where there is none, from the end of a document, behind which a text begins. */
static tl_status begin(struct tl_session *s, tl_error *err) {
    if (s->seen.n) return TL_OK;
    int32_t id = bos_of(s) >= 0 && !s->model->config.encoder ? bos_of(s) : eos_of(s);
    if (id >= 0 && s->model->config.encoder) {
        if (!token_list_reserve(&s->seen, 1)) return error_set(err, TL_NOMEM, "no memory for the prompt");
        s->seen.id[s->seen.n++] = id;
        return TL_OK;
    }
    if (id < 0)
        return error_set(err, TL_STATE, "nothing to start from: the model has no BOS token and there is no prompt");
    return session_ids(s, &id, 1, err);
}

/* A full cache with a window forgets a quarter of it behind the first tokens: a key moves a few times in its life. */
static tl_status make_room(struct tl_session *s, tl_error *err) {
    int64_t keep = s->o.cache_first, drop = s->o.cache_window > 4 ? s->o.cache_window / 4 : 1;
    TRY(decoder_shift(&s->dec, 0, keep, drop, s->computed, err));
    memmove(s->seen.id + keep, s->seen.id + keep + drop, (s->seen.n - (size_t)(keep + drop)) * sizeof *s->seen.id);
    s->seen.n -= (size_t)drop;
    s->computed -= drop;
    s->dropped += drop;
    return TL_OK;
}

/* Brings the cache up to the last token seen, as far as it reaches. */
static tl_status compute_some(struct tl_session *s, tl_error *err) {
    int64_t n = (int64_t)s->seen.n - s->computed, room = s->dec.limit - s->computed;
    if (s->o.cache_window > 0 && n > room) n = room;
    if (n == 0) return TL_OK;
    if (!mem_reserve(s->model->alloc, &s->scratch, &s->scratch_cap, 2 * (size_t)n))
        return error_set(err, TL_NOMEM, "no memory for a prompt of %lld tokens", (long long)n);
    int32_t *pos = s->scratch, *slot = pos + n, last = (int32_t)(n - 1);
    for (int64_t i = 0; i < n; i++) {
        pos[i] = (int32_t)(s->computed + i);
        slot[i] = 0;
    }
    TRY(decoder_run(&s->dec, n, s->seen.id + s->computed, pos, slot, 1, &last, &s->logits, err));
    s->computed += n;
    return TL_OK;
}

static tl_status compute(struct tl_session *s, tl_error *err) {
    if (s->dec.source && !s->encoded) {
        TRY(decoder_encode(&s->dec, 0, (int64_t)s->source.n, s->source.id, err));
        s->encoded = true;
    }
    if (s->dec.prefix && !s->prefix) s->prefix = (int64_t)s->seen.n;
    if (s->dec.prefix) s->dec.prefix[0] = (int32_t)s->prefix;
    if (s->o.no_cache) s->computed = 0;
    TRY(compute_some(s, err));
    while (s->computed < (int64_t)s->seen.n) { /* a window: the rest of a long text */
        TRY(make_room(s, err));
        TRY(compute_some(s, err));
    }
    return TL_OK;
}

static bool endless(const struct tl_session *s) {
    return s->o.cache_window > 0;
}

tl_status session_logits(struct tl_session *s, const float **logits, tl_error *err) {
    TRY(begin(s, err));
    if ((int64_t)s->seen.n > s->dec.limit && !endless(s))
        return error_set(err, TL_LIMIT, "%zu tokens do not fit the context of %lld", s->seen.n,
                         (long long)s->dec.limit);
    TRY(compute(s, err));
    *logits = s->logits;
    return TL_OK;
}

/* ---- text out -------------------------------------------------------------------------------------------------- */

/* Bytes of out that can be shown: all but the longest tail that could be the beginning of a stop text. A complete stop
 * text cuts out there; *stopped tells. */
static size_t showable(struct tl_session *s, bool *stopped) {
    size_t keep = 0;
    *stopped = false;
    for (size_t i = 0; i < s->o.n_stop; i++) {
        const char *hit =
            s->out.len >= s->stop_len[i] ? memmem(s->out.data, s->out.len, s->stop[i], s->stop_len[i]) : NULL;
        if (hit) {
            s->out.len = (size_t)(hit - s->out.data);
            *stopped = true;
            keep = 0;
        }
        for (size_t k = s->stop_len[i] - 1; k > keep && !*stopped; k--)
            if (k <= s->out.len && memcmp(s->out.data + s->out.len - k, s->stop[i], k) == 0) keep = k;
    }
    return s->out.len - keep;
}

/* Drops what the last piece showed. */
static void forget_given(struct tl_session *s) {
    if (!s->given) return;
    memmove(s->out.data, s->out.data + s->given, s->out.len - s->given);
    s->out.len -= s->given;
    s->given = 0;
}

static void show(struct tl_session *s, tl_piece *p, size_t n) {
    p->text = n ? s->out.data : "";
    p->size = n;
    s->given = n;
}

static tl_status finish(struct tl_session *s, tl_finish why, tl_piece *p, tl_error *err) {
    bool stopped;
    if (s->text_open && why != TL_FINISH_STOP) {
        TRY(token_decoder_finish(&s->text, &s->out, err));
        s->text_open = false;
    }
    text_close(s);
    showable(s, &stopped);
    show(s, p, s->out.len);
    p->done = true;
    p->finish = stopped ? TL_FINISH_STOP : why;
    s->finished = true;
    return TL_OK;
}

/* ---- the next token ---------------------------------------------------------------------------------------------- */

tl_status session_decoder_init(const tl_model *m, int32_t before, token_decoder *d, str *out, tl_error *err) {
    size_t len = out->len;
    token_decoder_init(d, m->tokenizer, TOKENIZER_SKIP | TOKENIZER_REPLACE);
    if (before < 0) return TL_OK;
    tl_status st = token_decoder_push(d, before, out, err);
    if (!out->failed) out->len = len;
    return st;
}

/* The last of seen to text. */
static tl_status decode(struct tl_session *s, tl_error *err) {
    if (!s->model->tokenizer) return TL_OK;
    size_t last = s->seen.n - 1;
    if (!s->text_open) {
        s->text_open = true;
        TRY(session_decoder_init(s->model, last ? s->seen.id[last - 1] : -1, &s->text, &s->out, err));
    }
    TRY(token_decoder_push(&s->text, s->seen.id[last], &s->out, err));
    return s->out.failed ? error_set(err, TL_NOMEM, "no memory for text") : TL_OK;
}

tl_status session_next(struct tl_session *s, tl_piece *p, tl_error *err) {
    *p = (tl_piece){.text = "", .id = -1};
    forget_given(s);
    if (s->finished) {
        p->done = true;
        return TL_OK;
    }
    TRY(begin(s, err));
    if ((int64_t)s->seen.n > s->dec.limit && !endless(s))
        return error_set(err, TL_LIMIT, "a prompt of %zu tokens does not fit the context of %lld", s->seen.n,
                         (long long)s->dec.limit);
    if (s->o.max_tokens && s->generated >= s->o.max_tokens) return finish(s, TL_FINISH_LENGTH, p, err);
    if ((int64_t)s->seen.n >= s->dec.limit && s->generated && !endless(s)) return finish(s, TL_FINISH_CONTEXT, p, err);
    TRY(compute(s, err));
    size_t back = (size_t)s->o.repeat_last < s->seen.n ? (size_t)s->o.repeat_last : s->seen.n;
    int32_t id;
    TRY(sampler_pick(&s->pick, s->logits, s->seen.id + s->seen.n - back, back, s->seen.n + (size_t)s->dropped, &id,
                     &p->logprob, err));
    if (!token_list_reserve(&s->seen, 1)) return error_set(err, TL_NOMEM, "no memory for one more token");
    s->seen.id[s->seen.n++] = id;
    s->generated++;
    p->id = id;
    if (session_is_end(s->model, id) && !s->o.ignore_eos) return finish(s, TL_FINISH_EOS, p, err);
    TRY(decode(s, err));
    bool stopped;
    size_t n = showable(s, &stopped);
    if (stopped) return finish(s, TL_FINISH_STOP, p, err);
    show(s, p, n);
    return TL_OK;
}

int64_t session_rewind(struct tl_session *s, int64_t n) {
    if (n < 0) n = 0;
    if ((size_t)n < s->seen.n) s->seen.n = (size_t)n;
    if (s->computed >= (int64_t)s->seen.n) /* the last one's logits */
        s->computed = build_rewind(&s->model->config, s->computed, s->seen.n ? (int64_t)s->seen.n - 1 : 0);
    if (s->computed < s->prefix) s->computed = 0; /* its tokens know each other */
    if ((int64_t)s->seen.n < s->prefix || !s->seen.n) s->prefix = 0;
    text_close(s);
    str_clear(&s->out);
    s->given = 0;
    s->finished = false;
    s->generated = 0;
    if (!s->seen.n) s->dropped = 0;
    if (!s->seen.n) s->source.n = 0;
    return (int64_t)s->seen.n;
}

void session_reset(struct tl_session *s) {
    session_rewind(s, 0);
}
