/* What writing and reading of checkpoints share; for src/train alone. */
#ifndef TRAIN_CHECKPOINT_FILES_H
#define TRAIN_CHECKPOINT_FILES_H

#include "base/hash.h"
#include "format/safetensors.h"
#include "train/checkpoint.h"

#include <stdlib.h>

enum { CHECKPOINT_PATH = 1024, CHECKPOINT_FILES = 7 };
extern const char *const checkpoint_files[CHECKPOINT_FILES];

/* A number that changes with the parameters' names, shapes and places. */
uint64_t checkpoint_layout(const model_params *p);
/* Checksum of the manifest's content without its own seal. */
uint64_t checkpoint_seal(json_t *manifest);
void checkpoint_hex(uint64_t h, char out[17]);
/* Is this the name of a finished checkpoint (of one that stepped aside: *old)? */
bool checkpoint_name(const char *name, int64_t *step, bool *old);
tl_status checkpoint_hash_file(const tl_allocator *a, const char *path, uint64_t *hash, int64_t *size, tl_error *err);

#endif
