/* cpu: kernels as rows. kernels.def lists them, fastest first within an operator; the reference of the operator is
 * always the last and needs no row. Leaf files (suffix _avx2.c, _avx512.c, _avx512bf16.c) are the only ones compiled
 * with instruction-set flags and the only ones with intrinsics; they get raw pointers and sizes and include only
 * their own headers. Launchers (baseline code) take a call apart, cut it into tiles and call the leaf. */
#ifndef CPU_KERNEL_H
#define CPU_KERNEL_H

#include "graph/device.h"

enum { ISA_AVX2 = 1, ISA_AVX512 = 2, ISA_AVX512BF16 = 4, ISA_AVX512VNNI = 8, ISA_AVX512FP16 = 16 };

/* CPUID and XGETBV: what processor and operating system both allow. */
uint32_t isa_probe(void);
/* The instruction sets up to a cap by name ("ref", "avx2", "avx512", "avx512vnni", "avx512bf16", "avx512fp16"); false:
 * no such name. */
bool isa_cap(const char *name, uint32_t *mask);

/* Decides whether a kernel takes a call. Returns NULL and fills phases, tiles, scratch (and state unless dry), or the
 * reason for refusing, a string constant. threads: for scratch per worker. alloc: for state. */
extern const char kernel_no_memory[]; /* the one reason that is an error: planning fails with NOMEM */
typedef const char *(*kernel_prepare_fn)(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                         kernel_exec *x);

typedef struct kernel_row {
    const char *name;
    int32_t op;
    uint32_t isa; /* all of these are needed; 0: baseline */
    kernel_prepare_fn prepare;
    kernel_run_fn run;
    void (*leaf)(void);
} kernel_row;

extern const kernel_row kernel_table[];
extern const size_t kernel_count;

/* The kernel device: thread pool + table. Defined in cpu/cpu.c, used by engine/. */
struct device *cpu_device_create(const tl_allocator *a, int threads, uint32_t isa, tl_error *err);
void cpu_device_destroy(struct device *d);

#endif
