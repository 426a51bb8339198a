#include "tokenizer/normalize.h"
#include "tokenizer/normalize_step.h"
#include <string.h>

void normalizer_free(normalizer *z) {
    if (!z) return;
    for (size_t i = 0; i < z->n; i++) {
        mem_free(z->alloc, z->step[i].text);
        mem_free(z->alloc, z->step[i].content);
        regex_free(z->step[i].pattern);
        charsmap_free(z->step[i].map);
    }
    mem_free(z->alloc, z->step);
    mem_free(z->alloc, z);
}

/* ---- reading --------------------------------------------------------------------------------- */

static tl_status normalize_dup(normalizer *z, const json_t *v, const char *what, char **text, size_t *n, tl_error *e) {
    if (!json_is_string(v)) return error_set(e, TL_FORMAT, "normalizer: %s must be a string", what);
    *n = json_string_length(v);
    *text = mem_new(z->alloc, *n + 1, 1);
    if (!*text) return error_set(e, TL_NOMEM, "no memory for a normalizer");
    memcpy(*text, json_string_value(v), *n);
    return TL_OK;
}

static tl_status normalize_load_replace(normalizer *z, normalize_step *s, const json_t *v, tl_error *e) {
    const json_t *p = json_object_get(v, "pattern"), *string = json_object_get(p, "String"),
                 *pattern = json_object_get(p, "Regex");
    TRY(normalize_dup(z, json_object_get(v, "content"), "Replace's content", &s->content, &s->content_n, e));
    if (string) {
        TRY(normalize_dup(z, string, "Replace's pattern", &s->text, &s->text_n, e));
        return s->text_n ? TL_OK : error_set(e, TL_FORMAT, "normalizer: Replace has an empty pattern");
    }
    if (!json_is_string(pattern)) return error_set(e, TL_FORMAT, "normalizer: Replace needs a String or Regex pattern");
    return regex_new(z->alloc, json_string_value(pattern), json_string_length(pattern), &s->pattern, e);
}

static int normalize_base64(int c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static tl_status normalize_load_precompiled(normalizer *z, normalize_step *s, const json_t *v, tl_error *e) {
    const json_t *map = json_object_get(v, "precompiled_charsmap");
    if (json_is_null(map)) map = NULL;
    if (map && !json_is_string(map))
        return error_set(e, TL_FORMAT, "normalizer: precompiled_charsmap must be a string");
    const char *text = map ? json_string_value(map) : "";
    size_t n = map ? json_string_length(map) : 0, k = 0;
    uint8_t *blob = mem_new(z->alloc, n / 4 * 3 + 4, 1);
    if (!blob) return error_set(e, TL_NOMEM, "no memory for a normalizer");
    uint32_t bits = 0;
    int have = 0;
    tl_status st = TL_OK;
    for (size_t i = 0; i < n && text[i] != '=' && st == TL_OK; i++) {
        int d = normalize_base64((uint8_t)text[i]);
        if (d < 0) st = error_set(e, TL_FORMAT, "normalizer: precompiled_charsmap is not base64 at its byte %zu", i);
        bits = bits << 6 | (uint32_t)(d & 63);
        if ((have += 6) >= 8) blob[k++] = (uint8_t)(bits >> (have -= 8));
    }
    if (st == TL_OK && k) st = charsmap_new(z->alloc, blob, k, &s->map, e);
    mem_free(z->alloc, blob);
    return st;
}

static tl_status normalize_load_step(normalizer *z, normalize_step *s, const char *type, const json_t *v, tl_error *e) {
    static const struct {
        const char *name;
        normalize_kind kind;
    } plain[] = {{"NFC", NORMALIZE_NFC},
                 {"NFD", NORMALIZE_NFD},
                 {"NFKC", NORMALIZE_NFKC},
                 {"NFKD", NORMALIZE_NFKD},
                 {"Lowercase", NORMALIZE_LOWERCASE},
                 {"StripAccents", NORMALIZE_STRIP_ACCENTS},
                 {"Nmt", NORMALIZE_NMT},
                 {"ByteLevel", NORMALIZE_BYTE_LEVEL}};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (!strcmp(type, plain[i].name)) {
            s->kind = plain[i].kind;
            z->byte_level |= s->kind == NORMALIZE_BYTE_LEVEL;
            return TL_OK;
        }
    if (!strcmp(type, "Strip")) {
        s->kind = NORMALIZE_STRIP;
        s->left = s->right = true;
        TRY(json_get_bool(v, "strip_left", &s->left, e));
        return json_get_bool(v, "strip_right", &s->right, e);
    }
    if (!strcmp(type, "BertNormalizer")) {
        s->kind = NORMALIZE_BERT;
        s->clean = s->chinese = s->lower = true;
        TRY(json_get_bool(v, "clean_text", &s->clean, e));
        TRY(json_get_bool(v, "handle_chinese_chars", &s->chinese, e));
        TRY(json_get_bool(v, "lowercase", &s->lower, e));
        s->accents = s->lower;
        return json_get_bool(v, "strip_accents", &s->accents, e);
    }
    if (!strcmp(type, "Replace")) {
        s->kind = NORMALIZE_REPLACE;
        return normalize_load_replace(z, s, v, e);
    }
    if (!strcmp(type, "Prepend")) {
        s->kind = NORMALIZE_PREPEND;
        return normalize_dup(z, json_object_get(v, "prepend"), "Prepend's prepend", &s->content, &s->content_n, e);
    }
    if (!strcmp(type, "Precompiled")) {
        s->kind = NORMALIZE_PRECOMPILED;
        return normalize_load_precompiled(z, s, v, e);
    }
    return error_set(e, TL_UNSUPPORTED, "normalizer \"%s\" is not known", type);
}

static tl_status normalize_load_any(normalizer *z, const json_t *v, int depth, tl_error *e) {
    const char *type = NULL;
    if (!json_is_object(v)) return error_set(e, TL_FORMAT, "normalizer must be an object");
    TRY(json_get_str(v, "type", &type, e));
    if (!type) return error_set(e, TL_FORMAT, "normalizer without \"type\"");
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(v, "normalizers");
        if (!json_is_array(list)) return error_set(e, TL_FORMAT, "normalizer Sequence needs a list \"normalizers\"");
        if (depth >= 8) return error_set(e, TL_LIMIT, "normalizers are nested too deeply");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(normalize_load_any(z, json_array_get(list, i), depth + 1, e));
        return TL_OK;
    }
    if (z->n >= 64) return error_set(e, TL_LIMIT, "more than 64 normalizers");
    if (!mem_reserve(z->alloc, &z->step, &z->cap, z->n + 1))
        return error_set(e, TL_NOMEM, "no memory for a normalizer");
    normalize_step *s = &z->step[z->n++];
    memset(s, 0, sizeof *s);
    return normalize_load_step(z, s, type, v, e);
}

tl_status normalizer_load(const tl_allocator *a, const json_t *v, normalizer **out, tl_error *e) {
    *out = NULL;
    if (!v || json_is_null(v)) return TL_OK;
    normalizer *z = mem_new(a, 1, sizeof *z);
    if (!z) return error_set(e, TL_NOMEM, "no memory for a normalizer");
    z->alloc = a;
    tl_status s = normalize_load_any(z, v, 0, e);
    if (s != TL_OK) {
        normalizer_free(z);
        return s;
    }
    z->only_nfc = z->n == 1 && z->step[0].kind == NORMALIZE_NFC;
    *out = z;
    return TL_OK;
}

/* ---- running --------------------------------------------------------------------------------- */

tl_status normalizer_run(const normalizer *z, const unicode_table *u, bool inside, text_buf *a, text_buf *b,
                         tl_error *e) {
    for (size_t i = 0; i < z->n; i++) {
        const normalize_step *s = &z->step[i];
        if (inside && s->kind == NORMALIZE_PREPEND) continue;
        if (s->kind == NORMALIZE_BYTE_LEVEL) continue; /* our vocabularies hold bytes: nothing to rewrite */
        text_reset(b, a->spans);
        TRY(normalize_apply(s, u, a, b, e));
        if (b->failed) return error_set(e, TL_NOMEM, "no memory to normalize a text");
        text_buf swap = *a;
        *a = *b;
        *b = swap;
    }
    return TL_OK;
}
