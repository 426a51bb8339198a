/* graph/device.h: the narrow interface of a device. cpu/ and cuda/ implement it, engine/ binds it, plans use it.
 *
 * A device may have memory of its own, which the host must not touch (device.memory), and may do later what it is told
 * now: launches, copies and fills are queued in order and done by the time that a wait says so. Everything above graph/
 * speaks to such memory through the functions at the end, which on a device that works in the host's memory are a
 * memcpy, a memset or nothing. */
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

/* Memory that is not the host's, and the order of things in it. What goes wrong in something queued is told by the next
 * wait. Staging is memory of the host from which and to which copies need no stop on the way: as a source it must stay
 * as it is until a wait behind it; any other source may change as soon as upload returns. */
typedef struct device_memory {
    void (*upload)(device *d, void *to, const void *from, size_t bytes);
    void (*download)(device *d, void *to, const void *from, size_t bytes); /* there after a wait */
    void (*copy)(device *d, void *to, const void *from, size_t bytes);     /* within it, not overlapping */
    void (*clear)(device *d, void *to, size_t bytes);                      /* to zeros */
    void *(*stage)(device *d, size_t bytes);
    void (*unstage)(device *d, void *p, size_t bytes);
    uint64_t (*mark)(device *d);                              /* the point behind everything queued; never 0 */
    tl_status (*wait)(device *d, uint64_t mark, tl_error *e); /* until that point; 0: until all is done */
} device_memory;

struct device {
    const char *name;
    const tl_allocator *alloc; /* of the host */
    int threads;
    /* Binds the first kernel that accepts this call (descriptors and attributes set, data pointers not). dry: create
     * no state. refusals (may be NULL) gets "kernel: reason; ..." for those that stand before it. */
    tl_status (*choose)(device *d, const tl_op_def *op, const tl_op_call *call, bool dry, kernel_exec *out,
                        char *refusals, size_t refusals_size, tl_error *err);
    /* Runs all phases of a task, or queues it: what the task, its call and its run_info say is read before this
     * returns; exec and attributes stay until a wait. */
    void (*launch)(device *d, const kernel_task *t);
    /* Memory of the device, 64-byte aligned, not cleared. Freeing waits for what is queued. */
    void *(*alloc_bytes)(device *d, size_t bytes);
    void (*free_bytes)(device *d, void *p, size_t bytes);
    const device_memory *memory; /* NULL: it works in the host's memory, and nothing is queued */
};

/* ---- memory of any device; device.c ---------------------------------------------------------------------------- */

void device_upload(device *d, void *to, const void *from, size_t bytes);
void device_copy(device *d, void *to, const void *from, size_t bytes);
void device_clear(device *d, void *to, size_t bytes);
/* Queued, and there after a wait. */
void device_download(device *d, void *to, const void *from, size_t bytes);
uint64_t device_mark(device *d);
tl_status device_wait(device *d, uint64_t mark, tl_error *err);
/* Download and wait. */
tl_status device_fetch(device *d, void *to, const void *from, size_t bytes, tl_error *err);

/* A block that both sides work on: the same memory where the device has none of its own, else staging and its
 * counterpart over there, equal only where push or pull have made them so. */
typedef struct device_twin {
    unsigned char *host, *at; /* at: the device's */
    size_t bytes;
} device_twin;

/* Both sides zero; false: no memory. */
bool device_twin_take(device *d, size_t bytes, device_twin *t);
void device_twin_give(device *d, device_twin *t); /* one that was not taken is fine */
/* Bytes from a host address within t on; queued. */
void device_twin_push(device *d, const device_twin *t, const void *host, size_t bytes);
void device_twin_pull(device *d, const device_twin *t, void *host, size_t bytes);
/* The device's address of a host address within t. */
static inline void *device_twin_at(const device_twin *t, const void *host) {
    return t->at + ((const unsigned char *)host - t->host);
}

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
