/* The log: a callback and a level, handed down by value. */
#ifndef BASE_LOG_H
#define BASE_LOG_H

#include "tilia/base.h"

typedef struct log_sink {
    tl_log_fn fn; /* NULL: silence */
    void *user;
    tl_log_level level;
} log_sink;

void log_line(const log_sink *l, tl_log_level level, const char *fmt, ...) TL_PRINTF(3, 4);

#endif
