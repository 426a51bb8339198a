/* config.json: what is accepted can be written, read again to the same, and made a table of parameters. */
#include "model/generation.h"
#include "model/model.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    json_t *o, *w;
    model_config *c = malloc(sizeof *c), *d = malloc(sizeof *d);
    model_params p;
    tl_error e;
    char unknown[300];
    if (json_parse((const char *)data, n, NULL, &o, &e) == TL_OK) {
        if (config_read(o, c, unknown, sizeof unknown, &e) == TL_OK) {
            w = config_write(c);
            if (config_read(w, d, unknown, sizeof unknown, &e) != TL_OK || memcmp(c, d, sizeof *c) != 0) abort();
            json_decref(w);
            model_generation g, h;
            if (generation_read(o, &g, c, &e) == TL_OK) {
                w = generation_write(&g, c);
                if (generation_read(w, &h, c, &e) != TL_OK || memcmp(&g, &h, sizeof g) != 0) abort();
                json_decref(w);
            }
            if (c->layers <= 32 && params_init(&p, &mem_default, c, &e) == TL_OK) {
                param_piece piece;
                for (size_t i = 0; i < p.n; i++)
                    for (int f = 0; f < FORMATS; f++) { /* of many experts the first and the last */
                        int t = params_piece_total(c, &p.list[i], (param_format)f);
                        params_piece_get(c, &p.list[i], (param_format)f, 0, &piece);
                        params_piece_get(c, &p.list[i], (param_format)f, t / 2, &piece);
                        params_piece_get(c, &p.list[i], (param_format)f, t - 1, &piece);
                    }
                params_fini(&p, &mem_default);
            }
        }
        json_decref(o);
    }
    free(c);
    free(d);
    return 0;
}
