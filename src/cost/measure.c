#include "cost/measure.h"

#include "cpu/kernel.h"
#include "cpu/product/peak.h"
#include "op/attrs.h"
#include "tensor/tensor.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double clock_read(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- limits --------------------------------------------------------------------------------------------------- */

enum { ROUNDS = 200000, TRIES = 12, READ_STEP = 4096 };
static const size_t READ_BYTES = (size_t)64 << 20; /* by each thread: more than caches hold */

static void run_peak(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)phase, (void)worker;
    for (; lo < hi; lo++) ((peak_leaf *)t->exec->leaf)(ROUNDS);
}

typedef struct read_job {
    tl_op_call none; /* what a task carries; here its address leads to the rest */
    const char *memory;
    size_t each;
} read_job;

static void run_read(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const read_job *j = (const read_job *)(const void *)t->call;
    (void)phase, (void)worker;
    for (; lo < hi; lo++) ((peak_read_leaf *)t->exec->leaf)(j->memory + j->each * (size_t)lo, j->each);
}

static void run_nothing(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)t, (void)phase, (void)lo, (void)hi, (void)worker;
}

/* The least seconds of several launches with `tiles` tiles, one to a thread. */
static double least(device *dev, clockid_t clock, kernel_run_fn run, void (*leaf)(void), const tl_op_call *call,
                    int tiles, int tries) {
    kernel_exec x = {.run = run, .leaf = leaf, .phases = 1, .tiles = {tiles}};
    const tl_op_call none = {0};
    kernel_task t = {.call = call ? call : &none, .exec = &x, .workers = dev->threads};
    double best = HUGE_VAL;
    for (int i = 0; i < tries; i++) {
        const double from = clock_read(clock);
        dev->launch(dev, &t);
        const double took = clock_read(clock) - from;
        if (took < best) best = took;
    }
    return clock == CLOCK_PROCESS_CPUTIME_ID ? best / tiles : best;
}

static double peak_rate(device *dev, clockid_t clock, peak_leaf *leaf) {
    double flops = (double)dev->threads * leaf(ROUNDS);
    return flops / least(dev, clock, run_peak, (void (*)(void))leaf, NULL, dev->threads, TRIES / 2);
}

static double read_rate(tl_engine *e, clockid_t clock, const void *memory, size_t bytes, int tiles, int tries) {
    void (*leaf)(void) = (void (*)(void))(e->isa & ISA_AVX512 ? peak_read__avx512 : peak_read__avx2);
    read_job j = {.memory = memory, .each = bytes / (size_t)tiles / READ_STEP * READ_STEP};
    return (double)(j.each * (size_t)tiles) / least(e->host.dev, clock, run_read, leaf, &j.none, tiles, tries);
}

double measure_reads(tl_engine *e, clockid_t clock, const void *memory, size_t bytes) {
    const int threads = e->host.dev->threads;
    if (!(e->isa & (ISA_AVX2 | ISA_AVX512)) || bytes < READ_STEP * (size_t)threads) return 0;
    return read_rate(e, clock, memory, bytes, threads, TRIES / 2);
}

static tl_status peak_read(tl_engine *e, clockid_t clock, cost_machine *m, tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    const int threads = e->host.dev->threads;
    const size_t bytes = READ_BYTES * (size_t)threads;
    void *memory = mem_take(a, bytes);
    if (!memory) return error_set(err, TL_NOMEM, "no memory to measure the machine's bandwidth");
    memset(memory, 1, bytes);
    m->bandwidth = read_rate(e, clock, memory, bytes, threads, TRIES);
    m->bandwidth_one = read_rate(e, clock, memory, READ_BYTES, 1, TRIES / 2);
    mem_give(a, memory, bytes);
    return TL_OK;
}

/* Where no loop of ours fits the processor: the best kernel's rate on a square product and on a copy. */
static tl_status limits_of_kernels(tl_engine *e, cost_machine *m, tl_error *err) {
    enum { SIDE = 1024, WIDE = 1 << 23 };
    for (int k = 0; k < 2; k++) {
        tl_graph *g;
        tl_plan *p = NULL;
        tl_status s = tl_graph_create(e, &g);
        if (s != TL_OK) return error_set(err, s, "no memory for a graph");
        tl_tensor *y;
        if (k == 0)
            y = tl_linear(g, tl_input(g, "x", TL_F32, 2, (int64_t[]){SIDE, SIDE}),
                          tl_const(g, "w", TL_F32, 2, (int64_t[]){SIDE, SIDE}), NULL, TL_NONE);
        else
            y = tl_scale(g, tl_input(g, "x", TL_F32, 2, (int64_t[]){WIDE / SIDE, SIDE}), 2);
        tl_output(g, y, "y");
        s = tl_plan_create(g, false, &p, err);
        if (s == TL_OK) s = measure_plan(e, g, p, &(measure_run){.vocab = 1, .context = 1, .budget = 0.3}, err);
        for (size_t i = 0; s == TL_OK && i < p->n_steps; i++) {
            const plan_step *q = &p->steps[i];
            if (k == 0 && q->seconds > 0) m->f32 = m->half = m->int8 = q->cost.flops / q->seconds;
            if (k == 1 && q->seconds > 0)
                m->bandwidth = m->bandwidth_one = (q->cost.bytes_read + q->cost.bytes_written) / q->seconds;
        }
        tl_plan_destroy(p);
        tl_graph_destroy(g);
        if (s != TL_OK) return s;
    }
    return TL_OK;
}

tl_status measure_limits(tl_engine *e, clockid_t clock, cost_machine *m, tl_error *err) {
    device *dev = e->host.dev;
    char processor[96];
    if (dev->memory)
        return error_set(err, TL_UNSUPPORTED, "device %s is not measured yet; the processor is", dev->name);
    machine_processor(processor, sizeof processor);
    *m = (cost_machine){.threads = dev->threads, .alloc = tl_engine_allocator(e)};
    snprintf(m->name, sizeof m->name, "this");
    snprintf(m->title, sizeof m->title, "%s, %d threads", processor, dev->threads);
    snprintf(m->source, sizeof m->source, "measured now");
    m->memory = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (strcmp(dev->name, "cpu") != 0 || !(e->isa & (ISA_AVX2 | ISA_AVX512))) return limits_of_kernels(e, m, err);
    bool wide = e->isa & ISA_AVX512;
    m->f32 = peak_rate(dev, clock, wide ? peak_f32__avx512 : peak_f32__avx2);
    m->half = e->isa & ISA_AVX512BF16 ? peak_rate(dev, clock, peak_bf16__avx512bf16) : m->f32;
    m->int8 = e->isa & ISA_AVX512VNNI ? peak_rate(dev, clock, peak_int8__avx512vnni) : m->f32;
    m->launch = HUGE_VAL; /* bursts with work between them: a worker that sleeps through one wakes for the next */
    for (int i = 0; i < TRIES; i++) {
        m->launch = fmin(m->launch, least(dev, clock, run_nothing, NULL, NULL, dev->threads, 200));
        peak_rate(dev, clock, wide ? peak_f32__avx512 : peak_f32__avx2);
    }
    return peak_read(e, clock, m, err);
}

/* ---- made-up memory for a plan ---------------------------------------------------------------------------------- */

/* Numbers around zero without order, none of them so small that arithmetic becomes slow. */
static double some_number(int64_t i) {
    uint32_t x = (uint32_t)i * 2654435761u;
    x ^= x >> 15;
    return ((double)(x >> 8 & 0xffff) + 0.5) / 65536 * 0.1 - 0.05;
}

static int32_t some_index(const measure_run *r, const char *name, int64_t i, int64_t n) {
    bool own = r->slots > 1; /* each row a sequence of its own */
    if (strcmp(name, "pos") == 0) return (int32_t)(r->slots ? own ? r->first : r->first + i : i % r->context);
    if (strcmp(name, "slot") == 0) return own ? (int32_t)(i % r->slots) : 0;
    if (strcmp(name, "select") == 0) return own ? (int32_t)i : 0;
    if (strcmp(name, "doc") == 0) return 0;
    (void)n;
    return (int32_t)((i * 7919 + i / 3) % (r->vocab > 0 ? r->vocab : 1));
}

static void fill(const measure_run *r, const tl_tensor *t, void *to, size_t bytes) {
    int64_t n = tl_desc_count(&t->d);
    const char *name = t->name ? t->name : "";
    bool positive = strcmp(name, "hyper") == 0 || strcmp(name, "v") == 0 || strcmp(name, "vv") == 0;
    switch (t->d.dtype) {
    case TL_I32:
        for (int64_t i = 0; i < n; i++) ((int32_t *)to)[i] = some_index(r, name, i, n);
        return;
    case TL_F32:
        for (int64_t i = 0; i < n; i++) {
            double x = some_number(i);
            ((float *)to)[i] = (float)(positive ? fabs(x) + 0.01 : x);
        }
        if (strcmp(name, "denom") == 0) *(float *)to = 1024;
        return;
    case TL_F64:
        for (int64_t i = 0; i < n; i++) ((double *)to)[i] = pow(10000, -(double)i / (double)n);
        return;
    case TL_BF16:
        for (int64_t i = 0; i < n; i++) {
            float x = (float)some_number(i);
            uint32_t u;
            memcpy(&u, &x, sizeof u);
            ((uint16_t *)to)[i] = (uint16_t)(u >> 16);
        }
        return;
    default: memset(to, 0x11, bytes); return; /* blocks: scales of 6e-4 */
    }
}

static size_t rounded(const tl_desc *d) {
    size_t bytes = 0;
    return tensor_bytes(d, &bytes) ? (bytes + 63) & ~(size_t)63 : 0;
}

static bool bound(const tl_plan *p, const tl_tensor *t) {
    return t->kind != TENSOR_NODE && t->kind != TENSOR_ONE && p->tensors[t->index].storage >= 0;
}

enum { RUNS = 64 };

static int by_seconds(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Of each step the time that a fourth of its runs stay under: other work on the machine does not reach down to it, and
 * whole runs, of which not every step can be the luckiest at once, come near to its sum. */
static tl_status run_some(const tl_allocator *a, tl_plan *p, double budget) {
    float *took = mem_new(a, p->n_steps * RUNS + 1, sizeof *took);
    if (!took) return TL_NOMEM;
    const double from = clock_read(CLOCK_MONOTONIC);
    tl_status s = tl_plan_run_profiled(p); /* warms up */
    size_t n = 0;
    for (; s == TL_OK && n < RUNS && (n < 3 || clock_read(CLOCK_MONOTONIC) - from < budget); n++) {
        s = tl_plan_run_profiled(p);
        for (size_t i = 0; i < p->n_steps; i++) took[i * RUNS + n] = (float)p->steps[i].seconds;
    }
    for (size_t i = 0; s == TL_OK && i < p->n_steps; i++) {
        qsort(took + i * RUNS, n, sizeof *took, by_seconds);
        p->steps[i].seconds = (double)took[i * RUNS + n / 4];
    }
    mem_free(a, took);
    return s;
}

tl_status measure_bind(tl_engine *e, tl_graph *g, tl_plan *p, const measure_run *r, void **memory, size_t *bytes,
                       tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    size_t total = 64, at = 0;
    for (size_t i = 0; i < g->n_tensors; i++)
        if (bound(p, g->tensors[i])) total += rounded(&g->tensors[i]->d);
    unsigned char *block = mem_take(a, total);
    if (!block) return error_set(err, TL_NOMEM, "no memory to time a plan");
    tl_status s = TL_OK;
    for (size_t i = 0; i < g->n_tensors && s == TL_OK; i++) {
        const tl_tensor *t = g->tensors[i];
        if (!bound(p, t)) continue;
        fill(r, t, block + at, rounded(&t->d));
        s = tl_plan_bind(p, t, block + at);
        at += rounded(&t->d);
    }
    *memory = block;
    *bytes = total;
    if (s == TL_OK) return TL_OK;
    mem_give(a, block, total);
    return error_set(err, s, "a plan could not be bound: %s", tl_status_text(s));
}

tl_status measure_plan(tl_engine *e, tl_graph *g, tl_plan *p, const measure_run *r, tl_error *err) {
    const tl_allocator *a = tl_engine_allocator(e);
    void *memory;
    size_t bytes;
    TRY(measure_bind(e, g, p, r, &memory, &bytes, err));
    tl_status s = run_some(a, p, r->budget);
    mem_give(a, memory, bytes);
    return s == TL_OK ? TL_OK : error_set(err, s, "a plan could not be timed: %s", tl_status_text(s));
}
