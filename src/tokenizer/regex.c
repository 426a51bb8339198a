#define PCRE2_CODE_UNIT_WIDTH 8
#include "tokenizer/regex.h"
#include "base/str.h"
#include <pcre2.h>
#include <pthread.h>
#include <string.h>

enum {
    REGEX_MAX_PATTERN = 64 << 10,
    REGEX_MATCH_LIMIT = 20000000,
    REGEX_DEPTH_LIMIT = 20000,
    REGEX_HEAP_KIB = 64 << 10,
    REGEX_STACK_MAX = 4 << 20
};

typedef struct regex_state { /* of one match at a time */
    struct regex_state *next;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
} regex_state;

struct regex {
    const tl_allocator *alloc;
    pcre2_general_context *general;
    pcre2_compile_context *compile;
    pcre2_code *code;
    bool jit;
    pthread_mutex_t lock;
    regex_state *idle;
};

static void *regex_alloc(size_t n, void *user) {
    return mem_new(user, 1, n);
}

static void regex_release(void *p, void *user) {
    mem_free(user, p);
}

static void regex_state_free(regex *r, regex_state *s) {
    if (!s) return;
    pcre2_match_data_free(s->data);
    pcre2_match_context_free(s->context);
    pcre2_jit_stack_free(s->stack);
    mem_free(r->alloc, s);
}

static regex_state *regex_state_new(regex *r) {
    regex_state *s = mem_new(r->alloc, 1, sizeof *s);
    if (!s) return NULL;
    s->data = pcre2_match_data_create(1, r->general);
    s->context = pcre2_match_context_create(r->general);
    if (r->jit) s->stack = pcre2_jit_stack_create(32 << 10, REGEX_STACK_MAX, r->general);
    if (!s->data || !s->context || (r->jit && !s->stack)) {
        regex_state_free(r, s);
        return NULL;
    }
    pcre2_set_match_limit(s->context, REGEX_MATCH_LIMIT);
    pcre2_set_depth_limit(s->context, REGEX_DEPTH_LIMIT);
    pcre2_set_heap_limit(s->context, REGEX_HEAP_KIB);
    if (s->stack) pcre2_jit_stack_assign(s->context, NULL, s->stack);
    return s;
}

void regex_free(regex *r) {
    if (!r) return;
    while (r->idle) {
        regex_state *s = r->idle;
        r->idle = s->next;
        regex_state_free(r, s);
    }
    pcre2_code_free(r->code);
    pcre2_compile_context_free(r->compile);
    pcre2_general_context_free(r->general);
    pthread_mutex_destroy(&r->lock);
    mem_free(r->alloc, r);
}

/* Files are written for Oniguruma: there \w holds marks and connectors, \h is a hexadecimal digit, and
 * ^ and $ stand at lines. The rest is said alike, but for X{n,m}+, which PCRE2 takes as possessive. */
#define REGEX_WORD "\\p{L}\\p{M}\\p{N}\\p{Pc}"

static void regex_translate(const char *p, size_t n, str *out) {
    bool set = false; /* inside [ ] */
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '\\' && i + 1 < n) {
            char c = p[++i];
            if (c == 'w')
                str_adds(out, set ? REGEX_WORD : "[" REGEX_WORD "]");
            else if (c == 'W' && !set)
                str_adds(out, "[^" REGEX_WORD "]");
            else if (c == 'h')
                str_adds(out, set ? "0-9a-fA-F" : "[0-9a-fA-F]");
            else
                str_add(out, p + i - 1, 2);
            continue;
        }
        if (p[i] == '[')
            set = true;
        else if (p[i] == ']')
            set = false;
        str_addc(out, p[i]);
    }
}

tl_status regex_new(const tl_allocator *a, const char *pattern, size_t n, regex **out, tl_error *e) {
    if (n > REGEX_MAX_PATTERN) return error_set(e, TL_LIMIT, "a pattern of %zu bytes", n);
    regex *r = mem_new(a, 1, sizeof *r);
    if (!r) return error_set(e, TL_NOMEM, "no memory for a pattern");
    r->alloc = a;
    pthread_mutex_init(&r->lock, NULL);
    int code = 0;
    size_t at = 0;
    r->general = pcre2_general_context_create(regex_alloc, regex_release, (void *)(uintptr_t)a);
    r->compile = r->general ? pcre2_compile_context_create(r->general) : NULL;
    if (!r->compile) {
        regex_free(r);
        return error_set(e, TL_NOMEM, "no memory for a pattern");
    }
    pcre2_set_parens_nest_limit(r->compile, 100);
    str text;
    str_init(&text, a);
    regex_translate(pattern, n, &text);
    if (!text.failed)
        r->code =
            pcre2_compile((PCRE2_SPTR)(text.data ? text.data : ""), text.len,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_MATCH_INVALID_UTF | PCRE2_NEVER_BACKSLASH_C,
                          &code, &at, r->compile);
    bool failed = text.failed;
    str_fini(&text);
    if (failed) {
        regex_free(r);
        return error_set(e, TL_NOMEM, "no memory for a pattern");
    }
    if (!r->code) {
        char why[200];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        regex_free(r);
        tl_status s = code == PCRE2_ERROR_NOMEMORY || code == 121 ? TL_NOMEM : TL_FORMAT;
        return error_set(e, s, "the pattern is wrong at its byte %zu: %s", at, why);
    }
    r->jit = pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD) == 0;
    *out = r;
    return TL_OK;
}

static tl_status regex_error(int code, tl_error *e) {
    char text[200];
    if (code == PCRE2_ERROR_NOMEMORY) return error_set(e, TL_NOMEM, "no memory to match a pattern");
    pcre2_get_error_message(code, (PCRE2_UCHAR *)text, sizeof text);
    return error_set(e, TL_LIMIT, "the tokenizer's pattern does too much work on this text: %s", text);
}

tl_status regex_next(const regex *cr, const char *text, size_t n, size_t from, bool more, bool *found, size_t *begin,
                     size_t *end, bool *open, tl_error *e) {
    regex *r = (regex *)(uintptr_t)cr; /* the list of idle states is the one thing that changes, under its lock */
    *found = false;
    pthread_mutex_lock(&r->lock);
    regex_state *s = r->idle;
    if (s) r->idle = s->next;
    pthread_mutex_unlock(&r->lock);
    if (!s && !(s = regex_state_new(r))) return error_set(e, TL_NOMEM, "no memory to match a pattern");
    int rc = pcre2_match(r->code, (PCRE2_SPTR)text, n, from, more ? PCRE2_PARTIAL_HARD : 0, s->data, s->context);
    if (rc >= 0) {
        const size_t *o = pcre2_get_ovector_pointer(s->data);
        *found = true;
        *begin = o[0] < from ? from : o[0];
        *end = o[1] < *begin ? *begin : o[1]; /* \K may turn them around */
    }
    pthread_mutex_lock(&r->lock);
    s->next = r->idle;
    r->idle = s;
    pthread_mutex_unlock(&r->lock);
    if (rc == PCRE2_ERROR_PARTIAL && open) *open = true;
    return rc >= 0 || rc == PCRE2_ERROR_NOMATCH || rc == PCRE2_ERROR_PARTIAL ? TL_OK : regex_error(rc, e);
}
