/* tilia/data.h: texts as batches of token ids. A dataset holds documents; a batch of it is a function of (seed, step)
 * alone, so any step can be had at once, and every epoch sees everything once, without a state to keep. */
#ifndef TILIA_DATA_H
#define TILIA_DATA_H

#include "tilia.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct tl_dataset tl_dataset;

/* An empty dataset. t (borrowed, may be NULL) turns texts into ids; without it vocab says how many ids there are and
 * eos (-1: none) which one ends documents. [owns: caller] [fails: ARG, NOMEM] */
TL_API tl_status tl_dataset_create(tl_engine *e, const tl_tokenizer *t, int64_t vocab, int32_t eos, tl_dataset **out,
                                   tl_error *err);
TL_API void tl_dataset_close(tl_dataset *d); /* NULL is fine; after the trainers that use it */

/* One document more. Not while a trainer uses the dataset: STATE. */
TL_API tl_status tl_dataset_add_text(tl_dataset *d, const char *text, size_t n, tl_error *err);
TL_API tl_status tl_dataset_add_ids(tl_dataset *d, const int32_t *ids, size_t n, tl_error *err);
/* Documents of files and folders: text, JSON lines (field "text"), both also as .gz and .zst. separator (may be NULL)
 * stands between the documents of a text file. [fails: NOTFOUND, IO, FORMAT with file and line] */
TL_API tl_status tl_dataset_add_files(tl_dataset *d, const char *const *path, size_t n, const char *separator,
                                      tl_error *err);
TL_API int64_t tl_dataset_tokens(const tl_dataset *d);
TL_API int64_t tl_dataset_documents(const tl_dataset *d);

/* How batches are cut: rows sequences of context targets. packed: whole documents to a row, as they fit; else windows
 * over the stream of all documents. [fails: ARG, NOMEM; LIMIT the text is shorter than one context] */
TL_API tl_status tl_dataset_shape(tl_dataset *d, int64_t rows, int64_t context, bool packed, uint64_t seed,
                                  tl_error *err);
TL_API int64_t tl_dataset_steps(const tl_dataset *d); /* batches of an epoch; 0 before tl_dataset_shape */
/* Batch number step. Each array is (rows, context) i32 or NULL: inputs, targets (-1: nothing to predict), positions in
 * the document, index in the row where the document starts. *labels: how many targets count. [allocates: no] */
TL_API tl_status tl_dataset_batch(const tl_dataset *d, int64_t step, int32_t *input, int32_t *target, int32_t *pos,
                                  int32_t *doc_start, int64_t *labels, tl_error *err);

/* The trainer's steps take their batches from d, cut as the trainer's options say; d must outlive the trainer.
 * [fails: ARG the vocabularies differ] */
TL_API tl_status tl_trainer_use(tl_trainer *t, tl_dataset *d, tl_error *err);

#ifdef __cplusplus
}
#endif
#endif
