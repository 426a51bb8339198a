#include "base/hash.h"

#include "base/mem.h"

#define XXH_INLINE_ALL
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wshadow"
#endif
#include <xxhash.h>
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif

struct hash_state {
    XXH3_state_t state;
};

uint64_t hash_bytes(const void *data, size_t n) {
    return XXH3_64bits(data, n);
}

hash_state *hash_begin(const struct tl_allocator *a) {
    hash_state *s = mem_new(a, 1, sizeof *s); /* aligned to 64, as the state asks */
    if (s) XXH3_64bits_reset(&s->state);
    return s;
}

void hash_add(hash_state *s, const void *data, size_t n) {
    XXH3_64bits_update(&s->state, data, n);
}

uint64_t hash_end(const struct tl_allocator *a, hash_state *s) {
    uint64_t h = XXH3_64bits_digest(&s->state);
    mem_free(a, s);
    return h;
}
