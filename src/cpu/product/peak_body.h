#include "cpu/product/peak.h"
#include "cpu/simd.h"

/* Twelve chains cover the latency of two units; the empty asm keeps the compiler from folding them. */
double SIMD_NAME(peak_f32)(int64_t n) {
    vf a0 = vf_zero(), a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0, a9 = a0, aa = a0,
       ab = a0;
    const vf x = vf_set(0.5f);
    for (int64_t i = 0; i < n; i++) {
        a0 = vf_fma(x, x, a0), a1 = vf_fma(x, x, a1), a2 = vf_fma(x, x, a2), a3 = vf_fma(x, x, a3);
        a4 = vf_fma(x, x, a4), a5 = vf_fma(x, x, a5), a6 = vf_fma(x, x, a6), a7 = vf_fma(x, x, a7);
        a8 = vf_fma(x, x, a8), a9 = vf_fma(x, x, a9), aa = vf_fma(x, x, aa), ab = vf_fma(x, x, ab);
        __asm__ volatile("" : "+x"(a0), "+x"(a1), "+x"(a2), "+x"(a3), "+x"(a4), "+x"(a5));
        __asm__ volatile("" : "+x"(a6), "+x"(a7), "+x"(a8), "+x"(a9), "+x"(aa), "+x"(ab));
    }
    return (double)n * 12 * 2 * SIMD_W;
}

int64_t SIMD_NAME(peak_read)(const void *p, size_t bytes) {
    const char *q = p, *end = q + bytes;
    vi a = vi_set(0), b = a, c = a, d = a;
    for (; q < end; q += 4 * sizeof(vi)) {
        a = vi_add(a, vi_load(q)), b = vi_add(b, vi_load(q + sizeof(vi)));
        c = vi_add(c, vi_load(q + 2 * sizeof(vi))), d = vi_add(d, vi_load(q + 3 * sizeof(vi)));
    }
    int32_t out[SIMD_W];
    vi_store(out, vi_add(vi_add(a, b), vi_add(c, d)));
    return out[0];
}
