/* An arena: many small objects that die together. Blocks come from the allocator; pointers stay valid until
 * arena_fini. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/mem.h"

typedef struct arena_block arena_block;
typedef struct arena {
    const tl_allocator *alloc;
    arena_block *head;
    size_t used, total; /* bytes handed out, bytes taken from the allocator */
} arena;

void arena_init(arena *a, const tl_allocator *alloc);
void arena_fini(arena *a);
/* n * size zeroed bytes, aligned to 16; NULL when out of memory. */
void *arena_new(arena *a, size_t n, size_t size);
char *arena_strdup(arena *a, const char *s);
char *arena_strndup(arena *a, const char *s, size_t n);
char *arena_printf(arena *a, const char *fmt, ...) TL_PRINTF(2, 3);

#endif
