/* Batches: every target exactly once an epoch, inputs and borders right, the same from any side. */
#include "data/loader.h"
#include "support/testing.h"

#include <stdlib.h>

enum { EOD = 9, N_DOCS = 60 };

/* Documents of 0..24 ids in 10..; id 10 + running number, so that every id is known. */
static void make_text(token_store *s, int docs) {
    token_store_init(s, &mem_default, 100000, EOD);
    int32_t id = 10;
    for (int d = 0; d < docs; d++) {
        for (int k = 0; k < (d * 7) % 25; k++, id++) assert_int_equal(token_store_add(s, &id, 1, NULL), TL_OK);
        assert_int_equal(token_store_end(s, NULL), TL_OK);
    }
}

typedef struct slot {
    int32_t input[4096], target[4096], pos[4096], doc_start[4096];
    loader_batch b;
} slot;

static slot *slot_new(void) {
    slot *s = malloc(sizeof *s);
    memset(s, 0x55, sizeof *s);
    s->b = (loader_batch){.input = s->input, .target = s->target, .pos = s->pos, .doc_start = s->doc_start};
    return s;
}

/* One row: targets follow inputs, documents begin after an end, positions count from there. */
static int64_t check_row(const slot *s, int64_t row, int64_t T, bool borders) {
    int64_t labels = 0;
    for (int64_t c = 0; c < T; c++) {
        int64_t i = row * T + c;
        int32_t start = s->doc_start[i];
        assert_in_range(start, 0, c);
        assert_int_equal(s->pos[i], c - start);
        if (c && start != c) assert_int_equal(start, s->doc_start[i - 1]);
        if (s->target[i] < 0) {
            assert_int_equal(s->input[i], EOD);
            continue;
        }
        labels++;
        if (borders && s->input[i] == EOD) assert_int_equal(start, c);
        if (start != c) assert_int_equal(s->input[i], s->target[i - 1]);
        if (s->input[i] != EOD && s->target[i] != EOD) assert_int_equal(s->target[i], s->input[i] + 1);
    }
    return labels;
}

/* An epoch in any mode covers every id exactly once (an id >= 10 tells its place; ends are counted). */
static void check_epoch(loader_mode mode, int64_t B, int64_t T, bool in_order) {
    token_store t;
    make_text(&t, N_DOCS);
    loader *l;
    tl_error e;
    loader_options o = {.mode = mode, .B = B, .T = T, .seed = 5, .in_order = in_order};
    assert_ok(loader_open(&mem_default, &t.view, &o, &l, &e), &e);
    slot *s = slot_new();
    uint8_t *seen = calloc((size_t)t.view.n + 20, 1);
    int64_t rows = loader_rows(l), done = 0, labels = 0, ends = 0;
    for (int64_t step = 0; done < rows; step++) {
        loader_get(l, step, &s->b);
        int64_t sum = 0;
        for (int64_t r = 0; r < B; r++) {
            int64_t n = check_row(s, r, T, true);
            sum += n;
            if (done++ >= rows) continue; /* the next epoch has begun */
            labels += n;
            for (int64_t c = 0; c < T; c++) {
                int32_t id = s->target[r * T + c];
                if (id == EOD) ends++;
                if (id < 10) continue;
                assert_int_equal(seen[id], 0);
                seen[id] = 1;
            }
        }
        assert_int_equal(sum, s->b.labels);
    }
    assert_int_equal(labels, t.view.n);
    assert_int_equal(labels, loader_targets(l));
    assert_int_equal(ends, N_DOCS);
    assert_true(loader_use(l) > 0 && loader_use(l) <= 1);
    assert_true(loader_use(l) == (double)labels / (double)(rows * T));
    labels = 0; /* and once in order */
    for (int64_t i = 0; i < loader_steps(l); i++) {
        loader_get_once(l, i, &s->b);
        labels += s->b.labels;
    }
    assert_int_equal(labels, t.view.n);
    loader_close(l);
    free(seen);
    free(s);
    token_store_fini(&t);
}

static void every_target_once_an_epoch(void **state) {
    (void)state;
    for (int mode = LOADER_WINDOWS; mode <= LOADER_PACKED; mode++)
        for (int order = 0; order < 2; order++) {
            check_epoch((loader_mode)mode, 1, 1, order);
            check_epoch((loader_mode)mode, 3, 7, order);
            check_epoch((loader_mode)mode, 4, 16, order);
            check_epoch((loader_mode)mode, 5, 25, order);
            check_epoch((loader_mode)mode, 2, 64, order);
            check_epoch((loader_mode)mode, 7, 200, order);
        }
}

static void packing_is_tight_and_keeps_documents_whole(void **state) {
    (void)state;
    token_store t;
    make_text(&t, 600);
    loader *l;
    loader_options o = {.mode = LOADER_PACKED, .B = 1, .T = 64};
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, NULL), TL_OK);
    print_message("          packed: %.2f %% used\n", 100 * loader_use(l));
    assert_true(loader_use(l) > 0.97);
    slot *s = slot_new();
    for (int64_t r = 0; r < loader_rows(l); r++) {
        loader_get_once(l, r, &s->b);
        for (int64_t c = 0; c < o.T; c++) /* every document ends in its row: no document is longer than 64 */
            if (s->target[c] >= 0 && (c + 1 == o.T || s->doc_start[c + 1] != s->doc_start[c]))
                assert_int_equal(s->target[c], EOD);
    }
    loader_close(l);
    free(s);
    token_store_fini(&t);
}

static void a_batch_is_a_function_of_seed_and_step(void **state) {
    (void)state;
    token_store t;
    make_text(&t, N_DOCS);
    slot *a = slot_new(), *b = slot_new();
    for (int mode = LOADER_WINDOWS; mode <= LOADER_RANDOM; mode++) {
        loader *l, *m;
        loader_options o = {.mode = (loader_mode)mode, .B = 6, .T = 16, .seed = 1};
        assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, NULL), TL_OK);
        o.seed = 2;
        assert_int_equal(loader_open(&mem_default, &t.view, &o, &m, NULL), TL_OK);
        loader_get(l, 100, &a->b);
        for (int64_t step = 90; step <= 100; step++) loader_get(l, step, &b->b);
        assert_memory_equal(a->input, b->input, sizeof a->input);
        assert_memory_equal(a->doc_start, b->doc_start, sizeof a->doc_start);
        loader_batch half = {.input = b->input, .target = b->target}; /* micro-batches are parts of the batch */
        loader_get_rows(l, 100, 4, 2, &half);
        assert_memory_equal(a->input + 4 * 16, b->input, 2 * 16 * sizeof(int32_t));
        assert_memory_equal(a->target + 4 * 16, b->target, 2 * 16 * sizeof(int32_t));
        loader_get(m, 100, &b->b);
        assert_memory_not_equal(a->input, b->input, 6 * 16 * sizeof(int32_t));
        loader_get(l, 101, &b->b);
        assert_memory_not_equal(a->input, b->input, 6 * 16 * sizeof(int32_t));
        loader_close(l);
        loader_close(m);
    }
    free(a), free(b);
    token_store_fini(&t);
}

/* Two epochs have the same rows in another order. */
static void epochs_differ_in_order_only(void **state) {
    (void)state;
    token_store t;
    make_text(&t, N_DOCS);
    loader *l;
    loader_options o = {.mode = LOADER_WINDOWS, .B = 1, .T = 8, .seed = 3};
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, NULL), TL_OK);
    slot *s = slot_new();
    int64_t rows = loader_rows(l), same = 0, sum[2] = {0};
    for (int64_t i = 0; i < rows; i++) {
        loader_get(l, i, &s->b);
        int32_t first = s->target[0];
        sum[0] += first;
        loader_get(l, rows + i, &s->b);
        sum[1] += s->target[0];
        same += first == s->target[0];
    }
    assert_int_equal(sum[0], sum[1]);
    assert_true(same < rows / 4);
    loader_close(l);
    free(s);
    token_store_fini(&t);
}

/* As nanoGPT: x = text[i..i+T), y = x shifted by one, no borders, offsets over the whole range. */
static void random_crops(void **state) {
    (void)state;
    token_store t;
    token_store_init(&t, &mem_default, 100000, EOD);
    for (int32_t i = 10; i < 51; i++) assert_int_equal(token_store_add(&t, &i, 1, NULL), TL_OK);
    loader *l;
    loader_options o = {.mode = LOADER_RANDOM, .B = 4, .T = 8, .seed = 3};
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, NULL), TL_OK);
    slot *s = slot_new();
    size_t offset[34] = {0};
    for (int64_t step = 0; step < 1000; step++) {
        loader_get(l, step, &s->b);
        assert_int_equal(s->b.labels, 32);
        for (int64_t r = 0; r < 4; r++) {
            int32_t begin = s->input[r * 8];
            assert_in_range(begin, 10, 42);
            offset[begin - 10]++;
            for (int32_t c = 0; c < 8; c++) {
                assert_int_equal(s->input[r * 8 + c], begin + c);
                assert_int_equal(s->target[r * 8 + c], begin + c + 1);
                assert_int_equal(s->pos[r * 8 + c], c);
                assert_int_equal(s->doc_start[r * 8 + c], 0);
            }
        }
    }
    for (size_t i = 0; i < 33; i++) assert_in_range(offset[i], 70, 180); /* 121 expected */
    assert_int_equal(loader_rows(l), 0);
    loader_close(l);
    free(s);
    token_store_fini(&t);
}

static void windows_across_documents(void **state) {
    (void)state;
    token_store t;
    make_text(&t, N_DOCS);
    loader *l;
    loader_options o = {.mode = LOADER_WINDOWS, .B = 2, .T = 32, .across = true};
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, NULL), TL_OK);
    slot *s = slot_new();
    loader_get_once(l, 3, &s->b);
    for (int64_t c = 0; c < 64; c++) {
        assert_int_equal(s->pos[c], c % 32);
        assert_int_equal(s->doc_start[c], 0);
    }
    loader_close(l);
    free(s);
    token_store_fini(&t);
}

/* Without an end-of-document id the first token has nothing before it and is no target. */
static void text_without_ends(void **state) {
    (void)state;
    token_store t;
    token_store_init(&t, &mem_default, 100, -1);
    for (int32_t i = 0; i < 21; i++) assert_int_equal(token_store_add(&t, &i, 1, NULL), TL_OK);
    loader *l;
    tl_error e;
    loader_options o = {.mode = LOADER_WINDOWS, .B = 2, .T = 8, .in_order = true};
    assert_ok(loader_open(&mem_default, &t.view, &o, &l, &e), &e);
    slot *s = slot_new();
    int64_t labels = 0;
    for (int64_t i = 0; i < loader_steps(l); i++) {
        loader_get_once(l, i, &s->b);
        labels += s->b.labels;
    }
    assert_int_equal(labels, 20);
    assert_int_equal(labels, loader_targets(l));
    loader_close(l);
    o.mode = LOADER_PACKED;
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, &e), TL_ARG);
    free(s);
    token_store_fini(&t);
}

static void short_texts_and_wrong_options(void **state) {
    (void)state;
    token_store t;
    make_text(&t, 3);
    loader *l = NULL;
    tl_error e;
    loader_options o = {.mode = LOADER_WINDOWS, .B = 2, .T = 1000};
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, &e), TL_LIMIT);
    assert_non_null(strstr(e.text, "1000"));
    o.T = t.view.n;
    assert_ok(loader_open(&mem_default, &t.view, &o, &l, &e), &e);
    loader_close(l);
    o.mode = LOADER_RANDOM; /* needs one id more */
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, &e), TL_LIMIT);
    o.T = 1000, o.mode = LOADER_WINDOWS, o.in_order = true; /* evaluation of a short text pads */
    assert_ok(loader_open(&mem_default, &t.view, &o, &l, &e), &e);
    loader_close(l);
    o.T = 0;
    assert_int_equal(loader_open(&mem_default, &t.view, &o, &l, &e), TL_ARG);
    token_store_fini(&t);
    tokens none = {.width = 2, .vocab = 10, .eod = EOD};
    o = (loader_options){.mode = LOADER_PACKED, .B = 1, .T = 8};
    assert_int_equal(loader_open(&mem_default, &none, &o, &l, &e), TL_LIMIT);
}

static tl_status open_packed(const tl_allocator *a, void *user) {
    loader *l;
    loader_options o = {.mode = LOADER_PACKED, .B = 2, .T = 20};
    tl_status s = loader_open(a, user, &o, &l, NULL);
    loader_close(s ? NULL : l);
    return s;
}

static void failing_memory(void **state) {
    (void)state;
    token_store t;
    make_text(&t, N_DOCS);
    assert_true(test_alloc_sweep(open_packed, &t.view) >= 8);
    token_store_fini(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_target_once_an_epoch),
        cmocka_unit_test(packing_is_tight_and_keeps_documents_whole),
        cmocka_unit_test(a_batch_is_a_function_of_seed_and_step),
        cmocka_unit_test(epochs_differ_in_order_only),
        cmocka_unit_test(random_crops),
        cmocka_unit_test(windows_across_documents),
        cmocka_unit_test(text_without_ends),
        cmocka_unit_test(short_texts_and_wrong_options),
        cmocka_unit_test(failing_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
