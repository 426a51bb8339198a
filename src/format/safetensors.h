/* safetensors: a header of JSON and the bytes of tensors. Strict reader (every rule of the format is checked before
 * a byte of data is touched), durable writer. Knows no models. */
#ifndef FORMAT_SAFETENSORS_H
#define FORMAT_SAFETENSORS_H

#include "base/file.h"

enum { SAFETENSORS_DIMS = 8, SAFETENSORS_MAX = 1 << 20 };

typedef struct safetensors_entry {
    const char *name;
    char dtype_name[12];
    tl_dtype dtype; /* TL_NONE: a legal type that Tilia does not compute with */
    int ndim;
    int64_t dim[SAFETENSORS_DIMS];
    int64_t count;
    const uint8_t *data; /* in the map; alignment is not guaranteed */
    size_t bytes;
    int shard; /* which file of a sharded model */
} safetensors_entry;

/* One file, or all shards of an index, seen as one list sorted by name. */
typedef struct safetensors {
    const tl_allocator *alloc;
    file_map *maps;
    size_t n_maps;
    safetensors_entry *list;
    size_t n, cap;
    void **name_blocks;
    size_t n_blocks;
} safetensors;

/* path: a .safetensors file, an index (.safetensors.index.json), or a directory with model.safetensors or an index.
 * [owns: caller] [fails: IO, NOTFOUND, FORMAT, LIMIT, NOMEM] */
tl_status safetensors_open(const tl_allocator *a, const char *path, safetensors *s, tl_error *e);
void safetensors_close(safetensors *s);
const safetensors_entry *safetensors_find(const safetensors *s, const char *name);
/* The entry's elements as f32 (from F32, F64, F16, BF16, F8_E4M3, F8_E5M2). UNSUPPORTED for other types. */
tl_status safetensors_to_f32(const safetensors_entry *t, float *out, tl_error *e);

/* ---- writing --------------------------------------------------------------------------------------- */

typedef struct safetensors_item {
    const char *name;
    tl_dtype dtype; /* F32, F64, F16, BF16, F8, I8..U64, BOOL */
    int ndim;
    int64_t dim[SAFETENSORS_DIMS];
} safetensors_item;

/* Fills buf with item i's bytes (little endian, C order). */
typedef void (*safetensors_fill)(void *user, size_t i, void *buf);

/* Writes path durably: beside it, synced, renamed. Items are laid out by alignment, then name. metadata: pairs of
 * key, value, ended by NULL, or NULL. hash (may be NULL) gets XXH3 of the whole file. */
tl_status safetensors_write(const tl_allocator *a, const char *path, const safetensors_item *items, size_t n,
                            safetensors_fill fill, void *user, const char *const *metadata, uint64_t *hash,
                            tl_error *e);

#endif
