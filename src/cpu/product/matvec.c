/* linear for up to eight rows: tiles are ranges of weight rows. */
#include "cpu/product/matvec.h"
#include "cpu/product/linear.h"

enum { TILE_BYTES = 64 << 10 };

static int64_t matvec_tile(const linear_view *v) {
    const int64_t rows = TILE_BYTES / (v->k * (int64_t)tl_dtype_bytes(v->b));
    return rows < 16 ? 16 : linear_up(rows, 16);
}

const char *matvec_linear_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                  kernel_exec *x) {
    (void)dry, (void)alloc;
    linear_view v;
    const char *why = linear_view_of(c, OP_linear, &v);
    if (why) return why;
    if (v.m > MATVEC_ROWS) return "more than eight rows";
    if (gemm_type(v.a) < 0 || gemm_type(v.b) < 0 || gemm_type(v.c) < 0) return "not f32, bf16 or f16";
    x->phases = 1;
    x->tiles[0] = (v.n + matvec_tile(&v) - 1) / matvec_tile(&v);
    x->scratch = sizeof(float) * (size_t)(v.m * linear_up(v.k, 16) * threads);
    return NULL;
}

void matvec_linear_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase;
    const tl_op_call *c = t->call;
    linear_view v;
    if (linear_view_of(c, OP_linear, &v)) return;
    const int64_t tile = matvec_tile(&v), k_pad = linear_up(v.k, 16);
    matvec_job j = {.x = c->in[0].data, .w = c->in[1].data, .y = c->out[0].data, .m = v.m, .k = v.k, .k_pad = k_pad};
    j.x_type = gemm_type(v.a), j.w_type = gemm_type(v.b), j.y_type = gemm_type(v.c);
    j.x_row = v.a_row, j.w_row = v.b_col, j.y_row = v.c_row;
    j.bias = v.bias ? c->in[2].data : NULL;
    j.add = v.add;
    j.x32 = (float *)t->scratch + worker * v.m * k_pad;
    j.n0 = lo * tile, j.n1 = hi * tile < v.n ? hi * tile : v.n;
    ((matvec_leaf *)t->exec->leaf)(&j);
}
