#include "support/apart.h"

#include "base/error.h"
#include "graph/view.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct block {
    unsigned char *at;
    size_t bytes;
    bool staging;
} block;

/* Device memory has addresses in a stretch that is never mapped; what they stand for lies elsewhere, and only the
 * device knows where. */
enum { ROOM = 1 << 30, GUARD = 64, FRESH = 0xa5, FENCE = 0x5e };

enum { LAUNCH, UPLOAD, DOWNLOAD, COPY, CLEAR };

typedef struct job {
    int kind;
    uint64_t number;
    kernel_task task; /* with call and run, as they were when it was launched */
    tl_op_call call;
    tl_run_info run;
    void *to;
    const void *from;
    void *own; /* from's bytes, where it was no staging */
    size_t bytes;
} job;

typedef struct apart {
    device base;
    device *inner;
    void (*inner_destroy)(device *d);
    apart_counts n;
    unsigned char *room, *real;
    size_t used;   /* of the room, at most so far */
    block *blocks; /* in the order of addresses, staging behind */
    size_t n_blocks, cap_blocks;
    job **queue;
    size_t n_queue, cap_queue;
    uint64_t queued;
    long fail_in;
    bool open, broken;
} apart;

static void *grown(void *p, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return p;
    *cap = 2 * need;
    p = realloc(p, *cap * size);
    if (!p) abort();
    return p;
}

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static size_t whole(size_t bytes) {
    return (bytes + 63) / 64 * 64 + GUARD;
}

/* What an address of the device stands for. */
static unsigned char *real(const apart *a, const void *p) {
    return a->real + ((const unsigned char *)p - a->room);
}

/* The first gap that is large enough; *place: among the blocks. */
static unsigned char *find(const apart *a, size_t bytes, size_t *place) {
    unsigned char *at = a->room;
    size_t i = 0;
    for (; i < a->n_blocks && !a->blocks[i].staging; i++) {
        if ((size_t)(a->blocks[i].at - at) >= whole(bytes)) break;
        at = a->blocks[i].at + whole(a->blocks[i].bytes);
    }
    *place = i;
    return (size_t)(at - a->room) + whole(bytes) <= ROOM ? at : NULL;
}

static void *take(apart *a, size_t bytes, bool staging) {
    size_t place = a->n_blocks;
    if (a->open) abort(); /* nobody allocates within a kernel */
    if (a->fail_in > 0 && --a->fail_in == 0) return NULL;
    block b = {.bytes = bytes, .staging = staging};
    b.at = staging ? aligned_alloc(64, whole(bytes)) : find(a, bytes, &place);
    if (!b.at) return NULL;
    unsigned char *at = staging ? b.at : real(a, b.at);
    memset(at, FRESH, bytes);
    memset(at + bytes, FENCE, whole(bytes) - bytes);
    a->blocks = grown(a->blocks, &a->cap_blocks, a->n_blocks + 1, sizeof *a->blocks);
    memmove(a->blocks + place + 1, a->blocks + place, (a->n_blocks - place) * sizeof b);
    a->blocks[place] = b;
    a->n_blocks++;
    a->n.blocks++;
    a->n.live += bytes;
    if (a->n.live > a->n.peak) a->n.peak = a->n.live;
    return b.at;
}

static void give(apart *a, void *p, size_t bytes) {
    for (size_t i = 0; i < a->n_blocks; i++) {
        const block b = a->blocks[i];
        if (b.at != p) continue;
        if (b.bytes != bytes) abort(); /* freed with another size than it was taken with */
        const unsigned char *at = b.staging ? b.at : real(a, b.at);
        for (size_t k = bytes; k < whole(bytes); k++)
            if (at[k] != FENCE) abort(); /* somebody wrote behind its end */
        if (b.staging) free(b.at);
        a->n_blocks--;
        memmove(a->blocks + i, a->blocks + i + 1, (a->n_blocks - i) * sizeof b);
        a->n.blocks--;
        a->n.live -= bytes;
        return;
    }
    abort(); /* not of this device */
}

static bool is_staging(const apart *a, const void *p, size_t bytes) {
    const unsigned char *at = p;
    for (size_t i = 0; i < a->n_blocks; i++) {
        const block *b = &a->blocks[i];
        if (b->staging && at >= b->at && at + bytes <= b->at + b->bytes) return true;
    }
    return false;
}

/* [p, p + bytes) lies in one block of the device's. */
static unsigned char *need_device(const apart *a, const void *p, size_t bytes) {
    const unsigned char *at = p;
    for (size_t i = 0; i < a->n_blocks; i++) {
        const block *b = &a->blocks[i];
        if (!b->staging && at >= b->at && at + bytes <= b->at + b->bytes) return real(a, p);
    }
    abort(); /* host memory, or behind the end */
}

/* ---- the queue ------------------------------------------------------------------------------------------------- */

static job *put(apart *a, int kind, void *to, const void *from, size_t bytes) {
    job *j = calloc(1, sizeof *j);
    if (!j) abort();
    *j = (job){.kind = kind, .number = ++a->queued, .to = to, .from = from, .bytes = bytes};
    a->queue = grown(a->queue, &a->cap_queue, a->n_queue + 1, sizeof *a->queue);
    a->queue[a->n_queue++] = j;
    return j;
}

static void need_arg(const apart *a, tl_arg *x) {
    if (x->d.dtype != TL_NONE && x->data && tl_desc_count(&x->d) > 0)
        x->data = need_device(a, x->data, view_extent(&x->d));
}

static void run_task(apart *a, job *j) {
    for (int i = 0; i < TL_OP_INS; i++) need_arg(a, &j->call.in[i]);
    for (int k = 0; k < TL_OP_OUTS; k++) need_arg(a, &j->call.out[k]);
    if (j->task.exec->scratch) j->task.scratch = need_device(a, j->task.scratch, j->task.exec->scratch);
    a->inner->launch(a->inner, &j->task);
}

static void run_job(apart *a, job *j) {
    switch (j->kind) {
    case LAUNCH: run_task(a, j); break;
    case UPLOAD: memcpy(real(a, j->to), j->own ? j->own : j->from, j->bytes); break;
    case DOWNLOAD: memcpy(j->to, real(a, j->from), j->bytes); break;
    case COPY: memcpy(real(a, j->to), real(a, j->from), j->bytes); break;
    default: memset(real(a, j->to), 0, j->bytes); break;
    }
}

/* Runs what is queued up to a number; 0: all. */
static void drain(apart *a, uint64_t to) {
    size_t done = 0;
    if (!a->n_queue || (to && a->queue[0]->number > to)) return;
    a->n.waits++;
    a->open = true;
    for (; done < a->n_queue && (!to || a->queue[done]->number <= to); done++) {
        run_job(a, a->queue[done]);
        free(a->queue[done]->own);
        free(a->queue[done]);
    }
    a->open = false;
    a->n_queue -= done;
    memmove(a->queue, a->queue + done, a->n_queue * sizeof *a->queue);
}

/* ---- the device ------------------------------------------------------------------------------------------------ */

static tl_status apart_choose(device *d, const tl_op_def *op, const tl_op_call *call, bool dry, kernel_exec *out,
                              char *refusals, size_t size, tl_error *err) {
    device *in = ((apart *)d)->inner;
    return in->choose(in, op, call, dry, out, refusals, size, err);
}

static void apart_launch(device *d, const kernel_task *t) {
    apart *a = (apart *)d;
    job *j = put(a, LAUNCH, NULL, NULL, 0);
    j->task = *t;
    j->call = *t->call;
    j->task.call = &j->call;
    if (t->call->run) {
        j->run = *t->call->run;
        j->call.run = &j->run;
    }
    a->n.launches++;
}

static void *apart_alloc(device *d, size_t bytes) {
    return take((apart *)d, bytes, false);
}

static void apart_free(device *d, void *p, size_t bytes) {
    drain((apart *)d, 0);
    give((apart *)d, p, bytes);
}

static void apart_upload(device *d, void *to, const void *from, size_t bytes) {
    apart *a = (apart *)d;
    need_device(a, to, bytes);
    job *j = put(a, UPLOAD, to, from, bytes);
    if (!is_staging(a, from, bytes)) {
        j->own = malloc(bytes);
        if (!j->own) abort();
        memcpy(j->own, from, bytes);
    }
    a->n.uploads++;
    a->n.upload_bytes += bytes;
}

static void apart_download(device *d, void *to, const void *from, size_t bytes) {
    apart *a = (apart *)d;
    need_device(a, from, bytes);
    put(a, DOWNLOAD, to, from, bytes);
    a->n.downloads++;
    a->n.download_bytes += bytes;
}

static void apart_copy(device *d, void *to, const void *from, size_t bytes) {
    apart *a = (apart *)d;
    need_device(a, to, bytes);
    need_device(a, from, bytes);
    put(a, COPY, to, from, bytes);
    a->n.copies++;
}

static void apart_clear(device *d, void *to, size_t bytes) {
    apart *a = (apart *)d;
    need_device(a, to, bytes);
    put(a, CLEAR, to, NULL, bytes);
    a->n.clears++;
}

static void *apart_stage(device *d, size_t bytes) {
    return take((apart *)d, bytes, true);
}

static uint64_t apart_mark(device *d) {
    const apart *a = (const apart *)d;
    return a->queued ? a->queued : 1;
}

static tl_status apart_wait(device *d, uint64_t mark, tl_error *err) {
    apart *a = (apart *)d;
    drain(a, mark);
    return a->broken ? error_set(err, TL_DEVICE, "the device is broken") : TL_OK;
}

static const device_memory apart_memory = {.upload = apart_upload,
                                           .download = apart_download,
                                           .copy = apart_copy,
                                           .clear = apart_clear,
                                           .stage = apart_stage,
                                           .unstage = apart_free,
                                           .mark = apart_mark,
                                           .wait = apart_wait};

static void apart_destroy(device *d) {
    apart *a = (apart *)d;
    drain(a, 0);
    if (a->n_blocks) {
        fprintf(stderr, "apart: %zu blocks of device memory were not freed\n", a->n_blocks);
        abort();
    }
    munmap(a->room, ROOM);
    munmap(a->real, ROOM);
    free(a->blocks);
    free(a->queue);
    a->inner_destroy(a->inner);
    free(a);
}

tl_status apart_engine(const tl_engine_options *o, tl_engine **out, tl_error *err) {
    TRY(tl_engine_create(o, out, err));
    tl_engine *e = *out;
    apart *a = calloc(1, sizeof *a);
    if (!a) abort();
    a->room = mmap(NULL, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    a->real = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (a->room == MAP_FAILED || a->real == MAP_FAILED) abort();
    a->inner = e->host.dev;
    a->inner_destroy = e->device_destroy;
    a->base = (device){.name = "apart",
                       .alloc = a->inner->alloc,
                       .threads = a->inner->threads,
                       .choose = apart_choose,
                       .launch = apart_launch,
                       .alloc_bytes = apart_alloc,
                       .free_bytes = apart_free,
                       .memory = &apart_memory};
    e->host.dev = &a->base;
    e->device_destroy = apart_destroy;
    return TL_OK;
}

apart_counts *apart_counted(tl_engine *e) {
    return &((apart *)e->host.dev)->n;
}

void apart_fail_at(tl_engine *e, long n) {
    ((apart *)e->host.dev)->fail_in = n;
}

void apart_break(tl_engine *e, bool broken) {
    ((apart *)e->host.dev)->broken = broken;
}
