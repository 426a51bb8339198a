/* The bodies of head_avx2.c and head_avx512.c. */
#include "cpu/product/head.h"
#include "cpu/simd.h"

static void head_stats(head_row *r) {
    const vf low = vf_set(-__builtin_inff());
    vf top = low, all = vf_zero(), sum = vf_zero();
    for (int64_t i = 0; i < r->n; i += SIMD_W) {
        vf z = vf_load_n(r->z + i, r->n - i);
        if (r->cap > 0) {
            z = vf_mul(vf_set(r->cap), vf_tanh(vf_div(z, vf_set(r->cap))));
            vf_store_n(r->z + i, z, r->n - i);
        }
        all = vf_add(all, z); /* lanes past the end hold 0 */
        top = vf_max(vf_select(vm_first(r->n - i), z, low), top);
    }
    r->max = vf_hmax(top);
    r->all = vf_sum(all);
    if (r->target >= 0 && r->target < r->n) r->of_target = r->z[r->target];
    const vf max = vf_set(r->max == -__builtin_inff() ? 0 : r->max);
    for (int64_t i = 0; i < r->n; i += SIMD_W) {
        const vf e = vf_keep(vm_first(r->n - i), vf_exp(vf_sub(vf_load_n(r->z + i, r->n - i), max)));
        if (r->keep) vf_store_n(r->z + i, e, r->n - i);
        sum = vf_add(sum, e);
    }
    r->sum = vf_sum(sum);
}

/* z: the logit, or its exponential where stats() kept that. */
static inline vf head_dz(const head_row *r, vf z, vf times, vf hit) {
    vf dz = r->keep ? z : vf_exp(vf_sub(z, vf_set(r->lse)));
    dz = vf_mul(vf_sub(vf_sub(vf_mul(dz, times), vf_set(r->each)), hit), vf_set(r->by));
    if (r->cap > 0) {
        const vf t = vf_div(z, vf_set(r->cap));
        dz = vf_mul(dz, vf_fnma(t, t, vf_set(1.0f)));
    }
    return dz;
}

static void head_grad(const head_row *r) {
    const bool here = r->target >= 0 && r->target < r->n;
    const vf z_target = vf_set(here ? r->z[r->target] : 0);
    vf times = vf_set(1.0f + r->zloss2 * r->lse);
    if (r->keep) times = vf_mul(times, vf_exp(vf_set(r->max - r->lse))); /* a tile of nothing but -inf: 0 */
    for (int64_t i = 0; i < r->n; i += SIMD_W) {
        if (r->next) _mm_prefetch((const char *)(r->next + i), _MM_HINT_T0);
        vf_store_n(r->z + i, head_dz(r, vf_load_n(r->z + i, r->n - i), times, vf_zero()), r->n - i);
    }
    if (here) vf_store_n(r->z + r->target, head_dz(r, z_target, times, vf_set(r->hit)), 1);
}

static void head_sum(const float *part, int64_t parts, int64_t stride, int64_t n, void *out, int type, bool add) {
    for (int64_t i = 0; i < n; i += SIMD_W) {
        vf s = vf_load_n(part + i, n - i);
        for (int64_t k = 1; k < parts; k++) s = vf_add(s, vf_load_n(part + k * stride + i, n - i));
        if (type == GEMM_F32) {
            float *o = (float *)out + i;
            if (add) s = vf_add(vf_load_n(o, n - i), s);
            vf_store_n(o, s, n - i);
            continue;
        }
        uint16_t *o = (uint16_t *)out + i;
        if (add) s = vf_add(type == GEMM_BF16 ? vf_load_bf16_n(o, n - i) : vf_load_f16_n(o, n - i), s);
        if (type == GEMM_BF16)
            vf_store_bf16_n(o, s, n - i);
        else
            vf_store_f16_n(o, s, n - i);
    }
}

static const head_table head_functions = {SIMD_NAME(gemm_linear), head_stats, head_grad, head_sum,
                                          SIMD_NAME(quant_linear)};
const head_table *SIMD_NAME(loss_head)(void) {
    return &head_functions;
}
const head_table *SIMD_NAME(loss_head_bwd)(void) {
    return &head_functions;
}
