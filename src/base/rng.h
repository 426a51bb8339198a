/* Philox4x32-10 (Salmon et al. 2011): counter-based, so a number depends only on its key and place, never on
 * threads, micro-batches or recomputation. Key: (seed, step, operator); counter: (row, element). */
#ifndef BASE_RNG_H
#define BASE_RNG_H

#include <stdint.h>

typedef struct rng_key {
    uint32_t k[2];
} rng_key;

/* Mixes the three into 64 bits of key (splitmix64 finalisers; distinct triples collide with 2^-64). */
rng_key rng_key_make(uint64_t seed, uint64_t step, uint64_t op);
/* Four uniform 32-bit numbers at counter (row, element). */
void rng_philox(rng_key key, uint64_t row, uint64_t element, uint32_t out[4]);
/* The element-th uniform 32-bit number of a row: word (element & 3) of counter (row, element >> 2). */
uint32_t rng_u32(rng_key key, uint64_t row, uint64_t element);
/* In [0,1) with 24 bits, and in (0,1] x (0,1] for Box-Muller. */
float rng_uniform(rng_key key, uint64_t row, uint64_t element);
float rng_normal(rng_key key, uint64_t row, uint64_t element);
/* A keyed bijection of [0,n): position -> element, O(1) state (balanced Feistel over Philox, cycle-walking). */
uint64_t rng_permute(rng_key key, uint64_t n, uint64_t i);

#endif
