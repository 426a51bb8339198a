/* The runtime of a GPU: one context, one stream on which everything is queued in order, memory, staging, marks, and the
 * first error, which the next wait tells. */
#ifdef TILIA_HAVE_CUDA

#include "cuda/cuda.h"
#include "cuda/table.h"

#include "base/mem.h"

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <string.h>

enum { MARKS = 64 };

typedef struct cuda_device {
    device base;
    int sm; /* compute capability times ten */
    cudaStream_t stream;
    cudaEvent_t event[MARKS]; /* of the last so many marks */
    uint64_t marks;
    cudaError_t failed; /* the first thing that went wrong */
    const char *doing;
    char text[320];
} cuda_device;

static cuda_device *mine(device *d) {
    return (cuda_device *)d;
}

static void check(cuda_device *me, cudaError_t e, const char *doing) {
    if (e == cudaSuccess || me->failed != cudaSuccess) return;
    me->failed = e;
    me->doing = doing;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void *cuda_alloc_bytes(device *d, size_t bytes) {
    void *p = NULL;
    (void)d;
    if (cudaMalloc(&p, bytes ? bytes : 1) == cudaSuccess) return p; /* aligned to 256 */
    (void)cudaGetLastError(); /* too little memory is the caller's to tell, not the device's state */
    return NULL;
}

static void cuda_free_bytes(device *d, void *p, size_t bytes) {
    (void)bytes;
    check(mine(d), cudaStreamSynchronize(mine(d)->stream), "waiting");
    check(mine(d), cudaFree(p), "freeing memory");
}

static void *cuda_stage(device *d, size_t bytes) {
    void *p = NULL;
    (void)d;
    if (cudaMallocHost(&p, bytes ? bytes : 1) == cudaSuccess) return p;
    (void)cudaGetLastError();
    return NULL;
}

static void cuda_unstage(device *d, void *p, size_t bytes) {
    (void)bytes;
    check(mine(d), cudaStreamSynchronize(mine(d)->stream), "waiting");
    check(mine(d), cudaFreeHost(p), "freeing staging");
}

/* From pageable memory the runtime copies to staging of its own before it returns, as the interface asks. */
static void cuda_upload(device *d, void *to, const void *from, size_t bytes) {
    check(mine(d), cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, mine(d)->stream), "copying to the GPU");
}

static void cuda_download(device *d, void *to, const void *from, size_t bytes) {
    check(mine(d), cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, mine(d)->stream), "copying from the GPU");
}

static void cuda_copy(device *d, void *to, const void *from, size_t bytes) {
    check(mine(d), cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, mine(d)->stream), "copying on the GPU");
}

static void cuda_clear(device *d, void *to, size_t bytes) {
    check(mine(d), cudaMemsetAsync(to, 0, bytes, mine(d)->stream), "clearing memory");
}

static uint64_t cuda_mark(device *d) {
    cuda_device *me = mine(d);
    me->marks++;
    check(me, cudaEventRecord(me->event[me->marks % MARKS], me->stream), "marking");
    return me->marks;
}

static tl_status cuda_wait(device *d, uint64_t mark, tl_error *err) {
    cuda_device *me = mine(d);
    bool kept = mark && mark <= me->marks && me->marks - mark < MARKS; /* an older one's event means a later point */
    check(me, kept ? cudaEventSynchronize(me->event[mark % MARKS]) : cudaStreamSynchronize(me->stream), "computing");
    if (me->failed == cudaSuccess) return TL_OK;
    return error_set(err, TL_DEVICE, "device cuda: %s: %s (%s)", me->doing, cudaGetErrorString(me->failed),
                     cudaGetErrorName(me->failed));
}

static const device_memory cuda_memory = {.upload = cuda_upload,
                                          .download = cuda_download,
                                          .copy = cuda_copy,
                                          .clear = cuda_clear,
                                          .stage = cuda_stage,
                                          .unstage = cuda_unstage,
                                          .mark = cuda_mark,
                                          .wait = cuda_wait};

/* ---- kernels --------------------------------------------------------------------------------------------------- */

static const char *refusal(const cuda_device *me, const cuda_kernel_row *row, const tl_op_call *c, kernel_exec *x) {
    if (me->sm < row->sm_min) return row->sm_min >= 90 ? "needs sm_90" : "needs sm_80";
    *x = (kernel_exec){.name = row->name, .leaf = (void (*)(void))row->launch, .phases = 1, .tiles = {1}};
    return row->prepare(c, x);
}

static tl_status cuda_choose(device *d, const tl_op_def *op, const tl_op_call *call, bool dry, kernel_exec *out,
                             char *refusals, size_t size, tl_error *err) {
    (void)dry; /* no kernel has state */
    size_t at = 0;
    if (refusals && size) refusals[0] = 0;
    for (const cuda_kernel_row *row = cuda_kernel_table; row->name; row++) {
        if (row->op != op->id || op->id < 0) continue;
        kernel_exec x;
        const char *why = refusal(mine(d), row, call, &x);
        if (!why) {
            *out = x;
            return TL_OK;
        }
        if (!refusals || at >= size) continue;
        int n = snprintf(refusals + at, size - at, "%s%s: %s", at ? "; " : "", row->name, why);
        if (n > 0) at += (size_t)n;
    }
    return error_set(err, TL_UNSUPPORTED, "device cuda: no CUDA kernel yet for %s%s%s", op->name, at ? ": " : "",
                     at ? refusals : "");
}

static void cuda_launch(device *d, const kernel_task *t) {
    check(mine(d), (cudaError_t)((cuda_launch_fn)t->exec->leaf)(t, mine(d)->stream), t->exec->name);
}

bool cuda_row(device *d, const tl_op_call *c, int op, size_t i, cuda_verdict *out) {
    for (const cuda_kernel_row *row = cuda_kernel_table; row->name; row++) {
        if (row->op != op || i-- > 0) continue;
        kernel_exec x;
        const char *why = refusal(mine(d), row, c, &x);
        *out = (cuda_verdict){row->name, row->sm_min >= 90 ? "sm_90" : "sm_80", why ? why : ""};
        return true;
    }
    return false;
}

/* ---- the device ------------------------------------------------------------------------------------------------ */

bool cuda_built(void) {
    return true;
}

const char *cuda_device_text(const device *d) {
    return d->memory == &cuda_memory ? ((const cuda_device *)d)->text : "";
}

void cuda_device_destroy(device *d) {
    cuda_device *me = mine(d);
    if (!me) return;
    for (int i = 0; i < MARKS; i++)
        if (me->event[i]) (void)cudaEventDestroy(me->event[i]);
    if (me->stream) (void)cudaStreamDestroy(me->stream);
    mem_free(me->base.alloc, me);
}

static tl_status describe(cuda_device *me, int number, tl_error *err) {
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, number);
    if (e != cudaSuccess) return error_set(err, TL_DEVICE, "device cuda: %s", cudaGetErrorString(e));
    me->sm = 10 * p.major + p.minor;
    snprintf(me->text, sizeof me->text, "%s, compute capability %d.%d, %.1f GB", p.name, p.major, p.minor,
             (double)p.totalGlobalMem / 1e9);
    if (me->sm < 80)
        return error_set(err, TL_DEVICE, "device cuda: %s; compute capability 8.0 is needed at least", me->text);
    return TL_OK;
}

static tl_status open_stream(cuda_device *me, tl_error *err) {
    cudaError_t e = cudaStreamCreateWithFlags(&me->stream, cudaStreamNonBlocking);
    for (int i = 0; i < MARKS && e == cudaSuccess; i++)
        e = cudaEventCreateWithFlags(&me->event[i], cudaEventDisableTiming);
    return e == cudaSuccess ? TL_OK : error_set(err, TL_DEVICE, "device cuda: %s", cudaGetErrorString(e));
}

static tl_status none_found(cudaError_t e, tl_error *err) {
    int driver = 0;
    if (e == cudaErrorInsufficientDriver && cudaDriverGetVersion(&driver) == cudaSuccess && driver)
        return error_set(err, TL_DEVICE,
                         "device cuda: the NVIDIA driver is made for CUDA %d.%d, this build needs %d.%d", driver / 1000,
                         driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    if (e == cudaSuccess || e == cudaErrorNoDevice || e == cudaErrorInsufficientDriver)
        return error_set(err, TL_DEVICE, "device cuda: no NVIDIA GPU or driver was found");
    return error_set(err, TL_DEVICE, "device cuda: no NVIDIA GPU or driver was found (%s)", cudaGetErrorString(e));
}

tl_status cuda_device_create(const tl_allocator *a, device **out, tl_error *err) {
    int n = 0;
    *out = NULL;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess || n < 1) return none_found(e, err);
    cuda_device *me = mem_new(a, 1, sizeof *me);
    if (!me) return error_set(err, TL_NOMEM, "no memory for a device");
    me->base = (device){.name = "cuda",
                        .alloc = a,
                        .threads = 1,
                        .choose = cuda_choose,
                        .launch = cuda_launch,
                        .alloc_bytes = cuda_alloc_bytes,
                        .free_bytes = cuda_free_bytes,
                        .memory = &cuda_memory};
    tl_status s = describe(me, 0, err);
    if (s == TL_OK) s = open_stream(me, err);
    if (s != TL_OK) {
        cuda_device_destroy(&me->base);
        return s;
    }
    *out = &me->base;
    return TL_OK;
}

#else
typedef int cuda_rt_is_empty;
#endif
