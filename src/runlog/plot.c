#include "runlog/plot.h"
#include "runlog/plot_cairo.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

double plot_scale(const plot_axis *a, double v) {
    if (!isfinite(v)) return (double)NAN;
    if (!a->log) return v;
    return v > 0 ? log10(v) : (double)NAN;
}

static void plot_widen(plot_axis *a, double v) {
    double s = plot_scale(a, v);
    if (isnan(s)) return;
    if (s < a->min) a->min = s;
    if (s > a->max) a->max = s;
}

static void plot_label(double v, double step, char out[16]) {
    double size = fabs(v);
    if (size >= 999.9995e6 && size < 1e18) {
        int k = size >= 999.9995e12 ? 2 : size >= 999.9995e9;
        snprintf(out, 16, "%g%c", v / pow(1000, 3 + k), "GTP"[k]);
    } else if (size >= 999999.5 && size < 1e15) {
        snprintf(out, 16, "%gM", v / 1e6);
    } else if (size >= 9999.5 && size < 1e15) {
        snprintf(out, 16, "%gk", v / 1e3);
    } else if (size >= 1e15 || (size > 0 && size < 1e-4)) {
        snprintf(out, 16, "%.3g", v);
    } else {
        int digits = step > 0 && step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;
        snprintf(out, 16, "%.*f", digits > 8 ? 8 : digits, v);
    }
}

/* 1, 2 or 5 times a power of ten, at most `most` steps over the range. */
static double plot_step(double range, int most) {
    double raw = range / most, unit = pow(10, floor(log10(raw)));
    static const double nice[] = {1, 2, 5, 10};
    for (size_t i = 0; i < 4; i++)
        if (nice[i] * unit >= raw * (1 - 1e-9)) return nice[i] * unit;
    return 10 * unit;
}

static void plot_tick(plot_axis *a, double at, double value, double step) {
    if (a->ticks == 16 || at < a->min - 1e-9 * (a->max - a->min) || at > a->max + 1e-9 * (a->max - a->min)) return;
    a->tick[a->ticks] = at;
    plot_label(value, step, a->label[a->ticks++]);
}

static void plot_linear_ticks(plot_axis *a, int most) {
    double step = plot_step(a->max - a->min, most);
    double first = ceil(a->min / step - 1e-9);
    for (double k = 0; k < 16; k++) {
        double v = (first + k) * step;
        if (fabs(v) < step * 1e-9) v = 0;
        plot_tick(a, v, v, step);
    }
}

/* Powers of ten, with 2 and 5 between while they fit; over little more than a decade, even steps of the value. */
static void plot_log_ticks(plot_axis *a, int most) {
    double decades = a->max - a->min;
    if (decades < 1.2) {
        double lo = pow(10, a->min), hi = pow(10, a->max), step = plot_step(hi - lo, most);
        for (double v = ceil(lo / step - 1e-9) * step; v <= hi * (1 + 1e-9); v += step) plot_tick(a, log10(v), v, step);
        return;
    }
    double every = ceil(decades / most);
    for (double k = floor(a->min); k <= ceil(a->max); k += every) {
        static const double part[] = {1, 2, 5};
        for (size_t i = 0; i < (every == 1 && decades < 4 ? 3 : 1); i++) {
            double v = part[i] * pow(10, k);
            plot_tick(a, log10(v), v, v < 1 ? pow(10, k) : 1);
        }
    }
}

static void plot_finish(plot_axis *a, bool pad, int most) {
    double range = a->max - a->min;
    if (range <= 0 || range < 1e-12 * fabs(a->max)) { /* one value only */
        double by = a->log ? 0.1 : a->max != 0 ? fabs(a->max) * 0.05 : 1;
        a->min -= by;
        a->max += by;
    } else if (pad) {
        a->min -= range * 0.04;
        a->max += range * 0.04;
    }
    if (a->log)
        plot_log_ticks(a, most);
    else
        plot_linear_ticks(a, most);
}

static void plot_bytes(plot_axis *y, size_t i) {
    static const char *const unit[] = {"B", "kB", "MB", "GB", "TB", "PB"};
    double v = y->log ? pow(10, y->tick[i]) : y->tick[i];
    size_t k = 0;
    for (; k < 5 && fabs(v) >= 999.9995; k++) v /= 1000;
    snprintf(y->label[i], sizeof y->label[i], "%g %s", v, unit[k]);
}

tl_status plot_fit(const plot_spec *p, plot_axis *x, plot_axis *y, tl_error *e) {
    *x = (plot_axis){.min = HUGE_VAL, .max = -HUGE_VAL, .log = p->log_x};
    *y = (plot_axis){.min = HUGE_VAL, .max = -HUGE_VAL, .log = p->log_y};
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->series[i].n; k++) {
            if (p->series[i].base) plot_widen(y, p->series[i].base[k]);
            if (isnan(plot_scale(x, p->series[i].x[k])) || isnan(plot_scale(y, p->series[i].y[k]))) continue;
            plot_widen(x, p->series[i].x[k]);
            plot_widen(y, p->series[i].y[k]);
        }
    if (x->min > x->max) return error_set(e, TL_ARG, "there are no points to draw");
    bool scatter = true;              /* points by themselves do not lie on the frame */
    for (size_t i = 0; i < p->n; i++) /* with the bars of their spread */
        for (size_t k = 1; k < p->series[i].n; k++) scatter &= p->series[i].x[k] <= p->series[i].x[0];
    if (p->has_floor) plot_widen(y, p->floor);
    bool given = p->y_min < p->y_max && !isnan(plot_scale(y, p->y_min)) && !isnan(plot_scale(y, p->y_max));
    if (given) y->min = plot_scale(y, p->y_min), y->max = plot_scale(y, p->y_max);
    plot_finish(x, scatter, 8);
    plot_finish(y, !given && !p->bytes_y, 7);
    for (size_t i = 0; p->bytes_y && i < y->ticks; i++) plot_bytes(y, i);
    return TL_OK;
}

/* Weighted sums over the points passed so far, d = how far they lie behind: w, w d, w d^2, w y, w y d. */
typedef struct plot_moments {
    double s0, s1, s2, t0, t1;
} plot_moments;

static void plot_moments_step(plot_moments *m, double keep, double y) {
    m->s2 = keep * (m->s2 + 2 * m->s1 + m->s0);
    m->s1 = keep * (m->s1 + m->s0);
    m->s0 = keep * m->s0;
    m->t1 = keep * (m->t1 + m->t0);
    m->t0 = keep * m->t0;
    if (!isfinite(y)) return;
    m->s0 += 1;
    m->t0 += y;
}

/* l holds the points up to and with this one, r those behind it. */
static double plot_line_here(const plot_moments *l, const plot_moments *r) {
    double s0 = l->s0 + r->s0, s1 = r->s1 - l->s1, s2 = l->s2 + r->s2, t0 = l->t0 + r->t0, t1 = r->t1 - l->t1;
    double det = s0 * s2 - s1 * s1;
    return det > 1e-9 * s0 * s2 ? (s2 * t0 - s1 * t1) / det : t0 / s0;
}

tl_status plot_smooth(const tl_allocator *a, const double *y, size_t n, double half, double *out, tl_error *e) {
    if (!(half > 0)) {
        memcpy(out, y, n * sizeof *y);
        return TL_OK;
    }
    double keep = exp2(-1 / half);
    plot_moments *left = mem_new(a, n, sizeof *left), now = {0};
    if (!left) return error_set(e, TL_NOMEM, "no memory to smooth a curve of %zu points", n);
    for (size_t i = 0; i < n; i++) {
        plot_moments_step(&now, keep, y[i]);
        left[i] = now;
    }
    now = (plot_moments){0};
    for (size_t i = n; i-- > 0;) {
        plot_moments right = now;
        plot_moments_step(&right, keep, NAN); /* from where the next point stands to here */
        out[i] = plot_line_here(&left[i], &right);
        plot_moments_step(&now, keep, y[i]);
    }
    mem_free(a, left);
    return TL_OK;
}

tl_status plot_file(const tl_allocator *a, const plot_spec *p, const char *path, tl_error *e) {
    size_t n = strlen(path);
    bool svg = n > 4 && !strcmp(path + n - 4, ".svg"), png = n > 4 && !strcmp(path + n - 4, ".png");
    tl_status s = TL_OK;
    if (!svg && !png) s = error_set(e, TL_ARG, "the name of a plot must end in .svg or .png");
    if (!s) s = plot_cairo(a, p, svg, path, e);
    if (s) error_at_file(e, path);
    return s;
}
