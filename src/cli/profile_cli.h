/* tilia profile in parts: what ran (profile_run.c), how it is told (cmd_profile.c), as a trace (profile_trace.c). */
#ifndef CLI_PROFILE_CLI_H
#define CLI_PROFILE_CLI_H

#include "cli/machine_cli.h"
#include "cost/cost.h"
#include "model/model.h"

enum { PROFILE_ROWS = 16384 };

typedef enum profile_what { PROFILE_TRAIN, PROFILE_PREFILL, PROFILE_DECODE } profile_what;

typedef struct profile_options {
    cli_common common;
    const char *model, *preset, *depth, *trace;
    profile_what what;
    int64_t batch, context, steps;
    tl_dtype dtype;
    tl_recompute recompute;
    bool all, floor;
} profile_options;

/* One step of a plan, or the sum of those with one kernel. */
typedef struct profile_row {
    const char *op, *kernel, *name; /* borrowed from the plans until the run is closed */
    int part;
    bool backward;
    double seconds, predicted, limit, flops, bytes;
    double alone; /* with a floor: products and mixers by themselves, others bytes over bandwidth */
    int64_t calls;
} profile_row;

typedef struct profile_run {
    struct tl_model *model; /* owned */
    struct trainer *trainer;
    struct decoder *decoder;
    profile_row *row; /* every step in order; owned */
    size_t n;
    double whole, least; /* seconds of the whole without clocks: median, best */
    double tokens;       /* of it */
    cost_machine machine;
    bool measured; /* the machine was, so that predictions mean something */
} profile_run;

/* Creates or opens the model, runs it, gathers its steps. [owns: caller, profile_close] */
tl_status profile_do(const profile_options *o, tl_engine *e, profile_run *r, tl_error *err);
void profile_close(profile_run *r);
/* What a training step would take if nothing but its arithmetic and its memory took time: products and mixers as fast
 * as each runs by itself, again and again; all else its bytes over the bandwidth measured now. */
typedef struct profile_floor {
    double products, mixers, others, sum; /* seconds */
    double bytes, bandwidth;              /* of all else */
} profile_floor;
tl_status profile_floor_of(tl_engine *e, profile_run *r, profile_floor *f, tl_error *err); /* rows get their part */
/* Chrome's trace format: one event a step, on one line for each part of the model. */
tl_status profile_trace(const profile_options *o, const profile_run *r, tl_error *err);

#endif
