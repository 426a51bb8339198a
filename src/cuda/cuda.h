/* cuda: an NVIDIA GPU behind graph/device.h. Kernels are rows of kernels_cuda.def; the runtime (context, stream,
 * memory, staging, marks, errors) is cuda_rt.c; where nvcc was not there at build time cuda_none.c stands in. No type
 * of CUDA's leaves this folder. engine/ and tests include this header and no other of the room. */
#ifndef CUDA_CUDA_H
#define CUDA_CUDA_H

#include "graph/device.h"

/* Was it built with nvcc? */
bool cuda_built(void);
/* The first GPU that the driver shows (CUDA_VISIBLE_DEVICES chooses). [owns: caller, cuda_device_destroy]
 * [fails: DEVICE not built, or no driver or GPU, each in one line; NOMEM] */
tl_status cuda_device_create(const tl_allocator *a, device **out, tl_error *err);
void cuda_device_destroy(device *d);
/* Its name, compute capability and memory in text, "" for another device. */
const char *cuda_device_text(const device *d);

/* What becomes of an operator's kernels: row i's name and "sm_NN", and why it refuses the call, "" if it takes it.
 * Returns false behind the last row. */
typedef struct cuda_verdict {
    const char *kernel, *needs, *why;
} cuda_verdict;
bool cuda_row(device *d, const tl_op_call *c, int op, size_t i, cuda_verdict *out);

#endif
