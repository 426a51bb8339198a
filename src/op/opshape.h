/* What shape rules are made of. Every helper checks one thing and, where it does not hold, sets an error that names
 * the operator, the argument, what it is and what it should be:
 *
 *     tl_status rmsnorm_shape(tl_op_infer *s) {
 *         SHAPE(h, s, "rmsnorm", "x", "w");
 *         TRY(shape_float(&h, 0));
 *         ...
 *
 * Numbers of arguments count as in ops.def. */
#ifndef OP_OPSHAPE_H
#define OP_OPSHAPE_H

#include "tensor/tensor.h"

typedef struct shape_rule {
    tl_op_infer *s;
    const char *op;
    const char *arg[TL_OP_INS];
} shape_rule;

#define SHAPE(h, infer, op_name, ...) const shape_rule h = {infer, op_name, {__VA_ARGS__}}

/* Is optional argument i there? */
bool shape_has(const shape_rule *h, int i);
/* "op: argument i is (2,3) f32; <text>": the general refusal. */
tl_status shape_refuse(const shape_rule *h, int i, tl_status code, const char *fmt, ...) TL_PRINTF(4, 5);
/* "op: <text>" where an attribute, not a tensor, is wrong. */
tl_status shape_bad_attr(const shape_rule *h, const char *fmt, ...) TL_PRINTF(2, 3);

/* kind must be in [0, kinds). */
tl_status shape_attr_kind(const shape_rule *h, int32_t kind, int32_t kinds);
/* A float dtype for a result beside argument like: f64 only with f64. */
tl_status shape_attr_dtype(const shape_rule *h, tl_dtype dtype, int like);

/* Present, sane, last dimension contiguous. */
tl_status shape_present(const shape_rule *h, int i);
/* Present and of a kind: F of ops.def; F or quantized blocks; one dtype; S for the data of argument like. */
tl_status shape_float(const shape_rule *h, int i);
tl_status shape_weight(const shape_rule *h, int i);
tl_status shape_dtype(const shape_rule *h, int i, tl_dtype dtype);
tl_status shape_sum(const shape_rule *h, int i, int like);
/* Floats of both kinds may mix (bf16 with f32), f64 only with f64: S is one dtype per call. */
tl_status shape_mix(const shape_rule *h, int i, int j);
tl_status shape_same_dtype(const shape_rule *h, int i, int j);

tl_status shape_ndim(const shape_rule *h, int i, int ndim);
/* ndim at least */
tl_status shape_min_ndim(const shape_rule *h, int i, int ndim);
/* Dimension k of argument i must be n; why names where n comes from ("D of x"). Negative k counts from the end. */
tl_status shape_dim(const shape_rule *h, int i, int k, int64_t n, const char *why);
/* All dimensions alike; all but the last alike. */
tl_status shape_same(const shape_rule *h, int i, int j);
tl_status shape_leading(const shape_rule *h, int i, int j);
/* A vector (n) of S for the data of argument like: present and right. */
tl_status shape_vector(const shape_rule *h, int i, int64_t n, int like, const char *why);

/* Intervals (B,T,2) i32: present and right. */
tl_status shape_span(const shape_rule *h, int i, int64_t B, int64_t T);

/* Fill output k, contiguous. */
void shape_out(const shape_rule *h, int k, tl_dtype dtype, int ndim, const int64_t *dim);
void shape_out_like(const shape_rule *h, int k, int i, tl_dtype dtype); /* shape of input i */
void shape_out_last(const shape_rule *h, int k, int i, int64_t last,
                    tl_dtype dtype);                                          /* its leading dims, another last */
void shape_out_vector(const shape_rule *h, int k, int64_t n, tl_dtype dtype); /* (n) */

#endif
