#include "base/hash.h"
#include "cli/train_cli.h"
#include "data/chats.h"
#include "data/tokenize.h"

#include <stdlib.h>
#include <string.h>

enum { VAL_TOKENS = 256 << 10, CHARS_MAX = 1 << 30 };

static tl_status open_corpus(const train_options *o, const tl_allocator *a, const char *const *file, size_t n,
                             corpus **out, tl_error *e) {
    corpus_options co = {.text_field = o->text_field, .separator = o->separator};
    return corpus_open(a, file, n, &co, out, e);
}

/* ---- tokenizer ---------------------------------------------------------------------------------------------- */

/* Characters come from the whole text: it is read twice. */
static tl_status chars_tokenizer(const train_options *o, const tl_allocator *a, tokenizer **out, tl_error *e) {
    corpus *c;
    str text;
    bool more = true;
    for (size_t i = 0; i < o->n_file; i++)
        if (strcmp(o->file[i], "-") == 0)
            return error_set(e, TL_ARG, "a character tokenizer reads the text twice: give a file, not -");
    str_init(&text, a);
    TRY(open_corpus(o, a, o->file, o->n_file, &c, e));
    tl_status s = TL_OK;
    while (s == TL_OK && more) s = corpus_document(c, CHARS_MAX, &text, NULL, &more, e);
    corpus_close(c);
    if (s == TL_OK && text.failed) s = error_set(e, TL_NOMEM, "no memory for the text");
    if (s == TL_OK) s = tokenizer_from_chars(a, text.data ? text.data : "", text.len, out, e);
    str_fini(&text);
    return s;
}

tl_status train_tokenizer(const train_options *o, const tl_allocator *a, tokenizer **out, tl_error *e) {
    if (!o->tokenizer || strcmp(o->tokenizer, "bytes") == 0) return tokenizer_from_bytes(a, out, e);
    if (strcmp(o->tokenizer, "chars") == 0) return chars_tokenizer(o, a, out, e);
    return tokenizer_open(a, o->tokenizer, out, e);
}

/* ---- shards -------------------------------------------------------------------------------------------------- */

static bool keep_going(void *user, int64_t documents, int64_t bytes) {
    (void)user, (void)documents, (void)bytes;
    return cli_signal() == 0;
}

/* Conversations and completions, of which the answers are learned. */
static tl_status write_examples(const train_options *o, const tl_allocator *a, const char *const *file, size_t n,
                                const char *path, const tokenizer *t, train_data *d, tl_error *e) {
    shard_writer w;
    chats_report r;
    if (o->random) return error_set(e, TL_ARG, "examples are packed whole: leave --random-windows out");
    TRY(shard_writer_open(&w, a, path, tokenizer_vocab(t), tokenizer_role_id(t, TOKENIZER_EOD), 0, e));
    tl_status s = chats_write(a, file, n, t, o->family, &w, keep_going, NULL, &r, e);
    d->documents += r.examples;
    d->learned += r.learned;
    if (s == TL_OK) return shard_writer_commit(&w, e);
    shard_writer_abort(&w);
    return s;
}

static tl_status write_shard(const train_options *o, const tl_allocator *a, const char *const *file, size_t n,
                             const char *path, const tokenizer *t, size_t threads, train_data *d, tl_error *e) {
    corpus *c;
    shard_writer w;
    if (!o->text_field && chats_are(a, file, n)) return write_examples(o, a, file, n, path, t, d, e);
    TRY(open_corpus(o, a, file, n, &c, e));
    tl_status s = shard_writer_open(&w, a, path, tokenizer_vocab(t), tokenizer_role_id(t, TOKENIZER_EOD), 0, e);
    if (s == TL_OK) {
        token_sink sink = token_sink_shard(&w);
        tokenize_options to = {.threads = threads, .progress = keep_going};
        s = tokenize_corpus(a, c, t, &to, &sink, NULL, e);
        if (s == TL_OK) s = shard_writer_commit(&w, e);
        if (s != TL_OK) shard_writer_abort(&w);
        d->documents += corpus_documents(c);
        d->bytes += corpus_bytes(c);
    }
    corpus_close(c);
    return s;
}

static tl_status open_shards(train_data *d, const char *run, bool held, tl_error *e) {
    char path[TRAIN_PATH];
    TRY(file_join(path, sizeof path, run, "data.tokens", e));
    TRY(shard_open(path, true, &d->all, e));
    if (!held) {
        TRY(tokens_split(&d->all.view, d->fraction, &d->train, &d->val, e));
        return TL_OK;
    }
    TRY(file_join(path, sizeof path, run, "val.tokens", e));
    TRY(shard_open(path, true, &d->held, e));
    d->has_held = true;
    d->train = d->all.view;
    d->val = d->held.view;
    return TL_OK;
}

/* A number in (0,1) is a fraction, anything else a file. */
static bool is_fraction(const char *text, double *out) {
    char *end;
    *out = strtod(text, &end);
    return end != text && !*end;
}

tl_status train_data_make(train_data *d, const train_options *o, const tl_allocator *a, const char *run,
                          const tokenizer *t, size_t threads, tl_error *e) {
    char path[TRAIN_PATH];
    memset(d, 0, sizeof *d);
    bool file = o->val && !is_fraction(o->val, &d->fraction);
    TRY(file_join(path, sizeof path, run, "data.tokens", e));
    TRY(write_shard(o, a, o->file, o->n_file, path, t, threads, d, e));
    if (file) {
        train_data ignored = {0};
        TRY(file_join(path, sizeof path, run, "val.tokens", e));
        TRY(write_shard(o, a, &o->val, 1, path, t, threads, &ignored, e));
        return open_shards(d, run, true, e);
    }
    if (!o->val) {
        TRY(file_join(path, sizeof path, run, "data.tokens", e));
        TRY(shard_open(path, false, &d->all, e));
        d->fraction = d->all.view.n > VAL_TOKENS * 10 ? (double)VAL_TOKENS / (double)d->all.view.n : 0.1;
        shard_close(&d->all);
    }
    return open_shards(d, run, false, e);
}

static void fingerprint(const tokens *t, char hex[17]) {
    uint64_t h = hash_bytes(t->id, (size_t)(t->n * t->width));
    if (t->mark) h ^= hash_bytes(t->mark, (size_t)t->n);
    snprintf(hex, 17, "%016llx", (unsigned long long)h);
}

json_t *train_data_json(const train_data *d) {
    char train[17], val[17];
    fingerprint(&d->train, train);
    fingerprint(&d->val, val);
    return json_pack("{s:I,s:I,s:I,s:I,s:f,s:b,s:s,s:s}", "documents", (json_int_t)d->documents, "bytes",
                     (json_int_t)d->bytes, "train_tokens", (json_int_t)d->train.n, "val_tokens", (json_int_t)d->val.n,
                     "val_fraction", d->fraction, "val_file", d->has_held, "train_xxh3", train, "val_xxh3", val);
}

tl_status train_data_open(train_data *d, const char *run, const json_t *data, tl_error *e) {
    bool held = false;
    const char *train = "", *val = "";
    char hex[17];
    memset(d, 0, sizeof *d);
    TRY(json_get_bool(data, "val_file", &held, e));
    TRY(json_get_real(data, "val_fraction", &d->fraction, e));
    TRY(json_get_int(data, "documents", 0, INT64_MAX, &d->documents, e));
    TRY(json_get_int(data, "bytes", 0, INT64_MAX, &d->bytes, e));
    TRY(json_get_str(data, "train_xxh3", &train, e));
    TRY(json_get_str(data, "val_xxh3", &val, e));
    TRY(open_shards(d, run, held, e));
    fingerprint(&d->train, hex);
    bool same = strcmp(hex, train) == 0;
    fingerprint(&d->val, hex);
    if (same && strcmp(hex, val) == 0) return TL_OK;
    tl_status s = error_set(e, TL_CHECKSUM, "its text is not the one that the checkpoint was trained on");
    error_at_file(e, run);
    return s;
}

void train_data_close(train_data *d) {
    if (d->all.view.id) shard_close(&d->all);
    if (d->has_held) shard_close(&d->held);
    memset(d, 0, sizeof *d);
}
