/* What the launchers of rows share: arguments by rows. */
#ifndef CPU_ROW_LAUNCH_H
#define CPU_ROW_LAUNCH_H

#include "cpu/launchers.h"
#include "cpu/row/row.h"
#include "tensor/tensor.h"

/* An argument whose rows are found by number. */
typedef struct row_view {
    char *data; /* NULL: absent */
    const tl_desc *d;
    int64_t stride; /* in bytes; -1: rows do not lie at one distance */
    int64_t size;   /* bytes of an element */
    int32_t type;
} row_view;

row_view row_view_of(const tl_arg *a);
void *row_view_at(const row_view *v, int64_t r);
int32_t row_type(tl_dtype t); /* ROW_F32 .. or -1 */
static inline bool row_has(const tl_arg *a) {
    return a->d.dtype != TL_NONE;
}
static inline int64_t row_least(int64_t a, int64_t b) {
    return a < b ? a : b;
}
static inline int64_t row_parts(int64_t n, int64_t part) {
    return (n + part - 1) / part;
}

/* sum[0..n) of `parts` partial sums (each n floats), in their order, written or added to out */
void row_gather(const float *partial, int64_t parts, int64_t n, int64_t lo, int64_t hi, float *out, bool add);

#endif
