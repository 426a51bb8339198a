/* JSON through jansson, with the place of every mistake. Readers are strict: no duplicate keys, depth and size
 * bounded. Values are jansson's json_t; only this file and its users in format/, model/, cost/, runlog/, cli/ see it. */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/mem.h"
#include <jansson.h>

/* Parses text; e gets the line and what jansson says. path is for the error only and may be NULL. */
tl_status json_parse(const char *text, size_t n, const char *path, json_t **out, tl_error *e);
tl_status json_read_file(const tl_allocator *a, const char *path, size_t max, json_t **out, tl_error *e);
/* Indented, keys in insertion order, reals with 17 digits; durable (file_write). */
tl_status json_write_file(const tl_allocator *a, const char *path, const json_t *v, tl_error *e);

/* Typed access: absent key -> *out untouched and TL_OK; wrong type -> CONFIG naming key and type found.
 * An integral real is accepted as an integer, an integer as a real; null counts as absent. */
tl_status json_get_int(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out, tl_error *e);
tl_status json_get_real(const json_t *o, const char *key, double *out, tl_error *e);
tl_status json_get_bool(const json_t *o, const char *key, bool *out, tl_error *e);
tl_status json_get_str(const json_t *o, const char *key, const char **out, tl_error *e); /* borrowed */

#endif
