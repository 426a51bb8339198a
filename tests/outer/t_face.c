/* The public face beside training and generation: tokenizers trained, sessions forked, tensors by name, datasets,
 * modules, schedules; and every allocation failing in turn. */
#include "support/testing.h"

#include <math.h>
#include <stdlib.h>
#include <tilia.h>
#include <tilia/attrs.h>
#include <tilia/data.h>
#include <tilia/module.h>

static const char text[] = "the low, the lower, the lowest; a widest, a newest, the slow and the slower one. ";
enum { B = 2, T = 6 };

typedef struct world {
    tl_engine *engine;
    tl_tokenizer *bytes;
    tl_model *model;
} world;

static const char small[] =
    "{\"model_type\": \"llama\", \"vocab_size\": 257, \"hidden_size\": 16, \"intermediate_size\": 16, "
    "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"max_position_embeddings\": 16, \"rms_norm_eps\": 1e-6}";

static tl_status world_of(world *w, const char *config, const tl_allocator *a, tl_error *e) {
    tl_engine_options o = {.allocator = a, .threads = 1};
    memset(w, 0, sizeof *w);
    tl_status s = tl_engine_create(&o, &w->engine, e);
    if (s == TL_OK) s = tl_tokenizer_bytes(w->engine, &w->bytes, e);
    if (s == TL_OK) s = tl_model_create(w->engine, config, w->bytes, 1, &w->model, e);
    return s;
}

static tl_status world_open(world *w, const tl_allocator *a, tl_error *e) {
    return world_of(w, "preset:tiny", a, e);
}

static void world_close(world *w) {
    tl_model_close(w->model);
    tl_tokenizer_close(w->bytes);
    tl_engine_destroy(w->engine);
}

/* ---- tokenizer --------------------------------------------------------------------------------------------- */

static void tokenizers_are_trained(void **state) {
    (void)state;
    world w;
    tl_error e = {0};
    tl_tokenizer *t;
    const char *special[] = {"<|end|>"};
    tl_tokenizer_train_options o = {.vocab = 280, .special = special, .n_special = 1};
    assert_ok(world_open(&w, NULL, &e), &e);
    assert_ok(tl_tokenizer_train(w.engine, &o, text, sizeof text - 1, &t, &e), &e);
    assert_in_range(tl_tokenizer_vocab(t), 258, 280);
    int32_t ids[200];
    char back[200];
    size_t n, m;
    assert_ok(tl_tokenizer_encode(t, text, sizeof text - 1, false, ids, 200, &n, &e), &e);
    assert_true(n < sizeof text / 2);
    assert_ok(tl_tokenizer_decode(t, ids, n, back, sizeof back, &m, &e), &e);
    assert_int_equal(m, sizeof text - 1);
    assert_memory_equal(back, text, m);
    tl_tokenizer_close(t);
    assert_fails(TL_ARG, tl_tokenizer_train(w.engine, &o, text, 0, &t, &e), &e);
    assert_null(t);
    assert_fails(TL_ARG, tl_tokenizer_train(w.engine, NULL, text, 3, &t, &e), &e);
    const char *files[] = {"/no/such/file"};
    o.files = files;
    o.n_files = 1;
    assert_fails(TL_NOTFOUND, tl_tokenizer_train(w.engine, &o, "", 0, &t, &e), &e);
    world_close(&w);
}

/* ---- session ------------------------------------------------------------------------------------------------ */

static void go_on(tl_session *s, int32_t *ids, int n) {
    tl_piece p;
    tl_error e = {0};
    for (int i = 0; i < n; i++) {
        assert_ok(tl_session_next(s, &p, &e), &e);
        ids[i] = p.id;
    }
}

static void sessions_fork(void **state) {
    (void)state;
    world w;
    tl_error e = {0};
    tl_session *a, *b, *c;
    const char *stop[] = {"never to be seen"};
    tl_session_options o = {.temperature = 1, .seed = 3, .stop = stop, .n_stop = 1, .ignore_eos = true};
    int32_t mine[20], twin[20], fresh[20];
    size_t n;
    assert_ok(world_open(&w, NULL, &e), &e);
    assert_ok(tl_session_create(w.model, &o, &a, &e), &e);
    assert_ok(tl_session_fork(a, &c, &e), &e); /* before anything was seen */
    assert_ok(tl_session_text(a, "the ", 4, &e), &e);
    go_on(a, mine, 5);
    assert_ok(tl_session_fork(a, &b, &e), &e);
    stop[0] = "x"; /* the twin has its own copy */
    const int32_t *seen = tl_session_tokens(b, &n);
    assert_int_equal(n, tl_session_position(a));
    assert_memory_equal(seen + n - 5, mine, 5 * sizeof *mine);
    go_on(a, mine + 5, 10);
    tl_session_destroy(a);
    go_on(b, twin, 10);
    assert_memory_equal(twin, mine + 5, 10 * sizeof *twin);
    assert_ok(tl_session_text(c, "the ", 4, &e), &e);
    go_on(c, fresh, 15);
    assert_memory_equal(fresh, mine, 15 * sizeof *fresh);
    tl_session_destroy(b);
    tl_session_destroy(c);
    world_close(&w);
}

/* ---- tensors ------------------------------------------------------------------------------------------------- */

static void tensors_have_names_and_are_set(void **state) {
    (void)state;
    world w;
    tl_error e = {0};
    tl_model_tensor t;
    tl_model_info info;
    int64_t sum = 0;
    assert_ok(world_open(&w, NULL, &e), &e);
    size_t n = tl_model_tensors(w.model);
    for (size_t i = 0; i < n; i++) {
        assert_ok(tl_model_tensor_info(w.model, i, &t, &e), &e);
        size_t count = (size_t)(t.dim[0] * t.dim[1]);
        float *x = malloc(count * sizeof *x), *y = malloc(count * sizeof *y);
        assert_ok(tl_model_tensor_get(w.model, i, x, &e), &e);
        if (t.data) assert_memory_equal(t.data, x, count * sizeof *x);
        for (size_t k = 0; k < count; k++) x[k] += (float)i;
        assert_ok(tl_model_tensor_set(w.model, i, x, &e), &e);
        assert_ok(tl_model_tensor_get(w.model, i, y, &e), &e);
        assert_memory_equal(x, y, count * sizeof *x);
        sum += (int64_t)count;
        free(x);
        free(y);
    }
    tl_model_info_get(w.model, &info);
    assert_int_equal(sum, info.params);
    assert_ok(tl_model_tensor_info(w.model, 0, &t, &e), &e);
    assert_string_equal(t.name, "model.embed_tokens.weight");
    assert_fails(TL_ARG, tl_model_tensor_info(w.model, n, &t, &e), &e);
    world_close(&w);
}

/* ---- dataset ------------------------------------------------------------------------------------------------- */

static void datasets_give_any_step(void **state) {
    (void)state;
    world w;
    tl_error e = {0};
    tl_dataset *d;
    int32_t in[B * T], to[B * T], again[B * T];
    int64_t labels, sum = 0;
    assert_ok(world_open(&w, NULL, &e), &e);
    assert_fails(TL_ARG, tl_dataset_create(w.engine, NULL, 0, -1, &d, &e), &e);
    assert_ok(tl_dataset_create(w.engine, w.bytes, 0, 0, &d, &e), &e);
    assert_fails(TL_STATE, tl_dataset_shape(d, B, T, false, 1, &e), &e);
    assert_ok(tl_dataset_add_text(d, text, sizeof text - 1, &e), &e);
    assert_ok(tl_dataset_add_ids(d, (int32_t[]){1, 2, 3}, 3, &e), &e);
    assert_fails(TL_ARG, tl_dataset_add_ids(d, (int32_t[]){257}, 1, &e), &e);
    assert_int_equal(tl_dataset_documents(d), 2);
    assert_int_equal(tl_dataset_tokens(d), sizeof text - 1 + 1 + 4);
    assert_fails(TL_STATE, tl_dataset_batch(d, 0, in, to, NULL, NULL, &labels, &e), &e);
    assert_ok(tl_dataset_shape(d, 1, T, false, 1, &e), &e);
    for (int64_t i = 0; i < tl_dataset_steps(d); i++) {
        assert_ok(tl_dataset_batch(d, i, in, to, NULL, NULL, &labels, &e), &e);
        sum += labels;
    }
    assert_int_equal(sum, tl_dataset_tokens(d));
    assert_ok(tl_dataset_shape(d, B, T, true, 1, &e), &e);
    assert_ok(tl_dataset_batch(d, 1000, in, to, NULL, NULL, &labels, &e), &e);
    assert_ok(tl_dataset_batch(d, 1000, again, to, NULL, NULL, &labels, &e), &e);
    assert_memory_equal(in, again, sizeof in);

    tl_trainer *t;
    tl_metrics m;
    tl_trainer_options o = {.steps = 4, .batch_rows = B, .context = T};
    assert_ok(tl_trainer_create(w.model, &o, &t, &e), &e);
    assert_ok(tl_trainer_use(t, d, &e), &e);
    assert_ok(tl_trainer_step(t, &m, &e), &e);
    assert_int_equal(m.tokens, B * T);
    assert_fails(TL_STATE, tl_dataset_add_text(d, text, 3, &e), &e);
    tl_trainer_destroy(t);
    assert_ok(tl_dataset_add_text(d, text, 3, &e), &e);
    tl_dataset_close(d);
    world_close(&w);
}

/* ---- module --------------------------------------------------------------------------------------------------- */

static double dot(const float *a, const float *b, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += (double)a[i] * (double)b[i];
    return s;
}

/* The gradient of one weight against a difference of two runs. */
static void modules_have_gradients(void **state) {
    (void)state;
    enum { V = 257, OUT = B * T * V };
    static float y[OUT], z[OUT], dy[OUT];
    static const int32_t ids[B * T] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    world w;
    tl_error e = {0};
    tl_module *f;
    tl_model_tensor t;
    assert_ok(world_open(&w, NULL, &e), &e);
    assert_ok(tl_module_create(w.model, &(tl_module_options){.rows = B, .context = T}, &f, &e), &e);
    for (int i = 0; i < OUT; i++) dy[i] = sinf((float)i);
    assert_ok(tl_module_run(f, ids, y, &e), &e);
    float g[64 * 257], p[64 * 257];
    assert_fails(TL_STATE, tl_module_grad(f, 0, g, &e), &e);
    assert_ok(tl_module_vjp(f, ids, dy, z, NULL, &e), &e);
    for (int i = 0; i < OUT; i++) assert_near(y[i], z[i], 1e-5);
    for (size_t i = 0; i < tl_model_tensors(w.model); i += 3) {
        assert_ok(tl_model_tensor_info(w.model, i, &t, &e), &e);
        size_t n = (size_t)(t.dim[0] * t.dim[1]), k = n / 3;
        assert_true(n <= sizeof g / sizeof *g);
        assert_ok(tl_module_grad(f, i, g, &e), &e);
        assert_ok(tl_model_tensor_get(w.model, i, p, &e), &e);
        const float step = 4e-3f, was = p[k];
        double side[2];
        for (int s = 0; s < 2; s++) {
            p[k] = was + (s ? step : -step);
            assert_ok(tl_model_tensor_set(w.model, i, p, &e), &e);
            assert_ok(tl_module_run(f, ids, z, &e), &e);
            side[s] = dot(z, dy, OUT);
        }
        p[k] = was;
        assert_ok(tl_model_tensor_set(w.model, i, p, &e), &e);
        double numeric = (side[1] - side[0]) / (2 * (double)step);
        assert_near(g[k], numeric, 0.02 * fmax(1, fabs(numeric)));
    }
    assert_fails(TL_ARG, tl_module_run(f, (int32_t[B * T]){V}, y, &e), &e);
    tl_module_destroy(f);
    world_close(&w);
}

/* Two blocks at once are the first, then the second. */
static void modules_are_blocks_too(void **state) {
    (void)state;
    enum { D = 64, N = B * T * D };
    static float x[N], h[N], y[N], both[N], dx[N], dy[N];
    world w;
    tl_error e = {0};
    tl_module *f[3];
    assert_ok(world_open(&w, NULL, &e), &e);
    const int64_t first[3] = {0, 1, 0}, blocks[3] = {1, 1, 2};
    for (int i = 0; i < 3; i++) {
        tl_module_options o = {.rows = B, .context = T, .first = first[i], .blocks = blocks[i], .packed = true};
        assert_ok(tl_module_create(w.model, &o, &f[i], &e), &e);
    }
    for (int i = 0; i < N; i++) x[i] = cosf((float)(3 * i)), dy[i] = 1;
    assert_ok(tl_module_run(f[0], x, h, &e), &e);
    assert_ok(tl_module_run(f[1], h, y, &e), &e);
    assert_ok(tl_module_vjp(f[2], x, dy, both, dx, &e), &e);
    for (int i = 0; i < N; i++) assert_near(y[i], both[i], 1e-5);
    double before = dot(both, dy, N);
    const float step = 1e-3f;
    for (int i = 0; i < N; i++) x[i] += step * sinf((float)i);
    assert_ok(tl_module_run(f[2], x, both, &e), &e);
    for (int i = 0; i < N; i++) h[i] = sinf((float)i);
    assert_near((dot(both, dy, N) - before) / (double)step, dot(dx, h, N), 0.02 * fmax(1, fabs(dot(dx, h, N))));
    assert_fails(TL_ARG, tl_module_documents(f[0], (int32_t[B * T]){-1}, NULL, &e), &e);
    for (int i = 0; i < 3; i++) tl_module_destroy(f[i]);
    tl_module *none;
    assert_fails(TL_ARG, tl_module_create(w.model, &(tl_module_options){.rows = 1, .first = 2, .blocks = 1}, &none, &e),
                 &e);
    assert_fails(TL_ARG, tl_module_create(w.model, &(tl_module_options){0}, &none, &e), &e);
    world_close(&w);
}

/* ---- schedule, attributes ---------------------------------------------------------------------------------------- */

static void schedules_and_attributes_are_public(void **state) {
    (void)state;
    assert_near(tl_schedule_lr(TL_SCHEDULE_COSINE, 1, 0, 9, 109, 0), 0.1, 1e-12);
    assert_near(tl_schedule_lr(TL_SCHEDULE_COSINE, 1, 0, 9, 109, 59), 0.5, 1e-12);
    assert_near(tl_schedule_lr(TL_SCHEDULE_LINEAR, 1, 0.5, 0, 100, 100), 0.5, 1e-12);
    tl_engine *engine;
    tl_error e = {0};
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    struct act_attr a = {.kind = ACT_RELU2};
    float x[4] = {-1, 2, 3, 0}, y[4];
    tl_arg in = {x, tl_desc_make(TL_F32, 1, (int64_t[]){4})}, out = {y, in.d};
    assert_ok(tl_eval(engine, tl_op_find("act"), &a, &in, 1, &out, 1, 0, &e), &e);
    assert_memory_equal(y, ((float[]){0, 4, 9, 0}), sizeof y);
    tl_engine_destroy(engine);
}

/* ---- no memory ------------------------------------------------------------------------------------------------------
 */

static tl_status everything(const tl_allocator *a, void *user) {
    static float y[B * T * 257], dy[B * T * 257];
    static const int32_t ids[B * T] = {1, 2, 3};
    (void)user;
    world w;
    tl_error e = {0};
    tl_session *s = NULL, *s2 = NULL;
    tl_dataset *d = NULL;
    tl_module *f = NULL;
    tl_piece p;
    tl_status st = world_of(&w, small, a, &e);
    if (st == TL_OK) st = tl_session_create(w.model, NULL, &s, &e);
    if (st == TL_OK) st = tl_session_text(s, "a", 1, &e);
    if (st == TL_OK) st = tl_session_next(s, &p, &e);
    if (st == TL_OK) st = tl_session_fork(s, &s2, &e);
    if (st == TL_OK) st = tl_session_next(s2, &p, &e);
    if (st == TL_OK) st = tl_dataset_create(w.engine, w.bytes, 0, 0, &d, &e);
    if (st == TL_OK) st = tl_dataset_add_text(d, text, sizeof text - 1, &e);
    if (st == TL_OK) st = tl_dataset_shape(d, B, T, true, 1, &e);
    if (st == TL_OK) st = tl_module_create(w.model, &(tl_module_options){.rows = B, .context = T}, &f, &e);
    if (st == TL_OK) st = tl_module_vjp(f, ids, dy, y, NULL, &e);
    tl_module_destroy(f);
    tl_dataset_close(d);
    tl_session_destroy(s2);
    tl_session_destroy(s);
    world_close(&w);
    return st;
}

static void every_allocation_may_fail(void **state) {
    (void)state;
    assert_true(test_alloc_sweep(everything, NULL) > 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokenizers_are_trained),
        cmocka_unit_test(sessions_fork),
        cmocka_unit_test(tensors_have_names_and_are_set),
        cmocka_unit_test(datasets_give_any_step),
        cmocka_unit_test(modules_have_gradients),
        cmocka_unit_test(modules_are_blocks_too),
        cmocka_unit_test(schedules_and_attributes_are_public),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
