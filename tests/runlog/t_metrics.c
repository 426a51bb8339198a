/* metrics.jsonl: numbers read back bit for bit, a resumed run continues its file, broken files are named. */
#include "base/file.h"
#include "runlog/metrics.h"
#include "support/testing.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

static char dir[512], path[600];

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/metrics.jsonl", dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

static float bits_f32(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static double bits_f64(uint64_t u) {
    double f;
    memcpy(&f, &u, 8);
    return f;
}

static uint64_t mix(uint64_t i) {
    i += 0x9e3779b97f4a7c15u;
    i = (i ^ (i >> 30)) * 0xbf58476d1ce4e5b9u;
    i = (i ^ (i >> 27)) * 0x94d049bb133111ebu;
    return i ^ (i >> 31);
}

static void numbers_read_back_bit_for_bit(void **state) {
    (void)state;
    enum { N = 3000 };
    tl_error e;
    metrics_writer w;
    metrics m;
    assert_ok(metrics_writer_open(&w, &mem_default, path, -1, &e), &e);
    for (int64_t i = 0; i < N; i++) {
        metrics_begin(&w, i);
        metrics_f32(&w, "loss", bits_f32((uint32_t)mix((uint64_t)i)));
        metrics_real(&w, "norm", bits_f64(mix((uint64_t)i + N)));
        metrics_int(&w, "tokens", i * 1000003);
        metrics_text(&w, "note", "a \"text\"\n");
        if (i % 10 == 9) metrics_real(&w, "val_loss", 1.0);
        assert_ok(metrics_end(&w, false, &e), &e);
    }
    metrics_writer_close(&w);
    assert_ok(metrics_read(&mem_default, path, &m, &e), &e);
    assert_int_equal(m.rows, N);
    const double *loss = metrics_find(&m, "loss"), *norm = metrics_find(&m, "norm"),
                 *val = metrics_find(&m, "val_loss");
    const double *tokens = metrics_find(&m, "tokens"), *step = metrics_find(&m, "step");
    assert_true(loss && norm && val && tokens && step && m.column[0].value == step);
    assert_null(metrics_find(&m, "note"));
    for (int64_t i = 0; i < N; i++) {
        float f = bits_f32((uint32_t)mix((uint64_t)i)), got = (float)loss[i];
        double d = bits_f64(mix((uint64_t)i + N));
        assert_true(isfinite(f) ? got == f && signbit(got) == signbit(f) : isnan(loss[i]));
        assert_true(isfinite(d) ? norm[i] == d : isnan(norm[i]));
        assert_true(tokens[i] == (double)(i * 1000003) && step[i] == (double)i);
        assert_true(i % 10 == 9 ? val[i] == 1.0 : isnan(val[i]));
    }
    double *x, *y;
    size_t n;
    assert_ok(metrics_points(&m, "step", "val_loss", &x, &y, &n, &e), &e);
    assert_int_equal(n, N / 10);
    assert_true(x[0] == 9 && y[0] == 1.0);
    mem_free(&mem_default, x);
    mem_free(&mem_default, y);
    assert_ok(metrics_points(&m, "step", "nothing", &x, &y, &n, &e), &e);
    assert_int_equal(n, 0);
    mem_free(&mem_default, x);
    mem_free(&mem_default, y);
    metrics_free(&m);
}

static void write_steps(int64_t keep, int64_t from, int64_t to, float loss) {
    tl_error e;
    metrics_writer w;
    assert_ok(metrics_writer_open(&w, &mem_default, path, keep, &e), &e);
    for (int64_t i = from; i <= to; i++) {
        metrics_begin(&w, i);
        metrics_f32(&w, "loss", loss);
        assert_ok(metrics_end(&w, true, &e), &e);
    }
    metrics_writer_close(&w);
}

static void a_resumed_run_continues_its_file(void **state) {
    (void)state;
    tl_error e;
    metrics m;
    write_steps(-1, 1, 20, 3);
    FILE *f = fopen(path, "ab");
    fputs("{\"step\": 21, \"lo", f); /* killed in the middle of a line */
    fclose(f);
    assert_ok(metrics_read(&mem_default, path, &m, &e), &e);
    assert_int_equal(m.rows, 20);
    metrics_free(&m);
    write_steps(15, 16, 18, 2);
    assert_ok(metrics_read(&mem_default, path, &m, &e), &e);
    assert_int_equal(m.rows, 18);
    for (size_t i = 0; i < 18; i++) {
        assert_true(metrics_find(&m, "step")[i] == (double)i + 1);
        assert_true(metrics_find(&m, "loss")[i] == (i < 15 ? 3 : 2));
    }
    metrics_free(&m);
    write_steps(-1, 1, 1, 1);
    assert_ok(metrics_read(&mem_default, path, &m, &e), &e);
    assert_int_equal(m.rows, 1);
    metrics_free(&m);
}

static void broken_files_name_their_line(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int64_t line;
    } bad[] = {{"{\"step\": 1}\n{\"step\": \n", 2}, {"[1]\n", 1}, {"\n{\"loss\": 1}\n", 2}, {"{\"step\": \"1\"}\n", 1}};
    tl_error e;
    metrics m;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_ok(file_write(&mem_default, path, bad[i].text, strlen(bad[i].text), &e), &e);
        assert_int_equal(metrics_read(&mem_default, path, &m, &e), TL_FORMAT);
        assert_string_equal(e.file, path);
        assert_int_equal(e.line, bad[i].line);
    }
    assert_ok(file_write(&mem_default, path, "", 0, &e), &e);
    assert_ok(metrics_read(&mem_default, path, &m, &e), &e);
    assert_int_equal(m.rows, 0);
    metrics_free(&m);
    assert_int_equal(metrics_read(&mem_default, "/nothing/here", &m, &e), TL_NOTFOUND);
}

static int failing; /* bytes to write before the disk is full */
static file_sys_table real;

static ssize_t small_disk(int fd, const void *p, size_t n) {
    if (failing <= 0) {
        errno = ENOSPC;
        return -1;
    }
    if (n > (size_t)failing) n = (size_t)failing;
    failing -= (int)n;
    return real.write(fd, p, n);
}

/* A full disk: the line that did not fit leaves nothing behind, and later lines are whole. */
static void full_disk_leaves_no_half_line(void **state) {
    (void)state;
    tl_error e;
    metrics_writer w;
    metrics m;
    assert_ok(metrics_writer_open(&w, &mem_default, path, -1, &e), &e);
    real = file_sys;
    for (int64_t i = 0; i < 3; i++) {
        metrics_begin(&w, i);
        metrics_f32(&w, "loss", 1);
        file_sys.write = i == 1 ? small_disk : real.write;
        failing = 9;
        tl_status s = metrics_end(&w, false, &e);
        file_sys = real;
        assert_int_equal(s, i == 1 ? TL_NOSPACE : TL_OK);
    }
    metrics_writer_close(&w);
    assert_ok(metrics_read(&mem_default, path, &m, &e), &e);
    assert_int_equal(m.rows, 2);
    metrics_free(&m);
}

static tl_status write_and_read(const tl_allocator *a, void *user) {
    (void)user;
    metrics_writer w;
    metrics m;
    tl_status s = metrics_writer_open(&w, a, path, 5, NULL);
    if (!s) {
        metrics_begin(&w, 6);
        metrics_f32(&w, "loss", 1);
        s = metrics_end(&w, false, NULL);
        metrics_writer_close(&w);
    }
    TRY(s);
    TRY(metrics_read(a, path, &m, NULL));
    metrics_free(&m);
    return TL_OK;
}

static void failing_memory(void **state) {
    (void)state;
    write_steps(-1, 1, 5, 1);
    assert_true(test_alloc_sweep(write_and_read, NULL) >= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_read_back_bit_for_bit),
        cmocka_unit_test(a_resumed_run_continues_its_file),
        cmocka_unit_test(broken_files_name_their_line),
        cmocka_unit_test(full_disk_leaves_no_half_line),
        cmocka_unit_test(failing_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
