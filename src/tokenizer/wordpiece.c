#include "tokenizer/models.h"
#include "tokenizer/unicode.h"
#include <string.h>

/* The longest entry that the rest begins with, again and again; if that fails anywhere, the word is unknown. */
tl_status wordpiece_piece(const wordpiece *m, const vocab *v, bpe_scratch *s, const uint8_t *p, size_t len, size_t *n,
                          tl_error *e) {
    size_t pre = m->prefix ? strlen(m->prefix) : 0, chars = 0;
    uint32_t cp;
    for (size_t i = 0; i < len; chars++) i += unicode_decode(p + i, p + len, &cp, NULL);
    if (!bpe_scratch_room(s, len + 1) || !mem_reserve(s->alloc, &s->buf, &s->buf_cap, pre + len + 1))
        return error_set(e, TL_NOMEM, "no memory for a word of %zu bytes", len);
    *n = 0;
    for (size_t at = 0; at < len && chars <= m->max_chars;) {
        size_t end = len, skip = at ? pre : 0;
        int32_t id = -1;
        if (skip) memcpy(s->buf, m->prefix, skip);
        memcpy(s->buf + skip, p + at, len - at);
        while (end > at && (id = vocab_find(v, s->buf, skip + end - at)) < 0) {
            do end--;
            while (end > at && (p[end] & 0xc0) == 0x80);
        }
        if (id < 0) {
            chars = m->max_chars + 1;
            break;
        }
        s->id[(*n)++] = id;
        at = end;
    }
    if (chars <= m->max_chars) return TL_OK;
    if (m->unk < 0) return error_set(e, TL_CONFIG, "a word is not in the vocabulary and there is no unknown token");
    s->id[0] = m->unk;
    *n = 1;
    return TL_OK;
}
