/* A call of each operator as a language model makes it, to ask kernels what they say to it. */
#ifndef ENGINE_TYPICAL_H
#define ENGINE_TYPICAL_H

#include "op/op.h"

typedef struct typical_call {
    tl_op_call call; /* descriptors and attributes, no data */
    _Alignas(16) unsigned char attr[TL_ATTR_MAX];
} typical_call;

/* Data of `dtype`. The call points into *t. */
tl_status typical_make(int op, tl_dtype dtype, typical_call *t, tl_error *err);

#endif
