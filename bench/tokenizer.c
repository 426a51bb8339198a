/* Speed of encoding, for bench/tokenizer_peers.py and by hand:
 *     tokenizer TOKENIZER FILE [THREADS [REPEATS]]
 * prints one JSON line a repeat: bytes, ids, wall-clock and CPU seconds. Reading files and tokenizers is not timed. */
#include "tokenizer/tokenizer.h"
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int fail(const tl_error *e) {
    char text[1024];
    fprintf(stderr, "%s\n", tl_error_text(e, text, sizeof text));
    return 1;
}

/* As a program would that writes shards: a window of text in, its ids out, the same memory again. */
static tl_status once(token_encoder *x, const char *text, size_t n, size_t window, token_list *ids, size_t *count,
                      tl_error *e) {
    *count = 0;
    for (size_t at = 0; at < n; at += window) {
        ids->n = 0;
        TRY(token_encoder_push(x, text + at, n - at < window ? n - at : window, ids, e));
        *count += ids->n;
    }
    ids->n = 0;
    TRY(token_encoder_finish(x, ids, e));
    *count += ids->n;
    return TL_OK;
}

int main(int argc, char **argv) {
    tl_error e;
    tokenizer *t;
    token_encoder *x;
    file_map m;
    if (argc < 3) {
        fprintf(stderr, "usage: %s TOKENIZER FILE [THREADS [REPEATS]]\n", argv[0]);
        return 2;
    }
    size_t threads = argc > 3 ? strtoul(argv[3], NULL, 10) : 1, repeats = argc > 4 ? strtoul(argv[4], NULL, 10) : 3;
    if (tokenizer_open(&mem_default, argv[1], &t, &e) || file_map_open(argv[2], &m, &e) ||
        token_encoder_open(t, 0, threads, &x, &e))
        return fail(&e);
    volatile uint8_t sum = 0; /* the file in memory before the clock runs */
    for (size_t i = 0; i < m.size; i += 4096) sum = (uint8_t)(sum + m.data[i]);
    token_list ids;
    token_list_init(&ids, &mem_default);
    for (size_t i = 0; i < repeats; i++) {
        size_t count;
        double wall = seconds(CLOCK_MONOTONIC), cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
        if (once(x, (const char *)m.data, m.size, threads << 20, &ids, &count, &e)) return fail(&e);
        cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu;
        wall = seconds(CLOCK_MONOTONIC) - wall;
        printf("{\"bytes\": %zu, \"ids\": %zu, \"seconds\": %.6f, \"cpu_seconds\": %.6f}\n", m.size, count, wall, cpu);
    }
    token_list_fini(&ids);
    token_encoder_close(x);
    file_map_close(&m);
    tokenizer_close(t);
    return 0;
}
