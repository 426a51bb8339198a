#include "base/str.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void str_init(str *s, const tl_allocator *a) {
    *s = (str){.alloc = a};
}

void str_fini(str *s) {
    mem_free(s->alloc, s->data);
    *s = (str){.alloc = s->alloc};
}

void str_clear(str *s) {
    s->len = 0;
    s->failed = false;
    if (s->data) s->data[0] = 0;
}

/* Room for n more bytes and the terminator. */
static bool str_room(str *s, size_t n) {
    size_t need;
    if (!s->failed && (add_overflows(s->len, n, &need) || add_overflows(need, (size_t)1, &need) ||
                       !mem_reserve(s->alloc, &s->data, &s->cap, need)))
        s->failed = true;
    return !s->failed;
}

void str_add(str *s, const void *bytes, size_t n) {
    if (!str_room(s, n)) return;
    if (n) memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = 0;
}

void str_addc(str *s, char c) {
    str_add(s, &c, 1);
}

void str_adds(str *s, const char *text) {
    str_add(s, text, strlen(text));
}

void str_addf(str *s, const char *fmt, ...) {
    va_list args, again;
    va_start(args, fmt);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, fmt, args);
    if (n < 0) {
        s->failed = true;
    } else if (str_room(s, (size_t)n)) {
        vsnprintf(s->data + s->len, (size_t)n + 1, fmt, again);
        s->len += (size_t)n;
    }
    va_end(again);
    va_end(args);
}

/* Length of the well-formed UTF-8 sequence at p (Unicode 15, table 3-7), 0 if there is none. */
static size_t str_utf8(const unsigned char *p, size_t n) {
    static const struct {
        unsigned char first, last, low, high, length; /* lead bytes, bounds of the second byte */
    } rows[] = {{0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
                {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
                {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    if (p[0] < 0x80) return 1;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (p[0] < rows[i].first || p[0] > rows[i].last) continue;
        if (n < rows[i].length || p[1] < rows[i].low || p[1] > rows[i].high) return 0;
        for (size_t k = 2; k < rows[i].length; k++)
            if ((p[k] & 0xc0) != 0x80) return 0;
        return rows[i].length;
    }
    return 0;
}

void str_add_json(str *s, const char *text, size_t n) {
    const unsigned char *p = (const unsigned char *)text;
    str_addc(s, '"');
    for (size_t i = 0, k; i < n; i += k ? k : 1) {
        k = str_utf8(p + i, n - i);
        if (k == 0)
            str_adds(s, "\xef\xbf\xbd");
        else if (p[i] == '"' || p[i] == '\\')
            str_addc(s, '\\'), str_addc(s, text[i]);
        else if (p[i] == '\n')
            str_adds(s, "\\n");
        else if (p[i] == '\t')
            str_adds(s, "\\t");
        else if (p[i] == '\r')
            str_adds(s, "\\r");
        else if (p[i] < 0x20 || p[i] == 0x7f)
            str_addf(s, "\\u%04x", p[i]);
        else
            str_add(s, p + i, k);
    }
    str_addc(s, '"');
}
