/* train: what makes a model better. The learning-rate schedule, the trainer (gradients, moments, one step), and
 * checkpoints that survive a kill at any moment. Refuses: texts and files of data (data/), printing and signals (cli/),
 * the run log (runlog/).
 *
 * This file: the learning rate of every step, a pure function. */
#ifndef TRAIN_SCHEDULE_H
#define TRAIN_SCHEDULE_H

#include "tilia.h"

typedef struct schedule {
    tl_schedule kind;
    double lr, min_lr; /* peak and floor */
    int64_t warmup;    /* steps of linear growth */
    int64_t steps;     /* where the floor is reached; 0: never (constant after warm-up) */
} schedule;

enum { SCHEDULE_COOL_PERCENT = 20 }; /* last part of warmup-stable-decay that decays */

/* The learning rate of the update after `step` updates, step from 0. With w = warmup, n = steps:
 *   step < w          lr (step + 1) / (w + 1)                        (all kinds)
 *   x = (step - w) / (n - w), at most 1
 *   cosine            min + (lr - min) (1 + cos(pi x)) / 2           (Loshchilov and Hutter 2017)
 *   linear            lr + (min - lr) x
 *   constant          lr
 *   wsd               lr, and over the last fifth of n: min + (lr - min) (1 - sqrt(y)), y from 0 to 1
 *                     (Hu et al. 2024 for the shape, Haegele et al. 2024 for the root) */
double schedule_lr(const schedule *s, int64_t step);

/* "cosine", "linear", "constant", "wsd" and back; false for another name. */
bool schedule_parse(const char *name, tl_schedule *out);
const char *schedule_name(tl_schedule kind);

#endif
