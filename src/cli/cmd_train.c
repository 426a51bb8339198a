/* tilia train: from text to a run directory. */
#include "cli/train_cli.h"
#include "runlog/plot.h"

#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- run directory -------------------------------------------------------------------------------------------- */

/* runs/20260102-150405-name */
static void default_path(const train_options *o, char *out, size_t size) {
    char name[48] = "";
    const char *base = strrchr(o->file[0], '/');
    base = base ? base + 1 : o->file[0];
    for (size_t i = 0; base[i] && base[i] != '.' && i + 1 < sizeof name; i++) {
        char c = base[i];
        bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        name[i] = plain ? c : '-';
        name[i + 1] = 0;
    }
    time_t now = time(NULL);
    struct tm t;
    char date[32];
    strftime(date, sizeof date, "%Y%m%d-%H%M%S", localtime_r(&now, &t));
    snprintf(out, size, "runs/%s-%s", date, name[0] && strcmp(name, "-") != 0 ? name : "text");
}

/* A run of its own: nothing of another one may be there. */
static tl_status new_directory(train_run *r, tl_error *e) {
    static const char *const mine[] = {"run.json", "metrics.jsonl", "latest", "data.tokens", "config.json"};
    char path[TRAIN_PATH + 32];
    if (r->o->out)
        snprintf(r->path, sizeof r->path, "%s", r->o->out);
    else
        default_path(r->o, r->path, sizeof r->path);
    for (size_t n = strlen(r->path); n > 1 && r->path[n - 1] == '/';) r->path[--n] = 0;
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) {
        snprintf(path, sizeof path, "%s/%s", r->path, mine[i]);
        if (!file_exists(path)) continue;
        tl_status s =
            error_set(e, TL_BUSY, "there is a run already; --resume goes on with it, nothing was overwritten");
        error_at_file(e, r->path);
        return s;
    }
    return file_mkdirs(r->path, e);
}

/* runs/latest -> the run, put in place by a rename. Where links cannot be made it is left out. */
static void point_latest(const char *run) {
    char link[TRAIN_PATH], tmp[TRAIN_PATH + 32];
    const char *slash = strrchr(run, '/');
    size_t n = slash ? (size_t)(slash - run) : 0;
    bool runs = (n == 4 && strncmp(run, "runs", 4) == 0) || (n > 5 && strncmp(run + n - 5, "/runs", 5) == 0);
    if (!runs || !slash[1]) return;
    snprintf(link, sizeof link, "%.*s/latest", (int)n, run);
    snprintf(tmp, sizeof tmp, "%s.tmp-%ld", link, (long)getpid());
    if (symlink(slash + 1, tmp) == 0 && rename(tmp, link) != 0) unlink(tmp);
}

static tl_status lock(const train_run *r, int *fd, tl_error *e) {
    char path[TRAIN_PATH];
    TRY(file_join(path, sizeof path, r->path, "lock", e));
    return file_lock(path, fd, e);
}

/* A run that never began leaves nothing behind. */
static void forget(const train_run *r) {
    static const char *const mine[] = {"data.tokens", "val.tokens", "metrics.jsonl", "run.json", "lock"};
    char path[TRAIN_PATH + 32];
    for (size_t i = 0; i < sizeof mine / sizeof *mine; i++) {
        snprintf(path, sizeof path, "%s/%s", r->path, mine[i]);
        unlink(path);
    }
    rmdir(r->path);
}

/* ---- run.json -----------------------------------------------------------------------------------------------------
 */

static const char *const orders[] = {"windows", "packed", "random"}; /* by loader_mode */

json_t *train_extra(const train_run *r) {
    return json_pack("{s:o,s:I,s:I,s:I,s:I,s:i,s:s}", "data", train_data_json(&r->data), "eval_every",
                     (json_int_t)r->eval_every, "sample_every", (json_int_t)r->sample_every, "save_every",
                     (json_int_t)r->save_every, "keep", (json_int_t)r->keep, "on_nan", (int)r->o->on_nan, "order",
                     orders[r->order]);
}

static json_t *run_json(const train_run *r) {
    char date[32];
    time_t now = time(NULL);
    struct tm t;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &t));
    json_t *files = json_array();
    for (size_t i = 0; files && i < r->o->n_file; i++) json_array_append_new(files, json_string(r->o->file[i]));
    const tl_model *m = r->model;
    return json_pack("{s:s,s:s,s:s,s:o,s:s,s:I,s:i,s:s,s:I,s:I,s:I,s:o,s:o,s:o,s:f,s:f,s:f,s:f}", "command", "train",
                     "tilia", TILIA_VERSION, "started", date, "files", files, "tokenizer",
                     m->tokenizer ? tokenizer_kind(m->tokenizer) : "none", "seed", (json_int_t)r->trainer->set.seed,
                     "threads", tl_engine_threads(r->engine), "isa", tl_engine_isa(r->engine), "params",
                     (json_int_t)m->params.count, "params_no_embedding", (json_int_t)m->params.count_no_embedding,
                     "planned_bytes", (json_int_t)r->trainer->bytes.total, "model", config_write(&m->config),
                     "settings", checkpoint_settings_json(&r->trainer->set), "run", train_extra(r), "peak_flops",
                     r->peak, "peak_bytes", r->bandwidth, "step_flops", r->trainer->flops, "step_bytes",
                     r->trainer->moved);
}

static tl_status write_run_json(const train_run *r, tl_error *e) {
    char path[TRAIN_PATH];
    json_t *o = run_json(r);
    if (!o) return error_set(e, TL_NOMEM, "no memory for run.json");
    tl_status s = file_join(path, sizeof path, r->path, "run.json", e);
    if (s == TL_OK) s = json_write_file(r->alloc, path, o, e);
    json_decref(o);
    return s;
}

/* ---- settings -------------------------------------------------------------------------------------------------------
 */

/* What the options leave open follows from the model's size. */
static tl_status settle(const train_options *o, const tl_model *m, trainer_settings *s, tl_error *e) {
    int64_t T = o->context ? o->context : m->config.context;
    int64_t batch = o->batch ? o->batch : 16 * T;
    if (o->batch && o->batch < T)
        return error_set(e, TL_ARG, "--batch %lld tokens hold no row of %lld: lower --context", (long long)o->batch,
                         (long long)T);
    *s = (trainer_settings){.rows = batch / T, .context = T};
    s->micro = o->micro ? o->micro : s->rows;
    s->segment = o->segment < T ? o->segment : 0;
    s->dtype = o->dtype ? o->dtype : TL_F32;
    /* Kaplan et al. 2020, equation D.1, twice: at 0.1M to 1M parameters on a megabyte of text 3e-3 ended lower than
     * 1.6e-3 and 5e-3. A tenth of that for weights that are trained already; adapters
     * want about ten times what the whole model wants. */
    double n = (double)m->params.count_no_embedding, lr = 2 * fmax(0.003239 - 0.0001395 * log(n > 1 ? n : 1), 5e-5);
    s->schedule.kind = o->schedule;
    s->schedule.lr = o->lr > 0 ? o->lr : o->model && !o->lora.rank ? lr / 10 : lr;
    s->schedule.min_lr = o->min_lr >= 0 ? o->min_lr : s->schedule.lr / 10;
    s->schedule.steps = o->steps;
    s->schedule.warmup = o->warmup >= 0 ? o->warmup : train_warmup(o->steps);
    s->beta1 = o->beta1 >= 0 ? o->beta1 : 0.9;
    s->beta2 = o->beta2 >= 0 ? o->beta2 : batch < 32768 ? 0.99 : 0.95;
    s->eps = 1e-8;
    s->decay = o->decay >= 0 ? o->decay : o->lora.rank ? 0 : 0.1; /* adapters decay towards the base by themselves */
    s->clip = o->clip >= 0 ? o->clip : 1;
    s->recompute = o->recompute;
    s->seed = o->common.seed;
    return TL_OK;
}

static void settle_run(train_run *r, int64_t steps) {
    const train_options *o = r->o;
    int64_t tenth = steps / 10 ? steps / 10 : 1;
    r->eval_every = o->eval_every >= 0 ? o->eval_every : tenth;
    r->save_every = o->save_every ? o->save_every : tenth;
    r->sample_every = o->sample_every >= 0 ? o->sample_every : 0;
    r->keep = o->keep >= 0 ? o->keep : 2;
}

static tl_status open_loader(train_run *r, tl_error *e) {
    const trainer_settings *s = &r->trainer->set;
    loader_options lo = {.mode = r->order,
                         .B = s->rows,
                         .T = s->context,
                         .seed = s->seed,
                         .source = config_source(&r->model->config),
                         .across = !s->packed};
    return loader_open(r->alloc, &r->data.train, &lo, &r->loader, e);
}

static tl_status open_eval(train_run *r, tl_error *e) {
    const trainer_settings *s = &r->trainer->set;
    eval_options eo = {.context = s->context, .segment = s->segment, .dtype = s->dtype, .packed = s->packed};
    return evaluator_open(r->model, &eo, &r->eval, e);
}

static tl_status open_metrics(train_run *r, int64_t keep_step, tl_error *e) {
    char path[TRAIN_PATH];
    TRY(file_join(path, sizeof path, r->path, "metrics.jsonl", e));
    return metrics_writer_open(&r->metrics, r->alloc, path, keep_step, e);
}

/* ---- begin
 * -------------------------------------------------------------------------------------------------------------- */

/* What is learned of examples, and what a row has no room for. */
static void introduce_examples(const train_run *r) {
    int64_t cut, left_out, longest;
    char a[32], b[32];
    if (!r->data.train.mark) return;
    loader_cuts(r->loader, &cut, &left_out, &longest);
    fprintf(stderr, "examples: %s of %s tokens in answers, %.0f %% of the rows filled\n",
            cli_count((double)loader_targets(r->loader), a, sizeof a), cli_count((double)r->data.train.n, b, sizeof b),
            r->model->config.encoder ? 100 * loader_use(r->loader)
                                     : 100.0 * (double)(r->data.train.n - r->data.train.documents) /
                                           ((double)loader_rows(r->loader) * (double)r->trainer->set.context));
    if (cut || left_out)
        fprintf(
            stderr,
            "tilia: warning: of %lld examples %lld are longer than the context of %lld and are cut (the longest has "
            "%lld tokens), %lld are left out: no answer begins within it\n",
            (long long)r->data.train.documents, (long long)cut, (long long)r->trainer->set.context, (long long)longest,
            (long long)left_out);
}

static void introduce(const train_run *r) {
    char a[32], b[32], c[32], d[32];
    const tl_model *m = r->model;
    const trainer_settings *s = &r->trainer->set;
    if (r->o->common.quiet) return;
    fprintf(stderr, "model: %s, %lld layers, width %lld, context %lld: %s parameters (%s without embeddings)\n",
            m->config.type, (long long)m->config.layers, (long long)m->config.width, (long long)s->context,
            cli_count((double)m->params.count, a, sizeof a),
            cli_count((double)m->params.count_no_embedding, b, sizeof b));
    if (m->config.encoder)
        fprintf(stderr, "encoder: %lld layers, sources of up to %lld tokens\n", (long long)m->config.encoder,
                (long long)config_source(&m->config));
    if (m->lora)
        fprintf(stderr, "adapters: %s parameters are trained, rank %lld, alpha %g; the base %s\n",
                cli_count((double)m->lora->params.count, a, sizeof a), (long long)m->lora->o.rank, m->lora->o.alpha,
                m->flat ? "is in memory as f32" : "stays in its file");
    const int64_t documents = r->data.documents ? r->data.documents : r->data.train.documents;
    fprintf(stderr, "text: %s tokens in %lld document%s, %s of them held out for validation\n",
            cli_count((double)(r->data.train.n + (r->data.has_held ? 0 : r->data.val.n)), a, sizeof a),
            (long long)documents, documents == 1 ? "" : "s", cli_count((double)r->data.val.n, b, sizeof b));
    introduce_examples(r);
    fprintf(stderr, "memory: %s planned (weights %s, gradients and moments %s, activations %s)\n",
            cli_bytes((double)r->trainer->bytes.total, a, sizeof a),
            cli_bytes((double)(r->trainer->bytes.weights + r->trainer->bytes.weights16), b, sizeof b),
            cli_bytes((double)(r->trainer->bytes.gradients + r->trainer->bytes.moments), c, sizeof c),
            cli_bytes((double)r->trainer->bytes.activations, d, sizeof d));
    if (r->trainer->bytes.mapped)
        fprintf(stderr, "beside it: %s of weights mapped from their file\n",
                cli_bytes((double)r->trainer->bytes.mapped, a, sizeof a));
    fprintf(stderr, "step: %lld rows of %lld tokens in %s, %s; machine %s, %d threads, %s, %s/s\n", (long long)s->rows,
            (long long)s->context, tl_dtype_name(s->dtype), cli_rate(r->trainer->flops, "FLOP", a, sizeof a),
            tl_engine_isa(r->engine), tl_engine_threads(r->engine), cli_rate(r->peak, "FLOP/s", b, sizeof b),
            cli_bytes(r->bandwidth, c, sizeof c));
    fprintf(stderr, "run: %s\n", r->path);
}

/* Everything a new run needs, up to the first step. */
static tl_status begin_new(train_run *r, tl_error *e) {
    const train_options *o = r->o;
    trainer_settings s;
    if (!o->model || o->tokenizer) TRY(train_tokenizer(o, r->alloc, &r->tokenizer, e));
    tl_dtype dtype = o->dtype ? o->dtype : TL_F32;
    TRY(train_machine(r->engine, dtype, &r->peak, &r->bandwidth, e));
    if (o->model) TRY(train_model(o, r->engine, r->tokenizer, 0, 0, 0, &r->model, e));
    const tokenizer *t = o->model ? r->model->tokenizer : r->tokenizer;
    TRY(train_data_make(&r->data, o, r->alloc, r->path, t, (size_t)tl_engine_threads(r->engine), e));
    if (!o->model)
        TRY(train_model(o, r->engine, r->tokenizer, r->data.train.n, 60 * o->minutes, r->peak, &r->model, e));
    TRY(settle(o, r->model, &s, e));
    bool examples = r->data.train.mark != NULL;
    if (!examples && r->model->config.encoder)
        return error_set(e, TL_ARG,
                         "the objective seq2seq learns from pairs: lines {\"source\": ..., \"target\": ...} of a "
                         ".jsonl file");
    if (examples && !config_causal(&r->model->config))
        return error_set(e, TL_ARG, "answers are learned token by token: examples need --objective causal or prefix");
    const bool grid = r->model->config.grid_rows > 0; /* a row is one */
    if (grid && examples) return error_set(e, TL_ARG, "a grid is a row of its own: no examples");
    const bool apart = o->packed || (!s.segment && r->data.train.documents > 1); /* segments go on across documents */
    s.packed = examples || (!grid && !o->random && r->data.train.eod >= 0 && apart);
    TRY(trainer_create(r->model, &s, &r->trainer, e));
    settle_run(r, o->steps);
    if (r->sample_every && !config_writes(&r->model->config))
        return error_set(e, TL_ARG, "--sample-every: this model cannot write one token after the other");
    r->order = o->random ? LOADER_RANDOM : o->packed || examples ? LOADER_PACKED : LOADER_WINDOWS;
    TRY(open_loader(r, e));
    TRY(open_eval(r, e));
    if (cli_signal()) return error_set(e, TL_CANCELLED, "interrupted before the first step");
    introduce(r);
    double seconds = 0;
    if (o->minutes > 0) {
        TRY(train_evaluate(r, e));
        TRY(trainer_probe(r->trainer, r->loader, &seconds, e));
        TRY(trainer_probe(r->trainer, r->loader, &seconds, e));
        r->deadline = r->begin + 60 * o->minutes;
        train_estimate(r, seconds);
    }
    TRY(open_metrics(r, -1, e));
    TRY(write_run_json(r, e));
    train_save(r); /* so that --resume works from the first step on */
    if (r->save_failed) return error_set(e, TL_IO, "the run directory cannot hold a checkpoint");
    point_latest(r->path);
    return TL_OK;
}

static tl_status read_extra(train_run *r, const json_t *x, tl_error *e) {
    const char *order = "";
    TRY(json_get_int(x, "eval_every", 0, INT64_MAX, &r->eval_every, e));
    TRY(json_get_int(x, "save_every", 1, INT64_MAX, &r->save_every, e));
    TRY(json_get_int(x, "sample_every", 0, INT64_MAX, &r->sample_every, e));
    TRY(json_get_int(x, "keep", 0, INT64_MAX, &r->keep, e));
    TRY(json_get_str(x, "order", &order, e));
    for (int i = 0; i < 3; i++)
        if (strcmp(order, orders[i]) == 0) r->order = (loader_mode)i;
    if (r->o->eval_every >= 0) r->eval_every = r->o->eval_every;
    if (r->o->save_every) r->save_every = r->o->save_every;
    if (r->o->sample_every >= 0) r->sample_every = r->o->sample_every;
    if (r->sample_every && !config_writes(&r->model->config))
        return error_set(e, TL_ARG, "--sample-every: this model cannot write one token after the other");
    if (r->o->keep >= 0) r->keep = r->o->keep;
    return TL_OK;
}

static tl_status resume_from(train_run *r, const char *dir, const json_t *manifest, tl_error *e) {
    const json_t *extra = checkpoint_extra(manifest);
    if (!extra) return error_set(e, TL_FORMAT, "the checkpoint is not one of tilia train");
    TRY(checkpoint_resume(r->engine, dir, manifest, r->o->steps, &r->model, &r->trainer, e));
    TRY(train_machine(r->engine, r->trainer->set.dtype, &r->peak, &r->bandwidth, e));
    TRY(train_data_open(&r->data, r->path, json_object_get(extra, "data"), e));
    TRY(read_extra(r, extra, e));
    TRY(open_loader(r, e));
    TRY(open_eval(r, e));
    r->saved = r->trainer->step;
    TRY(open_metrics(r, r->trainer->step, e));
    introduce(r);
    if (!r->o->common.quiet)
        fprintf(stderr, "resumed at step %lld of %lld\n", (long long)r->saved,
                (long long)r->trainer->set.schedule.steps);
    point_latest(r->path);
    return TL_OK;
}

static tl_status begin_again(train_run *r, tl_error *e) {
    char dir[TRAIN_PATH];
    json_t *manifest;
    TRY(checkpoint_find(r->alloc, r->path, &r->log, dir, sizeof dir, &manifest, e));
    tl_status s = resume_from(r, dir, manifest, e);
    json_decref(manifest);
    return s;
}

/* ---- end
 * ---------------------------------------------------------------------------------------------------------------- */

static tl_status series(const metrics *m, const char *name, plot_series *s, double **x, double **y, tl_error *e) {
    TRY(metrics_points(m, "step", name, x, y, &s->n, e));
    s->x = *x;
    s->y = *y;
    s->name = name;
    s->color = -1;
    return TL_OK;
}

static tl_status draw(const train_run *r, const metrics *m, tl_error *e) {
    double *x[2] = {0}, *y[2] = {0};
    plot_series s[2] = {{0}, {.marked = true}};
    char path[TRAIN_PATH];
    str text;
    str_init(&text, r->alloc);
    tl_status st = series(m, "loss", &s[0], &x[0], &y[0], e);
    if (st == TL_OK) st = series(m, "val_loss", &s[1], &x[1], &y[1], e);
    plot_spec p = {.title = r->path, .xlabel = "step", .ylabel = "nats per token", .series = s, .n = s[1].n ? 2 : 1};
    if (st == TL_OK) st = plot_braille(r->alloc, &p, 100, 24, r->terminal, &text, e);
    if (st == TL_OK && text.len) fwrite(text.data, 1, text.len, stderr);
    if (st == TL_OK) st = file_join(path, sizeof path, r->path, "loss.svg", e);
    if (st == TL_OK) st = plot_file(r->alloc, &p, path, e);
    if (st == TL_OK) st = file_join(path, sizeof path, r->path, "loss.png", e);
    if (st == TL_OK) st = plot_file(r->alloc, &p, path, e);
    for (int i = 0; i < 2; i++) {
        mem_free(r->alloc, x[i]);
        mem_free(r->alloc, y[i]);
    }
    str_fini(&text);
    return st;
}

static tl_status plot(const train_run *r, tl_error *e) {
    char path[TRAIN_PATH];
    metrics m;
    TRY(file_join(path, sizeof path, r->path, "metrics.jsonl", e));
    TRY(metrics_read(r->alloc, path, &m, e));
    tl_status s = draw(r, &m, e);
    metrics_free(&m);
    return s;
}

static void report(const train_run *r, double seconds) {
    const trainer *t = r->trainer;
    bool valid = r->val_step == t->step && r->val_loss > 0;
    if (r->o->common.json) {
        printf("{\"run\": ");
        cli_json_text(stdout, r->path, strlen(r->path));
        printf(", \"steps\": %lld, \"tokens\": %lld, \"loss\": %.17g", (long long)t->step, (long long)t->tokens,
               r->loss);
        if (valid) printf(", \"val_loss\": %.17g", r->val_loss);
        if (valid && r->bits_per_byte > 0) printf(", \"val_bits_per_byte\": %.17g", r->bits_per_byte);
        if (r->model->lora) printf(", \"trained_params\": %lld", (long long)r->trainer->params->count);
        printf(", \"params\": %lld, \"planned_bytes\": %zu, \"seconds\": %.3f}\n", (long long)r->model->params.count,
               t->bytes.total, seconds);
        return;
    }
    if (!r->o->common.quiet)
        fprintf(stderr, "done: %lld steps in %.1f s; try: tilia %s %s %s\n", (long long)t->step, seconds,
                config_writes(&r->model->config) ? "generate" : "eval", r->path,
                config_writes(&r->model->config) ? "\"Once\"" : "--text FILE");
    printf("%s\n", r->path);
}

static void close_run(train_run *r) {
    metrics_writer_close(&r->metrics);
    evaluator_close(r->eval);
    loader_close(r->loader);
    trainer_destroy(r->trainer);
    model_close(r->model);
    tokenizer_close(r->tokenizer);
    train_data_close(&r->data);
}

static int train_locked(train_run *r) {
    tl_error e = {0};
    tl_status s = r->o->resume ? begin_again(r, &e) : begin_new(r, &e);
    if (s != TL_OK) {
        if (!r->o->resume && r->saved < 0) forget(r);
        if (cli_signal()) return cli_signal_code();
        return cli_fail(&e);
    }
    double begin = train_now();
    int code = train_loop(r);
    if (code == EXIT_DONE) report(r, train_now() - begin);
    if (r->o->plot && (code == EXIT_DONE || code > 100) && plot(r, &e) != TL_OK) cli_fail(&e);
    return code;
}

int cmd_train(int argc, char **argv) {
    static train_options o; /* large: a list of files */
    int code = train_options_parse(&o, argc, argv);
    if (code) return code;
    train_run r = {.o = &o, .saved = -1, .begin = train_now(), .terminal = isatty(2) != 0, .metrics = {.fd = -1}};
    tl_error e = {0};
    int fd = -1;
    if (cli_engine(&o.common, &r.engine, &e) != TL_OK) return cli_fail(&e);
    r.alloc = tl_engine_allocator(r.engine);
    r.log = ((const graph_host *)(void *)r.engine)->log;
    cli_catch_signals();
    tl_status s = TL_OK;
    if (o.resume)
        snprintf(r.path, sizeof r.path, "%s", o.resume);
    else
        s = new_directory(&r, &e);
    if (s == TL_OK && !file_is_dir(r.path)) {
        s = error_set(&e, TL_NOTFOUND, "no such run directory");
        error_at_file(&e, r.path);
    }
    if (s == TL_OK) s = lock(&r, &fd, &e);
    code = s == TL_OK ? train_locked(&r) : cli_fail(&e);
    close_run(&r);
    if (fd >= 0) file_unlock(fd);
    tl_engine_destroy(r.engine);
    return code;
}
