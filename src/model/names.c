/* The names under which files hold parameters, family by family, and what files do to the numbers: transposed
 * matrices, rows reordered for RoPE, gains with their offset in them. */
#include "model/params.h"
#include "model/recipe.h"

#include <stdio.h>
#include <string.h>

/* Ours, Hugging Face's, GGUF's; %s stands for weight or bias. Rows of a block have their layer's stem before them. */
typedef struct name_row {
    const char *ours, *theirs[FORMATS];
} name_row;

static const name_row gpt2_names[] = {{"embed", {"transformer.wte.%s", "token_embd.%s"}},
                                      {"positions", {"transformer.wpe.%s", "position_embd.%s"}},
                                      {"norm", {"transformer.ln_f.%s", "output_norm.%s"}},
                                      {"head", {"lm_head.%s", "output.%s"}},
                                      {"norm1", {"ln_1.%s", "attn_norm.%s"}},
                                      {"norm2", {"ln_2.%s", "ffn_norm.%s"}},
                                      {"norm3", {"ln_3.%s", "post_attention_norm.%s"}},
                                      {"norm4", {"ln_4.%s", "post_ffw_norm.%s"}},
                                      {"qkv", {"attn.c_attn.%s", "attn_qkv.%s"}},
                                      {"q_norm", {"attn.q_norm.%s", "attn_q_norm.%s"}},
                                      {"k_norm", {"attn.k_norm.%s", "attn_k_norm.%s"}},
                                      {"attn_out", {"attn.c_proj.%s", "attn_output.%s"}},
                                      {"up", {"mlp.c_fc.%s", "ffn_up.%s"}},
                                      {"gate", {"mlp.c_gate.%s", "ffn_gate.%s"}},
                                      {"down", {"mlp.c_proj.%s", "ffn_down.%s"}},
                                      {0}};

#define OUTSIDE                                                                                                        \
    {"embed", {"model.embed_tokens.%s", "token_embd.%s"}},                                                             \
        {"positions", {"model.embed_positions.%s", "position_embd.%s"}},                                               \
        {"norm", {"model.norm.%s", "output_norm.%s"}}, {                                                               \
        "head", {                                                                                                      \
            "lm_head.%s", "output.%s"                                                                                  \
        }                                                                                                              \
    }
#define ATTENTION                                                                                                      \
    {"q", {"self_attn.q_proj.%s", "attn_q.%s"}}, {"k", {"self_attn.k_proj.%s", "attn_k.%s"}},                          \
        {"v", {"self_attn.v_proj.%s", "attn_v.%s"}}, {"q_norm", {"self_attn.q_norm.%s", "attn_q_norm.%s"}},            \
        {"k_norm", {"self_attn.k_norm.%s", "attn_k_norm.%s"}}, {                                                       \
        "attn_out", {                                                                                                  \
            "self_attn.o_proj.%s", "attn_output.%s"                                                                    \
        }                                                                                                              \
    }
#define MLP                                                                                                            \
    {"gate", {"mlp.gate_proj.%s", "ffn_gate.%s"}}, {"up", {"mlp.up_proj.%s", "ffn_up.%s"}}, {                          \
        "down", {                                                                                                      \
            "mlp.down_proj.%s", "ffn_down.%s"                                                                          \
        }                                                                                                              \
    }

#define EXPERTS(block, gate, up, down)                                                                                 \
    {"router", {block ".gate.%s", "ffn_gate_inp.%s"}},                                                                 \
        {"expert_gate", {block ".experts.#." gate ".%s", "ffn_gate_exps.%s"}},                                         \
        {"expert_up", {block ".experts.#." up ".%s", "ffn_up_exps.%s"}}, {                                             \
        "expert_down", {                                                                                               \
            block ".experts.#." down ".%s", "ffn_down_exps.%s"                                                         \
        }                                                                                                              \
    }

static const name_row llama_names[] = {OUTSIDE,
                                       {"norm1", {"input_layernorm.%s", "attn_norm.%s"}},
                                       {"norm2", {"post_attention_layernorm.%s", "ffn_norm.%s"}},
                                       {"norm3", {"attention_post_norm.%s", "post_attention_norm.%s"}},
                                       {"norm4", {"mlp_post_norm.%s", "post_ffw_norm.%s"}},
                                       ATTENTION,
                                       MLP,
                                       EXPERTS("mlp", "gate_proj", "up_proj", "down_proj"),
                                       {0}};

static const name_row mixtral_names[] = {OUTSIDE,
                                         {"norm1", {"input_layernorm.%s", "attn_norm.%s"}},
                                         {"norm2", {"post_attention_layernorm.%s", "ffn_norm.%s"}},
                                         ATTENTION,
                                         MLP,
                                         EXPERTS("block_sparse_moe", "w1", "w3", "w2"),
                                         {0}};

static const name_row gemma2_names[] = {OUTSIDE,
                                        {"norm1", {"input_layernorm.%s", "attn_norm.%s"}},
                                        {"norm3", {"post_attention_layernorm.%s", "post_attention_norm.%s"}},
                                        {"norm2", {"pre_feedforward_layernorm.%s", "ffn_norm.%s"}},
                                        {"norm4", {"post_feedforward_layernorm.%s", "post_ffw_norm.%s"}},
                                        ATTENTION,
                                        MLP,
                                        {0}};

/* One matrix for q, k, v and one for gate, up: as we keep them. */
static const name_row phi3_names[] = {OUTSIDE,
                                      {"norm1", {"input_layernorm.%s", "attn_norm.%s"}},
                                      {"norm2", {"post_attention_layernorm.%s", "ffn_norm.%s"}},
                                      {"norm3", {"attention_post_norm.%s", "post_attention_norm.%s"}},
                                      {"norm4", {"mlp_post_norm.%s", "post_ffw_norm.%s"}},
                                      {"qkv", {"self_attn.qkv_proj.%s", "attn_qkv.%s"}},
                                      {"q_norm", {"self_attn.q_norm.%s", "attn_q_norm.%s"}},
                                      {"k_norm", {"self_attn.k_norm.%s", "attn_k_norm.%s"}},
                                      {"attn_out", {"self_attn.o_proj.%s", "attn_output.%s"}},
                                      {"up", {"mlp.gate_up_proj.%s", "ffn_up.%s"}},
                                      {"down", {"mlp.down_proj.%s", "ffn_down.%s"}},
                                      {0}};

static const name_row gated_names[] = {OUTSIDE,
                                       {"norm1", {"norm.%s", "attn_norm.%s"}},
                                       {"gau_in", {"gau.in_proj.%s", "gau_in.%s"}},
                                       {"gamma", {"gau.gamma", "gau_gamma.weight"}},
                                       {"beta", {"gau.beta", "gau_beta.weight"}},
                                       {"rel_bias", {"gau.rel_bias", "gau_rel_bias.weight"}},
                                       {"theta", {"gau.theta", "gau_theta.weight"}},
                                       {"sink", {"gau.sink", "gau_sink.weight"}},
                                       {"attn_out", {"gau.out_proj.%s", "gau_out.%s"}},
                                       {0}};

static const name_row *const tables[] = {
    [NAMES_GPT2] = gpt2_names, [NAMES_LLAMA] = llama_names,     [NAMES_GEMMA2] = gemma2_names,
    [NAMES_PHI3] = phi3_names, [NAMES_MIXTRAL] = mixtral_names, [NAMES_GATED] = gated_names};
static const char *const stems[][FORMATS] = {
    [NAMES_GPT2] = {"transformer.h.%d.", "blk.%d."},   [NAMES_LLAMA] = {"model.layers.%d.", "blk.%d."},
    [NAMES_GEMMA2] = {"model.layers.%d.", "blk.%d."},  [NAMES_PHI3] = {"model.layers.%d.", "blk.%d."},
    [NAMES_MIXTRAL] = {"model.layers.%d.", "blk.%d."}, [NAMES_GATED] = {"model.layers.%d.", "blk.%d."}};

static enum recipe_names names_of(const model_config *c) {
    const recipe_row *r = recipe_find(c->type);
    return r ? r->names : NAMES_LLAMA;
}

static const name_row *find(const model_config *c, const char *ours) {
    for (const name_row *r = tables[names_of(c)]; r->ours; r++)
        if (strcmp(r->ours, ours) == 0) return r;
    return NULL;
}

static bool is_bias(param_role r) {
    return r == ROLE_NORM_BIAS || r == ROLE_QKV_BIAS || r == ROLE_ATTN_OUT_BIAS || r == ROLE_UP_BIAS ||
           r == ROLE_DOWN_BIAS || r == ROLE_HEAD_BIAS || r == ROLE_CROSS_Q_BIAS || r == ROLE_CROSS_KV_BIAS ||
           r == ROLE_CROSS_OUT_BIAS || r == ROLE_GAU_IN_BIAS || r == ROLE_MIX_DECAY_BIAS;
}

/* What llama.cpp calls "llama" rotates neighbours: its files have the rows of q and k in that order. */
static bool gguf_pairs(const model_config *c, const char *ours) {
    const recipe_row *r = recipe_find(c->type);
    return r && strcmp(r->gguf, "llama") == 0 && !c->rope_interleaved &&
           (strcmp(ours, "q") == 0 || strcmp(ours, "k") == 0);
}

static void piece(const model_config *c, const model_param *m, param_format f, const char *ours, int64_t row,
                  int64_t rows, int64_t cols, param_piece *out) {
    const name_row *r = find(c, ours);
    *out = (param_piece){.row = row, .rows = rows, .cols = cols};
    char stem[64] = "", tail[64];
    if (m->layer >= c->layers) /* the encoder's, which no family here has */
        snprintf(stem, sizeof stem, f == FORMAT_HF ? "model.encoder.layers.%d." : "enc.blk.%d.",
                 m->layer - (int32_t)c->layers);
    else if (m->layer >= 0)
        snprintf(stem, sizeof stem, stems[names_of(c)][f], m->layer);
    const char *kind = is_bias(m->role) ? "bias" : "weight";
    if (r)
        snprintf(tail, sizeof tail, r->theirs[f], kind);
    else /* a part that the family does not have: under our name */
        snprintf(tail, sizeof tail, "tilia.%s.%s", ours, kind);
    snprintf(out->name, sizeof out->name, "%s%s", stem, tail);
    /* GPT-2's Conv1D keeps its block matrices as (in, out) */
    out->transposed = f == FORMAT_HF && names_of(c) == NAMES_GPT2 && rows > 0 && m->layer >= 0;
    if (f != FORMAT_GGUF) return;
    if (gguf_pairs(c, ours)) out->paired = c->head_dim;
    if (m->role == ROLE_NORM_GAIN) out->add = c->norm_offset;
}

/* Our own name without "blocks.N." or "encoder.N." and ".gain", ".bias". */
static void short_name(const model_param *m, char ours[64]) {
    const char *s = m->name;
    if (m->layer >= 0) s = strchr(strchr(s, '.') + 1, '.') + 1;
    snprintf(ours, 64, "%s", s);
    ours[strcspn(ours, ".")] = 0;
}

static bool is_experts(const model_param *m) {
    return m->role == ROLE_EXPERT_UP || m->role == ROLE_EXPERT_DOWN;
}

/* How a parameter falls apart. */
enum split { WHOLE, SPLIT_QKV, SPLIT_GATE, SPLIT_EXPERTS };

static enum split split_of(const model_config *c, const model_param *m) {
    if (is_experts(m)) return SPLIT_EXPERTS;
    if ((m->role == ROLE_QKV || m->role == ROLE_QKV_BIAS) && find(c, "q")) return SPLIT_QKV;
    if ((m->role == ROLE_UP || m->role == ROLE_UP_BIAS) && c->gated && find(c, "gate")) return SPLIT_GATE;
    return WHOLE;
}

int params_piece_total(const model_config *c, const model_param *m, param_format f) {
    switch (split_of(c, m)) {
    case SPLIT_QKV: return 3;
    case SPLIT_GATE: return 2;
    case SPLIT_EXPERTS: return (m->role == ROLE_EXPERT_UP ? 2 : 1) * (f == FORMAT_GGUF ? 1 : (int)c->experts);
    default: return 1;
    }
}

/* Experts are a tensor each in Hugging Face's files, all of a layer in one in GGUF's. */
static void expert_piece(const model_config *c, const model_param *m, param_format f, int k, param_piece *out) {
    bool up = m->role == ROLE_EXPERT_UP;
    int64_t one = m->rows / c->experts, part = up ? one / 2 : one, which = up ? k % 2 : 0, e = up ? k / 2 : k;
    const char *ours = !up ? "expert_down" : which ? "expert_up" : "expert_gate";
    if (f == FORMAT_GGUF) {
        piece(c, m, f, ours, k * part, c->experts * part, m->cols, out);
        out->experts = c->experts;
        out->stride = up ? one : 0;
        return;
    }
    piece(c, m, f, ours, e * one + which * part, part, m->cols, out);
    char form[sizeof out->name]; /* the number of the expert stands in the name */
    memcpy(form, out->name, sizeof form);
    const char *mark = strchr(form, '#');
    if (mark) snprintf(out->name, sizeof out->name, "%.*s%lld%s", (int)(mark - form), form, (long long)e, mark + 1);
}

void params_piece_get(const model_config *c, const model_param *m, param_format f, int k, param_piece *out) {
    bool vector = m->rows == 0;
    int64_t qkv[3] = {c->heads * c->head_dim, c->kv_heads * c->head_dim, c->kv_heads * c->head_dim};
    static const char *const qkv_names[3] = {"q", "k", "v"}, *const gate_names[2] = {"gate", "up"};
    char ours[64];
    int64_t at = 0;
    switch (split_of(c, m)) {
    case SPLIT_EXPERTS: expert_piece(c, m, f, k, out); return;
    case SPLIT_QKV:
        for (int i = 0; i < k; i++) at += qkv[i];
        piece(c, m, f, qkv_names[k], at, vector ? 0 : qkv[k], vector ? qkv[k] : m->cols, out);
        return;
    case SPLIT_GATE: /* ours: gate, then up */
        piece(c, m, f, gate_names[k], k * c->mlp, vector ? 0 : c->mlp, vector ? c->mlp : m->cols, out);
        return;
    default: short_name(m, ours); piece(c, m, f, ours, 0, m->rows, m->cols, out);
    }
}

bool params_piece_fused(const model_config *c, const model_param *m, param_piece *out) {
    if (!is_experts(m)) return false;
    *out = (param_piece){.rows = m->rows, .cols = m->cols, .experts = c->experts};
    snprintf(out->name, sizeof out->name, "model.layers.%d.mlp.experts.%s", m->layer,
             m->role == ROLE_EXPERT_UP ? "gate_up_proj" : "down_proj");
    return true;
}

int params_pieces(const model_config *c, const model_param *m, param_format f, param_piece out[PARAM_PIECES]) {
    int n = params_piece_total(c, m, f);
    for (int k = 0; k < n && k < PARAM_PIECES; k++) params_piece_get(c, m, f, k, &out[k]);
    return n;
}

/* ---- numbers ------------------------------------------------------------------------------------------ */

int64_t params_piece_count(const param_piece *p) {
    return p->rows ? p->rows * p->cols : p->cols;
}

/* (rows, cols) to (cols, rows). Blocks of 32 x 32 keep both sides in cache. */
static void transpose(const float *src, int64_t rows, int64_t cols, float *dst) {
    enum { BLOCK = 32 };
    for (int64_t i0 = 0; i0 < rows; i0 += BLOCK)
        for (int64_t j0 = 0; j0 < cols; j0 += BLOCK)
            for (int64_t i = i0; i < rows && i < i0 + BLOCK; i++)
                for (int64_t j = j0; j < cols && j < j0 + BLOCK; j++) dst[j * rows + i] = src[i * cols + j];
}

/* Of the file's row i, the row of ours: pair (2k, 2k+1) of a head is (k, k + half). */
static int64_t unpaired(const param_piece *p, int64_t i) {
    int64_t head = i / p->paired * p->paired, k = i % p->paired;
    return head + k / 2 + (k % 2) * (p->paired / 2);
}

static int64_t piece_start(const param_piece *p, const model_param *m) {
    return p->rows ? p->row * m->cols : p->row;
}

float *params_piece_direct(const param_piece *p, const model_param *m, float *ours) {
    return p->transposed || p->paired || p->add != 0 || p->stride ? NULL : ours + piece_start(p, m);
}

/* The parts of experts in one tensor, between the file's order and ours. */
static void copy_experts(const param_piece *p, float *ours, float *file, bool in) {
    size_t n = (size_t)(p->rows / p->experts * p->cols);
    for (int64_t e = 0; e < p->experts; e++, ours += p->stride * p->cols, file += n)
        memcpy(in ? ours : file, in ? file : ours, n * sizeof *file);
}

void params_piece_in(const param_piece *p, const model_param *m, const float *file, float *ours) {
    float *dst = ours + piece_start(p, m);
    int64_t n = params_piece_count(p), row = p->rows ? p->cols : 1, rows = p->rows ? p->rows : p->cols;
    if (p->stride) {
        copy_experts(p, dst, (float *)(uintptr_t)file, true);
        return;
    }
    if (p->transposed) {
        transpose(file, p->cols, p->rows, dst);
    } else if (p->paired) {
        for (int64_t i = 0; i < rows; i++)
            memcpy(dst + unpaired(p, i) * row, file + i * row, (size_t)row * sizeof *dst);
    } else {
        memcpy(dst, file, (size_t)n * sizeof *dst);
    }
    for (int64_t i = 0; p->add != 0 && i < n; i++) dst[i] = (float)((double)dst[i] - p->add);
}

void params_piece_out(const param_piece *p, const model_param *m, const float *ours, float *file) {
    const float *src = ours + piece_start(p, m);
    int64_t n = params_piece_count(p), row = p->rows ? p->cols : 1, rows = p->rows ? p->rows : p->cols;
    if (p->stride) {
        copy_experts(p, (float *)(uintptr_t)src, file, false);
        return;
    }
    if (p->transposed) {
        transpose(src, p->rows, p->cols, file);
    } else if (p->paired) {
        for (int64_t i = 0; i < rows; i++)
            memcpy(file + i * row, src + unpaired(p, i) * row, (size_t)row * sizeof *file);
    } else {
        memcpy(file, src, (size_t)n * sizeof *file);
    }
    for (int64_t i = 0; p->add != 0 && i < n; i++) file[i] = (float)((double)file[i] + p->add);
}
