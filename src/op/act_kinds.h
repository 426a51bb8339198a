/* The activation functions of act and glu: value and slope, and what each costs. Two sections like an operator's. */
#ifndef REAL
#ifndef OP_ACT_KINDS_H
#define OP_ACT_KINDS_H

#include "op/attrs.h"

typedef struct act_count {
    double flops, special;
} act_count;

static inline act_count act_value_count(int32_t kind) {
    static const act_count count[ACT_KINDS] = {
        [ACT_GELU] = {4, 1},  [ACT_GELU_TANH] = {8, 1}, [ACT_SILU] = {1, 2},
        [ACT_RELU2] = {1, 0}, [ACT_SIGMOID] = {1, 2},   [ACT_TANH] = {0, 1},
    };
    return count[kind];
}

static inline act_count act_slope_count(int32_t kind) {
    static const act_count count[ACT_KINDS] = {
        [ACT_GELU] = {8, 2},  [ACT_GELU_TANH] = {17, 1}, [ACT_SILU] = {5, 2},
        [ACT_RELU2] = {1, 0}, [ACT_SIGMOID] = {3, 2},    [ACT_TANH] = {2, 1},
    };
    return count[kind];
}

#endif
#else
#ifndef OP_ACT_KINDS_REF_H
#define OP_ACT_KINDS_REF_H

#include "op/attrs.h"

static inline REAL REF(act_sigmoid)(REAL x) {
    return (REAL)1 / ((REAL)1 + real_exp(-x));
}

/* tanh of the argument of the tanh form of gelu: sqrt(2/pi) (x + 0.044715 x^3) (Hendrycks, Gimpel 2016) */
static inline REAL REF(act_gelu_tanh)(REAL x) {
    return real_tanh((REAL)0.7978845608028654 * (x + (REAL)0.044715 * (x * x * x)));
}

/* Comparisons are written so that NaN stays NaN. */
static inline REAL REF(act_value)(int32_t kind, REAL x) {
    const REAL zero = (REAL)0, half = (REAL)0.5, one = (REAL)1;
    switch (kind) {
    case ACT_RELU: return x <= zero ? zero : x;
    case ACT_GELU: return half * x * (one + real_erf(x * (REAL)0.7071067811865476));
    case ACT_GELU_TANH: return half * x * (one + REF(act_gelu_tanh)(x));
    case ACT_SILU: return x / (one + real_exp(-x));
    case ACT_RELU2: {
        REAL y = x * x;
        return x <= zero ? zero : y;
    }
    case ACT_SIGMOID: return REF(act_sigmoid)(x);
    case ACT_TANH: return real_tanh(x);
    default: return x;
    }
}

static inline REAL REF(act_slope)(int32_t kind, REAL x) {
    const REAL zero = (REAL)0, half = (REAL)0.5, one = (REAL)1;
    switch (kind) {
    case ACT_RELU: return x <= zero ? zero : one;
    case ACT_GELU: {
        REAL phi = (REAL)0.3989422804014327 * real_exp(-(half * x * x));
        return half * (one + real_erf(x * (REAL)0.7071067811865476)) + x * phi;
    }
    case ACT_GELU_TANH: {
        REAL t = REF(act_gelu_tanh)(x);
        REAL inner = (REAL)0.7978845608028654 * (one + (REAL)0.134145 * (x * x));
        return half * (one + t) + half * x * (one - t * t) * inner;
    }
    case ACT_SILU: {
        REAL s = REF(act_sigmoid)(x);
        return s * (one + x * (one - s));
    }
    case ACT_RELU2: {
        REAL y = (REAL)2 * x;
        return x <= zero ? zero : y;
    }
    case ACT_SIGMOID: {
        REAL s = REF(act_sigmoid)(x);
        return s * (one - s);
    }
    case ACT_TANH: {
        REAL t = real_tanh(x);
        return one - t * t;
    }
    default: return one;
    }
}

#endif
#endif
