/* GGUF: the container, then the tokenizer in it. */
#include "format/gguf.h"
#include "fuzz_token.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    gguf g;
    tokenizer *t;
    tl_error e;
    if (gguf_parse(&mem_default, data, n, &g, &e) != TL_OK) return 0;
    for (size_t i = 0; i < g.tensor_n; i++)
        for (size_t k = 0; k < g.tensor[i].size; k += 64) /* every byte promised must be there */
            if (g.tensor[i].data[k] == 1 && g.tensor[i].data < data) __builtin_trap();
    if (load_gguf_keys(&mem_default, &g, &t, &e) == TL_OK) fuzz_token_finish(t);
    gguf_close(&g);
    return 0;
}
