/* Rows of kernels, in the subset of C and CUDA's C++: cuda_rt.c walks the table that table.cu defines. */
#ifndef CUDA_TABLE_H
#define CUDA_TABLE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "graph/device.h"

/* Takes a call or gives the reason for refusing, a string constant; fills scratch. */
typedef const char *(*cuda_prepare_fn)(const tl_op_call *c, kernel_exec *x);
/* Queues the kernel on a stream; a cudaError_t. */
typedef int (*cuda_launch_fn)(const kernel_task *t, void *stream);

typedef struct cuda_kernel_row {
    const char *name;
    int32_t op;
    int32_t sm_min; /* 80, 90: the compute capability times ten that it needs at least */
    cuda_prepare_fn prepare;
    cuda_launch_fn launch;
} cuda_kernel_row;

extern const cuda_kernel_row cuda_kernel_table[]; /* name NULL ends it */

#ifdef __cplusplus
}
#endif
#endif
