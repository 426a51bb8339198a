/* Gated models in whole numbers: weights in blocks of int8 (q8_0) used where a GGUF has them, activations rounded to
 * int8 where the processor multiplies those (VNNI), and a loss that changes by less than 2 %. */
#include "fixture.h"

#include "infer/decoder.h"
#include "model/gguf.h"

#include <math.h>

enum { B = 4, T = 32, STEPS = 12 };

#define GATED(type, own)                                                                                               \
    "{\"model_type\":\"" type "\",\"vocab_size\":257,\"hidden_size\":256,\"num_hidden_layers\":2,\"expansion\":256,"   \
    "\"shared_size\":64,\"max_position_embeddings\":64" own "}"
static const char *const configs[] = {GATED("gau", ""), GATED("flash-quad", ""), GATED("flash", ",\"chunk_size\":8")};
enum { CONFIGS = sizeof configs / sizeof *configs };

/* Mean loss of a text, token by token as generation computes it. */
static double loss_of(tl_model *m) {
    enum { N = 60 };
    decoder d;
    tl_error e;
    double sum = 0;
    int32_t ids[N + 1];
    uint32_t x = 12345;
    for (int i = 0; i <= N; i++) { /* as the fixture's text */
        x = x * 1664525u + 1013904223u;
        ids[i] = (int32_t)('a' + (int32_t)((uint32_t)i % 7u) * (int32_t)((x >> 28) & 1u));
        if (i % 51 == 50) ids[i] = 256;
    }
    assert_ok(decoder_init(&d, m, 1, 64, TL_F32, TL_F32, &e), &e);
    for (int32_t i = 0; i < N; i++) {
        const float *z;
        double all = 0;
        assert_ok(decoder_run(&d, 1, &ids[i], &i, &(int32_t){0}, 1, &(int32_t){0}, &z, &e), &e);
        for (int v = 0; v < 257; v++) all += exp((double)z[v]);
        sum += log(all) - (double)z[ids[i + 1]];
    }
    decoder_fini(&d);
    return sum / N;
}

static tl_dtype eight_bits(void *user, const model_config *c, const model_param *p, const param_piece *piece) {
    (void)user, (void)c, (void)p;
    return piece->cols % 32 ? TL_F16 : TL_Q8_0;
}

static void whole_numbers_lose_little(void **state) {
    (void)state;
    char tmp[200], path[300];
    test_tempdir(tmp, sizeof tmp);
    for (int k = 0; k < CONFIGS; k++) {
        fixture f;
        trainer *t;
        tl_metrics metrics;
        tl_error e = {0};
        tl_model *m;
        assert_ok(fixture_open(&f, NULL, 2, configs[k], B, T, false, &e), &e);
        trainer_settings s = fixture_settings(B, B, T, TL_F32);
        assert_ok(trainer_create(f.model, &s, &t, &e), &e);
        for (int i = 0; i < STEPS; i++) assert_ok(trainer_step(t, f.loader, &metrics, &e), &e);
        trainer_destroy(t);
        double full = loss_of(f.model);
        assert_true(full < 4);
        snprintf(path, sizeof path, "%s/%d.gguf", tmp, k);
        assert_ok(model_write_gguf(f.model, path, &(gguf_save_options){.dtype = eight_bits, .file_type = 7}, &e), &e);
        assert_ok(model_open_mapped(f.engine, path, &m, &e), &e);
        assert_null(m->flat); /* used as the file has them */
        int64_t in = params_find(&m->params, ROLE_GAU_IN, 0, 0);
        assert_int_equal(m->mapped.piece[in * PARAM_PIECES].dtype, TL_Q8_0);
        double less = loss_of(m);
        print_message("          %s: %.4f, in q8_0 %.4f (%+.3f %%)\n", m->config.type, full, less,
                      100 * (less / full - 1));
        assert_true(fabs(less / full - 1) < 0.02);
        assert_true(less != full);
        model_close(m);
        fixture_close(&f);
    }
    test_tempdir_remove(tmp);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(whole_numbers_lose_little)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
