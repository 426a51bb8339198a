/* One line of model code each: attributes in, tl_apply, tensor out. Formulas are in op/ops.def. */
#include "graph/graph.h"

#define OK(g) ((g) && (g)->err.code == TL_OK)

static tl_tensor *build(tl_graph *g, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n_in) {
    return tl_apply(g, op, attr, in, n_in, NULL, NULL, 0);
}

/* What a formula adds into must not change the caller's memory: a bound tensor is copied first. */
static tl_tensor *build_own(tl_graph *g, tl_tensor *acc) {
    return acc && graph_external(acc) ? tl_cast(g, acc, acc->d.dtype) : acc;
}

tl_tensor *tl_embedding(tl_graph *g, tl_tensor *ids, tl_tensor *table, float scale, tl_dtype dtype, tl_tensor *acc) {
    struct embedding_attr a = {.scale = scale, .dtype = acc && dtype == TL_NONE ? acc->d.dtype : dtype};
    tl_tensor *into[TL_OP_OUTS] = {build_own(g, acc)};
    return tl_apply(g, OP_DEF(embedding), &a, (tl_tensor *[]){ids, table}, 2, into, NULL, 0);
}

tl_tensor *tl_linear(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *b, tl_dtype dtype) {
    struct linear_attr a = {.dtype = dtype};
    return build(g, OP_DEF(linear), &a, (tl_tensor *[]){x, w, b}, 3);
}

tl_tensor *tl_linear_add(tl_graph *g, tl_tensor *acc, tl_tensor *x, tl_tensor *w, tl_tensor *b) {
    if (!OK(g)) return NULL;
    if (!acc) return graph_fail_at(g, TL_ARG, "linear_add", "nothing to add to");
    struct linear_attr a = {.dtype = acc->d.dtype};
    tl_tensor *into[TL_OP_OUTS] = {build_own(g, acc)};
    return tl_apply(g, OP_DEF(linear), &a, (tl_tensor *[]){x, w, b}, 3, into, NULL, 0);
}

tl_tensor *tl_batchnorm(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *b, float eps) {
    struct batchnorm_attr a = {.eps = eps};
    return build(g, OP_DEF(batchnorm), &a, (tl_tensor *[]){x, w, b}, 3);
}

tl_tensor *tl_layernorm(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *b, float eps) {
    struct layernorm_attr a = {.eps = eps};
    return build(g, OP_DEF(layernorm), &a, (tl_tensor *[]){x, w, b}, 3);
}

tl_tensor *tl_rmsnorm(tl_graph *g, tl_tensor *x, tl_tensor *w, float eps, float offset) {
    struct rmsnorm_attr a = {.eps = eps, .offset = offset};
    return build(g, OP_DEF(rmsnorm), &a, (tl_tensor *[]){x, w}, 2);
}

tl_tensor *tl_scalenorm(tl_graph *g, tl_tensor *x, tl_tensor *gain, float eps) {
    struct scalenorm_attr a = {.eps = eps};
    return build(g, OP_DEF(scalenorm), &a, (tl_tensor *[]){x, gain}, 2);
}

tl_tensor *tl_rope_table(tl_graph *g, tl_tensor *pos, tl_tensor *freq, float mscale) {
    struct rope_table_attr a = {.mscale = mscale};
    return build(g, OP_DEF(rope_table), &a, (tl_tensor *[]){pos, freq}, 2);
}

tl_tensor *tl_rope(tl_graph *g, tl_tensor *x, tl_tensor *table, bool interleaved) {
    struct rope_attr a = {.style = interleaved ? ROPE_INTERLEAVED : ROPE_HALF};
    return build(g, OP_DEF(rope), &a, (tl_tensor *[]){x, table}, 2);
}

tl_tensor *tl_attention(tl_graph *g, tl_tensor *q, tl_tensor *k, tl_tensor *v, const tl_attention_options *o,
                        tl_tensor **lse) {
    tl_attention_options none = {0};
    if (!o) o = &none;
    struct attention_attr a = {.scale = o->scale,
                               .softcap = o->softcap,
                               .causal = o->causal,
                               .window = o->window,
                               .q_offset = o->q_offset,
                               .global = o->global};
    if (OK(g) && o->drop > 0) a.drop = o->drop, a.op = g->dropouts++; /* numbered like tl_dropout's */
    tl_tensor *out[2] = {NULL, NULL};
    tl_apply(g, OP_DEF(attention), &a, (tl_tensor *[]){q, k, v, o->doc, o->sinks, o->slopes, o->bias, o->span}, 8, NULL,
             out, lse ? 2 : 1);
    if (lse) *lse = out[1];
    return out[0];
}

tl_tensor *tl_kv_write(tl_graph *g, tl_tensor *x, tl_tensor *slot, tl_tensor *pos, tl_tensor *cache) {
    struct kv_write_attr a = {0};
    tl_tensor *into[TL_OP_OUTS] = {cache};
    if (OK(g) && !cache) return graph_fail_at(g, TL_ARG, "kv_write", "no cache");
    return tl_apply(g, OP_DEF(kv_write), &a, (tl_tensor *[]){x, slot, pos}, 3, into, NULL, 0);
}

tl_tensor *tl_attention_kv(tl_graph *g, tl_tensor *q, tl_tensor *kcache, tl_tensor *vcache, tl_tensor *slot,
                           tl_tensor *pos, const tl_attention_options *o) {
    tl_attention_options none = {0};
    if (!o) o = &none;
    struct attention_kv_attr a = {.scale = o->scale, .softcap = o->softcap, .window = o->window, .global = o->global};
    return build(g, OP_DEF(attention_kv), &a,
                 (tl_tensor *[]){q, kcache, vcache, slot, pos, o->sinks, o->slopes, o->bias, o->span}, 9);
}

tl_tensor *tl_act(tl_graph *g, tl_tensor *x, tl_act_kind kind) {
    struct act_attr a = {.kind = (int32_t)kind};
    return build(g, OP_DEF(act), &a, &x, 1);
}

tl_tensor *tl_glu(tl_graph *g, tl_tensor *gate, tl_tensor *up, tl_act_kind kind) {
    struct glu_attr a = {.kind = (int32_t)kind};
    return build(g, OP_DEF(glu), &a, (tl_tensor *[]){gate, up}, 2);
}

tl_tensor *tl_add(tl_graph *g, tl_tensor *x, tl_tensor *y) {
    struct add_attr a = {0};
    return build(g, OP_DEF(add), &a, (tl_tensor *[]){x, y}, 2);
}

tl_tensor *tl_mul(tl_graph *g, tl_tensor *x, tl_tensor *y) {
    struct mul_attr a = {0};
    return build(g, OP_DEF(mul), &a, (tl_tensor *[]){x, y}, 2);
}

tl_tensor *tl_scale(tl_graph *g, tl_tensor *x, float by) {
    struct scale_attr a = {.by = by};
    return build(g, OP_DEF(scale), &a, &x, 1);
}

tl_tensor *tl_dropout(tl_graph *g, tl_tensor *x, float p) {
    if (!OK(g)) return NULL;
    struct dropout_attr a = {.p = p, .op = g->dropouts};
    if (p == 0) return x;
    g->dropouts++; /* its number, not its place in the graph, keys the mask: a clone drops the same elements */
    return build(g, OP_DEF(dropout), &a, &x, 1);
}

tl_tensor *tl_softmax(tl_graph *g, tl_tensor *x) {
    struct softmax_attr a = {0};
    return build(g, OP_DEF(softmax), &a, &x, 1);
}

tl_tensor *tl_softcap(tl_graph *g, tl_tensor *x, float cap) {
    struct softcap_attr a = {.cap = cap};
    return build(g, OP_DEF(softcap), &a, &x, 1);
}

tl_tensor *tl_reduce(tl_graph *g, tl_tensor *x, int kind, bool mean) {
    struct reduce_attr a = {.kind = kind, .mean = mean};
    return build(g, OP_DEF(reduce), &a, &x, 1);
}

tl_tensor *tl_cast(tl_graph *g, tl_tensor *x, tl_dtype dtype) {
    struct cast_attr a = {.dtype = dtype};
    return build(g, OP_DEF(cast), &a, &x, 1);
}

void tl_split(tl_graph *g, tl_tensor *x, int n, const int64_t *width, tl_tensor **out) {
    for (int i = 0; i < n; i++) out[i] = NULL;
    if (!OK(g)) return;
    if (n < 1 || n > 6) {
        graph_fail_at(g, TL_ARG, "split", "1 to 6 parts");
        return;
    }
    struct split_attr a = {.n = n};
    for (int i = 0; i < n; i++) a.width[i] = width[i];
    tl_apply(g, OP_DEF(split), &a, &x, 1, NULL, out, n);
}

tl_tensor *tl_concat(tl_graph *g, tl_tensor *const *x, int n) {
    struct concat_attr a = {.n = n};
    return build(g, OP_DEF(concat), &a, x, n);
}

tl_tensor *tl_reshape(tl_graph *g, tl_tensor *x, int ndim, const int64_t *dim) {
    if (!OK(g)) return NULL;
    if (ndim < 0 || ndim > TL_DIMS) return graph_fail_at(g, TL_SHAPE, "reshape", "0 to 4 dimensions");
    struct reshape_attr a = {.ndim = ndim};
    for (int i = 0; i < ndim; i++) a.dim[i] = dim[i];
    return build(g, OP_DEF(reshape), &a, &x, 1);
}

tl_tensor *tl_loss_head(tl_graph *g, tl_tensor *h, tl_tensor *w, tl_tensor *targets, tl_tensor *denom,
                        const tl_loss_options *o, tl_loss_outputs *out) {
    tl_loss_options none = {0};
    if (!o) o = &none;
    struct loss_head_attr a = {.smoothing = o->smoothing, .zloss = o->zloss, .softcap = o->softcap};
    tl_tensor *made[3] = {NULL, NULL, NULL};
    tl_apply(g, OP_DEF(loss_head), &a, (tl_tensor *[]){h, w, targets, denom, o->bias}, 5, NULL, made, out ? 3 : 1);
    if (out) *out = (tl_loss_outputs){.loss = made[0], .lse = made[1], .losses = made[2]};
    return made[0];
}

tl_tensor *tl_global_norm(tl_graph *g, tl_tensor *x) {
    struct global_norm_attr a = {0};
    return build(g, OP_DEF(global_norm), &a, &x, 1);
}

void tl_route(tl_graph *g, tl_tensor *p, const tl_route_options *o, bool balance, tl_route_outputs *out) {
    struct route_attr a = {.k = o->k, .norm = o->norm};
    tl_tensor *into[TL_OP_OUTS] = {NULL, NULL, o->mass, o->load}, *made[4] = {NULL};
    tl_apply(g, OP_DEF(route), &a, (tl_tensor *[]){p, o->slot, o->counted}, 3, into, made, balance ? 4 : 2);
    *out = (tl_route_outputs){made[0], made[1], made[2], made[3]};
}

tl_tensor *tl_balance(tl_graph *g, tl_tensor *mass, tl_tensor *load, tl_tensor *denom, float coef, int k,
                      int64_t layers) {
    struct balance_attr a = {.coef = coef, .k = k, .layers = layers};
    return build(g, OP_DEF(balance), &a, (tl_tensor *[]){mass, load, denom}, 3);
}

void tl_expert_sort(tl_graph *g, tl_tensor *id, int64_t experts, tl_expert_order *out) {
    struct expert_sort_attr a = {.experts = experts};
    tl_tensor *made[3] = {NULL};
    tl_apply(g, OP_DEF(expert_sort), &a, &id, 1, NULL, made, 3);
    *out = (tl_expert_order){made[0], made[1], made[2]};
}

tl_tensor *tl_expert_linear(tl_graph *g, tl_tensor *x, tl_tensor *w, tl_tensor *begin) {
    struct expert_linear_attr a = {0};
    return build(g, OP_DEF(expert_linear), &a, (tl_tensor *[]){x, w, begin}, 3);
}

tl_tensor *tl_expert_sum(tl_graph *g, tl_tensor *acc, tl_tensor *x, tl_tensor *w, tl_tensor *place) {
    struct expert_sum_attr a = {0};
    tl_tensor *into[TL_OP_OUTS] = {build_own(g, acc)};
    return tl_apply(g, OP_DEF(expert_sum), &a, (tl_tensor *[]){x, w, place}, 3, into, NULL, 0);
}

void tl_adamw(tl_graph *g, tl_tensor *p, tl_tensor *m, tl_tensor *v, tl_tensor *grad, tl_tensor *p16, tl_tensor *hyper,
              tl_tensor *norm, bool decay) {
    if (!OK(g)) return;
    if (!p || !m || !v || !grad) {
        graph_fail_at(g, TL_ARG, "adamw", "parameters, moments and gradient are all needed");
        return;
    }
    struct adamw_attr a = {.decay = decay};
    tl_tensor *into[TL_OP_OUTS] = {p, m, v, grad, p16};
    tl_apply(g, OP_DEF(adamw), &a, (tl_tensor *[]){hyper, norm}, 2, into, NULL, 0);
}
