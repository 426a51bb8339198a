/* tokenizer.json and the small JSON of ours; a text for it may follow a zero byte. */
#include "fuzz_token.h"
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    tokenizer *t;
    tl_error e;
    const uint8_t *cut = n ? memchr(data, 0, n) : NULL;
    size_t json = cut ? (size_t)(cut - data) : n;
    if (tokenizer_from_json(&mem_default, (const char *)data, json, &t, &e) != TL_OK) return 0;
    if (cut) fuzz_token_use(t, (const char *)cut + 1, n - json - 1);
    fuzz_token_finish(t);
    return 0;
}
