/* From the bytes of a piece to the symbols merging begins with. */
#include "tokenizer/bpe.h"
#include "tokenizer/unicode.h"
#include <string.h>

typedef struct bpe_start {
    const bpe *b;
    const vocab *v;
    bpe_scratch *s;
    size_t n;
    bool after_unk; /* the last symbol is a fused unknown */
} bpe_start;

static void bpe_unknown(bpe_start *x) {
    if (x->b->unk < 0 || (x->b->fuse_unk && x->after_unk)) return; /* without an unknown token it is dropped */
    x->s->id[x->n++] = x->b->unk;
    x->after_unk = true;
}

static void bpe_symbol(bpe_start *x, int32_t id) {
    x->s->id[x->n++] = id;
    x->after_unk = false;
}

static int32_t bpe_char(const bpe *b, const vocab *v, const char *text, size_t n) {
    int32_t id = vocab_find(v, text, n);
    if (id < 0 && b->beyond.n && (id = vocab_find(&b->beyond, text, n)) >= 0) id += b->outside;
    return id;
}

/* A character that is no token: its bytes where all have a token, else unknown. */
static void bpe_fall_back(bpe_start *x, const char *text, size_t n) {
    bool all = x->b->byte_fallback;
    for (size_t i = 0; i < n; i++) all = all && x->b->hex_id[(uint8_t)text[i]] >= 0;
    if (!all) {
        bpe_unknown(x);
        return;
    }
    for (size_t i = 0; i < n; i++) bpe_symbol(x, x->b->hex_id[(uint8_t)text[i]]);
}

/* One unit with the prefix or suffix that its place asks for. */
static bool bpe_affixed(bpe_start *x, const char *text, size_t n, bool first, bool last) {
    const bpe *b = x->b;
    size_t pre = !first && b->prefix ? strlen(b->prefix) : 0, post = last && b->suffix ? strlen(b->suffix) : 0;
    if (!mem_reserve(x->s->alloc, &x->s->buf, &x->s->buf_cap, pre + n + post + 1)) return false;
    char *buf = x->s->buf;
    if (pre) memcpy(buf, b->prefix, pre);
    memcpy(buf + pre, text, n);
    if (post) memcpy(buf + pre + n, b->suffix, post);
    int32_t id = bpe_char(b, x->v, buf, pre + n + post);
    if (id >= 0)
        bpe_symbol(x, id);
    else
        bpe_fall_back(x, text, n);
    return true;
}

static bool bpe_start_chars(bpe_start *x, const uint8_t *p, size_t len) {
    const bpe *b = x->b;
    for (size_t i = 0; i < len;) {
        uint32_t cp;
        bool bad = false;
        unsigned n = b->byte_level ? 1 : unicode_decode(p + i, p + len, &cp, &bad);
        const char *text = (const char *)p + i;
        if (b->prefix || b->suffix) {
            if (!bpe_affixed(x, text, n, i == 0, i + n == len)) return false;
        } else if (bad && !b->byte_fallback) { /* what cannot be text is U+FFFD */
            int32_t id = bpe_char(b, x->v, "\xef\xbf\xbd", 3);
            if (id >= 0)
                bpe_symbol(x, id);
            else
                bpe_unknown(x);
        } else {
            int32_t id = bad ? -1 : bpe_char(b, x->v, text, n);
            if (id >= 0)
                bpe_symbol(x, id);
            else
                bpe_fall_back(x, text, n);
        }
        i += n;
    }
    return true;
}

/* Characters that are parts of tokens only end as bytes or unknown if nothing took them in. */
static void bpe_resolve(bpe_start *x, size_t n) {
    bpe_scratch *s = x->s;
    size_t extra = 0;
    for (size_t i = 0; i < n; i++)
        if (s->id[i] >= x->b->outside) extra += 4;
    if (!extra) {
        x->n = n;
        return;
    }
    int32_t *from = s->id; /* prev has the same size and is free now; ids only grow to the bytes they came from */
    memcpy(s->prev, from, n * sizeof *from);
    x->n = 0;
    x->after_unk = false;
    for (size_t i = 0; i < n; i++) {
        int32_t id;
        memcpy(&id, &s->prev[i], sizeof id);
        if (id < x->b->outside) {
            bpe_symbol(x, id);
            continue;
        }
        size_t len;
        const char *text = vocab_text(&x->b->beyond, id - x->b->outside, &len);
        bpe_fall_back(x, text, len);
    }
}

tl_status bpe_piece(const bpe *b, const vocab *v, bpe_scratch *s, const uint8_t *p, size_t len, size_t *n,
                    tl_error *e) {
    if (!bpe_scratch_room(s, 4 * len + 4)) return error_set(e, TL_NOMEM, "no memory for a piece of %zu bytes", len);
    if (b->ignore_merges && len) {
        int32_t whole = vocab_find(v, (const char *)p, len);
        if (whole >= 0) {
            s->id[0] = whole;
            *n = 1;
            return TL_OK;
        }
    }
    bpe_start x = {b, v, s, 0, false};
    bool plain = b->byte_level && !b->prefix && !b->suffix;
    for (size_t i = 0; plain && i < len; i++) {
        plain = b->byte_id[p[i]] >= 0;
        if (plain) s->id[x.n++] = b->byte_id[p[i]];
    }
    if (!plain) {
        x.n = 0;
        if (!bpe_start_chars(&x, p, len)) return error_set(e, TL_NOMEM, "no memory for a piece of %zu bytes", len);
    }
    *n = x.n;
    if (x.n > BPE_SHORT) {
        TRY(bpe_merge_long(b, s, s->id, n, e));
    } else if (x.n > 1) {
        *n = bpe_merge_short(b, s->id, x.n, plain ? p : NULL);
    }
    if (b->beyond.n) {
        bpe_resolve(&x, *n);
        *n = x.n;
    }
    return TL_OK;
}
