/* The program from outside: exit codes, what goes to which stream, and a whole life of a model from training to text.
 */
#include "support/testing.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

static char dir[256];

/* Runs `tilia ARGS` in the test's folder; stdout and stderr land in files there. Returns the exit code. */
static int run(const char *args) {
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && '%s' %s >out 2>err </dev/null", dir, TILIA_PROGRAM, args);
    int status = system(command);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static char *slurp(const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    size_t n;
    char *text = test_slurp(path, &n);
    assert_non_null(text);
    return text;
}

static void assert_has(const char *name, const char *part) {
    char *text = slurp(name);
    if (!strstr(text, part)) print_error("%s has no \"%s\":\n%s\n", name, part, text);
    assert_non_null(strstr(text, part));
    free(text);
}

static void put(const char *name, const char *text, size_t n) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(text, 1, n, f);
    fclose(f);
}

static int setup(void **state) {
    (void)state;
    test_tempdir(dir, sizeof dir);
    put("empty.txt", "", 0);
    put("binary.txt", "abc\0def", 7);
    put("short.txt", "hi\n", 3);
    put("lone.jsonl", "{\"source\": \"a\"}\n", 16);
    put("alone.jsonl", "{\"source\": \"a\", \"target\": \"b\"}\n", 31);
    put("page.txt.gz", "<html>", 6);
    put("list.json", "[1, 2]", 6);
    put("typed.json", "{\"model_type\":\"llama\",\"hidden_size\":\"64\"}", 41);
    static const char batch[] =
        "{\"model_type\":\"llama\",\"hidden_size\":64,\"intermediate_size\":96,\"num_hidden_layers\":1,\"num_attention_"
        "heads\":4,\"vocab_size\":100,\"max_position_embeddings\":32,\"tilia\":{\"norm\":\"batchnorm\"}}";
    put("batchnorm.json", batch, sizeof batch - 1);
    put("other.json", "{\"model_type\":\"mamba\"}", 22);
    char path[512];
    snprintf(path, sizeof path, "%s/book.txt", dir);
    FILE *f = fopen(path, "wb");
    for (int i = 0; f && i < 3000; i++) fprintf(f, "%d birds sat on branch %d.\n", i % 7, i % 5);
    return !f || fclose(f);
}

static int teardown(void **state) {
    (void)state;
    test_tempdir_remove(dir);
    return 0;
}

/* A GPU that is not there: one line, exit code 1, whichever the build has; and tilia devices says why. */
static void no_gpu(void **state) {
    (void)state;
    int code = run("devices --json");
    assert_int_equal(code, 0);
    char *told = slurp("out");
    const bool without = strstr(told, "built without nvcc"), absent = strstr(told, "no NVIDIA GPU or driver");
    free(told);
    assert_int_equal(run("devices --device tpu"), 1);
    assert_has("err", "there are \"cpu\" and \"cuda\"");
    if (!without && !absent) {
        print_message("          there is a GPU here\n");
        skip();
    }
    static const char *const all[] = {"devices --device cuda", "train book.txt --steps 1 --device cuda",
                                      "demo --device cuda"};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        assert_int_equal(run(all[i]), 1);
        assert_has("err",
                   without ? "this build has no CUDA (built without nvcc)" : "no NVIDIA GPU or driver was found");
        char *err = slurp("err");
        assert_ptr_equal(strchr(err, '\n'), err + strlen(err) - 1); /* one line */
        free(err);
    }
}

static void mistakes_have_their_exit_code(void **state) {
    (void)state;
    static const struct {
        const char *args;
        int code;
        const char *says;
    } rows[] = {
        {"", 2, "Usage: tilia COMMAND"},
        {"nosuch", 2, "no command \"nosuch\""},
        {"trian", 2, "did you mean train?"},
        {"generate", 2, "which model"},
        {"generate nowhere", 1, "nowhere: no such directory"},
        {"generate .", 1, "config.json"},
        {"generate . x y", 2, "more than a model and a prompt"},
        {"generate . -n 0", 2, "-n is \"0\""},
        {"generate . -n 1e3", 2, "-n is \"1e3\""},
        {"generate . --temperature -1", 2, "--temperature is \"-1\""},
        {"generate . --temperature nan", 2, "--temperature is \"nan\""},
        {"generate . --top-p 1.5", 2, "--top-p"},
        {"generate . --stop ''", 2, "--stop"},
        {"generate . --kv-dtype q9", 2, "--kv-dtype"},
        {"generate . --adapter nowhere", 1, "config.json"},
        {"eval . --text book.txt --adapter", 2, "requires an argument"},
        {"generate . --bogus", 2, "unrecognized option"},
        {"generate . --threads 0", 2, "--threads"},
        {"eval .", 2, "which text"},
        {"eval . --task nosuch", 2, "no task"},
        {"eval . --task passkey --text book.txt", 2, "exclude each other"},
        {"eval . --task passkey --depth 101", 2, "--depth"},
        {"eval . --text book.txt --context 8 --stride 9", 2, "--stride"},
        {"generate . --sinks 4", 2, "needs --cache-window"},
        {"generate . --context 8 --cache-window 8", 2, "exclude each other"},
        {"eval nowhere --text book.txt", 1, "nowhere"},
        {"plan", 2, "give one of"},
        {"plan --preset huge", 1, "no preset \"huge\"; there are"},
        {"plan --preset gpt2 --depth 3", 2, "give one of"},
        {"plan --depth 0", 1, "depth"},
        {"plan --config nowhere.json", 1, "nowhere.json"},
        {"plan --config list.json", 1, "not an object"},
        {"plan --config typed.json", 1, "hidden_size"},
        {"plan --config other.json", 1, "mamba"},
        {"plan --config batchnorm.json", 2, "--train plans its training"},
        {"plan --preset gpt2 --dtype f8", 2, "--dtype"},
        {"plan --preset gpt2 --hardware b9000", 2, "no hardware \"b9000\"; there are a100"},
        {"plan --preset gpt2 --flops 3n", 2, "--flops"},
        {"plan --preset gpt2 --memory lots", 2, "--memory is \"lots\""},
        {"plan --preset gpt2 --weights q9", 2, "no weights of type \"q9\""},
        {"plan --preset gpt2 --train --weights q8_0", 2, "training keeps f32"},
        {"plan --preset gpt2 --hardware a100 --plot roof.gif", 2, "must end in .svg or .png"},
        {"plan nowhere.gguf", 1, "nowhere.gguf"},
        {"plan --preset gpt2 --price-hour -1", 2, "--price-hour"},
        {"scaling", 2, "fit or sweep"},
        {"scaling guess", 2, "it can be fit or sweep"},
        {"scaling fit", 2, "one RUNS.json, or --runs"},
        {"scaling fit nowhere.json", 1, "nowhere.json"},
        {"scaling fit typed.json", 1, "neither a list of runs"},
        {"scaling sweep", 2, "which text"},
        {"scaling sweep book.txt", 2, "needs budgets"},
        {"scaling sweep book.txt --budget 1e6", 2, "gets 20 steps"},
        {"bench", 2, "measure what? There are gemm"},
        {"bench gemm train", 2, "one measurement at a time"},
        {"bench train --model x.gguf", 2, "--model goes with generate, not with train"},
        {"bench overhead --model x.gguf", 2, "--model goes with generate, not with overhead"},
        {"bench overhead --preset gpt2", 2,
         "--preset goes with train, generate, kv-cache and predict, not with overhead"},
        {"bench gemm -b 4", 2, "--batch goes with train, generate and predict, not with gemm"},
        {"bench kv-cache --rounds 3", 2, "--rounds goes with generate, not with kv-cache"},
        {"bench nothing", 2, "there are gemm, attention, train, generate, kv-cache, tokenizer, predict and overhead"},
        {"bench generate --model x.gguf --preset gpt2", 2, "--model has its own shape"},
        {"bench generate --model /none/x.gguf --quiet", 1, "/none/x.gguf"},
        {"plan --preset gpt2 --set nothing=3", 1, "no key \"nothing\""},
        {"plan --preset gpt2 --set layers=many", 1, "n_layer"},
        {"plan --preset gpt2 --set layers", 1, "KEY=VALUE"},
        {"plan --preset gpt2 --set 'mixers=[\"conv\"]'", 1, "mixers"},
        {"train book.txt --preset tiny --objective both --steps 2 --out r", 2, "mlm, prefix or seq2seq"},
        {"train book.txt --preset char-cpu --objective mlm --set grid_rows=7 --set grid_cols=9 --steps 2 --out r", 1,
         "a context of 64"},
        {"train book.txt --preset char-cpu --set 'mixers=[\"nystromformer\"]' --steps 2 --out r", 1, "no causal form"},
        {"plan --preset flash-char-cpu --set chunk_outer=40", 1, "several chunks of 32"},
        {"train book.txt --preset flash-char-cpu --objective prefix --steps 2 --out r", 1, "a running sum"},
        {"plan --preset char-moe --set num_experts_per_tok=9", 1, "9 of 8 experts"},
        {"train book.txt --rope-scaling linear:4 --steps 2 --out r", 2, "give --model"},
        {"train book.txt --preset tiny --segment 8 --steps 2 --out r", 1,
         "layer 0 keeps something of every token before"},
        {"train book.txt --preset flash-char-cpu --context 64 --set chunk_size=16 --segment 32 --packed --steps 1 "
         "--out r",
         1, "by segments: documents that are packed"},
        {"plan --preset flash-char --segment 64", 2, "--segment is for --train"},
        {"plan --preset gpt2 --train --segment 256", 1, "layer 0 keeps something of every token before (attention)"},
        {"train book.txt --segment 0 --steps 2 --out r", 2, "--segment"},
        {"inspect nowhere", 1, "nowhere"},
        {"train", 2, "which text"},
        {"train nowhere.txt", 1, "nowhere.txt"},
        {"train empty.txt --steps 2 --out r", 1, "empty.txt: is empty"},
        {"train lone.jsonl --steps 2 --out r", 1, "lone.jsonl:1: there is no \"target\" beside the \"source\""},
        {"train alone.jsonl --preset tiny --steps 2 --out r", 1, "one example cannot be divided"},
        {"train page.txt.gz --steps 2 --out r", 1, "page.txt.gz: is not compressed"},
        {"train binary.txt --steps 2 --out r", 1, "binary"},
        {"train short.txt --steps 2 --out r", 1, "fewer than one context"},
        {"train book.txt --steps 2 --out r --lr banana", 2, "--lr"},
        {"train book.txt --preset tiny --depth 3 --steps 2 --out r", 2, ""},
        {"train book.txt --config typed.json --steps 2 --out r", 1, "hidden_size"},
        {"train --resume nowhere", 1, "nowhere"},
        {"train book.txt --lora 4", 2, "give it with --model"},
        {"train book.txt --model . --lora 0", 2, "--lora is \"0\""},
        {"train book.txt --model . --lora-alpha 4", 2, "need --lora RANK"},
        {"train book.txt --model . --lora 4 --lora-targets q,x", 2, "no matrix \"x\""},
        {"train book.txt --model . --lora 4 --dropout 0.1", 2, "--lora-dropout"},
        {"plan --preset gpt2 --lora 4 --lora-targets gate", 1, "none of the matrices"},
        {"plan --preset gpt2 --lora-targets q", 2, "needs --lora RANK"},
        {"convert .", 2, "where to"},
        {"quantize a b c", 2, "more than a source"},
        {"tokenizer train book.txt --out t.json", 2, "how large a vocabulary"},
        {"tokenizer train book.txt --vocab 300 --out nowhere/t.json", 1, "nowhere/t.json: cannot be written"},
        {"tokenizer train book.txt --vocab 300 --out t.json --pattern '('", 1, "missing closing parenthesis"},
        {"tokenizer encode hello", 2, "which tokenizer"},
        {"tokenizer encode --tokenizer book.txt hello", 1, "not a tokenizer file"},
        {"tokenizer decode --tokenizer bytes 104 x", 2, "\"x\" is not an id"},
        {"tokenizer decode --tokenizer bytes 999", 2, "not in the vocabulary"},
        {"tokenizer convert book.txt", 2, "SRC and DST"},
        {"tokenizer nosuch", 2, "is none of train"},
        {"bench tokenizer --text nowhere.txt", 1, "nowhere.txt"},
        {"bench tokenizer --text nowhere.txt --json", 1, "nowhere.txt"},
        {"bench tokenizer --vocab 3", 2, "--vocab is \"3\""},
        {"demo --lang fr", 2, "en or zh"},
        {"demo --prompt 'Zzz zzz' --seconds 1", 2, "no story of the grammar begins"},
        {"profile --dtype i8", 2, "--dtype"},
        {"study", 2, "list, run ID or report"},
        {"study sing", 2, "no \"study sing\""},
        {"study run", 2, "which study"},
        {"study run nosuch", 2, "no study or claim \"nosuch\"; there are mixers"},
        {"study run mixers --scale huge", 2, "--scale"},
        {"study run mixers --seeds 0", 2, "--seeds"},
        {"study run mixers --where colour=red --out s", 2, "no factor \"colour\""},
        {"study run char --scale quick --out s", 2, "--text FILE"},
        {"study run char --scale quick --text nowhere.txt --out s", 1, "nowhere.txt"},
        {"study report --out s", 2, "nothing has been measured"},
        {"plan --preset gpt2 --kv-dtype q4_0", 2, "f32, bf16, f16 or q8_0"},
        {"profile --what sleep", 2, "train, prefill or decode"},
        {"profile --floor --what decode", 2, "of a training step"},
        {"train x --recompute=some", 2, "none, light, wide or full"},
        {"profile nowhere --what decode", 1, "nowhere"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        int code = run(rows[i].args);
        if (code != rows[i].code) print_error("tilia %s: %d\n", rows[i].args, code);
        assert_int_equal(code, rows[i].code);
        assert_has("err", rows[i].says);
        char *out = slurp("out");
        assert_string_equal(out, ""); /* stdout is for results */
        free(out);
        char path[512];
        snprintf(path, sizeof path, "%s/r", dir);
        assert_int_equal(access(path, F_OK), -1); /* nothing half-made */
    }
}

static void help_is_a_result(void **state) {
    (void)state;
    assert_int_equal(run("--help"), 0);
    assert_has("out", "generate");
    assert_int_equal(run("--version"), 0);
    assert_has("out", "tilia ");
    assert_int_equal(run("generate --help"), 0);
    assert_has("out", "--temperature");
    assert_int_equal(run("plan --hardware help"), 0);
    assert_has("out", "80 GB    400\n"); /* of an a100 */
    assert_int_equal(run("devices"), 0);
    assert_has("out", "attention");
}

/* one document, whatever was measured */
static void measurements_are_one_document(void **state) {
    (void)state;
    assert_int_equal(run("bench overhead --json --threads 1"), 0);
    assert_has("out", "{\"bench\": \"overhead\"");
    assert_has("out", "\"threads\": 1, \"clock\": \"wall\", \"results\": [\n{\"threads\": 1, \"engine_start");
    assert_has("out", "}\n]}\n");
    assert_int_equal(run("bench attention --context 16 --json --quiet --threads 1"), 0);
    assert_has("out", "\"limit_flops_bf16\": ");
    assert_has("out", "\"16 tokens, 12 heads\"");
    assert_has("out", "\"16 tokens, 1 heads\"");
    assert_has("out", "},\n{\"op\": \"attention_bwd\"");
    char *text = slurp("out");
    assert_null(strstr(text, "64 tokens")); /* --context is the length, not the most */
    free(text);
}

static void plans_know_published_models(void **state) {
    (void)state;
    assert_int_equal(run("plan --preset gpt2 --json"), 0);
    assert_has("out", "\"params\": 124439808");
    assert_int_equal(run("plan --preset gpt2-xl --train --json --dtype bf16"), 0);
    assert_has("out", "\"params\": 1557611200");
}

/* train, generate twice alike, evaluate, inspect: the run directory is all there is */
static void a_model_lives(void **state) {
    (void)state;
    assert_int_equal(run("train book.txt --preset tiny --steps 30 --batch 512 --context 64 --seed 3 --out r --quiet"),
                     0);
    assert_int_equal(run("generate r '3 birds' -n 40 --temperature 0 --quiet"), 0);
    char *first = slurp("out");
    assert_int_equal(strncmp(first, "3 birds", 7), 0);
    assert_true(strlen(first) > 20);
    assert_int_equal(run("generate r '3 birds' -n 40 --temperature 0 --quiet --threads 1 --no-cache"), 0);
    char *again = slurp("out");
    assert_string_equal(first, again);
    free(first);
    free(again);
    assert_int_equal(run("generate r '3 birds' -n 40 --seed 5 --json --stop ' on'"), 0);
    assert_has("out", "\"finish\": ");
    assert_int_equal(run("eval r --text book.txt --json"), 0);
    assert_has("out", "\"bits_per_byte\"");
    assert_int_equal(run("inspect r"), 0);
    assert_has("out", "self_attn.q_proj.weight");
    assert_int_equal(run("plan r --train --json"), 0);
    assert_has("out", "\"activations_bytes\"");
    /* a run is not written over */
    assert_int_equal(run("train book.txt --preset tiny --steps 2 --out r"), 1);
    /* a full standard output is a failure that is said */
    char command[2048];
    snprintf(command, sizeof command, "cd '%s' && '%s' inspect r >/dev/full 2>err", dir, TILIA_PROGRAM);
    int status = system(command);
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_has("err", "standard output");
}

/* one that sees what follows is told so at once, with nothing on stdout, and pointed to what it can do */
static void a_masked_model_does_not_write(void **state) {
    (void)state;
    assert_int_equal(
        run("train book.txt --preset tiny --objective mlm --steps 2 --batch 128 --context 64 --out masked"), 0);
    assert_has("err", "try: tilia eval masked --text FILE");
    static const char *const rows[] = {"generate masked hello", "chat masked"};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(run(rows[i]), 1);
        assert_has("err", "so it cannot write one after the other");
        char *out = slurp("out");
        assert_string_equal(out, "");
        free(out);
    }
    assert_int_equal(run("train book.txt --preset tiny --objective mlm --steps 2 --sample-every 1 --out samples"), 2);
    assert_has("err", "--sample-every");
    assert_int_equal(run("train --resume masked --steps 4 --sample-every 1"), 2);
    assert_has("err", "--sample-every");
}

/* What was learned until then is kept; no story is told. The library that finds fonts for the picture keeps its caches,
 * which a leak checker would count. */
static void a_demo_may_be_interrupted(void **state) {
    (void)state;
    char command[2048];
    snprintf(command, sizeof command,
             "cd '%s' && ASAN_OPTIONS=detect_leaks=0 timeout --preserve-status -s INT 2 '%s' demo --seconds 60 "
             "--threads 1 --out demo >out 2>err",
             dir, TILIA_PROGRAM);
    int status = system(command);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 130);
    char *out = slurp("out");
    assert_string_equal(out, "");
    free(out);
    assert_has("err", "interrupted after ");
    assert_int_equal(run("generate demo -n 4"), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_have_their_exit_code),
        cmocka_unit_test(no_gpu),
        cmocka_unit_test(help_is_a_result),
        cmocka_unit_test(measurements_are_one_document),
        cmocka_unit_test(plans_know_published_models),
        cmocka_unit_test(a_model_lives),
        cmocka_unit_test(a_masked_model_does_not_write),
        cmocka_unit_test(a_demo_may_be_interrupted),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
