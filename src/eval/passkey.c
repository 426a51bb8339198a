#include "eval/passkey.h"

#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char opening[] = "Somewhere below, a number is given. Keep it in mind: at the end you are asked for it.\n";
static const char filler[] =
    "Rain fell on the hills and the river took it to the sea. Leaves turned, and boats came home.\n";
static const char needle[] = "The secret number is %s. Remember: %s is the secret number.\n";
static const char question[] = "What was the secret number? The secret number is";

typedef struct passkey {
    tl_model *model;
    const tl_allocator *alloc;
    const passkey_options *o;
    tl_session *session;
    token_list part[3]; /* opening, filler, question */
    token_list text;    /* a whole one */
} passkey;

static tl_status encode(const passkey *p, const char *text, unsigned flags, token_list *l, tl_error *err) {
    return tokenizer_encode(p->model->tokenizer, text, strlen(text), flags, l, err);
}

static bool append(token_list *to, const token_list *l) {
    if (!token_list_reserve(to, l->n)) return false;
    memcpy(to->id + to->n, l->id, l->n * sizeof *l->id);
    to->n += l->n;
    return true;
}

/* As many fillers as fit, the needle among them. */
static tl_status compose(passkey *p, int64_t length, double depth, const char *key, size_t answer, tl_error *err) {
    char said[200];
    token_list told;
    snprintf(said, sizeof said, needle, key, key);
    token_list_init(&told, p->alloc);
    tl_status s = encode(p, said, 0, &told, err);
    int64_t fixed = (int64_t)(p->part[0].n + p->part[2].n + told.n + answer), room = length - fixed;
    if (s == TL_OK && room < 0)
        s = error_set(err, TL_ARG, "a text of %lld tokens has no room for the number and the question, which take %lld",
                      (long long)length, (long long)fixed);
    int64_t n = room > 0 ? room / (int64_t)p->part[1].n : 0, before = (int64_t)llround(depth * (double)n);
    bool ok = true;
    p->text.n = 0;
    if (s == TL_OK) ok = append(&p->text, &p->part[0]);
    for (int64_t i = 0; i <= n && ok && s == TL_OK; i++) {
        if (i == before) ok = append(&p->text, &told);
        if (ok && i < n) ok = append(&p->text, &p->part[1]);
    }
    if (s == TL_OK && ok) ok = append(&p->text, &p->part[2]);
    token_list_fini(&told);
    if (s == TL_OK && !ok) s = error_set(err, TL_NOMEM, "no memory for a text of %lld tokens", (long long)length);
    return s;
}

/* log p of id, and whether it is the likeliest. */
static double log_p(const float *z, int64_t V, int32_t id, bool *best) {
    double top = -INFINITY, sum = 0;
    for (int64_t v = 0; v < V; v++) top = fmax(top, (double)z[v]);
    for (int64_t v = 0; v < V; v++) sum += exp((double)z[v] - top);
    *best = (double)z[id] == top;
    return (double)z[id] - top - log(sum);
}

/* The text is read (what it shares with the one before is in the cache already), then the number, id by id. */
static tl_status ask(passkey *p, const token_list *answer, bool *found, double *logprob, tl_error *err) {
    tl_session *s = p->session;
    size_t same = 0;
    while (same < p->text.n && same < s->seen.n && s->seen.id[same] == p->text.id[same]) same++;
    same = (size_t)session_rewind(s, (int64_t)same);
    TRY(session_ids(s, p->text.id + same, p->text.n - same, err));
    *found = true;
    *logprob = 0;
    for (size_t i = 0; i < answer->n; i++) {
        const float *z;
        bool best;
        TRY(session_logits(s, &z, err));
        *logprob += log_p(z, p->model->config.vocab, answer->id[i], &best) / (double)answer->n;
        *found &= best;
        TRY(session_ids(s, &answer->id[i], 1, err));
    }
    return TL_OK;
}

static tl_status trial(passkey *p, passkey_cell *c, int64_t i, tl_error *err) {
    char key[16], said[20];
    token_list answer;
    bool found = false;
    double logprob = 0;
    rng_key rng = rng_key_make(p->o->seed, (uint64_t)i, 0x6b6579); /* "key" */
    snprintf(key, sizeof key, "%u", 10000 + rng_u32(rng, (uint64_t)c->length, (uint64_t)(c->depth * 1000)) % 90000);
    snprintf(said, sizeof said, " %s", key);
    token_list_init(&answer, p->alloc);
    tl_status s = encode(p, said, 0, &answer, err);
    if (s == TL_OK) s = compose(p, c->length, c->depth, key, answer.n, err);
    if (s == TL_OK) s = ask(p, &answer, &found, &logprob, err);
    token_list_fini(&answer);
    c->found += (double)found / (double)p->o->trials;
    c->logprob += logprob / (double)p->o->trials;
    c->tokens = (int64_t)p->text.n;
    return s;
}

static tl_status run_cells(passkey *p, passkey_cell *cell, bool (*told)(void *, const passkey_cell *), void *user,
                           tl_error *err) {
    for (size_t i = 0; i < p->o->lengths * p->o->depths; i++) {
        passkey_cell *c = &cell[i];
        *c = (passkey_cell){.length = p->o->length[i / p->o->depths], .depth = p->o->depth[i % p->o->depths]};
        for (int64_t k = 0; k < p->o->trials; k++) TRY(trial(p, c, k, err));
        if (told && !told(user, c)) return error_set(err, TL_CANCELLED, "the task was cancelled");
    }
    return TL_OK;
}

tl_status passkey_run(tl_model *m, const passkey_options *o, passkey_cell *cell,
                      bool (*told)(void *user, const passkey_cell *c), void *user, tl_error *err) {
    passkey p = {.model = m, .alloc = m->alloc, .o = o};
    tl_session_options so = {.context = 1, .ignore_eos = true, .cache_dtype = o->cache_dtype};
    if (!m->tokenizer) return error_set(err, TL_STATE, "the model has no tokenizer, so no text can be hidden in");
    if (o->trials < 1) return error_set(err, TL_ARG, "%lld trials", (long long)o->trials);
    for (size_t i = 0; i < o->lengths; i++)
        if (o->length[i] + 16 > so.context) so.context = o->length[i] + 16;
    for (int i = 0; i < 3; i++) token_list_init(&p.part[i], p.alloc);
    token_list_init(&p.text, p.alloc);
    tl_status s = encode(&p, opening, TOKENIZER_ADD, &p.part[0], err);
    int32_t eos = tokenizer_role_id(m->tokenizer, TOKENIZER_EOS);
    while (p.part[0].n > 1 && p.part[0].id[p.part[0].n - 1] == eos) p.part[0].n--; /* the text goes on */
    if (s == TL_OK) s = encode(&p, filler, 0, &p.part[1], err);
    if (s == TL_OK) s = encode(&p, question, 0, &p.part[2], err);
    if (s == TL_OK) s = session_create(m, &so, &p.session, err);
    if (s == TL_OK) s = run_cells(&p, cell, told, user, err);
    session_destroy(p.session);
    for (int i = 0; i < 3; i++) token_list_fini(&p.part[i]);
    token_list_fini(&p.text);
    return s;
}
