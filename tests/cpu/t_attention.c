/* Forward attention: every instruction set against an oracle in double, with every option, at the edges of tiles, and
 * with the same bits for any number of workers. */
#include "attention_case.h"

static at_kernel kernels[3];

static double tolerance(const at_case *c, const at_kernel *k) {
    (void)k;
    return c->dtype == TL_F32 ? 4e-6 : c->dtype == TL_F16 ? 1e-3 : 9e-3;
}

static void check_data(const at_case *c, at_data *of) {
    at_data d = *of;
    at_oracle(c, &d, false);
    for (size_t i = 0; i < 3; i++) {
        const at_kernel *k = &kernels[i];
        if (!k->present) continue;
        void *first = NULL, *first_lse = NULL;
        const int workers[] = {1, 2, 3, 7};
        for (size_t w = 0; w < 4; w++) {
            tl_arg o = at_tensor(c->dtype, 4, (int64_t[]){c->B, c->T, c->H, c->Dv}, 1, 0);
            tl_arg lse = at_tensor(TL_F32, 3, (int64_t[]){c->B, c->H, c->T}, 0, 0);
            tl_op_call call = {.attr = &c->attr,
                               .run = &at_info,
                               .in = {d.q, d.k, d.v, d.doc, d.sinks, d.slopes, d.bias},
                               .out = {o, lse}};
            const char *why = at_run(k, &call, workers[w]);
            if (why) {
                assert_true(i == 2 && (c->dtype != TL_BF16 || c->attr.drop > 0));
                free(o.data), free(lse.data);
                break;
            }
            if (!first) {
                const double e = at_error(&o, d.o), el = at_error(&lse, d.lse);
                if (!(e < tolerance(c, k)) || !(el < (i == 2 ? 1e-5 : 2e-6)))
                    fail_msg("%s B%d T%d S%d H%d/%d D%d/%d %s: error %g, lse %g", k->name, (int)c->B, (int)c->T,
                             (int)c->S, (int)c->H, (int)c->Hk, (int)c->Dh, (int)c->Dv, tl_dtype_name(c->dtype), e, el);
                first = o.data, first_lse = lse.data;
            } else {
                assert_memory_equal(first, o.data, at_bytes(&o));
                assert_memory_equal(first_lse, lse.data, at_bytes(&lse));
                free(o.data), free(lse.data);
            }
        }
        free(first), free(first_lse);
    }
    *of = d;
}

static void check(const at_case *c) {
    at_data d = at_make(c);
    check_data(c, &d);
    at_free(&d);
}

/* Scores that rise or fall along the keys, slowly and fast: the running maximum lags behind small steps and follows
 * large ones, at the first tile and at later ones. */
static void test_rising_scores(void **state) {
    (void)state;
    const double rise[] = {3, 5, 8, 14, -3, -8}; /* of the logarithm, within a tile of keys */
    for (int bf16 = 0; bf16 < 2; bf16++)
        for (size_t i = 0; i < sizeof rise / sizeof *rise; i++) {
            const at_case c = {1, 650, 650, 2, 1, 16, 16, bf16 ? TL_BF16 : TL_F32, {.causal = i % 2}, 0, 0, 0, 0, 0};
            at_data d = at_make(&c);
            for (int64_t t = 0; t < c.T; t++) {
                for (int64_t h = 0; h < c.H; h++) at_put(&d.q, at_row(&d.q, 0, t, h), 4); /* scale is 1/4 */
                at_put(&d.k, at_row(&d.k, 0, t, 0), rise[i] * (double)(t - 325) / ATTN_BC);
            }
            check_data(&c, &d);
            at_free(&d);
        }
}

static void test_tile_edges(void **state) {
    (void)state;
    const int64_t n[] = {1, 2, 23, 24, 25, 63, 65, 95, 96, 97, 191, 192, 193, 289};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        for (int causal = 0; causal < 2; causal++) {
            check(&(at_case){1, n[i], n[i], 2, 1, 16, 16, TL_F32, {.causal = causal}, 0, 0, 0, 0, 0});
            check(
                &(at_case){2, 5, n[i], 1, 1, 24, 8, TL_BF16, {.causal = causal, .q_offset = n[i] - 5}, 0, 0, 0, 0, 0});
            check(&(at_case){1, n[i], 7, 3, 3, 7, 9, TL_BF16, {.causal = causal}, 0, 0, 0, 0, 0});
        }
    check(&(at_case){1, 577, 577, 1, 1, 32, 32, TL_F32, {.causal = 1}, 0, 0, 0, 0, 0});
    check(&(at_case){1, 577, 577, 1, 1, 32, 32, TL_BF16, {.causal = 1}, 0, 0, 0, 0, 0});
}

static void test_head_widths(void **state) {
    (void)state;
    const int64_t w[] = {1, 3, 16, 40, 64, 80, 96, 128, 256};
    for (size_t i = 0; i < sizeof w / sizeof *w; i++)
        for (tl_dtype t = TL_F32; t <= TL_F16; t++) {
            if (t == TL_F64) continue;
            check(&(at_case){1, 50, 210, 2, 2, w[i], w[i], t, {.causal = 1, .q_offset = 160}, 0, 0, 0, 0, 0});
            check(&(at_case){1, 30, 30, 2, 2, w[i], w[(i + 4) % 9], t, {.causal = 1}, 0, 0, 0, 0, 0});
        }
}

static void test_groups(void **state) {
    (void)state;
    const int64_t r[] = {1, 2, 3, 5, 8, 71};
    for (size_t i = 0; i < sizeof r / sizeof *r; i++) {
        check(&(at_case){2, 70, 70, 2 * r[i], 2, 16, 16, TL_F32, {.causal = 1}, 0, 1, 1, 0, 0});
        check(&(at_case){1, 70, 70, r[i], 1, 16, 16, TL_BF16, {.causal = 1, .window = 20}, 0, 0, 0, 1, 70});
    }
}

static void test_options(void **state) {
    (void)state;
    for (int bits = 0; bits < 512; bits += 1) {
        if (bits % 5 && bits > 63) continue;
        at_case c = {1, 201, 201, 2, 1, 20, 20, bits & 1 ? TL_BF16 : TL_F32, {.causal = !(bits & 2)}, 0, 0, 0, 0, 0};
        if (bits & 4) c.attr.window = 40;
        if (bits & 8) c.docs = bits & 64 ? -5 : 60;
        if (bits & 16) c.attr.softcap = 3.0f;
        if (bits & 32) c.sinks = true;
        if (bits & 128) c.slopes = true, c.attr.scale = 0.7f;
        if (bits & 256) c.bias = true, c.P = 210;
        check(&c);
    }
}

/* Weights fall out by their place alone; the logsumexp knows nothing of it. */
static void test_dropout(void **state) {
    (void)state;
    const int64_t n[] = {1, 5, 63, 97, 193, 300};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        check(&(at_case){2, n[i], n[i], 3, 3, 16, 16, TL_F32, {.causal = 1, .drop = 0.3f, .op = 2}, 0, 0, 0, 0, 0});
        check(&(at_case){1, n[i], n[i], 4, 2, 20, 8, TL_F32, {.drop = 0.9f}, n[i] > 60 ? 40 : 0, 1, 1, 0, 0});
        check(
            &(at_case){1, n[i], n[i], 2, 1, 16, 16, TL_BF16, {.causal = 1, .window = 30, .drop = 0.1f}, 0, 0, 0, 0, 0});
    }
}

/* Rows before the keys, rows beyond the window: 0 and +inf, or the sink alone. */
static void test_empty_rows(void **state) {
    (void)state;
    for (int sinks = 0; sinks < 2; sinks++) {
        check(&(at_case){1, 60, 40, 2, 2, 16, 16, TL_F32, {.causal = 1, .q_offset = -30}, 0, sinks, 0, 0, 0});
        check(&(at_case){1, 300, 40, 2, 2, 16, 16, TL_BF16, {.causal = 1, .window = 10}, 0, sinks, 0, 0, 0});
    }
}

/* What lies beyond the mask leaves no trace, NaN included. */
static void test_causal_exactly(void **state) {
    (void)state;
    at_case c = {1, 230, 230, 1, 1, 32, 32, TL_F32, {.causal = 1}, 0, 0, 0, 0, 0};
    for (size_t i = 0; i < 2; i++) {
        if (!kernels[i].present) continue;
        at_data d = at_make(&c);
        tl_arg o[2];
        for (int pass = 0; pass < 2; pass++) {
            o[pass] = at_tensor(TL_F32, 4, (int64_t[]){1, 230, 1, 32}, 0, 0);
            tl_op_call call = {.attr = &c.attr, .in = {d.q, d.k, d.v}, .out = {o[pass]}};
            assert_null(at_run(&kernels[i], &call, 2));
            for (int64_t e = 0; e < 32; e++) {
                at_put(&d.k, at_row(&d.k, 0, 200, 0) + e, 1e3);
                at_put(&d.v, at_row(&d.v, 0, 200, 0) + e, -1e3);
            }
        }
        assert_memory_equal(o[0].data, o[1].data, 200 * 32 * 4);
        assert_memory_not_equal((char *)o[0].data + 200 * 32 * 4, (char *)o[1].data + 200 * 32 * 4, 32 * 4);
        free(o[0].data), free(o[1].data);
        at_free(&d);
    }
}

static void test_refusals(void **state) {
    (void)state;
    at_case c = {1, 3, 3, 1, 1, 4, 4, TL_F32, {.causal = 0}, 0, 0, 0, 0, 0};
    at_data d = at_make(&c);
    tl_arg o = at_tensor(TL_F32, 4, (int64_t[]){1, 3, 1, 4}, 0, 0);
    tl_op_call call = {.attr = &c.attr, .in = {d.q, d.k, d.v}, .out = {o}};
    kernel_exec x = {0};
    assert_string_equal(attn_fwd_prepare_pairs(&call, 1, true, NULL, &x), "only bf16");
    call.in[0].d.dtype = TL_F64;
    assert_string_equal(attn_fwd_prepare_avx2(&call, 1, true, NULL, &x), "only f32, bf16 and f16");
    free(o.data);
    at_free(&d);
}

int main(void) {
    kernels[0] = (at_kernel){"avx2", attn_fwd_prepare_avx2, attn_fwd_run, attn_fwd__avx2,
                             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")};
    kernels[1] = (at_kernel){"avx512", attn_fwd_prepare_avx512, attn_fwd_run, attn_fwd__avx512,
                             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")};
    kernels[2] = (at_kernel){"avx512bf16", attn_fwd_prepare_pairs, attn_fwd_run, attn_fwd__avx512bf16,
                             __builtin_cpu_supports("avx512bf16") != 0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tile_edges), cmocka_unit_test(test_head_widths), cmocka_unit_test(test_groups),
        cmocka_unit_test(test_options),    cmocka_unit_test(test_empty_rows),  cmocka_unit_test(test_causal_exactly),
        cmocka_unit_test(test_refusals),   cmocka_unit_test(test_dropout),     cmocka_unit_test(test_rising_scores),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
