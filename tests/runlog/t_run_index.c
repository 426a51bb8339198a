/* Runs summed up from their files, and the index that can always be thrown away. */
#include "base/file.h"
#include "runlog/metrics.h"
#include "runlog/runs.h"
#include "support/testing.h"

#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[400], index_path[500];

static void put(const char *run, const char *file, const char *text) {
    char path[700];
    snprintf(path, sizeof path, "%s/%s", dir, run);
    assert_ok(file_mkdirs(path, NULL), NULL);
    snprintf(path, sizeof path, "%s/%s/%s", dir, run, file);
    assert_ok(file_write(&mem_default, path, text, strlen(text), NULL), NULL);
}

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    snprintf(index_path, sizeof index_path, "%s/.index.sqlite", dir);
    put("first", "run.json",
        "{\"seed\": 1, \"model\": {\"layers\": 4, \"lr\": 0.001, \"tied\": true}, \"files\": [\"a\"]}");
    put("first", "metrics.jsonl",
        "{\"step\": 1, \"loss\": 4.5, \"tokens\": 100}\n{\"step\": 2, \"loss\": 3.5, \"tokens\": 100, \"val_loss\": "
        "3.0}\n"
        "{\"step\": 3, \"loss\": null, \"tokens\": 100, \"val_loss\": 3.25}\n");
    put("second", "metrics.jsonl", "{\"step\": 10, \"loss\": 1.0}\n");
    put("not-a-run", "notes.txt", "nothing");
    char link[700];
    snprintf(link, sizeof link, "%s/latest", dir);
    return symlink("second", link);
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

static const run_row *find(const runs *r, const char *name) {
    for (size_t i = 0; i < r->n; i++)
        if (!strcmp(r->row[i].name, name)) return &r->row[i];
    return NULL;
}

static void check_first(const run_row *r) {
    assert_non_null(r);
    assert_null(r->problem);
    assert_int_equal(r->steps, 3);
    const run_metric *loss = run_find_metric(r, "loss"), *val = run_find_metric(r, "val_loss");
    assert_true(loss && loss->last == 3.5 && loss->count == 2 && loss->sum == 8);
    assert_true(val && val->last == 3.25 && val->min == 3.0 && val->min_step == 2);
    assert_true(run_find_metric(r, "tokens")->sum == 300);
    assert_null(run_find_metric(r, "nothing"));
    assert_string_equal(run_find_option(r, "model.lr"), "0.001");
    assert_string_equal(run_find_option(r, "model.tied"), "true");
    assert_string_equal(run_find_option(r, "files"), "[\"a\"]");
    assert_string_equal(run_find_option(r, "seed"), "1");
    assert_null(run_find_option(r, "model"));
}

static void open_runs(runs *r, size_t want, size_t want_read) {
    tl_error e;
    assert_ok(runs_open(&mem_default, dir, index_path, r, &e), &e);
    assert_int_equal(r->n, want);
    assert_int_equal(r->read, want_read);
    assert_true(r->stored);
}

static void one_run(void **state) {
    (void)state;
    arena a;
    run_row r;
    tl_error e;
    char path[700];
    arena_init(&a, &mem_default);
    snprintf(path, sizeof path, "%s/first/", dir);
    assert_ok(run_read(&a, path, &r, &e), &e);
    assert_string_equal(r.name, "first");
    check_first(&r);
    snprintf(path, sizeof path, "%s/not-a-run", dir);
    assert_int_equal(run_read(&a, path, &r, &e), TL_NOTFOUND);
    assert_string_equal(e.file, path);
    arena_fini(&a);
}

static void the_index_follows_the_files(void **state) {
    (void)state;
    runs r;
    open_runs(&r, 2, 2); /* the link and the folder without a run are left out */
    check_first(find(&r, "first"));
    assert_int_equal(find(&r, "second")->steps, 10);
    runs_close(&r);
    open_runs(&r, 2, 0); /* nothing changed, nothing is read */
    check_first(find(&r, "first"));
    runs_close(&r);
    put("second", "metrics.jsonl", "{\"step\": 10, \"loss\": 1.0}\n{\"step\": 11, \"loss\": 0.5}\n");
    put("third", "run.json", "{}");
    open_runs(&r, 3, 2);
    assert_int_equal(find(&r, "second")->steps, 11);
    runs_close(&r);
    char path[700];
    snprintf(path, sizeof path, "%s/third", dir);
    assert_ok(file_remove_tree(&mem_default, path, NULL), NULL);
    open_runs(&r, 2, 0);
    assert_null(find(&r, "third"));
    runs_close(&r);
}

static void a_broken_run_does_not_hide_others(void **state) {
    (void)state;
    runs r;
    put("broken", "metrics.jsonl", "{\"step\": 1}\n{\"step\": \n");
    tl_error e;
    assert_ok(runs_open(&mem_default, dir, index_path, &r, &e), &e);
    assert_int_equal(r.n, 3);
    assert_non_null(strstr(find(&r, "broken")->problem, "metrics.jsonl:2"));
    check_first(find(&r, "first"));
    runs_close(&r);
    char path[700];
    snprintf(path, sizeof path, "%s/broken", dir);
    assert_ok(file_remove_tree(&mem_default, path, NULL), NULL);
}

/* Whatever the index file holds, the list is right: it is rebuilt. */
static void damaged_indexes_are_rebuilt(void **state) {
    (void)state;
    runs r;
    tl_error e;
    assert_ok(runs_open(&mem_default, dir, index_path, &r, &e), &e);
    runs_close(&r);
    size_t n;
    char *good = test_slurp(index_path, &n);
    assert_true(n > 4096);
    static const char *const junk[] = {"", "no database", "SQLite format 3"};
    for (size_t i = 0; i < 3; i++) {
        assert_ok(file_write(&mem_default, index_path, junk[i], strlen(junk[i]), &e), &e);
        open_runs(&r, 2, 2);
        check_first(find(&r, "first"));
        runs_close(&r);
    }
    memset(good + 1024, 0x55, n / 2); /* pages in the middle */
    assert_ok(file_write(&mem_default, index_path, good, n, &e), &e);
    assert_ok(runs_open(&mem_default, dir, index_path, &r, &e), &e);
    assert_int_equal(r.n, 2);
    check_first(find(&r, "first"));
    runs_close(&r);
    free(good);
}

static void without_an_index(void **state) {
    (void)state;
    runs r;
    tl_error e;
    assert_ok(runs_open(&mem_default, dir, NULL, &r, &e), &e);
    assert_int_equal(r.n, 2);
    assert_false(r.stored);
    check_first(find(&r, "first"));
    runs_close(&r);
    assert_ok(runs_open(&mem_default, dir, "/nothing/here/index", &r, &e), &e);
    assert_int_equal(r.n, 2);
    assert_false(r.stored);
    runs_close(&r);
    assert_int_equal(runs_open(&mem_default, "/nothing/here", NULL, &r, &e), TL_NOTFOUND);
}

static tl_status list(const tl_allocator *a, void *user) {
    (void)user;
    runs r;
    TRY(runs_open(a, dir, NULL, &r, NULL));
    runs_close(&r);
    return TL_OK;
}

static void failing_memory(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(list, NULL) >= 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_run),
        cmocka_unit_test(the_index_follows_the_files),
        cmocka_unit_test(a_broken_run_does_not_hide_others),
        cmocka_unit_test(damaged_indexes_are_rebuilt),
        cmocka_unit_test(without_an_index),
        cmocka_unit_test(failing_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
