/* Writes tokenizer.json, version 1.0, as Hugging Face's library reads it. Written by hand and not as a tree: the
 * order of keys is theirs, the vocabulary stands in the order of ids. */
#include "base/file.h"
#include "tokenizer/added.h"
#include "tokenizer/alphabet.h"
#include "tokenizer/load_small.h"
#include "tokenizer/models.h"
#include <string.h>

static void save_token(const tokenizer *t, int32_t id, str *s) {
    size_t n;
    const char *text = vocab_text(&t->voc, id, &n);
    if (!t->byte_level || (t->voc.entry[id].flags & (VOCAB_LITERAL | VOCAB_ADDED))) {
        str_add_json(s, text, n);
        return;
    }
    str_addc(s, '"');
    for (size_t i = 0; i < n; i++) { /* the alphabet needs no escape but these */
        if (text[i] == '"' || text[i] == '\\') str_addc(s, '\\');
        alphabet_encode(text + i, 1, s);
    }
    str_addc(s, '"');
}

static bool save_in_model(const tokenizer *t, size_t i) {
    const vocab_entry *x = &t->voc.entry[i];
    return (x->flags & VOCAB_PRESENT) && !((x->flags & VOCAB_ADDED) && (x->flags & VOCAB_LITERAL));
}

static void save_added(const tokenizer *t, str *s) {
    static const struct {
        const char *key;
        unsigned flag;
    } key[] = {{"single_word", ADDED_WORD},
               {"lstrip", ADDED_LSTRIP},
               {"rstrip", ADDED_RSTRIP},
               {"normalized", ADDED_NORMALIZED},
               {"special", ADDED_SPECIAL}};
    bool any = false;
    str_adds(s, "  \"added_tokens\": [");
    for (size_t i = 0; i < t->voc.n; i++) { /* by id, as the library wants them */
        if (!(t->voc.entry[i].flags & VOCAB_ADDED)) continue;
        unsigned flags = t->voc.entry[i].flags & VOCAB_SPECIAL ? ADDED_SPECIAL : 0u;
        for (size_t k = 0; t->added && k < t->added->n; k++)
            if (t->added->token[k].id == (int32_t)i) flags = t->added->token[k].flags;
        size_t n;
        const char *text = vocab_text(&t->voc, (int32_t)i, &n);
        str_addf(s, "%s\n    {\"id\": %zu, \"content\": ", any ? "," : "", i);
        str_add_json(s, text, n);
        for (size_t k = 0; k < sizeof key / sizeof *key; k++)
            str_addf(s, ", \"%s\": %s", key[k].key, flags & key[k].flag ? "true" : "false");
        str_addc(s, '}');
        any = true;
    }
    str_adds(s, any ? "\n  ],\n" : "],\n");
}

static void save_vocab(const tokenizer *t, str *s) {
    bool any = false;
    str_adds(s, "    \"vocab\": {");
    for (size_t i = 0; i < t->voc.n; i++) {
        if (!save_in_model(t, i)) continue;
        str_adds(s, any ? ",\n      " : "\n      ");
        save_token(t, (int32_t)i, s);
        str_addf(s, ": %zu", i);
        any = true;
    }
    str_adds(s, "\n    }");
}

static void save_text(str *s, const char *key, const char *text) {
    str_addf(s, "    \"%s\": ", key);
    if (text)
        str_add_json(s, text, strlen(text));
    else
        str_adds(s, "null");
    str_adds(s, ",\n");
}

static void save_unk(const tokenizer *t, str *s) {
    str_adds(s, "    \"unk_token\": ");
    if (t->unk >= 0)
        save_token(t, t->unk, s);
    else
        str_adds(s, "null");
    str_adds(s, ",\n");
}

static void save_bpe(const tokenizer *t, str *s) {
    const bpe *b = t->bpe;
    bool any = false;
    str_adds(s, "    \"type\": \"BPE\",\n    \"dropout\": null,\n");
    save_unk(t, s);
    save_text(s, "continuing_subword_prefix", b->prefix);
    save_text(s, "end_of_word_suffix", b->suffix);
    str_addf(s, "    \"fuse_unk\": %s,\n    \"byte_fallback\": %s,\n    \"ignore_merges\": %s,\n",
             b->fuse_unk ? "true" : "false", b->byte_fallback ? "true" : "false", b->ignore_merges ? "true" : "false");
    save_vocab(t, s);
    str_adds(s, ",\n    \"merges\": [");
    for (size_t i = 0; i < b->n; i++) {
        if (b->merge[i].left >= b->outside || b->merge[i].right >= b->outside) continue; /* no token: cannot be said */
        str_adds(s, any ? ",\n      [" : "\n      [");
        save_token(t, b->merge[i].left, s);
        str_adds(s, ", ");
        save_token(t, b->merge[i].right, s);
        str_addc(s, ']');
        any = true;
    }
    str_adds(s, "\n    ]\n");
}

static void save_unigram(const tokenizer *t, str *s) {
    str_adds(s, "    \"type\": \"Unigram\",\n");
    if (t->unk >= 0) str_addf(s, "    \"unk_id\": %d,\n", t->unk);
    bool any = false, fallback = false;
    str_adds(s, "    \"vocab\": [");
    for (size_t i = 0; i < t->voc.n; i++) {
        if (!save_in_model(t, i)) continue;
        fallback |= (t->voc.entry[i].flags & VOCAB_BYTE) != 0;
        str_adds(s, any ? ",\n      [" : "\n      [");
        save_token(t, (int32_t)i, s);
        str_addf(s, ", %.17g]", unigram_score(t->unigram, (int32_t)i));
        any = true;
    }
    str_addf(s, "\n    ],\n    \"byte_fallback\": %s\n", fallback ? "true" : "false");
}

static void save_model(const tokenizer *t, str *s) {
    str_adds(s, "  \"model\": {\n");
    switch (t->model) {
    case MODEL_BPE: save_bpe(t, s); break;
    case MODEL_UNIGRAM: save_unigram(t, s); break;
    case MODEL_WORDPIECE:
        str_adds(s, "    \"type\": \"WordPiece\",\n");
        save_unk(t, s);
        save_text(s, "continuing_subword_prefix", t->wordpiece->prefix);
        str_addf(s, "    \"max_input_chars_per_word\": %zu,\n", t->wordpiece->max_chars);
        save_vocab(t, s);
        break;
    case MODEL_BYTES:
        str_adds(s, "    \"type\": \"BPE\",\n");
        save_vocab(t, s);
        str_adds(s, ",\n    \"merges\": []");
        break;
    case MODEL_CHARS:
    case MODEL_WORDLEVEL:
        str_adds(s, "    \"type\": \"WordLevel\",\n");
        save_vocab(t, s);
        str_adds(s, ",\n    \"unk_token\": ");
        if (t->unk >= 0)
            save_token(t, t->unk, s);
        else
            str_adds(s, "\"<unk>\"");
        break;
    }
    str_adds(s, "\n  }\n}\n");
}

static void save_spec(str *s, const char *key, const char *text) {
    str_addf(s, "  \"%s\": %s,\n", key, text ? text : "null");
}

static void save_all(const tokenizer *t, str *s) {
    tokenizer_spec spec = t->spec;
    str_adds(s, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    save_added(t, s);
    char bytes[] = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}",
         chars[] =
             "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[\\\\s\\\\S]\"},\"behavior\":\"Isolated\",\"invert\":false}",
         fuse[] = "{\"type\":\"Fuse\"}";
    if (t->model == MODEL_BYTES) spec.pre_tokenizer = spec.decoder = bytes;
    if (t->model == MODEL_CHARS) spec.pre_tokenizer = chars, spec.decoder = fuse;
    save_spec(s, "normalizer", spec.normalizer);
    save_spec(s, "pre_tokenizer", spec.pre_tokenizer);
    save_spec(s, "post_processor", spec.post_processor);
    save_spec(s, "decoder", spec.decoder);
    save_model(t, s);
}

tl_status tokenizer_save_hf(const tokenizer *t, const char *path, tl_error *e) {
    str s;
    str_init(&s, t->alloc);
    save_all(t, &s);
    tl_status st = s.failed ? error_set(e, TL_NOMEM, "no memory to write the tokenizer")
                            : file_write(t->alloc, path, s.data, s.len, e);
    str_fini(&s);
    return st;
}

tl_status tokenizer_save(const tokenizer *t, const char *path, tl_error *e) {
    if (t->model == MODEL_BYTES || t->model == MODEL_CHARS) return load_small_save(t, path, e);
    return tokenizer_save_hf(t, path, e);
}
