/* tilia bench overhead: what lies around the arithmetic. The start of an engine; an operator of a plan whose work is
 * nothing to speak of, by one worker and by all of them; waking workers that sleep. */
#include "cli/bench_cli.h"

#include "graph/device.h"

#include <stdlib.h>
#include <string.h>

enum { STARTS = 9, CHAIN = 256, RUNS = 64, SLEEPS = 32, SLEEP_NS = 2000000 };

typedef struct overhead_times {
    double start, one, all, woken; /* medians: seconds of a start, an operator, an operator of all, one after a pause */
} overhead_times;

static tl_status time_starts(const bench_options *o, overhead_times *t, tl_error *e) {
    double took[STARTS];
    for (int i = 0; i < STARTS; i++) {
        tl_engine *engine;
        const double from = bench_now(o);
        TRY(cli_engine(&o->common, &engine, e));
        took[i] = bench_now(o) - from;
        tl_engine_destroy(engine);
    }
    t->start = bench_median(took, STARTS);
    return TL_OK;
}

/* A plan of CHAIN operators over 16 numbers, one tile each. */
static tl_status time_chain(const bench_options *o, overhead_times *t, tl_error *e) {
    double took[RUNS];
    float x[16] = {1};
    tl_graph *g;
    tl_plan *p = NULL;
    tl_status s = tl_graph_create(o->engine, &g);
    if (s != TL_OK) return error_set(e, s, "no memory for a graph");
    tl_tensor *in = tl_input(g, "x", TL_F32, 1, (int64_t[]){16}), *y = in;
    for (int i = 0; i < CHAIN; i++) y = tl_scale(g, y, 1.0f);
    tl_output(g, y, "y");
    s = tl_plan_create(g, false, &p, e);
    if (s == TL_OK) s = tl_plan_bind(p, in, x);
    const size_t steps = tl_plan_steps(p);
    for (int i = 0; i < RUNS && s == TL_OK; i++) {
        const double from = bench_now(o);
        s = tl_plan_run(p);
        took[i] = (bench_now(o) - from) / (double)(steps ? steps : 1);
    }
    if (s == TL_OK) t->one = bench_median(took, RUNS);
    tl_plan_destroy(p);
    tl_graph_destroy(g);
    return s;
}

static void run_nothing(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    (void)t, (void)phase, (void)lo, (void)hi, (void)worker;
}

/* A kernel with a tile for each worker, one after the other, and after a pause in which workers fall asleep. */
static void time_launches(const bench_options *o, overhead_times *t) {
    device *d = o->engine->host.dev;
    const kernel_exec x = {.run = run_nothing, .phases = 1, .tiles = {d->threads}};
    const tl_op_call none = {0};
    const kernel_task task = {.call = &none, .exec = &x, .workers = d->threads};
    double took[RUNS], woken[SLEEPS];
    for (int i = 0; i < RUNS; i++) {
        const double from = bench_now(o);
        for (int k = 0; k < CHAIN; k++) d->launch(d, &task);
        took[i] = (bench_now(o) - from) / CHAIN;
    }
    for (int i = 0; i < SLEEPS; i++) {
        nanosleep(&(struct timespec){.tv_nsec = SLEEP_NS}, NULL);
        const double from = bench_now(o);
        d->launch(d, &task);
        woken[i] = bench_now(o) - from;
    }
    t->all = bench_median(took, RUNS);
    t->woken = bench_median(woken, SLEEPS);
}

tl_status bench_overhead(bench_options *o, tl_error *e) {
    overhead_times t = {0};
    TRY(time_starts(o, &t, e));
    TRY(time_chain(o, &t, e));
    time_launches(o, &t);
    const int threads = o->engine->host.dev->threads;
    if (o->common.json) {
        bench_json_row(o);
        printf("{\"threads\": %d, \"engine_start_seconds\": %.6g, \"operator_seconds\": %.6g, "
               "\"operator_all_threads_seconds\": %.6g, \"operator_after_sleep_seconds\": %.6g}",
               threads, t.start, t.one, t.all, t.woken);
        return TL_OK;
    }
    printf("start of an engine                     %8.2f ms\n", 1e3 * t.start);
    printf("an operator with nothing to do         %8.2f us, on one thread\n", 1e6 * t.one);
    printf("                                       %8.2f us, on %d threads\n", 1e6 * t.all, threads);
    printf("                                       %8.2f us, on %d threads that sleep\n", 1e6 * t.woken, threads);
    return TL_OK;
}
