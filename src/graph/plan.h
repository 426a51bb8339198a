/* The inside of a plan. Three passes make one: lay.c says in whose memory each tensor lies (storages, views, in-place
 * results), plan.c chooses kernels for the steps, place.c gives storages their offsets in the arena. run.c runs it. */
#ifndef GRAPH_PLAN_H
#define GRAPH_PLAN_H

#include "graph/graph.h"
#include "graph/view.h"

enum { PLAN_FOREVER = INT32_MAX };

/* A piece of memory that tensors lie in. */
typedef struct plan_storage {
    size_t bytes, offset; /* offset: in the arena */
    int32_t bound;        /* index of the tensor that the caller binds it by; -1: only the arena's */
    bool arena;           /* has a place in the arena (an output has both until it is bound) */
    int32_t first, last;  /* steps that use it */
    int32_t member;       /* first tensor in it, -1: none */
    void *data;
    size_t patches, n_patches; /* arguments that point into it */
} plan_storage;

typedef struct plan_tensor {
    const tl_tensor *t; /* NULL: the planner's own copy of something */
    tl_desc d;          /* as it lies */
    size_t offset;      /* bytes into its storage */
    int32_t storage;    /* -1: nowhere (not needed) */
    int32_t next;       /* in the same storage */
    int32_t last;       /* last node that reads it (views apart); PLAN_FOREVER for outputs; -1: never read */
    bool used, output;
} plan_tensor;

/* A step before its kernel is chosen: tensors by index, -1 for none. */
typedef struct plan_draft {
    const graph_node *node; /* NULL: a copy, in[0] to out[0] */
    int32_t in[TL_OP_INS], out[TL_OP_OUTS];
    uint32_t acc;
} plan_draft;

typedef struct plan_layout {
    const tl_graph *g;
    const tl_allocator *alloc;
    plan_tensor *tensors; /* the graph's, by index, then the planner's */
    size_t n_tensors, cap_tensors;
    plan_storage *storages;
    size_t n_storages, cap_storages;
    plan_draft *steps;
    size_t n_steps, cap_steps;
    unsigned char *live; /* by node */
    unsigned char *gone; /* by node: a concat whose parts are written in place */
    int32_t *pending;    /* by tensor: 1 + the plan tensor to copy it from, for views that cannot be windows */
    int32_t *view_head, *view_next; /* views of a tensor: 1 + node, by tensor and by node */
    arena tmp;
} plan_layout;

typedef struct plan_patch {
    void **slot;
    size_t offset;
} plan_patch;

typedef struct plan_step {
    const tl_op_def *op;
    tl_op_call call;
    kernel_exec exec;
    kernel_task task;
    tl_cost cost;
    const char *name, *refusals;
    double seconds;
    bool backward;
    size_t scratch_at;                      /* in the arena */
    int32_t in[TL_OP_INS], out[TL_OP_OUTS]; /* tensors, -1 for none */
} plan_step;

/* What a storage is to the host where the device's memory is its own: mirror.c. */
typedef struct plan_mirror {
    void *host;         /* the caller's memory that tl_plan_bind named; NULL: none */
    void *device;       /* its counterpart */
    void *shadow;       /* host memory in which tl_plan_data shows an output that nobody bound */
    bool read, written; /* by steps */
} plan_mirror;

struct tl_plan {
    graph_host *host;
    tl_graph *graph; /* a reference: tensors are the keys of bind and data */
    arena mem;
    plan_step *steps;
    size_t n_steps;
    plan_tensor *tensors;
    size_t n_tensors;
    plan_storage *storages;
    size_t n_storages;
    plan_mirror *mirrors; /* by storage; NULL where the device works in the host's memory */
    plan_patch *patches;
    unsigned char *base; /* the arena */
    size_t base_bytes;
    bool dry;
    tl_run_info run_info;
    tl_plan_info info;
    _Alignas(64) unsigned char nothing[64]; /* where tensors without elements lie */
};

/* The same as tl_plan_bind and tl_plan_data with memory of the device, for what stands above graph/ and keeps its data
 * there. A plan bound so throughout is queued by tl_plan_run and nothing is copied or waited for. */
tl_status plan_bind_device(tl_plan *p, const tl_tensor *t, void *at);
void *plan_data_device(const tl_plan *p, const tl_tensor *t);

tl_status mirror_init(tl_plan *p, tl_error *err);
void mirror_fini(tl_plan *p);
/* Names host memory for storage i. *at: the device's counterpart. */
tl_status mirror_bind(tl_plan *p, size_t i, void *host, void **at);
/* What the host sees of storage i, from its beginning; NULL: no memory, or the device failed. */
void *mirror_data(const tl_plan *p, size_t i);
/* Host memory over there before a run, and back behind it. */
void mirror_upload(tl_plan *p);
tl_status mirror_download(tl_plan *p);

tl_status layout_make(plan_layout *l, const tl_graph *g, tl_error *err);
void layout_fini(plan_layout *l);

/* A block of the arena in use from step first to step last, both included. */
typedef struct place_item {
    size_t bytes, offset;
    int32_t first, last;
} place_item;
enum { PLACE_ALIGN = 64 };
/* Gives each item an offset so that no two that live at once overlap; *total is the bytes needed. */
tl_status place_items(const tl_allocator *a, place_item *items, size_t n, size_t *total);

#endif
