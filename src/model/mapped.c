#include "model/mapped.h"

#include "tensor/tensor.h"

#include <stdlib.h>
#include <string.h>

struct model_source {
    gguf_parts gguf;
    safetensors tensors;
};

/* One matrix piece as a file has it; false: not there or not as a kernel could read it. */
typedef bool (*find_fn)(const void *file, const param_piece *p, build_matrix *out);

static bool find_gguf(const void *file, const param_piece *p, build_matrix *out) {
    const gguf_tensor *t = gguf_parts_find(file, p->name);
    int64_t experts = p->experts ? p->experts : 1;
    if (!t || t->ne[0] != p->cols || t->ne[1] != p->rows / experts || t->ne[2] != experts || t->ne[3] != 1)
        return false;
    *out = (build_matrix){gguf_dtype(t->type), p->rows, p->cols, t->data};
    return out->dtype != TL_NONE;
}

static bool find_safetensors(const void *file, const param_piece *p, build_matrix *out) {
    const safetensors_entry *t = safetensors_find(file, p->name);
    bool stacked = t && p->experts && t->ndim == 3 && t->dim[0] * t->dim[1] == p->rows && t->dim[2] == p->cols;
    if (!t || (!stacked && (t->ndim != 2 || t->dim[0] != p->rows || t->dim[1] != p->cols))) return false;
    if (t->dtype != TL_F32 && t->dtype != TL_F16 && t->dtype != TL_BF16) return false;
    *out = (build_matrix){t->dtype, p->rows, p->cols, t->data};
    return (uintptr_t)t->data % tl_dtype_bytes(t->dtype) == 0;
}

/* Experts that a directory has one by one, gathered in its own number type: NULL data if they cannot be. */
static tl_status pack_experts(tl_model *m, size_t i, const safetensors *s, build_matrix *out, tl_error *err) {
    const model_param *q = &m->params.list[i];
    param_piece p;
    build_matrix part;
    int n = 1;
    *out = (build_matrix){TL_NONE, q->rows, q->cols, NULL};
    for (int k = 0; k < n; k++) {
        model_directory_piece(m, i, s, k, &n, &p);
        if (n < 2 || !find_safetensors(s, &p, &part) || (k && part.dtype != out->dtype)) return TL_OK;
        out->dtype = part.dtype;
    }
    size_t size = tl_dtype_bytes(out->dtype), bytes = (size_t)(q->rows * q->cols) * size;
    if (!m->packed) m->packed = mem_new(m->alloc, m->params.n, sizeof *m->packed);
    void *data = m->packed ? mem_take(m->alloc, bytes) : NULL;
    if (!data) return error_set(err, TL_NOMEM, "no memory to put %zu bytes of experts together", bytes);
    m->packed[i] = (model_packed){data, bytes};
    for (int k = 0; k < n; k++) {
        model_directory_piece(m, i, s, k, &n, &p);
        find_safetensors(s, &p, &part);
        memcpy((char *)data + size * (size_t)(p.row * p.cols), part.data, size * (size_t)(p.rows * p.cols));
    }
    out->data = data;
    return TL_OK;
}

static void unpack_experts(tl_model *m) {
    for (size_t i = 0; m->packed && i < m->params.n; i++)
        if (m->packed[i].data) mem_give(m->alloc, m->packed[i].data, m->packed[i].bytes);
    mem_free(m->alloc, m->packed);
    m->packed = NULL;
}

static tl_status list_pieces(tl_model *m, param_format f, find_fn find, const void *file, build_matrices *out,
                             tl_error *err) {
    out->n = m->params.n * PARAM_PIECES;
    out->piece = mem_new(m->alloc, out->n, sizeof *out->piece);
    if (!out->piece) return error_set(err, TL_NOMEM, "no memory for a list of matrices");
    for (size_t i = 0; i < m->params.n; i++) {
        param_piece piece;
        if (!m->params.list[i].decay) continue;
        int n = f == FORMAT_GGUF ? params_piece_total(&m->config, &m->params.list[i], f) : 1;
        bool experts = m->params.list[i].role == ROLE_EXPERT_UP || m->params.list[i].role == ROLE_EXPERT_DOWN;
        build_matrix *first = &out->piece[i * PARAM_PIECES];
        if (experts && f == FORMAT_HF) {
            tl_status s = pack_experts(m, i, file, first, err);
            if (s != TL_OK) {
                mem_free(m->alloc, out->piece);
                *out = (build_matrices){0};
                return s;
            }
            if (first->data) continue;
        }
        for (int k = 0; k < n; k++) {
            if (f == FORMAT_GGUF)
                params_piece_get(&m->config, &m->params.list[i], f, k, &piece);
            else
                model_directory_piece(m, i, file, k, &n, &piece);
            bool fits = n <= PARAM_PIECES && !piece.transposed && !piece.paired && piece.add == 0 &&
                        find(file, &piece, &out->piece[i * PARAM_PIECES + (size_t)k]);
            if (fits) continue;
            mem_free(m->alloc, out->piece);
            *out = (build_matrices){0};
            unpack_experts(m);
            return error_set(err, TL_UNSUPPORTED, "%s cannot be used where it lies", piece.name);
        }
    }
    return TL_OK;
}

static size_t vector_bytes(const tl_model *m) { /* never none */
    return (size_t)(m->params.total - m->params.decayed + 16) * sizeof(float);
}

static tl_status take_vectors(tl_model *m, tl_error *err) {
    size_t bytes = vector_bytes(m);
    m->vectors = mem_take(m->alloc, bytes);
    if (!m->vectors) return error_set(err, TL_NOMEM, "no memory for a model's vectors");
    memset(m->vectors, 0, bytes);
    m->source = mem_new(m->alloc, 1, sizeof *m->source);
    return m->source ? TL_OK : error_set(err, TL_NOMEM, "no memory for a model");
}

/* llama's rows of q and k stand in the order of pairs there: then it is the rotation that pairs neighbours. */
static void pair_neighbours(tl_model *m) {
    param_piece piece[PARAM_PIECES];
    int64_t i = params_find(&m->params, ROLE_QKV, 0, 0);
    if (i < 0 || !params_pieces(&m->config, &m->params.list[i], FORMAT_GGUF, piece)) return;
    if (piece[0].paired) m->config.rope_interleaved = m->pairs = true;
}

tl_status mapped_gguf(tl_model *m, gguf_parts *p, tl_error *err) {
    bool before = m->config.rope_interleaved;
    pair_neighbours(m);
    tl_status s = list_pieces(m, FORMAT_GGUF, find_gguf, p, &m->mapped, err);
    if (s != TL_OK) {
        m->config.rope_interleaved = before;
        m->pairs = false;
        return s;
    }
    TRY(take_vectors(m, err));
    TRY(model_read_gguf(m, p, err));
    m->source->gguf = *p;
    *p = (gguf_parts){0};
    return TL_OK;
}

tl_status mapped_safetensors(tl_model *m, safetensors *s, tl_error *err) {
    TRY(list_pieces(m, FORMAT_HF, find_safetensors, s, &m->mapped, err));
    TRY(take_vectors(m, err));
    TRY(model_read_tensors(m, s, err));
    m->source->tensors = *s;
    memset(s, 0, sizeof *s);
    return TL_OK;
}

void mapped_close(tl_model *m) {
    unpack_experts(m);
    if (m->vectors) mem_give(m->alloc, m->vectors, vector_bytes(m));
    if (m->source) {
        gguf_parts_close(&m->source->gguf);
        if (m->source->tensors.alloc) safetensors_close(&m->source->tensors);
        mem_free(m->alloc, m->source);
    }
    mem_free(m->alloc, m->mapped.piece);
    m->vectors = NULL;
    m->source = NULL;
    m->mapped = (build_matrices){0};
}
