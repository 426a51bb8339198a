/* What references are written with. A reference is REF(name), a function over REAL: float in ref_f32.c, double in
 * ref_f64.c, a class that counts its operations in tests/op/t_op_cost.cpp. So it keeps to what C and C++ share: no
 * designated initialisers or compound literals, pointers from void cast, REAL made by (REAL)x, operands of one type,
 * and the functions real_* of this file; x / y, sqrt, exp ... count as special, + - * as flops, comparisons and signs
 * as nothing.
 *
 * Before including it: REAL, REF(name), MATH(function of libm). */
#ifndef REAL
#error "op/ref.h: define REAL, REF and MATH first"
#endif
#ifndef OP_REF_H
#define OP_REF_H

/* Statements whose operations do not count: what an oracle computes a second time rather than store. The counting
 * type stops its counters here. */
#ifndef UNCOUNTED
#define UNCOUNTED(...)                                                                                                 \
    do {                                                                                                               \
        __VA_ARGS__;                                                                                                   \
    } while (0)
#endif
/* double even where REAL is float (angles of positions); REAL where that counts */
#ifndef WIDE
#define WIDE         double
#define WIDE_MATH(f) f
#endif

#include "base/half.h"
#include "op/op.h"
#include "tensor/block.h"

#include <math.h>

#define OP(name, in, out, save, acc, flags) void REF(name)(const tl_op_call *c);
#include "op/ops.def"
#undef OP

static inline REAL real_sqrt(REAL x) {
    return MATH(sqrt)(x);
}
static inline REAL real_exp(REAL x) {
    return MATH(exp)(x);
}
static inline REAL real_log(REAL x) {
    return MATH(log)(x);
}
static inline REAL real_tanh(REAL x) {
    return MATH(tanh)(x);
}
static inline REAL real_erf(REAL x) {
    return MATH(erf)(x);
}
static inline REAL real_sin(REAL x) {
    return MATH(sin)(x);
}
static inline REAL real_cos(REAL x) {
    return MATH(cos)(x);
}
static inline REAL real_max(REAL a, REAL b) {
    return b > a ? b : a;
}
static inline REAL real_abs(REAL x) {
    return x < (REAL)0 ? -x : x;
}

/* double to f32 with the lost bits kept as a sticky last one, so that a second rounding, to 16 bits, is the only one
 * that shows */
static inline float ref_to_odd(double v) {
    float f = (float)v;
    double back = (double)f;
    if (back == v || v != v || back - back != 0) return f;
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if (!(u & 1u)) u = (back < v) == (v > 0) ? u + 1 : u - 1;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* Element at offset i of any float or quantized storage. */
static inline REAL ref_get(const tl_arg *a, int64_t i) {
    switch (a->d.dtype) {
    case TL_F32: return (REAL)((const float *)a->data)[i];
    case TL_F64: return (REAL)((const double *)a->data)[i];
    case TL_BF16: return (REAL)half_bf16_to_f32(((const uint16_t *)a->data)[i]);
    case TL_F16: return (REAL)half_f16_to_f32(((const uint16_t *)a->data)[i]);
    default: return (REAL)block_get(a->d.dtype, a->data, i);
    }
}

static inline int64_t ref_get_int(const tl_arg *a, int64_t i) {
    switch (a->d.dtype) {
    case TL_I32: return ((const int32_t *)a->data)[i];
    case TL_I64: return ((const int64_t *)a->data)[i];
    default: return 0;
    }
}

/* Is output k wanted? */
static inline bool ref_wants(const tl_op_call *c, int k) {
    return c->out[k].data != NULL && c->out[k].d.dtype != TL_NONE;
}

/* Writes v to offset i of a, whatever the call says about adding; rounds once. */
static inline void ref_store(const tl_arg *a, int64_t i, REAL v) {
    switch (a->d.dtype) {
    case TL_F32: ((float *)a->data)[i] = (float)v; break;
    case TL_F64: ((double *)a->data)[i] = (double)v; break;
    case TL_BF16: ((uint16_t *)a->data)[i] = half_f32_to_bf16(ref_to_odd((double)v)); break;
    case TL_F16: ((uint16_t *)a->data)[i] = half_f32_to_f16(ref_to_odd((double)v)); break;
    default: break;
    }
}

/* Writes v to offset i of output k, or adds it to what is there. An output nobody wants is not written. */
static inline void ref_put(const tl_op_call *c, int k, int64_t i, REAL v) {
    const tl_arg *o = &c->out[k];
    if (!ref_wants(c, k)) return;
    if (c->acc >> k & 1) v = ref_get(o, i) + v;
    ref_store(o, i, v);
}

/* Offset of element n, counted over all dimensions. */
static inline int64_t ref_at(const tl_desc *d, int64_t n) {
    int64_t width = tl_desc_last(d);
    return tl_desc_row(d, n / width) + n % width;
}

/* Moves n elements (whole blocks) as they are stored; to and from have one dtype and may be the same memory. */
static inline void ref_move(const tl_arg *to, int64_t to_at, const tl_arg *from, int64_t at, int64_t n) {
    size_t size = tl_dtype_bytes(from->d.dtype);
    int64_t block = tl_dtype_block(from->d.dtype);
    memmove((char *)to->data + (size_t)(to_at / block) * size, (const char *)from->data + (size_t)(at / block) * size,
            (size_t)(n / block) * size);
}

#define GET(arg, i)      ref_get((arg), (i))
#define GETI(arg, i)     ref_get_int((arg), (i))
#define PUT(c, k, i, v)  ref_put((c), (k), (i), (v))
#define WANTS(c, k)      ref_wants((c), (k))
#define STORE(arg, i, v) ref_store((arg), (i), (v))
#define AT(arg, n)       ref_at(&(arg)->d, (n))
/* Offset of row r (over all dimensions but the last). */
#define ROW(arg, r) tl_desc_row(&(arg)->d, (r))

#endif
