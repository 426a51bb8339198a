/* Offsets by lifetimes: dynamic storage allocation, which is NP-hard; greedy in several orders, the smallest kept. */
#include "graph/plan.h"

#include <stdlib.h>

typedef struct place_key {
    size_t index;
    double key;
} place_key;

static int place_by_key(const void *a, const void *b) {
    const place_key *x = a, *y = b;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

enum { BY_SIZE, BY_AREA, BY_LIFE, BY_TIME, PLACE_ORDERS };

static double place_key_of(const place_item *p, int order) {
    double bytes = (double)p->bytes, life = (double)p->last - (double)p->first + 1;
    switch (order) {
    case BY_SIZE: return bytes;
    case BY_AREA: return bytes * life;
    case BY_LIFE: return life;
    default: return -(double)p->first;
    }
}

/* The lowest (best_fit: the tightest) gap between the items placed already that live at the same time. placed is sorted
 * by offset. */
static size_t place_find(const place_item *items, const size_t *placed, size_t n, const place_item *p, bool best_fit) {
    size_t end = 0, found = SIZE_MAX, slack = SIZE_MAX;
    for (size_t i = 0; i < n; i++) {
        const place_item *q = &items[placed[i]];
        if (q->last < p->first || p->last < q->first) continue;
        if (q->offset > end && q->offset - end >= p->bytes && q->offset - end - p->bytes < slack) {
            found = end;
            slack = q->offset - end - p->bytes;
            if (!best_fit) return found;
        }
        if (q->offset + q->bytes > end) end = q->offset + q->bytes;
    }
    return found == SIZE_MAX ? end : found;
}

static size_t place_try(place_item *items, const place_key *order, size_t n, size_t *placed, bool best_fit) {
    size_t total = 0, count = 0;
    for (size_t i = 0; i < n; i++) {
        place_item *p = &items[order[i].index];
        p->offset = 0;
        if (!p->bytes) continue;
        p->offset = place_find(items, placed, count, p, best_fit);
        if (p->offset + p->bytes > total) total = p->offset + p->bytes;
        size_t at = count++;
        for (; at > 0 && items[placed[at - 1]].offset > p->offset; at--) placed[at] = placed[at - 1];
        placed[at] = order[i].index;
    }
    return total;
}

/* No plan can do with less than the largest sum of what lives at one step. */
static size_t place_bound(const place_item *items, size_t n, int32_t steps, int64_t *delta) {
    for (size_t i = 0; i < n; i++) {
        delta[items[i].first] += (int64_t)items[i].bytes;
        if (items[i].last < steps) delta[items[i].last + 1] -= (int64_t)items[i].bytes;
    }
    int64_t sum = 0, most = 0;
    for (int32_t s = 0; s <= steps; s++) {
        sum += delta[s];
        if (sum > most) most = sum;
    }
    return (size_t)most;
}

tl_status place_items(const tl_allocator *a, place_item *items, size_t n, size_t *total) {
    *total = 0;
    if (n == 0) return TL_OK;
    int32_t steps = 0;
    for (size_t i = 0; i < n; i++) {
        items[i].bytes = (items[i].bytes + PLACE_ALIGN - 1) & ~(size_t)(PLACE_ALIGN - 1);
        if (items[i].first > steps) steps = items[i].first;
        if (items[i].last != PLAN_FOREVER && items[i].last > steps) steps = items[i].last;
    }
    place_key *order = mem_new(a, n, sizeof *order);
    size_t *placed = mem_new(a, n, sizeof *placed), *best = mem_new(a, n, sizeof *best);
    int64_t *delta = mem_new(a, (size_t)steps + 2, sizeof *delta);
    tl_status status = order && placed && best && delta ? TL_OK : TL_NOMEM;
    if (status == TL_OK) {
        size_t least = place_bound(items, n, steps, delta), smallest = SIZE_MAX;
        for (int t = 0; t < 2 * PLACE_ORDERS && smallest > least; t++) {
            for (size_t i = 0; i < n; i++) order[i] = (place_key){i, place_key_of(&items[i], t / 2)};
            qsort(order, n, sizeof *order, place_by_key);
            size_t got = place_try(items, order, n, placed, t & 1);
            if (got >= smallest) continue;
            smallest = got;
            for (size_t i = 0; i < n; i++) best[i] = items[i].offset;
        }
        for (size_t i = 0; i < n; i++) items[i].offset = best[i];
        *total = smallest;
    }
    mem_free(a, order), mem_free(a, placed), mem_free(a, best), mem_free(a, delta);
    return status;
}
