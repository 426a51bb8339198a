/* Plans whose caller's memory is the host's and whose device has its own: each bound storage has a counterpart over
 * there, sent before a run if steps read it, fetched behind it if they write it. Memory of two tensors that a plan
 * writes or writes and reads must not overlap: each is fetched by itself. */
#include "graph/plan.h"

#include "base/mem.h"

tl_status mirror_init(tl_plan *p, tl_error *err) {
    p->mirrors = arena_new(&p->mem, p->n_storages ? p->n_storages : 1, sizeof *p->mirrors);
    if (!p->mirrors) return error_set(err, TL_NOMEM, "no memory for a plan");
    for (size_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        for (int j = 0; j < TL_OP_INS; j++)
            if (s->in[j] >= 0) p->mirrors[p->tensors[s->in[j]].storage].read = true;
        for (int k = 0; k < TL_OP_OUTS; k++) {
            if (s->out[k] < 0) continue;
            plan_mirror *m = &p->mirrors[p->tensors[s->out[k]].storage];
            m->written = true;
            if (s->call.acc >> k & 1u) m->read = true;
        }
    }
    return TL_OK;
}

void mirror_fini(tl_plan *p) {
    device *d = p->host->dev;
    for (size_t i = 0; p->mirrors && i < p->n_storages; i++) {
        plan_mirror *m = &p->mirrors[i];
        if (m->device) d->free_bytes(d, m->device, p->storages[i].bytes);
        if (m->shadow) mem_give(p->host->alloc, m->shadow, p->storages[i].bytes);
    }
    p->mirrors = NULL;
}

tl_status mirror_bind(tl_plan *p, size_t i, void *host, void **at) {
    device *d = p->host->dev;
    plan_mirror *m = &p->mirrors[i];
    m->host = host;
    *at = NULL;
    if (!host) return TL_OK;
    if (!m->device && p->storages[i].bytes) m->device = d->alloc_bytes(d, p->storages[i].bytes);
    *at = p->storages[i].bytes ? m->device : p->nothing;
    return *at ? TL_OK : TL_NOMEM;
}

void *mirror_data(const tl_plan *p, size_t i) {
    plan_mirror *m = &p->mirrors[i];
    const plan_storage *s = &p->storages[i];
    if (m->host || !s->bytes) return m->host ? m->host : s->data;
    if (m->shadow) return m->shadow; /* as the last run left it */
    m->shadow = mem_take(p->host->alloc, s->bytes);
    if (m->shadow && device_fetch(p->host->dev, m->shadow, s->data, s->bytes, NULL) == TL_OK) return m->shadow;
    if (m->shadow) mem_give(p->host->alloc, m->shadow, s->bytes);
    return m->shadow = NULL;
}

void mirror_upload(tl_plan *p) {
    for (size_t i = 0; i < p->n_storages; i++) {
        const plan_mirror *m = &p->mirrors[i];
        if (m->host && m->read) device_upload(p->host->dev, m->device, m->host, p->storages[i].bytes);
    }
}

tl_status mirror_download(tl_plan *p) {
    bool any = false;
    for (size_t i = 0; i < p->n_storages; i++) {
        const plan_mirror *m = &p->mirrors[i];
        const plan_storage *s = &p->storages[i];
        bool wanted = m->host ? m->written : m->shadow != NULL;
        if (!wanted) continue;
        device_download(p->host->dev, m->host ? m->host : m->shadow, s->data, s->bytes);
        any = true;
    }
    return any ? device_wait(p->host->dev, 0, NULL) : TL_OK;
}
