/* Writes GGUF version 3: keys first, then tensors whose bytes the caller makes one by one, so that a file may be
 * larger than memory. Durable: beside the path, synced, renamed. */
#ifndef FORMAT_GGUF_WRITE_H
#define FORMAT_GGUF_WRITE_H

#include "base/str.h"
#include "format/gguf.h"

typedef struct gguf_out_tensor {
    char name[64];
    unsigned dims;
    int64_t ne[4]; /* ne[0] runs fastest */
    uint32_t type; /* GGUF_T_* */
    size_t bytes;
} gguf_out_tensor;

/* Mistakes (a name too long, no memory, a key given twice) are kept and reported by gguf_write. */
typedef struct gguf_writer {
    const tl_allocator *alloc;
    str kv;
    uint64_t kv_n;
    gguf_out_tensor *tensor;
    size_t tensor_n, tensor_cap;
    char mistake[120];
} gguf_writer;

void gguf_writer_init(gguf_writer *w, const tl_allocator *a);
void gguf_writer_fini(gguf_writer *w);

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t v);
void gguf_put_f32(gguf_writer *w, const char *key, float v);
void gguf_put_bool(gguf_writer *w, const char *key, bool v);
void gguf_put_str(gguf_writer *w, const char *key, const char *s, size_t n);
/* An array: announce type and number, then add exactly so many elements. */
void gguf_put_array(gguf_writer *w, const char *key, gguf_type type, size_t n);
void gguf_add_str(gguf_writer *w, const char *s, size_t n);
void gguf_add(gguf_writer *w, const void *elements, size_t bytes);

/* dims and ne as in the file; the last of them may be left out when 1. */
void gguf_put_tensor(gguf_writer *w, const char *name, unsigned dims, const int64_t *ne, uint32_t type);

/* Fills buf (64-byte aligned) with tensor i's bytes. */
typedef tl_status (*gguf_fill)(void *user, size_t i, void *buf, tl_error *e);
/* [fails: NOMEM, IO, NOSPACE, ARG, and what fill answers; then nothing is left at path] */
tl_status gguf_write(gguf_writer *w, const char *path, gguf_fill fill, void *user, tl_error *e);

#endif
