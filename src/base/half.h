/* bf16, f16 and the two f8 to f32 and back, round to nearest even, NaN stays NaN. Scalar; vector forms live in the kernels. */
#ifndef BASE_HALF_H
#define BASE_HALF_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline float half_bf16_to_f32(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

static inline uint16_t half_f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u); /* NaN: keep quiet */
    return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

float half_f16_to_f32(uint16_t h);
uint16_t half_f32_to_f16(float f);

/* f8 (Micikevicius et al. 2022). e4m3: 4 bits of exponent, bias 7, no infinity, NaN all ones, largest 448; e5m2: f16's upper
 * half, largest 57344. What is too large becomes what the type has for that (NaN; infinity), or, saturating, the largest
 * finite number; NaN stays NaN. */
float half_e4m3_to_f32(uint8_t b);
uint8_t half_f32_to_e4m3(float f, bool saturate);
float half_e5m2_to_f32(uint8_t b);
uint8_t half_f32_to_e5m2(float f, bool saturate);

#endif
