/* The limits that products are measured against: loops of nothing but multiply-adds in registers, and of reads. Used
 * by benchmarks and `tilia devices --measure`; call with an instruction set that isa_probe() has. */
#ifndef CPU_PRODUCT_PEAK_H
#define CPU_PRODUCT_PEAK_H

#include <stddef.h>
#include <stdint.h>

/* Does n rounds; returns their floating-point operations. */
typedef double peak_leaf(int64_t n);
peak_leaf peak_f32__avx2, peak_f32__avx512, peak_bf16__avx512bf16, peak_int8__avx512vnni;
/* Reads bytes (a multiple of 256) from p, aligned to 64; returns something that depends on them. */
typedef int64_t peak_read_leaf(const void *p, size_t bytes);
peak_read_leaf peak_read__avx2, peak_read__avx512;

#endif
