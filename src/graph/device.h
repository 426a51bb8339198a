/* graph/device.h: the narrow interface of a device. cpu/ and cuda/ implement it, engine/ binds it, plans use it. */
#ifndef GRAPH_DEVICE_H
#define GRAPH_DEVICE_H

#include "base/log.h"
#include "op/op.h"

enum { KERNEL_PHASES = 4 };

typedef struct kernel_task kernel_task;

/* One part of a kernel: tiles [lo, hi) of a phase, run by worker number `worker`. Tiles are fixed by the shapes, never
 * by the number of threads; a tile's result may not depend on which worker runs it. */
typedef void (*kernel_run_fn)(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker);

/* What binding an operator to a kernel yields. Phases run one after the other with a barrier between. */
typedef struct kernel_exec {
    const char *name; /* symbol, for devices, profiles and tests */
    kernel_run_fn run;
    void (*leaf)(void); /* instruction-set specific function the launcher calls; its type is the launcher's */
    int phases;
    int64_t tiles[KERNEL_PHASES];
    int64_t repeats; /* the whole list of phases runs this often, one after the other (0 means once): a
                        loop over chunks whose results must not depend on threads. run() reads which
                        from task->repeat, which launch() counts in its own copy of the task */
    size_t scratch;  /* bytes in the arena, for this step only, 64-byte aligned */
    void *state;     /* primitives and the like, owned by the plan */
    void (*state_free)(void *state, const tl_allocator *a);
} kernel_exec;

struct kernel_task {
    const tl_op_call *call;
    const kernel_exec *exec;
    void *scratch;
    int workers;    /* how many take part: for scratch per worker, sized for device.threads */
    int64_t repeat; /* 0 .. max(exec->repeats, 1) - 1, set by launch() */
};

typedef struct device device;
struct device {
    const char *name;
    const tl_allocator *alloc;
    int threads;
    /* Binds the first kernel that accepts this call (descriptors and attributes set, data pointers not). dry: create
     * no state. refusals (may be NULL) gets "kernel: reason; ..." for those that stand before it. */
    tl_status (*choose)(device *d, const tl_op_def *op, const tl_op_call *call, bool dry, kernel_exec *out,
                        char *refusals, size_t refusals_size, tl_error *err);
    /* Runs all phases of a task on the device's threads. */
    void (*launch)(device *d, const kernel_task *t);
    /* Memory of the device. */
    void *(*alloc_bytes)(device *d, size_t bytes);
    void (*free_bytes)(device *d, void *p, size_t bytes);
    /* Host memory into it, and until everything launched is done; NULL where that is memcpy and nothing. */
    void (*upload)(device *d, void *to, const void *from, size_t bytes);
    void (*wait)(device *d);
};

/* What graphs need of an engine. struct tl_engine (engine/engine.h) begins with one, so that graph/, which lies below
 * engine/, reaches it by a cast of the tl_engine pointer. */
typedef struct graph_host {
    const tl_allocator *alloc;
    device *dev;
    log_sink log;
    void *eval_cache; /* of tl_eval, owned by graph/eval.c */
    void (*eval_cache_free)(struct graph_host *h);
} graph_host;

#endif
