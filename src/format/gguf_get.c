/* Questions to an open GGUF file. */
#include "format/gguf.h"
#include <string.h>

static int gguf_cmp(gguf_str a, const char *b, size_t bn) {
    int x = memcmp(a.s, b, a.n < bn ? a.n : bn);
    return x ? x : (a.n > bn) - (a.n < bn);
}

const gguf_value *gguf_find(const gguf *g, const char *key) {
    size_t low = 0, high = g->kv_n, n = strlen(key);
    while (low < high) {
        size_t mid = (low + high) / 2;
        int x = gguf_cmp(g->kv[g->by_key[mid]].key, key, n);
        if (x == 0) return &g->kv[g->by_key[mid]];
        if (x < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

const gguf_tensor *gguf_find_tensor(const gguf *g, const char *name) {
    size_t low = 0, high = g->tensor_n, n = strlen(name);
    while (low < high) {
        size_t mid = (low + high) / 2;
        int x = gguf_cmp(g->tensor[g->by_name[mid]].name, name, n);
        if (x == 0) return &g->tensor[g->by_name[mid]];
        if (x < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return NULL;
}

static const char *gguf_value_name(const gguf_value *v) {
    static const char *const name[GGUF_TYPES] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                 "bool", "string", "array", "u64", "i64", "f64"};
    return v->array ? "array" : name[v->type];
}

static tl_status gguf_wrong(const char *key, const gguf_value *v, const char *want, tl_error *e) {
    error_set(e, TL_CONFIG, "%s is a %s, not %s", key, gguf_value_name(v), want);
    error_at_tensor(e, key);
    return TL_CONFIG;
}

/* true: v is an integer that fits int64. */
static bool gguf_as_int(const gguf_value *v, int64_t *out) {
    uint64_t u = 0;
    if (v->array) return false;
    switch (v->type) {
    case GGUF_U8: *out = v->data[0]; return true;
    case GGUF_I8: *out = (int8_t)v->data[0]; return true;
    case GGUF_U16: *out = v->data[0] | v->data[1] << 8; return true;
    case GGUF_I16: *out = (int16_t)(v->data[0] | v->data[1] << 8); return true;
    case GGUF_U32:
        memcpy(&u, v->data, 4);
        *out = (int64_t)u;
        return true;
    case GGUF_I32: *out = gguf_i32_at(v, 0); return true;
    case GGUF_U64:
    case GGUF_I64:
        memcpy(&u, v->data, 8);
        *out = (int64_t)u;
        return v->type == GGUF_I64 || u <= INT64_MAX;
    default: return false;
    }
}

tl_status gguf_get_int(const gguf *g, const char *key, int64_t min, int64_t max, int64_t *out, tl_error *e) {
    const gguf_value *v = gguf_find(g, key);
    int64_t x;
    if (!v) return TL_OK;
    if (!gguf_as_int(v, &x)) return gguf_wrong(key, v, "an integer", e);
    if (x < min || x > max) {
        error_set(e, TL_CONFIG, "%s is %lld, outside %lld..%lld", key, (long long)x, (long long)min, (long long)max);
        error_at_tensor(e, key);
        return TL_CONFIG;
    }
    *out = x;
    return TL_OK;
}

tl_status gguf_get_real(const gguf *g, const char *key, double *out, tl_error *e) {
    const gguf_value *v = gguf_find(g, key);
    int64_t x;
    if (!v) return TL_OK;
    if (!v->array && v->type == GGUF_F32)
        *out = (double)gguf_f32_at(v, 0);
    else if (!v->array && v->type == GGUF_F64)
        memcpy(out, v->data, sizeof *out);
    else if (gguf_as_int(v, &x))
        *out = (double)x;
    else
        return gguf_wrong(key, v, "a number", e);
    return TL_OK;
}

tl_status gguf_get_bool(const gguf *g, const char *key, bool *out, tl_error *e) {
    const gguf_value *v = gguf_find(g, key);
    if (!v) return TL_OK;
    if (v->array || v->type != GGUF_BOOL) return gguf_wrong(key, v, "a truth value", e);
    *out = v->data[0] != 0;
    return TL_OK;
}

tl_status gguf_get_str(const gguf *g, const char *key, gguf_str *out, tl_error *e) {
    const gguf_value *v = gguf_find(g, key);
    if (!v) return TL_OK;
    if (v->array || v->type != GGUF_STRING) return gguf_wrong(key, v, "a string", e);
    *out = (gguf_str){(const char *)v->data + 8, v->size - 8};
    return TL_OK;
}

tl_status gguf_get_array(const gguf *g, const char *key, gguf_type type, const gguf_value **out, tl_error *e) {
    const gguf_value *v = gguf_find(g, key);
    *out = NULL;
    if (!v) return TL_OK;
    if (!v->array || v->type != type) return gguf_wrong(key, v, "an array of the right type", e);
    *out = v;
    return TL_OK;
}

float gguf_f32_at(const gguf_value *v, size_t i) {
    float f;
    memcpy(&f, v->data + 4 * i, sizeof f);
    return f;
}

int32_t gguf_i32_at(const gguf_value *v, size_t i) {
    int32_t x;
    memcpy(&x, v->data + 4 * i, sizeof x);
    return x;
}

bool gguf_next_str(const gguf_value *v, size_t *at, gguf_str *out) {
    uint64_t n;
    if (*at >= v->size) return false;
    memcpy(&n, v->data + *at, 8);
    *out = (gguf_str){(const char *)v->data + *at + 8, (size_t)n};
    *at += 8 + (size_t)n;
    return true;
}

/* Numbers 4, 5, 31-33 and 36-38 were used once and removed. */
static const struct {
    const char *name;
    uint16_t block, bytes;
} gguf_types[GGUF_T_COUNT] = {
    [0] = {"f32", 1, 4},         [1] = {"f16", 1, 2},         [2] = {"q4_0", 32, 18},      [3] = {"q4_1", 32, 20},
    [6] = {"q5_0", 32, 22},      [7] = {"q5_1", 32, 24},      [8] = {"q8_0", 32, 34},      [9] = {"q8_1", 32, 36},
    [10] = {"q2_k", 256, 84},    [11] = {"q3_k", 256, 110},   [12] = {"q4_k", 256, 144},   [13] = {"q5_k", 256, 176},
    [14] = {"q6_k", 256, 210},   [15] = {"q8_k", 256, 292},   [16] = {"iq2_xxs", 256, 66}, [17] = {"iq2_xs", 256, 74},
    [18] = {"iq3_xxs", 256, 98}, [19] = {"iq1_s", 256, 50},   [20] = {"iq4_nl", 32, 18},   [21] = {"iq3_s", 256, 110},
    [22] = {"iq2_s", 256, 82},   [23] = {"iq4_xs", 256, 136}, [24] = {"i8", 1, 1},         [25] = {"i16", 1, 2},
    [26] = {"i32", 1, 4},        [27] = {"i64", 1, 8},        [28] = {"f64", 1, 8},        [29] = {"iq1_m", 256, 56},
    [30] = {"bf16", 1, 2},       [34] = {"tq1_0", 256, 54},   [35] = {"tq2_0", 256, 66},   [39] = {"mxfp4", 32, 17},
};

int64_t gguf_block(uint32_t type) {
    return type < GGUF_T_COUNT ? gguf_types[type].block : 0;
}

size_t gguf_block_bytes(uint32_t type) {
    return type < GGUF_T_COUNT ? gguf_types[type].bytes : 0;
}

const char *gguf_type_name(uint32_t type) {
    return type < GGUF_T_COUNT && gguf_types[type].name ? gguf_types[type].name : "?";
}
