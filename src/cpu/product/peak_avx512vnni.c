#include "cpu/product/peak.h"

#include <immintrin.h>

double peak_int8__avx512vnni(int64_t n) {
    __m512i a[12];
    const __m512i x = _mm512_set1_epi8(1);
    for (int k = 0; k < 12; k++) a[k] = _mm512_setzero_si512();
    for (int64_t i = 0; i < n; i++) {
        for (int k = 0; k < 12; k++) a[k] = _mm512_dpbusd_epi32(a[k], x, x);
        __asm__ volatile("" : "+v"(a[0]), "+v"(a[1]), "+v"(a[2]), "+v"(a[3]), "+v"(a[4]), "+v"(a[5]));
        __asm__ volatile("" : "+v"(a[6]), "+v"(a[7]), "+v"(a[8]), "+v"(a[9]), "+v"(a[10]), "+v"(a[11]));
    }
    return (double)n * 12 * 128;
}
