/* A small predictor that chooses the chunk length of a text: three FLASH models of three lengths (a chunk's length is
 * part of a model, not a tile), and for each a line through features of a text's beginning that foretells its loss on
 * the rest. Measured beside the best fixed length and beside the choice that knows the losses. */
#include "data/loader.h"
#include "eval/eval.h"
#include "study/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    LENGTHS = 3,
    WINDOW = 512,    /* bytes of a text */
    BEGINNING = 128, /* of which so many are what the predictor reads; the loss is that of the rest */
    FIT = 160,       /* texts that it learns from: the end of the training part, which the models do not see */
    MOST = 256,
    FEATURES = 6,
    ROWS = 4,
    STEPS = 120
};

typedef struct choice {
    study_lab *lab;
    uint64_t seed;
    int64_t length[LENGTHS]; /* growing */
    tokens fit, test;
    int64_t n_fit, n_test;
    double x[2][MOST][FEATURES], loss[2][MOST][LENGTHS]; /* of what it learns from; of what is measured */
    double line[LENGTHS][FEATURES];
} choice;

/* ---- models ---------------------------------------------------------------------------------- */

static tl_status train(choice *c, tl_model *m, const tokens *text, tl_error *e) {
    const int64_t steps = c->lab->quick ? 4 : STEPS;
    const trainer_settings s = {.schedule = {TL_SCHEDULE_COSINE, 0.004, 0.0004, c->lab->quick ? 1 : 10, steps},
                                .rows = ROWS,
                                .micro = ROWS,
                                .context = WINDOW,
                                .dtype = TL_F32,
                                .beta1 = 0.9,
                                .beta2 = 0.98,
                                .eps = 1e-8,
                                .decay = 0.05,
                                .clip = 1,
                                .seed = c->seed};
    const loader_options o = {.mode = LOADER_WINDOWS, .B = ROWS, .T = WINDOW, .seed = c->seed, .across = true};
    trainer *t;
    loader *l = NULL;
    TRY(trainer_create(m, &s, &t, e));
    tl_status st = loader_open(m->alloc, text, &o, &l, e);
    for (int64_t i = 0; i < steps && st == TL_OK; i++) {
        tl_metrics got;
        if (c->lab->stop && c->lab->stop(c->lab->user))
            st = error_set(e, TL_CANCELLED, "stopped at step %lld", (long long)i);
        else
            st = trainer_step(t, l, &got, e);
    }
    loader_close(l);
    trainer_destroy(t);
    return st;
}

/* Nats a byte behind the beginning of every text. */
static tl_status measure(choice *c, tl_model *m, int part, int length, tl_error *e) {
    double nats[WINDOW];
    int64_t count[WINDOW];
    evaluator *v;
    TRY(evaluator_open(m, &(eval_options){.rows = 1, .context = WINDOW, .by_position = nats, .at_position = count}, &v,
                       e));
    tl_status s = TL_OK;
    const tokens *text = part ? &c->test : &c->fit;
    for (int64_t i = 0; i < (part ? c->n_test : c->n_fit) && s == TL_OK; i++) {
        const tokens one = tokens_slice(text, i * WINDOW, (i + 1) * WINDOW);
        eval_result r;
        double sum = 0;
        int64_t n = 0;
        memset(nats, 0, sizeof nats), memset(count, 0, sizeof count);
        s = evaluator_run(v, &one, &r, c->lab->stop, c->lab->user, e);
        for (int k = BEGINNING; k < WINDOW; k++) sum += nats[k], n += count[k];
        c->loss[part][i][length] = n ? sum / (double)n : 0;
    }
    evaluator_close(v);
    return s;
}

static tl_status one_length(choice *c, int k, const tokens *text, tl_error *e) {
    model_config config;
    tl_model *m;
    TRY(study_config(c->lab, &config, e,
                     "\"model_type\":\"flash\",\"hidden_size\":64,\"num_hidden_layers\":4,\"expansion\":176,"
                     "\"shared_size\":32,\"chunk_size\":%lld,\"initializer_range\":0.04,"
                     "\"max_position_embeddings\":512,\"tilia\":{\"rel_bias\":false}}",
                     (long long)c->length[k]));
    TRY(study_fit(c->lab, &config, e));
    TRY(model_create(c->lab->engine, &config, c->lab->corpus->tokenizer, c->seed, &m, e));
    tl_status s = train(c, m, text, e);
    for (int part = 0; part < 2 && s == TL_OK; part++) s = measure(c, m, part, k, e);
    model_close(m);
    return s;
}

/* ---- the predictor --------------------------------------------------------------------------- */

/* Of the beginning of a text: a one; distinct bytes; places where the byte behind the last three was seen behind them
 * before, and how far back; spaces; what is no small letter. */
static void features(const tokens *t, int64_t at, double x[FEATURES]) {
    bool seen[256] = {false};
    double kinds = 0, again = 0, back = 0, spaces = 0, others = 0;
    for (int64_t i = 0; i < BEGINNING; i++) {
        const int32_t id = tokens_at(t, at + i);
        if (id < 256 && !seen[id]) seen[id] = true, kinds++;
        spaces += id == ' ';
        others += id != ' ' && (id < 'a' || id > 'z');
        for (int64_t j = i - 1; j >= 3 && i >= 3; j--) {
            bool same = true;
            for (int k = 0; k < 4; k++) same = same && tokens_at(t, at + i - k) == tokens_at(t, at + j - k);
            if (!same) continue;
            again++, back += (double)(i - j) / BEGINNING;
            break;
        }
    }
    const double all[FEATURES] = {
        1, kinds / BEGINNING, again / BEGINNING, again > 0 ? back / again : 0, spaces / BEGINNING, others / BEGINNING};
    memcpy(x, all, sizeof all);
}

/* (X^T X + ridge) w = X^T y by elimination; the ridge keeps it regular, so no pivots are looked for. */
static void solve(double a[FEATURES][FEATURES + 1], double w[FEATURES]) {
    for (int i = 0; i < FEATURES; i++)
        for (int r = i + 1; r < FEATURES; r++) {
            const double by = a[r][i] / a[i][i];
            for (int k = i; k <= FEATURES; k++) a[r][k] -= by * a[i][k];
        }
    for (int i = FEATURES - 1; i >= 0; i--) {
        w[i] = a[i][FEATURES];
        for (int k = i + 1; k < FEATURES; k++) w[i] -= a[i][k] * w[k];
        w[i] /= a[i][i];
    }
}

static double mean_of(const double loss[LENGTHS]) {
    double sum = 0;
    for (int k = 0; k < LENGTHS; k++) sum += loss[k];
    return sum / LENGTHS;
}

/* A line for each length: what its loss is above the mean of the three. */
static void fit(choice *c) {
    for (int length = 0; length < LENGTHS; length++) {
        double a[FEATURES][FEATURES + 1] = {{0}};
        for (int64_t i = 0; i < c->n_fit; i++) {
            const double *x = c->x[0][i], y = c->loss[0][i][length] - mean_of(c->loss[0][i]);
            for (int r = 0; r < FEATURES; r++) {
                for (int k = 0; k < FEATURES; k++) a[r][k] += x[r] * x[k];
                a[r][FEATURES] += x[r] * y;
            }
        }
        for (int r = 0; r < FEATURES; r++) a[r][r] += r ? 0.01 : 1e-9;
        solve(a, c->line[length]);
    }
}

static int least(const double x[LENGTHS]) {
    int best = 0;
    for (int k = 1; k < LENGTHS; k++)
        if (x[k] < x[best]) best = k;
    return best;
}

static int predict(const choice *c, const double x[FEATURES]) {
    double y[LENGTHS] = {0};
    for (int k = 0; k < LENGTHS; k++)
        for (int f = 0; f < FEATURES; f++) y[k] += c->line[k][f] * x[f];
    return least(y);
}

static void judge(const choice *c, study_measured *m) {
    double known[LENGTHS] = {0}, each[LENGTHS] = {0}, chosen = 0, best = 0, right = 0;
    const double n = (double)c->n_test;
    for (int64_t i = 0; i < c->n_fit; i++)
        for (int k = 0; k < LENGTHS; k++) known[k] += c->loss[0][i][k];
    const int fixed = least(known); /* by the texts that the predictor knows too */
    for (int64_t i = 0; i < c->n_test; i++) {
        const double *loss = c->loss[1][i];
        const int mine = predict(c, c->x[1][i]), first = least(loss);
        for (int k = 0; k < LENGTHS; k++) each[k] += loss[k] / n;
        chosen += loss[mine] / n, best += loss[first] / n, right += (mine == first) / n;
    }
    study_value(m, "short", each[0]);
    study_value(m, "middle", each[1]);
    study_value(m, "long", each[2]);
    study_value(m, "fixed", each[fixed]);
    study_value(m, "chosen", chosen);
    study_value(m, "hindsight", best);
    study_value(m, "gain", chosen - each[fixed]);
    study_value(m, "room", best - each[fixed]);
    study_value(m, "right", right);
}

/* ---- the study ------------------------------------------------------------------------------- */

static tl_status all(choice *c, study_measured *m, tl_error *e) {
    const study_corpus *corpus = c->lab->corpus;
    const int64_t seen = corpus->train.n - (int64_t)FIT * WINDOW;
    const tokens text = tokens_slice(&corpus->train, 0, seen);
    c->fit = tokens_slice(&corpus->train, seen, corpus->train.n);
    c->test = corpus->held;
    c->n_fit = c->lab->quick ? 16 : FIT;
    c->n_test = c->test.n / WINDOW < MOST ? c->test.n / WINDOW : MOST;
    if (c->lab->quick && c->n_test > 8) c->n_test = 8;
    for (int64_t i = 0; i < c->n_fit; i++) features(&c->fit, i * WINDOW, c->x[0][i]);
    for (int64_t i = 0; i < c->n_test; i++) features(&c->test, i * WINDOW, c->x[1][i]);
    for (int k = 0; k < LENGTHS; k++) TRY(one_length(c, k, &text, e));
    fit(c);
    judge(c, m);
    return TL_OK;
}

static tl_status run(study_lab *l, const study_cell *cell, uint64_t seed, study_measured *m, tl_error *e) {
    const tl_allocator *a = tl_engine_allocator(l->engine);
    choice *c = mem_new(a, 1, sizeof *c);
    if (!c) return error_set(e, TL_NOMEM, "no memory for losses of texts");
    c->lab = l, c->seed = seed;
    const char *at = study_level(cell, "lengths");
    for (int k = 0; k < LENGTHS; k++) { /* "8-16-32" */
        c->length[k] = strtoll(at, NULL, 10);
        at += strcspn(at, "-");
        at += *at == '-';
    }
    tl_status s = all(c, m, e);
    mem_free(a, c);
    return s;
}

static const study_metric metrics[] = {
    {"short", {"the shortest", "最短"}, 1, 4, false},
    {"middle", {"the middle one", "居中"}, 1, 4, false},
    {"long", {"the longest", "最长"}, 1, 4, false},
    {"fixed", {"the best fixed length", "最佳固定块长"}, 1, 4, false},
    {"chosen", {"chosen by the predictor", "由预测器选择"}, 1, 4, false},
    {"hindsight", {"chosen with hindsight", "事后选择"}, 1, 4, false},
    {"gain", {"predictor minus fixed", "预测器减固定"}, 1, 4, false},
    {"room", {"hindsight minus fixed", "事后减固定"}, 1, 4, false},
    {"right", {"texts where the predictor is right", "预测正确的文本比例"}, 1, 2, false},
    {NULL, {NULL, NULL}, 0, 0, false},
};

static const study_table tables[] = {
    {{"Nats a byte of 512 bytes, the first 128 left out", "512 字节中除去前 128 字节的每字节奈特数"},
     "lengths",
     NULL,
     NULL,
     {"short", "middle", "long", "fixed", "chosen", "hindsight", "right"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};

const study study_choice = {
    .name = "choice",
    .title = {"A chunk length for every text", "为每段文本选择块长"},
    .about =
        {"Three models of FLASH (width 64, 4 layers, s = 32, 0.17 million parameters) with chunks of three lengths "
         "read the same stories, 120 steps of 4 x 512 bytes. For every model a line through six features of a text's "
         "first 128 bytes (distinct bytes, repeated runs of four and how far back they lie, spaces, other signs) "
         "learns "
         "from 160 texts of 512 bytes what the model's loss on the rest will be against the others'; the length with "
         "the least is chosen for texts that nobody has seen. Beside it the one length that is best on the 160 texts, "
         "and the choice of one who knows the losses.",
         "三个 FLASH 模型（宽 64，4 层，s = 32，17 万参数），三种块长，读同样的故事，120 步，每步 4 x 512 "
         "字节。对每个模型，以文本前 128 字节的六个特征（不同字节、重复四元组及其距离、空格、其他符号）拟合一条直线，"
         "从 160 段 512 字节的文本学习其余部分的相对损失；对未见文本选预测损失最小的块长，并与固定最佳块长及事后选择"
         "比较。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"lengths", {"chunk lengths", "块长"}, {"8-16-32", "16-64-256"}}},
    .run = run,
    .metric = metrics,
    .table = tables,
    .seeds = 3,
};
