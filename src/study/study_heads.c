/* Heads: many, shared, few or one; and the rank of what they hand on. */
#include "study/study.h"

enum { PARAMS = 200000 };

static const struct {
    const char *name;
    int heads, kv; /* gated: heads that share Z; kv 0 */
} rows[] = {{"mha-8", 8, 8}, {"mha-4", 4, 4}, {"gqa-4-2", 4, 2}, {"mqa-4-1", 4, 1}, {"mha-2", 2, 2},
            {"mha-1", 1, 1}, {"gau-1", 1, 0}, {"gau-2", 2, 0},   {"gau-4", 4, 0}};

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    size_t i;
    TRY(study_row(c, "heads", rows, sizeof rows / sizeof *rows, sizeof *rows, &i, e));
    if (rows[i].kv)
        TRY(study_config(
            l, &s->config, e,
            "\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":3,\"num_attention_heads\":%d,"
            "\"num_key_value_heads\":%d,\"intermediate_size\":8,\"tie_word_embeddings\":true,"
            "\"initializer_range\":0.04,\"max_position_embeddings\":256}",
            rows[i].heads, rows[i].kv));
    else
        TRY(study_config(l, &s->config, e,
                         "\"model_type\":\"gau\",\"hidden_size\":64,\"num_hidden_layers\":6,\"expansion\":8,"
                         "\"shared_size\":32,\"initializer_range\":0.04,\"max_position_embeddings\":256,\"tilia\":"
                         "{\"gate_heads\":%d,\"init\":\"zero-out\"}}",
                         rows[i].heads));
    study_steps(s, c, 256, 4, 0.004, 20, 300);
    return study_match(l, &s->config, PARAMS, 4, e);
}

/* Means over the layers. */
static tl_status measure(study_lab *l, const study_cell *c, trainer *t, study_measured *m, tl_error *e) {
    const int64_t layers = t->model->config.layers;
    double sum[4] = {0};
    (void)c;
    for (int64_t i = 0; i < layers; i++) {
        study_rank mixed, values;
        TRY(study_mixer_rank(l, t->model, i, &mixed, &values, e));
        sum[0] += mixed.numerical;
        sum[1] += mixed.effective;
        sum[2] += values.numerical;
        sum[3] += values.effective;
    }
    study_value(m, "rank", sum[0] / (double)layers);
    study_value(m, "effective_rank", sum[1] / (double)layers);
    study_value(m, "rank_before_gate", sum[2] / (double)layers);
    study_value(m, "effective_before_gate", sum[3] / (double)layers);
    study_value(m, "gate_gain", sum[1] / sum[3]);
    return TL_OK;
}

static const study_metric metrics[] = {
    {"rank", {"numerical rank of the mixer's output", "混合器输出的数值秩"}, 1, 1, false},
    {"effective_rank", {"effective rank", "有效秩"}, 1, 1, false},
    {"rank_before_gate", {"numerical rank before the gate", "门控之前的数值秩"}, 1, 1, false},
    {"effective_before_gate", {"effective rank before the gate", "门控之前的有效秩"}, 1, 1, false},
    {"gate_gain", {"effective rank, after the gate / before", "有效秩：门控后/前"}, 1, 2, false},
    {NULL, {NULL, NULL}, 0, 0, false},
};

static const study_table tables[] = {
    {{"By heads, equal parameters", "按头数，同等参数"},
     "heads",
     NULL,
     NULL,
     {"params", "val_loss", "above_floor", "cpu_us", "state_kb", "rank", "effective_rank", "rank_before_gate",
      "effective_before_gate"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"loss", "Training loss by heads", "tokens, thousands", "nats a byte", NULL, "loss", "heads", NULL, false, true, 0,
     0, true},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_heads = {
    .name = "heads",
    .title = {"Heads: many, shared, few or one", "注意力头：多、共享、少与单"},
    .about =
        {"Transformers (width 64, 3 layers) with 8, 4, 2 heads or one, with keys and values shared by all or by two "
         "(mqa, gqa), and GAU (6 layers, s = 32) with one head or several, all of 0.2 million parameters by the width "
         "of the mlp or of the expansion, read stories of the built-in grammar, 300 steps of 4 x 256 bytes. The rank "
         "is that of the matrix of 256 held-out tokens that goes into the output projection, averaged over layers: "
         "numerical, singular values above a thousandth of the largest; effective, exp of their entropy.",
         "Transformer（宽 64，3 层）取 8、4、2 或 1 个头，或共享键值（mqa、gqa）；GAU（6 层，s = 32）取单头或多头；以 "
         "mlp 或扩展宽度"
         "配平至 20 万参数，读内置语法的故事，300 步，每步 4 x 256 字节。秩取 256 "
         "个留出词元进入输出投影的矩阵，各层平均：数值秩为大于"
         "最大奇异值千分之一的个数，有效秩为奇异值熵的指数。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"heads",
                {"heads", "头"},
                {"mha-8", "mha-4", "gqa-4-2", "mqa-4-1", "mha-2", "mha-1", "gau-1", "gau-2", "gau-4"}}},
    .setup = setup,
    .measure = measure,
    .metric = metrics,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
