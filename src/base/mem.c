#include "base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { MEM_ALIGN = 64, MEM_PAGE = 2 << 20 /* a large page */ };

/* Columns of matrices lie on as many pages as they have rows, more than the processor keeps translations of; large
 * pages, where the system gives them only to those who ask. */
static void *mem_large(size_t size) {
    void *p; /* not aligned_alloc: sanitizers hold it to sizes that are whole multiples of the alignment */
    if (posix_memalign(&p, MEM_PAGE, size) != 0) return NULL;
#ifdef MADV_HUGEPAGE
    (void)madvise(p, size / MEM_PAGE * MEM_PAGE, MADV_HUGEPAGE); /* a wish; refused is as before */
#endif
    return p;
}

static void *mem_default_alloc(void *user, size_t size) {
    (void)user;
    size_t rounded;
    if (add_overflows(size, (size_t)(MEM_ALIGN - 1), &rounded)) return NULL;
    rounded &= ~(size_t)(MEM_ALIGN - 1);
    if (rounded >= 2 * (size_t)MEM_PAGE) return mem_large(rounded);
    return aligned_alloc(MEM_ALIGN, rounded ? rounded : MEM_ALIGN);
}

static void mem_default_free(void *user, void *ptr, size_t size) {
    (void)user, (void)size;
    free(ptr);
}

const tl_allocator mem_default = {mem_default_alloc, mem_default_free, NULL};

/* In front of every mem_new'd object; as long as the alignment, so that the object stays aligned. */
typedef union mem_header {
    size_t size; /* of the object, without this header */
    char pad[MEM_ALIGN];
} mem_header;

static mem_header *mem_header_of(void *p) {
    return (mem_header *)((char *)p - sizeof(mem_header));
}

void *mem_new(const tl_allocator *a, size_t n, size_t size) {
    size_t bytes, whole;
    if (mul_overflows(n, size, &bytes) || add_overflows(bytes, sizeof(mem_header), &whole)) return NULL;
    mem_header *h = a->alloc(a->user, whole);
    if (!h) return NULL;
    h->size = bytes;
    void *p = (char *)h + sizeof *h;
    memset(p, 0, bytes);
    return p;
}

void mem_free(const tl_allocator *a, void *p) {
    if (!p) return;
    mem_header *h = mem_header_of(p);
    a->free(a->user, h, h->size + sizeof *h);
}

void *mem_resize(const tl_allocator *a, void *p, size_t n, size_t size) {
    void *q = mem_new(a, n, size);
    if (!q || !p) return q;
    size_t old = mem_header_of(p)->size, now = mem_header_of(q)->size;
    memcpy(q, p, old < now ? old : now);
    mem_free(a, p);
    return q;
}

char *mem_strndup(const tl_allocator *a, const char *s, size_t n) {
    n = strnlen(s, n);
    char *copy = n < SIZE_MAX ? mem_new(a, n + 1, 1) : NULL;
    if (copy) memcpy(copy, s, n);
    return copy;
}

char *mem_strdup(const tl_allocator *a, const char *s) {
    return mem_strndup(a, s, SIZE_MAX - 1);
}

void *mem_take(const tl_allocator *a, size_t size) {
    return a->alloc(a->user, size);
}

void mem_give(const tl_allocator *a, void *p, size_t size) {
    if (p) a->free(a->user, p, size);
}

bool mem_reserve_(const tl_allocator *a, void **p, size_t *cap, size_t need, size_t size) {
    if (need <= *cap) return true;
    size_t grown = *cap < 8 ? 8 : *cap + *cap / 2;
    if (grown < need) grown = need;
    void *old;
    memcpy(&old, p, sizeof old); /* *p is some T *, and reading it as a void * would break the aliasing rules */
    void *q = mem_resize(a, old, grown, size);
    if (!q && grown > need) q = mem_resize(a, old, grown = need, size);
    if (!q) return false;
    memcpy(p, &q, sizeof q);
    *cap = grown;
    return true;
}
