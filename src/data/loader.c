#include "data/loader.h"
#include "base/rng.h"
#include "data/pairs.h"

#include <string.h>

enum { LOADER_ORDER = 0x4c4f4144, LOADER_CROP = 0x43524f50 }; /* operator numbers of the random keys */

/* A run of targets [begin, begin+n) of the stream, at column `at` of its row. */
typedef struct loader_piece {
    int64_t begin;
    int32_t n, at;
} loader_piece;

struct loader {
    const tl_allocator *alloc;
    const tokens *t;
    loader_options o;
    int64_t rows;
    loader_piece *piece;                     /* packed: row r holds piece[first[r]] .. piece[first[r+1]-1] */
    int64_t *first;                          /* (rows+1) */
    int64_t targets, cut, left_out, longest; /* of examples */
    pairs *pairs;                            /* then: their rows */
};

/* ---- packing --------------------------------------------------------------------------------- */

/* Rows with c free columns wait in a list per c; best fit asks for the smallest non-empty list >= n. */
typedef struct loader_bins {
    int64_t *head;  /* (T+1) newest row with that much room, -1: none */
    int64_t *next;  /* (pieces) the one before it */
    uint64_t *some; /* (T/64+1) bit c: list c is not empty */
    int64_t words;
} loader_bins;

static int64_t loader_best_fit(const loader_bins *b, int64_t n) {
    int64_t w = n / 64;
    uint64_t bits = b->some[w] & (~(uint64_t)0 << (n % 64));
    while (!bits && ++w < b->words) bits = b->some[w];
    return bits ? w * 64 + __builtin_ctzll(bits) : -1;
}

static void loader_bins_push(loader_bins *b, int64_t row, int64_t room) {
    b->next[row] = b->head[room];
    b->head[room] = row;
    b->some[room / 64] |= (uint64_t)1 << (room % 64);
}

static int64_t loader_bins_pop(loader_bins *b, int64_t room) {
    int64_t row = b->head[room];
    b->head[room] = b->next[row];
    if (b->head[room] < 0) b->some[room / 64] &= ~((uint64_t)1 << (room % 64));
    return row;
}

/* Documents of the stream, those longer than T in pieces of T and a rest. With out NULL only counts. */
static int64_t loader_cut(const tokens *t, int64_t T, loader_piece *out) {
    int64_t count = 0, begin = 0;
    for (int64_t i = 0; i < t->n; i++)
        if (tokens_at(t, i) == t->eod || i + 1 == t->n || i + 1 - begin == T) {
            if (out) out[count] = (loader_piece){begin, (int32_t)(i + 1 - begin), 0};
            count++;
            begin = i + 1;
        }
    return count;
}

/* Examples: an id less than they have, the first being nobody's target, and none that teaches nothing. */
static int64_t loader_cut_examples(loader *l, loader_piece *out) {
    int64_t count = 0, begin = 0, T = l->o.T, learned = 0;
    l->targets = l->cut = l->left_out = l->longest = 0;
    for (int64_t i = 0; i < l->t->n; i++) {
        if (i > begin && i - begin <= T) learned += l->t->mark[i] & TOKENS_LEARNED;
        if (!tokens_ends(l->t, i)) continue;
        int64_t n = i - begin;
        if (n > l->longest) l->longest = n;
        l->cut += n > T && learned;
        l->left_out += !learned;
        if (learned && out) out[count] = (loader_piece){begin + 1, (int32_t)(n < T ? n : T), 0};
        count += learned > 0;
        l->targets += learned;
        begin = i + 1, learned = 0;
    }
    return count;
}

/* Longest first, equal lengths in the order of the text: a counting sort. */
static void loader_sort(const loader_piece *in, int64_t n, int64_t T, int64_t *where /* (T+2) */, loader_piece *out) {
    memset(where, 0, (size_t)(T + 2) * sizeof *where);
    for (int64_t i = 0; i < n; i++) where[T - in[i].n + 1]++;
    for (int64_t c = 0; c < T; c++) where[c + 1] += where[c];
    for (int64_t i = 0; i < n; i++) out[where[T - in[i].n]++] = in[i];
}

/* Best-fit decreasing: row_of[i] for the sorted pieces; returns the number of rows. */
static int64_t loader_fit(loader_piece *p, int64_t n, int64_t T, loader_bins *b, int64_t *row_of) {
    int64_t rows = 0;
    memset(b->head, 0xff, (size_t)(T + 1) * sizeof *b->head);
    for (int64_t i = 0; i < n; i++) {
        int64_t room = loader_best_fit(b, p[i].n), row = room < 0 ? rows++ : loader_bins_pop(b, room);
        if (room < 0) room = T;
        p[i].at = (int32_t)(T - room);
        row_of[i] = row;
        loader_bins_push(b, row, room - p[i].n);
    }
    return rows;
}

/* Groups the sorted pieces by row; within a row they stay in the order they were placed. */
static void loader_group(const loader_piece *in, const int64_t *row_of, int64_t n, int64_t rows, int64_t *first,
                         loader_piece *out) {
    memset(first, 0, (size_t)(rows + 1) * sizeof *first);
    for (int64_t i = 0; i < n; i++) first[row_of[i] + 1]++;
    for (int64_t r = 0; r < rows; r++) first[r + 1] += first[r];
    for (int64_t i = 0; i < n; i++) out[first[row_of[i]]++] = in[i];
    for (int64_t r = rows; r > 0; r--) first[r] = first[r - 1];
    first[0] = 0;
}

static tl_status loader_pack(loader *l, tl_error *e) {
    int64_t T = l->o.T, n = l->t->mark ? loader_cut_examples(l, NULL) : loader_cut(l->t, T, NULL);
    if (!n) return error_set(e, TL_LIMIT, "no example has an answer within a context of %lld tokens", (long long)T);
    const tl_allocator *a = l->alloc;
    size_t un = (size_t)n, ut = (size_t)T;
    loader_bins b = {mem_new(a, ut + 1, 8), mem_new(a, un, 8), mem_new(a, ut / 64 + 1, 8), T / 64 + 1};
    int64_t *row_of = mem_new(a, un, 8), *where = mem_new(a, ut + 2, 8);
    loader_piece *sorted = mem_new(a, un, sizeof *sorted);
    l->piece = mem_new(a, un, sizeof *l->piece);
    tl_status s = TL_OK;
    if (b.head && b.next && b.some && row_of && where && sorted && l->piece) {
        if (l->t->mark)
            loader_cut_examples(l, l->piece);
        else
            loader_cut(l->t, T, l->piece);
        loader_sort(l->piece, n, T, where, sorted);
        l->rows = loader_fit(sorted, n, T, &b, row_of);
        l->first = mem_new(a, (size_t)l->rows + 1, 8);
        if (l->first) loader_group(sorted, row_of, n, l->rows, l->first, l->piece);
    }
    if (!l->first) s = error_set(e, TL_NOMEM, "no memory to pack %lld documents", (long long)n);
    mem_free(a, b.head), mem_free(a, b.next), mem_free(a, b.some);
    mem_free(a, row_of), mem_free(a, where), mem_free(a, sorted);
    return s;
}

/* ---- open ------------------------------------------------------------------------------------ */

static tl_status loader_check(const tokens *t, const loader_options *o, tl_error *e) {
    if (o->B < 1 || o->T < 1 || o->T > INT32_MAX / 2 || o->B > INT32_MAX)
        return error_set(e, TL_ARG, "a batch of %lld rows of %lld tokens", (long long)o->B, (long long)o->T);
    if (t->mark && o->mode != LOADER_PACKED)
        return error_set(e, TL_ARG, "examples are packed whole, not cut in windows");
    if (o->mode == LOADER_PACKED && t->eod < 0 && !t->mark)
        return error_set(e, TL_ARG, "documents cannot be packed: the tokenizer has no end-of-document id");
    int64_t need = o->T + (o->mode == LOADER_RANDOM);
    if (o->mode != LOADER_PACKED && !o->in_order && t->n < need)
        return error_set(e, TL_LIMIT,
                         "the text has %lld tokens, fewer than one context of %lld: take more text or a "
                         "shorter context",
                         (long long)t->n, (long long)o->T);
    if (t->n < 1) return error_set(e, TL_LIMIT, "the text has no tokens");
    return TL_OK;
}

tl_status loader_open(const tl_allocator *a, const tokens *t, const loader_options *o, loader **out, tl_error *e) {
    *out = NULL;
    TRY(loader_check(t, o, e));
    loader *l = mem_new(a, 1, sizeof *l);
    if (!l) return error_set(e, TL_NOMEM, "no memory for a loader");
    l->alloc = a;
    l->t = t;
    l->o = *o;
    tl_status s = TL_OK;
    if (o->mode == LOADER_WINDOWS) l->rows = (t->n + o->T - 1) / o->T;
    if (o->source > 0) {
        s = pairs_open(a, t, o->T, o->source, &l->pairs, e);
        if (s == TL_OK) {
            l->rows = pairs_rows(l->pairs), l->targets = pairs_targets(l->pairs);
            pairs_cuts(l->pairs, &l->cut, &l->left_out, &l->longest);
        }
    } else if (o->mode == LOADER_PACKED) {
        s = loader_pack(l, e);
    }
    if (s)
        loader_close(l);
    else
        *out = l;
    return s;
}

void loader_close(loader *l) {
    if (!l) return;
    pairs_close(l->pairs);
    mem_free(l->alloc, l->piece);
    mem_free(l->alloc, l->first);
    mem_free(l->alloc, l);
}

int64_t loader_rows(const loader *l) {
    return l->rows;
}

int64_t loader_steps(const loader *l) {
    return (l->rows + l->o.B - 1) / l->o.B;
}

void loader_cuts(const loader *l, int64_t *cut, int64_t *left_out, int64_t *longest) {
    *cut = l->cut, *left_out = l->left_out, *longest = l->longest;
}

int64_t loader_source(const loader *l) {
    return l->pairs ? l->o.source : 0;
}

bool loader_examples(const loader *l) {
    return l->t->mark != NULL;
}

int64_t loader_targets(const loader *l) {
    if (l->t->mark) return l->targets;
    /* Without an end-of-document id nothing stands before the first token, so it is never a target. */
    return l->t->n - (l->t->eod < 0);
}

double loader_use(const loader *l) {
    return l->rows ? (double)loader_targets(l) / ((double)l->rows * (double)l->o.T) : 1.0;
}

/* ---- rows ------------------------------------------------------------------------------------ */

typedef struct loader_row {
    int32_t *input, *target, *pos, *doc_start; /* (T) */
    int64_t labels;
} loader_row;

/* Targets [begin, begin+n) of an example at columns at..at+n. */
static void loader_fill_example(const loader *l, loader_row *r, int64_t begin, int64_t n, int64_t at) {
    for (int64_t i = 0; i < n; i++) {
        int64_t c = at + i;
        bool learned = l->t->mark[begin + i] & TOKENS_LEARNED;
        r->input[c] = tokens_at(l->t, begin + i - 1);
        r->target[c] = learned ? tokens_at(l->t, begin + i) : -1;
        r->labels += learned;
        if (r->doc_start) r->doc_start[c] = (int32_t)at;
        if (r->pos) r->pos[c] = (int32_t)i;
    }
}

/* Targets [begin, begin+n) at columns at..at+n. The input of a target is the id before it; before the first id of the
 * text, the end of a document. */
static void loader_fill(const loader *l, loader_row *r, int64_t begin, int64_t n, int64_t at, bool across) {
    const tokens *t = l->t;
    int64_t start = at;
    for (int64_t i = 0; i < n; i++) {
        int64_t src = begin + i, c = at + i;
        int32_t before = src ? tokens_at(t, src - 1) : t->eod;
        bool none = before < 0; /* no id stands before the text's first token: it is no target */
        r->input[c] = none ? tokens_at(t, src) : before;
        r->target[c] = none ? -1 : tokens_at(t, src);
        r->labels += !none;
        if (before == t->eod && !across) start = c;
        if (r->doc_start) r->doc_start[c] = (int32_t)start;
        if (r->pos) r->pos[c] = (int32_t)(c - start);
    }
}

/* Columns from..T hold nothing: a document of its own that predicts nothing. */
static void loader_pad(const loader *l, loader_row *r, int64_t from) {
    for (int64_t c = from; c < l->o.T; c++) {
        r->input[c] = l->t->eod < 0 ? 0 : l->t->eod;
        r->target[c] = -1;
        if (r->doc_start) r->doc_start[c] = (int32_t)from;
        if (r->pos) r->pos[c] = (int32_t)(c - from);
    }
}

/* r: row k of b */
static void loader_fill_row(const loader *l, int64_t row, int64_t k, loader_batch *b, loader_row *r) {
    int64_t T = l->o.T, used = 0;
    if (l->pairs) {
        r->labels = pairs_fill(l->pairs, row, k, b);
        return;
    }
    if (row >= l->rows) {
        used = 0;
    } else if (l->o.mode == LOADER_WINDOWS) {
        int64_t begin = row * T;
        used = l->t->n - begin < T ? l->t->n - begin : T;
        loader_fill(l, r, begin, used, 0, l->o.across);
    } else {
        for (int64_t i = l->first[row]; i < l->first[row + 1]; i++) {
            const loader_piece *p = &l->piece[i];
            if (l->t->mark)
                loader_fill_example(l, r, p->begin, p->n, p->at);
            else
                loader_fill(l, r, p->begin, p->n, p->at, false);
            used = p->at + p->n;
        }
    }
    loader_pad(l, r, used);
}

/* Inputs x[i..i+T), targets x[i+1..i+T], i uniform: as nanoGPT draws them. */
static void loader_fill_crop(const loader *l, int64_t step, int64_t b, loader_row *r) {
    uint32_t u[4];
    rng_philox(rng_key_make(l->o.seed, (uint64_t)step, LOADER_CROP), (uint64_t)b, 0, u);
    uint64_t span = (uint64_t)(l->t->n - l->o.T), draw = (uint64_t)u[0] << 32 | u[1];
    uint64_t begin = (uint64_t)(((unsigned __int128)draw * span) >> 64);
    loader_fill(l, r, (int64_t)begin + 1, l->o.T, 0, true);
}

static loader_row loader_row_of(const loader *l, const loader_batch *b, int64_t k) {
    size_t o = (size_t)(k * l->o.T);
    return (loader_row){b->input + o, b->target + o, b->pos ? b->pos + o : NULL, b->doc_start ? b->doc_start + o : NULL,
                        0};
}

void loader_get_rows(const loader *l, int64_t step, int64_t first, int64_t rows, loader_batch *b) {
    b->labels = 0;
    for (int64_t k = 0; k < rows; k++) {
        loader_row r = loader_row_of(l, b, k);
        if (l->o.mode == LOADER_RANDOM) {
            loader_fill_crop(l, step, first + k, &r);
        } else {
            uint64_t g = (uint64_t)step * (uint64_t)l->o.B + (uint64_t)(first + k), n = (uint64_t)l->rows;
            uint64_t i = g % n;
            if (!l->o.in_order) i = rng_permute(rng_key_make(l->o.seed, g / n, LOADER_ORDER), n, i);
            loader_fill_row(l, (int64_t)i, k, b, &r);
        }
        b->labels += r.labels;
    }
}

void loader_get(const loader *l, int64_t step, loader_batch *b) {
    loader_get_rows(l, step, 0, l->o.B, b);
}

void loader_get_once(const loader *l, int64_t i, loader_batch *b) {
    b->labels = 0;
    for (int64_t k = 0; k < l->o.B; k++) {
        loader_row r = loader_row_of(l, b, k);
        loader_fill_row(l, i * l->o.B + k, k, b, &r);
        b->labels += r.labels;
    }
}
