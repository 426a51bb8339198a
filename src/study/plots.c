/* Pictures of a study: a line for each level of a factor, its seeds behind it, thin. */
#include "base/arena.h"
#include "runlog/plot.h"
#include "study/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SERIES = 256, PLOT_POINTS = 4096 };

typedef struct drawing {
    arena mem;
    const study *of;
    const study_results *r;
    const study_plot *p;
    bool quick;
    plot_series series[SERIES];
    size_t n;
    double floor;
} drawing;

static bool add(drawing *d, const char *name, const double *x, const double *y, size_t n, int color, bool faint) {
    if (d->n == SERIES || !n) return false;
    double *p = arena_new(&d->mem, 2 * n, sizeof *p);
    if (!p) return false;
    memcpy(p, x, n * sizeof *p);
    memcpy(p + n, y, n * sizeof *p);
    d->series[d->n++] = (plot_series){
        .name = name, .x = p, .y = p + n, .n = n, .color = color, .faint = faint, .marked = !faint && n <= 12};
    return true;
}

static const study_factor *factor_of(const study *s, const char *name) {
    for (int f = 0; name && f < STUDY_FACTORS && s->factor[f].name; f++)
        if (strcmp(s->factor[f].name, name) == 0) return &s->factor[f];
    return NULL;
}

static void note_floor(drawing *d, const json_t *line) {
    double loss = study_line_value(line, "val_loss"), above = study_line_value(line, "above_floor");
    if (isnan(d->floor) && isfinite(above)) d->floor = loss - above;
}

/* ---- curves of the results ------------------------------------------------------------------- */

static size_t curve_points(const json_t *line, const char *name, double *x, double *y) {
    const json_t *c = json_object_get(json_object_get(line, "curves"), name);
    const json_t *ax = json_array_get(c, 0), *ay = json_array_get(c, 1);
    size_t n = json_array_size(ax) < json_array_size(ay) ? json_array_size(ax) : json_array_size(ay);
    if (n > PLOT_POINTS) n = PLOT_POINTS;
    for (size_t i = 0; i < n; i++) {
        x[i] = json_number_value(json_array_get(ax, i));
        y[i] = json_number_value(json_array_get(ay, i));
    }
    return n;
}

/* Adds a curve into the mean if its points stand at the same places. */
static bool into_mean(double *mx, double *my, size_t *mn, int *count, const double *x, const double *y, size_t n) {
    if (!*count) {
        memcpy(mx, x, n * sizeof *x);
        memcpy(my, y, n * sizeof *y);
        *mn = n;
    } else {
        if (n != *mn || memcmp(mx, x, n * sizeof *x) != 0) return false;
        for (size_t i = 0; i < n; i++) my[i] += y[i];
    }
    ++*count;
    return true;
}

static void level_curves(drawing *d, const char *level, int color, double *buf) {
    double *x = buf, *y = buf + PLOT_POINTS, *mx = buf + 2 * PLOT_POINTS, *my = buf + 3 * PLOT_POINTS;
    study_cell cell[STUDY_CELLS];
    char key[STUDY_KEY];
    size_t cells = study_cells(d->of, d->quick, cell), mn = 0, first = d->n;
    int count = 0;
    for (size_t i = 0; i < cells; i++) {
        if (!study_selects(d->p->where, &cell[i]) || (level && !study_level_is(&cell[i], d->p->by, level))) continue;
        study_cell_key(&cell[i], key);
        for (uint64_t seed = 1; seed <= STUDY_SEEDS; seed++) {
            const json_t *line = study_results_find(d->r, key, seed);
            size_t n = line ? curve_points(line, d->p->y, x, y) : 0;
            if (!n) continue;
            note_floor(d, line);
            add(d, NULL, x, y, n, color, true);
            into_mean(mx, my, &mn, &count, x, y, n);
        }
    }
    for (size_t i = 0; i < mn; i++) my[i] /= count;
    if (count == 1) d->n = first; /* one seed is its own mean */
    add(d, level, mx, my, mn, color, false);
}

/* ---- a metric over a factor ------------------------------------------------------------------ */

static void level_metric(drawing *d, const char *level, int color) {
    const study_factor *fx = factor_of(d->of, d->p->x);
    double x[STUDY_LEVELS], y[STUDY_LEVELS], lo[STUDY_LEVELS], hi[STUDY_LEVELS];
    size_t n = 0;
    for (size_t i = 0; i < STUDY_LEVELS && fx->level[i]; i++) {
        char more[STUDY_KEY];
        snprintf(more, sizeof more, "%s=%s%s%s%s%s", fx->name, fx->level[i], level ? " " : "", level ? d->p->by : "",
                 level ? "=" : "", level ? level : "");
        report_number v = report_mean(d->of, d->r, d->quick, d->p->where, more, d->p->y);
        if (!v.n || !isfinite(v.mean)) continue;
        x[n] = strtod(fx->level[i], NULL);
        lo[n] = v.mean - v.sd;
        hi[n] = v.mean + v.sd;
        y[n++] = v.mean;
    }
    add(d, NULL, x, lo, n, color, true);
    add(d, NULL, x, hi, n, color, true);
    add(d, level, x, y, n, color, false);
}

/* ---- a metric over another: a point for each level ------------------------------------------- */

static void level_point(drawing *d, const char *level, int color) {
    char more[STUDY_KEY];
    snprintf(more, sizeof more, "%s=%s", d->p->by, level);
    const study_metric *m = study_metric_find(d->of, d->p->x);
    report_number x = report_mean(d->of, d->r, d->quick, d->p->where, more, d->p->x);
    report_number y = report_mean(d->of, d->r, d->quick, d->p->where, more, d->p->y);
    if (!x.n || !isfinite(x.mean) || !isfinite(y.mean)) return;
    double at[2] = {x.mean * (m ? m->scale : 1), x.mean * (m ? m->scale : 1)}, bar[2] = {y.mean - y.sd, y.mean + y.sd};
    add(d, NULL, at, bar, 2, color, true);
    add(d, level, at, &y.mean, 1, color, false);
}

/* ---- a picture ------------------------------------------------------------------------------- */

static tl_status draw(drawing *d, const tl_allocator *a, const char *path, bool *drawn, tl_error *e) {
    const study_factor *by = factor_of(d->of, d->p->by);
    double *buf = arena_new(&d->mem, 4 * PLOT_POINTS, sizeof *buf);
    if (!buf) return error_set(e, TL_NOMEM, "no memory for a plot");
    for (size_t i = 0; i < STUDY_LEVELS && (by ? by->level[i] != NULL : i == 0); i++) {
        const char *level = by ? by->level[i] : NULL;
        if (d->p->x && !factor_of(d->of, d->p->x) && level)
            level_point(d, level, (int)i);
        else if (d->p->x)
            level_metric(d, level, (int)i);
        else
            level_curves(d, level, (int)i, buf);
    }
    *drawn = d->n > 0;
    if (!*drawn) return TL_OK;
    plot_spec spec = {.title = d->p->title,
                      .xlabel = d->p->xlabel,
                      .ylabel = d->p->ylabel,
                      .series = d->series,
                      .n = d->n,
                      .log_x = d->p->log_x,
                      .log_y = d->p->log_y,
                      .has_floor = d->p->floor && isfinite(d->floor),
                      .floor = d->floor,
                      .floor_name = "entropy of the grammar",
                      .y_min = d->p->y_min,
                      .y_max = d->p->y_max};
    return plot_file(a, &spec, path, e);
}

tl_status report_plots(const tl_allocator *a, const study *s, const study_results *r, const char *out, bool quick,
                       bool *drawn, tl_error *e) {
    for (size_t i = 0; s->plot && s->plot[i].file; i++) {
        drawing *d = mem_new(a, 1, sizeof *d);
        char tail[128], path[1024];
        if (!d) return error_set(e, TL_NOMEM, "no memory for a plot");
        *d = (drawing){.of = s, .r = r, .p = &s->plot[i], .quick = quick, .floor = (double)NAN};
        arena_init(&d->mem, a);
        snprintf(tail, sizeof tail, "-%s.svg", s->plot[i].file);
        tl_status st = study_path(out, s, quick, tail, path, sizeof path, e);
        if (st == TL_OK) st = draw(d, a, path, &drawn[i], e);
        arena_fini(&d->mem);
        mem_free(a, d);
        TRY(st);
    }
    return TL_OK;
}
