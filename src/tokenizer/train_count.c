#include "base/file.h"
#include "tokenizer/internal.h"
#include "tokenizer/load.h"
#include "tokenizer/train.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRAIN_MAX_THREADS = 64, TRAIN_WINDOW = 4 << 20 };

struct token_trainer {
    const tl_allocator *alloc;
    tokenizer_train_options o;
    char *split;    /* our copy of the pattern or name */
    char **special; /* and of the special tokens */
    unicode_table *uni;
    added *added;
    split_kind kind;
    regex *pattern; /* NULL: a scanner */
    size_t threads;
    train_map map[TRAIN_MAX_THREADS]; /* one a thread, joined at the end */
    uint64_t bytes;
};

/* ---- pieces of a text ------------------------------------------------------------------------ */

/* Text without special tokens: pieces into map. *used: bytes that no later text can change. */
static tl_status train_scan(const token_trainer *r, train_map *map, const char *text, size_t n, bool final,
                            size_t *used, tl_error *e) {
    const uint8_t *s = (const uint8_t *)text, *p = s, *end = s + n;
    split_fn split = split_of(r->kind);
    while (p < end) {
        bool hit = false;
        const uint8_t *q = split ? split(r->uni, p, end, &hit) : end;
        if ((hit || !split) && !final) break;
        if (!train_map_add(map, (const char *)p, (size_t)(q - p), 1))
            return error_set(e, TL_NOMEM, "no memory for distinct pieces");
        p = q;
    }
    *used = (size_t)(p - s);
    return TL_OK;
}

static tl_status train_match(const token_trainer *r, train_map *map, const char *text, size_t n, bool final,
                             size_t *used, tl_error *e) {
    size_t at = 0, cut = 0;
    const uint8_t *s = (const uint8_t *)text;
    for (size_t k = 1; !final && k < 4 && k <= n; k++)
        if (unicode_unfinished(s + n - k, s + n)) cut = k;
    n -= cut;
    while (at < n) {
        bool found = false, open = false;
        size_t begin = n, end = n, look = at;
        do {
            TRY(regex_next(r->pattern, text, n, look, !final, &found, &begin, &end, &open, e));
            for (look = end + 1; look < n && (s[look] & 0xc0) == 0x80;) look++;
        } while (found && begin == end && look < n);
        if (found && begin == end) found = false;
        if (!final && (open || !found)) break;
        if (!found) begin = end = n;
        if ((begin > at && !train_map_add(map, text + at, begin - at, 1)) ||
            (end > begin && !train_map_add(map, text + begin, end - begin, 1)))
            return error_set(e, TL_NOMEM, "no memory for distinct pieces");
        at = end;
    }
    *used = at;
    return TL_OK;
}

static tl_status train_part(const token_trainer *r, train_map *map, const char *text, size_t n, bool final,
                            size_t *used, tl_error *e) {
    size_t longest = r->added ? r->added->longest[0] : 0;
    *used = 0;
    for (;;) {
        added_match m;
        size_t from = *used, part = 0;
        bool found = added_next(r->added, r->uni, 0, true, text, from, n, &m);
        bool sure = found && (final || m.end + longest <= n);
        size_t end = found ? m.begin : n;
        if (!found && !final && longest > 1) end = n >= from + longest - 1 ? n - (longest - 1) : from;
        if (end > from) {
            bool over = sure || (!found && final);
            TRY(r->pattern ? train_match(r, map, text + from, end - from, over, &part, e)
                           : train_scan(r, map, text + from, end - from, over, &part, e));
            *used += part;
            if (part < end - from) return TL_OK;
        }
        if (!sure) return TL_OK;
        *used = m.end;
    }
}

typedef struct train_job {
    const token_trainer *r;
    train_map *map;
    const char *text;
    size_t n, used;
    bool final;
    tl_status status;
    tl_error error;
} train_job;

static void *train_work(void *arg) {
    train_job *j = arg;
    j->status = train_part(j->r, j->map, j->text, j->n, j->final, &j->used, &j->error);
    return NULL;
}

/* A window of text on all threads, cut where every scanner cuts. */
static tl_status train_window(token_trainer *r, const char *text, size_t n, bool final, size_t *used, tl_error *e) {
    train_job job[TRAIN_MAX_THREADS];
    pthread_t worker[TRAIN_MAX_THREADS];
    bool running[TRAIN_MAX_THREADS] = {false};
    size_t want = r->threads, k = 0, at = 0;
    const uint8_t *s = (const uint8_t *)text;
    if (r->pattern || r->kind == SPLIT_NONE || (r->added && r->added->blanks) || n < 64 * want * 1024) want = 1;
    for (size_t i = 0; i < want && at < n; i++) {
        size_t to = i + 1 == want ? n : n / want * (i + 1);
        while (to < n && !split_is_border(s, s + to, s + n)) to++;
        if (to <= at) continue;
        job[k] = (train_job){.r = r, .map = &r->map[k], .text = text + at, .n = to - at, .final = to < n || final};
        k++;
        at = to;
    }
    for (size_t i = 1; i < k; i++) running[i] = pthread_create(&worker[i], NULL, train_work, &job[i]) == 0;
    for (size_t i = 0; i < k; i++)
        if (!running[i]) train_work(&job[i]);
    *used = 0;
    tl_status st = TL_OK;
    for (size_t i = 0; i < k; i++) {
        if (running[i]) pthread_join(worker[i], NULL);
        if (st == TL_OK && job[i].status != TL_OK) {
            st = job[i].status;
            if (e) *e = job[i].error;
        }
        *used += job[i].used;
    }
    return st;
}

tl_status token_trainer_text(token_trainer *r, const char *text, size_t n, tl_error *e) {
    size_t used;
    r->bytes += n;
    return train_window(r, text, n, true, &used, e);
}

static tl_status train_stream(token_trainer *r, int fd, uint64_t total, char **buf, size_t *cap, tl_error *e) {
    size_t held = 0, window = TRAIN_WINDOW;
    uint64_t done = 0;
    for (bool end = false; !end;) {
        if (held * 2 > window) window = held * 2; /* a piece longer than the window */
        if (!mem_reserve(r->alloc, buf, cap, window)) return error_set(e, TL_NOMEM, "no memory for the text");
        while (held < window) {
            ssize_t n = file_sys.read(fd, *buf + held, window - held);
            if (n < 0 && errno == EINTR) continue;
            if (n < 0) return error_errno(e, "reading failed");
            if (n == 0) end = true;
            if (end) break;
            held += (size_t)n;
            done += (uint64_t)n;
        }
        size_t used;
        TRY(train_window(r, *buf, held, end, &used, e));
        memmove(*buf, *buf + used, held - used);
        held -= used;
        if (r->o.progress && !r->o.progress(r->o.user, "read", done, total))
            return error_set(e, TL_CANCELLED, "training was cancelled");
    }
    r->bytes += done;
    return TL_OK;
}

tl_status token_trainer_file(token_trainer *r, const char *path, tl_error *e) {
    char *buf = NULL;
    size_t cap = 0;
    int fd = file_sys.open(path, O_RDONLY | O_CLOEXEC, 0);
    tl_status s;
    if (fd < 0)
        s = error_errno(e, "cannot be opened");
    else {
        int64_t size = file_size(path);
        s = train_stream(r, fd, size > 0 ? (uint64_t)size : 0, &buf, &cap, e);
        file_sys.close(fd);
    }
    mem_free(r->alloc, buf);
    if (s != TL_OK) error_at_file(e, path);
    return s;
}

/* ---- life ------------------------------------------------------------------------------------ */

void token_trainer_close(token_trainer *r) {
    if (!r) return;
    for (size_t i = 0; i < TRAIN_MAX_THREADS; i++) train_map_fini(&r->map[i]);
    for (size_t i = 0; r->special && i < r->o.special_n; i++) mem_free(r->alloc, r->special[i]);
    mem_free(r->alloc, r->special);
    mem_free(r->alloc, r->split);
    mem_free(r->alloc, r->uni);
    added_free(r->added);
    regex_free(r->pattern);
    mem_free(r->alloc, r);
}

static tl_status train_init(token_trainer *r, tl_error *e) {
    const tokenizer_train_options *o = &r->o;
    const char *split = o->split ? o->split : "gpt2";
    r->uni = unicode_new(r->alloc);
    r->added = added_new(r->alloc);
    r->split = mem_strdup(r->alloc, split);
    r->special = mem_new(r->alloc, o->special_n, sizeof *r->special);
    if (!r->uni || !r->added || !r->split || !r->special) return error_set(e, TL_NOMEM, "no memory to train");
    for (size_t i = 0; i < o->special_n; i++) {
        if (!o->special[i][0]) return error_set(e, TL_ARG, "a special token is empty");
        if (added_find(r->added, o->special[i], strlen(o->special[i])) >= 0)
            return error_set(e, TL_ARG, "the special token \"%.60s\" is given twice", o->special[i]);
        r->special[i] = mem_strdup(r->alloc, o->special[i]);
        if (!r->special[i]) return error_set(e, TL_NOMEM, "no memory to train");
        TRY(added_put(r->added, (int32_t)i, r->special[i], strlen(r->special[i]), ADDED_SPECIAL, e));
    }
    r->o.special = (const char *const *)r->special;
    r->kind = split_by_name(split);
    if (r->kind == SPLIT_KINDS) r->kind = split_by_pattern(split, strlen(split));
    if (r->kind == SPLIT_KINDS) TRY(regex_new(r->alloc, split, strlen(split), &r->pattern, e));
    return TL_OK;
}

tl_status token_trainer_open(const tl_allocator *a, const tokenizer_train_options *o, token_trainer **out,
                             tl_error *e) {
    if (o->vocab < 256 + o->special_n || o->vocab > VOCAB_MAX_IDS)
        return error_set(e, TL_ARG,
                         "a vocabulary of %zu; it needs 256 bytes and %zu special tokens, and at most %d ids", o->vocab,
                         o->special_n, (int)VOCAB_MAX_IDS);
    token_trainer *r = mem_new(a, 1, sizeof *r);
    if (!r) return error_set(e, TL_NOMEM, "no memory to train");
    r->alloc = a;
    r->o = *o;
    r->threads = o->threads < 1 ? 1 : o->threads > TRAIN_MAX_THREADS ? TRAIN_MAX_THREADS : o->threads;
    for (size_t i = 0; i < TRAIN_MAX_THREADS; i++) train_map_init(&r->map[i], a);
    tl_status s = train_init(r, e);
    if (s == TL_OK)
        *out = r;
    else
        token_trainer_close(r);
    return s;
}

/* All threads' pieces into the first map. */
static tl_status train_gather(token_trainer *r, tl_error *e) {
    for (size_t i = 1; i < TRAIN_MAX_THREADS; i++) {
        train_map *m = &r->map[i];
        train_piece p;
        train_map_seal(m);
        for (uint64_t at = 0; train_map_next(m, &at, &p);)
            if (!train_map_add(&r->map[0], p.text, p.n, p.count))
                return error_set(e, TL_NOMEM, "no memory for distinct pieces");
        train_map_fini(m);
    }
    return TL_OK;
}

static tl_status train_into(token_trainer *r, tokenizer *t, uint64_t *merges, tl_error *e) {
    const tokenizer_train_options *o = &r->o;
    t->byte_level = true;
    t->bpe = bpe_new(t->alloc);
    if (!t->bpe) return error_set(e, TL_NOMEM, "no memory to train");
    t->bpe->byte_level = true;
    for (int i = 0; i < 256; i++) TRY(vocab_put(&t->voc, i, &(char){(char)i}, 1, 0, e));
    TRY(train_merge(&r->map[0], o, &t->voc, t->bpe, o->vocab - o->special_n, merges, e));
    TRY(bpe_ready(t->bpe, &t->voc, e));
    str pre;
    str_init(&pre, t->alloc);
    load_pre_text(&pre, r->pattern ? r->split : split_pattern(r->kind));
    tl_status s = pre.failed ? error_set(e, TL_NOMEM, "no memory to train")
                             : load_parts_text(t, NULL, pre.data, NULL, load_byte_decoder, e);
    str_fini(&pre);
    for (size_t i = 0; i < o->special_n && s == TL_OK; i++)
        s = load_added_token(t, (int64_t)t->voc.n, o->special[i], strlen(o->special[i]), ADDED_SPECIAL, e);
    return s == TL_OK ? load_finish(t, e) : s;
}

tl_status token_trainer_finish(token_trainer *r, tokenizer **out, tokenizer_train_report *report, tl_error *e) {
    tokenizer *t;
    uint64_t merges = 0;
    TRY(train_gather(r, e));
    tokenizer_train_report all = {r->bytes, r->map[0].pieces, r->map[0].n, 0};
    TRY(tokenizer_new(r->alloc, MODEL_BPE, &t, e));
    tl_status s = train_into(r, t, &merges, e);
    if (s != TL_OK) {
        tokenizer_close(t);
        return s;
    }
    all.merges = merges;
    if (report) *report = all;
    *out = t;
    return TL_OK;
}
