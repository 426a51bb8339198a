/* Cases of attention for the kernel tests: random inputs in strided memory, an oracle in double, and a driver that runs
 * a kernel by hand with any number of workers. */
#ifndef TESTS_ATTENTION_CASE_H
#define TESTS_ATTENTION_CASE_H

#include <math.h>
#include <stdlib.h>

#include "base/half.h"
#include "base/rng.h"
#include "cpu/attention/attention.h"
#include "support/testing.h"

typedef struct at_case {
    int64_t B, T, S, H, Hk, Dh, Dv;
    tl_dtype dtype;
    struct attention_attr attr;
    int docs; /* 0: none, else the length of the documents; negative: numbers in no order */
    bool sinks, slopes, bias;
    int64_t P;
} at_case;

typedef struct at_data {
    tl_arg q, k, v, doc, sinks, slopes, bias, g;
    double *o, *lse, *dq, *dk, *dv, *dsinks, *dbias; /* the oracle's */
} at_data;

static uint64_t at_seed = 1;
static inline double at_random(void) {
    at_seed = at_seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(at_seed >> 33) / (double)(1u << 30) - 1.0;
}

static inline double at_get(const tl_arg *a, int64_t i) {
    if (a->d.dtype == TL_F32) return (double)((const float *)a->data)[i];
    const uint16_t h = ((const uint16_t *)a->data)[i];
    return (double)(a->d.dtype == TL_BF16 ? half_bf16_to_f32(h) : half_f16_to_f32(h));
}
static inline void at_put(tl_arg *a, int64_t i, double x) {
    if (a->d.dtype == TL_F32)
        ((float *)a->data)[i] = (float)x;
    else
        ((uint16_t *)a->data)[i] = a->d.dtype == TL_BF16 ? half_f32_to_bf16((float)x) : half_f32_to_f16((float)x);
}

/* A tensor whose rows are windows of wider ones: gap elements lie between. */
static inline tl_arg at_tensor(tl_dtype dtype, int ndim, const int64_t *dim, int64_t gap, double size) {
    tl_arg a = {0};
    a.d.dtype = dtype;
    a.d.ndim = ndim;
    int64_t stride = 1;
    for (int i = ndim; i-- > 0;) {
        a.d.dim[i] = dim[i];
        a.d.stride[i] = stride;
        stride *= dim[i];
        if (i == ndim - 2) stride += gap; /* between tokens, not between heads */
    }
    a.data = malloc((size_t)stride * tl_dtype_bytes(dtype) + 1);
    assert_non_null(a.data);
    memset(a.data, 0xff, (size_t)stride * tl_dtype_bytes(dtype)); /* NaN in the gaps */
    const int64_t n = tl_desc_count(&a.d), last = dim[ndim - 1];
    for (int64_t i = 0; i < n; i += last)
        for (int64_t d = 0; d < last && size > 0; d++) at_put(&a, tl_desc_row(&a.d, i / last) + d, size * at_random());
    return a;
}

static inline int64_t at_row(const tl_arg *a, int64_t b, int64_t t, int64_t h) {
    return b * a->d.stride[0] + t * a->d.stride[1] + h * a->d.stride[2];
}

static inline bool at_sees(const at_case *c, const at_data *d, int64_t b, int64_t i, int64_t j) {
    const int64_t at = i + c->attr.q_offset;
    if (c->attr.causal && j > at) return false;
    if (c->attr.window && (at - j >= c->attr.window || (!c->attr.causal && j - at >= c->attr.window))) return false;
    if (!d->doc.data) return true;
    const int32_t *doc = (const int32_t *)d->doc.data + b * d->doc.d.stride[0];
    return doc[i] == doc[j];
}

static inline double at_score(const at_case *c, const at_data *d, int64_t b, int64_t h, int64_t i, int64_t j,
                              double *th) {
    double t = 0;
    const int64_t hk = h / (c->H / c->Hk), ahead = j - i - c->attr.q_offset;
    for (int64_t e = 0; e < c->Dh; e++)
        t += at_get(&d->q, at_row(&d->q, b, i, h) + e) * at_get(&d->k, at_row(&d->k, b, j, hk) + e);
    t *= c->attr.scale > 0 ? (double)c->attr.scale : 1.0 / sqrt((double)c->Dh);
    *th = 0;
    if (c->attr.softcap > 0) {
        *th = tanh(t / (double)c->attr.softcap);
        t = (double)c->attr.softcap * *th;
    }
    if (c->slopes) t -= at_get(&d->slopes, h) * (double)llabs(ahead);
    if (c->bias) t += at_get(&d->bias, h * d->bias.d.stride[0] + ahead + c->P - 1);
    return t;
}

/* Where cases with dropout are in a training run. */
static const tl_run_info at_info = {.seed = 5, .step = 7, .row0 = 1000};

/* What dropout multiplies the weight of a pair with. */
static inline double at_keep(const at_case *c, int64_t b, int64_t h, int64_t i, int64_t j) {
    if (c->attr.drop == 0) return 1;
    const rng_key key = rng_key_make(at_info.seed, at_info.step, (uint64_t)c->attr.op);
    const float u = rng_uniform(key, (uint64_t)(at_info.row0 + b * c->T + i), (uint64_t)h << 32 | (uint64_t)j);
    return u >= c->attr.drop ? 1 / (1 - (double)c->attr.drop) : 0;
}

static inline at_data at_make(const at_case *c) {
    at_data d = {0};
    d.q = at_tensor(c->dtype, 4, (int64_t[]){c->B, c->T, c->H, c->Dh}, 8, 2.0);
    d.k = at_tensor(c->dtype, 4, (int64_t[]){c->B, c->S, c->Hk, c->Dh}, 24, 2.0);
    d.v = at_tensor(c->dtype, 4, (int64_t[]){c->B, c->S, c->Hk, c->Dv}, 3, 1.0);
    d.g = at_tensor(c->dtype, 4, (int64_t[]){c->B, c->T, c->H, c->Dv}, 5, 1.0);
    if (c->docs) {
        d.doc = (tl_arg){malloc((size_t)(c->B * c->S) * 4), tl_desc_make(TL_I32, 2, (int64_t[]){c->B, c->S})};
        for (int64_t i = 0; i < c->B * c->S; i++)
            ((int32_t *)d.doc.data)[i] = (int32_t)(c->docs > 0 ? i % c->S / c->docs : (i * 7 / 3) % -c->docs);
    }
    if (c->sinks) d.sinks = at_tensor(TL_F32, 1, &c->H, 0, 3.0);
    if (c->slopes) d.slopes = at_tensor(TL_F32, 1, &c->H, 0, 0.2);
    if (c->bias) d.bias = at_tensor(TL_F32, 2, (int64_t[]){c->H, 2 * c->P - 1}, 0, 1.0);
    return d;
}

static inline double *at_zeros(int64_t n) {
    double *p = calloc((size_t)n + 1, sizeof *p);
    assert_non_null(p);
    return p;
}

/* Forward and, if asked, all gradients, in double, with D from the exact output. */
static inline void at_oracle(const at_case *c, at_data *d, bool gradients) {
    const int64_t r = c->H / c->Hk;
    d->o = at_zeros(c->B * c->T * c->H * c->Dv), d->lse = at_zeros(c->B * c->H * c->T);
    d->dq = at_zeros(c->B * c->T * c->H * c->Dh), d->dk = at_zeros(c->B * c->S * c->Hk * c->Dh);
    d->dv = at_zeros(c->B * c->S * c->Hk * c->Dv), d->dsinks = at_zeros(c->H),
    d->dbias = at_zeros(c->H * (2 * c->P + 1));
    double *p = at_zeros(c->S), *th = at_zeros(c->S);
    for (int64_t b = 0; b < c->B; b++)
        for (int64_t h = 0; h < c->H; h++)
            for (int64_t i = 0; i < c->T; i++) {
                double top = c->sinks ? at_get(&d->sinks, h) : -INFINITY, sum = 0;
                for (int64_t j = 0; j < c->S; j++) {
                    p[j] = -INFINITY;
                    if (!at_sees(c, d, b, i, j)) continue;
                    p[j] = at_score(c, d, b, h, i, j, &th[j]);
                    top = fmax(top, p[j]);
                }
                if (top == -INFINITY) top = 0;
                const double sink = c->sinks ? exp(at_get(&d->sinks, h) - top) : 0;
                sum = sink;
                for (int64_t j = 0; j < c->S; j++) sum += p[j] = exp(p[j] - top);
                double *o = d->o + ((b * c->T + i) * c->H + h) * c->Dv, delta = 0;
                d->lse[(b * c->H + h) * c->T + i] = sum > 0 ? top + log(sum) : INFINITY;
                if (!(sum > 0)) continue;
                for (int64_t j = 0; j < c->S; j++) {
                    p[j] /= sum;
                    const double keep = p[j] > 0 ? at_keep(c, b, h, i, j) : 0;
                    for (int64_t e = 0; e < c->Dv && p[j] > 0; e++)
                        o[e] += keep * p[j] * at_get(&d->v, at_row(&d->v, b, j, h / r) + e);
                }
                if (!gradients) continue;
                const int64_t gi = at_row(&d->g, b, i, h);
                for (int64_t e = 0; e < c->Dv; e++) delta += at_get(&d->g, gi + e) * o[e];
                if (c->sinks) d->dsinks[h] -= sink / sum * delta;
                for (int64_t j = 0; j < c->S; j++) {
                    if (!at_sees(c, d, b, i, j)) continue;
                    double dp = 0;
                    const double keep = at_keep(c, b, h, i, j);
                    double *dv = d->dv + ((b * c->S + j) * c->Hk + h / r) * c->Dv;
                    double *dk = d->dk + ((b * c->S + j) * c->Hk + h / r) * c->Dh;
                    double *dq = d->dq + ((b * c->T + i) * c->H + h) * c->Dh;
                    for (int64_t e = 0; e < c->Dv; e++) {
                        dp += at_get(&d->g, gi + e) * at_get(&d->v, at_row(&d->v, b, j, h / r) + e);
                        dv[e] += keep * p[j] * at_get(&d->g, gi + e);
                    }
                    double ds = p[j] * (keep * dp - delta);
                    if (c->bias) d->dbias[h * (2 * c->P - 1) + j - i - c->attr.q_offset + c->P - 1] += ds;
                    if (c->attr.softcap > 0) ds *= 1 - th[j] * th[j];
                    ds *= c->attr.scale > 0 ? (double)c->attr.scale : 1.0 / sqrt((double)c->Dh);
                    for (int64_t e = 0; e < c->Dh; e++) {
                        dk[e] += ds * at_get(&d->q, at_row(&d->q, b, i, h) + e);
                        dq[e] += ds * at_get(&d->k, at_row(&d->k, b, j, h / r) + e);
                    }
                }
            }
    free(p), free(th);
}

static inline void at_free(at_data *d) {
    tl_arg *a[] = {&d->q, &d->k, &d->v, &d->doc, &d->sinks, &d->slopes, &d->bias, &d->g};
    for (size_t i = 0; i < sizeof a / sizeof *a; i++) free(a[i]->data);
    double *p[] = {d->o, d->lse, d->dq, d->dk, d->dv, d->dsinks, d->dbias};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++) free(p[i]);
    *d = (at_data){0};
}

typedef struct at_kernel {
    const char *name;
    kernel_prepare_fn prepare;
    kernel_run_fn run;
    attn_leaf_fn leaf;
    bool present;
} at_kernel;

/* All phases of a kernel as `workers` workers would run them, one after the other; scratch filled with NaN before, and
 * guarded behind. The descriptors of prepare have no data, as at planning. Returns the reason of a refusal. */
static inline const char *at_run(const at_kernel *k, const tl_op_call *call, int workers) {
    kernel_exec x = {.name = k->name, .run = k->run, .leaf = (void (*)(void))k->leaf};
    tl_op_call bare = *call;
    for (int i = 0; i < TL_OP_INS; i++) bare.in[i].data = NULL;
    for (int i = 0; i < TL_OP_OUTS; i++) bare.out[i].data = NULL;
    const char *why = k->prepare(&bare, workers, false, NULL, &x);
    if (why) return why;
    const size_t bytes = (x.scratch + 63) / 64 * 64 + 64;
    char *scratch = aligned_alloc(64, bytes);
    assert_non_null(scratch);
    memset(scratch, 0xff, bytes);
    kernel_task t = {.call = call, .exec = &x, .scratch = scratch, .workers = workers};
    for (int p = 0; p < x.phases; p++)
        for (int w = workers; w-- > 0;) k->run(&t, p, w * x.tiles[p] / workers, (w + 1) * x.tiles[p] / workers, w);
    for (size_t i = x.scratch; i < bytes; i++) assert_int_equal((unsigned char)scratch[i], 0xff);
    free(scratch);
    return NULL;
}

/* Largest difference to the oracle over the largest value of the oracle (or 0.25: gradients may cancel to nothing). */
static inline double at_error(const tl_arg *a, const double *want) {
    const int64_t n = tl_desc_count(&a->d), last = a->d.dim[a->d.ndim - 1];
    double worst = 0, top = 0.25;
    for (int64_t i = 0; i < n; i++) {
        const double x = at_get(a, tl_desc_row(&a->d, i / last) + i % last), y = want[i];
        if (isinf(y) && x == y) continue;
        if (!(fabs(x - y) <= worst)) worst = fabs(x - y);
        if (fabs(y) > top) top = fabs(y);
        if (isnan(x)) return INFINITY;
    }
    return worst / top;
}

static inline size_t at_bytes(const tl_arg *a) {
    int64_t n = 1;
    for (int i = 0; i < a->d.ndim; i++) n += (a->d.dim[i] - 1) * a->d.stride[i];
    return (size_t)n * tl_dtype_bytes(a->d.dtype);
}

#endif
