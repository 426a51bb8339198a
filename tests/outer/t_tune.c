/* The program on models that are there: trained on as a whole, by adapters and on answers; numbers that are not finite,
 * disks that are full; texts without end; tasks. */
#include "support/testing.h"

#include "tilia.h"

#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];

static int shell(const char *before, const char *args) {
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && %s '%s' %s >out 2>err </dev/null", dir, before, TILIA_PROGRAM, args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
static int run(const char *args) {
    return shell("", args);
}

static char *slurp(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    size_t n;
    char *text = test_slurp(path, &n);
    if (!text) fail_msg("no %s", name);
    return text;
}

static void assert_runs(const char *args) {
    int code = run(args);
    if (!code) return;
    char *err = slurp("err");
    fail_msg("tilia %s: %d\n%s", args, code, err);
}

static void assert_has(const char *name, const char *part) {
    char *text = slurp(name);
    if (!strstr(text, part)) fail_msg("%s has no \"%s\":\n%s", name, part, text);
    free(text);
}

/* The number behind the last "key": of a file. */
static double last_number(const char *name, const char *key) {
    char *text = slurp(name), *at = NULL, mark[64];
    snprintf(mark, sizeof mark, "\"%s\": ", key);
    for (char *s = text; (s = strstr(s, mark)); s++) at = s + strlen(mark);
    if (!at) fail_msg("%s has no %s:\n%s", name, mark, text);
    double x = strtod(at, NULL);
    free(text);
    return x;
}

static bool exists(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return access(path, F_OK) == 0;
}

static FILE *create(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    return f;
}

/* A text in which one sentence alone has the letter Z, and examples. */
static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    FILE *f = create("book.txt");
    for (int i = 0; i < 200; i++) fprintf(f, i == 20 ? "Zebras.\n" : "%d birds sat on branch %d.\n", i % 7, i % 5);
    fclose(f);
    f = create("chats.jsonl");
    for (int i = 0; i < 60; i++)
        fprintf(
            f,
            "{\"messages\":[{\"role\":\"user\",\"content\":\"How many birds on branch %d?\"},{\"role\":\"assistant\","
            "\"content\":\"%d birds.\"}]}\n",
            i % 5, i % 5 + 2);
    fclose(f);
    f = create("bad.jsonl");
    fprintf(f, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}]}\n"
               "{\"messages\":[{\"role\":\"user\"}]}\n");
    fclose(f);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

static const char config[] =
    "{\"model_type\":\"llama\",\"vocab_size\":257,\"hidden_size\":32,\"intermediate_size\":64,\"num_hidden_layers\":2,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":64,\"tie_word_embeddings\":false}";

/* A model; with poison the embedding of Z is not a number. */
static void make_model(const char *name, bool poison) {
    tl_engine *engine;
    tl_model *m;
    tl_tokenizer *t;
    tl_model_tensor info;
    tl_error e = {0};
    char path[512];
    assert_ok(tl_engine_create(NULL, &engine, &e), &e);
    assert_ok(tl_tokenizer_bytes(engine, &t, &e), &e);
    assert_ok(tl_model_create(engine, config, t, 3, &m, &e), &e);
    for (size_t i = 0; poison && i < tl_model_tensors(m); i++) {
        assert_ok(tl_model_tensor_info(m, i, &info, &e), &e);
        if (!strstr(info.name, "embed_tokens")) continue;
        float *w = malloc((size_t)(info.dim[0] * info.dim[1]) * sizeof *w);
        assert_ok(tl_model_tensor_get(m, i, w, &e), &e);
        w['Z' * info.dim[1]] = NAN;
        assert_ok(tl_model_tensor_set(m, i, w, &e), &e);
        free(w);
    }
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_ok(tl_model_save(m, path, &e), &e);
    tl_model_close(m);
    tl_tokenizer_close(t);
    tl_engine_destroy(engine);
}

#define TRAIN "train book.txt --batch 64 --context 32 --eval-every 0 --quiet --lr 1e-3 "

static void numbers_that_are_not_finite(void **state) {
    (void)state;
    make_model("poisoned", true);
    assert_int_equal(run(TRAIN "--model poisoned --steps 80 --save-every 10 --out stop"), 1);
    assert_has("err", "the loss is nan; the last good checkpoint is stop/ckpt-");
    assert_true(exists("stop/latest"));
    assert_runs(TRAIN "--model poisoned --steps 80 --save-every 10 --out skip --on-nan skip --json");
    assert_has("err", "the loss is nan");
    assert_int_equal(last_number("out", "steps"), 80);
    assert_true(isfinite(last_number("skip/metrics.jsonl", "loss")));
    assert_runs(TRAIN "--model poisoned --steps 80 --save-every 10 --out back --on-nan rollback --json");
    assert_has("err", "tilia: back to step ");
    assert_has("err", "is passed over");
    assert_int_equal(last_number("out", "steps"), 80);
    assert_int_equal(run(TRAIN "--model poisoned --steps 80 --out loop --on-nan maybe"), 2);
}

static void files_that_may_not_grow(void **state) {
    (void)state;
    assert_int_equal(shell("ulimit -f 40;", TRAIN "--preset tiny --steps 5 --out full"), 1);
    assert_has("err", "File too large");
    assert_has("err", "the run directory cannot hold a checkpoint");
    assert_false(exists("full/run.json"));
    /* room for checkpoints, none for the metrics: training ends, with a warning and a failure */
    make_model("small", false);
    assert_runs(TRAIN "--model small --steps 3 --out grown");
    char command[128];
    snprintf(command, sizeof command, "ulimit -f %d;", 600); /* of 512 bytes */
    assert_int_equal(shell(command, "train --resume grown --steps 1700 --quiet --eval-every 0 --save-every 1700"), 1);
    assert_has("err", "metrics are not written, training goes on");
    assert_true(exists("grown/ckpt-00001700"));
}

/* stories260K, from GGUF and as a Hugging Face directory: the loss falls, a resumed run is the same run, and what comes
 * out opens everywhere. */
static void a_loaded_model_learns(void **state) {
    (void)state;
    TEST_DATA_OR_SKIP(gguf, "stories260K/stories260K.gguf")
    char command[1400], path[1024];
    assert_non_null(realpath(gguf, path));
    snprintf(command, sizeof command, "convert %s hf --quiet", path);
    assert_runs(command);
    for (int k = 0; k < 2; k++) {
        const char *from = k ? "hf" : path;
        snprintf(command, sizeof command, "eval %s --text book.txt --context 64 --json", from);
        assert_runs(command);
        double before = last_number("out", "loss");
        snprintf(command, sizeof command, TRAIN "--model %s --steps 12 --save-every 7 --out whole%d", from, k);
        assert_runs(command);
        snprintf(command, sizeof command, "eval whole%d --text book.txt --context 64 --json", k);
        assert_runs(command);
        assert_true(last_number("out", "loss") < before - 0.3);
        double straight = last_number(k ? "whole1/metrics.jsonl" : "whole0/metrics.jsonl", "loss");
        snprintf(command, sizeof command, "%s/whole%d/ckpt-00000012", dir, k);
        char remove[1500];
        snprintf(remove, sizeof remove, "rm -r '%s'", command);
        assert_int_equal(system(remove), 0);
        snprintf(command, sizeof command, "train --resume whole%d --quiet --eval-every 0", k);
        assert_runs(command);
        assert_true(last_number(k ? "whole1/metrics.jsonl" : "whole0/metrics.jsonl", "loss") == straight);
    }
    assert_runs("convert whole0 whole.gguf --quiet");
    assert_runs("generate whole0 '3 birds' -n 20 --temperature 0 --quiet");
    char *a = slurp("out");
    assert_runs("generate whole.gguf '3 birds' -n 20 --temperature 0 --quiet");
    char *b = slurp("out");
    assert_string_equal(a, b);
    free(a), free(b);
}

/* Positions stretched fourfold: windows longer than the model knew train, the checkpoint keeps the scaling, a resumed
 * run goes on with it. */
static void a_context_is_stretched(void **state) {
    (void)state;
    make_model("short", false); /* 64 positions */
    assert_runs("train book.txt --batch 256 --context 256 --eval-every 0 --quiet --lr 1e-3 --model short "
                "--rope-scaling yarn:4 --steps 12 --save-every 6 --out long");
    assert_has("long/ckpt-00000012/config.json", "\"rope_type\": \"yarn\"");
    assert_has("long/ckpt-00000012/config.json", "\"factor\": 4.0");
    assert_has("long/ckpt-00000012/config.json", "\"original_max_position_embeddings\": 64");
    assert_true(last_number("long/ckpt-00000012/config.json", "max_position_embeddings") == 256);
    double straight = last_number("long/metrics.jsonl", "loss");
    char command[512];
    snprintf(command, sizeof command, "rm -r '%s/long/ckpt-00000012'", dir);
    assert_int_equal(system(command), 0);
    assert_runs("train --resume long --quiet --eval-every 0");
    assert_true(last_number("long/metrics.jsonl", "loss") == straight);
    assert_runs("eval long --text book.txt --context 256 --json");
    double stretched = last_number("out", "loss");
    assert_runs("eval short --text book.txt --context 256 --rope-scaling yarn:4 --json");
    assert_true(stretched < last_number("out", "loss") - 0.3);
    /* by adapters: the base's files know nothing of it, theirs do */
    assert_runs("train book.txt --batch 256 --context 256 --eval-every 0 --quiet --lr 1e-2 --model short --lora 4 "
                "--rope-scaling yarn:4 --steps 12 --save-every 6 --out low");
    assert_has("low/ckpt-00000012/base.json", "\"rope_scaling\": \"yarn:4\"");
    straight = last_number("low/metrics.jsonl", "loss");
    snprintf(command, sizeof command, "rm -r '%s/low/ckpt-00000012'", dir);
    assert_int_equal(system(command), 0);
    assert_runs("train --resume low --quiet --eval-every 0");
    assert_true(last_number("low/metrics.jsonl", "loss") == straight);
    snprintf(command, sizeof command,
             "cd '%s' && cp -r low wild && sed -i 's/yarn:4/wild:2/' wild/ckpt-00000012/base.json", dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(run("generate wild x -n 1"), 1); /* a file's mistake, no wrong usage */
    assert_has("err", "base.json: \"wild:2\" is no rope scaling");
    assert_runs("convert low wide --quiet");
    assert_has("wide/config.json", "\"rope_type\": \"yarn\"");
    assert_runs("eval low --text book.txt --context 256 --json");
    stretched = last_number("out", "loss");
    assert_runs("eval wide --text book.txt --context 256 --json");
    assert_near(last_number("out", "loss"), stretched, 1e-4);
    assert_int_equal(run(TRAIN "--model short --rope-scaling yarn:0 --steps 2 --out none"), 2);
    assert_int_equal(run(TRAIN "--model short --rope-scaling wild:4 --steps 2 --out none"), 2);
    assert_false(exists("none"));
}

static void adapters_live(void **state) {
    (void)state;
    if (!exists("small")) make_model("small", false);
    assert_runs("eval small --text book.txt --context 32 --json");
    double before = last_number("out", "loss");
    assert_runs(TRAIN "--model small --lora 4 --lora-targets all --lr 1e-2 --steps 60 --out lora");
    assert_runs("eval lora --text book.txt --context 32 --json");
    double after = last_number("out", "loss");
    if (!(after < before - 0.1)) fail_msg("the loss went from %g to %g", before, after);
    assert_runs("convert lora merged --quiet");
    assert_runs("eval merged --text book.txt --context 32 --json");
    assert_near(last_number("out", "loss"), after, 1e-4);
    assert_runs("eval small --adapter lora --text book.txt --context 32 --json");
    assert_near(last_number("out", "loss"), after, 1e-9);
    assert_runs("generate small --adapter lora '3 b' -n 8 --temperature 0 --quiet");
    assert_runs("inspect lora");
    assert_has("out", "adapter, inwards");
    assert_has("out", "output head");
    assert_runs("plan small --lora 4 --json");
    assert_true(last_number("out", "trained_params") < 10000);
    assert_runs("quantize small q.gguf --type q8_0 --quiet");
    assert_runs(TRAIN "--model q.gguf --lora 4 --steps 3 --out loraq --json");
    assert_int_equal(run("train --resume lora --lora 4"), 2);
}

static void answers_are_learned(void **state) {
    (void)state;
    if (!exists("small")) make_model("small", false);
    assert_int_equal(run("train chats.jsonl --model small --steps 60 --batch 224 --context 112 --lr 1e-2 --out chats "
                         "--eval-every 0 --template chatml"),
                     0);
    assert_has("err", "tokens in answers");
    assert_true(last_number("chats/metrics.jsonl", "loss") < 1.0);
    assert_int_equal(run("train chats.jsonl --model small --steps 2 --batch 64 --context 32 --out cut"), 1);
    assert_has("err", "no example has an answer within a context of 32 tokens");
    assert_int_equal(
        run("train chats.jsonl --model small --steps 2 --batch 128 --context 52 --out cut --quiet --template "
            "plain"),
        0);
    assert_int_equal(run("train bad.jsonl --model small --steps 2 --out bad"), 1);
    assert_has("err", "bad.jsonl:2");
    assert_int_equal(run("train chats.jsonl --model small --steps 2 --out bad --random-windows"), 2);
    assert_int_equal(run("train chats.jsonl --model small --steps 2 --out bad --template klingon"), 2);
    assert_false(exists("bad"));
}

static void texts_without_end(void **state) {
    (void)state;
    if (!exists("small")) make_model("small", false);
    assert_runs("generate small a -n 500 --cache-window 24 --sinks 2 --ignore-eos --seed 3 --json --kv-dtype bf16");
    assert_int_equal(last_number("out", "tokens"), 500); /* the model was made for 64 */
    assert_runs("generate small a -n 500 --ignore-eos --seed 3 --json");
    assert_true(last_number("out", "tokens") < 64);
}

/* Many prompts together give what each gives alone, in their order, however many at a time. */
static void many_prompts(void **state) {
    (void)state;
    if (!exists("small")) make_model("small", false);
    FILE *f = create("prompts.txt");
    fputs("3 b\nfour birds\n\n5\nsix\n", f);
    fclose(f);
    assert_runs("generate small --prompts prompts.txt -n 12 --temperature 0 --quiet");
    char *all = slurp("out"), *rest = all;
    static const char *const prompt[] = {"3 b", "four birds", "", "5", "six"};
    for (int i = 0; i < 5; i++) {
        char command[200];
        snprintf(command, sizeof command, "generate small '%s' -n 12 --temperature 0 --quiet", prompt[i]);
        assert_runs(command);
        char *one = slurp("out");
        if (strncmp(rest, one, strlen(one)) != 0) fail_msg("prompt %d: \"%s\" is not \"%s\"", i, rest, one);
        rest += strlen(one);
        free(one);
    }
    free(all);
    assert_runs("generate small --prompts prompts.txt -n 12 --seed 5 --json --parallel 2");
    assert_has("out", "\"prompt\": \"six\"");
    char *two = slurp("out");
    *strstr(two, "\"seconds\"") = 0;
    assert_runs("generate small --prompts prompts.txt -n 12 --seed 5 --json --parallel 2 --threads 1");
    char *four = slurp("out");
    *strstr(four, "\"seconds\"") = 0;
    assert_string_equal(two, four);
    free(two), free(four);
    assert_int_equal(run("generate small a --prompts prompts.txt"), 2);
    assert_int_equal(run("generate small --prompts nowhere.txt"), 1);
    assert_int_equal(run("generate small a --parallel 2"), 2);
}

/* An interrupt stops the answer, which would not end by itself, and not the conversation: what is said next is heard.
 */
static void an_interrupt_stops_the_answer(void **state) {
    (void)state;
    int in[2], out[2], status;
    char text[64];
    if (!exists("small")) make_model("small", false);
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(in[0], 0), dup2(out[1], 1);
        close(in[1]), close(out[0]);
        if (chdir(dir)) _exit(9);
        execl(TILIA_PROGRAM, "tilia", "chat", "small", "-n", "100000000", "--temperature", "0", "--cache-window", "32",
              "--quiet", (char *)NULL);
        _exit(9);
    }
    close(in[0]), close(out[1]);
    assert_int_equal(write(in[1], "hello\n", 6), 6);
    for (int i = 0; i < 8; i++) assert_true(read(out[0], text, sizeof text) > 0); /* it is writing */
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(write(in[1], "/undo\n/quit\n", 12), 12);
    while (read(out[0], text, sizeof text) > 0) {
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    close(in[1]), close(out[0]);
}

static void tasks_and_strides(void **state) {
    (void)state;
    if (!exists("small")) make_model("small", false);
    assert_runs("eval --task help");
    assert_has("out", "passkey");
    assert_runs("eval small --task passkey --length 400,500 --depth 0,100 --trials 1 --json --quiet --seed 4");
    assert_has("out", "\"task\": \"passkey\"");
    assert_int_equal(last_number("out", "length"), 500);
    char *first = slurp("out");
    assert_runs("eval small --task passkey --length 400,500 --depth 0,100 --trials 1 --json --quiet --seed 4");
    char *again = slurp("out");
    assert_string_equal(first, again);
    free(first), free(again);
    assert_int_equal(run("eval small --task passkey --length 50 --trials 1"), 2);
    assert_has("err", "no room");
    if (exists("hf")) { /* of 512 positions, in tokens so small that a quarter of them has no room: it is left out */
        assert_runs("eval hf --task passkey --depth 50 --trials 1 --json --quiet");
        char *table = slurp("out");
        assert_null(strstr(table, "\"length\": 128"));
        free(table);
        assert_has("out", "\"length\": 256");
        assert_int_equal(last_number("out", "length"), 512);
    }
    /* more context for every token: a lower loss; the same tokens are counted */
    assert_runs("eval merged --text book.txt --context 32 --json");
    double windows = last_number("out", "loss"), tokens = last_number("out", "tokens");
    assert_runs("eval merged --text book.txt --context 32 --stride 8 --json");
    assert_true(last_number("out", "loss") < windows);
    assert_near(last_number("out", "tokens"), tokens, 0);
    assert_runs("eval merged --text book.txt --context 32 --stride 32 --json");
    assert_near(last_number("out", "loss"), windows, 1e-6);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(numbers_that_are_not_finite),
                                       cmocka_unit_test(files_that_may_not_grow),
                                       cmocka_unit_test(a_loaded_model_learns),
                                       cmocka_unit_test(a_context_is_stretched),
                                       cmocka_unit_test(adapters_live),
                                       cmocka_unit_test(answers_are_learned),
                                       cmocka_unit_test(texts_without_end),
                                       cmocka_unit_test(many_prompts),
                                       cmocka_unit_test(an_interrupt_stops_the_answer),
                                       cmocka_unit_test(tasks_and_strides)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
