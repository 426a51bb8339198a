/* embedding from a table in blocks: rows decoded by the leaf of the products. */
#include "cpu/launchers.h"
#include "cpu/quant/blocks.h"

#include <string.h>

enum { EMBEDDING_IDS = 8 }; /* to a tile */

const char *quant_embedding_prepare(const tl_op_call *c, int threads, bool dry, const tl_allocator *alloc,
                                    kernel_exec *x) {
    const tl_desc *table = &c->in[1].d;
    (void)threads, (void)dry, (void)alloc;
    if (quant_type_of(table->dtype) < 0) return "the table is not in blocks";
    if (c->out[0].d.dtype != TL_F32) return "the result is not f32";
    if (c->acc & 1) return "added into"; /* tables of positions are no blocks */
    if (table->stride[0] % tl_dtype_block(table->dtype)) return "rows of the table that are no whole blocks";
    x->phases = 1;
    x->tiles[0] = (tl_desc_count(&c->in[0].d) + EMBEDDING_IDS - 1) / EMBEDDING_IDS;
    return NULL;
}

static int64_t embedding_at(const tl_desc *d, int64_t i) {
    int64_t last = tl_desc_last(d);
    return d->ndim ? tl_desc_row(d, i / last) + i % last : 0;
}

void quant_embedding_run(const kernel_task *t, int phase, int64_t lo, int64_t hi, int worker) {
    const tl_op_call *c = t->call;
    const tl_desc *table = &c->in[1].d;
    float scale = ATTR(c, embedding)->scale;
    int64_t count = tl_desc_count(&c->in[0].d), D = table->dim[1];
    quant_job j = blocks_job(c->in[1].data, table->dtype, table->stride[0], 0, D);
    (void)phase, (void)worker;
    for (int64_t i = lo * EMBEDDING_IDS; i < hi * EMBEDDING_IDS && i < count; i++) {
        int64_t id = ((const int32_t *)c->in[0].data)[embedding_at(&c->in[0].d, i)];
        j.out = (float *)c->out[0].data + tl_desc_row(&c->out[0].d, i);
        if (id < 0 || id >= table->dim[0]) {
            memset(j.out, 0, (size_t)D * sizeof *j.out);
            continue;
        }
        ((quant_leaf *)t->exec->leaf)(QUANT_DECODE, &j, id, id + 1);
        for (int64_t d = 0; scale != 0 && scale != 1 && d < D; d++) j.out[d] *= scale;
    }
}
