#include "tokenizer/vocab.h"
#include "base/hash.h"
#include <string.h>

void vocab_init(vocab *v, const tl_allocator *a) {
    memset(v, 0, sizeof *v);
    v->alloc = a;
}

void vocab_fini(vocab *v) {
    mem_free(v->alloc, v->entry);
    mem_free(v->alloc, v->blob);
    mem_free(v->alloc, v->slot);
    vocab_init(v, v->alloc);
}

static size_t vocab_probe(const vocab *v, const char *text, size_t n) {
    size_t i = (size_t)hash_bytes(text, n) & (v->slots - 1);
    while (v->slot[i]) {
        const vocab_entry *x = &v->entry[v->slot[i] - 1];
        if (x->len == n && (n == 0 || memcmp(v->blob + x->off, text, n) == 0)) break;
        i = (i + 1) & (v->slots - 1);
    }
    return i;
}

int32_t vocab_find(const vocab *v, const char *text, size_t n) {
    if (!v->slots) return -1;
    return (int32_t)v->slot[vocab_probe(v, text, n)] - 1;
}

static bool vocab_grow(vocab *v) {
    size_t slots = v->slots ? 2 * v->slots : 1024;
    uint32_t *slot = mem_new(v->alloc, slots, sizeof *slot), *old = v->slot;
    size_t old_n = v->slots;
    if (!slot) return false;
    v->slot = slot;
    v->slots = slots;
    for (size_t i = 0; i < old_n; i++)
        if (old[i]) {
            const vocab_entry *x = &v->entry[old[i] - 1];
            slot[vocab_probe(v, v->blob + x->off, x->len)] = old[i];
        }
    mem_free(v->alloc, old);
    return true;
}

tl_status vocab_put(vocab *v, int64_t id, const char *text, size_t n, unsigned flags, tl_error *e) {
    if (id < 0 || id >= VOCAB_MAX_IDS)
        return error_set(e, TL_LIMIT, "token id %lld is outside 0..%d", (long long)id, VOCAB_MAX_IDS - 1);
    if (n > UINT32_MAX - v->blob_n - 1) return error_set(e, TL_LIMIT, "the vocabulary's text exceeds 4 GiB");
    size_t need = (size_t)id + 1 > v->n ? (size_t)id + 1 : v->n;
    size_t old_cap = v->entry_cap;
    if (!mem_reserve(v->alloc, &v->entry, &v->entry_cap, need) ||
        !mem_reserve(v->alloc, &v->blob, &v->blob_cap, v->blob_n + n + 1))
        return error_set(e, TL_NOMEM, "no memory for the vocabulary");
    if (v->entry_cap > old_cap) memset(v->entry + old_cap, 0, (v->entry_cap - old_cap) * sizeof *v->entry);
    if (v->entry[id].flags & VOCAB_PRESENT)
        return error_set(e, TL_FORMAT, "token id %lld is given twice", (long long)id);
    bool find = !(flags & VOCAB_HIDDEN);
    if (find) {
        if (4 * (v->used + 1) > 3 * v->slots && !vocab_grow(v))
            return error_set(e, TL_NOMEM, "no memory for the vocabulary");
        if (vocab_find(v, text, n) >= 0)
            return error_set(e, TL_FORMAT, "token \"%.*s\" is given twice", (int)(n < 80 ? n : 80), text);
    }
    vocab_entry *x = &v->entry[id];
    x->off = (uint32_t)v->blob_n;
    x->len = (uint32_t)n;
    x->flags = flags | VOCAB_PRESENT;
    if (n) memcpy(v->blob + v->blob_n, text, n);
    v->blob[v->blob_n + n] = 0;
    v->blob_n += n + 1;
    v->n = need;
    if (find) {
        v->slot[vocab_probe(v, text, n)] = (uint32_t)id + 1;
        v->used++;
    }
    return TL_OK;
}

tl_status vocab_reindex(vocab *v, tl_error *e) {
    if (!v->slots) return TL_OK;
    uint32_t *slot = mem_new(v->alloc, v->slots, sizeof *slot);
    if (!slot) return error_set(e, TL_NOMEM, "no memory for the vocabulary");
    mem_free(v->alloc, v->slot);
    v->slot = slot;
    v->used = 0;
    for (size_t i = 0; i < v->n; i++) {
        const vocab_entry *x = &v->entry[i];
        if (!(x->flags & VOCAB_PRESENT) || (x->flags & VOCAB_HIDDEN)) continue;
        slot[vocab_probe(v, v->blob + x->off, x->len)] = (uint32_t)i + 1;
        v->used++;
    }
    return TL_OK;
}

tl_status vocab_replace(vocab *v, int64_t id, const char *text, size_t n, unsigned flags, tl_error *e) {
    if (id >= 0 && (size_t)id < v->n && (v->entry[id].flags & VOCAB_PRESENT)) {
        bool found = !(v->entry[id].flags & VOCAB_HIDDEN);
        v->entry[id].flags = VOCAB_HIDDEN;
        if (found) TRY(vocab_reindex(v, e));
    }
    return vocab_put(v, id, text, n, flags | VOCAB_HIDDEN, e);
}
