/* Checkpoints under failing system calls, kills and flipped bytes; resumed runs against uninterrupted ones. */
#include "fixture.h"

#include "base/hash.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

enum { B = 2, T = 8 };

typedef struct bench {
    fixture f;
    trainer *t;
} bench;

static void bench_open(bench *b, int threads) {
    tl_error e = {0};
    assert_ok(fixture_open(&b->f, NULL, threads, fixture_llama, B, T, false, &e), &e);
    trainer_settings s = fixture_settings(B, B, T, TL_F32);
    assert_ok(trainer_create(b->f.model, &s, &b->t, &e), &e);
}

static void bench_close(bench *b) {
    trainer_destroy(b->t);
    fixture_close(&b->f);
}

static void steps(bench *b, int n, double *loss) {
    for (int i = 0; i < n; i++) {
        tl_error e = {0};
        tl_metrics m;
        assert_ok(trainer_step(b->t, b->f.loader, &m, &e), &e);
        if (loss) loss[i] = m.loss;
    }
}

static log_sink log_into(char *buf, tl_log_fn fn) {
    buf[0] = 0;
    return (log_sink){fn, buf, TL_LOG_WARN};
}

static void collect(void *user, tl_log_level level, const char *line) {
    char *buf = user;
    (void)level;
    if (strlen(buf) + strlen(line) < 3999) strcat(strcat(buf, line), "\n");
}

/* The step of the newest whole checkpoint, -1 if there is none; log: what was passed over. */
static int64_t newest(const char *run, char *log) {
    char dir[1024], text[4000];
    json_t *manifest;
    int64_t step = -1;
    log_sink sink = log_into(log ? log : text, collect);
    if (checkpoint_find(&mem_default, run, &sink, dir, sizeof dir, &manifest, NULL) != TL_OK) return -1;
    json_get_int(manifest, "step", 0, INT64_MAX, &step, NULL);
    json_decref(manifest);
    return step;
}

/* ---- failing calls
 * --------------------------------------------------------------------------------------------------- */

static file_sys_table real;
static long call, fail_at; /* counted over all calls below */
static bool die;           /* instead of failing: the process ends, a write after half of its bytes */

static bool now(void) {
    return ++call == fail_at;
}

#define FAIL(number)                                                                                                   \
    do {                                                                                                               \
        if (die) _exit(9);                                                                                             \
        errno = (number);                                                                                              \
        return -1;                                                                                                     \
    } while (0)

static int bad_open(const char *path, int flags, unsigned mode) {
    if (now()) FAIL(EMFILE);
    return real.open(path, flags, mode);
}
static ssize_t bad_read(int fd, void *buf, size_t n) {
    if (now()) FAIL(EIO);
    return real.read(fd, buf, n);
}
static ssize_t bad_write(int fd, const void *buf, size_t n) {
    if (now()) {
        if (die) (void)!real.write(fd, buf, n / 2);
        FAIL(ENOSPC);
    }
    return real.write(fd, buf, n);
}
static int bad_fsync(int fd) {
    if (now()) FAIL(EIO);
    return real.fsync(fd);
}
static int bad_close(int fd) {
    if (now()) {
        if (die) _exit(9);
        real.close(fd);
        errno = EIO;
        return -1;
    }
    return real.close(fd);
}
static int bad_rename(const char *from, const char *to) {
    if (now()) FAIL(EACCES);
    return real.rename(from, to);
}
static int bad_mkdir(const char *path, unsigned mode) {
    if (now()) FAIL(ENOSPC);
    return real.mkdir(path, mode);
}
static int bad_unlink(const char *path) {
    if (now()) FAIL(EACCES);
    return real.unlink(path);
}

static void inject(long n, bool kill) {
    real = file_sys;
    call = 0;
    fail_at = n;
    die = kill;
    file_sys = (file_sys_table){bad_open, bad_read, bad_write, bad_fsync, bad_close, bad_rename, bad_mkdir, bad_unlink};
}

static void inject_end(void) {
    file_sys = real;
}

static void a_failing_call_leaves_the_old_one(void **state) {
    (void)state;
    char run[200];
    bench b;
    tl_error e = {0};
    test_tempdir(run, sizeof run);
    bench_open(&b, 1);
    steps(&b, 1, NULL);
    assert_ok(checkpoint_save(b.t, run, NULL, &e), &e);
    steps(&b, 1, NULL);
    long n = 1, no_space = 0, errors = 0;
    for (;; n++) {
        inject(n, false);
        tl_status s = checkpoint_save(b.t, run, NULL, &e);
        long calls = call;
        inject_end();
        int64_t found = newest(run, NULL);
        assert_true(found == 1 || found == 2);
        if (s != TL_OK) {
            errors++;
            assert_true(e.code == s && e.text[0]);
            no_space += s == TL_NOSPACE;
        } else {
            assert_int_equal(found, 2);
        }
        if (calls < n) break;
        if (found == 2) { /* the next round begins from the old one again */
            char path[300];
            snprintf(path, sizeof path, "%s/ckpt-00000002", run);
            test_tempdir_remove(path);
            snprintf(path, sizeof path, "%s/latest", run);
            assert_ok(file_write(&mem_default, path, "ckpt-00000001\n", 14, &e), &e);
        }
    }
    assert_true(n > 40);
    assert_true(errors > 35);
    assert_true(no_space >= 5); /* a full disk is told apart */
    bench_close(&b);
    test_tempdir_remove(run);
}

static void a_kill_at_any_call_leaves_a_whole_one(void **state) {
    (void)state;
    char run[200];
    bench b;
    tl_error e = {0};
    test_tempdir(run, sizeof run);
    bench_open(&b, 1);
    steps(&b, 1, NULL);
    int64_t before = -1; /* at first there is none to fall back on */
    for (long n = 1;; n++) {
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            inject(n, true);
            tl_status s = checkpoint_save(b.t, run, NULL, NULL);
            if (s == TL_OK) s = checkpoint_prune(&mem_default, run, 2, NULL);
            _exit(call < n && s == TL_OK ? 0 : 1);
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 1);
        int64_t found = newest(run, NULL);
        assert_true(found == before || found == b.t->step);
        if (found >= 0) { /* and the model opens from the run's directory */
            tl_model *m;
            assert_ok(model_open(b.f.engine, run, &m, &e), &e);
            model_close(m);
        }
        if (WEXITSTATUS(status) == 0) {
            assert_int_equal(found, b.t->step);
            if (b.t->step == 3) break;
            n = 0; /* once more: with one old checkpoint, then with one to be pruned */
        }
        if (found == b.t->step) {
            before = found;
            steps(&b, b.t->step < 3, NULL);
        }
    }
    assert_ok(checkpoint_prune(&mem_default, run, 1, &e), &e);
    char **names;
    size_t n;
    assert_ok(file_list(&mem_default, run, &names, &n, &e), &e);
    for (size_t i = 0; i < n; i++)
        assert_true(!strncmp(names[i], "ckpt-00000003", 14) || !strncmp(names[i], "latest", 6));
    file_list_free(&mem_default, names);
    bench_close(&b);
    test_tempdir_remove(run);
}

/* ---- flipped bytes -------------------------------------------------------------------------------------------------
 */

static void flip(const char *path, long at) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    if (at < 0) {
        fseek(f, 0, SEEK_END);
        at += ftell(f);
    }
    fseek(f, at, SEEK_SET);
    int c = getc(f);
    fseek(f, at, SEEK_SET);
    putc(c ^ 1, f);
    fclose(f);
}

static void one_flipped_byte_is_noticed(void **state) {
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors", "optimizer.safetensors", "tokenizer.json",
                                        "manifest.json"};
    char run[200], path[300], log[4000];
    bench b;
    tl_error e = {0};
    test_tempdir(run, sizeof run);
    bench_open(&b, 1);
    for (int i = 0; i < 2; i++) {
        steps(&b, 1, NULL);
        assert_ok(checkpoint_save(b.t, run, NULL, &e), &e);
    }
    assert_int_equal(newest(run, log), 2);
    assert_string_equal(log, "");
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "%s/ckpt-00000002/%s", run, files[i]);
        for (long at = 0; at < 400; at += 57) {
            int64_t size = file_size(path);
            if (at >= size) continue;
            flip(path, at);
            int64_t found = newest(run, log);
            /* white space may become other white space or a value another writing of itself: then nothing is lost */
            if (i < 4 || found != 2) {
                assert_int_equal(found, 1);
                assert_non_null(strstr(log, "ckpt-00000002"));
                assert_non_null(strstr(log, i < 4 ? files[i] : "manifest.json"));
            }
            flip(path, at);
        }
        flip(path, -5);
        if (i < 4) assert_int_equal(newest(run, log), 1);
        flip(path, -5);
    }
    snprintf(path, sizeof path, "%s/ckpt-00000002/optimizer.safetensors", run);
    assert_int_equal(truncate(path, 1000), 0);
    assert_int_equal(newest(run, log), 1);
    assert_non_null(strstr(log, "1000 bytes"));
    snprintf(path, sizeof path, "%s/ckpt-00000001", run);
    test_tempdir_remove(path);
    char dir[300];
    json_t *manifest;
    log_sink none = {0};
    assert_fails(TL_NOTFOUND, checkpoint_find(&mem_default, run, &none, dir, sizeof dir, &manifest, &e), &e);
    bench_close(&b);
    test_tempdir_remove(run);
}

/* every number of the manifest: the seal notices */
static void a_changed_step_is_noticed(void **state) {
    (void)state;
    char run[200], path[300];
    bench b;
    tl_error e = {0};
    test_tempdir(run, sizeof run);
    bench_open(&b, 1);
    steps(&b, 1, NULL);
    assert_ok(checkpoint_save(b.t, run, NULL, &e), &e);
    snprintf(path, sizeof path, "%s/ckpt-00000001/manifest.json", run);
    size_t n;
    char *text = test_slurp(path, &n), *at = strstr(text, "\"step\": 1");
    assert_non_null(at);
    flip(path, at - text + 8);
    snprintf(path, sizeof path, "%s/ckpt-00000001", run);
    assert_fails(TL_CHECKSUM, checkpoint_verify(&mem_default, path, NULL, &e), &e);
    free(text);
    bench_close(&b);
    test_tempdir_remove(run);
}

/* ---- resuming -------------------------------------------------------------------------------------------------------
 */

static void resumed(const char *config, int threads, tl_dtype dtype, bool packed, double *loss, const char *run) {
    fixture f, g;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    assert_ok(fixture_open(&f, NULL, 1, config, B, T, packed, &e), &e);
    trainer_settings s = fixture_settings(B, 1, T, dtype);
    s.packed = packed;
    assert_ok(trainer_create(f.model, &s, &t, &e), &e);
    for (int i = 0; i < 4; i++) assert_ok(trainer_step(t, f.loader, &m, &e), &e);
    json_t *extra = json_pack("{s:s}", "note", "kept");
    t->data_shift = 2; /* as after a rollback */
    assert_ok(checkpoint_save(t, run, extra, &e), &e);
    json_decref(extra);
    for (int i = 0; i < 5; i++) {
        assert_ok(trainer_step(t, f.loader, &m, &e), &e);
        loss[i] = m.loss;
    }
    trainer_destroy(t);
    fixture_close(&f);

    char dir[1024];
    json_t *manifest;
    log_sink none = {0};
    assert_ok(checkpoint_find(&mem_default, run, &none, dir, sizeof dir, &manifest, &e), &e);
    assert_string_equal(json_string_value(json_object_get(checkpoint_extra(manifest), "note")), "kept");
    assert_ok(fixture_open(&g, NULL, threads, config, B, T, packed, &e), &e);
    tl_model *model;
    trainer_settings back;
    assert_ok(model_open(g.engine, run, &model, &e), &e);
    assert_ok(checkpoint_settings(manifest, &back, &e), &e);
    assert_memory_equal(&back, &s, sizeof s);
    assert_ok(trainer_create(model, &back, &t, &e), &e);
    assert_ok(checkpoint_restore(t, dir, manifest, &e), &e);
    assert_int_equal(t->step, 4);
    for (int i = 0; i < 5; i++) {
        assert_ok(trainer_step(t, g.loader, &m, &e), &e);
        assert_memory_equal(&loss[i], &m.loss, sizeof m.loss);
    }
    json_decref(manifest);
    trainer_destroy(t);
    model_close(model);
    fixture_close(&g);
}

static void a_resumed_run_gives_the_same_bits(void **state) {
    (void)state;
    for (int k = 0; k < 4; k++) {
        char run[200];
        double loss[5];
        test_tempdir(run, sizeof run);
        resumed(k & 1 ? fixture_gpt2 : fixture_llama, 1 + k, k & 2 ? TL_BF16 : TL_F32, k & 1, loss, run);
        test_tempdir_remove(run);
    }
}

static void another_model_is_refused(void **state) {
    (void)state;
    char run[200], dir[1024];
    bench b;
    fixture other;
    trainer *t;
    tl_error e = {0};
    json_t *manifest;
    log_sink none = {0};
    test_tempdir(run, sizeof run);
    bench_open(&b, 1);
    assert_ok(checkpoint_save(b.t, run, NULL, &e), &e);
    assert_ok(checkpoint_find(&mem_default, run, &none, dir, sizeof dir, &manifest, &e), &e);
    assert_ok(fixture_open(&other, NULL, 1, fixture_gpt2, B, T, false, &e), &e);
    trainer_settings s = fixture_settings(B, B, T, TL_F32);
    assert_ok(trainer_create(other.model, &s, &t, &e), &e);
    assert_fails(TL_SHAPE, checkpoint_restore(t, dir, manifest, &e), &e);
    json_decref(manifest);
    trainer_destroy(t);
    fixture_close(&other);
    bench_close(&b);
    test_tempdir_remove(run);
}

static tl_status save_and_load(const tl_allocator *a, void *user) {
    fixture f;
    trainer *t = NULL;
    char dir[1024];
    json_t *manifest = NULL;
    log_sink none = {0};
    tl_status s = fixture_open(&f, a, 1, fixture_llama, B, T, false, NULL);
    trainer_settings set = fixture_settings(B, B, T, TL_F32);
    if (s == TL_OK) s = trainer_create(f.model, &set, &t, NULL);
    if (s == TL_OK) s = checkpoint_save(t, user, NULL, NULL);
    if (s == TL_OK) s = checkpoint_prune(tl_engine_allocator(f.engine), user, 1, NULL);
    if (s == TL_OK) s = checkpoint_find(tl_engine_allocator(f.engine), user, &none, dir, sizeof dir, &manifest, NULL);
    if (s == TL_NOTFOUND) s = TL_NOMEM; /* it was there but could not be read for want of memory */
    if (s == TL_OK) s = checkpoint_restore(t, dir, manifest, NULL);
    json_decref(manifest);
    trainer_destroy(t);
    fixture_close(&f);
    return s;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    char run[200];
    test_tempdir(run, sizeof run);
    assert_true(test_alloc_sweep(save_and_load, run) > 50);
    test_tempdir_remove(run);
}

/* What a power cut leaves is not tested here, and syncing for real takes most of the time. */
static int no_sync(int fd) {
    (void)fd;
    return 0;
}

int main(void) {
    file_sys.fsync = no_sync;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failing_call_leaves_the_old_one), cmocka_unit_test(a_kill_at_any_call_leaves_a_whole_one),
        cmocka_unit_test(one_flipped_byte_is_noticed),       cmocka_unit_test(a_changed_step_is_noticed),
        cmocka_unit_test(a_resumed_run_gives_the_same_bits), cmocka_unit_test(another_model_is_refused),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
