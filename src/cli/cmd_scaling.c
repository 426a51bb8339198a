/* tilia scaling fit|sweep: scaling laws from runs, and the runs for them. */
#include "cli/scaling_cli.h"

#include "base/json.h"
#include "runlog/plot.h"
#include "runlog/runs.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    KEY_RUNS = 1,
    KEY_BUDGET,
    KEY_PLOT,
    KEY_BOOT,
    KEY_COUNT,
    KEY_OUT,
    KEY_SIZES,
    KEY_CONTEXT,
    KEY_TOKENIZER,
    KEY_VAL,
    KEY_PLAN
};

static const struct argp_option table[] = {
    {0, 0, 0, 0, "fit:", 1},
    {"runs", KEY_RUNS, "DIR", OPTION_ARG_OPTIONAL, "the runs under a directory (default: runs) instead of a file", 1},
    {"budget", KEY_BUDGET, "C", 0,
     "operations to predict for, or to train with: 1e18; more than once (default to predict: ten times the largest)",
     1},
    {"bootstraps", KEY_BOOT, "N", 0, "resamplings for the intervals (default 200)", 1},
    {"count", KEY_COUNT, "all|no-embedding", 0, "with --runs: which parameters N counts (default all)", 1},
    {"plot", KEY_PLOT, "FILE", 0, "the curves as FILE (.svg or .png)", 1},
    {0, 0, 0, 0, "sweep:", 2},
    {"out", KEY_OUT, "DIR", 0, "where the runs go, and where finished ones are found (default: sweep)", 2},
    {"sizes", KEY_SIZES, "N", 0, "models for each budget (default 5)", 2},
    {"batch", 'b', "TOKENS", 0, "tokens a step (default 4096)", 2},
    {"context", KEY_CONTEXT, "T", 0, "tokens a sequence (default 128)", 2},
    {"tokenizer", KEY_TOKENIZER, "FILE|bytes|chars", 0, "as tilia train takes it", 2},
    {"val", KEY_VAL, "FILE|FRACTION", 0, "as tilia train takes it", 2},
    {"plan", KEY_PLAN, 0, 0, "tell what would be trained, and train nothing", 2},
    {0}};

static void parse_argument(struct argp_state *st, scaling_options *o, const char *arg) {
    if (!o->action) {
        o->action = arg;
        if (strcmp(arg, "fit") != 0 && strcmp(arg, "sweep") != 0)
            argp_error(st, "\"%s\" is nothing that scaling does; it can be fit or sweep", arg);
        return;
    }
    if (o->files == SCALING_FILES) argp_error(st, "more than %d files", SCALING_FILES);
    o->file[o->files++] = arg;
}

static void parse_end(struct argp_state *st, const scaling_options *o) {
    if (!o->action) argp_error(st, "fit or sweep?");
    bool fit = strcmp(o->action, "fit") == 0;
    if (fit && o->files + (o->runs != NULL) != 1) argp_error(st, "fit takes one RUNS.json, or --runs");
    if (!fit && o->files == 0) argp_error(st, "which text is to be trained on?");
    if (!fit && o->budgets == 0) argp_error(st, "sweep needs budgets: --budget 1e13 --budget 4e13 --budget 1.6e14");
}

static error_t parse(int key, char *arg, struct argp_state *st) {
    scaling_options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_RUNS: o->runs = arg ? arg : "runs"; return 0;
    case KEY_BUDGET:
        if (o->budgets == SCALING_BUDGETS) argp_error(st, "more than %d budgets", SCALING_BUDGETS);
        o->budget[o->budgets++] = cli_real(st, "--budget", arg, 1e6, 1e32);
        return 0;
    case KEY_BOOT: o->bootstraps = cli_int(st, "--bootstraps", arg, 10, 100000); return 0;
    case KEY_PLOT: o->plot = arg; return 0;
    case KEY_COUNT:
        o->no_embedding = strcmp(arg, "no-embedding") == 0;
        if (!o->no_embedding && strcmp(arg, "all") != 0)
            argp_error(st, "--count is \"%s\"; it can be all or no-embedding", arg);
        return 0;
    case KEY_OUT: o->out = arg; return 0;
    case KEY_SIZES: o->sizes = cli_int(st, "--sizes", arg, 3, 12); return 0;
    case 'b': o->batch = cli_int(st, "--batch", arg, 64, 1 << 24); return 0;
    case KEY_CONTEXT: o->context = cli_int(st, "--context", arg, 8, 1 << 16); return 0;
    case KEY_TOKENIZER: o->tokenizer = arg; return 0;
    case KEY_VAL: o->val = arg; return 0;
    case KEY_PLAN: o->only_plan = true; return 0;
    case ARGP_KEY_ARG: parse_argument(st, o, arg); return 0;
    case ARGP_KEY_END: parse_end(st, o); return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "fit RUNS.json\nfit --runs[=DIR]\nsweep TEXT... --budget C [--budget C ...]",
    "Scaling laws. fit: the best size for a budget of operations, from the lowest run of each budget, from parabolas "
    "in "
    "log N, and from L = E + A/N^a + B/D^b, with 80 % intervals. RUNS.json is a list of objects with params, tokens, "
    "loss, and flops where it is not 6 params tokens. sweep: trains a ladder of small models on a text for each "
    "budget, "
    "takes up where it was interrupted, and fits them.",
    children,
    NULL,
    NULL};

/* ---- runs ---------------------------------------------------------------------------------------------------------
 */

static tl_status first_real(const json_t *o, const char *const *keys, double *out, tl_error *err) {
    for (; *keys; keys++)
        if (json_object_get(o, *keys)) return json_get_real(o, *keys, out, err);
    return TL_OK;
}

static tl_status read_run(const json_t *o, scaling_run *r, tl_error *err) {
    *r = (scaling_run){0};
    TRY(first_real(o, (const char *const[]){"params", "N", NULL}, &r->params, err));
    TRY(first_real(o, (const char *const[]){"tokens", "D", NULL}, &r->tokens, err));
    TRY(first_real(o, (const char *const[]){"loss", "L", "val_loss", NULL}, &r->loss, err));
    TRY(first_real(o, (const char *const[]){"flops", "C", NULL}, &r->flops, err));
    if (r->tokens == 0 && r->flops > 0 && r->params > 0) r->tokens = r->flops / 6 / r->params;
    if (!(r->params > 0) || !(r->tokens > 0) || !(r->loss > 0))
        return error_set(err, TL_FORMAT, "a run needs params, tokens and loss, each a positive number");
    return TL_OK;
}

static tl_status read_file(const char *path, scaling_run *run, size_t *n, tl_error *err) {
    json_t *v;
    TRY(json_read_file(&mem_default, path, 64u << 20, &v, err));
    const json_t *list = json_is_object(v) ? json_object_get(v, "runs") : v;
    tl_status s = TL_OK;
    if (!json_is_array(list)) s = error_set(err, TL_FORMAT, "is neither a list of runs nor an object with \"runs\"");
    if (s == TL_OK && json_array_size(list) > SCALING_RUNS)
        s = error_set(err, TL_LIMIT, "more than %d runs", SCALING_RUNS);
    for (size_t i = 0; s == TL_OK && i < json_array_size(list); i++) {
        s = read_run(json_array_get(list, i), &run[i], err);
        if (s != TL_OK && err) {
            char text[sizeof err->text];
            snprintf(text, sizeof text, "run %zu: %.360s", i + 1, err->text);
            memcpy(err->text, text, sizeof text);
        }
        *n = i + 1;
    }
    json_decref(v);
    if (s != TL_OK) error_at_file(err, path);
    return s;
}

static double option_of(const run_row *r, const char *key) {
    const char *text = run_find_option(r, key);
    return text ? strtod(text, NULL) : 0;
}

tl_status scaling_read_runs(const scaling_options *o, const char *root, scaling_run *run, size_t *n, tl_error *err) {
    runs all;
    TRY(runs_open(&mem_default, root, NULL, &all, err));
    for (size_t i = 0; i < all.n && *n < SCALING_RUNS; i++) {
        const run_row *r = &all.row[i];
        const run_metric *val = run_find_metric(r, "val_loss"), *tokens = run_find_metric(r, "tokens");
        double params = option_of(r, o->no_embedding ? "params_no_embedding" : "params");
        if (!val || !tokens || !(params > 0) || !isfinite(val->last)) continue;
        run[(*n)++] = (scaling_run){params, tokens->last, val->last, option_of(r, "step_flops") * (double)r->steps};
    }
    runs_close(&all);
    return TL_OK;
}

/* ---- telling
 * ---------------------------------------------------------------------------------------------------------- */

typedef struct fits {
    scaling_law law;
    scaling_isoflops iso;
    bool has_law, has_iso;
    tl_error law_error, iso_error;
    double budget[SCALING_BUDGETS];
    size_t budgets;
} fits;

static void json_interval(const char *name, const scaling_interval *i) {
    printf("\"%s\": {\"value\": %.9g, \"low\": %.9g, \"high\": %.9g}", name, i->value, i->low, i->high);
}

static void print_json(const fits *f, size_t n) {
    printf("{\"runs\": %zu", n);
    if (f->has_law) {
        const scaling_law *l = &f->law;
        printf(", \"law\": {");
        json_interval("E", &l->E), printf(", "), json_interval("A", &l->A), printf(", "), json_interval("B", &l->B);
        printf(", "), json_interval("alpha", &l->alpha), printf(", "), json_interval("beta", &l->beta);
        printf(", \"n_exponent\": %.9g, \"d_exponent\": %.9g, \"residual\": %.6g, \"predictions\": [", l->n_exponent,
               l->d_exponent, l->residual);
        for (size_t i = 0; i < f->budgets; i++) {
            double N, D, L;
            scaling_best(l, f->budget[i], &N, &D, &L);
            printf("%s{\"flops\": %.9g, \"params\": %.9g, \"tokens\": %.9g, \"loss\": %.9g}", i ? ", " : "",
                   f->budget[i], N, D, L);
        }
        printf("]}");
    } else {
        printf(", \"law_refused\": ");
        cli_json_text(stdout, f->law_error.text, strlen(f->law_error.text));
    }
    if (f->has_iso) {
        const scaling_isoflops *s = &f->iso;
        printf(", \"isoflops\": {\"budgets\": [");
        for (size_t i = 0; i < s->n; i++) {
            const scaling_budget *b = &s->budget[i];
            printf("%s{\"flops\": %.9g, \"runs\": %zu, \"lowest_params\": %.9g, \"lowest_loss\": %.9g", i ? ", " : "",
                   b->flops, b->n, b->lowest_params, b->lowest);
            if (b->parabola)
                printf(", \"params\": %.9g, \"tokens\": %.9g, \"loss\": %.9g", b->params, b->tokens, b->loss);
            printf("}");
        }
        printf("]");
        if (s->lines)
            printf(", "), json_interval("n_exponent", &s->n_exponent), printf(", "),
                json_interval("d_exponent", &s->d_exponent);
        printf("}");
    } else {
        printf(", \"isoflops_refused\": ");
        cli_json_text(stdout, f->iso_error.text, strlen(f->iso_error.text));
    }
    printf("}\n");
}

static void line(const char *name, const scaling_interval *i) {
    printf("  %-22s %12.5g   (%.5g to %.5g)\n", name, i->value, i->low, i->high);
}

static void print_iso(const scaling_isoflops *s) {
    char a[32], b[32], c[32];
    printf("by budget: the lowest run, and the bottom of a parabola in log N\n");
    printf("  %10s %5s %12s %9s %12s %12s %9s\n", "FLOPs", "runs", "lowest at N", "loss", "bottom at N", "D", "loss");
    for (size_t i = 0; i < s->n; i++) {
        const scaling_budget *p = &s->budget[i];
        printf("  %10.3g %5zu %12s %9.4f", p->flops, p->n, cli_count(p->lowest_params, a, sizeof a), p->lowest);
        if (p->parabola)
            printf(" %12s %12s %9.4f\n", cli_count(p->params, b, sizeof b), cli_count(p->tokens, c, sizeof c), p->loss);
        else
            printf(" %12s\n", p->n < 3 ? "too few" : "not inside");
    }
    if (!s->lines) return;
    line("N_opt ~ C to the", &s->n_exponent);
    line("D_opt ~ C to the", &s->d_exponent);
}

static void print_law(const fits *f) {
    const scaling_law *l = &f->law;
    char a[32], b[32];
    printf("L = E + A / N^alpha + B / D^beta   (%zu runs, 80 %% intervals of %zu resamplings, residual %.2g)\n",
           l->runs, l->bootstraps, l->residual);
    line("E", &l->E), line("A", &l->A), line("B", &l->B), line("alpha", &l->alpha), line("beta", &l->beta);
    printf("  N_opt ~ C^%.3f, D_opt ~ C^%.3f\n", l->n_exponent, l->d_exponent);
    for (size_t i = 0; i < f->budgets; i++) {
        double N, D, L;
        scaling_best(l, f->budget[i], &N, &D, &L);
        printf("  with %.3g FLOPs: %s parameters, %s tokens (%.1f a parameter), loss %.4f\n", f->budget[i],
               cli_count(N, a, sizeof a), cli_count(D, b, sizeof b), D / N, L);
    }
}

/* ---- the picture ----------------------------------------------------------------------------------------------------
 */

enum { CURVE = 60, MOST_CURVES = 24 };

/* Loss over size: the runs of each budget as dots, the law (else the parabola) through them, and the bottoms. */
static tl_status draw(const fits *f, const char *path, tl_error *err) {
    const scaling_isoflops *s = &f->iso;
    size_t n = s->n < MOST_CURVES ? s->n : MOST_CURVES, used = 0;
    double *room = calloc(n * 2 * CURVE + 2 * s->runs + 2 * n + 1, sizeof *room), *at = room;
    plot_series *series = calloc(2 * n + 1, sizeof *series);
    char(*names)[48] = calloc(n, sizeof *names);
    if (!room || !series || !names) {
        free(room), free(series), free(names);
        return error_set(err, TL_NOMEM, "no memory for a plot");
    }
    for (size_t i = 0; i < n; i++) {
        const scaling_budget *b = &s->budget[i];
        const scaling_run *r = s->run + b->first;
        double *x = at, *y = at + b->n, low = r[0].params / 1.3, high = r[b->n - 1].params * 1.3;
        at += 2 * b->n;
        for (size_t k = 0; k < b->n; k++) x[k] = r[k].params, y[k] = r[k].loss;
        snprintf(names[i], sizeof names[i], "%.2g FLOPs", b->flops);
        series[used++] = (plot_series){.name = names[i], .x = x, .y = y, .n = b->n, .color = (int)i, .dots = true};
        if (!f->has_law && !b->parabola) continue;
        double *cx = at, *cy = at + CURVE;
        at += 2 * CURVE;
        for (int k = 0; k < CURVE; k++) {
            double N = cx[k] = low * pow(high / low, (double)k / (CURVE - 1)), ln = log(N);
            cy[k] = f->has_law ? scaling_loss(&f->law, N, b->flops / 6 / N)
                               : b->curve[0] + b->curve[1] * ln + b->curve[2] * ln * ln;
        }
        series[used++] = (plot_series){.x = cx, .y = cy, .n = CURVE, .color = (int)i};
    }
    double *bx = at, *by = at + n;
    size_t bottoms = 0;
    for (size_t i = 0; i < n; i++)
        if (s->budget[i].parabola) bx[bottoms] = s->budget[i].params, by[bottoms++] = s->budget[i].loss;
    if (bottoms > 1)
        series[used++] = (plot_series){
            .name = "best size", .x = bx, .y = by, .n = bottoms, .color = 6, .dashed = true, .marked = true};
    plot_spec p = {.title = f->has_law ? "loss over size at equal FLOPs, and the fitted law"
                                       : "loss over size at equal FLOPs",
                   .xlabel = "parameters",
                   .ylabel = "nats per token",
                   .series = series,
                   .n = used,
                   .log_x = true};
    tl_status st = plot_file(&mem_default, &p, path, err);
    free(room), free(series), free(names);
    return st;
}

/* ---- the command ----------------------------------------------------------------------------------------------------
 */

static void fit_both(const scaling_options *o, const scaling_run *run, size_t n, fits *f) {
    uint64_t seed = o->common.has_seed ? o->common.seed : 1;
    double most = 0;
    f->has_law = scaling_fit(&mem_default, run, n, (size_t)o->bootstraps, seed, &f->law, &f->law_error) == TL_OK;
    f->has_iso =
        scaling_isoflops_fit(&mem_default, run, n, (size_t)o->bootstraps, seed, &f->iso, &f->iso_error) == TL_OK;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, run[i].flops > 0 ? run[i].flops : 6 * run[i].params * run[i].tokens);
    bool fit = strcmp(o->action, "fit") == 0; /* a sweep's budgets are where the runs are */
    for (size_t i = 0; fit && i < o->budgets; i++) f->budget[f->budgets++] = o->budget[i];
    if (f->budgets == 0) f->budget[f->budgets++] = 10 * most;
}

static int tell(const scaling_options *o, const scaling_run *run, size_t n) {
    static fits f;
    memset(&f, 0, sizeof f);
    fit_both(o, run, n, &f);
    tl_error err = {0};
    int code = EXIT_DONE;
    if (o->common.json) {
        print_json(&f, n);
    } else {
        if (f.has_iso) print_iso(&f.iso);
        if (f.has_iso && f.has_law) printf("\n");
        if (f.has_law) print_law(&f);
    }
    if (!f.has_law) fprintf(stderr, "tilia: no law of N and D: %s\n", f.law_error.text);
    if (!f.has_iso) fprintf(stderr, "tilia: no best size by budget: %s\n", f.iso_error.text);
    if (!f.has_law && !f.has_iso) code = EXIT_FAILED;
    if (o->plot && !f.has_iso)
        code = cli_usage("--plot draws runs by budget, and there are none to draw");
    else if (o->plot && draw(&f, o->plot, &err) != TL_OK)
        code = cli_fail(&err);
    scaling_isoflops_free(&f.iso);
    return code;
}

int cmd_scaling(int argc, char **argv) {
    static scaling_run run[SCALING_RUNS];
    scaling_options o = {.out = "sweep", .sizes = 5, .batch = 4096, .context = 128, .bootstraps = 200};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    size_t n = 0;
    tl_error err = {0};
    bool sweep = strcmp(o.action, "sweep") == 0;
    if (sweep) {
        int code = scaling_sweep(&o);
        if (code != EXIT_DONE || o.only_plan) return cli_finish(code);
    }
    const char *root = sweep ? o.out : o.runs;
    tl_status s = root ? scaling_read_runs(&o, root, run, &n, &err) : read_file(o.file[0], run, &n, &err);
    if (s != TL_OK) return cli_fail(&err);
    return cli_finish(tell(&o, run, n));
}
