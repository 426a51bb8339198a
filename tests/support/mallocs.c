/* A test that asks test_malloc_calls gets this file, and with it a malloc that counts. */
#include "support/testing.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

#ifdef SANITIZED

long test_malloc_calls(void) {
    return -1;
}

#else

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

/* glibc's own names for the real ones */
void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);

static atomic_long calls;

long test_malloc_calls(void) {
    return atomic_load(&calls);
}

void *malloc(size_t n) {
    atomic_fetch_add(&calls, 1);
    return __libc_malloc(n);
}

void *calloc(size_t n, size_t size) {
    atomic_fetch_add(&calls, 1);
    return __libc_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    atomic_fetch_add(&calls, 1);
    return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n) {
    atomic_fetch_add(&calls, 1);
    return __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n) {
    atomic_fetch_add(&calls, 1);
    void *p = __libc_memalign(align, n);
    if (p) *out = p;
    return p ? 0 : ENOMEM;
}

#endif
