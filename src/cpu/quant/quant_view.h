/* What the launchers of this folder share: a call of linear with a weight in blocks. */
#ifndef CPU_QUANT_QUANT_VIEW_H
#define CPU_QUANT_QUANT_VIEW_H

#include "cpu/product/linear.h"
#include "cpu/quant/quant.h"

int quant_type_of(tl_dtype t); /* QUANT_Q8_0 .. or -1 */
/* NULL, or why no kernel of this folder can serve the call. */
const char *quant_view_of(const tl_op_call *c, linear_view *v);
size_t quant_row_bytes(const linear_view *v);

#endif
