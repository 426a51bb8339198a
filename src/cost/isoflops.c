/* Runs of equal budgets: the lowest, and the bottom of a parabola in log N. */
#include "cost/scaling.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static double flops_of(const scaling_run *r) {
    return r->flops > 0 ? r->flops : 6 * r->params * r->tokens;
}

static int by_params(const void *a, const void *b) {
    const scaling_run *x = a, *y = b;
    return (x->params > y->params) - (x->params < y->params);
}

static int by_budget(const void *a, const void *b) {
    double x = flops_of(a), y = flops_of(b);
    return (x > y) - (x < y);
}

/* Least squares of c0 + c1 x + c2 x^2 with weights, x taken from its mean so that the sums stay well scaled. */
static bool parabola(const scaling_run *r, const double *weight, size_t n, double c[3]) {
    double s[5] = {0}, t[3] = {0}, mean = 0, total = 0;
    for (size_t i = 0; i < n; i++) mean += weight[i] * log(r[i].params), total += weight[i];
    mean /= total;
    for (size_t i = 0; i < n; i++) {
        double x = log(r[i].params) - mean, p = weight[i];
        for (int k = 0; k < 5; k++, p *= x) {
            s[k] += p;
            if (k < 3) t[k] += p * r[i].loss;
        }
    }
    double det =
        s[0] * (s[2] * s[4] - s[3] * s[3]) - s[1] * (s[1] * s[4] - s[2] * s[3]) + s[2] * (s[1] * s[3] - s[2] * s[2]);
    if (!(fabs(det) > 1e-12 * s[0] * s[2] * s[4])) return false;
    double c0 =
        t[0] * (s[2] * s[4] - s[3] * s[3]) - s[1] * (t[1] * s[4] - t[2] * s[3]) + s[2] * (t[1] * s[3] - t[2] * s[2]);
    double c1 =
        s[0] * (t[1] * s[4] - t[2] * s[3]) - t[0] * (s[1] * s[4] - s[2] * s[3]) + s[2] * (s[1] * t[2] - s[2] * t[1]);
    double c2 =
        s[0] * (s[2] * t[2] - s[3] * t[1]) - s[1] * (s[1] * t[2] - s[2] * t[1]) + t[0] * (s[1] * s[3] - s[2] * s[2]);
    c0 /= det, c1 /= det, c2 /= det;
    c[0] = c0 - c1 * mean + c2 * mean * mean;
    c[1] = c1 - 2 * c2 * mean;
    c[2] = c2;
    return c2 > 0;
}

/* A loss over log N is a parabola near its bottom alone: runs of more than 4 times the size of the lowest one, or less
 * than a fourth, are left out while five remain. */
static void near_bottom(const scaling_run *r, const double *weight, size_t n, double *kept) {
    size_t low = n, left = 0;
    for (size_t i = 0; i < n; i++)
        if (weight[i] > 0 && (low == n || r[i].loss < r[low].loss)) low = i;
    for (size_t i = 0; i < n; i++) {
        double by = low < n ? r[i].params / r[low].params : 1;
        kept[i] = by <= 4 && by >= 0.25 ? weight[i] : 0;
        left += kept[i] > 0;
    }
    if (left < 5) memcpy(kept, weight, n * sizeof *kept);
}

/* The bottom, if it lies among the sizes or not farther than a factor of 2 outside. */
static bool bottom(const scaling_run *r, const double *weight, double *kept, size_t n, double c[3], double *params) {
    near_bottom(r, weight, n, kept);
    if (!parabola(r, kept, n, c)) return false;
    *params = exp(-c[1] / (2 * c[2]));
    return *params >= r[0].params / 2 && *params <= r[n - 1].params * 2;
}

static void fit_budget(const scaling_isoflops *s, scaling_budget *b, const double *ones, double *kept) {
    const scaling_run *r = s->run + b->first;
    b->flops = 0;
    b->lowest = HUGE_VAL;
    for (size_t i = 0; i < b->n; i++) {
        b->flops += log(flops_of(&r[i])) / (double)b->n;
        if (r[i].loss < b->lowest) b->lowest = r[i].loss, b->lowest_params = r[i].params;
    }
    b->flops = exp(b->flops);
    b->parabola = b->n >= 3 && bottom(r, ones, kept, b->n, b->curve, &b->params);
    if (!b->parabola) return;
    double x = log(b->params);
    b->loss = b->curve[0] + b->curve[1] * x + b->curve[2] * x * x;
    b->tokens = b->flops / 6 / b->params;
}

/* A straight line through (log C, log N). */
static bool line(const double *x, const double *y, size_t n, double *slope, double *at) {
    double sx = 0, sy = 0, xx = 0, xy = 0, m = (double)n;
    for (size_t i = 0; i < n; i++) sx += x[i], sy += y[i], xx += x[i] * x[i], xy += x[i] * y[i];
    double var = xx - sx * sx / m;
    if (n < 2 || !(var > 1e-9)) return false;
    *slope = (xy - sx * sy / m) / var;
    *at = (sy - *slope * sx) / m;
    return true;
}

static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Exponents of resampled runs, each budget among its own. weight: room for twice all runs. */
static size_t resample(const scaling_isoflops *s, size_t times, uint64_t seed, double *exponents, double *x, double *y,
                       double *weight) {
    size_t kept = 0;
    for (size_t k = 0; k < times; k++) {
        size_t n = 0;
        for (size_t i = 0; i < s->n; i++) {
            const scaling_budget *b = &s->budget[i];
            double c[3], params;
            memset(weight, 0, b->n * sizeof *weight);
            for (size_t j = 0; j < b->n; j++) weight[next_random(&seed) % b->n]++;
            if (b->n < 3 || !bottom(s->run + b->first, weight, weight + s->runs, b->n, c, &params)) continue;
            x[n] = log(b->flops);
            y[n++] = log(params);
        }
        double at;
        if (line(x, y, n, &exponents[kept], &at)) kept++;
    }
    return kept;
}

static tl_status fit_lines(scaling_isoflops *s, size_t times, uint64_t seed, double *room, tl_error *err) {
    double *x = room, *y = x + s->n, *weight = y + s->n, *exponents = weight + 2 * s->runs, slope, at;
    size_t n = 0;
    for (size_t i = 0; i < s->n; i++) {
        const scaling_budget *b = &s->budget[i];
        if (!b->parabola) continue;
        x[n] = log(b->flops);
        y[n++] = log(b->params);
    }
    s->bottoms = n;
    if (n == 0)
        return error_set(
            err, TL_ARG,
            "no budget has three sizes with a lowest loss among them; the sizes do not straddle the best one");
    s->lines = line(x, y, n, &slope, &at);
    if (!s->lines) return TL_OK;
    size_t kept = resample(s, times, seed, exponents, x, y, weight);
    qsort(exponents, kept, sizeof *exponents, by_value);
    s->n_exponent = (scaling_interval){slope, slope, slope};
    if (kept >= 10) s->n_exponent.low = exponents[kept / 10], s->n_exponent.high = exponents[kept - 1 - kept / 10];
    s->d_exponent = (scaling_interval){1 - s->n_exponent.high, 1 - slope, 1 - s->n_exponent.low};
    s->n_factor = exp(at);
    s->d_factor = 1 / (6 * s->n_factor);
    return TL_OK;
}

static tl_status fit_all(scaling_isoflops *s, size_t times, uint64_t seed, tl_error *err) {
    double *room = mem_new(s->alloc, 3 * s->runs + 2 * s->n + times + 1, sizeof *room);
    if (!room) return error_set(err, TL_NOMEM, "no memory to fit");
    for (size_t i = 0; i < s->runs; i++) room[i] = 1;
    for (size_t i = 0; i < s->n; i++) fit_budget(s, &s->budget[i], room, room + s->runs);
    tl_status st = fit_lines(s, times, seed, room, err);
    mem_free(s->alloc, room);
    return st;
}

tl_status scaling_isoflops_fit(const tl_allocator *a, const scaling_run *run, size_t n, size_t bootstraps,
                               uint64_t seed, scaling_isoflops *out, tl_error *err) {
    *out = (scaling_isoflops){.alloc = a, .runs = n};
    if (n < 3) return error_set(err, TL_ARG, "%zu runs; a parabola needs 3 of one budget", n);
    for (size_t i = 0; i < n; i++)
        if (!(run[i].params > 0) || !(run[i].tokens > 0) || !(run[i].loss > 0))
            return error_set(err, TL_ARG, "run %zu: params, tokens and loss must be positive numbers", i + 1);
    out->run = mem_new(a, n, sizeof *out->run);
    out->budget = mem_new(a, n, sizeof *out->budget);
    tl_status s = out->run && out->budget ? TL_OK : error_set(err, TL_NOMEM, "no memory to fit");
    if (s == TL_OK) {
        memcpy(out->run, run, n * sizeof *run);
        qsort(out->run, n, sizeof *run, by_budget);
        for (size_t i = 0; i < n; i++) {
            bool fresh = i == 0 || flops_of(&out->run[i]) > 1.1 * flops_of(&out->run[out->budget[out->n - 1].first]);
            if (fresh) out->budget[out->n++] = (scaling_budget){.first = i};
            out->budget[out->n - 1].n++;
        }
        for (size_t i = 0; i < out->n; i++)
            qsort(out->run + out->budget[i].first, out->budget[i].n, sizeof *run, by_params);
        s = fit_all(out, bootstraps ? bootstraps : 200, seed, err);
    }
    if (s != TL_OK) scaling_isoflops_free(out);
    return s;
}

void scaling_isoflops_free(scaling_isoflops *s) {
    if (!s->alloc) return;
    mem_free(s->alloc, s->run);
    mem_free(s->alloc, s->budget);
    *s = (scaling_isoflops){0};
}
