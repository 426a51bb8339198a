/* The laboratory's frame on studies of a few milliseconds: grids and selectors, verdicts, resuming after a kill,
 * processes side by side, result files of strangers, reports; and every row of studies.def and claims.def. */
#include "support/testing.h"

#include "base/file.h"
#include "study/report.h"
#include "study/study.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* fontconfig, below cairo, keeps its caches to the end of the process: not ours, and not told by leak checkers. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libfontconfig\n";
}

static char dir[256];

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

/* ---- a study that computes nothing ----------------------------------------------------------- */

static int calls, kill_at;

static tl_status fake(study_lab *l, const study_cell *c, uint64_t seed, study_measured *m, tl_error *e) {
    (void)l;
    if (study_level_is(c, "fruit", "stone")) return error_set(e, TL_UNSUPPORTED, "a stone is no fruit");
    if (++calls == kill_at) raise(SIGKILL);
    double size = (double)study_level_int(c, "size"), x[3] = {1, 2, 3}, y[3];
    for (int i = 0; i < 3; i++) y[i] = size * x[i];
    study_value(m, "weight", size * (study_level_is(c, "fruit", "pear") ? 2 : 1) + 0.01 * (double)seed);
    study_value(m, "bad", (double)NAN);
    study_curve(m, "growth", 3, x, y);
    return TL_OK;
}

static const study_metric metrics[] = {{"weight", {"weight, g", "重量"}, 10, 2, false},
                                       {NULL, {NULL, NULL}, 0, 0, false}};
static const study_table tables[] = {
    {{"Weights", "重量表"}, "fruit", "size", NULL, {"weight"}},
    {{"All", "全部"}, "fruit", NULL, "size=2", {"weight", "bad"}},
    {{NULL, NULL}, NULL, NULL, NULL, {NULL}},
};
static const study_plot plots[] = {
    {"by-size", "Weight", "size", "g", "size", "weight", "fruit", NULL, false, false, 0, 0, false},
    {"growth", "Growth", "days", "g", NULL, "growth", "fruit", "size=2", false, false, 0, 0, false},
    {"points", "Points", "g", "g", "weight", "weight", "fruit", "size=2", false, false, 0, 0, false},
    {"none", "Nothing", "x", "y", NULL, "nosuch", "fruit", NULL, false, false, 0, 0, false},
    {NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, false, false, 0, 0, false},
};
static const study orchard = {
    .name = "orchard",
    .title = {"An orchard", "果园"},
    .about = {"Apples and pears.", "苹果与梨。"},
    .corpus = CORPUS_NONE,
    .factor = {{"fruit", {"fruit", "水果"}, {"apple", "pear", "stone"}}, {"size", {"size", "大小"}, {"1", "2", "3"}}},
    .run = fake,
    .metric = metrics,
    .table = tables,
    .plot = plots,
    .seeds = 2,
};
enum { MEASURED = 6 }; /* cells of a seed, stones left out */

static tl_status run_in(const study *s, const char *out, const study_run_options *o, study_run_report *r,
                        bool (*stop)(void *), tl_error *e) {
    tl_engine *engine;
    TRY(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, e));
    study_lab l = {.engine = engine,
                   .out = out,
                   .machine = "a test",
                   .date = "2000-01-01",
                   .quick = true,
                   .save_seconds = 1e-6,
                   .stop = stop};
    tl_status st = study_run(&l, s, o, r, e);
    study_lab_fini(&l);
    tl_engine_destroy(engine);
    return st;
}

static void join(char *out, size_t size, const char *name) {
    tl_error e = {0};
    assert_ok(file_join(out, size, dir, name, &e), &e);
}

static size_t lines_in(const char *path) {
    size_t n, count = 0;
    char *text = test_slurp(path, &n);
    assert_non_null(text);
    for (size_t i = 0; i < n; i++) count += text[i] == '\n';
    free(text);
    return count;
}

/* ---- grids ----------------------------------------------------------------------------------- */

static void cells_and_selectors(void **state) {
    (void)state;
    study_cell cell[STUDY_CELLS];
    char key[STUDY_KEY];
    tl_error e = {0};
    assert_int_equal(study_cells(&orchard, false, cell), 9);
    study_cell_key(&cell[5], key);
    assert_string_equal(key, "fruit=pear size=3");
    assert_int_equal(study_level_int(&cell[5], "size"), 3);
    assert_string_equal(study_level(&cell[5], "colour"), "");
    assert_true(study_selects(NULL, &cell[5]) && study_selects("", &cell[5]));
    assert_true(study_selects("fruit=apple|pear size=3", &cell[5]));
    assert_true(study_selects("size=1|2|3", &cell[5]));
    assert_false(study_selects("fruit=pea", &cell[5]));
    assert_false(study_selects("fruit=pears", &cell[5]));
    assert_false(study_selects("fruit=pear size=2", &cell[5]));
    assert_false(study_selects("colour=red", &cell[5]));
    assert_ok(study_selector_check(&orchard, "fruit=pear|stone size=2", &e), &e);
    assert_fails(TL_ARG, study_selector_check(&orchard, "colour=red", &e), &e);
    assert_fails(TL_ARG, study_selector_check(&orchard, "fruit=plum", &e), &e);
    assert_fails(TL_ARG, study_selector_check(&orchard, "fruit=", &e), &e);
    assert_fails(TL_ARG, study_selector_check(&orchard, "pear", &e), &e);
}

/* ---- verdicts -------------------------------------------------------------------------------- */

static void verdicts_weigh_effect_and_spread(void **state) {
    (void)state;
    static const struct {
        claim_test test;
        double bound, x[4];
        int n;
        bool exact;
        claim_verdict verdict;
    } rows[] = {
        {DIFF_BELOW, 0.02, {0.001, 0.002, 0.003}, 3, false, CLAIM_SUPPORTED},
        {DIFF_BELOW, 0.02, {0.05, 0.051, 0.052}, 3, false, CLAIM_CONTRADICTED},
        {DIFF_BELOW, 0.02, {-0.05, 0.0, 0.05}, 3, false, CLAIM_UNDECIDED}, /* below on average, but the spread is wide
                                                                            */
        {DIFF_BELOW, 0.02, {-5}, 1, false, CLAIM_UNDECIDED},               /* one seed has no spread */
        {DIFF_BELOW, 0.02, {-5}, 1, true, CLAIM_SUPPORTED},                /* unless it was counted */
        {DIFF_BELOW, 0.02, {0.02}, 1, true, CLAIM_CONTRADICTED},
        {DIFF_ABOVE, 1, {1.5, 1.6, 1.55, 1.5}, 4, false, CLAIM_SUPPORTED},
        {DIFF_ABOVE, 1, {0.5, 0.6, 0.55, 0.5}, 4, false, CLAIM_CONTRADICTED},
        {DIFF_WITHIN, 0.1, {0.01, -0.01, 0.0}, 3, false, CLAIM_SUPPORTED},
        {DIFF_WITHIN, 0.1, {0.2, 0.21, 0.19}, 3, false, CLAIM_CONTRADICTED},
        {DIFF_WITHIN, 0.1, {-0.2, -0.21, -0.19}, 3, false, CLAIM_CONTRADICTED},
        {DIFF_WITHIN, 0.1, {0.09, 0.11, 0.1}, 3, false, CLAIM_UNDECIDED},
        {RATIO_ABOVE, 2, {2.2, 2.3, 2.25}, 3, false, CLAIM_SUPPORTED},
        {RATIO_BELOW, 2, {2.2, 2.3, 2.25}, 3, false, CLAIM_CONTRADICTED},
        {DIFF_BELOW, 0, {NAN, -1, -1}, 3, false, CLAIM_UNDECIDED},
        {DIFF_BELOW, 0, {0}, 0, false, CLAIM_OPEN},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        claim_result r;
        memset(&r, 0, sizeof r);
        claim_judge_values(rows[i].test, rows[i].bound, rows[i].x, rows[i].n, rows[i].exact, &r);
        if (r.verdict != rows[i].verdict) fail_msg("row %zu: %s", i, claim_verdict_name(r.verdict, false));
        assert_true(r.verdict == CLAIM_SUPPORTED || r.verdict == CLAIM_CONTRADICTED || *r.why);
    }
    claim_result r;
    claim_judge_values(DIFF_BELOW, 0, (double[]){1, 2, 3}, 3, false, &r);
    assert_near(r.effect, 2, 1e-15);
    assert_near(r.sd, 1, 1e-15);
    assert_near(r.half, 4.303 / sqrt(3), 1e-12);
    assert_near(claim_t975(1), 12.706, 1e-9);
    assert_near(claim_t975(30), 2.042, 1e-9);
    assert_near(claim_t975(60), 2.0003, 1e-3);
    assert_near(claim_t975(1000000), 1.95996, 1e-4);
    assert_true(isinf(claim_t975(0)));
}

static void claims_compare_equal_seeds(void **state) {
    (void)state;
    char out[300], path[400];
    study_run_report rep;
    study_results r;
    claim_result v;
    tl_error e = {0};
    join(out, sizeof out, "claims");
    calls = kill_at = 0;
    assert_ok(run_in(&orchard, out, &(study_run_options){3, "size=1|2"}, &rep, NULL, &e), &e);
    assert_ok(study_path(out, &orchard, true, ".jsonl", path, sizeof path, &e), &e);
    assert_ok(study_results_read(&mem_default, path, &r, &e), &e);
    claim c = {"x", "orchard", "weight", "fruit=pear size=1|2", "fruit=apple size=1|2", DIFF_ABOVE, 1, {"", ""}, ""};
    claim_judge(&c, &orchard, &r, true, &v);
    assert_int_equal(v.verdict, CLAIM_SUPPORTED); /* pears weigh 1.5 more on average, with every seed */
    assert_near(v.effect, 1.5, 1e-12);
    assert_near(v.sd, 0, 1e-12);
    assert_int_equal(v.seeds, 3);
    c.test = RATIO_BELOW;
    c.bound = 1.5;
    claim_judge(&c, &orchard, &r, true, &v);
    assert_int_equal(v.verdict, CLAIM_CONTRADICTED);
    c.a = "fruit=pear"; /* size 3 was not measured */
    claim_judge(&c, &orchard, &r, true, &v);
    assert_int_equal(v.verdict, CLAIM_OPEN);
    c.a = "fruit=pear size=1";
    c.metric = "bad";
    claim_judge(&c, &orchard, &r, true, &v);
    assert_int_equal(v.verdict, CLAIM_UNDECIDED);
    study_results_free(&r);
}

/* ---- running --------------------------------------------------------------------------------- */

static void finished_cells_are_kept(void **state) {
    (void)state;
    char out[300];
    study_run_report r;
    tl_error e = {0};
    join(out, sizeof out, "kept");
    calls = kill_at = 0;
    assert_ok(run_in(&orchard, out, &(study_run_options){0, "fruit=pear"}, &r, NULL, &e), &e);
    assert_int_equal(r.done, 3);
    assert_ok(run_in(&orchard, out, &(study_run_options){2, NULL}, &r, NULL, &e), &e);
    assert_int_equal(r.done, 2 * MEASURED - 3);
    assert_int_equal(r.kept, 3);
    assert_int_equal(r.left_out, 6);
    assert_int_equal(calls, 2 * MEASURED);
    assert_ok(run_in(&orchard, out, &(study_run_options){2, NULL}, &r, NULL, &e), &e);
    assert_int_equal(r.done, 0);
    assert_int_equal(calls, 2 * MEASURED);
    assert_fails(TL_ARG, run_in(&orchard, out, &(study_run_options){1, "fruit=plum"}, &r, NULL, &e), &e);
    assert_fails(TL_ARG, run_in(&orchard, out, &(study_run_options){STUDY_SEEDS + 1, NULL}, &r, NULL, &e), &e);
}

/* A child runs until the k-th cell kills it; its status. */
static int killed_child(const study *s, const char *out, int k, bool (*stop)(void *)) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        study_run_report r;
        calls = 0;
        kill_at = k;
        _exit(run_in(s, out, &(study_run_options){2, NULL}, &r, stop, NULL) == TL_OK ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

static void a_kill_costs_the_cell_at_hand(void **state) {
    (void)state;
    char out[300], path[400];
    study_run_report r;
    tl_error e = {0};
    join(out, sizeof out, "kill");
    join(path, sizeof path, "kill/orchard-quick.jsonl");
    for (int k = 3; k > 0; k--) { /* two cells, one, none get through */
        int status = killed_child(&orchard, out, k, NULL);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    assert_int_equal(lines_in(path), 3);
    FILE *f = fopen(path, "ab"); /* and a line that was cut off */
    assert_non_null(f);
    fputs("{\"cell\": \"fruit=ap", f);
    fclose(f);
    calls = kill_at = 0;
    assert_ok(run_in(&orchard, out, &(study_run_options){2, NULL}, &r, NULL, &e), &e);
    assert_int_equal(r.kept, 3);
    assert_int_equal(r.done, 2 * MEASURED - 3);
    study_results all;
    assert_ok(study_results_read(&mem_default, path, &all, &e), &e);
    assert_int_equal(all.n, 2 * MEASURED);
    assert_int_equal(all.broken, 1);
    study_results_free(&all);
    join(path, sizeof path, "kill/orchard-quick.work");
    assert_false(file_exists(path));
}

static void processes_share_a_study(void **state) {
    (void)state;
    char out[300], path[400];
    pid_t pid[3];
    tl_error e = {0};
    join(out, sizeof out, "share");
    join(path, sizeof path, "share/orchard-quick.jsonl");
    calls = kill_at = 0;
    for (int i = 0; i < 3; i++) {
        pid[i] = fork();
        assert_true(pid[i] >= 0);
        if (!pid[i]) {
            study_run_report r;
            _exit(run_in(&orchard, out, &(study_run_options){2, NULL}, &r, NULL, NULL) == TL_OK ? 0 : 1);
        }
    }
    for (int i = 0; i < 3; i++) {
        int status;
        waitpid(pid[i], &status, 0);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    assert_int_equal(lines_in(path), 2 * MEASURED); /* nobody did a cell twice */
    study_results all;
    assert_ok(study_results_read(&mem_default, path, &all, &e), &e);
    assert_int_equal(all.n, 2 * MEASURED);
    study_results_free(&all);
}

/* ---- training -------------------------------------------------------------------------------- */

static tl_status tiny(study_lab *l, const study_cell *c, study_setup *s, tl_error *e) {
    TRY(study_config(l, &s->config, e,
                     "\"model_type\":\"gau\",\"hidden_size\":16,\"num_hidden_layers\":2,\"expansion\":8,"
                     "\"shared_size\":8,\"max_position_embeddings\":64,\"resid_pdrop\":%s}",
                     study_level(c, "dropout")));
    s->train.rows = 2;
    s->train.context = 16;
    s->train.schedule.steps = 12;
    s->train.schedule.warmup = 2;
    s->transfer[0] = 8;
    s->transfer[1] = 32;
    s->by_position = s->by_depth = s->on_training = true;
    return study_match(l, &s->config, 8000, 4, e);
}

static const study nursery = {
    .name = "nursery",
    .title = {"A nursery", "苗圃"},
    .about = {"Small.", "小。"},
    .corpus = CORPUS_STORIES,
    .factor = {{"dropout", {"dropout", "丢弃"}, {"0.0", "0.2"}}},
    .setup = tiny,
    .seeds = 1,
};

static bool kill_in_training(void *user) {
    (void)user;
    if (++calls == kill_at) raise(SIGKILL);
    return false;
}

static bool stop_soon(void *user) {
    (void)user;
    return ++calls > 9;
}

static void drop_times(json_t *o) {
    json_object_del(o, "seconds");
    json_object_del(json_object_get(o, "values"), "cpu_us");
}

static void an_interrupted_training_ends_the_same(void **state) {
    (void)state;
    char a[300], b[300], path[400];
    study_run_report r;
    tl_error e = {0};
    study_results ra, rb;
    join(a, sizeof a, "whole");
    join(b, sizeof b, "parts");
    assert_ok(run_in(&nursery, a, &(study_run_options){1, NULL}, &r, NULL, &e), &e);
    assert_int_equal(r.done, 2);
    int status = killed_child(&nursery, b, 8, kill_in_training); /* the first cell, some steps and checkpoints in */
    assert_true(WIFSIGNALED(status));
    calls = 0;
    assert_fails(TL_CANCELLED, run_in(&nursery, b, &(study_run_options){1, NULL}, &r, stop_soon, &e), &e);
    assert_ok(run_in(&nursery, b, &(study_run_options){1, NULL}, &r, NULL, &e), &e);
    join(path, sizeof path, "whole/nursery-quick.jsonl");
    assert_ok(study_results_read(&mem_default, path, &ra, &e), &e);
    join(path, sizeof path, "parts/nursery-quick.jsonl");
    assert_ok(study_results_read(&mem_default, path, &rb, &e), &e);
    assert_int_equal(ra.n, 2);
    for (size_t i = 0; i < ra.n; i++) {
        json_t *other =
            (json_t *)(uintptr_t)study_results_find(&rb, json_string_value(json_object_get(ra.line[i], "cell")), 1);
        assert_non_null(other);
        assert_true(study_line_value(other, "val_loss") > 1 && study_line_value(other, "cpu_us") > 0);
        assert_true(study_line_value(other, "loss@32") > 1);
        drop_times(ra.line[i]);
        drop_times(other);
        assert_true(json_equal(ra.line[i], other));
    }
    assert_true(study_line_value(ra.line[0], "val_loss") != study_line_value(ra.line[1], "val_loss"));
    study_results_free(&ra);
    study_results_free(&rb);
}

static void a_changed_definition_is_measured_anew(void **state) {
    (void)state;
    char out[300], path[400];
    study_run_report r;
    tl_error e = {0};
    join(out, sizeof out, "old");
    join(path, sizeof path, "old/orchard-quick.jsonl");
    assert_ok(file_mkdirs(out, &e), &e);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs("{\"cell\":\"fruit=pear size=1\",\"seed\":1,\"hash\":\"0123456789abcdef\",\"values\":{\"weight\":-7}}\n", f);
    fclose(f);
    calls = kill_at = 0;
    assert_ok(run_in(&orchard, out, &(study_run_options){1, "fruit=pear size=1"}, &r, NULL, &e), &e);
    assert_int_equal(r.done, 1);
    study_results all;
    assert_ok(study_results_read(&mem_default, path, &all, &e), &e);
    assert_int_equal(all.n, 1); /* the newer line stands for the cell */
    assert_near(study_line_value(all.line[0], "weight"), 2.01, 1e-12);
    study_results_free(&all);
}

/* ---- files of strangers ---------------------------------------------------------------------- */

static const char hostile[] =
    "\n"
    "not json\n"
    "[]\n"
    "42\n"
    "{}\n"
    "{\"cell\":1,\"seed\":1,\"values\":{}}\n"
    "{\"cell\":\"fruit=pear size=1\",\"seed\":-1,\"values\":{}}\n"
    "{\"cell\":\"fruit=pear size=1\",\"seed\":\"1\",\"values\":{}}\n"
    "{\"cell\":\"fruit=pear size=1\",\"seed\":1,\"values\":[]}\n"
    "{\"cell\":\"fruit=pear size=1\",\"cell\":\"x\",\"seed\":1,\"values\":{}}\n"
    "{\"cell\":\"fruit=pear size=1\",\"seed\":1,\"values\":{\"weight\":\"heavy\"},"
    "\"curves\":{\"growth\":7}}\n"
    "{\"cell\":\"fruit=pear size=2\",\"seed\":1,\"values\":{\"weight\":null},"
    "\"curves\":{\"growth\":[[1,\"a\",3],[1,2]]},\"date\":5,\"machine\":[],\"seconds\":\"x\"}\n"
    "{\"cell\":\"nonsense\",\"seed\":9223372036854775807,\"values\":{\"weight\":1e308}}\n"
    "\xff\xfe\x80\n"
    "{\"cell\":\"fruit=apple size=2\",\"seed\":1,\"values\":{\"weight\":3}}";

static void strangers_files_do_no_harm(void **state) {
    (void)state;
    char out[300], path[400];
    study_results r;
    claim_result v;
    tl_error e = {0};
    join(out, sizeof out, "hostile");
    join(path, sizeof path, "hostile/orchard.jsonl");
    assert_ok(file_mkdirs(out, &e), &e);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(hostile, 1, sizeof hostile - 1, f);
    fclose(f);
    assert_ok(study_results_read(&mem_default, path, &r, &e), &e);
    assert_int_equal(r.n, 4);
    assert_int_equal(r.broken, 10);
    claim c = {"x", "orchard", "weight", "fruit=pear size=1", "fruit=apple size=2", DIFF_ABOVE, 1, {"", ""}, ""};
    claim_judge(&c, &orchard, &r, false, &v);
    assert_int_equal(v.verdict, CLAIM_UNDECIDED);
    assert_near(study_line_value(study_results_find(&r, "fruit=apple size=2", 1), "weight"), 3, 0);
    study_results_free(&r);
    assert_ok(study_report(&mem_default, &orchard, out, false, &e), &e);
    assert_fails(TL_NOTFOUND, study_report(&mem_default, &orchard, dir, false, &e), &e);
}

static tl_status read_and_judge(const tl_allocator *a, void *user) {
    study_results r;
    TRY(study_results_read(a, user, &r, NULL));
    study_results_free(&r);
    return TL_OK;
}

static void memory_may_run_out(void **state) {
    (void)state;
    char path[400];
    join(path, sizeof path, "hostile/orchard.jsonl");
    assert_true(test_alloc_sweep(read_and_judge, path) > 1);
}

/* ---- reports --------------------------------------------------------------------------------- */

static void has(const char *file, const char *part) {
    char path[500];
    size_t n;
    join(path, sizeof path, file);
    char *text = test_slurp(path, &n);
    assert_non_null(text);
    if (!strstr(text, part)) fail_msg("%s has no \"%s\":\n%s", file, part, text);
    free(text);
}

static void a_report_says_what_was_measured(void **state) {
    (void)state;
    char out[300], path[400];
    study_run_report r;
    tl_error e = {0};
    join(out, sizeof out, "report");
    calls = kill_at = 0;
    assert_ok(run_in(&orchard, out, &(study_run_options){2, NULL}, &r, NULL, &e), &e);
    assert_ok(study_report(&mem_default, &orchard, out, true, &e), &e);
    has("report/orchard-quick.md", "# An orchard");
    has("report/orchard-quick.md", "Quick scale");
    has("report/orchard-quick.md", "| fruit | 1 | 2 | 3 |");
    has("report/orchard-quick.md",
        "| apple | 10.15 ± 0.07 | 20.15 ± 0.07 | 30.15 ± 0.07 |"); /* scaled, over two seeds */
    has("report/orchard-quick.md", "| pear | 40.15 ± 0.07 | diverged |");
    has("report/orchard-quick.md", "![Weight](orchard-quick-by-size.svg)");
    has("report/orchard-quick.md", "tilia study run orchard --seeds 2 --scale quick --threads 1 --out DIR");
    has("report/orchard-quick.md", "2000-01-01, a test");
    has("report/orchard-quick.md", "Without results: `fruit=stone size=1`");
    has("report/orchard-quick.zh-CN.md", "# 果园");
    has("report/orchard-quick.zh-CN.md", "| pear | 40.15 ± 0.07 | 发散 |");
    has("report/orchard-quick-by-size.svg", "<svg");
    has("report/orchard-quick-growth.svg", "<svg");
    has("report/orchard-quick-points.svg", "<svg");
    join(path, sizeof path, "report/orchard-quick-none.svg"); /* nothing to draw, nothing drawn */
    assert_false(file_exists(path));
    assert_ok(study_index(&mem_default, out, true, &e), &e);
    has("report/README.md", "# Claims, measured");
    has("report/README.md", "Not measured yet.");
    has("report/README.zh-CN.md", "尚未测量。");
    for (size_t i = 0; claim_at(i); i++) has("report/README.md", claim_at(i)->id);
}

/* ---- ranks ----------------------------------------------------------------------------------- */

static void ranks_of_known_matrices(void **state) {
    (void)state;
    enum { N = 12, W = 7 };
    float x[N * W];
    study_rank r;
    tl_error e = {0};
    for (int i = 0; i < N; i++) /* an outer product */
        for (int k = 0; k < W; k++) x[i * W + k] = (float)(i + 1) * (float)(2 - k);
    assert_ok(study_rank_of(&mem_default, x, N, W, &r, &e), &e);
    assert_near(r.numerical, 1, 0);
    assert_near(r.effective, 1, 1e-4);
    assert_near(r.stable, 1, 1e-6);
    memset(x, 0, sizeof x); /* five equal singular values */
    for (int k = 0; k < 5; k++) x[(k + 3) * W + k] = k & 1 ? -2.0f : 2.0f;
    for (int turn = 0; turn < 2; turn++) { /* upright and lying */
        assert_ok(study_rank_of(&mem_default, x, turn ? W : N, turn ? N : W, &r, &e), &e);
        assert_true(turn || r.numerical == 5);
        assert_true(turn || fabs(r.effective - 5) < 1e-9);
        assert_true(r.numerical <= W && r.effective <= W + 1e-9);
    }
    memset(x, 0, sizeof x);
    assert_ok(study_rank_of(&mem_default, x, N, W, &r, &e), &e);
    assert_near(r.numerical, 0, 0);
}

/* ---- the tables ------------------------------------------------------------------------------ */

static const study_factor *factor_of(const study *s, const char *name) {
    for (int f = 0; name && f < STUDY_FACTORS && s->factor[f].name; f++)
        if (strcmp(s->factor[f].name, name) == 0) return &s->factor[f];
    return NULL;
}

static void check_views(const study *s, tl_error *e) {
    for (const study_table *t = s->table; t && t->title.en; t++) {
        assert_non_null(factor_of(s, t->row));
        assert_true(!t->col || factor_of(s, t->col));
        assert_true(t->title.zh && t->metric[0]);
        assert_ok(study_selector_check(s, t->where, e), e);
    }
    for (const study_plot *p = s->plot; p && p->file; p++) {
        assert_true(!p->x || factor_of(s, p->x) || (study_metric_find(s, p->x) && p->by));
        assert_true(!p->by || factor_of(s, p->by));
        assert_ok(study_selector_check(s, p->where, e), e);
    }
}

static void every_study_is_whole(void **state) {
    (void)state;
    tl_engine *engine;
    tl_error e = {0};
    study_cell cell[STUDY_CELLS];
    char text[400];
    snprintf(text, sizeof text, "%s/text.txt", dir);
    FILE *f = fopen(text, "wb");
    assert_non_null(f);
    for (int i = 0; i < 500; i++) fprintf(f, "%d birds sat on branch %d. ", i % 7, i % 5);
    fclose(f);
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    study_lab l = {.engine = engine, .out = dir, .text = text, .quick = true};
    for (size_t i = 0; study_at(i); i++) {
        const study *s = study_at(i);
        assert_ptr_equal(study_find(s->name), s);
        assert_true(s->title.zh && s->about.en && s->about.zh && s->seeds > 0 && (s->setup || s->run));
        assert_ok(study_corpus_open(&l, s->corpus, &e), &e);
        check_views(s, &e);
        size_t n = study_cells(s, false, cell), good = 0;
        assert_in_range(n, 1, STUDY_CELLS - 1);
        for (size_t k = 0; k < n && s->setup; k++) {
            study_setup set;
            memset(&set, 0, sizeof set);
            tl_status st = s->setup(&l, &cell[k], &set, &e);
            if (st != TL_UNSUPPORTED && st != TL_CONFIG) assert_ok(st, &e);
            good += st == TL_OK;
            if (st == TL_OK) assert_true(set.train.schedule.steps > 0 && set.train.rows > 0 && set.train.context > 0);
        }
        assert_true(!s->setup || good > 0);
    }
    assert_null(study_find("nosuch"));
    study_lab_fini(&l);
    tl_engine_destroy(engine);
}

static void every_claim_can_be_tested(void **state) {
    (void)state;
    tl_error e = {0};
    for (size_t i = 0; claim_at(i); i++) {
        const claim *c = claim_at(i);
        const study *s = study_find(c->study);
        study_cell cell[STUDY_CELLS];
        int fits[2] = {0, 0};
        assert_non_null(s);
        assert_ptr_equal(claim_find(c->id), c); /* no other row has its id */
        assert_true(!study_find(c->id));        /* `tilia study run ID` means one of them */
        assert_ok(study_selector_check(s, c->a, &e), &e);
        assert_ok(study_selector_check(s, c->b, &e), &e);
        size_t n = study_cells(s, false, cell);
        for (size_t k = 0; k < n; k++)
            fits[0] += study_selects(c->a, &cell[k]), fits[1] += study_selects(c->b, &cell[k]);
        assert_true(fits[0] > 0 && (!*c->b || fits[0] == fits[1]));
        assert_true(study_metric_find(s, c->metric) || strncmp(c->metric, "loss@", 5) == 0);
        assert_true(strlen(c->says.en) > 10 && strlen(c->says.zh) > 10 && *c->source && isfinite(c->bound));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(cells_and_selectors),
                                       cmocka_unit_test(verdicts_weigh_effect_and_spread),
                                       cmocka_unit_test(claims_compare_equal_seeds),
                                       cmocka_unit_test(finished_cells_are_kept),
                                       cmocka_unit_test(a_kill_costs_the_cell_at_hand),
                                       cmocka_unit_test(processes_share_a_study),
                                       cmocka_unit_test(an_interrupted_training_ends_the_same),
                                       cmocka_unit_test(a_changed_definition_is_measured_anew),
                                       cmocka_unit_test(strangers_files_do_no_harm),
                                       cmocka_unit_test(memory_may_run_out),
                                       cmocka_unit_test(a_report_says_what_was_measured),
                                       cmocka_unit_test(ranks_of_known_matrices),
                                       cmocka_unit_test(every_study_is_whole),
                                       cmocka_unit_test(every_claim_can_be_tested)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
