#include "op/opcost.h"

#include "tensor/tensor.h"

double cost_bytes(const tl_desc *d) {
    size_t bytes;
    return d->dtype != TL_NONE && tensor_bytes(d, &bytes) ? (double)bytes : 0;
}

void cost_begin(const tl_op_call *c, tl_cost *cost) {
    *cost = (tl_cost){0};
    for (int i = 0; i < TL_OP_INS; i++) cost->bytes_read += cost_bytes(&c->in[i].d);
    for (int k = 0; k < TL_OP_OUTS; k++) {
        double bytes = cost_bytes(&c->out[k].d);
        cost->bytes_written += bytes;
        if (!cost_out(c, k) || !(c->acc >> k & 1)) continue;
        cost->bytes_read += bytes;
        cost->flops += (double)tl_desc_count(&c->out[k].d);
    }
}
