/* The loop of tilia train: steps, lines, validation, samples, checkpoints, signals, numbers that are not finite. */
#include "cli/train_cli.h"
#include "infer/session.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { BAR = 20, ROLLBACKS = 10, SAMPLE_TOKENS = 200 };

double train_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- lines -------------------------------------------------------------------------------------------------- */

static void end_line(train_run *r) {
    if (r->line_open) fputc('\n', stderr);
    r->line_open = false;
}

static void show_step(train_run *r, const tl_metrics *m) {
    const schedule *s = &r->trainer->set.schedule;
    double now = train_now(), rate = m->seconds > 0 ? (double)m->tokens / m->seconds : 0;
    int64_t every = r->o->log_every;
    bool due = m->step == 1 || m->step == s->steps || (every ? m->step % every == 0 : now - r->last_line >= 2);
    if (r->o->common.quiet || (!r->terminal && !due)) return;
    if (r->terminal && !due && now - r->last_line < 0.1) return;
    r->last_line = now;
    if (r->terminal) {
        int done = (int)(BAR * m->step / (s->steps ? s->steps : 1));
        fprintf(stderr, "\r\033[K[%.*s%.*s] ", done, "####################", BAR - done, "....................");
    }
    fprintf(stderr, "step %lld/%lld | loss %.4f | norm %.3f | lr %.2e | %.0f ms | %.0f tok/s", (long long)m->step,
            (long long)s->steps, m->loss, m->norm, m->lr, 1e3 * m->seconds, rate);
    if (r->peak > 0 && m->seconds > 0)
        fprintf(stderr, " | MFU %.1f%% | %.0f%% of bandwidth", 100 * m->flops / m->seconds / r->peak,
                100 * r->trainer->moved / m->seconds / r->bandwidth);
    if (r->terminal)
        r->line_open = true;
    else
        fputc('\n', stderr);
}

static void warn(train_run *r, const char *what, const tl_error *e) {
    char text[1024];
    end_line(r);
    fprintf(stderr, "tilia: warning: %s: %s\n", what, tl_error_text(e, text, sizeof text));
}

/* ---- metrics ------------------------------------------------------------------------------------------------- */

static void log_step(train_run *r, const tl_metrics *m, bool evaluated, bool sync) {
    tl_error e = {0};
    metrics_writer *w = &r->metrics;
    metrics_begin(w, m->step);
    metrics_real(w, "loss", m->loss);
    if (evaluated) {
        metrics_real(w, "val_loss", r->val_loss);
        if (r->bits_per_byte > 0) metrics_real(w, "val_bits_per_byte", r->bits_per_byte);
    }
    metrics_real(w, "lr", m->lr);
    metrics_real(w, "norm", m->norm);
    if (m->balance > 0) metrics_real(w, "balance", m->balance);
    metrics_real(w, "ms", 1e3 * m->seconds);
    metrics_real(w, "tokens_per_second", m->seconds > 0 ? (double)m->tokens / m->seconds : 0);
    metrics_int(w, "tokens", r->trainer->tokens);
    if (r->peak > 0 && m->seconds > 0) {
        metrics_f32(w, "mfu", (float)(m->flops / m->seconds / r->peak));
        metrics_f32(w, "bandwidth_use", (float)(r->trainer->moved / m->seconds / r->bandwidth));
    }
    if (metrics_end(w, sync, &e) == TL_OK) return;
    if (!r->metrics_failed) warn(r, "metrics are not written, training goes on", &e);
    r->metrics_failed = true;
}

/* ---- validation ------------------------------------------------------------------------------------------------- */

static bool interrupted(void *user) {
    (void)user;
    return cli_signal() != 0;
}

tl_status train_evaluate(train_run *r, tl_error *e) {
    eval_result v;
    double begin = train_now();
    TRY(evaluator_run(r->eval, &r->data.val, &v, interrupted, NULL, e));
    r->eval_seconds = train_now() - begin;
    r->val_loss = v.loss;
    r->bits_per_byte = eval_bits_per_byte(&v);
    r->val_step = r->trainer->step;
    if (r->o->common.quiet) return TL_OK;
    end_line(r);
    fprintf(stderr, "step %lld | val_loss %.4f | perplexity %.2f", (long long)r->val_step, v.loss, eval_perplexity(&v));
    if (v.bytes) fprintf(stderr, " | bits per byte %.4f", r->bits_per_byte);
    fprintf(stderr, "\n");
    return TL_OK;
}

/* ---- samples ------------------------------------------------------------------------------------------------------
 */

static tl_status sample(train_run *r, tl_error *e) {
    const char *prompt = r->o->sample ? r->o->sample : "";
    tl_session_options so = {.max_tokens = SAMPLE_TOKENS, .temperature = 0.8f, .top_p = 0.95f, .seed = 1};
    tl_session *s;
    tl_piece piece;
    TRY(session_create(r->model, &so, &s, e));
    tl_status st = *prompt ? session_text(s, prompt, strlen(prompt), false, e) : TL_OK;
    end_line(r);
    fprintf(stderr, "--- sample at step %lld ---\n%s", (long long)r->trainer->step, prompt);
    do {
        if (st == TL_OK) st = session_next(s, &piece, e);
        if (st == TL_OK) fwrite(piece.text, 1, piece.size, stderr);
    } while (st == TL_OK && !piece.done && !cli_signal());
    fprintf(stderr, "\n---\n");
    session_destroy(s);
    return st;
}

/* ---- checkpoints ----------------------------------------------------------------------------------------------------
 */

void train_save(train_run *r) {
    tl_error e = {0};
    json_t *extra = train_extra(r);
    tl_status s =
        extra ? checkpoint_save(r->trainer, r->path, extra, &e) : error_set(&e, TL_NOMEM, "no memory for the manifest");
    json_decref(extra);
    r->save_failed = s != TL_OK;
    if (s == TL_OK) {
        r->saved = r->trainer->step;
        if (checkpoint_prune(r->alloc, r->path, r->keep, &e) != TL_OK) warn(r, "old checkpoints are not removed", &e);
        return;
    }
    char what[160];
    if (r->saved < 0)
        snprintf(what, sizeof what, "no checkpoint at step %lld, and none before", (long long)r->trainer->step);
    else
        snprintf(what, sizeof what, "no checkpoint at step %lld, the last good one is of step %lld; training goes on",
                 (long long)r->trainer->step, (long long)r->saved);
    warn(r, what, &e);
}

static tl_status roll_back(train_run *r, tl_error *e) {
    char dir[TRAIN_PATH];
    json_t *manifest;
    int64_t bad = r->trainer->step, shift = r->trainer->data_shift;
    if (++r->rollbacks > ROLLBACKS) return error_set(e, TL_NUMERIC, "rolled back %d times in vain", ROLLBACKS);
    TRY(checkpoint_find(r->alloc, r->path, &r->log, dir, sizeof dir, &manifest, e));
    tl_status s = r->model->lora ? lora_read(r->model, dir, e) : model_read_weights(r->model, dir, e);
    if (s == TL_OK && r->trainer->set.dtype == TL_BF16) s = model_bf16(r->model, e);
    if (s == TL_OK) s = checkpoint_restore(r->trainer, dir, manifest, e);
    json_decref(manifest);
    if (s != TL_OK) return s;
    /* What was seen since, and the batch that broke it, are passed over. */
    r->trainer->data_shift = shift + bad + 1 - r->trainer->step;
    metrics_writer_close(&r->metrics);
    char path[TRAIN_PATH];
    TRY(file_join(path, sizeof path, r->path, "metrics.jsonl", e));
    TRY(metrics_writer_open(&r->metrics, r->alloc, path, r->trainer->step, e));
    fprintf(stderr, "tilia: back to step %lld; the data of steps %lld to %lld is passed over\n",
            (long long)r->trainer->step, (long long)r->trainer->step + 1, (long long)bad + 1);
    return TL_OK;
}

/* A step whose loss is not finite. TL_OK: go on. */
static tl_status bad_number(train_run *r, tl_error *e) {
    char text[1024];
    end_line(r);
    fprintf(stderr, "tilia: %s; the last good checkpoint is %s/ckpt-%08lld\n", tl_error_text(e, text, sizeof text),
            r->path, (long long)r->saved);
    if (r->o->on_nan == NAN_STOP) return TL_NUMERIC;
    if (r->o->on_nan == NAN_ROLLBACK) return roll_back(r, e);
    trainer_pass_over(r->trainer);
    return TL_OK;
}

/* ---- time ---------------------------------------------------------------------------------------------------------
 */

/* Adam's second moments need some hundred steps until they stand for the gradients' size; a short run gives a third of
 * itself to that, since the peak comes too early otherwise and the loss jumps. */
int64_t train_warmup(int64_t steps) {
    int64_t w = steps / 3 < 100 ? steps / 3 : 100;
    if (steps / 100 > w) w = steps / 100;
    return w < 2000 ? w : 2000;
}

void train_estimate(train_run *r, double seconds_per_step) {
    schedule *s = &r->trainer->set.schedule;
    int64_t done = r->trainer->step;
    double left = r->deadline - train_now() - r->eval_seconds; /* the validation at the end */
    if (r->eval_every) left -= r->eval_seconds * 9 * (s->steps ? (double)(s->steps - done) / (double)s->steps : 1);
    int64_t more = left > 0 && seconds_per_step > 0 ? (int64_t)(left / seconds_per_step) : 0;
    if (more < 1) more = 1;
    s->steps = done + more;
    if (r->o->warmup < 0 && done == 0) s->warmup = train_warmup(s->steps);
    if (s->warmup >= s->steps) s->warmup = s->steps - 1;
    if (done) return; /* the rhythm stays */
    if (r->o->eval_every < 0) r->eval_every = s->steps / 10 ? s->steps / 10 : 1;
    if (!r->o->save_every) r->save_every = s->steps / 10 ? s->steps / 10 : 1;
}

/* Now and then the estimate is made anew: the machine may have become slower or faster. */
static void correct_steps(train_run *r, double spent, int64_t steps) {
    int64_t step = r->trainer->step;
    if (r->deadline <= 0 || step < r->next_estimate) return;
    r->next_estimate = step + step / 4 + 1;
    if (steps >= 8) train_estimate(r, spent / (double)steps);
}

/* ---- loop -----------------------------------------------------------------------------------------------------------
 */

static bool due(int64_t step, int64_t every) {
    return every > 0 && step % every == 0;
}

static tl_status one_step(train_run *r, double *spent, int64_t *steps, tl_error *e) {
    trainer *t = r->trainer;
    tl_metrics m;
    tl_status s = trainer_step(t, r->loader, &m, e);
    if (s == TL_NUMERIC) return bad_number(r, e);
    TRY(s);
    r->loss = m.loss;
    *spent += m.seconds;
    ++*steps;
    correct_steps(r, *spent, *steps);
    show_step(r, &m);
    bool last = t->step >= t->set.schedule.steps, evaluated = last || due(t->step, r->eval_every);
    if (evaluated && !cli_signal()) {
        s = train_evaluate(r, e);
        if (s == TL_CANCELLED)
            evaluated = false;
        else
            TRY(s);
    } else {
        evaluated = false;
    }
    bool save = last || due(t->step, r->save_every) || cli_signal();
    log_step(r, &m, evaluated, save);
    if (due(t->step, r->sample_every) && !cli_signal() && r->model->tokenizer) TRY(sample(r, e));
    if (save) train_save(r);
    return TL_OK;
}

int train_loop(train_run *r) {
    tl_error e = {0};
    double spent = 0;
    int64_t steps = 0;
    tl_status s = TL_OK;
    r->next_estimate = r->trainer->step + 10;
    while (s == TL_OK && r->trainer->step < r->trainer->set.schedule.steps) {
        s = one_step(r, &spent, &steps, &e);
        if (s == TL_OK && cli_signal()) break;
    }
    end_line(r);
    if (s == TL_NUMERIC && r->o->on_nan == NAN_STOP) return EXIT_FAILED; /* told already */
    if (s != TL_OK) return cli_fail(&e);
    if (cli_signal()) {
        if (r->saved != r->trainer->step) train_save(r); /* a signal between the steps */
        if (!r->o->common.quiet)
            fprintf(stderr, "tilia: interrupted at step %lld; go on with: tilia train --resume %s\n",
                    (long long)r->trainer->step, r->path);
        return cli_signal_code();
    }
    return r->save_failed || r->metrics_failed ? EXIT_FAILED : EXIT_DONE;
}
