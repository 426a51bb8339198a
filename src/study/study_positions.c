/* Positions: trained on short contexts, tested on long ones. */
#include "study/study.h"

#include <string.h>

static const struct {
    const char *name, *config; /* behind "max_position_embeddings" */
} rows[] = {
    {"rope", "}"},
    {"learned", ",\"tilia\":{\"positions\":\"learned\"}}"},
    {"sinusoidal", ",\"tilia\":{\"positions\":\"sinusoidal\"}}"},
    {"alibi", ",\"tilia\":{\"positions\":\"alibi\"}}"},
    {"none", ",\"tilia\":{\"positions\":\"none\"}}"},
    {"gau-rope", "}"},
    {"gau-none", ",\"tilia\":{\"positions\":\"none\"}}"},
    {"gau-rel-bias", ",\"tilia\":{\"positions\":\"none\",\"rel_bias\":true}}"},
    {"gau-rope+rel-bias", ",\"tilia\":{\"rel_bias\":true}}"},
    {"gau-all-three", ",\"tilia\":{\"rel_bias\":true,\"scaled_sin\":true}}"}, /* as in the FLASH paper */
};

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    static const int64_t lengths[] = {128, 256, 512, 1024, 4096, 0};
    const char *name = study_level(c, "positions");
    size_t i;
    TRY(study_row(c, "positions", rows, sizeof rows / sizeof *rows, sizeof *rows, &i, e));
    if (strncmp(name, "gau", 3) == 0)
        TRY(study_config(l, &s->config, e,
                         "\"model_type\":\"gau\",\"hidden_size\":64,\"num_hidden_layers\":4,\"expansion\":176,"
                         "\"shared_size\":32,\"initializer_range\":0.04,\"max_position_embeddings\":4096%s",
                         rows[i].config));
    else
        TRY(study_config(
            l, &s->config, e,
            "\"model_type\":\"llama\",\"hidden_size\":64,\"num_hidden_layers\":3,\"num_attention_heads\":4,"
            "\"intermediate_size\":168,\"tie_word_embeddings\":true,\"initializer_range\":0.04,"
            "\"max_position_embeddings\":4096%s",
            rows[i].config));
    study_steps(s, c, 256, 4, 0.004, 20, 300);
    study_lengths(s, c, lengths);
    s->by_position = true;
    return TL_OK;
}

/* How much worse the longest window is than the trained one. */
static tl_status measure(study_lab *l, const study_cell *c, trainer *t, study_measured *m, tl_error *e) {
    (void)l, (void)t, (void)e;
    study_value(m, "longer",
                study_line_value(m->o, c->quick ? "loss@512" : "loss@4096") - study_line_value(m->o, "loss@256"));
    return TL_OK;
}

static const study_metric metrics[] = {
    {"longer", {"change from 256 to 4096", "256 至 4096 的变化"}, 1, 4, false},
    {NULL, {NULL, NULL}, 0, 0, false},
};

static const study_table tables[] = {
    {{"Held-out loss, nats a byte, in windows of so many bytes (trained on 256)",
      "留出损失（奈特/字节），按窗口字节数（训练长度 256）"},
     "positions",
     NULL,
     NULL,
     {"loss@128", "loss@256", "loss@512", "loss@1024", "loss@4096", "longer", "cpu_us"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"transfer", "Trained on 256 bytes, tested on longer windows", "window, bytes", "nats a byte", NULL, "transfer",
     "positions", NULL, true, false, 0, 0, true},
    {"position", "Loss by position, window of 4096", "position", "nats a byte", NULL, "position", "positions", NULL,
     true, false, 0, 0, true},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_positions = {
    .name = "positions",
    .title = {"Positions: trained at 256, tested to 4096", "位置编码：训练长度 256，测试至 4096"},
    .about =
        {"Models that differ in how they know positions (softmax: width 64, 3 layers; GAU: width 64, 4 layers; about "
         "0.17 million parameters without tables) learn the stories of the built-in grammar in windows of 256 bytes "
         "(300 steps of 4 windows), then read the held-out stories in longer windows. A story has about 380 bytes, so "
         "a long window holds nothing that would help: all that can be seen is what unseen positions do.",
         "各模型只在位置编码上不同（softmax：宽 64，3 层；GAU：宽 64，4 层；不计位置表约 17 万参数），在 256 "
         "字节的窗口上学习内置语法的"
         "故事（300 步，每步 4 个窗口），再以更长的窗口读留出的故事。一则故事约 380 "
         "字节，长窗口并无额外信息：所见的只是未训练位置的影响。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"positions",
                {"positions", "位置编码"},
                {"rope", "learned", "sinusoidal", "alibi", "none", "gau-rope", "gau-none", "gau-rel-bias",
                 "gau-rope+rel-bias", "gau-all-three"}}},
    .setup = setup,
    .measure = measure,
    .metric = metrics,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
