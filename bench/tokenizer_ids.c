/* Ids, spans and text of many strings, for bench/tokenizer_oracle.py:
 *     tokenizer_ids TOKENIZER
 * reads records from standard input: flags (u32: 1 parse special tokens, 2 add what the tokenizer puts around), bytes
 * (u32), the text; answers each with: ids (u32), the ids (i32), begin and end of each (u64), bytes of the decoded text
 * (u64) and that text. The ids are also asked for in small parts of a stream, and must be the same. */
#include "tokenizer/tokenizer.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int fail(const tl_error *e) {
    char text[1024];
    fprintf(stderr, "%s\n", tl_error_text(e, text, sizeof text));
    return 1;
}

static tl_status same_in_parts(const tokenizer *t, unsigned flags, const char *text, size_t n, const token_list *want,
                               tl_error *e) {
    token_encoder *x;
    token_list l;
    token_list_init(&l, &mem_default);
    TRY(token_encoder_open(t, flags, 1, &x, e));
    tl_status s = TL_OK;
    size_t step = n < 2000 ? n % 7 + 1 : n / 9 + 1;
    for (size_t at = 0; at < n && s == TL_OK; at += step)
        s = token_encoder_push(x, text + at, n - at < step ? n - at : step, &l, e);
    if (s == TL_OK) s = token_encoder_finish(x, &l, e);
    if (s == TL_OK && (l.n != want->n || (l.n && memcmp(l.id, want->id, l.n * sizeof *l.id) != 0)))
        s = error_set(e, TL_INTERNAL, "a stream of parts of %zu bytes gave other ids than the whole", step);
    token_encoder_close(x);
    token_list_fini(&l);
    return s;
}

static tl_status answer(const tokenizer *t, unsigned flags, const char *text, size_t n, token_list *l, str *out,
                        tl_error *e) {
    l->n = 0;
    str_clear(out);
    TRY(tokenizer_encode(t, text, n, flags, l, e));
    TRY(same_in_parts(t, flags, text, n, l, e));
    TRY(tokenizer_decode(t, l->id, l->n, 0, out, e));
    uint32_t count = (uint32_t)l->n;
    uint64_t bytes = out->len;
    fwrite(&count, sizeof count, 1, stdout);
    fwrite(l->id, sizeof *l->id, l->n, stdout);
    for (size_t i = 0; i < l->n; i++)
        fwrite((uint64_t[]){l->span[i].begin, l->span[i].end}, sizeof(uint64_t), 2, stdout);
    fwrite(&bytes, sizeof bytes, 1, stdout);
    fwrite(out->data, 1, out->len, stdout);
    return TL_OK;
}

int main(int argc, char **argv) {
    tl_error e;
    tokenizer *t;
    token_list l;
    str out;
    uint32_t head[2];
    if (argc != 2) {
        fprintf(stderr, "usage: %s TOKENIZER <records\n", argv[0]);
        return 2;
    }
    if (tokenizer_open(&mem_default, argv[1], &t, &e) != TL_OK) return fail(&e);
    token_list_init(&l, &mem_default);
    l.want_spans = true;
    str_init(&out, &mem_default);
    tl_status s = TL_OK;
    while (s == TL_OK && fread(head, sizeof head, 1, stdin) == 1) {
        char *text = malloc((size_t)head[1] + 1);
        if (!text || fread(text, 1, head[1], stdin) != head[1]) return 1;
        s = answer(t, head[0], text, head[1], &l, &out, &e);
        free(text);
    }
    str_fini(&out);
    token_list_fini(&l);
    tokenizer_close(t);
    return s == TL_OK ? 0 : fail(&e);
}
