/* Attention kernels alone: GFLOP/s of the best kernel for each shape and its share of the processor's measured
 * multiply-add rate. Causal pairs are counted exactly; forward 4 D, backward 10 D flops a pair.
 *     bench_attention [threads] [isa: avx2 avx512 avx512bf16] [longest n; 0: the short ones of training alone]
 * Processor time of the threads, not the clock, so that a busy machine disturbs it less. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "number.h"

#include "base/half.h"
#include "base/mem.h"
#include "cpu/attention/attention.h"
#include "cpu/cpu.h"

typedef struct kernel {
    const char *name;
    kernel_prepare_fn prepare;
    kernel_run_fn run;
    attn_leaf_fn leaf;
} kernel;

#define KERNELS(kind)                                                                                                  \
    {                                                                                                                  \
        {"avx2", attn_##kind##_prepare_avx2, attn_##kind##_run, attn_##kind##__avx2},                                  \
            {"avx512", attn_##kind##_prepare_avx512, attn_##kind##_run, attn_##kind##__avx512}, {                      \
            "avx512bf16", attn_##kind##_prepare_pairs, attn_##kind##_run, attn_##kind##__avx512bf16                    \
        }                                                                                                              \
    }
static const kernel forward[3] = KERNELS(fwd);
static const kernel backward[3] = KERNELS(bwd);

static double seconds(clockid_t id) {
    struct timespec t;
    clock_gettime(id, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef struct part {
    const kernel_task *task;
    pthread_barrier_t *barrier;
    int worker;
    double cpu;
} part;

static void *part_run(void *arg) {
    part *p = arg;
    const kernel_exec *x = p->task->exec;
    const double t = seconds(CLOCK_THREAD_CPUTIME_ID);
    for (int f = 0; f < x->phases; f++) {
        const int64_t n = x->tiles[f], w = p->task->workers;
        x->run(p->task, f, p->worker * n / w, (p->worker + 1) * n / w, p->worker);
        pthread_barrier_wait(p->barrier);
    }
    p->cpu = seconds(CLOCK_THREAD_CPUTIME_ID) - t;
    return NULL;
}

static double run_once(const kernel_task *task, double *cpu) {
    pthread_barrier_t barrier;
    pthread_t thread[64];
    part parts[64];
    pthread_barrier_init(&barrier, NULL, (unsigned)task->workers);
    const double t = seconds(CLOCK_MONOTONIC);
    for (int w = 0; w < task->workers; w++) {
        parts[w] = (part){task, &barrier, w, 0};
        if (w) pthread_create(&thread[w], NULL, part_run, &parts[w]);
    }
    part_run(&parts[0]);
    *cpu = parts[0].cpu;
    for (int w = 1; w < task->workers; w++) {
        pthread_join(thread[w], NULL);
        if (parts[w].cpu > *cpu) *cpu = parts[w].cpu;
    }
    pthread_barrier_destroy(&barrier);
    return seconds(CLOCK_MONOTONIC) - t;
}

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Medians of a few runs. */
static void measure(const kernel *k, const tl_op_call *call, int threads, double flops, double *wall_rate,
                    double *cpu_rate) {
    kernel_exec x = {.name = k->name, .run = k->run, .leaf = (void (*)(void))k->leaf};
    const char *why = k->prepare(call, threads, false, NULL, &x);
    *wall_rate = *cpu_rate = 0;
    if (why) return;
    void *scratch = aligned_alloc(64, (x.scratch + 63) / 64 * 64);
    memset(scratch, 0, x.scratch);
    kernel_task t = {.call = call, .exec = &x, .scratch = scratch, .workers = threads};
    double wall[15], cpu[15], spent = 0;
    int n = 0;
    wall[0] = run_once(&t, &cpu[0]);
    while (n < 15 && (n < 3 || spent < 0.6)) {
        wall[n] = run_once(&t, &cpu[n]);
        spent += wall[n++];
    }
    qsort(wall, (size_t)n, sizeof *wall, by_size);
    qsort(cpu, (size_t)n, sizeof *cpu, by_size);
    *wall_rate = flops / wall[n / 2] * 1e-9;
    *cpu_rate = flops / cpu[n / 2] * 1e-9;
    free(scratch);
}

__attribute__((target("avx512f"), noinline)) static double peak_f32(void) {
    typedef float v16 __attribute__((vector_size(64)));
    double best = 0;
    for (int rep = 0; rep < 5; rep++) {
        v16 a0 = {0}, a1 = a0, a2 = a0, a3 = a0, a4 = a0, a5 = a0, a6 = a0, a7 = a0, a8 = a0, a9 = a0, aa = a0, ab = a0;
        v16 x = a0 + 0.5f;
        const double t = seconds(CLOCK_THREAD_CPUTIME_ID);
        for (int i = 0; i < 3000000; i++)
            __asm__ volatile("vfmadd231ps %12,%12,%0\n vfmadd231ps %12,%12,%1\n vfmadd231ps %12,%12,%2\n"
                             "vfmadd231ps %12,%12,%3\n vfmadd231ps %12,%12,%4\n vfmadd231ps %12,%12,%5\n"
                             "vfmadd231ps %12,%12,%6\n vfmadd231ps %12,%12,%7\n vfmadd231ps %12,%12,%8\n"
                             "vfmadd231ps %12,%12,%9\n vfmadd231ps %12,%12,%10\n vfmadd231ps %12,%12,%11"
                             : "+v"(a0), "+v"(a1), "+v"(a2), "+v"(a3), "+v"(a4), "+v"(a5), "+v"(a6), "+v"(a7), "+v"(a8),
                               "+v"(a9), "+v"(aa), "+v"(ab)
                             : "v"(x));
        const double rate = 3e6 * 12 * 32 / (seconds(CLOCK_THREAD_CPUTIME_ID) - t) * 1e-9;
        if (rate > best) best = rate;
    }
    return best;
}

static tl_arg tensor(tl_dtype t, int64_t b, int64_t n, int64_t h, int64_t d, int64_t row) {
    tl_arg a = {.d = {t, 4, {b, n, h, d}, {n * row, row, d, 1}}};
    a.data = mem_new(&mem_default, (size_t)(b * n * row) * 4 + 64, 1);
    for (int64_t i = 0; i < b * n * row; i++) {
        const float x = (float)(rand() % 2001 - 1000) * 1e-3f;
        if (t == TL_F32)
            ((float *)a.data)[i] = x;
        else
            ((uint16_t *)a.data)[i] = half_f32_to_bf16(x);
    }
    return a;
}

/* b sequences of n tokens, h heads of width d, hk kv heads */
static void shape(int isa, tl_dtype dtype, int64_t b, int64_t n, int64_t h, int64_t hk, int64_t d, int threads,
                  double peak) {
    struct attention_bwd_attr attr = {.f = {.causal = 1}};
    const int64_t qkv = (h + 2 * hk) * d;
    tl_arg q = tensor(dtype, b, n, h, d, qkv), k = tensor(dtype, b, n, hk, d, qkv), v = tensor(dtype, b, n, hk, d, qkv);
    tl_arg o = tensor(dtype, b, n, h, d, h * d), g = tensor(dtype, b, n, h, d, h * d);
    tl_arg dq = tensor(dtype, b, n, h, d, h * d);
    tl_arg dk = tensor(dtype, b, n, hk, d, hk * d), dv = tensor(dtype, b, n, hk, d, hk * d);
    tl_arg lse = {calloc((size_t)(b * n * h), 4), tl_desc_make(TL_F32, 3, (int64_t[]){b, h, n})};
    const double pairs = (double)n * (double)(n + 1) / 2 * (double)(h * b);
    tl_op_call f = {.attr = &attr.f, .in = {q, k, v}, .out = {o, lse}};
    tl_op_call back = {.attr = &attr, .in = {g, q, k, v, o, lse}, .out = {dq, dk, dv}};
    double fw, fc, bw, bc;
    const double share = peak > 0 ? 100 / peak : 0;
    measure(&forward[isa], &f, threads, pairs * 4 * (double)d, &fw, &fc);
    measure(&backward[isa], &back, threads, pairs * 10 * (double)d, &bw, &bc);
    printf("%-4s %2ld x %6ld  %2ld/%2ld x %3ld  forward %6.1f (clock %6.1f) %3.0f%%   backward %6.1f (clock %6.1f) "
           "%3.0f%%\n",
           tl_dtype_name(dtype), (long)b, (long)n, (long)h, (long)hk, (long)d, fc, fw, share * fc, bc, bw, share * bc);
    fflush(stdout);
    void *p[] = {q.data, k.data, v.data, o.data, g.data, dq.data, dk.data, dv.data};
    for (size_t i = 0; i < sizeof p / sizeof *p; i++) mem_free(&mem_default, p[i]);
    free(lse.data);
}

static int usage(const char *what, const char *given) {
    fprintf(stderr, "%s: '%s'\nusage: bench_attention [threads 1..64] [avx2|avx512|avx512bf16] [longest n]\n", what,
            given);
    return 2;
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? (int)bench_number(argv[1], 1, 64) : 1;
    const char *name = argc > 2 ? argv[2] : "avx512";
    const int64_t most = argc > 3 ? bench_number(argv[3], 0, 1 << 20) : 4096;
    int isa = 0;
    while (isa < 3 && strcmp(name, forward[isa].name)) isa++;
    if (threads < 0) return usage("not a count of threads", argv[1]);
    if (isa == 3) return usage("no such kernels", name);
    if (most < 0) return usage("not a length", argv[3]);
    if (argc > 4) return usage("one argument too many", argv[4]);
    uint32_t needs = 0;
    (void)isa_cap(name, &needs);
    if (needs & ~isa_probe()) return usage("this processor has not what these kernels need", name);
    const double peak = isa_probe() & ISA_AVX512 ? peak_f32() * threads : 0;
    printf("GFLOP/s by processor time, %d threads, %s; share of the f32 peak %.1f\n", threads, forward[isa].name, peak);
    for (tl_dtype t = TL_F32; t <= TL_BF16; t++) {
        if (t == TL_F64 || (isa == 2 && t == TL_F32)) continue;
        shape(isa, t, 12, 64, 4, 4, 32, threads, peak); /* training of small models */
        shape(isa, t, 12, 128, 12, 12, 64, threads, peak);
        shape(isa, t, 16, 256, 6, 6, 64, threads, peak);
        if (most == 0) continue;
        for (int64_t n = 1024; n <= most; n *= 4) shape(isa, t, 1, n, 12, 12, 64, threads, peak);
        shape(isa, t, 1, 4096, 1, 1, 64, threads, peak);
        shape(isa, t, 1, 1024, 12, 2, 128, threads, peak);
    }
    return 0;
}
