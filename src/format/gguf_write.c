#include "format/gguf_write.h"
#include <stdio.h>
#include <string.h>

enum { GGUF_WRITE_ALIGN = 32, GGUF_WRITE_NAME = 63 };

void gguf_writer_init(gguf_writer *w, const tl_allocator *a) {
    memset(w, 0, sizeof *w);
    w->alloc = a;
    str_init(&w->kv, a);
}

void gguf_writer_fini(gguf_writer *w) {
    str_fini(&w->kv);
    mem_free(w->alloc, w->tensor);
    memset(w, 0, sizeof *w);
}

static void gguf_write_mistake(gguf_writer *w, const char *what, const char *name) {
    if (!w->mistake[0]) snprintf(w->mistake, sizeof w->mistake, "%s: %.60s", what, name);
}

static void gguf_add_u32(str *s, uint32_t v) {
    str_add(s, &v, sizeof v); /* little-endian, as everything here */
}

static void gguf_add_u64(str *s, uint64_t v) {
    str_add(s, &v, sizeof v);
}

static void gguf_write_key(gguf_writer *w, const char *key, gguf_type type) {
    if (!*key) gguf_write_mistake(w, "an empty key", "");
    gguf_add_str(w, key, strlen(key));
    gguf_add_u32(&w->kv, (uint32_t)type);
    w->kv_n++;
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v) {
    gguf_write_key(w, key, GGUF_U32);
    gguf_add_u32(&w->kv, v);
}

void gguf_put_f32(gguf_writer *w, const char *key, float v) {
    gguf_write_key(w, key, GGUF_F32);
    str_add(&w->kv, &v, sizeof v);
}

void gguf_put_bool(gguf_writer *w, const char *key, bool v) {
    gguf_write_key(w, key, GGUF_BOOL);
    str_addc(&w->kv, v ? 1 : 0);
}

void gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n) {
    gguf_write_key(w, key, GGUF_STRING);
    gguf_add_str(w, s, n);
}

void gguf_put_array(gguf_writer *w, const char *key, gguf_type type, size_t n) {
    gguf_write_key(w, key, GGUF_ARRAY);
    gguf_add_u32(&w->kv, (uint32_t)type);
    gguf_add_u64(&w->kv, n);
}

void gguf_add_str(gguf_writer *w, const char *s, size_t n) {
    gguf_add_u64(&w->kv, n);
    str_add(&w->kv, s, n);
}

void gguf_add(gguf_writer *w, const void *elements, size_t bytes) {
    str_add(&w->kv, elements, bytes);
}

void gguf_put_tensor(gguf_writer *w, const char *name, unsigned dims, const int64_t *ne, uint32_t type) {
    size_t count = 1;
    int64_t block = gguf_block(type);
    if (!mem_reserve(w->alloc, &w->tensor, &w->tensor_cap, w->tensor_n + 1)) {
        w->kv.failed = true;
        return;
    }
    gguf_out_tensor *t = &w->tensor[w->tensor_n++];
    memset(t, 0, sizeof *t);
    if (!*name || strlen(name) > GGUF_WRITE_NAME) gguf_write_mistake(w, "a tensor name must have 1 to 63 bytes", name);
    if (dims < 1 || dims > 4 || !block || ne[0] % block) {
        gguf_write_mistake(w, "dimensions that the type cannot have", name);
        return;
    }
    snprintf(t->name, sizeof t->name, "%s", name);
    t->dims = dims;
    t->type = type;
    for (unsigned i = 0; i < dims; i++) {
        t->ne[i] = ne[i];
        if (ne[i] < 1 || mul_overflows(count, (size_t)ne[i], &count))
            gguf_write_mistake(w, "a dimension is wrong", name);
    }
    if (mul_overflows(count / (size_t)block, gguf_block_bytes(type), &t->bytes))
        gguf_write_mistake(w, "too large", name);
}

static size_t gguf_write_pad(size_t n) {
    return (n + GGUF_WRITE_ALIGN - 1) / GGUF_WRITE_ALIGN * GGUF_WRITE_ALIGN;
}

static void gguf_write_header(const gguf_writer *w, str *h) {
    size_t at = 0;
    str_add(h, "GGUF", 4);
    gguf_add_u32(h, 3);
    gguf_add_u64(h, w->tensor_n);
    gguf_add_u64(h, w->kv_n);
    str_add(h, w->kv.data, w->kv.len);
    for (size_t i = 0; i < w->tensor_n; i++) {
        const gguf_out_tensor *t = &w->tensor[i];
        gguf_add_u64(h, strlen(t->name));
        str_adds(h, t->name);
        gguf_add_u32(h, t->dims);
        for (unsigned k = 0; k < t->dims; k++) gguf_add_u64(h, (uint64_t)t->ne[k]);
        gguf_add_u32(h, t->type);
        gguf_add_u64(h, at);
        at += gguf_write_pad(t->bytes);
    }
    while (h->len % GGUF_WRITE_ALIGN && !h->failed) str_addc(h, 0);
}

/* The header must pass our own reader but for the data that are still missing: what cannot be read is not written. */
static tl_status gguf_write_check(const gguf_writer *w, tl_error *e) {
    if (w->mistake[0]) return error_set(e, TL_ARG, "%s", w->mistake);
    gguf g;
    str h;
    gguf_writer keys = *w;
    keys.tensor_n = 0;
    str_init(&h, w->alloc);
    gguf_write_header(&keys, &h);
    tl_status s = h.failed ? error_set(e, TL_NOMEM, "no memory for the file's header")
                           : gguf_parse(w->alloc, h.data, h.len, &g, e);
    if (s == TL_OK) gguf_close(&g);
    str_fini(&h);
    for (size_t i = 0; i < w->tensor_n && s == TL_OK; i++)
        for (size_t k = 0; k < i && w->tensor_n < 2000 && s == TL_OK; k++) /* names of a model are made, not read */
            if (strcmp(w->tensor[i].name, w->tensor[k].name) == 0)
                s = error_set(e, TL_ARG, "tensor %s is given twice", w->tensor[i].name);
    return s;
}

static tl_status gguf_write_body(gguf_writer *w, file_writer *f, const str *h, void *buf, gguf_fill fill, void *user,
                                 tl_error *e) {
    static const char zero[GGUF_WRITE_ALIGN];
    TRY(file_writer_put(f, h->data, h->len, e));
    for (size_t i = 0; i < w->tensor_n; i++) {
        size_t n = w->tensor[i].bytes;
        tl_status s = fill(user, i, buf, e);
        if (s != TL_OK) return s;
        TRY(file_writer_put(f, buf, n, e));
        TRY(file_writer_put(f, zero, gguf_write_pad(n) - n, e));
    }
    return file_writer_commit(f, e);
}

tl_status gguf_write(gguf_writer *w, const char *path, gguf_fill fill, void *user, tl_error *e) {
    if (w->kv.failed) return error_set(e, TL_NOMEM, "no memory for the file's keys");
    TRY(gguf_write_check(w, e));
    size_t largest = 1;
    for (size_t i = 0; i < w->tensor_n; i++)
        if (w->tensor[i].bytes > largest) largest = w->tensor[i].bytes;
    str h;
    file_writer f;
    str_init(&h, w->alloc);
    gguf_write_header(w, &h);
    void *buf = mem_take(w->alloc, largest);
    tl_status s = buf && !h.failed ? file_writer_open(&f, w->alloc, path, e)
                                   : error_set(e, TL_NOMEM, "no memory to write a file");
    if (s == TL_OK) {
        s = gguf_write_body(w, &f, &h, buf, fill, user, e);
        if (s != TL_OK) file_writer_abort(&f);
    }
    if (buf) mem_give(w->alloc, buf, largest);
    str_fini(&h);
    return s;
}
