/* Results: one line of JSON for every finished cell and seed. Lines are only ever added, each in one write under a
 * lock, so several processes may work on one study and a kill costs at most the line at hand. */
#include "base/file.h"
#include "study/study.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

enum { RESULTS_MAX = 256 << 20 };

/* ---- making a line --------------------------------------------------------------------------- */

static json_t *number(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

static json_t *part(study_measured *m, const char *name) {
    json_t *o = json_object_get(m->o, name);
    if (o) return o;
    json_object_set_new(m->o, name, json_object());
    return json_object_get(m->o, name);
}

void study_value(study_measured *m, const char *name, double v) {
    json_object_set_new(part(m, "values"), name, number(v));
}

/* Six digits are more than a picture shows, and keep the files small. */
static json_t *rounded(double v) {
    char text[32];
    snprintf(text, sizeof text, "%.6g", v);
    double r = 0;
    return sscanf(text, "%lf", &r) == 1 ? json_real(r) : json_null();
}

void study_curve(study_measured *m, const char *name, size_t n, const double *x, const double *y) {
    json_t *ax = json_array(), *ay = json_array();
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(x[i]) || !isfinite(y[i])) continue;
        json_array_append_new(ax, rounded(x[i]));
        json_array_append_new(ay, rounded(y[i]));
    }
    json_object_set_new(part(m, "curves"), name, json_pack("[o,o]", ax, ay));
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_line(const json_t *o) {
    const json_t *seed = json_object_get(o, "seed"), *values = json_object_get(o, "values");
    return json_is_object(o) && json_is_string(json_object_get(o, "cell")) && json_is_integer(seed) &&
           json_integer_value(seed) >= 0 && json_is_object(values);
}

static bool same_place(const json_t *a, const json_t *b) {
    return json_integer_value(json_object_get(a, "seed")) == json_integer_value(json_object_get(b, "seed")) &&
           strcmp(json_string_value(json_object_get(a, "cell")), json_string_value(json_object_get(b, "cell"))) == 0;
}

/* Takes o; a later line of the same cell and seed stands for the earlier one. */
static tl_status keep(study_results *r, json_t *o, tl_error *e) {
    for (size_t i = 0; i < r->n; i++)
        if (same_place(r->line[i], o)) {
            json_decref(r->line[i]);
            r->line[i] = o;
            return TL_OK;
        }
    if (!mem_reserve(r->alloc, &r->line, &r->cap, r->n + 1)) {
        json_decref(o);
        return error_set(e, TL_NOMEM, "no memory for results");
    }
    r->line[r->n++] = o;
    return TL_OK;
}

static tl_status read_lines(study_results *r, const char *text, size_t size, tl_error *e) {
    for (size_t at = 0; at < size;) {
        const char *end = memchr(text + at, '\n', size - at);
        size_t n = end ? (size_t)(end - text) - at : size - at;
        json_t *o = NULL;
        tl_error why = {0};
        tl_status s = n ? json_parse(text + at, n, NULL, &o, &why) : TL_OK;
        if (s == TL_NOMEM) return error_set(e, TL_NOMEM, "no memory for results");
        if (o && is_line(o)) {
            TRY(keep(r, o, e));
        } else {
            json_decref(o);
            r->broken += n > 0;
        }
        at += n + 1;
    }
    return TL_OK;
}

tl_status study_results_read(const tl_allocator *a, const char *path, study_results *r, tl_error *e) {
    memset(r, 0, sizeof *r);
    r->alloc = a;
    if (!file_exists(path)) return TL_OK;
    char *text;
    size_t n;
    TRY(file_read(a, path, RESULTS_MAX, &text, &n, e));
    tl_status s = read_lines(r, text, n, e);
    mem_free(a, text);
    if (s != TL_OK) study_results_free(r);
    return s;
}

void study_results_free(study_results *r) {
    for (size_t i = 0; i < r->n; i++) json_decref(r->line[i]);
    mem_free(r->alloc, r->line);
    memset(r, 0, sizeof *r);
}

const json_t *study_results_find(const study_results *r, const char *key, uint64_t seed) {
    for (size_t i = 0; i < r->n; i++)
        if ((uint64_t)json_integer_value(json_object_get(r->line[i], "seed")) == seed &&
            strcmp(json_string_value(json_object_get(r->line[i], "cell")), key) == 0)
            return r->line[i];
    return NULL;
}

double study_line_value(const json_t *line, const char *metric) {
    const json_t *v = json_object_get(json_object_get(line, "values"), metric);
    return json_is_number(v) ? json_number_value(v) : (double)NAN;
}

/* ---- adding ---------------------------------------------------------------------------------- */

static tl_status write_all(int fd, const char *data, size_t n, tl_error *e) {
    while (n) {
        ssize_t k = file_sys.write(fd, data, n);
        if (k < 0 && errno == EINTR) continue;
        if (k < 0) return error_errno(e, "cannot write");
        data += k;
        n -= (size_t)k;
    }
    return file_sys.fsync(fd) ? error_errno(e, "cannot sync") : TL_OK;
}

/* A killed writer's half line is closed, so that the next one stands by itself. */
static tl_status append(int fd, str *text, tl_error *e) {
    char last = '\n';
    off_t end = lseek(fd, 0, SEEK_END);
    if (end > 0 && pread(fd, &last, 1, end - 1) == 1 && last != '\n') TRY(write_all(fd, "\n", 1, e));
    return write_all(fd, text->data, text->len, e);
}

static int put(const char *data, size_t n, void *user) {
    str *s = user;
    str_add(s, data, n);
    return s->failed ? -1 : 0;
}

tl_status study_results_append(const tl_allocator *a, const char *path, const json_t *line, tl_error *e) {
    str text;
    str_init(&text, a);
    bool failed = json_dump_callback(line, put, &text, JSON_COMPACT | JSON_REAL_PRECISION(17)) != 0;
    str_addc(&text, '\n');
    tl_status s = failed || text.failed ? error_set(e, TL_NOMEM, "no memory for a line of results") : TL_OK;
    int fd = s == TL_OK ? file_sys.open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666) : -1;
    if (s == TL_OK && fd < 0) s = error_errno(e, "cannot open");
    while (s == TL_OK && flock(fd, LOCK_EX) != 0)
        if (errno != EINTR) s = error_errno(e, "cannot lock");
    if (s == TL_OK) s = append(fd, &text, e);
    if (fd >= 0) file_sys.close(fd);
    if (s != TL_OK) error_at_file(e, path);
    str_fini(&text);
    return s;
}

tl_status study_path(const char *out, const study *s, bool quick, const char *tail, char *path, size_t size,
                     tl_error *e) {
    char name[256];
    snprintf(name, sizeof name, "%s%s%s", s->name, quick ? "-quick" : "", tail);
    return file_join(path, size, out, name, e);
}
