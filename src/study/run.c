/* Running a study: cell by cell and seed by seed, what is finished is kept. */
#include "base/file.h"
#include "study/study.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- helpers of setups ----------------------------------------------------------------------- */

tl_status study_config(const study_lab *l, model_config *c, tl_error *e, const char *fmt, ...) {
    char text[2048];
    int n = snprintf(text, sizeof text, "{\"vocab_size\":%lld,", (long long)tokenizer_vocab(l->corpus->tokenizer));
    va_list ap;
    va_start(ap, fmt);
    int more = vsnprintf(text + n, sizeof text - (size_t)n, fmt, ap);
    va_end(ap);
    if (more < 0 || (size_t)(n + more) >= sizeof text)
        return error_set(e, TL_LIMIT, "a configuration of %d bytes", n + more);
    return config_parse(text, c, NULL, 0, e);
}

tl_status study_fit(const study_lab *l, model_config *c, tl_error *e) {
    model_fit_tokenizer(c, l->corpus->tokenizer);
    if (c->objective != OBJECTIVE_MLM) return TL_OK;
    c->mask = -1; /* one id more than the tokenizer has */
    return config_objective(c, OBJECTIVE_MLM, true, e);
}

static tl_status count_params(study_lab *l, const model_config *c, int64_t *n, tl_error *e) {
    model_params p;
    const tl_allocator *a = tl_engine_allocator(l->engine);
    TRY(params_init(&p, a, c, e));
    *n = p.count;
    params_fini(&p, a);
    return TL_OK;
}

/* Gated layers alone: their width is the model's. Else theirs stays and the mlp's changes. */
static void set_width(model_config *c, int64_t width) {
    c->mlp = width;
    if (config_all_gated(c)) c->expand = width;
}

tl_status study_match(study_lab *l, model_config *c, int64_t params, int64_t multiple, tl_error *e) {
    int64_t zero, one, got;
    TRY(study_fit(l, c, e));
    set_width(c, multiple);
    TRY(count_params(l, c, &zero, e));
    set_width(c, 2 * multiple);
    TRY(count_params(l, c, &one, e)); /* the count is linear in the width */
    double steps = 1 + (double)(params - zero) / (double)(one - zero);
    set_width(c, multiple * (int64_t)fmax(1, round(steps)));
    TRY(count_params(l, c, &got, e));
    if (fabs((double)(got - params)) > 0.05 * (double)params)
        return error_set(e, TL_CONFIG, "%lld parameters cannot be had by the width alone: %lld at %lld",
                         (long long)params, (long long)got, (long long)c->mlp);
    return config_check(c, e);
}

static void defaults(const study_lab *l, study_setup *s, uint64_t seed) {
    (void)l;
    memset(s, 0, sizeof *s);
    s->train = (trainer_settings){.schedule = {TL_SCHEDULE_COSINE, 2e-3, 2e-4, 20, 100},
                                  .rows = 4,
                                  .context = 256,
                                  .dtype = TL_F32,
                                  .beta1 = 0.9,
                                  .beta2 = 0.98,
                                  .eps = 1e-8,
                                  .decay = 0.05,
                                  .clip = 1,
                                  .seed = seed};
}

/* ---- one cell -------------------------------------------------------------------------------- */

typedef struct runner {
    study_lab *lab;
    const study *of;
    study_run_report *report;
    study_results results;
    char path[1024], work[1024];
} runner;

static void say(const runner *r, const study_cell *c, uint64_t seed, const char *what) {
    char key[STUDY_KEY], line[1400];
    if (!r->lab->say) return;
    study_cell_key(c, key);
    snprintf(line, sizeof line, "%s %s seed %llu: %s", r->of->name, key, (unsigned long long)seed, what);
    r->lab->say(r->lab->user, line);
}

static void left_out(runner *r, const study_cell *c, uint64_t seed, const tl_error *why) {
    char text[900], line[1000];
    snprintf(line, sizeof line, "left out: %s", tl_error_text(why, text, sizeof text));
    say(r, c, seed, line);
    r->report->left_out++;
}

static tl_status setup(runner *r, const study_cell *c, uint64_t seed, study_setup *s, tl_error *e) {
    defaults(r->lab, s, seed);
    if (r->of->run) return config_recipe("llama", &s->config, e); /* trained on nothing: any configuration */
    TRY(r->of->setup(r->lab, c, s, e));
    TRY(study_fit(r->lab, &s->config, e));
    if (!s->train.micro) s->train.micro = s->train.rows;
    return config_check(&s->config, e);
}

/* Is the cell's line there, made under the definition that is in force now? */
static bool finished(const runner *r, const char *key, uint64_t seed, const char *hash) {
    const json_t *line = study_results_find(&r->results, key, seed);
    const char *h = json_string_value(json_object_get(line, "hash"));
    return h && strcmp(h, hash) == 0;
}

static tl_status measure(runner *r, const study_cell *c, uint64_t seed, const study_setup *set, const char *hash,
                         const char *work, tl_error *e) {
    char key[STUDY_KEY];
    study_cell_key(c, key);
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    study_measured m = {json_pack("{s:s, s:I, s:s, s:s, s:s, s:s, s:i, s:{}, s:{}}", "cell", key, "seed",
                                  (json_int_t)seed, "hash", hash, "date", r->lab->date, "machine", r->lab->machine,
                                  "version", TILIA_VERSION, "threads", tl_engine_threads(r->lab->engine), "values",
                                  "curves")};
    if (!m.o) return error_set(e, TL_NOMEM, "no memory for a result");
    tl_status s = r->of->run ? r->of->run(r->lab, c, seed, &m, e) : study_train(r->lab, c, seed, set, work, &m, e);
    clock_gettime(CLOCK_MONOTONIC, &end);
    double seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    json_object_set_new(m.o, "seconds", json_real(round(seconds * 100) / 100));
    if (s == TL_OK) s = study_results_append(r->results.alloc, r->path, m.o, e);
    json_decref(m.o);
    return s;
}

static void work_name(const char *key, uint64_t seed, char *name, size_t size) {
    int n = snprintf(name, size, "%s-seed=%llu", key, (unsigned long long)seed);
    for (int i = 0; i < n && name[i]; i++)
        if (!strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=.-", name[i])) name[i] = '-';
}

static tl_status reread(runner *r, tl_error *e) {
    const tl_allocator *a = r->results.alloc;
    study_results_free(&r->results);
    return study_results_read(a, r->path, &r->results, e);
}

/* With the cell's lock held: no other process works on it. */
static tl_status locked(runner *r, const study_cell *c, uint64_t seed, const study_setup *set, const char *hash,
                        const char *work, tl_error *e) {
    char key[STUDY_KEY];
    study_cell_key(c, key);
    TRY(reread(r, e)); /* another process may have finished it */
    if (finished(r, key, seed, hash)) {
        r->report->kept++;
        return TL_OK;
    }
    say(r, c, seed,
        study_results_find(&r->results, key, seed) ? "measured anew: its definition has changed" : "begins");
    TRY(file_mkdirs(work, e));
    tl_error why = {0};
    tl_status s = measure(r, c, seed, set, hash, work, &why);
    if (s == TL_OK) {
        r->report->done++;
        say(r, c, seed, "done");
        return file_remove_tree(r->results.alloc, work, e);
    }
    if (s == TL_UNSUPPORTED) {
        left_out(r, c, seed, &why);
        return file_remove_tree(r->results.alloc, work, e);
    }
    if (s == TL_CANCELLED || s == TL_NOMEM || s == TL_IO || s == TL_NOSPACE) {
        if (e) *e = why;
        return s;
    }
    char text[900], line[1000];
    snprintf(line, sizeof line, "failed: %s", tl_error_text(&why, text, sizeof text));
    say(r, c, seed, line);
    r->report->failed++;
    return TL_OK;
}

/* Another process that is done takes the empty folder away: it is made again. */
static tl_status take_lock(const runner *r, const char *lock, int *fd, tl_error *e) {
    tl_status s = TL_NOTFOUND;
    for (int i = 0; i < 100 && s == TL_NOTFOUND; i++) {
        TRY(file_mkdirs(r->work, e));
        s = file_lock(lock, fd, e);
    }
    return s;
}

static tl_status one(runner *r, const study_cell *c, uint64_t seed, tl_error *e) {
    study_setup set;
    tl_error why = {0};
    char hash[17], key[STUDY_KEY], name[STUDY_KEY + 32], work[1024], lock[1100];
    uint64_t h;
    int fd;
    tl_status s = setup(r, c, seed, &set, &why);
    if (s == TL_UNSUPPORTED || s == TL_CONFIG) {
        left_out(r, c, seed, &why);
        return TL_OK;
    }
    if (s != TL_OK) {
        if (e) *e = why;
        return s;
    }
    study_cell_key(c, key);
    TRY(study_fingerprint(r->lab, c, &set, &h, e));
    snprintf(hash, sizeof hash, "%016llx", (unsigned long long)h);
    if (finished(r, key, seed, hash)) {
        r->report->kept++;
        return TL_OK;
    }
    work_name(key, seed, name, sizeof name);
    TRY(file_join(work, sizeof work, r->work, name, e));
    snprintf(lock, sizeof lock, "%s.lock", work);
    s = take_lock(r, lock, &fd, &why);
    if (s == TL_BUSY) {
        r->report->elsewhere++;
        return TL_OK;
    }
    if (s != TL_OK) {
        if (e) *e = why;
        return s;
    }
    s = locked(r, c, seed, &set, hash, work, e);
    /* Whoever waited at this file's door finds the cell finished. */
    if (!file_exists(work)) file_sys.unlink(lock);
    file_unlock(fd);
    return s;
}

static tl_status all(runner *r, const study_run_options *o, tl_error *e) {
    study_cell cell[STUDY_CELLS];
    size_t n = study_cells(r->of, r->lab->quick, cell);
    int seeds = o->seeds ? o->seeds : r->lab->quick ? 1 : r->of->seeds;
    for (uint64_t seed = 1; seed <= (uint64_t)seeds; seed++)
        for (size_t i = 0; i < n; i++) {
            if (!study_selects(o->where, &cell[i])) continue;
            if (r->lab->stop && r->lab->stop(r->lab->user)) return error_set(e, TL_CANCELLED, "stopped");
            TRY(one(r, &cell[i], seed, e));
        }
    return TL_OK;
}

tl_status study_run(study_lab *l, const study *s, const study_run_options *o, study_run_report *report, tl_error *e) {
    runner r = {.lab = l, .of = s, .report = report};
    const tl_allocator *a = tl_engine_allocator(l->engine);
    memset(report, 0, sizeof *report);
    TRY(study_selector_check(s, o->where, e));
    if (o->seeds < 0 || o->seeds > STUDY_SEEDS)
        return error_set(e, TL_ARG, "%d seeds; there can be 1 to %d", o->seeds, STUDY_SEEDS);
    TRY(study_corpus_open(l, s->corpus, e));
    TRY(study_path(l->out, s, l->quick, ".jsonl", r.path, sizeof r.path, e));
    TRY(study_path(l->out, s, l->quick, ".work", r.work, sizeof r.work, e));
    TRY(file_mkdirs(l->out, e));
    TRY(study_results_read(a, r.path, &r.results, e));
    tl_status st = all(&r, o, e);
    study_results_free(&r.results);
    rmdir(r.work); /* if it is empty */
    return st;
}
