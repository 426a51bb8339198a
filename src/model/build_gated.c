/* Layers of gated attention units (gau, flash-quad) and of mixed chunks (flash): Hua et al. 2022. One layer is
 *     [u | v | z] = act(norm(x) W + b),  heads = RoPE(z gamma + beta),  y = x + (u (.) mix(heads, v)) Wo + bo */
#include "model/builder.h"
#include "op/op.h"

#include <math.h>
#include <string.h>

/* ---- state ------------------------------------------------------------------------------------------------ */

const char *build_state(const model_config *c, const build_options *o, int64_t layer, int k, tl_desc *d) {
    static const char *const chunk_names[] = {"m", "kq", "kl", "v"};
    const tl_dtype t = o->cache ? o->cache : TL_F32;
    (void)layer;
    if (k == 4) {
        *d = tl_desc_make(t, 3, (int64_t[]){o->slots, 2, c->width / 2});
        return c->token_shift ? "shift" : NULL;
    }
    if (c->mixer == MIXER_FLASH) {
        int64_t rows = k == 0 ? c->head_dim : c->chunk, cols = k == 0 || k == 3 ? c->mlp : c->head_dim;
        *d = tl_desc_make(k == 0 ? TL_F32 : t, 3, (int64_t[]){o->slots, rows, cols});
        return chunk_names[k];
    }
    int64_t width = c->mixer == MIXER_GAU && k == 1 ? c->mlp : c->head_dim;
    *d = tl_desc_make(t, 4, (int64_t[]){o->slots, o->context, c->kv_heads, width});
    return k == 0 ? "k" : k == 1 ? "v" : NULL;
}

bool build_endless(const model_config *c) {
    return c->mixer == MIXER_FLASH && (c->positions == POS_ROPE || c->positions == POS_NONE);
}

static size_t state_bytes(const model_config *c, int64_t context, tl_dtype cache) {
    build_options o = {.slots = 1, .context = context, .cache = cache};
    size_t sum = 0;
    for (int64_t l = 0; l < c->layers; l++)
        for (int k = 0; k < BUILD_STATES; k++) {
            tl_desc d;
            if (build_state(c, &o, l, k, &d)) sum += (size_t)tl_desc_count(&d) * tl_dtype_bytes(d.dtype);
        }
    return sum;
}

size_t build_state_per_token(const model_config *c, tl_dtype cache) {
    return state_bytes(c, 2, cache) - state_bytes(c, 1, cache);
}

size_t build_state_fixed(const model_config *c, tl_dtype cache) {
    return state_bytes(c, 1, cache) - build_state_per_token(c, cache);
}

/* A chunk goes into M when the next one begins, so the last chunk's tokens can be taken back; the token shift knows one
 * token before the last. */
int64_t build_rewind(const model_config *c, int64_t done, int64_t n) {
    if (n >= done) return done;
    int64_t least = 0;
    if (c->mixer == MIXER_FLASH) least = (done - 1) / c->chunk * c->chunk;
    if (c->token_shift && least < done - 1) least = done - 1;
    return n >= least ? n : 0;
}

/* ---- layers ------------------------------------------------------------------------------------------------ */

static struct gate_attr gate_of(const model_config *c) {
    struct gate_attr a = {.kind = c->score, .count = c->score_count, .causal = 1, .kappa = c->score_kappa};
    const double length = c->score_fixed > 0 ? c->score_fixed : (double)c->context;
    if (c->score >= GATE_SOFTMAX) a.count = GATE_COUNT_NONE;
    if (a.count == GATE_COUNT_FIXED) a.fixed = (float)length;
    if (c->score_scale == SCALE_NS) return a;
    a.count = GATE_COUNT_NONE;
    a.alpha = (float)(1 / (c->mixer == MIXER_FLASH ? (double)c->chunk : length));
    if (c->score_scale == SCALE_LUCID_FLASH) a.alpha = (float)(1 / (double)(c->chunk ? c->chunk : 256));
    if (c->score_scale == SCALE_LUCID_GAU) a.bias_scale = a.alpha;
    return a;
}

static tl_tensor *shifted(const builder *b, tl_tensor *x, int64_t l) {
    if (!b->c->token_shift) return x;
    if (b->o->mode != BUILD_DECODE) {
        struct shift_attr a = {.channels = b->c->width / 2};
        return tl_apply(b->g, OP_DEF(shift), &a, (tl_tensor *[]){x, b->r->doc}, 2, NULL, NULL, 0);
    }
    struct shift_step_attr a = {0};
    tl_tensor *acc[TL_OP_OUTS] = {NULL, b->r->state[l * BUILD_STATES + 4]};
    return tl_apply(b->g, OP_DEF(shift_step), &a, (tl_tensor *[]){x, b->r->slot, b->r->pos}, 3, acc, NULL, 0);
}

static tl_tensor *mix_chunks(const builder *b, tl_tensor *const *head, tl_tensor *v, int64_t l) {
    const model_config *c = b->c;
    const build_result *r = b->r;
    struct mixed_chunk_attr a = {.f = gate_of(c), .chunk = c->chunk, .norm = c->chunk_norm};
    tl_tensor *bias = builder_param(b, ROLE_REL_BIAS, l);
    if (b->o->mode != BUILD_DECODE) {
        tl_tensor *in[] = {head[0], head[1], head[2], head[3], v, r->doc, bias};
        return tl_apply(b->g, OP_DEF(mixed_chunk), &a, in, 7, NULL, NULL, 0);
    }
    struct chunk_step_attr step = {.f = a};
    tl_tensor *in[] = {head[0], head[1], head[2], head[3], v, r->slot, r->pos, bias}, *acc[TL_OP_OUTS] = {NULL};
    for (int k = 0; k < 4; k++) acc[1 + k] = r->state[l * BUILD_STATES + k];
    return tl_apply(b->g, OP_DEF(chunk_step), &step, in, 8, acc, NULL, 0);
}

static tl_tensor *mix_unit(const builder *b, tl_tensor *const *head, tl_tensor *v, int64_t l) {
    const model_config *c = b->c;
    const build_result *r = b->r;
    tl_tensor *bias = builder_param(b, ROLE_REL_BIAS, l);
    if (b->o->mode != BUILD_DECODE) {
        struct gau_attention_attr a = {.f = gate_of(c)};
        tl_tensor *in[] = {head[0], head[1], v, r->doc, bias};
        return tl_apply(b->g, OP_DEF(gau_attention), &a, in, 5, NULL, NULL, 0);
    }
    struct gau_attention_kv_attr a = {.f = gate_of(c)};
    tl_tensor **state = &r->state[l * BUILD_STATES];
    tl_tensor *kc = tl_kv_write(b->g, builder_fold(b, head[1], 1, c->head_dim), r->slot, r->pos, state[0]);
    tl_tensor *vc = tl_kv_write(b->g, builder_fold(b, v, 1, c->mlp), r->slot, r->pos, state[1]);
    tl_tensor *in[] = {head[0], kc, vc, r->slot, r->pos, bias};
    return tl_apply(b->g, OP_DEF(gau_attention_kv), &a, in, 6, NULL, NULL, 0);
}

tl_tensor *build_gated(const builder *b, tl_tensor *x, int64_t l) {
    const model_config *c = b->c;
    const int64_t e = c->mlp, s = c->head_dim, heads = c->mixer == MIXER_FLASH ? 4 : 2;
    const bool post = c->place == PLACE_POST;
    tl_tensor *part[3], *head[4], *in = shifted(b, post ? x : builder_norm(b, x, l, 0), l);
    tl_tensor *h =
        tl_linear(b->g, in, builder_matrix(b, ROLE_GAU_IN, l), builder_param(b, ROLE_GAU_IN_BIAS, l), TL_NONE);
    tl_split(b->g, tl_act(b->g, h, (tl_act_kind)c->act), 3, (int64_t[]){e, e, s}, part);
    struct offset_scale_attr none = {0};
    tl_tensor *z[] = {part[2], builder_param(b, ROLE_GAMMA, l), builder_param(b, ROLE_BETA, l)};
    tl_tensor *all = tl_apply(b->g, OP_DEF(offset_scale), &none, z, 3, NULL, NULL, 0);
    if (b->rope)
        all = builder_flat(b, tl_rope(b->g, builder_fold(b, all, heads, s), b->rope, c->rope_interleaved), heads * s);
    tl_split(b->g, all, (int)heads, (int64_t[]){s, s, s, s}, head);
    tl_tensor *m = c->mixer == MIXER_FLASH ? mix_chunks(b, head, part[1], l) : mix_unit(b, head, part[1], l);
    x = builder_join(b, x, tl_mul(b->g, part[0], m), l);
    return post ? builder_norm(b, x, l, 0) : x;
}
