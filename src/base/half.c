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

/* The bits of |f| with an exponent of that bias and `fraction` bits behind it, to nearest even, as if the exponent had
 * no end. */
static uint32_t f8_round(float f, int fraction, int bias) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    u &= 0x7fffffffu;
    int drop = 23 - fraction;
    uint32_t least = (uint32_t)(128 - bias) << 23; /* the smallest normal number */
    if (u < least) {
        /* Subnormal: a sum with a power of two whose last bit is worth a subnormal's. */
        float magnitude, magic, sum;
        uint32_t m = (uint32_t)(128 - bias + drop) << 23;
        memcpy(&magnitude, &u, sizeof magnitude);
        memcpy(&magic, &m, sizeof magic);
        sum = magnitude + magic;
        memcpy(&u, &sum, sizeof u);
        return u - m;
    }
    u += (1u << (drop - 1)) - 1 + (u >> drop & 1u);
    return (u - ((uint32_t)(127 - bias) << 23)) >> drop;
}

static bool f8_nan(float f) {
    return f != f;
}
static uint8_t f8_sign(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return (uint8_t)(u >> 24 & 0x80u);
}

uint8_t half_f32_to_e4m3(float f, bool saturate) {
    uint8_t sign = f8_sign(f);
    if (f8_nan(f)) return (uint8_t)(sign | 0x7fu);
    bool large = !(f < 480 && f > -480);
    uint32_t u = large ? 0x7fu : f8_round(f, 3, 7);
    if (u > 0x7eu) u = saturate ? 0x7eu : 0x7fu;
    return (uint8_t)(sign | u);
}

uint8_t half_f32_to_e5m2(float f, bool saturate) {
    uint8_t sign = f8_sign(f);
    if (f8_nan(f)) return (uint8_t)(sign | 0x7fu);
    bool large = !(f < 65536 && f > -65536);
    uint32_t u = large ? 0x7cu : f8_round(f, 2, 15);
    if (u > 0x7bu) u = saturate ? 0x7bu : 0x7cu;
    return (uint8_t)(sign | u);
}

float half_e4m3_to_f32(uint8_t b) {
    uint32_t sign = (uint32_t)(b & 0x80u) << 24, exponent = b >> 3 & 15u, fraction = b & 7u, u;
    float f;
    if ((b & 0x7fu) == 0x7fu) {
        u = sign | 0x7fc00000u;
    } else if (exponent) {
        u = sign | (exponent + 120) << 23 | fraction << 20;
    } else {
        f = (float)fraction * 0x1p-9f;
        memcpy(&u, &f, sizeof u);
        u |= sign;
    }
    memcpy(&f, &u, sizeof f);
    return f;
}

float half_e5m2_to_f32(uint8_t b) {
    return half_f16_to_f32((uint16_t)((uint16_t)b << 8));
}
