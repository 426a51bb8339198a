/* Binding and running: pointers are entered when memory is bound, so that a run is a loop over tasks and nothing else.
 */
#include "graph/plan.h"

#include <time.h>

static const plan_tensor *run_tensor(const tl_plan *p, const tl_tensor *t) {
    if (!p || !t || t->graph != p->graph || (size_t)t->index >= p->graph->n_tensors) return NULL;
    if ((size_t)t->index >= p->n_tensors || p->tensors[t->index].t != t) return NULL; /* newer than the plan */
    return &p->tensors[t->index];
}

static tl_status run_bind(tl_plan *p, const tl_tensor *t, void *data, bool host) {
    const plan_tensor *x = run_tensor(p, t);
    if (!x) return TL_ARG;
    if (t->kind == TENSOR_NODE && !t->output) return TL_ARG;
    size_t bytes = tl_dtype_bytes(t->d.dtype), align = bytes & (~bytes + 1u); /* its largest power of two */
    if (data && (uintptr_t)data % align) return TL_ARG;
    if (x->storage < 0) return TL_OK; /* nothing that the plan computes needs it */
    plan_storage *s = &p->storages[x->storage];
    if (s->bound != t->index) return TL_ARG; /* an output that lies in other memory of the caller */
    if (p->dry) return TL_STATE;
    if (p->mirrors) {
        void *at = NULL;
        TRY(mirror_bind(p, (size_t)x->storage, host ? data : NULL, &at));
        if (host) data = at;
    }
    if (!data && s->arena) data = s->bytes ? p->base + s->offset : p->nothing; /* back into the arena */
    s->data = data;
    for (size_t i = 0; i < s->n_patches; i++) {
        const plan_patch *q = &p->patches[s->patches + i];
        *q->slot = data ? (unsigned char *)data + q->offset : NULL;
    }
    return TL_OK;
}

tl_status tl_plan_bind(tl_plan *p, const tl_tensor *t, void *data) {
    return run_bind(p, t, data, true);
}

tl_status plan_bind_device(tl_plan *p, const tl_tensor *t, void *at) {
    return run_bind(p, t, at, false);
}

void *plan_data_device(const tl_plan *p, const tl_tensor *t) {
    const plan_tensor *x = run_tensor(p, t);
    if (!x || x->storage < 0 || (t->kind == TENSOR_NODE && !t->output)) return NULL;
    unsigned char *base = p->storages[x->storage].data;
    return base ? base + x->offset : NULL;
}

void *tl_plan_data(const tl_plan *p, const tl_tensor *t) {
    const plan_tensor *x = run_tensor(p, t);
    unsigned char *base = plan_data_device(p, t);
    if (!base || !p->mirrors) return base;
    base = mirror_data(p, (size_t)x->storage);
    return base ? base + x->offset : NULL;
}

void tl_plan_run_info(tl_plan *p, const tl_run_info *info) {
    if (p) p->run_info = info ? *info : (tl_run_info){0};
}

static tl_status run_ready(const tl_plan *p) {
    if (!p || p->dry) return TL_STATE;
    for (size_t i = 0; i < p->n_storages; i++) {
        const plan_storage *s = &p->storages[i];
        if (s->arena || s->data || s->first < 0) continue;
        log_line(&p->host->log, TL_LOG_ERROR, "%s is not bound", tl_tensor_name(p->tensors[s->bound].t));
        return TL_STATE;
    }
    return TL_OK;
}

tl_status tl_plan_run(tl_plan *p) {
    TRY(run_ready(p));
    device *dev = p->host->dev;
    if (p->mirrors) mirror_upload(p);
    for (size_t i = 0; i < p->n_steps; i++) dev->launch(dev, &p->steps[i].task);
    return p->mirrors ? mirror_download(p) : TL_OK;
}

static double run_clock(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

tl_status tl_plan_run_profiled(tl_plan *p) {
    TRY(run_ready(p));
    device *dev = p->host->dev;
    if (p->mirrors) mirror_upload(p);
    TRY(device_wait(dev, 0, NULL));
    double before = run_clock();
    for (size_t i = 0; i < p->n_steps; i++) {
        dev->launch(dev, &p->steps[i].task);
        TRY(device_wait(dev, 0, NULL));
        double now = run_clock();
        p->steps[i].seconds = now - before;
        before = now;
    }
    return p->mirrors ? mirror_download(p) : TL_OK;
}

size_t tl_plan_steps(const tl_plan *p) {
    return p ? p->n_steps : 0;
}

void tl_plan_step(const tl_plan *p, size_t i, tl_step_info *info) {
    if (!info) return;
    *info = (tl_step_info){.op = "", .name = "", .kernel = "", .refusals = ""};
    if (!p || i >= p->n_steps) return;
    const plan_step *s = &p->steps[i];
    *info = (tl_step_info){.op = s->op->name,
                           .name = s->name,
                           .kernel = s->exec.name,
                           .refusals = s->refusals,
                           .cost = s->cost,
                           .seconds = s->seconds,
                           .backward = s->backward};
}
