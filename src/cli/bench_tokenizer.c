/* tilia bench tokenizer: bytes a second that training, encoding and decoding get through. */
#include "cli/bench_cli.h"

#include "base/file.h"
#include "data/story.h"
#include "tokenizer/tokenizer.h"

#include <stdlib.h>
#include <string.h>

enum { RUNS = 5, STORY_BYTES = 16 << 20, WINDOW = 1 << 20, VOCAB = 8000 };

typedef struct bench_text {
    const char *name, *text;
    size_t n;
    file_map map; /* of a file given */
    str stories;  /* or stories of the built-in grammars */
} bench_text;

static tl_status text_open(const bench_options *o, bench_text *t, tl_error *e) {
    memset(t, 0, sizeof *t);
    str_init(&t->stories, &mem_default);
    if (o->text) {
        TRY(file_map_open(o->text, &t->map, e));
        t->name = o->text, t->text = (const char *)t->map.data, t->n = t->map.size;
        return t->n ? TL_OK : error_set(e, TL_ARG, "%s is empty", o->text);
    }
    for (uint64_t i = 0; t->stories.len < STORY_BYTES; i++) { /* English and Chinese in turn */
        TRY(story_generate(i & 1 ? STORY_ZH : STORY_EN, 1, i, &t->stories, NULL));
        str_addc(&t->stories, '\n');
    }
    if (t->stories.failed) return error_set(e, TL_NOMEM, "no memory for stories");
    t->name = "built-in stories", t->text = t->stories.data, t->n = t->stories.len;
    return TL_OK;
}

static void text_close(bench_text *t) {
    if (t->map.data) file_map_close(&t->map);
    str_fini(&t->stories);
}

static void report(bench_options *o, const char *what, size_t threads, double mb_s, const char *note) {
    if (o->common.json) {
        bench_json_row(o);
        printf("{\"what\": \"%s\", \"threads\": %zu, \"bytes_per_second\": %.6g}", what, threads, 1e6 * mb_s);
    } else
        printf("%-8s %2zu thread%s %9.1f MB/s%s\n", what, threads, threads == 1 ? " " : "s", mb_s, note);
}

/* As a program would that writes shards: a window of text in, its ids out, the same memory again. */
static tl_status encode_once(token_encoder *x, const bench_text *t, size_t window, token_list *l, size_t *count,
                             tl_error *e) {
    *count = 0;
    for (size_t at = 0; at < t->n; at += window) {
        l->n = 0;
        TRY(token_encoder_push(x, t->text + at, t->n - at < window ? t->n - at : window, l, e));
        *count += l->n;
    }
    l->n = 0;
    TRY(token_encoder_finish(x, l, e));
    *count += l->n;
    return TL_OK;
}

static tl_status bench_encode(bench_options *o, const tokenizer *k, const bench_text *t, size_t threads, size_t *count,
                              tl_error *e) {
    double took[RUNS];
    token_encoder *x;
    token_list l;
    token_list_init(&l, &mem_default);
    TRY(token_encoder_open(k, 0, threads, &x, e));
    tl_status s = TL_OK;
    for (int i = 0; i < RUNS && s == TL_OK; i++) {
        const double from = bench_now(o);
        s = encode_once(x, t, threads * WINDOW, &l, count, e);
        took[i] = bench_now(o) - from;
    }
    token_encoder_close(x);
    token_list_fini(&l);
    if (s == TL_OK) report(o, "encode", threads, 1e-6 * (double)t->n / bench_median(took, RUNS), "");
    return s;
}

static tl_status bench_decode(bench_options *o, const tokenizer *k, const bench_text *t, tl_error *e) {
    double took[RUNS];
    size_t n = t->n < STORY_BYTES ? t->n : STORY_BYTES;
    token_list l;
    str out;
    token_list_init(&l, &mem_default);
    str_init(&out, &mem_default);
    tl_status s = tokenizer_encode(k, t->text, n, 0, &l, e);
    for (int i = 0; i < RUNS && s == TL_OK; i++) {
        str_clear(&out);
        const double from = bench_now(o);
        s = tokenizer_decode(k, l.id, l.n, 0, &out, e);
        took[i] = bench_now(o) - from;
    }
    token_list_fini(&l);
    str_fini(&out);
    if (s == TL_OK) report(o, "decode", 1, 1e-6 * (double)n / bench_median(took, RUNS), "");
    return s;
}

static tl_status bench_learn(bench_options *o, const bench_text *t, size_t threads, tokenizer **out, tl_error *e) {
    static const char *const special[] = {"<|endoftext|>"};
    const size_t size = o->vocab ? (size_t)o->vocab : VOCAB;
    tokenizer_train_options how = {.vocab = size, .special = special, .special_n = 1, .threads = threads};
    token_trainer *r;
    char note[64];
    TRY(token_trainer_open(&mem_default, &how, &r, e));
    const double from = bench_now(o);
    tl_status s = token_trainer_text(r, t->text, t->n, e);
    if (s == TL_OK) s = token_trainer_finish(r, out, NULL, e);
    const double took = bench_now(o) - from;
    token_trainer_close(r);
    if (s != TL_OK) return s;
    snprintf(note, sizeof note, "  (vocabulary %lld, %.2f s)", (long long)tokenizer_vocab(*out), took);
    report(o, "train", threads, 1e-6 * (double)t->n / took, note);
    return TL_OK;
}

static tl_status bench_with(bench_options *o, const bench_text *t, tl_error *e) {
    const size_t most = (size_t)o->engine->host.dev->threads;
    tokenizer *k = NULL;
    size_t count = 0;
    tl_status s = TL_OK;
    if (o->tokenizer) s = tokenizer_open(&mem_default, o->tokenizer, &k, e);
    for (size_t threads = 1; s == TL_OK && !o->tokenizer && threads <= most; threads += threads < most ? most - 1 : 1) {
        tokenizer_close(k);
        k = NULL;
        s = bench_learn(o, t, threads, &k, e);
    }
    for (size_t threads = 1; s == TL_OK && threads <= most; threads += threads < most ? most - 1 : 1)
        s = bench_encode(o, k, t, threads, &count, e);
    if (s == TL_OK) s = bench_decode(o, k, t, e);
    if (s == TL_OK && !o->common.quiet)
        fprintf(stderr, "%s: %zu bytes, %zu ids, %.3f bytes per token\n", t->name, t->n, count,
                count ? (double)t->n / (double)count : 0);
    tokenizer_close(k);
    return s;
}

tl_status bench_tokenizer(bench_options *o, tl_error *e) {
    bench_text t;
    tl_status s = text_open(o, &t, e);
    if (s == TL_OK) s = bench_with(o, &t, e);
    text_close(&t);
    return s;
}
