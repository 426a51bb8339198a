#include "runlog/metrics.h"
#include "base/file.h"
#include "base/json.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { METRICS_MAX = 1 << 30 };

/* ---- writing --------------------------------------------------------------------------------- */

static tl_status metrics_io(const char *path, tl_error *e, const char *what) {
    tl_status s = error_errno(e, "cannot %s", what);
    error_at_file(e, path);
    return s;
}

/* The step of one line, -1 if it cannot be read. */
static int64_t metrics_line_step(const char *p, size_t n) {
    json_t *v = NULL;
    int64_t step = -1;
    if (json_parse(p, n, NULL, &v, NULL) == TL_OK && json_is_integer(json_object_get(v, "step")))
        step = json_integer_value(json_object_get(v, "step"));
    json_decref(v);
    return step;
}

/* Bytes of the file to keep: whole lines up to the first whose step is above keep_step. */
static tl_status metrics_keep(const tl_allocator *a, const char *path, int64_t keep_step, size_t *keep, tl_error *e) {
    char *data;
    size_t n;
    *keep = 0;
    if (keep_step < 0 || !file_exists(path)) return TL_OK;
    TRY(file_read(a, path, METRICS_MAX, &data, &n, e));
    for (const char *end; (end = memchr(data + *keep, '\n', n - *keep)); *keep = (size_t)(end - data) + 1) {
        int64_t step = metrics_line_step(data + *keep, (size_t)(end - data) - *keep);
        if (step < 0 || step > keep_step) break;
    }
    mem_free(a, data);
    return TL_OK;
}

tl_status metrics_writer_open(metrics_writer *w, const tl_allocator *a, const char *path, int64_t keep_step,
                              tl_error *e) {
    *w = (metrics_writer){.alloc = a, .fd = -1};
    str_init(&w->line, a);
    size_t n = strlen(path), keep;
    if (n >= sizeof w->path) return error_set(e, TL_ARG, "the path is longer than %zu bytes", sizeof w->path - 1);
    memcpy(w->path, path, n + 1);
    TRY(metrics_keep(a, path, keep_step, &keep, e));
    w->fd = file_sys.open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_APPEND, 0666);
    if (w->fd < 0) return metrics_io(path, e, "open for writing");
    if (ftruncate(w->fd, (off_t)keep)) {
        tl_status s = metrics_io(path, e, "cut");
        metrics_writer_close(w);
        return s;
    }
    return TL_OK;
}

void metrics_begin(metrics_writer *w, int64_t step) {
    str_clear(&w->line);
    str_addf(&w->line, "{\"step\": %" PRId64, step);
}

static void metrics_name(metrics_writer *w, const char *name) {
    str_adds(&w->line, ", ");
    str_add_json(&w->line, name, strlen(name));
    str_adds(&w->line, ": ");
}

/* Shortest of the two forms JSON readers take for a real: with a point or an exponent, so that it stays a real. */
static void metrics_number(metrics_writer *w, const char *name, double value, int digits) {
    char text[40];
    metrics_name(w, name);
    if (!isfinite(value)) {
        str_adds(&w->line, "null");
        return;
    }
    snprintf(text, sizeof text, "%.*g", digits, value);
    str_adds(&w->line, text);
    if (!strpbrk(text, ".e")) str_adds(&w->line, ".0");
}

void metrics_f32(metrics_writer *w, const char *name, float value) {
    metrics_number(w, name, (double)value, 9);
}

void metrics_real(metrics_writer *w, const char *name, double value) {
    metrics_number(w, name, value, 17);
}

void metrics_int(metrics_writer *w, const char *name, int64_t value) {
    metrics_name(w, name);
    str_addf(&w->line, "%" PRId64, value);
}

void metrics_text(metrics_writer *w, const char *name, const char *value) {
    metrics_name(w, name);
    str_add_json(&w->line, value, strlen(value));
}

tl_status metrics_end(metrics_writer *w, bool sync, tl_error *e) {
    str_adds(&w->line, "}\n");
    if (w->fd < 0) return error_set(e, TL_STATE, "the metrics file is closed");
    if (w->line.failed) return error_set(e, TL_NOMEM, "no memory for a line of metrics");
    off_t before = lseek(w->fd, 0, SEEK_END);
    for (size_t done = 0; done < w->line.len;) {
        ssize_t k = file_sys.write(w->fd, w->line.data + done, w->line.len - done);
        if (k < 0 && errno == EINTR) continue;
        if (k > 0) {
            done += (size_t)k;
            continue;
        }
        if (k == 0) errno = EIO;
        tl_status s = metrics_io(w->path, e, "write");
        if (before >= 0 && ftruncate(w->fd, before))
            error_set(NULL, TL_IO, " "); /* half a line is left: readers cope */
        return s;
    }
    return sync && file_sys.fsync(w->fd) ? metrics_io(w->path, e, "sync") : TL_OK;
}

void metrics_writer_close(metrics_writer *w) {
    if (w->fd >= 0) file_sys.close(w->fd);
    w->fd = -1;
    str_fini(&w->line);
}

/* ---- reading --------------------------------------------------------------------------------- */

static metrics_column *metrics_column_of(metrics *m, const char *name) {
    for (size_t i = 0; i < m->columns; i++)
        if (!strcmp(m->column[i].name, name)) return &m->column[i];
    if (!mem_reserve(m->alloc, &m->column, &m->column_cap, m->columns + 1)) return NULL;
    metrics_column *c = &m->column[m->columns];
    *c = (metrics_column){.name = mem_strdup(m->alloc, name)};
    if (!c->name) return NULL;
    m->columns++;
    return c;
}

/* Puts a number into the current (last) row of a column; rows the column missed become NaN. */
static bool metrics_put(metrics *m, const char *name, double v) {
    metrics_column *c = metrics_column_of(m, name);
    if (!c) return false;
    size_t old = c->cap;
    if (!mem_reserve(m->alloc, &c->value, &c->cap, m->rows)) return false;
    for (size_t i = old; i < c->cap; i++) c->value[i] = (double)NAN;
    c->value[m->rows - 1] = v;
    return true;
}

static tl_status metrics_add_line(metrics *m, const char *p, size_t n, tl_error *e) {
    json_t *o = NULL, *v;
    const char *key;
    TRY(json_parse(p, n, NULL, &o, e));
    tl_status s = TL_OK;
    if (!json_is_object(o) || !json_is_number(json_object_get(o, "step")))
        s = error_set(e, TL_FORMAT, "the line is not an object with a number \"step\"");
    m->rows += !s;
    if (!s && m->rows == 1 && !metrics_put(m, "step", 0)) s = error_set(e, TL_NOMEM, "no memory for metrics");
    json_object_foreach(o, key, v) {
        if (s || !json_is_number(v)) continue;
        if (!metrics_put(m, key, json_number_value(v))) s = error_set(e, TL_NOMEM, "no memory for metrics");
    }
    json_decref(o);
    return s;
}

/* Columns that missed the last lines get NaN there. */
static bool metrics_square(metrics *m) {
    for (size_t i = 0; i < m->columns; i++) {
        metrics_column *c = &m->column[i];
        size_t old = c->cap;
        if (!mem_reserve(m->alloc, &c->value, &c->cap, m->rows)) return false;
        for (size_t k = old; k < c->cap; k++) c->value[k] = (double)NAN;
    }
    return true;
}

tl_status metrics_read(const tl_allocator *a, const char *path, metrics *m, tl_error *e) {
    char *data;
    size_t n, at = 0;
    int64_t line = 0;
    *m = (metrics){.alloc = a};
    TRY(file_read(a, path, METRICS_MAX, &data, &n, e));
    tl_status s = TL_OK;
    for (const char *end; !s && (end = memchr(data + at, '\n', n - at)); at = (size_t)(end - data) + 1) {
        line++;
        if (end != data + at) s = metrics_add_line(m, data + at, (size_t)(end - data) - at, e);
    }
    if (!s && !metrics_square(m)) s = error_set(e, TL_NOMEM, "no memory for metrics");
    mem_free(a, data);
    if (s) {
        error_at_file(e, path);
        error_at_line(e, line);
        metrics_free(m);
    }
    return s;
}

void metrics_free(metrics *m) {
    for (size_t i = 0; i < m->columns; i++) {
        mem_free(m->alloc, m->column[i].name);
        mem_free(m->alloc, m->column[i].value);
    }
    mem_free(m->alloc, m->column);
    *m = (metrics){.alloc = m->alloc};
}

const double *metrics_find(const metrics *m, const char *name) {
    for (size_t i = 0; i < m->columns; i++)
        if (!strcmp(m->column[i].name, name)) return m->column[i].value;
    return NULL;
}

tl_status metrics_points(const metrics *m, const char *x, const char *y, double **px, double **py, size_t *n,
                         tl_error *e) {
    const double *cx = metrics_find(m, x), *cy = metrics_find(m, y);
    *n = 0;
    *px = mem_new(m->alloc, m->rows, sizeof **px);
    *py = mem_new(m->alloc, m->rows, sizeof **py);
    if (!*px || !*py) {
        mem_free(m->alloc, *px);
        mem_free(m->alloc, *py);
        *px = *py = NULL;
        return error_set(e, TL_NOMEM, "no memory for a curve");
    }
    for (size_t i = 0; cx && cy && i < m->rows; i++) {
        if (!isfinite(cx[i]) || !isfinite(cy[i])) continue;
        (*px)[*n] = cx[i];
        (*py)[(*n)++] = cy[i];
    }
    return TL_OK;
}
