/* The parameter table of a configuration, and the names under which Hugging Face's files hold it. */
#include "model/params.h"

#include <stdio.h>
#include <string.h>

typedef struct table {
    model_params *p;
    size_t cap; /* 0: counting only */
} table;

static void put(table *t, const char *name, param_role role, int64_t layer, int64_t rows, int64_t cols) {
    model_params *p = t->p;
    if (t->cap) {
        model_param *m = &p->list[p->n];
        if (layer >= 0)
            snprintf(m->name, sizeof m->name, "blocks.%lld.%s", (long long)layer, name);
        else
            snprintf(m->name, sizeof m->name, "%s", name);
        m->role = role;
        m->layer = (int32_t)layer;
        m->rows = rows;
        m->cols = cols;
        m->decay = rows > 0;
    }
    p->n++;
}

static void put_norm(table *t, const model_config *c, const char *name, int64_t layer) {
    char full[40];
    if (c->norm == NORM_NONE) return;
    snprintf(full, sizeof full, "%s.gain", name);
    put(t, full, ROLE_NORM_GAIN, layer, 0, c->norm == NORM_SCALE ? 1 : c->width);
    snprintf(full, sizeof full, "%s.bias", name);
    if (c->norm == NORM_LAYER && c->bias_norm) put(t, full, ROLE_NORM_BIAS, layer, 0, c->width);
}

/* Every parameter in model order. Norms of a block: norm1 before (or, post, after) attention, norm2 for the mlp;
 * norm3, norm4 after attention and mlp in a sandwich. A parallel block has norm1 alone. */
static void list_all(table *t, const model_config *c) {
    int64_t q = c->heads * c->head_dim, qkv = (c->heads + 2 * c->kv_heads) * c->head_dim;
    put(t, "embed", ROLE_EMBED, -1, c->vocab, c->width);
    if (c->positions == POS_LEARNED) put(t, "positions", ROLE_POS, -1, c->context, c->width);
    for (int64_t l = 0; l < c->layers; l++) {
        put_norm(t, c, "norm1", l);
        put(t, "qkv", ROLE_QKV, l, qkv, c->width);
        if (c->bias_qkv) put(t, "qkv.bias", ROLE_QKV_BIAS, l, 0, qkv);
        if (c->qk_norm) put(t, "q_norm", ROLE_QNORM, l, 0, c->head_dim);
        if (c->qk_norm) put(t, "k_norm", ROLE_KNORM, l, 0, c->head_dim);
        put(t, "attn_out", ROLE_ATTN_OUT, l, c->width, q);
        if (c->bias_out) put(t, "attn_out.bias", ROLE_ATTN_OUT_BIAS, l, 0, c->width);
        if (!c->parallel) put_norm(t, c, "norm2", l);
        put(t, "up", ROLE_UP, l, c->gated ? 2 * c->mlp : c->mlp, c->width);
        if (c->bias_mlp) put(t, "up.bias", ROLE_UP_BIAS, l, 0, c->gated ? 2 * c->mlp : c->mlp);
        put(t, "down", ROLE_DOWN, l, c->width, c->mlp);
        if (c->bias_mlp) put(t, "down.bias", ROLE_DOWN_BIAS, l, 0, c->width);
        if (c->place == PLACE_SANDWICH) put_norm(t, c, "norm3", l);
        if (c->place == PLACE_SANDWICH) put_norm(t, c, "norm4", l);
    }
    if (c->place != PLACE_POST) put_norm(t, c, "norm", -1);
    if (!c->tied) put(t, "head", ROLE_HEAD, -1, c->vocab, c->width);
    if (c->bias_head) put(t, "head.bias", ROLE_HEAD_BIAS, -1, 0, c->vocab);
}

static int64_t elements(const model_param *m) {
    return m->rows ? m->rows * m->cols : m->cols;
}

tl_status params_init(model_params *p, const tl_allocator *a, const model_config *c, tl_error *e) {
    memset(p, 0, sizeof *p);
    table t = {p, 0};
    list_all(&t, c);
    size_t n = p->n;
    p->list = mem_new(a, n, sizeof *p->list);
    if (!p->list) return error_set(e, TL_NOMEM, "no memory for a table of %zu parameters", n);
    p->n = 0;
    t.cap = n;
    list_all(&t, c);
    for (int decay = 1; decay >= 0; decay--) { /* matrices first, so that decay and bf16 copies are one range */
        for (size_t i = 0; i < n; i++) {
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

/* ---- names of Hugging Face ---------------------------------------------------------------------------------- */

typedef enum names { NAMES_GPT2, NAMES_LLAMA } names;

static names names_of(const model_config *c) {
#define RECIPE(name, arch, norm, eps, offset, act, gated, pos, bq, bo, bm, bn, tied, qk, es, table)                    \
    if (strcmp(c->type, #name) == 0) return table;
#include "model/recipe.def"
#undef RECIPE
    return NAMES_LLAMA;
}

/* Stem of the file's name of each of our names, for one family; %s stands for weight or bias. */
typedef struct name_row {
    const char *ours, *theirs;
} name_row;

static const name_row gpt2_names[] = {{"embed", "transformer.wte.%s"},
                                      {"positions", "transformer.wpe.%s"},
                                      {"norm", "transformer.ln_f.%s"},
                                      {"head", "lm_head.%s"},
                                      {"norm1", "ln_1.%s"},
                                      {"norm2", "ln_2.%s"},
                                      {"norm3", "ln_3.%s"},
                                      {"norm4", "ln_4.%s"},
                                      {"qkv", "attn.c_attn.%s"},
                                      {"q_norm", "attn.q_norm.%s"},
                                      {"k_norm", "attn.k_norm.%s"},
                                      {"attn_out", "attn.c_proj.%s"},
                                      {"up", "mlp.c_fc.%s"},
                                      {"gate", "mlp.c_gate.%s"},
                                      {"down", "mlp.c_proj.%s"},
                                      {NULL, NULL}};
static const name_row llama_names[] = {{"embed", "model.embed_tokens.%s"},  {"positions", "model.embed_positions.%s"},
                                       {"norm", "model.norm.%s"},           {"head", "lm_head.%s"},
                                       {"norm1", "input_layernorm.%s"},     {"norm2", "post_attention_layernorm.%s"},
                                       {"norm3", "attention_post_norm.%s"}, {"norm4", "mlp_post_norm.%s"},
                                       {"q", "self_attn.q_proj.%s"},        {"k", "self_attn.k_proj.%s"},
                                       {"v", "self_attn.v_proj.%s"},        {"q_norm", "self_attn.q_norm.%s"},
                                       {"k_norm", "self_attn.k_norm.%s"},   {"attn_out", "self_attn.o_proj.%s"},
                                       {"gate", "mlp.gate_proj.%s"},        {"up", "mlp.up_proj.%s"},
                                       {"down", "mlp.down_proj.%s"},        {NULL, NULL}};

static void piece(const model_config *c, const model_param *m, const char *ours, int64_t row, int64_t rows,
                  int64_t cols, param_piece *out) {
    bool gpt2 = names_of(c) == NAMES_GPT2;
    const name_row *r = gpt2 ? gpt2_names : llama_names;
    while (r->ours && strcmp(r->ours, ours) != 0) r++;
    bool bias = m->role == ROLE_NORM_BIAS || m->role == ROLE_QKV_BIAS || m->role == ROLE_ATTN_OUT_BIAS ||
                m->role == ROLE_UP_BIAS || m->role == ROLE_DOWN_BIAS || m->role == ROLE_HEAD_BIAS;
    char stem[64] = "";
    if (m->layer >= 0) snprintf(stem, sizeof stem, gpt2 ? "transformer.h.%d." : "model.layers.%d.", m->layer);
    char tail[64];
    snprintf(tail, sizeof tail, r->theirs ? r->theirs : "%s", bias ? "bias" : "weight");
    snprintf(out->name, sizeof out->name, "%s%s", stem, tail);
    out->row = row;
    out->rows = rows;
    out->cols = cols;
    /* GPT-2's Conv1D keeps its block matrices as (in, out) */
    out->transposed = gpt2 && rows > 0 && m->layer >= 0;
}

int params_pieces(const model_config *c, const model_param *m, param_piece out[PARAM_PIECES]) {
    bool vector = m->rows == 0;
    int64_t qkv[3] = {c->heads * c->head_dim, c->kv_heads * c->head_dim, c->kv_heads * c->head_dim};
    static const char *const qkv_names[3] = {"q", "k", "v"};
    if ((m->role == ROLE_QKV || m->role == ROLE_QKV_BIAS) && names_of(c) == NAMES_LLAMA) {
        for (int i = 0, at = 0; i < 3; at += (int)qkv[i], i++)
            piece(c, m, qkv_names[i], at, vector ? 0 : qkv[i], vector ? qkv[i] : m->cols, &out[i]);
        return 3;
    }
    if ((m->role == ROLE_UP || m->role == ROLE_UP_BIAS) && c->gated) { /* ours: gate rows, then up rows */
        piece(c, m, "gate", 0, vector ? 0 : c->mlp, vector ? c->mlp : m->cols, &out[0]);
        piece(c, m, "up", c->mlp, vector ? 0 : c->mlp, vector ? c->mlp : m->cols, &out[1]);
        return 2;
    }
    char ours[64]; /* our own name without "blocks.N." and ".gain", ".bias" */
    const char *s = m->name;
    if (m->layer >= 0) s = strchr(s + strlen("blocks."), '.') + 1;
    snprintf(ours, sizeof ours, "%s", s);
    ours[strcspn(ours, ".")] = 0;
    piece(c, m, ours, 0, m->rows, m->cols, &out[0]);
    return 1;
}
