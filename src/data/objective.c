#include "data/objective.h"

#include "base/rng.h"
#include "data/loader.h"

const char *const objective_names[] = {"causal", "mlm", "prefix", "seq2seq", 0};

static const float hidden = 0.15f, masked = 0.8f, replaced = 0.9f;

static int32_t other_token(const objective_rule *o, uint32_t r) {
    const uint32_t n = (uint32_t)(o->mask >= 0 && o->mask < o->vocab ? o->vocab - 1 : o->vocab);
    const int32_t id = (int32_t)(((uint64_t)r * n) >> 32);
    return o->mask >= 0 && id >= o->mask ? id + 1 : id;
}

/* Four random numbers a place: is it hidden, what is shown, which token instead. */
static void mask_row(const objective_rule *o, struct loader_batch *b, int64_t at, int64_t T, rng_key key,
                     uint64_t row) {
    for (int64_t i = 0; i < T; i++) {
        const int32_t id = b->target[at + i];
        if (id < 0) continue; /* padding */
        uint32_t r[4];
        rng_philox(key, row, (uint64_t)i, r);
        const float pick = (float)(r[0] >> 8) * 0x1p-24f, show = (float)(r[1] >> 8) * 0x1p-24f;
        b->input[at + i] = id;
        if (id == o->keep || pick >= hidden) {
            b->target[at + i] = -1;
            continue;
        }
        if (show < replaced) b->input[at + i] = show < masked ? o->mask : other_token(o, r[2]);
        b->labels++;
    }
}

/* Tokens of a prompt: those before the first answer, or a random part of a text. */
static int64_t prompt_of(const objective_rule *o, const struct loader_batch *b, int64_t first, int64_t n, rng_key key,
                         uint64_t row, uint64_t place) {
    if (!o->examples) {
        uint32_t r[4];
        rng_philox(key, row, place, r);
        return 1 + (int64_t)(((uint64_t)r[0] * (uint64_t)n) >> 32);
    }
    int64_t p = 0;
    while (p < n && b->target[first + p] < 0) p++;
    return p < n ? p + 1 : n;
}

static void split_row(const objective_rule *o, struct loader_batch *b, int64_t at, int64_t T, rng_key key,
                      uint64_t row) {
    for (int64_t first = 0, end; first < T; first = end) {
        for (end = first + 1; end < T && b->doc_start[at + end] == b->doc_start[at + first];) end++;
        const int64_t p = prompt_of(o, b, at + first, end - first, key, row, (uint64_t)first);
        for (int64_t i = first; i < end; i++) {
            int32_t *span = b->span + 2 * (at + i);
            span[0] = (int32_t)first;
            span[1] = (int32_t)(i < first + p ? first + p : i + 1);
            if (i + 1 < first + p) b->target[at + i] = -1; /* the prompt sees it */
            b->labels += b->target[at + i] >= 0;
        }
    }
}

int64_t objective_numbers(int kind, int64_t rows, int64_t T, int64_t S) {
    const bool pairs = kind == OBJECTIVE_SEQ2SEQ;
    return rows * ((pairs || kind == OBJECTIVE_PREFIX ? 6 : 4) * T + (pairs ? 3 * S : 0));
}

void objective_lay(int kind, int64_t rows, int64_t T, int64_t S, int32_t *block, struct loader_batch *b) {
    const int64_t n = rows * T, m = rows * S;
    const bool pairs = kind == OBJECTIVE_SEQ2SEQ;
    *b = (struct loader_batch){.input = block, .target = block + n, .pos = block + 2 * n, .doc_start = block + 3 * n};
    if (pairs || kind == OBJECTIVE_PREFIX) b->span = block + 4 * n;
    if (!pairs) return;
    b->source = block + 6 * n;
    b->source_pos = b->source + m;
    b->source_doc = b->source_pos + m;
}

void objective_causal_span(const int32_t *doc_start, int64_t rows, int64_t T, int32_t *span) {
    for (int64_t i = 0; i < rows * T; i++) {
        span[2 * i] = doc_start ? doc_start[i] : 0;
        span[2 * i + 1] = (int32_t)(i % T) + 1;
    }
}

void objective_apply(const objective_rule *o, struct loader_batch *b, int64_t rows, int64_t T, uint64_t step,
                     int64_t row0) {
    if (o->kind == OBJECTIVE_CAUSAL || o->kind == OBJECTIVE_SEQ2SEQ) return; /* the loader's own */
    const bool split = o->kind == OBJECTIVE_PREFIX;
    const rng_key key = rng_key_make(o->seed, step, split ? 0x73706c74 : 0x6d61736b); /* "splt", "mask" */
    b->labels = 0;
    for (int64_t r = 0; r < rows; r++) (split ? split_row : mask_row)(o, b, r * T, T, key, (uint64_t)(row0 + r));
}
