#include "cpu/row/launch.h"

int32_t row_type(tl_dtype t) {
    return t == TL_F32 ? ROW_F32 : t == TL_BF16 ? ROW_BF16 : t == TL_F16 ? ROW_F16 : -1;
}

row_view row_view_of(const tl_arg *a) {
    row_view v = {.data = a->d.dtype == TL_NONE ? NULL : a->data, .d = &a->d, .type = row_type(a->d.dtype)};
    v.size = (int64_t)tl_dtype_bytes(a->d.dtype);
    int64_t stride = tl_desc_rows(&a->d) <= 1 ? 0 : tensor_row_stride(&a->d);
    v.stride = stride < 0 ? -1 : stride * v.size;
    return v;
}

void *row_view_at(const row_view *v, int64_t r) {
    if (!v->data) return NULL;
    return v->data + (v->stride >= 0 ? r * v->stride : tl_desc_row(v->d, r) * v->size);
}

void row_gather(const float *partial, int64_t parts, int64_t n, int64_t lo, int64_t hi, float *out, bool add) {
    enum { WIDTH = 64 };
    for (int64_t at = lo; at < hi; at += WIDTH) {
        float sum[WIDTH] = {0};
        const int64_t width = row_least(WIDTH, hi - at);
        for (int64_t k = 0; k < parts; k++)
            for (int64_t i = 0; i < width; i++) sum[i] += partial[k * n + at + i];
        for (int64_t i = 0; i < width; i++) out[at + i] = add ? out[at + i] + sum[i] : sum[i];
    }
}
