/* cost/measure: what this machine can do, by trying: its limits, and the time of every operator in small models of each
 * kind (calibrate.def). The best of several tries counts, so that other work on the machine disturbs little. */
#ifndef COST_MEASURE_H
#define COST_MEASURE_H

#include "cost/walk.h"
#include "engine/engine.h"

#include <time.h>

/* Multiply-adds in registers, reads of memory that no cache holds by all threads and by one, the time to start a
 * kernel: a fraction of a second. clock: CLOCK_MONOTONIC, or CLOCK_PROCESS_CPUTIME_ID where other work disturbs. Where
 * there is no loop for the processor, limits are those of the best kernel. */
tl_status measure_limits(tl_engine *e, clockid_t clock, cost_machine *m, tl_error *err);

/* Bytes a second that all threads read of this memory together, the best of several passes; 0 where there is no loop
 * for the processor. */
double measure_reads(tl_engine *e, clockid_t clock, const void *memory, size_t bytes);

/* All of it: limits and points; half a minute to a minute. progress may be NULL; false stops (CANCELLED).
 * [owns: caller, machine_fini] [allocates: about 1 GB for a while] */
typedef bool (*measure_progress)(void *user, const char *what, size_t done, size_t total);
tl_status measure_machine(tl_engine *e, cost_machine *m, measure_progress progress, void *user, tl_error *err);

/* Runs a plan of the graph on memory made up for it: ids, positions and numbers as a model would see them, so that the
 * times of its steps are those of a real run. steps' seconds become the least of the runs.
 * first: position of the first row of a decode graph; rows of one sequence follow each other unless each has its own.
 */
typedef struct measure_run {
    int64_t vocab, context, first, slots;
    double budget; /* seconds; at least 3 runs */
} measure_run;
/* That memory by itself: one block, bound to the plan; give it back with mem_give(allocator, *memory, *bytes). */
tl_status measure_bind(tl_engine *e, tl_graph *g, tl_plan *p, const measure_run *r, void **memory, size_t *bytes,
                       tl_error *err);
tl_status measure_plan(tl_engine *e, tl_graph *g, tl_plan *p, const measure_run *r, tl_error *err);

#endif
