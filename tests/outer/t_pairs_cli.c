/* The program on pairs of source and target, and on prompts that see both ways: trained, taken up again, evaluated,
 * asked. */
#include "support/testing.h"

#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

static char dir[256];

static int run(const char *args) {
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && '%s' %s >out 2>err </dev/null", dir, TILIA_PROGRAM, args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static char *slurp(const char *name) {
    char path[512];
    size_t n;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    char *text = test_slurp(path, &n);
    if (!text) fail_msg("no %s", name);
    return text;
}

static void assert_runs(const char *args) {
    if (run(args)) fail_msg("tilia %s\n%s", args, slurp("err"));
}

static void assert_fails_with(const char *args, const char *part) {
    int code = run(args);
    if (code != 1 && code != 2) fail_msg("tilia %s: %d\n%s", args, code, slurp("err"));
    char *text = slurp("err");
    if (!strstr(text, part)) fail_msg("tilia %s: no \"%s\" in\n%s", args, part, text);
    free(text);
}

static double last_number(const char *name, const char *key) {
    char *text = slurp(name), *at = NULL, mark[64];
    snprintf(mark, sizeof mark, "\"%s\": ", key);
    for (char *s = text; (s = strstr(s, mark)); s++) at = s + strlen(mark);
    if (!at) fail_msg("%s has no %s", name, mark);
    double x = strtod(at, NULL);
    free(text);
    return x;
}

static void write_file(const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Words and the same words in capitals; questions and answers; a text. */
static int setup(void **state) {
    static char text[1 << 16];
    size_t n = 0;
    (void)state;
    test_tempdir(dir, sizeof dir);
    for (int i = 0; i < 300; i++) {
        char word[5] = {0};
        for (int k = 0; k < 4; k++) word[k] = (char)('a' + ((uint32_t)i * 2654435761u >> (5 * k + 3)) % 6);
        n += (size_t)snprintf(text + n, sizeof text - n, "{\"source\": \"%s\", \"target\": \"%c%c%c%c\"}\n", word,
                              word[0] - 32, word[1] - 32, word[2] - 32, word[3] - 32);
    }
    write_file("pairs.jsonl", text);
    n = 0;
    for (int i = 0; i < 300; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "{\"prompt\": \"%d and %d\", \"completion\": \" are %d\"}\n",
                              i % 4, i % 3, i % 4 + i % 3);
    write_file("sums.jsonl", text);
    write_file("half.jsonl", "{\"source\": \"a\", \"target\": \"b\"}\n{\"source\": \"a\", \"target\": \"\"}\n");
    write_file("bare.jsonl", "{\"source\": \"a\", \"target\": \"b\"}\n{\"source\": 3, \"target\": \"b\"}\n");
    n = 0;
    for (int i = 0; i < 200; i++) n += (size_t)snprintf(text + n, sizeof text - n, "line %d of a text\n", i);
    write_file("text.txt", text);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

#define SMALL " --tokenizer bytes --context 32 --batch 512 --lr 5e-3 --quiet --seed 3 --eval-every 0 "

/* The run goes on from its middle as it went; its validation, and that of tilia eval, is of the answers alone. */
static void taken_up(const char *data, const char *how, const char *name) {
    char command[1000];
    snprintf(command, sizeof command, "train %s %s" SMALL "--steps 12 --save-every 7 --out %s", data, how, name);
    assert_runs(command);
    snprintf(command, sizeof command, "%s/metrics.jsonl", name);
    const double straight = last_number(command, "loss");
    char remove[1200];
    snprintf(remove, sizeof remove, "rm -r '%s/%s/ckpt-00000012'", dir, name);
    assert_int_equal(system(remove), 0);
    snprintf(command, sizeof command, "train --resume %s --quiet --eval-every 0", name);
    assert_runs(command);
    snprintf(command, sizeof command, "%s/metrics.jsonl", name);
    assert_true(last_number(command, "loss") == straight);
    snprintf(command, sizeof command, "eval %s --text %s --context 32 --json", name, data);
    assert_runs(command);
    assert_true(last_number("out", "loss") > 0);
}

static void runs_are_taken_up(void **state) {
    (void)state;
    const char *ordinary = "--preset char-cpu --set layers=2 --set width=32 --set heads=2 --set mlp=64 ";
    const char *gated = "--preset gau-char-cpu --set layers=2 --set width=32 --set expansion=48 --set shared_size=16 ";
    char how[400];
    snprintf(how, sizeof how, "%s--objective seq2seq", ordinary);
    taken_up("pairs.jsonl", how, "pairs");
    assert_true(last_number("out", "tokens") == 300 * 5); /* four letters and an end */
    snprintf(how, sizeof how, "%s--objective seq2seq --set encoder_layers=1 --dtype bf16", gated);
    taken_up("pairs.jsonl", how, "units");
    snprintf(how, sizeof how, "%s--objective prefix", gated);
    taken_up("sums.jsonl", how, "sums");
    snprintf(how, sizeof how, "%s--objective prefix", ordinary);
    taken_up("text.txt", how, "text");
    assert_runs("inspect pairs");
    char *text = slurp("out");
    assert_non_null(strstr(text, "model.encoder.layers.1.self_attn") ? text : strstr(text, "model.encoder.layers.1"));
    free(text);
    assert_runs("plan pairs --train --json");
    assert_runs("train --resume pairs --steps 300 --quiet --eval-every 0 --save-every 300");
    assert_runs("generate pairs bead --temperature 0 --quiet");
    text = slurp("out");
    assert_string_equal(text, "BEAD\n");
    free(text);
    write_file("many.txt", "bead\nface\ncafe");
    assert_runs("generate pairs --prompts many.txt --temperature 0 --quiet --json");
    text = slurp("out");
    assert_non_null(strstr(text, "\"text\": \"CAFE\""));
    free(text);
}

static void mistakes(void **state) {
    (void)state;
    assert_fails_with("train text.txt --preset char-cpu --objective seq2seq" SMALL "--steps 2 --out bad", "\"source\"");
    assert_fails_with("train half.jsonl --preset char-cpu --objective seq2seq" SMALL "--steps 2 --out bad",
                      "half.jsonl:2: the target is empty");
    assert_fails_with("train bare.jsonl --preset char-cpu --objective seq2seq" SMALL "--steps 2 --out bad",
                      "\"source\" is no text");
    assert_fails_with("train pairs.jsonl --preset char-cpu --objective mlm" SMALL "--steps 2 --out bad",
                      "examples need");
    assert_fails_with("train pairs.jsonl --preset char-cpu --set mixer=gla --objective seq2seq" SMALL
                      "--steps 2 --out bad",
                      "an encoder, which sees both sides");
    assert_fails_with("train pairs.jsonl --model sums --objective seq2seq --steps 2 --quiet --out bad",
                      "needs an encoder");
    assert_fails_with("train pairs.jsonl --model pairs --objective causal --steps 2 --quiet --out bad",
                      "--objective seq2seq");
    assert_fails_with("eval pairs --text text.txt", "pairs");
    assert_fails_with("chat pairs", "tilia generate");
    assert_fails_with("generate pairs abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz --quiet", "encoder's 32");
    assert_fails_with("convert pairs pairs.gguf --quiet", "keep it as a directory");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(runs_are_taken_up), cmocka_unit_test(mistakes)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
