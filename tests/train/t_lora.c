/* Low-rank additions: against PyTorch (tools/vectors/lora_vectors.py), beside a base in blocks, resumed, merged, moved
 * between bases in different files, and refused. */
#include "fixture.h"

#include "base/file.h"
#include "eval/eval.h"
#include "format/safetensors.h"
#include "infer/decoder.h"
#include "model/gguf.h"

#include <math.h>

enum { B = 3, T = 12, STEPS = 10 };

/* ---- against PyTorch -------------------------------------------------------------------------------------------- */

typedef struct oracle {
    tl_engine *engine;
    tl_model *model;
    safetensors vec;
    int32_t ids[B * (T + 1)];
} oracle;

static void vector_path(char path[1024], const char *folder, const char *name) {
    snprintf(path, 1024, "%s/tests/vectors/%s/%s", TILIA_SOURCE_DIR, folder, name);
}

static void oracle_open(oracle *o, const char *name) {
    char path[1024];
    tl_error e = {0};
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 2}, &o->engine, &e), &e);
    vector_path(path, "train", name);
    assert_ok(model_open(o->engine, path, &o->model, &e), &e);
    vector_path(path, "lora", name);
    assert_ok(lora_open(o->model, path, false, &e), &e);
    strcat(path, "/vectors.safetensors");
    assert_ok(safetensors_open(&mem_default, path, &o->vec, &e), &e);
    const safetensors_entry *ids = safetensors_find(&o->vec, "ids");
    assert_int_equal(ids->bytes, sizeof o->ids);
    memcpy(o->ids, ids->data, sizeof o->ids);
}

static void oracle_close(oracle *o) {
    safetensors_close(&o->vec);
    model_close(o->model);
    tl_engine_destroy(o->engine);
}

static void numbers(const oracle *o, const char *name, double *to, int64_t n) {
    const safetensors_entry *t = safetensors_find(&o->vec, name);
    if (!t) fail_msg("no %s among the vectors", name);
    assert_true(t->dtype == TL_F64 && t->count == n);
    memcpy(to, t->data, t->bytes);
}

/* flat holds a number for each number of the additions: all of PyTorch's are there and near. */
static void compare_all(const oracle *o, const char *prefix, const float *flat, double tolerance) {
    static double want[4096];
    const model_lora *l = o->model->lora;
    size_t seen = 0;
    for (size_t i = 0; i < o->model->params.n; i++)
        for (int k = 0; k < PARAM_PIECES; k++) {
            param_piece piece[PARAM_PIECES];
            int32_t at = l->at[i * PARAM_PIECES + (size_t)k];
            if (at < 0) continue;
            params_pieces(&o->model->config, &o->model->params.list[i], FORMAT_HF, piece);
            for (int half = 0; half < 2; half++, seen++) {
                const model_param *p = &l->params.list[at + half];
                char name[256];
                double largest = 0, worst = 0;
                snprintf(name, sizeof name, "%sbase_model.model.%.*s.lora_%c.weight", prefix,
                         (int)strlen(piece[k].name) - 7, piece[k].name, half ? 'B' : 'A');
                numbers(o, name, want, p->rows * p->cols);
                for (int64_t j = 0; j < p->rows * p->cols; j++) {
                    largest = fmax(largest, fabs(want[j]));
                    worst = fmax(worst, fabs((double)flat[p->offset + j] - want[j]));
                }
                if (!(worst <= tolerance * largest)) fail_msg("%s: off by %g of %g", name, worst, largest);
            }
        }
    assert_int_equal(seen, l->params.n);
}

static void torch_step(const char *name) {
    oracle o;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    oracle_open(&o, name);
    size_t flat = (size_t)o.model->params.total * sizeof(float);
    float *before = malloc(flat);
    memcpy(before, o.model->flat, flat);
    trainer_settings s = fixture_settings(B, B, T, TL_F32);
    s.beta1 = s.clip = 0; /* so that the first moment is the gradient itself */
    assert_ok(trainer_create(o.model, &s, &t, &e), &e);
    assert_ok(trainer_step_ids(t, o.ids, &m, &e), &e);
    compare_all(&o, "grad.", t->m, 1e-5);
    assert_memory_equal(before, o.model->flat, flat); /* the base stays as it was */
    trainer_destroy(t);
    free(before);
    oracle_close(&o);
}

static void torch_ten_steps(const char *name) {
    oracle o;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    double losses[STEPS], norms[STEPS];
    oracle_open(&o, name);
    numbers(&o, "losses", losses, STEPS);
    numbers(&o, "norms", norms, STEPS);
    trainer_settings s = fixture_settings(B, 1, T, TL_F32);
    s.schedule = (schedule){TL_SCHEDULE_CONSTANT, 1e-2, 0, 0, STEPS};
    s.decay = 0;
    assert_ok(trainer_create(o.model, &s, &t, &e), &e);
    for (int i = 0; i < STEPS; i++) {
        assert_ok(trainer_step_ids(t, o.ids, &m, &e), &e);
        assert_near(m.loss, losses[i], 1e-5 * losses[i]);
        assert_near(m.norm, norms[i], 1e-4 * norms[i]);
    }
    assert_true(losses[STEPS - 1] < 0.95 * losses[0]);
    compare_all(&o, "final.", o.model->lora->flat, 1e-4);
    trainer_destroy(t);
    oracle_close(&o);
}

static void llama_against_torch(void **state) {
    (void)state;
    torch_step("llama");
    torch_ten_steps("llama");
}
static void gpt2_against_torch(void **state) {
    (void)state;
    torch_step("gpt2");
    torch_ten_steps("gpt2");
}

/* ---- models in files -------------------------------------------------------------------------------------------- */

/* Widths of whole blocks, so that every matrix can be quantized. */
static const char small[] =
    "{\"model_type\":\"llama\",\"vocab_size\":257,\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":32,\"tie_word_embeddings\":true}";

static tl_dtype in_q8(void *user, const model_config *c, const model_param *p, const param_piece *piece) {
    (void)user, (void)c, (void)p, (void)piece;
    return TL_Q8_0;
}

/* DIR/hf, DIR/q8.gguf and DIR/f32.gguf of one model. */
static void write_models(const char *dir, fixture *f) {
    char path[1024];
    tl_error e = {0};
    gguf_save_options o = {.dtype = in_q8, .file_type = 7};
    assert_ok(fixture_open(f, NULL, 2, small, 2, 16, false, &e), &e);
    snprintf(path, sizeof path, "%s/hf", dir);
    assert_ok(model_save(f->model, path, &e), &e);
    snprintf(path, sizeof path, "%s/q8.gguf", dir);
    assert_ok(model_write_gguf(f->model, path, &o, &e), &e);
    snprintf(path, sizeof path, "%s/f32.gguf", dir);
    assert_ok(model_write_gguf(f->model, path, NULL, &e), &e);
}

static tl_model *open_at(fixture *f, const char *dir, const char *name, bool mapped) {
    char path[1024];
    tl_model *m;
    tl_error e = {0};
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok((mapped ? model_open_mapped : model_open)(f->engine, path, &m, &e), &e);
    return m;
}

static trainer *trainer_of(tl_model *m, tl_dtype dtype) {
    trainer *t;
    tl_error e = {0};
    trainer_settings s = fixture_settings(2, 1, 16, dtype);
    s.decay = 0;
    assert_ok(trainer_create(m, &s, &t, &e), &e);
    return t;
}

static double step(trainer *t, const fixture *f) {
    tl_metrics m;
    tl_error e = {0};
    assert_ok(trainer_step(t, f->loader, &m, &e), &e);
    return m.loss;
}

static void logits_of(tl_model *m, float *out) {
    decoder d;
    tl_error e = {0};
    assert_ok(decoder_init(&d, m, 1, 8, TL_F32, TL_F32, &e), &e);
    for (int32_t i = 0; i < 8; i++) {
        const float *z;
        int32_t id = 'a' + i, slot = 0, row = 0;
        assert_ok(decoder_run(&d, 1, &id, &i, &slot, 1, &row, &z, &e), &e);
        memcpy(out + 257 * i, z, 257 * sizeof *z);
    }
    decoder_fini(&d);
}

static double distance(const float *a, const float *b, size_t n) {
    double worst = 0;
    for (size_t i = 0; i < n; i++) worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    return worst;
}

static const lora_options four = {.rank = 4, .dropout = 0.1};

/* Over blocks that stay in their file: the loss falls, only the additions have gradients and moments, and the bytes are
 * those that were planned. */
static void base_in_blocks(void **state) {
    (void)state;
    char dir[256];
    fixture f;
    tl_error e = {0};
    trainer_bytes plan;
    test_tempdir(dir, sizeof dir);
    write_models(dir, &f);
    tl_model *m = open_at(&f, dir, "q8.gguf", true);
    assert_null(m->flat);
    trainer *t = NULL;
    trainer_settings s = fixture_settings(2, 1, 16, TL_F32);
    assert_fails(TL_STATE, trainer_create(m, &s, &t, &e), &e); /* as a whole it cannot be trained */
    assert_ok(lora_add(m, &four, 5, &e), &e);
    s.decay = 0;
    trainer_shape w = {&m->config, &m->params, m->lora, &m->mapped};
    assert_ok(trainer_measure(f.engine, &w, &s, &plan, NULL, &e), &e);
    t = trainer_of(m, TL_F32);
    assert_memory_equal(&plan, &t->bytes, sizeof plan);
    assert_int_equal(plan.gradients, (size_t)m->lora->params.total * sizeof(float));
    assert_int_equal(plan.moments, 2 * plan.gradients);
    assert_true(plan.mapped > 0 && plan.weights < plan.mapped * 4 / 3);
    double first = step(t, &f), last = 0;
    for (int i = 0; i < 30; i++) last = step(t, &f);
    if (!(last < first - 0.2)) fail_msg("the loss went from %g to %g", first, last); /* the head stays random */
    trainer_destroy(t);
    assert_fails(TL_UNSUPPORTED, model_bf16(m, &e), &e);
    model_close(m);
    fixture_close(&f);
    test_tempdir_remove(dir);
}

/* A run that goes on from its checkpoint against one that never stopped, over blocks and over floats in bf16, with
 * another number of threads. */
static void resumed(void **state) {
    (void)state;
    static const char *const base[] = {"q8.gguf", "hf"};
    char dir[256], run[300], ckpt[1024];
    tl_error e = {0};
    test_tempdir(dir, sizeof dir);
    fixture f, g;
    write_models(dir, &f);
    assert_ok(fixture_open(&g, NULL, 3, small, 2, 16, false, &e), &e);
    for (int k = 0; k < 2; k++) {
        double straight[8];
        tl_dtype dtype = k ? TL_BF16 : TL_F32;
        json_t *manifest;
        snprintf(run, sizeof run, "%s/run%d", dir, k);
        tl_model *m = open_at(&f, dir, base[k], true);
        assert_ok(lora_add(m, &four, 5, &e), &e);
        trainer *t = trainer_of(m, dtype);
        for (int i = 0; i < 8; i++) {
            if (i == 4) assert_ok(checkpoint_save(t, run, NULL, &e), &e);
            straight[i] = step(t, &f);
        }
        trainer_destroy(t);
        model_close(m);
        assert_ok(checkpoint_find(&mem_default, run, NULL, ckpt, sizeof ckpt, &manifest, &e), &e);
        assert_ok(checkpoint_resume(g.engine, ckpt, manifest, 0, &m, &t, &e), &e);
        assert_non_null(m->lora);
        assert_null(m->flat); /* the base stays in its file */
        json_decref(manifest);
        for (int i = 4; i < 8; i++) assert_true(step(t, &g) == straight[i]);
        trainer_destroy(t);
        model_close(m);
    }
    fixture_close(&f);
    fixture_close(&g);
    test_tempdir_remove(dir);
}

/* Trained beside rows in the order of rotary pairs, used beside rows in halves, merged: the same model. */
static void same_everywhere(void **state) {
    (void)state;
    char dir[256], adapter[300];
    fixture f;
    tl_error e = {0};
    static float want[8 * 257], got[8 * 257], plain[8 * 257];
    test_tempdir(dir, sizeof dir);
    write_models(dir, &f);
    tl_model *m = open_at(&f, dir, "f32.gguf", true);
    assert_true(m->pairs);
    logits_of(m, plain);
    assert_ok(lora_add(m, &four, 5, &e), &e);
    logits_of(m, want);
    assert_near(distance(want, plain, 8 * 257), 0, 0); /* B is zero */
    trainer *t = trainer_of(m, TL_F32);
    for (int i = 0; i < 10; i++) step(t, &f);
    trainer_destroy(t);
    logits_of(m, want);
    assert_true(distance(want, plain, 8 * 257) > 0.1);
    snprintf(adapter, sizeof adapter, "%s/adapter", dir);
    assert_ok(model_save(m, adapter, &e), &e);
    assert_fails(TL_STATE, lora_add(m, &four, 5, &e), &e);
    assert_fails(TL_STATE, lora_merge(m, &e), &e);
    model_close(m);
    m = open_at(&f, dir, "hf", false);
    assert_fails(TL_CHECKSUM, lora_open(m, adapter, false, &e), &e);
    assert_ok(lora_open(m, adapter, true, &e), &e);
    logits_of(m, got);
    assert_near(distance(want, got, 8 * 257), 0, 1e-4);
    assert_ok(lora_merge(m, &e), &e);
    assert_null(m->lora);
    logits_of(m, got);
    assert_near(distance(want, got, 8 * 257), 0, 1e-4);
    model_close(m);
    m = open_at(&f, dir, "adapter", false); /* by itself: with the base that it names */
    logits_of(m, got);
    assert_near(distance(want, got, 8 * 257), 0, 1e-4);
    model_close(m);
    fixture_close(&f);
    test_tempdir_remove(dir);
}

static void other_bases(void **state) {
    (void)state;
    char dir[256], path[400], text[600];
    fixture f;
    tl_error e = {0};
    tl_model *m;
    test_tempdir(dir, sizeof dir);
    write_models(dir, &f);
    m = open_at(&f, dir, "hf", false);
    assert_ok(lora_add(m, &four, 5, &e), &e);
    snprintf(path, sizeof path, "%s/adapter", dir);
    assert_ok(model_save(m, path, &e), &e);
    model_close(m);
    /* the base becomes another one */
    snprintf(path, sizeof path, "%s/hf", dir);
    snprintf(text, sizeof text, "%s/old", dir);
    assert_ok(file_rename(path, text, &e), &e);
    snprintf(path, sizeof path, "%s/adapter", dir);
    assert_fails(TL_NOTFOUND, model_open(f.engine, path, &m, &e), &e);
    f.model->flat[0] += 1;
    snprintf(text, sizeof text, "%s/hf", dir);
    assert_ok(model_save(f.model, text, &e), &e);
    assert_fails(TL_CHECKSUM, model_open(f.engine, path, &m, &e), &e);
    assert_non_null(strstr(e.text, "another base"));
    fixture_close(&f);
    test_tempdir_remove(dir);
}

/* ---- refusals --------------------------------------------------------------------------------------------------- */

static tl_status with_config(tl_model *m, const char *dir, const char *config, tl_error *e) {
    char path[1024];
    snprintf(path, sizeof path, "%s/adapter_config.json", dir);
    assert_ok(file_write(&mem_default, path, config, strlen(config), e), e);
    return lora_open(m, dir, false, e);
}

#define PEFT "\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":4.5"

static void refusals(void **state) {
    (void)state;
    static const struct {
        const char *config;
        tl_status code;
    } bad[] = {{"{\"peft_type\":\"IA3\",\"r\":3}", TL_UNSUPPORTED},
               {"{\"peft_type\":\"LORA\"}", TL_CONFIG},
               {"{\"peft_type\":\"LORA\",\"r\":0}", TL_CONFIG},
               {"{\"peft_type\":\"LORA\",\"r\":\"x\"}", TL_CONFIG},
               {"{\"peft_type\":\"LORA\",\"r\":4}", TL_SHAPE},
               {"{" PEFT ",\"use_dora\":true}", TL_UNSUPPORTED},
               {"{" PEFT ",\"bias\":\"all\"}", TL_UNSUPPORTED},
               {"{" PEFT ",\"modules_to_save\":[\"lm_head\"]}", TL_UNSUPPORTED},
               {"{" PEFT ",\"rank_pattern\":{\"q_proj\":2}}", TL_UNSUPPORTED},
               {"{" PEFT ",\"lora_dropout\":1.5}", TL_CONFIG},
               {"{\"peft_type\":\"LORA\",\"r\":3,\"lora_alpha\":-1}", TL_CONFIG},
               {"{", TL_FORMAT}};
    char dir[256], path[1024], from[1024];
    size_t n;
    tl_error e = {0};
    oracle o;
    test_tempdir(dir, sizeof dir);
    oracle_open(&o, "llama");
    vector_path(from, "lora", "llama/adapter_model.safetensors");
    char *weights = test_slurp(from, &n);
    snprintf(path, sizeof path, "%s/adapter_model.safetensors", dir);
    assert_ok(file_write(&mem_default, path, weights, n, &e), &e);
    free(weights);
    lora_close(o.model);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_fails(bad[i].code, with_config(o.model, dir, bad[i].config, &e), &e);
        assert_null(o.model->lora);
    }
    assert_ok(with_config(o.model, dir, "{" PEFT ",\"bias\":\"none\",\"rank_pattern\":{}}", &e), &e);
    lora_close(o.model);
    oracle_close(&o);
    oracle_open(&o, "gpt2"); /* another family: no matrix of these names */
    lora_close(o.model);
    assert_fails(TL_FORMAT, lora_open(o.model, dir, false, &e), &e);
    assert_non_null(strstr(e.tensor, "lora_"));
    unsigned targets;
    assert_fails(TL_ARG, lora_targets("q,x", &targets, &e), &e);
    assert_fails(TL_ARG, lora_targets("", &targets, &e), &e);
    assert_ok(lora_targets("q,v", &targets, &e), &e);
    assert_int_equal(targets, LORA_Q | LORA_V);
    assert_fails(TL_ARG, lora_add(o.model, &(lora_options){.rank = 0}, 1, &e), &e);
    assert_fails(TL_CONFIG, lora_add(o.model, &(lora_options){.rank = 2, .targets = LORA_GATE}, 1, &e), &e);
    oracle_close(&o);
    test_tempdir_remove(dir);
}

/* Targets choose: the table has what was asked for and no more. */
static void targets_choose(void **state) {
    (void)state;
    model_config c;
    model_params p;
    model_lora l;
    tl_error e = {0};
    assert_ok(config_parse(small, &c, NULL, 0, &e), &e);
    assert_ok(params_init(&p, &mem_default, &c, &e), &e);
    assert_ok(lora_init(&l, &mem_default, &c, &p, &(lora_options){.rank = 2, .targets = LORA_Q | LORA_V}, &e), &e);
    assert_int_equal(l.params.n, 2 * 2 * 2); /* layers, matrices, halves */
    assert_int_equal(l.params.count, 2 * (2 * (64 + 64) + 2 * (64 + 32)));
    assert_near(lora_scale(&l.o), 2, 0);
    lora_fini(&l, &mem_default);
    assert_ok(lora_init(&l, &mem_default, &c, &p, &(lora_options){.rank = 4, .alpha = 8, .root = true}, &e), &e);
    assert_int_equal(l.params.n, 2 * 7 * 2);
    assert_near(lora_scale(&l.o), 4, 0);
    lora_fini(&l, &mem_default);
    params_fini(&p, &mem_default);
}

static tl_status sweep(const tl_allocator *a, void *user) {
    char adapter[1024];
    fixture f = {0};
    tl_error e = {0};
    tl_model *m = NULL;
    trainer *t = NULL;
    (void)user;
    tl_status s = tl_engine_create(&(tl_engine_options){.allocator = a, .threads = 1}, &f.engine, &e);
    vector_path(adapter, "train", "llama");
    if (s == TL_OK) s = model_open(f.engine, adapter, &m, &e);
    vector_path(adapter, "lora", "llama");
    if (s == TL_OK) s = lora_open(m, adapter, false, &e);
    trainer_settings ts = fixture_settings(1, 1, 8, TL_BF16);
    if (s == TL_OK) s = trainer_create(m, &ts, &t, &e);
    trainer_destroy(t);
    if (s == TL_OK) s = lora_merge(m, &e);
    model_close(m);
    if (f.engine) tl_engine_destroy(f.engine);
    return s;
}

static void failing_memory(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(sweep, NULL) > 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(llama_against_torch),
                                       cmocka_unit_test(gpt2_against_torch),
                                       cmocka_unit_test(base_in_blocks),
                                       cmocka_unit_test(resumed),
                                       cmocka_unit_test(same_everywhere),
                                       cmocka_unit_test(other_bases),
                                       cmocka_unit_test(refusals),
                                       cmocka_unit_test(targets_choose),
                                       cmocka_unit_test(failing_memory)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
