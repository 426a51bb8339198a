#include "model/segments.h"

#include "base/mem.h"
#include "data/loader.h"

#include <string.h>

enum { SEGMENT_LINE = 64 };

int64_t segments_count(int64_t context, int64_t length) {
    return (context + length - 1) / length;
}

static size_t carry_bytes(const build_carry *c) {
    const tl_desc *d = tl_tensor_desc(c->in);
    const size_t n = (size_t)tl_desc_count(d) * tl_dtype_bytes(d->dtype);
    return (n + SEGMENT_LINE - 1) / SEGMENT_LINE * SEGMENT_LINE;
}

static size_t place_bytes(const build_result *r) {
    size_t n = 0;
    for (size_t i = 0; i < r->n_carry; i++) n += carry_bytes(&r->carry[i]);
    return n ? n : SEGMENT_LINE;
}

static size_t cell_bytes(int64_t rows, int64_t length) {
    return (size_t)(rows * (3 * length + 1)) * sizeof(int32_t);
}

size_t segments_bytes(const build_result *r, int64_t rows, int64_t length, int64_t places) {
    return (size_t)places * place_bytes(r) + cell_bytes(rows, length);
}

tl_status segments_open(segments *s, const tl_allocator *a, const build_result *r, int64_t rows, int64_t context,
                        int64_t length, int64_t places, tl_error *err) {
    *s = (segments){.rows = rows,
                    .context = context,
                    .length = length,
                    .count = segments_count(context, length),
                    .places = places,
                    .n = r->n_carry,
                    .bytes = place_bytes(r)};
    s->at = mem_new(a, s->n + 1, sizeof *s->at);
    s->block = mem_take(a, (size_t)places * s->bytes);
    s->cells = mem_take(a, cell_bytes(rows, length));
    if (!s->at || !s->block || !s->cells)
        return error_set(err, TL_NOMEM, "no memory for %lld segments", (long long)s->count);
    for (size_t i = 0; i < s->n; i++) s->at[i + 1] = s->at[i] + carry_bytes(&r->carry[i]);
    memset(s->block, 0, (size_t)places * s->bytes);
    s->ids = s->cells;
    s->targets = s->ids + rows * length;
    s->pos = s->targets + rows * length;
    s->seen = s->pos + rows * length;
    return TL_OK;
}

void segments_close(segments *s, const tl_allocator *a) {
    if (s->block) mem_give(a, s->block, (size_t)s->places * s->bytes);
    if (s->cells) mem_give(a, s->cells, cell_bytes(s->rows, s->length));
    mem_free(a, s->at);
    *s = (segments){.rows = 0};
}

void segments_cut(segments *s, const loader_batch *b, int64_t first, int64_t k) {
    const int64_t begin = k * s->length, left = s->context - begin, n = left < s->length ? left : s->length;
    for (int64_t r = 0; r < s->rows; r++) {
        const int64_t from = (first + r) * s->context + begin, to = r * s->length;
        memcpy(s->ids + to, b->input + from, (size_t)n * sizeof *s->ids);
        memcpy(s->targets + to, b->target + from, (size_t)n * sizeof *s->ids);
        memcpy(s->pos + to, b->pos + from, (size_t)n * sizeof *s->ids);
        for (int64_t i = n; i < s->length; i++) { /* nobody before it sees it, and it predicts nothing */
            s->ids[to + i] = 0;
            s->targets[to + i] = -1;
            s->pos[to + i] = s->pos[to];
        }
        s->seen[r] = (int32_t)begin;
    }
}

static void *place_of(const segments *s, int64_t place, size_t i) {
    return s->block + (size_t)place * s->bytes + s->at[i];
}

tl_status segments_bind(const segments *s, tl_plan *p, const build_result *r, int64_t from, int64_t to) {
    TRY(tl_plan_bind(p, r->ids, s->ids));
    TRY(tl_plan_bind(p, r->pos, s->pos));
    TRY(tl_plan_bind(p, r->seen, s->seen));
    if (r->loss) TRY(tl_plan_bind(p, r->targets, s->targets));
    for (size_t i = 0; i < s->n; i++) {
        TRY(tl_plan_bind(p, r->carry[i].in, place_of(s, from, i)));
        if (to >= 0) TRY(tl_plan_bind(p, r->carry[i].out, place_of(s, to, i)));
    }
    return TL_OK;
}

tl_status segments_bind_back(const segments *s, tl_plan *p, const build_result *r, int64_t dout, int64_t din) {
    for (size_t i = 0; i < s->n; i++) {
        TRY(tl_plan_bind(p, r->carry[i].dout, place_of(s, dout, i)));
        TRY(tl_plan_bind(p, r->carry[i].din, place_of(s, din, i)));
    }
    return TL_OK;
}

void segments_clear(segments *s, int64_t place) {
    memset(s->block + (size_t)place * s->bytes, 0, s->bytes);
}

tl_status segments_device(const device *d, tl_error *err) {
    if (!d->memory) return TL_OK;
    return error_set(err, TL_UNSUPPORTED,
                     "rows by segments are not computed on %s yet: what segments hand on lies in the "
                     "host's memory",
                     d->name);
}
