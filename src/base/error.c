#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void error_clear(tl_error *e) {
    if (!e) return;
    e->code = TL_OK;
    e->text[0] = e->file[0] = e->tensor[0] = 0;
    e->offset = -1;
    e->line = 0;
}

/* Copies what fits; a text that was cut ends in "..." so that nobody takes it for the whole. */
static void error_copy(char *to, size_t size, const char *from) {
    size_t n = strlen(from);
    if (n < size) {
        memcpy(to, from, n + 1);
        return;
    }
    memcpy(to, from, size - 4);
    memcpy(to + size - 4, "...", 4);
}

static void error_vset(tl_error *e, tl_status code, const char *fmt, va_list args) {
    error_clear(e);
    e->code = code;
    int n = vsnprintf(e->text, sizeof e->text, fmt, args);
    if (n < 0) error_copy(e->text, sizeof e->text, tl_status_text(code));
    if (n >= (int)sizeof e->text) memcpy(e->text + sizeof e->text - 4, "...", 4);
}

tl_status error_set(tl_error *e, tl_status code, const char *fmt, ...) {
    if (!e) return code;
    va_list args;
    va_start(args, fmt);
    error_vset(e, code, fmt, args);
    va_end(args);
    return code;
}

static tl_status error_of_errno(int number) {
    switch (number) {
    case ENOMEM: return TL_NOMEM;
    case ENOENT:
    case ENOTDIR: return TL_NOTFOUND;
    case ENOSPC:
    case EDQUOT:
    case EFBIG: return TL_NOSPACE;
    default: return TL_IO;
    }
}

tl_status error_errno(tl_error *e, const char *fmt, ...) {
    int number = errno;
    tl_status code = error_of_errno(number);
    if (!e) return code;
    va_list args;
    va_start(args, fmt);
    error_vset(e, code, fmt, args);
    va_end(args);
    size_t n = strlen(e->text);
    char reason[128]; /* the GNU strerror_r: it may answer with a string of its own instead of filling ours */
    snprintf(e->text + n, sizeof e->text - n, ": %s", strerror_r(number, reason, sizeof reason));
    errno = number;
    return code;
}

void error_at_file(tl_error *e, const char *path) {
    if (e && path) error_copy(e->file, sizeof e->file, path);
}

void error_at_tensor(tl_error *e, const char *name) {
    if (e && name) error_copy(e->tensor, sizeof e->tensor, name);
}

void error_at_offset(tl_error *e, int64_t offset) {
    if (e) e->offset = offset;
}

void error_at_line(tl_error *e, int64_t line) {
    if (e) e->line = line;
}

const char *tl_status_text(tl_status code) {
    switch (code) {
#define X(name, number, message)                                                                                       \
    case TL_##name:                                                                                                    \
        return message;
#include "tilia/status.def"
#undef X
    }
    return "unknown status";
}

const char *tl_error_text(const tl_error *e, char *buf, size_t size) {
    if (!buf || size == 0) return "";
    buf[0] = 0;
    size_t n = 0;
#define ADD(...)                                                                                                       \
    do {                                                                                                               \
        int got_ = n < size ? snprintf(buf + n, size - n, __VA_ARGS__) : 0;                                            \
        if (got_ > 0) n += (size_t)got_;                                                                               \
    } while (0)
    if (!e) {
        ADD("%s", tl_status_text(TL_OK));
        return buf;
    }
    if (e->file[0] && e->line > 0)
        ADD("%s:%lld: ", e->file, (long long)e->line);
    else if (e->file[0])
        ADD("%s: ", e->file);
    else if (e->line > 0)
        ADD("line %lld: ", (long long)e->line);
    const size_t place = strlen(e->tensor); /* the text may begin with it: an operator's rules name themselves */
    if (place && (strncmp(e->text, e->tensor, place) != 0 || e->text[place] != ':')) ADD("%s: ", e->tensor);
    ADD("%s", e->text[0] ? e->text : tl_status_text(e->code));
    if (e->offset >= 0 && e->code != TL_OK) ADD(" (at byte %lld)", (long long)e->offset);
#undef ADD
    return buf;
}
