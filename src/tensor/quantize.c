#include "tensor/quantize.h"

#include "base/half.h"

#include <math.h>

enum { QUANTIZE_K = 256 };
#define QUANTIZE_TINY 1e-15f /* groups below it are zero */

static void put_f16(uint8_t *p, float x) {
    uint16_t h = half_f32_to_f16(x);
    memcpy(p, &h, sizeof h);
}

static float get_f16(const uint8_t *p) {
    uint16_t h;
    memcpy(&h, p, sizeof h);
    return half_f16_to_f32(h);
}

/* Round to nearest, ties to even, for |x| < 2^22. */
static int nearest(float x) {
    float shifted = x + 12582912.f;
    int32_t i;
    memcpy(&i, &shifted, sizeof i);
    return (i & 0x007fffff) - 0x00400000;
}

static int clamp(int x, int low, int high) {
    return x < low ? low : x > high ? high : x;
}

/* 0 for what has none, so that no level is out of range. */
static float inverse_of(float d) {
    float x = d != 0 ? 1 / d : 0;
    return isfinite(x) ? x : 0;
}

/* ---- 32 to a block ------------------------------------------------------------------------------------ */

static void encode_q8_0(const float *x, uint8_t *b) {
    float most = 0;
    for (int i = 0; i < 32; i++) most = fmaxf(most, fabsf(x[i]));
    float d = most / 127, inverse = inverse_of(d);
    put_f16(b, d);
    for (int i = 0; i < 32; i++) b[2 + i] = (uint8_t)(int8_t)roundf(x[i] * inverse);
}

static void encode_q4_0(const float *x, uint8_t *b) {
    float most = 0, value = 0; /* the number farthest from zero takes -8 */
    for (int i = 0; i < 32; i++)
        if (fabsf(x[i]) > most) most = fabsf(x[i]), value = x[i];
    float d = value / -8, inverse = inverse_of(d);
    put_f16(b, d);
    for (int i = 0; i < 16; i++) {
        int low = clamp((int)(int8_t)(x[i] * inverse + 8.5f), 0, 15),
            high = clamp((int)(int8_t)(x[i + 16] * inverse + 8.5f), 0, 15);
        b[2 + i] = (uint8_t)(low | high << 4);
    }
}

/* ---- 256 to a block ---------------------------------------------------------------------------------------- */

/* Weighted sums of a trial scale: of w x k and of w k k, where k = round(x inverse) within [-levels, levels) and
 * w = x x. l gets k + levels. */
static void trial_signed(const float *x, int n, int levels, float inverse, uint8_t *l, float *xk, float *kk) {
    *xk = *kk = 0;
    for (int i = 0; i < n; i++) {
        int k = clamp(nearest(inverse * x[i]), -levels, levels - 1);
        float w = x[i] * x[i];
        l[i] = (uint8_t)(k + levels);
        *xk += w * x[i] * (float)k;
        *kk += w * (float)k * (float)k;
    }
}

/* The scale of x (n <= 16) with the least weighted square error among 19 near the obvious one, and its levels. */
static float scale_signed(const float *x, int n, int levels, uint8_t *l) {
    float most = 0, value = 0;
    uint8_t trial[16];
    for (int i = 0; i < n; i++)
        if (fabsf(x[i]) > most) most = fabsf(x[i]), value = x[i];
    memset(l, 0, (size_t)n);
    if (most < QUANTIZE_TINY) return 0;
    float xk, kk;
    trial_signed(x, n, levels, -(float)levels / value, l, &xk, &kk);
    float scale = kk != 0 ? xk / kk : 0, best = scale * xk;
    for (int step = -9; step <= 9; step++) {
        if (step == 0) continue;
        trial_signed(x, n, levels, -((float)levels + 0.1f * (float)step) / value, trial, &xk, &kk);
        if (kk > 0 && xk * xk > best * kk) {
            memcpy(l, trial, (size_t)n);
            scale = xk / kk;
            best = scale * xk;
        }
    }
    return scale;
}

static void encode_q6_k(const float *x, uint8_t *b) {
    float scale[16], most = 0, value = 0;
    uint8_t l[QUANTIZE_K];
    for (int g = 0; g < 16; g++) {
        scale[g] = scale_signed(x + 16 * g, 16, 32, l + 16 * g);
        if (fabsf(scale[g]) > most) most = fabsf(scale[g]), value = scale[g];
    }
    memset(b, 0, 210);
    if (most < QUANTIZE_TINY) return;
    float inverse = -128.f / value;
    put_f16(b + 208, 1 / inverse);
    float d = get_f16(b + 208);
    for (int g = 0; g < 16; g++) {
        int s = nearest(inverse * scale[g]);
        int8_t kept = (int8_t)(s > 127 ? 127 : s);
        b[192 + g] = (uint8_t)kept;
        float step = d * (float)kept; /* where it vanished the search's levels stay: what the reference writes */
        for (int i = 16 * g; step != 0 && i < 16 * g + 16; i++)
            l[i] = (uint8_t)(clamp(nearest(x[i] / step), -32, 31) + 32);
    }
    for (int i = 0; i < QUANTIZE_K; i++) {
        int half = i / 128, run = i % 128 / 32, k = i % 32;
        b[half * 64 + run % 2 * 32 + k] |= (uint8_t)((l[i] & 15) << (run < 2 ? 0 : 4));
        b[128 + half * 32 + k] |= (uint8_t)((l[i] >> 4) << (2 * run));
    }
}

/* Scale and minimum of x (32) for levels 0..15, by weighted least squares around 21 trial scales (Gerganov's group:
 * x ~ scale l - min, min >= 0). */
static float scale_offset(const float *x, const float *w, int n, int levels, uint8_t *l, float *min_out) {
    float low = x[0], high = x[0], sum_w = w[0], sum_x = sum_w * x[0];
    for (int i = 1; i < n; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
        sum_w += w[i];
        sum_x += w[i] * x[i];
    }
    if (low > 0) low = 0;
    if (high == low) {
        memset(l, 0, (size_t)n);
        *min_out = -low;
        return 0;
    }
    float inverse = (float)levels / (high - low), scale = 1 / inverse, best = 0, min = low;
    for (int i = 0; i < n; i++) {
        l[i] = (uint8_t)clamp(nearest(inverse * (x[i] - low)), 0, levels);
        float off = scale * (float)l[i] + low - x[i];
        off = off * off;
        best += w[i] * off;
    }
    for (int step = 0; step <= 20; step++) {
        uint8_t trial[32];
        float wl = 0, wll = 0, wxl = 0;
        inverse = (-1.f + 0.1f * (float)step + (float)levels) / (high - min);
        for (int i = 0; i < n; i++) {
            int k = clamp(nearest(inverse * (x[i] - min)), 0, levels);
            trial[i] = (uint8_t)k;
            wl += w[i] * (float)k;
            wll += w[i] * (float)k * (float)k;
            wxl += w[i] * (float)k * x[i];
        }
        float det = sum_w * wll - wl * wl;
        if (!(det > 0)) continue;
        float s = (sum_w * wxl - sum_x * wl) / det, m = (wll * sum_x - wl * wxl) / det, error = 0;
        if (m > 0) {
            m = 0;
            s = wxl / wll;
        }
        for (int i = 0; i < n; i++) {
            float off = s * (float)trial[i] + m - x[i];
            off = off * off;
            error += w[i] * off;
        }
        if (error < best) {
            memcpy(l, trial, (size_t)n);
            best = error;
            scale = s;
            min = m;
        }
    }
    *min_out = -min;
    return scale;
}

/* Scale and minimum of group g from the 12 packed bytes. */
static void scales_get(const uint8_t *s, int g, int *scale, int *min) {
    if (g < 4) {
        *scale = s[g] & 63;
        *min = s[g + 4] & 63;
    } else {
        *scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
        *min = s[g + 4] >> 4 | (s[g] >> 6) << 4;
    }
}

static void scales_put(uint8_t *s, int g, int scale, int min) {
    if (g < 4) {
        s[g] = (uint8_t)scale;
        s[g + 4] = (uint8_t)min;
    } else {
        s[g + 4] = (uint8_t)((scale & 15) | (min & 15) << 4);
        s[g - 4] |= (uint8_t)((scale >> 4) << 6);
        s[g] |= (uint8_t)((min >> 4) << 6);
    }
}

static void encode_q4_k(const float *x, uint8_t *b) {
    uint8_t l[QUANTIZE_K];
    float scale[8], min[8], most_scale = 0, most_min = 0;
    for (int g = 0; g < 8; g++) {
        float w[32], squares = 0;
        for (int i = 0; i < 32; i++) squares += x[32 * g + i] * x[32 * g + i];
        float mean = sqrtf(squares / 32);
        for (int i = 0; i < 32; i++) w[i] = mean + fabsf(x[32 * g + i]);
        scale[g] = scale_offset(x + 32 * g, w, 32, 15, l + 32 * g, &min[g]);
        if (scale[g] > most_scale) most_scale = scale[g];
        if (min[g] > most_min) most_min = min[g];
    }
    memset(b, 0, 144);
    float to_scale = most_scale > 0 ? 63.f / most_scale : 0, to_min = most_min > 0 ? 63.f / most_min : 0;
    for (int g = 0; g < 8; g++) {
        int s = (uint8_t)nearest(to_scale * scale[g]), m = (uint8_t)nearest(to_min * min[g]);
        scales_put(b + 4, g, s > 63 ? 63 : s, m > 63 ? 63 : m);
    }
    put_f16(b, most_scale / 63.f);
    put_f16(b + 2, most_min / 63.f);
    float d = get_f16(b), dmin = get_f16(b + 2);
    for (int g = 0; g < 8; g++) {
        int s, m;
        scales_get(b + 4, g, &s, &m);
        float step = d * (float)s, off = dmin * (float)m;
        for (int i = 32 * g; step != 0 && i < 32 * g + 32; i++)
            l[i] = (uint8_t)clamp(nearest((x[i] + off) / step), 0, 15);
    }
    for (int g = 0; g < 8; g += 2)
        for (int i = 0; i < 32; i++) b[16 + 16 * g + i] = (uint8_t)(l[32 * g + i] | l[32 * g + 32 + i] << 4);
}

/* ---- back ------------------------------------------------------------------------------------------------ */

static void decode_q8_0(const uint8_t *b, float *x) {
    float d = get_f16(b);
    for (int i = 0; i < 32; i++) x[i] = d * (float)(int8_t)b[2 + i];
}

static void decode_q4_0(const uint8_t *b, float *x) {
    float d = get_f16(b);
    for (int i = 0; i < 16; i++) {
        x[i] = d * (float)((b[2 + i] & 15) - 8);
        x[i + 16] = d * (float)((b[2 + i] >> 4) - 8);
    }
}

static void decode_q4_k(const uint8_t *b, float *x) {
    float d = get_f16(b), dmin = get_f16(b + 2);
    for (int g = 0; g < 8; g++) {
        int s, m;
        scales_get(b + 4, g, &s, &m);
        float step = d * (float)s, off = dmin * (float)m;
        for (int i = 0; i < 32; i++) {
            uint8_t byte = b[16 + g / 2 * 32 + i];
            x[32 * g + i] = step * (float)(g % 2 ? byte >> 4 : byte & 15) - off;
        }
    }
}

static void decode_q6_k(const uint8_t *b, float *x) {
    float d = get_f16(b + 208);
    for (int i = 0; i < QUANTIZE_K; i++) {
        int half = i / 128, run = i % 128 / 32, k = i % 32;
        uint8_t low = b[half * 64 + run % 2 * 32 + k], high = b[128 + half * 32 + k];
        int q = (run < 2 ? low & 15 : low >> 4) | (high >> (2 * run) & 3) << 4;
        x[i] = d * (float)(int8_t)b[192 + i / 16] * (float)(q - 32);
    }
}

/* ---- runs --------------------------------------------------------------------------------------------------- */

typedef struct quantize_row {
    tl_dtype dtype;
    void (*encode)(const float *x, uint8_t *b);
    void (*decode)(const uint8_t *b, float *x);
} quantize_row;

static const quantize_row rows[] = {{TL_Q8_0, encode_q8_0, decode_q8_0},
                                    {TL_Q4_0, encode_q4_0, decode_q4_0},
                                    {TL_Q4_K, encode_q4_k, decode_q4_k},
                                    {TL_Q6_K, encode_q6_k, decode_q6_k}};

static const quantize_row *row_of(tl_dtype t) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i].dtype == t) return &rows[i];
    return NULL;
}

bool quantize_can(tl_dtype t) {
    return t == TL_F32 || t == TL_F16 || t == TL_BF16 || t == TL_F8_E4M3 || t == TL_F8_E5M2 || row_of(t);
}

void quantize_encode(tl_dtype t, const float *x, int64_t n, void *out) {
    const quantize_row *r = row_of(t);
    uint8_t *b = out;
    if (t == TL_F32) memcpy(out, x, (size_t)n * sizeof *x);
    for (int64_t i = 0; t == TL_F8_E4M3 && i < n; i++) ((uint8_t *)out)[i] = half_f32_to_e4m3(x[i], true);
    for (int64_t i = 0; t == TL_F8_E5M2 && i < n; i++) ((uint8_t *)out)[i] = half_f32_to_e5m2(x[i], isfinite(x[i]));
    for (int64_t i = 0; (t == TL_F16 || t == TL_BF16) && i < n; i++) {
        uint16_t h = t == TL_F16 ? half_f32_to_f16(x[i]) : half_f32_to_bf16(x[i]);
        memcpy(b + 2 * i, &h, sizeof h);
    }
    int64_t block = tl_dtype_block(t);
    for (int64_t i = 0; r && i < n; i += block, b += tl_dtype_bytes(t)) r->encode(x + i, b);
}

void quantize_decode(tl_dtype t, const void *from, int64_t n, float *out) {
    const quantize_row *r = row_of(t);
    const uint8_t *b = from;
    if (t == TL_F32) memcpy(out, from, (size_t)n * sizeof *out);
    for (int64_t i = 0; t == TL_F8_E4M3 && i < n; i++) out[i] = half_e4m3_to_f32(b[i]);
    for (int64_t i = 0; t == TL_F8_E5M2 && i < n; i++) out[i] = half_e5m2_to_f32(b[i]);
    for (int64_t i = 0; (t == TL_F16 || t == TL_BF16) && i < n; i++) {
        uint16_t h;
        memcpy(&h, b + 2 * i, sizeof h);
        out[i] = t == TL_F16 ? half_f16_to_f32(h) : half_bf16_to_f32(h);
    }
    int64_t block = tl_dtype_block(t);
    for (int64_t i = 0; r && i < n; i += block, b += tl_dtype_bytes(t)) r->decode(b, out + i);
}
