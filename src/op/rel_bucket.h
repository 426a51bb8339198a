/* Which number of a table of T5's buckets a distance has: the one thing that the reference and the kernels of
 * rel_buckets must not compute differently. */
#ifndef OP_REL_BUCKET_H
#define OP_REL_BUCKET_H

#include <math.h>
#include <stdint.h>

#include "op/attrs.h"

/* The bucket of a key d places behind the query. Of n distances to a side, n/2 are exact; distance m has n/2 + floor(
 * log(2m/n) / log(2M/n) n/2), M the farthest that is told apart. By whole numbers where they decide: a float's
 * logarithm would miss steps that are exact. */
static inline int64_t rel_bucket(const struct rel_buckets_attr *a, int64_t d) {
    const int64_t n = a->causal ? a->buckets : a->buckets / 2, exact = n / 2;
    const int64_t side = !a->causal && d > 0 ? n : 0, m = a->causal ? (d < 0 ? -d : 0) : d < 0 ? -d : d;
    if (m < exact) return side + m;
    if (m >= a->distance) return side + n - 1;
    const double x = log((double)m / (double)exact) / log((double)a->distance / (double)exact) * (double)(n - exact);
    const double step = floor(x + 1e-9);
    const int64_t at = exact + (int64_t)step;
    return side + (at < n - 1 ? at : n - 1);
}

#endif
