/* Pairs in rows of sources and targets: everything once, side by side, cut where it does not fit. */
#include "base/mem.h"
#include "data/loader.h"
#include "data/objective.h"
#include "support/testing.h"

enum { T = 20, S = 24, PAIRS = 137, EOD = 0, IDS = 8000, B = 4 };

static uint16_t id[IDS];
static uint8_t mark[IDS];
static int64_t begin[PAIRS + 1], split[PAIRS];

/* Pair k has ids of its own: 1000 + ... in the source, 3000 + ... in the target, an end at last. */
static tokens text(int64_t longest) {
    int64_t n = 0;
    for (int k = 0; k < PAIRS; k++) {
        const int64_t source = k * 7 % longest, target = 1 + k * 11 % longest;
        begin[k] = n;
        for (int64_t i = 0; i < source; i++) id[n] = (uint16_t)(1000 + n % 1999), mark[n++] = 0;
        split[k] = n;
        for (int64_t i = 0; i < target; i++) {
            id[n] = (uint16_t)(i + 1 < target ? 3000 + n % 1999 : EOD);
            mark[n++] = TOKENS_LEARNED;
        }
        mark[n - 1] |= TOKENS_LAST;
    }
    begin[PAIRS] = n;
    assert_true(n <= IDS);
    return (tokens){.id = id, .width = 2, .vocab = 5000, .eod = EOD, .n = n, .documents = PAIRS, .mark = mark};
}

static int32_t block[B * (6 * T + 3 * S)];
static loader_batch batch;

static loader *open(const tokens *t, bool in_order) {
    const loader_options o = {.mode = LOADER_PACKED, .B = B, .T = T, .source = S, .seed = 3, .in_order = in_order};
    loader *l;
    tl_error e;
    assert_int_equal(objective_numbers(OBJECTIVE_SEQ2SEQ, B, T, S), sizeof block / sizeof *block);
    objective_lay(OBJECTIVE_SEQ2SEQ, B, T, S, block, &batch);
    assert_ok(loader_open(&mem_default, t, &o, &l, &e), &e);
    return l;
}

/* Which pair a target's first id belongs to, by the run of ids. */
static int pair_of(const tokens *t, const int32_t *target, int64_t n) {
    for (int k = 0; k < PAIRS; k++) {
        bool same = begin[k + 1] - split[k] >= n;
        for (int64_t i = 0; i < n && same; i++) same = tokens_at(t, split[k] + i) == target[i];
        if (same && (begin[k + 1] - split[k] == n || n == T)) return k;
    }
    return -1;
}

/* Places [at, at + n) of row r are one target: its inputs, positions, and the source beside it. */
static void one_target(const tokens *t, int64_t r, int64_t at, int64_t n, int *seen) {
    const int64_t c = r * T + at;
    const int32_t *span = batch.span + 2 * c;
    int64_t longest = 0, best = -1;
    for (int k = 0; k < PAIRS; k++) { /* short targets are alike: the sources tell them apart */
        const int64_t source = split[k] - begin[k] < S ? split[k] - begin[k] : S;
        bool same = span[1] - span[0] == source && pair_of(t, batch.target + c, n) >= 0;
        for (int64_t i = 0; i < source && same; i++)
            same = batch.source[r * S + span[0] + i] == tokens_at(t, begin[k] + i);
        for (int64_t i = 0; i < n && same; i++) same = batch.target[c + i] == tokens_at(t, split[k] + i);
        if (same && !seen[k] && source >= longest) longest = source, best = k;
    }
    assert_true(best >= 0);
    seen[best] = 1;
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(batch.input[c + i], i ? batch.target[c + i - 1] : EOD);
        assert_int_equal(batch.pos[c + i], i);
        assert_int_equal(batch.doc_start[c + i], at);
        assert_memory_equal(batch.span + 2 * (c + i), span, 2 * sizeof *span);
    }
    for (int64_t i = span[0]; i < span[1]; i++) {
        assert_int_equal(batch.source_pos[r * S + i], i - span[0]);
        assert_int_equal(batch.source_doc[r * S + i], batch.source_doc[r * S + span[0]]);
        assert_true(batch.source_doc[r * S + i] >= 0);
    }
}

static void everything_once(void **state) {
    (void)state;
    for (int64_t longest = 9; longest <= 40; longest += 31) {
        const tokens t = text(longest);
        loader *l = open(&t, false);
        int seen[PAIRS] = {0};
        int64_t labels = 0, cut, left_out, most;
        for (int64_t step = 0; step < loader_steps(l); step++) {
            loader_get_once(l, step, &batch);
            labels += batch.labels;
            for (int64_t r = 0; r < B; r++) {
                int64_t last = 0;
                for (int64_t i = 0, n; i < T; i += n) {
                    for (n = 1; i + n < T && batch.doc_start[r * T + i + n] == batch.doc_start[r * T + i];) n++;
                    if (batch.target[r * T + i] >= 0) one_target(&t, r, i, n, seen);
                    assert_true(batch.span[2 * (r * T + i)] >= last); /* intervals never go back */
                    last = batch.span[2 * (r * T + i) + 1];
                    assert_in_range(last, 0, S);
                }
            }
        }
        for (int k = 0; k < PAIRS; k++) assert_int_equal(seen[k], 1);
        assert_int_equal(labels, loader_targets(l));
        loader_cuts(l, &cut, &left_out, &most);
        int64_t want = 0;
        for (int k = 0; k < PAIRS; k++) want += split[k] - begin[k] > S || begin[k + 1] - split[k] > T;
        assert_int_equal(cut, want);
        assert_int_equal(left_out, 0);
        if (longest < T) assert_true(loader_use(l) > 0.8); /* rows are filled */
        loader_close(l);
    }
}

/* A batch is a function of seed and step, and its rows come one by one as together. */
static void any_order(void **state) {
    (void)state;
    const tokens t = text(9);
    loader *l = open(&t, false);
    static int32_t first[sizeof block / sizeof *block], one[6 * T + 3 * S];
    for (int64_t step = 0; step < 3; step++) {
        loader_get(l, step, &batch);
        memcpy(first, block, sizeof block);
        loader_get(l, step + 5, &batch);
        loader_get(l, step, &batch);
        assert_memory_equal(first, block, sizeof block);
        for (int64_t r = 0; r < B; r++) {
            loader_batch b;
            objective_lay(OBJECTIVE_SEQ2SEQ, 1, T, S, one, &b);
            loader_get_rows(l, step, r, 1, &b);
            assert_memory_equal(b.source, batch.source + r * S, S * sizeof *b.source);
            assert_memory_equal(b.span, batch.span + 2 * r * T, 2 * T * sizeof *b.span);
            assert_memory_equal(b.target, batch.target + r * T, T * sizeof *b.target);
        }
    }
    assert_int_equal(loader_source(l), S);
    loader_close(l);
}

static void refused(void **state) {
    (void)state;
    tokens t = text(9);
    const loader_options o = {.mode = LOADER_PACKED, .B = B, .T = T, .source = S};
    loader *l;
    tl_error e;
    t.eod = -1;
    assert_fails(TL_ARG, loader_open(&mem_default, &t, &o, &l, &e), &e);
    assert_non_null(strstr(e.text, "end-of-document"));
    t.eod = EOD, t.mark = NULL;
    assert_fails(TL_ARG, loader_open(&mem_default, &t, &o, &l, &e), &e);
    assert_non_null(strstr(e.text, "pairs"));
    t.mark = mark;
    for (int64_t i = 0; i < t.n; i++) mark[i] &= TOKENS_LAST;
    assert_fails(TL_LIMIT, loader_open(&mem_default, &t, &o, &l, &e), &e);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(everything_once), cmocka_unit_test(any_order),
                                       cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
