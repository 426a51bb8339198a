#include "base/hash.h"
#include "tokenizer/train.h"
#include <string.h>

/* A record: count in 48 bits and length in 16, or, from MAP_LONG on, the length in 8 bytes more; then the text; whole
 * units of 8 bytes. */
enum { MAP_UNIT = 8, MAP_SEGMENT = (1 << 20) / MAP_UNIT, MAP_LONG = 0xffff };
#define MAP_COUNT_MAX (((uint64_t)1 << 48) - 1)

void train_map_init(train_map *m, const tl_allocator *a) {
    memset(m, 0, sizeof *m);
    m->alloc = a;
}

void train_map_fini(train_map *m) {
    for (size_t i = 0; i < m->segs; i++) mem_free(m->alloc, m->seg[i]);
    mem_free(m->alloc, m->seg);
    mem_free(m->alloc, m->slot);
    train_map_init(m, m->alloc);
}

void train_map_seal(train_map *m) {
    mem_free(m->alloc, m->slot);
    m->slot = NULL;
    m->slots = 0;
}

static char *map_at(const train_map *m, uint64_t unit) {
    return m->seg[unit / MAP_SEGMENT] + unit % MAP_SEGMENT * MAP_UNIT;
}

static uint64_t map_read(const char *record, train_piece *p) {
    uint64_t head;
    memcpy(&head, record, sizeof head);
    p->count = head >> 16;
    p->n = (size_t)(head & MAP_LONG);
    p->text = record + sizeof head;
    if (p->n == MAP_LONG) {
        memcpy(&p->n, p->text, sizeof p->n);
        p->text += sizeof p->n;
    }
    return (uint64_t)(p->text - record) + p->n;
}

/* Where the record behind this one may begin; one that fills several segments has them for itself. */
static uint64_t map_behind(uint64_t begin, uint64_t bytes) {
    uint64_t units = (bytes + MAP_UNIT - 1) / MAP_UNIT, end = begin + units;
    return units <= MAP_SEGMENT ? end : (end + MAP_SEGMENT - 1) / MAP_SEGMENT * MAP_SEGMENT;
}

/* The record at or behind *begin; *next is what comes after. */
static bool map_next(const train_map *m, uint64_t *begin, uint64_t *next, train_piece *p) {
    while (*begin < m->used) {
        uint64_t bytes = map_read(map_at(m, *begin), p);
        if (p->count) {
            *next = map_behind(*begin, bytes);
            return true;
        }
        *begin = (*begin / MAP_SEGMENT + 1) * MAP_SEGMENT; /* the rest of a segment that was too small */
    }
    return false;
}

bool train_map_next(const train_map *m, uint64_t *at, train_piece *p) {
    uint64_t begin = *at;
    return map_next(m, &begin, at, p);
}

static size_t map_hash(const train_map *m, const char *text, size_t n) {
    return (size_t)(hash_bytes(text, n) >> 16) & (m->slots - 1);
}

static bool map_grow(train_map *m) {
    size_t slots = m->slots ? 2 * m->slots : 4096;
    while (slots < 2 * (m->n + 1)) slots *= 2;
    train_map_seal(m); /* first: two tables at once would be the peak */
    m->slot = mem_new(m->alloc, slots, sizeof *m->slot);
    if (!m->slot) return false;
    m->slots = slots;
    train_piece p;
    for (uint64_t at = 0, next; map_next(m, &at, &next, &p); at = next) {
        size_t k = map_hash(m, p.text, p.n);
        while (m->slot[k]) k = (k + 1) & (slots - 1);
        m->slot[k] = (uint32_t)at + 1;
    }
    return true;
}

/* Room for a record of so many bytes behind the last; NULL: no memory. */
static char *map_room(train_map *m, uint64_t bytes, uint64_t *begin) {
    uint64_t at = m->used, end = (uint64_t)m->segs * MAP_SEGMENT;
    if (map_behind(at, bytes) > end || (bytes + MAP_UNIT - 1) / MAP_UNIT > MAP_SEGMENT) {
        at = end;
        size_t more = (size_t)((bytes + (uint64_t)MAP_SEGMENT * MAP_UNIT - 1) / ((uint64_t)MAP_SEGMENT * MAP_UNIT));
        if (map_behind(at, bytes) >= UINT32_MAX || !mem_reserve(m->alloc, &m->seg, &m->seg_cap, m->segs + more))
            return NULL;
        char *block = mem_new(m->alloc, more * MAP_SEGMENT, MAP_UNIT);
        if (!block) return NULL;
        m->seg[m->segs] = block;
        for (size_t i = 1; i < more; i++) m->seg[m->segs + i] = NULL;
        m->segs += more;
    }
    *begin = at;
    m->used = map_behind(at, bytes);
    return map_at(m, at);
}

static bool map_put(train_map *m, size_t slot, const char *text, size_t n, uint64_t count) {
    uint64_t head = count << 16 | (n < MAP_LONG ? n : MAP_LONG), begin;
    size_t before = n < MAP_LONG ? sizeof head : sizeof head + sizeof n;
    char *record = map_room(m, before + n, &begin);
    if (!record) return false;
    memcpy(record, &head, sizeof head);
    if (n >= MAP_LONG) memcpy(record + sizeof head, &n, sizeof n);
    memcpy(record + before, text, n);
    m->slot[slot] = (uint32_t)begin + 1;
    m->n++;
    m->bytes += n;
    return true;
}

bool train_map_add(train_map *m, const char *text, size_t n, uint64_t count) {
    if (n > UINT32_MAX || (2 * (m->n + 1) > m->slots && !map_grow(m))) return false;
    size_t k = map_hash(m, text, n);
    for (; m->slot[k]; k = (k + 1) & (m->slots - 1)) {
        char *record = map_at(m, m->slot[k] - 1);
        train_piece p;
        map_read(record, &p);
        if (p.n != n || memcmp(p.text, text, n) != 0) continue;
        uint64_t sum = p.count + count < MAP_COUNT_MAX ? p.count + count : MAP_COUNT_MAX;
        uint64_t head = sum << 16 | (n < MAP_LONG ? n : MAP_LONG);
        memcpy(record, &head, sizeof head);
        m->pieces += count;
        return true;
    }
    if (!map_put(m, k, text, n, count)) return false;
    m->pieces += count;
    return true;
}
