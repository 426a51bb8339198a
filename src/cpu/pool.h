/* The engine's threads. A task's tiles are divided in advance, worker w of W taking [w n / W, (w + 1) n / W), so
 * nothing is shared while they run but the count of those who have finished a phase. The calling thread is worker 0. */
#ifndef CPU_POOL_H
#define CPU_POOL_H

#include "graph/device.h"

typedef struct pool pool;

/* threads - 1 threads are started. [fails: NOMEM, DEVICE] */
tl_status pool_create(const tl_allocator *a, int threads, pool **out, tl_error *err);
void pool_destroy(pool *p);
/* Runs all repeats and phases of a task. If another thread is in here already, the caller runs the whole by itself: the
 * result is the same. [threads: any] [allocates: no] */
void pool_run(pool *p, const kernel_task *t);
/* Cores that this process may use. */
int pool_cores(void);

#endif
