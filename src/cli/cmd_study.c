/* tilia study: claims as experiments that can be interrupted and repeated, with verdicts. */
#include "cli/cli.h"

#include "base/file.h"
#include "engine/engine.h"
#include "study/study.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { KEY_SEEDS = 1, KEY_SCALE, KEY_OUT, KEY_TEXT, KEY_WHERE, KEY_SAVE };

typedef struct options {
    cli_common common;
    const char *verb, *id, *out, *text, *where;
    int seeds;
    double save;
    bool quick;
} options;

static const struct argp_option table[] = {
    {"seeds", KEY_SEEDS, "N", 0, "run: seeds 1 to N of every cell (default: the study's; quick: 1)", 0},
    {"scale", KEY_SCALE, "quick|normal", 0, "quick: a few steps, to see that it runs (default normal)", 0},
    {"out", KEY_OUT, "DIR", 0, "where results and reports are (default runs/study)", 0},
    {"text", KEY_TEXT, "FILE", 0, "run: the text of the studies of characters, e.g. tinyshakespeare", 0},
    {"where", KEY_WHERE, "SELECTOR", 0, "run: only these cells, e.g. \"mixer=flash|gau context=512\"", 0},
    {"save-every", KEY_SAVE, "SECONDS", OPTION_HIDDEN, "between checkpoints of a cell", 0},
    {0}};

static error_t parse(int key, char *arg, struct argp_state *st) {
    options *o = st->input;
    switch (key) {
    case ARGP_KEY_INIT: st->child_inputs[0] = &o->common; return 0;
    case KEY_SEEDS: o->seeds = (int)cli_int(st, "--seeds", arg, 1, STUDY_SEEDS); return 0;
    case KEY_SCALE:
        o->quick = strcmp(arg, "quick") == 0;
        if (!o->quick && strcmp(arg, "normal") != 0)
            argp_error(st, "--scale is \"%s\"; it can be quick or normal", arg);
        return 0;
    case KEY_OUT: o->out = arg; return 0;
    case KEY_TEXT: o->text = arg; return 0;
    case KEY_WHERE: o->where = arg; return 0;
    case KEY_SAVE: o->save = cli_real(st, "--save-every", arg, 0.001, 1e6); return 0;
    case ARGP_KEY_ARG:
        if (!o->verb)
            o->verb = arg;
        else if (!o->id)
            o->id = arg;
        else
            argp_error(st, "more than one study: \"%s\"", arg);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static const struct argp_child children[] = {{&cli_common_argp, 0, NULL, 0}, {0}};
static const struct argp argp = {
    table,
    parse,
    "list\nrun ID\nreport [ID]",
    "Claims about attention, positions, heads and norms as experiments. list: every claim, its test and its verdict so "
    "far. run: measures a study (ID: its name, or that of one of its claims), cell by cell; interrupt or kill it "
    "whenever you like, the same command goes on, and several may work on one study side by side. report: markdown and "
    "pictures of what has been measured.",
    children,
    NULL,
    NULL};

/* ---- the machine and the day ----------------------------------------------------------------- */

/* The processor's name as the kernel has it. */
static void processor(char *out, size_t size) {
    char line[512];
    FILE *f = fopen("/proc/cpuinfo", "r");
    snprintf(out, size, "an unknown processor");
    while (f && fgets(line, sizeof line, f)) {
        const char *colon = strncmp(line, "model name", 10) == 0 ? strchr(line, ':') : NULL;
        if (!colon) continue;
        snprintf(out, size, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
}

static void machine(tl_engine *e, char *out, size_t size) {
    char cpu[160];
    int n = tl_engine_threads(e);
    processor(cpu, sizeof cpu);
    snprintf(out, size, "%s, %ld cores, %s, %d thread%s", cpu, sysconf(_SC_NPROCESSORS_ONLN), tl_engine_isa(e), n,
             n == 1 ? "" : "s");
}

/* ---- list ------------------------------------------------------------------------------------ */

static void list_claim(const options *o, const claim *c, const claim_result *v, bool first) {
    if (!o->common.json) {
        printf("  %-28s %-13s", c->id, claim_verdict_name(v->verdict, false));
        if (v->verdict != CLAIM_OPEN && isfinite(v->effect))
            printf(" %10.4g ± %-8.2g bound %g, %d seeds", v->effect, v->half, c->bound, v->seeds);
        printf("\n      %s\n      %s\n", c->says.en, c->says.zh);
        return;
    }
    printf(
        "%s\n  {\"id\": \"%s\", \"study\": \"%s\", \"metric\": \"%s\", \"a\": \"%s\", \"b\": \"%s\", \"bound\": %.17g, "
        "\"verdict\": \"%s\", \"seeds\": %d, ",
        first ? "" : ",", c->id, c->study, c->metric, c->a, c->b, c->bound, claim_verdict_name(v->verdict, false),
        v->seeds);
    if (v->verdict != CLAIM_OPEN && isfinite(v->effect))
        printf("\"effect\": %.17g, \"half_interval\": %.17g, ", v->effect, v->half);
    printf("\"en\": ");
    cli_json_text(stdout, c->says.en, strlen(c->says.en));
    printf(", \"zh\": ");
    cli_json_text(stdout, c->says.zh, strlen(c->says.zh));
    printf(", \"source\": ");
    cli_json_text(stdout, c->source, strlen(c->source));
    printf("}");
}

static tl_status list_study(const options *o, const tl_allocator *a, const study *s, bool *first, tl_error *e) {
    study_results r;
    char path[1024];
    TRY(study_path(o->out, s, o->quick, ".jsonl", path, sizeof path, e));
    TRY(study_results_read(a, path, &r, e));
    if (!o->common.json) printf("%s: %s\n", s->name, s->title.en);
    for (size_t i = 0; claim_at(i); i++) {
        claim_result v;
        if (strcmp(claim_at(i)->study, s->name) != 0) continue;
        claim_judge(claim_at(i), s, &r, o->quick, &v);
        list_claim(o, claim_at(i), &v, *first);
        *first = false;
    }
    study_results_free(&r);
    return TL_OK;
}

static int list(const options *o, const tl_allocator *a, const study *only) {
    tl_error e = {0};
    bool first = true;
    if (o->common.json) printf("[");
    tl_status s = TL_OK;
    for (size_t i = 0; study_at(i) && s == TL_OK; i++)
        if (!only || only == study_at(i)) s = list_study(o, a, study_at(i), &first, &e);
    if (o->common.json) printf("\n]\n");
    return s == TL_OK ? EXIT_DONE : cli_fail(&e);
}

/* ---- run ------------------------------------------------------------------------------------- */

static bool stop(void *user) {
    (void)user;
    return cli_signal() != 0;
}

static void say(void *user, const char *line) {
    (void)user;
    fprintf(stderr, "%s\n", line);
}

static int run(const options *o, tl_engine *engine, const study *s) {
    char name[300], date[32];
    time_t t = time(NULL);
    struct tm tm;
    tl_error e = {0};
    strftime(date, sizeof date, "%Y-%m-%d", localtime_r(&t, &tm));
    machine(engine, name, sizeof name);
    study_lab l = {.engine = engine,
                   .out = o->out,
                   .text = o->text,
                   .machine = name,
                   .date = date,
                   .quick = o->quick,
                   .save_seconds = o->save,
                   .stop = stop,
                   .say = o->common.quiet ? NULL : say};
    study_run_report r;
    cli_catch_signals();
    tl_status st = study_run(&l, s, &(study_run_options){o->seeds, o->where}, &r, &e);
    study_lab_fini(&l);
    if (!o->common.quiet)
        fprintf(stderr, "%s: %d cells measured, %d kept, %d left out, %d at hand elsewhere, %d failed\n", s->name,
                r.done, r.kept, r.left_out, r.elsewhere, r.failed);
    if (st == TL_CANCELLED && cli_signal()) {
        if (!o->common.quiet) fprintf(stderr, "tilia: interrupted; the same command goes on from here\n");
        return cli_signal_code();
    }
    if (st != TL_OK) return cli_fail(&e);
    int code = list(o, tl_engine_allocator(engine), s);
    return code ? code : r.failed ? EXIT_FAILED : EXIT_DONE;
}

/* ---- report ---------------------------------------------------------------------------------- */

static int report(const options *o, const tl_allocator *a, const study *only) {
    tl_error e = {0};
    int written = 0;
    for (size_t i = 0; study_at(i); i++) {
        const study *s = study_at(i);
        if (only && only != s) continue;
        tl_status st = study_report(a, s, o->out, o->quick, &e);
        if (st == TL_NOTFOUND && !only) continue;
        if (st != TL_OK) return cli_fail(&e);
        if (!o->common.json) printf("%s/%s%s.md\n", o->out, s->name, o->quick ? "-quick" : "");
        written++;
    }
    if (!written) return cli_usage("nothing has been measured in %s yet: `tilia study run ID` first", o->out);
    if (study_index(a, o->out, o->quick, &e) != TL_OK) return cli_fail(&e);
    if (o->common.json) return list(o, a, only);
    printf("%s/README.md\n", o->out);
    return EXIT_DONE;
}

/* ---- the command ----------------------------------------------------------------------------- */

static const study *study_of(const char *id) {
    const claim *c = claim_find(id);
    return c ? study_find(c->study) : study_find(id);
}

static int unknown(const char *id) {
    fprintf(stderr, "tilia: no study or claim \"%s\"; there are", id);
    for (size_t i = 0; study_at(i); i++) fprintf(stderr, "%s %s", i ? "," : "", study_at(i)->name);
    fprintf(stderr, "; `tilia study list` shows the claims\n");
    return EXIT_USAGE;
}

static int act(const options *o) {
    const study *only = o->id ? study_of(o->id) : NULL;
    if (o->id && !only) return unknown(o->id);
    tl_engine *engine;
    tl_error e = {0};
    if (cli_engine(&o->common, &engine, &e) != TL_OK) return cli_fail(&e);
    const tl_allocator *a = tl_engine_allocator(engine);
    int code = strcmp(o->verb, "list") == 0     ? list(o, a, only)
               : strcmp(o->verb, "report") == 0 ? report(o, a, only)
                                                : run(o, engine, only);
    tl_engine_destroy(engine);
    return code;
}

int cmd_study(int argc, char **argv) {
    options o = {.out = "runs/study"};
    if (cli_parse(&argp, argc, argv, &o)) return EXIT_USAGE;
    if (!o.verb) return cli_usage("what shall be done: list, run ID or report");
    if (strcmp(o.verb, "list") != 0 && strcmp(o.verb, "run") != 0 && strcmp(o.verb, "report") != 0)
        return cli_usage("no \"study %s\"; there are list, run and report", o.verb);
    if (strcmp(o.verb, "run") == 0 && !o.id) return cli_usage("which study? `tilia study list` shows them");
    return act(&o);
}
