/* What a gated model needs to learn fast: one thing at a time is changed in GAU and FLASH. */
#include "study/study.h"

enum { PARAMS = 180000 };

static const struct {
    const char *name, *parts; /* keys of the "tilia" object */
    double lr;
    bool unit; /* not for flash */
} rows[] = {
    {"as-is", "", 0.003, false},
    {"rate-x2", "", 0.006, false},
    {"init-gpt2", "\"init\":\"gpt2\"", 0.003, false},
    {"init-zero-out", "\"init\":\"zero-out\"", 0.003, false},
    {"rmsnorm", "\"norm\":\"rmsnorm\"", 0.003, false},
    {"layernorm", "\"norm\":\"layernorm\"", 0.003, false},
    {"post-norm", "\"norm\":\"layernorm\",\"norm_place\":\"post\"", 0.003, false},
    {"token-shift", "\"token_shift\":true", 0.003, false},
    {"laplace", "\"score\":\"laplace\"", 0.003, false},
    {"paper-scale", "\"score_scale\":\"paper\"", 0.003, false},
    {"paper+zero-out", "\"score_scale\":\"paper\",\"init\":\"zero-out\"", 0.003, false},
    {"paper+shift", "\"score_scale\":\"paper\",\"token_shift\":true", 0.003, false},
    {"paper-no-bias", "\"score_scale\":\"paper\",\"rel_bias\":false", 0.003, false},
    {"no-rel-bias", "\"rel_bias\":false", 0.003, false},
    {"rel-bias", "\"rel_bias\":true", 0.003, true},
    {"softmax", "\"score\":\"softmax\"", 0.003, true},
};

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    const bool flash = study_level_is(c, "mixer", "flash");
    size_t i;
    TRY(study_row(c, "variant", rows, sizeof rows / sizeof *rows, sizeof *rows, &i, e));
    if (flash && rows[i].unit)
        return error_set(e, TL_UNSUPPORTED, "the same as another variant, or none that chunks have");
    TRY(study_config(l, &s->config, e,
                     "\"model_type\":\"%s\",\"hidden_size\":64,\"num_hidden_layers\":6,\"expansion\":8,"
                     "\"shared_size\":32,%s\"max_position_embeddings\":256,\"initializer_range\":0.04,\"tilia\":{%s}}",
                     flash ? "flash" : "gau", flash ? "\"chunk_size\":64," : "", rows[i].parts));
    study_steps(s, c, 256, 4, rows[i].lr, 20, 300);
    return study_match(l, &s->config, PARAMS, 4, e);
}

static const study_table tables[] = {
    {{"Nats a byte above the grammar's entropy", "高出语法熵的奈特数（每字节）"},
     "variant",
     "mixer",
     NULL,
     {"above_floor"}},
    {{"Largest norm of the gradient", "最大梯度范数"}, "variant", "mixer", NULL, {"norm_max"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"flash", "FLASH: training loss", "tokens, thousands", "nats a byte", NULL, "loss", "variant", "mixer=flash", false,
     true, 0, 0, true},
    {"gau", "GAU: training loss", "tokens, thousands", "nats a byte", NULL, "loss", "variant", "mixer=gau", false, true,
     0, 0, true},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_gated = {
    .name = "gated",
    .title = {"What a gated model needs to learn fast", "门控模型怎样学得快"},
    .about =
        {"GAU and FLASH of 0.18 million parameters (width 64, 6 layers, s = 32, chunks of 64) on the stories of the "
         "built-in grammar, 300 steps of 4 x 256 bytes; one choice changed at a time.",
         "18 万参数的 GAU 与 FLASH（宽 64，6 层，s = 32，块长 64），内置语法的故事，300 步，每步 4 x 256 "
         "字节；每次只改一处。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"variant",
                {"variant", "变体"},
                {"as-is", "rate-x2", "init-gpt2", "init-zero-out", "rmsnorm", "layernorm", "post-norm", "token-shift",
                 "laplace", "paper-scale", "paper+zero-out", "paper+shift", "paper-no-bias", "no-rel-bias", "rel-bias",
                 "softmax"}},
               {"mixer", {"mixer", "混合器"}, {"gau", "flash"}}},
    .setup = setup,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
