#ifndef TOKENIZER_LOAD_SMALL_H
#define TOKENIZER_LOAD_SMALL_H

#include "tokenizer/load.h"

tl_status load_small(const tl_allocator *a, const json_t *root, tokenizer **out, tl_error *e);
tl_status load_small_save(const tokenizer *t, const char *path, tl_error *e);

#endif
