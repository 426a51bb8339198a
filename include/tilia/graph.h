/* tilia/graph.h: tensors, operators, gradients, plans: for people who research and teach.
 *
 *     tl_graph *g;    tl_graph_create(engine, &g);
 *     tl_tensor *x = tl_input(g, "x", TL_F32, 2, (int64_t[]){rows, K});
 *     tl_tensor *w = tl_param(g, "w", TL_F32, 2, (int64_t[]){N, K});
 *     tl_tensor *y = tl_act(g, tl_linear(g, x, w, NULL, TL_NONE), TL_ACT_SILU);
 *     ... tl_graph_backward(g, loss); tl_plan_create(g, ...); tl_plan_bind(...); tl_plan_run(...)
 *
 * Building computes nothing and takes no tensor memory. Every builder returns NULL after the first error, and
 * accepts NULL, so model code reads like the formula; tl_plan_create (or tl_graph_status) reports that first error.
 * A graph and its plans belong to one thread at a time. */
#ifndef TILIA_GRAPH_H
#define TILIA_GRAPH_H

#include "tilia/op.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- engine: a device, its threads and its kernels --------------------------------------------- */

typedef struct tl_engine tl_engine;

typedef struct tl_engine_options {
    const tl_allocator *allocator; /* NULL: the C library's; copied */
    tl_log_fn log;                 /* NULL: silence */
    void *log_user;
    tl_log_level log_level;
    int threads;        /* 0: TILIA_THREADS, else the number of cores the process may use */
    const char *isa;    /* cap: "ref", "avx2", "avx512", "avx512bf16"; NULL: TILIA_ISA, else the best */
    const char *device; /* NULL or "cpu"; "cuda" */
} tl_engine_options;

/* Reads the environment (once, here), finds the instruction sets, starts the threads.
 * [owns: caller] [fails: NOMEM, ARG, DEVICE] [threads: any] */
TL_API tl_status tl_engine_create(const tl_engine_options *options, tl_engine **out, tl_error *err);
TL_API void tl_engine_destroy(tl_engine *e); /* after everything made from it; NULL is fine */
TL_API int tl_engine_threads(const tl_engine *e);
TL_API const tl_allocator *tl_engine_allocator(const tl_engine *e);
/* Names the instruction sets in use, e.g. "avx512bf16". */
TL_API const char *tl_engine_isa(const tl_engine *e);

/* ---- graph ------------------------------------------------------------------------------------- */

typedef struct tl_graph tl_graph;

TL_API tl_status tl_graph_create(tl_engine *e, tl_graph **out);
TL_API void tl_graph_destroy(tl_graph *g); /* plans made from it keep what they need */
TL_API tl_status tl_graph_status(const tl_graph *g, tl_error *err);
/* Sets the sticky error, if none is set, from code that builds graphs. */
TL_API void tl_graph_fail(tl_graph *g, tl_status code, const char *fmt, ...) TL_PRINTF(3, 4);

/* A tensor whose memory the caller binds to each plan: data of a run. Names are unique within a graph. */
TL_API tl_tensor *tl_input(tl_graph *g, const char *name, tl_dtype dtype, int ndim, const int64_t *dim);
/* A parameter. Its gradient (f32, f64 for f64) is bound memory too, added into by the backward pass, never cleared
 * by it. */
TL_API tl_tensor *tl_param(tl_graph *g, const char *name, tl_dtype dtype, int ndim, const int64_t *dim);
/* A parameter that gets no gradient. */
TL_API tl_tensor *tl_const(tl_graph *g, const char *name, tl_dtype dtype, int ndim, const int64_t *dim);
/* Makes t a result: it stays valid after a run (tl_plan_data) and may be bound. */
TL_API void tl_output(tl_graph *g, tl_tensor *t, const char *name);
/* Names a tensor for logs and profiles. */
TL_API tl_tensor *tl_name(tl_graph *g, tl_tensor *t, const char *name);

TL_API const char *tl_tensor_name(const tl_tensor *t);

/* Any operator: up to op->n_in inputs (NULL: absent); output k into out[k] if out is not NULL. Returns output 0.
 * acc, if not NULL: acc[k] is a tensor that output k is added into (op->acc permitting): an external one in place. */
TL_API tl_tensor *tl_apply(tl_graph *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in,
                           tl_tensor *const *acc, tl_tensor **out, int n_out);

/* ---- operators, one line each; formulas in src/op/ops.def ---------------------------------------- */

typedef enum tl_act_kind {
    TL_ACT_RELU, TL_ACT_GELU, TL_ACT_GELU_TANH, TL_ACT_SILU, TL_ACT_RELU2, TL_ACT_SIGMOID, TL_ACT_TANH, TL_ACT_IDENTITY
} tl_act_kind;

/* ids (N..) i32, table (V,D) -> (N..,D) of dtype (TL_NONE: the table's); acc may be NULL: y = acc + scale table[ids] */
TL_API tl_tensor *tl_embedding(tl_graph *g, tl_tensor *ids, tl_tensor *table, float scale, tl_dtype dtype, tl_tensor *acc);
/* x (N..,K), w (N,K), b (N) or NULL -> x w^T + b, (N..,N) of dtype (TL_NONE: x's) */
TL_API tl_tensor *tl_linear(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *b, tl_dtype dtype);
/* acc + x w^T + b : the residual sum without a pass of its own */
TL_API tl_tensor *tl_linear_add(tl_graph *g, tl_tensor *acc, tl_tensor *x, tl_tensor *w, tl_tensor *b);
TL_API tl_tensor *tl_batchnorm(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *b, float eps);
TL_API tl_tensor *tl_layernorm(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *b, float eps);
TL_API tl_tensor *tl_rmsnorm(tl_graph *g, tl_tensor *x, tl_tensor *w, float eps, float offset);
TL_API tl_tensor *tl_scalenorm(tl_graph *g, tl_tensor *x, tl_tensor *gain, float eps);
/* pos (N..) i32, freq (R/2) f64 -> (N..,R): one table for all layers of a step */
TL_API tl_tensor *tl_rope_table(tl_graph *g, tl_tensor *pos, tl_tensor *freq, float mscale);
TL_API tl_tensor *tl_rope(tl_graph *g, tl_tensor *x, tl_tensor *table, bool interleaved);

typedef struct tl_attention_options {
    float scale;      /* 0: 1/sqrt(Dh) */
    float softcap;    /* 0: none */
    bool causal;
    int64_t window;   /* 0: none */
    int32_t global;   /* beside a window: first tokens of a document that all see */
    int64_t q_offset; /* position of query 0 among the keys */
    tl_tensor *doc;    /* (B,S) i32 document number per token, or NULL */
    tl_tensor *sinks;  /* (H), or NULL */
    tl_tensor *slopes; /* (H) ALiBi, or NULL */
    tl_tensor *bias;   /* (H,2P-1), or NULL */
    float drop;        /* of attention weights, in training; 0: none */
    tl_tensor *span;   /* (B,T,2) i32 the keys that a row sees at most, or NULL; over a cache (R) i32: their end */
} tl_attention_options;
/* q (B,T,H,Dh), k (B,S,Hk,Dh), v (B,S,Hk,Dv) -> (B,T,H,Dv); lse (B,H,T), may be NULL */
TL_API tl_tensor *tl_attention(tl_graph *g, tl_tensor *q, tl_tensor *k, tl_tensor *v, const tl_attention_options *o,
                               tl_tensor **lse);
/* decode and prefill over a cache; see ops.def */
TL_API tl_tensor *tl_kv_write(tl_graph *g, tl_tensor *x, tl_tensor *slot, tl_tensor *pos, tl_tensor *cache);
TL_API tl_tensor *tl_attention_kv(tl_graph *g, tl_tensor *q, tl_tensor *kcache, tl_tensor *vcache, tl_tensor *slot,
                                  tl_tensor *pos, const tl_attention_options *o);

TL_API tl_tensor *tl_act(tl_graph *g, tl_tensor *x, tl_act_kind kind);
TL_API tl_tensor *tl_glu(tl_graph *g, tl_tensor *gate, tl_tensor *up, tl_act_kind kind);
TL_API tl_tensor *tl_add(tl_graph *g, tl_tensor *a, tl_tensor *b);
TL_API tl_tensor *tl_mul(tl_graph *g, tl_tensor *a, tl_tensor *b);
TL_API tl_tensor *tl_scale(tl_graph *g, tl_tensor *x, float by);
TL_API tl_tensor *tl_dropout(tl_graph *g, tl_tensor *x, float p); /* p 0: x itself */
TL_API tl_tensor *tl_softmax(tl_graph *g, tl_tensor *x);
TL_API tl_tensor *tl_softcap(tl_graph *g, tl_tensor *x, float cap);
TL_API tl_tensor *tl_reduce(tl_graph *g, tl_tensor *x, int kind, bool mean); /* 0 all, 1 rows, 2 last */
TL_API tl_tensor *tl_cast(tl_graph *g, tl_tensor *x, tl_dtype dtype);
TL_API void tl_split(tl_graph *g, tl_tensor *x, int n, const int64_t *width, tl_tensor **out);
TL_API tl_tensor *tl_concat(tl_graph *g, tl_tensor *const *x, int n);
TL_API tl_tensor *tl_reshape(tl_graph *g, tl_tensor *x, int ndim, const int64_t *dim);

typedef struct tl_loss_options {
    float smoothing, zloss, softcap;
    tl_tensor *bias; /* (V) or NULL */
} tl_loss_options;
typedef struct tl_loss_outputs {
    tl_tensor *loss, *lse, *losses; /* (1), (rows), (rows) */
} tl_loss_outputs;
/* h (N..,D), w (V,D), targets (N..) i32, denom (1) -> the loss; out may be NULL */
TL_API tl_tensor *tl_loss_head(tl_graph *g, tl_tensor *h, tl_tensor *w, tl_tensor *targets, tl_tensor *denom,
                               const tl_loss_options *o, tl_loss_outputs *out);
TL_API tl_tensor *tl_global_norm(tl_graph *g, tl_tensor *x);

/* Mixture of experts; see ops.def. What a token is sent with, by route; mass and load are added into those of o. */
typedef struct tl_route_options {
    int k;
    bool norm;          /* the weights of a token sum to one */
    tl_tensor *slot;    /* (N..) i32, negative: an idle row; or NULL */
    tl_tensor *counted; /* (N..) i32, negative: not in mass and load; or NULL */
    tl_tensor *mass, *load; /* (E) so far, or NULL */
} tl_route_options;
typedef struct tl_route_outputs {
    tl_tensor *w, *id, *mass, *load; /* (N..,k), (N..,k) i32, (E), (E) */
} tl_route_outputs;
/* p (N..,E) probabilities; balance: mass and load are wanted */
TL_API void tl_route(tl_graph *g, tl_tensor *p, const tl_route_options *o, bool balance, tl_route_outputs *out);
TL_API tl_tensor *tl_balance(tl_graph *g, tl_tensor *mass, tl_tensor *load, tl_tensor *denom, float coef, int k,
                             int64_t layers);
typedef struct tl_expert_order {
    tl_tensor *token, *place, *begin; /* (N k), (N..,k), (E+1) i32 */
} tl_expert_order;
TL_API void tl_expert_sort(tl_graph *g, tl_tensor *id, int64_t experts, tl_expert_order *out);
TL_API tl_tensor *tl_expert_linear(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *begin);
TL_API tl_tensor *tl_expert_sum(tl_graph *g, tl_tensor *acc, tl_tensor *x, tl_tensor *w, tl_tensor *place);
/* p, m, v, grad (n): external, updated in place; p16 (n) bf16 or NULL; hyper (16), norm (1) or NULL */
TL_API void tl_adamw(tl_graph *g, tl_tensor *p, tl_tensor *m, tl_tensor *v, tl_tensor *grad, tl_tensor *p16,
                     tl_tensor *hyper, tl_tensor *norm, bool decay);

/* ---- gradients ---------------------------------------------------------------------------------- */

/* What of a block the backward pass runs again instead of keeping its results; bits are the same at every level.
 * light: what reads nothing that would not be kept anyway (norms, activations, gates, dropout behind them), a pass over
 * memory each. wide: also the products whose results only such operators read (up and gate of an mlp; the projection of
 * a gated unit), the widest tensors of a block. full: everything; only what enters the block is kept. */
typedef enum tl_recompute {
    TL_RECOMPUTE_NONE,
    TL_RECOMPUTE_LIGHT,
    TL_RECOMPUTE_WIDE,
    TL_RECOMPUTE_FULL,
    TL_RECOMPUTE_LEVELS
} tl_recompute;
/* "none", "light", "wide", "full"; NULL for another number. The level of that name; TL_RECOMPUTE_LEVELS for none such. */
TL_API const char *tl_recompute_name(tl_recompute level);
TL_API tl_recompute tl_recompute_parse(const char *name);

/* Operators built between begin and end form a block, the unit of recomputation. Blocks do not nest. */
TL_API void tl_block_begin(tl_graph *g);
TL_API void tl_block_end(tl_graph *g);

/* Appends the backward pass of loss (one element), for every tl_param that it depends on, and for the inputs listed
 * in wrt, whose gradients come out in dwrt. */
TL_API void tl_graph_backward(tl_graph *g, tl_tensor *loss, tl_tensor *const *wrt, int n_wrt, tl_tensor **dwrt,
                              tl_recompute recompute);
/* t (one element) counts in the loss from which the next tl_graph_backward starts, beside the loss given there, whose
 * own value stays what it is: one such term at a time. */
TL_API void tl_graph_add_loss(tl_graph *g, tl_tensor *t);
/* The same from a given gradient dy of y, for vector-Jacobian products. */
TL_API void tl_graph_vjp(tl_graph *g, tl_tensor *y, tl_tensor *dy, tl_tensor *const *wrt, int n_wrt, tl_tensor **dwrt);
/* The gradient of a parameter, to be bound; NULL if the loss does not depend on it. */
TL_API tl_tensor *tl_param_grad(const tl_graph *g, const tl_tensor *param);

/* ---- plan: order, lifetimes, offsets, kernels ------------------------------------------------------ */

typedef struct tl_plan tl_plan;

typedef struct tl_plan_info {
    size_t arena_bytes;   /* exactly what the plan allocates for intermediate tensors and scratch */
    size_t scratch_bytes; /* of these, the kernels' scratch */
    size_t bound_bytes;   /* memory that the caller binds: parameters, gradients, inputs, outputs */
    size_t tensors, steps;
    tl_cost cost;         /* one run */
} tl_plan_info;

/* Fixes order, lifetimes and offsets, chooses kernels, allocates the arena. dry: allocates no arena and makes no
 * kernels' state (the plan tells its bytes and cost but cannot run). */
TL_API tl_status tl_plan_create(tl_graph *g, bool dry, tl_plan **out, tl_error *err);
TL_API void tl_plan_destroy(tl_plan *p);
TL_API void tl_plan_info_get(const tl_plan *p, tl_plan_info *info);
/* Binds memory of an input, parameter, gradient or output; 64-byte alignment is fastest, the dtype's is required. */
TL_API tl_status tl_plan_bind(tl_plan *p, const tl_tensor *t, void *data);
/* Where a bound or output tensor lies. */
TL_API void *tl_plan_data(const tl_plan *p, const tl_tensor *t);
TL_API void tl_plan_run_info(tl_plan *p, const tl_run_info *info);
/* Runs every step. [allocates: no] [fails: STATE if something is not bound] */
TL_API tl_status tl_plan_run(tl_plan *p);

/* One line per step of a plan: operator, names, kernel, refusals of faster ones, cost, seconds of the last profiled run. */
typedef struct tl_step_info {
    const char *op, *name, *kernel, *refusals;
    tl_cost cost;
    double seconds;
    bool backward;
} tl_step_info;
TL_API size_t tl_plan_steps(const tl_plan *p);
TL_API void tl_plan_step(const tl_plan *p, size_t i, tl_step_info *info);
TL_API tl_status tl_plan_run_profiled(tl_plan *p); /* like tl_plan_run, with a clock around every step */

/* ---- one operator by itself -------------------------------------------------------------------------- */

/* Runs op once on the caller's memory; shapes from in, outputs must have the inferred shapes (out[k].d.dtype TL_NONE:
 * not wanted). Plans are cached by shape in the engine. [threads: one at a time per engine] */
TL_API tl_status tl_eval(tl_engine *e, const tl_op_def *op, const void *attr, const tl_arg *in, int n_in, tl_arg *out,
                         int n_out, uint32_t acc, tl_error *err);
/* Shapes that op would give. */
TL_API tl_status tl_infer(const tl_op_def *op, const void *attr, const tl_desc *in, int n_in, tl_desc *out, tl_error *err);

typedef struct tl_gradcheck_result {
    double worst;     /* largest |analytic - numeric| / max(1, largest |numeric| of that input) */
    int input;        /* where */
    int64_t element;
} tl_gradcheck_result;
/* Compares op's gradient with central differences in double, for every float input, on the given f64 data and a
 * random direction of the outputs. check: bit i = differentiate input i. */
TL_API tl_status tl_gradcheck(tl_engine *e, const tl_op_def *op, const void *attr, const tl_arg *in, int n_in,
                              uint32_t check, double step, tl_gradcheck_result *result, tl_error *err);

#ifdef __cplusplus
}
#endif
#endif
