/* Endless texts in a cache of fixed size: the oldest positions behind the first few are forgotten, the others move down
 * (StreamingLLM, Xiao et al. 2023: the first tokens draw attention whatever they say, so they stay). */
#include "infer/decoder.h"

#include "base/half.h"
#include "tensor/quantize.h"
#include "tensor/tensor.h"

#include <math.h>
#include <string.h>

tl_status decoder_can_shift(const model_config *c, tl_error *err) {
    if (config_has_gated(c))
        return error_set(err, TL_UNSUPPORTED,
                         "a window of the cache is for attention; gated models keep a state of fixed size");
    if (c->encoder) return error_set(err, TL_UNSUPPORTED, "a window of the cache is for models without an encoder");
    if (config_prefix(c))
        return error_set(err, TL_UNSUPPORTED,
                         "a prompt that sees both ways is whole or not there: no window of the cache");
    if (c->positions != POS_ROPE && c->positions != POS_ALIBI && c->positions != POS_NONE)
        return error_set(err, TL_UNSUPPORTED,
                         "learned and sinusoidal positions are part of what is cached: such a cache cannot be shifted");
    return TL_OK;
}

enum { TURN_MOST = 1024 }; /* numbers of a head's row */

static float load(const void *row, tl_dtype t, int64_t i) {
    if (t == TL_F32) return ((const float *)row)[i];
    uint16_t h = ((const uint16_t *)row)[i];
    return t == TL_BF16 ? half_bf16_to_f32(h) : half_f16_to_f32(h);
}

static void store(void *row, tl_dtype t, int64_t i, float x) {
    if (t == TL_F32)
        ((float *)row)[i] = x;
    else
        ((uint16_t *)row)[i] = t == TL_BF16 ? half_f32_to_bf16(x) : half_f32_to_f16(x);
}

/* A key at position p becomes the same key at p - drop: its pairs turn back. */
static void turn(void *row, tl_dtype t, int64_t width, const float *cs, int64_t pairs, bool neighbours) {
    float plain[TURN_MOST];
    if (tensor_is_quantized(t)) { /* blocks are rounded anew: a few times in a key's life */
        quantize_decode(t, row, width, plain);
        turn(plain, TL_F32, width, cs, pairs, neighbours);
        quantize_encode(t, plain, width, row);
        return;
    }
    for (int64_t k = 0; k < pairs; k++) {
        int64_t a = neighbours ? 2 * k : k, b = neighbours ? 2 * k + 1 : k + pairs;
        float x = load(row, t, a), y = load(row, t, b);
        store(row, t, a, x * cs[2 * k] + y * cs[2 * k + 1]);
        store(row, t, b, y * cs[2 * k] - x * cs[2 * k + 1]);
    }
}

typedef struct shift {
    int64_t slot, keep, drop, length, pairs;
    const float *cs; /* (pairs, 2): cosine and sine of the angle that drop positions make */
    bool neighbours;
    device *dev;
    const tl_allocator *alloc;
} shift;

/* A slot's rows in the host's memory. */
static void shift_rows(const shift *s, char *slot, const tl_desc *d, size_t row, bool keys) {
    size_t head = row / (size_t)d->dim[2];
    memmove(slot + (size_t)s->keep * row, slot + (size_t)(s->keep + s->drop) * row,
            (size_t)(s->length - s->keep - s->drop) * row);
    for (int64_t p = s->keep; keys && s->pairs && p < s->length - s->drop; p++)
        for (int64_t h = 0; h < d->dim[2]; h++)
            turn(slot + (size_t)p * row + (size_t)h * head, d->dtype, d->dim[3], s->cs, s->pairs, s->neighbours);
}

/* One layer's keys or values (slots, capacity, heads, width). From a device with memory of its own they come here and
 * go back: it happens once in a quarter of a window. */
static tl_status shift_one(const shift *s, char *at, const tl_desc *d, bool keys, tl_error *err) {
    size_t row = (size_t)(d->dim[2] * d->dim[3] / tl_dtype_block(d->dtype)) * tl_dtype_bytes(d->dtype);
    char *slot = at + (size_t)(s->slot * d->dim[1]) * row;
    if (!s->dev->memory) {
        shift_rows(s, slot, d, row, keys);
        return TL_OK;
    }
    size_t bytes = (size_t)s->length * row;
    char *copy = mem_take(s->alloc, bytes);
    if (!copy) return error_set(err, TL_NOMEM, "no memory to shift a cache");
    tl_status st = device_fetch(s->dev, copy, slot, bytes, err);
    if (st == TL_OK) {
        shift_rows(s, copy, d, row, keys);
        device_upload(s->dev, slot, copy, bytes);
    }
    mem_give(s->alloc, copy, bytes);
    return st;
}

tl_status decoder_shift(decoder *d, int64_t slot, int64_t keep, int64_t drop, int64_t length, tl_error *err) {
    const model_config *c = &d->model->config;
    const tl_allocator *a = d->model->alloc;
    TRY(decoder_can_shift(c, err));
    if (c->head_dim > TURN_MOST) return error_set(err, TL_LIMIT, "heads of %lld numbers", (long long)c->head_dim);
    if (slot < 0 || slot >= d->slots || keep < 0 || drop < 1 || length > d->capacity || keep + drop > length)
        return error_set(err, TL_ARG, "%lld of %lld positions behind the first %lld cannot be forgotten",
                         (long long)drop, (long long)length, (long long)keep);
    int64_t pairs = c->positions == POS_ROPE ? build_rope_dims(c) / 2 : 0;
    float *cs = mem_new(a, 2 * (size_t)pairs + 1, sizeof *cs);
    if (!cs) return error_set(err, TL_NOMEM, "no memory to shift a cache");
    for (int64_t k = 0; k < pairs; k++) {
        cs[2 * k] = (float)cos((double)drop * d->freq[k]);
        cs[2 * k + 1] = (float)sin((double)drop * d->freq[k]);
    }
    shift s = {slot, keep, drop, length, pairs, cs, c->rope_interleaved, d->dev, a};
    build_options o = decoder_options(d);
    char *at = d->cache;
    tl_status st = TL_OK;
    for (int64_t i = 0; i < c->layers * BUILD_STATES && st == TL_OK; i++) {
        tl_desc desc;
        if (!build_state(c, &o, i / BUILD_STATES, (int)(i % BUILD_STATES), &desc)) continue;
        st = shift_one(&s, at, &desc, i % BUILD_STATES == 0, err);
        at += decoder_state_bytes(&desc);
    }
    mem_free(a, cs);
    return st;
}
