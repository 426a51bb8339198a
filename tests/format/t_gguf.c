/* Every rule of the GGUF reader: a good file, and files with one thing wrong each. */
#include "support/testing.h"

#include "base/str.h"
#include "format/gguf.h"

static void u32(str *s, uint32_t v) {
    str_add(s, &v, 4);
}
static void u64(str *s, uint64_t v) {
    str_add(s, &v, 8);
}
static void text(str *s, const char *t) {
    u64(s, strlen(t));
    str_adds(s, t);
}
static void head(str *s, uint32_t version, uint64_t tensors, uint64_t keys) {
    str_adds(s, "GGUF");
    u32(s, version);
    u64(s, tensors);
    u64(s, keys);
}
static void kv_u32(str *s, const char *key, uint32_t v) {
    text(s, key);
    u32(s, GGUF_U32);
    u32(s, v);
}
static void info(str *s, const char *name, uint32_t dims, const uint64_t *ne, uint32_t type, uint64_t offset) {
    text(s, name);
    u32(s, dims);
    for (uint32_t i = 0; i < dims; i++) u64(s, ne[i]);
    u32(s, type);
    u64(s, offset);
}
static void pad(str *s, size_t to) {
    while (s->len % to) str_addc(s, 0);
}

static tl_status parse(const str *s, tl_error *e) {
    gguf g;
    tl_status st = gguf_parse(&mem_default, s->data ? s->data : "", s->len, &g, e);
    if (st == TL_OK) gguf_close(&g);
    return st;
}

/* A file with all kinds of values and two tensors. */
static void good(str *s) {
    head(s, 3, 2, 7);
    kv_u32(s, "general.alignment", 64);
    text(s, "a.string"), u32(s, GGUF_STRING), text(s, "text");
    text(s, "a.bool"), u32(s, GGUF_BOOL), str_addc(s, 1);
    text(s, "a.real"), u32(s, GGUF_F32), u32(s, 0x3f000000);
    text(s, "a.neg"), u32(s, GGUF_I8), str_addc(s, (char)-3);
    text(s, "a.list"), u32(s, GGUF_ARRAY), u32(s, GGUF_I32), u64(s, 2), u32(s, 7), u32(s, 8);
    text(s, "a.words"), u32(s, GGUF_ARRAY), u32(s, GGUF_STRING), u64(s, 2), text(s, "x"), text(s, "");
    info(s, "one", 2, (uint64_t[]){3, 2}, GGUF_T_F32, 0);
    info(s, "two", 1, (uint64_t[]){32}, GGUF_T_Q8_0, 64);
    pad(s, 64);
    for (int i = 0; i < 64 + 34; i++) str_addc(s, (char)i);
}

static void reads_a_good_file(void **state) {
    (void)state;
    str s;
    gguf g;
    tl_error e = {0};
    str_init(&s, &mem_default);
    good(&s);
    assert_ok(gguf_parse(&mem_default, s.data, s.len, &g, &e), &e);
    assert_int_equal(g.version, 3);
    assert_int_equal(g.alignment, 64);
    gguf_str t = {0};
    assert_ok(gguf_get_str(&g, "a.string", &t, &e), &e);
    assert_int_equal(t.n, 4);
    assert_memory_equal(t.s, "text", 4);
    bool b = false;
    assert_ok(gguf_get_bool(&g, "a.bool", &b, &e), &e);
    assert_true(b);
    double r = 0;
    assert_ok(gguf_get_real(&g, "a.real", &r, &e), &e);
    assert_near(r, 0.5, 0);
    int64_t n = 0;
    assert_ok(gguf_get_int(&g, "a.neg", -10, 10, &n, &e), &e);
    assert_int_equal(n, -3);
    assert_fails(TL_CONFIG, gguf_get_int(&g, "a.neg", 0, 10, &n, &e), &e);
    assert_fails(TL_CONFIG, gguf_get_int(&g, "a.string", 0, 10, &n, &e), &e);
    assert_fails(TL_CONFIG, gguf_get_bool(&g, "a.neg", &b, &e), &e);
    assert_ok(gguf_get_int(&g, "absent", 0, 10, &n, &e), &e);
    assert_int_equal(n, -3);
    const gguf_value *v;
    assert_ok(gguf_get_array(&g, "a.list", GGUF_I32, &v, &e), &e);
    assert_int_equal(v->count, 2);
    assert_int_equal(gguf_i32_at(v, 1), 8);
    assert_fails(TL_CONFIG, gguf_get_array(&g, "a.list", GGUF_F32, &v, &e), &e);
    assert_ok(gguf_get_array(&g, "a.words", GGUF_STRING, &v, &e), &e);
    size_t at = 0;
    assert_true(gguf_next_str(v, &at, &t));
    assert_int_equal(t.n, 1);
    assert_true(gguf_next_str(v, &at, &t));
    assert_int_equal(t.n, 0);
    assert_false(gguf_next_str(v, &at, &t));
    const gguf_tensor *x = gguf_find_tensor(&g, "two");
    assert_non_null(x);
    assert_int_equal(x->size, 34);
    assert_int_equal(x->data[0], 64);
    assert_int_equal(x->ne[1], 1);
    assert_null(gguf_find_tensor(&g, "three"));
    gguf_close(&g);
    str_fini(&s);
}

static void refuses_every_cut(void **state) {
    (void)state;
    str s;
    tl_error e;
    str_init(&s, &mem_default);
    good(&s);
    for (size_t n = 0; n < s.len; n++) {
        gguf g;
        assert_fails(TL_FORMAT, gguf_parse(&mem_default, s.data, n, &g, &e), &e);
    }
    str_fini(&s);
}

typedef void (*breaker)(str *s);
static void bad_magic(str *s) {
    str_adds(s, "GGUX"), u32(s, 3), u64(s, 0), u64(s, 0);
}
static void version_0(str *s) {
    head(s, 0, 0, 0);
}
static void version_1(str *s) {
    head(s, 1, 0, 0);
}
static void version_4(str *s) {
    head(s, 4, 0, 0);
}
static void big_endian(str *s) {
    head(s, 0x03000000, 0, 0);
}
static void many_keys(str *s) {
    head(s, 3, 0, UINT64_MAX);
}
static void negative_keys(str *s) {
    head(s, 3, 0, (uint64_t)-1), kv_u32(s, "a", 1);
}
static void many_tensors(str *s) {
    head(s, 3, 1u << 20, 0);
}
static void wild_tensors(str *s) {
    head(s, 3, UINT64_MAX / 2, 0);
}
static void empty_key(str *s) {
    head(s, 3, 0, 1), kv_u32(s, "", 1);
}
static void blank_key(str *s) {
    head(s, 3, 0, 1), kv_u32(s, "a b", 1);
}
static void twin_keys(str *s) {
    head(s, 3, 0, 2), kv_u32(s, "a", 1), kv_u32(s, "a", 2);
}
static void long_key(str *s) {
    head(s, 3, 0, 1), u64(s, 65536);
    for (int i = 0; i < 65536; i++) str_addc(s, 'k');
    u32(s, GGUF_U32), u32(s, 1);
}
static void key_past_end(str *s) {
    head(s, 3, 0, 1), u64(s, 1000), str_adds(s, "abcdefghijkl");
}
static void key_wraps(str *s) {
    head(s, 3, 0, 1), u64(s, UINT64_MAX - 7), str_adds(s, "abcdefghijkl");
}
static void bad_type(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, 13), u64(s, 0);
}
static void bad_bool(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, GGUF_BOOL), str_addc(s, 2);
}
static void bad_bools(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, GGUF_ARRAY), u32(s, GGUF_BOOL), u64(s, 2), str_add(s, "\1\2", 2);
}
static void nested(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, GGUF_ARRAY), u32(s, GGUF_ARRAY), u64(s, 0);
}
static void long_list(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, GGUF_ARRAY), u32(s, GGUF_U64), u64(s, 1000), u64(s, 1);
}
static void huge_list(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, GGUF_ARRAY), u32(s, GGUF_U8), u64(s, (1ull << 30) + 1), u64(s, 1);
}
static void wrap_list(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, GGUF_ARRAY), u32(s, GGUF_U64), u64(s, 1ull << 61), u64(s, 1);
}
static void long_words(str *s) {
    head(s, 3, 0, 1), text(s, "a"), u32(s, GGUF_ARRAY), u32(s, GGUF_STRING), u64(s, 9), text(s, "x"), text(s, "y");
}
static void align_0(str *s) {
    head(s, 3, 0, 1), kv_u32(s, "general.alignment", 0);
}
static void align_12(str *s) {
    head(s, 3, 0, 1), kv_u32(s, "general.alignment", 12);
}
static void align_4(str *s) {
    head(s, 3, 0, 1), kv_u32(s, "general.alignment", 4);
}
static void align_type(str *s) {
    head(s, 3, 0, 1), text(s, "general.alignment"), u32(s, GGUF_U64), u64(s, 32);
}
static void one_tensor(str *s, const char *name, uint32_t dims, const uint64_t *ne, uint32_t type, uint64_t offset,
                       size_t data) {
    head(s, 3, 1, 0), info(s, name, dims, ne, type, offset), pad(s, 32);
    for (size_t i = 0; i < data; i++) str_addc(s, 0);
}
static void long_name(str *s) {
    one_tensor(s, "0123456789012345678901234567890123456789012345678901234567890123", 1, (uint64_t[]){1}, 0, 0, 4);
}
static void no_name(str *s) {
    one_tensor(s, "", 1, (uint64_t[]){1}, 0, 0, 4);
}
static void dims_5(str *s) {
    one_tensor(s, "t", 5, (uint64_t[]){1, 1, 1, 1, 1}, 0, 0, 4);
}
static void dims_negative(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){UINT64_MAX}, 0, 0, 4);
}
static void dims_wrap(str *s) {
    one_tensor(s, "t", 3, (uint64_t[]){1ull << 31, 1ull << 31, 4}, 0, 0, 4);
}
static void dims_zero_wrap(str *s) {
    one_tensor(s, "t", 4, (uint64_t[]){1ull << 31, 1ull << 31, 4, 0}, 0, 0, 4);
}
static void bytes_wrap(str *s) {
    one_tensor(s, "t", 2, (uint64_t[]){1ull << 31, 1ull << 31}, GGUF_T_F32, 0, 4);
}
static void type_removed(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){32}, 4, 0, 40);
}
static void type_36(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){32}, 36, 0, 40);
}
static void type_wild(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){32}, 1000, 0, 40);
}
static void half_block(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){33}, GGUF_T_Q4_0, 0, 40);
}
static void offset_hole(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){1}, 0, 32, 64);
}
static void offset_wild(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){1}, 0, UINT64_MAX - 31, 64);
}
static void data_short(str *s) {
    one_tensor(s, "t", 1, (uint64_t[]){2}, 0, 0, 7);
}
static void two_tensors(str *s, const char *b, uint64_t offset) {
    head(s, 3, 2, 0), info(s, "a", 1, (uint64_t[]){1}, 0, 0), info(s, b, 1, (uint64_t[]){1}, 0, offset), pad(s, 32);
    for (int i = 0; i < 64; i++) str_addc(s, 0);
}
static void twin_tensors(str *s) {
    two_tensors(s, "a", 32);
}
static void overlap(str *s) {
    two_tensors(s, "b", 0);
}
static void unaligned(str *s) {
    two_tensors(s, "b", 4);
}

static void refuses_what_is_wrong(void **state) {
    (void)state;
    static const struct {
        const char *name;
        breaker make;
        tl_status want;
    } list[] = {
#define BAD(name, status) {#name, name, status}
        BAD(bad_magic, TL_FORMAT),      BAD(version_0, TL_UNSUPPORTED),    BAD(version_1, TL_UNSUPPORTED),
        BAD(version_4, TL_UNSUPPORTED), BAD(big_endian, TL_UNSUPPORTED),   BAD(many_keys, TL_FORMAT),
        BAD(negative_keys, TL_FORMAT),  BAD(many_tensors, TL_FORMAT),      BAD(wild_tensors, TL_FORMAT),
        BAD(empty_key, TL_FORMAT),      BAD(blank_key, TL_FORMAT),         BAD(twin_keys, TL_FORMAT),
        BAD(long_key, TL_LIMIT),        BAD(key_past_end, TL_FORMAT),      BAD(key_wraps, TL_FORMAT),
        BAD(bad_type, TL_FORMAT),       BAD(bad_bool, TL_FORMAT),          BAD(bad_bools, TL_FORMAT),
        BAD(nested, TL_UNSUPPORTED),    BAD(long_list, TL_FORMAT),         BAD(huge_list, TL_LIMIT),
        BAD(wrap_list, TL_LIMIT),       BAD(long_words, TL_FORMAT),        BAD(align_0, TL_FORMAT),
        BAD(align_12, TL_FORMAT),       BAD(align_4, TL_FORMAT),           BAD(align_type, TL_FORMAT),
        BAD(long_name, TL_FORMAT),      BAD(no_name, TL_FORMAT),           BAD(dims_5, TL_FORMAT),
        BAD(dims_negative, TL_FORMAT),  BAD(dims_wrap, TL_FORMAT),         BAD(dims_zero_wrap, TL_FORMAT),
        BAD(bytes_wrap, TL_FORMAT),     BAD(type_removed, TL_UNSUPPORTED), BAD(type_36, TL_UNSUPPORTED),
        BAD(type_wild, TL_UNSUPPORTED), BAD(half_block, TL_FORMAT),        BAD(offset_hole, TL_FORMAT),
        BAD(offset_wild, TL_FORMAT),    BAD(data_short, TL_FORMAT),        BAD(twin_tensors, TL_FORMAT),
        BAD(overlap, TL_FORMAT),        BAD(unaligned, TL_FORMAT),
#undef BAD
    };
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        str s;
        tl_error e = {0};
        str_init(&s, &mem_default);
        list[i].make(&s);
        tl_status st = parse(&s, &e);
        if (st != list[i].want) fail_msg("%s: status %d, want %d", list[i].name, st, list[i].want);
        assert_true(e.text[0] != 0);
        str_fini(&s);
    }
}

static void accepts_the_edges(void **state) {
    (void)state;
    tl_error e = {0};
    str s;
    str_init(&s, &mem_default);
    head(&s, 2, 0, 0); /* version 2, nothing in it */
    assert_ok(parse(&s, &e), &e);
    str_clear(&s);
    one_tensor(&s, "012345678901234567890123456789012345678901234567890123456789012", 2, (uint64_t[]){0, 5}, 0, 0, 0);
    assert_ok(parse(&s, &e), &e); /* 63 bytes of name, no elements, no data */
    str_clear(&s);
    two_tensors(&s, "b", 32);
    assert_ok(parse(&s, &e), &e);
    str_fini(&s);
}

static tl_status parse_with(const tl_allocator *a, void *user) {
    const str *s = user;
    gguf g;
    tl_error e;
    tl_status st = gguf_parse(a, s->data, s->len, &g, &e);
    if (st == TL_OK) gguf_close(&g);
    return st;
}

static void survives_want_of_memory(void **state) {
    (void)state;
    str s;
    str_init(&s, &mem_default);
    good(&s);
    assert_true(test_alloc_sweep(parse_with, &s) >= 4);
    str_fini(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_good_file),       cmocka_unit_test(refuses_every_cut),
        cmocka_unit_test(refuses_what_is_wrong),   cmocka_unit_test(accepts_the_edges),
        cmocka_unit_test(survives_want_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
