/* Curves in a terminal: every character is a braille cell of 2 x 4 dots. */
#include "runlog/plot.h"

#include <math.h>
#include <string.h>

enum { BRAILLE_COLORS = 6, BRAILLE_FLOOR = 7 };
static const int braille_ansi[BRAILLE_COLORS] = {36, 33, 32, 35, 34, 31};
static const uint8_t braille_bit[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};

typedef struct braille {
    int w, h;       /* cells */
    uint8_t *dots;  /* (h,w) */
    uint8_t *color; /* (h,w) 0: none, else 1 + color, or BRAILLE_FLOOR */
    plot_axis x, y;
} braille;

static void braille_dot(braille *b, int px, int py, int color) {
    if (px < 0 || py < 0 || px >= 2 * b->w || py >= 4 * b->h) return;
    int cell = py / 4 * b->w + px / 2;
    b->dots[cell] |= braille_bit[py % 4][px % 2];
    b->color[cell] = (uint8_t)color;
}

static double braille_px(const braille *b, double v) {
    return (plot_scale(&b->x, v) - b->x.min) / (b->x.max - b->x.min) * (2 * b->w - 1);
}

static double braille_py(const braille *b, double v) {
    return (b->y.max - plot_scale(&b->y, v)) / (b->y.max - b->y.min) * (4 * b->h - 1);
}

static void braille_line(braille *b, double x0, double y0, double x1, double y1, int color) {
    double steps = fmax(fabs(x1 - x0), fabs(y1 - y0));
    if (steps > 1e5) return; /* far outside of a range that was given */
    for (double k = 0; k <= steps; k++) {
        double t = steps > 0 ? k / steps : 0;
        braille_dot(b, (int)lround(x0 + t * (x1 - x0)), (int)lround(y0 + t * (y1 - y0)), color);
    }
}

static void braille_curve(braille *b, const plot_series *c, int color) {
    double lx = (double)NAN, ly = (double)NAN;
    for (size_t i = 0; i < c->n; i++) {
        double x = braille_px(b, c->x[i]), y = braille_py(b, c->y[i]);
        if (isnan(x) || isnan(y)) {
            lx = (double)NAN;
            continue;
        }
        if (isnan(lx)) lx = x, ly = y;
        braille_line(b, lx, ly, x, y, color);
        lx = x, ly = y;
    }
}

static void braille_draw(braille *b, const plot_spec *p) {
    if (p->has_floor) {
        int y = (int)lround(braille_py(b, p->floor));
        for (int x = 0; x < 2 * b->w; x += 3) braille_dot(b, x, y, BRAILLE_FLOOR);
    }
    int next = 0;
    for (size_t i = 0; i < p->n; i++) {
        int color = p->series[i].color < 0 ? next++ : p->series[i].color;
        if (!p->series[i].faint)
            braille_curve(b, &p->series[i], 1 + color % BRAILLE_COLORS); /* no room for pale ones */
    }
}

static void braille_paint(str *out, bool color, int code) {
    if (!color) return;
    if (code == BRAILLE_FLOOR)
        str_adds(out, "\x1b[2m");
    else if (code)
        str_addf(out, "\x1b[%dm", braille_ansi[code - 1]);
    else
        str_adds(out, "\x1b[0m");
}

static void braille_row(const braille *b, int r, bool color, str *out) {
    int now = 0, last = b->w; /* blanks at the end are not written */
    while (last > 0 && !b->dots[r * b->w + last - 1]) last--;
    for (int c = 0; c < last; c++) {
        uint8_t d = b->dots[r * b->w + c];
        int want = d ? b->color[r * b->w + c] : now;
        if (want != now) {
            if (now) braille_paint(out, color, 0);
            braille_paint(out, color, want);
            now = want;
        }
        if (d) {
            char u[3] = {(char)0xe2, (char)(0xa0 | d >> 6), (char)(0x80 | (d & 0x3f))};
            str_add(out, u, 3);
        } else {
            str_addc(out, ' ');
        }
    }
    if (now) braille_paint(out, color, 0);
}

static const char *braille_y_label(const braille *b, int r) {
    for (size_t i = 0; i < b->y.ticks; i++) {
        double py = (b->y.max - b->y.tick[i]) / (b->y.max - b->y.min) * (4 * b->h - 1);
        if ((int)lround(py) / 4 == r) return b->y.label[i];
    }
    return "";
}

/* Labels under the axis, left out where they would touch. */
static void braille_x_labels(const braille *b, int margin, str *out) {
    int at = 0;
    for (int i = 0; i < margin + 1; i++) str_addc(out, ' ');
    for (size_t i = 0; i < b->x.ticks; i++) {
        int want = (int)lround((b->x.tick[i] - b->x.min) / (b->x.max - b->x.min) * (b->w - 1));
        int len = (int)strlen(b->x.label[i]), from = want - len / 2;
        if (from < 0) from = 0;
        if (from + len > b->w) from = b->w - len;
        if (i && from <= at) continue;
        for (; at < from; at++) str_addc(out, ' ');
        str_adds(out, b->x.label[i]);
        at += len;
    }
    str_addc(out, '\n');
}

static void braille_legend(const plot_spec *p, int margin, bool color, str *out) {
    int next = 0, names = 0;
    for (size_t i = 0; i < p->n; i++) {
        int k = p->series[i].color < 0 ? next++ : p->series[i].color;
        if (!p->series[i].name) continue;
        if (!names)
            for (int c = 0; c < margin + 1; c++) str_addc(out, ' ');
        if (names++) str_adds(out, "   ");
        braille_paint(out, color, 1 + k % BRAILLE_COLORS);
        str_adds(out, "\u2501\u2501 ");
        braille_paint(out, color, 0);
        str_adds(out, p->series[i].name);
    }
    if (p->has_floor && p->floor_name) {
        str_adds(out, names ? "   " : "  ");
        braille_paint(out, color, BRAILLE_FLOOR);
        str_adds(out, "\u2508\u2508 ");
        braille_paint(out, color, 0);
        str_adds(out, p->floor_name);
        names++;
    }
    if (names) str_addc(out, '\n');
}

static void braille_write(const braille *b, const plot_spec *p, int margin, bool color, str *out) {
    if (p->title) str_addf(out, "%*s %s\n", margin, "", p->title);
    for (int r = 0; r < b->h; r++) {
        const char *label = braille_y_label(b, r);
        str_addf(out, "%*s%s", margin - 1, label, *label ? "\u2524" : "\u2502");
        str_addc(out, ' ');
        braille_row(b, r, color, out);
        str_addc(out, '\n');
    }
    str_addf(out, "%*s\u2514", margin - 1, "");
    for (int c = 0; c <= b->w; c++) str_adds(out, "\u2500");
    str_addc(out, '\n');
    braille_x_labels(b, margin, out);
    braille_legend(p, margin, color, out);
}

tl_status plot_braille(const tl_allocator *a, const plot_spec *p, int columns, int rows, bool color, str *out,
                       tl_error *e) {
    braille b = {0};
    TRY(plot_fit(p, &b.x, &b.y, e));
    if (columns < 30) columns = 30;
    if (columns > 1000) columns = 1000;
    if (rows < 8) rows = 8;
    if (rows > 500) rows = 500;
    int margin = 2;
    for (size_t i = 0; i < b.y.ticks; i++)
        if ((int)strlen(b.y.label[i]) + 2 > margin) margin = (int)strlen(b.y.label[i]) + 2;
    b.w = columns - margin - 1;
    b.h = rows - 3 - (p->title != NULL);
    b.dots = mem_new(a, (size_t)b.w * (size_t)b.h, 1);
    b.color = mem_new(a, (size_t)b.w * (size_t)b.h, 1);
    tl_status s = b.dots && b.color ? TL_OK : error_set(e, TL_NOMEM, "no memory for a plot");
    if (!s) {
        braille_draw(&b, p);
        braille_write(&b, p, margin, color, out);
        if (out->failed) s = error_set(e, TL_NOMEM, "no memory for a plot");
    }
    mem_free(a, b.dots);
    mem_free(a, b.color);
    return s;
}
