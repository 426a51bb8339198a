#include "cli/profile_cli.h"
#include "cost/measure.h"
#include "train/trainer.h"

#include <math.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The least of several runs of one step of a plan whose memory is bound. What it adds to is added to again: times do
 * not depend on values. */
static double alone(device *dev, const plan_step *s) {
    double least = HUGE_VAL;
    const double start = now();
    for (int i = 0; i < 4 || (i < 50 && now() - start < 0.02); i++) {
        const double from = now();
        dev->launch(dev, &s->task);
        (void)device_wait(dev, 0, NULL);
        least = fmin(least, now() - from);
    }
    return least;
}

tl_status profile_floor_of(tl_engine *e, profile_run *r, profile_floor *f, tl_error *err) {
    const trainer *t = r->trainer;
    const tl_plan *const plans[] = {t->fwd.plan, t->norm.plan, t->update.plan};
    device *dev = e->host.dev;
    cost_machine limits;
    *f = (profile_floor){0};
    TRY(measure_limits(e, CLOCK_MONOTONIC, &limits, err));
    f->bandwidth = limits.bandwidth;
    machine_fini(&limits);
    profile_row *row = r->row; /* in the order of the steps */
    for (int k = 0; k < 3; k++)
        for (size_t i = 0; i < plans[k]->n_steps && row < r->row + r->n; i++, row++) {
            const plan_step *s = &plans[k]->steps[i];
            const bool product = s->op->flags & TL_OP_PRODUCT, mixer = s->op->flags & TL_OP_MIXER;
            const double bytes = s->cost.bytes_read + s->cost.bytes_written;
            row->alone = product || mixer ? alone(dev, s) : bytes / f->bandwidth;
            if (!product && !mixer) f->bytes += bytes;
            *(product ? &f->products : mixer ? &f->mixers : &f->others) += row->alone;
        }
    f->sum = f->products + f->mixers + f->others;
    return TL_OK;
}
