/* Length transfer of every normalisation of gated attention: trained on 512, tested on 128 to 4096. */
#include "study/study.h"

static const struct {
    const char *name, *parts;
    bool flash;
} rows[] = {
    {"relu2/visible", "", false},
    {"relu2/fixed", "\"score_count\":\"fixed\",\"score_fixed\":512", false},
    {"relu2-paper", "\"score_scale\":\"paper\",\"score_fixed\":512", false},
    {"relu2-sum", "\"score\":\"relu2_sum\"", false},
    {"softmax", "\"score\":\"softmax\"", false},
    {"softmax-kappa", "\"score\":\"softmax\",\"score_kappa\":true", false},
    {"l2", "\"score\":\"l2\"", false},
    {"flash/visible", "", true},
    {"flash/constant", "\"chunk_norm\":\"constant\"", true},
};

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    static const int64_t lengths[] = {128, 256, 512, 1024, 2048, 4096, 0};
    size_t i;
    TRY(study_row(c, "normalisation", rows, sizeof rows / sizeof *rows, sizeof *rows, &i, e));
    TRY(study_config(l, &s->config, e,
                     "\"model_type\":\"%s\",\"hidden_size\":64,\"num_hidden_layers\":4,\"expansion\":176,"
                     "\"shared_size\":32,%s\"initializer_range\":0.04,\"max_position_embeddings\":4096,\"tilia\":{%s}}",
                     rows[i].flash ? "flash" : "gau", rows[i].flash ? "\"chunk_size\":64," : "", rows[i].parts));
    study_steps(s, c, 512, 2, 0.004, 20, 300);
    study_lengths(s, c, lengths);
    s->by_position = true;
    return TL_OK;
}

/* How much worse a window eight times as long is, and one a quarter as long. */
static tl_status measure(study_lab *l, const study_cell *c, trainer *t, study_measured *m, tl_error *e) {
    (void)l, (void)t, (void)e;
    double at = study_line_value(m->o, "loss@512");
    study_value(m, "longer", study_line_value(m->o, c->quick ? "loss@512" : "loss@4096") - at);
    study_value(m, "shorter", study_line_value(m->o, "loss@128") - at);
    return TL_OK;
}

static const study_metric metrics[] = {
    {"longer", {"change from 512 to 4096", "512 至 4096 的变化"}, 1, 4, false},
    {"shorter", {"change from 512 to 128", "512 至 128 的变化"}, 1, 4, false},
    {NULL, {NULL, NULL}, 0, 0, false},
};

static const study_table tables[] = {
    {{"Held-out loss, nats a byte, in windows of so many bytes (trained on 512)",
      "留出损失（奈特/字节），按窗口字节数（训练长度 512）"},
     "normalisation",
     NULL,
     NULL,
     {"loss@128", "loss@256", "loss@512", "loss@1024", "loss@2048", "loss@4096", "longer"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"transfer", "Trained on 512 bytes, tested on other windows", "window, bytes", "nats a byte", NULL, "transfer",
     "normalisation", NULL, true, false, 0, 0, true},
    {"position", "Loss by position, window of 4096", "position", "nats a byte", NULL, "position", "normalisation", NULL,
     true, false, 0, 0, true},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_transfer = {
    .name = "transfer",
    .title = {"Length transfer of every normalisation", "各种归一化的长度外推"},
    .about =
        {"GAU (width 64, 4 layers, s = 32, 0.17 million parameters, RoPE) with each way of normalising its scores, and "
         "FLASH (chunks of 64) with both counts of its linear part, learn stories of the built-in grammar in windows "
         "of 512 bytes (300 steps of 2 windows) and are tested in windows of 128 to 4096.",
         "GAU（宽 64，4 层，s = 32，17 万参数，RoPE）分别采用各种分数归一化，FLASH（块长 "
         "64）分别采用线性部分的两种计数，在 512 "
         "字节的窗口上学习内置语法的故事（300 步，每步 2 个窗口），以 128 至 4096 的窗口测试。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"normalisation",
                {"normalisation", "归一化"},
                {"relu2/visible", "relu2/fixed", "relu2-paper", "relu2-sum", "softmax", "softmax-kappa", "l2",
                 "flash/visible", "flash/constant"}}},
    .setup = setup,
    .measure = measure,
    .metric = metrics,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
