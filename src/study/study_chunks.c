/* Chunks of FLASH: how long they should be, and whether the loss shows their borders. */
#include "study/study.h"

#include <string.h>

enum { CONTEXT = 2048 };

/* What a level asks beside the chunk's length, keys of the "tilia" object: "128-overlap", "64-outer512". */
static const struct {
    const char *name, *keys;
} extras[] = {
    {"-overlap", ",\"chunk_overlap\":true"},
    {"-outer512", ",\"chunk_outer\":512"},
    {"-landmarks2", ",\"chunk_landmarks\":2"},
};

static const char *extra_keys(const study_cell *c) {
    const char *level = study_level(c, "chunk"), *tail = strchr(level, '-');
    for (size_t i = 0; tail && i < sizeof extras / sizeof *extras; i++)
        if (strcmp(extras[i].name, tail) == 0) return extras[i].keys;
    return "";
}

static tl_status setup(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    const int64_t chunk = study_level_int(c, "chunk");
    TRY(study_config(l, &s->config, e,
                     "\"model_type\":\"flash\",\"hidden_size\":64,\"num_hidden_layers\":4,\"expansion\":176,"
                     "\"shared_size\":32,\"chunk_size\":%lld,\"initializer_range\":0.04,"
                     "\"max_position_embeddings\":2048,\"tilia\":{\"rel_bias\":false%s}}",
                     (long long)chunk, extra_keys(c)));
    s->train.context = CONTEXT;
    s->train.rows = 1;
    s->train.schedule = (schedule){TL_SCHEDULE_COSINE, 0.004, 0.0004, c->quick ? 2 : 20, c->quick ? 6 : 200};
    return TL_OK;
}

/* Loss by place inside a chunk, chunks after the first: sixteenths, and the first sixteenth against the rest. */
static void fold(study_measured *m, int64_t chunk, const double *nats, const int64_t *count) {
    double sum[16] = {0}, x[16], y[16], rest = 0;
    int64_t n[16] = {0}, others = 0;
    for (int64_t i = chunk < CONTEXT ? chunk : 0; i < CONTEXT; i++) {
        int64_t k = i % chunk * 16 / chunk;
        sum[k] += nats[i];
        n[k] += count[i];
    }
    for (int k = 0; k < 16; k++) {
        x[k] = (k + 0.5) / 16;
        y[k] = n[k] ? sum[k] / (double)n[k] : 0;
        if (k) rest += sum[k], others += n[k];
    }
    study_curve(m, "inside", 16, x, y);
    study_value(m, "edge", y[0] - (others ? rest / (double)others : 0));
}

static tl_status measure(study_lab *l, const study_cell *c, trainer *t, study_measured *m, tl_error *e) {
    const tl_allocator *a = t->model->alloc;
    (void)c;
    double *nats = mem_new(a, CONTEXT, sizeof *nats);
    int64_t *count = mem_new(a, CONTEXT, sizeof *count);
    tl_status s = nats && count ? study_by_position(l, t->model, CONTEXT, nats, count, e)
                                : error_set(e, TL_NOMEM, "no memory for losses by position");
    const model_config *of = &t->model->config;
    if (s == TL_OK) fold(m, of->chunk_overlap ? of->chunk / 2 : of->chunk, nats, count);
    mem_free(a, nats);
    mem_free(a, count);
    return s;
}

static const study_metric metrics[] = {
    {"edge", {"first sixteenth of a chunk against the rest, nats", "块首十六分之一与其余之差（奈特）"}, 1, 4, false},
    {NULL, {NULL, NULL}, 0, 0, false},
};

static const study_table tables[] = {
    {{"By chunk length", "按块长"},
     "chunk",
     NULL,
     NULL,
     {"val_loss", "bits_per_byte", "above_floor", "edge", "cpu_us", "mflop", "state_kb"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

#define PLAIN "chunk=16|64|128|256|512|1024" /* alone these have a number for an x */
static const study_plot plots[] = {
    {"quality", "Bits per byte by chunk length (context 2048)", "chunk, bytes", "bits per byte", "chunk",
     "bits_per_byte", NULL, PLAIN, true, false, 0, 0, false},
    {"speed", "Processor time of training by chunk length", "chunk, bytes", "microseconds a byte", "chunk", "cpu_us",
     NULL, PLAIN, true, false, 0, 0, false},
    {"inside", "Loss by place inside a chunk", "place inside the chunk (0 to 1)", "nats a byte", NULL, "inside",
     "chunk", PLAIN, false, false, 0, 0, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_chunks = {
    .name = "chunks",
    .title = {"Chunks of FLASH", "FLASH 的分块"},
    .about =
        {"FLASH (width 64, 4 layers, s = 32, 0.17 million parameters, no table of relative positions) with chunks of "
         "64 "
         "to 1024 bytes reads stories of the built-in grammar in windows of 2048 (200 steps of one window). Inside a "
         "chunk attention is exact, before it there is only the linear sum: does the loss show where a chunk begins? "
         "overlap: by halves of a chunk, of which a byte sees its own and the one before exactly; outer512: a level "
         "above, blocks of 512 with a sum of their own before them; landmarks2: two far chunks of a byte's choice "
         "exactly.",
         "FLASH（宽 64，4 层，s = 32，17 万参数，无相对位置表），块长 64 至 1024 字节，在 2048 "
         "字节的窗口上读内置语法的故事（200 步，"
         "每步一个窗口）。块内注意力是精确的，块前只有线性求和：损失能看出块的起点吗？overlap："
         "以半块为单位，精确看见本半块与前一半块；outer512：上一层为 512 "
         "的大块，其前另有一个和；landmarks2：每个字节自选两个远块精确可达。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"chunk",
                {"chunk", "块长"},
                {"16", "64", "128", "256", "512", "1024", "32-overlap", "128-overlap", "256-overlap", "16-outer512",
                 "64-outer512", "128-outer512", "64-landmarks2", "128-landmarks2"}}},
    .setup = setup,
    .measure = measure,
    .metric = metrics,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
