/* tiktoken's rank files: a line each with base64 bytes, a blank, the rank, which is the id. The file says neither
 * the pattern nor the special tokens; both follow from the encoding's name, which we take from the file's name, or
 * failing that from the number of ranks. What is known by neither is refused: a wrong pattern would give wrong ids and
 * say nothing. */
#include "tokenizer/added.h"
#include "tokenizer/load.h"
#include "tokenizer/split.h"
#include <string.h>

enum { LOAD_SPECIALS = 13 };

static const struct {
    const char *name;
    size_t ranks;
    split_kind split;
    struct {
        const char *text;
        int32_t id;
    } special[LOAD_SPECIALS];
} load_encodings[] = {
    {"gpt2", 50256, SPLIT_GPT2, {{"<|endoftext|>", 50256}}},
    {"r50k_base", 50256, SPLIT_GPT2, {{"<|endoftext|>", 50256}}},
    {"p50k_base", 50280, SPLIT_GPT2, {{"<|endoftext|>", 50256}}},
    {"cl100k_base",
     100256,
     SPLIT_CL100K_TIKTOKEN,
     {{"<|endoftext|>", 100257},
      {"<|fim_prefix|>", 100258},
      {"<|fim_middle|>", 100259},
      {"<|fim_suffix|>", 100260},
      {"<|endofprompt|>", 100276}}},
    {"o200k_base", 199998, SPLIT_O200K, {{"<|endoftext|>", 199999}, {"<|endofprompt|>", 200018}}},
    {"qwen", 151643, SPLIT_QWEN2, {{"<|endoftext|>", 151643}, {"<|im_start|>", 151644}, {"<|im_end|>", 151645}}},
    {"llama3",
     128000,
     SPLIT_CL100K,
     {{"<|begin_of_text|>", 128000},
      {"<|end_of_text|>", 128001},
      {"<|finetune_right_pad_id|>", 128004},
      {"<|step_id|>", 128005},
      {"<|start_header_id|>", 128006},
      {"<|end_header_id|>", 128007},
      {"<|eom_id|>", 128008},
      {"<|eot_id|>", 128009},
      {"<|python_tag|>", 128010}}},
    {"llama4",
     200000,
     SPLIT_O200K,
     {{"<|begin_of_text|>", 200000},
      {"<|end_of_text|>", 200001},
      {"<|fim_prefix|>", 200002},
      {"<|fim_middle|>", 200003},
      {"<|fim_suffix|>", 200004},
      {"<|header_start|>", 200005},
      {"<|header_end|>", 200006},
      {"<|eom|>", 200007},
      {"<|eot|>", 200008},
      {"<|step|>", 200009},
      {"<|python_start|>", 200016},
      {"<|python_end|>", 200017},
      {"<|finetune_right_pad|>", 200018}}},
};
enum { LOAD_ENCODINGS = sizeof load_encodings / sizeof *load_encodings };

static int load_base64(int c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* One line; its end. *n: bytes in buf (room for the line). */
static tl_status load_tiktoken_line(const char *p, const char *end, char *buf, size_t *n, int64_t *rank, tl_error *e) {
    uint32_t bits = 0;
    int have = 0;
    *n = 0;
    for (; p < end && load_base64((uint8_t)*p) >= 0; p++) {
        bits = bits << 6 | (uint32_t)load_base64((uint8_t)*p);
        if ((have += 6) >= 8) buf[(*n)++] = (char)(bits >> (have -= 8));
    }
    while (p < end && *p == '=') p++;
    if (p >= end || *p++ != ' ') return error_set(e, TL_FORMAT, "a line must be base64, a blank and a rank");
    *rank = 0;
    if (p >= end || end - p > 9) return error_set(e, TL_FORMAT, "the rank must have one to nine digits");
    for (; p < end; p++) {
        if (*p < '0' || *p > '9') return error_set(e, TL_FORMAT, "the rank is not a number");
        *rank = *rank * 10 + (*p - '0');
    }
    return TL_OK;
}

bool load_is_tiktoken(const char *text, size_t n) {
    if (n == 0) return false;
    const char *end = memchr(text, '\n', n < 4096 ? n : 4096);
    char buf[4096];
    size_t k;
    int64_t rank;
    if (!end) end = n < 4096 ? text + n : text;
    if (end > text && end[-1] == '\r') end--;
    return end > text && load_tiktoken_line(text, end, buf, &k, &rank, NULL) == TL_OK;
}

static tl_status load_tiktoken_lines(tokenizer *t, const char *text, size_t n, str *buf, tl_error *e) {
    size_t at = 0;
    for (int64_t line = 1; at < n; line++) {
        const char *nl = memchr(text + at, '\n', n - at);
        size_t len = nl ? (size_t)(nl - text) - at : n - at, next = at + len + 1, k;
        int64_t rank;
        if (len && text[at + len - 1] == '\r') len--;
        if (len) {
            str_clear(buf);
            str_add(buf, text + at, len); /* room */
            tl_status s = buf->failed ? error_set(e, TL_NOMEM, "no memory for the vocabulary")
                                      : load_tiktoken_line(text + at, text + at + len, buf->data, &k, &rank, e);
            if (s == TL_OK && k == 0) s = error_set(e, TL_FORMAT, "an empty token");
            if (s == TL_OK) s = vocab_put(&t->voc, rank, buf->data, k, 0, e);
            if (s != TL_OK) {
                error_at_line(e, line);
                return s;
            }
        }
        at = next;
    }
    return TL_OK;
}

static int load_encoding(const char *path, size_t ranks) {
    const char *base = path ? strrchr(path, '/') : NULL;
    base = base ? base + 1 : path;
    for (int i = 0; base && i < LOAD_ENCODINGS; i++)
        if (!strncmp(base, load_encodings[i].name, strlen(load_encodings[i].name))) return i;
    for (int i = 0; i < LOAD_ENCODINGS; i++)
        if (load_encodings[i].ranks == ranks) return i;
    return -1;
}

/* The pattern a file's name begins with; without a file, that of cl100k. */
static split_kind load_named(const char *path) {
    static const char *const name[] = {"gpt2", "cl100k", "o200k", "llama3", "qwen2"};
    const char *base = path ? strrchr(path, '/') : "/cl100k";
    base = base ? base + 1 : path;
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        if (!strncmp(base, name[i], strlen(name[i]))) return split_by_name(name[i]);
    return SPLIT_KINDS;
}

static tl_status load_tiktoken_into(tokenizer *t, const char *text, size_t n, const char *path, str *buf, tl_error *e) {
    TRY(load_tiktoken_lines(t, text, n, buf, e));
    size_t ranks = t->voc.used;
    int32_t *order = mem_new(t->alloc, t->voc.n, sizeof *order);
    if (!order) return error_set(e, TL_NOMEM, "no memory for merges");
    size_t k = 0;
    for (size_t i = 0; i < t->voc.n; i++)
        if (t->voc.entry[i].flags & VOCAB_PRESENT) order[k++] = (int32_t)i;
    t->bpe->byte_level = t->byte_level = true;
    t->bpe->ignore_merges = true; /* tiktoken looks a whole piece up first */
    tl_status s = bpe_derive(t->bpe, &t->voc, order, k, false, e);
    mem_free(t->alloc, order);
    TRY(s);
    TRY(bpe_ready(t->bpe, &t->voc, e));
    for (int i = 0; i < 256; i++)
        if (t->bpe->byte_id[i] < 0) return error_set(e, TL_FORMAT, "the byte 0x%02x has no rank", (unsigned)i);
    int which = load_encoding(path, ranks);
    split_kind kind = which < 0 ? load_named(path) : load_encodings[which].split;
    if (kind == SPLIT_KINDS)
        return error_set(e, TL_UNSUPPORTED,
                         "%zu ranks: of no encoding that is known, and a rank file does not say its pattern; let the "
                         "file's name begin with gpt2, cl100k, o200k, llama3 or qwen2",
                         ranks);
    const char *pattern = split_pattern(kind);
    str_clear(buf);
    load_pre_text(buf, pattern);
    if (buf->failed) return error_set(e, TL_NOMEM, "no memory for a tokenizer");
    TRY(load_parts_text(t, NULL, buf->data, NULL, load_byte_decoder, e));
    for (int i = 0; which >= 0 && i < LOAD_SPECIALS && load_encodings[which].special[i].text; i++) {
        const char *name = load_encodings[which].special[i].text;
        int64_t id = load_encodings[which].special[i].id;
        if (vocab_find(&t->voc, name, strlen(name)) >= 0) continue;
        TRY(load_added_token(t, id, name, strlen(name), ADDED_SPECIAL, e));
    }
    return TL_OK;
}

tl_status load_tiktoken(const tl_allocator *a, const char *text, size_t n, const char *path, tokenizer **out,
                        tl_error *e) {
    tokenizer *t;
    str buf;
    TRY(tokenizer_new(a, MODEL_BPE, &t, e));
    str_init(&buf, a);
    t->bpe = bpe_new(a);
    tl_status s =
        t->bpe ? load_tiktoken_into(t, text, n, path, &buf, e) : error_set(e, TL_NOMEM, "no memory for merges");
    str_fini(&buf);
    if (s == TL_OK)
        *out = t;
    else
        tokenizer_close(t);
    return s;
}
