#include "model/update.h"

#include "op/attrs.h"

void update_norm(tl_graph *g, const model_params *p, tl_tensor **x, tl_tensor **norm) {
    *x = tl_input(g, "gradients", TL_F32, 1, &p->total);
    *norm = tl_global_norm(g, *x);
    tl_output(g, *norm, "norm");
}

/* Zero times a number is NaN where that is not finite, and else adds nothing to a norm. */
void update_guarded(tl_graph *g, const model_params *p, int64_t n, update_guard *u) {
    int64_t one = 1;
    update_norm(g, p, &u->grads, &u->norm);
    u->losses = tl_input(g, "losses", TL_F32, 1, &n);
    u->before = tl_input(g, "before", TL_F32, 1, &one);
    tl_tensor *zero = tl_scale(g, tl_reduce(g, u->losses, 0, false), 0);
    u->guard = tl_add(g, tl_add(g, u->norm, tl_reshape(g, zero, 1, &one)), u->before);
    tl_output(g, u->guard, "guard");
    u->after = tl_scale(g, u->guard, 0);
    tl_output(g, u->after, "after");
}

/* Matrices decay and have a bf16 copy, vectors do neither. */
static void update_add(tl_graph *g, update_inputs *u, int k, int64_t at, int64_t n, bool copy) {
    static const char *const names[2][5] = {{"p", "m", "v", "g", "p16"}, {"vp", "vm", "vv", "vg", "vp16"}};
    update_range *r = &u->range[k];
    *r = (update_range){.at = at};
    if (n < 1) return;
    r->p = tl_input(g, names[k][0], TL_F32, 1, &n);
    r->m = tl_input(g, names[k][1], TL_F32, 1, &n);
    r->v = tl_input(g, names[k][2], TL_F32, 1, &n);
    r->g = tl_input(g, names[k][3], TL_F32, 1, &n);
    if (copy) r->p16 = tl_input(g, names[k][4], TL_BF16, 1, &n);
    tl_adamw(g, r->p, r->m, r->v, r->g, r->p16, u->hyper, u->norm, k == 0);
}

void update_adamw(tl_graph *g, const model_params *p, bool bf16, update_inputs *u) {
    int64_t one = 1, hyper = HYPER_COUNT;
    u->hyper = tl_input(g, "hyper", TL_F32, 1, &hyper);
    u->norm = tl_input(g, "norm", TL_F32, 1, &one);
    update_add(g, u, 0, 0, p->decayed, bf16);
    update_add(g, u, 1, p->decayed, p->total - p->decayed, false);
}
