#include "cost/scaling.h"

#include "base/error.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the law and its error ----------------------------------------------------------------------------------- */

enum { DIM = 5 }; /* log A, log B, log E, alpha, beta */
static const double DELTA = 1e-3;

typedef struct problem {
    const scaling_run *run;
    const double *weight; /* how often each run counts; NULL: once */
    size_t n;
} problem;

/* log(e^a + e^b + e^c) and the three shares. */
static double log_sum(double a, double b, double c, double *sa, double *sb, double *sc) {
    double m = fmax(a, fmax(b, c)), x = exp(a - m), y = exp(b - m), z = exp(c - m), sum = x + y + z;
    *sa = x / sum, *sb = y / sum, *sc = z / sum;
    return m + log(sum);
}

/* Sum of Huber losses of the logarithms and its gradient. */
static double error_of(const problem *p, const double *t, double *g) {
    double sum = 0;
    memset(g, 0, DIM * sizeof *g);
    for (size_t i = 0; i < p->n; i++) {
        double w = p->weight ? p->weight[i] : 1, sa, sb, se;
        if (w == 0) continue;
        double ln = log(p->run[i].params), ld = log(p->run[i].tokens);
        double r = log_sum(t[0] - t[3] * ln, t[1] - t[4] * ld, t[2], &sa, &sb, &se) - log(p->run[i].loss);
        double slope = r > DELTA ? DELTA : r < -DELTA ? -DELTA : r;
        sum += w * (fabs(r) <= DELTA ? r * r / 2 : DELTA * (fabs(r) - DELTA / 2));
        slope *= w;
        g[0] += slope * sa;
        g[1] += slope * sb;
        g[2] += slope * se;
        g[3] -= slope * sa * ln;
        g[4] -= slope * sb * ld;
    }
    return sum;
}

/* ---- BFGS ------------------------------------------------------------------------------------------------------ */

static double dot(const double *a, const double *b) {
    double s = 0;
    for (int i = 0; i < DIM; i++) s += a[i] * b[i];
    return s;
}

/* H := (I - r s y^T) H (I - r y s^T) + r s s^T, r = 1 / s.y */
static void update(double H[DIM][DIM], const double *s, const double *y) {
    double sy = dot(s, y), Hy[DIM], yHy;
    if (!(sy > 1e-300)) return;
    for (int i = 0; i < DIM; i++) Hy[i] = dot(H[i], y);
    yHy = dot(y, Hy);
    for (int i = 0; i < DIM; i++)
        for (int j = 0; j < DIM; j++) H[i][j] += (1 + yHy / sy) * s[i] * s[j] / sy - (Hy[i] * s[j] + s[i] * Hy[j]) / sy;
}

static void identity(double H[DIM][DIM], double scale) {
    memset(H, 0, DIM * DIM * sizeof(double));
    for (int i = 0; i < DIM; i++) H[i][i] = scale;
}

/* Goes down from t; answers the error there. The axes differ much in scale (a logarithm of A moves far, an exponent
 * little), which the inverse Hessian learns. */
static double descend(const problem *p, double *t) {
    double H[DIM][DIM], g[DIM], next[DIM], gn[DIM], s[DIM], y[DIM];
    double f = error_of(p, t, g), norm = sqrt(dot(g, g));
    identity(H, norm > 0 ? 0.1 / norm : 1);
    int stuck = 0;
    for (int k = 0; k < 400 && stuck < 2; k++) {
        for (int i = 0; i < DIM; i++) s[i] = -dot(H[i], g);
        double slope = dot(s, g), step = 1, fn = f;
        if (!(slope < 0)) {
            identity(H, 0.1 / (sqrt(dot(g, g)) + 1e-300));
            stuck++;
            continue;
        }
        bool lower = false;
        for (int tries = 0; tries < 40 && !lower; tries++, step *= 0.5) {
            for (int i = 0; i < DIM; i++) next[i] = t[i] + step * s[i];
            fn = error_of(p, next, gn);
            lower = isfinite(fn) && fn <= f + 1e-4 * step * slope;
        }
        if (!lower) {
            identity(H, 0.1 / (sqrt(dot(g, g)) + 1e-300));
            stuck++;
            continue;
        }
        for (int i = 0; i < DIM; i++) s[i] = next[i] - t[i], y[i] = gn[i] - g[i];
        if (k == 0) identity(H, fmax(dot(s, y) / (dot(y, y) + 1e-300), 1e-12));
        update(H, s, y);
        stuck = f - fn < 1e-14 * f ? stuck + 1 : 0;
        f = fn;
        memcpy(t, next, sizeof next);
        memcpy(g, gn, sizeof gn);
    }
    return f;
}

/* ---- starts -------------------------------------------------------------------------------------------------------
 */

/* From a grid of exponents and shares of the loss: A and B such that both terms are of the right size in the middle of
 * the data. */
static double search(const problem *p, const double *hint, double *best) {
    static const double exponents[] = {0.15, 0.35, 0.6}, floors[] = {0.2, 0.6, 0.9};
    double ln = 0, ld = 0, least = HUGE_VAL, mean = 0, total = 0, found = HUGE_VAL;
    for (size_t i = 0; i < p->n; i++) {
        double w = p->weight ? p->weight[i] : 1;
        if (w == 0) continue;
        ln += w * log(p->run[i].params);
        ld += w * log(p->run[i].tokens);
        mean += w * p->run[i].loss;
        total += w;
        least = fmin(least, p->run[i].loss);
    }
    ln /= total, ld /= total, mean /= total;
    if (hint) {
        memcpy(best, hint, DIM * sizeof *best);
        return descend(p, best);
    }
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            for (int e = 0; e < 3; e++) {
                double E = floors[e] * least, half = log((mean - E) / 2);
                double t[DIM] = {half + exponents[a] * ln, half + exponents[b] * ld, log(E), exponents[a],
                                 exponents[b]};
                double f = descend(p, t);
                if (!(f < found)) continue;
                found = f;
                memcpy(best, t, sizeof t);
            }
    return found;
}

/* ---- can the data tell? ---------------------------------------------------------------------------------------------
 */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Values that differ by more than 2 %; 0: no memory. */
static size_t distinct(const tl_allocator *a, const scaling_run *r, size_t n, bool params) {
    double *v = mem_new(a, n, sizeof *v);
    size_t k = 0;
    if (!v) return 0;
    for (size_t i = 0; i < n; i++) v[i] = params ? r[i].params : r[i].tokens;
    qsort(v, n, sizeof *v, by_value);
    for (size_t i = 0; i < n; i++) k += i == 0 || v[i] > 1.02 * v[i - 1];
    mem_free(a, v);
    return k;
}

static tl_status check(const tl_allocator *a, const scaling_run *r, size_t n, tl_error *err) {
    for (size_t i = 0; i < n; i++)
        if (!(r[i].params > 0) || !(r[i].tokens > 0) || !(r[i].loss > 0) ||
            !isfinite(r[i].params * r[i].tokens * r[i].loss))
            return error_set(err, TL_ARG, "run %zu: params, tokens and loss must be positive numbers", i + 1);
    if (n < 8) return error_set(err, TL_ARG, "%zu runs; five numbers are fitted, so at least 8 are needed", n);
    size_t sizes = distinct(a, r, n, true), lengths = distinct(a, r, n, false);
    if (sizes == 0 || lengths == 0) return error_set(err, TL_NOMEM, "no memory to fit");
    if (sizes < 3) return error_set(err, TL_ARG, "%zu different sizes; the exponent of N needs at least 3", sizes);
    if (lengths < 3)
        return error_set(err, TL_ARG, "%zu different numbers of tokens; the exponent of D needs at least 3", lengths);
    /* sizes and lengths that rise together cannot be told apart */
    double sx = 0, sy = 0, xx = 0, yy = 0, xy = 0, m = (double)n;
    for (size_t i = 0; i < n; i++) {
        double x = log(r[i].params), y = log(r[i].tokens);
        sx += x, sy += y, xx += x * x, yy += y * y, xy += x * y;
    }
    double vx = xx / m - sx * sx / m / m, vy = yy / m - sy * sy / m / m, c = xy / m - sx * sy / m / m;
    if (c * c > 0.98 * vx * vy)
        return error_set(
            err, TL_ARG,
            "parameters and tokens %s together in all runs (correlation %.3f): their exponents cannot be told apart",
            c > 0 ? "rise" : "trade off", c / sqrt(vx * vy));
    if (sqrt(vx) < log(2) / 2 || sqrt(vy) < log(2) / 2)
        return error_set(err, TL_ARG, "the %s hardly differ: a factor of 4 or more between the ends is needed",
                         vx < vy ? "sizes" : "numbers of tokens");
    return TL_OK;
}

/* ---- bootstrap
 * -------------------------------------------------------------------------------------------------------- */

static double uniform(uint64_t *state) { /* splitmix64: resampling needs no more */
    uint64_t z = *state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static void resample(double *weight, size_t n, uint64_t *state) {
    memset(weight, 0, n * sizeof *weight);
    for (size_t i = 0; i < n; i++) weight[(size_t)(uniform(state) * (double)n)]++;
}

/* The middle 80 % of sorted values. */
static scaling_interval interval(double *v, size_t n, double value) {
    if (n < 10) return (scaling_interval){value, value, value};
    qsort(v, n, sizeof *v, by_value);
    return (scaling_interval){v[n / 10], value, v[n - 1 - n / 10]};
}

static void bootstrap(const tl_allocator *a, const scaling_run *run, size_t n, const double *best, size_t times,
                      uint64_t seed, scaling_law *out, double *weight, double *values) {
    uint64_t state = seed;
    size_t kept = 0;
    for (size_t k = 0; k < times; k++) {
        double t[DIM];
        resample(weight, n, &state);
        problem p = {run, weight, n};
        if (!isfinite(search(&p, best, t)) || t[3] < -1 || t[3] > 3 || t[4] < -1 || t[4] > 3) continue;
        values[0 * times + kept] = exp(t[2]);
        values[1 * times + kept] = exp(t[0]);
        values[2 * times + kept] = exp(t[1]);
        values[3 * times + kept] = t[3];
        values[4 * times + kept] = t[4];
        kept++;
    }
    scaling_interval *const to[DIM] = {&out->E, &out->A, &out->B, &out->alpha, &out->beta};
    const double value[DIM] = {exp(best[2]), exp(best[0]), exp(best[1]), best[3], best[4]};
    for (int i = 0; i < DIM; i++) *to[i] = interval(values + (size_t)i * times, kept, value[i]);
    out->bootstraps = kept;
    (void)a;
}

tl_status scaling_fit(const tl_allocator *a, const scaling_run *run, size_t n, size_t bootstraps, uint64_t seed,
                      scaling_law *out, tl_error *err) {
    TRY(check(a, run, n, err));
    size_t times = bootstraps ? bootstraps : 200;
    memset(out, 0, sizeof *out);
    double best[DIM], g[DIM];
    problem p = {run, NULL, n};
    if (!isfinite(search(&p, NULL, best))) return error_set(err, TL_NUMERIC, "no start led to finite numbers");
    double *weight = mem_new(a, n + DIM * times, sizeof *weight);
    if (!weight) return error_set(err, TL_NOMEM, "no memory for the bootstrap");
    bootstrap(a, run, n, best, times, seed, out, weight, weight + n);
    mem_free(a, weight);
    error_of(&p, best, g);
    out->runs = n;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double r = log(run[i].loss) - log(scaling_loss(out, run[i].params, run[i].tokens));
        sum += r * r;
    }
    out->residual = sqrt(sum / (double)n);
    double alpha = out->alpha.value, beta = out->beta.value;
    if (!(alpha > 0.01) || !(beta > 0.01))
        return error_set(err, TL_ARG, "the loss does not fall with %s: exponent %.3f",
                         alpha <= 0.01 ? "parameters" : "tokens", alpha <= 0.01 ? alpha : beta);
    if (out->alpha.high - out->alpha.low > fmax(alpha, 0.3) || out->beta.high - out->beta.low > fmax(beta, 0.3))
        return error_set(
            err, TL_ARG,
            "the runs do not determine the exponents: alpha %.2f to %.2f, beta %.2f to %.2f in 80 %% of resamplings; "
            "more runs, a wider range of sizes and tokens, or less noise are needed",
            out->alpha.low, out->alpha.high, out->beta.low, out->beta.high);
    out->n_exponent = beta / (alpha + beta);
    out->d_exponent = alpha / (alpha + beta);
    return TL_OK;
}

double scaling_loss(const scaling_law *l, double params, double tokens) {
    return l->E.value + l->A.value * pow(params, -l->alpha.value) + l->B.value * pow(tokens, -l->beta.value);
}

/* d/dN of A N^-a + B (C / 6N)^-b is zero at N = G (C/6)^(b/(a+b)), G = (a A / b B)^(1/(a+b)). */
void scaling_best(const scaling_law *l, double flops, double *params, double *tokens, double *loss) {
    double a = l->alpha.value, b = l->beta.value, G = pow(a * l->A.value / (b * l->B.value), 1 / (a + b));
    *params = G * pow(flops / 6, b / (a + b));
    *tokens = flops / 6 / *params;
    *loss = scaling_loss(l, *params, *tokens);
}
