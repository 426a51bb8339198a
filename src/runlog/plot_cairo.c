#include "runlog/plot_cairo.h"
#include "base/file.h"

#include <cairo-svg.h>
#include <cairo.h>
#include <math.h>

/* Okabe and Ito's palette: distinct also for colour-blind readers. */
static const double plot_color[][3] = {{0.00, 0.45, 0.70}, {0.84, 0.37, 0.00}, {0.00, 0.62, 0.45}, {0.80, 0.47, 0.65},
                                       {0.90, 0.62, 0.00}, {0.34, 0.71, 0.91}, {0.35, 0.35, 0.35}, {0.60, 0.40, 0.12}};
enum { PLOT_COLORS = sizeof plot_color / sizeof *plot_color };

typedef struct plot_sheet {
    cairo_t *cr;
    const plot_spec *p;
    plot_axis x, y;
    double left, top, width, height; /* of the drawing area */
} plot_sheet;

static double plot_px(const plot_sheet *s, double v) {
    return s->left + (plot_scale(&s->x, v) - s->x.min) / (s->x.max - s->x.min) * s->width;
}

static double plot_py(const plot_sheet *s, double v) {
    return s->top + s->height - (plot_scale(&s->y, v) - s->y.min) / (s->y.max - s->y.min) * s->height;
}

static void plot_ink(cairo_t *cr, double grey) {
    cairo_set_source_rgb(cr, grey, grey, grey);
}

/* Text around (x, y): h and v 0 left/top, 0.5 middle, 1 right/bottom. */
static void plot_text(cairo_t *cr, double x, double y, double h, double v, const char *text) {
    cairo_text_extents_t t;
    cairo_font_extents_t f;
    cairo_text_extents(cr, text, &t);
    cairo_font_extents(cr, &f);
    cairo_move_to(cr, x - h * t.x_advance, y + (1 - v) * f.ascent - v * f.descent * 0.3);
    cairo_show_text(cr, text);
}

static void plot_font(cairo_t *cr, double size, bool bold) {
    cairo_select_font_face(cr, "sans-serif", CAIRO_FONT_SLANT_NORMAL,
                           bold ? CAIRO_FONT_WEIGHT_BOLD : CAIRO_FONT_WEIGHT_NORMAL);
    cairo_set_font_size(cr, size);
}

static void plot_grid(plot_sheet *s) {
    cairo_t *cr = s->cr;
    plot_font(cr, 12, false);
    cairo_set_line_width(cr, 1);
    for (size_t i = 0; i < s->x.ticks; i++) {
        double at = floor(s->left + (s->x.tick[i] - s->x.min) / (s->x.max - s->x.min) * s->width) + 0.5;
        plot_ink(cr, 0.92);
        cairo_move_to(cr, at, s->top);
        cairo_line_to(cr, at, s->top + s->height);
        cairo_stroke(cr);
        plot_ink(cr, 0.3);
        plot_text(cr, at, s->top + s->height + 6, 0.5, 0, s->x.label[i]);
    }
    for (size_t i = 0; i < s->y.ticks; i++) {
        double at = s->top + s->height - (s->y.tick[i] - s->y.min) / (s->y.max - s->y.min) * s->height;
        at = floor(at) + 0.5;
        plot_ink(cr, 0.92);
        cairo_move_to(cr, s->left, at);
        cairo_line_to(cr, s->left + s->width, at);
        cairo_stroke(cr);
        plot_ink(cr, 0.3);
        plot_text(cr, s->left - 8, at, 1, 0.5, s->y.label[i]);
    }
    plot_ink(cr, 0.45);
    cairo_move_to(cr, floor(s->left) + 0.5, s->top);
    cairo_line_to(cr, floor(s->left) + 0.5, floor(s->top + s->height) + 0.5);
    cairo_line_to(cr, s->left + s->width, floor(s->top + s->height) + 0.5);
    cairo_stroke(cr);
}

static void plot_labels(plot_sheet *s) {
    cairo_t *cr = s->cr;
    plot_ink(cr, 0.1);
    if (s->p->title) {
        plot_font(cr, 16, true);
        plot_text(cr, s->left, 12, 0, 0, s->p->title);
    }
    plot_font(cr, 13, false);
    if (s->p->xlabel) plot_text(cr, s->left + s->width / 2, s->top + s->height + 26, 0.5, 0, s->p->xlabel);
    if (s->p->ylabel) {
        cairo_save(cr);
        cairo_translate(cr, 12, s->top + s->height / 2);
        cairo_rotate(cr, -M_PI / 2);
        plot_text(cr, 0, 0, 0.5, 0, s->p->ylabel);
        cairo_restore(cr);
    }
}

/* Behind the last colour they come again, dashed. */
static void plot_source(cairo_t *cr, int color, bool faint) {
    const double *c = plot_color[color % PLOT_COLORS], dash[] = {5, 3};
    cairo_set_source_rgba(cr, c[0], c[1], c[2], faint ? 0.25 : 1);
    cairo_set_dash(cr, dash, color / PLOT_COLORS % 2 ? 2 : 0, 0);
}

static void plot_dots(plot_sheet *s, const plot_series *c, double radius) {
    for (size_t i = 0; i < c->n; i++) {
        double x = plot_px(s, c->x[i]), y = plot_py(s, c->y[i]);
        if (isnan(x) || isnan(y)) continue;
        cairo_arc(s->cr, x, y, radius, 0, 2 * M_PI);
        cairo_fill(s->cr);
    }
}

/* ---- areas and labels ---- */

static void plot_area(plot_sheet *s, const plot_series *c) {
    cairo_t *cr = s->cr;
    for (size_t i = 0; i < c->n; i++) cairo_line_to(cr, plot_px(s, c->x[i]), plot_py(s, c->y[i]));
    for (size_t i = c->n; i-- > 0;) cairo_line_to(cr, plot_px(s, c->x[i]), plot_py(s, c->base[i]));
    cairo_close_path(cr);
    cairo_fill(cr);
}

typedef struct plot_box {
    double x, y, w, h;
} plot_box;
enum { PLOT_BOXES = 64 };

static bool plot_meets(const plot_box *a, const plot_box *b) {
    return a->x < b->x + b->w && b->x < a->x + a->w && a->y < b->y + b->h && b->y < a->y + a->h;
}

/* A place near (x, y) that is inside the drawing area and meets nothing written before: around the point, in ever wider
 * rings. */
static plot_box plot_room(const plot_sheet *s, const plot_box *taken, size_t n, double x, double y, double w) {
    static const double angle[] = {0, -0.6, 0.6, 3.14, -2.5, 2.5, -1.57, 1.57};
    plot_box b = {x + 8, y - 7, w, 14};
    for (double r = 10; r < 160; r += 12)
        for (size_t k = 0; k < sizeof angle / sizeof *angle; k++) {
            double cx = x + r * cos(angle[k]), cy = y + r * sin(angle[k]);
            b.x = cos(angle[k]) > 0.1 ? cx : cos(angle[k]) < -0.1 ? cx - w : cx - w / 2;
            b.y = cy - 7;
            bool free = b.x > s->left + 2 && b.x + w < s->left + s->width - 2 && b.y > s->top + 2 &&
                        b.y + b.h < s->top + s->height - 2;
            for (size_t i = 0; i < n && free; i++) free = !plot_meets(&b, &taken[i]);
            if (free) return b;
        }
    return b;
}

static void plot_labels_of(plot_sheet *s, const plot_series *c, int color, plot_box *taken, size_t *n) {
    cairo_t *cr = s->cr;
    for (size_t i = 0; i < c->n && c->label; i++) {
        double x = plot_px(s, c->x[i]), y = plot_py(s, c->y[i]);
        if (!c->label[i] || isnan(x) || isnan(y) || *n == PLOT_BOXES) continue;
        cairo_text_extents_t t;
        cairo_text_extents(cr, c->label[i], &t);
        plot_box b = plot_room(s, taken, *n, x, y, t.x_advance + 2);
        taken[(*n)++] = b;
        double end = b.x > x ? b.x - 1 : b.x + b.w < x ? b.x + b.w + 1 : x;
        if (hypot(end - x, b.y + 7 - y) > 14) { /* a thin line leads to the point */
            plot_source(cr, color, true);
            cairo_set_line_width(cr, 1);
            cairo_move_to(cr, x, y);
            cairo_line_to(cr, end, b.y + 7);
            cairo_stroke(cr);
        }
        plot_ink(cr, 0.15);
        plot_text(cr, b.x, b.y + 7, 0, 0.5, c->label[i]);
    }
}

/* All labels, after all dots: a label keeps clear of every dot. */
static void plot_all_labels(plot_sheet *s) {
    plot_box taken[PLOT_BOXES];
    size_t n = 0;
    plot_font(s->cr, 12, false);
    for (size_t i = 0; i < s->p->n; i++)
        for (size_t k = 0; k < s->p->series[i].n && s->p->series[i].label && n < PLOT_BOXES; k++) {
            double x = plot_px(s, s->p->series[i].x[k]), y = plot_py(s, s->p->series[i].y[k]);
            if (!isnan(x) && !isnan(y) && s->p->series[i].dots) taken[n++] = (plot_box){x - 5, y - 5, 10, 10};
        }
    int next = 0;
    for (size_t i = 0; i < s->p->n; i++) {
        const plot_series *c = &s->p->series[i];
        int color = c->color < 0 ? next++ : c->color;
        plot_labels_of(s, c, color, taken, &n);
    }
}

/* Of many points in one pixel column only the first, lowest, highest and last are drawn: the same picture, and a file
 * that does not grow with the run. */
static void plot_curve(plot_sheet *s, const plot_series *c) {
    cairo_t *cr = s->cr;
    bool pen = false;
    for (size_t i = 0; i < c->n;) {
        double x = plot_px(s, c->x[i]), first = plot_py(s, c->y[i]), low = first, high = first, last = first;
        size_t k = i + 1;
        if (isnan(x) || isnan(first)) {
            pen = false;
            i = k;
            continue;
        }
        for (; k < c->n && c->n > 1500; k++) {
            double xk = plot_px(s, c->x[k]), yk = plot_py(s, c->y[k]);
            if (isnan(xk) || isnan(yk) || floor(xk) != floor(x)) break;
            low = fmin(low, yk);
            high = fmax(high, yk);
            last = yk;
        }
        if (pen)
            cairo_line_to(cr, x, first);
        else
            cairo_move_to(cr, x, first);
        if (k > i + 1) {
            cairo_line_to(cr, x, low);
            cairo_line_to(cr, x, high);
            cairo_line_to(cr, x, last);
        }
        pen = true;
        i = k;
    }
    cairo_stroke(cr);
}

static void plot_curves(plot_sheet *s) {
    cairo_t *cr = s->cr;
    cairo_save(cr);
    cairo_rectangle(cr, s->left, s->top, s->width, s->height);
    cairo_clip(cr);
    cairo_set_line_join(cr, CAIRO_LINE_JOIN_ROUND);
    if (s->p->has_floor) {
        double y = plot_py(s, s->p->floor), dash[] = {7, 5};
        cairo_set_dash(cr, dash, 2, 0);
        cairo_set_line_width(cr, 1.5);
        plot_ink(cr, 0.25);
        cairo_move_to(cr, s->left, y);
        cairo_line_to(cr, s->left + s->width, y);
        cairo_stroke(cr);
        cairo_set_dash(cr, NULL, 0, 0);
    }
    int next = 0;
    for (size_t i = 0; i < s->p->n; i++) {
        const plot_series *c = &s->p->series[i];
        plot_source(cr, c->color < 0 ? next++ : c->color, c->faint);
        cairo_set_line_width(cr, c->faint ? 1 : 2);
        double dash[] = {7, 5};
        if (c->dashed) cairo_set_dash(cr, dash, 2, 0);
        if (c->base)
            plot_area(s, c);
        else if (!c->dots)
            plot_curve(s, c);
        cairo_set_dash(cr, NULL, 0, 0);
        if (c->marked || c->dots) plot_dots(s, c, c->dots ? 5 : 3);
    }
    cairo_set_dash(cr, NULL, 0, 0);
    cairo_restore(cr);
}

static void plot_legend_line(plot_sheet *s, double x, double y, const plot_series *c, const char *name) {
    if (c && c->dots) {
        cairo_arc(s->cr, x + 11, y, 5, 0, 2 * M_PI);
        cairo_fill(s->cr);
    } else if (c && c->base) {
        cairo_rectangle(s->cr, x, y - 6, 22, 12);
        cairo_fill(s->cr);
    } else {
        cairo_move_to(s->cr, x, y);
        cairo_line_to(s->cr, x + 22, y);
        cairo_stroke(s->cr);
    }
    cairo_set_dash(s->cr, NULL, 0, 0);
    plot_ink(s->cr, 0.15);
    plot_text(s->cr, x + 29, y, 0, 0.5, name);
}

/* Points of curves within a box. */
static size_t plot_covered(const plot_sheet *s, double left, double top, double width, double height) {
    size_t n = 0;
    for (size_t i = 0; i < s->p->n; i++)
        for (size_t k = 0; k < s->p->series[i].n; k++) {
            double x = plot_px(s, s->p->series[i].x[k]), y = plot_py(s, s->p->series[i].y[k]);
            n += x >= left && x <= left + width && y >= top && y <= top + height;
        }
    return n;
}

/* On white, in the corner where it covers least: at the top right (or left, if asked) unless another is better. */
static void plot_legend(plot_sheet *s) {
    cairo_t *cr = s->cr;
    double wide = 0, lines = 0;
    plot_font(cr, 12, false);
    for (size_t i = 0; i <= s->p->n; i++) {
        const char *name = i < s->p->n ? s->p->series[i].name : s->p->has_floor ? s->p->floor_name : NULL;
        cairo_text_extents_t t;
        if (!name) continue;
        cairo_text_extents(cr, name, &t);
        wide = fmax(wide, t.x_advance);
        lines++;
    }
    if (lines < 1) return;
    const double w = wide + 58, h = lines * 18 + 14;
    const double xs[] = {s->left + s->width - w, s->left + 8}, ys[] = {s->top, s->top + s->height - h};
    const int first = s->p->legend_left;
    double x = xs[first], y = ys[0];
    size_t least = plot_covered(s, x, y, w, h);
    for (int i = 1; i < 4; i++) {
        size_t n = plot_covered(s, xs[(i ^ first) % 2], ys[i / 2], w, h);
        if (n >= least) continue;
        least = n;
        x = xs[(i ^ first) % 2];
        y = ys[i / 2];
    }
    x += 8;
    y += 8;
    cairo_set_source_rgba(cr, 1, 1, 1, 0.85);
    cairo_rectangle(cr, x - 8, y - 2, wide + 46, lines * 18 + 6);
    cairo_fill(cr);
    int next = 0;
    y += 10;
    for (size_t i = 0; i < s->p->n; i++) {
        const plot_series *c = &s->p->series[i];
        int color = c->color < 0 ? next++ : c->color;
        if (!c->name) continue;
        plot_source(cr, color, c->faint);
        cairo_set_line_width(cr, 2);
        if (c->dashed) cairo_set_dash(cr, (double[]){7, 5}, 2, 0);
        plot_legend_line(s, x, y, c, c->name);
        y += 18;
    }
    if (s->p->has_floor && s->p->floor_name) {
        double dash[] = {7, 5};
        cairo_set_dash(cr, dash, 2, 0);
        cairo_set_line_width(cr, 1.5);
        plot_ink(cr, 0.25);
        plot_legend_line(s, x, y, NULL, s->p->floor_name);
    }
}

static cairo_status_t plot_sink(void *user, const unsigned char *p, unsigned n) {
    str *s = user;
    str_add(s, p, n);
    return s->failed ? CAIRO_STATUS_NO_MEMORY : CAIRO_STATUS_SUCCESS;
}

static cairo_status_t plot_draw(plot_sheet *s, cairo_surface_t *surface) {
    s->cr = cairo_create(surface);
    cairo_set_source_rgb(s->cr, 1, 1, 1);
    cairo_paint(s->cr);
    plot_grid(s);
    plot_labels(s);
    plot_curves(s);
    plot_all_labels(s);
    plot_legend(s);
    cairo_status_t r = cairo_status(s->cr);
    cairo_destroy(s->cr);
    return r;
}

tl_status plot_cairo(const tl_allocator *a, const plot_spec *p, bool svg, const char *path, tl_error *e) {
    plot_sheet s = {.p = p};
    TRY(plot_fit(p, &s.x, &s.y, e));
    int w = p->width > 0 ? p->width : 900, h = p->height > 0 ? p->height : 560;
    s.left = p->ylabel ? 74 : 58;
    s.top = p->title ? 42 : 16;
    s.width = w - s.left - 22;
    s.height = h - s.top - (p->xlabel ? 54 : 34);
    if (w > 20000 || h > 20000 || s.width < 50 || s.height < 50)
        return error_set(e, TL_ARG, "a plot of %d x %d pixels", w, h);
    str out;
    str_init(&out, a);
    cairo_surface_t *surface = svg ? cairo_svg_surface_create_for_stream(plot_sink, &out, w, h)
                                   : cairo_image_surface_create(CAIRO_FORMAT_RGB24, w, h);
    cairo_status_t r = plot_draw(&s, surface);
    if (!r && !svg) r = cairo_surface_write_to_png_stream(surface, plot_sink, &out);
    cairo_surface_finish(surface);
    if (!r) r = cairo_surface_status(surface);
    cairo_surface_destroy(surface);
    tl_status st = TL_OK;
    if (out.failed || r == CAIRO_STATUS_NO_MEMORY)
        st = error_set(e, TL_NOMEM, "no memory for a plot");
    else if (r)
        st = error_set(e, TL_INTERNAL, "cairo: %s", cairo_status_to_string(r));
    if (!st) st = file_write(a, path, out.data, out.len, e);
    str_fini(&out);
    return st;
}
