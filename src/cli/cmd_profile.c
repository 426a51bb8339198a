/* tilia profile: where the time of a training step goes, operator by operator, against the machine's limit. */
#include "cli/cli.h"

#include "train/trainer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_PRESET = 1, KEY_DEPTH, KEY_CONTEXT, KEY_DTYPE, KEY_STEPS, KEY_RECOMPUTE, KEY_ALL, MAX_ROWS = 4096 };

typedef struct options {
    cli_common common;
    const char *preset, *depth;
    int64_t batch, context, steps;
    tl_dtype dtype;
    bool recompute, all;
} options;

static const struct argp_option table[] = {
    {"preset", KEY_PRESET, "NAME", 0, "the model (default char-cpu)", 0},
    {"depth", KEY_DEPTH, "N", 0, "a model derived from its depth", 0},
    {"batch", 'b', "ROWS", 0, "sequences a step (default 8)", 0},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default: the model's)", 0},
    {"dtype", KEY_DTYPE, "f32|bf16", 0, "type of the computation (default f32)", 0},
    {"steps", KEY_STEPS, "N", 0,
     "steps measured, after one to warm up; the least time of each operator counts (default 5)", 0},
    {"recompute", KEY_RECOMPUTE, 0, 0, "blocks run again in the backward pass", 0},
    {"all", KEY_ALL, 0, 0, "every step of the plan by itself, not summed by kernel", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_PRESET: o->preset = arg; return 0;
    case KEY_DEPTH: o->depth = arg; return 0;
    case 'b': o->batch = cli_int(st, "--batch", arg, 1, 1 << 20); return 0;
    case KEY_CONTEXT: o->context = cli_int(st, "--context", arg, 1, 1 << 24); return 0;
    case KEY_STEPS: o->steps = cli_int(st, "--steps", arg, 1, 1000); return 0;
    case KEY_RECOMPUTE: o->recompute = true; return 0;
    case KEY_ALL: o->all = true; return 0;
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
    "Runs training steps of a model with random weights on random tokens, with a clock around every "
    "operator: time, FLOP/s and bytes/s by kernel.",
    children,
    NULL,
    NULL};

typedef struct row {
    const char *op, *kernel, *name;
    double seconds, flops, bytes;
    int64_t calls;
} row;

static int by_time(const void *a, const void *b) {
    double x = ((const row *)a)->seconds, y = ((const row *)b)->seconds;
    return x < y ? 1 : x > y ? -1 : 0;
}

/* least: seconds of each step of the plan */
static size_t gather(const tl_plan *p, const double *least, bool all, row *rows, size_t n) {
    for (size_t i = 0; i < tl_plan_steps(p); i++) {
        tl_step_info s;
        tl_plan_step(p, i, &s);
        s.seconds = least[i];
        size_t k = 0;
        while (k < n && (all || strcmp(rows[k].op, s.op) != 0 || strcmp(rows[k].kernel, s.kernel) != 0)) k++;
        if (k == MAX_ROWS) break;
        if (k == n) rows[n++] = (row){.op = s.op, .kernel = s.kernel, .name = s.name ? s.name : ""};
        rows[k].seconds += s.seconds;
        rows[k].flops += s.cost.flops;
        rows[k].bytes += s.cost.bytes_read + s.cost.bytes_written;
        rows[k].calls++;
    }
    return n;
}

static void print_rows(const options *o, row *rows, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) total += rows[i].seconds;
    qsort(rows, n, sizeof *rows, by_time);
    if (o->common.json) {
        printf("{\"seconds\": %.9g, \"rows\": [", total);
        for (size_t i = 0; i < n; i++)
            printf("%s{\"op\": \"%s\", \"kernel\": \"%s\", \"name\": \"%s\", \"calls\": %lld, \"seconds\": %.9g, "
                   "\"flops\": %.0f, "
                   "\"bytes\": %.0f}",
                   i ? ", " : "", rows[i].op, rows[i].kernel, rows[i].name, (long long)rows[i].calls, rows[i].seconds,
                   rows[i].flops, rows[i].bytes);
        printf("]}\n");
        return;
    }
    printf("%-16s %-34s %6s %10s %6s %9s %8s\n", "operator", "kernel", "calls", "ms", "share", "GFLOP/s", "GB/s");
    for (size_t i = 0; i < n; i++)
        printf("%-16s %-34s %6lld %10.3f %5.1f%% %9.1f %8.1f %s\n", rows[i].op, rows[i].kernel,
               (long long)rows[i].calls, 1e3 * rows[i].seconds, 100 * rows[i].seconds / total,
               1e-9 * rows[i].flops / rows[i].seconds, 1e-9 * rows[i].bytes / rows[i].seconds,
               o->all ? rows[i].name : "");
    printf("%-16s %-34s %6s %10.3f\n", "a step", "", "", 1e3 * total);
}

/* Steps with a clock around every operator and steps without, in turn; of each the least time counts, which other work
 * on the machine disturbs least. */
static tl_status measure_steps(const options *o, trainer *t, const int32_t *ids, row *rows, size_t *n, tl_error *e) {
    tl_plan *const plans[] = {t->fwd.plan, t->norm.plan, t->update.plan};
    const size_t count[] = {tl_plan_steps(plans[0]), tl_plan_steps(plans[1]), tl_plan_steps(plans[2])};
    double *least = calloc(count[0] + count[1] + count[2] + 1, sizeof *least), whole = HUGE_VAL, first = 0;
    tl_status st = least ? TL_OK : error_set(e, TL_NOMEM, "no memory for clocks");
    for (int64_t r = 0; r <= o->steps && st == TL_OK; r++) { /* the first warms up */
        tl_metrics metrics;
        if ((st = trainer_step_ids(t, ids, &metrics, e)) != TL_OK) break;
        if (r == 0)
            first = metrics.seconds;
        else if (metrics.seconds < whole)
            whole = metrics.seconds;
        double *to = least;
        for (int k = 0; k < 3 && r > 0; to += count[k++]) {
            st = tl_plan_run_profiled(plans[k]);
            if (st != TL_OK) return free(least), error_set(e, st, "the plan did not run");
            for (size_t i = 0; i < count[k]; i++) {
                tl_step_info s;
                tl_plan_step(plans[k], i, &s);
                if (r == 1 || s.seconds < to[i]) to[i] = s.seconds;
            }
        }
    }
    const double *from = least;
    for (int k = 0; k < 3 && st == TL_OK; from += count[k++]) *n = gather(plans[k], from, o->all, rows, *n);
    if (st == TL_OK && !o->common.quiet)
        fprintf(stderr, "one step without clocks: %.3f ms; the first: %.3f ms\n", 1e3 * whole, 1e3 * first);
    free(least);
    return st;
}

static tl_status measure(const options *o, tl_model *m, row *rows, size_t *n, tl_error *e) {
    trainer_settings s = {.schedule = {.kind = TL_SCHEDULE_CONSTANT, .lr = 1e-4, .min_lr = 1e-4},
                          .rows = o->batch,
                          .micro = o->batch,
                          .context = o->context ? o->context : m->config.context,
                          .dtype = o->dtype,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .eps = 1e-8,
                          .decay = 0.1,
                          .clip = 1,
                          .recompute = o->recompute};
    trainer *t;
    TRY(trainer_create(m, &s, &t, e));
    size_t count = (size_t)(s.rows * (s.context + 1));
    int32_t *ids = mem_new(m->alloc, count, sizeof *ids);
    tl_status st = ids ? TL_OK : error_set(e, TL_NOMEM, "no memory for a batch");
    for (size_t i = 0; st == TL_OK && i < count; i++) ids[i] = (int32_t)((i * 7919 + i * i) % (size_t)m->config.vocab);
    if (st == TL_OK) st = measure_steps(o, t, ids, rows, n, e);
    mem_free(m->alloc, ids);
    if (*n == 0 || st != TL_OK) {
        trainer_destroy(t);
        return st;
    }
    print_rows(o, rows, *n);
    trainer_destroy(t);
    return st;
}

int cmd_profile(int argc, char **argv) {
    options o = {.batch = 8, .steps = 5, .dtype = TL_F32};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    char text[64];
    model_config c;
    tl_engine *engine;
    tl_model *m;
    tl_error e = {0};
    snprintf(text, sizeof text, "%s:%s", o.depth ? "depth" : "preset",
             o.depth    ? o.depth
             : o.preset ? o.preset
                        : "char-cpu");
    if (config_parse(text, &c, NULL, 0, &e) != TL_OK) return cli_fail(&e);
    if (c.context < o.context) c.context = o.context;
    if (cli_engine(&o.common, &engine, &e) != TL_OK) return cli_fail(&e);
    int code = EXIT_DONE;
    row *rows = calloc(MAX_ROWS, sizeof *rows);
    size_t n = 0;
    if (!rows || model_create(engine, &c, NULL, 1, &m, &e) != TL_OK)
        code = cli_fail(&e);
    else {
        if (measure(&o, m, rows, &n, &e) != TL_OK) code = cli_fail(&e);
        model_close(m);
    }
    free(rows);
    tl_engine_destroy(engine);
    return code;
}
