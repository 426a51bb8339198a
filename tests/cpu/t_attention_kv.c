/* Attention over a cache against an oracle in double: decoding, prefill, mixtures of slots, rings, idle rows, all cache
 * dtypes, and the same bits for any number of workers. */
#include "attention_case.h"

#include "tensor/quantize.h"

static at_kernel kernels[2];

typedef struct kv_case {
    int64_t R, H, Hk, Dh, Dv, Q, C;
    tl_dtype q, cache;
    struct attention_kv_attr attr;
    bool sinks, slopes;
    int64_t pos0; /* position of the first row; each next row of a slot is one further */
    int64_t run;  /* rows of a slot that follow each other */
} kv_case;

static void oracle(const kv_case *c, const tl_op_call *call, double *o) {
    const tl_arg *q = &call->in[0], *k = &call->in[1], *v = &call->in[2];
    const int32_t *slot = call->in[3].data, *pos = call->in[4].data;
    double *p = at_zeros(c->C);
    const double scale = c->attr.scale > 0 ? (double)c->attr.scale : 1 / sqrt((double)c->Dh);
    for (int64_t i = 0; i < c->R; i++)
        for (int64_t h = 0; h < c->H; h++) {
            if (slot[i] < 0) continue;
            int64_t lo = pos[i] + 1 - c->C;
            if (c->attr.window && lo < pos[i] + 1 - c->attr.window) lo = pos[i] + 1 - c->attr.window;
            if (lo < 0) lo = 0;
            double top = c->sinks ? at_get(&call->in[5], h) : -INFINITY, sum;
            for (int64_t j = lo; j <= pos[i]; j++) {
                double t = 0;
                for (int64_t d = 0; d < c->Dh; d++)
                    t += at_get(q, i * q->d.stride[0] + h * q->d.stride[1] + d) *
                         at_get(k, at_row(k, slot[i], j % c->C, h / (c->H / c->Hk)) + d);
                t *= scale;
                if (c->attr.softcap > 0) t = (double)c->attr.softcap * tanh(t / (double)c->attr.softcap);
                if (c->slopes) t -= at_get(&call->in[6], h) * (double)(pos[i] - j);
                p[j - lo] = t;
                top = fmax(top, t);
            }
            sum = c->sinks ? exp(at_get(&call->in[5], h) - top) : 0;
            for (int64_t j = lo; j <= pos[i]; j++) sum += p[j - lo] = exp(p[j - lo] - top);
            for (int64_t j = lo; j <= pos[i]; j++)
                for (int64_t d = 0; d < c->Dv; d++)
                    o[(i * c->H + h) * c->Dv + d] +=
                        p[j - lo] / sum * at_get(v, at_row(v, slot[i], j % c->C, h / (c->H / c->Hk)) + d);
        }
    free(p);
}

static void check(const kv_case *c) {
    tl_op_call call = {.attr = &c->attr};
    const bool blocks = c->cache == TL_Q8_0; /* Dh and Dv are whole ones */
    const tl_dtype cache = blocks ? TL_F32 : c->cache;
    call.in[0] = at_tensor(c->q, 3, (int64_t[]){c->R, c->H, c->Dh}, 0, 2.0);
    call.in[1] = at_tensor(cache, 4, (int64_t[]){c->Q, c->C, c->Hk, c->Dh}, 0, 2.0);
    call.in[2] = at_tensor(cache, 4, (int64_t[]){c->Q, c->C, c->Hk, c->Dv}, blocks ? 0 : 3, 1.0);
    for (int n = 3; n < 5; n++) call.in[n] = (tl_arg){malloc((size_t)c->R * 4), tl_desc_make(TL_I32, 1, &c->R)};
    if (c->sinks) call.in[5] = at_tensor(TL_F32, 1, &c->H, 0, 3.0);
    if (c->slopes) call.in[6] = at_tensor(TL_F32, 1, &c->H, 0, 0.1);
    for (int64_t i = 0; i < c->R; i++) {
        const int64_t run = i / c->run;
        ((int32_t *)call.in[3].data)[i] = run % 4 == 3 ? -1 : (int32_t)(run % c->Q);
        ((int32_t *)call.in[4].data)[i] = (int32_t)(c->pos0 + i % c->run + 3 * run);
    }
    tl_arg plain[2] = {call.in[1], call.in[2]};
    if (blocks) { /* the oracle sees what blocks of the same numbers hold */
        for (int n = 0; n < 2; n++) {
            const int64_t count = tl_desc_count(&plain[n].d);
            call.in[1 + n].data = malloc((size_t)(count / 32) * 34);
            call.in[1 + n].d = tl_desc_make(TL_Q8_0, 4, plain[n].d.dim);
            quantize_encode(TL_Q8_0, plain[n].data, count, call.in[1 + n].data);
            quantize_decode(TL_Q8_0, call.in[1 + n].data, count, plain[n].data);
        }
    }
    double *want = at_zeros(c->R * c->H * c->Dv);
    tl_op_call floats = call;
    floats.in[1] = plain[0], floats.in[2] = plain[1];
    oracle(c, &floats, want);
    for (size_t i = 0; i < 2; i++) {
        if (!kernels[i].present) continue;
        void *first = NULL;
        const int workers[] = {1, 2, 3, 8};
        for (size_t w = 0; w < 4; w++) {
            tl_arg o = at_tensor(c->q, 3, (int64_t[]){c->R, c->H, c->Dv}, 0, 0);
            call.out[0] = o;
            assert_null(at_run(&kernels[i], &call, workers[w]));
            if (!first) {
                const double e = at_error(&o, want);
                if (!(e < (c->q == TL_F32 ? 4e-6 : c->q == TL_F16 ? 1e-3 : 6e-3)))
                    fail_msg("%s R%d H%d/%d D%d/%d C%d pos %d run %d: error %g", kernels[i].name, (int)c->R, (int)c->H,
                             (int)c->Hk, (int)c->Dh, (int)c->Dv, (int)c->C, (int)c->pos0, (int)c->run, e);
                first = o.data;
            } else {
                assert_memory_equal(first, o.data, at_bytes(&o));
                free(o.data);
            }
        }
        free(first);
    }
    for (int n = 0; n < 7; n++) free(call.in[n].data);
    for (int n = 0; n < 2 && blocks; n++) free(plain[n].data);
    free(want);
}

static void test_decode(void **state) {
    (void)state;
    const int64_t at[] = {0, 1, 15, 16, 17, 191, 192, 193, 255, 256, 257, 700, 1023, 1024, 2500};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        check(&(kv_case){1, 2, 2, 64, 64, 1, 1024, TL_F32, TL_F32, {.scale = 0}, 0, 0, at[i], 1});
        check(&(kv_case){1, 12, 1, 40, 72, 1, 1024, TL_F32, TL_BF16, {.scale = 0}, 1, 1, at[i], 1});
        check(&(kv_case){5, 6, 2, 20, 20, 3, 300, TL_BF16, TL_F16, {.softcap = 5.0f}, 0, 0, at[i], 1});
        check(&(kv_case){4, 3, 3, 16, 9, 2, 200, TL_F32, TL_F16, {.window = 70}, 1, 0, at[i], 1});
    }
}

static void test_prefill(void **state) {
    (void)state;
    const int64_t rows[] = {2, 3, 4, 5, 24, 25, 95, 96, 97, 200};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        check(&(kv_case){rows[i], 2, 2, 32, 32, 2, 512, TL_F32, TL_F32, {.scale = 0}, 0, 0, 0, rows[i]});
        check(&(kv_case){rows[i], 6, 2, 24, 24, 2, 512, TL_F32, TL_BF16, {.scale = 0}, 1, 1, 250, rows[i]});
        check(&(kv_case){rows[i], 4, 1, 16, 40, 3, 333, TL_BF16, TL_F16, {.window = 50, .softcap = 4}, 0, 0, 600, 7});
        check(&(kv_case){rows[i], 5, 1, 16, 16, 3, 400, TL_F32, TL_F32, {.window = 50}, 0, 0, 100, 31});
    }
    check(&(kv_case){3, 130, 1, 16, 16, 1, 300, TL_F32, TL_F32, {.scale = 0.5f}, 0, 0, 280, 3});
}

static void test_blocks(void **state) {
    (void)state;
    const int64_t at[] = {0, 17, 192, 257, 700, 1024, 2500};
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        check(&(kv_case){1, 4, 2, 64, 32, 2, 512, TL_F32, TL_Q8_0, {.scale = 0}, 0, 1, at[i], 1});
        check(&(kv_case){40, 4, 2, 32, 96, 2, 512, TL_F32, TL_Q8_0, {.window = 90}, 1, 0, at[i], 20});
        check(&(kv_case){3, 2, 1, 128, 128, 2, 300, TL_BF16, TL_Q8_0, {.softcap = 4}, 0, 0, at[i], 1});
    }
}

int main(void) {
    kernels[0] = (at_kernel){"avx2", attn_kv_prepare_avx2, attn_kv_run, attn_kv__avx2,
                             __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")};
    kernels[1] = (at_kernel){"avx512", attn_kv_prepare_avx512, attn_kv_run, attn_kv__avx512,
                             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq")};
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_decode), cmocka_unit_test(test_prefill),
                                       cmocka_unit_test(test_blocks)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
