#include "base/rng.h"

#include <math.h>
#include <stddef.h>

/* The finaliser of splitmix64 (Steele et al. 2014): a bijection of 64 bits in which every bit stirs every other. */
static uint64_t rng_mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

rng_key rng_key_make(uint64_t seed, uint64_t step, uint64_t op) {
    uint64_t z = rng_mix(seed + 0x9e3779b97f4a7c15u);
    z = rng_mix(z ^ (step + 0x9e3779b97f4a7c15u));
    z = rng_mix(z ^ (op + 0xd1b54a32d192ed03u));
    return (rng_key){{(uint32_t)z, (uint32_t)(z >> 32)}};
}

void rng_philox(rng_key key, uint64_t row, uint64_t element, uint32_t out[4]) {
    uint32_t c0 = (uint32_t)element, c1 = (uint32_t)(element >> 32), c2 = (uint32_t)row, c3 = (uint32_t)(row >> 32);
    uint32_t k0 = key.k[0], k1 = key.k[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xd2511f53u * c0, p1 = (uint64_t)0xcd9e8d57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c0 = n0, c1 = (uint32_t)p1, c2 = n2, c3 = (uint32_t)p0;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

uint32_t rng_u32(rng_key key, uint64_t row, uint64_t element) {
    uint32_t w[4];
    rng_philox(key, row, element >> 2, w);
    return w[element & 3];
}

float rng_uniform(rng_key key, uint64_t row, uint64_t element) {
    return (float)(rng_u32(key, row, element) >> 8) * 0x1p-24f;
}

/* Box-Muller, both outputs of a pair of words used: elements 2k and 2k+1 share words (2k, 2k+1) of their counter. */
float rng_normal(rng_key key, uint64_t row, uint64_t element) {
    uint32_t w[4];
    rng_philox(key, row, element >> 2, w);
    size_t pair = element & 2;
    double u = ((double)(w[pair] >> 8) + 1.0) * 0x1p-24, v = ((double)(w[pair + 1] >> 8) + 1.0) * 0x1p-24;
    double radius = sqrt(-2.0 * log(u)), angle = 6.283185307179586 * v;
    return (float)(radius * (element & 1 ? sin(angle) : cos(angle)));
}

/* A balanced Feistel network of 2*half bits, the smallest even width that covers n, walked along its cycle until it
 * lands below n: at most 4 steps on average. */
uint64_t rng_permute(rng_key key, uint64_t n, uint64_t i) {
    if (n <= 1) return 0;
    unsigned half = 1;
    while (half < 32 && (n - 1) >> (2 * half)) half++;
    uint64_t mask = ((uint64_t)1 << half) - 1;
    do {
        uint64_t left = i >> half, right = i & mask;
        for (uint64_t round = 0; round < 6; round++) {
            uint32_t w[4];
            rng_philox(key, round | 0x7065726d00000000u, right, w);
            uint64_t next = (left ^ w[0]) & mask;
            left = right;
            right = next;
        }
        i = left << half | right;
    } while (i >= n);
    return i;
}
