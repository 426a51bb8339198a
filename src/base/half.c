#include "base/half.h"

float half_f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16, exponent = (h >> 10) & 31u, fraction = h & 0x3ffu, u;
    if (exponent == 31) {
        u = sign | 0x7f800000u | (fraction << 13);
    } else if (exponent) {
        u = sign | ((exponent + 112) << 23) | (fraction << 13);
    } else if (fraction) {
        /* Subnormal: fraction * 2^-24, and 2^-24 times an integer below 1024 is exact in f32. */
        float f = (float)fraction * 0x1p-24f;
        memcpy(&u, &f, sizeof u);
        u |= sign;
    } else {
        u = sign;
    }
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

uint16_t half_f32_to_f16(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    uint16_t sign = (uint16_t)((u >> 16) & 0x8000u);
    u &= 0x7fffffffu;
    if (u > 0x7f800000u) return (uint16_t)(sign | 0x7e00u | ((u >> 13) & 0x3ffu)); /* NaN, made quiet */
    if (u >= 0x477ff000u) return (uint16_t)(sign | 0x7c00u); /* 65520 and above round to infinity */
    if (u < 0x38800000u) {
        /* Below 2^-14 the result is subnormal: a sum with 0.5 leaves the bits of value * 2^24, rounded to nearest
         * even by the hardware, at the bottom of the fraction. */
        float magnitude, sum;
        memcpy(&magnitude, &u, sizeof magnitude);
        sum = magnitude + 0.5f;
        memcpy(&u, &sum, sizeof u);
        return (uint16_t)(sign | (u - 0x3f000000u));
    }
    u += 0xfffu + ((u >> 13) & 1u); /* round to nearest even; a carry runs into the exponent, as it should */
    return (uint16_t)(sign | ((u - 0x38000000u) >> 13));
}
