#include "tokenizer/unicode.h"
#include <string.h>
#include <utf8proc.h>

static const uint32_t unicode_runs[] = {
#include "tokenizer/unicode_runs.inc"
};
static const uint32_t unicode_scripts[] = {
#include "tokenizer/unicode_scripts.inc"
};
enum { UNICODE_RUNS = sizeof unicode_runs / sizeof *unicode_runs, UNICODE_PAGES = 400 };

static uint32_t unicode_run_end(size_t run) {
    return run + 1 < UNICODE_RUNS ? unicode_runs[run + 1] >> 4 : 0x110000;
}

/* The classes of a page; *run is the run that holds its first character, then that of the next page's. */
static void unicode_fill(uint8_t out[256], uint32_t first, size_t *run) {
    for (uint32_t at = first; at < first + 256;) {
        uint32_t end = unicode_run_end(*run), to = end < first + 256 ? end : first + 256;
        memset(out + (at - first), (int)(unicode_runs[*run] & 15), to - at);
        at = to;
        if (at == end) ++*run;
    }
}

unicode_table *unicode_new(const tl_allocator *a) {
    unicode_table *u = mem_new(a, 1, sizeof *u + 256 * UNICODE_PAGES);
    if (!u) return NULL;
    size_t run = 0;
    uint16_t n = 0, uniform[16];
    memset(uniform, 0xff, sizeof uniform);
    for (uint32_t page = 0; page < 0x1100; page++) {
        uint32_t first = page << 8;
        bool same = unicode_run_end(run) >= first + 256; /* most pages: one class, and there already */
        uint16_t *one = &uniform[unicode_runs[run] & 15];
        if (same && *one != 0xffff) {
            u->page[page] = *one;
            if (unicode_run_end(run) == first + 256) run++;
            continue;
        }
        if (same) *one = n;
        unicode_fill(u->cls[n], first, &run);
        u->page[page] = n;
        if (n + 1 < UNICODE_PAGES) n++;
    }
    memcpy(u->ascii, u->cls[u->page[0]], 128);
    return u;
}

bool unicode_is_word(const unicode_table *u, uint32_t cp) {
    if (cp < 128) return (cp >= '0' && cp <= '9') || (cp >= 'A' && cp <= 'Z') || cp == '_' || (cp >= 'a' && cp <= 'z');
    unsigned bit = 1u << unicode_of(u, cp);
    if (bit & (UNICODE_IS_L | 1u << UNICODE_M)) return true;
    utf8proc_category_t c = utf8proc_category((utf8proc_int32_t)cp);
    if (bit & UNICODE_IS_N) return c != UTF8PROC_CATEGORY_NO;
    return c == UTF8PROC_CATEGORY_PC || cp == 0x200c || cp == 0x200d || (cp >= 0x24b6 && cp <= 0x24e9) ||
           (cp >= 0x1f130 && cp <= 0x1f149) || (cp >= 0x1f150 && cp <= 0x1f169) || (cp >= 0x1f170 && cp <= 0x1f189);
}

unsigned unicode_script(uint32_t cp) {
    size_t lo = 0, hi = sizeof unicode_scripts / sizeof *unicode_scripts;
    while (hi - lo > 1) {
        size_t mid = (lo + hi) / 2;
        if (unicode_scripts[mid] >> 8 <= cp)
            lo = mid;
        else
            hi = mid;
    }
    return unicode_scripts[lo] & 255;
}

unsigned unicode_decode(const uint8_t *p, const uint8_t *end, uint32_t *cp, bool *bad) {
    uint32_t c = *p;
    if (bad) *bad = false;
    if (c < 0x80) {
        *cp = c;
        return 1;
    }
    unsigned need = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : 1;
    uint8_t low = 0x80, high = 0xbf; /* the second byte's range excludes long forms, surrogates, > 10FFFF */
    unsigned i = 1;
    if (c >= 0xc2 && c <= 0xf4) {
        if (c == 0xe0) low = 0xa0;
        if (c == 0xed) high = 0x9f;
        if (c == 0xf0) low = 0x90;
        if (c == 0xf4) high = 0x8f;
        uint32_t v = c & (0x3fu >> need);
        for (; i <= need && p + i < end && p[i] >= low && p[i] <= high; i++) {
            v = v << 6 | (p[i] & 0x3fu);
            low = 0x80, high = 0xbf;
        }
        if (i > need) {
            *cp = v;
            return i;
        }
    }
    *cp = UNICODE_BAD;
    if (bad) *bad = true;
    return i;
}

bool unicode_unfinished(const uint8_t *p, const uint8_t *end) {
    if (p >= end || *p < 0xc2 || *p > 0xf4) return false;
    uint32_t cp;
    bool bad;
    unsigned need = *p >= 0xf0 ? 4 : *p >= 0xe0 ? 3 : 2, n = unicode_decode(p, end, &cp, &bad);
    return bad && p + n == end && n < need;
}

unsigned unicode_encode(uint32_t cp, char out[4]) {
    if (cp < 0x80) {
        out[0] = (char)cp;
        return 1;
    }
    if (cp < 0x800) {
        out[0] = (char)(0xc0 | cp >> 6);
        out[1] = (char)(0x80 | (cp & 0x3f));
        return 2;
    }
    if (cp < 0x10000) {
        out[0] = (char)(0xe0 | cp >> 12);
        out[1] = (char)(0x80 | (cp >> 6 & 0x3f));
        out[2] = (char)(0x80 | (cp & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | cp >> 18);
    out[1] = (char)(0x80 | (cp >> 12 & 0x3f));
    out[2] = (char)(0x80 | (cp >> 6 & 0x3f));
    out[3] = (char)(0x80 | (cp & 0x3f));
    return 4;
}
