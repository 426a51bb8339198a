/* Examples: what of a conversation is learned, family by family; rows that hold them whole; shards that keep the
 * marks; mistakes named by file and line. */
#include "support/testing.h"

#include "data/chats.h"
#include "data/loader.h"

#include <stdlib.h>

static char dir[256];
static tokenizer *bytes;

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    return tokenizer_from_bytes(&mem_default, &bytes, NULL);
}
static int teardown(void **state) {
    (void)state;
    tokenizer_close(bytes);
    test_tempdir_remove(dir);
    return 0;
}

static const char *put(const char *name, const char *text) {
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return path;
}

/* The text of a conversation with [ before what is learned and ] behind it. */
static void shown(const char *family, const chat_message *m, size_t n, const char *want) {
    token_list ids;
    str mark, text;
    tl_error e = {0};
    token_list_init(&ids, &mem_default);
    ids.want_spans = true;
    str_init(&mark, &mem_default);
    str_init(&text, &mem_default);
    assert_ok(tokenizer_chat_marked(bytes, family, m, n, &ids, &mark, &e), &e);
    assert_int_equal(mark.len, ids.n);
    for (size_t i = 0; i < ids.n; i++) {
        char c = ids.id[i] == 256 ? '~' : (char)ids.id[i], on = mark.data[i], was = i ? mark.data[i - 1] : 0;
        if (on != was) str_adds(&text, on ? "[" : "]");
        str_add(&text, &c, 1);
        if (on && i + 1 == ids.n) str_adds(&text, "]");
    }
    assert_string_equal(text.data, want);
    token_list_fini(&ids);
    str_fini(&mark);
    str_fini(&text);
}

static void answers_are_marked(void **state) {
    (void)state;
    static const chat_message m[] = {{"user", "Hi"}, {"assistant", "Yo"}, {"user", "2+2"}, {"assistant", "4"}};
    shown("chatml", m, 4,
          "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yo<|im_end|>]\n<|im_start|>user\n2+2<|im_end|>\n"
          "<|im_start|>assistant\n[4<|im_end|>]\n");
    shown("gemma", m, 4,
          "<bos><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\n[Yo<end_of_turn>]\n<start_of_turn>user\n2+2"
          "<end_of_turn>\n<start_of_turn>model\n[4<end_of_turn>]\n");
    shown("llama3", m, 2,
          "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|><|start_header_id|>assistant"
          "<|end_header_id|>\n\n[Yo<|eot_id|>]");
    shown("llama2", m, 2, "<s>[INST] Hi [/INST] [Yo ~]");
    shown("mistral", m, 2, "<s>[INST] Hi [/INST] [Yo~]");
    shown("phi3", m, 2, "<|user|>\nHi<|end|>\n<|assistant|>\n[Yo<|end|>]\n");
    shown("zephyr", m, 2, "<|user|>\nHi~\n<|assistant|>\n[Yo~]\n");
    shown("plain", m, 4, "User: Hi\nAssistant:[ Yo\n]User: 2+2\nAssistant:[ 4\n]");
}

static tl_status make(const char *file, const char *family, shard *s, chats_report *r, tl_error *e) {
    char path[512];
    shard_writer w;
    snprintf(path, sizeof path, "%s/data.tokens", dir);
    TRY(shard_writer_open(&w, &mem_default, path, tokenizer_vocab(bytes), 256, 0, e));
    tl_status st = chats_write(&mem_default, &file, 1, bytes, family, &w, NULL, NULL, r, e);
    if (st == TL_OK) st = shard_writer_commit(&w, e);
    if (st != TL_OK) {
        shard_writer_abort(&w);
        return st;
    }
    return shard_open(path, true, s, e);
}

static const char talk[] =
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"bb\"}]}\n"
    "\n"
    "{\"messages\":[{\"role\":\"system\",\"content\":\"s\"},{\"role\":\"user\",\"content\":[{\"type\":\"text\","
    "\"text\":"
    "\"c\"},{\"type\":\"text\",\"text\":\"d\"}]},{\"role\":\"assistant\",\"content\":\"e\"}]}\n"
    "{\"prompt\":\"Q: \",\"completion\":\"x y\"}\n"
    "{\"prompt\":[{\"role\":\"user\",\"content\":\"f\"},{\"role\":\"assistant\",\"content\":\"g\"},{\"role\":\"user\","
    "\"content\":\"h\"}],\"completion\":[{\"role\":\"assistant\",\"content\":\"i\"}]}\n";

/* Ids of the marked tokens of document d, as text; 256 is shown as ~. */
static void learned_of(const tokens *t, int64_t d, char *out) {
    for (int64_t i = 0, k = 0; i < t->n; k += tokens_ends(t, i), i++)
        if (k == d && t->mark[i] & TOKENS_LEARNED) *out++ = tokens_at(t, i) == 256 ? '~' : (char)tokens_at(t, i);
    *out = 0;
}

static void files_become_examples(void **state) {
    (void)state;
    static const char *const want[] = {" bb\n~", " e\n~", "x y~", " i\n~"};
    const char *file = put("talk.jsonl", talk);
    shard s;
    chats_report r;
    tl_error e = {0};
    assert_true(chats_are(&mem_default, &file, 1));
    assert_ok(make(file, NULL, &s, &r, &e), &e);
    assert_int_equal(r.examples, 4);
    assert_int_equal(s.view.documents, 4);
    assert_non_null(s.view.mark);
    assert_int_equal(r.learned, 5 + 4 + 4 + 4);
    for (int64_t d = 0; d < 4; d++) {
        char got[64];
        learned_of(&s.view, d, got);
        assert_string_equal(got, want[d]);
    }
    tokens train, val;
    assert_ok(tokens_split(&s.view, 0.25, &train, &val, &e), &e);
    assert_int_equal(train.documents, 3);
    assert_int_equal(val.documents, 1);
    assert_ptr_equal(val.mark, s.view.mark + train.n);
    const tokens one = tokens_slice(&s.view, train.n, s.view.n); /* its end would be predicted from nothing */
    assert_int_equal(tokens_split(&one, 0.25, &train, &val, &e), TL_LIMIT);
    assert_non_null(strstr(e.text, "one example"));
    shard_close(&s);
    file = put("text.jsonl", "{\"text\":\"a\"}\n");
    assert_false(chats_are(&mem_default, &file, 1));
    file = put("talk.txt", talk);
    assert_false(chats_are(&mem_default, &file, 1));
}

/* Every row of an epoch: each example whole, from its own position 0, its first id read and not predicted; targets are
 * what is marked, each once. */
static void rows_hold_whole_examples(void **state) {
    (void)state;
    enum { T = 64 };
    const char *file = put("talk.jsonl", talk);
    shard s;
    chats_report r;
    loader *l;
    tl_error e = {0};
    int32_t input[T], target[T], pos[T], doc[T];
    int64_t labels = 0, cut, out, longest;
    assert_ok(make(file, NULL, &s, &r, &e), &e);
    loader_options o = {.mode = LOADER_PACKED, .B = 1, .T = T, .seed = 3};
    assert_ok(loader_open(&mem_default, &s.view, &o, &l, &e), &e);
    loader_cuts(l, &cut, &out, &longest);
    assert_int_equal(cut + out, 0);
    assert_int_equal(loader_targets(l), r.learned);
    assert_true(loader_rows(l) < 4); /* packed */
    for (int64_t i = 0; i < loader_rows(l); i++) {
        loader_batch b = {.input = input, .target = target, .pos = pos, .doc_start = doc};
        loader_get(l, i, &b);
        labels += b.labels;
        for (int c = 0; c < T; c++) {
            assert_int_equal(pos[c], c - doc[c]);
            if (target[c] < 0) continue;
            assert_true(pos[c] > 0); /* a prompt stands before */
            if (c + 1 < T && pos[c + 1]) assert_int_equal(input[c + 1], target[c]);
        }
    }
    assert_int_equal(labels, r.learned);
    loader_close(l);
    o.T = 20; /* the longest conversations are cut or left out */
    assert_ok(loader_open(&mem_default, &s.view, &o, &l, &e), &e);
    loader_cuts(l, &cut, &out, &longest);
    assert_true(cut == 1 && out == 2 && longest == 42);
    for (int64_t i = 0; i < 2 * loader_rows(l); i++) {
        loader_batch b = {.input = input, .target = target, .pos = pos, .doc_start = doc};
        loader_get(l, i, &b);
        assert_true(b.labels > 0); /* a row never teaches nothing */
    }
    loader_close(l);
    o.T = 2;
    assert_fails(TL_LIMIT, loader_open(&mem_default, &s.view, &o, &l, &e), &e);
    o.T = 20, o.mode = LOADER_WINDOWS;
    assert_fails(TL_ARG, loader_open(&mem_default, &s.view, &o, &l, &e), &e);
    shard_close(&s);
}

static void mistakes_name_their_line(void **state) {
    (void)state;
#define GOOD "{\"prompt\":\"a\",\"completion\":\"b\"}\n"
    static const struct {
        const char *line, *family, *says;
    } bad[] = {
        {"{\"messages\":[]}", NULL, "no list of messages"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}", NULL, "\"assistant\" to learn"},
        {"{\"messages\":[{\"content\":\"a\"}]}", NULL, "message 0 has no \"role\""},
        {"{\"messages\":[{\"role\":\"user\",\"content\":3}]}", NULL, "message 0 has no \"content\""},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}", NULL, "part 0 of message 0"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\\u0000b\"}]}", NULL, "u0000"},
        {"{\"prompt\":\"a\"}", NULL, "no \"completion\" beside the \"prompt\""},
        {"{\"completion\":\"a\"}", NULL, "no \"prompt\" beside the \"completion\""},
        {"{\"source\":\"a\"}", NULL, "no \"target\" beside the \"source\""},
        {"{\"target\":\"a\"}", NULL, "no \"source\" beside the \"target\""},
        {"{\"prompt\":\"a\",\"completion\":\"\"}", NULL, "completion is empty"},
        {"{\"text\":\"a\"}", NULL, "neither"},
        {"{\"messages\"", NULL, ""},
        {"[]", NULL, "not a JSON object"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"},{\"role\":\"user\",\"content\":\"b\"}]}", "gemma",
         "no place for role"},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\"}]}", "klingon", "not known"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[600];
        shard s;
        chats_report r;
        tl_error e = {0};
        snprintf(text, sizeof text, GOOD "%s\n", bad[i].line);
        const char *file = put("bad.jsonl", text);
        assert_true(make(file, bad[i].family, &s, &r, &e) != TL_OK);
        assert_int_equal(e.line, 2);
        assert_non_null(strstr(e.file, "bad.jsonl"));
        if (!strstr(e.text, bad[i].says)) fail_msg("line %zu: %s", i, e.text);
    }
}

static tl_status sweep(const tl_allocator *a, void *user) {
    char path[512];
    const char *file = user;
    shard_writer w;
    chats_report r;
    tokenizer *t;
    snprintf(path, sizeof path, "%s/swept.tokens", dir);
    TRY(tokenizer_from_bytes(a, &t, NULL));
    tl_status s = shard_writer_open(&w, a, path, 257, 256, 0, NULL);
    if (s == TL_OK) {
        s = chats_write(a, &file, 1, t, "chatml", &w, NULL, NULL, &r, NULL);
        if (s == TL_OK) s = shard_writer_commit(&w, NULL);
        if (s != TL_OK) shard_writer_abort(&w);
    }
    tokenizer_close(t);
    return s;
}

static void failing_memory(void **state) {
    (void)state;
    char path[512];
    snprintf(path, sizeof path, "%s", put("talk.jsonl", talk));
    assert_true(test_alloc_sweep(sweep, path) > 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_are_marked), cmocka_unit_test(files_become_examples),
                                       cmocka_unit_test(rows_hold_whole_examples),
                                       cmocka_unit_test(mistakes_name_their_line), cmocka_unit_test(failing_memory)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
