#include "op/opshape.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

bool shape_has(const shape_rule *h, int i) {
    return h->s->in[i] && h->s->in[i]->dtype != TL_NONE;
}

tl_status shape_refuse(const shape_rule *h, int i, tl_status code, const char *fmt, ...) {
    char what[120], why[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    if (shape_has(h, i))
        tensor_print(h->s->in[i], what, sizeof what);
    else
        snprintf(what, sizeof what, "absent");
    return error_set(h->s->err, code, "%s: %s is %s; %s", h->op, h->arg[i], what, why);
}

tl_status shape_bad_attr(const shape_rule *h, const char *fmt, ...) {
    char why[300];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    return error_set(h->s->err, TL_ARG, "%s: %s", h->op, why);
}

tl_status shape_attr_kind(const shape_rule *h, int32_t kind, int32_t kinds) {
    if (kind < 0 || kind >= kinds) return shape_bad_attr(h, "kind %d is not one of 0 to %d", (int)kind, (int)kinds - 1);
    return TL_OK;
}

tl_status shape_attr_dtype(const shape_rule *h, tl_dtype dtype, int like) {
    if (!tensor_is_float(dtype) || (dtype == TL_F64) != (h->s->in[like]->dtype == TL_F64))
        return shape_bad_attr(h, "a result in %s from %s in %s", tl_dtype_name(dtype), h->arg[like],
                              tl_dtype_name(h->s->in[like]->dtype));
    return TL_OK;
}

tl_status shape_present(const shape_rule *h, int i) {
    if (!shape_has(h, i)) return shape_refuse(h, i, TL_ARG, "the operator needs it");
    const tl_desc *d = h->s->in[i];
    if (!tensor_valid(d)) return shape_refuse(h, i, TL_SHAPE, "no tensor can have this shape");
    if (d->ndim && tl_desc_last(d) > 1 && d->stride[d->ndim - 1] != 1)
        return shape_refuse(h, i, TL_SHAPE, "its last dimension must be contiguous");
    return TL_OK;
}

tl_status shape_float(const shape_rule *h, int i) {
    TRY(shape_present(h, i));
    if (!tensor_is_float(h->s->in[i]->dtype)) return shape_refuse(h, i, TL_DTYPE, "it must be f32, f64, bf16 or f16");
    return TL_OK;
}

tl_status shape_weight(const shape_rule *h, int i) {
    TRY(shape_present(h, i));
    const tl_desc *d = h->s->in[i];
    if (!tensor_is_quantized(d->dtype)) return shape_float(h, i);
    for (int k = 0; k + 1 < d->ndim; k++)
        if (d->stride[k] % tl_dtype_block(d->dtype))
            return shape_refuse(h, i, TL_SHAPE, "its rows must be whole blocks of %" PRId64, tl_dtype_block(d->dtype));
    return TL_OK;
}

tl_status shape_dtype(const shape_rule *h, int i, tl_dtype dtype) {
    TRY(shape_present(h, i));
    if (h->s->in[i]->dtype != dtype) return shape_refuse(h, i, TL_DTYPE, "it must be %s", tl_dtype_name(dtype));
    return TL_OK;
}

tl_status shape_sum(const shape_rule *h, int i, int like) {
    TRY(shape_present(h, i));
    tl_dtype want = tensor_sum_dtype(h->s->in[like]->dtype);
    if (h->s->in[i]->dtype != want)
        return shape_refuse(h, i, TL_DTYPE, "it must be %s, the sum type of %s", tl_dtype_name(want), h->arg[like]);
    return TL_OK;
}

tl_status shape_mix(const shape_rule *h, int i, int j) {
    if ((h->s->in[i]->dtype == TL_F64) != (h->s->in[j]->dtype == TL_F64))
        return shape_refuse(h, i, TL_DTYPE, "%s is %s, and f64 does not mix with narrower types", h->arg[j],
                            tl_dtype_name(h->s->in[j]->dtype));
    return TL_OK;
}

tl_status shape_same_dtype(const shape_rule *h, int i, int j) {
    if (h->s->in[i]->dtype != h->s->in[j]->dtype)
        return shape_refuse(h, i, TL_DTYPE, "it must be %s like %s", tl_dtype_name(h->s->in[j]->dtype), h->arg[j]);
    return TL_OK;
}

tl_status shape_ndim(const shape_rule *h, int i, int ndim) {
    if (h->s->in[i]->ndim != ndim)
        return shape_refuse(h, i, TL_SHAPE, "it must have %d dimension%s", ndim, ndim == 1 ? "" : "s");
    return TL_OK;
}

tl_status shape_min_ndim(const shape_rule *h, int i, int ndim) {
    if (h->s->in[i]->ndim < ndim)
        return shape_refuse(h, i, TL_SHAPE, "it must have %d dimension%s or more", ndim, ndim == 1 ? "" : "s");
    return TL_OK;
}

tl_status shape_dim(const shape_rule *h, int i, int k, int64_t n, const char *why) {
    const tl_desc *d = h->s->in[i];
    int at = k < 0 ? d->ndim + k : k;
    if (at < 0 || at >= d->ndim || d->dim[at] != n)
        return shape_refuse(h, i, TL_SHAPE, "dimension %d must be %" PRId64 " (%s)", at, n, why);
    return TL_OK;
}

tl_status shape_same(const shape_rule *h, int i, int j) {
    char want[120];
    if (!tl_desc_same_shape(h->s->in[i], h->s->in[j]))
        return shape_refuse(h, i, TL_SHAPE, "it must have the shape of %s, which is %s", h->arg[j],
                            tensor_print(h->s->in[j], want, sizeof want));
    return TL_OK;
}

tl_status shape_leading(const shape_rule *h, int i, int j) {
    const tl_desc *a = h->s->in[i], *b = h->s->in[j];
    bool same = a->ndim == b->ndim;
    for (int k = 0; same && k + 1 < a->ndim; k++) same = a->dim[k] == b->dim[k];
    char want[120];
    if (!same)
        return shape_refuse(h, i, TL_SHAPE, "all dimensions but the last must be those of %s, which is %s", h->arg[j],
                            tensor_print(b, want, sizeof want));
    return TL_OK;
}

tl_status shape_vector(const shape_rule *h, int i, int64_t n, int like, const char *why) {
    TRY(shape_sum(h, i, like));
    TRY(shape_ndim(h, i, 1));
    return shape_dim(h, i, 0, n, why);
}

tl_status shape_span(const shape_rule *h, int i, int64_t B, int64_t T) {
    TRY(shape_dtype(h, i, TL_I32));
    TRY(shape_ndim(h, i, 3));
    TRY(shape_dim(h, i, 0, B, "B of q"));
    TRY(shape_dim(h, i, 1, T, "tokens of q"));
    return shape_dim(h, i, 2, 2, "first key and end");
}

void shape_out(const shape_rule *h, int k, tl_dtype dtype, int ndim, const int64_t *dim) {
    h->s->out[k] = tl_desc_make(dtype, ndim, dim);
}

void shape_out_like(const shape_rule *h, int k, int i, tl_dtype dtype) {
    shape_out(h, k, dtype, h->s->in[i]->ndim, h->s->in[i]->dim);
}

void shape_out_last(const shape_rule *h, int k, int i, int64_t last, tl_dtype dtype) {
    tl_desc d = tensor_window(h->s->in[i], last);
    shape_out(h, k, dtype, d.ndim, d.dim);
}

void shape_out_vector(const shape_rule *h, int k, int64_t n, tl_dtype dtype) {
    shape_out(h, k, dtype, 1, &n);
}
