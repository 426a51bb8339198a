/* op: operators as rows. Each file holds one operator's shape rule, gradient rule, cost rule and scalar reference;
 * ops.def lists them. Knows tensors; knows no graph (gradient rules speak to it through tilia/op.h, whose functions
 * graph/ defines), no device, no model. */
#ifndef OP_OP_H
#define OP_OP_H

#include "base/error.h"
#include "op/attrs.h"
#include "tensor/tensor.h"
#include "tilia/op.h"

enum {
#define OP(name, in, out, save, acc, flags) OP_##name,
#include "op/ops.def"
#undef OP
    OP_COUNT
};

/* The table, in the order of ops.def. */
extern const tl_op_def op_table[OP_COUNT];
#define OP_DEF(name) (&op_table[OP_##name])

/* Attribute of a call or inference, typed. */
#define ATTR(c, op) ((const struct op##_attr *)(c)->attr)

#endif
