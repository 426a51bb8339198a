/* What stands in where the build had no nvcc. */
#ifndef TILIA_HAVE_CUDA

#include "cuda/cuda.h"

#include "base/error.h"

bool cuda_built(void) {
    return false;
}

tl_status cuda_device_create(const tl_allocator *a, device **out, tl_error *err) {
    (void)a;
    *out = NULL;
    return error_set(err, TL_DEVICE, "device cuda: this build has no CUDA (built without nvcc)");
}

void cuda_device_destroy(device *d) {
    (void)d;
}

const char *cuda_device_text(const device *d) {
    (void)d;
    return "";
}

bool cuda_row(device *d, const tl_op_call *c, int op, size_t i, cuda_verdict *out) {
    (void)d, (void)c, (void)op, (void)i, (void)out;
    return false;
}

#else
typedef int cuda_none_is_empty;
#endif
