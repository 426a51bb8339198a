/* Layers of gated attention units (gau, flash-quad) and of mixed chunks (flash): Hua et al. 2022. One layer is
 *     [u | v | z] = act(norm(x) W + b),  heads = RoPE(z gamma + beta),  y = x + (u (.) mix(heads, v)) Wo + bo */
#include "model/builder.h"
#include "op/op.h"

#include <math.h>
#include <string.h>

/* ---- state ------------------------------------------------------------------------------------------------ */

/* What a layer of chunks keeps: heads, their widths. */
static void chunk_widths(const model_config *c, int64_t layer, int64_t *heads, int64_t *s, int64_t *e) {
    const bool gated = config_gated(c, layer);
    *heads = gated ? config_gate_heads(c, layer) : c->heads;
    *s = gated ? c->shared : c->head_dim;
    *e = gated ? c->expand / *heads : c->head_dim;
}

const char *build_state(const model_config *c, const build_options *o, int64_t layer, int k, tl_desc *d) {
    static const char *const chunk_names[] = {"m", "kq", "kl", "v", "outer_m", "outer_kq", "outer_kl", "outer_v"};
    const tl_dtype t = o->cache ? o->cache : TL_F32;
    const model_mixer mixer = config_mixer(c, layer);
    int64_t heads, s, e;
    chunk_widths(c, layer, &heads, &s, &e);
    if (k == 5 || k == 6) {
        const bool unit = config_gated(c, layer);
        *d = tl_desc_make(t, 4,
                          (int64_t[]){o->slots, config_source(c), unit ? 1 : c->kv_heads,
                                      !unit    ? c->head_dim
                                      : k == 5 ? c->shared
                                               : c->expand});
        return !c->encoder ? NULL : k == 5 ? "source_k" : "source_v";
    }
    if (k == 4) {
        *d = tl_desc_make(t, 3, (int64_t[]){o->slots, 2, c->width / 2});
        return c->token_shift && config_gated(c, layer) ? "shift" : NULL;
    }
    if (k > 10) {
        *d = tl_desc_make(t, 4, (int64_t[]){o->slots, o->context, heads, k == 11 ? s : e});
        return !c->chunk_landmarks || (mixer != MIXER_FLASH && mixer != MIXER_CHUNK) ? NULL
               : k == 11                                                             ? "far_k"
                                                                                     : "far_v";
    }
    if (k > 6 && (!c->chunk_outer || (mixer != MIXER_FLASH && mixer != MIXER_CHUNK))) return NULL;
    if (mixer == MIXER_FLASH || mixer == MIXER_CHUNK) {
        const bool outer = k > 6;
        if (outer) k -= 7;
        const int64_t wide = k == 3 ? e : s;
        const int ndim = heads > 1 ? 4 : 3; /* one head: without its dimension */
        int64_t m[] = {o->slots, heads, s, e}, rows[] = {o->slots, outer ? c->chunk_outer : c->chunk, heads, wide};
        if (ndim == 3) m[1] = s, m[2] = e, rows[2] = wide;
        *d = tl_desc_make(k == 0 ? TL_F32 : t, ndim, k == 0 ? m : rows);
        return chunk_names[outer ? k + 4 : k];
    }
    if (config_stateful(c, layer)) {
        s = build_state_features(c, layer, &e);
        *d = tl_desc_make(TL_F32, 4, (int64_t[]){o->slots, c->heads, s, e});
        return k == 0 ? "s" : NULL;
    }
    const bool gau = mixer == MIXER_GAU;
    *d = tl_desc_make(t, 4,
                      (int64_t[]){o->slots, o->context, gau ? heads : c->kv_heads,
                                  !gau     ? c->head_dim
                                  : k == 1 ? e
                                           : s});
    return k == 0 ? "k" : k == 1 ? "v" : NULL;
}

bool build_endless(const model_config *c) {
    if (c->chunk_landmarks) return false;
    for (int64_t l = 0; l < c->layers; l++)
        if (config_mixer(c, l) != MIXER_FLASH && config_mixer(c, l) != MIXER_CHUNK && !config_stateful(c, l))
            return false;
    return (c->positions == POS_ROPE || c->positions == POS_NONE) && !c->scaled_sin;
}

static size_t state_bytes(const model_config *c, int64_t context, tl_dtype cache) {
    build_options o = {.slots = 1, .context = context, .cache = cache};
    size_t sum = 0;
    for (int64_t l = 0; l < c->layers; l++)
        for (int k = 0; k < BUILD_STATES; k++) {
            tl_desc d;
            if (build_state(c, &o, l, k, &d))
                sum += (size_t)(tl_desc_count(&d) / tl_dtype_block(d.dtype)) * tl_dtype_bytes(d.dtype);
        }
    return sum;
}

size_t build_state_per_token(const model_config *c, tl_dtype cache) {
    return state_bytes(c, 2, cache) - state_bytes(c, 1, cache);
}

size_t build_state_fixed(const model_config *c, tl_dtype cache) {
    return state_bytes(c, 1, cache) - build_state_per_token(c, cache);
}

/* A chunk goes into M when the next one begins, so the last chunk's tokens but the first can be taken back; the token
 * shift knows one token before the last. */
int64_t build_rewind(const model_config *c, int64_t done, int64_t n) {
    if (n >= done) return done;
    int64_t least = 0;
    if (config_has(c, MIXER_FLASH) || config_has(c, MIXER_CHUNK)) {
        const int64_t chunk = c->chunk_overlap ? c->chunk / 2 : c->chunk; /* at its beginning one goes into M */
        least = (done - 1) / chunk * chunk + 1;
    }
    for (int64_t l = 0; l < c->layers; l++)
        if (config_stateful(c, l)) least = done; /* a sum that no token can be taken from */
    if (c->token_shift && config_has_gated(c) && least < done - 1) least = done - 1;
    return n >= least ? n : 0;
}

/* ---- layers ------------------------------------------------------------------------------------------------ */

struct gate_attr build_gate(const builder *b, int64_t l) {
    const model_config *c = b->c;
    struct gate_attr a = {
        .kind = c->score, .count = c->score_count, .causal = builder_causal(b), .kappa = c->score_kappa};
    const double length = c->score_fixed > 0 ? c->score_fixed : (double)c->context;
    if (c->score >= GATE_SOFTMAX) a.count = GATE_COUNT_NONE;
    if (a.count == GATE_COUNT_FIXED) a.fixed = (float)length;
    if (c->score_scale == SCALE_NS) return a;
    a.count = GATE_COUNT_NONE;
    a.alpha = (float)(1 / (config_mixer(c, l) == MIXER_GAU ? length : (double)c->chunk));
    if (c->score_scale == SCALE_LUCID_FLASH) a.alpha = (float)(1 / (double)(c->chunk ? c->chunk : 256));
    if (c->score_scale == SCALE_LUCID_GAU) a.bias_scale = a.alpha;
    return a;
}

static tl_tensor *shifted(const builder *b, tl_tensor *x, int64_t l) {
    if (!b->c->token_shift) return x;
    if (b->o->mode != BUILD_DECODE) {
        struct shift_attr a = {.channels = b->c->width / 2};
        const tl_desc row = tl_desc_make(b->o->dtype, 2, (int64_t[]){b->o->rows, a.channels});
        tl_tensor *from = build_carry_in(b, &row, "shift", l);
        return build_carried(b, OP_DEF(shift), &a, (tl_tensor *[]){x, b->r->doc, from}, 3, from);
    }
    struct shift_step_attr a = {0};
    tl_tensor *acc[TL_OP_OUTS] = {NULL, b->r->state[l * BUILD_STATES + 4]};
    return tl_apply(b->g, OP_DEF(shift_step), &a, (tl_tensor *[]){x, b->r->slot, b->r->pos}, 3, acc, NULL, 0);
}

/* Of segments that begin with a chunk, a sum that begins anew with a period has nothing to hand on. */
static tl_tensor *chunks_before(const builder *b, const struct mixed_chunk_attr *a, int64_t l) {
    const build_options slots = {.slots = b->o->rows};
    tl_desc d;
    if (a->period || a->parts == CHUNK_LOCAL) return NULL;
    (void)build_state(b->c, &slots, l, 0, &d);
    return build_carry_in(b, &d, "m", l);
}

/* Mixed chunks of heads qq, kq, ql, kl; k: the first of the four states that decoding keeps. */
static tl_tensor *apply_chunks(const builder *b, const struct mixed_chunk_attr *a, tl_tensor *const head[4],
                               tl_tensor *v, tl_tensor *bias, tl_tensor *theta, int64_t l, int k0) {
    const build_result *r = b->r;
    tl_tensor **state = &b->r->state[l * BUILD_STATES + k0];
    if (b->o->mode != BUILD_DECODE) {
        tl_tensor *from = chunks_before(b, a, l);
        tl_tensor *in[] = {head[0], head[1], head[2], head[3], v, r->doc, bias, theta, from, from ? r->seen : NULL};
        return build_carried(b, OP_DEF(mixed_chunk), a, in, 10, from);
    }
    struct chunk_step_attr step = {.f = *a};
    tl_tensor *in[] = {head[0], head[1], head[2], head[3], v, r->slot, r->pos, bias, theta};
    tl_tensor *acc[TL_OP_OUTS] = {NULL};
    for (int k = 0; k < 4; k++) acc[1 + k] = state[k];
    return tl_apply(b->g, OP_DEF(chunk_step), &step, in, 9, acc, NULL, 0);
}

/* Far chunks exactly, by the heads and weights of the quadratic part; state: the two caches. */
static tl_tensor *reach_chunks(const builder *b, const struct mixed_chunk_attr *m, tl_tensor *q, tl_tensor *k,
                               tl_tensor *v, tl_tensor *theta, tl_tensor **state) {
    const build_result *r = b->r;
    const int64_t far = b->c->chunk_landmarks;
    const struct chunk_reach_attr a = {.f = m->f, .chunk = m->chunk, .skip = m->reach, .top = (int32_t)far};
    if (b->o->mode != BUILD_DECODE)
        return tl_apply(b->g, OP_DEF(chunk_reach), &a, (tl_tensor *[]){q, k, v, r->doc, theta}, 5, NULL, NULL, 0);
    const struct chunk_reach_kv_attr step = {a};
    tl_tensor *cache[2], *row[] = {k, v};
    for (int i = 0; i < 2; i++) { /* with heads they are folded already */
        const tl_desc *d = tl_tensor_desc(row[i]);
        if (d && d->ndim == 2) row[i] = builder_fold(b, row[i], 1, d->dim[1]);
        cache[i] = tl_kv_write(b->g, row[i], r->slot, r->pos, state[i]);
    }
    tl_tensor *in[] = {q, cache[0], cache[1], r->slot, r->pos, theta};
    return tl_apply(b->g, OP_DEF(chunk_reach_kv), &step, in, 6, NULL, NULL, 0);
}

/* head: qq, kq, ql, kl; of one half alone the first two are its own; two more, linear, of a level above. */
static tl_tensor *mix_chunks(const builder *b, tl_tensor *const *head, tl_tensor *v, int64_t l) {
    const model_config *c = b->c;
    struct mixed_chunk_attr a = {.f = build_gate(b, l),
                                 .chunk = c->chunk_overlap ? c->chunk / 2 : c->chunk,
                                 .norm = c->chunk_norm,
                                 .parts = c->chunk_parts,
                                 .reach = c->chunk_overlap,
                                 .period = c->chunk_outer};
    if (c->grid_rows)
        a.rows = c->grid_rows, a.cols = c->grid_cols, a.high = config_grid_high(c), a.wide = config_grid_wide(c);
    tl_tensor *const *linear = c->chunk_parts ? head : head + 2;
    tl_tensor *all[4] = {head[0], head[1], linear[0], linear[1]};
    tl_tensor *y = apply_chunks(b, &a, all, v, build_gate_bias(b, l), build_theta(b, ROLE_THETA, l), l, 0);
    if (c->chunk_landmarks)
        y = tl_add(b->g, y,
                   reach_chunks(b, &a, head[0], head[1], v, build_theta(b, ROLE_THETA, l),
                                &b->r->state[l * BUILD_STATES + 11]));
    if (!c->chunk_outer) return y;
    a.chunk = c->chunk_outer, a.parts = CHUNK_FAR, a.reach = 0, a.period = 0;
    tl_tensor *far[4] = {head[4], head[5], head[4], head[5]};
    return tl_add(b->g, y, apply_chunks(b, &a, far, v, NULL, NULL, l, 7));
}

static tl_tensor *mix_unit(const builder *b, tl_tensor *const *head, tl_tensor *v, int64_t l) {
    const model_config *c = b->c;
    const build_result *r = b->r;
    tl_tensor *bias = build_gate_bias(b, l), *theta = build_theta(b, ROLE_THETA, l),
              *sink = builder_param(b, ROLE_SINK, l);
    if (b->o->mode != BUILD_DECODE) {
        struct gau_attention_attr a = {.f = build_gate(b, l)};
        tl_tensor *in[] = {head[0], head[1], v, r->span ? NULL : r->doc, bias, theta, sink, r->span};
        return tl_apply(b->g, OP_DEF(gau_attention), &a, in, 8, NULL, NULL, 0);
    }
    struct gau_attention_kv_attr a = {.f = build_gate(b, l)};
    tl_tensor **state = &r->state[l * BUILD_STATES], *k = head[1];
    if (config_gate_heads(c, l) == 1) { /* with heads they are folded already */
        k = builder_fold(b, k, 1, c->shared);
        v = builder_fold(b, v, 1, c->expand);
    }
    tl_tensor *kc = tl_kv_write(b->g, k, r->slot, r->pos, state[0]);
    tl_tensor *vc = tl_kv_write(b->g, v, r->slot, r->pos, state[1]);
    tl_tensor *in[] = {head[0], kc, vc, r->slot, r->pos, bias, theta, sink, r->span};
    return tl_apply(b->g, OP_DEF(gau_attention_kv), &a, in, 9, NULL, NULL, 0);
}

/* z (N.., w) as n scaled and shifted copies, rotated by heads of width s: (N.., n w) */
static tl_tensor *scaled_heads(const builder *b, tl_tensor *z, tl_tensor *gamma, tl_tensor *beta, int64_t n, int64_t w,
                               int64_t s, tl_tensor *rope) {
    struct offset_scale_attr none = {0};
    tl_tensor *in[] = {z, gamma, beta}, *all = tl_apply(b->g, OP_DEF(offset_scale), &none, in, 3, NULL, NULL, 0);
    if (!rope) return all;
    return builder_flat(b, tl_rope(b->g, builder_fold(b, all, n * w / s, s), rope, b->c->rope_interleaved), n * w);
}

tl_tensor *build_gated(const builder *b, tl_tensor *x, int64_t l) {
    const model_config *c = b->c;
    const int64_t e = c->expand, s = c->shared, h = config_gate_heads(c, l), n = config_gate_parts(c, l), w = h * s;
    const bool post = c->place == PLACE_POST;
    tl_tensor *part[3], *head[6], *in = shifted(b, post ? x : builder_norm(b, x, l, 0), l);
    tl_tensor *y = builder_linear(b, in, ROLE_GAU_IN, ROLE_GAU_IN_BIAS, l);
    tl_split(b->g, build_act(b, y, 2 * e + s, l), 3, (int64_t[]){e, e, s}, part);
    tl_tensor *all = scaled_heads(b, part[2], builder_param(b, ROLE_GAMMA, l), builder_param(b, ROLE_BETA, l), n * h, s,
                                  s, b->gated_rope);
    tl_split(b->g, all, (int)n, (int64_t[]){w, w, w, w, w, w}, head);
    tl_tensor *v = part[1];
    for (int64_t i = 0; i < n && h > 1; i++) head[i] = builder_fold(b, head[i], h, s);
    if (h > 1) v = builder_fold(b, v, h, e / h);
    tl_tensor *m = config_mixer(c, l) == MIXER_FLASH ? mix_chunks(b, head, v, l) : mix_unit(b, head, v, l);
    if (h > 1) m = builder_flat(b, m, e);
    x = builder_join(b, x, tl_mul(b->g, part[0], m), l);
    return post ? builder_norm(b, x, l, 0) : x;
}

tl_tensor *build_chunk_mixer(const builder *b, tl_tensor *q, tl_tensor *k, tl_tensor *v, int64_t l) {
    const model_config *c = b->c;
    const int64_t n = config_gate_parts(c, l) / 2, s = c->head_dim, w = c->heads * s;
    tl_tensor *gamma[2], *beta[2] = {NULL, NULL}, *of[2] = {q, k}, *head[6];
    tl_split(b->g, builder_param(b, ROLE_GAMMA, l), 2, (int64_t[]){n * w, n * w}, gamma);
    if (c->gate_offset) tl_split(b->g, builder_param(b, ROLE_BETA, l), 2, (int64_t[]){n * w, n * w}, beta);
    for (int i = 0; i < 2; i++) { /* of q: qq, ql; of k: kq, kl */
        tl_tensor *part[3], *all = scaled_heads(b, builder_flat(b, of[i], w), gamma[i], beta[i], n, w, s, b->rope);
        tl_split(b->g, all, (int)n, (int64_t[]){w, w, w}, part);
        for (int64_t p = 0; p < n; p++)
            head[2 * p + i] = c->heads > 1 ? builder_fold(b, part[p], c->heads, s) : part[p];
    }
    return mix_chunks(b, head, c->heads > 1 ? v : builder_flat(b, v, s), l);
}
