/* Objective prefix: prompts whose tokens see each other, in one graph, packed, and token by token over a cache. */
#include "data/loader.h"
#include "eval/eval.h"
#include "infer/sessions.h"

#include <math.h>

enum { V = 31, T = 40, LONG = 700 };

static const char *const models[] = {
    "{\"model_type\":\"llama\",\"hidden_size\":24,\"num_hidden_layers\":2,\"num_attention_heads\":4,"
    "\"num_key_value_heads\":2,\"intermediate_size\":32,\"max_position_embeddings\":1024,\"vocab_size\":31,"
    "\"initializer_range\":0.3,\"tilia\":{\"objective\":\"prefix\"}}",
    "{\"model_type\":\"gpt2\",\"n_embd\":24,\"n_layer\":2,\"n_head\":2,\"n_positions\":1024,\"vocab_size\":31,"
    "\"initializer_range\":0.3,\"tilia\":{\"objective\":\"prefix\",\"positions\":\"alibi\",\"window\":9,"
    "\"full_layers\":[1],\"attn_rel_bias\":true}}",
    "{\"model_type\":\"flash-quad\",\"hidden_size\":24,\"num_hidden_layers\":2,\"expansion\":40,\"shared_size\":12,"
    "\"max_position_embeddings\":1024,\"vocab_size\":31,\"initializer_range\":0.3,\"tilia\":{\"objective\":\"prefix\","
    "\"token_shift\":true}}",
    "{\"model_type\":\"gau\",\"hidden_size\":24,\"num_hidden_layers\":2,\"expansion\":40,\"shared_size\":12,"
    "\"max_position_embeddings\":1024,\"vocab_size\":31,\"initializer_range\":0.3,\"tilia\":{\"objective\":\"prefix\","
    "\"score\":\"softmax\",\"score_kappa\":true,\"gate_heads\":2}}",
};
enum { MODELS = sizeof models / sizeof *models };

static tl_model *model_of(tl_engine *engine, int k) {
    model_config c;
    tl_model *m;
    tl_error e;
    assert_ok(config_parse(models[k], &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 5, &m, &e), &e);
    return m;
}

/* Logits (n, V) of one row of n tokens at once. */
static void at_once(tl_model *m, int64_t n, int32_t *ids, int32_t *pos, int32_t *doc, int32_t *span, float *out) {
    build_options o = {.mode = BUILD_LOGITS, .rows = 1, .context = n, .dtype = TL_F32, .packed = doc != NULL};
    build_result r;
    tl_graph *g;
    tl_plan *p;
    tl_error e;
    double freq[64], mscale;
    float slopes[64];
    assert_int_equal(tl_graph_create(m->engine, &g), TL_OK);
    assert_ok(build_model(g, m->alloc, &m->config, &m->params, &o, &r, &e), &e);
    assert_ok(tl_plan_create(g, false, &p, &e), &e);
    assert_int_equal(model_bind(m, p, &r, TL_F32), TL_OK);
    build_rope_freq(&m->config, n, freq, &mscale);
    (void)build_head_constants(&m->config, slopes);
    if (r.freq) assert_int_equal(tl_plan_bind(p, r.freq, freq), TL_OK);
    if (r.slopes) assert_int_equal(tl_plan_bind(p, r.slopes, slopes), TL_OK);
    assert_int_equal(tl_plan_bind(p, r.ids, ids), TL_OK);
    assert_int_equal(tl_plan_bind(p, r.pos, pos), TL_OK);
    if (r.doc) assert_int_equal(tl_plan_bind(p, r.doc, doc), TL_OK);
    if (r.span) assert_int_equal(tl_plan_bind(p, r.span, span), TL_OK);
    assert_int_equal(tl_plan_run(p), TL_OK);
    memcpy(out, tl_plan_data(p, r.logits), (size_t)(n * V) * sizeof *out);
    tl_plan_destroy(p);
    build_fini(&r, m->alloc);
    tl_graph_destroy(g);
}

static void spans(int32_t *span, int32_t first, int32_t n, int32_t prompt) {
    for (int32_t i = first; i < first + n; i++) {
        span[2 * i] = first;
        span[2 * i + 1] = i < first + prompt ? first + prompt : i + 1;
    }
}

static void assert_rows(const float *a, const float *b, int64_t rows, double tol) {
    double scale = 0;
    for (int64_t i = 0; i < rows * V; i++) scale = fmax(scale, fabs((double)b[i]));
    for (int64_t i = 0; i < rows * V; i++) assert_near(a[i], b[i], tol * scale);
}

static bool same(const float *a, const float *b, int64_t rows) {
    return memcmp(a, b, (size_t)(rows * V) * sizeof *a) == 0;
}

/* A prompt's rows know its last token; nothing knows what follows it, to the bit; a prompt of one token is causal. */
static void who_sees_what(void **state) {
    static float a[T * V], b[T * V];
    int32_t ids[T], pos[T], span[2 * T];
    for (int k = 0; k < MODELS; k++) {
        tl_model *m = model_of(*state, k);
        for (int32_t i = 0; i < T; i++) ids[i] = (i * 7 + 3) % V, pos[i] = i;
        spans(span, 0, T, 15);
        at_once(m, T, ids, pos, NULL, span, a);
        ids[14] = (ids[14] + 1) % V;
        at_once(m, T, ids, pos, NULL, span, b);
        for (int i = 0; i < T; i++) assert_false(same(a + i * V, b + i * V, 1));
        ids[14] = (14 * 7 + 3) % V;
        ids[25] = (ids[25] + 1) % V;
        at_once(m, T, ids, pos, NULL, span, b);
        assert_true(same(a, b, 25));
        assert_false(same(a + 25 * V, b + 25 * V, 1));
        spans(span, 0, T, 1);
        at_once(m, T, ids, pos, NULL, span, a);
        m->config.objective = OBJECTIVE_CAUSAL;
        at_once(m, T, ids, pos, NULL, NULL, b);
        assert_rows(a, b, T, 1e-5);
        model_close(m);
    }
}

/* Sum of losses of targets [from, T) of one row. */
static double nats(const float *z, const int32_t *target, int32_t from) {
    double all = 0;
    for (int32_t i = from; i < T; i++) {
        double sum = 0;
        for (int v = 0; v < V; v++) sum += exp((double)z[i * V + v]);
        all += log(sum) - (double)z[i * V + target[i]];
    }
    return all;
}

/* A window that overlaps the one before takes what it has from there as its prompt. */
static void strides(void **state) {
    enum { STRIDE = 16, N = T + STRIDE, EOD = 2 };
    static float z[T * V];
    uint16_t text[N];
    int32_t ids[T], pos[T], target[T], span[2 * T];
    for (int i = 0; i < N; i++) text[i] = (uint16_t)((i * 11 + i / 7) % V);
    for (int k = 0; k < MODELS; k++) {
        tl_model *m = model_of(*state, k);
        double want = 0;
        for (int32_t w = 0; w < 2; w++) {
            for (int32_t c = 0; c < T; c++) {
                const int32_t i = w * STRIDE + c;
                pos[c] = c, target[c] = text[i], ids[c] = i ? text[i - 1] : EOD;
            }
            spans(span, 0, T, w ? T - STRIDE + 1 : 1);
            at_once(m, T, ids, pos, NULL, span, z);
            want += nats(z, target, w ? T - STRIDE : 0);
        }
        const tokens t = {.id = text, .width = 2, .vocab = V, .eod = EOD, .n = N};
        const eval_options o = {.rows = 1, .context = T, .stride = STRIDE};
        evaluator *ev;
        eval_result r;
        tl_error e;
        assert_ok(evaluator_open(m, &o, &ev, &e), &e);
        assert_ok(evaluator_run(ev, &t, &r, NULL, NULL, &e), &e);
        assert_int_equal(r.tokens, N);
        assert_near(r.nats, want, 1e-4 * want);
        evaluator_close(ev);
        model_close(m);
    }
}

/* Two documents in a row are as each by itself. */
static void packed(void **state) {
    static float both[T * V], one[T * V];
    int32_t ids[T], pos[T], doc[T], span[2 * T];
    for (int k = 0; k < MODELS; k++) {
        tl_model *m = model_of(*state, k);
        for (int32_t i = 0; i < T; i++) {
            ids[i] = (i * i + 3) % V;
            pos[i] = i < 17 ? i : i - 17;
            doc[i] = i < 17 ? 0 : 17;
        }
        spans(span, 0, 17, 6);
        spans(span, 17, T - 17, 11);
        at_once(m, T, ids, pos, doc, span, both);
        spans(span, 0, 17, 6);
        at_once(m, 17, ids, pos, NULL, span, one);
        assert_rows(both, one, 17, 1e-5);
        spans(span, 0, T - 17, 11);
        at_once(m, T - 17, ids + 17, pos + 17, NULL, span, one);
        assert_rows(both + 17 * V, one, T - 17, 1e-5);
        model_close(m);
    }
}

/* The prompt over a cache, then token by token, is the same as all at once; prompts longer than any bucket too. */
static void decoding(void **state) {
    static float want[LONG * V];
    static int32_t ids[LONG], pos[LONG], span[2 * LONG], slot[LONG];
    for (int k = 0; k < MODELS; k++)
        for (int again = 0; again < 2; again++) {
            tl_model *m = model_of(*state, k);
            decoder d;
            tl_error e;
            const float *z;
            const int32_t n = again ? LONG : T, prompt = again ? LONG - 5 : 13, last = prompt - 1;
            for (int32_t i = 0; i < n; i++) ids[i] = (i * i * 3 + i) % V, pos[i] = i, slot[i] = 1;
            spans(span, 0, n, prompt);
            at_once(m, n, ids, pos, NULL, span, want);
            assert_ok(decoder_init(&d, m, 2, n + 3, TL_F32, TL_F32, &e), &e);
            d.prefix[1] = prompt;
            assert_int_equal(decoder_run(&d, prompt - 1, ids, pos, slot, 1, &(int32_t){0}, &z, &e), TL_STATE);
            assert_ok(decoder_run(&d, prompt, ids, pos, slot, 1, &last, &z, &e), &e);
            assert_rows(z, want + last * V, 1, 3e-5);
            for (int32_t i = prompt; i < n; i++) {
                assert_ok(decoder_run(&d, 1, ids + i, pos + i, slot, 1, &(int32_t){0}, &z, &e), &e);
                assert_rows(z, want + i * V, 1, 3e-5);
            }
            decoder_fini(&d);
            model_close(m);
        }
}

/* The first thing said is the prompt; going back into it makes another. A copy goes on alike. */
static void sessions(void **state) {
    tl_model *m = model_of(*state, 0);
    struct tl_session *s, *t;
    tl_error e;
    int32_t ids[30], pos[30], span[60];
    float want[30 * V], a[V];
    for (int32_t i = 0; i < 30; i++) ids[i] = (i * 11 + 1) % V, pos[i] = i;
    assert_ok(session_create(m, &(tl_session_options){0}, &s, &e), &e);
    assert_ok(session_ids(s, ids, 12, &e), &e);
    next_of(s, a);
    spans(span, 0, 30, 12);
    at_once(m, 30, ids, pos, NULL, span, want);
    assert_rows(a, want + 11 * V, 1, 3e-5);
    assert_ok(session_ids(s, ids + 12, 18, &e), &e);
    next_of(s, a);
    assert_rows(a, want + 29 * V, 1, 3e-5);
    assert_ok(session_fork(s, &t, &e), &e);
    next_of(t, a);
    assert_rows(a, want + 29 * V, 1, 3e-5);
    session_destroy(t);
    assert_int_equal(session_rewind(s, 20), 20);
    next_of(s, a);
    assert_rows(a, want + 19 * V, 1, 3e-5);
    assert_int_equal(session_rewind(s, 12), 12);
    next_of(s, a);
    assert_rows(a, want + 11 * V, 1, 3e-5);
    assert_int_equal(session_rewind(s, 5), 5);
    next_of(s, a);
    spans(span, 0, 5, 5);
    at_once(m, 5, ids, pos, NULL, span, want);
    assert_rows(a, want + 4 * V, 1, 3e-5);
    session_destroy(s);
    model_close(m);
}

static void refused(void **state) {
    static const char *const mixers[] = {"flash", "mixed_chunk", "retention", "performer"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        model_config c;
        tl_error e;
        char mixer[40];
        snprintf(mixer, sizeof mixer, "mixer=%s", mixers[i]);
        const char *set[] = {mixer, "objective=prefix"};
        assert_ok(config_preset("char-cpu", &c, &e), &e);
        assert_int_equal(config_set(&c, set, 2, &e) == TL_OK ? config_check(&c, &e) : TL_CONFIG, TL_CONFIG);
        assert_non_null(strstr(e.text, "running sum"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_sees_what), cmocka_unit_test(strides),
                                       cmocka_unit_test(packed),        cmocka_unit_test(decoding),
                                       cmocka_unit_test(sessions),      cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
