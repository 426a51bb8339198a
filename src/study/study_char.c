/* Characters of a text: nanoGPT's small CPU setting, with gated models of equal parameters beside it. */
#include "study/study.h"

#include <string.h>

static const struct {
    const char *model, *preset;
    bool rope, paper; /* positions changed to RoPE; scores scaled as in the paper's appendix */
} rows[] = {
    {"gpt2", "char-cpu", false, false},
    {"gpt2-rope", "char-cpu", true, false},
    {"transformer++", NULL, false, false},
    {"gau", "gau-char-cpu", false, false},
    {"flash-quad", "flash-quad-char-cpu", false, false},
    {"flash", "flash-char-cpu", false, false},
    {"quad-paper", "flash-quad-char-cpu", false, true},
    {"flash-paper", "flash-char-cpu", false, true},
};

static tl_status configure(study_lab *l, const char *model, model_config *c, tl_error *e) {
    size_t i = 0, n = sizeof rows / sizeof *rows;
    while (i < n && strcmp(rows[i].model, model) != 0) i++;
    if (i == n) return error_set(e, TL_UNSUPPORTED, "no model \"%s\"", model);
    if (!rows[i].preset) {
        TRY(study_config(l, c, e,
                         "\"model_type\":\"llama\",\"hidden_size\":128,\"intermediate_size\":8,\"num_hidden_layers\":4,"
                         "\"num_attention_heads\":4,\"max_position_embeddings\":64,\"tie_word_embeddings\":true}"));
        return study_match(l, c, 800000, 4, e);
    }
    TRY(config_preset(rows[i].preset, c, e));
    if (rows[i].rope) c->positions = POS_ROPE;
    if (rows[i].paper) c->score_scale = SCALE_PAPER;
    return TL_OK;
}

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    TRY(configure(l, study_level(c, "model"), &s->config, e));
    s->train.context = 64;
    s->train.rows = 12;
    s->train.decay = 0.1;
    s->train.beta2 = 0.99;
    s->train.schedule = (schedule){TL_SCHEDULE_COSINE, 0.002, 0.0002, c->quick ? 2 : 40, c->quick ? 10 : 400};
    return TL_OK;
}

static const study_table tables[] = {
    {{"400 steps of 12 x 64 characters", "400 步，每步 12 x 64 字符"},
     "model",
     NULL,
     NULL,
     {"params", "val_loss", "bits_per_byte", "train_loss", "cpu_us", "mflop"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"loss", "Characters: training loss", "characters, thousands", "nats a character", NULL, "loss", "model", NULL,
     false, true, 0, 0, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_char = {
    .name = "char",
    .title = {"Characters: gated models beside nanoGPT's small setting", "字符：门控模型与 nanoGPT 小设置的比较"},
    .about = {"tinyshakespeare by characters, the last tenth held out; 0.8 million parameters, batches of 12 x 64, "
              "400 steps, "
              "AdamW at 2e-3 with 40 steps of warm-up and a cosine, no dropout. gpt2 is nanoGPT's CPU model (learned "
              "positions); gpt2-rope has RoPE instead; transformer++ is Llama's form (RMSNorm, SwiGLU, RoPE); "
              "-paper scales scores as the paper's appendix does, relu2(S/n + B) or relu2(S/c + B), not "
              "relu2(S/sqrt(s) + B)/N.",
              "tinyshakespeare 逐字符，末十分之一留出；80 万参数，每批 12 x 64，400 步，AdamW 学习率 2e-3，预热 40 "
              "步，余弦下降，无丢弃。"
              "gpt2 为 nanoGPT 的 CPU 模型（学习式位置）；gpt2-rope 改用 RoPE；transformer++ 为 Llama "
              "形式（RMSNorm、SwiGLU、RoPE）；-paper 按论文附录缩放分数 relu2(S/n + B) 或 relu2(S/c + B)，"
              "而非 relu2(S/sqrt(s) + B)/N。"},
    .corpus = CORPUS_CHARS,
    .factor = {{"model",
                {"model", "模型"},
                {"gpt2", "transformer++", "gau", "flash", "flash-paper", "gpt2-rope", "flash-quad", "quad-paper"}}},
    .setup = setup,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
