/* The rows of kernels_cuda.def as a table; nvcc compiles it, with the kernels, for every architecture of the build. */
#include "cuda/table.h"

#define KERNEL(operator_, name, sm_min, prepare, launch)                                                               \
    extern "C" const char *prepare(const tl_op_call *c, kernel_exec *x);                                               \
    extern "C" int launch(const kernel_task *t, void *stream);
#include "cuda/kernels_cuda.def"
#undef KERNEL

#define KERNEL(operator_, name, sm_min, prepare, launch) {#name, OP_##operator_, sm_min, prepare, launch},
extern "C" const cuda_kernel_row cuda_kernel_table[] = {
#include "cuda/kernels_cuda.def"
    {nullptr, -1, 0, nullptr, nullptr},
};
#undef KERNEL
