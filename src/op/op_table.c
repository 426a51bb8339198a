#include "op/op.h"

#include "op/rules.h"

#include <string.h>

#define OP(name, in, out, save, acc, flags)                                                                            \
    void name##_ref_f32(const tl_op_call *c);                                                                          \
    void name##_ref_f64(const tl_op_call *c);
#include "op/ops.def"
#undef OP

#define OP(name, in, out, save, acc, flags)                                                                            \
    {#name,         OP_##name,   in,          out,                                                                     \
     save,          acc,         flags,       sizeof(struct name##_attr),                                              \
     name##_shape,  name##_grad, name##_cost, name##_ref_f32,                                                          \
     name##_ref_f64},
const tl_op_def op_table[OP_COUNT] = {
#include "op/ops.def"
};
#undef OP

#define OP(name, in, out, save, acc, flags)                                                                            \
    _Static_assert(sizeof(struct name##_attr) <= TL_ATTR_MAX, #name ": attributes too large");                         \
    _Static_assert((in) <= TL_OP_INS && (out) <= TL_OP_OUTS, #name ": too many arguments");
#include "op/ops.def"
#undef OP

const tl_op_def *tl_op_find(const char *name) {
    for (int i = 0; name && i < OP_COUNT; i++)
        if (!strcmp(op_table[i].name, name)) return &op_table[i];
    return NULL;
}
