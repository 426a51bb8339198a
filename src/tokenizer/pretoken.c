#include "tokenizer/pretoken.h"
#include <string.h>

void pretokenizer_free(pretokenizer *z) {
    if (!z) return;
    for (size_t i = 0; i < z->n; i++) {
        mem_free(z->alloc, z->step[i].text);
        regex_free(z->step[i].pattern);
    }
    mem_free(z->alloc, z->step);
    mem_free(z->alloc, z);
}

static tl_status pretoken_dup(pretokenizer *z, pretoken_step *s, const char *text, size_t n, tl_error *e) {
    s->text = mem_new(z->alloc, n + 1, 1);
    if (!s->text) return error_set(e, TL_NOMEM, "no memory for a pre-tokenizer");
    memcpy(s->text, text, n);
    s->text_n = n;
    return TL_OK;
}

static tl_status pretoken_load_behavior(const json_t *v, pretoken_behavior *out, tl_error *e) {
    static const char *const camel[] = {"Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const char *name = NULL;
    TRY(json_get_str(v, "behavior", &name, e));
    for (int i = 0; name && i < 5; i++)
        if (!strcmp(name, camel[i])) {
            *out = (pretoken_behavior)i;
            return TL_OK;
        }
    return name ? error_set(e, TL_FORMAT, "pre_tokenizer: behavior \"%s\" is not known", name) : TL_OK;
}

static tl_status pretoken_load_split(pretokenizer *z, pretoken_step *s, const json_t *v, tl_error *e) {
    const json_t *p = json_object_get(v, "pattern"), *string = json_object_get(p, "String"),
                 *pattern = json_object_get(p, "Regex");
    s->kind = PRETOKEN_SPLIT;
    s->behavior = PRETOKEN_ISOLATED;
    s->scanner = SPLIT_KINDS;
    TRY(pretoken_load_behavior(v, &s->behavior, e));
    TRY(json_get_bool(v, "invert", &s->invert, e));
    if (json_is_string(string)) {
        if (!json_string_length(string)) return error_set(e, TL_FORMAT, "pre_tokenizer: Split has an empty pattern");
        return pretoken_dup(z, s, json_string_value(string), json_string_length(string), e);
    }
    if (!json_is_string(pattern))
        return error_set(e, TL_FORMAT, "pre_tokenizer: Split needs a String or Regex pattern");
    if (s->behavior == PRETOKEN_ISOLATED || (s->behavior == PRETOKEN_REMOVED && s->invert))
        s->scanner = split_by_pattern(json_string_value(pattern), json_string_length(pattern));
    if (s->scanner != SPLIT_KINDS) return TL_OK; /* our patterns match everywhere: both forms give the matches */
    return regex_new(z->alloc, json_string_value(pattern), json_string_length(pattern), &s->pattern, e);
}

static tl_status pretoken_load_metaspace(pretokenizer *z, pretoken_step *s, const json_t *v, tl_error *e) {
    const char *text = "\xe2\x96\x81", *scheme = NULL;
    bool old = true;
    s->kind = PRETOKEN_METASPACE;
    s->split = true;
    TRY(json_get_str(v, "replacement", &text, e));
    TRY(json_get_str(v, "prepend_scheme", &scheme, e));
    TRY(json_get_bool(v, "add_prefix_space", &old, e)); /* before prepend_scheme there was only this */
    TRY(json_get_bool(v, "split", &s->split, e));
    s->prepend = old ? 2 : 0;
    if (scheme) {
        if (strcmp(scheme, "never") && strcmp(scheme, "first") && strcmp(scheme, "always"))
            return error_set(e, TL_FORMAT, "pre_tokenizer: prepend_scheme \"%s\" is not known", scheme);
        s->prepend = scheme[0] == 'n' ? 0 : scheme[0] == 'f' ? 1 : 2;
    }
    if (!*text) return error_set(e, TL_FORMAT, "pre_tokenizer: Metaspace has an empty replacement");
    return pretoken_dup(z, s, text, strlen(text), e);
}

static tl_status pretoken_load_byte_level(pretokenizer *z, pretoken_step *s, const json_t *v, tl_error *e) {
    bool pattern = true;
    s->kind = PRETOKEN_BYTE_LEVEL;
    s->prefix_space = true;
    TRY(json_get_bool(v, "add_prefix_space", &s->prefix_space, e));
    TRY(json_get_bool(v, "use_regex", &pattern, e));
    s->scanner = pattern ? SPLIT_GPT2 : SPLIT_NONE;
    z->byte_level = true;
    return TL_OK;
}

static tl_status pretoken_load_step(pretokenizer *z, pretoken_step *s, const char *type, const json_t *v, tl_error *e) {
    static const struct {
        const char *name;
        pretoken_kind kind;
    } plain[] = {{"BertPreTokenizer", PRETOKEN_BERT},
                 {"Whitespace", PRETOKEN_WHITESPACE},
                 {"WhitespaceSplit", PRETOKEN_WHITESPACE_SPLIT},
                 {"UnicodeScripts", PRETOKEN_SCRIPTS}};
    s->scanner = SPLIT_KINDS;
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        if (!strcmp(type, plain[i].name)) {
            s->kind = plain[i].kind;
            return TL_OK;
        }
    if (!strcmp(type, "ByteLevel")) return pretoken_load_byte_level(z, s, v, e);
    if (!strcmp(type, "Metaspace")) return pretoken_load_metaspace(z, s, v, e);
    if (!strcmp(type, "Split")) return pretoken_load_split(z, s, v, e);
    if (!strcmp(type, "CharDelimiterSplit") || !strcmp(type, "Delimiter")) {
        const char *d = NULL;
        TRY(json_get_str(v, "delimiter", &d, e));
        if (!d || !*d) return error_set(e, TL_FORMAT, "pre_tokenizer: %s needs a delimiter", type);
        s->kind = PRETOKEN_SPLIT;
        s->behavior = PRETOKEN_REMOVED;
        return pretoken_dup(z, s, d, strlen(d), e);
    }
    if (!strcmp(type, "Punctuation")) {
        s->kind = PRETOKEN_PUNCTUATION;
        s->behavior = PRETOKEN_ISOLATED;
        return pretoken_load_behavior(v, &s->behavior, e);
    }
    if (!strcmp(type, "Digits")) {
        s->kind = PRETOKEN_DIGITS;
        return json_get_bool(v, "individual_digits", &s->individual, e);
    }
    if (!strcmp(type, "FixedLength")) {
        int64_t n = 5;
        s->kind = PRETOKEN_FIXED;
        TRY(json_get_int(v, "length", 1, 1 << 20, &n, e));
        s->length = (size_t)n;
        return TL_OK;
    }
    return error_set(e, TL_UNSUPPORTED, "pre_tokenizer \"%s\" is not known", type);
}

static tl_status pretoken_load_any(pretokenizer *z, const json_t *v, int depth, tl_error *e) {
    const char *type = NULL;
    if (!json_is_object(v)) return error_set(e, TL_FORMAT, "pre_tokenizer must be an object");
    TRY(json_get_str(v, "type", &type, e));
    if (!type) return error_set(e, TL_FORMAT, "pre_tokenizer without \"type\"");
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(v, "pretokenizers");
        if (!json_is_array(list))
            return error_set(e, TL_FORMAT, "pre_tokenizer Sequence needs a list \"pretokenizers\"");
        if (depth >= 8) return error_set(e, TL_LIMIT, "pre-tokenizers are nested too deeply");
        for (size_t i = 0; i < json_array_size(list); i++)
            TRY(pretoken_load_any(z, json_array_get(list, i), depth + 1, e));
        return TL_OK;
    }
    if (z->n >= 64) return error_set(e, TL_LIMIT, "more than 64 pre-tokenizers");
    if (!mem_reserve(z->alloc, &z->step, &z->cap, z->n + 1))
        return error_set(e, TL_NOMEM, "no memory for a pre-tokenizer");
    if (z->byte_level)
        return error_set(e, TL_UNSUPPORTED, "pre_tokenizer \"%s\" after \"ByteLevel\": it would have to cut bytes",
                         type);
    pretoken_step *s = &z->step[z->n++];
    memset(s, 0, sizeof *s);
    return pretoken_load_step(z, s, type, v, e);
}

/* Is it what a scanner or one pattern alone does? */
static void pretoken_classify(pretokenizer *z) {
    const pretoken_step *last = z->n ? &z->step[z->n - 1] : NULL;
    if (!last || last->kind != PRETOKEN_BYTE_LEVEL || last->prefix_space) return;
    if (z->n == 1) {
        z->fast = true;
        z->scanner = last->scanner;
    } else if (z->n == 2 && z->step[0].kind == PRETOKEN_SPLIT && last->scanner == SPLIT_NONE) {
        z->fast = z->step[0].scanner != SPLIT_KINDS;
        z->scanner = z->step[0].scanner;
        if (z->step[0].pattern && !z->step[0].invert && z->step[0].behavior == PRETOKEN_ISOLATED)
            z->stream = z->step[0].pattern;
    }
}

tl_status pretokenizer_load(const tl_allocator *a, const json_t *v, pretokenizer **out, tl_error *e) {
    *out = NULL;
    if (!v || json_is_null(v)) return TL_OK;
    pretokenizer *z = mem_new(a, 1, sizeof *z);
    if (!z) return error_set(e, TL_NOMEM, "no memory for a pre-tokenizer");
    z->alloc = a;
    tl_status s = pretoken_load_any(z, v, 0, e);
    if (s != TL_OK) {
        pretokenizer_free(z);
        return s;
    }
    pretoken_classify(z);
    *out = z;
    return TL_OK;
}

tl_status pretokenizer_run(const pretokenizer *z, const unicode_table *u, bool first, text_buf *a, text_buf *b,
                           tl_error *e) {
    for (size_t i = 0; i < z->n; i++) {
        text_reset(b, a->spans);
        TRY(pretoken_apply(&z->step[i], u, first, a, b, e));
        if (b->failed) return error_set(e, TL_NOMEM, "no memory for the pieces of a text");
        text_buf swap = *a;
        *a = *b;
        *b = swap;
    }
    return TL_OK;
}
