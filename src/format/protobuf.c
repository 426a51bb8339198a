#include "format/protobuf.h"
#include <string.h>

static tl_status protobuf_bad(const protobuf_reader *r, size_t at, const char *what, tl_error *e) {
    error_set(e, TL_FORMAT, "protobuf: %s", what);
    error_at_offset(e, (int64_t)(r->base + at));
    return TL_FORMAT;
}

static tl_status protobuf_varint(protobuf_reader *r, uint64_t *out, tl_error *e) {
    uint64_t x = 0;
    for (unsigned i = 0; i < 10; i++) {
        if (r->at >= r->n) return protobuf_bad(r, r->at, "the data ends inside a number", e);
        uint8_t b = r->p[r->at++];
        if (i == 9 && b > 1) break;
        x |= (uint64_t)(b & 127) << (7 * i);
        if (!(b & 128)) {
            *out = x;
            return TL_OK;
        }
    }
    return protobuf_bad(r, r->at, "a number of more than 64 bits", e);
}

static tl_status protobuf_fixed(protobuf_reader *r, size_t n, uint64_t *out, tl_error *e) {
    if (n > r->n - r->at) return protobuf_bad(r, r->at, "the data ends inside a number", e);
    *out = 0;
    for (size_t i = 0; i < n; i++) *out |= (uint64_t)r->p[r->at + i] << (8 * i);
    r->at += n;
    return TL_OK;
}

tl_status protobuf_next(protobuf_reader *r, protobuf_field *f, bool *more, tl_error *e) {
    uint64_t key, n;
    memset(f, 0, sizeof *f);
    *more = r->at < r->n;
    if (!*more) return TL_OK;
    size_t begin = r->at;
    TRY(protobuf_varint(r, &key, e));
    if (key >> 3 == 0 || key >> 3 > 0x1fffffff) return protobuf_bad(r, begin, "a field number that may not be", e);
    f->number = (uint32_t)(key >> 3);
    switch (key & 7) {
    case 0: f->wire = PROTOBUF_VARINT; return protobuf_varint(r, &f->value, e);
    case 1: f->wire = PROTOBUF_64; return protobuf_fixed(r, 8, &f->value, e);
    case 5: f->wire = PROTOBUF_32; return protobuf_fixed(r, 4, &f->value, e);
    case 2: break;
    default: return protobuf_bad(r, begin, "a wire type that may not be", e);
    }
    f->wire = PROTOBUF_BYTES;
    TRY(protobuf_varint(r, &n, e));
    if (n > r->n - r->at) return protobuf_bad(r, begin, "a field is longer than what is left", e);
    f->bytes = r->p + r->at;
    f->size = (size_t)n;
    r->at += f->size;
    return TL_OK;
}

protobuf_reader protobuf_inside(const protobuf_reader *r, const protobuf_field *f) {
    return (protobuf_reader){f->bytes, f->size, 0, r->base + (size_t)(f->bytes - r->p)};
}

tl_status protobuf_want(const protobuf_reader *r, const protobuf_field *f, protobuf_wire wire, tl_error *e) {
    if (f->wire == wire) return TL_OK;
    protobuf_bad(r, r->at, "a field has the wrong wire type", e);
    if (e)
        error_set(e, TL_FORMAT, "protobuf: field %u has wire type %d instead of %d", f->number, (int)f->wire,
                  (int)wire);
    error_at_offset(e, (int64_t)(r->base + r->at));
    return TL_FORMAT;
}

float protobuf_float(const protobuf_field *f) {
    uint32_t u = (uint32_t)f->value;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
