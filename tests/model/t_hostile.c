/* tests/format/hostile/NAME beside NAME.expected: the status and words of the message each bad file must give
 * (tools/vectors/hostile.py). What a reader takes for such a file stays below a fixed size. */
#include "support/testing.h"

#include "base/file.h"
#include "format/safetensors.h"
#include "model/generation.h"
#include "model/gguf.h"

#include <stdlib.h>

enum { MOST = 8 << 20 };

static tl_engine *engine;

static int setup(void **state) {
    (void)state;
    return tl_engine_create(&(tl_engine_options){.threads = 1}, &engine, NULL) != TL_OK;
}

static int teardown(void **state) {
    (void)state;
    tl_engine_destroy(engine);
    return 0;
}

static tl_status open_config(const tl_allocator *a, const char *path, tl_error *e) {
    json_t *o;
    model_config c;
    TRY(json_read_file(a, path, 1 << 20, &o, e));
    tl_status s = config_read(o, &c, NULL, 0, e);
    json_decref(o);
    return s;
}

static tl_status open_generation(const tl_allocator *a, const char *path, tl_error *e) {
    json_t *o;
    model_config c;
    model_generation g;
    TRY(config_preset("tiny", &c, e));
    c.vocab = 100;
    TRY(json_read_file(a, path, 1 << 20, &o, e));
    tl_status s = generation_read(o, &g, &c, e);
    json_decref(o);
    return s;
}

static tl_status open_tensors(const tl_allocator *a, const char *path, tl_error *e) {
    safetensors s;
    TRY(safetensors_open(a, path, &s, e));
    safetensors_close(&s);
    return TL_OK;
}

static tl_status open_gguf(const tl_allocator *a, const char *path, tl_error *e) {
    gguf g;
    TRY(gguf_open(a, path, &g, e));
    gguf_close(&g);
    return TL_OK;
}

static tl_status open_model(const tl_allocator *a, const char *path, tl_error *e) {
    tl_model *m;
    (void)a;
    TRY(model_open(engine, path, &m, e));
    model_close(m);
    return TL_OK;
}

static const struct {
    const char *tail;
    tl_status (*open)(const tl_allocator *a, const char *path, tl_error *e);
} kinds[] = {{".config.json", open_config}, {".generation.json", open_generation},
             {".model.gguf", open_model},   {".safetensors", open_tensors},
             {".index", open_tensors},      {".gguf", open_gguf}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static int kind_of(const char *name) {
    for (int i = 0; i < KINDS; i++) {
        size_t n = strlen(name), t = strlen(kinds[i].tail);
        if (n > t && strcmp(name + n - t, kinds[i].tail) == 0) return i;
    }
    return -1;
}

/* False, with a line that says why, if a file does not give the error beside it. */
static bool gives_its_error(const char *dir, const char *name, int kind) {
    char path[1000], want_path[1100], text[1200];
    size_t size;
    tl_error e = {0};
    test_alloc a;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    snprintf(want_path, sizeof want_path, "%s.expected", path);
    char *want = test_slurp(want_path, &size), *part;
    if (!want) {
        print_error("%s: no .expected beside it\n", name);
        return false;
    }
    long status = strtol(want, &part, 10);
    part += *part == ' ';
    part[strcspn(part, "\n")] = 0;
    test_alloc_init(&a);
    tl_status s = kinds[kind].open(&a.base, path, &e);
    tl_error_text(&e, text, sizeof text);
    bool good = s == (tl_status)status && strstr(text, part) && e.text[0];
    if (!good) print_error("%s: got %d \"%s\", want %ld \"%s\"\n", name, s, s ? text : "opened", status, part);
    if (a.peak_bytes > MOST) {
        print_error("%s: took %zu bytes\n", name, a.peak_bytes);
        good = false;
    }
    test_alloc_done(&a);
    free(want);
    return good;
}

static void each_file_gives_its_error(void **state) {
    (void)state;
    char dir[600];
    char **names;
    size_t n;
    int seen[KINDS] = {0}, bad = 0;
    tl_error e = {0};
    snprintf(dir, sizeof dir, "%s/tests/format/hostile", TILIA_SOURCE_DIR);
    assert_ok(file_list(&mem_default, dir, &names, &n, &e), &e);
    for (size_t i = 0; i < n; i++) {
        int kind = kind_of(names[i]);
        if (kind < 0) continue;
        seen[kind]++;
        bad += !gives_its_error(dir, names[i], kind);
    }
    file_list_free(&mem_default, names);
    for (int i = 0; i < KINDS; i++) assert_true(seen[i] >= 10);
    assert_int_equal(bad, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(each_file_gives_its_error)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
