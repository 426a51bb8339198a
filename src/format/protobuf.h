/* protobuf: the wire format, one field after another, inside given bounds. Knows no schema and calls nothing back:
 * nesting is the caller's, so depth is too. */
#ifndef FORMAT_PROTOBUF_H
#define FORMAT_PROTOBUF_H

#include "base/mem.h"

typedef struct protobuf_reader {
    const uint8_t *p;
    size_t n, at;
    size_t base; /* place of p[0] in the file, for errors */
} protobuf_reader;

typedef enum protobuf_wire { PROTOBUF_VARINT = 0, PROTOBUF_64 = 1, PROTOBUF_BYTES = 2, PROTOBUF_32 = 5 } protobuf_wire;

typedef struct protobuf_field {
    uint32_t number;
    protobuf_wire wire;
    uint64_t value; /* varint, or the 4 or 8 bytes as a little-endian number */
    const uint8_t *bytes;
    size_t size; /* of bytes */
} protobuf_field;

/* The next field. *more false: the message is over. FORMAT, with the offset, for anything malformed (groups too). */
tl_status protobuf_next(protobuf_reader *r, protobuf_field *f, bool *more, tl_error *e);
/* A reader for the message inside a field. */
protobuf_reader protobuf_inside(const protobuf_reader *r, const protobuf_field *f);
/* The field must have that wire type. */
tl_status protobuf_want(const protobuf_reader *r, const protobuf_field *f, protobuf_wire wire, tl_error *e);
float protobuf_float(const protobuf_field *f);

#endif
