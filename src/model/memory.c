/* A model's numbers on a device with memory of its own. The host keeps its copy: files are written from it and read
 * into it, and it is brought up to date when somebody asks. */
#include "model/memory.h"

#include "graph/graph.h"
#include "op/attrs.h"

enum { LINE = 64 };

static device *device_of(const tl_model *m) {
    return graph_host_of(m->engine)->dev;
}

static size_t rounded(size_t bytes) {
    return (bytes + LINE - 1) / LINE * LINE;
}

static size_t flat_bytes(const tl_model *m) {
    return (size_t)m->params.total * sizeof(float);
}

static size_t vector_bytes(const tl_model *m) {
    return (size_t)(m->params.total - m->params.decayed) * sizeof(float);
}

static size_t lora_bytes(const tl_model *m) {
    return m->lora ? (size_t)m->lora->params.total * sizeof(float) : 0;
}

static size_t piece_bytes(const build_matrix *p) {
    if (p->dtype == TL_NONE || !p->data) return 0;
    return (size_t)(p->rows * p->cols / tl_dtype_block(p->dtype)) * tl_dtype_bytes(p->dtype);
}

static tl_status no_room(const tl_model *m, size_t bytes, tl_error *err) {
    return error_set(err, TL_NOMEM, "no memory of %s for %zu bytes of weights", device_of(m)->name, bytes);
}

/* ---- there ------------------------------------------------------------------------------------------------------ */

/* One block for all of the base, so that it is one allocation whatever the model is made of. */
static tl_status place_base(tl_model *m, tl_error *err) {
    device *d = device_of(m);
    model_memory *w = m->memory;
    size_t head = m->flat ? flat_bytes(m) : vector_bytes(m), bytes = rounded(head) + LINE;
    for (size_t i = 0; !m->flat && i < m->mapped.n; i++) bytes += rounded(piece_bytes(&m->mapped.piece[i]));
    unsigned char *at = d->alloc_bytes(d, bytes);
    if (!at) return no_room(m, bytes, err);
    w->block = at;
    w->bytes = bytes;
    *(m->flat ? &w->flat : &w->vectors) = (float *)(void *)at;
    device_upload(d, at, m->flat ? m->flat : m->vectors, head);
    at += rounded(head);
    for (size_t i = 0; !m->flat && i < m->mapped.n; i++) {
        size_t n = piece_bytes(&m->mapped.piece[i]);
        if (!n) continue;
        w->piece[i] = at;
        device_upload(d, at, m->mapped.piece[i].data, n);
        at += rounded(n);
    }
    return TL_OK;
}

static tl_status place_lora(tl_model *m, tl_error *err) {
    device *d = device_of(m);
    if (!m->lora || m->memory->lora) return TL_OK;
    m->memory->lora = d->alloc_bytes(d, lora_bytes(m));
    if (!m->memory->lora) return no_room(m, lora_bytes(m), err);
    device_upload(d, m->memory->lora, m->lora->flat, lora_bytes(m));
    return TL_OK;
}

tl_status model_bring(tl_model *m, tl_error *err) {
    if (!device_of(m)->memory) return TL_OK;
    if (!m->memory) {
        m->memory = mem_new(m->alloc, 1, sizeof *m->memory);
        if (m->memory) m->memory->piece = mem_new(m->alloc, m->mapped.n, sizeof *m->memory->piece);
        tl_status s = m->memory && m->memory->piece ? TL_OK : error_set(err, TL_NOMEM, "no memory for a model");
        if (s == TL_OK) s = place_base(m, err);
        if (s != TL_OK) {
            if (m->memory) mem_free(m->alloc, m->memory->piece);
            mem_free(m->alloc, m->memory);
            m->memory = NULL;
            return s;
        }
    }
    return place_lora(m, err);
}

/* ---- and back --------------------------------------------------------------------------------------------------- */

void model_lift_lora(tl_model *m) {
    model_memory *w = m->memory;
    device *d = device_of(m);
    if (!w || !w->lora) return;
    d->free_bytes(d, w->lora, lora_bytes(m));
    if (w->lora16) d->free_bytes(d, w->lora16, lora_bytes(m) / 2);
    w->lora = NULL;
    w->lora16 = NULL;
    w->newer = false;
}

tl_status model_lift(tl_model *m, tl_error *err) {
    model_memory *w = m->memory;
    if (!w) return TL_OK;
    tl_status s = model_pull(m, err);
    device *d = device_of(m);
    model_lift_lora(m);
    d->free_bytes(d, w->block, w->bytes);
    if (w->flat16) d->free_bytes(d, w->flat16, (size_t)m->params.decayed * sizeof *w->flat16);
    mem_free(m->alloc, w->piece);
    mem_free(m->alloc, w);
    m->memory = NULL;
    return s;
}

void model_changed(const tl_model *m) {
    if (m->memory) m->memory->newer = true;
}

tl_status model_pull(const tl_model *m, tl_error *err) {
    model_memory *w = m->memory;
    if (!w || !w->newer) return TL_OK;
    TRY(m->lora ? device_fetch(device_of(m), m->lora->flat, w->lora, lora_bytes(m), err)
                : device_fetch(device_of(m), m->flat, w->flat, flat_bytes(m), err));
    w->newer = false;
    return TL_OK;
}

tl_status model_push(tl_model *m, tl_error *err) {
    model_memory *w = m->memory;
    if (!w) return TL_OK;
    w->newer = false;
    if (w->flat) device_upload(device_of(m), w->flat, m->flat, flat_bytes(m));
    if (w->lora && m->lora) device_upload(device_of(m), w->lora, m->lora->flat, lora_bytes(m));
    return w->flat16 || w->lora16 ? memory_bf16(m, err) : TL_OK;
}

/* ---- bf16 ------------------------------------------------------------------------------------------------------- */

static tl_status half_copy(tl_model *m, float *from, int64_t n, uint16_t **to, tl_error *err) {
    static const struct cast_attr bf16 = {TL_BF16};
    device *d = device_of(m);
    if (n < 1) return TL_OK;
    if (!*to) *to = d->alloc_bytes(d, (size_t)n * sizeof **to);
    if (!*to) return no_room(m, (size_t)n * sizeof **to, err);
    tl_arg in = {from, tl_desc_make(TL_F32, 1, &n)}, out = {*to, tl_desc_make(TL_BF16, 1, &n)};
    return eval_device(m->engine, OP_DEF(cast), &bf16, &in, 1, &out, 1, err);
}

tl_status memory_bf16(tl_model *m, tl_error *err) {
    model_memory *w = m->memory;
    if (m->lora) TRY(half_copy(m, w->lora, m->lora->params.total, &w->lora16, err));
    return w->flat ? half_copy(m, w->flat, m->params.decayed, &w->flat16, err) : TL_OK;
}

float *model_trained(const tl_model *m) {
    if (m->memory) return m->lora ? m->memory->lora : m->memory->flat;
    return m->lora ? m->lora->flat : m->flat;
}

uint16_t *model_trained16(const tl_model *m) {
    if (m->memory) return m->lora ? m->memory->lora16 : m->memory->flat16;
    return m->lora ? m->lora->flat16 : m->flat16;
}
