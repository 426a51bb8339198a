/* Encoder and decoder: who sees what in one graph, pairs packed into a row, and targets written token by token over
 * keys and values of the source. */
#include "infer/batch.h"
#include "sessions.h"

#include <math.h>

enum { V = 31, T = 22, S = 26 };

#define SIZES "\"max_position_embeddings\":40,\"vocab_size\":31,\"eos_token_id\":0,\"initializer_range\":0.3,"
#define GATED "\"hidden_size\":24,\"num_hidden_layers\":2,\"expansion\":40,\"shared_size\":12," SIZES
#define LLAMA                                                                                                          \
    "\"model_type\":\"llama\",\"hidden_size\":24,\"num_hidden_layers\":2,\"num_attention_heads\":4,"                   \
    "\"num_key_value_heads\":2,\"intermediate_size\":32," SIZES
static const char *const models[] = {
    "{" LLAMA "\"tilia\":{\"encoder_layers\":3,\"source_context\":26,\"sink\":true}}",
    "{\"model_type\":\"gpt2\",\"n_embd\":24,\"n_layer\":2,\"n_head\":2,\"n_positions\":40,\"vocab_size\":31,"
    "\"eos_token_id\":0,\"initializer_range\":0.3,\"tilia\":{\"encoder_layers\":1,\"norm_place\":\"post\","
    "\"attn_rel_bias\":true,\"source_context\":26}}",
    "{\"model_type\":\"flash-quad\"," GATED
    "\"tilia\":{\"objective\":\"seq2seq\",\"source_context\":26,\"token_shift\":true}}",
    "{\"model_type\":\"gau\"," GATED "\"tilia\":{\"encoder_layers\":2,\"source_context\":26,\"score\":\"softmax\","
    "\"score_kappa\":true,\"sink\":true,\"gate_heads\":2,\"norm_place\":\"post\"}}",
    "{\"model_type\":\"flash\"," GATED "\"chunk_size\":5,\"tilia\":{\"encoder_layers\":2,"
    "\"source_context\":26,\"temperature\":true}}",
    "{" LLAMA "\"tilia\":{\"encoder_layers\":2,\"source_context\":26,\"kv_heads\":4,\"mixers\":[\"performer\",\"gau\"],"
    "\"shared_size\":12,\"expansion\":32}}",
};
enum { MODELS = sizeof models / sizeof *models };

static tl_model *model_of(tl_engine *engine, int k) {
    model_config c;
    tl_model *m;
    tl_error e;
    assert_ok(config_parse(models[k], &c, NULL, 0, &e), &e);
    assert_int_equal(c.objective, OBJECTIVE_SEQ2SEQ);
    assert_ok(model_create(engine, &c, NULL, 5, &m, &e), &e);
    for (size_t i = 0; i < m->params.n; i++) { /* temperatures and sinks away from where they begin */
        const model_param *p = &m->params.list[i];
        const bool theta = p->role == ROLE_THETA || p->role == ROLE_CROSS_THETA;
        if (!theta && p->role != ROLE_SINK && p->role != ROLE_CROSS_SINK) continue;
        for (int64_t h = 0; h < p->cols; h++) m->flat[p->offset + h] = theta ? 0.4f : 0.7f + 0.3f * (float)h;
    }
    return m;
}

typedef struct row {
    int32_t id[T], pos[T], doc[T], cross[2 * T], source[S], source_pos[S], source_doc[S];
} row;

/* All padding. */
static void clear(row *r) {
    memset(r, 0, sizeof *r);
    for (int32_t i = 0; i < S; i++) r->source_pos[i] = i, r->source_doc[i] = -1;
    for (int32_t i = 0; i < T; i++) r->pos[i] = i, r->doc[i] = 999, r->cross[2 * i] = r->cross[2 * i + 1] = S;
}

static int32_t source_id(int32_t pair, int32_t i) {
    return (i * i * 5 + i * 3 + pair * 7 + 1) % V;
}
static int32_t target_id(int32_t pair, int32_t i) {
    return i ? (i * i * 3 + i + pair * 11 + 2) % V : 0;
}

static void put(row *r, int32_t pair, int32_t s0, int32_t s, int32_t t0, int32_t t) {
    for (int32_t i = 0; i < s; i++) {
        r->source[s0 + i] = source_id(pair, i);
        r->source_pos[s0 + i] = i;
        r->source_doc[s0 + i] = pair;
    }
    for (int32_t i = 0; i < t; i++) {
        r->id[t0 + i] = target_id(pair, i);
        r->pos[t0 + i] = i;
        r->doc[t0 + i] = t0;
        r->cross[2 * (t0 + i)] = s0, r->cross[2 * (t0 + i) + 1] = s0 + s;
    }
}

/* Logits (T, V) of a row. */
static void at_once(tl_model *m, row *x, float *out) {
    build_options o = {.mode = BUILD_LOGITS, .rows = 1, .context = T, .dtype = TL_F32, .packed = true};
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
    build_rope_freq(&m->config, T, freq, &mscale);
    (void)build_head_constants(&m->config, slopes);
    const struct {
        tl_tensor *t;
        void *data;
    } in[] = {{r.freq, freq},
              {r.slopes, slopes},
              {r.ids, x->id},
              {r.pos, x->pos},
              {r.doc, x->doc},
              {r.cross, x->cross},
              {r.source, x->source},
              {r.source_pos, x->source_pos},
              {r.source_doc, x->source_doc}};
    for (size_t i = 0; i < sizeof in / sizeof *in; i++)
        if (in[i].t) assert_int_equal(tl_plan_bind(p, in[i].t, in[i].data), TL_OK);
    assert_int_equal(tl_plan_run(p), TL_OK);
    memcpy(out, tl_plan_data(p, r.logits), (size_t)(T * V) * sizeof *out);
    tl_plan_destroy(p);
    build_fini(&r, m->alloc);
    tl_graph_destroy(g);
}

static void assert_rows(const float *a, const float *b, int64_t rows, double tol) {
    double scale = 0;
    for (int64_t i = 0; i < rows * V; i++) scale = fmax(scale, fabs((double)b[i]));
    for (int64_t i = 0; i < rows * V; i++) assert_near(a[i], b[i], tol * scale);
}
static bool same(const float *a, const float *b, int64_t rows) {
    return memcmp(a, b, (size_t)(rows * V) * sizeof *a) == 0;
}

/* Every target knows all of its source, nothing of padding, nothing of what follows in the target. */
static void who_sees_what(void **state) {
    static row x;
    static float a[T * V], b[T * V];
    for (int k = 0; k < MODELS; k++) {
        tl_model *m = model_of(*state, k);
        clear(&x);
        put(&x, 0, 0, 13, 0, 17);
        at_once(m, &x, a);
        x.source[12] = (x.source[12] + 1) % V; /* its last token */
        at_once(m, &x, b);
        for (int i = 0; i < 17; i++) assert_false(same(a + i * V, b + i * V, 1));
        put(&x, 0, 0, 13, 0, 17);
        for (int i = 13; i < S; i++) x.source[i] = 17;
        for (int i = 17; i < T; i++) x.id[i] = 19;
        at_once(m, &x, b);
        assert_true(same(a, b, 17));
        x.id[9] = (x.id[9] + 1) % V;
        at_once(m, &x, b);
        assert_true(same(a, b, 9));
        assert_false(same(a + 9 * V, b + 9 * V, 1));
        model_close(m);
    }
}

/* Three pairs in a row, one of them without a source, are as each by itself. */
static void packed(void **state) {
    static const int32_t at[3][4] = {{0, 9, 0, 6}, {9, 0, 6, 5}, {9, 12, 11, 9}};
    static row x;
    static float all[T * V], one[T * V];
    for (int k = 0; k < MODELS; k++) {
        tl_model *m = model_of(*state, k);
        clear(&x);
        for (int32_t p = 0; p < 3; p++) put(&x, p, at[p][0], at[p][1], at[p][2], at[p][3]);
        at_once(m, &x, all);
        for (int32_t p = 0; p < 3; p++) {
            clear(&x);
            put(&x, p, 0, at[p][1], 0, at[p][3]);
            at_once(m, &x, one);
            assert_rows(all + at[p][2] * V, one, at[p][3], 1e-5);
        }
        model_close(m);
    }
}

/* Sources encoded into slots, targets token by token side by side, against all at once. */
static void decoding(void **state) {
    static const int32_t source[2] = {19, 5};
    static row x;
    static float want[2][T * V];
    for (int k = 0; k < MODELS; k++) {
        tl_model *m = model_of(*state, k);
        decoder d;
        tl_error e;
        const float *z;
        assert_ok(decoder_init(&d, m, 3, T, TL_F32, TL_F32, &e), &e);
        for (int32_t p = 0; p < 2; p++) {
            int32_t ids[S];
            clear(&x);
            put(&x, p, 0, source[p], 0, T);
            at_once(m, &x, want[p]);
            for (int32_t i = 0; i < source[p]; i++) ids[i] = source_id(p, i);
            assert_ok(decoder_encode(&d, 2 - p, source[p], ids, &e), &e);
        }
        for (int32_t i = 0; i < T; i++) {
            const int32_t ids[] = {target_id(0, i), target_id(1, i)}, pos[] = {i, i}, slot[] = {2, 1}, both[] = {0, 1};
            assert_ok(decoder_run(&d, 2, ids, pos, slot, 2, both, &z, &e), &e);
            assert_rows(z, want[0] + i * V, 1, 3e-5);
            assert_rows(z + V, want[1] + i * V, 1, 3e-5);
        }
        int32_t ids[T], pos[T], slot[T], last = T - 1; /* a target that is there already, at once */
        for (int32_t i = 0; i < T; i++) ids[i] = target_id(0, i), pos[i] = i, slot[i] = 2;
        assert_ok(decoder_run(&d, T, ids, pos, slot, 1, &last, &z, &e), &e);
        assert_rows(z, want[0] + last * V, 1, 3e-5);
        int32_t none[S + 1] = {0};
        assert_int_equal(decoder_encode(&d, 0, S + 1, none, &e), TL_LIMIT);
        assert_int_equal(decoder_encode(&d, 3, 1, none, &e), TL_ARG);
        none[0] = V;
        assert_int_equal(decoder_encode(&d, 0, 1, none, &e), TL_ARG);
        decoder_fini(&d);
        model_close(m);
    }
}

/* What is said is the source; the answer begins behind an end of document. What is said behind an answer is another. */
static void sessions(void **state) {
    static row x;
    static float want[2][T * V];
    tl_model *m = model_of(*state, 0);
    struct tl_session *s, *t;
    tl_error e;
    float a[V];
    int32_t ids[2][12];
    for (int32_t p = 0; p < 2; p++) {
        for (int32_t i = 0; i < 12; i++) ids[p][i] = source_id(p, i);
        clear(&x);
        put(&x, p, 0, 12, 0, 1);
        at_once(m, &x, want[p]);
    }
    assert_ok(session_create(m, &(tl_session_options){.ignore_eos = true}, &s, &e), &e);
    assert_ok(session_ids(s, ids[0], 5, &e), &e);
    assert_ok(session_ids(s, ids[0] + 5, 7, &e), &e);
    next_of(s, a);
    assert_rows(a, want[0], 1, 3e-5);
    assert_ok(session_fork(s, &t, &e), &e);
    next_of(t, a);
    assert_rows(a, want[0], 1, 3e-5);
    session_destroy(t);
    tl_piece piece;
    for (int i = 0; i < 3; i++) assert_ok(session_next(s, &piece, &e), &e);
    assert_ok(session_ids(s, ids[1], 12, &e), &e);
    next_of(s, a);
    assert_rows(a, want[1], 1, 3e-5);
    session_reset(s);
    assert_ok(session_ids(s, ids[0], 12, &e), &e);
    next_of(s, a);
    assert_rows(a, want[0], 1, 3e-5);
    session_destroy(s);
    model_close(m);
}

/* Looking at the source has a temperature and a sink of its own, where the layer's scores have them. */
static void own_temperature(void **state) {
    static row x;
    static float a[T * V], b[T * V];
    static const struct {
        int model;
        param_role role;
    } at[] = {{0, ROLE_CROSS_SINK}, {3, ROLE_CROSS_SINK}, {4, ROLE_CROSS_THETA}};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        tl_model *m = model_of(*state, at[i].model);
        const int64_t p = params_find(&m->params, at[i].role, 0, 0);
        assert_true(p >= 0);
        clear(&x);
        put(&x, 0, 0, 13, 0, 17);
        at_once(m, &x, a);
        m->flat[m->params.list[p].offset] += 1;
        at_once(m, &x, b);
        assert_false(same(a, b, 1));
        model_close(m);
    }
    tl_model *m = model_of(*state, 2); /* and not where they have none */
    assert_true(params_find(&m->params, ROLE_CROSS_SINK, 0, 0) < 0);
    assert_true(params_find(&m->params, ROLE_CROSS_THETA, 0, 0) < 0);
    model_close(m);
}

static void refused(void **state) {
    static const struct {
        const char *set[3], *part;
    } bad[] = {{{"objective=seq2seq", "parallel=true"}, "serial"},
               {{"objective=seq2seq", "mixer=retention"}, "decays"},
               {{"encoder_layers=2", "source_context=100"}, "learned positions"},
               {{"encoder_layers=-1"}, "encoder_layers"}};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        model_config c;
        tl_error e;
        size_t n = 0;
        while (bad[i].set[n]) n++;
        assert_ok(config_preset("char-cpu", &c, &e), &e);
        assert_fails(TL_CONFIG, config_set(&c, bad[i].set, n, &e), &e);
        assert_non_null(strstr(e.text, bad[i].part));
    }
    model_config c;
    tl_error e;
    assert_ok(config_preset("char-cpu", &c, &e), &e);
    assert_fails(TL_CONFIG, config_objective(&c, OBJECTIVE_SEQ2SEQ, false, &e), &e);
    assert_ok(config_objective(&c, OBJECTIVE_SEQ2SEQ, true, &e), &e);
    assert_int_equal(c.encoder, c.layers);
    assert_fails(TL_CONFIG, config_objective(&c, OBJECTIVE_CAUSAL, true, &e), &e);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_sees_what),   cmocka_unit_test(packed),
                                       cmocka_unit_test(decoding),        cmocka_unit_test(sessions),
                                       cmocka_unit_test(own_temperature), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
