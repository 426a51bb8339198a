/* The parameter table of a configuration. */
#include "model/builder.h"

#include <stdio.h>
#include <string.h>

typedef struct table {
    model_params *p;
    int64_t layers; /* of the decoder */
    size_t cap;     /* 0: counting only */
} table;

static void put(table *t, const char *name, param_role role, int64_t layer, int64_t rows, int64_t cols) {
    model_params *p = t->p;
    if (t->cap) {
        model_param *m = &p->list[p->n];
        if (layer >= t->layers)
            snprintf(m->name, sizeof m->name, "encoder.%lld.%s", (long long)(layer - t->layers), name);
        else if (layer >= 0)
            snprintf(m->name, sizeof m->name, "blocks.%lld.%s", (long long)layer, name);
        else
            snprintf(m->name, sizeof m->name, "%s", name);
        m->role = role;
        m->layer = (int32_t)layer;
        m->rows = rows;
        m->cols = cols;
        m->decay = rows > 0;
        m->trainable = true;
    }
    p->n++;
}

static void put_norm(table *t, const model_config *c, const char *name, int64_t layer) {
    char full[36];
    if (c->norm == NORM_NONE) return;
    snprintf(full, sizeof full, "%s.gain", name);
    if (c->norm_gain) put(t, full, ROLE_NORM_GAIN, layer, 0, c->norm == NORM_SCALE ? 1 : c->width);
    snprintf(full, sizeof full, "%s.bias", name);
    if ((c->norm == NORM_LAYER || c->norm == NORM_BATCH) && c->bias_norm)
        put(t, full, ROLE_NORM_BIAS, layer, 0, c->width);
}

/* Relative positions of gated layers and of mixed chunks, and the temperature of their scores. */
static void put_rel_bias(table *t, const model_config *c, int64_t l, int64_t width, int64_t reach) {
    if (c->rel_bias)
        put(t, "rel_bias", ROLE_REL_BIAS, l, 0,
            c->grid_rows ? config_grid_table(c) : build_rel_count(c, c->rel_bias, 1, width, reach));
    if (c->temperature) put(t, "theta", ROLE_THETA, l, 1, 1);
}

/* A gated layer: one matrix in, one out, scales and offsets of the heads, perhaps a table of relative positions. */
static void put_gated(table *t, const model_config *c, int64_t l) {
    const bool chunks = config_mixer(c, l) == MIXER_FLASH;
    int64_t e = c->expand, s = c->shared, heads = config_gate_parts(c, l) * config_gate_heads(c, l);
    put_norm(t, c, "norm1", l);
    put(t, "gau_in", ROLE_GAU_IN, l, 2 * e + s, c->width);
    if (c->bias_qkv) put(t, "gau_in.bias", ROLE_GAU_IN_BIAS, l, 0, 2 * e + s);
    put(t, "gamma", ROLE_GAMMA, l, 0, heads * s);
    if (c->gate_offset) put(t, "beta", ROLE_BETA, l, 0, heads * s);
    put_rel_bias(t, c, l, s, chunks ? c->chunk : c->context);
    if (c->sink) put(t, "sink", ROLE_SINK, l, 0, 1);
    if (c->act_beta_learned) put(t, "act_beta", ROLE_ACT_BETA, l, 0, 1);
    put(t, "attn_out", ROLE_ATTN_OUT, l, c->width, e);
    if (c->bias_out) put(t, "attn_out.bias", ROLE_ATTN_OUT_BIAS, l, 0, c->width);
}

/* What a block's mixer has beside its projections. */
static void put_mixer(table *t, const model_config *c, int64_t l) {
    if (config_attends(c, l) && c->attn_rel_bias)
        put(t, "attn_bias", ROLE_ATTN_BIAS, l, 0,
            build_rel_count(c, c->attn_rel_bias, c->heads, c->head_dim, c->context));
    if (config_attends(c, l) && c->sink) put(t, "sink", ROLE_SINK, l, 0, c->heads);
    const model_mixer m = config_mixer(c, l);
    const int64_t width = c->heads * c->head_dim, logits = m == MIXER_GLA ? width : c->heads;
    if (config_stateful(c, l) && m < MIXER_PERFORMER) put(t, "mix_gate", ROLE_MIX_GATE, l, width, c->width);
    if (m == MIXER_LINFORMER) put(t, "mix_time", ROLE_MIX_TIME, l, 2 * c->landmarks, c->context);
    if (m == MIXER_DELTANET || m == MIXER_GATED_DELTANET) put(t, "mix_beta", ROLE_MIX_BETA, l, c->heads, c->width);
    if (m == MIXER_GLA || m == MIXER_SIMPLE_GLA || m == MIXER_GATED_DELTANET) {
        put(t, "mix_decay", ROLE_MIX_DECAY, l, logits, c->width);
        put(t, "mix_decay.bias", ROLE_MIX_DECAY_BIAS, l, 0, logits);
    }
    if (m == MIXER_PERFORMER) put(t, "features", ROLE_FEATURES, l, 0, 2 * c->head_dim * c->head_dim);
    if (m != MIXER_CHUNK) return;
    put(t, "gamma", ROLE_GAMMA, l, 0, config_gate_parts(c, l) * c->heads * c->head_dim);
    if (c->gate_offset) put(t, "beta", ROLE_BETA, l, 0, config_gate_parts(c, l) * c->heads * c->head_dim);
    put_rel_bias(t, c, l, c->head_dim, c->chunk);
}

static void put_mlp(table *t, const model_config *c, int64_t l) {
    if (config_experts(c, l)) {
        put(t, "router", ROLE_ROUTER, l, c->experts, c->width);
        put(t, "expert_up", ROLE_EXPERT_UP, l, c->experts * 2 * c->expert_mlp, c->width);
        put(t, "expert_down", ROLE_EXPERT_DOWN, l, c->experts * c->width, c->expert_mlp);
        return;
    }
    if (c->act_beta_learned) put(t, "act_beta", ROLE_ACT_BETA, l, 0, 1);
    put(t, "up", ROLE_UP, l, c->gated ? 2 * c->mlp : c->mlp, c->width);
    if (c->bias_mlp) put(t, "up.bias", ROLE_UP_BIAS, l, 0, c->gated ? 2 * c->mlp : c->mlp);
    put(t, "down", ROLE_DOWN, l, c->width, c->mlp);
    if (c->bias_mlp) put(t, "down.bias", ROLE_DOWN_BIAS, l, 0, c->width);
}

static void put_block(table *t, const model_config *c, int64_t l) {
    int64_t q = c->heads * c->head_dim, qkv = (c->heads + 2 * c->kv_heads) * c->head_dim;
    put_norm(t, c, "norm1", l);
    put(t, "qkv", ROLE_QKV, l, qkv, c->width);
    if (c->bias_qkv) put(t, "qkv.bias", ROLE_QKV_BIAS, l, 0, qkv);
    if (c->qk_norm) put(t, "q_norm", ROLE_QNORM, l, 0, c->head_dim);
    if (c->qk_norm) put(t, "k_norm", ROLE_KNORM, l, 0, c->head_dim);
    put_mixer(t, c, l);
    put(t, "attn_out", ROLE_ATTN_OUT, l, c->width, q);
    if (c->bias_out) put(t, "attn_out.bias", ROLE_ATTN_OUT_BIAS, l, 0, c->width);
    if (!c->parallel) put_norm(t, c, "norm2", l);
    put_mlp(t, c, l);
    if (c->place == PLACE_SANDWICH) put_norm(t, c, "norm3", l);
    if (c->place == PLACE_SANDWICH) put_norm(t, c, "norm4", l);
}

/* What a decoder layer has to look at a source: attention of its own, or of a gated layer a unit without the scales and
 * offsets that tell queries from keys. Its norm is the layer's last. */
static void put_cross(table *t, const model_config *c, int64_t l) {
    const bool unit = config_gated(c, l);
    const int64_t q = unit ? c->expand + c->shared : c->heads * c->head_dim;
    const int64_t kv = unit ? c->shared + c->expand : 2 * c->kv_heads * c->head_dim;
    put_norm(t, c, "cross_norm", l);
    put(t, "cross_q", ROLE_CROSS_Q, l, q, c->width);
    if (c->bias_qkv) put(t, "cross_q.bias", ROLE_CROSS_Q_BIAS, l, 0, q);
    put(t, "cross_kv", ROLE_CROSS_KV, l, kv, c->width);
    if (c->bias_qkv) put(t, "cross_kv.bias", ROLE_CROSS_KV_BIAS, l, 0, kv);
    put(t, "cross_out", ROLE_CROSS_OUT, l, c->width, unit ? c->expand : c->heads * c->head_dim);
    if (c->bias_out) put(t, "cross_out.bias", ROLE_CROSS_OUT_BIAS, l, 0, c->width);
    if (unit && c->temperature) put(t, "cross_theta", ROLE_CROSS_THETA, l, 1, 1);
    if (c->sink && (!unit || c->score == GATE_SOFTMAX))
        put(t, "cross_sink", ROLE_CROSS_SINK, l, 0, unit ? 1 : c->heads);
}

/* Every parameter in model order. Norms of a block: norm1 before (or, post, after) attention, norm2 for the mlp;
 * norm3, norm4 after attention and mlp in a sandwich. A parallel block has norm1 alone. */
static void list_all(table *t, const model_config *c) {
    put(t, "embed", ROLE_EMBED, -1, c->vocab, c->width);
    if (c->positions == POS_LEARNED) put(t, "positions", ROLE_POS, -1, c->context, c->width);
    if (c->scaled_sin) put(t, "sin_scale", ROLE_SIN_SCALE, -1, 0, 1);
    for (int64_t l = 0; l < config_layers(c); l++) {
        if (config_gated(c, l))
            put_gated(t, c, l);
        else
            put_block(t, c, l);
        if (c->encoder && l < c->layers) put_cross(t, c, l);
    }
    if (c->place != PLACE_POST) put_norm(t, c, "norm", -1);
    if (c->encoder && c->place != PLACE_POST) put_norm(t, c, "encoder_norm", -1);
    if (!c->tied) put(t, "head", ROLE_HEAD, -1, c->vocab, c->width);
    if (c->bias_head) put(t, "head.bias", ROLE_HEAD_BIAS, -1, 0, c->vocab);
}

static int64_t elements(const model_param *m) {
    return m->rows ? m->rows * m->cols : m->cols;
}

void params_place(model_params *p) {
    for (int decay = 1; decay >= 0; decay--) { /* matrices first, so that decay and bf16 copies are one range */
        for (size_t i = 0; i < p->n; i++) {
            model_param *m = &p->list[i];
            if (m->decay != (decay == 1)) continue;
            m->offset = p->total;
            p->total += (elements(m) + 15) / 16 * 16;
            p->count += elements(m);
            if (m->role != ROLE_EMBED && m->role != ROLE_POS && m->role != ROLE_HEAD)
                p->count_no_embedding += elements(m);
        }
        if (decay) p->decayed = p->total;
    }
}

tl_status params_init(model_params *p, const tl_allocator *a, const model_config *c, tl_error *e) {
    memset(p, 0, sizeof *p);
    table t = {p, c->layers, 0};
    list_all(&t, c);
    size_t n = p->n;
    p->list = mem_new(a, n, sizeof *p->list);
    if (!p->list) return error_set(e, TL_NOMEM, "no memory for a table of %zu parameters", n);
    p->n = 0;
    t.cap = n;
    list_all(&t, c);
    params_place(p);
    for (size_t i = 0; i < n; i++) {
        const model_param *m = &p->list[i];
        bool expert = m->role == ROLE_EXPERT_UP || m->role == ROLE_EXPERT_DOWN;
        p->count_active += expert ? elements(m) / c->experts * c->experts_used : elements(m);
    }
    return TL_OK;
}

void params_fini(model_params *p, const tl_allocator *a) {
    mem_free(a, p->list);
    memset(p, 0, sizeof *p);
}

int64_t params_find(const model_params *p, param_role role, int32_t layer, int32_t nth) {
    for (size_t i = 0; i < p->n; i++)
        if (p->list[i].role == role && p->list[i].layer == layer && nth-- == 0) return (int64_t)i;
    return -1;
}
