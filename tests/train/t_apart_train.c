/* Training on a device with memory of its own (support/apart.h): the processor's losses to the bit, from either's
 * checkpoints; a step sends its batch, brings back a few numbers, and waits for nothing on the way. */
#include "train/fixture.h"

#include "cost/measure.h"
#include "eval/eval.h"
#include "support/apart.h"

#include <math.h>
#include <time.h>

enum { STEPS = 6, ROWS = 4, CONTEXT = 16 };

typedef struct rig {
    fixture f;
    trainer *t;
} rig;

/* Same as fixture_open; the engine may be apart. */
static void open_rig(rig *r, bool apart, const char *config, const trainer_settings *s, const lora_options *lora) {
    tl_error e;
    model_config c;
    fixture *f = &r->f;
    memset(r, 0, sizeof *r);
    const tl_engine_options o = {.threads = 2};
    assert_ok(apart ? apart_engine(&o, &f->engine, &e) : tl_engine_create(&o, &f->engine, &e), &e);
    const tl_allocator *own = tl_engine_allocator(f->engine);
    assert_ok(tokenizer_from_bytes(own, &f->tokenizer, &e), &e);
    assert_ok(config_parse(config, &c, NULL, 0, &e), &e);
    assert_ok(model_create(f->engine, &c, f->tokenizer, 7, &f->model, &e), &e);
    if (lora) assert_ok(lora_add(f->model, lora, 5, &e), &e);
    assert_ok(fixture_text(f, own, 700, &e), &e);
    loader_options lo = {.mode = s->packed ? LOADER_PACKED : LOADER_WINDOWS,
                         .B = s->rows,
                         .T = s->context,
                         .seed = 11,
                         .across = !s->packed};
    assert_ok(loader_open(own, &f->text.view, &lo, &f->loader, &e), &e);
    assert_ok(trainer_create(f->model, s, &r->t, &e), &e);
}

static void close_rig(rig *r) {
    trainer_destroy(r->t);
    fixture_close(&r->f); /* the device aborts if a block of its memory is left */
}

static void same_weights(rig *a, rig *b) {
    tl_error e;
    assert_ok(model_pull(a->f.model, &e), &e);
    assert_ok(model_pull(b->f.model, &e), &e);
    const model_lora *l = a->f.model->lora, *k = b->f.model->lora;
    if (l) assert_memory_equal(l->flat, k->flat, (size_t)l->params.total * sizeof(float));
    assert_memory_equal(a->f.model->flat, b->f.model->flat, (size_t)a->f.model->params.total * sizeof(float));
}

static void same_metrics(const tl_metrics *x, const tl_metrics *y) {
    assert_int_equal(x->step, y->step);
    assert_int_equal(x->tokens, y->tokens);
    assert_memory_equal(&x->loss, &y->loss, sizeof x->loss);
    assert_memory_equal(&x->norm, &y->norm, sizeof x->norm);
    assert_memory_equal(&x->balance, &y->balance, sizeof x->balance);
}

static void same_steps(rig *a, rig *b, int n) {
    tl_metrics x, y;
    tl_error e;
    for (int i = 0; i < n; i++) {
        assert_ok(trainer_step(a->t, a->f.loader, &x, &e), &e);
        assert_ok(trainer_step(b->t, b->f.loader, &y, &e), &e);
        same_metrics(&x, &y);
    }
}

/* ---- the same numbers ------------------------------------------------------------------------------------------ */

static void trains_alike(const char *config, const trainer_settings *s, const lora_options *lora) {
    rig r[2];
    double norm[2][8];
    tl_error e;
    for (int k = 0; k < 2; k++) open_rig(&r[k], k, config, s, lora);
    same_steps(&r[0], &r[1], STEPS);
    same_weights(&r[0], &r[1]);
    if (!lora) {
        for (int k = 0; k < 2; k++) assert_ok(trainer_gradients(r[k].t, r[k].f.loader, norm[k], &e), &e);
        assert_memory_equal(norm[0], norm[1], 3 * sizeof **norm); /* two layers and the rest */
    }
    eval_result v[2];
    for (int k = 0; k < 2; k++) {
        evaluator *ev;
        const eval_options o = {.context = CONTEXT, .dtype = s->dtype, .packed = s->packed};
        assert_ok(evaluator_open(r[k].f.model, &o, &ev, &e), &e);
        assert_ok(evaluator_run(ev, &r[k].f.text.view, &v[k], NULL, NULL, &e), &e);
        evaluator_close(ev);
    }
    assert_memory_equal(&v[0].loss, &v[1].loss, sizeof v[0].loss);
    same_steps(&r[0], &r[1], 1); /* neither has moved anything */
    for (int k = 0; k < 2; k++) close_rig(&r[k]);
}

static void families(void **state) {
    (void)state;
    trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, TL_F32);
    trains_alike(fixture_llama, &s, NULL);
    trains_alike(fixture_gpt2, &s, NULL); /* dropout */
    s = fixture_settings(ROWS, ROWS, CONTEXT, TL_BF16);
    trains_alike(fixture_llama, &s, NULL);
    s = fixture_settings(ROWS, 3, CONTEXT, TL_F32); /* a micro-batch that is half padding */
    s.packed = true;
    s.recompute = TL_RECOMPUTE_FULL;
    trains_alike(fixture_llama, &s, NULL);
    static const char *const more[] = {
        "{\"model_type\":\"mixtral\",\"vocab_size\":257,\"hidden_size\":16,\"intermediate_size\":24,"
        "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":2,\"num_local_experts\":4,"
        "\"num_experts_per_tok\":2,\"router_aux_loss_coef\":0.02,\"max_position_embeddings\":32}",
        "{\"model_type\":\"flash\",\"vocab_size\":257,\"hidden_size\":16,\"num_hidden_layers\":2,"
        "\"intermediate_size\":32,\"max_position_embeddings\":32,\"tilia\":{\"chunk_size\":8}}",
        "{\"model_type\":\"gau\",\"vocab_size\":257,\"hidden_size\":16,\"num_hidden_layers\":2,"
        "\"intermediate_size\":32,\"max_position_embeddings\":32}"};
    s = fixture_settings(ROWS, 2, CONTEXT, TL_F32);
    for (size_t i = 0; i < sizeof more / sizeof *more; i++) trains_alike(more[i], &s, NULL);
}

static void adapters(void **state) {
    (void)state;
    const lora_options lora = {.rank = 2};
    trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, TL_F32);
    trains_alike(fixture_llama, &s, &lora);
    s.dtype = TL_BF16;
    trains_alike(fixture_llama, &s, &lora);
    rig r[2];
    tl_error e;
    for (int k = 0; k < 2; k++) open_rig(&r[k], k, fixture_llama, &s, &lora);
    same_steps(&r[0], &r[1], 2);
    for (int k = 0; k < 2; k++) {
        trainer_destroy(r[k].t);
        r[k].t = NULL;
        assert_ok(lora_merge(r[k].f.model, &e), &e);
    }
    same_weights(&r[0], &r[1]);
    for (int k = 0; k < 2; k++) close_rig(&r[k]);
}

/* ---- one step ahead -------------------------------------------------------------------------------------------- */

static void results_come_late(void **state) {
    (void)state;
    rig r[2];
    tl_metrics x, y;
    tl_error e;
    const trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, TL_F32);
    for (int k = 0; k < 2; k++) open_rig(&r[k], k, fixture_llama, &s, NULL);
    assert_int_equal(trainer_end(r[1].t, &y, &e), TL_STATE);
    assert_ok(trainer_begin(r[1].t, r[1].f.loader, &e), &e);
    for (int i = 0; i < STEPS; i++) {
        assert_ok(trainer_begin(r[1].t, r[1].f.loader, &e), &e);
        assert_int_equal(trainer_begin(r[1].t, r[1].f.loader, &e), TL_STATE);
        assert_int_equal(checkpoint_save(r[1].t, "/nowhere", NULL, &e), TL_STATE);
        assert_ok(trainer_begin(r[0].t, r[0].f.loader, &e), &e);
        assert_ok(trainer_end(r[0].t, &x, &e), &e);
        assert_ok(trainer_end(r[1].t, &y, &e), &e);
        same_metrics(&x, &y);
        assert_int_equal(r[1].t->step, i + 1);
    }
    assert_ok(trainer_end(r[1].t, &y, &e), &e);
    assert_ok(trainer_step(r[0].t, r[0].f.loader, &x, &e), &e);
    same_metrics(&x, &y);
    same_weights(&r[0], &r[1]);
    for (int k = 0; k < 2; k++) close_rig(&r[k]);
}

/* In the steady state: the batch goes there in one piece, losses and norm come back in one, nothing is allocated, and
 * between the beginning of a step and the end of the one before nobody waits. */
static void traffic(void **state) {
    (void)state;
    rig r;
    tl_metrics m;
    tl_error e;
    const trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, TL_F32);
    open_rig(&r, true, fixture_llama, &s, NULL);
    const apart_counts *n = apart_counted(r.f.engine);
    assert_ok(trainer_begin(r.t, r.f.loader, &e), &e);
    for (int i = 0; i < STEPS; i++) {
        const apart_counts before = *n;
        assert_ok(trainer_begin(r.t, r.f.loader, &e), &e);
        assert_int_equal(n->waits - before.waits, 0);
        assert_int_equal(n->uploads - before.uploads, 1);
        assert_int_equal(n->upload_bytes - before.upload_bytes, 4 * ROWS * CONTEXT * sizeof(int32_t) + 3 * 64);
        assert_int_equal(n->downloads - before.downloads, 1);
        assert_int_equal(n->download_bytes - before.download_bytes, 64 + 2 * 2 * sizeof(float));
        assert_int_equal(n->copies + n->clears - before.copies - before.clears, 0);
        assert_ok(trainer_end(r.t, &m, &e), &e);
        assert_int_equal(n->waits - before.waits, 1);
        assert_int_equal(n->uploads + n->downloads - before.uploads - before.downloads, 2);
        assert_int_equal(n->blocks, before.blocks);
    }
    close_rig(&r);
}

/* ---- steps that are not finite --------------------------------------------------------------------------------- */

static void put_weight(rig *r, int64_t at, float x) {
    tl_error e;
    assert_ok(model_pull(r->f.model, &e), &e);
    r->f.model->flat[at] = x;
    assert_ok(model_push(r->f.model, &e), &e);
}

static void bad_numbers(void **state) {
    (void)state;
    rig r[2];
    tl_metrics m;
    tl_error e;
    trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, TL_F32);
    for (int k = 0; k < 2; k++) open_rig(&r[k], k, fixture_llama, &s, NULL);
    same_steps(&r[0], &r[1], 2);
    const int64_t at = r[0].f.model->params.total / 2;
    const float was = r[0].f.model->flat[at];
    for (int k = 0; k < 2; k++) {
        put_weight(&r[k], at, NAN);
        assert_ok(trainer_begin(r[k].t, r[k].f.loader, &e), &e);
        if (k) assert_ok(trainer_begin(r[k].t, r[k].f.loader, &e), &e); /* queued behind it, in vain */
        assert_int_equal(trainer_end(r[k].t, &m, &e), TL_NUMERIC);
        assert_int_equal(r[k].t->step, 2);
        assert_int_equal(trainer_end(r[k].t, &m, &e), TL_STATE);
        put_weight(&r[k], at, was);
        trainer_pass_over(r[k].t);
    }
    same_weights(&r[0], &r[1]); /* as they were */
    same_steps(&r[0], &r[1], 3);
    same_weights(&r[0], &r[1]);
    for (int k = 0; k < 2; k++) close_rig(&r[k]);
}

/* ---- checkpoints ----------------------------------------------------------------------------------------------- */

/* A run that begins on one device goes on on the other. */
static void checkpoints_move(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        const int from = kind & 1;
        rig a, b;
        char run[200], dir[300];
        tl_error e;
        json_t *manifest;
        const trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, kind < 2 ? TL_F32 : TL_BF16);
        test_tempdir(run, sizeof run);
        open_rig(&a, from, fixture_llama, &s, NULL);
        tl_metrics m;
        for (int i = 0; i < 3; i++) assert_ok(trainer_step(a.t, a.f.loader, &m, &e), &e);
        assert_ok(checkpoint_save(a.t, run, NULL, &e), &e);
        open_rig(&b, !from, fixture_llama, &s, NULL);
        trainer_destroy(b.t);
        model_close(b.f.model);
        assert_ok(checkpoint_find(a.t->alloc, run, NULL, dir, sizeof dir, &manifest, &e), &e);
        assert_ok(checkpoint_resume(b.f.engine, dir, manifest, 0, &b.f.model, &b.t, &e), &e);
        same_steps(&a, &b, 3);
        same_weights(&a, &b);
        /* and back into what runs already */
        assert_ok(model_read_weights(b.f.model, dir, &e), &e);
        if (s.dtype == TL_BF16) assert_ok(model_bf16(b.f.model, &e), &e);
        assert_ok(checkpoint_restore(b.t, dir, manifest, &e), &e);
        close_rig(&a);
        open_rig(&a, from, fixture_llama, &s, NULL);
        for (int i = 0; i < 3; i++) assert_ok(trainer_step(a.t, a.f.loader, &m, &e), &e);
        same_steps(&a, &b, 2);
        json_decref(manifest);
        close_rig(&a);
        close_rig(&b);
        test_tempdir_remove(run);
    }
}

/* What keeps its data in the host's memory says that it cannot, rather than do it. */
static void not_yet(void **state) {
    (void)state;
    rig r;
    tl_error e;
    trainer *t;
    cost_machine m;
    evaluator *ev;
    trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, TL_F32);
    open_rig(&r, true,
             "{\"model_type\":\"flash\",\"vocab_size\":257,\"hidden_size\":16,\"num_hidden_layers\":2,"
             "\"intermediate_size\":32,\"max_position_embeddings\":32,\"tilia\":{\"chunk_size\":8}}",
             &s, NULL);
    s.segment = 8;
    assert_int_equal(trainer_create(r.f.model, &s, &t, &e), TL_UNSUPPORTED);
    assert_non_null(strstr(e.text, "apart"));
    assert_int_equal(evaluator_open(r.f.model, &(eval_options){.context = CONTEXT, .segment = 8}, &ev, &e),
                     TL_UNSUPPORTED);
    assert_int_equal(measure_limits(r.f.engine, CLOCK_MONOTONIC, &m, &e), TL_UNSUPPORTED);
    close_rig(&r);
}

/* ---- failures -------------------------------------------------------------------------------------------------- */

static void failures(void **state) {
    (void)state;
    rig r;
    tl_metrics m;
    tl_error e;
    char run[200];
    const trainer_settings s = fixture_settings(ROWS, 2, CONTEXT, TL_BF16);
    open_rig(&r, true, fixture_llama, &s, NULL);
    const apart_counts *n = apart_counted(r.f.engine);
    trainer_destroy(r.t);
    assert_ok(model_lift(r.f.model, &e), &e);
    assert_int_equal(n->blocks, 0);
    r.t = NULL;
    for (long fail = 1; !r.t; fail++) {
        apart_fail_at(r.f.engine, fail);
        tl_status st = trainer_create(r.f.model, &s, &r.t, &e);
        assert_true(st == TL_OK || st == TL_NOMEM);
        assert_true(fail < 100);
    }
    apart_fail_at(r.f.engine, 0);
    assert_ok(trainer_step(r.t, r.f.loader, &m, &e), &e);
    test_tempdir(run, sizeof run);
    apart_break(r.f.engine, true);
    assert_int_equal(checkpoint_save(r.t, run, NULL, &e), TL_DEVICE);
    assert_int_equal(trainer_step(r.t, r.f.loader, &m, &e), TL_DEVICE);
    apart_break(r.f.engine, false);
    test_tempdir_remove(run);
    close_rig(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(families),          cmocka_unit_test(adapters),
                                       cmocka_unit_test(results_come_late), cmocka_unit_test(traffic),
                                       cmocka_unit_test(bad_numbers),       cmocka_unit_test(checkpoints_move),
                                       cmocka_unit_test(not_yet),           cmocka_unit_test(failures)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
