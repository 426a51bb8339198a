/* Readers of tokenizer files, one a format; each makes a tokenizer or says what is wrong and where. */
#ifndef TOKENIZER_LOAD_H
#define TOKENIZER_LOAD_H

#include "base/json.h"
#include "tokenizer/internal.h"

enum { LOAD_MAX_BYTES = 512 << 20 }; /* no tokenizer file of the ecosystem comes near */

/* tokenizer.json of version 1.0, or the small JSON of bytes and chars. */
tl_status load_json(const tl_allocator *a, const json_t *root, tokenizer **out, tl_error *e);

#endif
