/* Unicode forms and lower case, by utf8proc. */
#include "tokenizer/normalize_step.h"
#include <string.h>
#include <utf8proc.h>

bool normalize_is_mark(uint32_t cp) {
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_MC || c == UTF8PROC_CATEGORY_ME;
}

bool normalize_is_mn(uint32_t cp) {
    return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_MN;
}

bool normalize_is_control(uint32_t cp) {
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CS: return true;
    default: return false;
    }
}

/* Characters that never change and never meet a combining character before them. */
static bool normalize_stable(uint32_t c) {
    return c < 0x300 || (c >= 0x400 && c < 0x483) || (c >= 0x48a && c < 0x530) || (c >= 0x2010 && c < 0x2028) ||
           (c >= 0x3001 && c < 0x302a) || (c >= 0x3041 && c < 0x3097) || (c >= 0x30a1 && c < 0x30fb) ||
           (c >= 0x4e00 && c < 0xa000) || (c >= 0xff01 && c < 0xff5f);
}

bool normalize_is_nfc(const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n;) {
        if (p[i] < 0x80) {
            i++;
            continue;
        }
        uint32_t cp;
        bool bad;
        i += unicode_decode(p + i, p + n, &cp, &bad);
        if (!bad && !normalize_stable(cp)) return false;
    }
    return true;
}

/* One run of characters between starters that nothing crosses. cps: decomposed points and the source of each. */
typedef struct normalize_run {
    const text_buf *a;
    text_buf *b;
    int32_t *cp;
    token_span *from;
    size_t n, cap, from_cap;
    bool compose, failed;
} normalize_run;

static int normalize_ccc(int32_t cp) {
    return utf8proc_get_property(cp)->combining_class;
}

static void normalize_sort(normalize_run *r) {
    for (size_t i = 1; i < r->n; i++) {
        int c = normalize_ccc(r->cp[i]);
        for (size_t k = i; c && k > 0 && normalize_ccc(r->cp[k - 1]) > c; k--) {
            int32_t x = r->cp[k];
            token_span f = r->from[k];
            r->cp[k] = r->cp[k - 1], r->from[k] = r->from[k - 1];
            r->cp[k - 1] = x, r->from[k - 1] = f;
        }
    }
}

/* The primary composite of two points, or -1: asked of utf8proc, which composes arrays. */
static int32_t normalize_pair(int32_t a, int32_t b) {
    utf8proc_int32_t two[2] = {a, b};
    return utf8proc_normalize_utf32(two, 2, UTF8PROC_STABLE | UTF8PROC_COMPOSE) == 1 ? two[0] : -1;
}

static void normalize_compose(normalize_run *r) {
    size_t out = 0, starter = SIZE_MAX;
    int last = -1;
    for (size_t i = 0; i < r->n; i++) {
        int c = normalize_ccc(r->cp[i]);
        int32_t joined = -1;
        if (starter != SIZE_MAX && (last == -1 || last < c)) /* nothing between blocks it */
            joined = normalize_pair(r->cp[starter], r->cp[i]);
        if (joined >= 0) {
            r->cp[starter] = joined;
            if (r->from[i].end > r->from[starter].end) r->from[starter].end = r->from[i].end;
            continue;
        }
        if (c == 0) {
            starter = out;
            last = -1;
        } else {
            last = c;
        }
        r->from[out] = r->from[i];
        r->cp[out++] = r->cp[i];
    }
    r->n = out;
}

static void normalize_flush(normalize_run *r) {
    normalize_sort(r);
    if (r->compose) normalize_compose(r);
    for (size_t i = 0; i < r->n; i++) {
        char s[4];
        text_put(r->b, s, unicode_encode((uint32_t)r->cp[i], s), r->from[i]);
    }
    r->n = 0;
}

tl_status normalize_form(normalize_kind kind, const text_buf *a, text_buf *b, tl_error *e) {
    normalize_run r = {.a = a, .b = b, .compose = kind == NORMALIZE_NFC || kind == NORMALIZE_NFKC};
    utf8proc_option_t o = UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    if (kind == NORMALIZE_NFKC || kind == NORMALIZE_NFKD) o |= UTF8PROC_COMPAT;
    const uint8_t *p = (const uint8_t *)a->s;
    for (size_t i = 0; i < a->n && !r.failed;) {
        uint32_t cp;
        bool bad;
        utf8proc_int32_t d[32];
        unsigned len = unicode_decode(p + i, p + a->n, &cp, &bad);
        utf8proc_ssize_t k = 0;
        int boundclass = 0;
        if (!bad) k = utf8proc_decompose_char((utf8proc_int32_t)cp, d, 32, o, &boundclass);
        /* a starter that cannot join what is before it ends the run; ASCII and bad bytes always do */
        if (bad || cp < 0x80 || (k > 0 && normalize_stable(cp) && normalize_ccc(d[0]) == 0)) normalize_flush(&r);
        if (bad || k <= 0 || k > 32) {
            text_copy(b, a, i, i + len);
        } else if (!mem_reserve(a->alloc, &r.cp, &r.cap, r.n + (size_t)k) ||
                   !mem_reserve(a->alloc, &r.from, &r.from_cap, r.n + (size_t)k)) {
            r.failed = true;
        } else {
            for (utf8proc_ssize_t j = 0; j < k; j++) {
                r.from[r.n] = text_from(a, i, i + len);
                r.cp[r.n++] = d[j];
            }
        }
        i += len;
    }
    normalize_flush(&r);
    mem_free(a->alloc, r.cp);
    mem_free(a->alloc, r.from);
    return r.failed ? error_set(e, TL_NOMEM, "no memory to normalize a text") : TL_OK;
}

void normalize_lower(const text_buf *a, text_buf *b) {
    const uint8_t *p = (const uint8_t *)a->s;
    for (size_t i = 0; i < a->n;) {
        uint32_t cp;
        bool bad;
        unsigned len = unicode_decode(p + i, p + a->n, &cp, &bad);
        char s[4];
        token_span from = text_from(a, i, i + len);
        if (bad)
            text_copy(b, a, i, i + len);
        else if (cp == 0x130)
            text_put(b, "i\xcc\x87", 3, from); /* the one full mapping that is not simple */
        else
            text_put(b, s, unicode_encode((uint32_t)utf8proc_tolower((utf8proc_int32_t)cp), s), from);
        i += len;
    }
}
