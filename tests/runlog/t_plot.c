/* Plots: ticks are round numbers inside the axis, dots are where the points are, files are whole or absent. */
#include "base/file.h"
#include "runlog/plot.h"
#include "support/testing.h"

#include <math.h>
#include <stdlib.h>

/* fontconfig, below cairo, keeps its caches to the end of the process: not ours, and not told by leak checkers. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libfontconfig\n";
}

static char dir[512];

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

static plot_spec one(plot_series *s, const double *x, const double *y, size_t n) {
    *s = (plot_series){.name = "one", .x = x, .y = y, .n = n, .color = -1};
    return (plot_spec){.series = s, .n = 1};
}

static void ticks_of(double lo, double hi, bool log) {
    double x[] = {lo, hi}, y[] = {lo, hi};
    plot_series s;
    plot_axis ax, ay;
    tl_error e;
    plot_spec p = one(&s, x, y, 2);
    p.log_x = p.log_y = log;
    assert_ok(plot_fit(&p, &ax, &ay, &e), &e);
    assert_in_range(ax.ticks, 2, 16);
    assert_in_range(ay.ticks, 2, 16);
    for (size_t i = 0; i < ay.ticks; i++) {
        assert_true(ay.tick[i] >= ay.min - 1e-6 * (ay.max - ay.min) && ay.tick[i] <= ay.max + 1e-6 * (ay.max - ay.min));
        if (i) assert_true(ay.tick[i] > ay.tick[i - 1] && strcmp(ay.label[i], ay.label[i - 1]));
        double v = log ? pow(10, ay.tick[i]) : ay.tick[i], told = strtod(ay.label[i], NULL);
        char unit = ay.label[i][strlen(ay.label[i]) - 1];
        told *= unit == 'k' ? 1e3 : unit == 'M' ? 1e6 : 1;
        assert_true(fabs(told - v) <= 1e-6 * fabs(v) + 1e-12); /* the label says the tick's value */
    }
}

static void ticks_are_round(void **state) {
    (void)state;
    static const double range[][2] = {{0, 1},        {0, 2000},    {1.2, 4.17}, {0.381, 0.3813}, {1, 5e6},
                                      {0.001, 0.02}, {123, 45678}, {0.5, 5.6},  {3, 3},          {2e-7, 9e-7}};
    for (size_t i = 0; i < sizeof range / sizeof *range; i++) {
        ticks_of(range[i][0], range[i][1], false);
        if (range[i][0] > 0) ticks_of(range[i][0], range[i][1], true);
    }
    ticks_of(-5, 3, false);
    double x[] = {1, 2}, bad[] = {(double)NAN, (double)INFINITY}, negative[] = {-1, 0};
    plot_series s;
    plot_axis ax, ay;
    plot_spec p = one(&s, x, bad, 2);
    assert_int_equal(plot_fit(&p, &ax, &ay, NULL), TL_ARG);
    p = one(&s, x, negative, 2);
    assert_int_equal(plot_fit(&p, &ax, &ay, NULL), TL_OK);
    p.log_y = true;
    assert_int_equal(plot_fit(&p, &ax, &ay, NULL), TL_ARG);
}

/* A rising line: the first cell of the picture's last row and the last cell of its first row have dots. */
static void braille_shows_the_curve(void **state) {
    (void)state;
    double x[] = {0, 1, 2, 3}, y[] = {0, 1, 2, 3};
    plot_series s;
    plot_spec p = one(&s, x, y, 4);
    str out;
    tl_error e;
    str_init(&out, &mem_default);
    assert_ok(plot_braille(&mem_default, &p, 40, 12, false, &out, &e), &e);
    assert_null(strchr(out.data, '\x1b'));
    size_t rows = 0, dots = 0;
    for (char *line = strtok(out.data, "\n"); line; line = strtok(NULL, "\n"), rows++) {
        size_t width = 0; /* in characters */
        for (char *c = line; *c; c++) width += ((unsigned char)*c & 0xc0) != 0x80;
        assert_true(width <= 40);
        for (char *c = line; *c; c++) dots += (unsigned char)*c == 0xe2 && ((unsigned char)c[1] & 0xfc) == 0xa0;
    }
    assert_int_equal(rows, 12);
    assert_in_range(dots, 30, 50); /* one cell or two in each of the 36 columns or so */
    str_clear(&out);
    p.has_floor = true, p.floor = 0.5, p.floor_name = "floor", p.title = "title";
    assert_ok(plot_braille(&mem_default, &p, 80, 20, true, &out, &e), &e);
    assert_non_null(strstr(out.data, "\x1b[36m"));
    assert_non_null(strstr(out.data, "floor"));
    assert_non_null(strstr(out.data, "title"));
    str_fini(&out);
}

static void smoothing(void **state) {
    (void)state;
    double y[50], out[50];
    tl_error e = {0};
    for (int i = 0; i < 50; i++) y[i] = 3 - 0.1 * i; /* a line stays a line, to its ends */
    assert_ok(plot_smooth(&mem_default, y, 50, 5, out, &e), &e);
    for (int i = 0; i < 50; i++) assert_true(fabs(out[i] - y[i]) < 1e-9);
    for (int i = 0; i < 50; i++) y[i] = 3 + (i % 2 ? 1 : -1);
    y[20] = NAN; /* one that is missing is bridged */
    assert_ok(plot_smooth(&mem_default, y, 50, 5, out, &e), &e);
    for (int i = 0; i < 50; i++) assert_true(fabs(out[i] - 3) < 0.35);
    assert_true(fabs(out[25] - 3) < 0.1);
    for (int i = 0; i < 50; i++) y[i] = i < 25 ? 0 : 1; /* no side is preferred */
    assert_ok(plot_smooth(&mem_default, y, 50, 5, out, &e), &e);
    for (int i = 0; i < 25; i++) assert_true(fabs(out[i] + out[49 - i] - 1) < 1e-9);
    assert_ok(plot_smooth(&mem_default, y, 50, 0, out, &e), &e);
    assert_memory_equal(y, out, sizeof y);
    assert_ok(plot_smooth(&mem_default, y, 1, 5, out, &e), &e);
    assert_true(out[0] == y[0]);
}

/* A picture like a training run's; kept where TILIA_PLOTS says, to be looked at. */
static void files(void **state) {
    (void)state;
    enum { N = 6000, V = 12 };
    double *x = malloc(3 * N * sizeof *x), *y = x + N, *z = y + N, vx[V], vy[V];
    for (int i = 0; i < N; i++) {
        x[i] = i;
        y[i] = 1.2 + 3 * exp(-i / 400.0) + 0.25 * sin(i * 12.9898) * sin(i * 78.233);
    }
    tl_error smooth_error = {0};
    assert_ok(plot_smooth(&mem_default, y, N, 50, z, &smooth_error), &smooth_error);
    for (int i = 0; i < V; i++) vx[i] = (i + 1) * 500, vy[i] = 1.25 + 3 * exp(-vx[i] / 380.0);
    plot_series s[] = {{.x = x, .y = y, .n = N, .faint = true},
                       {.name = "loss", .x = x, .y = z, .n = N},
                       {.name = "validation", .x = vx, .y = vy, .n = V, .color = 1, .marked = true}};
    plot_spec p = {.title = "runs/first",
                   .xlabel = "step",
                   .ylabel = "nats per token",
                   .series = s,
                   .n = 3,
                   .has_floor = true,
                   .floor = 1.19,
                   .floor_name = "floor"};
    const char *keep = getenv("TILIA_PLOTS") ? getenv("TILIA_PLOTS") : dir;
    char path[700];
    tl_error e;
    size_t n;
    snprintf(path, sizeof path, "%s/loss.png", keep);
    assert_ok(plot_file(&mem_default, &p, path, &e), &e);
    char *data = test_slurp(path, &n);
    assert_memory_equal(data, "\x89PNG\r\n\x1a\n", 8);
    assert_memory_equal(data + 16, "\0\0\3\x84\0\0\2\x30", 8); /* 900 x 560 */
    free(data);
    snprintf(path, sizeof path, "%s/loss.svg", keep);
    assert_ok(plot_file(&mem_default, &p, path, &e), &e);
    data = test_slurp(path, &n);
    assert_non_null(strstr(data, "<svg"));
    assert_non_null(strstr(data, "</svg>"));
    assert_true(n < 400000); /* thinned out */
    free(data);
    p.log_x = p.log_y = true;
    snprintf(path, sizeof path, "%s/log.png", keep);
    assert_ok(plot_file(&mem_default, &p, path, &e), &e);
    snprintf(path, sizeof path, "%s/loss.gif", keep);
    assert_int_equal(plot_file(&mem_default, &p, path, &e), TL_ARG);
    assert_string_equal(e.file, path);
    assert_int_equal(plot_file(&mem_default, &p, "/nothing/here.svg", &e), TL_NOTFOUND);
    p.width = 10;
    snprintf(path, sizeof path, "%s/small.svg", keep);
    assert_int_equal(plot_file(&mem_default, &p, path, &e), TL_ARG);
    str out;
    str_init(&out, &mem_default);
    p.width = 0, p.log_x = false;
    assert_ok(plot_braille(&mem_default, &p, 90, 24, getenv("TILIA_PLOTS") != NULL, &out, &e), &e);
    if (getenv("TILIA_PLOTS")) fputs(out.data, stdout);
    str_fini(&out);
    free(x);
}

static tl_status draw(const tl_allocator *a, void *user) {
    static const double x[] = {1, 2, 3}, y[] = {3, 2, 1};
    plot_series s;
    plot_spec p = one(&s, x, y, 3);
    str out;
    str_init(&out, a);
    tl_status st = plot_braille(a, &p, 40, 10, false, &out, NULL);
    if (!st) st = plot_file(a, &p, user, NULL);
    str_fini(&out);
    return st;
}

static void failing_memory(void **state) {
    (void)state;
    char path[700];
    snprintf(path, sizeof path, "%s/m.svg", dir);
    assert_true(test_alloc_sweep(draw, path) >= 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_are_round), cmocka_unit_test(braille_shows_the_curve), cmocka_unit_test(smoothing),
        cmocka_unit_test(files),           cmocka_unit_test(failing_memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
