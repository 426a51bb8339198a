/* Gated attention and mixed chunks by themselves, through tl_eval: seconds and GFLOP/s of the cost rule.
 *     bench_flash core [threads]    gau_attention against the same composed of plain operators, forward + backward;
 * f32, bf16 bench_flash layer [threads] [longest n]   a causal FLASH layer of width 768, forward + backward: time per
 * token bench_flash decode [threads]  chunk_step at position 1,000 and 1,000,000; gau_attention_kv at 1k and 16k */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "number.h"

#include "base/half.h"
#include "base/mem.h"
#include "base/rng.h"
#include "infer/decoder.h"
#include "op/op.h"
#include "tilia/graph.h"

static bool alone; /* one thread: its own time, which a busy machine disturbs less */

static double now(void) {
    struct timespec t;
    clock_gettime(alone ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void die(const tl_error *e) {
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

/* Binds everything that a plan wants from outside to memory of normal numbers. */
static void bind_normal(tl_plan *p, tl_tensor *t, double scale) {
    const tl_desc *d = tl_tensor_desc(t);
    const int64_t n = tl_desc_count(d);
    float *x = aligned_alloc(64, ((size_t)n * 4 + 63) / 64 * 64);
    for (int64_t i = 0; x && i < n; i++) {
        const float v = scale == 0 ? 0 : (float)(scale * (double)rng_normal(rng_key_make(1, 0, 7), 0, (uint64_t)i));
        if (d->dtype == TL_BF16)
            ((uint16_t *)(void *)x)[i] = half_f32_to_bf16(v);
        else
            x[i] = v;
    }
    if (!x || tl_plan_bind(p, t, x) != TL_OK) exit(1);
}

static double run(tl_plan *p, int times) {
    double best = 1e30;
    for (int i = 0; i < times; i++) {
        const double t = now();
        if (tl_plan_run(p) != TL_OK) exit(1);
        const double took = now() - t;
        if (took < best) best = took;
    }
    return best;
}

static void per_step(tl_plan *p) {
    if (!getenv("BENCH_STEPS")) return;
    tl_plan_run_profiled(p);
    for (size_t i = 0; i < tl_plan_steps(p); i++) {
        tl_step_info s;
        tl_plan_step(p, i, &s);
        printf("    %-18s %-28s %8.3f ms %7.1f GFLOP/s\n", s.op, s.kernel, 1e3 * s.seconds,
               1e-9 * s.cost.flops / s.seconds);
    }
}

/* ---- core --------------------------------------------------------------------------------------------------- */

static tl_tensor *gau(tl_graph *g, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t n, bool causal) {
    struct gau_attention_attr a = {
        .f = {.kind = GATE_RELU2, .count = GATE_COUNT_FIXED, .fixed = (float)n, .causal = causal}};
    return tl_apply(g, OP_DEF(gau_attention), &a, (tl_tensor *[]){q, k, v}, 3, NULL, NULL, 0);
}

/* relu^2(q k^T / sqrt(s)) v / n of plain operators. A product is x w^T: k is (n,s), v comes as v^T (e,n). mask (n,n) of
 * zeros and ones, or NULL. */
static tl_tensor *composed(tl_graph *g, tl_tensor *q, tl_tensor *k, tl_tensor *vt, tl_tensor *mask, int64_t n,
                           int64_t s) {
    tl_tensor *t = tl_scale(g, tl_linear(g, q, k, NULL, TL_NONE), 1.0f / __builtin_sqrtf((float)s));
    t = tl_scale(g, tl_act(g, t, TL_ACT_RELU2), 1.0f / (float)n);
    return tl_linear(g, mask ? tl_mul(g, t, mask) : t, vt, NULL, TL_NONE);
}

static void core(tl_engine *e, bool causal, tl_dtype t) {
    const int64_t s = 128, width = 1536;
    for (int64_t n = 1024; n <= 4096; n *= 4) {
        double took[2], mega[2];
        for (int way = 0; way < 2; way++) {
            tl_graph *g;
            tl_plan *p;
            tl_error err;
            if (tl_graph_create(e, &g) != TL_OK) exit(1);
            const int64_t qd[] = {1, n, s}, vd[] = {1, n, width}, q2[] = {n, s}, v2[] = {width, n}, o2[] = {n, width};
            tl_tensor *q = tl_input(g, "q", t, way ? 2 : 3, way ? q2 : qd), *in[4], *dx[3];
            tl_tensor *k = way ? tl_param(g, "k", t, 2, q2) : tl_input(g, "k", t, 3, qd);
            tl_tensor *v = way ? tl_param(g, "v", t, 2, v2) : tl_input(g, "v", t, 3, vd);
            tl_tensor *dy = tl_input(g, "dy", t, way ? 2 : 3, way ? o2 : vd);
            tl_tensor *mask = way && causal ? tl_const(g, "mask", t, 2, (int64_t[]){n, n}) : NULL;
            tl_tensor *y = way ? composed(g, q, k, v, mask, n, s) : gau(g, q, k, v, n, causal);
            tl_output(g, y, "y");
            tl_graph_vjp(g, y, dy, (tl_tensor *[]){q, k, v}, way ? 1 : 3, dx);
            for (int i = 0; i < (way ? 1 : 3); i++) tl_output(g, dx[i], i == 0 ? "dq" : i == 1 ? "dk" : "dv");
            if (tl_plan_create(g, false, &p, &err) != TL_OK) die(&err);
            in[0] = q, in[1] = k, in[2] = v, in[3] = dy;
            for (int i = 0; i < 4; i++) bind_normal(p, in[i], 1);
            if (way) bind_normal(p, tl_param_grad(g, k), 0), bind_normal(p, tl_param_grad(g, v), 0);
            if (mask) bind_normal(p, mask, 1); /* any numbers take the same time */
            took[way] = run(p, 3);
            tl_plan_info info;
            tl_plan_info_get(p, &info);
            mega[way] = 1e-6 * (double)info.arena_bytes;
            printf("n %5lld %-8s %8.1f ms  %6.1f MB\n", (long long)n, way ? "composed" : "fused", 1e3 * took[way],
                   mega[way]);
            per_step(p);
            tl_plan_destroy(p);
            tl_graph_destroy(g);
        }
        printf("n %5lld %s, %s: fused is %.2f times as fast, with %.2f of the memory\n", (long long)n,
               t == TL_F32 ? "f32" : "bf16", causal ? "causal" : "both ways", took[1] / took[0], mega[0] / mega[1]);
    }
}

/* ---- layer --------------------------------------------------------------------------------------------------- */

/* x + (u h) Wo: norm, one product for u, v and z, four heads, RoPE, mixed chunks, gate, projection. */
static tl_tensor *flash_layer(tl_graph *g, tl_tensor *x, tl_tensor *rope, int64_t n, int64_t d, int64_t e, int64_t s,
                              int64_t c, tl_tensor **params) {
    tl_tensor *gain = tl_param(g, "gain", TL_F32, 1, (int64_t[]){1});
    tl_tensor *w = tl_param(g, "w", TL_F32, 2, (int64_t[]){2 * e + s, d});
    tl_tensor *wo = tl_param(g, "wo", TL_F32, 2, (int64_t[]){d, e});
    tl_tensor *gamma = tl_param(g, "gamma", TL_F32, 1, (int64_t[]){4 * s});
    tl_tensor *beta = tl_param(g, "beta", TL_F32, 1, (int64_t[]){4 * s}), *part[3], *head[4];
    params[0] = gain, params[1] = w, params[2] = wo, params[3] = gamma, params[4] = beta;
    tl_tensor *h = tl_act(g, tl_linear(g, tl_scalenorm(g, x, gain, 1e-5f), w, NULL, TL_NONE), TL_ACT_SILU);
    tl_split(g, h, 3, (int64_t[]){e, e, s}, part);
    struct offset_scale_attr none = {0};
    tl_tensor *z = tl_apply(g, OP_DEF(offset_scale), &none, (tl_tensor *[]){part[2], gamma, beta}, 3, NULL, NULL, 0);
    z = tl_reshape(g, tl_rope(g, tl_reshape(g, z, 4, (int64_t[]){1, n, 4, s}), rope, false), 3,
                   (int64_t[]){1, n, 4 * s});
    tl_split(g, z, 4, (int64_t[]){s, s, s, s}, head);
    struct mixed_chunk_attr a = {.f = {.kind = GATE_RELU2, .count = GATE_COUNT_VISIBLE, .causal = 1}, .chunk = c};
    tl_tensor *in[] = {head[0], head[1], head[2], head[3], part[1]};
    tl_tensor *m = tl_apply(g, OP_DEF(mixed_chunk), &a, in, 5, NULL, NULL, 0);
    return tl_linear_add(g, x, tl_mul(g, part[0], m), wo, NULL);
}

static void layer(tl_engine *e, int64_t longest) {
    const int64_t d = 768, width = 1536, s = 128;
    for (int64_t n = 2048; n <= longest; n *= 2) {
        tl_graph *g;
        tl_plan *p;
        tl_error err;
        if (tl_graph_create(e, &g) != TL_OK) exit(1);
        const int64_t xd[] = {1, n, d}, td[] = {1, n, s};
        tl_tensor *x = tl_input(g, "x", TL_F32, 3, xd), *rope = tl_input(g, "rope", TL_F32, 3, td);
        tl_tensor *dy = tl_input(g, "dy", TL_F32, 3, xd), *dx, *params[5];
        tl_tensor *y = flash_layer(g, x, rope, n, d, width, s, 256, params);
        tl_output(g, y, "y");
        tl_graph_vjp(g, y, dy, &x, 1, &dx);
        tl_output(g, dx, "dx");
        if (tl_plan_create(g, false, &p, &err) != TL_OK) die(&err);
        bind_normal(p, x, 1), bind_normal(p, rope, 0.5), bind_normal(p, dy, 1);
        for (int i = 0; i < 5; i++) bind_normal(p, params[i], 0.05), bind_normal(p, tl_param_grad(g, params[i]), 0);
        tl_plan_info info;
        tl_plan_info_get(p, &info);
        const double took = run(p, n > 20000 ? 2 : 3);
        printf(
            "n %6lld: %8.1f ms, %7.3f us a token, %6.1f GFLOP/s, arena %7.1f MB (%.2f KB a token), scratch %.1f MB\n",
            (long long)n, 1e3 * took, 1e6 * took / (double)n, 1e-9 * info.cost.flops / took,
            1e-6 * (double)info.arena_bytes, 1e-3 * (double)info.arena_bytes / (double)n,
            1e-6 * (double)info.scratch_bytes);
        per_step(p);
        fflush(stdout);
        tl_plan_destroy(p);
        tl_graph_destroy(g);
    }
}

/* ---- decode --------------------------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median and mean seconds of a token from position `from` on; the mean has the folding of chunks in it. */
static void tokens(decoder *d, int32_t from, int n, double *median, double *mean) {
    static double took[2048];
    tl_error err;
    const float *logits;
    *mean = 0;
    for (int i = -3; i < n; i++) {
        const int32_t id = 1, pos = from + i + 3, slot = 0, select = 0;
        const double t = now();
        if (decoder_run(d, 1, &id, &pos, &slot, 1, &select, &logits, &err) != TL_OK) die(&err);
        if (i >= 0) *mean += took[i] = now() - t;
    }
    qsort(took, (size_t)n, sizeof *took, by_size);
    *median = took[n / 2];
    *mean /= n;
}

static void decode_one(tl_engine *e, const char *name, const char *config, int64_t capacity, const int32_t *from, int n,
                       int count) {
    model_config c;
    tl_model *m;
    decoder d;
    tl_error err;
    if (config_parse(config, &c, NULL, 0, &err) != TL_OK) die(&err);
    if (model_create(e, &c, NULL, 1, &m, &err) != TL_OK) die(&err);
    if (decoder_init(&d, m, 1, capacity, TL_F32, TL_F32, &err) != TL_OK) die(&err);
    memset(d.cache, 0, d.cache_bytes);
    printf("%s: %.2fM parameters, state %.2f MB\n", name, 1e-6 * (double)m->params.count, 1e-6 * (double)d.cache_bytes);
    for (int i = 0; i < n; i++) {
        double median, mean;
        tokens(&d, from[i], count, &median, &mean);
        printf("    position %8d: %7.3f ms a token (median), %7.3f ms (mean)\n", from[i], 1e3 * median, 1e3 * mean);
    }
    decoder_fini(&d);
    model_close(m);
}

static void decode(tl_engine *e) {
    static const int32_t flash_at[] = {1000, 1000000}, cache_at[] = {1000, 4000, 16000, 32000};
    decode_one(e, "4 FLASH layers",
               "{\"model_type\":\"flash\",\"hidden_size\":768,\"num_hidden_layers\":4,\"vocab_size\":65,"
               "\"max_position_embeddings\":1024}",
               1024, flash_at, 2, 600);
    decode_one(
        e, "2 softmax layers",
        "{\"model_type\":\"gpt2\",\"n_embd\":768,\"n_layer\":2,\"n_head\":12,\"vocab_size\":65,\"n_positions\":65536,"
        "\"tilia\":{\"positions\":\"rope\"}}",
        33000, cache_at, 4, 60);
}

static int usage(const char *what, const char *given) {
    fprintf(stderr,
            "%s: '%s'\nusage: bench_flash [core|layer|decode] [threads 1..64] [longest n of layer, 2048 or more]\n",
            what, given);
    return 2;
}

int main(int argc, char **argv) {
    tl_engine *e;
    tl_error err;
    const char *what = argc > 1 ? argv[1] : "core";
    const bool is_core = !strcmp(what, "core"), is_layer = !strcmp(what, "layer");
    const int threads = argc > 2 ? (int)bench_number(argv[2], 1, 64) : 1;
    const int64_t longest = argc > 3 ? bench_number(argv[3], 2048, 1 << 24) : 32768;
    if (!is_core && !is_layer && strcmp(what, "decode")) return usage("no such measurement", what);
    if (threads < 0) return usage("not a count of threads", argv[2]);
    if (longest < 0) return usage("not a length", argv[3]);
    if (argc > (is_layer ? 4 : 3)) return usage("one argument too many", argv[argc - 1]);
    tl_engine_options o = {.threads = threads};
    if (tl_engine_create(&o, &e, &err) != TL_OK) die(&err);
    alone = tl_engine_threads(e) == 1;
    printf("%s, %d threads\n", tl_engine_isa(e), tl_engine_threads(e));
    if (is_core) {
        for (int i = 0; i < 4; i++) core(e, i & 1, i < 2 ? TL_F32 : TL_BF16);
    } else if (is_layer)
        layer(e, longest);
    else
        decode(e);
    tl_engine_destroy(e);
    return 0;
}
