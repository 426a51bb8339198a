/* The body of gated_avx2.c and gated_avx512.c. */
#include "cpu/gated/gated.h"
#include "cpu/simd.h"

#include <math.h>
#include <string.h>

/* as in op/attrs.h, which leaf files do not include */
enum { K_RELU2, K_LAPLACE, K_SOFTPLUS2, K_SMOOTH2, K_SMOOTH1, K_IDENTITY, K_SOFTMAX, K_L2, K_RELU2_SUM };

#define INLINE static inline __attribute__((always_inline))

INLINE vf load(const void *p, int type, int64_t i, int64_t n) {
    if (type == GEMM_F32) return n >= SIMD_W ? vf_load((const float *)p + i) : vf_load_n((const float *)p + i, n);
    const uint16_t *h = (const uint16_t *)p + i;
    if (type == GEMM_BF16) return n >= SIMD_W ? vf_load_bf16(h) : vf_load_bf16_n(h, n);
    return n >= SIMD_W ? vf_load_f16(h) : vf_load_f16_n(h, n);
}
INLINE void store(void *p, int type, int64_t i, int64_t n, vf x) {
    if (type == GEMM_F32) {
        if (n >= SIMD_W)
            vf_store((float *)p + i, x);
        else
            vf_store_n((float *)p + i, x, n);
        return;
    }
    uint16_t *h = (uint16_t *)p + i;
    if (type == GEMM_BF16)
        vf_store_bf16_n(h, x, n);
    else
        vf_store_f16_n(h, x, n);
}

/* log(1 + x) of 0 <= x <= 1, to about 2e-7: the series of atanh with x / (2 + x) */
INLINE vf log1p_unit(vf x) {
    const vf z = vf_div(x, vf_add(x, vf_set(2.0f))), z2 = vf_mul(z, z);
    vf p = vf_set(2.0f / 15);
    p = vf_fma(p, z2, vf_set(2.0f / 13));
    p = vf_fma(p, z2, vf_set(2.0f / 11));
    p = vf_fma(p, z2, vf_set(2.0f / 9));
    p = vf_fma(p, z2, vf_set(2.0f / 7));
    p = vf_fma(p, z2, vf_set(2.0f / 5));
    p = vf_fma(p, z2, vf_set(2.0f / 3));
    p = vf_fma(p, z2, vf_set(2.0f));
    return vf_mul(p, z);
}

/* NaN stays NaN: max and min give their second operand then, so that one is the data. */
INLINE vf positive(vf t) {
    return vf_max(vf_zero(), t);
}

typedef struct constants {
    vf eps, two_eps, eps2, k3, k4;
} constants;
INLINE constants constants_of(float e) {
    if (!(e > 0)) e = 0.5f;
    const constants c = {vf_set(e), vf_set(2 * e), vf_set(e * e), vf_set(1 / (6 * e)), vf_set(1 / (16 * e * e))};
    return c;
}

/* f(t) and, if slope is not NULL, f'(t) */
INLINE vf value(int kind, const constants *k, vf t, vf *slope) {
    const vf two = vf_set(2.0f), one = vf_set(1.0f);
    if (kind == K_RELU2 || kind == K_RELU2_SUM) {
        const vf r = positive(t);
        if (slope) *slope = vf_add(r, r);
        return vf_mul(r, r);
    }
    if (kind == K_LAPLACE) {
        const vf z = vf_mul(vf_sub(t, vf_set(0.70710678118654752f)), vf_set(2.5066282746310002f));
        if (slope) *slope = vf_mul(vf_set(1.4142135623730951f), vf_exp(vf_neg(vf_mul(z, z))));
        return vf_fma(vf_set(0.5f), vf_erf(z), vf_set(0.5f));
    }
    if (kind == K_SOFTPLUS2) {
        const vf x = vf_exp(vf_neg(vf_abs(t))), y = vf_add(positive(t), log1p_unit(x));
        if (slope) *slope = vf_mul(vf_mul(two, y), vf_sigmoid(t));
        return vf_mul(y, y);
    }
    if (kind == K_SMOOTH2 || kind == K_SMOOTH1) {
        const vf y = vf_min(k->two_eps, positive(vf_add(t, k->eps))), r = vf_max(k->eps, t), y2 = vf_mul(y, y);
        const vf outer = vf_sub(vf_mul(r, r), k->eps2), line = vf_mul(two, vf_sub(r, k->eps));
        if (kind == K_SMOOTH2) {
            if (slope) *slope = vf_fma(vf_mul(y2, vf_set(3.0f)), k->k3, line);
            return vf_fma(vf_mul(y2, y), k->k3, outer);
        }
        if (slope) *slope = vf_fma(vf_mul(vf_mul(y2, y), vf_set(4.0f)), k->k4, line);
        return vf_fma(vf_mul(y2, y2), k->k4, outer);
    }
    if (slope) *slope = one;
    return t;
}

INLINE vf score(const gated_row *r, const float *s, int64_t c, int64_t n) {
    vf t = vf_mul(load(s, GEMM_F32, c, n), vf_set(r->factor));
    if (r->bias) t = vf_fma(vf_set(r->bias_scale), load(r->bias, GEMM_F32, c, n), t);
    return t;
}

INLINE void weigh_kind(int kind, const gated_row *r, float *s, int64_t lo, int64_t hi) {
    const constants k = constants_of(r->eps);
    const vf norm = vf_set(r->norm), stat = vf_set(r->stat);
    for (int64_t c = lo; c < hi; c += SIMD_W) {
        const vf t = score(r, s, c, hi - c);
        vf p;
        if (kind == K_SOFTMAX || kind == K_L2)
            p = vf_exp(vf_sub(t, stat));
        else
            p = vf_mul(value(kind, &k, t, 0), kind == K_RELU2_SUM ? stat : norm);
        store(s, GEMM_F32, c, hi - c, p);
    }
}

static void zero_outside(float *s, int64_t lo, int64_t hi, int64_t n) {
    if (lo > 0) memset(s, 0, (size_t)lo * sizeof *s);
    if (hi < n) memset(s + hi, 0, (size_t)(n - hi) * sizeof *s);
}

static void weigh(const gated_row *r, float *s, int64_t lo, int64_t hi, int64_t n) {
    if (lo >= hi) lo = hi = 0;
    switch (r->kind) {
    case K_RELU2: weigh_kind(K_RELU2, r, s, lo, hi); break;
    case K_LAPLACE: weigh_kind(K_LAPLACE, r, s, lo, hi); break;
    case K_SOFTPLUS2: weigh_kind(K_SOFTPLUS2, r, s, lo, hi); break;
    case K_SMOOTH2: weigh_kind(K_SMOOTH2, r, s, lo, hi); break;
    case K_SMOOTH1: weigh_kind(K_SMOOTH1, r, s, lo, hi); break;
    case K_IDENTITY: weigh_kind(K_IDENTITY, r, s, lo, hi); break;
    case K_RELU2_SUM: weigh_kind(K_RELU2_SUM, r, s, lo, hi); break;
    default: weigh_kind(K_SOFTMAX, r, s, lo, hi); break;
    }
    zero_outside(s, lo, hi, n);
}

static void more(const gated_row *r, const float *s, int64_t lo, int64_t hi, float *top, float *sum) {
    const vf none = vf_set(-INFINITY), zero = vf_zero();
    vf acc = zero, most = none;
    if (lo >= hi) return;
    if (r->kind == K_RELU2_SUM) {
        for (int64_t c = lo; c < hi; c += SIMD_W) {
            const vf x = positive(vf_select(vm_first(hi - c), score(r, s, c, hi - c), zero));
            acc = vf_fma(x, x, acc);
        }
        *sum += vf_sum(acc);
        return;
    }
    for (int64_t c = lo; c < hi; c += SIMD_W)
        most = vf_max(most, vf_select(vm_first(hi - c), score(r, s, c, hi - c), none));
    const float now = vf_hmax(most), power = r->kind == K_L2 ? 2.0f : 1.0f;
    if (now > *top) {
        if (*sum > 0) *sum *= expf(power * (*top - now));
        *top = now;
    }
    const vf base = vf_set(*top == -INFINITY ? 0.0f : *top), by = vf_set(power);
    for (int64_t c = lo; c < hi; c += SIMD_W) {
        const vf x = vf_exp(vf_mul(by, vf_sub(score(r, s, c, hi - c), base)));
        acc = vf_add(acc, vf_select(vm_first(hi - c), x, zero));
    }
    *sum += vf_sum(acc);
}

INLINE float back_kind(int kind, const gated_row *r, float *s, float *dp, int64_t lo, int64_t hi) {
    const constants k = constants_of(r->eps);
    const vf norm = vf_set(r->norm), stat = vf_set(r->stat), delta = vf_set(r->delta), factor = vf_set(r->factor);
    const vf scale = vf_set(r->bias_scale);
    vf sum = vf_zero();
    for (int64_t c = lo; c < hi; c += SIMD_W) {
        const int64_t n = hi - c;
        const vf t = score(r, s, c, n), g = load(dp, GEMM_F32, c, n);
        vf p, dt;
        if (kind == K_SOFTMAX || kind == K_L2) {
            p = vf_exp(vf_sub(t, stat));
            dt = vf_mul(p, kind == K_L2 ? vf_fnma(p, delta, g) : vf_sub(g, delta));
        } else if (kind == K_RELU2_SUM) {
            const vf x = positive(t), part = vf_mul(x, stat);
            p = vf_mul(x, part);
            dt = vf_mul(vf_add(part, part), vf_sub(g, delta));
        } else {
            vf slope;
            p = vf_mul(value(kind, &k, t, &slope), norm);
            dt = vf_mul(vf_mul(slope, norm), g);
            sum = vf_fma(vf_select(vm_first(n), p, vf_zero()), g, sum);
        }
        store(s, GEMM_F32, c, n, p);
        store(dp, GEMM_F32, c, n, vf_mul(dt, factor));
        if (r->dbias) store(r->dbias, GEMM_F32, c, n, vf_fma(scale, dt, load(r->dbias, GEMM_F32, c, n)));
    }
    return vf_sum(sum);
}

static float back(const gated_row *r, float *s, float *dp, int64_t lo, int64_t hi, int64_t n) {
    float sum = 0;
    if (lo >= hi) lo = hi = 0;
    switch (r->kind) {
    case K_RELU2: sum = back_kind(K_RELU2, r, s, dp, lo, hi); break;
    case K_LAPLACE: sum = back_kind(K_LAPLACE, r, s, dp, lo, hi); break;
    case K_SOFTPLUS2: sum = back_kind(K_SOFTPLUS2, r, s, dp, lo, hi); break;
    case K_SMOOTH2: sum = back_kind(K_SMOOTH2, r, s, dp, lo, hi); break;
    case K_SMOOTH1: sum = back_kind(K_SMOOTH1, r, s, dp, lo, hi); break;
    case K_IDENTITY: sum = back_kind(K_IDENTITY, r, s, dp, lo, hi); break;
    case K_SOFTMAX: sum = back_kind(K_SOFTMAX, r, s, dp, lo, hi); break;
    case K_L2: sum = back_kind(K_L2, r, s, dp, lo, hi); break;
    default: sum = back_kind(K_RELU2_SUM, r, s, dp, lo, hi); break;
    }
    zero_outside(s, lo, hi, n);
    zero_outside(dp, lo, hi, n);
    return sum;
}

/* ---- rows ------------------------------------------------------------------------------------------------- */

static float dot(const void *x, int tx, const void *y, int ty, int64_t n) {
    vf a = vf_zero(), b = a;
    int64_t i = 0;
    if (tx == GEMM_F32 && ty == GEMM_F32)
        for (; i + 2 * SIMD_W <= n; i += 2 * SIMD_W) {
            a = vf_fma(vf_load((const float *)x + i), vf_load((const float *)y + i), a);
            b = vf_fma(vf_load((const float *)x + i + SIMD_W), vf_load((const float *)y + i + SIMD_W), b);
        }
    for (; i < n; i += SIMD_W) a = vf_fma(load(x, tx, i, n - i), load(y, ty, i, n - i), a);
    return vf_sum(vf_add(a, b));
}

INLINE void axpy_type(int type, float by, const void *x, float *y, int64_t n) {
    const vf a = vf_set(by);
    for (int64_t i = 0; i < n; i += SIMD_W)
        store(y, GEMM_F32, i, n - i, vf_fma(a, load(x, type, i, n - i), load(y, GEMM_F32, i, n - i)));
}
static void axpy(float a, const void *x, int tx, float *y, int64_t n) {
    if (tx == GEMM_F32)
        axpy_type(GEMM_F32, a, x, y, n);
    else if (tx == GEMM_BF16)
        axpy_type(GEMM_BF16, a, x, y, n);
    else
        axpy_type(GEMM_F16, a, x, y, n);
}

static void scaled(float a, const void *x, int tx, float *y, int64_t n) {
    const vf by = vf_set(a);
    for (int64_t i = 0; i < n; i += SIMD_W) store(y, GEMM_F32, i, n - i, vf_mul(by, load(x, tx, i, n - i)));
}

static void put(const float *x, void *y, int ty, int64_t n, bool add) {
    for (int64_t i = 0; i < n; i += SIMD_W) {
        vf v = load(x, GEMM_F32, i, n - i);
        if (add) v = vf_add(load(y, ty, i, n - i), v);
        store(y, ty, i, n - i, v);
    }
}

static void affine(const void *z, int tz, const float *g, const float *b, void *y, int ty, int64_t n) {
    for (int64_t i = 0; i < n; i += SIMD_W) {
        const vf x = load(z, tz, i, n - i), by = load(g, GEMM_F32, i, n - i);
        store(y, ty, i, n - i, b ? vf_fma(x, by, load(b, GEMM_F32, i, n - i)) : vf_mul(x, by));
    }
}

static void product(const void *x, int tx, const void *y, int ty, float *to, int64_t n) {
    for (int64_t i = 0; i < n; i += SIMD_W)
        store(to, GEMM_F32, i, n - i,
              vf_fma(load(x, tx, i, n - i), load(y, ty, i, n - i), load(to, GEMM_F32, i, n - i)));
}

INLINE void out(void *y, int ty, int64_t i, int64_t n, vf v, bool add) {
    store(y, ty, i, n, add ? vf_add(load(y, ty, i, n), v) : v);
}

static void times(float a, const void *x, int tx, void *y, int ty, int64_t n, bool add) {
    const vf by = vf_set(a);
    for (int64_t i = 0; i < n; i += SIMD_W) out(y, ty, i, n - i, vf_mul(by, load(x, tx, i, n - i)), add);
}

static void multiply(const void *x, int tx, const void *z, int tz, void *y, int ty, int64_t n, bool add) {
    for (int64_t i = 0; i < n; i += SIMD_W)
        out(y, ty, i, n - i, vf_mul(load(x, tx, i, n - i), load(z, tz, i, n - i)), add);
}

static void feature(float a, float sub, const void *x, int tx, void *y, int ty, int64_t n, bool add) {
    const vf by = vf_set(a), less = vf_set(sub);
    for (int64_t i = 0; i < n; i += SIMD_W)
        out(y, ty, i, n - i, vf_mul(by, vf_exp(vf_sub(load(x, tx, i, n - i), less))), add);
}

/* ---- tables of relative positions --------------------------------------------------------------------------- */

static float sum(const float *x, int64_t n) {
    vf a = vf_zero(), b = a;
    int64_t i = 0;
    for (; i + 2 * SIMD_W <= n; i += 2 * SIMD_W) a = vf_add(a, vf_load(x + i)), b = vf_add(b, vf_load(x + i + SIMD_W));
    for (; i < n; i += SIMD_W) a = vf_add(a, load(x, GEMM_F32, i, n - i));
    return vf_sum(vf_add(a, b));
}

static void turn(const float *cos, const float *sin, const float *by, int64_t n, float *ahead, float *behind) {
    for (int64_t l = 0; l < GATED_TURNS; l += 2 * SIMD_W) {
        vf f0 = vf_zero(), f1 = f0, b0 = f0, b1 = f0;
        for (int64_t k = 0; k < n; k++) {
            const float *c = cos + k * GATED_TURNS + l, *s = sin + k * GATED_TURNS + l;
            const vf c0 = vf_load(c), c1 = vf_load(c + SIMD_W), s0 = vf_load(s), s1 = vf_load(s + SIMD_W);
            const vf p = vf_set(by[k]), q = vf_set(by[n + k]), r = vf_set(by[2 * n + k]), t = vf_set(by[3 * n + k]);
            f0 = vf_fma(q, s0, vf_fma(p, c0, f0)), f1 = vf_fma(q, s1, vf_fma(p, c1, f1));
            b0 = vf_fma(t, s0, vf_fma(r, c0, b0)), b1 = vf_fma(t, s1, vf_fma(r, c1, b1));
        }
        vf_store(ahead + l, f0), vf_store(ahead + l + SIMD_W, f1);
        vf_store(behind + l, b0), vf_store(behind + l + SIMD_W, b1);
    }
}

static void unturn(const float *cos, const float *sin, const float *even, const float *odd, int64_t n, float *to) {
    for (int64_t k = 0; k < n; k += SIMD_W) {
        vf sums[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
        for (int64_t l = 0; l < GATED_TURNS; l++) {
            const vf c = load(cos + l * n, GEMM_F32, k, n - k), s = load(sin + l * n, GEMM_F32, k, n - k);
            const vf e = vf_set(even[l]), o = vf_set(odd[l]);
            sums[0] = vf_fma(c, e, sums[0]), sums[1] = vf_fma(s, e, sums[1]);
            sums[2] = vf_fma(c, o, sums[2]), sums[3] = vf_fma(s, o, sums[3]);
        }
        for (int i = 0; i < 4; i++) store(to + i * n, GEMM_F32, k, n - k, sums[i]);
    }
}

static const gated_leaf leaf = {SIMD_NAME(gemm_linear),
                                weigh,
                                more,
                                back,
                                dot,
                                axpy,
                                scaled,
                                put,
                                affine,
                                product,
                                times,
                                multiply,
                                feature,
                                sum,
                                turn,
                                unturn};

/* One body under the names of the rows of kernels.def: devices and profiles then say which operator it served. */
#define GATED_LEAF(name)                                                                                               \
    gated_leaf_fn SIMD_NAME(gated_##name);                                                                             \
    const gated_leaf *SIMD_NAME(gated_##name)(void) {                                                                  \
        return &leaf;                                                                                                  \
    }
GATED_LEAF(gau_attention)
GATED_LEAF(gau_attention_bwd)
GATED_LEAF(gau_attention_kv)
GATED_LEAF(mixed_chunk)
GATED_LEAF(mixed_chunk_bwd)
GATED_LEAF(chunk_step)
GATED_LEAF(offset_scale)
GATED_LEAF(offset_scale_bwd)
GATED_LEAF(shift)
GATED_LEAF(shift_step)
GATED_LEAF(favor)
GATED_LEAF(favor_bwd)
GATED_LEAF(row_divide)
GATED_LEAF(row_divide_bwd)
GATED_LEAF(chunk_state)
GATED_LEAF(chunk_state_bwd)
GATED_LEAF(chunk_state_step)
GATED_LEAF(delta_rule)
GATED_LEAF(delta_rule_bwd)
GATED_LEAF(delta_rule_step)
GATED_LEAF(time_mix)
GATED_LEAF(time_mix_bwd)
GATED_LEAF(rel_buckets)
GATED_LEAF(rel_buckets_bwd)
GATED_LEAF(rel_toeplitz)
GATED_LEAF(rel_toeplitz_bwd)
GATED_LEAF(grid_order)
GATED_LEAF(chunk_reach)
GATED_LEAF(chunk_reach_bwd)
GATED_LEAF(chunk_reach_kv)
GATED_LEAF(segment_mean)
GATED_LEAF(matmul)
GATED_LEAF(inverse_start)
GATED_LEAF(inverse_start_bwd)
