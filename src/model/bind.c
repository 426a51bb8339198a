/* A model's numbers at the places where a graph wants them. */
#include "model/model.h"

#include "base/half.h"
#include "graph/plan.h"
#include "model/memory.h"
#include "tensor/tensor.h"

void model_options(const tl_model *m, build_options *o) {
    o->mapped = m->flat ? NULL : &m->mapped;
    o->lora = m->lora;
}

size_t build_mapped_bytes(const build_matrices *m) {
    size_t n = 0;
    for (size_t i = 0; m && i < m->n; i++) {
        const build_matrix *p = &m->piece[i];
        if (p->dtype != TL_NONE) n += (size_t)(p->rows * p->cols / tl_dtype_block(p->dtype)) * tl_dtype_bytes(p->dtype);
    }
    return n;
}

static tl_status bind(tl_plan *p, const tl_tensor *t, const void *data) {
    return t ? plan_bind_device(p, t, (void *)(uintptr_t)data) : TL_OK; /* constants: nobody writes them */
}

/* Where the device has parameter i. */
static const float *numbers_at(const tl_model *m, size_t i) {
    const model_memory *w = m->memory;
    const model_param *q = &m->params.list[i];
    if (!w) return model_numbers(m, i);
    if (w->flat) return w->flat + q->offset;
    return q->decay ? NULL : w->vectors + (q->offset - m->params.decayed);
}

tl_status model_bind(const tl_model *m, tl_plan *p, const build_result *r, tl_dtype dtype) {
    const bool half = dtype == TL_BF16;
    const model_memory *w = m->memory;
    const uint16_t *flat16 = w ? w->flat16 : m->flat16;
    for (size_t i = 0; i < m->params.n; i++) {
        const model_param *q = &m->params.list[i];
        bool copy = half && q->decay && flat16;
        TRY(bind(p, r->params[i], copy ? (const void *)(flat16 + q->offset) : (const void *)numbers_at(m, i)));
    }
    for (size_t i = 0; r->pieces && i < m->mapped.n; i++)
        TRY(bind(p, r->pieces[i], w ? w->piece[i] : m->mapped.piece[i].data));
    for (size_t i = 0; r->lora && i < m->lora->params.n; i++) {
        int64_t at = m->lora->params.list[i].offset;
        const float *lora = w ? w->lora : m->lora->flat;
        const uint16_t *lora16 = w ? w->lora16 : m->lora->flat16;
        TRY(bind(p, r->lora[i], half ? (const void *)(lora16 + at) : (const void *)(lora + at)));
    }
    return TL_OK;
}

static tl_status half_copy(const tl_allocator *a, const float *from, int64_t n, uint16_t **to, tl_error *err) {
    if (!*to) *to = mem_take(a, (size_t)n * sizeof **to);
    if (!*to) return error_set(err, TL_NOMEM, "no memory for the bf16 copy of the weights");
    for (int64_t i = 0; i < n; i++) (*to)[i] = half_f32_to_bf16(from[i]);
    return TL_OK;
}

tl_status model_bf16(tl_model *m, tl_error *err) {
    for (size_t i = 0; !m->flat && i < m->mapped.n; i++)
        if (tensor_is_quantized(m->mapped.piece[i].dtype))
            return error_set(err, TL_UNSUPPORTED, "weights that stay in blocks in their file are computed with in f32");
    if (m->memory) return memory_bf16(m, err);
    if (m->lora) TRY(half_copy(m->alloc, m->lora->flat, m->lora->params.total, &m->lora->flat16, err));
    return m->flat ? half_copy(m->alloc, m->flat, m->params.decayed, &m->flat16, err) : TL_OK;
}
