/* Token ids in memory and in shards: what is written comes back; anything else is refused with its place. */
#include "base/hash.h"
#include "data/tokens.h"
#include "support/testing.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static char dir[512], path[600];

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/a.shard", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

static tl_status write_shard(const tl_allocator *a, int64_t vocab, int64_t documents, tl_error *e) {
    shard_writer w;
    TRY(shard_writer_open(&w, a, path, vocab, 3, 0x1122334455667788u, e));
    tl_status s = TL_OK;
    for (int64_t d = 0; d < documents && !s; d++) {
        int32_t id[5] = {(int32_t)(d % 3), 1, 2, (int32_t)vocab - 1, 0};
        s = shard_writer_add(&w, id, (size_t)(d % 5), e);
        if (!s) s = shard_writer_end(&w, e);
    }
    if (!s) return shard_writer_commit(&w, e);
    shard_writer_abort(&w);
    return s;
}

static void round_trip_of(int64_t vocab, int64_t documents) {
    tl_error e;
    shard s;
    assert_ok(write_shard(&mem_default, vocab, documents, &e), &e);
    assert_ok(shard_open(path, true, &s, &e), &e);
    assert_int_equal(s.view.width, vocab <= 65536 ? 2 : 4);
    assert_int_equal(s.view.vocab, vocab);
    assert_int_equal(s.view.eod, 3);
    assert_int_equal(s.view.documents, documents);
    assert_int_equal(s.tokenizer_hash, 0x1122334455667788u);
    int64_t i = 0;
    for (int64_t d = 0; d < documents; d++) {
        int32_t id[5] = {(int32_t)(d % 3), 1, 2, (int32_t)vocab - 1, 0};
        for (int64_t k = 0; k < d % 5; k++) assert_int_equal(tokens_at(&s.view, i++), id[k]);
        assert_int_equal(tokens_at(&s.view, i++), 3);
    }
    assert_int_equal(s.view.n, i);
    shard_close(&s);
}

static void round_trip(void **state) {
    (void)state;
    round_trip_of(10, 1);
    round_trip_of(65536, 50);
    round_trip_of(65537, 50);
    round_trip_of(100000, 200000); /* longer than the writer's buffer: the header goes back to the start */
}

static void empty_and_foreign_ids_are_refused(void **state) {
    (void)state;
    tl_error e;
    unlink(path);
    assert_int_equal(write_shard(&mem_default, 10, 0, &e), TL_FORMAT);
    assert_int_equal(access(path, F_OK), -1);
    shard_writer w;
    assert_ok(shard_writer_open(&w, &mem_default, path, 10, 3, 0, &e), &e);
    int32_t id = 10;
    assert_int_equal(shard_writer_add(&w, &id, 1, &e), TL_ARG);
    id = -1;
    assert_int_equal(shard_writer_add(&w, &id, 1, &e), TL_ARG);
    shard_writer_abort(&w);
    assert_int_equal(shard_writer_open(&w, &mem_default, path, 0, 3, 0, &e), TL_ARG);
}

static void put_file(const uint8_t *p, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* Every flipped byte and every shorter or longer file is noticed, and the file is named. */
static void damage_is_noticed(void **state) {
    (void)state;
    tl_error e;
    shard s;
    assert_ok(write_shard(&mem_default, 10, 9, &e), &e);
    size_t n;
    uint8_t *p = (uint8_t *)test_slurp(path, &n);
    for (size_t i = 0; i < n; i++) {
        p[i] ^= 0x10;
        put_file(p, n);
        tl_status st = shard_open(path, true, &s, &e);
        assert_true(st == TL_CHECKSUM || st == TL_FORMAT);
        assert_string_equal(e.file, path);
        p[i] ^= 0x10;
    }
    for (size_t k = 0; k < n; k++) {
        put_file(p, k);
        assert_int_equal(shard_open(path, true, &s, &e), TL_FORMAT);
    }
    put_file(p, n);
    FILE *f = fopen(path, "ab");
    fputc(0, f);
    fclose(f);
    assert_int_equal(shard_open(path, true, &s, &e), TL_FORMAT);
    free(p);
}

/* A header that is consistent in itself but lies, or comes from a later version. */
static void lying_headers_are_refused(void **state) {
    (void)state;
    static const struct {
        size_t at;
        uint8_t value;
        tl_status want;
    } lie[] = {{8, 3, TL_UNSUPPORTED}, {8, 2, TL_FORMAT},   {12, 3, TL_FORMAT},  {16, 0, TL_FORMAT},   {16, 2, TL_FORMAT},
               {20, 200, TL_FORMAT},   {32, 1, TL_FORMAT},  {39, 255, TL_FORMAT}, {40, 8, TL_FORMAT},
               {40, 255, TL_FORMAT},   {19, 255, TL_FORMAT}};
    tl_error e;
    shard s;
    assert_ok(write_shard(&mem_default, 10, 9, &e), &e);
    size_t n;
    uint8_t *p = (uint8_t *)test_slurp(path, &n), keep[SHARD_HEADER];
    memcpy(keep, p, sizeof keep);
    for (size_t i = 0; i < sizeof lie / sizeof *lie; i++) {
        memcpy(p, keep, sizeof keep);
        p[lie[i].at] = lie[i].value;
        uint64_t h = hash_bytes(p, 56);
        for (int k = 0; k < 8; k++) p[56 + k] = (uint8_t)(h >> (8 * k));
        put_file(p, n);
        assert_int_equal(shard_open(path, true, &s, &e), lie[i].want);
    }
    free(p);
    assert_int_equal(shard_open("/nonexistent.shard", true, &s, &e), TL_NOTFOUND);
}

static tl_status write_and_commit(const tl_allocator *a, void *user) {
    (void)user;
    return write_shard(a, 10, 4, NULL);
}

static void failing_memory(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(write_and_commit, NULL) >= 2);
}

static tl_status fill_store(const tl_allocator *a, void *user) {
    (void)user;
    token_store s;
    token_store_init(&s, a, 70000, 9);
    tl_status st = TL_OK;
    for (int32_t i = 0; i < 3000 && !st; i++) {
        int32_t id = i * 7;
        st = token_store_add(&s, &id, 1, NULL);
        if (!st && i % 10 == 9) st = token_store_end(&s, NULL);
    }
    if (!st) {
        assert_int_equal(s.view.n, 3300);
        assert_int_equal(s.view.documents, 300);
        assert_int_equal(tokens_at(&s.view, 10), 9);
        assert_int_equal(tokens_at(&s.view, 11), 70);
    }
    token_store_fini(&s);
    return st;
}

static void store_grows_and_survives_failing_memory(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(fill_store, NULL) >= 2);
    token_store s;
    token_store_init(&s, &mem_default, 8, -1);
    int32_t id = 8;
    assert_int_equal(token_store_add(&s, &id, 1, NULL), TL_ARG);
    assert_int_equal(token_store_end(&s, NULL), TL_OK); /* no end-of-document id: nothing is written */
    assert_int_equal(s.view.n, 0);
    token_store_fini(&s);
}

static ssize_t full_write(int fd, const void *p, size_t n) {
    (void)fd, (void)p, (void)n;
    errno = ENOSPC;
    return -1;
}

static void full_disk_leaves_nothing(void **state) {
    (void)state;
    tl_error e;
    unlink(path);
    file_sys_table real = file_sys;
    file_sys.write = full_write;
    tl_status small = write_shard(&mem_default, 10, 4, &e), big = write_shard(&mem_default, 100000, 200000, &e);
    file_sys = real;
    assert_int_equal(small, TL_NOSPACE);
    assert_int_equal(big, TL_NOSPACE);
    char **name;
    size_t n;
    assert_ok(file_list(&mem_default, dir, &name, &n, &e), &e);
    assert_int_equal(n, 0);
    file_list_free(&mem_default, name);
}

static void split_keeps_documents_whole(void **state) {
    (void)state;
    tl_error e;
    tokens train, val;
    token_store s;
    token_store_init(&s, &mem_default, 100, 99);
    for (int32_t d = 0; d < 10; d++) {
        int32_t id[3] = {d, d, d};
        assert_ok(token_store_add(&s, id, 3, &e), &e);
        assert_ok(token_store_end(&s, &e), &e);
    }
    assert_ok(tokens_split(&s.view, 0.2, &train, &val, &e), &e);
    assert_int_equal(train.documents, 8);
    assert_int_equal(val.documents, 2);
    assert_int_equal(train.n, 32);
    assert_int_equal(tokens_at(&val, 0), 8);
    assert_ok(tokens_split(&s.view, 0.0001, &train, &val, &e), &e);
    assert_int_equal(val.documents, 1);
    assert_ok(tokens_split(&s.view, 0.9999, &train, &val, &e), &e);
    assert_int_equal(train.documents, 1);
    tokens one = tokens_slice(&s.view, 0, 4); /* a single document is cut anywhere */
    assert_ok(tokens_split(&one, 0.25, &train, &val, &e), &e);
    assert_int_equal(train.n, 3);
    assert_int_equal(val.n, 1);
    assert_int_equal(tokens_split(&s.view, 0, &train, &val, &e), TL_ARG);
    assert_int_equal(tokens_split(&s.view, 1, &train, &val, &e), TL_ARG);
    one = tokens_slice(&s.view, 0, 1);
    assert_int_equal(tokens_split(&one, 0.5, &train, &val, &e), TL_LIMIT);
    token_store_fini(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(empty_and_foreign_ids_are_refused),
        cmocka_unit_test(damage_is_noticed),
        cmocka_unit_test(lying_headers_are_refused),
        cmocka_unit_test(failing_memory),
        cmocka_unit_test(store_grows_and_survives_failing_memory),
        cmocka_unit_test(full_disk_leaves_nothing),
        cmocka_unit_test(split_keeps_documents_whole),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
