/* Rows computed a segment of tokens at a time: the loss and every gradient are those of the whole rows, nothing is cut
 * off between segments, and memory is that of one segment. */
#include "fixture.h"

#include "eval/eval.h"

#include <math.h>

enum { B = 4, T = 24 };

#define GATED(type, own)                                                                                               \
    "{\"model_type\":\"" type "\",\"vocab_size\":257,\"hidden_size\":16,\"num_hidden_layers\":2,\"expansion\":32,"     \
    "\"shared_size\":8,\"max_position_embeddings\":64" own "}"
static const char *const configs[] = {
    GATED("flash", ",\"chunk_size\":4"),
    GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"token_shift\":true,\"temperature\":true,\"gate_heads\":2}"),
    GATED("flash", ",\"chunk_size\":2,\"tilia\":{\"chunk_outer\":4,\"scaled_sin\":true}"),
    GATED("flash", ",\"chunk_size\":2,\"tilia\":{\"chunk_norm\":\"constant\",\"mixers\":[\"flash\",\"mixed_chunk\"],"
                   "\"heads\":2,\"mlp\":32}"),
    GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"chunk_parts\":\"global\",\"rel_bias\":false,\"mixers\":"
                   "[\"flash\",\"retention\"],\"heads\":2,\"mlp\":32}"),
    GATED("gau", ",\"tilia\":{\"mixers\":[\"simple_gla\",\"gla\"],\"heads\":2,\"mlp\":32}"),
    GATED("gau", ",\"tilia\":{\"mixers\":[\"deltanet\",\"gated_deltanet\"],\"heads\":2,\"mlp\":32}"),
    GATED("gau", ",\"tilia\":{\"mixers\":[\"performer\",\"cosformer\"],\"heads\":2,\"mlp\":32}"),
    GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"chunk_parts\":\"local\"}"),
};
enum { CONFIGS = sizeof configs / sizeof *configs };

typedef struct how {
    int threads;
    int64_t rows, micro, segment;
    tl_dtype dtype;
    tl_recompute recompute;
} how;

static tl_status open(const char *config, const how *h, fixture *f, trainer **t, tl_error *e) {
    assert_ok(fixture_open(f, NULL, h->threads, config, h->rows, T, false, e), e);
    trainer_settings s = fixture_settings(h->rows, h->micro, T, h->dtype);
    s.segment = h->segment;
    s.recompute = h->recompute;
    return trainer_create(f->model, &s, t, e);
}

static void train(const char *config, how h, int n, double *loss, double *norm) {
    fixture f;
    trainer *t;
    tl_error e = {0};
    assert_ok(open(config, &h, &f, &t, &e), &e);
    for (int i = 0; i < n; i++) {
        tl_metrics m;
        assert_ok(trainer_step(t, f.loader, &m, &e), &e);
        loss[i] = m.loss, norm[i] = m.norm;
    }
    trainer_destroy(t);
    fixture_close(&f);
}

static void near(const char *config, int64_t segment, const double *a, const double *b, int n, double eps) {
    for (int i = 0; i < n; i++)
        if (!(fabs(a[i] - b[i]) <= eps * fabs(a[i])))
            fail_msg("%s by %d: step %d gives %.9g, whole rows %.9g", config, (int)segment, i + 1, b[i], a[i]);
}

/* A wrong gradient shows in its norm at once and in later losses. 20 does not divide 24, 24 is one segment. */
static void segments_are_the_whole(void **state) {
    (void)state;
    static const int64_t segment[] = {4, 8, 12, 20, 24};
    double loss[2][4], norm[2][4];
    for (int k = 0; k < CONFIGS; k++) {
        const how whole = {.threads = 1, .rows = B, .micro = B, .dtype = TL_F32};
        train(configs[k], whole, 4, loss[0], norm[0]);
        for (size_t i = 0; i < sizeof segment / sizeof *segment; i++) {
            how h = whole;
            h.segment = segment[i], h.micro = i % 2 ? 2 : B, h.threads = 1 + (int)i % 3;
            train(configs[k], h, 4, loss[1], norm[1]);
            near(configs[k], h.segment, loss[0], loss[1], 4, 2e-5);
            near(configs[k], h.segment, norm[0], norm[1], 4, 2e-4);
        }
    }
}

static void bits_do_not_depend_on_how(void **state) {
    (void)state;
    double loss[2][4], norm[2][4];
    for (int k = 0; k < CONFIGS; k++) {
        how h = {.threads = 1, .rows = B, .micro = 2, .segment = 8, .dtype = k % 2 ? TL_BF16 : TL_F32};
        train(configs[k], h, 4, loss[0], norm[0]);
        h.threads = 3;
        train(configs[k], h, 4, loss[1], norm[1]);
        assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
        assert_memory_equal(norm[0], norm[1], sizeof norm[0]);
        h.recompute = TL_RECOMPUTE_FULL;
        train(configs[k], h, 4, loss[1], norm[1]);
        assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
        assert_memory_equal(norm[0], norm[1], sizeof norm[0]);
    }
}

/* One row at a time draws the random numbers of whole rows. */
static void dropout_is_that_of_whole_rows(void **state) {
    (void)state;
    const char *config = GATED("flash", ",\"chunk_size\":4,\"resid_pdrop\":0.2,\"embd_pdrop\":0.1");
    double loss[2][4], norm[2][4];
    how h = {.threads = 2, .rows = B, .micro = 1, .dtype = TL_F32};
    train(config, h, 4, loss[0], norm[0]);
    h.segment = 8;
    train(config, h, 4, loss[1], norm[1]);
    near(config, 8, loss[0], loss[1], 4, 2e-5);
    near(config, 8, norm[0], norm[1], 4, 2e-4);
}

/* Every place of a row counts the same loss, also where the last segment is padded. */
static void evaluation_too(void **state) {
    (void)state;
    for (int k = 0; k < CONFIGS; k++) {
        fixture f;
        tl_error e = {0};
        double at[2][T] = {{0}};
        int64_t seen[2][T] = {{0}};
        assert_ok(fixture_open(&f, NULL, 2, configs[k], B, T, false, &e), &e);
        for (int i = 0; i < 2; i++) {
            eval_options o = {.rows = 3, .context = T, .by_position = at[i], .at_position = seen[i]};
            eval_result r;
            evaluator *ev;
            if (i) o.segment = k % 2 ? 20 : 8;
            assert_ok(evaluator_open(f.model, &o, &ev, &e), &e);
            assert_ok(evaluator_run(ev, &f.text.view, &r, NULL, NULL, &e), &e);
            evaluator_close(ev);
        }
        assert_memory_equal(seen[0], seen[1], sizeof seen[0]);
        near(configs[k], 8, at[0], at[1], T, 1e-5);
        fixture_close(&f);
    }
}

/* What a step holds: measured beforehand, and hardly more for a context eight times as long. */
static void memory_is_that_of_a_segment(void **state) {
    (void)state;
    fixture f;
    trainer *t;
    tl_error e = {0};
    size_t held[2], whole[2];
    assert_ok(fixture_open(&f, NULL, 1, configs[0], 1, T, false, &e), &e);
    const trainer_shape w = {&f.model->config, &f.model->params, NULL, NULL};
    for (int i = 0; i < 2; i++) {
        trainer_settings s = fixture_settings(1, 1, i ? 4096 : 512, TL_F32);
        trainer_bytes b;
        tl_cost one, all;
        assert_ok(trainer_measure(f.engine, &w, &s, &b, &all, &e), &e);
        whole[i] = b.activations;
        s.segment = 64;
        assert_ok(trainer_measure(f.engine, &w, &s, &b, &one, &e), &e);
        held[i] = b.activations;
        assert_true(one.flops > 1.02 * all.flops && one.flops < 1.5 * all.flops); /* forward twice, but for the head */
        assert_ok(trainer_create(f.model, &s, &t, &e), &e);
        assert_true(t->bytes.activations == held[i] && t->flops == one.flops);
        trainer_destroy(t);
    }
    /* what grows is what segments are handed: 2 layers of 8 x 32 numbers for 64 tokens */
    assert_true(whole[1] - whole[0] > 20 * (held[1] - held[0]));
    assert_true(held[1] - held[0] == (4096 - 512) / 64 * 2 * 8 * 32 * sizeof(float));
    fixture_close(&f);
}

static void refused(const char *config, int64_t segment, bool packed, const char *why) {
    fixture f;
    trainer *t = NULL;
    tl_error e = {0};
    assert_ok(fixture_open(&f, NULL, 1, config, B, T, packed, &e), &e);
    trainer_settings s = fixture_settings(B, B, T, TL_F32);
    s.segment = segment;
    s.packed = packed;
    assert_true(trainer_create(f.model, &s, &t, &e) != TL_OK && t == NULL);
    if (!strstr(e.text, why)) fail_msg("\"%s\" does not say \"%s\"", e.text, why);
    fixture_close(&f);
}

static void what_cannot_be_cut_is_refused(void **state) {
    (void)state;
    refused(GATED("gau", ""), 8, false, "layer 0 keeps something of every token before (gau)");
    refused(GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"mixers\":[\"flash\",\"attention\"],\"heads\":2,\"mlp\":32}"),
            8, false, "layer 1 keeps something of every token before (attention)");
    refused(configs[0], 6, false, "a segment of 6 tokens is not made of chunks of 4");
    refused(configs[0], 8, true, "packed");
    refused(configs[0], 25, false, "segments of 25 tokens in rows of 24");
    refused(GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"chunk_overlap\":true}"), 8, false, "overlap");
    refused(GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"chunk_landmarks\":1}"), 8, false, "landmarks");
    refused(GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"norm\":\"batchnorm\"}"), 8, false, "batchnorm");
    refused(GATED("flash", ",\"chunk_size\":4,\"tilia\":{\"objective\":\"mlm\",\"mask_token_id\":0}"), 8, false,
            "sees nothing that follows");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(segments_are_the_whole),        cmocka_unit_test(bits_do_not_depend_on_how),
        cmocka_unit_test(dropout_is_that_of_whole_rows), cmocka_unit_test(memory_is_that_of_a_segment),
        cmocka_unit_test(what_cannot_be_cut_is_refused), cmocka_unit_test(evaluation_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
