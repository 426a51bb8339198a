/* Every rule of the strict reader is a row: a header, data, and what the reader says about it. */
#include "base/half.h"
#include "format/safetensors.h"
#include "support/testing.h"

#include <math.h>
#include <stdlib.h>

/* header padded as given, then `data` bytes of zeros */
static void put_file(const char *path, const char *header, size_t data, int64_t claim) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    uint64_t n = claim >= 0 ? (uint64_t)claim : strlen(header);
    for (int i = 0; i < 8; i++) fputc((int)(n >> (8 * i) & 255), f);
    fwrite(header, 1, strlen(header), f);
    for (size_t i = 0; i < data; i++) fputc(0, f);
    fclose(f);
}

#define T(dtype, shape, from, to) "{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":[" #from "," #to "]}"

static void bad_files_are_refused_with_the_reason(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        int64_t claim; /* header length to write, -1: the true one */
        const char *says;
    } rows[] = {
        {"{}", 0, 100000001, "too large"},
        {"{}", 0, 3, "behind the end of the file"},
        {"{}", 0, 9223372036854775807, "too large"},
        {"", 0, 0, "does not begin with {"},
        {" {}", 0, -1, "does not begin with {"},
        {"{}x", 0, -1, "other than spaces"},
        {"{}\t", 0, -1, "other than spaces"},
        {"[]", 0, -1, "does not begin with {"},
        {"{\"a\":3}", 0, -1, "not an object"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, -1, "exactly dtype, shape and data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":1}}", 4, -1, "exactly dtype"},
        {"{\"a\":" T("F31", "[1]", 0, 4) "}", 4, -1, "not one of the format's types"},
        {"{\"a\":{\"dtype\":3,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, -1, "not a string"},
        {"{\"a\":" T("F32", "[1.0]", 0, 4) "}", 4, -1, "not a non-negative integer"},
        {"{\"a\":" T("F32", "[-1]", 0, 4) "}", 4, -1, "not a non-negative integer"},
        {"{\"a\":" T("F32", "1", 0, 4) "}", 4, -1, "not an array"},
        {"{\"a\":" T("F32", "[1,1,1,1,1,1,1,1,1]", 0, 4) "}", 4, -1, "more than 8"},
        {"{\"a\":" T("F32", "[4611686018427387904,4]", 0, 4) "}", 4, -1, "overflows"},
        {"{\"a\":" T("F32", "[1152921504606846976]", 0, 4) "}", 4, -1, "overflows"},
        {"{\"a\":" T("F4", "[3]", 0, 2) "}", 2, -1, "whole number of bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4.0]}}", 4, -1, "two non-negative integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, -1, "not two integers"},
        {"{\"a\":" T("F32", "[1]", 4, 0) "}", 4, -1, "ends before it begins"},
        {"{\"a\":" T("F32", "[2]", 0, 8) "}", 4, -1, "behind the end of the file"},
        {"{\"a\":" T("F32", "[2]", 0, 4) "}", 4, -1, "disagree about the size"},
        {"{\"a\":" T("F32", "[1]", 4, 8) "}", 8, -1, "hole"},
        {"{\"a\":" T("F32", "[1]", 0, 4) ",\"b\":" T("F32", "[1]", 0, 4) "}", 4, -1, "overlaps"},
        {"{\"a\":" T("F32", "[1]", 0, 4) "}", 5, -1, "1 bytes behind the last tensor"},
        {"{\"a\":" T("F32", "[1]", 0, 4) ",\"a\":" T("F32", "[1]", 4, 8) "}", 8, -1, "duplicate"},
        {"{\"__metadata__\":{\"a\":1}}", 0, -1, "not a string"},
        {"{\"__metadata__\":[]}", 0, -1, "not an object"},
        {"{\"a\":" T("F32", "[1]", 0, 99999999999999999999) "}", 4, -1, ""},
    };
    char dir[256], path[300];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        test_alloc a;
        safetensors s;
        tl_error e;
        test_alloc_init(&a);
        put_file(path, rows[i].header, rows[i].data, rows[i].claim);
        tl_status st = safetensors_open(&a.base, path, &s, &e);
        if (st != TL_FORMAT || !strstr(e.text, rows[i].says)) print_error("row %zu: %d %s\n", i, st, e.text);
        assert_fails(TL_FORMAT, st, &e);
        assert_non_null(strstr(e.text, rows[i].says));
        assert_string_equal(e.file, path);
        test_alloc_done(&a);
    }
    test_tempdir_remove(dir);
}

static void short_files_are_refused(void **state) {
    (void)state;
    char dir[256], path[300];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    for (int n = 0; n < 8; n++) {
        FILE *f = fopen(path, "wb");
        for (int i = 0; i < n; i++) fputc('{', f);
        fclose(f);
        safetensors s;
        tl_error e;
        assert_fails(TL_FORMAT, safetensors_open(&mem_default, path, &s, &e), &e);
    }
    test_tempdir_remove(dir);
}

static void edge_files_are_read(void **state) {
    (void)state;
    char dir[256], path[300];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    put_file(path,
             "{\"s\":" T("F32", "[]", 0, 4) ",\"z\":" T("I64", "[3,0]", 4, 4) ",\"odd\":" T(
                 "U8", "[3]", 4, 7) ",\"h\":" T("BF16", "[1]", 7, 9) ",\"__metadata__\":{\"k\":\"v\"}}   ",
             9, -1);
    safetensors s;
    tl_error e;
    assert_ok(safetensors_open(&mem_default, path, &s, &e), &e);
    assert_int_equal(s.n, 4);
    assert_int_equal(safetensors_find(&s, "s")->ndim, 0);
    assert_int_equal(safetensors_find(&s, "z")->count, 0);
    float v = 1;
    assert_ok(safetensors_to_f32(safetensors_find(&s, "h"), &v, &e), &e); /* at an odd address */
    assert_true(v == 0);
    assert_fails(TL_UNSUPPORTED, safetensors_to_f32(safetensors_find(&s, "odd"), &v, &e), &e);
    assert_null(safetensors_find(&s, "t"));
    safetensors_close(&s);
    put_file(path, "{}", 0, -1);
    assert_ok(safetensors_open(&mem_default, path, &s, &e), &e);
    assert_int_equal(s.n, 0);
    safetensors_close(&s);
    test_tempdir_remove(dir);
}

/* ---- writing, and reading back ------------------------------------------------------------------------- */

static const safetensors_item items[] = {{"b.weight", TL_F32, 2, {2, 3}},
                                         {"a", TL_F32, 1, {4}},
                                         {"flags", TL_U8, 1, {5}},
                                         {"half", TL_F16, 1, {2}},
                                         {"quote\"d\n", TL_F64, 0, {0}}};
enum { ITEMS = sizeof items / sizeof *items };

static void fill(void *user, size_t i, void *buf) {
    (void)user;
    static const size_t bytes[] = {24, 16, 5, 4, 8};
    memset(buf, (int)(i + 1), bytes[i]);
}

static void written_files_read_back(void **state) {
    (void)state;
    char dir[256], path[300];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    const char *meta[] = {"format", "pt", NULL};
    safetensors s;
    tl_error e;
    assert_ok(safetensors_write(&mem_default, path, items, ITEMS, fill, NULL, meta, NULL, &e), &e);
    assert_ok(safetensors_open(&mem_default, path, &s, &e), &e);
    assert_int_equal(s.n, ITEMS);
    for (size_t i = 0; i < ITEMS; i++) {
        const safetensors_entry *t = safetensors_find(&s, items[i].name);
        assert_non_null(t);
        assert_int_equal(t->dtype, items[i].dtype);
        for (size_t k = 0; k < t->bytes; k++) assert_int_equal(t->data[k], i + 1);
        if (t->dtype == TL_F64) assert_int_equal((uintptr_t)(t->data - s.maps[0].data) % 8, 0);
    }
    safetensors_close(&s);
    test_tempdir_remove(dir);
}

static void shards_must_agree_with_their_index(void **state) {
    (void)state;
    static const struct {
        const char *map;
        tl_status want;
        const char *says;
    } rows[] = {
        {"{\"a\":\"1.st\",\"b\":\"2.st\"}", TL_OK, ""},
        {"{\"a\":\"1.st\",\"b\":\"1.st\"}", TL_FORMAT, "weight_map names 2 tensors, the shards hold 1"},
        {"{\"a\":\"2.st\",\"b\":\"1.st\"}", TL_FORMAT, "another shard"},
        {"{\"a\":\"../1.st\",\"b\":\"2.st\"}", TL_FORMAT, "plain file name"},
        {"{\"a\":\"/etc/passwd\",\"b\":\"2.st\"}", TL_FORMAT, "plain file name"},
        {"{\"a\":\"1.st\",\"c\":\"2.st\"}", TL_FORMAT, "not in weight_map"},
        {"{\"a\":\"1.st\",\"b\":\"3.st\"}", TL_NOTFOUND, ""},
        {"{}", TL_FORMAT, "no \"weight_map\""},
        {"[]", TL_FORMAT, "no \"weight_map\""},
    };
    char dir[256], path[300], text[400];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/1.st", dir);
    put_file(path, "{\"a\":" T("F32", "[1]", 0, 4) "}", 4, -1);
    snprintf(path, sizeof path, "%s/2.st", dir);
    put_file(path, "{\"b\":" T("F32", "[2]", 0, 8) "}", 8, -1);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", dir);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        FILE *f = fopen(path, "wb");
        snprintf(text, sizeof text, "{\"metadata\":{},\"weight_map\":%s}", rows[i].map);
        fputs(text, f);
        fclose(f);
        safetensors s;
        tl_error e = {0};
        tl_status st = safetensors_open(&mem_default, dir, &s, &e);
        if (st != rows[i].want) print_error("row %zu: %s\n", i, e.text);
        assert_int_equal(st, rows[i].want);
        if (st != TL_OK) {
            if (i > 1) assert_non_null(strstr(e.text, rows[i].says));
            continue;
        }
        assert_int_equal(s.n, 2);
        assert_int_equal(safetensors_find(&s, "b")->count, 2);
        safetensors_close(&s);
    }
    test_tempdir_remove(dir);
}

/* tools/vectors/f8.py: what PyTorch makes of the same numbers. */
static void f8_is_pytorchs(void **state) {
    (void)state;
    safetensors s;
    tl_error e;
    assert_ok(safetensors_open(&mem_default, TILIA_SOURCE_DIR "/tests/vectors/f8.safetensors", &s, &e), &e);
    const safetensors_entry *x = safetensors_find(&s, "x"), *a = safetensors_find(&s, "e4m3"),
                            *b = safetensors_find(&s, "e5m2"),
                            *all[2] = {safetensors_find(&s, "e4m3.all"), safetensors_find(&s, "e5m2.all")};
    assert_true(x->count > 1500 && a->count == x->count && b->count == x->count);
    for (int64_t i = 0; i < x->count; i++) {
        float f, back;
        memcpy(&f, x->data + 4 * i, 4);
        uint8_t p = half_f32_to_e4m3(f, true), q = half_f32_to_e5m2(f, false);
        bool nan = f != f; /* its sign is nobody's promise */
        if (nan ? (p & 0x7f) != 0x7f : p != a->data[i])
            fail_msg("%.9g is %02x in e4m3, must be %02x", f, p, a->data[i]);
        back = half_e5m2_to_f32(q);
        if (nan ? back == back : q != b->data[i]) fail_msg("%.9g is %02x in e5m2, must be %02x", f, q, b->data[i]);
        if (nan) continue;
        p = half_f32_to_e4m3(f, false), q = half_f32_to_e5m2(f, true); /* the other way at the ends of the ranges */
        back = half_e4m3_to_f32(p);
        assert_true(fabsf(f) > 464 ? back != back : back == half_e4m3_to_f32(a->data[i]));
        back = half_e5m2_to_f32(q);
        assert_true(back == (f > 57344 ? 57344 : f < -57344 ? -57344 : half_e5m2_to_f32(b->data[i])));
    }
    for (int k = 0; k < 2; k++) /* every byte, by itself and as a tensor */
        for (int i = 0; i < 256; i++) {
            uint8_t byte = (uint8_t)i;
            safetensors_entry t = {.name = "t", .dtype = k ? TL_F8_E5M2 : TL_F8_E4M3, .count = 1, .data = &byte};
            float got, want;
            memcpy(&want, all[k]->data + 4 * i, 4);
            assert_ok(safetensors_to_f32(&t, &got, &e), &e);
            assert_true(got == want || (got != got && want != want));
            assert_true(got != got || signbit(got) == signbit(want));
        }
    safetensors_close(&s);
}

static tl_status round_trip(const tl_allocator *a, void *user) {
    const char *path = user;
    safetensors s;
    tl_error e;
    TRY(safetensors_write(a, path, items, ITEMS, fill, NULL, NULL, NULL, &e));
    TRY(safetensors_open(a, path, &s, &e));
    safetensors_close(&s);
    return TL_OK;
}

static void allocations_may_fail(void **state) {
    (void)state;
    char dir[256], path[300];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/m.safetensors", dir);
    assert_true(test_alloc_sweep(round_trip, path) > 4);
    test_tempdir_remove(dir);
}

static void a_pickle_is_never_opened(void **state) {
    (void)state;
    char dir[256], path[300];
    test_tempdir(dir, sizeof dir);
    safetensors s;
    tl_error e;
    assert_fails(TL_NOTFOUND, safetensors_open(&mem_default, dir, &s, &e), &e);
    snprintf(path, sizeof path, "%s/pytorch_model.bin", dir);
    put_file(path, "", 1, -1);
    assert_fails(TL_NOTFOUND, safetensors_open(&mem_default, dir, &s, &e), &e);
    assert_non_null(strstr(e.text, "convert"));
    test_tempdir_remove(dir);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_files_are_refused_with_the_reason),
        cmocka_unit_test(short_files_are_refused),
        cmocka_unit_test(edge_files_are_read),
        cmocka_unit_test(written_files_read_back),
        cmocka_unit_test(shards_must_agree_with_their_index),
        cmocka_unit_test(allocations_may_fail),
        cmocka_unit_test(a_pickle_is_never_opened),
        cmocka_unit_test(f8_is_pytorchs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
