/* From a layout to a plan: kernels, offsets, pointers. */
#include "graph/plan.h"

#include <stdio.h>
#include <string.h>

enum { REFUSALS_MAX = 1024 };

/* The dtype's one, for the gradient of a loss with respect to itself. */
static void plan_one(tl_dtype t, void *to) {
    const float f = 1;
    const double d = 1;
    const uint16_t bf16 = 0x3f80, f16 = 0x3c00;
    switch (t) {
    case TL_F64: memcpy(to, &d, sizeof d); break;
    case TL_BF16: memcpy(to, &bf16, sizeof bf16); break;
    case TL_F16: memcpy(to, &f16, sizeof f16); break;
    default: memcpy(to, &f, sizeof f); break;
    }
}

/* ---- steps --------------------------------------------------------------------------------------- */

/* What a step is called: the name given to its result, else the parameter that it works on or whose gradient it adds
 * to, else the operator. */
static const char *plan_node_name(const graph_node *n) {
    for (int k = TL_OP_OUTS - 1; k >= 0; k--)
        if (n->out[k] && n->out[k]->name && n->out[k]->kind == TENSOR_NODE) return n->out[k]->name;
    for (int k = 0; k < TL_OP_OUTS; k++)
        if (n->acc[k] && n->acc[k]->kind == TENSOR_GRAD) return tl_tensor_name(n->acc[k]);
    for (int k = 0; k < TL_OP_INS; k++)
        if (n->in[k] && (n->in[k]->kind == TENSOR_PARAM || n->in[k]->kind == TENSOR_CONST))
            return tl_tensor_name(n->in[k]);
    return n->op->name;
}

static tl_status plan_step_name(tl_plan *p, plan_step *s, const plan_draft *d, char *refusals) {
    s->name = arena_strdup(&p->mem, d->node ? plan_node_name(d->node) : s->op->name);
    s->refusals = refusals[0] ? arena_strdup(&p->mem, refusals) : "";
    return s->name && s->refusals ? TL_OK : TL_NOMEM;
}

static tl_status plan_step_make(tl_plan *p, const plan_layout *l, const plan_draft *d, plan_step *s, tl_error *err) {
    static const struct cast_attr none = {TL_NONE};
    s->op = d->node ? d->node->op : OP_DEF(cast);
    s->backward = d->node && d->node->backward;
    s->call.acc = d->acc;
    s->call.run = &p->run_info;
    for (int i = 0; i < TL_OP_INS; i++) {
        s->in[i] = d->in[i];
        if (d->in[i] >= 0) s->call.in[i].d = l->tensors[d->in[i]].d;
    }
    for (int k = 0; k < TL_OP_OUTS; k++) {
        s->out[k] = d->out[k];
        if (d->out[k] >= 0) s->call.out[k].d = l->tensors[d->out[k]].d;
    }
    if (d->node) {
        s->call.attr = d->node->attr; /* in the graph's arena, which the plan keeps */
    } else {
        struct cast_attr *a = arena_new(&p->mem, 1, sizeof *a);
        if (!a) return error_set(err, TL_NOMEM, "no memory for a plan");
        *a = none;
        a->dtype = s->call.out[0].d.dtype;
        s->call.attr = a;
    }
    s->op->cost(&s->call, &s->cost);
    char refusals[REFUSALS_MAX] = "";
    device *dev = p->host->dev;
    tl_status status = dev->choose(dev, s->op, &s->call, p->dry, &s->exec, refusals, sizeof refusals, err);
    if (status != TL_OK) {
        if (err && !err->tensor[0]) error_at_tensor(err, d->node ? tl_tensor_name(d->node->out[0]) : s->op->name);
        return status;
    }
    s->task = (kernel_task){.call = &s->call, .exec = &s->exec, .workers = dev->threads};
    if (plan_step_name(p, s, d, refusals) != TL_OK) return error_set(err, TL_NOMEM, "no memory for a plan");
    return TL_OK;
}

static tl_status plan_steps_make(tl_plan *p, const plan_layout *l, tl_error *err) {
    p->steps = mem_new(p->host->alloc, l->n_steps, sizeof *p->steps);
    if (!p->steps) return error_set(err, TL_NOMEM, "no memory for a plan");
    for (size_t i = 0; i < l->n_steps; i++) {
        plan_step *s = &p->steps[i];
        p->n_steps = i + 1; /* what is begun is destroyed with the plan */
        TRY(plan_step_make(p, l, &l->steps[i], s, err));
        p->info.cost.flops += s->cost.flops;
        p->info.cost.special += s->cost.special;
        p->info.cost.bytes_read += s->cost.bytes_read;
        p->info.cost.bytes_written += s->cost.bytes_written;
    }
    return TL_OK;
}

/* ---- memory ---------------------------------------------------------------------------------------- */

/* Storages that are used, then the scratch of each step, get their places. */
static tl_status plan_place(tl_plan *p, tl_error *err) {
    const tl_allocator *a = p->host->alloc;
    place_item *items = mem_new(a, p->n_storages + p->n_steps, sizeof *items);
    if (!items) return error_set(err, TL_NOMEM, "no memory for a plan");
    size_t n = 0;
    for (size_t i = 0; i < p->n_storages; i++) {
        const plan_storage *s = &p->storages[i];
        if (s->arena && s->first >= 0) items[n++] = (place_item){.bytes = s->bytes, .first = s->first, .last = s->last};
    }
    for (size_t i = 0; i < p->n_steps; i++) {
        size_t bytes = p->steps[i].exec.scratch;
        if (bytes) items[n++] = (place_item){.bytes = bytes, .first = (int32_t)i, .last = (int32_t)i};
        if (bytes > p->info.scratch_bytes) p->info.scratch_bytes = bytes;
    }
    tl_status status = place_items(a, items, n, &p->info.arena_bytes);
    n = 0;
    for (size_t i = 0; i < p->n_storages; i++)
        if (p->storages[i].arena && p->storages[i].first >= 0) p->storages[i].offset = items[n++].offset;
    for (size_t i = 0; i < p->n_steps; i++)
        if (p->steps[i].exec.scratch) p->steps[i].scratch_at = items[n++].offset;
    mem_free(a, items);
    return status == TL_OK ? TL_OK : error_set(err, status, "no memory for a plan");
}

static void *plan_at(tl_plan *p, int32_t t) {
    const plan_tensor *x = &p->tensors[t];
    unsigned char *base = p->storages[x->storage].data;
    return base ? base + x->offset : NULL;
}

/* Pointers of arguments, and the list of those that a bound tensor's memory must be entered into. */
static tl_status plan_point(tl_plan *p, tl_error *err) {
    size_t n = 0;
    for (size_t i = 0; i < p->n_storages; i++) {
        plan_storage *s = &p->storages[i];
        if (s->arena && s->first >= 0 && p->base) s->data = s->bytes ? p->base + s->offset : p->nothing;
    }
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < p->n_storages; i++) p->storages[i].n_patches = 0;
        for (size_t i = 0; i < p->n_steps; i++) {
            plan_step *s = &p->steps[i];
            for (int j = 0; j < TL_OP_INS + TL_OP_OUTS; j++) {
                int32_t t = j < TL_OP_INS ? s->in[j] : s->out[j - TL_OP_INS];
                if (t < 0) continue;
                tl_arg *arg = j < TL_OP_INS ? &s->call.in[j] : &s->call.out[j - TL_OP_INS];
                plan_storage *m = &p->storages[p->tensors[t].storage];
                arg->data = plan_at(p, t);
                if (m->bound < 0) continue;
                if (pass) p->patches[m->patches + m->n_patches] = (plan_patch){&arg->data, p->tensors[t].offset};
                m->n_patches++;
            }
        }
        if (pass) break;
        for (size_t i = 0; i < p->n_storages; i++) {
            p->storages[i].patches = n;
            n += p->storages[i].n_patches;
        }
        p->patches = arena_new(&p->mem, n, sizeof *p->patches);
        if (!p->patches) return error_set(err, TL_NOMEM, "no memory for a plan");
    }
    return TL_OK;
}

static tl_status plan_arena(tl_plan *p, tl_error *err) {
    if (p->dry) return TL_OK;
    device *dev = p->host->dev;
    size_t bytes = p->info.arena_bytes;
    if (bytes) {
        p->base = dev->alloc_bytes(dev, bytes);
        if (!p->base) return error_set(err, TL_NOMEM, "no memory for the plan's arena of %zu bytes", bytes);
        p->base_bytes = bytes;
    } else {
        p->base = p->nothing; /* all tensors are empty or the caller's */
    }
    TRY(plan_point(p, err));
    for (size_t i = 0; i < p->n_steps; i++) p->steps[i].task.scratch = p->base + p->steps[i].scratch_at;
    for (size_t i = 0; i < p->graph->n_tensors && i < p->n_tensors; i++) {
        const tl_tensor *t = p->tensors[i].t;
        if (t->kind != TENSOR_ONE || p->tensors[i].storage < 0) continue;
        unsigned char one[8];
        plan_one(t->d.dtype, one);
        device_upload(dev, plan_at(p, (int32_t)i), one, tl_dtype_bytes(t->d.dtype));
    }
    return TL_OK;
}

/* ---- the plan ---------------------------------------------------------------------------------------- */

/* What outlives the layout. */
static tl_status plan_keep(tl_plan *p, const plan_layout *l, tl_error *err) {
    p->tensors = arena_new(&p->mem, l->n_tensors, sizeof *p->tensors);
    p->storages = arena_new(&p->mem, l->n_storages, sizeof *p->storages);
    if (!p->tensors || !p->storages) return error_set(err, TL_NOMEM, "no memory for a plan");
    if (l->n_tensors) memcpy(p->tensors, l->tensors, l->n_tensors * sizeof *p->tensors);
    if (l->n_storages) memcpy(p->storages, l->storages, l->n_storages * sizeof *p->storages);
    p->n_tensors = l->n_tensors;
    p->n_storages = l->n_storages;
    for (size_t i = 0; i < p->n_storages; i++)
        if (!p->storages[i].arena) p->info.bound_bytes += p->storages[i].bytes;
    for (size_t i = 0; i < p->n_tensors; i++) p->info.tensors += p->tensors[i].storage >= 0;
    return TL_OK;
}

static tl_status plan_make(tl_plan *p, const plan_layout *l, tl_error *err) {
    TRY(plan_keep(p, l, err));
    TRY(plan_steps_make(p, l, err));
    TRY(plan_place(p, err));
    p->info.steps = p->n_steps;
    if (p->host->dev->memory && !p->dry) TRY(mirror_init(p, err));
    return plan_arena(p, err);
}

tl_status tl_plan_create(tl_graph *g, bool dry, tl_plan **out, tl_error *err) {
    if (!out) return error_set(err, TL_ARG, "nowhere to put the plan");
    *out = NULL;
    TRY(tl_graph_status(g, err));
    if (g->block >= 0) return error_set(err, TL_STATE, "a block is still open: tl_block_end is missing");
    tl_plan *p = mem_new(g->host->alloc, 1, sizeof *p);
    if (!p) return error_set(err, TL_NOMEM, "no memory for a plan");
    p->host = g->host;
    p->graph = g;
    p->dry = dry;
    g->refs++;
    arena_init(&p->mem, g->host->alloc);
    plan_layout l;
    tl_status status = layout_make(&l, g, err);
    if (status == TL_OK) status = plan_make(p, &l, err);
    layout_fini(&l);
    if (status != TL_OK) {
        tl_plan_destroy(p);
        return status;
    }
    *out = p;
    return TL_OK;
}

void tl_plan_destroy(tl_plan *p) {
    if (!p) return;
    const tl_allocator *a = p->host->alloc;
    (void)device_wait(p->host->dev, 0, NULL); /* steps may still be queued; who wants to know waits */
    mirror_fini(p);
    for (size_t i = 0; i < p->n_steps; i++) {
        kernel_exec *x = &p->steps[i].exec;
        if (x->state && x->state_free) x->state_free(x->state, a);
    }
    if (p->base_bytes) p->host->dev->free_bytes(p->host->dev, p->base, p->base_bytes);
    mem_free(a, p->steps);
    arena_fini(&p->mem);
    graph_unref(p->graph);
    mem_free(a, p);
}

void tl_plan_info_get(const tl_plan *p, tl_plan_info *info) {
    if (info) *info = p ? p->info : (tl_plan_info){0};
}
