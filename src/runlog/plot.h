/* runlog/plot: curves of runs, as SVG and PNG (cairo) and as braille dots for a terminal. */
#ifndef RUNLOG_PLOT_H
#define RUNLOG_PLOT_H

#include "base/str.h"

typedef struct plot_series {
    const char *name; /* for the legend; NULL: not in it */
    const double *x, *y;
    size_t n;
    int color;   /* index into the palette; -1: the next one */
    bool faint;  /* drawn thin and pale: raw values behind a smoothed curve */
    bool marked; /* a dot at every point: few measurements, like a validation loss */
    bool dots;   /* dots alone, no line between them */
    bool dashed;
    const double *base;       /* (n) or NULL: the area between base and y is filled */
    const char *const *label; /* (n) or NULL: written beside the points, where there is room */
} plot_series;

typedef struct plot_spec {
    const char *title, *xlabel, *ylabel; /* NULL: none */
    const plot_series *series;
    size_t n;
    bool log_x, log_y; /* points that are not positive are left out */
    bool has_floor;    /* a dashed line across */
    double floor;
    const char *floor_name;
    double y_min, y_max; /* taken when y_min < y_max, else fitted */
    bool bytes_y;        /* ticks as B, kB, MB, GB */
    bool legend_left;    /* the legend at the top left, where curves rise to the right */
    int width, height;   /* pixels; 0: 900 x 560 */
} plot_spec;

typedef struct plot_axis {
    double min, max; /* in the axis' own scale: logarithms to base 10 when log */
    bool log;
    size_t ticks;
    double tick[16]; /* in axis scale */
    char label[16][16];
} plot_axis;

/* Ranges and ticks at 1, 2 or 5 times a power of ten. [fails: ARG nothing to draw] */
tl_status plot_fit(const plot_spec *p, plot_axis *x, plot_axis *y, tl_error *e);
/* A value in axis scale, NaN where it cannot be shown. */
double plot_scale(const plot_axis *a, double v);

/* Writes the file durably; the format by the name's end, .svg or .png. */
tl_status plot_file(const tl_allocator *a, const plot_spec *p, const char *path, tl_error *e);
/* columns x rows characters, axes and legend included; color: ANSI colours. At least 30 x 8. */
tl_status plot_braille(const tl_allocator *a, const plot_spec *p, int columns, int rows, bool color, str *out,
                       tl_error *e);
/* The curve without its noise: at each point the value there of the straight line that fits all points best, weighed by
 * 2^(-distance / half), distance in points. A line, so that a steep fall is not dragged behind as by a moving average.
 * Values that are not finite count for nothing; half 0 copies. */
tl_status plot_smooth(const tl_allocator *a, const double *y, size_t n, double half, double *out, tl_error *e);

#endif
