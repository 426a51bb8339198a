#include "data/pairs.h"

#include <string.h>

enum { OPEN_ROWS = 64 }; /* that a pair may still go into */

/* Source [begin, begin + source) and target [split, split + target) of the ids, at columns of their row. */
typedef struct pair_piece {
    int64_t begin, split;
    int32_t source, target, at_source, at_target;
} pair_piece;

struct pairs {
    const tl_allocator *alloc;
    const tokens *t;
    int64_t T, S, rows, targets, cut, left_out, longest;
    pair_piece *piece; /* row r holds piece[first[r]] .. piece[first[r+1]-1] */
    int64_t *first;
};

/* Counts, and with out lists, the pairs. A pair's target begins with the first id that is learned. */
static int64_t pairs_cut(pairs *p, pair_piece *out) {
    const tokens *t = p->t;
    int64_t count = 0, begin = 0, split = -1;
    p->targets = p->cut = p->left_out = p->longest = 0;
    for (int64_t i = 0; i < t->n; i++) {
        if (split < 0 && t->mark[i] & TOKENS_LEARNED) split = i;
        if (!tokens_ends(t, i)) continue;
        const int64_t end = i + 1, source = (split < 0 ? end : split) - begin, target = end - begin - source;
        if (source > p->longest) p->longest = source;
        if (target > p->longest) p->longest = target;
        p->left_out += !target;
        p->cut += target && (source > p->S || target > p->T);
        if (target && out)
            out[count] = (pair_piece){.begin = begin,
                                      .split = split,
                                      .source = (int32_t)(source < p->S ? source : p->S),
                                      .target = (int32_t)(target < p->T ? target : p->T)};
        for (int64_t j = split; target && j < end && j < split + p->T; j++) p->targets += t->mark[j] & TOKENS_LEARNED;
        count += target > 0;
        begin = end, split = -1;
    }
    return count;
}

/* Places every piece; row_of[i] its row. */
static void pairs_place(pairs *p, pair_piece *piece, int64_t n, int64_t *row_of) {
    int32_t used[OPEN_ROWS][2];
    for (int64_t i = 0; i < n; i++) {
        pair_piece *x = &piece[i];
        int64_t row = p->rows > OPEN_ROWS ? p->rows - OPEN_ROWS : 0;
        while (row < p->rows &&
               (used[row % OPEN_ROWS][0] + x->source > p->S || used[row % OPEN_ROWS][1] + x->target > p->T))
            row++;
        int32_t *u = used[row % OPEN_ROWS];
        if (row == p->rows) u[0] = u[1] = 0, p->rows++;
        x->at_source = u[0], x->at_target = u[1];
        u[0] += x->source, u[1] += x->target;
        row_of[i] = row;
    }
}

/* The pieces row by row, in the order in which they were placed. */
static void pairs_group(pairs *p, const pair_piece *in, const int64_t *row_of, int64_t n) {
    for (int64_t i = 0; i < n; i++) p->first[row_of[i] + 1]++;
    for (int64_t r = 0; r < p->rows; r++) p->first[r + 1] += p->first[r];
    for (int64_t i = 0; i < n; i++) p->piece[p->first[row_of[i]]++] = in[i];
    for (int64_t r = p->rows; r > 0; r--) p->first[r] = p->first[r - 1];
    p->first[0] = 0;
}

static tl_status pairs_pack(pairs *p, tl_error *e) {
    const tl_allocator *a = p->alloc;
    const int64_t n = pairs_cut(p, NULL);
    if (!n) return error_set(e, TL_LIMIT, "there is no pair with a target");
    pair_piece *list = mem_new(a, (size_t)n, sizeof *list);
    int64_t *row_of = mem_new(a, (size_t)n, sizeof *row_of);
    p->piece = mem_new(a, (size_t)n, sizeof *p->piece);
    if (list && row_of && p->piece) {
        pairs_cut(p, list);
        pairs_place(p, list, n, row_of);
        p->first = mem_new(a, (size_t)p->rows + 1, sizeof *p->first);
        if (p->first) pairs_group(p, list, row_of, n);
    }
    mem_free(a, list);
    mem_free(a, row_of);
    return p->first ? TL_OK : error_set(e, TL_NOMEM, "no memory to pack %lld pairs", (long long)n);
}

tl_status pairs_open(const tl_allocator *a, const tokens *t, int64_t T, int64_t S, pairs **out, tl_error *e) {
    *out = NULL;
    if (!t->mark)
        return error_set(e, TL_ARG, "a model with an encoder learns from pairs: lines of \"source\", \"target\"");
    if (t->eod < 0)
        return error_set(e, TL_ARG, "targets begin behind an end-of-document id, which the tokenizer does not have");
    pairs *p = mem_new(a, 1, sizeof *p);
    if (!p) return error_set(e, TL_NOMEM, "no memory for pairs");
    p->alloc = a, p->t = t, p->T = T, p->S = S;
    tl_status s = pairs_pack(p, e);
    if (s)
        pairs_close(p);
    else
        *out = p;
    return s;
}

void pairs_close(pairs *p) {
    if (!p) return;
    mem_free(p->alloc, p->piece);
    mem_free(p->alloc, p->first);
    mem_free(p->alloc, p);
}

int64_t pairs_rows(const pairs *p) {
    return p->rows;
}
int64_t pairs_targets(const pairs *p) {
    return p->targets;
}
void pairs_cuts(const pairs *p, int64_t *cut, int64_t *left_out, int64_t *longest) {
    *cut = p->cut, *left_out = p->left_out, *longest = p->longest;
}

/* One pair, number `nth` of its row; the arrays are those of the row. */
static int64_t pairs_one(const pairs *p, const pair_piece *x, int32_t nth, const loader_batch *row) {
    const tokens *t = p->t;
    int64_t labels = 0;
    for (int32_t i = 0; i < x->source; i++) {
        const int64_t c = x->at_source + i;
        row->source[c] = tokens_at(t, x->begin + i);
        row->source_pos[c] = i;
        row->source_doc[c] = nth;
    }
    for (int32_t i = 0; i < x->target; i++) {
        const int64_t c = x->at_target + i;
        const bool learned = t->mark[x->split + i] & TOKENS_LEARNED;
        row->input[c] = i ? tokens_at(t, x->split + i - 1) : t->eod;
        row->target[c] = learned ? tokens_at(t, x->split + i) : -1;
        row->pos[c] = i;
        row->doc_start[c] = x->at_target;
        row->span[2 * c] = x->at_source;
        row->span[2 * c + 1] = x->at_source + x->source;
        labels += learned;
    }
    return labels;
}

/* Padding: documents of their own, which see no source. */
static void pairs_pad(const pairs *p, int64_t source, int64_t target, const loader_batch *row) {
    for (int64_t c = source; c < p->S; c++) {
        row->source[c] = p->t->eod;
        row->source_pos[c] = (int32_t)(c - source);
        row->source_doc[c] = -1;
    }
    for (int64_t c = target; c < p->T; c++) {
        row->input[c] = p->t->eod;
        row->target[c] = -1;
        row->pos[c] = (int32_t)(c - target);
        row->doc_start[c] = (int32_t)target;
        row->span[2 * c] = row->span[2 * c + 1] = (int32_t)source;
    }
}

int64_t pairs_fill(const pairs *p, int64_t row, int64_t k, loader_batch *b) {
    const int64_t t = k * p->T, s = k * p->S;
    const loader_batch at = {.input = b->input + t,
                             .target = b->target + t,
                             .pos = b->pos + t,
                             .doc_start = b->doc_start + t,
                             .span = b->span + 2 * t,
                             .source = b->source + s,
                             .source_pos = b->source_pos + s,
                             .source_doc = b->source_doc + s};
    int64_t labels = 0, source = 0, target = 0;
    for (int64_t i = row < p->rows ? p->first[row] : 0, nth = 0; row < p->rows && i < p->first[row + 1]; i++, nth++) {
        const pair_piece *x = &p->piece[i];
        labels += pairs_one(p, x, (int32_t)nth, &at);
        source = x->at_source + x->source, target = x->at_target + x->target;
    }
    pairs_pad(p, source, target, &at);
    return labels;
}
