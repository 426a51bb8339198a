/* graph: operators strung together. Builds, differentiates, plans (order, lifetimes, offsets) and runs graphs of the
 * operators of op/. Owns tensors as names and shapes, and the arena of a plan. Refuses: device APIs (device.h is all it
 * knows of one), models, files. engine/, model/, infer/, train/ and what stands above them include it. */
#ifndef GRAPH_GRAPH_H
#define GRAPH_GRAPH_H

#include "base/arena.h"
#include "graph/device.h"
#include "tilia/graph.h"

typedef struct graph_node graph_node;

typedef enum tensor_kind {
    TENSOR_NODE,  /* an operator's output */
    TENSOR_INPUT, /* bound by the caller, like the next three */
    TENSOR_PARAM,
    TENSOR_CONST,
    TENSOR_GRAD, /* a parameter's gradient, made by the first backward pass that reaches the parameter */
    TENSOR_ONE   /* the number one: the gradient of the loss with respect to itself */
} tensor_kind;

struct tl_tensor {
    tl_graph *graph;
    const char *name; /* NULL: goes by its operator's name */
    uint64_t name_hash;
    tl_desc d; /* contiguous; where it lies in a wider buffer is the plan's affair */
    tensor_kind kind;
    bool output;
    int32_t index;    /* among the graph's tensors */
    int32_t out;      /* which output of node */
    graph_node *node; /* NULL for what the caller binds */
    tl_tensor *grad;  /* of a parameter */
};

struct graph_node {
    const tl_op_def *op;
    void *attr;
    tl_tensor *in[TL_OP_INS], *out[TL_OP_OUTS], *acc[TL_OP_OUTS];
    tl_desc d[TL_OP_OUTS]; /* inferred shapes of all outputs, made or not */
    int32_t index, block;  /* block -1: none */
    bool backward;
    bool loose; /* a gradient operator: any output may be left out, the first one too */
};

struct tl_graph {
    graph_host *host;
    arena mem;
    int refs; /* the caller's and one for each plan, which keeps tensors valid as keys */
    tl_error err;
    graph_node **nodes;
    size_t n_nodes, cap_nodes;
    tl_tensor **tensors;
    size_t n_tensors, cap_tensors;
    int32_t blocks, block; /* how many there were; the open one or -1 */
    int32_t dropouts;
    tl_tensor *more_loss; /* tl_graph_add_loss */
    bool backward;        /* nodes appended now belong to a backward pass */
};

/* The attributes (of op->attr_size bytes, may be completed) and shapes of one call. out holds, when it comes, the
 * tensors that are added into (TL_NONE: none). Errors name op. */
tl_status graph_infer(const tl_op_def *op, void *attr, const tl_desc *const *in, int n_in, tl_desc *out, tl_error *err);
/* Sets the sticky error with a place and returns NULL. */
void *graph_fail_at(tl_graph *g, tl_status code, const char *place, const char *text);
tl_tensor *graph_tensor(tl_graph *g, tensor_kind kind, const tl_desc *d, const char *name);
/* Appends a node whose inputs and attributes are checked. want: bit k = make output k. */
graph_node *graph_append(tl_graph *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in,
                         tl_tensor *const *acc, uint32_t want);
/* Output k of a node, made if it was not wanted before; NULL if this call has no such output. */
tl_tensor *graph_node_out(tl_graph *g, graph_node *n, int k);
/* The tensor bound by the caller (or the constant one) in whose memory t lies: through views and in-place sums; NULL if
 * t lies in the plan's arena. */
const tl_tensor *graph_external(const tl_tensor *t);
void graph_unref(tl_graph *g);

/* Gradients of n results ys from dys (NULL: ys[0] is a loss and its gradient is one). */
void autodiff_run(tl_graph *g, tl_tensor *const *ys, tl_tensor *const *dys, int n, tl_tensor *const *wrt, int n_wrt,
                  tl_tensor **dwrt, tl_recompute recompute);

/* tl_eval on memory of the device, queued. */
tl_status eval_device(tl_engine *e, const tl_op_def *op, const void *attr, const tl_arg *in, int n_in,
                      const tl_arg *out, int n_out, tl_error *err);

/* Which of the nodes first..last, a block, level runs again: run (last - first + 1), one byte each. recompute.c */
void recompute_choose(const tl_graph *g, size_t first, size_t last, tl_recompute level, unsigned char *run);

static inline graph_host *graph_host_of(tl_engine *e) {
    return (graph_host *)(void *)e; /* struct tl_engine begins with it: device.h */
}

#endif
