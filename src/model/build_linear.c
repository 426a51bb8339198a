/* Mixers of ordinary blocks whose memory is one matrix a head (ops chunk_state, delta_rule): RetNet's retention (Sun et
 * al. 2023), gated linear attention with a number or a vector a token (Yang et al. 2023; Mamba-2's form), DeltaNet and
 * gated DeltaNet (Yang et al. 2024, 2025), and two approximations of softmax, Performer's (Choromanski et al. 2020) and
 * cosFormer's (Qin et al. 2022); and two that put few rows in the place of all keys, Linformer and Nystromformer. */
#include "model/builder.h"
#include "op/op.h"

#include <math.h>

enum { GLA_TAU = 16 };

int64_t build_state_features(const model_config *c, int64_t layer, int64_t *columns) {
    const model_mixer m = config_mixer(c, layer);
    const bool sums = m == MIXER_PERFORMER || m == MIXER_COSFORMER; /* divides by the sum of weights */
    *columns = c->head_dim + (sums ? 1 : 0);
    return sums ? 2 * c->head_dim : c->head_dim;
}

static tl_tensor *emit(const builder *b, const tl_op_def *op, const void *attr, tl_tensor *const *in, int n) {
    return tl_apply(b->g, op, attr, in, n, NULL, NULL, 0);
}

/* relu(x) cos, relu(x) sin of the angle pi i / (2 context): (N..,H,2 Dh) */
static tl_tensor *cos_features(const builder *b, tl_tensor *x) {
    tl_tensor *r = tl_act(b->g, x, TL_ACT_RELU), *both[] = {r, tl_scale(b->g, r, 0)};
    return tl_rope(b->g, tl_concat(b->g, both, 2), b->cos_table, false);
}

/* exp(w x - |x|^2 / 2) / sqrt(m) of x / Dh^(1/4), w fixed and orthogonal: (N..,H,m) */
static tl_tensor *random_features(const builder *b, tl_tensor *x, int64_t layer) {
    const int64_t d = b->c->head_dim;
    const struct favor_attr none = {0};
    tl_tensor *w = builder_param(b, ROLE_FEATURES, layer);
    w = tl_reshape(b->g, w, 2, (int64_t[]){2 * d, d});
    if (b->o->dtype == TL_BF16) w = tl_cast(b->g, w, TL_BF16);
    x = tl_scale(b->g, x, (float)pow((double)d, -0.25));
    tl_tensor *in[] = {tl_linear(b->g, x, w, NULL, TL_NONE), x};
    return emit(b, OP_DEF(favor), &none, in, 2);
}

/* Logits of the decay of every head, or of every number of it. */
static tl_tensor *decay_of(const builder *b, tl_tensor *in, int64_t layer) {
    const model_config *c = b->c;
    const tl_dtype sum = b->o->dtype == TL_F64 ? TL_F64 : TL_F32;
    tl_tensor *g = tl_linear(b->g, in, builder_matrix(b, ROLE_MIX_DECAY, layer),
                             builder_param(b, ROLE_MIX_DECAY_BIAS, layer), sum);
    return config_mixer(c, layer) == MIXER_GLA ? builder_fold(b, g, c->heads, c->head_dim) : g;
}

/* What the segment before left, or NULL. */
static tl_tensor *sum_before(const builder *b, int64_t layer) {
    const build_options slots = {.slots = b->o->rows};
    tl_desc d;
    (void)build_state(b->c, &slots, layer, 0, &d);
    return build_carry_in(b, &d, "s", layer);
}

static tl_tensor *apply_state(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v, tl_tensor *g,
                              struct chunk_state_attr a, int64_t layer) {
    const build_result *r = b->r;
    if (b->o->mode != BUILD_DECODE) {
        tl_tensor *from = sum_before(b, layer);
        return build_carried(b, OP_DEF(chunk_state), &a, (tl_tensor *[]){q, k, v, g, r->doc, from}, 6, from);
    }
    struct chunk_state_step_attr step = {a};
    tl_tensor *in[] = {q, k, v, g, r->slot, r->pos}, *acc[TL_OP_OUTS] = {NULL, r->state[layer * BUILD_STATES]};
    return tl_apply(b->g, OP_DEF(chunk_state_step), &step, in, 6, acc, NULL, 0);
}

/* silu(x) by heads, times sqrt(Dh) over its length */
static tl_tensor *unit(const builder *b, tl_tensor *x) {
    return tl_rmsnorm(b->g, tl_act(b->g, x, TL_ACT_SILU), NULL, 1e-6f, 0);
}

/* Keys and queries have length 1, so that b = sigmoid(x Wb) in (0, 1) is the part of an old value that is replaced.
 * They are not rotated: a key that comes again must be the key that it was. */
static tl_tensor *delta(const builder *b, tl_tensor *in, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t layer) {
    const build_result *r = b->r;
    const float length = (float)(1 / sqrt((double)b->c->head_dim));
    const bool fades = config_mixer(b->c, layer) == MIXER_GATED_DELTANET;
    struct delta_rule_attr a = {.scale = length, .tau = fades ? GLA_TAU : 0};
    tl_tensor *g = fades ? decay_of(b, in, layer) : NULL, *beta;
    beta = tl_linear(b->g, in, builder_matrix(b, ROLE_MIX_BETA, layer), NULL, b->o->dtype == TL_F64 ? TL_F64 : TL_F32);
    beta = tl_act(b->g, beta, TL_ACT_SIGMOID);
    q = unit(b, q), k = tl_scale(b->g, unit(b, k), length);
    if (b->o->mode != BUILD_DECODE) {
        tl_tensor *from = sum_before(b, layer);
        return build_carried(b, OP_DEF(delta_rule), &a, (tl_tensor *[]){q, k, v, g, r->doc, from, beta}, 7, from);
    }
    struct delta_rule_step_attr step = {a};
    tl_tensor *to[] = {q, k, v, g, r->slot, r->pos, beta}, *acc[TL_OP_OUTS] = {NULL, r->state[layer * BUILD_STATES]};
    return tl_apply(b->g, OP_DEF(delta_rule_step), &step, to, 7, acc, NULL, 0);
}

/* o by heads, normed, times silu(x Wg): (N..,H Dh) */
static tl_tensor *gate_out(const builder *b, tl_tensor *in, tl_tensor *o, int64_t layer) {
    const model_config *c = b->c;
    o = builder_flat(b, tl_rmsnorm(b->g, o, NULL, (float)c->norm_eps, 0), c->heads * c->head_dim);
    return tl_glu(b->g, tl_linear(b->g, in, builder_matrix(b, ROLE_MIX_GATE, layer), NULL, TL_NONE), o, TL_ACT_SILU);
}

tl_tensor *build_state_mixer(const builder *b, tl_tensor *in, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t layer) {
    const model_config *c = b->c;
    const model_mixer m = config_mixer(c, layer);
    const int64_t d = c->head_dim, width = c->heads * d;
    struct chunk_state_attr a = {.causal = builder_causal(b)};
    if (m == MIXER_PERFORMER || m == MIXER_COSFORMER) {
        const struct row_divide_attr eps = {1e-6f};
        const bool cosine = m == MIXER_COSFORMER;
        q = cosine ? cos_features(b, q) : random_features(b, q, layer);
        k = cosine ? cos_features(b, k) : random_features(b, k, layer);
        a.ones = 1;
        tl_tensor *part[2], *o = apply_state(b, q, k, v, NULL, a, layer);
        tl_split(b->g, o, 2, (int64_t[]){d, 1}, part);
        return builder_flat(b, emit(b, OP_DEF(row_divide), &eps, part, 2), width);
    }
    if (m == MIXER_DELTANET || m == MIXER_GATED_DELTANET) return gate_out(b, in, delta(b, in, q, k, v, layer), layer);
    if (b->rope) {
        q = tl_rope(b->g, q, b->rope, c->rope_interleaved);
        k = tl_rope(b->g, k, b->rope, c->rope_interleaved);
    }
    a.scale = (float)(1 / sqrt((double)d));
    if (m != MIXER_RETENTION) a.tau = GLA_TAU;
    tl_tensor *g = m == MIXER_RETENTION ? b->r->slopes : decay_of(b, in, layer);
    return gate_out(b, in, apply_state(b, q, k, v, g, a, layer), layer);
}

/* Keys and values of all tokens through matrices along the text (Wang et al. 2020), then softmax over their rows. */
tl_tensor *build_linformer(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t layer) {
    const struct time_mix_attr whole = {0};
    const int64_t rows = b->c->landmarks, P = b->c->context;
    tl_tensor *w = builder_matrix(b, ROLE_MIX_TIME, layer), *part[2];
    w = tl_reshape(b->g, w, 1, (int64_t[]){2 * rows * P});
    tl_split(b->g, w, 2, (int64_t[]){rows * P, rows * P}, part);
    for (int i = 0; i < 2; i++) part[i] = tl_reshape(b->g, part[i], 2, (int64_t[]){rows, P});
    k = emit(b, OP_DEF(time_mix), &whole, (tl_tensor *[]){part[0], k}, 2);
    v = emit(b, OP_DEF(time_mix), &whole, (tl_tensor *[]){part[1], v}, 2);
    tl_attention_options ao = {.scale = (float)b->c->attn_scale, .softcap = (float)b->c->attn_softcap};
    return tl_attention(b->g, q, k, v, &ao, NULL);
}

/* ---- Nystromformer ------------------------------------------------------------------------------------------ */

static tl_tensor *means(const builder *b, tl_tensor *x, int64_t rows) {
    const struct segment_mean_attr a = {.rows = rows};
    return emit(b, OP_DEF(segment_mean), &a, &x, 1);
}

/* alpha x op(y) + beta more + diag I */
static tl_tensor *product(const builder *b, tl_tensor *x, tl_tensor *y, struct matmul_attr a, tl_tensor *more) {
    return emit(b, OP_DEF(matmul), &a, (tl_tensor *[]){x, y, more}, 3);
}

/* The Moore-Penrose inverse of A by an iteration of the third order (Razavi et al. 2014), Z <- Z (13 I - P (15 I - P
 * (7 I - P))) / 4 with P = A Z, here with W = 15 I - 7 P + P P. */
static tl_tensor *inverse(const builder *b, tl_tensor *A) {
    enum { TIMES = 6 };
    const struct inverse_start_attr none = {0};
    tl_tensor *Z = emit(b, OP_DEF(inverse_start), &none, &A, 1);
    for (int i = 0; i < TIMES; i++) {
        tl_tensor *P = product(b, A, Z, (struct matmul_attr){0}, NULL);
        tl_tensor *W = product(b, P, P, (struct matmul_attr){.beta = -7, .diag = 15}, P);
        tl_tensor *X
        = product(b, P, W, (struct matmul_attr){.alpha = -1, .diag = 13}, NULL);
        Z = product(b, Z, X, (struct matmul_attr){.alpha = 0.25f}, NULL);
    }
    return Z;
}

/* softmax(q k^T) through the means of segments (Xiong et al. 2021): softmax(q K'^T) softmax(Q' K'^T)^+ softmax(Q' k^T)
 * v. The small matrix and its inverse are in f32 whatever the data are: bf16 would not converge. */
tl_tensor *build_nystrom(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v) {
    const int64_t rows = b->c->landmarks < b->lead[1] ? b->c->landmarks : b->lead[1];
    const double scale = b->c->attn_scale > 0 ? b->c->attn_scale : 1 / sqrt((double)b->c->head_dim);
    const tl_attention_options ao = {.scale = (float)scale};
    tl_tensor *Q = means(b, q, rows), *K = means(b, k, rows);
    tl_tensor *far = tl_attention(b->g, Q, k, v, &ao, NULL);
    const bool half = b->o->dtype == TL_BF16;
    tl_tensor *small[] = {Q, K, far};
    for (int i = 0; i < 3 && half; i++) small[i] = tl_cast(b->g, small[i], TL_F32);
    tl_tensor *A = product(b, small[0], small[1], (struct matmul_attr){.alpha = (float)scale, .tb = 1}, NULL);
    tl_tensor *Z = inverse(b, tl_softmax(b->g, A));
    tl_tensor *values = product(b, Z, small[2], (struct matmul_attr){0}, NULL);
    return tl_attention(b->g, q, K, half ? tl_cast(b->g, values, TL_BF16) : values, &ao, NULL);
}
