/* Mixtures of experts in training: the loss falls, the experts stay busy, and threads, recomputation, packing and bf16
 * keep their promises; what was trained answers the same in steps and in one pass, from a directory and from GGUF. */
#include "fixture.h"

#include "infer/decoder.h"
#include "model/gguf.h"

#include <math.h>

enum { B = 4, T = 16 };

#define MOE(type, more)                                                                                                \
    "{\"model_type\":\"" type "\",\"vocab_size\":257,\"hidden_size\":16,\"intermediate_size\":24,"                     \
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":32," more \
    "}"
static const char *const configs[] = {
    MOE("qwen3_moe", "\"num_experts\":6,\"num_experts_per_tok\":2,\"moe_intermediate_size\":12,\"norm_topk_prob\":true,"
                     "\"router_aux_loss_coef\":0.05"),
    MOE("qwen3_moe", "\"num_experts\":5,\"num_experts_per_tok\":3,\"moe_intermediate_size\":12,\"mlp_only_layers\":[0],"
                     "\"tilia\":{\"drop_resid\":0.1}"),
    MOE("mixtral", "\"num_local_experts\":4,\"num_experts_per_tok\":1,\"router_aux_loss_coef\":0"),
    MOE("llama", "\"tilia\":{\"experts\":3,\"experts_used\":2,\"expert_mlp\":20,\"norm_place\":\"sandwich\"}"),
};
enum { CONFIGS = sizeof configs / sizeof *configs };

typedef struct how {
    int threads;
    tl_dtype dtype;
    bool packed;
    tl_recompute recompute;
    int64_t micro;
} how;

static double train(const char *config, how h, int n, double *loss) {
    fixture f;
    trainer *t;
    tl_error e = {0};
    double balance = 0;
    assert_ok(fixture_open(&f, NULL, h.threads, config, B, T, h.packed, &e), &e);
    trainer_settings s = fixture_settings(B, h.micro ? h.micro : B, T, h.dtype);
    s.packed = h.packed;
    s.recompute = h.recompute;
    assert_ok(trainer_create(f.model, &s, &t, &e), &e);
    for (int i = 0; i < n; i++) {
        tl_metrics m;
        assert_ok(trainer_step(t, f.loader, &m, &e), &e);
        assert_true(m.norm > 0 && isfinite(m.loss));
        loss[i] = m.loss;
        balance = m.balance;
    }
    trainer_destroy(t);
    fixture_close(&f);
    return balance;
}

static void they_learn(void **state) {
    (void)state;
    double loss[40];
    for (int k = 0; k < CONFIGS; k++) {
        double balance = train(configs[k], (how){1, TL_F32, k % 2, false, 0}, 40, loss);
        assert_near(loss[0], log(257), 0.4);
        if (!(loss[39] < 2.8)) fail_msg("%s: %g after %g", configs[k], loss[39], loss[0]);
        if (k == 0) assert_near(balance, 0.05 * 2, 0.03); /* coef k where all are equally busy */
        if (k >= 2) assert_true(balance == 0);
    }
}

static void bits_do_not_depend_on_how(void **state) {
    (void)state;
    double one[4], other[4];
    for (int k = 0; k < CONFIGS; k++) {
        tl_dtype dtype = k == 0 ? TL_BF16 : TL_F32;
        train(configs[k], (how){1, dtype, true, false, 0}, 4, one);
        train(configs[k], (how){3, dtype, true, false, 0}, 4, other);
        assert_memory_equal(one, other, sizeof one);
        for (tl_recompute level = TL_RECOMPUTE_LIGHT; level < TL_RECOMPUTE_LEVELS; level++) {
            train(configs[k], (how){2, dtype, true, level, 0}, 4, other);
            assert_memory_equal(one, other, sizeof one);
        }
    }
}

static void parts_of_a_step_add_up(void **state) {
    (void)state;
    double one[4], other[4];
    train(configs[2], (how){1, TL_F32, false, false, 0}, 4, one);
    train(configs[2], (how){1, TL_F32, false, false, 1}, 4, other);
    for (int i = 0; i < 4; i++) assert_near(one[i], other[i], 1e-5);
    train(configs[0], (how){1, TL_F32, false, false, 0}, 4, one); /* a product of sums is close, not equal */
    train(configs[0], (how){1, TL_F32, false, false, 2}, 4, other);
    for (int i = 0; i < 4; i++) assert_near(one[i], other[i], 0.02);
}

static void half_precision_is_close(void **state) {
    (void)state;
    double full[6], half[6];
    for (int k = 0; k < CONFIGS; k++) {
        train(configs[k], (how){1, TL_F32, false, false, 0}, 6, full);
        train(configs[k], (how){1, TL_BF16, false, false, 0}, 6, half);
        for (int i = 0; i < 6; i++) assert_near(full[i], half[i], 0.05);
    }
}

/* Logits of the last of n tokens, computed `part` at a time. */
static void answer(tl_model *m, int part, float *out) {
    enum { N = 23 };
    decoder d;
    tl_error e;
    const float *z = NULL;
    int32_t ids[N], pos[N], slot[N] = {0};
    for (int32_t i = 0; i < N; i++) ids[i] = (i * 37 + 11) % 257, pos[i] = i;
    assert_ok(decoder_init(&d, m, 1, 32, TL_F32, TL_F32, &e), &e);
    for (int at = 0; at < N; at += part) {
        int n = N - at < part ? N - at : part;
        assert_ok(decoder_run(&d, n, ids + at, pos + at, slot, 1, &(int32_t){n - 1}, &z, &e), &e);
    }
    memcpy(out, z, 257 * sizeof *out);
    decoder_fini(&d);
}

static void answers_do_not_depend_on_the_form(void **state) {
    (void)state;
    char tmp[200], path[300];
    test_tempdir(tmp, sizeof tmp);
    for (int k = 0; k < CONFIGS; k++) {
        fixture f;
        tl_error e = {0};
        tl_model *m;
        float want[257], got[257];
        assert_ok(fixture_open(&f, NULL, 2, configs[k], B, T, false, &e), &e);
        answer(f.model, 23, want);
        for (int part = 1; part < 23; part += 6) {
            answer(f.model, part, got);
            for (int v = 0; v < 257; v++) assert_near(got[v], want[v], 1e-5);
        }
        snprintf(path, sizeof path, "%s/%d.gguf", tmp, k);
        tl_status s = model_write_gguf(f.model, path, NULL, &e);
        assert_int_equal(s, k == 1 || k == 3 ? TL_UNSUPPORTED : TL_OK); /* a layer without experts; a foreign part */
        for (int stay = 0; s == TL_OK && stay < 2; stay++) {
            assert_ok(stay ? model_open_mapped(f.engine, path, &m, &e) : model_open(f.engine, path, &m, &e), &e);
            assert_int_equal(m->flat == NULL, stay);
            answer(m, 5, got);
            for (int v = 0; v < 257; v++) assert_near(got[v], want[v], 1e-4);
            model_close(m);
        }
        fixture_close(&f);
    }
    test_tempdir_remove(tmp);
}

/* Of the parameters of char-moe a quarter of the experts counts as active, and nothing else is left out. */
static void active_parameters(void **state) {
    (void)state;
    model_config c;
    model_params p;
    tl_error e;
    assert_ok(config_preset("char-moe", &c, &e), &e);
    assert_ok(params_init(&p, &mem_default, &c, &e), &e);
    int64_t experts = c.layers * c.experts * 3 * c.width * c.expert_mlp;
    assert_int_equal(p.count - p.count_active, experts / 4 * 3);
    params_fini(&p, &mem_default);
    assert_ok(config_preset("char-cpu", &c, &e), &e);
    assert_ok(params_init(&p, &mem_default, &c, &e), &e);
    assert_int_equal(p.count, p.count_active);
    params_fini(&p, &mem_default);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_learn),
        cmocka_unit_test(bits_do_not_depend_on_how),
        cmocka_unit_test(parts_of_a_step_add_up),
        cmocka_unit_test(half_precision_is_close),
        cmocka_unit_test(answers_do_not_depend_on_the_form),
        cmocka_unit_test(active_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
