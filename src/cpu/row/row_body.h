/* The bodies of row_avx2.c and row_avx512.c: what every leaf loads and stores with, then the element-wise ones.
 * row_norm_body.h and row_misc_body.h hold the rest. */
#include "cpu/philox_body.h"
#include "cpu/row/row.h"
#include "cpu/simd.h"
#include "op/attrs.h"

#define ALWAYS static inline __attribute__((always_inline))

/* n: elements left in the row from i on */
ALWAYS vf row_get(int type, const void *p, int64_t i, int64_t n) {
    if (type == ROW_F32) return n >= SIMD_W ? vf_load((const float *)p + i) : vf_load_n((const float *)p + i, n);
    const uint16_t *h = (const uint16_t *)p + i;
    if (type == ROW_BF16) return n >= SIMD_W ? vf_load_bf16(h) : vf_load_bf16_n(h, n);
    return n >= SIMD_W ? vf_load_f16(h) : vf_load_f16_n(h, n);
}
ALWAYS void row_put(int type, void *p, int64_t i, int64_t n, vf v) {
    if (type == ROW_F32) {
        if (n >= SIMD_W)
            vf_store((float *)p + i, v);
        else
            vf_store_n((float *)p + i, v, n);
        return;
    }
    uint16_t *h = (uint16_t *)p + i;
    if (type == ROW_BF16) {
        if (n >= SIMD_W)
            vf_store_bf16(h, v);
        else
            vf_store_bf16_n(h, v, n);
    } else if (n >= SIMD_W)
        vf_store_f16(h, v);
    else
        vf_store_f16_n(h, v, n);
}
ALWAYS void row_out(const row_job *j, int k, int type, int64_t i, vf v) {
    if (j->acc >> k & 1) v = vf_add(row_get(type, j->out[k], i, j->d - i), v);
    row_put(type, j->out[k], i, j->d - i, v);
}
#define ROW_EACH(i, d) for (int64_t i = 0; i < (d); i += SIMD_W)

/* A leaf in three copies: all arguments f32, all bf16, any mixture. n_in arguments a, b, one result. */
#define ROW_MAP(name, n_in, ...)                                                                                       \
    ALWAYS void row_##name##_as(const row_job *j, const int ta, const int tb, const int ty) {                          \
        ROW_EACH(i, j->d) {                                                                                            \
            const vf a = row_get(ta, j->in[0], i, j->d - i);                                                           \
            const vf b = n_in > 1 ? row_get(tb, j->in[1], i, j->d - i) : vf_zero();                                    \
            (void)b;                                                                                                   \
            row_out(j, 0, ty, i, (__VA_ARGS__));                                                                       \
        }                                                                                                              \
    }                                                                                                                  \
    void SIMD_NAME(row_##name)(const row_job *j) {                                                                     \
        const int ta = j->tin[0], tb = n_in > 1 ? j->tin[1] : ta, ty = j->tout[0];                                     \
        if (ta == ROW_F32 && tb == ROW_F32 && ty == ROW_F32)                                                           \
            row_##name##_as(j, ROW_F32, ROW_F32, ROW_F32);                                                             \
        else if (ta == ROW_BF16 && tb == ROW_BF16 && ty == ROW_BF16)                                                   \
            row_##name##_as(j, ROW_BF16, ROW_BF16, ROW_BF16);                                                          \
        else                                                                                                           \
            row_##name##_as(j, ta, tb, ty);                                                                            \
    }

ROW_MAP(add, 2, vf_add(a, b))
ROW_MAP(mul, 2, vf_mul(a, b))
ROW_MAP(scale, 1, j->f[0] == 0 ? vf_zero() : vf_mul(vf_set(j->f[0]), a))
ROW_MAP(cast, 1, a)
ROW_MAP(kv_write, 1, a)
ROW_MAP(concat, 1, a)
ROW_MAP(softcap, 1, vf_mul(vf_set(j->f[0]), vf_tanh(vf_div(a, vf_set(j->f[0])))))

ALWAYS vf row_softcap_slope(vf dy, vf y, float cap) {
    const vf t = vf_div(y, vf_set(cap));
    return vf_mul(dy, vf_fnma(t, t, vf_set(1.0f)));
}
ROW_MAP(softcap_bwd, 2, row_softcap_slope(a, b, j->f[0]))

/* ---- activations; comparisons are written so that NaN stays NaN ---------------------------------- */

ALWAYS vf row_gelu_tanh(vf x) {
    const vf cube = vf_mul(vf_mul(x, x), x);
    return vf_tanh(vf_mul(vf_set(0.7978845608028654f), vf_fma(vf_set(0.044715f), cube, x)));
}
/* The normal distribution up to x, and its density. The tail beyond |x| over exp(-x^2/2) is a polynomial in
 * 1/(1 + 0.35 |x|), minimax on [0, 14] to 4e-8 of its value, so both results cost one exponential. */
ALWAYS vf row_normal(vf x, vf *density) {
    const vf one = vf_set(1.0f), a = vf_abs(x), e = vf_exp(vf_mul(vf_set(-0.5f), vf_mul(a, a)));
    const vf t = vf_recip(vf_fma(vf_set(0.35f), vf_min(vf_set(14.0f), a), one));
    vf p = vf_set(-0x1.dd87c4p-6f);
    p = vf_fma(p, t, vf_set(0x1.26db2ap-3f));
    p = vf_fma(p, t, vf_set(-0x1.05da80p-2f));
    p = vf_fma(p, t, vf_set(0x1.45fe52p-3f));
    p = vf_fma(p, t, vf_set(-0x1.7aa84ep-6f));
    p = vf_fma(p, t, vf_set(0x1.b029dap-4f));
    p = vf_fma(p, t, vf_set(0x1.ead5b2p-4f));
    p = vf_fma(p, t, vf_set(0x1.1e6feap-3f));
    p = vf_fma(p, t, vf_set(0x1.1df1d4p-3f));
    const vf tail = vf_mul(vf_mul(p, t), e);
    *density = vf_mul(vf_set(0.3989422804014327f), e);
    return vf_select(vf_lt(x, vf_zero()), tail, vf_sub(one, tail));
}
ALWAYS vf row_positive(vf x, vf v) {
    return vf_select(vf_le(x, vf_zero()), vf_zero(), v);
}

ALWAYS vf row_act_value(const int kind, vf x) {
    const vf half = vf_set(0.5f), one = vf_set(1.0f);
    vf density;
    switch (kind) {
    case ACT_RELU: return row_positive(x, x);
    case ACT_GELU: return vf_mul(x, row_normal(x, &density));
    case ACT_GELU_TANH: return vf_mul(vf_mul(half, x), vf_add(one, row_gelu_tanh(x)));
    case ACT_SILU: return vf_div(x, vf_add(one, vf_exp(vf_neg(x))));
    case ACT_RELU2: return row_positive(x, vf_mul(x, x));
    case ACT_SIGMOID: return vf_sigmoid(x);
    case ACT_TANH: return vf_tanh(x);
    default: return x;
    }
}

ALWAYS vf row_act_slope(const int kind, vf x) {
    const vf half = vf_set(0.5f), one = vf_set(1.0f);
    switch (kind) {
    case ACT_RELU: return row_positive(x, one);
    case ACT_GELU: {
        vf density;
        const vf below = row_normal(x, &density);
        return vf_fma(x, density, below);
    }
    case ACT_GELU_TANH: {
        const vf t = row_gelu_tanh(x);
        const vf inner = vf_mul(vf_set(0.7978845608028654f), vf_fma(vf_set(0.134145f), vf_mul(x, x), one));
        return vf_fma(vf_mul(vf_mul(half, x), vf_fnma(t, t, one)), inner, vf_mul(half, vf_add(one, t)));
    }
    case ACT_SILU: {
        const vf s = vf_sigmoid(x);
        return vf_mul(s, vf_fma(x, vf_sub(one, s), one));
    }
    case ACT_RELU2: return row_positive(x, vf_add(x, x));
    case ACT_SIGMOID: {
        const vf s = vf_sigmoid(x);
        return vf_mul(s, vf_sub(one, s));
    }
    case ACT_TANH: {
        const vf t = vf_tanh(x);
        return vf_fnma(t, t, one);
    }
    default: return one;
    }
}

/* One loop for each kind, so that the choice is made once a row. */
#define ROW_KINDS(j, loop)                                                                                             \
    switch ((j)->kind) {                                                                                               \
    case ACT_RELU: loop(j, ACT_RELU); break;                                                                           \
    case ACT_GELU: loop(j, ACT_GELU); break;                                                                           \
    case ACT_GELU_TANH: loop(j, ACT_GELU_TANH); break;                                                                 \
    case ACT_SILU: loop(j, ACT_SILU); break;                                                                           \
    case ACT_RELU2: loop(j, ACT_RELU2); break;                                                                         \
    case ACT_SIGMOID: loop(j, ACT_SIGMOID); break;                                                                     \
    case ACT_TANH: loop(j, ACT_TANH); break;                                                                           \
    default: loop(j, ACT_IDENTITY); break;                                                                             \
    }

ALWAYS void row_act_loop(const row_job *j, const int kind) {
    ROW_EACH(i, j->d) row_out(j, 0, j->tout[0], i, row_act_value(kind, row_get(j->tin[0], j->in[0], i, j->d - i)));
}
void SIMD_NAME(row_act)(const row_job *j){ROW_KINDS(j, row_act_loop)}

ALWAYS void row_act_bwd_loop(const row_job *j, const int kind) {
    ROW_EACH(i, j->d) {
        const vf dy = row_get(j->tin[0], j->in[0], i, j->d - i), x = row_get(j->tin[1], j->in[1], i, j->d - i);
        row_out(j, 0, j->tout[0], i, vf_mul(dy, row_act_slope(kind, x)));
    }
}
void SIMD_NAME(row_act_bwd)(const row_job *j){ROW_KINDS(j, row_act_bwd_loop)}

ALWAYS void row_glu_loop(const row_job *j, const int kind) {
    ROW_EACH(i, j->d) {
        const vf x = row_get(j->tin[0], j->in[0], i, j->d - i), up = row_get(j->tin[1], j->in[1], i, j->d - i);
        row_out(j, 0, j->tout[0], i, vf_mul(row_act_value(kind, x), up));
    }
}
void SIMD_NAME(row_glu)(const row_job *j){ROW_KINDS(j, row_glu_loop)}

ALWAYS void row_glu_bwd_loop(const row_job *j, const int kind) {
    ROW_EACH(i, j->d) {
        const vf dy = row_get(j->tin[0], j->in[0], i, j->d - i), x = row_get(j->tin[1], j->in[1], i, j->d - i);
        const vf up = row_get(j->tin[2], j->in[2], i, j->d - i);
        if (j->out[0]) row_out(j, 0, j->tout[0], i, vf_mul(vf_mul(dy, up), row_act_slope(kind, x)));
        if (j->out[1]) row_out(j, 1, j->tout[1], i, vf_mul(dy, row_act_value(kind, x)));
    }
}
void SIMD_NAME(row_glu_bwd)(const row_job *j) {
    ROW_KINDS(j, row_glu_bwd_loop)
}

#include "cpu/row/row_misc_body.h"
#include "cpu/row/row_norm_body.h"
