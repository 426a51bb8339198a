/* Which reader a file is for. */
#include "base/file.h"
#include "tokenizer/load.h"
#include "tokenizer/load_small.h"
#include <string.h>

static tl_status open_json_tree(const tl_allocator *a, const json_t *root, tokenizer **out, tl_error *e) {
    if (!json_is_object(root)) return error_set(e, TL_FORMAT, "a tokenizer file must hold a JSON object");
    if (json_object_get(root, "tilia_tokenizer")) return load_small(a, root, out, e);
    return error_set(e, TL_UNSUPPORTED, "tokenizer.json is not read yet");
}

tl_status tokenizer_from_json(const tl_allocator *a, const char *text, size_t n, tokenizer **out, tl_error *e) {
    json_t *root;
    TRY(json_parse(text, n, NULL, &root, e));
    tl_status s = open_json_tree(a, root, out, e);
    json_decref(root);
    return s;
}

tl_status tokenizer_open(const tl_allocator *a, const char *path, tokenizer **out, tl_error *e) {
    if (!strcmp(path, "bytes")) return tokenizer_from_bytes(a, out, e);
    char *data;
    size_t n;
    TRY(file_read(a, path, LOAD_MAX_BYTES, &data, &n, e));
    tl_status s = tokenizer_from_json(a, data, n, out, e);
    mem_free(a, data);
    if (s != TL_OK) error_at_file(e, path);
    return s;
}

tl_status tokenizer_save(const tokenizer *t, const char *path, tl_error *e) {
    if (t->model == MODEL_BYTES || t->model == MODEL_CHARS) return load_small_save(t, path, e);
    return error_set(e, TL_UNSUPPORTED, "not written yet");
}
