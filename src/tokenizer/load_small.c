/* The small files of the bytes and chars tokenizers: {"tilia_tokenizer": "bytes"} and
 * {"tilia_tokenizer": "chars", "code_points": [10, 32, ...]}. */
#include "tokenizer/load_small.h"
#include "base/file.h"
#include <string.h>

tl_status load_small(const tl_allocator *a, const json_t *root, tokenizer **out, tl_error *e) {
    const char *kind = NULL;
    TRY(json_get_str(root, "tilia_tokenizer", &kind, e));
    if (kind && !strcmp(kind, "bytes")) return tokenizer_from_bytes(a, out, e);
    if (!kind || strcmp(kind, "chars"))
        return error_set(e, TL_FORMAT, "\"tilia_tokenizer\" is neither \"bytes\" nor \"chars\"");
    const json_t *list = json_object_get(root, "code_points");
    if (!json_is_array(list)) return error_set(e, TL_FORMAT, "\"code_points\" must be a list");
    size_t n = json_array_size(list);
    uint32_t *cp = mem_new(a, n, sizeof *cp);
    if (!cp) return error_set(e, TL_NOMEM, "no memory for %zu code points", n);
    tl_status s = TL_OK;
    for (size_t i = 0; i < n && s == TL_OK; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t x = json_is_integer(v) ? json_integer_value(v) : -1;
        if (x < 0 || x > 0x10ffff)
            s = error_set(e, TL_FORMAT, "code_points[%zu] is not a code point", i);
        else
            cp[i] = (uint32_t)x;
    }
    if (s == TL_OK) s = chars_from_points(a, cp, n, out, e);
    mem_free(a, cp);
    return s;
}

tl_status load_small_save(const tokenizer *t, const char *path, tl_error *e) {
    str s;
    str_init(&s, t->alloc);
    if (t->model == MODEL_BYTES) {
        str_adds(&s, "{\"tilia_tokenizer\": \"bytes\"}\n");
    } else {
        str_adds(&s, "{\"tilia_tokenizer\": \"chars\", \"code_points\": [");
        for (size_t i = 0; i < t->chars_n; i++) str_addf(&s, "%s%u", i ? ", " : "", t->chars[i]);
        str_adds(&s, "]}\n");
    }
    tl_status r = s.failed ? error_set(e, TL_NOMEM, "no memory to write the tokenizer")
                           : file_write(t->alloc, path, s.data, s.len, e);
    str_fini(&s);
    return r;
}
