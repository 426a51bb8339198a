/* The bytes and chars tokenizers: ids, specials, streaming decode, files. */
#include "support/testing.h"
#include "tokenizer/tokenizer.h"

static void bytes_round_trip(void **state) {
    (void)state;
    tokenizer *t;
    tl_error e;
    assert_int_equal(tokenizer_from_bytes(&mem_default, &t, &e), TL_OK);
    assert_int_equal(tokenizer_vocab(t), 257);
    assert_int_equal(tokenizer_role_id(t, TOKENIZER_EOD), 256);
    assert_int_equal(tokenizer_role_id(t, TOKENIZER_BOS), -1);
    char all[256];
    for (int i = 0; i < 256; i++) all[i] = (char)i;
    token_list l;
    token_list_init(&l, &mem_default);
    assert_int_equal(tokenizer_encode(t, all, 256, TOKENIZER_PARSE, &l, &e), TL_OK);
    assert_int_equal(l.n, 256);
    for (int i = 0; i < 256; i++) assert_int_equal(l.id[i], i);
    str s;
    str_init(&s, &mem_default);
    assert_int_equal(tokenizer_decode(t, l.id, l.n, 0, &s, &e), TL_OK);
    assert_int_equal(s.len, 256);
    assert_memory_equal(s.data, all, 256);
    int32_t bad = 257;
    assert_int_equal(tokenizer_decode(t, &bad, 1, 0, &s, &e), TL_ARG);
    str_fini(&s);
    token_list_fini(&l);
    tokenizer_close(t);
}

static void specials_by_choice(void **state) {
    (void)state;
    tokenizer *t;
    tl_error e;
    assert_int_equal(tokenizer_from_bytes(&mem_default, &t, &e), TL_OK);
    token_list l;
    token_list_init(&l, &mem_default);
    const char *text = "a<|endoftext|>b";
    assert_int_equal(tokenizer_encode(t, text, strlen(text), 0, &l, &e), TL_OK);
    assert_int_equal(l.n, 15);
    l.n = 0;
    assert_int_equal(tokenizer_encode(t, text, strlen(text), TOKENIZER_PARSE, &l, &e), TL_OK);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.id[1], 256);
    str s;
    str_init(&s, &mem_default);
    assert_int_equal(tokenizer_decode(t, l.id, l.n, 0, &s, &e), TL_OK);
    assert_string_equal(s.data, text);
    str_clear(&s);
    assert_int_equal(tokenizer_decode(t, l.id, l.n, TOKENIZER_SKIP, &s, &e), TL_OK);
    assert_string_equal(s.data, "ab");
    str_fini(&s);
    token_list_fini(&l);
    tokenizer_close(t);
}

static void chars_sorted_with_unknown(void **state) {
    (void)state;
    tokenizer *t;
    tl_error e;
    const char *text = "b\xc3\xa9"
                       "ab\xff"; /* b é a b and a byte that is not UTF-8 */
    assert_int_equal(tokenizer_from_chars(&mem_default, text, strlen(text), &t, &e), TL_OK);
    assert_int_equal(tokenizer_vocab(t), 5); /* a b é, end, unknown */
    assert_int_equal(tokenizer_role_id(t, TOKENIZER_EOD), 3);
    assert_int_equal(tokenizer_role_id(t, TOKENIZER_UNK), 4);
    token_list l;
    token_list_init(&l, &mem_default);
    l.want_spans = true;
    assert_int_equal(tokenizer_encode(t, "\xc3\xa9zb", 4, 0, &l, &e), TL_OK);
    assert_int_equal(l.n, 3);
    assert_int_equal(l.id[0], 2);
    assert_int_equal(l.id[1], 4);
    assert_int_equal(l.id[2], 1);
    assert_int_equal(l.span[0].begin, 0);
    assert_int_equal(l.span[0].end, 2);
    assert_int_equal(l.span[2].end, 4);
    token_list_fini(&l);
    char path[256];
    char dir[200];
    test_tempdir(dir, sizeof dir);
    snprintf(path, sizeof path, "%s/chars.json", dir);
    assert_int_equal(tokenizer_save(t, path, &e), TL_OK);
    tokenizer *u;
    assert_int_equal(tokenizer_open(&mem_default, path, &u, &e), TL_OK);
    assert_int_equal(tokenizer_vocab(u), 5);
    size_t n;
    assert_string_equal(tokenizer_text(u, 2, &n), "\xc3\xa9");
    assert_string_equal(tokenizer_kind(u), "chars");
    tokenizer_close(u);
    tokenizer_close(t);
    test_tempdir_remove(dir);
}

static void stream_waits_for_whole_characters(void **state) {
    (void)state;
    tokenizer *t;
    tl_error e;
    assert_int_equal(tokenizer_from_bytes(&mem_default, &t, &e), TL_OK);
    token_decoder d;
    token_decoder_init(&d, t, 0);
    str s;
    str_init(&s, &mem_default);
    const uint8_t in[] = {'x', 0xe2, 0x82, 0xac, 0xe2, 0x82, 'y', 0xff, 0xf0};
    const size_t want[] = {1, 1, 1, 4, 4, 4, 8, 11, 11}; /* text length after each byte */
    for (size_t i = 0; i < sizeof in; i++) {
        assert_int_equal(token_decoder_push(&d, in[i], &s, &e), TL_OK);
        assert_int_equal(s.len, want[i]);
    }
    assert_int_equal(token_decoder_finish(&d, &s, &e), TL_OK);
    assert_string_equal(s.data, "x\xe2\x82\xac\xef\xbf\xbdy\xef\xbf\xbd\xef\xbf\xbd");
    str_fini(&s);
    tokenizer_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_round_trip),
        cmocka_unit_test(specials_by_choice),
        cmocka_unit_test(chars_sorted_with_unknown),
        cmocka_unit_test(stream_waits_for_whole_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
