/* A growing byte string with a sticky out-of-memory flag, checked once at the end. */
#ifndef BASE_STR_H
#define BASE_STR_H

#include "base/mem.h"

typedef struct str {
    const tl_allocator *alloc;
    char *data; /* terminated, NULL while empty */
    size_t len, cap;
    bool failed;
} str;

void str_init(str *s, const tl_allocator *a);
void str_fini(str *s);
void str_clear(str *s);
void str_add(str *s, const void *bytes, size_t n);
void str_addc(str *s, char c);
void str_adds(str *s, const char *text);
void str_addf(str *s, const char *fmt, ...) TL_PRINTF(2, 3);
/* Text as a JSON string with quotes; bytes that are not UTF-8 become U+FFFD. */
void str_add_json(str *s, const char *text, size_t n);

#endif
