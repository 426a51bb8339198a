#include "cpu/pool.h"

#include "base/mem.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>

/* How long a thread looks for work before it sleeps: longer than what lies between two steps of a plan and than waking
 * takes (a virtual machine needs 50 us), shorter than what anybody would notice as a busy processor. Who waits longer
 * than LONG_NS waits for somebody who has no core, and looks half as long the next time. */
enum { SPIN_NS = 100000, LONG_NS = 1000000, SPIN_CHECK = 64 };

typedef struct pool_worker {
    pool *pool;
    int number;
    pthread_t thread;
    int64_t patience; /* ns that it looks before it sleeps: all, where looking pays; less, where cores are contended */
} pool_worker;

/* Two counters carry everything. `launched` counts tasks: workers wait for it to grow. `arrived` counts workers that
 * have finished a phase: everybody waits for it to reach the next multiple of W. */
struct pool {
    const tl_allocator *alloc;
    int workers;
    bool spin; /* only if every worker can have a core */
    bool stop;
    const kernel_task *task;
    uint64_t base; /* `arrived` before this task */
    _Alignas(64) _Atomic uint64_t launched;
    _Alignas(64) _Atomic uint64_t arrived;
    _Alignas(64) atomic_int sleepers[2];
    atomic_flag busy;
    pthread_mutex_t lock;
    pthread_cond_t wake[2];
    int started;
    pool_worker worker[]; /* (workers) */
};
enum { WAIT_LAUNCH, WAIT_ARRIVE };

int pool_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int)n : 1;
}

static inline void pool_pause(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static int64_t pool_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Waits until *count >= least: first looking, then asleep. A sleeper announces itself before it looks for the last
 * time, and who counts looks for sleepers after counting; both in one total order (seq_cst), so one of the two sees the
 * other. */
static void pool_wait(pool *p, int worker, _Atomic uint64_t *count, uint64_t least, int kind) {
    if (atomic_load_explicit(count, memory_order_acquire) >= least) return;
    int64_t *patience = &p->worker[worker].patience, since = 0;
    if (p->spin) {
        since = pool_clock();
        do {
            for (int i = 0; i < SPIN_CHECK; i++) {
                if (atomic_load_explicit(count, memory_order_acquire) >= least) return;
                pool_pause();
            }
        } while (pool_clock() - since < *patience);
    }
    pthread_mutex_lock(&p->lock);
    atomic_fetch_add(&p->sleepers[kind], 1);
    while (atomic_load(count) < least) pthread_cond_wait(&p->wake[kind], &p->lock);
    atomic_fetch_sub(&p->sleepers[kind], 1);
    pthread_mutex_unlock(&p->lock);
    if (p->spin) *patience = pool_clock() - since < LONG_NS ? SPIN_NS : *patience / 2;
}

static void pool_wake(pool *p, int kind) {
    if (atomic_load(&p->sleepers[kind]) == 0) return;
    pthread_mutex_lock(&p->lock);
    pthread_cond_broadcast(&p->wake[kind]);
    pthread_mutex_unlock(&p->lock);
}

static void pool_arrive(pool *p) {
    uint64_t now = atomic_fetch_add(&p->arrived, 1) + 1;
    if (now % (uint64_t)p->workers == 0) pool_wake(p, WAIT_ARRIVE);
}

static int64_t pool_repeats(const kernel_task *t) {
    return t->exec->repeats > 1 ? t->exec->repeats : 1;
}

/* One worker's part of a task, with a barrier after every phase. The last barrier only the caller waits at. */
static void pool_part(pool *p, const kernel_task *task, uint64_t base, int worker) {
    kernel_task t = *task;
    int64_t repeats = pool_repeats(task), w = worker, all = p->workers;
    uint64_t barrier = base;
    int phases = task->exec->phases; /* after the last arrival the caller may free the task: it is not read again */
    for (t.repeat = 0; t.repeat < repeats; t.repeat++) {
        for (int phase = 0; phase < phases; phase++) {
            int64_t n = t.exec->tiles[phase], lo = w * n / all, hi = (w + 1) * n / all;
            if (lo < hi) t.exec->run(&t, phase, lo, hi, worker);
            barrier += (uint64_t)all;
            bool last = t.repeat + 1 == repeats && phase + 1 == phases;
            pool_arrive(p);
            if (!last || worker == 0) pool_wait(p, worker, &p->arrived, barrier, WAIT_ARRIVE);
        }
    }
}

static void *pool_main(void *arg) {
    pool_worker *me = arg;
    pool *p = me->pool;
    for (uint64_t seen = 0;;) {
        pool_wait(p, me->number, &p->launched, ++seen, WAIT_LAUNCH);
        if (p->stop) return NULL;
        pool_part(p, p->task, p->base, me->number);
    }
}

static void pool_alone(const kernel_task *task) {
    kernel_task t = *task;
    int64_t repeats = pool_repeats(task);
    for (t.repeat = 0; t.repeat < repeats; t.repeat++)
        for (int phase = 0; phase < t.exec->phases; phase++)
            if (t.exec->tiles[phase] > 0) t.exec->run(&t, phase, 0, t.exec->tiles[phase], 0);
}

static void pool_launch(pool *p) {
    atomic_fetch_add(&p->launched, 1);
    pool_wake(p, WAIT_LAUNCH);
}

void pool_run(pool *p, const kernel_task *t) {
    int64_t most = 0;
    for (int i = 0; i < t->exec->phases; i++)
        if (t->exec->tiles[i] > most) most = t->exec->tiles[i];
    if (p->workers == 1 || most < 2 || atomic_flag_test_and_set_explicit(&p->busy, memory_order_acquire)) {
        pool_alone(t); /* waking others for one tile costs more than it could give */
        return;
    }
    p->task = t;
    p->base = atomic_load_explicit(&p->arrived, memory_order_relaxed);
    pool_launch(p);
    pool_part(p, t, p->base, 0);
    atomic_flag_clear_explicit(&p->busy, memory_order_release);
}

tl_status pool_create(const tl_allocator *a, int threads, pool **out, tl_error *err) {
    *out = NULL;
    if (threads < 1) return error_set(err, TL_ARG, "at least one thread");
    size_t size = sizeof(pool) + (size_t)threads * sizeof(pool_worker);
    pool *p = mem_new(a, 1, size);
    if (!p) return error_set(err, TL_NOMEM, "no memory for %d threads", threads);
    p->alloc = a;
    p->workers = threads;
    p->spin = threads <= pool_cores();
    atomic_flag_clear(&p->busy);
    pthread_mutex_init(&p->lock, NULL);
    for (int i = 0; i < 2; i++) pthread_cond_init(&p->wake[i], NULL);
    for (int i = 0; i < threads; i++) p->worker[i] = (pool_worker){.pool = p, .number = i, .patience = SPIN_NS};
    /* Signals are the host program's affair, and generated code of oneDNN has no room for a handler's frame on the stack. */
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS, SIGPROF};
    sigset_t all, before;
    sigfillset(&all);
    for (size_t i = 0; i < sizeof faults / sizeof *faults; i++) sigdelset(&all, faults[i]);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    bool failed = false;
    for (int i = 1; i < threads && !failed; i++) {
        if (pthread_create(&p->worker[i].thread, NULL, pool_main, &p->worker[i]) != 0)
            failed = true;
        else
            p->started = i;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        int got = p->started + 1;
        pool_destroy(p);
        return error_set(err, TL_DEVICE, "the system gives no more threads: %d of %d", got, threads);
    }
    *out = p;
    return TL_OK;
}

void pool_destroy(pool *p) {
    if (!p) return;
    p->stop = true;
    pool_launch(p);
    for (int i = 1; i <= p->started; i++) pthread_join(p->worker[i].thread, NULL);
    for (int i = 0; i < 2; i++) pthread_cond_destroy(&p->wake[i]);
    pthread_mutex_destroy(&p->lock);
    mem_free(p->alloc, p);
}
