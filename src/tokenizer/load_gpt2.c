/* vocab.json and merges.txt, as GPT-2 came. */
#include "base/file.h"
#include "tokenizer/added.h"
#include "tokenizer/alphabet.h"
#include "tokenizer/load.h"
#include "tokenizer/split.h"
#include <string.h>

static tl_status load_gpt2_vocab(tokenizer *t, const json_t *v, str *buf, tl_error *e) {
    if (!json_is_object(v)) return error_set(e, TL_FORMAT, "a vocabulary file must hold a JSON object");
    json_t *o = (json_t *)(uintptr_t)v;
    for (void *it = json_object_iter(o); it; it = json_object_iter_next(o, it)) {
        const char *key = json_object_iter_key(it);
        size_t n = json_object_iter_key_len(it);
        const json_t *id = json_object_iter_value(it);
        if (!json_is_integer(id)) return error_set(e, TL_FORMAT, "the id of \"%.60s\" is not an integer", key);
        str_clear(buf);
        str_add(buf, key, n + 1);
        if (buf->failed) return error_set(e, TL_NOMEM, "no memory for the vocabulary");
        size_t k = alphabet_decode(key, n, buf->data);
        if (k == SIZE_MAX)
            TRY(vocab_put(&t->voc, json_integer_value(id), key, n, VOCAB_LITERAL | VOCAB_HIDDEN, e));
        else
            TRY(vocab_put(&t->voc, json_integer_value(id), buf->data, k, 0, e));
    }
    return TL_OK;
}

static tl_status load_gpt2_merge(tokenizer *t, const char *line, size_t n, size_t index, str *buf, tl_error *e) {
    const char *blank = memchr(line, ' ', n);
    size_t ln = blank ? (size_t)(blank - line) : 0, rn = blank ? n - ln - 1 : 0;
    if (!blank || memchr(blank + 1, ' ', rn)) return error_set(e, TL_FORMAT, "a merge must be two parts");
    str_clear(buf);
    str_add(buf, line, n);
    if (buf->failed) return error_set(e, TL_NOMEM, "no memory for merges");
    size_t l = alphabet_decode(line, ln, buf->data), r = SIZE_MAX;
    if (l != SIZE_MAX) r = alphabet_decode(blank + 1, rn, buf->data + l);
    if (r == SIZE_MAX) return error_set(e, TL_FORMAT, "a merge is not written in the byte alphabet");
    return load_merge(t, buf->data, l, buf->data + l, r, index, e);
}

static tl_status load_gpt2_merges(tokenizer *t, const char *text, size_t n, str *buf, tl_error *e) {
    size_t at = 0, index = 0;
    for (int64_t line = 1; at < n; line++) {
        const char *end = memchr(text + at, '\n', n - at);
        size_t len = end ? (size_t)(end - text) - at : n - at, next = at + len + 1;
        if (len && text[at + len - 1] == '\r') len--;
        bool note = line == 1 && len >= 8 && !memcmp(text + at, "#version", 8);
        if (len && !note) {
            tl_status s = load_gpt2_merge(t, text + at, len, index++, buf, e);
            if (s != TL_OK) {
                error_at_line(e, line);
                return s;
            }
        }
        at = next;
    }
    return TL_OK;
}

static tl_status load_gpt2_parts(tokenizer *t, str *buf, tl_error *e) {
    TRY(bpe_ready(t->bpe, &t->voc, e));
    str_clear(buf);
    load_pre_text(buf, split_pattern(SPLIT_GPT2));
    if (buf->failed) return error_set(e, TL_NOMEM, "no memory for a tokenizer");
    TRY(load_parts_text(t, NULL, buf->data, NULL, load_byte_decoder, e));
    static const char eot[] = "<|endoftext|>";
    int32_t id = vocab_find(&t->voc, eot, sizeof eot - 1);
    return id < 0 ? TL_OK : load_added_token(t, id, eot, sizeof eot - 1, ADDED_SPECIAL, e);
}

tl_status load_gpt2_texts(const tl_allocator *a, const load_gpt2_text *v, const load_gpt2_text *m, tokenizer **out,
                          tl_error *e) {
    tokenizer *t;
    json_t *root = NULL;
    str buf;
    TRY(tokenizer_new(a, MODEL_BPE, &t, e));
    str_init(&buf, a);
    t->byte_level = true;
    t->bpe = bpe_new(a);
    if (t->bpe) t->bpe->byte_level = true;
    tl_status s =
        t->bpe ? json_parse(v->text, v->n, v->path, &root, e) : error_set(e, TL_NOMEM, "no memory for merges");
    if (s == TL_OK) s = load_gpt2_vocab(t, root, &buf, e);
    if (s != TL_OK && v->path) error_at_file(e, v->path);
    json_decref(root);
    if (s == TL_OK) {
        s = load_gpt2_merges(t, m->text, m->n, &buf, e);
        if (s != TL_OK && m->path) error_at_file(e, m->path);
    }
    if (s == TL_OK) s = load_gpt2_parts(t, &buf, e);
    str_fini(&buf);
    if (s == TL_OK)
        *out = t;
    else
        tokenizer_close(t);
    return s;
}

tl_status load_gpt2(const tl_allocator *a, const char *vocab_path, const char *merges_path, tokenizer **out,
                    tl_error *e) {
    char *vtext = NULL, *mtext = NULL;
    load_gpt2_text v = {.path = vocab_path}, m = {.path = merges_path};
    tl_status s = file_read(a, vocab_path, LOAD_MAX_BYTES, &vtext, &v.n, e);
    if (s == TL_OK) s = file_read(a, merges_path, LOAD_MAX_BYTES, &mtext, &m.n, e);
    v.text = vtext, m.text = mtext;
    if (s == TL_OK) s = load_gpt2_texts(a, &v, &m, out, e);
    mem_free(a, vtext);
    mem_free(a, mtext);
    return s;
}
