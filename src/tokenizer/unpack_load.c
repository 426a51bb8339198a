#include "tokenizer/unpack.h"
#include <string.h>

void unpack_free(unpacker *u) {
    if (!u) return;
    for (size_t i = 0; i < u->n; i++) {
        mem_free(u->alloc, u->step[i].text);
        mem_free(u->alloc, u->step[i].content);
        regex_free(u->step[i].pattern);
    }
    mem_free(u->alloc, u->step);
    mem_free(u->alloc, u);
}

static tl_status unpack_text(unpacker *u, const json_t *v, const char *key, const char *absent, char **out,
                             tl_error *e) {
    const char *text = absent;
    TRY(json_get_str(v, key, &text, e));
    if (!text) return error_set(e, TL_FORMAT, "decoder: \"%s\" is missing", key);
    *out = mem_strdup(u->alloc, text);
    return *out ? TL_OK : error_set(e, TL_NOMEM, "no memory for a decoder");
}

static tl_status unpack_load_replace(unpacker *u, unpack_step *s, const json_t *v, tl_error *e) {
    const json_t *p = json_object_get(v, "pattern"), *pattern = json_object_get(p, "Regex");
    s->kind = UNPACK_REPLACE;
    TRY(unpack_text(u, v, "content", NULL, &s->content, e));
    if (!json_is_string(pattern)) {
        TRY(unpack_text(u, p, "String", NULL, &s->text, e));
        return *s->text ? TL_OK : error_set(e, TL_FORMAT, "decoder: Replace has an empty pattern");
    }
    return regex_new(u->alloc, json_string_value(pattern), json_string_length(pattern), &s->pattern, e);
}

static tl_status unpack_load_metaspace(unpacker *u, unpack_step *s, const json_t *v, tl_error *e) {
    const char *scheme = NULL;
    s->kind = UNPACK_METASPACE;
    s->prefix = true;
    TRY(json_get_bool(v, "add_prefix_space", &s->prefix, e));
    TRY(json_get_str(v, "prepend_scheme", &scheme, e));
    if (scheme) s->prefix = strcmp(scheme, "never") != 0;
    TRY(unpack_text(u, v, "replacement", "\xe2\x96\x81", &s->text, e));
    return *s->text ? TL_OK : error_set(e, TL_FORMAT, "decoder: Metaspace has an empty replacement");
}

static tl_status unpack_load_step(unpacker *u, unpack_step *s, const char *type, const json_t *v, tl_error *e) {
    if (!strcmp(type, "ByteLevel"))
        s->kind = UNPACK_BYTE_LEVEL;
    else if (!strcmp(type, "ByteFallback"))
        s->kind = UNPACK_BYTE_FALLBACK;
    else if (!strcmp(type, "Fuse"))
        s->kind = UNPACK_FUSE;
    else if (!strcmp(type, "Replace"))
        return unpack_load_replace(u, s, v, e);
    else if (!strcmp(type, "Metaspace"))
        return unpack_load_metaspace(u, s, v, e);
    else if (!strcmp(type, "Strip")) {
        int64_t start = 0, stop = 0;
        s->kind = UNPACK_STRIP;
        TRY(json_get_int(v, "start", 0, 1 << 20, &start, e));
        TRY(json_get_int(v, "stop", 0, 1 << 20, &stop, e));
        s->start = (size_t)start;
        s->stop = (size_t)stop;
        TRY(unpack_text(u, v, "content", " ", &s->text, e));
        if (!*s->text) return error_set(e, TL_FORMAT, "decoder: Strip has an empty content");
    } else if (!strcmp(type, "WordPiece")) {
        s->kind = UNPACK_WORDPIECE;
        s->cleanup = true;
        TRY(json_get_bool(v, "cleanup", &s->cleanup, e));
        return unpack_text(u, v, "prefix", "##", &s->text, e);
    } else if (!strcmp(type, "BPEDecoder")) {
        s->kind = UNPACK_BPE;
        return unpack_text(u, v, "suffix", "</w>", &s->text, e);
    } else if (!strcmp(type, "CTC")) {
        s->kind = UNPACK_CTC;
        s->cleanup = true;
        TRY(json_get_bool(v, "cleanup", &s->cleanup, e));
        TRY(unpack_text(u, v, "pad_token", "<pad>", &s->text, e));
        return unpack_text(u, v, "word_delimiter_token", "|", &s->content, e);
    } else
        return error_set(e, TL_UNSUPPORTED, "decoder \"%s\" is not known", type);
    return TL_OK;
}

static tl_status unpack_load_any(unpacker *u, const json_t *v, int depth, tl_error *e) {
    const char *type = NULL;
    if (!json_is_object(v)) return error_set(e, TL_FORMAT, "decoder must be an object");
    TRY(json_get_str(v, "type", &type, e));
    if (!type) return error_set(e, TL_FORMAT, "decoder without \"type\"");
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(v, "decoders");
        if (!json_is_array(list)) return error_set(e, TL_FORMAT, "decoder Sequence needs a list \"decoders\"");
        if (depth >= 8) return error_set(e, TL_LIMIT, "decoders are nested too deeply");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(unpack_load_any(u, json_array_get(list, i), depth + 1, e));
        return TL_OK;
    }
    if (u->n >= 64) return error_set(e, TL_LIMIT, "more than 64 decoders");
    if (!mem_reserve(u->alloc, &u->step, &u->cap, u->n + 1)) return error_set(e, TL_NOMEM, "no memory for a decoder");
    unpack_step *s = &u->step[u->n++];
    memset(s, 0, sizeof *s);
    return unpack_load_step(u, s, type, v, e);
}

/* Can the chain be followed token by token? */
static void unpack_classify(unpacker *u) {
    bool fused = false;
    u->flows = true;
    for (size_t i = 0; i < u->n; i++) {
        const unpack_step *s = &u->step[i];
        switch (s->kind) {
        case UNPACK_BYTE_LEVEL:
        case UNPACK_FUSE: fused = true; break;
        case UNPACK_BYTE_FALLBACK:
            u->flows &= !fused;
            u->fallback = true;
            break;
        case UNPACK_REPLACE:
            u->flows &= !fused && !u->mark && s->text && !strcmp(s->content, " ");
            u->mark = s->text;
            break;
        case UNPACK_METASPACE:
            u->flows &= !fused && !u->mark;
            u->mark = s->text;
            u->drop_mark = s->prefix;
            break;
        case UNPACK_STRIP:
            u->flows &= fused && s->stop == 0 && !strcmp(s->text, " ");
            u->strip += s->start;
            break;
        default: u->flows = false;
        }
    }
}

tl_status unpack_load(const tl_allocator *a, const json_t *v, unpacker **out, tl_error *e) {
    *out = NULL;
    if (!v || json_is_null(v)) return TL_OK;
    unpacker *u = mem_new(a, 1, sizeof *u);
    if (!u) return error_set(e, TL_NOMEM, "no memory for a decoder");
    u->alloc = a;
    tl_status s = unpack_load_any(u, v, 0, e);
    if (s != TL_OK) {
        unpack_free(u);
        return s;
    }
    unpack_classify(u);
    *out = u;
    return TL_OK;
}
