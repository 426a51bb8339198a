#include "format/gguf.h"
#include <stdlib.h>
#include <string.h>

enum { GGUF_MAX_KEY = 65535, GGUF_MAX_NAME = 63, GGUF_MAX_ARRAY = 1 << 30 };

typedef struct gguf_cursor {
    const uint8_t *p;
    size_t n, at;
    tl_error *e;
} gguf_cursor;

static tl_status gguf_bad(const gguf_cursor *c, tl_status code, const char *what) {
    error_set(c->e, code, "%s", what);
    error_at_offset(c->e, (int64_t)c->at);
    return code;
}

static size_t gguf_left(const gguf_cursor *c) {
    return c->n - c->at;
}

static tl_status gguf_take(gguf_cursor *c, size_t n, const uint8_t **out) {
    if (n > gguf_left(c)) return gguf_bad(c, TL_FORMAT, "the file ends too early");
    *out = c->p + c->at;
    c->at += n;
    return TL_OK;
}

static tl_status gguf_u32(gguf_cursor *c, uint32_t *out) {
    const uint8_t *p;
    TRY(gguf_take(c, 4, &p));
    memcpy(out, p, 4);
    return TL_OK;
}

static tl_status gguf_u64(gguf_cursor *c, uint64_t *out) {
    const uint8_t *p;
    TRY(gguf_take(c, 8, &p));
    memcpy(out, p, 8);
    return TL_OK;
}

static tl_status gguf_string(gguf_cursor *c, gguf_str *out) {
    uint64_t n;
    TRY(gguf_u64(c, &n));
    if (n > gguf_left(c)) return gguf_bad(c, TL_FORMAT, "a string is longer than the rest of the file");
    out->s = (const char *)c->p + c->at;
    out->n = (size_t)n;
    c->at += (size_t)n;
    return TL_OK;
}

static size_t gguf_width(gguf_type t) {
    static const uint8_t width[GGUF_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    return width[t];
}

/* ---- keys ------------------------------------------------------------------------------------ */

static tl_status gguf_read_type(gguf_cursor *c, gguf_type *out) {
    uint32_t t;
    TRY(gguf_u32(c, &t));
    if (t >= GGUF_TYPES) return gguf_bad(c, TL_FORMAT, "a value type that does not exist");
    *out = (gguf_type)t;
    return TL_OK;
}

static tl_status gguf_read_data(gguf_cursor *c, gguf_value *v) {
    size_t begin = c->at;
    v->data = c->p + begin;
    if (v->type == GGUF_STRING) {
        gguf_str s;
        for (size_t i = 0; i < v->count; i++) TRY(gguf_string(c, &s));
    } else {
        const uint8_t *p;
        size_t bytes;
        if (mul_overflows(v->count, gguf_width(v->type), &bytes))
            return gguf_bad(c, TL_FORMAT, "an array is longer than the rest of the file");
        TRY(gguf_take(c, bytes, &p));
        for (size_t i = 0; v->type == GGUF_BOOL && i < bytes; i++)
            if (p[i] > 1) return gguf_bad(c, TL_FORMAT, "a truth value that is neither 0 nor 1");
    }
    v->size = c->at - begin;
    return TL_OK;
}

static tl_status gguf_read_kv(gguf_cursor *c, gguf_value *v) {
    TRY(gguf_string(c, &v->key));
    if (v->key.n == 0) return gguf_bad(c, TL_FORMAT, "an empty key");
    if (v->key.n > GGUF_MAX_KEY) return gguf_bad(c, TL_LIMIT, "a key of more than 65535 bytes");
    for (size_t i = 0; i < v->key.n; i++)
        if (v->key.s[i] <= ' ' || v->key.s[i] > '~')
            return gguf_bad(c, TL_FORMAT, "a key with a character that may not be in keys");
    TRY(gguf_read_type(c, &v->type));
    v->count = 1;
    if (v->type != GGUF_ARRAY) return gguf_read_data(c, v);
    uint64_t n;
    v->array = true;
    TRY(gguf_read_type(c, &v->type));
    if (v->type == GGUF_ARRAY) return gguf_bad(c, TL_UNSUPPORTED, "an array of arrays");
    TRY(gguf_u64(c, &n));
    size_t least = v->type == GGUF_STRING ? 8 : gguf_width(v->type);
    if (n > GGUF_MAX_ARRAY) return gguf_bad(c, TL_LIMIT, "an array of more than 2^30 elements");
    if (n > gguf_left(c) / least) return gguf_bad(c, TL_FORMAT, "an array is longer than the rest of the file");
    v->count = (size_t)n;
    return gguf_read_data(c, v);
}

static int gguf_str_order(gguf_str a, gguf_str b) {
    int x = memcmp(a.s, b.s, a.n < b.n ? a.n : b.n);
    return x ? x : (a.n > b.n) - (a.n < b.n);
}

static int gguf_key_order(const void *a, const void *b, void *g) {
    const gguf *f = g;
    return gguf_str_order(f->kv[*(const uint32_t *)a].key, f->kv[*(const uint32_t *)b].key);
}

static int gguf_name_order(const void *a, const void *b, void *g) {
    const gguf *f = g;
    return gguf_str_order(f->tensor[*(const uint32_t *)a].name, f->tensor[*(const uint32_t *)b].name);
}

static tl_status gguf_read_keys(gguf *g, gguf_cursor *c) {
    for (size_t i = 0; i < g->kv_n; i++) TRY(gguf_read_kv(c, &g->kv[i]));
    for (size_t i = 0; i < g->kv_n; i++) g->by_key[i] = (uint32_t)i;
    qsort_r(g->by_key, g->kv_n, sizeof *g->by_key, gguf_key_order, g);
    for (size_t i = 1; i < g->kv_n; i++) {
        gguf_str k = g->kv[g->by_key[i]].key;
        if (gguf_str_order(g->kv[g->by_key[i - 1]].key, k) == 0) {
            error_set(c->e, TL_FORMAT, "key \"%.*s\" is given twice", (int)(k.n < 80 ? k.n : 80), k.s);
            return TL_FORMAT;
        }
    }
    const gguf_value *v = gguf_find(g, "general.alignment");
    g->alignment = 32;
    if (!v) return TL_OK;
    uint32_t align = 0;
    if (!v->array && v->type == GGUF_U32) memcpy(&align, v->data, 4);
    if (align == 0 || (align & (align - 1)) || align % 8)
        return error_set(c->e, TL_FORMAT, "general.alignment must be a u32, a power of two and a multiple of 8");
    g->alignment = align;
    return TL_OK;
}

/* ---- tensors --------------------------------------------------------------------------------- */

static tl_status gguf_tensor_bad(const gguf_cursor *c, const gguf_tensor *t, tl_status code, const char *what) {
    char name[GGUF_MAX_NAME + 1];
    size_t n = t->name.n < GGUF_MAX_NAME ? t->name.n : GGUF_MAX_NAME;
    memcpy(name, t->name.s, n);
    name[n] = 0;
    gguf_bad(c, code, what);
    error_at_tensor(c->e, name);
    return code;
}

static tl_status gguf_read_tensor(gguf_cursor *c, gguf_tensor *t) {
    uint32_t dims;
    uint64_t offset;
    TRY(gguf_string(c, &t->name));
    if (t->name.n == 0 || t->name.n > GGUF_MAX_NAME || memchr(t->name.s, 0, t->name.n))
        return gguf_bad(c, TL_FORMAT, "a tensor name must have 1 to 63 bytes, none of them zero");
    TRY(gguf_u32(c, &dims));
    if (dims > 4) return gguf_tensor_bad(c, t, TL_FORMAT, "more than 4 dimensions");
    t->dims = dims;
    int64_t count = 1;
    for (unsigned i = 0; i < 4; i++) {
        uint64_t ne = 1;
        if (i < dims) TRY(gguf_u64(c, &ne));
        if (ne > INT64_MAX) return gguf_tensor_bad(c, t, TL_FORMAT, "a negative dimension");
        t->ne[i] = (int64_t)ne;
        /* zeros do not excuse the others: the product without them must fit too */
        if (ne && mul_overflows(count, (int64_t)ne, &count))
            return gguf_tensor_bad(c, t, TL_FORMAT, "the dimensions' product does not fit 63 bits");
    }
    for (unsigned i = 0; i < 4; i++)
        if (t->ne[i] == 0) count = 0;
    TRY(gguf_u32(c, &t->type));
    int64_t block = gguf_block(t->type);
    if (!block) return gguf_tensor_bad(c, t, TL_UNSUPPORTED, "a number type that does not exist or was removed");
    if (t->ne[0] % block)
        return gguf_tensor_bad(c, t, TL_FORMAT, "the first dimension is no multiple of the type's block");
    if (mul_overflows((size_t)(count / block), gguf_block_bytes(t->type), &t->size))
        return gguf_tensor_bad(c, t, TL_FORMAT, "the tensor's bytes do not fit the address space");
    TRY(gguf_u64(c, &offset));
    if (offset > SIZE_MAX / 2) return gguf_tensor_bad(c, t, TL_FORMAT, "the offset is outside the file");
    t->offset = (size_t)offset;
    return TL_OK;
}

static tl_status gguf_read_tensors(gguf *g, gguf_cursor *c) {
    for (size_t i = 0; i < g->tensor_n; i++) TRY(gguf_read_tensor(c, &g->tensor[i]));
    for (size_t i = 0; i < g->tensor_n; i++) g->by_name[i] = (uint32_t)i;
    qsort_r(g->by_name, g->tensor_n, sizeof *g->by_name, gguf_name_order, g);
    for (size_t i = 1; i < g->tensor_n; i++) {
        const gguf_tensor *t = &g->tensor[g->by_name[i]];
        if (gguf_str_order(g->tensor[g->by_name[i - 1]].name, t->name) == 0)
            return gguf_tensor_bad(c, t, TL_FORMAT, "the tensor is given twice");
    }
    if (g->tensor_n == 0) {
        g->data = c->at;
        return TL_OK;
    }
    size_t mask = g->alignment - 1, at = 0;
    if (add_overflows(c->at, mask, &g->data)) return gguf_bad(c, TL_FORMAT, "the file ends too early");
    g->data &= ~mask;
    if (g->data > g->size) return gguf_bad(c, TL_FORMAT, "the file ends before the tensor data");
    for (size_t i = 0; i < g->tensor_n; i++) {
        gguf_tensor *t = &g->tensor[i];
        size_t padded;
        if (t->offset != at)
            return gguf_tensor_bad(c, t, TL_FORMAT, "the tensor does not begin where the one before it ends");
        if (t->offset > g->size - g->data || t->size > g->size - g->data - t->offset)
            return gguf_tensor_bad(c, t, TL_FORMAT, "the tensor's data end behind the file's end");
        if (add_overflows(t->size, mask, &padded) || add_overflows(at, padded & ~mask, &at))
            return gguf_tensor_bad(c, t, TL_FORMAT, "the tensors' bytes do not fit the address space");
        t->offset += g->data;
        t->data = g->bytes + t->offset;
    }
    return TL_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static tl_status gguf_parse_into(gguf *g, tl_error *e) {
    gguf_cursor c = {g->bytes, g->size, 0, e};
    const uint8_t *magic;
    uint64_t tensors, keys;
    TRY(gguf_take(&c, 4, &magic));
    if (memcmp(magic, "GGUF", 4)) return error_set(e, TL_FORMAT, "not a GGUF file");
    TRY(gguf_u32(&c, &g->version));
    if ((g->version & 0xffff) == 0)
        return error_set(e, TL_UNSUPPORTED, "GGUF version 0x%08x: a big-endian file?", g->version);
    if (g->version != 2 && g->version != 3)
        return error_set(e, TL_UNSUPPORTED, "GGUF version %u; 2 and 3 are known", g->version);
    TRY(gguf_u64(&c, &tensors));
    TRY(gguf_u64(&c, &keys));
    /* the least a key or a tensor can take: 8 + 1 + 4 + 1 and 8 + 1 + 4 + 4 + 8 bytes */
    if (keys > gguf_left(&c) / 14 || keys > UINT32_MAX)
        return gguf_bad(&c, TL_FORMAT, "more keys than the file has room for");
    if (tensors > gguf_left(&c) / 25 || tensors > UINT32_MAX)
        return gguf_bad(&c, TL_FORMAT, "more tensors than the file has room for");
    g->kv_n = (size_t)keys;
    g->tensor_n = (size_t)tensors;
    g->kv = mem_new(g->alloc, g->kv_n, sizeof *g->kv);
    g->tensor = mem_new(g->alloc, g->tensor_n, sizeof *g->tensor);
    g->by_key = mem_new(g->alloc, g->kv_n, sizeof *g->by_key);
    g->by_name = mem_new(g->alloc, g->tensor_n, sizeof *g->by_name);
    if (!g->kv || !g->tensor || !g->by_key || !g->by_name)
        return error_set(e, TL_NOMEM, "no memory for the file's index");
    TRY(gguf_read_keys(g, &c));
    return gguf_read_tensors(g, &c);
}

tl_status gguf_parse(const tl_allocator *a, const void *data, size_t n, gguf *g, tl_error *e) {
    memset(g, 0, sizeof *g);
    g->alloc = a;
    g->bytes = data;
    g->size = n;
    tl_status s = gguf_parse_into(g, e);
    if (s != TL_OK) gguf_close(g);
    return s;
}

tl_status gguf_open(const tl_allocator *a, const char *path, gguf *g, tl_error *e) {
    file_map m;
    memset(g, 0, sizeof *g);
    TRY(file_map_open(path, &m, e));
    tl_status s = gguf_parse(a, m.data, m.size, g, e);
    if (s != TL_OK) {
        error_at_file(e, path);
        file_map_close(&m);
        return s;
    }
    g->map = m;
    return TL_OK;
}

void gguf_close(gguf *g) {
    if (g->alloc) {
        mem_free(g->alloc, g->kv);
        mem_free(g->alloc, g->tensor);
        mem_free(g->alloc, g->by_key);
        mem_free(g->alloc, g->by_name);
    }
    if (g->map.data) file_map_close(&g->map);
    memset(g, 0, sizeof *g);
}
