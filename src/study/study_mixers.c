/* Mixers: models of equal parameters that differ only in what mixes the tokens, on the same tokens. */
#include "study/study.h"

#include <string.h>

enum { PARAMS = 180000, TOKENS = 1024 /* a step, whatever the context */ };

/* A Transformer layer has two halves, a gated unit is a whole: twice as many gated layers. */
#define LLAMA(own)                                                                                                     \
    "\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":8,\"num_hidden_layers\":3,"                     \
    "\"num_attention_heads\":4,\"max_position_embeddings\":1024,\"tie_word_embeddings\":true,"                         \
    "\"initializer_range\":0.04,\"tilia\":{" own "}}"
#define GATED(type, more, own)                                                                                         \
    "\"model_type\":\"" type "\",\"hidden_size\":64,\"num_hidden_layers\":" more ",\"shared_size\":32,"                \
    "\"max_position_embeddings\":1024,\"initializer_range\":0.04,\"tilia\":{" own "}}"
#define FLASH "6,\"expansion\":8,\"chunk_size\":64"

static const struct {
    const char *mixer, *config;
} rows[] = {
    {"softmax", LLAMA("")},
    {"window", LLAMA("\"window\":64")},
    {"window+full", LLAMA("\"window\":64,\"full_layers\":[2]")},
    {"gau", GATED("gau", "6,\"expansion\":8", "")},
    {"flash-quad", GATED("flash-quad", "6,\"expansion\":8", "")},
    {"flash", GATED("flash", FLASH, "")},
    {"flash-paper", GATED("flash", FLASH, "\"score_scale\":\"paper\"")},
    {"flash-local", GATED("flash", FLASH, "\"chunk_parts\":\"local\"")},
    {"flash-global", GATED("flash", FLASH, "\"chunk_parts\":\"global\",\"rel_bias\":false")},
    {"flash+softmax", GATED("flash", "5,\"expansion\":136,\"chunk_size\":64",
                            "\"mixers\":[\"flash\",\"flash\",\"flash\",\"attention\",\"flash\"],\"heads\":4,"
                            "\"head_dim\":16,\"kv_heads\":4,\"mlp\":8")},
    {"mc-tfm", LLAMA("\"mixers\":[\"mixed_chunk\"],\"chunk_size\":64")},
    {"longformer", LLAMA("\"mixers\":[\"longformer\"],\"window\":64,\"global_tokens\":4")},
    {"deltanet", LLAMA("\"mixers\":[\"deltanet\"]")},
    {"gated-deltanet", LLAMA("\"mixers\":[\"gated_deltanet\"]")},
    {"performer", LLAMA("\"mixers\":[\"performer\"]")},
    {"cosformer", LLAMA("\"mixers\":[\"cosformer\"]")},
};

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    const char *mixer = study_level(c, "mixer"), *config = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (strcmp(rows[i].mixer, mixer) == 0) config = rows[i].config;
    if (!config) return error_set(e, TL_UNSUPPORTED, "no mixer \"%s\"", mixer);
    TRY(study_config(l, &s->config, e, "%s", config));
    s->train.context = s->config.context = study_level_int(c, "context");
    s->train.rows = TOKENS / s->train.context;
    s->train.schedule = (schedule){TL_SCHEDULE_COSINE, 0.004, 0.0004, c->quick ? 2 : 20, c->quick ? 20 : 300};
    return study_match(l, &s->config, PARAMS, 4, e);
}

static const study_table tables[] = {
    {{"Bits per byte, by context length", "每字节比特数（按上下文长度）"}, "mixer", "context", NULL, {"bits_per_byte"}},
    {{"Processor time of training, microseconds a token (one thread; median step)",
      "训练的处理器时间，微秒/词元（单线程，取步的中位数）"},
     "mixer",
     "context",
     NULL,
     {"cpu_us"}},
    {{"Arithmetic: MFLOP a token, forward and backward", "计算量：每词元 MFLOP（前向与反向）"},
     "mixer",
     "context",
     NULL,
     {"mflop"}},
    {{"At context 1024", "上下文 1024 时"},
     "mixer",
     NULL,
     "context=1024",
     {"params", "bits_per_byte", "above_floor", "cpu_us", "mflop", "train_mb", "state_kb"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"quality", "Equal parameters: quality against arithmetic, context 1024", "MFLOP a token, forward and backward",
     "bits per byte", "mflop", "bits_per_byte", "mixer", "context=1024", false, false, 0, 0, false},
    {"loss", "Training loss at context 256", "tokens, thousands", "nats a byte", NULL, "loss", "mixer", "context=256",
     false, true, 0, 0, true},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_mixers = {
    .name = "mixers",
    .title = {"Mixers: what replaces attention, at equal parameters", "混合器：同等参数下各种注意力替代方案"},
    .about =
        {"Models of 0.18 million parameters (width 64; 3 Transformer layers or 6 gated ones; the width of the mlp, or "
         "of the gated expansion, makes the parameters equal) read the same stories of the built-in grammar as bytes, "
         "300 steps of 1024 bytes, in rows of the context length. Gated models scale scores by 1/sqrt(s) and divide "
         "by what a row sees; flash-paper as the paper's appendix does, relu2(S/c + B).",
         "各模型均为 18 万参数（宽 64；3 个 Transformer 层或 6 个门控层；以 mlp "
         "或门控扩展的宽度配平参数），以字节读入内置语法的"
         "同一批故事，300 步，每步 1024 字节，按上下文长度分行。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"mixer",
                {"mixer", "混合器"},
                {"softmax", "window", "window+full", "gau", "flash-quad", "flash", "flash-paper", "flash-local",
                 "flash-global", "flash+softmax", "mc-tfm", "performer", "cosformer", "longformer", "deltanet",
                 "gated-deltanet"}},
               {"context", {"context", "上下文"}, {"256", "1024"}}},
    .setup = setup,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
