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
#include "model/update.h"
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

/* What of a step passes between host and device, in one block each way. A device with memory of its own has two of
 * them, so that a step can be queued while the results of the one before are on their way. */
typedef struct trainer_slot {
    device_twin in;     /* hyper, norm, denominator, then the numbers of the batch */
    device_twin out;    /* such a device: norm, then loss and balance of each micro-batch */
    loader_batch batch; /* (padded, context), in `in` */
    float *hyper, *norm, *denom;
    tl_metrics m; /* of the step that is on its way */
    uint64_t mark;
} trainer_slot;
enum { TRAINER_SLOTS = 2 };

typedef struct trainer {
    tl_model *model; /* borrowed */
    const tl_allocator *alloc;
    trainer_settings set;
    double heard;               /* when the last step ended */
    int64_t step;               /* updates done or passed over */
    int64_t data_shift;         /* the batch of a step is that of step + data_shift: a rollback passes over bad data */
    int64_t tokens;             /* labels seen */
    int64_t skipped;            /* steps passed over because a number was not finite */
    const model_params *params; /* what is trained: the model's own, or its adapters */
    device *dev;
    float *grad, *m, *v; /* (params->total) each, the device's */
    trainer_plan fwd, norm, update;
    build_result build;
    trainer_plan ahead; /* with segments: what a segment hands to the next, forward alone */
    build_result ahead_build;
    segments seg; /* places 0 .. count-1: what segments are handed; two more: gradients of it */
    update_inputs bound;
    update_guard guard; /* of a device with memory of its own */
    int64_t padded;     /* rows of the batch buffers: whole micro-batches */
    trainer_slot slot[TRAINER_SLOTS];
    int slots, begun;    /* how many there are; steps that are queued and not heard of */
    device_twin freq;    /* doubles */
    device_twin small;   /* slopes, then the sinusoid */
    float *sticky;       /* with guard: NaN since a step was not finite, and the guarded norm behind it */
    double flops, moved; /* of a whole step: operations, bytes read and written */
    trainer_bytes bytes;
} trainer;

/* Checks options against the model and fills in what is left open. [fails: ARG, CONFIG, naming the option] */
tl_status trainer_resolve(const model_config *c, const tl_trainer_options *o, trainer_settings *out, tl_error *err);
/* Binds a slot's parts to the plans. For trainer.c and create.c. */
tl_status trainer_bind_slot(trainer *t, trainer_slot *s);
/* What a trainer with these settings would hold, and the cost of one step, without taking any of it. */
tl_status trainer_measure(tl_engine *e, const trainer_shape *w, const trainer_settings *s, trainer_bytes *bytes,
                          tl_cost *cost, tl_error *err);
/* [owns: caller] [fails: ARG, CONFIG, NOMEM, UNSUPPORTED] */
tl_status trainer_create(tl_model *m, const trainer_settings *s, trainer **out, tl_error *err);
void trainer_destroy(trainer *t); /* NULL is fine */

/* One step on the loader's batch number step + data_shift. A loss or a norm of the gradient that is not finite is
 * NUMERIC: weights, moments and the step count are then as before, m says what was seen. [allocates: no] */
tl_status trainer_step(trainer *t, const loader *l, tl_metrics *m, tl_error *err);
/* The two halves of a step, for a device that works while the host does something else: begin queues the next step and
 * waits for nothing, end hears how the oldest one went. Between them the trainer's step counts only what was heard. A
 * step that was not finite ends with NUMERIC, whatever was begun behind it has changed nothing and is forgotten. On a
 * device without memory of its own end does the work, and one step can be begun at a time; else two.
 * [fails: STATE nothing begun, or too much] [allocates: no] */
tl_status trainer_begin(trainer *t, const loader *l, tl_error *err);
tl_status trainer_end(trainer *t, tl_metrics *m, tl_error *err);
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
