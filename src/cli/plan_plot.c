/* Two pictures of a plan: the roofline with the model's components on it, and memory over a step. */
#include "cli/plan_cli.h"

#include "runlog/plot.h"

#include <math.h>
#include <string.h>

static void title_of(const plan_options *o, const plan_result *r, const char *what, char *out, size_t size) {
    const char *name = o->preset ? o->preset : o->config ? o->config : o->model ? o->model : r->config.type;
    const char *slash = strrchr(name, '/');
    snprintf(out, size, "%s: %.60s, %s of %lld x %lld tokens, %s", what, slash && slash[1] ? slash + 1 : name,
             o->train ? "a training step" : "a forward pass", (long long)o->batch, (long long)o->context,
             tl_dtype_name(o->dtype));
}

/* ---- roofline --------------------------------------------------------------------------------------------------- */

enum { DOTS = COST_PARTS + 1 };

typedef struct roof {
    double x[2][DOTS], y[2][DOTS]; /* what the limit allows; what is expected */
    char text[DOTS][48];
    const char *label[DOTS];
    size_t n;
    double low, high; /* of intensity */
} roof;

static void roof_add(roof *f, const char *name, double flops, double bytes, double limit, double seconds) {
    if (flops <= 0 || bytes <= 0 || limit <= 0) return;
    double at = flops / bytes;
    size_t i = f->n++;
    f->x[0][i] = f->x[1][i] = at;
    f->y[0][i] = flops / limit;
    f->y[1][i] = flops / seconds;
    snprintf(f->text[i], sizeof f->text[i], "%s", name);
    f->label[i] = f->text[i];
    f->low = fmin(f->low, at);
    f->high = fmax(f->high, at);
}

static tl_status draw_roof(const plan_options *o, const plan_result *r, const tl_allocator *a, const char *path,
                           tl_error *err) {
    const cost_machine *m = &r->machine;
    double peak = machine_peak(m, o->dtype), ridge = peak / m->bandwidth;
    roof f = {.low = ridge / 8, .high = ridge * 8};
    for (int i = 0; i < COST_PARTS; i++) {
        const cost_part *p = &r->pass.part[i];
        roof_add(&f, p->name, p->forward + p->backward, p->bytes, p->limit, p->seconds);
    }
    if (!o->train)
        roof_add(&f, "decoding a token", r->decode.total.forward_flops, r->decode.bytes, r->decode.limit,
                 r->decode.seconds);
    double low = f.low / 2, high = f.high * 2;
    double bx[] = {low, ridge}, by[] = {low * m->bandwidth, peak}, px[] = {ridge, high}, py[] = {peak, peak};
    char title[200], slope[64], flat[64], c[32];
    title_of(o, r, "roofline", title, sizeof title);
    snprintf(slope, sizeof slope, "%s/s from memory", cli_bytes(m->bandwidth, c, sizeof c));
    cli_rate(peak, "FLOP/s", flat, sizeof flat);

    plot_series s[] = {{.name = slope, .x = bx, .y = by, .n = 2, .color = 6},
                       {.name = flat, .x = px, .y = py, .n = 2, .color = 1},
                       {.name = m->n ? "expected" : "components",
                        .x = f.x[1],
                        .y = f.y[1],
                        .n = f.n,
                        .color = 0,
                        .dots = true,
                        .label = f.label}};

    plot_spec p = {.title = title,
                   .xlabel = "operations a byte moved",
                   .ylabel = "FLOP/s",
                   .series = s,
                   .n = f.n ? 3 : 2,
                   .log_x = true,
                   .log_y = true,
                   .legend_left = true};
    return plot_file(a, &p, path, err);
}

/* ---- memory
 * ------------------------------------------------------------------------------------------------------------ */

enum { BANDS = 6 };

/* Steps as stairs: two points a step, so that a lifetime begins and ends where it does. */
typedef struct stack {
    double *x, *y[BANDS + 1];
    size_t n;
} stack;

static tl_status stack_make(const tl_allocator *a, const cost_timeline *t, const double *fixed, stack *s,
                            tl_error *err) {
    double *all = mem_new(a, (BANDS + 2) * 2 * t->n + 1, sizeof *all);
    if (!all) return error_set(err, TL_NOMEM, "no memory for a plot");
    s->n = 2 * t->n;
    s->x = all;
    for (int k = 0; k <= BANDS; k++) s->y[k] = all + (size_t)(k + 1) * s->n;
    for (size_t i = 0; i < s->n; i++) {
        size_t at = i / 2;
        double level[BANDS] = {fixed[0], fixed[1], fixed[2], t->kept[at], t->passing[at], t->scratch[at]};
        s->x[i] = i % 2 ? t->seconds[at] : at ? t->seconds[at - 1] : 0;
        s->y[0][i] = 0;
        for (int k = 0; k < BANDS; k++) s->y[k + 1][i] = s->y[k][i] + level[k];
    }
    return TL_OK;
}

static tl_status draw_memory(const plan_options *o, tl_engine *e, const plan_result *r, const char *path,
                             tl_error *err) {
    static const char *const names[BANDS] = {"weights", "gradients", "optimizer", "kept for the backward pass",
                                             "passing", "scratch"};
    static const int colors[BANDS] = {6, 4, 3, 0, 5, 1};
    const tl_allocator *a = tl_engine_allocator(e);
    const tl_model_costs *t = &r->pass.total;
    cost_request q = {.mode = o->train ? COST_TRAIN : COST_FORWARD,
                      .rows = o->batch,
                      .context = o->context,
                      .dtype = o->dtype,
                      .recompute = o->recompute,
                      .segment = o->segment};
    cost_timeline line;
    cost_machine machine = r->machine;
    stack s = {0};
    TRY(cost_memory(e, &r->config, &q, r->has_machine ? &machine : NULL, &line, err));
    const double fixed[3] = {(double)t->weights, (double)t->gradients, (double)t->optimizer};
    tl_status st = stack_make(a, &line, fixed, &s, err);
    plot_series series[BANDS];
    size_t n = 0;
    for (int k = BANDS; k-- > 0 && st == TL_OK;) { /* the legend from the top down */
        if (k < 3 && fixed[k] <= 0) continue;
        series[n++] =
            (plot_series){.name = names[k], .x = s.x, .y = s.y[k + 1], .base = s.y[k], .n = s.n, .color = colors[k]};
    }
    char title[200];
    title_of(o, r, "memory", title, sizeof title);
    plot_spec p = {.title = title,
                   .xlabel = r->has_machine ? "seconds" : "operators done",
                   .ylabel = "bytes",
                   .series = series,
                   .n = n,
                   .bytes_y = true,
                   .y_min = 0,
                   .y_max = 1.28 * (fixed[0] + fixed[1] + fixed[2] + (double)line.arena), /* room for the legend */
                   .has_floor = true,
                   .floor = fixed[0] + fixed[1] + fixed[2] + (double)line.arena,
                   .floor_name = "allocated"};
    if (st == TL_OK) st = plot_file(a, &p, path, err);
    mem_free(a, s.x);
    cost_timeline_free(e, &line);
    return st;
}

tl_status plan_plot(const plan_options *o, tl_engine *e, const plan_result *r, tl_error *err) {
    char second[1100];
    size_t n = strlen(o->plot);
    if (n < 5 || n > 1000 || (strcmp(o->plot + n - 4, ".svg") != 0 && strcmp(o->plot + n - 4, ".png") != 0))
        return error_set(err, TL_ARG, "--plot is \"%.200s\"; the name must end in .svg or .png", o->plot);
    if (!r->has_machine) return error_set(err, TL_ARG, "--plot needs a machine: %s; or name --hardware", r->no_machine);
    snprintf(second, sizeof second, "%.*s-memory%s", (int)(n - 4), o->plot, o->plot + n - 4);
    TRY(draw_roof(o, r, tl_engine_allocator(e), o->plot, err));
    TRY(draw_memory(o, e, r, second, err));
    if (!o->common.quiet) fprintf(stderr, "%s: the roofline\n%s: memory over a step\n", o->plot, second);
    return TL_OK;
}
