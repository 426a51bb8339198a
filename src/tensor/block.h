/* Blocks of quantized tensors, as GGUF lays them out: one element at a time, for references and checks. The fast forms
 * are kernels. Little-endian throughout. */
#ifndef TENSOR_BLOCK_H
#define TENSOR_BLOCK_H

#include "tilia/base.h"

/* Element i of a run of blocks of dtype t; 0 for a dtype without blocks. */
float block_get(tl_dtype t, const void *data, int64_t i);

#endif
