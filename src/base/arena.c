#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { ARENA_FIRST = 4096, ARENA_MAX = 1 << 20 };

struct arena_block {
    arena_block *next;
    size_t size, used; /* of the bytes behind the header */
};

#define ARENA_HEADER ((sizeof(arena_block) + 15) & ~(size_t)15)

void arena_init(arena *a, const tl_allocator *alloc) {
    *a = (arena){.alloc = alloc};
}

void arena_fini(arena *a) {
    for (arena_block *b = a->head, *next; b; b = next) {
        next = b->next;
        mem_give(a->alloc, b, ARENA_HEADER + b->size);
    }
    *a = (arena){.alloc = a->alloc};
}

/* A block with room for need bytes becomes the head, doubling up to 1 MiB; what is larger gets its own block, put
 * behind the head so that the head's rest stays in use. */
static arena_block *arena_grow(arena *a, size_t need) {
    size_t size = a->head ? 2 * a->head->size : ARENA_FIRST, whole;
    if (size > ARENA_MAX) size = ARENA_MAX;
    bool alone = need > size / 2;
    if (alone) size = need;
    if (add_overflows(size, ARENA_HEADER, &whole)) return NULL;
    arena_block *b = mem_take(a->alloc, whole);
    if (!b) return NULL;
    *b = (arena_block){.size = size};
    a->total += whole;
    if (alone && a->head) {
        b->next = a->head->next;
        a->head->next = b;
    } else {
        b->next = a->head;
        a->head = b;
    }
    return b;
}

void *arena_new(arena *a, size_t n, size_t size) {
    size_t bytes, rounded;
    if (mul_overflows(n, size, &bytes) || add_overflows(bytes, (size_t)15, &rounded)) return NULL;
    rounded &= ~(size_t)15;
    if (rounded == 0) rounded = 16; /* distinct objects have distinct addresses */
    arena_block *b = a->head;
    if (!b || b->size - b->used < rounded) b = arena_grow(a, rounded);
    if (!b) return NULL;
    void *p = (char *)b + ARENA_HEADER + b->used;
    b->used += rounded;
    a->used += bytes;
    memset(p, 0, bytes);
    return p;
}

char *arena_strndup(arena *a, const char *s, size_t n) {
    n = strnlen(s, n);
    char *copy = n < SIZE_MAX ? arena_new(a, n + 1, 1) : NULL;
    if (copy) memcpy(copy, s, n);
    return copy;
}

char *arena_strdup(arena *a, const char *s) {
    return arena_strndup(a, s, SIZE_MAX - 1);
}

char *arena_printf(arena *a, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    char *s = n < 0 ? NULL : arena_new(a, (size_t)n + 1, 1);
    if (s) vsnprintf(s, (size_t)n + 1, fmt, again);
    va_end(again);
    va_end(args);
    return s;
}
