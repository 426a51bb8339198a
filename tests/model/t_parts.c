/* What keys of the configuration mean, by models that differ in one of them or by hand: Swish's slope, activations on
 * both halves of a gated mlp, Nystromformer with as many landmarks as tokens. */
#include "model/model.h"
#include "support/testing.h"

#include <math.h>

enum { V = 23, T = 9, D = 8, F = 6 };

static tl_engine *engine;

static tl_model *model_of(const char *text) {
    model_config c;
    tl_model *m;
    tl_error e = {0};
    assert_ok(config_parse(text, &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 5, &m, &e), &e);
    return m;
}

/* Logits (T,V) of a row of ids. */
static void logits(const tl_model *m, float *out) {
    const build_options o = {.mode = BUILD_LOGITS, .rows = 1, .context = T, .dtype = TL_F32};
    build_result r;
    tl_graph *g;
    tl_plan *p;
    tl_error e = {0};
    double freq[64], mscale;
    int32_t ids[T], pos[T];
    for (int32_t i = 0; i < T; i++) ids[i] = (i * i + 3 * i) % V, pos[i] = i;
    assert_int_equal(tl_graph_create(m->engine, &g), TL_OK);
    assert_ok(build_model(g, m->alloc, &m->config, &m->params, &o, &r, &e), &e);
    assert_ok(tl_plan_create(g, false, &p, &e), &e);
    assert_int_equal(model_bind(m, p, &r, TL_F32), TL_OK);
    build_rope_freq(&m->config, T, freq, &mscale);
    if (r.freq) assert_int_equal(tl_plan_bind(p, r.freq, freq), TL_OK);
    assert_int_equal(tl_plan_bind(p, r.ids, ids), TL_OK);
    assert_int_equal(tl_plan_bind(p, r.pos, pos), TL_OK);
    assert_int_equal(tl_plan_run(p), TL_OK);
    memcpy(out, tl_plan_data(p, r.logits), sizeof(float) * T * V);
    tl_plan_destroy(p);
    build_fini(&r, m->alloc);
    tl_graph_destroy(g);
}

/* Largest difference of the logits of two models with the same weights, as a part of the largest logit. */
static double apart(const char *one, const char *other) {
    static float a[T * V], b[T * V];
    double worst = 0, largest = 0;
    tl_model *m = model_of(one), *n = model_of(other);
    for (size_t k = 0; k < m->params.n; k++)
        for (size_t l = 0; l < n->params.n; l++) {
            const model_param *p = &m->params.list[k], *q = &n->params.list[l];
            const size_t count = (size_t)(p->rows ? p->rows * p->cols : p->cols);
            if (strcmp(p->name, q->name) == 0) memcpy(n->flat + q->offset, m->flat + p->offset, count * sizeof(float));
        }
    logits(m, a), logits(n, b);
    model_close(m), model_close(n);
    for (int i = 0; i < T * V; i++) {
        largest = fmax(largest, fabs((double)a[i]));
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
    }
    return worst / largest;
}

#define LLAMA(own)                                                                                                     \
    "{\"model_type\":\"llama\",\"vocab_size\":23,\"hidden_size\":8,\"intermediate_size\":6,\"num_hidden_layers\":1,"   \
    "\"num_attention_heads\":2,\"max_position_embeddings\":16,\"tie_word_embeddings\":true,"                           \
    "\"initializer_range\":0.5,\"tilia\":{" own "}}"
#define UNIT(own)                                                                                                      \
    "{\"model_type\":\"gau\",\"vocab_size\":23,\"hidden_size\":8,\"num_hidden_layers\":2,\"expansion\":12,"            \
    "\"shared_size\":4,\"max_position_embeddings\":16,\"tilia\":{" own "}}"

/* x sigmoid(beta x) is SiLU for a beta of 1, to the bit where it is a constant; another beta is another model. */
static void swish_of_one_is_silu(void **state) {
    (void)state;
    static const char *const of[][4] = {
        {LLAMA("\"act\":\"silu\""), LLAMA("\"act_beta\":1"), LLAMA("\"act_beta\":1,\"act_beta_learned\":true"),
         LLAMA("\"act_beta\":2")},
        {LLAMA("\"act_both\":true"), LLAMA("\"act_both\":true,\"act_beta\":1"),
         LLAMA("\"act_both\":true,\"act_beta\":1,\"act_beta_learned\":true"),
         LLAMA("\"act_both\":true,\"act_beta\":3")},
        {UNIT(""), UNIT("\"act_beta\":1"), UNIT("\"act_beta\":1,\"act_beta_learned\":true"), UNIT("\"act_beta\":0.5")}};
    for (int k = 0; k < 3; k++) {
        assert_true(apart(of[k][0], of[k][1]) == 0);
        assert_true(apart(of[k][0], of[k][2]) < 1e-5);
        assert_true(apart(of[k][0], of[k][3]) > 1e-3);
    }
}

static const float *weights(const tl_model *m, param_role role, int32_t layer, int32_t nth) {
    const int64_t i = params_find(&m->params, role, layer, nth);
    assert_true(i >= 0);
    return m->flat + m->params.list[i].offset;
}

static void normed(const double *x, const float *gain, double eps, double *y) {
    double sum = 0;
    for (int i = 0; i < D; i++) sum += x[i] * x[i];
    for (int i = 0; i < D; i++) y[i] = x[i] / sqrt(sum / D + eps) * (double)gain[i];
}
static double dot(const float *w, const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (double)w[i] * x[i];
    return sum;
}
static double swish(double x, double beta) {
    return x / (1 + exp(-beta * x));
}

/* The mlp is act(gate) act(up), both with the same slope: by hand, in a layer whose attention says nothing. */
static void both_halves_by_hand(void **state) {
    (void)state;
    static float got[T * V];
    tl_model *m = model_of(LLAMA("\"act_both\":true,\"act_beta\":1.5"));
    const int64_t out = params_find(&m->params, ROLE_ATTN_OUT, 0, 0);
    memset(m->flat + m->params.list[out].offset, 0, sizeof(float) * D * D);
    const float *embed = weights(m, ROLE_EMBED, -1, 0), *up = weights(m, ROLE_UP, 0, 0);
    const float *down = weights(m, ROLE_DOWN, 0, 0), *gain = weights(m, ROLE_NORM_GAIN, 0, 1);
    const double eps = m->config.norm_eps;
    logits(m, got);
    for (int t = 0; t < T; t++) {
        double x[D], h[D], mid[F], z[D];
        const float *e = embed + (t * t + 3 * t) % V * D;
        for (int i = 0; i < D; i++) x[i] = (double)e[i];
        normed(x, gain, eps, h);
        for (int f = 0; f < F; f++)
            mid[f] = swish(dot(up + f * D, h, D), 1.5) * swish(dot(up + (F + f) * D, h, D), 1.5);
        for (int i = 0; i < D; i++) x[i] += dot(down + i * F, mid, F);
        normed(x, weights(m, ROLE_NORM_GAIN, -1, 0), eps, z);
        for (int v = 0; v < V; v++) assert_near(got[t * V + v], dot(embed + v * D, z, D), 1e-4);
    }
    model_close(m);
}

/* Where every token is a segment, A A^+ A v is A v: softmax attention, but for what six steps leave of the inverse. */
static void every_token_a_landmark(void **state) {
    (void)state;
    const char *softmax = LLAMA("\"objective\":\"mlm\",\"mask_token_id\":22");
    const double few = apart(softmax, LLAMA("\"objective\":\"mlm\",\"mask_token_id\":22,"
                                            "\"mixers\":[\"nystromformer\"],\"landmarks\":3"));
    const double all = apart(softmax, LLAMA("\"objective\":\"mlm\",\"mask_token_id\":22,"
                                            "\"mixers\":[\"nystromformer\"],\"landmarks\":9"));
    assert_true(apart(LLAMA("\"objective\":\"mlm\",\"mask_token_id\":22,\"mixers\":[\"nystromformer\"],"
                            "\"landmarks\":64"),
                      LLAMA("\"objective\":\"mlm\",\"mask_token_id\":22,\"mixers\":[\"nystromformer\"],"
                            "\"landmarks\":9")) == 0);
    if (!(all < 0.05 && all < few / 10)) fail_msg("off by %g with every token, by %g with 3", all, few);
}

static int setup(void **state) {
    (void)state;
    tl_error e = {0};
    assert_ok(tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, &e), &e);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(swish_of_one_is_silu),
        cmocka_unit_test(both_halves_by_hand),
        cmocka_unit_test(every_token_a_landmark),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
