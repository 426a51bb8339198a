/* A state of fixed size in use: prompts longer than any bucket and than the context, sequences side by side, a session
 * that goes back and one that is copied. */
#include "sessions.h"

#include <math.h>
#include <stdlib.h>

enum { V = 61, N = 1106 };
static const char flash[] = "{\"model_type\":\"flash\",\"hidden_size\":32,\"num_hidden_layers\":2,\"expansion\":40,"
                            "\"shared_size\":12,\"chunk_size\":24,\"max_position_embeddings\":40,\"vocab_size\":61,"
                            "\"initializer_range\":0.3,\"tilia\":{\"token_shift\":true";

static const char *const own[] = {"}}", ",\"chunk_overlap\":true}}", ",\"chunk_outer\":48}}"};
enum { KINDS = sizeof own / sizeof *own };

static tl_model *model_of(tl_engine *engine, int kind) {
    char text[400];
    model_config c;
    tl_model *m;
    tl_error e;
    snprintf(text, sizeof text, "%s%s", flash, own[kind]);
    assert_ok(config_parse(text, &c, NULL, 0, &e), &e);
    assert_ok(model_create(engine, &c, NULL, 5, &m, &e), &e);
    return m;
}

static void assert_rows(const float *a, const float *b) {
    double scale = 0;
    for (int i = 0; i < V; i++) scale = fmax(scale, fabs((double)b[i]));
    for (int i = 0; i < V; i++) assert_near(a[i], b[i], 2e-5 * scale);
}

/* Two sequences in slots of one decoder, a part of each in turn, against single steps of each by itself. */
static void long_prompt(tl_engine *engine, int kind) {
    tl_model *m = model_of(engine, kind);
    decoder d, one;
    tl_error e;
    static int32_t ids[N], pos[N], slot[N];
    static float want[2][V];
    const float *z;
    assert_ok(decoder_init(&one, m, 1, 40, TL_F32, TL_F32, &e), &e);
    for (int s = 0; s < 2; s++)
        for (int32_t i = 0; i < N / 2; i++) {
            int32_t id = (i * i * 7 + i * 13 + s * 29) % V;
            assert_ok(decoder_run(&one, 1, &id, &i, &(int32_t){0}, 1, &(int32_t){0}, &z, &e), &e);
            memcpy(want[s], z, sizeof want[s]);
        }
    decoder_fini(&one);
    assert_ok(decoder_init(&d, m, 2, 40, TL_F32, TL_F32, &e), &e);
    for (int32_t i = 0; i < N; i++) { /* runs of 7 of one, then of the other */
        int32_t s = i / 7 % 2, n = i / 14 * 7 + i % 7;
        slot[i] = s, pos[i] = n;
        ids[i] = (n * n * 7 + n * 13 + s * 29) % V;
    }
    int32_t last[2] = {0, 0};
    for (int32_t i = 0; i < N; i++)
        if (pos[i] == N / 2 - 1) last[slot[i]] = i;
    assert_true(last[0] > 0 && last[1] > 0);
    assert_ok(decoder_run(&d, N, ids, pos, slot, 2, last, &z, &e), &e);
    assert_rows(z, want[0]);
    assert_rows(z + V, want[1]);
    decoder_fini(&d);
    model_close(m);
}

static void long_prompts(void **state) {
    for (int k = 0; k < KINDS; k++) long_prompt(*state, k);
}

/* Wherever a session goes back to, and in a copy of it, the same follows as in a new one. */
static void there_and_back(tl_engine *engine, int kind) {
    tl_model *m = model_of(engine, kind);
    struct tl_session *s, *t, *fresh;
    tl_error e;
    int32_t ids[150];
    float a[V], b[V];
    for (int i = 0; i < 150; i++) ids[i] = (i * 31 + 7) % V;
    assert_ok(session_create(m, &(tl_session_options){0}, &s, &e), &e);
    for (int back = 149; back >= 30; back -= back == 149 ? 4 : 13) { /* 145: to where the last chunk begins */
        assert_ok(session_create(m, &(tl_session_options){0}, &fresh, &e), &e);
        assert_ok(session_ids(fresh, ids, (size_t)back, &e), &e);
        next_of(fresh, b);
        session_reset(s);
        assert_ok(session_ids(s, ids, 150, &e), &e);
        next_of(s, a);
        assert_int_equal(session_rewind(s, back), back);
        next_of(s, a);
        assert_rows(a, b);
        assert_ok(session_fork(s, &t, &e), &e);
        next_of(t, a);
        assert_rows(a, b);
        session_destroy(t);
        session_destroy(fresh);
    }
    session_destroy(s);
    model_close(m);
}

static void back_and_forth(void **state) {
    for (int k = 0; k < KINDS; k++) there_and_back(*state, k);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_prompts), cmocka_unit_test(back_and_forth)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
