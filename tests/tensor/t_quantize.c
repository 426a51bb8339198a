/* Encoders against ggml's bytes, decoders against the element-wise reading of blocks. */
#include "support/testing.h"
#include "tensor/block.h"
#include "tensor/quantize.h"

#include <math.h>
#include <stdlib.h>

enum { N = 256 * 64, KINDS = 6 };

/* tools/vectors/quantize.py has the same */
static void numbers(int kind, float *out) {
    uint32_t s = (uint32_t)kind + 1;
    for (int i = 0; i < N; i++) {
        s = s * 1664525u + 1013904223u;
        double x = ((double)(s >> 8) - (1 << 23)) / (1 << 23);
        if (kind == 1) x = fabs(x);
        if (kind == 2 && (s >> 4) % 10 < 7) x = 0;
        if (kind == 3) x = floor(x * 16) / 4;
        if (kind == 4) x = ldexp(x, (i / 16 * 7) % 16 - 12);
        if (kind == 5) x = ldexp(x, -40);
        out[i] = (float)x;
    }
}

static uint64_t fnv(const uint8_t *p, size_t n) {
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* printed by tools/vectors/quantize.py over llama.cpp's library */
static const struct {
    tl_dtype dtype;
    uint64_t hash[KINDS];
} ggml[] = {{TL_Q8_0,
             {0x6e07daa6a8b31723, 0x3a7fb76ca67f9180, 0x37cd052a6e02d3bf, 0x78fd0e568a8f801e, 0xb119c0b24c66ca36,
              0x86aa06dae78619d0}},
            {TL_Q4_0,
             {0xc49b371c274eeb32, 0x036e329796710641, 0xc0902f701dfd61f3, 0x5cbf4cac8a2a4928, 0x4fe16cf19486ad63,
              0xb515cc55ed0dfc82}},
            {TL_Q4_K,
             {0x337ad8a55e916b62, 0x3500043a94a36c9a, 0x4fa2ca2c8f22a3fb, 0xb2d99839cd745edd, 0xacb4d8d3633d0e04,
              0xa6c14c04307d0a25}},
            {TL_Q6_K,
             {0x1ed9060f85b45eeb, 0x2055e056e6c0acf3, 0x563c46173067e6d0, 0x68d623d52b92de86, 0x555bcc6e6e1dd42e,
              0x32cbf980f7960c54}}};
enum { TYPES = sizeof ggml / sizeof *ggml };

static void bytes_are_ggmls(void **state) {
    (void)state;
    float *x = malloc(N * sizeof *x), *y = malloc(N * sizeof *y);
    uint8_t *b = malloc(N * 2);
    for (int t = 0; t < TYPES; t++)
        for (int kind = 0; kind < KINDS; kind++) {
            size_t bytes = (size_t)(N / tl_dtype_block(ggml[t].dtype)) * tl_dtype_bytes(ggml[t].dtype);
            numbers(kind, x);
            quantize_encode(ggml[t].dtype, x, N, b);
            if (fnv(b, bytes) != ggml[t].hash[kind])
                fail_msg("%s, numbers of kind %d: other bytes", tl_dtype_name(ggml[t].dtype), kind);
            quantize_decode(ggml[t].dtype, b, N, y);
            double off = 0, all = 0;
            for (int i = 0; i < N; i++) {
                assert_true(y[i] == block_get(ggml[t].dtype, b, i));
                off += ((double)x[i] - (double)y[i]) * ((double)x[i] - (double)y[i]);
                all += (double)x[i] * (double)x[i];
            }
            if (kind != 5) assert_true(sqrt(off / all) < (t == 0 ? 0.01 : t == 3 ? 0.03 : 0.12));
        }
    free(x);
    free(y);
    free(b);
}

static void odd_numbers_stay_in_range(void **state) {
    (void)state;
    float x[256], y[256];
    uint8_t b[256 * 4];
    static const float odd[] = {0, -0.0f, 1e-45f, -1e-40f, 3e38f, -3e38f, 1, -1};
    for (int t = 0; t < TYPES; t++)
        for (int k = 0; k < 8; k++) {
            for (int i = 0; i < 256; i++) x[i] = k < 7 ? odd[k] : odd[i % 4];
            quantize_encode(ggml[t].dtype, x, 256, b);
            quantize_decode(ggml[t].dtype, b, 256, y);
            if (k < 4 || k == 7)
                for (int i = 0; i < 256; i++) assert_true(fabsf(y[i]) < 1e-37f);
        }
}

static void floats_go_through_unchanged_or_rounded(void **state) {
    (void)state;
    const float x[3] = {1, -2.5f, 65504};
    float y[3];
    uint8_t b[12];
    static const tl_dtype types[] = {TL_F32, TL_F16, TL_BF16};
    for (int t = 0; t < 3; t++) {
        assert_true(quantize_can(types[t]));
        quantize_encode(types[t], x, 3, b);
        quantize_decode(types[t], b, 3, y);
        assert_true(y[0] == 1 && y[1] == -2.5f);
        assert_near(y[2], 65504, t == 2 ? 65536 - 65504 : 0);
    }
    assert_false(quantize_can(TL_I8));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bytes_are_ggmls), cmocka_unit_test(odd_numbers_stay_in_range),
                                       cmocka_unit_test(floats_go_through_unchanged_or_rounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
