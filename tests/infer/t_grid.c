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
        "\"mask_token_id\":16,%s%s}}",
        strstr(own, "rel_bias") ? "" : "\"rel_bias\":false,", own);
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

/* A grid of 5 x 7 in windows of 3 x 3 as one of 6 x 9 whose cells beyond the edges are hidden, in loops over lines and
 * columns: what is padding counts nowhere, whatever its numbers are. */
enum { GR = 5, GC = 7, GW = 3, GT = GR * GC, GS = 4, GE = 6, PR = 6, PC = 9 };

static double cell(const float *x, int row, int col, int width, int d) {
    if (row >= GR || col >= GC) return 1e6; /* must not be read */
    const int64_t at = row * GC + col;
    return (double)x[at * width + d];
}
static double score(const float *q, const float *k, const float *bias, int r, int c, int kr, int kc) {
    double t = 0;
    for (int d = 0; d < GS; d++) t += cell(q, r, c, GS, d) * cell(k, kr, kc, GS, d);
    t = t / 2 + (double)bias[(kr - r + GW - 1) * (2 * GW - 1) + kc - c + GW - 1]; /* 1/sqrt(s) */
    return t > 0 ? t * t : 0;
}
static void by_loops(const float *const *in, const float *v, const float *bias, float *o) {
    for (int r = 0; r < GR; r++)
        for (int c = 0; c < GC; c++)
            for (int d = 0; d < GE; d++) {
                double near = 0, far = 0, seen = 0;
                for (int kr = r / GW * GW; kr < r / GW * GW + GW; kr++)
                    for (int kc = c / GW * GW; kc < c / GW * GW + GW; kc++) {
                        if (kr >= GR || kc >= GC) continue; /* padding */
                        near += score(in[0], in[1], bias, r, c, kr, kc) * cell(v, kr, kc, GE, d);
                        seen++;
                    }
                for (int kr = 0; kr < PR; kr++)
                    for (int kc = 0; kc < PC; kc++) {
                        double dot = 0;
                        if (kr >= GR || kc >= GC) continue;
                        for (int k = 0; k < GS; k++) dot += cell(in[2], r, c, GS, k) * cell(in[3], kr, kc, GS, k);
                        far += dot * cell(v, kr, kc, GE, d);
                    }
                o[(r * GC + c) * GE + d] = (float)(near / seen + far / GT);
            }
}

static void ordered(const float *x, int width, bool back, float *y) {
    struct grid_order_attr a = {.rows = GR, .cols = GC, .high = GW, .wide = GW, .inverse = back};
    tl_op_call c;
    memset(&c, 0, sizeof c);
    c.attr = &a;
    c.in[0] = (tl_arg){(void *)(uintptr_t)x, tl_desc_make(TL_F32, 3, (int64_t[]){1, GT, width})};
    c.out[0] = (tl_arg){y, c.in[0].d};
    tl_op_find("grid_order")->ref_f32(&c);
}

static void edges_as_padding(void **state) {
    (void)state;
    static float raw[5][GT * GE], in[5][GT * GE], bias[(2 * GW - 1) * (2 * GW - 1)], o[GT * GE], y[GT * GE],
        want[GT * GE];
    struct mixed_chunk_attr a = {.f = {.kind = GATE_RELU2, .count = GATE_COUNT_VISIBLE},
                                 .chunk = GW * GW,
                                 .rows = GR,
                                 .cols = GC,
                                 .high = GW,
                                 .wide = GW};
    tl_op_call c;
    memset(&c, 0, sizeof c);
    for (int n = 0; n < 5; n++) {
        const int width = n < 4 ? GS : GE;
        for (int i = 0; i < GT * width; i++) raw[n][i] = (float)sin(1 + 1.7 * i + 5 * n);
        ordered(raw[n], width, false, in[n]);
        c.in[n] = (tl_arg){in[n], tl_desc_make(TL_F32, 3, (int64_t[]){1, GT, width})};
    }
    for (size_t i = 0; i < sizeof bias / sizeof *bias; i++) bias[i] = (float)cos(0.9 * (double)i);
    c.attr = &a;
    c.in[6] = (tl_arg){bias, tl_desc_make(TL_F32, 1, (int64_t[]){(2 * GW - 1) * (2 * GW - 1)})};
    c.out[0] = (tl_arg){o, tl_desc_make(TL_F32, 3, (int64_t[]){1, GT, GE})};
    tl_op_find("mixed_chunk")->ref_f32(&c);
    ordered(o, GE, true, y);
    by_loops((const float *const[]){raw[0], raw[1], raw[2], raw[3]}, raw[4], bias, want);
    for (int i = 0; i < GT * GE; i++) assert_near(y[i], want[i], 1e-5);
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

/* A model with windows that are cut at the edges knows by its table where in a window a token is, and runs. */
static void table_of_windows(void **state) {
    (void)state;
    static float a[T * V], b[T * V];
    int32_t ids[T];
    for (int32_t i = 0; i < T; i++) ids[i] = (i * i + 3 * i) % V;
    tl_model *m =
        model_of("\"positions\":\"none\",\"grid_rows\":4,\"grid_cols\":6,\"grid_window\":4,\"rel_bias\":true");
    const int64_t p = params_find(&m->params, ROLE_REL_BIAS, 0, 0);
    assert_true(p >= 0);
    assert_int_equal(m->params.list[p].cols, 49);
    at_once(m, ids, a);
    m->flat[m->params.list[p].offset + 24 + 7] += 1; /* a token one line below */
    at_once(m, ids, b);
    for (int i = 0; i < T; i++) /* the last line of the only band of windows has none below: its layers see others' */
        assert_true(memcmp(a + i * V, b + i * V, V * sizeof *a) != 0);
    model_close(m);
}

static void refused(void **state) {
    (void)state;
    static const char *const bad[][2] = {
        {"\"grid_rows\":6,\"grid_cols\":4,\"grid_window\":2,\"rel_bias\":\"t5\"", "table of lines"},
        {"\"grid_rows\":0,\"grid_cols\":4", "grid of 0"},
        {"\"grid_rows\":4,\"grid_cols\":4,\"grid_window\":2", "context of 24"},
        {"\"grid_rows\":6,\"grid_cols\":4,\"grid_window\":2,\"token_shift\":true", "token shift"},
        {"\"grid_rows\":6,\"grid_cols\":4,\"grid_window\":2,\"objective\":\"causal\"", "mlm"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[600];
        model_config c;
        tl_error e;
        snprintf(text, sizeof text,
                 "{\"model_type\":\"flash\",\"hidden_size\":24,\"num_hidden_layers\":2,\"max_position_embeddings\":24,"
                 "\"vocab_size\":17,\"tilia\":{%s\"mask_token_id\":16,%s%s}}",
                 i ? "\"rel_bias\":false," : "", i == 4 ? "" : "\"objective\":\"mlm\",", bad[i][0]);
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
    const struct CMUnitTest tests[] = {cmocka_unit_test(there_and_back),   cmocka_unit_test(edges_as_padding),
                                       cmocka_unit_test(table_of_windows), cmocka_unit_test(one_column),
                                       cmocka_unit_test(windows_move),     cmocka_unit_test(refused)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
