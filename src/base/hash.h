/* XXH3 (64 bits) from Debian's libxxhash headers: checksums of shards and checkpoints. Not cryptographic. */
#ifndef BASE_HASH_H
#define BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t hash_bytes(const void *data, size_t n);
typedef struct hash_state hash_state;
struct tl_allocator;
hash_state *hash_begin(const struct tl_allocator *a); /* NULL: no memory */
void hash_add(hash_state *s, const void *data, size_t n);
uint64_t hash_end(const struct tl_allocator *a, hash_state *s); /* frees s */

#endif
