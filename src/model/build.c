#include "model/builder.h"
#include "op/op.h"

#include <stdio.h>
#include <string.h>

const int64_t build_bucket_rows[BUILD_BUCKETS] = {1, 4, 8, 16, 64, 256, 512};

int64_t build_bucket(int64_t rows) {
    int k = 0;
    while (k + 1 < BUILD_BUCKETS && build_bucket_rows[k] < rows) k++;
    return build_bucket_rows[k];
}

static tl_tensor *param(const builder *b, param_role role, int64_t layer, int32_t nth) {
    int64_t i = params_find(b->p, role, (int32_t)layer, nth);
    return i < 0 ? NULL : b->r->params[i];
}

/* Piece k of a parameter: NULL if the parameter is there as a whole. */
static tl_tensor *piece(const builder *b, param_role role, int64_t layer, int k) {
    int64_t i = params_find(b->p, role, (int32_t)layer, 0);
    return i < 0 || !b->r->pieces ? NULL : b->r->pieces[i * PARAM_PIECES + k];
}

/* The one tensor of a matrix that is never in pieces. */
static tl_tensor *matrix(const builder *b, param_role role, int64_t layer) {
    tl_tensor *t = piece(b, role, layer, 0);
    return t ? t : param(b, role, layer, 0);
}

/* Number of the A of piece k of a matrix, -1 if it is not adapted. */
static int32_t adapter(const builder *b, param_role role, int64_t layer, int k) {
    int64_t i = b->o->lora ? params_find(b->p, role, (int32_t)layer, 0) : -1;
    return i < 0 ? -1 : b->o->lora->at[i * PARAM_PIECES + k];
}

/* y + (s drop(x) A^T) B^T for piece k of a matrix, where it is adapted. */
static tl_tensor *adapt(const builder *b, tl_tensor *y, tl_tensor *x, param_role role, int64_t layer, int k) {
    const model_lora *l = b->o->lora;
    int32_t at = adapter(b, role, layer, k);
    if (at < 0) return y;
    if (b->o->mode == BUILD_TRAIN && l->o.dropout > 0) x = tl_dropout(b->g, x, (float)l->o.dropout);
    tl_tensor *low = tl_linear(b->g, x, b->r->lora[at], NULL, TL_NONE);
    return tl_linear_add(b->g, y, tl_scale(b->g, low, (float)lora_scale(&l->o)), b->r->lora[at + 1], NULL);
}

/* x w^T + bias of a matrix that is never in pieces */
static tl_tensor *linear(const builder *b, tl_tensor *x, param_role role, tl_tensor *bias, int64_t layer) {
    return adapt(b, tl_linear(b->g, x, matrix(b, role, layer), bias, TL_NONE), x, role, layer, 0);
}

/* x through a matrix that a file may have in up to 3 pieces one above the other: the parts of the result. width: of
 * the parts. bias: of all of them together, or NULL. */
static void linear_parts(const builder *b, tl_tensor *x, param_role role, tl_tensor *bias, int64_t layer, int n,
                         const int64_t *width, tl_tensor **out) {
    if (!piece(b, role, layer, 1)) {
        tl_tensor *all = tl_linear(b->g, x, matrix(b, role, layer), bias, TL_NONE);
        int32_t at = adapter(b, role, layer, 0);
        int64_t total = 0;
        for (int k = 0; k < n; k++) total += width[k];
        bool whole = at >= 0 && b->o->lora->params.list[at + 1].rows == total;
        if (whole) all = adapt(b, all, x, role, layer, 0); /* one matrix for its family too */
        tl_split(b->g, all, n, width, out);
        for (int k = 0; k < n && !whole; k++) out[k] = adapt(b, out[k], x, role, layer, k);
        return;
    }
    tl_tensor *beta[PARAM_PIECES] = {0};
    if (bias) tl_split(b->g, bias, n, width, beta);
    for (int k = 0; k < n; k++)
        out[k] = adapt(b, tl_linear(b->g, x, piece(b, role, layer, k), beta[k], TL_NONE), x, role, layer, k);
}

/* x (N.., a*b) as (N.., a, b) */
static tl_tensor *heads_of(const builder *b, tl_tensor *x, int64_t heads) {
    int64_t dim[4];
    memcpy(dim, b->lead, sizeof b->lead);
    dim[b->n_lead] = heads;
    dim[b->n_lead + 1] = b->c->head_dim;
    return tl_reshape(b->g, x, b->n_lead + 2, dim);
}

static tl_tensor *flat_of(const builder *b, tl_tensor *x, int64_t width) {
    int64_t dim[3];
    memcpy(dim, b->lead, sizeof b->lead);
    dim[b->n_lead] = width;
    return tl_reshape(b->g, x, b->n_lead + 1, dim);
}

/* nth norm of a layer (-1: the final one) */
static tl_tensor *norm(const builder *b, tl_tensor *x, int64_t layer, int32_t nth) {
    const model_config *c = b->c;
    tl_tensor *gain = param(b, ROLE_NORM_GAIN, layer, nth), *bias = param(b, ROLE_NORM_BIAS, layer, nth);
    switch (c->norm) {
    case NORM_LAYER: return tl_layernorm(b->g, x, gain, bias, (float)c->norm_eps);
    case NORM_BATCH: return tl_batchnorm(b->g, x, gain, bias, (float)c->norm_eps);
    case NORM_RMS: return tl_rmsnorm(b->g, x, gain, (float)c->norm_eps, (float)c->norm_offset);
    case NORM_SCALE: return tl_scalenorm(b->g, x, gain, (float)c->norm_eps);
    default: return x;
    }
}

/* ---- mixer -------------------------------------------------------------------------------------------------- */

static tl_tensor *attend(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t layer) {
    const model_config *c = b->c;
    tl_tensor *bias = build_rel_bias(b, ROLE_ATTN_BIAS, layer, c->attn_rel_bias, c->heads, c->head_dim, c->context);
    tl_attention_options ao = {.scale = (float)c->attn_scale,
                               .softcap = (float)c->attn_softcap,
                               .causal = builder_causal(b),
                               .window = config_window(c, layer),
                               .global = config_mixer(c, layer) == MIXER_LONGFORMER ? (int32_t)c->global_tokens : 0,
                               .doc = b->r->span ? NULL : b->r->doc,
                               .span = b->r->span,
                               .slopes = c->positions == POS_ALIBI ? b->r->slopes : NULL,
                               .sinks = param(b, ROLE_SINK, layer, 0),
                               .bias = bias};
    if (b->o->mode == BUILD_TRAIN) ao.drop = (float)c->drop_attn;
    if (b->o->mode != BUILD_DECODE) return tl_attention(b->g, q, k, v, &ao, NULL);
    tl_tensor **state = &b->r->state[layer * BUILD_STATES];
    tl_tensor *kc = tl_kv_write(b->g, k, b->r->slot, b->r->pos, state[0]);
    tl_tensor *vc = tl_kv_write(b->g, v, b->r->slot, b->r->pos, state[1]);
    return tl_attention_kv(b->g, q, kc, vc, b->r->slot, b->r->pos, &ao);
}

/* attention over x (N..,D), before the output projection: (N.., H Dh) */
static tl_tensor *mix(const builder *b, tl_tensor *x, int64_t layer) {
    const model_config *c = b->c;
    int64_t width[3] = {c->heads * c->head_dim, c->kv_heads * c->head_dim, c->kv_heads * c->head_dim};
    tl_tensor *part[3];
    linear_parts(b, x, ROLE_QKV, param(b, ROLE_QKV_BIAS, layer, 0), layer, 3, width, part);
    tl_tensor *q = heads_of(b, part[0], c->heads);
    tl_tensor *k = heads_of(b, part[1], c->kv_heads);
    tl_tensor *v = heads_of(b, part[2], c->kv_heads);
    if (c->qk_norm) {
        q = tl_rmsnorm(b->g, q, param(b, ROLE_QNORM, layer, 0), (float)c->norm_eps, 0);
        k = tl_rmsnorm(b->g, k, param(b, ROLE_KNORM, layer, 0), (float)c->norm_eps, 0);
    }
    if (config_stateful(c, layer)) return build_state_mixer(b, x, q, k, v, layer);
    if (config_mixer(c, layer) == MIXER_CHUNK) return flat_of(b, build_chunk_mixer(b, q, k, v, layer), width[0]);
    if (b->rope) {
        q = tl_rope(b->g, q, b->rope, c->rope_interleaved);
        k = tl_rope(b->g, k, b->rope, c->rope_interleaved);
    }
    if (config_mixer(c, layer) == MIXER_NYSTROM) return flat_of(b, build_nystrom(b, q, k, v), width[0]);
    if (config_mixer(c, layer) == MIXER_LINFORMER) return flat_of(b, build_linformer(b, q, k, v, layer), width[0]);
    return flat_of(b, attend(b, q, k, v, layer), width[0]);
}

/* ---- mlp ------------------------------------------------------------------------------------------------------- */

/* the mlp up to its last projection: (N..,F) */
static tl_tensor *expand(const builder *b, tl_tensor *x, int64_t layer) {
    const model_config *c = b->c;
    tl_tensor *bias = param(b, ROLE_UP_BIAS, layer, 0);
    if (!c->gated) return build_act(b, linear(b, x, ROLE_UP, bias, layer), c->mlp, layer);
    tl_tensor *part[2];
    linear_parts(b, x, ROLE_UP, bias, layer, 2, (int64_t[]){c->mlp, c->mlp}, part);
    return build_glu(b, part[0], part[1], layer);
}

/* ---- block ------------------------------------------------------------------------------------------------------- */

/* what becomes of a branch before it is added: dropout and, in a sandwich, a norm */
static tl_tensor *after(const builder *b, tl_tensor *y, int64_t layer, int32_t post) {
    if (b->o->mode == BUILD_TRAIN && b->c->drop_resid > 0) y = tl_dropout(b->g, y, (float)b->c->drop_resid);
    return b->c->place == PLACE_SANDWICH ? norm(b, y, layer, post) : y;
}

/* x + y, or y alone in a model without residuals */
static tl_tensor *plus(const builder *b, tl_tensor *x, tl_tensor *y) {
    return b->c->no_residual ? y : tl_add(b->g, x, y);
}

/* x + after(h w^T + bias) */
static tl_tensor *join(const builder *b, tl_tensor *x, tl_tensor *h, param_role w, param_role bias, int64_t layer,
                       int32_t post) {
    const model_config *c = b->c;
    tl_tensor *weight = matrix(b, w, layer), *beta = param(b, bias, layer, 0);
    bool drop = b->o->mode == BUILD_TRAIN && c->drop_resid > 0;
    if (c->place != PLACE_SANDWICH && !drop && !c->no_residual)
        return adapt(b, tl_linear_add(b->g, x, h, weight, beta), h, w, layer, 0);
    return plus(b, x, after(b, linear(b, h, w, beta, layer), layer, post));
}

/* x + after(mlp(in)), where the mlp may be a mixture of experts */
static tl_tensor *join_mlp(const builder *b, tl_tensor *x, tl_tensor *in, int64_t l) {
    const model_config *c = b->c;
    if (!config_experts(c, l)) return join(b, x, expand(b, in, l), ROLE_DOWN, ROLE_DOWN_BIAS, l, 3);
    bool plain = c->place != PLACE_SANDWICH && !c->no_residual && !(b->o->mode == BUILD_TRAIN && c->drop_resid > 0);
    if (plain) return build_experts(b, x, in, l);
    return plus(b, x, after(b, build_experts(b, NULL, in, l), l, 3));
}

static tl_tensor *block(const builder *b, tl_tensor *x, int64_t l) {
    const model_config *c = b->c;
    const bool cross = c->encoder && !b->encoder;
    if (config_gated(c, l)) {
        x = build_gated(b, x, l);
        return cross ? build_cross(b, x, l) : x;
    }
    bool post = c->place == PLACE_POST;
    tl_tensor *in = post ? x : norm(b, x, l, 0);
    tl_tensor *a = mix(b, in, l);
    x = join(b, x, a, ROLE_ATTN_OUT, ROLE_ATTN_OUT_BIAS, l, 2);
    if (c->parallel) return join_mlp(b, x, in, l);
    if (post) x = norm(b, x, l, 0);
    if (cross) x = build_cross(b, x, l);
    x = join_mlp(b, x, post ? x : norm(b, x, l, 1), l);
    return post ? norm(b, x, l, 1) : x;
}

bool builder_causal(const builder *b) {
    return !b->encoder && config_causal(b->c) && !b->r->span;
}
tl_tensor *builder_block(const builder *b, tl_tensor *x, int64_t layer) {
    return block(b, x, layer);
}

/* ---- for build_gated.c ---------------------------------------------------------------------------------------- */

tl_tensor *builder_piece(const builder *b, param_role role, int64_t layer, int k) {
    return piece(b, role, layer, k);
}
tl_tensor *builder_param(const builder *b, param_role role, int64_t layer) {
    return param(b, role, layer, 0);
}
tl_tensor *builder_matrix(const builder *b, param_role role, int64_t layer) {
    return matrix(b, role, layer);
}
tl_tensor *builder_linear(const builder *b, tl_tensor *x, param_role role, param_role bias, int64_t layer) {
    return linear(b, x, role, param(b, bias, layer, 0), layer);
}
tl_tensor *builder_norm(const builder *b, tl_tensor *x, int64_t layer, int32_t nth) {
    return norm(b, x, layer, nth);
}
tl_tensor *builder_join(const builder *b, tl_tensor *x, tl_tensor *h, int64_t layer) {
    return join(b, x, h, ROLE_ATTN_OUT, ROLE_ATTN_OUT_BIAS, layer, 2);
}
tl_tensor *builder_fold(const builder *b, tl_tensor *x, int64_t heads, int64_t width) {
    int64_t dim[4];
    memcpy(dim, b->lead, sizeof b->lead);
    dim[b->n_lead] = heads;
    dim[b->n_lead + 1] = width;
    return tl_reshape(b->g, x, b->n_lead + 2, dim);
}
tl_tensor *builder_flat(const builder *b, tl_tensor *x, int64_t width) {
    return flat_of(b, x, width);
}

/* ---- inputs --------------------------------------------------------------------------------------------------------
 */

static void declare_pieces(builder *b, size_t i) {
    for (size_t k = i * PARAM_PIECES; k < (i + 1) * PARAM_PIECES; k++) {
        const build_matrix *p = &b->o->mapped->piece[k];
        char name[80];
        if (p->dtype == TL_NONE) continue;
        snprintf(name, sizeof name, "%s.%zu", b->p->list[i].name, k - i * PARAM_PIECES);
        b->r->pieces[k] = tl_const(b->g, name, p->dtype, 2, (int64_t[]){p->rows, p->cols});
    }
}

static void declare_lora(builder *b) {
    const model_lora *l = b->o->lora;
    for (size_t i = 0; l && i < l->params.n; i++) {
        const model_param *m = &l->params.list[i];
        b->r->lora[i] =
            (b->o->trainable ? tl_param : tl_const)(b->g, m->name, b->o->dtype, 2, (int64_t[]){m->rows, m->cols});
    }
}

static void declare_params(builder *b) {
    for (size_t i = 0; i < b->p->n; i++) {
        const model_param *m = &b->p->list[i];
        if (b->r->pieces && m->decay) {
            declare_pieces(b, i);
            continue;
        }
        int64_t dim[2] = {m->rows ? m->rows : m->cols, m->cols};
        tl_dtype t = b->o->dtype == TL_F64 ? TL_F64 : m->decay ? b->o->dtype : TL_F32;
        tl_tensor *(*make)(tl_graph *, const char *, tl_dtype, int, const int64_t *) =
            b->o->trainable && m->trainable && m->role != ROLE_FEATURES && !b->o->lora ? tl_param : tl_const;
        b->r->params[i] = make(b->g, m->name, t, m->rows ? 2 : 1, dim);
    }
}

static void declare_inputs(builder *b) {
    const build_options *o = b->o;
    const model_config *c = b->c;
    build_result *r = b->r;
    int64_t one = 1, rope = build_rope_dims(c) / 2; /* with cosFormer's */
    tl_dtype sum = o->dtype == TL_F64 ? TL_F64 : TL_F32;
    const bool encode = o->mode == BUILD_ENCODE;
    build_source_inputs(b);
    if (encode)
        r->slot = tl_input(b->g, "slot", TL_I32, 1, &o->rows);
    else if (o->mode == BUILD_BLOCKS)
        r->x = tl_input(b->g, "x", o->dtype, 3, (int64_t[]){o->rows, o->context, c->width});
    else
        r->ids = tl_input(b->g, "ids", TL_I32, b->n_lead, b->lead);
    if (!encode) r->pos = tl_input(b->g, "pos", TL_I32, b->n_lead, b->lead);
    if (rope > 0) r->freq = tl_const(b->g, "rope.freq", TL_F64, 1, &rope);
    if (build_head_constants(c, NULL)) r->slopes = tl_const(b->g, "alibi.slopes", sum, 1, &c->heads);
    if (config_sinusoids(c))
        r->sinusoid = tl_const(b->g, "sinusoid", sum, 2, (int64_t[]){build_sinusoid_rows(c, o->context), c->width});
    if (config_prefix(c)) {
        const int64_t dim[] = {o->rows, b->lead[1], 2};
        r->span = tl_input(b->g, "span", TL_I32, o->mode == BUILD_DECODE ? 1 : 3, dim);
    }
    if (o->mode != BUILD_DECODE && !encode) {
        if (o->packed || c->encoder) r->doc = tl_input(b->g, "doc", TL_I32, b->n_lead, b->lead);
        if (o->mode == BUILD_LOGITS || o->mode == BUILD_BLOCKS) return;
        r->targets = tl_input(b->g, "targets", TL_I32, b->n_lead, b->lead);
        r->denom = tl_input(b->g, "denom", sum, 1, &one);
        if (o->segment) r->seen = tl_input(b->g, "seen", TL_I32, 1, &o->rows);
        return;
    }
    if (!encode) r->slot = tl_input(b->g, "slot", TL_I32, 1, &o->rows);
    if (!encode) r->select = tl_input(b->g, "select", TL_I32, 1, &o->outputs);
    for (int64_t l = 0; l < c->layers; l++)
        for (int k = 0; k < BUILD_STATES; k++) {
            char name[48];
            tl_desc d;
            const char *tail = build_state(c, o, l, k, &d);
            if (!tail || (encode && k < 5)) continue;
            snprintf(name, sizeof name, "blocks.%lld.%s", (long long)l, tail);
            r->state[l * BUILD_STATES + k] = tl_const(b->g, name, d.dtype, d.ndim, d.dim);
        }
}

/* Tokens of a grid into the order of its windows, or back. */
static tl_tensor *order(const builder *b, tl_tensor *x, bool back) {
    const model_config *c = b->c;
    const struct grid_order_attr a = {.rows = c->grid_rows,
                                      .cols = c->grid_cols,
                                      .high = config_grid_high(c),
                                      .wide = config_grid_wide(c),
                                      .inverse = back};
    return c->grid_rows ? tl_apply(b->g, OP_DEF(grid_order), &a, &x, 1, NULL, NULL, 0) : x;
}

/* Angles of n pairs; in a grid the first half of the frequencies by the line and again by the column. */
static tl_tensor *rotations(const builder *b, tl_tensor *freq, int64_t n, float mscale) {
    const model_config *c = b->c;
    if (!c->grid_rows) return tl_rope_table(b->g, b->r->pos, freq, mscale);
    const int64_t half[] = {n / 2, n - n / 2};
    tl_tensor *own[2], *part[2][2];
    tl_split(b->g, freq, 2, half, own);
    for (int32_t i = 0; i < 2; i++) {
        const struct rope_table_attr a = {.mscale = mscale, .cols = c->grid_cols, .column = i};
        tl_tensor *in[] = {b->r->pos, own[0]}, *t = tl_apply(b->g, OP_DEF(rope_table), &a, in, 2, NULL, NULL, 0);
        tl_split(b->g, t, 2, (int64_t[]){n / 2, n / 2}, part[i]);
    }
    tl_tensor *all[] = {part[0][0], part[1][0], part[0][1], part[1][1]};
    return order(b, tl_concat(b->g, all, 4), false);
}

static void rope_of(builder *b) {
    double mscale;
    int64_t dims[3], half[3];
    tl_tensor *freq[3] = {b->r->freq};
    const int n = build_rope_parts(b->c, dims), cosine = config_has(b->c, MIXER_COSFORMER), rope = n - cosine;
    for (int i = 0; i < n; i++) half[i] = dims[i] / 2;
    build_rope_freq(b->c, b->o->context, NULL, &mscale);
    if (n > 1) tl_split(b->g, b->r->freq, n, half, freq);
    if (rope > 0) b->rope = b->gated_rope = rotations(b, freq[0], half[0], (float)mscale);
    if (rope > 1) b->gated_rope = rotations(b, freq[1], half[1], (float)mscale);
    if (cosine) b->cos_table = tl_rope_table(b->g, b->r->pos, freq[rope], 1);
}

/* Sinusoids times one learned number (Hua et al. 2022), beside whatever positions there are. */
static tl_tensor *add_sinusoids(const builder *b, tl_tensor *x) {
    tl_tensor *z = tl_embedding(b->g, b->r->pos, b->r->sinusoid, 1, b->o->dtype, NULL);
    return tl_add(b->g, x, build_times(b, z, param(b, ROLE_SIN_SCALE, -1, 0), b->c->width));
}

tl_tensor *builder_embed(builder *b, tl_tensor *ids) {
    const model_config *c = b->c;
    build_result *r = b->r;
    tl_tensor *table = matrix(b, ROLE_EMBED, -1);
    tl_tensor *x = tl_embedding(b->g, ids, table, (float)c->embed_scale, b->o->dtype, NULL);
    if (c->positions == POS_LEARNED) x = tl_embedding(b->g, r->pos, matrix(b, ROLE_POS, -1), 1, b->o->dtype, x);
    if (c->positions == POS_SINUSOIDAL) x = tl_embedding(b->g, r->pos, r->sinusoid, 1, b->o->dtype, x);
    if (c->scaled_sin) x = add_sinusoids(b, x);
    if (b->o->mode == BUILD_TRAIN && c->drop_embed > 0) x = tl_dropout(b->g, x, (float)c->drop_embed);
    rope_of(b);
    return order(b, x, false);
}

static void head(builder *b, tl_tensor *x) {
    const model_config *c = b->c;
    build_result *r = b->r;
    tl_tensor *w = matrix(b, c->tied ? ROLE_EMBED : ROLE_HEAD, -1), *bias = param(b, ROLE_HEAD_BIAS, -1, 0);
    if (b->o->mode == BUILD_DECODE) x = tl_embedding(b->g, r->select, x, 1, TL_NONE, NULL);
    if (c->place != PLACE_POST) x = norm(b, x, -1, 0);
    r->hidden = x;
    if (b->o->mode == BUILD_DECODE || b->o->mode == BUILD_LOGITS) {
        tl_tensor *z = tl_linear(b->g, x, w, bias, b->o->dtype == TL_F64 ? TL_F64 : TL_F32);
        if (c->final_softcap > 0) z = tl_softcap(b->g, z, (float)c->final_softcap);
        r->logits = z;
        tl_output(b->g, z, "logits");
        return;
    }
    tl_loss_options lo = {.softcap = (float)c->final_softcap, .bias = bias};
    tl_loss_outputs out;
    r->loss = tl_loss_head(b->g, x, w, r->targets, r->denom, &lo, &out);
    tl_output(b->g, r->loss, "loss");
    build_balance(b);
    if (b->o->mode == BUILD_EVAL) {
        r->losses = out.losses;
        tl_output(b->g, out.losses, "losses");
    }
}

tl_status build_model(tl_graph *g, const tl_allocator *a, const model_config *c, const model_params *p,
                      const build_options *o, build_result *r, tl_error *e) {
    memset(r, 0, sizeof *r);
    TRY(config_check(c, e));
    if (o->mode == BUILD_BLOCKS && (o->first < 0 || o->blocks < 1 || o->first > c->layers - o->blocks))
        return error_set(e, TL_ARG, "blocks %lld to %lld of %lld", (long long)o->first,
                         (long long)(o->first + o->blocks - 1), (long long)c->layers);
    if (o->mode != BUILD_DECODE && c->positions == POS_LEARNED && o->context > c->context)
        return error_set(e, TL_CONFIG, "context %lld, but the model has learned positions for %lld only",
                         (long long)o->context, (long long)c->context);
    if (c->encoder && o->mode == BUILD_BLOCKS)
        return error_set(e, TL_UNSUPPORTED, "blocks beside an encoder read a source too: they are no function of x");
    if (o->mode == BUILD_ENCODE && (!c->encoder || o->rows > config_source(c)))
        return error_set(e, TL_ARG, "a source of %lld tokens, but the encoder reads %lld", (long long)o->rows,
                         (long long)config_source(c));
    if (o->mode == BUILD_DECODE) TRY(config_writer(c, e));
    if (c->grid_rows && (o->packed || o->context != c->grid_rows * c->grid_cols))
        return error_set(e, TL_CONFIG, "a row is a grid of %lld x %lld: one document, and no other context",
                         (long long)c->grid_rows, (long long)c->grid_cols);
    if ((config_has(c, MIXER_LINFORMER) || config_has(c, MIXER_NYSTROM)) && o->packed)
        return error_set(e, TL_UNSUPPORTED,
                         "%s reads a row as one text: documents cannot be packed into it (train without --packed)",
                         config_has(c, MIXER_LINFORMER) ? "linformer" : "nystromformer");
    if (config_has(c, MIXER_LINFORMER) && o->context > c->context)
        return error_set(e, TL_CONFIG, "context %lld, but linformer has projections for %lld tokens",
                         (long long)o->context, (long long)c->context);
    char text[160];
    const char *why = o->segment ? build_segment_refusal(c, o->segment, text, sizeof text) : NULL;
    if (!why && o->segment && o->packed) why = "documents that are packed, or examples, begin anew anywhere in a row";
    if (why) return error_set(e, TL_UNSUPPORTED, "by segments: %s", why);
    builder b = {.g = g, .c = c, .p = p, .o = o, .r = r};
    b.n_lead = o->mode == BUILD_DECODE ? 1 : 2;
    b.lead[0] = o->rows;
    b.lead[1] = o->mode == BUILD_DECODE ? 0 : o->segment ? o->segment : o->context;
    r->params = mem_new(a, p->n, sizeof *r->params);
    r->state = mem_new(a, (size_t)c->layers * BUILD_STATES, sizeof *r->state);
    if (o->mapped) r->pieces = mem_new(a, p->n * PARAM_PIECES, sizeof *r->pieces);
    if (o->lora) r->lora = mem_new(a, o->lora->params.n, sizeof *r->lora);
    if (o->segment) r->carry = mem_new(a, (size_t)c->layers * BUILD_CARRIES, sizeof *r->carry);
    if (!r->params || !r->state || (o->mapped && !r->pieces) || (o->lora && !r->lora) || (o->segment && !r->carry)) {
        build_fini(r, a);
        return error_set(e, TL_NOMEM, "no memory to build a model");
    }
    declare_params(&b);
    declare_lora(&b);
    declare_inputs(&b);
    bool part = o->mode == BUILD_BLOCKS;
    if (o->mode == BUILD_ENCODE) {
        build_encoder(&b);
        build_encode(&b);
        tl_status done = tl_graph_status(g, e);
        if (done != TL_OK) build_fini(r, a);
        return done;
    }
    if (c->encoder && o->mode != BUILD_DECODE) build_encoder(&b);
    int64_t first = part ? o->first : 0, end = part ? o->first + o->blocks : c->layers;
    if (part) rope_of(&b);
    tl_tensor *x = part ? r->x : builder_embed(&b, r->ids);
    for (int64_t l = first; l < end; l++) {
        tl_block_begin(g);
        x = block(&b, x, l);
        tl_block_end(g);
    }
    if (part) {
        r->y = x;
        tl_output(g, x, "y");
    } else if (!o->advance) {
        head(&b, order(&b, x, true));
    }
    tl_status s = tl_graph_status(g, e);
    if (s != TL_OK) build_fini(r, a);
    return s;
}

void build_fini(build_result *r, const tl_allocator *a) {
    mem_free(a, r->params);
    mem_free(a, r->pieces);
    mem_free(a, r->lora);
    mem_free(a, r->state);
    mem_free(a, r->carry);
    memset(r, 0, sizeof *r);
}
