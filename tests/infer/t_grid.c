/* Tokens of a grid: windows as chunks. */
#include "model/model.h"
#include "op/op.h"
#include "support/testing.h"

#include <math.h>

enum { V = 17, R = 6, C = 4, T = R * C };

static tl_engine *engine;

static tl_model *model_of(const char *own) {
    char text[600];
    model_config c;
    tl_model *m;
    tl_error e;
    snprintf(
        text, sizeof text,
        "{\"model_type\":\"flash\",\"hidden_size\":24,\"num_hidden_layers\":2,\"expansion\":40,\"shared_size\":12,"
        "\"max_position_embeddings\":24,\"vocab_size\":17,\"initializer_range\":0.3,\"tilia\":{\"objective\":\"mlm\","
        "\"mask_token_id\":16,\"rel_bias\":false,%s}}",
        own);
    assert_ok(config_parse(text, &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 5, &m, &e), &e);
    return m;
}

static void at_once(tl_model *m, int32_t *ids, float *out) {
    build_options o = {.mode = BUILD_LOGITS, .rows = 1, .context = T, .dtype = TL_F32};
    build_result r;
    tl_graph *g;
    tl_plan *p;
    tl_error e;
    double freq[64], mscale;
    int32_t pos[T];
    for (int32_t i = 0; i < T; i++) pos[i] = i;
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

static void assert_close(const float *a, const float *b) {
    double scale = 0;
    for (int i = 0; i < T * V; i++) scale = fmax(scale, fabs((double)b[i]));
    for (int i = 0; i < T * V; i++) assert_near(a[i], b[i], 2e-5 * scale);
}

/* Windows one after the other, and back. */
static void there_and_back(void **state) {
    (void)state;
    static const float want[12] = {0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 10, 11};
    float x[24], y[24], z[24];
    struct grid_order_attr a = {.rows = 6, .cols = 4, .high = 2, .wide = 2};
    for (int i = 0; i < 24; i++) x[i] = (float)i;
    tl_op_call c;
    memset(&c, 0, sizeof c);
    c.attr = &a;
    c.in[0] = (tl_arg){x, tl_desc_make(TL_F32, 3, (int64_t[]){1, 24, 1})};
    c.out[0] = (tl_arg){y, c.in[0].d};
    tl_op_find("grid_order")->ref_f32(&c);
    for (int i = 0; i < 10; i++) assert_true(y[i] == want[i]);
    a.inverse = 1;
    c.in[0].data = y, c.out[0].data = z;
    tl_op_find("grid_order")->ref_f32(&c);
    assert_memory_equal(x, z, sizeof x);
}

/* One column of windows of h lines is a text in chunks of h; one line of windows as wide, too. */
static void one_column(void **state) {
    (void)state;
    static float a[T * V], b[T * V];
    int32_t ids[T];
    for (int32_t i = 0; i < T; i++) ids[i] = (i * i + 3 * i) % V;
    tl_model *text = model_of("\"positions\":\"none\",\"chunk_size\":6");
    tl_model *column = model_of("\"positions\":\"none\",\"grid_rows\":24,\"grid_cols\":1,\"grid_window\":6");
    tl_model *line = model_of("\"positions\":\"none\",\"grid_rows\":1,\"grid_cols\":24,\"grid_window\":6");
    at_once(text, ids, a);
    at_once(column, ids, b);
    assert_close(b, a);
    at_once(line, ids, b);
    assert_close(b, a);
    model_close(text), model_close(column), model_close(line);
}

/* Without positions, windows that change places take their logits with them; a token within one too. With rotations by
 * line and column a token knows where it is. */
static void windows_move(void **state) {
    (void)state;
    static float a[T * V], b[T * V], c[T * V];
    for (int rope = 0; rope < 2; rope++) {
        int32_t ids[T], moved[T];
        tl_model *m = model_of(rope ? "\"grid_rows\":6,\"grid_cols\":4,\"grid_window\":2"
                                    : "\"positions\":\"none\",\"grid_rows\":6,\"grid_cols\":4,\"grid_window\":2");
        for (int32_t i = 0; i < T; i++) ids[i] = (i * i + 3 * i) % V;
        for (int r = 0; r < R; r++) /* the two columns of windows change places */
            for (int col = 0; col < C; col++) moved[r * C + col] = ids[r * C + (col + 2) % C];
        at_once(m, ids, a);
        at_once(m, moved, b);
        for (int r = 0; r < R; r++)
            for (int col = 0; col < C; col++)
                memcpy(c + (r * C + (col + 2) % C) * V, b + (r * C + col) * V, V * sizeof *c);
        if (rope) {
            double worst = 0;
            for (int i = 0; i < T * V; i++) worst = fmax(worst, fabs((double)c[i] - (double)a[i]));
            assert_true(worst > 1e-3);
        } else {
            assert_close(c, a);
        }
        model_close(m);
    }
}

static void refused(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"\"grid_rows\":5,\"grid_cols\":4,\"grid_window\":2", "not made of windows"},
        {"\"grid_rows\":4,\"grid_cols\":4,\"grid_window\":2", "context of 24"},
        {"\"grid_rows\":6,\"grid_cols\":4,\"grid_window\":2,\"token_shift\":true", "token shift"},
        {"\"grid_rows\":6,\"grid_cols\":4,\"grid_window\":2,\"objective\":\"causal\"", "mlm"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[600];
        model_config c;
        tl_error e;
        snprintf(text, sizeof text,
                 "{\"model_type\":\"flash\",\"hidden_size\":24,\"num_hidden_layers\":2,\"max_position_embeddings\":24,"
                 "\"vocab_size\":17,\"tilia\":{\"rel_bias\":false,\"mask_token_id\":16,%s%s}}",
                 i == 3 ? "" : "\"objective\":\"mlm\",", bad[i][0]);
        assert_fails(TL_CONFIG, config_parse(text, &c, NULL, 0, &e), &e);
        if (!strstr(e.text, bad[i][1])) fail_msg("%s: %s", bad[i][0], e.text);
    }
}

static int setup(void **state) {
    (void)state;
    return tl_engine_create(&(tl_engine_options){.threads = 2}, &engine, NULL) == TL_OK ? 0 : -1;
}
static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back), cmocka_unit_test(one_column),
                                       cmocka_unit_test(windows_move), cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
