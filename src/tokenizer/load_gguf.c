/* The tokenizer keys of GGUF: "gpt2" (byte-level BPE), "llama" (SentencePiece BPE), "t5" (Unigram), "bert" (WordPiece).
 */
#include "format/gguf.h"
#include "tokenizer/added.h"
#include "tokenizer/alphabet.h"
#include "tokenizer/load_pieces.h"
#include "tokenizer/models.h"
#include "tokenizer/split.h"
#include <string.h>

/* Patterns no scanner of ours knows. */
static const char load_tekken[] =
    "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p"
    "{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}| ?[^\\s\\p{L}\\"
    "p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
static const char load_deepseek_v3[] =
    "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\\\\p{N}{1,3}\""
    "},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\u4e00-\\"
    "u9fa5\\u3040-\\u309f\\u30a0-\\u30ff]+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"Spli"
    "t\",\"pattern\":{\"Regex\":\"[!\\\"#$%&'()*+,\\\\-./:;<=>?@\\\\[\\\\\\\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\"
    "n\\\\p{L}\\\\p{P}\\\\p{S}]?[\\\\p{L}\\\\p{M}]+| ?[\\\\p{P}\\\\p{S}]+[\\r\\n]*|\\\\s*[\\r\\n]+|\\\\s+("
    "?!\\\\S)|\\\\s+\"},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_s"
    "pace\":false,\"trim_offsets\":true,\"use_regex\":false}]}";

/* tokenizer.ggml.pre: which pattern, whether digits stand alone before it, whether whole pieces are looked up. */
static const struct {
    const char *name;
    split_kind split;
    bool digits, whole;
    const char *pattern, *json; /* instead of split: a pattern, or a pre-tokenizer of tokenizer.json */
} load_pre[] = {
    {"gpt-2", SPLIT_GPT2, false, false, NULL, NULL},
    {"phi-2", SPLIT_GPT2, false, false, NULL, NULL},
    {"olmo", SPLIT_GPT2, false, false, NULL, NULL},
    {"mpt", SPLIT_GPT2, false, false, NULL, NULL},
    {"jina-es", SPLIT_GPT2, false, false, NULL, NULL},
    {"roberta-bpe", SPLIT_GPT2, false, false, NULL, NULL},
    {"default", SPLIT_GPT2, false, false, NULL, NULL},
    {"smollm", SPLIT_GPT2, true, false, NULL, NULL},
    {"starcoder", SPLIT_GPT2, true, false, NULL, NULL},
    {"refact", SPLIT_GPT2, true, false, NULL, NULL},
    {"command-r", SPLIT_GPT2, true, false, NULL, NULL},
    {"codeshell", SPLIT_GPT2, true, false, NULL, NULL},
    {"llama-bpe", SPLIT_CL100K, false, true, NULL, NULL},
    {"llama3", SPLIT_CL100K, false, true, NULL, NULL},
    {"llama-v3", SPLIT_CL100K, false, true, NULL, NULL},
    {"dbrx", SPLIT_CL100K, false, false, NULL, NULL},
    {"smaug-bpe", SPLIT_CL100K, false, false, NULL, NULL},
    {"gpt-4", SPLIT_CL100K, false, false, NULL, NULL},
    {"qwen2", SPLIT_QWEN2, false, false, NULL, NULL},
    {"stablelm2", SPLIT_QWEN2, false, false, NULL, NULL},
    {"deepseek-r1-qwen", SPLIT_QWEN2, false, false, NULL, NULL},
    {"gpt-4o", SPLIT_O200K, false, false, NULL, NULL},
    {"llama4", SPLIT_O200K, false, false, NULL, NULL},
    {"tekken", SPLIT_NONE, false, true, load_tekken, NULL},
    {"deepseek-v3", SPLIT_NONE, false, false, NULL, load_deepseek_v3},
};

typedef struct load_gg {
    const gguf *g;
    const gguf_value *tokens, *types, *scores, *merges;
    int64_t bos, eos, eot, unk, pad;
    bool add_bos, add_eos, prefix;
    gguf_str pre, chat;
} load_gg;

static tl_status load_gg_keys(load_gg *x, tl_error *e) {
    const gguf *g = x->g;
    TRY(gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_STRING, &x->tokens, e));
    if (!x->tokens || !x->tokens->count) return error_set(e, TL_NOTFOUND, "the file has no tokenizer.ggml.tokens");
    TRY(gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_I32, &x->types, e));
    TRY(gguf_get_array(g, "tokenizer.ggml.scores", GGUF_F32, &x->scores, e));
    TRY(gguf_get_array(g, "tokenizer.ggml.merges", GGUF_STRING, &x->merges, e));
    if ((x->types && x->types->count != x->tokens->count) || (x->scores && x->scores->count != x->tokens->count))
        return error_set(e, TL_FORMAT, "tokenizer.ggml: %zu tokens, but another number of types or scores",
                         x->tokens->count);
    static const char *const key[] = {"bos", "eos", "eot", "unknown", "padding"};
    int64_t *id[] = {&x->bos, &x->eos, &x->eot, &x->unk, &x->pad};
    for (int i = 0; i < 5; i++) {
        char name[64];
        snprintf(name, sizeof name, "tokenizer.ggml.%s_token_id", key[i]);
        int64_t v = -1;
        TRY(gguf_get_int(g, name, 0, UINT32_MAX, &v, e));
        *id[i] = v < (int64_t)x->tokens->count ? v : -1; /* files write 2^32-1 for none */
    }
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &x->add_bos, e));
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_eos_token", &x->add_eos, e));
    TRY(gguf_get_bool(g, "tokenizer.ggml.add_space_prefix", &x->prefix, e));
    TRY(gguf_get_str(g, "tokenizer.ggml.pre", &x->pre, e));
    return gguf_get_str(g, "tokenizer.chat_template", &x->chat, e);
}

static int load_gg_type(const load_gg *x, size_t i) {
    return x->types ? gguf_i32_at(x->types, i) : PIECE_NORMAL;
}

/* ---- gpt2 ------------------------------------------------------------------------------------ */

static tl_status load_gg_bpe_tokens(tokenizer *t, const load_gg *x, str *buf, tl_error *e) {
    size_t at = 0;
    gguf_str s;
    for (int64_t i = 0; gguf_next_str(x->tokens, &at, &s); i++) {
        int type = load_gg_type(x, (size_t)i);
        str_clear(buf);
        str_add(buf, s.s, s.n);
        str_addc(buf, 0);
        if (buf->failed) return error_set(e, TL_NOMEM, "no memory for the vocabulary");
        bool plain = type == PIECE_NORMAL || type == PIECE_BYTE;
        size_t k = plain ? alphabet_decode(s.s, s.n, buf->data) : SIZE_MAX;
        const char *text = k == SIZE_MAX ? s.s : buf->data;
        unsigned flags = k == SIZE_MAX ? VOCAB_LITERAL | VOCAB_HIDDEN : 0u;
        if (k == SIZE_MAX) k = s.n;
        if (!flags && vocab_find(&t->voc, text, k) >= 0) flags = VOCAB_HIDDEN;
        TRY(vocab_put(&t->voc, i, text, k, flags, e));
    }
    return TL_OK;
}

static tl_status load_gg_merges(tokenizer *t, const load_gg *x, str *buf, tl_error *e) {
    size_t at = 0, index = 0;
    gguf_str s;
    if (!x->merges) return error_set(e, TL_NOTFOUND, "the file has no tokenizer.ggml.merges");
    for (; gguf_next_str(x->merges, &at, &s); index++) {
        const char *blank = s.n > 1 ? memchr(s.s + 1, ' ', s.n - 1) : NULL;
        if (!blank) return error_set(e, TL_FORMAT, "tokenizer.ggml.merges[%zu] is not two parts", index);
        size_t ln = (size_t)(blank - s.s), rn = s.n - ln - 1;
        str_clear(buf);
        str_add(buf, s.s, s.n);
        if (buf->failed) return error_set(e, TL_NOMEM, "no memory for merges");
        size_t l = alphabet_decode(s.s, ln, buf->data), r = SIZE_MAX;
        if (l != SIZE_MAX) r = alphabet_decode(blank + 1, rn, buf->data + l);
        if (r == SIZE_MAX)
            return error_set(e, TL_FORMAT, "tokenizer.ggml.merges[%zu] is not written in the byte alphabet", index);
        TRY(load_merge(t, buf->data, l, buf->data + l, r, index, e));
    }
    return TL_OK;
}

static tl_status load_gg_bpe(tokenizer *t, const load_gg *x, str *buf, tl_error *e) {
    t->model = MODEL_BPE;
    t->byte_level = true;
    t->bpe = bpe_new(t->alloc);
    if (!t->bpe) return error_set(e, TL_NOMEM, "no memory for merges");
    t->bpe->byte_level = true;
    gguf_str pre = x->pre.n ? x->pre : (gguf_str){"default", 7};
    size_t which = 0, known = sizeof load_pre / sizeof *load_pre;
    while (which < known && (strlen(load_pre[which].name) != pre.n || memcmp(load_pre[which].name, pre.s, pre.n)))
        which++;
    if (which == known)
        return error_set(e, TL_UNSUPPORTED, "tokenizer.ggml.pre \"%.*s\" is not known", (int)(pre.n < 60 ? pre.n : 60),
                         pre.s);
    t->bpe->ignore_merges = load_pre[which].whole;
    TRY(load_gg_bpe_tokens(t, x, buf, e));
    TRY(load_gg_merges(t, x, buf, e));
    TRY(bpe_ready(t->bpe, &t->voc, e));
    str post;
    str_init(&post, t->alloc);
    load_template_text(t, x->add_bos ? x->bos : -1, x->add_eos ? x->eos : -1, &post);
    str_clear(buf);
    if (load_pre[which].digits)
        str_adds(buf, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Digits\",\"individual_digits\":true},");
    if (load_pre[which].json)
        str_adds(buf, load_pre[which].json);
    else
        load_pre_text(buf, load_pre[which].pattern ? load_pre[which].pattern : split_pattern(load_pre[which].split));
    if (load_pre[which].digits) str_adds(buf, "]}");
    tl_status s = buf->failed || post.failed ? error_set(e, TL_NOMEM, "no memory for a tokenizer")
                                             : load_parts_text(t, NULL, buf->data, post.data, load_byte_decoder, e);
    str_fini(&post);
    size_t at = 0;
    gguf_str text;
    for (size_t i = 0; s == TL_OK && gguf_next_str(x->tokens, &at, &text); i++) {
        int type = load_gg_type(x, i);
        if (type == PIECE_CONTROL || type == PIECE_UNKNOWN)
            s = load_added_token(t, (int64_t)i, text.s, text.n, ADDED_SPECIAL, e);
        else if (type == PIECE_USER)
            s = load_added_token(t, (int64_t)i, text.s, text.n, 0, e);
    }
    return s;
}

/* ---- llama, t5 ------------------------------------------------------------------------------- */

static tl_status load_gg_pieces(tokenizer *t, const load_gg *x, bool paths, tl_error *e) {
    if (!x->scores) return error_set(e, TL_NOTFOUND, "the file has no tokenizer.ggml.scores");
    load_pieces p = {.n = x->tokens->count, .unigram = paths, .dummy_prefix = x->prefix, .escape = true};
    p.unk = x->unk, p.bos = x->bos, p.eos = x->eos;
    p.add_bos = x->add_bos, p.add_eos = x->add_eos;
    const gguf_value *map = NULL;
    TRY(gguf_get_bool(x->g, "tokenizer.ggml.remove_extra_whitespaces", &p.squeeze, e));
    const gguf_value *any = gguf_find(x->g, "tokenizer.ggml.precompiled_charsmap");
    if (any)
        TRY(gguf_get_array(x->g, "tokenizer.ggml.precompiled_charsmap", any->type == GGUF_I8 ? GGUF_I8 : GGUF_U8, &map,
                           e));
    if (map) p.charsmap = map->data, p.charsmap_n = map->size;
    p.piece = mem_new(t->alloc, p.n, sizeof *p.piece);
    if (!p.piece) return error_set(e, TL_NOMEM, "no memory for pieces");
    size_t at = 0;
    gguf_str s;
    tl_status st = TL_OK;
    for (size_t i = 0; gguf_next_str(x->tokens, &at, &s) && st == TL_OK; i++) {
        p.piece[i] = (load_piece){s.s, s.n, (double)gguf_f32_at(x->scores, i), load_gg_type(x, i)};
        if (!(p.piece[i].score > -1e30 && p.piece[i].score < 1e30))
            st = error_set(e, TL_FORMAT, "tokenizer.ggml.scores[%zu] is no number", i);
        p.byte_fallback |= p.piece[i].type == PIECE_BYTE;
        if (p.unk < 0 && p.piece[i].type == PIECE_UNKNOWN) p.unk = (int64_t)i;
    }
    if (st == TL_OK) st = load_pieces_into(t, &p, e);
    mem_free(t->alloc, p.piece);
    return st;
}

/* ---- bert ------------------------------------------------------------------------------------ */

/* The file marks beginnings of words with U+2581 where the model's own vocabulary marks continuations with ##. */
static tl_status load_gg_words_tokens(tokenizer *t, const load_gg *x, str *buf, tl_error *e) {
    static const char mark[] = "\xe2\x96\x81";
    size_t at = 0;
    gguf_str s;
    for (int64_t i = 0; gguf_next_str(x->tokens, &at, &s); i++) {
        int type = load_gg_type(x, (size_t)i);
        bool plain = type == PIECE_NORMAL && !(s.n > 1 && s.s[0] == '[' && s.s[s.n - 1] == ']');
        bool begins = s.n > 3 && !memcmp(s.s, mark, 3);
        str_clear(buf);
        if (plain && !begins) str_adds(buf, "##");
        str_add(buf, plain && begins ? s.s + 3 : s.s, plain && begins ? s.n - 3 : s.n);
        if (buf->failed) return error_set(e, TL_NOMEM, "no memory for the vocabulary");
        bool twice = vocab_find(&t->voc, buf->data, buf->len) >= 0;
        TRY(vocab_put(&t->voc, i, buf->data, buf->len, twice ? VOCAB_HIDDEN : 0u, e));
    }
    return TL_OK;
}

/* The id a key gives, else the one found by its usual name, else -1. */
static tl_status load_gg_id(const tokenizer *t, const load_gg *x, const char *key, const char *name, int64_t *id,
                            tl_error *e) {
    int64_t v = -1;
    TRY(gguf_get_int(x->g, key, 0, UINT32_MAX, &v, e));
    *id = v >= 0 && v < (int64_t)x->tokens->count ? v : vocab_find(&t->voc, name, strlen(name));
    return TL_OK;
}

static tl_status load_gg_words(tokenizer *t, load_gg *x, str *buf, tl_error *e) {
    t->model = MODEL_WORDPIECE;
    wordpiece *w = t->wordpiece = mem_new(t->alloc, 1, sizeof *w);
    if (!w || !(w->prefix = mem_strdup(t->alloc, "##"))) return error_set(e, TL_NOMEM, "no memory for a tokenizer");
    TRY(load_gg_words_tokens(t, x, buf, e));
    int64_t cls, sep;
    TRY(load_gg_id(t, x, "tokenizer.ggml.cls_token_id", "[CLS]", &cls, e));
    TRY(load_gg_id(t, x, "tokenizer.ggml.seperator_token_id", "[SEP]", &sep, e)); /* as the format spells it */
    TRY(load_gg_id(t, x, "tokenizer.ggml.unknown_token_id", "[UNK]", &x->unk, e));
    w->max_chars = 100;
    w->unk = t->unk = (int32_t)x->unk;
    str post;
    str_init(&post, t->alloc);
    load_template_text(t, cls, sep, &post);
    tl_status s =
        post.failed ? error_set(e, TL_NOMEM, "no memory for a tokenizer")
                    : load_parts_text(t,
                                      "{\"type\":\"BertNormalizer\",\"clean_text\":true,\"handle_chinese_chars\":true,"
                                      "\"strip_accents\":null,\"lowercase\":true}",
                                      "{\"type\":\"BertPreTokenizer\"}", post.data,
                                      "{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}", e);
    str_fini(&post);
    if (x->bos < 0) x->bos = cls;
    if (x->eos < 0) x->eos = sep;
    size_t at = 0;
    gguf_str text;
    for (size_t i = 0; s == TL_OK && gguf_next_str(x->tokens, &at, &text); i++) {
        int type = load_gg_type(x, i);
        if (type == PIECE_CONTROL || type == PIECE_UNKNOWN || (int64_t)i == cls || (int64_t)i == sep)
            s = load_added_token(t, (int64_t)i, text.s, text.n, ADDED_SPECIAL, e);
    }
    return s;
}

static tl_status load_gg_into(tokenizer *t, load_gg *x, str *buf, tl_error *e) {
    gguf_str model = {NULL, 0};
    TRY(gguf_get_str(x->g, "tokenizer.ggml.model", &model, e));
    if (!model.n) return error_set(e, TL_NOTFOUND, "the file has no tokenizer.ggml.model");
    bool llama = model.n == 5 && !memcmp(model.s, "llama", 5), gpt2 = model.n == 4 && !memcmp(model.s, "gpt2", 4),
         t5 = model.n == 2 && !memcmp(model.s, "t5", 2), bert = model.n == 4 && !memcmp(model.s, "bert", 4);
    x->prefix = x->add_bos = llama; /* what a file means that does not say */
    if (t5) x->prefix = x->add_eos = true;
    TRY(load_gg_keys(x, e));
    if (gpt2)
        TRY(load_gg_bpe(t, x, buf, e));
    else if (llama || t5)
        TRY(load_gg_pieces(t, x, t5, e));
    else if (bert)
        TRY(load_gg_words(t, x, buf, e));
    else
        return error_set(e, TL_UNSUPPORTED, "tokenizer.ggml.model \"%.*s\"; gpt2, llama, t5 and bert are known",
                         (int)(model.n < 40 ? model.n : 40), model.s);
    t->role[TOKENIZER_BOS] = (int32_t)x->bos;
    t->role[TOKENIZER_EOS] = (int32_t)x->eos;
    t->role[TOKENIZER_EOT] = (int32_t)x->eot;
    t->role[TOKENIZER_PAD] = (int32_t)x->pad;
    if (!x->chat.n) return TL_OK;
    t->chat_template = mem_strndup(t->alloc, x->chat.s, x->chat.n);
    return t->chat_template ? TL_OK : error_set(e, TL_NOMEM, "no memory for the chat template");
}

tl_status load_gguf_keys(const tl_allocator *a, const gguf *g, tokenizer **out, tl_error *e) {
    tokenizer *t;
    str buf;
    load_gg x = {.g = g};
    TRY(tokenizer_new(a, MODEL_BPE, &t, e));
    str_init(&buf, a);
    tl_status s = load_gg_into(t, &x, &buf, e);
    str_fini(&buf);
    if (s == TL_OK)
        *out = t;
    else
        tokenizer_close(t);
    return s;
}

tl_status load_gguf(const tl_allocator *a, const char *path, tokenizer **out, tl_error *e) {
    gguf g;
    TRY(gguf_open(a, path, &g, e));
    tl_status s = load_gguf_keys(a, &g, out, e);
    gguf_close(&g);
    if (s != TL_OK) error_at_file(e, path);
    return s;
}
