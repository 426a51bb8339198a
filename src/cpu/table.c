/* The rows of kernels.def as a table. A leaf's type is its launcher's affair: here it is an address, so it is declared
 * as a function of no type that matters and this file sees none of the headers that know better. */
#include "cpu/launchers.h"

#if defined(__x86_64__)
#define KERNEL(operator, leaf, isa, prepare, run) void leaf(void);
#include "cpu/kernels.def"
#undef KERNEL
#endif

#define KERNEL(operator, leaf, isa, prepare, run) {#leaf, OP_##operator,(isa), (prepare), (run), (leaf)},
const kernel_row kernel_table[] = {
#if defined(__x86_64__)
#include "cpu/kernels.def"
#endif
    {NULL, -1, 0, NULL, NULL, NULL}, /* the end: an array has at least one element */
};
#undef KERNEL

const size_t kernel_count = sizeof kernel_table / sizeof *kernel_table - 1;
