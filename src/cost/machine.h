/* cost/machine: what a machine can do. Limits (operations and bytes a second) of machines known by their data sheets
 * (hardware.def), and of this one, measured: besides limits, how long calls of every operator took, so that small
 * products, short rows and caches are told from the limit. */
#ifndef COST_MACHINE_H
#define COST_MACHINE_H

#include "base/mem.h"
#include "graph/plan.h"

/* What a call is recognised by: sizes as logarithms to base 2. */
enum { COST_FEATURES = 6 };

/* One measured call of an operator. */
typedef struct cost_point {
    char op[24];
    int32_t data, weight; /* tl_dtype of the numbers worked on, and of a matrix beside them */
    double feature[COST_FEATURES];
    double seconds;
    double limit; /* seconds that the machine's limits alone would ask for */
} cost_point;

/* What was found out for a call that comes again in every layer. */
typedef struct cost_memo {
    const struct tl_op_def *op;
    int32_t data, weight;
    double feature[COST_FEATURES], times;
} cost_memo;
enum { COST_MEMOS = 128 };

typedef struct cost_machine {
    char name[32], title[128], source[400];
    double f32, half, int8; /* multiply-adds as two operations a second; half: bf16; 0: not known */
    double bandwidth;       /* bytes a second from memory, all threads */
    double memory, watts;   /* bytes; 0: not known */
    /* of a measured machine alone */
    double bandwidth_one; /* one thread's */
    double launch;        /* seconds to start and end a kernel's phase */
    double attention;     /* operations a second of causal attention, f32 */
    int threads;
    cost_point *point; /* owned */
    size_t n, cap;
    const tl_allocator *alloc;
    cost_memo memo[COST_MEMOS];
} cost_machine;

/* The i-th row of hardware.def, its name; NULL behind the last. */
const char *machine_name(size_t i);
/* A row by name. [fails: ARG, naming the rows] */
tl_status machine_find(const char *name, cost_machine *m, tl_error *err);
void machine_fini(cost_machine *m);

/* The processor's name as the system gives it. */
void machine_processor(char *out, size_t size);
/* A measured machine as a file. machine_load refuses one that was measured with other threads, instruction sets or
 * another processor: [fails: NOTFOUND, STATE another machine, FORMAT, IO, NOMEM] */
tl_status machine_save(const cost_machine *m, const char *isa, const char *path, tl_error *err);
tl_status machine_load(cost_machine *m, const tl_allocator *a, const char *path, const char *isa, int threads,
                       tl_error *err);

/* Operations a second that this machine's limit is for numbers of that kind. */
double machine_peak(const cost_machine *m, tl_dtype data);

#endif
