/* Memory of a device, whichever kind it has. */
#include "graph/device.h"

#include "base/mem.h"

#include <string.h>

void device_upload(device *d, void *to, const void *from, size_t bytes) {
    if (!bytes) return;
    if (d->memory)
        d->memory->upload(d, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

void device_download(device *d, void *to, const void *from, size_t bytes) {
    if (!bytes) return;
    if (d->memory)
        d->memory->download(d, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

void device_copy(device *d, void *to, const void *from, size_t bytes) {
    if (!bytes) return;
    if (d->memory)
        d->memory->copy(d, to, from, bytes);
    else
        memcpy(to, from, bytes);
}

void device_clear(device *d, void *to, size_t bytes) {
    if (!bytes) return;
    if (d->memory)
        d->memory->clear(d, to, bytes);
    else
        memset(to, 0, bytes);
}

uint64_t device_mark(device *d) {
    return d->memory ? d->memory->mark(d) : 1;
}

tl_status device_wait(device *d, uint64_t mark, tl_error *err) {
    return d->memory ? d->memory->wait(d, mark, err) : TL_OK;
}

tl_status device_fetch(device *d, void *to, const void *from, size_t bytes, tl_error *err) {
    device_download(d, to, from, bytes);
    return device_wait(d, 0, err);
}

bool device_twin_take(device *d, size_t bytes, device_twin *t) {
    *t = (device_twin){.at = d->alloc_bytes(d, bytes), .bytes = bytes};
    if (!t->at) return false;
    t->host = d->memory ? d->memory->stage(d, bytes) : t->at;
    if (!t->host) {
        device_twin_give(d, t);
        return false;
    }
    memset(t->host, 0, bytes);
    if (d->memory) d->memory->clear(d, t->at, bytes);
    return true;
}

void device_twin_give(device *d, device_twin *t) {
    if (t->at) d->free_bytes(d, t->at, t->bytes); /* waits: staging is free then, too */
    if (t->host && t->host != t->at) d->memory->unstage(d, t->host, t->bytes);
    *t = (device_twin){0};
}

void device_twin_push(device *d, const device_twin *t, const void *host, size_t bytes) {
    if (d->memory && bytes) d->memory->upload(d, device_twin_at(t, host), host, bytes);
}

void device_twin_pull(device *d, const device_twin *t, void *host, size_t bytes) {
    if (d->memory && bytes) d->memory->download(d, host, device_twin_at(t, host), bytes);
}
