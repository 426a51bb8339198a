/* Documents to ids: every document ends, parts do not change ids, a keyed part is held out. */
#include "data/loader.h"
#include "data/story.h"
#include "data/tokenize.h"
#include "support/testing.h"

#include <stdlib.h>

static char dir[512], path[700];

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/a.jsonl", dir);
    FILE *f = fopen(path, "wb");
    for (int i = 0; i < 1000; i++) fprintf(f, "{\"text\":\"%d\"}\n", i);
    fclose(f);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

typedef struct job {
    const char *path;
    double held;
    uint64_t seed;
    token_store train, val;
    int64_t cancel_at;
} job;

static bool progress(void *user, int64_t documents, int64_t bytes) {
    job *j = user;
    assert_true(bytes >= documents);
    return !j->cancel_at || documents < j->cancel_at;
}

static tl_status tokenize(const tl_allocator *a, job *j, tl_error *e) {
    tokenizer *t = NULL;
    corpus *c = NULL;
    token_store_init(&j->train, a, 257, 256);
    token_store_init(&j->val, a, 257, 256);
    tl_status s = tokenizer_from_bytes(a, &t, e);
    if (!s) s = corpus_open(a, &j->path, 1, NULL, &c, e);
    tokenize_options o = {.threads = 1, .held = j->held, .seed = j->seed, .progress = progress, .user = j};
    token_sink train = token_sink_store(&j->train), val = token_sink_store(&j->val);
    if (!s) s = tokenize_corpus(a, c, t, &o, &train, &val, e);
    corpus_close(c);
    tokenizer_close(t);
    return s;
}

static void done(job *j) {
    token_store_fini(&j->train);
    token_store_fini(&j->val);
}

static void held_out_documents_are_chosen_by_key(void **state) {
    (void)state;
    tl_error e;
    job a = {.path = path, .held = 0.1, .seed = 1}, b = a, c = a;
    c.seed = 2;
    assert_ok(tokenize(&mem_default, &a, &e), &e);
    assert_ok(tokenize(&mem_default, &b, &e), &e);
    assert_ok(tokenize(&mem_default, &c, &e), &e);
    assert_int_equal(a.train.view.documents + a.val.view.documents, 1000);
    assert_in_range(a.val.view.documents, 60, 140);
    assert_int_equal(a.val.view.n, b.val.view.n);
    assert_memory_equal(a.val.id, b.val.id, (size_t)a.val.view.n * 2);
    assert_true(a.val.view.n != c.val.view.n || memcmp(a.val.id, c.val.id, (size_t)a.val.view.n * 2));
    int next = -1; /* both keep the order, and together they have every document once */
    for (int64_t i = 0, v = 0; i < a.val.view.n; i++) {
        int32_t id = tokens_at(&a.val.view, i);
        if (id < 256) {
            v = v * 10 + id - '0';
            continue;
        }
        assert_true(v > next);
        next = (int)v;
        v = 0;
    }
    done(&a), done(&b), done(&c);
}

static void every_document_ends(void **state) {
    (void)state;
    tl_error e;
    job j = {.path = path};
    assert_ok(tokenize(&mem_default, &j, &e), &e);
    assert_int_equal(j.train.view.documents, 1000);
    assert_int_equal(j.train.view.n, 10 + 90 * 2 + 900 * 3 + 1000);
    assert_int_equal(tokens_at(&j.train.view, 0), '0');
    assert_int_equal(tokens_at(&j.train.view, 1), 256);
    assert_int_equal(tokens_at(&j.train.view, j.train.view.n - 1), 256);
    assert_int_equal(j.val.view.n, 0);
    done(&j);
}

/* A document of 3 MB passes the corpus in parts; its ids are the bytes all the same. */
static void parts_do_not_show(void **state) {
    (void)state;
    char big[700];
    snprintf(big, sizeof big, "%s/big.txt", dir);
    FILE *f = fopen(big, "wb");
    for (int i = 0; i < 3000000; i++) fputc('a' + i % 26, f);
    fclose(f);
    tl_error e;
    job j = {.path = big};
    assert_ok(tokenize(&mem_default, &j, &e), &e);
    assert_int_equal(j.train.view.n, 3000001);
    assert_int_equal(j.train.view.documents, 1);
    for (int64_t i = 0; i < 3000000; i++) assert_int_equal(tokens_at(&j.train.view, i), 'a' + i % 26);
    done(&j);
}

static void cancelling_and_wrong_options(void **state) {
    (void)state;
    tl_error e;
    job j = {.path = path, .cancel_at = 10};
    assert_int_equal(tokenize(&mem_default, &j, &e), TL_CANCELLED);
    assert_int_equal(j.train.view.documents, 10);
    done(&j);
    j = (job){.path = path, .held = 1.5};
    assert_int_equal(tokenize(&mem_default, &j, &e), TL_ARG);
    done(&j);
}

static void into_a_shard(void **state) {
    (void)state;
    tl_error e;
    char out[700];
    snprintf(out, sizeof out, "%s/a.shard", dir);
    tokenizer *t;
    corpus *c;
    shard_writer w;
    shard s;
    const char *p = path;
    assert_ok(tokenizer_from_bytes(&mem_default, &t, &e), &e);
    assert_ok(corpus_open(&mem_default, &p, 1, NULL, &c, &e), &e);
    assert_ok(shard_writer_open(&w, &mem_default, out, 257, 256, 42, &e), &e);
    tokenize_options o = {.threads = 1};
    token_sink sink = token_sink_shard(&w);
    assert_ok(tokenize_corpus(&mem_default, c, t, &o, &sink, NULL, &e), &e);
    assert_ok(shard_writer_commit(&w, &e), &e);
    assert_ok(shard_open(out, true, &s, &e), &e);
    assert_int_equal(s.view.documents, 1000);
    job j = {.path = path};
    assert_ok(tokenize(&mem_default, &j, &e), &e);
    assert_int_equal(s.view.n, j.train.view.n);
    assert_memory_equal(s.view.id, j.train.id, (size_t)s.view.n * 2);
    done(&j);
    shard_close(&s);
    corpus_close(c);
    tokenizer_close(t);
}

static tl_status sweep(const tl_allocator *a, void *user) {
    tl_status s = tokenize(a, user, NULL);
    done(user);
    return s;
}

static void failing_memory(void **state) {
    (void)state;
    job j = {.path = path, .held = 0.5};
    assert_true(test_alloc_sweep(sweep, &j) >= 8);
}

/* The demo's case: stories packed whole into rows, the use of the rows told. */
static void stories_pack(void **state) {
    (void)state;
    tl_error e;
    for (int lang = STORY_EN; lang <= STORY_ZH; lang++) {
        token_store t;
        tokenizer *bytes;
        str s;
        assert_ok(tokenizer_from_bytes(&mem_default, &bytes, &e), &e);
        token_store_init(&t, &mem_default, 257, 256);
        str_init(&s, &mem_default);
        token_sink sink = token_sink_store(&t);
        double nats, one, sum = 0;
        assert_ok(tokenize_stories(&mem_default, (story_lang)lang, 1, 50, 2000, bytes, &sink, &nats, &e), &e);
        size_t n = 0;
        for (uint64_t i = 50; i < 2050; i++) {
            str_clear(&s);
            assert_int_equal(story_generate((story_lang)lang, 1, i, &s, &one), TL_OK);
            for (size_t k = 0; k < s.len; k++)
                assert_int_equal(tokens_at(&t.view, (int64_t)n++), (unsigned char)s.data[k]);
            assert_int_equal(tokens_at(&t.view, (int64_t)n++), 256);
            sum += one;
        }
        assert_true(sum == nats);
        assert_int_equal(t.view.n, n);
        assert_int_equal(t.view.documents, 2000);
        static const int64_t T[] = {512, 640, 736, 768, 896, 1024};
        print_message("          %s packed:", lang == STORY_EN ? "en" : "zh");
        for (size_t i = 0; i < sizeof T / sizeof *T; i++) {
            loader *l;
            loader_options o = {.mode = LOADER_PACKED, .B = 1, .T = T[i]};
            assert_ok(loader_open(&mem_default, &t.view, &o, &l, &e), &e);
            print_message(" %d: %.1f %%", (int)T[i], 100 * loader_use(l));
            assert_true(loader_use(l) > 0.6);
            loader_close(l);
        }
        print_message("\n");
        token_store_fini(&t);
        str_fini(&s);
        tokenizer_close(bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(held_out_documents_are_chosen_by_key),
        cmocka_unit_test(every_document_ends),
        cmocka_unit_test(parts_do_not_show),
        cmocka_unit_test(cancelling_and_wrong_options),
        cmocka_unit_test(into_a_shard),
        cmocka_unit_test(failing_memory),
        cmocka_unit_test(stories_pack),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
