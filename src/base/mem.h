/* Memory through the replaceable allocator. All sizes are checked for overflow; NULL means no memory. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include "base/error.h"

/* The default allocator: aligned_alloc(64), free. */
extern const tl_allocator mem_default;

/* Small objects: the size is remembered in a 64-byte header in front, so free needs only the pointer.
 * mem_new returns n * size zeroed bytes, aligned to 64. n * size == 0 gives a valid pointer. */
void *mem_new(const tl_allocator *a, size_t n, size_t size);
void mem_free(const tl_allocator *a, void *p); /* p may be NULL */
/* Grows or shrinks; keeps the first bytes, the new rest is zero; on failure p is untouched and NULL returned. */
void *mem_resize(const tl_allocator *a, void *p, size_t n, size_t size);
char *mem_strdup(const tl_allocator *a, const char *s);
char *mem_strndup(const tl_allocator *a, const char *s, size_t n);

/* Big buffers without header: exactly `size` bytes are asked for; not zeroed. The caller keeps the size. */
void *mem_take(const tl_allocator *a, size_t size);
void mem_give(const tl_allocator *a, void *p, size_t size);

/* true if the sum or product does not fit */
#define add_overflows(a, b, out) __builtin_add_overflow((a), (b), (out))
#define mul_overflows(a, b, out) __builtin_mul_overflow((a), (b), (out))

/* Amortised growth of a typed array: ensures room for need elements. false = no memory (array untouched). */
bool mem_reserve_(const tl_allocator *a, void **p, size_t *cap, size_t need, size_t size);
#define mem_reserve(a, p, cap, need) mem_reserve_((a), (void **)(p), (cap), (need), sizeof **(p))

#endif
