/* A training step and ten updates of a tiny GPT-2, a tiny Llama and two tiny mixtures of experts against PyTorch in
 * float64 (tools/vectors/train_vectors.py), and a step of FLASH-pytorch's FLASHTransformer (flash_vectors.py), of its
 * GAU and of GAU-alpha (gau_vectors.py); a step of Nystromformer from its formulas (nystrom_vectors.py). */
#include "fixture.h"

#include "format/safetensors.h"
#include "infer/decoder.h"

#include <math.h>

enum { B = 3, T_MOST = 24, STEPS = 10 };

typedef struct oracle {
    tl_engine *engine;
    tl_model *model;
    safetensors vec;
    int32_t T, ids[B * (T_MOST + 1)]; /* T tokens a sequence and one to predict */
} oracle;

static void oracle_open(oracle *o, const char *name) {
    char path[1024];
    tl_error e = {0};
    tl_engine_options eo = {.threads = 2};
    assert_ok(tl_engine_create(&eo, &o->engine, &e), &e);
    snprintf(path, sizeof path, "%s/tests/vectors/train/%s", TILIA_SOURCE_DIR, name);
    assert_ok(model_open(o->engine, path, &o->model, &e), &e);
    strcat(path, "/vectors.safetensors");
    assert_ok(safetensors_open(&mem_default, path, &o->vec, &e), &e);
    const safetensors_entry *ids = safetensors_find(&o->vec, "ids");
    assert_non_null(ids);
    assert_true(ids->bytes <= sizeof o->ids);
    o->T = (int32_t)(ids->count / B) - 1;
    memcpy(o->ids, ids->data, ids->bytes);
}

static void oracle_close(oracle *o) {
    safetensors_close(&o->vec);
    model_close(o->model);
    tl_engine_destroy(o->engine);
}

/* The doubles of a tensor; *largest magnitude among them. */
static const double *numbers(const oracle *o, const char *prefix, const char *name, int64_t *n, double *largest) {
    char full[200];
    static double buf[1 << 14];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const safetensors_entry *t = safetensors_find(&o->vec, full);
    if (!t) fail_msg("no %s among the vectors", full);
    assert_true(t->dtype == TL_F64 && (size_t)t->count <= sizeof buf / sizeof *buf);
    memcpy(buf, t->data, t->bytes);
    *n = t->count;
    *largest = 0;
    for (int64_t i = 0; i < *n; i++) *largest = fmax(*largest, fabs(buf[i]));
    return buf;
}

static double scalar(const oracle *o, const char *prefix, const char *name) {
    int64_t n;
    double largest;
    const double *x = numbers(o, prefix, name, &n, &largest);
    assert_int_equal(n, 1);
    return x[0];
}

/* Key biases shift all scores of a row alike, so their gradient is zero but for rounding, which Adam makes as large as
 * any other gradient: what becomes of them says nothing. */
static bool is_key_bias(const char *name, int64_t i, int64_t n) {
    return strstr(name, "c_attn.bias") && i >= n / 3 && i < 2 * n / 3;
}

typedef struct rule {
    const char *prefix;
    bool skip_key_bias;
    bool bf16; /* tolerance is twice PyTorch's error, else the constant */
    double tolerance;
} rule;

/* flat holds a number for each weight, at the weights' places. */
static void compare_all(const oracle *o, const float *flat, const rule *r) {
    const model_params *p = &o->model->params;
    for (size_t k = 0; k < p->n; k++) {
        int pieces = params_piece_total(&o->model->config, &p->list[k], FORMAT_HF);
        for (int j = 0; j < pieces; j++) {
            param_piece piece, *q = &piece;
            params_piece_get(&o->model->config, &p->list[k], FORMAT_HF, j, q);
            int64_t n, rows = q->rows ? q->rows : 1, at = q->rows ? q->row * q->cols : q->row;
            double largest, worst = 0, allowed = r->bf16 ? 2 * scalar(o, "bf16.grad.", q->name) : r->tolerance;
            const double *want = numbers(o, r->prefix, q->name, &n, &largest);
            assert_int_equal(n, rows * q->cols);
            for (int64_t i = 0; i < n; i++) {
                int64_t from = q->transposed ? i % rows * q->cols + i / rows : i;
                if (r->skip_key_bias && is_key_bias(q->name, i, n)) continue;
                worst = fmax(worst, fabs((double)flat[p->list[k].offset + at + from] - want[i]));
            }
            if (!(worst <= allowed * largest))
                fail_msg("%s%s: off by %.3g of its largest %.3g, allowed %.3g", r->prefix, q->name, worst / largest,
                         largest, allowed);
        }
    }
}

static void check_logits(oracle *o, tl_dtype dtype, double allowed) {
    decoder d;
    tl_error e = {0};
    static double want[B * T_MOST * 64];
    int64_t n, V = o->model->config.vocab;
    const int32_t T = o->T;
    double largest, worst = 0;
    const double *x = numbers(o, "", "logits", &n, &largest);
    assert_int_equal(n, B * T * V);
    memcpy(want, x, (size_t)n * sizeof *want);
    assert_ok(decoder_init(&d, o->model, B, T, dtype, dtype, &e), &e);
    for (int32_t t = 0; t < T; t++) {
        int32_t ids[B], pos[B], row[B];
        const float *logits;
        for (int32_t b = 0; b < B; b++) {
            ids[b] = o->ids[b * (T + 1) + t];
            pos[b] = t;
            row[b] = b;
        }
        assert_ok(decoder_run(&d, B, ids, pos, row, B, row, &logits, &e), &e);
        for (int64_t b = 0; b < B; b++)
            for (int64_t v = 0; v < V; v++)
                worst = fmax(worst, fabs((double)logits[b * V + v] - want[(b * T + t) * V + v]));
    }
    decoder_fini(&d);
    if (!(worst <= allowed * largest))
        fail_msg("logits in %s: off by %.3g of %.3g, allowed %.3g", tl_dtype_name(dtype), worst / largest, largest,
                 allowed);
}

static void one_step(const char *name, tl_dtype dtype) {
    oracle o;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    oracle_open(&o, name);
    bool half = dtype == TL_BF16;
    check_logits(&o, dtype, half ? 2 * scalar(&o, "", "bf16.logits") : 1e-5);
    trainer_settings s = fixture_settings(B, B, o.T, dtype);
    s.beta1 = 0; /* so that the first moment is the gradient itself */
    s.clip = 0;
    assert_ok(trainer_create(o.model, &s, &t, &e), &e);
    assert_ok(trainer_step_ids(t, o.ids, &m, &e), &e);
    rule r = {"grad.", false, half, 1e-5};
    compare_all(&o, t->m, &r);
    trainer_destroy(t);
    oracle_close(&o);
}

static void ten_steps(const char *name) {
    oracle o;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    int64_t n;
    double largest, losses[STEPS], norms[STEPS], balance[STEPS];
    oracle_open(&o, name);
    memcpy(losses, numbers(&o, "", "losses", &n, &largest), sizeof losses);
    assert_int_equal(n, STEPS);
    memcpy(norms, numbers(&o, "", "norms", &n, &largest), sizeof norms);
    bool experts = o.model->config.experts > 0;
    if (experts) memcpy(balance, numbers(&o, "", "balance", &n, &largest), sizeof balance);
    /* three micro-batches: the same sums, but not of products of sums */
    trainer_settings s = fixture_settings(B, experts ? B : 1, o.T, TL_F32);
    s.schedule = (schedule){TL_SCHEDULE_CONSTANT, 1e-2, 0, 0, STEPS};
    assert_ok(trainer_create(o.model, &s, &t, &e), &e);
    for (int i = 0; i < STEPS; i++) {
        assert_ok(trainer_step_ids(t, o.ids, &m, &e), &e);
        assert_near(m.loss, losses[i], 1e-5 * losses[i]);
        assert_near(m.norm, norms[i], 1e-4 * norms[i]);
        if (experts) assert_near(m.balance, balance[i], 1e-5 * balance[i]);
    }
    assert_true(losses[STEPS - 1] < 0.8 * losses[0]);
    rule r = {"final.", true, false, 1e-4};
    compare_all(&o, o.model->flat, &r);
    trainer_destroy(t);
    oracle_close(&o);
}

static void gpt2_step_f32(void **state) {
    (void)state;
    one_step("gpt2", TL_F32);
}
static void llama_step_f32(void **state) {
    (void)state;
    one_step("llama", TL_F32);
}
static void flash_step_f32(void **state) {
    (void)state;
    one_step("flash", TL_F32);
}
static void gau_alpha_step_f32(void **state) {
    (void)state;
    one_step("gau_alpha", TL_F32);
}
static void lucid_gau_step_f32(void **state) {
    (void)state;
    one_step("lucid_gau", TL_F32);
}
/* The graph is that of masked language modelling, which sees both sides; hiding nothing, the step predicts the next id.
 */
static void nystrom_step_f32(void **state) {
    (void)state;
    oracle o;
    trainer *t;
    tl_error e = {0};
    tl_metrics m;
    oracle_open(&o, "nystrom");
    trainer_settings s = fixture_settings(B, B, o.T, TL_F32);
    s.beta1 = 0, s.clip = 0;
    assert_ok(trainer_create(o.model, &s, &t, &e), &e);
    o.model->config.objective = OBJECTIVE_CAUSAL;
    assert_ok(trainer_step_ids(t, o.ids, &m, &e), &e);
    const double loss = scalar(&o, "", "loss");
    assert_near(m.loss, loss, 1e-6 * loss);
    rule r = {"grad.", false, false, 5e-5}; /* the inverse of a matrix that is nearly singular enlarges rounding */
    compare_all(&o, t->m, &r);
    trainer_destroy(t);
    oracle_close(&o);
}
static void gpt2_step_bf16(void **state) {
    (void)state;
    one_step("gpt2", TL_BF16);
}
static void llama_step_bf16(void **state) {
    (void)state;
    one_step("llama", TL_BF16);
}
static void gpt2_ten_steps(void **state) {
    (void)state;
    ten_steps("gpt2");
}
static void llama_ten_steps(void **state) {
    (void)state;
    ten_steps("llama");
}

static void qwen3_moe_step_f32(void **state) {
    (void)state;
    one_step("qwen3_moe", TL_F32);
}
static void mixtral_step_f32(void **state) {
    (void)state;
    one_step("mixtral", TL_F32);
}
static void qwen3_moe_ten_steps(void **state) {
    (void)state;
    ten_steps("qwen3_moe");
}
static void mixtral_ten_steps(void **state) {
    (void)state;
    ten_steps("mixtral");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gpt2_step_f32),      cmocka_unit_test(llama_step_f32),   cmocka_unit_test(gpt2_step_bf16),
        cmocka_unit_test(llama_step_bf16),    cmocka_unit_test(gpt2_ten_steps),   cmocka_unit_test(llama_ten_steps),
        cmocka_unit_test(qwen3_moe_step_f32), cmocka_unit_test(mixtral_step_f32), cmocka_unit_test(qwen3_moe_ten_steps),
        cmocka_unit_test(mixtral_ten_steps),  cmocka_unit_test(flash_step_f32),   cmocka_unit_test(gau_alpha_step_f32),
        cmocka_unit_test(lucid_gau_step_f32), cmocka_unit_test(nystrom_step_f32),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
