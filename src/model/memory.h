/* The bf16 copies of a model whose numbers lie in a device's own memory, for model_bf16. */
#ifndef MODEL_MEMORY_H
#define MODEL_MEMORY_H

#include "model/model.h"

tl_status memory_bf16(tl_model *m, tl_error *err);

#endif
