/* tilia demo: trains a small model for about a minute on stories drawn from a grammar whose entropy is known, shows the
 * loss closing in on that floor, and tells a story that the grammar's own parser judges. */
#include "cli/cli.h"

#include "base/file.h"
#include "data/story.h"
#include "eval/eval.h"
#include "infer/session.h"
#include "runlog/metrics.h"
#include "runlog/plot.h"
#include "train/checkpoint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum {
    KEY_LANG = 1,
    KEY_SECONDS,
    KEY_OUT,
    KEY_DTYPE,
    KEY_PRESET,
    KEY_ROWS,
    KEY_LR,
    CONTEXT = 256,
    VOCAB = 2048,              /* of the tokenizer that is trained first: every word of the grammar gets a token */
    TOKENIZER_BYTES = 1 << 20, /* of stories that it is trained on */
    VALIDATION = 160,          /* stories, about 60 kB: enough for a mean within half a percent */
    GLANCE = 24,               /* of them, looked at while training */
    POINTS = 4096,
    TRIES = 40, /* stories told at most until one is grammatical, later ones at lower temperatures */
};

typedef struct options {
    cli_common common;
    story_lang lang;
    double seconds, lr;
    const char *prompt, *out, *preset;
    tl_dtype dtype;
    int64_t rows;
} options;

typedef struct demo {
    const options *o;
    tl_engine *engine;
    const tl_allocator *alloc;
    tl_tokenizer *tokenizer;
    tl_model *model;
    token_store train, val;
    tokens glance;              /* the first stories of val */
    double floor, glance_floor; /* nats per token of all of val, of the glance */
    trainer *trainer;
    evaluator *eval;
    metrics_writer metrics;
    char run[512];
    double start;
    double *x, *loss, *vx, *vloss; /* points for the plot */
    size_t n, vn;
    double val_loss;
    str story;
    bool grammatical;
    int tries;
} demo;

/* ---- arguments -------------------------------------------------------------------------------------------- */

static const struct argp_option table[] = {
    {"lang", KEY_LANG, "en|zh", 0, "language of the stories (default en)", 0},
    {"seconds", KEY_SECONDS, "S", 0, "how long to train (default 60)", 0},
    {"prompt", 'p', "TEXT", 0, "how the story shall begin; it must be a beginning that the grammar knows", 0},
    {"out", KEY_OUT, "DIR", 0, "run directory (default runs/demo-LANG-TIME)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default f32)", 0},
    {"preset", KEY_PRESET, "NAME", OPTION_HIDDEN, "another model", 0},
    {"rows", KEY_ROWS, "N", OPTION_HIDDEN, "sequences of 256 tokens a step", 0},
    {"lr", KEY_LR, "X", OPTION_HIDDEN, "peak learning rate", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_LANG:
        if (!story_lang_parse(arg, &o->lang)) argp_error(st, "--lang is \"%s\"; it can be en or zh", arg);
        return 0;
    case KEY_SECONDS: o->seconds = cli_real(st, "--seconds", arg, 1, 1e6); return 0;
    case 'p': o->prompt = arg; return 0;
    case KEY_OUT: o->out = arg; return 0;
    case KEY_PRESET: o->preset = arg; return 0;
    case KEY_ROWS: o->rows = cli_int(st, "--rows", arg, 1, 1024); return 0;
    case KEY_LR: o->lr = cli_real(st, "--lr", arg, 1e-7, 1); return 0;
    case KEY_DTYPE:
        o->dtype = tl_dtype_parse(arg);
        if (o->dtype != TL_F32 && o->dtype != TL_BF16) argp_error(st, "--dtype is \"%s\"; it can be f32 or bf16", arg);
        return 0;
    case ARGP_KEY_ARG: argp_error(st, "no arguments are taken, only options"); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    NULL,
    "Trains a small model for about a minute on stories from a probabilistic grammar. The grammar's "
    "entropy is known exactly, so the loss can be watched closing in on a floor that no model can "
    "beat. Then the model tells a story, and the grammar's parser says whether it is one.",
    children,
    NULL,
    NULL};

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- stories ------------------------------------------------------------------------------------------------- */

/* Appends stories first.. of a seed to s until there are `count` of them or `bytes` bytes; *nats gets their sum. */
static tl_status add_stories(demo *d, token_store *s, uint64_t seed, uint64_t first, int64_t count, int64_t bytes,
                             double *nats, tl_error *e) {
    str text;
    token_list ids;
    str_init(&text, d->alloc);
    token_list_init(&ids, d->alloc);
    tl_status st = TL_OK;
    for (uint64_t i = first; st == TL_OK && (count ? i < first + (uint64_t)count : s->view.n < bytes); i++) {
        double p = 0;
        str_clear(&text);
        ids.n = 0;
        st = story_generate(d->o->lang, seed, i, &text, &p);
        if (st == TL_OK) st = tokenizer_encode(d->tokenizer, text.data, text.len, 0, &ids, e);
        if (st == TL_OK) st = token_store_add(s, ids.id, ids.n, e);
        if (st == TL_OK) st = token_store_end(s, e);
        if (nats) *nats += p;
    }
    token_list_fini(&ids);
    str_fini(&text);
    return st;
}

/* Seeds of training and validation differ, so no story is in both but by the grammar's own chance. */
static uint64_t train_seed(const demo *d) {
    return 2 * d->o->common.seed;
}
static uint64_t val_seed(const demo *d) {
    return 2 * d->o->common.seed + 1;
}

static tl_status make_validation(demo *d, tl_error *e) {
    double nats = 0;
    TRY(add_stories(d, &d->val, val_seed(d), 0, GLANCE, 0, &nats, e));
    int64_t n = d->val.view.n;
    d->glance_floor = nats / (double)n;
    TRY(add_stories(d, &d->val, val_seed(d), GLANCE, VALIDATION - GLANCE, 0, &nats, e));
    d->glance = tokens_slice(&d->val.view, 0, n);
    d->floor = nats / (double)d->val.view.n;
    return TL_OK;
}

/* ---- progress --------------------------------------------------------------------------------------------------- */

static int columns(void) {
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col >= 40 ? w.ws_col : 80;
}

static void progress(const demo *d, const tl_metrics *m, double elapsed, double tokens_per_second) {
    if (d->o->common.quiet) return;
    double share = elapsed / d->o->seconds;
    if (!isatty(STDERR_FILENO)) {
        fprintf(stderr, "step %lld | loss %.4f | val %.4f | floor %.4f | lr %.2e | %.0f tok/s | %.0f s\n",
                (long long)m->step, m->loss, d->val_loss, d->glance_floor, m->lr, tokens_per_second, elapsed);
        return;
    }
    char bar[21];
    for (int i = 0; i < 20; i++) bar[i] = i < (int)(20 * fmin(share, 1)) ? '#' : '.';
    bar[20] = 0;
    fprintf(stderr, "\r[%s] step %lld | loss %.4f | val %.4f | floor %.4f | %.0f tok/s | %.0f s \033[K", bar,
            (long long)m->step, m->loss, d->val_loss, d->glance_floor, tokens_per_second, elapsed);
}

/* ---- tokenizer ----------------------------------------------------------------------------------------------- */

/* A byte-level BPE of the stories' own words, as `tilia tokenizer train` makes it. */
static tl_status make_tokenizer(demo *d, tl_error *e) {
    static const char *const special[] = {"<|endoftext|>"};
    tokenizer_train_options o = {
        .vocab = VOCAB, .min_count = 2, .split = "gpt2", .special = special, .special_n = 1, .threads = 1};
    token_trainer *r;
    str text;
    TRY(token_trainer_open(d->alloc, &o, &r, e));
    str_init(&text, d->alloc);
    tl_status st = TL_OK;
    size_t bytes = 0;
    for (uint64_t i = 0; st == TL_OK && bytes < TOKENIZER_BYTES; i++) {
        str_clear(&text);
        st = story_generate(d->o->lang, train_seed(d), i, &text, NULL);
        if (st == TL_OK) st = token_trainer_text(r, text.data, text.len, e);
        bytes += text.len;
    }
    if (st == TL_OK) st = token_trainer_finish(r, &d->tokenizer, NULL, e);
    token_trainer_close(r);
    str_fini(&text);
    return st;
}

/* ---- training ------------------------------------------------------------------------------------------------------
 */

static tl_status make_model(demo *d, tl_error *e) {
    const options *o = d->o;
    model_config c;
    TRY(make_tokenizer(d, e));
    TRY(config_preset(o->preset, &c, e));
    model_fit_tokenizer(&c, d->tokenizer);
    c.context = CONTEXT;
    c.init_std = 0.04; /* small models learn faster from weights that are not as small as a large model's */
    TRY(model_create(d->engine, &c, d->tokenizer, o->common.seed, &d->model, e));
    token_store_init(&d->train, d->alloc, c.vocab, c.eos);
    token_store_init(&d->val, d->alloc, c.vocab, c.eos);
    TRY(make_validation(d, e));
    trainer_settings s = {
        .schedule = {.kind = TL_SCHEDULE_COSINE, .lr = o->lr, .min_lr = o->lr / 50, .warmup = 30, .steps = 1000},
        .rows = o->rows,
        .micro = o->rows,
        .context = CONTEXT,
        .dtype = o->dtype,
        .beta1 = 0.9,
        .beta2 = 0.98,
        .eps = 1e-8,
        .decay = 0.05,
        .clip = 1,
        .packed = true,
        .seed = o->common.seed};
    TRY(trainer_create(d->model, &s, &d->trainer, e));
    return evaluator_open(d->model, &(eval_options){.context = CONTEXT, .dtype = o->dtype, .packed = true}, &d->eval,
                          e);
}

static tl_status open_loader(demo *d, loader **l, tl_error *e) {
    loader_options o = {.mode = LOADER_PACKED, .B = d->o->rows, .T = CONTEXT, .seed = d->o->common.seed};
    return loader_open(d->alloc, &d->train.view, &o, l, e);
}

/* Enough stories that none is seen twice: measured on a few, for the time given. */
static tl_status make_training(demo *d, loader **l, tl_error *e) {
    int64_t step_tokens = d->o->rows * CONTEXT;
    double seconds = 0;
    TRY(add_stories(d, &d->train, train_seed(d), 0, 0, 8 * step_tokens, NULL, e));
    TRY(open_loader(d, l, e));
    TRY(trainer_probe(d->trainer, *l, &seconds, e)); /* the first one warms caches and clocks */
    TRY(trainer_probe(d->trainer, *l, &seconds, e));
    loader_close(*l);
    *l = NULL;
    int64_t steps = (int64_t)(d->o->seconds / seconds) + 1;
    d->trainer->set.schedule.steps = steps;
    if (d->trainer->set.schedule.warmup > steps / 10) d->trainer->set.schedule.warmup = steps / 10;
    TRY(add_stories(d, &d->train, train_seed(d), (uint64_t)d->train.view.documents, 0,
                    (steps + steps / 4 + 8) * step_tokens, NULL, e));
    return open_loader(d, l, e);
}

static tl_status glance(demo *d, double elapsed, tl_error *e) {
    eval_result r;
    TRY(evaluator_run(d->eval, &d->glance, &r, NULL, NULL, e));
    d->val_loss = r.loss;
    if (d->vn < POINTS) {
        d->vx[d->vn] = elapsed;
        d->vloss[d->vn++] = r.loss;
    }
    return TL_OK;
}

static tl_status note(demo *d, const tl_metrics *m, double elapsed, bool looked, tl_error *e) {
    if (d->n < POINTS) {
        d->x[d->n] = elapsed;
        d->loss[d->n++] = m->loss;
    }
    metrics_begin(&d->metrics, m->step);
    metrics_real(&d->metrics, "loss", m->loss);
    metrics_real(&d->metrics, "norm", m->norm);
    metrics_real(&d->metrics, "lr", m->lr);
    metrics_real(&d->metrics, "seconds", elapsed);
    if (looked) metrics_real(&d->metrics, "val_loss", d->val_loss);
    return metrics_end(&d->metrics, false, e);
}

/* Steps until the time is over; the schedule's end follows the speed that is measured. */
static tl_status train(demo *d, loader *l, tl_error *e) {
    double shown = -1e9, looked = -1e9, begin = now();
    schedule *sch = &d->trainer->set.schedule;
    for (double elapsed = 0; elapsed < d->o->seconds && !cli_signal();) {
        tl_metrics m;
        TRY(trainer_step(d->trainer, l, &m, e));
        elapsed = now() - begin;
        double rate = (double)m.step / elapsed;
        if (m.step >= 8) sch->steps = (int64_t)(rate * d->o->seconds);
        bool look = elapsed - looked > d->o->seconds / 15;
        if (look) {
            TRY(glance(d, elapsed, e));
            looked = elapsed;
        }
        TRY(note(d, &m, elapsed, look, e));
        if (elapsed - shown > (isatty(STDERR_FILENO) ? 0.2 : d->o->seconds / 15) || elapsed >= d->o->seconds) {
            progress(d, &m, elapsed, rate * (double)(d->o->rows * CONTEXT));
            shown = elapsed;
        }
    }
    if (!d->o->common.quiet && isatty(STDERR_FILENO)) fputc('\n', stderr);
    return TL_OK;
}

/* ---- the story
 * -------------------------------------------------------------------------------------------------------- */

/* The first words of a story that was not trained on: a beginning that says little, for both languages. */
static tl_status default_prompt(const demo *d, int n_th, str *prompt, tl_error *e) {
    str s;
    str_init(&s, d->alloc);
    tl_status st = story_generate(d->o->lang, val_seed(d), VALIDATION + (uint64_t)n_th, &s, NULL);
    size_t n = 0;
    if (st != TL_OK)
        error_set(e, st, "no memory for a story");
    else if (d->o->lang == STORY_EN)
        for (int words = 0; n < s.len && words < 3; n++) words += s.data[n] == ' ';
    else
        while (n < s.len && (n < 6 || ((unsigned char)s.data[n] & 0xc0) == 0x80)) n++;
    if (n && s.data[n - 1] == ' ') n--;
    if (st == TL_OK) str_add(prompt, s.data, n);
    str_fini(&s);
    return st;
}

static tl_status tell_once(demo *d, const char *prompt, uint64_t seed, tl_error *e) {
    tl_session_options so = {
        .temperature = fmaxf(0.7f - 0.05f * (float)d->tries, 0.25f), .top_p = 0.95f, .seed = seed, .context = CONTEXT};
    tl_session *s;
    tl_piece p = {0};
    str_clear(&d->story);
    str_adds(&d->story, prompt);
    TRY(session_create(d->model, &so, &s, e));
    tl_status st = session_text(s, prompt, strlen(prompt), false, e);
    while (st == TL_OK && !p.done) {
        st = session_next(s, &p, e);
        if (st == TL_OK) str_add(&d->story, p.text, p.size);
    }
    session_destroy(s);
    d->grammatical =
        st == TL_OK && p.finish == TL_FINISH_EOS && story_score(d->o->lang, d->story.data, d->story.len, NULL, NULL);
    return st;
}

static tl_status tell(demo *d, tl_error *e) {
    str prompt;
    str_init(&prompt, d->alloc);
    tl_status st = TL_OK;
    for (d->tries = 0; st == TL_OK && !d->grammatical && d->tries < TRIES;) {
        str_clear(&prompt);
        if (d->o->prompt)
            str_adds(&prompt, d->o->prompt);
        else
            st = default_prompt(d, d->tries, &prompt, e);
        if (st == TL_OK) st = tell_once(d, prompt.data ? prompt.data : "", d->o->common.seed + (uint64_t)d->tries, e);
        d->tries++;
    }
    str_fini(&prompt);
    return st;
}

/* ---- results
 * ---------------------------------------------------------------------------------------------------------- */

static tl_status plots(demo *d, tl_error *e) {
    double *smooth = mem_new(d->alloc, d->n, sizeof *smooth);
    if (!smooth) return error_set(e, TL_NOMEM, "no memory for a plot");
    tl_status st = plot_smooth(d->alloc, d->loss, d->n, 12, smooth, e);
    plot_series s[] = {{.name = NULL, .x = d->x, .y = d->loss, .n = d->n, .color = 0, .faint = true},
                       {.name = "training", .x = d->x, .y = smooth, .n = d->n, .color = 0},
                       {.name = "validation", .x = d->vx, .y = d->vloss, .n = d->vn, .color = 1, .marked = true}};
    plot_spec p = {.title = "Loss against the floor that the grammar sets",
                   .xlabel = "seconds",
                   .ylabel = "nats per token",
                   .series = s,
                   .n = 3,
                   .log_y = true,
                   .has_floor = true,
                   .floor = d->floor,
                   .floor_name = "entropy of the grammar"};
    char path[600];
    if (st == TL_OK) st = file_join(path, sizeof path, d->run, "loss.svg", e);
    if (st == TL_OK) st = plot_file(d->alloc, &p, path, e);
    if (st == TL_OK) st = file_join(path, sizeof path, d->run, "loss.png", e);
    if (st == TL_OK) st = plot_file(d->alloc, &p, path, e);
    if (st == TL_OK && !d->o->common.quiet) {
        str text;
        str_init(&text, d->alloc);
        p.series = s + 1;
        p.n = 2;
        st = plot_braille(d->alloc, &p, columns() < 100 ? columns() : 100, 16, isatty(STDERR_FILENO), &text, e);
        if (st == TL_OK) fprintf(stderr, "\n%s\n", text.data);
        str_fini(&text);
    }
    mem_free(d->alloc, smooth);
    return st;
}

static void report(const demo *d, double seconds) {
    const options *o = d->o;
    double above = 100 * (d->val_loss / d->floor - 1);
    if (o->common.json) {
        printf("{\"lang\": \"%s\", \"steps\": %lld, \"tokens\": %lld, \"seconds\": %.3f, \"params\": %lld, \"run\": ",
               o->lang == STORY_EN ? "en" : "zh", (long long)d->trainer->step, (long long)d->trainer->tokens, seconds,
               (long long)d->model->params.count);
        cli_json_text(stdout, d->run, strlen(d->run));
        printf(", \"story\": ");
        cli_json_text(stdout, d->story.data, d->story.len);
        printf(", \"grammatical\": %s, \"tries\": %d, \"above_floor_percent\": %.4f, \"val_loss\": %.17g, \"floor\": "
               "%.17g}\n",
               d->grammatical ? "true" : "false", d->tries, above, d->val_loss, d->floor);
        return;
    }
    if (d->tries) printf("%s\n", d->story.data ? d->story.data : "");
    if (!d->tries && !o->common.quiet)
        fprintf(stderr, "interrupted after %lld steps: no story; the model and its curves are in %s\n",
                (long long)d->trainer->step, d->run);
    if (!d->tries || o->common.quiet) return;
    fprintf(stderr, "\nThe parser of the grammar says: %s%s.\n", d->grammatical ? "a grammatical story" : "not a story",
            d->tries > 1 ? " (not the first one told)" : "");
    fprintf(stderr, "Validation loss %.4f nats a token; the floor of the same stories is %.4f: %.1f %% above it.\n",
            d->val_loss, d->floor, above);
    fprintf(stderr,
            "%lld steps, %lld tokens in %.0f s. The model and its curves are in %s; go on with\n  tilia generate %s\n",
            (long long)d->trainer->step, (long long)d->trainer->tokens, seconds, d->run, d->run);
}

static tl_status save(demo *d, tl_error *e) {
    TRY(checkpoint_save(d->trainer, d->run, NULL, e));
    json_t *o =
        json_pack("{s:s, s:s, s:I, s:I, s:f, s:f, s:f, s:o}", "command", "demo", "version", tl_version(), "seed",
                  (json_int_t)d->o->common.seed, "steps", (json_int_t)d->trainer->step, "seconds", d->o->seconds,
                  "val_loss", d->val_loss, "floor", d->floor, "training", checkpoint_settings_json(&d->trainer->set));
    if (!o) return error_set(e, TL_NOMEM, "no memory for run.json");
    char path[600];
    tl_status st = file_join(path, sizeof path, d->run, "run.json", e);
    if (st == TL_OK) st = json_write_file(d->alloc, path, o, e);
    json_decref(o);
    return st;
}

static tl_status run_dir(demo *d, tl_error *e) {
    if (d->o->out)
        snprintf(d->run, sizeof d->run, "%s", d->o->out);
    else {
        char stamp[32];
        time_t t = time(NULL);
        struct tm tm;
        strftime(stamp, sizeof stamp, "%Y%m%d-%H%M%S", localtime_r(&t, &tm));
        snprintf(d->run, sizeof d->run, "runs/demo-%s-%s", d->o->lang == STORY_EN ? "en" : "zh", stamp);
    }
    if (file_exists(d->run)) {
        tl_status s = error_set(e, TL_BUSY, "is there already; nothing was overwritten");
        error_at_file(e, d->run);
        return s;
    }
    TRY(file_mkdirs(d->run, e));
    char path[600];
    TRY(file_join(path, sizeof path, d->run, "metrics.jsonl", e));
    return metrics_writer_open(&d->metrics, d->alloc, path, -1, e);
}

static tl_status demo_run(demo *d, tl_error *e) {
    loader *l = NULL;
    d->start = now();
    double *points = mem_new(d->alloc, 4 * POINTS, sizeof *points);
    if (!points) return error_set(e, TL_NOMEM, "no memory for a plot");
    d->x = points;
    d->loss = points + POINTS;
    d->vx = points + 2 * POINTS;
    d->vloss = points + 3 * POINTS;
    TRY(make_model(d, e));
    if (d->o->prompt && !story_prefix_ok(d->o->lang, d->o->prompt, strlen(d->o->prompt)))
        return error_set(e, TL_ARG, "no story of the grammar begins with \"%s\"", d->o->prompt);
    TRY(run_dir(d, e));
    if (!d->o->common.quiet) {
        char a[32];
        fprintf(stderr,
                "A model of %s parameters learns stories for %.0f s; the grammar's entropy, %.4f nats a byte, is the "
                "floor.\n",
                cli_count((double)d->model->params.count, a, sizeof a), d->o->seconds, d->floor);
    }
    tl_status s = make_training(d, &l, e);
    if (s == TL_OK) s = train(d, l, e);
    loader_close(l);
    TRY(s);
    double seconds = now() - d->start;
    eval_result r;
    TRY(evaluator_run(d->eval, &d->val.view, &r, NULL, NULL, e));
    d->val_loss = r.loss;
    if (!cli_signal()) TRY(tell(d, e));
    TRY(save(d, e));
    TRY(plots(d, e));
    report(d, seconds);
    return TL_OK;
}

int cmd_demo(int argc, char **argv) {
    options o = {.seconds = 60, .preset = "demo", .rows = 2, .lr = 4e-3, .dtype = TL_F32};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    if (!o.common.has_seed) o.common.seed = 1;
    demo d = {.o = &o, .metrics.fd = -1};
    tl_error e = {0};
    if (cli_engine(&o.common, &d.engine, &e) != TL_OK) return cli_fail(&e);
    d.alloc = tl_engine_allocator(d.engine);
    str_init(&d.story, d.alloc);
    cli_catch_signals();
    int code = demo_run(&d, &e) == TL_OK ? EXIT_DONE : cli_fail(&e);
    metrics_writer_close(&d.metrics);
    evaluator_close(d.eval);
    trainer_destroy(d.trainer);
    if (d.tokenizer) {
        token_store_fini(&d.train);
        token_store_fini(&d.val);
    }
    model_close(d.model);
    tokenizer_close(d.tokenizer);
    str_fini(&d.story);
    mem_free(d.alloc, d.x);
    tl_engine_destroy(d.engine);
    return cli_signal() ? cli_signal_code() : code;
}
