/* GGUF versions 2 and 3, read strictly and without copying: keys, tensors and where their data lie. Knows no model.
 * Little-endian files only. Everything a file says is checked against what the file has before it is believed. */
#ifndef FORMAT_GGUF_H
#define FORMAT_GGUF_H

#include "base/file.h"
#include "base/mem.h"

typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
} gguf_type;

typedef struct gguf_str { /* not terminated, inside the file */
    const char *s;
    size_t n;
} gguf_str;

typedef struct gguf_value {
    gguf_str key;
    gguf_type type; /* of the value, or of the elements if array */
    bool array;
    size_t count;        /* 1 unless array */
    const uint8_t *data; /* unaligned, little-endian; strings: u64 length and bytes each */
    size_t size;         /* bytes of data */
} gguf_value;

/* Number types of tensors, by their numbers in files. */
enum {
    GGUF_T_F32 = 0,
    GGUF_T_F16 = 1,
    GGUF_T_Q4_0 = 2,
    GGUF_T_Q8_0 = 8,
    GGUF_T_Q4_K = 12,
    GGUF_T_Q6_K = 14,
    GGUF_T_BF16 = 30,
    GGUF_T_COUNT = 40
};

typedef struct gguf_tensor {
    gguf_str name;
    unsigned dims;
    int64_t ne[4]; /* ne[0] runs fastest; those beyond dims are 1 */
    uint32_t type;
    const uint8_t *data; /* aligned in the file to its alignment */
    size_t offset, size; /* offset in the file */
} gguf_tensor;

typedef struct gguf {
    const tl_allocator *alloc;
    file_map map; /* of gguf_open */
    const uint8_t *bytes;
    size_t size;
    uint32_t version;
    size_t alignment, data; /* where tensor data begins */
    gguf_value *kv;         /* (kv_n) in file order */
    size_t kv_n;
    gguf_tensor *tensor; /* (tensor_n) in file order */
    size_t tensor_n;
    uint32_t *by_key, *by_name; /* sorted indices */
} gguf;

/* Opens and checks a file; views into it live until gguf_close.
 * [fails: NOMEM, IO, NOTFOUND, FORMAT, UNSUPPORTED (version, endianness, removed types), LIMIT] */
tl_status gguf_open(const tl_allocator *a, const char *path, gguf *g, tl_error *e);
/* The same from memory, which stays the caller's. */
tl_status gguf_parse(const tl_allocator *a, const void *data, size_t n, gguf *g, tl_error *e);
void gguf_close(gguf *g); /* a zeroed gguf is fine */

const gguf_value *gguf_find(const gguf *g, const char *key);          /* NULL: absent */
const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name); /* NULL: absent */

/* Typed access: an absent key leaves *out alone and is TL_OK; another type, or a number outside min..max, is CONFIG
 * and names the key. Integers of any width count; f32 and f64 count as reals. */
tl_status gguf_get_int(const gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, tl_error *e);
tl_status gguf_get_real(const gguf *g, const char *key, double *out, tl_error *e);
tl_status gguf_get_bool(const gguf *g, const char *key, bool *out, tl_error *e);
tl_status gguf_get_str(const gguf *g, const char *key, gguf_str *out, tl_error *e);
/* An array of that element type, or CONFIG; absent: *out NULL. */
tl_status gguf_get_array(const gguf *g, const char *key, gguf_type type, const gguf_value **out, tl_error *e);
/* Elements of arrays that gguf_get_array gave, i < count. */
float gguf_f32_at(const gguf_value *v, size_t i);
int32_t gguf_i32_at(const gguf_value *v, size_t i);
/* Walks a string array: *at begins at 0. false: past the end. */
bool gguf_next_str(const gguf_value *v, size_t *at, gguf_str *out);

/* Elements and bytes in a block of a tensor type; 0: no such type. */
int64_t gguf_block(uint32_t type);
size_t gguf_block_bytes(uint32_t type);
const char *gguf_type_name(uint32_t type); /* "f32", "q4_0" ...; "?" */

#endif
