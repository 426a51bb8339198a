#include "api/api.h"
#include "cost/cost.h"
#include "data/tokenize.h"
#include "engine/engine.h"
#include "eval/eval.h"
#include "train/checkpoint.h"

/* Takes inner, also where it fails. */
static tl_status wrap(tl_model *m, trainer *inner, const tl_trainer_options *o, tl_trainer **out, tl_error *err) {
    tl_trainer *t = mem_new(m->alloc, 1, sizeof *t);
    if (!t) {
        trainer_destroy(inner);
        return error_set(err, TL_NOMEM, "no memory for a trainer");
    }
    t->model = m;
    t->o = *o;
    t->inner = inner;
    token_store_init(&t->text, m->alloc, m->config.vocab, m->config.eos);
    *out = t;
    return TL_OK;
}

static const tl_trainer_options no_options;

tl_status tl_trainer_create(tl_model *m, const tl_trainer_options *o, tl_trainer **out, tl_error *err) {
    trainer_settings s;
    trainer *inner;
    *out = NULL;
    if (!o) o = &no_options;
    TRY(trainer_resolve(&m->config, o, &s, err));
    TRY(trainer_create(m, &s, &inner, err));
    return wrap(m, inner, o, out, err);
}

void tl_trainer_destroy(tl_trainer *t) {
    if (!t) return;
    loader_close(t->loader);
    if (t->data) t->data->users--;
    trainer_destroy(t->inner);
    token_store_fini(&t->text);
    mem_free(t->model->alloc, t);
}

tl_status tl_trainer_add_text(tl_trainer *t, const char *text, size_t n, tl_error *err) {
    if (!t->model->tokenizer) return error_set(err, TL_STATE, "the model has no tokenizer; give batches of ids");
    loader_close(t->loader);
    t->loader = NULL;
    token_sink sink = token_sink_store(&t->text);
    return tokenize_text(t->model->alloc, text, n, t->model->tokenizer, &sink, err);
}

static tl_status need_loader(tl_trainer *t, tl_error *err) {
    if (t->loader) return TL_OK;
    const tokens *text = t->data ? &t->data->text.view : &t->text.view;
    if (!text->n) return error_set(err, TL_STATE, "there is nothing to train on: add text first");
    const trainer_settings *s = &t->inner->set;
    loader_options o = {
        .mode = s->packed ? LOADER_PACKED : LOADER_WINDOWS, .B = s->rows, .T = s->context, .seed = s->seed};
    o.across = !s->packed;
    return loader_open(t->model->alloc, text, &o, &t->loader, err);
}

tl_status tl_trainer_step(tl_trainer *t, tl_metrics *m, tl_error *err) {
    tl_metrics unused;
    TRY(need_loader(t, err));
    return trainer_step(t->inner, t->loader, m ? m : &unused, err);
}

tl_status tl_trainer_step_ids(tl_trainer *t, const int32_t *ids, tl_metrics *m, tl_error *err) {
    tl_metrics unused;
    return trainer_step_ids(t->inner, ids, m ? m : &unused, err);
}

tl_status tl_trainer_run(tl_trainer *t, tl_error *err) {
    while (t->inner->step < t->inner->set.schedule.steps) {
        tl_metrics m;
        TRY(tl_trainer_step(t, &m, err));
        if (t->o.progress && !t->o.progress(t->o.user, &m))
            return error_set(err, TL_CANCELLED, "training was stopped after step %lld", (long long)m.step);
    }
    return TL_OK;
}

tl_status tl_trainer_eval(tl_trainer *t, const char *text, size_t n, double *loss, tl_error *err) {
    eval_options o = {.context = t->inner->set.context, .packed = t->inner->set.packed};
    eval_result r;
    TRY(eval_text(t->model, &o, text, n, &r, err));
    *loss = r.loss;
    return TL_OK;
}

tl_status tl_trainer_save(const tl_trainer *t, const char *run, int64_t keep, tl_error *err) {
    if (keep < 0) return error_set(err, TL_ARG, "keep must not be negative");
    TRY(checkpoint_save(t->inner, run, NULL, err));
    return keep ? checkpoint_prune(t->model->alloc, run, keep, err) : TL_OK;
}

tl_status tl_trainer_resume(tl_engine *e, const char *run, const tl_trainer_options *o, tl_model **model,
                            tl_trainer **out, tl_error *err) {
    char dir[4096];
    json_t *manifest;
    trainer *inner;
    *model = NULL;
    *out = NULL;
    if (!o) o = &no_options;
    TRY(checkpoint_find(e->host.alloc, run, &e->host.log, dir, sizeof dir, &manifest, err));
    tl_status s = checkpoint_resume(e, dir, manifest, o->steps, model, &inner, err);
    json_decref(manifest);
    if (s == TL_OK) s = wrap(*model, inner, o, out, err);
    if (s == TL_OK) return TL_OK;
    model_close(*model);
    *model = NULL;
    return s;
}

void tl_trainer_info_get(const tl_trainer *t, tl_trainer_info *info) {
    const trainer_settings *s = &t->inner->set;
    *info = (tl_trainer_info){t->inner->step, s->schedule.steps, s->rows, s->context, t->inner->tokens};
}

size_t tl_trainer_bytes(const tl_trainer *t) {
    return t->inner->bytes.total;
}

tl_status tl_model_cost(tl_engine *e, const char *config, int64_t rows, int64_t context, tl_dtype dtype, bool train,
                        tl_recompute recompute, tl_model_costs *out, tl_error *err) {
    model_config c;
    cost_report r;
    TRY(config_parse(config, &c, NULL, 0, err));
    if (!tl_recompute_name(recompute)) return error_set(err, TL_ARG, "no level of recomputation %d", (int)recompute);
    if (rows < 1 || context < 0) return error_set(err, TL_ARG, "rows and context must be positive");
    TRY(cost_of(e, &c, NULL, NULL, rows, context ? context : c.context, dtype, train, recompute, &r, err));
    *out = r.total;
    return TL_OK;
}

double tl_schedule_lr(tl_schedule kind, double lr, double min_lr, int64_t warmup, int64_t steps, int64_t step) {
    schedule s = {.kind = kind, .lr = lr, .min_lr = min_lr, .warmup = warmup, .steps = steps};
    return schedule_lr(&s, step);
}
