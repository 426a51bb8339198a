/* Files become documents: text, JSON lines, gzip, zstd, folders; and what is wrong with a file is said with its place.
 */
#include "base/file.h"
#include "data/corpus.h"
#include "support/testing.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

static char dir[512];

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

static const char *at(const char *name) {
    static char path[4][700];
    static int k;
    k = (k + 1) % 4;
    snprintf(path[k], sizeof path[k], "%s/%s", dir, name);
    return path[k];
}

static const char *put(const char *name, const void *p, size_t n) {
    const char *path = at(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
    return path;
}

static const char *puts_(const char *name, const char *text) {
    return put(name, text, strlen(text));
}

/* gzip members of `part` bytes each, cut off `cut` bytes before the end. */
static const char *put_gz(const char *name, const char *p, size_t n, size_t part, size_t cut) {
    const char *path = at(name);
    remove(path);
    for (size_t i = 0; i < n; i += part) {
        gzFile g = gzopen(path, "ab");
        assert_true(gzwrite(g, p + i, (unsigned)(n - i < part ? n - i : part)) > 0);
        gzclose(g);
    }
    if (cut) assert_int_equal(truncate(path, file_size(path) - (int64_t)cut), 0);
    return path;
}

static const char *put_zst(const char *name, const char *p, size_t n, size_t part, size_t cut) {
    size_t room = ZSTD_compressBound(n) + 1000 * (n / part + 1), used = 0;
    char *buf = malloc(room);
    for (size_t i = 0; i < n; i += part)
        used += ZSTD_compress(buf + used, room - used, p + i, n - i < part ? n - i : part, 3);
    const char *path = put(name, buf, used - cut);
    free(buf);
    return path;
}

/* All documents of files, joined with '|'. */
static tl_status read_all(const tl_allocator *a, const char *const *path, size_t n, const corpus_options *o, str *out,
                          tl_error *e) {
    corpus *c;
    TRY(corpus_open(a, path, n, o, &c, e));
    bool more = true;
    tl_status s = TL_OK;
    while (!s && more) {
        s = corpus_document(c, 1 << 30, out, NULL, &more, e);
        if (!s && more) str_addc(out, '|');
    }
    corpus_close(c);
    return !s && out->failed ? TL_NOMEM : s;
}

static void expect(const char *path, const corpus_options *o, const char *want) {
    str got;
    tl_error e;
    str_init(&got, &mem_default);
    assert_ok(read_all(&mem_default, &path, 1, o, &got, &e), &e);
    assert_string_equal(got.data, want);
    str_fini(&got);
}

static void expect_error(const char *path, const corpus_options *o, tl_status want, int64_t line, const char *word) {
    str got;
    tl_error e;
    str_init(&got, &mem_default);
    error_clear(&e);
    assert_int_equal(read_all(&mem_default, &path, 1, o, &got, &e), want);
    assert_string_equal(e.file, path);
    assert_int_equal(e.line, line);
    if (!strstr(e.text, word)) fail_msg("\"%s\" does not say \"%s\"", e.text, word);
    str_fini(&got);
}

static void text_files(void **state) {
    (void)state;
    expect(puts_("a.txt", "one\n\ntwo\n"), NULL, "one\n\ntwo\n|");
    corpus_options o = {.separator = "\n\n"};
    expect(puts_("a.txt", "\n\n\none\n\n\n\n\ntwo\nlines\n\n"), &o, "one|two\nlines|");
    expect(puts_("a.txt", "one"), &o, "one|");
    o.separator = "<|endoftext|>";
    expect(puts_("a.txt", "one\n<|endoftext|>\ntwo<|endoftext|><|endoftext|>\n<|end\n<|endoftext|>"), &o,
           "one\n|two|<|end\n|");
    expect(puts_("b.txt", "\xef\xbb\xbfwith a mark"), NULL, "with a mark|");
    expect(puts_("latin1", "caf\xe9"), NULL, "caf\xe9|"); /* bytes are bytes; a byte tokenizer takes them */
}

static void json_lines(void **state) {
    (void)state;
    expect(
        puts_("a.jsonl", "{\"text\":\"one\\n\"}\n\n  \n{\"id\":3,\"text\":\"\"}\r\n{\"text\":\"\\u4e8c\",\"x\":[1]}"),
        NULL, "one\n|\xe4\xba\x8c|");
    corpus_options o = {.text_field = "story"};
    expect(puts_("a.ndjson", "{\"story\":\"s\",\"text\":\"t\"}\n"), &o, "s|");
    o.format = CORPUS_TEXT;
    expect(puts_("b.jsonl", "{}\n"), &o, "{}\n|");
    o.format = CORPUS_JSONL;
    expect(puts_("c.dat", "{\"story\":\"s\"}"), &o, "s|");
}

static void wrong_files_name_their_place(void **state) {
    (void)state;
    expect_error(puts_("empty.txt", ""), NULL, TL_FORMAT, 0, "empty");
    expect_error(put("bin.txt", "ab\ncd\n\0x", 8), NULL, TL_FORMAT, 3, "binary");
    expect_error(put("bin.jsonl", "{\"text\":\"a\"}\n\0", 14), NULL, TL_FORMAT, 2, "binary");
    expect_error(puts_("a.jsonl", "{\"text\":\"a\"}\n{\"text\":1}\n"), NULL, TL_FORMAT, 2, "not a string");
    expect_error(puts_("a.jsonl", "{\"text\":\"a\"}\n\n{\"txt\":\"b\"}\n"), NULL, TL_FORMAT, 3, "\"text\"");
    expect_error(puts_("a.jsonl", "{\"text\":\"a\"}\n[1]\n"), NULL, TL_FORMAT, 2, "object");
    expect_error(puts_("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\n"), NULL, TL_FORMAT, 2, "JSON");
    expect_error(puts_("a.jsonl", "\n\n"), NULL, TL_FORMAT, 0, "no text");
    corpus_options o = {.max_line = 20};
    expect_error(puts_("a.jsonl", "{\"text\":\"a\"}\n{\"text\":\"a long line, longer than 20\"}\n"), &o, TL_LIMIT, 2,
                 "more than 20");
    o.separator = "--";
    expect_error(puts_("a.txt", "\n\n--\n--"), &o, TL_FORMAT, 0, "no text");
    expect_error(at("nothing.txt"), NULL, TL_NOTFOUND, 0, "no such");
    const char *p = at("a.txt");
    corpus *c;
    o.separator = "";
    assert_int_equal(corpus_open(&mem_default, &p, 1, &o, &c, NULL), TL_ARG);
    assert_int_equal(corpus_open(&mem_default, &p, 0, NULL, &c, NULL), TL_ARG);
}

static void a_document_has_a_place(void **state) {
    (void)state;
    const char *path = puts_("a.txt", "one\n\n\ntwo\n\nthree\n");
    corpus_options o = {.separator = "\n\n"};
    corpus *c;
    corpus_part p;
    bool more;
    tl_error e;
    static const int64_t line[] = {1, 4, 6};
    assert_ok(corpus_open(&mem_default, &path, 1, &o, &c, &e), &e);
    for (int i = 0; i < 3; i++) {
        assert_ok(corpus_next(c, &p, &more, &e), &e);
        assert_true(more && p.last);
        assert_int_equal(p.line, line[i]);
        assert_string_equal(p.file, path);
    }
    assert_ok(corpus_next(c, &p, &more, &e), &e);
    assert_false(more);
    assert_int_equal(corpus_documents(c), 3);
    assert_int_equal(corpus_bytes(c), 12);
    assert_int_equal(corpus_files(c), 1);
    corpus_close(c);
}

/* 5 MB with separators at all places relative to the buffer's ends, plain and packed, in one piece and in many. */
static void big_files_and_packed_ones(void **state) {
    (void)state;
    str text, want, got;
    str_init(&text, &mem_default);
    str_init(&want, &mem_default);
    str_init(&got, &mem_default);
    for (int i = 0; i < 70000; i++) {
        size_t from = want.len;
        for (int k = 0; k < i % 9; k++) str_addf(&want, "word%d ", i);
        str_addf(&want, "<|e<|end%d", i);
        str_add(&text, want.data + from, want.len - from);
        str_adds(&text, "<|end|>");
        str_addc(&want, '|');
    }
    corpus_options o = {.separator = "<|end|>"};
    const char *path[5] = {put("big.txt", text.data, text.len), NULL};
    char keep[5][700];
    snprintf(keep[0], 700, "%s", path[0]);
    snprintf(keep[1], 700, "%s", put_gz("big.txt.gz", text.data, text.len, text.len, 0));
    snprintf(keep[2], 700, "%s", put_gz("many.gz", text.data, text.len, 100000, 0));
    snprintf(keep[3], 700, "%s", put_zst("big.zst", text.data, text.len, text.len, 0));
    snprintf(keep[4], 700, "%s", put_zst("many", text.data, text.len, 100000, 0));
    for (int i = 0; i < 5; i++) {
        tl_error e;
        path[0] = keep[i];
        str_clear(&got);
        assert_ok(read_all(&mem_default, path, 1, &o, &got, &e), &e);
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.data, want.data, want.len);
    }
    str_fini(&text);
    str_fini(&want);
    str_fini(&got);
}

/* Memory does not grow with a document: one of 8 MB comes in parts of at most 1 MiB. */
static void memory_is_bounded(void **state) {
    (void)state;
    size_t n = 8 << 20;
    char *big = malloc(n);
    memset(big, 'x', n);
    char path[700];
    snprintf(path, sizeof path, "%s", put_zst("x.txt.zst", big, n, n, 0));
    free(big);
    test_alloc t;
    test_alloc_init(&t);
    t.limit = 5 << 20;
    corpus *c;
    corpus_part p;
    bool more = true;
    tl_error e;
    const char *one = path;
    size_t sum = 0, parts = 0;
    assert_ok(corpus_open(&t.base, &one, 1, NULL, &c, &e), &e);
    for (;;) {
        assert_ok(corpus_next(c, &p, &more, &e), &e);
        if (!more) break;
        assert_true(p.n <= 1 << 20);
        sum += p.n;
        parts++;
    }
    assert_int_equal(sum, n);
    assert_true(parts >= 8);
    assert_int_equal(corpus_documents(c), 1);
    corpus_close(c);
    print_message("          peak %zu KiB\n", t.peak_bytes >> 10);
    test_alloc_done(&t);
}

static void packed_files_that_are_damaged(void **state) {
    (void)state;
    expect_error(put("page.txt.gz", "<html>", 6), NULL, TL_FORMAT, 0, "not compressed");
    expect_error(put("page.jsonl.zst", "<html>", 6), NULL, TL_FORMAT, 0, "not compressed");
    char text[5000];
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + (uint32_t)(i * 2654435761u) / 7 % 23);
    for (size_t cut = 1; cut < 200; cut += 7) {
        expect_error(put_gz("cut.txt.gz", text, sizeof text, sizeof text, cut), NULL, TL_FORMAT, 0, "cut off");
        expect_error(put_zst("cut.txt.zst", text, sizeof text, sizeof text, cut), NULL, TL_FORMAT, 0, "cut off");
    }
    size_t n;
    char *p = test_slurp(put_gz("bad.gz", text, sizeof text, sizeof text, 0), &n);
    p[n - 6] ^= 1; /* the checksum */
    expect_error(put("bad.gz", p, n), NULL, TL_FORMAT, 0, "damaged");
    free(p);
    p = test_slurp(put_zst("bad.zst", text, sizeof text, sizeof text, 0), &n);
    p[4] ^= 0x55;
    memset(p + 10, 0xff, 30);
    expect_error(put("bad.zst", p, n), NULL, TL_FORMAT, 0, "damaged");
    free(p);
}

static void folders(void **state) {
    (void)state;
    assert_int_equal(mkdir(at("tree"), 0777), 0);
    assert_int_equal(mkdir(at("tree/sub"), 0777), 0);
    assert_int_equal(mkdir(at("tree/.hidden"), 0777), 0);
    expect_error(at("tree"), NULL, TL_NOTFOUND, 0, "no .txt");
    puts_("tree/b.txt", "b");
    puts_("tree/a.md", "a");
    puts_("tree/.c.txt", "hidden");
    puts_("tree/.hidden/d.txt", "hidden");
    puts_("tree/picture.png", "no text");
    put_gz("tree/sub/z.jsonl.gz", "{\"text\":\"z\"}", 12, 100, 0);
    puts_("tree/sub/y.ndjson", "{\"text\":\"y\"}");
    expect(at("tree"), NULL, "a|b|y|z|");
    assert_int_equal(symlink("..", at("tree/sub/loop")), 0);
    const char *path = at("tree");
    corpus *c;
    tl_error e;
    assert_int_equal(corpus_open(&mem_default, &path, 1, NULL, &c, &e), TL_LIMIT);
}

static void standard_input(void **state) {
    (void)state;
    const char *path = puts_("in.txt", "from a pipe");
    int keep = dup(0), fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && dup2(fd, 0) == 0);
    close(fd);
    expect("-", NULL, "from a pipe|");
    dup2(keep, 0);
    close(keep);
}

typedef struct job {
    const char *path[3];
} job;

static tl_status read_job(const tl_allocator *a, void *user) {
    job *j = user;
    str s;
    str_init(&s, a);
    tl_status st = read_all(a, j->path, 3, NULL, &s, NULL);
    if (!st) assert_string_equal(s.data, "plain|json|zipped|");
    str_fini(&s);
    return st;
}

static void failing_memory(void **state) {
    (void)state;
    char keep[3][700];
    snprintf(keep[0], 700, "%s", puts_("m.txt", "plain"));
    snprintf(keep[1], 700, "%s", puts_("m.jsonl", "{\"text\":\"json\"}"));
    snprintf(keep[2], 700, "%s", put_gz("m.txt.gz", "zipped", 6, 10, 0));
    job j = {{keep[0], keep[1], keep[2]}};
    assert_true(test_alloc_sweep(read_job, &j) >= 8);
    snprintf(keep[2], 700, "%s", put_zst("m.txt.zst", "zipped", 6, 10, 0));
    assert_true(test_alloc_sweep(read_job, &j) >= 8);
}

static ssize_t bad_read(int fd, void *p, size_t n) {
    (void)fd, (void)p, (void)n;
    errno = EIO;
    return -1;
}

static void failing_reads(void **state) {
    (void)state;
    const char *path = puts_("a.txt", "text");
    file_sys_table real = file_sys;
    file_sys.read = bad_read;
    str s;
    str_init(&s, &mem_default);
    tl_error e;
    tl_status st = read_all(&mem_default, &path, 1, NULL, &s, &e);
    file_sys = real;
    assert_int_equal(st, TL_IO);
    assert_string_equal(e.file, path);
    str_fini(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_files),
        cmocka_unit_test(json_lines),
        cmocka_unit_test(wrong_files_name_their_place),
        cmocka_unit_test(a_document_has_a_place),
        cmocka_unit_test(big_files_and_packed_ones),
        cmocka_unit_test(memory_is_bounded),
        cmocka_unit_test(packed_files_that_are_damaged),
        cmocka_unit_test(folders),
        cmocka_unit_test(standard_input),
        cmocka_unit_test(failing_memory),
        cmocka_unit_test(failing_reads),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
