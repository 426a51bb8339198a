#include "tensor/tensor.h"

#include <inttypes.h>
#include <stdio.h>

bool tensor_is_float(tl_dtype t) {
    return t == TL_F32 || t == TL_F64 || t == TL_BF16 || t == TL_F16;
}

bool tensor_is_quantized(tl_dtype t) {
    return tl_dtype_block(t) > 1;
}

tl_dtype tensor_sum_dtype(tl_dtype t) {
    return t == TL_F64 ? TL_F64 : TL_F32;
}

int64_t tl_desc_rows(const tl_desc *d) {
    int64_t n = 1;
    for (int i = 0; i + 1 < d->ndim; i++) n *= d->dim[i];
    return n;
}

int64_t tl_desc_last(const tl_desc *d) {
    return d->ndim ? d->dim[d->ndim - 1] : 1;
}

int64_t tl_desc_count(const tl_desc *d) {
    return tl_desc_rows(d) * tl_desc_last(d);
}

int64_t tl_desc_row(const tl_desc *d, int64_t r) {
    int64_t off = 0;
    for (int i = d->ndim - 2; i > 0; i--) {
        off += r % d->dim[i] * d->stride[i];
        r /= d->dim[i];
    }
    return d->ndim > 1 ? off + r * d->stride[0] : off;
}

tl_desc tl_desc_make(tl_dtype dtype, int ndim, const int64_t *dim) {
    tl_desc d = {.dtype = dtype, .ndim = ndim};
    int64_t stride = 1;
    for (int i = ndim - 1; i >= 0 && i < TL_DIMS; i--) {
        d.dim[i] = dim[i];
        d.stride[i] = stride;
        /* Nonsense must not be undefined here; tensor_valid refuses it where it is used. */
        if (__builtin_mul_overflow(stride, dim[i], &stride)) stride = 0;
    }
    return d;
}

bool tl_desc_contiguous(const tl_desc *d) {
    int64_t stride = 1;
    for (int i = 0; i < d->ndim; i++)
        if (!d->dim[i]) return true;
    for (int i = d->ndim - 1; i >= 0; i--) {
        if (d->dim[i] == 1) continue; /* the stride of a dimension of one is never used */
        if (d->stride[i] != stride) return false;
        stride *= d->dim[i];
    }
    return true;
}

bool tl_desc_same_shape(const tl_desc *a, const tl_desc *b) {
    if (a->ndim != b->ndim) return false;
    for (int i = 0; i < a->ndim; i++)
        if (a->dim[i] != b->dim[i]) return false;
    return true;
}

bool tensor_valid(const tl_desc *d) {
    if (d->dtype <= TL_NONE || d->dtype >= TL_DTYPE_COUNT || d->ndim < 0 || d->ndim > TL_DIMS) return false;
    int64_t count = 1;
    bool empty = false;
    for (int i = 0; i < d->ndim; i++) {
        if (d->dim[i] < 0) return false;
        if (!d->dim[i])
            empty = true;
        else if (__builtin_mul_overflow(count, d->dim[i], &count))
            return false;
    }
    int64_t block = tl_dtype_block(d->dtype), size = (int64_t)tl_dtype_bytes(d->dtype), bytes;
    if (tl_desc_last(d) % block) return false;
    return empty || !__builtin_mul_overflow(count / block, size, &bytes);
}

bool tensor_bytes(const tl_desc *d, size_t *bytes) {
    if (!tensor_valid(d)) return false;
    for (int i = 0; i < d->ndim; i++)
        if (!d->dim[i]) {
            *bytes = 0;
            return true;
        }
    *bytes = (size_t)(tl_desc_count(d) / tl_dtype_block(d->dtype)) * tl_dtype_bytes(d->dtype);
    return true;
}

int64_t tensor_row_stride(const tl_desc *d) {
    int64_t unit = 0, next = 0; /* distance of neighbouring rows; what the next outer dimension's stride must be */
    for (int i = d->ndim - 2; i >= 0; i--) {
        if (d->dim[i] == 1) continue;
        if (!unit)
            unit = d->stride[i];
        else if (d->stride[i] != next)
            return -1;
        next = d->stride[i] * d->dim[i];
    }
    return unit ? unit : tl_desc_last(d);
}

const char *tensor_print(const tl_desc *d, char *buf, size_t size) {
    size_t at = 0;
    int n = snprintf(buf, size, "(");
    for (int i = 0; i < d->ndim && i < TL_DIMS; i++) {
        at = at + (size_t)n < size ? at + (size_t)n : size;
        n = snprintf(buf + at, size - at, i ? ",%" PRId64 : "%" PRId64, d->dim[i]);
    }
    at = at + (size_t)n < size ? at + (size_t)n : size;
    snprintf(buf + at, size - at, ") %s", tl_dtype_name(d->dtype));
    return buf;
}

tl_desc tensor_window(const tl_desc *d, int64_t width) {
    tl_desc w = *d;
    if (w.ndim) w.dim[w.ndim - 1] = width;
    return w;
}

bool tensor_reshape(const tl_desc *d, int ndim, const int64_t *dim, tl_desc *out) {
    tl_desc y = tl_desc_make(d->dtype, ndim, dim);
    if (ndim < 0 || ndim > TL_DIMS || !tensor_valid(&y) || tl_desc_count(&y) != tl_desc_count(d)) return false;
    if (!tl_desc_contiguous(d) && tl_desc_count(d)) {
        /* From the inside out: old dimensions are merged while they lie in one piece, and each such piece must be cut
         * up by new dimensions exactly. */
        int i = d->ndim - 1, k = ndim - 1;
        while (i >= 0) {
            int64_t piece = d->dim[i], stride = d->stride[i], next = stride * piece;
            for (i--; i >= 0 && (d->dim[i] == 1 || piece == 1 || d->stride[i] == next); i--) {
                if (d->dim[i] == 1) continue;
                if (piece == 1) stride = d->stride[i];
                piece *= d->dim[i];
                next = stride * piece;
            }
            while (k >= 0 && piece % dim[k] == 0 && (piece > 1 || dim[k] == 1)) {
                y.stride[k] = stride;
                stride *= dim[k];
                piece /= dim[k];
                k--;
            }
            if (piece != 1) return false;
        }
        if (k >= 0) return false;
        if (ndim && dim[ndim - 1] == 1) y.stride[ndim - 1] = 1;
        if (ndim && y.stride[ndim - 1] != 1) return false;
    }
    *out = y;
    return true;
}
