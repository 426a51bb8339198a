/* GGUF as a form of a model: its keys as a configuration, its tensors as parameters, and back. */
#ifndef MODEL_GGUF_H
#define MODEL_GGUF_H

#include "format/gguf_write.h"
#include "model/model.h"

/* All parts of a model: one file, or those of a split one, in order. */
typedef struct gguf_parts {
    const tl_allocator *alloc;
    gguf *part;
    size_t n;
} gguf_parts;
/* path: the file, or any part of a split one (NAME-00001-of-00003.gguf). */
tl_status gguf_parts_open(const tl_allocator *a, const char *path, gguf_parts *p, tl_error *e);
void gguf_parts_close(gguf_parts *p);
const gguf_tensor *gguf_parts_find(const gguf_parts *p, const char *name);

/* The configuration a file's keys and tensors stand for. [fails: CONFIG, UNSUPPORTED, NOTFOUND] */
tl_status config_read_gguf(const gguf_parts *p, model_config *c, tl_error *e);
/* And the keys of a configuration; the tensors that carry position scalings come from gguf_factors.
 * UNSUPPORTED names a part that GGUF has no word for. */
tl_status config_write_gguf(const model_config *c, gguf_writer *w, tl_error *e);

/* Position scalings that files keep as tensors: at most two. */
typedef struct gguf_factors {
    const char *name; /* NULL: none */
    float x[MODEL_MAX_FACTORS];
    int64_t n;
} gguf_factors;
int gguf_factors_of(const model_config *c, gguf_factors out[2]);

/* The dtype of a GGUF tensor type, TL_NONE if we do not compute with it, and back. */
tl_dtype gguf_dtype(uint32_t type);
uint32_t gguf_type_of(tl_dtype t);

/* Fills m->flat (or m->vectors, if matrices stay in the file) from a file. Every tensor of the architecture must be
 * there with its shape, and nothing else. */
tl_status model_read_gguf(tl_model *m, const gguf_parts *p, tl_error *err);

/* Which number type a matrix is written in; vectors are always f32. */
typedef tl_dtype (*model_dtype_fn)(void *user, const model_config *c, const model_param *p, const param_piece *piece);

/* What was written: for each tensor once it is in the file. error: root of the mean square of what rounding changed,
 * over that of the numbers. */
typedef struct gguf_saved {
    const char *name;
    tl_dtype dtype;
    int64_t count;
    size_t bytes;
    double error;
    size_t index, n; /* of n tensors */
} gguf_saved;

typedef struct gguf_save_options {
    model_dtype_fn dtype;                           /* NULL: f32 all through */
    void (*saved)(void *user, const gguf_saved *t); /* may be NULL */
    void *user;
    uint32_t file_type; /* llama.cpp's number for the mix */
} gguf_save_options;

/* Writes the model with its tokenizer; whole or not at all. o may be NULL.
 * [fails: UNSUPPORTED for what GGUF cannot say, NUMERIC for numbers that are not finite, IO] */
tl_status model_write_gguf(const tl_model *m, const char *path, const gguf_save_options *o, tl_error *err);

#endif
