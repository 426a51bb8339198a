/* data/source: the bytes of a file or of standard input, unpacked on the way where it is gzip or zstd (told by its
 * first bytes, not its name). A stream that is cut off or damaged is an error, never a shorter text. */
#ifndef DATA_SOURCE_H
#define DATA_SOURCE_H

#include "base/mem.h"

typedef struct source source;

/* path "-" reads standard input. [fails: NOMEM, NOTFOUND, IO (a folder, too), FORMAT] */
tl_status source_open(const tl_allocator *a, const char *path, source **out, tl_error *e);
/* Up to n bytes; *got is 0 only at the end. */
tl_status source_read(source *s, char *buf, size_t n, size_t *got, tl_error *e);
void source_close(source *s); /* NULL is fine */

#endif
