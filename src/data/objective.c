#include "data/objective.h"

#include "base/rng.h"
#include "data/loader.h"

const char *const objective_names[] = {"causal", "mlm", 0};

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

void objective_apply(const objective_rule *o, struct loader_batch *b, int64_t rows, int64_t T, uint64_t step,
                     int64_t row0) {
    if (o->kind == OBJECTIVE_CAUSAL) return;
    const rng_key key = rng_key_make(o->seed, step, 0x6d61736b); /* "mask" */
    b->labels = 0;
    for (int64_t r = 0; r < rows; r++) mask_row(o, b, r * T, T, key, (uint64_t)(row0 + r));
}
