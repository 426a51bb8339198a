/* Matrices used where a file has them: which files allow it, and where each matrix is. */
#ifndef MODEL_MAPPED_H
#define MODEL_MAPPED_H

#include "format/safetensors.h"
#include "model/gguf.h"

/* Fills m->mapped, m->vectors and m->source; config and params are there. UNSUPPORTED: this file does not allow it
 * (nothing of m has changed then, and p or s is still the caller's); on success p or s belongs to m. */
tl_status mapped_gguf(tl_model *m, gguf_parts *p, tl_error *err);
tl_status mapped_safetensors(tl_model *m, safetensors *s, tl_error *err);
/* Frees what they made. */
void mapped_close(tl_model *m);

#endif
