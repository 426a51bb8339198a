/* The ladder of a sweep: for each budget, models around the size that twenty tokens a parameter would give. */
#include "cli/scaling_cli.h"

#include "base/file.h"
#include "base/json.h"
#include "model/params.h"
#include "runlog/runs.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* Shapes in steps of about 1.5, wide enough apart to tell sizes and near enough to find the bottom. */
static const struct {
    int64_t layers, width, heads;
} shapes[] = {{1, 32, 1},  {2, 32, 1},   {2, 48, 2},   {2, 64, 2},   {3, 64, 2},  {3, 80, 2},
              {3, 96, 3},  {4, 112, 4},  {4, 128, 4},  {4, 160, 5},  {5, 192, 6}, {6, 224, 7},
              {6, 256, 8}, {8, 320, 10}, {8, 384, 12}, {10, 448, 14}};
enum { SHAPES = sizeof shapes / sizeof *shapes, VOCAB = 257 };

typedef struct rung {
    char name[64];
    size_t shape;
    double budget, params;
    int64_t steps;
} rung;

static void shape_config(size_t i, int64_t context, char *out, size_t size) {
    int64_t D = shapes[i].width;
    snprintf(
        out, size,
        "{\"model_type\":\"llama\",\"hidden_size\":%lld,\"num_hidden_layers\":%lld,\"num_attention_heads\":%lld,"
        "\"intermediate_size\":%lld,\"vocab_size\":%d,\"max_position_embeddings\":%lld,\"tie_word_embeddings\":true}\n",
        (long long)D, (long long)shapes[i].layers, (long long)shapes[i].heads, (long long)((8 * D / 3 + 15) / 16 * 16),
        VOCAB, (long long)context);
}

/* Parameters with a vocabulary of bytes; the tokenizer's own may add a little, and run.json has the truth. */
static double shape_params(size_t i) {
    char text[400];
    model_config c;
    model_params p;
    shape_config(i, 128, text, sizeof text);
    if (config_parse(text, &c, NULL, 0, NULL) != TL_OK || params_init(&p, &mem_default, &c, NULL) != TL_OK) return 0;
    double n = (double)p.count;
    params_fini(&p, &mem_default);
    return n;
}

/* The sizes nearest to the best one by Hoffmann et al. 2022: N = sqrt(C / 120). Small models gain from fewer tokens a
 * parameter, so the window reaches twice as far up as down. */
static size_t rungs_of(const scaling_options *o, double budget, rung *out) {
    double centre = 1.4 * sqrt(budget / 120), best = HUGE_VAL;
    size_t near = 0, n = 0;
    for (size_t i = 0; i < SHAPES; i++) {
        double off = fabs(log(shape_params(i) / centre));
        if (off < best) best = off, near = i;
    }
    size_t want = (size_t)o->sizes, first = near > want / 2 ? near - want / 2 : 0;
    if (first + want > SHAPES) first = SHAPES - want;
    for (size_t i = first; i < first + want; i++) {
        double params = shape_params(i);
        int64_t steps = (int64_t)(budget / 6 / params / (double)o->batch + 0.5);
        if (steps < 20) continue; /* too short to be a run */
        out[n] = (rung){.shape = i, .budget = budget, .params = params, .steps = steps};
        snprintf(out[n].name, sizeof out[n].name, "c%.3g-l%lld-d%lld", budget, (long long)shapes[i].layers,
                 (long long)shapes[i].width);
        n++;
    }
    return n;
}

/* Steps that the run has behind it, 0 if there is none. */
static int64_t steps_done(const char *dir) {
    arena a;
    run_row r;
    arena_init(&a, &mem_default);
    int64_t n = run_read(&a, dir, &r, NULL) == TL_OK ? r.steps : 0;
    bool evaluated = n && run_find_metric(&r, "val_loss") != NULL;
    arena_fini(&a);
    return evaluated ? n : 0;
}

typedef struct command {
    const char *arg[SCALING_FILES + 40];
    size_t n;
} command;

static void add(command *c, const char *arg) {
    if (c->n + 1 < sizeof c->arg / sizeof *c->arg) c->arg[c->n++] = arg;
}

static void add_pair(command *c, const char *option, const char *value) {
    if (!value) return;
    add(c, option);
    add(c, value);
}

/* The program itself, in a process of its own: its exit code, or 128 + the signal. */
static int run_self(const command *c) {
    fflush(NULL);
    pid_t child = fork();
    if (child < 0) return EXIT_FAILED;
    if (child == 0) {
        execv("/proc/self/exe", (char *const *)(uintptr_t)c->arg);
        _exit(127);
    }
    int status;
    while (waitpid(child, &status, 0) < 0)
        if (cli_signal()) kill(child, SIGTERM); /* it saves and ends; then the sweep does */
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int train_rung(const scaling_options *o, const rung *r) {
    char dir[1024], config[1100], text[400], steps[24], batch[24], context[24], threads[24], seed[24];
    tl_error err = {0};
    if (file_join(dir, sizeof dir, o->out, r->name, &err) != TL_OK) return cli_fail(&err);
    snprintf(config, sizeof config, "%s.json", dir);
    snprintf(steps, sizeof steps, "%lld", (long long)r->steps);
    snprintf(batch, sizeof batch, "%lld", (long long)o->batch);
    snprintf(context, sizeof context, "%lld", (long long)o->context);
    snprintf(threads, sizeof threads, "%d", o->common.threads);
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)o->common.seed);
    char latest[1100];
    snprintf(latest, sizeof latest, "%s/latest", dir);
    command c = {.arg = {"tilia", "train"}, .n = 2};
    if (access(latest, F_OK) == 0) {
        add_pair(&c, "--resume", dir);
    } else {
        shape_config(r->shape, o->context, text, sizeof text);
        if (file_is_dir(dir) && file_remove_tree(&mem_default, dir, &err) != TL_OK) return cli_fail(&err);
        if (file_write(&mem_default, config, text, strlen(text), &err) != TL_OK) return cli_fail(&err);
        for (size_t i = 0; i < o->files; i++) add(&c, o->file[i]);
        add_pair(&c, "--config", config);
        add_pair(&c, "--out", dir);
        add_pair(&c, "--steps", steps);
        add_pair(&c, "--batch", batch);
        add_pair(&c, "--context", context);
        add_pair(&c, "--tokenizer", o->tokenizer ? o->tokenizer : "bytes");
        add_pair(&c, "--val", o->val);
        if (o->common.has_seed) add_pair(&c, "--seed", seed);
    }
    add_pair(&c, "--eval-every", "0");
    add_pair(&c, "--keep", "1");
    if (o->common.threads) add_pair(&c, "--threads", threads);
    add(&c, "--quiet");
    return run_self(&c);
}

int scaling_sweep(const scaling_options *o) {
    static rung all[SCALING_BUDGETS * SHAPES];
    size_t n = 0;
    tl_error err = {0};
    char a[32], b[32];
    for (size_t i = 0; i < o->budgets; i++) n += rungs_of(o, o->budget[i], all + n);
    if (n == 0)
        return cli_usage("no model of the ladder gets 20 steps of %lld tokens for these budgets", (long long)o->batch);
    if (o->only_plan) {
        printf("%10s  %-24s %10s %10s %8s\n", "FLOPs", "run", "N", "D", "steps");
        for (size_t i = 0; i < n; i++)
            printf("%10.3g  %-24s %10s %10s %8lld\n", all[i].budget, all[i].name, cli_count(all[i].params, a, sizeof a),
                   cli_count((double)(all[i].steps * o->batch), b, sizeof b), (long long)all[i].steps);
        return EXIT_DONE;
    }
    if (file_mkdirs(o->out, &err) != TL_OK) return cli_fail(&err);
    cli_catch_signals();
    for (size_t i = 0; i < n && !cli_signal(); i++) {
        char dir[1024];
        if (file_join(dir, sizeof dir, o->out, all[i].name, &err) != TL_OK) return cli_fail(&err);
        bool done = steps_done(dir) >= all[i].steps;
        if (!o->common.quiet)
            fprintf(stderr, "%zu/%zu %s: %s parameters, %lld steps%s\n", i + 1, n, all[i].name,
                    cli_count(all[i].params, a, sizeof a), (long long)all[i].steps, done ? ", done before" : "");
        int code = done ? EXIT_DONE : train_rung(o, &all[i]);
        if (code != EXIT_DONE && !cli_signal()) {
            fprintf(stderr, "tilia: %s: training ended with code %d\n", all[i].name, code);
            return code;
        }
    }
    return cli_signal() ? cli_signal_code() : EXIT_DONE;
}
