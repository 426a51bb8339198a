/* Weights out of GGUF files, one or split. */
#include "model/gguf.h"

#include "base/half.h"
#include "tensor/quantize.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SPLIT_TAIL = 20, SPLIT_MAX = 99999 }; /* "-00001-of-00003.gguf" */

/* ---- types ---------------------------------------------------------------------------------------------- */

static const struct {
    uint32_t type;
    tl_dtype dtype;
} type_rows[] = {{GGUF_T_F32, TL_F32},   {GGUF_T_F16, TL_F16},   {GGUF_T_BF16, TL_BF16}, {GGUF_T_Q8_0, TL_Q8_0},
                 {GGUF_T_Q4_0, TL_Q4_0}, {GGUF_T_Q4_K, TL_Q4_K}, {GGUF_T_Q6_K, TL_Q6_K}};
enum { TYPE_ROWS = sizeof type_rows / sizeof *type_rows };

tl_dtype gguf_dtype(uint32_t type) {
    for (size_t i = 0; i < TYPE_ROWS; i++)
        if (type_rows[i].type == type) return type_rows[i].dtype;
    return TL_NONE;
}

uint32_t gguf_type_of(tl_dtype t) {
    for (size_t i = 0; i < TYPE_ROWS; i++)
        if (type_rows[i].dtype == t) return type_rows[i].type;
    return GGUF_T_COUNT;
}

/* ---- parts of a split file ---------------------------------------------------------------------------------- */

/* "-00001-of-00003.gguf" at the end of path: the number of parts, or 0. */
static int split_count(const char *path) {
    size_t n = strlen(path);
    int no, count, used = 0;
    if (n < SPLIT_TAIL) return 0;
    if (sscanf(path + n - SPLIT_TAIL, "-%5d-of-%5d.gguf%n", &no, &count, &used) != 2 || used != SPLIT_TAIL) return 0;
    return no >= 1 && count >= no ? count : 0;
}

static tl_status open_part(gguf_parts *p, const char *path, int64_t no, int64_t count, tl_error *e) {
    gguf *g = &p->part[p->n];
    TRY(gguf_open(p->alloc, path, g, e));
    p->n++;
    int64_t says = 0, all = 0;
    tl_status s = gguf_get_int(g, "split.no", 0, SPLIT_MAX, &says, e);
    if (s == TL_OK) s = gguf_get_int(g, "split.count", 0, SPLIT_MAX, &all, e);
    if (s == TL_OK && count && (says != no || all != count))
        s = error_set(e, TL_FORMAT, "the file says it is part %lld of %lld", (long long)says + 1, (long long)all);
    if (s == TL_OK && !count && all > 1)
        s = error_set(e, TL_FORMAT, "one of %lld parts, but not named NAME-00001-of-%05lld.gguf", (long long)all,
                      (long long)all);
    if (s != TL_OK) error_at_file(e, path);
    return s;
}

static tl_status open_all(gguf_parts *p, const char *path, tl_error *e) {
    int count = split_count(path);
    p->part = mem_new(p->alloc, count ? (size_t)count : 1, sizeof *p->part);
    if (!p->part) return error_set(e, TL_NOMEM, "no memory to open %d files", count);
    if (!count) return open_part(p, path, 0, 0, e);
    int stem = (int)(strlen(path) - SPLIT_TAIL);
    str name;
    str_init(&name, p->alloc);
    tl_status s = TL_OK;
    int64_t total = -1;
    size_t tensors = 0;
    for (int i = 0; i < count && s == TL_OK; i++) {
        str_clear(&name);
        str_addf(&name, "%.*s-%05d-of-%05d.gguf", stem, path, i + 1, count);
        s = name.failed ? error_set(e, TL_NOMEM, "no memory for a name") : open_part(p, name.data, i, count, e);
        if (s == TL_OK) tensors += p->part[i].tensor_n;
    }
    if (s == TL_OK) s = gguf_get_int(&p->part[0], "split.tensors.count", 0, INT32_MAX, &total, e);
    if (s == TL_OK && total >= 0 && (size_t)total != tensors)
        s = error_set(e, TL_FORMAT, "the parts hold %zu tensors, split.tensors.count says %lld", tensors,
                      (long long)total);
    str_fini(&name);
    return s;
}

tl_status gguf_parts_open(const tl_allocator *a, const char *path, gguf_parts *p, tl_error *e) {
    *p = (gguf_parts){.alloc = a};
    tl_status s = open_all(p, path, e);
    if (s == TL_OK) return s;
    if (e && !e->file[0]) error_at_file(e, path);
    gguf_parts_close(p);
    return s;
}

void gguf_parts_close(gguf_parts *p) {
    for (size_t i = 0; i < p->n; i++) gguf_close(&p->part[i]);
    if (p->alloc) mem_free(p->alloc, p->part);
    memset(p, 0, sizeof *p);
}

const gguf_tensor *gguf_parts_find(const gguf_parts *p, const char *name) {
    for (size_t i = 0; i < p->n; i++) {
        const gguf_tensor *t = gguf_find_tensor(&p->part[i], name);
        if (t) return t;
    }
    return NULL;
}

/* ---- weights ---------------------------------------------------------------------------------------------------- */

static tl_status bad(tl_error *e, tl_status code, const char *tensor, const char *what) {
    error_set(e, code, "%s", what);
    error_at_tensor(e, tensor);
    return code;
}

/* The piece's shape, as the file writes it: vectors (cols), matrices (cols, rows). */
static tl_status check_piece(const param_piece *p, const gguf_tensor *t, tl_error *e) {
    int64_t experts = p->experts ? p->experts : 1, rows = p->rows ? p->rows / experts : 1;
    bool fits = t->ne[0] == p->cols && t->ne[1] == rows && t->ne[2] == experts && t->ne[3] == 1;
    if (!fits) {
        error_set(e, TL_SHAPE, "the file has (%lld, %lld, %lld, %lld), its keys want (%lld, %lld, %lld, 1)",
                  (long long)t->ne[0], (long long)t->ne[1], (long long)t->ne[2], (long long)t->ne[3],
                  (long long)p->cols, (long long)rows, (long long)experts);
        error_at_tensor(e, p->name);
        return TL_SHAPE;
    }
    if (gguf_dtype(t->type) != TL_NONE) return TL_OK;
    error_set(e, TL_UNSUPPORTED,
              "number type %s is known but not supported; f32, f16, bf16, q8_0, q4_0, q4_k and q6_k are",
              gguf_type_name(t->type));
    error_at_tensor(e, p->name);
    return TL_UNSUPPORTED;
}

typedef struct used_map {
    const gguf_parts *p;
    uint8_t *used; /* by part and tensor, in a row */
    size_t n;
} used_map;

static void mark(used_map *u, const gguf_tensor *t) {
    size_t at = 0;
    for (size_t i = 0; i < u->p->n; at += u->p->part[i++].tensor_n)
        if (t >= u->p->part[i].tensor && t < u->p->part[i].tensor + u->p->part[i].tensor_n)
            u->used[at + (size_t)(t - u->p->part[i].tensor)] = 1;
}

static tl_status read_param(tl_model *m, size_t i, const gguf_parts *p, float *scratch, used_map *u, tl_error *e) {
    const model_param *q = &m->params.list[i];
    param_piece piece[PARAM_PIECES];
    int n = params_pieces(&m->config, q, FORMAT_GGUF, piece);
    for (int k = 0; k < n; k++) {
        const gguf_tensor *t = gguf_parts_find(p, piece[k].name);
        if (!t) return bad(e, TL_NOTFOUND, piece[k].name, "this tensor of the architecture is missing");
        TRY(check_piece(&piece[k], t, e));
        mark(u, t);
        float *ours = model_numbers(m, i);
        if (!ours) continue; /* stays in the file */
        float *direct = params_piece_direct(&piece[k], q, ours);
        quantize_decode(gguf_dtype(t->type), t->data, params_piece_count(&piece[k]), direct ? direct : scratch);
        if (!direct) params_piece_in(&piece[k], q, scratch, ours);
    }
    return TL_OK;
}

/* Tensors that are no parameters of ours: what the configuration read, and a head that is the embedding again. */
static bool expected(const model_config *c, gguf_str name) {
    static const char *const names[] = {"rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strlen(names[i]) == name.n && memcmp(names[i], name.s, name.n) == 0) return true;
    return c->tied && name.n == 13 && memcmp(name.s, "output.weight", 13) == 0;
}

static tl_status check_rest(const tl_model *m, const used_map *u, tl_error *e) {
    size_t at = 0;
    for (size_t i = 0; i < u->p->n; i++)
        for (size_t k = 0; k < u->p->part[i].tensor_n; k++, at++) {
            gguf_str name = u->p->part[i].tensor[k].name;
            if (u->used[at] || expected(&m->config, name)) continue;
            char text[80];
            snprintf(text, sizeof text, "%.*s", (int)(name.n < 70 ? name.n : 70), name.s);
            return bad(e, TL_FORMAT, text, "the architecture has no such tensor");
        }
    return TL_OK;
}

tl_status model_read_gguf(tl_model *m, const gguf_parts *p, tl_error *err) {
    size_t largest = 1;
    used_map u = {.p = p};
    for (size_t i = 0; i < p->n; i++) u.n += p->part[i].tensor_n;
    for (size_t i = 0; i < m->params.n; i++) {
        const model_param *q = &m->params.list[i];
        size_t n = !model_numbers(m, i) ? 0 : (size_t)(q->rows ? q->rows * q->cols : q->cols);
        if (n > largest) largest = n;
    }
    float *scratch = mem_take(m->alloc, largest * sizeof *scratch);
    u.used = mem_new(m->alloc, u.n + 1, 1);
    tl_status s = scratch && u.used ? TL_OK : error_set(err, TL_NOMEM, "no memory to read weights");
    for (size_t i = 0; i < m->params.n && s == TL_OK; i++) s = read_param(m, i, p, scratch, &u, err);
    if (s == TL_OK) s = check_rest(m, &u, err);
    if (scratch) mem_give(m->alloc, scratch, largest * sizeof *scratch);
    mem_free(m->alloc, u.used);
    return s;
}
