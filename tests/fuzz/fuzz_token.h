/* What the fuzzers of tokenizer readers do with a tokenizer that was accepted: use it. */
#ifndef FUZZ_FUZZ_TOKEN_H
#define FUZZ_FUZZ_TOKEN_H

#include "tokenizer/load.h"
#include "tokenizer/tokenizer.h"
#include <string.h>

/* In parts of seven bytes: the same ids. */
static inline void fuzz_token_stream(const tokenizer *t, const char *text, size_t n, const token_list *want) {
    token_encoder *x;
    token_list l;
    tl_error e;
    token_list_init(&l, &mem_default);
    if (token_encoder_open(t, 0, 1, &x, &e) != TL_OK) __builtin_trap();
    tl_status s = TL_OK;
    for (size_t at = 0; at < n && s == TL_OK; at += 7)
        s = token_encoder_push(x, text + at, n - at < 7 ? n - at : 7, &l, &e);
    if (s == TL_OK) s = token_encoder_finish(x, &l, &e);
    if (s == TL_OK && (l.n != want->n || (l.n && memcmp(l.id, want->id, l.n * sizeof *l.id)))) __builtin_trap();
    token_encoder_close(x);
    token_list_fini(&l);
}

static inline void fuzz_token_use(tokenizer *t, const char *text, size_t n) {
    token_list l;
    str s;
    tl_error e;
    token_list_init(&l, &mem_default);
    str_init(&s, &mem_default);
    l.want_spans = n & 1;
    if (tokenizer_encode(t, text, n, TOKENIZER_PARSE | TOKENIZER_ADD, &l, &e) == TL_OK) {
        token_decoder d;
        token_decoder_init(&d, t, 0);
        if (tokenizer_decode(t, l.id, l.n, TOKENIZER_REPLACE, &s, &e) != TL_OK) __builtin_trap();
        for (size_t i = 0; i < l.n && i < 200; i++)
            if (token_decoder_push(&d, l.id[i], &s, &e) != TL_OK) __builtin_trap();
        if (token_decoder_finish(&d, &s, &e) != TL_OK) __builtin_trap();
    }
    l.n = 0;
    l.want_spans = false;
    if (tokenizer_encode(t, text, n, 0, &l, &e) == TL_OK) fuzz_token_stream(t, text, n, &l);
    token_list_fini(&l);
    str_fini(&s);
    (void)tokenizer_chat_family(t);
}

static inline void fuzz_token_finish(tokenizer *t) {
    static const char text[] =
        "The caf\xc3\xa9 <s>a</s> don't  12 \xe4\xb8\xad\xe6\x96\x87\xff ab\nabab \xf0\x9f\x99\x82 x";
    tl_error e;
    if (load_finish(t, &e) == TL_OK) fuzz_token_use(t, text, sizeof text - 1);
    tokenizer_close(t);
}

#endif
