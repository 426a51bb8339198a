/* engine: what everything is created with: allocator, log, device. Owns the kernel device and its threads, and reads
 * the environment (TILIA_THREADS, TILIA_ISA), once, at creation; nobody else does. Refuses: graphs, models. */
#ifndef ENGINE_ENGINE_H
#define ENGINE_ENGINE_H

#include "graph/device.h"
#include "tilia/graph.h"

struct tl_engine {
    graph_host host; /* first: graph/ reaches it by a cast */
    tl_allocator alloc;
    uint32_t isa;
    void (*device_destroy)(device *d);
};

/* What becomes of an operator's kernels in a typical call: chosen, standing by behind the chosen one, or refused and
 * why. why is "" for the chosen one. The reference comes last. */
typedef struct engine_kernel {
    const char *op, *kernel, *isa, *dtype, *why;
    bool chosen;
} engine_kernel;
typedef void (*engine_kernel_fn)(void *user, const engine_kernel *k);

/* Every operator, each with a call in f32 and one in bf16, kernels in the order of kernels.def. */
tl_status engine_list_kernels(tl_engine *e, engine_kernel_fn fn, void *user, tl_error *err);

/* The devices that this build knows: what each is, or why there is none of its kind. */
typedef void (*engine_device_fn)(void *user, const char *name, const char *what, const char *why_not);
void engine_list_devices(const tl_engine *e, engine_device_fn fn, void *user);

#endif
