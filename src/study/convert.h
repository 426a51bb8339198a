/* study: what is done with whole models and claims. convert and quantize: one form into another, fewer bits a number.
 * Knows models, tokenizers and files; nothing of the command line. */
#ifndef STUDY_CONVERT_H
#define STUDY_CONVERT_H

#include "model/gguf.h"

typedef struct convert_options {
    const char *type; /* of numbers in a GGUF file: a row of convert_types; NULL: f32 */
    int64_t kv_heads; /* > 0: merge key-value heads to so many by averaging, to be trained on */
    bool overwrite;   /* replace a GGUF file that is there */
    void (*saved)(void *user, const gguf_saved *t); /* progress, may be NULL; GGUF only */
    void *user;
} convert_options;

/* Writes m as dst: a GGUF file where dst ends with .gguf, else a Hugging Face directory.
 * [fails: BUSY dst is there, ARG, UNSUPPORTED, IO, NOMEM] */
tl_status convert_model(tl_model *m, const char *dst, const convert_options *o, tl_error *err);

/* The mixes of number types that can be asked for; NULL behind the last. */
const char *convert_type_name(size_t i, const char **about);
bool convert_is_gguf(const char *path);
/* How a mix writes a matrix. */
tl_dtype convert_dtype(const char *type, const model_config *c, const model_param *p, const param_piece *piece);

/* Merges key-value heads of m to n by averaging their projections (Ainslie et al. 2023). */
tl_status convert_kv_heads(tl_model *m, int64_t n, tl_error *err);

#endif
