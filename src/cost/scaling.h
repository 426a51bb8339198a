/* cost/scaling: scaling laws from runs. What is known of a run: parameters N, tokens D, loss L, operations C.
 *
 * parametric: L = E + A / N^a + B / D^b, by minimising the Huber loss of log L (Hoffmann et al. 2022, approach 3, with
 * its delta of 1e-3) from many starts; a quasi-Newton method over e, log A, log B, a, b with exact gradients.
 * isoflops: of runs with about the same C, the lowest loss, and the bottom of a parabola in log N (approach 2); optima
 * over budgets give N_opt ~ C^n, D_opt ~ C^d.
 * Intervals: 80 % by bootstrap over runs. Data that cannot determine the exponents are refused with the reason. */
#ifndef COST_SCALING_H
#define COST_SCALING_H

#include "base/mem.h"
#include "tilia/base.h"

typedef struct scaling_run {
    double params, tokens, loss, flops; /* flops 0: 6 N D */
} scaling_run;

typedef struct scaling_interval {
    double low, value, high;
} scaling_interval;

typedef struct scaling_law {
    scaling_interval E, A, B, alpha, beta;
    double residual; /* root mean square of log L - log fit */
    size_t runs, bootstraps;
    double n_exponent, d_exponent; /* N_opt ~ C^n, D_opt ~ C^d: beta / (alpha + beta), alpha / (alpha + beta) */
} scaling_law;

/* seed: of the bootstrap. bootstraps 0: 200. [fails: ARG, naming what the data lack; NUMERIC nothing fits; NOMEM] */
tl_status scaling_fit(const tl_allocator *a, const scaling_run *run, size_t n, size_t bootstraps, uint64_t seed,
                      scaling_law *out, tl_error *err);
double scaling_loss(const scaling_law *l, double params, double tokens);
/* The best split of a budget of C = 6 N D operations, and the loss there. */
void scaling_best(const scaling_law *l, double flops, double *params, double *tokens, double *loss);

typedef struct scaling_budget {
    double flops;
    size_t first, n;              /* of the sorted runs */
    double lowest_params, lowest; /* the best run */
    bool parabola;                /* three sizes or more, and a bottom within them (widened by a factor of 2) */
    double params, tokens, loss;  /* at the bottom */
    double curve[3];              /* loss = c0 + c1 x + c2 x^2, x = log N */
} scaling_budget;

typedef struct scaling_isoflops {
    scaling_run *run; /* sorted by budget, then size; owned */
    size_t runs;
    scaling_budget *budget; /* owned */
    size_t n, bottoms;
    bool lines; /* two bottoms or more */
    scaling_interval n_exponent, d_exponent;
    double n_factor, d_factor; /* N_opt = n_factor C^n */
    const tl_allocator *alloc;
} scaling_isoflops;

/* Runs whose C differ by less than a tenth share a budget. [owns: caller, scaling_isoflops_free]
 * [fails: ARG no budget has three sizes; NOMEM] */
tl_status scaling_isoflops_fit(const tl_allocator *a, const scaling_run *run, size_t n, size_t bootstraps,
                               uint64_t seed, scaling_isoflops *out, tl_error *err);
void scaling_isoflops_free(scaling_isoflops *s);

#endif
