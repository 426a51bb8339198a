/* The trainer: one optimizer step at a time on a model in memory. It holds what training needs beside the weights
 * (gradients, moments, the planned activations), all taken at creation; a step takes nothing.
 *
 * The same step gives the same bits for any number of threads. Splitting it into micro-batches changes sums by
 * rounding only: the loss divides by the labels of the whole step and dropout counts rows of the whole step. */
#ifndef TRAIN_TRAINER_H
#define TRAIN_TRAINER_H

#include "data/loader.h"
#include "model/model.h"
#include "model/segments.h"
#include "train/schedule.h"

/* tl_trainer_options with every default put in: zeros mean zero here. */
typedef struct trainer_settings {
    schedule schedule;
    int64_t rows, micro, context;
    int64_t segment; /* tokens of a row computed at a time, 0: all; model/segments.h */
    tl_dtype dtype;
    double beta1, beta2, eps, decay, clip; /* clip 0: none */
    tl_recompute recompute;
    bool packed;
    uint64_t seed;
} trainer_settings;

/* Bytes that training holds; activations is exactly what the plans allocate, and
 * what segments hand on. weights: those of the base and of its
 * adapters; mapped: matrices of the base that stay in their file, not part of the total. */
typedef struct trainer_bytes {
    size_t weights, weights16, gradients, moments, activations, batch, total, mapped;
} trainer_bytes;

/* What is trained: a model from its configuration on. lora, mapped: NULL for training as a whole, from f32. */
typedef struct trainer_shape {
    const model_config *config;
    const model_params *params;
    const model_lora *lora;
    const build_matrices *mapped;
} trainer_shape;

/* One plan over one graph. */
typedef struct trainer_plan {
    tl_graph *graph;
    tl_plan *plan;
} trainer_plan;

typedef struct trainer {
    tl_model *model; /* borrowed */
    const tl_allocator *alloc;
    trainer_settings set;
    int64_t step;               /* updates done or passed over */
    int64_t data_shift;         /* the batch of a step is that of step + data_shift: a rollback passes over bad data */
    int64_t tokens;             /* labels seen */
    int64_t skipped;            /* steps passed over because a number was not finite */
    const model_params *params; /* what is trained: the model's own, or its adapters */
    float *grad, *m, *v;        /* (params->total) each */
    trainer_plan fwd, norm, update;
    build_result build;
    trainer_plan ahead; /* with segments: what a segment hands to the next, forward alone */
    build_result ahead_build;
    segments seg;       /* places 0 .. count-1: what segments are handed; two more: gradients of it */
    tl_tensor *norm_out;
    int64_t padded;     /* rows of the batch buffers: whole micro-batches */
    loader_batch batch; /* (padded, context) */
    int32_t *batch_block;
    double *freq;
    float *small; /* slopes, then the sinusoid, then hyper, norm, denominator, bound by the plans */
    float *slopes, *sinusoid, *hyper, *norm_value, *denom;
    size_t small_count;
    double flops, moved; /* of a whole step: operations, bytes read and written */
    trainer_bytes bytes;
} trainer;

/* Checks options against the model and fills in what is left open. [fails: ARG, CONFIG, naming the option] */
tl_status trainer_resolve(const model_config *c, const tl_trainer_options *o, trainer_settings *out, tl_error *err);
/* What a trainer with these settings would hold, and the cost of one step, without taking any of it. */
tl_status trainer_measure(tl_engine *e, const trainer_shape *w, const trainer_settings *s, trainer_bytes *bytes,
                          tl_cost *cost, tl_error *err);
/* [owns: caller] [fails: ARG, CONFIG, NOMEM, UNSUPPORTED] */
tl_status trainer_create(tl_model *m, const trainer_settings *s, trainer **out, tl_error *err);
void trainer_destroy(trainer *t); /* NULL is fine */

/* One step on the loader's batch number step + data_shift. A loss or a norm of the gradient that is not finite is
 * NUMERIC: weights, moments and the step count are then as before, m says what was seen. [allocates: no] */
tl_status trainer_step(trainer *t, const loader *l, tl_metrics *m, tl_error *err);
/* The same on the caller's ids (rows, context + 1): each row's last `context` ids are predicted. */
tl_status trainer_step_ids(trainer *t, const int32_t *ids, tl_metrics *m, tl_error *err);
/* Counts the step at hand as done without an update: its data is never seen again. */
void trainer_pass_over(trainer *t);
/* Forward and backward of the batch in place, `runs` micro-batches, no update: for measuring speed. Seconds of one
 * whole step are returned through *seconds. */
tl_status trainer_probe(trainer *t, const loader *l, double *seconds, tl_error *err);
/* Norm of the loss's gradient by layer on the loader's next batch, no update: (layers + 1), the last one is that of the
 * parameters outside the layers (embedding, positions, last norm, head). [allocates: no] */
tl_status trainer_gradients(trainer *t, const loader *l, double *norm, tl_error *err);

#endif
