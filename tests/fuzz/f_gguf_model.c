/* GGUF as a model: the configuration its keys make, and that its pieces are looked for within the file. */
#include "model/gguf.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    gguf g;
    model_config *c = malloc(sizeof *c);
    model_params p;
    tl_error e;
    if (gguf_parse(&mem_default, data, n, &g, &e) == TL_OK) {
        gguf_parts parts = {.alloc = &mem_default, .part = &g, .n = 1};
        if (config_read_gguf(&parts, c, &e) == TL_OK && params_init(&p, &mem_default, c, &e) == TL_OK) {
            param_piece piece[PARAM_PIECES];
            gguf_factors f[2];
            double freq[MODEL_MAX_FACTORS], m;
            for (size_t i = 0; i < p.n; i++)
                for (int k = params_pieces(c, &p.list[i], FORMAT_GGUF, piece); k-- > 0;)
                    (void)gguf_parts_find(&parts, piece[k].name);
            if (build_rope_dims(c) <= 2 * MODEL_MAX_FACTORS) build_rope_freq(c, c->context, freq, &m);
            gguf_factors_of(c, f);
            params_fini(&p, &mem_default);
        }
        gguf_close(&g);
    }
    free(c);
    return 0;
}
