/* A tokenizer as the keys of a GGUF file. */
#ifndef TOKENIZER_SAVE_GGUF_H
#define TOKENIZER_SAVE_GGUF_H

#include "format/gguf_write.h"
#include "tokenizer/tokenizer.h"

/* rows: how many tokens the file must list (the embedding's rows; ids the tokenizer does not have become unused
 * ones). bos, eos: the model's; -1: the tokenizer's own.
 * [fails: UNSUPPORTED for a tokenizer that GGUF has no model for, NOMEM] */
tl_status tokenizer_put_gguf(const tokenizer *t, int64_t rows, int32_t bos, int32_t eos, gguf_writer *w, tl_error *e);

#endif
