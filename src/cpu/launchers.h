/* Prototypes of every launcher that kernels.def names, so that a row and its functions cannot disagree. */
#ifndef CPU_LAUNCHERS_H
#define CPU_LAUNCHERS_H

#include "cpu/kernel.h"

#define KERNEL(op, leaf, isa, prepare, run)                                                                            \
    const char *prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc, kernel_exec *x);        \
    void run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker);
#include "cpu/kernels.def"
#undef KERNEL

#endif
