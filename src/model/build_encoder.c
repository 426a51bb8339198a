/* Encoder and decoder: an encoder of blocks that see all of their source, and beside every layer of the decoder one
 * that looks at what it made of it: attention of its own in ordinary blocks (Vaswani et al. 2017), in gated ones a unit
 * whose gate and queries come from the target, keys and values from the source. With H the encoder's result: attention:
 * x + attend(norm(x) Wq, H Wk, H Wv) Wo unit:      [u | q] = act(norm(x) Wq), [k | v] = act(H Wkv), x + (u (.) A v) Wo,
 * A = f(q k^T / sqrt(s)) / N without positions, scales and offsets. N counts the source. */
#include "model/builder.h"
#include "op/op.h"

void build_source_inputs(const builder *b) {
    const build_options *o = b->o;
    const bool decode = o->mode == BUILD_DECODE, encode = o->mode == BUILD_ENCODE;
    const int64_t source[] = {encode ? 1 : o->rows, encode ? o->rows : config_source(b->c)};
    const int64_t cross[] = {o->rows, o->context, 2};
    build_result *r = b->r;
    if (!b->c->encoder) return;
    if (!encode) r->cross = tl_input(b->g, "cross", TL_I32, decode ? 1 : 3, cross);
    if (decode) return;
    r->source = tl_input(b->g, "source", TL_I32, 2, source);
    r->source_pos = tl_input(b->g, "source_pos", TL_I32, 2, source);
    r->source_doc = tl_input(b->g, "source_doc", TL_I32, 2, source);
}

void build_encoder(builder *b) {
    const model_config *c = b->c;
    build_result inside = *b->r;
    builder in = *b;
    const tl_desc *d = tl_tensor_desc(b->r->source);
    if (!d) return; /* the graph has failed */
    inside.pos = b->r->source_pos, inside.doc = b->r->source_doc, inside.span = NULL;
    in.r = &inside, in.encoder = true;
    in.lead[0] = d->dim[0], in.lead[1] = d->dim[1], in.n_lead = 2;
    tl_tensor *x = builder_embed(&in, b->r->source);
    for (int64_t l = 0; l < c->encoder; l++) {
        tl_block_begin(b->g);
        x = builder_block(&in, x, c->layers + l);
        tl_block_end(b->g);
    }
    b->memory = c->place == PLACE_POST ? x : builder_norm(b, x, -1, 1);
}

/* Keys and values that layer l reads of the source, (N.., Hk, Dh) each, or of a unit (N.., s) and (N.., e). */
static void source_parts(const builder *b, int64_t l, tl_tensor *kv[2]) {
    const model_config *c = b->c;
    const bool unit = config_gated(c, l);
    const int64_t Hk = c->kv_heads, w = Hk * c->head_dim;
    const int64_t width[] = {unit ? c->shared : w, unit ? c->expand : w};
    tl_tensor *y = builder_linear(b, b->memory, ROLE_CROSS_KV, ROLE_CROSS_KV_BIAS, l);
    if (unit) y = tl_act(b->g, y, (tl_act_kind)c->act);
    tl_split(b->g, y, 2, width, kv);
    const tl_desc *d = tl_tensor_desc(b->memory);
    for (int i = 0; i < 2 && !unit && d; i++)
        kv[i] = tl_reshape(b->g, kv[i], 4, (int64_t[]){d->dim[0], d->dim[1], Hk, c->head_dim});
}

static tl_tensor *cross_unit(const builder *b, tl_tensor *in, int64_t l) {
    const model_config *c = b->c;
    build_result *r = b->r;
    tl_tensor *part[2], *kv[2], *m;
    tl_tensor *theta = build_theta(b, ROLE_CROSS_THETA, l), *sink = builder_param(b, ROLE_CROSS_SINK, l);
    tl_tensor *y = builder_linear(b, in, ROLE_CROSS_Q, ROLE_CROSS_Q_BIAS, l);
    tl_split(b->g, tl_act(b->g, y, (tl_act_kind)c->act), 2, (int64_t[]){c->expand, c->shared}, part);
    if (b->o->mode == BUILD_DECODE) {
        struct gau_attention_kv_attr a = {.f = build_gate(b, l)};
        tl_tensor **state = &r->state[l * BUILD_STATES];
        tl_tensor *at[] = {part[1], state[5], state[6], r->slot, r->pos, NULL, theta, sink, r->cross};
        m = tl_apply(b->g, OP_DEF(gau_attention_kv), &a, at, 9, NULL, NULL, 0);
    } else {
        struct gau_attention_attr a = {.f = build_gate(b, l)};
        a.f.causal = 0;
        source_parts(b, l, kv);
        tl_tensor *at[] = {part[1], kv[0], kv[1], NULL, NULL, theta, sink, r->cross};
        m = tl_apply(b->g, OP_DEF(gau_attention), &a, at, 8, NULL, NULL, 0);
    }
    return tl_mul(b->g, part[0], m);
}

static tl_tensor *cross_attention(const builder *b, tl_tensor *in, int64_t l) {
    const model_config *c = b->c;
    build_result *r = b->r;
    const tl_attention_options ao = {.scale = (float)c->attn_scale,
                                     .softcap = (float)c->attn_softcap,
                                     .drop = b->o->mode == BUILD_TRAIN ? (float)c->drop_attn : 0,
                                     .sinks = builder_param(b, ROLE_CROSS_SINK, l),
                                     .span = r->cross};
    tl_tensor *q = builder_fold(b, builder_linear(b, in, ROLE_CROSS_Q, ROLE_CROSS_Q_BIAS, l), c->heads, c->head_dim);
    tl_tensor *kv[2], **state = &r->state[l * BUILD_STATES], *o;
    if (b->o->mode == BUILD_DECODE) {
        o = tl_attention_kv(b->g, q, state[5], state[6], r->slot, r->pos, &ao);
    } else {
        source_parts(b, l, kv);
        o = tl_attention(b->g, q, kv[0], kv[1], &ao, NULL);
    }
    return builder_flat(b, o, c->heads * c->head_dim);
}

tl_tensor *build_cross(const builder *b, tl_tensor *x, int64_t l) {
    const model_config *c = b->c;
    const bool unit = config_gated(c, l), post = c->place == PLACE_POST;
    const int32_t nth = unit ? 1 : 2; /* the last norm of its layer */
    tl_tensor *in = post ? x : builder_norm(b, x, l, nth);
    tl_tensor *h = unit ? cross_unit(b, in, l) : cross_attention(b, in, l);
    tl_tensor *y = builder_linear(b, h, ROLE_CROSS_OUT, ROLE_CROSS_OUT_BIAS, l);
    if (b->o->mode == BUILD_TRAIN && c->drop_resid > 0) y = tl_dropout(b->g, y, (float)c->drop_resid);
    x = tl_add(b->g, x, y);
    return post ? builder_norm(b, x, l, nth) : x;
}

void build_encode(const builder *b) {
    const model_config *c = b->c;
    const int64_t n = b->o->rows, Hk = c->kv_heads;
    tl_tensor *pos = tl_reshape(b->g, b->r->source_pos, 1, &n);
    for (int64_t l = 0; l < c->layers; l++) {
        const bool unit = config_gated(c, l);
        const int64_t heads = unit ? 1 : Hk, width[] = {unit ? c->shared : c->head_dim, unit ? c->expand : c->head_dim};
        tl_tensor *kv[2];
        source_parts(b, l, kv);
        for (int i = 0; i < 2; i++) {
            tl_tensor *rows = tl_reshape(b->g, kv[i], 3, (int64_t[]){n, heads, width[i]});
            tl_output(b->g, tl_kv_write(b->g, rows, b->r->slot, pos, b->r->state[l * BUILD_STATES + 5 + i]), NULL);
        }
    }
}
