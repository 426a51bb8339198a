/* A model in memory: configuration, flat f32 masters (or weights mapped from a file), tokenizer. */
#ifndef MODEL_MODEL_H
#define MODEL_MODEL_H

#include "base/log.h"
#include "graph/device.h"
#include "model/build.h"
#include "model/generation.h"
#include "model/lora.h"
#include "tilia.h"
#include "tokenizer/tokenizer.h"

struct model_source; /* an open file whose matrices are used where they lie */

/* Experts that a file has one by one, put together once in its number type. */
typedef struct model_packed {
    void *data;
    size_t bytes;
} model_packed;

/* A model's numbers on a device with memory of its own. */
typedef struct model_memory {
    void *block; /* flat or vectors, and the pieces */
    size_t bytes;
    float *flat, *vectors;
    void **piece; /* (mapped.n), NULL where there is none */
    uint16_t *flat16;
    float *lora;
    uint16_t *lora16;
    bool newer; /* what is trained, than the host's */
} model_memory;

struct tl_model {
    tl_engine *engine;
    const tl_allocator *alloc;
    log_sink log;
    model_config config;
    model_params params;
    model_generation generation; /* what its files say about sampling */
    float *flat;                 /* params.total f32 masters; owned; NULL if the matrices stay in their file */
    build_matrices mapped;       /* then: where they are (mapped.piece NULL otherwise) */
    float *vectors;              /* and the rest, params.total - params.decayed numbers; owned */
    struct model_source *source;
    model_packed *packed;    /* (params.n), data NULL where there is none; NULL without */
    model_lora *lora;        /* low-rank additions; owned; NULL: none */
    bool gguf;               /* came from a GGUF file */
    bool pairs;              /* its matrices of q and k have their rows in the order of rotary pairs */
    bool stay;               /* matrices are to stay in their file if it allows that */
    uint16_t *flat16;        /* bf16 copy of the first params.decayed; made on demand */
    model_memory *memory;    /* NULL: the device works on the numbers above, or nobody has asked for them there */
    tl_tokenizer *tokenizer; /* NULL if none */
    bool owns_tokenizer;
    char path[1024]; /* where it came from, "" for a new one */
    int64_t step;    /* of the checkpoint it came from */
};

/* Vocabulary and special ids of a configuration for a new model, from its tokenizer. */
void model_fit_tokenizer(model_config *c, const tl_tokenizer *t);
tl_status model_create(tl_engine *e, const model_config *c, tl_tokenizer *t, uint64_t seed, tl_model **out,
                       tl_error *err);
/* A run directory (its latest checkpoint), a checkpoint, a Hugging Face directory, a .safetensors file of one, or a
 * GGUF file. */
tl_status model_open(tl_engine *e, const char *path, tl_model **out, tl_error *err);
/* For running alone: matrices stay where the file has them, in its number types, and cost no memory of ours. Files that
 * do not allow it (transposed or odd types) are opened like any other. */
tl_status model_open_mapped(tl_engine *e, const char *path, tl_model **out, tl_error *err);
/* f32 numbers of parameter i; NULL for a matrix that stays in its file. */
float *model_numbers(const tl_model *m, size_t i);
/* Whole or not at all. With adapters it is those that are saved, as lora_write does. */
tl_status model_save(const tl_model *m, const char *dir, tl_error *err);
/* The same with matrices in f16, bf16, f8_e4m3 or f8_e5m2, each number the nearest, finite ones never past the largest.
 */
tl_status model_save_as(const tl_model *m, const char *dir, tl_dtype dtype, tl_error *err);
void model_close(tl_model *m);
/* Writes config.json, model.safetensors and the tokenizer into an existing directory, each synced. */
tl_status model_write_files(const tl_model *m, const char *dir, tl_error *err);
/* The directory of config.json that a path means: itself, or the checkpoint that a run's "latest" names. */
tl_status model_find_dir(const tl_allocator *a, const char *path, char *dir, size_t size, tl_error *err);
/* Fills flat from dir/model.safetensors (or shards) by the names of the architecture; every tensor must be there with
 * its shape, and nothing else. */
tl_status model_read_weights(tl_model *m, const char *dir, tl_error *err);
struct safetensors;
/* Piece k of the *total in which an open directory has parameter i. */
void model_directory_piece(const tl_model *m, size_t i, const struct safetensors *s, int k, int *total,
                           param_piece *out);
/* The same from open files: fills what model_numbers gives. */
tl_status model_read_tensors(tl_model *m, const struct safetensors *s, tl_error *err);
/* On a device with memory of its own (elsewhere these do nothing): bring takes the numbers there, before they are
 * bound. A trainer then says that they have changed there; who reads m->flat or the adapters' pulls first, who has
 * written them pushes. lift pulls and takes them off the device; what was bound to them must be gone. */
tl_status model_bring(tl_model *m, tl_error *err);
void model_changed(const tl_model *m);
tl_status model_pull(const tl_model *m, tl_error *err);
tl_status model_push(tl_model *m, tl_error *err);
tl_status model_lift(tl_model *m, tl_error *err);
/* Adapters alone: forgets them there. */
void model_lift_lora(tl_model *m);
/* What is trained, the base's numbers or the adapters', where the device has it; and the bf16 copy, NULL without. */
float *model_trained(const tl_model *m);
uint16_t *model_trained16(const tl_model *m);
/* What a graph of m is built with: where matrices stay in their file, and adapters. */
void model_options(const tl_model *m, build_options *o);
/* Binds all of m's numbers to a plan of a graph so built; dtype is that of the graph. */
tl_status model_bind(const tl_model *m, tl_plan *p, const build_result *r, tl_dtype dtype);
/* Makes or refreshes the bf16 copies. [fails: NOMEM; UNSUPPORTED for matrices that stay in blocks] */
tl_status model_bf16(tl_model *m, tl_error *err);

#endif
