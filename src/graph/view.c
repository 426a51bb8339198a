#include "graph/view.h"

size_t view_bytes(tl_dtype t, int64_t elements) {
    return (size_t)(elements / tl_dtype_block(t)) * tl_dtype_bytes(t);
}

size_t view_extent(const tl_desc *d) {
    if (tl_desc_count(d) == 0) return 0;
    int64_t last = 0;
    for (int i = 0; i + 1 < d->ndim; i++) last += (d->dim[i] - 1) * d->stride[i];
    return view_bytes(d->dtype, last + tl_desc_last(d));
}

/* rows of `width` bytes, `step` bytes apart; step 0: no such regularity, or one row */
typedef struct footprint {
    size_t at, extent, width, step;
} footprint;

static footprint view_footprint(size_t at, const tl_desc *d) {
    footprint f = {.at = at, .extent = view_extent(d)};
    int64_t run = tl_desc_last(d), step = 0, n = 1;
    int i = d->ndim - 2;
    for (; i >= 0 && (d->dim[i] == 1 || d->stride[i] == run); i--) run *= d->dim[i];
    for (; i >= 0; i--) {
        if (d->dim[i] == 1) continue;
        if (n > 1 && d->stride[i] != n * step) return f;
        if (n == 1) step = d->stride[i];
        n *= d->dim[i];
    }
    if (step < run) return f;
    f.width = view_bytes(d->dtype, run);
    f.step = view_bytes(d->dtype, step);
    return f;
}

bool view_overlap(size_t at_x, const tl_desc *x, size_t at_y, const tl_desc *y) {
    footprint a = view_footprint(at_x, x), b = view_footprint(at_y, y);
    if (a.at + a.extent <= b.at || b.at + b.extent <= a.at) return false;
    if (!a.step || a.step != b.step) return true;
    size_t ca = a.at % a.step, cb = b.at % b.step;
    if (ca + a.width > a.step || cb + b.width > b.step) return true;
    return !(ca + a.width <= cb || cb + b.width <= ca);
}
