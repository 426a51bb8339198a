/* GPT-2's pair of files: vocab.json, a zero byte, merges.txt. */
#include "fuzz_token.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    tokenizer *t;
    tl_error e;
    const uint8_t *cut = n ? memchr(data, 0, n) : NULL;
    size_t json = cut ? (size_t)(cut - data) : n;
    load_gpt2_text v = {.text = (const char *)data, .n = json}, m = {.text = cut ? (const char *)cut + 1 : ""};
    m.n = cut ? n - json - 1 : 0;
    if (load_gpt2_texts(&mem_default, &v, &m, &t, &e) == TL_OK) fuzz_token_finish(t);
    return 0;
}
