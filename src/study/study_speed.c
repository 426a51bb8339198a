/* Speed: forward, backward and update of one Transformer layer against two gated layers of equal parameters at D 768,
 * by length; processor time, and the share of what the plan's arithmetic promises. */
#include "study/study.h"

#include <math.h>
#include <string.h>
#include <time.h>

static tl_status configure(const study_cell *c, model_config *m, tl_error *e) {
    const char *mixer = study_level(c, "mixer");
    const bool small = c->quick;
    char text[512];
    if (strcmp(mixer, "softmax") == 0)
        snprintf(text, sizeof text,
                 "{\"model_type\":\"llama\",\"vocab_size\":256,\"hidden_size\":%d,\"intermediate_size\":%d,"
                 "\"num_hidden_layers\":1,\"num_attention_heads\":%d,\"max_position_embeddings\":65536,"
                 "\"tie_word_embeddings\":true}",
                 small ? 64 : 768, small ? 168 : 2048, small ? 4 : 12);
    else
        snprintf(
            text, sizeof text,
            "{\"model_type\":\"%s\",\"vocab_size\":256,\"hidden_size\":%d,\"num_hidden_layers\":2,\"expansion\":%d,"
            "\"shared_size\":%d,\"max_position_embeddings\":65536%s}",
            mixer, small ? 64 : 768, small ? 128 : 1536, small ? 32 : 128,
            strcmp(mixer, "flash") == 0 ? small ? ",\"chunk_size\":64" : ",\"chunk_size\":256" : "");
    return config_parse(text, m, NULL, 0, e);
}

static double cpu(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Whole steps on ids that mean nothing: one to warm up, then the fastest of up to three, within about ten seconds. */
static tl_status time_steps(trainer *t, const int32_t *ids, study_measured *m, tl_error *e) {
    double best = (double)INFINITY, begin = cpu();
    tl_metrics got;
    TRY(trainer_step_ids(t, ids, &got, e));
    double first = cpu() - begin;
    for (int i = 0; i < 3 && (i == 0 || first * (i + 1) < 10); i++) {
        begin = cpu();
        TRY(trainer_step_ids(t, ids, &got, e));
        best = fmin(best, cpu() - begin);
    }
    const double n = (double)t->set.context;
    study_value(m, "cpu_us", best / n * 1e6);
    study_value(m, "mflop", t->flops / n / 1e6);
    study_value(m, "gflops", t->flops / best / 1e9);
    study_value(m, "train_mb", (double)t->bytes.total / 1e6);
    study_value(m, "params", (double)t->model->params.count);
    return TL_OK;
}

static tl_status run(study_lab *l, const study_cell *c, uint64_t seed, study_measured *m, tl_error *e) {
    const tl_allocator *a = tl_engine_allocator(l->engine);
    const int64_t n = study_level_int(c, "context") / (c->quick ? 16 : 1);
    model_config config;
    tl_model *model = NULL;
    trainer *t = NULL;
    TRY(configure(c, &config, e));
    trainer_settings s = {.schedule = {TL_SCHEDULE_CONSTANT, 1e-4, 0, 0, 100},
                          .rows = 1,
                          .micro = 1,
                          .context = n,
                          .dtype = TL_F32,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .clip = 1,
                          .seed = seed};
    int32_t *ids = mem_new(a, (size_t)n + 1, sizeof *ids);
    tl_status st = ids ? model_create(l->engine, &config, NULL, seed, &model, e) : TL_NOMEM;
    if (st == TL_OK) st = trainer_create(model, &s, &t, e);
    for (int64_t i = 0; ids && i <= n; i++) ids[i] = (int32_t)((uint64_t)i * 2654435761u >> 7 & 255);
    if (st == TL_OK) st = time_steps(t, ids, m, e);
    trainer_destroy(t);
    model_close(model);
    mem_free(a, ids);
    return st;
}

static const study_metric metrics[] = {
    {"gflops", {"GFLOP/s", "GFLOP/s"}, 1, 0, false},
    {NULL, {NULL, NULL}, 0, 0, false},
};

static const study_table tables[] = {
    {{"Processor time of a training step, microseconds a token", "训练一步的处理器时间，微秒/词元"},
     "mixer",
     "context",
     NULL,
     {"cpu_us"}},
    {{"Arithmetic, MFLOP a token", "计算量，每词元 MFLOP"}, "mixer", "context", NULL, {"mflop"}},
    {{"Arithmetic per second, GFLOP/s", "每秒计算量，GFLOP/s"}, "mixer", "context", NULL, {"gflops"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

static const study_plot plots[] = {
    {"time", "One Transformer layer against two gated ones, D 768", "context, tokens", "microseconds a token",
     "context", "cpu_us", "mixer", NULL, true, true, 0, 0, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};

const study study_speed = {
    .name = "speed",
    .title = {"Speed: where FLASH overtakes softmax attention", "速度：FLASH 在何处超过 softmax 注意力"},
    .about =
        {"One Transformer layer (D 768, 12 heads, SwiGLU of 2048) against two gated layers (e = 1536, s = 128, chunks "
         "of "
         "256), 7.3 and 7.5 million parameters with their tiny vocabulary: whole training steps, one sequence, one "
         "thread, f32. Processor time, the fastest of up to three steps.",
         "一个 Transformer 层（D 768，12 头，SwiGLU 2048）与两个门控层（e = 1536，s = 128，块长 "
         "256）比较：完整训练步，单序列，单线程，"
         "f32。处理器时间取至多三步中最快者。"},
    .corpus = CORPUS_NONE,
    .factor = {{"mixer", {"mixer", "混合器"}, {"softmax", "flash-quad", "flash"}},
               {"context", {"context", "上下文"}, {"1024", "2048", "4096", "8192", "16384", "32768"}}},
    .run = run,
    .metric = metrics,
    .table = tables,
    .plot = plots,
    .seeds = 3,
};
