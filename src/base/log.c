#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

void log_line(const log_sink *l, tl_log_level level, const char *fmt, ...) {
    if (!l || !l->fn || level > l->level) return;
    char line[1024];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(line, sizeof line, fmt, args);
    va_end(args);
    if (n < 0) return;
    /* One call is one line, whatever a name inside the message contains. */
    for (char *c = line; *c; c++)
        if (*c == '\n' || *c == '\r') *c = ' ';
    l->fn(l->user, level, line);
}
