#include "format/safetensors.h"

#include "base/half.h"
#include "base/hash.h"
#include "base/json.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

/* ---- types ------------------------------------------------------------------------------------------ */

static const struct {
    const char *name;
    unsigned bits;
    tl_dtype dtype;
} types[] = {{"BOOL", 8, TL_BOOL},
             {"F4", 4, TL_NONE},
             {"F6_E2M3", 6, TL_NONE},
             {"F6_E3M2", 6, TL_NONE},
             {"U8", 8, TL_U8},
             {"I8", 8, TL_I8},
             {"F8_E5M2", 8, TL_F8_E5M2},
             {"F8_E4M3", 8, TL_F8_E4M3},
             {"F8_E8M0", 8, TL_NONE},
             {"F8_E4M3FNUZ", 8, TL_NONE},
             {"F8_E5M2FNUZ", 8, TL_NONE},
             {"I16", 16, TL_I16},
             {"U16", 16, TL_U16},
             {"F16", 16, TL_F16},
             {"BF16", 16, TL_BF16},
             {"I32", 32, TL_I32},
             {"U32", 32, TL_U32},
             {"F32", 32, TL_F32},
             {"C64", 64, TL_NONE},
             {"F64", 64, TL_F64},
             {"I64", 64, TL_I64},
             {"U64", 64, TL_U64}};
enum { TYPES = sizeof types / sizeof *types };

/* ---- one entry ----------------------------------------------------------------------------------------- */

static tl_status bad(tl_error *e, const char *tensor, const char *what) {
    tl_status s = error_set(e, TL_FORMAT, "%s", what);
    if (tensor) error_at_tensor(e, tensor);
    return s;
}

static tl_status read_shape(const json_t *v, safetensors_entry *t, unsigned bits, tl_error *e) {
    if (!json_is_array(v)) return bad(e, t->name, "\"shape\" is not an array");
    size_t nd = json_array_size(v);
    if (nd > SAFETENSORS_DIMS) return bad(e, t->name, "more than 8 dimensions");
    t->ndim = (int)nd;
    t->count = 1;
    for (size_t i = 0; i < nd; i++) {
        const json_t *d = json_array_get(v, i);
        if (!json_is_integer(d) || json_integer_value(d) < 0)
            return bad(e, t->name, "a dimension is not a non-negative integer");
        t->dim[i] = json_integer_value(d);
        if (mul_overflows(t->count, t->dim[i], &t->count))
            return bad(e, t->name, "the product of the dimensions overflows");
    }
    size_t n = (size_t)t->count, total;
    if (mul_overflows(n, (size_t)bits, &total)) return bad(e, t->name, "the size in bits overflows");
    if (total % 8) return bad(e, t->name, "the size is not a whole number of bytes");
    t->bytes = total / 8;
    return TL_OK;
}

/* Everything about one entry but its neighbours; begin and end relative to the data. */
static tl_status read_entry(const json_t *v, safetensors_entry *t, size_t data_size, size_t *begin, size_t *end,
                            tl_error *e) {
    if (!json_is_object(v)) return bad(e, t->name, "the entry is not an object");
    const json_t *dt = json_object_get(v, "dtype"), *shape = json_object_get(v, "shape"),
                 *off = json_object_get(v, "data_offsets");
    if (!dt || !shape || !off || json_object_size(v) != 3)
        return bad(e, t->name, "an entry has exactly dtype, shape and data_offsets");
    if (!json_is_string(dt)) return bad(e, t->name, "\"dtype\" is not a string");
    unsigned bits = 0;
    for (size_t i = 0; i < TYPES; i++)
        if (strcmp(types[i].name, json_string_value(dt)) == 0) {
            bits = types[i].bits;
            t->dtype = types[i].dtype;
            memcpy(t->dtype_name, types[i].name, strlen(types[i].name) + 1);
        }
    if (!bits) return bad(e, t->name, "\"dtype\" is not one of the format's types");
    TRY(read_shape(shape, t, bits, e));
    if (!json_is_array(off) || json_array_size(off) != 2)
        return bad(e, t->name, "\"data_offsets\" is not two integers");
    const json_t *b = json_array_get(off, 0), *n = json_array_get(off, 1);
    if (!json_is_integer(b) || !json_is_integer(n) || json_integer_value(b) < 0 || json_integer_value(n) < 0)
        return bad(e, t->name, "\"data_offsets\" is not two non-negative integers");
    *begin = (size_t)json_integer_value(b);
    *end = (size_t)json_integer_value(n);
    if (*end < *begin) return bad(e, t->name, "data ends before it begins");
    if (*end > data_size) return bad(e, t->name, "data ends behind the end of the file");
    if (*end - *begin != t->bytes) return bad(e, t->name, "data_offsets and shape disagree about the size");
    return TL_OK;
}

/* ---- one file --------------------------------------------------------------------------------------------- */

static int by_data(const void *a, const void *b) {
    const safetensors_entry *x = a, *y = b;
    if (x->data != y->data) return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensors_entry *)a)->name, ((const safetensors_entry *)b)->name);
}

static tl_status read_metadata(const json_t *v, tl_error *e) {
    if (!json_is_object(v)) return bad(e, "__metadata__", "not an object");
    const char *k;
    json_t *x;
    json_object_foreach((json_t *)(uintptr_t)v, k, x) {
        (void)k;
        if (!json_is_string(x)) return bad(e, "__metadata__", "a value is not a string");
    }
    return TL_OK;
}

static tl_status read_header(safetensors *s, const json_t *o, const uint8_t *data, size_t size, int shard,
                             tl_error *e) {
    size_t first = s->n;
    size_t names = 0;
    const char *k;
    json_t *v;
    if (json_object_size(o) > SAFETENSORS_MAX) return error_set(e, TL_LIMIT, "more than %d tensors", SAFETENSORS_MAX);
    json_object_foreach((json_t *)(uintptr_t)o, k, v) names += strlen(k) + 1;
    char *block = mem_new(s->alloc, names, 1);
    if (!block || !mem_reserve(s->alloc, &s->list, &s->cap, s->n + json_object_size(o))) {
        mem_free(s->alloc, block);
        return error_set(e, TL_NOMEM, "no memory for the list of tensors");
    }
    s->name_blocks[s->n_blocks++] = block;
    json_object_foreach((json_t *)(uintptr_t)o, k, v) {
        if (strcmp(k, "__metadata__") == 0) {
            TRY(read_metadata(v, e));
            continue;
        }
        safetensors_entry *t = &s->list[s->n];
        memset(t, 0, sizeof *t);
        t->name = memcpy(block, k, strlen(k) + 1);
        block += strlen(k) + 1;
        t->shard = shard;
        size_t begin = 0, end = 0;
        TRY(read_entry(v, t, size, &begin, &end, e));
        t->data = data + begin;
        s->n++;
    }
    /* no holes, no overlaps, nothing behind the last */
    if (s->n > first) qsort(s->list + first, s->n - first, sizeof *s->list, by_data);
    const uint8_t *at = data;
    for (size_t i = first; i < s->n; i++) {
        const safetensors_entry *t = &s->list[i];
        if (t->data != at)
            return bad(e, t->name,
                       t->data < at ? "data overlaps another tensor's" : "there is a hole before this tensor's data");
        at += t->bytes;
    }
    if (at != data + size) {
        tl_status st = error_set(e, TL_FORMAT, "%zu bytes behind the last tensor", (size_t)(data + size - at));
        return st;
    }
    return TL_OK;
}

static tl_status open_one(safetensors *s, const char *path, int shard, tl_error *e) {
    file_map *m = &s->maps[s->n_maps];
    TRY(file_map_open(path, m, e));
    s->n_maps++;
    if (m->size < 8) return error_set(e, TL_FORMAT, "%zu bytes are too few for a safetensors file", m->size);
    uint64_t n = 0;
    for (int i = 7; i >= 0; i--) n = n << 8 | m->data[i];
    if (n > 100000000) return error_set(e, TL_FORMAT, "a header of %llu bytes is too large", (unsigned long long)n);
    if (n > m->size - 8) return error_set(e, TL_FORMAT, "the header ends behind the end of the file");
    const char *text = (const char *)m->data + 8;
    if (n == 0 || text[0] != '{') return error_set(e, TL_FORMAT, "the header does not begin with {");
    size_t len = (size_t)n;
    while (len && text[len - 1] == ' ') len--;
    if (text[len - 1] != '}') return error_set(e, TL_FORMAT, "something other than spaces follows the header");
    json_t *o;
    TRY(json_parse(text, len, NULL, &o, e));
    tl_status st = json_is_object(o) ? read_header(s, o, m->data + 8 + n, m->size - 8 - (size_t)n, shard, e)
                                     : error_set(e, TL_FORMAT, "the header is not an object");
    json_decref(o);
    return st;
}

/* ---- shards -------------------------------------------------------------------------------------------------- */

static bool plain_name(const char *s) {
    return *s && *s != '.' && !strchr(s, '/') && !strchr(s, '\\') && strlen(s) < 200;
}

/* Opens every shard that the weight map names, each once, and checks that map and shards agree. */
static tl_status open_shards(safetensors *s, const char *dir, const json_t *map, tl_error *e) {
    const char **files = mem_new(s->alloc, json_object_size(map), sizeof *files);
    size_t n = 0;
    tl_status st = files ? TL_OK : error_set(e, TL_NOMEM, "no memory for the list of shards");
    const char *k;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, k, v) {
        if (st != TL_OK) break;
        const char *f = json_is_string(v) ? json_string_value(v) : "";
        if (!plain_name(f)) {
            st = bad(e, k, "the shard's name in weight_map is not a plain file name");
            break;
        }
        size_t i = 0;
        while (i < n && strcmp(files[i], f) != 0) i++;
        if (i == n) files[n++] = f;
    }
    if (st == TL_OK) {
        s->maps = mem_new(s->alloc, n, sizeof *s->maps);
        s->name_blocks = mem_new(s->alloc, n, sizeof *s->name_blocks);
        if (!s->maps || !s->name_blocks) st = error_set(e, TL_NOMEM, "no memory for %zu shards", n);
    }
    for (size_t i = 0; i < n && st == TL_OK; i++) {
        char path[2 * PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", dir, files[i]);
        st = open_one(s, path, (int)i, e);
        if (st != TL_OK) error_at_file(e, path);
    }
    for (size_t i = 0; i < s->n && st == TL_OK; i++) {
        const json_t *f = json_object_get(map, s->list[i].name);
        if (!f)
            st = bad(e, s->list[i].name, "in a shard but not in weight_map");
        else if (strcmp(json_string_value(f), files[s->list[i].shard]) != 0)
            st = bad(e, s->list[i].name, "in another shard than weight_map says");
    }
    if (st == TL_OK && s->n != json_object_size(map))
        st = error_set(e, TL_FORMAT, "weight_map names %zu tensors, the shards hold %zu", json_object_size(map), s->n);
    mem_free(s->alloc, files);
    return st;
}

static tl_status open_index(safetensors *s, const char *path, tl_error *e) {
    json_t *o;
    TRY(json_read_file(s->alloc, path, 256u << 20, &o, e));
    const json_t *map = json_object_get(o, "weight_map");
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        *slash = 0;
    else
        snprintf(dir, sizeof dir, ".");
    tl_status st = json_is_object(map) && json_object_size(map)
                       ? open_shards(s, dir, map, e)
                       : error_set(e, TL_FORMAT, "no \"weight_map\" in the index");
    if (st != TL_OK && e && !e->file[0]) error_at_file(e, path);
    json_decref(o);
    return st;
}

static bool ends_with(const char *s, const char *tail) {
    size_t n = strlen(s), m = strlen(tail);
    return n >= m && strcmp(s + n - m, tail) == 0;
}

static tl_status open_any(safetensors *s, const char *path, tl_error *e) {
    char file[PATH_MAX + 64];
    if (file_is_dir(path)) {
        snprintf(file, sizeof file, "%s/model.safetensors", path);
        if (!file_exists(file)) {
            snprintf(file, sizeof file, "%s/model.safetensors.index.json", path);
            if (file_exists(file)) return open_index(s, file, e);
            snprintf(file, sizeof file, "%s/pytorch_model.bin", path);
            bool pickled = file_exists(file);
            tl_status st =
                error_set(e, TL_NOTFOUND,
                          pickled ? "only pytorch_model.bin is there, which can run code when opened: convert it with "
                                    "safe_serialization=True of transformers' save_pretrained"
                                  : "no model.safetensors and no index in this directory");
            error_at_file(e, path);
            return st;
        }
    } else if (ends_with(path, ".json")) {
        return open_index(s, path, e);
    } else {
        snprintf(file, sizeof file, "%s", path);
    }
    s->maps = mem_new(s->alloc, 1, sizeof *s->maps);
    s->name_blocks = mem_new(s->alloc, 1, sizeof *s->name_blocks);
    if (!s->maps || !s->name_blocks) return error_set(e, TL_NOMEM, "no memory to open a file");
    tl_status st = open_one(s, file, 0, e);
    if (st != TL_OK) error_at_file(e, file);
    return st;
}

tl_status safetensors_open(const tl_allocator *a, const char *path, safetensors *s, tl_error *e) {
    memset(s, 0, sizeof *s);
    s->alloc = a;
    tl_status st = open_any(s, path, e);
    if (st == TL_OK) {
        if (s->n) qsort(s->list, s->n, sizeof *s->list, by_name);
        for (size_t i = 1; i < s->n && st == TL_OK; i++)
            if (strcmp(s->list[i - 1].name, s->list[i].name) == 0) {
                st = bad(e, s->list[i].name, "in two shards");
                error_at_file(e, path);
            }
    }
    if (st != TL_OK) safetensors_close(s);
    return st;
}

void safetensors_close(safetensors *s) {
    for (size_t i = 0; i < s->n_maps; i++) file_map_close(&s->maps[i]);
    for (size_t i = 0; i < s->n_blocks; i++) mem_free(s->alloc, s->name_blocks[i]);
    mem_free(s->alloc, s->name_blocks);
    mem_free(s->alloc, s->maps);
    mem_free(s->alloc, s->list);
    memset(s, 0, sizeof *s);
}

const safetensors_entry *safetensors_find(const safetensors *s, const char *name) {
    safetensors_entry key = {.name = name};
    return s->n ? bsearch(&key, s->list, s->n, sizeof *s->list, by_name) : NULL;
}

tl_status safetensors_to_f32(const safetensors_entry *t, float *out, tl_error *e) {
    size_t n = (size_t)t->count;
    if (t->dtype == TL_F32) {
        memcpy(out, t->data, n * 4);
        return TL_OK;
    }
    if (t->dtype == TL_F64) {
        for (size_t i = 0; i < n; i++) {
            double d;
            memcpy(&d, t->data + 8 * i, 8);
            out[i] = (float)d;
        }
        return TL_OK;
    }
    if (t->dtype == TL_F8_E4M3 || t->dtype == TL_F8_E5M2) {
        for (size_t i = 0; i < n; i++)
            out[i] = t->dtype == TL_F8_E4M3 ? half_e4m3_to_f32(t->data[i]) : half_e5m2_to_f32(t->data[i]);
        return TL_OK;
    }
    if (t->dtype == TL_BF16 || t->dtype == TL_F16) {
        for (size_t i = 0; i < n; i++) {
            uint16_t h;
            memcpy(&h, t->data + 2 * i, 2);
            out[i] = t->dtype == TL_BF16 ? half_bf16_to_f32(h) : half_f16_to_f32(h);
        }
        return TL_OK;
    }
    tl_status s =
        error_set(e, TL_UNSUPPORTED, "weights of type %s are known but not supported; F32, F64, F16, BF16, F8_E4M3 and F8_E5M2 are", t->dtype_name);
    error_at_tensor(e, t->name);
    return s;
}

/* ---- writing ------------------------------------------------------------------------------------------------------
 */

typedef struct order {
    const safetensors_item *item;
    size_t index, bytes;
} order;

static int by_layout(const void *a, const void *b) {
    const order *x = a, *y = b;
    size_t p = tl_dtype_bytes(x->item->dtype), q = tl_dtype_bytes(y->item->dtype);
    if (p != q) return p > q ? -1 : 1;
    return strcmp(x->item->name, y->item->name);
}

static const char *type_name(tl_dtype t) {
    for (size_t i = 0; i < TYPES; i++)
        if (types[i].dtype == t) return types[i].name;
    return NULL;
}

static void header_text(str *h, const order *o, size_t n, const char *const *metadata) {
    str_addc(h, '{');
    for (const char *const *m = metadata; m && *m; m += 2) {
        str_adds(h, m == metadata ? "\"__metadata__\":{" : ",");
        str_add_json(h, m[0], strlen(m[0]));
        str_addc(h, ':');
        str_add_json(h, m[1], strlen(m[1]));
    }
    if (metadata && *metadata) str_addc(h, '}');
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        if (h->len > 1) str_addc(h, ',');
        str_add_json(h, o[i].item->name, strlen(o[i].item->name));
        str_addf(h, ":{\"dtype\":\"%s\",\"shape\":[", type_name(o[i].item->dtype));
        for (int d = 0; d < o[i].item->ndim; d++) str_addf(h, d ? ",%lld" : "%lld", (long long)o[i].item->dim[d]);
        str_addf(h, "],\"data_offsets\":[%zu,%zu]}", at, at + o[i].bytes);
        at += o[i].bytes;
    }
    str_addc(h, '}');
    while (h->len % 8 && !h->failed) str_addc(h, ' ');
}

static tl_status write_body(file_writer *w, hash_state *hs, const str *h, const order *o, size_t n, void *buf,
                            safetensors_fill fill, void *user, tl_error *e) {
    uint8_t len[8];
    for (int i = 0; i < 8; i++) len[i] = (uint8_t)((uint64_t)h->len >> (8 * i));
    hash_add(hs, len, 8);
    hash_add(hs, h->data, h->len);
    TRY(file_writer_put(w, len, 8, e));
    TRY(file_writer_put(w, h->data, h->len, e));
    for (size_t i = 0; i < n; i++) {
        fill(user, o[i].index, buf);
        hash_add(hs, buf, o[i].bytes);
        TRY(file_writer_put(w, buf, o[i].bytes, e));
    }
    return file_writer_commit(w, e);
}

tl_status safetensors_write(const tl_allocator *a, const char *path, const safetensors_item *items, size_t n,
                            safetensors_fill fill, void *user, const char *const *metadata, uint64_t *hash,
                            tl_error *e) {
    order *o = mem_new(a, n, sizeof *o);
    size_t largest = 1;
    str h;
    str_init(&h, a);
    hash_state *hs = hash_begin(a);
    for (size_t i = 0; o && i < n; i++) {
        size_t count = 1;
        for (int d = 0; d < items[i].ndim; d++) count *= (size_t)items[i].dim[d];
        o[i] = (order){&items[i], i, count * tl_dtype_bytes(items[i].dtype)};
        if (o[i].bytes > largest) largest = o[i].bytes;
    }
    if (o) {
        qsort(o, n, sizeof *o, by_layout);
        header_text(&h, o, n, metadata);
    }
    void *buf = mem_take(a, largest);
    tl_status s = TL_OK;
    file_writer w;
    if (!o || !hs || !buf || h.failed) {
        s = error_set(e, TL_NOMEM, "no memory to write tensors");
        error_at_file(e, path);
    } else if ((s = file_writer_open(&w, a, path, e)) == TL_OK) {
        s = write_body(&w, hs, &h, o, n, buf, fill, user, e);
        if (s != TL_OK) file_writer_abort(&w);
    }
    uint64_t sum = hs ? hash_end(a, hs) : 0;
    if (hash) *hash = sum;
    if (buf) mem_give(a, buf, largest);
    str_fini(&h);
    mem_free(a, o);
    return s;
}
