/* base: the ground floor. Status, errors, memory, files, random numbers, half floats, JSON. Knows nothing of
 * tensors or models; every other room may include it, it includes only libc and <tilia/base.h>. */
#ifndef BASE_ERROR_H
#define BASE_ERROR_H

#include "tilia/base.h"

/* The only control-flow macro of the library: leave with the first status that is not TL_OK. */
#define TRY(expr)                              \
    do {                                       \
        tl_status try_status_ = (expr);        \
        if (try_status_ != TL_OK) return try_status_; \
    } while (0)

/* Fills *e (which may be NULL) with code and text, clears the place, returns code. */
tl_status error_set(tl_error *e, tl_status code, const char *fmt, ...) TL_PRINTF(3, 4);
/* The same from errno: IO, NOSPACE, NOTFOUND or NOMEM as errno says; text gets ": strerror". */
tl_status error_errno(tl_error *e, const char *fmt, ...) TL_PRINTF(2, 3);
/* Add a place to an error that is set; each accepts e == NULL and returns e->code (or code given before). */
void error_at_file(tl_error *e, const char *path);
void error_at_tensor(tl_error *e, const char *name);
void error_at_offset(tl_error *e, int64_t offset);
void error_at_line(tl_error *e, int64_t line);
void error_clear(tl_error *e);

#endif
