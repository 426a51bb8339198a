/* SentencePiece's protobuf. */
#include "fuzz_token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    tokenizer *t;
    tl_error e;
    (void)load_is_sentencepiece(data, n);
    if (load_sentencepiece(&mem_default, data, n, &t, &e) == TL_OK) fuzz_token_finish(t);
    return 0;
}
