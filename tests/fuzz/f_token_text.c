/* Text under a tokenizer trained on it: streams give the ids of the whole, and the bytes come back. The first byte
 * chooses the pattern, the second how the stream is cut. */
#include "fuzz_token.h"
#include <string.h>

static tokenizer *train(const char *split, const char *text, size_t n) {
    static const char *const special[] = {"<|e|>", "<|e|>>", "\n<x> "};
    tokenizer_train_options o = {.vocab = 290, .split = split, .special = special, .special_n = 3, .threads = 1};
    token_trainer *r;
    tokenizer *t = NULL;
    tl_error e;
    if (token_trainer_open(&mem_default, &o, &r, &e) != TL_OK) __builtin_trap();
    if (token_trainer_text(r, text, n, &e) == TL_OK && token_trainer_finish(r, &t, NULL, &e) != TL_OK) __builtin_trap();
    token_trainer_close(r);
    return t;
}

static void stream(const tokenizer *t, const char *text, size_t n, size_t step, unsigned flags,
                   const token_list *want) {
    token_encoder *x;
    token_list l;
    tl_error e;
    token_list_init(&l, &mem_default);
    if (token_encoder_open(t, flags, 1, &x, &e) != TL_OK) __builtin_trap();
    tl_status s = TL_OK;
    for (size_t at = 0; at < n && s == TL_OK; at += step)
        s = token_encoder_push(x, text + at, n - at < step ? n - at : step, &l, &e);
    if (s == TL_OK) s = token_encoder_finish(x, &l, &e);
    if (s != TL_OK || l.n != want->n || (l.n && memcmp(l.id, want->id, l.n * sizeof *l.id))) __builtin_trap();
    token_encoder_close(x);
    token_list_fini(&l);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const char *const split[] = {"gpt2", "cl100k", "o200k", "qwen2", "none", "\\p{L}+|\\s+(?!\\S)|\\p{N}{1,3}"};
    if (n < 2 || n > 4096) return 0;
    const char *text = (const char *)data + 2;
    tokenizer *t = train(split[data[0] % 6], text, n - 2);
    for (unsigned flags = 0; t && flags <= TOKENIZER_PARSE; flags++) {
        token_list l;
        str s;
        tl_error e;
        token_list_init(&l, &mem_default);
        str_init(&s, &mem_default);
        if (tokenizer_encode(t, text, n - 2, flags, &l, &e) != TL_OK) __builtin_trap();
        if (tokenizer_decode(t, l.id, l.n, 0, &s, &e) != TL_OK || s.len != n - 2) __builtin_trap();
        if (s.len && memcmp(s.data, text, s.len)) __builtin_trap();
        stream(t, text, n - 2, (size_t)data[1] % 40 + 1, flags, &l);
        str_fini(&s);
        token_list_fini(&l);
    }
    tokenizer_close(t);
    return 0;
}
