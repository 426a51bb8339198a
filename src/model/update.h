/* The two small graphs behind a training step: the norm of all gradients, and the optimizer's pass over the flat
 * buffers. The trainer runs them; cost/ counts and times the same ones. */
#ifndef MODEL_UPDATE_H
#define MODEL_UPDATE_H

#include "model/params.h"
#include "tilia/graph.h"

/* What a range of the flat buffers is bound to. */
typedef struct update_range {
    tl_tensor *p, *m, *v, *g, *p16;
    int64_t at;
} update_range;

typedef struct update_inputs {
    update_range range[2]; /* matrices, then vectors; p NULL: there are none */
    tl_tensor *hyper, *norm;
} update_inputs;

/* Norm of all gradients: x (total) f32 -> *norm (1), an output. Errors are g's sticky error. */
void update_norm(tl_graph *g, const model_params *p, tl_tensor **x, tl_tensor **norm);
/* The same for a device that is told to update before the host has seen the losses. n: numbers that must be finite too,
 * beside the norm. */
typedef struct update_guard {
    tl_tensor *grads, *norm;  /* as above */
    tl_tensor *losses;        /* (n), input */
    tl_tensor *before;        /* (1), input: 0, or NaN since a step was not finite; it must lie where after lies */
    tl_tensor *after, *guard; /* (1), outputs; guard: the norm, NaN if this step or one before was not finite */
} update_guard;
void update_guarded(tl_graph *g, const model_params *p, int64_t n, update_guard *u);
/* AdamW over both ranges; bf16: matrices have a 16-bit copy, written in the same pass. */
void update_adamw(tl_graph *g, const model_params *p, bool bf16, update_inputs *u);

#endif
