/* What every test may use: cmocka, an allocator that fails on order and counts, temporary folders, the test data.
 * Needs only libc and the public status functions, so that tests of the public library can use it too. */
#ifndef SUPPORT_TESTING_H
#define SUPPORT_TESTING_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tilia/base.h"

/* An allocator under observation. Memory comes filled with 0xa5, exactly 64-aligned, with guard bytes behind it;
 * free checks the guard and the size, and fills the block with 0x5a. Use &t.base. Any thread may call it. */
typedef struct test_alloc {
    tl_allocator base;
    long fail_at; /* the call to fail, counted from 1; 0: none */
    bool sticky;  /* fail every call from fail_at on */
    long calls, live;
    size_t live_bytes, peak_bytes;
    size_t limit; /* refuse what would exceed so many live bytes; 0: no limit */
} test_alloc;
void test_alloc_init(test_alloc *t);
/* Fails the test if anything is still allocated. */
void test_alloc_done(const test_alloc *t);

/* Runs fn with the 1st, 2nd, ... allocation failing (once; then also from there on), until a run needs no more. Each
 * run must answer NOMEM, or TL_OK if it coped, and leave nothing allocated. Returns the number of allocations of a
 * whole run, which must be TL_OK. */
typedef tl_status (*test_alloc_fn)(const tl_allocator *a, void *user);
long test_alloc_sweep(test_alloc_fn fn, void *user);

/* malloc, calloc, realloc, aligned_alloc and posix_memalign calls of the whole process so far; -1 under a sanitizer,
 * which brings its own. Linking it replaces malloc in that test alone. */
long test_malloc_calls(void);

/* A fresh folder; buf gets its path. Removed with all it holds by test_tempdir_remove. */
void test_tempdir(char *buf, size_t size);
void test_tempdir_remove(const char *path);

/* Path of a file of the test data ($TILIA_DATA, or ../shared/data beside the sources), or NULL if it is absent. */
const char *test_data(const char *name, char *buf, size_t size);
/* Declares `var`, the path; skips the test with a line if it is absent. */
#define TEST_DATA_OR_SKIP(var, name)                                                                                   \
    char var##_buf_[1024];                                                                                             \
    const char *var = test_data(name, var##_buf_, sizeof var##_buf_);                                                  \
    if (!var) {                                                                                                        \
        print_message("          needs %s in TILIA_DATA: skipped\n", name);                                            \
        skip();                                                                                                        \
    }

/* Whole file in malloc'ed memory with a zero byte behind; NULL if it cannot be read. */
char *test_slurp(const char *path, size_t *size);

/* The status must be TL_OK; prints the error, place and all, if not. */
#define assert_ok(status, error) test_assert_ok((status), (error), #status, __FILE__, __LINE__)
void test_assert_ok(tl_status s, const tl_error *e, const char *expr, const char *file, int line);
/* The status must be `code`, and the error, if given, must carry it and have a text. */
#define assert_fails(code, status, error) test_assert_fails((code), (status), (error), #status, __FILE__, __LINE__)
void test_assert_fails(tl_status code, tl_status s, const tl_error *e, const char *expr, const char *file, int line);
/* |a - b| <= tolerance; false for NaN. */
#define assert_near(a, b, tolerance)                                                                                   \
    test_assert_near((double)(a), (double)(b), (double)(tolerance), #a, #b, __FILE__, __LINE__)
void test_assert_near(double a, double b, double tolerance, const char *ta, const char *tb, const char *file, int line);

#endif
