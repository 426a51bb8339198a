/* Low-rank additions to a model that itself stays as it is (LoRA, Hu et al. 2021): a chosen matrix W (out, in) acts as
 * W + s B A with A (rank, in), B (out, rank). The builder writes them out as existing operators,
 *   y = x W^T + b + (s drop(x) A^T) B^T,
 * so W may lie in its file, in blocks too. Files are those of Hugging Face's PEFT. */
#ifndef MODEL_LORA_H
#define MODEL_LORA_H

#include "model/params.h"

struct tl_model;

/* What is adapted. Where a family keeps several in one matrix (gpt2's and phi3's qkv), each of them means that matrix.
 */
enum { LORA_Q = 1, LORA_K = 2, LORA_V = 4, LORA_O = 8, LORA_GATE = 16, LORA_UP = 32, LORA_DOWN = 64, LORA_ALL = 127 };

typedef struct lora_options {
    int64_t rank;
    double alpha;     /* 0: twice the rank */
    double dropout;   /* of what goes into A, in training */
    unsigned targets; /* LORA_Q | ..; 0: all */
    bool root;        /* s = alpha / sqrt(rank) instead of alpha / rank (Kalajdzievski 2023) */
} lora_options;

enum { LORA_PATH = 1024, LORA_SCALING = 32 };

typedef struct model_lora {
    lora_options o;
    model_params params; /* for each adapted matrix its A, then its B */
    int32_t *at;         /* (parameters of the base * PARAM_PIECES): number of the piece's A in params; -1: none */
    size_t n_at;
    float *flat;                /* params.total f32 masters; NULL: a table alone, for planning */
    uint16_t *flat16;           /* bf16 copy, made on demand */
    char base[LORA_PATH];       /* where the base lies, absolute if that could be told */
    uint64_t hash;              /* of the base's files; 0: unknown */
    char scaling[LORA_SCALING]; /* how they stretch the base's positions, as config_scale has it; "": not */
} model_lora;

/* "q,k,v,o,gate,up,down" or "all" as bits. [fails: ARG naming the word] */
tl_status lora_targets(const char *text, unsigned *out, tl_error *e);
/* [fails: ARG] */
tl_status lora_check(const lora_options *o, tl_error *e);
double lora_scale(const lora_options *o);

/* The table alone: which additions a configuration gets. [owns: caller, lora_fini] [fails: ARG, CONFIG, NOMEM] */
tl_status lora_init(model_lora *l, const tl_allocator *a, const model_config *c, const model_params *base,
                    const lora_options *o, tl_error *e);
void lora_fini(model_lora *l, const tl_allocator *a);
/* Stretches the positions of m and has its adapters remember how, for the files of the base do not say it.
 * [fails: ARG, CONFIG: config_scale] */
tl_status lora_stretch(struct tl_model *m, const char *scaling, tl_error *e);

/* New additions to m: A uniform within 1/sqrt(in), seeded; B zero, so that the model begins as it was.
 * [fails: STATE m has some already] */
tl_status lora_add(struct tl_model *m, const lora_options *o, uint64_t seed, tl_error *e);
/* Those of a directory of PEFT's (adapter_config.json, adapter_model.safetensors) or of a run that made one. Where the
 * directory knows the checksum of its base, m must be it, or, if any_base (trained over blocks, say, and used over
 * floats), a warning is logged. [fails: CHECKSUM another base; NOTFOUND, FORMAT, SHAPE, UNSUPPORTED] */
tl_status lora_open(struct tl_model *m, const char *dir, bool any_base, tl_error *e);
/* Numbers alone, from dir into additions that are there. */
tl_status lora_read(struct tl_model *m, const char *dir, tl_error *e);
/* Is dir one of PEFT's? And no model beside? */
bool lora_is_dir(const char *dir);
bool lora_only(const char *dir);
/* Where the base of such a directory is. [fails: NOTFOUND it is not there] */
tl_status lora_base_of(const tl_allocator *a, const char *dir, char *out, size_t size, tl_error *e);
/* Writes adapter_config.json, adapter_model.safetensors and base.json into dir, each synced. */
tl_status lora_write(const struct tl_model *m, const char *dir, tl_error *e);
/* W += s B A everywhere; then there are no additions any more. [fails: STATE matrices stay in their file] */
tl_status lora_merge(struct tl_model *m, tl_error *e);
void lora_close(struct tl_model *m);

/* Checksum over the weight files of a model: its .gguf or .safetensors files in order. */
tl_status lora_hash(const struct tl_model *m, uint64_t *out, tl_error *e);

#endif
