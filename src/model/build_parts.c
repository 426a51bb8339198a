/* Small parts that layers of several kinds share: tables of relative positions, temperature and sink of scores,
 * activations with a slope. */
#include "model/builder.h"
#include "op/op.h"

#include <math.h>

/* ---- scores ------------------------------------------------------------------------------------------------- */

int64_t build_rel_count(const model_config *c, int kind, int64_t heads, int64_t width, int64_t reach) {
    switch (kind) {
    case REL_TABLE: return heads * (2 * reach - 1);
    case REL_TOEPLITZ: return heads * 2 * width;
    case REL_T5: return heads * c->rel_buckets;
    default: return 0;
    }
}

/* A table that is a parameter ends where its numbers do; one that is computed reaches as far as the graph's context. */
tl_tensor *build_rel_bias(const builder *b, param_role role, int64_t layer, int kind, int64_t heads, int64_t width,
                          int64_t reach) {
    const model_config *c = b->c;
    tl_tensor *w = builder_param(b, role, layer);
    if (!w) return NULL;
    if (kind == REL_TABLE) return tl_reshape(b->g, w, 2, (int64_t[]){heads, 2 * reach - 1});
    if (reach == c->context && b->o->context > reach) reach = b->o->context;
    w = tl_reshape(b->g, w, 2, (int64_t[]){heads, build_rel_count(c, kind, 1, width, reach)});
    if (kind == REL_TOEPLITZ) {
        struct rel_toeplitz_attr a = {.reach = reach};
        return tl_apply(b->g, OP_DEF(rel_toeplitz), &a, &w, 1, NULL, NULL, 0);
    }
    struct rel_buckets_attr a = {.reach = reach,
                                 .buckets = (int32_t)c->rel_buckets,
                                 .distance = (int32_t)c->rel_distance,
                                 .causal = config_one_way(c) && !b->encoder};
    /* the first port's factor, where its scales are asked for */
    if (c->score_scale == SCALE_LUCID_GAU) a.scale = (float)sqrt((double)c->width);
    if (c->score_scale == SCALE_LUCID_FLASH) a.scale = (float)sqrt((double)width);
    if (role == ROLE_ATTN_BIAS) a.scale = 1;
    return tl_apply(b->g, OP_DEF(rel_buckets), &a, &w, 1, NULL, NULL, 0);
}

/* The bias of a gated layer or of mixed chunks: one for all heads, (2P-1), or of a grid's window. */
tl_tensor *build_gate_bias(const builder *b, int64_t layer) {
    const model_config *c = b->c;
    if (c->grid_rows) return builder_param(b, ROLE_REL_BIAS, layer);
    const int64_t width = config_gated(c, layer) ? c->shared : c->head_dim;
    const int64_t reach = config_mixer(c, layer) == MIXER_GAU ? c->context : c->chunk;
    tl_tensor *t = build_rel_bias(b, ROLE_REL_BIAS, layer, c->rel_bias, 1, width, reach);
    const tl_desc *d = t ? tl_tensor_desc(t) : NULL;
    return d ? tl_reshape(b->g, t, 1, (int64_t[]){d->dim[1]}) : NULL;
}

/* theta, decayed with the matrices, among which it lies: (1) in the dtype of sums */
tl_tensor *build_theta(const builder *b, param_role role, int64_t layer) {
    tl_tensor *t = builder_matrix(b, role, layer);
    if (!t) return NULL;
    if (b->o->dtype != TL_F64 && tl_tensor_desc(t)->dtype != TL_F32) t = tl_cast(b->g, t, TL_F32);
    return tl_reshape(b->g, t, 1, (int64_t[]){1});
}

/* ---- activations -------------------------------------------------------------------------------------------- */

tl_tensor *build_times(const builder *b, tl_tensor *x, tl_tensor *number, int64_t width) {
    const tl_desc *d = tl_tensor_desc(number);
    const struct offset_scale_attr none = {0};
    struct broadcast_attr a = {.kind = REDUCE_ALL, .ndim = 1, .dtype = d ? d->dtype : TL_F32, .dim = {width}};
    tl_tensor *g = tl_apply(b->g, OP_DEF(broadcast), &a, &number, 1, NULL, NULL, 0);
    return tl_apply(b->g, OP_DEF(offset_scale), &none, (tl_tensor *[]){x, g}, 2, NULL, NULL, 0);
}

/* Is Swish's slope there, and not that of SiLU? */
static bool sloped(const model_config *c) {
    return c->act_beta_learned || (c->act_beta != 0 && c->act_beta != 1);
}

tl_tensor *build_act(const builder *b, tl_tensor *x, int64_t width, int64_t layer) {
    const model_config *c = b->c;
    if (!sloped(c)) return tl_act(b->g, x, (tl_act_kind)c->act);
    tl_tensor *beta = builder_param(b, ROLE_ACT_BETA, layer);
    tl_tensor *z = beta ? build_times(b, x, beta, width) : tl_scale(b->g, x, (float)c->act_beta);
    return tl_glu(b->g, z, x, TL_ACT_SIGMOID); /* x sigmoid(beta x) */
}

tl_tensor *build_glu(const builder *b, tl_tensor *gate, tl_tensor *up, int64_t layer) {
    const model_config *c = b->c;
    if (c->act_both) up = build_act(b, up, c->mlp, layer);
    if (!sloped(c)) return tl_glu(b->g, gate, up, (tl_act_kind)c->act);
    return tl_mul(b->g, build_act(b, gate, c->mlp, layer), up);
}
