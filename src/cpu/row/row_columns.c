/* batchnorm and its backward pass: statistics of columns. A tile is a group of columns over all rows, so that no
 * sum is cut; the leaf walks its rows two or three times, which at some thousand rows stay in L2. */
#include "cpu/row/launch.h"

static const char *columns_check(const tl_op_call *c, int ins, int outs, int rows_in, row_columns *j) {
    const row_view x = row_view_of(&c->in[0]);
    *j = (row_columns){.rows = tl_desc_rows(&c->in[0].d), .d = tl_desc_last(&c->in[0].d), .acc = c->acc};
    for (int i = 0; i < ins + outs; i++) {
        const tl_arg *a = i < ins ? &c->in[i] : &c->out[i - ins];
        const bool by_rows = i < rows_in || i == ins;
        if (!row_has(a)) continue;
        const row_view v = row_view_of(a);
        if (by_rows && v.type < 0) return "not f32, bf16 or f16";
        if (by_rows && v.stride < 0) return "rows do not lie at one distance";
        if (!by_rows && (v.type != ROW_F32 || !tl_desc_contiguous(&a->d))) return "a vector not in contiguous f32";
        if (i < ins)
            j->in[i] = v.data, j->stride_in[i] = v.stride, j->tin[i] = v.type;
        else
            j->out[i - ins] = v.data;
        if (i == ins) j->stride_out = v.stride, j->tout = v.type;
    }
    return x.type < 0 || j->rows < 1 || j->d < 1 ? "nothing to do" : NULL;
}

static const char *columns_prepare(const tl_op_call *c, int ins, int rows_in, kernel_exec *x) {
    row_columns j;
    const char *why = columns_check(c, ins, 3, rows_in, &j);
    if (why) return why;
    x->phases = 1;
    x->tiles[0] = row_parts(j.d, ROW_COLUMNS);
    return NULL;
}

static void columns_run(const kernel_task *t, int ins, int rows_in, float eps, int64_t lo, int64_t hi) {
    row_columns j;
    if (columns_check(t->call, ins, 3, rows_in, &j)) return;
    j.eps = eps;
    for (int64_t i = lo; i < hi; i++)
        ((row_columns_leaf *)t->exec->leaf)(&j, i * ROW_COLUMNS, row_least((i + 1) * ROW_COLUMNS, j.d));
}

const char *row_batchnorm_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                  kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    return columns_prepare(c, 3, 1, x);
}
void row_batchnorm_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase, (void)worker;
    columns_run(t, 3, 1, ATTR(t->call, batchnorm)->eps, lo, hi);
}
const char *row_batchnorm_bwd_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                      kernel_exec *x) {
    (void)threads, (void)dry, (void)alloc;
    return columns_prepare(c, 5, 2, x);
}
void row_batchnorm_bwd_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase, (void)worker;
    columns_run(t, 5, 2, ATTR(t->call, batchnorm_bwd)->eps, lo, hi);
}
