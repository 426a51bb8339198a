/* Half floats, number types, random numbers, hashes. */
#include "base/half.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "support/testing.h"

#include <math.h>
#include <stdlib.h>

static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, sizeof f);
    return f;
}

/* ---- half floats ----------------------------------------------------------------------------- */

/* The value of an f16 by its definition, in double. */
static double f16_value(uint16_t h) {
    int exponent = (h >> 10) & 31, fraction = h & 1023;
    double m = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return h & 0x8000 ? -m : m;
}

static void f16_round_trip_is_exact(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = half_f16_to_f32((uint16_t)h);
        if (((h >> 10) & 31) == 31) {
            if (h & 1023) {
                assert_true(isnan(f));
                uint16_t back = half_f32_to_f16(f);
                assert_int_equal(back, h | 0x200); /* quiet, with its payload and sign */
                continue;
            }
            assert_true(isinf(f));
        } else {
            assert_true((double)f == f16_value((uint16_t)h));
            assert_int_equal(signbit(f) != 0, h >> 15);
        }
        assert_int_equal(half_f32_to_f16(f), h);
    }
}

/* Rounding against the definition: the nearer of two neighbours, the even one at equal distance. */
static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x7c00; h++) {
        double low = f16_value((uint16_t)h), high = h + 1 < 0x7c00 ? f16_value((uint16_t)(h + 1)) : 65536.0;
        float middle = (float)((low + high) / 2); /* exact: 12 bits */
        assert_int_equal(half_f32_to_f16(middle), h & 1 ? h + 1 : h);
        assert_int_equal(half_f32_to_f16(nextafterf(middle, -1)), h);
        assert_int_equal(half_f32_to_f16(nextafterf(middle, 1e9f)), h + 1);
        assert_int_equal(half_f32_to_f16(-middle), 0x8000 | (h & 1 ? h + 1 : h));
    }
    assert_int_equal(half_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(half_f32_to_f16(65520.0f), 0x7c00);
    assert_int_equal(half_f32_to_f16(1e30f), 0x7c00);
    assert_int_equal(half_f32_to_f16(from_bits(1)), 0); /* the smallest f32 */
    assert_int_equal(half_f32_to_f16(from_bits(0x80000001u)), 0x8000);
    assert_int_equal(half_f32_to_f16(from_bits(0x7f800001u)), 0x7e00); /* a NaN whose payload is below f16's */
}

static void bf16_round_trip_and_rounding(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        float f = half_bf16_to_f32((uint16_t)h);
        assert_int_equal(bits(f), h << 16);
        uint16_t back = half_f32_to_bf16(f);
        assert_int_equal(back, isnan(f) ? h | 0x40 : h);
        if ((h & 0x7fff) >= 0x7f80) continue;
        uint32_t u = h << 16; /* the halfway case and its neighbours */
        assert_int_equal(half_f32_to_bf16(from_bits(u | 0x7fff)), h);
        assert_int_equal(half_f32_to_bf16(from_bits(u | 0x8000)), h & 1 ? h + 1 : h);
        assert_int_equal(half_f32_to_bf16(from_bits(u | 0x8001)), h + 1);
    }
    assert_true(isnan(half_bf16_to_f32(half_f32_to_bf16(from_bits(0x7f800001u)))));
    assert_true(isnan(half_bf16_to_f32(half_f32_to_bf16(from_bits(0xffffffffu)))));
}

/* ---- number types ---------------------------------------------------------------------------- */

static void dtypes_have_names_and_sizes(void **state) {
    (void)state;
    for (int t = TL_NONE + 1; t < TL_DTYPE_COUNT; t++) {
        const char *name = tl_dtype_name((tl_dtype)t);
        assert_true(name && strcmp(name, "?"));
        assert_int_equal(tl_dtype_parse(name), t);
        assert_true(tl_dtype_block((tl_dtype)t) >= 1 && tl_dtype_bytes((tl_dtype)t) >= 1);
    }
    assert_int_equal(tl_dtype_parse("f17"), TL_NONE);
    assert_int_equal(tl_dtype_parse(NULL), TL_NONE);
    assert_int_equal(tl_dtype_parse("none"), TL_NONE);
    assert_string_equal(tl_dtype_name((tl_dtype)99), "?");
    assert_string_equal(tl_dtype_name((tl_dtype)-1), "?");
    assert_string_equal(tl_dtype_name(TL_BF16), "bf16");
    static const struct {
        tl_dtype t;
        int64_t block;
        size_t bytes;
    } rows[] = {{TL_F32, 1, 4},    {TL_F64, 1, 8},    {TL_F16, 1, 2},      {TL_I64, 1, 8},     {TL_BOOL, 1, 1},
                {TL_Q8_0, 32, 34}, {TL_Q4_0, 32, 18}, {TL_Q4_K, 256, 144}, {TL_Q6_K, 256, 210}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        assert_int_equal(tl_dtype_block(rows[i].t), rows[i].block);
        assert_int_equal(tl_dtype_bytes(rows[i].t), rows[i].bytes);
    }
}

/* ---- random numbers -------------------------------------------------------------------------- */

/* The known answers published with the generator (Random123, kat_vectors, philox4x32 10 rounds). */
static void philox_known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } rows[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < 3; i++) {
        const uint32_t *c = rows[i].counter;
        uint32_t out[4];
        rng_philox((rng_key){{rows[i].key[0], rows[i].key[1]}}, (uint64_t)c[3] << 32 | c[2],
                   (uint64_t)c[1] << 32 | c[0], out);
        assert_memory_equal(out, rows[i].out, sizeof out);
    }
}

static void words_are_addressed_singly(void **state) {
    (void)state;
    rng_key k = rng_key_make(1, 2, 3);
    for (uint64_t e = 0; e < 64; e++) {
        uint32_t w[4];
        rng_philox(k, 9, e / 4, w);
        assert_int_equal(rng_u32(k, 9, e), w[e % 4]);
    }
}

static int compare_u64(const void *a, const void *b) {
    uint64_t x, y;
    memcpy(&x, a, 8), memcpy(&y, b, 8);
    return x < y ? -1 : x > y;
}

static void keys_of_neighbours_differ(void **state) {
    (void)state;
    enum { N = 16 };
    static uint64_t keys[N * N * N];
    size_t n = 0;
    for (uint64_t seed = 0; seed < N; seed++)
        for (uint64_t step = 0; step < N; step++)
            for (uint64_t op = 0; op < N; op++) {
                rng_key k = rng_key_make(seed, step, op);
                keys[n++] = (uint64_t)k.k[1] << 32 | k.k[0];
            }
    qsort(keys, n, sizeof keys[0], compare_u64);
    for (size_t i = 1; i < n; i++) assert_true(keys[i] != keys[i - 1]);
}

static void distributions_have_their_moments(void **state) {
    (void)state;
    rng_key k = rng_key_make(42, 0, 0);
    enum { N = 200000 };
    double sum = 0, square = 0, nsum = 0, nsquare = 0, nfourth = 0, pair = 0;
    int inside = 0;
    float previous = 0;
    for (uint64_t i = 0; i < N; i++) {
        float u = rng_uniform(k, i % 7, i), z = rng_normal(k, i % 7, i);
        assert_true(u >= 0 && u < 1 && isfinite(z));
        sum += (double)u, square += (double)u * (double)u;
        nsum += (double)z, nsquare += (double)z * (double)z, nfourth += pow((double)z, 4);
        pair += (double)z * (double)previous;
        inside += fabsf(z) < 1;
        previous = z;
    }
    /* five standard errors of each estimate */
    assert_near(sum / N, 0.5, 5 * 0.2887 / sqrt(N));
    assert_near(square / N, 1.0 / 3, 5 * 0.2981 / sqrt(N));
    assert_near(nsum / N, 0, 5 / sqrt(N));
    assert_near(nsquare / N, 1, 5 * 1.4142 / sqrt(N));
    assert_near(nfourth / N, 3, 5 * 9.798 / sqrt(N));
    assert_near(pair / N, 0, 5 / sqrt(N));
    assert_near((double)inside / N, 0.682689, 5 * 0.4654 / sqrt(N));
}

static void permutation_is_a_bijection(void **state) {
    (void)state;
    static const uint64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 1000, 65536, 65537, 100003};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        uint64_t n = sizes[s], fixed = 0;
        char *seen = calloc(n, 1);
        for (uint64_t i = 0; i < n; i++) {
            uint64_t p = rng_permute(rng_key_make(7, s, 0), n, i);
            assert_true(p < n);
            assert_int_equal(seen[p]++, 0);
            fixed += p == i;
        }
        if (n > 200) assert_true(fixed < 12); /* one is expected, twelve have odds of 1e-9 */
        free(seen);
    }
    assert_int_equal(rng_permute(rng_key_make(1, 1, 1), 0, 0), 0);
    uint64_t huge = rng_permute(rng_key_make(1, 1, 1), UINT64_MAX, UINT64_MAX - 1);
    assert_true(huge < UINT64_MAX);
}

/* Every order of 4 elements must turn up about equally often over the keys. */
static void permutations_are_even(void **state) {
    (void)state;
    int count[256] = {0};
    enum { N = 24000 };
    for (uint64_t seed = 0; seed < N; seed++) {
        rng_key k = rng_key_make(seed, 0, 0);
        unsigned code = 0;
        for (uint64_t i = 0; i < 4; i++) code = code * 4 + (unsigned)rng_permute(k, 4, i);
        count[code]++;
    }
    double chi = 0;
    int orders = 0;
    for (int i = 0; i < 256; i++) {
        if (!count[i]) continue;
        orders++;
        chi += (count[i] - 1000.0) * (count[i] - 1000.0) / 1000.0;
    }
    assert_int_equal(orders, 24);
    /* 23 degrees of freedom if the orders were equally likely; a network over so few bits is not perfect */
    assert_true(chi < 23 * 20);
}

/* ---- hashes ---------------------------------------------------------------------------------- */

static tl_status hash_in_parts(const tl_allocator *a, void *user) {
    (void)user;
    unsigned char data[5000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 31 % 251);
    hash_state *s = hash_begin(a);
    if (!s) return TL_NOMEM;
    for (size_t at = 0, n = 1; at < sizeof data; at += n, n = n * 2 + 1) {
        if (n > sizeof data - at) n = sizeof data - at;
        hash_add(s, data + at, n);
    }
    assert_true(hash_end(a, s) == hash_bytes(data, sizeof data));
    data[4999] ^= 1;
    hash_state *again = hash_begin(a);
    if (!again) return TL_NOMEM;
    hash_add(again, data, 4999);
    data[4999] ^= 1;
    hash_add(again, data + 4999, 1);
    assert_true(hash_end(a, again) == hash_bytes(data, sizeof data));
    return TL_OK;
}

static void hash_is_xxh3(void **state) {
    (void)state;
    assert_true(hash_bytes("", 0) == 0x2d06800538d394c2u); /* the published value for no bytes */
    assert_true(hash_bytes("a", 1) != hash_bytes("b", 1));
    assert_int_equal(test_alloc_sweep(hash_in_parts, NULL), 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(f16_round_trip_is_exact),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_round_trip_and_rounding),
        cmocka_unit_test(dtypes_have_names_and_sizes),
        cmocka_unit_test(philox_known_answers),
        cmocka_unit_test(words_are_addressed_singly),
        cmocka_unit_test(keys_of_neighbours_differ),
        cmocka_unit_test(distributions_have_their_moments),
        cmocka_unit_test(permutation_is_a_bijection),
        cmocka_unit_test(permutations_are_even),
        cmocka_unit_test(hash_is_xxh3),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
