/* Anatomy of a Transformer: what happens when one part is taken out or changed. */
#include "study/study.h"

static const struct {
    const char *name, *parts;
    int64_t mlp; /* 0: 168 */
    double decay, dropout;
    bool cold; /* no warm-up */
} rows[] = {
    {"base", "", 0, 0.05, 0, false},
    {"mlp-of-1", "", 1, 0.05, 0, false},
    {"no-residual", "\"no_residual\":true", 0, 0.05, 0, false},
    {"no-norm", "\"norm\":\"none\"", 0, 0.05, 0, false},
    {"layernorm", "\"norm\":\"layernorm\"", 0, 0.05, 0, false},
    {"batchnorm", "\"norm\":\"batchnorm\"", 0, 0.05, 0, false},
    {"post-norm", "\"norm_place\":\"post\"", 0, 0.05, 0, false},
    {"sandwich", "\"norm_place\":\"sandwich\"", 0, 0.05, 0, false},
    {"parallel", "\"parallel\":true", 0, 0.05, 0, false},
    {"base-cold", "", 0, 0.05, 0, true},
    {"post-norm-cold", "\"norm_place\":\"post\"", 0, 0.05, 0, true},
    {"decay-0", "", 0, 0, 0, false},
    {"decay-0.5", "", 0, 0.5, 0, false},
    {"dropout-0.1", "", 0, 0.05, 0.1, false},
};

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    size_t i;
    TRY(study_row(c, "variant", rows, sizeof rows / sizeof *rows, sizeof *rows, &i, e));
    TRY(study_config(l, &s->config, e,
                     "\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":6,\"num_attention_heads\":4,"
                     "\"intermediate_size\":%lld,\"tie_word_embeddings\":true,\"initializer_range\":0.04,"
                     "\"max_position_embeddings\":256,\"tilia\":{%s}}",
                     (long long)(rows[i].mlp ? rows[i].mlp : 168), rows[i].parts));
    s->config.drop_embed = s->config.drop_resid = rows[i].dropout;
    s->train.decay = rows[i].decay;
    study_steps(s, c, 256, 4, 0.004, rows[i].cold ? 0 : 40, 300);
    s->by_depth = true;
    s->on_training = true;
    return TL_OK;
}

static const study_metric metrics[] = {
    {"depth_ratio", {"gradient at the start: first layer / last", "起始梯度：首层/末层"}, 1, 3, false},
    {NULL, {NULL, NULL}, 0, 0, false},
};

static const study_table tables[] = {
    {{"One part changed at a time", "每次改动一处"},
     "variant",
     NULL,
     NULL,
     {"val_loss", "train_loss", "train_eval", "above_floor", "norm_max", "depth_ratio", "diverged", "params",
      "cpu_us"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"loss", "Training loss with one part changed", "tokens, thousands", "nats a byte", NULL, "loss", "variant", NULL,
     false, true, 0, 0, true},
    {"depth", "Norm of the gradient by layer, before the first step", "layer", "norm of the layer's gradient", NULL,
     "depth", "variant", NULL, false, true, 0, 0, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_anatomy = {
    .name = "anatomy",
    .title = {"Anatomy: what each part of a Transformer does", "解剖：Transformer 各部件的作用"},
    .about =
        {"A Transformer of 6 layers, width 64 (RMSNorm before each half, SwiGLU, RoPE, 0.3 million parameters) reads "
         "stories of the built-in grammar, 300 steps of 4 x 256 bytes, with one part changed at a time. -cold is "
         "without warm-up; mlp-of-1 has an mlp of width 1, which is as good as none.",
         "6 层、宽 64 的 Transformer（各半前置 RMSNorm，SwiGLU，RoPE，30 万参数）读内置语法的故事，300 步，每步 4 x "
         "256 字节，每次改动"
         "一处。-cold 为无预热；mlp-of-1 的 mlp 宽 1，等于没有。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"variant",
                {"variant", "变体"},
                {"base", "mlp-of-1", "no-residual", "no-norm", "layernorm", "batchnorm", "post-norm", "sandwich",
                 "parallel", "base-cold", "post-norm-cold", "decay-0", "decay-0.5", "dropout-0.1"}}},
    .setup = setup,
    .metric = metrics,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
