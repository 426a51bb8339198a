#include "cpu/product/linear.h"

#include <string.h>

/* Distance between rows; any number will do for a single one. */
static bool linear_rows(const tl_desc *d, int64_t *stride) {
    *stride = tl_desc_rows(d) <= 1 ? tl_desc_last(d) : tensor_row_stride(d);
    return *stride >= tl_desc_last(d);
}

const char *linear_view_of(const tl_op_call *c, int op, linear_view *v) {
    const tl_desc *a = &c->in[0].d, *b = &c->in[1].d, *out = &c->out[0].d;
    int64_t sa, sb, so = 0;
    memset(v, 0, sizeof *v);
    v->dw = out->dtype != TL_NONE;
    if (!linear_rows(a, &sa) || !linear_rows(b, &sb) || (v->dw && !linear_rows(out, &so)))
        return "rows do not lie at one distance";
    v->a = a->dtype, v->b = b->dtype, v->c = v->dw ? out->dtype : TL_F32;
    v->c_row = so;
    v->rows = tl_desc_rows(a);
    v->add = c->acc & 1;
    if (op == OP_linear_dw) {
        v->m = tl_desc_last(a), v->n = tl_desc_last(b), v->k = v->rows;
        v->a_row = 1, v->a_col = sa, v->b_row = sb, v->b_col = 1;
        v->db = c->out[1].d.dtype != TL_NONE;
        v->db_add = c->acc >> 1 & 1;
        if (v->dw && v->c != TL_F32) return "gradient not f32";
        if (v->db && c->out[1].d.dtype != TL_F32) return "gradient not f32";
    } else {
        v->m = v->rows, v->a_row = sa, v->a_col = 1;
        if (op == OP_linear) {
            v->n = b->dim[0], v->k = b->dim[1], v->b_row = 1, v->b_col = sb;
            v->bias = c->in[2].d.dtype != TL_NONE;
            if (v->bias && c->in[2].d.dtype != TL_F32) return "bias not f32";
        } else {
            v->n = b->dim[1], v->k = b->dim[0], v->b_row = sb, v->b_col = 1;
        }
        if (!v->dw) return "no output";
    }
    if (v->m < 1 || v->n < 1 || v->k < 1) return "an empty matrix";
    return NULL;
}

int gemm_type(tl_dtype t) {
    return t == TL_F32 ? GEMM_F32 : t == TL_BF16 ? GEMM_BF16 : t == TL_F16 ? GEMM_F16 : -1;
}

/* Asked at every product that is planned: what was found out when the program began, not CPUID, which traps to the
 * hypervisor in a virtual machine and then costs more than the rest of the planning. */
bool product_slow_bf16(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_cpu_init();
    return __builtin_cpu_is("intel") != 0;
#else
    return false;
#endif
}
