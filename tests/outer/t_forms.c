/* The program with models of the field's forms: generate, convert, quantize, chat; and files that are none. */
#include "support/testing.h"

#include <stdlib.h>
#include <sys/wait.h>

/* Runs a shell line, with $T the program; its stdout (and stderr if both) into out. Returns the exit code. */
static int run(const char *line, char *out, size_t size) {
    char command[2000];
    snprintf(command, sizeof command, "T='%s'; %s", TILIA_PROGRAM, line);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    size_t n = fread(out, 1, size - 1, f);
    out[n] = 0;
    int status = pclose(f);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static char tmp[200], out[20000];

static int setup(void **state) {
    (void)state;
    test_tempdir(tmp, sizeof tmp);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(tmp);
    return 0;
}

static void gguf_generates_the_published_text(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    TEST_DATA_OR_SKIP(text, "stories260K/greedy-200.txt");
    char *want = test_slurp(text, NULL), line[1200];
    static const char *const more[] = {"", "--no-cache", "--threads 1"};
    for (int i = 0; i < 3; i++) {
        snprintf(line, sizeof line, "$T generate '%s' -n 200 -t 0 --quiet %s", path, more[i]);
        assert_int_equal(run(line, out, sizeof out), 0);
        size_t m = strlen(want);
        while (m && want[m - 1] == '\n') m--;
        assert_int_equal(strncmp(out, want, m), 0);
    }
    /* directory, GGUF, half floats, blocks */
    snprintf(
        line, sizeof line,
        "cd '%s' && $T convert '%s' hf --quiet && $T convert hf x.gguf --quiet && $T quantize x.gguf q.gguf --type "
        "q8_0 --quiet > /dev/null && $T convert hf/model.safetensors h.gguf --type f16 --quiet && for m in hf x.gguf "
        "q.gguf h.gguf; do $T generate $m -n 40 -t 0 --quiet; done",
        tmp, path);
    assert_int_equal(run(line, out, sizeof out), 0);
    const char *at = out;
    for (int i = 0; i < 4; i++) {
        assert_int_equal(strncmp(at, want, 100), 0);
        at = strchr(at, '\n');
        assert_non_null(at);
        at++;
    }
    free(want);
}

static void quantizing_reports_sizes_and_errors(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    char line[1200];
    snprintf(line, sizeof line, "cd '%s' && $T quantize '%s' a.gguf --type q4_0 --json", tmp, path);
    assert_int_equal(run(line, out, sizeof out), 0);
    assert_non_null(strstr(out, "\"type\": \"q4_0\""));
    assert_non_null(strstr(out, "\"worst_error\""));
    /* not over what is there; a type of the field that is not ours; no type at all; no GGUF path */
    assert_int_equal(run(strcat(line, " 2>&1"), out, sizeof out), 1);
    assert_non_null(strstr(out, "nothing was overwritten"));
    snprintf(line, sizeof line, "cd '%s' && $T quantize '%s' b.gguf --type q5_k_m 2>&1", tmp, path);
    assert_int_equal(run(line, out, sizeof out), 1);
    assert_non_null(strstr(out, "known but not supported"));
    snprintf(line, sizeof line, "cd '%s' && $T quantize '%s' b.gguf --type nonsense 2>&1", tmp, path);
    assert_int_equal(run(line, out, sizeof out), 2);
    snprintf(line, sizeof line, "cd '%s' && $T quantize '%s' b --type q8_0 2>&1", tmp, path);
    assert_int_equal(run(line, out, sizeof out), 2);
    snprintf(line, sizeof line, "cd '%s' && test ! -e b.gguf", tmp);
    assert_int_equal(run(line, out, sizeof out), 0);
}

static void key_value_heads_are_merged(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    char line[1200];
    snprintf(line, sizeof line,
             "cd '%s' && $T convert '%s' merged --kv-heads 2 --quiet && grep num_key_value merged/config.json && $T "
             "generate "
             "merged -n 5 -t 0 --quiet",
             tmp, path);
    assert_int_equal(run(line, out, sizeof out), 0);
    assert_non_null(strstr(out, "\"num_key_value_heads\": 2"));
    snprintf(line, sizeof line, "cd '%s' && $T convert '%s' merged3 --kv-heads 3 2>&1", tmp, path);
    assert_int_equal(run(line, out, sizeof out), 2);
}

static void chat_keeps_and_forgets(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(path, "stories260K/stories260K.gguf");
    char line[1200], first[200], third[200];
    snprintf(
        line, sizeof line,
        "printf 'Hello\\nWho are you?\\n/reset\\nHello\\n/quit\\nnever\\n' | $T chat '%s' -t 0 -n 16 --json --quiet",
        path);
    assert_int_equal(run(line, out, sizeof out), 0);
    char *l1 = strtok(out, "\n"), *l2 = strtok(NULL, "\n"), *l3 = strtok(NULL, "\n"), *l4 = strtok(NULL, "\n");
    assert_true(l1 && l2 && l3);
    assert_null(l4);
    snprintf(first, sizeof first, "%s", l1);
    snprintf(third, sizeof third, "%s", l3);
    assert_string_equal(first, third); /* greedy, and nothing left of what was said before */
    assert_string_not_equal(first, l2);
}

static void what_is_no_model_is_refused(void **state) {
    (void)state;
    char line[1200];
    static const struct {
        const char *make, *name, *says;
    } rows[] = {{"printf GGUF > %s", "short.gguf", "ends too early"},
                {"printf 'nothing' > %s", "x.gguf", "not a GGUF"},
                {"printf '\\200\\002' > %s", "pytorch_model.bin", "safe_serialization"},
                {"printf x > %s", "model.txt", "neither a GGUF nor"},
                {"true %s", "absent.gguf", "no such"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char make[100];
        snprintf(make, sizeof make, rows[i].make, rows[i].name);
        snprintf(line, sizeof line, "mkdir -p '%s/bad' && cd '%s/bad' && rm -f * && %s && $T generate %s 2>&1", tmp,
                 tmp, make, rows[i].name);
        assert_int_equal(run(line, out, sizeof out), 1);
        if (!strcasestr(out, rows[i].says)) fail_msg("%s: %s", rows[i].name, out);
        assert_non_null(strstr(out, rows[i].name));
    }
}

/* Texts one behind the other, though by themselves they would be told apart; a segment as long as a row is the row. */
static void segments_go_on_across_texts(void **state) {
    (void)state;
    static const char *const more[] = {"", "--segment 32", "--segment 64", "--segment 999"};
    char line[1200];
    snprintf(line, sizeof line,
             "cd '%s' && for i in 1 2 3; do seq $i 7 1200 > s$i.txt; done && $T train s1.txt s2.txt s3.txt --preset "
             "flash-char-cpu --context 64 --set chunk_size=16 --segment 32 --batch 128 --steps 2 --out seg --quiet",
             tmp);
    assert_int_equal(run(line, out, sizeof out), 0);
    double loss[4];
    for (int i = 0; i < 4; i++) {
        snprintf(line, sizeof line, "cd '%s' && $T eval seg --text s2.txt --json --quiet %s", tmp, more[i]);
        assert_int_equal(run(line, out, sizeof out), 0);
        const char *at = strstr(out, "\"loss\": ");
        assert_non_null(at);
        loss[i] = strtod(at + 8, NULL);
    }
    assert_near(loss[1], loss[0], 1e-5);
    assert_true(loss[2] == loss[0] && loss[3] == loss[0]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gguf_generates_the_published_text), cmocka_unit_test(quantizing_reports_sizes_and_errors),
        cmocka_unit_test(key_value_heads_are_merged),        cmocka_unit_test(chat_keeps_and_forgets),
        cmocka_unit_test(what_is_no_model_is_refused),       cmocka_unit_test(segments_go_on_across_texts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
