/* tilia/base.h: what every other header of Tilia stands on: status codes, errors with a place, the
 * replaceable allocator and log, number types. */
#ifndef TILIA_BASE_H
#define TILIA_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TL_API __attribute__((visibility("default")))
#define TL_PRINTF(f, a) __attribute__((format(printf, f, a)))
#else
#define TL_API
#define TL_PRINTF(f, a)
#endif

/* ---- status and error ------------------------------------------------------------------------ */

typedef enum tl_status {
#define X(name, number, message) TL_##name = number,
#include "tilia/status.def"
#undef X
} tl_status;

/* Where something went wrong. Every field but code may be empty: text[0] == 0, offset -1, line 0. */
typedef struct tl_error {
    tl_status code;
    char text[400];   /* what is wrong, in words, without the place */
    char file[240];   /* path as the caller gave it */
    char tensor[120]; /* name of the tensor, operator or key concerned */
    int64_t offset;   /* byte offset in file, -1 if none */
    int64_t line;     /* line in a text file, 1-based, 0 if none */
} tl_error;

/* The message of a status code, never NULL. [threads: any] [allocates: no] */
TL_API const char *tl_status_text(tl_status code);
/* "file:line: tensor: text" in buf, always terminated; returns buf. [threads: any] [allocates: no] */
TL_API const char *tl_error_text(const tl_error *e, char *buf, size_t size);

/* ---- memory ---------------------------------------------------------------------------------- */

/* All memory of an engine and of what is created from it comes from here. alloc returns memory aligned to
 * 64 bytes or NULL; free gets the size that was asked for. Both may be called from any thread. */
typedef struct tl_allocator {
    void *(*alloc)(void *user, size_t size);
    void (*free)(void *user, void *ptr, size_t size);
    void *user;
} tl_allocator;

/* ---- log ------------------------------------------------------------------------------------- */

typedef enum tl_log_level { TL_LOG_ERROR, TL_LOG_WARN, TL_LOG_INFO, TL_LOG_DEBUG } tl_log_level;

/* Receives one line, without a newline. May be called from the thread that called the library only. */
typedef void (*tl_log_fn)(void *user, tl_log_level level, const char *line);

/* ---- number types ---------------------------------------------------------------------------- */

typedef enum tl_dtype {
    TL_NONE = 0, /* absent */
    TL_F32,
    TL_F64,
    TL_BF16,
    TL_F16,
    TL_I32,
    TL_I64,
    TL_I8,
    TL_U8,
    TL_I16,
    TL_U16,
    TL_U32,
    TL_U64,
    TL_BOOL,
    TL_F8_E4M3,
    TL_F8_E5M2,
    TL_Q8_0, /* 32 int8 and an f16 scale */
    TL_Q4_0, /* 32 4-bit and an f16 scale */
    TL_Q4_K, /* 256 4-bit, 8 scales and minima of 6 bits, two f16 */
    TL_Q6_K, /* 256 6-bit, 16 int8 scales, one f16 */
    TL_DTYPE_COUNT
} tl_dtype;

/* "f32", "bf16", "q8_0" ...; "?" for a number that is no dtype. [threads: any] [allocates: no] */
TL_API const char *tl_dtype_name(tl_dtype t);
/* The dtype of that name, TL_NONE if there is none. */
TL_API tl_dtype tl_dtype_parse(const char *name);
/* Elements in a block (1 except for quantized types) and bytes of a block. */
TL_API int64_t tl_dtype_block(tl_dtype t);
TL_API size_t tl_dtype_bytes(tl_dtype t);

#ifdef __cplusplus
}
#endif
#endif
