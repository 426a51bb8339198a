/* One run from its files. */
#include "base/file.h"
#include "base/json.h"
#include "runlog/metrics.h"
#include "runlog/runs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { RUN_OPTIONS = 4096, RUN_DEPTH = 8, RUN_JSON_MAX = 16 << 20 };

const run_metric *run_find_metric(const run_row *r, const char *name) {
    for (size_t i = 0; i < r->metrics; i++)
        if (!strcmp(r->metric[i].name, name)) return &r->metric[i];
    return NULL;
}

const char *run_find_option(const run_row *r, const char *key) {
    for (size_t i = 0; i < r->options; i++)
        if (!strcmp(r->option[i].key, key)) return r->option[i].value;
    return NULL;
}

/* ---- run.json -------------------------------------------------------------------------------- */

typedef struct run_flat {
    arena *mem;
    run_option *option; /* (RUN_OPTIONS) */
    size_t n;
    bool failed;
} run_flat;

static const char *run_value_text(arena *a, const json_t *v) {
    if (json_is_string(v)) return arena_strdup(a, json_string_value(v));
    if (json_is_integer(v)) return arena_printf(a, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
    if (json_is_real(v)) { /* the shortest of the usual widths that reads back the same */
        for (int digits = 6; digits <= 17; digits++) {
            char text[40];
            snprintf(text, sizeof text, "%.*g", digits, json_real_value(v));
            if (strtod(text, NULL) == json_real_value(v)) return arena_strdup(a, text);
        }
    }
    char *text = json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) return NULL;
    const char *copy = arena_strdup(a, text);
    free(text);
    return copy;
}

static void run_flatten(run_flat *f, const char *prefix, const json_t *o, int depth) {
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)o, key, v) {
        const char *name = *prefix ? arena_printf(f->mem, "%s.%s", prefix, key) : arena_strdup(f->mem, key);
        if (!name) f->failed = true;
        if (f->failed || f->n == RUN_OPTIONS) return;
        if (json_is_object(v) && depth < RUN_DEPTH) {
            run_flatten(f, name, v, depth + 1);
            continue;
        }
        run_option *x = &f->option[f->n++];
        *x = (run_option){name, run_value_text(f->mem, v)};
        if (!x->value) f->failed = true;
    }
}

static tl_status run_read_options(arena *a, const char *path, run_row *r, tl_error *e) {
    json_t *o;
    TRY(json_read_file(a->alloc, path, RUN_JSON_MAX, &o, e));
    tl_status s = TL_OK;
    if (!json_is_object(o)) {
        s = error_set(e, TL_FORMAT, "is not a JSON object");
        error_at_file(e, path);
    } else {
        run_flat f = {.mem = a, .option = arena_new(a, RUN_OPTIONS, sizeof(run_option))};
        if (f.option) run_flatten(&f, "", o, 0);
        r->option = f.option;
        r->options = f.n;
        if (!f.option || f.failed) s = error_set(e, TL_NOMEM, "no memory for a run's options");
    }
    json_decref(o);
    return s;
}

/* ---- metrics.jsonl --------------------------------------------------------------------------- */

static run_metric run_sum_up(const char *name, const double *step, const double *v, size_t n) {
    run_metric m = {.name = name, .last = (double)NAN, .min = (double)NAN};
    for (size_t i = 0; i < n; i++) {
        if (isnan(v[i])) continue;
        m.last = v[i];
        m.sum += v[i];
        m.count++;
        if (!(v[i] >= m.min)) m.min = v[i], m.min_step = (int64_t)step[i];
    }
    return m;
}

static tl_status run_read_metrics(arena *a, const char *path, run_row *r, tl_error *e) {
    metrics m;
    TRY(metrics_read(a->alloc, path, &m, e));
    run_metric *out = arena_new(a, m.columns, sizeof *out);
    const double *step = metrics_find(&m, "step");
    tl_status s = TL_OK;
    for (size_t i = 1; out && i < m.columns && !s; i++) {
        const char *name = arena_strdup(a, m.column[i].name);
        if (!name) s = TL_NOMEM;
        out[r->metrics++] = run_sum_up(name, step, m.column[i].value, m.rows);
    }
    if (!out || s) s = error_set(e, TL_NOMEM, "no memory for a run's metrics");
    if (m.rows) r->steps = (int64_t)step[m.rows - 1];
    r->metric = out;
    metrics_free(&m);
    return s;
}

static void run_newest(const char *path, int64_t *changed) {
    struct stat st;
    if (!stat(path, &st) && st.st_mtime > *changed) *changed = st.st_mtime;
}

tl_status run_read(arena *a, const char *path, run_row *out, tl_error *e) {
    *out = (run_row){0};
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    const char *dir = arena_strndup(a, path, n);
    const char *json = arena_printf(a, "%s/run.json", dir), *lines = arena_printf(a, "%s/metrics.jsonl", dir);
    if (!dir || !json || !lines) return error_set(e, TL_NOMEM, "no memory for a run");
    out->path = dir;
    out->name = strrchr(dir, '/') && strrchr(dir, '/')[1] ? strrchr(dir, '/') + 1 : dir;
    bool has_json = file_exists(json), has_lines = file_exists(lines);
    if (!has_json && !has_lines) {
        error_set(e, TL_NOTFOUND, "is not a run directory: it has neither run.json nor metrics.jsonl");
        error_at_file(e, path);
        return TL_NOTFOUND;
    }
    run_newest(json, &out->changed);
    run_newest(lines, &out->changed);
    if (has_json) TRY(run_read_options(a, json, out, e));
    if (has_lines) TRY(run_read_metrics(a, lines, out, e));
    return TL_OK;
}
