/* What gau_attention, mixed_chunk and their decoding forms share: the weight f(T) of a score and its slope, checks and
 * counts of attributes, and the score of one pair. Two sections like an operator's. */
#ifndef REAL
#ifndef OP_GATE_KINDS_H
#define OP_GATE_KINDS_H

#include "op/rules.h"

typedef struct gate_count {
    double flops, special;
} gate_count;

/* Does a row's weight depend on its other scores? */
static inline bool gate_normalised(int32_t kind) {
    return kind >= GATE_SOFTMAX;
}

static inline gate_count gate_value_count(int32_t kind) {
    static const gate_count count[GATE_KINDS] = {
        [GATE_RELU2] = {1, 0},   [GATE_LAPLACE] = {4, 1}, [GATE_SOFTPLUS2] = {3, 2},
        [GATE_SMOOTH2] = {7, 0}, [GATE_SMOOTH1] = {7, 0},
    };
    return count[kind];
}

static inline gate_count gate_slope_count(int32_t kind) {
    static const gate_count count[GATE_KINDS] = {
        [GATE_RELU2] = {1, 0},   [GATE_LAPLACE] = {4, 1}, [GATE_SOFTPLUS2] = {4, 3},
        [GATE_SMOOTH2] = {6, 0}, [GATE_SMOOTH1] = {7, 0},
    };
    return count[kind];
}

/* Attributes; kinds: how many of GATE_RELU2 .. are allowed. */
static inline tl_status gate_check(const shape_rule *h, const struct gate_attr *a, int32_t kinds) {
    TRY(shape_attr_kind(h, a->kind, kinds));
    if (!(a->alpha - a->alpha == 0) || !(a->bias_scale - a->bias_scale == 0) || !(a->eps >= 0))
        return shape_bad_attr(h, "alpha %g, bias_scale %g, eps %g", (double)a->alpha, (double)a->bias_scale,
                              (double)a->eps);
    if (a->count < 0 || a->count >= GATE_COUNTS) return shape_bad_attr(h, "there is no count %d", (int)a->count);
    if (a->count == GATE_COUNT_FIXED && !(a->fixed > 0))
        return shape_bad_attr(h, "count fixed needs a number, not %g", (double)a->fixed);
    if (a->count == GATE_COUNT_LENGTH && a->causal)
        return shape_bad_attr(h,
                              "a causal row may not be divided by the sequence's length: that is the future, it leaks "
                              "into every row and no decoding form exists; count what is visible, or a fixed number");
    if (a->count && gate_normalised(a->kind)) return shape_bad_attr(h, "a normalised kind divides by its own sum");
    if (a->kappa && a->kind != GATE_SOFTMAX)
        return shape_bad_attr(h, "the log-length factor is for softmax; a homogeneous weight loses it again");
    return TL_OK;
}

/* bias (2P-1) with P at least `reach`. */
static inline tl_status gate_check_bias(const shape_rule *h, int i, int like, int64_t reach) {
    if (!shape_has(h, i)) return TL_OK;
    TRY(shape_sum(h, i, like));
    TRY(shape_ndim(h, i, 1));
    int64_t n = h->s->in[i]->dim[0];
    if (n % 2 == 0 || (n + 1) / 2 < reach)
        return shape_refuse(h, i, TL_SHAPE, "it must have 2P-1 numbers with P >= %lld", (long long)reach);
    return TL_OK;
}
static inline tl_status gate_check_one(const shape_rule *h, int i, int like, bool fits, const char *why) {
    if (!shape_has(h, i)) return TL_OK;
    if (!fits) return shape_refuse(h, i, TL_ARG, "%s", why);
    return shape_vector(h, i, 1, like, "one number");
}
/* doc (B,T) i32 for tokens of argument like */
static inline tl_status gate_check_doc(const shape_rule *h, int i, int like) {
    if (!shape_has(h, i)) return TL_OK;
    TRY(shape_dtype(h, i, TL_I32));
    TRY(shape_ndim(h, i, 2));
    TRY(shape_dim(h, i, 0, h->s->in[like]->dim[0], "B"));
    return shape_dim(h, i, 1, h->s->in[like]->dim[1], "tokens");
}
/* Argument i: (dims of like but the last, last) of like's dtype. */
static inline tl_status gate_check_rows(const shape_rule *h, int i, int like, int64_t last) {
    TRY(shape_float(h, i));
    TRY(shape_same_dtype(h, i, like));
    TRY(shape_leading(h, i, like));
    return last < 0 ? TL_OK : shape_dim(h, i, h->s->in[i]->ndim - 1, last, "width");
}

/* Heads of an argument (B,T,w) or (B,T,H,w), or refuses. */
static inline tl_status gate_check_heads(const shape_rule *h, int i) {
    const tl_desc *d = h->s->in[i];
    if (d->ndim != 4) TRY(shape_ndim(h, i, 3));
    return TL_OK;
}
static inline int64_t gate_heads(const tl_desc *d) {
    return d->ndim == 4 ? d->dim[2] : 1;
}

/* One score: the product over s, its factor, the bias. */
static inline double gate_score_flops(int64_t s, bool bias) {
    return 2 * (double)s + 1 + (bias ? 2 : 0);
}

#endif
#else
#ifndef OP_GATE_KINDS_REF_H
#define OP_GATE_KINDS_REF_H

#include "op/op.h"

static inline REAL gate_clamp(REAL x, REAL lo, REAL hi) {
    return x < lo ? lo : x > hi ? hi : x;
}

/* Written without branches between operations, so that every element costs the same. */
static inline REAL gate_value(const struct gate_attr *a, REAL t) {
    const double e = a->eps > 0 ? (double)a->eps : 0.5;
    const REAL eps = (REAL)e, zero = (REAL)0;
    switch (a->kind) {
    case GATE_RELU2:
    case GATE_RELU2_SUM: {
        REAL r = t <= zero ? zero : t;
        return r * r;
    }
    case GATE_LAPLACE: /* 0.5 (1 + erf((t - mu) / (sigma sqrt 2))), mu = sqrt(1/2), sigma = sqrt(1 / (4 pi)) (Ma 2022)
                        */
        return (REAL)0.5 * ((REAL)1 + real_erf((t - (REAL)0.70710678118654752) * (REAL)2.5066282746310002));
    case GATE_SOFTPLUS2: {
        REAL y = (t <= zero ? zero : t) + real_log((REAL)1 + real_exp(-real_abs(t)));
        return y * y;
    }
    case GATE_SMOOTH2: { /* relu^2 averaged over +-eps: twice differentiable */
        REAL y = gate_clamp(t + eps, zero, (REAL)(2 * e)), r = t > eps ? t : eps;
        return y * y * y * (REAL)(1 / (6 * e)) + r * r - (REAL)(e * e);
    }
    case GATE_SMOOTH1: { /* relu^2 beyond eps, a quartic within */
        REAL y = gate_clamp(t + eps, zero, (REAL)(2 * e)), r = t > eps ? t : eps, z = y * y;
        return z * z * (REAL)(1 / (16 * e * e)) + r * r - (REAL)(e * e);
    }
    default: return t;
    }
}

static inline REAL gate_slope(const struct gate_attr *a, REAL t) {
    const double e = a->eps > 0 ? (double)a->eps : 0.5;
    const REAL eps = (REAL)e, zero = (REAL)0, one = (REAL)1;
    switch (a->kind) {
    case GATE_RELU2:
    case GATE_RELU2_SUM: return (REAL)2 * (t <= zero ? zero : t);
    case GATE_LAPLACE: { /* the normal density: exp(-((t - mu)/sigma)^2 / 2) / (sigma sqrt(2 pi)) */
        REAL z = (t - (REAL)0.70710678118654752) * (REAL)2.5066282746310002;
        return (REAL)1.4142135623730951 * real_exp(-(z * z));
    }
    case GATE_SOFTPLUS2: { /* 2 softplus(t) sigmoid(t) */
        REAL x = real_exp(-real_abs(t)), den = one + x;
        REAL y = (t <= zero ? zero : t) + real_log(den), part = (t < zero ? x : one) / den;
        return (REAL)2 * y * part;
    }
    case GATE_SMOOTH2: {
        REAL y = gate_clamp(t + eps, zero, (REAL)(2 * e)), r = t > eps ? t : eps;
        return y * y * (REAL)(1 / (2 * e)) + (REAL)2 * (r - eps);
    }
    case GATE_SMOOTH1: {
        REAL y = gate_clamp(t + eps, zero, (REAL)(2 * e)), r = t > eps ? t : eps;
        return y * y * y * (REAL)(1 / (4 * e * e)) + (REAL)2 * (r - eps);
    }
    default: return one;
    }
}

/* The pairs of one sequence. */
typedef struct gate_view {
    const struct gate_attr *a;
    const tl_arg *q, *k, *v, *doc, *bias;
    int64_t B, T, S, H, s, e, centre; /* B: sequences times heads; S: keys */
    double alpha;
    REAL bias_scale, cool; /* cool: exp(-theta) */
    bool theta;
} gate_view;

static inline gate_view gate_open(const struct gate_attr *a, const tl_arg *q, const tl_arg *k, const tl_arg *v,
                                  const tl_arg *doc, const tl_arg *bias, const tl_arg *theta) {
    gate_view w;
    w.a = a, w.q = q, w.k = k, w.v = v, w.doc = doc, w.bias = bias;
    w.H = q->d.ndim == 4 ? q->d.dim[2] : 1;
    w.B = q->d.dim[0] * w.H;
    w.S = k->d.dim[1];
    w.T = q->d.dim[1], w.s = tl_desc_last(&q->d), w.e = tl_desc_last(&v->d);
    w.centre = bias && bias->data ? (bias->d.dim[0] - 1) / 2 : 0;
    w.alpha = a->alpha != 0 ? (double)a->alpha : 1.0 / sqrt((double)w.s);
    w.bias_scale = a->bias_scale != 0 ? (REAL)a->bias_scale : (REAL)1;
    w.theta = theta && theta->data;
    w.cool = w.theta ? real_exp(-GET(theta, 0)) : (REAL)1;
    return w;
}

/* Row of token i in head b % H of sequence b / H. */
static inline int64_t gate_at(const gate_view *w, int64_t b, int64_t i) {
    return (b / w->H * w->T + i) * w->H + b % w->H;
}

/* The same of a key. */
static inline int64_t gate_key_at(const gate_view *w, int64_t b, int64_t j) {
    return (b / w->H * w->S + j) * w->H + b % w->H;
}

/* The run of documents that token i of sequence b lies in: [*first, *end); empty for padding. */
static inline void gate_run(const tl_arg *doc, int64_t T, int64_t b, int64_t i, int64_t *first, int64_t *end) {
    *first = 0, *end = T;
    if (!doc->data) return;
    int64_t at = ROW(doc, b), mine = GETI(doc, at + i);
    *first = *end = i;
    if (mine < 0) return;
    while (*first > 0 && GETI(doc, at + *first - 1) == mine) --*first;
    while (*end < T && GETI(doc, at + *end) == mine) ++*end;
}

/* alpha kappa_i for a row that sees n keys */
static inline REAL gate_factor(const gate_view *w, int64_t n) {
    double kappa = w->a->kappa ? log((double)(n > 16 ? n : 16)) / log(512.0) : 1.0;
    return (REAL)(w->alpha * kappa);
}
/* 1 / (N_i exp(theta)) of sum kinds */
static inline REAL gate_norm(const gate_view *w, int64_t n) {
    double count = 1;
    if (w->a->count == GATE_COUNT_VISIBLE) count = (double)n;
    if (w->a->count == GATE_COUNT_FIXED) count = (double)w->a->fixed;
    if (w->a->count == GATE_COUNT_LENGTH) count = (double)w->S;
    REAL norm = (REAL)(1.0 / count);
    return w->theta ? norm * w->cool : norm;
}

static inline REAL gate_dot(const tl_arg *x, int64_t i, const tl_arg *y, int64_t j, int64_t width) {
    REAL sum = (REAL)0;
    for (int64_t d = 0; d < width; d++) sum = sum + GET(x, i + d) * GET(y, j + d);
    return sum;
}

/* T of rows at offsets qi and kj, key `ahead` of the query */
static inline REAL gate_score(const gate_view *w, int64_t qi, int64_t kj, int64_t ahead, REAL factor) {
    REAL t = gate_dot(w->q, qi, w->k, kj, w->s) * factor;
    if (w->bias && w->bias->data) t = t + w->bias_scale * GET(w->bias, w->centre + ahead);
    return t;
}

#endif
#endif
