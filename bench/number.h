/* bench: arguments of the benchmarks. */
#ifndef BENCH_NUMBER_H
#define BENCH_NUMBER_H

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

/* A whole number within [lo, hi], lo at least 0; -1: it is none. */
static inline int64_t bench_number(const char *s, int64_t lo, int64_t hi) {
    char *end;
    errno = 0;
    const long long n = strtoll(s, &end, 10);
    return errno || end == s || *end || n < lo || n > hi ? -1 : n;
}

#endif
