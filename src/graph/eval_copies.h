/* One call's arguments, taken to a device with memory of its own and back. */
#ifndef GRAPH_EVAL_COPIES_H
#define GRAPH_EVAL_COPIES_H

#include "graph/graph.h"

enum { EVAL_ARGS = TL_OP_INS + TL_OP_OUTS };

/* A stretch of host memory in which arguments lie: those that overlap share one, so that windows of one buffer and
 * results in place mean over there what they mean here. */
typedef struct eval_stretch {
    unsigned char *host, *at;
    size_t bytes;
    bool send, fetch;
} eval_stretch;

typedef struct eval_copies {
    eval_stretch s[EVAL_ARGS];
    int n;
    void *block;
    size_t bytes;
} eval_copies;

/* The call's pointers become the device's. [fails: NOMEM] */
tl_status eval_copies_send(device *d, tl_op_call *c, eval_copies *out, tl_error *err);
/* Results back, waited for; what send took is given back. */
tl_status eval_copies_fetch(device *d, eval_copies *x, tl_error *err);

#endif
