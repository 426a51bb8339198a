/* What the parts of `tilia bench` share. */
#ifndef CLI_BENCH_CLI_H
#define CLI_BENCH_CLI_H

#include "cli/cli.h"

#include "engine/engine.h"

#include <time.h>

typedef struct bench_options {
    cli_common common;
    const char *what, *preset, *model, *text, *tokenizer;
    int64_t batch, context, steps, rounds, prompt, vocab; /* prompt: -1 if not said */
    tl_dtype dtype;                                       /* TL_NONE: both */
    clockid_t clock;
    unsigned given; /* a bit for each option that was */
    struct tl_engine *engine;
    double flops, flops16, bytes; /* the machine's limits a second, measured in this run; flops16: of bf16 */
    int rows;                     /* results printed so far */
} bench_options;

double bench_now(const bench_options *o);
/* The middle one of n; sorts them. */
double bench_median(double *x, int n);
/* Reads a second of that many bytes, all threads together: what the memory gives depends on how much is read, caches of
 * the processor being what they are, and on what else the machine does. */
double bench_reads(const bench_options *o, size_t bytes);

/* A model of --preset (or else `otherwise`) with random weights. */
tl_status bench_random_model(const bench_options *o, const char *otherwise, struct tl_model **m, tl_error *e);
/* The limit of operations a second for that type, f32 or bf16. */
double bench_peak(const bench_options *o, tl_dtype t);
/* With --json: what stands before each result. */
void bench_json_row(bench_options *o);
/* "name": [...] */
void bench_print_seconds(const char *name, const double *x, int n);

tl_status bench_gemm(bench_options *o, tl_error *e);
tl_status bench_attention(bench_options *o, tl_error *e);
tl_status bench_train(bench_options *o, tl_error *e);
tl_status bench_generate(bench_options *o, tl_error *e);
tl_status bench_kv_cache(bench_options *o, tl_error *e);
tl_status bench_overhead(bench_options *o, tl_error *e);
tl_status bench_predict(bench_options *o, tl_error *e);
tl_status bench_tokenizer(bench_options *o, tl_error *e);

#endif
