/* unpack: ids back to text: the decoder chains of tokenizer.json, whole and incremental. */
#ifndef TOKENIZER_UNPACK_H
#define TOKENIZER_UNPACK_H

#include "tokenizer/internal.h"

typedef struct unpacker unpacker;
void unpack_free(unpacker *u);

#endif
