/* Mixers that see both sides: models of equal parameters that differ only in what mixes the tokens, learning to guess
 * hidden tokens (masked language modelling). Here alone can Linformer and Nystromformer compete. */
#include "study/study.h"

enum { PARAMS = 280000, TOKENS = 1024 /* a step, whatever the context */ };

/* A Transformer layer has two halves, a gated unit is a whole: twice as many gated layers. */
#define BLOCKS(own)                                                                                                    \
    "\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":8,\"num_hidden_layers\":3,"                     \
    "\"num_attention_heads\":4,\"tie_word_embeddings\":true,\"initializer_range\":0.04,"                               \
    "\"tilia\":{\"objective\":\"mlm\"" own "},"
#define GATED(type, own)                                                                                               \
    "\"model_type\":\"" type "\",\"hidden_size\":64,\"num_hidden_layers\":6,\"expansion\":8,\"shared_size\":32," own   \
    "\"initializer_range\":0.04,\"tilia\":{\"objective\":\"mlm\"},"

static const struct {
    const char *mixer, *config;
} rows[] = {
    {"softmax", BLOCKS("")},
    {"gau", GATED("gau", "")},
    {"flash", GATED("flash", "\"chunk_size\":64,")},
    {"mc-tfm", BLOCKS(",\"mixers\":[\"mixed_chunk\"],\"chunk_size\":64")},
    {"performer", BLOCKS(",\"mixers\":[\"performer\"]")},
    {"linformer", BLOCKS(",\"mixers\":[\"linformer\"],\"landmarks\":32")},
    {"nystromformer", BLOCKS(",\"mixers\":[\"nystromformer\"],\"landmarks\":32")},
};

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    const int64_t context = study_level_int(c, "context");
    size_t i;
    TRY(study_row(c, "mixer", rows, sizeof rows / sizeof *rows, sizeof *rows, &i, e));
    TRY(study_config(l, &s->config, e, "%s\"max_position_embeddings\":%lld}", rows[i].config, (long long)context));
    study_steps(s, c, context, TOKENS / context, 0.004, 20, 400);
    return study_match(l, &s->config, PARAMS, 4, e);
}

static const study_table tables[] = {
    {{"Nats a hidden byte, by context length", "每个被遮字节的奈特数（按上下文长度）"},
     "mixer",
     "context",
     NULL,
     {"val_loss"}},
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
     {"params", "val_loss", "train_loss", "cpu_us", "mflop", "train_mb"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"quality", "Hidden bytes: quality against arithmetic, context 1024", "MFLOP a token, forward and backward",
     "nats a hidden byte", "mflop", "val_loss", "mixer", "context=1024", false, false, 0, 0, false},
    {"loss", "Hidden bytes: training loss at context 256", "tokens, thousands", "nats a hidden byte", NULL, "loss",
     "mixer", "context=256", false, true, 0, 0, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_mixers_mlm = {
    .name = "mixers-mlm",
    .title = {"Mixers that see both sides: hidden bytes", "双向混合器：被遮字节"},
    .about =
        {"Models of 0.28 million parameters (width 64; 3 Transformer layers or 6 gated ones; the width of the mlp, or "
         "of the gated expansion, makes the parameters equal; Linformer's projections count) guess hidden bytes of the "
         "built-in grammar's stories: 15 % are to be guessed, of which 80 % are hidden, 10 % replaced, 10 % left. 400 "
         "steps of 1024 bytes, in rows of the context length. Chunks of 64; Linformer and Nystromformer have 32 rows "
         "in the place of all keys. The loss counts the bytes to be guessed alone, the same ones in every validation.",
         "各模型均为 28 万参数（宽 64；3 个 Transformer 层或 6 个门控层；以 mlp 或门控扩展的宽度配平参数，Linformer "
         "的投影计入），猜测内置语法故事中被遮的字节：15 % 待猜，其中 80 % 遮住、10 % 换掉、10 % 不变。400 步，每步 "
         "1024 字节，按上下文长度分行。块长 64；Linformer 与 Nystromformer 以 32 行代替全部键。损失只计待猜字节，"
         "每次验证相同。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"mixer",
                {"mixer", "混合器"},
                {"softmax", "gau", "flash", "mc-tfm", "performer", "linformer", "nystromformer"}},
               {"context", {"context", "上下文"}, {"256", "1024"}}},
    .setup = setup,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
