/* api: the functions of include/tilia.h over the rooms below: arguments checked, then handed on. */
#include "model/model.h"

#include <string.h>

const char *tl_version(void) {
    return TILIA_VERSION;
}

tl_status tl_tokenizer_open(tl_engine *e, const char *path, tl_tokenizer **out, tl_error *err) {
    return tokenizer_open(tl_engine_allocator(e), path, out, err);
}

tl_status tl_tokenizer_bytes(tl_engine *e, tl_tokenizer **out, tl_error *err) {
    return tokenizer_from_bytes(tl_engine_allocator(e), out, err);
}

tl_status tl_tokenizer_chars(tl_engine *e, const char *text, size_t n, tl_tokenizer **out, tl_error *err) {
    return tokenizer_from_chars(tl_engine_allocator(e), text, n, out, err);
}

tl_status tl_tokenizer_save(const tl_tokenizer *t, const char *path, tl_error *err) {
    return tokenizer_save(t, path, err);
}

void tl_tokenizer_close(tl_tokenizer *t) {
    tokenizer_close(t);
}

int64_t tl_tokenizer_vocab(const tl_tokenizer *t) {
    return tokenizer_vocab(t);
}

int32_t tl_tokenizer_bos(const tl_tokenizer *t) {
    return tokenizer_role_id(t, TOKENIZER_BOS);
}

int32_t tl_tokenizer_eos(const tl_tokenizer *t) {
    return tokenizer_role_id(t, TOKENIZER_EOD);
}

tl_status tl_tokenizer_encode(const tl_tokenizer *t, const char *text, size_t size, bool special, int32_t *ids,
                              size_t max, size_t *n, tl_error *err) {
    token_list l;
    token_list_init(&l, &mem_default);
    tl_status s = tokenizer_encode(t, text, size, special ? TOKENIZER_PARSE : 0, &l, err);
    *n = l.n;
    if (s == TL_OK && max && l.n) memcpy(ids, l.id, (l.n < max ? l.n : max) * sizeof *ids);
    token_list_fini(&l);
    return s;
}

tl_status tl_tokenizer_decode(const tl_tokenizer *t, const int32_t *ids, size_t n_ids, char *text, size_t max,
                              size_t *n, tl_error *err) {
    str out;
    str_init(&out, &mem_default);
    tl_status s = tokenizer_decode(t, ids, n_ids, TOKENIZER_SKIP | TOKENIZER_REPLACE, &out, err);
    if (s == TL_OK && out.failed) s = error_set(err, TL_NOMEM, "no memory for the text");
    *n = out.len;
    if (s == TL_OK && max && out.len) memcpy(text, out.data, out.len < max ? out.len : max);
    str_fini(&out);
    return s;
}

/* ---- training -------------------------------------------------------------------------------------------- */

static tl_status train_read(token_trainer *r, const tl_tokenizer_train_options *o, const char *text, size_t n,
                            tl_error *err) {
    if (n) TRY(token_trainer_text(r, text, n, err));
    for (size_t i = 0; i < o->n_files; i++) TRY(token_trainer_file(r, o->files[i], err));
    return TL_OK;
}

tl_status tl_tokenizer_train(tl_engine *e, const tl_tokenizer_train_options *o, const char *text, size_t n,
                             tl_tokenizer **out, tl_error *err) {
    *out = NULL;
    if (!o || o->vocab < 1) return error_set(err, TL_ARG, "the size of the vocabulary is missing");
    if (!n && !o->n_files) return error_set(err, TL_ARG, "there is nothing to train a tokenizer on");
    tokenizer_train_options to = {.vocab = (size_t)o->vocab,
                                  .min_count = o->min_count,
                                  .split = o->split ? o->split : "gpt2",
                                  .special = o->special,
                                  .special_n = o->n_special,
                                  .threads = (size_t)tl_engine_threads(e),
                                  .progress = o->progress,
                                  .user = o->user};
    token_trainer *r;
    TRY(token_trainer_open(tl_engine_allocator(e), &to, &r, err));
    tl_status s = train_read(r, o, text, n, err);
    if (s == TL_OK) s = token_trainer_finish(r, out, NULL, err);
    token_trainer_close(r);
    return s;
}
