#include "tensor/block.h"

#include "base/half.h"

static float block_f16(const uint8_t *p) {
    return half_f16_to_f32((uint16_t)(p[0] | p[1] << 8));
}

/* f16 d, int8 q[32]: x = d q */
static float block_q8_0(const uint8_t *b, int i) {
    return block_f16(b) * (float)(int8_t)b[2 + i];
}

/* f16 d, 16 bytes: element i in the low half of byte i, element i + 16 in the high half; x = d (q - 8) */
static float block_q4_0(const uint8_t *b, int i) {
    uint8_t byte = b[2 + i % 16];
    return block_f16(b) * (float)((i < 16 ? byte & 15 : byte >> 4) - 8);
}

/* f16 d, f16 dmin, 12 bytes of scales, 128 bytes of halves: 8 groups of 32, x = d scale q - dmin min.
 * Scales and minima have 6 bits: groups 0..3 in the low 6 bits of bytes 0..3 and 4..7, groups 4..7 with their low 4
 * bits in bytes 8..11 and their high 2 bits on top of bytes 0..3 and 4..7. */
static float block_q4_k(const uint8_t *b, int i) {
    int group = i / 32, k = i % 32;
    const uint8_t *s = b + 4;
    int scale, min;
    if (group < 4) {
        scale = s[group] & 63;
        min = s[group + 4] & 63;
    } else {
        scale = (s[group + 4] & 15) | (s[group - 4] >> 6) << 4;
        min = s[group + 4] >> 4 | (s[group] >> 6) << 4;
    }
    uint8_t byte = b[16 + group / 2 * 32 + k];
    int q = group % 2 ? byte >> 4 : byte & 15;
    return block_f16(b) * (float)scale * (float)q - block_f16(b + 2) * (float)min;
}

/* 128 bytes of low halves, 64 bytes of high pairs, int8 scale[16], f16 d: x = d scale (q - 32).
 * Each half block of 128 holds four runs of 32: low halves in bytes 0..31 (runs 0, 2) and 32..63 (runs 1, 3), the high
 * pair of run r at bits 2 r of byte k. A scale serves 16 elements. */
static float block_q6_k(const uint8_t *b, int i) {
    int half = i / 128, run = i % 128 / 32, k = i % 32;
    uint8_t low = b[half * 64 + run % 2 * 32 + k], high = b[128 + half * 32 + k];
    int q = (run < 2 ? low & 15 : low >> 4) | (high >> (2 * run) & 3) << 4;
    return block_f16(b + 208) * (float)(int8_t)b[192 + i / 16] * (float)(q - 32);
}

float block_get(tl_dtype t, const void *data, int64_t i) {
    int64_t n = tl_dtype_block(t);
    const uint8_t *b = (const uint8_t *)data + (size_t)(i / n) * tl_dtype_bytes(t);
    int at = (int)(i % n);
    switch (t) {
    case TL_Q8_0: return block_q8_0(b, at);
    case TL_Q4_0: return block_q4_0(b, at);
    case TL_Q4_K: return block_q4_k(b, at);
    case TL_Q6_K: return block_q6_k(b, at);
    default: return 0;
    }
}
