/* Encoding of streams and of many documents, on several threads. The ids are those of one thread and one piece of
 * text: a stream is cut only where every scanner would cut it. */
#include "tokenizer/added.h"
#include "tokenizer/encode.h"
#include "tokenizer/encode_cut.h"
#include "tokenizer/pretoken.h"
#include <string.h>

enum { STREAM_MAX_THREADS = 256, STREAM_PART = 128 << 10 /* least bytes worth a thread */ };

struct token_encoder {
    const tokenizer *t;
    encoder *x;
    unsigned flags;
    size_t threads;
    char *held;          /* text not yet decided */
    size_t n, cap, base; /* base: place of held[0] in the text */
    bool begun;
};

/* ---- many documents -------------------------------------------------------------------------- */

typedef struct stream_many {
    const tokenizer *t;
    const char *const *text;
    const size_t *n;
    size_t count, next; /* next: taken under lock */
    unsigned flags;
    token_list *out;
    pthread_mutex_t lock;
    tl_status status; /* the first failure in document order */
    size_t failed_at;
    tl_error error;
} stream_many;

static void *stream_many_work(void *arg) {
    stream_many *w = arg;
    for (;;) {
        pthread_mutex_lock(&w->lock);
        size_t i = w->next < w->count ? w->next++ : w->count;
        pthread_mutex_unlock(&w->lock);
        if (i == w->count) return NULL;
        tl_error e;
        tl_status s = tokenizer_encode(w->t, w->text[i], w->n[i], w->flags, &w->out[i], &e);
        if (s == TL_OK) continue;
        pthread_mutex_lock(&w->lock);
        if (w->status == TL_OK || i < w->failed_at) {
            w->status = s;
            w->failed_at = i;
            w->error = e;
        }
        pthread_mutex_unlock(&w->lock);
    }
}

tl_status tokenizer_encode_many(const tokenizer *t, const char *const *text, const size_t *n, size_t count,
                                unsigned flags, size_t threads, token_list *out, tl_error *e) {
    stream_many w = {.t = t, .text = text, .n = n, .count = count, .flags = flags, .out = out, .status = TL_OK};
    pthread_t worker[STREAM_MAX_THREADS];
    size_t k = 0;
    if (threads > STREAM_MAX_THREADS) threads = STREAM_MAX_THREADS;
    if (pthread_mutex_init(&w.lock, NULL)) return error_set(e, TL_NOMEM, "no memory for a lock");
    /* a thread that cannot be had is done without: the ids are the same */
    while (k + 1 < threads && k + 1 < count && pthread_create(&worker[k], NULL, stream_many_work, &w) == 0) k++;
    stream_many_work(&w);
    while (k) pthread_join(worker[--k], NULL);
    pthread_mutex_destroy(&w.lock);
    if (w.status != TL_OK && e) *e = w.error;
    return w.status;
}

/* ---- one stretch of text on several threads -------------------------------------------------- */

typedef struct stream_part {
    const tokenizer *t;
    const char *text;
    size_t n, base;
    unsigned flags;
    bool inside;
    token_list out;
    tl_status status;
    tl_error error;
} stream_part;

static void *stream_part_work(void *arg) {
    stream_part *p = arg;
    encoder *x;
    size_t used;
    p->status = encoder_take(p->t, &x, &p->error);
    if (p->status != TL_OK) return NULL;
    encoder_set_inside(x, p->inside);
    p->status = encoder_run(x, p->text, p->n, p->base, p->flags, true, &used, &p->out, &p->error);
    encoder_give(x);
    return NULL;
}

/* Cuts are sure only for scanners, and where no added token could lie across one. */
static bool stream_can_cut(const tokenizer *t, unsigned flags) {
    const added *d = t->added;
    if (!encoder_streams(t) || t->model != MODEL_BPE || (t->pre && t->pre->stream)) return false;
    for (size_t i = 0; d && i < d->n; i++)
        if ((flags & TOKENIZER_PARSE) || !(d->token[i].flags & ADDED_SPECIAL)) return !d->blanks;
    return true;
}

/* Does the content of an added token end at text + at? What comes then would begin outside of any text before it. */
static bool stream_behind_added(const tokenizer *t, const char *text, size_t at) {
    for (size_t i = 0; t->added && i < t->added->n; i++) {
        size_t n;
        const char *s = vocab_text(&t->voc, t->added->token[i].id, &n);
        if (s && n && n <= at && !memcmp(text + at - n, s, n)) return true;
    }
    return false;
}

/* A border in text at or after from, before to; to if there is none. */
static size_t stream_border(const tokenizer *t, const char *text, size_t n, size_t from, size_t to) {
    const uint8_t *s = (const uint8_t *)text;
    const bool words = !t->pre;
    for (size_t i = from ? from : 1; i < to && i < n; i++)
        if (words ? cut_here(t, text, n, i, true) && !stream_behind_added(t, text, i)
                  : split_is_border(s, s + i, s + n))
            return i;
    return to;
}

static tl_status stream_join(token_list *out, stream_part *p, tl_error *e) {
    if (p->status != TL_OK) {
        if (e) *e = p->error;
        return p->status;
    }
    if (!token_list_reserve(out, p->out.n)) return error_set(e, TL_NOMEM, "no memory for ids");
    if (p->out.n) memcpy(out->id + out->n, p->out.id, p->out.n * sizeof *out->id);
    if (p->out.n && out->want_spans) memcpy(out->span + out->n, p->out.span, p->out.n * sizeof *out->span);
    out->n += p->out.n;
    return TL_OK;
}

/* Encodes text up to its last border on s->threads threads. *used 0: there was nothing to share out. */
static tl_status stream_parallel(token_encoder *s, const char *text, size_t n, size_t base, size_t *used,
                                 token_list *out, tl_error *e) {
    stream_part part[STREAM_MAX_THREADS];
    pthread_t worker[STREAM_MAX_THREADS];
    bool running[STREAM_MAX_THREADS] = {false};
    size_t want = n / STREAM_PART < s->threads ? n / STREAM_PART : s->threads, k = 0, at = 0;
    *used = 0;
    if (want < 2 || !stream_can_cut(s->t, s->flags)) return TL_OK;
    for (size_t i = 0; i < want; i++) {
        size_t aim = n / want * (i + 1),
               to = stream_border(s->t, text, n, i + 1 == want ? n - STREAM_PART / 4 : aim, n);
        if (to == n || to <= at) continue;
        part[k] = (stream_part){.t = s->t, .text = text + at, .n = to - at, .base = base + at, .flags = s->flags};
        part[k].inside = k ? true : encoder_inside(s->x);
        token_list_init(&part[k].out, s->t->alloc);
        part[k++].out.want_spans = out->want_spans;
        at = to;
    }
    for (size_t i = 1; i < k; i++) running[i] = pthread_create(&worker[i], NULL, stream_part_work, &part[i]) == 0;
    for (size_t i = 0; i < k; i++)
        if (!running[i]) stream_part_work(&part[i]);
    tl_status st = TL_OK;
    for (size_t i = 0; i < k; i++) {
        if (running[i]) pthread_join(worker[i], NULL);
        if (st == TL_OK) st = stream_join(out, &part[i], e);
        token_list_fini(&part[i].out);
    }
    *used = at;
    if (k) encoder_set_inside(s->x, true);
    return st;
}

/* ---- the stream ------------------------------------------------------------------------------ */

tl_status token_encoder_open(const tokenizer *t, unsigned flags, size_t threads, token_encoder **out, tl_error *e) {
    token_encoder *s = mem_new(t->alloc, 1, sizeof *s);
    if (!s) return error_set(e, TL_NOMEM, "no memory for a stream");
    s->t = t;
    s->flags = flags;
    s->threads = threads < 1 ? 1 : threads > STREAM_MAX_THREADS ? STREAM_MAX_THREADS : threads;
    tl_status st = encoder_take(t, &s->x, e);
    if (st == TL_OK)
        *out = s;
    else
        mem_free(t->alloc, s);
    return st;
}

void token_encoder_close(token_encoder *s) {
    if (!s) return;
    encoder_give(s->x);
    mem_free(s->t->alloc, s->held);
    mem_free(s->t->alloc, s);
}

size_t token_encoder_held(const token_encoder *s) {
    return s->n;
}

static tl_status stream_begin(token_encoder *s, token_list *out, tl_error *e) {
    if (s->begun) return TL_OK;
    s->begun = true;
    for (size_t i = 0; (s->flags & TOKENIZER_ADD) && i < s->t->prefix_n; i++)
        if (!token_list_add(out, s->t->prefix[i], 0, 0)) return error_set(e, TL_NOMEM, "no memory for ids");
    return TL_OK;
}

/* Encodes what can be decided of text, which begins at s->base. */
static tl_status stream_some(token_encoder *s, const char *text, size_t n, bool final, size_t *used, token_list *out,
                             tl_error *e) {
    size_t part = 0;
    *used = 0;
    if (s->threads > 1) TRY(stream_parallel(s, text, n, s->base, used, out, e));
    TRY(encoder_run(s->x, text + *used, n - *used, s->base + *used, s->flags, final, &part, out, e));
    *used += part;
    return TL_OK;
}

/* Puts text behind what is held. */
static tl_status stream_hold(token_encoder *s, const char *text, size_t n, tl_error *e) {
    if (!mem_reserve(s->t->alloc, &s->held, &s->cap, s->n + n + 1))
        return error_set(e, TL_NOMEM, "no memory for the text");
    if (n) memcpy(s->held + s->n, text, n);
    s->n += n;
    return TL_OK;
}

static void stream_drop(token_encoder *s, size_t used) {
    memmove(s->held, s->held + used, s->n - used);
    s->n -= used;
    s->base += used;
}

tl_status token_encoder_push(token_encoder *s, const char *text, size_t n, token_list *out, tl_error *e) {
    size_t used, old = out->n;
    tl_status st = stream_begin(s, out, e);
    if (st == TL_OK && !encoder_streams(s->t))
        st = stream_hold(s, text, n, e);
    else if (st == TL_OK) {
        /* what is held is short as a rule: give it a little of the text, then encode the rest where it lies */
        size_t lead = s->n < 4096 ? 4096 : s->n;
        while (s->n && n && st == TL_OK) {
            size_t take = n < lead ? n : lead;
            st = stream_hold(s, text, take, e);
            if (st != TL_OK) break;
            text += take;
            n -= take;
            st = stream_some(s, s->held, s->n, false, &used, out, e);
            if (st == TL_OK) stream_drop(s, used);
            if (st == TL_OK && s->n <= take) { /* the held part is over: what is left lies in text */
                text -= s->n;
                n += s->n;
                s->n = 0;
            }
            lead *= 2;
        }
        if (st == TL_OK && n && !s->n) {
            st = stream_some(s, text, n, false, &used, out, e);
            if (st == TL_OK) {
                s->base += used;
                st = stream_hold(s, text + used, n - used, e);
            }
        }
    }
    if (st != TL_OK) out->n = old;
    return st;
}

tl_status token_encoder_finish(token_encoder *s, token_list *out, tl_error *e) {
    size_t used = 0, old = out->n;
    tl_status st = stream_begin(s, out, e);
    if (st == TL_OK && s->n) st = stream_some(s, s->held, s->n, true, &used, out, e);
    for (size_t i = 0; st == TL_OK && (s->flags & TOKENIZER_ADD) && i < s->t->suffix_n; i++)
        if (!token_list_add(out, s->t->suffix[i], s->base + s->n, s->base + s->n))
            st = error_set(e, TL_NOMEM, "no memory for ids");
    if (st != TL_OK) out->n = old;
    s->n = s->base = 0;
    s->begun = false;
    encoder_set_inside(s->x, false);
    return st;
}
