/* SentencePiece's precompiled character map: a double-array trie (Darts) of u32 units, then the replacements, each
 * ended by a zero. All of it comes from a file, so every index is checked. */
#include "tokenizer/normalize_step.h"
#include <string.h>
#include <utf8proc.h>

struct charsmap {
    const tl_allocator *alloc;
    uint32_t *unit;
    size_t units;
    char *text; /* zero-terminated */
    size_t text_n;
};

static uint32_t charsmap_u32(const uint8_t *p) {
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void charsmap_free(charsmap *m) {
    if (!m) return;
    mem_free(m->alloc, m->unit);
    mem_free(m->alloc, m->text);
    mem_free(m->alloc, m);
}

tl_status charsmap_new(const tl_allocator *a, const uint8_t *blob, size_t n, charsmap **out, tl_error *e) {
    if (n < 4) return error_set(e, TL_FORMAT, "the precompiled character map has %zu bytes", n);
    size_t trie = charsmap_u32(blob);
    if (trie > n - 4 || trie % 4 || trie == 0)
        return error_set(e, TL_FORMAT, "the precompiled character map says its trie has %zu of %zu bytes", trie, n);
    charsmap *m = mem_new(a, 1, sizeof *m);
    if (!m) return error_set(e, TL_NOMEM, "no memory for a character map");
    m->alloc = a;
    m->units = trie / 4;
    m->text_n = n - 4 - trie;
    m->unit = mem_new(a, m->units, sizeof *m->unit);
    m->text = mem_new(a, m->text_n + 1, 1);
    if (!m->unit || !m->text) {
        charsmap_free(m);
        return error_set(e, TL_NOMEM, "no memory for a character map");
    }
    for (size_t i = 0; i < m->units; i++) m->unit[i] = charsmap_u32(blob + 4 + 4 * i);
    memcpy(m->text, blob + 4 + trie, m->text_n);
    *out = m;
    return TL_OK;
}

static size_t charsmap_offset(uint32_t unit) {
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

const char *charsmap_find(const charsmap *m, const char *s, size_t n, bool longest, size_t *rn, size_t *used) {
    const char *best = NULL;
    size_t at = charsmap_offset(m->unit[0]);
    for (size_t i = 0; i < n && s[i]; i++) {
        at ^= (uint8_t)s[i];
        if (at >= m->units || (m->unit[at] & (1u << 31 | 0xff)) != (uint8_t)s[i]) break;
        uint32_t unit = m->unit[at];
        at ^= charsmap_offset(unit);
        if (!(unit >> 8 & 1)) continue;
        if (at >= m->units || (m->unit[at] & 0x7fffffff) > m->text_n) break;
        best = m->text + (m->unit[at] & 0x7fffffff);
        *used = i + 1;
        if (!longest) break;
    }
    if (best) *rn = strlen(best);
    return best;
}

static void charsmap_grapheme(const charsmap *m, const text_buf *a, size_t begin, size_t end, text_buf *b) {
    size_t rn = 0, used;
    const char *r = end - begin < 6 ? charsmap_find(m, a->s + begin, end - begin, false, &rn, &used) : NULL;
    if (r) {
        text_put(b, r, rn, text_from(a, begin, end));
        return;
    }
    const uint8_t *p = (const uint8_t *)a->s;
    for (size_t i = begin; i < end;) {
        uint32_t cp;
        size_t len = unicode_decode(p + i, p + end, &cp, NULL);
        r = charsmap_find(m, a->s + i, len, false, &rn, &used);
        if (r)
            text_put(b, r, rn, text_from(a, i, i + len));
        else
            text_copy(b, a, i, i + len);
        i += len;
    }
}

static void charsmap_longest(const charsmap *m, const text_buf *a, text_buf *b) {
    const uint8_t *p = (const uint8_t *)a->s;
    for (size_t i = 0; i < a->n;) {
        size_t rn = 0, used;
        uint32_t cp;
        const char *r = charsmap_find(m, a->s + i, a->n - i, true, &rn, &used);
        if (r) {
            text_put(b, r, rn, text_from(a, i, i + used));
        } else {
            used = unicode_decode(p + i, p + a->n, &cp, NULL);
            text_copy(b, a, i, i + used);
        }
        i += used;
    }
}

void normalize_precompiled(const normalize_step *s, const text_buf *a, text_buf *b) {
    if (!s->map) {
        text_copy(b, a, 0, a->n);
        return;
    }
    if (s->longest) {
        charsmap_longest(s->map, a, b);
        return;
    }
    const uint8_t *p = (const uint8_t *)a->s;
    utf8proc_int32_t state = 0;
    uint32_t last = 0, cp;
    size_t begin = 0;
    for (size_t i = 0; i < a->n;) {
        size_t len = unicode_decode(p + i, p + a->n, &cp, NULL);
        if (i > begin && utf8proc_grapheme_break_stateful((utf8proc_int32_t)last, (utf8proc_int32_t)cp, &state)) {
            charsmap_grapheme(s->map, a, begin, i, b);
            begin = i;
        }
        last = cp;
        i += len;
    }
    if (a->n > begin) charsmap_grapheme(s->map, a, begin, a->n, b);
}
