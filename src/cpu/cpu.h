/* What engine/ and the tests ask of the processor beyond the device interface. */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include "cpu/kernel.h"

/* Name of the best instruction set in a mask: "ref", "avx2", "avx512", "avx512vnni", "avx512bf16",
 * "avx512fp16". */
const char *isa_name(uint32_t mask);
int pool_cores(void);

/* Does a row take a call with these instruction sets? NULL and *x filled (its state is the caller's), or the reason. */
const char *cpu_row_accepts(const kernel_row *row, uint32_t isa, const tl_op_call *call, int threads, bool dry,
                            const tl_allocator *alloc, kernel_exec *x);

#endif
