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
    if (size >= 999999.5 && size < 1e15) {
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

tl_status plot_fit(const plot_spec *p, plot_axis *x, plot_axis *y, tl_error *e) {
    *x = (plot_axis){.min = HUGE_VAL, .max = -HUGE_VAL, .log = p->log_x};
    *y = (plot_axis){.min = HUGE_VAL, .max = -HUGE_VAL, .log = p->log_y};
    for (size_t i = 0; i < p->n; i++)
        for (size_t k = 0; k < p->series[i].n; k++) {
            if (isnan(plot_scale(x, p->series[i].x[k])) || isnan(plot_scale(y, p->series[i].y[k]))) continue;
            plot_widen(x, p->series[i].x[k]);
            plot_widen(y, p->series[i].y[k]);
        }
    if (x->min > x->max) return error_set(e, TL_ARG, "there are no points to draw");
    if (p->has_floor) plot_widen(y, p->floor);
    bool given = p->y_min < p->y_max && !isnan(plot_scale(y, p->y_min)) && !isnan(plot_scale(y, p->y_max));
    if (given) y->min = plot_scale(y, p->y_min), y->max = plot_scale(y, p->y_max);
    plot_finish(x, false, 8);
    plot_finish(y, !given, 7);
    return TL_OK;
}

void plot_smooth(const double *y, size_t n, double half, double *out) {
    double keep = half > 0 ? exp2(-1 / half) : 0, sum = 0, weight = 0;
    for (size_t i = 0; i < n; i++) {
        sum = sum * keep + y[i] * (1 - keep);
        weight = weight * keep + (1 - keep);
        out[i] = sum / weight;
    }
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
