#include "base/file.h"
#include "tokenizer/added.h"
#include "tokenizer/encode_cut.h"
#include "tokenizer/load.h"
#include "tokenizer/models.h"
#include "tokenizer/normalize.h"
#include "tokenizer/pretoken.h"
#include "tokenizer/split.h"
#include "tokenizer/unpack.h"
#include <stdlib.h>
#include <string.h>

const char load_byte_decoder[] =
    "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true}";

bool load_is_byte_level(const json_t *v, int depth) {
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type || depth > 8) return false;
    if (!strcmp(type, "ByteLevel")) return true;
    const json_t *list = json_object_get(v, "pretokenizers");
    if (!list) list = json_object_get(v, "normalizers");
    for (size_t i = 0; i < json_array_size(list); i++)
        if (load_is_byte_level(json_array_get(list, i), depth + 1)) return true;
    return false;
}

static tl_status load_keep(tokenizer *t, const json_t *v, char **out, tl_error *e) {
    if (!v || json_is_null(v)) return TL_OK;
    char *text = json_dumps(v, JSON_COMPACT);
    if (text) *out = mem_strdup(t->alloc, text);
    free(text);
    return *out ? TL_OK : error_set(e, TL_NOMEM, "no memory for a tokenizer");
}

/* ---- post-processors: what stands before and behind one text --------------------------------- */

typedef struct load_ends {
    int32_t *id[2]; /* before, behind */
    size_t n[2], cap[2];
} load_ends;

static tl_status load_end(tokenizer *t, load_ends *x, int side, int64_t id, tl_error *e) {
    size_t n;
    if (id < 0 || id >= (int64_t)t->voc.n || !vocab_text(&t->voc, (int32_t)id, &n))
        return error_set(e, TL_FORMAT, "post_processor: id %lld is not in the vocabulary", (long long)id);
    if (x->n[side] >= 64) return error_set(e, TL_LIMIT, "post_processor adds more than 64 tokens");
    if (!mem_reserve(t->alloc, &x->id[side], &x->cap[side], x->n[side] + 1))
        return error_set(e, TL_NOMEM, "no memory for a post-processor");
    if (side) {
        x->id[1][x->n[1]++] = (int32_t)id;
        return TL_OK;
    }
    x->id[0][x->n[0]++] = (int32_t)id;
    return TL_OK;
}

static tl_status load_template(tokenizer *t, load_ends *x, const json_t *v, tl_error *e) {
    const json_t *single = json_object_get(v, "single"), *special = json_object_get(v, "special_tokens");
    if (!json_is_array(single)) return error_set(e, TL_FORMAT, "post_processor: TemplateProcessing needs \"single\"");
    int side = 0;
    load_ends mine = {0};
    tl_status s = TL_OK;
    for (size_t i = 0; i < json_array_size(single) && s == TL_OK; i++) {
        const json_t *part = json_array_get(single, i);
        if (json_object_get(part, "Sequence")) {
            if (side++) s = error_set(e, TL_UNSUPPORTED, "post_processor: a template with the text twice");
            continue;
        }
        const char *name = json_string_value(json_object_get(json_object_get(part, "SpecialToken"), "id"));
        const json_t *ids = name ? json_object_get(json_object_get(special, name), "ids") : NULL;
        if (!json_is_array(ids))
            s = error_set(e, TL_FORMAT, "post_processor: single[%zu] names no special token of the list", i);
        for (size_t k = 0; k < json_array_size(ids) && s == TL_OK; k++) {
            const json_t *id = json_array_get(ids, k);
            s = load_end(t, &mine, side, json_is_integer(id) ? json_integer_value(id) : -1, e);
        }
    }
    if (s == TL_OK && side != 1) s = error_set(e, TL_UNSUPPORTED, "post_processor: a template without the text");
    /* a later processor stands around the earlier ones */
    for (size_t k = mine.n[0]; k-- > 0 && s == TL_OK;) {
        s = load_end(t, x, 0, mine.id[0][k], e);
        if (s == TL_OK) memmove(x->id[0] + 1, x->id[0], (x->n[0] - 1) * sizeof *x->id[0]), x->id[0][0] = mine.id[0][k];
    }
    for (size_t k = 0; k < mine.n[1] && s == TL_OK; k++) s = load_end(t, x, 1, mine.id[1][k], e);
    mem_free(t->alloc, mine.id[0]);
    mem_free(t->alloc, mine.id[1]);
    return s;
}

static tl_status load_post(tokenizer *t, load_ends *x, const json_t *v, int depth, tl_error *e) {
    const char *type = json_string_value(json_object_get(v, "type"));
    if (!type) return error_set(e, TL_FORMAT, "post_processor without \"type\"");
    if (!strcmp(type, "ByteLevel")) return TL_OK; /* trims spans, changes no id */
    if (!strcmp(type, "TemplateProcessing")) return load_template(t, x, v, e);
    if (!strcmp(type, "BertProcessing") || !strcmp(type, "RobertaProcessing")) {
        const json_t *cls = json_array_get(json_object_get(v, "cls"), 1),
                     *sep = json_array_get(json_object_get(v, "sep"), 1);
        if (!json_is_integer(cls) || !json_is_integer(sep))
            return error_set(e, TL_FORMAT, "post_processor: %s needs \"cls\" and \"sep\" as [text, id]", type);
        TRY(load_end(t, x, 0, json_integer_value(cls), e));
        return load_end(t, x, 1, json_integer_value(sep), e);
    }
    if (strcmp(type, "Sequence")) return error_set(e, TL_UNSUPPORTED, "post_processor \"%s\" is not known", type);
    const json_t *list = json_object_get(v, "processors");
    if (!json_is_array(list)) return error_set(e, TL_FORMAT, "post_processor Sequence needs a list \"processors\"");
    if (depth >= 8) return error_set(e, TL_LIMIT, "post-processors are nested too deeply");
    for (size_t i = 0; i < json_array_size(list); i++) TRY(load_post(t, x, json_array_get(list, i), depth + 1, e));
    return TL_OK;
}

tl_status load_post_only(tokenizer *t, const json_t *post, tl_error *e) {
    if (!post || json_is_null(post)) return TL_OK;
    load_ends x = {0};
    tl_status s = load_post(t, &x, post, 0, e);
    t->prefix = x.id[0], t->prefix_n = x.n[0];
    t->suffix = x.id[1], t->suffix_n = x.n[1];
    return s == TL_OK ? load_keep(t, post, &t->spec.post_processor, e) : s;
}

tl_status load_parts(tokenizer *t, const json_t *normal, const json_t *pre, const json_t *post, const json_t *decoder,
                     tl_error *e) {
    TRY(normalizer_load(t->alloc, normal, &t->normalizer, e));
    TRY(pretokenizer_load(t->alloc, pre, &t->pre, e));
    TRY(unpack_load(t->alloc, decoder, &t->unpack, e));
    TRY(load_keep(t, normal, &t->spec.normalizer, e));
    TRY(load_keep(t, pre, &t->spec.pre_tokenizer, e));
    TRY(load_keep(t, decoder, &t->spec.decoder, e));
    return load_post_only(t, post, e);
}

tl_status load_parts_text(tokenizer *t, const char *normal, const char *pre, const char *post, const char *decoder,
                          tl_error *e) {
    const char *text[4] = {normal, pre, post, decoder};
    json_t *v[4] = {0};
    tl_status s = TL_OK;
    for (int i = 0; i < 4 && s == TL_OK; i++)
        if (text[i]) s = json_parse(text[i], strlen(text[i]), NULL, &v[i], e);
    if (s == TL_OK) s = load_parts(t, v[0], v[1], v[2], v[3], e);
    for (int i = 0; i < 4; i++) json_decref(v[i]);
    return s;
}

void load_pre_text(str *s, const char *pattern) {
    if (!pattern) {
        str_adds(s, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}");
        return;
    }
    if (!strcmp(pattern, split_pattern(SPLIT_GPT2))) {
        str_adds(s, "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true}");
        return;
    }
    str_adds(s, "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":");
    str_add_json(s, pattern, strlen(pattern));
    str_adds(s, "},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                "\"trim_offsets\":true,\"use_regex\":false}]}");
}

/* ---- tokens ---------------------------------------------------------------------------------- */

tl_status load_added_token(tokenizer *t, int64_t id, const char *text, size_t n, unsigned flags, tl_error *e) {
    unsigned mark = VOCAB_ADDED | (flags & ADDED_SPECIAL ? VOCAB_SPECIAL : 0u);
    size_t have_n = 0;
    const char *have = id >= 0 && id < INT32_MAX ? vocab_text(&t->voc, (int32_t)id, &have_n) : NULL;
    if (have && have_n == n && !memcmp(have, text, n))
        t->voc.entry[id].flags |= mark;
    else
        TRY(vocab_replace(&t->voc, id, text, n, mark | VOCAB_LITERAL, e));
    if (!t->added && !(t->added = added_new(t->alloc))) return error_set(e, TL_NOMEM, "no memory for added tokens");
    if (!(flags & ADDED_NORMALIZED) || !t->normalizer) {
        /* without a normalizer both ways are one, and one search is enough */
        return added_put(t->added, (int32_t)id, text, n, flags & ~(unsigned)ADDED_NORMALIZED, e);
    }
    text_buf a, b;
    text_init(&a, t->alloc);
    text_init(&b, t->alloc);
    text_reset(&a, false);
    text_put(&a, text, n, (token_span){0, 0});
    tl_status s = a.failed ? error_set(e, TL_NOMEM, "no memory for added tokens")
                           : normalizer_run(t->normalizer, t->uni, false, &a, &b, e);
    if (s == TL_OK) s = added_put(t->added, (int32_t)id, a.s, a.n, flags, e);
    text_fini(&a);
    text_fini(&b);
    return s;
}

tl_status load_merge(tokenizer *t, const char *left, size_t ln, const char *right, size_t rn, size_t index,
                     tl_error *e) {
    int32_t l = vocab_find(&t->voc, left, ln), r = vocab_find(&t->voc, right, rn);
    if (l < 0 || r < 0)
        return error_set(e, TL_FORMAT, "merge %zu: \"%.*s\" is not in the vocabulary", index,
                         (int)(l < 0     ? ln < 60 ? ln : 60
                               : rn < 60 ? rn
                                         : 60),
                         l < 0 ? left : right);
    size_t skip = t->bpe->prefix ? strlen(t->bpe->prefix) : 0;
    if (skip && (rn < skip || memcmp(right, t->bpe->prefix, skip))) skip = 0;
    char small[256], *joined = ln + rn <= sizeof small ? small : mem_new(t->alloc, ln + rn, 1);
    if (!joined) return error_set(e, TL_NOMEM, "no memory for merges");
    memcpy(joined, left, ln);
    memcpy(joined + ln, right + skip, rn - skip);
    int32_t id = vocab_find(&t->voc, joined, ln + rn - skip);
    tl_status s = id >= 0 ? bpe_put(t->bpe, l, r, id, e)
                          : error_set(e, TL_FORMAT, "merge %zu makes \"%.*s\", which is not in the vocabulary", index,
                                      (int)(ln + rn < 60 ? ln + rn - skip : 60), joined);
    if (joined != small) mem_free(t->alloc, joined);
    return s;
}

/* ---- roles ----------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    unsigned roles; /* bits */
} load_names[] = {
    {"<s>", 1 << TOKENIZER_BOS},
    {"<bos>", 1 << TOKENIZER_BOS},
    {"<|begin_of_text|>", 1 << TOKENIZER_BOS},
    {"<|startoftext|>", 1 << TOKENIZER_BOS},
    {"[CLS]", 1 << TOKENIZER_BOS},
    {"</s>", 1 << TOKENIZER_EOS},
    {"<eos>", 1 << TOKENIZER_EOS},
    {"<|end_of_text|>", 1 << TOKENIZER_EOS},
    {"[SEP]", 1 << TOKENIZER_EOS},
    {"<|endoftext|>", 1 << TOKENIZER_EOS | 1 << TOKENIZER_EOD},
    {"<|im_end|>", 1 << TOKENIZER_EOT},
    {"<|eot_id|>", 1 << TOKENIZER_EOT},
    {"<end_of_turn>", 1 << TOKENIZER_EOT},
    {"<|end|>", 1 << TOKENIZER_EOT},
    {"<pad>", 1 << TOKENIZER_PAD},
    {"[PAD]", 1 << TOKENIZER_PAD},
    {"<unk>", 1 << TOKENIZER_UNK},
    {"[UNK]", 1 << TOKENIZER_UNK},
};

tl_status load_finish(tokenizer *t, tl_error *e) {
    bool hidden = false;
    for (size_t i = 0; i < sizeof load_names / sizeof *load_names; i++) {
        int32_t id = tokenizer_find(t, load_names[i].text, strlen(load_names[i].text));
        for (int r = 0; id >= 0 && r < TOKENIZER_ROLES; r++)
            if ((load_names[i].roles >> r & 1) && t->role[r] < 0) t->role[r] = id;
    }
    if (t->unk >= 0) t->role[TOKENIZER_UNK] = t->unk;
    if (t->role[TOKENIZER_EOS] < 0) t->role[TOKENIZER_EOS] = t->role[TOKENIZER_EOT];
    if (t->role[TOKENIZER_EOT] < 0) t->role[TOKENIZER_EOT] = t->role[TOKENIZER_EOS];
    if (t->role[TOKENIZER_EOD] < 0) t->role[TOKENIZER_EOD] = t->role[TOKENIZER_EOS];
    for (size_t i = 0; i < t->voc.n; i++) {
        vocab_entry *x = &t->voc.entry[i];
        if (!(x->flags & VOCAB_SPECIAL) || (x->flags & VOCAB_HIDDEN)) continue;
        x->flags |= VOCAB_HIDDEN;
        hidden = true;
        if (t->unigram) unigram_hide(t->unigram, t->voc.blob + x->off, x->len);
    }
    if (hidden) TRY(vocab_reindex(&t->voc, e));
    cut_learn(t);
    return TL_OK;
}
