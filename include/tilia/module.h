/* tilia/module.h: a model, or some of its blocks, as one differentiable function: for research, teaching, comparison.
 * Tensors of the model are numbered as by tl_model_tensors. */
#ifndef TILIA_MODULE_H
#define TILIA_MODULE_H

#include "tilia.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_module tl_module;

typedef struct tl_module_options {
    int64_t rows, context; /* sequences, tokens of each; context 0: the model's */
    int64_t first, blocks; /* blocks first .. first + blocks alone; blocks 0: the whole model */
    bool packed;           /* documents are told apart: tl_module_documents */
} tl_module_options;

/* The function of a model's weights as they are when it runs, f32, without dropout:
 *   the whole model: ids (rows, context) i32 -> logits (rows, context, V) f32
 *   blocks:          x (rows, context, D) f32 -> y (rows, context, D) f32
 * [owns: caller; before the model is closed] [fails: ARG, CONFIG, STATE, NOMEM] */
TL_API tl_status tl_module_create(tl_model *m, const tl_module_options *o, tl_module **out, tl_error *err);
TL_API void tl_module_destroy(tl_module *f); /* NULL is fine */
/* Positions, and where each token's document starts: (rows, context) i32 each. Positions are 0 .. context-1 at first. */
TL_API tl_status tl_module_documents(tl_module *f, const int32_t *pos, const int32_t *doc_start, tl_error *err);

/* in: ids or x; out: logits or y. [fails: ARG an id outside the vocabulary] */
TL_API tl_status tl_module_run(tl_module *f, const void *in, float *out, tl_error *err);
/* The same, then the gradients of sum(dout * out) for every tensor, and for x where there is one (dx may be NULL).
 * [allocates: at the first call, the gradients] */
TL_API tl_status tl_module_vjp(tl_module *f, const void *in, const float *dout, float *out, float *dx, tl_error *err);
/* Copies the gradient of tensor i from the last tl_module_vjp, shaped as the tensor; zero where it is not used. */
TL_API tl_status tl_module_grad(const tl_module *f, size_t i, float *to, tl_error *err);

#ifdef __cplusplus
}
#endif
#endif
