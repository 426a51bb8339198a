#include "infer/batch.h"

#include <string.h>

typedef struct sequence {
    size_t index;
    bool active;
    token_list ids;
    int64_t prompt, source; /* source: of an encoder, beside the prompt */
    sampler pick;
    bool sampling, decoding;
    token_decoder text;
    str out;
} sequence;

typedef struct batch {
    tl_model *model;
    const tl_session_options *o;
    decoder dec;
    sequence *seq; /* (slots) */
    int64_t slots;
    int32_t *rows; /* (4, slots): ids, positions, slots, chosen rows */
    bool (*told)(void *user, const batch_text *t);
    void *user;
} batch;

/* ---- one sequence ----------------------------------------------------------------------------------------------- */

static void sequence_end(sequence *s) {
    if (s->sampling) sampler_fini(&s->pick);
    if (s->decoding) token_decoder_finish(&s->text, &s->out, NULL);
    s->sampling = s->decoding = s->active = false;
    s->ids.n = 0;
    str_clear(&s->out);
}

static tl_status finish(batch *b, sequence *s, tl_finish why, tl_error *err) {
    if (s->decoding && why != TL_FINISH_STOP) {
        s->decoding = false;
        TRY(token_decoder_finish(&s->text, &s->out, err));
    }
    batch_text t = {.index = s->index,
                    .text = s->out.data ? s->out.data : "",
                    .size = s->out.len,
                    .prompt = s->source ? s->source : s->prompt,
                    .tokens = (int64_t)s->ids.n - s->prompt,
                    .finish = why};
    bool go_on = b->told(b->user, &t);
    sequence_end(s);
    return go_on ? TL_OK : error_set(err, TL_CANCELLED, "writing was cancelled");
}

/* Cuts the text before the first stop text in it. */
static bool stopped(const batch *b, sequence *s) {
    bool hit = false;
    for (size_t i = 0; i < b->o->n_stop; i++) {
        const char *at = s->out.len ? memmem(s->out.data, s->out.len, b->o->stop[i], strlen(b->o->stop[i])) : NULL;
        if (!at) continue;
        s->out.len = (size_t)(at - s->out.data);
        hit = true;
    }
    return hit;
}

/* The next id of a sequence from its logits; the sequence may end here. */
static tl_status choose(batch *b, sequence *s, const float *logits, tl_error *err) {
    const tl_session_options *o = b->o;
    size_t last = o->repeat_last ? (size_t)o->repeat_last : 64, back = last < s->ids.n ? last : s->ids.n;
    float logprob;
    int32_t id;
    TRY(sampler_pick(&s->pick, logits, s->ids.id + s->ids.n - back, back, s->ids.n, &id, &logprob, err));
    if (!token_list_reserve(&s->ids, 1)) return error_set(err, TL_NOMEM, "no memory for one more token");
    s->ids.id[s->ids.n++] = id;
    if (session_is_end(b->model, id) && !o->ignore_eos) return finish(b, s, TL_FINISH_EOS, err);
    TRY(token_decoder_push(&s->text, id, &s->out, err));
    if (stopped(b, s)) return finish(b, s, TL_FINISH_STOP, err);
    if (o->max_tokens && (int64_t)s->ids.n - s->prompt >= o->max_tokens) return finish(b, s, TL_FINISH_LENGTH, err);
    if ((int64_t)s->ids.n >= b->dec.limit) return finish(b, s, TL_FINISH_CONTEXT, err);
    return TL_OK;
}

static tl_status begin(batch *b, int64_t slot, const char *prompt, size_t index, bool special, tl_error *err) {
    sequence *s = &b->seq[slot];
    const tl_session_options *o = b->o;
    sampler_options so = {o->temperature, o->top_k, o->top_p, o->min_p, o->repeat_penalty, o->seed, index};
    s->index = index;
    TRY(session_prompt_ids(b->model, prompt, strlen(prompt), special, &s->ids, err));
    s->source = 0;
    if (b->model->config.encoder) { /* what is said is the source; the answer begins behind an end of document */
        s->source = (int64_t)s->ids.n;
        TRY(decoder_encode(&b->dec, slot, s->source, s->ids.id, err));
        s->ids.n = 0;
    }
    if (!s->ids.n) { /* nothing is said: as a session begins */
        const bool bos = b->model->config.bos >= 0 && !b->model->config.encoder;
        int32_t id = bos ? b->model->config.bos : session_end_of(b->model);
        if (id < 0) return error_set(err, TL_STATE, "prompt %zu is empty, and the model has no BOS token", index);
        if (!token_list_reserve(&s->ids, 1)) return error_set(err, TL_NOMEM, "no memory for the prompt");
        s->ids.id[s->ids.n++] = id;
    }
    s->prompt = (int64_t)s->ids.n;
    if (s->prompt >= b->dec.limit)
        return error_set(err, TL_LIMIT, "prompt %zu: %lld tokens do not fit the context of %lld", index,
                         (long long)s->prompt, (long long)b->dec.limit);
    TRY(sampler_init(&s->pick, b->model->alloc, &so, b->model->config.vocab, err));
    s->sampling = s->decoding = s->active = true;
    TRY(session_decoder_init(b->model, s->ids.id[s->prompt - 1], &s->text, &s->out, err));
    int32_t *place = mem_new(b->model->alloc, 2 * s->ids.n, sizeof *place), last = (int32_t)s->prompt - 1;
    if (!place) return error_set(err, TL_NOMEM, "no memory for a prompt of %lld tokens", (long long)s->prompt);
    for (int64_t i = 0; i < s->prompt; i++) {
        place[i] = (int32_t)i;
        place[s->prompt + i] = (int32_t)slot;
    }
    const float *logits;
    if (b->dec.prefix) b->dec.prefix[slot] = (int32_t)s->prompt;
    tl_status st = decoder_run(&b->dec, s->prompt, s->ids.id, place, place + s->prompt, 1, &last, &logits, err);
    mem_free(b->model->alloc, place);
    return st == TL_OK ? choose(b, s, logits, err) : st;
}

/* ---- all of them ------------------------------------------------------------------------------------------------ */

/* One more token for every active sequence. *any: there was one. */
static tl_status step(batch *b, bool *any, tl_error *err) {
    int32_t *ids = b->rows, *pos = ids + b->slots, *slot = pos + b->slots, *select = slot + b->slots;
    const float *logits;
    int64_t n = 0, V = b->model->config.vocab;
    for (int64_t i = 0; i < b->slots; i++) {
        const sequence *s = &b->seq[i];
        if (!s->active) continue;
        ids[n] = s->ids.id[s->ids.n - 1];
        pos[n] = (int32_t)s->ids.n - 1;
        slot[n] = (int32_t)i;
        select[n] = (int32_t)n;
        n++;
    }
    *any = n > 0;
    if (!n) return TL_OK;
    TRY(decoder_run(&b->dec, n, ids, pos, slot, n, select, &logits, err));
    for (int64_t k = 0; k < n; k++) TRY(choose(b, &b->seq[slot[k]], logits + k * V, err));
    return TL_OK;
}

static tl_status run_all(batch *b, const char *const *prompt, size_t n, bool special, tl_error *err) {
    size_t next = 0;
    for (bool any = true; any || next < n;) {
        for (int64_t i = 0; i < b->slots && next < n; i++)
            if (!b->seq[i].active) {
                TRY(begin(b, i, prompt[next], next, special, err));
                next++;
            }
        TRY(step(b, &any, err));
    }
    return TL_OK;
}

tl_status batch_run(tl_model *m, const tl_session_options *o, int64_t slots, const char *const *prompt, size_t n,
                    bool special, bool (*told)(void *user, const batch_text *t), void *user, tl_error *err) {
    const tl_allocator *a = m->alloc;
    batch b = {.model = m, .o = o, .slots = slots, .told = told, .user = user};
    if (!m->tokenizer) return error_set(err, TL_STATE, "the model has no tokenizer; it writes ids alone");
    if (slots < 1 || slots > 512)
        return error_set(err, TL_ARG, "%lld sequences at a time; it can be 1 to 512", (long long)slots);
    if (o->cache_window) return error_set(err, TL_ARG, "a window of the cache is for one text at a time");
    b.seq = mem_new(a, (size_t)slots, sizeof *b.seq);
    b.rows = mem_new(a, 4 * (size_t)slots, sizeof *b.rows);
    tl_status s = b.seq && b.rows ? TL_OK : error_set(err, TL_NOMEM, "no memory for %lld sequences", (long long)slots);
    for (int64_t i = 0; b.seq && i < slots; i++) {
        token_list_init(&b.seq[i].ids, a);
        str_init(&b.seq[i].out, a);
    }
    int64_t context = o->context > 0 ? o->context : m->config.context;
    if (s == TL_OK) s = decoder_init(&b.dec, m, slots, context, TL_F32, o->cache_dtype, err);
    if (s == TL_OK) s = run_all(&b, prompt, n, special, err);
    for (int64_t i = 0; b.seq && i < slots; i++) {
        sequence_end(&b.seq[i]);
        token_list_fini(&b.seq[i].ids);
        str_fini(&b.seq[i].out);
    }
    decoder_fini(&b.dec);
    mem_free(a, b.seq);
    mem_free(a, b.rows);
    return s;
}
