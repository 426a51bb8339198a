/* tokenizer.json of Hugging Face, version 1.0. */
#include "tokenizer/added.h"
#include "tokenizer/alphabet.h"
#include "tokenizer/load.h"
#include "tokenizer/models.h"
#include <string.h>

static tl_status load_type(tokenizer *t, const json_t *m, tl_error *e) {
    const char *type = NULL;
    TRY(json_get_str(m, "type", &type, e));
    if (!type) { /* old files leave it out */
        if (json_object_get(m, "merges"))
            type = "BPE";
        else if (json_is_array(json_object_get(m, "vocab")))
            type = "Unigram";
        else
            type = json_object_get(m, "continuing_subword_prefix") ? "WordPiece" : "WordLevel";
    }
    static const char *const name[] = {"BPE", "Unigram", "WordPiece", "WordLevel"};
    for (int i = 0; i < 4; i++)
        if (!strcmp(type, name[i])) {
            t->model = (tokenizer_model)(MODEL_BPE + i);
            return TL_OK;
        }
    return error_set(e, TL_UNSUPPORTED, "model: type \"%s\" is not known", type);
}

/* One entry, turned from the byte alphabet into bytes where the vocabulary is byte-level. */
static tl_status load_entry(tokenizer *t, str *buf, const char *text, size_t n, int64_t id, tl_error *e) {
    if (!t->byte_level) {
        bool hex = n == 6 && text[0] == '<' && text[1] == '0' && text[2] == 'x' && text[5] == '>' &&
                   strspn(text + 3, "0123456789ABCDEF") == 2;
        return vocab_put(&t->voc, id, text, n, hex ? VOCAB_BYTE : 0, e);
    }
    str_clear(buf);
    str_add(buf, text, n); /* room */
    if (buf->failed) return error_set(e, TL_NOMEM, "no memory for the vocabulary");
    size_t k = n ? alphabet_decode(text, n, buf->data) : 0;
    if (k == SIZE_MAX) return vocab_put(&t->voc, id, text, n, VOCAB_LITERAL | VOCAB_HIDDEN, e);
    return vocab_put(&t->voc, id, n ? buf->data : "", k, 0, e);
}

static tl_status load_vocab(tokenizer *t, const json_t *v, str *buf, tl_error *e) {
    if (!json_is_object(v)) return error_set(e, TL_FORMAT, "model: vocab must be an object");
    const char *key;
    json_t *id;
    void *it;
    for (it = json_object_iter((json_t *)(uintptr_t)v); it; it = json_object_iter_next((json_t *)(uintptr_t)v, it)) {
        key = json_object_iter_key(it);
        id = json_object_iter_value(it);
        if (!json_is_integer(id)) return error_set(e, TL_FORMAT, "model: the id of \"%.60s\" is not an integer", key);
        TRY(load_entry(t, buf, key, json_object_iter_key_len(it), json_integer_value(id), e));
    }
    return TL_OK;
}

/* "a b" or ["a", "b"]. */
static tl_status load_merge_json(tokenizer *t, const json_t *v, size_t i, str *buf, tl_error *e) {
    const char *l, *r;
    size_t ln, rn;
    if (json_is_string(v)) {
        const char *text = json_string_value(v), *blank = strchr(text, ' ');
        if (!blank || strchr(blank + 1, ' '))
            return error_set(e, TL_FORMAT, "merge %zu is not two parts: \"%.60s\"", i, text);
        l = text, ln = (size_t)(blank - text);
        r = blank + 1, rn = json_string_length(v) - ln - 1;
    } else {
        const json_t *a = json_array_get(v, 0), *b = json_array_get(v, 1);
        if (json_array_size(v) != 2 || !json_is_string(a) || !json_is_string(b))
            return error_set(e, TL_FORMAT, "merge %zu is neither \"a b\" nor [\"a\", \"b\"]", i);
        l = json_string_value(a), ln = json_string_length(a);
        r = json_string_value(b), rn = json_string_length(b);
    }
    if (!t->byte_level) return load_merge(t, l, ln, r, rn, i, e);
    str_clear(buf);
    str_add(buf, l, ln);
    str_add(buf, r, rn);
    str_addc(buf, 0);
    if (buf->failed) return error_set(e, TL_NOMEM, "no memory for merges");
    size_t lk = alphabet_decode(l, ln, buf->data),
           rk = lk == SIZE_MAX ? SIZE_MAX : alphabet_decode(r, rn, buf->data + lk);
    if (rk == SIZE_MAX) return error_set(e, TL_FORMAT, "merge %zu is not written in the byte alphabet", i);
    return load_merge(t, buf->data, lk, buf->data + lk, rk, i, e);
}

static tl_status load_affix(tokenizer *t, const json_t *m, const char *key, char **out, tl_error *e) {
    const char *text = NULL;
    TRY(json_get_str(m, key, &text, e));
    if (!text || !*text) return TL_OK;
    *out = mem_strdup(t->alloc, text);
    return *out ? TL_OK : error_set(e, TL_NOMEM, "no memory for a tokenizer");
}

static tl_status load_bpe(tokenizer *t, const json_t *m, str *buf, tl_error *e) {
    bpe *b = t->bpe = bpe_new(t->alloc);
    if (!b) return error_set(e, TL_NOMEM, "no memory for merges");
    b->byte_level = t->byte_level;
    TRY(json_get_real(m, "dropout", &b->dropout, e));
    if (b->dropout != 0)
        return error_set(e, TL_UNSUPPORTED, "model: BPE dropout %g makes ids random; set \"dropout\" to null",
                         b->dropout);
    TRY(json_get_bool(m, "fuse_unk", &b->fuse_unk, e));
    TRY(json_get_bool(m, "byte_fallback", &b->byte_fallback, e));
    TRY(json_get_bool(m, "ignore_merges", &b->ignore_merges, e));
    TRY(load_affix(t, m, "continuing_subword_prefix", &b->prefix, e));
    TRY(load_affix(t, m, "end_of_word_suffix", &b->suffix, e));
    TRY(load_vocab(t, json_object_get(m, "vocab"), buf, e));
    const char *unk = NULL;
    TRY(json_get_str(m, "unk_token", &unk, e));
    if (unk) b->unk = t->unk = vocab_find(&t->voc, unk, strlen(unk));
    const json_t *list = json_object_get(m, "merges");
    if (!json_is_array(list)) return error_set(e, TL_FORMAT, "model: BPE needs a list \"merges\"");
    for (size_t i = 0; i < json_array_size(list); i++) TRY(load_merge_json(t, json_array_get(list, i), i, buf, e));
    return bpe_ready(b, &t->voc, e);
}

static tl_status load_unigram(tokenizer *t, const json_t *m, str *buf, tl_error *e) {
    const json_t *list = json_object_get(m, "vocab");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || !n) return error_set(e, TL_FORMAT, "model: Unigram needs a list \"vocab\"");
    double *score = mem_new(t->alloc, n, sizeof *score);
    t->unigram = unigram_new(t->alloc);
    bool fallback = false;
    int64_t unk = -1;
    tl_status s = score && t->unigram ? TL_OK : error_set(e, TL_NOMEM, "no memory for the vocabulary");
    if (s == TL_OK) s = json_get_bool(m, "byte_fallback", &fallback, e);
    if (s == TL_OK) s = json_get_int(m, "unk_id", 0, (int64_t)n - 1, &unk, e);
    for (size_t i = 0; i < n && s == TL_OK; i++) {
        const json_t *v = json_array_get(list, i), *text = json_array_get(v, 0), *x = json_array_get(v, 1);
        if (json_array_size(v) != 2 || !json_is_string(text) || !json_is_number(x))
            s = error_set(e, TL_FORMAT, "model: vocab[%zu] is not [text, score]", i);
        else
            s = load_entry(t, buf, json_string_value(text), json_string_length(text), (int64_t)i, e);
        if (s == TL_OK) score[i] = json_number_value(x);
    }
    t->unk = (int32_t)unk;
    if (s == TL_OK) s = unigram_ready(t->unigram, &t->voc, score, t->unk, fallback, e);
    mem_free(t->alloc, score);
    return s;
}

static tl_status load_words(tokenizer *t, const json_t *m, str *buf, tl_error *e) {
    const char *unk = "[UNK]";
    TRY(load_vocab(t, json_object_get(m, "vocab"), buf, e));
    if (t->model == MODEL_WORDLEVEL) unk = "<unk>";
    TRY(json_get_str(m, "unk_token", &unk, e));
    t->unk = vocab_find(&t->voc, unk, strlen(unk));
    if (t->model == MODEL_WORDLEVEL) return TL_OK;
    int64_t most = 100;
    wordpiece *w = t->wordpiece = mem_new(t->alloc, 1, sizeof *w);
    if (!w || !(w->prefix = mem_strdup(t->alloc, "##"))) return error_set(e, TL_NOMEM, "no memory for a tokenizer");
    const char *prefix = NULL;
    TRY(json_get_str(m, "continuing_subword_prefix", &prefix, e));
    TRY(json_get_int(m, "max_input_chars_per_word", 1, 1 << 20, &most, e));
    w->max_chars = (size_t)most;
    w->unk = t->unk;
    if (!prefix) return TL_OK;
    mem_free(t->alloc, w->prefix);
    w->prefix = mem_strdup(t->alloc, prefix);
    return w->prefix ? TL_OK : error_set(e, TL_NOMEM, "no memory for a tokenizer");
}

static tl_status load_added(tokenizer *t, const json_t *list, tl_error *e) {
    static const struct {
        const char *key;
        unsigned flag;
    } key[] = {{"special", ADDED_SPECIAL},
               {"lstrip", ADDED_LSTRIP},
               {"rstrip", ADDED_RSTRIP},
               {"single_word", ADDED_WORD},
               {"normalized", ADDED_NORMALIZED}};
    if (!list || json_is_null(list)) return TL_OK;
    if (!json_is_array(list)) return error_set(e, TL_FORMAT, "added_tokens must be a list");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *v = json_array_get(list, i), *text = json_object_get(v, "content"),
                     *id = json_object_get(v, "id");
        if (!json_is_string(text) || !json_is_integer(id))
            return error_set(e, TL_FORMAT, "added_tokens[%zu] needs \"content\" and an integer \"id\"", i);
        unsigned flags = 0;
        bool special = false;
        TRY(json_get_bool(v, "special", &special, e));
        for (size_t k = 0; k < sizeof key / sizeof *key; k++) {
            bool on = key[k].flag == ADDED_NORMALIZED && !special;
            TRY(json_get_bool(v, key[k].key, &on, e));
            if (on) flags |= key[k].flag;
        }
        TRY(load_added_token(t, json_integer_value(id), json_string_value(text), json_string_length(text), flags, e));
    }
    return TL_OK;
}

static tl_status load_json_into(tokenizer *t, const json_t *root, str *buf, tl_error *e) {
    const char *version = NULL;
    TRY(json_get_str(root, "version", &version, e));
    if (version && strcmp(version, "1.0"))
        return error_set(e, TL_UNSUPPORTED, "tokenizer.json of version %s; 1.0 is known", version);
    const json_t *m = json_object_get(root, "model"), *pre = json_object_get(root, "pre_tokenizer"),
                 *normal = json_object_get(root, "normalizer");
    if (!json_is_object(m))
        return error_set(e, TL_FORMAT, "there is no \"model\" (a vocab.json needs its merges.txt beside it)");
    TRY(load_type(t, m, e));
    t->byte_level = load_is_byte_level(pre, 0) || load_is_byte_level(normal, 0);
    if (t->model == MODEL_BPE)
        TRY(load_bpe(t, m, buf, e));
    else if (t->model == MODEL_UNIGRAM)
        TRY(load_unigram(t, m, buf, e));
    else
        TRY(load_words(t, m, buf, e));
    /* first without post-processor: it names tokens that may be among the added ones */
    TRY(load_parts(t, normal, pre, NULL, json_object_get(root, "decoder"), e));
    TRY(load_added(t, json_object_get(root, "added_tokens"), e));
    return load_post_only(t, json_object_get(root, "post_processor"), e);
}

tl_status load_json(const tl_allocator *a, const json_t *root, tokenizer **out, tl_error *e) {
    tokenizer *t;
    str buf;
    TRY(tokenizer_new(a, MODEL_BPE, &t, e));
    str_init(&buf, a);
    tl_status s = load_json_into(t, root, &buf, e);
    str_fini(&buf);
    if (s == TL_OK)
        *out = t;
    else
        tokenizer_close(t);
    return s;
}
