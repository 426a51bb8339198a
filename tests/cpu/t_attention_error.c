/* Errors of attention and its gradients at a length where they add up, against an oracle in double: root mean squares
 * over those of what is right. The bounds are below twice what PyTorch's kernels of the same types have at 1024 tokens
 * (bench/attention_peers.py --errors prints both): sums in bf16, or weights rounded once too often, would pass them. */
#include "attention_case.h"

typedef struct pair {
    at_kernel forward, backward;
    double bound[2][2]; /* f32, bf16: of the output, of gradients */
} pair;

static double rms_error(const tl_arg *a, const double *want) {
    const int64_t n = tl_desc_count(&a->d), last = a->d.dim[a->d.ndim - 1];
    double wrong = 0, right = 0;
    for (int64_t i = 0; i < n; i++) {
        const double x = at_get(a, tl_desc_row(&a->d, i / last) + i % last);
        wrong += (x - want[i]) * (x - want[i]);
        right += want[i] * want[i];
    }
    return sqrt(wrong / right);
}

static void check(const pair *p, const at_case *c, const at_data *d) {
    const int64_t dim[4] = {c->B, c->T, c->H, c->Dh};
    const int bf16 = c->dtype == TL_BF16;
    struct attention_bwd_attr attr = {c->attr};
    tl_arg o = at_tensor(c->dtype, 4, dim, 0, 0), lse = at_tensor(TL_F32, 3, (int64_t[]){c->B, c->H, c->T}, 0, 0), g[3];
    for (int i = 0; i < 3; i++) g[i] = at_tensor(c->dtype, 4, dim, 0, 0);
    const tl_op_call forward = {.attr = &c->attr, .in = {d->q, d->k, d->v}, .out = {o, lse}};
    const tl_op_call backward = {.attr = &attr, .in = {d->g, d->q, d->k, d->v, o, lse}, .out = {g[0], g[1], g[2]}};
    const double *want[3] = {d->dq, d->dk, d->dv};
    if (!at_run(&p->forward, &forward, 2)) {
        const double e = rms_error(&o, d->o);
        if (!(e < p->bound[bf16][0])) fail_msg("%s %s: output off by %g", p->forward.name, tl_dtype_name(c->dtype), e);
        assert_null(at_run(&p->backward, &backward, 2));
        for (int i = 0; i < 3; i++) {
            const double b = rms_error(&g[i], want[i]);
            if (!(b < p->bound[bf16][1]))
                fail_msg("%s %s: gradient %d off by %g", p->backward.name, tl_dtype_name(c->dtype), i, b);
        }
    } else
        assert_true(!bf16); /* pairs take nothing else */
    free(o.data), free(lse.data);
    for (int i = 0; i < 3; i++) free(g[i].data);
}

static void test_errors(void **state) {
    (void)state;
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    const bool avx512 = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq");
    const bool pairs = __builtin_cpu_supports("avx512bf16") != 0;
    const pair kernels[3] = {{{"avx2", attn_fwd_prepare_avx2, attn_fwd_run, attn_fwd__avx2, avx2},
                              {"avx2", attn_bwd_prepare_avx2, attn_bwd_run, attn_bwd__avx2, avx2},
                              {{5.5e-7, 7.5e-7}, {2.5e-3, 3e-3}}},
                             {{"avx512", attn_fwd_prepare_avx512, attn_fwd_run, attn_fwd__avx512, avx512},
                              {"avx512", attn_bwd_prepare_avx512, attn_bwd_run, attn_bwd__avx512, avx512},
                              {{5.5e-7, 7.5e-7}, {2.5e-3, 3e-3}}},
                             {{"pairs", attn_fwd_prepare_pairs, attn_fwd_run, attn_fwd__avx512bf16, pairs},
                              {"pairs", attn_bwd_prepare_pairs, attn_bwd_run, attn_bwd__avx512bf16, pairs},
                              {{0, 0}, {4e-3, 5e-3}}}};
    for (tl_dtype t = TL_F32; t <= TL_BF16; t++) {
        if (t != TL_F32 && t != TL_BF16) continue;
        const at_case c = {1, 1024, 1024, 1, 1, 64, 64, t, {.causal = 1}, 0, 0, 0, 0, 0};
        at_data d = at_make(&c);
        at_oracle(&c, &d, true);
        for (int i = 0; i < 3; i++)
            if (kernels[i].forward.present) check(&kernels[i], &c, &d);
        at_free(&d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_errors)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
