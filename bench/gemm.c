/* Products as kernels, on the pool: GFLOP/s and the share of the multiply-add rate measured in the same run, every
 * kernel that takes the call, best of several interleaved runs.
 *   gemm [threads] [kernel substring] [char-cpu|char|gpt2|head|decode] */
#include "number.h"

#include "base/mem.h"
#include "cpu/cpu.h"
#include "cpu/product/peak.h"
#include "op/op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static clockid_t clock_used = CLOCK_MONOTONIC; /* with one thread: its own time, which a busy machine cannot stretch */

static double now(void) {
    struct timespec t;
    clock_gettime(clock_used, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double peak_rate(peak_leaf *f, int threads) {
    double best = 0;
    for (int i = 0; i < 5; i++) {
        const double t = now(), done = f(2000000);
        const double rate = done / (now() - t) / 1e9;
        if (rate > best) best = rate;
    }
    return best * threads;
}

/* Products of training steps, and of decoding. */
typedef struct shape {
    const char *model, *op;
    int64_t M, N, K;
} shape;
#define STEP(model, M, N, K)                                                                                           \
    {model, "linear", M, N, K}, {model, "linear_dx", M, N, K}, {                                                       \
        model, "linear_dw", M, N, K                                                                                    \
    }
static const shape shapes[] = {
    STEP("char-cpu", 768, 384, 128),     STEP("char-cpu", 768, 128, 128),     STEP("char-cpu", 768, 512, 128),
    STEP("char-cpu", 768, 128, 512),     STEP("char", 4096, 1152, 384),       STEP("char", 4096, 384, 384),
    STEP("char", 4096, 1536, 384),       STEP("char", 4096, 384, 1536),       STEP("gpt2", 1024, 2304, 768),
    STEP("gpt2", 1024, 768, 768),        STEP("gpt2", 1024, 3072, 768),       STEP("gpt2", 1024, 768, 3072),
    {"head", "linear", 256, 50304, 768}, {"decode", "linear", 1, 768, 768},   {"decode", "linear", 1, 3072, 768},
    {"decode", "linear", 1, 50304, 768}, {"decode", "linear", 4, 50304, 768},
};

static void *filled(size_t bytes) {
    uint8_t *p = aligned_alloc(64, (bytes + 63) / 64 * 64);
    if (!p) exit(1);
    for (size_t i = 0; i < bytes; i++)
        p[i] = i % 2 ? 0x3e : (uint8_t)(i * 31); /* small positive numbers in f32 and bf16 */
    return p;
}

static void open_call(const shape *s, tl_dtype t, tl_op_call *c, struct linear_attr *a) {
    const int64_t x[2] = {s->M, s->K}, w[2] = {s->N, s->K}, y[2] = {s->M, s->N};
    memset(c, 0, sizeof *c);
    memset(a, 0, sizeof *a);
    c->attr = a;
    const bool dw = !strcmp(s->op, "linear_dw"), dx = !strcmp(s->op, "linear_dx");
    c->in[0].d = tl_desc_make(t, 2, dw || dx ? y : x);
    c->in[1].d = tl_desc_make(t, 2, dw ? x : w);
    c->out[0].d = tl_desc_make(dw ? TL_F32 : t, 2, dw ? w : dx ? x : y);
    c->acc = dw;
    for (int i = 0; i < 2; i++)
        c->in[i].data = filled((size_t)tl_desc_count(&c->in[i].d) * tl_dtype_bytes(c->in[i].d.dtype));
    c->out[0].data = filled((size_t)tl_desc_count(&c->out[0].d) * tl_dtype_bytes(c->out[0].d.dtype));
}

static bool known_model(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (!strcmp(shapes[i].model, name)) return true;
    return false;
}

int main(int argc, char **argv) {
    const int threads = argc > 1 ? (int)bench_number(argv[1], 1, 64) : 2;
    const char *only = argc > 2 ? argv[2] : "";
    if (threads < 0 || argc > 4 || (argc > 3 && !known_model(argv[3]))) {
        fprintf(stderr,
                "usage: bench_gemm [threads 1..64] [part of a kernel's name] [char-cpu|char|gpt2|head|decode]\n");
        return 2;
    }
    if (threads == 1) clock_used = CLOCK_THREAD_CPUTIME_ID;
    const uint32_t isa = isa_probe();
    const char *model = argc > 3 ? argv[3] : "";
    const double f32 = peak_rate(isa & ISA_AVX512 ? peak_f32__avx512 : peak_f32__avx2, threads);
    const double bf16 = isa & ISA_AVX512BF16 ? peak_rate(peak_bf16__avx512bf16, threads) : 0;
    tl_error err;
    device *d = cpu_device_create(&mem_default, threads, isa, &err);
    if (!d) return 1;
    printf("%d threads; multiply-add rate: f32 %.0f, bf16 dot %.0f GFLOP/s\n", threads, f32, bf16);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int b = 0; b < 2; b++) {
            const shape *s = &shapes[i];
            if (strncmp(s->model, model, strlen(model)) != 0 || (!strcmp(model, "char") && strcmp(s->model, "char")))
                continue;
            struct linear_attr attr;
            tl_op_call c;
            open_call(s, b ? TL_BF16 : TL_F32, &c, &attr);
            const double flops = 2.0 * (double)s->M * (double)s->N * (double)s->K;
            printf("%-9s %4s %5d x %5d x %5d ", s->op, b ? "bf16" : "f32", (int)s->M, (int)s->N, (int)s->K);
            for (size_t k = 0; k < kernel_count; k++) {
                kernel_exec x;
                if (kernel_table[k].op != tl_op_find(s->op)->id || !strstr(kernel_table[k].name, only)) continue;
                if (strstr(kernel_table[k].name, "avx2") && isa & ISA_AVX512) continue;
                if (cpu_row_accepts(&kernel_table[k], isa, &c, threads, false, &mem_default, &x)) continue;
                kernel_task t = {.call = &c, .exec = &x, .workers = threads, .scratch = filled(x.scratch + 64)};
                double best = 1e9;
                for (int r = 0; r < (flops > 1e9 ? 7 : 30); r++) {
                    const double from = now();
                    d->launch(d, &t);
                    const double took = now() - from;
                    if (took < best) best = took;
                }
                printf("  %s %.0f (%.0f %%)", kernel_table[k].name, flops / best / 1e9, 100 * flops / best / 1e9 / f32);
                if (s->M <= 8) printf(" %.1f GB/s", (double)(s->N * s->K) * (b ? 2 : 4) / best / 1e9);
                if (x.state_free) x.state_free(x.state, &mem_default);
                free(t.scratch);
            }
            printf("\n");
            for (int k = 0; k < 2; k++) free(c.in[k].data);
            free(c.out[0].data);
        }
    cpu_device_destroy(d);
    return 0;
}
