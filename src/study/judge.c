/* The verdict on a claim: its effect against the spread over seeds. */
#include "study/study.h"

#include <math.h>
#include <string.h>

double claim_t975(int df) {
    static const double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    if (df < 1) return (double)INFINITY;
    /* beyond the table: the first terms of the expansion around the normal distribution's */
    return df <= 30 ? t[df - 1] : 1.95996 + 2.3723 / (double)df + 2.8225 / ((double)df * (double)df);
}

const char *claim_verdict_name(claim_verdict v, bool zh) {
    static const char *const en[] = {"not measured", "undecided", "supported", "contradicted"};
    static const char *const cn[] = {"未测量", "未定", "支持", "不支持"};
    return (zh ? cn : en)[v];
}

static void decide(claim_test test, double bound, claim_result *r) {
    double lo = r->effect - r->half, hi = r->effect + r->half;
    bool yes, no;
    switch (test) {
    case DIFF_BELOW:
    case RATIO_BELOW: yes = hi < bound, no = lo >= bound; break;
    case DIFF_ABOVE:
    case RATIO_ABOVE: yes = lo > bound, no = hi <= bound; break;
    default: yes = lo > -bound && hi < bound, no = hi <= -bound || lo >= bound; break;
    }
    r->verdict = yes ? CLAIM_SUPPORTED : no ? CLAIM_CONTRADICTED : CLAIM_UNDECIDED;
    if (!yes && !no) r->why = "the spread over seeds is wider than the distance to the bound";
}

void claim_judge_values(claim_test test, double bound, const double *x, int n, bool exact, claim_result *r) {
    double sum = 0, square = 0;
    r->seeds = n;
    r->why = "";
    for (int i = 0; i < n; i++) sum += x[i];
    r->effect = n ? sum / n : (double)NAN;
    for (int i = 0; i < n; i++) square += (x[i] - r->effect) * (x[i] - r->effect);
    r->sd = n > 1 ? sqrt(square / (n - 1)) : 0;
    r->half = n > 1 ? claim_t975(n - 1) * r->sd / sqrt(n) : 0;
    if (!n || !isfinite(r->effect)) {
        r->verdict = n ? CLAIM_UNDECIDED : CLAIM_OPEN;
        r->why = n ? "a value is not finite" : "no seed has all the cells that it compares";
        return;
    }
    if (n == 1 && !exact) {
        r->verdict = CLAIM_UNDECIDED;
        r->why = "one seed has no spread";
        return;
    }
    decide(test, bound, r);
}

/* Mean of a metric over the cells that fit; false: one of them is not measured for this seed, or there is none. */
static bool mean_of(const study *s, const study_results *r, const char *selector, const char *metric, uint64_t seed,
                    bool quick, double *out) {
    study_cell cell[STUDY_CELLS];
    char key[STUDY_KEY];
    double sum = 0;
    int n = 0;
    size_t cells = study_cells(s, quick, cell);
    for (size_t i = 0; i < cells; i++) {
        if (!study_selects(selector, &cell[i])) continue;
        study_cell_key(&cell[i], key);
        const json_t *line = study_results_find(r, key, seed);
        if (!line) return false;
        sum += study_line_value(line, metric);
        n++;
    }
    *out = n ? sum / n : (double)NAN;
    return n > 0;
}

static bool is_ratio(claim_test t) {
    return t == RATIO_BELOW || t == RATIO_ABOVE;
}

void claim_judge(const claim *c, const study *s, const study_results *r, bool quick, claim_result *out) {
    double x[STUDY_SEEDS], a, b = 0;
    int n = 0;
    memset(out, 0, sizeof *out);
    for (uint64_t seed = 1; seed <= STUDY_SEEDS; seed++) {
        if (!mean_of(s, r, c->a, c->metric, seed, quick, &a)) continue;
        if (*c->b && !mean_of(s, r, c->b, c->metric, seed, quick, &b)) continue;
        x[n++] = is_ratio(c->test) ? a / b : a - b;
        out->a += a;
        out->b += b;
    }
    if (n) out->a /= n, out->b /= n;
    const study_metric *m = study_metric_find(s, c->metric);
    claim_judge_values(c->test, c->bound, x, n, m && m->exact, out);
}
