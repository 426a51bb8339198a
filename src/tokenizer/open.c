/* Which reader a file is for. */
#include "base/file.h"
#include "tokenizer/load.h"
#include "tokenizer/load_small.h"
#include <string.h>

static tl_status open_json_tree(const tl_allocator *a, const json_t *root, tokenizer **out, tl_error *e) {
    if (!json_is_object(root)) return error_set(e, TL_FORMAT, "a tokenizer file must hold a JSON object");
    if (json_object_get(root, "tilia_tokenizer")) return load_small(a, root, out, e);
    return load_json(a, root, out, e);
}

static tl_status open_finish(tokenizer **out, tl_status s, const char *path, tl_error *e) {
    if (s == TL_OK && path) s = load_config(*out, path, e);
    if (s == TL_OK && (*out)->model >= MODEL_BPE) s = load_finish(*out, e);
    if (s == TL_OK) return s;
    tokenizer_close(*out);
    *out = NULL;
    return s;
}

tl_status tokenizer_from_json(const tl_allocator *a, const char *text, size_t n, tokenizer **out, tl_error *e) {
    json_t *root;
    *out = NULL;
    TRY(json_parse(text, n, NULL, &root, e));
    tl_status s = open_json_tree(a, root, out, e);
    json_decref(root);
    return open_finish(out, s, NULL, e);
}

/* path's folder and another name, in buf; false: too long. */
static bool open_beside(const char *path, const char *name, char *buf, size_t size) {
    const char *slash = strrchr(path, '/');
    int n = snprintf(buf, size, "%.*s%s", slash ? (int)(slash - path + 1) : 0, path, name);
    return n > 0 && (size_t)n < size;
}

static bool open_is_pair(const tl_allocator *a, const char *path, char *v, char *m, size_t size) {
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path;
    (void)a;
    if (strcmp(base, "vocab.json") && strcmp(base, "merges.txt")) return false;
    return open_beside(path, "vocab.json", v, size) && open_beside(path, "merges.txt", m, size) && file_exists(v) &&
           file_exists(m);
}

static tl_status open_bytes(const tl_allocator *a, const char *data, size_t n, const char *path, tokenizer **out,
                            tl_error *e) {
    size_t at = 0;
    while (at < n && (data[at] == ' ' || data[at] == '\n' || data[at] == '\r' || data[at] == '\t')) at++;
    if (n >= 3 && !memcmp(data, "\xef\xbb\xbf", 3)) at = 3;
    if (at < n && data[at] == '{') {
        json_t *root;
        TRY(json_parse(data, n, path, &root, e));
        tl_status s = open_json_tree(a, root, out, e);
        json_decref(root);
        return s;
    }
    if (load_is_sentencepiece((const uint8_t *)data, n)) return load_sentencepiece(a, (const uint8_t *)data, n, out, e);
    if (load_is_tiktoken(data, n)) return load_tiktoken(a, data, n, path, out, e);
    return error_set(e, TL_FORMAT,
                     "not a tokenizer file of a known kind (tokenizer.json, vocab.json and merges.txt, "
                     "tiktoken ranks, SentencePiece model, GGUF)");
}

static tl_status open_file(const tl_allocator *a, const char *path, tokenizer **out, tl_error *e) {
    char words[1024], merges[1024];
    if (open_is_pair(a, path, words, merges, sizeof words)) return load_gpt2(a, words, merges, out, e);
    file_map m;
    TRY(file_map_open(path, &m, e));
    if (m.size >= 4 && !memcmp(m.data, "GGUF", 4)) {
        file_map_close(&m);
        return load_gguf(a, path, out, e);
    }
    tl_status s = m.size > LOAD_MAX_BYTES ? error_set(e, TL_LIMIT, "a tokenizer file of %zu bytes", m.size)
                                          : open_bytes(a, (const char *)m.data, m.size, path, out, e);
    file_map_close(&m);
    if (s != TL_OK) error_at_file(e, path);
    return s;
}

static tl_status open_dir(const tl_allocator *a, const char *path, tokenizer **out, tl_error *e) {
    static const char *const name[] = {"tokenizer.json", "tokenizer.model", "vocab.json"};
    char buf[1024];
    for (size_t i = 0; i < sizeof name / sizeof *name; i++) {
        int n = snprintf(buf, sizeof buf, "%s/%s", path, name[i]);
        if (n < 0 || (size_t)n >= sizeof buf) return error_set(e, TL_ARG, "the path is too long");
        if (file_exists(buf)) return tokenizer_open(a, buf, out, e);
    }
    error_set(e, TL_NOTFOUND, "the folder holds no tokenizer.json, tokenizer.model or vocab.json");
    error_at_file(e, path);
    return TL_NOTFOUND;
}

tl_status tokenizer_open(const tl_allocator *a, const char *path, tokenizer **out, tl_error *e) {
    *out = NULL;
    if (!strcmp(path, "bytes")) return tokenizer_from_bytes(a, out, e);
    if (file_is_dir(path)) return open_dir(a, path, out, e);
    return open_finish(out, open_file(a, path, out, e), path, e);
}
