#include "tokenizer/split.h"
#include <limits.h>
#include <string.h>

static const char split_gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
static const char split_cl100k_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char split_cl100k_tiktoken_pattern[] =
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|"
    "\\s*[\\r\\n]|\\s+(?!\\S)|\\s";
static const char split_o200k_pattern[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*"
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    "\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char split_cl100k_ruby_pattern[] =
    "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|"
    "\\s*[\\r\\n]|\\s+(?!\\S)|\\s";
static const char split_qwen2_pattern[] =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/* Class bit of the character at p < end, its length in *len. A character the text's end cuts off sets *hit. */
static inline unsigned split_bit(const unicode_table *u, const uint8_t *p, const uint8_t *end, unsigned *len,
                                 bool *hit) {
    uint32_t c = *p, cp;
    if (c < 128) {
        *len = 1;
        return 1u << u->ascii[c];
    }
    if (c >= 0xe1 && c < 0xed && end - p > 2 && (p[1] & 0xc0) == 0x80 && (p[2] & 0xc0) == 0x80) {
        *len = 3; /* most of Asia: three bytes, none of the special cases */
        return 1u << unicode_of(u, (c & 15) << 12 | (p[1] & 63u) << 6 | (p[2] & 63u));
    }
    bool bad;
    *len = unicode_decode(p, end, &cp, &bad);
    if (bad && p + *len == end && unicode_unfinished(p, end)) *hit = true;
    return 1u << unicode_of(u, cp);
}

/* End of the run of characters whose class is in set. */
static inline const uint8_t *split_run(const unicode_table *u, const uint8_t *p, const uint8_t *end, unsigned set,
                                       bool *hit) {
    for (;;) {
        if (p >= end) {
            *hit = true;
            return p;
        }
        unsigned len, bit = split_bit(u, p, end, &len, hit);
        if (!(bit & set)) return p;
        p += len;
    }
}

static inline const uint8_t *split_newlines(const uint8_t *p, const uint8_t *end, bool slash, bool *hit) {
    while (p < end && (*p == '\n' || *p == '\r' || (slash && *p == '/'))) p++;
    if (p == end) *hit = true;
    return p;
}

/* Length of 's 't 're 've 'm 'll 'd at p, which is an apostrophe; 0: none. fold: any case, U+017F for s too. */
static unsigned split_contraction(const uint8_t *p, const uint8_t *end, bool fold, bool *hit) {
    if (end - p < 3) *hit = true;
    if (end - p < 2) return 0;
    uint8_t a = p[1], b = end - p > 2 ? p[2] : 0;
    if (fold && a == 0xc5 && b == 0xbf) return 3;
    if (fold && a >= 'A' && a <= 'Z') a |= 32;
    if (fold && b >= 'A' && b <= 'Z') b |= 32;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ for a run that begins at p, \s*[\r\n]+ before it if lines, and \s++$ before that if tail. */
static const uint8_t *split_space(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool lines, bool tail,
                                  bool *hit) {
    const uint8_t *q = p, *last = p, *newline = NULL;
    while (q < end) {
        unsigned len, bit = split_bit(u, q, end, &len, hit);
        if (!(bit & UNICODE_IS_SPACE)) break;
        last = q;
        if (*q == '\n' || *q == '\r') newline = q + 1;
        q += len;
    }
    if (q == end) *hit = true;
    if (tail && q == end) return q;
    if (lines && newline) return newline;
    return q == end || last == p ? q : last;
}

static const uint8_t *split_gpt2(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool *hit) {
    const uint8_t *q = p;
    if (*p == '\'') {
        unsigned n = split_contraction(p, end, false, hit);
        if (n) return p + n;
    } else if (*p == ' ') {
        if (++q == end) {
            *hit = true;
            return q;
        }
    }
    unsigned len, bit = split_bit(u, q, end, &len, hit);
    if (bit & UNICODE_IS_L) return split_run(u, q + len, end, UNICODE_IS_L, hit);
    if (bit & UNICODE_IS_N) return split_run(u, q + len, end, UNICODE_IS_N, hit);
    if (bit & UNICODE_IS_SYM) return split_run(u, q + len, end, UNICODE_IS_SYM, hit);
    return split_space(u, p, end, false, false, hit);
}

static inline const uint8_t *split_digits(const unicode_table *u, const uint8_t *p, const uint8_t *end, int most,
                                          bool *hit) {
    while (most-- > 0) {
        if (p == end) {
            *hit = true;
            break;
        }
        unsigned len, bit = split_bit(u, p, end, &len, hit);
        if (!(bit & UNICODE_IS_N)) break;
        p += len;
    }
    return p;
}

static inline const uint8_t *split_cl(const unicode_table *u, const uint8_t *p, const uint8_t *end, int digits,
                                      bool tail, bool *hit) {
    if (*p == '\'') {
        unsigned n = split_contraction(p, end, true, hit);
        if (n) return p + n;
    }
    unsigned len, bit = split_bit(u, p, end, &len, hit), next_len = 0, next = 0;
    const uint8_t *q = p + len;
    if (bit & UNICODE_IS_L) return split_run(u, q, end, UNICODE_IS_L, hit);
    if (bit & UNICODE_IS_N) return split_digits(u, q, end, digits - 1, hit);
    if (q == end)
        *hit = true;
    else
        next = split_bit(u, q, end, &next_len, hit);
    if ((next & UNICODE_IS_L) && *p != '\n' && *p != '\r') return split_run(u, q + next_len, end, UNICODE_IS_L, hit);
    if (bit & UNICODE_IS_SYM) return split_newlines(split_run(u, q, end, UNICODE_IS_SYM, hit), end, false, hit);
    if (*p == ' ' && (next & UNICODE_IS_SYM))
        return split_newlines(split_run(u, q + next_len, end, UNICODE_IS_SYM, hit), end, false, hit);
    return split_space(u, p, end, true, tail, hit);
}

static const uint8_t *split_cl100k(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool *hit) {
    return split_cl(u, p, end, 3, false, hit);
}

static const uint8_t *split_cl100k_tiktoken(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool *hit) {
    return split_cl(u, p, end, 3, true, hit);
}

static const uint8_t *split_cl100k_ruby(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool *hit) {
    return split_cl(u, p, end, INT_MAX, true, hit);
}

static const uint8_t *split_qwen2(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool *hit) {
    return split_cl(u, p, end, 1, false, hit);
}

/* [upper]*[lower]+ at p if first, [upper]+[lower]* if not; NULL: no match. Classes Lm, Lo and M are in both sets, so
 * the first form gives back what the upper run took until a lower one is found. */
static const uint8_t *split_case(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool first, bool *hit) {
    const uint8_t *q = p, *both_end = NULL;
    unsigned len = 0, bit = 0;
    for (; q < end; q += len) {
        bit = split_bit(u, q, end, &len, hit);
        if (!(bit & UNICODE_IS_UPPER)) break;
        if (bit & UNICODE_IS_LOWER) both_end = q + len;
    }
    if (q == end)
        *hit = true;
    else if (bit & UNICODE_IS_LOWER)
        return first || q > p ? split_run(u, q + len, end, UNICODE_IS_LOWER, hit) : NULL;
    if (first) return both_end;
    return q > p ? q : NULL;
}

static const uint8_t *split_o200k(const unicode_table *u, const uint8_t *p, const uint8_t *end, bool *hit) {
    unsigned len, bit = split_bit(u, p, end, &len, hit), next_len = 0, next = 0;
    const uint8_t *q = p + len, *r = NULL;
    if (q == end)
        *hit = true;
    else
        next = split_bit(u, q, end, &next_len, hit);
    bool prefix = !(bit & (UNICODE_IS_L | UNICODE_IS_N)) && *p != '\n' && *p != '\r' &&
                  (next & (UNICODE_IS_L | 1u << UNICODE_M)) != 0;
    bool letter = (bit & (UNICODE_IS_L | 1u << UNICODE_M)) != 0;
    for (int form = 0; form < 2 && !r;
         form++) { /* the pattern's first two alternatives, each with and without prefix */
        if (prefix) r = split_case(u, q, end, form == 0, hit);
        if (!r && letter) r = split_case(u, p, end, form == 0, hit);
    }
    if (r) {
        if (r == end) *hit = true;
        return r < end && *r == '\'' ? r + split_contraction(r, end, true, hit) : r;
    }
    if (bit & UNICODE_IS_N) return split_digits(u, q, end, 2, hit);
    if (bit & UNICODE_IS_SYM) return split_newlines(split_run(u, q, end, UNICODE_IS_SYM, hit), end, true, hit);
    if (*p == ' ' && (next & UNICODE_IS_SYM))
        return split_newlines(split_run(u, q + next_len, end, UNICODE_IS_SYM, hit), end, true, hit);
    return split_space(u, p, end, true, false, hit);
}

split_fn split_of(split_kind kind) {
    static const split_fn fn[SPLIT_KINDS] = {NULL,        split_gpt2,  split_cl100k,     split_cl100k_tiktoken,
                                             split_o200k, split_qwen2, split_cl100k_ruby};
    return fn[kind];
}

const char *split_pattern(split_kind kind) {
    static const char *const pattern[SPLIT_KINDS] = {NULL,
                                                     split_gpt2_pattern,
                                                     split_cl100k_pattern,
                                                     split_cl100k_tiktoken_pattern,
                                                     split_o200k_pattern,
                                                     split_qwen2_pattern,
                                                     split_cl100k_ruby_pattern};
    return pattern[kind];
}

split_kind split_by_pattern(const char *pattern, size_t n) {
    static const struct {
        split_kind kind;
        const char *text;
    } other[] = {
        /* the same languages in other words */
        {SPLIT_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}++| ?\\p{N}++| ?[^\\s\\p{L}\\p{N}]++|\\s++$|\\s+(?!\\S)|\\s"},
        {SPLIT_GPT2, "'(?:[sdmt]|ll|ve|re)| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
        {SPLIT_CL100K, "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}{1,3}| "
                       "?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+"},
        {SPLIT_CL100K, "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
                       "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"},
    };
    for (int k = SPLIT_GPT2; k < SPLIT_KINDS; k++)
        if (strlen(split_pattern((split_kind)k)) == n && !memcmp(pattern, split_pattern((split_kind)k), n))
            return (split_kind)k;
    for (size_t i = 0; i < sizeof other / sizeof *other; i++)
        if (strlen(other[i].text) == n && !memcmp(pattern, other[i].text, n)) return other[i].kind;
    return SPLIT_KINDS;
}

split_kind split_by_name(const char *name) {
    static const struct {
        const char *name;
        split_kind kind;
    } list[] = {{"none", SPLIT_NONE},     {"gpt2", SPLIT_GPT2},   {"cl100k", SPLIT_CL100K},
                {"llama3", SPLIT_CL100K}, {"o200k", SPLIT_O200K}, {"qwen2", SPLIT_QWEN2}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (!strcmp(name, list[i].name)) return list[i].kind;
    return SPLIT_KINDS;
}

const char *split_name(split_kind kind) {
    static const char *const name[] = {"none",
                                       "gpt2",
                                       "cl100k",
                                       "cl100k, tiktoken's form",
                                       "o200k",
                                       "qwen2",
                                       "cl100k, tiktoken's form read by Oniguruma",
                                       ""};
    return name[kind <= SPLIT_KINDS ? kind : SPLIT_KINDS];
}

/* Is the character that ends before a (begin < a) or begins at a surely neither white space nor half a character? */
static bool split_ends_graph(const uint8_t *begin, const uint8_t *a) {
    if (a[-1] < 0x80) return a[-1] > ' ' && a[-1] < 127;
    if (a - begin < 3) return false;
    return a[-2] != 0xc2 && a[-3] != 0xe1 && a[-3] != 0xe2 && !(a[-3] == 0xe3 && a[-2] == 0x80);
}

static bool split_begins_graph(const uint8_t *a, const uint8_t *end) {
    if (*a < 0x80) return *a > ' ' && *a < 127;
    return (*a == 0xe3 && end - a > 1 && a[1] != 0x80) || (*a >= 0xe4 && *a <= 0xf4);
}

/* A word, then a blank; or a lone line end between visible characters (of several white characters the last may be
 * a piece of its own, which a text that ended there would not show). */
bool split_is_border(const uint8_t *begin, const uint8_t *a, const uint8_t *end) {
    if (a <= begin || a >= end) return false;
    if (*a == ' ') return a[-1] > ' ' && a[-1] < 127;
    return a[-1] == '\n' && a - begin > 1 && *a != '/' && split_ends_graph(begin, a - 1) && split_begins_graph(a, end);
}
