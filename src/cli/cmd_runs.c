/* tilia runs [list|show|compare|plot]: what runs left behind. The list comes from the index, everything else from the
 * runs' files. */
#include "base/file.h"
#include "cli/cli.h"
#include "runlog/metrics.h"
#include "runlog/plot.h"
#include "runlog/runs.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RUNS = 32, KEY_ROOT = 1, KEY_OUT, KEY_METRIC, KEY_X, KEY_LOG, KEY_FLOOR, KEY_SMOOTH, KEY_ROWS };

typedef struct options {
    cli_common common;
    const char *action, *root, *out, *metric, *x;
    const char *run[MAX_RUNS];
    size_t runs;
    bool log, has_floor;
    double floor, smooth;
    int rows;
} options;

static const struct argp_option table[] = {
    {"root", KEY_ROOT, "DIR", 0, "where the runs are (default: runs)", 0},
    {0, 0, 0, 0, "plot:", 1},
    {"out", KEY_OUT, "FILE", 0, "a picture, .svg or .png (default: drawn in the terminal)", 1},
    {"metric", KEY_METRIC, "NAME", 0, "what to draw (default: loss and val_loss)", 1},
    {"x", KEY_X, "step|tokens|time", 0, "the horizontal axis (default: step)", 1},
    {"log", KEY_LOG, 0, 0, "both axes logarithmic", 1},
    {"floor", KEY_FLOOR, "X", 0, "a dashed line at X", 1},
    {"smooth", KEY_SMOOTH, "N", 0, "half-life of the smoothed curve in points (default: a hundredth of them)", 1},
    {"rows", KEY_ROWS, "N", 0, "height in the terminal (default 20)", 1},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_ROOT: o->root = arg; return 0;
    case KEY_OUT: o->out = arg; return 0;
    case KEY_METRIC: o->metric = arg; return 0;
    case KEY_LOG: o->log = true; return 0;
    case KEY_SMOOTH: o->smooth = cli_real(st, "--smooth", arg, 0, 1e9); return 0;
    case KEY_ROWS: o->rows = (int)cli_int(st, "--rows", arg, 8, 500); return 0;
    case KEY_FLOOR:
        o->floor = cli_real(st, "--floor", arg, -1e300, 1e300);
        o->has_floor = true;
        return 0;
    case KEY_X:
        o->x = arg;
        if (strcmp(arg, "step") && strcmp(arg, "tokens") && strcmp(arg, "time"))
            argp_error(st, "--x is \"%s\"; it can be step, tokens or time", arg);
        return 0;
    case ARGP_KEY_ARG:
        if (!o->action)
            o->action = arg;
        else if (o->runs < MAX_RUNS)
            o->run[o->runs++] = arg;
        else
            argp_error(st, "at most %d runs", MAX_RUNS);
        return 0;
    case ARGP_KEY_END:
        if (!o->action) o->action = "list";
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- finding runs ------------------------------------------------------------------------------------ */

/* A run by its path, or by its name under the root. */
static tl_status load_run(const options *o, arena *a, const char *name, run_row *out, tl_error *e) {
    if (!file_is_dir(name)) {
        const char *path = arena_printf(a, "%s/%s", o->root, name);
        if (!path) return error_set(e, TL_NOMEM, "no memory for a run");
        if (file_is_dir(path)) return run_read(a, path, out, e);
        error_set(e, TL_NOTFOUND, "there is no such run, nor one of that name in %s", o->root);
        error_at_file(e, name);
        return TL_NOTFOUND;
    }
    return run_read(a, name, out, e);
}

static tl_status load_runs(const options *o, arena *a, run_row **out, tl_error *e) {
    *out = arena_new(a, o->runs, sizeof **out);
    if (!*out) return error_set(e, TL_NOMEM, "no memory for runs");
    for (size_t i = 0; i < o->runs; i++) TRY(load_run(o, a, o->run[i], &(*out)[i], e));
    return TL_OK;
}

/* Beside the runs if that can be written, else in the user's cache, else nowhere. */
static const char *index_path(const options *o, arena *a) {
    if (!access(o->root, W_OK)) return arena_printf(a, "%s/.index.sqlite", o->root);
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    const char *dir = cache && *cache ? arena_printf(a, "%s/tilia", cache)
                      : home && *home ? arena_printf(a, "%s/.cache/tilia", home)
                                      : NULL;
    char *real = realpath(o->root, NULL);
    const char *path = NULL;
    if (dir && real && file_mkdirs(dir, NULL) == TL_OK) {
        for (char *p = real; *p; p++)
            if (*p == '/') *p = '%'; /* one index for each root */
        path = arena_printf(a, "%s/runs%s.sqlite", dir, real);
    }
    free(real);
    return path;
}

/* ---- text -------------------------------------------------------------------------------------------- */

static const char *number(double v, char *buf, size_t size) {
    if (isnan(v))
        snprintf(buf, size, "-");
    else if (fabs(v) >= 1e6 || (v != 0 && fabs(v) < 1e-3))
        snprintf(buf, size, "%.4g", v);
    else
        snprintf(buf, size, "%.5g", v);
    return buf;
}

static double last_of(const run_row *r, const char *name) {
    const run_metric *m = run_find_metric(r, name);
    return m ? m->last : (double)NAN;
}

static const char *first_option(const run_row *r, const char *const *keys, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (run_find_option(r, keys[i])) return run_find_option(r, keys[i]);
    return NULL;
}

static const char *model_of(const run_row *r) {
    static const char *const keys[] = {"preset", "model.preset", "options.preset", "model_type", "model.model_type"};
    const char *m = first_option(r, keys, sizeof keys / sizeof *keys);
    return m ? m : "-";
}

static const char *when(int64_t t, char *buf, size_t size) {
    time_t at = (time_t)t;
    struct tm tm;
    if (!t || !localtime_r(&at, &tm) || !strftime(buf, size, "%Y-%m-%d %H:%M", &tm)) snprintf(buf, size, "-");
    return buf;
}

/* ---- JSON -------------------------------------------------------------------------------------------- */

static void json_number(double v) {
    if (isfinite(v))
        printf("%.17g", v);
    else
        printf("null");
}

static void json_key(const char *key) {
    cli_json_text(stdout, key, strlen(key));
    printf(": ");
}

static void json_string(const char *key, const char *value) {
    json_key(key);
    if (value)
        cli_json_text(stdout, value, strlen(value));
    else
        printf("null");
}

static void json_run(const run_row *r) {
    printf("{");
    json_string("name", r->name);
    printf(", ");
    json_string("path", r->path);
    printf(", \"changed\": %" PRId64 ", \"steps\": %" PRId64 ", ", r->changed, r->steps);
    json_string("problem", r->problem);
    printf(", \"metrics\": {");
    for (size_t i = 0; i < r->metrics; i++) {
        const run_metric *m = &r->metric[i];
        if (i) printf(", ");
        json_key(m->name);
        printf("{\"last\": ");
        json_number(m->last);
        printf(", \"min\": ");
        json_number(m->min);
        printf(", \"min_step\": %" PRId64 ", \"sum\": ", m->min_step);
        json_number(m->sum);
        printf(", \"count\": %" PRId64 "}", m->count);
    }
    printf("}, \"options\": {");
    for (size_t i = 0; i < r->options; i++) {
        if (i) printf(", ");
        json_string(r->option[i].key, r->option[i].value);
    }
    printf("}}");
}

static void json_runs(const run_row *r, size_t n) {
    printf("{\"runs\": [");
    for (size_t i = 0; i < n; i++) {
        if (i) printf(",\n ");
        json_run(&r[i]);
    }
    printf("]}\n");
}

/* ---- list, show, compare ----------------------------------------------------------------------------- */

static int list(const options *o, arena *a, tl_error *e) {
    runs all;
    if (o->runs) return cli_usage("runs list takes no runs; try `tilia runs show %s`", o->run[0]);
    if (!file_is_dir(o->root)) {
        error_set(e, TL_NOTFOUND, "there are no runs yet: `tilia train` makes one");
        error_at_file(e, o->root);
        return cli_fail(e);
    }
    if (runs_open(a->alloc, o->root, index_path(o, a), &all, e)) return cli_fail(e);
    if (o->common.json) {
        json_runs(all.row, all.n);
    } else if (!all.n) {
        printf("no runs in %s\n", o->root);
    } else {
        int wide = 4;
        for (size_t i = 0; i < all.n; i++)
            if ((int)strlen(all.row[i].name) > wide) wide = (int)strlen(all.row[i].name);
        printf("%-*s  %8s  %9s  %9s  %9s  %7s  %-10s  %s\n", wide, "run", "steps", "loss", "val_loss", "best", "tokens",
               "model", "changed");
        for (size_t i = 0; i < all.n; i++) {
            const run_row *r = &all.row[i];
            const run_metric *val = run_find_metric(r, "val_loss"), *tokens = run_find_metric(r, "tokens");
            char b[5][40];
            printf("%-*s  %8" PRId64 "  %9s  %9s  %9s  %7s  %-10s  %s\n", wide, r->name, r->steps,
                   number(last_of(r, "loss"), b[0], 40), number(last_of(r, "val_loss"), b[1], 40),
                   number(val ? val->min : (double)NAN, b[2], 40), tokens ? cli_count(tokens->last, b[3], 40) : "-",
                   model_of(r), when(r->changed, b[4], 40));
            if (r->problem) fprintf(stderr, "tilia: %s\n", r->problem);
        }
    }
    runs_close(&all);
    return EXIT_DONE;
}

static void show_one(const run_row *r) {
    char b[3][40];
    printf("%s\n  steps    %" PRId64 "\n  changed  %s\n", r->path, r->steps, when(r->changed, b[0], 40));
    if (r->metrics) printf("\n  %-20s %12s %12s %10s\n", "metric", "last", "lowest", "at step");
    for (size_t i = 0; i < r->metrics; i++) {
        const run_metric *m = &r->metric[i];
        printf("  %-20s %12s %12s %10" PRId64 "\n", m->name, number(m->last, b[0], 40), number(m->min, b[1], 40),
               m->min_step);
    }
    if (r->options) printf("\n");
    for (size_t i = 0; i < r->options; i++) printf("  %-28s %s\n", r->option[i].key, r->option[i].value);
}

static int show(const options *o, arena *a, tl_error *e) {
    run_row *r;
    if (!o->runs) return cli_usage("runs show: which run? `tilia runs list` names them");
    if (load_runs(o, a, &r, e)) return cli_fail(e);
    if (o->common.json) {
        json_runs(r, o->runs);
        return EXIT_DONE;
    }
    for (size_t i = 0; i < o->runs; i++) {
        if (i) printf("\n");
        show_one(&r[i]);
    }
    return EXIT_DONE;
}

/* One line of a comparison; cells that cannot be had are "-". */
static void compare_line(const char *key, const char *const *cell, size_t n) {
    printf("%-24s", key);
    for (size_t i = 0; i < n; i++) printf("  %-18s", cell[i] ? cell[i] : "-");
    printf("\n");
}

/* Options that are not the same in all runs: every key once, from the first run that has it. */
static void compare_options(const run_row *r, size_t n) {
    const char *cell[MAX_RUNS];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < r[i].options; k++) {
            const char *key = r[i].option[k].key;
            bool told = false, same = true;
            for (size_t j = 0; j < i; j++) told |= run_find_option(&r[j], key) != NULL;
            for (size_t j = 0; j < n && !told; j++) {
                cell[j] = run_find_option(&r[j], key);
                same &= cell[j] && !strcmp(cell[j], r[i].option[k].value);
            }
            if (!told && !same) compare_line(key, cell, n);
        }
}

static void compare_metrics(const run_row *r, size_t n) {
    const char *cell[MAX_RUNS];
    char text[MAX_RUNS][40], key[80];
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < r[i].metrics; k++) {
            const char *name = r[i].metric[k].name;
            bool told = false, val = strstr(name, "loss") != NULL;
            for (size_t j = 0; j < i; j++) told |= run_find_metric(&r[j], name) != NULL;
            if (told) continue;
            for (size_t j = 0; j < n; j++) cell[j] = number(last_of(&r[j], name), text[j], 40);
            compare_line(name, cell, n);
            if (!val) continue;
            for (size_t j = 0; j < n; j++) {
                const run_metric *m = run_find_metric(&r[j], name);
                cell[j] = number(m ? m->min : (double)NAN, text[j], 40);
            }
            snprintf(key, sizeof key, "%s (lowest)", name);
            compare_line(key, cell, n);
        }
}

static int compare(const options *o, arena *a, tl_error *e) {
    run_row *r;
    if (o->runs < 2) return cli_usage("runs compare takes two runs or more");
    if (load_runs(o, a, &r, e)) return cli_fail(e);
    if (o->common.json) {
        json_runs(r, o->runs);
        return EXIT_DONE;
    }
    const char *cell[MAX_RUNS];
    char text[MAX_RUNS][40];
    for (size_t i = 0; i < o->runs; i++) cell[i] = r[i].name;
    compare_line("", cell, o->runs);
    for (size_t i = 0; i < o->runs; i++) {
        snprintf(text[i], sizeof text[i], "%" PRId64, r[i].steps);
        cell[i] = text[i];
    }
    compare_line("steps", cell, o->runs);
    compare_metrics(r, o->runs);
    compare_options(r, o->runs);
    return EXIT_DONE;
}

/* ---- plot -------------------------------------------------------------------------------------------- */

typedef struct curves {
    plot_series s[3 * MAX_RUNS];
    size_t n;
    const char *xlabel;
} curves;

static double *column_of(metrics *m, const char *name) {
    for (size_t i = 0; i < m->columns; i++)
        if (!strcmp(m->column[i].name, name)) return m->column[i].value;
    return NULL;
}

/* "tokens" and "seconds" count from the run's beginning. Where there is only the time of each step, "ms" becomes that
 * count. */
static const char *x_column(const options *o, metrics *m) {
    if (!strcmp(o->x, "step")) return "step";
    if (!strcmp(o->x, "tokens")) return column_of(m, "tokens") ? "tokens" : NULL;
    if (column_of(m, "seconds")) return "seconds";
    double *ms = column_of(m, "ms"), sum = 0;
    for (size_t k = 0; ms && k < m->rows; k++) {
        if (isfinite(ms[k])) sum += 1e-3 * ms[k];
        ms[k] = sum;
    }
    return ms ? "ms" : NULL;
}

/* The points of one metric, copied into the arena. *n 0: the run has none. */
static tl_status take_points(arena *a, const metrics *m, const char *x, const char *y, double **px, double **py,
                             size_t *n, tl_error *e) {
    double *tx, *ty;
    TRY(metrics_points(m, x, y, &tx, &ty, n, e));
    *px = arena_new(a, *n + 1, sizeof **px);
    *py = arena_new(a, *n + 1, sizeof **py);
    bool ok = *px && *py;
    if (ok && *n) {
        memcpy(*px, tx, *n * sizeof *tx);
        memcpy(*py, ty, *n * sizeof *ty);
    }
    mem_free(m->alloc, tx);
    mem_free(m->alloc, ty);
    return ok ? TL_OK : error_set(e, TL_NOMEM, "no memory for a curve");
}

/* A dense curve is drawn smooth over its pale self, a sparse one with its points. */
static tl_status add_curve(const options *o, arena *a, const metrics *m, const char *x, const char *metric,
                           const char *name, int color, curves *c, tl_error *e) {
    double *px, *py, *smooth;
    size_t n;
    TRY(take_points(a, m, x, metric, &px, &py, &n, e));
    if (!n) return TL_OK;
    if (n <= 60) {
        c->s[c->n++] = (plot_series){.name = name, .x = px, .y = py, .n = n, .color = color, .marked = n <= 40};
        return TL_OK;
    }
    double half = o->smooth >= 0 ? o->smooth : (double)n / 100;
    smooth = arena_new(a, n, sizeof *smooth);
    if (!smooth) return error_set(e, TL_NOMEM, "no memory for a curve");
    TRY(plot_smooth(a->alloc, py, n, half, smooth, e));
    if (half > 0) c->s[c->n++] = (plot_series){.x = px, .y = py, .n = n, .color = color, .faint = true};
    c->s[c->n++] = (plot_series){.name = name, .x = px, .y = smooth, .n = n, .color = color};
    return TL_OK;
}

static tl_status add_run(const options *o, arena *a, const run_row *r, int color, curves *c, tl_error *e) {
    metrics m;
    bool one = o->runs == 1;
    size_t before = c->n;
    TRY(metrics_read(a->alloc, arena_printf(a, "%s/metrics.jsonl", r->path), &m, e));
    const char *x = x_column(o, &m);
    tl_status s = TL_OK;
    if (!x) {
        s = error_set(e, TL_ARG, "the run's metrics have no %s for the horizontal axis", o->x);
    } else if (o->metric) {
        s = add_curve(o, a, &m, x, o->metric, r->name, color, c, e);
    } else {
        s = add_curve(o, a, &m, x, "loss", one ? "loss" : r->name, color, c, e);
        if (!s)
            s = add_curve(o, a, &m, x, "val_loss", one ? "validation" : arena_printf(a, "%s, validation", r->name),
                          one ? 1 : color, c, e);
    }
    if (!s && c->n == before) s = error_set(e, TL_NOTFOUND, "the run has no \"%s\"", o->metric ? o->metric : "loss");
    if (s) error_at_file(e, r->path);
    metrics_free(&m);
    return s;
}

static int terminal_width(void) {
    struct winsize w;
    if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) && w.ws_col) return w.ws_col;
    const char *columns = getenv("COLUMNS");
    long n = columns ? strtol(columns, NULL, 10) : 0;
    return n > 0 && n <= 10000 ? (int)n : 80;
}

static tl_status draw(const options *o, arena *a, const plot_spec *p, tl_error *e) {
    if (o->out) return plot_file(a->alloc, p, o->out, e);
    const char *plain = getenv("NO_COLOR");
    str text;
    str_init(&text, a->alloc);
    tl_status s =
        plot_braille(a->alloc, p, terminal_width(), o->rows, isatty(STDOUT_FILENO) && !(plain && *plain), &text, e);
    if (!s) fwrite(text.data, 1, text.len, stdout);
    str_fini(&text);
    return s;
}

static int plot(const options *o, arena *a, tl_error *e) {
    run_row *r;
    if (!o->runs) return cli_usage("runs plot: which runs? `tilia runs list` names them");
    curves *c = arena_new(a, 1, sizeof *c);
    if (!c || load_runs(o, a, &r, e)) return cli_fail(e);
    for (size_t i = 0; i < o->runs; i++)
        if (add_run(o, a, &r[i], (int)i, c, e)) return cli_fail(e);
    plot_spec p = {.title = o->runs == 1 ? r[0].name : NULL,
                   .xlabel = !strcmp(o->x, "time") ? "seconds" : o->x,
                   .ylabel = o->metric ? o->metric : "nats per token",
                   .series = c->s,
                   .n = c->n,
                   .log_x = o->log,
                   .log_y = o->log,
                   .has_floor = o->has_floor,
                   .floor = o->floor,
                   .floor_name = "floor"};
    const char *floor = run_find_option(&r[0], "floor"); /* a run on text whose entropy is known says so */
    if (!o->has_floor && !o->metric && floor) {
        p.floor = strtod(floor, NULL);
        p.has_floor = isfinite(p.floor) && p.floor > 0;
    }
    if (draw(o, a, &p, e)) return cli_fail(e);
    if (o->out && !o->common.quiet) fprintf(stderr, "tilia: wrote %s\n", o->out);
    return EXIT_DONE;
}

int cmd_runs(int argc, char **argv) {
    static const struct argp_child children[] = {{&cli_common_argp, 0, 0, 0}, {0}};
    static const struct argp argp = {table,
                                     parse,
                                     "[list]\nshow RUN...\ncompare RUN RUN...\nplot RUN...",
                                     "What runs left behind. RUN is a run directory or its name under --root.",
                                     children,
                                     0,
                                     0};
    static const struct {
        const char *name;
        int (*run)(const options *, arena *, tl_error *);
    } action[] = {{"list", list}, {"show", show}, {"compare", compare}, {"plot", plot}};
    options o = {.root = "runs", .x = "step", .smooth = -1, .rows = 20};
    int code = cli_parse(&argp, argc, argv, &o);
    if (code) return code;
    for (size_t i = 0; i < sizeof action / sizeof *action; i++) {
        if (strcmp(action[i].name, o.action)) continue;
        arena a;
        tl_error e;
        error_clear(&e);
        arena_init(&a, &mem_default);
        code = action[i].run(&o, &a, &e);
        arena_fini(&a);
        return code;
    }
    return cli_usage("runs: no action \"%s\"; there are list, show, compare and plot", o.action);
}
