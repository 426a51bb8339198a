/* tilia bench gemm, attention: single operators through the kernels that planning would choose. */
#include "cli/bench_cli.h"

#include "base/mem.h"
#include "graph/device.h"
#include "op/attrs.h"
#include "op/op.h"

#include <stdlib.h>
#include <string.h>

enum { RUNS = 15 };

static tl_arg argument(tl_dtype t, int ndim, const int64_t *dim, bool *ok) {
    tl_arg a = {.d = tl_desc_make(t, ndim, dim)};
    const size_t bytes = (size_t)tl_desc_count(&a.d) * tl_dtype_bytes(t);
    a.data = mem_new(&mem_default, bytes, 1); /* on large pages, as in a plan */
    if (!a.data) *ok = false;
    for (size_t i = 0; a.data && i < bytes; i++)
        ((uint8_t *)a.data)[i] = i % 2 ? 0x3e : (uint8_t)(i * 31); /* small positive numbers in f32 and bf16 */
    return a;
}

static void call_free(tl_op_call *c) {
    for (int i = 0; i < TL_OP_INS; i++) mem_free(&mem_default, c->in[i].data);
    for (int i = 0; i < TL_OP_OUTS; i++) mem_free(&mem_default, c->out[i].data);
}

/* Median seconds of the chosen kernel. */
static tl_status measure(const bench_options *o, const char *op, const tl_op_call *c, kernel_exec *x, double *seconds,
                         tl_error *e) {
    device *dev = o->engine->host.dev;
    double took[RUNS], all = 0;
    int n = 0;
    TRY(dev->choose(dev, tl_op_find(op), c, false, x, NULL, 0, e));
    void *scratch = mem_new(&mem_default, x->scratch, 1);
    if (!scratch) return error_set(e, TL_NOMEM, "no memory for a kernel");
    kernel_task t = {.call = c, .exec = x, .scratch = scratch, .workers = dev->threads};
    dev->launch(dev, &t);
    while (n < RUNS && (n < 3 || all < 1)) {
        const double from = bench_now(o);
        dev->launch(dev, &t);
        all += took[n++] = bench_now(o) - from;
    }
    if (x->state && x->state_free) x->state_free(x->state, dev->alloc);
    mem_free(&mem_default, scratch);
    *seconds = bench_median(took, n);
    if (o->clock == CLOCK_PROCESS_CPUTIME_ID) *seconds /= dev->threads;
    return TL_OK;
}

static void report(bench_options *o, const char *op, tl_dtype t, const char *shape, const char *kernel, double flops,
                   double seconds) {
    const double limit = bench_peak(o, t);
    if (o->common.json) {
        bench_json_row(o);
        printf("{\"op\": \"%s\", \"dtype\": \"%s\", \"shape\": \"%s\", \"kernel\": \"%s\", \"flops\": %.0f, "
               "\"seconds\": %.6g, \"limit_flops\": %.6g}",
               op, tl_dtype_name(t), shape, kernel, flops, seconds, limit);
    } else {
        printf("%-14s %-5s %-22s %-28s %10.3f ms %8.1f GFLOP/s %5.0f %%\n", op, tl_dtype_name(t), shape, kernel,
               1e3 * seconds, 1e-9 * flops / seconds, limit > 0 ? 100 * flops / seconds / limit : 0);
    }
}

/* ---- products ------------------------------------------------------------------------------------------------- */

static tl_status product_one(bench_options *o, const char *op, tl_dtype t, int64_t M, int64_t N, int64_t K,
                             tl_error *e) {
    const int64_t x[2] = {M, K}, w[2] = {N, K}, y[2] = {M, N};
    const bool dw = strcmp(op, "linear_dw") == 0, dx = strcmp(op, "linear_dx") == 0;
    struct linear_attr attr = {0};
    bool ok = true;
    tl_op_call c = {.attr = &attr, .acc = dw};
    c.in[0] = argument(t, 2, dw || dx ? y : x, &ok);
    c.in[1] = argument(t, 2, dw ? x : w, &ok);
    c.out[0] = argument(dw ? TL_F32 : t, 2, dw ? w : dx ? x : y, &ok);
    kernel_exec k;
    double seconds;
    char shape[64];
    tl_status s = ok ? measure(o, op, &c, &k, &seconds, e) : error_set(e, TL_NOMEM, "no memory for a product");
    call_free(&c);
    TRY(s);
    snprintf(shape, sizeof shape, "%lld x %lld x %lld", (long long)M, (long long)N, (long long)K);
    report(o, op, t, shape, k.name, 2.0 * (double)M * (double)N * (double)K, seconds);
    return TL_OK;
}

tl_status bench_gemm(bench_options *o, tl_error *e) {
    static const int64_t shape[][3] = {{1024, 768, 768},  {1024, 2304, 768}, {1024, 3072, 768}, {1024, 768, 3072},
                                       {4096, 1152, 384}, {4096, 1536, 384}, {4096, 384, 1536}, {768, 384, 128},
                                       {768, 512, 128},   {768, 128, 512}};
    static const char *const ops[] = {"linear", "linear_dx", "linear_dw"};
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++)
        for (int k = 0; k < 3; k++) {
            if (o->dtype != TL_BF16) TRY(product_one(o, ops[k], TL_F32, shape[i][0], shape[i][1], shape[i][2], e));
            if (o->dtype != TL_F32) TRY(product_one(o, ops[k], TL_BF16, shape[i][0], shape[i][1], shape[i][2], e));
        }
    return TL_OK;
}

/* ---- attention -------------------------------------------------------------------------------------------------- */

static tl_status attention_one(bench_options *o, tl_dtype t, int64_t n, int64_t heads, tl_error *e) {
    const int64_t dim[4] = {1, n, heads, 64}, stat[3] = {1, heads, n};
    struct attention_bwd_attr attr = {.f = {.causal = 1}};
    bool ok = true;
    tl_op_call f = {.attr = &attr.f}, b = {.attr = &attr};
    for (int i = 0; i < 3; i++) f.in[i] = argument(t, 4, dim, &ok), b.out[i] = argument(t, 4, dim, &ok);
    f.out[0] = argument(t, 4, dim, &ok);
    f.out[1] = argument(TL_F32, 3, stat, &ok);
    b.in[0] = argument(t, 4, dim, &ok);
    for (int i = 0; i < 3; i++) b.in[i + 1] = f.in[i];
    b.in[4] = f.out[0];
    b.in[5] = f.out[1];
    kernel_exec k;
    double forward = 0, backward = 0;
    char shape[64];
    snprintf(shape, sizeof shape, "%lld tokens, %lld heads", (long long)n, (long long)heads);
    const double pairs = (double)n * (double)(n + 1) / 2 * (double)heads; /* causal: those that are computed */
    tl_status s = ok ? measure(o, "attention", &f, &k, &forward, e) : error_set(e, TL_NOMEM, "no memory for attention");
    if (s == TL_OK) report(o, "attention", t, shape, k.name, pairs * 4 * 64, forward);
    if (s == TL_OK) s = measure(o, "attention_bwd", &b, &k, &backward, e);
    if (s == TL_OK) report(o, "attention_bwd", t, shape, k.name, pairs * 10 * 64, backward);
    for (int i = 1; i < TL_OP_INS; i++) b.in[i].data = NULL; /* f's */
    call_free(&f);
    call_free(&b);
    return s;
}

static tl_status attention_types(bench_options *o, int64_t n, int64_t heads, tl_error *e) {
    if (o->dtype != TL_BF16) TRY(attention_one(o, TL_F32, n, heads, e));
    if (o->dtype != TL_F32) TRY(attention_one(o, TL_BF16, n, heads, e));
    return TL_OK;
}

tl_status bench_attention(bench_options *o, tl_error *e) {
    const int64_t least = o->context ? o->context : 256, most = o->context ? o->context : 4096;
    for (int64_t n = least; n <= most; n *= 4) {
        TRY(attention_types(o, n, 12, e));
        if (n == most || n >= 1024) TRY(attention_types(o, n, 1, e)); /* one head: where it is work */
    }
    return TL_OK;
}
