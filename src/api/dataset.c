/* include/tilia/data.h over data/: a store of ids and a loader. */
#include "api/api.h"
#include "data/tokenize.h"

tl_status tl_dataset_create(tl_engine *e, const tl_tokenizer *t, int64_t vocab, int32_t eos, tl_dataset **out,
                            tl_error *err) {
    *out = NULL;
    if (t) {
        vocab = tokenizer_vocab(t);
        eos = tokenizer_role_id(t, TOKENIZER_EOD);
    }
    if (vocab < 1 || vocab > INT32_MAX || eos >= vocab)
        return error_set(err, TL_ARG, "a dataset without a tokenizer needs the size of the vocabulary");
    const tl_allocator *a = tl_engine_allocator(e);
    tl_dataset *d = mem_new(a, 1, sizeof *d);
    if (!d) return error_set(err, TL_NOMEM, "no memory for a dataset");
    d->alloc = a;
    d->tokenizer = t;
    token_store_init(&d->text, a, vocab, eos < 0 ? -1 : eos);
    *out = d;
    return TL_OK;
}

void tl_dataset_close(tl_dataset *d) {
    if (!d) return;
    loader_close(d->loader);
    token_store_fini(&d->text);
    mem_free(d->alloc, d);
}

/* Loaders look into the store, whose memory moves when it grows. */
static tl_status dataset_open_up(tl_dataset *d, bool text, tl_error *err) {
    if (d->users) return error_set(err, TL_STATE, "a trainer uses the dataset; nothing can be added");
    if (text && !d->tokenizer) return error_set(err, TL_STATE, "the dataset has no tokenizer; give it ids");
    loader_close(d->loader);
    d->loader = NULL;
    return TL_OK;
}

tl_status tl_dataset_add_text(tl_dataset *d, const char *text, size_t n, tl_error *err) {
    TRY(dataset_open_up(d, true, err));
    token_sink sink = token_sink_store(&d->text);
    return tokenize_text(d->alloc, text, n, d->tokenizer, &sink, err);
}

tl_status tl_dataset_add_ids(tl_dataset *d, const int32_t *ids, size_t n, tl_error *err) {
    TRY(dataset_open_up(d, false, err));
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || ids[i] >= d->text.view.vocab)
            return error_set(err, TL_ARG, "id %d is outside the vocabulary of %d", ids[i], d->text.view.vocab);
    TRY(token_store_add(&d->text, ids, n, err));
    return token_store_end(&d->text, err);
}

tl_status tl_dataset_add_files(tl_dataset *d, const char *const *path, size_t n, const char *separator, tl_error *err) {
    TRY(dataset_open_up(d, true, err));
    corpus_options co = {.separator = separator};
    corpus *c;
    TRY(corpus_open(d->alloc, path, n, &co, &c, err));
    token_sink sink = token_sink_store(&d->text);
    tokenize_options o = {.threads = 1};
    tl_status s = tokenize_corpus(d->alloc, c, d->tokenizer, &o, &sink, NULL, err);
    corpus_close(c);
    return s;
}

int64_t tl_dataset_tokens(const tl_dataset *d) {
    return d->text.view.n;
}

int64_t tl_dataset_documents(const tl_dataset *d) {
    return d->text.view.documents;
}

tl_status tl_dataset_shape(tl_dataset *d, int64_t rows, int64_t context, bool packed, uint64_t seed, tl_error *err) {
    loader_options o = {.mode = packed ? LOADER_PACKED : LOADER_WINDOWS, .B = rows, .T = context, .seed = seed};
    o.across = !packed;
    if (rows < 1 || context < 1) return error_set(err, TL_ARG, "rows and context must be positive");
    if (!d->text.view.n) return error_set(err, TL_STATE, "the dataset is empty");
    loader *l;
    TRY(loader_open(d->alloc, &d->text.view, &o, &l, err));
    loader_close(d->loader);
    d->loader = l;
    d->rows = rows;
    d->context = context;
    return TL_OK;
}

int64_t tl_dataset_steps(const tl_dataset *d) {
    return d->loader ? loader_steps(d->loader) : 0;
}

tl_status tl_dataset_batch(const tl_dataset *d, int64_t step, int32_t *input, int32_t *target, int32_t *pos,
                           int32_t *doc_start, int64_t *labels, tl_error *err) {
    if (!d->loader) return error_set(err, TL_STATE, "the shape of batches is not known yet");
    if (step < 0 || !input || !target) return error_set(err, TL_ARG, "no step, or no arrays for inputs and targets");
    loader_batch b = {.input = input, .target = target, .pos = pos, .doc_start = doc_start};
    loader_get(d->loader, step, &b);
    if (labels) *labels = b.labels;
    return TL_OK;
}

tl_status tl_trainer_use(tl_trainer *t, tl_dataset *d, tl_error *err) {
    if (d && d->text.view.vocab > t->model->config.vocab)
        return error_set(err, TL_ARG, "the dataset has ids up to %d, the model a vocabulary of %lld",
                         d->text.view.vocab - 1, (long long)t->model->config.vocab);
    loader_close(t->loader);
    t->loader = NULL;
    if (t->data) t->data->users--;
    if (d) d->users++;
    t->data = d;
    return TL_OK;
}
