/* tiktoken's rank files. */
#include "fuzz_token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    tokenizer *t;
    tl_error e;
    (void)load_is_tiktoken((const char *)data, n);
    if (load_tiktoken(&mem_default, (const char *)data, n, NULL, &t, &e) == TL_OK) fuzz_token_finish(t);
    return 0;
}
