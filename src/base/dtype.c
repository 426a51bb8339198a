#include "tilia/base.h"

#include <string.h>

typedef struct dtype_row {
    const char *name;
    int64_t block;
    size_t bytes;
} dtype_row;

static const dtype_row dtype_table[TL_DTYPE_COUNT] = {
    [TL_NONE] = {"none", 1, 0},
#define X(id, name, block, bytes) [TL_##id] = {name, block, bytes},
#include "base/dtype.def"
#undef X
};

static const dtype_row *dtype_find(tl_dtype t) {
    static const dtype_row unknown = {"?", 1, 0};
    return (unsigned)t < TL_DTYPE_COUNT ? &dtype_table[t] : &unknown;
}

const char *tl_dtype_name(tl_dtype t) {
    return dtype_find(t)->name;
}

tl_dtype tl_dtype_parse(const char *name) {
    for (int t = TL_NONE + 1; name && t < TL_DTYPE_COUNT; t++)
        if (!strcmp(dtype_table[t].name, name)) return (tl_dtype)t;
    return TL_NONE;
}

int64_t tl_dtype_block(tl_dtype t) {
    return dtype_find(t)->block;
}

size_t tl_dtype_bytes(tl_dtype t) {
    return dtype_find(t)->bytes;
}
