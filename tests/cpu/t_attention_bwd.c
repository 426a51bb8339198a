/* Backward attention against an oracle in double: all gradients, all options, tile edges, several segments, unwanted
 * outputs, sums that add, and the same bits for any number of workers. */
#include "attention_case.h"

static at_kernel kernels[3];

typedef struct outs {
    tl_arg a[5];
} outs;

static outs outs_make(const at_case *c) {
    outs o = {.a = {at_tensor(c->dtype, 4, (int64_t[]){c->B, c->T, c->H, c->Dh}, 2, 0),
                    at_tensor(c->dtype, 4, (int64_t[]){c->B, c->S, c->Hk, c->Dh}, 4, 0),
                    at_tensor(c->dtype, 4, (int64_t[]){c->B, c->S, c->Hk, c->Dv}, 0, 0)}};
    if (c->sinks) o.a[3] = at_tensor(TL_F32, 1, &c->H, 0, 0);
    if (c->bias) o.a[4] = at_tensor(TL_F32, 2, (int64_t[]){c->H, 2 * c->P - 1}, 0, 0);
    return o;
}
static void outs_free(outs *o) {
    for (int i = 0; i < 5; i++) free(o->a[i].data);
}

/* The forward results as the oracle has them, rounded to storage. */
static void check(const at_case *c) {
    at_data d = at_make(c);
    at_oracle(c, &d, true);
    tl_arg o = at_tensor(c->dtype, 4, (int64_t[]){c->B, c->T, c->H, c->Dv}, 7, 0);
    tl_arg lse = at_tensor(TL_F32, 3, (int64_t[]){c->B, c->H, c->T}, 0, 0);
    for (int64_t i = 0; i < c->B * c->T * c->H * c->Dv; i++)
        at_put(&o, tl_desc_row(&o.d, i / c->Dv) + i % c->Dv, d.o[i]);
    for (int64_t i = 0; i < c->B * c->T * c->H; i++) at_put(&lse, i, d.lse[i]);
    struct attention_bwd_attr attr = {c->attr};
    const double *want[5] = {d.dq, d.dk, d.dv, d.dsinks, d.dbias};
    for (size_t i = 0; i < 3; i++) {
        const at_kernel *k = &kernels[i];
        if (!k->present) continue;
        outs first = {0};
        const int workers[] = {1, 2, 5};
        for (size_t w = 0; w < 3; w++) {
            outs out = outs_make(c);
            tl_op_call call = {
                .attr = &attr, .run = &at_info, .in = {d.g, d.q, d.k, d.v, o, lse, d.doc, d.sinks, d.slopes, d.bias}};
            memcpy(call.out, out.a, sizeof out.a);
            const char *why = at_run(k, &call, workers[w]);
            if (why) {
                assert_true(i == 2 && (c->dtype != TL_BF16 || c->attr.drop > 0));
                outs_free(&out);
                break;
            }
            if (w == 0) {
                for (int n = 0; n < 5; n++) {
                    if (!out.a[n].data) continue;
                    const double e = at_error(&out.a[n], want[n]);
                    if (!(e < (c->dtype == TL_F32 ? 1e-5 : c->dtype == TL_F16 ? 2e-3 : 1.6e-2)))
                        fail_msg("%s out %d B%d T%d S%d H%d/%d D%d/%d %s causal %d: error %g", k->name, n, (int)c->B,
                                 (int)c->T, (int)c->S, (int)c->H, (int)c->Hk, (int)c->Dh, (int)c->Dv,
                                 tl_dtype_name(c->dtype), c->attr.causal, e);
                }
                first = out;
            } else {
                for (int n = 0; n < 5; n++)
                    if (out.a[n].data) assert_memory_equal(first.a[n].data, out.a[n].data, at_bytes(&out.a[n]));
                outs_free(&out);
            }
        }
        outs_free(&first);
    }
    free(o.data), free(lse.data);
    at_free(&d);
}

static void test_tile_edges(void **state) {
    (void)state;
    const int64_t n[] = {1, 2, 23, 24, 25, 47, 49, 63, 65, 95, 96, 97, 191, 192, 193};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++)
        for (int causal = 0; causal < 2; causal++) {
            check(&(at_case){1, n[i], n[i], 2, 1, 16, 16, TL_F32, {.causal = causal}, 0, 0, 0, 0, 0});
            check(
                &(at_case){2, 5, n[i], 1, 1, 24, 8, TL_BF16, {.causal = causal, .q_offset = n[i] - 5}, 0, 0, 0, 0, 0});
            check(&(at_case){1, n[i], 7, 3, 3, 7, 9, TL_BF16, {.causal = causal}, 0, 0, 0, 0, 0});
        }
    for (tl_dtype t = TL_F32; t <= TL_BF16; t += TL_BF16 - TL_F32) {
        check(&(at_case){1, 577, 577, 1, 1, 32, 32, t, {.causal = 1}, 0, 0, 0, 0, 0});
        check(&(at_case){1, 400, 577, 2, 1, 32, 48, t, {.causal = 1, .q_offset = 100}, 0, 0, 0, 0, 0});
    }
}

/* The mask of the forward pass again, at the edges of tiles and segments. */
static void test_dropout(void **state) {
    (void)state;
    const int64_t n[] = {1, 5, 63, 97, 193, 300};
    for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
        check(&(at_case){2, n[i], n[i], 3, 3, 16, 16, TL_F32, {.causal = 1, .drop = 0.3f, .op = 2}, 0, 0, 0, 0, 0});
        check(&(at_case){1, n[i], n[i], 4, 2, 20, 8, TL_F32, {.drop = 0.5f}, n[i] > 60 ? 40 : 0, 1, 1, 1, n[i]});
        check(
            &(at_case){1, n[i], n[i], 2, 1, 16, 16, TL_BF16, {.causal = 1, .window = 30, .drop = 0.1f}, 0, 0, 0, 0, 0});
        check(
            &(at_case){1, n[i], n[i], 2, 1, 16, 16, TL_F32, {.causal = 1, .softcap = 2, .drop = 0.2f}, 0, 0, 0, 0, 0});
    }
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
    const int64_t r[] = {2, 3, 5, 8, 31};
    for (size_t i = 0; i < sizeof r / sizeof *r; i++) {
        check(&(at_case){2, 70, 70, 2 * r[i], 2, 16, 16, TL_F32, {.causal = 1}, 0, 1, 1, 0, 0});
        check(&(at_case){1, 70, 70, r[i], 1, 16, 16, TL_BF16, {.causal = 1, .window = 20}, 0, 0, 0, 1, 70});
    }
}

static void test_options(void **state) {
    (void)state;
    for (int bits = 0; bits < 512; bits++) {
        if (bits % 7 && bits > 63) continue;
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

static void test_empty_rows(void **state) {
    (void)state;
    for (int sinks = 0; sinks < 2; sinks++) {
        check(&(at_case){1, 60, 40, 2, 2, 16, 16, TL_F32, {.causal = 1, .q_offset = -30}, 0, sinks, 0, 0, 0});
        check(&(at_case){1, 300, 250, 2, 2, 16, 16, TL_BF16, {.causal = 1, .window = 10}, 0, sinks, 0, 0, 0});
        check(&(at_case){1, 500, 250, 2, 2, 16, 16, TL_F32, {.causal = 1, .window = 100}, 0, sinks, 0, 0, 0});
    }
}

/* Gradients nobody wants are not written; sinks and bias add where asked. */
static void test_outputs(void **state) {
    (void)state;
    at_case c = {1, 250, 250, 2, 1, 16, 16, TL_F32, {.causal = 1}, 0, 1, 0, 1, 250};
    at_data d = at_make(&c);
    at_oracle(&c, &d, true);
    tl_arg o = at_tensor(TL_F32, 4, (int64_t[]){1, 250, 2, 16}, 0, 0),
           lse = at_tensor(TL_F32, 3, (int64_t[]){1, 2, 250}, 0, 0);
    for (int64_t i = 0; i < 250 * 2 * 16; i++) at_put(&o, i, d.o[i]);
    for (int64_t i = 0; i < 500; i++) at_put(&lse, i, d.lse[i]);
    struct attention_bwd_attr attr = {c.attr};
    const double *want[5] = {d.dq, d.dk, d.dv, d.dsinks, d.dbias};
    for (int only = 0; only < 5; only++) {
        outs out = outs_make(&c);
        tl_op_call call = {.attr = &attr, .in = {d.g, d.q, d.k, d.v, o, lse, d.doc, d.sinks, d.slopes, d.bias}};
        call.out[only] = out.a[only];
        call.acc = only >= 3 ? 1u << only : 0;
        if (only >= 3)
            for (int64_t i = 0; i < tl_desc_count(&out.a[only].d); i++) at_put(&out.a[only], i, 100.0);
        assert_null(at_run(&kernels[0], &call, 2));
        if (only >= 3)
            for (int64_t i = 0; i < tl_desc_count(&out.a[only].d); i++)
                at_put(&out.a[only], i, at_get(&out.a[only], i) - 100.0);
        assert_true(at_error(&out.a[only], want[only]) < (only < 3 ? 1e-5 : 2e-4));
        outs_free(&out);
    }
    free(o.data), free(lse.data);
    at_free(&d);
}

int main(void) {
    kernels[0] = (at_kernel){"avx2", attn_bwd_prepare_avx2, attn_bwd_run, attn_bwd__avx2,
                             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")};
    kernels[1] = (at_kernel){"avx512", attn_bwd_prepare_avx512, attn_bwd_run, attn_bwd__avx512,
                             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")};
    kernels[2] = (at_kernel){"avx512bf16", attn_bwd_prepare_pairs, attn_bwd_run, attn_bwd__avx512bf16,
                             __builtin_cpu_supports("avx512bf16") != 0};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dropout), cmocka_unit_test(test_tile_edges), cmocka_unit_test(test_head_widths),
        cmocka_unit_test(test_groups),  cmocka_unit_test(test_options),    cmocka_unit_test(test_empty_rows),
        cmocka_unit_test(test_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
