/* kv_write: keys or values of new tokens into their places of a cache, which lies in the caller's memory. */
#ifndef REAL

#include "op/rules.h"

tl_status kv_write_shape(tl_op_infer *s) {
    SHAPE(h, s, "kv_write", "x", "slot", "pos");
    TRY(shape_float(&h, 0));
    TRY(shape_ndim(&h, 0, 3));
    for (int i = 1; i <= 2; i++) {
        TRY(shape_dtype(&h, i, TL_I32));
        TRY(shape_ndim(&h, i, 1));
        TRY(shape_dim(&h, i, 0, s->in[0]->dim[0], "rows of x"));
    }
    const tl_desc *x = s->in[0], *cache = &s->out[0];
    char is[120];
    if (cache->dtype == TL_NONE) return shape_bad_attr(&h, "the cache must be bound through acc");
    if ((!tensor_is_float(cache->dtype) && (cache->dtype != TL_Q8_0 || x->dim[2] % tl_dtype_block(TL_Q8_0))) ||
        cache->ndim != 4 || cache->dim[0] < 1 || cache->dim[1] < 1 ||
        cache->dim[2] != x->dim[1] || cache->dim[3] != x->dim[2] || (cache->dtype == TL_F64) != (x->dtype == TL_F64))
        return shape_refuse(&h, 0, TL_SHAPE, "the cache is %s; it must be (slots,capacity,heads,width) for x's heads",
                            tensor_print(cache, is, sizeof is));
    return TL_OK;
}

NO_GRAD(kv_write, "a cache is for decoding; train with attention")

/* As many elements as x has are written; acc means "in place" here. */
void kv_write_cost(const tl_op_call *c, tl_cost *cost) {
    tl_desc written = c->in[0].d;
    *cost = (tl_cost){0};
    for (int i = 0; i < 3; i++) cost->bytes_read += cost_bytes(&c->in[i].d);
    written.dtype = c->out[0].d.dtype;
    cost->bytes_written = cost_bytes(&written);
}

#else

#include "tensor/quantize.h"

/* A row of numbers into whole blocks. */
static void kv_write_blocks(const tl_arg *x, int64_t from, const tl_arg *cache, int64_t to, int64_t width) {
    float block[32];
    for (int64_t d = 0; d < width; d += 32) {
        for (int64_t i = 0; i < 32; i++) block[i] = (float)(double)GET(x, from + d + i);
        quantize_encode(TL_Q8_0, block, 32, (char *)cache->data + (size_t)((to + d) / 32) * tl_dtype_bytes(TL_Q8_0));
    }
}

void REF(kv_write)(const tl_op_call *c) {
    const tl_arg *x = &c->in[0], *slot = &c->in[1], *pos = &c->in[2], *cache = &c->out[0];
    int64_t slots = cache->d.dim[0], capacity = cache->d.dim[1], heads = x->d.dim[1], width = x->d.dim[2];
    for (int64_t r = 0; r < x->d.dim[0]; r++) {
        int64_t q = GETI(slot, r), p = GETI(pos, r);
        if (q < 0 || q >= slots || p < 0) continue;
        for (int64_t h = 0; h < heads; h++) {
            int64_t from = ROW(x, r * heads + h), to = ROW(cache, (q * capacity + p % capacity) * heads + h);
            if (cache->d.dtype == TL_Q8_0) {
                kv_write_blocks(x, from, cache, to, width);
                continue;
            }
            for (int64_t d = 0; d < width; d++) STORE(cache, to + d, GET(x, from + d));
        }
    }
}

#endif
