/* cost/walk: the steps of a plan one by one, with what each does: the one place where operators are told apart. */
#ifndef COST_WALK_H
#define COST_WALK_H

#include "cost/machine.h"

/* Components of a model, as reports name them. */
enum {
    COST_EMBED,
    COST_NORM,
    COST_PROJECTION,
    COST_ATTENTION,
    COST_MLP,
    COST_HEAD,
    COST_OPTIMIZER,
    COST_OTHER,
    COST_PARTS
};
extern const char *const cost_part_name[COST_PARTS];

typedef struct cost_step {
    const plan_step *step; /* name, kernel, call */
    int part;              /* COST_EMBED .. */
    bool backward;
    tl_cost cost;
    double products; /* of cost.flops: those of dot products, a multiply-add as two */
    double dots;     /* how many dot products these are: 2n-1 operations each instead of 2n */
    tl_dtype data, weight;
    double feature[COST_FEATURES];
    double phases; /* barriers that the kernel passes */
} cost_step;

/* seen: of the cache's capacity, how much the rows of a decode step see on average (cost rules count all of it); 1
 * elsewhere. footprint: bytes that a run of the plan passes through. */
void walk_step(const tl_plan *p, size_t i, double seen, double footprint, cost_step *s);
double walk_footprint(const tl_plan *p);

/* Seconds that the limits alone ask for, and which of both: *compute. */
double walk_limit(const cost_machine *m, const cost_step *s, bool *compute);
/* Seconds to be expected: on a measured machine by the nearest measured calls, elsewhere the limit. */
double walk_seconds(cost_machine *m, const cost_step *s);

#endif
