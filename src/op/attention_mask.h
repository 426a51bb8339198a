/* Which keys a query sees by its position. Causality and windows are predicates on positions: a kernel cuts its loops
 * by this range and never stores a mask. Documents narrow it further, pair by pair. For references and kernels. */
#ifndef OP_ATTENTION_MASK_H
#define OP_ATTENTION_MASK_H

#include "op/attrs.h"

/* Query i sees keys [*first, *end) of 0..keys; an empty range has *first == *end. */
static inline void attention_range(const struct attention_attr *a, int64_t i, int64_t keys, int64_t *first,
                                   int64_t *end) {
    int64_t at = i + a->q_offset, lo = 0, hi = keys;
    if (a->causal && hi > at + 1) hi = at + 1;
    if (a->window > 0) {
        if (lo < at - a->window + 1) lo = at - a->window + 1;
        if (!a->causal && hi > at + a->window) hi = at + a->window;
    }
    if (hi < 0) hi = 0;
    if (lo > hi) lo = hi;
    *first = lo;
    *end = hi;
}

/* Query i of a document that begins at token `begin` also sees keys [*first, *end), which lie before its range of
 * attention_range; a query that is a global token itself sees everything, if not causal: *all. */
static inline void attention_globals(const struct attention_attr *a, int64_t i, int64_t begin, int64_t *first,
                                     int64_t *end, bool *all) {
    const int64_t before = i - a->window + 1;
    *first = *end = begin;
    *all = !a->causal && i - begin < a->global;
    if (a->global > 0 && !*all) *end = before < begin + a->global ? before : begin + a->global;
    if (*end < *first) *end = *first;
}

#endif
