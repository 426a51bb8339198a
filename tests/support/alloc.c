#include "support/testing.h"

#include <pthread.h>
#include <stdlib.h>

enum { ALIGN = 64, GUARD = 64 };
static const uint64_t alive = 0x616c6c6f63617465u, dead = 0x6672656564667265u;

typedef union test_head {
    struct {
        uint64_t magic;
        size_t size;
        void *raw;
    } s;
    char pad[ALIGN];
} test_head;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static bool refuse(test_alloc *t, size_t size) {
    t->calls++;
    if (t->fail_at && (t->sticky ? t->calls >= t->fail_at : t->calls == t->fail_at)) return true;
    return t->limit && t->live_bytes + size > t->limit;
}

static void *test_alloc_take(void *user, size_t size) {
    test_alloc *t = user;
    pthread_mutex_lock(&lock);
    bool no = refuse(t, size);
    if (!no) {
        t->live++;
        t->live_bytes += size;
        if (t->live_bytes > t->peak_bytes) t->peak_bytes = t->live_bytes;
    }
    pthread_mutex_unlock(&lock);
    if (no) return NULL;
    /* An odd multiple of 64: whoever counts on more alignment than was promised, fails here. */
    size_t whole = (size + sizeof(test_head) + GUARD + 3 * ALIGN) & ~(size_t)(2 * ALIGN - 1);
    char *raw = size < SIZE_MAX / 2 ? aligned_alloc(2 * ALIGN, whole) : NULL;
    if (!raw) {
        pthread_mutex_lock(&lock);
        t->live--;
        t->live_bytes -= size;
        pthread_mutex_unlock(&lock);
        return NULL;
    }
    test_head *h = (test_head *)raw;
    h->s.magic = alive;
    h->s.size = size;
    h->s.raw = raw;
    char *p = raw + sizeof *h;
    memset(p, 0xa5, size + GUARD);
    return p;
}

static void test_alloc_give(void *user, void *ptr, size_t size) {
    test_alloc *t = user;
    test_head *h = (test_head *)((char *)ptr - sizeof(test_head));
    if (h->s.magic != alive) fail_msg("%s", h->s.magic == dead ? "freed twice" : "freed what was never allocated");
    if (h->s.size != size) fail_msg("freed with %zu bytes, allocated with %zu", size, h->s.size);
    for (size_t i = 0; i < GUARD; i++)
        if (((unsigned char *)ptr)[size + i] != 0xa5) fail_msg("written %zu bytes behind a block of %zu", i, size);
    memset(ptr, 0x5a, size);
    h->s.magic = dead;
    pthread_mutex_lock(&lock);
    t->live--;
    t->live_bytes -= size;
    pthread_mutex_unlock(&lock);
    free(h->s.raw);
}

void test_alloc_init(test_alloc *t) {
    *t = (test_alloc){.base = {test_alloc_take, test_alloc_give, t}};
}

void test_alloc_done(const test_alloc *t) {
    if (t->live) fail_msg("%ld blocks with %zu bytes were never freed", t->live, t->live_bytes);
    assert_int_equal(t->live_bytes, 0);
}

long test_alloc_sweep(test_alloc_fn fn, void *user) {
    long calls = 0;
    for (int sticky = 0; sticky < 2; sticky++) {
        for (long n = 1;; n++) {
            test_alloc t;
            test_alloc_init(&t);
            t.fail_at = n;
            t.sticky = sticky != 0;
            tl_status s = fn(&t.base, user);
            if (t.live) fail_msg("allocation %ld failed, and %ld blocks were never freed", n, t.live);
            if (t.calls < n) { /* nothing failed in this run */
                if (s) fail_msg("failed without cause: %s", tl_status_text(s));
                calls = t.calls;
                break;
            }
            if (s != TL_OK && s != TL_NOMEM) fail_msg("allocation %ld failed, answer: %s", n, tl_status_text(s));
            if (n > 1000000) fail_msg("more than a million allocations");
        }
    }
    return calls;
}
