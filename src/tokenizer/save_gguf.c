#include "tokenizer/save_gguf.h"
#include "tokenizer/added.h"
#include "tokenizer/alphabet.h"
#include "tokenizer/load_pieces.h"
#include "tokenizer/models.h"
#include "tokenizer/split.h"
#include <string.h>

/* ---- the pattern's name ---------------------------------------------------------------------------------- */

typedef struct save_pre {
    split_kind split;
    bool digits, known;
} save_pre;

/* What a pre_tokenizer of tokenizer.json does, as far as names of GGUF can tell. */
static void save_pre_look(const json_t *v, save_pre *p, int depth) {
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type || depth > 4) {
        p->known = false;
        return;
    }
    if (!strcmp(type, "Sequence")) {
        const json_t *list = json_object_get(v, "pretokenizers");
        for (size_t i = 0; i < json_array_size(list); i++) save_pre_look(json_array_get(list, i), p, depth + 1);
    } else if (!strcmp(type, "ByteLevel")) {
        const json_t *regex = json_object_get(v, "use_regex");
        if (!regex || json_is_true(regex)) p->split = SPLIT_GPT2;
    } else if (!strcmp(type, "Digits")) {
        p->digits = true;
    } else if (!strcmp(type, "Split")) {
        const json_t *text = json_object_get(json_object_get(v, "pattern"), "Regex");
        const char *s = json_string_value(text);
        p->split = s ? split_by_pattern(s, json_string_length(text)) : SPLIT_KINDS;
        if (p->split == SPLIT_KINDS) p->known = false;
    } else {
        p->known = false;
    }
}

static const char *save_pre_name(const tokenizer *t) {
    save_pre p = {.split = SPLIT_NONE, .known = true};
    if (t->model == MODEL_BYTES) return "gpt-2"; /* without merges every pattern gives the same */
    json_t *v;
    if (!t->spec.pre_tokenizer ||
        json_parse(t->spec.pre_tokenizer, strlen(t->spec.pre_tokenizer), NULL, &v, NULL) != TL_OK)
        return NULL;
    save_pre_look(v, &p, 0);
    json_decref(v);
    if (!p.known) return NULL;
    switch (p.split) {
    case SPLIT_GPT2: return p.digits ? "smollm" : "gpt-2";
    case SPLIT_CL100K: return t->bpe->ignore_merges ? "llama-bpe" : "dbrx";
    case SPLIT_O200K: return "gpt-4o";
    case SPLIT_QWEN2: return "qwen2";
    default: return NULL;
    }
}

/* ---- tokens ------------------------------------------------------------------------------------------------- */

static bool save_present(const tokenizer *t, int64_t id) {
    return id < (int64_t)t->voc.n && (t->voc.entry[id].flags & VOCAB_PRESENT);
}

static int32_t save_type(const tokenizer *t, int64_t id) {
    if (!save_present(t, id)) return PIECE_UNUSED;
    unsigned flags = t->voc.entry[id].flags;
    if (id == t->unk && !t->byte_level) return PIECE_UNKNOWN;
    if (flags & VOCAB_SPECIAL) return PIECE_CONTROL;
    if (flags & VOCAB_ADDED) return PIECE_USER;
    return flags & VOCAB_BYTE ? PIECE_BYTE : PIECE_NORMAL;
}

static void save_tokens(const tokenizer *t, int64_t rows, bool alphabet, gguf_writer *w, str *buf) {
    gguf_put_array(w, "tokenizer.ggml.tokens", GGUF_STRING, (size_t)rows);
    for (int64_t id = 0; id < rows; id++) {
        size_t n = 0;
        str_clear(buf);
        if (!save_present(t, id)) {
            str_addf(buf, "[PAD%lld]", (long long)id);
        } else {
            const char *text = vocab_text(&t->voc, (int32_t)id, &n);
            if (alphabet && !(t->voc.entry[id].flags & (VOCAB_LITERAL | VOCAB_ADDED)))
                alphabet_encode(text, n, buf);
            else
                str_add(buf, text, n);
        }
        if (buf->failed) w->kv.failed = true;
        gguf_add_str(w, buf->data ? buf->data : "", buf->len);
    }
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, (size_t)rows);
    for (int64_t id = 0; id < rows; id++) {
        int32_t type = save_type(t, id);
        gguf_add(w, &type, sizeof type);
    }
}

static void save_merges(const tokenizer *t, gguf_writer *w, str *buf) {
    size_t n = 0;
    for (size_t i = 0; t->bpe && i < t->bpe->n; i++)
        n += t->bpe->merge[i].left < t->bpe->outside && t->bpe->merge[i].right < t->bpe->outside;
    gguf_put_array(w, "tokenizer.ggml.merges", GGUF_STRING, n);
    for (size_t i = 0; t->bpe && i < t->bpe->n; i++) {
        const bpe_merge *m = &t->bpe->merge[i];
        if (m->left >= t->bpe->outside || m->right >= t->bpe->outside) continue;
        size_t ln, rn;
        const char *l = vocab_text(&t->voc, m->left, &ln), *r = vocab_text(&t->voc, m->right, &rn);
        str_clear(buf);
        alphabet_encode(l, ln, buf);
        str_addc(buf, ' ');
        alphabet_encode(r, rn, buf);
        if (buf->failed) w->kv.failed = true;
        gguf_add_str(w, buf->data ? buf->data : "", buf->len);
    }
}

/* SentencePiece orders merges by the score of what they make: a token's is minus the rank of its merge. Tokens no
 * merge makes come last of all, but for single characters and what text cannot become anyway, which stay at 0. */
static tl_status save_scores(const tokenizer *t, int64_t rows, gguf_writer *w, tl_error *e) {
    float *score = mem_new(t->alloc, (size_t)rows, sizeof *score);
    if (!score) return error_set(e, TL_NOMEM, "no memory for scores");
    for (int64_t id = 0; id < rows; id++) {
        size_t n = 0;
        const char *text = save_type(t, id) == PIECE_NORMAL ? vocab_text(&t->voc, (int32_t)id, &n) : NULL;
        size_t chars = 0;
        for (size_t i = 0; i < n; i++) chars += ((uint8_t)text[i] & 0xc0) != 0x80;
        if (chars > 1) score[id] = -1e9f;
        if (t->model == MODEL_UNIGRAM && text) score[id] = (float)unigram_score(t->unigram, (int32_t)id);
    }
    for (size_t i = t->model == MODEL_BPE ? t->bpe->n : 0; i-- > 0;) /* the lowest rank wins */
        if (t->bpe->merge[i].id < rows) score[t->bpe->merge[i].id] = -(float)(i + 1);
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, (size_t)rows);
    gguf_add(w, score, (size_t)rows * sizeof *score);
    mem_free(t->alloc, score);
    return TL_OK;
}

/* ---- all keys ------------------------------------------------------------------------------------------------- */

static void save_id(gguf_writer *w, const char *key, int32_t id, int64_t rows) {
    if (id >= 0 && id < rows) gguf_put_u32(w, key, (uint32_t)id);
}

static bool save_adds(const int32_t *ids, size_t n, int32_t id) {
    for (size_t i = 0; i < n; i++)
        if (id >= 0 && ids[i] == id) return true;
    return false;
}

static bool save_prefixed(const tokenizer *t) {
    const char *n = t->spec.normalizer, *p = t->spec.pre_tokenizer;
    return (n && strstr(n, "\"Prepend\"")) || (p && strstr(p, "\"Metaspace\"") && !strstr(p, "\"never\""));
}

static tl_status save_kind(const tokenizer *t, gguf_writer *w, bool *alphabet, tl_error *e) {
    *alphabet = t->model == MODEL_BYTES || (t->model == MODEL_BPE && t->byte_level);
    if (*alphabet) {
        const char *pre = save_pre_name(t);
        if (!pre)
            return error_set(e, TL_UNSUPPORTED,
                             "GGUF has no name for the way this tokenizer splits text before merging");
        gguf_put_str(w, "tokenizer.ggml.model", "gpt2", 4);
        gguf_put_str(w, "tokenizer.ggml.pre", pre, strlen(pre));
        return TL_OK;
    }
    bool mapped = t->spec.normalizer && strstr(t->spec.normalizer, "\"Precompiled\"");
    if ((t->model != MODEL_BPE && t->model != MODEL_UNIGRAM) || mapped)
        return error_set(e, TL_UNSUPPORTED,
                         "GGUF has no form for this tokenizer (%s%s); byte-level BPE, SentencePiece BPE "
                         "and plain Unigram have one",
                         tokenizer_kind(t), mapped ? " with a character map" : "");
    bool llama = t->model == MODEL_BPE;
    gguf_put_str(w, "tokenizer.ggml.model", llama ? "llama" : "t5", llama ? 5 : 2);
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", save_prefixed(t));
    return TL_OK;
}

tl_status tokenizer_put_gguf(const tokenizer *t, int64_t rows, int32_t bos, int32_t eos, gguf_writer *w, tl_error *e) {
    bool alphabet;
    str buf;
    TRY(save_kind(t, w, &alphabet, e));
    str_init(&buf, t->alloc);
    save_tokens(t, rows, alphabet, w, &buf);
    if (alphabet) save_merges(t, w, &buf);
    str_fini(&buf);
    if (!alphabet) TRY(save_scores(t, rows, w, e));
    if (bos < 0) bos = t->role[TOKENIZER_BOS];
    if (eos < 0) eos = tokenizer_role_id(t, TOKENIZER_EOD);
    save_id(w, "tokenizer.ggml.bos_token_id", bos, rows);
    save_id(w, "tokenizer.ggml.eos_token_id", eos, rows);
    save_id(w, "tokenizer.ggml.eot_token_id", t->role[TOKENIZER_EOT], rows);
    save_id(w, "tokenizer.ggml.unknown_token_id", t->unk, rows);
    save_id(w, "tokenizer.ggml.padding_token_id", t->role[TOKENIZER_PAD], rows);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", save_adds(t->prefix, t->prefix_n, bos));
    gguf_put_bool(w, "tokenizer.ggml.add_eos_token", save_adds(t->suffix, t->suffix_n, eos));
    if (t->chat_template) gguf_put_str(w, "tokenizer.chat_template", t->chat_template, strlen(t->chat_template));
    return TL_OK;
}
