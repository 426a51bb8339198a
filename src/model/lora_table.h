/* What lora.c and lora_files.c share. */
#ifndef MODEL_LORA_TABLE_H
#define MODEL_LORA_TABLE_H

#include "model/model.h"

/* Is the matrix of that name in Hugging Face's files to be adapted? */
typedef bool lora_want(const void *user, const char *name);
tl_status lora_table(model_lora *l, const tl_allocator *a, const model_config *c, const model_params *base,
                     const lora_options *o, lora_want *want, const void *user, tl_error *e);
/* The same with memory for the numbers (zeros), as m's. */
tl_status lora_take(tl_model *m, const lora_options *o, lora_want *want, const void *user, tl_error *e);

#endif
