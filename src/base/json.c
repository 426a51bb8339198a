#include "base/json.h"

#include "base/file.h"

#include <math.h>
#include <string.h>

/* jansson keeps its allocator in a process-wide variable, which a library must not set: JSON trees come from malloc,
 * and running out of it is reported like anything else. */

static tl_status json_status(enum json_error_code code) {
    switch (code) {
    case json_error_out_of_memory: return TL_NOMEM;
    case json_error_stack_overflow: return TL_LIMIT;
    default: return TL_FORMAT;
    }
}

tl_status json_parse(const char *text, size_t n, const char *path, json_t **out, tl_error *e) {
    json_error_t je;
    *out = NULL;
    if (n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3)) text += 3, n -= 3; /* a byte order mark, from some editors */
    json_t *v = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (v) {
        *out = v;
        return TL_OK;
    }
    tl_status code = json_status(json_error_code(&je));
    error_set(e, code, "JSON: %s (column %d)", je.text, je.column);
    error_at_file(e, path);
    if (je.line > 0) error_at_line(e, je.line);
    if (je.position >= 0) error_at_offset(e, je.position);
    return code;
}

tl_status json_read_file(const tl_allocator *a, const char *path, size_t max, json_t **out, tl_error *e) {
    char *data;
    size_t size;
    *out = NULL;
    TRY(file_read(a, path, max, &data, &size, e));
    tl_status s = json_parse(data, size, path, out, e);
    mem_free(a, data);
    return s;
}

static int json_put(const char *data, size_t n, void *user) {
    str *s = user;
    str_add(s, data, n);
    return s->failed ? -1 : 0;
}

tl_status json_write_file(const tl_allocator *a, const char *path, const json_t *v, tl_error *e) {
    str text;
    str_init(&text, a);
    tl_status s = TL_OK;
    if (json_dump_callback(v, json_put, &text, JSON_INDENT(2) | JSON_REAL_PRECISION(17) | JSON_ENCODE_ANY)) {
        s = text.failed ? error_set(e, TL_NOMEM, "no memory to write JSON")
                        : error_set(e, TL_FORMAT, "the value cannot be written as JSON");
        error_at_file(e, path);
    }
    str_addc(&text, '\n');
    if (!s && text.failed) s = error_set(e, TL_NOMEM, "no memory to write JSON"), error_at_file(e, path);
    if (!s) s = file_write(a, path, text.data, text.len, e);
    str_fini(&text);
    return s;
}

static const char *json_type_name(const json_t *v) {
    static const char *const names[] = {"an object", "an array", "a string", "an integer",
                                        "a number",  "true",     "false",    "null"};
    return names[json_typeof(v)];
}

static tl_status json_wrong(const json_t *v, const char *key, const char *wanted, tl_error *e) {
    error_set(e, TL_CONFIG, "\"%s\" must be %s and is %s", key, wanted, json_type_name(v));
    error_at_tensor(e, key);
    return TL_CONFIG;
}

/* The value of a key, NULL if absent or null. A CONFIG error when o is no object. */
static tl_status json_find(const json_t *o, const char *key, const json_t **v, tl_error *e) {
    *v = NULL;
    if (!json_is_object(o))
        return error_set(e, TL_CONFIG, "\"%s\" is looked for in %s instead of an object", key,
                         o ? json_type_name(o) : "nothing");
    const json_t *found = json_object_get(o, key);
    if (found && !json_is_null(found)) *v = found;
    return TL_OK;
}

tl_status json_get_int(const json_t *o, const char *key, int64_t min, int64_t max, int64_t *out, tl_error *e) {
    const json_t *v;
    TRY(json_find(o, key, &v, e));
    if (!v) return TL_OK;
    int64_t n;
    if (json_is_integer(v)) {
        n = json_integer_value(v);
    } else if (json_is_real(v)) {
        double d = json_real_value(v);
        if (d != floor(d) || !(fabs(d) < 0x1p63)) return json_wrong(v, key, "an integer", e);
        n = (int64_t)d;
    } else {
        return json_wrong(v, key, "an integer", e);
    }
    if (n < min || n > max) {
        error_set(e, TL_CONFIG, "\"%s\" is %lld and must lie in %lld..%lld", key, (long long)n, (long long)min,
                  (long long)max);
        error_at_tensor(e, key);
        return TL_CONFIG;
    }
    *out = n;
    return TL_OK;
}

tl_status json_get_real(const json_t *o, const char *key, double *out, tl_error *e) {
    const json_t *v;
    TRY(json_find(o, key, &v, e));
    if (!v) return TL_OK;
    if (!json_is_number(v)) return json_wrong(v, key, "a number", e);
    *out = json_number_value(v);
    return TL_OK;
}

tl_status json_get_bool(const json_t *o, const char *key, bool *out, tl_error *e) {
    const json_t *v;
    TRY(json_find(o, key, &v, e));
    if (!v) return TL_OK;
    if (!json_is_boolean(v)) return json_wrong(v, key, "true or false", e);
    *out = json_is_true(v);
    return TL_OK;
}

tl_status json_get_str(const json_t *o, const char *key, const char **out, tl_error *e) {
    const json_t *v;
    TRY(json_find(o, key, &v, e));
    if (!v) return TL_OK;
    if (!json_is_string(v)) return json_wrong(v, key, "a string", e);
    *out = json_string_value(v);
    return TL_OK;
}
