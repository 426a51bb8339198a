/* The two tokenizers that need no file: bytes and characters. */
#include "tokenizer/internal.h"
#include <stdlib.h>
#include <string.h>

static const char chars_eod[] = "<|endoftext|>", chars_unk[] = "<|unknown|>";

tl_status tokenizer_from_bytes(const tl_allocator *a, tokenizer **out, tl_error *e) {
    tokenizer *t;
    TRY(tokenizer_new(a, MODEL_BYTES, &t, e));
    tl_status s = TL_OK;
    for (int i = 0; i < 256 && s == TL_OK; i++) {
        char c = (char)i;
        s = vocab_put(&t->voc, i, &c, 1, 0, e);
    }
    if (s == TL_OK) s = tokenizer_add_special(t, 256, chars_eod, sizeof chars_eod - 1, e);
    if (s != TL_OK) {
        tokenizer_close(t);
        return s;
    }
    t->byte_level = true;
    t->role[TOKENIZER_EOS] = t->role[TOKENIZER_EOT] = t->role[TOKENIZER_EOD] = 256;
    *out = t;
    return TL_OK;
}

/* One bit for each code point that text holds. */
static tl_status chars_collect(tokenizer *t, const uint8_t *p, const uint8_t *end, tl_error *e) {
    uint8_t *seen = mem_new(t->alloc, 0x110000 / 8, 1);
    if (!seen) return error_set(e, TL_NOMEM, "no memory for the set of characters");
    size_t n = 0;
    while (p < end) {
        uint32_t cp;
        bool bad;
        p += unicode_decode(p, end, &cp, &bad);
        uint8_t bit = (uint8_t)(1u << (cp & 7));
        if (bad || (seen[cp >> 3] & bit)) continue;
        seen[cp >> 3] |= bit;
        n++;
    }
    t->chars = mem_new(t->alloc, n, sizeof *t->chars);
    if (t->chars)
        for (uint32_t cp = 0; cp < 0x110000; cp++)
            if (seen[cp >> 3] >> (cp & 7) & 1) t->chars[t->chars_n++] = cp;
    mem_free(t->alloc, seen);
    return t->chars ? TL_OK : error_set(e, TL_NOMEM, "no memory for the set of characters");
}

/* Vocabulary from t->chars: the characters, end of document, unknown. */
static tl_status chars_finish(tokenizer *t, tl_error *e) {
    int64_t id = 0;
    for (size_t i = 0; i < t->chars_n; i++) {
        char c[4];
        TRY(vocab_put(&t->voc, id++, c, unicode_encode(t->chars[i], c), 0, e));
    }
    TRY(tokenizer_add_special(t, id, chars_eod, sizeof chars_eod - 1, e));
    TRY(tokenizer_add_special(t, id + 1, chars_unk, sizeof chars_unk - 1, e));
    t->role[TOKENIZER_EOS] = t->role[TOKENIZER_EOT] = t->role[TOKENIZER_EOD] = (int32_t)id;
    t->role[TOKENIZER_UNK] = t->unk = (int32_t)id + 1;
    return TL_OK;
}

tl_status tokenizer_from_chars(const tl_allocator *a, const char *text, size_t n, tokenizer **out, tl_error *e) {
    tokenizer *t;
    TRY(tokenizer_new(a, MODEL_CHARS, &t, e));
    tl_status s = chars_collect(t, (const uint8_t *)text, (const uint8_t *)text + n, e);
    if (s == TL_OK) s = chars_finish(t, e);
    if (s == TL_OK)
        *out = t;
    else
        tokenizer_close(t);
    return s;
}

tl_status chars_from_points(const tl_allocator *a, const uint32_t *cp, size_t n, tokenizer **out, tl_error *e) {
    tokenizer *t;
    TRY(tokenizer_new(a, MODEL_CHARS, &t, e));
    tl_status s = TL_OK;
    t->chars = mem_new(a, n, sizeof *t->chars);
    if (!t->chars) s = error_set(e, TL_NOMEM, "no memory for the set of characters");
    for (size_t i = 0; i < n && s == TL_OK; i++) {
        if (cp[i] > 0x10ffff || (cp[i] >= 0xd800 && cp[i] < 0xe000) || (i && cp[i] <= cp[i - 1]))
            s = error_set(e, TL_FORMAT, "code_points[%zu]: code points must be valid and ascending", i);
        t->chars[t->chars_n++] = cp[i];
    }
    if (s == TL_OK) s = chars_finish(t, e);
    if (s == TL_OK)
        *out = t;
    else
        tokenizer_close(t);
    return s;
}

static int32_t chars_find(const tokenizer *t, uint32_t cp) {
    size_t low = 0, high = t->chars_n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (t->chars[mid] < cp)
            low = mid + 1;
        else
            high = mid;
    }
    return low < t->chars_n && t->chars[low] == cp ? (int32_t)low : t->unk;
}

tl_status chars_encode(const tokenizer *t, const uint8_t *text, size_t n, size_t base, token_list *out, tl_error *e) {
    if (!token_list_reserve(out, n)) return error_set(e, TL_NOMEM, "no memory for %zu ids", n);
    if (t->model == MODEL_BYTES) {
        for (size_t i = 0; i < n; i++) {
            if (out->want_spans) out->span[out->n] = (token_span){base + i, base + i + 1};
            out->id[out->n++] = text[i];
        }
        return TL_OK;
    }
    int32_t ascii[128];
    for (uint32_t c = 0; c < 128; c++) ascii[c] = chars_find(t, c);
    for (size_t i = 0; i < n;) {
        uint32_t cp;
        bool bad;
        size_t len = unicode_decode(text + i, text + n, &cp, &bad);
        if (out->want_spans) out->span[out->n] = (token_span){base + i, base + i + len};
        out->id[out->n++] = bad ? t->unk : cp < 128 ? ascii[cp] : chars_find(t, cp);
        i += len;
    }
    return TL_OK;
}
