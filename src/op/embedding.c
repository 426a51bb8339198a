/* embedding, embedding_bwd: rows of a table by their numbers. */
#ifndef REAL

#include "op/rules.h"

tl_status embedding_shape(tl_op_infer *s) {
    struct embedding_attr *a = s->attr;
    SHAPE(h, s, "embedding", "ids", "table");
    TRY(shape_dtype(&h, 0, TL_I32));
    TRY(shape_min_ndim(&h, 0, 1));
    const tl_desc *ids = s->in[0];
    if (ids->ndim == TL_DIMS) return shape_refuse(&h, 0, TL_SHAPE, "it may have %d dimensions at most", TL_DIMS - 1);
    TRY(shape_weight(&h, 1));
    TRY(shape_ndim(&h, 1, 2));
    tl_dtype table = s->in[1]->dtype, dtype = a->dtype;
    if (dtype == TL_NONE) dtype = tensor_is_quantized(table) ? TL_F32 : table;
    if (!tensor_is_float(dtype)) return shape_bad_attr(&h, "the result cannot be %s", tl_dtype_name(dtype));
    if ((dtype == TL_F64) != (table == TL_F64))
        return shape_bad_attr(&h, "a table of %s does not give %s", tl_dtype_name(table), tl_dtype_name(dtype));
    if (a->scale == 0) a->scale = 1;
    int64_t dim[TL_DIMS] = {0};
    for (int k = 0; k < ids->ndim; k++) dim[k] = ids->dim[k];
    dim[ids->ndim] = s->in[1]->dim[1];
    shape_out(&h, 0, dtype, ids->ndim + 1, dim);
    return TL_OK;
}

void embedding_grad(tl_grad *g) {
    const struct embedding_attr *a = tl_grad_attr(g);
    if (grad_to(g, 1) < 0) return;
    const tl_desc *table = tl_tensor_desc(tl_grad_in(g, 1));
    if (!tensor_is_float(table->dtype)) {
        tl_grad_refuse(g, "embedding: a quantized table has no gradient; train an adapter or a float copy");
        return;
    }
    struct embedding_bwd_attr b = {a->scale, 0, table->dim[0]};
    tl_tensor *in[] = {tl_grad_in(g, 0), tl_grad_dy(g, 0)};
    int to[] = {1};
    tl_grad_emit(g, OP_DEF(embedding_bwd), &b, in, 2, to, 1);
}

/* Of the table only rows that are read count as bytes. */
void embedding_cost(const tl_op_call *c, tl_cost *cost) {
    float scale = ATTR(c, embedding)->scale;
    int64_t ids = tl_desc_count(&c->in[0].d), rows = c->in[1].d.dim[0];
    cost_begin(c, cost);
    if (ids < rows) cost->bytes_read -= cost_bytes(&c->in[1].d) * (double)(rows - ids) / (double)rows;
    if (scale != 0 && scale != 1) cost_add(cost, tl_desc_count(&c->out[0].d), 1, 0);
}

tl_status embedding_bwd_shape(tl_op_infer *s) {
    struct embedding_bwd_attr *a = s->attr;
    SHAPE(h, s, "embedding_bwd", "ids", "dy");
    TRY(shape_dtype(&h, 0, TL_I32));
    TRY(shape_float(&h, 1));
    TRY(shape_ndim(&h, 1, s->in[0]->ndim + 1));
    for (int k = 0; k < s->in[0]->ndim; k++) TRY(shape_dim(&h, 1, k, s->in[0]->dim[k], "as ids"));
    if (a->vocab < 1) return shape_bad_attr(&h, "a table of %lld rows", (long long)a->vocab);
    if (a->scale == 0) a->scale = 1;
    int64_t dim[] = {a->vocab, tl_desc_last(s->in[1])};
    shape_out(&h, 0, tensor_sum_dtype(s->in[1]->dtype), 2, dim);
    return TL_OK;
}

NO_SECOND_GRAD(embedding_bwd)

void embedding_bwd_cost(const tl_op_call *c, tl_cost *cost) {
    float scale = ATTR(c, embedding_bwd)->scale;
    cost_begin(c, cost);
    cost_add(cost, tl_desc_count(&c->in[1].d), scale != 0 && scale != 1 ? 2 : 1, 0);
}

#else

void REF(embedding)(const tl_op_call *c) {
    const tl_arg *ids = &c->in[0], *table = &c->in[1], *y = &c->out[0];
    int64_t count = tl_desc_count(&ids->d), V = table->d.dim[0], D = table->d.dim[1];
    REAL scale = (REAL)ATTR(c, embedding)->scale;
    bool scaled = ATTR(c, embedding)->scale != 0 && ATTR(c, embedding)->scale != 1;
    for (int64_t n = 0; n < count; n++) {
        int64_t id = GETI(ids, AT(ids, n)), to = ROW(y, n);
        for (int64_t d = 0; d < D; d++) {
            REAL v = (REAL)0;
            if (id >= 0 && id < V) v = GET(table, ROW(table, id) + d);
            if (scaled) v = v * scale;
            PUT(c, 0, to + d, v);
        }
    }
}

/* Row by row of the table, so that each element is summed in order and rounded once. */
void REF(embedding_bwd)(const tl_op_call *c) {
    enum { CHUNK = 64 };
    const tl_arg *ids = &c->in[0], *dy = &c->in[1], *dtable = &c->out[0];
    int64_t count = tl_desc_count(&ids->d), V = dtable->d.dim[0], D = dtable->d.dim[1];
    REAL scale = (REAL)ATTR(c, embedding_bwd)->scale;
    bool scaled = ATTR(c, embedding_bwd)->scale != 0 && ATTR(c, embedding_bwd)->scale != 1;
    for (int64_t v = 0; v < V; v++) {
        int64_t first = 0;
        while (first < count && GETI(ids, AT(ids, first)) != v) first++;
        for (int64_t d0 = 0; d0 < D; d0 += CHUNK) {
            REAL sum[CHUNK];
            int64_t width = D - d0 < CHUNK ? D - d0 : CHUNK;
            for (int64_t d = 0; d < width; d++) sum[d] = (REAL)0;
            for (int64_t n = first; n < count; n++) {
                if (GETI(ids, AT(ids, n)) != v) continue;
                for (int64_t d = 0; d < width; d++) {
                    REAL x = GET(dy, ROW(dy, n) + d0 + d);
                    if (scaled) x = x * scale;
                    sum[d] = sum[d] + x;
                }
            }
            for (int64_t d = 0; d < width; d++) PUT(c, 0, ROW(dtable, v) + d0 + d, sum[d]);
        }
    }
}

#endif
