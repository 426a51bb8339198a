/* rope_table: cosines and sines of rotary positions, one table for all layers of a step. */
#ifndef REAL

#include "op/rules.h"

tl_status rope_table_shape(tl_op_infer *s) {
    struct rope_table_attr *a = s->attr;
    SHAPE(h, s, "rope_table", "pos", "freq");
    TRY(shape_dtype(&h, 0, TL_I32));
    TRY(shape_min_ndim(&h, 0, 1));
    const tl_desc *pos = s->in[0];
    if (pos->ndim == TL_DIMS) return shape_refuse(&h, 0, TL_SHAPE, "it may have %d dimensions at most", TL_DIMS - 1);
    TRY(shape_dtype(&h, 1, TL_F64));
    TRY(shape_ndim(&h, 1, 1));
    if (a->cols < 0 || (a->column && !a->cols)) return shape_bad_attr(&h, "a grid of %lld columns", (long long)a->cols);
    if (a->mscale == 0) a->mscale = 1;
    if (a->dtype == TL_NONE) a->dtype = TL_F32;
    if (a->dtype != TL_F32 && a->dtype != TL_F64)
        return shape_bad_attr(&h, "the table cannot be %s: f32, or f64 where the data are", tl_dtype_name(a->dtype));
    int64_t dim[TL_DIMS] = {0};
    for (int k = 0; k < pos->ndim; k++) dim[k] = pos->dim[k];
    dim[pos->ndim] = 2 * s->in[1]->dim[0];
    shape_out(&h, 0, a->dtype, pos->ndim + 1, dim);
    return TL_OK;
}

NO_GRAD(rope_table, "positions are integers and frequencies are constants")

void rope_table_cost(const tl_op_call *c, tl_cost *cost) {
    float mscale = ATTR(c, rope_table)->mscale;
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->out[0].d) / 2, mscale != 0 && mscale != 1 ? 3 : 1, 2);
}

#else

/* In double throughout: at position 1,000,000 an angle in float would be wrong by 0.03. */
void REF(rope_table)(const tl_op_call *c) {
    const tl_arg *pos = &c->in[0], *freq = &c->in[1], *table = &c->out[0];
    int64_t count = tl_desc_count(&pos->d), half = freq->d.dim[0];
    WIDE mscale = (WIDE)ATTR(c, rope_table)->mscale;
    bool scaled = ATTR(c, rope_table)->mscale != 0 && ATTR(c, rope_table)->mscale != 1;
    const int64_t cols = ATTR(c, rope_table)->cols;
    const bool column = ATTR(c, rope_table)->column;
    for (int64_t n = 0; n < count; n++) {
        int64_t p = GETI(pos, AT(pos, n));
        if (cols > 0) p = column ? p % cols : p / cols;
        for (int64_t k = 0; k < half; k++) {
            WIDE angle = (WIDE)(double)p * (WIDE)((const double *)freq->data)[AT(freq, k)];
            WIDE x = WIDE_MATH(cos)(angle), y = WIDE_MATH(sin)(angle);
            if (scaled) {
                x = x * mscale;
                y = y * mscale;
            }
            PUT(c, 0, ROW(table, n) + k, (REAL)x);
            PUT(c, 0, ROW(table, n) + half + k, (REAL)y);
        }
    }
}

#endif
